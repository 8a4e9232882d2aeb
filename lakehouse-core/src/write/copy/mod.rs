//! Row groups that move from one data file to another as they are stored, without decoding.
//!
//! ```text
//! source    which row groups of a file may be copied: the file is what this writer would have written
//! read      column chunks, a few megabytes at a time, while those before are appended
//! stored    the rows of the others, read as they are stored and decoded where they are encoded
//! append    on the blocking thread that has the partition's open file (`Encoder::copy`)
//! lineage   the two columns of row lineage are completed and encoded beside, where they have to be
//! ```
//!
//! A chunk is appended with `SerializedRowGroupWriter::append_column`, which moves the offsets of its
//! pages; it keeps its codec, statistics, page indexes and bloom filter.

mod lineage;
mod pages;
mod source;
mod stored;

#[cfg(test)]
pub(super) mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bytes::{Buf, Bytes};
use futures::{StreamExt, TryFutureExt, TryStreamExt, stream};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::buffers::Buffers;
use super::lane::Alone;
use super::rows::Rows;
use super::writer::{Done, TableWriter, broken};
use crate::error::{Error, Result};
use crate::store::Store;

pub use source::CopySource;
pub(super) use source::are_of_old;
pub use stored::StoredRows;

/// Chunks are read together up to so many bytes, if there is no more than a gap of so many between them.
const READ_BYTES: u64 = 4 << 20;
const READ_GAP: u64 = 64 << 10;
/// From so many bytes on, reads are into buffers that are used again.
const LARGE: usize = 128 << 10;
/// Reads that are under way at once.
const READS: usize = 4;

/// A row group on its way into an open file.
pub(super) struct Incoming {
    pub(super) rows: u64,
    /// What it adds to the file, about.
    pub(super) bytes: u64,
    /// Every column chunk has an offset index.
    pub(super) indexed: bool,
    /// NaNs by leaf, `None` if nobody knows.
    pub(super) nans: Vec<Option<u64>>,
    /// Number of chunks that will come, in the order of the schema's leaves.
    pub(super) columns: usize,
    pub(super) chunks: Receiver<Chunk>,
    /// Values of the last columns, which are not among the chunks.
    pub(super) lineage: Option<[ArrayRef; 2]>,
    /// Is told the file's path and the position of the first row in it.
    pub(super) place: oneshot::Sender<(String, u64)>,
}

/// A row group that has moved.
#[derive(Debug)]
pub struct Copied {
    /// Path of its new file.
    pub path: String,
    /// Position of its first row there.
    pub start: u64,
    /// Bytes that were read for it.
    pub bytes_read: u64,
}

/// A column chunk as it is stored.
pub(super) struct Chunk {
    pub(super) stored: Stored,
    pub(super) close: ColumnCloseResult,
}

/// Bytes of a file from some place on.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    start: u64,
    bytes: Bytes,
}

/// Parts of a file.
#[derive(Debug, Clone)]
pub(super) struct Chunks(Arc<[Stored]>);

impl TableWriter {
    /// Appends a row group that [`CopySource::copied`] named to the file of its partition, after the rows
    /// written so far.
    ///
    /// # Errors
    /// As [`TableWriter::write`]; and when the old file cannot be read.
    pub async fn copy(&mut self, source: &CopySource, group: usize) -> Result<Copied> {
        let result = self.copy_group(source, group).await;
        self.quiet_after(result).await
    }

    /// Takes rows that [`CopySource::read`] read, after those written so far.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub async fn write_stored(&mut self, source: &CopySource, rows: StoredRows) -> Result<()> {
        let result = self.take_stored(source, rows).await;
        self.quiet_after(result).await
    }

    async fn take_stored(&mut self, source: &CopySource, rows: StoredRows) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let index = self.lane_of_partition(&source.key, &source.file.partition);
        let lane = &mut self.lanes[index];
        if let Some(tracer) = &mut self.tracer {
            for run in &*rows.positions {
                tracer.take_group(&mut lane.trace, source.path(), run.clone());
            }
        }
        let bytes = rows.memory();
        // A whole row group at once, so that no thread waits for another in the middle of it.
        let full = lane.rows + rows.len() > self.recipe.row_group_rows;
        if full || lane.bytes + bytes > self.recipe.stored_bytes {
            self.start(index, false).await?;
        }
        self.waiting += bytes;
        self.lanes[index].push(Rows::Stored(rows), bytes, false);
        self.settle_finished().await?;
        self.relieve().await
    }

    async fn copy_group(&mut self, source: &CopySource, group: usize) -> Result<Copied> {
        let store = self.store.clone();
        let mut bytes_read = source.load_pages(&store).await?;
        let (lineage, lineage_read) = source.lineage(&store, group).await?;
        bytes_read += lineage_read;

        let lane = self.lane_of_partition(&source.key, &source.file.partition);
        self.start(lane, false).await?;
        self.wait_for(lane).await?;
        let columns = source.columns(lineage.is_some());
        let (send, chunks) = channel(1);
        let (place, placed) = oneshot::channel();
        let incoming = Incoming {
            rows: source.rows_of(group),
            bytes: source.bytes_of(group),
            indexed: source.is_indexed(),
            nans: source.nans(group, &self.recipe.layout.leaves),
            columns,
            chunks,
            lineage,
            place,
        };
        let state = &mut self.lanes[lane];
        let open = state.open.take().map(Alone::into_inner);
        self.encoding -= std::mem::take(&mut state.open_bytes);
        state.busy = true;
        let folder = state.folder.clone();
        let recipe = Arc::clone(&self.recipe);
        self.jobs.spawn_blocking(move || {
            let (open, complete) = recipe.copy(&folder, open, incoming)?;
            Ok(Done { lane, open, complete })
        });
        let sent = send_chunks(source, &store, group, columns, send).await?;
        let (Some(sent), Ok((path, start))) = (sent, placed.await) else {
            // The job stopped early: its error says why.
            self.wait_for(lane).await?;
            return Err(Error::invalid(
                "a row group could not be copied",
                source.file.path.as_str(),
            ));
        };
        bytes_read += sent;
        if let Some(tracer) = &mut self.tracer {
            let rows = source.positions(group);
            tracer.take_group(&mut self.lanes[lane].trace, source.path(), rows);
        }
        self.relieve().await?;
        Ok(Copied {
            path,
            start,
            bytes_read,
        })
    }
}

/// Reads the first `columns` chunks of a row group and hands them on; returns the bytes read, `None` if
/// nobody takes them any more.
async fn send_chunks(
    source: &CopySource,
    store: &Store,
    group: usize,
    columns: usize,
    send: Sender<Chunk>,
) -> Result<Option<u64>> {
    let mut read = 0;
    let spans = spans(&source.places(group)[..columns]);
    let reads = spans.into_iter().map(|(range, columns)| {
        let stored = Stored::read(store, &source.file.path, range, &source.buffers);
        stored.map_ok(|stored| (stored, columns))
    });
    let mut reads = stream::iter(reads).buffered(READS);
    while let Some((stored, columns)) = reads.try_next().await? {
        read += stored.bytes.len() as u64;
        for column in columns {
            let (close, filter_bytes) = source.close(store, group, column).await?;
            read += filter_bytes;
            let stored = stored.clone();
            if send.send(Chunk { stored, close }).await.is_err() {
                return Ok(None);
            }
        }
    }
    Ok(Some(read))
}

/// Chunks that are read at once: the bytes, and which chunks they hold.
fn spans(places: &[Range<u64>]) -> Vec<(Range<u64>, Range<usize>)> {
    let mut spans: Vec<(Range<u64>, Range<usize>)> = Vec::new();
    for (column, place) in places.iter().enumerate() {
        match spans.last_mut() {
            Some((bytes, columns))
                if place.start >= bytes.end
                    && place.start - bytes.end <= READ_GAP
                    && place.end - bytes.start <= READ_BYTES =>
            {
                bytes.end = place.end;
                columns.end = column + 1;
            }
            _ => spans.push((place.clone(), column..column + 1)),
        }
    }
    spans
}

impl Stored {
    pub(super) fn new(start: u64, bytes: Bytes) -> Self {
        Self { start, bytes }
    }

    async fn read(store: &Store, path: &str, range: Range<u64>, buffers: &Arc<Buffers>) -> Result<Self> {
        let start = range.start;
        let wanted = usize::try_from(range.end - start).unwrap_or(usize::MAX);
        if wanted < LARGE {
            let bytes = store.get_range(path, range).await?;
            return Ok(Self { start, bytes });
        }
        let fetched = store.fetch_range(path, range).await?;
        let home = Arc::clone(buffers);
        let read = move || {
            let buffer = home.lend(wanted.next_multiple_of(LARGE));
            Ok::<_, Error>(home.lent(fetched.bytes_in(buffer)?))
        };
        let bytes = spawn_blocking(read).await.map_err(broken)??;
        Ok(Self { start, bytes })
    }

    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let offset = start
            .checked_sub(self.start)
            .and_then(|offset| usize::try_from(offset).ok());
        match offset.filter(|offset| *offset <= self.bytes.len()) {
            Some(offset) => Ok(self.bytes.slice(offset..)),
            None => Err(ParquetError::EOF(format!("byte {start} was not read"))),
        }
    }
}

impl Length for Stored {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Stored {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at {start} were not read"
            )));
        }
        Ok(bytes.slice(..length))
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.iter().map(Length::len).max().unwrap_or_default()
    }
}

impl Chunks {
    fn holding(&self, start: u64) -> parquet::errors::Result<&Stored> {
        let found = self
            .0
            .iter()
            .find(|part| (part.start..part.len()).contains(&start));
        found.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not read")))
    }
}

impl ChunkReader for Chunks {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.holding(start)?.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.holding(start)?.get_bytes(start, length)
    }
}
