//! Casts between scalar types that lose nothing: each value is checked.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Float32Type, Float64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Misfit, decimal};
use crate::model::schema::is_utc;

/// NULL where a value does not fit: how misfits are found.
const SAFE: CastOptions<'static> = CastOptions {
    safe: true,
    format_options: FormatOptions::new(),
};

/// The type as people call it.
pub(super) fn name(data_type: &DataType) -> String {
    use DataType as T;
    match data_type {
        T::Struct(_) => "a struct".to_owned(),
        T::List(_) | T::LargeList(_) | T::FixedSizeList(..) | T::ListView(_) | T::LargeListView(_) => {
            "a list".to_owned()
        }
        T::Map(..) => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// How a pair of types is cast.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// Overflow shows as NULL; nothing else can be lost.
    Plain,
    /// What is cast back must be what it was.
    RoundTrip,
    /// Text, read as the table's type.
    Parse,
    /// Not at all.
    Refused,
}

fn how(from: &DataType, to: &DataType) -> How {
    use DataType as T;
    let text = |t: &DataType| matches!(t, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let binary = |t: &DataType| matches!(t, T::Binary | T::LargeBinary | T::BinaryView);
    let number = |t: &DataType| t.is_numeric();
    match (from, to) {
        (f, t) if text(f) && (text(t) || binary(t)) => How::Plain,
        (f, _) if text(f) => How::Parse,
        (f, t) if binary(f) && (binary(t) || text(t)) => How::Plain,
        (f, T::FixedSizeBinary(_)) if binary(f) => How::Plain,
        (T::FixedSizeBinary(_), t) if binary(t) => How::Plain,
        (f, t) if f.is_integer() && t.is_integer() => How::Plain,
        // The nearest value of the narrow type is what anyone would store; only overflow is refused.
        (f, t) if (f.is_floating() || f.is_decimal()) && t.is_floating() => How::Plain,
        (f, t) if number(f) && number(t) => How::RoundTrip,
        (T::Date32 | T::Date64, T::Date32 | T::Date64 | T::Timestamp(..)) => How::RoundTrip,
        (T::Timestamp(..), T::Date32 | T::Date64) => How::RoundTrip,
        (T::Timestamp(_, zone), T::Timestamp(_, None)) if zone.as_deref().is_some_and(|z| !is_utc(z)) => {
            How::Refused
        }
        (T::Timestamp(..), T::Timestamp(..)) => How::RoundTrip,
        (T::Time32(_) | T::Time64(_), T::Time32(_) | T::Time64(_)) => How::RoundTrip,
        _ => How::Refused,
    }
}

/// The column as the table's type.
pub(super) fn checked(array: &ArrayRef, field: &Field) -> Result<ArrayRef, Misfit> {
    use DataType as T;
    let (from, to) = (array.data_type(), field.data_type());
    let how = how(from, to);
    if how == How::Refused {
        let what = format!("is {}, the table wants {}", name(from), name(to));
        return Err(Misfit::new(match (from, to) {
            (T::Timestamp(_, Some(zone)), T::Timestamp(_, None)) => {
                format!("{what} without a time zone: convert it from {zone} first")
            }
            _ => what,
        }));
    }
    let result = match (how, to) {
        (How::Parse, T::Decimal128(precision, scale)) => {
            let text = cast(array, &T::LargeUtf8)?;
            decimal::parse(text.as_string::<i64>(), *precision, *scale)
        }
        (How::Parse, T::FixedSizeBinary(16)) => uuids(&cast(array, &T::LargeUtf8)?)?,
        (How::Parse, whole) if whole.is_integer() => integers(array, whole)?,
        // By way of the digits: a calculation would add some that nobody wrote.
        (How::RoundTrip, T::Decimal128(precision, scale)) if from.is_floating() => {
            let text = cast(array, &T::LargeUtf8)?;
            decimal::parse(text.as_string::<i64>(), *precision, *scale)
        }
        (How::Plain, to) if from.is_decimal() => cast(&cast(array, &T::LargeUtf8)?, to)?,
        _ => cast(array, to)?,
    };
    let lost = |row: &usize| array.is_valid(*row) && result.is_null(*row);
    if let Some(row) = (0..array.len()).find(lost) {
        return Err(misfit(array, row, to));
    }
    match how {
        How::RoundTrip if !(from.is_floating() && to.is_decimal()) => {
            let back = cast(&result, from)?;
            let (before, after) = (unsigned_zero(array), unsigned_zero(&back));
            let changed = distinct(&before, &after).map_err(|e| Misfit::new(e.to_string()))?;
            if let Some(row) = (0..array.len()).find(|row| changed.value(*row)) {
                return Err(misfit(array, row, to));
            }
        }
        How::Plain | How::Parse if to.is_floating() => {
            if let Some(row) = overflowed(array, &result)? {
                return Err(misfit(array, row, to));
            }
        }
        How::Parse => {
            if let Some(row) = cut_text(array, &result)? {
                return Err(misfit(array, row, to));
            }
        }
        _ => {}
    }
    Ok(result)
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    cast_with_options(array, to, &SAFE).map_err(|_| {
        Misfit::new(format!(
            "is {}, the table wants {}",
            name(array.data_type()),
            name(to)
        ))
    })
}

/// The value does not fit the type.
fn misfit(array: &ArrayRef, row: usize, to: &DataType) -> Misfit {
    let mut text = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::new())
        .map(|f| f.value(row).to_string())
        .unwrap_or_default();
    if let Some((end, _)) = text.char_indices().nth(80) {
        text.truncate(end);
        text.push_str("...");
    }
    let instant = matches!(to, DataType::Timestamp(..)) && text.bytes().all(|b| b.is_ascii_digit());
    let advice = match instant {
        true => ": a number does not say its unit; write 2013-01-31T17:00:00, or convert it in a query",
        false => "",
    };
    Misfit::at(
        row,
        format!("has '{text}', which does not fit {}{advice}", name(to)),
    )
}

/// Without the sign of zeros, which integers and decimals cannot keep and nobody misses.
fn unsigned_zero(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => Arc::new(
            array
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| v + 0.0),
        ),
        DataType::Float64 => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| v + 0.0),
        ),
        _ => Arc::clone(array),
    }
}

/// The first finite value that became infinite.
fn overflowed(from: &ArrayRef, to: &ArrayRef) -> Result<Option<usize>, Misfit> {
    let wide = cast(to, &DataType::Float64)?;
    let wide = wide.as_primitive::<Float64Type>();
    let infinite = |row: &usize| wide.is_valid(*row) && wide.value(*row).is_infinite();
    if !(0..wide.len()).any(|row| infinite(&row)) {
        return Ok(None);
    }
    // Infinity is written in letters; what digits make of it is too large.
    let text = cast(from, &DataType::LargeUtf8)?;
    let text = text.as_string::<i64>();
    let finite = |row: &usize| text.is_valid(*row) && text.value(*row).contains(|c: char| c.is_ascii_digit());
    Ok((0..wide.len()).find(|row| infinite(row) && finite(row)))
}

/// Integers from text; `1.0` and `1e3` are some too, as programs write whole numbers that they hold as floats.
fn integers(text: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    let read = cast(text, to)?;
    if read.null_count() == text.null_count() {
        return Ok(read);
    }
    let text = cast(text, &DataType::LargeUtf8)?;
    cast(
        &decimal::parse(text.as_string::<i64>(), DECIMAL128_MAX_PRECISION, 0),
        to,
    )
}

/// The first text that says more than the parsed value kept: digits below the unit of a timestamp or a time,
/// a time of day in a date, an offset from UTC where the table has none.
fn cut_text(text: &ArrayRef, parsed: &ArrayRef) -> Result<Option<usize>, Misfit> {
    use DataType as T;
    let says_more: &dyn Fn(&str) -> bool = match parsed.data_type() {
        T::Timestamp(unit, None) => &|text| cut_seconds(text, *unit) || has_offset(text),
        T::Timestamp(unit, _) | T::Time32(unit) | T::Time64(unit) => &|text| cut_seconds(text, *unit),
        T::Date32 => &|text| {
            text.get(DATE..)
                .is_some_and(|time| time.contains(|c| matches!(c, '1'..='9')))
        },
        _ => return Ok(None),
    };
    let text = cast(text, &T::LargeUtf8)?;
    let text = text.as_string::<i64>();
    Ok((0..text.len()).find(|row| text.is_valid(*row) && says_more(text.value(*row))))
}

/// Whether seconds have more digits than the unit, or there are 60 of them, which would become the next minute.
fn cut_seconds(text: &str, unit: TimeUnit) -> bool {
    fraction(text) > digits(unit) || text.contains(":60")
}

/// Characters of a date.
const DATE: usize = "2013-01-01".len();

/// Digits behind the point of seconds, without zeros at the end.
fn fraction(text: &str) -> usize {
    let Some((_, behind)) = text.split_once('.') else {
        return 0;
    };
    let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    behind[..end].trim_end_matches('0').len()
}

fn digits(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Whether an instant is written with an offset other than zero, or the name of a place: `+02:00`.
fn has_offset(text: &str) -> bool {
    let Some(time) = text.get(DATE..) else {
        return false;
    };
    let shifted = |at: usize| time[at..].contains(|c| matches!(c, '1'..='9'));
    let named = time.contains(|c: char| c.is_alphabetic() && !matches!(c, 'T' | 't' | 'Z' | 'z'));
    time.rfind(['+', '-']).is_some_and(shifted) || (named && !time.ends_with("UTC"))
}

/// UUIDs from their text.
fn uuids(text: &ArrayRef) -> Result<ArrayRef, Misfit> {
    let values = text.as_string::<i64>().iter().map(|v| {
        v.and_then(|v| uuid::Uuid::parse_str(v).ok())
            .map(uuid::Uuid::into_bytes)
    });
    let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 16);
    Ok(Arc::new(array.map_err(|e| Misfit::new(e.to_string()))?))
}
