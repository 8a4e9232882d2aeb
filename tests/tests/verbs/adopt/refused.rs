//! What cannot be adopted is refused by file and column before anything is written.

use super::*;

async fn refused(store: &Store, format: Format, messages: &[&str]) {
    let error = refusal(store, format, &adoption(format)).await;
    let text = error.to_string();
    for message in messages {
        assert!(text.contains(message), "{format:?}: {text}\nlacks: {message}");
    }
    assert!(
        error.hint().is_some_and(|hint| !hint.is_empty()),
        "{text}: no hint"
    );
}

#[tokio::test]
async fn columns_that_contradict_each_other_name_the_column_and_the_file() {
    for format in FORMATS {
        let store = memory("contradict");
        put(&store, "a.parquet", "SELECT 1 AS id, named_struct('x', 1) AS s").await;
        put(
            &store,
            "b.parquet",
            "SELECT 2 AS id, named_struct('x', 'text') AS s",
        )
        .await;
        refused(
            &store,
            format,
            &["column s.x is Utf8 here and Int64", "b.parquet"],
        )
        .await;
    }
}

#[tokio::test]
async fn types_that_would_have_to_be_converted_are_refused() {
    for (sql, column, by) in [
        ("arrow_cast(1, 'UInt32')", "u", 3),
        ("arrow_cast(1, 'UInt8')", "u", 3),
        ("arrow_cast(1, 'UInt64')", "u", 3),
        ("arrow_cast(1, 'Timestamp(Millisecond, None)')", "t", 3),
        ("arrow_cast('12:00:00', 'Time32(Millisecond)')", "t", 3),
        // Iceberg has times, and version 3 nanoseconds.
        ("arrow_cast('12:00:00', 'Time64(Microsecond)')", "t", 1),
        ("arrow_cast(1, 'Timestamp(Nanosecond, None)')", "t", 2),
        ("arrow_cast(1.5, 'Float16')", "f", 3),
    ] {
        let mut count = 0;
        for format in FORMATS {
            let store = memory("convert");
            put(&store, "good.parquet", "SELECT 1 AS id").await;
            put(
                &store,
                "part/x.parquet",
                &format!("SELECT 1 AS id, {sql} AS {column}"),
            )
            .await;
            match Table::adopt_in(store.clone(), format.0, &adoption(format), true).await {
                Ok(_) => {
                    adopt(&store, format).await;
                }
                Err(_) => {
                    count += 1;
                    refused(&store, format, &[&format!("column {column}"), "part/x.parquet"]).await;
                }
            }
        }
        assert_eq!(count, by, "{sql}");
    }
}

#[tokio::test]
async fn damaged_files_and_files_of_another_kind_are_named() {
    for format in FORMATS {
        let store = memory("damaged");
        put(&store, "good.parquet", "SELECT 1 AS id").await;
        let bytes = store.get("good.parquet").await.unwrap();
        let cut = bytes.slice(..bytes.len() - 20);
        store.put("x/cut.parquet", cut).await.unwrap();
        refused(&store, format, &["x/cut.parquet", "not a Parquet file"]).await;
        let mut encrypted = bytes.to_vec();
        let end = encrypted.len();
        encrypted[end - 1] = b'E';
        store.put("x/cut.parquet", encrypted.into()).await.unwrap();
        refused(&store, format, &["x/cut.parquet", "encrypted"]).await;
        store.put("x/cut.parquet", Vec::new().into()).await.unwrap();
        let error = refusal(&store, format, &adoption(format)).await.to_string();
        assert!(error.contains("x/cut.parquet"), "{error}");
        store.delete(&["x/cut.parquet".to_owned()]).await.unwrap();
        store.put("x/rows.csv", "id\n1\n".into()).await.unwrap();
        refused(&store, format, &["x/rows.csv", "not Parquet"]).await;
    }
}

#[tokio::test]
async fn folders_must_name_the_same_columns_everywhere() {
    for format in FORMATS {
        for other in ["b=1/a=1/y.parquet", "a=1/y.parquet", "y.parquet"] {
            let store = memory("levels");
            put(&store, "a=1/b=1/x.parquet", "SELECT 1 AS id").await;
            put(&store, other, "SELECT 1 AS id").await;
            refused(&store, format, &["name", "the folders of this file", "parquet"]).await;
        }
    }
}

#[tokio::test]
async fn a_folder_without_files_and_reserved_names_are_refused() {
    for format in FORMATS {
        let store = memory("nothing");
        store.put("_SUCCESS", Vec::new().into()).await.unwrap();
        refused(&store, format, &["a Parquet file not found"]).await;
        let store = memory("reserved");
        put(&store, "x.parquet", "SELECT 1 AS id, 2 AS _row_id").await;
        refused(&store, format, &["column _row_id", "x.parquet"]).await;
    }
}
