//! The proof: the table against the source files, read by nothing of ours.

use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{SessionConfig, SessionContext, col};
use lakehouse_core::Table;
use lakehouse_core::model::At;

use super::feed::{Feed, KEY};
use super::{columns, parquet};
use crate::exit::Failure;

/// Compares the newest version of the table with the schedule joined to what happened, in every row
/// and column. Returns the number of rows.
///
/// Both sides have as many rows, no key twice, and no row that the other lacks: so they are equal.
pub(super) async fn equal_to_source(table: &Table, feed: &Feed) -> Result<u64, Failure> {
    // The engine as it comes: none of our settings, none of our readers.
    let context = SessionContext::new_with_config(SessionConfig::new());
    let expected = source(&context, feed).await?.cache().await?;
    let actual = context.read_table(table.provider(&At::Latest).await?)?;
    let names: Vec<String> = expected
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let actual = actual.select(columns(&names))?.cache().await?;

    let rows = expected.clone().count().await?;
    let found = actual.clone().count().await?;
    if rows != found {
        return Err(Failure::Check(format!(
            "the table has {found} rows, the source {rows}"
        )));
    }
    let keys = actual.clone().select(columns(&KEY))?.distinct()?.count().await?;
    if keys != rows {
        return Err(Failure::Check(format!(
            "{} keys are twice in the table",
            rows - keys
        )));
    }
    for (one, other, what) in [
        (&actual, &expected, "rows of the table are not in the source"),
        (&expected, &actual, "rows of the source are not in the table"),
    ] {
        let missing = one.clone().except(other.clone())?;
        let differ = missing.clone().count().await?;
        if differ > 0 {
            let sample = missing.limit(0, Some(3))?.to_string().await?;
            return Err(Failure::Check(format!("{differ} {what}, for example\n{sample}")));
        }
    }
    Ok(rows as u64)
}

/// The schedule with what happened, or NULLs where nothing is known.
async fn source(context: &SessionContext, feed: &Feed) -> Result<DataFrame, Failure> {
    let schedule = parquet(context, &feed.schedule()).await?;
    let all: Vec<String> = schedule
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let mut actuals = parquet(context, &feed.month_file(1)).await?;
    for month in 2..=feed.months() {
        actuals = actuals.union(parquet(context, &feed.month_file(month)).await?)?;
    }
    let happened: Vec<String> = actuals
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    // One row per key on each side, or the join would make more of them.
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
