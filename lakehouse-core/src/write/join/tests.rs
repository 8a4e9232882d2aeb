use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::{DataFile, RowMask, Snapshot};
use crate::store::Store;
use crate::write::copy::tests::{
    check_bounds, check_pages, footer, foreign, kept, random, random_mask, schema, writer,
};
use crate::write::tests::{read, snapshot, store};
use crate::write::{Codec, WriteOptions, Written};

/// Rows of the small row groups, and how many of them make a new one.
const PART: usize = 700;
const PARTS: usize = 6;

/// What a writer may have chosen that keeps columns joinable, or not.
fn properties(rng: &mut StdRng) -> WriterPropertiesBuilder {
    // One odd part spoils the column for all of them.
    let odd = |rng: &mut StdRng| rng.random_bool(0.01);
    let codec = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
    ][rng.random_range(0..3)];
    let version = match odd(rng) {
        true => WriterVersion::PARQUET_2_0,
        false => WriterVersion::PARQUET_1_0,
    };
    WriterProperties::builder()
        .set_compression(codec)
        .set_coerce_types(true)
        .set_dictionary_enabled(!odd(rng))
        // Some dictionaries are full in the middle of a chunk.
        .set_dictionary_page_size_limit([1 << 20, 300][usize::from(odd(rng))])
        .set_offset_index_disabled(odd(rng))
        .set_data_page_row_count_limit(rng.random_range(200..PART))
        .set_write_batch_size(50)
        .set_writer_version(version)
}

/// Writes the rows of these files that are not hidden as they are stored.
async fn moved(
    store: &Store,
    table: &Arc<Snapshot>,
    files: &[(DataFile, RowMask)],
    options: WriteOptions,
) -> Written {
    let mut joining = writer(store, table, options);
    for (file, hidden) in files {
        let source = joining.source(file, footer(store, file).await).unwrap();
        for (group, _) in source.visible(hidden) {
            let rows = source.read(store, group, hidden).await.unwrap();
            joining.write_stored(&source, rows).await.unwrap();
        }
    }
    joining.finish().await.unwrap()
}

fn options() -> WriteOptions {
    WriteOptions {
        row_group_rows: PART * PARTS,
        copy_from_bytes: None,
        ..WriteOptions::default()
    }
}

/// Chunks that were put together without decoding have no histogram of levels, those of the encoder have one.
fn is_joined(chunk: &ColumnChunkMetaData) -> bool {
    chunk.dictionary_page_offset().is_some() && chunk.definition_level_histogram().is_none()
}

fn joined_chunks(footer: &ParquetMetaData) -> Vec<String> {
    let chunks = footer.row_groups().iter().flat_map(|group| group.columns());
    let joined = chunks.filter(|chunk| is_joined(chunk));
    joined.map(|chunk| chunk.column_path().string()).collect()
}

/// Columns of every type, most of them with few different values, so that they have dictionaries.
fn rows(rng: &mut StdRng, count: usize) -> RecordBatch {
    let values = random(rng, 40 + count / 20);
    let at: arrow::array::UInt32Array = (0..count)
        .map(|_| rng.random_range(0..values.num_rows() as u32))
        .collect();
    arrow::compute::take_record_batch(&values, &at).unwrap()
}

#[tokio::test]
async fn row_groups_that_become_one_keep_their_rows_bounds_and_pages() {
    let (mut joined, mut whole) = (0, 0);
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let store = store(&format!("join{seed}"));
        let table = Arc::new(snapshot(schema(), vec![]));
        let (mut files, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..rng.random_range(2..3 * PARTS) {
            let count = rng.random_range(PART / 2..PART);
            let own = rows(&mut rng, count);
            let file = foreign(&store, &table, &own, false, properties(&mut rng).build()).await;
            let hidden = match rng.random_bool(0.03) {
                true => random_mask(&mut rng, count),
                false => RowMask::new(),
            };
            expected.push(kept(&own, &hidden, 0));
            files.push((file, hidden));
        }
        let written = moved(&store, &table, &files, options()).await;
        let expected = concat_batches(&schema(), &expected).unwrap();
        assert_eq!(written.rows, expected.num_rows() as u64, "seed {seed}");
        let mut back = Vec::new();
        for file in &written.files {
            let rows = read(&store, &file.path).await;
            check_bounds(file, &rows);
            check_pages(&mut rng, &store, &file.path, &rows, true).await;
            let footer = footer(&store, file).await;
            joined += joined_chunks(&footer).len();
            whole += footer.row_groups().len();
            back.push(rows);
        }
        let back = concat_batches(&back[0].schema(), &back).unwrap();
        assert_eq!(back.columns(), expected.columns(), "seed {seed}");
    }
    assert!(joined > 2 * whole, "{joined} chunks of {whole} row groups");
}

#[tokio::test]
async fn columns_that_cannot_be_joined_are_decoded_and_the_others_are_not() {
    let mut rng = StdRng::seed_from_u64(7);
    let table = Arc::new(snapshot(schema(), vec![]));
    let plain = |name: &str| parquet::schema::types::ColumnPath::from(name);
    let chunk = parquet::file::properties::EnabledStatistics::Chunk;
    let cases: [(&str, WriterPropertiesBuilder, bool); 6] = [
        (
            "no bounds of pages",
            WriterProperties::builder().set_statistics_enabled(chunk),
            false,
        ),
        ("as we write", WriterProperties::builder(), true),
        (
            "no dictionary",
            WriterProperties::builder().set_column_dictionary_enabled(plain("low"), false),
            false,
        ),
        (
            "no statistics",
            WriterProperties::builder().set_column_statistics_enabled(
                plain("low"),
                parquet::file::properties::EnabledStatistics::None,
            ),
            false,
        ),
        (
            "pages of another version",
            WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_2_0),
            false,
        ),
        (
            "pages of few rows",
            WriterProperties::builder()
                .set_data_page_row_count_limit(10)
                .set_write_batch_size(10),
            false,
        ),
    ];
    for (name, properties, expected) in cases {
        let store = store(&format!("join-{}", name.replace(' ', "-")));
        let properties = properties.set_coerce_types(true).build();
        let mut files = Vec::new();
        for _ in 0..PARTS {
            let own = rows(&mut rng, PART);
            let file = foreign(&store, &table, &own, false, properties.clone()).await;
            files.push((file, RowMask::new()));
        }
        let written = moved(&store, &table, &files, options()).await;
        let footer = footer(&store, &written.files[0]).await;
        assert_eq!(footer.num_row_groups(), 1, "{name}");
        let joined = joined_chunks(&footer);
        assert_eq!(joined.contains(&"low".to_owned()), expected, "{name}: {joined:?}");
        for never in ["x", "pair.a", "list.list.element"] {
            assert!(!joined.contains(&never.to_owned()), "{name}: {joined:?}");
        }
    }
}

#[tokio::test]
async fn codecs_are_kept_and_only_what_the_encoder_knows_is_encoded() {
    let mut rng = StdRng::seed_from_u64(8);
    let table = Arc::new(snapshot(schema(), vec![]));
    for (name, joins) in [("zstd", true), ("uncompressed", true), ("snappy", false)] {
        let store = store(&format!("join-codec-{name}"));
        let mut files = Vec::new();
        for _ in 0..PARTS {
            let own = rows(&mut rng, PART);
            let properties = WriterProperties::builder().set_coerce_types(true).build();
            files.push((
                foreign(&store, &table, &own, false, properties).await,
                RowMask::new(),
            ));
        }
        let options = WriteOptions {
            codec: Codec::parse(name, None).unwrap(),
            ..options()
        };
        let written = moved(&store, &table, &files, options).await;
        let footer = footer(&store, &written.files[0]).await;
        assert_eq!(!joined_chunks(&footer).is_empty(), joins, "{name}");
    }
}

#[tokio::test]
async fn damaged_pages_are_told_or_read_as_they_were_and_never_make_other_rows() {
    let mut rng = StdRng::seed_from_u64(9);
    let table = Arc::new(snapshot(schema(), vec![]));
    let (mut told, mut same) = (0, 0);
    for seed in 0..60 {
        let store = store(&format!("join-damaged-{seed}"));
        let (mut files, mut olds) = (Vec::new(), Vec::new());
        for number in 0..PARTS {
            let own = rows(&mut rng, PART);
            let properties = WriterProperties::builder().set_coerce_types(true).build();
            let mut file = foreign(&store, &table, &own, false, properties).await;
            if number == 2 {
                let chunk = footer(&store, &file).await.row_group(0).column(seed % 9).clone();
                let mut bytes = store.get(&file.path).await.unwrap().to_vec();
                let (start, length) = chunk.byte_range();
                let at = rng.random_range(start..start + length) as usize;
                bytes[at] ^= 1 << rng.random_range(0..8);
                file.path = format!("damaged-{seed}");
                store.put(&file.path, bytes.into()).await.unwrap();
            }
            olds.push(file.clone());
            files.push((file, RowMask::new()));
        }
        let old = {
            let mut back = Vec::new();
            for file in &olds {
                let bytes = store.get(&file.path).await.unwrap();
                let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes);
                let all = reader.and_then(|reader| reader.build());
                back.push(all.ok().and_then(|all| all.collect::<Result<Vec<_>, _>>().ok()));
            }
            back.into_iter().collect::<Option<Vec<_>>>()
        };
        let mut joining = writer(&store, &table, options());
        let mut result = Ok(());
        for (file, hidden) in &files {
            let source = joining.source(file, footer(&store, file).await).unwrap();
            if result.is_ok() {
                result = match source.read(&store, 0, hidden).await {
                    Ok(rows) => joining.write_stored(&source, rows).await,
                    Err(error) => Err(error),
                };
            }
        }
        let written = match result {
            Ok(()) => joining.finish().await,
            Err(error) => Err(error),
        };
        let Ok(written) = written else {
            told += 1;
            continue;
        };
        let Some(old) = old else {
            panic!("seed {seed}: rows that nobody can read were written");
        };
        let old = concat_batches(&old[0][0].schema(), old.iter().flatten()).unwrap();
        let new = read(&store, &written.files[0].path).await;
        assert_eq!(new.num_rows(), old.num_rows());
        let pairs = new.columns().iter().zip(old.columns());
        for (new, old) in pairs {
            // Values that are not numbers any more are equal to themselves here.
            assert_eq!(format!("{new:?}"), format!("{old:?}"), "seed {seed}");
        }
        same += 1;
    }
    assert!(told > 10 && same > 5, "{told} told, {same} the same");
}
