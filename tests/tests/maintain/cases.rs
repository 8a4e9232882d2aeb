//! What maintenance does and does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use lakehouse_core::model::{At, Version};
use lakehouse_core::operations::maintain::{Bytes, Policy, Step, StepOutcome, Time};
use lakehouse_core::store::Store;
use lakehouse_core::{Options, Table, TableFormat};

use super::{maintained, neglected, outcome, run, why};
use crate::support::memory;
use crate::vacuum::aged::{Aged, DAY};
use crate::verbs::check::{checked_all, wrong};
use crate::verbs::{FORMATS, append, content, rows_at, table_made};

const METADATA: [Step; 2] = [Step::RewriteManifests, Step::Checkpoint];

/// Every object with its size and when it was written.
async fn objects(store: &Store) -> BTreeMap<String, (u64, i64)> {
    let listed = store.list("").await.unwrap();
    listed
        .into_iter()
        .map(|object| (object.path, (object.bytes, object.modified_ms)))
        .collect()
}

/// The versions that can be read, with their rows.
async fn versions(aged: &Aged) -> BTreeMap<Version, Vec<String>> {
    let newest = aged.at(aged.table.snapshot(&At::Latest)).await.unwrap();
    let found = aged
        .at(aged.table.handle().format.versions(&newest))
        .await
        .unwrap();
    let mut rows = BTreeMap::new();
    for one in found.iter().filter(|one| one.version != 0) {
        let at = At::Version(one.version);
        rows.insert(one.version, aged.at(rows_at(aged.store(), &at)).await.unwrap());
    }
    rows
}

fn policy(toml: &str) -> Policy {
    Policy::from_toml(toml, "test").unwrap()
}

#[tokio::test]
async fn a_neglected_table_is_put_in_order_and_a_second_run_does_nothing() {
    for format in FORMATS {
        let aged = neglected(format, 40, &[]).await;
        let before = aged.at(content(&aged.table)).await;
        let (all, past) = (objects(aged.store()).await, versions(&aged).await);
        let planned = aged.at(run(&aged.table, &Policy::default(), true)).await.unwrap();
        assert_eq!(
            objects(aged.store()).await,
            all,
            "{format:?}: a dry run writes nothing"
        );
        assert!(planned.dry_run && !planned.did_something(), "{planned:?}");

        let done = aged.at(maintained(&aged.table, &Policy::default())).await;
        let told = format!("{format:?}: {done:#?}");
        assert_eq!(outcome(&done, Step::Compact), "done", "{told}");
        assert_eq!(outcome(&done, Step::Expire), "done", "{told}");
        // The file that no version has, and manifest lists of the versions that went.
        assert!(done.step(Step::Vacuum).unwrap().figure("files") >= 1, "{told}");
        assert_eq!(planned.step(Step::Vacuum).unwrap().figure("files"), 1, "{told}");
        assert!(
            !aged.keys().await.iter().any(|key| key.contains("left-behind")),
            "{told}"
        );
        for (step, report) in planned.steps.iter().zip(&done.steps) {
            assert_eq!(step.step, report.step);
            // Compaction itself joins manifests, and commits write checkpoints.
            if !METADATA.contains(&step.step) {
                assert_eq!(
                    step.outcome.name() == "planned",
                    report.outcome.name() == "done",
                    "{told}"
                );
            }
        }
        for name in ["files", "bytes", "new_files", "masked_rows"] {
            let figures = [&planned, &done].map(|one| one.step(Step::Compact).unwrap().figure(name));
            assert_eq!(figures[0], figures[1], "{format:?}: {name}");
        }
        assert_eq!(aged.at(content(&aged.table)).await, before, "{format:?}");
        let files = aged.at(aged.table.files(&At::Latest)).await.unwrap();
        assert_eq!(files.len(), 2, "{format:?}: one for each partition");

        let after = versions(&aged).await;
        let gone: BTreeSet<&Version> = past
            .keys()
            .filter(|version| !after.contains_key(version))
            .collect();
        assert_eq!(
            gone.iter().filter(|version| ***version != 0).count(),
            5,
            "{format:?}: those that were replaced 40 days ago, and not the one that was read until yesterday: {gone:?}"
        );
        for (version, rows) in &past {
            assert!(
                after.get(version).is_none_or(|found| found == rows),
                "{format:?}: {version}"
            );
        }
        let checked = aged.at(checked_all(&aged.table)).await;
        assert!(wrong(&checked).is_empty(), "{format:?}: {:#?}", wrong(&checked));

        let all = objects(aged.store()).await;
        let again = aged.at(maintained(&aged.table, &Policy::default())).await;
        let nothing = |report: &_| matches!(report, StepOutcome::Nothing);
        assert!(
            again.steps.iter().all(|one| nothing(&one.outcome)),
            "{format:?}: {again:#?}"
        );
        assert_eq!(again.version, done.version);
        assert_eq!(objects(aged.store()).await, all, "{format:?}");

        // Once all that is old, one version is left, and what it needs.
        aged.clock.advance(DAY * 60);
        let late = aged.at(maintained(&aged.table, &Policy::default())).await;
        assert_eq!(outcome(&late, Step::Vacuum), "done", "{format:?}: {late:#?}");
        assert_eq!(aged.at(content(&aged.table)).await, before, "{format:?}");
        let data = |path: &&String| path.ends_with(".parquet") && !path.contains("checkpoint");
        assert_eq!(
            objects(aged.store()).await.keys().filter(data).count(),
            2,
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn the_version_that_was_current_until_now_stays_readable_however_old_it_is() {
    for format in FORMATS {
        let aged = neglected(format, 1, &[]).await;
        // Nothing happens for a long time, but somebody begins to read.
        aged.clock.advance(DAY * 90);
        let newest = aged.at(aged.table.snapshot(&At::Latest)).await.unwrap().version;
        let before = aged.at(content(&aged.table)).await;
        let strict = policy("[expire]\nolder-than = \"2d\"\n[vacuum]\nolder-than = \"2d\"\n");
        let done = aged.at(maintained(&aged.table, &strict)).await;
        assert_eq!(outcome(&done, Step::Compact), "done", "{format:?}");
        for _ in 0..2 {
            aged.clock.advance(DAY / 2);
            let rows = aged
                .at(rows_at(aged.store(), &At::Version(newest)))
                .await
                .unwrap();
            assert_eq!(rows, before, "{format:?}: {done:#?}");
            aged.at(maintained(&aged.table, &strict)).await;
        }
        aged.clock.advance(DAY * 3);
        aged.at(maintained(&aged.table, &strict)).await;
        let gone = aged.at(rows_at(aged.store(), &At::Version(newest))).await;
        assert!(
            gone.is_err(),
            "{format:?}: two days after it was replaced it goes"
        );
        assert_eq!(aged.at(content(&aged.table)).await, before, "{format:?}");
    }
}

#[tokio::test]
async fn what_a_table_says_of_itself_counts_more_than_a_policy_for_many() {
    let strict = policy("[expire]\nolder-than = \"2d\"\n[vacuum]\nolder-than = \"2d\"\n");
    for format in FORMATS {
        let said: &[(&str, &str)] = match format.0 {
            TableFormat::Iceberg => &[("history.expire.max-snapshot-age-ms", "5184000000")],
            TableFormat::Delta => &[
                ("delta.logRetentionDuration", "interval 60 days"),
                ("delta.deletedFileRetentionDuration", "interval 60 days"),
            ],
        };
        for (properties, expected) in [(said, "nothing"), (&[], "done")] {
            let aged = neglected(format, 40, properties).await;
            let done = aged.at(maintained(&aged.table, &strict)).await;
            assert_eq!(
                outcome(&done, Step::Expire),
                expected,
                "{format:?} {properties:?}: {done:#?}"
            );
            if format.0 == TableFormat::Delta {
                assert_eq!(
                    outcome(&done, Step::Vacuum),
                    expected,
                    "{properties:?}: {done:#?}"
                );
            }
        }
        // The other way round a table cannot let go what readers have just begun with.
        let hasty: &[(&str, &str)] = match format.0 {
            TableFormat::Iceberg => &[("history.expire.max-snapshot-age-ms", "1")],
            TableFormat::Delta => &[("delta.logRetentionDuration", "interval 1 hour")],
        };
        let aged = neglected(format, 1, hasty).await;
        let done = aged.at(maintained(&aged.table, &Policy::default())).await;
        assert_eq!(
            done.step(Step::Expire).unwrap().figure("versions"),
            0,
            "{format:?}: {done:#?}"
        );
    }
}

#[tokio::test]
async fn a_machine_whose_clock_is_wrong_lets_nothing_go_early() {
    let year = DAY.as_millis() as i64 * 365;
    for format in FORMATS {
        for skew in [year, 600_000, -year] {
            let aged = neglected(format, 1, &[]).await;
            let past = versions(&aged).await;
            let done = aged
                .skewed(skew, maintained(&aged.table, &Policy::default()))
                .await;
            assert_eq!(
                outcome(&done, Step::Expire),
                "nothing",
                "{format:?} {skew}: {done:#?}"
            );
            assert_eq!(
                outcome(&done, Step::Vacuum),
                "nothing",
                "{format:?} {skew}: {done:#?}"
            );
            let after = versions(&aged).await;
            for (version, rows) in &past {
                assert_eq!(
                    after.get(version),
                    Some(rows),
                    "{format:?} {skew}: version {version}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_time_is_shared_and_what_is_left_is_told_and_done_by_the_next_run() {
    for format in FORMATS {
        let aged = neglected(format, 40, &[]).await;
        let none = Policy {
            max_time: Some(Time(Duration::from_millis(1))),
            ..Policy::default()
        };
        let done = aged.at(maintained(&aged.table, &none)).await;
        let compact = done.step(Step::Compact).unwrap();
        assert!(why(&done, Step::Compact).contains("time"), "{done:#?}");
        assert!(compact.left.values().sum::<u64>() > 0, "{done:#?}");
        let metadata = METADATA
            .into_iter()
            .find(|step| done.step(*step).is_some())
            .unwrap();
        assert!(why(&done, metadata).contains("time"), "{done:#?}");
        assert_eq!(outcome(&done, Step::Expire), "done", "{format:?}: {done:#?}");
        assert_eq!(outcome(&done, Step::Vacuum), "done", "{format:?}: {done:#?}");
        let little = Policy {
            max_bytes: Some(Bytes(1)),
            ..Policy::default()
        };
        let done = aged.at(maintained(&aged.table, &little)).await;
        assert!(why(&done, Step::Compact).contains("bytes"), "{done:#?}");
        let done = aged.at(maintained(&aged.table, &Policy::default())).await;
        assert_eq!(outcome(&done, Step::Compact), "done", "{format:?}: {done:#?}");
    }
}

#[tokio::test]
async fn steps_that_the_policy_leaves_out_are_left_out() {
    for format in FORMATS {
        let aged = neglected(format, 40, &[]).await;
        let all = objects(aged.store()).await;
        let nothing: String = ["compact", "rewrite-manifests", "checkpoint", "expire", "vacuum"]
            .map(|step| format!("[{step}]\nenabled = false\n"))
            .concat();
        let done = aged.at(maintained(&aged.table, &policy(&nothing))).await;
        assert!(
            done.steps
                .iter()
                .all(|one| one.outcome.why().is_some_and(|why| why.contains("policy"))),
            "{done:#?}"
        );
        assert_eq!(objects(aged.store()).await, all, "{format:?}");
    }
}

#[tokio::test]
async fn after_damage_nothing_is_removed() {
    for format in FORMATS {
        let aged = neglected(format, 40, &[]).await;
        let files = aged.at(aged.table.files(&At::Latest)).await.unwrap();
        aged.store().delete(&[files[0].path.clone()]).await.unwrap();
        let all = objects(aged.store()).await;
        let done = aged
            .at(run(&aged.table, &Policy::default(), false))
            .await
            .unwrap();
        let told = format!("{format:?}: {done:#?}");
        assert!(why(&done, Step::Expire).contains("damage"), "{told}");
        assert!(why(&done, Step::Vacuum).contains("damage"), "{told}");
        let left = objects(aged.store()).await;
        for key in all.keys() {
            assert!(left.contains_key(key), "{key} is gone: {told}");
        }
    }
}

#[tokio::test]
async fn it_ends_between_two_steps_when_it_is_told_to() {
    for format in FORMATS {
        let aged = neglected(format, 40, &[]).await;
        let mut told = Vec::new();
        let mut stop = |report: &lakehouse_core::operations::maintain::StepReport| {
            told.push(report.step);
            ControlFlow::Break(())
        };
        let (policy, options) = (Policy::default(), Options::default());
        let done = aged.table.maintain(&policy, &options, &mut stop);
        let done = aged.at(done).await.unwrap();
        assert_eq!(outcome(&done, Step::Compact), "done", "{format:?}");
        for step in [Step::Expire, Step::Vacuum] {
            assert!(why(&done, step).contains("stop"), "{format:?}: {done:#?}");
        }
        assert_eq!(told[0], Step::Compact);
        assert_eq!(told.len(), done.steps.len());
    }
}

#[tokio::test]
async fn health_says_what_a_dry_run_says() {
    for format in FORMATS {
        let aged = neglected(format, 40, &[]).await;
        for maintain in [false, true] {
            if maintain {
                aged.at(maintained(&aged.table, &Policy::default())).await;
            }
            let health = aged.at(aged.table.health()).await.unwrap();
            let planned = aged.at(run(&aged.table, &Policy::default(), true)).await.unwrap();
            assert_eq!(
                health.to_json()["maintenance"],
                planned.to_json()["steps"],
                "{format:?}"
            );
            let compact = planned.step(Step::Compact).unwrap();
            assert_eq!(health.to_compact.files, compact.figure("files"), "{format:?}");
            assert_eq!(health.to_compact.files > 0, !maintain, "{format:?}");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_commits_could_not_write_is_written() {
    let aged = Aged::new(
        (TableFormat::Delta, None),
        "",
        &[("delta.checkpointInterval", "100")],
    )
    .await;
    for id in 0..12 {
        aged.at(append(&aged.table, &format!("({id}, 'eu', 1)"))).await;
    }
    // From now on there should have been some.
    let alter = lakehouse_core::Alter::default().property("delta.checkpointInterval", Some("5"));
    aged.at(aged.table.alter(&alter, &Options::default()))
        .await
        .unwrap();
    let only = policy("[compact]\nenabled = false\n");
    let done = aged.at(maintained(&aged.table, &only)).await;
    assert_eq!(outcome(&done, Step::Checkpoint), "done", "{done:#?}");
    assert_eq!(done.step(Step::Checkpoint).unwrap().figure("log_entries"), 14);
    let again = aged.at(maintained(&aged.table, &only)).await;
    assert_eq!(outcome(&again, Step::Checkpoint), "nothing", "{again:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_on_one_table_are_harmless() {
    for format in FORMATS {
        for round in 0..4 {
            let store = memory(&format!("two-{round}"));
            let table = table_made(store.clone(), format, "region", &[]).await;
            for id in 0..6 {
                append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 100)).await;
            }
            table.delete("id = 1", &Options::default()).await.unwrap();
            let before = content(&table).await;
            let both = [0, 1].map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let table = Table::open_in(store).await?;
                    run(&table, &Policy::default(), false).await
                })
            });
            for one in both {
                let done = one.await.unwrap().unwrap();
                for (step, error) in done.failed() {
                    let conflict = matches!(error, lakehouse_core::Error::Conflict { .. });
                    assert!(conflict, "{format:?}: {step:?}: {error}");
                }
            }
            assert_eq!(content(&table).await, before, "{format:?}");
            let last = maintained(&table, &Policy::default()).await;
            assert_eq!(outcome(&last, Step::Compact), "nothing", "{format:?}: {last:#?}");
            let checked = checked_all(&table).await;
            assert!(wrong(&checked).is_empty(), "{format:?}: {:#?}", wrong(&checked));
        }
    }
}
