//! Merges from feeds: duplicates, sequences, tombstones, change records; NULL-safe and free conditions.

use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::operations::{Cdc, OnDuplicate};
use lakehouse_core::scan::parse_columns;
use lakehouse_core::{Error, Merge, Options, Report, Result, Rows, Table, TableFormat};

use super::{FORMATS, content, rows};
use crate::support::memory;

/// A table with these columns and rows.
pub(super) async fn filled(
    format: (TableFormat, Option<u8>),
    columns: &str,
    partitioning: &str,
    names: &str,
    files: &[&str],
) -> Table {
    let definition = Definition {
        schema: parse_columns(columns).unwrap(),
        partition_fields: parse_partitioning(partitioning).unwrap(),
        properties: Default::default(),
        format_version: format.1,
    };
    let table = Table::create_in(memory("feed"), format.0, &definition)
        .await
        .unwrap();
    for file in files {
        let rows = rows(names, file).await;
        table.append(rows, &Options::default()).await.unwrap();
    }
    table
}

fn upsert(on: &str) -> Merge {
    Merge::on(on)
        .when_matched_update_all()
        .when_not_matched_insert_all()
}

async fn try_merge(table: &Table, names: &str, values: &str, merge: &Merge) -> Result<Report> {
    table
        .merge(rows(names, values).await, merge, &Options::default())
        .await
}

async fn merge(table: &Table, names: &str, values: &str, merge: &Merge) -> Report {
    try_merge(table, names, values, merge).await.unwrap()
}

/// The error's words, with its hint.
async fn refused(table: &Table, names: &str, values: &str, merge: &Merge) -> String {
    let version = table.snapshot(&At::Latest).await.unwrap().state;
    let error = try_merge(table, names, values, merge).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    assert_eq!(table.snapshot(&At::Latest).await.unwrap().state, version);
    format!("{error} | {}", error.hint().unwrap_or_default())
}

fn feed(text: &str) -> Cdc {
    text.parse().unwrap()
}

const ACCOUNTS: &str = "id bigint not null, v string";

#[tokio::test]
async fn of_several_rows_with_one_key_the_first_or_the_last_counts() {
    let source = "(1, 'a'), (1, 'b'), (7, 'x'), (2, 'c'), (7, 'y'), (1, 'd')";
    for format in FORMATS {
        for (which, expected) in [
            (OnDuplicate::First, ["1|a", "2|c", "7|x"]),
            (OnDuplicate::Last, ["1|d", "2|c", "7|y"]),
        ] {
            let table = filled(format, ACCOUNTS, "", "id, v", &["(1, 'old'), (2, 'old')"]).await;
            let report = merge(&table, "id, v", source, &upsert("id").on_duplicate(which)).await;
            assert_eq!(content(&table).await, expected, "{which:?}");
            assert_eq!(report.metric("num_source_rows"), 6);
            assert_eq!(report.metric("num_target_rows_updated"), 2);
            assert_eq!(report.metric("num_target_rows_inserted"), 1);
        }
        let table = filled(format, ACCOUNTS, "", "id, v", &["(1, 'old'), (2, 'old')"]).await;
        let why = refused(&table, "id, v", source, &upsert("id")).await;
        assert!(why.contains("id = 1") && why.contains("on-duplicate"), "{why}");
        // A condition without an equality makes no key.
        let free = Merge::on("target.id < source.id")
            .when_matched_delete()
            .on_duplicate(OnDuplicate::Last);
        let why = refused(&table, "id, v", source, &free).await;
        assert!(
            why.contains("no key") && why.contains("target.id = source.id"),
            "{why}"
        );
    }
}

#[tokio::test]
async fn rows_without_a_key_are_not_duplicates() {
    let columns = "id bigint not null, k string";
    for format in FORMATS {
        let table = filled(format, columns, "", "id, k", &["(1, NULL), (2, 'a')"]).await;
        let last = upsert("k").on_duplicate(OnDuplicate::Last);
        merge(&table, "id, k", "(3, NULL), (4, NULL), (5, 'a'), (6, 'a')", &last).await;
        assert_eq!(content(&table).await, ["1|", "3|", "4|", "6|a"]);
        // With <=> they have one: NULL.
        let table = filled(format, columns, "", "id, k", &["(1, NULL), (2, 'a')"]).await;
        let last = upsert("target.k <=> source.k").on_duplicate(OnDuplicate::Last);
        merge(&table, "id, k", "(3, NULL), (4, NULL), (5, 'a'), (6, 'a')", &last).await;
        assert_eq!(content(&table).await, ["4|", "6|a"]);
    }
}

#[tokio::test]
async fn null_matches_null_where_asked_for_and_nothing_is_pruned_away() {
    let columns = "id bigint not null, k string, n int";
    let files = [
        "(1, 'a', 1), (2, 'b', 2)",
        "(3, NULL, 3)",
        "(4, 'z', 4), (5, NULL, 5)",
    ];
    for format in FORMATS {
        for partitioning in ["", "k"] {
            for on in [
                "target.k <=> source.k",
                "source.k IS NOT DISTINCT FROM target.k",
                "target.id = source.id AND target.k <=> source.k",
            ] {
                let table = filled(format, columns, partitioning, "id, k, n", &files).await;
                let set = Merge::on(on)
                    .when_matched_update("n = target.n + source.n")
                    .when_not_matched_insert_all();
                let source = "(3, CAST(NULL AS VARCHAR), 100), (1, 'a', 200)";
                merge(&table, "id, k, n", source, &set).await;
                let five = if on.contains("id") { "5||5" } else { "5||105" };
                let expected = ["1|a|201", "2|b|2", "3||103", "4|z|4", five];
                assert_eq!(content(&table).await, expected, "{on} by {partitioning}");
            }
            // Without NULL in the source, <=> prunes as = does.
            let table = filled(format, columns, partitioning, "id, k, n", &files).await;
            let set = Merge::on("target.k <=> source.k").when_matched_update("n = 0");
            let report = merge(&table, "k", "('a')", &set).await;
            assert_eq!(report.metric("num_target_files_scanned"), 1, "{report:?}");
            assert_eq!(content(&table).await, ["1|a|0", "2|b|2", "3||3", "4|z|4", "5||5"]);
            // Two new rows under one NULL key would be one too many.
            let why = refused(
                &table,
                "id, k, n",
                "(8, 'new', 1), (9, 'new', 2)",
                &upsert("target.k <=> source.k"),
            )
            .await;
            assert!(why.contains("k = new"), "{why}");
        }
        let table = filled(format, columns, "", "id, k, n", &["(1, 'a', 1)"]).await;
        let nulls = "(8, CAST(NULL AS VARCHAR), 1), (9, NULL, 2)";
        let why = refused(&table, "id, k, n", nulls, &upsert("target.k <=> source.k")).await;
        assert!(why.contains("k = NULL"), "{why}");
        merge(&table, "id, k, n", nulls, &upsert("k")).await;
        assert_eq!(content(&table).await, ["1|a|1", "8||1", "9||2"]);
    }
}

#[tokio::test]
async fn a_condition_without_equality_joins_by_what_it_says() {
    for format in FORMATS {
        let table = filled(
            format,
            ACCOUNTS,
            "",
            "id, v",
            &["(1, 'a'), (5, 'b')", "(9, 'c'), (12, 'd')"],
        )
        .await;
        let between = Merge::on("target.id > source.low AND target.id <= source.high")
            .when_matched_update("v = source.name")
            .when_not_matched_insert("id = source.high, v = 'none'");
        let source = "(4, 9, 'x'), (100, 200, 'y'), (11, 12, 'z')";
        merge(&table, "low, high, name", source, &between).await;
        assert_eq!(content(&table).await, ["12|z", "1|a", "200|none", "5|x", "9|x"]);
        // Two source rows for one row are an error here too, named by their number: there is no key.
        let why = refused(&table, "low, high, name", "(0, 9, 'x'), (0, 9, 'y')", &between).await;
        assert!(
            why.contains("several source rows") && why.contains("row "),
            "{why}"
        );
        // An equality beside it is found, and prunes.
        let both = Merge::on("target.id < source.high AND target.v = source.name").when_matched_delete();
        let report = merge(&table, "high, name", "(9, 'x')", &both).await;
        assert_eq!(report.metric("num_target_rows_deleted"), 1);
        assert_eq!(content(&table).await, ["12|z", "1|a", "200|none", "9|x"]);
    }
}

const STORED: &str = "id bigint not null, v string, seq bigint";

#[tokio::test]
async fn the_newest_row_of_a_key_wins_in_any_order_and_stored_rows_that_are_newer_stay() {
    for format in FORMATS {
        let start = ["(1, 'old', 10), (2, 'old', 10), (3, 'old', NULL), (4, 'old', 10)"];
        let table = filled(format, STORED, "", "id, v, seq", &start).await;
        let newest = upsert("id").sequence_by("seq");
        let source = "(1, 'b', 12), (1, 'a', 11), (1, 'n', NULL), (2, 'stale', 9), (2, 'staler', 8), \
                      (3, 'c', 1), (4, 'null', NULL), (5, 'x', 2), (5, 'y', 3), (5, 'z', 1)";
        merge(&table, "id, v, seq", source, &newest).await;
        let expected = ["1|b|12", "2|old|10", "3|c|1", "4|old|10", "5|y|3"];
        assert_eq!(content(&table).await, expected);
        // Again: equal sequences are written again, and nothing differs.
        merge(&table, "id, v, seq", source, &newest).await;
        assert_eq!(content(&table).await, expected);
        // A stale row does not delete either, and is not inserted beside the row that stays.
        let delete = Merge::on("id")
            .delete_when("source.v = 'D'")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .sequence_by("seq");
        let report = merge(
            &table,
            "id, v, seq",
            "(1, 'D', 11), (5, 'D', 3), (6, 'D', 9)",
            &delete,
        )
        .await;
        assert_eq!(report.metric("num_target_rows_deleted"), 1);
        assert_eq!(content(&table).await, expected[..4]);
        // Equal sequences are a tie: refused, or decided.
        let tie = "(1, 'p', 20), (1, 'q', 20), (1, 'o', 19)";
        let why = refused(&table, "id, v, seq", tie, &newest).await;
        assert!(why.contains("id = 1"), "{why}");
        for (which, wins) in [(OnDuplicate::First, "1|p|20"), (OnDuplicate::Last, "1|q|20")] {
            merge(&table, "id, v, seq", tie, &newest.clone().on_duplicate(which)).await;
            assert_eq!(content(&table).await[0], wins);
        }
    }
}

#[tokio::test]
async fn a_sequence_may_be_several_columns_and_need_not_be_stored() {
    let columns = "id bigint not null, v string, day date, n int";
    for format in FORMATS {
        let start = ["(1, 'old', DATE '2024-01-02', 5), (2, 'old', DATE '2024-01-02', 5)"];
        let table = filled(format, columns, "", "id, v, day, n", &start).await;
        let newest = upsert("id").sequence_by("day, n");
        let source = "(1, 'a', DATE '2024-01-01', 9), (1, 'b', DATE '2024-01-02', 4), \
                      (2, 'c', DATE '2024-01-02', 5), (2, 'd', DATE '2024-01-02', NULL)";
        merge(&table, "id, v, day, n", source, &newest).await;
        assert_eq!(content(&table).await, ["1|old|2024-01-02|5", "2|c|2024-01-02|5"]);
        // Half of it stored is no order.
        let source = "(1, 'a', DATE '2024-01-05', 9)";
        let half = upsert("id").sequence_by("day, m");
        let why = refused(&table, "id, v, day, m", source, &half).await;
        assert!(why.contains("no column m"), "{why}");
        // Not stored: it decides within the source alone.
        let unstored = upsert("id").sequence_by("lsn");
        merge(
            &table,
            "id, v, lsn",
            "(1, 'x', 2), (1, 'y', 1), (2, 'z', 0)",
            &unstored,
        )
        .await;
        assert_eq!(content(&table).await, ["1|x|2024-01-02|5", "2|z|2024-01-02|5"]);
        let why = refused(&table, "id, v", "(1, 'x')", &unstored).await;
        assert!(why.contains("no column lsn") && why.contains("sequence"), "{why}");
        let why = refused(&table, "id, v", "(1, 'x')", &upsert("id").sequence_by("v = 1")).await;
        assert!(why.contains("column of the source"), "{why}");
    }
}

const MARKED: &str = "id bigint not null, v string, seq bigint, gone boolean";

#[tokio::test]
async fn tombstones_keep_deleted_rows_from_coming_back() {
    for format in FORMATS {
        for marked in [true, false] {
            let start = ["(1, 'one', 1, false), (2, 'two', 1, NULL)"];
            let table = filled(format, MARKED, "", "id, v, seq, gone", &start).await;
            let mut changes = Merge::on("id").cdc(feed("op=op,sequence=seq"));
            if marked {
                changes = changes.tombstones("gone");
            }
            // A delete of a row that is there, one of a row that is not, and one that comes too late.
            let deletes = "('D', 1, 'bye', 5), ('D', 7, NULL, 5), ('D', 2, 'late', 0)";
            merge(&table, "op, id, v, seq", deletes, &changes).await;
            let expected: &[&str] = match marked {
                true => &["1|bye|5|true", "2|two|1|", "7||5|true"],
                false => &["2|two|1|"],
            };
            assert_eq!(content(&table).await, expected);
            // Older rows that come afterwards lose, newer ones win.
            let inserts = "('I', 1, 'older', 4), ('I', 7, 'older', 4), ('U', 2, 'newer', 6)";
            merge(&table, "op, id, v, seq", inserts, &changes).await;
            let expected: &[&str] = match marked {
                true => &["1|bye|5|true", "2|newer|6|false", "7||5|true"],
                false => &["1|older|4|", "2|newer|6|", "7|older|4|"],
            };
            assert_eq!(content(&table).await, expected);
            merge(&table, "op, id, v, seq", "('I', 1, 'again', 9)", &changes).await;
            let first = if marked { "1|again|9|false" } else { "1|again|9|" };
            assert_eq!(content(&table).await[0], first);
        }
    }
}

#[tokio::test]
async fn tombstones_mark_what_any_clause_deletes() {
    for format in FORMATS {
        let start = ["(1, 'a', 1, false), (2, 'b', 1, false), (3, 'c', 1, true), (4, 'd', 1, NULL)"];
        let table = filled(format, MARKED, "", "id, v, seq, gone", &start).await;
        let all = Merge::on("id")
            .delete_when("source.op = 'D'")
            .when_matched_update("v = source.v")
            .when_not_matched_insert("id = source.id, v = source.v")
            .when_not_matched_by_source_delete()
            .tombstones("gone");
        let source = "(1, 'x', 'D'), (2, 'y', 'U'), (8, 'z', 'D'), (9, 'w', 'U')";
        merge(&table, "id, v, op", source, &all).await;
        let expected = [
            "1|x|1|true",
            "2|y|1|false",
            "3|c|1|true",
            "4|d|1|true",
            "8|z||true",
            "9|w||false",
        ];
        assert_eq!(content(&table).await, expected);
        // Rows that are marked and still match nothing are not marked again.
        let by_source = Merge::on("id")
            .when_not_matched_by_source_delete()
            .tombstones("gone");
        let report = merge(&table, "id", "(2), (9)", &by_source).await;
        assert!(!report.committed, "{report:?}");
        // Where nothing is inserted, no marks are either.
        let no_inserts = Merge::on("id").delete_when("source.op = 'D'").tombstones("gone");
        let report = merge(&table, "id, op", "(77, 'D')", &no_inserts).await;
        assert!(!report.committed, "{report:?}");
        for (merge, expected) in [
            (upsert("id").tombstones("nosuch"), "gone"),
            (upsert("id").tombstones("v"), "boolean"),
            (
                upsert("id").tombstones("gone").sequence_by("lsn"),
                "no column lsn",
            ),
            (
                Merge::on("id")
                    .when_matched_update("gone = true")
                    .tombstones("gone"),
                "cannot be set",
            ),
        ] {
            let why = refused(&table, "id, lsn", "(1, 1)", &merge).await;
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }
}

#[tokio::test]
async fn a_change_feed_is_one_pass_and_can_be_played_twice() {
    let source = "('U', 1, 'c', 13), ('I', 1, 'a', 11), ('U', 1, 'b', 12), \
                  ('D', 2, NULL, 20), ('U', 2, 'x', 19), \
                  ('I', 3, 'taken', 30), \
                  ('U', 5, 'unseen', 40), \
                  ('D', 6, NULL, 50), ('I', 6, 'short', 49), \
                  ('r', 8, 'read', 5), ('update', 9, 'word', 6), ('D', 77, NULL, 1)";
    for format in FORMATS {
        // The sequence stored, and not.
        for columns in [STORED, ACCOUNTS] {
            let stored = columns == STORED;
            let names = if stored { "id, v, seq" } else { "id, v" };
            let start = if stored {
                "(2, 'two', 1), (3, 'three', 1)"
            } else {
                "(2, 'two'), (3, 'three')"
            };
            let table = filled(format, columns, "bucket(2, id)", names, &[start]).await;
            let changes = Merge::on("id").cdc(feed("op=op,sequence=seq"));
            let report = merge(&table, "op, id, v, seq", source, &changes).await;
            let mut expected = vec!["1|c|13", "3|taken|30", "5|unseen|40", "8|read|5", "9|word|6"];
            if !stored {
                expected = vec!["1|c", "3|taken", "5|unseen", "8|read", "9|word"];
            }
            assert_eq!(content(&table).await, expected);
            let figures =
                ["inserted", "updated", "deleted"].map(|w| report.metric(&format!("num_target_rows_{w}")));
            assert_eq!(figures, [4, 1, 1]);
            merge(&table, "op, id, v, seq", source, &changes).await;
            assert_eq!(content(&table).await, expected, "played twice");
            let keyed = Options {
                token: Some("feed-7".into()),
                ..Options::default()
            };
            for committed in [true, false] {
                let rows = rows("op, id, v, seq", source).await;
                let report = table.merge(rows, &changes, &keyed).await.unwrap();
                assert_eq!(
                    (report.committed, report.already.is_some()),
                    (committed, !committed)
                );
            }
        }
    }
}

#[tokio::test]
async fn a_change_feed_that_is_not_one_is_refused_by_row() {
    let table = filled(FORMATS[0], STORED, "", "id, v, seq", &["(1, 'a', 1)"]).await;
    let changes = |text: &str| Merge::on("id").cdc(feed(text));
    let plain = changes("op=op,sequence=seq");
    let why = refused(
        &table,
        "op, id, v, seq",
        "('I', 1, 'a', 1), ('X', 2, 'b', 1)",
        &plain,
    )
    .await;
    assert!(
        why.contains("\"X\"") && why.contains("row 2") && why.contains("delete=.."),
        "{why}"
    );
    let why = refused(
        &table,
        "op, id, v, seq",
        "('I', 1, 'a', 1), (NULL, 2, 'b', 1)",
        &plain,
    )
    .await;
    assert!(why.contains("NULL") && why.contains("row 2"), "{why}");
    // Nothing says which came last, whether the key is in the table or not.
    for cdc in ["op=op,sequence=seq", "op=op"] {
        for source in [
            "('I', 7, 'a', 5), ('D', 7, 'b', 5)",
            "('D', 1, 'a', 5), ('U', 1, 'b', 5)",
        ] {
            let why = refused(&table, "op, id, v, seq", source, &changes(cdc)).await;
            assert!(why.contains("came last") && why.contains("id = "), "{why}");
        }
    }
    let why = refused(&table, "id, v, seq", "(1, 'a', 1)", &plain).await;
    assert!(why.contains("no column op"), "{why}");
    let why = refused(&table, "op, id, v", "('I', 1, 'a')", &plain).await;
    assert!(why.contains("no column seq"), "{why}");
    let why = refused(&table, "op, id, v, seq, more", "('I', 1, 'a', 1, 2)", &plain).await;
    assert!(why.contains("no column more"), "{why}");
    let both = plain.clone().when_matched_update_all();
    let why = refused(&table, "op, id, v, seq", "('I', 1, 'a', 1)", &both).await;
    assert!(why.contains("says itself"), "{why}");
    let twice = plain.clone().sequence_by("seq");
    let why = refused(&table, "op, id, v, seq", "('I', 1, 'a', 1)", &twice).await;
    assert!(why.contains("given twice"), "{why}");
    // Words of its own, even numbers.
    let own = changes("op=op,sequence=seq,insert=1,update=2,delete=0");
    merge(&table, "op, id, v, seq", "(0, 1, 'a', 5), (1, 2, 'b', 5)", &own).await;
    assert_eq!(content(&table).await, ["2|b|5"]);
    let why = refused(&table, "op, id, v, seq", "('I', 1, 'a', 1)", &own).await;
    assert!(why.contains("insert is \"1\""), "{why}");
}

async fn debezium(table: &Table, lines: &[&str], merge: Merge) -> Result<Report> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("feed.ndjson");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let rows = Rows::file(&path, None).unwrap();
    table
        .merge(rows, &merge.cdc(Cdc::Debezium), &Options::default())
        .await
}

#[tokio::test]
async fn the_envelope_of_debezium_is_understood() {
    let columns = "id bigint not null, name string, price decimal(9, 2), at timestamp, ts_ms bigint";
    let lines = [
        r#"{"before":null,"after":{"id":1,"name":"a","price":1.25,"at":"2024-05-01T10:00:00"},"op":"c","ts_ms":100,"source":{"lsn":7}}"#,
        r#"{"before":{"id":1,"name":"a","price":1.25,"at":null},"after":{"id":1,"name":"b","price":2,"at":null},"op":"u","ts_ms":200}"#,
        r#"{"before":null,"after":{"id":1,"name":"stale","price":0},"op":"u","ts_ms":150}"#,
        r#"{"before":null,"after":{"id":2,"name":"x","price":3.5},"op":"r","ts_ms":100}"#,
        r#"{"before":{"id":3,"name":"gone"},"after":null,"op":"d","ts_ms":300}"#,
        r"{}",
        r#"{"before":null,"after":{"id":4,"name":"first","price":1},"op":"c","ts_ms":400}"#,
        r#"{"before":null,"after":{"id":4,"name":"second","price":1},"op":"u","ts_ms":400}"#,
        r#"{"before":null,"after":{"id":5,"name":"short","price":1},"op":"c","ts_ms":400}"#,
        r#"{"before":{"id":5},"after":null,"op":"d","ts_ms":400}"#,
    ];
    let expected = ["1|b|2.00||200", "2|x|3.50||100", "4|second|1.00||400"];
    for format in FORMATS {
        let table = filled(format, columns, "", "id, name", &["(3, 'three')"]).await;
        debezium(&table, &lines, Merge::on("id")).await.unwrap();
        assert_eq!(content(&table).await, expected);
        debezium(&table, &lines, Merge::on("id")).await.unwrap();
        assert_eq!(content(&table).await, expected, "played twice");
        // Inside the payload of a connector that sends schemas too.
        let wrapped: Vec<String> = lines
            .iter()
            .map(|line| format!(r#"{{"schema":{{"type":"struct"}},"payload":{line}}}"#))
            .chain([r#"{"schema":null,"payload":null}"#.to_owned()])
            .collect();
        let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
        let other = filled(format, columns, "", "id, name", &["(3, 'three')"]).await;
        debezium(&other, &wrapped, Merge::on("id")).await.unwrap();
        assert_eq!(content(&other).await, expected);
        // A feed without one delete, and one with nothing else.
        debezium(&other, &lines[3..4], Merge::on("id")).await.unwrap();
        debezium(
            &other,
            &[r#"{"before":{"id":2},"after":null,"op":"d","ts_ms":900}"#],
            Merge::on("id"),
        )
        .await
        .unwrap();
        assert_eq!(content(&other).await, [expected[0], expected[2]]);
    }
}

#[tokio::test]
async fn what_debezium_cannot_mean_is_refused_by_row() {
    let table = filled(FORMATS[2], ACCOUNTS, "", "id, v", &["(1, 'a')"]).await;
    let fine = r#"{"before":null,"after":{"id":1,"v":"b"},"op":"c","ts_ms":1}"#;
    for (line, expected) in [
        (r#"{"op":"t","ts_ms":2}"#, "truncated"),
        (r#"{"after":{"id":1,"v":"b"},"op":"m","ts_ms":2}"#, "\"m\""),
        (r#"{"after":{"id":1,"v":"b"},"ts_ms":2}"#, "op is NULL"),
        (r#"{"op":"d","ts_ms":2}"#, "without before"),
        (r#"{"op":"u","ts_ms":2}"#, "without after"),
    ] {
        let error = debezium(&table, &[fine, line], Merge::on("id"))
            .await
            .unwrap_err();
        let why = error.to_string();
        assert!(why.contains(expected) && why.contains("row 2"), "{line}: {why}");
    }
    for (line, expected) in [
        (r#"{"id":1,"v":"b"}"#, "no column op"),
        (r#"{"op":"c","id":1}"#, "neither after nor before"),
        (r#"{"op":"c","ts_ms":1,"after":{"id":1,"w":"b"}}"#, "no column w"),
    ] {
        let error = debezium(&table, &[line], Merge::on("id")).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
    assert_eq!(content(&table).await, ["1|a"]);
}

#[tokio::test]
async fn columns_of_the_source_come_in_any_order_and_extra_ones_are_named() {
    let columns = "id bigint not null, v string, n int";
    for format in FORMATS {
        let table = filled(format, columns, "", "id, v, n", &["(1, 'a', 1)"]).await;
        merge(&table, "n, id", "(10, 1), (20, 2)", &upsert("id")).await;
        assert_eq!(content(&table).await, ["1|a|10", "2||20"]);
        let why = refused(&table, "extra, id, other", "(10, 1, 2)", &upsert("id")).await;
        assert!(why.contains("extra, other") && why.contains("id, v, n"), "{why}");
        let why = refused(&table, "id, n", "(1, 5), (2, 5000000000)", &upsert("id")).await;
        assert!(why.contains('n') && why.contains("row 2"), "{why}");
    }
}

#[tokio::test]
async fn the_newest_row_of_a_key_counts_beyond_the_memory_limit_too() {
    let sql = "SELECT value % 15000 AS id, CAST(value AS VARCHAR) AS v, (value * 7919) % 30011 AS seq \
               FROM generate_series(1, 30000)";
    let merge = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .sequence_by("seq");
    for format in FORMATS {
        let mut contents = Vec::new();
        for memory_limit in [None, Some(3 << 20)] {
            let table = filled(
                format,
                STORED,
                "",
                "id, v, seq",
                &["(1, 'a', 1), (2, 'b', 40000)"],
            )
            .await;
            let options = Options {
                memory_limit,
                ..Options::default()
            };
            let frame = lakehouse_core::scan::session(None).sql(sql).await.unwrap();
            table.merge(Rows::frame(frame), &merge, &options).await.unwrap();
            contents.push(content(&table).await);
        }
        assert_eq!(contents[0].len(), 15_000, "{format:?}");
        assert!(contents[0].contains(&"2|b|40000".to_owned()), "{format:?}");
        assert!(
            contents[0] == contents[1],
            "{format:?}: the memory limit changed the result"
        );
    }
}
