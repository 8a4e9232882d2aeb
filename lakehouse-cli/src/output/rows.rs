//! The rows of a query as a table, JSON, CSV, NDJSON, Parquet or Arrow, written as they come.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::json::writer::{EncoderOptions, LineDelimited, WriterBuilder, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tempfile::NamedTempFile;

use super::{Progress, grid, stdout_failed};
use crate::exit::Failure;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A table to look at
    Table,
    /// Comma-separated values with a header line
    Csv,
    /// One JSON object per line
    Ndjson,
    /// Apache Parquet
    Parquet,
    /// Arrow IPC: a file with -o, a stream to stdout
    Arrow,
    /// `{"columns": [..], "rows": [[..]]}`
    #[value(skip)]
    Json,
}

impl Form {
    /// The form that a file's name asks for.
    pub(crate) fn of(file: &Path) -> Result<Self, Failure> {
        match file
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or("")
        {
            "csv" => Ok(Self::Csv),
            "ndjson" | "jsonl" => Ok(Self::Ndjson),
            "parquet" | "pq" => Ok(Self::Parquet),
            "arrow" | "ipc" | "feather" => Ok(Self::Arrow),
            "txt" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err(Failure::usage(
                format!("the name {} does not tell the form of the answer", file.display()),
                "add --output table, csv, ndjson, parquet or arrow",
            )),
        }
    }
}

/// Rows of a table that are laid out together: widths are found per so many rows.
const BLOCK_ROWS: usize = 10_000;

/// Writes a query's rows to a file (that appears whole or not at all) or to stdout. Returns how many.
pub(crate) async fn write(
    mut stream: SendableRecordBatchStream,
    form: Form,
    file: Option<&Path>,
    working: Progress,
) -> Result<u64, Failure> {
    let mut working = Some(working);
    // The first batch is there before anything is written: a query that fails at once writes nothing.
    let mut batch = stream.try_next().await?;
    if file.is_none() {
        working.take();
    }
    let target = Target::open(file)?;
    let broken = target.broken.clone();
    let rows = async {
        let mut sink = Sink::new(form, stream.schema(), target, file.is_some())?;
        let mut rows = 0;
        while let Some(next) = batch.take() {
            rows += next.num_rows() as u64;
            sink.write(&next)?;
            batch = stream.try_next().await?;
        }
        sink.finish()?.keep()?;
        Ok(rows)
    }
    .await;
    // Writers wrap the system's error in their own.
    rows.map_err(|error| {
        if broken.load(Ordering::Relaxed) {
            Failure::BrokenPipe
        } else {
            error
        }
    })
}

/// Where bytes go: stdout, or a file that gets its name when it is complete.
struct Target {
    out: Box<dyn Write + Send>,
    /// The file under its temporary name, and the name it shall have.
    file: Option<(NamedTempFile, PathBuf)>,
    broken: Arc<AtomicBool>,
}

impl Target {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let broken = Arc::new(AtomicBool::new(false));
        let Some(path) = file else {
            return Ok(Self {
                out: Box::new(BufWriter::with_capacity(1 << 16, std::io::stdout())),
                file: None,
                broken,
            });
        };
        // A device or a pipe is written as it is.
        if path.exists() && !path.is_file() {
            let out = std::fs::File::create(path).map_err(Failure::io("write to", path))?;
            return Ok(Self {
                out: Box::new(BufWriter::with_capacity(1 << 16, out)),
                file: None,
                broken,
            });
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let temporary = NamedTempFile::with_prefix_in(".lake-", folder.unwrap_or(Path::new(".")))
            .map_err(Failure::io("write to", path))?;
        let out = temporary.reopen().map_err(Failure::io("write to", path))?;
        Ok(Self {
            out: Box::new(BufWriter::with_capacity(1 << 16, out)),
            file: Some((temporary, path.to_owned())),
            broken,
        })
    }

    /// Everything was written: gives the file its name.
    fn keep(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(stdout_failed)?;
        drop(self.out);
        let Some((temporary, path)) = self.file else {
            return Ok(());
        };
        let kept = temporary
            .persist(&path)
            .map_err(|error| Failure::io("write to", &path)(error.error))?;
        // Temporary files are private; an answer is as readable as any other new file.
        share(&kept).map_err(Failure::io("write to", &path))
    }
}

/// Gives a file the permissions of a new one.
#[cfg(unix)]
fn share(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes).inspect_err(|error| self.note(error))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush().inspect_err(|error| self.note(error))
    }
}

impl Target {
    fn note(&self, error: &std::io::Error) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            self.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// One writer per form.
enum Sink {
    Table {
        out: Target,
        header: Vec<String>,
        rows: Vec<Vec<String>>,
        printed: bool,
    },
    Json {
        out: Target,
        first: bool,
    },
    Csv(Box<arrow::csv::Writer<Target>>),
    Ndjson(Box<arrow::json::Writer<Target, LineDelimited>>),
    Parquet(Box<ArrowWriter<Target>>),
    ArrowFile(Box<FileWriter<Target>>),
    ArrowStream(Box<StreamWriter<Target>>),
}

impl Sink {
    fn new(form: Form, schema: SchemaRef, mut out: Target, to_file: bool) -> Result<Self, Failure> {
        let header: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(match form {
            Form::Table => Self::Table {
                out,
                header,
                rows: Vec::new(),
                printed: false,
            },
            Form::Json => {
                let columns = serde_json::Value::from(header);
                write!(out, "{{\"columns\":{columns},\"rows\":[").map_err(stdout_failed)?;
                Self::Json { out, first: true }
            }
            Form::Csv => {
                if let Some(field) = schema.fields().iter().find(|field| field.data_type().is_nested()) {
                    return Err(lakehouse_core::Error::unsupported(
                        format!("CSV cannot hold the nested column {}", field.name()),
                        "use --output ndjson, parquet or arrow, or select its parts",
                    )
                    .into());
                }
                let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(out);
                // So that an answer without rows has its header.
                writer.write(&RecordBatch::new_empty(schema))?;
                Self::Csv(Box::new(writer))
            }
            Form::Ndjson => Self::Ndjson(Box::new(
                WriterBuilder::new().with_explicit_nulls(true).build(out),
            )),
            Form::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default()))
                    .build();
                Self::Parquet(Box::new(ArrowWriter::try_new(out, schema, Some(properties))?))
            }
            Form::Arrow if to_file => Self::ArrowFile(Box::new(FileWriter::try_new(out, &schema)?)),
            Form::Arrow => Self::ArrowStream(Box::new(StreamWriter::try_new(out, &schema)?)),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        match self {
            Self::Table {
                out,
                header,
                rows,
                printed,
            } => {
                append_cells(batch, rows)?;
                if rows.len() >= BLOCK_ROWS {
                    print_block(out, header, rows, printed)?;
                }
                Ok(())
            }
            Self::Json { out, first } => write_json_rows(out, batch, first),
            Self::Csv(writer) => Ok(writer.write(batch)?),
            Self::Ndjson(writer) => Ok(writer.write(batch)?),
            Self::Parquet(writer) => Ok(writer.write(batch)?),
            Self::ArrowFile(writer) => Ok(writer.write(batch)?),
            Self::ArrowStream(writer) => Ok(writer.write(batch)?),
        }
    }

    fn finish(self) -> Result<Target, Failure> {
        let mut out = match self {
            Self::Table {
                mut out,
                header,
                mut rows,
                mut printed,
            } => {
                if !rows.is_empty() || !printed {
                    print_block(&mut out, &header, &mut rows, &mut printed)?;
                }
                out
            }
            Self::Json { mut out, .. } => {
                writeln!(out, "]}}").map_err(stdout_failed)?;
                out
            }
            Self::Csv(writer) => writer.into_inner(),
            Self::Ndjson(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            Self::Parquet(writer) => writer.into_inner()?,
            Self::ArrowFile(mut writer) => {
                writer.finish()?;
                writer.into_inner()?
            }
            Self::ArrowStream(mut writer) => {
                writer.finish()?;
                writer.into_inner()?
            }
        };
        out.flush().map_err(stdout_failed)?;
        Ok(out)
    }
}

/// Values as people read them; NULL is written so.
pub(crate) fn append_cells(batch: &RecordBatch, rows: &mut Vec<Vec<String>>) -> Result<(), Failure> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<_, _>>()?;
    for row in 0..batch.num_rows() {
        let cells: Result<Vec<_>, ArrowError> = columns
            .iter()
            .map(|column| column.value(row).try_to_string())
            .collect();
        rows.push(cells?);
    }
    Ok(())
}

fn print_block(
    out: &mut Target,
    header: &[String],
    rows: &mut Vec<Vec<String>>,
    printed: &mut bool,
) -> Result<(), Failure> {
    let header: Vec<_> = header.iter().map(String::as_str).collect();
    writeln!(out, "{}", grid(&header, rows, true)).map_err(stdout_failed)?;
    rows.clear();
    *printed = true;
    Ok(())
}

/// Appends `[v, ..],` per row.
fn write_json_rows(out: &mut Target, batch: &RecordBatch, first: &mut bool) -> Result<(), Failure> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let schema = batch.schema();
    let mut columns: Vec<_> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| make_encoder(field, column.as_ref(), &options))
        .collect::<Result<_, _>>()?;
    let mut line = Vec::new();
    for row in 0..batch.num_rows() {
        line.clear();
        line.extend_from_slice(if *first { b"[" } else { b",[" });
        *first = false;
        for (index, column) in columns.iter_mut().enumerate() {
            if index > 0 {
                line.push(b',');
            }
            if column.is_null(row) || *schema.field(index).data_type() == DataType::Null {
                line.extend_from_slice(b"null");
            } else {
                column.encode(row, &mut line);
            }
        }
        line.push(b']');
        out.write_all(&line).map_err(stdout_failed)?;
    }
    Ok(())
}
