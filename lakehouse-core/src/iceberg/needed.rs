//! What a vacuum leaves: files of every version in the metadata, and what is not its business.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::DataContentType;

use super::catalog::Catalog;
use super::files::CONCURRENT;
use super::load::{FOLDER, HINT, is_metadata};
use super::manifests::{read_list_of, read_manifest};
use super::view::open;
use crate::error::{Error, Result};
use crate::model::objects::{checksummed, hidden};
use crate::model::{At, Keep, Kept, Needed, ObjectKind, Snapshot};
use crate::planted::{self, Bug};
use crate::store::{Store, is_left_over};

/// Property: nobody may remove files of the table (Iceberg's `TableProperties`).
const GC_ENABLED: &str = "gc.enabled";
/// How old files that belong to no version must be: what Iceberg's own `remove_orphan_files` waits.
const ORPHANS_MS: i64 = 3 * 24 * 3_600_000;

/// See [`crate::format::Format::needed`]. Statistics and manifests are told too. How long versions stay is decided where
/// they expire.
pub(super) async fn needed(
    store: &Store,
    catalog: &Catalog,
    keep: &Keep,
    tell: &mut (dyn FnMut(Needed<'_>) + Send),
) -> Result<Kept> {
    let state = Arc::new(catalog.newest(store).await?);
    let metadata = &state.metadata;
    let forbidden = metadata.properties().get(GC_ENABLED);
    if forbidden.is_some_and(|value| value.eq_ignore_ascii_case("false")) {
        return Err(Error::unsupported(
            format!("the table's property {GC_ENABLED} is false: others may need its files"),
            format!("set it to true where no other table shares them: lake alter --set {GC_ENABLED}=true"),
        ));
    }
    for version in keep.versions.iter().filter(|version| **version != 0) {
        if metadata.snapshot_by_id(*version).is_none() {
            return Err(
                Error::not_found(format!("version {version}"), state.paths.location())
                    .with_hint("`lake history` lists the versions that are there; all of them are kept"),
            );
        }
    }
    let mut path = |recorded: &str| match state.paths.relative(recorded) {
        Ok(key) => tell(store.needed(&key)),
        // Whatever cannot be a key of ours is not one.
        Err(_) => tell(Needed::Outside(recorded)),
    };
    metadata
        .statistics_iter()
        .for_each(|file| path(&file.statistics_path));
    metadata
        .partition_statistics_iter()
        .for_each(|file| path(&file.statistics_path));
    let mut manifests = HashSet::new();
    let current = |id: i64| metadata.current_snapshot_id() == Some(id);
    for snapshot in metadata.snapshots() {
        if planted::is(Bug::VacuumForgetsVersions) && !current(snapshot.snapshot_id()) {
            continue;
        }
        path(snapshot.manifest_list());
        manifests.extend(read_list_of(store, &state, snapshot).await?);
    }
    manifests
        .iter()
        .for_each(|manifest| path(&manifest.manifest_path));
    let mut read = stream::iter(manifests)
        .map(|manifest| read_manifest(store, &state, manifest))
        .buffer_unordered(CONCURRENT);
    while let Some(manifest) = read.try_next().await? {
        for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
            let is_mask = entry.file.content_type() != DataContentType::Data;
            if !(is_mask && planted::is(Bug::VacuumForgetsMasks)) {
                path(entry.file.file_path());
            }
        }
    }
    let oldest = metadata
        .snapshots()
        .min_by_key(|snapshot| snapshot.sequence_number());
    Ok(Kept {
        versions: metadata.snapshots().len() as u64,
        oldest: oldest.map_or(0, |snapshot| snapshot.snapshot_id()),
        older_than_ms: keep.older_than_ms.unwrap_or(ORPHANS_MS),
        snapshot: open(&state, &At::Latest)?,
    })
}

/// See [`crate::format::Format::kind`]. Hidden is what begins with `_` or `.`, but for partition fields that do, as for
/// Iceberg's `remove_orphan_files`.
pub(super) fn kind(snapshot: &Snapshot, key: &str) -> ObjectKind {
    let name = key.rsplit('/').next().unwrap_or(key);
    let open = |part: &str| part == name && (is_left_over(part) || checksummed(part).is_some());
    if hidden(snapshot, key, open).is_some() {
        return ObjectKind::Hidden;
    }
    let owner = checksummed(key);
    let is_version = |key: &str| {
        is_metadata(key) || key == HINT || (key.starts_with(FOLDER) && key.contains(".metadata.json"))
    };
    if is_left_over(name) {
        return ObjectKind::Temporary;
    }
    if is_version(owner.as_deref().unwrap_or(key)) {
        return ObjectKind::Version;
    }
    if owner.is_some() {
        return ObjectKind::Checksum;
    }
    let lower = name.to_ascii_lowercase();
    let ending = lower.rsplit_once('.').map_or("", |(_, ending)| ending);
    match (key.starts_with(FOLDER), ending) {
        (true, "avro") if name.starts_with("snap-") => ObjectKind::ManifestList,
        (true, "avro") => ObjectKind::Manifest,
        (true, "puffin" | "stats" | "parquet" | "orc") => ObjectKind::Statistics,
        (false, "puffin") => ObjectKind::Mask,
        (false, "parquet" | "orc" | "avro") if lower.contains("delete") => ObjectKind::Mask,
        (false, "parquet" | "parq" | "pq" | "orc" | "avro") => ObjectKind::Data,
        _ => ObjectKind::Other,
    }
}
