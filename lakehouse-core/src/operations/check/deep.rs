//! The data of a file against all that is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::kernels::cmp::{lt, not_distinct};
use arrow::compute::kernels::numeric::{add, sub};
use arrow::compute::{cast, filter_record_batch, is_null, or};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use futures::{FutureExt, TryStreamExt};
use roaring::RoaringTreemap;

use super::columns::{Column, Leaf, leaves};
use super::files::{LOST, MADE_ANEW};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{Code, DataFile, Finding, PartitionField, RowMask, Snapshot, Transform};
use crate::operations::rules::Rules;
use crate::scan::{MetadataColumns, SnapshotTable, bad_chunks, config, read_file_masks, session_with};

/// What the deep check of one version needs, and what it remembers from file to file.
pub(super) struct Deep<'a> {
    handle: &'a Handle,
    snapshot: &'a Arc<Snapshot>,
    /// The same, every column nullable: a NULL where there should be none is found, not failed on.
    relaxed: Arc<Snapshot>,
    ctx: SessionContext,
    rules: Option<Rules>,
    sequence: Option<i64>,
    /// Row ids met so far.
    ids: Mutex<RoaringTreemap>,
}

impl<'a> Deep<'a> {
    /// Prepares the check of a version whose sequence number is `sequence`. Constraints that are not understood are
    /// found.
    ///
    /// # Errors
    /// When the rules of the table cannot be prepared.
    pub(super) fn new(
        handle: &'a Handle,
        snapshot: &'a Arc<Snapshot>,
        sequence: Option<i64>,
        findings: &mut BTreeSet<Finding>,
    ) -> Result<Self> {
        let rules = match Rules::of(snapshot) {
            Ok(rules) => Some(rules),
            Err(error @ (Error::Unsupported { .. } | Error::Invalid { .. })) => {
                findings.insert(unchecked(&error));
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            handle,
            snapshot,
            relaxed: Arc::new(snapshot.read_as(nullable(&snapshot.schema))),
            // Files are read at the same time, each by itself and in its order.
            ctx: session_with(None, config().with_target_partitions(1)),
            rules,
            sequence,
            ids: Mutex::default(),
        })
    }

    /// Reads a file of so many rows.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn file(&self, file: DataFile, rows: u64) -> Result<Vec<Finding>> {
        let path = file.path.clone();
        // What is wrong with masks was found before.
        let masks = read_file_masks(self.handle, self.snapshot, std::slice::from_ref(&file)).await;
        let mask = masks.ok().and_then(|mut masks| masks.pop()).unwrap_or_default();
        let bytes = file.bytes;
        let read = AssertUnwindSafe(self.read(DataFile { rows, ..file }, &mask))
            .catch_unwind()
            .await;
        let error = match read {
            Ok(Ok(findings)) => return Ok(findings),
            Ok(Err(failed @ Error::Store { .. })) => return Err(failed),
            Ok(Err(error)) => error,
            Err(_) => Error::invalid("the decoder gave up on it", &path),
        };
        let bad = bad_chunks(&self.handle.store, &path, bytes)
            .await
            .unwrap_or_default();
        if bad.is_empty() {
            let what = error.to_string();
            return Ok(vec![Finding::new(Code::FileUnreadable, path, what, LOST)]);
        }
        let finding = |chunk: crate::scan::BadChunk| {
            Finding::new(
                Code::ChunkUnreadable,
                &path,
                format!(
                    "column {} of row group {}: {}",
                    chunk.column, chunk.row_group, chunk.why
                ),
                LOST,
            )
        };
        Ok(bad.into_iter().map(finding).collect())
    }

    async fn read(&self, file: DataFile, mask: &RowMask) -> Result<Vec<Finding>> {
        let lineage = self.snapshot.lineage.is_some();
        let metadata = MetadataColumns {
            position: true,
            lineage,
            ..MetadataColumns::default()
        };
        let table = SnapshotTable::new(self.handle.clone(), Arc::clone(&self.relaxed))
            .with_metadata_columns(metadata)
            .without_statistics()
            .with_hidden_rows(vec![(file.clone(), RowMask::new())]);
        let mut batches = self.ctx.read_table(Arc::new(table))?.execute_stream().await?;
        let mut found = Found::new(self, file, !mask.is_empty());
        while let Some(batch) = batches.try_next().await? {
            found.batch(&batch, mask)?;
        }
        Ok(found.finish())
    }
}

fn unchecked(error: &Error) -> Finding {
    let todo = "check it with the engine that made the constraint";
    Finding::new(Code::ConstraintUnchecked, "", error.to_string(), todo)
}

/// What is found while one file is read.
struct Found<'a> {
    deep: &'a Deep<'a>,
    file: DataFile,
    masked: bool,
    columns: BTreeMap<String, Column>,
    partition: Vec<(PartitionField, ScalarValue)>,
    /// The first of each kind: one tells where to look.
    findings: BTreeMap<(Code, String), String>,
}

impl<'a> Found<'a> {
    fn new(deep: &'a Deep<'a>, mut file: DataFile, masked: bool) -> Self {
        let columns = std::mem::take(&mut file.columns);
        let fields = deep.snapshot.specs.get(&file.spec_id).into_iter().flatten();
        let partition = fields.cloned().zip(file.partition.iter().cloned());
        let told = |(field, _): &(PartitionField, ScalarValue)| field.transform != Transform::Void;
        Self {
            deep,
            masked,
            columns: columns
                .into_iter()
                .map(|(name, stats)| (name, Column::new(stats)))
                .collect(),
            partition: partition.filter(told).collect(),
            findings: BTreeMap::new(),
            file,
        }
    }

    fn found(&mut self, code: Code, about: &str, what: impl FnOnce() -> String) {
        self.findings.entry((code, about.to_owned())).or_insert_with(what);
    }

    fn batch(&mut self, batch: &RecordBatch, mask: &RowMask) -> Result<()> {
        let deep = self.deep;
        let own = deep.snapshot.schema.fields().len();
        let visible = match self.masked {
            true => {
                let positions = batch.column(own).as_primitive::<Int64Type>();
                let shown = BooleanArray::from_unary(positions, |at| !mask.contains(at.cast_unsigned()));
                Some(filter_record_batch(batch, &shown)?)
            }
            false => None,
        };
        let rows = visible.as_ref().unwrap_or(batch);
        let fields = deep.relaxed.schema.fields();
        let all = leaves(fields, &batch.columns()[..own])?;
        let shown = leaves(fields, &rows.columns()[..own])?;
        for (all, shown) in all.iter().zip(&shown) {
            if let Some(column) = self.columns.get_mut(&all.name) {
                column.add(all, self.masked.then_some(shown))?;
            }
        }
        let positions = rows.column(own).as_primitive::<Int64Type>();
        self.partitions(&shown, positions.values())?;
        for (field, column) in deep.snapshot.schema.fields().iter().zip(rows.columns()) {
            if !field.is_nullable()
                && let Some(row) = (0..column.len()).find(|row| column.is_null(*row))
            {
                let at = positions.value(row);
                self.found(Code::NullInRequired, field.name(), || {
                    format!("column {} is NOT NULL, and NULL in row {at}", field.name())
                });
            }
        }
        if let Some(rules) = &deep.rules {
            // As the table's own rows, for which the rules were made.
            let columns: Vec<usize> = (0..own).collect();
            match rules.broken(&rows.project(&columns)?) {
                Ok(broken) => {
                    for (rule, row) in broken {
                        let at = positions.value(row);
                        self.found(Code::ConstraintBroken, &rule, || {
                            format!("row {at} violates the {rule}")
                        });
                    }
                }
                Err(error) => self.found(Code::ConstraintUnchecked, "", || error.to_string()),
            }
        }
        if deep.snapshot.lineage.is_some() {
            self.row_ids(rows.column(own + 1), rows.column(own + 2));
        }
        Ok(())
    }

    fn row_ids(&mut self, ids: &ArrayRef, updated: &ArrayRef) {
        let (ids, updated) = (
            ids.as_primitive::<Int64Type>(),
            updated.as_primitive::<Int64Type>(),
        );
        let deep = self.deep;
        let mut known = deep.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let twice = ids.iter().flatten().find(|id| !known.insert(id.cast_unsigned()));
        drop(known);
        if let Some(id) = twice {
            self.found(Code::RowIdTwice, "", || {
                format!("its row with the id {id} is not the only one with it")
            });
        }
        let late = updated
            .iter()
            .flatten()
            .find(|at| deep.sequence.is_some_and(|newest| *at > newest));
        if let Some(at) = late {
            self.found(Code::Sequence, "", || {
                format!("a row was last changed at {at}, which is after this version")
            });
        }
    }

    fn partitions(&mut self, columns: &[Leaf], positions: &[i64]) -> Result<()> {
        for (field, value) in self.partition.clone() {
            let Some(column) = columns.iter().find(|leaf| leaf.name == field.source) else {
                // A column that was dropped since.
                continue;
            };
            let column = &column.values;
            let Some(sound) = belongs(&field, &value, column)? else {
                continue;
            };
            if let Some(row) = (0..sound.len()).find(|row| !sound.value(*row)) {
                let (is, at) = (ScalarValue::try_from_array(column, row)?, positions[row]);
                self.found(Code::RowPartition, &field.name, || {
                    format!(
                        "row {at} has {} = {is}, the partition of the file is {} = {value}",
                        field.source,
                        field.term()
                    )
                });
            }
        }
        Ok(())
    }

    fn finish(self) -> Vec<Finding> {
        let path = &self.file.path;
        let compared = self
            .columns
            .iter()
            .flat_map(|(name, column)| column.findings(name, path, self.masked));
        let met = self.findings.into_iter().map(|((code, _), what)| {
            let todo = match code {
                Code::NullInRequired | Code::ConstraintBroken => {
                    "correct the rows: lake update, or lake delete --where"
                }
                Code::ConstraintUnchecked => "check it with the engine that made the constraint",
                _ => MADE_ANEW,
            };
            Finding::new(code, path, what, todo)
        });
        compared.chain(met).collect()
    }
}

/// Which values lie in the partition; `None` where that cannot be told.
fn belongs(field: &PartitionField, value: &ScalarValue, column: &ArrayRef) -> Result<Option<BooleanArray>> {
    // Over a column that was widened since, the value is still that of the narrower type.
    let Ok(computed) = field.transform.apply(column) else {
        return Ok(None);
    };
    let wanted = computed.data_type();
    let value = match value.data_type() == *wanted {
        true => value.clone(),
        false => match value.cast_to(wanted) {
            Ok(cast) if cast.is_null() == value.is_null() => cast,
            _ => return Ok(None),
        },
    };
    let days = i64::from(field.zone_slack_days);
    let scalar = positive_zero(&value.to_array()?)?;
    let scalar = arrow::array::Scalar::new(scalar);
    let same = not_distinct(&positive_zero(&computed)?, &scalar)?;
    let same = match field.transform {
        // Files of other writers may lack the column: the value is then that of the metadata, and contradicts nothing.
        Transform::Identity => or(&same, &is_null(column)?)?,
        _ => same,
    };
    if days == 0 || value.is_null() || same.true_count() == same.len() || !column.data_type().is_temporal() {
        return Ok(Some(same));
    }
    // The writer's time zone may have moved it.
    let slack = ScalarValue::DurationMicrosecond(Some(days * 86_400_000_000)).to_scalar()?;
    let instants = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let (Ok(earliest), Ok(latest)) = (
        field.transform.apply(&sub(&instants, &slack)?),
        field.transform.apply(&add(&instants, &slack)?),
    ) else {
        return Ok(None);
    };
    let (before, after) = (lt(&scalar, &earliest)?, lt(&latest, &scalar)?);
    let inside = (0..same.len()).map(|row| {
        let is = |truth: &BooleanArray| truth.is_valid(row) && truth.value(row);
        earliest.is_valid(row) && !is(&before) && !is(&after)
    });
    Ok(Some(BooleanArray::from_iter(inside.map(Some))))
}

/// Zeros of both signs lie in one partition.
fn positive_zero(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Float32 => Arc::new(
            column
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| v + 0.0),
        ),
        DataType::Float64 => Arc::new(
            column
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| v + 0.0),
        ),
        _ => Arc::clone(column),
    })
}

/// The same columns, all nullable, also inside of structs.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    fn relaxed(field: &Field) -> Field {
        let data_type = match field.data_type() {
            DataType::Struct(members) => {
                DataType::Struct(members.iter().map(|member| relaxed(member)).collect())
            }
            other => other.clone(),
        };
        field.clone().with_data_type(data_type).with_nullable(true)
    }
    let fields: Vec<Field> = schema.fields().iter().map(|field| relaxed(field)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
