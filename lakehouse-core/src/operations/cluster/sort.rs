//! The rows of some files, in order: what they are sorted by, and how that is spread, as far as it has to be known before.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use tokio::sync::mpsc::channel;
use tokio::task::{JoinError, spawn_blocking};

use super::curve::{Curve, coordinate_bits};
use super::ranges::{Part, Ranges, Spread};
use super::rank::{Ranks, SAMPLE, Sample, Sampler};
use super::sorter::{Room, SortKey, Waiting, drain, sort};
use super::{Key, Order, ascending, key};
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

/// Below so much memory for sorting, batches are small and one thread reads: each holds a row group.
const TIGHT_MEMORY: usize = 256 << 20;
const TIGHT_BATCH_ROWS: usize = 1024;
/// However little memory there is, so much is taken.
const LEAST_MEMORY: usize = 1 << 20;

/// Rows that are sampled to tell what ranges to sort one after the other.
const RANGE_SAMPLE: usize = 8192;

/// Sorted batches that wait for the writer.
const SORTED_AHEAD: usize = 1;

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
    let mut by = By {
        order,
        partition: match one_partition {
            true => Vec::new(),
            // One file after the other, instead of one of each partition at once.
            false => partition_keys(&work.snapshot)?,
        },
    };
    let room = Room(
        (memory(work.options.memory_limit).saturating_sub(work.settings.writer_memory())).max(LEAST_MEMORY),
    );
    let frame = session(room).read_table(Arc::new(table))?;
    let width = frame.schema().fields().len();
    let rows = by.rows(&work.snapshot, frame, visible, room).await?;
    let mut moved = 0;
    let (send, mut receive) = channel(SORTED_AHEAD);
    let sorting =
        spawn_blocking(move || rows.drain(room, &mut |batch| send.blocking_send(batch).map_err(stopped)));
    while let Some(batch) = receive.recv().await {
        moved += write_moved(work, &batch.project(&(0..width).collect::<Vec<_>>())?).await?;
    }
    sorting.await.map_err(broken)??;
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

/// A session that reads.
fn session(room: Room) -> SessionContext {
    let config = match room.0 < TIGHT_MEMORY {
        true => config()
            .with_target_partitions(1)
            .with_batch_size(TIGHT_BATCH_ROWS),
        false => config(),
    };
    session_with(Some(room.0), config)
}

/// What rows are sorted by.
struct By<'a> {
    order: &'a Order,
    /// What the partition that a row goes to is made of, before all else.
    partition: Vec<Key>,
}

/// Rows that are to be handed on in order.
enum Unsorted {
    Held(Vec<RecordBatch>, Arc<SortKey>),
    Spread(Vec<Part>, Arc<SortKey>),
}

impl By<'_> {
    /// The rows of a scan, of which there are so many.
    async fn rows(
        &mut self,
        snapshot: &Snapshot,
        frame: DataFrame,
        visible: u64,
        room: Room,
    ) -> Result<Unsorted> {
        let mut sample = None;
        let mut ranks = None;
        if self.order.curve.is_some() {
            let sampled = self.sample(frame.clone(), SAMPLE).await?;
            ranks = Some(Arc::new(sampled.ranks(self.partition.len())?));
            sample = Some(sampled);
        }
        let (frame_of_rows, key) = self.keyed(snapshot, frame.clone(), ranks.as_ref())?;
        let key = Arc::new(key);
        let mut rows = frame_of_rows.execute_stream().await?;
        let (mut held, mut bytes, mut count) = (Vec::new(), 0, 0);
        while bytes <= room.sorted() {
            let Some(batch) = rows.try_next().await? else {
                return Ok(Unsorted::Held(held, key));
            };
            bytes += key.weigh(&batch);
            count += batch.num_rows() as u64;
            held.push(batch);
        }
        let expected = u128::from(visible.max(count)) * bytes as u128 / u128::from(count.max(1));
        let ranges = room.ranges(usize::try_from(expected).unwrap_or(usize::MAX));
        let sample = match sample {
            Some(sample) => sample,
            None => self.sample(frame, RANGE_SAMPLE).await?,
        };
        let ranges = Ranges::between(self.keys(&sample, ranks.as_deref())?, ranges);
        let spread = Spread::new(rows.schema(), ranges)?;
        // Rows are spread while others are read.
        let spreading = |mut spread: Spread, batches| {
            let key = Arc::clone(&key);
            spawn_blocking(move || spread.add(batches, &key).map(|()| spread))
        };
        let mut job = spreading(spread, held);
        let mut waiting = Waiting::default();
        while let Some(batch) = rows.try_next().await? {
            if let Some(batches) = waiting.push(batch, &key, room) {
                job = spreading(job.await.map_err(broken)??, batches);
            }
        }
        let spread = spreading(job.await.map_err(broken)??, waiting.batches);
        Ok(Unsorted::Spread(spread.await.map_err(broken)??.finish()?, key))
    }

    /// Rows by chance: a first pass that reads the columns alone that rows are sorted by.
    async fn sample(&self, frame: DataFrame, most: usize) -> Result<Sample> {
        let keys = || self.partition.iter().chain(&self.order.keys);
        let mut sampler = Sampler::new(keys().map(Key::field).collect(), most)?;
        let keys = keys().enumerate();
        let keys: Vec<Expr> = keys
            .map(|(at, key)| key.expr.clone().alias(format!("key{at}")))
            .collect();
        let mut rows = frame.select(keys)?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            sampler.add(batch.columns())?;
        }
        Ok(sampler.finish())
    }

    /// The rows with the columns at their end that they are sorted by and do not have.
    fn keyed(
        &self,
        snapshot: &Snapshot,
        mut frame: DataFrame,
        ranks: Option<&Arc<Ranks>>,
    ) -> Result<(DataFrame, SortKey)> {
        let mut keys = self.partition.clone();
        match (self.order.curve, ranks) {
            (Some(curve), Some(ranks)) => keys.push(position(self.order, curve, Arc::clone(ranks))),
            _ => keys.extend_from_slice(&self.order.keys),
        }
        let mut columns = Vec::with_capacity(keys.len());
        for key in &keys {
            let stored = match &key.expr {
                Expr::Column(column) => snapshot.schema.index_of(&column.name).ok(),
                _ => None,
            };
            columns.push(match stored {
                Some(column) => column,
                None => {
                    let name = unused_name(&frame);
                    frame = frame.with_column(&name, key.expr.clone())?;
                    frame.schema().fields().len() - 1
                }
            });
        }
        let key = SortKey::new(columns, keys.iter().map(Key::field).collect())?;
        Ok((frame, key))
    }

    /// What rows are sorted by, of those of a sample.
    fn keys(&self, sample: &Sample, ranks: Option<&Ranks>) -> Result<Vec<Box<[u8]>>> {
        let (Some(curve), Some(ranks)) = (self.order.curve, ranks) else {
            let columns = self.partition.len() + self.order.keys.len();
            return Ok(sample.keys(columns).into_iter().map(Box::from).collect());
        };
        let bits = coordinate_bits(self.order.keys.len());
        let mut points = sample.points(ranks, bits);
        let positions = points.iter_mut().map(|point| curve.position(point, bits));
        let positions: ArrayRef = Arc::new(UInt64Array::from_iter_values(positions));
        let converter = RowConverter::new(vec![SortField::new(DataType::UInt64)])?;
        let positions = converter.convert_columns(&[positions])?;
        let keys = sample.keys(self.partition.len()).into_iter().zip(&positions);
        Ok(keys
            .map(|(partition, position)| [&partition, position.data()].concat().into())
            .collect())
    }
}

impl Key {
    /// How its values are in order.
    fn field(&self) -> SortField {
        let options = SortOptions {
            descending: self.column.descending,
            nulls_first: self.column.nulls_first,
        };
        SortField::new_with_options(self.data_type.clone(), options)
    }
}

impl Unsorted {
    /// Hands on the rows in order.
    fn drain(self, room: Room, out: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        match self {
            Self::Held(batches, key) => sort(batches, &key, room, out),
            Self::Spread(parts, key) => parts
                .into_iter()
                .try_for_each(|part| drain(part, &key, room, out)),
        }
    }
}

/// Nobody takes the rows any more: whoever took them knows why.
fn stopped<T>(_: T) -> Error {
    Error::Engine(Box::new(DataFusionError::Execution("sorting stopped".to_owned())))
}

/// A job that panicked or was cancelled.
fn broken(error: JoinError) -> Error {
    Error::Engine(Box::new(DataFusionError::Execution(format!(
        "sorting stopped: {error}"
    ))))
}

/// The position of a row on the curve.
fn position(order: &Order, curve: Curve, ranks: Arc<Ranks>) -> Key {
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
    Key {
        column: ascending("position"),
        data_type: DataType::UInt64,
        expr: function.call(order.keys.iter().map(|key| key.expr.clone()).collect()),
    }
}

/// The partition that a row goes to, as keys to sort by.
fn partition_keys(snapshot: &Snapshot) -> Result<Vec<Key>> {
    let fields = snapshot.partition_fields().iter().enumerate();
    fields
        .map(|(at, field)| {
            let column = ascending(&field.source);
            let source = key(&snapshot.schema, &column).map_err(|what| Error::invalid(what, field.term()))?;
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
                result.clone(),
                Volatility::Immutable,
                Arc::new(of),
            );
            Ok(Key {
                column,
                data_type: result,
                expr: function.call(vec![source.expr]),
            })
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
