//! Replaces all rows, or those that match a predicate.

use super::{Options, Report, Rows};
use crate::error::Result;
use crate::format::Handle;

/// Replaces all rows, or those that match a predicate.
pub async fn overwrite(
    handle: &Handle,
    rows: Rows,
    predicate: Option<&str>,
    options: &Options,
) -> Result<Report> {
    let _ = (handle, rows, predicate, options);
    unimplemented!()
}
