//! What becomes of a file of which some rows are touched. The one place that chooses.

use std::collections::BTreeMap;

use crate::model::{Capabilities, DataFile, OperationKind, RowMask};

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// No row of it is left.
    Remove,
    /// Its touched rows are masked.
    Mask,
    /// Its other rows are written to a new file.
    Rewrite,
}

/// Decides for one file; `masked` are the rows that must not be visible afterwards, those that were
/// masked before included.
pub(super) fn decide(
    capabilities: &Capabilities,
    properties: &BTreeMap<String, String>,
    operation: OperationKind,
    file: &DataFile,
    masked: &RowMask,
) -> Fate {
    if masked.len() >= file.rows {
        Fate::Remove
    } else if capabilities.masks && !copy_on_write(properties, operation) {
        Fate::Mask
    } else {
        Fate::Rewrite
    }
}

/// Whether the table's owner asked for rewriting (Iceberg's `write.merge.mode` and its like).
fn copy_on_write(properties: &BTreeMap<String, String>, operation: OperationKind) -> bool {
    let name = match operation {
        OperationKind::Update => "write.update.mode",
        OperationKind::Merge => "write.merge.mode",
        _ => "write.delete.mode",
    };
    properties
        .get(name)
        .is_some_and(|mode| mode.eq_ignore_ascii_case("copy-on-write"))
}
