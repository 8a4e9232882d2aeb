//! The builder that `Table.merge` returns.

use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatchReader;
use lakehouse_core::operations::{Action, Clause, Merge, When};
use lakehouse_core::{Options, Table as Core};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::input::{assignments, rows};
use crate::report::report;
use crate::runtime::wait;

/// A merge being put together: clauses are tried in the order in which they were added, the first that
/// applies to a row decides. In expressions `target.` and `source.` name the sides.
#[pyclass(module = "lakehouse")]
pub(crate) struct MergeBuilder {
    pub(crate) table: Core,
    /// Behind a lock because Python objects are shared between threads and readers are not.
    pub(crate) source: Mutex<Option<Box<dyn RecordBatchReader + Send>>>,
    pub(crate) merge: Merge,
    pub(crate) options: Options,
}

impl MergeBuilder {
    fn add(
        mut slf: PyRefMut<'_, Self>,
        when: When,
        condition: Option<String>,
        action: Action,
    ) -> PyRefMut<'_, Self> {
        slf.merge.clauses.push(Clause {
            when,
            condition,
            action,
        });
        slf
    }
}

#[pymethods]
impl MergeBuilder {
    /// Matched rows: set these columns.
    #[pyo3(signature = (updates, predicate=None))]
    fn when_matched_update<'py>(
        slf: PyRefMut<'py, Self>,
        updates: &Bound<'py, PyAny>,
        predicate: Option<String>,
    ) -> PyResult<PyRefMut<'py, Self>> {
        let action = Action::UpdateSet(assignments(updates)?);
        Ok(Self::add(slf, When::Matched, predicate, action))
    }

    /// Matched rows: set every column that the source has.
    #[pyo3(signature = (predicate=None))]
    fn when_matched_update_all(slf: PyRefMut<'_, Self>, predicate: Option<String>) -> PyRefMut<'_, Self> {
        Self::add(slf, When::Matched, predicate, Action::UpdateAll)
    }

    /// Matched rows: delete them.
    #[pyo3(signature = (predicate=None))]
    fn when_matched_delete(slf: PyRefMut<'_, Self>, predicate: Option<String>) -> PyRefMut<'_, Self> {
        Self::add(slf, When::Matched, predicate, Action::Delete)
    }

    /// Source rows that match nothing: insert these columns.
    #[pyo3(signature = (updates, predicate=None))]
    fn when_not_matched_insert<'py>(
        slf: PyRefMut<'py, Self>,
        updates: &Bound<'py, PyAny>,
        predicate: Option<String>,
    ) -> PyResult<PyRefMut<'py, Self>> {
        let action = Action::InsertSet(assignments(updates)?);
        Ok(Self::add(slf, When::NotMatched, predicate, action))
    }

    /// Source rows that match nothing: insert them.
    #[pyo3(signature = (predicate=None))]
    fn when_not_matched_insert_all(slf: PyRefMut<'_, Self>, predicate: Option<String>) -> PyRefMut<'_, Self> {
        Self::add(slf, When::NotMatched, predicate, Action::InsertAll)
    }

    /// Target rows that no source row matches: set these columns.
    #[pyo3(signature = (updates, predicate=None))]
    fn when_not_matched_by_source_update<'py>(
        slf: PyRefMut<'py, Self>,
        updates: &Bound<'py, PyAny>,
        predicate: Option<String>,
    ) -> PyResult<PyRefMut<'py, Self>> {
        let action = Action::UpdateSet(assignments(updates)?);
        Ok(Self::add(slf, When::NotMatchedBySource, predicate, action))
    }

    /// Target rows that no source row matches: delete them.
    #[pyo3(signature = (predicate=None))]
    fn when_not_matched_by_source_delete(
        slf: PyRefMut<'_, Self>,
        predicate: Option<String>,
    ) -> PyRefMut<'_, Self> {
        Self::add(slf, When::NotMatchedBySource, predicate, Action::Delete)
    }

    /// Runs the merge and returns its report.
    fn execute(&mut self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        if self.merge.clauses.is_empty() && self.merge.cdc.is_none() {
            return Err(PyValueError::new_err(
                "the merge has no clause: add when_matched_update_all() or another, or say cdc=..",
            ));
        }
        let source = self
            .source
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let source = source.ok_or_else(|| PyValueError::new_err("this merge was executed already"))?;
        let (table, merge, options) = (&self.table, &self.merge, &self.options);
        let done = wait(py, async move { table.merge(rows(source), merge, options).await })?;
        report(py, &done)
    }
}
