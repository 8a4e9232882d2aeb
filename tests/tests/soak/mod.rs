//! Writers, readers and a compactor on one table for a while, each with a clock of its own, over a store that fails now
//! and then; who goes next is drawn from the seed. Invariants: transfers keep the sum of the accounts, keys of merges
//! stay unique, what was appended stays, every scan shows one version, and the rows of every version are those of
//! running the operations one after the other in the order of the history.
//!
//! `LAKEHOUSE_SOAK_SECONDS=600` runs seeds for so long; `LAKEHOUSE_SEED` repeats the one that failed.

mod actors;
mod beside;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lakehouse_core::model::{At, Version};
use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::store::sim::{Fault, Faults, faulty};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::interleave::bed::{Bed, Kind, Level, end, open, over};
use crate::interleave::block_on;
use crate::interleave::cases::drive;
use crate::interleave::explorer::{Explorer, Search};
use crate::interleave::gate::{Gate, Points, Request};
use crate::interleave::history::{Done, Ended, History, Op, Rows, differ};
use crate::support::{number, soak_until};
use crate::verbs::FORMATS;
use actors::{ACTORS, Role, accounts, check_invariants};

/// One request in so many fails.
const FAILS: u64 = 100;
/// Requests of one actor that may fail.
const REQUESTS: u64 = 2_000;
/// How far clocks are off.
const SKEW_MS: i64 = 600_000;
/// Faults that pass.
const FAULTS: [Fault; 7] = [
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::FalseExists,
    Fault::Late,
    Fault::Throttle,
    Fault::CutShort,
    Fault::StaleList,
];

/// What a reader saw: the version and its rows.
type Seen = (Version, Rows);

/// What a run came to.
struct Soaked {
    /// Of who went when with what, and of how everything ended.
    trace: u64,
    operations: usize,
    failed: usize,
    faults: u64,
    scans: usize,
}

/// One seed: some rounds of every actor.
async fn soak(bed: &Bed, seed: u64, rounds: usize) -> Result<Soaked, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let inner = bed.fork();
    let gate = Gate::new(ACTORS.len(), Points::All);
    let time = Source::new(seed);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let mut failing: Vec<Faults> = Vec::new();
    let mut running = Vec::new();
    for (actor, role) in ACTORS.into_iter().enumerate() {
        let (store, faults) = faulty(&gate.store(actor, &over(&inner)));
        for request in 1..REQUESTS {
            if random.random_range(0..FAILS) == 0 {
                faults.fail_at(request, *FAULTS.choose(&mut random).unwrap());
            }
        }
        failing.push(faults);
        let handle = open(bed.kind, store);
        let source = Arc::new(time.actor(random.random(), random.random_range(-SKEW_MS..=SKEW_MS)));
        let mut random = StdRng::seed_from_u64(random.random());
        let (gate, level, seen) = (gate.clone(), bed.level, Arc::clone(&seen));
        running.push(tokio::spawn(async move {
            let work = async {
                let mut done = Vec::new();
                for round in 0..rounds {
                    match role {
                        Role::Reader => {
                            if let Ok(snapshot) = handle.format.snapshot(&At::Latest).await {
                                let scanned = actors::scan(level, &handle, &snapshot).await;
                                seen.lock()
                                    .unwrap()
                                    .extend(scanned.map(|rows| (snapshot.version, rows)));
                            }
                        }
                        _ => {
                            let op = role.op(actor, round, &mut random);
                            let ended = end(level, &handle, &op, 0).await;
                            done.push(Done { op, ended });
                        }
                    }
                }
                done
            };
            gate.actor(actor, clock::simulated(source, work)).await
        }));
    }
    let mut order = Explorer::new(Search::Random { seed, runs: 1 });
    let (_, trace) = drive(&gate, None, &mut order).await;
    let mut done = Vec::new();
    for actor in running {
        let ended = actor.await.map_err(|panic| panic.to_string())?;
        done.extend(ended.expect("it was started"));
    }
    let versions = bed.versions(&inner).await;
    judge(bed, &versions, &done, &seen.lock().unwrap())?;
    let mut hash = DefaultHasher::new();
    let plain: Vec<&(usize, Request)> = trace.iter().collect();
    (plain, versions.iter().map(|(_, rows)| rows).collect::<Vec<_>>()).hash(&mut hash);
    let scans = seen.lock().unwrap().len();
    Ok(Soaked {
        trace: hash.finish(),
        operations: done.len(),
        failed: done
            .iter()
            .filter(|one| matches!(one.ended, Ended::Failed(_)))
            .count(),
        faults: failing.iter().map(Faults::fired).sum(),
        scans,
    })
}

fn judge(bed: &Bed, versions: &[(Version, Rows)], done: &[Done], seen: &[Seen]) -> Result<(), String> {
    // A store that fails may fail an operation, which then has committed nothing; a race may not.
    if let Some(one) = done.iter().find(|one| matches!(one.ended, Ended::Conflict(_))) {
        return Err(format!("{one}: there is nothing that others forbid"));
    }
    let history = History {
        earlier: &bed.earlier,
        versions,
        old: &bed.old.1,
        done,
    };
    history.judge()?;
    for (version, rows) in versions {
        check_invariants(rows).map_err(|why| format!("version {version}: {why}"))?;
    }
    for pair in versions.windows(2) {
        let lost = actors::lost_events(&pair[0].1, &pair[1].1);
        if !lost.is_empty() {
            return Err(format!("version {}: appended rows {lost:?} are gone", pair[1].0));
        }
    }
    for (version, rows) in seen {
        let mut all = bed.earlier.iter().chain(versions);
        let known = all.find(|(known, _)| known == version);
        let Some((_, expected)) = known else {
            return Err(format!(
                "a scan saw version {version}, which is not in the history"
            ));
        };
        if rows != expected {
            return Err(format!("a scan of version {version}: {}", differ(expected, rows)));
        }
    }
    Ok(())
}

async fn bed(kind: Kind, level: Level) -> Bed {
    Bed::prepare(kind, level, &[Op::Append(accounts())]).await
}

/// Seeds until the time is over, or the one that is asked for.
fn seeds(kind: Kind, usual: Duration) {
    block_on(async {
        let until = soak_until().unwrap_or_else(|| Instant::now() + usual);
        let repeat = number("LAKEHOUSE_SEED");
        let beds = [
            bed(kind, Level::Whole { mask: true }).await,
            bed(kind, Level::Whole { mask: false }).await,
        ];
        let first = repeat.unwrap_or_else(|| rand::rng().random_range(0..1 << 48));
        let (mut runs, mut operations, mut failed, mut faults, mut scans) = (0_u64, 0, 0, 0, 0);
        for seed in first.. {
            let done = soak(&beds[(seed % 2) as usize], seed, 5).await;
            let done = done.unwrap_or_else(|why| panic!("{kind:?}, LAKEHOUSE_SEED={seed}: {why}"));
            runs += 1;
            operations += done.operations;
            failed += done.failed;
            faults += done.faults;
            scans += done.scans;
            if repeat.is_some() || Instant::now() >= until {
                break;
            }
        }
        println!(
            "{kind:?}: seeds from {first}: {runs} runs, {operations} operations of which {failed} failed with the store, \
             {scans} scans, {faults} faults"
        );
        assert!(operations > 0 && scans > 0);
    });
}

#[test]
fn many_writers_keep_every_invariant_on_iceberg_v2() {
    seeds(FORMATS[0], Duration::from_secs(8));
}

#[test]
fn many_writers_keep_every_invariant_on_iceberg_v3() {
    seeds(FORMATS[1], Duration::from_secs(8));
}

#[test]
fn many_writers_keep_every_invariant_on_delta() {
    seeds(FORMATS[2], Duration::from_secs(8));
}

/// What goes on in a run is up to its seed alone: at the level of the protocol, where no thread of an engine takes part.
#[test]
fn the_same_seed_gives_the_same_run() {
    block_on(async {
        for kind in FORMATS {
            let bed = bed(kind, Level::Staged).await;
            let mut traces = Vec::new();
            for seed in [1, 1, 2, 2] {
                let done = soak(&bed, seed, 3).await;
                traces.push(
                    done.unwrap_or_else(|why| panic!("{kind:?}, seed {seed}: {why}"))
                        .trace,
                );
            }
            assert_eq!(traces[0], traces[1], "{kind:?}");
            assert_eq!(traces[2], traces[3], "{kind:?}");
            assert_ne!(traces[0], traces[2], "{kind:?}");
        }
    });
}
