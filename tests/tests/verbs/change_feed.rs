//! Delta's change data feed: what a reader of it gets, by the rules of the protocol ("Add CDC File") and no shortcut, is
//! what a naive model says that each commit did, row by row.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Change, DataFile, Definition, RowMask, Snapshot};
use lakehouse_core::operations::Strategy;
use lakehouse_core::scan::{self, SnapshotTable};
use lakehouse_core::{Alter, Compact, Merge, Options, Table, TableFormat};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use percent_encoding::percent_decode_str;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::sync::Arc;

use super::{append, content, rows, table_with};
use crate::support::{memory, setting};

const DELTA: (TableFormat, Option<u8>) = (TableFormat::Delta, None);
const ON: (&str, &str) = ("delta.enableChangeDataFeed", "true");
/// Row groups so small that files have several, which are copied.
const GROUPS: (&str, &str) = ("write.parquet.row-group-limit", "4");

/// What a commit did to rows, as `delete|1|eu|5`, sorted.
pub(crate) async fn feed(table: &Table, version: i64) -> Vec<String> {
    let store = &table.handle().store;
    let entry = store
        .get(&format!("_delta_log/{version:020}.json"))
        .await
        .unwrap();
    let actions: Vec<Value> = std::str::from_utf8(&entry)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut found = Vec::new();
    for action in &actions {
        let Some(cdc) = action.get("cdc") else { continue };
        assert_eq!(cdc["dataChange"], false);
        let path = percent_decode_str(cdc["path"].as_str().unwrap())
            .decode_utf8()
            .unwrap();
        assert!(path.starts_with("_change_data/"), "{path}");
        let bytes = store.get(&path).await.unwrap();
        assert_eq!(cdc["size"].as_u64(), Some(bytes.len() as u64));
        found.extend(changed_rows(bytes, &cdc["partitionValues"]));
    }
    if found.is_empty() {
        found = inferred(table, version).await;
    }
    found.sort();
    found
}

/// Rows of a file in `_change_data`; what it is partitioned by is in the log.
fn changed_rows(bytes: Bytes, partition: &Value) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap();
    let mut found = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        for row in 0..batch.num_rows() {
            let cell = |name: &str| match batch.column_by_name(name) {
                Some(column) => shown(column.as_ref(), row),
                None => partition[name].as_str().unwrap_or("").to_owned(),
            };
            let cells = ["_change_type", "id", "region", "n"].map(cell);
            found.push(cells.join("|"));
        }
    }
    found
}

fn shown(column: &dyn Array, row: usize) -> String {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(column, &options)
        .unwrap()
        .value(row)
        .to_string()
}

/// Without change files: rows of added files are inserted, those of removed files deleted, and where the mask of a file
/// changed, what it hides more or less.
async fn inferred(table: &Table, version: i64) -> Vec<String> {
    let before = table.snapshot(&At::Version(version - 1)).await.unwrap();
    let after = table.snapshot(&At::Version(version)).await.unwrap();
    let format = &table.handle().format;
    let change: Change = format.changes(&before, &after).await.unwrap().remove(0);
    if !change.data_change {
        return Vec::new();
    }
    let mut found = read(table, &after, "insert", change.added, None).await;
    found.extend(read(table, &before, "delete", change.removed, None).await);
    for (old, new) in change.masked {
        let was = format
            .masks(&before, std::slice::from_ref(&old))
            .await
            .unwrap()
            .remove(0);
        let is = format
            .masks(&after, std::slice::from_ref(&new))
            .await
            .unwrap()
            .remove(0);
        for (word, rows) in [
            ("delete", is.bitmap() - was.bitmap()),
            ("insert", was.bitmap() - is.bitmap()),
        ] {
            let mut all = RowMask::new();
            all.insert_range(0..new.rows);
            let hidden = RowMask::from(all.bitmap() - rows);
            found.extend(read(table, &after, word, vec![new.clone()], Some(hidden)).await);
        }
    }
    found
}

async fn read(
    table: &Table,
    snapshot: &Arc<Snapshot>,
    word: &str,
    files: Vec<DataFile>,
    hidden: Option<RowMask>,
) -> Vec<String> {
    let scan = SnapshotTable::new(table.handle().clone(), Arc::clone(snapshot));
    let scan = match hidden {
        Some(hidden) => scan.with_hidden_rows(files.into_iter().map(|file| (file, hidden.clone())).collect()),
        None => scan.with_files(files),
    };
    let batches = SessionContext::new()
        .read_table(Arc::new(scan))
        .unwrap()
        .collect()
        .await
        .unwrap();
    let line = |batch: &RecordBatch, row| {
        let cells: Vec<String> = (0..3).map(|at| shown(batch.column(at).as_ref(), row)).collect();
        format!("{word}|{}", cells.join("|"))
    };
    batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(move |row| line(batch, row)))
        .collect()
}

/// Every commit after `from`, replayed over the rows of that version, gives the rows of the newest.
pub(crate) async fn replays(table: &Table, from: i64) {
    let mut rows = counted(&at(table, from).await);
    let newest = table.snapshot(&At::Latest).await.unwrap().version;
    for version in from + 1..=newest {
        for line in feed(table, version).await {
            let (word, row) = line.split_once('|').unwrap();
            let by = match word {
                "insert" | "update_postimage" => 1,
                "delete" | "update_preimage" => -1,
                other => panic!("{other}"),
            };
            *rows.entry(row.to_owned()).or_default() += by;
        }
        rows.retain(|_, count| *count != 0);
        assert_eq!(rows, counted(&at(table, version).await), "version {version}");
    }
}

fn counted(lines: &[String]) -> BTreeMap<String, i64> {
    let mut counted = BTreeMap::new();
    for line in lines {
        *counted.entry(line.clone()).or_default() += 1;
    }
    counted
}

/// The rows of a version as `1|eu|5`.
async fn at(table: &Table, version: i64) -> Vec<String> {
    let snapshot = table.snapshot(&At::Version(version)).await.unwrap();
    let files = table.files(&At::Version(version)).await.unwrap();
    let found = read(table, &snapshot, "", files, None).await;
    found.into_iter().map(|line| line[1..].to_owned()).collect()
}

/// Objects below `_change_data/`.
async fn change_files(table: &Table) -> usize {
    table.handle().store.list("_change_data").await.unwrap().len()
}

/// `region` and `n`.
type Row = (Option<&'static str>, Option<i32>);
/// By `id`.
type Rows = HashMap<i64, Row>;

const REGIONS: [Option<&str>; 4] = [Some("eu"), Some("us"), Some("a b/c"), None];

fn line(word: &str, id: i64, row: Row) -> String {
    let n = row.1.map(|n| n.to_string()).unwrap_or_default();
    format!("{word}|{id}|{}|{n}", row.0.unwrap_or(""))
}

fn literal(id: i64, row: Row) -> String {
    let region = row
        .0
        .map_or("CAST(NULL AS STRING)".to_owned(), |region| format!("'{region}'"));
    let n = row
        .1
        .map_or("CAST(NULL AS INT)".to_owned(), |n| format!("CAST({n} AS INT)"));
    format!("({id}, {region}, {n})")
}

fn literals(rows: &[(i64, Row)]) -> String {
    let each: Vec<String> = rows.iter().map(|(id, row)| literal(*id, *row)).collect();
    each.join(", ")
}

fn any_row(random: &mut StdRng) -> Row {
    let n = random.random_bool(0.9).then(|| random.random_range(0..100));
    (*REGIONS.choose(random).unwrap(), n)
}

/// One random step; returns what the feed must say of it.
async fn step(table: &Table, model: &mut Rows, next: &mut i64, random: &mut StdRng) -> Vec<String> {
    let masks = table.snapshot(&At::Latest).await.unwrap().capabilities.masks;
    let strategies: &[Strategy] = match masks {
        true => &[Strategy::Auto, Strategy::CopyOnWrite, Strategy::MergeOnRead],
        false => &[Strategy::Auto, Strategy::CopyOnWrite],
    };
    let options = Options {
        strategy: *strategies.choose(random).unwrap(),
        ..Options::default()
    };
    let (modulus, rest) = (random.random_range(2..9), random.random_range(0..2));
    let condition = format!("id % {modulus} = {rest}");
    let mut hit: Vec<i64> = model.keys().copied().filter(|id| id % modulus == rest).collect();
    hit.sort_unstable();
    let mut fresh = |random: &mut StdRng, count| {
        let mut rows = Vec::new();
        for _ in 0..count {
            rows.push((*next, any_row(random)));
            *next += 1;
        }
        rows
    };
    let mut expected = Vec::new();
    match random.random_range(0..8) {
        0 | 1 => {
            let count = random.random_range(1..25);
            let new = fresh(random, count);
            append(table, &literals(&new)).await;
            expected.extend(new.iter().map(|(id, row)| line("insert", *id, *row)));
            model.extend(new);
        }
        2 => {
            table.delete(&condition, &options).await.unwrap();
            expected.extend(hit.iter().map(|id| line("delete", *id, model[id])));
            model.retain(|id, _| !hit.contains(id));
        }
        3 => {
            table
                .update("n = n + 1, region = 'us'", Some(&condition), &options)
                .await
                .unwrap();
            for id in hit {
                let row = model.get_mut(&id).unwrap();
                expected.push(line("update_preimage", id, *row));
                *row = (Some("us"), row.1.map(|n| n + 1));
                expected.push(line("update_postimage", id, *row));
            }
        }
        4 | 5 => {
            let count = random.random_range(0..4);
            let mut source = fresh(random, count);
            let known = hit.len().min(6);
            source.extend(hit[..known].iter().map(|id| (*id, any_row(random))));
            if source.is_empty() {
                return expected;
            }
            let by_source = random.random_bool(0.3);
            let mut merge = Merge::on("id")
                .when_matched_delete()
                .only_if("source.n < 20")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            if by_source {
                merge = merge
                    .when_not_matched_by_source_update("n = -7")
                    .only_if("target.n = 7")
                    .when_not_matched_by_source_delete()
                    .only_if("target.n = 8");
            }
            table
                .merge(rows("id, region, n", &literals(&source)).await, &merge, &options)
                .await
                .unwrap();
            for (id, row) in &source {
                match model.get(id).copied() {
                    None => {
                        expected.push(line("insert", *id, *row));
                        model.insert(*id, *row);
                    }
                    Some(old) if row.1.is_some_and(|n| n < 20) => {
                        expected.push(line("delete", *id, old));
                        model.remove(id);
                    }
                    Some(old) => {
                        expected.push(line("update_preimage", *id, old));
                        expected.push(line("update_postimage", *id, *row));
                        model.insert(*id, *row);
                    }
                }
            }
            let others: Vec<i64> = (model.keys().copied())
                .filter(|id| by_source && !source.iter().any(|(known, _)| known == id))
                .collect();
            for id in others {
                let old = model[&id];
                if old.1 == Some(7) {
                    let new = (old.0, Some(-7));
                    expected.push(line("update_preimage", id, old));
                    expected.push(line("update_postimage", id, new));
                    model.insert(id, new);
                } else if old.1 == Some(8) {
                    expected.push(line("delete", id, old));
                    model.remove(&id);
                }
            }
        }
        6 => {
            let everything = random.random_bool(0.3);
            let count = random.random_range(1..9);
            let new: Vec<_> = fresh(random, count)
                .into_iter()
                .filter(|(id, _)| everything || id % modulus == rest)
                .collect();
            if new.is_empty() {
                return expected;
            }
            let predicate = (!everything).then_some(condition.as_str());
            let source = rows("id, region, n", &literals(&new)).await;
            table.overwrite(source, predicate, &options).await.unwrap();
            let gone = |id: &i64| everything || hit.contains(id);
            expected.extend(
                model
                    .iter()
                    .filter(|(id, _)| gone(id))
                    .map(|(id, row)| line("delete", *id, *row)),
            );
            model.retain(|id, _| !gone(id));
            expected.extend(new.iter().map(|(id, row)| line("insert", *id, *row)));
            model.extend(new);
        }
        _ => {
            table.compact(&Compact::default(), &options).await.unwrap();
        }
    }
    expected.sort();
    expected
}

async fn program(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let partitioning = ["", "region", "bucket(3, id)"].choose(&mut random).unwrap();
    let mut properties = vec![ON, GROUPS, ("delta.checkpointInterval", "4")];
    if random.random_bool(0.5) {
        properties.push(("delta.enableDeletionVectors", "false"));
    }
    if random.random_bool(0.3) {
        properties.push(("delta.enableRowTracking", "true"));
    }
    let table = table_with(DELTA, partitioning, &properties).await;
    let (mut model, mut next) = (Rows::new(), 1);
    let mut version = 0;
    for number in 0..12 {
        let what = format!("seed {seed}, step {number}, {partitioning:?}, {properties:?}");
        let expected = step(&table, &mut model, &mut next, &mut random).await;
        let newest = table.snapshot(&At::Latest).await.unwrap().version;
        if newest == version {
            assert!(expected.is_empty(), "{what}: no commit");
            continue;
        }
        assert_eq!(newest, version + 1, "{what}");
        assert_eq!(feed(&table, newest).await, expected, "{what}");
        version = newest;
    }
    // A restore puts whole files back: what comes and goes with them cancels out.
    let back = random.random_range(0..=version);
    table
        .restore(&At::Version(back), &Options::default())
        .await
        .unwrap();
    replays(&table, 0).await;
}

#[test]
fn the_feed_says_what_random_programs_did() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for seed in 0..setting("LAKEHOUSE_FEEDS", 60) {
        runtime.block_on(program(seed));
    }
}

#[tokio::test]
async fn commits_whose_files_tell_it_all_write_no_change_files() {
    let table = table_with(DELTA, "region", &[ON]).await;
    let options = Options::default();
    append(
        &table,
        "(1, 'eu', 1), (2, 'eu', 2), (3, 'us', 3), (4, 'us', 4), (5, 'us', 5)",
    )
    .await;
    append(&table, "(6, 'us', 6)").await;
    let insert = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let source = rows("id, region, n", "(7, 'us', 7)").await;
    table.merge(source, &insert, &options).await.unwrap();
    table.delete("region = 'eu'", &options).await.unwrap();
    let masking = Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    };
    table.delete("id = 3", &masking).await.unwrap();
    table.compact(&Compact::default(), &options).await.unwrap();
    let source = rows("id, region, n", "(8, 'us', 8)").await;
    table.overwrite(source, None, &options).await.unwrap();
    assert_eq!(change_files(&table).await, 0);
    replays(&table, 0).await;
    table.update("n = 9", None, &options).await.unwrap();
    assert_eq!(change_files(&table).await, 1);
    replays(&table, 0).await;
}

#[tokio::test]
async fn a_table_without_the_feed_gets_no_change_files_until_it_is_switched_on() {
    let table = table_with(DELTA, "", &[]).await;
    let options = Options::default();
    append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
    table.update("n = 9", Some("id = 1"), &options).await.unwrap();
    assert_eq!(change_files(&table).await, 0);
    let on = Alter::default().property(ON.0, Some(ON.1));
    table.alter(&on, &options).await.unwrap();
    let from = table.snapshot(&At::Latest).await.unwrap().version;
    table.update("n = 8", Some("id = 1"), &options).await.unwrap();
    assert_eq!(
        feed(&table, from + 1).await,
        ["update_postimage|1|eu|8", "update_preimage|1|eu|9"]
    );
    let off = Alter::default().property(ON.0, Some("false"));
    table.alter(&off, &options).await.unwrap();
    table.update("n = 7", Some("id = 1"), &options).await.unwrap();
    assert_eq!(change_files(&table).await, 1);
}

#[tokio::test]
async fn an_operation_that_fails_or_only_plans_leaves_no_change_files() {
    let properties = [ON, ("delta.enableDeletionVectors", "false")];
    let table = table_with(DELTA, "", &properties).await;
    append(&table, "(1, 'eu', 1), (2, 'eu', 2), (3, 'eu', 3)").await;
    let before = content(&table).await;
    let source = rows("id, region, n", "(4, 'eu', 1), (5, 'eu', 99)").await;
    let refused = table.overwrite(source, Some("n < 3"), &Options::default()).await;
    assert!(refused.unwrap_err().to_string().contains("does not satisfy"));
    let twice = rows("id, region, n", "(1, 'us', 1), (2, 'us', 2), (2, 'us', 3)").await;
    let upsert = Merge::on("id").when_matched_update_all();
    assert!(table.merge(twice, &upsert, &Options::default()).await.is_err());
    let dry = Options {
        dry_run: true,
        ..Options::default()
    };
    table.update("n = 0", None, &dry).await.unwrap();
    assert_eq!(change_files(&table).await, 0);
    assert_eq!(content(&table).await, before);
}

#[tokio::test]
async fn columns_that_come_with_a_merge_are_in_the_feed_too() {
    let table = table_with(DELTA, "", &[ON, ("delta.columnMapping.mode", "name")]).await;
    append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
    let source = rows("id, region, n, more", "(1, 'us', 10, 'x'), (3, 'us', 30, 'y')").await;
    let upsert = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let options = Options::default().schema_mode(lakehouse_core::SchemaMode::Merge);
    table.merge(source, &upsert, &options).await.unwrap();
    assert_eq!(
        feed(&table, 2).await,
        [
            "insert|3|us|30",
            "update_postimage|1|us|10",
            "update_preimage|1|eu|1"
        ]
    );
    replays(&table, 0).await;
}

#[tokio::test]
async fn a_column_named_like_one_of_the_feed_is_refused_where_the_feed_is_asked_for() {
    let definition = |on: &str| Definition {
        schema: scan::parse_columns("id bigint, _Change_type string").unwrap(),
        partition_fields: Vec::new(),
        properties: [(ON.0.to_owned(), on.to_owned())].into(),
        format_version: None,
    };
    let make = async |on| Table::create_in(memory("verbs"), TableFormat::Delta, &definition(on)).await;
    let error = make("true").await.unwrap_err();
    assert!(error.to_string().contains("_Change_type"), "{error}");
    let table = make("false").await.unwrap();
    let on = Alter::default().property(ON.0, Some(ON.1));
    let error = table.alter(&on, &Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("_Change_type"), "{error}");
}
