//! `add` actions as data files and back; the stream of a version's files.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc::Receiver;

use super::actions::{AddFile, RemoveFile};
use super::sieve::Sieve;
use super::state::State;
use super::{clustering, footer, stats, vectors};
use crate::error::{Error, Result};
use crate::model::{CLUSTERING, DataFile, FileNotes, Prune, Snapshot};
use crate::planted::{self, Bug};
use crate::store::Store;

/// What is written as it is in a path; everything else is percent-encoded, the percent sign included.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b'=')
    .remove(b'+')
    .remove(b',')
    .remove(b'@');

/// Footers read at the same time, for files whose `add` does not count their rows.
const CONCURRENT_FOOTERS: usize = 8;

/// A data file of the log, and whether its `add` says how many rows it has.
pub(super) struct Found {
    pub(super) file: DataFile,
    pub(super) rows_known: bool,
}

/// What the files of one log entry have in common.
pub(super) struct Stamp<'a> {
    /// When, in milliseconds since 1970 UTC.
    pub(super) now_ms: i64,
    /// The rows of the table change.
    pub(super) data_change: bool,
    /// The columns that the table is clustered by.
    pub(super) clustered: &'a [clustering::Path],
}

fn notes(add: &AddFile) -> Option<Arc<FileNotes>> {
    let notes = FileNotes {
        tags: add.tags.clone().unwrap_or_default(),
        clustering: add.clustering_provider.clone(),
        sorted_by: Vec::new(),
    };
    (notes != FileNotes::default()).then(|| Arc::new(notes))
}

impl State {
    /// The data file of an `add`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a value cannot be read; [`Error::Denied`] when it lies outside the table.
    pub(super) fn data_file(&self, add: &AddFile, store: &Store) -> Result<Found> {
        self.data_file_telling(add, store, &|_| true)
    }

    /// The same, with the statistics of the columns that are `wanted` only.
    ///
    /// # Errors
    /// As [`State::data_file`].
    fn data_file_telling(
        &self,
        add: &AddFile,
        store: &Store,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Found> {
        let broken = |what: &str| Error::invalid(format!("the file {:?} {what}", add.path), "the Delta log");
        let statistics = stats::parse(add.stats.as_deref(), &self.data_fields(), wanted);
        let partition: Result<Vec<_>> = self
            .partitions
            .iter()
            .map(|column| {
                let text = add
                    .partition_values
                    .get(&column.physical)
                    .and_then(Option::as_deref);
                column.parse(text)
            })
            .collect();
        let masks = match &add.deletion_vector {
            Some(vector) => vec![vectors::mask_ref(vector, store)?],
            None => Vec::new(),
        };
        Ok(Found {
            rows_known: statistics.rows.is_some(),
            file: DataFile {
                path: store.relative_encoded(&add.path)?,
                recorded: add.path.clone(),
                bytes: u64::try_from(add.size).map_err(|_| broken("has a negative size"))?,
                rows: statistics.rows.unwrap_or(0),
                spec_id: 0,
                partition: partition?,
                columns: statistics.columns,
                masks,
                equality_deletes: Vec::new(),
                sequence: add.default_row_commit_version,
                first_row_id: add.base_row_id,
                split_offsets: Vec::new(),
                notes: notes(add),
            },
        })
    }

    /// The `add` of a file that is part of the table, as it is recorded, with the mask it has now.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a partition value that cannot be written.
    pub(super) fn add(&self, file: &DataFile, stamp: &Stamp<'_>) -> Result<AddFile> {
        if file.partition.len() != self.partitions.len() {
            return Err(Error::invalid(
                format!(
                    "the file has {} partition values, the table {} partition columns",
                    file.partition.len(),
                    self.partitions.len()
                ),
                &file.path,
            ));
        }
        let partition_values: Result<_> = self
            .partitions
            .iter()
            .zip(&file.partition)
            .map(|(column, value)| Ok((column.physical.clone(), column.render(value)?)))
            .collect();
        let too_large = |_| Error::invalid("the file is too large for the Delta log", &file.path);
        let wanted = stats::Wanted {
            limit: self
                .number("delta.dataSkippingNumIndexedCols")
                .unwrap_or(stats::INDEXED_COLUMNS),
            always: stamp.clustered,
        };
        let notes = file.notes.as_deref();
        Ok(AddFile {
            path: file.recorded.clone(),
            partition_values: partition_values?,
            size: file.bytes.try_into().map_err(too_large)?,
            modification_time: stamp.now_ms,
            data_change: stamp.data_change,
            stats: Some(stats::render(file, &self.data_fields(), wanted)),
            tags: notes
                .map(|notes| notes.tags.clone())
                .filter(|tags| !tags.is_empty()),
            deletion_vector: vectors::descriptor(file)?,
            base_row_id: file.first_row_id.filter(|_| !planted::is(Bug::FileIdsForgotten)),
            default_row_commit_version: file.sequence,
            clustering_provider: notes
                .and_then(|notes| notes.clustering.clone())
                // What others wrote stays; we write it where the table is clustered.
                .filter(|name| name != CLUSTERING || self.protocol.has(clustering::FEATURE)),
        })
    }

    /// The `add` of a new file.
    ///
    /// # Errors
    /// As [`State::add`].
    pub(super) fn add_new(&self, file: &DataFile, stamp: &Stamp<'_>) -> Result<AddFile> {
        Ok(AddFile {
            path: utf8_percent_encode(&file.path, ENCODED).to_string(),
            ..self.add(file, stamp)?
        })
    }

    /// The `remove` of a file that is part of the table, with the mask it had.
    ///
    /// # Errors
    /// As [`State::add`].
    pub(super) fn remove(&self, file: &DataFile, stamp: &Stamp<'_>) -> Result<RemoveFile> {
        Ok(self.add(file, stamp)?.removal(stamp.now_ms, stamp.data_change))
    }
}

/// The files of a version that may hold matching rows, as the log is read.
pub(super) fn stream(
    store: Store,
    snapshot: Arc<Snapshot>,
    prune: Arc<Prune>,
) -> BoxStream<'static, Result<DataFile>> {
    // The reading starts when the stream is first polled: only then is there a runtime for certain.
    let reading: Option<Receiver<_>> = None;
    stream::try_unfold(
        (store, snapshot, prune, reading),
        |(store, snapshot, prune, reading)| async {
            let state = State::of(&snapshot)?;
            let begin = || state.replay.sifted(&store, Sieve::new(state, &snapshot, &prune));
            let mut reading = reading.unwrap_or_else(begin);
            let Some(batch) = reading.recv().await else {
                return Ok::<_, Error>(None);
            };
            let batch = batch?;
            let (files, known) = data_files(state, &store, &prune, &batch.adds)?;
            prune.counts().read_in_full.fetch_add(files.len() as u64, Relaxed);
            let keep = match batch.sifted {
                true => vec![true; files.len()],
                false => prune.keep_files(&snapshot, &files)?,
            };
            let files = completed(&store, files, known, keep).await?;
            let files = stream::iter(files.into_iter().map(Ok));
            Ok(Some((files, (store, snapshot, prune, Some(reading)))))
        },
    )
    .try_flatten()
    .boxed()
}

/// The data files of these, and whether their rows are counted.
fn data_files(
    state: &State,
    store: &Store,
    prune: &Prune,
    adds: &[AddFile],
) -> Result<(Vec<DataFile>, Vec<bool>)> {
    let found = adds.iter().map(|add| {
        let found = state.data_file_telling(add, store, &|column| prune.tells_of(column))?;
        Ok((found.file, found.rows_known))
    });
    found.collect()
}

/// Those of the files that are kept, with their numbers of rows.
async fn completed(
    store: &Store,
    files: Vec<DataFile>,
    known: Vec<bool>,
    keep: Vec<bool>,
) -> Result<Vec<DataFile>> {
    let kept = files.into_iter().zip(known).zip(keep).filter(|(_, keep)| *keep);
    stream::iter(kept.map(|((file, rows_known), _)| Found { file, rows_known }))
        .map(|found| complete(store, found))
        .buffered(CONCURRENT_FOOTERS)
        .try_collect()
        .await
}

/// The file with its number of rows, read from its footer where the log does not say.
pub(super) async fn complete(store: &Store, found: Found) -> Result<DataFile> {
    let mut file = found.file;
    if !found.rows_known {
        file.rows = footer::rows(store, &file.path, file.bytes).await?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::tests::memory;

    #[test]
    fn keys_survive_the_way_through_the_log() {
        let store = memory();
        for key in [
            "a.parquet",
            "d=2013-01-01/x y.parquet",
            "r=100%25/ä?#'.parquet",
            "a:b/c+d.parquet",
        ] {
            let encoded = utf8_percent_encode(key, ENCODED).to_string();
            assert_eq!(store.relative_encoded(&encoded).unwrap(), key, "{encoded}");
        }
        assert_eq!(
            utf8_percent_encode("r=a%20b/c.parquet", ENCODED).to_string(),
            "r=a%2520b/c.parquet"
        );
    }
}
