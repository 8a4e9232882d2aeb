//! From a partition value back to the source values that can be in it.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::scalar::ScalarValue;

use super::apply::{per_second, prefix};
use super::{Transform, calendar};

/// Smallest and largest source value, each `None` where it is open or unknown.
pub(super) fn range(
    transform: &Transform,
    value: &ScalarValue,
    source: &DataType,
) -> (Option<ScalarValue>, Option<ScalarValue>) {
    if value.is_null() {
        return (None, None);
    }
    match transform {
        Transform::Identity => {
            let value = if value.data_type() == *source {
                Some(value.clone())
            } else {
                value.cast_to(source).ok().filter(|v| !v.is_null())
            };
            (value.clone(), value)
        }
        Transform::Year => dated(value, source, |n| {
            (calendar::month_start(n * 12), calendar::month_start((n + 1) * 12))
        }),
        Transform::Month => dated(value, source, |n| {
            (calendar::month_start(n), calendar::month_start(n + 1))
        }),
        Transform::Day => dated(value, source, |n| (n, n + 1)),
        Transform::Hour => match (source, count(value)) {
            (DataType::Timestamp(unit, _), Some(hours)) => {
                let units = 3_600 * per_second(*unit);
                period(source, hours.checked_mul(units), (hours + 1).checked_mul(units))
            }
            _ => (None, None),
        },
        Transform::Truncate(width) | Transform::Prefix(width) => truncated(value, *width),
        Transform::Bucket { .. } | Transform::Void => (None, None),
    }
}

/// A partition value that counts something.
fn count(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int32(v) | ScalarValue::Date32(v) => v.map(i64::from),
        ScalarValue::Int64(v) => *v,
        _ => None,
    }
}

/// `days` gives the first day of the period and of the one after it.
fn dated(
    value: &ScalarValue,
    source: &DataType,
    days: impl Fn(i64) -> (i64, i64),
) -> (Option<ScalarValue>, Option<ScalarValue>) {
    let Some(value) = count(value) else {
        return (None, None);
    };
    let (first, after) = days(value);
    let units = match source {
        DataType::Date32 => 1,
        DataType::Date64 => 86_400_000,
        DataType::Timestamp(unit, _) => 86_400 * per_second(*unit),
        _ => return (None, None),
    };
    period(source, first.checked_mul(units), after.checked_mul(units))
}

/// From `first` to just before `after`, in units of the source type.
fn period(
    source: &DataType,
    first: Option<i64>,
    after: Option<i64>,
) -> (Option<ScalarValue>, Option<ScalarValue>) {
    (
        first.and_then(|v| of_units(source, v)),
        after.and_then(|v| of_units(source, v - 1)),
    )
}

fn of_units(source: &DataType, units: i64) -> Option<ScalarValue> {
    Some(match source {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(units).ok()?)),
        DataType::Date64 => ScalarValue::Date64(Some(units)),
        DataType::Timestamp(unit, zone) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => ScalarValue::TimestampSecond(Some(units), zone),
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(units), zone),
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(units), zone),
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(units), zone),
            }
        }
        _ => return None,
    })
}

fn truncated(value: &ScalarValue, width: u32) -> (Option<ScalarValue>, Option<ScalarValue>) {
    use ScalarValue as S;
    // A number that is no multiple of the width wrapped around at the type's end: it says nothing.
    macro_rules! number {
        ($variant:ident, $v:expr, $type:ty) => {{
            let (v, width) = (i128::from($v), i128::from(width));
            if v.rem_euclid(width) != 0 {
                return (None, None);
            }
            let max = <$type>::try_from(v + width - 1).unwrap_or(<$type>::MAX);
            (Some(value.clone()), Some(S::$variant(Some(max))))
        }};
    }
    let chars = width as usize;
    match value {
        S::Int8(Some(v)) => number!(Int8, *v, i8),
        S::Int16(Some(v)) => number!(Int16, *v, i16),
        S::Int32(Some(v)) => number!(Int32, *v, i32),
        S::Int64(Some(v)) => number!(Int64, *v, i64),
        S::UInt8(Some(v)) => number!(UInt8, *v, u8),
        S::UInt16(Some(v)) => number!(UInt16, *v, u16),
        S::UInt32(Some(v)) => number!(UInt32, *v, u32),
        S::UInt64(Some(v)) => number!(UInt64, *v, u64),
        S::Decimal128(Some(v), precision, scale) => {
            let max = v.checked_add(i128::from(width) - 1);
            (
                Some(value.clone()),
                max.map(|max| S::Decimal128(Some(max), *precision, *scale)),
            )
        }
        S::Utf8(Some(v)) => (
            Some(value.clone()),
            string_end(v, chars).map(|v| S::Utf8(Some(v))),
        ),
        S::LargeUtf8(Some(v)) => (
            Some(value.clone()),
            string_end(v, chars).map(|v| S::LargeUtf8(Some(v))),
        ),
        S::Utf8View(Some(v)) => (
            Some(value.clone()),
            string_end(v, chars).map(|v| S::Utf8View(Some(v))),
        ),
        S::Binary(Some(v)) => (
            Some(value.clone()),
            bytes_end(v, chars).map(|v| S::Binary(Some(v))),
        ),
        S::LargeBinary(Some(v)) => (
            Some(value.clone()),
            bytes_end(v, chars).map(|v| S::LargeBinary(Some(v))),
        ),
        S::BinaryView(Some(v)) => (
            Some(value.clone()),
            bytes_end(v, chars).map(|v| S::BinaryView(Some(v))),
        ),
        _ => (None, None),
    }
}

/// A value shorter than the width was not cut; a longer one is below the next prefix.
fn string_end(value: &str, width: usize) -> Option<String> {
    if value.chars().count() < width {
        Some(value.to_owned())
    } else {
        next_string(prefix(value, width))
    }
}

fn bytes_end(value: &[u8], width: usize) -> Option<Vec<u8>> {
    if value.len() < width {
        Some(value.to_vec())
    } else {
        next_bytes(&value[..width])
    }
}

/// The smallest string of at most as many characters that is greater than every string that starts
/// with `text`; `None` if there is none.
pub(crate) fn next_string(text: &str) -> Option<String> {
    let mut chars: Vec<char> = text.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates (U+D800 to U+DFFF) are not characters.
        let next = match last {
            char::MAX => continue,
            '\u{d7ff}' => '\u{e000}',
            c => char::from_u32(c as u32 + 1)?,
        };
        chars.push(next);
        return Some(chars.into_iter().collect());
    }
    None
}

/// The same for bytes.
pub(crate) fn next_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    let last = bytes.iter().rposition(|b| *b != 0xff)?;
    let mut next = bytes[..=last].to_vec();
    next[last] += 1;
    Some(next)
}
