//! Adds rows, without reading the table.

use super::{Options, Report, Rows};
use crate::error::Result;
use crate::format::Handle;

/// Adds rows, without reading the table.
pub async fn append(handle: &Handle, rows: Rows, options: &Options) -> Result<Report> {
    let _ = (handle, rows, options);
    unimplemented!()
}
