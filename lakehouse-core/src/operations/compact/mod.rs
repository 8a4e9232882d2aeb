//! Rewrites small and masked files, rows unchanged.
//!
//! ```text
//! options   what can be asked for
//! plan      which files are worth rewriting, which of them together (groups), what is committed together
//! ordered   the same where rows are put in order
//! rounds    one commit after the other, within a budget; then what is left of them, until there is nothing to do
//! run       one commit: its groups as they are by now, rewritten
//! carry     rows that went meanwhile are masked in the new files
//! ```

mod carry;
mod options;
mod ordered;
mod plan;
mod rounds;
mod run;

#[cfg(test)]
mod tests;

pub use options::{Compact, CompactStrategy, CompactedGroup, GroupOutcome};
pub use rounds::compact;
