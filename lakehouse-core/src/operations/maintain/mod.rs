//! All that a table needs from time to time, in an order, within one budget, so that it can be run blind every night.
//!
//! ```text
//! policy    what is to be done, as a file says it
//! written   sizes and times in such a file
//! report    what became of each step
//! ```
//!
//! There is no plan of its own: each step is the verb of its name, which decides what is to be done. Here is only the
//! order, who gets how much of the time, and what still runs when something fails:
//!
//! | what happened | what is not run any more |
//! | --- | --- |
//! | nobody knows whether a commit landed | anything |
//! | files or metadata are damaged: invalid, missing, not to be decoded | expire and vacuum: a repair may need what they take |
//! | a conflict, a store that failed, a limit, access denied | nothing: each verb looks for itself, and a vacuum that cannot learn the store's time does nothing |
//! | the table's owner forbids it, or the format has no such thing | nothing: the step is left out |

mod policy;
mod report;
mod written;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::compact::{GroupOutcome, compact};
use super::expire::{Expire, expire};
use super::manifests::rewrite_manifests;
use super::options::Options;
use super::vacuum::{FLOOR_MS, Vacuum, vacuum};
use crate::commit::newest;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{CheckpointKind, Retention, Snapshot};
use crate::store::clock;

pub use policy::{CompactPolicy, ExpirePolicy, PlainPolicy, Policy, VacuumPolicy};
pub use report::{Maintained, Step, StepOutcome, StepReport};
pub use written::{Bytes, Time};

/// Table properties by which an owner says how long versions are kept, and files. What one table says of itself counts
/// more than a policy for many.
const VERSIONS_KEPT: [&str; 2] = ["history.expire.max-snapshot-age-ms", "delta.logRetentionDuration"];
const FILES_KEPT: [&str; 1] = ["delta.deletedFileRetentionDuration"];

/// Is told of every step, and says whether to go on.
pub type ToldStep<'a> = dyn FnMut(&StepReport) -> ControlFlow<()> + Send + 'a;

/// Compacts, puts the metadata in order (manifests or a checkpoint), lets versions expire, vacuums: main, each step as its
/// verb does it. What is good already is left alone: a second run does nothing. Writers, readers and other maintenance may
/// be at work.
///
/// The time of the policy counts over all steps: compaction begins no group after three quarters of it, and manifests or a
/// checkpoint are not begun when it is over. Expire and vacuum are begun in any case, so that space is freed however much
/// there is to compact. What is begun is finished; what is left the report says, and the next run does it.
///
/// No version goes that was current within the last 48 hours (twice the lease), or within the time that the table itself
/// says; no file that was written within 48 hours.
///
/// A step that fails is part of the report, and so is what is not run for it (see the module). On a dry run nothing is
/// written: each step tells what it would do to the table as it is now. Of the options, `dry_run` and `max_attempts`
/// count.
///
/// # Errors
/// [`Error::Invalid`] for a policy that makes no sense; [`Error::Unsupported`] when the table cannot be written; those of
/// reading its metadata. Nothing was done then.
pub fn maintain<'a>(
    handle: &'a Handle,
    policy: &'a Policy,
    options: &'a Options,
    told: &'a mut ToldStep<'_>,
) -> BoxFuture<'a, Result<Maintained>> {
    Box::pin(async move {
        policy.check()?;
        let started_ms = clock::now_ms();
        let snapshot = newest(handle, None).await?;
        handle.format.check_writable(&snapshot)?;
        let metadata = match handle.format.upkeep(&snapshot).await?.log {
            Some(_) => Step::Checkpoint,
            None => Step::RewriteManifests,
        };
        let mut run = Run {
            handle,
            policy,
            options: Options {
                dry_run: options.dry_run,
                max_attempts: options.max_attempts,
                memory_limit: policy
                    .compact
                    .memory_limit
                    .map(|size| usize::try_from(size.0).unwrap_or(usize::MAX)),
                ..Options::default()
            },
            started_ms,
            bar: None,
            steps: Vec::new(),
        };
        for step in [Step::Compact, metadata, Step::Expire, Step::Vacuum] {
            let report = run.step(step).await;
            let go_on = told(&report);
            run.steps.push(report);
            if go_on.is_break() {
                run.bar = Some(Bar::All("it was told to stop".to_owned()));
            }
        }
        let version = match newest(handle, None).await {
            Ok(newest) => newest.version,
            // The steps are done, and their report is worth more.
            Err(error) => {
                tracing::warn!(%error, "the newest version could not be loaded after maintenance");
                snapshot.version
            }
        };
        Ok(Maintained {
            version,
            dry_run: options.dry_run,
            steps: run.steps,
        })
    })
}

/// Why later steps are not run.
enum Bar {
    All(String),
    Deleting(String),
}

/// What a verb did, or would do.
#[derive(Default)]
struct Did {
    something: bool,
    figures: BTreeMap<&'static str, u64>,
    left: BTreeMap<String, u64>,
    /// Files could not be read, though others could.
    damaged: bool,
}

impl Did {
    fn new(something: bool, figures: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        Self {
            something,
            figures: figures.into_iter().collect(),
            ..Self::default()
        }
    }
}

struct Run<'a> {
    handle: &'a Handle,
    policy: &'a Policy,
    options: Options,
    started_ms: i64,
    bar: Option<Bar>,
    steps: Vec<StepReport>,
}

impl Run<'_> {
    async fn step(&mut self, step: Step) -> StepReport {
        let mut did = Did::default();
        let outcome = match self.left_out(step) {
            Some(why) => StepOutcome::Skipped(why),
            None => match self.run(step).await {
                Ok(done) => {
                    did = done;
                    if did.damaged {
                        self.bar = Some(damage(step));
                    }
                    match (did.something, self.options.dry_run, did.left.keys().next()) {
                        (true, true, _) => StepOutcome::Planned,
                        (true, false, _) => StepOutcome::Done,
                        (false, _, Some(why)) => StepOutcome::Skipped(why.clone()),
                        (false, _, None) => StepOutcome::Nothing,
                    }
                }
                Err(Error::Unsupported { what, .. }) => StepOutcome::Skipped(what),
                Err(error) => {
                    self.bar_after(step, &error);
                    StepOutcome::Failed(Arc::new(error))
                }
            },
        };
        StepReport {
            step,
            outcome,
            figures: did.figures,
            left: did.left,
        }
    }

    /// Why a step is not begun, if it is not.
    fn left_out(&self, step: Step) -> Option<String> {
        let policy = self.policy;
        let enabled = match step {
            Step::Compact => policy.compact.enabled,
            Step::RewriteManifests => policy.rewrite_manifests.enabled,
            Step::Checkpoint => policy.checkpoint.enabled,
            Step::Expire => policy.expire.enabled,
            Step::Vacuum => policy.vacuum.enabled,
        };
        let deletes = matches!(step, Step::Expire | Step::Vacuum);
        match &self.bar {
            _ if !enabled => Some("the policy says so".to_owned()),
            Some(Bar::All(why)) => Some(why.clone()),
            Some(Bar::Deleting(why)) if deletes => Some(why.clone()),
            _ if !deletes && step != Step::Compact && self.is_over() => {
                Some("the time that was given is over".to_owned())
            }
            _ => None,
        }
    }

    fn is_over(&self) -> bool {
        let passed = clock::now_ms().saturating_sub(self.started_ms).max(0);
        self.policy.max_time.is_some_and(|most| passed >= most.millis())
    }

    fn bar_after(&mut self, step: Step, error: &Error) {
        match error {
            Error::CommitUnknown { commit_id, .. } => {
                self.bar = Some(Bar::All(format!(
                    "commit {commit_id} may or may not have landed: look at the history first"
                )));
            }
            Error::Invalid { .. } | Error::NotFound { .. } | Error::Engine(_) => {
                self.bar = Some(damage(step));
            }
            _ => {}
        }
    }

    async fn run(&self, step: Step) -> Result<Did> {
        match step {
            Step::Compact => self.compact().await,
            Step::RewriteManifests => self.rewrite_manifests().await,
            Step::Checkpoint => self.checkpoint().await,
            Step::Expire => self.expire().await,
            Step::Vacuum => self.vacuum().await,
        }
    }

    async fn compact(&self) -> Result<Did> {
        let share = |most: Time| most.0 / 4 * 3;
        let share: Option<Duration> = self.policy.max_time.map(share);
        let what = self.policy.compaction(share)?;
        let report = compact(self.handle, &what, &self.options).await?;
        let (mut figures, mut left) = (BTreeMap::new(), BTreeMap::new());
        for group in &report.groups {
            if let GroupOutcome::Skipped(why) = &group.outcome {
                *left.entry(why.clone()).or_default() += group.files;
                continue;
            }
            for (name, value) in [
                ("files", group.files),
                ("bytes", group.bytes),
                ("rows", group.rows),
                ("masked_rows", group.masked_rows),
                ("new_files", group.expected_files),
            ] {
                *figures.entry(name).or_default() += value;
            }
        }
        if report.committed {
            figures.insert("new_files", report.metric("num_target_files_added"));
        }
        Ok(Did {
            something: !figures.is_empty(),
            figures,
            left,
            damaged: report.metric("num_groups_damaged") > 0,
        })
    }

    async fn rewrite_manifests(&self) -> Result<Did> {
        let report = rewrite_manifests(self.handle, &self.options).await?;
        let found = report.manifests;
        let figures = [("manifests", found.replaced), ("new_manifests", found.created)];
        Ok(Did::new(found.replaced > 0, figures))
    }

    async fn checkpoint(&self) -> Result<Did> {
        let newest = newest(self.handle, None).await?;
        let tail = self.handle.format.upkeep(&newest).await?.log;
        let Some(tail) = tail.filter(|tail| tail.is_due()) else {
            return Ok(Did::default());
        };
        let figures = [("log_entries", tail.entries)];
        if self.options.dry_run {
            return Ok(Did::new(true, figures));
        }
        let done = self
            .handle
            .format
            .checkpoint(&newest, CheckpointKind::Auto)
            .await?;
        Ok(Did::new(!done.already, figures))
    }

    async fn expire(&self) -> Result<Did> {
        let newest = newest(self.handle, None).await?;
        let what = self.expiry(&newest)?;
        let report = expire(self.handle, &what, &self.options).await?;
        let figures = [
            ("versions", report.expired.len() as u64),
            ("refs", report.refs_dropped.len() as u64),
            ("metadata_files", report.files.files.len() as u64),
            ("bytes", report.files.bytes),
        ];
        Ok(Did::new(figures.iter().any(|(_, count)| *count > 0), figures))
    }

    /// Which versions go: never those of the last 48 hours, and not earlier than the table itself says.
    fn expiry(&self, snapshot: &Snapshot) -> Result<Expire> {
        let asked = &self.policy.expire;
        let own = self.handle.format.retention(snapshot, Retention::default())?;
        let age_ms = match asked.older_than {
            Some(time) if !says(snapshot, &VERSIONS_KEPT) => Some(time.millis()),
            _ => own.max_snapshot_age_ms,
        };
        let least = own.min_snapshots_to_keep.unwrap_or(1).max(1).unsigned_abs();
        Ok(Expire {
            older_than_ms: age_ms.map(|age| age.max(FLOOR_MS)),
            retain_last: Some(asked.retain_last.unwrap_or(1).max(least)),
        })
    }

    async fn vacuum(&self) -> Result<Did> {
        let asked = &self.policy.vacuum;
        let newest = newest(self.handle, None).await?;
        let older_than = asked.older_than.filter(|_| !says(&newest, &FILES_KEPT));
        let what = Vacuum {
            older_than_ms: older_than.map(Time::millis),
            keep_versions: asked.keep_versions.clone(),
            dry_run: self.options.dry_run,
            quarantine: asked.quarantine.clone(),
            list: false,
            adopted: false,
            unsafe_no_writers: asked.unsafe_no_writers,
        };
        let total = vacuum(self.handle, &what).await?.total();
        Ok(Did::new(
            total.count > 0,
            [("files", total.count), ("bytes", total.bytes)],
        ))
    }
}

/// Whether the table has one of these properties.
fn says(snapshot: &Snapshot, properties: &[&str]) -> bool {
    properties
        .iter()
        .any(|name| snapshot.properties.contains_key(*name))
}

fn damage(step: Step) -> Bar {
    Bar::Deleting(format!(
        "{} met damage, and a repair may need what would go: see lake check",
        step.name()
    ))
}
