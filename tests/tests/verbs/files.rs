//! Rows from files: every kind holds the same rows.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray};
use lakehouse_core::{InputFormat, Merge, Options, Rows};

use super::feed::filled;
use super::{FORMATS, content, schema, table};

fn batch() -> RecordBatch {
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec![Some("eu"), None, Some("a, \"b\"")])),
        Arc::new(Int32Array::from(vec![Some(-1), Some(0), None])),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

#[tokio::test]
async fn parquet_csv_ndjson_and_arrow_hold_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let batch = batch();
    let path = |name: &str| folder.path().join(name);
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(File::create(path("a.parquet")).unwrap(), batch.schema(), None)
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    arrow::csv::Writer::new(File::create(path("a.csv")).unwrap())
        .write(&batch)
        .unwrap();
    arrow::json::LineDelimitedWriter::new(File::create(path("a.ndjson")).unwrap())
        .write(&batch)
        .unwrap();
    let mut writer =
        arrow::ipc::writer::FileWriter::try_new(File::create(path("a.arrow")).unwrap(), &schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new(File::create(path("b.arrow")).unwrap(), &schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    std::fs::copy(path("a.csv"), path("noextension")).unwrap();
    for (name, format) in [
        ("a.parquet", None),
        ("a.csv", None),
        ("a.ndjson", None),
        ("a.arrow", None),
        ("b.arrow", None),
        ("noextension", Some(InputFormat::Csv)),
    ] {
        let table = table(FORMATS[0], "").await;
        let report = table
            .append(Rows::file(path(name), format).unwrap(), &Options::default())
            .await
            .unwrap();
        assert_eq!(report.metric("num_source_rows"), 3, "{name}");
        assert_eq!(
            content(&table).await,
            ["1|eu|-1", "2||0", "3|a, \"b\"|"],
            "{name}"
        );
    }
}

#[tokio::test]
async fn text_files_are_read_with_the_tables_types_and_others_are_inferred() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("feed.csv");
    // Read by itself, region would be a number and n a text.
    std::fs::write(&path, "op,n,region,id\nU,,007,1\nD,5,008,2\nI,6,009,3\n").unwrap();
    for format in FORMATS {
        let table = table(format, "region").await;
        super::append(&table, "(1, 'x', 1), (2, 'y', 2)").await;
        let merge = Merge::on("id")
            .delete_when("source.op = 'D'")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let report = table
            .merge(Rows::file(&path, None).unwrap(), &merge, &Options::default())
            .await
            .unwrap();
        assert_eq!(content(&table).await, ["1|007|", "3|009|6"]);
        let figures =
            ["inserted", "updated", "deleted"].map(|what| report.metric(&format!("num_target_rows_{what}")));
        assert_eq!(figures, [1, 1, 1]);
    }
}

#[tokio::test]
async fn the_columns_of_a_file_are_known_without_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.csv");
    std::fs::write(&path, "id,name,score,day\n1,a,1.5,2013-01-01\n2,,2,2013-01-02\n").unwrap();
    let schema = Rows::file(&path, None).unwrap().schema().await.unwrap();
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect();
    assert_eq!(columns, ["id Int64", "name Utf8", "score Float64", "day Date32"]);
}

/// Values of one column, written into a file of one row, and what the table then holds; `None` where the
/// file is refused.
const VALUES: [(&str, &str, Option<&str>); 36] = [
    ("int", "1", Some("1")),
    ("int", "1.0", Some("1")),
    ("int", "1e3", Some("1000")),
    ("int", "1.9", None),
    ("int", "2147483648", None),
    ("bigint", "9007199254740993", Some("9007199254740993")),
    ("bigint", "9223372036854775807", Some("9223372036854775807")),
    ("bigint", "9223372036854775808", None),
    ("bigint", "-0.5", None),
    (
        "decimal(20, 2)",
        "123456789012345678.91",
        Some("123456789012345678.91"),
    ),
    ("decimal(20, 2)", "1.5", Some("1.50")),
    ("decimal(20, 2)", "1.234", None),
    ("decimal(3, 2)", "10", None),
    ("float", "0.1", Some("0.1")),
    ("float", "1e40", None),
    ("double", "1e40", Some("1e40")),
    ("double", "1e400", None),
    ("boolean", "true", Some("true")),
    ("boolean", "\"maybe\"", None),
    ("date", "\"2013-01-31\"", Some("2013-01-31")),
    ("date", "\"2013-01-31T00:00:00\"", Some("2013-01-31")),
    ("date", "\"2013-01-31T10:00:00\"", None),
    ("date", "\"31.1.2013\"", None),
    (
        "timestamp",
        "\"2013-01-31T10:00:00.123456\"",
        Some("2013-01-31T10:00:00.123456"),
    ),
    (
        "timestamp",
        "\"2013-01-31 10:00:00.1234560\"",
        Some("2013-01-31T10:00:00.123456"),
    ),
    ("timestamp", "\"2013-01-31T10:00:00.1234567\"", None),
    ("timestamp", "\"1500-01-31T10:00:00.1234567\"", None),
    (
        "timestamp",
        "\"2013-01-31T10:00:00Z\"",
        Some("2013-01-31T10:00:00"),
    ),
    ("timestamp", "\"2013-01-31T10:00:00+02:00\"", None),
    (
        "timestamptz",
        "\"2013-01-31T10:00:00+02:00\"",
        Some("2013-01-31T08:00:00Z"),
    ),
    (
        "timestamptz",
        "\"9999-12-31T23:59:59\"",
        Some("9999-12-31T23:59:59Z"),
    ),
    ("timestamp", "\"2013-01-31T23:59:60\"", None),
    ("timestamptz", "\"2013-01-31T23:59:60.5Z\"", None),
    ("timestamp", "1359626400000", None),
    ("date", "15736", None),
    ("string", "\"007\"", Some("007")),
];

#[tokio::test]
async fn a_value_of_csv_and_ndjson_is_stored_exactly_or_refused_by_column_and_row() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (data_type, value, expected)) in VALUES.into_iter().enumerate() {
        let format = FORMATS[index % FORMATS.len()];
        let columns =
            format!("id bigint not null, v {data_type}, inner struct<v {data_type}>, list {data_type}[]");
        for (name, text) in [
            ("v.csv", format!("id,v\n1,\n2,{value}\n")),
            ("v.ndjson", format!("{{\"id\":1}}\n{{\"id\":2,\"v\":{value}}}\n")),
            (
                "s.ndjson",
                format!("{{\"id\":1}}\n{{\"id\":2,\"inner\":{{\"v\":{value}}}}}\n"),
            ),
            (
                "l.ndjson",
                format!("{{\"id\":1}}\n{{\"id\":2,\"list\":[null,{value}]}}\n"),
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, &text).unwrap();
            let table = filled(format, &columns, "", "id", &[]).await;
            let rows = Rows::file(&path, None).unwrap();
            let what = format!("{data_type} {name} {value}");
            match (table.append(rows, &Options::default()).await, expected) {
                (Ok(_), Some(expected)) => {
                    let stored = content(&table).await;
                    assert!(stored[1].contains(expected), "{what}: {stored:?}");
                }
                (Err(error), None) => {
                    let error = error.to_string();
                    // JSON itself has no number that large.
                    let place = error.contains("row 2") || error.contains("number out of range");
                    assert!(place && error.contains(name), "{what}: {error}");
                }
                (Ok(_), None) => panic!("{what}: {:?}", content(&table).await),
                (Err(error), Some(_)) => panic!("{what}: {error}"),
            }
        }
    }
}
