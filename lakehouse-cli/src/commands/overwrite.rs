use clap::Args;

use super::storage::StorageArgs;
use super::{InputArgs, SchemaArgs, TouchArgs, WriteArgs};
use crate::exit::Failure;
use crate::input::Input;
use crate::output::Ui;

/// Replace all rows of a table, or those that match, by the rows of a file.
///
/// It is one commit: readers see the old rows or the new ones. With --where, new rows that do not
/// match the condition are an error.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake overwrite flights january.parquet --where "month = 1"
  lake overwrite flights january_with_delays.parquet --where "month = 1" --schema-mode merge"#)]
pub(super) struct Overwrite {
    /// Path or URL of the table
    table: String,
    /// The new rows: a parquet, csv, ndjson or arrow file, or - for stdin
    #[arg(required = true, value_name = "FILE|-")]
    files: Vec<String>,
    #[command(flatten)]
    input: InputArgs,
    /// Replace only the rows for which this is true
    #[arg(long = "where", value_name = "EXPR", allow_hyphen_values = true)]
    predicate: Option<String>,
    #[command(flatten)]
    touch: TouchArgs,
    #[command(flatten)]
    schema: SchemaArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(super) async fn overwrite(args: Overwrite, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let input = Input::open_all(&args.files, args.input.format()?).await?;
    let working = ui.progress(format!("overwrite {}", args.table));
    let report = table
        .overwrite(
            input.rows,
            args.predicate.as_deref(),
            &args.touch.options(&args.write)?.schema_mode(args.schema.mode()),
        )
        .await?;
    drop(working);
    ui.report(&args.table, &report)
}
