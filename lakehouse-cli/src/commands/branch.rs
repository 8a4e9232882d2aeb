use clap::Args;
use lakehouse_core::model::RefKind;

use super::AtArgs;
use super::storage::StorageArgs;
use super::tag::{ChangeArgs, list, told};
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Make a branch of an Iceberg table, publish what was written to one, or list them.
///
/// Verbs that write take --branch NAME: they see the rows of the branch, and leave main alone.
/// Queries see a branch with --version NAME, VERSION AS OF 'NAME' or as 'TABLE.branch_NAME', which
/// SQL can write to as well. --fast-forward-to makes what is on another branch part of this one,
/// unless this one has commits that the other lacks. Without NAME the branches of the table are
/// listed.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake branch flights audit
  lake append flights january.parquet --branch audit
  lake query "SELECT count(*) FROM 'flights' WHERE carrier IS NULL" --version audit
  lake branch flights main --fast-forward-to audit
  lake branch flights audit --drop"#)]
pub(super) struct Branch {
    /// Path or URL of the table
    table: String,
    /// Name of the branch [default: list all branches]
    name: Option<String>,
    /// Move the branch forward to the version of this branch (or tag)
    #[arg(long, value_name = "NAME", requires = "name",
        conflicts_with_all = ["version", "as_of", "replace", "drop", "keep_for", "min_snapshots", "max_snapshot_age"])]
    fast_forward_to: Option<String>,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    change: ChangeArgs,
    /// How many versions of the branch are kept from being expired at least [default: the table's setting]
    #[arg(long, value_name = "N", requires = "name", conflicts_with = "drop")]
    min_snapshots: Option<i32>,
    /// How long versions of the branch are kept from being expired: 7d, 12h [default: the table's setting]
    #[arg(long, value_name = "TIME", requires = "name", conflicts_with = "drop", value_parser = values::parse_duration)]
    max_snapshot_age: Option<i64>,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(super) async fn branch(args: Branch, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let Some(name) = &args.name else {
        if args.at.at().is_some() {
            return Err(Failure::usage(
                "--version and --as-of say where a branch is made",
                "name the branch, or leave them out to list all",
            ));
        }
        return list(&args.table, &table.refs().await?, RefKind::Branch, ui);
    };
    let options = args.change.options();
    let report = if let Some(to) = &args.fast_forward_to {
        table.fast_forward(name, to, &options).await?
    } else if args.change.drop {
        table.drop_ref(RefKind::Branch, name, &options).await?
    } else {
        let mut wanted = args.change.wanted(RefKind::Branch, name, args.at.at());
        wanted.retention.min_snapshots_to_keep = args.min_snapshots;
        wanted.retention.max_snapshot_age_ms = args.max_snapshot_age;
        table.set_ref(&wanted, &options).await?
    };
    told(&args.table, RefKind::Branch, &report, ui)
}
