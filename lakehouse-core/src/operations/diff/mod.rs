//! What is different between two versions of a table: its definition, its files, its rows.
//!
//! Files come first (`files.rs`): one that both versions have with the same hidden rows holds no difference and is not
//! opened. Of the others the rows are read (`rows.rs`), and what is on both sides as often is taken away: rows that a
//! compaction moved, or a merge wrote again as they were. Neither version need come before the other.

mod columns;
mod definition;
mod files;
mod pairs;
mod rows;
mod spelling;
mod summary;

use std::sync::Arc;

pub use columns::Compared;
pub use definition::{Altered, ColumnDifference, DefinitionDifference, Difference};
pub use files::{FileDifference, FileTotals, RowBounds};
pub use pairs::{CHANGE_TYPE, ChangeType, RowCounts};
pub use rows::RowDifference;
pub(super) use spelling::canonical;

use self::files::Sides;
use crate::error::Result;
use crate::format::Handle;
use crate::model::{At, Snapshot};

/// What is different between two versions, as far as metadata tells; [`Diff::rows`] reads the rows.
#[derive(Debug)]
pub struct Diff {
    /// The version that is compared.
    pub from: Arc<Snapshot>,
    /// The version that it is compared with.
    pub to: Arc<Snapshot>,
    /// Columns, partitioning, properties: as they were when each version was committed, those of the newest as they are.
    pub definition: DefinitionDifference,
    /// Files that only one version has, and those of which other rows are masked.
    pub files: FileDifference,
    /// Rows, as far as metadata and masks tell.
    pub rows: RowBounds,
    /// The columns by which rows are compared.
    pub compared: Compared,
    handle: Handle,
    sides: Sides,
}

impl Diff {
    /// Whether nothing is different: neither the definition nor a file. Files may be different and all rows the same.
    pub fn is_empty(&self) -> bool {
        self.definition.is_empty() && self.files.is_empty()
    }
}

/// Compares two versions. Metadata and masks are read, no data file.
///
/// # Errors
/// [`Error::NotFound`](crate::Error::NotFound) when there is no such version; whatever is met while files are listed.
pub async fn diff(handle: &Handle, from: &At, to: &At) -> Result<Diff> {
    let from = handle.format.snapshot(from).await?;
    let to = handle.format.snapshot(to).await?;
    let sides = files::compare(handle, &from, &to).await?;
    let definition = DefinitionDifference::of(handle, &from, &to).await?;
    Ok(Diff {
        definition,
        files: sides.difference,
        rows: sides.rows,
        compared: Compared::of(&from.schema, &to.schema),
        handle: handle.clone(),
        from,
        to,
        sides,
    })
}
