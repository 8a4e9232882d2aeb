//! Partition columns of a loaded table; their values as text (Delta protocol, "Partition Value Serialization").

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::scalar::ScalarValue;

use super::hidden::{self, hidden};
use super::schema::Column;
use crate::error::{Error, Result};
use crate::model::{PartitionField, Transform};

/// One partition column.
#[derive(Debug, Clone)]
pub(super) struct PartitionColumn {
    /// What the rest of the crate sees.
    pub(super) field: PartitionField,
    /// Its key in `partitionValues`.
    pub(super) physical: String,
    /// The type of its values, as they are stored.
    pub(super) data_type: DataType,
}

impl PartitionColumn {
    /// Reads the value of a file.
    ///
    /// # Errors
    /// As [`parse`].
    pub(super) fn parse(&self, text: Option<&str>) -> Result<ScalarValue> {
        let value = parse(text, &self.data_type, &self.field.name)?;
        hidden::counted(&self.field.transform, value, text)
    }

    /// The value of a file as text; `None` is NULL.
    ///
    /// # Errors
    /// As [`render`].
    pub(super) fn render(&self, value: &ScalarValue) -> Result<Option<String>> {
        if let (ScalarValue::Decimal128(Some(unscaled), ..), DataType::Decimal128(digits, _)) =
            (value, &self.data_type)
            && unscaled.unsigned_abs() >= 10_u128.pow((*digits).into())
        {
            return Err(Error::unsupported(
                format!(
                    "a value of {} is rounded down to one of more than {digits} digits",
                    self.field.source
                ),
                "leave the row out, or give the column one digit more",
            ));
        }
        match hidden::text_of(&self.field.transform, value, &self.data_type) {
            Some(Some(text)) => Ok(Some(text)),
            Some(None) => Err(Error::unsupported(
                format!(
                    "{} of a value of {} is too far from 1970 to be recorded",
                    self.field.transform, self.field.source
                ),
                "leave the row out, or partition by another column",
            )),
            None => render(value, &self.field.name),
        }
    }
}

/// The partition columns of a loaded table, in order.
///
/// # Errors
/// [`Error::Invalid`] when a partition column is not a column of the table.
pub(super) fn load(columns: &[Column], partition_columns: &[String]) -> Result<Vec<PartitionColumn>> {
    let find = |name: &str| columns.iter().find(|column| column.field.name() == name);
    partition_columns
        .iter()
        .map(|name| {
            let column = find(name).ok_or_else(|| {
                Error::invalid(
                    format!("the partition column {name} is not a column of the table"),
                    "metaData of the Delta log",
                )
            })?;
            let (transform, source) = hidden(column, columns).unwrap_or((Transform::Identity, column));
            Ok(PartitionColumn {
                field: PartitionField {
                    source: source.field.name().clone(),
                    transform,
                    name: name.clone(),
                    field_id: 0,
                    zone_slack_days: hidden::slack(&transform, source.field.data_type()),
                },
                physical: column.physical.clone(),
                data_type: column.field.data_type().clone(),
            })
        })
        .collect()
}

/// A partition value as text; `None` is NULL.
///
/// # Errors
/// [`Error::Unsupported`] for a type that partition values cannot have, and for an empty text: the
/// protocol reads it as NULL, so that the row would come back as another one.
fn render(value: &ScalarValue, column: &str) -> Result<Option<String>> {
    if value.is_null() {
        return Ok(None);
    }
    let out_of_range = || {
        Error::invalid(
            format!("the partition value {value} of {column} is out of range"),
            "",
        )
    };
    Ok(Some(match value {
        ScalarValue::Utf8(Some(v)) | ScalarValue::LargeUtf8(Some(v)) | ScalarValue::Utf8View(Some(v)) => {
            if v.is_empty() {
                return Err(Error::unsupported(
                    format!("Delta cannot tell an empty text in partition column {column} from NULL"),
                    "write NULL or another text, or partition by another column",
                ));
            }
            v.clone()
        }
        ScalarValue::Date32(Some(days)) => date(*days).ok_or_else(out_of_range)?.to_string(),
        ScalarValue::TimestampMicrosecond(Some(micros), zone) => {
            let instant = DateTime::from_timestamp_micros(*micros).ok_or_else(out_of_range)?;
            match zone {
                Some(_) => instant.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
                None => instant.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
            }
        }
        ScalarValue::Dictionary(_, inner) => return render(inner, column),
        ScalarValue::Boolean(_)
        | ScalarValue::Int8(_)
        | ScalarValue::Int16(_)
        | ScalarValue::Int32(_)
        | ScalarValue::Int64(_)
        | ScalarValue::Float32(_)
        | ScalarValue::Float64(_) => value.to_string(),
        ScalarValue::Decimal128(Some(unscaled), _, scale) => decimal_text(*unscaled, *scale),
        other => {
            return Err(Error::unsupported(
                format!(
                    "partition column {column} has the type {}, which Delta cannot partition by",
                    other.data_type()
                ),
                "partition by another column",
            ));
        }
    }))
}

/// Reads a partition value.
///
/// # Errors
/// [`Error::Invalid`] when the text is not a value of the type.
fn parse(text: Option<&str>, data_type: &DataType, column: &str) -> Result<ScalarValue> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(ScalarValue::try_from(data_type)?);
    };
    let broken = || {
        Error::invalid(
            format!("the partition value {text:?} of column {column} is not a {data_type}"),
            "the Delta log",
        )
    };
    Ok(match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(day(text).ok_or_else(broken)?)),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let (micros, _) = instant(text).ok_or_else(broken)?;
            ScalarValue::TimestampMicrosecond(Some(micros), zone.clone())
        }
        DataType::Binary => ScalarValue::Binary(Some(unescape(text))),
        DataType::Boolean => ScalarValue::Boolean(Some(text.parse().map_err(|_| broken())?)),
        other => ScalarValue::try_from_string(text.to_owned(), other).map_err(|_| broken())?,
    })
}

/// Microseconds since 1970 UTC of an ISO 8601 or SQL timestamp (no zone means UTC), and how many
/// digits of the second's fraction the text gives.
pub(super) fn instant(text: &str) -> Option<(i64, usize)> {
    let digits = text
        .split_once('.')
        .map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    if let Ok(zoned) = DateTime::parse_from_rfc3339(text) {
        return Some((zoned.timestamp_micros(), digits));
    }
    for format in [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M:%S%.fZ",
    ] {
        if let Ok(naive) = NaiveDateTime::parse_from_str(text, format) {
            return Some((naive.and_utc().timestamp_micros(), digits));
        }
    }
    let day: NaiveDate = text.parse().ok()?;
    Some((i64::from(days(day)?) * 86_400_000_000, digits))
}

/// Days since 1970-01-01 of a date (`2013-01-01`, `-0001-12-31`, `+10000-01-01`), or of an instant's.
pub(super) fn day(text: &str) -> Option<i32> {
    days(text.split(['T', ' ']).next()?.parse().ok()?)
}

/// The date that is so many days after 1970-01-01.
pub(super) fn date(days: i32) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(days.checked_add(719_163)?)
}

/// Days since 1970-01-01.
fn days(date: NaiveDate) -> Option<i32> {
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// A decimal in plain notation: `-0.05`, `12.30`.
pub(super) fn decimal_text(unscaled: i128, scale: i8) -> String {
    let digits = unscaled.unsigned_abs().to_string();
    let scale = usize::try_from(scale).unwrap_or(0);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Binary partition values are written as characters, control ones as `\u0001`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\u") {
        bytes.extend(&rest.as_bytes()[..at]);
        let code = rest
            .get(at + 2..at + 6)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 6..];
            }
            None => {
                bytes.extend(b"\\u");
                rest = &rest[at + 2..];
            }
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_through_text() {
        let values = [
            ScalarValue::Utf8(Some("a/b=c d".into())),
            ScalarValue::Utf8(None),
            ScalarValue::Int32(Some(-7)),
            ScalarValue::Int64(Some(i64::MIN)),
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Float64(Some(0.1)),
            ScalarValue::Date32(Some(-1)),
            ScalarValue::Date32(Some(15_706)),
            // 31 December of the year -1, 1 January of the year 10,000.
            ScalarValue::Date32(Some(-719_529)),
            ScalarValue::Date32(Some(2_932_897)),
            ScalarValue::TimestampMicrosecond(Some(-1), Some("UTC".into())),
            ScalarValue::TimestampMicrosecond(Some(1_357_034_400_000_000), None),
            ScalarValue::Decimal128(Some(-5), 10, 2),
            ScalarValue::Decimal128(Some(12_345_678_901_234_567_890_123_456_789), 38, 4),
        ];
        for value in values {
            let text = render(&value, "c").unwrap();
            assert_eq!(
                parse(text.as_deref(), &value.data_type(), "c").unwrap(),
                value,
                "{text:?}"
            );
        }
        assert_eq!(
            render(&ScalarValue::Date32(Some(15_706)), "c").unwrap().unwrap(),
            "2013-01-01"
        );
        // The protocol writes NULL as an empty text: an empty text would come back as NULL.
        assert!(render(&ScalarValue::Utf8(Some(String::new())), "c").is_err());
    }

    #[test]
    fn a_value_of_another_type_names_the_column() {
        let error = parse(Some("x"), &DataType::Int32, "region").unwrap_err();
        assert!(error.to_string().contains("region"), "{error}");
        assert!(parse(Some("2013-13-01"), &DataType::Date32, "d").is_err());
        let ntz = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert!(parse(Some("yesterday"), &ntz, "t").is_err());
    }

    #[test]
    fn zones_and_spellings_of_an_instant_agree() {
        let same = [
            "2013-01-01T05:00:00Z",
            "2013-01-01T00:00:00-05:00",
            "2013-01-01 05:00:00",
            "2013-01-01T05:00:00.000",
        ];
        for text in same {
            assert_eq!(instant(text).unwrap().0, 1_357_016_400_000_000, "{text}");
        }
        assert_eq!(instant("2013-01-01T05:00:00.123456Z").unwrap().1, 6);
        assert_eq!(instant("2013-01-01").unwrap().0, 1_356_998_400_000_000);
    }
}
