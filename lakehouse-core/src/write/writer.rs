//! Record batches to data files, one set of open Parquet writers per partition.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::model::{CommitId, DataFile, Snapshot};
use crate::store::Store;

/// How files are written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Size a data file is closed at, in bytes.
    pub target_file_bytes: u64,
    /// The batches carry `_row_id` and `_last_updated_sequence_number` (nullable Int64) after the
    /// table's columns; they are stored in the files (Iceberg v3 row lineage).
    pub lineage: bool,
}

/// Splits rows by the snapshot's current partitioning and writes them to Parquet files below the
/// table root, named `{data_prefix}{partition folder}/{n}-{commit id}.parquet`. Nothing is visible
/// until a commit names the files.
#[derive(Debug)]
pub struct TableWriter {
    store: Store,
    snapshot: Arc<Snapshot>,
    commit_id: CommitId,
    options: WriteOptions,
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
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            target_file_bytes: 512 << 20,
            lineage: false,
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
        Ok(Self {
            store,
            snapshot,
            commit_id,
            options,
        })
    }

    /// Takes rows whose schema is the table's (see [`super::conform`]), plus lineage columns if asked for.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let _ = (batch, &self.store, &self.snapshot, &self.commit_id, &self.options);
        unimplemented!()
    }

    /// Object keys written so far: what must be deleted if the operation fails.
    pub fn staged(&self) -> Vec<String> {
        unimplemented!()
    }

    /// Closes every file; on local disk they are synced when this returns.
    pub async fn finish(self) -> Result<Written> {
        unimplemented!()
    }
}
