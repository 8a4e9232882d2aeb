//! Queries over tables: names, quoted paths and URLs in FROM, time travel.
//!
//! Only queries run here. What changes a table is a verb of its own ([`crate::operations`]): the
//! engine's own INSERT, UPDATE, DELETE and MERGE are refused.

mod files;
mod session;
mod statement;
mod travel;

#[cfg(test)]
mod tests;

pub use session::{Opener, Session};
pub use travel::parse_instant;
