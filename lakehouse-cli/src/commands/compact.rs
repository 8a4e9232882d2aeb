use clap::Args;
use lakehouse_core::operations;

use super::WriteArgs;
use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Rewrite small files and files with masked rows into good ones.
///
/// Rows do not change. A second run finds nothing to do.
///
/// Example:
///   lake compact flights --target-file-size 256MB --where "time_hour >= '2013-06-01'"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Compact {
    /// Path or URL of the table
    table: String,
    /// Size of the new files [default: the table's setting, else 512MB]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    target_file_size: Option<u64>,
    /// Only files that may hold rows for which this is true
    #[arg(long = "where", value_name = "EXPR", allow_hyphen_values = true)]
    predicate: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(super) async fn compact(args: Compact, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let working = ui.progress(format!("compact {}", args.table));
    let what = operations::Compact {
        target_file_bytes: args.target_file_size,
        predicate: args.predicate.clone(),
    };
    let report = table.compact(&what, &args.write.options()).await?;
    drop(working);
    ui.report(&args.table, &report)
}
