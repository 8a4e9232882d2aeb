use clap::{Args, ValueEnum};
use lakehouse_core::model::CheckpointKind;
use serde_json::json;

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Write a checkpoint of a Delta table: the newest version as readers begin with it.
///
/// It is read back and compared with the log before readers are pointed to it. Commits write one by themselves, each
/// delta.checkpointInterval versions (10). Iceberg has none.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake checkpoint flights"#)]
pub(super) struct Checkpoint {
    /// Path or URL of the table
    table: String,
    /// One file that every reader knows (classic), or one that names the files with the list of data
    /// files (v2; needs the table feature v2Checkpoint) [default: as delta.checkpointPolicy says, else classic]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    storage: StorageArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Classic,
    V2,
}

pub(super) async fn checkpoint(args: Checkpoint, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let kind = match args.format {
        None => CheckpointKind::Auto,
        Some(Format::Classic) => CheckpointKind::Classic,
        Some(Format::V2) => CheckpointKind::V2,
    };
    let working = ui.progress(format!("checkpoint {}", args.table));
    let done = table.checkpoint(kind).await?;
    drop(working);
    if ui.json {
        return ui.json(&json!({
            "operation": "checkpoint", "table": args.table, "version": done.version, "files": done.files,
            "bytes": done.bytes, "data_files": done.data_files, "already": done.already,
        }));
    }
    let how = match done.already {
        true => "was there already",
        false => "written",
    };
    ui.line(&format!(
        "checkpoint {}: version {} {how}, {} data files in {}",
        args.table,
        done.version,
        done.data_files,
        values::show_bytes(done.bytes)
    ))
}
