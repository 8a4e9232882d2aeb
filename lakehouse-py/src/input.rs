//! What callers pass in: Arrow streams, versions, instants, options.

use std::time::Duration;

use arrow::array::RecordBatchReader;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use lakehouse_core::commit::Isolation;
use lakehouse_core::model::{At, Token};
use lakehouse_core::operations::{Cdc, CdcColumns};
use lakehouse_core::{Options, Rows};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyDict, PyTzInfoAccess};
use pyo3_arrow::PyRecordBatchReader;

use crate::errors::raise;

/// Rows of an Arrow stream. Reading it may need the GIL, so a blocking thread does it: call this
/// inside the runtime.
pub(crate) fn rows(reader: Box<dyn RecordBatchReader + Send>) -> Rows {
    let mut builder = RecordBatchReceiverStream::builder(reader.schema(), 2);
    let sender = builder.tx();
    builder.spawn_blocking(move || {
        for batch in reader {
            // The other end is gone: whoever wanted the rows has failed already.
            if sender.blocking_send(batch.map_err(Into::into)).is_err() {
                break;
            }
        }
        Ok(())
    });
    Rows::stream(builder.build())
}

/// Takes anything with `__arrow_c_stream__`.
pub(crate) fn reader(data: &Bound<'_, PyAny>) -> PyResult<Box<dyn RecordBatchReader + Send>> {
    let stream: PyRecordBatchReader = data.extract().map_err(|_| {
        let kind = data.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!(
            "{kind} has no `__arrow_c_stream__`: pass a pyarrow Table, a Polars or pandas DataFrame, a DuckDB relation \
             or any other Arrow stream"
        ))
    })?;
    stream.into_reader()
}

/// The version that `version` (number, tag or branch) or `as_of` (datetime, ISO 8601 text) names.
pub(crate) fn at(version: Option<&Bound<'_, PyAny>>, as_of: Option<&Bound<'_, PyAny>>) -> PyResult<At> {
    match (version, as_of) {
        (None, None) => Ok(At::Latest),
        (Some(_), Some(_)) => Err(PyValueError::new_err("give either version or as_of, not both")),
        (Some(version), None) => match version.extract::<i64>() {
            Ok(number) => Ok(At::Version(number)),
            Err(_) => Ok(At::Ref(version.extract::<String>().map_err(|_| {
                PyTypeError::new_err("version is a number, or the name of a tag or branch")
            })?)),
        },
        (None, Some(instant)) => Ok(At::Timestamp(millis(instant)?)),
    }
}

/// Milliseconds since 1970 UTC of a datetime (UTC, if it has no zone) or of ISO 8601 text.
fn millis(instant: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(datetime) = instant.cast::<PyDateTime>() {
        let zoned = if datetime.get_tzinfo().is_some() {
            instant.clone()
        } else {
            let utc = instant
                .py()
                .import("datetime")?
                .getattr("timezone")?
                .getattr("utc")?;
            let zone = PyDict::new(instant.py());
            zone.set_item("tzinfo", utc)?;
            instant.call_method("replace", (), Some(&zone))?
        };
        let seconds: f64 = zoned.call_method0("timestamp")?.extract()?;
        // Microseconds are exact in a double for the next centuries; rounding before truncating keeps them.
        return Ok(((seconds * 1e6).round() as i64).div_euclid(1000));
    }
    let text: String = instant
        .extract()
        .map_err(|_| PyTypeError::new_err("as_of is a datetime or ISO 8601 text"))?;
    let nanos = string_to_timestamp_nanos(&text).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(Duration::from_nanos(nanos.unsigned_abs()).as_millis() as i64 * nanos.signum())
}

/// `{"c": "expr", ..}` or `"c = expr, .."` as the core takes it.
pub(crate) fn assignments(updates: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = updates.extract::<String>() {
        return Ok(text);
    }
    let updates = updates.cast::<PyDict>().map_err(|_| {
        PyTypeError::new_err("updates are a dict of column to expression, or text \"c = expr, ..\"")
    })?;
    let mut terms = Vec::with_capacity(updates.len());
    for (column, expression) in updates.iter() {
        let column: String = column.extract()?;
        let expression: String = expression.extract().map_err(|_| {
            PyTypeError::new_err(format!(
                "the new value of {column} is an SQL expression (text); quote literals"
            ))
        })?;
        terms.push(format!("\"{}\" = {expression}", column.replace('"', "\"\"")));
    }
    Ok(terms.join(", "))
}

/// A change feed: text as the command line takes it, or a dict of the same names.
pub(crate) fn feed(cdc: &Bound<'_, PyAny>) -> PyResult<Cdc> {
    if let Ok(text) = cdc.extract::<String>() {
        return text.parse().map_err(raise);
    }
    let given = cdc.cast::<PyDict>().map_err(|_| {
        PyTypeError::new_err("cdc is \"debezium\", \"op=COL,sequence=COL,..\", or a dict of the same names")
    })?;
    let mut columns = CdcColumns::default();
    for (name, value) in given.iter() {
        let (name, value): (String, String) = (name.extract()?, value.extract()?);
        match name.as_str() {
            "op" => columns.op = value,
            "sequence" => columns.sequence = Some(value),
            "insert" => columns.insert = Some(value),
            "update" => columns.update = Some(value),
            "delete" => columns.delete = Some(value),
            other => {
                return Err(PyValueError::new_err(format!(
                    "cdc has op, sequence, insert, update and delete, not {other:?}"
                )));
            }
        }
    }
    if columns.op.is_empty() {
        return Err(PyValueError::new_err(
            "cdc names no column op, which tells what happened",
        ));
    }
    Ok(Cdc::Columns(columns))
}

/// An idempotency key: text, or text and a number for a step of a stream.
#[derive(FromPyObject)]
pub(crate) enum Key {
    Step(String, u64),
    Name(String),
}

impl From<Key> for Token {
    fn from(key: Key) -> Self {
        match key {
            Key::Name(key) => key.into(),
            Key::Step(key, step) => Self::step(key, step),
        }
    }
}

/// A length of time that is given in seconds, by the name of the keyword.
pub(crate) fn seconds(name: &str, given: Option<f64>) -> PyResult<Option<Duration>> {
    let time = given.map(Duration::try_from_secs_f64).transpose();
    time.map_err(|wrong| PyValueError::new_err(format!("{name}: {wrong}")))
}

/// Options of verbs that only add or move rows.
pub(crate) fn options(idempotency_key: Option<Key>, dry_run: bool, branch: Option<String>) -> Options {
    Options {
        token: idempotency_key.map(Token::from),
        dry_run,
        branch,
        ..Options::default()
    }
}

/// Keyword arguments of every verb that changes rows.
const WRITE_OPTIONS: &str =
    "idempotency_key, dry_run, isolation, strategy, memory_limit, schema_mode, branch";

/// `idempotency_key` (text, or text and the number of a step), `dry_run` (bool), `isolation` (`'serializable'`, `'snapshot'`), `strategy`
/// (`'auto'`, `'merge-on-read'`, `'copy-on-write'`), `memory_limit` (bytes), `schema_mode` (`'strict'`,
/// `'merge'`), `branch` (text).
pub(crate) fn write_options(given: Option<&Bound<'_, PyDict>>) -> PyResult<Options> {
    let mut options = Options::default();
    for (name, value) in given.into_iter().flatten() {
        let name: String = name.extract()?;
        match name.as_str() {
            "idempotency_key" => options.token = value.extract::<Option<Key>>()?.map(Token::from),
            "dry_run" => options.dry_run = value.extract()?,
            "isolation" => {
                options.isolation = match value.extract::<Option<String>>()?.as_deref() {
                    None | Some("serializable") => Isolation::Serializable,
                    Some("snapshot") => Isolation::Snapshot,
                    Some(other) => {
                        return Err(PyValueError::new_err(format!(
                            "isolation is 'serializable' or 'snapshot', not {other:?}"
                        )));
                    }
                }
            }
            "strategy" => {
                if let Some(text) = value.extract::<Option<String>>()? {
                    options.strategy = text.parse().map_err(raise)?;
                }
            }
            "schema_mode" => {
                if let Some(text) = value.extract::<Option<String>>()? {
                    options.schema_mode = text.parse().map_err(raise)?;
                }
            }
            "memory_limit" => options.memory_limit = value.extract()?,
            "branch" => options.branch = value.extract()?,
            other => {
                return Err(PyTypeError::new_err(format!(
                    "there is no option {other:?}; there are {WRITE_OPTIONS}"
                )));
            }
        }
    }
    Ok(options)
}
