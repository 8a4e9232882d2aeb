//! Writes a table's manifests anew, by partition and in its target size: no file changes, readers plan sooner.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Options;
use crate::commit::{CommitOptions, Plan, commit, newest};
use crate::error::Result;
use crate::format::Handle;
use crate::model::{Change, CommitId, OperationKind, Regrouping, Snapshot, Version};
use crate::store::clock;

/// What became of the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestsReport {
    /// The version of the table after it.
    pub version: Version,
    /// Manifests kept, replaced and created: of the latter, what was planned.
    pub manifests: Regrouping,
    /// Whether it made that version. False when all were good, and on a dry run.
    pub committed: bool,
    /// Nothing was done because nothing was to be.
    pub dry_run: bool,
    /// Publish attempts made.
    pub attempts: u32,
}

/// Writes manifests anew where there are more than the table's target size (`commit.manifest.target-size-bytes`) asks for. A second
/// run does nothing. Of the options, `dry_run`, `max_attempts` and `branch` count.
///
/// # Errors
/// [`crate::Error::Unsupported`] where the format has none; those of [`commit`].
pub async fn rewrite_manifests(handle: &Handle, options: &Options) -> Result<ManifestsReport> {
    let mut plan = Rewrite {
        handle,
        found: Regrouping::default(),
    };
    let branch = options.branch.clone();
    let (snapshot, committed, attempts) = if options.dry_run {
        let base = newest(handle, branch.as_deref()).await?;
        plan.plan(Arc::clone(&base), clock::new_commit_id()).await?;
        (base, false, 0)
    } else {
        let options = CommitOptions {
            max_attempts: options.max_attempts,
            branch,
            ..CommitOptions::default()
        };
        let done = commit(handle, &options, &mut plan).await?;
        (done.snapshot, done.change.is_some(), done.attempts)
    };
    Ok(ManifestsReport {
        version: snapshot.version,
        manifests: plan.found,
        committed,
        dry_run: options.dry_run,
        attempts,
    })
}

struct Rewrite<'a> {
    handle: &'a Handle,
    /// Of the last plan.
    found: Regrouping,
}

impl Plan for Rewrite<'_> {
    fn plan<'a>(&'a mut self, base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            let format = &self.handle.format;
            format.check_writable(&base)?;
            self.found = format.regrouping(&base).await?;
            let mut change = Change::new(OperationKind::RewriteManifests, id);
            change.data_change = false;
            change.manifests = true;
            Ok((self.found.replaced > 0).then_some(change))
        })
    }
}
