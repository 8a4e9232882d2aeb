//! Values: DataFusion scalars to Iceberg literals and bounds, and back.

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use iceberg::spec::{Datum, Literal, PrimitiveLiteral, PrimitiveType};

use super::types::primitive_to_arrow;
use crate::error::{Error, Result};

/// Characters (or bytes) that bounds of strings (or binaries) are cut to, Iceberg's default metrics mode.
const BOUND_LENGTH: usize = 16;

/// Which bound of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// No value is smaller.
    Lower,
    /// No value is larger.
    Upper,
}

/// A partition value as manifests store it; `None` for NULL.
///
/// # Errors
/// [`Error::Invalid`] when the value is not of the field's type.
pub(super) fn to_literal(value: &ScalarValue, ty: &PrimitiveType) -> Result<Option<Literal>> {
    use ScalarValue as S;
    let value = cast(value, &primitive_to_arrow(ty)?)?;
    if value.is_null() {
        return Ok(None);
    }
    Ok(Some(match (ty, value) {
        (PrimitiveType::Boolean, S::Boolean(Some(v))) => Literal::bool(v),
        (PrimitiveType::Int, S::Int32(Some(v))) => Literal::int(v),
        (PrimitiveType::Date, S::Date32(Some(v))) => Literal::date(v),
        (PrimitiveType::Long, S::Int64(Some(v))) => Literal::long(v),
        (PrimitiveType::Float, S::Float32(Some(v))) => Literal::float(v),
        (PrimitiveType::Double, S::Float64(Some(v))) => Literal::double(v),
        (
            _,
            S::Time64Microsecond(Some(v))
            | S::TimestampMicrosecond(Some(v), _)
            | S::TimestampNanosecond(Some(v), _),
        ) => Literal::long(v),
        (PrimitiveType::Decimal { .. }, S::Decimal128(Some(v), ..)) => Literal::decimal(v),
        (PrimitiveType::String, S::Utf8(Some(v))) => Literal::string(v),
        (PrimitiveType::Uuid, S::FixedSizeBinary(_, Some(v))) => {
            let bytes = <[u8; 16]>::try_from(v.as_slice()).map_err(|_| mismatch(ty))?;
            Literal::uuid(uuid::Uuid::from_bytes(bytes))
        }
        (PrimitiveType::Fixed(_), S::FixedSizeBinary(_, Some(v))) => Literal::fixed(v),
        (PrimitiveType::Binary, S::Binary(Some(v))) => Literal::binary(v),
        _ => return Err(mismatch(ty)),
    }))
}

/// A stored value as a scalar of the Arrow type `to`, which may be wider than the stored type (a
/// promoted column). `None` when it cannot be one.
pub(super) fn to_scalar(
    literal: &PrimitiveLiteral,
    ty: &PrimitiveType,
    to: &DataType,
) -> Option<ScalarValue> {
    use PrimitiveLiteral as L;
    use PrimitiveType as P;
    use ScalarValue as S;
    let zone = || Some("UTC".into());
    let value = match (ty, literal) {
        (P::Boolean, L::Boolean(v)) => S::Boolean(Some(*v)),
        (P::Int, L::Int(v)) => S::Int32(Some(*v)),
        (P::Date, L::Int(v)) => S::Date32(Some(*v)),
        (P::Long, L::Long(v)) => S::Int64(Some(*v)),
        (P::Float, L::Float(v)) => S::Float32(Some(v.0)),
        (P::Double, L::Double(v)) => S::Float64(Some(v.0)),
        (P::Time, L::Long(v)) => S::Time64Microsecond(Some(*v)),
        (P::Timestamp, L::Long(v)) => S::TimestampMicrosecond(Some(*v), None),
        (P::Timestamptz, L::Long(v)) => S::TimestampMicrosecond(Some(*v), zone()),
        (P::TimestampNs, L::Long(v)) => S::TimestampNanosecond(Some(*v), None),
        (P::TimestamptzNs, L::Long(v)) => S::TimestampNanosecond(Some(*v), zone()),
        (P::Decimal { precision, scale }, L::Int128(v)) => {
            let (precision, scale) = (u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?);
            S::Decimal128(Some(*v), precision, scale)
        }
        (P::String, L::String(v)) => S::Utf8(Some(v.clone())),
        (P::Uuid, L::UInt128(v)) => S::FixedSizeBinary(16, Some(v.to_be_bytes().to_vec())),
        (P::Fixed(length), L::Binary(v)) if *length == v.len() as u64 => {
            S::FixedSizeBinary(i32::try_from(*length).ok()?, Some(v.clone()))
        }
        (P::Binary, L::Binary(v)) => S::Binary(Some(v.clone())),
        _ => return None,
    };
    cast(&value, to).ok()
}

/// A partition value read from a manifest, of the field's own Arrow type; NULL stays NULL.
///
/// # Errors
/// [`Error::Invalid`] when the stored value is not of the field's type.
pub(super) fn partition_scalar(value: Option<&Literal>, ty: &PrimitiveType) -> Result<ScalarValue> {
    let arrow = primitive_to_arrow(ty)?;
    match value.map(Literal::as_primitive_literal) {
        None => Ok(ScalarValue::try_from(&arrow)?),
        Some(Some(literal)) => to_scalar(&literal, ty, &arrow).ok_or_else(|| mismatch(ty)),
        Some(None) => Err(mismatch(ty)),
    }
}

/// A bound in the single-value serialisation, decoded to the Arrow type `to`; `None` when it is not usable.
pub(super) fn decode_bound(bytes: &[u8], ty: &PrimitiveType, to: &DataType) -> Option<ScalarValue> {
    let datum = Datum::try_from_bytes(bytes, ty.clone()).ok()?;
    to_scalar(datum.literal(), ty, to)
}

/// Whether bounds of this type are values of the file, not cut ones.
pub(super) fn exact_bounds(ty: &PrimitiveType) -> bool {
    !matches!(
        ty,
        PrimitiveType::String | PrimitiveType::Binary | PrimitiveType::Fixed(_)
    )
}

/// A bound to be written: strings and binaries are cut, an upper one rounded up. `None` when there is
/// nothing to say (NULL, NaN, a string of the highest characters only).
///
/// # Errors
/// [`Error::Invalid`] when the value is not of the column's type.
pub(super) fn encode_bound(value: &ScalarValue, ty: &PrimitiveType, side: Side) -> Result<Option<Datum>> {
    let Some(literal) = to_literal(value, ty)?.and_then(|literal| literal.as_primitive_literal()) else {
        return Ok(None);
    };
    let bytes = match literal {
        _ if literal.is_nan() => return Ok(None),
        PrimitiveLiteral::String(text) => match cut_text(text, side) {
            Some(text) => text.into_bytes(),
            None => return Ok(None),
        },
        PrimitiveLiteral::Binary(bytes) if matches!(ty, PrimitiveType::Binary) => {
            match cut_bytes(bytes, side) {
                Some(bytes) => bytes,
                None => return Ok(None),
            }
        }
        PrimitiveLiteral::Binary(bytes) => bytes,
        PrimitiveLiteral::Boolean(v) => vec![u8::from(v)],
        PrimitiveLiteral::Int(v) => v.to_le_bytes().to_vec(),
        PrimitiveLiteral::Long(v) => v.to_le_bytes().to_vec(),
        PrimitiveLiteral::Float(v) => v.0.to_le_bytes().to_vec(),
        PrimitiveLiteral::Double(v) => v.0.to_le_bytes().to_vec(),
        PrimitiveLiteral::UInt128(v) => v.to_be_bytes().to_vec(),
        PrimitiveLiteral::Int128(v) => v.to_be_bytes().to_vec(),
        PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => return Ok(None),
    };
    Datum::try_from_bytes(&bytes, ty.clone())
        .map(Some)
        .map_err(|_| mismatch(ty))
}

fn cut_text(text: String, side: Side) -> Option<String> {
    let Some((end, _)) = text.char_indices().nth(BOUND_LENGTH) else {
        return Some(text);
    };
    let mut chars: Vec<char> = text[..end].chars().collect();
    if side == Side::Lower {
        return Some(chars.into_iter().collect());
    }
    while let Some(last) = chars.pop() {
        // Skips the surrogates, which are no characters.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn cut_bytes(mut bytes: Vec<u8>, side: Side) -> Option<Vec<u8>> {
    if bytes.len() <= BOUND_LENGTH {
        return Some(bytes);
    }
    bytes.truncate(BOUND_LENGTH);
    if side == Side::Lower {
        return Some(bytes);
    }
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

fn cast(value: &ScalarValue, to: &DataType) -> Result<ScalarValue> {
    if value.data_type() == *to {
        Ok(value.clone())
    } else {
        Ok(value.cast_to(to)?)
    }
}

fn mismatch(ty: &PrimitiveType) -> Error {
    Error::invalid(format!("a value is not of type {ty}"), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(value: ScalarValue, ty: PrimitiveType) -> (Option<ScalarValue>, Option<ScalarValue>) {
        let arrow = primitive_to_arrow(&ty).unwrap();
        let one = |side| {
            let datum = encode_bound(&value, &ty, side).unwrap()?;
            decode_bound(&datum.to_bytes().unwrap(), &ty, &arrow)
        };
        (one(Side::Lower), one(Side::Upper))
    }

    #[test]
    fn values_come_back_from_bounds_and_partitions() {
        use PrimitiveType as P;
        use ScalarValue as S;
        let decimal = P::Decimal {
            precision: 9,
            scale: 2,
        };
        for (value, ty) in [
            (S::Boolean(Some(true)), P::Boolean),
            (S::Int32(Some(-5)), P::Int),
            (S::Int64(Some(i64::MIN)), P::Long),
            (S::Float32(Some(-1.5)), P::Float),
            (S::Float64(Some(f64::INFINITY)), P::Double),
            (S::Decimal128(Some(-12345), 9, 2), decimal.clone()),
            (S::Decimal128(Some(127), 9, 2), decimal),
            (S::Date32(Some(-1)), P::Date),
            (S::Time64Microsecond(Some(7)), P::Time),
            (S::TimestampMicrosecond(Some(-7), None), P::Timestamp),
            (
                S::TimestampMicrosecond(Some(7), Some("UTC".into())),
                P::Timestamptz,
            ),
            (S::TimestampNanosecond(Some(7), None), P::TimestampNs),
            (S::Utf8(Some("åland".into())), P::String),
            (S::FixedSizeBinary(16, Some((0..16).collect())), P::Uuid),
            (S::FixedSizeBinary(3, Some(vec![255, 0, 1])), P::Fixed(3)),
            (S::Binary(Some(vec![255, 0, 1])), P::Binary),
        ] {
            assert_eq!(
                bounds(value.clone(), ty.clone()),
                (Some(value.clone()), Some(value.clone()))
            );
            let literal = to_literal(&value, &ty).unwrap();
            assert_eq!(partition_scalar(literal.as_ref(), &ty).unwrap(), value);
            let null = ScalarValue::try_from(&value.data_type()).unwrap();
            assert_eq!(to_literal(&null, &ty).unwrap(), None);
            assert_eq!(partition_scalar(None, &ty).unwrap(), null);
        }
    }

    #[test]
    fn long_strings_and_binaries_are_cut_outwards() {
        let text = |s: &str| ScalarValue::Utf8(Some(s.into()));
        let (lower, upper) = bounds(text("abcdefghijklmnopqrstuvwxyz"), PrimitiveType::String);
        assert_eq!(lower, Some(text("abcdefghijklmnop")));
        assert_eq!(upper, Some(text("abcdefghijklmnoq")));
        let highest = "\u{10FFFF}".repeat(17);
        assert_eq!(bounds(text(&highest), PrimitiveType::String).1, None);
        let before_surrogates = format!("{}\u{D7FF}x", "a".repeat(15));
        let upper = bounds(text(&before_surrogates), PrimitiveType::String).1;
        assert_eq!(upper, Some(text(&format!("{}\u{E000}", "a".repeat(15)))));
        let mut bytes = vec![1; 15];
        bytes.extend([255, 9]);
        let (lower, upper) = bounds(ScalarValue::Binary(Some(bytes.clone())), PrimitiveType::Binary);
        assert_eq!(lower, Some(ScalarValue::Binary(Some(bytes[..16].to_vec()))));
        let mut rounded = vec![1; 14];
        rounded.push(2);
        assert_eq!(upper, Some(ScalarValue::Binary(Some(rounded))));
    }

    #[test]
    fn bounds_of_a_promoted_column_are_read_in_its_new_type() {
        let stored = 5_i32.to_le_bytes();
        let read = decode_bound(&stored, &PrimitiveType::Int, &DataType::Int64);
        assert_eq!(read, Some(ScalarValue::Int64(Some(5))));
        assert_eq!(
            decode_bound(&stored, &PrimitiveType::Long, &DataType::Int64),
            read
        );
        assert_eq!(
            decode_bound(&[1, 2], &PrimitiveType::Long, &DataType::Int64),
            None
        );
    }

    #[test]
    fn not_a_number_is_no_bound() {
        let nan = ScalarValue::Float64(Some(f64::NAN));
        assert_eq!(bounds(nan, PrimitiveType::Double), (None, None));
    }
}
