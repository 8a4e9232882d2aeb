//! Row lineage of Iceberg v3, row tracking of Delta: a row keeps its id for life, and the number of the commit that
//! changed it until it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::operations::check::Check;
use lakehouse_core::scan::{MetadataColumns, SnapshotTable};
use lakehouse_core::{Alter, Compact, Merge, Options, Table, TableFormat};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{append, content, lines, rows, table_with};
use crate::support::setting;

/// Both formats that give rows ids, with what it takes.
type Kind = ((TableFormat, Option<u8>), &'static [(&'static str, &'static str)]);
pub(crate) const KINDS: [Kind; 2] = [
    ((TableFormat::Iceberg, Some(3)), &[]),
    (
        (TableFormat::Delta, None),
        &[
            ("delta.enableRowTracking", "true"),
            ("delta.checkpointInterval", "3"),
        ],
    ),
];
/// What lets files be rewritten where rows change.
const REWRITING: [(&str, &str); 4] = [
    ("write.merge.mode", "copy-on-write"),
    ("write.update.mode", "copy-on-write"),
    ("write.delete.mode", "copy-on-write"),
    ("delta.enableDeletionVectors", "false"),
];

/// `_row_id` and `_last_updated_sequence_number` by id.
pub(crate) async fn lineage(table: &Table) -> BTreeMap<String, (i64, i64)> {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let columns = MetadataColumns {
        lineage: true,
        ..MetadataColumns::default()
    };
    let provider = SnapshotTable::new(table.handle().clone(), snapshot).with_metadata_columns(columns);
    let ctx = SessionContext::new();
    ctx.register_table("t", Arc::new(provider)).unwrap();
    let sql = "SELECT id, _row_id, _last_updated_sequence_number FROM t";
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let mut found = BTreeMap::new();
    for line in lines(&batches) {
        let cells: Vec<&str> = line.split('|').collect();
        let number = |at: usize| cells[at].parse().unwrap_or_else(|_| panic!("no lineage: {line}"));
        found.insert(cells[0].to_owned(), (number(1), number(2)));
    }
    found
}

async fn ids_stay_for_life((format, needed): Kind, properties: &[(&str, &str)], strategy: Strategy) {
    let table = table_with(format, "region", &[needed, properties].concat()).await;
    let options = Options {
        strategy,
        ..Options::default()
    };
    append(&table, "(1, 'eu', 1), (2, 'eu', 2), (3, 'us', 3)").await;
    append(&table, "(4, 'eu', 4), (5, 'us', 5)").await;
    let first = lineage(&table).await;
    let ids: BTreeSet<i64> = first.values().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 5, "ids are unique: {first:?}");

    let upsert = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let source = rows("id, region, n", "(2, 'us', 20), (6, 'eu', 60)").await;
    table.merge(source, &upsert, &options).await.unwrap();
    let second = lineage(&table).await;
    for id in ["1", "3", "4", "5"] {
        assert_eq!(second[id], first[id], "row {id} was not touched");
    }
    assert_eq!(second["2"].0, first["2"].0, "an updated row keeps its id");
    assert!(second["2"].1 > first["2"].1, "and says when it changed");
    assert!(
        first.values().all(|(id, _)| *id != second["6"].0),
        "a new row has a new id"
    );

    table.update("n = 0", Some("id = 4"), &options).await.unwrap();
    table.delete("id = 1", &options).await.unwrap();
    let third = lineage(&table).await;
    assert_eq!(third["4"].0, first["4"].0);
    assert!(third["4"].1 > second["4"].1);
    assert!(!third.contains_key("1"));

    let report = table.compact(&Compact::default(), &options).await.unwrap();
    assert!(report.committed);
    assert_eq!(lineage(&table).await, third, "moving rows changes neither");
    append(&table, "(7, 'eu', 7)").await;
    let last = lineage(&table).await;
    let ids: BTreeSet<i64> = last.values().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), last.len(), "ids stay unique: {last:?}");
}

#[tokio::test]
async fn ids_stay_for_life_when_rows_are_masked() {
    for kind in KINDS {
        ids_stay_for_life(kind, &[], Strategy::MergeOnRead).await;
    }
}

#[tokio::test]
async fn ids_stay_for_life_when_files_are_rewritten() {
    for kind in KINDS {
        ids_stay_for_life(kind, &REWRITING, Strategy::Auto).await;
    }
}

/// What a program did to rows: those that it changed, and those that came.
#[derive(Default)]
struct Step {
    changed: BTreeSet<String>,
    came: BTreeSet<String>,
}

async fn step(table: &Table, known: &[i64], next: &mut i64, random: &mut StdRng) -> Step {
    let masks = table.snapshot(&At::Latest).await.unwrap().capabilities.masks;
    let strategies = [Strategy::Auto, Strategy::CopyOnWrite, Strategy::MergeOnRead];
    let options = Options {
        strategy: *strategies[..if masks { 3 } else { 2 }].choose(random).unwrap(),
        ..Options::default()
    };
    let (modulus, rest) = (random.random_range(2..9), random.random_range(0..2));
    let condition = format!("id % {modulus} = {rest}");
    let hit: Vec<i64> = known.iter().copied().filter(|id| id % modulus == rest).collect();
    let mut fresh = |count: i64| {
        let new: Vec<i64> = (*next..*next + count).collect();
        *next += count;
        new
    };
    let values = |ids: &[i64], n: i64| {
        let each = ids
            .iter()
            .map(|id| format!("({id}, '{}', {n})", ["eu", "us"][(id % 2) as usize]));
        each.collect::<Vec<_>>().join(", ")
    };
    let names = |ids: &[i64]| ids.iter().map(ToString::to_string).collect();
    let mut done = Step::default();
    match random.random_range(0..7) {
        0 | 1 => {
            let new = fresh(random.random_range(1..25));
            append(table, &values(&new, 1)).await;
            done.came = names(&new);
        }
        2 => {
            table.delete(&condition, &options).await.unwrap();
        }
        3 => {
            let set = "n = n + 1, region = 'us'";
            table.update(set, Some(&condition), &options).await.unwrap();
            done.changed = names(&hit);
        }
        4 | 5 => {
            let new = fresh(random.random_range(1..4));
            let old = &hit[..hit.len().min(5)];
            let source = [new.as_slice(), old].concat();
            let upsert = Merge::on("id")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            let source = rows("id, region, n", &values(&source, 5)).await;
            table.merge(source, &upsert, &options).await.unwrap();
            done.changed = names(old);
            done.came = names(&new);
        }
        _ => {
            table.compact(&Compact::default(), &options).await.unwrap();
        }
    }
    done
}

async fn program((format, needed): Kind, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let partitioning = ["", "region", "bucket(3, id)"].choose(&mut random).unwrap();
    // Files have several row groups, which are copied where no row of them changes.
    let mut properties = [needed, &[("write.parquet.row-group-limit", "4")]].concat();
    if random.random_bool(0.5) {
        properties.extend(REWRITING);
    }
    let table = table_with(format, partitioning, &properties).await;
    let (mut next, mut given, mut latest) = (1, BTreeSet::new(), 0);
    let mut before = BTreeMap::new();
    let mut versions = Vec::new();
    for number in 0..12 {
        let what = format!("{format:?}, seed {seed}, step {number}, {partitioning:?}");
        let known: Vec<i64> = before.keys().map(|id: &String| id.parse().unwrap()).collect();
        let done = step(&table, &known, &mut next, &mut random).await;
        let now = lineage(&table).await;
        let ids: BTreeSet<i64> = now.values().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), now.len(), "{what}: an id is there twice");
        for (row, (id, changed)) in &now {
            match before.get(row) {
                None => {
                    assert!(done.came.contains(row), "{what}: row {row}");
                    assert!(!given.contains(id), "{what}: new row {row} has an old id");
                    assert!(*changed > latest, "{what}: new row {row}");
                }
                Some((old, _)) if done.changed.contains(row) => {
                    assert_eq!(id, old, "{what}: row {row} was changed");
                    assert!(*changed > latest, "{what}: row {row} was changed");
                }
                Some(old) => assert_eq!((*id, *changed), *old, "{what}: row {row} only moved"),
            }
        }
        given.extend(ids);
        latest = latest.max(
            now.values()
                .map(|(_, changed)| *changed)
                .max()
                .unwrap_or_default(),
        );
        let version = table.snapshot(&At::Latest).await.unwrap().version;
        if matches!(format.0, TableFormat::Delta) {
            assert!(latest <= version, "{what}: a version that is not there yet");
        }
        versions.push((version, now.clone()));
        before = now;
    }
    // Rows that come back are who they were.
    let (version, then) = versions.choose(&mut random).unwrap();
    let back = At::Version(*version);
    table.restore(&back, &Options::default()).await.unwrap();
    assert_eq!(
        lineage(&table).await,
        *then,
        "{format:?}, seed {seed}, back to {version}"
    );
    let new = format!("({next}, 'eu', 1)");
    append(&table, &new).await;
    let id = lineage(&table).await[&next.to_string()].0;
    assert!(!given.contains(&id), "{format:?}, seed {seed}: after a restore");
}

#[test]
fn rows_keep_their_ids_through_random_programs() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for seed in 0..setting("LAKEHOUSE_LINEAGES", 30) {
        for kind in KINDS {
            runtime.block_on(program(kind, seed));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_once_give_no_id_twice() {
    for (format, needed) in KINDS {
        let table = table_with(format, "", needed).await;
        let writers: Vec<_> = (0..4)
            .map(|writer: i64| {
                let table = table.clone();
                tokio::spawn(async move {
                    for round in 0..4 {
                        let id = 100 * writer + 10 * round;
                        append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 1)).await;
                        let condition = format!("id = {id}");
                        let options = Options::default();
                        table.update("n = 7", Some(&condition), &options).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let now = lineage(&table).await;
        let ids: BTreeSet<i64> = now.values().map(|(id, _)| *id).collect();
        assert_eq!((now.len(), ids.len()), (32, 32), "{format:?}: {now:?}");
    }
}

const DELTA: (TableFormat, Option<u8>) = (TableFormat::Delta, None);

async fn track(table: &Table, on: &str) -> i64 {
    let change = Alter::default().property("delta.enableRowTracking", Some(on));
    let done = table.alter(&change, &Options::default()).await.unwrap();
    assert!(done.committed);
    table.snapshot(&At::Latest).await.unwrap().version
}

#[tokio::test]
async fn rows_that_are_there_get_ids_in_the_commit_that_switches_row_tracking_on_and_keep_them() {
    let checkpointed = ("delta.checkpointInterval", "3");
    for properties in [&[checkpointed][..], &REWRITING] {
        let table = table_with(DELTA, "region", properties).await;
        let options = Options::default();
        append(&table, "(1, 'eu', 1), (2, 'eu', 2), (3, 'us', 3)").await;
        append(&table, "(4, 'eu', 4), (5, 'us', 5)").await;
        table.delete("id = 2", &options).await.unwrap();
        append(&table, "(6, NULL, 6)").await;
        let before = content(&table).await;
        let old = table.snapshot(&At::Latest).await.unwrap();
        assert!(old.lineage.is_none());

        let version = track(&table, "true").await;
        assert_eq!(version, old.version + 1, "in one commit: no version is half way");
        assert_eq!(content(&table).await, before);
        let first = lineage(&table).await;
        let ids: BTreeSet<i64> = first.values().map(|(id, _)| *id).collect();
        assert_eq!((first.len(), ids.len()), (5, 5), "{first:?}");
        assert!(
            first.values().all(|(_, changed)| *changed == version),
            "{first:?}"
        );
        let diff = table.diff(&At::Version(old.version), &At::Latest).await.unwrap();
        assert!(diff.files.is_empty() && diff.rows.exact, "no row changed");
        let deep = Check {
            deep: true,
            ..Check::default()
        };
        let found = table.check(&deep).await.unwrap();
        assert!(found.findings.is_empty(), "{:?}", found.findings);

        table.update("n = 40", Some("id = 4"), &options).await.unwrap();
        let upsert = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let feed = rows("id, region, n", "(5, 'us', 50), (7, 'eu', 70)").await;
        table.merge(feed, &upsert, &options).await.unwrap();
        table.compact(&Compact::default(), &options).await.unwrap();
        let second = lineage(&table).await;
        for row in ["1", "3", "6"] {
            assert_eq!(second[row], first[row], "row {row} only moved");
        }
        for row in ["4", "5"] {
            assert!(
                second[row].0 == first[row].0 && second[row].1 > version,
                "row {row} was changed"
            );
        }
        assert!(!ids.contains(&second["7"].0), "a new row has a new id");

        // Off and on again: what came meanwhile gets ids that nobody had.
        track(&table, "false").await;
        assert!(table.snapshot(&At::Latest).await.unwrap().lineage.is_none());
        append(&table, "(8, 'eu', 8)").await;
        track(&table, "true").await;
        let third = lineage(&table).await;
        for (row, was) in &second {
            assert_eq!(third[row], *was, "row {row}");
        }
        assert!(second.values().all(|(id, _)| *id != third["8"].0));
        // A version from before comes back with the ids that its files were given since.
        table.restore(&At::Version(old.version), &options).await.unwrap();
        let ids: BTreeSet<i64> = lineage(&table).await.values().map(|(id, _)| *id).collect();
        assert_eq!((content(&table).await, ids.len()), (before, 5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn row_tracking_that_is_switched_on_beside_writers_leaves_no_row_without_an_id() {
    for round in 0..5 {
        let table = table_with(DELTA, "", &[]).await;
        append(&table, "(0, 'eu', 0)").await;
        let writers: Vec<_> = (1..4i64)
            .map(|writer| {
                let table = table.clone();
                tokio::spawn(async move {
                    for id in [10 * writer, 10 * writer + 1] {
                        append(&table, &format!("({id}, 'eu', 1)")).await;
                        let condition = format!("id = {id}");
                        let options = Options::default();
                        table.update("n = 2", Some(&condition), &options).await.unwrap();
                    }
                })
            })
            .collect();
        track(&table, "true").await;
        for writer in writers {
            writer.await.unwrap();
        }
        let now = lineage(&table).await;
        let ids: BTreeSet<i64> = now.values().map(|(id, _)| *id).collect();
        assert_eq!((now.len(), ids.len()), (7, 7), "round {round}: {now:?}");
    }
}
