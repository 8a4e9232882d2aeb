//! Transforms over whole Arrow arrays.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, Decimal128Array,
    LargeBinaryArray, LargeStringArray, PrimitiveArray, Scalar, StringArray, StringViewArray, new_null_array,
};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{cast, nullif};
use arrow::datatypes::{
    ArrowNativeTypeOp, DataType, Date32Type, Date64Type, Decimal128Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::{Transform, bucket, calendar};
use crate::error::{Error, Result};

/// See [`Transform::result_type`].
pub(super) fn result_type(transform: &Transform, source: &DataType) -> Result<DataType> {
    use DataType as T;
    if let T::Dictionary(_, values) = source {
        return result_type(transform, values);
    }
    let result = match transform {
        Transform::Void => Some(source.clone()),
        Transform::Identity if !source.is_nested() => Some(source.clone()),
        Transform::Year | Transform::Month if is_dated(source) => Some(T::Int32),
        Transform::Day if is_dated(source) => Some(T::Date32),
        Transform::Hour if matches!(source, T::Timestamp(..)) => Some(T::Int32),
        Transform::Bucket { buckets, hash } if *buckets > 0 && bucket::is_hashable(source, *hash) => {
            Some(T::Int32)
        }
        Transform::Truncate(width) if *width > 0 && is_truncatable(source) => Some(source.clone()),
        Transform::Prefix(width) if *width > 0 && matches!(source, T::Utf8 | T::LargeUtf8 | T::Utf8View) => {
            Some(source.clone())
        }
        _ => None,
    };
    result.ok_or_else(|| {
        Error::invalid(
            format!("partition transform {transform} is not defined for type {source}"),
            "",
        )
        .with_hint(match transform {
            Transform::Hour => "hour takes timestamps",
            Transform::Year | Transform::Month | Transform::Day => {
                "year, month and day take dates and timestamps"
            }
            Transform::Bucket { .. } => {
                "bucket takes a positive number of buckets and integers, decimals, dates, times, timestamps, strings or binary"
            }
            Transform::Truncate(_) | Transform::Prefix(_) => {
                "truncate takes a positive width and integers, decimals, strings or binary"
            }
            Transform::Identity | Transform::Void => "partition by a column that is not a struct, list or map",
        })
    })
}

fn is_dated(source: &DataType) -> bool {
    matches!(
        source,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)
    )
}

fn is_truncatable(source: &DataType) -> bool {
    use DataType as T;
    source.is_integer()
        || matches!(
            source,
            T::Decimal128(..)
                | T::Utf8
                | T::LargeUtf8
                | T::Utf8View
                | T::Binary
                | T::LargeBinary
                | T::BinaryView
        )
}

/// See [`Transform::apply`].
pub(super) fn apply(transform: &Transform, column: &ArrayRef) -> Result<ArrayRef> {
    if let DataType::Dictionary(_, values) = column.data_type() {
        return apply(transform, &cast(column, values)?);
    }
    let result = result_type(transform, column.data_type())?;
    match transform {
        Transform::Identity => Ok(Arc::clone(column)),
        Transform::Void => Ok(new_null_array(&result, column.len())),
        Transform::Year => counted::<Int32Type>(column, DAY, |days| calendar::year_month(days).0 - 1970),
        Transform::Month => counted::<Int32Type>(column, DAY, calendar::months_of_day),
        Transform::Day => counted::<Date32Type>(column, DAY, |days| days),
        Transform::Hour => counted::<Int32Type>(column, HOUR, |hours| hours),
        Transform::Bucket { buckets, hash } => bucket::apply(column, *buckets, *hash),
        Transform::Truncate(width) => truncate(column, *width),
        Transform::Prefix(width) => {
            let cut = truncate(column, *width)?;
            let empty = empty_text(cut.data_type())?;
            Ok(nullif(&cut, &eq(&cut, &empty)?)?)
        }
    }
}

/// The empty text in one of the types of text.
fn empty_text(data_type: &DataType) -> Result<Scalar<ArrayRef>> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![""]));
    Ok(Scalar::new(cast(&text, data_type)?))
}

/// Seconds of a day and an hour.
const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;

/// Values per second of a timestamp unit.
pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// `f` of the number of whole periods (of so many seconds) since 1970, rounded down.
fn counted<R>(column: &ArrayRef, seconds: i64, f: impl Fn(i64) -> i64) -> Result<ArrayRef>
where
    R: ArrowPrimitiveType<Native = i32>,
{
    fn each<T, R>(column: &ArrayRef, divisor: i64, f: impl Fn(i64) -> i64) -> Result<ArrayRef>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i64>,
        R: ArrowPrimitiveType<Native = i32>,
    {
        let result: PrimitiveArray<R> = column.as_primitive::<T>().try_unary(|value| {
            let value: i64 = value.into();
            i32::try_from(f(value.div_euclid(divisor))).map_err(|_| {
                Error::invalid(
                    format!("{value} is too far from 1970 to have a partition value of 32 bits"),
                    "",
                )
            })
        })?;
        Ok(Arc::new(result))
    }
    match column.data_type() {
        DataType::Date32 => each::<Date32Type, R>(column, 1, f),
        DataType::Date64 => each::<Date64Type, R>(column, seconds * 1_000, f),
        DataType::Timestamp(unit, _) => {
            let divisor = seconds * per_second(*unit);
            match unit {
                TimeUnit::Second => each::<TimestampSecondType, R>(column, divisor, f),
                TimeUnit::Millisecond => each::<TimestampMillisecondType, R>(column, divisor, f),
                TimeUnit::Microsecond => each::<TimestampMicrosecondType, R>(column, divisor, f),
                TimeUnit::Nanosecond => each::<TimestampNanosecondType, R>(column, divisor, f),
            }
        }
        other => Err(not_here(other)),
    }
}

/// An array whose type passed [`result_type`] but that no branch takes.
fn not_here(data_type: &DataType) -> Error {
    Error::invalid(format!("type {data_type} cannot be partitioned by"), "")
}

fn truncate(column: &ArrayRef, width: u32) -> Result<ArrayRef> {
    use DataType as T;
    let chars = width as usize;
    Ok(match column.data_type() {
        T::Int8 => whole::<Int8Type>(column, width),
        T::Int16 => whole::<Int16Type>(column, width),
        T::Int32 => whole::<Int32Type>(column, width),
        T::Int64 => whole::<Int64Type>(column, width),
        T::UInt8 => whole::<UInt8Type>(column, width),
        T::UInt16 => whole::<UInt16Type>(column, width),
        T::UInt32 => whole::<UInt32Type>(column, width),
        T::UInt64 => whole::<UInt64Type>(column, width),
        T::Decimal128(precision, scale) => {
            let width = i128::from(width);
            let result: Decimal128Array = column
                .as_primitive::<Decimal128Type>()
                .unary(|v| v.wrapping_sub(v.rem_euclid(width)));
            Arc::new(result.with_precision_and_scale(*precision, *scale)?)
        }
        T::Utf8 => Arc::new(StringArray::from_iter(
            column
                .as_string::<i32>()
                .iter()
                .map(|v| v.map(|v| prefix(v, chars))),
        )),
        T::LargeUtf8 => Arc::new(LargeStringArray::from_iter(
            column
                .as_string::<i64>()
                .iter()
                .map(|v| v.map(|v| prefix(v, chars))),
        )),
        T::Utf8View => Arc::new(StringViewArray::from_iter(
            column
                .as_string_view()
                .iter()
                .map(|v| v.map(|v| prefix(v, chars))),
        )),
        T::Binary => Arc::new(BinaryArray::from_iter(
            column
                .as_binary::<i32>()
                .iter()
                .map(|v| v.map(|v| &v[..v.len().min(chars)])),
        )),
        T::LargeBinary => Arc::new(LargeBinaryArray::from_iter(
            column
                .as_binary::<i64>()
                .iter()
                .map(|v| v.map(|v| &v[..v.len().min(chars)])),
        )),
        T::BinaryView => Arc::new(BinaryViewArray::from_iter(
            column
                .as_binary_view()
                .iter()
                .map(|v| v.map(|v| &v[..v.len().min(chars)])),
        )),
        other => return Err(not_here(other)),
    })
}

/// The first `width` characters (Unicode code points, as the spec counts them).
pub(super) fn prefix(text: &str, width: usize) -> &str {
    match text.char_indices().nth(width) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// `v - (v mod w)`, the remainder never negative. Wraps at the type's smallest value, as in Java.
fn whole<T>(column: &ArrayRef, width: u32) -> ArrayRef
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i128> + Into<i128> + ArrowNativeTypeOp,
{
    let width = i128::from(width);
    let result: PrimitiveArray<T> = column.as_primitive::<T>().unary(|v| {
        let wide: i128 = v.into();
        match T::Native::try_from(wide.rem_euclid(width)) {
            Ok(remainder) => v.sub_wrapping(remainder),
            // The width is beyond the narrow type: below zero the multiple does not exist.
            Err(_) => T::Native::MIN_TOTAL_ORDER,
        }
    });
    Arc::new(result)
}
