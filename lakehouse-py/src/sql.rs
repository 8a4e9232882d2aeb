//! SQL over tables: rows of a query, or the report of a statement that changes a table.

use std::collections::BTreeMap;

use lakehouse_core::Table as Core;
use lakehouse_core::model::At;
use lakehouse_core::sql::Executed;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::input::write_options;
use crate::report::report;
use crate::runtime::wait;
use crate::scan::Scan;
use crate::table::{Table, storage};

/// Runs one SQL statement. A query gives a `Scan`; INSERT, UPDATE, DELETE, MERGE and TRUNCATE give a report,
/// as the methods of `Table` do. Quoted paths and URLs are tables, and those that `tables` names;
/// `storage_options` as for `Table.open`.
#[pyfunction]
#[pyo3(signature = (query, tables=None, *, storage_options=None, **write))]
pub(crate) fn sql(
    py: Python<'_>,
    query: &str,
    tables: Option<&Bound<'_, PyDict>>,
    storage_options: Option<BTreeMap<String, String>>,
    write: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let options = write_options(write)?;
    let mut session = Core::session(None, &storage(storage_options));
    for (name, table) in tables.into_iter().flatten() {
        let name: String = name.extract()?;
        if let Ok(table) = table.cast::<Table>() {
            session.table(name, table.get().core().handle().clone(), At::Latest);
        } else if let Ok(location) = table.extract::<String>() {
            session.name(name, location, At::Latest);
        } else {
            return Err(PyTypeError::new_err(format!(
                "table {name} is a Table, or a path or URL"
            )));
        }
    }
    match wait(py, async move { session.execute(query, &options).await })? {
        Executed::Rows(frame) => Ok(Scan { frame: *frame }.into_pyobject(py)?.into_any().unbind()),
        Executed::Changed { report: done, .. } => Ok(report(py, &done)?.into_any()),
    }
}
