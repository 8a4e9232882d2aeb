//! Cleaning up the log (Delta protocol, "Metadata Cleanup", "Checkpoint Protection"): what only versions before the oldest kept one
//! need goes, once a checkpoint of that version is there and was compared with the log.

use std::collections::{BTreeSet, HashSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::state::State;
use super::{checkpoint, log, protocol};
use crate::error::{Error, Result};
use crate::model::{CheckpointKind, CleanedUp, Cleanup, Retained, Snapshot};
use crate::store::{Listed, PAGE, Store};

/// Before this version checkpoints are protected.
const PROTECTED: &str = "delta.requireCheckpointProtectionBeforeVersion";
/// Log entries read at the same time.
const CONCURRENT_READS: usize = 8;

/// Every version that the log can still give: from the oldest checkpoint, or from version 0, without a gap to the newest. Its
/// time is that of its file, as the protocol has it, or the one inside where commits carry one.
pub(super) async fn versions(store: &Store, snapshot: &Snapshot) -> Result<Vec<Retained>> {
    let state = State::of(snapshot)?;
    let newest = snapshot.state;
    let mut names = log::Names::of(store.list(log::FOLDER).await?);
    // It is there, whatever a listing that is late says.
    names.commits.entry(newest).or_insert(i64::MAX);
    let Some(oldest) = names.oldest_without_gap(newest) else {
        return Err(Error::invalid(
            format!("the listing of the log lacks what version {newest} begins with"),
            log::FOLDER,
        )
        .with_hint("nothing was deleted; run it again"));
    };
    let timed = protocol::in_commit_timestamps(&state.protocol, &state.metadata);
    let retained = stream::iter(oldest..=newest).map(|version| {
        let (named, written) = (names.commits.get(&version).copied(), names.written_ms(version));
        async move {
            Ok::<_, Error>(Retained {
                version: version.cast_signed(),
                parent: version.checked_sub(1).map(u64::cast_signed),
                timestamp_ms: match (timed, written) {
                    (false, Some(written)) => written,
                    _ => log::timestamp(store, version).await?,
                },
                named_ms: named,
            })
        }
    });
    retained.buffered(CONCURRENT_READS).try_collect().await
}

/// Deletes what only versions before the oldest kept one need: log entries, compacted ones, checksums, checkpoints and the files that
/// they name.
///
/// # Errors
/// [`Error::Unsupported`] when checkpoints are protected, or the oldest kept version cannot be written as a checkpoint;
/// [`Error::Invalid`] when its checkpoint does not say what the log says.
pub(super) async fn clean_up(store: &Store, newest: &State, what: &Cleanup) -> Result<CleanedUp> {
    let mut done = CleanedUp::default();
    let Some(oldest) = what.kept.first().and_then(|version| u64::try_from(*version).ok()) else {
        return Ok(done);
    };
    let listed = store.list(log::FOLDER).await?;
    let of = |file: &Listed| log::file_version(&file.path).filter(|version| *version < oldest);
    // A name that a late writer could take again stays, and what comes after it.
    let young = listed
        .iter()
        .filter(|file| file.modified_ms > what.not_after_ms && log::commit_version(&file.path).is_some());
    let cut = young.filter_map(of).min().unwrap_or(oldest);
    let (gone, left): (Vec<&Listed>, Vec<&Listed>) = listed
        .iter()
        .filter(|file| of(file).is_some())
        .partition(|file| of(file) < Some(cut));
    done.too_young = left.len() as u64;
    if !gone.is_empty() {
        newest.check_writable()?;
        check_protection(newest, oldest, &listed)?;
        let remembered = checkpoint::Remembered::by(newest)?;
        if !what.dry_run {
            // Its own protocol counts: the newest may ask for less.
            let state = checkpoint::fresh(store, oldest).await?;
            state.check_writable()?;
            checkpoint::ensure(store, &state, CheckpointKind::Auto, remembered).await?;
        }
        done.checkpoint = Some(oldest.cast_signed());
        let keys: Vec<String> = gone.iter().map(|file| file.path.clone()).collect();
        done.bytes = gone.iter().map(|file| file.bytes).sum();
        if !what.dry_run {
            for keys in keys.chunks(PAGE) {
                store.delete(keys).await?;
            }
        }
        done.files = keys;
    }
    let gone: BTreeSet<&String> = done.files.iter().collect();
    let left: Vec<Listed> = listed
        .iter()
        .filter(|file| !gone.contains(&file.path))
        .cloned()
        .collect();
    let sidecars = unnamed_sidecars(store, left, what.not_after_ms).await?;
    for file in sidecars {
        if !what.dry_run {
            store.delete(std::slice::from_ref(&file.path)).await?;
        }
        done.bytes += file.bytes;
        done.files.push(file.path);
    }
    Ok(done)
}

/// Refuses what the table's owner forbids: below the protected version the log goes as a whole or not at all, unless no checkpoint
/// is made for it, and none after the cut goes.
fn check_protection(newest: &State, oldest: u64, listed: &[Listed]) -> Result<()> {
    if !newest.protocol.has("checkpointProtection") {
        return Ok(());
    }
    let protected = newest.number(PROTECTED).unwrap_or(0).max(0).cast_unsigned();
    let there = log::Names::of(listed.to_vec()).checkpoints;
    if oldest >= protected || there.contains_key(&oldest) {
        return Ok(());
    }
    Err(Error::unsupported(
        format!(
            "the table protects its checkpoints before version {protected}: its log goes up to there in one go, and \
             the oldest version to be kept is {oldest}"
        ),
        format!("wait until all versions before {protected} are old enough, or keep fewer versions"),
    ))
}

/// Files in the folder of sidecars that no checkpoint names and that are old enough to be nobody's.
async fn unnamed_sidecars(store: &Store, listed: Vec<Listed>, not_after_ms: i64) -> Result<Vec<Listed>> {
    let mut old: Vec<Listed> = listed
        .iter()
        .filter(|file| file.path.starts_with(log::SIDECARS) && file.modified_ms <= not_after_ms)
        .cloned()
        .collect();
    if old.is_empty() {
        return Ok(old);
    }
    let mut named = HashSet::new();
    for file in listed.iter().filter(|file| log::is_checkpoint(&file.path)) {
        let sidecars = checkpoint::all_files(store, vec![(file.path.clone(), file.bytes)]).await?;
        named.extend(sidecars.into_iter().map(|(key, _)| key));
    }
    old.retain(|file| !named.contains(&file.path));
    Ok(old)
}
