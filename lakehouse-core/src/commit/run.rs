//! The commit loop.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::conflict::{self, Verdict};
use super::sound::assert_sound;
use super::{Isolation, check};
use crate::error::{Error, Result};
use crate::format::{Handle, Outcome};
use crate::model::{At, Begun, Change, CommitId, LEASE, MAIN, MetadataChange, RefKind, Snapshot, Token};
use crate::planted::{self, Bug};
use crate::store::clock;

/// Longest pause after the first lost race; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// Longest pause of all.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);

/// How to commit.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// How strictly reads are protected.
    pub isolation: Isolation,
    /// Publish attempts before giving up with a conflict.
    pub max_attempts: u32,
    /// Idempotency key: a second commit with the same key does nothing.
    pub token: Option<Token>,
    /// The branch that the commit moves; `None` for main.
    pub branch: Option<String>,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            max_attempts: 50,
            token: None,
            branch: None,
        }
    }
}

/// How an operation ended without an error.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The table as the operation left it (the base, if nothing was committed).
    pub snapshot: Arc<Snapshot>,
    /// The change that landed; `None` when there was nothing to do or the token was already recorded.
    pub change: Option<Arc<Change>>,
    /// The version that already carried the idempotency key.
    pub already: Option<i64>,
    /// Publish attempts made.
    pub attempts: u32,
}

/// What an operation does: it turns the newest snapshot into a change.
pub trait Plan: Send {
    /// Plans on `base`: stages files and masks, and describes the change, which carries `id` as its
    /// [`Change::commit_id`]. `None`: nothing to do. Called again, with another id, when a winner makes
    /// the plan wrong.
    ///
    /// # Errors
    /// Whatever stops the operation; what was staged until then is for the plan to remove.
    fn plan<'a>(&'a mut self, base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>>;

    /// Fits the change that was planned last, on `base`, to `newest`, without planning all of it again:
    /// asked when a rule on files or rows (R1 to R3) fires. What comes back is published over `newest`
    /// and keeps the commit id. `None`: it has to be planned again.
    ///
    /// # Errors
    /// Whatever stops the operation; what was staged here is for the plan to remove, what was staged
    /// before is not.
    fn adapt<'a>(
        &'a mut self,
        _change: &'a Change,
        _base: &'a Arc<Snapshot>,
        _newest: &'a Arc<Snapshot>,
        _winners: &'a [Change],
    ) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move { Ok(None) })
    }
}

/// Runs an operation: plans on the newest snapshot and publishes, over every winner that the plan is
/// compatible with, and on a new plan otherwise. Staged files of abandoned plans are deleted after
/// certain failures only.
///
/// # Errors
/// [`Error::Conflict`] after the allowed attempts, with nothing committed;
/// [`Error::CommitUnknown`] with nothing deleted; whatever the plan returns.
pub async fn commit(handle: &Handle, options: &CommitOptions, plan: &mut dyn Plan) -> Result<Committed> {
    commit_within(LEASE, handle, options, plan).await
}

/// The same with another lease.
pub(super) async fn commit_within(
    lease: Duration,
    handle: &Handle,
    options: &CommitOptions,
    plan: &mut dyn Plan,
) -> Result<Committed> {
    let run = Run {
        handle,
        options,
        lease,
    };
    let mut base = Base::newest(handle, options).await?;
    let mut attempts = 0;
    if let Some(done) = run.recorded(&base.snapshot, attempts).await? {
        return Ok(done);
    }
    loop {
        let planned = plan
            .plan(Arc::clone(&base.snapshot), clock::new_commit_id())
            .await?;
        let Some(mut change) = planned else {
            return Ok(nothing(base.snapshot, attempts));
        };
        if change.is_empty() {
            run.clean_up(&change).await;
            return Ok(nothing(base.snapshot, attempts));
        }
        change.token = change.token.or_else(|| options.token.clone());
        let table = handle.store.location();
        if let Err(unsound) = assert_sound(table, &base.snapshot, &change) {
            run.clean_up(&change).await;
            return Err(unsound);
        }
        match run.publish(base, change, &mut attempts, plan).await? {
            End::Done(done) => return Ok(done),
            End::Replan(newest) => base = newest,
        }
    }
}

fn nothing(snapshot: Arc<Snapshot>, attempts: u32) -> Committed {
    Committed {
        snapshot,
        change: None,
        already: None,
        attempts,
    }
}

/// What a plan is made on.
struct Base {
    snapshot: Arc<Snapshot>,
    /// When its loading began: the lease counts from here.
    begun: Begun,
}

impl Base {
    async fn newest(handle: &Handle, options: &CommitOptions) -> Result<Self> {
        let begun = clock::begin();
        let snapshot = newest(handle, options.branch.as_deref()).await?;
        Ok(Self { snapshot, begun })
    }
}

/// The newest version of a branch, of main if `None`.
///
/// # Errors
/// [`Error::NotFound`] when there is no such branch, [`Error::Invalid`] when it is a tag; [`Error::Unsupported`]
/// where tables have no branches.
pub async fn newest(handle: &Handle, branch: Option<&str>) -> Result<Arc<Snapshot>> {
    let Some(branch) = branch.filter(|branch| *branch != MAIN) else {
        return handle.format.snapshot(&At::Latest).await;
    };
    let snapshot = handle.format.snapshot(&At::Ref(branch.to_owned())).await?;
    match snapshot.refs.get(branch) {
        Some(found) if found.kind == RefKind::Branch => Ok(snapshot),
        _ => Err(Error::invalid(
            format!("\"{branch}\" is a tag, which stays where it is"),
            handle.store.location(),
        )
        .with_hint("write to a branch; one can be made at the tag's version")),
    }
}

/// How publishing one plan ended.
enum End {
    Done(Committed),
    /// The plan was abandoned and cleaned up; plan again on this.
    Replan(Base),
}

/// How one attempt ended, once it is certain.
enum Attempt {
    Landed(Arc<Snapshot>),
    Lost,
}

struct Run<'a> {
    handle: &'a Handle,
    options: &'a CommitOptions,
    lease: Duration,
}

impl Run<'_> {
    /// Publishes one plan, over every winner that it is compatible with.
    async fn publish(
        &self,
        planned_on: Base,
        mut change: Change,
        attempts: &mut u32,
        plan: &mut dyn Plan,
    ) -> Result<End> {
        let mut base = planned_on.snapshot;
        // What the change was planned on or fitted to: it is judged against every winner since, again if need
        // be, because what it knows of files and rows is of that version.
        let mut settled = Arc::clone(&base);
        change.begun = Some(planned_on.begun);
        loop {
            if clock::since(&planned_on.begun) > self.lease {
                self.clean_up(&change).await;
                self.give_up_after(*attempts, "the files took longer to write than the lease allows")?;
                *attempts += 1;
                let base = Base::newest(self.handle, self.options).await?;
                return Ok(match self.recorded(&base.snapshot, *attempts).await? {
                    Some(done) => End::Done(done),
                    None => End::Replan(base),
                });
            }
            *attempts += 1;
            if let Attempt::Landed(snapshot) = self.attempt(&base, &change).await? {
                return Ok(End::Done(Committed {
                    snapshot,
                    change: Some(Arc::new(change)),
                    already: None,
                    attempts: *attempts,
                }));
            }
            // Lost for certain: from here on, whatever fails, the staged files are nobody's.
            match self.after_loss(&settled, &change, *attempts, plan).await {
                Ok(Next::Publish(newest)) => base = newest,
                Ok(Next::PublishAdapted(newest, adapted)) => {
                    self.clean_up(&superseded(change, &adapted)).await;
                    (base, change) = (newest, *adapted);
                    change.begun = Some(planned_on.begun);
                    settled = Arc::clone(&base);
                    if let Err(unsound) = assert_sound(self.handle.store.location(), &base, &change) {
                        self.clean_up(&change).await;
                        return Err(unsound);
                    }
                }
                Ok(Next::End(end)) => {
                    self.clean_up(&change).await;
                    return Ok(end);
                }
                Err(error) => {
                    self.clean_up(&change).await;
                    return Err(error);
                }
            }
        }
    }

    /// One attempt, and the certainty how it ended.
    async fn attempt(&self, base: &Arc<Snapshot>, change: &Change) -> Result<Attempt> {
        let format = &self.handle.format;
        let outcome = match format.publish(base, change).await {
            Ok(Outcome::Committed(snapshot)) => return Ok(Attempt::Landed(snapshot)),
            Ok(Outcome::Lost) if planted::is(Bug::LostReplyIsALoss) => return Ok(Attempt::Lost),
            other => other,
        };
        // A lost reply can make our own commit look like somebody else's: look for it first.
        match (outcome, format.find(&change.commit_id, base).await) {
            (_, Ok(Some(snapshot))) => Ok(Attempt::Landed(snapshot)),
            (Ok(Outcome::Unknown(source)), _) => {
                if planted::is(Bug::CleanedAfterUnknown) {
                    self.clean_up(change).await;
                }
                Err(self.unknown(change, source))
            }
            (Ok(_), Ok(None)) => Ok(Attempt::Lost),
            (Err(error), Ok(None)) => {
                self.clean_up(change).await;
                Err(error)
            }
            (Ok(_), Err(source)) | (Err(source), Err(_)) => Err(self.unknown(change, source)),
        }
    }

    /// What to do about the winners.
    async fn after_loss(
        &self,
        base: &Arc<Snapshot>,
        change: &Change,
        attempts: u32,
        plan: &mut dyn Plan,
    ) -> Result<Next> {
        if attempts < self.options.max_attempts {
            // Before looking at what is newest: the next attempt should follow that look at once.
            let pause = FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16));
            clock::pause(pause.min(LONGEST_PAUSE)).await;
        }
        let loaded = Base::newest(self.handle, self.options).await?;
        let newest = Arc::clone(&loaded.snapshot);
        if !planted::is(Bug::KeyNotLookedForAgain)
            && let Some(done) = self.recorded(&newest, attempts).await?
        {
            return Ok(Next::End(End::Done(done)));
        }
        let winners = if change.refs.is_empty() && change.expired.is_empty() {
            self.winners(base, &newest, change).await?
        } else {
            // Whatever they did to rows is nothing to a change of tags and branches, or of what is kept.
            Vec::new()
        };
        let verdict = self.judge(base, &newest, change, &winners)?;
        tracing::debug!(attempts, ?verdict, commit_id = %change.commit_id, "lost a race");
        match verdict {
            Verdict::Conflict(detail) => Err(self.conflict(detail)),
            Verdict::Compatible => {
                self.give_up_after(attempts, "other writers were faster every time")?;
                Ok(Next::Publish(newest))
            }
            Verdict::Replan(detail) => {
                self.give_up_after(attempts, &detail)?;
                let reshaped = winners.iter().any(|w| w.metadata != MetadataChange::default());
                if !reshaped && let Some(adapted) = plan.adapt(change, base, &newest, &winners).await? {
                    return Ok(Next::PublishAdapted(newest, Box::new(adapted)));
                }
                Ok(Next::End(End::Replan(loaded)))
            }
        }
    }

    /// What was committed since `base`.
    async fn winners(&self, base: &Snapshot, newest: &Snapshot, change: &Change) -> Result<Vec<Change>> {
        match self.handle.format.changes(base, newest).await {
            Err(Error::Conflict { detail, .. }) => match conflict::base_gone(change, &detail) {
                Verdict::Compatible => Ok(Vec::new()),
                Verdict::Replan(detail) | Verdict::Conflict(detail) => Err(self.conflict(detail)),
            },
            other => other,
        }
    }

    /// The change against every winner since `base`.
    fn judge(
        &self,
        base: &Snapshot,
        newest: &Snapshot,
        change: &Change,
        winners: &[Change],
    ) -> Result<Verdict> {
        let mut worst = Verdict::Compatible;
        for winner in winners {
            match check(base, change, winner, self.options.isolation)? {
                Verdict::Compatible => {}
                Verdict::Conflict(detail) => return Ok(Verdict::Conflict(detail)),
                replan if worst == Verdict::Compatible => worst = replan,
                Verdict::Replan(_) => {}
            }
        }
        let reshaped = winners
            .iter()
            .any(|winner| winner.metadata.schema || winner.metadata.partitioning);
        if let Some(detail) = conflict::refs_changed(base, newest, change) {
            worst = Verdict::Replan(detail);
        }
        if !change.expired.is_empty() {
            worst = Verdict::Replan("R7: other versions are to be kept by now".to_owned());
        }
        if worst == Verdict::Compatible && reshaped && !conflict::still_fits(base, newest, change) {
            worst = Verdict::Replan("R4: the new files do not fit the table's new schema".to_owned());
        }
        Ok(worst)
    }

    /// The end of an operation whose idempotency key is recorded already (rule R6).
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is a step and does not follow the last one that is recorded.
    async fn recorded(&self, newest: &Arc<Snapshot>, attempts: u32) -> Result<Option<Committed>> {
        let Some(token) = &self.options.token else {
            return Ok(None);
        };
        let format = &self.handle.format;
        if let (Some(step), Some(after)) = (token.step, token.after)
            && !planted::is(Bug::StepsInterleave)
        {
            let last = format.last_step(newest, &token.key).await?.unwrap_or(0);
            if last != step {
                return match last == after {
                    true => Ok(None),
                    false => Err(self.conflict(format!(
                        "R6: step {step} of the stream \"{}\" follows step {after}, and the last one that the table has \
                         is {last}: another run of this stream is at work, or was",
                        token.key
                    ))),
                };
            }
        }
        let already = format.find_token(newest, token).await?;
        Ok(already.map(|version| Committed {
            already: Some(version),
            ..nothing(Arc::clone(newest), attempts)
        }))
    }

    fn give_up_after(&self, attempts: u32, detail: &str) -> Result<()> {
        if attempts < self.options.max_attempts {
            return Ok(());
        }
        let times = if attempts == 1 { "attempt" } else { "attempts" };
        Err(self.conflict(format!("given up after {attempts} {times}: {detail}")))
    }

    fn conflict(&self, detail: String) -> Error {
        Error::Conflict {
            table: self.handle.store.location().to_owned(),
            detail,
        }
    }

    fn unknown(&self, change: &Change, source: Error) -> Error {
        Error::CommitUnknown {
            table: self.handle.store.location().to_owned(),
            commit_id: change.commit_id.to_string(),
            source: Box::new(source),
        }
    }

    /// Deletes what was staged for a change that certainly did not land. What cannot be deleted is left
    /// for a later clean-up: the operation's own result matters more.
    async fn clean_up(&self, change: &Change) {
        if let Err(error) = self.handle.store.delete(&change.staged).await {
            tracing::warn!(%error, commit_id = %change.commit_id, "staged files are left behind");
        }
    }
}

/// What follows a lost race.
enum Next {
    /// Publish the same change over this snapshot.
    Publish(Arc<Snapshot>),
    /// Publish this one, which was fitted to the snapshot.
    PublishAdapted(Arc<Snapshot>, Box<Change>),
    End(End),
}

/// What a change staged that the change it became does not need.
fn superseded(mut change: Change, by: &Change) -> Change {
    change.staged.retain(|path| !by.staged.contains(path));
    change
}
