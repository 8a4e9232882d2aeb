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

pub use conflict::{Isolation, Verdict, check};
pub use run::{CommitOptions, Committed, commit};
