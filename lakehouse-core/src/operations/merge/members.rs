//! Which rows of the target may have a key of the source, for the price of a look into a small table.
//!
//! The filter that the join hands to the scan finds each row's key in the join's hash table, which is larger than a
//! processor's cache: a third of a merge's time is spent waiting for it. A Bloom filter comes first, all bits of a key in one
//! word of it (Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007), so that one row in a
//! hundred reaches the join's filter for nothing. Whole numbers that are near each other are near each other in it too: of a
//! table that is sorted by its key, or nearly, the same few lines are looked at again and again.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::common::hash_utils::{RandomState, with_hashes};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::super::update::column;
use super::plan::{Key, TARGET, as_type};
use super::source::Source;
use crate::error::Result;
use crate::model::floats::as_compared;

/// Bits of the table for each key, at least; a key sets four.
const BITS_PER_KEY: usize = 16;

/// True for every row of the target that may match a row of the source. `None` if nothing can be said of the keys.
pub(super) fn may_match(keys: &[Key], table: &Schema, source: &Source) -> Result<Option<Expr>> {
    let (mut columns, mut types) = (Vec::new(), Vec::new());
    let mut batches: Vec<Vec<ArrayRef>> = vec![Vec::new(); source.batches().len()];
    // NULL is a key too where `<=>` compares it.
    for key in keys.iter().filter(|key| !key.null_safe) {
        let data_type = table.field_with_name(&key.target)?.data_type();
        let values = source.batches().iter().map(|batch| {
            let given = batch.column(batch.schema_ref().index_of(&key.source)?);
            Ok(as_type(given, data_type)?.map(|values| as_compared(&values)))
        });
        let Some(values) = values.collect::<Result<Option<Vec<_>>>>()? else {
            continue;
        };
        columns.push(column(Some(TARGET), &key.target));
        types.push(data_type.clone());
        for (batch, values) in batches.iter_mut().zip(values) {
            batch.push(values);
        }
    }
    if columns.is_empty() {
        return Ok(None);
    }
    let mut bits = Bits::for_keys(source.rows());
    for keys in &batches {
        let near = Near::of(&keys[0])?;
        with_hashes(keys, &RandomState::default(), |hashes| {
            for (at, hash) in hashes.iter().enumerate() {
                bits.insert(near.of_row(at, *hash), *hash);
            }
            Ok(())
        })?;
    }
    let members = Members {
        signature: Signature::any(columns.len(), Volatility::Immutable),
        types,
        bits: Arc::new(bits),
    };
    Ok(Some(ScalarUDF::new_from_impl(members).call(columns)))
}

/// What says where in the filter a row belongs: the first key if that is a whole number, else the hash of all.
enum Near {
    Numbers(Int64Array),
    Hashes,
}

impl Near {
    fn of(first: &ArrayRef) -> DataFusionResult<Self> {
        Ok(match first.data_type().is_integer() {
            // What does not fit becomes NULL, whose value is whatever it is, but for the same number the same.
            true => Self::Numbers(cast(first, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            false => Self::Hashes,
        })
    }

    fn of_row(&self, at: usize, hash: u64) -> u64 {
        match self {
            Self::Numbers(numbers) => numbers.value(at).cast_unsigned(),
            // Where neighbours are is no matter.
            Self::Hashes => hash,
        }
    }
}

/// A Bloom filter in lines of eight words: 128 numbers in a row share a line, 16 of them a word.
struct Bits {
    words: Vec<u64>,
    /// By so much a product is shifted to give the number of a line.
    shift: u32,
}

/// Knuth's multiplicative hashing: the upper bits of a product depend on all bits of a number.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Bits {
    fn for_keys(keys: u64) -> Self {
        let words = usize::try_from(keys).unwrap_or(usize::MAX) / 64 * BITS_PER_KEY;
        let lines = (words / 8).next_power_of_two().max(2);
        Self {
            words: vec![0; lines * 8],
            shift: u64::BITS - lines.trailing_zeros(),
        }
    }

    /// The number of a word, and the bits of a hash in it.
    fn place(&self, near: u64, hash: u64) -> (usize, u64) {
        let product = (near >> 7).wrapping_mul(SPREAD);
        let line = (product >> self.shift) as usize;
        // Another order of the words in each line: numbers far apart, in equal steps, would all be in the first.
        let word = ((near >> 4) ^ (product >> (self.shift - 3))) & 7;
        let hash = hash.wrapping_mul(SPREAD);
        let bit = |at: u32| 1u64 << ((hash >> at) & 63);
        let bits = bit(58) | bit(52) | bit(46) | bit(40);
        (line * 8 + word as usize, bits)
    }

    fn insert(&mut self, near: u64, hash: u64) {
        let (word, bits) = self.place(near, hash);
        self.words[word] |= bits;
    }

    fn contains(&self, near: u64, hash: u64) -> bool {
        let (word, bits) = self.place(near, hash);
        self.words[word] & bits == bits
    }
}

/// The filter as a function of the target's key columns.
struct Members {
    signature: Signature,
    /// Types of the keys: the same values of another type have other hashes.
    types: Vec<DataType>,
    bits: Arc<Bits>,
}

impl ScalarUDFImpl for Members {
    fn name(&self) -> &str {
        "source_may_have"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, given: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let mut keys = ColumnarValue::values_to_arrays(&given.args)?;
        for (values, data_type) in keys.iter_mut().zip(&self.types) {
            if values.data_type() != data_type {
                *values = cast(values, data_type)?;
            }
            *values = as_compared(values);
        }
        let near = Near::of(&keys[0])?;
        with_hashes(&keys, &RandomState::default(), |hashes| {
            let known = match &near {
                Near::Numbers(numbers) => {
                    let of = |at: usize| numbers.values()[at].cast_unsigned();
                    BooleanBuffer::collect_bool(hashes.len(), |at| self.bits.contains(of(at), hashes[at]))
                }
                Near::Hashes => {
                    BooleanBuffer::collect_bool(hashes.len(), |at| self.bits.contains(hashes[at], hashes[at]))
                }
            };
            Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(known, None))))
        })
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bits, &other.bits)
    }
}

impl Eq for Members {}

impl Hash for Members {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.bits).hash(state);
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("types", &self.types)
            .field("words", &self.bits.words.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_went_in_is_found_and_hardly_any_other() {
        let mixed = |n: u64| n.wrapping_mul(0xFF51_AFD7_ED55_8CCD) ^ (n >> 7);
        // One number in a hundred, all of a stretch, numbers far apart, and no numbers at all.
        for (step, name) in [
            (100, "sparse"),
            (1, "dense"),
            (1 << 40, "far apart"),
            (0, "hashes"),
        ] {
            let near = |n: u64| if step == 0 { mixed(n) } else { n * step };
            let mut bits = Bits::for_keys(10_000);
            (0..10_000).for_each(|n| bits.insert(near(n), mixed(n)));
            assert!((0..10_000).all(|n| bits.contains(near(n), mixed(n))), "{name}");
            // Others of the same numbers, and other numbers.
            let twins = (0..10_000).filter(|n| bits.contains(near(*n), mixed(n + 1_000_000)));
            let others = (20_000..120_000).filter(|n| bits.contains(near(*n) + 7, mixed(*n)));
            let (twins, others) = (twins.count(), others.count());
            assert!(twins < 2_500, "{name}: {twins} of 10,000");
            assert!(others < 4_000, "{name}: {others} of 100,000");
        }
        assert!(!Bits::for_keys(0).contains(0, 0));
    }
}
