//! What a vacuum leaves: files of retained versions, and what is not its business.
//!
//! A version is retained for `delta.deletedFileRetentionDuration` after its successor was committed. Others go by the
//! `deletionTimestamp` of tombstones, which checkpoints forget; here the log itself says which files the versions had.
//! When a version was committed is what both the store (when its log entry was written) and its writer say, whichever
//! is later: a writer whose clock is off can only keep versions for longer. The log may have been cleaned up further than
//! that: versions that it cannot give any more need nothing.

use futures::stream::{self, StreamExt};

use super::actions::{AddFile, Vector};
use super::state::State;
use super::{Delta, log, properties, vectors};
use crate::error::{Error, Result};
use crate::model::objects::{checksummed, hidden};
use crate::model::{Keep, Kept, Needed, ObjectKind, Snapshot, Version};
use crate::planted::{self, Bug};
use crate::store::{Store, is_left_over};

/// Log entries that are read at the same time.
const CONCURRENT: usize = 8;

type Tell<'a> = &'a mut (dyn FnMut(Needed<'_>) + Send);

/// See [`crate::format::Format::needed`].
pub(super) async fn needed(table: &Delta, keep: &Keep, tell: Tell<'_>) -> Result<Kept> {
    let newest = table.load(None).await?;
    let older_than_ms = match keep.older_than_ms {
        Some(given) => given,
        None => properties::files_ms(&newest.properties)?,
    };
    let oldest = oldest(table, newest.state, keep.now_ms.saturating_sub(older_than_ms)).await?;
    let mut told = Told {
        store: &table.store,
        tell,
    };
    live(table, oldest, &mut told).await?;
    let mut entries = stream::iter(oldest..=newest.state)
        .map(|version| async move { (version, log::read(&table.store, version).await) })
        .buffered(CONCURRENT);
    while let Some((version, entry)) = entries.next().await {
        match entry? {
            Some(actions) => {
                for action in actions {
                    if let Some(add) = action.add {
                        told.file(&add)?;
                    }
                    if let Some(change) = action.cdc {
                        told.path(&change.path)?;
                    }
                }
            }
            // What it added is part of the version itself, which a checkpoint gave.
            None if version == oldest => {}
            None => return Err(Error::not_found(log::commit_key(version), table.store.location())),
        }
    }
    for version in &keep.versions {
        by_name(table, *version, &mut told).await?;
    }
    let named = keep
        .versions
        .iter()
        .filter(|version| **version < oldest.cast_signed());
    Ok(Kept {
        versions: newest.state - oldest + 1 + named.count() as u64,
        oldest: oldest.cast_signed(),
        older_than_ms,
        snapshot: newest,
    })
}

/// See [`crate::format::Format::files_kept_since`].
pub(super) async fn kept_since(table: &Delta, newest: &Snapshot, now_ms: i64) -> Result<Version> {
    let kept_ms = properties::files_ms(&newest.properties)?;
    let oldest = oldest(table, newest.state, now_ms.saturating_sub(kept_ms)).await?;
    Ok(oldest.cast_signed())
}

/// The oldest version that is retained: the one that was current at `cutoff_ms`, or the first after it that can be read.
async fn oldest(table: &Delta, newest: u64, cutoff_ms: i64) -> Result<u64> {
    if planted::is(Bug::VacuumForgetsVersions) {
        return Ok(newest);
    }
    let names = log::Names::of(table.store.list(log::FOLDER).await?);
    let commits = || names.commits.range(..=newest);
    let then = commits().rev().find(|(_, written_ms)| **written_ms <= cutoff_ms);
    let first = commits().next().map(|(version, _)| *version);
    let mut oldest = then.map(|(version, _)| *version).or(first).unwrap_or(newest);
    while names.commits.contains_key(&oldest) && first < Some(oldest) {
        let Some(entry) = log::entry(&table.store, oldest).await? else {
            break;
        };
        if entry.timestamp_ms <= cutoff_ms {
            break;
        }
        oldest -= 1;
    }
    Ok(oldest.max(names.oldest().unwrap_or(newest)).min(newest))
}

/// A version that is kept by name, whatever its age.
async fn by_name(table: &Delta, version: Version, told: &mut Told<'_, '_>) -> Result<()> {
    let version = u64::try_from(version).map_err(|_| {
        Error::not_found(format!("version {version}"), table.store.location())
            .with_hint("versions to keep are numbers from 0 on")
    })?;
    live(table, version, told).await?;
    for action in log::read(&table.store, version).await?.unwrap_or_default() {
        if let Some(change) = action.cdc {
            told.path(&change.path)?;
        }
    }
    Ok(())
}

/// The files of a version.
async fn live(table: &Delta, version: u64, told: &mut Told<'_, '_>) -> Result<()> {
    let snapshot = table.load(Some(version)).await?;
    let mut batches = State::of(&snapshot)?.replay.files(&table.store);
    while let Some(batch) = batches.recv().await {
        for add in batch? {
            told.file(&add)?;
        }
    }
    Ok(())
}

/// What is told to whoever asked.
struct Told<'a, 'b> {
    store: &'a Store,
    tell: Tell<'b>,
}

impl Told<'_, '_> {
    fn file(&mut self, add: &AddFile) -> Result<()> {
        self.path(&add.path)?;
        let in_file = |vector: &&Vector| vector.storage_type != "i" && !planted::is(Bug::VacuumForgetsMasks);
        if let Some(vector) = add.deletion_vector.as_ref().filter(in_file) {
            match vectors::mask_ref(vector, self.store) {
                Ok(mask) => (self.tell)(self.store.needed(&mask.path)),
                Err(Error::Denied { .. }) => (self.tell)(Needed::Outside(&vector.path_or_inline_dv)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn path(&mut self, recorded: &str) -> Result<()> {
        match self.store.relative_encoded(recorded) {
            Ok(key) => (self.tell)(self.store.needed(&key)),
            Err(Error::Denied { .. }) => (self.tell)(Needed::Outside(recorded)),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// See [`crate::format::Format::kind`]. Folders that others hide are those of Spark's `VACUUM`: what begins with `_` or
/// `.`, but for partition columns that do, change files and indexes; and `metadata`, where Iceberg metadata of the same
/// table may be.
pub(super) fn kind(snapshot: &Snapshot, key: &str) -> ObjectKind {
    let is_log = key.starts_with(log::FOLDER);
    let name = key.rsplit('/').next().unwrap_or(key);
    let open = |part: &str| {
        ["_change_data", "_delta_index"]
            .iter()
            .any(|open| part.starts_with(open))
            || (part == name && (is_left_over(part) || checksummed(part).is_some()))
            || (is_log && format!("{part}/") == log::FOLDER)
    };
    if key.starts_with("metadata/") || hidden(snapshot, key, open).is_some() {
        return if is_log {
            ObjectKind::Version
        } else {
            ObjectKind::Hidden
        };
    }
    let lower = name.to_ascii_lowercase();
    let is_parquet = [".parquet", ".parq", ".pq"]
        .iter()
        .any(|ending| lower.ends_with(ending));
    match name {
        _ if is_left_over(name) => ObjectKind::Temporary,
        _ if is_log => ObjectKind::Version,
        _ if checksummed(name).is_some() => ObjectKind::Checksum,
        _ if key.starts_with("_delta_index") => ObjectKind::Index,
        _ if key.starts_with("_change_data/") && is_parquet => ObjectKind::Changes,
        _ if is_parquet => ObjectKind::Data,
        _ if name.starts_with("deletion_vector_") && name.ends_with(".bin") => ObjectKind::Mask,
        _ => ObjectKind::Other,
    }
}
