//! What each commit between two versions did: the difference of their live files.
//!
//! Manifests that both versions list are not read, so the cost follows the size of the commit. The
//! difference is taken from live entries, not from what a writer says it added or deleted; so it is
//! right for restores and for engines that keep poor books.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::{ManifestFile, Operation, SchemaRef, SnapshotRef, TableMetadata};

use super::convert::Reader;
use super::deletes::{Concerned, DeleteIndex};
use super::files::{CONCURRENT, index, split};
use super::manifests::{Manifest, read_list_of, read_manifest};
use super::metadata::version_number;
use super::rewrite::{Key, holds, key_of, partition_ranges};
use super::summary::{COMMIT_ID, kind};
use super::tokens;
use super::types::to_arrow;
use super::view::View;
use crate::error::{Error, Result};
use crate::model::{Change, CommitId, DataFile, MetadataChange, OperationKind, Snapshot};
use crate::store::Store;

/// The commits after `base` up to and including `upto`, oldest first.
///
/// # Errors
/// [`Error::Conflict`] (R5) when `base` is not an ancestor of `upto`.
pub(super) async fn changes(store: &Store, base: &Snapshot, upto: &Snapshot) -> Result<Vec<Change>> {
    let (from, to) = (View::of(base)?, View::of(upto)?);
    let mut found = Vec::new();
    let mut metadata_change = metadata_change(from.metadata(), to.metadata());
    let steps = chain(&from, &to)?;
    // Columns that came with rows are reported with them, those that came alone before all.
    let with_rows = schema_changes(&from, &to, &steps);
    let last = with_rows.last().map(|(_, schema)| schema.schema_id());
    let same_version = from.metadata().format_version() == to.metadata().format_version();
    if same_version && last == Some(to.metadata().current_schema_id()) {
        metadata_change.schema = false;
    }
    if metadata_change != MetadataChange::default() {
        let id = CommitId(format!("metadata of state {}", to.state.number));
        found.push(Change {
            metadata: metadata_change,
            data_change: false,
            ..Change::new(OperationKind::Other, id)
        });
    }
    for (at, (parent, snapshot)) in steps.iter().enumerate() {
        let mut change = change(store, &to, parent.as_ref(), snapshot).await?;
        if let Some((_, schema)) = with_rows.iter().find(|(step, _)| *step == at) {
            change.metadata.schema = true;
            change.schema = to_arrow(schema).ok();
        }
        found.push(change);
    }
    Ok(found)
}

/// The steps that were made with another schema than the one before, and theirs.
fn schema_changes(from: &View, to: &View, steps: &[Step]) -> Vec<(usize, SchemaRef)> {
    let mut before = from.schema.schema_id();
    let mut changed = Vec::new();
    for (at, (_, snapshot)) in steps.iter().enumerate() {
        let id = snapshot.schema_id();
        let Some(schema) = id.and_then(|id| to.metadata().schema_by_id(id).cloned()) else {
            continue;
        };
        if schema.schema_id() != before {
            before = schema.schema_id();
            changed.push((at, schema));
        }
    }
    changed
}

type Step = (Option<SnapshotRef>, SnapshotRef);

/// Pairs of a snapshot's parent and itself, oldest first.
fn chain(from: &View, to: &View) -> Result<Vec<Step>> {
    let left = |detail: String| Error::Conflict {
        table: to.state.paths.location().to_owned(),
        detail: format!("R5: {detail}"),
    };
    let base = from.version();
    let metadata = to.metadata();
    let mut steps = Vec::new();
    let mut at = to.snapshot.clone();
    loop {
        match at {
            Some(snapshot) if snapshot.snapshot_id() == base => break,
            None if base == 0 => break,
            None => {
                return Err(left(format!(
                    "version {base} is not part of the table's history any more"
                )));
            }
            Some(snapshot) => {
                if steps.len() > metadata.snapshots().len() {
                    return Err(left(
                        "the table's versions descend from each other in a circle".to_owned(),
                    ));
                }
                let parent = match snapshot.parent_snapshot_id() {
                    None => None,
                    Some(id) => Some(metadata.snapshot_by_id(id).cloned().ok_or_else(|| {
                        left(format!(
                            "version {id}, which came after version {base}, was expired"
                        ))
                    })?),
                };
                steps.push((parent.clone(), snapshot));
                at = parent;
            }
        }
    }
    steps.reverse();
    Ok(steps)
}

fn metadata_change(from: &TableMetadata, to: &TableMetadata) -> MetadataChange {
    let properties = |metadata: &TableMetadata| -> BTreeMap<String, String> {
        let all = metadata.properties().iter();
        all.filter(|(key, _)| !tokens::is_note(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    MetadataChange {
        schema: from.current_schema() != to.current_schema()
            || version_number(from.format_version()) != version_number(to.format_version()),
        partitioning: from.default_partition_spec() != to.default_partition_spec(),
        properties: properties(from) != properties(to)
            || from.default_sort_order() != to.default_sort_order(),
    }
}

/// Live entries of the manifests that only one of two versions lists.
struct Side {
    deletes: Vec<ManifestFile>,
    data: Vec<ManifestFile>,
    own_data: Vec<Manifest>,
    own_deletes: Vec<Manifest>,
}

impl Side {
    async fn read(
        store: &Store,
        view: &View,
        manifests: &[ManifestFile],
        other: &[ManifestFile],
    ) -> Result<Self> {
        let shared: HashSet<&str> = other.iter().map(|m| m.manifest_path.as_str()).collect();
        let own = manifests
            .iter()
            .filter(|m| !shared.contains(m.manifest_path.as_str()));
        let (own_data, own_deletes) = split(own.cloned());
        let (data, deletes) = split(manifests.iter().cloned());
        Ok(Self {
            data,
            deletes,
            own_data: read_all(store, view, own_data).await?,
            own_deletes: read_all(store, view, own_deletes).await?,
        })
    }

    fn files(&self, reader: &Reader) -> Result<HashMap<String, DataFile>> {
        let mut found = HashMap::new();
        for manifest in &self.own_data {
            for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
                let file = reader.data_file(manifest, entry)?;
                found.insert(file.recorded.clone(), file);
            }
        }
        Ok(found)
    }

    fn deletes(&self) -> HashSet<Key> {
        let manifests = self.own_deletes.iter();
        let entries = manifests.flat_map(|manifest| manifest.entries.iter());
        entries
            .filter(|entry| entry.is_live())
            .map(|entry| key_of(&entry.file))
            .collect()
    }
}

async fn read_all(store: &Store, view: &View, manifests: Vec<ManifestFile>) -> Result<Vec<Manifest>> {
    stream::iter(manifests)
        .map(|manifest| read_manifest(store, &view.state, manifest))
        .buffered(CONCURRENT)
        .try_collect()
        .await
}

async fn change(
    store: &Store,
    view: &View,
    parent: Option<&SnapshotRef>,
    snapshot: &SnapshotRef,
) -> Result<Change> {
    let before = match parent {
        Some(parent) => read_list_of(store, &view.state, parent).await?,
        None => Vec::new(),
    };
    let after = read_list_of(store, &view.state, snapshot).await?;
    let old = Side::read(store, view, &before, &after).await?;
    let new = Side::read(store, view, &after, &before).await?;
    let reader = Reader::new(&view.state.paths, &view.schema)?;
    let (mut gone, mut came) = (old.files(&reader)?, new.files(&reader)?);
    let moved: Vec<String> = gone
        .keys()
        .filter(|path| came.contains_key(*path))
        .cloned()
        .collect();
    for path in &moved {
        gone.remove(path);
        came.remove(path);
    }
    let concerned = concerned(&old, &new)?;
    let (old_index, new_index) = if gone.is_empty() && came.is_empty() && concerned.is_empty() {
        (DeleteIndex::default(), DeleteIndex::default())
    } else {
        (
            index(store, view, old.deletes).await?,
            index(store, view, new.deletes).await?,
        )
    };
    let mut masked = Vec::new();
    if !concerned.is_empty() {
        for manifest in new.data {
            let ranges = partition_ranges(view.metadata(), view, &manifest)?;
            let may_hold = |partition: &[_]| ranges.as_ref().is_none_or(|ranges| holds(ranges, partition));
            if !concerned.reaches(manifest.partition_spec_id, may_hold) {
                continue;
            }
            let manifest = read_manifest(store, &view.state, manifest).await?;
            for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
                let file = reader.data_file(&manifest, entry)?;
                if came.contains_key(&file.recorded) || !concerned.contains(&file) {
                    continue;
                }
                let (mut before, mut after) = (file.clone(), file);
                old_index.attach(&mut before);
                new_index.attach(&mut after);
                if before.masks != after.masks || before.equality_deletes != after.equality_deletes {
                    masked.push((before, after));
                }
            }
        }
    }
    gone.values_mut().for_each(|file| old_index.attach(file));
    came.values_mut().for_each(|file| new_index.attach(file));
    let in_order =
        |files: HashMap<String, DataFile>| files.into_iter().collect::<BTreeMap<_, _>>().into_values();
    let summary = snapshot.summary();
    let id = summary.additional_properties.get(COMMIT_ID).cloned();
    let id = id.unwrap_or_else(|| snapshot.snapshot_id().to_string());
    Ok(Change {
        added: in_order(came).collect(),
        removed: in_order(gone).collect(),
        masked,
        data_change: summary.operation != Operation::Replace,
        metrics: BTreeMap::new(),
        ..Change::new(kind(summary), CommitId(id))
    })
}

/// The data files whose deletes differ between two versions, at most.
fn concerned(old: &Side, new: &Side) -> Result<Concerned> {
    let (before, after) = (old.deletes(), new.deletes());
    let mut concerned = Concerned::default();
    for (side, other) in [(old, &after), (new, &before)] {
        for manifest in &side.own_deletes {
            for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
                if !other.contains(&key_of(&entry.file)) {
                    concerned.add(manifest, entry)?;
                }
            }
        }
    }
    Ok(concerned)
}
