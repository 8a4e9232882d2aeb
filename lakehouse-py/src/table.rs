//! The table that notebooks hold.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::col;
use lakehouse_core::model::{At, CheckpointKind, Definition, RefKind, Retention, parse_partitioning};
use lakehouse_core::operations::check::Check;
use lakehouse_core::operations::maintain::{Bytes, Time};
use lakehouse_core::operations::{Adoption, Compact, Expire, Merge, SetRef};
use lakehouse_core::scan::{parse_columns, parse_predicate, session};
use lakehouse_core::store::{StorageOptions, Store};
use lakehouse_core::{Error, Options, Table as Core, TableFormat, Vacuum};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3_arrow::PySchema;

use crate::alter::{Altering, Names};
use crate::diff::{Diff, loaded};
use crate::errors::raise;
use crate::input::{Key, assignments, at, feed, options, reader, rows, write_options};
use crate::kept;
use crate::merge::MergeBuilder;
use crate::order::{self, order};
use crate::refs;
use crate::report::{commit, report, vacuumed};
use crate::runtime::wait;
use crate::scan::{Scan, Schema};

/// A table, Iceberg or Delta.
#[pyclass(module = "lakehouse", frozen)]
pub(crate) struct Table {
    table: Core,
}

impl Table {
    pub(crate) fn core(&self) -> &Core {
        &self.table
    }

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

/// Quotes a column name for an expression.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"k1, k2"`, a condition, or a list of column names.
pub(crate) fn on_clause(on: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = on.extract::<String>() {
        return Ok(text);
    }
    let names: Vec<String> = on
        .extract()
        .map_err(|_| PyTypeError::new_err("on is text, or a list of column names"))?;
    Ok(names
        .iter()
        .map(|name| quoted(name))
        .collect::<Vec<_>>()
        .join(", "))
}

/// Text as `create` on the command line takes it, or anything with `__arrow_c_schema__`.
fn columns(schema: &Bound<'_, PyAny>) -> PyResult<SchemaRef> {
    if let Ok(text) = schema.extract::<String>() {
        return parse_columns(&text).map_err(raise);
    }
    let schema: PySchema = schema.extract().map_err(|_| {
        PyTypeError::new_err(
            "schema is text (\"id bigint not null, ..\") or an object with `__arrow_c_schema__`",
        )
    })?;
    Ok(schema.into_inner())
}

/// Settings of cloud storage.
pub(crate) fn storage(options: Option<BTreeMap<String, String>>) -> StorageOptions {
    options.unwrap_or_default().into_iter().collect()
}

#[pymethods]
impl Table {
    /// Opens the table at a path or URL; its format is found out.
    ///
    /// `storage_options` sets up cloud storage under delta-rs's names (`aws_region`, `aws_endpoint_url` ..); what it
    /// leaves out comes from the environment.
    #[staticmethod]
    #[pyo3(signature = (location, *, storage_options=None))]
    fn open(
        py: Python<'_>,
        location: &str,
        storage_options: Option<BTreeMap<String, String>>,
    ) -> PyResult<Self> {
        let storage = storage(storage_options);
        Ok(Self {
            table: wait(py, Core::open_with(location, &storage))?,
        })
    }

    /// Makes a new, empty table. `storage_options` as for `open`.
    #[staticmethod]
    #[pyo3(signature = (location, schema, *, format="iceberg", format_version=None, partition_by=None, properties=None, storage_options=None))]
    #[expect(clippy::too_many_arguments, reason = "Python's keywords")]
    fn create(
        py: Python<'_>,
        location: &str,
        schema: &Bound<'_, PyAny>,
        format: &str,
        format_version: Option<u8>,
        partition_by: Option<&str>,
        properties: Option<BTreeMap<String, String>>,
        storage_options: Option<BTreeMap<String, String>>,
    ) -> PyResult<Self> {
        let format: TableFormat = format.parse().map_err(raise)?;
        let definition = Definition {
            schema: columns(schema)?,
            partition_fields: partition_by
                .map_or(Ok(Vec::new()), parse_partitioning)
                .map_err(raise)?,
            properties: properties.unwrap_or_default(),
            format_version,
        };
        Ok(Self {
            table: wait(
                py,
                Core::create_with(location, &storage(storage_options), format, &definition),
            )?,
        })
    }

    /// Makes a table of the Parquet files that lie at its place already, or in `folder`, a path or URL inside of it. They
    /// are neither moved nor rewritten. `schema` gives columns another type (that their own must fit) or NOT NULL.
    #[staticmethod]
    #[pyo3(signature = (location, folder=None, *, schema=None, format="iceberg", format_version=None, partition_by=None, properties=None, storage_options=None))]
    #[expect(clippy::too_many_arguments, reason = "Python's keywords")]
    fn adopt(
        py: Python<'_>,
        location: &str,
        folder: Option<&str>,
        schema: Option<&Bound<'_, PyAny>>,
        format: &str,
        format_version: Option<u8>,
        partition_by: Option<&str>,
        properties: Option<BTreeMap<String, String>>,
        storage_options: Option<BTreeMap<String, String>>,
    ) -> PyResult<Self> {
        let format: TableFormat = format.parse().map_err(raise)?;
        let store = Store::open_with(location, &storage(storage_options)).map_err(raise)?;
        let adoption = Adoption {
            folder: folder
                .map_or(Ok(String::new()), |folder| store.folder(folder))
                .map_err(raise)?,
            schema: schema.map(columns).transpose()?,
            partition_fields: partition_by
                .map_or(Ok(Vec::new()), parse_partitioning)
                .map_err(raise)?,
            properties: properties.unwrap_or_default(),
            format_version,
        };
        let (table, _) = wait(py, Core::adopt_in(store, format, &adoption, false))?;
        Ok(Self { table })
    }

    /// Where it is.
    #[getter]
    fn location(&self) -> &str {
        self.table.location()
    }

    /// `"iceberg"` or `"delta"`.
    #[getter]
    fn format(&self) -> &'static str {
        self.table.format()
    }

    /// The newest version: a Delta version number, an Iceberg snapshot id (0: none yet).
    fn version(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(wait(py, self.table.snapshot(&At::Latest))?.version)
    }

    /// The columns of a version, the newest by default.
    #[pyo3(signature = (version=None, as_of=None))]
    fn schema(
        &self,
        py: Python<'_>,
        version: Option<&Bound<'_, PyAny>>,
        as_of: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Schema> {
        let at = at(version, as_of)?;
        let snapshot = wait(py, self.table.snapshot(&at))?;
        Ok(Schema {
            schema: Arc::clone(&snapshot.schema),
        })
    }

    /// Table properties.
    fn properties(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        Ok(wait(py, self.table.snapshot(&At::Latest))?.properties.clone())
    }

    /// Plans a read: `filter` is an SQL condition, `version` a number, tag or branch, `as_of` a
    /// datetime or ISO 8601 text.
    #[pyo3(signature = (filter=None, columns=None, *, version=None, as_of=None, limit=None))]
    fn scan(
        &self,
        py: Python<'_>,
        filter: Option<&str>,
        columns: Option<Vec<String>>,
        version: Option<&Bound<'_, PyAny>>,
        as_of: Option<&Bound<'_, PyAny>>,
        limit: Option<usize>,
    ) -> PyResult<Scan> {
        let at = at(version, as_of)?;
        let table = &self.table;
        let frame = wait(py, async move {
            let provider = table.provider(&at).await?;
            let mut frame = session(None).read_table(provider)?;
            if let Some(filter) = filter {
                let condition = parse_predicate(filter, frame.schema())?;
                frame = frame.filter(condition)?;
            }
            if let Some(columns) = &columns {
                frame = frame.select(columns.iter().map(|name| col(quoted(name))).collect::<Vec<_>>())?;
            }
            if let Some(limit) = limit {
                frame = frame.limit(0, Some(limit))?;
            }
            Ok::<_, Error>(frame)
        })?;
        Ok(Scan { frame })
    }

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
        let mut options = options(idempotency_key, dry_run);
        options.branch = branch;
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
        let mut options = options(idempotency_key, dry_run);
        options.branch = branch;
        options.memory_limit = memory_limit;
        let max_time = max_time.map(Duration::try_from_secs_f64).transpose();
        let compact = Compact {
            target_file_bytes: target_file_size,
            predicate,
            order: order(sort_by, zorder, hilbert, unordered)?,
            strategy: strategy.parse().map_err(raise)?,
            min_input_files,
            delete_ratio_threshold,
            max_rewrite,
            max_bytes,
            max_time: max_time.map_err(|wrong| PyValueError::new_err(format!("max_time: {wrong}")))?,
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

    /// Makes an older version current again, as a new commit. On a branch, -1 and times are those of the branch.
    #[pyo3(signature = (version=None, as_of=None, *, dry_run=false, branch=None))]
    fn restore(
        &self,
        py: Python<'_>,
        version: Option<&Bound<'_, PyAny>>,
        as_of: Option<&Bound<'_, PyAny>>,
        dry_run: bool,
        branch: Option<String>,
    ) -> PyResult<Py<PyDict>> {
        let mut options = options(None, dry_run);
        options.branch = branch;
        let at = at(version, as_of)?;
        report(py, &wait(py, self.table.restore(&at, &options))?)
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
        let options = options(None, dry_run);
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
        let max_time = max_time.map(Duration::try_from_secs_f64).transpose();
        let max_time = max_time.map_err(|wrong| PyValueError::new_err(format!("max_time: {wrong}")))?;
        policy.max_time = max_time.map(Time).or(policy.max_time);
        policy.max_bytes = max_bytes.map(Bytes).or(policy.max_bytes);
        let options = options(None, dry_run);
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
        let mut options = options(None, dry_run);
        options.branch = branch;
        kept::manifests(py, &wait(py, self.table.rewrite_manifests(&options))?)
    }

    /// Changes columns, partitioning, properties in one commit; no file is rewritten.
    ///
    /// Keywords: `add` (`["tip double"]`), `drop` (`["fax"]`), `rename` (`{"day": "sold_on"}`), `move`
    /// (`{"tip": "after amount"}`), `types` (`{"id": "bigint"}`), `required`, `optional`, `comment` (`{"tip": "in EUR"}`),
    /// `default` (`{"tip": "0.5"}`), `partition_by`, `sort_by`, `identifier`, `set`, `unset`, `format_version`, `idempotency_key`, `dry_run`.
    #[pyo3(signature = (*, add=None, drop=None, rename=None, r#move=None, types=None, required=None, optional=None,
        comment=None, default=None, partition_by=None, sort_by=None, identifier=None, set=None, unset=None, format_version=None,
        idempotency_key=None, dry_run=false))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn alter(
        &self,
        py: Python<'_>,
        add: Option<Names>,
        drop: Option<Names>,
        rename: Option<&Bound<'_, PyDict>>,
        r#move: Option<&Bound<'_, PyDict>>,
        types: Option<&Bound<'_, PyDict>>,
        required: Option<Names>,
        optional: Option<Names>,
        comment: Option<&Bound<'_, PyDict>>,
        default: Option<&Bound<'_, PyDict>>,
        partition_by: Option<&str>,
        sort_by: Option<&str>,
        identifier: Option<Names>,
        set: Option<&Bound<'_, PyDict>>,
        unset: Option<Names>,
        format_version: Option<u8>,
        idempotency_key: Option<Key>,
        dry_run: bool,
    ) -> PyResult<Py<PyDict>> {
        // The order in which changes of columns happen.
        let alter = Altering::default()
            .nullable(required, false)?
            .nullable(optional, true)?
            .types(types)?
            .comment(comment)?
            .drop_columns(drop)?
            .rename_columns(rename)?
            .add_columns(add)?
            .defaults(default)?
            .moves(r#move)?
            .definition(partition_by, sort_by, identifier, format_version)?
            .properties(set, unset)?
            .alter;
        let options = options(idempotency_key, dry_run);
        report(py, &wait(py, self.table.alter(&alter, &options))?)
    }

    /// Compares two versions, each a number, tag or branch, or the one that was current at a time; `to` is the newest by
    /// default. Metadata is read now, rows when they are asked for.
    #[pyo3(signature = (from_=None, to=None, *, from_as_of=None, to_as_of=None))]
    fn diff(
        &self,
        py: Python<'_>,
        from_: Option<&Bound<'_, PyAny>>,
        to: Option<&Bound<'_, PyAny>>,
        from_as_of: Option<&Bound<'_, PyAny>>,
        to_as_of: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Diff> {
        if from_.is_none() && from_as_of.is_none() {
            return Err(PyTypeError::new_err(
                "diff needs from_ or from_as_of: the version to compare",
            ));
        }
        let (from, to) = (at(from_, from_as_of)?, at(to, to_as_of)?);
        let diff = wait(py, self.table.diff(&from, &to))?;
        Ok(Diff { diff })
    }

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

    /// Commits, newest first, those of main unless a branch is named.
    #[pyo3(signature = (limit=None, *, branch=None))]
    fn history(
        &self,
        py: Python<'_>,
        limit: Option<usize>,
        branch: Option<String>,
    ) -> PyResult<Vec<Py<PyDict>>> {
        let at = branch.map_or(At::Latest, At::Ref);
        wait(py, self.table.history_at(&at, limit))?
            .iter()
            .map(|entry| commit(py, entry))
            .collect()
    }

    fn __repr__(&self) -> String {
        format!("Table({}, {})", self.table.format(), self.table.location())
    }
}
