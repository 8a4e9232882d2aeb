//! Two versions of a table side by side.

use lakehouse_core::operations::diff::Diff as Core;
use pyo3::prelude::*;

use crate::runtime::wait;
use crate::scan::Scan;
use crate::table::on_clause;

/// What is different between two versions of a table.
#[pyclass(module = "lakehouse", frozen)]
pub(crate) struct Diff {
    pub(crate) diff: Core,
}

#[pymethods]
impl Diff {
    /// What metadata tells, as a dict: `from`, `to`, `columns`, `partitioning`, `sort_order`, `identifier`, `features`,
    /// `properties`, `files`, `rows` (exact, or at most), `compared`, `left_out`; `unknown` versions, of which
    /// partitioning, sort order, features and properties are not known any more.
    #[getter]
    fn summary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loaded(py, &self.diff.summary())
    }

    /// The rows that only one version has, as a `Scan`: the columns of both, and `_change_type`: `insert` or `delete`,
    /// and with key columns `on` (text or a list of names) `update_preimage` and `update_postimage` for the old and new
    /// values of a row. Files that both versions have with the same rows are not read; `memory_limit` is in bytes.
    #[pyo3(signature = (on=None, *, memory_limit=None))]
    fn rows(
        &self,
        py: Python<'_>,
        on: Option<&Bound<'_, PyAny>>,
        memory_limit: Option<usize>,
    ) -> PyResult<Scan> {
        let on = on.map(on_clause).transpose()?;
        let frame = wait(py, async {
            self.diff.rows(on.as_deref(), memory_limit).await?.frame()
        })?;
        Ok(Scan { frame })
    }

    /// Reads these rows and counts them: `added`, `removed`, `changed`, `ambiguous_keys`, `files_read`.
    #[pyo3(signature = (on=None, *, memory_limit=None))]
    fn count<'py>(
        &self,
        py: Python<'py>,
        on: Option<&Bound<'py, PyAny>>,
        memory_limit: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let on = on.map(on_clause).transpose()?;
        let summary = wait(py, async {
            let rows = self.diff.rows(on.as_deref(), memory_limit).await?;
            let mut summary = rows.count().await?.summary();
            summary["files_read"] = rows.files_read.into();
            Ok(summary)
        })?;
        loaded(py, &summary)
    }

    fn __repr__(&self) -> String {
        format!("Diff({} to {})", self.diff.from.version, self.diff.to.version)
    }
}

/// JSON as Python's own objects.
pub(crate) fn loaded<'py>(py: Python<'py>, value: &serde_json::Value) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (value.to_string(),))
}
