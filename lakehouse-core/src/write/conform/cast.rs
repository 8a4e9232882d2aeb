//! Casts between scalar types that lose nothing: each value is checked.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Misfit, decimal};

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
        (T::Float64 | T::Float32 | T::Float16, T::Float32 | T::Float16 | T::Float64) => How::Plain,
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

fn is_utc(zone: &str) -> bool {
    matches!(
        zone,
        "UTC" | "Z" | "Etc/UTC" | "GMT" | "+00:00" | "-00:00" | "+00" | "+0000"
    )
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
        _ => cast(array, to)?,
    };
    let lost = |row: &usize| array.is_valid(*row) && result.is_null(*row);
    if let Some(row) = (0..array.len()).find(lost) {
        return Err(misfit(array, row, to));
    }
    match how {
        How::RoundTrip => {
            let back = cast(&result, from)?;
            let (before, after) = (unsigned_zero(array), unsigned_zero(&back));
            let changed = distinct(&before, &after).map_err(|e| Misfit::new(e.to_string()))?;
            if let Some(row) = (0..array.len()).find(|row| changed.value(*row)) {
                return Err(misfit(array, row, to));
            }
        }
        How::Plain if to.is_floating() => {
            if let Some(row) = overflowed(array, &result) {
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
    Misfit::at(row, format!("has '{text}', which does not fit {}", name(to)))
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
fn overflowed(from: &ArrayRef, to: &ArrayRef) -> Option<usize> {
    let wide = |array: &ArrayRef| -> Option<PrimitiveArray<Float64Type>> {
        Some(
            cast(array, &DataType::Float64)
                .ok()?
                .as_primitive::<Float64Type>()
                .clone(),
        )
    };
    let (from, to) = (wide(from)?, wide(to)?);
    (0..from.len())
        .find(|row| from.value(*row).is_finite() && to.value(*row).is_infinite() && to.is_valid(*row))
}

/// The first text that says more than the parsed value kept: digits below the unit of a timestamp, a
/// time of day in a date.
fn cut_text(text: &ArrayRef, parsed: &ArrayRef) -> Result<Option<usize>, Misfit> {
    use DataType as T;
    let longest = |limit: usize| -> Result<bool, Misfit> {
        let text = cast(text, &T::LargeUtf8)?;
        Ok(text.as_string::<i64>().iter().flatten().any(|v| v.len() > limit))
    };
    let fine = match parsed.data_type() {
        // "2013-01-01T00:00:00" is as long as a text without fractions gets.
        T::Timestamp(unit, zone) if *unit != TimeUnit::Nanosecond && longest(19)? => {
            T::Timestamp(TimeUnit::Nanosecond, zone.clone())
        }
        T::Date32 if longest(10)? => T::Timestamp(TimeUnit::Microsecond, None),
        _ => return Ok(None),
    };
    // Instants beyond the finer type's range are NULL there: they cannot be compared.
    let exact = cast(text, &fine)?;
    let kept = cast(parsed, &fine)?;
    let differs: BooleanArray = distinct(&exact, &kept).map_err(|e| Misfit::new(e.to_string()))?;
    Ok((0..text.len()).find(|row| exact.is_valid(*row) && kept.is_valid(*row) && differs.value(*row)))
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
