use std::collections::BTreeMap;

use clap::Args;
use lakehouse_core::Options;
use lakehouse_core::model::{At, Ref, RefKind, Retention};
use lakehouse_core::operations::{RefReport, SetRef};
use serde_json::{Value, json};

use super::AtArgs;
use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Name a version of an Iceberg table, or list the names.
///
/// A tag stays at its version, and can be named wherever a version can: --version v1, VERSION AS OF
/// 'v1'. Without NAME the table's tags are listed. Making a tag that is there already, at the same
/// version, does nothing.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake tag flights year-end-2013
  lake tag flights before-repair --version -1 --keep-for 90d
  lake tag flights before-repair --drop"#)]
pub(super) struct Tag {
    /// Path or URL of the table
    table: String,
    /// Name of the tag [default: list all tags]
    name: Option<String>,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

/// What tags and branches have in common.
#[derive(Debug, Clone, Args)]
pub(super) struct ChangeArgs {
    /// Change it if it is there already: a tag is moved to the version given [default: the newest of main], a branch
    /// to the version given [default: it stays], and how long it is kept becomes what is given
    #[arg(long, requires = "name")]
    replace: bool,
    /// Drop it. Its versions stay until somebody expires them
    #[arg(long, requires = "name", conflicts_with_all = ["version", "as_of", "replace", "keep_for"])]
    pub(super) drop: bool,
    /// How long after its version was committed the name is kept from being expired: 90d, 12h
    /// [default: the table's setting, else for ever]
    #[arg(long, value_name = "TIME", requires = "name", value_parser = values::parse_duration)]
    keep_for: Option<i64>,
    /// Say what would happen, and do nothing
    #[arg(long, requires = "name")]
    dry_run: bool,
}

impl ChangeArgs {
    pub(super) fn options(&self) -> Options {
        Options {
            dry_run: self.dry_run,
            ..Options::default()
        }
    }

    /// The tag or branch that is wanted.
    pub(super) fn wanted(&self, kind: RefKind, name: &str, at: Option<At>) -> SetRef {
        SetRef {
            at,
            retention: Retention {
                max_ref_age_ms: self.keep_for,
                ..Retention::default()
            },
            replace: self.replace,
            ..SetRef::new(kind, name)
        }
    }
}

pub(super) async fn tag(args: Tag, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let Some(name) = &args.name else {
        if args.at.at().is_some() {
            return Err(Failure::usage(
                "--version and --as-of say where a tag is made",
                "name the tag, or leave them out to list all",
            ));
        }
        return list(&args.table, &table.refs().await?, RefKind::Tag, ui);
    };
    let options = args.change.options();
    let report = if args.change.drop {
        table.drop_ref(RefKind::Tag, name, &options).await?
    } else {
        let wanted = args.change.wanted(RefKind::Tag, name, args.at.at());
        table.set_ref(&wanted, &options).await?
    };
    told(&args.table, RefKind::Tag, &report, ui)
}

/// Lists the tags or the branches of a table.
pub(super) fn list(table: &str, refs: &BTreeMap<String, Ref>, kind: RefKind, ui: &Ui) -> Result<(), Failure> {
    let found = refs.iter().filter(|(_, found)| found.kind == kind);
    if ui.json {
        let all: Vec<Value> = found.map(|(name, found)| described(name, found)).collect();
        let plural = match kind {
            RefKind::Tag => "tags",
            RefKind::Branch => "branches",
        };
        return ui.json(&json!({"table": table, plural: all}));
    }
    let age = |age: Option<i64>| age.map_or_else(|| "-".to_owned(), values::show_duration);
    let rows: Vec<_> = found
        .map(|(name, found)| {
            let kept = found.retention;
            let mut row = vec![name.clone(), found.version.to_string(), age(kept.max_ref_age_ms)];
            if kind == RefKind::Branch {
                row.push(
                    kept.min_snapshots_to_keep
                        .map_or_else(|| "-".to_owned(), |n| n.to_string()),
                );
                row.push(age(kept.max_snapshot_age_ms));
            }
            row
        })
        .collect();
    match kind {
        RefKind::Tag => ui.table(&["tag", "version", "kept for"], &rows),
        RefKind::Branch => ui.table(
            &[
                "branch",
                "version",
                "kept for",
                "versions kept",
                "versions kept for",
            ],
            &rows,
        ),
    }
}

/// Prints what became of a tag or branch.
pub(super) fn told(table: &str, kind: RefKind, report: &RefReport, ui: &Ui) -> Result<(), Failure> {
    let (name, kind) = (&report.name, kind.name());
    if ui.json {
        let one = |found: &Option<Ref>| found.as_ref().map(|found| described(name, found));
        return ui.json(&json!({
            "operation": kind, "table": table, "name": name, "committed": report.committed,
            "dry_run": report.dry_run, "attempts": report.attempts,
            "before": one(&report.before), "after": one(&report.after),
        }));
    }
    let what = match (&report.before, &report.after) {
        (before, Some(after)) if before.as_ref() == Some(after) => {
            format!("nothing to do, still at version {}", after.version)
        }
        (None, Some(after)) => format!("made at version {}", after.version),
        (Some(before), Some(after)) if before.version == after.version => {
            format!("kept for another time, still at version {}", after.version)
        }
        (Some(before), Some(after)) => {
            format!("moved from version {} to {}", before.version, after.version)
        }
        (Some(before), None) => format!("dropped, it was at version {}", before.version),
        (None, None) => "nothing to do".to_owned(),
    };
    let dry = if report.dry_run {
        "dry run, nothing was committed: "
    } else {
        ""
    };
    ui.line(&format!("{kind} {name} of {table}: {dry}{what}"))
}

/// A tag or branch for machines.
fn described(name: &str, found: &Ref) -> Value {
    json!({
        "name": name, "kind": found.kind.name(), "version": found.version,
        "max_ref_age_ms": found.retention.max_ref_age_ms,
        "min_snapshots_to_keep": found.retention.min_snapshots_to_keep,
        "max_snapshot_age_ms": found.retention.max_snapshot_age_ms,
    })
}
