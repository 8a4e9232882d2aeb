//! Position-delete files: Parquet with the columns `file_path` and `pos` (Iceberg spec, "Position Delete Files").

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use roaring::RoaringTreemap;

use super::deletes::{DELETE_PATH_ID, DELETE_POS_ID};
use crate::error::{Error, Result};
use crate::model::limits::{self, Limits};
use crate::model::schema::FIELD_ID;
use crate::model::{RowMask, check_whole_parquet_footer};

/// Rows written at a time.
const BATCH: usize = 64 * 1024;

/// Positions by data file, for the data files in `wanted` only: paths as recorded, with their number of rows.
///
/// # Errors
/// [`Error::Invalid`] naming the file when it is not a position-delete file.
pub(super) fn decode(
    bytes: Bytes,
    wanted: impl Fn(&str) -> Option<u64>,
    limits: &Limits,
    place: &str,
) -> Result<HashMap<String, RoaringTreemap>> {
    check_whole_parquet_footer(&bytes, limits.parquet_footer_bytes, place)?;
    let broken = |what: String| {
        Error::invalid(format!("broken position-delete file: {what}"), place)
            .with_hint("the file is damaged: restore it from a backup, or read an older version of the table")
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| broken(e.to_string()))?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(u64::MAX);
    limits::at_most(rows, limits.mask_rows, "rows of a position-delete file", place)?;
    let schema = builder.schema();
    let column = |id: i32, name: &str| {
        let by_id = schema
            .fields()
            .iter()
            .position(|f| crate::model::schema::field_id(f) == Some(id));
        by_id
            .or_else(|| schema.index_of(name).ok())
            .ok_or_else(|| broken(format!("it has no column {name}")))
    };
    let (path_at, pos_at) = (
        column(DELETE_PATH_ID, "file_path")?,
        column(DELETE_POS_ID, "pos")?,
    );
    let mask = ProjectionMask::roots(builder.parquet_schema(), [path_at, pos_at]);
    let (path_at, pos_at) = (usize::from(path_at > pos_at), usize::from(pos_at > path_at));
    let mut found: HashMap<String, RoaringTreemap> = HashMap::new();
    let reader = builder
        .with_projection(mask)
        .build()
        .map_err(|e| broken(e.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|e| broken(e.to_string()))?;
        let typed = |at: usize, ty: &DataType| -> Result<ArrayRef> {
            let array = cast(batch.column(at), ty).map_err(|e| broken(e.to_string()))?;
            match array.null_count() {
                0 => Ok(array),
                _ => Err(broken("it has a NULL".into())),
            }
        };
        let (paths, positions) = (typed(path_at, &DataType::Utf8)?, typed(pos_at, &DataType::Int64)?);
        let (paths, positions) = (
            paths.as_string::<i32>(),
            positions.as_primitive::<Int64Type>().values(),
        );
        let mut start = 0;
        while start < batch.num_rows() {
            // Rows are sorted by path, so they come in runs.
            let path = paths.value(start);
            let run = (start + 1..batch.num_rows())
                .find(|row| paths.value(*row) != path)
                .unwrap_or(batch.num_rows());
            if let Some(rows) = wanted(path) {
                let mask = found.entry(path.to_owned()).or_default();
                for position in &positions[start..run] {
                    let position =
                        u64::try_from(*position).map_err(|_| broken("it has a negative position".into()))?;
                    // Here, not at the end: far positions take memory each.
                    if position >= rows {
                        return Err(broken(format!(
                            "it hides row {position} of a file with {rows} rows"
                        )));
                    }
                    mask.insert(position);
                }
            }
            start = run;
        }
    }
    Ok(found)
}

/// A position-delete file for one data file.
///
/// # Errors
/// When Parquet cannot be written.
pub(super) fn encode(recorded: &str, mask: &RowMask) -> Result<Vec<u8>> {
    let field = |name: &str, ty: DataType, id: i32| {
        Field::new(name, ty, false).with_metadata(HashMap::from([(FIELD_ID.to_owned(), id.to_string())]))
    };
    let schema = Arc::new(Schema::new(vec![
        field("file_path", DataType::Utf8, DELETE_PATH_ID),
        field("pos", DataType::Int64, DELETE_POS_ID),
    ]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("lakehouse ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?;
    let mut rows = mask.iter();
    loop {
        let positions: Int64Array = rows.by_ref().take(BATCH).map(u64::cast_signed).collect();
        if positions.is_empty() {
            return Ok(writer.into_inner()?);
        }
        let paths: StringArray = std::iter::repeat_n(Some(recorded), positions.len()).collect();
        writer.write(&RecordBatch::try_new(
            Arc::clone(&schema),
            vec![Arc::new(paths), Arc::new(positions)],
        )?)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_for_the_data_files_asked_for() {
        let mask: RowMask = (0..200_000).filter(|row| row % 3 == 1).collect();
        let bytes = Bytes::from(encode("s3://b/t/data/a.parquet", &mask).unwrap());
        let limits = Limits::default();
        let mut found = decode(bytes.clone(), |_| Some(200_000), &limits, "d").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            RowMask::from(found.remove("s3://b/t/data/a.parquet").unwrap()),
            mask
        );
        assert!(
            decode(
                bytes,
                |path| path.ends_with("b.parquet").then_some(1),
                &limits,
                "d"
            )
            .unwrap()
            .is_empty()
        );
    }

    #[test]
    fn a_file_of_another_kind_is_refused_by_name() {
        let error = decode(
            Bytes::from_static(b"not parquet at all"),
            |_| Some(1),
            &Limits::default(),
            "data/d.parquet",
        )
        .unwrap_err();
        assert!(error.to_string().contains("data/d.parquet"), "{error}");
    }
}
