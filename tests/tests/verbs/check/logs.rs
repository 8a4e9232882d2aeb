//! The log of a Delta table is damaged: entries, checkpoints, the pointer to them, ids of rows, rules.

use std::collections::BTreeSet;

use lakehouse_core::model::{At, Code, Severity};
use lakehouse_core::operations::check::Check;
use lakehouse_core::store::Store;
use lakehouse_core::{Table, TableFormat};
use serde_json::{Value, json};

use super::damage::{edit, found, one, sound};
use crate::support::memory;
use crate::verbs::{append, table_made};

const DELTA: (TableFormat, Option<u8>) = (TableFormat::Delta, None);
const POINTER: &str = "_delta_log/_last_checkpoint";

fn entry(version: u64) -> String {
    format!("_delta_log/{version:020}.json")
}

fn checkpoint(version: u64) -> String {
    format!("_delta_log/{version:020}.checkpoint.parquet")
}

/// Changes the lines of a log entry.
async fn relog(store: &Store, version: u64, change: impl Fn(&mut Vec<Value>)) {
    edit(store, &entry(version), |bytes| {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
        change(&mut lines);
        *bytes = lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
            .into_bytes();
    })
    .await;
}

fn add(lines: &mut [Value]) -> &mut Value {
    lines.iter_mut().find_map(|line| line.get_mut("add")).unwrap()
}

/// Versions 0 to 7, with checkpoints of 3 and 6 by the properties given.
async fn long(properties: &[(&str, &str)]) -> (Store, Table) {
    let store = memory("checked-log");
    let every = [("delta.checkpointInterval", "3")];
    let properties: Vec<_> = every.iter().chain(properties).copied().collect();
    let table = table_made(store.clone(), DELTA, "", &properties).await;
    for at in 0..7 {
        append(&table, &format!("({at}, 'eu', {at}), ({at}, 'us', NULL)")).await;
    }
    assert_eq!(found(&store, true).await, BTreeSet::new());
    (store, table)
}

#[tokio::test]
async fn log_entries_that_are_missing_or_broken_are_named() {
    let (store, _) = sound(DELTA, "").await;
    let good = store.get(&entry(2)).await.unwrap();
    store.delete(&[entry(2)]).await.unwrap();
    assert_eq!(found(&store, false).await, one(Code::LogGap, &entry(2)));
    store.put(&entry(2), good.slice(..good.len() / 2)).await.unwrap();
    assert_eq!(found(&store, false).await, one(Code::LogEntry, &entry(2)));
    store.put(&entry(2), good).await.unwrap();
    relog(&store, 2, |lines| {
        let again = json!({ "add": add(lines).clone() });
        lines.push(again);
    })
    .await;
    assert_eq!(found(&store, false).await, one(Code::DuplicateAdd, &entry(2)));

    let (store, _) = long(&[]).await;
    store.delete(&[entry(7)]).await.unwrap();
    assert_eq!(
        found(&store, false).await,
        BTreeSet::new(),
        "nobody can tell that there was a version 7"
    );
    store.delete(&[entry(4), entry(5)]).await.unwrap();
    assert_eq!(found(&store, false).await, one(Code::LogGapBefore, &entry(4)));
}

#[tokio::test]
async fn a_version_that_the_log_no_longer_has_is_no_damage_but_an_error() {
    let (store, table) = long(&[]).await;
    for version in 0..=3 {
        store.delete(&[entry(version)]).await.unwrap();
    }
    assert_eq!(found(&store, true).await, BTreeSet::new(), "logs are cleaned up");
    for version in [1, 99] {
        let check = Check {
            at: At::Version(version),
            ..Check::default()
        };
        let error = Table::open_in(store.clone())
            .await
            .unwrap()
            .check(&check)
            .await
            .unwrap_err();
        assert!(
            matches!(error, lakehouse_core::Error::NotFound { .. }),
            "{version}: {error}"
        );
    }
    drop(table);
}

#[tokio::test]
async fn a_file_that_is_live_with_two_masks_is_listed_twice() {
    let (store, table) = sound(DELTA, "").await;
    let masked = table
        .files(&At::Latest)
        .await
        .unwrap()
        .into_iter()
        .find(|file| !file.masks.is_empty())
        .unwrap();
    relog(&store, 3, |lines| {
        lines.retain(|line| line.get("remove").is_none());
    })
    .await;
    assert_eq!(found(&store, false).await, one(Code::FileTwice, &masked.path));
}

#[tokio::test]
async fn a_pointer_to_a_checkpoint_that_lies_is_found() {
    let (store, _) = long(&[]).await;
    let good = store.get(POINTER).await.unwrap();
    let point = async |version: u64, key: &str, value: Value| {
        let mut pointer: Value = serde_json::from_slice(&good).unwrap();
        pointer["version"] = version.into();
        pointer[key] = value;
        store.put(POINTER, pointer.to_string().into()).await.unwrap();
    };
    point(5, "size", 3.into()).await;
    assert_eq!(found(&store, false).await, one(Code::CheckpointPointer, POINTER));
    point(6, "numOfAddFiles", 3.into()).await;
    assert_eq!(
        found(&store, false).await,
        one(Code::CheckpointPointerFigures, POINTER)
    );
    point(6, "sizeInBytes", 3.into()).await;
    assert_eq!(
        found(&store, false).await,
        one(Code::CheckpointPointerFigures, POINTER)
    );
    store.put(POINTER, "{".into()).await.unwrap();
    assert_eq!(found(&store, false).await, one(Code::CheckpointPointer, POINTER));
    // Written anew, it says what it said at first.
    let table = Table::open_in(store.clone()).await.unwrap();
    let done = table.repair(&Check::default(), false).await.unwrap();
    assert_eq!(
        done.repaired
            .iter()
            .map(|finding| finding.code)
            .collect::<Vec<_>>(),
        [Code::CheckpointPointer]
    );
    assert_eq!(done.checked.findings, []);
    let pointer = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(pointer(&store.get(POINTER).await.unwrap()), pointer(&good));
    // Behind, or not there: readers only take longer.
    for older in [true, false] {
        match older {
            true => {
                let size = store.get(&checkpoint(3)).await.unwrap().len();
                let text = json!({"version": 3, "size": 5, "sizeInBytes": size}).to_string();
                store.put(POINTER, text.into()).await.unwrap();
            }
            false => store.delete(&[POINTER.to_owned()]).await.unwrap(),
        }
        let checked = super::checked(&store, false).await;
        let codes: Vec<Code> = checked.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [Code::CheckpointPointerStale]);
        assert!(checked.is_clean());
        let done = table.repair(&Check::default(), false).await.unwrap();
        assert_eq!((done.repaired.len(), done.checked.findings.len()), (1, 0));
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_damaged_or_not_what_the_log_gives_is_found() {
    let (store, _) = long(&[]).await;
    let good = store.get(&checkpoint(6)).await.unwrap();
    store
        .put(&checkpoint(6), good.slice(..good.len() - 5))
        .await
        .unwrap();
    edit(&store, POINTER, |bytes| {
        let mut pointer: Value = serde_json::from_slice(bytes).unwrap();
        pointer["sizeInBytes"] = (good.len() - 5).into();
        *bytes = pointer.to_string().into_bytes();
    })
    .await;
    assert_eq!(
        found(&store, false).await,
        one(Code::CheckpointUnreadable, &checkpoint(6))
    );

    // That of version 3: three files are missing.
    let other = store.get(&checkpoint(3)).await.unwrap();
    edit(&store, POINTER, |bytes| {
        *bytes = json!({"version": 6, "size": 5, "sizeInBytes": other.len()})
            .to_string()
            .into_bytes();
    })
    .await;
    store.put(&checkpoint(6), other).await.unwrap();
    assert_eq!(
        found(&store, false).await,
        one(Code::CheckpointDiffers, &checkpoint(6))
    );
    let checked = super::checked(&store, false).await;
    assert_eq!(checked.findings.len(), 3, "{:#?}", checked.findings);

    // A repair leaves alone what it cannot repair, and says so again.
    let done = Table::open_in(store.clone())
        .await
        .unwrap()
        .repair(&Check::default(), false)
        .await
        .unwrap();
    assert_eq!((done.repaired.len(), done.checked.count(Severity::Error)), (0, 3));

    let (store, _) = long(&[]).await;
    let part = "_delta_log/00000000000000000007.checkpoint.0000000001.0000000002.parquet";
    store
        .put(part, store.get(&checkpoint(6)).await.unwrap())
        .await
        .unwrap();
    let lacking = "_delta_log/00000000000000000007.checkpoint.0000000002.0000000002.parquet";
    assert_eq!(
        found(&store, false).await,
        one(Code::CheckpointIncomplete, lacking)
    );
}

#[tokio::test]
async fn row_ids_that_overlap_are_missing_or_were_never_given_are_found() {
    let tracked = [
        ("delta.enableRowTracking", "true"),
        ("delta.checkpointInterval", "100"),
    ];
    let (store, table) = {
        let store = memory("checked-ids");
        let table = table_made(store.clone(), DELTA, "", &tracked).await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        append(&table, "(3, 'eu', 1), (4, 'us', 2)").await;
        (store, table)
    };
    assert_eq!(found(&store, true).await, BTreeSet::new());
    let good = store.get(&entry(2)).await.unwrap();
    let path = table.files(&At::Latest).await.unwrap();
    let path = path
        .iter()
        .find(|file| file.first_row_id == Some(2))
        .unwrap()
        .path
        .clone();

    relog(&store, 2, |lines| add(lines)["baseRowId"] = 1.into()).await;
    let overlap = found(&store, false).await;
    assert_eq!(overlap, one(Code::RowIdOverlap, &path));
    let deep: Vec<Code> = found(&store, true)
        .await
        .into_iter()
        .map(|(code, _)| code)
        .collect();
    assert_eq!(deep, [Code::RowIdOverlap, Code::RowIdTwice]);

    store.put(&entry(2), good.clone()).await.unwrap();
    relog(&store, 2, |lines| {
        add(lines).as_object_mut().unwrap().remove("baseRowId");
    })
    .await;
    assert_eq!(found(&store, false).await, one(Code::RowIdMissing, &path));

    store.put(&entry(2), good.clone()).await.unwrap();
    relog(&store, 2, |lines| {
        lines.retain(|line| line.get("domainMetadata").is_none());
    })
    .await;
    assert_eq!(found(&store, false).await, one(Code::RowIdBeyond, &path));

    store.put(&entry(2), good).await.unwrap();
    relog(&store, 2, |lines| {
        add(lines)["defaultRowCommitVersion"] = 9.into();
    })
    .await;
    assert_eq!(found(&store, false).await, one(Code::Sequence, &path));
}

#[tokio::test]
async fn rows_that_the_table_forbids_are_found_by_reading_them() {
    let (store, table) = sound(DELTA, "").await;
    let path = table
        .files(&At::Latest)
        .await
        .unwrap()
        .into_iter()
        .find(|file| file.masks.is_empty())
        .unwrap()
        .path;
    // The rules are made stricter behind the back of the rows: n is NULL once, and at least 10.
    let good = store.get(&entry(0)).await.unwrap();
    let rule = async |change: fn(&mut Value)| {
        store.put(&entry(0), good.clone()).await.unwrap();
        relog(&store, 0, |lines| {
            change(
                lines
                    .iter_mut()
                    .find_map(|line| line.get_mut("metaData"))
                    .unwrap(),
            );
        })
        .await;
    };
    rule(|metadata| metadata["configuration"]["delta.constraints.many"] = "n > 10 OR n IS NULL".into()).await;
    assert_eq!(found(&store, false).await, BTreeSet::new());
    assert_eq!(found(&store, true).await, one(Code::ConstraintBroken, &path));
    rule(|metadata| metadata["configuration"]["delta.constraints.odd"] = "soundex(region) = 'E'".into())
        .await;
    let checked = super::checked(&store, true).await;
    let codes: Vec<Code> = checked.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::ConstraintUnchecked], "{:#?}", checked.findings);
    rule(|metadata| {
        let schema = metadata["schemaString"].as_str().unwrap();
        let mut schema: Value = serde_json::from_str(schema).unwrap();
        schema["fields"][2]["nullable"] = false.into();
        metadata["schemaString"] = schema.to_string().into();
    })
    .await;
    assert_eq!(found(&store, true).await, one(Code::NullInRequired, &path));
}
