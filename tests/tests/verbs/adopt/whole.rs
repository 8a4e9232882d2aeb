//! Adopted tables answer, and change, as tables into which the same rows were appended.

use lakehouse_core::operations::{Alter, Strategy};
use lakehouse_core::{Compact, Merge};

use super::*;

const MONTH: &str = "SELECT value AS id, CASE WHEN value % 7 = 0 THEN NULL ELSE 'n' || value END AS name, \
                     arrow_cast(value / 4.0, 'Float64') AS x";

/// Two files side by side, the second with a column more.
async fn plain() -> Store {
    let store = memory("plain");
    put(
        &store,
        "a.parquet",
        &format!("{MONTH} FROM generate_series(1, 50)"),
    )
    .await;
    put(
        &store,
        "more/b.parquet",
        &format!("{MONTH}, value % 3 = 0 AS flag FROM generate_series(51, 90)"),
    )
    .await;
    store.put("_SUCCESS", Vec::new().into()).await.unwrap();
    store.put(".a.parquet.crc", "x".into()).await.unwrap();
    store
}

/// A folder for each year and region, among them NULL, an escaped slash and a space.
async fn by_folder() -> Store {
    let store = memory("folders");
    let mut from = 0;
    for year in ["2023", "2024"] {
        for region in ["eu", "a%2Fb%20c", "__HIVE_DEFAULT_PARTITION__"] {
            let path = format!("year={year}/region={region}/part-0.parquet");
            put(
                &store,
                &path,
                &format!("{MONTH} FROM generate_series({from}, {})", from + 9),
            )
            .await;
            from += 10;
        }
    }
    store
}

#[tokio::test]
async fn a_plain_folder_becomes_a_table_and_its_files_stay_where_they_are() {
    for format in FORMATS {
        let store = plain().await;
        let before = store.list("").await.unwrap();
        let (table, adopted) = adopt(&store, format).await;
        assert_eq!(
            (adopted.files, adopted.rows, adopted.skipped),
            (2, 90, 2),
            "{format:?}"
        );
        let bytes: u64 = before
            .iter()
            .filter(|o| o.path.ends_with(".parquet"))
            .map(|o| o.bytes)
            .sum();
        assert_eq!(adopted.bytes, bytes);
        let version = table.snapshot(&At::Latest).await.unwrap().version;
        assert_eq!(adopted.version, Some(version));
        assert_eq!(table.history(None).await.unwrap().len(), 1, "one commit");
        assert_eq!(
            ask(
                &table,
                "SELECT count(*), sum(id), count(name), count(flag), min(x), max(x) FROM t"
            )
            .await,
            ["90|4095|78|40|0.25|22.5"]
        );
        assert_eq!(
            ask(&table, "SELECT id FROM t WHERE flag AND id > 80").await,
            ["81", "84", "87", "90"]
        );
        let after = store.list("").await.unwrap();
        assert!(
            before.iter().all(|object| after.contains(object)),
            "no file was touched"
        );
        let files = table.files(&At::Latest).await.unwrap();
        let mut paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["a.parquet", "more/b.parquet"]);
        // Statistics came from the footers.
        let last = files.iter().find(|file| file.path == "more/b.parquet").unwrap();
        let bound = |value: i64| Some(datafusion::scalar::ScalarValue::Int64(Some(value)));
        let ids = &last.columns["id"];
        assert_eq!(
            (&ids.min, &ids.max, ids.nulls),
            (&bound(51), &bound(90), Some(0)),
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn folders_are_partition_columns_whatever_is_asked_of_them() {
    for format in FORMATS {
        let (table, adopted) = adopt(&by_folder().await, format).await;
        let columns = types(&adopted.schema);
        assert_eq!(columns[3], ("year", &DataType::Int64, true), "{format:?}");
        assert_eq!(columns[4], ("region", &DataType::Utf8, true));
        for (condition, count) in [
            ("year = 2024", 30),
            ("year < 2024", 30),
            ("year % 2 = 0", 30),
            ("year + id > 2080", 3),
            ("region = 'a/b c'", 20),
            ("region IS NULL", 20),
            ("region IS NOT NULL AND year = 2023", 20),
            ("region || year = 'eu2023'", 10),
            ("coalesce(region, 'none') = 'none' AND id >= 50", 10),
            ("region = 'eu' AND id = 35", 1),
            ("region IN ('eu', 'us') AND name IS NULL", 3),
            ("year = 1999", 0),
        ] {
            let found = ask(&table, &format!("SELECT count(*) FROM t WHERE {condition}")).await;
            assert_eq!(found, [count.to_string()], "{format:?}: {condition}");
            let found = ask(&table, &format!("SELECT id FROM t WHERE {condition}")).await;
            assert_eq!(found.len(), count, "{format:?}: {condition}");
        }
        assert_eq!(
            ask(
                &table,
                "SELECT region, year, min(id), count(*) FROM t GROUP BY region, year"
            )
            .await,
            [
                "a/b c|2023|10|10",
                "a/b c|2024|40|10",
                "eu|2023|0|10",
                "eu|2024|30|10",
                "|2023|20|10",
                "|2024|50|10"
            ]
        );
        assert_eq!(
            ask(&table, "SELECT min(year), max(year), max(region) FROM t").await,
            ["2023|2024|eu"]
        );
    }
}

#[tokio::test]
async fn verbs_do_to_adopted_files_what_they_do_to_their_own() {
    for format in FORMATS {
        for strategy in [Strategy::Auto, Strategy::MergeOnRead, Strategy::CopyOnWrite] {
            for folders in [false, true] {
                let what = format!("{format:?} {strategy:?} folders {folders}");
                let store = if folders { by_folder().await } else { plain().await };
                let (table, _) = adopt(&store, format).await;
                let other = appended(&table, format).await;
                let originals: Vec<String> = table
                    .files(&At::Latest)
                    .await
                    .unwrap()
                    .into_iter()
                    .map(|f| f.path)
                    .collect();
                let extra = if folders {
                    ", 2024 AS year, 'eu' AS region"
                } else {
                    ", true AS flag"
                };
                let feed = query(&format!(
                    "{MONTH}{extra} FROM generate_series(1, 400) WHERE value % 11 = 0 OR value > 380"
                ))
                .await;
                let options = Options {
                    strategy,
                    ..Options::default()
                };
                for table in [&table, &other] {
                    table.delete("id % 5 = 1 AND id < 40", &options).await.unwrap();
                    if folders {
                        table
                            .delete("region IS NULL AND year = 2023", &options)
                            .await
                            .unwrap();
                        table
                            .update("x = x + year", Some("region = 'a/b c' AND id % 2 = 0"), &options)
                            .await
                            .unwrap();
                        table
                            .update("region = 'moved'", Some("id = 33"), &options)
                            .await
                            .unwrap();
                    } else {
                        table
                            .update("name = 'new', flag = false", Some("id % 9 = 2"), &options)
                            .await
                            .unwrap();
                    }
                    let rows = Rows::batches(Arc::clone(&feed.0), feed.1.clone());
                    let merge = Merge::on("id")
                        .when_matched_update_all()
                        .when_not_matched_insert_all();
                    table.merge(rows, &merge, &options).await.unwrap();
                }
                same(&table, &other, &what).await;
                row_ids_are_unique(&table, &what).await;
                for table in [&table, &other] {
                    table
                        .compact(&Compact::default(), &Options::default())
                        .await
                        .unwrap();
                }
                same(&table, &other, &format!("{what}, compacted")).await;
                row_ids_are_unique(&table, &what).await;
                // Old versions are still read from the user's files.
                for path in originals {
                    assert!(
                        store.head(&path).await.unwrap().is_some(),
                        "{what}: {path} is gone"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_rewritten_file_has_the_column_that_its_folder_named() {
    for format in FORMATS {
        let store = by_folder().await;
        let (table, _) = adopt(&store, format).await;
        let options = Options {
            strategy: Strategy::CopyOnWrite,
            ..Options::default()
        };
        table.delete("id = 3", &options).await.unwrap();
        let files = table.files(&At::Latest).await.unwrap();
        let new: Vec<_> = files
            .iter()
            .filter(|file| !file.path.contains("part-0"))
            .collect();
        assert_eq!(new.len(), 1, "{format:?}");
        let footer = scan::read_footer(&store, &new[0].path, new[0].bytes)
            .await
            .unwrap();
        let columns = footer.file_metadata().schema_descr().columns().len();
        // Delta keeps the values of partition columns in the log; version 3 of Iceberg adds two for row lineage.
        let stored = match format {
            (TableFormat::Delta, _) => 3,
            (_, Some(3)) => 7,
            _ => 5,
        };
        assert_eq!(columns, stored, "{format:?}");
        assert_eq!(
            ask(
                &table,
                "SELECT count(*), min(year), max(region) FROM t WHERE id < 10"
            )
            .await,
            ["9|2023|eu"]
        );
    }
}

#[tokio::test]
async fn row_groups_of_adopted_files_are_copied_only_where_they_are_as_the_writers_own() {
    for format in FORMATS {
        let store = memory("groups");
        let (schema, batches) = query(&format!("{MONTH} FROM generate_series(1, 1000)")).await;
        store
            .put("part.parquet", parquet(&schema, &batches, 50).into())
            .await
            .unwrap();
        let mut adoption = adoption(format);
        adoption
            .properties
            .insert("write.parquet.row-group-limit".into(), "50".into());
        let (table, _) = Table::adopt_in(store, format.0, &adoption, false).await.unwrap();
        let other = appended(&table, format).await;
        let options = Options {
            strategy: Strategy::CopyOnWrite,
            ..Options::default()
        };
        for table in [&table, &other] {
            table.delete("id BETWEEN 120 AND 240", &options).await.unwrap();
            table
                .update("name = name || '!'", Some("id > 900"), &options)
                .await
                .unwrap();
        }
        same(&table, &other, &format!("{format:?}")).await;
        row_ids_are_unique(&table, &format!("{format:?}")).await;
    }
}

#[tokio::test]
async fn columns_of_adopted_files_keep_their_values_under_new_names_and_their_old_names_are_free() {
    for format in FORMATS {
        let (table, _) = adopt(&by_folder().await, format).await;
        let sum = ask(
            &table,
            "SELECT sum(id), count(name), sum(x) FROM t WHERE region = 'eu'",
        )
        .await;
        let alter = Alter::default()
            .rename_column("name".parse().unwrap(), "label")
            .rename_column("x".parse().unwrap(), "price")
            .rename_column("region".parse().unwrap(), "area");
        table.alter(&alter, &Options::default()).await.unwrap();
        let again = ask(
            &table,
            "SELECT sum(id), count(label), sum(price) FROM t WHERE area = 'eu'",
        )
        .await;
        assert_eq!(again, sum, "{format:?}");
        let alter = Alter::default().drop_column("price".parse().unwrap());
        let alter = alter
            .add_column("name text")
            .unwrap()
            .add_column("x double")
            .unwrap();
        table.alter(&alter, &Options::default()).await.unwrap();
        assert_eq!(
            ask(&table, "SELECT count(label) > 0, count(name), count(x) FROM t").await,
            ["true|0|0"],
            "{format:?}"
        );
        table
            .update("x = id", Some("id < 3"), &Options::default())
            .await
            .unwrap();
        table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(
            ask(&table, "SELECT count(label) > 0, count(name), sum(x) FROM t").await,
            ["true|0|3.0"]
        );
    }
}

#[tokio::test]
async fn files_of_a_delta_table_that_tracks_rows_have_ids_from_its_first_version_on() {
    let store = memory("adopt-tracked");
    put(
        &store,
        "a.parquet",
        "SELECT value AS id FROM generate_series(1, 40)",
    )
    .await;
    put(
        &store,
        "b.parquet",
        "SELECT value AS id FROM generate_series(41, 50)",
    )
    .await;
    let tracked = Adoption {
        properties: [("delta.enableRowTracking".to_owned(), "true".to_owned())].into(),
        ..Adoption::default()
    };
    let (table, _) = Table::adopt_in(store, TableFormat::Delta, &tracked, false)
        .await
        .unwrap();
    let mut files = table.files(&At::Latest).await.unwrap();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let ids: Vec<_> = files
        .iter()
        .map(|file| (file.first_row_id, file.sequence))
        .collect();
    assert_eq!(ids, [(Some(0), Some(0)), (Some(40), Some(0))]);
    let (schema, batches) = query("SELECT value AS id FROM generate_series(51, 60)").await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    table.delete("id % 3 = 0", &Options::default()).await.unwrap();
    row_ids_are_unique(&table, "adopted, then written").await;
}
