//! The whole run of a compaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};

use super::plan::{Group, Rules, commits, partition};
use super::run::{Batch, Course, Part};
use super::{Compact, CompactedGroup, GroupOutcome, ordered};
use crate::commit::newest;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{DataFile, OperationKind, Prune, Snapshot};
use crate::operations::cluster::{Order, Ordered};
use crate::operations::delete::understood;
use crate::operations::summary::Summary;
use crate::operations::work::{Work, run};
use crate::operations::{Options, Report};
use crate::scan::memory;
use crate::store::clock;

/// Rounds at most. In each of them the small files of a partition become at most half as many, if nobody adds others;
/// who does must not keep the run going for ever.
pub(super) const MOST_ROUNDS: usize = 10;

/// Rewrites, per partition, files that are small (below three quarters of the target size) where that makes fewer of
/// them, and files with masked rows; what exactly, [`Compact::strategy`] says. Rows, their order within a file and
/// their ids stay. What is already good is left alone: a second run does nothing.
///
/// Files are rewritten in groups ([`Compact::max_rewrite`]), one or several at a time
/// ([`Compact::max_concurrent_groups`]). Each commits on its own, small ones together, so that what
/// is done stays done, whatever happens to the rest: a group whose files are damaged, or that others are faster than
/// every time, is skipped ([`Report::groups`] says why). Rows that are deleted or updated while their file is being
/// rewritten are masked in the new file. An idempotency key is recorded with the last of the planned commits: a run
/// that was stopped before can be run again with the same key, and goes on.
///
/// On a dry run nothing is written at all: [`Report::groups`] tells what would be.
///
/// # Errors
/// [`Error::Invalid`] for settings or a predicate that make no sense; if no group was committed, what stopped the first
/// of them; those of [`crate::commit::commit`], which end the run.
pub async fn compact(handle: &Handle, compact: &Compact, options: &Options) -> Result<Report> {
    compact.check()?;
    let mut survey = Survey::new(handle, compact, options).await?;
    let mut report = empty_report(options, survey.snapshot.version);
    if let Some(token) = &options.token {
        report.already = handle.format.find_token(&survey.snapshot, token).await?;
        if report.already.is_some() {
            return Ok(report);
        }
    }
    let mut all = Rounds {
        handle,
        compact,
        options,
        report,
        started_ms: clock::now_ms(),
        bytes_left: compact.max_bytes.unwrap_or(u64::MAX),
        failed: None,
        recorded: false,
    };
    survey.list(compact).await?;
    let seen = std::mem::take(&mut survey.summary);
    all.add(seen.metrics, seen.phases);
    let rules = survey.rules.clone();
    let ordered = survey.order.is_some();
    all.report.order = survey.ordered();
    let groups = survey.groups(&rules).await?;
    if options.dry_run {
        all.foresee(&survey, groups);
        return Ok(all.report);
    }
    let mut small = survey.small;
    let mut snapshot = survey.snapshot;
    let (mut rules, mut groups) = (rules, groups);
    for round in 0..MOST_ROUNDS {
        let left = all
            .round(&snapshot, &rules, groups, &mut small, round == 0)
            .await?;
        let again = |place| {
            small
                .get(place)
                .is_some_and(|count| *count >= rules.min_input_files)
        };
        // New files of another partitioning may come to lie among files that are in order.
        let again = left.written.iter().any(again) || (ordered && !left.written.is_empty());
        let nothing_left = left.changed.is_empty() && !again;
        if nothing_left || all.is_over() {
            break;
        }
        let mut survey = Survey::new(handle, compact, options).await?;
        survey.list(compact).await?;
        rules = survey.rules.for_the_rest();
        groups = survey.groups(&rules).await?;
        let is_left = |place| left.written.contains(&place) || left.changed.contains(&place);
        groups.retain(|group| group.files.iter().any(|file| is_left(partition(file))));
        (small, snapshot) = (survey.small, survey.snapshot);
        if groups.is_empty() {
            break;
        }
    }
    if ordered && all.report.committed {
        let mut survey = Survey::new(handle, compact, options).await?;
        survey.list(compact).await?;
        if let (Some(told), Some(now)) = (&mut all.report.order, survey.ordered()) {
            told.after = Some(now.before);
        }
    }
    all.finish()
}

/// A partition: its partitioning and values.
type Place = (i32, Vec<ScalarValue>);

/// What a table is like before it is compacted.
struct Survey {
    work: Work,
    /// The order that rows shall lie in.
    order: Option<Order>,
    snapshot: Arc<Snapshot>,
    rules: Rules,
    files: Vec<DataFile>,
    /// Small files by partition.
    small: HashMap<Place, usize>,
    summary: Summary,
}

impl Survey {
    async fn new(handle: &Handle, compact: &Compact, options: &Options) -> Result<Self> {
        let snapshot = newest(handle, options.branch.as_deref()).await?;
        handle.format.check_writable(&snapshot)?;
        let id = clock::new_commit_id();
        let mut work = Work::new(handle, options, OperationKind::Compact, Arc::clone(&snapshot), id);
        work.begin("plan");
        work.settings.for_lasting_files(compact.target_file_bytes);
        let target = work.settings.target_file_bytes(&snapshot.properties)?;
        let order = Order::of(&work, &compact.order).await?;
        Ok(Self {
            order,
            rules: Rules::new(compact, target, snapshot.spec_id),
            work,
            snapshot,
            files: Vec::new(),
            small: HashMap::new(),
            summary: Summary::default(),
        })
    }

    /// The groups that are worth it; the list of files is used up.
    async fn groups(&mut self, rules: &Rules) -> Result<Vec<Group>> {
        let files = std::mem::take(&mut self.files);
        match &self.order {
            Some(order) => ordered::groups(&self.work.handle, &self.snapshot, rules, order, files).await,
            None => Ok(rules.groups(files)),
        }
    }

    /// How far the files overlap in the order.
    fn ordered(&self) -> Option<Ordered> {
        let order = self.order.as_ref()?;
        Some(Ordered {
            order: order.of_files.name.clone(),
            before: order.overlaps(&self.snapshot, &self.files),
            after: None,
        })
    }

    async fn list(&mut self, compact: &Compact) -> Result<()> {
        let prune = match &compact.predicate {
            Some(predicate) => {
                let predicate = understood(&self.work, predicate)?;
                Prune::matching(predicate, Arc::clone(&self.snapshot.schema))?
            }
            None => Prune::everything(),
        };
        self.files = self.work.list(&Arc::new(prune)).await?;
        for file in self.files.iter().filter(|file| self.rules.is_small(file)) {
            *self.small.entry(partition(file)).or_default() += 1;
        }
        self.summary = std::mem::take(&mut self.work.summary);
        self.summary.end();
        Ok(())
    }
}

fn empty_report(options: &Options, version: i64) -> Report {
    Report {
        operation: OperationKind::Compact.name(),
        version,
        committed: false,
        already: None,
        dry_run: options.dry_run,
        attempts: 0,
        plans: 1,
        metrics: Default::default(),
        files: Vec::new(),
        columns_added: Vec::new(),
        columns_widened: Vec::new(),
        changes: Vec::new(),
        phases: Vec::new(),
        groups: Vec::new(),
        order: None,
    }
}

struct Rounds<'a> {
    handle: &'a Handle,
    compact: &'a Compact,
    options: &'a Options,
    report: Report,
    started_ms: i64,
    bytes_left: u64,
    /// What stopped the first group that was stopped.
    failed: Option<Error>,
    /// A commit has recorded the idempotency key.
    recorded: bool,
}

/// The partitions that a round has left something in.
#[derive(Default)]
struct Left {
    /// They got new files.
    written: HashSet<Place>,
    /// Groups of them were not worth it any more, because others had changed their files.
    changed: HashSet<Place>,
}

impl Rounds<'_> {
    /// Rewrites groups that were planned on `snapshot`. `small` counts the small files of each partition, and then those
    /// that are left of them or new.
    async fn round(
        &mut self,
        snapshot: &Arc<Snapshot>,
        rules: &Rules,
        groups: Vec<Group>,
        small: &mut HashMap<Place, usize>,
        first: bool,
    ) -> Result<Left> {
        let groups = self.affordable(snapshot, rules, groups, first);
        // Whatever becomes of these: what others add meanwhile is for the next run.
        for file in groups.iter().flat_map(|group| &group.files) {
            if let Some(count) = small.get_mut(&partition(file)).filter(|_| rules.is_small(file)) {
                *count = count.saturating_sub(1);
            }
        }
        let concurrent = self.compact.max_concurrent_groups.unwrap_or(1);
        let queue = commits(groups, rules.max_rewrite, concurrent);
        let concurrent = concurrent.min(queue.len()).max(1);
        let mut course = Course::new(Arc::clone(snapshot), queue.into());
        let mut left = Left::default();
        let mut running: JoinSet<Ended> = JoinSet::new();
        let mut stop: Option<Error> = None;
        loop {
            if self.is_over() {
                for group in course.rest() {
                    self.skip(snapshot, rules, &group, "the time that was given is over");
                }
            }
            let is_last = course.len() == 1 && self.options.token.is_some() && !self.recorded;
            // The key is recorded once all else is done.
            let may_begin = running.is_empty() || (running.len() < concurrent && !is_last);
            if stop.is_none() && may_begin {
                match course.next(self.handle, self.options.branch.as_deref()).await {
                    Ok(None) => {}
                    Ok(Some(part)) => {
                        let mut options = self.options.clone();
                        options.token.take_if(|_| !is_last);
                        let one = commit(
                            self.handle.clone(),
                            self.compact.clone(),
                            options,
                            part,
                            concurrent,
                        );
                        if concurrent > 1 {
                            running.spawn(clock::inherited(one));
                            continue;
                        }
                        stop = self.ended(snapshot, rules, &mut course, &mut left, small, one.await);
                        continue;
                    }
                    Err(error) => stop = Some(error),
                }
            }
            match running.join_next().await {
                None => break,
                Some(Ok(ended)) => {
                    let error = self.ended(snapshot, rules, &mut course, &mut left, small, ended);
                    stop = stop.or(error);
                }
                Some(Err(error)) => stop = stop.or(Some(broken(error))),
            }
        }
        match stop {
            Some(error) => Err(error),
            None => Ok(left),
        }
    }

    /// Takes in how a commit ended; what stops the run is returned.
    fn ended(
        &mut self,
        snapshot: &Snapshot,
        rules: &Rules,
        course: &mut Course,
        left: &mut Left,
        small: &mut HashMap<Place, usize>,
        ended: Ended,
    ) -> Option<Error> {
        let done = match ended.done {
            Ok(done) => done,
            Err(error) if is_of_the_groups(&error) => {
                self.stopped(snapshot, rules, course, ended.part, error);
                return None;
            }
            Err(error) => return Some(error),
        };
        let (committed, already) = (done.committed, done.already);
        self.recorded |= committed && ended.with_key;
        let lost = ended.gone.iter().flat_map(|group| &group.lost);
        left.changed.extend(lost.map(partition));
        if committed {
            course.committed(&ended.part, done.version, done.attempts);
        }
        let outcome = match committed {
            true => GroupOutcome::Committed(done.version),
            false => GroupOutcome::Skipped("another run with the same idempotency key was faster".to_owned()),
        };
        for group in &ended.gone {
            self.skip(
                snapshot,
                rules,
                group,
                "other commits rewrote or removed its files meanwhile",
            );
        }
        for group in &ended.rewritten {
            self.tell(group.report(rules, snapshot, outcome.clone()));
        }
        self.count("num_target_rows_carried", ended.carried);
        self.merge(done);
        if already.is_some() {
            // It was the last one.
            course.rest();
        }
        if committed {
            for (place, bytes) in ended.written {
                if rules.is_small_size(bytes) {
                    *small.entry(place.clone()).or_default() += 1;
                }
                left.written.insert(place);
            }
        }
        None
    }

    /// The groups that the budget has room for.
    fn affordable(
        &mut self,
        snapshot: &Snapshot,
        rules: &Rules,
        groups: Vec<Group>,
        first: bool,
    ) -> Vec<Group> {
        if self.compact.max_bytes.is_none() {
            return groups;
        }
        let (within, beyond) = rules.within(groups, self.bytes_left);
        self.bytes_left -= within.iter().map(Group::bytes).sum::<u64>();
        // Later rounds may come to them again.
        for group in beyond.iter().filter(|_| first) {
            self.skip(
                snapshot,
                rules,
                group,
                "it is more than the bytes that were given",
            );
        }
        within
    }

    /// Whether the time is over.
    fn is_over(&self) -> bool {
        let passed = clock::now_ms().saturating_sub(self.started_ms);
        let most = self.compact.max_time.map(|most| most.as_millis());
        most.is_some_and(|most| u128::from(passed.max(0).unsigned_abs()) >= most)
    }

    /// What a dry run tells.
    fn foresee(&mut self, survey: &Survey, groups: Vec<Group>) {
        let groups = self.affordable(&survey.snapshot, &survey.rules, groups, true);
        for group in &groups {
            let told = group.report(&survey.rules, &survey.snapshot, GroupOutcome::Planned);
            self.count("num_target_files_removed", told.files);
            self.count("num_target_files_added", told.expected_files);
            self.count("bytes_to_rewrite", told.bytes);
            self.tell(told);
        }
    }

    /// Groups that could not be committed together are tried one by one; one that is alone is skipped.
    fn stopped(&mut self, snapshot: &Snapshot, rules: &Rules, course: &mut Course, part: Part, error: Error) {
        if part.groups.len() > 1 && !matches!(error, Error::Conflict { .. }) {
            tracing::warn!(%error, "groups that failed together are tried one by one");
            course.try_apart(part);
            return;
        }
        let groups = part.groups;
        if matches!(
            error,
            Error::Invalid { .. } | Error::NotFound { .. } | Error::Engine(_)
        ) {
            self.count("num_groups_damaged", groups.len() as u64);
        }
        for group in &groups {
            self.skip(snapshot, rules, group, &error.to_string());
        }
        self.failed.get_or_insert(error);
    }

    fn skip(&mut self, snapshot: &Snapshot, rules: &Rules, group: &Group, why: &str) {
        self.tell(group.report(rules, snapshot, GroupOutcome::Skipped(why.to_owned())));
    }

    fn tell(&mut self, group: CompactedGroup) {
        self.count("num_groups_planned", 1);
        match group.outcome {
            GroupOutcome::Planned => {}
            GroupOutcome::Committed(_) => self.count("num_groups_committed", 1),
            GroupOutcome::Skipped(_) => self.count("num_groups_skipped", 1),
        }
        self.report.groups.push(group);
    }

    fn count(&mut self, name: &'static str, by: u64) {
        *self.report.metrics.entry(name).or_default() += by;
    }

    /// Takes in what planning or a commit tells.
    fn add(&mut self, metrics: BTreeMap<&'static str, u64>, phases: Vec<(&'static str, Duration)>) {
        for (name, value) in metrics {
            self.count(name, value);
        }
        for (phase, took) in phases {
            match self.report.phases.iter_mut().find(|(name, _)| *name == phase) {
                Some((_, sum)) => *sum += took,
                None => self.report.phases.push((phase, took)),
            }
        }
    }

    fn merge(&mut self, done: Report) {
        let report = &mut self.report;
        report.version = done.version;
        report.committed |= done.committed;
        report.already = report.already.or(done.already);
        report.attempts = report.attempts.max(done.attempts);
        report.plans = report.plans.max(done.plans);
        self.count("num_commits", u64::from(done.committed));
        self.add(done.metrics, done.phases);
    }

    fn finish(mut self) -> Result<Report> {
        if !self.report.committed
            && let Some(error) = self.failed
        {
            return Err(error);
        }
        for name in [
            "num_groups_planned",
            "num_groups_committed",
            "num_groups_skipped",
            "num_commits",
            "num_target_files_added",
            "num_target_files_removed",
            "bytes_written",
        ] {
            self.report.metrics.entry(name).or_default();
        }
        Ok(self.report)
    }
}

/// How one commit ended.
struct Ended {
    part: Part,
    done: Result<Report>,
    /// It was to record the idempotency key.
    with_key: bool,
    rewritten: Vec<Group>,
    gone: Vec<Group>,
    /// Partitions and bytes of the new files.
    written: Vec<(Place, u64)>,
    /// Rows that went meanwhile.
    carried: u64,
}

/// Rewrites and commits the groups of one part, beside so many others that it shares the memory with.
fn commit(
    handle: Handle,
    compact: Compact,
    mut options: Options,
    part: Part,
    concurrent: usize,
) -> BoxFuture<'static, Ended> {
    if concurrent > 1 {
        options.memory_limit = Some(memory(options.memory_limit) / concurrent);
    }
    Box::pin(async move {
        let mut batch = Batch::new(&compact, part);
        let done = run(&handle, &options, &mut batch).await;
        Ended {
            done,
            with_key: options.token.is_some(),
            carried: batch.rows_carried(),
            part: batch.part,
            rewritten: batch.rewritten,
            gone: batch.gone,
            written: batch.written,
        }
    })
}

/// A commit that panicked or was cancelled.
fn broken(error: JoinError) -> Error {
    Error::Engine(Box::new(DataFusionError::Execution(format!(
        "rewriting a group stopped: {error}"
    ))))
}

/// Whether other groups may fare better.
fn is_of_the_groups(error: &Error) -> bool {
    matches!(
        error,
        Error::Conflict { .. }
            | Error::Invalid { .. }
            | Error::Unsupported { .. }
            | Error::Limit { .. }
            | Error::NotFound { .. }
            | Error::Engine(_)
    )
}
