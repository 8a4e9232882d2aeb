//! Random operations that meet random winners, against the same operations one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lakehouse_core::model::At;
use lakehouse_core::operations::{SchemaMode, Strategy};
use lakehouse_core::{Compact, Merge, Options, Report, Rows, Table};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::hooked;
use crate::support::memory;
use crate::verbs::{FORMATS, append, content, rows, table_in};

const PROGRAMS: u64 = 120;

/// One operation, chosen at random.
#[derive(Debug, Clone)]
enum Step {
    Append(String),
    Delete(String),
    Update(String),
    Merge(String, Box<Merge>),
    Overwrite(String, String),
    /// Rows with a column that the table may lack.
    AppendColumn(String),
    MergeColumn(String),
    Compact,
    /// The version before the newest.
    Restore,
}

fn values(rng: &mut StdRng, most: usize) -> String {
    let mut ids: Vec<i64> = (0..rng.random_range(1..=most))
        .map(|_| rng.random_range(0..40))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let region = *["eu", "us", "ap"].choose(rng).unwrap();
    let rows: Vec<String> = ids
        .iter()
        .map(|id| format!("({id}, '{region}', {})", rng.random_range(-9..10)))
        .collect();
    rows.join(", ")
}

fn condition(rng: &mut StdRng) -> String {
    let id = rng.random_range(0..40);
    match rng.random_range(0..4) {
        0 => format!("id = {id}"),
        1 => format!("id BETWEEN {id} AND {}", id + rng.random_range(0..4)),
        2 => format!("n = {}", rng.random_range(-9..10)),
        _ => format!("region = 'ap' AND id > {id}"),
    }
}

fn step(rng: &mut StdRng) -> Step {
    match rng.random_range(0..15) {
        0..2 => Step::Append(values(rng, 3)),
        2..4 => Step::Delete(condition(rng)),
        4..6 => Step::Update(condition(rng)),
        6..9 => {
            let mut merge = Merge::on("id");
            merge = match rng.random_range(0..4) {
                0 => merge.when_matched_delete(),
                1 => merge
                    .when_matched_update("n = target.n + source.n")
                    .only_if("target.n < 5"),
                2 => merge.when_matched_update_all().skip_unchanged(),
                _ => merge.when_matched_update_all(),
            };
            if rng.random_bool(0.7) {
                merge = merge.when_not_matched_insert_all();
            }
            if rng.random_bool(0.1) {
                merge = merge.when_not_matched_by_source_delete().only_if("target.n = 3");
            }
            Step::Merge(values(rng, 4), Box::new(merge))
        }
        9 => {
            let id = rng.random_range(0..40);
            Step::Overwrite(format!("id = {id}"), format!("({id}, 'us', 0)"))
        }
        10..12 => Step::Compact,
        12 => Step::AppendColumn(values(rng, 3)),
        13 => Step::MergeColumn(values(rng, 4)),
        _ => Step::Restore,
    }
}

/// The same rows with a column `tip`.
async fn with_column(values: &str) -> Rows {
    rows("id, region, n, tip", &values.replace(')', ", 7)")).await
}

impl Step {
    async fn run(&self, table: &Table, options: &Options) -> Report {
        let source = |values: &str| {
            let values = values.to_owned();
            async move { rows("id, region, n", &values).await }
        };
        let merging = options.clone().schema_mode(SchemaMode::Merge);
        let done = match self {
            Self::Append(values) => table.append(source(values).await, options).await,
            Self::Delete(condition) => table.delete(condition, options).await,
            Self::Update(condition) => table.update("n = n + 1", Some(condition), options).await,
            Self::Merge(values, merge) => table.merge(source(values).await, merge, options).await,
            Self::Overwrite(condition, values) => {
                table
                    .overwrite(source(values).await, Some(condition), options)
                    .await
            }
            Self::AppendColumn(values) => table.append(with_column(values).await, &merging).await,
            Self::MergeColumn(values) => {
                let merge = Merge::on("id")
                    .when_matched_update_all()
                    .when_not_matched_insert_all();
                table.merge(with_column(values).await, &merge, &merging).await
            }
            Self::Compact => table.compact(&Compact::default(), options).await,
            Self::Restore => table.restore(&At::Version(-1), options).await,
        };
        done.unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

#[tokio::test]
async fn an_operation_that_lost_a_race_ends_as_if_it_had_come_later() {
    let (mut lost, mut adapted) = (0, 0);
    for seed in 0..PROGRAMS {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let format = FORMATS[(seed % 3) as usize];
        let partitioning = *["", "", "bucket(2, id)", "region"].choose(rng).unwrap();
        let base: Vec<String> = (0..rng.random_range(1..4)).map(|_| values(rng, 12)).collect();
        let before: Vec<Step> = (0..rng.random_range(0..2)).map(|_| step(rng)).collect();
        let winners: Vec<Step> = (0..rng.random_range(1..4)).map(|_| step(rng)).collect();
        // A restore that lost a race is a conflict.
        let mine = loop {
            match step(rng) {
                Step::Restore => {}
                other => break other,
            }
        };
        let options = Options {
            strategy: *[
                Strategy::Auto,
                Strategy::MergeOnRead,
                Strategy::MergeOnRead,
                Strategy::CopyOnWrite,
            ]
            .choose(rng)
            .unwrap(),
            ..Options::default()
        };

        let (store, hook) = hooked::store();
        let raced = table_in(store.clone(), format, partitioning).await;
        let serial = table_in(memory("serial"), format, partitioning).await;
        for table in [&raced, &serial] {
            for values in &base {
                append(table, values).await;
            }
            for step in &before {
                step.run(table, &options).await;
            }
        }
        let rival = Table::open_in(hook.plain(&store)).await.unwrap();
        // Some win the first race, some the second.
        let (first, second) = winners.split_at(rng.random_range(1..=winners.len()));
        let (first, second, theirs) = (first.to_vec(), second.to_vec(), options.clone());
        let ran = Arc::new(AtomicUsize::new(0));
        let (again, count) = (hook.clone(), Arc::clone(&ran));
        hook.before_commit(async move {
            for step in &first {
                step.run(&rival, &theirs).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
            if !second.is_empty() {
                again.before_commit(async move {
                    for step in &second {
                        step.run(&rival, &theirs).await;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let report = mine.run(&raced, &options).await;
        // Those that ran, ran before it.
        let ran = ran.load(Ordering::Relaxed);
        for step in winners[..ran].iter().chain([&mine]) {
            step.run(&serial, &options).await;
        }
        lost += u32::from(report.attempts > 1);
        adapted += u32::from(report.attempts > 1 && report.plans == 1);
        assert_eq!(
            content(&raced).await,
            content(&serial).await,
            "seed {seed}, {format:?}: {base:?}, then {before:?}; {mine:?} met {winners:?}: {report:?}"
        );
    }
    assert!(
        lost >= 40 && adapted >= 15,
        "too few races: {lost} lost, {adapted} fitted"
    );
}
