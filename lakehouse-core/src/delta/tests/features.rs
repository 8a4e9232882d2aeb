//! Row ids, clustering and the change feed in log entries.

use super::*;
use crate::delta::state::State;
use crate::delta::{clustering, row_tracking};
use crate::model::{FileNotes, Redefinition};

/// Path, first row id and commit version of each file.
async fn ids(table: &Delta, snapshot: &Arc<Snapshot>) -> Vec<(String, Option<i64>, Option<i64>)> {
    let files = list(table, snapshot).await.unwrap();
    let each = |file: DataFile| (file.path, file.first_row_id, file.sequence);
    files.into_iter().map(each).collect()
}

fn id(path: &str, first: i64, version: i64) -> (String, Option<i64>, Option<i64>) {
    (path.to_owned(), Some(first), Some(version))
}

async fn mark(table: &Delta, snapshot: &Snapshot) -> Option<String> {
    let replay = &State::of(snapshot).unwrap().replay;
    let mut domains = replay
        .domains(table.store(), &[row_tracking::DOMAIN])
        .await
        .unwrap();
    domains.remove(row_tracking::DOMAIN)
}

async fn publish(table: &Delta, base: &Arc<Snapshot>, change: &Change) -> Arc<Snapshot> {
    committed(table.publish(base, change).await.unwrap())
}

/// Masks these rows of the first file.
async fn mask(table: &Delta, base: &Arc<Snapshot>, rows: &[u64]) -> Arc<Snapshot> {
    let file = list(table, base).await.unwrap().remove(0);
    let operation = clock::new_commit_id();
    let staged = vec![(file.clone(), rows.iter().copied().collect())];
    let (mut after, _) = table.stage_masks(base, staged, &operation).await.unwrap();
    let change = Change {
        masked: vec![(file, after.remove(0))],
        ..Change::new(OperationKind::Delete, operation)
    };
    publish(table, base, &change).await
}

#[tokio::test]
async fn ids_are_given_over_the_version_that_the_commit_follows_not_the_one_it_was_planned_on() {
    let table = Delta::new(memory());
    let base = create(&table, &[(row_tracking::ENABLE, "true")]).await;
    assert!(base.lineage.is_some());
    assert_eq!(mark(&table, &base).await, None);
    let mine = append(&["b", "c"]);
    let winner = publish(&table, &base, &append(&["a"])).await;
    assert!(matches!(
        table.publish(&base, &mine).await.unwrap(),
        Outcome::Lost
    ));
    let newest = publish(&table, &winner, &mine).await;
    let expected = [
        id("a.parquet", 0, 1),
        id("b.parquet", 10, 2),
        id("c.parquet", 20, 2),
    ];
    assert_eq!(ids(&table, &newest).await, expected);
    assert_eq!(
        mark(&table, &newest).await.unwrap(),
        r#"{"rowIdHighWaterMark":29}"#
    );
    let entry = log::entry(table.store(), 2).await.unwrap().unwrap();
    assert_eq!(entry.info["tags"]["delta.rowTracking.preserved"], "true");
}

#[tokio::test]
async fn a_file_keeps_its_ids_while_masks_change_through_checkpoints_and_when_it_is_restored() {
    let table = Delta::new(memory());
    let properties = [(row_tracking::ENABLE, "true"), ("delta.checkpointInterval", "2")];
    let mut newest = create(&table, &properties).await;
    newest = publish(&table, &newest, &append(&["a"])).await;
    newest = mask(&table, &newest, &[1]).await;
    newest = mask(&table, &newest, &[1, 2]).await;
    assert_eq!(ids(&table, &newest).await, [id("a.parquet", 0, 1)]);
    let remove = Change {
        removed: list(&table, &newest).await.unwrap(),
        ..Change::new(OperationKind::Delete, clock::new_commit_id())
    };
    newest = publish(&table, &newest, &remove).await;
    let entry = log::read(table.store(), 4).await.unwrap().unwrap();
    let removed = entry.iter().find_map(|action| action.remove.as_ref()).unwrap();
    assert_eq!(
        (removed.base_row_id, removed.default_row_commit_version),
        (Some(0), Some(1))
    );
    newest = publish(&table, &newest, &append(&["b"])).await;
    let restore = Change {
        restore: Some(3),
        ..Change::new(OperationKind::Restore, clock::new_commit_id())
    };
    newest = publish(&table, &newest, &restore).await;
    newest = publish(&table, &newest, &append(&["c"])).await;
    let expected = [id("a.parquet", 0, 1), id("c.parquet", 20, 7)];
    assert_eq!(ids(&table, &newest).await, expected);
    // The checkpoint of version 6 alone.
    for version in 0..=6 {
        table.store().delete(&[log::commit_key(version)]).await.unwrap();
    }
    let fresh = Delta::new(table.store().clone());
    let again = fresh.snapshot(&At::Latest).await.unwrap();
    assert_eq!(ids(&fresh, &again).await, expected);
    assert_eq!(
        mark(&fresh, &again).await.unwrap(),
        r#"{"rowIdHighWaterMark":29}"#
    );
    let last = publish(&fresh, &again, &append(&["d"])).await;
    assert_eq!(ids(&fresh, &last).await[2], id("d.parquet", 30, 8));
}

/// A table of another engine with these features and properties, and the file `a` without ids.
async fn tracked(configuration: &[(&str, &str)]) -> Delta {
    let features = ["rowTracking", "domainMetadata", "deletionVectors"];
    let mut properties = vec![("delta.enableDeletionVectors", "true")];
    properties.extend(configuration);
    let store = memory();
    let entry = [
        protocol(3, 7, &["deletionVectors"], &features),
        metadata(json!([long("id", json!({}))]), &[], &properties),
        add("a.parquet", Some(r#"{"numRecords":10}"#)),
    ];
    write_entry(&store, 0, &entry).await;
    Delta::new(store)
}

#[tokio::test]
async fn a_table_that_only_supports_row_tracking_gets_ids_and_keeps_none_for_rows() {
    let table = tracked(&[]).await;
    let base = table.snapshot(&At::Latest).await.unwrap();
    assert!(base.lineage.is_none() && base.capabilities.writable);
    let mut newest = publish(&table, &base, &append(&["b"])).await;
    let nothing = ("a.parquet".to_owned(), None, None);
    assert_eq!(ids(&table, &newest).await, [nothing, id("b.parquet", 0, 1)]);
    // The file is committed again, and has ids from then on.
    newest = mask(&table, &newest, &[4]).await;
    assert_eq!(
        ids(&table, &newest).await,
        [id("a.parquet", 10, 2), id("b.parquet", 0, 1)]
    );
    // Also where a version comes back that knew nothing of them.
    let restore = Change {
        restore: Some(1),
        ..Change::new(OperationKind::Restore, clock::new_commit_id())
    };
    newest = publish(&table, &newest, &restore).await;
    assert_eq!(
        ids(&table, &newest).await,
        [id("a.parquet", 10, 2), id("b.parquet", 0, 1)]
    );
    let entry = log::entry(table.store(), 1).await.unwrap().unwrap();
    assert!(!entry.info.contains_key("tags"));
}

#[tokio::test]
async fn a_table_whose_row_tracking_is_suspended_gets_no_ids() {
    let table = tracked(&[(row_tracking::SUSPENDED, "true")]).await;
    let base = table.snapshot(&At::Latest).await.unwrap();
    let newest = publish(&table, &base, &append(&["b"])).await;
    assert!(ids(&table, &newest).await.iter().all(|(_, id, _)| id.is_none()));
    assert_eq!(mark(&table, &newest).await, None);
}

#[tokio::test]
async fn a_change_that_begins_to_track_rows_gives_all_files_ids_and_has_none_of_its_own() {
    let table = Delta::new(memory());
    let base = create(&table, &[]).await;
    let base = publish(&table, &base, &append(&["a", "b"])).await;
    assert!(ids(&table, &base).await.iter().all(|(_, id, _)| id.is_none()));
    let on = Redefinition {
        properties: [(row_tracking::ENABLE.to_owned(), Some("true".to_owned()))].into(),
        ..Redefinition::default()
    };
    let mut both = append(&["c"]);
    both.redefine(on.clone());
    let error = table.publish(&base, &both).await.unwrap_err();
    assert!(error.to_string().contains("begins to track rows"), "{error}");
    let mut change = Change::new(OperationKind::Alter, clock::new_commit_id());
    change.redefine(on);
    let newest = publish(&table, &base, &change).await;
    let given = ids(&table, &newest).await;
    assert_eq!(given.len(), 2);
    assert!(
        given
            .iter()
            .all(|(_, id, version)| id.is_some() && *version == Some(newest.version)),
        "{given:?}"
    );
    assert!(mark(&table, &newest).await.is_some());
}

/// A table that is clustered by `region`, its second column, with statistics of no column otherwise.
async fn clustered() -> (Delta, Arc<Snapshot>) {
    let store = memory();
    let domain = r#"{"clusteringColumns":[["col-region"]],"domainName":"delta.clustering"}"#;
    let mapped = |name: &str, id: i64| {
        let metadata =
            json!({"delta.columnMapping.id": id, "delta.columnMapping.physicalName": format!("col-{name}")});
        long(name, metadata)
    };
    let mut file = add(
        "a.parquet",
        Some(r#"{"numRecords":10,"minValues":{"col-region":1}}"#),
    );
    file["add"]["tags"] = json!({"ZCUBE_ID": "x", "odd": null});
    file["add"]["clusteringProvider"] = json!("liquid");
    let features = ["clustering", "domainMetadata", "columnMapping", "deletionVectors"];
    let entry = [
        protocol(3, 7, &["columnMapping", "deletionVectors"], &features),
        metadata(
            json!([mapped("id", 1), mapped("region", 2)]),
            &[],
            &[
                ("delta.columnMapping.mode", "name"),
                ("delta.enableDeletionVectors", "true"),
                ("delta.dataSkippingNumIndexedCols", "0"),
            ],
        ),
        json!({"domainMetadata": {"domain": clustering::DOMAIN, "configuration": domain, "removed": false}}),
        file,
    ];
    write_entry(&store, 0, &entry).await;
    let table = Delta::new(store);
    let base = table.snapshot(&At::Latest).await.unwrap();
    (table, base)
}

#[tokio::test]
async fn files_of_a_clustered_table_have_statistics_of_its_columns_and_keep_what_is_noted_about_them() {
    let (table, base) = clustered().await;
    let newest = mask(&table, &base, &[3]).await;
    let notes = FileNotes {
        tags: [
            ("ZCUBE_ID".to_owned(), Some("x".to_owned())),
            ("odd".to_owned(), None),
        ]
        .into(),
        clustering: Some("liquid".to_owned()),
        sorted_by: Vec::new(),
    };
    let files = list(&table, &newest).await.unwrap();
    assert_eq!(files[0].notes.as_deref(), Some(&notes));
    assert_eq!(files[0].columns["region"].min, Some(ScalarValue::Int64(Some(1))));
    let mut change = append(&["b"]);
    for name in ["id", "region"] {
        let stats = crate::model::ColumnStats {
            nulls: Some(0),
            min: Some(ScalarValue::Int64(Some(5))),
            max: Some(ScalarValue::Int64(Some(8))),
            ..Default::default()
        };
        change.added[0].columns.insert(name.to_owned(), stats);
    }
    publish(&table, &newest, &change).await;
    let entry = log::read(table.store(), 2).await.unwrap().unwrap();
    let add = entry.iter().find_map(|action| action.add.as_ref()).unwrap();
    let stats: Value = serde_json::from_str(add.stats.as_deref().unwrap()).unwrap();
    assert_eq!(
        (&stats["minValues"], &stats["maxValues"], &stats["nullCount"]),
        (
            &json!({"col-region": 5}),
            &json!({"col-region": 8}),
            &json!({"col-region": 0})
        )
    );
    assert_eq!((&add.tags, &add.clustering_provider), (&None, &None));
}

#[tokio::test]
async fn a_column_that_a_table_is_clustered_by_can_be_renamed_and_not_dropped() {
    let (table, base) = clustered().await;
    let alter = |schema: Schema| Change {
        schema: Some(Arc::new(schema)),
        ..Change::new(OperationKind::Alter, clock::new_commit_id())
    };
    let dropped = alter(Schema::new(vec![base.schema.field(0).clone()]));
    let error = table.publish(&base, &dropped).await.unwrap_err();
    assert!(error.to_string().contains("region"), "{error}");
    let renamed = base.schema.field(1).clone().with_name("area");
    let change = alter(Schema::new(vec![base.schema.field(0).clone(), renamed]));
    let newest = publish(&table, &base, &change).await;
    assert_eq!(newest.schema.field(1).name(), "area");
    assert_eq!(
        list(&table, &newest).await.unwrap()[0].columns["area"].min,
        Some(ScalarValue::Int64(Some(1)))
    );
}

#[tokio::test]
async fn files_of_changed_rows_are_in_the_log_and_needed_and_not_part_of_the_table() {
    let table = Delta::new(memory());
    let base = create(&table, &[("delta.enableChangeDataFeed", "true")]).await;
    assert_eq!(base.capabilities.change_files, Some("_change_data/"));
    assert!(
        base.features.contains(&"changeDataFeed".to_owned()),
        "{:?}",
        base.features
    );
    let base = publish(&table, &base, &append(&["a"])).await;
    let mut change = append(&["b"]);
    change.operation = OperationKind::Update;
    change.removed = list(&table, &base).await.unwrap();
    change.change_files = vec![file("_change_data/x y", vec![])];
    let newest = publish(&table, &base, &change).await;
    assert_eq!(paths(&table, &newest).await, ["b.parquet"]);
    let entry = log::read(table.store(), 2).await.unwrap().unwrap();
    let cdc = entry.iter().find_map(|action| action.cdc.as_ref()).unwrap();
    assert_eq!(
        (cdc.path.as_str(), cdc.size, cdc.data_change),
        ("_change_data/x%20y.parquet", 100, false)
    );
    let needed = table.reachable(None).await.unwrap();
    assert!(needed.contains("_change_data/x y.parquet"), "{needed:?}");
}

#[tokio::test]
async fn the_change_feed_is_switched_on_and_off_by_its_property() {
    let table = foreign(&[]).await;
    let base = table.snapshot(&At::Latest).await.unwrap();
    let set = |value: &str| {
        let mut change = Change::new(OperationKind::Alter, clock::new_commit_id());
        change.redefine(Redefinition {
            properties: [("delta.enableChangeDataFeed".to_owned(), Some(value.to_owned()))].into(),
            ..Redefinition::default()
        });
        change
    };
    let on = publish(&table, &base, &set("true")).await;
    assert!(on.capabilities.change_files.is_some());
    let entry = log::read(table.store(), 1).await.unwrap().unwrap();
    let protocol = entry.iter().find_map(|action| action.protocol.as_ref()).unwrap();
    assert!(
        protocol.has("changeDataFeed") && protocol.has("invariants"),
        "{protocol:?}"
    );
    assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (1, 7));
    let off = publish(&table, &on, &set("false")).await;
    assert!(off.capabilities.change_files.is_none() && off.capabilities.writable);
}
