//! Input that cannot be right: the error says what, where and what next, and the table is unharmed.

use std::io::Write;
use std::sync::Arc;

use lakehouse_core::model::{At, Definition};
use lakehouse_core::operations::{Action, When};
use lakehouse_core::{Compact, Error, InputFormat, Merge, Options, Result, Rows, Table, TableFormat};

use super::{FORMATS, append, content, rows, schema, table};
use crate::support::memory;

fn upsert(on: &str) -> Merge {
    Merge::on(on)
        .when_matched_update_all()
        .when_not_matched_insert_all()
}

/// What a refusal says, in one text.
fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.expect_err("this must be refused");
    assert!(
        !matches!(error, Error::Engine(_)),
        "an error of the engine's own: {error:?}"
    );
    format!("{error} / {}", error.hint().unwrap_or(""))
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[tokio::test]
async fn merge_on_a_missing_key_column_names_the_column_and_those_there_are() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        let source = || rows("id, region, n", "(1, 'us', 2)");
        let text = refusal(
            table
                .merge(source().await, &upsert("idd"), &Options::default())
                .await,
        );
        says(&text, &["idd", "the table", "id"]);
        let source = rows("key, region, n", "(1, 'us', 2)").await;
        let text = refusal(table.merge(source, &upsert("id"), &Options::default()).await);
        says(&text, &["id", "the source", "key"]);
        let text = refusal(
            table
                .merge(
                    rows("id, region, n", "(1, 'us', 2)").await,
                    &upsert("Id"),
                    &Options::default(),
                )
                .await,
        );
        says(&text, &["did you mean id"]);
        assert_eq!(content(&table).await, ["1|eu|1"]);
    }
}

#[tokio::test]
async fn a_value_that_does_not_fit_names_the_column_and_the_value() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        let options = Options::default();
        let text = refusal(
            table
                .append(rows("id, region, n", "(2, 'eu', 5000000000)").await, &options)
                .await,
        );
        says(&text, &["n", "5000000000"]);
        let text = refusal(
            table
                .append(rows("id, region, n", "('two', 'eu', 5)").await, &options)
                .await,
        );
        says(&text, &["id"]);
        let text = refusal(table.update("n = 5000000000", None, &options).await);
        says(&text, &["n", "5000000000"]);
        let text = refusal(table.update("n = id + 5000000000", None, &options).await);
        says(&text, &["n", "5000000001"]);
        let text = refusal(
            table
                .merge(rows("id, n", "(1, 5000000000)").await, &upsert("id"), &options)
                .await,
        );
        says(&text, &["n", "5000000000"]);
        let text = refusal(table.append(rows("region, n", "('eu', 5)").await, &options).await);
        says(&text, &["id"]);
        let text = refusal(table.update("id = NULL", None, &options).await);
        says(&text, &["id"]);
        assert_eq!(content(&table).await, ["1|eu|1"]);
        assert_eq!(
            table
                .history(None)
                .await
                .unwrap()
                .iter()
                .filter(|c| c.operation.to_lowercase().contains("update"))
                .count(),
            0
        );
    }
}

#[tokio::test]
async fn duplicate_source_keys_are_named() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
        let options = Options::default();
        let twice = "(2, 'eu', 7), (1, 'eu', 8), (2, 'us', 9)";
        let text = refusal(
            table
                .merge(rows("id, region, n", twice).await, &upsert("id"), &options)
                .await,
        );
        says(
            &text,
            &["several source rows", "id = 2", "keep one source row per key"],
        );
        assert!(!text.contains("id = 1"), "{text}");
        let new = "(7, 'eu', 7), (8, 'eu', 8), (7, 'us', 9)";
        let text = refusal(
            table
                .merge(rows("id, region, n", new).await, &upsert("id"), &options)
                .await,
        );
        says(&text, &["several source rows", "id = 7"]);
        // Deleting a row twice is deleting it.
        let delete = Merge::on("id").when_matched_delete();
        let report = table
            .merge(rows("id", "(2), (2)").await, &delete, &options)
            .await
            .unwrap();
        assert_eq!(report.metric("num_target_rows_deleted"), 1);
        assert_eq!(content(&table).await, ["1|eu|1"]);
    }
}

#[tokio::test]
async fn a_source_column_that_nothing_uses_is_named() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        let options = Options::default();
        let source = || rows("id, n, op, note", "(1, 5, 'U', 'x')");
        let merge = upsert("id").only_if("source.op <> 'D'");
        let text = refusal(table.merge(source().await, &merge, &options).await);
        says(&text, &["note", "region"]);
        assert!(!text.contains("column op"), "{text}");
        let text = refusal(table.append(source().await, &options).await);
        says(&text, &["op"]);
        assert_eq!(content(&table).await, ["1|eu|1"]);
    }
}

#[tokio::test]
async fn expressions_that_cannot_be_right_say_why() {
    let table = table(FORMATS[0], "").await;
    append(&table, "(1, 'eu', 1)").await;
    let options = Options::default();
    says(&refusal(table.delete("idd = 1", &options).await), &["idd", "id"]);
    says(&refusal(table.delete("id +", &options).await), &["id +"]);
    says(&refusal(table.delete("id", &options).await), &["true or false"]);
    says(&refusal(table.update("nn = 1", None, &options).await), &["nn"]);
    says(
        &refusal(table.update("n = 1, n = 2", None, &options).await),
        &["n is set twice"],
    );
    let source = || rows("id, n", "(1, 5)");
    let merge = upsert("id").only_if("n > 3");
    says(
        &refusal(table.merge(source().await, &merge, &options).await),
        &["n", "source.n", "target.n"],
    );
    let merge = Merge::on("id")
        .when_not_matched_insert_all()
        .only_if("target.n > 3");
    says(
        &refusal(table.merge(source().await, &merge, &options).await),
        &["target.n", "no target row"],
    );
    let merge = Merge::on("id")
        .when_not_matched_by_source_delete()
        .only_if("source.n > 3");
    says(
        &refusal(table.merge(source().await, &merge, &options).await),
        &["source.n", "no source row"],
    );
    let merge = Merge::on("id").clause(When::NotMatched, Action::Delete);
    says(
        &refusal(table.merge(source().await, &merge, &options).await),
        &["delete", "not matched"],
    );
    says(
        &refusal(table.merge(source().await, &Merge::on("id"), &options).await),
        &["without clauses"],
    );
    let compact = Compact {
        predicate: Some("nope = 1".to_owned()),
        ..Compact::default()
    };
    says(&refusal(table.compact(&compact, &options).await), &["nope"]);
    assert_eq!(content(&table).await, ["1|eu|1"]);
}

#[tokio::test]
async fn files_that_are_not_what_they_say_are_named() {
    let table = table(FORMATS[0], "").await;
    append(&table, "(1, 'eu', 1)").await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    };
    for (name, bytes, parts) in [
        (
            "text.parquet",
            &b"id,region,n\n1,eu,1\n"[..],
            &["text.parquet", "not a Parquet file"][..],
        ),
        ("short.parquet", b"PAR1", &["short.parquet", "Parquet"]),
        (
            "cut.parquet",
            b"PAR1xxxxxxxxxxxxxxxxxxxxxxxxPAR1",
            &["cut.parquet", "Parquet"],
        ),
        (
            "really.csv",
            b"PAR1xxxxxxxxxxxxxxxxxxxxxxxxPAR1",
            &["really.csv", "this is Parquet", "parquet"],
        ),
        (
            "word.csv",
            b"id,region,n\n1,eu,1\n2,eu,many\n",
            &["word.csv, row 2", "many", "column 'n'"],
        ),
        ("ragged.csv", b"id,region,n\n1,eu\n", &["ragged.csv"]),
        ("twice.csv", b"id,region,id\n1,eu,1\n", &["twice.csv", "id twice"]),
        ("empty.csv", b"", &["empty.csv", "header"]),
        (
            "open.csv",
            b"id,region,n\n1,\"eu,1\n2,eu,2\n",
            &["open.csv", "the quote that opens in line 2 is never closed"],
        ),
        ("many.csv.gz", b"\x1f\x8b", &["many.csv.gz", "compressed", "zcat"]),
        ("broken.ndjson", b"{\"id\": 1}\n{\"id\": \n", &["broken.ndjson"]),
        (
            "word.ndjson",
            b"{\"id\": 1, \"n\": 2}\n{\"id\": 2, \"n\": \"many\"}\n",
            &["word.ndjson, row 2", "many", "column 'n'"],
        ),
        ("junk.arrow", b"junkjunkjunkjunk", &["junk.arrow"]),
        (
            "file.xlsx",
            b"PK",
            &["file.xlsx", "xlsx", "parquet, csv, ndjson or arrow"],
        ),
    ] {
        let path = file(name, bytes);
        let text = match Rows::file(&path, None) {
            Ok(rows) => refusal(table.append(rows, &options).await),
            error => refusal(error),
        };
        says(&text, parts);
    }
    let missing = refusal(Rows::file(folder.path().join("none.csv"), None));
    says(&missing, &["none.csv", "not found"]);
    says(
        &refusal(Rows::file(folder.path(), Some(InputFormat::Csv))),
        &["folder"],
    );
    assert_eq!(content(&table).await, ["1|eu|1"]);
}

#[tokio::test]
async fn tables_that_are_not_there_or_there_already_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let text = refusal(Table::open(nowhere.to_str().unwrap()).await);
    says(&text, &["nowhere", "not found", "metadata/", "_delta_log/"]);
    assert!(!nowhere.exists(), "looking for a table made a folder");
    let definition = Definition {
        schema: schema(),
        partition_fields: Vec::new(),
        properties: Default::default(),
        format_version: None,
    };
    for format in [TableFormat::Iceberg, TableFormat::Delta] {
        let path = folder.path().join(format.to_string());
        let location = path.to_str().unwrap();
        let made = Table::create(location, format, &definition).await.unwrap();
        append(&made, "(1, 'eu', 1)").await;
        for second in [TableFormat::Iceberg, TableFormat::Delta] {
            let again = Table::create(location, second, &definition).await;
            assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        }
        let opened = Table::open(location).await.unwrap();
        assert_eq!(opened.format(), format.to_string());
        assert_eq!(content(&opened).await, ["1|eu|1"]);
        let absent = opened.snapshot(&At::Version(99)).await;
        assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
    }
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("notes.txt"), "mine").unwrap();
    let text = refusal(Table::create(other.to_str().unwrap(), TableFormat::Iceberg, &definition).await);
    says(&text, &["notes.txt", "empty"]);
}

#[tokio::test]
async fn a_folder_with_tables_of_both_formats_is_refused() {
    let store = memory("both");
    let definition = Definition {
        schema: schema(),
        partition_fields: Vec::new(),
        properties: Default::default(),
        format_version: None,
    };
    Table::create_in(store.clone(), TableFormat::Iceberg, &definition)
        .await
        .unwrap();
    let entry = "_delta_log/00000000000000000000.json";
    store.put(entry, "{}".into()).await.unwrap();
    says(
        &refusal(Table::open_in(store.clone()).await),
        &["two tables", "metadata/", "_delta_log/"],
    );
}

#[tokio::test]
async fn broken_metadata_is_an_error_that_names_the_file() {
    for format in [TableFormat::Iceberg, TableFormat::Delta] {
        let store = memory("broken");
        let definition = Definition {
            schema: schema(),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: None,
        };
        let table = Table::create_in(store.clone(), format, &definition)
            .await
            .unwrap();
        append(&table, "(1, 'eu', 1)").await;
        let newest = match format {
            TableFormat::Iceberg => "metadata/v2.metadata.json",
            TableFormat::Delta => "_delta_log/00000000000000000001.json",
        };
        assert!(
            store.get_opt(newest).await.unwrap().is_some(),
            "{newest} is not the newest metadata"
        );
        store.put(newest, "{\"broken".into()).await.unwrap();
        let opened = Table::open_in(store).await.unwrap();
        let text = refusal(opened.snapshot(&At::Latest).await);
        says(&text, &[newest.rsplit('/').next().unwrap()]);
    }
}

#[tokio::test]
async fn a_value_that_the_partitioning_cannot_hold_is_refused_not_changed() {
    let delta = table(FORMATS[2], "region").await;
    append(&delta, "(1, 'eu', 1)").await;
    let before = delta.handle().store.list("").await.unwrap();
    let empty = rows("id, region, n", "(2, '', 2)").await;
    says(
        &refusal(delta.append(empty, &Options::default()).await),
        &["empty text", "region", "NULL"],
    );
    assert_eq!(
        delta.handle().store.list("").await.unwrap(),
        before,
        "staged files left behind"
    );
    let iceberg = table(FORMATS[0], "region").await;
    append(&iceberg, "(2, '', 2), (3, NULL, 3)").await;
    let provider = iceberg.provider(&At::Latest).await.unwrap();
    let ctx = lakehouse_core::scan::session(None);
    let nulls = ctx
        .read_table(provider)
        .unwrap()
        .filter(datafusion::prelude::col("region").is_null())
        .unwrap();
    assert_eq!(nulls.count().await.unwrap(), 1);
}

/// Not one of these may depend on a runtime of several threads.
#[tokio::test]
async fn operations_can_be_spawned() {
    let table = table(FORMATS[0], "").await;
    let source = rows("id, region, n", "(1, 'eu', 1)").await;
    let table = Arc::new(table);
    let spawned = tokio::spawn(async move {
        table.append(source, &Options::default()).await.unwrap();
        table.update("n = 2", None, &Options::default()).await.unwrap();
        let merge = upsert("id");
        table
            .merge(rows("id, n", "(1, 3)").await, &merge, &Options::default())
            .await
            .unwrap();
        content(&table).await
    });
    assert_eq!(spawned.await.unwrap(), ["1|eu|3"]);
}

#[tokio::test]
async fn what_a_crash_left_behind_is_no_reason_to_refuse_a_new_table() {
    for (format, version) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        for inner in ["metadata", "_delta_log", "data"] {
            std::fs::create_dir(folder.path().join(inner)).unwrap();
            std::fs::write(folder.path().join(inner).join(".lake-0123.tmp"), "half").unwrap();
        }
        let definition = Definition {
            schema: schema(),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: version,
        };
        let place = folder.path().to_str().unwrap();
        Table::create(place, format, &definition).await.unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("lake.tmp"), "mine").unwrap();
        let place = other.path().to_str().unwrap();
        let refused = Table::create(place, format, &definition).await;
        assert!(refused.unwrap_err().to_string().contains("lake.tmp"));
    }
}
