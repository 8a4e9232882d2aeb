//! A vacuum over HTTP: the server's clock, pages of listings, requests that delete many objects.

use std::time::Duration;

use lakehouse_core::Vacuum;
use lakehouse_core::model::At;
use lakehouse_tests::s3::Wire;

use super::{every, servers, store};
use crate::verbs::{append, compact_all, content, delete, table_in};

/// More than a page of a listing has, and than one request deletes.
const ORPHANS: usize = 1_010;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_over_http_removes_what_nobody_needs_and_nothing_else() {
    for (server, (at, format)) in every(servers().await) {
        let table = table_in(store(&server, &format!("some folder/v{at}")), format, "region").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2), (5, 'é/ü %', 5)").await;
        append(&table, "(3, 'eu', 3), (4, 'é/ü %', 4)").await;
        delete(&table, "id = 3").await;
        let version = table.snapshot(&At::Latest).await.unwrap().version;
        compact_all(&table).await;
        let rows = content(&table).await;
        let handle = table.handle();
        let number = if at == 0 { ORPHANS } else { 3 };
        for orphan in 0..number {
            let key = format!("data/region=é%2F{orphan}/orphan.parquet");
            handle.store.put(&key, "x".into()).await.unwrap();
        }
        // Servers date objects by the second.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let young = table.vacuum(&Vacuum::default()).await.unwrap();
        assert_eq!(young.total().count, 0, "{young:?}");
        assert!(young.young.count >= number as u64, "{young:?}");
        let all = Vacuum {
            older_than_ms: Some(1_000),
            unsafe_no_writers: true,
            keep_versions: vec![version],
            ..Vacuum::default()
        };
        server.fault("GET", "", 1, Wire::CutBefore);
        let report = table.vacuum(&all).await.unwrap();
        server.heal();
        assert!(report.total().count >= number as u64, "{report:?}");
        assert_eq!(content(&table).await, rows, "{format:?}");
        table.provider(&At::Version(version)).await.unwrap();
        let needed = handle.format.reachable(None).await.unwrap();
        for file in table.files(&At::Version(version)).await.unwrap() {
            assert!(
                handle.store.head(&file.path).await.unwrap().is_some(),
                "{}",
                file.path
            );
        }
        let there = handle.store.list("").await.unwrap();
        let left = there
            .iter()
            .filter(|object| !needed.contains(&object.path))
            .count();
        assert_eq!(left, 0, "{format:?}: {there:?}");
        if server.url("").starts_with("gs://") {
            // Google's copies are not what this server understands.
            continue;
        }
        let away = Vacuum {
            quarantine: Some(".quarantine".to_owned()),
            ..all
        };
        handle
            .store
            .put("data/a b+é%.parquet", "moved".into())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(table.vacuum(&away).await.unwrap().total().count, 1);
        let moved = handle.store.get(".quarantine/data/a b+é%.parquet").await.unwrap();
        assert_eq!(&moved[..], b"moved");
    }
}
