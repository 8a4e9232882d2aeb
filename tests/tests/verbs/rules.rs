//! CHECK constraints, invariants, generated columns and defaults, which other engines give to tables of Delta.

use std::collections::BTreeMap;

use lakehouse_core::model::{At, ColumnPath, Definition};
use lakehouse_core::operations::Strategy;
use lakehouse_core::store::Store;
use lakehouse_core::{Alter, Compact, Merge, Options, Report, Result, Rows, Table, TableFormat, scan};
use serde_json::{Value, json};

use super::{append, content, lines, query, rows, table_in};
use crate::races::orphans;
use crate::support::memory;

const FIRST: &str = "_delta_log/00000000000000000000.json";

/// `(id, region, n)` of Delta, with metadata of columns and properties as another engine would have set them.
async fn ruled(columns: &[(&str, &str, &str)], properties: &[(&str, &str)]) -> Table {
    let store = memory("rules");
    table_in(store.clone(), (TableFormat::Delta, None), "").await;
    ruled_in(store, columns, properties).await
}

/// The same of the table in this store, which has one version.
async fn ruled_in(store: Store, columns: &[(&str, &str, &str)], properties: &[(&str, &str)]) -> Table {
    let bytes = store.get(FIRST).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let lines = text.lines().map(|line| {
        let mut action: Value = serde_json::from_str(line).unwrap();
        if let Some(metadata) = action.get_mut("metaData") {
            let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
            for field in schema["fields"].as_array_mut().unwrap() {
                for (column, key, value) in columns {
                    if field["name"] == *column {
                        field["metadata"][*key] = json!(value);
                    }
                }
            }
            metadata["schemaString"] = json!(schema.to_string());
            for (key, value) in properties {
                metadata["configuration"][*key] = json!(value);
            }
        }
        action.to_string()
    });
    let lines: Vec<String> = lines.collect();
    store.put(FIRST, lines.join("\n").into()).await.unwrap();
    Table::open_in(store).await.unwrap()
}

async fn constrained(condition: &str) -> Table {
    ruled(&[], &[("delta.constraints.positive", condition)]).await
}

fn options(strategy: Strategy) -> Options {
    Options {
        strategy,
        ..Options::default()
    }
}

/// The operation is refused with these words, and leaves neither a version nor a file.
async fn refused(table: &Table, report: Result<Report>, words: &[&str]) {
    let error = report.unwrap_err();
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(orphans(table).await, [""; 0]);
}

#[tokio::test]
async fn no_verb_lets_a_row_in_that_violates_a_constraint_and_the_row_is_named() {
    for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
        let table = constrained("n > 0").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2), (3, 'as', 3)").await;
        let before = content(&table).await;
        let options = &options(strategy);
        let said = ["CHECK constraint positive `n > 0`", "id = 9", "n = -9"];
        let bad = || rows("id, region, n", "(8, 'eu', 8), (9, 'eu', -9)");
        let third = ["input row 2", said[0], said[1], said[2]];
        refused(&table, table.append(bad().await, options).await, &third).await;
        refused(&table, table.overwrite(bad().await, None, options).await, &third).await;
        let some = table.overwrite(bad().await, Some("region = 'eu'"), options).await;
        refused(&table, some, &third).await;
        let upsert = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        refused(&table, table.merge(bad().await, &upsert, options).await, &said).await;
        let update = rows("id, n", "(1, 10), (2, -2)").await;
        let set = Merge::on("id").when_matched_update("n = source.n");
        refused(
            &table,
            table.merge(update, &set, options).await,
            &["id = 2", "n = -2"],
        )
        .await;
        let by_source = Merge::on("id").when_not_matched_by_source_update("n = -1");
        let report = table.merge(rows("id", "(1)").await, &by_source, options).await;
        refused(&table, report, &[said[0]]).await;
        let report = table.update("n = n - 2", Some("id > 1"), options).await;
        refused(&table, report, &["id = 2", "n = 0"]).await;
        // NULL is not true.
        let report = table.update("n = NULL", Some("id = 1"), options).await;
        refused(&table, report, &["n = NULL"]).await;
        assert_eq!(content(&table).await, before);
        // What holds is written, and rows that only move are not looked at.
        table.update("n = n + 2", None, options).await.unwrap();
        table.delete("id = 3", options).await.unwrap();
        table
            .merge(rows("id, region, n", "(4, 'eu', 4)").await, &upsert, options)
            .await
            .unwrap();
        table.compact(&Compact::default(), options).await.unwrap();
        assert_eq!(content(&table).await, ["1|eu|3", "2|us|4", "4|eu|4"]);
    }
}

#[tokio::test]
async fn an_invariant_of_a_column_is_a_constraint() {
    let invariant = r#"{"expression":{"expression":"n <= 5"}}"#;
    let table = ruled(&[("n", "delta.invariants", invariant)], &[]).await;
    append(&table, "(1, 'eu', 5)").await;
    let report = table
        .append(rows("id, n", "(2, 6)").await, &Options::default())
        .await;
    refused(&table, report, &["invariant of column n `n <= 5`", "id = 2"]).await;
}

#[tokio::test]
async fn a_rule_that_is_not_understood_keeps_the_table_readable_and_every_writer_out() {
    let table = constrained("my_function(n) > 0").await;
    let report = table
        .append(rows("id, n", "(2, 6)").await, &Options::default())
        .await;
    let said = ["CHECK constraint positive", "my_function"];
    refused(&table, report, &said).await;
    assert_eq!(content(&table).await, [""; 0]);
    let table = ruled(&[("n", "delta.generationExpression", "rand()")], &[]).await;
    let report = table.append(rows("id", "(2)").await, &Options::default()).await;
    refused(&table, report, &["column n is generated", "rand"]).await;
}

#[tokio::test]
async fn a_generated_column_is_computed_wherever_it_is_not_given_and_checked_where_it_is() {
    for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
        let table = ruled(
            &[("n", "delta.generationExpression", "CAST(id * 2 AS BIGINT)")],
            &[],
        )
        .await;
        let options = &options(strategy);
        table
            .append(rows("id, region", "(1, 'eu'), (2, 'us')").await, options)
            .await
            .unwrap();
        table
            .append(rows("id, region, n", "(3, 'as', 6)").await, options)
            .await
            .unwrap();
        let wrong = table
            .append(rows("id, N", "(5, 10), (4, 9)").await, options)
            .await;
        let said = [
            "input row 2",
            "column 'n' is 9",
            "`CAST(id * 2 AS BIGINT)` gives 8",
        ];
        refused(&table, wrong, &said).await;
        let null = table
            .append(rows("id, n", "(4, CAST(NULL AS INT))").await, options)
            .await;
        refused(&table, null, &["NULL"]).await;
        assert_eq!(content(&table).await, ["1|eu|2", "2|us|4", "3|as|6"]);
        table
            .update("id = id + 10", Some("id < 3"), options)
            .await
            .unwrap();
        let wrong = table.update("n = 0", Some("id = 3"), options).await;
        refused(&table, wrong, &["column 'n' is 0"]).await;
        let upsert = Merge::on("region")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let feed = rows("id, region", "(30, 'as'), (40, 'af')").await;
        table.merge(feed, &upsert, options).await.unwrap();
        assert_eq!(
            content(&table).await,
            ["11|eu|22", "12|us|24", "30|as|60", "40|af|80"]
        );
        // Unchanged rows are found to be so with what is computed.
        let again = rows("id, region", "(30, 'as'), (41, 'af')").await;
        let report = table
            .merge(again, &upsert.clone().skip_unchanged(), options)
            .await
            .unwrap();
        assert_eq!(report.metric("num_target_rows_updated"), 1);
        table.compact(&Compact::default(), options).await.unwrap();
        assert_eq!(
            content(&table).await,
            ["11|eu|22", "12|us|24", "30|as|60", "41|af|82"]
        );
    }
}

#[tokio::test]
async fn new_rows_without_a_column_get_its_default_and_those_with_null_keep_it() {
    let defaults = [
        ("n", "CURRENT_DEFAULT", "3 + 4"),
        ("region", "CURRENT_DEFAULT", "upper('eu')"),
    ];
    let table = ruled(&defaults, &[]).await;
    let options = Options::default();
    table.append(rows("id", "(1)").await, &options).await.unwrap();
    table
        .append(rows("id, n", "(2, CAST(NULL AS INT))").await, &options)
        .await
        .unwrap();
    let upsert = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    table
        .merge(
            rows("id, region", "(2, 'us'), (3, 'us')").await,
            &upsert,
            &options,
        )
        .await
        .unwrap();
    assert_eq!(content(&table).await, ["1|EU|7", "2|us|", "3|us|7"]);
}

#[tokio::test]
async fn a_constraint_is_set_by_a_property_once_all_rows_satisfy_it() {
    let table = super::table((TableFormat::Delta, None), "").await;
    append(&table, "(1, 'eu', 1), (2, 'us', -2)").await;
    let options = Options::default();
    let key = "delta.constraints.positive";
    let alter = Alter::default().property(key, Some("n > 0"));
    let error = table.alter(&alter, &options).await.unwrap_err().to_string();
    assert!(
        error.contains("CHECK constraint positive") && error.contains("-2"),
        "{error}"
    );
    table.delete("n < 0", &options).await.unwrap();
    let report = table.alter(&alter, &options).await.unwrap();
    assert!(
        report
            .changes
            .iter()
            .any(|change| change.contains("checkConstraints")),
        "{report:?}"
    );
    let bad = table.append(rows("id, n", "(3, -3)").await, &options).await;
    assert!(bad.unwrap_err().to_string().contains("positive"));
    let n: ColumnPath = "n".parse().unwrap();
    for change in [
        Alter::default().drop_column(n.clone()),
        Alter::default().rename_column(n.clone(), "m"),
        Alter::default().widen("n bigint").unwrap(),
    ] {
        let error = table.alter(&change, &options).await.unwrap_err().to_string();
        assert!(error.contains("CHECK constraint positive is about it"), "{error}");
    }
    table
        .alter(&Alter::default().property(key, None), &options)
        .await
        .unwrap();
    append(&table, "(3, 'eu', -3)").await;
    let unknown = Alter::default().property(key, Some("nosuch > 0"));
    let error = table.alter(&unknown, &options).await.unwrap_err().to_string();
    assert!(error.contains("nosuch"), "{error}");
}

#[tokio::test]
async fn rules_are_about_members_of_structs_too() {
    let store = memory("rules");
    let definition = Definition {
        schema: scan::parse_columns("id bigint, s struct<a int, inner struct<c text>>, g bigint").unwrap(),
        partition_fields: Vec::new(),
        properties: Default::default(),
        format_version: None,
    };
    Table::create_in(store.clone(), TableFormat::Delta, &definition)
        .await
        .unwrap();
    // Names are found in any case, as Spark does.
    let generated = ("g", "delta.generationExpression", "S.A * 10 + id");
    let table = ruled_in(store, &[generated], &[]).await;
    let options = Options::default();
    let new = |values: &str| {
        format!(
            "SELECT id, named_struct('a', a, 'inner', named_struct('c', c)) AS s FROM (VALUES {values}) AS t(id, a, c)"
        )
    };
    let add = async |sql: String| {
        let (schema, batches) = query(&sql).await;
        table.append(Rows::batches(schema, batches), &options).await
    };
    add(new("(1, 1, 'x'), (2, 2, NULL)")).await.unwrap();
    let demand = |text: &str| Alter::default().property("delta.constraints.inside", Some(text));
    let error = table
        .alter(&demand("s.inner.C <> ''"), &options)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("CHECK constraint inside"), "{error}");
    let error = table.alter(&demand("s.nosuch > 0"), &options).await.unwrap_err();
    assert!(
        error.to_string().contains("the column nosuch is not understood"),
        "{error}"
    );
    table
        .alter(
            &demand("s.a > 0 AND (s.inner.C IS NULL OR s.inner.c <> '')"),
            &options,
        )
        .await
        .unwrap();
    for bad in ["(3, 0, 'x')", "(3, NULL, 'x')", "(3, 1, '')"] {
        let said = ["CHECK constraint inside", "id = 3"];
        refused(&table, add(new(bad)).await, &said).await;
    }
    refused(
        &table,
        add("SELECT 3 AS id".into()).await,
        &["CHECK constraint inside"],
    )
    .await;
    refused(
        &table,
        table
            .update(
                "id = id, s = named_struct('a', -1, 'inner', s['inner'])",
                None,
                &options,
            )
            .await,
        &["inside"],
    )
    .await;
    add(new("(3, 3, 'y')")).await.unwrap();
    table
        .update(
            "s = named_struct('a', 7, 'inner', s['inner'])",
            Some("id = 2"),
            &options,
        )
        .await
        .unwrap();
    let ctx = datafusion::prelude::SessionContext::new();
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    let found = ctx
        .sql("SELECT id, s['a'], g FROM t")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(lines(&found), ["1|1|11", "2|7|72", "3|3|33"]);
    for change in [
        Alter::default().drop_column("s.a".parse().unwrap()),
        Alter::default().rename_column("s.a".parse().unwrap(), "b"),
    ] {
        let error = table.alter(&change, &options).await.unwrap_err();
        assert!(error.to_string().contains("is about it"), "{error}");
    }
}

#[tokio::test]
async fn rules_hold_for_times_of_every_year() {
    let columns = [
        ("month", "delta.generationExpression", "DATE_TRUNC('MONTH', ts)"),
        ("first", "delta.generationExpression", "TRUNC(d, 'YEAR')"),
    ];
    let properties = [
        ("delta.constraints.order", "ts >= d AND year(ts) < 9999"),
        ("delta.constraints.past", "d > '1000-01-01'"),
    ];
    let store = memory("rules");
    let definition = Definition {
        schema: scan::parse_columns("id bigint, ts timestamptz, d date, month timestamptz, first date")
            .unwrap(),
        partition_fields: Vec::new(),
        properties: BTreeMap::new(),
        format_version: None,
    };
    Table::create_in(store.clone(), TableFormat::Delta, &definition)
        .await
        .unwrap();
    let table = ruled_in(store, &columns, &properties).await;
    let of = |ts: &str, d: &str| {
        let ts = format!("arrow_cast('{ts}', 'Timestamp(Microsecond, Some(\"UTC\"))')");
        format!("SELECT 1 AS id, {ts} AS ts, DATE '{d}' AS d")
    };
    for year in ["1500", "1676", "1677", "2013", "2262", "2263", "3000", "9998"] {
        let sql = of(&format!("{year}-05-17T10:00:00Z"), &format!("{year}-05-17"));
        let (schema, batches) = query(&sql).await;
        table
            .append(Rows::batches(schema, batches), &Options::default())
            .await
            .unwrap_or_else(|error| panic!("{year}: {error}"));
        let sql = "SELECT month, first FROM t WHERE ts >= d";
        let found = asked(&table, &format!("{sql} AND d = DATE '{year}-05-17'")).await;
        assert_eq!(found, [format!("{year}-05-01T00:00:00Z|{year}-01-01")]);
        table.delete("id = 1", &Options::default()).await.unwrap();
    }
    let (schema, batches) = query(&of("3000-05-17T10:00:00Z", "3000-05-18")).await;
    let report = table
        .append(Rows::batches(schema, batches), &Options::default())
        .await;
    refused(&table, report, &["order", "3000-05-18"]).await;
}

async fn asked(table: &Table, sql: &str) -> Vec<String> {
    let ctx = scan::session(None);
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}
