use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::datatypes::Schema;
use clap::Args;
use lakehouse_core::Table;
use lakehouse_core::model::schema::COMMENT;
use lakehouse_core::model::{At, ColumnPath, PartitionField, Snapshot};
use lakehouse_core::operations::Adopted;
use serde_json::{Value, json};

use super::health::health;
use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::{Ui, overlap_json, overlap_rows};
use crate::values;

/// Show what a table is: columns, partitioning, properties, sizes, version, format; or how it is (--health).
///
/// Where the table has a sort order or is clustered, and for columns asked for, it tells how far files overlap: how
/// many a lookup of one value reads, and how many share their range with others. `lake compact` puts them in order.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake show flights
  lake show flights --health --html flights.html
  lake show flights --overlap carrier,distance"#)]
pub(super) struct Show {
    /// Path or URL of the table
    table: String,
    /// Show instead what maintenance would look at: file sizes, small files, masked rows, partitions, metadata,
    /// commits per day, and what lake maintain would do
    #[arg(long)]
    health: bool,
    /// Write that to this file, as one page of HTML with charts
    #[arg(long, value_name = "FILE", requires = "health")]
    html: Option<PathBuf>,
    /// Columns to tell the overlap of files in [default: those that the table is sorted or clustered by]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    overlap: Vec<ColumnPath>,
    #[command(flatten)]
    storage: StorageArgs,
}

/// Sums over the files of a version.
#[derive(Default)]
struct Sizes {
    files: u64,
    rows: u64,
    masked: u64,
    /// Some masks must be read before their rows can be counted.
    inexact: bool,
    bytes: u64,
}

pub(super) async fn show(args: Show, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    if args.health {
        return health(&args.table, &table, args.html.as_deref(), ui).await;
    }
    let snapshot = table.snapshot(&At::Latest).await?;
    let files = table.files(&At::Version(snapshot.version)).await?;
    let asked: Vec<String> = args.overlap.iter().map(ColumnPath::dotted).collect();
    let asked = (!asked.is_empty()).then_some(asked.as_slice());
    let overlaps = table.overlaps(&snapshot, &files, asked).await?;
    let mut sizes = Sizes::default();
    for file in &files {
        sizes.files += 1;
        sizes.rows += file.rows;
        sizes.bytes += file.bytes;
        match file.masked_rows() {
            Some(masked) => sizes.masked += masked,
            None => sizes.inexact = true,
        }
    }
    if ui.json {
        let refs: BTreeMap<_, _> = snapshot.refs.iter().map(|(k, v)| (k, v.version)).collect();
        return ui.json(&json!({
            "table": args.table, "location": table.location(), "format": table.format(),
            "version": snapshot.version, "timestamp_ms": snapshot.timestamp_ms,
            "timestamp": values::show_time(snapshot.timestamp_ms),
            "schema": columns_json(&snapshot.schema),
            "partitioning": snapshot.partition_fields().iter().map(PartitionField::term).collect::<Vec<_>>(),
            "properties": snapshot.properties, "refs": refs,
            "sort_order": snapshot.sort_order.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "identifier": snapshot.identifier, "needs": snapshot.features,
            "features": features(&snapshot),
            "files": sizes.files, "bytes": sizes.bytes, "overlap": overlaps.as_ref().map(overlap_json),
            "rows": sizes.rows - sizes.masked, "masked_rows": sizes.masked, "rows_exact": !sizes.inexact,
        }));
    }
    ui.pairs(&facts(&args.table, &table, &snapshot, &sizes))?;
    ui.table(
        &["column", "type", "null", "comment"],
        &commented_rows(&snapshot.schema),
    )?;
    if let Some(overlaps) = &overlaps {
        ui.table(
            &["lookup by", "reads files", "overlapping"],
            &overlap_rows(overlaps),
        )?;
    }
    if !snapshot.properties.is_empty() {
        let rows: Vec<_> = snapshot
            .properties
            .iter()
            .map(|(k, v)| vec![k.clone(), v.clone()])
            .collect();
        ui.table(&["property", "value"], &rows)?;
    }
    if !snapshot.refs.is_empty() {
        let rows: Vec<_> = snapshot
            .refs
            .iter()
            .map(|(k, v)| vec![k.clone(), v.kind.name().to_owned(), v.version.to_string()])
            .collect();
        ui.table(&["name", "kind", "version"], &rows)?;
    }
    Ok(())
}

fn facts(name: &str, table: &Table, snapshot: &Snapshot, sizes: &Sizes) -> Vec<(&'static str, String)> {
    let about = if sizes.inexact { "at most " } else { "" };
    let terms: Vec<_> = snapshot
        .partition_fields()
        .iter()
        .map(PartitionField::term)
        .collect();
    let mut facts = vec![
        ("table", name.to_owned()),
        ("location", table.location().to_owned()),
        ("format", table.format().to_owned()),
        (
            "version",
            format!(
                "{} of {} UTC",
                snapshot.version,
                values::show_time(snapshot.timestamp_ms)
            ),
        ),
        (
            "rows",
            format!(
                "{about}{} ({} masked)",
                values::show_count(sizes.rows - sizes.masked),
                values::show_count(sizes.masked)
            ),
        ),
        (
            "files",
            format!(
                "{}, {}",
                values::show_count(sizes.files),
                values::show_bytes(sizes.bytes)
            ),
        ),
        (
            "partitioned by",
            if terms.is_empty() {
                "nothing".into()
            } else {
                terms.join(", ")
            },
        ),
    ];
    for (fact, words) in [
        (
            "sorted by",
            snapshot.sort_order.iter().map(ToString::to_string).collect(),
        ),
        ("identified by", snapshot.identifier.clone()),
        ("needs", snapshot.features.clone()),
    ] {
        if !words.is_empty() {
            facts.push((fact, words.join(", ")));
        }
    }
    facts.push(("features", features(snapshot).join(", ")));
    facts
}

/// What the table offers, in words.
fn features(snapshot: &Snapshot) -> Vec<&'static str> {
    let capabilities = &snapshot.capabilities;
    [
        (capabilities.masks, "row masks"),
        (snapshot.lineage.is_some(), "row ids"),
        (capabilities.change_files.is_some(), "change files"),
        (capabilities.refs, "tags and branches"),
        (capabilities.writable, "writable"),
        (!capabilities.writable, "read-only"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

/// One row per column: name, type, whether it may be NULL.
pub(super) fn column_rows(schema: &Schema) -> Vec<Vec<String>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            vec![
                field.name().clone(),
                field.data_type().to_string(),
                if field.is_nullable() { "yes" } else { "no" }.into(),
            ]
        })
        .collect()
}

/// The same and what is noted about each.
fn commented_rows(schema: &Schema) -> Vec<Vec<String>> {
    let comments = schema
        .fields()
        .iter()
        .map(|field| field.metadata().get(COMMENT).cloned().unwrap_or_default());
    let mut rows = column_rows(schema);
    rows.iter_mut()
        .zip(comments)
        .for_each(|(row, comment)| row.push(comment));
    rows
}

/// The same for machines.
pub(super) fn columns_json(schema: &Schema) -> Value {
    schema
        .fields()
        .iter()
        .map(|field| {
            let mut column = json!({
                "name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable(),
            });
            if let Some(comment) = field.metadata().get(COMMENT) {
                column["comment"] = comment.as_str().into();
            }
            column
        })
        .collect()
}

/// What became of files that were made a table.
pub(super) fn adopted(place: &str, table: &Table, adopted: &Adopted, ui: &Ui) -> Result<(), Failure> {
    let fields: Vec<String> = adopted
        .partition_fields
        .iter()
        .map(PartitionField::term)
        .collect();
    if ui.json {
        return ui.json(&json!({
            "operation": "create", "table": place, "format": table.format(), "version": adopted.version,
            "committed": adopted.version.is_some(), "dry_run": adopted.version.is_none(),
            "files": adopted.files, "rows": adopted.rows, "bytes": adopted.bytes, "skipped_files": adopted.skipped,
            "partitioning": fields, "schema": columns_json(&adopted.schema),
        }));
    }
    let what = format!("{} table {place}", table.format());
    ui.line(&match adopted.version {
        Some(version) => format!("created {what}, version {version}"),
        None => format!("dry run: would create {what}"),
    })?;
    ui.pairs(&[
        ("files", adopted.files.to_string()),
        ("rows", adopted.rows.to_string()),
        ("bytes", adopted.bytes.to_string()),
        (
            "left alone",
            format!("{} files, hidden or without rows", adopted.skipped),
        ),
        (
            "partitioning",
            if fields.is_empty() {
                "none".into()
            } else {
                fields.join(", ")
            },
        ),
    ])?;
    ui.table(&["column", "type", "null"], &column_rows(&adopted.schema))
}
