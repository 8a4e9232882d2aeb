use clap::Args;
use lakehouse_core::Options;
use lakehouse_core::model::FLOOR_MS;
use lakehouse_core::operations;
use serde_json::json;

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Let old versions go, and the files of the metadata that only they needed.
///
/// A version goes when it is old enough and not among the last ones of its branch. It grows old from when the
/// next one took its place. What a tag or branch says itself comes first, then the options, then the table's
/// properties. Versions of tags and of branches stay,
/// the newest version always does, and every version that stays is read as before. Ages are those of the
/// store's clock; a dry run writes nothing to ask for it, and counts by this machine's. Whatever age is
/// asked for, no name that stands for a version is freed within 2d (48 hours), twice as long as a writer
/// may take: a slow one could take it again.
///
/// Data files are not touched: those that no version needs any more are for lake vacuum.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake expire flights --older-than 7d --retain-last 10 --dry-run"#)]
pub(super) struct Expire {
    /// Path or URL of the table
    table: String,
    /// Versions of this age go: 7d, 12h, 0d for all [default: the table's setting, else 5d (Iceberg), 30d (Delta)]
    #[arg(long, value_name = "TIME", value_parser = values::parse_age)]
    older_than: Option<i64>,
    /// So many versions of each branch stay, however old [default: the table's setting, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    retain_last: Option<u32>,
    /// Say what would go, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(super) async fn expire(args: Expire, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let what = operations::Expire {
        older_than_ms: args.older_than,
        retain_last: args.retain_last,
    };
    let options = Options {
        dry_run: args.dry_run,
        ..Options::default()
    };
    let working = ui.progress(format!("expire {}", args.table));
    let report = table.expire(&what, &options).await?;
    drop(working);
    if ui.json {
        return ui.json(&json!({
            "operation": "expire", "table": args.table, "version": report.version,
            "committed": report.committed, "dry_run": report.dry_run, "attempts": report.attempts,
            "expired": report.expired, "kept": report.kept, "refs_dropped": report.refs_dropped,
            "too_young": report.too_young, "files_deleted": report.files.files,
            "bytes_deleted": report.files.bytes, "files_too_young": report.files.too_young,
            "checkpoint": report.files.checkpoint,
        }));
    }
    let would = if report.dry_run { "would go" } else { "went" };
    let mut lines = vec![format!(
        "expire {}: {}{} {would}, {} kept",
        args.table,
        if report.dry_run { "dry run: " } else { "" },
        counted(report.expired.len() as u64, "version"),
        report.kept
    )];
    if !report.refs_dropped.is_empty() {
        lines.push(format!(
            "  tags and branches that {would}: {}",
            report.refs_dropped.join(", ")
        ));
    }
    let files = &report.files;
    if !files.files.is_empty() {
        lines.push(format!(
            "  {} of the metadata {would}, {}",
            counted(files.files.len() as u64, "file"),
            values::show_bytes(files.bytes)
        ));
    }
    if let Some(version) = files.checkpoint {
        lines.push(format!("  version {version} is read from its checkpoint"));
    }
    if report.too_young + files.too_young > 0 {
        lines.push(format!(
            "  {} and {} stay for now: they are younger than {} hours",
            counted(report.too_young, "version"),
            counted(files.too_young, "file"),
            FLOOR_MS / 3_600_000
        ));
    }
    lines.push("  no data file was touched".to_owned());
    ui.line(&lines.join("\n"))
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
