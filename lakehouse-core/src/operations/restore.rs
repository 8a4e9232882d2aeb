//! Makes an older version current again, as a new commit.

use super::{Options, Report};
use crate::error::Result;
use crate::format::Handle;
use crate::model::At;

/// Makes an older version current again, as a new commit.
pub async fn restore(handle: &Handle, at: &At, options: &Options) -> Result<Report> {
    let _ = (handle, at, options);
    unimplemented!()
}
