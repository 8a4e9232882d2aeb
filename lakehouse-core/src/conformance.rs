//! What every format must do, as one suite of tests: each format runs it over each store.
//!
//! Data files are made up (no format reads them), so the suite sees nothing but the door.

mod columns;
mod expire;
mod files;
mod refs;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;

use crate::error::Error;
use crate::format::{Format, Outcome};
use crate::model::{
    At, BucketHash, Change, ColumnStats, DataFile, Definition, OperationKind, PartitionField, Prune,
    Redefinition, RowMask, Snapshot, Token, Transform, evolve, made_up,
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
                    a_stream_is_known_by_its_last_step,
                    listing_skips_files_by_partition_and_by_statistics,
                    masks_are_read_back_and_replaced,
                    a_masked_file_can_be_removed,
                    old_versions_are_found_by_number_distance_and_time,
                    changes_tell_what_each_winner_did,
                    restore_brings_an_old_version_back,
                    history_is_newest_first,
                    everything_written_is_reachable_and_nothing_else,
                    racing_publishers_each_land_exactly_once,
                    a_change_that_is_too_old_is_not_published,
                    many_commits_stay_readable,
                    values_of_every_partition_type_survive,
                    columns_come_with_the_rows_of_one_commit,
                    fields_are_added_inside_structs_lists_and_maps,
                    a_schema_change_that_lost_leaves_no_trace,
                    columns_are_widened_where_the_format_can,
                    columns_are_widened_where_the_owner_allows_it,
                    columns_that_the_format_cannot_have_are_refused_by_name,
                    versions_expire_and_the_kept_ones_read_on,
                    tags_and_branches_are_made_kept_and_dropped,
                    a_branch_moves_alone,
                    a_branch_has_the_columns_of_today_and_a_tag_those_of_its_time,
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
                    let name = crate::store::clock::new_name();
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

pub(crate) use columns::*;
pub(crate) use expire::*;
pub(crate) use files::*;
pub(crate) use refs::*;
pub(crate) use versions::*;
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
        split_offsets: vec![4],
        ..made_up::data_file(path, 1000 + rows, rows)
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
