use clap::Args;
use lakehouse_core::model::{At, DataFile, Snapshot};
use serde_json::json;

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// List the data files of the newest version of a table.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake files flights
  lake files flights --where "carrier = 'UA' AND distance > 2000""#)]
pub(super) struct Files {
    /// Path or URL of the table
    table: String,
    /// Only files that may hold a row for which this is true, as far as partitions and statistics tell
    #[arg(long = "where", value_name = "EXPR", allow_hyphen_values = true)]
    condition: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(super) async fn files(args: Files, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let snapshot = table.snapshot(&At::Latest).await?;
    let mut files = match &args.condition {
        Some(condition) => table.files_where(&snapshot, condition).await?,
        None => table.files(&At::Version(snapshot.version)).await?,
    };
    for file in &mut files {
        file.path = table.handle().store.shown(&file.path);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if ui.json {
        let files: Vec<_> = files
            .iter()
            .map(|file| {
                json!({
                    "path": file.path, "rows": file.rows, "masked_rows": file.masked_rows(),
                    "bytes": file.bytes, "partition": partition(&snapshot, file), "spec_id": file.spec_id,
                    "equality_deletes": file.equality_deletes.len(),
                })
            })
            .collect();
        return ui.json(&json!({"table": args.table, "version": snapshot.version, "files": files}));
    }
    let rows: Vec<_> = files
        .iter()
        .map(|file| {
            let partition: Vec<_> = partition(&snapshot, file)
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            vec![
                file.path.clone(),
                partition.join(" "),
                values::show_count(file.rows),
                file.masked_rows().map_or_else(|| "?".into(), values::show_count),
                values::show_bytes(file.bytes),
            ]
        })
        .collect();
    ui.table(&["file", "partition", "rows", "masked", "size"], &rows)?;
    let bytes = files.iter().map(|file| file.bytes).sum();
    ui.line(&format!("{} files, {}", files.len(), values::show_bytes(bytes)))
}

/// Names and values of a file's partition, in the words of its own spec.
fn partition(snapshot: &Snapshot, file: &DataFile) -> std::collections::BTreeMap<String, String> {
    snapshot
        .specs
        .get(&file.spec_id)
        .into_iter()
        .flatten()
        .zip(&file.partition)
        .map(|(field, value)| (field.name.clone(), field.text(value)))
        .collect()
}
