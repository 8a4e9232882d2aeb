//! What the core answers, as dicts.

use lakehouse_core::Report;
use lakehouse_core::model::CommitInfo;
use lakehouse_core::operations::Vacuumed;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::order::ordered;

/// A report as one flat dict: how it ended, then the figures under delta-rs's names.
pub(crate) fn report(py: Python<'_>, report: &Report) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("operation", report.operation)?;
    dict.set_item("version", report.version)?;
    dict.set_item("committed", report.committed)?;
    dict.set_item("already_committed_as", report.already)?;
    dict.set_item("dry_run", report.dry_run)?;
    dict.set_item("attempts", report.attempts)?;
    dict.set_item("plans", report.plans)?;
    dict.set_item("columns_added", &report.columns_added)?;
    dict.set_item("columns_widened", &report.columns_widened)?;
    dict.set_item("changes", &report.changes)?;
    for (name, figure) in &report.metrics {
        dict.set_item(name, figure)?;
    }
    let files = PyList::empty(py);
    for file in &report.files {
        let entry = PyDict::new(py);
        entry.set_item("path", &file.path)?;
        entry.set_item("rows", file.rows)?;
        entry.set_item("bytes", file.bytes)?;
        entry.set_item("touched", file.touched)?;
        entry.set_item("fate", file.fate.name())?;
        files.append(entry)?;
    }
    dict.set_item("files", files)?;
    if report.operation == "compact" {
        dict.set_item("groups", groups(py, report)?)?;
        let order = report
            .order
            .as_ref()
            .map(|order| ordered(py, order))
            .transpose()?;
        dict.set_item("order", order)?;
    }
    let phases = PyDict::new(py);
    for (phase, time) in &report.phases {
        phases.set_item(phase, time.as_secs_f64())?;
    }
    dict.set_item("seconds", phases)?;
    Ok(dict.unbind())
}

/// What became of the groups of a compaction.
fn groups<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyList>> {
    let groups = PyList::empty(py);
    for group in &report.groups {
        let entry = PyDict::new(py);
        entry.set_item("partition", &group.partition)?;
        entry.set_item("files", group.files)?;
        entry.set_item("bytes", group.bytes)?;
        entry.set_item("rows", group.rows)?;
        entry.set_item("masked_rows", group.masked_rows)?;
        entry.set_item("expected_files", group.expected_files)?;
        entry.set_item("outcome", group.outcome.name())?;
        entry.set_item("version", group.outcome.version())?;
        entry.set_item("why", group.outcome.why())?;
        groups.append(entry)?;
    }
    Ok(groups)
}

/// One commit of a table's history.
pub(crate) fn commit(py: Python<'_>, commit: &CommitInfo) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("version", commit.version)?;
    dict.set_item("parent", commit.parent)?;
    dict.set_item("timestamp_ms", commit.timestamp_ms)?;
    dict.set_item("operation", &commit.operation)?;
    dict.set_item("summary", &commit.summary)?;
    Ok(dict.unbind())
}

/// What a vacuum did, as a flat dict.
pub(crate) fn vacuumed(py: Python<'_>, report: &Vacuumed) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("dry_run", report.dry_run)?;
    dict.set_item("version", report.version)?;
    dict.set_item("versions_kept", report.versions_kept)?;
    dict.set_item("oldest_version_kept", report.oldest_kept)?;
    dict.set_item("retention_hours", report.older_than_ms as f64 / 3_600_000.0)?;
    dict.set_item("store_time_ms", report.now_ms)?;
    dict.set_item("quarantine", &report.quarantine)?;
    let total = report.total();
    dict.set_item("num_files_removed", total.count)?;
    dict.set_item("bytes_removed", total.bytes)?;
    dict.set_item("num_files_too_young", report.young.count)?;
    dict.set_item("num_files_adopted", report.adopted.count)?;
    dict.set_item("num_files_kept", report.kept.count)?;
    let kinds = PyDict::new(py);
    for (kind, tally) in &report.removed {
        kinds.set_item(kind.name(), tally.count)?;
    }
    dict.set_item("num_files_removed_by_kind", kinds)?;
    let left = PyDict::new(py);
    for (folder, tally) in &report.left {
        left.set_item(folder, tally.count)?;
    }
    dict.set_item("num_files_left", left)?;
    let files: Vec<&str> = report
        .objects
        .iter()
        .map(|one| one.object.path.as_str())
        .collect();
    dict.set_item("files", files)?;
    Ok(dict.unbind())
}
