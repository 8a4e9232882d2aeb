//! Manifests written anew as a whole, by partition and in the table's target size: what `rewrite_manifests` of other
//! engines does. No file changes, so entries stay what they were: existing, with their sequence numbers, snapshots and row
//! ids (Iceberg spec, "Manifest Entry Fields").

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::{Literal, ManifestContentType, ManifestFile, Struct};

use super::files::CONCURRENT;
use super::manifests::{Manifest, NewEntry, most_entries, read_list, read_manifest};
use super::rewrite::{Planned, complete, entries_of, has_live, moved, retyped, target_bytes};
use super::view::{View, partition_types};
use crate::error::Result;
use crate::model::Regrouping;
use crate::store::Store;

/// Manifests of one content and partition spec.
type Group = Vec<ManifestFile>;

/// The manifests of a version that are good as they are, and the groups that are better written anew.
async fn sorted_out(store: &Store, view: &View) -> Result<(Vec<ManifestFile>, Vec<Group>)> {
    let mut groups: BTreeMap<(bool, i32), Group> = BTreeMap::new();
    for manifest in read_list(store, view).await? {
        // Nothing live: it served the version that removed its files.
        if has_live(&manifest) {
            let deletes = manifest.content == ManifestContentType::Deletes;
            groups
                .entry((deletes, manifest.partition_spec_id))
                .or_default()
                .push(manifest);
        }
    }
    let (mut good, mut scattered) = (Vec::new(), Vec::new());
    for group in groups.into_values() {
        match (group.len() as u64) > needed(view, &group) {
            true => scattered.push(group),
            false => good.extend(group),
        }
    }
    Ok((good, scattered))
}

fn bytes_of(group: &Group) -> u64 {
    group
        .iter()
        .map(|manifest| manifest.manifest_length.unsigned_abs())
        .sum()
}

/// How many manifests such a group has to be.
fn needed(view: &View, group: &Group) -> u64 {
    let entries: u64 = group.iter().map(entries_of).sum();
    let most = most_entries(view.metadata().current_schema()) as u64;
    let by_bytes = bytes_of(group).div_ceil(target_bytes(view.metadata()));
    by_bytes.max(entries.div_ceil(most)).max(1)
}

/// What writing them anew would do.
///
/// # Errors
/// When the manifest list cannot be read.
pub(super) async fn regrouping(store: &Store, view: &View) -> Result<Regrouping> {
    let (good, scattered) = sorted_out(store, view).await?;
    Ok(Regrouping {
        kept: good.len() as u64,
        replaced: scattered.iter().map(|group| group.len() as u64).sum(),
        created: scattered.iter().map(|group| needed(view, group)).sum(),
    })
}

/// The manifests of the new version, and how many entries were moved.
///
/// # Errors
/// When a manifest cannot be read.
pub(super) async fn regroup(store: &Store, view: &View) -> Result<(Vec<Planned>, u64)> {
    let (good, scattered) = sorted_out(store, view).await?;
    let mut plan = Vec::new();
    for manifest in good {
        plan.push(Planned::Carried(complete(store, view, manifest).await?));
    }
    let mut processed = 0;
    for group in scattered {
        processed += write_anew(store, view, group, &mut plan).await?;
    }
    Ok((plan, processed))
}

async fn write_anew(store: &Store, view: &View, group: Group, plan: &mut Vec<Planned>) -> Result<u64> {
    let parts = needed(view, &group);
    let read: Vec<Manifest> = stream::iter(group)
        .map(|manifest| read_manifest(store, &view.state, manifest))
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let metadata = view.metadata();
    let (mut entries, mut first) = (Vec::new(), None);
    for manifest in read {
        // Files without row ids get theirs from the new manifest, and those that have some keep them (Iceberg spec,
        // "First Row ID Inheritance").
        let types = partition_types(&manifest.spec, metadata.current_schema(), metadata)?;
        let mut manifest = retyped(manifest, &types)?;
        if manifest.types != types {
            plan.push(Planned::Carried(complete(store, view, manifest.list).await?));
            continue;
        }
        entries.extend(moved(&manifest, |_| false)?);
        manifest.entries = Vec::new();
        first.get_or_insert(manifest);
    }
    let Some(first) = first else { return Ok(0) };
    let processed = entries.len() as u64;
    // Of one partition the order is kept.
    entries.sort_by(|a, b| by_partition(partition(a), partition(b)));
    let together = (processed.div_ceil(parts).max(1)) as usize;
    while !entries.is_empty() {
        let rest = entries.split_off(entries.len().min(together));
        let manifest = Manifest {
            list: first.list.clone(),
            schema: Arc::clone(metadata.current_schema()),
            spec: first.spec.clone(),
            types: first.types.clone(),
            entries: Vec::new(),
        };
        plan.push(Planned::Rewritten(Box::new(manifest), entries));
        entries = rest;
    }
    Ok(processed)
}

fn partition(entry: &NewEntry) -> &Struct {
    match entry {
        NewEntry::Added(file) => file.partition(),
        NewEntry::Existing(entry) | NewEntry::Deleted(entry) => entry.file.partition(),
    }
}

/// Field by field, what is NULL first; values that do not compare are left as they come.
fn by_partition(a: &Struct, b: &Struct) -> Ordering {
    for (a, b) in a.iter().zip(b.iter()) {
        let order = match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(Literal::Primitive(a)), Some(Literal::Primitive(b))) => {
                a.partial_cmp(b).unwrap_or(Ordering::Equal)
            }
            _ => Ordering::Equal,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}
