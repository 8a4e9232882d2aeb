//! Two maintenances beside writers and readers, by seed: clocks that are ten minutes off, a store that fails under the
//! maintenances, time that passes in leaps of hours in the middle of everything. Writers move amounts from one row to
//! another, so that the sum stays and the end is known, whatever the order: no acknowledged one is lost, and who reads a
//! version for less than it is retained reads it to the end.
//!
//! `LAKEHOUSE_MAINTAIN_RUNS=1000` runs so many seeds per format; `LAKEHOUSE_SEED` repeats the one that failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakehouse_core::Table;
use lakehouse_core::format::Handle;
use lakehouse_core::model::At;
use lakehouse_core::operations::maintain::{Policy, Step};
use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::store::sim::{Fault, Times, faulty};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{outcome, run};
use crate::interleave::bed::{Bed, Kind, Level, end, open, over, read_rows};
use crate::interleave::block_on;
use crate::interleave::cases::drive;
use crate::interleave::explorer::{Explorer, Search};
use crate::interleave::gate::{Gate, Points};
use crate::interleave::history::{Ended, Op, Rows, differ};
use crate::support::{number, setting};
use crate::verbs::FORMATS;
use crate::verbs::check::{checked_all, wrong};

const HOUR_MS: i64 = 3_600_000;
const LEVEL: Level = Level::Whole { mask: true };
const IDS: i64 = 8;
/// Readers that take no longer than this are never left without their files: versions stay for 48 hours, and clocks are off
/// by ten minutes.
const READ_MS: i64 = 47 * HOUR_MS;
/// No writer is let wait for so long while it works: who is suspended for a day has no lease.
const WRITE_MS: i64 = 20 * HOUR_MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Writer,
    Reader,
    Maintainer,
    /// Lets time pass.
    Time,
}

const ACTORS: [Role; 8] = [
    Role::Writer,
    Role::Writer,
    Role::Writer,
    Role::Reader,
    Role::Reader,
    Role::Maintainer,
    Role::Maintainer,
    Role::Time,
];

/// What runs came to.
#[derive(Debug, Default)]
struct Counted {
    runs: u64,
    written: u64,
    conflicts: u64,
    reads: u64,
    long_reads: u64,
    steps: BTreeMap<String, u64>,
}

struct Actor {
    number: usize,
    role: Role,
    handle: Handle,
    clock: Arc<Source>,
    random: StdRng,
    /// Since when writers have been at work.
    working: Arc<Mutex<BTreeMap<usize, i64>>>,
    counted: Arc<Mutex<Counted>>,
    moved: Arc<Mutex<Vec<Op>>>,
}

fn sum(rows: &Rows) -> i64 {
    rows.iter().map(|(_, n, _)| n).sum()
}

impl Actor {
    async fn run(mut self, expected: i64) -> Result<(), String> {
        let rounds = match self.role {
            Role::Time => 20,
            Role::Maintainer => 4,
            _ => 6,
        };
        for _ in 0..rounds {
            match self.role {
                Role::Writer => self.write().await?,
                Role::Reader => self.read(expected).await?,
                Role::Maintainer => self.maintain().await,
                Role::Time => self.leap().await,
            }
        }
        Ok(())
    }

    /// Lets others go first.
    async fn wait(&self) {
        let _ = self.handle.store.list("nothing/").await;
    }

    async fn leap(&mut self) {
        let leap_ms = self.random.random_range(0..16 * HOUR_MS);
        for _ in 0..100 {
            self.wait().await;
            let since = self.working.lock().unwrap().values().min().copied();
            if since.is_none_or(|since| self.clock.now_ms() - since + leap_ms < WRITE_MS) {
                return self.clock.advance(Duration::from_millis(leap_ms.cast_unsigned()));
            }
        }
    }

    async fn write(&mut self) -> Result<(), String> {
        let from = self.random.random_range(0..IDS);
        let op = Op::Transfer {
            from,
            to: (from + self.random.random_range(1..IDS)) % IDS,
            amount: self.random.random_range(1..9),
        };
        self.working
            .lock()
            .unwrap()
            .insert(self.number, self.clock.now_ms());
        let ended = end(LEVEL, &self.handle, &op, 0).await;
        self.working.lock().unwrap().remove(&self.number);
        let mut counted = self.counted.lock().unwrap();
        match ended {
            Ended::Committed(_) => {
                counted.written += 1;
                self.moved.lock().unwrap().push(op);
                Ok(())
            }
            Ended::Conflict(_) => {
                counted.conflicts += 1;
                Ok(())
            }
            ended => Err(format!("{op:?}: {ended:?}")),
        }
    }

    async fn read(&mut self, expected: i64) -> Result<(), String> {
        let started = self.clock.now_ms();
        let newest = self.handle.format.snapshot(&At::Latest).await;
        let snapshot = newest.map_err(|error| format!("the newest version: {error}"))?;
        for _ in 0..self.random.random_range(0..40) {
            self.wait().await;
        }
        let rows = read_rows(&self.handle, &snapshot).await;
        let took_ms = self.clock.now_ms() - started;
        let mut counted = self.counted.lock().unwrap();
        match rows {
            Ok(rows) if sum(&rows) == expected && rows.len() as i64 == IDS => {}
            Ok(rows) => return Err(format!("version {} has other rows: {rows:?}", snapshot.version)),
            Err(_) if took_ms >= READ_MS => return Ok(()),
            Err(error) => {
                let hours = took_ms / HOUR_MS;
                return Err(format!(
                    "version {} went after {hours} hours: {error}",
                    snapshot.version
                ));
            }
        }
        counted.reads += 1;
        counted.long_reads += u64::from(took_ms > 24 * HOUR_MS);
        Ok(())
    }

    async fn maintain(&mut self) {
        self.wait().await;
        let strict = "[expire]\nolder-than = \"2d\"\n[vacuum]\nolder-than = \"2d\"\n";
        let policy = Policy::from_toml(strict, "test").unwrap();
        let done = run(&Table::over(self.handle.clone()), &policy, false).await;
        let mut counted = self.counted.lock().unwrap();
        match done {
            Ok(done) => {
                for report in &done.steps {
                    let name = format!("{} {}", report.step.name(), report.outcome.name());
                    *counted.steps.entry(name).or_default() += 1;
                }
            }
            Err(_) => *counted.steps.entry("broken off".to_owned()).or_default() += 1,
        }
    }
}

async fn simulate(bed: &Bed, seed: u64, counted: &Arc<Mutex<Counted>>) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let inner = bed.fork();
    let gate = Gate::new(ACTORS.len(), Points::Versions);
    let clock = Arc::new(Source::new(seed));
    let times = Times::new(Arc::clone(&clock));
    let moved: Arc<Mutex<Vec<Op>>> = Arc::default();
    let working: Arc<Mutex<BTreeMap<usize, i64>>> = Arc::default();
    let expected = sum(&bed.base.1);
    let mut running = Vec::new();
    for (at, role) in ACTORS.into_iter().enumerate() {
        let (store, faults) = faulty(&gate.store(at, &times.over(&over(&inner))));
        if role == Role::Maintainer {
            for request in 1..1500 {
                if random.random_range(0..60) == 0 {
                    let passing = [
                        Fault::FailBefore,
                        Fault::FailAfter,
                        Fault::Throttle,
                        Fault::StaleList,
                    ];
                    faults.fail_at(request, *passing.choose(&mut random).unwrap());
                }
            }
            if random.random_bool(0.3) {
                faults.fail_at(random.random_range(1..200), Fault::Crash);
            }
        }
        let skew = *[0, 600_000, -600_000].choose(&mut random).unwrap();
        let source = Arc::new(clock.actor(random.random(), skew));
        let actor = Actor {
            number: at,
            role,
            handle: open(bed.kind, store),
            clock: Arc::clone(&clock),
            random: StdRng::seed_from_u64(random.random()),
            working: Arc::clone(&working),
            counted: Arc::clone(counted),
            moved: Arc::clone(&moved),
        };
        let gate = gate.clone();
        running.push(tokio::spawn(async move {
            gate.actor(at, clock::simulated(source, actor.run(expected)))
                .await
        }));
    }
    let mut order = Explorer::new(Search::Random { seed, runs: 1 });
    drive(&gate, None, &mut order).await;
    for actor in running {
        let ended = actor.await.map_err(|panic| panic.to_string())?;
        ended.unwrap_or(Ok(()))?;
    }
    counted.lock().unwrap().runs += 1;
    let moved = std::mem::take(&mut *moved.lock().unwrap());
    let table = Table::over(open(bed.kind, times.over(&over(&inner))));
    let judged = judge(bed, &table, &clock, &moved);
    clock::simulated(Arc::new(clock.actor(seed, 0)), judged).await
}

/// All that was acknowledged is there, and a last maintenance leaves what is needed.
async fn judge(bed: &Bed, table: &Table, clock: &Source, moved: &[Op]) -> Result<(), String> {
    let mut expected = bed.base.1.clone();
    moved.iter().for_each(|op| op.apply(&mut expected, &Rows::new()));
    let look = async || {
        let snapshot = table
            .snapshot(&At::Latest)
            .await
            .map_err(|error| error.to_string())?;
        let found = read_rows(table.handle(), &snapshot)
            .await
            .map_err(|error| error.to_string())?;
        match found == expected {
            true => Ok(()),
            false => Err(differ(&expected, &found)),
        }
    };
    look().await?;
    clock.advance(Duration::from_secs(60 * 24 * 3600));
    for again in [false, true] {
        let done = run(table, &Policy::default(), false)
            .await
            .map_err(|error| error.to_string())?;
        if done.failed().count() > 0 || (again && done.did_something()) {
            return Err(format!("the last maintenance, again: {again}: {done:#?}"));
        }
        if !again && outcome(&done, Step::Vacuum) == "skipped" {
            return Err(format!("the last maintenance: {done:#?}"));
        }
    }
    look().await?;
    let checked = checked_all(table).await;
    match wrong(&checked).is_empty() {
        true => Ok(()),
        false => Err(format!("{:#?}", wrong(&checked))),
    }
}

fn seeds(kind: Kind) {
    block_on(async {
        let repeat = number("LAKEHOUSE_SEED");
        let runs = match repeat {
            Some(_) => 1,
            None => setting("LAKEHOUSE_MAINTAIN_RUNS", 4),
        };
        let files: Vec<Op> = (0..2)
            .map(|file| Op::Append((file * 4..file * 4 + 4).map(|id| (id, 100, None)).collect()))
            .collect();
        let bed = Bed::prepare(kind, LEVEL, &files).await;
        let first = repeat.unwrap_or_else(|| rand::rng().random_range(0..1 << 48));
        let counted: Arc<Mutex<Counted>> = Arc::default();
        for seed in first..first + runs {
            let done = simulate(&bed, seed, &counted).await;
            done.unwrap_or_else(|why| panic!("{kind:?}, LAKEHOUSE_SEED={seed}: {why}"));
        }
        let counted = counted.lock().unwrap();
        println!("{kind:?}: seeds from {first}: {counted:?}");
        if repeat.is_none() && runs >= 20 {
            let did = |step: &str| counted.steps.get(&format!("{step} done")).copied().unwrap_or(0);
            assert!(counted.written > runs && counted.long_reads > 0, "{counted:?}");
            assert!(
                did("compact") > 0 && did("expire") > 0 && did("vacuum") > 0,
                "{counted:?}"
            );
        }
    });
}

#[test]
fn maintenance_beside_writers_and_readers_loses_nothing_that_is_needed_on_iceberg_v2() {
    seeds(FORMATS[0]);
}

#[test]
fn maintenance_beside_writers_and_readers_loses_nothing_that_is_needed_on_iceberg_v3() {
    seeds(FORMATS[1]);
}

#[test]
fn maintenance_beside_writers_and_readers_loses_nothing_that_is_needed_on_delta() {
    seeds(FORMATS[2]);
}
