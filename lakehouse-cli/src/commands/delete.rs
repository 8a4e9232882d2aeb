use clap::Args;

use super::storage::StorageArgs;
use super::{TouchArgs, WriteArgs};
use crate::exit::Failure;
use crate::output::Ui;

/// Delete the rows that match.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake delete flights --where "cancelled and dep_delay is null""#)]
pub(super) struct Delete {
    /// Path or URL of the table
    table: String,
    /// The rows for which this is true
    #[arg(long = "where", value_name = "EXPR", allow_hyphen_values = true)]
    predicate: String,
    #[command(flatten)]
    touch: TouchArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(super) async fn delete(args: Delete, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let working = ui.progress(format!("delete from {}", args.table));
    let report = table
        .delete(&args.predicate, &args.touch.options(&args.write)?)
        .await?;
    drop(working);
    ui.report(&args.table, &report)
}
