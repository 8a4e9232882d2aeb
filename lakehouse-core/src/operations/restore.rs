//! Makes an older version current again, as a new commit.

use futures::future::BoxFuture;

use super::work::{Verb, Work, run};
use super::{Options, Report};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{At, MAIN, OperationKind, Version};

/// Makes an older version current again, as a new commit: the versions in between stay in the
/// history. Restoring the newest version commits nothing. On a branch, "-1" and times are those of the branch.
///
/// # Errors
/// [`Error::NotFound`] when there is no such version; those of [`crate::commit::commit`].
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
                work.change.restore = Some(self.version);
            }
            Ok(())
        })
    }
}
