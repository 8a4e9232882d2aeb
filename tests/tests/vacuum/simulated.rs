//! Vacuums beside writers and readers, by seed: clocks that are off, time that passes in leaps of hours in the middle of
//! everything, a store that fails, crashes. Afterwards every version that had to be retained has the rows that running the
//! operations one after the other gives, readers have read theirs, and a last vacuum leaves nothing that nobody needs.
//!
//! `LAKEHOUSE_VACUUM_RUNS=10000` runs so many seeds per format; `LAKEHOUSE_SEED` repeats the one that failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use lakehouse_core::commit::{CommitOptions, Plan, commit};
use lakehouse_core::format::Handle;
use lakehouse_core::model::{At, Change, CommitId, Snapshot, Version};
use lakehouse_core::operations::vacuum::{FLOOR_MS, Vacuumed, vacuum};
use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::store::sim::{Fault, Faults, Times, faulty};
use lakehouse_core::{TableFormat, Vacuum};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::interleave::bed::{Bed, Kind, Level, open, over, read_rows};
use crate::interleave::block_on;
use crate::interleave::cases::drive;
use crate::interleave::explorer::{Explorer, Search};
use crate::interleave::gate::{Gate, Points};
use crate::interleave::history::{Ended, Op, Rows, differ};
use crate::interleave::staged::{self, Staged};
use crate::support::{number, setting};
use crate::verbs::FORMATS;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How far the clocks of machines are off, some often, some rarely.
const SKEWS: [i64; 8] = [
    0,
    600_000,
    -600_000,
    0,
    600_000,
    -600_000,
    365 * DAY_MS,
    -365 * DAY_MS,
];
/// Faults that pass.
const FAULTS: [Fault; 5] = [
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::Throttle,
    Fault::CutShort,
    Fault::StaleList,
];
/// One request in so many fails.
const FAILS: u64 = 80;
/// A restore must not take longer than this, or it may come too late for the version.
const RESTORE_MS: i64 = FLOOR_MS - 13 * HOUR_MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Appender,
    Merger,
    Deleter,
    Compactor,
    Restorer,
    Reader,
    Vacuumer,
    /// Lets time pass.
    Time,
}

const ACTORS: [Role; 10] = [
    Role::Appender,
    Role::Merger,
    Role::Deleter,
    Role::Compactor,
    Role::Restorer,
    Role::Reader,
    Role::Reader,
    Role::Vacuumer,
    Role::Vacuumer,
    Role::Time,
];

/// What one actor saw and did, with times by the store's clock.
#[derive(Debug)]
enum Event {
    Wrote {
        op: Op,
        /// The version that a restore went back to.
        old: Version,
        ended: Ended,
        took_ms: i64,
    },
    Read {
        version: Version,
        rows: Result<Rows, String>,
        took_ms: i64,
    },
    Vacuumed {
        older_than_ms: Option<i64>,
        ended_ms: i64,
        report: Option<Box<Vacuumed>>,
    },
}

/// Since when writers publish what they have staged. One attempt to publish is taken to last for less than the lease: who
/// looks at the clock, is suspended for a day and then sends the request has no lease.
type Publishing = Arc<Mutex<BTreeMap<i64, i64>>>;

/// An operation that takes its time, before it publishes.
struct Slow<'a> {
    actor: &'a Actor,
    staged: Staged<'a>,
    waits: u32,
}

impl Plan for Slow<'_> {
    fn plan<'a>(
        &'a mut self,
        base: Arc<Snapshot>,
        id: CommitId,
    ) -> BoxFuture<'a, lakehouse_core::Result<Option<Change>>> {
        Box::pin(async move {
            self.actor.publishes(false);
            let change = self.staged.plan(base, id).await?;
            for _ in 0..self.waits {
                self.actor.wait().await;
            }
            self.actor.publishes(true);
            Ok(change)
        })
    }
}

/// What an actor works with.
struct Actor {
    number: i64,
    role: Role,
    kind: Kind,
    handle: Handle,
    clock: Arc<Source>,
    times: Times,
    random: StdRng,
    publishing: Publishing,
}

impl Actor {
    async fn run(mut self, events: Arc<Mutex<Vec<Event>>>) {
        let rounds = match self.role {
            Role::Time => 16,
            Role::Vacuumer => 3,
            _ => 5,
        };
        for round in 0..rounds {
            let event = match self.role {
                Role::Time => {
                    self.leap().await;
                    None
                }
                Role::Reader => self.read().await,
                Role::Vacuumer => Some(self.vacuum().await),
                Role::Restorer => self.restore().await,
                _ => {
                    let op = self.op(round);
                    Some(self.write(op, 0).await)
                }
            };
            events.lock().unwrap().extend(event);
        }
    }

    /// Lets others go first.
    async fn wait(&self) {
        let _ = self.handle.store.list("nothing/").await;
    }

    /// Time passes, but not too much of it for those who are publishing.
    async fn leap(&mut self) {
        let leap_ms = self.random.random_range(0..23 * HOUR_MS);
        for _ in 0..100 {
            self.wait().await;
            let since = self.publishing.lock().unwrap().values().min().copied();
            if since.is_none_or(|since| self.clock.now_ms() - since + leap_ms < DAY_MS - HOUR_MS) {
                return self.clock.advance(Duration::from_millis(leap_ms.cast_unsigned()));
            }
        }
    }

    fn publishes(&self, begins: bool) {
        let mut publishing = self.publishing.lock().unwrap();
        match begins {
            true => publishing.insert(self.number, self.clock.now_ms()),
            false => publishing.remove(&self.number),
        };
    }

    fn op(&mut self, round: i64) -> Op {
        let key = self.random.random_range(100..112);
        match self.role {
            Role::Appender => {
                let first = 1000 * (self.number + 1) + 10 * round;
                Op::Append((first..first + 3).map(|id| (id, id, None)).collect())
            }
            Role::Merger => Op::Merge(vec![(key, round), (key + 1, round)]),
            Role::Deleter => match round % 2 {
                0 => Op::Delete(key..=key + 2),
                _ => Op::Update(0..=6, round),
            },
            _ => Op::Compact,
        }
    }

    async fn write(&mut self, op: Op, old: Version) -> Event {
        let started = self.clock.now_ms();
        let waits = self.random.random_range(0..4);
        let mut plan = Slow {
            actor: self,
            staged: staged::plan(&self.handle, &op, old),
            waits,
        };
        let committed = commit(&self.handle, &CommitOptions::default(), &mut plan).await;
        self.publishes(false);
        let ended = Ended::of(committed.map(|done| (done.snapshot.version, done.change.is_some())));
        Event::Wrote {
            op,
            old,
            ended,
            took_ms: self.clock.now_ms() - started,
        }
    }

    /// Back to the version before the newest, if that is certain to be retained.
    async fn restore(&mut self) -> Option<Event> {
        self.wait().await;
        let newest = self.handle.format.snapshot(&At::Latest).await.ok()?;
        let history = self.handle.format.history(&At::Latest, Some(1)).await.ok()?;
        let parent = history.first()?.parent?;
        let is_recent = self.clock.now_ms() - committed_ms(&self.times, newest.state) < 12 * HOUR_MS;
        if self.kind.0 == TableFormat::Delta && !is_recent {
            return None;
        }
        Some(self.write(Op::Restore, parent).await)
    }

    async fn read(&mut self) -> Option<Event> {
        let started = self.clock.now_ms();
        let snapshot = self.handle.format.snapshot(&At::Latest).await.ok()?;
        for _ in 0..self.random.random_range(0..6) {
            self.wait().await;
        }
        let rows = read_rows(&self.handle, &snapshot).await;
        Some(Event::Read {
            version: snapshot.version,
            rows: rows.map_err(|error| error.to_string()),
            took_ms: self.clock.now_ms() - started,
        })
    }

    async fn vacuum(&mut self) -> Event {
        self.wait().await;
        let older_than_ms = *[None, Some(FLOOR_MS), Some(3 * DAY_MS)]
            .choose(&mut self.random)
            .unwrap();
        let what = Vacuum {
            older_than_ms,
            quarantine: self.random.random_bool(0.2).then(|| ".quarantine".to_owned()),
            dry_run: self.random.random_bool(0.1),
            ..Vacuum::default()
        };
        let report = vacuum(&self.handle, &what).await;
        Event::Vacuumed {
            older_than_ms,
            ended_ms: self.clock.now_ms(),
            report: report.ok().map(Box::new),
        }
    }
}

/// When the log entry of a version was written.
fn committed_ms(times: &Times, state: u64) -> i64 {
    times.of(&format!("_delta_log/{state:020}.json"))
}

/// What runs came to.
#[derive(Debug, Default)]
struct Counted {
    runs: u64,
    versions: u64,
    reads: u64,
    vacuums: u64,
    broken_off: u64,
    removed: u64,
    removed_at_last: u64,
    faults: u64,
    excused: u64,
}

async fn simulate(bed: &Bed, seed: u64, counted: &mut Counted) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let inner = bed.fork();
    let gate = Gate::new(ACTORS.len(), Points::Versions);
    let clock = Arc::new(Source::new(seed));
    let times = Times::new(Arc::clone(&clock));
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let publishing = Publishing::default();
    let mut failing: Vec<Faults> = Vec::new();
    let mut running = Vec::new();
    for (at, role) in ACTORS.into_iter().enumerate() {
        let (store, faults) = faulty(&gate.store(at, &times.over(&over(&inner))));
        if !matches!(role, Role::Reader | Role::Time) {
            for request in 1..1500 {
                if random.random_range(0..FAILS) == 0 {
                    faults.fail_at(request, *FAULTS.choose(&mut random).unwrap());
                }
            }
            if random.random_bool(0.25) {
                faults.fail_at(random.random_range(1..150), Fault::Crash);
            }
        }
        failing.push(faults);
        let skew = *SKEWS.choose(&mut random).unwrap();
        let source = Arc::new(clock.actor(random.random(), skew));
        let actor = Actor {
            number: at as i64,
            role,
            kind: bed.kind,
            handle: open(bed.kind, store),
            clock: Arc::clone(&clock),
            times: times.clone(),
            random: StdRng::seed_from_u64(random.random()),
            publishing: Arc::clone(&publishing),
        };
        let (gate, events) = (gate.clone(), Arc::clone(&events));
        running.push(tokio::spawn(async move {
            gate.actor(at, clock::simulated(source, actor.run(events))).await
        }));
    }
    let mut order = Explorer::new(Search::Random { seed, runs: 1 });
    drive(&gate, None, &mut order).await;
    for actor in running {
        actor.await.map_err(|panic| panic.to_string())?;
    }
    let events = std::mem::take(&mut *events.lock().unwrap());
    counted.runs += 1;
    counted.faults += failing.iter().map(Faults::fired).sum::<u64>();
    let handle = open(bed.kind, times.over(&over(&inner)));
    let judged = judge(bed, &handle, &times, &clock, &events, counted);
    clock::simulated(Arc::new(clock.actor(seed, 0)), judged).await
}

async fn judge(
    bed: &Bed,
    handle: &Handle,
    times: &Times,
    clock: &Source,
    events: &[Event],
    counted: &mut Counted,
) -> Result<(), String> {
    let late = |event: &Event| {
        let Event::Wrote {
            op, ended, took_ms, ..
        } = event
        else {
            return false;
        };
        let landed = matches!(ended, Ended::Committed(_) | Ended::Unknown);
        *op == Op::Restore && landed && *took_ms >= RESTORE_MS && bed.kind.0 == TableFormat::Delta
    };
    if events.iter().any(late) {
        counted.excused += 1;
        return Ok(());
    }
    let read = async |version: Version| {
        let snapshot = handle.format.snapshot(&At::Version(version)).await?;
        read_rows(handle, &snapshot).await
    };
    let expected = expected(bed, handle, events, &read).await?;
    let newest = handle
        .format
        .snapshot(&At::Latest)
        .await
        .map_err(|error| error.to_string())?;
    // Versions of Delta that any vacuum may have let go: those that had a successor before its time.
    let mut retained = 0;
    for event in events {
        match event {
            Event::Vacuumed {
                older_than_ms,
                ended_ms,
                report,
            } => {
                counted.vacuums += 1;
                counted.broken_off += u64::from(report.is_none());
                counted.removed += report.as_ref().map_or(0, |report| report.total().count);
                let before = ended_ms - older_than_ms.unwrap_or(7 * DAY_MS);
                let then = (0..=newest.state)
                    .rev()
                    .find(|state| committed_ms(times, *state) <= before);
                retained = retained.max(then.unwrap_or(0));
            }
            Event::Read {
                version,
                rows,
                took_ms,
            } if *took_ms < FLOOR_MS => {
                counted.reads += 1;
                let why = match (rows, expected.get(version)) {
                    (Ok(rows), Some(expected)) if rows == expected => continue,
                    (Ok(rows), Some(expected)) => differ(expected, rows),
                    (Ok(_), None) => continue,
                    (Err(error), _) => error.clone(),
                };
                return Err(format!(
                    "a reader of version {version}, which was retained: {why}"
                ));
            }
            _ => {}
        }
    }
    let is_retained = |version: Version| {
        bed.kind.0 == TableFormat::Iceberg || version.cast_unsigned() >= retained || version == newest.version
    };
    for (version, rows) in expected.iter().filter(|(version, _)| is_retained(**version)) {
        counted.versions += 1;
        let found = read(*version)
            .await
            .map_err(|error| format!("version {version} is retained: {error}"))?;
        if found != *rows {
            return Err(format!("version {version} is retained: {}", differ(rows, &found)));
        }
    }
    clock.advance(Duration::from_millis(40 * DAY_MS.cast_unsigned()));
    let last = vacuum(handle, &Vacuum::default())
        .await
        .map_err(|error| format!("the last vacuum: {error}"))?;
    counted.removed_at_last += last.total().count;
    complete(bed, handle, &last, &expected).await
}

/// The rows of every version from the base on, by running the operations in the order of their commits.
async fn expected(
    bed: &Bed,
    handle: &Handle,
    events: &[Event],
    read: &impl AsyncFn(Version) -> lakehouse_core::Result<Rows>,
) -> Result<BTreeMap<Version, Rows>, String> {
    let mut made = BTreeMap::new();
    for event in events {
        if let Event::Wrote {
            op,
            old,
            ended: Ended::Committed(version),
            ..
        } = event
            && made.insert(*version, (op, *old)).is_some()
        {
            return Err(format!("version {version} was made twice"));
        }
    }
    let history = handle
        .format
        .history(&At::Latest, None)
        .await
        .map_err(|error| error.to_string())?;
    let mut known: BTreeMap<Version, Rows> = bed.earlier.iter().cloned().collect();
    known.insert(bed.base.0, bed.base.1.clone());
    let mut rows = Some(bed.base.1.clone());
    let new: Vec<Version> = history
        .iter()
        .map(|commit| commit.version)
        .take_while(|v| *v != bed.base.0)
        .collect();
    let mut expected = BTreeMap::from([(bed.base.0, bed.base.1.clone())]);
    for version in new.into_iter().rev() {
        rows = match (made.remove(&version), rows) {
            (Some((Op::Restore, old)), _) => known.get(&old).cloned(),
            (Some((op, _)), Some(mut rows)) => {
                op.apply(&mut rows, &Rows::new());
                Some(rows)
            }
            // Of a writer that crashed before it knew, or what follows it.
            _ => read(version).await.ok(),
        };
        if let Some(rows) = &rows {
            known.insert(version, rows.clone());
            expected.insert(version, rows.clone());
        }
    }
    match made.keys().next() {
        Some(version) => Err(format!(
            "version {version} was acknowledged and is not in the history"
        )),
        None => Ok(expected),
    }
}

/// After a last vacuum, long after everything: what is there is needed, and the newest version is as it was.
async fn complete(
    bed: &Bed,
    handle: &Handle,
    last: &Vacuumed,
    expected: &BTreeMap<Version, Rows>,
) -> Result<(), String> {
    let snapshot = handle
        .format
        .snapshot(&At::Latest)
        .await
        .map_err(|error| error.to_string())?;
    let rows = read_rows(handle, &snapshot)
        .await
        .map_err(|error| format!("after the last vacuum: {error}"))?;
    if let Some(expected) = expected
        .get(&snapshot.version)
        .filter(|expected| **expected != rows)
    {
        return Err(format!("after the last vacuum: {}", differ(expected, &rows)));
    }
    let versions: Option<Vec<Version>> = match bed.kind.0 {
        // Ids say nothing about their order.
        TableFormat::Iceberg => None,
        TableFormat::Delta => Some((last.oldest_kept..=last.version).collect()),
    };
    let needed = handle
        .format
        .reachable(versions.as_deref())
        .await
        .map_err(|error| error.to_string())?;
    let there = handle.store.list("").await.map_err(|error| error.to_string())?;
    let left: Vec<_> = there
        .iter()
        .filter(|object| handle.format.kind(&snapshot, &object.path).is_removable())
        .filter(|object| !needed.contains(&object.path))
        .collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("nobody needs these, and they were left: {left:?}")),
    }
}

fn seeds(kind: Kind) {
    block_on(async {
        let repeat = number("LAKEHOUSE_SEED");
        let usual = if std::env::var_os("CI").is_some() {
            300
        } else {
            100
        };
        let runs = match repeat {
            Some(_) => 1,
            None => setting("LAKEHOUSE_VACUUM_RUNS", usual),
        };
        let bed = Bed::small(kind, Level::Staged).await;
        let first = repeat.unwrap_or_else(|| rand::rng().random_range(0..1 << 48));
        let started = Instant::now();
        let mut counted = Counted::default();
        for seed in first..first + runs {
            let done = simulate(&bed, seed, &mut counted).await;
            done.unwrap_or_else(|why| panic!("{kind:?}, LAKEHOUSE_SEED={seed}: {why}"));
        }
        println!(
            "{kind:?}: seeds from {first}, {:.1} s: {counted:?}",
            started.elapsed().as_secs_f64()
        );
        if repeat.is_none() && runs >= 50 {
            assert!(
                counted.removed > 0 && counted.reads > 0 && counted.broken_off > 0 && counted.versions > 0
            );
            assert!(counted.excused < runs / 5, "{counted:?}");
        }
    });
}

#[test]
fn vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_iceberg_v2() {
    seeds(FORMATS[0]);
}

#[test]
fn vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_iceberg_v3() {
    seeds(FORMATS[1]);
}

#[test]
fn vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_delta() {
    seeds(FORMATS[2]);
}
