//! From what a user or the metadata writes to a key below the table root.

use url::Url;

/// Where a table is: parsed from a path or URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(pub Url);
