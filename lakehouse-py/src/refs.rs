//! Tags and branches as dicts.

use std::collections::BTreeMap;

use lakehouse_core::model::{Ref, RefKind};
use lakehouse_core::operations::RefReport;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// All of one kind, by name.
pub(crate) fn all(py: Python<'_>, refs: &BTreeMap<String, Ref>, kind: RefKind) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    for (name, found) in refs.iter().filter(|(_, found)| found.kind == kind) {
        dict.set_item(name, one(py, found)?)?;
    }
    Ok(dict.unbind())
}

/// What became of a tag or branch.
pub(crate) fn report(py: Python<'_>, report: &RefReport) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    let described = |found: &Option<Ref>| found.as_ref().map(|found| one(py, found)).transpose();
    dict.set_item("name", &report.name)?;
    dict.set_item("before", described(&report.before)?)?;
    dict.set_item("after", described(&report.after)?)?;
    dict.set_item("committed", report.committed)?;
    dict.set_item("attempts", report.attempts)?;
    Ok(dict.unbind())
}

fn one<'py>(py: Python<'py>, found: &Ref) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("kind", found.kind.name())?;
    dict.set_item("version", found.version)?;
    dict.set_item("max_ref_age_ms", found.retention.max_ref_age_ms)?;
    dict.set_item("min_snapshots_to_keep", found.retention.min_snapshots_to_keep)?;
    dict.set_item("max_snapshot_age_ms", found.retention.max_snapshot_age_ms)?;
    Ok(dict)
}
