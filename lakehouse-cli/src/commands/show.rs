use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use clap::Args;
use lakehouse_core::model::{At, Capabilities, PartitionField, Snapshot};
use serde_json::{Value, json};

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Show what a table is: columns, partitioning, properties, sizes, version, format.
///
/// Example:
///   lake show flights
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Show {
    /// Path or URL of the table
    table: String,
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
    let snapshot = table.snapshot(&At::Latest).await?;
    let mut sizes = Sizes::default();
    for file in table.files(&At::Version(snapshot.version)).await? {
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
            "partitioning": snapshot.partition_fields().iter().map(term).collect::<Vec<_>>(),
            "properties": snapshot.properties, "refs": refs,
            "features": features(&snapshot.capabilities),
            "files": sizes.files, "bytes": sizes.bytes,
            "rows": sizes.rows - sizes.masked, "masked_rows": sizes.masked, "rows_exact": !sizes.inexact,
        }));
    }
    ui.pairs(&facts(&args.table, &table, &snapshot, &sizes))?;
    ui.table(&["column", "type", "null"], &column_rows(&snapshot.schema))?;
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

fn facts(
    name: &str,
    table: &lakehouse_core::Table,
    snapshot: &Snapshot,
    sizes: &Sizes,
) -> Vec<(&'static str, String)> {
    let about = if sizes.inexact { "at most " } else { "" };
    let terms: Vec<_> = snapshot.partition_fields().iter().map(term).collect();
    vec![
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
        ("features", features(&snapshot.capabilities).join(", ")),
    ]
}

/// What the table offers, in words.
fn features(capabilities: &Capabilities) -> Vec<&'static str> {
    [
        (capabilities.masks, "row masks"),
        (capabilities.row_ids, "row ids"),
        (capabilities.refs, "tags and branches"),
        (capabilities.writable, "writable"),
        (!capabilities.writable, "read-only"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

/// A partition field as users write it: `bucket(4, carrier)`.
fn term(field: &PartitionField) -> String {
    use lakehouse_core::model::Transform;
    match field.transform {
        Transform::Identity => field.source.clone(),
        Transform::Bucket { buckets, .. } => format!("bucket({buckets}, {})", field.source),
        Transform::Truncate(width) => format!("truncate({width}, {})", field.source),
        other => format!("{other}({})", field.source),
    }
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

/// The same for machines.
pub(super) fn columns_json(schema: &Schema) -> Value {
    schema
        .fields()
        .iter()
        .map(|field| {
            json!({"name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable()})
        })
        .collect()
}
