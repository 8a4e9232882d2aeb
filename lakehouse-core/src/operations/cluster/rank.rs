//! Values of columns as ranks among a sample of them: numbers of a fixed width in the order of the values.
//!
//! Curves take a bit of each column in turn, so each bit should halve the rows. Leading bytes of the values do not:
//! names that all begin with `https://`, amounts of which most are small, leave most bits alike. Ranks do, whatever the
//! type and however values are spread: what many rows have takes up as much of the scale as it has rows.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::row::{RowConverter, SortField};

use super::curve::RANK_BITS;
use super::sorter::head;
use crate::error::{Error, Result};

/// Rows that are sampled for ranks: as many as ranks can tell apart.
pub(super) const SAMPLE: usize = (1 << RANK_BITS) - 1;

/// Bytes of a sampled value that are kept. Values that begin alike for so long have one rank.
const KEPT_BYTES: usize = 256;

/// The state of the generator that chooses rows: fixed, so that the same rows give the same files.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes rows, and keeps a sample in which each has the same chance to be (Vitter's algorithm R).
pub(super) struct Sampler {
    columns: Vec<Sampled>,
    seen: u64,
    random: u64,
    most: usize,
}

/// The values of a column in the sampled rows, in one order for all columns.
struct Sampled {
    field: SortField,
    converter: RowConverter,
    values: Vec<Box<[u8]>>,
}

/// Sampled rows.
pub(super) struct Sample {
    columns: Vec<Sampled>,
}

/// The scale of each column.
#[derive(Debug)]
pub(super) struct Ranks {
    columns: Vec<Scale>,
}

/// Sampled values of a column, each once, in order.
#[derive(Debug)]
struct Scale {
    converter: RowConverter,
    values: Vec<Box<[u8]>>,
    /// How many sampled values are smaller than each of them; and at the end, how many there are.
    smaller: Vec<u64>,
    /// They all begin with so many bytes of the first one.
    alike: usize,
    /// The bytes of each that follow, which tell most of them apart.
    heads: Vec<u64>,
    /// For heads up from the first, in steps of `1 << shift`, the number of heads that lie before the step.
    steps: Vec<u32>,
    shift: u32,
}

impl Sampler {
    /// A sampler of so many rows at most, of columns in these orders.
    ///
    /// # Errors
    /// When there is no order of a type's values.
    pub(super) fn new(fields: Vec<SortField>, most: usize) -> Result<Self> {
        let column = |field: SortField| {
            Ok::<_, Error>(Sampled {
                // NaN comes after all numbers, -0 before 0.
                converter: RowConverter::new(vec![field.clone()])?,
                field,
                values: Vec::new(),
            })
        };
        Ok(Self {
            columns: fields.into_iter().map(column).collect::<Result<_>>()?,
            seen: 0,
            random: SEED,
            most,
        })
    }

    /// Takes rows: an array for each column.
    ///
    /// # Errors
    /// When the arrays are of other types.
    pub(super) fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        // Which rows go in, and where to; a later row may take the place of an earlier one.
        let (mut chosen, mut slots) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let slot = match usize::try_from(self.seen) {
                Ok(slot) if slot < self.most => Some(slot),
                _ => usize::try_from(self.below(self.seen + 1))
                    .ok()
                    .filter(|slot| *slot < self.most),
            };
            self.seen += 1;
            if let Some(slot) = slot {
                chosen.push(row as u32);
                slots.push(slot);
            }
        }
        if chosen.is_empty() {
            return Ok(());
        }
        let chosen = UInt32Array::from(chosen);
        for (column, sampled) in columns.iter().zip(&mut self.columns) {
            let values = take(column.as_ref(), &chosen, None)?;
            let values = sampled.converter.convert_columns(&[values])?;
            for (value, slot) in values.iter().zip(&slots) {
                let value = value.data();
                let kept = Box::from(&value[..value.len().min(KEPT_BYTES)]);
                match sampled.values.get_mut(*slot) {
                    Some(old) => *old = kept,
                    None => sampled.values.push(kept),
                }
            }
        }
        Ok(())
    }

    /// The rows that were sampled.
    pub(super) fn finish(self) -> Sample {
        Sample {
            columns: self.columns,
        }
    }

    /// A random number below `end` (SplitMix64).
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(end)) >> 64) as u64
    }
}

impl Sample {
    /// The scales of the columns from this one on.
    ///
    /// # Errors
    /// None that [`Sampler::new`] did not have.
    pub(super) fn ranks(&self, from: usize) -> Result<Ranks> {
        let columns = self.columns[from..].iter().map(Scale::of);
        Ok(Ranks {
            columns: columns.collect::<Result<_>>()?,
        })
    }

    /// The ranks of the columns that these scales are of, the last ones: for each sampled row, of `bits` bits.
    pub(super) fn points(&self, ranks: &Ranks, bits: u32) -> Vec<Vec<u32>> {
        let from = self.columns.len() - ranks.columns.len();
        let columns: Vec<_> = self.columns[from..].iter().zip(&ranks.columns).collect();
        let point = |row: usize| {
            let rank = |(sampled, scale): &(&Sampled, &Scale)| scale.rank(&sampled.values[row], bits);
            columns.iter().map(rank).collect()
        };
        (0..self.rows()).map(point).collect()
    }

    /// For each sampled row the first `columns` columns as a key that is in their order.
    pub(super) fn keys(&self, columns: usize) -> Vec<Vec<u8>> {
        let key = |row: usize| {
            let columns = self.columns[..columns].iter();
            columns
                .flat_map(|column| column.values[row].iter().copied())
                .collect()
        };
        (0..self.rows()).map(key).collect()
    }

    fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }
}

impl Ranks {
    /// The ranks of the values of each column, of `bits` bits: none is smaller than that of a smaller value.
    ///
    /// # Errors
    /// When the arrays are of other types than the sample.
    pub(super) fn of(&self, columns: &[ArrayRef], bits: u32) -> Result<Vec<Vec<u32>>> {
        let ranked = columns.iter().zip(&self.columns);
        ranked.map(|(column, scale)| scale.ranks(column, bits)).collect()
    }
}

impl Scale {
    fn of(sampled: &Sampled) -> Result<Self> {
        let mut all: Vec<&[u8]> = sampled.values.iter().map(AsRef::as_ref).collect();
        all.sort_unstable();
        let (mut values, mut smaller): (Vec<Box<[u8]>>, Vec<u64>) = (Vec::new(), Vec::new());
        for (number, value) in (0..).zip(&all) {
            if values.last().is_none_or(|last| **last != **value) {
                values.push(Box::from(*value));
                smaller.push(number);
            }
        }
        smaller.push(all.len() as u64);
        let alike = match (values.first(), values.last()) {
            (Some(first), Some(last)) => first.iter().zip(last).take_while(|(a, b)| a == b).count(),
            _ => 0,
        };
        let heads: Vec<u64> = values.iter().map(|value| head(&value[alike..])).collect();
        let (least, most) = (heads.first().copied(), heads.last().copied());
        let span = most.unwrap_or(0) - least.unwrap_or(0);
        // About two steps to a head, where they are spread evenly.
        let bits = (2 * heads.len()).max(1).ilog2();
        let shift = (u64::BITS - span.leading_zeros()).saturating_sub(bits);
        let mut steps = Vec::with_capacity((span >> shift) as usize + 2);
        for (number, head) in (0..).zip(&heads) {
            let step = ((head - heads[0]) >> shift) as usize;
            steps.resize(steps.len().max(step + 1), number);
        }
        steps.push(heads.len() as u32);
        Ok(Self {
            converter: RowConverter::new(vec![sampled.field.clone()])?,
            values,
            smaller,
            alike,
            heads,
            steps,
            shift,
        })
    }

    fn ranks(&self, column: &ArrayRef, bits: u32) -> Result<Vec<u32>> {
        let rows = self.converter.convert_columns(std::slice::from_ref(column))?;
        let mut last: Option<(&[u8], u32)> = None;
        let ranks = rows.iter().map(|row| {
            let value = row.data();
            // The rows of a file often have the value of the one before.
            if let Some((same, rank)) = last
                && same == value
            {
                return rank;
            }
            let rank = self.rank(value, bits);
            // `rows` outlives the walk; `row` borrows from it.
            last = Some((value, rank));
            rank
        });
        Ok(ranks.collect())
    }

    /// The rank of a value, of `bits` bits.
    fn rank(&self, value: &[u8], bits: u32) -> u32 {
        let most = (1u64 << bits) - 1;
        let all = self.smaller.last().copied().unwrap_or(0).max(1);
        u32::try_from(self.smaller[self.place(value)] * most / all).unwrap_or(u32::MAX)
    }

    /// How many values of the scale are smaller.
    fn place(&self, value: &[u8]) -> usize {
        let Some(first) = self.values.first() else {
            return 0;
        };
        let begins = &value[..value.len().min(self.alike)];
        match begins.cmp(&first[..self.alike]) {
            std::cmp::Ordering::Less => return 0,
            std::cmp::Ordering::Greater => return self.values.len(),
            std::cmp::Ordering::Equal => {}
        }
        let head = head(&value[self.alike..]);
        let Some(step) = head.checked_sub(self.heads[0]) else {
            return 0;
        };
        let step = usize::try_from(step >> self.shift).unwrap_or(usize::MAX);
        let Some(from) = self.steps.get(step).map(|from| *from as usize) else {
            return self.values.len();
        };
        let to = self
            .steps
            .get(step + 1)
            .map_or(self.heads.len(), |to| *to as usize);
        let from = from + self.heads[from..to].partition_point(|other| *other < head);
        let alike = self.heads[from..to].partition_point(|other| *other == head);
        from + self.values[from..from + alike].partition_point(|other| **other < *value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
        StringArray, TimestampMicrosecondArray,
    };
    use arrow::compute::sort_to_indices;
    use arrow::row::Row;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn sampled(column: &ArrayRef, most: usize) -> Ranks {
        sample(column, most).ranks(0).unwrap()
    }

    fn sample(column: &ArrayRef, most: usize) -> Sample {
        let mut sampler = Sampler::new(vec![SortField::new(column.data_type().clone())], most).unwrap();
        for start in (0..column.len()).step_by(97) {
            sampler
                .add(&[column.slice(start, 97.min(column.len() - start))])
                .unwrap();
        }
        sampler.finish()
    }

    /// Values of every type that can be sorted by, NULLs and odd ones among them.
    fn arrays(random: &mut StdRng, rows: usize) -> Vec<ArrayRef> {
        let mut optional = |one_in: u32| {
            random
                .random_ratio(one_in - 1, one_in)
                .then(|| random.random::<i64>())
        };
        let numbers: Vec<Option<i64>> = (0..rows).map(|_| optional(20)).collect();
        let each = |f: &dyn Fn(i64) -> i64| numbers.iter().map(|n| n.map(f)).collect::<Vec<_>>();
        let odd = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY];
        let float = |n: i64| {
            if n % 10 == 0 {
                odd[(n / 10).rem_euclid(5) as usize]
            } else {
                f64::from_bits(n as u64)
            }
        };
        let text = |n: i64| {
            format!(
                "https://example.org/{}/{n}",
                "x".repeat((n.rem_euclid(40)) as usize)
            )
        };
        vec![
            Arc::new(Int64Array::from(each(&|n| n))),
            Arc::new(Int64Array::from(each(&|n| n % 3))),
            Arc::new(Int64Array::from(each(&|n| if n % 2 == 0 { 7 } else { n >> 40 }))),
            Arc::new(Float64Array::from_iter(numbers.iter().map(|n| n.map(float)))),
            Arc::new(Decimal128Array::from_iter(
                numbers.iter().map(|n| n.map(i128::from)),
            )),
            Arc::new(Date32Array::from_iter(
                numbers.iter().map(|n| n.map(|n| (n % 100_000) as i32)),
            )),
            Arc::new(TimestampMicrosecondArray::from(each(&|n| n >> 8)).with_timezone("UTC")),
            Arc::new(BooleanArray::from_iter(
                numbers.iter().map(|n| n.map(|n| n % 2 == 0)),
            )),
            Arc::new(StringArray::from_iter(numbers.iter().map(|n| n.map(text)))),
            Arc::new(BinaryArray::from_iter(
                numbers.iter().map(|n| n.map(i64::to_le_bytes)),
            )),
        ]
    }

    #[test]
    fn ranks_are_in_the_order_of_the_values_of_every_type() {
        let mut random = StdRng::seed_from_u64(1);
        for most in [1, 10, 300, SAMPLE] {
            for column in arrays(&mut random, 2000) {
                let ranks = sampled(&column, most)
                    .of(std::slice::from_ref(&column), 16)
                    .unwrap()
                    .remove(0);
                let order = sort_to_indices(&column, None, None).unwrap();
                let ordered: Vec<u32> = order.values().iter().map(|row| ranks[*row as usize]).collect();
                assert!(
                    ordered.is_sorted(),
                    "{} from a sample of {most}",
                    column.data_type()
                );
                assert!(ranks.iter().all(|rank| *rank < 1 << 16));
            }
        }
    }

    /// What the binary search says, counted one by one.
    #[test]
    fn ranks_count_the_sampled_values_that_are_smaller() {
        let mut random = StdRng::seed_from_u64(2);
        for column in arrays(&mut random, 500) {
            let sample = sample(&column, 200);
            let (ranks, sampled) = (sample.ranks(0).unwrap(), &sample.columns[0]);
            let rows = sampled.converter.convert_columns(&[Arc::clone(&column)]).unwrap();
            let count = |row: Row<'_>| {
                let values = sampled.values.iter();
                values.filter(|value| ***value < *row.data()).count()
            };
            let expected: Vec<u32> = rows.iter().map(|row| (count(row) * 255 / 200) as u32).collect();
            assert_eq!(ranks.of(&[Arc::clone(&column)], 8).unwrap()[0], expected);
        }
    }

    #[test]
    fn long_common_prefixes_and_skewed_values_are_spread_over_the_scale() {
        let mut random = StdRng::seed_from_u64(3);
        let prefix = "https://example.org/a/very/long/path/that/all/of/them/share/";
        let names = (0..20_000).map(|_| format!("{prefix}{:08}", random.random_range(0..1_000_000)));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
        // Nine in ten below a thousandth of the largest.
        let amounts = (0..20_000).map(|_| 10f64.powf(random.random_range(0.0..30.0)));
        let amounts: ArrayRef = Arc::new(Float64Array::from_iter_values(amounts));
        for column in [names, amounts] {
            let ranks = sampled(&column, 2000).of(&[column], 16).unwrap().remove(0);
            let mut sixteenths = [0; 16];
            ranks
                .iter()
                .for_each(|rank| sixteenths[(rank >> 12) as usize] += 1);
            assert!(
                sixteenths.iter().all(|rows| (900..1600).contains(rows)),
                "{sixteenths:?}"
            );
        }
    }

    #[test]
    fn every_row_has_the_same_chance_to_be_sampled() {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let sample = sample(&values, 1000);
        let (converter, values) = (&sample.columns[0].converter, &sample.columns[0].values);
        assert_eq!(values.len(), 1000);
        let tenths: ArrayRef = Arc::new(Int64Array::from_iter_values((1..10).map(|n| n * 10_000)));
        let bounds = converter.convert_columns(&[tenths]).unwrap();
        let below = |n: usize| {
            values
                .iter()
                .filter(|value| ***value < *bounds.row(n).data())
                .count()
        };
        for n in 0..9 {
            assert!(below(n).abs_diff((n + 1) * 100) < 60, "{} below {n}", below(n));
        }
    }

    #[test]
    fn no_row_is_no_sample_and_has_no_rank_to_be_wrong() {
        let empty: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let ranks = sampled(&empty, 10);
        let one: ArrayRef = Arc::new(Int64Array::from(vec![5]));
        assert_eq!(ranks.of(&[one], 16).unwrap(), [[0]]);
    }
}
