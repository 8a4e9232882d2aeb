//! A merge whose source has structs in part: rows that are updated keep the members that the source lacks
//! (`--schema-mode merge`), or the merge is refused.

use std::path::Path;

use lakehouse_core::model::{At, ColumnPath, Definition};
use lakehouse_core::operations::{SchemaMode, Strategy};
use lakehouse_core::scan::parse_columns;
use lakehouse_core::{Alter, Error, Merge, Options, Rows, Table, TableFormat};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{FORMATS, lines, query};
use crate::support::memory;

/// `(id, s)` as rows have it; `t` is a struct in `s`.
#[derive(Debug, Clone, Default, PartialEq)]
struct S {
    a: Option<i64>,
    t: Option<T>,
    m: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct T {
    b: Option<i64>,
    c: Option<i64>,
}

/// Which members a source lacks.
#[derive(Debug, Clone, Copy)]
struct Lacks {
    a: bool,
    t: bool,
    c: bool,
    m: bool,
}

type Row = (i64, Option<S>);

async fn table(format: (TableFormat, Option<u8>), columns: &str) -> Table {
    let definition = Definition {
        schema: parse_columns(columns).unwrap(),
        partition_fields: Vec::new(),
        properties: std::collections::BTreeMap::new(),
        format_version: format.1,
    };
    Table::create_in(memory("members"), format.0, &definition)
        .await
        .unwrap()
}

const COLUMNS: &str = "id bigint not null, s struct<a bigint, t struct<b bigint, c bigint>, m bigint>";

async fn ask(table: &Table, sql: &str) -> Vec<String> {
    let ctx = lakehouse_core::scan::session(None);
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}

async fn content(table: &Table) -> Vec<String> {
    let sql = "SELECT id, s IS NULL, s['a'], s['t'] IS NULL, s['t']['b'], s['t']['c'], s['m'] FROM t";
    ask(table, sql).await
}

/// The same of rows of the model.
fn shown(rows: &[Row]) -> Vec<String> {
    let number = |value: Option<i64>| value.map_or(String::new(), |value| value.to_string());
    let mut shown: Vec<String> = rows
        .iter()
        .map(|(id, s)| {
            let of = s.clone().unwrap_or_default();
            let t = of.t.clone().unwrap_or_default();
            let values = [number(t.b), number(t.c), number(of.m)].join("|");
            format!(
                "{id}|{}|{}|{}|{values}",
                s.is_none(),
                number(of.a),
                of.t.is_none()
            )
        })
        .collect();
    shown.sort();
    shown
}

/// Rows as a query, without the members that are lacking.
async fn source(rows: &[Row], lacks: Lacks) -> Rows {
    let number = |value: Option<i64>| {
        value.map_or("CAST(NULL AS BIGINT)".to_owned(), |value| {
            format!("CAST({value} AS BIGINT)")
        })
    };
    let selects: Vec<String> = rows
        .iter()
        .map(|(id, s)| {
            let of = s.clone().unwrap_or_default();
            let t = of.t.clone().unwrap_or_default();
            let mut inner = format!("'b', {}", number(t.b));
            if !lacks.c {
                inner = format!("'c', {}, {inner}", number(t.c));
            }
            // A NULL of the type.
            let inner = format!("CASE WHEN {} THEN named_struct({inner}) END", of.t.is_some());
            let members = [
                (lacks.m, format!("'m', {}", number(of.m))),
                (lacks.t, format!("'t', {inner}")),
                (lacks.a, format!("'a', {}", number(of.a))),
            ];
            let members: Vec<String> = members
                .into_iter()
                .filter(|(lacks, _)| !lacks)
                .map(|(_, text)| text)
                .collect();
            format!(
                "SELECT CAST({id} AS BIGINT) AS id, CASE WHEN {} THEN named_struct({}) END AS s",
                s.is_some(),
                members.join(", ")
            )
        })
        .collect();
    let (schema, batches) = query(&selects.join(" UNION ALL ")).await;
    Rows::batches(schema, batches)
}

/// What becomes of a stored struct: the naive model.
fn updated(new: Option<&S>, old: Option<&S>, lacks: Lacks) -> Option<S> {
    let given = new.map(|new| S {
        a: new.a.filter(|_| !lacks.a),
        t: new.t.clone().filter(|_| !lacks.t).map(|t| T {
            c: t.c.filter(|_| !lacks.c),
            ..t
        }),
        m: new.m.filter(|_| !lacks.m),
    });
    let Some(old) = old else { return given };
    let given = given.unwrap_or_default();
    let t = match (&given.t, &old.t) {
        _ if lacks.t => old.t.clone(),
        (given, Some(old)) if lacks.c => Some(T {
            b: given.as_ref().and_then(|t| t.b),
            c: old.c,
        }),
        (given, _) => given.clone(),
    };
    if new.is_none() && !(lacks.a || lacks.t || lacks.c || lacks.m) {
        return None;
    }
    Some(S {
        a: if lacks.a { old.a } else { given.a },
        t,
        m: if lacks.m { old.m } else { given.m },
    })
}

fn random_struct(random: &mut StdRng) -> Option<S> {
    let number = |random: &mut StdRng| random.random_bool(0.8).then(|| random.random_range(0..1000));
    let s = S {
        a: number(random),
        t: random.random_bool(0.7).then(|| T {
            b: number(random),
            c: number(random),
        }),
        m: number(random),
    };
    random.random_bool(0.7).then_some(s)
}

#[tokio::test]
async fn updated_rows_keep_the_members_that_the_source_lacks_as_the_naive_model_does() {
    for format in FORMATS {
        for seed in 0..12 {
            let mut random = StdRng::seed_from_u64(seed);
            let lacks = loop {
                let mut flag = || random.random_bool(0.5);
                let lacks = Lacks {
                    a: flag(),
                    t: flag(),
                    c: flag(),
                    m: flag(),
                };
                if !(lacks.a && lacks.t && lacks.m) {
                    break lacks;
                }
            };
            let all = Lacks {
                a: false,
                t: false,
                c: false,
                m: false,
            };
            let stored: Vec<Row> = (0..20).map(|id| (id, random_struct(&mut random))).collect();
            let given: Vec<Row> = (0..30)
                .filter(|_| random.random_bool(0.5))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|id| (id, random_struct(&mut random)))
                .collect();
            let table = table(format, COLUMNS).await;
            table
                .append(source(&stored, all).await, &Options::default())
                .await
                .unwrap();
            assert_eq!(content(&table).await, shown(&stored));
            let options = Options {
                strategy: [Strategy::MergeOnRead, Strategy::CopyOnWrite][seed as usize % 2],
                ..Options::default().schema_mode(SchemaMode::Merge)
            };
            let merge = Merge::on("id")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            table
                .merge(source(&given, lacks).await, &merge, &options)
                .await
                .unwrap();
            let mut expected = stored.clone();
            for (id, new) in &given {
                match expected.iter_mut().find(|(old, _)| old == id) {
                    Some((_, old)) => *old = updated(new.as_ref(), old.as_ref(), lacks),
                    None => expected.push((*id, updated(new.as_ref(), None, lacks))),
                }
            }
            assert_eq!(
                content(&table).await,
                shown(&expected),
                "{format:?}, seed {seed}, {lacks:?}"
            );
        }
    }
}

async fn of(sql: &str) -> Rows {
    let (schema, batches) = query(sql).await;
    Rows::batches(schema, batches)
}

const STOPS: &str = "id bigint not null, n bigint, s struct<a bigint, t struct<b bigint, c bigint>, m bigint>, \
                     l array<struct<x bigint, y bigint>>";

/// One row with everything in it.
async fn stops(format: (TableFormat, Option<u8>)) -> Table {
    let table = table(format, STOPS).await;
    let whole = "SELECT 1 AS id, 1 AS n, named_struct('a', 1, 't', named_struct('b', 2, 'c', 3), 'm', 4) AS s, \
                 [named_struct('x', 5, 'y', 6)] AS l";
    table.append(of(whole).await, &Options::default()).await.unwrap();
    table
}

#[tokio::test]
async fn a_source_that_lacks_members_is_refused_by_their_path_where_rows_would_lose_them() {
    let upsert = || {
        Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
    };
    let options = Options::default();
    for format in FORMATS {
        let table = stops(format).await;
        let before = table.snapshot(&At::Latest).await.unwrap().version;
        let part = "SELECT 1 AS id, named_struct('a', 10, 't', named_struct('B', 20)) AS s";
        let list = "SELECT 1 AS id, [named_struct('x', 50)] AS l";
        let other = "SELECT 1 AS id, named_struct('a', 10) AS o";
        let assigned = |text: &str| Merge::on("id").when_matched_update(text);
        for (sql, merge, said) in [
            (part, upsert(), "members s.t.c, s.m"),
            (part, assigned("s = source.s"), "members s.t.c, s.m"),
            (list, upsert(), "member l.element.y"),
            (other, assigned("s = source.o"), "members s.t, s.m"),
        ] {
            let refused = table.merge(of(sql).await, &merge, &options).await.unwrap_err();
            assert!(
                matches!(refused, Error::Invalid { .. }),
                "{format:?}: {refused:?}"
            );
            assert!(refused.to_string().contains(said), "{format:?}: {refused}");
            assert!(
                refused.hint().unwrap().contains("--schema-mode merge"),
                "{refused:?}"
            );
        }
        // Under another name no stored members are kept, so that is refused in any mode.
        let merging = Options::default().schema_mode(SchemaMode::Merge);
        let refused = table
            .merge(of(other).await, &assigned("s = source.o"), &merging)
            .await;
        assert!(
            refused
                .unwrap_err()
                .hint()
                .unwrap()
                .contains("call the source's column s")
        );
        assert_eq!(
            table.snapshot(&At::Latest).await.unwrap().version,
            before,
            "{format:?}"
        );

        // A file without types says by its keys what it has.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("part.ndjson");
        std::fs::write(&file, "{\"id\": 1, \"s\": {\"a\": 10, \"m\": 40}}\n").unwrap();
        let refused = table
            .merge(Rows::file(&file, None).unwrap(), &upsert(), &options)
            .await;
        assert!(
            refused.unwrap_err().to_string().contains("the member s.t,"),
            "{format:?}"
        );

        // Nothing is lost by rows that are new, nor by a source that has other columns only.
        let insert = Merge::on("id").when_not_matched_insert_all();
        let new = "SELECT 2 AS id, named_struct('a', 10) AS s";
        table.merge(of(new).await, &insert, &options).await.unwrap();
        table
            .merge(of("SELECT 1 AS id, 7 AS n").await, &upsert(), &options)
            .await
            .unwrap();
        let shown = ask(&table, "SELECT id, n, s['a'], s['t']['c'], s['m'] FROM t").await;
        assert_eq!(shown, ["1|7|1|3|4", "2||10||"], "{format:?}");
    }
}

#[tokio::test]
async fn elements_of_lists_are_new_and_a_change_feed_keeps_members_as_any_source_does() {
    let merging = Options::default().schema_mode(SchemaMode::Merge);
    for format in FORMATS {
        let table = stops(format).await;
        let list = "SELECT 1 AS id, [named_struct('x', 50), named_struct('x', 51)] AS l";
        let update = Merge::on("id").when_matched_update_all();
        table.merge(of(list).await, &update, &merging).await.unwrap();
        let sql = "SELECT id, l[1]['x'], l[1]['y'], l[2]['x'], l[2]['y'], s['m'] FROM t";
        assert_eq!(ask(&table, sql).await, ["1|50||51||4"], "{format:?}");

        let feed = "SELECT 1 AS id, 'U' AS op, named_struct('t', named_struct('c', 30), 'new', 8) AS s";
        let merge = Merge::on("id")
            .delete_when("source.op = 'D'")
            .when_matched_update_all();
        table.merge(of(feed).await, &merge, &merging).await.unwrap();
        let sql = "SELECT id, s['a'], s['t']['b'], s['t']['c'], s['m'], s['new'] FROM t";
        assert_eq!(ask(&table, sql).await, ["1|1|2|30|4|8"], "{format:?}");
    }
}

/// A change in which `s` lacks members, as each kind of change feed has it; `id` may be there or not.
async fn feeds_in_part(folder: &Path, id: i64) -> Vec<(&'static str, Merge, Rows)> {
    let columns = format!(
        "SELECT 'U' AS op, {id} AS id, 7 AS n, named_struct('a', 10, 't', named_struct('b', 20)) AS s"
    );
    let row = format!(r#""id": {id}, "n": 7, "s": {{"a": 10, "t": {{"b": 20}}}}"#);
    let file = |name: &str, line: String| {
        let path = folder.join(name);
        std::fs::write(&path, line).unwrap();
        Rows::file(&path, None).unwrap()
    };
    let lines = file("columns.ndjson", format!(r#"{{"op": "U", {row}}}"#));
    let envelope = |name: &str, before: &str| {
        let text = format!(r#"{{"before": {before}, "after": {{{row}}}, "op": "u", "ts_ms": 5}}"#);
        file(name, text)
    };
    let whole = format!(r#"{{"id": {id}, "s": {{"m": 4, "t": {{"c": 3, "b": 2}}, "a": 1}}}}"#);
    let by_hand = Merge::on("id")
        .delete_when("source.op = 'D'")
        .when_matched_update("n = source.n, s = source.s")
        .when_not_matched_insert("id = source.id, n = source.n, s = source.s");
    let feed = |text: &str| Merge::on("id").cdc(text.parse().unwrap());
    vec![
        ("columns", feed("op=op"), of(&columns).await),
        ("lines", feed("op=op"), lines),
        ("debezium", feed("debezium"), envelope("debezium.ndjson", "null")),
        (
            "debezium with old rows",
            feed("debezium"),
            envelope("before.ndjson", &whole),
        ),
        ("by hand", by_hand, of(&columns).await),
    ]
}

#[tokio::test]
async fn a_change_feed_that_lacks_members_is_refused_unless_columns_may_differ() {
    let folder = tempfile::tempdir().unwrap();
    let merging = Options::default().schema_mode(SchemaMode::Merge);
    for format in FORMATS {
        for at in 0..5 {
            let table = stops(format).await;
            let before = table.snapshot(&At::Latest).await.unwrap().version;
            // A row that is new would lose nothing, but a feed cannot tell before it is read: it is refused as well.
            for id in [1, 2] {
                let (kind, merge, rows) = feeds_in_part(folder.path(), id).await.swap_remove(at);
                let what = format!("{format:?}, {kind}, row {id}");
                let refused = table.merge(rows, &merge, &Options::default()).await.unwrap_err();
                assert!(matches!(refused, Error::Invalid { .. }), "{what}: {refused:?}");
                assert!(
                    refused
                        .to_string()
                        .contains("the source lacks the members s.t.c, s.m"),
                    "{what}: {refused}"
                );
                assert!(
                    refused.hint().unwrap().contains("--schema-mode merge"),
                    "{what}: {refused:?}"
                );
            }
            assert_eq!(
                table.snapshot(&At::Latest).await.unwrap().version,
                before,
                "{format:?}"
            );
            for id in [1, 2] {
                let (_, merge, rows) = feeds_in_part(folder.path(), id).await.swap_remove(at);
                table.merge(rows, &merge, &merging).await.unwrap();
            }
            let sql = "SELECT id, n, s['a'], s['t']['b'], s['t']['c'], s['m'] FROM t ORDER BY id";
            let shown = ask(&table, sql).await;
            assert_eq!(shown, ["1|7|10|20|3|4", "2|7|10|20||"], "{format:?}, {at}");
        }
    }
}

#[tokio::test]
async fn a_default_is_for_rows_without_a_stored_member_only() {
    let table = table((TableFormat::Iceberg, Some(3)), COLUMNS).await;
    let name = "s.m".parse::<ColumnPath>().unwrap();
    let default = Alter::default().default_value(name, Some("7"));
    table.alter(&default, &Options::default()).await.unwrap();
    let stored = "SELECT 1 AS id, named_struct('a', 1, 'm', 4) AS s UNION ALL SELECT 2, NULL";
    table.append(of(stored).await, &Options::default()).await.unwrap();
    let given = "SELECT column1 AS id, named_struct('a', 10) AS s FROM (VALUES (1), (2), (3))";
    let merge = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let merging = Options::default().schema_mode(SchemaMode::Merge);
    table.merge(of(given).await, &merge, &merging).await.unwrap();
    let shown = ask(&table, "SELECT id, s['a'], s['m'] FROM t").await;
    assert_eq!(shown, ["1|10|4", "2|10|7", "3|10|7"]);
}
