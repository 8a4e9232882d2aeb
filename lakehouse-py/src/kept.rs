//! What is kept of a table's past, as dicts.

use std::path::PathBuf;

use lakehouse_core::model::Checkpoint;
use lakehouse_core::operations::maintain::Policy;
use lakehouse_core::operations::{ExpireReport, ManifestsReport};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;

/// A policy: the path of a TOML file, or a dict of dicts with the same keys.
pub(crate) fn policy(given: Option<&Bound<'_, PyAny>>) -> PyResult<Policy> {
    let Some(given) = given else {
        return Ok(Policy::default());
    };
    if given.is_instance_of::<PyDict>() {
        let text: String = given
            .py()
            .import("json")?
            .call_method1("dumps", (given,))?
            .extract()?;
        let wrong = |error| PyTypeError::new_err(format!("policy: {error}"));
        let value: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
        return Policy::from_json(&value).map_err(raise);
    }
    let file: PathBuf = given
        .extract()
        .map_err(|_| PyTypeError::new_err("policy is the path of a TOML file, or a dict"))?;
    let text = std::fs::read_to_string(&file)?;
    Policy::from_toml(&text, &file.display().to_string()).map_err(raise)
}

/// Which versions went, and what with them.
pub(crate) fn expired(py: Python<'_>, report: &ExpireReport) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("operation", "expire")?;
    dict.set_item("version", report.version)?;
    dict.set_item("committed", report.committed)?;
    dict.set_item("dry_run", report.dry_run)?;
    dict.set_item("attempts", report.attempts)?;
    dict.set_item("expired", &report.expired)?;
    dict.set_item("kept", report.kept)?;
    dict.set_item("refs_dropped", &report.refs_dropped)?;
    dict.set_item("too_young", report.too_young)?;
    dict.set_item("files_deleted", &report.files.files)?;
    dict.set_item("bytes_deleted", report.files.bytes)?;
    dict.set_item("files_too_young", report.files.too_young)?;
    dict.set_item("checkpoint", report.files.checkpoint)?;
    Ok(dict.unbind())
}

/// A checkpoint.
pub(crate) fn checkpoint(py: Python<'_>, done: &Checkpoint) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("version", done.version)?;
    dict.set_item("files", &done.files)?;
    dict.set_item("bytes", done.bytes)?;
    dict.set_item("data_files", done.data_files)?;
    dict.set_item("already", done.already)?;
    Ok(dict.unbind())
}

/// What became of the manifests.
pub(crate) fn manifests(py: Python<'_>, report: &ManifestsReport) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("operation", "rewrite-manifests")?;
    dict.set_item("version", report.version)?;
    dict.set_item("committed", report.committed)?;
    dict.set_item("dry_run", report.dry_run)?;
    dict.set_item("attempts", report.attempts)?;
    dict.set_item("manifests_kept", report.manifests.kept)?;
    dict.set_item("manifests_replaced", report.manifests.replaced)?;
    dict.set_item("manifests_created", report.manifests.created)?;
    Ok(dict.unbind())
}
