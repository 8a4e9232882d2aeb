//! Reading a version: planning, pruning, the DataFusion table provider.

mod provider;
mod session;

pub use provider::{MetadataColumns, ScanReport, SnapshotTable};
pub use session::session;
