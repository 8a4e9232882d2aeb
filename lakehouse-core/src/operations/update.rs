//! Sets columns in the rows for which the predicate is true (all rows without one).

use super::{Options, Report};
use crate::error::Result;
use crate::format::Handle;

/// Sets columns in the rows for which the predicate is true (all rows without one).
pub async fn update(
    handle: &Handle,
    assignments: &str,
    predicate: Option<&str>,
    options: &Options,
) -> Result<Report> {
    let _ = (handle, assignments, predicate, options);
    unimplemented!()
}
