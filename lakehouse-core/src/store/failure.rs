//! What a store's failure means: whether to ask again, and how to tell the user.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::Duration;

use object_store::Error as StoreError;

use super::{clock, sim};
use crate::error::{Error, io_kind};

/// How often, and after which pauses, a request that failed for a passing reason is sent again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// Requests in all.
    pub(super) attempts: u32,
    /// Longest pause after the first failure; it doubles with every further one.
    first: Duration,
    /// Longest pause of all.
    longest: Duration,
}

impl Retry {
    /// For disks and memory: what fails there either passes at once or stays.
    pub(super) const NEAR: Self = Self {
        attempts: 5,
        first: Duration::from_millis(2),
        longest: Duration::from_millis(100),
    };

    /// Waits after the given number of failures.
    pub(super) async fn pause(self, failures: u32) {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        clock::pause(doubled.min(self.longest)).await;
    }

    /// Sends a request that may be repeated without harm until it succeeds, fails for good, or has
    /// failed too often.
    pub(super) async fn run<T, F>(self, request: impl Fn() -> F) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut failures = 0;
        loop {
            match request().await {
                Err(error) if is_transient(&error) && failures + 1 < self.attempts => {
                    failures += 1;
                    tracing::debug!(failures, %error, "the store failed; asking again");
                    self.pause(failures).await;
                }
                other => return other,
            }
        }
    }
}

/// Whether the same request may succeed when it is sent again.
pub(super) fn is_transient(error: &StoreError) -> bool {
    if let Some(fault) = sim::injected(error) {
        return fault.is_transient();
    }
    if let Some(kind) = io_kind(error) {
        return matches!(
            kind,
            ErrorKind::Interrupted
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::ResourceBusy
                | ErrorKind::StaleNetworkFileHandle
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::NotConnected
                | ErrorKind::UnexpectedEof
        );
    }
    match error {
        // What local disk and memory report without an I/O error is about the request itself.
        StoreError::Generic { store, .. } => !matches!(*store, "LocalFileSystem" | "InMemory" | "local disk"),
        StoreError::JoinError { .. } => true,
        _ => false,
    }
}

/// Whether nothing can have been written, now or later, by a request that failed like this.
pub(super) fn is_certain(error: &StoreError) -> bool {
    if let Some(fault) = sim::injected(error) {
        return fault.is_certain();
    }
    match error {
        StoreError::PermissionDenied { .. }
        | StoreError::Unauthenticated { .. }
        | StoreError::InvalidPath { .. }
        | StoreError::NotSupported { .. }
        | StoreError::NotImplemented { .. } => true,
        _ => io_kind(error).is_some_and(|kind| {
            matches!(
                kind,
                ErrorKind::PermissionDenied
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotADirectory
                    | ErrorKind::IsADirectory
                    | ErrorKind::InvalidFilename
                    | ErrorKind::FileTooLarge
            )
        }),
    }
}

/// The error that a user sees: what was being done, where, and why it failed.
pub(super) fn explain(action: &'static str, place: String, error: StoreError) -> Error {
    match &error {
        StoreError::NotFound { .. } => Error::not_found(place, ""),
        StoreError::AlreadyExists { .. } => Error::AlreadyExists { what: place },
        StoreError::InvalidPath { .. } => Error::invalid(error.to_string(), place),
        StoreError::PermissionDenied { source, .. } => denied(action, &place, source.as_ref()),
        StoreError::Unauthenticated { source, .. } => denied(action, &place, source.as_ref()),
        _ if io_kind(&error) == Some(ErrorKind::PermissionDenied) => denied(action, &place, &error),
        _ => Error::Store {
            action,
            path: place,
            source: error,
        },
    }
}

fn denied(action: &str, place: &str, error: &(dyn StdError + 'static)) -> Error {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Error::Denied {
        what: format!("cannot {action} {place}: {innermost}; check who may read and write there"),
    }
}
