//! How much of a table's files is read, and who may change that: each limit holds to the byte, and a table that is over
//! it can be read once it is raised.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::store::{StorageOptions, Store};
use lakehouse_core::{Error, Options, Table};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use super::{FORMATS, append, content, lines, query, rows, table_in};

/// A place in memory that no other test has.
fn place(name: &str, format: usize) -> String {
    format!("memory://limits-{name}-{format}/t")
}

fn set(option: &str, text: impl ToString) -> StorageOptions {
    [(option, text.to_string())].into_iter().collect()
}

/// The rows, read by somebody who set an option.
async fn read(place: &str, option: &str, most: u64) -> Result<Vec<String>, Error> {
    let table = Table::open_with(place, &set(option, most)).await?;
    let ctx = SessionContext::new();
    ctx.register_table("t", table.provider(&At::Latest).await?)?;
    Ok(lines(&ctx.sql("SELECT * FROM t").await?.collect().await?))
}

/// The smallest number with which the table can be read.
async fn smallest(place: &str, option: &str) -> u64 {
    let (mut fails, mut works) = (0, 1 << 20);
    while works - fails > 1 {
        let middle = u64::midpoint(fails, works);
        match read(place, option, middle).await {
            Ok(_) => works = middle,
            Err(_) => fails = middle,
        }
    }
    works
}

async fn bytes_of(store: &Store, is: fn(&str) -> bool) -> BTreeMap<String, Bytes> {
    let mut found = BTreeMap::new();
    for object in store.list("").await.unwrap() {
        if is(&object.path) {
            let bytes = store.get(&object.path).await.unwrap();
            found.insert(object.path, bytes);
        }
    }
    found
}

/// Values in a document, and keys.
fn values(json: &Value) -> u64 {
    1 + match json {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(|value| 1 + values(value)).sum(),
        _ => 0,
    }
}

fn footer(file: &[u8]) -> u64 {
    u32::from_le_bytes(*file[..file.len() - 4].last_chunk().unwrap()).into()
}

/// What each option must be set to at least.
async fn needed(place: &str, table: &Table) -> Vec<(&'static str, u64)> {
    let store = &table.handle().store;
    let files = table.files(&At::Latest).await.unwrap();
    let masks = || files.iter().flat_map(|file| &file.masks);
    let mut needed = vec![
        ("max_mask_bytes", masks().filter_map(|mask| mask.bytes).max()),
        (
            "max_parquet_footer_bytes",
            bytes_of(store, |path| path.ends_with(".parquet"))
                .await
                .values()
                .map(|file| footer(file))
                .max(),
        ),
        ("max_page_bytes", Some(smallest(place, "max_page_bytes").await)),
    ];
    if masks().any(|mask| mask.path.ends_with(".parquet")) {
        needed.push(("max_mask_rows", masks().filter_map(|mask| mask.rows).max()));
    }
    if table.format() == "delta" {
        let log = bytes_of(store, |path| path.starts_with("_delta_log/")).await;
        needed.push((
            "max_commit_bytes",
            log.values().map(|entry| entry.len() as u64).max(),
        ));
    } else {
        let metadata = bytes_of(store, |path| path.ends_with(".metadata.json")).await;
        let newest = metadata.values().max_by_key(|file| file.len()).unwrap();
        needed.push(("max_metadata_bytes", Some(newest.len() as u64)));
        let newest = serde_json::from_slice(newest).unwrap();
        needed.push(("max_metadata_values", Some(values(&newest))));
        for option in ["max_avro_bytes", "max_avro_block_bytes", "max_avro_values"] {
            needed.push((option, Some(smallest(place, option).await)));
        }
    }
    needed
        .into_iter()
        .map(|(option, most)| (option, most.unwrap()))
        .collect()
}

/// With this number the table can be read, and with one less it is refused by name.
async fn just_enough(place: &str, option: &str, most: u64, expected: &[String]) {
    let found = read(place, option, most).await;
    assert_eq!(found.unwrap(), expected, "{place} {option}={most}");
    let less = most - 1;
    let error = read(place, option, less).await.unwrap_err();
    let said = format!("at most {less} are read");
    assert!(
        matches!(&error, Error::Limit { what, .. } if what.ends_with(&said)),
        "{place} {option}={less}: {error}"
    );
    assert!(
        error.hint().unwrap().ends_with(option),
        "{place} {option}={less}: {error}"
    );
}

#[tokio::test]
async fn each_limit_lets_a_table_through_that_is_just_as_large_and_names_itself_to_the_next() {
    for (number, format) in FORMATS.into_iter().enumerate() {
        let place = place("each", number);
        let table = table_in(Store::open(&place).unwrap(), format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2), (3, 'eu', 3)").await;
        append(&table, "(4, 'eu', 4), (5, 'us', 5)").await;
        let masked = Options {
            strategy: Strategy::MergeOnRead,
            ..Options::default()
        };
        table.delete("id IN (2, 3)", &masked).await.unwrap();
        let expected = content(&table).await;
        assert_eq!(expected.len(), 3);
        for (option, most) in needed(&place, &table).await {
            just_enough(&place, option, most, &expected).await;
        }
    }
}

#[tokio::test]
async fn metadata_counts_as_it_is_after_decompression() {
    let place = place("gzip", 0);
    let table = table_in(Store::open(&place).unwrap(), FORMATS[0], "").await;
    append(&table, "(1, 'eu', 1)").await;
    let store = &table.handle().store;
    let key = "metadata/v2.metadata.json";
    let plain = store.get(key).await.unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(gzip.len() < plain.len());
    store
        .put("metadata/v2.gz.metadata.json", gzip.into())
        .await
        .unwrap();
    store.delete(&[key.to_owned()]).await.unwrap();
    let expected = content(&table).await;
    just_enough(&place, "max_metadata_bytes", plain.len() as u64, &expected).await;
}

/// The log is read by another parser than the files are.
#[tokio::test]
async fn the_footer_of_a_checkpoint_counts_too() {
    let place = place("checkpoint", 2);
    let table = table_in(Store::open(&place).unwrap(), FORMATS[2], "").await;
    for n in 0..11 {
        append(&table, &format!("({n}, 'eu', {n})")).await;
    }
    let parquet = bytes_of(&table.handle().store, |path| path.ends_with(".parquet")).await;
    let (largest, file) = parquet.iter().max_by_key(|(_, file)| footer(file)).unwrap();
    assert!(largest.contains(".checkpoint."), "{largest}");
    let expected = content(&table).await;
    just_enough(&place, "max_parquet_footer_bytes", footer(file), &expected).await;
}

#[tokio::test]
async fn a_commit_that_its_writer_could_not_read_back_is_refused_and_leaves_nothing() {
    for (number, format) in FORMATS.into_iter().enumerate() {
        let place = place("written", number);
        let table = table_in(Store::open(&place).unwrap(), format, "region").await;
        append(&table, "(1, 'eu', 1)").await;
        let (option, of): (_, fn(&str) -> bool) = match format.1 {
            Some(_) => ("max_metadata_bytes", |path| path.ends_with(".metadata.json")),
            None => ("max_commit_bytes", |path| path.starts_with("_delta_log/")),
        };
        let before = bytes_of(&table.handle().store, |_| true).await;
        let largest = before
            .iter()
            .filter(|(path, _)| of(path))
            .map(|(_, file)| file.len());
        let narrow = set(option, largest.max().unwrap());
        let table = Table::open_with(&place, &narrow).await.unwrap();
        let regions: Vec<String> = (0..50).map(|n| format!("({n}, 'region{n}', {n})")).collect();
        let more = rows("id, region, n", &regions.join(", ")).await;
        let error = table.append(more, &Options::default()).await.unwrap_err();
        let after = bytes_of(&table.handle().store, |_| true).await;
        assert!(
            after == before,
            "{format:?}: a commit that its writer cannot read left {:?}",
            after.keys()
        );
        assert!(matches!(&error, Error::Limit { .. }), "{format:?}: {error}");
        assert!(error.hint().unwrap().ends_with(option), "{format:?}: {error}");
    }
}

/// A table whose metadata is larger than what is read of a stranger's.
#[tokio::test]
async fn metadata_of_65_mb_is_read_and_written_by_those_who_allow_it() {
    let place = place("raised", 0);
    let table = table_in(Store::open(&place).unwrap(), FORMATS[0], "").await;
    append(&table, "(1, 'eu', 1)").await;
    let key = "metadata/v2.metadata.json";
    let mut metadata: Value = serde_json::from_slice(&table.handle().store.get(key).await.unwrap()).unwrap();
    metadata["properties"]["notes"] = "x".repeat(65 << 20).into();
    let large = metadata.to_string();
    table.handle().store.put(key, large.into()).await.unwrap();
    let table = Table::open(&place).await.unwrap();
    let error = table.files(&At::Latest).await.unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    assert!(error.hint().unwrap().contains("max_metadata_bytes"), "{error}");
    let raised = set("MAX_METADATA_BYTES", "128MB");
    let table = Table::open_with(&place, &raised).await.unwrap();
    append(&table, "(2, 'us', 2)").await;
    assert_eq!(content(&table).await, ["1|eu|1", "2|us|2"]);
    let session = Table::session(None, &raised);
    let frame = session.query(&format!("SELECT * FROM '{place}'")).await.unwrap();
    assert_eq!(lines(&frame.collect().await.unwrap()), ["1|eu|1", "2|us|2"]);
}

/// The same rows in a file whose footer holds as much text.
fn with_notes(schema: SchemaRef, batch: &arrow::array::RecordBatch, notes: usize) -> Vec<u8> {
    let notes = KeyValue::new("notes".to_owned(), "x".repeat(notes));
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![notes]))
        .build();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file
}

#[tokio::test]
async fn a_file_with_a_footer_of_65_mb_is_read_by_those_who_allow_it() {
    let place = place("raised", 2);
    let table = table_in(Store::open(&place).unwrap(), FORMATS[2], "").await;
    append(&table, "(1, 'eu', 1)").await;
    let file = table.files(&At::Latest).await.unwrap().remove(0);
    let (schema, batches) = query("SELECT 1 AS id, 'eu' AS region, arrow_cast(1, 'Int32') AS n").await;
    let large = with_notes(Arc::clone(&schema), &batches[0], 65 << 20);
    let entry = "_delta_log/00000000000000000001.json";
    let log = String::from_utf8(table.handle().store.get(entry).await.unwrap().to_vec()).unwrap();
    let size = format!("\"size\":{}", file.bytes);
    assert!(log.contains(&size), "{log}");
    let log = log.replace(&size, &format!("\"size\":{}", large.len()));
    table.handle().store.put(entry, log.into()).await.unwrap();
    table.handle().store.put(&file.path, large.into()).await.unwrap();
    let usual = 64 << 20;
    let error = read(&place, "max_parquet_footer_bytes", usual).await.unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    let found = read(&place, "max_parquet_footer_bytes", usual * 2).await.unwrap();
    assert_eq!(found, ["1|eu|1"]);
}

#[tokio::test]
async fn an_option_that_is_no_limit_is_refused_by_name_wherever_the_table_is() {
    for place in ["memory://limits-none/t", "t", "s3://limits/t", "az://limits/t"] {
        for (option, text) in [
            ("max_metadata_bytes", "lots"),
            ("max_metadata_bytes", "0"),
            ("max_avro_values", "1MB"),
            ("max_metdata_bytes", "1MB"),
            ("max_rows", "1"),
        ] {
            let error = Store::open_with(place, &set(option, text)).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{place}: {error}");
            let said = format!("{error} {}", error.hint().unwrap());
            assert!(said.contains(&format!("storage option {option}")), "{said}");
            assert!(!said.contains("lots"), "{said}");
        }
    }
}
