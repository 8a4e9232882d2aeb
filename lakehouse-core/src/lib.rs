//! Apache Iceberg and Delta Lake tables behind one door.
//!
//! Four nouns say everything ([`model`]): a [`model::Snapshot`] is one version of a table, a
//! [`model::DataFile`] one file of it, a [`model::RowMask`] the rows of a file that are no longer
//! visible, a [`model::Change`] what one commit does. An operation ([`operations`]) turns a snapshot
//! into a change; [`format::Format`] is the door through which a change becomes a commit; [`commit`]
//! is the loop around it. [`Table`] is the face that users hold.

pub mod commit;
#[cfg(test)]
mod conformance;
pub mod delta;
pub mod error;
pub mod format;
pub mod iceberg;
pub mod model;
pub mod operations;
pub mod planted;
pub mod scan;
pub mod sql;
pub mod store;
pub mod table;
pub mod write;

pub use error::{Error, Result};
pub use operations::{Alter, Compact, InputFormat, Merge, Options, Report, Rows, SchemaMode, Vacuum};
pub use table::{Table, TableFormat};
