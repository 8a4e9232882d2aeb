//! What the footers of the files say.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::Type as Physical;

use super::columns::Shape;
use super::listing::Candidate;
use crate::error::{Error, Result};
use crate::model::ColumnStats;
use crate::scan::read_footer;
use crate::store::Store;
use crate::write::{footer_statistics, row_group_offsets};

/// Footers that are read at the same time.
const CONCURRENT: usize = 16;

/// What is kept of one file.
#[derive(Debug)]
pub(super) struct Footer {
    /// Object key below the table root.
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// Statistics by column, of the types that the file has.
    pub(super) columns: BTreeMap<String, ColumnStats>,
    pub(super) split_offsets: Vec<i64>,
    /// What its folders say, one per key of the listing.
    pub(super) values: Vec<Option<String>>,
}

/// Reads all footers, several at a time. Returns what files say, and the different columns that they have.
///
/// # Errors
/// Naming the file: when it is not Parquet, damaged or encrypted, or has a column in a form that no table has.
pub(super) async fn read(store: &Store, files: Vec<Candidate>) -> Result<(Vec<Footer>, Vec<Shape>)> {
    let mut footers = Vec::with_capacity(files.len());
    let mut shapes: Vec<Shape> = Vec::new();
    let mut reading = stream::iter(files)
        .map(|file| read_one(store, file))
        .buffered(CONCURRENT);
    while let Some((footer, schema)) = reading.try_next().await? {
        if !shapes.iter().any(|shape| *shape.schema == schema) {
            shapes.push(Shape {
                schema: Arc::new(schema),
                file: footer.path.clone(),
            });
        }
        footers.push(footer);
    }
    Ok((footers, shapes))
}

async fn read_one(store: &Store, file: Candidate) -> Result<(Footer, Schema)> {
    let Candidate { path, bytes, values } = file;
    let footer = read_footer(store, &path, bytes).await?;
    let described = footer.file_metadata().schema_descr();
    let old = described
        .columns()
        .iter()
        .find(|c| c.physical_type() == Physical::INT96);
    if let Some(column) = old {
        return Err(super::to_be_converted(
            &column.path().string(),
            "INT96, timestamps of an older time",
            &path,
        ));
    }
    let schema = parquet_to_arrow_schema(described, None)
        .map_err(|e| Error::invalid(format!("its columns cannot be read: {e}"), &path))?;
    if schema.fields().is_empty() {
        return Err(Error::invalid("the file has no columns", path));
    }
    // The name of the file is not one of the columns' properties.
    let schema = Schema::new(schema.fields().clone());
    let rows = u64::try_from(footer.file_metadata().num_rows());
    let footer = Footer {
        rows: rows.map_err(|_| Error::invalid("the file has a negative number of rows", &path))?,
        columns: footer_statistics(&footer, &schema),
        split_offsets: row_group_offsets(&footer),
        path,
        bytes,
        values,
    };
    Ok((footer, schema))
}
