//! Rewrites small and masked files, rows unchanged.

use super::{Options, Report};
use crate::error::Result;
use crate::format::Handle;

/// What to compact.
#[derive(Debug, Clone, Default)]
pub struct Compact {
    /// Size of the new files in bytes; `None` for the operation's or the table's own setting.
    pub target_file_bytes: Option<u64>,
    /// Only files that may hold a row for which this is true.
    pub predicate: Option<String>,
}

/// Rewrites small and masked files, rows unchanged.
pub async fn compact(handle: &Handle, compact: &Compact, options: &Options) -> Result<Report> {
    let _ = (handle, compact, options);
    unimplemented!()
}
