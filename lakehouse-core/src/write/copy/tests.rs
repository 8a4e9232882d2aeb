use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::Int64Builder;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, MapBuilder, RecordBatch, StringArray,
    StringBuilder, StructArray,
};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::model::schema::{FIELD_ID, LAST_UPDATED_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, RowMask, Snapshot, Transform};
use crate::store::sim::{Fault, faulty};
use crate::write::layout::Layout;
use crate::write::tests::{columns, id, random_rows, read, snapshot, sorted_rows, store};
use crate::write::{CopySource, TableWriter, WriteOptions, Written};

/// Every kind of column, nested ones and one of few different values among them.
pub(in crate::write) fn schema() -> SchemaRef {
    let field = |id: i32, name: &str, t: DataType| {
        Field::new(name, t, true).with_metadata(HashMap::from([(FIELD_ID.to_owned(), id.to_string())]))
    };
    let mut fields: Vec<Field> = columns().fields().iter().map(|f| f.as_ref().clone()).collect();
    let pair = vec![field(21, "a", DataType::Int64), field(22, "b", DataType::Utf8)];
    let entries = Field::new(
        "key_value",
        DataType::Struct(
            vec![
                field(31, "key", DataType::Utf8).with_nullable(false),
                field(32, "value", DataType::Int64),
            ]
            .into(),
        ),
        false,
    );
    fields.push(field(10, "low", DataType::Utf8));
    fields.push(field(20, "pair", DataType::Struct(pair.into())));
    fields.push(field(
        24,
        "list",
        DataType::List(Arc::new(field(25, "element", DataType::Int64))),
    ));
    fields.push(field(30, "map", DataType::Map(Arc::new(entries), false)));
    Arc::new(Schema::new(fields))
}

pub(in crate::write) fn random(rng: &mut StdRng, rows: usize) -> RecordBatch {
    let schema = schema();
    let mut arrays = random_rows(rng, rows).columns().to_vec();
    let some = |rng: &mut StdRng| rng.random_bool(0.8);
    let low: StringArray = (0..rows)
        .map(|_| some(rng).then(|| ["red", "green", "blue"][rng.random_range(0..3)]))
        .collect();
    let a: Int64Array = (0..rows)
        .map(|_| some(rng).then(|| rng.random::<i64>()))
        .collect();
    let b: StringArray = (0..rows)
        .map(|_| some(rng).then(|| "x".repeat(rng.random_range(0..9))))
        .collect();
    let DataType::Struct(pair) = schema.field_with_name("pair").unwrap().data_type() else {
        unreachable!()
    };
    let nulls: Vec<bool> = (0..rows).map(|_| some(rng)).collect();
    let pair =
        StructArray::try_new(pair.clone(), vec![Arc::new(a), Arc::new(b)], Some(nulls.into())).unwrap();
    let DataType::List(item) = schema.field_with_name("list").unwrap().data_type() else {
        unreachable!()
    };
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>((0..rows).map(|_| {
        some(rng).then(|| {
            (0..rng.random_range(0..4))
                .map(|_| some(rng).then(|| rng.random_range(0..9)))
                .collect::<Vec<_>>()
        })
    }));
    let (_, offsets, values, nulls) = list.into_parts();
    let list = ListArray::try_new(Arc::clone(item), offsets, values, nulls).unwrap();
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for _ in 0..rows {
        for entry in 0..rng.random_range(0..3) {
            map.keys().append_value(format!("k{entry}"));
            map.values()
                .append_option(some(rng).then(|| rng.random_range(0..9)));
        }
        map.append(some(rng)).unwrap();
    }
    let (_, offsets, entries, nulls, sorted) = map.finish().into_parts();
    let DataType::Map(wanted, _) = schema.field_with_name("map").unwrap().data_type() else {
        unreachable!()
    };
    let DataType::Struct(names) = wanted.data_type() else {
        unreachable!()
    };
    let entries = StructArray::try_new(names.clone(), entries.columns().to_vec(), None).unwrap();
    let map = arrow::array::MapArray::try_new(Arc::clone(wanted), offsets, entries, nulls, sorted).unwrap();
    arrays.extend([
        Arc::new(low) as ArrayRef,
        Arc::new(pair),
        Arc::new(list),
        Arc::new(map),
    ]);
    RecordBatch::try_new(schema, arrays).unwrap()
}

/// How the old file has row ids.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ids {
    /// The table has none.
    Without,
    Inherited,
    /// All are stored.
    Stored,
    /// Some are stored.
    Partly,
}

fn with_ids(rng: &mut StdRng, rows: &RecordBatch, ids: Ids) -> RecordBatch {
    if matches!(ids, Ids::Without | Ids::Inherited) {
        return rows.clone();
    }
    let mut numbers = || -> ArrayRef {
        let known = |rng: &mut StdRng| ids == Ids::Stored || rng.random_bool(0.5);
        Arc::new(
            (0..rows.num_rows())
                .map(|_| known(rng).then(|| rng.random_range(0..500i64)))
                .collect::<Int64Array>(),
        )
    };
    add_ids(rows, [numbers(), numbers()])
}

fn add_ids(rows: &RecordBatch, ids: [ArrayRef; 2]) -> RecordBatch {
    let mut fields = rows.schema().fields().to_vec();
    for name in [ROW_ID_COLUMN, LAST_UPDATED_COLUMN] {
        fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
    }
    let arrays = rows.columns().iter().cloned().chain(ids).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// What a writer of another engine may have chosen.
fn properties(rng: &mut StdRng) -> (WriterProperties, bool) {
    let codec = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::try_new(1).unwrap()),
    ][rng.random_range(0..3)];
    let statistics = [
        EnabledStatistics::None,
        EnabledStatistics::Chunk,
        EnabledStatistics::Page,
    ];
    let indexed = rng.random_bool(0.7);
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_coerce_types(true)
        .set_dictionary_enabled(rng.random_bool(0.7))
        .set_bloom_filter_enabled(rng.random_bool(0.3))
        .set_statistics_enabled(statistics[rng.random_range(0..3)])
        .set_offset_index_disabled(!indexed)
        .set_data_page_row_count_limit(rng.random_range(5..40))
        .set_write_batch_size(5)
        .set_max_row_group_row_count(Some(rng.random_range(30..120)))
        .set_writer_version([WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0][rng.random_range(0..2)])
        .build();
    // Statistics of pages go with an offset index.
    let indexed = !properties.offset_index_disabled();
    (properties, indexed)
}

fn file(path: &str, bytes: u64, rows: usize) -> DataFile {
    DataFile {
        path: path.to_owned(),
        recorded: path.to_owned(),
        bytes,
        rows: rows as u64,
        spec_id: 3,
        partition: vec![],
        columns: BTreeMap::new(),
        masks: vec![],
        equality_deletes: vec![],
        sequence: Some(77),
        first_row_id: Some(10_000),
        split_offsets: vec![],
        notes: None,
    }
}

/// A file with these properties and the layout that the table's files have.
pub(in crate::write) async fn foreign(
    store: &Store,
    table: &Snapshot,
    rows: &RecordBatch,
    lineage: bool,
    properties: WriterProperties,
) -> DataFile {
    let layout = Layout::new(table, lineage).unwrap();
    let stored = layout.store(rows).unwrap();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), stored.schema(), options).unwrap();
    writer.write(&stored).unwrap();
    let bytes = writer.into_inner().unwrap();
    let path = format!("old-{}.parquet", id());
    store.put(&path, bytes.clone().into()).await.unwrap();
    file(&path, bytes.len() as u64, rows.num_rows())
}

pub(in crate::write) async fn footer(store: &Store, file: &DataFile) -> ParquetMetaData {
    let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
    let bytes = store.get(&file.path).await.unwrap();
    ParquetMetaDataReader::new()
        .with_metadata_options(Some(options))
        .with_page_index_policy(PageIndexPolicy::Skip)
        .parse_and_finish(&bytes)
        .unwrap()
}

pub(in crate::write) fn writer(store: &Store, table: &Arc<Snapshot>, options: WriteOptions) -> TableWriter {
    TableWriter::new(store.clone(), Arc::clone(table), id(), options).unwrap()
}

/// Every row group is worth copying.
fn eager(lineage: bool) -> WriteOptions {
    WriteOptions {
        lineage,
        copy_from_bytes: Some(1),
        ..WriteOptions::default()
    }
}

pub(in crate::write) fn kept(rows: &RecordBatch, hidden: &RowMask, from: u64) -> RecordBatch {
    let keep: BooleanArray = (0..rows.num_rows() as u64)
        .map(|row| Some(!hidden.contains(from + row)))
        .collect();
    filter_record_batch(rows, &keep).unwrap()
}

/// Moves the rows of a file that stay: row groups as they are, of others the rows as they are stored or as batches in turn;
/// returns the row groups that were copied.
async fn moved(
    writer: &mut TableWriter,
    source: &CopySource,
    rows: &RecordBatch,
    hidden: &RowMask,
) -> Vec<usize> {
    let store = writer.store.clone();
    let copied = source.copied(hidden, |_, _| false);
    for (group, positions) in source.visible(hidden) {
        let start = usize::try_from(positions.start).unwrap();
        let own = rows.slice(start, usize::try_from(positions.end).unwrap() - start);
        let own = kept(&own, hidden, positions.start);
        if copied.contains(&group) {
            let read = writer.copy(source, group).await.unwrap().bytes_read;
            assert!(read >= source.bytes_of(group) - source.bytes_of(group) / 2);
        } else if group % 3 == 0 {
            writer.write(&own).await.unwrap();
        } else {
            let stored = source.read(&store, group, hidden).await.unwrap();
            assert_eq!(stored.len(), own.num_rows());
            writer.write_stored(source, stored).await.unwrap();
        }
    }
    copied
}

/// Whether all row groups of a file have to be decoded.
fn nothing_copied(writer: &TableWriter, file: &DataFile, footer: ParquetMetaData) -> bool {
    let source = writer.source(file, footer);
    source.is_none_or(|source| source.copied(&RowMask::new(), |_, _| false).is_empty())
}

pub(in crate::write) fn random_mask(rng: &mut StdRng, rows: usize) -> RowMask {
    let mut mask = RowMask::new();
    for _ in 0..rng.random_range(1..6) {
        let start = rng.random_range(0..rows as u64);
        let length = [1, 3, 40][rng.random_range(0..3)];
        mask.insert_range(start..(start + length).min(rows as u64));
    }
    mask
}

/// What today's scan makes of the lineage of a file's rows.
fn expected_ids(rows: &RecordBatch, ids: Ids, file: &DataFile) -> RecordBatch {
    let inherited = lineage::inherited(file, 0..rows.num_rows() as u64);
    match ids {
        Ids::Without => rows.clone(),
        Ids::Inherited => add_ids(rows, inherited),
        Ids::Stored | Ids::Partly => {
            let own = rows.num_columns() - 2;
            let fill = |at: usize| -> ArrayRef {
                let stored = rows.column(own + at).as_primitive::<Int64Type>();
                let inherited = inherited[at].as_primitive::<Int64Type>();
                Arc::new(
                    stored
                        .iter()
                        .zip(inherited)
                        .map(|(s, i)| s.or(i))
                        .collect::<Int64Array>(),
                )
            };
            add_ids(
                &rows.project(&(0..own).collect::<Vec<_>>()).unwrap(),
                [fill(0), fill(1)],
            )
        }
    }
}

/// Statistics are true, if not always there.
pub(in crate::write) fn check_bounds(file: &DataFile, rows: &RecordBatch) {
    assert_eq!(file.rows, rows.num_rows() as u64);
    for (field, values) in columns().fields().iter().zip(rows.columns()) {
        let stats = &file.columns[field.name()];
        assert_eq!(stats.values, Some(file.rows), "{}", field.name());
        assert!(
            stats
                .nulls
                .is_none_or(|nulls| nulls == values.null_count() as u64),
            "{}",
            field.name()
        );
        let all: Vec<ScalarValue> = (0..values.len())
            .filter(|row| values.is_valid(*row))
            .map(|row| ScalarValue::try_from_array(values, row).unwrap())
            .collect();
        let nan = |value: &&ScalarValue| matches!(value, ScalarValue::Float64(Some(x)) if x.is_nan());
        let nans = all.iter().filter(nan).count() as u64;
        assert!(stats.nans.is_none_or(|known| known == nans), "{}", field.name());
        assert!(!(stats.exact && nans > 0), "{}", field.name());
        for value in all.iter().filter(|value| !nan(value)) {
            assert!(
                stats.min.as_ref().is_none_or(|min| min <= value),
                "{} {value}",
                field.name()
            );
            assert!(
                stats.max.as_ref().is_none_or(|max| max >= value),
                "{} {value}",
                field.name()
            );
        }
        if stats.exact {
            for bound in [&stats.min, &stats.max] {
                assert!(all.contains(bound.as_ref().unwrap()), "{}", field.name());
            }
        }
    }
}

/// Every way of reading a file finds the same rows: all, by selections that skip pages, by the bounds of
/// pages.
pub(in crate::write) async fn check_pages(
    rng: &mut StdRng,
    store: &Store,
    path: &str,
    whole: &RecordBatch,
    indexed: bool,
) {
    let bytes = store.get(path).await.unwrap();
    let policy = if indexed {
        PageIndexPolicy::Required
    } else {
        PageIndexPolicy::Optional
    };
    let options = ArrowReaderOptions::new().with_page_index_policy(policy);
    let open =
        || ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options.clone()).unwrap();
    let metadata = Arc::clone(open().metadata());
    assert_eq!(metadata.offset_index().is_some(), indexed);
    let mut selectors = Vec::new();
    let mut keep = Vec::new();
    while keep.len() < whole.num_rows() {
        let length = rng.random_range(1..50).min(whole.num_rows() - keep.len());
        let skip = rng.random_bool(0.5);
        selectors.push(if skip {
            RowSelector::skip(length)
        } else {
            RowSelector::select(length)
        });
        keep.extend(std::iter::repeat_n(!skip, length));
    }
    let reader = open()
        .with_row_selection(RowSelection::from(selectors))
        .build()
        .unwrap();
    let found: Vec<_> = reader.map(Result::unwrap).collect();
    let found = concat_batches(&whole.schema(), &found).unwrap();
    assert_eq!(
        found,
        filter_record_batch(whole, &BooleanArray::from(keep)).unwrap()
    );

    let (Some(columns), Some(offsets)) = (metadata.column_index(), metadata.offset_index()) else {
        return;
    };
    let ids = whole.column(0).as_primitive::<Int64Type>();
    let mut group_start = 0;
    for (group, (columns, offsets)) in metadata.row_groups().iter().zip(columns.iter().zip(offsets)) {
        let rows = usize::try_from(group.num_rows()).unwrap();
        let firsts: Vec<usize> = offsets[0]
            .page_locations()
            .iter()
            .map(|p| p.first_row_index as usize)
            .collect();
        if let ColumnIndexMetaData::INT64(index) = &columns[0] {
            for (page, first) in firsts.iter().enumerate() {
                let last = firsts.get(page + 1).copied().unwrap_or(rows);
                for row in group_start + first..group_start + last {
                    if ids.is_valid(row) {
                        assert!(index.min_value(page).unwrap() <= &ids.value(row));
                        assert!(index.max_value(page).unwrap() >= &ids.value(row));
                    }
                }
            }
        }
        group_start += rows;
    }
}

/// The stored bytes of the first columns of each row group.
async fn chunks(store: &Store, file: &DataFile, columns: usize) -> Vec<Vec<Bytes>> {
    let bytes = store.get(&file.path).await.unwrap();
    let chunk = |start: u64, length: u64| bytes.slice(start as usize..(start + length) as usize);
    let groups = footer(store, file).await;
    let groups = groups.row_groups().iter();
    groups
        .map(|group| {
            let places = group.columns()[..columns].iter().map(|chunk| chunk.byte_range());
            places.map(|(start, length)| chunk(start, length)).collect()
        })
        .collect()
}

#[tokio::test]
async fn copying_row_groups_and_decoding_them_give_the_same_rows_lineage_and_true_statistics() {
    let mut copied_in_all = 0;
    for seed in 0..120 {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids = [Ids::Without, Ids::Inherited, Ids::Stored, Ids::Partly][rng.random_range(0..4)];
        let store = store(&format!("copy-{seed}"));
        let table = Arc::new(snapshot(schema(), vec![]));
        let (properties, indexed) = properties(&mut rng);
        let count = rng.random_range(1..400);
        let rows = random(&mut rng, count);
        let rows = with_ids(&mut rng, &rows, ids);
        let stored_ids = matches!(ids, Ids::Stored | Ids::Partly);
        let mut old = foreign(&store, &table, &rows, stored_ids, properties).await;
        let nans_known = rng.random_bool(0.5);
        if nans_known {
            let x = rows.column_by_name("x").unwrap();
            let nans = x
                .as_primitive::<arrow::datatypes::Float64Type>()
                .iter()
                .flatten()
                .filter(|x| x.is_nan());
            let stats = crate::model::ColumnStats {
                nans: Some(nans.count() as u64),
                ..Default::default()
            };
            old.columns.insert("x".into(), stats);
        }
        let mask = random_mask(&mut rng, count);
        let complete = expected_ids(&rows, ids, &old);

        let lineage = ids != Ids::Without;
        let mut plain = writer(
            &store,
            &table,
            WriteOptions {
                copy_from_bytes: None,
                ..eager(lineage)
            },
        );
        assert!(!plain.may_copy(&old) && nothing_copied(&plain, &old, footer(&store, &old).await));
        plain.write(&kept(&complete, &mask, 0)).await.unwrap();
        let decoded = plain.finish().await.unwrap();

        let mut copying = writer(&store, &table, eager(lineage));
        let source = copying.source(&old, footer(&store, &old).await).unwrap();
        let groups = moved(&mut copying, &source, &complete, &mask).await;
        assert_eq!(source.is_indexed(), indexed && !groups.is_empty(), "seed {seed}");
        let copied: Written = copying.finish().await.unwrap();
        copied_in_all += groups.len();
        assert_eq!(copied.rows, decoded.rows, "seed {seed}");
        assert_eq!(
            copying.staged(),
            copied.files.iter().map(|f| f.path.clone()).collect::<Vec<_>>()
        );

        let (mut before, mut after) = (Vec::new(), Vec::new());
        for file in &decoded.files {
            before.push(read(&store, &file.path).await);
        }
        let own = chunks_of(&table);
        let olds = chunks(&store, &old, own).await;
        let mut news = Vec::new();
        for file in &copied.files {
            let rows = read(&store, &file.path).await;
            check_bounds(file, &rows);
            check_pages(&mut rng, &store, &file.path, &rows, indexed || groups.is_empty()).await;
            assert_eq!(file.bytes, store.get(&file.path).await.unwrap().len() as u64);
            news.extend(chunks(&store, file, own).await);
            after.push(rows);
        }
        if let (Some(first), Some(_)) = (after.first(), before.first()) {
            let schema = first.schema();
            let (before, after) = (
                concat_batches(&schema, &before).unwrap(),
                concat_batches(&schema, &after).unwrap(),
            );
            assert_eq!(before, after, "seed {seed}: the same rows in the same order");
        }
        for group in groups {
            assert!(
                news.contains(&olds[group]),
                "seed {seed}: row group {group} is not as it was"
            );
        }
    }
    assert!(copied_in_all > 150, "{copied_in_all}");
}

/// Leaves of the table's own columns.
fn chunks_of(table: &Snapshot) -> usize {
    Layout::new(table, false).unwrap().leaves.len()
}

#[tokio::test]
async fn what_a_chunk_carries_beside_its_pages_comes_along() {
    let mut rng = StdRng::seed_from_u64(1);
    let store = store("copy-carried");
    let table = Arc::new(snapshot(schema(), vec![]));
    let properties = WriterProperties::builder()
        .set_bloom_filter_enabled(true)
        .set_data_page_row_count_limit(20)
        .set_write_batch_size(20)
        .set_coerce_types(true)
        .set_max_row_group_row_count(Some(100))
        .build();
    let old = foreign(&store, &table, &random(&mut rng, 300), false, properties).await;
    let mut copying = writer(&store, &table, eager(false));
    let source = copying.source(&old, footer(&store, &old).await).unwrap();
    let mut read = 0;
    for group in 0..3 {
        read += copying.copy(&source, group).await.unwrap().bytes_read;
    }
    assert!(read < old.bytes, "nothing is read twice: {read} of {}", old.bytes);
    let new = &copying.finish().await.unwrap().files[0];
    let (before, after) = (footer(&store, &old).await, footer(&store, new).await);
    let bytes = store.get(&new.path).await.unwrap();
    for (before, after) in before.row_groups().iter().zip(after.row_groups()) {
        for (before, after) in before.columns().iter().zip(after.columns()) {
            assert_eq!(before.statistics(), after.statistics());
            assert_eq!(before.compression(), after.compression());
            assert_eq!(before.page_encoding_stats(), after.page_encoding_stats());
            assert!(after.page_encoding_stats().is_some());
            assert_eq!(before.encodings_mask(), after.encodings_mask());
            assert_eq!(before.column_index_length(), after.column_index_length());
            assert_eq!(
                before.unencoded_byte_array_data_bytes(),
                after.unencoded_byte_array_data_bytes()
            );
            assert!(after.offset_index_offset().is_some() && after.bloom_filter_offset().is_some());
            let filter = parquet::bloom_filter::Sbbf::read_from_column_chunk(after, &bytes)
                .unwrap()
                .unwrap();
            assert!(filter.num_blocks() > 0);
        }
    }
    assert_eq!(new.split_offsets.len(), 3);
}

#[tokio::test]
async fn a_file_that_our_writer_would_have_written_otherwise_is_decoded() {
    let store = store("copy-foreign");
    let mut rng = StdRng::seed_from_u64(2);
    let rows = random(&mut rng, 50);
    let table = Arc::new(snapshot(schema(), vec![]));
    let properties = || WriterProperties::builder().set_coerce_types(true).build();
    let old = foreign(&store, &table, &rows, false, properties()).await;
    let takes = |table: Arc<Snapshot>, options: WriteOptions| {
        let (store, old) = (store.clone(), old.clone());
        async move {
            let footer = footer(&store, &old).await;
            !nothing_copied(&writer(&store, &table, options), &old, footer)
        }
    };
    assert!(takes(table.clone(), eager(false)).await);
    assert!(takes(table.clone(), eager(true)).await);
    let too_small = WriteOptions {
        copy_from_bytes: Some(1 << 20),
        ..eager(false)
    };
    assert!(!takes(table.clone(), too_small.clone()).await);
    let small_groups = WriteOptions {
        row_group_rows: 200,
        ..too_small
    };
    assert!(takes(table.clone(), small_groups).await);

    let change = |of: &dyn Fn(usize, Field) -> Field| {
        let fields: Vec<Field> = schema()
            .fields()
            .iter()
            .enumerate()
            .map(|(i, f)| of(i, f.as_ref().clone()))
            .collect();
        snapshot(Arc::new(Schema::new(fields)), vec![])
    };
    let third = |i: usize, field: Field, of: &dyn Fn(Field) -> Field| if i == 2 { of(field) } else { field };
    let mut other_spec = snapshot(schema(), vec![]);
    (other_spec.spec_id, other_spec.specs) = (4, BTreeMap::from([(4, vec![])]));
    let others = [
        change(&|i, f| third(i, f, &|f| f.with_name("other"))),
        change(&|i, f| third(i, f, &|f| f.with_nullable(false))),
        change(&|i, f| third(i, f, &|f| f.with_data_type(DataType::Binary))),
        change(&|i, f| third(i, f, &|f| f.with_metadata(HashMap::new()))),
        change(&|i, f| {
            third(i, f, &|f| {
                f.with_metadata(HashMap::from([(FIELD_ID.to_owned(), "99".to_owned())]))
            })
        }),
        snapshot(
            Arc::new(Schema::new(
                schema().fields().iter().rev().cloned().collect::<Vec<_>>(),
            )),
            vec![],
        ),
        snapshot(Arc::new(Schema::new(schema().fields()[1..].to_vec())), vec![]),
        snapshot(schema(), vec![("id", Transform::Identity)]),
        other_spec,
    ];
    for (number, other) in others.into_iter().enumerate() {
        assert!(!takes(Arc::new(other), eager(false)).await, "{number}");
    }

    let mut lies = old.clone();
    lies.rows += 1;
    assert!(
        writer(&store, &table, eager(false))
            .source(&lies, footer(&store, &old).await)
            .is_none()
    );
}

#[tokio::test]
async fn row_groups_go_to_the_file_of_their_partition_in_their_order() {
    let mut rng = StdRng::seed_from_u64(3);
    let store = store("copy-partitions");
    let table = Arc::new(snapshot(
        columns(),
        vec![("id", Transform::Truncate(250)), ("d", Transform::Void)],
    ));
    let small = WriteOptions {
        row_group_rows: 60,
        ..WriteOptions::default()
    };
    let mut first = writer(&store, &table, small.clone());
    first.write(&random_rows(&mut rng, 2_000)).await.unwrap();
    let olds = first.finish().await.unwrap().files;
    assert_eq!(olds.len(), 5, "and the rows without an id");
    let mut copying = writer(&store, &table, small);
    let mut expected: Vec<(Vec<ScalarValue>, RecordBatch)> = Vec::new();
    let mut groups = 0;
    for old in &olds {
        let rows = read(&store, &old.path).await;
        let mask = random_mask(&mut rng, rows.num_rows());
        let source = copying.source(old, footer(&store, old).await).unwrap();
        groups += moved(&mut copying, &source, &rows, &mask).await.len();
        expected.push((old.partition.clone(), kept(&rows, &mask, 0)));
    }
    assert!(groups > 5, "{groups}");
    let news = copying.finish().await.unwrap().files;
    assert_eq!(news.len(), olds.len());
    for new in &news {
        let rows = read(&store, &new.path).await;
        let (_, wanted) = expected
            .iter()
            .find(|(partition, _)| *partition == new.partition)
            .unwrap();
        assert_eq!(rows, *wanted);
        check_bounds(new, &rows);
        let old = olds.iter().find(|old| old.partition == new.partition).unwrap();
        assert_eq!(
            new.path.rsplit_once('/').unwrap().0,
            old.path.rsplit_once('/').unwrap().0
        );
        // Our own files know their NaNs, and so do those that took row groups without any.
        let nans = |file: &DataFile| file.columns["x"].nans;
        assert!(nans(old) != Some(0) || nans(new) == Some(0));
    }
}

#[tokio::test]
async fn files_of_copied_row_groups_are_closed_near_the_target_size() {
    let mut rng = StdRng::seed_from_u64(4);
    let store = store("copy-target");
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
    let table = Arc::new(snapshot(Arc::clone(&schema), vec![]));
    let values: Int64Array = (0..100_000).map(|_| Some(rng.random::<i64>())).collect();
    let rows = RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap();
    let groups = WriteOptions {
        row_group_rows: 2_000,
        ..WriteOptions::default()
    };
    let mut first = writer(&store, &table, groups.clone());
    first.write(&rows).await.unwrap();
    let old = first.finish().await.unwrap().files.remove(0);
    assert_eq!(old.split_offsets.len(), 50);
    let mut copying = writer(
        &store,
        &table,
        WriteOptions {
            target_file_bytes: 100 << 10,
            ..groups
        },
    );
    let source = copying.source(&old, footer(&store, &old).await).unwrap();
    let mask = [5, 50_001].into_iter().collect();
    assert_eq!(moved(&mut copying, &source, &rows, &mask).await.len(), 48);
    let written = copying.finish().await.unwrap();
    assert!(
        (7..=12).contains(&written.files.len()),
        "{} files",
        written.files.len()
    );
    let mut back = Vec::new();
    for file in &written.files {
        assert!(file.bytes < 125 << 10, "{}", file.bytes);
        back.push(read(&store, &file.path).await);
    }
    assert_eq!(
        concat_batches(&back[0].schema(), &back).unwrap(),
        kept(&rows, &mask, 0)
    );
}

#[tokio::test]
async fn page_indexes_that_make_no_sense_are_left_behind() {
    let mut rng = StdRng::seed_from_u64(5);
    let store = store("copy-hostile");
    let table = Arc::new(snapshot(schema(), vec![]));
    let rows = random(&mut rng, 200);
    for seed in 0..40u8 {
        let properties = WriterProperties::builder()
            .set_coerce_types(true)
            .set_max_row_group_row_count(Some(50))
            .build();
        let old = foreign(&store, &table, &rows, false, properties).await;
        let metadata = footer(&store, &old).await;
        let mut bytes = store.get(&old.path).await.unwrap().to_vec();
        let chunk = metadata.row_group(1).column(usize::from(seed) % 9);
        let (start, length) = if seed % 2 == 0 {
            (
                chunk.offset_index_offset().unwrap(),
                chunk.offset_index_length().unwrap(),
            )
        } else {
            (
                chunk.column_index_offset().unwrap(),
                chunk.column_index_length().unwrap(),
            )
        };
        for _ in 0..3 {
            let at = rng.random_range(0..length as usize);
            bytes[start as usize + at] = rng.random();
        }
        let old = DataFile {
            path: format!("hostile-{seed}"),
            ..old
        };
        store.put(&old.path, bytes.into()).await.unwrap();
        let mut copying = writer(&store, &table, eager(false));
        let source = copying.source(&old, metadata).unwrap();
        for group in 0..4 {
            copying.copy(&source, group).await.unwrap();
        }
        for file in copying.finish().await.unwrap().files {
            assert_eq!(
                sorted_rows(&[read(&store, &file.path).await]),
                sorted_rows(&[read(&store, &old.path).await])
            );
        }
    }
}

#[tokio::test]
async fn copying_that_fails_leaves_only_objects_that_staged_names() {
    let mut rng = StdRng::seed_from_u64(6);
    let table = Arc::new(snapshot(columns(), vec![]));
    let rows = random_rows(&mut rng, 300);
    let mut failed = 0;
    for request in 1..30 {
        let plain = store(&format!("copy-faults-{request}"));
        let small = WriteOptions {
            row_group_rows: 50,
            target_file_bytes: 8 << 10,
            ..WriteOptions::default()
        };
        let mut first = writer(
            &plain,
            &table,
            WriteOptions {
                target_file_bytes: 1 << 30,
                ..small.clone()
            },
        );
        first.write(&rows).await.unwrap();
        let old = first.finish().await.unwrap().files.remove(0);
        let footer = footer(&plain, &old).await;
        let (store, faults) = faulty(&plain);
        faults.fail_at(request, Fault::Crash);
        let mut copying = writer(&store, &table, small);
        let source = copying.source(&old, footer).unwrap();
        let mut result = Ok(0);
        for group in 0..6 {
            if result.is_ok() {
                result = match copying.write(&rows.slice(0, 10)).await {
                    Ok(()) => copying.copy(&source, group).await.map(|copied| copied.bytes_read),
                    Err(error) => Err(error),
                };
            }
        }
        let result = match result {
            Ok(_) => copying.finish().await.map(|_| ()),
            Err(error) => Err(error),
        };
        failed += u32::from(result.is_err());
        let staged = copying.staged();
        for object in plain.list("").await.unwrap() {
            assert!(
                object.path == old.path || staged.contains(&object.path),
                "{}",
                object.path
            );
        }
    }
    assert!(failed > 5, "{failed}");
}
