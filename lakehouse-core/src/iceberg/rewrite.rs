//! Which manifests of the base a commit keeps, and which it writes anew.
//!
//! A manifest is carried over as it is unless it lists a file that the commit removes. Then its live
//! entries move to a new one, with the sequence numbers, snapshot and row ids they had, and the removed
//! ones stay as deleted entries for this one version.

use std::collections::HashSet;

use datafusion::scalar::ScalarValue;
use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::{
    DataFile as IcebergFile, ManifestContentType, ManifestFile, ManifestStatus, PrimitiveType, TableMetadata,
};

use super::convert::{with_first_row_id, with_partition_types};
use super::files::{CONCURRENT, ranges};
use super::manifests::{Manifest, NewEntry, most_entries, read_manifest};
use super::view::{View, partition_types};
use crate::error::Result;
use crate::model::prune::PartitionRange;
use crate::store::Store;

/// What identifies an entry: the recorded path, and for deletion vectors the offset in the file.
pub(super) type Key = (String, Option<u64>);

/// A file to be removed, and where it is listed.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: Key,
    pub(super) spec_id: i32,
    pub(super) partition: Vec<ScalarValue>,
    /// Data sequence number, if known.
    pub(super) sequence: Option<i64>,
}

/// A manifest of the new version.
#[derive(Debug)]
pub(super) enum Planned {
    /// As it is.
    Carried(ManifestFile),
    /// Written anew from these entries of this manifest.
    Rewritten(Box<Manifest>, Vec<NewEntry>),
}

/// Plans manifests of one content type. Returns the keys that were found, too.
///
/// # Errors
/// When a manifest that may list a target cannot be read.
pub(super) async fn plan(
    store: &Store,
    view: &View,
    manifests: Vec<ManifestFile>,
    targets: &[Target],
) -> Result<(Vec<Planned>, HashSet<Key>)> {
    let keys: HashSet<&Key> = targets.iter().map(|target| &target.key).collect();
    let keys = &keys;
    let planned = stream::iter(manifests)
        // Nothing live: it served the version that removed its files.
        .filter(|manifest| futures::future::ready(has_live(manifest)))
        .map(|manifest| async move {
            if !may_list(view, &manifest, targets)? {
                return Ok((
                    Planned::Carried(complete(store, view, manifest).await?),
                    Vec::new(),
                ));
            }
            let read = read_manifest(store, &view.state, manifest).await?;
            let found: Vec<Key> = read
                .entries
                .iter()
                .filter(|entry| entry.is_live())
                .map(|entry| key_of(&entry.file))
                .filter(|key| keys.contains(key))
                .collect();
            if found.is_empty() {
                return Ok((Planned::Carried(complete(store, view, read.list).await?), found));
            }
            let entries = moved(&read, |file| keys.contains(&key_of(file)))?;
            Ok::<_, crate::Error>((Planned::Rewritten(Box::new(read), entries), found))
        })
        .buffered(CONCURRENT)
        .try_collect::<Vec<_>>()
        .await?;
    let (mut plan, mut found) = (Vec::with_capacity(planned.len()), HashSet::new());
    for (one, keys) in planned {
        plan.push(one);
        found.extend(keys);
    }
    Ok((plan, found))
}

/// The live entries of a manifest for a new one; those that `removed` picks as deleted.
///
/// # Errors
/// None in practice.
pub(super) fn moved(manifest: &Manifest, removed: impl Fn(&IcebergFile) -> bool) -> Result<Vec<NewEntry>> {
    let live = manifest.entries.iter().filter(|entry| entry.is_live());
    live.map(|entry| {
        let mut entry = entry.clone();
        entry.file = with_first_row_id(&entry.file, entry.first_row_id)?;
        Ok(if removed(&entry.file) {
            entry.status = ManifestStatus::Deleted;
            NewEntry::Deleted(entry)
        } else {
            entry.status = ManifestStatus::Existing;
            NewEntry::Existing(entry)
        })
    })
    .collect()
}

/// The first row id that a rewritten manifest is listed with: given only if no entry is left to be
/// assigned one, so that the list does not hand out ids that nobody uses.
pub(super) fn first_row_id(entries: &[NewEntry]) -> Option<u64> {
    let ids = entries.iter().map(|entry| match entry {
        NewEntry::Added(_) => None,
        NewEntry::Existing(entry) => entry.first_row_id,
        NewEntry::Deleted(entry) => Some(entry.first_row_id.unwrap_or(i64::MAX)),
    });
    let smallest = ids.collect::<Option<Vec<_>>>()?.into_iter().min()?;
    u64::try_from(smallest).ok().filter(|_| smallest != i64::MAX)
}

/// Merges small carried manifests when there are many, so that planning a scan stays cheap. Table
/// properties `commit.manifest.min-count-to-merge`, `commit.manifest.target-size-bytes` and
/// `commit.manifest-merge.enabled`, as in other engines.
///
/// # Errors
/// When a manifest cannot be read.
pub(super) async fn fold(store: &Store, view: &View, planned: Vec<Planned>) -> Result<Vec<Planned>> {
    let metadata = view.metadata();
    let number = |key: &str, default: u64| {
        let text = metadata.properties().get(key);
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let enabled = metadata
        .properties()
        .get("commit.manifest-merge.enabled")
        .is_none_or(|text| text != "false");
    let target = target_bytes(metadata);
    let least = number("commit.manifest.min-count-to-merge", 100).max(2);
    let small = |planned: &Planned| match planned {
        Planned::Carried(manifest) => {
            manifest.partition_spec_id == metadata.default_partition_spec_id()
                && u64::try_from(manifest.manifest_length).is_ok_and(|bytes| bytes < target / 2)
        }
        Planned::Rewritten(..) => false,
    };
    if !enabled || (planned.iter().filter(|one| small(one)).count() as u64) < least {
        return Ok(planned);
    }
    let most = most_entries(metadata.current_schema()) as u64;
    let (mut kept, mut bin, mut bytes, mut entries) = (Vec::new(), Vec::new(), 0, 0);
    for one in planned {
        match one {
            Planned::Carried(manifest) if small(&Planned::Carried(manifest.clone())) => {
                let more = entries_of(&manifest);
                if bytes >= target || entries + more > most {
                    kept.extend(merge(store, view, std::mem::take(&mut bin)).await?);
                    (bytes, entries) = (0, 0);
                }
                bytes += manifest.manifest_length.unsigned_abs();
                entries += more;
                bin.push(manifest);
            }
            other => kept.push(other),
        }
    }
    kept.extend(merge(store, view, bin).await?);
    Ok(kept)
}

/// The size of manifests that the table asks for, in bytes.
pub(super) fn target_bytes(metadata: &TableMetadata) -> u64 {
    let text = metadata.properties().get("commit.manifest.target-size-bytes");
    let given = text.and_then(|text| text.trim().parse().ok());
    given.filter(|bytes| *bytes > 0).unwrap_or(8 << 20)
}

/// Whether the rows of all files that a manifest names have their ids, where rows have ids.
pub(super) fn is_numbered(view: &View, manifest: &ManifestFile) -> bool {
    manifest.first_row_id.is_some()
        || manifest.content == ManifestContentType::Deletes
        || view.metadata().format_version() < iceberg::spec::FormatVersion::V3
}

/// The manifest with partition values of these types, to be joined with others that have them; as it is where one of them
/// may not become so.
///
/// # Errors
/// None in practice.
pub(super) fn retyped(mut manifest: Manifest, types: &[PrimitiveType]) -> Result<Manifest> {
    if manifest.types == types {
        return Ok(manifest);
    }
    let mut files = Vec::with_capacity(manifest.entries.len());
    for entry in &manifest.entries {
        match with_partition_types(&entry.file, &manifest.types, types)? {
            Some(file) => files.push(file),
            None => return Ok(manifest),
        }
    }
    for (entry, file) in manifest.entries.iter_mut().zip(files) {
        entry.file = file;
    }
    manifest.types = types.to_vec();
    Ok(manifest)
}

/// How many files a manifest names, as its list says.
pub(super) fn entries_of(manifest: &ManifestFile) -> u64 {
    let counts = [
        manifest.added_files_count,
        manifest.existing_files_count,
        manifest.deleted_files_count,
    ];
    counts.into_iter().flatten().map(u64::from).sum()
}

async fn merge(store: &Store, view: &View, manifests: Vec<ManifestFile>) -> Result<Vec<Planned>> {
    if let [one] = manifests.as_slice() {
        return Ok(vec![Planned::Carried(one.clone())]);
    }
    let read: Vec<Manifest> = stream::iter(manifests)
        .map(|manifest| read_manifest(store, &view.state, manifest))
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let spec = view.metadata().default_partition_spec();
    let types = partition_types(spec, view.metadata().current_schema(), view.metadata())?;
    let (mut kept, mut entries, mut first) = (Vec::new(), Vec::new(), None);
    for manifest in read {
        let mut manifest = retyped(manifest, &types)?;
        // Not numbered yet: it is, in the list of this commit.
        if manifest.types != types || !is_numbered(view, &manifest.list) {
            kept.push(Planned::Carried(manifest.list));
            continue;
        }
        entries.extend(moved(&manifest, |_| false)?);
        manifest.entries = Vec::new();
        first.get_or_insert(manifest);
    }
    if let Some(mut manifest) = first {
        manifest.schema = view.metadata().current_schema().clone();
        kept.push(Planned::Rewritten(Box::new(manifest), entries));
    }
    Ok(kept)
}

/// Version 1 manifest lists may leave counts out, which later versions require.
pub(super) async fn complete(store: &Store, view: &View, mut list: ManifestFile) -> Result<ManifestFile> {
    let known = list.added_files_count.is_some()
        && list.existing_files_count.is_some()
        && list.deleted_files_count.is_some()
        && list.added_rows_count.is_some()
        && list.existing_rows_count.is_some()
        && list.deleted_rows_count.is_some();
    if known {
        return Ok(list);
    }
    let manifest = read_manifest(store, &view.state, list.clone()).await?;
    let count = |status: ManifestStatus| {
        let of = manifest.entries.iter().filter(|entry| entry.status == status);
        of.fold((0_u32, 0_u64), |(files, rows), entry| {
            (files + 1, rows + entry.file.record_count())
        })
    };
    let (added, existing, deleted) = (
        count(ManifestStatus::Added),
        count(ManifestStatus::Existing),
        count(ManifestStatus::Deleted),
    );
    (list.added_files_count, list.added_rows_count) = (Some(added.0), Some(added.1));
    (list.existing_files_count, list.existing_rows_count) = (Some(existing.0), Some(existing.1));
    (list.deleted_files_count, list.deleted_rows_count) = (Some(deleted.0), Some(deleted.1));
    Ok(list)
}

/// The key of an entry's file.
pub(super) fn key_of(file: &IcebergFile) -> Key {
    let offset = file
        .content_offset()
        .and_then(|offset| u64::try_from(offset).ok());
    (file.file_path().to_owned(), offset)
}

/// Whether a manifest lists anything that is part of its version.
pub(super) fn has_live(manifest: &ManifestFile) -> bool {
    manifest.has_added_files() || manifest.has_existing_files()
}

fn may_list(view: &View, manifest: &ManifestFile, targets: &[Target]) -> Result<bool> {
    let mut of_spec = targets
        .iter()
        .filter(|target| target.spec_id == manifest.partition_spec_id)
        .peekable();
    if of_spec.peek().is_none() {
        return Ok(false);
    }
    let ranges = partition_ranges(view.metadata(), view, manifest)?;
    Ok(of_spec.any(|target| {
        let in_time = target.sequence.is_none_or(|sequence| {
            manifest.min_sequence_number <= sequence && sequence <= manifest.sequence_number
        });
        in_time
            && ranges
                .as_ref()
                .is_none_or(|ranges| holds(ranges, &target.partition))
    }))
}

/// The partition ranges of a manifest, if it tells.
///
/// # Errors
/// When the manifest's spec cannot be typed.
pub(super) fn partition_ranges(
    metadata: &TableMetadata,
    view: &View,
    manifest: &ManifestFile,
) -> Result<Option<Vec<Option<PartitionRange>>>> {
    match metadata.partition_spec_by_id(manifest.partition_spec_id) {
        Some(spec) => Ok(ranges(manifest, &partition_types(spec, &view.schema, metadata)?)),
        None => Ok(None),
    }
}

/// Whether a partition can lie within these ranges.
pub(super) fn holds(ranges: &[Option<PartitionRange>], partition: &[ScalarValue]) -> bool {
    ranges.len() != partition.len()
        || ranges.iter().zip(partition).all(|(range, value)| {
            let Some(range) = range else { return true };
            if value.is_null() {
                return range.has_null;
            }
            let (Some(min), Some(max)) = (&range.min, &range.max) else {
                return false;
            };
            // Values that do not compare (another type) are not excluded.
            let below = value.partial_cmp(min).is_some_and(|order| order.is_lt());
            let above = value.partial_cmp(max).is_some_and(|order| order.is_gt());
            !below && !above
        })
}
