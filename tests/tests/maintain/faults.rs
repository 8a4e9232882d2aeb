//! Maintenance over a store that fails at each of its requests, or goes away there: rows and retained versions stay, and
//! running it again ends well.

use std::sync::Arc;

use lakehouse_core::model::{At, Version};
use lakehouse_core::operations::maintain::{Policy, Step};
use lakehouse_core::store::Store;
use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::store::sim::{Fault, Times, faulty};
use lakehouse_core::{Error, Table, TableFormat};
use object_store::memory::InMemory;

use super::{outcome, run};
use crate::interleave::block_on;
use crate::support::setting;
use crate::vacuum::aged::DAY;
use crate::verbs::{append, content, rows_at, table_made};

const FAULTS: [Fault; 7] = [
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::Late,
    Fault::Throttle,
    Fault::CutShort,
    Fault::StaleList,
    Fault::Crash,
];

fn over(memory: InMemory) -> Store {
    Store::over(Arc::new(memory), "memory://maintain".parse().unwrap())
}

/// Every so many requests; all of them with `LAKEHOUSE_MAINTAIN_EVERY=1`.
fn sweep(format: (TableFormat, Option<u8>)) {
    block_on(async {
        let every = setting("LAKEHOUSE_MAINTAIN_EVERY", 5);
        let memory = InMemory::new();
        let clock = Arc::new(Source::new(1));
        let times = Times::new(Arc::clone(&clock));
        // Each at the time of the clock, with ids of its own.
        let at = |seed: u64| Arc::new(clock.actor(seed, 0));
        let prepared = times.over(&over(memory.clone()));
        let table = clock::simulated(at(2), async {
            let table = table_made(prepared.clone(), format, "region", &[]).await;
            for id in 0..3 {
                append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 100)).await;
            }
            table
        });
        let table = table.await;
        clock.advance(DAY * 40);
        let kept: Vec<(Version, Vec<String>)> = clock::simulated(at(3), async {
            append(&table, "(50, 'eu', 3)").await;
            let plain = lakehouse_core::Options::default();
            table.delete("id = 1", &plain).await.unwrap();
            let history = table.history(Some(2)).await.unwrap();
            let mut kept = Vec::new();
            for commit in history {
                let rows = rows_at(&prepared, &At::Version(commit.version)).await;
                kept.push((commit.version, rows.unwrap()));
            }
            kept
        })
        .await;
        let rows = clock::simulated(at(4), content(&table)).await;
        let strict = "[expire]\nolder-than = \"2d\"\n[vacuum]\nolder-than = \"2d\"\n";
        let policy = Policy::from_toml(strict, "test").unwrap();

        let (counting, faults) = faulty(&times.over(&over(memory.fork())));
        let done = clock::simulated(at(5), async {
            let table = Table::open_in(counting).await?;
            run(&table, &policy, false).await
        });
        let done = done.await.unwrap();
        for step in [Step::Compact, Step::Expire] {
            assert_eq!(outcome(&done, step), "done", "{format:?}: {done:#?}");
        }
        let (requests, mut met) = (faults.requests(), 0);
        for (number, fault) in FAULTS.into_iter().enumerate() {
            let first = 1 + number as u64 % every;
            for request in (first..=requests).step_by(usize::try_from(every).unwrap()) {
                let case = format!("{format:?}: {fault:?} at request {request}");
                let healthy = times.over(&over(memory.fork()));
                let (store, faults) = faulty(&healthy);
                faults.fail_at(request, fault);
                let seed = 10 + request + 1000 * number as u64;
                let result = clock::simulated(at(seed), async {
                    let table = Table::open_in(store).await?;
                    run(&table, &policy, false).await
                });
                let result = result.await;
                met += faults.fired();
                let judged = clock::simulated(at(seed + 500), async {
                    let look = async |when: &str| {
                        let table = Table::open_in(healthy.clone()).await.unwrap();
                        assert_eq!(content(&table).await, rows, "{case}, {when}: {result:?}");
                        for (version, rows) in &kept {
                            let found = rows_at(&healthy, &At::Version(*version)).await;
                            let found =
                                found.unwrap_or_else(|error| panic!("{case}, {when}: {version}: {error}"));
                            assert_eq!(found, *rows, "{case}, {when}: {version}");
                        }
                    };
                    look("afterwards").await;
                    faults.deliver(&healthy).await;
                    look("when it arrived").await;
                    let table = Table::open_in(healthy.clone()).await.unwrap();
                    for again in 0..2 {
                        let done = run(&table, &policy, false).await.unwrap();
                        assert_eq!(done.failed().count(), 0, "{case}, again: {done:#?}");
                        assert!(
                            again == 0 || !done.did_something(),
                            "{case}, the third run: {done:#?}"
                        );
                    }
                    look("again").await;
                });
                judged.await;
            }
        }
        println!("{format:?}: {requests} requests, {met} faults met");
        assert!(met > requests / every, "{format:?}");
    });
}

#[test]
fn maintenance_of_iceberg_v2_survives_faults_at_its_requests() {
    sweep((TableFormat::Iceberg, Some(2)));
}

#[test]
fn maintenance_of_iceberg_v3_survives_faults_at_its_requests() {
    sweep((TableFormat::Iceberg, Some(3)));
}

#[test]
fn maintenance_of_delta_survives_faults_at_its_requests() {
    sweep((TableFormat::Delta, None));
}

/// Without the store's time nothing can be told to be old.
#[test]
fn a_vacuum_that_cannot_learn_the_time_removes_nothing() {
    block_on(async {
        for format in [(TableFormat::Iceberg, Some(2)), (TableFormat::Delta, None)] {
            let aged = super::neglected(format, 40, &[]).await;
            let (store, faults) = faulty(aged.store());
            let only = "[compact]\nenabled = false\n[expire]\nenabled = false\n[rewrite-manifests]\nenabled = false\n\
                        [checkpoint]\nenabled = false\n";
            let policy = Policy::from_toml(only, "test").unwrap();
            let before = aged.keys().await;
            let log = aged.at(async {
                let table = Table::open_in(store.clone()).await.unwrap();
                faults.reset();
                let dry = run(&table, &policy, true).await.unwrap();
                assert_eq!(dry.step(Step::Vacuum).unwrap().figure("files"), 1, "{dry:#?}");
                assert!(
                    faults.log().iter().all(|(kind, _)| !kind.is_write()),
                    "{:?}",
                    faults.log()
                );
                faults.reset();
                faults.refuse(Some(lakehouse_core::store::sim::Refusal::ReadOnly));
                run(&table, &policy, false).await.unwrap()
            });
            let done = log.await;
            let error = done.failed().next().expect("the vacuum fails").1;
            assert!(
                matches!(error, Error::Store { .. } | Error::Denied { .. }),
                "{error:?}"
            );
            assert_eq!(aged.keys().await, before, "{format:?}");
        }
    });
}
