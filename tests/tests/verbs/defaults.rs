//! Columns with defaults, which other engines give to tables of Iceberg's version 3.

use datafusion::prelude::SessionContext;
use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::store::Store;
use lakehouse_core::{Compact, Merge, Options, Rows, Table, TableFormat};
use serde_json::{Value, json};

use super::{append, lines, query, rows, table_in};
use crate::support::memory;

const METADATA: &str = "metadata/v2.metadata.json";

/// `(id, region, n)` with two rows, then columns with defaults: `level` is 7 in old rows and 8 in new ones, `tag`
/// required, `day` and `price` other types, `s.y` inside a struct that is NULL in one row.
async fn with_defaults() -> Table {
    let store = memory("defaults");
    let table = table_in(store.clone(), (TableFormat::Iceberg, Some(3)), "").await;
    append(&table, "(1, 'eu', 10), (2, 'us', 20)").await;
    add(&store, &[
        json!({"id": 11, "name": "level", "required": false, "type": "int", "initial-default": 7, "write-default": 8}),
        json!({"id": 12, "name": "tag", "required": true, "type": "string", "initial-default": "old ☃", "write-default": "new"}),
        json!({"id": 13, "name": "day", "required": false, "type": "date", "initial-default": "1969-12-31"}),
        json!({"id": 14, "name": "price", "required": false, "type": "decimal(9, 2)", "initial-default": "-1.50"}),
    ])
    .await;
    Table::open_in(store).await.unwrap()
}

async fn add(store: &Store, fields: &[Value]) {
    let bytes = store.get(METADATA).await.unwrap();
    let mut metadata: Value = serde_json::from_slice(&bytes).unwrap();
    let schema = metadata["schemas"][0]["fields"].as_array_mut().unwrap();
    schema.extend(fields.iter().cloned());
    metadata["last-column-id"] = json!(20);
    store.put(METADATA, metadata.to_string().into()).await.unwrap();
}

async fn ask(table: &Table, sql: &str) -> Vec<String> {
    let ctx = SessionContext::new();
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}

#[tokio::test]
async fn rows_that_were_there_have_the_initial_default_and_new_ones_the_write_default() {
    let table = with_defaults().await;
    assert_eq!(
        ask(&table, "SELECT * FROM t").await,
        [
            "1|eu|10|7|old ☃|1969-12-31|-1.50",
            "2|us|20|7|old ☃|1969-12-31|-1.50"
        ]
    );
    for condition in [
        "level = 7",
        "level < 8 AND day < date '1970-01-01'",
        "tag LIKE 'old%'",
        "price = -1.50",
    ] {
        let sql = format!("SELECT id FROM t WHERE {condition}");
        assert_eq!(ask(&table, &sql).await, ["1", "2"], "{condition}");
    }
    assert!(
        ask(&table, "SELECT id FROM t WHERE level IS NULL OR level = 8")
            .await
            .is_empty()
    );
    append(&table, "(3, 'eu', 30)").await;
    let (schema, batches) = query("SELECT 4 AS id, arrow_cast(NULL, 'Int32') AS level, 'x' AS tag").await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    assert_eq!(
        ask(&table, "SELECT id, level, tag, day FROM t").await,
        [
            "1|7|old ☃|1969-12-31",
            "2|7|old ☃|1969-12-31",
            "3|8|new|",
            "4||x|"
        ]
    );
}

#[tokio::test]
async fn defaults_survive_every_way_to_rewrite_a_file() {
    for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
        let table = with_defaults().await;
        let options = Options {
            strategy,
            ..Options::default()
        };
        table
            .update("n = n + level", Some("id = 2"), &options)
            .await
            .unwrap();
        let merge = Merge::on("id")
            .when_matched_update("region = source.region")
            .when_not_matched_insert_all();
        let feed = rows("id, region", "(1, 'up'), (9, 'in')").await;
        table.merge(feed, &merge, &options).await.unwrap();
        table.delete("level = 7 AND id = 2", &options).await.unwrap();
        let expected = ["1|up|10|7|old ☃", "9|in||8|new"];
        assert_eq!(
            ask(&table, "SELECT id, region, n, level, tag FROM t").await,
            expected,
            "{strategy:?}"
        );
        table.compact(&Compact::default(), &options).await.unwrap();
        assert_eq!(
            ask(&table, "SELECT id, region, n, level, tag FROM t").await,
            expected,
            "{strategy:?}"
        );
    }
}
