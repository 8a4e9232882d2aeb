//! How well files are in order, before and after.

use super::{Clustering, ascending, key, names, of_table};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{DataFile, Overlap, Snapshot, overlap};

/// How far files overlap in some columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Overlaps {
    /// Each column by itself, in the order in which they were named.
    pub columns: Vec<(String, Overlap)>,
    /// All of them: of lookups that name a value of each.
    pub together: Overlap,
}

/// What putting rows in order won.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// The order: `sort-by a asc nulls first`, `zorder a, b`, `hilbert a, b`.
    pub order: String,
    /// How far files overlapped in its columns.
    pub before: Overlaps,
    /// The same afterwards; `None` where nothing was committed.
    pub after: Option<Overlaps>,
}

impl Overlaps {
    /// The figures of these files of a version.
    pub(in crate::operations) fn of(snapshot: &Snapshot, files: &[DataFile], columns: &[&str]) -> Self {
        let each = columns
            .iter()
            .map(|column| ((*column).to_owned(), overlap(snapshot, files, &[column])));
        Self {
            columns: each.collect(),
            together: overlap(snapshot, files, columns),
        }
    }
}

/// How far these files of a version overlap in the columns named, else in those that the table says its rows shall lie
/// by; `None` where it says nothing. Statistics are looked at, no file is read.
///
/// # Errors
/// [`Error::Invalid`] for a column that the table does not have or whose values have no order.
pub async fn overlaps(
    handle: &Handle,
    snapshot: &Snapshot,
    files: &[DataFile],
    columns: Option<&[String]>,
) -> Result<Option<Overlaps>> {
    let of_table = match columns {
        Some(_) => None,
        None => of_table(handle, snapshot).await?,
    };
    let columns: Vec<&str> = match (columns, &of_table) {
        (Some(columns), _) => columns.iter().map(String::as_str).collect(),
        (None, Some(clustering)) => Clustering::columns(clustering),
        (None, None) => return Ok(None),
    };
    for column in &columns {
        key(&snapshot.schema, &ascending(column)).map_err(|what| {
            Error::invalid(what, "the columns whose overlap is asked for")
                .with_hint(format!("columns are {}", names(&snapshot.schema)))
        })?;
    }
    Ok((!columns.is_empty()).then(|| Overlaps::of(snapshot, files, &columns)))
}
