//! The rows of some files, in order: sorted by the engine, which goes to disk where the memory limit is reached.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::curve::{Curve, coordinate_bits};
use super::rank::{Ranks, Sampler};
use super::{Order, SortColumn, key};
use crate::error::{Error, Result};
use crate::model::{DataFile, RowMask, Snapshot};
use crate::operations::moving::write_moved;
use crate::operations::work::Work;
use crate::scan::{MetadataColumns, SnapshotTable, config, memory, session_with};

/// Rows of which it is noted where each comes to be, so that those can be masked there that go meanwhile. Each is a run
/// of its own: of more rows than this, the files are rewritten once more if rows of them go.
const TRACED_ROWS: u64 = 1 << 20;
/// A row for so many bytes of the memory limit, too.
const TRACED_SHARE: usize = 512;

/// Below so much memory for sorting, batches are small and one thread sorts: merging what is on disk holds a batch of
/// each part.
const TIGHT_MEMORY: usize = 256 << 20;
const TIGHT_BATCH_ROWS: usize = 1024;

/// What merging of parts on disk may hold while rows are still sorted in memory, as a share of the memory.
const MERGE_SHARE: usize = 8;

/// Writes the rows of these files that are not hidden to new files, those of each partition in this order, with their
/// lineage. Returns how many there were. Sorting holds what the writer leaves of the memory limit, and spills the rest.
///
/// # Errors
/// When there are more or fewer rows than the files' metadata says; those of reading and writing.
pub(in crate::operations) async fn move_sorted(
    work: &mut Work,
    order: &Order,
    files: Vec<(DataFile, RowMask)>,
) -> Result<u64> {
    let visible: u64 = (files.iter())
        .map(|(file, hidden)| file.rows.saturating_sub(hidden.len()))
        .sum();
    let place = files
        .first()
        .map(|(file, _)| file.path.clone())
        .unwrap_or_default();
    let one_partition = files.iter().all(|(file, _)| {
        (file.spec_id, &file.partition) == (files[0].0.spec_id, &files[0].0.partition)
            && file.spec_id == work.snapshot.spec_id
    });
    let traced = (memory(work.options.memory_limit) / TRACED_SHARE) as u64;
    if visible > traced.min(TRACED_ROWS) {
        work.settings.trace_rows(false);
    }
    work.settings.in_order(Some(Arc::clone(&order.of_files)));
    let ctx = session(work);
    let traced = work.settings.traces_rows();
    let columns = MetadataColumns {
        file: traced,
        position: traced,
        lineage: work.lineage(),
    };
    let table = SnapshotTable::new(work.handle.clone(), Arc::clone(&work.snapshot))
        .with_metadata_columns(columns)
        .with_hidden_rows(files);
    let report = table.report();
    let table = Arc::new(table);
    let mut frame = ctx.read_table(Arc::clone(&table) as _)?;
    let mut by = match one_partition {
        true => Vec::new(),
        // One file after the other, instead of one of each partition at once.
        false => partition_keys(&work.snapshot)?,
    };
    match order.curve {
        None => {
            let plain =
                |key: &super::Key| (key.expr.clone()).sort(!key.column.descending, key.column.nulls_first);
            by.extend(order.keys.iter().map(plain));
        }
        Some(curve) => {
            let ranks = sample(order, ctx.read_table(table)?).await?;
            let name = unused_name(&frame);
            frame = frame.with_column(&name, position(order, curve, ranks))?;
            by.push(Expr::Column(Column::new_unqualified(name)).sort(true, true));
        }
    }
    let mut rows = frame.sort(by)?.execute_stream().await?;
    let mut moved = 0;
    while let Some(batch) = rows.try_next().await? {
        moved += write_moved(work, &batch).await?;
    }
    work.count("bytes_read", report.bytes_planned.load(Relaxed));
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

/// A session that sorts within what the writer leaves of the memory.
fn session(work: &Work) -> SessionContext {
    let room = memory(work.options.memory_limit).saturating_sub(work.settings.writer_memory());
    let mut config = config();
    let options = config.options_mut();
    options.execution.sort_spill_reservation_bytes = options
        .execution
        .sort_spill_reservation_bytes
        .min(room / MERGE_SHARE);
    if room < TIGHT_MEMORY {
        config = config.with_target_partitions(1).with_batch_size(TIGHT_BATCH_ROWS);
    }
    session_with(Some(room), config)
}

/// The scale of each key: a first pass that reads the key columns alone.
async fn sample(order: &Order, frame: DataFrame) -> Result<Ranks> {
    let types: Vec<DataType> = order.keys.iter().map(|key| key.data_type.clone()).collect();
    let mut sampler = Sampler::new(&types)?;
    let keys = order.keys.iter().enumerate();
    let keys: Vec<Expr> = keys
        .map(|(at, key)| key.expr.clone().alias(format!("key{at}")))
        .collect();
    let mut rows = frame.select(keys)?.execute_stream().await?;
    while let Some(batch) = rows.try_next().await? {
        sampler.add(batch.columns())?;
    }
    Ok(sampler.finish())
}

/// The position of a row on the curve.
fn position(order: &Order, curve: Curve, ranks: Ranks) -> Expr {
    let types = order.keys.iter().map(|key| key.data_type.clone()).collect();
    let bits = coordinate_bits(order.keys.len());
    let of = move |values: &[ColumnarValue]| -> EngineResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(values)?;
        let ranks = ranks.of(&columns, bits).map_err(DataFusionError::from)?;
        let mut point = vec![0; ranks.len()];
        let rows = 0..columns.first().map_or(0, |column| column.len());
        let positions = rows.map(|row| {
            for (coordinate, ranks) in point.iter_mut().zip(&ranks) {
                *coordinate = ranks[row];
            }
            curve.position(&mut point, bits)
        });
        let positions: ArrayRef = Arc::new(UInt64Array::from_iter_values(positions));
        Ok(ColumnarValue::Array(positions))
    };
    let function = create_udf(
        "curve_position",
        types,
        DataType::UInt64,
        Volatility::Immutable,
        Arc::new(of),
    );
    function.call(order.keys.iter().map(|key| key.expr.clone()).collect())
}

/// The partition that a row goes to, as keys to sort by.
fn partition_keys(snapshot: &Snapshot) -> Result<Vec<Sort>> {
    let fields = snapshot.partition_fields().iter().enumerate();
    fields
        .map(|(at, field)| {
            let source = SortColumn {
                column: field.source.clone(),
                descending: false,
                nulls_first: true,
            };
            let source = key(&snapshot.schema, &source).map_err(|what| Error::invalid(what, field.term()))?;
            let transform = field.transform;
            let result = transform.result_type(&source.data_type)?;
            let of = move |values: &[ColumnarValue]| -> EngineResult<ColumnarValue> {
                let columns = ColumnarValue::values_to_arrays(values)?;
                let values = transform.apply(&columns[0]).map_err(DataFusionError::from)?;
                Ok(ColumnarValue::Array(values))
            };
            let function = create_udf(
                &format!("partition_{at}"),
                vec![source.data_type],
                result,
                Volatility::Immutable,
                Arc::new(of),
            );
            Ok(function.call(vec![source.expr]).sort(true, true))
        })
        .collect()
}

/// A name that no column of the table has.
fn unused_name(frame: &DataFrame) -> String {
    let mut name = "_position".to_owned();
    while frame.schema().fields().iter().any(|field| *field.name() == name) {
        name.push('_');
    }
    name
}
