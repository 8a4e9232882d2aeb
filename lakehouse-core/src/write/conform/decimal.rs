//! Decimals from text, exactly: nothing is rounded.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, LargeStringArray};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};

/// NULL where the text is no decimal number of this precision and scale.
pub(super) fn parse(text: &LargeStringArray, precision: u8, scale: i8) -> ArrayRef {
    let limit = 10i128.checked_pow(u32::from(precision.min(DECIMAL128_MAX_PRECISION)));
    let values: Decimal128Array = text
        .iter()
        .map(|v| {
            v.and_then(|v| unscaled(v.trim(), scale))
                .filter(|v| limit.is_none_or(|l| v.abs() < l))
        })
        .collect();
    Arc::new(values.with_data_type(DataType::Decimal128(precision, scale)))
}

/// `-12.30` and `-1.23e1` with scale 2 are -1230. `None` if it is no number or has more digits.
fn unscaled(text: &str, scale: i8) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    // value * 10^shift is the unscaled value.
    let shift = i64::from(scale) + i64::from(exponent) - fraction.len() as i64;
    if value == 0 {
        return Some(0);
    }
    shifted(value, shift).map(|v| if negative { -v } else { v })
}

fn shifted(value: i128, shift: i64) -> Option<i128> {
    let power = 10i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    if shift >= 0 {
        value.checked_mul(power)
    } else {
        (value % power == 0).then(|| value / power)
    }
}
