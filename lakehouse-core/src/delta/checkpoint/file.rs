//! One Parquet file of a checkpoint: written batch by batch, and read back before it gets its name.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::json::{ReaderBuilder, WriterBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::super::actions::{self, Action};
use crate::error::{Error, Result};

/// Rows of a row group: what is held before it is compressed.
const GROUP_ROWS: usize = 64 << 10;
/// Rows encoded together.
const BATCH_ROWS: usize = 1024;

/// A file in the making, and what it is to hold.
pub(super) struct Draft {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    expected: Contents,
}

impl Draft {
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        Ok(Self {
            writer: ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(properties))?,
            schema,
            expected: Contents::default(),
        })
    }

    pub(super) fn push(&mut self, rows: &[Action]) -> Result<()> {
        for rows in rows.chunks(BATCH_ROWS) {
            self.expected.count(rows);
            self.writer.write(&encode(&self.schema, rows)?)?;
        }
        Ok(())
    }

    /// How many actions it has.
    pub(super) fn actions(&self) -> u64 {
        self.expected.actions
    }

    /// The bytes of the file, and what it holds.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it does not read back as it was written; `place` is what it would be called.
    pub(super) fn finish(self, place: &str) -> Result<(Bytes, Contents)> {
        let bytes = Bytes::from(self.writer.into_inner()?);
        let mut found = Contents::default();
        read(&bytes, place, |rows| {
            found.count(&rows);
            Ok(())
        })?;
        if found != self.expected {
            return Err(Error::invalid(
                "the checkpoint does not read back as it was written",
                place,
            ));
        }
        Ok((bytes, found))
    }
}

/// What a checkpoint holds, to compare what was meant with what is there: counts, and a sum over the
/// files that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) actions: u64,
    pub(super) files: u64,
    tombstones: u64,
    sum: u64,
}

impl Contents {
    fn count(&mut self, rows: &[Action]) {
        for row in rows {
            self.actions += 1;
            let (key, stats) = match (&row.add, &row.remove) {
                (Some(add), _) => {
                    self.files += 1;
                    (add.key(), &add.stats)
                }
                (_, Some(remove)) => {
                    self.tombstones += 1;
                    (remove.key(), &remove.stats)
                }
                _ => continue,
            };
            let text = format!("{key:?}{stats:?}");
            self.sum = self.sum.wrapping_add(u64::from(crc32fast::hash(text.as_bytes())));
        }
    }
}

fn encode(schema: &SchemaRef, rows: &[Action]) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(SchemaRef::clone(schema))
        .with_batch_size(rows.len())
        .build_decoder()?;
    decoder.serialize(rows)?;
    let batch = decoder.flush()?;
    batch.ok_or_else(|| Error::invalid("an empty part of a checkpoint", ""))
}

fn read(bytes: &Bytes, place: &str, mut visit: impl FnMut(Vec<Action>) -> Result<()>) -> Result<()> {
    let broken = |error: parquet::errors::ParquetError| {
        Error::invalid(format!("the checkpoint cannot be read: {error}"), place)
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(broken)?;
    for batch in builder.build().map_err(broken)? {
        visit(decode(&batch?, place)?)?;
    }
    Ok(())
}

/// The actions of rows that have any of these columns.
pub(super) fn decode_filled(batch: &RecordBatch, place: &str) -> Result<Vec<Action>> {
    let filled: Vec<bool> = (0..batch.num_rows())
        .map(|row| batch.columns().iter().any(|column| column.is_valid(row)))
        .collect();
    if !filled.contains(&true) {
        return Ok(Vec::new());
    }
    decode(
        &arrow::compute::filter_record_batch(batch, &filled.into())?,
        place,
    )
}

fn decode(batch: &RecordBatch, place: &str) -> Result<Vec<Action>> {
    let mut text = Vec::new();
    // Nulls are written, so that a partition value that is NULL stays one; `null` structs are none.
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::LineDelimited>(&mut text);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    actions::parse(&text, place)
}
