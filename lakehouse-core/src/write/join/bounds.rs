//! Statistics and page indexes of column chunks that become one.

use parquet::basic::SortOrder;
use parquet::data_type::{AsBytes, ByteArray, FixedLenByteArray};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescriptor;

/// The statistics of chunks of one column together; `None` if those of one of them say too little, or if their order is
/// not known here.
pub(super) fn together(column: &ColumnDescriptor, chunks: &[&ColumnChunkMetaData]) -> Option<Statistics> {
    /// `$less` is the column's order.
    macro_rules! together {
        ($kind:ident, $less:expr) => {{
            let mut nulls = 0;
            let mut found: Option<(_, bool, _, bool)> = None;
            for chunk in chunks {
                let Some(Statistics::$kind(own)) = chunk.statistics() else {
                    return None;
                };
                let own_nulls = own.null_count_opt()?;
                nulls += own_nulls;
                if Some(own_nulls) == u64::try_from(chunk.num_values()).ok() {
                    continue;
                }
                let (min, max) = (own.min_opt()?, own.max_opt()?);
                let (exact_min, exact_max) = (own.min_is_exact(), own.max_is_exact());
                found = Some(match found {
                    None => (min, exact_min, max, exact_max),
                    Some((low, exact_low, high, exact_high)) => {
                        let (low, exact_low) = match $less(min, low) {
                            true => (min, exact_min),
                            false => (low, exact_low),
                        };
                        match $less(high, max) {
                            true => (low, exact_low, max, exact_max),
                            false => (low, exact_low, high, exact_high),
                        }
                    }
                });
            }
            let (min, max) = (
                found.map(|found| found.0.clone()),
                found.map(|found| found.2.clone()),
            );
            let all = ValueStatistics::new(min, max, None, Some(nulls), false)
                .with_min_is_exact(found.is_some_and(|found| found.1))
                .with_max_is_exact(found.is_some_and(|found| found.3));
            Some(all.into())
        }};
    }
    let [first, ..] = chunks else { return None };
    match (first.statistics()?, column.sort_order()) {
        (Statistics::Int32(_), SortOrder::SIGNED) => together!(Int32, |a: &i32, b: &i32| a < b),
        (Statistics::Int64(_), SortOrder::SIGNED) => together!(Int64, |a: &i64, b: &i64| a < b),
        (Statistics::ByteArray(_), SortOrder::UNSIGNED) => {
            together!(ByteArray, |a: &ByteArray, b: &ByteArray| a.data() < b.data())
        }
        (Statistics::FixedLenByteArray(_), SortOrder::UNSIGNED) => together!(
            FixedLenByteArray,
            |a: &FixedLenByteArray, b: &FixedLenByteArray| { a.data() < b.data() }
        ),
        _ => None,
    }
}

/// The page indexes of a chunk in the making.
pub(super) struct Index {
    bounds: ColumnIndexBuilder,
    places: OffsetIndexBuilder,
    /// Bytes of the values of each page, as far as all chunks told.
    unencoded: Option<Vec<i64>>,
}

impl Index {
    pub(super) fn new(column: &ColumnDescriptor) -> Self {
        Self {
            bounds: ColumnIndexBuilder::new(column.physical_type()),
            places: OffsetIndexBuilder::new(),
            unencoded: Some(Vec::new()),
        }
    }

    /// Notes where the next page is, and its size.
    pub(super) fn place(&mut self, rows: u32, (offset, bytes): (u64, usize)) {
        self.places.append_row_count(i64::from(rows));
        self.places.append_offset_and_size(offset as i64, bytes as i32);
    }

    /// Notes what the index of a chunk says of its pages. `None` if that is not enough.
    pub(super) fn bounds(
        &mut self,
        bounds: &ColumnIndexMetaData,
        places: &OffsetIndexMetaData,
        pages: usize,
    ) -> Option<()> {
        let none = matches!(bounds, ColumnIndexMetaData::NONE);
        if none || places.page_locations().len() != pages || bounds.num_pages() != pages as u64 {
            return None;
        }
        for page in 0..pages {
            let (min, max) = if bounds.is_null_page(page) {
                (Vec::new(), Vec::new())
            } else {
                match bounds {
                    ColumnIndexMetaData::INT32(own) => {
                        (bytes(own.min_value(page)?), bytes(own.max_value(page)?))
                    }
                    ColumnIndexMetaData::INT64(own) => {
                        (bytes(own.min_value(page)?), bytes(own.max_value(page)?))
                    }
                    ColumnIndexMetaData::BYTE_ARRAY(own) | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(own) => {
                        (own.min_value(page)?.to_vec(), own.max_value(page)?.to_vec())
                    }
                    _ => return None,
                }
            };
            let nulls = bounds.null_count(page)?;
            self.bounds.append(bounds.is_null_page(page), min, max, nulls);
        }
        match (&mut self.unencoded, places.unencoded_byte_array_data_bytes()) {
            (Some(all), Some(own)) if own.len() == pages => all.extend(own),
            (all, _) => *all = None,
        }
        Some(())
    }

    pub(super) fn finish(mut self) -> Option<(ColumnIndexMetaData, OffsetIndexMetaData)> {
        for bytes in self.unencoded.into_iter().flatten() {
            self.places.append_unencoded_byte_array_data_bytes(Some(bytes));
        }
        Some((self.bounds.build().ok()?, self.places.build()))
    }
}

fn bytes(value: &impl AsBytes) -> Vec<u8> {
    value.as_bytes().to_vec()
}
