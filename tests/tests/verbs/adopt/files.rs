//! Columns of several files as those of one table; what of a file the table knows.

use lakehouse_core::model::parse_partitioning;
use lakehouse_core::scan::parse_columns;
use lakehouse_core::store::sim::{Fault, faulty};

use super::*;

#[tokio::test]
async fn types_are_widened_where_the_format_reads_narrower_ones() {
    for format in FORMATS {
        let store = memory("wider");
        let of = |int: &str, float: &str, decimal: &str| {
            format!(
                "SELECT arrow_cast(7, '{int}') AS i, arrow_cast(1.5, '{float}') AS f, \
                 arrow_cast(2.5, 'Decimal128({decimal}, 2)') AS d"
            )
        };
        put(&store, "a.parquet", &of("Int32", "Float32", "9")).await;
        put(&store, "b.parquet", &of("Int64", "Float64", "12")).await;
        put(&store, "c.parquet", &of("Int16", "Float32", "5")).await;
        if format.0 == TableFormat::Delta {
            let error = refusal(&store, format, &adoption(format)).await;
            let text = error.to_string();
            assert!(
                text.contains("column i of a.parquet is stored as Int32"),
                "{text}"
            );
            assert!(error.hint().unwrap().contains("lake append"), "{error:?}");
            continue;
        }
        let (table, adopted) = adopt(&store, format).await;
        assert_eq!(adopted.schema.field(0).data_type(), &DataType::Int64);
        assert_eq!(adopted.schema.field(1).data_type(), &DataType::Float64);
        assert_eq!(adopted.schema.field(2).data_type(), &DataType::Decimal128(12, 2));
        assert_eq!(
            ask(&table, "SELECT sum(i), sum(f), sum(d) FROM t").await,
            ["21|4.5|7.50"]
        );
        assert_eq!(
            ask(
                &table,
                "SELECT count(*) FROM t WHERE i = 7 AND f = 1.5 AND d = 2.5"
            )
            .await,
            ["3"]
        );
    }
}

#[tokio::test]
async fn required_columns_are_those_that_all_files_require_or_that_the_user_says_and_footers_prove() {
    for format in FORMATS {
        let store = memory("required");
        // `value` of generate_series is required, what a CASE makes is not.
        put(
            &store,
            "a.parquet",
            "SELECT value AS id, nullif(value, -1) AS n FROM generate_series(1, 3)",
        )
        .await;
        put(
            &store,
            "b.parquet",
            "SELECT value AS id, value AS n, 1 AS more FROM generate_series(4, 5)",
        )
        .await;
        put(
            &store,
            "c.parquet",
            "SELECT value AS id, nullif(value, 6) AS m FROM generate_series(6, 7)",
        )
        .await;
        let (_, adopted) = adopt(&store, format).await;
        let null: Vec<_> = types(&adopted.schema)
            .into_iter()
            .map(|(name, _, null)| (name, null))
            .collect();
        assert_eq!(
            null,
            [("id", false), ("n", true), ("more", true), ("m", true)],
            "{format:?}"
        );

        let store = memory("proved");
        put(
            &store,
            "p=1/a.parquet",
            "SELECT value AS id, nullif(value, -1) AS n FROM generate_series(1, 3)",
        )
        .await;
        put(
            &store,
            "p=2/a.parquet",
            "SELECT value AS id, nullif(value, 4) AS m, 1 AS n FROM generate_series(4, 5)",
        )
        .await;
        let with = |columns: &str| Adoption {
            schema: Some(parse_columns(columns).unwrap()),
            ..adoption(format)
        };
        let error = refusal(&store, format, &with("m bigint not null"))
            .await
            .to_string();
        assert!(
            error.contains("column m cannot be NOT NULL") && error.contains(".parquet"),
            "{error}"
        );
        let error = refusal(&store, format, &with("typo bigint")).await.to_string();
        assert!(
            error.contains("no file and no folder has a column typo"),
            "{error}"
        );
        let wanted = with("n bigint not null, p string not null, id bigint");
        let (table, adopted) = Table::adopt_in(store, format.0, &wanted, false).await.unwrap();
        let found = types(&adopted.schema);
        assert_eq!(found[0], ("id", &DataType::Int64, true));
        assert_eq!(found[1], ("n", &DataType::Int64, false));
        assert_eq!(found[3], ("p", &DataType::Utf8, false));
        assert_eq!(
            ask(&table, "SELECT count(*), max(p) FROM t WHERE p = '2'").await,
            ["2|2"]
        );
    }
}

#[tokio::test]
async fn a_folder_and_a_column_of_the_same_name_must_agree() {
    for format in FORMATS {
        let store = memory("agree");
        put(
            &store,
            "year=2023/a.parquet",
            "SELECT value AS id, 2023 AS year FROM generate_series(1, 3)",
        )
        .await;
        put(
            &store,
            "year=2024/a.parquet",
            "SELECT value AS id, 2024 AS year FROM generate_series(4, 5)",
        )
        .await;
        put(
            &store,
            "year=2025/a.parquet",
            "SELECT value AS id FROM generate_series(6, 6)",
        )
        .await;
        let (table, adopted) = adopt(&store, format).await;
        assert_eq!(adopted.partition_fields.len(), 1);
        let rows = "SELECT year, count(*) FROM t WHERE year > 2000 GROUP BY year";
        assert_eq!(
            ask(&table, rows).await,
            ["2023|3", "2024|2", "2025|1"],
            "{format:?}"
        );

        let store = memory("disagree");
        put(&store, "year=2023/a.parquet", "SELECT 1 AS id, 2022 AS year").await;
        let error = refusal(&store, format, &adoption(format)).await.to_string();
        assert!(
            error.contains("the folder says that year is 2023") && error.contains("year=2023/a.parquet"),
            "{error}"
        );
        let store = memory("unparsed");
        put(&store, "year=soon/a.parquet", "SELECT 1 AS id, 2022 AS year").await;
        let error = refusal(&store, format, &adoption(format)).await.to_string();
        assert!(error.contains("which is no Int64"), "{error}");
    }
}

#[tokio::test]
async fn other_partition_fields_are_taken_where_footers_prove_the_value() {
    for format in FORMATS {
        let store = memory("proved");
        for day in ["2024-02-28", "2024-02-29"] {
            let sql = format!(
                "SELECT arrow_cast('{day}T0' || value || ':00:00', 'Timestamp(Microsecond, None)') AS ts, value AS n \
                 FROM generate_series(1, 9)"
            );
            put(&store, &format!("p=x/{day}.parquet"), &sql).await;
        }
        let by = |fields: &str| Adoption {
            partition_fields: parse_partitioning(fields).unwrap(),
            ..adoption(format)
        };
        let error = refusal(&store, format, &by("n")).await.to_string();
        assert!(
            error.contains("several partitions of identity(n)") && error.contains(".parquet"),
            "{error}"
        );
        let (table, adopted) = Table::adopt_in(store, format.0, &by("day(ts), p"), false)
            .await
            .unwrap();
        let fields: Vec<_> = adopted
            .partition_fields
            .iter()
            .map(|f| f.source.as_str())
            .collect();
        assert_eq!(fields, ["p", "ts"]);
        let found = ask(
            &table,
            "SELECT count(*) FROM t WHERE ts >= '2024-02-29T00:00:00' AND p = 'x'",
        )
        .await;
        assert_eq!(found, ["9"], "{format:?}");
        table
            .delete("ts < '2024-02-28T05:00:00'", &Options::default())
            .await
            .unwrap();
        assert_eq!(ask(&table, "SELECT count(*) FROM t").await, ["14"]);
    }
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_makes_nothing() {
    for format in FORMATS {
        let store = memory("dry");
        put(&store, "raw/d=2024-02-29/a.parquet", "SELECT 1 AS id").await;
        put(&store, "other/b.parquet", "SELECT 'x' AS id").await;
        let adoption = Adoption {
            folder: "raw".into(),
            ..adoption(format)
        };
        let before = store.list("").await.unwrap();
        let (_, dry) = Table::adopt_in(store.clone(), format.0, &adoption, true)
            .await
            .unwrap();
        assert_eq!(store.list("").await.unwrap(), before);
        let (table, real) = Table::adopt_in(store.clone(), format.0, &adoption, false)
            .await
            .unwrap();
        assert_eq!(
            (dry.version, dry.files, dry.rows, dry.bytes),
            (None, real.files, real.rows, real.bytes)
        );
        assert_eq!(dry.schema, real.schema);
        assert_eq!(ask(&table, "SELECT id, d FROM t").await, ["1|2024-02-29"]);
        let error = Table::adopt_in(store, format.0, &adoption, true)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    }
}

#[tokio::test]
async fn files_without_rows_are_no_part_of_the_table() {
    for format in FORMATS {
        let store = memory("empty");
        put(&store, "a.parquet", "SELECT 1 AS id WHERE false").await;
        let (table, adopted) = adopt(&store, format).await;
        assert_eq!((adopted.files, adopted.rows, adopted.skipped), (0, 0, 1));
        assert_eq!(ask(&table, "SELECT count(*) FROM t").await, ["0"], "{format:?}");
        let (schema, batches) = query("SELECT 2 AS id").await;
        table
            .append(Rows::batches(schema, batches), &Options::default())
            .await
            .unwrap();
        assert_eq!(ask(&table, "SELECT id FROM t").await, ["2"]);
    }
}

/// Whatever fails: the files are there, and running it again makes the table, or it is there already.
#[tokio::test]
async fn no_fault_costs_a_file_and_a_second_run_ends_well() {
    for format in FORMATS {
        let fresh = || async {
            let store = memory("faults");
            put(
                &store,
                "p=1/a.parquet",
                "SELECT value AS id FROM generate_series(1, 3)",
            )
            .await;
            put(
                &store,
                "p=2/b.parquet",
                "SELECT value AS id FROM generate_series(4, 5)",
            )
            .await;
            store
        };
        let (store, faults) = faulty(&fresh().await);
        adopt(&store, format).await;
        for at in 1..=faults.requests() {
            for fault in [
                Fault::FailBefore,
                Fault::FailAfter,
                Fault::FalseExists,
                Fault::Late,
                Fault::Crash,
            ] {
                let inner = fresh().await;
                let files = inner.list("").await.unwrap();
                let (store, faults) = faulty(&inner);
                faults.fail_at(at, fault);
                let made = Table::adopt_in(store, format.0, &adoption(format), false).await;
                let what = format!(
                    "{format:?} {fault:?} at {at}: {:?}",
                    made.as_ref().map(|(_, a)| a.rows)
                );
                let left = inner.list("").await.unwrap();
                assert!(files.iter().all(|file| left.contains(file)), "{what}");
                let again = Table::adopt_in(inner.clone(), format.0, &adoption(format), false).await;
                match (&made, &again) {
                    (Ok(_) | Err(Error::CommitUnknown { .. }), Err(Error::AlreadyExists { .. })) => {}
                    (Err(_), Ok(_)) => {}
                    _ => panic!("{what}; {again:?}"),
                }
                let table = Table::open_in(inner).await.unwrap();
                assert_eq!(
                    ask(&table, "SELECT sum(id), max(p) FROM t").await,
                    ["15|2"],
                    "{what}"
                );
            }
        }
    }
}
