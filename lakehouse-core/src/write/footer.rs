//! Column statistics of files that others wrote, from their footers alone.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use parquet::basic::ColumnOrder;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::copy::are_of_old;
use super::layout::add_leaves;
use super::statistics;
use crate::model::ColumnStats;

/// Statistics by column name (`a.b` inside structs) of a file whose columns, as the footer has them, are these.
/// Nobody counted NaNs. Bounds are left out where the file does not say in which order they are the smallest and the
/// largest (parquet.thrift, `ColumnOrder`; whole numbers and booleans have only one), and so are those that a footer
/// of an older time has in fields that were given up for that.
pub fn footer_statistics(footer: &ParquetMetaData, columns: &Schema) -> BTreeMap<String, ColumnStats> {
    let mut leaves = Vec::new();
    for field in columns.fields() {
        add_leaves(Some(field.name().clone()), field, &mut leaves);
    }
    if leaves.len() != footer.file_metadata().schema_descr().num_columns() {
        return BTreeMap::new();
    }
    let mut found = statistics::of_groups(footer.row_groups(), &leaves, &vec![None; leaves.len()]);
    for (number, leaf) in leaves.iter().enumerate() {
        let Some(stats) = leaf.name.as_ref().and_then(|name| found.get_mut(name)) else {
            continue;
        };
        let order = footer.file_metadata().column_order(number);
        let ordered = matches!(order, ColumnOrder::TYPE_DEFINED_ORDER(_));
        let mut chunks = footer.row_groups().iter().map(|group| group.column(number));
        let sound = chunks.all(|chunk| match chunk.statistics() {
            Some(Statistics::Boolean(_) | Statistics::Int32(_) | Statistics::Int64(_)) | None => true,
            Some(other) => ordered && !are_of_old(other),
        });
        if !sound {
            (stats.min, stats.max, stats.exact) = (None, None, false);
        }
    }
    found
}

/// Where the row groups of a file begin, for readers that split files.
pub fn row_group_offsets(footer: &ParquetMetaData) -> Vec<i64> {
    let first = footer
        .row_groups()
        .iter()
        .filter_map(|group| group.columns().first());
    first
        .map(|chunk| {
            chunk
                .dictionary_page_offset()
                .unwrap_or_else(|| chunk.data_page_offset())
        })
        .collect()
}
