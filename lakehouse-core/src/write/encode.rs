//! One Parquet file at a time, encoded in memory on a blocking thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;

use super::layout::Layout;
use super::statistics;
use crate::error::Result;
use crate::model::CommitId;

/// Rows and (anticipated) bytes of a row group.
const ROW_GROUP_ROWS: usize = 1 << 20;
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Rows handed to the encoder at once: how finely file sizes are met.
const STEP_ROWS: usize = 8_192;

/// Numbers files within this process. Several writers may work under one commit id, and a plan may be
/// made again under it: no two of them may ever use one name.
static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

/// What every file of an operation has in common.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) layout: Layout,
    pub(super) commit_id: CommitId,
    pub(super) data_prefix: &'static str,
    pub(super) target_file_bytes: u64,
}

/// A file that is being encoded.
#[derive(Debug)]
pub(super) struct Encoder {
    path: String,
    writer: ArrowWriter<Vec<u8>>,
    nans: Vec<u64>,
    rows: u64,
}

/// A file that is complete, apart from what was taken out of the encoder before.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) path: String,
    /// The bytes that were not taken yet.
    pub(super) rest: Vec<u8>,
    /// Size of the whole file.
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) metadata: ParquetMetaData,
    pub(super) nans: Vec<u64>,
}

impl Recipe {
    /// Encodes batches into the open file, if there is one, and new ones below `folder`; files that
    /// reach the target size are completed, the last one too if `close` says so.
    pub(super) fn encode(
        &self,
        folder: &str,
        mut open: Option<Encoder>,
        batches: &[RecordBatch],
        close: bool,
    ) -> Result<(Option<Encoder>, Vec<Encoded>)> {
        let mut complete = Vec::new();
        if let Some(first) = batches.first() {
            // Many small slices cost more than the copy that joins them.
            let joined = if batches.len() == 1 {
                first.clone()
            } else {
                concat_batches(first.schema_ref(), batches)?
            };
            let stored = self.layout.store(&joined)?;
            for start in (0..stored.num_rows()).step_by(STEP_ROWS) {
                let step = stored.slice(start, STEP_ROWS.min(stored.num_rows() - start));
                let encoder = match &mut open {
                    Some(encoder) => encoder,
                    None => open.insert(Encoder::new(self, folder)?),
                };
                encoder.write(&step)?;
                if encoder.size() >= self.target_file_bytes {
                    complete.extend(open.take().map(Encoder::finish).transpose()?);
                }
            }
        }
        if close {
            complete.extend(open.take().map(Encoder::finish).transpose()?);
        }
        Ok((open, complete))
    }

    fn path(&self, folder: &str) -> String {
        let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
        let slash = if folder.is_empty() { "" } else { "/" };
        format!(
            "{}{folder}{slash}{number:05}-{}.parquet",
            self.data_prefix, self.commit_id
        )
    }
}

impl Encoder {
    fn new(recipe: &Recipe, folder: &str) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            // Lists and maps get the names that the Parquet format prescribes, as other engines expect.
            .set_coerce_types(true)
            .build();
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            // Types are the table's; a copy of the Arrow schema would weigh more than a small file.
            .with_skip_arrow_metadata(true);
        let file = Arc::clone(&recipe.layout.file);
        Ok(Self {
            path: recipe.path(folder),
            writer: ArrowWriter::try_new_with_options(Vec::new(), file, options)?,
            nans: vec![0; recipe.layout.leaves.len()],
            rows: 0,
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn write(&mut self, step: &RecordBatch) -> Result<()> {
        statistics::count_nans(step, &mut self.nans);
        self.rows += step.num_rows() as u64;
        Ok(self.writer.write(step)?)
    }

    /// Bytes that the file would have if it ended here, about.
    fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.writer.memory_size() + self.writer.inner().capacity()
    }

    /// Bytes that could be taken.
    pub(super) fn ready(&self) -> usize {
        self.writer.inner().len()
    }

    /// Takes the encoded bytes that are ready to be stored.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.inner_mut())
    }

    fn finish(mut self) -> Result<Encoded> {
        let metadata = self.writer.finish()?;
        let bytes = self.writer.bytes_written() as u64;
        let rest = self.take();
        Ok(Encoded {
            path: self.path,
            rest,
            bytes,
            rows: self.rows,
            metadata,
            nans: self.nans,
        })
    }
}
