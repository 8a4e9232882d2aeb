//! Bucket hashes: Iceberg's and Spark's 32-bit murmur3, over whole arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Int32Array};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::BucketHash;
use crate::error::{Error, Result};

/// Seed of Spark's `hash()`, and its result for NULL.
const SPARK_SEED: u32 = 42;

/// Whether the hash is defined for the type. Iceberg's spec leaves out booleans and floats.
pub(super) fn is_hashable(source: &DataType, hash: BucketHash) -> bool {
    use DataType as T;
    source.is_integer()
        || matches!(
            source,
            T::Decimal128(..)
                | T::Date32
                | T::Date64
                | T::Time32(_)
                | T::Time64(_)
                | T::Timestamp(..)
                | T::Utf8
                | T::LargeUtf8
                | T::Utf8View
                | T::Binary
                | T::LargeBinary
                | T::BinaryView
                | T::FixedSizeBinary(_)
        )
        || (hash == BucketHash::Spark && matches!(source, T::Boolean | T::Float32 | T::Float64))
}

/// The bucket of every value.
pub(super) fn apply(column: &ArrayRef, buckets: u32, hash: BucketHash) -> Result<ArrayRef> {
    let n = i32::try_from(buckets).ok().filter(|n| *n > 0).ok_or_else(|| {
        Error::invalid(format!("{buckets} is not a number of buckets"), "")
            .with_hint("give a number between 1 and 2147483647")
    })?;
    let hashes = match hash {
        BucketHash::Iceberg => iceberg(column)?,
        BucketHash::Spark => spark(column)?,
    };
    Ok(Arc::new(match hash {
        BucketHash::Iceberg => hashes.unary::<_, Int32Type>(|h| (h & i32::MAX) % n),
        BucketHash::Spark => {
            // `pmod(hash(c), N)` is not NULL for NULL: the hash of NULL is the seed.
            let of_null = (SPARK_SEED as i32).rem_euclid(n);
            Int32Array::from_iter_values(hashes.iter().map(|h| h.map_or(of_null, |h| h.rem_euclid(n))))
        }
    }))
}

/// `f` of every integer, widened.
fn longs<T>(column: &ArrayRef, f: impl Fn(i64) -> i32) -> Int32Array
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    column.as_primitive::<T>().unary(|v| f(v.into()))
}

/// `f` of every value's bytes.
fn bytes(column: &ArrayRef, f: impl Fn(&[u8]) -> i32) -> Option<Int32Array> {
    use DataType as T;
    Some(match column.data_type() {
        T::Utf8 => column
            .as_string::<i32>()
            .iter()
            .map(|v| v.map(|v| f(v.as_bytes())))
            .collect(),
        T::LargeUtf8 => column
            .as_string::<i64>()
            .iter()
            .map(|v| v.map(|v| f(v.as_bytes())))
            .collect(),
        T::Utf8View => column
            .as_string_view()
            .iter()
            .map(|v| v.map(|v| f(v.as_bytes())))
            .collect(),
        T::Binary => column.as_binary::<i32>().iter().map(|v| v.map(&f)).collect(),
        T::LargeBinary => column.as_binary::<i64>().iter().map(|v| v.map(&f)).collect(),
        T::BinaryView => column.as_binary_view().iter().map(|v| v.map(&f)).collect(),
        T::FixedSizeBinary(_) => column.as_fixed_size_binary().iter().map(|v| v.map(&f)).collect(),
        _ => return None,
    })
}

/// Dates as days, times and timestamps as microseconds (rounded down), `f` of each. `None` for other types.
fn moments(column: &ArrayRef, f: impl Fn(i64) -> i32) -> Option<Int32Array> {
    use DataType as T;
    use TimeUnit as U;
    // Seconds beyond the range of microseconds wrap, as multiplication does in the JVM.
    Some(match column.data_type() {
        T::Time32(U::Second) => longs::<Time32SecondType>(column, |v| f(v.wrapping_mul(1_000_000))),
        T::Time32(_) => longs::<Time32MillisecondType>(column, |v| f(v.wrapping_mul(1_000))),
        T::Time64(U::Nanosecond) => longs::<Time64NanosecondType>(column, |v| f(v.div_euclid(1_000))),
        T::Time64(_) => longs::<Time64MicrosecondType>(column, f),
        T::Timestamp(U::Second, _) => longs::<TimestampSecondType>(column, |v| f(v.wrapping_mul(1_000_000))),
        T::Timestamp(U::Millisecond, _) => {
            longs::<TimestampMillisecondType>(column, |v| f(v.wrapping_mul(1_000)))
        }
        T::Timestamp(U::Microsecond, _) => longs::<TimestampMicrosecondType>(column, f),
        T::Timestamp(U::Nanosecond, _) => {
            longs::<TimestampNanosecondType>(column, |v| f(v.div_euclid(1_000)))
        }
        _ => return None,
    })
}

/// Iceberg spec, Appendix B.
fn iceberg(column: &ArrayRef) -> Result<Int32Array> {
    use DataType as T;
    let long = |v: i64| murmur3(&v.to_le_bytes(), 0);
    Ok(match column.data_type() {
        T::Int8 => longs::<Int8Type>(column, long),
        T::Int16 => longs::<Int16Type>(column, long),
        T::Int32 => longs::<Int32Type>(column, long),
        T::Int64 => longs::<Int64Type>(column, long),
        T::UInt8 => longs::<UInt8Type>(column, long),
        T::UInt16 => longs::<UInt16Type>(column, long),
        T::UInt32 => longs::<UInt32Type>(column, long),
        T::UInt64 => column
            .as_primitive::<UInt64Type>()
            .unary(|v| long(v.cast_signed())),
        T::Date32 => longs::<Date32Type>(column, long),
        T::Date64 => longs::<Date64Type>(column, |ms| long(ms.div_euclid(86_400_000))),
        T::Decimal128(..) => column
            .as_primitive::<Decimal128Type>()
            .unary(|v| murmur3(shortest(&v.to_be_bytes()), 0)),
        other => bytes(column, |v| murmur3(v, 0))
            .or_else(|| moments(column, long))
            .ok_or_else(|| not_hashable(other))?,
    })
}

/// Spark's `hash()` of one column.
fn spark(column: &ArrayRef) -> Result<Int32Array> {
    use DataType as T;
    let int = |v: i64| spark_int(v as i32);
    Ok(match column.data_type() {
        T::Boolean => column
            .as_boolean()
            .iter()
            .map(|v| v.map(|v| spark_int(i32::from(v))))
            .collect(),
        T::Int8 => longs::<Int8Type>(column, int),
        T::Int16 => longs::<Int16Type>(column, int),
        T::Int32 => longs::<Int32Type>(column, int),
        T::UInt8 => longs::<UInt8Type>(column, int),
        T::UInt16 => longs::<UInt16Type>(column, int),
        T::Int64 => longs::<Int64Type>(column, spark_long),
        T::UInt32 => longs::<UInt32Type>(column, spark_long),
        T::UInt64 => column
            .as_primitive::<UInt64Type>()
            .unary(|v| spark_long(v.cast_signed())),
        T::Date32 => longs::<Date32Type>(column, int),
        T::Date64 => longs::<Date64Type>(column, |ms| int(ms.div_euclid(86_400_000))),
        // Spark reads bits after turning -0.0 into 0.0 and every NaN into the canonical one.
        T::Float32 => column.as_primitive::<Float32Type>().unary(|v| {
            let v = if v == 0.0 { 0.0 } else { v };
            spark_int(if v.is_nan() {
                0x7fc0_0000
            } else {
                v.to_bits().cast_signed()
            })
        }),
        T::Float64 => column.as_primitive::<Float64Type>().unary(|v| {
            let v = if v == 0.0 { 0.0 } else { v };
            spark_long(if v.is_nan() {
                0x7ff8 << 48
            } else {
                v.to_bits().cast_signed()
            })
        }),
        T::Decimal128(precision, _) if *precision <= 18 => column
            .as_primitive::<Decimal128Type>()
            .unary(|v| spark_long(v as i64)),
        T::Decimal128(..) => column
            .as_primitive::<Decimal128Type>()
            .unary(|v| spark_bytes(shortest(&v.to_be_bytes()))),
        other => bytes(column, spark_bytes)
            .or_else(|| moments(column, spark_long))
            .ok_or_else(|| not_hashable(other))?,
    })
}

fn not_hashable(data_type: &DataType) -> Error {
    Error::invalid(format!("values of type {data_type} have no bucket"), "")
}

/// The shortest two's complement form of a big-endian number.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let fill = if bytes[0] & 0x80 == 0 { 0x00 } else { 0xff };
    let mut start = 0;
    while start < 15 && bytes[start] == fill && (bytes[start + 1] ^ fill) & 0x80 == 0 {
        start += 1;
    }
    &bytes[start..]
}

/// Scrambles four bytes before they enter the state.
#[inline]
fn scramble(block: u32) -> u32 {
    block
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}

/// Takes one scrambled block into the state.
#[inline]
fn absorb(state: u32, scrambled: u32) -> u32 {
    (state ^ scrambled)
        .rotate_left(13)
        .wrapping_mul(5)
        .wrapping_add(0xe654_6b64)
}

/// Ends a hash over so many bytes.
#[inline]
fn finish(state: u32, length: usize) -> i32 {
    let mut h = state ^ length as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    (h ^ (h >> 16)).cast_signed()
}

/// Absorbs whole little-endian blocks of four bytes; returns the state and the bytes left over.
#[inline]
fn absorb_blocks(bytes: &[u8], mut state: u32) -> (u32, &[u8]) {
    let (blocks, tail) = bytes.as_chunks::<4>();
    for block in blocks {
        state = absorb(state, scramble(u32::from_le_bytes(*block)));
    }
    (state, tail)
}

/// The standard 32-bit murmur3 (x86 variant).
fn murmur3(bytes: &[u8], seed: u32) -> i32 {
    let (mut state, tail) = absorb_blocks(bytes, seed);
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        state ^= scramble(u32::from_le_bytes(last));
    }
    finish(state, bytes.len())
}

/// Spark's hash of bytes: each byte of the tail counts as a block of its own, sign-extended.
fn spark_bytes(bytes: &[u8]) -> i32 {
    let (mut state, tail) = absorb_blocks(bytes, SPARK_SEED);
    for byte in tail {
        state = absorb(state, scramble(i32::from(byte.cast_signed()).cast_unsigned()));
    }
    finish(state, bytes.len())
}

fn spark_int(value: i32) -> i32 {
    finish(absorb(SPARK_SEED, scramble(value.cast_unsigned())), 4)
}

fn spark_long(value: i64) -> i32 {
    let bits = value.cast_unsigned();
    let low = absorb(SPARK_SEED, scramble(bits as u32));
    finish(absorb(low, scramble((bits >> 32) as u32)), 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_gives_the_values_that_the_iceberg_spec_publishes() {
        // Iceberg spec, Appendix B, "32-bit Hash Requirements".
        let long = |v: i64| murmur3(&v.to_le_bytes(), 0);
        assert_eq!(long(34), 2_017_239_379);
        assert_eq!(murmur3(shortest(&1420i128.to_be_bytes()), 0), -500_754_589);
        assert_eq!(long(17_486), -653_330_422); // date 2017-11-16
        assert_eq!(long(81_068_000_000), -662_762_989); // time 22:31:08
        assert_eq!(long(1_510_871_468_000_000), -2_047_944_441); // 2017-11-16T22:31:08
        assert_eq!(long(1_510_871_468_000_001), -1_207_196_810);
        assert_eq!(murmur3(b"iceberg", 0), 1_210_000_089);
        let uuid = 0xf79c_3e09_677c_4bbd_a479_3f34_9cb7_85e7_u128.to_be_bytes();
        assert_eq!(murmur3(&uuid, 0), 1_488_055_340);
        assert_eq!(murmur3(&[0, 1, 2, 3], 0), -188_683_207);
    }

    #[test]
    fn spark_hashes_agree_with_values_known_from_spark() {
        // SELECT hash(0), hash(1) in Spark.
        assert_eq!(spark_int(0), 933_211_791);
        assert_eq!(spark_int(1), -559_580_957);
        // The documentation of Spark's hash(): hash('Spark', array(123), 2) is -1321691492. Each value
        // is hashed with the hash so far as its seed; an array is hashed element by element.
        let chained =
            |seed: i32, v: i32| finish(absorb(seed.cast_unsigned(), scramble(v.cast_unsigned())), 4);
        assert_eq!(chained(chained(spark_bytes(b"Spark"), 123), 2), -1_321_691_492);
    }

    #[test]
    fn spark_hashes_agree_with_a_second_implementation() {
        // Computed by an independent implementation of Murmur3_x86_32 in Python, which also gives
        // the values of the test above.
        assert_eq!(spark_long(1), -1_712_319_331);
        assert_eq!(spark_long(-1), -939_490_007);
        assert_eq!(spark_int(-1), -1_604_776_387);
        assert_eq!(spark_bytes(b""), 142_593_372);
        assert_eq!(spark_bytes(b"abc"), 1_322_437_556);
        assert_eq!(spark_bytes(b"abcd"), -396_302_900);
        assert_eq!(spark_bytes("中".as_bytes()), -1_211_605_188); // tail bytes above 127 are negative
    }

    #[test]
    fn shortest_keeps_one_sign_bit() {
        for (value, expected) in [
            (0i128, &[0x00][..]),
            (-1, &[0xff]),
            (127, &[0x7f]),
            (128, &[0x00, 0x80]),
            (-128, &[0x80]),
            (-129, &[0xff, 0x7f]),
            (1420, &[0x05, 0x8c]),
        ] {
            assert_eq!(shortest(&value.to_be_bytes()), expected, "{value}");
        }
        assert_eq!(shortest(&i128::MIN.to_be_bytes()).len(), 16);
    }
}
