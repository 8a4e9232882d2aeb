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

/// `CAST(p AS INT) = 1` is also true of 1.99, and no row is the same as its cast.
#[tokio::test]
async fn comparisons_of_narrowing_casts_look_at_what_the_cast_gives() {
    const COMPARED: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];
    let values = [
        "0.49", "0.99", "1.00", "1.01", "1.99", "2.00", "-1.50", "-0.01", "127.00", "128.25",
    ];
    let stored: Vec<String> = (values.iter().enumerate())
        .map(|(id, value)| format!("({id}, {value}, {})", value.replace('.', "")))
        .chain([
            "(90, NULL, NULL)".to_owned(),
            "(91, 300.00, 3000000000)".to_owned(),
        ])
        .collect();
    for format in FORMATS {
        let definition = Definition {
            schema: parse_columns("id bigint not null, p decimal(9, 2), n bigint").unwrap(),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("narrow"), format.0, &definition)
            .await
            .unwrap();
        let ctx = session(None);
        let sql = format!(
            "SELECT CAST(column1 AS BIGINT) AS id, CAST(column2 AS DECIMAL(9, 2)) AS p, CAST(column3 AS BIGINT) AS n \
             FROM (VALUES {})",
            stored.join(", ")
        );
        let rows = Rows::frame(ctx.sql(&sql).await.unwrap());
        table.append(rows, &Options::default()).await.unwrap();
        ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
            .unwrap();
        let ids = async |sql: &str| lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap());
        for (cast, constant) in [
            ("CAST(p AS INT)", "1"),
            ("CAST(p AS INT)", "-1"),
            ("CAST(p AS DECIMAL(8, 1))", "1.0"),
            ("CAST(p AS BIGINT)", "128"),
            ("TRY_CAST(p AS TINYINT)", "127"),
            ("TRY_CAST(n AS INT)", "100"),
            ("TRY_CAST(n AS SMALLINT)", "199"),
            ("TRY_CAST(n AS DECIMAL(3, 0))", "100"),
        ] {
            // What the casts are, computed where nothing is compared.
            let computed = ids(&format!("SELECT id, {cast} FROM t")).await;
            let wanted: f64 = constant.parse().unwrap();
            for compared in COMPARED {
                let passes = |value: f64| match compared {
                    "=" => value == wanted,
                    "<>" => value != wanted,
                    "<" => value < wanted,
                    "<=" => value <= wanted,
                    ">" => value > wanted,
                    _ => value >= wanted,
                };
                let mut expected: Vec<&str> = (computed.iter().map(|line| line.split_once('|').unwrap()))
                    .filter(|(_, value)| value.parse().is_ok_and(passes))
                    .map(|(id, _)| id)
                    .collect();
                expected.sort_unstable();
                let condition = format!("{cast} {compared} {constant}");
                let mut queried = ids(&format!("SELECT id FROM t WHERE {condition}")).await;
                queried.sort_unstable();
                assert_eq!(queried, expected, "{format:?} query {condition}");
                let inlined =
                    format!("SELECT id FROM (SELECT id, {cast} AS c FROM t) WHERE c {compared} {constant}");
                let mut inlined = ids(&inlined).await;
                inlined.sort_unstable();
                assert_eq!(inlined, expected, "{format:?} subquery {condition}");
                let dry = Options {
                    dry_run: true,
                    ..Options::default()
                };
                let deleted = table.delete(&condition, &dry).await.unwrap();
                let deleted = deleted.metrics["num_target_rows_deleted"];
                assert_eq!(deleted, expected.len() as u64, "{format:?} delete {condition}");
                let updated = table.update("n = 0", Some(&condition), &dry).await;
                let updated = updated.unwrap().metrics["num_target_rows_updated"];
                assert_eq!(updated, expected.len() as u64, "{format:?} update {condition}");
            }
            let listed = format!("{cast} IN ({constant}, 55)");
            let expected = computed.iter().filter(|line| {
                line.split_once('|')
                    .unwrap()
                    .1
                    .parse::<f64>()
                    .is_ok_and(|value| value == wanted)
            });
            let found = ids(&format!("SELECT id FROM t WHERE {listed}")).await;
            assert_eq!(found.len(), expected.count(), "{format:?} {listed}");
        }
    }
}
