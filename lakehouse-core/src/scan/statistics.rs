//! What the engine's planner is told about a file, and how sure it may be.

use arrow::datatypes::{DataType, Field};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::scalar::ScalarValue;

use super::layout::partition_value;
use crate::model::{ColumnStats, DataFile, Snapshot};

/// Statistics of the visible rows of one file, over the columns of `table`. Exact values become
/// literals in plans, so min and max are exact only where they are values of visible rows for sure.
///
/// `values` are the file's values of the partition columns of `table`; `masked` is the number of rows
/// that are hidden (fewer than all).
pub(super) fn of_file(
    snapshot: &Snapshot,
    table: &TableSchema,
    file: &DataFile,
    values: &[ScalarValue],
    masked: u64,
) -> Statistics {
    let rows = usize::try_from(file.rows - masked).unwrap_or(usize::MAX);
    let stored = table.file_schema().fields().iter().map(|field| {
        match partition_value(snapshot, file, field.name()) {
            Some(value) if is_constant(value, field) => constant(value, rows),
            _ => match file.columns.get(field.name()) {
                Some(stats) => of_column(stats, field, masked > 0),
                None => ColumnStatistics::new_unknown(),
            },
        }
    });
    let same = values.iter().map(|value| constant(value, rows));
    let made_up = table
        .virtual_columns()
        .iter()
        .map(|_| ColumnStatistics::new_unknown());
    Statistics {
        num_rows: Precision::Exact(rows),
        total_byte_size: Precision::Inexact(usize::try_from(file.bytes).unwrap_or(usize::MAX)),
        column_statistics: stored.chain(same).chain(made_up).collect(),
    }
}

/// An identity partition value is the value of every row. (Of floating point values, 0.0 and -0.0 may
/// share a partition.)
pub(super) fn is_constant(value: &ScalarValue, field: &Field) -> bool {
    value.data_type() == *field.data_type() && !field.data_type().is_floating()
}

/// What is known of a column that has this value in each of so many rows.
pub(super) fn constant(value: &ScalarValue, rows: usize) -> ColumnStatistics {
    let stats = ColumnStatistics::new_unknown();
    if value.is_null() {
        return stats.with_null_count(Precision::Exact(rows));
    }
    stats
        .with_null_count(Precision::Exact(0))
        .with_min_value(Precision::Exact(value.clone()))
        .with_max_value(Precision::Exact(value.clone()))
}

fn of_column(stats: &ColumnStats, field: &Field, masked: bool) -> ColumnStatistics {
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let nulls = match stats.nulls {
        // No NULL among all rows is no NULL among the visible ones.
        Some(0) => Precision::Exact(0),
        Some(nulls) if !masked => Precision::Exact(count(nulls)),
        Some(nulls) => Precision::Inexact(count(nulls)),
        None => Precision::Absent,
    };
    let bounds = match (&stats.min, &stats.max) {
        // NaN is larger than every bound, and bounds leave it out.
        _ if field.data_type().is_floating() && stats.nans != Some(0) => None,
        (Some(min), Some(max)) if usable(min, field.data_type()) && usable(max, field.data_type()) => {
            Some((min.clone(), max.clone()))
        }
        _ => None,
    };
    let known = ColumnStatistics::new_unknown().with_null_count(nulls);
    match bounds {
        Some((min, max)) if stats.exact && !masked => known
            .with_min_value(Precision::Exact(min))
            .with_max_value(Precision::Exact(max)),
        Some((min, max)) => known
            .with_min_value(Precision::Inexact(min))
            .with_max_value(Precision::Inexact(max)),
        None => known,
    }
}

fn usable(value: &ScalarValue, data_type: &DataType) -> bool {
    !value.is_null() && value.data_type() == *data_type
}
