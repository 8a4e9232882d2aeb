//! Differential test: random tables, random programs, a naive model in memory. Every version that a
//! program makes is read back by time travel and compared with the model, and what is different between some of them, in
//! every format.
//!
//! `LAKEHOUSE_PROGRAMS=5000` runs more programs, `LAKEHOUSE_SOAK_SECONDS=600` others for so long,
//! `LAKEHOUSE_SEED=17` runs one again and prints it. Tables of evolutions are left for other readers (`evolved.rs`).

mod diffs;
mod evolution;
mod evolved;
mod program;
mod reference;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use evolved::Shelf;
use lakehouse_core::store::Store;
use program::Evolving;
use rand::Rng;
use run::{Kind, run_program, run_program_with_crash};

use crate::support::{memory, number, soak_until};

const PROGRAMS: u64 = 500;
/// Of either kind of evolution.
const EVOLUTIONS: u64 = 1000;

/// A program of this seed in a store that is gone in the middle of it, in every format.
pub(crate) async fn crash(seed: u64) -> Result<(), String> {
    for kind in Kind::ALL {
        run_program_with_crash(seed, kind, memory(&format!("crash-{seed}"))).await?;
    }
    Ok(())
}

#[test]
fn every_format_agrees_with_the_model_at_every_version() {
    programs(PROGRAMS, Evolving::No, &Kind::ALL);
}

#[test]
fn columns_that_come_go_and_change_agree_with_the_model_at_every_version() {
    programs(EVOLUTIONS, Evolving::Columns, &Kind::ALL);
}

#[test]
fn partitionings_that_follow_one_another_agree_with_the_model_at_every_version() {
    programs(
        EVOLUTIONS,
        Evolving::Partitioning,
        &[Kind::IcebergV2, Kind::IcebergV3],
    );
}

fn programs(usual: u64, evolving: Evolving, kinds: &'static [Kind]) {
    if let Some(seed) = number("LAKEHOUSE_SEED") {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for kind in kinds {
            println!("{:#?}", program::Program::evolving(seed, evolving));
            let store = memory(&format!("program-{seed}"));
            if let Err(why) = runtime.block_on(run_program(seed, evolving, *kind, store)) {
                panic!("{why}");
            }
        }
        return;
    }
    let until = soak_until();
    let usual = if until.is_some() { u64::MAX } else { usual };
    let programs = number("LAKEHOUSE_PROGRAMS").unwrap_or(usual);
    // Those that every run does are known to be well.
    let first = until.map_or(0, |_| rand::rng().random_range(PROGRAMS..1 << 48));
    let next = Arc::new(AtomicU64::new(first));
    let shelf = (until.is_none() && evolving != Evolving::No).then(|| Arc::new(Shelf::clear(evolving)));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (next, shelf) = (Arc::clone(&next), shelf.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let mut failures = Vec::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = until.is_some_and(|until| Instant::now() >= until);
                    if seed >= programs || late || failures.len() >= 5 {
                        return failures;
                    }
                    let shelf = shelf.as_ref().filter(|shelf| shelf.takes(seed));
                    for kind in kinds {
                        let done = match shelf {
                            Some(shelf) => runtime.block_on(shelf.run(seed, *kind)),
                            None => {
                                let store = memory(&format!("program-{seed}"));
                                let done = runtime.block_on(run_program(seed, evolving, *kind, store));
                                done.map(drop)
                            }
                        };
                        failures.extend(done.err());
                    }
                }
            })
        })
        .collect();
    let failures: Vec<String> = workers
        .into_iter()
        .flat_map(|worker| worker.join().unwrap())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    if let Some(shelf) = shelf {
        shelf.open();
    }
    // Each worker drew one more, and left it.
    let done = next.load(Ordering::Relaxed) - first - threads as u64;
    println!("{done} programs from {first}, {evolving:?}");
}

/// The same on local disk, where files are synced and linked: fewer programs, since it takes longer.
#[test]
fn tables_on_local_disk_agree_with_the_model_too() {
    const LOCAL_PROGRAMS: u64 = 12;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in 0..LOCAL_PROGRAMS {
        for kind in Kind::ALL {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a table, ünusual % name");
            let store = Store::open(path.to_str().unwrap()).unwrap();
            if let Err(why) = runtime.block_on(run_program(seed, Evolving::No, kind, store)) {
                panic!("{why}");
            }
        }
    }
}
