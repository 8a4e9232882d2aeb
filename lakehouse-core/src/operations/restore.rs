//! Makes an older version current again, as a new commit.

use futures::future::BoxFuture;

use super::work::{Verb, Work, run};
use super::{Options, Report};
use crate::error::Result;
use crate::format::Handle;
use crate::model::{At, OperationKind, Version};

/// Makes an older version current again, as a new commit: the versions in between stay in the
/// history. Restoring the newest version commits nothing.
///
/// # Errors
/// [`Error::NotFound`](crate::Error::NotFound) when there is no such version; those of [`crate::commit::commit`].
pub async fn restore(handle: &Handle, at: &At, options: &Options) -> Result<Report> {
    // "-1" and times mean what they meant when the command was given, whatever is committed meanwhile.
    let version = handle.format.snapshot(at).await?.version;
    run(handle, options, &mut Restore { version }).await
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
