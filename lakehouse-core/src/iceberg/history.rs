//! Looking back: commits by id, the list of commits, and every file that a version still needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::catalog::Catalog;
use super::commits;
use super::files::CONCURRENT;
use super::load::{FOLDER, HINT, is_metadata};
use super::manifests::{read_list_of, read_manifest};
use super::metadata::State;
use super::summary::{COMMIT_ID, OPERATION};
use super::view::{View, find_snapshot, open, open_snapshot};
use crate::error::{Error, Result};
use crate::model::{At, CommitId, CommitInfo, Retained, Snapshot, Version};
use crate::store::Store;

/// The version that a commit made after `base` was loaded.
///
/// # Errors
/// When the table cannot be read.
pub(super) async fn find(
    store: &Store,
    catalog: &Catalog,
    commit_id: &CommitId,
    base: &Snapshot,
) -> Result<Option<Arc<Snapshot>>> {
    let base = View::of(base)?;
    let state = Arc::new(catalog.newest(store).await?);
    let made = state.metadata.snapshots().find(|snapshot| {
        snapshot.summary().additional_properties.get(COMMIT_ID) == Some(&commit_id.0)
            && base.metadata().snapshot_by_id(snapshot.snapshot_id()).is_none()
    });
    match made {
        Some(snapshot) => open_snapshot(&state, Some(Arc::clone(snapshot)), base.branch.as_deref()).map(Some),
        // A change of tags and branches, or of the table's definition, makes no snapshot.
        None if commits::has(&state, commit_id) && !commits::has(&base.state, commit_id) => {
            open(&state, &At::Latest).map(Some)
        }
        None => Ok(None),
    }
}

/// Every version that the metadata has.
pub(super) fn versions(view: &View) -> Vec<Retained> {
    let snapshots = view.metadata().snapshots().map(|snapshot| Retained {
        version: snapshot.snapshot_id(),
        parent: snapshot.parent_snapshot_id(),
        timestamp_ms: snapshot.timestamp_ms(),
        named_ms: None,
    });
    snapshots.collect()
}

/// The commits that led to a version, newest first.
///
/// # Errors
/// When the table cannot be read, or has no such version.
pub(super) async fn history(
    store: &Store,
    catalog: &Catalog,
    at: &At,
    limit: Option<usize>,
) -> Result<Vec<CommitInfo>> {
    let state = catalog.newest(store).await?;
    let limit = limit.unwrap_or(usize::MAX).min(state.metadata.snapshots().len());
    let mut commits = Vec::new();
    let newest = find_snapshot(&state, at)?;
    let mut at = newest.as_ref();
    while let Some(snapshot) = at.filter(|_| commits.len() < limit) {
        let parent = snapshot.parent_snapshot_id();
        let given = &snapshot.summary().additional_properties;
        let word = snapshot.summary().operation.as_str();
        let mut summary: BTreeMap<_, _> = given
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        summary.insert("operation".to_owned(), word.to_owned());
        commits.push(CommitInfo {
            version: snapshot.snapshot_id(),
            parent,
            timestamp_ms: snapshot.timestamp_ms(),
            // The spec has four words only: a merge and a restore are both `overwrite`.
            operation: given.get(OPERATION).map_or(word, String::as_str).to_owned(),
            summary,
        });
        at = parent.and_then(|id| state.metadata.snapshot_by_id(id));
    }
    Ok(commits)
}

/// Every key that these versions (all, if `None`) still need, and all metadata files: their names are
/// used once only. Files that lie outside the table are not ours to keep or delete.
///
/// # Errors
/// [`Error::NotFound`] for an unknown version; when a manifest cannot be read.
pub(super) async fn reachable(
    store: &Store,
    catalog: &Catalog,
    keep: Option<&[Version]>,
) -> Result<BTreeSet<String>> {
    let state = catalog.newest(store).await?;
    let snapshots: Vec<_> = match keep {
        None => state.metadata.snapshots().cloned().collect(),
        Some(versions) => versions
            .iter()
            .filter(|version| **version != 0)
            .map(|version| {
                let found = state.metadata.snapshot_by_id(*version).cloned();
                found.ok_or_else(|| Error::not_found(format!("version {version}"), state.paths.location()))
            })
            .collect::<Result<_>>()?,
    };
    let mut keys: BTreeSet<String> = store
        .list(FOLDER)
        .await?
        .into_iter()
        .map(|object| object.path)
        .filter(|path| is_metadata(path))
        .collect();
    keys.insert(state.file.clone());
    if matches!(catalog, Catalog::Path) {
        keys.insert(HINT.to_owned());
    }
    let statistics = state.metadata.statistics_iter().map(|file| &file.statistics_path);
    let by_partition = state
        .metadata
        .partition_statistics_iter()
        .map(|file| &file.statistics_path);
    keys.extend(
        statistics
            .chain(by_partition)
            .filter_map(|path| inside(&state, path)),
    );
    let mut manifests = HashSet::new();
    for snapshot in &snapshots {
        keys.extend(inside(&state, snapshot.manifest_list()));
        manifests.extend(read_list_of(store, &state, snapshot).await?);
    }
    keys.extend(
        manifests
            .iter()
            .filter_map(|manifest| inside(&state, &manifest.manifest_path)),
    );
    let mut read = stream::iter(manifests)
        .map(|manifest| read_manifest(store, &state, manifest))
        .buffer_unordered(CONCURRENT);
    while let Some(manifest) = read.try_next().await? {
        let live = manifest.entries.iter().filter(|entry| entry.is_live());
        keys.extend(live.filter_map(|entry| inside(&state, entry.file.file_path())));
    }
    Ok(keys)
}

fn inside(state: &State, recorded: &str) -> Option<String> {
    state.paths.relative(recorded).ok()
}
