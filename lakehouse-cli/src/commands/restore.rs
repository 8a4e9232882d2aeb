use clap::Args;
use lakehouse_core::model::At;

use super::storage::StorageArgs;
use super::{AtArgs, WriteArgs};
use crate::exit::Failure;
use crate::output::Ui;

/// Make an older version current again, as a new version.
///
/// A version whose files are not there any more, because a vacuum took them, is refused.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake restore flights --version -1
  lake restore flights --as-of "2026-11-20 12:00""#)]
#[command(group = clap::ArgGroup::new("at").args(["version", "as_of"]).required(true))]
pub(super) struct Restore {
    /// Path or URL of the table
    table: String,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(super) async fn restore(args: Restore, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let at = args.at.at().unwrap_or(At::Latest);
    let working = ui.progress(format!("restore {}", args.table));
    let report = table.restore(&at, &args.write.options()).await?;
    drop(working);
    ui.report(&args.table, &report)
}
