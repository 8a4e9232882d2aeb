//! What `Table.alter` is asked, keyword by keyword.

use lakehouse_core::model::ColumnPath;
use lakehouse_core::operations::Alter;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;

/// A name, or a list of them.
#[derive(FromPyObject)]
pub(crate) enum Names {
    One(String),
    Many(Vec<String>),
}

impl Names {
    pub(crate) fn list(this: Option<Self>) -> Vec<String> {
        match this {
            None => Vec::new(),
            Some(Self::One(name)) => vec![name],
            Some(Self::Many(names)) => names,
        }
    }
}

/// A change in the making.
#[derive(Default)]
pub(crate) struct Altering {
    pub(crate) alter: Alter,
}

impl Altering {
    /// The same with one more change for each of these.
    fn each<T>(self, of: Vec<T>, add: impl Fn(Alter, T) -> PyResult<Alter>) -> PyResult<Self> {
        let alter = of.into_iter().try_fold(self.alter, add)?;
        Ok(Self { alter })
    }

    pub(crate) fn nullable(self, columns: Option<Names>, nullable: bool) -> PyResult<Self> {
        self.each(Names::list(columns), |alter, column| {
            Ok(alter.nullable(path(&column)?, nullable))
        })
    }

    pub(crate) fn types(self, types: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        self.each(
            pairs::<String>(types)?,
            |alter, (column, sql): (String, String)| alter.widen(&format!("{column} {sql}")).map_err(raise),
        )
    }

    pub(crate) fn comment(self, comments: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        self.each(
            pairs::<Option<String>>(comments)?,
            |alter, (column, text): (String, Option<String>)| {
                Ok(alter.comment(path(&column)?, text.as_deref()))
            },
        )
    }

    pub(crate) fn drop_columns(self, columns: Option<Names>) -> PyResult<Self> {
        self.each(Names::list(columns), |alter, column| {
            Ok(alter.drop_column(path(&column)?))
        })
    }

    pub(crate) fn rename_columns(self, names: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        self.each(
            pairs::<String>(names)?,
            |alter, (column, to): (String, String)| Ok(alter.rename_column(path(&column)?, &to)),
        )
    }

    pub(crate) fn add_columns(self, definitions: Option<Names>) -> PyResult<Self> {
        self.each(Names::list(definitions), |alter, definition| {
            alter.add_column(&definition).map_err(raise)
        })
    }

    pub(crate) fn defaults(self, values: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        self.each(
            pairs::<Option<String>>(values)?,
            |alter, (column, value): (String, Option<String>)| {
                Ok(alter.default_value(path(&column)?, value.as_deref()))
            },
        )
    }

    pub(crate) fn moves(self, places: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        self.each(
            pairs::<String>(places)?,
            |alter, (column, place): (String, String)| {
                Ok(alter.move_column(path(&column)?, place.parse().map_err(raise)?))
            },
        )
    }

    pub(crate) fn definition(
        self,
        partition_by: Option<&str>,
        sort_by: Option<&str>,
        identifier: Option<Names>,
        format_version: Option<u8>,
    ) -> PyResult<Self> {
        let mut alter = self.alter;
        if let Some(fields) = partition_by {
            alter = alter.partition_by(fields).map_err(raise)?;
        }
        if let Some(columns) = sort_by {
            alter = alter.sort_by(columns).map_err(raise)?;
        }
        if identifier.is_some() {
            alter = alter.identifier(Names::list(identifier));
        }
        if let Some(version) = format_version {
            alter = alter.format_version(version);
        }
        Ok(Self { alter })
    }

    pub(crate) fn properties(self, set: Option<&Bound<'_, PyDict>>, unset: Option<Names>) -> PyResult<Self> {
        let mut alter = self.alter;
        for (key, value) in pairs::<String>(set)? {
            alter = alter.property(&key, Some(&value));
        }
        for key in Names::list(unset) {
            alter = alter.property(&key, None);
        }
        Ok(Self { alter })
    }
}

/// A dict, in its own order.
fn pairs<V>(dict: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<(String, V)>>
where
    V: for<'a, 'py> FromPyObject<'a, 'py>,
    for<'a, 'py> PyErr: From<<V as FromPyObject<'a, 'py>>::Error>,
{
    let pair = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let value: V = value.extract().map_err(PyErr::from)?;
        Ok((key.extract::<String>()?, value))
    };
    dict.into_iter().flat_map(|dict| dict.iter()).map(pair).collect()
}

fn path(text: &str) -> PyResult<ColumnPath> {
    text.parse().map_err(raise)
}
