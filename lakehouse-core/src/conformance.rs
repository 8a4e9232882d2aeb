//! What every format must do, as one suite of tests: each format runs it over each store.
//!
//! Data files are made up (no format reads them), so the suite sees nothing but the door.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;

use crate::error::Error;
use crate::format::{Format, Outcome};
use crate::model::{
    At, BucketHash, Change, ColumnStats, DataFile, Definition, OperationKind, PartitionField, Prune, RowMask,
    Snapshot, Transform, evolve,
};
use crate::store::{Store, clock};

/// Runs every scenario of the suite against one format over two stores. `$make` turns a [`Store`] into
/// the format; `$version` is the format version that tables are created with.
macro_rules! suite {
    ($name:ident, $make:expr, $version:expr) => {
        mod $name {
            $crate::conformance::scenarios!(
                $make,
                $version,
                [
                    created_table_opens_with_its_definition,
                    creating_twice_loses,
                    appended_files_are_listed_as_they_were_given,
                    second_publisher_on_one_base_loses_and_leaves_no_trace,
                    commit_is_found_by_its_id_and_token,
                    listing_skips_files_by_partition_and_by_statistics,
                    masks_are_read_back_and_replaced,
                    a_masked_file_can_be_removed,
                    old_versions_are_found_by_number_distance_and_time,
                    changes_tell_what_each_winner_did,
                    restore_brings_an_old_version_back,
                    history_is_newest_first,
                    everything_written_is_reachable_and_nothing_else,
                    racing_publishers_each_land_exactly_once,
                    many_commits_stay_readable,
                    values_of_every_partition_type_survive,
                    columns_come_with_the_rows_of_one_commit,
                    fields_are_added_inside_structs_lists_and_maps,
                    a_schema_change_that_lost_leaves_no_trace,
                    columns_are_widened_where_the_format_can,
                    columns_that_the_format_cannot_have_are_refused_by_name,
                ]
            );
        }
    };
}

/// Expands to one test per scenario and store.
macro_rules! scenarios {
    ($make:expr, $version:expr, [$($scenario:ident),* $(,)?]) => {
        $(
            mod $scenario {
                #[allow(unused_imports)]
                use super::super::*;

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn in_memory() {
                    let name = uuid::Uuid::new_v4();
                    let store = crate::store::Store::open(&format!("memory://{name}/table")).unwrap();
                    $crate::conformance::$scenario($crate::conformance::Bed::new(store, $make, $version)).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn on_local_disk() {
                    let folder = tempfile::tempdir().unwrap();
                    let store = crate::store::Store::open(folder.path().join("table").to_str().unwrap()).unwrap();
                    $crate::conformance::$scenario($crate::conformance::Bed::new(store, $make, $version)).await;
                }
            }
        )*
    };
}

pub(crate) use {scenarios, suite};

/// One store and the way to open it in the format under test.
pub(crate) struct Bed {
    store: Store,
    make: fn(Store) -> Arc<dyn Format>,
    version: Option<u8>,
}

impl Bed {
    pub(crate) fn new(store: Store, make: fn(Store) -> Arc<dyn Format>, version: Option<u8>) -> Self {
        Self { store, make, version }
    }

    /// A fresh client: nothing cached.
    fn open(&self) -> Arc<dyn Format> {
        (self.make)(self.store.clone())
    }

    async fn created(&self) -> (Arc<dyn Format>, Arc<Snapshot>) {
        let format = self.open();
        let outcome = format
            .create(&definition(self.version), &clock::new_commit_id())
            .await
            .unwrap();
        (format, committed(outcome))
    }
}

fn definition(format_version: Option<u8>) -> Definition {
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Definition {
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("ts", zoned, true),
            Field::new("name", DataType::Utf8, true),
        ])),
        partition_fields: vec![partition_field("ts", Transform::Day)],
        properties: BTreeMap::from([("owner".into(), "conformance".into())]),
        format_version,
    }
}

fn partition_field(source: &str, transform: Transform) -> PartitionField {
    PartitionField {
        source: source.into(),
        transform,
        name: String::new(),
        field_id: 0,
        zone_slack_days: 0,
    }
}

const DAY_US: i64 = 86_400_000_000;

fn ts(day: i32) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(i64::from(day) * DAY_US), Some("UTC".into()))
}

fn noon_of(day: i32) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(i64::from(day) * DAY_US + DAY_US / 2), Some("UTC".into()))
}

/// A file of the given day whose ids are `first .. first + rows`.
fn file(name: &str, day: i32, first: i64, rows: u64) -> DataFile {
    let path = format!("data/{name}.parquet");
    let bounds = |min: ScalarValue, max: ScalarValue| ColumnStats {
        values: Some(rows),
        nulls: Some(0),
        min: Some(min),
        max: Some(max),
        exact: true,
        ..ColumnStats::default()
    };
    DataFile {
        recorded: path.clone(),
        path,
        bytes: 1000 + rows,
        rows,
        spec_id: 0,
        partition: vec![ScalarValue::Date32(Some(day))],
        columns: BTreeMap::from([
            (
                "id".into(),
                bounds(
                    ScalarValue::from(first),
                    ScalarValue::from(first + rows as i64 - 1),
                ),
            ),
            ("ts".into(), bounds(ts(day), ts(day))),
        ]),
        masks: Vec::new(),
        equality_deletes: Vec::new(),
        sequence: None,
        first_row_id: None,
        split_offsets: vec![4],
    }
}

fn change(operation: OperationKind, added: Vec<DataFile>) -> Change {
    Change {
        added,
        ..Change::new(operation, clock::new_commit_id())
    }
}

fn committed(outcome: Outcome) -> Arc<Snapshot> {
    match outcome {
        Outcome::Committed(snapshot) => snapshot,
        other => panic!("expected a commit, got {other:?}"),
    }
}

async fn publish(format: &Arc<dyn Format>, base: &Arc<Snapshot>, change: &Change) -> Arc<Snapshot> {
    committed(format.publish(base, change).await.unwrap())
}

async fn list(format: &Arc<dyn Format>, snapshot: &Arc<Snapshot>) -> Vec<DataFile> {
    let mut files: Vec<DataFile> = format
        .files(snapshot, Arc::new(Prune::everything()))
        .try_collect()
        .await
        .unwrap();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

async fn names(format: &Arc<dyn Format>, snapshot: &Arc<Snapshot>) -> Vec<String> {
    list(format, snapshot)
        .await
        .into_iter()
        .map(|f| name_of(&f))
        .collect()
}

fn name_of(file: &DataFile) -> String {
    file.path
        .trim_start_matches("data/")
        .trim_end_matches(".parquet")
        .to_owned()
}

async fn mask(
    format: &Arc<dyn Format>,
    base: &Arc<Snapshot>,
    operation: OperationKind,
    masks: Vec<(DataFile, RowMask)>,
) -> Arc<Snapshot> {
    let mut change = change(operation, Vec::new());
    let before: Vec<DataFile> = masks.iter().map(|(file, _)| file.clone()).collect();
    let (after, staged) = format.stage_masks(base, masks, &change.commit_id).await.unwrap();
    assert!(
        !staged.is_empty(),
        "staged masks are named, so that they can be cleaned up"
    );
    change.masked = before.into_iter().zip(after).collect();
    change.staged = staged;
    publish(format, base, &change).await
}

pub(crate) async fn created_table_opens_with_its_definition(bed: Bed) {
    let (_, created) = bed.created().await;
    let opened = bed.open().snapshot(&At::Latest).await.unwrap();
    for snapshot in [&created, &opened] {
        let columns: Vec<_> = snapshot
            .schema
            .fields()
            .iter()
            .map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable()))
            .collect();
        let expected: Vec<_> = definition(None)
            .schema
            .fields()
            .iter()
            .map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable()))
            .collect();
        assert_eq!(columns, expected);
        assert_eq!(
            snapshot.properties.get("owner").map(String::as_str),
            Some("conformance")
        );
        assert_eq!(snapshot.partition_fields().len(), 1);
        assert_eq!(snapshot.partition_fields()[0].source, "ts");
        assert_eq!(snapshot.partition_fields()[0].transform, Transform::Day);
        assert!(!snapshot.partition_fields()[0].name.is_empty());
        assert!(snapshot.capabilities.writable);
        assert!(snapshot.timestamp_ms > 1_500_000_000_000);
    }
    assert_eq!(created.version, 0);
    assert!(list(&bed.open(), &opened).await.is_empty());
}

pub(crate) async fn creating_twice_loses(bed: Bed) {
    let missing = bed.open().snapshot(&At::Latest).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    bed.created().await;
    let again = bed
        .open()
        .create(&definition(bed.version), &clock::new_commit_id())
        .await
        .unwrap();
    assert!(matches!(again, Outcome::Lost), "{again:?}");
}

pub(crate) async fn appended_files_are_listed_as_they_were_given(bed: Bed) {
    let (format, base) = bed.created().await;
    let given = vec![file("a", 100, 0, 10), file("b", 101, 10, 20)];
    let snapshot = publish(&format, &base, &change(OperationKind::Append, given.clone())).await;
    assert_eq!(snapshot.state, base.state + 1);
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.version, snapshot.version);
    for (format, snapshot) in [(&format, &snapshot), (&reader, &opened)] {
        let listed = list(format, snapshot).await;
        assert_eq!(listed.len(), 2);
        for (listed, given) in listed.iter().zip(&given) {
            assert_eq!(listed.path, given.path);
            assert_eq!((listed.bytes, listed.rows), (given.bytes, given.rows));
            assert_eq!(listed.partition, given.partition);
            assert_eq!(listed.masked_rows(), Some(0));
            for (column, stats) in &given.columns {
                let read = &listed.columns[column];
                assert_eq!(read.nulls, stats.nulls, "{column}");
                assert_eq!(read.min, stats.min, "{column}");
                assert!(
                    read.max >= stats.max,
                    "{column}: a bound may be widened, never narrowed"
                );
            }
        }
        if snapshot.capabilities.row_ids {
            let ids: BTreeSet<_> = listed.iter().map(|f| f.first_row_id.unwrap()).collect();
            assert!(
                ids == BTreeSet::from([0, 10]) || ids == BTreeSet::from([0, 20]),
                "{ids:?}"
            );
        }
    }
}

pub(crate) async fn second_publisher_on_one_base_loses_and_leaves_no_trace(bed: Bed) {
    let (format, base) = bed.created().await;
    let other = bed.open();
    let base_of_other = other.snapshot(&At::Latest).await.unwrap();
    let first = publish(
        &format,
        &base,
        &change(OperationKind::Append, vec![file("first", 1, 0, 1)]),
    )
    .await;
    let loser = change(OperationKind::Append, vec![file("second", 1, 1, 1)]);
    let outcome = other.publish(&base_of_other, &loser).await.unwrap();
    assert!(matches!(outcome, Outcome::Lost), "{outcome:?}");
    assert!(
        other
            .find(&loser.commit_id, &base_of_other)
            .await
            .unwrap()
            .is_none()
    );
    let newest = other.snapshot(&At::Latest).await.unwrap();
    assert_eq!(newest.version, first.version);
    assert_eq!(names(&other, &newest).await, ["first"]);
    let second = publish(&other, &newest, &loser).await;
    assert_eq!(names(&bed.open(), &second).await, ["first", "second"]);
}

pub(crate) async fn commit_is_found_by_its_id_and_token(bed: Bed) {
    let (format, base) = bed.created().await;
    let mine = Change {
        token: Some("night/42".into()),
        ..change(OperationKind::Append, vec![file("a", 1, 0, 1)])
    };
    let snapshot = publish(&format, &base, &mine).await;
    let after = publish(
        &format,
        &snapshot,
        &change(OperationKind::Append, vec![file("b", 1, 1, 1)]),
    )
    .await;
    let reader = bed.open();
    let found = reader
        .find(&mine.commit_id, &base)
        .await
        .unwrap()
        .expect("it landed");
    assert_eq!(found.version, snapshot.version);
    assert!(
        reader.find(&mine.commit_id, &snapshot).await.unwrap().is_none(),
        "it landed before that base"
    );
    let newest = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(newest.version, after.version);
    assert_eq!(
        reader.find_token(&newest, "night/42").await.unwrap(),
        Some(snapshot.version)
    );
    assert_eq!(reader.find_token(&newest, "night/43").await.unwrap(), None);
    assert_eq!(reader.find_token(&base, "night/42").await.unwrap(), None);
}

pub(crate) async fn listing_skips_files_by_partition_and_by_statistics(bed: Bed) {
    let (format, mut snapshot) = bed.created().await;
    for day in 0..5 {
        let files = (0..4)
            .map(|i| file(&format!("d{day}-{i}"), 100 + day, i * 100, 100))
            .collect();
        snapshot = publish(&format, &snapshot, &change(OperationKind::Append, files)).await;
    }
    let count = async |predicate: Expr| {
        let prune = Arc::new(Prune::matching(predicate, Arc::clone(&snapshot.schema)).unwrap());
        let files: Vec<DataFile> = format.files(&snapshot, prune).try_collect().await.unwrap();
        files.len()
    };
    assert_eq!(count(col("ts").gt_eq(lit(ts(0)))).await, 20);
    // A zoned timestamp's partition keeps a day to either side on Delta; the statistics cut that off.
    assert_eq!(count(col("ts").eq(lit(ts(102)))).await, 4);
    assert_eq!(count(col("ts").lt(lit(ts(102)))).await, 8);
    assert_eq!(count(col("id").eq(lit(250i64))).await, 5);
    assert_eq!(
        count(col("id").eq(lit(250i64)).and(col("ts").gt(lit(noon_of(103))))).await,
        1
    );
    assert_eq!(count(col("id").gt(lit(4000i64))).await, 0);
    assert_eq!(
        count(col("name").eq(lit("x"))).await,
        20,
        "no statistics, nothing skipped"
    );
}

pub(crate) async fn masks_are_read_back_and_replaced(bed: Bed) {
    let (format, base) = bed.created().await;
    let files = vec![
        file("a", 1, 0, 100),
        file("b", 2, 100, 100),
        file("c", 2, 200, 100),
    ];
    let snapshot = publish(&format, &base, &change(OperationKind::Append, files)).await;
    if !snapshot.capabilities.masks {
        let refused = format
            .stage_masks(&snapshot, vec![], &clock::new_commit_id())
            .await;
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
        return;
    }
    let listed = list(&format, &snapshot).await;
    let first: RowMask = [0, 7, 99].into_iter().collect();
    let second: RowMask = [50].into_iter().collect();
    let masked = mask(
        &format,
        &snapshot,
        OperationKind::Delete,
        vec![
            (listed[0].clone(), first.clone()),
            (listed[1].clone(), second.clone()),
        ],
    )
    .await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.version, masked.version);
    let listed = list(&reader, &opened).await;
    assert_eq!(
        reader.masks(&opened, &listed).await.unwrap(),
        [first, second.clone(), RowMask::new()]
    );
    assert_eq!(listed[2].masked_rows(), Some(0));
    // The complete mask replaces the one before it.
    let wider: RowMask = [0, 7, 8, 99].into_iter().collect();
    let again = mask(
        &reader,
        &opened,
        OperationKind::Delete,
        vec![(listed[0].clone(), wider.clone())],
    )
    .await;
    let listed = list(&bed.open(), &again).await;
    assert_eq!(listed.iter().map(name_of).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(
        bed.open().masks(&again, &listed).await.unwrap(),
        [wider, second, RowMask::new()]
    );
    // The older version keeps its own mask.
    let old = bed.open().snapshot(&At::Version(snapshot.version)).await.unwrap();
    let listed = list(&bed.open(), &old).await;
    assert!(
        bed.open()
            .masks(&old, &listed)
            .await
            .unwrap()
            .iter()
            .all(RowMask::is_empty)
    );
}

pub(crate) async fn a_masked_file_can_be_removed(bed: Bed) {
    let (format, base) = bed.created().await;
    let snapshot = publish(
        &format,
        &base,
        &change(
            OperationKind::Append,
            vec![file("a", 1, 0, 9), file("b", 1, 9, 9)],
        ),
    )
    .await;
    let mut listed = list(&format, &snapshot).await;
    let mut snapshot = snapshot;
    if snapshot.capabilities.masks {
        let hidden: RowMask = [3].into_iter().collect();
        snapshot = mask(
            &format,
            &snapshot,
            OperationKind::Delete,
            vec![(listed[0].clone(), hidden)],
        )
        .await;
        listed = list(&format, &snapshot).await;
    }
    let mut compact = change(OperationKind::Compact, vec![file("ab", 1, 0, 17)]);
    compact.removed = listed;
    let compacted = publish(&format, &snapshot, &compact).await;
    let listed = list(&bed.open(), &compacted).await;
    assert_eq!(listed.iter().map(name_of).collect::<Vec<_>>(), ["ab"]);
    assert_eq!(
        listed[0].masked_rows(),
        Some(0),
        "the mask of a removed file does not reach its successor"
    );
}

pub(crate) async fn old_versions_are_found_by_number_distance_and_time(bed: Bed) {
    let (format, mut snapshot) = bed.created().await;
    let mut versions = Vec::new();
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        // Versions are told apart by time: no two in one millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(15)).await;
        snapshot = publish(
            &format,
            &snapshot,
            &change(OperationKind::Append, vec![file(name, 1, n as i64, 1)]),
        )
        .await;
        versions.push(Arc::clone(&snapshot));
    }
    let reader = bed.open();
    for (n, version) in versions.iter().enumerate() {
        let expected = &["a", "b", "c"][..=n];
        for at in [
            At::Version(version.version),
            At::Timestamp(version.timestamp_ms),
            At::Timestamp(version.timestamp_ms + 3),
        ] {
            let found = reader.snapshot(&at).await.unwrap();
            assert_eq!(found.version, version.version, "{at:?}");
            assert_eq!(found.timestamp_ms, version.timestamp_ms, "{at:?}");
            assert_eq!(names(&reader, &found).await, expected, "{at:?}");
        }
    }
    let before = reader.snapshot(&At::Version(-1)).await.unwrap();
    assert_eq!(before.version, versions[1].version);
    for missing in [At::Version(4_242_424_242), At::Version(-77), At::Timestamp(1_000)] {
        let error = reader.snapshot(&missing).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{missing:?}: {error:?}");
        assert!(error.hint().is_some(), "{missing:?}: the error says what to do");
    }
}

pub(crate) async fn changes_tell_what_each_winner_did(bed: Bed) {
    let (format, base) = bed.created().await;
    let append = change(
        OperationKind::Append,
        vec![file("a", 1, 0, 10), file("b", 2, 10, 10)],
    );
    let appended = publish(&format, &base, &append).await;
    let mut last = Arc::clone(&appended);
    let mut expected = vec![(OperationKind::Append, vec!["a", "b"], vec![], vec![], true)];
    if last.capabilities.masks {
        let listed = list(&format, &last).await;
        let hidden: RowMask = [1].into_iter().collect();
        last = mask(
            &format,
            &last,
            OperationKind::Delete,
            vec![(listed[1].clone(), hidden)],
        )
        .await;
        expected.push((OperationKind::Delete, vec![], vec![], vec!["b"], true));
    }
    let mut compact = change(OperationKind::Compact, vec![file("a2", 1, 0, 10)]);
    compact.removed = list(&format, &last)
        .await
        .into_iter()
        .filter(|f| name_of(f) == "a")
        .collect();
    last = publish(&format, &last, &compact).await;
    expected.push((OperationKind::Compact, vec!["a2"], vec!["a"], vec![], false));
    let mut overwrite = change(OperationKind::Overwrite, vec![file("z", 3, 90, 5)]);
    overwrite.removed = list(&format, &last).await;
    last = publish(&format, &last, &overwrite).await;
    expected.push((OperationKind::Overwrite, vec!["z"], vec!["a2", "b"], vec![], true));

    let reader = bed.open();
    let told = reader.changes(&base, &last).await.unwrap();
    let sorted = |files: Vec<String>| files.into_iter().collect::<BTreeSet<_>>();
    for (told, (operation, added, removed, masked, data_change)) in told.iter().zip(&expected) {
        assert_eq!(told.operation, *operation);
        assert_eq!(
            sorted(told.added.iter().map(name_of).collect()),
            sorted(added.iter().map(|s| (*s).into()).collect())
        );
        assert_eq!(
            sorted(told.removed.iter().map(name_of).collect()),
            sorted(removed.iter().map(|s| (*s).into()).collect())
        );
        assert_eq!(
            sorted(told.masked.iter().map(|(f, _)| name_of(f)).collect()),
            sorted(masked.iter().map(|s| (*s).into()).collect())
        );
        assert_eq!(told.data_change, *data_change, "{operation:?}");
        assert!(
            !told.metadata.schema && !told.metadata.partitioning,
            "{operation:?}"
        );
    }
    assert_eq!(told.len(), expected.len());
    assert!(reader.changes(&last, &last).await.unwrap().is_empty());
    let later = reader.changes(&appended, &last).await.unwrap();
    assert_eq!(later.len(), expected.len() - 1);
    // The conflict rules prune a winner's files: their statistics come along.
    assert_eq!(told[0].added[0].columns["id"].nulls, Some(0));
    assert_eq!(told[0].added[0].partition.len(), 1);
}

pub(crate) async fn restore_brings_an_old_version_back(bed: Bed) {
    let (format, base) = bed.created().await;
    let first = publish(
        &format,
        &base,
        &change(OperationKind::Append, vec![file("a", 1, 0, 10)]),
    )
    .await;
    let mut old = Arc::clone(&first);
    let mut hidden = RowMask::new();
    if first.capabilities.masks {
        hidden.insert(4);
        let listed = list(&format, &first).await;
        old = mask(
            &format,
            &first,
            OperationKind::Delete,
            vec![(listed[0].clone(), hidden.clone())],
        )
        .await;
    }
    let mut overwrite = change(OperationKind::Overwrite, vec![file("b", 2, 0, 3)]);
    overwrite.removed = list(&format, &old).await;
    let newest = publish(&format, &old, &overwrite).await;
    let restore = Change {
        restore: Some(old.version),
        ..change(OperationKind::Restore, Vec::new())
    };
    let restored = publish(&format, &newest, &restore).await;
    assert_ne!(restored.version, old.version, "a restore is a commit of its own");
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.version, restored.version);
    let listed = list(&reader, &opened).await;
    assert_eq!(listed.iter().map(name_of).collect::<Vec<_>>(), ["a"]);
    assert_eq!(reader.masks(&opened, &listed).await.unwrap(), [hidden]);
    let between = reader.snapshot(&At::Version(newest.version)).await.unwrap();
    assert_eq!(
        names(&reader, &between).await,
        ["b"],
        "what was restored over stays in history"
    );
    let after = publish(
        &reader,
        &opened,
        &change(OperationKind::Append, vec![file("c", 1, 50, 1)]),
    )
    .await;
    assert_eq!(names(&bed.open(), &after).await, ["a", "c"]);
}

pub(crate) async fn history_is_newest_first(bed: Bed) {
    let (format, base) = bed.created().await;
    let first = publish(
        &format,
        &base,
        &change(OperationKind::Append, vec![file("a", 1, 0, 1)]),
    )
    .await;
    let second = publish(
        &format,
        &first,
        &change(OperationKind::Append, vec![file("b", 1, 1, 1)]),
    )
    .await;
    let history = bed.open().history(None).await.unwrap();
    let versions: Vec<_> = history.iter().map(|commit| commit.version).collect();
    assert_eq!(versions[..2], [second.version, first.version]);
    assert!(
        history
            .windows(2)
            .all(|pair| pair[0].timestamp_ms >= pair[1].timestamp_ms)
    );
    assert_eq!(history[0].parent, Some(first.version));
    assert_eq!(bed.open().history(Some(1)).await.unwrap().len(), 1);
}

pub(crate) async fn everything_written_is_reachable_and_nothing_else(bed: Bed) {
    let (format, base) = bed.created().await;
    let mut snapshot = publish(
        &format,
        &base,
        &change(
            OperationKind::Append,
            vec![file("a", 1, 0, 9), file("b", 2, 9, 9)],
        ),
    )
    .await;
    if snapshot.capabilities.masks {
        let listed = list(&format, &snapshot).await;
        let hidden: RowMask = [3].into_iter().collect();
        snapshot = mask(
            &format,
            &snapshot,
            OperationKind::Delete,
            vec![(listed[0].clone(), hidden)],
        )
        .await;
    }
    let mut overwrite = change(OperationKind::Overwrite, vec![file("c", 2, 0, 3)]);
    overwrite.removed = list(&format, &snapshot).await;
    publish(&format, &snapshot, &overwrite).await;
    let reachable = bed.open().reachable(None).await.unwrap();
    let stored: BTreeSet<String> = bed
        .store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.path)
        .collect();
    let data: BTreeSet<String> = ["a", "b", "c"]
        .iter()
        .map(|n| format!("data/{n}.parquet"))
        .collect();
    assert_eq!(reachable, stored.union(&data).cloned().collect());
    let newest = bed.open().snapshot(&At::Latest).await.unwrap();
    let kept = bed.open().reachable(Some(&[newest.version])).await.unwrap();
    assert!(kept.contains("data/c.parquet") && !kept.contains("data/a.parquet"));
    assert!(kept.is_subset(&reachable));
}

pub(crate) async fn racing_publishers_each_land_exactly_once(bed: Bed) {
    let (_, _) = bed.created().await;
    let bed = Arc::new(bed);
    let writers: Vec<_> = (0..6)
        .map(|n| {
            let bed = Arc::clone(&bed);
            tokio::spawn(async move {
                let format = bed.open();
                let mine = change(OperationKind::Append, vec![file(&format!("w{n}"), 1, n, 1)]);
                loop {
                    let base = format.snapshot(&At::Latest).await.unwrap();
                    match format.publish(&base, &mine).await.unwrap() {
                        Outcome::Committed(_) => break,
                        Outcome::Lost => {}
                        Outcome::Unknown(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let reader = bed.open();
    let newest = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(
        names(&reader, &newest).await,
        ["w0", "w1", "w2", "w3", "w4", "w5"]
    );
}

pub(crate) async fn many_commits_stay_readable(bed: Bed) {
    let (format, mut snapshot) = bed.created().await;
    for n in 0..25 {
        let mut next = change(OperationKind::Append, vec![file(&format!("{n:02}"), 1, n, 1)]);
        if n % 5 == 4 {
            next.operation = OperationKind::Compact;
            next.data_change = false;
            next.removed = list(&format, &snapshot).await;
        }
        snapshot = publish(&format, &snapshot, &next).await;
    }
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(names(&reader, &opened).await, ["24"]);
    let earlier = reader.snapshot(&At::Version(-2)).await.unwrap();
    assert_eq!(names(&reader, &earlier).await, ["19", "20", "21", "22"]);
}

pub(crate) async fn values_of_every_partition_type_survive(bed: Bed) {
    let schema = Schema::new(vec![
        Field::new("i", DataType::Int32, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("d", DataType::Date32, true),
        Field::new("m", DataType::Decimal128(12, 2), true),
        Field::new("b", DataType::Boolean, true),
        Field::new("k", DataType::Int64, true),
    ]);
    let bucket = Transform::Bucket {
        buckets: 8,
        hash: BucketHash::Iceberg,
    };
    let identity = |c| partition_field(c, Transform::Identity);
    let definition = Definition {
        schema: Arc::new(schema),
        partition_fields: vec![
            identity("i"),
            identity("s"),
            identity("d"),
            identity("m"),
            identity("b"),
            partition_field("k", bucket),
        ],
        properties: BTreeMap::new(),
        format_version: bed.version,
    };
    let format = bed.open();
    let base = committed(format.create(&definition, &clock::new_commit_id()).await.unwrap());
    let rows = [
        vec![
            ScalarValue::Int32(Some(-5)),
            ScalarValue::from("a b/c=ü%20\"x\""),
            ScalarValue::Date32(Some(-1)),
            ScalarValue::Decimal128(Some(-1234), 12, 2),
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Int32(Some(7)),
        ],
        vec![
            ScalarValue::Int32(None),
            ScalarValue::Utf8(None),
            ScalarValue::Date32(None),
            ScalarValue::Decimal128(None, 12, 2),
            ScalarValue::Boolean(None),
            ScalarValue::Int32(None),
        ],
    ];
    let files: Vec<DataFile> = rows
        .iter()
        .enumerate()
        .map(|(n, partition)| DataFile {
            partition: partition.clone(),
            columns: BTreeMap::new(),
            ..file(&format!("p{n} x=1%"), 0, 0, 1)
        })
        .collect();
    publish(&format, &base, &change(OperationKind::Append, files)).await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    let listed = list(&reader, &opened).await;
    assert_eq!(
        listed.iter().map(|f| f.partition.clone()).collect::<Vec<_>>(),
        rows
    );
    assert_eq!(listed[0].path, "data/p0 x=1%.parquet");
}

fn with_columns(snapshot: &Snapshot, new: Vec<Field>) -> Schema {
    let mut fields = snapshot.schema.fields().to_vec();
    fields.extend(new.into_iter().map(Arc::new));
    Schema::new(fields)
}

/// A change that gives the table these columns, with files of them.
fn evolving(format: &Arc<dyn Format>, base: &Snapshot, wanted: &Schema, added: Vec<DataFile>) -> Change {
    let mut change = change(OperationKind::Append, added);
    change.set_schema(Arc::clone(&format.evolve(base, wanted).unwrap().schema));
    change
}

fn columns(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .schema
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect()
}

async fn kept(format: &Arc<dyn Format>, snapshot: &Arc<Snapshot>, predicate: Expr) -> Vec<String> {
    let prune = Prune::matching(predicate, Arc::clone(&snapshot.schema)).unwrap();
    let files: Vec<DataFile> = format
        .files(snapshot, Arc::new(prune))
        .try_collect()
        .await
        .unwrap();
    let mut names: Vec<String> = files.iter().map(name_of).collect();
    names.sort();
    names
}

fn bounds(min: ScalarValue, max: ScalarValue, rows: u64) -> ColumnStats {
    ColumnStats {
        values: Some(rows),
        nulls: Some(0),
        min: Some(min),
        max: Some(max),
        exact: true,
        ..ColumnStats::default()
    }
}

pub(crate) async fn columns_come_with_the_rows_of_one_commit(bed: Bed) {
    let (format, base) = bed.created().await;
    let append = change(OperationKind::Append, vec![file("a", 1, 0, 10)]);
    let first = publish(&format, &base, &append).await;
    let wanted = with_columns(&first, vec![Field::new("tip", DataType::Int64, true)]);
    let planned = format.evolve(&first, &wanted).unwrap();
    let latest = bed.open().snapshot(&At::Latest).await.unwrap();
    assert_eq!(columns(&latest), ["id", "ts", "name"], "planning writes nothing");
    assert_eq!(
        names(&format, &planned).await,
        ["a"],
        "the planned version can be read"
    );

    let mut b = file("b", 1, 10, 5);
    let tip = bounds(ScalarValue::from(2_i64), ScalarValue::from(4_i64), 5);
    b.columns.insert("tip".into(), tip);
    let second = publish(&format, &first, &evolving(&format, &first, &wanted, vec![b])).await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    for snapshot in [&second, &opened] {
        assert_eq!(columns(snapshot), ["id", "ts", "name", "tip"]);
        assert_eq!(
            snapshot.schema, planned.schema,
            "files were written with these ids"
        );
        assert_eq!(snapshot.schema.fields()[..3], first.schema.fields()[..]);
        assert!(snapshot.schema.field(3).is_nullable());
        assert_eq!(
            snapshot.properties.get("owner").map(String::as_str),
            Some("conformance")
        );
        assert_eq!(snapshot.partition_fields().len(), 1);
    }
    let old = reader.snapshot(&At::Version(first.version)).await.unwrap();
    assert_eq!(
        columns(&old),
        ["id", "ts", "name"],
        "an old version has its own columns"
    );
    let listed = list(&reader, &opened).await;
    assert_eq!(listed[1].columns["tip"].max, Some(ScalarValue::from(4_i64)));

    // Files that lack a column are all NULL in it: nobody may say otherwise.
    assert_eq!(kept(&reader, &opened, col("tip").is_null()).await, ["a"]);
    assert_eq!(
        kept(
            &reader,
            &opened,
            col("tip").gt(lit(5_i64)).or(col("tip").is_null())
        )
        .await[0],
        "a"
    );
    assert!(
        kept(&reader, &opened, col("tip").eq(lit(3_i64)))
            .await
            .contains(&"b".to_owned())
    );
    assert!(
        !kept(&reader, &opened, col("tip").eq(lit(9_i64)))
            .await
            .contains(&"b".to_owned())
    );

    let told = reader.changes(&first, &opened).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].metadata.schema && !told[0].metadata.partitioning && !told[0].metadata.properties);
    assert_eq!(told[0].schema.as_ref(), Some(&opened.schema));
    assert_eq!(told[0].added.iter().map(name_of).collect::<Vec<_>>(), ["b"]);
    assert!(!reader.changes(&base, &first).await.unwrap()[0].metadata.schema);

    let third = publish(
        &reader,
        &opened,
        &change(OperationKind::Append, vec![file("c", 1, 20, 1)]),
    )
    .await;
    assert_eq!(columns(&third), ["id", "ts", "name", "tip"]);
    assert!(!reader.changes(&opened, &third).await.unwrap()[0].metadata.schema);
    assert_eq!(names(&bed.open(), &third).await, ["a", "b", "c"]);
}

pub(crate) async fn fields_are_added_inside_structs_lists_and_maps(bed: Bed) {
    let (format, base) = bed.created().await;
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let nested = |names: &[&str]| {
        let members = || DataType::Struct(names.iter().map(|name| number(name)).collect::<Vec<_>>().into());
        let pair = vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", members(), true),
        ];
        let entries = Field::new("key_value", DataType::Struct(pair.into()), false);
        vec![
            Field::new("s", members(), true),
            Field::new(
                "l",
                DataType::List(Arc::new(Field::new("element", members(), true))),
                true,
            ),
            Field::new("m", DataType::Map(Arc::new(entries), false), true),
        ]
    };
    let wanted = with_columns(&base, nested(&["x"]));
    let first = evolving(&format, &base, &wanted, vec![file("a", 1, 0, 1)]);
    let first = publish(&format, &base, &first).await;
    let input: Vec<_> = nested(&["y", "x"]).into_iter().map(Arc::new).collect();
    let evolved = evolve(&first.schema, &input, &|_| true).unwrap().unwrap();
    assert_eq!(evolved.added, ["s.y", "l.element.y", "m.value.y"]);
    let second = evolving(&format, &first, &evolved.schema, vec![file("b", 1, 1, 1)]);
    publish(&format, &first, &second).await;

    let opened = bed.open().snapshot(&At::Latest).await.unwrap();
    assert_eq!(evolve(&opened.schema, &input, &|_| true).unwrap(), None);
    let old = bed.open().snapshot(&At::Version(first.version)).await.unwrap();
    assert!(evolve(&old.schema, &input, &|_| true).unwrap().is_some());
    let mut ids = Vec::new();
    opened
        .schema
        .fields()
        .iter()
        .for_each(|field| ids_of(field, &mut ids));
    let distinct: BTreeSet<i32> = ids.iter().copied().collect();
    assert_eq!(ids.len(), distinct.len(), "every field has its own id: {ids:?}");
    let mut before = Vec::new();
    old.schema
        .fields()
        .iter()
        .for_each(|field| ids_of(field, &mut before));
    assert!(before.iter().all(|id| distinct.contains(id)));
}

fn ids_of(field: &Field, found: &mut Vec<i32>) {
    found.extend(crate::model::schema::field_id(field));
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().for_each(|f| ids_of(f, found)),
        DataType::List(f) | DataType::Map(f, _) => ids_of(f, found),
        _ => {}
    }
}

pub(crate) async fn a_schema_change_that_lost_leaves_no_trace(bed: Bed) {
    let (format, base) = bed.created().await;
    let tip = || Field::new("tip", DataType::Float64, true);
    let wanted = with_columns(&base, vec![tip()]);
    let mine = evolving(&format, &base, &wanted, vec![file("mine", 1, 0, 1)]);
    let theirs = evolving(&format, &base, &wanted, vec![file("theirs", 1, 1, 1)]);
    let won = publish(&bed.open(), &base, &theirs).await;
    let lost = format.publish(&base, &mine).await.unwrap();
    assert!(matches!(lost, Outcome::Lost), "{lost:?}");
    let opened = bed.open().snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.schema, won.schema);
    assert_eq!(names(&bed.open(), &opened).await, ["theirs"]);
    // Planned again there is nothing to add.
    let input = [Arc::new(tip())];
    assert_eq!(evolve(&opened.schema, &input, &|_| true).unwrap(), None);
    // A plan for another column, made before, has ids that others have now.
    let late = with_columns(&base, vec![Field::new("late", DataType::Utf8, true)]);
    let late = evolving(&format, &base, &late, vec![file("late", 1, 2, 1)]);
    match bed.open().publish(&opened, &late).await {
        Err(Error::Conflict { .. }) => {}
        Ok(Outcome::Committed(snapshot)) => {
            assert_eq!(columns(&snapshot), ["id", "ts", "name", "tip", "late"]);
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn columns_are_widened_where_the_format_can(bed: Bed) {
    let format = bed.open();
    let fields = |wide: bool| {
        let pick = |narrow: DataType, wider: DataType| if wide { wider } else { narrow };
        vec![
            Field::new("n", pick(DataType::Int32, DataType::Int64), true),
            Field::new("f", pick(DataType::Float32, DataType::Float64), true),
            Field::new(
                "d",
                pick(DataType::Decimal128(5, 2), DataType::Decimal128(12, 2)),
                true,
            ),
        ]
    };
    let definition = Definition {
        schema: Arc::new(Schema::new(fields(false))),
        partition_fields: Vec::new(),
        properties: BTreeMap::new(),
        format_version: bed.version,
    };
    let base = committed(format.create(&definition, &clock::new_commit_id()).await.unwrap());
    let named = |name: &str, n: ScalarValue| {
        let mut file = file(name, 1, 0, 2);
        file.partition = Vec::new();
        file.columns = BTreeMap::from([("n".to_owned(), bounds(n.clone(), n, 2))]);
        file
    };
    let narrow = change(
        OperationKind::Append,
        vec![named("narrow", ScalarValue::from(7_i32))],
    );
    let first = publish(&format, &base, &narrow).await;
    let input: Vec<_> = fields(true).into_iter().map(Arc::new).collect();
    let evolved = evolve(&first.schema, &input, &|_| true).unwrap().unwrap();
    assert_eq!(evolved.widened, ["n", "f", "d"]);
    if !first.capabilities.widening {
        let refused = format.evolve(&first, &evolved.schema).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        return;
    }
    let wide = vec![named("wide", ScalarValue::from(5_000_000_000_i64))];
    let second = evolving(&format, &first, &evolved.schema, wide);
    publish(&format, &first, &second).await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    let types = |snapshot: &Snapshot| -> Vec<DataType> {
        snapshot
            .schema
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect()
    };
    assert_eq!(
        types(&opened),
        fields(true)
            .iter()
            .map(|f| f.data_type().clone())
            .collect::<Vec<_>>()
    );
    let old = reader.snapshot(&At::Version(first.version)).await.unwrap();
    assert_eq!(
        types(&old),
        fields(false)
            .iter()
            .map(|f| f.data_type().clone())
            .collect::<Vec<_>>()
    );
    let listed = list(&reader, &opened).await;
    assert_eq!(listed[0].columns["n"].min, Some(ScalarValue::from(7_i64)));
    assert_eq!(kept(&reader, &opened, col("n").eq(lit(7_i64))).await, ["narrow"]);
    assert_eq!(
        kept(&reader, &opened, col("n").gt(lit(4_000_000_000_i64))).await,
        ["wide"]
    );
}

pub(crate) async fn columns_that_the_format_cannot_have_are_refused_by_name(bed: Bed) {
    let (format, base) = bed.created().await;
    let new = |name: &str, data_type: DataType| with_columns(&base, vec![Field::new(name, data_type, true)]);
    for wanted in [
        new("wait", DataType::Duration(TimeUnit::Second)),
        // The name of the field, or of the column, that the table is partitioned by.
        new("ts_day", DataType::Utf8),
    ] {
        let refused = format.evolve(&base, &wanted).unwrap_err();
        let name = wanted.fields().last().unwrap().name();
        assert!(refused.to_string().contains(name.as_str()), "{refused}");
    }
}
