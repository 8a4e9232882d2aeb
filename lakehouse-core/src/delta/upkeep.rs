//! How long the log is.

use super::state::State;
use super::{checkpoint, log};
use crate::error::Result;
use crate::model::{LogTail, MetadataPart, Snapshot, Upkeep};
use crate::store::{Listed, Store};

/// The log of a version, from one listing. Sidecars of checkpoints count among all objects only.
///
/// # Errors
/// Those of the store.
pub(super) async fn upkeep(store: &Store, snapshot: &Snapshot) -> Result<Upkeep> {
    let state = State::of(snapshot)?;
    let files = store.list(log::FOLDER).await?;
    let (since, parts) = state.replay.checkpoint().unwrap_or_default();
    let part = |kind, objects: Vec<&Listed>| MetadataPart {
        kind,
        objects: objects.len() as u64,
        bytes: objects.iter().map(|file| file.bytes).sum(),
    };
    let of_checkpoint: Vec<&Listed> = files.iter().filter(|file| parts.contains(&file.path)).collect();
    let is_read = |version: u64| version <= snapshot.state && (parts.is_empty() || version > since);
    let entries = files
        .iter()
        .filter(|file| log::commit_version(&file.path).is_some_and(is_read));
    // One that was written since the version was loaded counts too.
    let newest = log::whole_checkpoints(files.clone())
        .iter()
        .filter_map(|parts| log::file_version(&parts.first()?.path))
        .filter(|version| *version <= snapshot.state)
        .max();
    let after = |version: u64| version <= snapshot.state && newest.is_none_or(|newest| version > newest);
    let tail = files
        .iter()
        .filter(|file| log::commit_version(&file.path).is_some_and(after));
    Ok(Upkeep {
        log: Some(LogTail {
            entries: tail.count() as u64,
            interval: checkpoint::interval(state),
        }),
        objects: files.len() as u64,
        bytes: files.iter().map(|file| file.bytes).sum(),
        checkpoint_ms: of_checkpoint.iter().map(|file| file.modified_ms).max(),
        read: vec![
            part("checkpoint", of_checkpoint),
            part("log entries since the checkpoint", entries.collect()),
        ],
    })
}
