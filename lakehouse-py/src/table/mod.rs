//! The table that notebooks hold: how it is opened or made, what it is and has been, how it is read. Its other methods are
//! beside this, one file for each kind.

mod care;
mod change;
mod names;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::col;
use lakehouse_core::model::{At, Definition, PartitionField, parse_partitioning};
use lakehouse_core::operations::Adoption;
use lakehouse_core::scan::{parse_columns, parse_predicate, session};
use lakehouse_core::store::{StorageOptions, Store};
use lakehouse_core::{Error, Table as Core, TableFormat};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_arrow::PySchema;

use crate::errors::raise;
use crate::input::at;
use crate::report::commit;
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

/// Text as `--partition-by` on the command line takes it.
fn partitioning(partition_by: Option<&str>) -> PyResult<Vec<PartitionField>> {
    partition_by
        .map_or(Ok(Vec::new()), parse_partitioning)
        .map_err(raise)
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
            partition_fields: partitioning(partition_by)?,
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
            partition_fields: partitioning(partition_by)?,
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
