use clap::Args;
use lakehouse_core::operations::vacuum::{Tally, Vacuumed};
use lakehouse_core::{Vacuum as What, model::Version};
use serde_json::{Map, Value, json};

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values::{parse_age, show_bytes, show_count, show_duration, show_time};

/// Remove files that no retained version needs and nobody may still need.
///
/// What goes: data files, masks, manifests, statistics, changed rows and left-over temporary files
/// below the table's place that belong to no retained version and are old enough, by the store's
/// clock. Iceberg retains every version until it expires; Delta those that were current within
/// delta.deletedFileRetentionDuration (7 days): older ones cannot be read afterwards. Logs, table
/// metadata, hidden files and folders of others and what the format does not write stay. Writers
/// and readers may be at work. A second run does nothing. A dry run writes nothing, not even to ask
/// for the store's clock: it counts by this machine's, or from the newest file if that is later.
///
/// A table that was made of files which were there (lake create --from-parquet) may share its place:
/// data files that lake did not write, those that it was made of among them, are told of and stay,
/// also when no version needs them any more, unless --adopted says that they may go.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake vacuum flights --dry-run
  lake vacuum flights --older-than 14d --quarantine .quarantine"#)]
pub(super) struct Vacuum {
    /// Path or URL of the table
    table: String,
    /// Only files of this age, that no version needs which was current within this time: 14d, 72h; at least 2d (48 hours),
    /// twice as long as a writer may take [default: as the table says, else 7d for Delta; 3d for Iceberg]
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    older_than: Option<i64>,
    /// Keep these versions too, whatever their age
    #[arg(long, value_name = "V,..", value_delimiter = ',')]
    keep_versions: Vec<Version>,
    /// Move files into this hidden folder of the table instead of deleting them; they keep their paths below it, so that
    /// moving them back repairs. Later vacuums leave it alone and tell how much is in it
    #[arg(long, value_name = "DIR")]
    quarantine: Option<String>,
    /// Of a table made of files that were there: also remove data files that lake did not write
    #[arg(long)]
    adopted: bool,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// List every file that goes (always with --json)
    #[arg(long, short)]
    verbose: bool,
    /// Allow --older-than less than 2d. Whoever says so promises that nobody writes to the table until this is done: files
    /// that a writer has not committed yet would be removed, and its commit would name files that are not there
    #[arg(long)]
    unsafe_no_writers: bool,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(super) async fn vacuum(args: Vacuum, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let working = ui.progress(format!("vacuum {}", args.table));
    let what = What {
        older_than_ms: args.older_than,
        keep_versions: args.keep_versions.clone(),
        dry_run: args.dry_run,
        quarantine: args.quarantine.clone(),
        list: args.verbose || ui.json,
        adopted: args.adopted,
        unsafe_no_writers: args.unsafe_no_writers,
    };
    let report = table.vacuum(&what).await?;
    drop(working);
    if ui.json {
        return ui.json(&as_json(&args.table, &report));
    }
    print(&args.table, &report, ui)
}

fn print(table: &str, report: &Vacuumed, ui: &Ui) -> Result<(), Failure> {
    let done = match (report.dry_run, &report.quarantine) {
        (true, None) => "would be removed".to_owned(),
        (true, Some(folder)) => format!("would be moved to {folder}"),
        (false, None) => "removed".to_owned(),
        (false, Some(folder)) => format!("moved to {folder}"),
    };
    let dry_run = if report.dry_run { "dry run, " } else { "" };
    ui.line(&format!(
        "vacuum {table}: {dry_run}{} {done}",
        files(&report.total())
    ))?;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let versions = match report.versions_kept {
        1 => format!("version {}", report.oldest_kept),
        more => format!("{} versions from {} on", show_count(more), report.oldest_kept),
    };
    pairs.push(("  kept", format!("{versions}: {}", files(&report.kept))));
    let age = show_duration(report.older_than_ms);
    if report.young.count > 0 {
        let young = files(&report.young);
        pairs.push((
            "  young",
            format!("{young} that no version needs, not older than {age} yet"),
        ));
    }
    if report.adopted.count > 0 {
        let adopted = files(&report.adopted);
        pairs.push((
            "  left",
            format!("{adopted} that lake did not write and no version needs (--adopted removes those that are old enough)"),
        ));
    }
    for (folder, tally) in &report.left {
        let what = match folder.as_str() {
            "" => "of others",
            folder => folder,
        };
        pairs.push(("  left", format!("{what}: {}", files(tally))));
    }
    ui.pairs(&pairs)?;
    if !report.removed.is_empty() {
        let rows: Vec<_> = report
            .removed
            .iter()
            .map(|(kind, tally)| {
                vec![
                    kind.name().to_owned(),
                    show_count(tally.count),
                    show_bytes(tally.bytes),
                    tally.oldest_ms.map(show_time).unwrap_or_default(),
                ]
            })
            .collect();
        ui.table(&["kind", "files", "size", "oldest"], &rows)?;
    }
    for one in &report.objects {
        ui.line(&one.object.path)?;
    }
    Ok(())
}

fn files(tally: &Tally) -> String {
    let files = if tally.count == 1 { "file" } else { "files" };
    format!("{} {files}, {}", show_count(tally.count), show_bytes(tally.bytes))
}

fn as_json(table: &str, report: &Vacuumed) -> Value {
    let tally =
        |tally: &Tally| json!({"count": tally.count, "bytes": tally.bytes, "oldest_ms": tally.oldest_ms});
    let kinds: Map<String, Value> = report
        .removed
        .iter()
        .map(|(kind, one)| (kind.name().to_owned(), tally(one)))
        .collect();
    let left: Map<String, Value> = report
        .left
        .iter()
        .map(|(folder, one)| (folder.clone(), tally(one)))
        .collect();
    let files: Vec<Value> = report
        .objects
        .iter()
        .map(|one| {
            json!({
                "path": one.object.path, "kind": one.kind.name(), "bytes": one.object.bytes,
                "modified_ms": one.object.modified_ms,
            })
        })
        .collect();
    json!({
        "operation": "vacuum", "table": table, "dry_run": report.dry_run, "version": report.version,
        "versions_kept": report.versions_kept, "oldest_version_kept": report.oldest_kept,
        "older_than_ms": report.older_than_ms, "store_time_ms": report.now_ms, "quarantine": report.quarantine,
        "removed": tally(&report.total()), "removed_by_kind": kinds, "young": tally(&report.young), "adopted": tally(&report.adopted),
        "kept": tally(&report.kept), "left": left, "files": files,
    })
}
