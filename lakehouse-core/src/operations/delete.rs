//! Deletes the rows for which the predicate is true.

use super::{Options, Report};
use crate::error::Result;
use crate::format::Handle;

/// Deletes the rows for which the predicate is true.
pub async fn delete(handle: &Handle, predicate: &str, options: &Options) -> Result<Report> {
    let _ = (handle, predicate, options);
    unimplemented!()
}
