use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::model::schema::{FIELD_ID, PHYSICAL_NAME};
use crate::model::{
    BucketHash, Capabilities, CommitId, DataFile, PartitionField, Snapshot, Transform, partition_folder,
};
use crate::store::Store;
use crate::store::sim::{Fault, faulty};

pub(super) fn snapshot(schema: SchemaRef, fields: Vec<(&str, Transform)>) -> Snapshot {
    let fields = fields
        .into_iter()
        .enumerate()
        .map(|(i, (source, transform))| PartitionField {
            source: source.to_owned(),
            transform,
            name: format!("{source}_{i}"),
            field_id: 1000 + i as i32,
            zone_slack_days: 0,
        })
        .collect();
    Snapshot {
        version: 1,
        state: 1,
        timestamp_ms: 0,
        schema,
        specs: BTreeMap::from([(3, fields)]),
        spec_id: 3,
        sort_order: Vec::new(),
        identifier: Vec::new(),
        features: Vec::new(),
        properties: BTreeMap::new(),
        checks: Vec::new(),
        refs: BTreeMap::new(),
        capabilities: Capabilities {
            masks: true,
            refs: true,
            partition_columns_in_files: true,
            append_over_schema_change: true,
            widening: false,
            data_prefix: "data/",
            change_files: None,
            writable: true,
        },
        lineage: Some(crate::model::schema::lineage_by_id()),
        private: Arc::new(()),
    }
}

pub(super) fn store(name: &str) -> Store {
    Store::open(&format!("memory://write-{name}")).unwrap()
}

pub(super) fn id() -> CommitId {
    crate::store::clock::new_commit_id()
}

pub(super) fn columns() -> SchemaRef {
    let field = |id: i32, name: &str, t: DataType| {
        Field::new(name, t, true).with_metadata(HashMap::from([(FIELD_ID.to_owned(), id.to_string())]))
    };
    Arc::new(Schema::new(vec![
        field(1, "id", DataType::Int64),
        field(
            2,
            "ts",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
        field(3, "name", DataType::Utf8),
        field(4, "x", DataType::Float64),
        field(5, "price", DataType::Decimal128(25, 3)),
        field(6, "blob", DataType::Binary),
        field(7, "d", DataType::Date32),
    ]))
}

/// Random rows with NULLs, NaNs, negative and long values.
pub(super) fn random_rows(rng: &mut StdRng, rows: usize) -> RecordBatch {
    let name = |rng: &mut StdRng| {
        let c = ['a', 'b', 'é', char::MAX][rng.random_range(0..4)];
        (0..[2, 40][rng.random_range(0..2)])
            .map(|_| c)
            .collect::<String>()
    };
    let some = |rng: &mut StdRng| rng.random_bool(0.9);
    let x = |rng: &mut StdRng| {
        if rng.random_bool(0.01) {
            f64::NAN
        } else {
            rng.random_range(-5.0..5.0)
        }
    };
    let mut column = |f: &mut dyn FnMut(&mut StdRng, usize) -> ArrayRef| f(rng, rows);
    let arrays: Vec<ArrayRef> = vec![
        column(&mut |r, n| {
            Arc::new(
                (0..n)
                    .map(|_| some(r).then(|| r.random_range(-500..500i64)))
                    .collect::<Int64Array>(),
            )
        }),
        column(&mut |r, n| {
            Arc::new(
                (0..n)
                    .map(|_| some(r).then(|| r.random_range(-3 * 86_400_000_000..5 * 86_400_000_000i64)))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            )
        }),
        column(&mut |r, n| Arc::new((0..n).map(|_| some(r).then(|| name(r))).collect::<StringArray>())),
        column(&mut |r, n| Arc::new((0..n).map(|_| some(r).then(|| x(r))).collect::<Float64Array>())),
        column(&mut |r, n| {
            Arc::new(
                (0..n)
                    .map(|_| some(r).then(|| i128::from(r.random::<i64>()) * 1_000))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(25, 3)
                    .unwrap(),
            )
        }),
        column(&mut |r, n| {
            Arc::new(
                (0..n)
                    .map(|_| some(r).then(|| vec![r.random::<u8>(); r.random_range(0..60)]))
                    .collect::<BinaryArray>(),
            )
        }),
        column(&mut |r, n| {
            Arc::new(
                (0..n)
                    .map(|_| some(r).then(|| r.random_range(-900..900)))
                    .collect::<Date32Array>(),
            )
        }),
    ];
    RecordBatch::try_new(columns(), arrays).unwrap()
}

pub(super) async fn read(store: &Store, path: &str) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(store.get(path).await.unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// The rows of batches as a sorted list: equal for equal multisets of rows.
pub(super) fn sorted_rows(batches: &[RecordBatch]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for batch in batches {
        let types = batch
            .columns()
            .iter()
            .map(|c| SortField::new(c.data_type().clone()))
            .collect();
        let rows = RowConverter::new(types)
            .unwrap()
            .convert_columns(batch.columns())
            .unwrap();
        all.extend(rows.iter().map(|row| row.data().to_vec()));
    }
    all.sort();
    all
}

pub(super) async fn written(
    store: &Store,
    snapshot: Snapshot,
    options: WriteOptions,
    batches: &[RecordBatch],
) -> Written {
    let mut writer = TableWriter::new(store.clone(), Arc::new(snapshot), id(), options).unwrap();
    for batch in batches {
        writer.write(batch).await.unwrap();
    }
    let result = writer.finish().await.unwrap();
    let mut staged = writer.staged();
    staged.sort();
    assert_eq!(
        staged,
        result.files.iter().map(|f| f.path.clone()).collect::<Vec<_>>()
    );
    result
}

/// What the metadata says of a file, against its rows.
fn check_statistics(file: &DataFile, rows: &RecordBatch) {
    assert_eq!(file.rows, rows.num_rows() as u64);
    for (column, field) in rows.columns().iter().zip(columns().fields()) {
        let stats = &file.columns[field.name()];
        assert_eq!(stats.values, Some(file.rows));
        assert_eq!(stats.nulls, Some(column.null_count() as u64));
        let values: Vec<ScalarValue> = (0..column.len())
            .filter(|i| column.is_valid(*i))
            .map(|i| ScalarValue::try_from_array(column, i).unwrap())
            .filter(|v| !matches!(v, ScalarValue::Float64(Some(x)) if x.is_nan()))
            .collect();
        if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
            assert_eq!(
                stats.nans,
                Some(floats.iter().flatten().filter(|v| v.is_nan()).count() as u64)
            );
        }
        let smallest = values.iter().min_by(|a, b| a.partial_cmp(b).unwrap());
        let largest = values.iter().max_by(|a, b| a.partial_cmp(b).unwrap());
        for (bound, value) in [(&stats.min, smallest), (&stats.max, largest)] {
            match (bound, value) {
                (Some(bound), Some(value)) => {
                    assert_eq!(bound.data_type(), value.data_type());
                    assert!(
                        !stats.exact || bound == value,
                        "{}: {bound} is not {value}",
                        field.name()
                    );
                }
                (None, Some(value)) => assert!(
                    !stats.exact && value.to_string().contains(char::MAX)
                        || matches!(value, ScalarValue::Binary(Some(v)) if v[0] == 255),
                    "{}: no bound for {value}",
                    field.name()
                ),
                (bound, None) => assert_eq!(*bound, None),
            }
        }
        assert!(
            stats
                .min
                .as_ref()
                .is_none_or(|min| values.iter().all(|v| min <= v)),
            "{}",
            field.name()
        );
        assert!(
            stats
                .max
                .as_ref()
                .is_none_or(|max| values.iter().all(|v| max >= v)),
            "{}",
            field.name()
        );
        for bound in [&stats.min, &stats.max].into_iter().flatten() {
            match bound {
                ScalarValue::Utf8(Some(v)) => assert!(v.chars().count() <= 32),
                ScalarValue::Binary(Some(v)) => assert!(v.len() <= 32),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn rows_come_back_from_the_partition_they_belong_to_with_true_statistics() {
    let bucket = |hash| Transform::Bucket { buckets: 4, hash };
    let specs: Vec<Vec<(&str, Transform)>> = vec![
        vec![],
        vec![("ts", Transform::Day), ("id", bucket(BucketHash::Iceberg))],
        vec![
            ("id", bucket(BucketHash::Spark)),
            ("name", Transform::Truncate(1)),
        ],
        vec![("d", Transform::Month), ("d", Transform::Void)],
        vec![("name", Transform::Identity)],
    ];
    for (round, fields) in specs.into_iter().enumerate() {
        let mut rng = StdRng::seed_from_u64(round as u64);
        let store = store(&format!("round-{round}"));
        let batches: Vec<_> = [0, 1, 700, 3, 500]
            .into_iter()
            .map(|n| random_rows(&mut rng, n))
            .collect();
        let table = snapshot(columns(), fields);
        let fields = table.partition_fields().to_vec();
        let result = written(&store, table, WriteOptions::default(), &batches).await;
        assert_eq!(result.rows, 1_204);
        let mut back = Vec::new();
        for file in &result.files {
            let rows = read(&store, &file.path).await;
            assert_eq!(file.bytes, store.get(&file.path).await.unwrap().len() as u64);
            assert_eq!((file.spec_id, &file.recorded), (3, &file.path));
            assert!(
                file.path
                    .starts_with(&format!("data/{}", partition_folder(&fields, &file.partition)))
            );
            for (field, value) in fields.iter().zip(&file.partition) {
                let column = rows.column_by_name(&field.source).unwrap();
                let values = field.transform.apply(column).unwrap();
                for row in 0..values.len() {
                    assert_eq!(ScalarValue::try_from_array(&values, row).unwrap(), *value);
                }
            }
            check_statistics(file, &rows);
            back.push(rows);
        }
        assert_eq!(result.bytes, result.files.iter().map(|f| f.bytes).sum::<u64>());
        let partitions: std::collections::HashSet<_> =
            result.files.iter().map(|f| f.partition.clone()).collect();
        assert_eq!(
            partitions.len(),
            result.files.len(),
            "one file for each partition"
        );
        assert_eq!(sorted_rows(&back), sorted_rows(&batches));
    }
}

#[tokio::test]
async fn files_are_closed_at_the_target_size_and_keep_the_order_of_rows() {
    let store = store("target");
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
    let mut rng = StdRng::seed_from_u64(5);
    let values: Int64Array = (0..200_000).map(|_| Some(rng.random::<i64>())).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(values)]).unwrap();
    let options = WriteOptions {
        target_file_bytes: 256 << 10,
        ..WriteOptions::default()
    };
    let result = written(
        &store,
        snapshot(schema, vec![]),
        options,
        std::slice::from_ref(&batch),
    )
    .await;
    assert!(
        (5..=8).contains(&result.files.len()),
        "{} files",
        result.files.len()
    );
    let mut back = Vec::new();
    for file in &result.files {
        assert!(file.bytes < 400 << 10, "{}", file.bytes);
        back.extend(
            read(&store, &file.path)
                .await
                .column(0)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec(),
        );
    }
    assert_eq!(
        back,
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    );
}

#[tokio::test]
async fn little_memory_makes_more_files_but_loses_no_row() {
    let store = store("memory");
    let mut rng = StdRng::seed_from_u64(6);
    let batches: Vec<_> = (0..40).map(|_| random_rows(&mut rng, 500)).collect();
    let table = || snapshot(columns(), vec![("id", Transform::Truncate(10))]);
    let options = WriteOptions {
        memory_bytes: 200 << 10,
        ..WriteOptions::default()
    };
    let mut writer = TableWriter::new(store.clone(), Arc::new(table()), id(), options).unwrap();
    for batch in &batches {
        writer.write(batch).await.unwrap();
        assert!(writer.held() < 400 << 10, "{} bytes are held", writer.held());
    }
    let result = writer.finish().await.unwrap();
    let ample = written(&store, table(), WriteOptions::default(), &batches).await;
    assert_eq!(ample.files.len(), 101);
    assert!(result.files.len() > ample.files.len());
    let mut back = Vec::new();
    for file in &result.files {
        let rows = read(&store, &file.path).await;
        check_statistics(file, &rows);
        back.push(rows);
    }
    assert_eq!(sorted_rows(&back), sorted_rows(&batches));
}

#[tokio::test]
async fn a_large_file_is_sent_in_parts_while_it_is_written() {
    let (store, faults) = faulty(&store("parts"));
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
    ]));
    let mut rng = StdRng::seed_from_u64(7);
    let mut writer = TableWriter::new(
        store.clone(),
        Arc::new(snapshot(Arc::clone(&schema), vec![])),
        id(),
        WriteOptions::default(),
    )
    .unwrap();
    let mut sum = 0i64;
    for _ in 0..14 {
        let mut column = || {
            (0..100_000)
                .map(|_| Some(rng.random::<i64>()))
                .collect::<Int64Array>()
        };
        let (a, b) = (column(), column());
        sum = a.values().iter().fold(sum, |s, v| s.wrapping_add(*v));
        writer
            .write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(a), Arc::new(b)]).unwrap())
            .await
            .unwrap();
    }
    let result = writer.finish().await.unwrap();
    assert_eq!(writer.staged(), [result.files[0].path.clone()]);
    assert_eq!(
        (
            result.files.len(),
            result.rows,
            result.files[0].split_offsets.len()
        ),
        (1, 1_400_000, 3)
    );
    assert!(faults.counts().put > 2, "sent in one piece");
    let back = read(&store, &result.files[0].path).await;
    assert_eq!(
        back.column(0)
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .fold(0i64, |s, v| s.wrapping_add(*v)),
        sum
    );
    assert_eq!(result.files[0].split_offsets[0], 4);
}

#[tokio::test]
async fn every_failed_write_leaves_only_objects_that_staged_names() {
    let mut rng = StdRng::seed_from_u64(8);
    let batches: Vec<_> = (0..3).map(|_| random_rows(&mut rng, 300)).collect();
    for request in 1..40 {
        let plain = store(&format!("faults-{request}"));
        let (store, faults) = faulty(&plain);
        faults.fail_at(request, Fault::Crash);
        let table = snapshot(columns(), vec![("id", Transform::Truncate(50))]);
        let options = WriteOptions {
            memory_bytes: 50 << 10,
            ..WriteOptions::default()
        };
        let mut writer = TableWriter::new(store, Arc::new(table), id(), options).unwrap();
        let mut result = Ok(());
        for batch in &batches {
            if result.is_ok() {
                result = writer.write(batch).await;
            }
        }
        if result.is_ok() {
            result = writer.finish().await.map(|_| ());
        }
        let left = plain.list("").await.unwrap();
        let staged = writer.staged();
        for object in &left {
            assert!(
                staged.contains(&object.path),
                "request {request}: {} is not staged",
                object.path
            );
        }
        if request <= 20 {
            assert!(result.is_err(), "request {request} did not fail the write");
        }
    }
}

#[tokio::test]
async fn no_two_writers_of_one_commit_use_one_name() {
    let store = store("names");
    let batch = random_rows(&mut StdRng::seed_from_u64(9), 5);
    let commit = id();
    let mut paths = Vec::new();
    for _ in 0..3 {
        let table = Arc::new(snapshot(columns(), vec![]));
        let mut writer =
            TableWriter::new(store.clone(), table, commit.clone(), WriteOptions::default()).unwrap();
        writer.write(&batch).await.unwrap();
        paths.extend(writer.finish().await.unwrap().files.into_iter().map(|f| f.path));
    }
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 3);
    assert!(paths[0].starts_with("data/") && paths[0].ends_with(&format!("-{commit}.parquet")));
}

/// Name and field id of every element of a file's schema.
fn stored_schema(bytes: Bytes) -> Vec<(String, Option<i32>)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    fn walk(t: &parquet::schema::types::Type, out: &mut Vec<(String, Option<i32>)>) {
        let info = t.get_basic_info();
        out.push((info.name().to_owned(), info.has_id().then(|| info.id())));
        if t.is_group() {
            t.get_fields().iter().for_each(|f| walk(f, out));
        }
    }
    let mut out = Vec::new();
    reader
        .parquet_schema()
        .root_schema()
        .get_fields()
        .iter()
        .for_each(|f| walk(f, &mut out));
    out
}

#[tokio::test]
async fn files_carry_physical_names_field_ids_and_row_lineage() {
    let with = |field: Field, id: i32, physical: &str| {
        field.with_metadata(HashMap::from([
            (FIELD_ID.to_owned(), id.to_string()),
            (PHYSICAL_NAME.to_owned(), physical.to_owned()),
        ]))
    };
    let inner = with(Field::new("y", DataType::Float64, true), 3, "col-3");
    let element = Field::new("item", DataType::Int32, true)
        .with_metadata(HashMap::from([(FIELD_ID.to_owned(), "5".to_owned())]));
    let schema = Arc::new(Schema::new(vec![
        with(Field::new("region", DataType::Utf8, true), 1, "col-1"),
        with(
            Field::new("p", DataType::Struct(vec![inner.clone()].into()), true),
            2,
            "col-2",
        ),
        with(
            Field::new("l", DataType::List(Arc::new(element.clone())), true),
            4,
            "col-4",
        ),
    ]));
    let list =
        ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([Some(vec![Some(1)]), None]);
    let list = ListArray::new(
        Arc::new(element),
        list.offsets().clone(),
        Arc::clone(list.values()),
        list.nulls().cloned(),
    );
    let y: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(1.5)]));
    let mut fields = schema.fields().to_vec();
    for name in ["_row_id", "_last_updated_sequence_number"] {
        fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
    }
    let batch = RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        vec![
            Arc::new(StringArray::from(vec!["eu", "eu"])),
            Arc::new(StructArray::new(vec![inner].into(), vec![y], None)),
            Arc::new(list),
            Arc::new(Int64Array::from(vec![Some(10), None])),
            Arc::new(Int64Array::from(vec![Some(1), None])),
        ],
    )
    .unwrap();
    let mut table = snapshot(schema, vec![("region", Transform::Identity)]);
    table.capabilities.partition_columns_in_files = false;
    table.capabilities.data_prefix = "";
    let store = store("names-and-ids");
    let options = WriteOptions {
        lineage: true,
        ..WriteOptions::default()
    };
    let result = written(&store, table, options, &[batch]).await;
    let file = &result.files[0];
    assert!(file.path.starts_with("region_0=eu/"), "{}", file.path);
    let bytes = store.get(&file.path).await.unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let dictionaries = reader.metadata().row_group(0).columns().iter();
    let dictionaries = dictionaries.map(|chunk| chunk.dictionary_page_offset().is_some());
    assert!(
        dictionaries.eq([true, true, false, false]),
        "all but those of row lineage, whose differences take next to no room"
    );
    let ids: Vec<_> = reader.metadata().row_group(0).column(2).encodings().collect();
    assert!(ids.contains(&Encoding::DELTA_BINARY_PACKED), "{ids:?}");
    let stored = stored_schema(bytes);
    let stored: Vec<_> = stored.iter().map(|(n, id)| (n.as_str(), *id)).collect();
    assert_eq!(
        stored,
        [
            ("col-2", Some(2)),
            ("col-3", Some(3)),
            ("col-4", Some(4)),
            ("list", None),
            ("element", Some(5)),
            ("_row_id", Some(2_147_483_540)),
            ("_last_updated_sequence_number", Some(2_147_483_539)),
        ]
    );
    assert_eq!(file.columns.keys().collect::<Vec<_>>(), ["p.y"]);
    assert_eq!(file.columns["p.y"].nans, Some(1));
    assert_eq!(file.columns["p.y"].max, Some(ScalarValue::Float64(Some(1.5))));
    assert!(!file.columns["p.y"].exact);
}

#[test]
fn a_table_whose_columns_are_all_partition_columns_cannot_be_written() {
    let schema = Arc::new(Schema::new(vec![Field::new("region", DataType::Utf8, true)]));
    let mut table = snapshot(schema, vec![("region", Transform::Identity)]);
    table.capabilities.partition_columns_in_files = false;
    let error = TableWriter::new(store("none"), Arc::new(table), id(), WriteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("partition column"), "{error}");
}

#[tokio::test]
async fn fourteen_hundred_partitions_on_disk_take_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    let schema = Arc::new(Schema::new(
        (0..20)
            .map(|i| {
                Field::new(
                    format!("c{i}"),
                    if i % 2 == 0 {
                        DataType::Int64
                    } else {
                        DataType::Utf8
                    },
                    true,
                )
            })
            .collect::<Vec<_>>(),
    ));
    let mut rng = StdRng::seed_from_u64(10);
    let batches: Vec<_> = (0..20)
        .map(|_| {
            let arrays = schema.fields().iter().enumerate().map(|(i, f)| -> ArrayRef {
                match (i, f.data_type()) {
                    (0, _) => Arc::new(
                        (0..8_192)
                            .map(|_| Some(rng.random_range(0..1_460i64)))
                            .collect::<Int64Array>(),
                    ),
                    (_, DataType::Int64) => Arc::new(
                        (0..8_192)
                            .map(|_| Some(rng.random_range(0..1_000i64)))
                            .collect::<Int64Array>(),
                    ),
                    _ => Arc::new(
                        (0..8_192)
                            .map(|_| Some(format!("N{}", rng.random_range(0..4_000))))
                            .collect::<StringArray>(),
                    ),
                }
            });
            RecordBatch::try_new(Arc::clone(&schema), arrays.collect()).unwrap()
        })
        .collect();
    #[expect(clippy::disallowed_methods, reason = "time is measured")]
    let started = std::time::Instant::now();
    let result = written(
        &store,
        snapshot(Arc::clone(&schema), vec![("c0", Transform::Identity)]),
        WriteOptions::default(),
        &batches,
    )
    .await;
    let elapsed = started.elapsed();
    assert_eq!((result.files.len(), result.rows), (1_460, 20 * 8_192));
    eprintln!("1,460 files in {elapsed:?}");
    assert!(elapsed.as_secs() < 60, "{elapsed:?}");
}
