//! Lets old versions go: they leave the metadata, and so do the files of the metadata that only they needed.
//!
//! Which versions go is decided here, by one rule for every format (`rule.rs`); a format only does it. Where the metadata lists
//! versions that is a commit like others, decided again over every winner. What only the files of the log held is
//! deleted after it. No data file is touched: those that no version needs any more are for vacuum.

mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Options;
use crate::commit::{CommitOptions, Plan, commit, newest};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{
    Change, CleanedUp, Cleanup, CommitId, FLOOR_MS, OperationKind, RefChange, Retained, Retention, Snapshot,
    Version,
};
use crate::store::clock;
use rule::{Decision, Policy, decide};

/// Which versions go. What a branch or tag says itself comes first, then this, then the table's properties
/// (Iceberg `history.expire.max-snapshot-age-ms`, `history.expire.min-snapshots-to-keep`, `history.expire.max-ref-age-ms`; Delta
/// `delta.logRetentionDuration`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expire {
    /// Versions that are as old as this, in milliseconds since the next one took their place; `None`: as the table's
    /// properties say, else five days (Iceberg), thirty days (Delta).
    pub older_than_ms: Option<i64>,
    /// How many versions of each branch stay, however old; `None`: as the table's properties say, else one.
    pub retain_last: Option<u32>,
}

/// What went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpireReport {
    /// The newest version of main.
    pub version: Version,
    /// Versions that are gone (on a dry run: would be), oldest first as far as numbers tell.
    pub expired: Vec<Version>,
    /// How many are left.
    pub kept: u64,
    /// Tags and branches that are gone.
    pub refs_dropped: Vec<String>,
    /// Versions that would be gone if their names were older than [`FLOOR_MS`].
    pub too_young: u64,
    /// Files of the metadata that are gone.
    pub files: CleanedUp,
    /// Whether versions, tags or branches went. False when there was nothing to do, and on a dry run.
    pub committed: bool,
    /// Nothing was done because nothing was to be.
    pub dry_run: bool,
    /// Publish attempts made.
    pub attempts: u32,
}

/// Lets versions go that are old enough, by the store's clock; a dry run writes nothing to ask for it, and takes this
/// machine's, or the time of the newest file of a version if that is later. Of the options, `dry_run` and
/// `max_attempts` count. Data files stay.
///
/// # Errors
/// [`Error::Invalid`] for a policy that cannot be, and for a property that says how long versions are kept and cannot be
/// read; [`Error::Unsupported`] when the table cannot be written; those of [`commit`], and of [`crate::format::Format::clean_up`].
pub async fn expire(handle: &Handle, what: &Expire, options: &Options) -> Result<ExpireReport> {
    expire_with(handle, what, options, Files::Clean).await
}

/// What becomes of the files of the metadata that nothing needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Those that are old enough go.
    Clean,
    /// All stay: nobody looks for them.
    Leave,
}

/// As [`expire`]; looking for files that can go takes a listing, which who expires often does now and then.
pub(super) async fn expire_with(
    handle: &Handle,
    what: &Expire,
    options: &Options,
    files: Files,
) -> Result<ExpireReport> {
    check(what)?;
    // The store's clock, which is the one that files have their age from. Asking takes a write.
    let store_ms = match options.dry_run {
        true => None,
        false => {
            handle
                .format
                .check_writable(newest(handle, None).await?.as_ref())?;
            Some(handle.store.clock_ms().await?)
        }
    };
    let mut expiry = Expiry {
        handle,
        what,
        store_ms,
        floor_ms: i64::MIN,
        decision: Decision::default(),
    };
    let (snapshot, committed, attempts) = if options.dry_run {
        let base = newest(handle, None).await?;
        expiry.plan(Arc::clone(&base), clock::new_commit_id()).await?;
        (base, false, 0)
    } else {
        let options = CommitOptions {
            max_attempts: options.max_attempts,
            ..CommitOptions::default()
        };
        let done = commit(handle, &options, &mut expiry).await?;
        (done.snapshot, done.change.is_some(), done.attempts)
    };
    let (decision, floor_ms) = (expiry.decision, expiry.floor_ms);
    let cleanup = Cleanup {
        kept: decision.kept,
        not_after_ms: floor_ms,
        dry_run: options.dry_run,
    };
    let files = match files {
        Files::Clean => handle.format.clean_up(&snapshot, &cleanup).await?,
        Files::Leave => CleanedUp::default(),
    };
    Ok(ExpireReport {
        version: snapshot.version,
        expired: decision.expired.into_iter().collect(),
        kept: cleanup.kept.len() as u64,
        refs_dropped: decision.dropped,
        too_young: decision.too_young,
        files,
        committed,
        dry_run: options.dry_run,
        attempts,
    })
}

fn check(what: &Expire) -> Result<()> {
    let wrong = if what.older_than_ms.is_some_and(|age| age < 0) {
        "an age is zero or more"
    } else if what.retain_last == Some(0) {
        "at least one version stays: the newest"
    } else {
        return Ok(());
    };
    Err(Error::invalid(wrong, "what is to expire")
        .with_hint("say for instance: older than 7d, retain the last 3"))
}

/// Now by this machine's clock, but not before the newest file of a version.
fn by_own_clock(versions: &[Retained]) -> i64 {
    // A file that no listing has told of yet has no time.
    let told = versions.iter().filter_map(|one| one.named_ms);
    let newest = told.filter(|written| *written < i64::MAX).max();
    clock::now_ms().max(newest.unwrap_or(i64::MIN))
}

/// The operation as the commit loop sees it.
struct Expiry<'a> {
    handle: &'a Handle,
    what: &'a Expire,
    /// Now by the store's clock; `None` where nothing may be written to ask for it.
    store_ms: Option<i64>,
    /// Of the last plan: names of versions written later stay.
    floor_ms: i64,
    /// Of the last plan.
    decision: Decision,
}

impl Plan for Expiry<'_> {
    fn plan<'a>(&'a mut self, base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            let format = &self.handle.format;
            format.check_writable(&base)?;
            let retain = self.what.retain_last;
            let asked = Retention {
                max_ref_age_ms: None,
                min_snapshots_to_keep: retain.map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
                max_snapshot_age_ms: self.what.older_than_ms,
            };
            let versions = format.versions(&base).await?;
            let now_ms = self.store_ms.unwrap_or_else(|| by_own_clock(&versions));
            self.floor_ms = now_ms.saturating_sub(FLOOR_MS);
            let policy = Policy {
                now_ms,
                retention: format.retention(&base, asked)?,
                floor_ms: self.floor_ms,
            };
            self.decision = decide(&versions, &base.refs, base.version, &policy);
            let mut change = Change::new(OperationKind::Expire, id);
            change.data_change = false;
            change.expired.clone_from(&self.decision.expired);
            for name in &self.decision.dropped {
                let before = base.refs.get(name).copied();
                change
                    .refs
                    .insert(name.clone(), RefChange { before, after: None });
            }
            Ok((!change.is_empty()).then_some(change))
        })
    }
}
