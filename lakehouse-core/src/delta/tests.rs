//! Whole tables through the door: the conformance suite, and what only Delta has.

mod features;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::Delta;
use super::log;
use crate::error::{Error, Result};
use crate::format::{Format, Outcome};
use crate::model::schema::{GENERATED, PHYSICAL_NAME};
use crate::model::{
    At, Change, DataFile, Definition, OperationKind, PartitionField, Prune, RowMask, Snapshot, Transform,
    made_up,
};
use crate::store::sim::{Fault, faulty};
use crate::store::{Store, clock};

crate::conformance::suite!(conformance, |store| Arc::new(Delta::new(store)), None);

/// A store in memory that nobody else has.
pub(super) fn memory() -> Store {
    Store::open(&format!("memory://{}/table", clock::new_name())).unwrap()
}

fn definition(partitioning: &[(&str, Transform)], properties: &[(&str, &str)]) -> Definition {
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Definition {
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("ts", zoned, true),
        ])),
        partition_fields: partitioning
            .iter()
            .map(|(source, transform)| PartitionField {
                source: (*source).to_owned(),
                transform: *transform,
                name: String::new(),
                field_id: 0,
                zone_slack_days: 0,
            })
            .collect(),
        properties: texts(properties),
        format_version: None,
    }
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

async fn create(table: &Delta, properties: &[(&str, &str)]) -> Arc<Snapshot> {
    let outcome = table
        .create(&definition(&[], properties), &clock::new_commit_id())
        .await
        .unwrap();
    committed(outcome)
}

fn committed(outcome: Outcome) -> Arc<Snapshot> {
    match outcome {
        Outcome::Committed(snapshot) => snapshot,
        other => panic!("expected a commit, got {other:?}"),
    }
}

fn file(name: &str, partition: Vec<ScalarValue>) -> DataFile {
    DataFile {
        partition,
        ..made_up::data_file(format!("{name}.parquet"), 100, 10)
    }
}

fn append(names: &[&str]) -> Change {
    Change {
        added: names.iter().map(|name| file(name, vec![])).collect(),
        ..Change::new(OperationKind::Append, clock::new_commit_id())
    }
}

async fn list(table: &Delta, snapshot: &Arc<Snapshot>) -> Result<Vec<DataFile>> {
    let mut files: Vec<DataFile> = table
        .files(snapshot, Arc::new(Prune::everything()))
        .try_collect()
        .await?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

async fn paths(table: &Delta, snapshot: &Arc<Snapshot>) -> Vec<String> {
    let files = list(table, snapshot).await.unwrap();
    files.into_iter().map(|file| file.path).collect()
}

/// Writes a log entry as another engine would.
async fn write_entry(store: &Store, version: u64, actions: &[Value]) {
    let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
    store
        .put(&log::commit_key(version), lines.join("\n").into())
        .await
        .unwrap();
}

fn protocol(reader: i32, writer: i32, features: &[&str], writer_features: &[&str]) -> Value {
    let mut protocol = json!({"minReaderVersion": reader, "minWriterVersion": writer});
    if reader >= 3 {
        protocol["readerFeatures"] = json!(features);
    }
    if writer >= 7 {
        protocol["writerFeatures"] = json!(writer_features);
    }
    json!({ "protocol": protocol })
}

fn metadata(fields: Value, partition_columns: &[&str], configuration: &[(&str, &str)]) -> Value {
    let schema = json!({"type": "struct", "fields": fields}).to_string();
    json!({"metaData": {"id": "t", "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
        "partitionColumns": partition_columns, "configuration": texts(configuration), "createdTime": 1}})
}

fn long(name: &str, metadata: Value) -> Value {
    json!({"name": name, "type": "long", "nullable": true, "metadata": metadata})
}

fn add(path: &str, stats: Option<&str>) -> Value {
    json!({"add": {"path": path, "partitionValues": {}, "size": 100, "modificationTime": 5, "dataChange": true,
        "stats": stats}})
}

/// A table that another engine made with an old protocol.
async fn foreign(configuration: &[(&str, &str)]) -> Delta {
    let store = memory();
    write_entry(
        &store,
        0,
        &[
            protocol(1, 2, &[], &[]),
            metadata(json!([long("id", json!({}))]), &[], configuration),
        ],
    )
    .await;
    Delta::new(store)
}

#[tokio::test]
async fn a_place_without_a_log_is_no_table() {
    let table = Delta::new(memory());
    let error = table.snapshot(&At::Latest).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_broken_log_entry_is_named_with_its_line() {
    let table = foreign(&[]).await;
    let key = log::commit_key(1);
    let text = format!("{}\n{{\"add\":{{\"path\":", add("a.parquet", None));
    table.store().put(&key, text.into()).await.unwrap();
    let error = table.snapshot(&At::Latest).await.unwrap_err();
    assert!(error.to_string().contains(&key), "{error}");
    assert!(error.to_string().contains("line 2"), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_missing_log_entry_is_named() {
    let table = foreign(&[]).await;
    write_entry(table.store(), 1, &[add("a.parquet", None)]).await;
    write_entry(table.store(), 3, &[add("b.parquet", None)]).await;
    let error = table.snapshot(&At::Latest).await.unwrap_err();
    assert!(error.to_string().contains("version 2 is missing"), "{error}");
    let before = Delta::new(table.store().clone());
    assert_eq!(before.snapshot(&At::Version(1)).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_broken_checkpoint_is_named() {
    let table = foreign(&[]).await;
    for version in 1..=2 {
        write_entry(table.store(), version, &[add("a.parquet", None)]).await;
    }
    let key = log::checkpoint_key(2);
    table.store().put(&key, "no parquet".into()).await.unwrap();
    let snapshot = Delta::new(table.store().clone()).snapshot(&At::Latest).await;
    let error = match snapshot {
        Err(error) => error,
        Ok(snapshot) => list(&table, &snapshot).await.unwrap_err(),
    };
    assert!(error.to_string().contains(&key), "{error}");
}

#[tokio::test]
async fn a_reader_feature_that_we_lack_refuses_reading_and_a_writer_feature_only_writing() {
    let store = memory();
    let fields = json!([long("id", json!({}))]);
    write_entry(
        &store,
        0,
        &[
            protocol(3, 7, &["variantType"], &["variantType"]),
            metadata(fields.clone(), &[], &[]),
        ],
    )
    .await;
    let error = Delta::new(store).snapshot(&At::Latest).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("variantType"), "{error}");

    let store = memory();
    write_entry(
        &store,
        0,
        &[
            protocol(1, 7, &[], &["icebergCompatV2"]),
            metadata(fields, &[], &[]),
        ],
    )
    .await;
    let table = Delta::new(store);
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    assert!(!snapshot.capabilities.writable);
    let refused = [
        table.check_writable(&snapshot),
        table.publish(&snapshot, &append(&["a"])).await.map(|_| ()),
    ];
    for error in refused {
        let error = error.unwrap_err();
        assert!(error.to_string().contains("icebergCompatV2"), "{error}");
    }
    let listed = table.store().list("").await.unwrap();
    assert_eq!(listed.len(), 1, "nothing was written");
}

#[tokio::test]
async fn an_append_only_table_takes_appends_and_compaction_but_no_deletes() {
    let table = foreign(&[("delta.appendOnly", "true")]).await;
    let base = table.snapshot(&At::Latest).await.unwrap();
    let base = committed(table.publish(&base, &append(&["a", "b"])).await.unwrap());
    let mut compact = append(&["ab"]);
    compact.operation = OperationKind::Compact;
    compact.data_change = false;
    compact.removed = list(&table, &base).await.unwrap();
    let base = committed(table.publish(&base, &compact).await.unwrap());
    let delete = Change {
        removed: list(&table, &base).await.unwrap(),
        ..Change::new(OperationKind::Delete, clock::new_commit_id())
    };
    let error = table.publish(&base, &delete).await.unwrap_err();
    assert!(error.to_string().contains("appendOnly"), "{error}");
    assert_eq!(
        paths(&table, &table.snapshot(&At::Latest).await.unwrap()).await,
        ["ab.parquet"]
    );
}

#[tokio::test]
async fn hidden_partition_columns_are_not_among_the_columns() {
    let table = Delta::new(memory());
    let bucket = Transform::Bucket {
        buckets: 4,
        hash: crate::model::BucketHash::Iceberg,
    };
    let definition = definition(&[("ts", Transform::Day), ("id", bucket)], &[]);
    let base = committed(table.create(&definition, &clock::new_commit_id()).await.unwrap());
    let names: Vec<&String> = base.schema.fields().iter().map(|f| f.name()).collect();
    assert_eq!(names, ["id", "ts"]);
    let fields = base.partition_fields();
    assert_eq!(
        (fields[0].name.as_str(), fields[0].zone_slack_days),
        ("ts_day", 1)
    );
    assert_eq!(
        (fields[1].name.as_str(), fields[1].zone_slack_days),
        ("id_bucket", 0)
    );
    assert_eq!(
        fields[1].transform,
        Transform::Bucket {
            buckets: 4,
            hash: crate::model::BucketHash::Spark
        }
    );
    let partition = vec![ScalarValue::Date32(Some(15_706)), ScalarValue::Int32(None)];
    let mut change = append(&[]);
    change.added = vec![file("a", partition.clone())];
    let snapshot = committed(table.publish(&base, &change).await.unwrap());
    assert_eq!(list(&table, &snapshot).await.unwrap()[0].partition, partition);
    let entry = table.store().get(&log::commit_key(1)).await.unwrap();
    let text = String::from_utf8(entry.to_vec()).unwrap();
    assert!(
        text.contains(r#""ts_day":"2013-01-01""#) && text.contains(r#""id_bucket":null"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_generated_column_of_others_is_visible_with_its_expression() {
    let store = memory();
    let generated = json!({"delta.generationExpression": "CAST(ts AS DATE)"});
    write_entry(
        &store,
        0,
        &[
            protocol(1, 4, &[], &[]),
            metadata(
                json!([long("id", json!({})), long("day", generated)]),
                &["day"],
                &[],
            ),
        ],
    )
    .await;
    let table = Delta::new(store);
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    assert_eq!(snapshot.schema.fields().len(), 2);
    assert_eq!(snapshot.partition_fields()[0].transform, Transform::Identity);
    let expression = snapshot.schema.field(1).metadata().get(GENERATED);
    assert_eq!(expression.unwrap(), "CAST(ts AS DATE)");
}

#[tokio::test]
async fn mapped_columns_are_read_by_their_physical_names() {
    let store = memory();
    let mapped = |name: &str, id: i64| {
        let metadata =
            json!({"delta.columnMapping.id": id, "delta.columnMapping.physicalName": format!("col-{name}")});
        long(name, metadata)
    };
    let mut file = add(
        "a.parquet",
        Some(
            r#"{"numRecords":3,"minValues":{"col-id":4},"maxValues":{"col-id":6},"nullCount":{"col-id":0}}"#,
        ),
    );
    file["add"]["partitionValues"] = json!({"col-region": "7"});
    write_entry(
        &store,
        0,
        &[
            protocol(2, 5, &[], &[]),
            metadata(
                json!([mapped("id", 1), mapped("region", 2)]),
                &["region"],
                &[("delta.columnMapping.mode", "name")],
            ),
            file,
        ],
    )
    .await;
    let table = Delta::new(store);
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    assert_eq!(snapshot.schema.field(0).metadata()[PHYSICAL_NAME], "col-id");
    let files = list(&table, &snapshot).await.unwrap();
    assert_eq!(files[0].columns["id"].min, Some(ScalarValue::Int64(Some(4))));
    assert_eq!(files[0].partition, [ScalarValue::Int64(Some(7))]);
}

#[tokio::test]
async fn rows_of_a_file_without_statistics_come_from_its_footer() {
    let table = foreign(&[]).await;
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..321));
    let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut action = add("a%20b.parquet", None);
    action["add"]["size"] = json!(bytes.len());
    table.store().put("a b.parquet", bytes.into()).await.unwrap();
    write_entry(table.store(), 1, &[action]).await;
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    assert_eq!(list(&table, &snapshot).await.unwrap()[0].rows, 321);
}

#[tokio::test]
async fn a_removal_without_statistics_takes_them_from_the_version_that_had_the_file() {
    let table = foreign(&[]).await;
    let stats = r#"{"numRecords":7,"minValues":{"id":1},"maxValues":{"id":9}}"#;
    write_entry(table.store(), 1, &[add("a.parquet", Some(stats))]).await;
    let base = table.snapshot(&At::Latest).await.unwrap();
    let info = json!({"commitInfo": {"operation": "DELETE", "timestamp": 9}});
    let remove = json!({"remove": {"path": "a.parquet", "deletionTimestamp": 9, "dataChange": true}});
    write_entry(table.store(), 2, &[info, remove]).await;
    let newest = table.snapshot(&At::Latest).await.unwrap();
    let changes = table.changes(&base, &newest).await.unwrap();
    assert_eq!(changes[0].operation, OperationKind::Delete);
    let removed = &changes[0].removed[0];
    assert_eq!((removed.rows, removed.bytes), (7, 100));
    assert_eq!(removed.columns["id"].max, Some(ScalarValue::Int64(Some(9))));
}

#[tokio::test]
async fn changes_say_which_metadata_a_winner_changed_and_miss_no_entry() {
    let table = foreign(&[]).await;
    let base = table.snapshot(&At::Latest).await.unwrap();
    let fields = json!([long("id", json!({})), long("more", json!({}))]);
    write_entry(
        table.store(),
        1,
        &[metadata(json!([long("id", json!({}))]), &[], &[("a", "b")])],
    )
    .await;
    write_entry(table.store(), 2, &[metadata(fields, &[], &[("a", "b")])]).await;
    let newest = table.snapshot(&At::Latest).await.unwrap();
    let told: Vec<_> = table.changes(&base, &newest).await.unwrap();
    let flags: Vec<_> = told
        .iter()
        .map(|change| (change.metadata.schema, change.metadata.properties))
        .collect();
    assert_eq!(flags, [(false, true), (true, false)]);
    table.store().delete(&[log::commit_key(1)]).await.unwrap();
    let error = table.changes(&base, &newest).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
}

#[tokio::test]
async fn a_restore_over_a_change_of_columns_is_refused_unless_some_were_only_added() {
    let restore = || Change {
        restore: Some(0),
        ..Change::new(OperationKind::Restore, clock::new_commit_id())
    };
    let other = json!([long("more", json!({}))]);
    let generated = json!([long("id", json!({"delta.identity.start": 1}))]);
    for fields in [other, generated] {
        let table = foreign(&[]).await;
        write_entry(table.store(), 1, &[metadata(fields, &[], &[])]).await;
        let newest = table.snapshot(&At::Latest).await.unwrap();
        let error = table.publish(&newest, &restore()).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    }
    let table = foreign(&[]).await;
    let more = json!([long("id", json!({})), long("more", json!({}))]);
    write_entry(table.store(), 1, &[metadata(more, &[], &[])]).await;
    let newest = table.snapshot(&At::Latest).await.unwrap();
    let restored = committed(table.publish(&newest, &restore()).await.unwrap());
    assert_eq!(restored.schema, newest.schema, "the columns stay");
}

#[tokio::test]
async fn commits_of_a_table_with_in_commit_timestamps_carry_theirs_and_time_never_goes_back() {
    let store = memory();
    let future = clock::now_ms() + 3_600_000;
    write_entry(
        &store,
        0,
        &[
            json!({"commitInfo": {"timestamp": 5, "inCommitTimestamp": future, "operation": "CREATE TABLE"}}),
            protocol(1, 7, &[], &["inCommitTimestamp"]),
            metadata(
                json!([long("id", json!({}))]),
                &[],
                &[("delta.enableInCommitTimestamps", "true")],
            ),
        ],
    )
    .await;
    let table = Delta::new(store);
    let base = table.snapshot(&At::Latest).await.unwrap();
    assert_eq!(base.timestamp_ms, future);
    let next = committed(table.publish(&base, &append(&["a"])).await.unwrap());
    assert_eq!(next.timestamp_ms, future + 1);
    let entry = log::entry(table.store(), 1).await.unwrap().unwrap();
    assert_eq!(entry.info["inCommitTimestamp"], future + 1);
    assert_eq!(entry.info.keys().next().unwrap(), "timestamp");
}

#[tokio::test]
async fn what_commit_info_says_is_found_also_in_a_large_entry() {
    let table = foreign(&[]).await;
    let mut actions: Vec<Value> = (0..2000).map(|n| add(&format!("{n}.parquet"), None)).collect();
    actions.push(json!({"commitInfo": {"operation": "WRITE", "timestamp": 77, "txnId": "late"}}));
    write_entry(table.store(), 1, &actions).await;
    let history = table.history(&At::Latest, None).await.unwrap();
    assert_eq!(
        (history[0].timestamp_ms, history[0].operation.as_str()),
        (77, "WRITE")
    );
    assert_eq!(history.len(), 2);
    assert_eq!(history[1].operation, "unknown");
}

/// Twelve commits: a token, a mask, a removal, then the checkpoint of version 10.
async fn long_table(table: &Delta) -> Arc<Snapshot> {
    let mut snapshot = create(table, &[]).await;
    let tokened = Change {
        token: Some("load".into()),
        ..append(&["first", "gone", "masked"])
    };
    snapshot = committed(table.publish(&snapshot, &tokened).await.unwrap());
    let files = list(table, &snapshot).await.unwrap();
    let delete = Change {
        removed: vec![files[1].clone()],
        ..Change::new(OperationKind::Delete, clock::new_commit_id())
    };
    snapshot = committed(table.publish(&snapshot, &delete).await.unwrap());
    let hidden: RowMask = [2, 3].into_iter().collect();
    let operation = clock::new_commit_id();
    let staged = vec![(files[2].clone(), hidden)];
    let (after, _) = table.stage_masks(&snapshot, staged, &operation).await.unwrap();
    let mask = Change {
        masked: vec![(files[2].clone(), after[0].clone())],
        ..Change::new(OperationKind::Update, operation)
    };
    snapshot = committed(table.publish(&snapshot, &mask).await.unwrap());
    while snapshot.version < 12 {
        let name = format!("n{:02}", snapshot.version);
        snapshot = committed(table.publish(&snapshot, &append(&[&name])).await.unwrap());
    }
    snapshot
}

#[tokio::test]
async fn a_checkpoint_carries_everything_once_the_entries_before_it_are_gone() {
    let table = Delta::new(memory());
    let newest = long_table(&table).await;
    let expected = list(&table, &newest).await.unwrap();
    let pointer = table.store().get(log::LAST_CHECKPOINT).await.unwrap();
    let pointer: Value = serde_json::from_slice(&pointer).unwrap();
    // protocol, metaData, txn, two tombstones (one of the file before its mask), nine files.
    assert_eq!((&pointer["version"], &pointer["size"]), (&json!(10), &json!(14)));
    assert_eq!(pointer["numOfAddFiles"], 9);
    let old: Vec<String> = (0..10).map(log::commit_key).collect();
    table.store().delete(&old).await.unwrap();

    let reader = Delta::new(table.store().clone());
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(list(&reader, &opened).await.unwrap(), expected);
    assert_eq!(opened.schema, newest.schema);
    assert_eq!(opened.properties, newest.properties);
    assert_eq!(reader.find_token(&opened, &"load".into()).await.unwrap(), Some(1));
    let masks = reader.masks(&opened, &expected).await.unwrap();
    assert_eq!(masks.iter().map(RowMask::len).sum::<u64>(), 2);
    assert_eq!(reader.history(&At::Latest, None).await.unwrap().len(), 3);
    for cleaned in [At::Version(4), At::Timestamp(5)] {
        let error = reader.snapshot(&cleaned).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("10"), "{error:?}");
    }
    let reachable = reader.reachable(None).await.unwrap();
    assert!(reachable.contains("masked.parquet") && !reachable.contains("gone.parquet"));

    // The next checkpoint starts from this one: tombstones and applications come along.
    let mut snapshot = opened;
    while snapshot.version < 20 {
        let name = format!("n{:02}", snapshot.version);
        snapshot = committed(reader.publish(&snapshot, &append(&[&name])).await.unwrap());
    }
    let pointer: Value =
        serde_json::from_slice(&reader.store().get(log::LAST_CHECKPOINT).await.unwrap()).unwrap();
    assert_eq!((&pointer["version"], &pointer["size"]), (&json!(20), &json!(24)));
}

/// `_last_checkpoint` is advice: what it names may have been cleaned up, or never been written.
#[tokio::test]
async fn a_pointer_to_a_checkpoint_that_is_not_there_is_passed_over() {
    let table = Delta::new(memory());
    let newest = long_table(&table).await;
    let expected = list(&table, &newest).await.unwrap();
    let store = table.store();
    store.delete(&[log::checkpoint_key(10)]).await.unwrap();
    for version in [10, 7, 4_711] {
        let pointer = format!("{{\"version\": {version}, \"size\": 14}}");
        store.put(log::LAST_CHECKPOINT, pointer.into()).await.unwrap();
        let reader = Delta::new(store.clone());
        let opened = reader.snapshot(&At::Latest).await.unwrap();
        assert_eq!(opened.version, newest.version, "{version}");
        assert_eq!(list(&reader, &opened).await.unwrap(), expected, "{version}");
        let earlier = reader.snapshot(&At::Version(-2)).await.unwrap();
        assert_eq!(earlier.version, newest.version - 2, "{version}");
    }
}

#[tokio::test]
async fn expired_tombstones_are_left_out_of_checkpoints() {
    let table = Delta::new(memory());
    let retention = ("delta.deletedFileRetentionDuration", "interval 0 days");
    let mut snapshot = create(&table, &[retention, ("delta.checkpointInterval", "3")]).await;
    snapshot = committed(table.publish(&snapshot, &append(&["a", "b"])).await.unwrap());
    let delete = Change {
        removed: list(&table, &snapshot).await.unwrap(),
        ..Change::new(OperationKind::Delete, clock::new_commit_id())
    };
    snapshot = committed(table.publish(&snapshot, &delete).await.unwrap());
    clock::pause(std::time::Duration::from_millis(40)).await;
    snapshot = committed(table.publish(&snapshot, &append(&["c"])).await.unwrap());
    assert_eq!(snapshot.version, 3);
    let pointer: Value =
        serde_json::from_slice(&table.store().get(log::LAST_CHECKPOINT).await.unwrap()).unwrap();
    assert_eq!(pointer["size"], 3, "protocol, metaData and one file");
}

#[tokio::test]
async fn keys_of_idempotency_expire_only_where_the_table_says_so() {
    for (retention, remembered) in [("interval 0 days", false), ("interval 30 days", true), ("", true)] {
        let table = Delta::new(memory());
        let mut properties = vec![("delta.checkpointInterval", "2")];
        if !retention.is_empty() {
            properties.push(("delta.setTransactionRetentionDuration", retention));
        }
        let mut snapshot = create(&table, &properties).await;
        let keyed = Change {
            token: Some("load".into()),
            ..append(&["a"])
        };
        snapshot = committed(table.publish(&snapshot, &keyed).await.unwrap());
        clock::pause(std::time::Duration::from_millis(40)).await;
        snapshot = committed(table.publish(&snapshot, &append(&["b"])).await.unwrap());
        assert_eq!(snapshot.version, 2);
        let pointer: Value =
            serde_json::from_slice(&table.store().get(log::LAST_CHECKPOINT).await.unwrap()).unwrap();
        // protocol, metaData, two files, and the key.
        let actions = 4 + usize::from(remembered);
        assert_eq!(pointer["size"], actions, "{retention}");
        let old: Vec<String> = (0..2).map(log::commit_key).collect();
        table.store().delete(&old).await.unwrap();
        let reader = Delta::new(table.store().clone());
        let opened = reader.snapshot(&At::Latest).await.unwrap();
        let found = reader.find_token(&opened, &"load".into()).await.unwrap();
        assert_eq!(found, remembered.then_some(1), "{retention}");
    }
}

#[tokio::test]
async fn no_failing_request_commits_twice_or_loses_a_commit() {
    for fault in [
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::FalseExists,
        Fault::Crash,
    ] {
        for request in 1.. {
            let calm = Delta::new(memory());
            let base = create(&calm, &[("delta.checkpointInterval", "1")]).await;
            let (store, faults) = faulty(calm.store());
            let table = Delta::new(store);
            let base_of_faulty = table.snapshot(&At::Version(base.version)).await.unwrap();
            faults.reset();
            faults.fail_at(request, fault);
            let mine = append(&["a"]);
            let outcome = table.publish(&base_of_faulty, &mine).await;
            let reached = faults.requests() >= request;
            faults.reset();
            let landed = calm.find(&mine.commit_id, &base).await.unwrap();
            match &outcome {
                Ok(Outcome::Committed(snapshot)) => {
                    assert_eq!(landed.as_ref().unwrap().version, snapshot.version);
                }
                Ok(Outcome::Lost) | Err(_) => {
                    assert!(landed.is_none(), "{fault:?} at {request}: {outcome:?}");
                }
                Ok(Outcome::Unknown(_)) => {}
            }
            let newest = calm.snapshot(&At::Latest).await.unwrap();
            let files = paths(&calm, &newest).await;
            assert_eq!(
                files.len(),
                usize::from(landed.is_some()),
                "{fault:?} at {request}"
            );
            if !reached {
                break;
            }
            assert!(request < 200);
        }
    }
}

#[tokio::test]
async fn properties_that_ask_for_what_is_not_written_are_refused() {
    for (key, value) in [
        ("delta.enableInCommitTimestamps", "true"),
        ("delta.feature.rowTracking", "supported"),
        ("delta.constraints.c", "id > 0"),
        ("delta.rowTrackingSuspended", "true"),
        ("delta.rowTracking.materializedRowIdColumnName", "id"),
        ("delta.requireCheckpointProtectionBeforeVersion", "9"),
    ] {
        let table = Delta::new(memory());
        let outcome = table
            .create(&definition(&[], &[(key, value)]), &clock::new_commit_id())
            .await;
        assert!(
            matches!(outcome, Err(Error::Unsupported { .. })),
            "{key}: {outcome:?}"
        );
        assert!(table.store().list("").await.unwrap().is_empty());
    }
    let mut versioned = definition(&[], &[]);
    versioned.format_version = Some(3);
    let outcome = Delta::new(memory())
        .create(&versioned, &clock::new_commit_id())
        .await;
    assert!(matches!(outcome, Err(Error::Unsupported { .. })));
}

#[tokio::test]
async fn a_table_without_deletion_vectors_has_no_masks_and_the_oldest_reader_version() {
    let table = Delta::new(memory());
    let snapshot = create(&table, &[("delta.enableDeletionVectors", "false")]).await;
    assert!(!snapshot.capabilities.masks && snapshot.capabilities.writable);
    let refused = table
        .stage_masks(&snapshot, vec![], &clock::new_commit_id())
        .await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })));
    let entry = log::read(table.store(), 0).await.unwrap().unwrap();
    let protocol = entry.iter().find_map(|action| action.protocol.as_ref()).unwrap();
    assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (1, 7));
}

#[tokio::test]
async fn a_ref_is_refused_with_the_format_that_has_them() {
    let table = foreign(&[]).await;
    let error = table.snapshot(&At::Ref("main".into())).await.unwrap_err();
    assert!(error.hint().unwrap().contains("--format iceberg"), "{error:?}");
}
