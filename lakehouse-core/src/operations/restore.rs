//! Makes an older version current again, as a new commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Fields};
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::alter::{first_violation, violates};
use super::work::{Verb, Work, run};
use super::{Options, Report};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::schema::same_column;
use crate::model::{At, ColumnPath, MAIN, OperationKind, Prune, Snapshot, Version};

/// Makes an older version current again, as a new commit: the versions in between stay in the
/// history. Its rows are read with the columns of today. Restoring the newest version commits nothing. On a branch,
/// "-1" and times are those of the branch.
///
/// # Errors
/// [`Error::NotFound`] when there is no such version, and when files that would come back are not there: a vacuum takes
/// them once a version's time is over. [`Error::Invalid`] when a row of it is NULL in a column that is
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
                check_there(&work.handle, &old, &work.snapshot).await?;
                check_required(&work.handle, &work.options, &old, &work.snapshot).await?;
                work.change.restore = Some(self.version);
            }
            Ok(())
        })
    }
}

/// Files that a version has and the newest has not: nobody is reading them, so that they may be gone without a word. How a
/// format keeps its versions does not matter: files go by other hands too, and then the newest version could not be read.
///
/// # Errors
/// [`Error::NotFound`] with how many are not there, and one of them.
async fn check_there(handle: &Handle, old: &Arc<Snapshot>, newest: &Arc<Snapshot>) -> Result<()> {
    let files = |snapshot: &Arc<Snapshot>| {
        let paths_only = Prune::everything().telling_of([]);
        handle.format.files(snapshot, Arc::new(paths_only))
    };
    let mut wanted = BTreeSet::new();
    let mut listed = files(old);
    while let Some(file) = listed.try_next().await? {
        wanted.extend(file.objects().map(|(path, _)| path.to_owned()));
    }
    let mut listed = files(newest);
    while let Some(file) = listed.try_next().await? {
        file.objects().for_each(|(path, _)| {
            wanted.remove(path);
        });
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let there = handle.store.sizes(&wanted).await?;
    let mut missing = wanted.iter().filter(|path| !there.contains_key(*path));
    let Some(first) = missing.next() else {
        return Ok(());
    };
    let (more, first) = (missing.count(), handle.store.shown(first));
    let which = match more {
        0 => format!("1 of its files, {first}, was"),
        more => format!("{} of its files, among them {first}, were", more + 1),
    };
    Err(Error::not_found(
        format!("version {} cannot be restored: {which}", old.version),
        handle.store.location(),
    )
    .with_hint(
        "a vacuum takes files of versions whose time is over: choose a later version (lake history), or put the files back \
         from its quarantine or a backup",
    ))
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
