//! Equality deletes (Iceberg spec, "Equality Delete Files"), resolved to row masks when a scan is planned.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Field;
use arrow::row::{RowConverter, Rows, SortField};
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};

use super::columns::{column_of, find};
use super::layout::partition_value;
use super::reader::{Reader, Readers};
use crate::error::{Error, Result};
use crate::model::{DataFile, EqualityDelete, RowMask, Snapshot};
use crate::store::Store;

/// The deleted keys of one delete file, in Arrow's row format.
type Keys = HashSet<Box<[u8]>>;

/// Delete files that were read for one scan.
pub(super) struct EqualityDeletes<'a> {
    readers: Readers,
    snapshot: &'a Snapshot,
    read: HashMap<String, Arc<Keys>>,
}

impl<'a> EqualityDeletes<'a> {
    pub(super) fn new(store: Store, snapshot: &'a Snapshot) -> Self {
        Self {
            readers: Readers::new(store),
            snapshot,
            read: HashMap::new(),
        }
    }

    /// Hides the rows of `file` whose key is in one of its delete files. NULL equals NULL.
    pub(super) async fn apply(&mut self, file: &DataFile, mask: &mut RowMask) -> Result<()> {
        // Deletes by the same columns need one pass over the data file.
        let mut groups: Vec<(Vec<String>, Vec<Arc<Keys>>)> = Vec::new();
        for delete in &file.equality_deletes {
            let keys = self.keys(delete).await?;
            match groups.iter_mut().find(|(columns, _)| *columns == delete.columns) {
                Some((_, group)) => group.push(keys),
                None => groups.push((delete.columns.clone(), vec![keys])),
            }
        }
        for (columns, deleted) in groups {
            let key = Key::new(self.snapshot, &columns, &file.path)?;
            let mut batches = self.rows(&file.path, file.bytes, &key.fields).await?;
            let mut position: u64 = 0;
            while let Some(batch) = batches.try_next().await? {
                for row in &key.rows(&batch, Some((self.snapshot, file)))? {
                    if deleted.iter().any(|keys| keys.contains(row.as_ref())) {
                        mask.insert(position);
                    }
                    position += 1;
                }
            }
        }
        Ok(())
    }

    async fn keys(&mut self, delete: &EqualityDelete) -> Result<Arc<Keys>> {
        if let Some(keys) = self.read.get(&delete.path) {
            return Ok(Arc::clone(keys));
        }
        let key = Key::new(self.snapshot, &delete.columns, &delete.path)?;
        let mut batches = self.rows(&delete.path, delete.bytes, &key.fields).await?;
        let mut keys = Keys::new();
        while let Some(batch) = batches.try_next().await? {
            keys.extend(key.rows(&batch, None)?.iter().map(|row| Box::from(row.as_ref())));
        }
        let keys = Arc::new(keys);
        self.read.insert(delete.path.clone(), Arc::clone(&keys));
        Ok(keys)
    }

    /// The key columns of all rows of a Parquet file, in order.
    async fn rows(
        &self,
        path: &str,
        bytes: u64,
        fields: &[Field],
    ) -> Result<ParquetRecordBatchStream<Reader>> {
        let reader = self.readers.open(path, bytes);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
        let roots: Vec<usize> = fields
            .iter()
            .filter_map(|field| find(field, builder.schema().fields()))
            .collect();
        let columns = ProjectionMask::roots(builder.parquet_schema(), roots);
        Ok(builder.with_projection(columns).build()?)
    }
}

/// The compared columns.
struct Key {
    fields: Vec<Field>,
    converter: RowConverter,
}

impl Key {
    fn new(snapshot: &Snapshot, columns: &[String], place: &str) -> Result<Self> {
        if columns.is_empty() {
            return Err(Error::invalid("an equality delete compares no columns", place));
        }
        let fields = columns
            .iter()
            .map(|name| match snapshot.schema.field_with_name(name) {
                // Files written before a column was added, or became required, have NULL there.
                Ok(field) => Ok(field.clone().with_nullable(true)),
                Err(_) => Err(Error::invalid(
                    format!("an equality delete compares column {name}, which the table does not have"),
                    place,
                )),
            })
            .collect::<Result<Vec<_>>>()?;
        let sort = fields
            .iter()
            .map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(sort.collect())?;
        Ok(Self { fields, converter })
    }

    /// The keys of a batch, of this data file if there is one: it may lack columns that it is partitioned by.
    fn rows(&self, batch: &RecordBatch, file: Option<(&Snapshot, &DataFile)>) -> Result<Rows> {
        let columns = self
            .fields
            .iter()
            .map(|field| {
                let recorded =
                    file.and_then(|(snapshot, file)| partition_value(snapshot, file, field.name()));
                column_of(batch, field, recorded)
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        Ok(self.converter.convert_columns(&columns)?)
    }
}
