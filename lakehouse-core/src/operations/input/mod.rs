//! The rows that an operation takes in.

use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Result};

mod files;
mod parquet;
mod quotes;
mod several;
mod types;

/// Batches on their way in.
pub(super) type Batches = BoxStream<'static, Result<RecordBatch>>;

/// A kind of file that rows are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header line; an empty cell is NULL.
    Csv,
    /// One JSON object per line.
    Ndjson,
    /// Arrow IPC, file or stream.
    Arrow,
}

impl InputFormat {
    /// What the ending of a name tells, in capitals or not.
    pub(super) fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "arrow" | "ipc" | "feather" | "arrows" => Some(Self::Arrow),
            _ => None,
        }
    }
}

/// The error of a file whose name does not tell what it is.
fn no_format(path: &Path, place: String) -> Error {
    match path.extension().and_then(|e| e.to_str()).unwrap_or("") {
        "gz" | "zst" | "bz2" | "xz" | "zip" => {
            Error::invalid("compressed files cannot be read as they are", place).with_hint(
                "decompress it first; `lake` also reads what comes in through a pipe: \
                 zcat FILE | lake append TABLE - --input-format csv",
            )
        }
        other => Error::invalid(format!("the extension {other:?} does not tell the format"), place)
            .with_hint("say which it is: parquet, csv, ndjson or arrow"),
    }
}

impl FromStr for InputFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "parquet" => Ok(Self::Parquet),
            "csv" => Ok(Self::Csv),
            "ndjson" => Ok(Self::Ndjson),
            "arrow" => Ok(Self::Arrow),
            other => Err(Error::invalid(format!("unknown input format {other:?}"), "")
                .with_hint("use parquet, csv, ndjson or arrow")),
        }
    }
}

/// What is known of the columns of an input before it is read.
#[derive(Clone, Copy)]
pub(super) enum Known<'a> {
    /// Nothing.
    No,
    /// Those that this table has get its types where the input has none; each value is checked.
    Table(&'a Schema),
    /// The values of these come as text where the input has no types, to be checked by who reads it.
    Text(&'a Schema),
}

impl<'a> Known<'a> {
    fn schema(self) -> Option<&'a Schema> {
        match self {
            Self::No => None,
            Self::Table(schema) | Self::Text(schema) => Some(schema),
        }
    }
}

/// Rows on their way into a table.
pub struct Rows {
    source: Source,
}

/// Where rows come from.
enum Source {
    /// In memory.
    Batches(SchemaRef, Vec<RecordBatch>),
    /// Read once.
    Stream(SchemaRef, Mutex<Option<SendableRecordBatchStream>>),
    /// A query.
    Frame(Box<DataFrame>),
    /// A file on this machine.
    File(Arc<files::Input>),
    /// One after the other.
    Several(Arc<Vec<Rows>>),
}

impl Rows {
    /// Rows in memory. Every batch must have this schema.
    pub fn batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self {
            source: Source::Batches(schema, batches),
        }
    }

    /// Rows that can be read once.
    pub fn stream(stream: SendableRecordBatchStream) -> Self {
        Self {
            source: Source::Stream(stream.schema(), Mutex::new(Some(stream))),
        }
    }

    /// The result of a query.
    pub fn frame(frame: DataFrame) -> Self {
        Self {
            source: Source::Frame(Box::new(frame)),
        }
    }

    /// A file on this machine; without a format, its extension tells (`.parquet`, `.csv`, `.ndjson`,
    /// `.jsonl`, `.arrow`, `.ipc`, `.feather`). Columns of CSV and NDJSON that the table has, by name or else ignoring
    /// case, get the table's types, each value checked; others get inferred ones.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such file; [`Error::Invalid`] when the extension is not one of these.
    pub fn file(path: impl AsRef<Path>, format: Option<InputFormat>) -> Result<Self> {
        let path = path.as_ref();
        let place = path.display().to_string();
        if !path.exists() {
            return Err(Error::not_found("input file", place));
        }
        if path.is_dir() {
            return Err(Error::invalid("this is a folder, not a file", place)
                .with_hint("name the files in it; those of a table's folder are read by naming the table"));
        }
        let Some(format) = format.or_else(|| InputFormat::of_name(path)) else {
            return Err(no_format(path, place));
        };
        Ok(Self {
            source: Source::File(Arc::new(files::Input::new(path, format))),
        })
    }

    /// Several inputs, one after the other: columns by name, NULL where an input lacks one.
    pub fn several(inputs: Vec<Self>) -> Self {
        Self {
            source: Source::Several(Arc::new(inputs)),
        }
    }

    /// The columns, with inferred types where the input has none of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming a file that is not what it says, or a column whose types in several
    /// inputs do not go together.
    pub async fn schema(&self) -> Result<SchemaRef> {
        self.columns(Known::No).await
    }

    /// The columns, as [`Rows::open`] has them.
    pub(super) async fn columns(&self, known: Known<'_>) -> Result<SchemaRef> {
        match &self.source {
            Source::Batches(schema, _) | Source::Stream(schema, _) => Ok(Arc::clone(schema)),
            Source::Frame(frame) => Ok(Arc::new(frame.schema().as_arrow().clone())),
            Source::File(input) => Ok(files::open(input, known).await?.0),
            Source::Several(inputs) => several::schema(inputs, known).await,
        }
    }

    /// Starts reading, again each time it is called, except for a stream.
    pub(super) async fn open(&self, known: Known<'_>) -> Result<(SchemaRef, Batches)> {
        match &self.source {
            Source::Batches(schema, batches) => {
                let batches = futures::stream::iter(batches.clone().into_iter().map(Ok));
                Ok((Arc::clone(schema), batches.boxed()))
            }
            Source::Stream(schema, stream) => {
                let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                let stream = taken.ok_or_else(|| Error::Conflict {
                    table: "the table".to_owned(),
                    detail: "another commit changed it while rows were being written, and the input is a \
                             stream that cannot be read a second time"
                        .to_owned(),
                })?;
                Ok((Arc::clone(schema), stream.map_err(Error::from).boxed()))
            }
            Source::Frame(frame) => {
                let stream = frame.as_ref().clone().execute_stream().await?;
                Ok((stream.schema(), stream.map_err(Error::from).boxed()))
            }
            Source::File(input) => files::open(input, known).await,
            Source::Several(inputs) => several::open(inputs, known).await,
        }
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.source {
            Source::Batches(..) => "Rows::batches",
            Source::Stream(..) => "Rows::stream",
            Source::Frame(_) => "Rows::frame",
            Source::File(..) => "Rows::file",
            Source::Several(_) => "Rows::several",
        })
    }
}
