//! How the columns of a row group are stored, learned from a row group before: compressing what does not get smaller takes
//! time of the writer and of every reader, and so does a dictionary that most values do not fit into.

use std::sync::{Mutex, MutexGuard, PoisonError};

use parquet::basic::{Compression, Encoding, PageType};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;

/// Row groups with fewer rows say little.
const LEAST_ROWS: usize = 1 << 16;
/// After so many row groups it is looked again, since what comes can be different.
const EVERY: usize = 16;

/// What is known of the columns of an operation's files.
#[derive(Debug, Default)]
pub(super) struct Profiles(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    columns: Vec<Profile>,
    /// Row groups since then.
    groups: usize,
}

/// How a column is stored.
#[derive(Debug, Clone)]
struct Profile {
    path: ColumnPath,
    compressed: bool,
    dictionary: bool,
}

impl Profiles {
    /// The properties of the next row group. `all_compressed`: it was asked for a codec.
    pub(super) fn apply(
        &self,
        mut properties: WriterPropertiesBuilder,
        all_compressed: bool,
    ) -> WriterPropertiesBuilder {
        for column in &self.known().columns {
            let path = || column.path.clone();
            if !column.compressed && !all_compressed {
                properties = properties.set_column_compression(path(), Compression::UNCOMPRESSED);
            }
            if !column.dictionary {
                properties = properties.set_column_dictionary_enabled(path(), false);
            }
        }
        properties
    }

    /// Looks at a row group that was written, if it is large, and if there is need to.
    pub(super) fn learn<'a>(&self, rows: usize, chunks: impl Iterator<Item = &'a ColumnCloseResult>) {
        if rows < LEAST_ROWS {
            return;
        }
        let mut known = self.known();
        known.groups += 1;
        if known.columns.is_empty() {
            known.columns = chunks.map(Profile::of).collect();
        } else if known.groups >= EVERY {
            *known = Known::default();
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Profile {
    fn of(close: &ColumnCloseResult) -> Self {
        let chunk = &close.metadata;
        let (stored, plain) = (chunk.compressed_size(), chunk.uncompressed_size());
        let pages = |dictionary: bool| -> i64 {
            let pages = chunk.page_encoding_stats().into_iter().flatten();
            let data = pages.filter(|page| page.page_type != PageType::DICTIONARY_PAGE);
            let coded = |encoding| matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
            data.filter(|page| coded(page.encoding) == dictionary)
                .map(|page| i64::from(page.count))
                .sum()
        };
        let data = close.offset_index.as_ref().map(|index| {
            let sizes = index.page_locations.iter();
            sizes
                .map(|page| i64::from(page.compressed_page_size))
                .sum::<i64>()
        });
        Self {
            path: chunk.column_path().clone(),
            // An eighth less is worth it.
            compressed: stored < plain - plain / 8,
            // There was room for most values, and they take less than the places where they stand.
            dictionary: pages(true) >= pages(false) && data.is_none_or(|data| stored - data <= data),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::basic::Compression;
    use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use crate::write::tests::{read, snapshot, store, written};
    use crate::write::{Codec, WriteOptions, Written};

    const GROUP: usize = 70_000;

    /// Rows of numbers that nothing makes smaller, of words that a dictionary does, of texts that a codec does.
    fn rows(groups: usize) -> RecordBatch {
        let mut rng = StdRng::seed_from_u64(11);
        let rows = groups * GROUP;
        let noise: Int64Array = (0..rows).map(|_| Some(rng.random::<i64>())).collect();
        let word = |n: usize| ["red", "green", "blue"][n % 3];
        let words: StringArray = (0..rows).map(|_| Some(word(rng.random_range(0..9)))).collect();
        let texts: StringArray = (0..rows).map(|n| Some(format!("{n:0150} is a text"))).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("noise", Arc::new(noise)),
            ("word", Arc::new(words)),
            ("text", Arc::new(texts)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true))).unwrap()
    }

    /// The first so many columns of the rows are written, and read again.
    async fn stored(
        name: &str,
        columns: usize,
        groups: usize,
        options: WriteOptions,
    ) -> (Written, Vec<ParquetMetaData>) {
        let (store, rows) = (store(name), rows(groups));
        let columns: Vec<usize> = (0..columns).collect();
        let rows = rows.project(&columns).unwrap();
        let options = WriteOptions {
            row_group_rows: GROUP,
            ..options
        };
        let snapshot = snapshot(rows.schema(), vec![]);
        let written = written(&store, snapshot, options, std::slice::from_ref(&rows)).await;
        let mut footers = Vec::new();
        let mut start = 0;
        for file in &written.files {
            let back = read(&store, &file.path).await;
            assert_eq!(back.columns(), rows.slice(start, back.num_rows()).columns());
            start += back.num_rows();
            let bytes = store.get(&file.path).await.unwrap();
            footers.push(ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap());
        }
        assert_eq!(start, rows.num_rows());
        (written, footers)
    }

    /// Of each row group, which columns are compressed, and which have a dictionary.
    fn profiles(footers: &[ParquetMetaData]) -> Vec<(Vec<bool>, Vec<bool>)> {
        let groups = footers.iter().flat_map(ParquetMetaData::row_groups);
        groups
            .map(|group| {
                let columns = || group.columns().iter();
                let compressed = |of: &ColumnChunkMetaData| of.compression() != Compression::UNCOMPRESSED;
                (
                    columns().map(compressed).collect(),
                    columns()
                        .map(|column| column.dictionary_page_offset().is_some())
                        .collect(),
                )
            })
            .collect()
    }

    #[tokio::test]
    async fn later_row_groups_have_no_codec_and_no_dictionary_where_the_first_one_gained_nothing() {
        let (written, footers) = stored("profile", 3, 3, WriteOptions::default()).await;
        let all = vec![true; 3];
        let later = (vec![false, true, true], vec![false, true, false]);
        assert_eq!(profiles(&footers), [(all.clone(), all), later.clone(), later]);
        assert_eq!(written.files.len(), 1);
    }

    #[tokio::test]
    async fn what_was_learned_holds_for_the_next_files_too_and_is_looked_at_again() {
        let options = WriteOptions {
            target_file_bytes: 1,
            ..WriteOptions::default()
        };
        let (written, footers) = stored("again", 3, 18, options).await;
        assert!(written.files.len() > 18);
        let full: Vec<bool> = profiles(&footers)
            .into_iter()
            .map(|(compressed, _)| compressed[0])
            .collect();
        assert!(
            full[0] && !full.iter().skip(1).all(|compressed| !compressed),
            "{full:?}"
        );
    }

    #[tokio::test]
    async fn a_codec_that_was_asked_for_is_used_for_every_column() {
        let options = WriteOptions {
            codec: Codec::parse("gzip", None).unwrap(),
            ..WriteOptions::default()
        };
        let (_, footers) = stored("asked", 3, 2, options).await;
        assert!(
            profiles(&footers)
                .iter()
                .all(|(compressed, _)| compressed.iter().all(|is| *is))
        );
    }

    #[tokio::test]
    async fn a_file_exceeds_its_size_a_little_so_that_its_last_row_group_is_full() {
        // The first row group has 700 KB, those without a dictionary 560 KB.
        for (target, groups) in [
            // The fourth row group ends behind the size, by less than an eighth of it.
            (2_200_000, vec![4, 2]),
            // The third one by more: the file is closed where it is; that of the second file by less.
            (1_560_000, vec![3, 3, 1]),
            // Three are closer to it than four.
            (2_000_000, vec![3, 3]),
        ] {
            let options = WriteOptions {
                target_file_bytes: target,
                ..WriteOptions::default()
            };
            let (written, footers) = stored(&format!("full{target}"), 1, 6, options).await;
            let found: Vec<usize> = footers.iter().map(ParquetMetaData::num_row_groups).collect();
            let sizes: Vec<u64> = written.files.iter().map(|file| file.bytes).collect();
            assert_eq!(found, groups, "{target}: {sizes:?}");
        }
    }
}
