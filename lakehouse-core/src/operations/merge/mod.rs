//! Merge: source rows against target rows.

mod spec;

pub use spec::{Action, Clause, Merge, When};

use super::{Options, Report, Rows};
use crate::error::Result;
use crate::format::Handle;

/// Merges source rows into the table.
pub async fn merge(handle: &Handle, source: Rows, merge: &Merge, options: &Options) -> Result<Report> {
    let _ = (handle, source, merge, options);
    unimplemented!()
}
