//! What queries find, whatever the metadata of files lets them skip.

use lakehouse_core::model::{At, Definition};
use lakehouse_core::scan::{parse_columns, session};
use lakehouse_core::{Merge, Options, Rows, Table};

use super::feed::filled;
use super::{FORMATS, append, content, lines, rows, table};
use crate::support::memory;

/// Bounds in Parquet leave NaN out, and the engine counts it as larger than every number.
#[tokio::test]
async fn rows_with_nan_are_found_behind_the_bounds_of_their_row_group() {
    for format in FORMATS {
        let definition = Definition {
            schema: parse_columns("id bigint not null, x double, s struct<x float>").unwrap(),
            partition_fields: Vec::new(),
            properties: [("write.parquet.row-group-limit".to_owned(), "2".to_owned())].into(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("nan"), format.0, &definition)
            .await
            .unwrap();
        let ctx = session(None);
        let values = "VALUES (1, 1.0), (2, 'NaN'), (3, 2.0), (4, 3.0), (5, 40.0), (6, NULL)";
        let sql = format!(
            "SELECT column1 AS id, CAST(column2 AS DOUBLE) AS x, \
             named_struct('x', CAST(column2 AS FLOAT)) AS s FROM ({values})"
        );
        let rows = Rows::frame(ctx.sql(&sql).await.unwrap());
        table.append(rows, &Options::default()).await.unwrap();
        ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
            .unwrap();
        for (filter, expected) in [
            ("x > 30", "2,5"),
            ("30 <= x", "2,5"),
            ("x <> 1 AND x > 3", "2,5"),
            ("NOT (x <= 3)", "2,5"),
            ("x = 'NaN'", "2"),
            ("x < 2", "1"),
            ("x = 40", "5"),
            ("s.x > 30", "2,5"),
            ("x IS NULL", "6"),
        ] {
            let sql = format!("SELECT id FROM t WHERE {filter} ORDER BY id");
            let found = lines(&ctx.sql(&sql).await.unwrap().collect().await.unwrap()).join(",");
            assert_eq!(found, expected, "{format:?} {filter}");
        }
        let largest = "SELECT id FROM t ORDER BY x DESC NULLS LAST LIMIT 1";
        let found = lines(&ctx.sql(largest).await.unwrap().collect().await.unwrap());
        assert_eq!(found, ["2"], "{format:?}");
    }
}

/// Numbers with more digits than a double keeps, beside columns of every kind.
#[tokio::test]
async fn long_numbers_change_nothing_but_what_they_are_compared_with() {
    let columns = "id bigint not null, score double, price decimal(20, 2)";
    let stored = ["(1, 1e-25, 0.20)", "(2, 2.5, 0.10)"];
    for format in FORMATS {
        let table = filled(format, columns, "", "id, score, price", &stored).await;
        let options = Options::default();
        let set = "score = CASE WHEN id = 2 THEN 0.30000000000000004 ELSE score END";
        table.update(set, None, &options).await.unwrap();
        let long = "price = 12345678901234567.89";
        table.update(long, Some("id = 1"), &options).await.unwrap();
        let near = "price = 12345678901234567.88";
        table.delete(near, &options).await.unwrap();
        assert_eq!(
            content(&table).await,
            ["1|1e-25|12345678901234567.89", "2|0.30000000000000004|0.10"]
        );
        table
            .update("price = 12345678901234567.88", Some("id = 2"), &options)
            .await
            .unwrap();
        table
            .delete("price IN (12345678901234567.89, 0.1)", &options)
            .await
            .unwrap();
        assert_eq!(
            content(&table).await,
            ["2|0.30000000000000004|12345678901234567.88"]
        );
    }
}

/// Bounds of texts are cut: what lies behind the cut is found all the same.
#[tokio::test]
async fn texts_longer_than_their_bounds_are_found_merged_and_deleted() {
    let long = |end: &str| format!("{}{end}", "long ".repeat(8));
    for format in FORMATS {
        let table = table(format, "").await;
        append(
            &table,
            &format!("(1, '{}', 1), (2, '{}', 2)", long("a"), long("z")),
        )
        .await;
        append(&table, "(3, 'short', 3)").await;
        let ctx = session(None);
        ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
            .unwrap();
        for filter in [
            format!("region = '{}'", long("z")),
            format!("region > '{}'", long("b")),
            format!("region IN ('{}', 'x')", long("z")),
        ] {
            let sql = format!("SELECT id FROM t WHERE {filter} AND id < 3");
            let found = lines(&ctx.sql(&sql).await.unwrap().collect().await.unwrap());
            assert_eq!(
                found,
                ["2"],
                "{format:?}: rows behind a bound are not found: {filter}"
            );
        }
        let merge = Merge::on("region").when_matched_update("n = 20");
        let source = rows("region", &format!("('{}')", long("z"))).await;
        let report = table.merge(source, &merge, &Options::default()).await.unwrap();
        assert_eq!(report.metric("num_target_rows_updated"), 1, "{format:?}");
        let condition = format!("region = '{}'", long("a"));
        let report = table.delete(&condition, &Options::default()).await.unwrap();
        assert_eq!(report.metric("num_target_rows_deleted"), 1, "{format:?}");
    }
}
