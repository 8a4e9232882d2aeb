//! Rows in the order of a key, within some memory: held and sorted where they fit, else spread over ranges of the key on
//! disk, each of which fits, and is then sorted by itself. Nothing is merged, so what is held does not grow with the rows.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use super::ranges::{Part, Ranges, Spread};
use crate::error::Result;

/// Bytes that sorting takes for a row beside its columns and its key: where it is, what its key begins with, where its
/// key ends, twice for the growing of lists.
const PER_ROW: usize = 48;

/// Rows of a batch that is handed on, and what it may weigh as a share of the memory.
const OUT_ROWS: usize = 8 << 10;
const OUT_SHARE: usize = 8;

/// What may be sorted at once, in eighths of the memory; and what a range is planned to be, which leaves room for
/// ranges that come out larger than their sample says.
const SORTED_EIGHTHS: usize = 4;
const PLANNED_EIGHTHS: usize = 2;

/// What waits to be spread at most: more at once would not be faster.
const MOST_WAITING: usize = 64 << 20;

/// Ranges that rows are spread over at once: each has a file open.
const MOST_RANGES: usize = 256;

/// Rows of a range that are looked at for each range that it is spread over again.
const SAMPLED: u64 = 64;

/// What rows are sorted by: columns of their batches.
#[derive(Debug)]
pub(super) struct SortKey {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl SortKey {
    /// These columns, the first of them first.
    ///
    /// # Errors
    /// When there is no order of a type's values.
    pub(super) fn new(columns: Vec<usize>, fields: Vec<SortField>) -> Result<Self> {
        Ok(Self {
            columns,
            converter: RowConverter::new(fields)?,
        })
    }

    /// The keys of a batch's rows, as bytes that are in their order.
    ///
    /// # Errors
    /// When the columns are of other types.
    pub(super) fn of(&self, batch: &RecordBatch) -> Result<Rows> {
        let columns = self.columns.iter().map(|at| ArrayRef::clone(batch.column(*at)));
        Ok(self.converter.convert_columns(&columns.collect::<Vec<_>>())?)
    }

    /// Bytes that a batch takes while it is sorted, about.
    pub(super) fn weigh(&self, batch: &RecordBatch) -> usize {
        let keys: usize = (self.columns.iter())
            .map(|at| memory(batch.column(*at)) / 4 * 5)
            .sum();
        bytes(batch) + keys + batch.num_rows() * PER_ROW
    }
}

/// How much memory there is, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room(pub(super) usize);

impl Room {
    /// What may be sorted at once.
    pub(super) fn sorted(self) -> usize {
        self.0 / 8 * SORTED_EIGHTHS
    }

    /// What waits to be spread while about as much is being spread.
    pub(super) fn waiting(self) -> usize {
        (self.0 / 8).min(MOST_WAITING)
    }

    /// Ranges to spread so many bytes over.
    pub(super) fn ranges(self, bytes: usize) -> usize {
        let each = (self.0 / 8 * PLANNED_EIGHTHS).max(1);
        bytes.div_ceil(each).clamp(2, MOST_RANGES)
    }
}

/// Hands on the rows of a range in order.
///
/// # Errors
/// Those of `out`; when temporary files cannot be read or written.
pub(super) fn drain(
    part: Part,
    key: &SortKey,
    room: Room,
    out: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    if part.has_one_key() {
        return part.read()?.try_for_each(|batch| out(batch?));
    }
    if part.bytes <= room.sorted() {
        let batches = part.read()?.collect::<Result<Vec<_>>>()?;
        drop(part);
        return sort(batches, key, room, out);
    }
    let count = room.ranges(part.bytes);
    let ranges = Ranges::between(sampled(&part, key, count)?, count);
    let mut spread = Spread::new(part.schema(), ranges)?;
    let mut waiting = Waiting::default();
    for batch in part.read()? {
        let batch = batch?;
        if let Some(batches) = waiting.push(batch, key, room) {
            spread.add(batches, key)?;
        }
    }
    spread.add(waiting.batches, key)?;
    drop(part);
    for part in spread.finish()? {
        drain(part, key, room, out)?;
    }
    Ok(())
}

/// Batches that wait until there are enough of them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Waiting {
    /// Takes a batch; gives back all of them once that is enough.
    pub(super) fn push(&mut self, batch: RecordBatch, key: &SortKey, room: Room) -> Option<Vec<RecordBatch>> {
        self.bytes += key.weigh(&batch);
        self.batches.push(batch);
        (self.bytes >= room.waiting()).then(|| {
            self.bytes = 0;
            std::mem::take(&mut self.batches)
        })
    }
}

/// Keys of some rows of a range, every so many of them, at distances that no period of the rows meets.
fn sampled(part: &Part, key: &SortKey, ranges: usize) -> Result<Vec<Box<[u8]>>> {
    let mean = part.rows / (SAMPLED * ranges as u64).max(1) + 1;
    let (mut keys, mut next, mut turn) = (Vec::new(), 0, 0u64);
    for batch in part.read()? {
        let rows = key.of(&batch?)?;
        while next < rows.num_rows() as u64 {
            keys.push(Box::from(rows.row(next as usize).data()));
            // The golden ratio's multiples are spread evenly (Weyl).
            turn = turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
            next += 1 + ((u128::from(turn) * u128::from(2 * mean - 1)) >> 64) as u64;
        }
        next -= rows.num_rows() as u64;
    }
    Ok(keys)
}

/// A row among batches, with the first bytes of its key that tell keys apart.
#[derive(Debug, Clone, Copy)]
struct Slot {
    head: u64,
    batch: u32,
    row: u32,
}

/// Hands on the rows of these batches in order; rows of one key stay in theirs.
///
/// # Errors
/// Those of `out`; when columns cannot be put together.
pub(super) fn sort(
    batches: Vec<RecordBatch>,
    key: &SortKey,
    room: Room,
    out: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let Some(schema) = batches.first().map(RecordBatch::schema) else {
        return Ok(());
    };
    let bytes: usize = batches.iter().map(bytes).sum();
    let order = order(&batches, key)?;
    let each = (bytes / order.len().max(1)).max(1);
    let step = (room.0 / OUT_SHARE / each).clamp(1, OUT_ROWS);
    for slots in order.chunks(step) {
        let slots = slots.iter().map(|slot| (slot.batch as usize, slot.row as usize));
        out(gathered(&schema, &batches, &slots.collect::<Vec<_>>())?)?;
    }
    Ok(())
}

/// All rows in order.
fn order(batches: &[RecordBatch], key: &SortKey) -> Result<Vec<Slot>> {
    let keys: Vec<Rows> = batches
        .par_iter()
        .map(|batch| key.of(batch))
        .collect::<Result<_>>()?;
    let ends = keys
        .iter()
        .flat_map(|rows| [rows.iter().min(), rows.iter().max()]);
    let ends: Vec<&[u8]> = ends.flatten().map(|row| row.data()).collect();
    let alike = match (ends.iter().min(), ends.iter().max()) {
        (Some(least), Some(most)) => least.iter().zip(*most).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    let mut slots = Vec::with_capacity(keys.iter().map(Rows::num_rows).sum());
    for (batch, rows) in (0..).zip(&keys) {
        slots.extend((0..).zip(rows.iter()).map(|(row, bytes)| Slot {
            head: head(&bytes.data()[alike..]),
            batch,
            row,
        }));
    }
    let of = |slot: &Slot| keys[slot.batch as usize].row(slot.row as usize);
    slots.par_sort_unstable_by(|a, b| {
        (a.head.cmp(&b.head))
            .then_with(|| of(a).cmp(&of(b)))
            .then_with(|| (a.batch, a.row).cmp(&(b.batch, b.row)))
    });
    Ok(slots)
}

/// Bytes of memory that a batch takes.
fn bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(memory).sum()
}

/// The same of a column. Buffers may be larger than what is in them; one that is shared is counted at each of its slices.
fn memory(column: &ArrayRef) -> usize {
    let held = column.get_array_memory_size();
    let own = column.to_data().get_slice_memory_size();
    own.map_or(held, |own| held.min(own.saturating_mul(2)))
}

/// The first bytes of a key as a number in their order.
pub(super) fn head(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(8);
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// These rows, each named by its batch and its place there, as one batch.
///
/// # Errors
/// When columns cannot be put together.
pub(super) fn gathered(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows: &[(usize, usize)],
) -> Result<RecordBatch> {
    let column = |at: usize| {
        let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
        interleave(&parts, rows)
    };
    let columns = (0..schema.fields().len()).into_par_iter().map(column);
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(SchemaRef::clone(schema), columns)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, UInt64Array};
    use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
    use arrow::datatypes::{DataType, Field, Schema};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const DESCENDING: SortOptions = SortOptions {
        descending: true,
        nulls_first: false,
    };

    fn key() -> SortKey {
        let fields = vec![
            SortField::new_with_options(DataType::Utf8, DESCENDING),
            SortField::new(DataType::Int64),
        ];
        SortKey::new(vec![2, 0], fields).unwrap()
    }

    /// Batches of numbers, of which `n` has few values and NULLs, texts of which half are one, and where each row was.
    fn batches(random: &mut StdRng, batches: u64, rows: u64) -> Vec<RecordBatch> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("place", DataType::UInt64, false),
            Field::new("text", DataType::Utf8, true),
        ]));
        let batch = |number| {
            let n = (0..rows).map(|_| random.random_ratio(9, 10).then(|| random.random_range(-3..3)));
            let n: Int64Array = n.collect();
            let text = (0..rows).map(|_| match random.random_range(0..10) {
                0..5 => Some("the same".to_owned()),
                5..9 => Some(format!("https://example.org/{}", random.random_range(0..1000))),
                _ => None,
            });
            let text: StringArray = text.collect();
            let place = UInt64Array::from_iter_values(number * rows..(number + 1) * rows);
            let columns: Vec<ArrayRef> = vec![Arc::new(n), Arc::new(place), Arc::new(text)];
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        };
        (0..batches).map(batch).collect()
    }

    /// As arrow sorts them; the place last, so that rows of one key stay in their order.
    fn expected(batches: &[RecordBatch]) -> RecordBatch {
        let all = concat_batches(&batches[0].schema(), batches).unwrap();
        let by = |at: usize, options| SortColumn {
            values: Arc::clone(all.column(at)),
            options: Some(options),
        };
        let by = [
            by(2, DESCENDING),
            by(0, SortOptions::default()),
            by(1, SortOptions::default()),
        ];
        take_record_batch(&all, &lexsort_to_indices(&by, None).unwrap()).unwrap()
    }

    fn spread(batches: &[RecordBatch], ranges: Ranges, key: &SortKey) -> Vec<Part> {
        let mut spread = Spread::new(batches[0].schema(), ranges).unwrap();
        for batch in batches {
            spread.add(vec![batch.clone()], key).unwrap();
        }
        spread.finish().unwrap()
    }

    fn drained(parts: Vec<Part>, room: Room) -> (RecordBatch, usize) {
        let schema = parts[0].schema();
        let (mut rows, mut largest) = (Vec::new(), 0);
        for part in parts {
            let out = &mut |batch: RecordBatch| {
                largest = largest.max(batch.num_rows());
                rows.push(batch);
                Ok(())
            };
            drain(part, &key(), room, out).unwrap();
        }
        (concat_batches(&schema, &rows).unwrap(), largest)
    }

    #[test]
    fn rows_are_in_order_however_little_memory_there_is_and_however_they_were_spread() {
        let mut random = StdRng::seed_from_u64(1);
        let (batches, key) = (batches(&mut random, 20, 1000), key());
        let all: usize = batches.iter().map(|batch| key.weigh(batch)).sum();
        let expected = expected(&batches);
        for share in [1, 2, 10, 100, 1000] {
            let room = Room(2 * all / share);
            for ends in [vec![], vec![Box::from(&b"\x02no such key"[..])]] {
                let parts = spread(&batches, Ranges::between(ends, 2), &key);
                let (sorted, largest) = drained(parts, room);
                assert_eq!(sorted, expected, "in {room:?}");
                // A key that fills a range comes in the batches in which it was written.
                assert!(
                    share < 100 || largest <= 1000,
                    "{largest} rows at once in {room:?}"
                );
            }
        }
    }

    #[test]
    fn rows_that_are_held_are_sorted_as_those_on_disk_are() {
        let mut random = StdRng::seed_from_u64(2);
        let (batches, key) = (batches(&mut random, 7, 500), key());
        let expected = expected(&batches);
        let mut rows = Vec::new();
        let out = &mut |batch| {
            rows.push(batch);
            Ok(())
        };
        sort(batches, &key, Room(1 << 20), out).unwrap();
        assert_eq!(concat_batches(&expected.schema(), &rows).unwrap(), expected);
        sort(Vec::new(), &key, Room(1 << 20), &mut |_| {
            panic!("no rows, no batch")
        })
        .unwrap();
    }

    #[test]
    fn ranges_of_a_sample_hold_about_as_many_rows_each_and_a_frequent_key_is_alone() {
        let mut random = StdRng::seed_from_u64(3);
        let (batches, key) = (batches(&mut random, 20, 1000), key());
        let whole = spread(&batches, Ranges::between(Vec::new(), 2), &key).remove(0);
        let keys = sampled(&whole, &key, 16).unwrap();
        assert!((500..2000).contains(&keys.len()), "{} of 20,000 rows", keys.len());
        let parts = spread(&batches, Ranges::between(keys, 16), &key);
        assert_eq!(parts.iter().map(|part| part.rows).sum::<u64>(), 20_000);
        let alone = parts.iter().filter(|part| part.has_one_key()).count();
        // Half of the rows have one text, which takes up six numbers and NULL.
        assert!((2..=8).contains(&alone), "{alone} of {}", parts.len());
        let largest = parts.iter().map(|part| part.rows).max().unwrap();
        assert!(largest < 3000, "{largest}");
    }

    #[test]
    fn a_key_is_weighed_with_its_row_and_shared_buffers_once() {
        let mut random = StdRng::seed_from_u64(4);
        let (batch, key) = (batches(&mut random, 1, 1000).remove(0), key());
        let tenth: usize = (0..10).map(|part| key.weigh(&batch.slice(part * 100, 100))).sum();
        let whole = key.weigh(&batch);
        assert!(
            whole > 1000 * PER_ROW && tenth <= 2 * whole,
            "{tenth} of slices, {whole}"
        );
    }
}
