//! Which objects versions still need.

use std::collections::BTreeSet;

use super::actions::{AddFile, Vector};
use super::state::State;
use super::{Delta, log, vectors};
use crate::error::{Error, Result};
use crate::model::Version;
use crate::store::Store;

/// What every version that the log can still give needs: the files of the oldest, all that were added
/// since, and the log.
pub(super) async fn everything(table: &Delta) -> Result<BTreeSet<String>> {
    let newest = table.load(None).await?;
    let files = table.store.list(log::FOLDER).await?;
    let mut keys: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
    let commits: BTreeSet<u64> = keys.iter().filter_map(|key| log::commit_version(key)).collect();
    let oldest = if commits.contains(&0) {
        Some(0)
    } else {
        let checkpoints = keys.iter().filter(|key| log::is_checkpoint(key));
        checkpoints.filter_map(|key| log::file_version(key)).min()
    };
    if let Some(oldest) = oldest {
        live(table, oldest, &mut keys).await?;
    }
    for version in commits.range(..=newest.state) {
        for action in log::read(&table.store, *version).await?.unwrap_or_default() {
            if let Some(add) = action.add {
                insert(&table.store, &add, &mut keys)?;
            }
            if let Some(change) = action.cdc {
                keys.insert(table.store.relative_encoded(&change.path)?);
            }
        }
    }
    Ok(keys)
}

/// What these versions need: their files, and the log from the checkpoint that the oldest starts from.
pub(super) async fn of_versions(table: &Delta, versions: &[Version]) -> Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    let mut first = u64::MAX;
    for version in versions {
        let version = u64::try_from(*version)
            .map_err(|_| Error::not_found(format!("version {version}"), table.store.location()))?;
        let start = live(table, version, &mut keys).await?;
        first = first.min(start);
    }
    for file in table.store.list(log::FOLDER).await? {
        if log::file_version(&file.path).is_none_or(|version| version >= first) {
            keys.insert(file.path);
        }
    }
    Ok(keys)
}

/// Adds the files of a version; returns the version that its replay starts from.
async fn live(table: &Delta, version: u64, keys: &mut BTreeSet<String>) -> Result<u64> {
    let snapshot = table.load(Some(version)).await?;
    let state = State::of(&snapshot)?;
    let mut batches = state.replay.files(&table.store);
    while let Some(batch) = batches.recv().await {
        for add in batch? {
            insert(&table.store, &add, keys)?;
        }
    }
    Ok(state.replay.checkpoint().map_or(0, |(version, _)| version))
}

fn insert(store: &Store, add: &AddFile, keys: &mut BTreeSet<String>) -> Result<()> {
    keys.insert(store.relative_encoded(&add.path)?);
    let in_file = |vector: &&Vector| vector.storage_type != "i";
    if let Some(vector) = add.deletion_vector.as_ref().filter(in_file) {
        keys.insert(vectors::mask_ref(vector, store)?.path);
    }
    Ok(())
}
