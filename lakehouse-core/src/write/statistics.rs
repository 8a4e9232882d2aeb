//! Column statistics of a file that was just written: from its own Parquet footer, NaNs counted here.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, TimeUnit};
use datafusion::scalar::ScalarValue;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::layout::Leaf;
use crate::model::{ColumnStats, next_bytes, next_string};
use crate::planted::{self, Bug};

/// Characters (or bytes, of binary) that bounds in the metadata keep.
const MAX_BOUND: usize = 32;

/// Statistics by column name of these row groups together. `nans` has one count per leaf, `None` where nobody counted
/// (row groups that were copied).
pub(super) fn of_groups(
    groups: &[RowGroupMetaData],
    leaves: &[Leaf],
    nans: &[Option<u64>],
) -> BTreeMap<String, ColumnStats> {
    let mut columns = BTreeMap::new();
    for (index, leaf) in leaves.iter().enumerate() {
        let Some(name) = &leaf.name else { continue };
        let mut total = Merged::default();
        for group in groups {
            let column = group.column(index);
            total.values += column.num_values().max(0).cast_unsigned();
            total.bytes += column.compressed_size().max(0).cast_unsigned();
            total.add(column.statistics(), &leaf.data_type, column.num_values());
        }
        let nans = leaf.data_type.is_floating().then(|| nans[index]);
        columns.insert(name.clone(), total.finish(nans));
    }
    columns
}

/// Statistics of several row groups as one.
struct Merged {
    values: u64,
    bytes: u64,
    nulls: Option<u64>,
    min: Bound,
    max: Bound,
    exact: bool,
}

/// What is known of one end.
enum Bound {
    /// No row group has a value yet.
    Nothing,
    /// A row group has values, but no bound.
    Unknown,
    Known(ScalarValue),
}

impl Default for Merged {
    fn default() -> Self {
        Self {
            values: 0,
            bytes: 0,
            nulls: Some(0),
            min: Bound::Nothing,
            max: Bound::Nothing,
            exact: true,
        }
    }
}

impl Merged {
    fn add(&mut self, statistics: Option<&Statistics>, data_type: &DataType, values: i64) {
        let nulls = statistics.and_then(Statistics::null_count_opt);
        self.nulls = self.nulls.zip(nulls).map(|(a, b)| a + b);
        if nulls == Some(values.max(0).cast_unsigned()) {
            return;
        }
        let (min, max) = statistics.map_or((None, None), |s| bounds(s, data_type));
        self.exact &= statistics.is_some_and(|s| s.min_is_exact() && s.max_is_exact());
        self.min.extend(min, Ordering::Less);
        self.max.extend(max, Ordering::Greater);
    }

    /// `nans`: `None` for columns that cannot have any, `Some(None)` if nobody knows.
    fn finish(self, nans: Option<Option<u64>>) -> ColumnStats {
        let (min, min_cut) = self.min.cut(cut_down);
        let (max, max_cut) = self.max.cut(cut_up);
        ColumnStats {
            values: Some(self.values),
            nulls: self.nulls,
            nans: nans.flatten(),
            // A NaN is beyond every bound, so the bounds are not the extremes of the column.
            exact: self.exact
                && !min_cut
                && !max_cut
                && nans.is_none_or(|n| n == Some(0))
                && min.is_some()
                && max.is_some(),
            min,
            max,
            bytes: Some(self.bytes),
        }
    }
}

impl Bound {
    /// Moves the bound to `value` if that is `further` out.
    fn extend(&mut self, value: Option<ScalarValue>, further: Ordering) {
        *self = match (std::mem::replace(self, Self::Unknown), value) {
            (Self::Unknown, _) | (_, None) => Self::Unknown,
            (Self::Nothing, Some(value)) => Self::Known(value),
            (Self::Known(old), Some(value)) => match value.partial_cmp(&old) {
                Some(order) if order == further => Self::Known(value),
                Some(_) => Self::Known(old),
                None => Self::Unknown,
            },
        };
    }

    /// The bound, shortened; and whether that changed it.
    fn cut(self, shorten: fn(ScalarValue) -> (Option<ScalarValue>, bool)) -> (Option<ScalarValue>, bool) {
        match self {
            Self::Known(value) => shorten(value),
            Self::Nothing | Self::Unknown => (None, false),
        }
    }
}

/// A lower bound of at most [`MAX_BOUND`] characters.
fn cut_down(value: ScalarValue) -> (Option<ScalarValue>, bool) {
    use ScalarValue as S;
    let text = |v: &str| {
        v.char_indices()
            .nth(MAX_BOUND)
            .map(|(end, _)| v[..end].to_owned())
    };
    let bytes = |v: &[u8]| (v.len() > MAX_BOUND).then(|| v[..MAX_BOUND].to_vec());
    let shorter = match &value {
        S::Utf8(Some(v)) => text(v).map(|v| S::Utf8(Some(v))),
        S::LargeUtf8(Some(v)) => text(v).map(|v| S::LargeUtf8(Some(v))),
        S::Utf8View(Some(v)) => text(v).map(|v| S::Utf8View(Some(v))),
        S::Binary(Some(v)) => bytes(v).map(|v| S::Binary(Some(v))),
        S::LargeBinary(Some(v)) => bytes(v).map(|v| S::LargeBinary(Some(v))),
        S::BinaryView(Some(v)) => bytes(v).map(|v| S::BinaryView(Some(v))),
        _ => None,
    };
    match shorter {
        Some(shorter) => (Some(shorter), true),
        None => (Some(value), false),
    }
}

/// An upper bound of at most [`MAX_BOUND`] characters: the next after every value that starts like
/// this one; none if there is no such.
fn cut_up(value: ScalarValue) -> (Option<ScalarValue>, bool) {
    use ScalarValue as S;
    let (cut, shorter) = cut_down(value);
    if !shorter || planted::is(Bug::UpperBoundCut) {
        return (cut, shorter);
    }
    let next = match cut {
        Some(S::Utf8(Some(v))) => next_string(&v).map(|v| S::Utf8(Some(v))),
        Some(S::LargeUtf8(Some(v))) => next_string(&v).map(|v| S::LargeUtf8(Some(v))),
        Some(S::Utf8View(Some(v))) => next_string(&v).map(|v| S::Utf8View(Some(v))),
        Some(S::Binary(Some(v))) => next_bytes(&v).map(|v| S::Binary(Some(v))),
        Some(S::LargeBinary(Some(v))) => next_bytes(&v).map(|v| S::LargeBinary(Some(v))),
        Some(S::BinaryView(Some(v))) => next_bytes(&v).map(|v| S::BinaryView(Some(v))),
        _ => None,
    };
    (next, true)
}

/// Parquet's bounds as values of the column's type.
fn bounds(statistics: &Statistics, data_type: &DataType) -> (Option<ScalarValue>, Option<ScalarValue>) {
    let both = |of: &dyn Fn(bool) -> Option<ScalarValue>| (of(true), of(false));
    match statistics {
        Statistics::Boolean(s) => {
            both(&|low| Some(ScalarValue::from(*if low { s.min_opt() } else { s.max_opt() }?)))
        }
        Statistics::Int32(s) => both(&|low| {
            of_int(
                i64::from(*if low { s.min_opt() } else { s.max_opt() }?),
                data_type,
            )
        }),
        Statistics::Int64(s) => both(&|low| of_int(*if low { s.min_opt() } else { s.max_opt() }?, data_type)),
        // What the format says about NaN and zeros as bounds (parquet.thrift, `ColumnOrder`): other writers'
        // chunks are copied too.
        Statistics::Float(s) => both(&|low| {
            let v = *if low { s.min_opt() } else { s.max_opt() }?;
            let zero = if low { -0.0 } else { 0.0 };
            (!v.is_nan()).then(|| ScalarValue::from(if v == 0.0 { zero } else { v }))
        }),
        Statistics::Double(s) => both(&|low| {
            let v = *if low { s.min_opt() } else { s.max_opt() }?;
            let zero = if low { -0.0 } else { 0.0 };
            (!v.is_nan()).then(|| ScalarValue::from(if v == 0.0 { zero } else { v }))
        }),
        Statistics::ByteArray(s) => {
            both(&|low| of_bytes(if low { s.min_opt() } else { s.max_opt() }?.data(), data_type))
        }
        Statistics::FixedLenByteArray(s) => {
            both(&|low| of_bytes(if low { s.min_opt() } else { s.max_opt() }?.data(), data_type))
        }
        Statistics::Int96(_) => (None, None),
    }
}

/// Integers; small unsigned ones are stored with their bits in a signed type.
fn of_int(v: i64, data_type: &DataType) -> Option<ScalarValue> {
    use ScalarValue as S;
    Some(match data_type {
        DataType::Int8 => S::Int8(Some(v as i8)),
        DataType::Int16 => S::Int16(Some(v as i16)),
        DataType::Int32 => S::Int32(Some(v as i32)),
        DataType::Int64 => S::Int64(Some(v)),
        DataType::UInt8 => S::UInt8(Some(v as u8)),
        DataType::UInt16 => S::UInt16(Some(v as u16)),
        DataType::UInt32 => S::UInt32(Some(v as u32)),
        DataType::UInt64 => S::UInt64(Some(v.cast_unsigned())),
        DataType::Date32 => S::Date32(Some(v as i32)),
        DataType::Time32(TimeUnit::Millisecond) => S::Time32Millisecond(Some(v as i32)),
        DataType::Time64(TimeUnit::Microsecond) => S::Time64Microsecond(Some(v)),
        DataType::Time64(TimeUnit::Nanosecond) => S::Time64Nanosecond(Some(v)),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => S::TimestampMillisecond(Some(v), zone.clone()),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => S::TimestampMicrosecond(Some(v), zone.clone()),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => S::TimestampNanosecond(Some(v), zone.clone()),
        DataType::Decimal128(precision, scale) => S::Decimal128(Some(i128::from(v)), *precision, *scale),
        // Others are stored in forms that differ by writer settings: no bounds rather than wrong ones.
        _ => return None,
    })
}

fn of_bytes(v: &[u8], data_type: &DataType) -> Option<ScalarValue> {
    use ScalarValue as S;
    let text = || std::str::from_utf8(v).ok().map(str::to_owned);
    Some(match data_type {
        DataType::Utf8 => S::Utf8(Some(text()?)),
        DataType::LargeUtf8 => S::LargeUtf8(Some(text()?)),
        DataType::Utf8View => S::Utf8View(Some(text()?)),
        DataType::Binary => S::Binary(Some(v.to_vec())),
        DataType::LargeBinary => S::LargeBinary(Some(v.to_vec())),
        DataType::BinaryView => S::BinaryView(Some(v.to_vec())),
        DataType::FixedSizeBinary(size) => S::FixedSizeBinary(*size, Some(v.to_vec())),
        DataType::Decimal128(precision, scale) if (1..=16).contains(&v.len()) => {
            // Big-endian two's complement, sign extended to 16 bytes.
            let mut wide = [if v[0] & 0x80 == 0 { 0 } else { 0xff }; 16];
            wide[16 - v.len()..].copy_from_slice(v);
            S::Decimal128(Some(i128::from_be_bytes(wide)), *precision, *scale)
        }
        _ => return None,
    })
}

/// Adds the NaNs of a column to the counts of its leaves.
pub(super) fn count_nans(column: &ArrayRef, counts: &mut [Option<u64>]) {
    count_below(column, counts, &mut 0);
}

fn count_below(array: &ArrayRef, counts: &mut [Option<u64>], leaf: &mut usize) {
    match array.data_type() {
        DataType::Struct(_) => {
            let parent = array.as_struct();
            for child in parent.columns() {
                match parent.nulls() {
                    // Below a NULL struct there are no values.
                    Some(nulls) if nulls.null_count() > 0 && child.data_type().is_floating() => {
                        let hidden = arrow::array::BooleanArray::new(!nulls.inner(), None);
                        let visible = arrow::compute::nullif(child, &hidden);
                        count_below(visible.as_ref().unwrap_or(child), counts, leaf);
                    }
                    _ => count_below(child, counts, leaf),
                }
            }
        }
        // No statistics are kept inside lists and maps; only their leaves are passed over.
        DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
            *leaf += leaves(inner.data_type());
        }
        DataType::Map(entries, _) => *leaf += leaves(entries.data_type()),
        other => {
            let found = match other {
                DataType::Float16 => array
                    .as_primitive::<Float16Type>()
                    .iter()
                    .flatten()
                    .filter(|v| v.is_nan())
                    .count(),
                DataType::Float32 => array
                    .as_primitive::<Float32Type>()
                    .iter()
                    .flatten()
                    .filter(|v| v.is_nan())
                    .count(),
                DataType::Float64 => array
                    .as_primitive::<Float64Type>()
                    .iter()
                    .flatten()
                    .filter(|v| v.is_nan())
                    .count(),
                _ => 0,
            };
            if let Some(count) = &mut counts[*leaf] {
                *count += found as u64;
            }
            *leaf += 1;
        }
    }
}

/// Leaf columns of a type.
fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => {
            leaves(f.data_type())
        }
        _ => 1,
    }
}
