//! A catalog in this process, and what can go wrong with its answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;

use super::{Pointer, Swapped};
use crate::error::{Error, Result};

static CATALOGS: LazyLock<Mutex<HashMap<String, MemoryCatalog>>> = LazyLock::new(Mutex::default);

/// What becomes of one swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapFault {
    /// It is carried out, and its answer lost.
    Lost,
    /// It is not carried out, and no answer comes.
    Swallowed,
    /// No answer comes, and it is carried out before the next request but one.
    Late,
    /// It is carried out, and answered as if another file had been current: a client in between asked twice.
    DeniedAfterwards,
}

#[derive(Debug, Default)]
struct Entry {
    current: Option<String>,
    /// What becomes of the next swaps, in turn; those that follow go well.
    faults: VecDeque<SwapFault>,
    /// Requests that go well before the catalog answers none any more.
    until_down: Option<u64>,
    late: Vec<(u64, Option<String>, String)>,
    requests: u64,
    fired: u64,
}

/// The pointer of one table, in memory: what a catalog over a network does, with its faults on demand. It shows
/// what only such a catalog can do, leaving a commit unknown; clones share one entry.
#[derive(Debug, Clone, Default)]
pub struct MemoryCatalog(Arc<Mutex<Entry>>);

impl MemoryCatalog {
    /// The entry of that name: the same one every time.
    pub fn named(name: &str) -> Self {
        let mut catalogs = CATALOGS.lock().unwrap_or_else(PoisonError::into_inner);
        catalogs.entry(name.to_owned()).or_default().clone()
    }

    /// An entry of its own that starts where this one stands, without its faults.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(Entry {
            current: self.entry().current.clone(),
            ..Entry::default()
        })))
    }

    /// The next swaps end like this, in turn.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = SwapFault>) {
        self.entry().faults.extend(faults);
    }

    /// After this many more requests the catalog answers none any more, until [`MemoryCatalog::heal`].
    pub fn go_down_after(&self, requests: u64) {
        self.entry().until_down = Some(requests);
    }

    /// Everything goes well again; what was late has arrived.
    pub fn heal(&self) {
        let mut entry = self.entry();
        entry.faults.clear();
        entry.until_down = None;
        entry.deliver(u64::MAX);
    }

    /// Requests so far, and how many swaps met a fault.
    pub fn met(&self) -> (u64, u64) {
        let entry = self.entry();
        (entry.requests, entry.fired)
    }

    fn entry(&self) -> MutexGuard<'_, Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn arrive(&mut self) -> Result<(), ()> {
        self.requests += 1;
        self.deliver(self.requests);
        match &mut self.until_down {
            Some(0) => Err(()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn deliver(&mut self, upto: u64) {
        let late = std::mem::take(&mut self.late);
        let (due, later) = late.into_iter().partition(|(due, ..)| *due <= upto);
        self.late = later;
        for (_, expected, next) in due {
            self.set(expected.as_deref(), &next);
        }
    }

    fn set(&mut self, expected: Option<&str>, next: &str) -> bool {
        let free = self.current.as_deref() == expected;
        if free {
            self.current = Some(next.to_owned());
        }
        free
    }
}

fn silence() -> Error {
    Error::Store {
        action: "ask",
        path: "the catalog".to_owned(),
        source: object_store::Error::Generic {
            store: "catalog",
            source: "injected: no answer".into(),
        },
    }
}

impl Pointer for MemoryCatalog {
    fn current(&self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(async move {
            let mut entry = self.entry();
            entry.arrive().map_err(|()| silence())?;
            Ok(entry.current.clone())
        })
    }

    fn swap<'a>(&'a self, expected: Option<&'a str>, next: &'a str) -> BoxFuture<'a, Result<Swapped>> {
        Box::pin(async move {
            let mut entry = self.entry();
            if entry.arrive().is_err() {
                return Ok(Swapped::Unknown(silence()));
            }
            let fault = entry.faults.pop_front();
            entry.fired += u64::from(fault.is_some());
            Ok(match fault {
                None if entry.set(expected, next) => Swapped::Yes,
                None => Swapped::No,
                Some(SwapFault::Lost) => {
                    entry.set(expected, next);
                    Swapped::Unknown(silence())
                }
                Some(SwapFault::DeniedAfterwards) => {
                    entry.set(expected, next);
                    Swapped::No
                }
                Some(SwapFault::Swallowed) => Swapped::Unknown(silence()),
                Some(SwapFault::Late) => {
                    let due = entry.requests + 2;
                    entry
                        .late
                        .push((due, expected.map(str::to_owned), next.to_owned()));
                    Swapped::Unknown(silence())
                }
            })
        })
    }
}
