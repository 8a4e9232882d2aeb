//! Properties that say how long something is kept, in words that cannot be read.

use lakehouse_core::model::{CheckpointKind, Definition};
use lakehouse_core::operations::{Alter, Expire};
use lakehouse_core::store::Store;
use lakehouse_core::{Error, Options, Result, Table, TableFormat, Vacuum};

use super::{FORMATS, append, table_made};
use crate::support::aged::aged;
use crate::support::memory;

/// Writes a value of a property in other words, as an engine does that takes whatever it is given.
async fn respell(store: &Store, from: &str, to: &str) {
    let mut times = 0;
    for object in store.list("").await.unwrap() {
        if object.path.ends_with(".json") {
            let text = String::from_utf8(store.get(&object.path).await.unwrap().to_vec()).unwrap();
            times += text.matches(from).count();
            store
                .put(&object.path, text.replace(from, to).into())
                .await
                .unwrap();
        }
    }
    assert!(times > 0, "{from}");
}

/// A table of some age whose property says `words`; it was made with a value that says something.
async fn table(format: (TableFormat, Option<u8>), property: &str, words: &str) -> Table {
    let (store, age) = aged(&memory("retention"));
    let sound = match (format.0, property.contains("snapshots-to-keep")) {
        (TableFormat::Delta, _) => "interval 179 days",
        (_, false) => "15465600001",
        (_, true) => "179",
    };
    let made = table_made(store.clone(), format, "", &[(property, sound)]).await;
    for id in 0..3 {
        append(&made, &format!("({id}, 'eu', 1)")).await;
    }
    respell(&store, &format!("\"{sound}\""), &format!("\"{words}\"")).await;
    age.pass().await;
    let table = Table::open_in(store).await.unwrap();
    append(&table, "(7, 'eu', 7)").await;
    table
}

/// It is refused, and the property, its value and how to write it are named.
fn refused<T: std::fmt::Debug>(result: Result<T>, property: &str, words: &str, how: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    let said = format!("{error}\n{}", error.hint().unwrap_or_default());
    for part in [property, words, how] {
        assert!(
            said.contains(part),
            "{property} = {words}: {part} is not in: {said}"
        );
    }
}

async fn expire(table: &Table, what: &Expire, dry_run: bool) -> Result<()> {
    let options = Options {
        dry_run,
        ..Options::default()
    };
    table.expire(what, &options).await.map(|_| ())
}

#[tokio::test]
async fn who_expires_versions_refuses_a_retention_that_cannot_be_read() {
    let age = "history.expire.max-snapshot-age-ms";
    let count = "history.expire.min-snapshots-to-keep";
    let of_refs = "history.expire.max-ref-age-ms";
    let log = "delta.logRetentionDuration";
    for (format, property, words, how) in [
        (FORMATS[0], age, "180 days", "15552000000"),
        (FORMATS[1], age, "-1", "milliseconds"),
        (FORMATS[0], count, "many", "whole number"),
        (FORMATS[1], of_refs, "1e9", "milliseconds"),
        (FORMATS[2], log, "interval 6 months", "interval 30 days"),
        (FORMATS[2], log, "interval 1 year", "interval 30 days"),
        (FORMATS[2], log, "interval", "interval 30 days"),
        (FORMATS[2], log, "interval -3 days", "interval 30 days"),
        (FORMATS[2], log, "soon", "interval 30 days"),
    ] {
        let table = table(format, property, words).await;
        let before = table.handle().store.list("").await.unwrap();
        for dry_run in [true, false] {
            refused(
                expire(&table, &Expire::default(), dry_run).await,
                property,
                words,
                how,
            );
        }
        assert_eq!(
            table.handle().store.list("").await.unwrap(),
            before,
            "{property} = {words}"
        );
        // Who says it himself asks for nothing of the table's.
        if property == age || property == log {
            let asked = Expire {
                older_than_ms: Some(0),
                retain_last: Some(1),
            };
            expire(&table, &asked, true).await.unwrap();
        }
    }
}

#[tokio::test]
async fn vacuum_and_checkpoints_refuse_a_retention_of_files_that_cannot_be_read() {
    let files = "delta.deletedFileRetentionDuration";
    for words in ["interval 6 months", "", "7"] {
        let table = table(FORMATS[2], files, words).await;
        let how = "interval 30 days";
        refused(table.vacuum(&Vacuum::default()).await, files, words, how);
        refused(table.checkpoint(CheckpointKind::Auto).await, files, words, how);
        let asked = Expire {
            older_than_ms: Some(0),
            retain_last: Some(1),
        };
        // The checkpoint that would stand for the log depends on it.
        refused(expire(&table, &asked, true).await, files, words, how);
        refused(expire(&table, &asked, false).await, files, words, how);
        let own = Vacuum {
            older_than_ms: Some(8 * 24 * 3_600_000),
            ..Vacuum::default()
        };
        table.vacuum(&own).await.unwrap();
    }
}

#[tokio::test]
async fn durations_are_read_as_spark_reads_them() {
    for words in [
        "interval 1 week 2 hours",
        "2 WEEKS",
        "interval 30 days 5 seconds",
        "interval 0 days",
    ] {
        let table = table(FORMATS[2], "delta.logRetentionDuration", words).await;
        expire(&table, &Expire::default(), true).await.unwrap();
    }
}

#[tokio::test]
async fn a_retention_that_cannot_be_read_is_refused_where_it_is_set() {
    for (format, property, words, how) in [
        (
            FORMATS[0],
            "history.expire.max-snapshot-age-ms",
            "180 days",
            "15552000000",
        ),
        (
            FORMATS[1],
            "history.expire.min-snapshots-to-keep",
            "0",
            "whole number",
        ),
        (
            FORMATS[2],
            "delta.logRetentionDuration",
            "interval 6 months",
            "interval 30 days",
        ),
        (
            FORMATS[2],
            "delta.deletedFileRetentionDuration",
            "interval",
            "interval 30 days",
        ),
    ] {
        let definition = Definition {
            schema: super::schema(),
            partition_fields: Vec::new(),
            properties: [(property.to_owned(), words.to_owned())].into(),
            format_version: format.1,
        };
        let store = memory("set");
        refused(
            Table::create_in(store.clone(), format.0, &definition).await,
            property,
            words,
            how,
        );
        assert_eq!(store.list("").await.unwrap(), []);
        let table = super::table(format, "").await;
        let alter = Alter::default().property(property, Some(words));
        refused(
            table.alter(&alter, &Options::default()).await,
            property,
            words,
            how,
        );
    }
}
