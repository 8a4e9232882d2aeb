//! Random tables and queries, compared with the engine over the plain rows.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::super::{MetadataColumns, SnapshotTable, session};
use super::fake::{Naming, Row, Spec, Table, table_schema};
use crate::model::{EqualityDelete, RowMask};

const ALL: MetadataColumns = MetadataColumns {
    file: true,
    position: true,
    lineage: true,
};

/// The rows that the scan must find, as one batch with all metadata columns.
fn expected(naming: Naming, specs: &[Spec], hidden: impl Fn(usize, &Row) -> bool) -> RecordBatch {
    let mut rows: Vec<(usize, usize, &Spec, &Row)> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        for (position, row) in spec.rows.iter().enumerate() {
            if !spec.mask.contains(position as u64) && !hidden(index, row) {
                rows.push((index, position, spec, row));
            }
        }
    }
    let schema = table_schema(naming);
    let DataType::Struct(members) = schema.field_with_name("st").unwrap().data_type().clone() else {
        panic!("st is a struct");
    };
    let x = Int64Array::from_iter(
        rows.iter()
            .map(|(.., r)| r.st.as_ref().and_then(|st| st.0).map(i64::from)),
    );
    let y = StringArray::from_iter(
        rows.iter()
            .map(|(_, _, spec, r)| r.st.as_ref().and_then(|st| st.1.as_deref()).filter(|_| !spec.old)),
    );
    let there = NullBuffer::from_iter(rows.iter().map(|(.., r)| r.st.is_some()));
    let values: Vec<ArrayRef> = vec![Arc::new(x), Arc::new(y)];
    let st = StructArray::try_new_with_length(members, values, Some(there), rows.len()).unwrap();
    let lists = rows
        .iter()
        .map(|(_, _, spec, r)| r.l.clone().filter(|_| !spec.old));
    let l = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
    let list_field = schema.field_with_name("l").unwrap();
    let l = arrow::compute::cast(&l, list_field.data_type()).unwrap();
    let file = rows
        .iter()
        .map(|(index, ..)| format!("data/f {index}%41.parquet"));
    let row_id = rows.iter().map(|(_, position, spec, row)| {
        let stored = row.lineage.0.filter(|_| spec.lineage);
        stored.or(spec.first_row_id.map(|first| first + *position as i64))
    });
    let updated = rows
        .iter()
        .map(|(_, _, spec, row)| row.lineage.1.filter(|_| spec.lineage).or(Some(spec.sequence)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(.., r)| r.id))),
        Arc::new(Int32Array::from_iter(rows.iter().map(|(.., r)| r.a))),
        Arc::new(StringArray::from_iter(rows.iter().map(|(.., r)| r.s.as_deref()))),
        Arc::new(Float64Array::from_iter(
            rows.iter().map(|(.., r)| r.f.map(f64::from)),
        )),
        Arc::new(Date32Array::from_iter(
            rows.iter().map(|(_, _, spec, _)| spec.day),
        )),
        Arc::new(st),
        l,
        Arc::new(StringArray::from_iter_values(file)),
        Arc::new(Int64Array::from_iter_values(
            rows.iter().map(|(_, position, ..)| *position as i64),
        )),
        Arc::new(Int64Array::from_iter(row_id)),
        Arc::new(Int64Array::from_iter(updated)),
    ];
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("_file", DataType::Utf8, false));
    for name in ["_pos", "_row_id", "_last_updated_sequence_number"] {
        fields.push(Field::new(name, DataType::Int64, true));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn random_row(rng: &mut StdRng, id: i64) -> Row {
    let text = |rng: &mut StdRng| {
        ["ant", "bee", "cat", "dog", "eel", ""]
            .choose(rng)
            .unwrap()
            .to_string()
    };
    let maybe = |rng: &mut StdRng| rng.random_bool(0.8);
    Row {
        id,
        a: maybe(rng).then(|| rng.random_range(0..6)),
        s: maybe(rng).then(|| text(rng)),
        f: maybe(rng).then(|| rng.random_range(0..8) as f32 / 4.0),
        st: maybe(rng).then(|| {
            let x = maybe(rng).then(|| rng.random_range(0..5));
            (x, maybe(rng).then(|| text(rng)))
        }),
        l: maybe(rng).then(|| {
            (0..rng.random_range(0..4))
                .map(|_| rng.random_bool(0.8).then(|| rng.random_range(0..4)))
                .collect()
        }),
        lineage: (
            maybe(rng).then(|| id + 1000),
            maybe(rng).then(|| rng.random_range(1..4)),
        ),
    }
}

fn random_specs(rng: &mut StdRng) -> Vec<Spec> {
    let count = rng.random_range(0..5);
    let mut ids: Vec<i64> = (0..200).collect();
    ids.shuffle(rng);
    let mut next_row_id = 0;
    (0..count)
        .map(|_| {
            let length = rng.random_range(1..40);
            let rows: Vec<Row> = (0..length).map(|_| random_row(rng, ids.pop().unwrap())).collect();
            let share = *[0.0, 0.0, 0.1, 0.5, 1.0].choose(rng).unwrap();
            let mask: RowMask = (0..length)
                .filter(|_| rng.random_bool(share))
                .map(|p| p as u64)
                .collect();
            let first_row_id = rng.random_bool(0.8).then_some(next_row_id);
            next_row_id += length as i64;
            Spec {
                rows,
                day: rng.random_bool(0.8).then(|| rng.random_range(15000..15003)),
                old: rng.random_bool(0.4),
                lineage: rng.random_bool(0.5),
                rows_per_group: rng.random_range(1..20),
                mask,
                exact: rng.random_bool(0.5),
                sequence: rng.random_range(1..5),
                first_row_id,
                deletes: Vec::new(),
            }
        })
        .collect()
}

const COLUMNS: &[&str] = &[
    "id",
    "a",
    "s",
    "f",
    "day",
    "st",
    "l",
    "st['x'] AS x",
    "st['y'] AS y",
    "_file",
    "_pos",
    "_row_id",
    "_last_updated_sequence_number",
    "a + 1 AS a1",
    "'k' AS k",
];

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(a)",
    "min(id)",
    "max(id)",
    "min(a)",
    "max(a)",
    "min(s)",
    "max(s)",
    "sum(id)",
    "min(day)",
    "max(day)",
    "max(_pos)",
    "count(_row_id)",
    "max(_file)",
    "max(st['x'])",
    "count(l)",
    "min(f)",
    "sum(_last_updated_sequence_number)",
];

fn random_filter(rng: &mut StdRng) -> String {
    let n = rng.random_range(0..200);
    let small = rng.random_range(0..6);
    let simple = [
        format!("id > {n}"),
        format!("id = {n}"),
        format!("id IN ({n}, {}, {})", n / 2, n / 3),
        format!("id BETWEEN {} AND {n}", n - 20),
        format!("a = {small}"),
        "a IS NULL".to_owned(),
        "a IS NOT NULL".to_owned(),
        "s LIKE 'b%'".to_owned(),
        "s >= 'cat'".to_owned(),
        "s = ''".to_owned(),
        "f >= 0.5".to_owned(),
        "f = 0.25".to_owned(),
        "day = DATE '2011-01-27'".to_owned(),
        "day IS NULL".to_owned(),
        "day > DATE '2011-01-26'".to_owned(),
        format!("st['x'] < {small}"),
        "st['y'] = 'bee'".to_owned(),
        "st['y'] IS NULL".to_owned(),
        "st IS NULL".to_owned(),
        "l IS NOT NULL".to_owned(),
        format!("array_has(l, {small})"),
        format!("_pos < {small}"),
        "_file LIKE '%f 1%'".to_owned(),
        format!("_row_id > {n}"),
        "_last_updated_sequence_number = 2".to_owned(),
        format!("a + st['x'] > {small}"),
        "id % 3 = 0".to_owned(),
        format!("CAST(a AS DOUBLE) < f + {small}"),
        "id IN (SELECT id + 1 FROM t)".to_owned(),
    ];
    let mut pick = || simple.choose(rng).unwrap().clone();
    let (one, two) = (pick(), pick());
    match rng.random_range(0..5) {
        0 => format!("{one} AND {two}"),
        1 => format!("{one} OR {two}"),
        2 => format!("NOT ({one})"),
        _ => one,
    }
}

/// A query, and whether it may return any subset of so many rows.
fn random_query(rng: &mut StdRng) -> (String, bool) {
    let filter = if rng.random_bool(0.7) {
        format!(" WHERE {}", random_filter(rng))
    } else {
        String::new()
    };
    let some = |rng: &mut StdRng, from: &[&str]| {
        let count = rng.random_range(1..5);
        from.choose_multiple(rng, count)
            .copied()
            .collect::<Vec<_>>()
            .join(", ")
    };
    match rng.random_range(0..6) {
        0 => (format!("SELECT {} FROM t{filter}", some(rng, AGGREGATES)), false),
        1 => (
            format!(
                "SELECT day, {} FROM t{filter} GROUP BY day",
                some(rng, AGGREGATES)
            ),
            false,
        ),
        2 => {
            let direction = if rng.random_bool(0.5) { "DESC" } else { "ASC" };
            let limit = rng.random_range(1..12);
            (
                format!(
                    "SELECT {}, id AS key FROM t{filter} ORDER BY id {direction} LIMIT {limit}",
                    some(rng, COLUMNS)
                ),
                false,
            )
        }
        3 => {
            let limit = rng.random_range(0..50);
            (
                format!("SELECT {} FROM t{filter} LIMIT {limit}", some(rng, COLUMNS)),
                true,
            )
        }
        4 => {
            let low = rng.random_range(0..200);
            (
                format!(
                    "SELECT t.id, t._file, t._pos, t.s FROM (VALUES ({low}), ({}), (7)) AS k(v) JOIN t ON t.id = k.v{filter}",
                    low + 9
                ),
                false,
            )
        }
        _ => (format!("SELECT {} FROM t{filter}", some(rng, COLUMNS)), false),
    }
}

pub(super) async fn rows(ctx: &SessionContext, query: &str) -> Result<Vec<String>, String> {
    let batches = ctx.sql(query).await.map_err(|e| e.to_string())?.collect().await;
    let batches = batches.map_err(|e| e.to_string())?;
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            rows.push(values.join(" | "));
        }
    }
    rows.sort();
    Ok(rows)
}

fn contains_all(all: &[String], some: &[String]) -> bool {
    let mut left: Vec<&String> = all.iter().collect();
    some.iter()
        .all(|row| match left.iter().position(|other| *other == row) {
            Some(index) => {
                left.swap_remove(index);
                true
            }
            None => false,
        })
}

async fn compare(seed: u64, queries: usize) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let naming = *[Naming::Ids, Naming::Physical, Naming::Plain]
        .choose(rng)
        .unwrap();
    let partition_in_files = rng.random_bool(0.5);
    let specs = random_specs(rng);
    let mut table = Table::new(naming, partition_in_files);
    table.load(naming, &specs).await;

    let ctx = session(None);
    {
        let state = ctx.state_ref();
        let mut state = state.write();
        let options = state.config_mut().options_mut();
        options.execution.target_partitions = rng.random_range(1..5);
        options
            .set(
                "datafusion.execution.batch_size",
                &rng.random_range(1..30).to_string(),
            )
            .unwrap();
        options.optimizer.repartition_file_min_size = 1;
        options.execution.parquet.pushdown_filters = rng.random_bool(0.8);
    }
    let provider =
        SnapshotTable::new(table.handle.clone(), Arc::clone(&table.snapshot)).with_metadata_columns(ALL);
    ctx.register_table("t", Arc::new(provider)).unwrap();
    let plain = session(None);
    let batch = expected(naming, &specs, |_, _| false);
    let memory = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    plain.register_table("t", Arc::new(memory)).unwrap();

    for _ in 0..queries {
        let (query, any) = random_query(rng);
        let context = format!("seed {seed}, {naming:?}, partition in files {partition_in_files}: {query}");
        let found = rows(&ctx, &query)
            .await
            .unwrap_or_else(|e| panic!("{context}: {e}"));
        if any {
            let (all, _) = query.rsplit_once(" LIMIT ").unwrap();
            let limit: usize = query.rsplit(' ').next().unwrap().parse().unwrap();
            let all = rows(&plain, all).await.unwrap();
            assert_eq!(found.len(), all.len().min(limit), "{context}");
            assert!(contains_all(&all, &found), "{context}\n{found:?}\n{all:?}");
        } else {
            let wanted = rows(&plain, &query)
                .await
                .unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(found, wanted, "{context}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_queries_agree_with_the_plain_rows() {
    let seeds: u64 = std::env::var("SCAN_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(60);
    for seed in 0..seeds {
        compare(seed, 12).await;
    }
}

#[tokio::test]
async fn equality_deletes_hide_rows_of_older_files_by_field_id() {
    let rng = &mut StdRng::seed_from_u64(7);
    for naming in [Naming::Ids, Naming::Plain] {
        for old in [false, true] {
            let mut table = Table::new(naming, true);
            let rows_: Vec<Row> = (0..50).map(|id| random_row(rng, id)).collect();
            // Delete by (a, s), NULLs included: the keys of every third row.
            let doomed: HashSet<(Option<i32>, Option<String>)> =
                rows_.iter().step_by(3).map(|r| (r.a, r.s.clone())).collect();
            let schema = table_schema(naming);
            let fields = [
                schema.field(2).clone().with_name("renamed since"),
                schema.field(1).clone(),
            ];
            let fields = if naming == Naming::Ids {
                fields
            } else {
                [schema.field(2).clone(), schema.field(1).clone()]
            };
            let keys: Vec<_> = doomed.iter().cloned().collect();
            let batch = RecordBatch::try_new(
                Arc::new(Schema::new(fields.to_vec())),
                vec![
                    Arc::new(StringArray::from_iter(keys.iter().map(|k| k.1.as_deref()))),
                    Arc::new(Int32Array::from_iter(keys.iter().map(|k| k.0))),
                ],
            )
            .unwrap();
            let bytes = table.put("deletes/1.parquet", &batch, 100).await;
            let delete = |path: &str, bytes, columns: &[&str]| {
                Arc::new(EqualityDelete {
                    path: path.to_owned(),
                    recorded: path.to_owned(),
                    bytes,
                    rows: 1,
                    columns: columns.iter().map(|c| (*c).to_owned()).collect(),
                    sequence: 9,
                })
            };
            let by_pair = delete("deletes/1.parquet", bytes, &["a", "s"]);
            let ids = RecordBatch::try_new(
                Arc::new(Schema::new(vec![schema.field(0).clone()])),
                vec![Arc::new(Int64Array::from(vec![1, 2, 49]))],
            )
            .unwrap();
            let bytes = table.put("deletes/2.parquet", &ids, 100).await;
            let by_id = delete("deletes/2.parquet", bytes, &["id"]);
            let spec = |rows: Vec<Row>, deletes| Spec {
                mask: [0_u64, 5].into_iter().collect(),
                rows,
                day: Some(15000),
                old,
                lineage: false,
                rows_per_group: 7,
                exact: true,
                sequence: 1,
                first_row_id: None,
                deletes,
            };
            let newer: Vec<Row> = (50..60).map(|id| random_row(rng, id)).collect();
            let specs = [spec(rows_, vec![by_pair, by_id]), spec(newer, Vec::new())];
            table.load(naming, &specs).await;
            let ctx = session(None);
            let provider = SnapshotTable::new(table.handle.clone(), Arc::clone(&table.snapshot))
                .with_metadata_columns(ALL);
            ctx.register_table("t", Arc::new(provider)).unwrap();
            let batch = expected(naming, &specs, |file, row| {
                file == 0 && (doomed.contains(&(row.a, row.s.clone())) || [1, 2, 49].contains(&row.id))
            });
            assert!(batch.num_rows() > 10 && batch.num_rows() < 50);
            let plain = session(None);
            let memory = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
            plain.register_table("t", Arc::new(memory)).unwrap();
            for query in [
                "SELECT * FROM t",
                "SELECT count(*), max(id) FROM t",
                "SELECT id FROM t WHERE a = 3",
            ] {
                let found = rows(&ctx, query).await.unwrap();
                assert_eq!(
                    found,
                    rows(&plain, query).await.unwrap(),
                    "{naming:?} old {old}: {query}"
                );
            }
        }
    }
}

#[test]
fn selections_cover_every_row_once() {
    let rng = &mut StdRng::seed_from_u64(1);
    for _ in 0..500 {
        let length: u64 = rng.random_range(1..30);
        let share = *[0.0, 0.3, 0.9, 1.0].choose(rng).unwrap();
        let mask: RowMask = (0..length).filter(|_| rng.random_bool(share)).collect();
        let runs = super::super::plan::selection(&mask, length);
        let mut position = 0;
        for run in runs.iter() {
            for _ in 0..run.row_count {
                assert_eq!(run.skip, mask.contains(position), "{mask:?}");
                position += 1;
            }
        }
        assert_eq!(position, length);
    }
}
