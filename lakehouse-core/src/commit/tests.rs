//! The loop against a format that loses, forgets and lies on command.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::conflict_tests::{change, file, masked, snapshot};
use super::run::commit_within;
use super::{CommitOptions, Committed, Isolation, Plan, commit};
use crate::error::{Error, Result};
use crate::format::{Format, Handle, Outcome};
use crate::model::{
    At, Change, CommitId, CommitInfo, DataFile, Definition, OperationKind, Prune, RowMask, Snapshot, Token,
    Version,
};
use crate::store::sim::{Fault, faulty};
use crate::store::{Store, clock};

/// What happens to one attempt.
#[derive(Debug)]
enum Step {
    /// Another commit lands first.
    Loses(Box<Change>),
    /// The commit lands, the reply says that it was lost.
    LandsButLost,
    /// The commit lands, the reply is lost.
    LandsButUnknown,
    /// The commit lands, the reply is an error.
    LandsButFails,
    /// Nothing lands, and nobody knows.
    Unknown,
    /// Nothing lands, for certain.
    Fails,
    /// The machine sleeps for two days before the put, which a format then leaves.
    Sleeps,
}

/// A table in memory whose `publish` follows a script and then compares and swaps.
#[derive(Debug, Default)]
struct Scripted {
    /// Commits so far: entry i made version i + 1.
    log: Mutex<Vec<Change>>,
    script: Mutex<VecDeque<Step>>,
    /// What was asked, in order.
    calls: Mutex<Vec<&'static str>>,
    /// `find` fails.
    blind: bool,
    /// `changes` finds no way from the base.
    rolled_back: bool,
}

impl Scripted {
    fn with(script: impl IntoIterator<Item = Step>) -> Self {
        Self {
            script: Mutex::new(script.into_iter().collect()),
            ..Self::default()
        }
    }

    fn call(&self, name: &'static str) {
        self.calls.lock().unwrap().push(name);
    }

    fn at(&self, version: usize) -> Arc<Snapshot> {
        Arc::new(snapshot(version as u64, true))
    }

    fn land(&self, change: &Change) -> Arc<Snapshot> {
        let mut log = self.log.lock().unwrap();
        log.push(change.clone());
        self.at(log.len())
    }
}

fn broken(what: &str) -> Error {
    Error::Store {
        action: "write",
        path: what.into(),
        source: object_store::Error::Generic {
            store: "scripted",
            source: "no reply".into(),
        },
    }
}

impl Format for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn create<'a>(&'a self, _: &'a Definition, _: &'a CommitId) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { Ok(Outcome::Lost) })
    }

    fn snapshot<'a>(&'a self, _: &'a At) -> BoxFuture<'a, Result<Arc<Snapshot>>> {
        Box::pin(async move {
            self.call("snapshot");
            Ok(self.at(self.log.lock().unwrap().len()))
        })
    }

    fn files(&self, _: &Arc<Snapshot>, _: Arc<Prune>) -> BoxStream<'static, Result<DataFile>> {
        futures::stream::empty().boxed()
    }

    fn masks<'a>(&'a self, _: &'a Snapshot, files: &'a [DataFile]) -> BoxFuture<'a, Result<Vec<RowMask>>> {
        Box::pin(async move { Ok(vec![RowMask::new(); files.len()]) })
    }

    fn stage_masks<'a>(
        &'a self,
        _: &'a Snapshot,
        _: Vec<(DataFile, RowMask)>,
        _: &'a CommitId,
    ) -> BoxFuture<'a, Result<(Vec<DataFile>, Vec<String>)>> {
        Box::pin(async move { Ok((Vec::new(), Vec::new())) })
    }

    fn changes<'a>(&'a self, base: &'a Snapshot, upto: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Change>>> {
        Box::pin(async move {
            self.call("changes");
            if self.rolled_back {
                return Err(Error::Conflict {
                    table: "t".into(),
                    detail: "the base is not in the history".into(),
                });
            }
            Ok(self.log.lock().unwrap()[base.state as usize..upto.state as usize].to_vec())
        })
    }

    fn publish<'a>(&'a self, base: &'a Arc<Snapshot>, change: &'a Change) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            self.call("publish");
            tokio::task::yield_now().await;
            let step = self.script.lock().unwrap().pop_front();
            match step {
                Some(Step::Loses(winner)) => {
                    self.land(&winner);
                    Ok(Outcome::Lost)
                }
                Some(Step::LandsButLost) => {
                    self.land(change);
                    Ok(Outcome::Lost)
                }
                Some(Step::LandsButUnknown) => {
                    self.land(change);
                    Ok(Outcome::Unknown(broken("log")))
                }
                Some(Step::LandsButFails) => {
                    self.land(change);
                    Err(broken("log"))
                }
                Some(Step::Unknown) => Ok(Outcome::Unknown(broken("log"))),
                Some(Step::Fails) => Err(broken("manifest")),
                Some(Step::Sleeps) => {
                    clock::pause(Duration::from_secs(4 * 24 * 3600)).await;
                    assert!(clock::is_overdue(change));
                    Ok(Outcome::Lost)
                }
                None if self.log.lock().unwrap().len() as u64 != base.state => Ok(Outcome::Lost),
                None => Ok(Outcome::Committed(self.land(change))),
            }
        })
    }

    fn find<'a>(
        &'a self,
        commit_id: &'a CommitId,
        base: &'a Snapshot,
    ) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>>> {
        Box::pin(async move {
            self.call("find");
            if self.blind {
                return Err(broken("find"));
            }
            let log = self.log.lock().unwrap();
            let found = log.iter().position(|change| &change.commit_id == commit_id);
            Ok(found
                .filter(|index| *index as u64 >= base.state)
                .map(|index| self.at(index + 1)))
        })
    }

    fn find_token<'a>(&'a self, _: &'a Snapshot, token: &'a Token) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(async move {
            self.call("find_token");
            let log = self.log.lock().unwrap();
            let found = log
                .iter()
                .position(|change| change.token.as_ref().is_some_and(|made| made.covers(token)));
            Ok(found.map(|index| index as i64 + 1))
        })
    }

    fn last_step<'a>(&'a self, _: &'a Snapshot, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            let log = self.log.lock().unwrap();
            let mine = log.iter().filter_map(|change| change.token.as_ref());
            Ok(mine
                .filter(|token| token.key == key)
                .filter_map(|token| token.step)
                .max())
        })
    }

    fn history<'a>(&'a self, _: &'a At, _: Option<usize>) -> BoxFuture<'a, Result<Vec<CommitInfo>>> {
        Box::pin(async move { Ok(Vec::new()) })
    }

    fn reachable<'a>(&'a self, _: Option<&'a [Version]>) -> BoxFuture<'a, Result<BTreeSet<String>>> {
        Box::pin(async move { Ok(BTreeSet::new()) })
    }
}

/// A plan from a function that is told its number, counted from 1.
struct Planned<F>(usize, F);

impl<F: FnMut(usize, CommitId) -> Result<Option<Change>> + Send> Plan for Planned<F> {
    fn plan<'a>(&'a mut self, _base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            self.0 += 1;
            (self.1)(self.0, id)
        })
    }
}

/// Stages one file `staged-N` per plan.
struct Staging<'a> {
    store: Store,
    plans: &'a mut usize,
    shape: fn(Change) -> Change,
}

impl Plan for Staging<'_> {
    fn plan<'a>(&'a mut self, _base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            *self.plans += 1;
            let staged = format!("staged-{}", self.plans);
            self.store.put(&staged, "rows".into()).await?;
            let mut mine = change(OperationKind::Append, &id.0);
            mine.added.push(file(&staged, 0..10));
            mine.staged.push(staged);
            Ok(Some((self.shape)(mine)))
        })
    }
}

/// A table, the script behind it, and a store for staged files.
struct Bench {
    format: Arc<Scripted>,
    handle: Handle,
    plans: usize,
}

impl Bench {
    fn new(format: Scripted) -> Self {
        let format = Arc::new(format);
        let location = format!("memory://{}", clock::new_commit_id());
        let handle = Handle {
            store: Store::open(&location).unwrap(),
            format: Arc::clone(&format) as Arc<dyn Format>,
        };
        Self {
            format,
            handle,
            plans: 0,
        }
    }

    /// Runs an operation; every plan stages one file `staged-N`.
    async fn run(&mut self, options: &CommitOptions, shape: fn(Change) -> Change) -> Result<Committed> {
        let mut plan = Staging {
            store: self.handle.store.clone(),
            plans: &mut self.plans,
            shape,
        };
        commit(&self.handle, options, &mut plan).await
    }

    /// Runs an operation with default options.
    async fn run_plan(
        &self,
        plan: impl FnMut(usize, CommitId) -> Result<Option<Change>> + Send,
    ) -> Result<Committed> {
        commit(&self.handle, &CommitOptions::default(), &mut Planned(0, plan)).await
    }

    async fn staged(&self) -> Vec<String> {
        let listed = self.handle.store.list("").await.unwrap();
        listed.into_iter().map(|object| object.path).collect()
    }

    fn commits_of_mine(&self) -> usize {
        let log = self.format.log.lock().unwrap();
        log.iter().filter(|change| change.commit_id.0 != "w").count()
    }

    fn calls(&self) -> Vec<&'static str> {
        self.format.calls.lock().unwrap().clone()
    }
}

fn append(mine: Change) -> Change {
    mine
}

/// A delete that masks file `a`.
fn delete(mut mine: Change) -> Change {
    mine.operation = OperationKind::Delete;
    mine.masked.push((file("a", 0..10), masked(&file("a", 0..10), 1)));
    mine
}

fn loses_to_append() -> Step {
    let mut winner = change(OperationKind::Append, "w");
    winner.added.push(file("w", 90..100));
    Step::Loses(Box::new(winner))
}

fn loses_to_compact_of_a() -> Step {
    let mut winner = change(OperationKind::Compact, "w");
    winner.removed.push(file("a", 0..10));
    winner.added.push(file("w", 0..10));
    Step::Loses(Box::new(winner))
}

#[tokio::test]
async fn an_uncontended_change_is_published_once_and_keeps_its_files() {
    let mut bench = Bench::new(Scripted::default());
    let done = bench.run(&CommitOptions::default(), append).await.unwrap();
    assert_eq!((done.attempts, done.snapshot.version), (1, 1));
    assert_eq!(done.change.unwrap().added[0].path, "staged-1");
    assert_eq!(bench.calls(), ["snapshot", "publish"]);
    assert_eq!(bench.staged().await, ["staged-1"]);
}

#[tokio::test]
async fn a_compatible_change_is_published_over_the_winner_without_planning_again() {
    let mut bench = Bench::new(Scripted::with([loses_to_append(), loses_to_append()]));
    let done = bench.run(&CommitOptions::default(), append).await.unwrap();
    assert_eq!((done.attempts, done.snapshot.version, bench.plans), (3, 3, 1));
    assert_eq!(bench.commits_of_mine(), 1);
    assert_eq!(bench.staged().await, ["staged-1"]);
    let calls = bench.calls();
    assert_eq!(calls[..5], ["snapshot", "publish", "find", "snapshot", "changes"]);
}

#[tokio::test]
async fn a_change_that_a_winner_makes_wrong_is_planned_again_and_its_files_are_removed() {
    let mut bench = Bench::new(Scripted::with([loses_to_compact_of_a()]));
    let done = bench.run(&CommitOptions::default(), delete).await.unwrap();
    assert_eq!((done.attempts, bench.plans), (2, 2));
    assert_eq!(
        bench.staged().await,
        ["staged-2"],
        "the abandoned plan's file is gone"
    );
    let log = bench.format.log.lock().unwrap();
    assert_ne!(log[1].commit_id.0, "w");
    assert_eq!(log[1].added[0].path, "staged-2");
}

#[tokio::test]
async fn a_commit_that_landed_whatever_the_reply_said_is_committed_exactly_once() {
    for step in [Step::LandsButLost, Step::LandsButUnknown, Step::LandsButFails] {
        let name = format!("{step:?}");
        let mut bench = Bench::new(Scripted::with([loses_to_append(), step]));
        let done = bench.run(&CommitOptions::default(), append).await.unwrap();
        assert_eq!((done.attempts, done.snapshot.version), (2, 2), "{name}");
        assert_eq!(bench.commits_of_mine(), 1, "{name}");
        assert_eq!(bench.staged().await, ["staged-1"], "{name}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_reported_with_its_id_and_deletes_nothing() {
    let mut bench = Bench::new(Scripted::with([Step::Unknown]));
    let error = bench.run(&CommitOptions::default(), append).await.unwrap_err();
    let Error::CommitUnknown { commit_id, .. } = &error else {
        panic!("{error}")
    };
    assert!(!commit_id.is_empty());
    assert!(error.to_string().contains("no reply"), "{error}");
    assert_eq!(bench.staged().await, ["staged-1"]);
    assert_eq!(bench.plans, 1);
}

#[tokio::test]
async fn when_the_commit_cannot_be_looked_for_the_outcome_is_unknown() {
    for step in [
        loses_to_append(),
        Step::LandsButLost,
        Step::LandsButFails,
        Step::Fails,
    ] {
        let name = format!("{step:?}");
        let mut bench = Bench::new(Scripted {
            blind: true,
            ..Scripted::with([step])
        });
        let error = bench.run(&CommitOptions::default(), append).await.unwrap_err();
        assert!(matches!(error, Error::CommitUnknown { .. }), "{name}: {error}");
        assert_eq!(bench.staged().await, ["staged-1"], "{name}");
    }
}

#[tokio::test]
async fn a_certain_failure_is_reported_as_it_is_and_cleans_up() {
    let mut bench = Bench::new(Scripted::with([Step::Fails]));
    let error = bench.run(&CommitOptions::default(), append).await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error}");
    assert_eq!(bench.calls(), ["snapshot", "publish", "find"]);
    assert!(bench.staged().await.is_empty());
}

#[tokio::test]
async fn attempts_are_bounded_and_end_in_a_conflict_with_nothing_left_behind() {
    let options = CommitOptions {
        max_attempts: 3,
        ..CommitOptions::default()
    };
    let mut bench = Bench::new(Scripted::with((0..9).map(|_| loses_to_compact_of_a())));
    let error = bench.run(&options, delete).await.unwrap_err();
    let Error::Conflict { detail, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        detail,
        "given up after 3 attempts: R1: a concurrent compact removed a"
    );
    assert_eq!((bench.plans, bench.commits_of_mine()), (3, 0));
    assert!(bench.staged().await.is_empty());
}

#[tokio::test]
async fn a_recorded_idempotency_key_commits_nothing_and_plans_nothing() {
    let options = CommitOptions {
        token: Some("job-7".into()),
        ..CommitOptions::default()
    };
    let mut bench = Bench::new(Scripted::default());
    let first = bench.run(&options, append).await.unwrap();
    assert_eq!(first.already, None);
    let second = bench.run(&options, append).await.unwrap();
    assert_eq!((second.already, second.attempts), (Some(1), 0));
    assert!(second.change.is_none());
    assert_eq!((bench.plans, bench.commits_of_mine()), (1, 1));
}

#[tokio::test]
async fn an_idempotency_key_that_a_winner_recorded_is_found_after_the_lost_race() {
    let options = CommitOptions {
        token: Some("job-7".into()),
        ..CommitOptions::default()
    };
    let mut winner = change(OperationKind::Append, "w");
    winner.token = Some("job-7".into());
    let mut bench = Bench::new(Scripted::with([Step::Loses(Box::new(winner))]));
    let done = bench.run(&options, append).await.unwrap();
    assert_eq!((done.already, done.attempts), (Some(1), 1));
    assert_eq!(bench.commits_of_mine(), 0);
    assert!(bench.staged().await.is_empty());
}

#[tokio::test]
async fn a_rolled_back_base_stops_a_delete_but_not_a_blind_append() {
    let rolled_back = || Scripted {
        rolled_back: true,
        ..Scripted::with([loses_to_append()])
    };
    let mut bench = Bench::new(rolled_back());
    let error = bench.run(&CommitOptions::default(), delete).await.unwrap_err();
    assert!(error.to_string().contains("R5"), "{error}");
    assert!(bench.staged().await.is_empty());
    let mut bench = Bench::new(rolled_back());
    let done = bench.run(&CommitOptions::default(), append).await.unwrap();
    assert_eq!(done.attempts, 2);
}

#[tokio::test]
async fn nothing_to_do_publishes_nothing() {
    let bench = Bench::new(Scripted::default());
    let done = bench.run_plan(|_, _| Ok(None)).await.unwrap();
    assert!(done.change.is_none());
    let empty = |_, id| Ok(Some(Change::new(OperationKind::Append, id)));
    let done = bench.run_plan(empty).await.unwrap();
    assert!(done.change.is_none(), "an empty change is nothing to do");
    assert_eq!(bench.calls(), ["snapshot", "snapshot"]);
}

#[tokio::test]
async fn an_error_of_the_plan_is_the_error_of_the_operation() {
    let bench = Bench::new(Scripted::default());
    let error = bench
        .run_plan(|_, _| Err(Error::invalid("no such column", "x")))
        .await;
    assert!(matches!(error.unwrap_err(), Error::Invalid { .. }));
}

#[tokio::test]
async fn staged_files_older_than_the_lease_are_never_published() {
    let options = CommitOptions {
        max_attempts: 2,
        ..CommitOptions::default()
    };
    let bench = Bench::new(Scripted::default());
    let mut slow = Planned(0, |_, id: CommitId| {
        std::thread::sleep(Duration::from_millis(3));
        let mut mine = change(OperationKind::Append, &id.0);
        mine.added.push(file("f", 0..1));
        Ok(Some(mine))
    });
    let error = commit_within(Duration::ZERO, &bench.handle, &options, &mut slow).await;
    assert!(error.unwrap_err().to_string().contains("lease"));
    assert!(!bench.calls().contains(&"publish"));
}

#[tokio::test]
async fn a_writer_that_slept_right_before_its_put_stages_anew() {
    let bench = Bench::new(Scripted::with([Step::Sleeps]));
    let mut plans = Vec::new();
    let mut planned = Planned(0, |_, id: CommitId| {
        let mut mine = change(OperationKind::Append, &id.0);
        mine.added.push(file("f", 0..1));
        plans.push(id.0);
        Ok(Some(mine))
    });
    let options = CommitOptions::default();
    let source = Arc::new(clock::Source::new(3));
    let done = clock::simulated(source, commit(&bench.handle, &options, &mut planned))
        .await
        .unwrap();
    assert!(done.change.is_some());
    assert_eq!(plans.len(), 2, "what was staged before is not published");
    assert_eq!(done.change.unwrap().commit_id.0, plans[1]);
}

#[tokio::test]
async fn a_change_that_would_damage_the_table_is_refused_and_cleaned_up() {
    type Shape = fn(Change) -> Change;
    let cases: [(&str, Shape); 6] = [
        ("added twice", |mut mine| {
            mine.added.push(mine.added[0].clone());
            mine
        }),
        ("removed and named elsewhere", |mut mine| {
            mine.removed.push(file("a", 0..1));
            mine.removed.push(file("a", 0..1));
            mine
        }),
        ("masked and named elsewhere", |mut mine| {
            mine.removed.push(file("a", 0..1));
            delete(mine)
        }),
        ("belongs to another file", |mut mine| {
            mine.masked.push((file("a", 0..1), file("b", 0..1)));
            mine
        }),
        ("partition values", |mut mine| {
            mine.added[0].partition.push(1_i32.into());
            mine
        }),
        ("rows are not conserved", |mut mine| {
            mine.data_change = false;
            mine.removed.push(masked(&file("a", 0..10), 1));
            mine
        }),
    ];
    for (expected, shape) in cases {
        let mut bench = Bench::new(Scripted::default());
        let error = bench.run(&CommitOptions::default(), shape).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("report")));
        assert!(bench.staged().await.is_empty(), "{expected}");
        assert!(!bench.calls().contains(&"publish"), "{expected}");
    }
}

#[tokio::test]
async fn a_compact_that_drops_exactly_the_masked_rows_is_sound() {
    let mut bench = Bench::new(Scripted::default());
    let shape = |mut mine: Change| {
        mine.data_change = false;
        mine.removed.push(masked(&file("a", 0..10), 4));
        mine.added[0].rows = 6;
        mine
    };
    let done = bench.run(&CommitOptions::default(), shape).await.unwrap();
    assert_eq!(done.attempts, 1);
}

#[tokio::test]
async fn a_clean_up_that_fails_does_not_hide_the_result() {
    let mut bench = Bench::new(Scripted::with([loses_to_compact_of_a()]));
    let (store, faults) = faulty(&bench.handle.store);
    bench.handle.store = store;
    // Requests: the staged file's put, then its delete.
    faults.fail_at(2, Fault::Crash);
    let error = bench.run(&CommitOptions::default(), delete).await.unwrap_err();
    // The second plan cannot stage anything: that is the error, not the failed clean-up.
    assert!(error.to_string().contains("staged-2"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_all_get_through_and_every_commit_lands_once() {
    let bench = Bench::new(Scripted::default());
    let writers = (0..8).map(|writer| {
        let handle = bench.handle.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let options = CommitOptions {
                    isolation: Isolation::Snapshot,
                    token: Some(format!("{writer}-{round}").into()),
                    ..CommitOptions::default()
                };
                let mut plan = Planned(0, |_, id: CommitId| {
                    let mut mine = change(OperationKind::Append, &id.0);
                    mine.added.push(file(&format!("{writer}-{round}"), 0..10));
                    Ok(Some(mine))
                });
                commit(&handle, &options, &mut plan).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let log = bench.format.log.lock().unwrap();
    let files: BTreeSet<_> = log.iter().map(|change| change.added[0].path.clone()).collect();
    assert_eq!((log.len(), files.len()), (80, 80));
}
