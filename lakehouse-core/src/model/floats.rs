//! Numbers of floating point as they are compared: as in Spark SQL ("NaN Semantics"), 0.0 and -0.0 are one value, NaN is
//! one value whatever its sign and bits, equal to itself and greater than every other.
//!
//! The engine compares in IEEE 754's total order, in which a NaN with the sign bit set (what x86 makes of 0.0 / 0.0) is
//! less than every number, and it joins by bits. What is compared is spelled in one way before, and then both agree.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::scalar::ScalarValue;

/// The name of the function that spells numbers so in expressions. Bounds know no NaN and have zeros of either sign: who
/// judges by them looks through it.
pub const AS_COMPARED: &str = "as_compared";

/// Whether values of this type are spelled in several ways.
pub fn is_spelled_in_several_ways(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// The values in the one spelling that they are compared in; those of other types as they are.
pub fn as_compared(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float32 => {
            let numbers = values.as_primitive::<Float32Type>();
            if numbers
                .values()
                .iter()
                .any(|x| single(*x).to_bits() != x.to_bits())
            {
                return Arc::new(numbers.unary::<_, Float32Type>(single));
            }
        }
        DataType::Float64 => {
            let numbers = values.as_primitive::<Float64Type>();
            if numbers
                .values()
                .iter()
                .any(|x| double(*x).to_bits() != x.to_bits())
            {
                return Arc::new(numbers.unary::<_, Float64Type>(double));
            }
        }
        _ => {}
    }
    Arc::clone(values)
}

/// The same for one value.
pub fn value_as_compared(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float32(Some(x)) => ScalarValue::Float32(Some(single(x))),
        ScalarValue::Float64(Some(x)) => ScalarValue::Float64(Some(double(x))),
        other => other,
    }
}

// Adding zero leaves every number but -0.0 as it is.
fn single(x: f32) -> f32 {
    if x.is_nan() { f32::NAN } else { x + 0.0 }
}

fn double(x: f64) -> f64 {
    if x.is_nan() { f64::NAN } else { x + 0.0 }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;

    use super::*;

    #[test]
    fn zeros_and_nans_have_one_spelling_and_all_else_stays() {
        let other_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        let given: ArrayRef = Arc::new(Float64Array::from(vec![
            Some(-0.0),
            None,
            Some(-f64::NAN),
            Some(other_nan),
            Some(-1.5),
            Some(f64::NEG_INFINITY),
        ]));
        let bits = |values: &ArrayRef| -> Vec<Option<u64>> {
            let numbers = values.as_primitive::<Float64Type>();
            numbers.iter().map(|x| x.map(f64::to_bits)).collect()
        };
        let nan = Some(f64::NAN.to_bits());
        let expected = [
            Some(0),
            None,
            nan,
            nan,
            Some((-1.5_f64).to_bits()),
            Some(f64::NEG_INFINITY.to_bits()),
        ];
        let compared = as_compared(&given);
        assert_eq!(bits(&compared), expected);
        assert_eq!(bits(&as_compared(&given.slice(2, 3))), expected[2..5]);
        assert!(Arc::ptr_eq(&as_compared(&compared), &compared));
    }
}
