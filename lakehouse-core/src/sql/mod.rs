//! SQL over tables: names, quoted paths and URLs in FROM, time travel, statements that change a table.
//!
//! The engine's own INSERT, UPDATE, DELETE and MERGE are never used: what a statement changes is planned
//! as a query and done by the verbs of [`crate::operations`] (`change/`). A form that is not known there
//! is refused.

mod change;
mod files;
mod refs;
mod session;
mod statement;
mod travel;

#[cfg(test)]
mod tests;

pub use session::{Executed, Open, Opener, Session};
pub use travel::parse_instant;
