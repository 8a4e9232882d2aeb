//! How a table's columns are stored: which, under which names, with which field ids.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions, StructArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use parquet::file::metadata::SortingColumn;

use crate::error::{Error, Result};
use crate::model::schema::{FIELD_ID, WRITTEN_ID, physical_name};
use crate::model::{Snapshot, SortColumn, Transform};

/// The columns of a data file.
#[derive(Debug)]
pub(super) struct Layout {
    /// The file's own schema: physical names, field ids.
    pub(super) file: SchemaRef,
    /// For each column of the file its index in the batches.
    columns: Vec<usize>,
    /// Number of columns that batches have.
    width: usize,
    /// One for each Parquet leaf column, in order.
    pub(super) leaves: Vec<Leaf>,
    /// The file ends with the two columns of row lineage.
    pub(super) lineage: bool,
}

/// A leaf column of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// The table's name for it, `a.b` inside a struct; `None` where no statistics are kept: inside lists
    /// and maps, and for lineage columns.
    pub(super) name: Option<String>,
    /// Its type.
    pub(super) data_type: DataType,
}

impl Layout {
    /// The layout of a table's new files.
    ///
    /// # Errors
    /// When no column is left to store.
    pub(super) fn new(snapshot: &Snapshot, lineage: bool) -> Result<Self> {
        let lineage = lineage && snapshot.lineage.is_some();
        let in_metadata_only = |name: &str| {
            !snapshot.capabilities.partition_columns_in_files
                && snapshot
                    .partition_fields()
                    .iter()
                    .any(|f| f.transform == Transform::Identity && f.source == name)
        };
        let mut columns = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut leaves = Vec::new();
        for (index, field) in snapshot.schema.fields().iter().enumerate() {
            if in_metadata_only(field.name()) {
                continue;
            }
            columns.push(index);
            let stored = stored(field);
            add_leaves(Some(field.name().clone()), field, &mut leaves);
            fields.push(stored);
        }
        if fields.is_empty() {
            return Err(Error::invalid(
                "every column of the table is a partition column: no column is left to store in its files",
                "",
            )
            .with_hint("partition by fewer columns"));
        }
        let mut width = snapshot.schema.fields().len();
        if lineage {
            for field in snapshot.lineage.iter().flatten() {
                add_leaves(None, field, &mut leaves);
                fields.push(stored(field));
                columns.push(width);
                width += 1;
            }
        }
        Ok(Self {
            file: Arc::new(Schema::new(fields)),
            columns,
            width,
            leaves,
            lineage,
        })
    }

    /// The columns of the file that rows in this order are sorted by: those that are stored, up to the first that is
    /// not. `None` if there is none.
    pub(super) fn sorting_columns(&self, order: &[SortColumn]) -> Option<Vec<SortingColumn>> {
        let stored = order.iter().map_while(|column| {
            let is_it = |leaf: &Leaf| leaf.name.as_ref() == Some(&column.column);
            let at = self.leaves.iter().position(is_it)?;
            Some(SortingColumn {
                column_idx: i32::try_from(at).ok()?,
                descending: column.descending,
                nulls_first: column.nulls_first,
            })
        });
        let stored: Vec<SortingColumn> = stored.collect();
        (!stored.is_empty()).then_some(stored)
    }

    /// A batch of the table's columns as the file stores it.
    ///
    /// # Errors
    /// When the batch has other columns or types than the table.
    pub(super) fn store(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.num_columns() != self.width {
            return Err(Error::invalid(
                format!(
                    "the batch has {} columns, the table {}",
                    batch.num_columns(),
                    self.width
                ),
                "",
            ));
        }
        let columns = self
            .columns
            .iter()
            .zip(self.file.fields())
            .map(|(index, field)| renamed(batch.column(*index), field))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.file),
            columns,
            &options,
        )?)
    }
}

/// A field as files have it: the physical name, and of the metadata only what readers of the file need.
fn stored(field: &Field) -> FieldRef {
    let mut metadata = field.metadata().clone();
    metadata.retain(|key, _| key == FIELD_ID || key.starts_with("ARROW:"));
    if let Some(id) = field.metadata().get(WRITTEN_ID) {
        metadata.insert(FIELD_ID.to_owned(), id.clone());
    }
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|f| stored(f)).collect()),
        DataType::List(inner) => DataType::List(stored(inner)),
        DataType::LargeList(inner) => DataType::LargeList(stored(inner)),
        DataType::FixedSizeList(inner, size) => DataType::FixedSizeList(stored(inner), *size),
        DataType::Map(entries, sorted) => DataType::Map(stored(entries), *sorted),
        other => other.clone(),
    };
    Arc::new(Field::new(physical_name(field), data_type, field.is_nullable()).with_metadata(metadata))
}

pub(super) fn add_leaves(name: Option<String>, field: &Field, leaves: &mut Vec<Leaf>) {
    match field.data_type() {
        DataType::Struct(fields) => {
            for child in fields {
                let name = name.as_ref().map(|name| format!("{name}.{}", child.name()));
                add_leaves(name, child, leaves);
            }
        }
        DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
            add_leaves(None, inner, leaves);
        }
        DataType::Map(entries, _) => add_leaves(None, entries, leaves),
        other => leaves.push(Leaf {
            name,
            data_type: other.clone(),
        }),
    }
}

/// The same values under the field's (nested) names.
pub(super) fn renamed(array: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if array.data_type() == field.data_type() {
        return Ok(Arc::clone(array));
    }
    let nulls = array.nulls().cloned();
    Ok(match (array.data_type(), field.data_type()) {
        (DataType::Struct(from), DataType::Struct(to)) if from.len() == to.len() => {
            let columns = renamed_all(array.as_struct().columns(), to)?;
            Arc::new(StructArray::try_new_with_length(
                to.clone(),
                columns,
                nulls,
                array.len(),
            )?)
        }
        (DataType::List(_), DataType::List(inner)) => renamed_list(array.as_list::<i32>(), inner)?,
        (DataType::LargeList(_), DataType::LargeList(inner)) => renamed_list(array.as_list::<i64>(), inner)?,
        (DataType::FixedSizeList(_, n), DataType::FixedSizeList(inner, m)) if n == m => {
            let values = renamed(array.as_fixed_size_list().values(), inner)?;
            Arc::new(FixedSizeListArray::try_new(Arc::clone(inner), *m, values, nulls)?)
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let whole: ArrayRef = Arc::new(map.entries().clone());
            let values = renamed(&whole, entries)?.as_struct().clone();
            Arc::new(MapArray::try_new(
                Arc::clone(entries),
                map.offsets().clone(),
                values,
                nulls,
                *sorted,
            )?)
        }
        (from, to) => {
            return Err(Error::invalid(
                format!("the batch has type {from}, the table {to}"),
                format!("column {}", field.name()),
            ));
        }
    })
}

fn renamed_all(columns: &[ArrayRef], fields: &Fields) -> Result<Vec<ArrayRef>> {
    columns
        .iter()
        .zip(fields)
        .map(|(column, field)| renamed(column, field))
        .collect()
}

fn renamed_list<O: OffsetSizeTrait>(list: &GenericListArray<O>, inner: &FieldRef) -> Result<ArrayRef> {
    let values = renamed(list.values(), inner)?;
    let list = GenericListArray::try_new(
        Arc::clone(inner),
        list.offsets().clone(),
        values,
        list.nulls().cloned(),
    )?;
    Ok(Arc::new(list))
}
