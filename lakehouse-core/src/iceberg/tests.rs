//! What is Iceberg's own; what every format must do is in the conformance suite.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile as IcebergFile, DataFileBuilder, DataFileFormat, MAIN_BRANCH,
    ManifestContentType, ManifestListWriter, NestedField, Operation, PrimitiveType, Schema as IcebergSchema,
    Snapshot as IcebergSnapshot, Struct, Summary, TableMetadataBuilder, Transform as IcebergTransform, Type,
    UnboundPartitionSpec,
};
use serde_json::Value;

use super::load::{HINT, metadata_key};
use super::manifests::{NewEntry, NewManifest, encode_manifest, read_list, read_manifest};
use super::metadata::encode;
use super::view::View;
use super::{Iceberg, position_deletes};
use crate::error::Error;
use crate::format::{Format, Outcome};
use crate::model::{
    At, Change, ColumnStats, DataFile, Definition, MaskRef, OperationKind, PartitionField, Prune, RowMask,
    Snapshot, Token, Transform, made_up,
};
use crate::store::{Store, clock};

#[path = "audit_tests.rs"]
mod audit;

fn open(store: Store) -> Arc<dyn Format> {
    Arc::new(Iceberg::new(store))
}

crate::conformance::suite!(v2, open, Some(2));
crate::conformance::suite!(v3, open, Some(3));

struct Bench {
    store: Store,
    format: Iceberg,
}

impl Bench {
    fn new() -> Self {
        let store = Store::open(&format!("memory://{}/t", clock::new_name())).unwrap();
        Self {
            format: Iceberg::new(store.clone()),
            store,
        }
    }

    async fn created(version: u8, properties: &[(&str, &str)]) -> (Self, Arc<Snapshot>) {
        let bench = Self::new();
        let properties = properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let outcome = bench
            .format
            .create(&definition(version, properties), &clock::new_commit_id())
            .await;
        (bench, committed(outcome.unwrap()))
    }

    async fn publish(&self, base: &Arc<Snapshot>, change: &Change) -> Arc<Snapshot> {
        committed(self.format.publish(base, change).await.unwrap())
    }

    async fn append(&self, base: &Arc<Snapshot>, files: Vec<DataFile>) -> Arc<Snapshot> {
        self.publish(base, &append(files)).await
    }

    async fn list(&self, snapshot: &Arc<Snapshot>) -> Vec<DataFile> {
        let files = self.format.files(snapshot, Arc::new(Prune::everything()));
        let mut files: Vec<_> = files.try_collect().await.unwrap();
        files.sort_by(|a: &DataFile, b| a.path.cmp(&b.path));
        files
    }

    async fn newest(&self) -> Arc<Snapshot> {
        self.format.snapshot(&At::Latest).await.unwrap()
    }

    async fn mask(&self, base: &Arc<Snapshot>, masks: Vec<(DataFile, RowMask)>) -> Arc<Snapshot> {
        let mut change = Change::new(OperationKind::Delete, clock::new_commit_id());
        let before: Vec<_> = masks.iter().map(|(file, _)| file.clone()).collect();
        let (after, _) = self
            .format
            .stage_masks(base, masks, &change.commit_id)
            .await
            .unwrap();
        change.masked = before.into_iter().zip(after).collect();
        self.publish(base, &change).await
    }

    /// A commit by another engine that changes the metadata only.
    async fn evolve(
        &self,
        base: &Arc<Snapshot>,
        change: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
    ) -> Arc<Snapshot> {
        let view = View::of(base).unwrap();
        let metadata = view.metadata().clone();
        let updated = metadata.last_updated_ms() + 1;
        let built = change(metadata.into_builder(None)).unwrap().build().unwrap();
        let bytes = encode(&built.metadata, updated).unwrap();
        self.store
            .put(&metadata_key(base.state + 1), bytes.into())
            .await
            .unwrap();
        self.newest().await
    }

    async fn json(&self, snapshot: &Snapshot) -> Value {
        serde_json::from_slice(&self.store.get(&metadata_key(snapshot.state)).await.unwrap()).unwrap()
    }

    /// A commit by another engine: these delete entries, in a manifest of their own.
    async fn foreign_deletes(&self, base: &Arc<Snapshot>, files: Vec<IcebergFile>) -> Arc<Snapshot> {
        let view = View::of(base).unwrap();
        let metadata = view.metadata();
        let id = clock::new_snapshot_id();
        let recorded = view.state.paths.absolute(&format!("metadata/foreign-{id}.avro"));
        let new = NewManifest {
            version: metadata.format_version(),
            content: ManifestContentType::Deletes,
            schema: metadata.current_schema().clone(),
            spec: (**metadata.default_partition_spec()).clone(),
            snapshot_id: id,
            recorded: recorded.clone(),
        };
        let entries = files.into_iter().map(NewEntry::Added).collect();
        let (manifest, bytes) = encode_manifest(new, entries).await.unwrap();
        let key = |recorded: &str| view.state.paths.relative(recorded).unwrap();
        self.store.put(&key(&recorded), bytes).await.unwrap();
        let mut manifests = read_list(&self.store, &view).await.unwrap();
        manifests.push(manifest);
        let io = FileIO::new_with_memory();
        let list = view
            .state
            .paths
            .absolute(&format!("metadata/foreign-list-{id}.avro"));
        let output = io.new_output(&list).unwrap();
        let sequence = metadata.next_sequence_number();
        let target = output.writer().await.unwrap();
        let mut writer = ManifestListWriter::v2(target, id, metadata.current_snapshot_id(), sequence);
        writer.add_manifests(manifests.into_iter()).unwrap();
        writer.close().await.unwrap();
        let bytes = output.to_input_file().read().await.unwrap();
        self.store.put(&key(&list), bytes).await.unwrap();
        let timestamp = clock::now_ms().max(metadata.last_updated_ms() + 1);
        let snapshot = IcebergSnapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(metadata.current_snapshot_id())
            .with_sequence_number(sequence)
            .with_timestamp_ms(timestamp)
            .with_manifest_list(list)
            .with_summary(Summary {
                operation: Operation::Delete,
                additional_properties: HashMap::new(),
            })
            .with_schema_id(0)
            .build();
        let builder = metadata.clone().into_builder(None);
        let built = builder
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .unwrap()
            .build()
            .unwrap();
        let bytes = encode(&built.metadata, timestamp).unwrap();
        self.store
            .put(&metadata_key(base.state + 1), bytes.into())
            .await
            .unwrap();
        self.newest().await
    }
}

fn definition(version: u8, properties: BTreeMap<String, String>) -> Definition {
    Definition {
        schema: Arc::new(ArrowSchema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ])),
        partition_fields: vec![PartitionField {
            source: "id".into(),
            transform: Transform::Truncate(100),
            name: String::new(),
            field_id: 0,
            zone_slack_days: 0,
        }],
        properties,
        format_version: Some(version),
    }
}

fn file(name: &str, partition: i64, rows: u64) -> DataFile {
    let stats = ColumnStats {
        values: Some(rows),
        nulls: Some(0),
        min: Some(ScalarValue::Int64(Some(partition))),
        max: Some(ScalarValue::Int64(Some(partition + rows as i64 - 1))),
        exact: true,
        ..ColumnStats::default()
    };
    DataFile {
        partition: vec![ScalarValue::Int64(Some(partition))],
        columns: BTreeMap::from([("id".to_owned(), stats)]),
        ..made_up::data_file(format!("data/{name}.parquet"), 1000, rows)
    }
}

fn append(files: Vec<DataFile>) -> Change {
    Change {
        added: files,
        ..Change::new(OperationKind::Append, clock::new_commit_id())
    }
}

fn committed(outcome: Outcome) -> Arc<Snapshot> {
    match outcome {
        Outcome::Committed(snapshot) => snapshot,
        other => panic!("expected a commit, got {other:?}"),
    }
}

fn names(files: &[DataFile]) -> Vec<&str> {
    files
        .iter()
        .map(|file| file.path.trim_start_matches("data/").trim_end_matches(".parquet"))
        .collect()
}

fn partition(value: i64) -> Struct {
    Struct::from_iter([Some(iceberg::spec::Literal::long(value))])
}

#[tokio::test]
async fn the_newest_version_is_found_whatever_the_hint_says() {
    let (bench, mut snapshot) = Bench::created(2, &[]).await;
    for n in 0..40 {
        snapshot = bench
            .append(&snapshot, vec![file(&format!("{n:02}"), 0, 1)])
            .await;
    }
    for hint in ["41", "40", "17", "1", "99", "", "forty", "-3"] {
        bench
            .store
            .put(HINT, hint.as_bytes().to_vec().into())
            .await
            .unwrap();
        assert_eq!(bench.newest().await.version, snapshot.version, "hint {hint:?}");
    }
    bench.store.delete(&[HINT.to_owned()]).await.unwrap();
    assert_eq!(bench.newest().await.version, snapshot.version, "no hint");
}

#[tokio::test]
async fn a_compressed_spelling_is_the_same_version() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 1)]).await;
    let json = bench.store.get(&metadata_key(first.state)).await.unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&json).unwrap();
    bench
        .store
        .put("metadata/v2.gz.metadata.json", gz.finish().unwrap().into())
        .await
        .unwrap();
    bench.store.delete(&[metadata_key(2)]).await.unwrap();
    let opened = bench.newest().await;
    assert_eq!((opened.version, opened.state), (first.version, 2));
    let lost = bench
        .format
        .publish(&base, &append(vec![file("b", 0, 1)]))
        .await
        .unwrap();
    assert!(matches!(lost, Outcome::Lost), "{lost:?}");
    let second = bench.append(&opened, vec![file("b", 0, 1)]).await;
    assert_eq!(second.state, 3);
    assert_eq!(names(&bench.list(&second).await), ["a", "b"]);
}

#[tokio::test]
async fn a_table_of_a_catalog_is_read_at_its_newest_and_not_written() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 1)]).await;
    for (number, name) in [(1, "00000-aa"), (2, "00001-bb")] {
        let bytes = bench.store.get(&metadata_key(number)).await.unwrap();
        bench
            .store
            .put(&format!("metadata/{name}.metadata.json"), bytes)
            .await
            .unwrap();
        bench.store.delete(&[metadata_key(number)]).await.unwrap();
    }
    bench.store.delete(&[HINT.to_owned()]).await.unwrap();
    let opened = bench.newest().await;
    assert_eq!(opened.version, first.version);
    assert!(!opened.capabilities.writable);
    let refusal = bench.format.check_writable(&opened).unwrap_err();
    assert!(refusal.to_string().contains("catalog"), "{refusal}");
    assert_eq!(names(&bench.list(&opened).await), ["a"]);
    let error = bench
        .format
        .publish(&opened, &append(vec![file("b", 0, 1)]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Unsupported { .. }) && error.hint().is_some(),
        "{error:?}"
    );
    let lost = bench
        .format
        .create(&definition(2, BTreeMap::new()), &clock::new_commit_id())
        .await
        .unwrap();
    assert!(matches!(lost, Outcome::Lost), "{lost:?}");
}

#[tokio::test]
async fn a_copied_table_is_read_from_its_new_place_and_not_written() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 9)]).await;
    let listed = bench.list(&first).await;
    let hidden: RowMask = [3, 4].into_iter().collect();
    bench
        .mask(&first, vec![(listed[0].clone(), hidden.clone())])
        .await;
    let copy = Bench::new();
    for object in bench.store.list("").await.unwrap() {
        let bytes = bench.store.get(&object.path).await.unwrap();
        copy.store.put(&object.path, bytes).await.unwrap();
    }
    let opened = copy.newest().await;
    assert!(!opened.capabilities.writable);
    let refusal = copy.format.check_writable(&opened).unwrap_err();
    assert!(refusal.to_string().contains("copied"), "{refusal}");
    let listed = copy.list(&opened).await;
    assert_eq!(names(&listed), ["a"]);
    assert_eq!(copy.format.masks(&opened, &listed).await.unwrap(), [hidden]);
    let error = copy
        .format
        .publish(&opened, &append(vec![file("b", 0, 1)]))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("copied") && error.hint().is_some(),
        "{error}"
    );
}

#[tokio::test]
async fn broken_metadata_is_an_error_that_names_the_file() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 1)]).await;
    let good = bench.json(&first).await;
    let without = |key: &str| {
        let mut value = good.clone();
        value.as_object_mut().unwrap().remove(key);
        serde_json::to_vec(&value).unwrap()
    };
    let version = |number: u64| {
        let mut value = good.clone();
        value["format-version"] = number.into();
        serde_json::to_vec(&value).unwrap()
    };
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..80 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut", serde_json::to_vec(&good).unwrap()[..300].to_vec()),
        ("not an object", b"[1]".to_vec()),
        ("deep", deep.into_bytes()),
        ("no version", without("format-version")),
        ("version 9", version(9)),
        ("no schemas", without("schemas")),
        ("no location", without("location")),
        ("bad gzip", vec![0x1F, 0x8B, 1, 2, 3]),
        ("gzip bomb", bomb.finish().unwrap()),
    ] {
        bench.store.put(&metadata_key(2), bytes.into()).await.unwrap();
        let error = bench.format.snapshot(&At::Latest).await.unwrap_err();
        assert!(error.to_string().contains("v2.metadata.json"), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_missing_or_damaged_manifest_is_an_error_that_names_it() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 1)]).await;
    let avro: Vec<String> = bench
        .store
        .list("metadata/")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.path)
        .filter(|path| path.ends_with(".avro"))
        .collect();
    assert_eq!(avro.len(), 2);
    for path in avro {
        let good = bench.store.get(&path).await.unwrap();
        let mut flipped = good.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle..]
            .iter_mut()
            .for_each(|byte| *byte = byte.wrapping_add(101));
        for bad in [None, Some(good.slice(..good.len() / 2)), Some(flipped.into())] {
            match bad {
                None => bench.store.delete(std::slice::from_ref(&path)).await.unwrap(),
                Some(bytes) => bench.store.put(&path, bytes).await.unwrap(),
            }
            let listed: Result<Vec<DataFile>, _> = bench
                .format
                .files(&first, Arc::new(Prune::everything()))
                .try_collect()
                .await;
            let error = listed.unwrap_err();
            assert!(error.to_string().contains(&path), "{error}");
            assert!(error.hint().is_some());
        }
        bench.store.put(&path, good).await.unwrap();
    }
}

#[tokio::test]
async fn row_ids_stay_with_their_files_when_manifests_are_rewritten() {
    let (bench, base) = Bench::created(3, &[]).await;
    assert_eq!(bench.json(&base).await["next-row-id"], 0);
    let files = ["a", "b", "c"].iter().map(|name| file(name, 0, 10)).collect();
    let first = bench.append(&base, files).await;
    let second = bench.append(&first, vec![file("d", 100, 5)]).await;
    let before: BTreeMap<_, _> = bench
        .list(&second)
        .await
        .into_iter()
        .map(|f| (f.path, f.first_row_id.unwrap()))
        .collect();
    assert_eq!(before["data/d.parquet"], 30);
    let mut change = append(vec![file("b2", 0, 10)]);
    change.operation = OperationKind::Compact;
    change.removed = bench
        .list(&second)
        .await
        .into_iter()
        .filter(|f| f.path.ends_with("b.parquet"))
        .collect();
    let third = bench.publish(&second, &change).await;
    let after = bench.list(&third).await;
    assert_eq!(names(&after), ["a", "b2", "c", "d"]);
    for file in &after {
        let expected = before.get(&file.path).copied().unwrap_or(35);
        assert_eq!(file.first_row_id, Some(expected), "{}", file.path);
    }
    let json = bench.json(&third).await;
    assert_eq!(json["next-row-id"], 45, "only added rows take ids");
    let snapshot = json["snapshots"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&snapshot["first-row-id"], &snapshot["added-rows"]),
        (&35.into(), &10.into())
    );
}

#[tokio::test]
async fn sequence_numbers_stay_with_their_files_when_manifests_are_rewritten() {
    for version in [2, 3] {
        let (bench, base) = Bench::created(version, &[]).await;
        let first = bench
            .append(&base, vec![file("a", 0, 10), file("b", 0, 10)])
            .await;
        let mut change = append(vec![file("c", 0, 10)]);
        change.removed = bench
            .list(&first)
            .await
            .into_iter()
            .filter(|f| f.path.ends_with("a.parquet"))
            .collect();
        let second = bench.publish(&first, &change).await;
        let third = bench.append(&second, vec![]).await;
        let sequences: Vec<_> = bench.list(&third).await.into_iter().map(|f| f.sequence).collect();
        assert_eq!(sequences, [Some(1), Some(2)]);
    }
}

#[tokio::test]
async fn the_summary_counts_what_changed_and_what_there_is() {
    for version in [2, 3] {
        let (bench, base) = Bench::created(version, &[]).await;
        let first = bench
            .append(&base, vec![file("a", 0, 10), file("b", 100, 20)])
            .await;
        let listed = bench.list(&first).await;
        let second = bench
            .mask(&first, vec![(listed[0].clone(), [1, 2].into_iter().collect())])
            .await;
        let mut change = append(vec![file("c", 0, 8)]);
        change.operation = OperationKind::Merge;
        change.metrics.insert("rows_updated".into(), 8);
        change.removed = bench
            .list(&second)
            .await
            .into_iter()
            .filter(|f| f.path.ends_with("a.parquet"))
            .collect();
        let third = bench.publish(&second, &change).await;
        let history = bench.format.history(&At::Latest, None).await.unwrap();
        let of = |snapshot: &Snapshot| {
            let commit = history
                .iter()
                .find(|commit| commit.version == snapshot.version)
                .unwrap();
            (commit.operation.as_str(), |key: &str| {
                commit.summary.get(key).map_or("-", String::as_str)
            })
        };
        let (operation, figure) = of(&first);
        assert_eq!(operation, "append");
        assert_eq!((figure("added-data-files"), figure("total-records")), ("2", "30"));
        assert_eq!(
            (figure("changed-partition-count"), figure("total-delete-files")),
            ("2", "0")
        );
        let (operation, figure) = of(&second);
        assert_eq!(operation, "delete");
        assert_eq!(
            (figure("added-position-deletes"), figure("total-position-deletes")),
            ("2", "2")
        );
        let kind = if version == 3 {
            "added-dvs"
        } else {
            "added-position-delete-files"
        };
        assert_eq!((figure(kind), figure("total-delete-files")), ("1", "1"));
        let (operation, figure) = of(&third);
        assert_eq!((operation, figure("operation")), ("merge", "overwrite"));
        assert_eq!((figure("total-data-files"), figure("total-records")), ("2", "28"));
        assert_eq!(
            (figure("removed-delete-files"), figure("total-delete-files")),
            ("1", "0")
        );
        assert_eq!(
            (figure("lakehouse.operation"), figure("lakehouse.rows-updated")),
            ("merge", "8")
        );
        let total: i64 = figure("total-files-size").parse().unwrap();
        assert_eq!(total, 2000, "sizes of masks come and go too");
    }
}

#[tokio::test]
async fn many_small_manifests_are_merged_into_one() {
    for version in [2, 3] {
        let (bench, mut snapshot) =
            Bench::created(version, &[("commit.manifest.min-count-to-merge", "4")]).await;
        for n in 0..9 {
            snapshot = bench
                .append(&snapshot, vec![file(&format!("{n}"), n * 100, 10)])
                .await;
        }
        let manifests = read_list(&bench.store, &View::of(&snapshot).unwrap())
            .await
            .unwrap();
        assert!(manifests.len() <= 5, "{}", manifests.len());
        let listed = bench.list(&snapshot).await;
        assert_eq!(listed.len(), 9);
        for (n, file) in listed.iter().enumerate() {
            assert_eq!(file.sequence, Some(n as i64 + 1));
            assert_eq!(file.first_row_id, (version == 3).then_some(n as i64 * 10));
        }
    }
}

/// Metadata larger than what is read: refused before it is published, and nothing of the table is gone.
#[tokio::test]
async fn a_commit_that_could_not_be_read_back_is_refused_and_deletes_nothing() {
    let (bench, base) = Bench::created(2, &[]).await;
    let kept = bench.append(&base, vec![file("a", 1, 1)]).await;
    let before = bench.store.list("").await.unwrap();
    // Somebody else's: compressed it is small, and `lake` writes it plainly.
    let key = metadata_key(2);
    let mut value: Value = serde_json::from_slice(&bench.store.get(&key).await.unwrap()).unwrap();
    value["properties"]["long"] = "".into();
    let room = (64 << 20) - serde_json::to_vec(&value).unwrap().len();
    value["properties"]["long"] = "x".repeat(room - 100).into();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&serde_json::to_vec(&value).unwrap()).unwrap();
    bench
        .store
        .put(&key, gzip.finish().unwrap().into())
        .await
        .unwrap();
    let newest = bench.format.snapshot(&At::Latest).await.unwrap();
    assert_eq!(newest.version, kept.version);
    let refused = bench
        .format
        .publish(&newest, &append(vec![file("b", 2, 1)]))
        .await;
    assert!(matches!(refused, Err(Error::Limit { .. })), "{refused:?}");
    let listed = bench.list(&newest).await;
    assert!(
        listed.iter().any(|file| file.path.ends_with("a.parquet")),
        "{listed:?}"
    );
    let left = bench.store.list("").await.unwrap();
    assert!(
        before
            .iter()
            .all(|object| left.iter().any(|other| other.path == object.path))
    );
}

/// Wide tables get smaller manifests: what is written can be read.
#[tokio::test]
async fn manifests_hold_fewer_files_the_more_columns_there_are() {
    let schema = |columns: i32| {
        let fields = (1..=columns).map(|id| {
            Arc::new(NestedField::optional(
                id,
                format!("c{id}"),
                Type::Primitive(PrimitiveType::Int),
            ))
        });
        IcebergSchema::builder().with_fields(fields).build().unwrap()
    };
    assert_eq!(super::manifests::most_entries(&schema(3)), 10_000);
    let wide = super::manifests::most_entries(&schema(1_000));
    assert!((500..1_000).contains(&wide), "{wide}");
}

#[tokio::test]
async fn keys_of_idempotency_are_remembered_with_a_bound() {
    // What a table of an earlier release, or a very busy one, holds: a thousand keys of long ago.
    let old: Vec<(String, String)> = (1..=1000)
        .map(|n| (format!("lakehouse.idempotency.k{n}"), format!("{n} {n}")))
        .collect();
    let mut properties: Vec<(&str, &str)> = old.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    properties.push(("lakehouse.idempotency.bare", "5"));
    let (bench, base) = Bench::created(2, &properties).await;
    let format = &bench.format;
    assert_eq!(format.find_token(&base, &"k1".into()).await.unwrap(), Some(1));
    assert_eq!(format.find_token(&base, &"bare".into()).await.unwrap(), Some(5));
    let unkeyed = bench.append(&base, vec![file("a", 1, 1)]).await;
    assert_eq!(format.find_token(&unkeyed, &"k1".into()).await.unwrap(), Some(1));
    let keyed = Change {
        token: Some("now".into()),
        ..append(vec![file("b", 1, 1)])
    };
    let after = bench.publish(&unkeyed, &keyed).await;
    assert_eq!(
        format.find_token(&after, &"now".into()).await.unwrap(),
        Some(after.version)
    );
    assert_eq!(format.find_token(&after, &"k2".into()).await.unwrap(), Some(2));
    assert_eq!(
        format.find_token(&after, &"k1".into()).await.unwrap(),
        None,
        "one too many"
    );
    assert_eq!(format.find_token(&after, &"bare".into()).await.unwrap(), None);
}

/// As they were recorded once: beside the keys, told from them by the step.
#[tokio::test]
async fn streams_recorded_beside_keys_are_read_and_move_to_their_own_place() {
    let old = [
        ("lakehouse.idempotency.feed", "0 5 7"),
        ("lakehouse.idempotency.job", "0 5"),
    ];
    for by in [Token::step("feed", 9), Token::from("feed")] {
        let (bench, base) = Bench::created(2, &old).await;
        let format = &bench.format;
        assert_eq!(format.last_step(&base, "feed").await.unwrap(), Some(7));
        assert_eq!(format.find_token(&base, &"feed".into()).await.unwrap(), None);
        assert_eq!(format.last_step(&base, "job").await.unwrap(), None);
        assert_eq!(format.find_token(&base, &"job".into()).await.unwrap(), Some(0));
        let change = Change {
            token: Some(by.clone()),
            ..append(vec![file("a", 1, 1)])
        };
        let after = bench.publish(&base, &change).await;
        let last = format.last_step(&after, "feed").await.unwrap();
        assert_eq!(last, by.step.or(Some(7)));
        let keyed = format.find_token(&after, &"feed".into()).await.unwrap();
        assert_eq!(keyed, by.step.is_none().then_some(after.version));
        assert!(
            after.properties.contains_key("lakehouse.stream.feed"),
            "{:?}",
            after.properties
        );
        let beside = after.properties.get("lakehouse.idempotency.feed");
        assert_eq!(beside.is_some(), by.step.is_none());
    }
}

#[tokio::test]
async fn removing_what_is_not_there_is_a_conflict_that_leaves_no_trace() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 10)]).await;
    let objects = bench.store.list("").await.unwrap().len();
    let mut change = append(vec![file("b", 0, 1)]);
    change.removed = bench.list(&first).await;
    change.removed[0].recorded.push('x');
    let error = bench.format.publish(&first, &change).await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict { detail, .. } if detail.contains("R1")),
        "{error:?}"
    );
    assert_eq!(bench.store.list("").await.unwrap().len(), objects);
    let error = bench.format.publish(&base, &append(vec![])).await.unwrap();
    assert!(matches!(error, Outcome::Lost));
}

#[tokio::test]
async fn position_deletes_that_several_files_share_are_read_and_kept() {
    let (bench, base) = Bench::created(2, &[]).await;
    let files = vec![file("a", 0, 10), file("b", 0, 10), file("c", 100, 10)];
    let first = bench.append(&base, files).await;
    let listed = bench.list(&first).await;
    // One file for both data files of the partition, without a word on which.
    let one = position_deletes::encode(&listed[1].recorded, &[3, 5].into_iter().collect()).unwrap();
    bench
        .store
        .put("data/shared.parquet", one.clone().into())
        .await
        .unwrap();
    let recorded = View::of(&first)
        .unwrap()
        .state
        .paths
        .absolute("data/shared.parquet");
    let entry = DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(recorded)
        .file_format(DataFileFormat::Parquet)
        .partition(partition(0))
        .record_count(2)
        .file_size_in_bytes(one.len() as u64)
        .build()
        .unwrap();
    let second = bench.foreign_deletes(&first, vec![entry]).await;
    let third = bench.append(&second, vec![file("d", 0, 10)]).await;
    let listed = bench.list(&third).await;
    let shared: Vec<_> = listed
        .iter()
        .map(|f| f.masks.iter().any(|mask| mask.shared))
        .collect();
    assert_eq!(shared, [true, true, false, false], "same partition, not newer");
    assert_eq!(listed[0].masked_rows(), None);
    let masks = bench.format.masks(&third, &listed).await.unwrap();
    let lengths: Vec<_> = masks.iter().map(RowMask::len).collect();
    assert_eq!(lengths, [0, 2, 0, 0]);
    let told = bench.format.changes(&first, &second).await.unwrap();
    let concerned: Vec<_> = told[0].masked.iter().map(|(file, _)| file.path.clone()).collect();
    assert_eq!(concerned, ["data/a.parquet", "data/b.parquet"], "at most these");
    // A mask of ours joins the shared one.
    let complete: RowMask = [3, 5, 7].into_iter().collect();
    let fourth = bench
        .mask(&third, vec![(listed[1].clone(), complete.clone())])
        .await;
    let listed = bench.list(&fourth).await;
    assert_eq!(listed[1].masks.len(), 2);
    assert_eq!(bench.format.masks(&fourth, &listed).await.unwrap()[1], complete);
    // The data file goes, the shared file stays for the other one.
    let mut change = append(vec![file("b2", 0, 7)]);
    change.removed = vec![listed[1].clone()];
    let fifth = bench.publish(&fourth, &change).await;
    let listed = bench.list(&fifth).await;
    assert_eq!(names(&listed), ["a", "b2", "c", "d"]);
    assert_eq!((listed[0].masks.len(), listed[1].masks.len()), (1, 0));
}

#[tokio::test]
async fn equality_deletes_concern_older_files_of_their_partition() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench
        .append(&base, vec![file("a", 0, 10), file("b", 100, 10)])
        .await;
    let recorded = View::of(&first).unwrap().state.paths.absolute("data/eq.parquet");
    let entry = DataFileBuilder::default()
        .content(DataContentType::EqualityDeletes)
        .file_path(recorded)
        .file_format(DataFileFormat::Parquet)
        .partition(partition(0))
        .record_count(2)
        .file_size_in_bytes(99)
        .equality_ids(Some(vec![2, 1]))
        .build()
        .unwrap();
    let second = bench.foreign_deletes(&first, vec![entry]).await;
    let third = bench.append(&second, vec![file("c", 0, 10)]).await;
    let listed = bench.list(&third).await;
    let counts: Vec<_> = listed.iter().map(|file| file.equality_deletes.len()).collect();
    assert_eq!(counts, [1, 0, 0]);
    let delete = &listed[0].equality_deletes[0];
    assert_eq!(delete.columns, ["name", "id"]);
    assert_eq!((delete.path.as_str(), delete.sequence), ("data/eq.parquet", 2));
    assert!(!listed[0].columns["id"].exact && listed[1].columns["id"].exact);
    assert_eq!(listed[0].masked_rows(), None);
}

#[tokio::test]
async fn a_deletion_vector_that_does_not_fit_its_file_is_refused() {
    let (bench, base) = Bench::created(3, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 10)]).await;
    let listed = bench.list(&first).await;
    let beyond: RowMask = [10].into_iter().collect();
    let id = clock::new_commit_id();
    let refused = bench
        .format
        .stage_masks(&first, vec![(listed[0].clone(), beyond)], &id)
        .await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    let second = bench
        .mask(&first, vec![(listed[0].clone(), [1, 2].into_iter().collect())])
        .await;
    let mut listed = bench.list(&second).await;
    assert_eq!(listed[0].masked_rows(), Some(2));
    let path = listed[0].masks[0].path.clone();
    let mut bytes = bench.store.get(&path).await.unwrap().to_vec();
    bytes[30] ^= 1;
    bench.store.put(&path, bytes.into()).await.unwrap();
    let error = bench.format.masks(&second, &listed).await.unwrap_err();
    assert!(error.to_string().contains(&path), "{error}");
    listed[0].masks[0] = MaskRef {
        bytes: Some(u64::MAX),
        ..listed[0].masks[0].clone()
    };
    assert!(bench.format.masks(&second, &listed).await.is_err());
}

#[tokio::test]
async fn a_property_asks_for_copy_on_write() {
    for (mode, masks) in [("copy-on-write", false), ("merge-on-read", true)] {
        let (_, table) = Bench::created(2, &[("write.merge.mode", mode)]).await;
        assert_eq!(table.capabilities.masks, masks, "{mode}");
    }
}

#[tokio::test]
async fn definitions_that_iceberg_cannot_store_are_refused_by_name() {
    let field = |source: &str, transform, name: &str| PartitionField {
        source: source.into(),
        transform,
        name: name.into(),
        field_id: 0,
        zone_slack_days: 0,
    };
    let with = |fields: Vec<PartitionField>| Definition {
        partition_fields: fields,
        ..definition(2, BTreeMap::new())
    };
    for (definition, word) in [
        (with(vec![field("nope", Transform::Identity, "")]), "nope"),
        (with(vec![field("name", Transform::Day, "")]), "name"),
        (with(vec![field("id", Transform::Truncate(0), "")]), "at least 1"),
        (
            with(vec![
                field("id", Transform::Identity, "x"),
                field("name", Transform::Identity, "x"),
            ]),
            "x",
        ),
        (definition(4, BTreeMap::new()), "4"),
    ] {
        let error = Bench::new()
            .format
            .create(&definition, &clock::new_commit_id())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn a_base_that_is_not_in_history_is_rule_five() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 1)]).await;
    let second = bench.append(&first, vec![file("b", 0, 1)]).await;
    let error = bench.format.changes(&second, &first).await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict { detail, .. } if detail.contains("R5")),
        "{error:?}"
    );
}

#[tokio::test]
async fn manifests_keep_paths_partitions_and_bounds_as_other_engines_expect_them() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 200, 10)]).await;
    let view = View::of(&first).unwrap();
    let list = read_list(&bench.store, &view).await.unwrap();
    let summary = &list[0].partitions.as_ref().unwrap()[0];
    assert_eq!(
        summary.lower_bound.as_ref().unwrap().as_ref(),
        200_i64.to_le_bytes()
    );
    let manifest = read_manifest(&bench.store, &view.state, list[0].clone())
        .await
        .unwrap();
    assert_eq!(manifest.spec.fields()[0].name, "id_trunc");
    let entry = &manifest.entries[0].file;
    assert_eq!(
        entry.file_path(),
        format!("{}/data/a.parquet", bench.store.location())
    );
    assert_eq!(
        entry.upper_bounds()[&1].to_bytes().unwrap().as_ref(),
        209_i64.to_le_bytes()
    );
}

#[tokio::test]
async fn tables_of_other_engines_are_read() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/foreign");
    for (name, vectors, positions, equality) in [
        ("pyiceberg_v2_day_bucket", false, false, false),
        ("pyiceberg_v2_eqdel", false, false, true),
        ("duckdb_iceberg_v2_posdel", false, true, false),
        ("duckdb_iceberg_v3_dv", true, false, false),
    ] {
        let store = Store::open(&format!("{fixtures}/{name}/table")).unwrap();
        let format = Iceberg::new(store);
        let snapshot = format.snapshot(&At::Latest).await.unwrap();
        assert!(!snapshot.capabilities.writable, "{name}");
        let files: Vec<DataFile> = format
            .files(&snapshot, Arc::new(Prune::everything()))
            .try_collect()
            .await
            .unwrap();
        let masks = format.masks(&snapshot, &files).await.unwrap();
        let expected = std::fs::File::open(format!("{fixtures}/{name}/expected.parquet")).unwrap();
        let expected = parquet::file::serialized_reader::SerializedFileReader::new(expected).unwrap();
        let expected = parquet::file::reader::FileReader::metadata(&expected)
            .file_metadata()
            .num_rows() as u64;
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let masked: u64 = masks.iter().map(RowMask::len).sum();
        if equality {
            assert!(
                files.iter().any(|file| !file.equality_deletes.is_empty()),
                "{name}"
            );
            assert!(rows > expected, "{name}");
        } else {
            assert_eq!(rows - masked, expected, "{name}");
            for (file, mask) in files.iter().zip(&masks) {
                assert!(file.masked_rows().is_none_or(|rows| rows == mask.len()), "{name}");
            }
        }
        let of_kind = |vector: bool| {
            files
                .iter()
                .flat_map(|file| &file.masks)
                .any(|mask| mask.offset.is_some() == vector)
        };
        assert_eq!((of_kind(true), of_kind(false)), (vectors, positions), "{name}");
        for commit in format.history(&At::Latest, None).await.unwrap() {
            let old = format.snapshot(&At::Version(commit.version)).await.unwrap();
            let told = format.changes(&old, &snapshot).await.unwrap();
            assert!(!told.is_empty() || old.version == snapshot.version, "{name}");
        }
        for key in format.reachable(None).await.unwrap() {
            let there = format.store().head(&key).await.unwrap().is_some();
            assert!(there || key == HINT, "{name}: {key}");
        }
    }
}

#[tokio::test]
async fn a_version_one_table_is_read_and_rewritten_without_masks() {
    let (bench, base) = Bench::created(2, &[]).await;
    let mut json = bench.json(&base).await;
    let fields = json.as_object_mut().unwrap();
    fields.insert("format-version".into(), 1.into());
    fields.remove("last-sequence-number");
    let (schema, spec) = (
        fields["schemas"][0].clone(),
        fields["partition-specs"][0]["fields"].clone(),
    );
    fields.insert("schema".into(), schema);
    fields.insert("partition-spec".into(), spec);
    let bytes = serde_json::to_vec(&json).unwrap();
    bench.store.put(&metadata_key(1), bytes.into()).await.unwrap();
    let base = bench.newest().await;
    assert!(!base.capabilities.masks && base.capabilities.writable);
    let first = bench
        .append(&base, vec![file("a", 0, 10), file("b", 0, 10)])
        .await;
    let listed = bench.list(&first).await;
    let id = clock::new_commit_id();
    let refused = bench.format.stage_masks(&first, vec![], &id).await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    let mut change = append(vec![file("a2", 0, 9)]);
    change.operation = OperationKind::Delete;
    change.removed = vec![listed[0].clone()];
    let second = bench.publish(&first, &change).await;
    let third = bench.append(&second, vec![file("c", 100, 1)]).await;
    assert_eq!(names(&bench.list(&third).await), ["a2", "b", "c"]);
    let told = bench.format.changes(&first, &third).await.unwrap();
    assert_eq!(
        (names(&told[0].added), names(&told[0].removed)),
        (vec!["a2"], vec!["a"])
    );
}

#[tokio::test]
async fn files_of_several_partition_specs_and_schemas_live_in_one_table() {
    let (bench, base) = Bench::created(2, &[]).await;
    let first = bench.append(&base, vec![file("a", 0, 10)]).await;
    // Column `id` becomes `key`, `name` goes, `day` comes; partitioned by day from now on.
    let evolved = bench
        .evolve(&first, |builder| {
            let schema = IcebergSchema::builder()
                .with_fields([
                    Arc::new(NestedField::required(
                        1,
                        "key",
                        Type::Primitive(PrimitiveType::Long),
                    )),
                    Arc::new(NestedField::optional(
                        3,
                        "day",
                        Type::Primitive(PrimitiveType::Date),
                    )),
                ])
                .build()?;
            let spec = UnboundPartitionSpec::builder().add_partition_field(
                3,
                "day_month",
                IcebergTransform::Month,
            )?;
            builder
                .add_current_schema(schema)?
                .add_default_partition_spec(spec.build())
        })
        .await;
    assert_eq!(evolved.version, first.version);
    let columns = |snapshot: &Snapshot| {
        let fields = snapshot.schema.fields().iter();
        fields.map(|field| field.name().clone()).collect::<Vec<_>>()
    };
    assert_eq!(columns(&evolved), ["key", "day"]);
    assert_eq!((evolved.spec_id, evolved.specs.len()), (1, 2));
    assert_eq!(
        (
            evolved.specs[&0][0].source.as_str(),
            evolved.specs[&1][0].source.as_str()
        ),
        ("key", "day")
    );
    let told = bench.format.changes(&first, &evolved).await.unwrap();
    assert_eq!(told.len(), 1);
    assert!(told[0].metadata.schema && told[0].metadata.partitioning && !told[0].metadata.properties);

    let new = DataFile {
        spec_id: 1,
        partition: vec![ScalarValue::Int32(Some(7))],
        columns: BTreeMap::from([("key".to_owned(), file("b", 5, 10).columns["id"].clone())]),
        ..file("b", 5, 10)
    };
    let second = bench.append(&evolved, vec![new, file("c", 100, 10)]).await;
    let listed = bench.list(&second).await;
    assert_eq!(names(&listed), ["a", "b", "c"]);
    assert_eq!(listed.iter().map(|f| f.spec_id).collect::<Vec<_>>(), [0, 1, 0]);
    assert!(
        listed[..2].iter().all(|f| f.columns.contains_key("key")),
        "a renamed column keeps its statistics"
    );
    assert_eq!(listed[1].partition, [ScalarValue::Int32(Some(7))]);
    let masked = bench
        .mask(&second, vec![(listed[0].clone(), [1].into_iter().collect())])
        .await;
    let mut change = append(vec![]);
    change.removed = bench.list(&masked).await[..2].to_vec();
    let third = bench.publish(&masked, &change).await;
    assert_eq!(names(&bench.list(&third).await), ["c"]);

    let old = bench.format.snapshot(&At::Version(first.version)).await.unwrap();
    assert_eq!(
        columns(&old),
        ["id", "name"],
        "an old version has the columns of its time"
    );
    assert_eq!(
        bench.list(&old).await[0].columns["id"].min,
        Some(ScalarValue::Int64(Some(0)))
    );
    assert!(
        old.specs[&1][0].transform == Transform::Void,
        "its schema has no such column"
    );

    // The column that old files are partitioned by goes: their partition says nothing any more.
    let dropped = bench
        .evolve(&third, |builder| {
            let day = NestedField::optional(3, "day", Type::Primitive(PrimitiveType::Date));
            builder.add_current_schema(IcebergSchema::builder().with_fields([Arc::new(day)]).build()?)
        })
        .await;
    assert_eq!(dropped.specs[&0][0].transform, Transform::Void);
    let mut change = append(vec![]);
    change.removed = bench.list(&dropped).await;
    assert_eq!(change.removed[0].partition, [ScalarValue::Int64(Some(100))]);
    let last = bench.publish(&dropped, &change).await;
    assert!(bench.list(&last).await.is_empty());
}
