//! How data files are written: what the table's properties say.

use std::collections::BTreeSet;

use lakehouse_core::model::{At, Prune};
use lakehouse_core::scan::{plan_files, read_footer};
use lakehouse_core::{Compact, Merge, Options, Table};
use parquet::basic::Compression;

use super::{FORMATS, append, content, rows, table_with};

const CODEC: &str = "write.parquet.compression-codec";

/// The codecs of all pages of the newest version, without their levels, which files do not tell.
async fn codecs(table: &Table) -> BTreeSet<String> {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let files = plan_files(table.handle(), &snapshot, Prune::everything().into())
        .await
        .unwrap();
    let mut found = BTreeSet::new();
    for file in files {
        let footer = read_footer(&table.handle().store, &file.path, file.bytes)
            .await
            .unwrap();
        for chunk in footer.row_groups().iter().flat_map(|group| group.columns()) {
            found.insert(match chunk.compression() {
                Compression::ZSTD(_) => "zstd".to_owned(),
                other => format!("{other}").to_lowercase(),
            });
        }
    }
    found
}

#[tokio::test]
async fn pages_are_compressed_as_the_properties_say_whoever_writes_them() {
    for format in FORMATS {
        for (properties, expected) in [
            (vec![], "zstd"),
            (vec![(CODEC, "Snappy")], "snappy"),
            (vec![(CODEC, "uncompressed")], "uncompressed"),
            (vec![("write.parquet.compression-level", "9")], "zstd"),
        ] {
            let table = table_with(format, "", &properties).await;
            append(&table, "(1, 'eu', 10), (2, 'us', 20)").await;
            let merge = Merge::on("id")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            let feed = rows("id, region, n", "(2, 'us', 21), (3, 'eu', 30)").await;
            table.merge(feed, &merge, &Options::default()).await.unwrap();
            assert_eq!(codecs(&table).await, [expected.to_owned()].into(), "{format:?}");
            table
                .compact(&Compact::default(), &Options::default())
                .await
                .unwrap();
            assert_eq!(codecs(&table).await, [expected.to_owned()].into(), "{format:?}");
            assert_eq!(content(&table).await, ["1|eu|10", "2|us|21", "3|eu|30"]);
        }
    }
}

#[tokio::test]
async fn a_codec_or_level_that_there_is_not_is_an_error_that_names_the_property() {
    for format in FORMATS {
        for properties in [
            vec![(CODEC, "lzo")],
            vec![(CODEC, "zstd"), ("write.parquet.compression-level", "high")],
        ] {
            let table = table_with(format, "", &properties).await;
            let feed = rows("id, region, n", "(1, 'eu', 1)").await;
            let error = table.append(feed, &Options::default()).await.unwrap_err();
            let (name, _) = properties.last().unwrap();
            assert!(error.to_string().contains(name), "{error}");
            assert!(content(&table).await.is_empty());
        }
    }
}
