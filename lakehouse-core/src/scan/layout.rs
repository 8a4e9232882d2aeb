//! How the columns of a scan are put together: from the file, from metadata, from positions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{self, Column};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::scalar::ScalarValue;

use super::MetadataColumns;
use super::columns::{Recorded, position_field};
use crate::error::{Error, Result};
use crate::model::schema::{FILE_COLUMN, LAST_UPDATED_COLUMN, POSITION_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, Snapshot, Transform};

/// Per-file values that lineage columns are derived from; not visible to users.
const FIRST_ROW_ID: &str = "__first_row_id";
const SEQUENCE: &str = "__sequence";

/// Where a column of the scan's schema comes from.
#[derive(Debug, Clone, Copy)]
enum Output {
    /// This column of the Parquet scan.
    Is(usize),
    /// The first that is not NULL: stored in the file, or the file's first row id plus the position.
    RowId {
        stored: usize,
        first: usize,
        position: usize,
    },
    /// The first that is not NULL: stored in the file, or the sequence number of the file.
    Coalesce { stored: usize, default: usize },
    /// NULL, for tables without row ids.
    Null,
}

/// A value that is the same for all rows of a file.
#[derive(Debug, Clone)]
enum PerFile {
    Path,
    FirstRowId,
    Sequence,
    /// An identity partition column that data files do not store.
    Partition(FieldRef),
}

/// The columns of one scan.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// What the Parquet scan works with: columns of files, per-file values, the position.
    pub(super) table: TableSchema,
    per_file: Vec<PerFile>,
    /// The scan's projected columns.
    outputs: Vec<(FieldRef, Output)>,
}

/// The path of a row's file, which is the same for many rows: a number each, and the path once per batch.
fn file_field() -> Field {
    let data_type = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Field::new(FILE_COLUMN, data_type, false)
}

/// The schema of a table with metadata columns behind its own.
pub(super) fn full_schema(snapshot: &Snapshot, columns: MetadataColumns) -> SchemaRef {
    let mut fields: Vec<FieldRef> = snapshot.schema.fields().to_vec();
    let mut push = |field: Field| fields.push(Arc::new(field));
    if columns.file {
        push(file_field());
    }
    if columns.position {
        push(position_field());
    }
    if columns.lineage {
        push(Field::new(ROW_ID_COLUMN, DataType::Int64, true));
        push(Field::new(LAST_UPDATED_COLUMN, DataType::Int64, true));
    }
    Arc::new(Schema::new(fields))
}

impl Layout {
    /// The columns at these places of [`full_schema`], in this order.
    pub(super) fn new(snapshot: &Snapshot, metadata: MetadataColumns, projection: &[usize]) -> Result<Self> {
        let schema = full_schema(snapshot, metadata);
        let own = snapshot.schema.fields().len();
        for (index, field) in schema.fields().iter().enumerate().skip(own) {
            if schema.index_of(field.name()).is_ok_and(|first| first != index) {
                return Err(Error::unsupported(
                    format!("the table has a column {} of its own", field.name()),
                    "rename the column: the name is reserved",
                ));
            }
        }
        let wanted: Vec<&FieldRef> = projection.iter().map(|&index| &schema.fields()[index]).collect();
        let asked = |name: &str| {
            projection
                .iter()
                .any(|&index| index >= own && schema.field(index).name() == name)
        };
        let lineage = snapshot.lineage.as_ref();
        let row_id = lineage.filter(|_| asked(ROW_ID_COLUMN)).map(|[id, _]| id);
        let updated = lineage
            .filter(|_| asked(LAST_UPDATED_COLUMN))
            .map(|[_, updated]| updated);

        let mut stored: Vec<FieldRef> = Vec::new();
        let mut per_file: Vec<(FieldRef, PerFile)> = Vec::new();
        for field in snapshot.schema.fields() {
            if !snapshot.capabilities.partition_columns_in_files
                && is_partition_column(snapshot, field.name())
            {
                per_file.push((Arc::clone(field), PerFile::Partition(Arc::clone(field))));
            } else {
                stored.push(Arc::clone(field));
            }
        }
        if let Some(field) = row_id {
            stored.push(Arc::clone(field));
            per_file.push((number(FIRST_ROW_ID), PerFile::FirstRowId));
        }
        if let Some(field) = updated {
            stored.push(Arc::clone(field));
            per_file.push((number(SEQUENCE), PerFile::Sequence));
        }
        if asked(FILE_COLUMN) {
            per_file.push((Arc::new(file_field()), PerFile::Path));
        }
        let (columns, per_file): (Vec<FieldRef>, Vec<PerFile>) = per_file.into_iter().unzip();
        let mut table =
            TableSchema::builder(Arc::new(Schema::new(stored))).with_table_partition_cols(columns);
        if row_id.is_some() || asked(POSITION_COLUMN) {
            table = table.with_virtual_columns(vec![Arc::new(position_field())]);
        }
        let table = table.build();

        let at = |name: &str| -> Result<usize> {
            let fields = table.table_schema();
            fields.index_of(name).map_err(Error::from)
        };
        let mut outputs = Vec::with_capacity(wanted.len());
        for (&index, &field) in projection.iter().zip(&wanted) {
            let of_lineage =
                index >= own && [ROW_ID_COLUMN, LAST_UPDATED_COLUMN].contains(&field.name().as_str());
            let output = if !of_lineage {
                Output::Is(at(field.name())?)
            } else if lineage.is_none() {
                Output::Null
            } else if field.name() == ROW_ID_COLUMN {
                Output::RowId {
                    stored: at(ROW_ID_COLUMN)?,
                    first: at(FIRST_ROW_ID)?,
                    position: at(POSITION_COLUMN)?,
                }
            } else {
                Output::Coalesce {
                    stored: at(LAST_UPDATED_COLUMN)?,
                    default: at(SEQUENCE)?,
                }
            };
            outputs.push((Arc::clone(field), output));
        }
        Ok(Self {
            table,
            per_file,
            outputs,
        })
    }

    /// The values of one file for the columns that are the same in all of its rows.
    pub(super) fn values(&self, snapshot: &Snapshot, file: &DataFile) -> Result<Vec<ScalarValue>> {
        self.per_file
            .iter()
            .map(|what| match what {
                PerFile::Path => {
                    let path = ScalarValue::Utf8(Some(file.path.clone()));
                    Ok(ScalarValue::Dictionary(Box::new(DataType::Int32), Box::new(path)))
                }
                PerFile::FirstRowId => Ok(ScalarValue::Int64(file.first_row_id)),
                PerFile::Sequence => Ok(ScalarValue::Int64(file.sequence)),
                PerFile::Partition(field) => {
                    let value = match partition_value(snapshot, file, field.name()) {
                        Some(value) if value.data_type() == *field.data_type() => value.clone(),
                        Some(value) => value.cast_to(field.data_type())?,
                        None => ScalarValue::try_new_null(field.data_type())?,
                    };
                    if value.is_null() && !field.is_nullable() {
                        return Err(Error::invalid(
                            format!("required partition column {} is NULL", field.name()),
                            &file.path,
                        ));
                    }
                    Ok(value)
                }
            })
            .collect()
    }

    /// Which columns of [`Layout::table`] the Parquet scan produces, and how the scan's columns are made
    /// from these, if they are not just these.
    pub(super) fn projection(&self) -> Result<(Vec<usize>, Option<Vec<ProjectionExpr>>)> {
        if self
            .outputs
            .iter()
            .all(|(_, output)| matches!(output, Output::Is(_)))
        {
            let indices = self.outputs.iter().filter_map(|(_, output)| match output {
                Output::Is(index) => Some(*index),
                _ => None,
            });
            return Ok((indices.collect(), None));
        }
        let mut raw: Vec<usize> = Vec::new();
        let mut read = |index: usize| -> Arc<dyn PhysicalExpr> {
            let place = raw.iter().position(|&other| other == index).unwrap_or_else(|| {
                raw.push(index);
                raw.len() - 1
            });
            Arc::new(Column::new(self.table.table_schema().field(index).name(), place))
        };
        let mut exprs = Vec::with_capacity(self.outputs.len());
        for (field, output) in &self.outputs {
            let expr = match *output {
                Output::Is(index) => read(index),
                Output::Null => expressions::lit(ScalarValue::Int64(None)),
                Output::RowId {
                    stored,
                    first,
                    position,
                } => {
                    let derived = Arc::new(expressions::BinaryExpr::new(
                        read(first),
                        Operator::Plus,
                        read(position),
                    ));
                    coalesce(read(stored), derived)?
                }
                Output::Coalesce { stored, default } => coalesce(read(stored), read(default))?,
            };
            exprs.push(ProjectionExpr::new(expr, field.name().clone()));
        }
        Ok((raw, Some(exprs)))
    }
}

fn coalesce(first: Arc<dyn PhysicalExpr>, second: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let known = expressions::is_not_null(Arc::clone(&first))?;
    Ok(expressions::case(None, vec![(known, first)], Some(second))?)
}

fn number(name: &str) -> FieldRef {
    Arc::new(Field::new(name, DataType::Int64, true))
}

fn is_partition_column(snapshot: &Snapshot, column: &str) -> bool {
    let mut fields = snapshot.specs.values().flatten();
    fields.any(|field| field.transform == Transform::Identity && field.source == column)
}

/// The value that every row of a file has in this column, if the file is partitioned by it.
pub(super) fn partition_value<'a>(
    snapshot: &Snapshot,
    file: &'a DataFile,
    column: &str,
) -> Option<&'a ScalarValue> {
    let fields = snapshot.specs.get(&file.spec_id)?;
    let mut pairs = fields.iter().zip(&file.partition);
    pairs
        .find(|(field, _)| field.transform == Transform::Identity && field.source == column)
        .map(|(_, value)| value)
}

/// The values of identity partition columns of files that may not store these columns, though the table's own
/// files do: files of other writers that became part of the table. Nothing where a scan takes all such values
/// from the metadata.
pub(super) fn recorded<'a>(snapshot: &Snapshot, files: impl Iterator<Item = &'a DataFile>) -> Recorded {
    if !snapshot.capabilities.partition_columns_in_files {
        return Recorded::new();
    }
    let mut recorded = Recorded::new();
    for file in files {
        let fields = snapshot.specs.get(&file.spec_id).into_iter().flatten();
        let values: Vec<(String, ScalarValue)> = fields
            .zip(&file.partition)
            .filter(|(field, value)| field.transform == Transform::Identity && !value.is_null())
            .map(|(field, value)| (field.source.clone(), value.clone()))
            .collect();
        if !values.is_empty() {
            recorded.insert(file.path.clone(), values);
        }
    }
    recorded
}
