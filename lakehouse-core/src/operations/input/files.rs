//! Reading Parquet, CSV, NDJSON and Arrow files from this machine.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::StreamExt;

use super::parquet::Columns;
use super::quotes::Quotes;
use super::{Batches, InputFormat, Known, types};
use crate::error::{Error, Result};
use crate::model::limits::PARQUET_FOOTER_BYTES;
use crate::model::{PARQUET_TAIL, check_parquet_footer, parquet_footer_length};

/// Rows per batch.
const BATCH_ROWS: usize = 8192;

/// Batches that may wait between the reading thread and the operation.
const BATCHES_AHEAD: usize = 2;

/// First bytes that tell what a file is.
const MAGIC: [(&[u8], InputFormat); 2] = [(b"PAR1", InputFormat::Parquet), (b"ARROW1", InputFormat::Arrow)];

/// Batches as a thread reads them.
pub(super) type Reader = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// A file on this machine.
pub(super) struct Input {
    path: PathBuf,
    format: InputFormat,
    /// What was made of its columns, where it does not say their types, and of which content: that takes reading all of it.
    inferred: Mutex<Option<(Stamp, Schema)>>,
}

/// What tells one content of a file from another: bytes, and when it was changed.
type Stamp = (u64, SystemTime);

impl Input {
    pub(super) fn new(path: &Path, format: InputFormat) -> Self {
        Self {
            path: path.to_path_buf(),
            format,
            inferred: Mutex::new(None),
        }
    }

    /// The columns of this open file, inferred once as long as nobody changes it.
    fn inferred(
        &self,
        file: &File,
        infer: impl FnOnce() -> Result<Schema, ArrowError>,
    ) -> Result<Schema, ArrowError> {
        let metadata = file.metadata();
        let stamp = metadata.and_then(|found| Ok((found.len(), found.modified()?)));
        let mut known = self.inferred.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((of, schema)), Ok(stamp)) = (known.as_ref(), &stamp)
            && of == stamp
        {
            return Ok(schema.clone());
        }
        let schema = infer()?;
        *known = stamp.ok().map(|stamp| (stamp, schema.clone()));
        Ok(schema)
    }
}

/// Opens a file and reads it on a thread of its own. Columns that the table has get its types where the
/// file has none.
///
/// # Errors
/// [`Error::Invalid`] naming a file that is not what it says.
pub(super) async fn open(input: &Arc<Input>, known: Known<'_>) -> Result<(SchemaRef, Batches)> {
    let (input, format) = (Arc::clone(input), input.format);
    let place = input.path.display().to_string();
    let (table, fitted) = (known.schema().cloned(), matches!(known, Known::Table(_)));
    let opening = tokio::task::spawn_blocking(move || {
        let (schema, reader) = open_here(&input, table.as_ref())?;
        match table.filter(|_| fitted && matches!(format, InputFormat::Csv | InputFormat::Ndjson)) {
            Some(table) => types::fitted(schema, reader, &table, input.path.display().to_string()),
            None => Ok((schema, reader)),
        }
    });
    let (schema, reader) = opening.await.map_err(|e| thread_died(&e, &place))??;
    let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        for batch in reader {
            let failed = batch.is_err();
            if sender.blocking_send(batch).is_err() || failed {
                break;
            }
        }
    });
    let batches = futures::stream::unfold((receiver, Some(reading)), move |(mut receiver, mut reading)| {
        let place = place.clone();
        async move {
            if let Some(batch) = receiver.recv().await {
                return Some((batch, (receiver, reading)));
            }
            // The channel also ends when the thread dies: that must not look like the end of the file.
            match reading.take()?.await {
                Ok(()) => None,
                Err(error) => Some((Err(thread_died(&error, &place)), (receiver, None))),
            }
        }
    });
    Ok((schema, batches.boxed()))
}

fn open_here(input: &Input, table: Option<&Schema>) -> Result<(SchemaRef, Reader)> {
    let (path, format) = (&input.path, input.format);
    let place = path.display().to_string();
    let mut file = File::open(path).map_err(|error| cannot_read(&error, &place))?;
    let mut head = Vec::new();
    let head_read = file.by_ref().take(8).read_to_end(&mut head);
    head_read.map_err(|error| cannot_read(&error, &place))?;
    rewind(&mut file, &place)?;
    check_magic(&head, format, &place)?;
    let opened = match format {
        InputFormat::Parquet => {
            check_footer(&mut file, &place)?;
            parquet(file)
        }
        InputFormat::Csv => csv(input, file, table, &place)?,
        InputFormat::Ndjson => ndjson(input, file, table, &place)?,
        InputFormat::Arrow => arrow_ipc(file, &head),
    };
    let (schema, reader) = opened.map_err(|error| broken(format, &error, &place))?;
    let batches = reader.map(move |batch| batch.map_err(|error| broken(format, &error, &place)));
    Ok((schema, Box::new(batches)))
}

/// A footer that promises more than it holds would take the process down with it.
fn check_footer(file: &mut File, place: &str) -> Result<()> {
    let read = |file: &mut File, from: SeekFrom, buffer: &mut [u8]| {
        let result = file.seek(from).and_then(|_| file.read_exact(buffer));
        result.map_err(|error| cannot_read(&error, place))
    };
    let bytes = file.metadata().map_err(|error| cannot_read(&error, place))?.len();
    let mut tail = [0; PARQUET_TAIL];
    if bytes < tail.len() as u64 {
        return Err(
            Error::invalid("this is not a Parquet file: it is too short", place)
                .with_hint("the file is damaged or cut off: copy or write it again"),
        );
    }
    read(file, SeekFrom::End(-(PARQUET_TAIL as i64)), &mut tail)?;
    let length = parquet_footer_length(tail, bytes, PARQUET_FOOTER_BYTES, place)?;
    let mut footer = vec![0; length as usize];
    let start = bytes - PARQUET_TAIL as u64 - length;
    read(file, SeekFrom::Start(start), &mut footer)?;
    check_parquet_footer(&footer, place)?;
    rewind(file, place)
}

/// A file as its own reader sees it.
type Opened = Result<
    (
        SchemaRef,
        Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>,
    ),
    ArrowError,
>;

fn parquet(file: File) -> Opened {
    let columns = Columns::open(file, BATCH_ROWS)?;
    Ok((Arc::clone(columns.schema()), Box::new(columns)))
}

fn arrow_ipc(file: File, head: &[u8]) -> Opened {
    if head.starts_with(b"ARROW1") {
        let reader = arrow::ipc::reader::FileReader::try_new_buffered(file, None)?;
        Ok((reader.schema(), Box::new(reader)))
    } else {
        let reader = arrow::ipc::reader::StreamReader::try_new_buffered(file, None)?;
        Ok((reader.schema(), Box::new(reader)))
    }
}

fn csv(input: &Input, mut file: File, table: Option<&Schema>, place: &str) -> Result<Opened> {
    let format = CsvFormat::default().with_header(true);
    let header = match format.infer_schema(BufReader::new(&file), Some(0)) {
        Ok((header, _)) => header,
        Err(error) => return Ok(Err(error)),
    };
    if header.fields().is_empty() {
        return Err(Error::invalid(
            "a CSV file needs a header line, this one is empty",
            place,
        ));
    }
    no_duplicates(&header, place)?;
    let known = |name: &str| types::counterpart(table?.fields(), header.fields(), name);
    let inferred = if header.fields().iter().all(|field| known(field.name()).is_some()) {
        header
    } else {
        rewind(&mut file, place)?;
        let infer = || Ok(format.infer_schema(Quotes::new(BufReader::new(&file)), None)?.0);
        match input.inferred(&file, infer) {
            Ok(inferred) => inferred,
            Err(error) => return Ok(Err(error)),
        }
    };
    let schema = Arc::new(types::of_csv(&inferred, table));
    rewind(&mut file, place)?;
    let builder = arrow::csv::ReaderBuilder::new(Arc::clone(&schema))
        .with_format(format)
        .with_batch_size(BATCH_ROWS);
    Ok(builder
        .build_buffered(BufReader::new(Quotes::new(file)))
        .map(|reader| (schema, Box::new(reader) as _)))
}

fn ndjson(input: &Input, mut file: File, table: Option<&Schema>, place: &str) -> Result<Opened> {
    let infer = || Ok(arrow::json::reader::infer_json_schema(BufReader::new(&file), None)?.0);
    let inferred = match input.inferred(&file, infer) {
        Ok(inferred) => inferred,
        Err(error) => return Ok(Err(error)),
    };
    let schema = Arc::new(types::of_ndjson(&inferred, table));
    rewind(&mut file, place)?;
    // Numbers of columns that are read as text come as they are written.
    let builder = arrow::json::ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(BATCH_ROWS)
        .with_coerce_primitive(true);
    Ok(builder
        .build(BufReader::new(file))
        .map(|reader| (schema, Box::new(reader) as _)))
}

fn no_duplicates(schema: &Schema, place: &str) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for field in schema.fields() {
        if !seen.insert(field.name()) {
            return Err(Error::invalid(
                format!("the header names column {} twice", field.name()),
                place,
            ));
        }
    }
    Ok(())
}

fn check_magic(head: &[u8], format: InputFormat, place: &str) -> Result<()> {
    for (magic, really) in MAGIC {
        if head.starts_with(magic) && really != format {
            return Err(Error::invalid(
                format!("this is {}, not {}", spelled(really), spelled(format)),
                place,
            )
            .with_hint(format!("say so: the input format is {}", name(really))));
        }
    }
    if format == InputFormat::Parquet && !head.starts_with(b"PAR1") {
        return Err(
            Error::invalid("this is not a Parquet file: it does not begin with PAR1", place)
                .with_hint("if it is CSV, NDJSON or Arrow, say so with the input format"),
        );
    }
    Ok(())
}

fn rewind(file: &mut File, place: &str) -> Result<()> {
    match file.seek(SeekFrom::Start(0)) {
        Ok(_) => Ok(()),
        Err(error) => Err(cannot_read(&error, place)),
    }
}

fn cannot_read(error: &std::io::Error, place: &str) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found("input file", place),
        std::io::ErrorKind::PermissionDenied => Error::Denied {
            what: format!("reading {place}"),
        },
        _ => Error::invalid(format!("cannot be read: {error}"), place),
    }
}

fn broken(format: InputFormat, error: &ArrowError, place: &str) -> Error {
    let why = match error {
        ArrowError::CsvError(why)
        | ArrowError::JsonError(why)
        | ArrowError::ParseError(why)
        | ArrowError::ParquetError(why)
        | ArrowError::IpcError(why)
        | ArrowError::IoError(why, _)
        | ArrowError::SchemaError(why) => why.clone(),
        other => other.to_string(),
    };
    let why = why.strip_prefix("Parquet error: ").unwrap_or(&why);
    let hint = match format {
        InputFormat::Csv | InputFormat::Ndjson => {
            "correct the line; columns that the table has are read with its types, an empty cell is NULL"
        }
        InputFormat::Parquet | InputFormat::Arrow => "the file is damaged or cut off: copy or write it again",
    };
    Error::invalid(format!("cannot be read as {}: {why}", spelled(format)), place).with_hint(hint)
}

fn thread_died(error: &tokio::task::JoinError, place: &str) -> Error {
    Error::invalid(format!("reading stopped: {error}"), place)
}

fn name(format: InputFormat) -> &'static str {
    match format {
        InputFormat::Parquet => "parquet",
        InputFormat::Csv => "csv",
        InputFormat::Ndjson => "ndjson",
        InputFormat::Arrow => "arrow",
    }
}

fn spelled(format: InputFormat) -> &'static str {
    match format {
        InputFormat::Parquet => "Parquet",
        InputFormat::Csv => "CSV",
        InputFormat::Ndjson => "NDJSON",
        InputFormat::Arrow => "Arrow IPC",
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn columns_are_inferred_once_as_long_as_the_file_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.ndjson");
        std::fs::write(&path, "{\"a\": 1}\n").unwrap();
        let input = Input::new(&path, InputFormat::Ndjson);
        let mut read = 0;
        let mut look = |name: &str| {
            let file = File::open(&path).unwrap();
            let infer = || {
                read += 1;
                Ok(Schema::new(vec![Field::new(name, DataType::Int64, true)]))
            };
            let found = input.inferred(&file, infer).unwrap();
            (found.field(0).name().clone(), read)
        };
        assert_eq!(look("a"), ("a".to_owned(), 1));
        assert_eq!(look("b"), ("a".to_owned(), 1));
        std::fs::write(&path, "{\"b\": 10}\n").unwrap();
        assert_eq!(look("b"), ("b".to_owned(), 2));
        // What cannot be inferred is tried again.
        let file = File::open(&path).unwrap();
        let other = Input::new(&path, InputFormat::Ndjson);
        let failed = other.inferred(&file, || Err(ArrowError::JsonError("cut off".to_owned())));
        assert!(failed.is_err());
        let found = other.inferred(&file, || Ok(Schema::empty()));
        assert_eq!(found.unwrap(), Schema::empty());
    }
}
