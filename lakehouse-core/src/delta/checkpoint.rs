//! Checkpoints: one Parquet file (Delta protocol, "V1 Spec"), or a file that names the files with the list of data files
//! ("V2 Spec", "UUID-named checkpoint", "Sidecar Files").
//!
//! The kernel will not checkpoint tables with generated columns, so we do. The live files come as a stream; what
//! else a version has is reconciled from the last checkpoint and the log entries since. A checkpoint is advice: readers
//! take it as soon as they see it, so it is verified *before* it gets its name, and failing to write one never fails
//! a commit.

mod file;
mod reconciled;
mod schema;
mod verify;

use std::sync::Arc;

use serde_json::json;

use super::actions::{Action, CheckpointMetadata, SidecarFile};
use super::kernel::Replay;
use super::listing::sidecars_of;
use super::state::State;
use super::{log, protocol};
use crate::error::{Error, Result};
use crate::model::limits::HINT_BYTES;
use crate::model::{Checkpoint, CheckpointKind, Snapshot};
use crate::planted::{self, Bug};
use crate::store::{Created, Listed, Store, clock};
use file::{Contents, Draft};
use reconciled::Reconciled;

pub(super) use reconciled::Remembered;
pub(super) use verify::verify;

/// Commits between two checkpoints where the table does not say (`delta.checkpointInterval`).
const INTERVAL: i64 = 10;
/// Actions in one file with the list of data files, so that writing one takes some 100 MB at most.
const SIDECAR_ACTIONS: u64 = 100_000;

/// Commits between two checkpoints.
pub(super) fn interval(state: &State) -> u64 {
    let given = state.number("delta.checkpointInterval").unwrap_or(INTERVAL);
    given.max(1).cast_unsigned()
}

/// Writes a checkpoint of this version if it is time for one.
pub(super) async fn maybe_write(store: &Store, snapshot: &Snapshot) -> Result<()> {
    let state = State::of(snapshot)?;
    if snapshot.version == 0 || !snapshot.state.is_multiple_of(interval(state)) {
        return Ok(());
    }
    write(store, state, CheckpointKind::Auto, Remembered::by(state)?).await?;
    Ok(())
}

/// The checkpoint of this version, written if there is none, and pointed to.
///
/// # Errors
/// [`Error::Unsupported`] for a kind that the table does not allow; [`Error::Invalid`] when it does not say what the log
/// says.
pub(super) async fn ensure(
    store: &Store,
    state: &State,
    kind: CheckpointKind,
    remembered: Remembered,
) -> Result<Checkpoint> {
    let version = state.replay.version();
    let known = is_v2(state, kind)?;
    let found = existing(store, version).await?;
    // One that Auto would not choose is as good.
    let fits = |one: &Vec<Listed>| kind == CheckpointKind::Auto || is_classic(one) != known;
    let (done, already) = match found.into_iter().find(fits) {
        Some(files) => (of_files(version, &files), true),
        None => (write(store, state, kind, remembered).await?, false),
    };
    let data_files = verify(store, version).await?;
    if already {
        let mut contents = Contents::default();
        contents.files = data_files;
        point_to(store, version, &contents, done.bytes, None).await?;
    }
    Ok(Checkpoint {
        data_files,
        already,
        ..done
    })
}

fn of_files(version: u64, files: &[Listed]) -> Checkpoint {
    Checkpoint {
        version: version.cast_signed(),
        files: files.iter().map(|file| file.path.clone()).collect(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        data_files: 0,
        already: true,
    }
}

fn is_classic(files: &[Listed]) -> bool {
    files
        .iter()
        .all(|file| file.path == log::checkpoint_key(log::file_version(&file.path).unwrap_or(0)))
}

/// The checkpoints of a version that are whole, each with its files.
async fn existing(store: &Store, version: u64) -> Result<Vec<Vec<Listed>>> {
    let listed = store
        .list(&format!("{}{version:020}.checkpoint.", log::FOLDER))
        .await?;
    Ok(log::whole_checkpoints(listed))
}

/// Whether a checkpoint of this kind is one of version 2.
fn is_v2(state: &State, kind: CheckpointKind) -> Result<bool> {
    let allowed = state.protocol.has(protocol::V2_CHECKPOINT);
    let policy = state.metadata.configuration.get(protocol::CHECKPOINT_POLICY);
    match kind {
        CheckpointKind::Classic => Ok(false),
        CheckpointKind::Auto => Ok(allowed && policy.is_some_and(|policy| policy == "v2")),
        CheckpointKind::V2 if allowed => Ok(true),
        CheckpointKind::V2 => Err(Error::unsupported(
            "the table lacks the table feature v2Checkpoint",
            "lake alter TABLE --set delta.checkpointPolicy=v2 switches it on; readers then need to know it",
        )),
    }
}

/// Writes a checkpoint of this version, unless there is one of the name.
async fn write(
    store: &Store,
    state: &State,
    kind: CheckpointKind,
    remembered: Remembered,
) -> Result<Checkpoint> {
    let v2 = is_v2(state, kind)?;
    let (replay, small) = match Reconciled::load(store, &state.replay).await {
        Ok(small) => (state.replay.clone(), small),
        // The log may have been cleaned up beneath the version, which another checkpoint holds by now.
        Err(Error::Invalid { .. } | Error::NotFound { .. }) => {
            let again = state.replay.again(store).await?;
            let small = Reconciled::load(store, &again).await?;
            (again, small)
        }
        Err(error) => return Err(error),
    };
    let (others, tombstones) = small.into_actions(state, remembered, clock::now_ms());
    if !v2 {
        return classic(store, &replay, others, tombstones).await;
    }
    let mut written = Vec::new();
    let done = with_sidecars(store, &replay, others, tombstones, &mut written).await;
    if done.is_err()
        && let Err(error) = store.delete(&written).await
    {
        tracing::warn!(%error, "files of a checkpoint that failed are left behind");
    }
    done?
}

/// One file with everything.
async fn classic(
    store: &Store,
    replay: &Replay,
    others: Vec<Action>,
    tombstones: Vec<Action>,
) -> Result<Checkpoint> {
    let version = replay.version();
    let key = log::checkpoint_key(version);
    let mut draft = Draft::new(schema::whole())?;
    draft.push(&others)?;
    draft.push(&tombstones)?;
    let mut batches = replay.files(store);
    while let Some(batch) = batches.recv().await {
        draft.push(&adds(batch?))?;
        if planted::is(Bug::CheckpointOfAPart) {
            break;
        }
    }
    let (bytes, contents) = draft.finish(&key)?;
    let size = bytes.len() as u64;
    if planted::is(Bug::PointerBeforeCheckpoint) {
        point_to(store, version, &contents, size, None).await?;
    }
    let already = match store.create(&key, bytes).await? {
        Created::Yes => {
            point_to(store, version, &contents, size, None).await?;
            false
        }
        // Somebody was faster, and points to theirs.
        Created::Exists => true,
        Created::Unknown(error) => return Err(error),
    };
    Ok(Checkpoint {
        version: version.cast_signed(),
        files: vec![key],
        bytes: size,
        data_files: contents.files,
        already,
    })
}

/// A file of version 2, the data files listed in others. What was `written` is nobody's if this fails; the inner error
/// is of a checkpoint of which nobody knows whether it is there.
async fn with_sidecars(
    store: &Store,
    replay: &Replay,
    mut others: Vec<Action>,
    tombstones: Vec<Action>,
    written: &mut Vec<String>,
) -> Result<Result<Checkpoint>> {
    let version = replay.version();
    let (mut total, mut size) = (Contents::default(), 0);
    let mut draft = Draft::new(schema::sidecar())?;
    let mut batches = replay.files(store);
    let mut next = Some(tombstones);
    while let Some(rows) = next {
        draft.push(&rows)?;
        next = batches.recv().await.transpose()?.map(adds);
        let full = draft.actions() >= SIDECAR_ACTIONS || next.is_none();
        if !full || draft.actions() == 0 {
            continue;
        }
        let name = format!("{}.parquet", clock::new_commit_id());
        let key = format!("{}{name}", log::SIDECARS);
        let full = std::mem::replace(&mut draft, Draft::new(schema::sidecar())?);
        let (bytes, contents) = full.finish(&key)?;
        size += bytes.len() as u64;
        total.actions += contents.actions;
        total.files += contents.files;
        let sidecar = SidecarFile {
            path: name,
            size_in_bytes: bytes.len() as i64,
            modification_time: clock::now_ms(),
        };
        written.push(key.clone());
        store.put(&key, bytes).await?;
        others.push(Action {
            sidecar: Some(sidecar),
            ..Action::default()
        });
    }
    others.insert(
        0,
        Action {
            checkpoint_metadata: Some(CheckpointMetadata {
                version: version.cast_signed(),
            }),
            ..Action::default()
        },
    );
    let name = format!("{version:020}.checkpoint.{}.parquet", clock::new_commit_id());
    let key = format!("{}{name}", log::FOLDER);
    let mut draft = Draft::new(schema::top())?;
    draft.push(&others)?;
    let (bytes, contents) = draft.finish(&key)?;
    total.actions += contents.actions;
    let top = bytes.len() as u64;
    size += top;
    match store.create(&key, bytes).await? {
        Created::Yes => {}
        Created::Exists => return Err(Error::invalid("the name of a new checkpoint was taken", key)),
        Created::Unknown(error) => return Ok(Err(error)),
    }
    let pointer = json!({"path": name, "sizeInBytes": top, "modificationTime": clock::now_ms()});
    if let Err(error) = point_to(store, version, &total, size, Some(pointer)).await {
        return Ok(Err(error));
    }
    Ok(Ok(Checkpoint {
        version: version.cast_signed(),
        files: std::iter::once(key).chain(written.iter().cloned()).collect(),
        bytes: size,
        data_files: total.files,
        already: false,
    }))
}

fn adds(batch: Vec<super::actions::AddFile>) -> Vec<Action> {
    let action = |add| Action {
        add: Some(add),
        ..Action::default()
    };
    batch.into_iter().map(action).collect()
}

/// Sets `_last_checkpoint`, unless it names this one or a later one.
async fn point_to(
    store: &Store,
    version: u64,
    contents: &Contents,
    bytes: u64,
    v2: Option<serde_json::Value>,
) -> Result<()> {
    let there = match store.get_within(log::LAST_CHECKPOINT, HINT_BYTES).await {
        Err(Error::Limit { .. }) => None,
        there => there?,
    };
    if let Some(there) = there {
        let there: serde_json::Value = serde_json::from_slice(&there).unwrap_or_default();
        if there["version"].as_u64().is_some_and(|there| there >= version) {
            return Ok(());
        }
    }
    let mut pointer = json!({
        "version": version,
        "size": contents.actions,
        "sizeInBytes": bytes,
        "numOfAddFiles": contents.files,
    });
    if let Some(v2) = v2 {
        pointer["v2Checkpoint"] = v2;
    }
    store.put(log::LAST_CHECKPOINT, pointer.to_string().into()).await
}

/// The files of a checkpoint and those that they name, with their sizes in bytes.
pub(super) async fn all_files(store: &Store, files: Vec<(String, u64)>) -> Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for (key, bytes) in files {
        all.extend(sidecars_of(store, &key, bytes).await?);
        all.push((key, bytes));
    }
    Ok(all)
}

/// The state of a version as a reader finds it who knows nothing yet.
pub(super) async fn fresh(store: &Store, version: u64) -> Result<Arc<State>> {
    let replay = Replay::load(store, None, Some(version)).await?;
    Ok(Arc::new(State::new(replay)?))
}
