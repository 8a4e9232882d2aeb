//! Merge, case by case.

use std::sync::Arc;

use lakehouse_core::model::{At, Token};
use lakehouse_core::operations::Strategy;
use lakehouse_core::{Compact, Merge, Options, Rows, Table};

use super::{FORMATS, append, content, rows, table};

async fn merge(table: &Table, columns: &str, values: &str, merge: &Merge) -> lakehouse_core::Report {
    table
        .merge(rows(columns, values).await, merge, &Options::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_merge_that_changes_nothing_commits_nothing() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        let before = table.snapshot(&At::Latest).await.unwrap().state;
        let update = Merge::on("id").when_matched_update_all();
        let report = merge(&table, "id, n", "(7, 7), (8, 8)", &update).await;
        assert!(!report.committed);
        assert_eq!(report.metric("num_source_rows"), 2);
        let none = rows("id, n", "(7, 7)").await;
        let schema = none.schema().await.unwrap();
        let empty = Rows::batches(schema, Vec::new());
        let report = table
            .merge(empty, &update.when_not_matched_insert_all(), &Options::default())
            .await
            .unwrap();
        assert!(!report.committed);
        assert_eq!(table.snapshot(&At::Latest).await.unwrap().state, before);
    }
}

#[tokio::test]
async fn the_first_clause_that_applies_decides() {
    for format in FORMATS {
        let table = table(format, "region").await;
        append(
            &table,
            "(1, 'eu', 1), (2, 'us', 2), (3, 'us', 3), (4, 'eu', 4), (9, 'eu', 9)",
        )
        .await;
        let clauses = Merge::on("id")
            .when_matched_delete()
            .only_if("source.op = 'D'")
            .when_matched_update("n = source.n + target.n, region = 'moved'")
            .only_if("source.n > 10")
            .when_matched_update_all()
            .only_if("source.op = 'U'")
            .when_not_matched_insert("id = source.id, n = source.n * 2")
            .only_if("source.op = 'I'")
            .when_not_matched_by_source_update("n = n + 1000")
            .only_if("target.region = 'eu'");
        let source = "(1, 0, 'D'), (2, 20, 'U'), (3, 5, 'U'), (4, 4, '?'), (5, 50, 'I'), (6, 60, '?')";
        // `n` alone would be ambiguous: both sides have it.
        let ambiguous = table
            .merge(rows("id, n, op", source).await, &clauses, &Options::default())
            .await;
        assert!(ambiguous.unwrap_err().to_string().contains("ambiguous"));
        let mut clauses = clauses;
        for clause in &mut clauses.clauses {
            if let lakehouse_core::operations::Action::UpdateSet(text) = &mut clause.action {
                *text = text.replace("n = n + 1000", "n = target.n + 1000");
            }
        }
        let report = merge(&table, "id, n, op", source, &clauses).await;
        assert_eq!(
            content(&table).await,
            ["2|moved|22", "3|us|5", "4|eu|4", "5||100", "9|eu|1009"]
        );
        let figures =
            ["inserted", "updated", "deleted"].map(|what| report.metric(&format!("num_target_rows_{what}")));
        assert_eq!(figures, [1, 3, 1]);
    }
}

#[tokio::test]
async fn null_keys_match_nothing() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, NULL, 1), (2, 'us', 2)").await;
        let upsert = Merge::on("region")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        merge(
            &table,
            "id, region, n",
            "(3, CAST(NULL AS VARCHAR), 3), (4, 'us', 4)",
            &upsert,
        )
        .await;
        assert_eq!(content(&table).await, ["1||1", "3||3", "4|us|4"]);
    }
}

#[tokio::test]
async fn a_condition_over_both_sides_matches_and_prunes() {
    for format in FORMATS {
        let table = table(format, "region").await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
        append(&table, "(1, 'us', 1), (2, 'us', 2)").await;
        append(&table, "(11, 'us', 1), (12, 'us', 2)").await;
        let on = "target.id = source.key AND target.region = 'us' AND source.key <> 2";
        let update = Merge::on(on).when_matched_update("n = source.value");
        let report = merge(&table, "key, value", "(1, 100), (2, 200), (3, 300)", &update).await;
        assert_eq!(
            content(&table).await,
            ["11|us|1", "12|us|2", "1|eu|1", "1|us|100", "2|eu|2", "2|us|2"]
        );
        assert_eq!(report.metric("num_target_files_scanned"), 1, "{report:?}");
        assert_eq!(
            report.metric("num_target_files_skipped_during_scan"),
            2,
            "{report:?}"
        );
    }
}

#[tokio::test]
async fn few_rows_are_masked_not_rewritten() {
    for format in FORMATS {
        let table = table(format, "").await;
        let values: Vec<String> = (0..200).map(|id| format!("({id}, 'eu', 1)")).collect();
        append(&table, &values.join(", ")).await;
        let upsert = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let report = merge(&table, "id, region, n", "(7, 'eu', 2), (500, 'eu', 3)", &upsert).await;
        assert_eq!(report.metric("num_target_rows_copied"), 0);
        assert_eq!(report.metric("num_target_files_masked"), 1);
        assert_eq!(report.metric("num_target_files_removed"), 0);
        assert_eq!(report.metric("num_output_rows"), 2);
        assert_eq!(content(&table).await.len(), 201);
    }
}

#[tokio::test]
async fn each_file_is_masked_or_rewritten_by_what_it_costs() {
    for format in FORMATS {
        let table = table(format, "").await;
        for from in [0, 100] {
            let values: Vec<String> = (from..from + 100).map(|id| format!("({id}, 'eu', 1)")).collect();
            append(&table, &values.join(", ")).await;
        }
        let update = Merge::on("id").when_matched_update_all();
        // One row of the first file, a third of the second.
        let values: Vec<String> = (100..133).map(|id| format!("({id}, 2)")).collect();
        let values = format!("(5, 2), {}", values.join(", "));
        let run = |strategy| {
            let (table, update, values) = (table.clone(), update.clone(), values.clone());
            async move {
                let options = Options {
                    strategy,
                    dry_run: strategy != Strategy::Auto,
                    ..Options::default()
                };
                table
                    .merge(rows("id, n", &values).await, &update, &options)
                    .await
                    .unwrap()
            }
        };
        let fates = |report: &lakehouse_core::Report| {
            (
                report.metric("num_target_files_masked"),
                report.metric("num_target_files_rewritten"),
                report.metric("num_target_rows_copied"),
            )
        };
        assert_eq!(fates(&run(Strategy::MergeOnRead).await), (2, 0, 0), "{format:?}");
        assert_eq!(
            fates(&run(Strategy::CopyOnWrite).await),
            (0, 2, 166),
            "{format:?}"
        );
        assert_eq!(fates(&run(Strategy::Auto).await), (1, 1, 67), "{format:?}");
        let changed = content(&table)
            .await
            .iter()
            .filter(|row| row.ends_with("|2"))
            .count();
        assert_eq!(changed, 34, "{format:?}");
    }
}

#[tokio::test]
async fn a_file_that_became_mostly_mask_is_rewritten_on_the_way() {
    for format in FORMATS {
        let table = table(format, "").await;
        let values: Vec<String> = (0..100).map(|id| format!("({id}, 'eu', 1)")).collect();
        append(&table, &values.join(", ")).await;
        let delete = |from: i32| {
            let table = table.clone();
            async move {
                let range = format!("id BETWEEN {from} AND {}", from + 9);
                table.delete(&range, &Options::default()).await.unwrap()
            }
        };
        assert_eq!(delete(0).await.metric("num_target_files_masked"), 1);
        assert_eq!(delete(10).await.metric("num_target_files_masked"), 1);
        let third = delete(20).await;
        assert_eq!(third.metric("num_target_files_rewritten"), 1, "{format:?}");
        assert_eq!(third.metric("num_target_rows_copied"), 70, "{format:?}");
        assert_eq!(content(&table).await.len(), 70);
    }
}

#[tokio::test]
async fn rows_that_an_update_would_not_change_stay_where_they_are() {
    for format in FORMATS {
        let table = table(format, "").await;
        let values: Vec<String> = (0..100).map(|id| format!("({id}, NULL, {id})")).collect();
        append(&table, &values.join(", ")).await;
        let update = Merge::on("id").when_matched_update_all().skip_unchanged();
        let source = "(1, CAST(NULL AS VARCHAR), 1), (2, NULL, 22), (3, 'eu', 3)";
        let report = merge(&table, "id, region, n", source, &update).await;
        assert_eq!(report.metric("num_target_rows_unchanged"), 1, "{format:?}");
        assert_eq!(report.metric("num_target_rows_updated"), 2, "{format:?}");
        let again = merge(&table, "id, region, n", source, &update).await;
        assert!(!again.committed, "{format:?}: {again:?}");
        assert_eq!(again.metric("num_target_rows_unchanged"), 3, "{format:?}");
        assert_eq!(again.metric("num_output_rows"), 0);
        // Two source rows for one row are ambiguous, whether they change it or not.
        let twice = rows("id, n", "(1, 1), (1, 1)").await;
        let refused = table
            .merge(twice, &update, &Options::default())
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("id = 1"), "{refused}");
    }
}

#[tokio::test]
async fn masks_cannot_be_asked_of_a_table_that_has_none() {
    let definition = lakehouse_core::model::Definition {
        schema: super::schema(),
        partition_fields: Vec::new(),
        properties: [("delta.enableDeletionVectors".to_owned(), "false".to_owned())].into(),
        format_version: None,
    };
    let table = Table::create_in(crate::support::memory("cow"), FORMATS[2].0, &definition)
        .await
        .unwrap();
    append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
    let options = Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    };
    let refused = table.delete("id = 1", &options).await.unwrap_err();
    assert!(
        matches!(refused, lakehouse_core::Error::Unsupported { .. }),
        "{refused:?}"
    );
    assert_eq!(content(&table).await.len(), 2);
}

#[tokio::test]
async fn a_file_without_rows_left_is_removed() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
        append(&table, "(3, 'eu', 3)").await;
        let masking = Options {
            strategy: Strategy::MergeOnRead,
            ..Options::default()
        };
        let first = table.delete("id = 1", &masking).await.unwrap();
        assert_eq!(first.metric("num_target_files_masked"), 1);
        let second = table.delete("id = 2", &Options::default()).await.unwrap();
        assert_eq!(second.metric("num_target_files_removed"), 1, "{second:?}");
        assert_eq!(table.files(&At::Latest).await.unwrap().len(), 1);
        assert_eq!(content(&table).await, ["3|eu|3"]);
    }
}

#[tokio::test]
async fn a_dry_run_counts_and_leaves_nothing() {
    for format in FORMATS {
        let table = table(format, "region").await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
        let store = &table.handle().store;
        let before = store.list("").await.unwrap();
        let options = Options {
            dry_run: true,
            strategy: Strategy::MergeOnRead,
            ..Options::default()
        };
        let upsert = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let source = || rows("id, region, n", "(1, 'us', 5), (3, 'us', 6)");
        let report = table.merge(source().await, &upsert, &options).await.unwrap();
        assert!(report.dry_run && !report.committed);
        assert_eq!(report.metric("num_target_rows_updated"), 1);
        assert_eq!(report.metric("num_target_rows_inserted"), 1);
        assert_eq!(report.metric("num_target_files_masked"), 1);
        table.delete("id = 1", &options).await.unwrap();
        table.append(source().await, &options).await.unwrap();
        table.overwrite(source().await, None, &options).await.unwrap();
        assert_eq!(
            store.list("").await.unwrap(),
            before,
            "a dry run left something behind"
        );
        assert_eq!(content(&table).await, ["1|eu|1", "2|eu|2"]);
    }
}

#[tokio::test]
async fn the_same_key_of_idempotency_commits_once() {
    for format in FORMATS {
        let table = table(format, "").await;
        let options = Options {
            token: Some("load-1".into()),
            ..Options::default()
        };
        let source = || rows("id, region, n", "(1, 'eu', 1)");
        let first = table.append(source().await, &options).await.unwrap();
        assert!(first.committed && first.already.is_none());
        let second = table.append(source().await, &options).await.unwrap();
        assert!(!second.committed);
        assert_eq!(second.already, Some(first.version));
        let dry = Options {
            dry_run: true,
            ..options.clone()
        };
        assert_eq!(
            table.append(source().await, &dry).await.unwrap().already,
            Some(first.version)
        );
        assert_eq!(content(&table).await, ["1|eu|1"]);
    }
}

/// A stream of changes under one name: done steps are not done again, whatever happened to the table since.
#[tokio::test]
async fn steps_of_a_stream_commit_once_and_in_order() {
    let step = |step| Options {
        token: Some(Token::step("feed", step)),
        ..Options::default()
    };
    for format in FORMATS {
        let table = table(format, "").await;
        for n in [1, 2, 2, 1, 5, 5, 4] {
            let values = format!("({n}, 'eu', {n})");
            let before = table.last_step("feed", None).await.unwrap().unwrap_or(0);
            let source = rows("id, region, n", &values).await;
            let report = table.append(source, &step(n)).await.unwrap();
            assert_eq!(report.committed, n > before, "{format:?} {n} after {before}");
            assert_eq!(
                report.already.is_some(),
                n <= before,
                "{format:?} {n} after {before}"
            );
        }
        table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        table.delete("id = 2", &Options::default()).await.unwrap();
        let again = Table::open_in(table.handle().store.clone()).await.unwrap();
        assert_eq!(again.last_step("feed", None).await.unwrap(), Some(5));
        let source = rows("id, region, n", "(9, 'eu', 9)").await;
        let upsert = Merge::on("id").when_not_matched_insert_all();
        assert!(!again.merge(source, &upsert, &step(5)).await.unwrap().committed);
        assert_eq!(content(&again).await, ["1|eu|1", "5|eu|5"]);
    }
}

#[tokio::test]
async fn another_table_can_be_the_source() {
    for format in FORMATS {
        let (target, source) = (table(format, "").await, table(FORMATS[2], "region").await);
        append(&target, "(1, 'eu', 1), (2, 'eu', 2)").await;
        append(&source, "(2, 'us', 20), (3, 'us', 30)").await;
        let upsert = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let rows = Rows::table(&source, &At::Latest).await.unwrap();
        target.merge(rows, &upsert, &Options::default()).await.unwrap();
        assert_eq!(content(&target).await, ["1|eu|1", "2|us|20", "3|us|30"]);
    }
}

#[tokio::test]
async fn a_source_beyond_the_memory_limit_is_merged_in_parts() {
    let source = |twice: &'static str| async move {
        let sql = format!(
            "SELECT value AS id, CAST(value AS VARCHAR) AS region, CAST(value % 1000 AS INT) AS n \
             FROM generate_series(1, 200000) {twice}"
        );
        Rows::frame(lakehouse_core::scan::session(None).sql(&sql).await.unwrap())
    };
    let limited = Options {
        memory_limit: Some(12 << 20),
        ..Options::default()
    };
    let clauses = Merge::on("id")
        .when_matched_delete()
        .only_if("target.n = 7")
        .when_matched_update("n = source.n + target.n")
        .when_not_matched_insert_all()
        .when_not_matched_by_source_update("region = 'gone'");
    for format in FORMATS {
        let mut contents = Vec::new();
        for options in [Options::default(), limited.clone()] {
            let table = table(format, "bucket(2, id)").await;
            let values: Vec<String> = (0..3000)
                .map(|i| format!("({}, 'eu', {})", i * 100, i % 10))
                .collect();
            append(&table, &values.join(", ")).await;
            let report = table.merge(source("").await, &clauses, &options).await.unwrap();
            assert_eq!(report.metric("num_source_rows"), 200_000, "{format:?}");
            contents.push((content(&table).await, report.metric("num_target_rows_inserted")));

            let twice = source("UNION ALL SELECT 200001, 'a', 1 UNION ALL SELECT 200001, 'b', 2").await;
            let refused = table.merge(twice, &clauses, &options).await.unwrap_err();
            assert!(
                refused.to_string().contains("id = 200001"),
                "{format:?}: {refused}"
            );
        }
        assert!(
            contents[0] == contents[1],
            "{format:?}: the memory limit changed the result"
        );
    }
}

#[tokio::test]
async fn every_memory_limit_is_enough_for_some_way_to_merge() {
    let table = table(FORMATS[1], "").await;
    append(&table, "(1, 'eu', 1)").await;
    let sql = "SELECT value AS id, concat('x', value) AS region, 1 AS n FROM generate_series(1, 150000)";
    let frame = lakehouse_core::scan::session(None).sql(sql).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.unwrap();
    let upsert = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    for megabytes in [2, 4, 6, 8, 12, 16, 24] {
        let options = Options {
            memory_limit: Some(megabytes << 20),
            dry_run: true,
            ..Options::default()
        };
        let source = Rows::batches(Arc::clone(&schema), batches.clone());
        let report = table.merge(source, &upsert, &options).await;
        let report = report.unwrap_or_else(|error| panic!("{megabytes} MB: {error}"));
        assert_eq!(
            report.metric("num_target_rows_inserted"),
            149_999,
            "{megabytes} MB"
        );
    }
}

#[tokio::test]
async fn keys_written_in_several_ways_are_one_key_beyond_the_memory_limit_too() {
    let twins: Vec<String> = (0..12)
        .map(|i| format!("UNION ALL SELECT '30000{i}' UNION ALL SELECT '030000{i}'"))
        .collect();
    let sql = format!(
        "SELECT id, 'x' AS region FROM (SELECT CAST(value AS VARCHAR) AS id FROM generate_series(1, 100000) {})",
        twins.join(" ")
    );
    let insert = Merge::on("id").when_not_matched_insert_all();
    for memory_limit in [None, Some(12 << 20)] {
        let table = table(FORMATS[2], "").await;
        append(&table, "(1, 'eu', 1)").await;
        let options = Options {
            memory_limit,
            ..Options::default()
        };
        let frame = lakehouse_core::scan::session(None).sql(&sql).await.unwrap();
        let refused = table
            .merge(Rows::frame(frame), &insert, &options)
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("id = 30000"),
            "{memory_limit:?}: {refused}"
        );
    }
}

#[tokio::test]
async fn what_only_the_table_says_in_every_clause_prunes() {
    for format in FORMATS {
        let table = table(format, "region").await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
        append(&table, "(1, 'us', 1), (2, 'us', 2)").await;
        let some = Merge::on("id")
            .when_matched_delete()
            .only_if("target.region = 'us' AND source.n = 20")
            .when_matched_update("n = source.n")
            .only_if("target.region = 'us'");
        let report = merge(&table, "id, n", "(1, 10), (2, 20)", &some).await;
        assert_eq!(report.metric("num_target_files_scanned"), 1, "{format:?}");
        assert_eq!(
            content(&table).await,
            ["1|eu|1", "1|us|10", "2|eu|2"],
            "{format:?}"
        );
        // Where rows are inserted, a row that matches must be found, whatever clauses want.
        let insert = some.when_not_matched_insert("id = source.id, region = 'new'");
        let report = merge(&table, "id, n", "(1, 11), (2, 22), (3, 33)", &insert).await;
        assert_eq!(report.metric("num_target_rows_inserted"), 1, "{format:?}");
        assert_eq!(
            content(&table).await,
            ["1|eu|1", "1|us|11", "2|eu|2", "3|new|"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn source_columns_may_have_the_names_of_metadata_columns() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2), (3, 'eu', 3)").await;
        let set = Merge::on("id")
            .when_matched_update("n = source._pos, region = source._file")
            .only_if("source._row_id > 0");
        merge(
            &table,
            "id, _pos, _file, _row_id",
            "(2, 0, 'x', 77), (3, 0, 'y', 78)",
            &set,
        )
        .await;
        assert_eq!(content(&table).await, ["1|eu|1", "2|x|0", "3|y|0"]);
    }
}

/// The engine skips pages by conditions on one column; a key of two columns comes as one condition on both.
#[tokio::test]
async fn a_merge_in_a_narrow_range_of_a_key_of_two_columns_reads_few_pages() {
    const ROWS: u64 = 400_000;
    for format in FORMATS {
        let (store, faults) = lakehouse_core::store::sim::faulty(&crate::support::memory("narrow"));
        let definition = lakehouse_core::model::Definition {
            schema: lakehouse_core::scan::parse_columns("id bigint, line int, n bigint").unwrap(),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let table = Table::create_in(store, format.0, &definition).await.unwrap();
        let ctx = lakehouse_core::scan::session(None);
        let select = |which: &str, n: &str| {
            format!(
                "SELECT value * 1000000000000 + value * value * 7919 % 1000000000000 AS id, \
                 CAST(value % 7 AS INT) AS line, {n} AS n \
                 FROM generate_series(1, {ROWS}) WHERE {which}"
            )
        };
        let all = ctx.sql(&select("true", "value")).await.unwrap();
        table.append(Rows::frame(all), &Options::default()).await.unwrap();
        let mut bytes = Vec::new();
        for (which, updated) in [
            ("value BETWEEN 200001 AND 201000", 1000),
            ("value % 300 = 0", 1333),
        ] {
            let source = ctx.sql(&select(which, "-1")).await.unwrap();
            let update = Merge::on("id, line").when_matched_update_all();
            faults.reset();
            let report = table
                .merge(Rows::frame(source), &update, &Options::default())
                .await
                .unwrap();
            assert_eq!(
                report.metric("num_target_rows_updated"),
                updated,
                "{format:?} {which}"
            );
            bytes.push(faults.counts().get_bytes);
        }
        // Ranges that are close to each other are read as one.
        assert!(bytes[0] * 3 < bytes[1] * 2, "{format:?}: {bytes:?} bytes");
        ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
            .unwrap();
        let left = ctx.sql("SELECT count(*), sum(CASE WHEN n = -1 THEN 1 ELSE 0 END) FROM t");
        let left = super::lines(&left.await.unwrap().collect().await.unwrap());
        // Four rows were updated twice.
        assert_eq!(left, ["400000|2329"], "{format:?}");
    }
}

/// Keys narrow what is read by their values, and a zone in the condition moves these.
#[tokio::test]
async fn local_times_of_two_zones_are_matched_as_instants() {
    for format in FORMATS {
        let definition = lakehouse_core::model::Definition {
            schema: lakehouse_core::scan::parse_columns("at timestamp_ntz, n bigint").unwrap(),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let table = Table::create_in(crate::support::memory("zones"), format.0, &definition)
            .await
            .unwrap();
        let at =
            |time: &str, n: i64| format!("SELECT TIMESTAMP '2024-01-{time}' AS at, CAST({n} AS BIGINT) AS n");
        let ctx = lakehouse_core::scan::session(None);
        let stored = ctx.sql(&at("10 08:00:00", 1)).await.unwrap();
        table
            .append(Rows::frame(stored), &Options::default())
            .await
            .unwrap();
        let source = ctx.sql(&at("10 13:00:00", 2)).await.unwrap();
        let on = "target.at AT TIME ZONE 'America/New_York' = source.at AT TIME ZONE 'UTC'";
        let merge = Merge::on(on)
            .when_matched_update("n = source.n")
            .when_not_matched_insert_all();
        table
            .merge(Rows::frame(source), &merge, &Options::default())
            .await
            .unwrap();
        assert_eq!(content(&table).await, ["2024-01-10T08:00:00|2"], "{format:?}");
    }
}
