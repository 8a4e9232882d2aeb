//! The retry loop, the conflict rules, outcomes: the same for every format.
//!
//! ```text
//! plan      the operation turns the newest snapshot into a change (staged files, masks)
//! publish   one attempt through the door
//! resolve   on Lost or Unknown: find(my commit id) BEFORE anything else
//! check     conflict rules, mine against each winner: publish again over the new base, or plan again
//! ```

mod conflict;
mod run;
mod sound;

#[cfg(test)]
mod conflict_tests;
#[cfg(test)]
mod tests;

pub(crate) use conflict::may_unmask;
pub use conflict::{Isolation, Verdict, check};
pub use run::{CommitOptions, Committed, LEASE, Plan, commit, newest};

use crate::model::DataFile;

/// What makes a file the same file in two commits: its key, however the metadata spells it.
fn identity(file: &DataFile) -> &str {
    if file.path.is_empty() {
        &file.recorded
    } else {
        &file.path
    }
}
