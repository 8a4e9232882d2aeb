//! Tables made of files that were there before: once only the newest version is left, a vacuum that may take adopted files
//! leaves what that version needs, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lakehouse_core::model::{At, ObjectKind};
use lakehouse_core::operations::check::Check;
use lakehouse_core::operations::vacuum::FLOOR_MS;
use lakehouse_core::operations::{Adoption, Expire, Strategy};
use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::store::sim::Times;
use lakehouse_core::{Compact, Merge, Options, Table, TableFormat, Vacuum};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::aged::Aged;
use crate::support::{memory, number, setting};
use crate::verbs::adopt::put;
use crate::verbs::{FORMATS, content, rows};

const HOUR: Duration = Duration::from_secs(3600);
const REGIONS: [&str; 3] = ["eu", "us", "asia"];
/// Rows of each adopted file.
const ROWS: i64 = 40;

/// What a table must hold: `n` and the region by id.
type Model = BTreeMap<i64, (i64, &'static str)>;

/// A table of files of others, one for each region, by the simulated clock: each in its region's folder, which makes a
/// partition, or all in one.
async fn adopted(format: (TableFormat, Option<u8>), folders: bool) -> (Aged, Model) {
    let clock = Arc::new(Source::new(1));
    let store = Times::new(Arc::clone(&clock)).over(&memory("adopted"));
    let mut model = Model::new();
    for (first, region) in (0..).step_by(100).zip(REGIONS) {
        let last = first + ROWS - 1;
        let (place, column) = match folders {
            true => (format!("region={region}/part-0.parquet"), String::new()),
            false => (format!("{region}.parquet"), format!(", '{region}' AS region")),
        };
        let sql = format!("SELECT value AS id, value % 7 AS n{column} FROM generate_series({first}, {last})");
        put(&store, &place, &sql).await;
        model.extend((first..=last).map(|id| (id, (id % 7, region))));
    }
    let adoption = Adoption {
        format_version: format.1,
        ..Adoption::default()
    };
    let made = Table::adopt_in(store, format.0, &adoption, false);
    let (table, _) = clock::simulated(Arc::clone(&clock), made).await.unwrap();
    (Aged { table, clock }, model)
}

/// One change by a random verb, and what it makes of the model.
async fn change(table: &Table, random: &mut StdRng, model: &mut Model) -> String {
    let options = Options {
        strategy: *[Strategy::Auto, Strategy::MergeOnRead, Strategy::CopyOnWrite]
            .choose(random)
            .unwrap(),
        ..Options::default()
    };
    let first = random.random_range(0..260_i64);
    let some = first..first + random.random_range(1..60);
    let between = format!("id BETWEEN {} AND {}", some.start, some.end - 1);
    let region = *REGIONS.choose(random).unwrap();
    let said = match random.random_range(0..5) {
        0 => {
            let fresh = some.clone().step_by(9);
            let values: Vec<String> = fresh
                .clone()
                .map(|id| format!("({id}, {}, '{region}')", id * 2))
                .collect();
            let merge = Merge::on("id")
                .when_matched_update("n = source.n")
                .when_not_matched_insert_all();
            let source = rows("id, n, region", &values.join(", ")).await;
            table.merge(source, &merge, &options).await.unwrap();
            for id in fresh {
                model.entry(id).or_insert((0, region)).0 = id * 2;
            }
            "merge"
        }
        1 => {
            table.delete(&between, &options).await.unwrap();
            model.retain(|id, _| !some.contains(id));
            "delete"
        }
        2 => {
            table.update("n = n + 1", Some(&between), &options).await.unwrap();
            model.range_mut(some.clone()).for_each(|(_, row)| row.0 += 1);
            "update"
        }
        3 => {
            let set = format!("region = '{region}'");
            table.update(&set, Some(&between), &options).await.unwrap();
            model.range_mut(some.clone()).for_each(|(_, row)| row.1 = region);
            "move"
        }
        _ => {
            table.compact(&Compact::default(), &options).await.unwrap();
            "compact"
        }
    };
    format!("{said} {between} {:?}", options.strategy)
}

/// Everything but the newest version goes, and what only others needed with it.
async fn cleaned(aged: &Aged) {
    let expire = Expire {
        older_than_ms: Some(0),
        retain_last: Some(1),
    };
    aged.table.expire(&expire, &Options::default()).await.unwrap();
    let vacuum = Vacuum {
        older_than_ms: Some(FLOOR_MS),
        adopted: true,
        ..Vacuum::default()
    };
    aged.table.vacuum(&vacuum).await.unwrap();
}

/// What is there that a vacuum could take, by what it is.
async fn there(aged: &Aged) -> BTreeSet<(ObjectKind, String)> {
    let snapshot = aged.table.snapshot(&At::Latest).await.unwrap();
    let format = &aged.table.handle().format;
    let keys = aged.keys().await.into_iter();
    keys.map(|key| (format.kind(&snapshot, &key), key))
        .filter(|(kind, _)| kind.is_removable())
        .collect()
}

/// What the newest version needs of that: its data files with their masks, as a scan gets them, and its metadata.
async fn needed(aged: &Aged) -> BTreeSet<(ObjectKind, String)> {
    let snapshot = aged.table.snapshot(&At::Latest).await.unwrap();
    let format = &aged.table.handle().format;
    let files = aged.table.files(&At::Latest).await.unwrap();
    let of_files = files.iter().flat_map(|file| file.objects());
    let metadata = format.reachable(Some(&[snapshot.version])).await.unwrap();
    let is_data = |kind: &ObjectKind| matches!(kind, ObjectKind::Data | ObjectKind::Mask);
    let named = |key: String| (format.kind(&snapshot, &key), key);
    let metadata = metadata.into_iter().map(named);
    let of_files = of_files.map(|(key, _)| named(key.to_owned()));
    of_files
        .chain(metadata.filter(|(kind, _)| kind.is_removable() && !is_data(kind)))
        .collect()
}

async fn simulated(format: (TableFormat, Option<u8>), seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let folders = random.random_bool(0.5);
    let (aged, mut model) = adopted(format, folders).await;
    let mut said = vec![format!("folders: {folders}")];
    for _ in 0..random.random_range(3..12) {
        aged.clock.advance(HOUR * random.random_range(0..5));
        said.push(aged.at(change(&aged.table, &mut random, &mut model)).await);
        if random.random_bool(0.2) {
            // Much is too young by then, and must go the next time.
            aged.at(cleaned(&aged)).await;
            said.push("expire, vacuum".to_owned());
        }
    }
    let what = || format!("LAKEHOUSE_SEED={seed}, {format:?}: {said:#?}");
    aged.clock
        .advance(HOUR * (FLOOR_MS / HOUR.as_millis() as i64 + 1) as u32);
    aged.at(cleaned(&aged)).await;
    let (there, needed) = aged.at(async { (there(&aged).await, needed(&aged).await) }).await;
    let left: Vec<_> = there.difference(&needed).collect();
    let gone: Vec<_> = needed.difference(&there).collect();
    assert!(
        left.is_empty() && gone.is_empty(),
        "left: {left:?}, gone: {gone:?}, {}",
        what()
    );
    let checked = aged.at(aged.table.check(&Check::default())).await.unwrap();
    assert!(checked.is_clean(), "{:#?}, {}", checked.findings, what());
    let mut expected: Vec<String> = model
        .iter()
        .map(|(id, (n, region))| format!("{id}|{n}|{region}"))
        .collect();
    expected.sort();
    assert_eq!(aged.at(content(&aged.table)).await, expected, "{}", what());
}

/// `LAKEHOUSE_ADOPTED_RUNS=1000` runs so many seeds of each format; `LAKEHOUSE_SEED` repeats one.
#[tokio::test]
async fn of_an_adopted_table_only_what_the_newest_version_needs_is_left_when_the_others_are_gone() {
    let repeat = number("LAKEHOUSE_SEED");
    let runs = repeat.map_or_else(|| setting("LAKEHOUSE_ADOPTED_RUNS", 12), |_| 1);
    let first = repeat.unwrap_or_else(|| rand::rng().random_range(0..1 << 48));
    let started = Instant::now();
    for seed in first..first + runs {
        for format in FORMATS {
            simulated(format, seed).await;
        }
    }
    println!(
        "{runs} seeds from {first}, {:.1} s",
        started.elapsed().as_secs_f64()
    );
}
