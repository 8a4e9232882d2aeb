//! Partition values as people and folders spell them.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use datafusion::scalar::ScalarValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{PartitionField, Transform};

/// Everything but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Longest folder name, in bytes. File systems stop at 255; metadata, not the name, holds the value.
const MAX_FOLDER: usize = 200;

/// The folder of a partition, each name and value percent-encoded: `time_hour_day=2013-01-01/carrier_bucket=3`.
/// Empty for an unpartitioned table. Very long values are cut: the folder only tells people where
/// they are, the values of a file are in the metadata.
pub fn partition_folder(fields: &[PartitionField], values: &[ScalarValue]) -> String {
    let mut folder = String::new();
    for (field, value) in fields.iter().zip(values) {
        if !folder.is_empty() {
            folder.push('/');
        }
        let start = folder.len();
        folder.extend(utf8_percent_encode(&field.name, ESCAPED));
        folder.push('=');
        folder.extend(utf8_percent_encode(&field.text(value), ESCAPED));
        if folder.len() - start > MAX_FOLDER {
            folder.truncate(start + MAX_FOLDER);
            // Never end inside an escape.
            if let Some(percent) = folder[folder.len() - 2..].find('%') {
                folder.truncate(folder.len() - 2 + percent);
            }
        }
    }
    folder
}

/// See [`PartitionField::text`].
pub(super) fn text(transform: &Transform, value: &ScalarValue) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    let count = match value {
        ScalarValue::Int32(Some(v)) | ScalarValue::Date32(Some(v)) => Some(i64::from(*v)),
        _ => None,
    };
    match (transform, count) {
        (Transform::Year, Some(n)) => format!("{:04}", 1970 + n),
        (Transform::Month, Some(n)) => format!("{:04}-{:02}", 1970 + n.div_euclid(12), n.rem_euclid(12) + 1),
        (Transform::Day, Some(n)) => date(n),
        (Transform::Hour, Some(n)) => format!("{}-{:02}", date(n.div_euclid(24)), n.rem_euclid(24)),
        _ => plain(value),
    }
}

fn date(days: i64) -> String {
    NaiveDate::default()
        .checked_add_signed(TimeDelta::days(days))
        .map_or_else(|| days.to_string(), |d| d.format("%Y-%m-%d").to_string())
}

/// A value of the source's own type.
fn plain(value: &ScalarValue) -> String {
    use ScalarValue as S;
    match value {
        S::Utf8(Some(v)) | S::LargeUtf8(Some(v)) | S::Utf8View(Some(v)) => v.clone(),
        S::Binary(Some(v)) | S::LargeBinary(Some(v)) | S::BinaryView(Some(v)) => hex(v),
        S::FixedSizeBinary(_, Some(v)) => hex(v),
        S::Date32(Some(days)) => date(i64::from(*days)),
        S::Time64Microsecond(Some(micros)) => time(*micros),
        S::Time64Nanosecond(Some(nanos)) => time(nanos.div_euclid(1_000)),
        S::TimestampSecond(Some(v), zone) => timestamp(v.checked_mul(1_000_000_000), zone.is_some(), *v),
        S::TimestampMillisecond(Some(v), zone) => timestamp(v.checked_mul(1_000_000), zone.is_some(), *v),
        S::TimestampMicrosecond(Some(v), zone) => timestamp(v.checked_mul(1_000), zone.is_some(), *v),
        S::TimestampNanosecond(Some(v), zone) => timestamp(Some(*v), zone.is_some(), *v),
        other => other.to_string(),
    }
}

fn time(micros: i64) -> String {
    let seconds = u32::try_from(micros.div_euclid(1_000_000)).unwrap_or(u32::MAX);
    let nanos = (micros.rem_euclid(1_000_000) * 1_000) as u32;
    NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)
        .map_or_else(|| micros.to_string(), |t| t.format("%H:%M:%S%.f").to_string())
}

fn timestamp(nanos: Option<i64>, zoned: bool, raw: i64) -> String {
    let Some(nanos) = nanos else {
        return raw.to_string();
    };
    let text = DateTime::from_timestamp_nanos(nanos)
        .format("%Y-%m-%dT%H:%M:%S%.f")
        .to_string();
    if zoned { text + "+00:00" } else { text }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
