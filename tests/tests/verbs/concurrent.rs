//! Several writers at once: nothing acknowledged is lost, nothing is done twice.

use lakehouse_core::model::At;
use lakehouse_core::store::{Created, Store};
use lakehouse_core::{Compact, Merge, Options};

use super::{FORMATS, append, content, rows, table};

const WRITERS: i64 = 4;
const ROUNDS: i64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_that_many_writers_increment_miss_nothing() {
    for format in FORMATS {
        let table = table(format, "bucket(2, id)").await;
        append(&table, "(1, 'eu', 0), (2, 'eu', 0), (3, 'eu', 0)").await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let table = table.clone();
                tokio::spawn(async move {
                    let options = Options::default();
                    for round in 0..ROUNDS {
                        table.update("n = n + 1", Some("id = 1"), &options).await.unwrap();
                        let add = Merge::on("id")
                            .when_matched_update("n = target.n + source.n")
                            .when_not_matched_insert_all();
                        let fresh = 100 + writer * ROUNDS + round;
                        let source = rows("id, n", &format!("(2, 1), ({fresh}, 0)")).await;
                        table.merge(source, &add, &options).await.unwrap();
                        if round == 1 {
                            table.compact(&Compact::default(), &options).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let expected = WRITERS * ROUNDS;
        let content = content(&table).await;
        assert!(
            content.contains(&format!("1|eu|{expected}")),
            "{format:?}: {content:?}"
        );
        assert!(
            content.contains(&format!("2|eu|{expected}")),
            "{format:?}: {content:?}"
        );
        assert_eq!(content.len() as i64, 3 + expected, "{format:?}: {content:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn merges_that_race_to_insert_one_key_insert_it_once() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(0, 'eu', 0)").await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let table = table.clone();
                tokio::spawn(async move {
                    let insert = Merge::on("id").when_not_matched_insert_all();
                    // The level that ignores rows which others add does not ignore these.
                    let options = Options {
                        isolation: lakehouse_core::commit::Isolation::Snapshot,
                        ..Options::default()
                    };
                    let source = rows("id, n", &format!("(7, {writer}), ({}, 0)", 100 + writer)).await;
                    table.merge(source, &insert, &options).await.unwrap()
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let content = content(&table).await;
        assert_eq!(
            content.iter().filter(|row| row.starts_with("7|")).count(),
            1,
            "{content:?}"
        );
        assert_eq!(content.len() as i64, 2 + WRITERS);
        let files = table.files(&At::Latest).await.unwrap();
        assert!(files.len() as i64 <= 1 + WRITERS);
    }
}

#[tokio::test]
async fn a_name_on_local_disk_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("t");
    let [first, second] = [(); 2].map(|()| Store::open(place.to_str().unwrap()).unwrap());
    let taken = first.create("log/1", "first".into()).await.unwrap();
    assert!(matches!(taken, Created::Yes), "{taken:?}");
    let again = second.create("log/1", "second".into()).await.unwrap();
    assert!(
        matches!(again, Created::Exists),
        "a taken name was given away: {again:?}"
    );
    assert_eq!(
        first.get("log/1").await.unwrap(),
        "first",
        "what was acknowledged is gone"
    );
}
