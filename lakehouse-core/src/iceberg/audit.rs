//! What is wrong with the metadata of a table: the hint, the metadata file and what it names (Iceberg spec, "Table
//! Metadata", "Snapshot References"). The manifests of a version are looked at in `audit_manifests`.

use std::sync::Arc;

use serde_json::Value;

use super::audit_manifests;
use super::catalog::Catalog;
use super::load::{self, HINT, metadata_key};
use super::metadata::State;
use super::view::{View, open};
use crate::error::{Error, Result};
use crate::model::limits::HINT_BYTES;
use crate::model::{At, Audit, Code, Finding, NeededObject};
use crate::store::Store;

/// Looks at the metadata, and at the manifests of one version.
///
/// # Errors
/// As [`crate::format::Format::audit`].
pub(super) async fn audit(store: &Store, catalog: &Catalog, at: &At) -> Result<Audit> {
    let mut audit = Audit::default();
    let state = match catalog.newest(store).await {
        Ok(state) => Arc::new(state),
        Err(error) => {
            audit.findings = unloadable(store, error).await?;
            return Ok(audit);
        }
    };
    if matches!(catalog, Catalog::Path) {
        audit.findings.extend(hint(store, &state).await?);
    }
    for (name, wanted) in &state.refs {
        if state.metadata.snapshot_by_id(wanted.version).is_none() {
            audit.findings.push(dangling(&state.file, name, wanted.version));
        }
    }
    for entry in state.metadata.metadata_log() {
        if let Ok(path) = state.paths.relative(&entry.metadata_file) {
            audit.needed.push(NeededObject {
                path,
                bytes: None,
                code: Code::MetadataLog,
            });
        }
    }
    let snapshot = open(&state, at)?;
    let view = View::of(&snapshot)?;
    statistics(&view, &mut audit.needed);
    audit.sequence = view.snapshot.as_ref().map(|snapshot| snapshot.sequence_number());
    audit.next_row_id = snapshot
        .lineage
        .as_ref()
        .and_then(|_| i64::try_from(state.metadata.next_row_id()).ok());
    audit_manifests::audit(store, &view, &mut audit).await?;
    audit.snapshot = Some(snapshot);
    Ok(audit)
}

/// Why the newest metadata cannot be read.
///
/// # Errors
/// The error, where it tells of no damage.
async fn unloadable(store: &Store, error: Error) -> Result<Vec<Finding>> {
    if let Error::Invalid { place, .. } = &error
        && load::is_metadata(place)
        && let Some(bytes) = store.get_within(place, store.limits().metadata_bytes).await?
        && let Ok(value) = serde_json::from_slice::<Value>(&bytes)
    {
        let named = names(&value, place);
        if !named.is_empty() {
            return Ok(named);
        }
    }
    let todo = "restore the file from a backup; or delete it, with no writer at work, to go back to the version before";
    match &error {
        // There is no table.
        Error::NotFound { .. } => Err(error),
        _ => Ok(vec![Finding::of(Code::MetadataUnreadable, error, "", todo)?]),
    }
}

/// Versions that metadata names and does not have.
fn names(metadata: &Value, file: &str) -> Vec<Finding> {
    let snapshots = metadata["snapshots"].as_array().map_or(&[][..], Vec::as_slice);
    let there = |id: i64| {
        snapshots
            .iter()
            .any(|snapshot| snapshot["snapshot-id"].as_i64() == Some(id))
    };
    let mut findings = Vec::new();
    // Older writers have -1 for none.
    let current = metadata["current-snapshot-id"].as_i64().filter(|id| *id >= 0);
    if let Some(current) = current.filter(|id| !there(*id)) {
        findings.push(Finding::new(
            Code::CurrentVersion,
            file,
            format!("the current version is {current}, which is not among its {} versions", snapshots.len()),
            "restore the file from a backup; or delete it, with no writer at work, to go back to the version before",
        ));
    }
    for (name, wanted) in metadata["refs"].as_object().into_iter().flatten() {
        let id = wanted["snapshot-id"].as_i64().unwrap_or(-1);
        if !there(id) && (name != "main" || Some(id) != current) {
            findings.push(dangling(file, name, id));
        }
    }
    findings
}

fn dangling(file: &str, name: &str, version: i64) -> Finding {
    Finding::new(
        Code::RefDangling,
        file,
        format!("\"{name}\" names version {version}, which is not there"),
        "drop the tag or branch, or set it to a version that is there",
    )
}

/// What the hint says that is not so. Metadata files of catalogs are found without one.
async fn hint(store: &Store, state: &State) -> Result<Vec<Finding>> {
    if load::number_of_catalog(&state.file).is_some() {
        return Ok(Vec::new());
    }
    let text = match store.get_within(HINT, HINT_BYTES).await {
        Err(Error::Limit { .. }) => Some("(too long to be one)".into()),
        text => text?,
    };
    let newest = state.number;
    let what = match &text {
        None => format!("there is no hint to version {newest}"),
        Some(text) => {
            let text = String::from_utf8_lossy(text);
            match text.trim().parse::<u64>() {
                Ok(hinted) if hinted == newest => return Ok(Vec::new()),
                Ok(hinted) if hinted < newest => format!("it names version {hinted}, the newest is {newest}"),
                Ok(hinted) => format!(
                    "it names version {hinted}, and {} is not there",
                    metadata_key(hinted)
                ),
                Err(_) => format!("it says {:?}, the newest version is {newest}", text.trim()),
            }
        }
    };
    let todo =
        "the next commit writes it anew; until then readers that rely on it see an older version or none";
    Ok(vec![Finding::new(Code::VersionHint, HINT, what, todo)])
}

/// Writes the hint anew, where there should be one.
///
/// # Errors
/// When the newest metadata cannot be read; those of the store.
pub(super) async fn repoint(store: &Store, catalog: &Catalog) -> Result<()> {
    let state = catalog.newest(store).await?;
    if matches!(catalog, Catalog::Path) && load::number_of_catalog(&state.file).is_none() {
        store.put(HINT, state.number.to_string().into()).await?;
    }
    Ok(())
}

/// Files of statistics about the version.
fn statistics(view: &View, needed: &mut Vec<NeededObject>) {
    let (metadata, version) = (view.metadata(), view.version());
    let of_table = metadata
        .statistics_iter()
        .map(|file| (file.snapshot_id, &file.statistics_path, file.file_size_in_bytes));
    let of_partitions = metadata
        .partition_statistics_iter()
        .map(|file| (file.snapshot_id, &file.statistics_path, file.file_size_in_bytes));
    for (snapshot, recorded, bytes) in of_table.chain(of_partitions) {
        if snapshot == version
            && let Ok(path) = view.state.paths.relative(recorded)
        {
            needed.push(NeededObject {
                path,
                bytes: u64::try_from(bytes).ok(),
                code: Code::StatisticsFile,
            });
        }
    }
}
