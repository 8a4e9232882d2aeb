//! Who decides which metadata file is current.
//!
//! ```text
//! path      the names themselves: metadata/vN.metadata.json is created if absent    load.rs finds the newest
//! pointer   a catalog that holds the name of the current file, and swaps it         Iceberg spec, "Optimistic Concurrency"
//! ```

mod memory;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::load::{self, FOLDER, metadata_key, number_of_catalog, taken_elsewise};
use super::metadata::State;
use crate::error::{Error, Result};
use crate::model::CommitId;
use crate::planted::{self, Bug};
use crate::store::{Created, Store, clock};

pub use memory::{MemoryCatalog, SwapFault};

/// Swaps of one pointer at most, while the catalog does not say how they ended.
const ATTEMPTS: u32 = 6;
/// Longest pause after the first of them; it doubles.
const PAUSE: Duration = Duration::from_millis(20);

/// The entry of one table in a catalog: the location of its current metadata file.
pub trait Pointer: Send + Sync + Debug {
    /// The location of the current metadata file, as the metadata spells paths; `None` when there is no such table.
    fn current(&self) -> BoxFuture<'_, Result<Option<String>>>;

    /// Makes `next` the current file if `expected` still is (`None`: if there is no such table). A location is never
    /// made current twice.
    ///
    /// # Errors
    /// When it is certain that nothing was swapped.
    fn swap<'a>(&'a self, expected: Option<&'a str>, next: &'a str) -> BoxFuture<'a, Result<Swapped>>;
}

/// What a catalog says of a swap.
#[derive(Debug)]
pub enum Swapped {
    /// The new file is current.
    Yes,
    /// Another file is current than the one expected. A client that asked twice may hear this of its own swap.
    No,
    /// No answer: it may be done, or be done later.
    Unknown(Error),
}

/// How an attempt to make new metadata current ended.
#[derive(Debug)]
pub(super) enum Replaced {
    /// It is current, or was until somebody built upon it.
    Yes(Box<State>),
    /// Somebody else was first; nothing of ours is visible, now or later.
    No,
    Unknown(Error),
}

/// The catalog of one table.
#[derive(Debug, Clone)]
pub(super) enum Catalog {
    Path,
    Pointer(Arc<dyn Pointer>),
}

impl Catalog {
    /// The newest version of the table.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no table, [`Error::Invalid`] when its metadata is broken.
    pub(super) async fn newest(&self, store: &Store) -> Result<State> {
        match self {
            Self::Path => load::newest(store).await,
            Self::Pointer(pointer) => match current(pointer.as_ref(), store).await? {
                Some(state) => Ok(state),
                None => Err(Error::not_found("an Iceberg table", store.location())
                    .with_hint("the catalog does not know it: create it first")),
            },
        }
    }

    /// Whether there is a successor of `base` already (`None`: a table), as far as one look tells.
    ///
    /// # Errors
    /// When it cannot be looked up.
    pub(super) async fn is_taken(&self, store: &Store, base: Option<&State>) -> Result<bool> {
        match (self, base) {
            (Self::Path, Some(base)) => {
                let next = base.number + 1;
                Ok(store.head(&metadata_key(next)).await?.is_some() || taken_elsewise(store, next).await?)
            }
            (Self::Path, None) => {
                let listed = store.list(FOLDER).await?;
                let there = listed.iter().any(|object| load::is_metadata(&object.path));
                Ok(there || taken_elsewise(store, 1).await?)
            }
            (Self::Pointer(pointer), base) => Ok(pointer.current().await? != base.map(State::recorded)),
        }
    }

    /// Makes `bytes` the metadata that follows `base` (`None`: that of a new table). `commit_id` goes into the
    /// file's name where names are free; `landed` tells whether newer metadata has this commit in it.
    ///
    /// # Errors
    /// When it is certain that nothing became visible. No file is left behind then.
    pub(super) async fn replace(
        &self,
        store: &Store,
        base: Option<&State>,
        bytes: Vec<u8>,
        commit_id: &CommitId,
        landed: impl Fn(&State) -> bool,
    ) -> Result<Replaced> {
        let number = base.map_or(1, |base| base.number + 1);
        match self {
            Self::Path => {
                let file = metadata_key(number);
                // What cannot be read back is not published: after that nothing may fail any more.
                let bytes = Bytes::from(bytes);
                let mut created = None;
                if planted::is(Bug::PublishedUnread) {
                    created = Some(store.create(&file, bytes.clone()).await?);
                }
                let state = State::parse(store, &file, number, &bytes)?;
                let created = match created {
                    Some(created) => created,
                    None => store.create(&file, bytes).await?,
                };
                Ok(match created {
                    Created::Exists => Replaced::No,
                    Created::Unknown(error) => Replaced::Unknown(error),
                    Created::Yes => {
                        write_hint(store, number).await;
                        Replaced::Yes(Box::new(state))
                    }
                })
            }
            Self::Pointer(pointer) => {
                // The id of an operation names one attempt only together with the version that it builds upon.
                let file = format!("{FOLDER}{number:05}-{commit_id}.metadata.json");
                let bytes = Bytes::from(bytes);
                let state = State::parse(store, &file, number, &bytes)?;
                store.put(&file, bytes).await?;
                let ended = swap(pointer.as_ref(), store, base, state, landed).await;
                if matches!(ended, Ok(Replaced::No) | Err(_))
                    && let Err(error) = store.delete(&[file]).await
                {
                    tracing::warn!(%error, "could not delete the metadata file of a lost attempt");
                }
                ended
            }
        }
    }
}

/// Tells readers where to start. It is advice, so a failure is no failure of the commit.
async fn write_hint(store: &Store, number: u64) {
    if let Err(error) = store
        .put(load::HINT, number.to_string().into_bytes().into())
        .await
    {
        tracing::warn!(%error, number, "could not write the version hint; readers will find the version without it");
    }
}

async fn current(pointer: &dyn Pointer, store: &Store) -> Result<Option<State>> {
    let Some(recorded) = pointer.current().await? else {
        return Ok(None);
    };
    let file = store.relative(&recorded)?;
    let within = store.get_within(&file, store.limits().metadata_bytes).await?;
    let bytes = within.ok_or_else(|| Error::not_found(&file, store.location()))?;
    let mut state = State::parse(store, &file, number_of_catalog(&file).unwrap_or(0), &bytes)?;
    state.named = Some(recorded);
    Ok(Some(state))
}

/// Whether it is certain from newer metadata that `next` was never made the successor of `expected` and never will
/// be: another file is known to be.
fn is_passed_over(newest: &State, expected: Option<&str>, next: &str) -> bool {
    let Some(expected) = expected else {
        return true;
    };
    let log = newest.metadata.metadata_log();
    let current = newest.recorded();
    let mut files = log
        .iter()
        .map(|entry| entry.metadata_file.as_str())
        .chain([current.as_str()]);
    files.any(|file| file == expected) && files.next().is_some_and(|successor| successor != next)
}

/// Asks for the same swap until its end is certain. Asking again is safe: what is expected is never current a
/// second time, so at most one of the requests can be carried out, and none once another file is current.
async fn swap(
    pointer: &dyn Pointer,
    store: &Store,
    base: Option<&State>,
    state: State,
    landed: impl Fn(&State) -> bool,
) -> Result<Replaced> {
    let (expected, next) = (base.map(State::recorded), state.recorded());
    let logged = |newest: &State| {
        let mut log = newest.metadata.metadata_log().iter();
        log.any(|entry| entry.metadata_file == next)
    };
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        match pointer.swap(expected.as_deref(), &next).await {
            Ok(Swapped::Yes) => return Ok(Replaced::Yes(Box::new(state))),
            Ok(Swapped::No) => match current(pointer, store).await {
                Ok(Some(newest)) if landed(&newest) || logged(&newest) => {
                    return Ok(Replaced::Yes(Box::new(state)));
                }
                // Snapshots expire and logs are cut: what is not there any more may have been there.
                Ok(Some(newest)) if is_passed_over(&newest, expected.as_deref(), &next) => {
                    return Ok(Replaced::No);
                }
                Ok(_) => {
                    last = Some(Error::invalid(
                        "the catalog did not swap, and what it has now does not tell why",
                        next.as_str(),
                    ));
                }
                Err(error) => last = Some(error),
            },
            Ok(Swapped::Unknown(error)) => last = Some(error),
            Err(error) if last.is_none() => return Err(error),
            Err(error) => last = Some(error),
        }
        tracing::debug!(attempt, next, "the outcome of a swap is open; asking again");
        clock::pause(PAUSE.saturating_mul(1 << attempt)).await;
    }
    let silent = || Error::invalid("the catalog did not answer", next.as_str());
    Ok(Replaced::Unknown(last.unwrap_or_else(silent)))
}
