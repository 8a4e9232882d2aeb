//! Hidden partitioning: Delta has no transforms, so each becomes a generated partition column that Spark computes too,
//! with our marker. Expressions are among those from which Spark derives filters on the partition (delta.io, "Use generated
//! columns"), where there is one.

use arrow::datatypes::{DataType, Schema, TimeUnit};
use chrono::NaiveDate;
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value, json};

use super::partitions::{date, decimal_text};
use super::schema::{self, Column, FieldMetadata};
use crate::error::{Error, Result};
use crate::model::{BucketHash, PartitionField, Transform};

/// Field metadata: the column is ours and hidden from users.
const HIDDEN: &str = "lakehouse.hidden";
/// Field metadata of a hidden column: the column that it is derived from.
const SOURCE: &str = "lakehouse.source";
/// Field metadata of a hidden column: how it is derived, as [`Transform`] is displayed.
const TRANSFORM: &str = "lakehouse.transform";
/// Field metadata: the SQL expression of a generated column.
pub(super) const GENERATION: &str = "delta.generationExpression";

/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

/// A hidden column of a new table: name, Delta type, field metadata.
pub(super) type HiddenColumn = (String, String, FieldMetadata);

/// Plans the partitioning of a new table: the partition fields with their names, and the hidden
/// columns that carry those that are derived.
///
/// # Errors
/// [`Error::Unsupported`] for a transform that Delta has no expression for; [`Error::Invalid`] when a
/// source column is missing or a name is taken.
pub(super) fn plan(
    schema: &Schema,
    fields: &[PartitionField],
) -> Result<(Vec<PartitionField>, Vec<HiddenColumn>)> {
    let (mut planned, mut hidden) = (Vec::<PartitionField>::new(), Vec::<HiddenColumn>::new());
    for field in fields {
        let source = schema.field_with_name(&field.source).map_err(|_| {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Error::invalid(format!("partitioning names the column {}", field.source), "")
                .with_hint(format!("the table's columns are {}", names.join(", ")))
        })?;
        // Columns of types that Delta lacks are stored in others.
        let stored = match schema::delta_type(source.data_type(), source.name())?.as_str() {
            Some(name) => schema::primitive(name, source.name())?,
            None => source.data_type().clone(),
        };
        field.transform.result_type(&stored)?;
        let transform = of_delta(field.transform, &stored);
        let derived = match transform {
            Transform::Identity => {
                check_identity(source.name(), &stored)?;
                None
            }
            other => Some(derive(&other, &stored).ok_or_else(|| {
                Error::unsupported(
                    format!(
                        "Delta tables cannot be partitioned by {other} of {}, which is {}",
                        field.source,
                        source.data_type()
                    ),
                    "truncate takes numbers and text here, year, month, day, hour and bucket what they take elsewhere; \
                     or use --format iceberg",
                )
            })?),
        };
        let name = match (&derived, field.name.as_str()) {
            (None, _) => source.name().clone(),
            (Some(derived), "") => format!("{}{}", source.name(), derived.suffix),
            (Some(_), given) => given.to_owned(),
        };
        if let Some(derived) = derived {
            let lower = name.to_lowercase();
            if schema.fields().iter().any(|f| f.name().to_lowercase() == lower) {
                return Err(Error::invalid(
                    format!("the partition column {name} would hide a column of that name"),
                    "",
                )
                .with_hint("rename the column"));
            }
            let mut metadata = Map::new();
            metadata.insert(GENERATION.into(), json!(derived.of(&quoted(source.name()))));
            metadata.insert(HIDDEN.into(), json!(true));
            metadata.insert(SOURCE.into(), json!(source.name()));
            metadata.insert(TRANSFORM.into(), json!(transform.to_string()));
            hidden.push((name.clone(), derived.type_name, metadata));
        }
        if planned.iter().any(|other| other.name == name) {
            return Err(Error::invalid(format!("partitioning names {name} twice"), ""));
        }
        planned.push(PartitionField {
            source: source.name().clone(),
            transform,
            zone_slack_days: slack(&transform, source.data_type()),
            name,
            field_id: 0,
        });
    }
    if planned
        .iter()
        .filter(|f| f.transform == Transform::Identity)
        .count()
        == schema.fields().len()
    {
        return Err(Error::invalid(
            "every column is a partition column; data files would be empty",
            "",
        )
        .with_hint("leave at least one column out of the partitioning"));
    }
    Ok((planned, hidden))
}

fn check_identity(column: &str, data_type: &DataType) -> Result<()> {
    if data_type.is_nested()
        || matches!(
            data_type,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
        )
    {
        return Err(Error::unsupported(
            format!("Delta tables cannot be partitioned by column {column} of type {data_type}"),
            "partition by another column",
        ));
    }
    Ok(())
}

/// The transform as generation expressions have it: with Spark's hash, and the empty text, which partition values cannot
/// tell from NULL, as NULL.
fn of_delta(transform: Transform, source: &DataType) -> Transform {
    match transform {
        Transform::Bucket { buckets, .. } => Transform::Bucket {
            buckets,
            hash: BucketHash::Spark,
        },
        Transform::Truncate(width)
            if matches!(source, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) =>
        {
            Transform::Prefix(width)
        }
        other => other,
    }
}

/// Days that a session zone may move a value: Spark takes zoned timestamps apart in its session's zone, and those without
/// a zone count as of that zone in `DATE_TRUNC`, which moves the hours that the zone skipped.
pub(super) fn slack(transform: &Transform, source: &DataType) -> i32 {
    let DataType::Timestamp(_, zone) = source else {
        return 0;
    };
    i32::from(match transform {
        Transform::Year | Transform::Day => zone.is_some(),
        Transform::Month | Transform::Hour => true,
        _ => false,
    })
}

/// The generated column that carries a transform.
struct Derived {
    /// What its name ends with, after the source's.
    suffix: &'static str,
    /// Its type, as Delta names it.
    type_name: String,
    /// Its type.
    data_type: DataType,
    /// How Spark computes it, with `{}` for the source.
    expression: String,
}

impl Derived {
    /// The expression over a column that is written so.
    fn of(&self, column: &str) -> String {
        self.expression.replace("{}", column)
    }
}

/// How a transform of a column of this type is stored; `None` if there is no expression for it. An empty text is recorded
/// as NULL, and Spark compares what it finds with the expression: that has to be NULL too.
fn derive(transform: &Transform, data_type: &DataType) -> Option<Derived> {
    use DataType as T;
    let instant = || T::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let (suffix, type_name, stored, expression): (_, &str, _, String) = match (transform, data_type) {
        (Transform::Year, _) => ("_year", "integer", T::Int32, "YEAR({})".into()),
        (Transform::Month, T::Date32) => ("_month", "date", T::Date32, "TRUNC({}, 'MONTH')".into()),
        (Transform::Month, _) => {
            let expression = "DATE_TRUNC('MONTH', {})".into();
            ("_month", "timestamp", instant(), expression)
        }
        (Transform::Day, _) => ("_day", "date", T::Date32, "CAST({} AS DATE)".into()),
        (Transform::Hour, _) => {
            let expression = "DATE_TRUNC('HOUR', {})".into();
            ("_hour", "timestamp", instant(), expression)
        }
        (Transform::Bucket { buckets, .. }, _) => {
            let expression = format!("pmod(hash({{}}), {buckets})");
            ("_bucket", "integer", T::Int32, expression)
        }
        (Transform::Prefix(width), _) => {
            let expression = format!("CASE WHEN {{}} <> '' THEN SUBSTRING({{}}, 1, {width}) END");
            ("_trunc", "string", T::Utf8, expression)
        }
        (Transform::Truncate(width), T::Int32) => {
            let expression = format!("{{}} - pmod({{}}, {width})");
            ("_trunc", "integer", T::Int32, expression)
        }
        (Transform::Truncate(width), T::Int64) => {
            let expression = format!("{{}} - pmod({{}}, {width})");
            ("_trunc", "long", T::Int64, expression)
        }
        (Transform::Truncate(width), T::Decimal128(precision, scale)) => {
            let type_name = format!("decimal({precision},{scale})");
            let width = decimal_text(i128::from(*width), *scale);
            let expression = format!("CAST({{}} - pmod({{}}, {width}) AS DECIMAL({precision}, {scale}))");
            return Some(Derived {
                suffix: "_trunc",
                type_name,
                data_type: data_type.clone(),
                expression,
            });
        }
        _ => return None,
    };
    Some(Derived {
        suffix,
        type_name: type_name.to_owned(),
        data_type: stored,
        expression,
    })
}

/// The name is quoted whatever it is: `null` alone would be no column.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Whether a name is a column's without quotes, as they were written once.
fn is_plain(name: &str) -> bool {
    let letters =
        |(i, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
    let literals = ["null", "true", "false"];
    name.chars().enumerate().all(letters) && !literals.iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// The transform of a hidden column of ours and its source among the table's columns; `None` for any other column,
/// also for one whose marker does not agree with its generation expression or with the types.
pub(super) fn hidden<'a>(column: &Column, columns: &'a [Column]) -> Option<(Transform, &'a Column)> {
    let metadata = &column.metadata;
    if metadata.get(HIDDEN) != Some(&Value::Bool(true)) {
        return None;
    }
    let name = metadata.get(SOURCE)?.as_str()?;
    let transform: Transform = metadata.get(TRANSFORM)?.as_str()?.parse().ok()?;
    let source = columns.iter().find(|column| column.field.name() == name)?;
    let data_type = source.field.data_type();
    transform.result_type(data_type).ok()?;
    let transform = of_delta(transform, data_type);
    let derived = derive(&transform, data_type)?;
    let generation = metadata.get(GENERATION)?.as_str()?;
    let meant = generation == derived.of(&quoted(name)) || is_plain(name) && generation == derived.of(name);
    (meant && derived.data_type == *column.field.data_type()).then_some((transform, source))
}

/// The partition value of a stored one: years, months and hours are counted since 1970. `text` is what is recorded.
///
/// # Errors
/// [`Error::Invalid`] for a time that is too far from 1970 to be counted.
pub(super) fn counted(transform: &Transform, stored: ScalarValue, text: Option<&str>) -> Result<ScalarValue> {
    // With a zone it is the instant at which the month began in a session's zone, which is one of UTC-12 to UTC+14: in
    // UTC maybe still in the month before. No other month begins within the 14 hours after.
    let later = match transform {
        Transform::Month if text.is_some_and(|text| text.ends_with('Z')) => 14 * HOUR,
        _ => 0,
    };
    let time = match (transform, stored) {
        (Transform::Year, ScalarValue::Int32(year)) => {
            return match year.map(|year| year.checked_sub(1970)) {
                Some(None) => Err(Error::invalid("a year is out of range", text.unwrap_or_default())),
                count => Ok(ScalarValue::Int32(count.flatten())),
            };
        }
        (Transform::Month | Transform::Hour, ScalarValue::TimestampMicrosecond(micros, _)) => {
            ScalarValue::TimestampMicrosecond(micros.map(|v| v.saturating_add(later)), None)
        }
        (Transform::Month, date @ ScalarValue::Date32(_)) => date,
        (_, stored) => return Ok(stored),
    };
    transform.apply_scalar(&time)
}

/// How years, months and hours are recorded, in a column of this type, if they can be; `None` for all other values. Times have no zone:
/// Spark reads them as of its session's, in which it looks for them.
pub(super) fn text_of(
    transform: &Transform,
    value: &ScalarValue,
    stored: &DataType,
) -> Option<Option<String>> {
    match (transform, value) {
        (Transform::Year | Transform::Month | Transform::Hour, ScalarValue::Int32(Some(count))) => {
            Some(counted_text(transform, (*count).into(), stored))
        }
        _ => None,
    }
}

fn counted_text(transform: &Transform, count: i64, stored: &DataType) -> Option<String> {
    let date = |days: i64| date(i32::try_from(days).ok()?);
    Some(match transform {
        Transform::Year => (count + 1970).to_string(),
        Transform::Month => {
            let month = u32::try_from(count.rem_euclid(12)).ok()? + 1;
            let year = i32::try_from(count.div_euclid(12) + 1970).ok()?;
            let first = NaiveDate::from_ymd_opt(year, month, 1)?;
            match stored {
                DataType::Date32 => first.to_string(),
                _ => format!("{first} 00:00:00"),
            }
        }
        Transform::Hour => {
            let day = date(count.div_euclid(24))?;
            format!("{day} {:02}:00:00", count.rem_euclid(24))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;
    use crate::delta::partitions::PartitionColumn;

    fn field(source: &str, transform: Transform) -> PartitionField {
        PartitionField {
            source: source.into(),
            transform,
            name: String::new(),
            field_id: 0,
            zone_slack_days: 0,
        }
    }

    fn plain(name: &str, data_type: DataType) -> Column {
        Column {
            field: Field::new(name, data_type, true),
            physical: name.into(),
            metadata: Map::new(),
        }
    }

    fn time(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
    }

    #[test]
    fn a_transform_that_delta_lacks_is_refused_with_those_it_has() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Binary, true),
        ]);
        for transform in [Transform::Truncate(3), Transform::Void] {
            let error = plan(&schema, &[field("b", transform)]).unwrap_err();
            assert!(error.hint().unwrap().contains("bucket"), "{error}");
        }
        let error = plan(&schema, &[field("zz", Transform::Identity)]).unwrap_err();
        assert!(error.hint().unwrap().contains("a, b"), "{error}");
    }

    #[test]
    fn the_marker_counts_only_with_the_expression_and_the_types_that_it_stands_for() {
        let marked = |source: &str, expression: &str| Column {
            metadata: [
                (GENERATION.to_owned(), json!(expression)),
                (HIDDEN.to_owned(), json!(true)),
                (SOURCE.to_owned(), json!(source)),
                (TRANSFORM.to_owned(), json!("day")),
            ]
            .into_iter()
            .collect(),
            ..plain("x_day", DataType::Date32)
        };
        let columns = [
            plain("ts", time(None)),
            plain("null", time(None)),
            plain("n", DataType::Int64),
        ];
        let source = |column: &Column| {
            let (transform, source) = hidden(column, &columns)?;
            assert_eq!(transform, Transform::Day);
            Some(source.field.name().clone())
        };
        assert_eq!(source(&marked("ts", "CAST(`ts` AS DATE)")).unwrap(), "ts");
        assert_eq!(source(&marked("ts", "CAST(ts AS DATE)")).unwrap(), "ts");
        assert_eq!(source(&marked("null", "CAST(`null` AS DATE)")).unwrap(), "null");
        for (name, expression) in [
            ("ts", "CAST(`other` AS DATE)"),
            ("null", "CAST(null AS DATE)"),
            ("gone", "CAST(`gone` AS DATE)"),
            ("n", "CAST(`n` AS DATE)"),
        ] {
            assert_eq!(source(&marked(name, expression)), None, "{expression}");
        }
        let other = Column {
            field: Field::new("x_day", DataType::Utf8, true),
            ..marked("ts", "CAST(`ts` AS DATE)")
        };
        assert_eq!(source(&other), None);
    }

    #[test]
    fn every_transform_comes_back_from_its_generated_column() {
        let bucket = Transform::Bucket {
            buckets: 4,
            hash: BucketHash::Iceberg,
        };
        let zoned = || time(Some("UTC"));
        for (transform, source, expression) in [
            (Transform::Year, zoned(), "YEAR(`my``c`)"),
            (Transform::Month, DataType::Date32, "TRUNC(`my``c`, 'MONTH')"),
            (Transform::Month, time(None), "DATE_TRUNC('MONTH', `my``c`)"),
            (Transform::Day, zoned(), "CAST(`my``c` AS DATE)"),
            (Transform::Hour, zoned(), "DATE_TRUNC('HOUR', `my``c`)"),
            (bucket, DataType::Int64, "pmod(hash(`my``c`), 4)"),
            (
                Transform::Truncate(3),
                DataType::Utf8,
                "CASE WHEN `my``c` <> '' THEN SUBSTRING(`my``c`, 1, 3) END",
            ),
            (
                Transform::Truncate(10),
                DataType::Int32,
                "`my``c` - pmod(`my``c`, 10)",
            ),
            (
                Transform::Truncate(10),
                DataType::Int64,
                "`my``c` - pmod(`my``c`, 10)",
            ),
            (
                Transform::Truncate(50),
                DataType::Decimal128(9, 2),
                "CAST(`my``c` - pmod(`my``c`, 0.50) AS DECIMAL(9, 2))",
            ),
        ] {
            let schema = Schema::new(vec![
                Field::new("my`c", source.clone(), true),
                Field::new("x", DataType::Utf8, true),
            ]);
            let (fields, columns) = plan(&schema, &[field("my`c", transform)]).unwrap();
            let (name, type_name, metadata) = &columns[0];
            assert_eq!(metadata[GENERATION], json!(expression));
            let stored = schema::primitive(type_name, "c").unwrap();
            let column = Column {
                metadata: metadata.clone(),
                ..plain(name, stored)
            };
            let table = [plain("my`c", source), column.clone()];
            let (found, of) = hidden(&column, &table).unwrap();
            assert_eq!((found, of.field.name().as_str()), (fields[0].transform, "my`c"));
            assert_eq!(fields[0].name, *name);
        }
    }

    #[test]
    fn years_months_and_hours_are_recorded_as_spark_computes_them() {
        let column = |transform, data_type| PartitionColumn {
            field: field("ts", transform),
            physical: "p".into(),
            data_type,
        };
        let zoned = || time(Some("UTC"));
        for (transform, stored, count, text) in [
            (Transform::Year, DataType::Int32, 43, "2013"),
            (Transform::Year, DataType::Int32, -1971, "-1"),
            (Transform::Month, DataType::Date32, 516, "2013-01-01"),
            (Transform::Month, zoned(), 516, "2013-01-01 00:00:00"),
            (Transform::Month, zoned(), -1, "1969-12-01 00:00:00"),
            (Transform::Month, zoned(), -23_628, "0001-01-01 00:00:00"),
            (Transform::Month, zoned(), 96_360, "+10000-01-01 00:00:00"),
            (Transform::Hour, zoned(), 376_949, "2013-01-01 05:00:00"),
            (Transform::Hour, zoned(), -1, "1969-12-31 23:00:00"),
        ] {
            let (column, value) = (column(transform, stored), ScalarValue::Int32(Some(count)));
            assert_eq!(column.render(&value).unwrap().as_deref(), Some(text));
            assert_eq!(column.parse(Some(text)).unwrap(), value, "{text}");
            assert_eq!(column.parse(None).unwrap(), ScalarValue::Int32(None));
            assert_eq!(column.render(&ScalarValue::Int32(None)).unwrap(), None);
        }
        let month = column(Transform::Month, zoned());
        // Midnight of 1 January in New York, in Auckland, and in UTC.
        for text in [
            "2013-01-01T05:00:00.000000Z",
            "2012-12-31T11:00:00.000000Z",
            "2013-01-01T00:00:00Z",
        ] {
            assert_eq!(
                month.parse(Some(text)).unwrap(),
                ScalarValue::Int32(Some(516)),
                "{text}"
            );
        }
        assert!(month.parse(Some("2013-13")).is_err());
        let year = column(Transform::Year, DataType::Int32);
        assert!(year.parse(Some("-2147483648")).is_err());
    }
}
