//! What `Table.alter` is asked, as keywords.

use std::collections::HashMap;

use lakehouse_core::model::ColumnPath;
use lakehouse_core::operations::{Alter, Options};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;

/// The changes in the order in which they happen: required, optional, types, comment, drop, rename, add, move.
pub(crate) fn alteration(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<(Alter, Options)> {
    const KNOWN: [&str; 16] = [
        "required",
        "optional",
        "types",
        "comment",
        "drop",
        "rename",
        "add",
        "move",
        "partition_by",
        "sort_by",
        "identifier",
        "set",
        "unset",
        "format_version",
        "idempotency_key",
        "dry_run",
    ];
    let mut given: HashMap<String, Bound<'_, PyAny>> = HashMap::new();
    for (key, value) in keywords.into_iter().flatten() {
        let key: String = key.extract()?;
        if !KNOWN.contains(&key.as_str()) {
            return Err(PyTypeError::new_err(format!(
                "alter() got an unexpected keyword argument '{key}'; known are {}",
                KNOWN.join(", ")
            )));
        }
        if !value.is_none() {
            given.insert(key, value);
        }
    }
    let mut alter = Alter::default();
    for column in names(&given, "required")? {
        alter = alter.nullable(path(&column)?, false);
    }
    for column in names(&given, "optional")? {
        alter = alter.nullable(path(&column)?, true);
    }
    for (column, sql) in pairs::<String>(&given, "types")? {
        alter = alter.widen(&format!("{column} {sql}")).map_err(raise)?;
    }
    for (column, text) in pairs::<Option<String>>(&given, "comment")? {
        alter = alter.comment(path(&column)?, text.as_deref());
    }
    for column in names(&given, "drop")? {
        alter = alter.drop(path(&column)?);
    }
    for (column, to) in pairs::<String>(&given, "rename")? {
        alter = alter.rename(path(&column)?, &to);
    }
    for definition in names(&given, "add")? {
        alter = alter.add(&definition).map_err(raise)?;
    }
    for (column, place) in pairs::<String>(&given, "move")? {
        alter = alter.move_to(path(&column)?, place.parse().map_err(raise)?);
    }
    if let Some(fields) = given.get("partition_by") {
        alter = alter.partition_by(&fields.extract::<String>()?).map_err(raise)?;
    }
    if let Some(columns) = given.get("sort_by") {
        alter = alter.sort_by(&columns.extract::<String>()?).map_err(raise)?;
    }
    if given.contains_key("identifier") {
        alter = alter.identifier(names(&given, "identifier")?);
    }
    for (key, value) in pairs::<String>(&given, "set")? {
        alter = alter.property(&key, Some(&value));
    }
    for key in names(&given, "unset")? {
        alter = alter.property(&key, None);
    }
    if let Some(version) = given.get("format_version") {
        alter = alter.format_version(version.extract()?);
    }
    let options = Options {
        token: given
            .get("idempotency_key")
            .map(|key| key.extract())
            .transpose()?,
        dry_run: given
            .get("dry_run")
            .is_some_and(|dry| dry.is_truthy().unwrap_or(false)),
        ..Options::default()
    };
    Ok((alter, options))
}

/// A list of texts, or one.
fn names(given: &HashMap<String, Bound<'_, PyAny>>, key: &str) -> PyResult<Vec<String>> {
    match given.get(key) {
        None => Ok(Vec::new()),
        Some(value) => match value.extract::<String>() {
            Ok(one) => Ok(vec![one]),
            Err(_) => value.extract(),
        },
    }
}

/// A dict, in its own order.
fn pairs<V>(given: &HashMap<String, Bound<'_, PyAny>>, key: &str) -> PyResult<Vec<(String, V)>>
where
    V: for<'a, 'py> FromPyObject<'a, 'py>,
    for<'a, 'py> PyErr: From<<V as FromPyObject<'a, 'py>>::Error>,
{
    let Some(value) = given.get(key) else {
        return Ok(Vec::new());
    };
    let dict = value.cast::<PyDict>()?;
    let pair = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let value: V = value.extract().map_err(PyErr::from)?;
        Ok((key.extract::<String>()?, value))
    };
    dict.iter().map(pair).collect()
}

fn path(text: &str) -> PyResult<ColumnPath> {
    text.parse().map_err(raise)
}
