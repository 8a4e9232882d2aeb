//! Times beyond the reach of nanoseconds (1677 to 2262), which tables hold: they are compared, mixed with dates, taken apart
//! and written out in microseconds, where the engine (DataFusion 55.2) would go by way of nanoseconds and fail.
//! `date_trunc` is in [`super::trunc`].

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::floats::compares;
use super::narrowing::each_expression;

/// An expression whose types are settled, in which times of coarser units are compared in microseconds.
pub(super) fn settle(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|node| {
        Ok(match node {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
                match (in_micros(&left, schema), in_micros(&right, schema)) {
                    (Some(left), Some(right)) => {
                        let (left, right) = (Box::new(left), Box::new(right));
                        Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
                    }
                    _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
                }
            }
            Expr::Between(mut between) => {
                let parts = [&between.expr, &between.low, &between.high].map(|part| in_micros(part, schema));
                match parts {
                    [Some(expr), Some(low), Some(high)] => {
                        (*between.expr, *between.low, *between.high) = (expr, low, high);
                        Transformed::yes(Expr::Between(between))
                    }
                    _ => Transformed::no(Expr::Between(between)),
                }
            }
            // It writes the same digits.
            Expr::ScalarFunction(mut call) if call.func.name() == "to_char" => {
                let time = call.args.first().and_then(|time| in_micros(time, schema));
                let found = time.is_some();
                if let (Some(place), Some(time)) = (call.args.first_mut(), time) {
                    *place = time;
                }
                Transformed::new_transformed(Expr::ScalarFunction(call), found)
            }
            other => Transformed::no(other),
        })
    })
}

/// A value that was brought to nanoseconds to be compared, in microseconds; `None` where that would lose something.
fn in_micros(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::TimestampNanosecond(value, zone), metadata) => {
            let whole = value.is_none_or(|nanos| nanos % 1000 == 0);
            let micros =
                ScalarValue::TimestampMicrosecond(value.map(|nanos| nanos.div_euclid(1000)), zone.clone());
            whole.then(|| Expr::Literal(micros, metadata.clone()))
        }
        Expr::Cast(Cast { expr, field }) => {
            let DataType::Timestamp(TimeUnit::Nanosecond, zone) = field.data_type() else {
                return None;
            };
            let from = expr.get_type(schema).ok()?;
            let to = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            let value = match is_coarse(&from) {
                true => expr.as_ref().clone(),
                // A cast that was written, below the one that gives it the other side's zone.
                false => in_micros(expr, schema)?,
            };
            Some(match value.get_type(schema).ok()? == to {
                true => value,
                false => Expr::Cast(Cast::new(Box::new(value), to)),
            })
        }
        _ => None,
    }
}

/// The same for every plan of a session.
#[derive(Debug)]
pub(super) struct CompareTimes;

impl AnalyzerRule for CompareTimes {
    fn name(&self) -> &'static str {
        "compare_times"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, &settle)
    }
}

/// What the engine would bring to nanoseconds because it mixes dates with times, in microseconds: `coalesce(ts, d)`,
/// `ts - d`, CASE. For one expression whose types are not settled yet; not for what is in it.
fn prefer(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        // It was there already.
        Expr::Cast(Cast { expr: inner, field })
            if is_now(&inner) && inner.get_type(schema)? == *field.data_type() =>
        {
            Transformed::yes(*inner)
        }
        Expr::BinaryExpr(BinaryExpr {
            mut left,
            op: op @ Operator::Minus,
            mut right,
        }) => {
            let found = in_one_type([&mut *left, &mut *right].into_iter(), schema);
            let expr = Expr::BinaryExpr(BinaryExpr { left, op, right });
            Transformed::new_transformed(expr, found)
        }
        Expr::InList(mut list) => {
            let found = in_one_type([&mut *list.expr].into_iter().chain(&mut list.list), schema);
            Transformed::new_transformed(Expr::InList(list), found)
        }
        Expr::Case(mut case) => {
            let results = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            let found = in_one_type(results.chain(case.else_expr.as_deref_mut()), schema);
            Transformed::new_transformed(Expr::Case(case), found)
        }
        Expr::ScalarFunction(mut call) if MIXES.contains(&call.func.name()) => {
            let found = in_one_type(call.args.iter_mut(), schema);
            Transformed::new_transformed(Expr::ScalarFunction(call), found)
        }
        // The time of the statement, which the engine has in nanoseconds.
        Expr::ScalarFunction(ref call) if call.func.name() == "now" => match expr.get_type(schema)? {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                let to = DataType::Timestamp(TimeUnit::Microsecond, zone);
                Transformed::yes(Expr::Cast(Cast::new(Box::new(expr), to)))
            }
            _ => Transformed::no(expr),
        },
        other => Transformed::no(other),
    })
}

/// Functions whose arguments are brought into one type.
const MIXES: [&str; 5] = ["coalesce", "nullif", "greatest", "least", "nvl"];

/// Dates, and times that are not finer than a microsecond.
fn is_coarse(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(unit, _) => *unit != TimeUnit::Nanosecond,
        other => *other == DataType::Date32,
    }
}

/// Brings dates and times into the type of the times, if these have one in microseconds and there is nothing else.
fn in_one_type<'a>(values: impl Iterator<Item = &'a mut Expr>, schema: &DFSchema) -> bool {
    let mut dates = Vec::new();
    let mut wanted: Option<DataType> = None;
    for value in values {
        match value.get_type(schema) {
            Ok(DataType::Date32) => dates.push(value),
            Ok(DataType::Null) => {}
            Ok(found @ DataType::Timestamp(TimeUnit::Microsecond, _))
                if wanted.as_ref().is_none_or(|wanted| *wanted == found) =>
            {
                wanted = Some(found);
            }
            _ => return false,
        }
    }
    let Some(wanted) = wanted else { return false };
    let found = !dates.is_empty();
    for date in dates {
        *date = Expr::Cast(Cast::new(Box::new(std::mem::take(date)), wanted.clone()));
    }
    found
}

/// Whether it is the time of the statement, brought to microseconds.
fn is_now(expr: &Expr) -> bool {
    let inner = match expr {
        Expr::Cast(cast) => &cast.expr,
        _ => return false,
    };
    matches!(inner.as_ref(), Expr::ScalarFunction(call) if call.func.name() == "now")
}

/// The same for an expression and all that is in it, where nothing is settled yet: what is cast to `TIMESTAMP`, which stands
/// for nanoseconds, becomes microseconds too. In plans nobody can tell such a cast from one that the engine has put in
/// to compare with nanoseconds.
pub(super) fn prefer_micros(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let written = |node: Expr| match node {
        Expr::Cast(Cast { expr: inner, field }) => match (field.data_type(), inner.get_type(schema)) {
            (DataType::Timestamp(TimeUnit::Nanosecond, zone), Ok(from)) if is_coarse(&from) => {
                let to = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                Ok(Transformed::yes(Expr::Cast(Cast::new(inner, to))))
            }
            _ => prefer(Expr::Cast(Cast { expr: inner, field }), schema),
        },
        other => prefer(other, schema),
    };
    expr.transform_up(written).data()
}

/// The same for every plan of a session.
#[derive(Debug)]
pub(super) struct PreferMicros;

impl FunctionRewrite for PreferMicros {
    fn name(&self) -> &'static str {
        "prefer_micros"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        prefer(expr, schema)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
    use arrow::compute::concat;
    use arrow::datatypes::{Field, Int64Type, Schema, TimestampMicrosecondType};
    use chrono::{Datelike, NaiveDate, NaiveTime, TimeDelta, Timelike};
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::scan::{columns_of, parse_expression, parse_predicate, parse_spark, session};

    const DAY: i64 = 86_400_000_000;

    fn table() -> Schema {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Schema::new(vec![
            Field::new("ts", utc, true),
            Field::new("d", DataType::Date32, true),
        ])
    }

    /// Times from the year 1 to the year 9999.
    fn batch() -> arrow::array::RecordBatch {
        let day = 719_162_i64;
        let micros = (0..5000).map(|at| (at * 730_119 / 1000 - day) * DAY + at * 17_123_456_789 % DAY);
        let ts = TimestampMicrosecondArray::from_iter_values(micros.clone()).with_timezone("UTC");
        let d = Date32Array::from_iter_values(micros.map(|micros| micros.div_euclid(DAY) as i32));
        arrow::array::RecordBatch::try_new(Arc::new(table()), vec![Arc::new(ts), Arc::new(d)]).unwrap()
    }

    fn evaluate(expr: Expr) -> ArrayRef {
        let ctx = SessionContext::new();
        let schema = columns_of(&table(), None).unwrap();
        let batch = batch();
        let made = ctx.create_physical_expr(expr, &schema).unwrap();
        let values = made.evaluate(&batch).unwrap();
        values.into_array(batch.num_rows()).unwrap()
    }

    #[test]
    fn times_of_all_years_are_cut_off_as_the_calendar_says() {
        let batch = batch();
        let given = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        for unit in ["YEAR", "quarter", "MONTH", "day", "hour", "minute"] {
            let cut = evaluate(parse_spark(&format!("date_trunc('{unit}', ts)"), &table()).unwrap());
            let cut = cut.as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let at = given.value_as_datetime(row).unwrap();
                let (date, time) = (at.date(), at.time());
                let first = |month| NaiveDate::from_ymd_opt(date.year(), month, 1).unwrap();
                let hour = NaiveTime::from_hms_opt(time.hour(), 0, 0).unwrap();
                let expected = match unit {
                    "YEAR" => first(1).into(),
                    "quarter" => first((date.month() - 1) / 3 * 3 + 1).into(),
                    "MONTH" => first(date.month()).into(),
                    "day" => date.into(),
                    "hour" => date.and_time(hour),
                    _ => date.and_time(hour) + TimeDelta::minutes(time.minute().into()),
                };
                assert_eq!(cut.value_as_datetime(row), Some(expected), "{unit} of {at}");
            }
        }
    }

    #[test]
    fn dates_and_times_of_all_years_are_compared() {
        let schema = columns_of(&table(), None).unwrap();
        for text in [
            "ts >= d",
            "d <= ts",
            "ts BETWEEN d AND ts",
            "NOT (ts < d)",
            "ts > DATE '0001-01-01' OR d = DATE '0001-01-01'",
            "date_trunc('month', d) <= ts",
            "trunc(d, 'year') <= d",
            "date_trunc('day', ts) = d",
            "year(ts) = year(d)",
        ] {
            let all = |expr| evaluate(expr).as_boolean().true_count();
            assert_eq!(all(parse_spark(text, &table()).unwrap()), 5000, "{text}");
            if !text.contains('(') {
                assert_eq!(all(parse_predicate(text, &schema).unwrap()), 5000, "{text}");
            }
        }
    }

    async fn asked(sql: &str) -> ArrayRef {
        let ctx = session(None);
        let batch = batch();
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        ctx.register_table("t", Arc::new(table)).unwrap();
        let frame = ctx
            .sql(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows = frame
            .collect()
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let columns: Vec<_> = rows.iter().map(|batch| batch.column(0).as_ref()).collect();
        concat(&columns).unwrap()
    }

    #[tokio::test]
    async fn queries_cut_off_times_of_all_years_as_rules_do_and_weeks_begin_on_mondays() {
        for unit in ["YEAR", "quarter", "MONTH", "day", "hour", "minute"] {
            let rule = evaluate(parse_spark(&format!("date_trunc('{unit}', ts)"), &table()).unwrap());
            let schema = columns_of(&table(), None).unwrap();
            let text = format!("date_trunc('{unit}', ts)");
            assert_eq!(&asked(&format!("SELECT {text} FROM t")).await, &rule, "{unit}");
            assert_eq!(
                &evaluate(parse_expression(&text, &schema).unwrap()),
                &rule,
                "{unit}"
            );
        }
        let batch = batch();
        let given = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        for (text, of_date) in [("date_trunc('week', ts)", false), ("datetrunc('week', d)", true)] {
            let weeks = asked(&format!("SELECT {text} FROM t")).await;
            assert_eq!(
                weeks.data_type(),
                &DataType::Timestamp(TimeUnit::Microsecond, (!of_date).then(|| "UTC".into()))
            );
            let weeks = weeks.as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let date = given.value_as_datetime(row).unwrap().date();
                let back = date.weekday().num_days_from_monday();
                let monday = date - TimeDelta::days(back.into());
                assert_eq!(
                    weeks.value_as_datetime(row),
                    Some(monday.into()),
                    "{text} of {date}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_the_engine_cuts_off_elsewhere_is_still_its_own() {
        for (sql, expected) in [
            (
                "date_trunc('day', arrow_cast('2013-07-15T23:30:00Z', 'Timestamp(us, \"Europe/Berlin\")'))",
                "2013-07-16T00:00:00+02:00",
            ),
            (
                "date_trunc('month', TIMESTAMP '2013-07-15 01:02:03.123456789')",
                "2013-07-01T00:00:00",
            ),
            (
                "date_trunc('microsecond', TIMESTAMP '2013-07-15 01:02:03.123456789')",
                "2013-07-15T01:02:03.123456",
            ),
            (
                "date_trunc('microsecond', TIMESTAMP '1969-12-31 23:59:59.123456789')",
                "1969-12-31T23:59:59.123456",
            ),
            (
                "date_trunc('millisecond', arrow_cast('1950-06-01T10:20:30.123456Z', 'Timestamp(us, \"Europe/Berlin\")'))",
                "1950-06-01T11:20:30.123+01:00",
            ),
            (
                "date_trunc('hour', arrow_cast('2013-10-27T00:30:00Z', 'Timestamp(us, \"Europe/Berlin\")'))",
                "2013-10-27T02:00:00+02:00",
            ),
            (
                "date_trunc('hour', arrow_cast('2013-10-27T01:30:00Z', 'Timestamp(us, \"Europe/Berlin\")'))",
                "2013-10-27T02:00:00+01:00",
            ),
            (
                "date_trunc('day', arrow_cast('2013-10-27T12:30:00Z', 'Timestamp(us, \"Europe/Berlin\")'))",
                "2013-10-27T00:00:00+02:00",
            ),
            ("date_trunc('hour', '2024-05-15T10:30:00')", "2024-05-15T10:00:00"),
            ("date_trunc('hour', TIME '10:30:00')", "10:00:00"),
            (
                "date_trunc('millisecond', arrow_cast('0001-01-01T00:00:00.123456', 'Timestamp(us)'))",
                "0001-01-01T00:00:00.123",
            ),
            ("coalesce(date_trunc('day', NULL)::text, 'none')", "none"),
        ] {
            let found = asked(&format!("SELECT CAST({sql} AS VARCHAR)")).await;
            assert_eq!(found.as_string::<i32>().value(0), expected, "{sql}");
        }
        let ctx = session(None);
        for (sql, said) in [
            ("date_trunc('era', now())", "era"),
            ("date_trunc('day', 1)", "times and dates"),
        ] {
            let failed = match ctx.sql(&format!("SELECT {sql}")).await {
                Ok(frame) => frame.collect().await.unwrap_err(),
                Err(error) => error,
            };
            assert!(failed.to_string().contains(said), "{sql}: {failed}");
        }
    }

    #[tokio::test]
    async fn queries_mix_and_write_out_dates_and_times_of_all_years() {
        for text in [
            "CAST(d AS TIMESTAMP) <= ts",
            "CAST(ts AS TIMESTAMP) = ts",
            "ts AT TIME ZONE 'Europe/Berlin' = ts",
            "coalesce(ts, d) = ts",
            "coalesce(NULL, d, ts) = d",
            "nullif(ts, d) >= d OR ts = d",
            "greatest(d, ts) = ts",
            "least(ts, d) = d",
            "CASE WHEN ts > d THEN d ELSE ts END = d",
            "ts IN (d, ts)",
            "ts - d >= INTERVAL '0 days'",
            "(now() > d) = (now() > ts)",
            "to_char(ts, '%Y-%m') = to_char(d, '%Y-%m')",
            "x >= d AND date_trunc('day', x) = d",
        ] {
            let sql =
                format!("SELECT count(*) FROM (SELECT ts, d, coalesce(ts, d) AS x FROM t) WHERE {text}");
            assert_eq!(
                asked(&sql).await.as_primitive::<Int64Type>().value(0),
                5000,
                "{text}"
            );
            // What a merge evaluates itself still goes by way of nanoseconds.
            if !text.contains('x') && !text.contains("to_char") {
                let schema = columns_of(&table(), None).unwrap();
                let found = evaluate(parse_predicate(text, &schema).unwrap());
                assert_eq!(found.as_boolean().true_count(), 5000, "{text}");
            }
        }
    }
}
