//! Rows that come, change and go.

use lakehouse_core::Merge;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Table, on_clause};
use crate::errors::raise;
use crate::input::{Key, assignments, feed, options, reader, rows, write_options};
use crate::merge::MergeBuilder;
use crate::report::report;
use crate::runtime::wait;

#[pymethods]
impl Table {
    /// Adds rows. With `schema_mode="merge"` the table gets the columns that it lacks.
    #[pyo3(signature = (data, *, idempotency_key=None, dry_run=false, schema_mode=None, branch=None))]
    fn append(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        idempotency_key: Option<Key>,
        dry_run: bool,
        schema_mode: Option<&str>,
        branch: Option<String>,
    ) -> PyResult<Py<PyDict>> {
        let mut options = options(idempotency_key, dry_run, branch);
        if let Some(mode) = schema_mode {
            options.schema_mode = mode.parse().map_err(raise)?;
        }
        let (table, reader) = (&self.table, reader(data)?);
        report(
            py,
            &wait(py, async move { table.append(rows(reader), &options).await })?,
        )
    }

    /// The last step that a stream of changes recorded (`idempotency_key=(key, step)`), None before the first.
    #[pyo3(signature = (key, branch=None))]
    fn last_step(&self, py: Python<'_>, key: String, branch: Option<String>) -> PyResult<Option<u64>> {
        let table = &self.table;
        wait(py, async move { table.last_step(&key, branch.as_deref()).await })
    }

    /// Replaces all rows, or those for which `predicate` is true.
    #[pyo3(signature = (data, predicate=None, **write))]
    fn overwrite(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        predicate: Option<&str>,
        write: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyDict>> {
        let options = write_options(write)?;
        let (table, reader) = (&self.table, reader(data)?);
        report(
            py,
            &wait(py, async move {
                table.overwrite(rows(reader), predicate, &options).await
            })?,
        )
    }

    /// Deletes the rows for which `predicate` is true.
    #[pyo3(signature = (predicate, **write))]
    fn delete(
        &self,
        py: Python<'_>,
        predicate: &str,
        write: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyDict>> {
        let options = write_options(write)?;
        report(py, &wait(py, self.table.delete(predicate, &options))?)
    }

    /// Sets columns (`{"c": "expr"}` or `"c = expr, .."`) in all rows, or those for which `predicate` is true.
    #[pyo3(signature = (updates, predicate=None, **write))]
    fn update(
        &self,
        py: Python<'_>,
        updates: &Bound<'_, PyAny>,
        predicate: Option<&str>,
        write: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyDict>> {
        let options = write_options(write)?;
        let updates = assignments(updates)?;
        report(py, &wait(py, self.table.update(&updates, predicate, &options))?)
    }

    /// Starts a merge; add clauses, then `execute()`. `on` is `"k1, k2"`, a list of columns, or a
    /// condition over `target.` and `source.`.
    ///
    /// `on_duplicate` (`"error"`, `"first"`, `"last"`) says which of several source rows with one key counts.
    /// `sequence_by` is a column (or several, `"day, seq"`): the newest row of a key counts, and where the table
    /// has the column, a stored row that is newer stays. `tombstones` is a boolean column of the table that
    /// marks deleted rows instead of removing them. `cdc` makes the source a change feed, without clauses:
    /// `"debezium"`, `"op=COL,sequence=COL[,insert=I,update=U,delete=D]"`, or the same as a dict.
    /// `skip_unchanged` leaves matched rows alone whose values would not change.
    #[pyo3(signature = (source, on, *, on_duplicate=None, sequence_by=None, tombstones=None, cdc=None, skip_unchanged=false, **write))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn merge(
        &self,
        source: &Bound<'_, PyAny>,
        on: &Bound<'_, PyAny>,
        on_duplicate: Option<&str>,
        sequence_by: Option<String>,
        tombstones: Option<String>,
        cdc: Option<&Bound<'_, PyAny>>,
        skip_unchanged: bool,
        write: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<MergeBuilder> {
        let mut merge = Merge::on(on_clause(on)?);
        if let Some(which) = on_duplicate {
            merge.on_duplicate = which.parse().map_err(raise)?;
        }
        merge.sequence_by = sequence_by;
        merge.tombstones = tombstones;
        merge.skip_unchanged = skip_unchanged;
        merge.cdc = cdc.map(feed).transpose()?;
        Ok(MergeBuilder {
            table: self.table.clone(),
            source: std::sync::Mutex::new(Some(reader(source)?)),
            merge,
            options: write_options(write)?,
        })
    }

    /// Updates the rows whose key is there, inserts the others.
    #[pyo3(signature = (source, on, **write))]
    fn upsert(
        &self,
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        on: &Bound<'_, PyAny>,
        write: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyDict>> {
        let options = write_options(write)?;
        let merge = Merge::on(on_clause(on)?)
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let (table, reader) = (&self.table, reader(source)?);
        report(
            py,
            &wait(
                py,
                async move { table.merge(rows(reader), &merge, &options).await },
            )?,
        )
    }
}
