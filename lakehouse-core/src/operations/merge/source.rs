//! The source of a merge: in memory, or on disk in parts that are merged one after the other.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::{concat, filter_record_batch, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::MemTable;
use datafusion::dataframe::DataFrame;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};

use super::super::Rows;
use super::super::input::{Batches, Known};
use super::cdc::{Cdc, Own, Reader};
use super::debezium;
use super::spool::{Part, Spool};
use crate::error::{Error, Result};
use crate::scan::{config, session_with};
use crate::write::conform_at;

/// Name of the column that numbers the source's rows.
pub(super) const NUMBER: &str = "__lakehouse_source_row";

/// The source may take one in so many bytes of the memory limit: the join holds it a second time, with a
/// table of its keys, and new rows wait to be written.
const SHARE: usize = 8;
/// What the join holds for a row beside its values, in bytes.
pub(super) const PER_ROW: usize = 48;

/// The rows as they came, kept for as long as the merge may have to be planned again.
pub(super) struct Collected {
    schema: SchemaRef,
    /// The columns as the source has them, before any got the table's types.
    given: SchemaRef,
    rows: Held,
    /// What a change feed says of itself.
    own: Option<Own>,
    /// Their share of the memory limit.
    reservation: MemoryReservation,
    /// What may be held of them at once, in bytes.
    budget: usize,
}

/// Where rows are held.
enum Held {
    Memory(Vec<RecordBatch>),
    /// What fits together is merged together.
    Disk(Vec<Vec<Part>>),
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
    let mut config = config();
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.join_reordering = false;
    optimizer.hash_join_single_partition_threshold = usize::MAX;
    optimizer.hash_join_single_partition_threshold_rows = usize::MAX;
    session_with(memory_limit, config)
}

/// The same session, whose joins tell the scan of the target nothing of their keys. DataFusion 55.2 takes a cast
/// from a local time to another zone for one that leaves values as they are, where it compares such a filter
/// with the statistics of a file.
pub(super) fn without_join_filters(ctx: &SessionContext) -> SessionContext {
    let mut config = ctx.copied_config();
    config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
    // With the rules of the session.
    let state = SessionStateBuilder::new_from_existing(ctx.state()).with_config(config);
    SessionContext::new_with_state(state.build())
}

impl Collected {
    /// The columns that the source will have, and those of a change feed that are its own, before it is read.
    ///
    /// # Errors
    /// As [`Collected::open`].
    pub(super) async fn columns(
        rows: &Rows,
        cdc: Option<&Cdc>,
        table: &Schema,
    ) -> Result<(SchemaRef, Option<Own>)> {
        let columns = match cdc {
            Some(Cdc::Debezium) => rows.columns(Known::Text(&debezium::around(table))).await?,
            _ => rows.columns(Known::Text(table)).await?,
        };
        Ok(match cdc {
            Some(cdc) => {
                let feed = Reader::new(cdc, &columns)?;
                (feed.schema(), Some(feed.own()))
            }
            None => (columns, None),
        })
    }

    /// Opens the source: the stream of its rows, those of a change feed taken out of their records, and what
    /// will hold them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a change feed that is not one.
    pub(super) async fn open(
        rows: &Rows,
        cdc: Option<&Cdc>,
        table: &Schema,
        ctx: &SessionContext,
        memory: usize,
    ) -> Result<(Self, Batches)> {
        let (mut schema, mut stream) = match cdc {
            Some(Cdc::Debezium) => rows.open(Known::Text(&debezium::around(table))).await?,
            _ => rows.open(Known::Table(table)).await?,
        };
        let feed = cdc.map(|cdc| Reader::new(cdc, &schema)).transpose()?;
        let own = feed.as_ref().map(Reader::own);
        if let Some(feed) = feed {
            schema = feed.schema();
            let mut read = 0;
            let records = stream.map(move |batch| {
                let batch = batch?;
                let before = read;
                read += batch.num_rows() as u64;
                feed.read(&batch, before)
            });
            stream = Box::pin(records);
        }
        let pool = &ctx.runtime_env().memory_pool;
        let collected = Self {
            given: Arc::clone(&schema),
            schema,
            rows: Held::Memory(Vec::new()),
            own,
            reservation: MemoryConsumer::new("merge source").register(pool),
            budget: memory / SHARE,
        };
        Ok((collected, stream))
    }

    /// Reads all rows: into memory, or beyond the budget to disk, in parts by these columns as they are with
    /// the types of `fitted`.
    ///
    /// # Errors
    /// Those of reading, and of writing to disk.
    pub(super) async fn read(&mut self, mut stream: Batches, fitted: &Schema, keys: &[String]) -> Result<()> {
        let mut batches = Vec::new();
        let mut spool: Option<Spool> = None;
        while let Some(batch) = stream.try_next().await? {
            if let Some(spool) = &mut spool {
                spool.add(&batch)?;
                continue;
            }
            let bytes = batch.get_array_memory_size() + batch.num_rows() * PER_ROW;
            batches.push(batch);
            if self.reservation.size() + bytes > self.budget || self.reservation.try_grow(bytes).is_err() {
                let mut opened = Spool::new(Arc::clone(&self.schema), fitted, keys, self.budget)?;
                for batch in batches.drain(..) {
                    opened.add(&batch)?;
                }
                self.reservation.free();
                spool = Some(opened);
            }
        }
        self.rows = match spool {
            None => Held::Memory(batches),
            Some(spool) => Held::Disk(self.passes_of(spool.finish()?)?),
        };
        Ok(())
    }

    /// Parts that fit the budget together.
    fn passes_of(&self, parts: Vec<Part>) -> Result<Vec<Vec<Part>>> {
        let mut passes: Vec<Vec<Part>> = Vec::new();
        let mut bytes = 0;
        for part in parts {
            if part.bytes > self.budget * 2 {
                return Err(Error::Limit {
                    what: format!(
                        "the source of the merge was split by its key, and a part of it still takes {} MiB",
                        part.bytes >> 20
                    ),
                    place: "memory limit: raise it, or merge the source in several runs".to_owned(),
                    hint: String::new(),
                });
            }
            match passes.last_mut() {
                Some(pass) if bytes + part.bytes <= self.budget => {
                    bytes += part.bytes;
                    pass.push(part);
                }
                _ => {
                    bytes = part.bytes;
                    passes.push(vec![part]);
                }
            }
        }
        Ok(passes)
    }

    /// Bytes that the source rows of a pass and the join with them take at most.
    pub(super) fn memory(&self) -> usize {
        match &self.rows {
            Held::Memory(_) => self.reservation.size(),
            Held::Disk(passes) => {
                let bytes = |parts: &Vec<Part>| parts.iter().map(|part| part.bytes).sum::<usize>();
                passes.iter().map(bytes).max().unwrap_or_default()
            }
        }
    }

    /// In how many passes the rows are merged.
    pub(super) fn passes(&self) -> usize {
        match &self.rows {
            Held::Memory(_) => 1,
            Held::Disk(passes) => passes.len(),
        }
    }

    /// The columns, with the table's types where the table has them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for two columns of one name.
    pub(super) fn fitted(&self, table: &Schema) -> Result<SchemaRef> {
        let mut names = HashSet::new();
        let mut fields = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            if !names.insert(field.name()) {
                return Err(Error::invalid(
                    format!("the source has two columns named {}", field.name()),
                    "source",
                ));
            }
            let column = table.field_with_name(field.name()).unwrap_or(field);
            fields.push(Field::new(field.name(), column.data_type().clone(), true));
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// The same, known to have had these columns before they got the table's types.
    pub(super) fn with_given(self, given: SchemaRef) -> Self {
        Self { given, ..self }
    }

    /// The columns as the source has them.
    pub(super) fn given(&self) -> &SchemaRef {
        &self.given
    }

    /// The columns as they came.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of a change feed that are its own.
    pub(super) fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }
}

impl Source {
    /// The rows of one pass, the columns that the table has brought to the table's types.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that does not fit, naming column and row.
    pub(super) fn new(collected: &Collected, pass: usize, table: &Schema) -> Result<Self> {
        let read: Vec<RecordBatch>;
        let given = match &collected.rows {
            Held::Memory(batches) => batches,
            Held::Disk(passes) => {
                let parts: Vec<Vec<RecordBatch>> =
                    passes[pass].iter().map(Part::read).collect::<Result<_>>()?;
                read = parts.concat();
                &read
            }
        };
        let schema = collected.fitted(table)?;
        let known: Vec<usize> = (0..schema.fields().len())
            .filter(|at| table.field_with_name(schema.field(*at).name()).is_ok())
            .collect();
        let known_schema = schema.project(&known)?;
        let mut batches = Vec::with_capacity(given.len());
        let mut rows = 0;
        for batch in given {
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

    /// Where rows of these numbers are: batch, and row in it.
    pub(super) fn places(&self, numbers: &UInt64Array) -> Vec<(usize, usize)> {
        let mut starts = Vec::with_capacity(self.batches.len());
        let mut next = 0;
        for batch in &self.batches {
            starts.push(next);
            next += batch.num_rows() as u64;
        }
        let place = |number: &u64| {
            // Behind empty batches that begin at the same number.
            let batch = starts.partition_point(|start| start <= number).saturating_sub(1);
            (batch, (number - starts[batch]) as usize)
        };
        numbers.values().iter().map(place).collect()
    }

    /// A column of the rows at these places.
    pub(super) fn take(&self, name: &str, places: &[(usize, usize)]) -> Result<ArrayRef> {
        let index = self.schema.index_of(name)?;
        let parts: Vec<&dyn Array> = self.batches.iter().map(|b| b.column(index).as_ref()).collect();
        if parts.is_empty() {
            return Ok(new_empty_array(self.schema.field(index).data_type()));
        }
        Ok(interleave(&parts, places)?)
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
