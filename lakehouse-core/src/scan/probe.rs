//! Which column chunks of a data file cannot be decoded.

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;

use super::reader::Readers;
use crate::error::{Error, Result};
use crate::store::Store;

/// A column chunk that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadChunk {
    /// Number of the row group, from 0.
    pub row_group: usize,
    /// The path of the column, as the file has it.
    pub column: String,
    /// What the decoder said.
    pub why: String,
}

/// Decodes every column of every row group of a data file by itself.
///
/// # Errors
/// When the footer cannot be read; those of the store.
pub async fn bad_chunks(store: &Store, path: &str, bytes: u64) -> Result<Vec<BadChunk>> {
    let readers = Readers::new(store.clone());
    let mut reader = readers.open(path, bytes);
    let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await?;
    let schema = metadata.parquet_schema();
    let mut bad = Vec::new();
    for row_group in 0..metadata.metadata().num_row_groups() {
        for column in 0..schema.num_columns() {
            let chunk = ParquetRecordBatchStreamBuilder::new_with_metadata(
                readers.open(path, bytes),
                metadata.clone(),
            )
            .with_row_groups(vec![row_group])
            .with_projection(ProjectionMask::leaves(schema, [column]));
            let decode = async {
                let mut batches = chunk.build()?;
                while batches.try_next().await?.is_some() {}
                Ok::<_, ParquetError>(())
            };
            let why = match AssertUnwindSafe(decode).catch_unwind().await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => match Error::from(error) {
                    failed @ Error::Store { .. } => return Err(failed),
                    error => error.to_string(),
                },
                Err(_) => "the decoder gave up on it".to_owned(),
            };
            bad.push(BadChunk {
                row_group,
                column: schema.column(column).path().string(),
                why,
            });
        }
    }
    Ok(bad)
}
