use clap::Args;
use lakehouse_core::Options;
use serde_json::json;

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;

/// Write the manifests of an Iceberg table anew: fewer of them, by partition.
///
/// Readers plan sooner; no data file changes. Manifests are about as large as the table's property
/// commit.manifest.target-size-bytes says (8 MB). A second run finds nothing to do. Commits join small
/// manifests by themselves, a hundred at a time. Delta has none.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake rewrite-manifests flights"#)]
pub(super) struct RewriteManifests {
    /// Path or URL of the table
    table: String,
    /// Those of this branch instead of main
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(super) async fn rewrite_manifests(args: RewriteManifests, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let options = Options {
        dry_run: args.dry_run,
        branch: args.branch,
        ..Options::default()
    };
    let working = ui.progress(format!("rewrite-manifests {}", args.table));
    let report = table.rewrite_manifests(&options).await?;
    drop(working);
    let found = report.manifests;
    if ui.json {
        return ui.json(&json!({
            "operation": "rewrite-manifests", "table": args.table, "version": report.version,
            "committed": report.committed, "dry_run": report.dry_run, "attempts": report.attempts,
            "manifests_kept": found.kept, "manifests_replaced": found.replaced,
            "manifests_created": found.created,
        }));
    }
    let what = match (report.committed, report.dry_run) {
        (true, _) => format!("version {}", report.version),
        (false, true) => "dry run, nothing was committed".to_owned(),
        (false, false) => "nothing to do".to_owned(),
    };
    ui.line(&format!(
        "rewrite-manifests {}: {what}; {} replaced by {}, {} kept",
        args.table, found.replaced, found.created, found.kept
    ))
}
