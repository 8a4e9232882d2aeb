//! The proof: the table against the source files, read by nothing of ours.

use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::{max, sum};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use lakehouse_core::Table;
use lakehouse_core::model::At;

use super::feed::{Feed, KEY, REPORT};
use super::{columns, parquet};
use crate::exit::Failure;

/// Compares the newest version of the table with the schedule joined to what happened, in every row
/// and column. Returns the number of rows.
///
/// Rows of the source count as 1, rows of the table as -1; equal rows cancel out, and nothing is left
/// exactly when both hold the same rows, each as often.
pub(super) async fn equal_to_source(table: &Table, feed: &Feed) -> Result<u64, Failure> {
    // The engine as it comes: none of our settings, none of our readers.
    let context = SessionContext::new_with_config(SessionConfig::new());
    let expected = source(&context, feed).await?;
    let names = names(&expected);
    let columns = columns(&names);
    let found = context.read_table(table.provider(&At::Latest).await?)?;
    if found.schema().fields().len() != columns.len() {
        return Err(Failure::Check(
            "the table has other columns than the source".into(),
        ));
    }
    let with_side = |frame: DataFrame, side: i64| -> Result<DataFrame, Failure> {
        let mut all = columns.clone();
        all.push(lit(side).alias(SIDE));
        Ok(frame.select(all)?)
    };
    let left = with_side(expected, 1)?
        .union(with_side(found, -1)?)?
        .aggregate(columns.clone(), vec![sum(col(SIDE)).alias(SIDE)])?
        .filter(col(SIDE).not_eq(lit(0)))?
        .cache()
        .await?;
    let differ = left.clone().count().await?;
    if differ > 0 {
        let sample = left.limit(0, Some(3))?.to_string().await?;
        return Err(Failure::Check(format!(
            "{differ} rows differ ({SIDE} is above 0 where only the source has them), for example\n{sample}"
        )));
    }
    Ok(context
        .read_table(table.provider(&At::Latest).await?)?
        .count()
        .await? as u64)
}

/// Name of the column that tells the sides apart.
const SIDE: &str = "_side";

fn names(frame: &DataFrame) -> Vec<String> {
    frame
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

/// The schedule with what happened, or NULLs where nothing is known.
async fn source(context: &SessionContext, feed: &Feed) -> Result<DataFrame, Failure> {
    let schedule = parquet(context, &feed.schedule()).await?;
    let all = names(&schedule);
    let mut actuals = parquet(context, &feed.month_file(1)).await?;
    for month in 2..=feed.months() {
        actuals = actuals.union(parquet(context, &feed.month_file(month)).await?)?;
    }
    let happened = names(&actuals);
    let newest = actuals
        .clone()
        .aggregate(columns(&KEY), vec![max(col(REPORT)).alias(REPORT)])?
        .alias("newest")?;
    let same = KEY
        .iter()
        .chain([&REPORT])
        .map(|name| col(format!("reports.\"{name}\"")).eq(col(format!("newest.\"{name}\""))));
    let actuals = actuals
        .alias("reports")?
        .join_on(newest, JoinType::LeftSemi, same)?;
    // One row per key, or the join would make more of them.
    let keys = actuals.clone().select(columns(&KEY))?.distinct()?.count().await?;
    if keys != actuals.clone().count().await? {
        return Err(Failure::Check(
            "the feed contradicts itself: one key with two sets of values".into(),
        ));
    }
    let scheduled: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|name| KEY.contains(name) || !happened.iter().any(|other| other == name))
        .collect();
    let schedule = schedule.select(columns(&scheduled))?.alias("schedule")?;
    let actuals = actuals.alias("actuals")?;
    let on: Vec<_> = KEY
        .iter()
        .map(|key| col(format!("schedule.\"{key}\"")).eq(col(format!("actuals.\"{key}\""))))
        .collect();
    let joined = schedule.join_on(actuals, JoinType::Left, on)?;
    let picked: Vec<_> = all
        .iter()
        .map(|name| {
            let side = if scheduled.contains(&name.as_str()) {
                "schedule"
            } else {
                "actuals"
            };
            col(format!("{side}.\"{name}\"")).alias(name)
        })
        .collect();
    Ok(joined.select(picked)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::dataframe::DataFrameWriteOptions;
    use lakehouse_core::model::Definition;
    use lakehouse_core::{Options, Rows, TableFormat};

    const FLIGHTS: &str = "SELECT to_timestamp_micros(g.value * 3600000000) AS time_hour, 'AA' AS carrier, \
         g.value AS flight, 'JFK' AS origin, g.value * 10 AS distance, CAST(NULL AS BIGINT) AS arr_delay \
         FROM generate_series(1, 24) AS g";

    /// Twenty-four flights, one in two of which is reported, all in the same month.
    async fn fixtures(folder: &std::path::Path) {
        let context = SessionContext::new();
        let mut files = vec![("schedule.parquet".to_owned(), FLIGHTS.to_owned())];
        for month in 1..=12 {
            let sql = format!(
                "SELECT time_hour, carrier, flight, origin, report, \
                 CASE WHEN report = 2 THEN flight - 3 END AS arr_delay \
                 FROM ({FLIGHTS}) CROSS JOIN (VALUES (1), (2)) AS r(report) WHERE flight % 2 = 0 AND {month} = 3"
            );
            files.push((format!("actuals-2013-{month:02}.parquet"), sql));
        }
        for (name, sql) in files {
            let path = folder.join(name).display().to_string();
            let options = DataFrameWriteOptions::new().with_single_file_output(true);
            context
                .sql(&sql)
                .await
                .unwrap()
                .write_parquet(&path, options, None)
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_row_too_few_too_many_or_changed_is_found() {
        let folder = tempfile::TempDir::new().unwrap();
        fixtures(folder.path()).await;
        let feed = Feed::open(folder.path()).await.unwrap();
        let definition = Definition {
            schema: feed.schema(),
            partition_fields: Vec::new(),
            properties: std::collections::BTreeMap::new(),
            format_version: None,
        };
        let place = folder.path().join("table").display().to_string();
        let table = Table::create(&place, TableFormat::Delta, &definition)
            .await
            .unwrap();
        let options = Options::default();
        let plain = SessionContext::new();
        let right = || async { Rows::frame(source(&plain, &feed).await.unwrap()) };

        table.append(right().await, &options).await.unwrap();
        assert_eq!(equal_to_source(&table, &feed).await.unwrap(), 24);

        table.append(right().await, &options).await.unwrap();
        assert!(equal_to_source(&table, &feed).await.is_err(), "every row twice");

        table.overwrite(right().await, None, &options).await.unwrap();
        table.delete("flight = 7", &options).await.unwrap();
        assert!(equal_to_source(&table, &feed).await.is_err(), "a row too few");

        table.overwrite(right().await, None, &options).await.unwrap();
        table
            .update("arr_delay = 0", Some("flight = 7"), &options)
            .await
            .unwrap();
        let error = equal_to_source(&table, &feed).await.unwrap_err();
        assert!(
            matches!(&error, Failure::Check(text) if text.starts_with("2 rows differ")),
            "{error:?}"
        );
    }
}
