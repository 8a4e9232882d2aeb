//! Rows that only move to other files: row groups of which every row moves, or enough of them that the others can be
//! masked, are copied as they are stored; the rows of others are read as they are stored and decoded where they are
//! encoded, column by column; those of files that are not as new ones would be are scanned.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::decide::Decider;
use super::rows::{Places, named, table_columns};
use super::work::{Origin, Work};
use crate::error::{Error, Result};
use crate::model::schema::{LAST_UPDATED_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, RowMask};
use crate::scan::{MetadataColumns, SnapshotTable, config, read_footer, session_with};
use crate::store::Store;
use crate::write::{CopySource, StoredRows};

/// Footers that are held at once, in bytes of memory.
const FOOTERS: usize = 64 << 20;

/// Bytes of rows, and batches of them, that are read before they are written.
const READ_AHEAD: usize = 64 << 20;
const READ_AHEAD_BATCHES: usize = 64;

/// Bytes of row groups, and how many of them, that are read before they are written.
const STORED_AHEAD: usize = 16 << 20;
const STORED_READS: usize = 8;

/// Writes the rows of these files that are not hidden to new files, those of each file in their order, with
/// their lineage. Returns how many there were. As far as a `decider` says so, hidden rows are carried along and masked
/// there; otherwise there are none in the new files.
///
/// # Errors
/// When there are more or fewer rows than the files' metadata says; those of reading and writing.
pub(super) async fn move_rows(
    work: &mut Work,
    files: Vec<(DataFile, RowMask)>,
    decider: Option<Decider>,
) -> Result<u64> {
    let mut moved = 0;
    let visible: u64 = (files.iter())
        .map(|(file, hidden)| file.rows.saturating_sub(hidden.len()))
        .sum();
    let place = files
        .first()
        .map(|(file, _)| file.path.clone())
        .unwrap_or_default();
    let mut lot = Lot::default();
    for (file, hidden) in files {
        lot.add(work, file, hidden, decider).await?;
        if lot.footers >= FOOTERS {
            moved += std::mem::take(&mut lot).run(work).await?;
        }
    }
    moved += lot.run(work).await?;
    if moved != visible {
        return Err(Error::invalid(
            format!("the number of rows would change: {visible} are visible, {moved} were read"),
            place,
        )
        .with_hint("nothing was committed; the metadata of these files does not agree with their content"));
    }
    work.count("num_target_rows_copied", moved);
    Ok(moved)
}

/// Files that are moved together.
#[derive(Default)]
struct Lot {
    /// Files that are not as new files would be: their rows are scanned.
    scanned: Vec<(DataFile, RowMask)>,
    /// Row groups of the others, in order.
    parts: Vec<Part>,
    /// Bytes of memory that footers take.
    footers: usize,
    /// Every row group to copy has page indexes.
    without_indexes: bool,
    /// Bytes and row groups of the files that are scanned; one where nobody has seen the footer.
    bytes: u64,
    row_groups: u64,
}

/// A row group of which rows move.
struct Part {
    source: Arc<CopySource>,
    /// Rows of the file that do not move.
    hidden: Arc<RowMask>,
    group: usize,
    rows: Range<u64>,
    /// It is copied as it is stored, with the rows that do not move.
    copied: bool,
}

impl Lot {
    async fn add(
        &mut self,
        work: &mut Work,
        file: DataFile,
        hidden: RowMask,
        decider: Option<Decider>,
    ) -> Result<()> {
        let (source, row_groups) = source(work, &file).await?;
        let Some(source) = source else {
            self.row_groups += row_groups;
            self.bytes += file.bytes;
            self.scanned.push((file, hidden));
            return Ok(());
        };
        let may_stay = |rows, masked| decider.is_some_and(|decider| decider.may_stay(rows, masked));
        let copied: HashSet<usize> = source.copied(&hidden, may_stay).into_iter().collect();
        self.footers += source.memory();
        self.without_indexes |= !copied.is_empty() && !source.has_page_indexes();
        let (source, hidden) = (Arc::new(source), Arc::new(hidden));
        let parts = source.visible(&hidden).map(|(group, rows)| Part {
            source: Arc::clone(&source),
            hidden: Arc::clone(&hidden),
            group,
            rows,
            copied: copied.contains(&group),
        });
        self.parts.extend(parts);
        Ok(())
    }

    async fn run(self, work: &mut Work) -> Result<u64> {
        let mut moved = 0;
        if work.settings.traces_rows() && self.without_indexes {
            // Else each of them would begin a file of its own.
            work.writer()?.leave_indexes_out();
        }
        work.count("num_target_row_groups_decoded", self.row_groups);
        if !self.scanned.is_empty() {
            let trace = work.settings.traces_rows();
            let rows = visible(work, self.scanned, trace).await?;
            // A compaction has better use for the memory.
            let mut rows = if trace { rows.boxed() } else { read_ahead(rows) };
            while let Some(batch) = rows.try_next().await? {
                moved += write_moved(work, &batch).await?;
            }
        }
        let parts = self.parts;
        let mut ahead = StoredAhead::begin(&work.handle.store, &parts);
        // Each file's page indexes go with its last part.
        for part in parts {
            moved += match part.copied {
                true => {
                    work.copy(&part.source, part.group, part.rows.clone(), &part.hidden)
                        .await?
                }
                false => work.write_stored(&part.source, ahead.next(&part).await?).await?,
            };
        }
        work.count("bytes_read", self.bytes);
        work.count("bytes_decoded", self.bytes);
        Ok(moved)
    }
}

impl Work {
    /// Moves a row group with these rows to the new data files as it is stored; those that are hidden are masked there.
    /// Returns how many are not.
    pub(super) async fn copy(
        &mut self,
        source: &CopySource,
        group: usize,
        rows: Range<u64>,
        hidden: &RowMask,
    ) -> Result<u64> {
        let copied = self.writer()?.copy(source, group).await?;
        let masked = hidden.moved(rows.clone(), copied.start);
        let visible = rows.end - rows.start - masked.len();
        self.mask_anew(copied.path, &masked);
        self.count("bytes_read", copied.bytes_read);
        self.count("bytes_copied", copied.bytes_read);
        self.count("num_target_row_groups_copied", 1);
        self.count("num_output_rows", visible);
        Ok(visible)
    }

    /// Writes rows of a row group that were read as they are stored. Returns how many.
    pub(super) async fn write_stored(&mut self, source: &CopySource, rows: StoredRows) -> Result<u64> {
        let (count, bytes) = (rows.len() as u64, rows.bytes_read());
        self.writer()?.write_stored(source, rows).await?;
        self.count("bytes_read", bytes);
        self.count("bytes_decoded", bytes);
        self.count("num_target_row_groups_decoded", 1);
        self.count("num_output_rows", count);
        Ok(count)
    }
}

/// The rows of those parts that are not copied, read while others are written.
struct StoredAhead {
    read: mpsc::Receiver<Result<StoredRows>>,
    room: Arc<Semaphore>,
    /// Reading ends with it.
    _task: JoinSet<()>,
}

impl StoredAhead {
    fn begin(store: &Store, parts: &[Part]) -> Self {
        let room = Arc::new(Semaphore::new(STORED_AHEAD));
        let mut wanted = Vec::new();
        for part in parts.iter().filter(|part| !part.copied) {
            let (store, left, weight) = (store.clone(), Arc::clone(&room), part.weight());
            let (source, hidden, group) = (Arc::clone(&part.source), Arc::clone(&part.hidden), part.group);
            wanted.push(async move {
                // Given back by whoever takes the rows; nobody closes it.
                if let Ok(taken) = left.acquire_many(weight).await {
                    taken.forget();
                }
                source.read(&store, group, &hidden).await
            });
        }
        let (send, read) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut reads = stream::iter(wanted).buffered(STORED_READS);
            while let Some(rows) = reads.next().await {
                if send.send(rows).await.is_err() {
                    break;
                }
            }
        });
        Self {
            read,
            room,
            _task: task,
        }
    }

    /// Those of this part, which is the next that is not copied.
    async fn next(&mut self, part: &Part) -> Result<StoredRows> {
        let stopped = || Error::invalid("reading the rows that move stopped", part.source.path());
        let rows = self.read.recv().await.ok_or_else(stopped)??;
        self.room.add_permits(part.weight() as usize);
        Ok(rows)
    }
}

impl Part {
    /// Bytes of room that its rows take, or all there are if it is larger.
    fn weight(&self) -> u32 {
        self.source.weight(self.group).min(STORED_AHEAD as u64) as u32
    }
}

/// A file's row groups, if its rows may move as they are stored; and how many there are, as far as that is known.
async fn source(work: &mut Work, file: &DataFile) -> Result<(Option<CopySource>, u64)> {
    if !work.writer()?.may_move(file) {
        return Ok((None, file.split_offsets.len().max(1) as u64));
    }
    let footer = read_footer(&work.handle.store, &file.path, file.bytes).await?;
    let row_groups = footer.num_row_groups() as u64;
    Ok((work.writer()?.source(file, footer), row_groups))
}

/// The rows of these files that are not hidden; where they are, if `places` are asked for.
async fn visible(
    work: &Work,
    files: Vec<(DataFile, RowMask)>,
    places: bool,
) -> Result<SendableRecordBatchStream> {
    let columns = MetadataColumns {
        file: places,
        position: places,
        lineage: work.lineage(),
    };
    let table = SnapshotTable::new(work.handle.clone(), Arc::clone(&work.snapshot))
        .with_metadata_columns(columns)
        .with_hidden_rows(files);
    // Files are read one after the other, so that rows keep their order.
    let ctx = session_with(work.options.memory_limit, config().with_target_partitions(1));
    Ok(ctx.read_table(Arc::new(table))?.execute_stream().await?)
}

/// Reads a scan on another thread while row groups are copied.
fn read_ahead(mut rows: SendableRecordBatchStream) -> BoxStream<'static, DataFusionResult<RecordBatch>> {
    let room = Arc::new(Semaphore::new(READ_AHEAD));
    let mut ahead = RecordBatchReceiverStream::builder(rows.schema(), READ_AHEAD_BATCHES);
    let (send, left) = (ahead.tx(), Arc::clone(&room));
    ahead.spawn(async move {
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            match left.acquire_many(weight(&batch)).await {
                // Given back by whoever takes the batch.
                Ok(taken) => taken.forget(),
                Err(_) => break,
            }
            if send.send(Ok(batch)).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    let taken = move |batch: &RecordBatch| room.add_permits(weight(batch) as usize);
    ahead.build().inspect_ok(taken).boxed()
}

/// Bytes of memory that a batch takes, or all that may be taken if it is larger.
fn weight(batch: &RecordBatch) -> u32 {
    batch.get_array_memory_size().min(READ_AHEAD) as u32
}

/// Writes rows of a scan to another file, with their lineage; returns how many.
pub(super) async fn write_moved(work: &mut Work, scanned: &RecordBatch) -> Result<u64> {
    let columns = table_columns(scanned, &work.snapshot.schema)?;
    let places = match work.settings.traces_rows() {
        true => Some(Places::of(scanned)?.origins()),
        false => None,
    };
    let places = places.as_ref();
    if work.lineage() {
        let ids = named(scanned, ROW_ID_COLUMN)?;
        let updated = named(scanned, LAST_UPDATED_COLUMN)?;
        work.write(&columns, Origin::Moved(Some((&ids, &updated)), places))
            .await?;
    } else {
        work.write(&columns, Origin::Moved(None, places)).await?;
    }
    Ok(scanned.num_rows() as u64)
}
