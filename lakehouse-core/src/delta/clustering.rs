//! Clustered tables (Delta protocol, "Clustered Table"): which columns they are clustered by. Compaction puts rows in
//! order, all files have the statistics by which others find them.

use arrow::datatypes::{DataType, Field};
use serde_json::Value;

use super::actions::Protocol;
use super::schema::Column;
use crate::error::{Error, Result};
use crate::model::schema::physical_name;

/// The table feature.
pub(super) const FEATURE: &str = "clustering";
/// The domain with the columns that the table is clustered by.
pub(super) const DOMAIN: &str = "delta.clustering";

/// A column by the names that files have, outermost first.
pub(super) type Path = Vec<String>;

/// The columns that a table is clustered by. `domain` is what it keeps under [`DOMAIN`].
///
/// # Errors
/// [`Error::Invalid`] when that cannot be read.
pub(super) fn columns(protocol: &Protocol, domain: Option<&str>) -> Result<Vec<Path>> {
    let Some(text) = domain.filter(|_| protocol.has(FEATURE)) else {
        return Ok(Vec::new());
    };
    let broken = || {
        Error::invalid(
            format!("{text:?} does not name the columns that the table is clustered by"),
            format!("the metadata domain {DOMAIN}"),
        )
        .with_hint("set them again with the engine that clusters the table")
    };
    let value: Value = serde_json::from_str(text).map_err(|_| broken())?;
    let columns = value["clusteringColumns"].as_array().ok_or_else(broken)?;
    // Spark writes paths, the protocol's own example names.
    let path = |column: &Value| match column {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(names) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    columns
        .iter()
        .map(|column| path(column).ok_or_else(broken))
        .collect()
}

/// Refuses columns without one that the table is clustered by.
///
/// # Errors
/// [`Error::Unsupported`] naming it.
pub(super) fn check_kept(clustered: &[Path], columns: &[Column]) -> Result<()> {
    let fields: Vec<&Field> = columns.iter().map(|column| &column.field).collect();
    match clustered.iter().find(|path| !has(&fields, path)) {
        None => Ok(()),
        Some(path) => Err(Error::unsupported(
            format!(
                "column {} cannot be dropped: the table is clustered by it",
                path.join(".")
            ),
            "let the engine that clusters the table cluster it by others first",
        )),
    }
}

/// The names that users have for these columns, `a.b` inside structs.
///
/// # Errors
/// [`Error::Invalid`] when the table has no such column.
pub(super) fn logical(clustered: &[Path], columns: &[Column]) -> Result<Vec<String>> {
    let name = |path: &Path| {
        let mut fields: Vec<&Field> = columns.iter().map(|column| &column.field).collect();
        let mut names: Vec<&str> = Vec::with_capacity(path.len());
        for name in path {
            let field = fields.into_iter().find(|field| physical_name(field) == name)?;
            names.push(field.name());
            fields = match field.data_type() {
                DataType::Struct(inner) => inner.iter().map(AsRef::as_ref).collect(),
                _ => Vec::new(),
            };
        }
        Some(names.join("."))
    };
    let names = clustered.iter().map(|path| {
        name(path).ok_or_else(|| {
            Error::invalid(
                format!(
                    "the table is clustered by a column {} that it does not have",
                    path.join(".")
                ),
                format!("the metadata domain {DOMAIN}"),
            )
            .with_hint("cluster it by others with the engine that clusters the table")
        })
    });
    names.collect()
}

fn has(fields: &[&Field], path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else {
        return true;
    };
    let found = fields.iter().find(|field| physical_name(field) == name);
    found.is_some_and(|field| match field.data_type() {
        DataType::Struct(inner) => has(&inner.iter().map(AsRef::as_ref).collect::<Vec<_>>(), rest),
        _ => rest.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(feature: &str) -> Protocol {
        Protocol {
            writer_features: Some(vec![feature.to_owned()]),
            ..Protocol::default()
        }
    }

    #[test]
    fn columns_are_read_as_spark_writes_them_and_as_the_protocol_shows_them() {
        let read = |text| columns(&protocol(FEATURE), Some(text)).unwrap();
        let spark = r#"{"clusteringColumns":[["id"],["point","x"]],"domainName":"delta.clustering"}"#;
        assert_eq!(
            read(spark),
            [vec!["id".to_owned()], vec!["point".to_owned(), "x".to_owned()]]
        );
        assert_eq!(read(r#"{"clusteringColumns":["id"]}"#), [["id".to_owned()]]);
        assert!(read(r#"{"clusteringColumns":[]}"#).is_empty());
        assert!(columns(&protocol("other"), Some(spark)).unwrap().is_empty());
        for text in ["", "{}", r#"{"clusteringColumns":[1]}"#] {
            let error = columns(&protocol(FEATURE), Some(text)).unwrap_err();
            assert!(error.to_string().contains(DOMAIN), "{error}");
        }
    }
}
