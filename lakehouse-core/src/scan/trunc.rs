//! `date_trunc` of times of any year. The engine's own (DataFusion 55.2) brings dates, and what it cuts off to weeks or
//! more, to nanoseconds, which begin in 1677 and end in 2262.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::function::{Function, declared};
use crate::model::schema::is_utc;
use crate::model::{month_start, months_of_day};

/// The name under which Spark's `date_trunc` is known to expressions of ours.
pub(super) const DATE_TRUNC: &str = "date_trunc_micros";

/// Spark's `date_trunc`, of dates and of times in UTC or without a zone, in microseconds: a date becomes a time in UTC.
pub(super) fn spark_date_trunc() -> Arc<ScalarUDF> {
    declared::<SparkDateTrunc>()
}

/// The engine's `date_trunc` for queries and conditions, in place of its own: what it cuts off is the same, dates and
/// times that are written as text become times in microseconds without a zone.
pub(super) fn date_trunc() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(DateTrunc {
        signature: Signature::user_defined(Volatility::Immutable),
        engines: datetime::date_trunc(),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SparkDateTrunc;

impl Function for SparkDateTrunc {
    const NAME: &'static str = DATE_TRUNC;
    const TAKES: usize = 2;

    fn gives(given: &[FieldRef]) -> Result<FieldRef> {
        let zone = match given.last().map(|values| values.data_type()) {
            // A cast would round what lies before 1970 up.
            Some(DataType::Timestamp(unit, zone)) if *unit != TimeUnit::Nanosecond => zone.clone(),
            Some(DataType::Date32 | DataType::Null) => Some("UTC".into()),
            other => return plan_err!("date_trunc of {other:?}"),
        };
        let times = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(Arc::new(Field::new(DATE_TRUNC, times, true)))
    }

    fn call(args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(unit), values] = args.args.as_slice() else {
            return exec_err!("the unit of date_trunc has to be written out");
        };
        match unit_of(unit) {
            Some(start) => cut(values, start, args.number_rows, args.return_field.data_type()),
            None => exec_err!("the unit {unit} of date_trunc is not known"),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    signature: Signature,
    /// What cuts off in other zones, nanoseconds and times of a day.
    engines: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &'static str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        self.engines.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType as T;
        let [unit, value] = types else {
            return plan_err!(
                "date_trunc takes a unit and a time, not {} arguments",
                types.len()
            );
        };
        if !unit.is_string() {
            return plan_err!("the unit of date_trunc is text, as in date_trunc('month', ts), not {unit}");
        }
        let value = match value {
            T::Timestamp(TimeUnit::Nanosecond, _) | T::Time32(_) | T::Time64(_) => value.clone(),
            T::Timestamp(_, zone) => T::Timestamp(TimeUnit::Microsecond, zone.clone()),
            // A microsecond is the finest unit, so that nothing is lost of a text.
            text if text.is_string() => T::Timestamp(TimeUnit::Microsecond, None),
            T::Date32 | T::Date64 | T::Null => T::Timestamp(TimeUnit::Microsecond, None),
            other => return plan_err!("date_trunc is of times and dates, not of {other}"),
        };
        Ok(vec![T::Utf8, value])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, value] => Ok(value.clone()),
            _ => plan_err!("date_trunc takes a unit and a time"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.engines.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [ColumnarValue::Scalar(unit), values] = args.args.as_slice()
            && let DataType::Timestamp(TimeUnit::Microsecond, zone) = values.data_type()
            && zone.as_deref().is_none_or(is_utc)
            && let Some(start) = unit_of(unit)
        {
            return cut(values, start, args.number_rows, &values.data_type());
        }
        if let [unit, ColumnarValue::Scalar(value)] = args.args.as_slice() {
            // Of a single value the engine cuts fractions of seconds off towards 1970, of a column downwards.
            let column = ColumnarValue::Array(value.to_array()?);
            let cut = self.engines.invoke_with_args(ScalarFunctionArgs {
                args: vec![unit.clone(), column],
                number_rows: 1,
                ..args
            })?;
            let cut = ScalarValue::try_from_array(&cut.into_array(1)?, 0)?;
            return Ok(ColumnarValue::Scalar(cut));
        }
        self.engines.invoke_with_args(args)
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.engines.output_ordering(input)
    }
}

/// The start of the unit that a time lies in, in microseconds; `None` where there is no such number.
type Start = fn(i64) -> Option<i64>;

fn unit_of(unit: &ScalarValue) -> Option<Start> {
    let unit = unit.try_as_str().flatten()?.to_lowercase();
    Some(match unit.as_str() {
        "year" => |micros| of_months(micros, 12),
        "quarter" => |micros| of_months(micros, 3),
        "month" => |micros| of_months(micros, 1),
        "week" => of_week,
        "day" => |micros| of_micros(micros, DAY),
        "hour" => |micros| of_micros(micros, 3_600_000_000),
        "minute" => |micros| of_micros(micros, 60_000_000),
        "second" => |micros| of_micros(micros, 1_000_000),
        "millisecond" => |micros| of_micros(micros, 1000),
        "microsecond" => Some,
        _ => return None,
    })
}

/// Cuts off values, which become microseconds of type `to`.
fn cut(values: &ColumnarValue, start: Start, rows: usize, to: &DataType) -> Result<ColumnarValue> {
    let rows = match values {
        // One value stays one, however many rows there are: none, perhaps.
        ColumnarValue::Scalar(_) => 1,
        ColumnarValue::Array(_) => rows,
    };
    let given = cast(&values.to_array(rows)?, to)?;
    let cut: PrimitiveArray<TimestampMicrosecondType> =
        given.as_primitive::<TimestampMicrosecondType>().unary_opt(start);
    let cut: ArrayRef = Arc::new(cut.with_data_type(to.clone()));
    Ok(match values {
        ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&cut, 0)?),
        ColumnarValue::Array(_) => ColumnarValue::Array(cut),
    })
}

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

fn of_micros(micros: i64, unit: i64) -> Option<i64> {
    micros.div_euclid(unit).checked_mul(unit)
}

/// Weeks begin on Mondays; 1970 began on a Thursday.
fn of_week(micros: i64) -> Option<i64> {
    let day = micros.div_euclid(DAY);
    (day - (day + 3).rem_euclid(7)).checked_mul(DAY)
}

fn of_months(micros: i64, months: i64) -> Option<i64> {
    let month = months_of_day(micros.div_euclid(DAY)).div_euclid(months) * months;
    month_start(month).checked_mul(DAY)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, TimestampMicrosecondArray};
    use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike};
    use datafusion::common::config::ConfigOptions;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const UNITS: [&str; 10] = [
        "year",
        "quarter",
        "month",
        "week",
        "day",
        "hour",
        "minute",
        "second",
        "millisecond",
        "microsecond",
    ];

    /// As the calendar of another crate has it.
    fn start_of(unit: &str, time: NaiveDateTime) -> NaiveDateTime {
        let date = time.date();
        let first = |month| NaiveDate::from_ymd_opt(date.year(), month, 1).unwrap();
        let midnight = |date: NaiveDate| date.and_hms_opt(0, 0, 0).unwrap();
        let nanos = time.time().nanosecond();
        let second = time.with_nanosecond(0).unwrap();
        match unit {
            "year" => midnight(first(1)),
            "quarter" => midnight(first((date.month() - 1) / 3 * 3 + 1)),
            "month" => midnight(first(date.month())),
            "week" => midnight(date - TimeDelta::days(date.weekday().num_days_from_monday().into())),
            "day" => midnight(date),
            "hour" => midnight(date) + TimeDelta::hours(time.hour().into()),
            "minute" => second.with_second(0).unwrap(),
            "second" => second,
            "millisecond" => time.with_nanosecond(nanos / 1_000_000 * 1_000_000).unwrap(),
            _ => time,
        }
    }

    fn call(function: &Arc<ScalarUDF>, unit: &str, values: ColumnarValue, rows: usize) -> ColumnarValue {
        let unit = ScalarValue::from(unit);
        let field = |name: &str, data_type| -> FieldRef { Arc::new(Field::new(name, data_type, true)) };
        let arg_fields = vec![
            field("unit", unit.data_type()),
            field("values", values.data_type()),
        ];
        let units = [Some(&unit), None];
        let return_field = function.return_field_from_args(ReturnFieldArgs {
            arg_fields: &arg_fields,
            scalar_arguments: &units,
        });
        let called = function.invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Scalar(unit), values],
            arg_fields,
            number_rows: rows,
            return_field: return_field.unwrap(),
            config_options: Arc::new(ConfigOptions::default()),
        });
        called.unwrap()
    }

    /// Times of some 400,000 years, those around 1970 and around years, and NULLs.
    fn times(seed: u64) -> Vec<Option<i64>> {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut times = vec![None, Some(0), Some(-1), Some(1), Some(-DAY), Some(DAY - 1)];
        times.extend(
            (0..2_000)
                .map(|_| Some(random.random_range(-6_300_000_000_000_000_000..6_300_000_000_000_000_000))),
        );
        times.extend((0..1_000).map(|_| Some(random.random_range(-4 * DAY * 366..4 * DAY * 366))));
        for year in (-11_000..=20_000).step_by(250) {
            let midnight = NaiveDate::from_ymd_opt(year, 1, 1)
                .unwrap()
                .and_hms_opt(0, 0, 0)
                .unwrap();
            let start = midnight.and_utc().timestamp_micros();
            times.extend([start - 1, start, start + 59 * DAY].map(Some));
        }
        times
    }

    #[test]
    fn times_of_any_year_are_cut_off_as_another_calendar_says_as_columns_and_as_single_values() {
        let times = times(7);
        for (function, name) in [(date_trunc(), "the engine's"), (spark_date_trunc(), "Spark's")] {
            for zone in [None, Some("UTC"), Some("+00:00")] {
                let zone: Option<Arc<str>> = zone.map(Into::into);
                for unit in UNITS {
                    let expected: Vec<Option<i64>> = times
                        .iter()
                        .map(|time| {
                            let time = chrono::DateTime::from_timestamp_micros((*time)?)
                                .unwrap()
                                .naive_utc();
                            Some(start_of(unit, time).and_utc().timestamp_micros())
                        })
                        .collect();
                    let what = format!("{name}, {zone:?}, {unit}");
                    let column =
                        TimestampMicrosecondArray::from(times.clone()).with_timezone_opt(zone.clone());
                    let rows = column.len();
                    let column = ColumnarValue::Array(Arc::new(column));
                    let cut = call(&function, &unit.to_uppercase(), column, rows)
                        .into_array(rows)
                        .unwrap();
                    let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                    assert_eq!(cut.data_type(), &data_type, "{what}");
                    let cut: Vec<_> = cut.as_primitive::<TimestampMicrosecondType>().iter().collect();
                    assert_eq!(cut, expected, "{what}");
                    for (time, expected) in times.iter().zip(&expected).step_by(97) {
                        for rows in [0, 1, 3] {
                            let value = ScalarValue::TimestampMicrosecond(*time, zone.clone());
                            let cut = call(&function, unit, ColumnarValue::Scalar(value), rows);
                            let ColumnarValue::Scalar(cut) = cut else {
                                panic!("{what}: one value became {cut:?}");
                            };
                            let expected = ScalarValue::TimestampMicrosecond(*expected, zone.clone());
                            assert_eq!(cut, expected, "{what} of {time:?}");
                        }
                    }
                    let none =
                        TimestampMicrosecondArray::from(Vec::<i64>::new()).with_timezone_opt(zone.clone());
                    let cut = call(&function, unit, ColumnarValue::Array(Arc::new(none)), 0);
                    assert_eq!(cut.into_array(0).unwrap().len(), 0, "{what}");
                }
            }
        }
    }

    /// At both ends of what 64 bits hold nothing overflows; what begins before them is unknown.
    #[test]
    fn the_first_and_the_last_times_there_are_do_not_overflow() {
        for unit in UNITS {
            let start = unit_of(&ScalarValue::from(unit)).unwrap();
            let last = start(i64::MAX).unwrap();
            assert!(last > i64::MAX - 400 * DAY, "{unit}");
            let finest = unit == "microsecond";
            assert_eq!(start(i64::MIN), finest.then_some(i64::MIN), "{unit}");
            assert!(start(i64::MIN + 400 * DAY).is_some(), "{unit}");
        }
    }
}
