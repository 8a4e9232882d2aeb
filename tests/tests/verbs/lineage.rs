//! Row lineage of Iceberg v3: a row keeps its id for life, and its sequence number until it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use lakehouse_core::model::At;
use lakehouse_core::scan::{MetadataColumns, SnapshotTable};
use lakehouse_core::{Compact, Merge, Options, Table, TableFormat};

use super::{append, lines, rows, table};

/// `_row_id` and `_last_updated_sequence_number` by id.
pub(crate) async fn lineage(table: &Table) -> BTreeMap<String, (i64, i64)> {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let columns = MetadataColumns {
        lineage: true,
        ..MetadataColumns::default()
    };
    let provider = SnapshotTable::new(table.handle().clone(), snapshot).with_metadata_columns(columns);
    let ctx = SessionContext::new();
    ctx.register_table("t", Arc::new(provider)).unwrap();
    let sql = "SELECT id, _row_id, _last_updated_sequence_number FROM t";
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let mut found = BTreeMap::new();
    for line in lines(&batches) {
        let cells: Vec<&str> = line.split('|').collect();
        let number = |at: usize| cells[at].parse().unwrap_or_else(|_| panic!("no lineage: {line}"));
        found.insert(cells[0].to_owned(), (number(1), number(2)));
    }
    found
}

async fn ids_stay_for_life(properties: &[(&str, &str)]) {
    let table = if properties.is_empty() {
        table((TableFormat::Iceberg, Some(3)), "region").await
    } else {
        let definition = lakehouse_core::model::Definition {
            schema: super::schema(),
            partition_fields: Vec::new(),
            properties: properties
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            format_version: Some(3),
        };
        let store = crate::support::memory("lineage");
        Table::create_in(store, TableFormat::Iceberg, &definition)
            .await
            .unwrap()
    };
    let options = Options::default();
    append(&table, "(1, 'eu', 1), (2, 'eu', 2), (3, 'us', 3)").await;
    append(&table, "(4, 'eu', 4), (5, 'us', 5)").await;
    let first = lineage(&table).await;
    let ids: std::collections::BTreeSet<i64> = first.values().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 5, "ids are unique: {first:?}");

    let upsert = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let source = rows("id, region, n", "(2, 'us', 20), (6, 'eu', 60)").await;
    table.merge(source, &upsert, &options).await.unwrap();
    let second = lineage(&table).await;
    for id in ["1", "3", "4", "5"] {
        assert_eq!(second[id], first[id], "row {id} was not touched");
    }
    assert_eq!(second["2"].0, first["2"].0, "an updated row keeps its id");
    assert!(second["2"].1 > first["2"].1, "and says when it changed");
    assert!(
        first.values().all(|(id, _)| *id != second["6"].0),
        "a new row has a new id"
    );

    table.update("n = 0", Some("id = 4"), &options).await.unwrap();
    table.delete("id = 1", &options).await.unwrap();
    let third = lineage(&table).await;
    assert_eq!(third["4"].0, first["4"].0);
    assert!(third["4"].1 > second["4"].1);
    assert!(!third.contains_key("1"));

    let report = table.compact(&Compact::default(), &options).await.unwrap();
    assert!(report.committed);
    assert_eq!(lineage(&table).await, third, "moving rows changes neither");
    append(&table, "(7, 'eu', 7)").await;
    let last = lineage(&table).await;
    let ids: std::collections::BTreeSet<i64> = last.values().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), last.len(), "ids stay unique: {last:?}");
}

#[tokio::test]
async fn ids_stay_for_life_when_rows_are_masked() {
    ids_stay_for_life(&[]).await;
}

#[tokio::test]
async fn ids_stay_for_life_when_files_are_rewritten() {
    ids_stay_for_life(&[
        ("write.merge.mode", "copy-on-write"),
        ("write.update.mode", "copy-on-write"),
        ("write.delete.mode", "copy-on-write"),
    ])
    .await;
}
