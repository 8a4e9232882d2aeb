//! The source of a merge, in memory.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::{concat, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::MemTable;
use datafusion::dataframe::DataFrame;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::super::Rows;
use super::cdc::{Cdc, Own, Reader};
use crate::error::{Error, Result};
use crate::scan::session;
use crate::write::conform_at;

/// Name of the column that numbers the source's rows.
pub(super) const NUMBER: &str = "__lakehouse_source_row";

/// The rows as they came, kept for as long as the merge may have to be planned again.
pub(super) struct Collected {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// What a change feed says of itself.
    own: Option<Own>,
    /// Their share of the memory limit.
    _reservation: MemoryReservation,
}

/// The rows with the table's types in the columns that the table has.
pub(super) struct Source {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: u64,
}

/// A session whose joins keep the source whole on the build side, so that its keys reach the scan of
/// the target as a filter.
pub(super) fn session_for_merge(memory_limit: Option<usize>) -> SessionContext {
    let ctx = session(memory_limit);
    let mut config = ctx.copied_config();
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.hash_join_single_partition_threshold = usize::MAX;
    optimizer.hash_join_single_partition_threshold_rows = usize::MAX;
    SessionContext::new_with_config_rt(config, ctx.runtime_env())
}

impl Collected {
    /// Reads all rows, those of a change feed taken out of their records.
    ///
    /// # Errors
    /// [`Error::Limit`] when they do not fit the memory limit; [`Error::Invalid`] for a change feed that is not one.
    pub(super) async fn read(
        rows: &Rows,
        cdc: Option<&Cdc>,
        table: &Schema,
        ctx: &SessionContext,
    ) -> Result<Self> {
        // The names in an envelope are not those of the table.
        let named = !matches!(cdc, Some(Cdc::Debezium));
        let (mut schema, mut stream) = rows.open(named.then_some(table)).await?;
        let feed = cdc.map(|cdc| Reader::new(cdc, &schema)).transpose()?;
        if let Some(feed) = &feed {
            schema = feed.schema();
        }
        let pool = &ctx.runtime_env().memory_pool;
        let reservation = MemoryConsumer::new("merge source").register(pool);
        let mut batches = Vec::new();
        let mut read = 0;
        while let Some(mut batch) = stream.try_next().await? {
            let before = read;
            read += batch.num_rows() as u64;
            if let Some(feed) = &feed {
                batch = feed.read(&batch, before)?;
            }
            if reservation.try_grow(batch.get_array_memory_size()).is_err() {
                let held = reservation.size() >> 20;
                return Err(Error::Limit {
                    what: format!(
                        "the source of a merge is held in memory, and {held} MiB of it are as much as the limit allows"
                    ),
                    place: "memory limit: raise it, or merge the source in parts".to_owned(),
                });
            }
            batches.push(batch);
        }
        Ok(Self {
            schema,
            batches,
            own: feed.map(|feed| feed.own()),
            _reservation: reservation,
        })
    }

    /// The columns of a change feed that are its own.
    pub(super) fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }
}

impl Source {
    /// Brings the columns that the table has to the table's types.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that does not fit, naming column and row.
    pub(super) fn new(collected: &Collected, table: &Schema) -> Result<Self> {
        let mut names = HashSet::new();
        for field in collected.schema.fields() {
            if !names.insert(field.name()) {
                return Err(Error::invalid(
                    format!("the source has two columns named {}", field.name()),
                    "source",
                ));
            }
        }
        let mut fields = Vec::new();
        let mut known = Vec::new();
        for (index, field) in collected.schema.fields().iter().enumerate() {
            let data_type = match table.field_with_name(field.name()) {
                Ok(column) => {
                    known.push(index);
                    column.data_type()
                }
                Err(_) => field.data_type(),
            };
            fields.push(Field::new(field.name(), data_type.clone(), true));
        }
        let schema = Arc::new(Schema::new(fields));
        let known_schema = schema.project(&known)?;
        let mut batches = Vec::with_capacity(collected.batches.len());
        let mut rows = 0;
        for batch in &collected.batches {
            let fitting = conform_at(&batch.project(&known)?, &known_schema, rows)?;
            let mut columns = batch.columns().to_vec();
            for (at, column) in known.iter().zip(fitting.columns()) {
                columns[*at] = Arc::clone(column);
            }
            rows += batch.num_rows() as u64;
            batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
        }
        Ok(Self {
            schema,
            batches,
            rows,
        })
    }

    /// Only the rows for which this is true.
    pub(super) fn filter(self, keep: &[bool]) -> Result<Self> {
        let mut from = 0;
        let mut rows = 0;
        let mut batches = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let upto = from + batch.num_rows();
            let kept = filter_record_batch(batch, &BooleanArray::from(keep[from..upto].to_vec()))?;
            from = upto;
            rows += kept.num_rows() as u64;
            batches.push(kept);
        }
        Ok(Self {
            batches,
            rows,
            ..self
        })
    }

    /// Rows of one batch, to describe them.
    pub(super) fn single(batch: RecordBatch) -> Self {
        Self {
            schema: batch.schema(),
            rows: batch.num_rows() as u64,
            batches: vec![batch],
        }
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// All values of a column.
    pub(super) fn column(&self, name: &str) -> Result<ArrayRef> {
        let index = self.schema.index_of(name)?;
        let parts: Vec<_> = self.batches.iter().map(|b| b.column(index).as_ref()).collect();
        if parts.is_empty() {
            return Ok(new_empty_array(self.schema.field(index).data_type()));
        }
        Ok(concat(&parts)?)
    }

    /// The rows as a query, numbered in the column [`NUMBER`].
    pub(super) fn frame(&self, ctx: &SessionContext) -> Result<DataFrame> {
        let mut fields = self.schema.fields().to_vec();
        fields.push(Arc::new(Field::new(NUMBER, DataType::UInt64, false)));
        let schema = Arc::new(Schema::new(fields));
        let mut from = 0;
        let mut numbered = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let upto = from + batch.num_rows() as u64;
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(UInt64Array::from_iter_values(from..upto)));
            numbered.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
            from = upto;
        }
        let table = MemTable::try_new(schema, vec![numbered])?;
        Ok(ctx.read_table(Arc::new(table))?)
    }

    /// A row by the columns that tell it apart: `id = 7, region = eu`; by its number if none do.
    pub(super) fn describe(&self, mut row: u64, keys: &[String]) -> String {
        let number = row + 1;
        let Some(batch) = self.batches.iter().find(|batch| {
            let rows = batch.num_rows() as u64;
            let here = row < rows;
            if !here {
                row -= rows;
            }
            here
        }) else {
            return format!("row {number}");
        };
        let options = FormatOptions::default().with_null("NULL");
        let parts: Vec<String> = keys
            .iter()
            .filter_map(|key| {
                let column = batch.column_by_name(key)?;
                let formatter = ArrayFormatter::try_new(column, &options).ok()?;
                Some(format!("{key} = {}", formatter.value(row as usize)))
            })
            .collect();
        if parts.is_empty() {
            format!("row {number}")
        } else {
            parts.join(", ")
        }
    }
}
