//! The verbs. An operation turns a snapshot into a change and never names a format.

mod append;
mod compact;
mod delete;
mod input;
mod merge;
mod options;
mod overwrite;
mod restore;
mod update;

pub use append::append;
pub use compact::{Compact, compact};
pub use delete::delete;
pub use input::{InputFormat, Rows};
pub use merge::{Action, Clause, Merge, When, merge};
pub use options::{Options, Report};
pub use overwrite::overwrite;
pub use restore::restore;
pub use update::update;
