//! The change data feed of an operation that other commits came before.

use std::collections::BTreeSet;

use lakehouse_core::operations::Strategy;
use lakehouse_core::{Options, Table, TableFormat};

use super::{hooked, merge, orphans};
use crate::verbs::change_feed::{feed, replays};
use crate::verbs::lineage::lineage;
use crate::verbs::{append, compact_all, content, delete, table_made};

async fn prepare() -> (Table, Table, hooked::Hooked) {
    let (store, hooked) = hooked::store();
    let properties = [
        ("delta.enableChangeDataFeed", "true"),
        ("delta.enableRowTracking", "true"),
    ];
    let table = table_made(store.clone(), (TableFormat::Delta, None), "", &properties).await;
    for file in [0..50, 50..100] {
        let values: Vec<String> = file.map(|id| format!("({id}, 'eu', {id})")).collect();
        append(&table, &values.join(", ")).await;
    }
    let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
    (table, winner, hooked)
}

#[tokio::test]
async fn a_change_that_is_fitted_to_a_winner_tells_the_same_rows() {
    let (table, winner, hooked) = prepare().await;
    hooked.before_commit(async move {
        delete(&winner, "id in (5, 60)").await;
    });
    let report = merge(&table, "(7, 'us', 70), (61, 'us', 610), (200, 'us', 1)").await;
    assert_eq!((report.attempts, report.plans), (2, 1));
    let mine = [
        "insert|200|us|1",
        "update_postimage|61|us|610",
        "update_postimage|7|us|70",
        "update_preimage|61|eu|61",
        "update_preimage|7|eu|7",
    ];
    assert_eq!(feed(&table, report.version).await, mine);
    replays(&table, 0).await;
    assert!(orphans(&table).await.is_empty());
}

#[tokio::test]
async fn a_change_that_is_planned_again_tells_the_rows_that_it_changed_in_the_end() {
    let (table, winner, hooked) = prepare().await;
    hooked.before_commit(async move {
        let set = "n = n + 1000";
        winner
            .update(set, Some("id = 7"), &Options::default())
            .await
            .unwrap();
    });
    let options = Options {
        strategy: Strategy::CopyOnWrite,
        ..Options::default()
    };
    let report = table.update("n = n + 1", Some("id = 7"), &options).await.unwrap();
    assert_eq!(report.plans, 2);
    assert_eq!(
        feed(&table, report.version).await,
        ["update_postimage|7|eu|1008", "update_preimage|7|eu|1007"]
    );
    replays(&table, 0).await;
    assert!(orphans(&table).await.is_empty());
}

#[tokio::test]
async fn rows_that_a_compaction_moved_meanwhile_are_told_once() {
    let (table, winner, hooked) = prepare().await;
    hooked.before_commit(async move {
        let report = compact_all(&winner).await;
        assert!(report.committed);
    });
    let report = table
        .update("n = -1", Some("id in (3, 80)"), &Options::default())
        .await
        .unwrap();
    assert_eq!(feed(&table, report.version).await.len(), 4);
    replays(&table, 0).await;
    assert!(orphans(&table).await.is_empty());
    assert_eq!(content(&table).await.len(), 100);
}

#[tokio::test]
async fn rows_of_commits_to_delta_that_raced_have_ids_of_their_own() {
    let (table, winner, hooked) = prepare().await;
    hooked.before_commit(async move {
        append(&winner, "(200, 'eu', 1), (201, 'eu', 1), (202, 'eu', 1)").await;
    });
    append(&table, "(300, 'eu', 1), (301, 'eu', 1)").await;
    let found = lineage(&table).await;
    let ids: BTreeSet<i64> = found.values().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 105, "row ids were given twice: {found:?}");
}

#[tokio::test]
async fn a_change_that_was_planned_before_the_feed_was_switched_on_is_planned_again() {
    let (table, winner, hooked) = prepare().await;
    let off = |value: &'static str| {
        lakehouse_core::Alter::default().property("delta.enableChangeDataFeed", Some(value))
    };
    let options = Options::default();
    table.alter(&off("false"), &options).await.unwrap();
    hooked.before_commit(async move {
        winner.alter(&off("true"), &Options::default()).await.unwrap();
    });
    let report = table.update("n = -1", Some("id = 3"), &options).await.unwrap();
    assert_eq!(report.plans, 2);
    assert_eq!(
        feed(&table, report.version).await,
        ["update_postimage|3|eu|-1", "update_preimage|3|eu|3"]
    );
}
