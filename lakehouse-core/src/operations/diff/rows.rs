//! The rows that only one of two versions has, as a query.
//!
//! The rows of each side's files are tagged and put together, counted by their values, and what is not there as often
//! on both sides is left, in order. The engine counts and sorts within its memory limit and spills.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions_aggregate::expr_fn::{max, sum};
use datafusion::logical_expr::{Expr, ScalarUDF, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionContext, ident};
use futures::{StreamExt, TryStreamExt, stream};

use super::Diff;
use super::columns::Pair;
use super::files::Part;
use super::pairs::{Lines, RowCounts};
use super::spelling::Spelled;
use crate::error::{Error, Result};
use crate::model::{DataFile, RowMask, Snapshot};
use crate::scan::{
    SnapshotTable, config, memory, parse_names, read_file_masks, session_with, unknown_column,
};

/// The rows that are different. Nothing is read before they are asked for; asking again reads again.
pub struct RowDifference {
    /// Data files that are read for it: those that both versions have with the same rows are not among them.
    pub files_read: u64,
    /// Bytes of these files.
    pub bytes_read: u64,
    changes: Arc<Changes>,
    ctx: SessionContext,
}

impl Diff {
    /// The rows that only one version has, as a multiset difference over [`Diff::compared`]: a row that the second
    /// version has twice more is there twice. NULLs, NaNs, and 0.0 and -0.0 are equal to one another. With `on`, key
    /// columns as the second version calls them (`"id"`, `"k1, k2"`), a row whose key both versions have is shown as
    /// changed: its old values, then its new ones. A key of several such rows matches none.
    ///
    /// `memory_limit` is in bytes, as for [`session`](crate::scan::session); what does not fit is spilled.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the versions have no column in common; [`Error::Invalid`] for a key that is not a
    /// column of both; when masks or delete files cannot be read.
    pub async fn rows(&self, on: Option<&str>, memory_limit: Option<usize>) -> Result<RowDifference> {
        let key = on.map_or(Ok(Vec::new()), |on| self.key(on))?;
        let pairs = &self.compared.pairs;
        if pairs.is_empty() {
            return Err(Error::unsupported(
                "these versions have no column in common, so that their rows cannot be compared",
                "compare versions between which fewer columns were dropped",
            ));
        }
        let shown: Vec<FieldRef> = pairs.iter().map(|pair| Arc::clone(&pair.to)).collect();
        let lines = Arc::new(Lines::new(&shown, &key));
        // As they are in the bytes: key columns first.
        let ordered: Vec<&Pair> = lines
            .places()
            .filter_map(|field| pairs.iter().find(|pair| pair.to.name() == field.name()))
            .collect();
        let (from, to) = self.sides.settled(&self.handle, &self.from, &self.to).await?;
        let from = self.files(&self.from, from).await?;
        let to = self.files(&self.to, to).await?;
        let mut read: HashSet<&str> = HashSet::new();
        let mut bytes_read = 0;
        for (file, _) in from.iter().chain(&to) {
            if read.insert(&file.path) {
                bytes_read += file.bytes;
            }
        }
        let files_read = read.len() as u64;

        let ctx = counting_session(memory_limit);
        let old = ordered.iter().map(|pair| &pair.from);
        let old = self.tagged(&ctx, &self.from, from, &old.collect::<Vec<_>>(), -1)?;
        let new = ordered.iter().map(|pair| &pair.to);
        let new = self.tagged(&ctx, &self.to, to, &new.collect::<Vec<_>>(), 1)?;
        let counted = old
            .union(new)?
            .aggregate(
                vec![ident(COMPARED)],
                vec![sum(ident(SIGN)).alias(COUNT), max(ident(STORED)).alias(STORED)],
            )?
            .filter(ident(COUNT).not_eq(lit(0_i64)))?
            .sort(vec![ident(COMPARED).sort(true, true)])?;
        Ok(RowDifference {
            files_read,
            bytes_read,
            changes: Arc::new(Changes { counted, lines }),
            ctx,
        })
    }

    /// Which of the compared columns are the key.
    fn key(&self, on: &str) -> Result<Vec<usize>> {
        let place = "the key of a comparison";
        let names = parse_names(on).filter(|names| !names.is_empty()).ok_or_else(|| {
            Error::invalid(format!("{on:?} is not a list of columns"), place)
                .with_hint("name the key columns: id, or region, id")
        })?;
        let mut key: Vec<usize> = Vec::with_capacity(names.len());
        for name in names {
            let columns = &self.compared.columns;
            let Some(at) = columns.iter().position(|column| *column == name) else {
                if self.compared.left_out.contains(&name) {
                    return Err(Error::invalid(
                        format!(
                            "column {name} cannot be a key: it cannot be compared between these versions"
                        ),
                        place,
                    )
                    .with_hint(format!("columns of both versions: {}", columns.join(", "))));
                }
                return Err(unknown_column(&name, columns.iter().cloned(), place));
            };
            if key.contains(&at) {
                return Err(Error::invalid(format!("column {name} is named twice"), place));
            }
            key.push(at);
        }
        Ok(key)
    }

    /// Files with the rows that are not to be read; those of which no row is to be read are left out.
    async fn files(&self, snapshot: &Snapshot, parts: Vec<Part>) -> Result<Vec<(DataFile, RowMask)>> {
        let (mut whole, mut files) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Shown(file) => whole.push(file),
                Part::Rows(file, rows) => {
                    let mut all = RowMask::new();
                    all.insert_range(0..file.rows);
                    files.push((file, all.without(&rows)));
                }
            }
        }
        let masks = read_file_masks(&self.handle, snapshot, &whole).await?;
        files.extend(whole.into_iter().zip(masks));
        files.retain(|(file, hidden)| hidden.len() < file.rows);
        Ok(files)
    }

    /// The rows of files of one version as bytes, with a sign.
    fn tagged(
        &self,
        ctx: &SessionContext,
        snapshot: &Arc<Snapshot>,
        files: Vec<(DataFile, RowMask)>,
        columns: &[&FieldRef],
        sign: i64,
    ) -> Result<DataFrame> {
        let snapshot = Arc::new(read_as(snapshot, columns));
        let table = SnapshotTable::new(self.handle.clone(), snapshot).with_hidden_rows(files);
        let values: Vec<Expr> = columns.iter().map(|field| ident(field.name())).collect();
        let compared = ScalarUDF::new_from_impl(Spelled::compared(values.len()));
        let stored = ScalarUDF::new_from_impl(Spelled::stored(values.len()));
        Ok(ctx.read_table(Arc::new(table))?.select(vec![
            compared.call(values.clone()).alias(COMPARED),
            stored.call(values).alias(STORED),
            lit(sign).alias(SIGN),
        ])?)
    }
}

/// Sorts set memory aside for merging what they spilled: by default so much each that small limits do not hold it.
fn counting_session(memory_limit: Option<usize>) -> SessionContext {
    const USUAL: usize = 10 << 20;
    let mut config = config();
    let share = memory(memory_limit) / 32;
    config.options_mut().execution.sort_spill_reservation_bytes = share.clamp(64 << 10, USUAL);
    session_with(memory_limit, config)
}

const COMPARED: &str = "compared";
const STORED: &str = "stored";
const SIGN: &str = "sign";
const COUNT: &str = "count";

/// The version as if its columns had these types: the scan finds them in files by what they are, and reads of structs
/// only the members that are asked for.
fn read_as(snapshot: &Snapshot, columns: &[&FieldRef]) -> Snapshot {
    let fields = snapshot.schema.fields().iter().map(|field| {
        let wanted = columns.iter().find(|wanted| wanted.name() == field.name());
        Arc::clone(wanted.copied().unwrap_or(field))
    });
    let fields: Vec<FieldRef> = fields.collect();
    let metadata = snapshot.schema.metadata().clone();
    snapshot.read_as(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

impl fmt::Debug for RowDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowDifference")
            .field("files_read", &self.files_read)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

impl RowDifference {
    /// The rows, in the order of the key, if there is one, then of the columns: the compared columns, and
    /// [`CHANGE_TYPE`](super::CHANGE_TYPE) behind them.
    ///
    /// # Errors
    /// When the engine refuses the table.
    pub fn frame(&self) -> Result<DataFrame> {
        let changes: Arc<dyn PartitionStream> = Arc::clone(&self.changes) as _;
        let schema = Arc::clone(changes.schema());
        let table = StreamingTable::try_new(schema, vec![changes])?;
        // In one partition, so that what is done to the rows leaves them in their order.
        let config = self.ctx.copied_config().with_target_partitions(1);
        let state = SessionStateBuilder::new_from_existing(self.ctx.state()).with_config(config);
        Ok(SessionContext::new_with_state(state.build()).read_table(Arc::new(table))?)
    }

    /// Reads the rows and counts them.
    ///
    /// # Errors
    /// When a data file cannot be read.
    pub async fn count(&self) -> Result<RowCounts> {
        let counts = Arc::new(Mutex::new(RowCounts::default()));
        let rows = self.changes.counted.clone().execute_stream().await?;
        let mut lines = Arc::clone(&self.changes.lines).of(rows, Arc::clone(&counts));
        while lines.try_next().await?.is_some() {}
        let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(counts)
    }
}

/// The lines of a difference as a stream of the engine's.
struct Changes {
    /// Bytes of rows, how often more the second version has them, how they are stored.
    counted: DataFrame,
    lines: Arc<Lines>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("schema", &self.lines.schema)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for Changes {
    fn schema(&self) -> &SchemaRef {
        &self.lines.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (counted, lines) = (self.counted.clone(), Arc::clone(&self.lines));
        let batches = stream::once(async move {
            let rows = counted.execute_stream().await?;
            let batches = lines.of(rows, Arc::default());
            Ok::<_, DataFusionError>(batches.map_err(DataFusionError::from))
        });
        let schema = Arc::clone(&self.lines.schema);
        Box::pin(RecordBatchStreamAdapter::new(
            schema,
            batches.try_flatten().boxed(),
        ))
    }
}
