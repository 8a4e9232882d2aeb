//! The live files of a version (Delta protocol, "Action Reconciliation"): of the log entries since the last checkpoint,
//! the newest first, then of the checkpoint what they did not replace. Both are read as a stream, so that memory holds
//! what the entries name, and a batch of the checkpoint.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, stream};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::actions::{self, AddFile, SidecarFile, Vector};
use super::kernel::{Replay, gave_up};
use super::sieve::Sieve;
use super::{log, parts};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::store::Store;

/// Log entries read at the same time.
const READ_AHEAD: usize = 16;
/// Files of a log entry that are handed on together.
const BATCH: usize = 1024;

/// Live files, some at a time.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) adds: Vec<AddFile>,
    /// The sieve was asked about them already.
    pub(super) sifted: bool,
}

impl Replay {
    /// The live files, batch by batch. The log is read as the receiver is drained; dropping it stops the reading.
    pub(super) fn files(&self, store: &Store) -> mpsc::Receiver<Result<Vec<AddFile>>> {
        self.listed(store, None, |batch| batch.adds)
    }

    /// The same, without the files of the checkpoint that the sieve holds back.
    pub(super) fn sifted(&self, store: &Store, sieve: Option<Sieve>) -> mpsc::Receiver<Result<Batch>> {
        self.listed(store, sieve, |batch| batch)
    }

    fn listed<T: Send + 'static>(
        &self,
        store: &Store,
        sieve: Option<Sieve>,
        made: impl Fn(Batch) -> T + Send + Sync + 'static,
    ) -> mpsc::Receiver<Result<T>> {
        let (sender, receiver) = mpsc::channel(2);
        let (replay, store, handle) = (self.clone(), store.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let send = async |batch: Batch| sender.send(Ok(made(batch))).await.is_ok();
            let listing = AssertUnwindSafe(list(&replay, &store, sieve, &send)).catch_unwind();
            // Without a word at the end, files that are missing after a panic would be missing in silence.
            let listed = handle
                .block_on(listing)
                .unwrap_or_else(|_| Err(gave_up(&"a panic")));
            if let Err(error) = listed {
                // The receiver may be gone: then nobody asks any more.
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }
}

/// What log entries say of files: these are decided, whatever older ones say.
#[derive(Debug, Default)]
pub(super) struct Decided(HashMap<String, Vec<Option<String>>>);

impl Decided {
    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file with the deletion vector of this id is; `vector` is asked for the id only where it matters.
    pub(super) fn has(&self, path: &str, vector: impl FnOnce() -> Option<String>) -> bool {
        self.0.get(path).is_some_and(|vectors| {
            let vector = vector();
            vectors.contains(&vector)
        })
    }

    /// Decides a file; `false` if it was before.
    fn decide(&mut self, path: &str, vector: Option<String>) -> bool {
        match self.0.get_mut(path) {
            Some(vectors) if vectors.contains(&vector) => false,
            Some(vectors) => {
                vectors.push(vector);
                true
            }
            None => {
                self.0.insert(path.to_owned(), vec![vector]);
                true
            }
        }
    }
}

/// A line of a log entry, or of a checkpoint in JSON, as far as files are concerned.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    add: Option<AddFile>,
    remove: Option<Removed>,
    sidecar: Option<Sidecar>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    path: String,
    deletion_vector: Option<Vector>,
}

/// A file of a checkpoint of version 2 (Delta protocol, "Sidecar File Information").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sidecar {
    pub(super) path: String,
    pub(super) size_in_bytes: u64,
}

impl Sidecar {
    /// Its key, which is a name in the folder of sidecars, or a path.
    pub(super) fn key(&self, store: &Store) -> Result<String> {
        match self.path.contains('/') {
            true => store.relative_encoded(&self.path),
            false => store.relative_encoded(&format!("{}_sidecars/{}", log::FOLDER, self.path)),
        }
    }
}

/// Lists a version. Its log may be cleaned up meanwhile: then a checkpoint stands for what is gone, and the listing goes on
/// from there; what it has handed on is decided and does not come again.
async fn list<S: AsyncFn(Batch) -> bool>(
    replay: &Replay,
    store: &Store,
    sieve: Option<Sieve>,
    send: &S,
) -> Result<()> {
    let mut listing = Listing {
        store,
        decided: Decided::default(),
        next: Some(replay.version()),
        of_checkpoint: false,
    };
    let sieve = sieve.map(Arc::new);
    match listing.run(replay, sieve.as_ref(), send).await {
        Err(gone) if !listing.of_checkpoint && may_be_gone(&gone) => {
            let since = |replay: &Replay| replay.checkpoint().map(|(version, _)| version);
            match replay.again(store).await {
                Ok(again) if since(&again) > since(replay) => {
                    listing.run(&again, sieve.as_ref(), send).await.map(|_| ())
                }
                _ => Err(gone),
            }
        }
        done => done.map(|_| ()),
    }
}

/// Whether a listing failed because of something that a clean-up may have taken: an entry, or a checkpoint.
fn may_be_gone(error: &Error) -> bool {
    match error {
        Error::NotFound { .. } | Error::Invalid { .. } => true,
        Error::Store { source, .. } => matches!(source, object_store::Error::NotFound { .. }),
        _ => false,
    }
}

/// How far a listing has come.
struct Listing<'a> {
    store: &'a Store,
    /// By the entries that were read.
    decided: Decided,
    /// The next entry to be read; `None` if all are.
    next: Option<u64>,
    /// Files of the checkpoint may have been handed on.
    of_checkpoint: bool,
}

impl Listing<'_> {
    /// `false` when nobody asks any more.
    async fn run<S: AsyncFn(Batch) -> bool>(
        &mut self,
        replay: &Replay,
        sieve: Option<&Arc<Sieve>>,
        send: &S,
    ) -> Result<bool> {
        let store = self.store;
        let since = replay.checkpoint().map_or(0, |(version, _)| version + 1);
        let versions = self.next.into_iter().flat_map(|next| (since..=next).rev());
        let mut entries = stream::iter(versions)
            .map(|version| async move {
                let key = log::commit_key(version);
                let bytes = store.get_within(&key, store.limits().commit_bytes).await?;
                let missing = || Error::invalid("the log entry is missing", &key);
                Ok::<_, Error>((bytes.ok_or_else(missing)?, key, version))
            })
            .buffered(READ_AHEAD);
        while let Some(entry) = entries.next().await {
            let (bytes, key, version) = entry?;
            if !lines(&bytes, &key, &mut self.decided, send, |_| Ok(())).await? {
                return Ok(false);
            }
            self.next = version.checked_sub(1);
        }
        drop(entries);
        if planted::is(Bug::ReplacedFilesListed) {
            self.decided = Decided::default();
        }
        let decided = Arc::new(Decided(self.decided.0.clone()));
        let mut sidecars = Vec::new();
        for (key, bytes) in replay.checkpoint_files() {
            let go_on = match key.ends_with(".json") {
                true => {
                    let found = store.get_within(&key, store.limits().commit_bytes).await?;
                    let found = found.ok_or_else(|| Error::not_found(&key, store.location()))?;
                    let mut undecided = Decided(decided.0.clone());
                    let note = |sidecar| {
                        sidecars.push(sidecar);
                        Ok(())
                    };
                    self.of_checkpoint = true;
                    lines(&found, &key, &mut undecided, send, note).await?
                }
                false => {
                    let part = parts::Part::open(store, &key, bytes).await?;
                    sidecars.extend(part.sidecars().await?);
                    self.of_checkpoint = true;
                    part.files(&decided, sieve, send).await?
                }
            };
            if !go_on {
                return Ok(false);
            }
        }
        for sidecar in sidecars {
            let key = sidecar.key(store)?;
            let part = parts::Part::open(store, &key, sidecar.size_in_bytes).await?;
            self.of_checkpoint = true;
            if !part.files(&decided, sieve, send).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The files that a file of a checkpoint names, with their sizes in bytes.
pub(super) async fn sidecars_of(store: &Store, key: &str, bytes: u64) -> Result<Vec<(String, u64)>> {
    let sidecars = match key.ends_with(".json") {
        true => {
            let found = store.get_within(key, store.limits().commit_bytes).await?;
            let found = found.ok_or_else(|| Error::not_found(key, store.location()))?;
            let rows = actions::parse(&found, key)?.into_iter();
            let sidecar = |file: SidecarFile| Sidecar {
                path: file.path,
                size_in_bytes: file.size_in_bytes.max(0).cast_unsigned(),
            };
            rows.filter_map(|row| row.sidecar).map(sidecar).collect()
        }
        false => parts::Part::open(store, key, bytes).await?.sidecars().await?,
    };
    let named = |sidecar: Sidecar| Ok((sidecar.key(store)?, sidecar.size_in_bytes));
    sidecars.into_iter().map(named).collect()
}

/// Hands on the files that an entry adds and that are not decided; `false` when nobody asks any more.
async fn lines<S: AsyncFn(Batch) -> bool>(
    bytes: &[u8],
    key: &str,
    decided: &mut Decided,
    send: &S,
    mut note: impl FnMut(Sidecar) -> Result<()>,
) -> Result<bool> {
    let mut adds = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line: Line = serde_json::from_slice(line).map_err(|e| {
            let what = format!("line {} of the log entry cannot be read: {e}", number + 1);
            Error::invalid(what, key)
                .with_hint("the table cannot be read past this entry; restore the file from a backup")
        })?;
        if let Some(remove) = line.remove {
            decided.decide(&remove.path, remove.deletion_vector.as_ref().map(Vector::id));
        }
        if let Some(add) = line.add
            && decided.decide(&add.path, add.deletion_vector.as_ref().map(Vector::id))
        {
            adds.push(add);
        }
        if let Some(sidecar) = line.sidecar {
            note(sidecar)?;
        }
        if adds.len() >= BATCH && !send(whole(&mut adds)).await {
            return Ok(false);
        }
    }
    Ok(adds.is_empty() || send(whole(&mut adds)).await)
}

fn whole(adds: &mut Vec<AddFile>) -> Batch {
    Batch {
        adds: std::mem::take(adds),
        sifted: false,
    }
}
