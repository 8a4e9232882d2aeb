//! Overwrite, case by case.

use lakehouse_core::Options;
use lakehouse_core::model::At;

use super::{FORMATS, append, content, rows, table};

#[tokio::test]
async fn overwriting_a_part_leaves_the_rest_and_can_be_repeated() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2), (3, NULL, 3)").await;
        for _ in 0..2 {
            let new = rows("id, region, n", "(7, 'us', 7), (8, 'us', 8)").await;
            table
                .overwrite(new, Some("region = 'us'"), &Options::default())
                .await
                .unwrap();
            assert_eq!(content(&table).await, ["1|eu|1", "3||3", "7|us|7", "8|us|8"]);
        }
    }
}

#[tokio::test]
async fn a_new_row_outside_of_what_is_replaced_is_named() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        let before = table.handle().store.list("").await.unwrap().len();
        let new = rows("id, region, n", "(7, 'us', 7), (8, 'eu', 8)").await;
        let error = table
            .overwrite(new, Some("region = 'us'"), &Options::default())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("row 2") && text.contains("id = 8") && text.contains("region = 'us'"),
            "{text}"
        );
        assert_eq!(content(&table).await, ["1|eu|1", "2|us|2"]);
        assert_eq!(
            table.handle().store.list("").await.unwrap().len(),
            before,
            "staged files left behind"
        );
    }
}

#[tokio::test]
async fn overwriting_everything_by_nothing_empties_the_table_once() {
    for format in FORMATS {
        let table = table(format, "region").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        let none = || async { lakehouse_core::Rows::batches(super::schema(), Vec::new()) };
        let first = table
            .overwrite(none().await, None, &Options::default())
            .await
            .unwrap();
        assert!(first.committed);
        assert_eq!(content(&table).await, Vec::<String>::new());
        assert!(table.files(&At::Latest).await.unwrap().is_empty());
        let second = table
            .overwrite(none().await, None, &Options::default())
            .await
            .unwrap();
        assert!(!second.committed);
        table
            .restore(&At::Version(-1), &Options::default())
            .await
            .unwrap();
        assert_eq!(content(&table).await, ["1|eu|1", "2|us|2"]);
    }
}
