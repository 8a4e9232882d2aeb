//! Makes an older version current again, as a new commit.

use std::sync::Arc;

use arrow::datatypes::{DataType, Fields};
use futures::future::BoxFuture;

use super::alter::{first_violation, violates};
use super::work::{Verb, Work, run};
use super::{Options, Report};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::schema::same_column;
use crate::model::{At, ColumnPath, MAIN, OperationKind, Snapshot, Version};

/// Makes an older version current again, as a new commit: the versions in between stay in the
/// history. Its rows are read with the columns of today. Restoring the newest version commits nothing. On a branch,
/// "-1" and times are those of the branch.
///
/// # Errors
/// [`Error::NotFound`] when there is no such version; [`Error::Invalid`] when a row of it is NULL in a column that is
/// required by now; those of [`crate::commit::commit`].
pub async fn restore(handle: &Handle, at: &At, options: &Options) -> Result<Report> {
    // "-1" and times mean what they meant when the command was given, whatever is committed meanwhile.
    let version = match options.branch.as_deref().filter(|branch| *branch != MAIN) {
        None => handle.format.snapshot(at).await?.version,
        Some(branch) => version_on(handle, at, branch).await?,
    };
    run(handle, options, &mut Restore { version }).await
}

async fn version_on(handle: &Handle, at: &At, branch: &str) -> Result<Version> {
    let newest = At::Ref(branch.to_owned());
    let missing = |what: String| Error::not_found(what, format!("branch {branch}"));
    match at {
        At::Latest => Ok(handle.format.snapshot(&newest).await?.version),
        At::Version(back) if *back < 0 => {
            let steps = usize::try_from(back.unsigned_abs()).unwrap_or(usize::MAX);
            let commits = handle.format.history(&newest, Some(steps)).await?;
            let last = commits.get(steps - 1);
            let last = last.ok_or_else(|| missing(format!("version {back}")))?;
            Ok(last.parent.unwrap_or(0))
        }
        At::Timestamp(instant) => {
            let commits = handle.format.history(&newest, None).await?;
            let found = commits.iter().find(|commit| commit.timestamp_ms <= *instant);
            let missing = || missing(format!("a version at or before {instant} ms since 1970"));
            Ok(found.ok_or_else(missing)?.version)
        }
        At::Version(_) | At::Ref(_) => Ok(handle.format.snapshot(at).await?.version),
    }
}

struct Restore {
    version: Version,
}

impl Verb for Restore {
    fn kind(&self) -> OperationKind {
        OperationKind::Restore
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.version != work.snapshot.version {
                let old = work.handle.format.snapshot(&At::Version(self.version)).await?;
                check_required(&work.handle, &work.options, &old, &work.snapshot).await?;
                work.change.restore = Some(self.version);
            }
            Ok(())
        })
    }
}

/// Columns that became required since a version: its rows must have values before they are read with the columns of
/// today.
///
/// # Errors
/// [`Error::Invalid`] with the first row that has none.
pub(super) async fn check_required(
    handle: &Handle,
    options: &Options,
    old: &Arc<Snapshot>,
    newest: &Snapshot,
) -> Result<()> {
    let mut required = Vec::new();
    newly_required(old.schema.fields(), newest.schema.fields(), &[], &mut required);
    for column in required {
        let column = ColumnPath::new(column)?;
        if let Some(row) = first_violation(handle, options, old, violates(old, &column)?).await? {
            return Err(Error::invalid(
                format!(
                    "column {column} is required by now, and NULL in version {}, for one in\n{row}",
                    old.version
                ),
                "the rows of the older version",
            )
            .with_hint("let the column be NULL first: lake alter --optional"));
        }
    }
    Ok(())
}

/// The columns, by their old names, that may be NULL in one schema and may not in a later one.
fn newly_required(old: &Fields, new: &Fields, parents: &[String], found: &mut Vec<Vec<String>>) {
    for field in new {
        let Some(before) = old.iter().find(|before| same_column(before, field)) else {
            continue;
        };
        let mut path = parents.to_vec();
        path.push(before.name().clone());
        if let (DataType::Struct(old), DataType::Struct(new)) = (before.data_type(), field.data_type()) {
            newly_required(old, new, &path, found);
        }
        if before.is_nullable() && !field.is_nullable() {
            found.push(path);
        }
    }
}
