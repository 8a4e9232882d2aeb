//! Per-file statistics: Delta's JSON and ours (Delta protocol, "Per-file Statistics").

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono::DateTime;
use datafusion::scalar::ScalarValue;
use serde_json::Value;

use super::clustering;
use super::partitions::{date, day, decimal_text, instant};
use crate::model::schema::{ambiguous_paths, physical_name};
use crate::model::{ColumnStats, DataFile};

/// Characters of a string that statistics keep, as Spark does.
const STRING_PREFIX: usize = 32;

/// Leaf columns that get statistics where the table does not say (`delta.dataSkippingNumIndexedCols`).
pub(super) const INDEXED_COLUMNS: i64 = 32;

/// What the statistics of a file say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Statistics {
    /// Rows of the file, masked ones included.
    pub(super) rows: Option<u64>,
    /// By column name; `a.b` inside structs.
    pub(super) columns: BTreeMap<String, ColumnStats>,
}

/// Reads the `stats` of an `add`, of the columns that are `wanted` by their names. Statistics that cannot be read are as
/// good as none: they only help.
pub(super) fn parse(
    text: Option<&str>,
    data_columns: &[&Field],
    wanted: &dyn Fn(&str) -> bool,
) -> Statistics {
    let Some(value) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Statistics::default();
    };
    let mut found = Statistics {
        rows: value["numRecords"].as_u64(),
        columns: BTreeMap::new(),
    };
    let tight = value["tightBounds"].as_bool().unwrap_or(true);
    let sources = [&value["minValues"], &value["maxValues"], &value["nullCount"]];
    for field in data_columns {
        read_column(field, sources, "", tight, wanted, &mut found);
    }
    if !found.columns.is_empty() {
        // More than one column has these paths: they say nothing.
        for path in ambiguous_paths(data_columns) {
            found.columns.remove(&path);
        }
    }
    found
}

fn read_column(
    field: &Field,
    within: [&Value; 3],
    parent: &str,
    tight: bool,
    wanted: &dyn Fn(&str) -> bool,
    found: &mut Statistics,
) {
    let physical = physical_name(field);
    let [min, max, nulls] = within.map(|value| &value[physical]);
    let name = if parent.is_empty() {
        field.name().clone()
    } else {
        format!("{parent}.{}", field.name())
    };
    if let DataType::Struct(children) = field.data_type() {
        for child in children {
            read_column(child, [min, max, nulls], &name, tight, wanted, found);
        }
        return;
    }
    if !wanted(&name) {
        return;
    }
    let low = bound(min, field.data_type(), false);
    let high = bound(max, field.data_type(), true);
    let exact = tight && low.as_ref().is_some_and(|(_, e)| *e) && high.as_ref().is_some_and(|(_, e)| *e);
    let stats = ColumnStats {
        values: found.rows,
        nulls: nulls.as_u64(),
        nans: None,
        min: low.map(|(value, _)| value),
        max: high.map(|(value, _)| value),
        exact,
        bytes: None,
    };
    if stats.nulls.is_some() || stats.min.is_some() || stats.max.is_some() {
        found.columns.insert(name, stats);
    }
}

/// A bound as a value that is certainly not inside the data's range, and whether it is the very
/// smallest or largest value.
pub(super) fn bound(value: &Value, data_type: &DataType, upper: bool) -> Option<(ScalarValue, bool)> {
    let integer = || value.as_i64();
    Some(match data_type {
        DataType::Boolean => (ScalarValue::Boolean(Some(value.as_bool()?)), true),
        DataType::Int8 => (ScalarValue::Int8(Some(integer()?.try_into().ok()?)), true),
        DataType::Int16 => (ScalarValue::Int16(Some(integer()?.try_into().ok()?)), true),
        DataType::Int32 => (ScalarValue::Int32(Some(integer()?.try_into().ok()?)), true),
        DataType::Int64 => (ScalarValue::Int64(Some(integer()?)), true),
        // Writers leave NaN out of the bounds, so that they never tell the largest value for certain.
        DataType::Float32 => {
            let number = value.as_f64()?;
            let mut single = number as f32;
            if upper && f64::from(single) < number {
                single = single.next_up();
            } else if !upper && f64::from(single) > number {
                single = single.next_down();
            }
            (ScalarValue::Float32(Some(single)), false)
        }
        // A file that is older than the column's width has bounds of single precision, in as few digits as tell those
        // apart: `0.1` may stand for 0.100000001490116.
        DataType::Float64 => {
            let number = value.as_f64()?;
            let single = f64::from(number as f32);
            let outer = if upper {
                number.max(single)
            } else {
                number.min(single)
            };
            let bound = if outer.is_finite() { outer } else { number };
            (ScalarValue::Float64(Some(bound)), false)
        }
        DataType::Utf8 => (ScalarValue::Utf8(Some(value.as_str()?.to_owned())), false),
        DataType::Date32 => {
            let day = day(value.as_str()?)?;
            (ScalarValue::Date32(Some(day)), true)
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let (micros, digits) = instant(value.as_str()?)?;
            // Most writers cut timestamps after the millisecond.
            let widened = if upper && digits <= 3 {
                micros.checked_add(999)?
            } else {
                micros
            };
            (
                ScalarValue::TimestampMicrosecond(Some(widened), zone.clone()),
                digits >= 6,
            )
        }
        DataType::Decimal128(precision, scale) => {
            let (unscaled, exact) = decimal(value, *precision, *scale, upper)?;
            (ScalarValue::Decimal128(Some(unscaled), *precision, *scale), exact)
        }
        _ => return None,
    })
}

/// A decimal bound. JSON numbers are read as doubles, which hold 15 digits for certain; beyond that the
/// bound is moved outwards by more than the double can be off.
fn decimal(value: &Value, precision: u8, scale: i8, upper: bool) -> Option<(i128, bool)> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(number) => {
            let factor = 10f64.powi(i32::from(scale));
            let unscaled = (number.as_f64()? * factor).round();
            if unscaled.abs() < 1e15 {
                return Some((unscaled as i128, true));
            }
            let slack = (unscaled.abs() * 4.0 * f64::EPSILON).ceil() as i128 + 1;
            let limit = 10i128.checked_pow(u32::from(precision))? - 1;
            let moved = unscaled as i128 + if upper { slack } else { -slack };
            return Some((moved.clamp(-limit, limit), false));
        }
        _ => return None,
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.as_str()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(scale).ok()?;
    if fraction.len() > scale || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let unscaled: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    Some((sign * unscaled, true))
}

/// Which leaf columns get statistics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The first so many; all, if it is negative.
    pub(super) limit: i64,
    /// These wherever they are, by the names that files have.
    pub(super) always: &'a [clustering::Path],
}

/// The `stats` of an `add` of this file. `tight` is false once rows of the file are masked.
pub(super) fn render(file: &DataFile, data_columns: &[&Field], wanted: Wanted<'_>) -> String {
    let mut left = Left {
        count: usize::try_from(wanted.limit).unwrap_or(usize::MAX),
        always: wanted.always,
        path: Vec::new(),
    };
    let mut parts = [String::new(), String::new(), String::new()];
    let unknown = ambiguous_paths(data_columns);
    let told;
    let file = match unknown.is_empty() {
        true => file,
        false => {
            let mut known = file.clone();
            known.columns.retain(|path, _| !unknown.contains(path));
            told = known;
            &told
        }
    };
    for field in data_columns {
        write_column(field, "", file, &mut left, &mut parts);
    }
    let [min, max, nulls] = parts;
    format!(
        "{{\"numRecords\":{},\"tightBounds\":{},\"minValues\":{{{min}}},\"maxValues\":{{{max}}},\"nullCount\":{{{nulls}}}}}",
        file.rows,
        file.masks.is_empty(),
    )
}

/// How many more leaf columns get statistics, and where the walk over the columns is.
struct Left<'a, 'f> {
    count: usize,
    always: &'a [clustering::Path],
    path: Vec<&'f str>,
}

impl Left<'_, '_> {
    /// Whether the leaf at hand gets statistics.
    fn take(&mut self) -> bool {
        let counted = self.count > 0;
        self.count = self.count.saturating_sub(1);
        counted || self.always.iter().any(|path| *path == self.path)
    }
}

fn write_column<'f>(
    field: &'f Field,
    parent: &str,
    file: &DataFile,
    left: &mut Left<'_, 'f>,
    parts: &mut [String; 3],
) {
    left.path.push(physical_name(field));
    let values = column_values(field, parent, file, left);
    left.path.pop();
    for (part, value) in parts.iter_mut().zip(values) {
        let Some(value) = value else { continue };
        if !part.is_empty() {
            part.push(',');
        }
        part.push_str(&Value::from(physical_name(field)).to_string());
        part.push(':');
        part.push_str(&value);
    }
}

/// Bounds and number of NULLs as JSON texts, as far as they are kept.
fn column_values<'f>(
    field: &'f Field,
    parent: &str,
    file: &DataFile,
    left: &mut Left<'_, 'f>,
) -> [Option<String>; 3] {
    let name = if parent.is_empty() {
        field.name().clone()
    } else {
        format!("{parent}.{}", field.name())
    };
    if let DataType::Struct(children) = field.data_type() {
        let mut inner = [String::new(), String::new(), String::new()];
        for child in children {
            write_column(child, &name, file, left, &mut inner);
        }
        return inner.map(|text| (!text.is_empty()).then(|| format!("{{{text}}}")));
    }
    if !left.take() {
        return [None, None, None];
    }
    match file.columns.get(&name) {
        None => [None, None, None],
        Some(stats) => [
            stats.min.as_ref().and_then(|value| literal(value, false)),
            stats.max.as_ref().and_then(|value| literal(value, true)),
            stats.nulls.map(|nulls| nulls.to_string()),
        ],
    }
}

/// A bound as JSON text; `None` where Delta keeps none. Timestamps are given in whole milliseconds,
/// the upper bound rounded up: right for readers that expect them cut and for those that do not.
fn literal(value: &ScalarValue, upper: bool) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let quoted = |text: String| Some(Value::from(text).to_string());
    match value {
        ScalarValue::Int8(Some(v)) => Some(v.to_string()),
        ScalarValue::Int16(Some(v)) => Some(v.to_string()),
        ScalarValue::Int32(Some(v)) => Some(v.to_string()),
        ScalarValue::Int64(Some(v)) => Some(v.to_string()),
        ScalarValue::Float32(Some(v)) if v.is_finite() => Some(Value::from(f64::from(*v)).to_string()),
        ScalarValue::Float64(Some(v)) if v.is_finite() => Some(Value::from(*v).to_string()),
        ScalarValue::Decimal128(Some(v), _, scale) => Some(decimal_text(*v, *scale)),
        ScalarValue::Date32(Some(v)) => {
            let day = date(*v).filter(|day| (0..=9999).contains(&chrono::Datelike::year(day)))?;
            quoted(day.to_string())
        }
        ScalarValue::TimestampMicrosecond(Some(v), zone) => {
            // A bound that was read from a cut one ends in 999 microseconds: it goes back as it came.
            let millis = if upper && v.rem_euclid(1000) != 999 {
                v.checked_add(999)?.div_euclid(1000)
            } else {
                v.div_euclid(1000)
            };
            let instant = DateTime::from_timestamp_millis(millis)?;
            (0..=9999)
                .contains(&chrono::Datelike::year(&instant))
                .then_some(())?;
            let text = instant.format("%Y-%m-%dT%H:%M:%S%.3f");
            quoted(match zone {
                Some(_) => format!("{text}Z"),
                None => text.to_string(),
            })
        }
        ScalarValue::Utf8(Some(v)) | ScalarValue::LargeUtf8(Some(v)) | ScalarValue::Utf8View(Some(v)) => {
            quoted(shorten(v, upper)?)
        }
        _ => None,
    }
}

/// The beginning of a string; for an upper bound, something that no string with this beginning exceeds.
fn shorten(text: &str, upper: bool) -> Option<String> {
    let Some((cut, _)) = text.char_indices().nth(STRING_PREFIX) else {
        return Some(text.to_owned());
    };
    let mut prefix = text[..cut].to_owned();
    if !upper {
        return Some(prefix);
    }
    while let Some(last) = prefix.pop() {
        // The next character in code point order; past the last one, the place before it is raised.
        let next = match u32::from(last) + 1 {
            0xD800 => char::from_u32(0xE000),
            code => char::from_u32(code),
        };
        if let Some(next) = next {
            prefix.push(next);
            return Some(prefix);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: Option<&str>, data_columns: &[&Field]) -> Statistics {
        super::parse(text, data_columns, &|_| true)
    }

    fn first(limit: i64) -> Wanted<'static> {
        Wanted { limit, always: &[] }
    }

    fn file(columns: Vec<(&str, ScalarValue, ScalarValue)>) -> DataFile {
        DataFile {
            path: "a.parquet".into(),
            recorded: "a.parquet".into(),
            bytes: 10,
            rows: 5,
            spec_id: 0,
            partition: vec![],
            columns: columns
                .into_iter()
                .map(|(name, min, max)| {
                    let stats = ColumnStats {
                        values: Some(5),
                        nulls: Some(1),
                        min: Some(min),
                        max: Some(max),
                        exact: true,
                        ..ColumnStats::default()
                    };
                    (name.to_owned(), stats)
                })
                .collect(),
            masks: vec![],
            equality_deletes: vec![],
            sequence: None,
            first_row_id: None,
            split_offsets: vec![],
            notes: None,
        }
    }

    fn there_and_back(data_type: DataType, min: ScalarValue, max: ScalarValue) -> ColumnStats {
        let field = Field::new("c", data_type, true);
        let text = render(&file(vec![("c", min, max)]), &[&field], first(32));
        let mut found = parse(Some(&text), &[&field]);
        assert_eq!(found.rows, Some(5), "{text}");
        found.columns.remove("c").unwrap_or_default()
    }

    #[test]
    fn exact_types_come_back_as_they_were() {
        let pairs = [
            (
                ScalarValue::Int64(Some(i64::MIN)),
                ScalarValue::Int64(Some(i64::MAX)),
            ),
            (ScalarValue::Int8(Some(-3)), ScalarValue::Int8(Some(3))),
            (ScalarValue::Date32(Some(-40)), ScalarValue::Date32(Some(15_706))),
            (
                ScalarValue::Decimal128(Some(-5), 10, 2),
                ScalarValue::Decimal128(Some(123), 10, 2),
            ),
        ];
        for (min, max) in pairs {
            let back = there_and_back(min.data_type(), min.clone(), max.clone());
            assert_eq!((back.min, back.max, back.exact), (Some(min), Some(max), true));
            assert_eq!(back.nulls, Some(1));
        }
    }

    #[test]
    fn bounds_of_years_that_have_not_four_digits_are_read_whole() {
        let field = Field::new("c", DataType::Date32, true);
        let text = r#"{"numRecords":1,"minValues":{"c":"-0001-12-31"},"maxValues":{"c":"+10000-01-01"},"nullCount":{"c":0}}"#;
        let found = parse(Some(text), &[&field]).columns.remove("c").unwrap();
        assert_eq!(found.min, Some(ScalarValue::Date32(Some(-719_529))));
        assert_eq!(found.max, Some(ScalarValue::Date32(Some(2_932_897))));
    }

    #[test]
    fn bounds_that_lose_digits_move_outwards_and_are_not_exact() {
        let utc: Option<std::sync::Arc<str>> = Some("UTC".into());
        let at = |micros| ScalarValue::TimestampMicrosecond(Some(micros), utc.clone());
        let back = there_and_back(at(0).data_type(), at(-1_500), at(1_357_000_000_000_001));
        assert!(back.min.unwrap() <= at(-1_500) && back.max.unwrap() >= at(1_357_000_000_000_001));
        assert!(!back.exact);

        let wide = |v| ScalarValue::Decimal128(Some(v), 38, 2);
        let (low, high) = (-98_765_432_109_876_543_210i128, 12_345_678_901_234_567_891i128);
        let back = there_and_back(wide(0).data_type(), wide(low), wide(high));
        assert!(back.min.unwrap() <= wide(low) && back.max.unwrap() >= wide(high));
        assert!(!back.exact);

        let long = "z".repeat(40);
        let text = |v: &str| ScalarValue::Utf8(Some(v.to_owned()));
        let back = there_and_back(DataType::Utf8, text(&long), text(&long));
        assert!(back.min.unwrap() <= text(&long) && back.max.unwrap() >= text(&long));
        assert!(!back.exact);
        assert_eq!(shorten(&"\u{10FFFF}".repeat(40), true), None);
    }

    #[test]
    fn bounds_do_not_drift_when_they_are_read_and_written_again() {
        let at = |micros| ScalarValue::TimestampMicrosecond(Some(micros), None);
        let once = there_and_back(at(0).data_type(), at(7_001), at(1_357_000_000_000_001));
        let twice = there_and_back(
            at(0).data_type(),
            once.min.clone().unwrap(),
            once.max.clone().unwrap(),
        );
        assert_eq!(twice, once);
    }

    #[test]
    fn floats_are_never_exact_and_nan_has_no_bound() {
        let back = there_and_back(
            DataType::Float64,
            ScalarValue::Float64(Some(0.1)),
            ScalarValue::Float64(Some(f64::NAN)),
        );
        assert_eq!(back.min, Some(ScalarValue::Float64(Some(0.1))));
        assert_eq!((back.max, back.exact), (None, false));
    }

    #[test]
    fn bounds_of_single_precision_in_few_digits_hold_the_values_of_a_column_that_became_double() {
        let field = Field::new("c", DataType::Float64, true);
        for value in [0.1_f32, 0.7, -0.1, -0.7, 1e-7, 3.3e38, 16_777_216.0] {
            let text =
                format!(r#"{{"numRecords":1,"minValues":{{"c":{value}}},"maxValues":{{"c":{value}}}}}"#);
            let found = parse(Some(&text), &[&field]);
            let stored = ScalarValue::Float64(Some(value.into()));
            let (min, max) = (&found.columns["c"].min, &found.columns["c"].max);
            assert!(
                min.as_ref() <= Some(&stored) && max.as_ref() >= Some(&stored),
                "{value}: {min:?} {max:?}"
            );
        }
        let huge = parse(Some(r#"{"maxValues":{"c":1e300}}"#), &[&field]);
        assert_eq!(huge.columns["c"].max, Some(ScalarValue::Float64(Some(1e300))));
    }

    #[test]
    fn masked_files_say_that_bounds_are_wide() {
        let field = Field::new("c", DataType::Int64, true);
        let mut masked = file(vec![(
            "c",
            ScalarValue::Int64(Some(1)),
            ScalarValue::Int64(Some(2)),
        )]);
        masked.masks.push(crate::model::MaskRef {
            path: String::new(),
            recorded: String::new(),
            offset: None,
            bytes: None,
            inline: None,
            rows: Some(1),
            shared: false,
        });
        let text = render(&masked, &[&field], first(32));
        assert!(text.contains("\"tightBounds\":false"), "{text}");
        assert!(!parse(Some(&text), &[&field]).columns["c"].exact);
    }

    #[test]
    fn fields_of_structs_are_nested_and_the_limit_counts_leaves() {
        let inner = Field::new("b", DataType::Int64, true);
        let outer = Field::new("a", DataType::Struct(vec![inner].into()), true);
        let last = Field::new("z", DataType::Int64, true);
        let one = || ScalarValue::Int64(Some(1));
        let file = file(vec![("a.b", one(), one()), ("z", one(), one())]);
        let text = render(&file, &[&outer, &last], first(32));
        assert!(text.contains("\"minValues\":{\"a\":{\"b\":1},\"z\":1}"), "{text}");
        assert_eq!(parse(Some(&text), &[&outer, &last]).columns.len(), 2);
        assert!(!render(&file, &[&outer, &last], first(1)).contains('z'));
        let always = [vec![physical_name(&last).to_owned()]];
        let clustered = Wanted {
            limit: 0,
            always: &always,
        };
        let text = render(&file, &[&outer, &last], clustered);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["minValues"].as_object().unwrap().len(), 1, "{text}");
        assert!(value["minValues"].get(physical_name(&last)).is_some(), "{text}");
    }

    #[test]
    fn broken_statistics_are_no_statistics() {
        let field = Field::new("c", DataType::Int64, true);
        for text in ["", "{", "[]", "{\"numRecords\":-1,\"minValues\":{\"c\":\"x\"}}"] {
            assert_eq!(parse(Some(text), &[&field]), Statistics::default(), "{text}");
        }
    }
}
