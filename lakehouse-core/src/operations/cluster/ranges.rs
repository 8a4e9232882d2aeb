//! Rows on disk, spread over ranges of their key: in temporary files that are gone with this process, whatever becomes
//! of it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};

use super::sorter::{SortKey, gathered};
use crate::error::{Error, Result};

/// Rows that are written at once at most, and bytes of them, about: the texts of a batch must not be more than 2 GiB.
const WRITE_ROWS: usize = 32 << 10;
const WRITE_BYTES: usize = 16 << 20;

/// Where ranges of keys end: each at the first key that is not in it.
#[derive(Debug)]
pub(super) struct Ranges {
    ends: Vec<Box<[u8]>>,
}

impl Ranges {
    /// About so many ranges, of about as many rows each, if these are keys of rows by chance. A key that is so frequent
    /// that it takes one by itself gets one: there is nothing to be sorted in it.
    pub(super) fn between(mut keys: Vec<Box<[u8]>>, count: usize) -> Self {
        keys.sort_unstable();
        let mut ends: Vec<Box<[u8]>> = Vec::new();
        let add = |end: Box<[u8]>, ends: &mut Vec<Box<[u8]>>| {
            if ends.last().is_none_or(|last| *last < end) {
                ends.push(end);
            }
        };
        for number in 1..count {
            let Some(key) = keys.get(number * keys.len() / count) else {
                continue;
            };
            // Also the least of them, so that no range is all there is.
            let frequent = ends.last() == Some(key) || keys.first() == Some(key);
            add(key.clone(), &mut ends);
            if frequent {
                add(after(key), &mut ends);
            }
        }
        Self { ends }
    }

    /// The range that a key is in.
    fn of(&self, key: &[u8]) -> usize {
        self.ends.partition_point(|end| **end <= *key)
    }
}

/// The key that comes right after this one.
fn after(key: &[u8]) -> Box<[u8]> {
    [key, &[0]].concat().into()
}

/// Takes rows, and writes each to its range.
pub(super) struct Spread {
    schema: SchemaRef,
    ranges: Ranges,
    open: Vec<Open>,
}

struct Open {
    writer: StreamWriter<BufWriter<File>>,
    rows: u64,
    bytes: usize,
    keys: Keys,
}

/// What is known of the keys of some rows.
#[derive(Debug, PartialEq, Eq)]
enum Keys {
    None,
    One(Box<[u8]>),
    Several,
}

/// The rows of one range, in the order in which they came.
pub(super) struct Part {
    file: File,
    schema: SchemaRef,
    pub(super) rows: u64,
    /// Bytes that they take while they are sorted, about.
    pub(super) bytes: usize,
    keys: Keys,
}

impl Spread {
    /// Ranges without rows.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub(super) fn new(schema: SchemaRef, ranges: Ranges) -> Result<Self> {
        let open = |_| {
            let file = tempfile::tempfile().map_err(on_disk)?;
            Ok(Open {
                writer: StreamWriter::try_new(BufWriter::new(file), &schema)?,
                rows: 0,
                bytes: 0,
                keys: Keys::None,
            })
        };
        Ok(Self {
            open: (0..=ranges.ends.len()).map(open).collect::<Result<_>>()?,
            schema,
            ranges,
        })
    }

    /// Takes rows. The more at once, the better.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn add(&mut self, batches: Vec<RecordBatch>, key: &SortKey) -> Result<()> {
        let mut places: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.open.len()];
        for (number, batch) in batches.iter().enumerate() {
            for (row, key) in key.of(batch)?.iter().enumerate() {
                let range = self.ranges.of(key.data());
                places[range].push((number, row));
                self.open[range].keys.note(key.data());
            }
        }
        let bytes: usize = batches.iter().map(|batch| key.weigh(batch)).sum();
        let each = (bytes / places.iter().map(Vec::len).sum::<usize>().max(1)).max(1);
        let step = (WRITE_BYTES / each).clamp(1, WRITE_ROWS);
        let schema = &self.schema;
        (self.open.par_iter_mut().zip(places)).try_for_each(|(open, places)| {
            let mut steps = places.chunks(step);
            steps.try_for_each(|places| open.write(&gathered(schema, &batches, places)?, key))
        })
    }

    /// The ranges that have rows, in order.
    ///
    /// # Errors
    /// When the last rows cannot be written.
    pub(super) fn finish(self) -> Result<Vec<Part>> {
        let schema = self.schema;
        let used = self.open.into_iter().filter(|open| open.rows > 0);
        used.map(|open| {
            let file = open.writer.into_inner()?.into_inner();
            Ok(Part {
                file: file.map_err(|e| on_disk(e.into_error()))?,
                schema: SchemaRef::clone(&schema),
                rows: open.rows,
                bytes: open.bytes,
                keys: open.keys,
            })
        })
        .collect()
    }
}

impl Open {
    fn write(&mut self, batch: &RecordBatch, key: &SortKey) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.bytes += key.weigh(batch);
        Ok(self.writer.write(batch)?)
    }
}

impl Keys {
    fn note(&mut self, key: &[u8]) {
        match self {
            Self::None => *self = Self::One(key.into()),
            Self::One(one) if **one != *key => *self = Self::Several,
            Self::One(_) | Self::Several => {}
        }
    }
}

impl Part {
    /// The columns of its rows.
    pub(super) fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// Whether all rows have one key, so that any order is theirs.
    pub(super) fn has_one_key(&self) -> bool {
        matches!(self.keys, Keys::One(_))
    }

    /// The rows, from the first on.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn read(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
        let mut file = self.file.try_clone().map_err(on_disk)?;
        file.seek(SeekFrom::Start(0)).map_err(on_disk)?;
        let reader = StreamReader::try_new(BufReader::new(file), None)?;
        Ok(reader.map(|batch| Ok(batch?)))
    }
}

fn on_disk(source: std::io::Error) -> Error {
    Error::Store {
        action: "spill the rows that are sorted to",
        path: std::env::temp_dir().display().to_string(),
        source: object_store::Error::Generic {
            store: "temporary files",
            source: Box::new(source),
        },
    }
}
