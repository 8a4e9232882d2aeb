use clap::Args;

use super::storage::StorageArgs;
use super::{TouchArgs, WriteArgs};
use crate::exit::Failure;
use crate::output::Ui;

/// Set columns in the rows that match (in all rows without --where).
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake update flights --set "dep_delay = 0, cancelled = false" --where "dep_delay < 0""#)]
pub(super) struct Update {
    /// Path or URL of the table
    table: String,
    /// Columns and their new values: "c = expr, .."
    #[arg(long, value_name = "SET", allow_hyphen_values = true)]
    set: String,
    /// Only the rows for which this is true
    #[arg(long = "where", value_name = "EXPR", allow_hyphen_values = true)]
    predicate: Option<String>,
    #[command(flatten)]
    touch: TouchArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(super) async fn update(args: Update, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let working = ui.progress(format!("update {}", args.table));
    let report = table
        .update(
            &args.set,
            args.predicate.as_deref(),
            &args.touch.options(&args.write)?,
        )
        .await?;
    drop(working);
    ui.report(&args.table, &report)
}
