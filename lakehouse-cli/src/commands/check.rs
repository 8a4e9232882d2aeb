use std::sync::Arc;

use clap::Args;
use lakehouse_core::model::{At, Severity};
use lakehouse_core::operations::check::{Check as Wanted, Checked, Repaired};
use serde_json::json;

use super::AtArgs;
use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values::{show_bytes, show_count};

/// Findings that are printed as text.
const LISTED: usize = 100;

/// Check that a table is what its metadata says; nothing is written, unless --repair says so.
///
/// Looks at every file that the version needs: that it is there, once, with the recorded size and rows; at masks,
/// partition values, row ids, sequence numbers; and at the metadata itself: gaps and checkpoints of the log, manifests
/// and their counts, hints, tags and branches. --deep reads all data as well. docs/check.md lists the codes.
///
/// Exit code 1 if there are errors; warnings and notes are none.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake check flights
  lake check flights --deep --all-versions
  lake check flights --repair --dry-run"#)]
pub(super) struct Check {
    /// Path or URL of the table
    table: String,
    /// Read the data too: does it decode, and is what statistics, partition values, constraints and row ids say of
    /// it true
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    at: AtArgs,
    /// Check every version in the history of main, tags and branches; files that several have are read once
    #[arg(long, conflicts_with_all = ["version", "as_of"])]
    all_versions: bool,
    /// Write anew what only leads readers to the newest version, where it is missing or lies: the version hint of
    /// Iceberg, the pointer to Delta's newest checkpoint. No row, file or version is touched; what else is found says
    /// what to do about it
    #[arg(long)]
    repair: bool,
    /// Say what --repair would write, and write nothing
    #[arg(long, requires = "repair")]
    dry_run: bool,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(super) async fn check(args: Check, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let progress = Arc::new(ui.progress(format!("checking {}", args.table)));
    let told = {
        let (progress, name) = (Arc::clone(&progress), args.table.clone());
        move |done, all| {
            progress.say(format!(
                "checking {name}: {} of {} files read",
                show_count(done),
                show_count(all)
            ));
        }
    };
    let wanted = Wanted {
        at: args.at.at().unwrap_or(At::Latest),
        all_versions: args.all_versions,
        deep: args.deep,
        progress: Some(Arc::new(told)),
    };
    let done = match args.repair {
        true => table.repair(&wanted, args.dry_run).await,
        false => table.check(&wanted).await.map(|checked| Repaired {
            checked,
            ..Repaired::default()
        }),
    };
    drop((wanted, progress));
    let Repaired { repaired, checked } = done?;
    if ui.json {
        let mut report = checked.to_json();
        if args.repair {
            let codes = repaired
                .iter()
                .map(|finding| json!({"code": finding.code.name(), "path": finding.path}));
            report["repaired"] = codes.collect();
            report["dry_run"] = args.dry_run.into();
        }
        report["operation"] = json!("check");
        report["table"] = json!(args.table);
        ui.json(&report)?;
    } else {
        tell(&args.table, &checked, ui)?;
        for finding in &repaired {
            let word = if args.dry_run { "would repair" } else { "repaired" };
            ui.line(&format!("{word} {}: {}", finding.path, finding.code))?;
        }
    }
    match checked.count(Severity::Error) {
        0 => Ok(()),
        _ => Err(Failure::Damaged),
    }
}

fn tell(name: &str, checked: &Checked, ui: &Ui) -> Result<(), Failure> {
    let versions = match (checked.versions, checked.version) {
        (1, Some(version)) => format!("version {version}"),
        (1, None) => "the newest version".to_owned(),
        (several, _) => format!("{} versions", show_count(several)),
    };
    let read = if checked.deep { ", all read" } else { "" };
    ui.line(&format!(
        "checked {versions} of {name}: {} files, {} rows, {}{read}",
        show_count(checked.files),
        show_count(checked.rows),
        show_bytes(checked.bytes)
    ))?;
    let shown = checked.findings.iter().take(LISTED).map(|finding| {
        vec![
            finding.severity.to_string(),
            finding.code.to_string(),
            finding.path.clone(),
            finding.what.clone(),
            finding.todo.clone(),
        ]
    });
    let rows: Vec<_> = shown.collect();
    if !rows.is_empty() {
        ui.table(&["", "code", "where", "what", "what to do"], &rows)?;
    }
    if checked.findings.len() > LISTED {
        ui.line(&format!(
            "and {} more (all of them with --json)",
            show_count((checked.findings.len() - LISTED) as u64)
        ))?;
    }
    let counted = |severity| checked.count(severity);
    ui.line(
        &match counted(Severity::Error) + counted(Severity::Warning) + counted(Severity::Note) {
            0 => "clean".to_owned(),
            _ => format!(
                "errors: {}, warnings: {}, notes: {}",
                counted(Severity::Error),
                counted(Severity::Warning),
                counted(Severity::Note)
            ),
        },
    )
}
