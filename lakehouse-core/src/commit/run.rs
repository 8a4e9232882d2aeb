//! The commit loop.

use std::sync::Arc;

use super::Isolation;
use crate::error::Result;
use crate::format::Handle;
use crate::model::{Change, CommitId, Snapshot};

/// How to commit.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// How strictly reads are protected.
    pub isolation: Isolation,
    /// Publish attempts before giving up with a conflict.
    pub max_attempts: u32,
    /// Idempotency key: a second commit with the same key does nothing.
    pub token: Option<String>,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            max_attempts: 50,
            token: None,
        }
    }
}

/// How an operation ended without an error.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The table as the operation left it (the base, if nothing was committed).
    pub snapshot: Arc<Snapshot>,
    /// The change that landed; `None` when there was nothing to do or the token was already recorded.
    pub change: Option<Arc<Change>>,
    /// The version that already carried the idempotency key.
    pub already: Option<i64>,
    /// Publish attempts made.
    pub attempts: u32,
}

/// Runs an operation: `plan` turns the newest snapshot into a change carrying the commit id that it
/// is given (`None`: nothing to do), and is called again when a winner makes the plan wrong. Staged
/// files of abandoned plans are deleted after certain failures only.
///
/// # Errors
/// [`Error::Conflict`](crate::Error::Conflict) after the allowed attempts, with nothing committed;
/// [`Error::CommitUnknown`](crate::Error::CommitUnknown) with nothing deleted; whatever `plan` returns.
pub async fn commit<P>(handle: &Handle, options: &CommitOptions, plan: P) -> Result<Committed>
where
    P: AsyncFnMut(Arc<Snapshot>, CommitId) -> Result<Option<Change>>,
{
    let _ = (handle, options, plan);
    unimplemented!()
}
