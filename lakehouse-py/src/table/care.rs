//! What keeps a table well: what is wrong with it, what it needs, and the verbs that do it.

use std::ops::ControlFlow;
use std::time::Duration;

use lakehouse_core::Vacuum;
use lakehouse_core::model::{At, CheckpointKind};
use lakehouse_core::operations::check::Check;
use lakehouse_core::operations::maintain::{Bytes, Time};
use lakehouse_core::operations::{Compact, Expire};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::Table;
use crate::alter::Names;
use crate::diff::loaded;
use crate::errors::raise;
use crate::input::{Key, at, options, seconds};
use crate::kept;
use crate::order::{self, order};
use crate::report::{report, vacuumed};
use crate::runtime::wait;

#[pymethods]
impl Table {
    /// What is wrong with a version, the newest by default, or with every one: a list of dicts with `severity` (`error`,
    /// `warning`, `note`), `code`, `path`, `what`, `todo`; errors first. `deep` reads the data too.
    #[pyo3(signature = (version=None, as_of=None, *, deep=false, all_versions=false))]
    fn check<'py>(
        &self,
        py: Python<'py>,
        version: Option<&Bound<'py, PyAny>>,
        as_of: Option<&Bound<'py, PyAny>>,
        deep: bool,
        all_versions: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let wanted = Check {
            at: at(version, as_of)?,
            all_versions,
            deep,
            progress: None,
        };
        let checked = wait(py, self.table.check(&wanted))?;
        loaded(py, &checked.to_json()["findings"])
    }

    /// The figures that say whether the table needs care, as a dict: `files`, `small_files`, `masked_files`, `sizes`,
    /// `partitions`, `metadata`, `days`, `to_compact` ...
    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loaded(py, &wait(py, self.table.health())?.to_json())
    }

    /// How far files of the newest version overlap in these columns, by default in those that the table is sorted or
    /// clustered by (`None` where it is not): how many of them a lookup of a value reads, how many overlap others.
    #[pyo3(signature = (columns=None))]
    fn overlap(&self, py: Python<'_>, columns: Option<Names>) -> PyResult<Option<Py<PyList>>> {
        let columns = columns.map(order::names).transpose()?;
        let table = &self.table;
        let found = wait(py, async move {
            let snapshot = table.snapshot(&At::Latest).await?;
            let files = table.files(&At::Version(snapshot.version)).await?;
            table.overlaps(&snapshot, &files, columns.as_deref()).await
        })?;
        let told = found.map(|found| order::overlaps(py, &found)).transpose()?;
        Ok(told.map(Bound::unbind))
    }

    /// Rewrites small and masked files into large ones, group by group; `groups` of the report tells what became of
    /// each.
    ///
    /// Sizes are in bytes (`target_file_size`, `max_rewrite` of one group, `max_bytes` in all), `max_time` in seconds;
    /// `max_concurrent_groups` are worked on at the same time;
    /// `strategy` is one of `auto`, `small-files`, `masked-files`, `all`. Rows are put in order by `sort_by`
    /// (`"ts desc, id"`), along the Z-order or Hilbert curve through the columns of `zorder` or `hilbert`, else in the
    /// table's own order, unless `unordered`; sorting holds `memory_limit` bytes and goes to disk beyond.
    #[pyo3(signature = (*, target_file_size=None, predicate=None, sort_by=None, zorder=None, hilbert=None,
        unordered=false, memory_limit=None, strategy="auto", min_input_files=None,
        delete_ratio_threshold=None, max_rewrite=None, max_bytes=None, max_time=None, max_concurrent_groups=None,
        idempotency_key=None, dry_run=false, branch=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords, each of them optional")]
    fn compact(
        &self,
        py: Python<'_>,
        target_file_size: Option<u64>,
        predicate: Option<String>,
        sort_by: Option<&str>,
        zorder: Option<Names>,
        hilbert: Option<Names>,
        unordered: bool,
        memory_limit: Option<usize>,
        strategy: &str,
        min_input_files: Option<usize>,
        delete_ratio_threshold: Option<f64>,
        max_rewrite: Option<u64>,
        max_bytes: Option<u64>,
        max_time: Option<f64>,
        max_concurrent_groups: Option<usize>,
        idempotency_key: Option<Key>,
        dry_run: bool,
        branch: Option<String>,
    ) -> PyResult<Py<PyDict>> {
        let mut options = options(idempotency_key, dry_run, branch);
        options.memory_limit = memory_limit;
        let compact = Compact {
            target_file_bytes: target_file_size,
            predicate,
            order: order(sort_by, zorder, hilbert, unordered)?,
            strategy: strategy.parse().map_err(raise)?,
            min_input_files,
            delete_ratio_threshold,
            max_rewrite,
            max_bytes,
            max_time: seconds("max_time", max_time)?,
            max_concurrent_groups,
        };
        report(py, &wait(py, self.table.compact(&compact, &options))?)
    }

    /// Removes files that no retained version needs and that are older than `retention_hours` (48 at least): `lake vacuum`.
    /// As on the command line and in Spark, it removes them unless `dry_run` is true; deltalake's own only lists them by
    /// default. `files` of the report are their paths. Of a table made of files that were there, data files that lake did
    /// not write stay unless `adopted` is true.
    #[pyo3(signature = (retention_hours=None, dry_run=false, *, keep_versions=None, quarantine=None, adopted=false, unsafe_no_writers=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords, each of them optional")]
    fn vacuum(
        &self,
        py: Python<'_>,
        retention_hours: Option<f64>,
        dry_run: bool,
        keep_versions: Option<Vec<i64>>,
        quarantine: Option<String>,
        adopted: bool,
        unsafe_no_writers: bool,
    ) -> PyResult<Py<PyDict>> {
        if retention_hours.is_some_and(|hours| !hours.is_finite() || hours < 0.0) {
            return Err(PyValueError::new_err(
                "retention_hours is a number of hours, 0 or more",
            ));
        }
        let vacuum = Vacuum {
            older_than_ms: retention_hours.map(|hours| (hours * 3_600_000.0) as i64),
            keep_versions: keep_versions.unwrap_or_default(),
            dry_run,
            quarantine,
            list: true,
            adopted,
            unsafe_no_writers,
        };
        vacuumed(py, &wait(py, self.table.vacuum(&vacuum))?)
    }

    /// Lets old versions go, and the files of the metadata that only they needed. `older_than` is a `timedelta`; the last
    /// `retain_last` versions of each branch stay. Tags, branches and their versions stay as long as they say. Data files
    /// are not touched.
    #[pyo3(signature = (older_than=None, *, retain_last=None, dry_run=false))]
    fn expire(
        &self,
        py: Python<'_>,
        older_than: Option<Duration>,
        retain_last: Option<u32>,
        dry_run: bool,
    ) -> PyResult<Py<PyDict>> {
        let what = Expire {
            older_than_ms: older_than.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            retain_last,
        };
        let options = options(None, dry_run, None);
        kept::expired(py, &wait(py, self.table.expire(&what, &options))?)
    }

    /// Does all that the table needs from time to time: compact, rewrite manifests or write a checkpoint, expire, vacuum;
    /// see `lake maintain`. `policy` is the path of a TOML file, or a dict of dicts with the same keys
    /// (`{"expire": {"older-than": "7d"}}`). `max_time` is in seconds, `max_bytes` of files that are rewritten. A step
    /// that fails raises nothing: `steps` of the report say what became of each.
    #[pyo3(signature = (policy=None, *, max_time=None, max_bytes=None, dry_run=false))]
    fn maintain<'py>(
        &self,
        py: Python<'py>,
        policy: Option<&Bound<'py, PyAny>>,
        max_time: Option<f64>,
        max_bytes: Option<u64>,
        dry_run: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut policy = kept::policy(policy)?;
        policy.max_time = seconds("max_time", max_time)?.map(Time).or(policy.max_time);
        policy.max_bytes = max_bytes.map(Bytes).or(policy.max_bytes);
        let options = options(None, dry_run, None);
        let mut go_on = |_: &_| ControlFlow::Continue(());
        let done = wait(py, self.table.maintain(&policy, &options, &mut go_on))?;
        loaded(py, &done.to_json())
    }

    /// Writes a checkpoint of the newest version of a Delta table and compares it with the log. `format` is "classic" or
    /// "v2"; by default it is what the table asks for.
    #[pyo3(signature = (*, format=None))]
    fn checkpoint(&self, py: Python<'_>, format: Option<&str>) -> PyResult<Py<PyDict>> {
        let kind = match format {
            None => CheckpointKind::Auto,
            Some("classic") => CheckpointKind::Classic,
            Some("v2") => CheckpointKind::V2,
            Some(other) => {
                return Err(PyValueError::new_err(format!(
                    "there is no checkpoint format {other:?}; use \"classic\" or \"v2\""
                )));
            }
        };
        kept::checkpoint(py, &wait(py, self.table.checkpoint(kind))?)
    }

    /// Writes the manifests of an Iceberg table anew, by partition and in the table's target size. No data file changes.
    #[pyo3(signature = (*, dry_run=false, branch=None))]
    fn rewrite_manifests(
        &self,
        py: Python<'_>,
        dry_run: bool,
        branch: Option<String>,
    ) -> PyResult<Py<PyDict>> {
        let options = options(None, dry_run, branch);
        kept::manifests(py, &wait(py, self.table.rewrite_manifests(&options))?)
    }
}
