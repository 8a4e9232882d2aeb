//! Versions: the table redefined, an older one made current, two compared.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::Table;
use crate::alter::{Altering, Names};
use crate::diff::Diff;
use crate::input::{Key, at, options};
use crate::report::report;
use crate::runtime::wait;

#[pymethods]
impl Table {
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
        let options = options(idempotency_key, dry_run, None);
        report(py, &wait(py, self.table.alter(&alter, &options))?)
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
        let options = options(None, dry_run, branch);
        let at = at(version, as_of)?;
        report(py, &wait(py, self.table.restore(&at, &options))?)
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
}
