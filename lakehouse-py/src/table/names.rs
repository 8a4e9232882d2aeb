//! Tags and branches.

use lakehouse_core::Options;
use lakehouse_core::model::{RefKind, Retention};
use lakehouse_core::operations::SetRef;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::Table;
use crate::input::at;
use crate::refs;
use crate::runtime::wait;

impl Table {
    fn set_ref(
        &self,
        py: Python<'_>,
        kind: RefKind,
        name: &str,
        (version, as_of): (Option<&Bound<'_, PyAny>>, Option<&Bound<'_, PyAny>>),
        retention: Retention,
        replace: bool,
    ) -> PyResult<Py<PyDict>> {
        let given = version.is_some() || as_of.is_some();
        let wanted = SetRef {
            at: given.then(|| at(version, as_of)).transpose()?,
            retention,
            replace,
            ..SetRef::new(kind, name)
        };
        let options = Options::default();
        refs::report(py, &wait(py, self.table.set_ref(&wanted, &options))?)
    }
}

#[pymethods]
impl Table {
    /// The tags by name: version, how long it is kept.
    fn tags(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        refs::all(py, &wait(py, self.table.refs())?, RefKind::Tag)
    }

    /// The branches by name: newest version, how long it and its versions are kept.
    fn branches(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        refs::all(py, &wait(py, self.table.refs())?, RefKind::Branch)
    }

    /// Names a version, the newest by default. With `replace` a tag of that name is moved.
    #[pyo3(signature = (name, version=None, as_of=None, *, max_ref_age_ms=None, replace=false))]
    fn create_tag(
        &self,
        py: Python<'_>,
        name: &str,
        version: Option<&Bound<'_, PyAny>>,
        as_of: Option<&Bound<'_, PyAny>>,
        max_ref_age_ms: Option<i64>,
        replace: bool,
    ) -> PyResult<Py<PyDict>> {
        let retention = Retention {
            max_ref_age_ms,
            ..Retention::default()
        };
        self.set_ref(py, RefKind::Tag, name, (version, as_of), retention, replace)
    }

    /// Makes a branch at a version, the newest by default. With `replace` a branch of that name is moved to the
    /// version, if one is given, and kept as long as is given.
    #[pyo3(signature = (name, version=None, as_of=None, *, max_ref_age_ms=None, min_snapshots_to_keep=None, max_snapshot_age_ms=None, replace=false))]
    #[expect(clippy::too_many_arguments, reason = "Python's keywords")]
    fn create_branch(
        &self,
        py: Python<'_>,
        name: &str,
        version: Option<&Bound<'_, PyAny>>,
        as_of: Option<&Bound<'_, PyAny>>,
        max_ref_age_ms: Option<i64>,
        min_snapshots_to_keep: Option<i32>,
        max_snapshot_age_ms: Option<i64>,
        replace: bool,
    ) -> PyResult<Py<PyDict>> {
        let retention = Retention {
            max_ref_age_ms,
            min_snapshots_to_keep,
            max_snapshot_age_ms,
        };
        self.set_ref(py, RefKind::Branch, name, (version, as_of), retention, replace)
    }

    /// Drops a tag. Its version stays until somebody expires it.
    fn drop_tag(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyDict>> {
        let options = Options::default();
        refs::report(py, &wait(py, self.table.drop_ref(RefKind::Tag, name, &options))?)
    }

    /// Drops a branch. Its versions stay until somebody expires them.
    fn drop_branch(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyDict>> {
        let options = Options::default();
        refs::report(
            py,
            &wait(py, self.table.drop_ref(RefKind::Branch, name, &options))?,
        )
    }

    /// Moves a branch forward to another one (or a tag), unless it has commits that the other lacks.
    fn fast_forward(&self, py: Python<'_>, branch: &str, to: &str) -> PyResult<Py<PyDict>> {
        let options = Options::default();
        refs::report(py, &wait(py, self.table.fast_forward(branch, to, &options))?)
    }
}
