//! Record batches to data files: a lane per partition, within bounds of memory.
//!
//! ```text
//! write    split by partition, rows wait in their lane
//! start    a lane's rows are encoded on a blocking thread, one job per lane at a time
//! settle   a job's complete files are stored in the background; its open file returns to the lane
//! relieve  above the memory budget, the largest lanes are encoded, then closed
//! ```
//!
//! Row groups that are copied (`copy`) take their lane's open file in their turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use datafusion::error::DataFusionError;
use datafusion::scalar::ScalarValue;
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use tokio::task::{JoinError, JoinSet};

use super::codec::Codec;
use super::encode::{Encoded, Encoder, Recipe, parquet_schema};
use super::footer::row_group_offsets;
use super::lane::{Alone, Lane};
use super::layout::Layout;
use super::profile::Profiles;
use super::rows::Rows;
use super::split::{Part, Splitter};
use super::statistics;
use super::trace::{Origins, RowMap, Tracer};
use crate::error::{Error, Result};
use crate::model::{CLUSTERING, CommitId, DataFile, FileNotes, FileOrder, Snapshot, partition_folder};
use crate::planted::{self, Bug};
use crate::store::Store;

/// A lane is encoded when so many rows, or bytes, wait in it.
const HAND_OVER_ROWS: usize = 32 << 10;
const HAND_OVER_BYTES: usize = 16 << 20;
/// Bytes of rows that are stored elsewhere that make a row group, if they are not too many rows before.
const STORED_BYTES: usize = 64 << 20;
/// Encoded bytes of an open file that are sent ahead of its end.
const SEND_AHEAD: usize = 8 << 20;
/// Objects that are stored at the same time.
const MAX_UPLOADS: usize = 32;
/// Files that are open at the same time.
const MAX_OPEN: usize = 256;

/// How files are written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Size a data file is closed at, in bytes.
    pub target_file_bytes: u64,
    /// The batches carry `_row_id` and `_last_updated_sequence_number` (nullable Int64) after the
    /// table's columns; they are stored in the files ([`Snapshot::lineage`]).
    pub lineage: bool,
    /// Bytes of rows and open files that are held in memory, about. Less makes more and smaller files
    /// when rows of many partitions arrive in no order.
    pub memory_bytes: usize,
    /// Rows and (anticipated) bytes at which a row group is closed.
    pub row_group_rows: usize,
    /// See `row_group_rows`.
    pub row_group_bytes: usize,
    /// Row groups of at least so many bytes, or of `copy_from_share` of the rows or bytes that one of a new file may
    /// have, are worth copying; smaller ones are better joined with others. `None`: nothing is copied.
    pub copy_from_bytes: Option<u64>,
    /// See `copy_from_bytes`; 0 to 1.
    pub copy_from_share: f64,
    /// How pages are compressed.
    pub codec: Codec,
    /// The order in which the rows of each partition come. Noted in the files, nothing is sorted for it.
    pub order: Option<Arc<FileOrder>>,
    /// Note where rows are from that move ([`Written::moved`]); all rows are then written with their origins.
    pub trace: bool,
}

/// Splits rows by the snapshot's current partitioning and writes them to Parquet files below the
/// table root, named `{data_prefix}{partition folder}/{n}-{commit id}.parquet`. Nothing is visible
/// until a commit names the files.
#[derive(Debug)]
pub struct TableWriter {
    pub(super) store: Store,
    spec_id: i32,
    snapshot: Arc<Snapshot>,
    pub(super) recipe: Arc<Recipe>,
    pub(super) copy_from_bytes: Option<u64>,
    pub(super) copy_from_share: f64,
    splitter: Splitter,
    memory_bytes: usize,
    parallel: usize,
    pub(super) lanes: Vec<Lane>,
    by_key: HashMap<Box<[u8]>, usize>,
    pub(super) jobs: JoinSet<Result<Done>>,
    uploads: JoinSet<Result<()>>,
    /// Bytes of rows that wait, of open files, and of split batches that waiting slices keep alive.
    pub(super) waiting: usize,
    pub(super) encoding: usize,
    kept_alive: usize,
    staged: Vec<String>,
    written: Written,
    /// What is noted of rows that move, if anything is.
    pub(super) tracer: Option<Tracer>,
}

/// What a writer left behind.
#[derive(Debug, Default)]
pub struct Written {
    /// The files, complete with partition values and statistics, not yet committed.
    pub files: Vec<DataFile>,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Where the rows of old files are in these; `None` if nobody asked, or if that is too much to hold.
    pub moved: Option<RowMap>,
}

/// What a job returns.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) lane: usize,
    pub(super) open: Option<Encoder>,
    pub(super) complete: Vec<Encoded>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            target_file_bytes: 512 << 20,
            lineage: false,
            memory_bytes: 512 << 20,
            // What is decoded and encoded anew, where some of its rows change and the file is rewritten; what one
            // thread reads.
            row_group_rows: 1 << 19,
            row_group_bytes: 128 << 20,
            copy_from_bytes: Some(1 << 20),
            copy_from_share: 0.25,
            codec: Codec::default(),
            order: None,
            trace: false,
        }
    }
}

impl TableWriter {
    /// A writer for one operation.
    ///
    /// # Errors
    /// When the table's columns cannot be stored in Parquet.
    pub fn new(
        store: Store,
        snapshot: Arc<Snapshot>,
        commit_id: CommitId,
        options: WriteOptions,
    ) -> Result<Self> {
        let layout = Layout::new(&snapshot, options.lineage)?;
        let parallel = available_parallelism().map_or(2, usize::from).max(2);
        // As much is in the hands of each job, and what becomes of it.
        let stored_bytes = STORED_BYTES
            .min(options.row_group_bytes)
            .min(usize::try_from(options.target_file_bytes).unwrap_or(usize::MAX))
            .min(options.memory_bytes / (2 * parallel))
            .max(1);
        let recipe = Recipe {
            parquet: parquet_schema(&layout)?,
            layout,
            commit_id,
            data_prefix: snapshot.capabilities.data_prefix,
            target_file_bytes: options.target_file_bytes.max(1),
            row_group_rows: options.row_group_rows.max(1),
            row_group_bytes: options.row_group_bytes.max(1),
            stored_bytes,
            codec: options.codec,
            order: options.order,
            without_indexes: AtomicBool::new(false),
            profiles: Profiles::default(),
            buffers: Arc::default(),
            reads: Arc::default(),
        };
        Ok(Self {
            store,
            spec_id: snapshot.spec_id,
            splitter: Splitter::new(&snapshot)?,
            snapshot,
            recipe: Arc::new(recipe),
            copy_from_bytes: options.copy_from_bytes,
            copy_from_share: options.copy_from_share,
            memory_bytes: options.memory_bytes,
            parallel,
            lanes: Vec::new(),
            by_key: HashMap::new(),
            jobs: JoinSet::new(),
            uploads: JoinSet::new(),
            waiting: 0,
            encoding: 0,
            kept_alive: 0,
            staged: Vec::new(),
            written: Written::default(),
            tracer: options.trace.then(Tracer::default),
        })
    }

    /// Takes rows whose schema is the table's (see [`super::conform`]), plus lineage columns if asked for.
    ///
    /// # Errors
    /// When rows cannot be encoded or stored; [`TableWriter::staged`] then names what may have been left.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let result = self.take_rows(batch, false).await;
        self.quiet_after(result).await
    }

    /// The same with rows that are in other files now, for [`WriteOptions::trace`].
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub async fn write_from(&mut self, batch: &RecordBatch, origins: &Origins) -> Result<()> {
        let placed = match &mut self.tracer {
            Some(tracer) => tracer
                .numbers(origins)
                .and_then(|files| with_places(batch, files, origins)),
            None => return self.write(batch).await,
        };
        let result = match placed {
            Ok(placed) => self.take_rows(&placed, true).await,
            Err(error) => Err(error),
        };
        self.quiet_after(result).await
    }

    /// Files that are begun from now on have no page indexes: row groups that have none are going to be copied, and a
    /// file has them for all row groups or for none.
    pub fn leave_indexes_out(&mut self) {
        self.recipe.without_indexes.store(true, Ordering::Relaxed);
    }

    /// Object keys written so far: what must be deleted if the operation fails. Complete after an error
    /// too: nothing is written any more when [`TableWriter::write`] or [`TableWriter::finish`] return one.
    pub fn staged(&self) -> Vec<String> {
        self.staged.clone()
    }

    /// Closes every file; on local disk they are synced when this returns.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub async fn finish(&mut self) -> Result<Written> {
        let result = self.close().await;
        self.quiet_after(result).await?;
        let mut written = std::mem::take(&mut self.written);
        written.files.sort_by(|a, b| a.path.cmp(&b.path));
        let tracer = self.tracer.take();
        let lanes = self.lanes.iter_mut().map(|lane| &mut lane.trace);
        written.moved = tracer.and_then(|tracer| tracer.finish(lanes));
        Ok(written)
    }

    /// `placed`: the last two columns are the rows' origins.
    async fn take_rows(&mut self, batch: &RecordBatch, placed: bool) -> Result<()> {
        let parts = self.splitter.split(batch)?;
        let total = memory(batch);
        let sliced = parts.len() > 1;
        for mut part in parts {
            let places = if placed {
                Some(take_places(&mut part)?)
            } else {
                None
            };
            let bytes = total * part.rows.num_rows() / batch.num_rows().max(1);
            let lane = self.lane_of(part, bytes, sliced);
            if let (Some(tracer), Some([files, positions])) = (&mut self.tracer, places) {
                let files = files.as_primitive::<Int32Type>().values();
                let positions = positions.as_primitive::<Int64Type>().values();
                tracer.take(&mut self.lanes[lane].trace, files, positions);
            }
            if self.lanes[lane].rows >= HAND_OVER_ROWS || self.lanes[lane].bytes >= self.hand_over_bytes() {
                self.start(lane, false).await?;
            }
        }
        if sliced {
            self.kept_alive += total;
        }
        self.settle_finished().await?;
        self.relieve().await
    }

    /// Bytes of rows and open files in memory, what slices keep alive beside them not counted.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.waiting + self.encoding
    }

    fn hand_over_bytes(&self) -> usize {
        let target = usize::try_from(self.recipe.target_file_bytes).unwrap_or(usize::MAX);
        HAND_OVER_BYTES.min(target)
    }

    /// The key of a file's partition among the lanes, if the table is still partitioned like the file.
    pub(super) fn same_partitioning(&self, file: &DataFile) -> Option<Box<[u8]>> {
        (file.spec_id == self.spec_id).then(|| self.splitter.key(&file.partition))?
    }

    /// The lane of a partition.
    pub(super) fn lane_of_partition(&mut self, key: &[u8], values: &[ScalarValue]) -> usize {
        match self.by_key.get(key) {
            Some(index) => *index,
            None => {
                self.by_key.insert(key.into(), self.lanes.len());
                let folder = partition_folder(self.snapshot.partition_fields(), values);
                self.lanes.push(Lane::new(values.to_vec(), folder));
                self.lanes.len() - 1
            }
        }
    }

    /// Puts rows into their lane.
    fn lane_of(&mut self, part: Part, bytes: usize, sliced: bool) -> usize {
        let index = self.lane_of_partition(&part.key, &part.values);
        self.waiting += bytes;
        self.lanes[index].push(Rows::Batch(part.rows), bytes, sliced);
        index
    }

    /// Waits until no job has the lane's file, and another job may start.
    pub(super) async fn wait_for(&mut self, index: usize) -> Result<()> {
        while self.lanes[index].busy || self.jobs.len() >= self.parallel {
            self.settle_next().await?;
        }
        Ok(())
    }

    /// Hands a lane's rows to the encoder; `close` completes its file too.
    pub(super) async fn start(&mut self, index: usize, close: bool) -> Result<()> {
        self.wait_for(index).await?;
        let lane = &mut self.lanes[index];
        let (rows, bytes) = lane.take();
        let open = lane.open.take().map(Alone::into_inner);
        self.waiting -= bytes;
        self.encoding -= std::mem::take(&mut lane.open_bytes);
        if rows.is_empty() && open.is_none() {
            return Ok(());
        }
        lane.busy = true;
        let folder = lane.folder.clone();
        let recipe = Arc::clone(&self.recipe);
        self.jobs.spawn_blocking(move || {
            let (open, complete) = recipe.encode(&folder, open, rows, close)?;
            Ok(Done {
                lane: index,
                open,
                complete,
            })
        });
        Ok(())
    }

    /// Takes over what finished jobs made, without waiting for others.
    pub(super) async fn settle_finished(&mut self) -> Result<()> {
        while let Some(done) = self.jobs.try_join_next() {
            self.settle(done).await?;
        }
        Ok(())
    }

    async fn settle_next(&mut self) -> Result<()> {
        match self.jobs.join_next().await {
            Some(done) => self.settle(done).await,
            None => Ok(()),
        }
    }

    /// Takes over what a job made.
    async fn settle(&mut self, done: Result<Result<Done>, JoinError>) -> Result<()> {
        let done = done.map_err(broken)??;
        self.lanes[done.lane].busy = false;
        for encoded in done.complete {
            // Only the first can be the file that the lane had open before.
            let upload = self.lanes[done.lane].upload.take().map(Alone::into_inner);
            self.store(done.lane, encoded, upload).await?;
        }
        let Some(mut open) = done.open else { return Ok(()) };
        if open.ready() >= SEND_AHEAD {
            self.send_ahead(done.lane, &mut open).await?;
        }
        let lane = &mut self.lanes[done.lane];
        lane.open_bytes = open.memory();
        self.encoding += lane.open_bytes;
        lane.open = Some(Alone::new(open));
        Ok(())
    }

    /// Stores the first part of a file whose end is not known yet.
    async fn send_ahead(&mut self, index: usize, open: &mut Encoder) -> Result<()> {
        let failed = |path: &str, source| Error::Store {
            action: "write",
            path: path.to_owned(),
            source,
        };
        let lane = &mut self.lanes[index];
        let upload = match &mut lane.upload {
            Some(upload) => upload,
            None => {
                self.staged.push(open.path().to_owned());
                let key = Path::parse(open.path()).map_err(|e| failed(open.path(), e.into()))?;
                let started = self.store.object_store().put_multipart(&key).await;
                let started = started.map_err(|e| failed(open.path(), e))?;
                let upload = WriteMultipart::new_with_chunk_size(started, SEND_AHEAD);
                lane.upload.insert(Alone::new(upload))
            }
        };
        let upload = upload.get_mut();
        upload
            .wait_for_capacity(4)
            .await
            .map_err(|e| failed(open.path(), e))?;
        open.take().into_iter().for_each(|bytes| upload.put(bytes));
        Ok(())
    }

    /// Stores a complete file in the background and notes it.
    async fn store(&mut self, lane: usize, encoded: Encoded, upload: Option<WriteMultipart>) -> Result<()> {
        while self.uploads.len() >= MAX_UPLOADS {
            if let Some(stored) = self.uploads.join_next().await {
                stored.map_err(broken)??;
            }
        }
        let (groups, leaves) = (encoded.metadata.row_groups(), &self.recipe.layout.leaves);
        let columns = statistics::of_groups(groups, leaves, &encoded.nans);
        self.written.rows += encoded.rows;
        if self.tracer.is_some() {
            self.lanes[lane].trace.complete(&encoded.path, encoded.rows);
        }
        self.written.bytes += encoded.bytes;
        self.written.files.push(DataFile {
            path: encoded.path.clone(),
            recorded: encoded.path.clone(),
            bytes: encoded.bytes,
            rows: encoded.rows,
            spec_id: self.spec_id,
            partition: self.lanes[lane].values.clone(),
            columns,
            masks: Vec::new(),
            equality_deletes: Vec::new(),
            sequence: None,
            first_row_id: None,
            split_offsets: row_group_offsets(&encoded.metadata),
            notes: self.recipe.order.as_deref().map(notes),
        });
        if upload.is_none() {
            self.staged.push(encoded.path.clone());
        }
        let store = self.store.clone();
        self.uploads.spawn(async move {
            let Some(mut upload) = upload else {
                return store.put_all(&encoded.path, encoded.rest).await;
            };
            encoded.rest.into_iter().for_each(|bytes| upload.put(bytes));
            upload.finish().await.map(|_| ()).map_err(|source| Error::Store {
                action: "write",
                path: encoded.path,
                source,
            })
        });
        Ok(())
    }

    /// Brings memory back below the budget.
    pub(super) async fn relieve(&mut self) -> Result<()> {
        if self.kept_alive > self.memory_bytes / 2 {
            self.lanes.iter_mut().try_for_each(Lane::own)?;
            self.kept_alive = 0;
        }
        loop {
            let too_many = self.lanes.iter().filter(|lane| lane.open.is_some()).count() > MAX_OPEN;
            if !too_many && self.waiting + self.encoding <= self.memory_bytes {
                return Ok(());
            }
            let size = |lane: &Lane| {
                if too_many {
                    lane.open_bytes
                } else {
                    lane.bytes + lane.open_bytes
                }
            };
            let largest = (0..self.lanes.len())
                .filter(|i| !self.lanes[*i].busy && size(&self.lanes[*i]) > 0)
                .max_by_key(|i| size(&self.lanes[*i]));
            match largest {
                Some(index) => {
                    let lane = &self.lanes[index];
                    self.start(index, too_many || lane.open_bytes >= lane.bytes)
                        .await?;
                }
                // All is in the hands of the encoder.
                None if self.jobs.is_empty() => return Ok(()),
                None => self.settle_next().await?,
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        for index in 0..self.lanes.len() {
            self.start(index, true).await?;
        }
        while !self.jobs.is_empty() {
            self.settle_next().await?;
        }
        while let Some(stored) = self.uploads.join_next().await {
            stored.map_err(broken)??;
        }
        Ok(())
    }

    /// Gives up: waits until nothing is written any more, and returns what must be deleted.
    pub async fn abandon(&mut self) -> Vec<String> {
        while self.jobs.join_next().await.is_some() {}
        while self.uploads.join_next().await.is_some() {}
        for lane in &mut self.lanes {
            if !planted::is(Bug::UploadLeft)
                && let Some(upload) = lane.upload.take()
            {
                // The store forgets the parts, or an older part of it does later: nothing has the name.
                let _ = upload.into_inner().abort().await;
            }
        }
        self.staged()
    }

    /// After an error: nothing is written any more, so that what was staged can be deleted.
    pub(super) async fn quiet_after<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.abandon().await;
        }
        result
    }
}

/// What the formats keep about a file in this order.
fn notes(order: &FileOrder) -> Arc<FileNotes> {
    Arc::new(FileNotes {
        clustering: Some(CLUSTERING.to_owned()),
        sorted_by: order.sorted_by.clone(),
        ..FileNotes::default()
    })
}

/// The batch with numbers of old files and old positions as its last columns, so that they are split as its rows are.
fn with_places(batch: &RecordBatch, files: Vec<i32>, origins: &Origins) -> Result<RecordBatch> {
    let mut fields = batch.schema_ref().fields().to_vec();
    fields.push(Arc::new(Field::new("", DataType::Int32, false)));
    fields.push(Arc::new(Field::new("", DataType::Int64, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(Int32Array::from(files)));
    columns.push(Arc::new(origins.positions.clone()));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Takes the two columns off again.
fn take_places(part: &mut Part) -> Result<[ArrayRef; 2]> {
    let own = part.rows.num_columns() - 2;
    let places = [
        Arc::clone(part.rows.column(own)),
        Arc::clone(part.rows.column(own + 1)),
    ];
    part.rows = part.rows.project(&(0..own).collect::<Vec<_>>())?;
    Ok(places)
}

/// Bytes of a batch's rows, without what its buffers hold beside them.
pub(super) fn memory(batch: &RecordBatch) -> usize {
    let of = |column: &dyn Array| {
        column
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(|column| of(column.as_ref())).sum()
}

/// A job that panicked or was cancelled.
pub(super) fn broken(error: JoinError) -> Error {
    Error::Engine(Box::new(DataFusionError::Execution(format!(
        "writing a data file stopped: {error}"
    ))))
}
