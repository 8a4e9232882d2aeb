//! The order of rows: what compact is asked, and what it won.

use lakehouse_core::model::{ColumnPath, Overlap};
use lakehouse_core::operations::{Clustering, Ordered, Overlaps, RowOrder};
use lakehouse_core::scan::parse_sort_order;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::alter::Names;
use crate::errors::raise;

/// The order that keywords ask for.
pub(crate) fn order(
    sort_by: Option<&str>,
    zorder: Option<Names>,
    hilbert: Option<Names>,
    unordered: bool,
) -> PyResult<RowOrder> {
    let asked = [sort_by.is_some(), zorder.is_some(), hilbert.is_some(), unordered];
    if asked.iter().filter(|asked| **asked).count() > 1 {
        return Err(PyValueError::new_err(
            "only one of sort_by, zorder, hilbert, unordered can be given",
        ));
    }
    if unordered {
        return Ok(RowOrder::AsItIs);
    }
    let clustering = match (sort_by, zorder, hilbert) {
        (Some(order), _, _) => Clustering::Sort(parse_sort_order(order).map_err(raise)?),
        (_, Some(columns), _) => Clustering::ZOrder(names(columns)?),
        (_, _, Some(columns)) => Clustering::Hilbert(names(columns)?),
        (None, None, None) => return Ok(RowOrder::OfTable),
    };
    Ok(RowOrder::By(clustering))
}

/// Names of columns as statistics have them.
pub(crate) fn names(columns: Names) -> PyResult<Vec<String>> {
    let dotted = |column: String| Ok(column.parse::<ColumnPath>().map_err(raise)?.dotted());
    Names::list(Some(columns)).into_iter().map(dotted).collect()
}

/// How far files overlap: an entry for each column, and one for all of them if there are several.
pub(crate) fn overlaps<'py>(py: Python<'py>, overlaps: &Overlaps) -> PyResult<Bound<'py, PyList>> {
    let entries = PyList::empty(py);
    let add = |columns: Vec<&str>, overlap: &Overlap| {
        let entry = PyDict::new(py);
        entry.set_item("columns", columns)?;
        entry.set_item("depth", overlap.depth)?;
        entry.set_item("files", overlap.files)?;
        entry.set_item("overlapping_files", overlap.overlapping)?;
        entry.set_item("files_without_statistics", overlap.unknown)?;
        entries.append(entry)
    };
    for (column, overlap) in &overlaps.columns {
        add(vec![column.as_str()], overlap)?;
    }
    if overlaps.columns.len() > 1 {
        let all = overlaps
            .columns
            .iter()
            .map(|(column, _)| column.as_str())
            .collect();
        add(all, &overlaps.together)?;
    }
    Ok(entries)
}

/// What putting rows in order won.
pub(crate) fn ordered<'py>(py: Python<'py>, told: &Ordered) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("order", &told.order)?;
    dict.set_item("before", overlaps(py, &told.before)?)?;
    let after = told.after.as_ref().map(|after| overlaps(py, after)).transpose()?;
    dict.set_item("after", after)?;
    Ok(dict)
}
