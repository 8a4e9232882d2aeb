//! Rows that only move to other files: row groups of which every row moves, or enough of them that the others can be
//! masked, are copied as they are stored, the rest is read, row by row.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::decide::Decider;
use super::rows::{Places, named, table_columns};
use super::work::{Origin, Work};
use crate::error::{Error, Result};
use crate::model::schema::{LAST_UPDATED_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, RowMask};
use crate::scan::{MetadataColumns, SnapshotTable, config, read_footer, session_with};
use crate::write::CopySource;

/// Footers that are held at once, in bytes of memory.
const FOOTERS: usize = 64 << 20;

/// Bytes of rows, and batches of them, that are read before they are written.
const READ_AHEAD: usize = 64 << 20;
const READ_AHEAD_BATCHES: usize = 64;

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
    /// Files of which nothing is copied, and their hidden rows.
    whole: Vec<(DataFile, RowMask)>,
    /// The others; what is copied is hidden from the scan too.
    partly: Vec<(DataFile, RowMask)>,
    /// Row groups to copy, by file.
    copies: HashMap<String, Copies>,
    /// Bytes of memory that footers take.
    footers: usize,
    /// Bytes of the row groups that the scans read, or of the file where they are not known.
    bytes: u64,
    /// Row groups that are decoded, as far as that is known: a file of which nobody has seen the footer is one.
    decoded: u64,
}

/// The row groups of one file that are copied, in order, with the positions of their rows.
struct Copies {
    source: CopySource,
    /// Rows of the file that do not move.
    hidden: RowMask,
    groups: VecDeque<(usize, Range<u64>)>,
}

impl Lot {
    async fn add(
        &mut self,
        work: &mut Work,
        file: DataFile,
        mut hidden: RowMask,
        decider: Option<Decider>,
    ) -> Result<()> {
        let (source, row_groups) = source(work, &file, &hidden).await?;
        let Some(source) = source else {
            self.decoded += row_groups;
            self.bytes += file.bytes;
            self.whole.push((file, hidden));
            return Ok(());
        };
        let may_stay = |rows, masked| decider.is_some_and(|decider| decider.may_stay(rows, masked));
        let groups = VecDeque::from(source.copied(&hidden, may_stay));
        if groups.is_empty() {
            self.decoded += source.groups_to_read(&hidden);
            self.bytes += source.bytes_to_read(&hidden);
            self.whole.push((file, hidden));
            return Ok(());
        }
        let copies = Copies {
            source,
            hidden: hidden.clone(),
            groups,
        };
        for (_, rows) in &copies.groups {
            hidden.insert_range(rows.clone());
        }
        self.bytes += copies.source.bytes_to_read(&hidden);
        self.decoded += copies.source.groups_to_read(&hidden);
        self.footers += copies.source.memory();
        self.copies.insert(file.path.clone(), copies);
        self.partly.push((file, hidden));
        Ok(())
    }

    async fn run(mut self, work: &mut Work) -> Result<u64> {
        let whole = std::mem::take(&mut self.whole);
        let partly = std::mem::take(&mut self.partly);
        let mut moved = 0;
        let indexed = |copies: &Copies| copies.source.has_page_indexes();
        if work.settings.traces_rows() && !self.copies.values().all(indexed) {
            // Else each of them would begin a file of its own.
            work.writer()?.leave_indexes_out();
        }
        work.count("num_target_row_groups_decoded", self.decoded);
        if !whole.is_empty() {
            let trace = work.settings.traces_rows();
            let rows = visible(work, whole, trace).await?;
            // A compaction has better use for the memory.
            let mut rows = if trace { rows.boxed() } else { read_ahead(rows) };
            while let Some(batch) = rows.try_next().await? {
                moved += write_moved(work, &batch).await?;
            }
        }
        if !partly.is_empty() {
            let mut rows = read_ahead(visible(work, partly, true).await?);
            let mut current = None;
            while let Some(batch) = rows.try_next().await? {
                moved += self.weave(work, &mut current, &batch).await?;
            }
            for mut rest in current.into_iter().chain(self.copies.into_values()) {
                moved += rest.copy_up_to(work, u64::MAX).await?;
            }
        }
        work.count("bytes_read", self.bytes);
        work.count("bytes_decoded", self.bytes);
        Ok(moved)
    }

    /// Writes rows of the scan, and before each of them the row groups that precede it in its file.
    async fn weave(
        &mut self,
        work: &mut Work,
        current: &mut Option<Copies>,
        batch: &RecordBatch,
    ) -> Result<u64> {
        let places = Places::of(batch)?;
        let (mut moved, mut from) = (0, 0);
        for row in 0..batch.num_rows() {
            let (path, position) = places.at(row)?;
            let same = current
                .as_ref()
                .is_some_and(|copies| copies.source.path() == path);
            if same && !current.as_ref().is_some_and(|copies| copies.is_due(position)) {
                continue;
            }
            moved += write_moved(work, &batch.slice(from, row - from)).await?;
            from = row;
            if !same {
                if let Some(mut rest) = current.take() {
                    moved += rest.copy_up_to(work, u64::MAX).await?;
                }
                *current = self.copies.remove(path);
            }
            if let Some(copies) = current {
                moved += copies.copy_up_to(work, position).await?;
            }
        }
        moved += write_moved(work, &batch.slice(from, batch.num_rows() - from)).await?;
        Ok(moved)
    }
}

impl Copies {
    /// Whether a row group comes before this row.
    fn is_due(&self, position: u64) -> bool {
        self.groups
            .front()
            .is_some_and(|(_, rows)| rows.start <= position)
    }

    /// Copies the row groups that come before this row; returns their rows.
    async fn copy_up_to(&mut self, work: &mut Work, position: u64) -> Result<u64> {
        let mut moved = 0;
        while self.is_due(position) {
            let Some((group, rows)) = self.groups.pop_front() else {
                break;
            };
            moved += work.copy(&mut self.source, group, rows, &self.hidden).await?;
        }
        Ok(moved)
    }
}

/// A file's row groups, if any of them might be copied; and how many there are, as far as that is known.
async fn source(work: &mut Work, file: &DataFile, hidden: &RowMask) -> Result<(Option<CopySource>, u64)> {
    if !work.writer()?.may_copy(file, hidden) {
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
