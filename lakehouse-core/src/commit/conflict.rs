//! The conflict rules R1 to R6, once, for every format.

use crate::error::Result;
use crate::model::{Change, Snapshot};

/// How strictly reads are protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// A winner that added rows which the operation would have read is a conflict.
    #[default]
    Serializable,
    /// Such rows are ignored (except by a merge that inserts: they would become duplicate keys).
    Snapshot,
}

/// What one winner means for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The change can be published over the winner as it is.
    Compatible,
    /// The change must be planned again on the new snapshot: the rule and what it fired on.
    Replan(String),
    /// Planning again cannot be right either (a restore, an overlapping schema change): rule and reason.
    Conflict(String),
}

/// Judges `mine` against one `winner` that was committed after `base`.
///
/// # Errors
/// When the winner's files cannot be compared with what was read.
pub fn check(base: &Snapshot, mine: &Change, winner: &Change, isolation: Isolation) -> Result<Verdict> {
    let _ = (base, mine, winner, isolation);
    unimplemented!()
}
