use std::collections::BTreeMap;

use clap::Args;
use lakehouse_core::model::At;
use serde_json::json;

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// List the commits of a table, newest first.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake history flights
  lake history flights --branch audit"#)]
pub(super) struct History {
    /// Path or URL of the table
    table: String,
    /// The commits of this branch instead of main's (Iceberg)
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
}

/// What is worth a reader's time, in the order shown, by who wrote the commit: we, another writer of
/// Iceberg, another writer of Delta. `--json` has everything.
const NOTES: [&[&str]; 3] = [
    &[
        "rows_inserted",
        "rows_updated",
        "rows_deleted",
        "files_added",
        "files_removed",
        "files_masked",
    ],
    &[
        "added-records",
        "deleted-records",
        "added-position-deletes",
        "added-data-files",
        "deleted-data-files",
    ],
    &[
        "numOutputRows",
        "numTargetRowsInserted",
        "numTargetRowsUpdated",
        "numTargetRowsDeleted",
        "numDeletedRows",
        "numUpdatedRows",
        "numFiles",
        "numAddedFiles",
        "numRemovedFiles",
    ],
];

/// The notes of one commit: the first group of which something is there, without what is zero.
fn notes(summary: &BTreeMap<String, String>) -> String {
    let value = |key: &str| {
        summary
            .get(key)
            .or_else(|| summary.get(&format!("lakehouse.{key}")))
    };
    let group = NOTES
        .iter()
        .find(|group| group.iter().any(|key| value(key).is_some()));
    let shown: Vec<_> = group
        .into_iter()
        .flat_map(|group| group.iter())
        .filter_map(|key| Some((key, value(key).filter(|value| *value != "0")?)))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    shown.join(" ")
}

pub(super) async fn history(args: History, ui: &Ui) -> Result<(), Failure> {
    let at = args.branch.clone().map_or(At::Latest, At::Ref);
    let table = args.storage.open(&args.table).await?;
    let commits = table.history_at(&at, None).await?;
    if ui.json {
        let commits: Vec<_> = commits
            .iter()
            .map(|commit| {
                json!({
                    "version": commit.version, "parent": commit.parent, "timestamp_ms": commit.timestamp_ms,
                    "timestamp": values::show_time(commit.timestamp_ms), "operation": commit.operation,
                    "summary": commit.summary,
                })
            })
            .collect();
        return ui.json(&json!({"table": args.table, "commits": commits}));
    }
    let rows: Vec<_> = commits
        .iter()
        .map(|commit| {
            vec![
                commit.version.to_string(),
                values::show_time(commit.timestamp_ms),
                commit.operation.clone(),
                notes(&commit.summary),
            ]
        })
        .collect();
    ui.table(&["version", "time (UTC)", "operation", "notes"], &rows)
}
