//! Tables with more commits than a checkpoint waits for, looked at afresh each time.

use lakehouse_core::{Options, Table};

use super::{FORMATS, append, content, rows, table_in};
use crate::support::memory;

const COMMITS: usize = 24;

#[tokio::test]
async fn rows_and_keys_of_long_ago_are_still_there() {
    for format in FORMATS {
        let store = memory("long");
        table_in(store.clone(), format, "").await;
        let load = async |at: usize| {
            let table = Table::open_in(store.clone()).await.unwrap();
            let options = Options {
                token: Some(format!("load {at}").into()),
                ..Options::default()
            };
            let input = rows("id, region, n", &format!("({at}, 'eu', {at})")).await;
            table.append(input, &options).await.unwrap()
        };
        for at in 0..COMMITS {
            assert!(load(at).await.committed, "{format:?} {at}");
        }
        for at in 0..COMMITS {
            let again = load(at).await;
            assert!(
                again.already.is_some(),
                "{format:?}: the key of commit {at} was forgotten"
            );
        }
        let table = Table::open_in(store.clone()).await.unwrap();
        assert_eq!(
            content(&table).await.len(),
            COMMITS,
            "{format:?}: rows of long ago are gone"
        );
    }
}

#[tokio::test]
async fn rows_that_go_one_by_one_stay_away() {
    for format in FORMATS {
        let table = table_in(memory("one-by-one"), format, "").await;
        let values: Vec<String> = (0..60).map(|id| format!("({id}, 'eu', {id})")).collect();
        append(&table, &values.join(", ")).await;
        for at in 0..12 {
            let condition = format!("id = {}", 5 * at);
            let report = table.delete(&condition, &Options::default()).await.unwrap();
            assert_eq!(report.metric("num_target_files_masked"), 1, "{format:?} {at}");
            let there = content(&table).await;
            assert_eq!(
                there.len(),
                59 - at,
                "{format:?}: deleted rows are back: {there:?}"
            );
        }
    }
}
