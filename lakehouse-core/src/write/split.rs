//! Rows to partitions: transforms over whole batches, then one `take`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{nullif, take_record_batch};
use arrow::datatypes::{DataType, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result};
use crate::model::{Snapshot, Transform};

/// Splits batches by the snapshot's current partitioning.
#[derive(Debug)]
pub(super) struct Splitter {
    fields: Vec<(Vec<usize>, Transform)>,
    /// Types of the partition values.
    types: Vec<DataType>,
    converter: Option<RowConverter>,
}

/// The rows of one batch that belong to one partition.
#[derive(Debug)]
pub(super) struct Part {
    /// Row encoding of the partition values: equal for equal values.
    pub(super) key: Box<[u8]>,
    /// One value per partition field.
    pub(super) values: Vec<ScalarValue>,
    pub(super) rows: RecordBatch,
}

impl Splitter {
    /// # Errors
    /// When a partition field's column is missing or its transform is not defined for the column's type.
    pub(super) fn new(snapshot: &Snapshot) -> Result<Self> {
        let mut fields = Vec::new();
        let mut types = Vec::new();
        for field in snapshot.partition_fields() {
            let (path, source) = find(&snapshot.schema, &field.source).ok_or_else(|| {
                Error::not_found(format!("column '{}'", field.source), "the table's partitioning")
            })?;
            types.push(field.transform.result_type(source)?);
            fields.push((path, field.transform));
        }
        let converter = if types.is_empty() {
            None
        } else {
            Some(RowConverter::new(
                types.iter().cloned().map(SortField::new).collect(),
            )?)
        };
        Ok(Self {
            fields,
            types,
            converter,
        })
    }

    /// The key that rows with these partition values have; `None` if no rows can have them.
    pub(super) fn key(&self, values: &[ScalarValue]) -> Option<Box<[u8]>> {
        let Some(converter) = &self.converter else {
            return values.is_empty().then(Box::default);
        };
        let types = values.iter().map(ScalarValue::data_type);
        if !types.eq(self.types.iter().cloned()) {
            return None;
        }
        let columns = values.iter().map(ScalarValue::to_array);
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().ok()?;
        let keys = converter.convert_columns(&columns).ok()?;
        Some(keys.row(0).data().into())
    }

    /// The parts of a batch in order of first appearance, each with its rows in their order.
    pub(super) fn split(&self, batch: &RecordBatch) -> Result<Vec<Part>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let Some(converter) = &self.converter else {
            let rows = batch.clone();
            return Ok(vec![Part {
                key: Box::default(),
                values: Vec::new(),
                rows,
            }]);
        };
        let columns = self
            .fields
            .iter()
            .map(|(path, transform)| transform.apply(&column(batch, path)?))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let keys = converter.convert_columns(&columns)?;
        let mut groups: HashMap<&[u8], usize> = HashMap::new();
        let mut firsts: Vec<usize> = Vec::new();
        let mut sizes: Vec<usize> = Vec::new();
        let mut group_of = Vec::with_capacity(batch.num_rows());
        let mut last: Option<(&[u8], usize)> = None;
        for row in 0..batch.num_rows() {
            let key = keys.row(row).data();
            // Data often comes sorted: most rows are in the partition of the row before.
            let group = match last {
                Some((same, group)) if same == key => group,
                _ => *groups.entry(key).or_insert_with(|| {
                    firsts.push(row);
                    sizes.push(0);
                    firsts.len() - 1
                }),
            };
            last = Some((key, group));
            sizes[group] += 1;
            group_of.push(group);
        }
        let in_runs = group_of.is_sorted();
        let ordered = if in_runs {
            batch.clone()
        } else {
            gather(batch, &group_of, &sizes)?
        };
        let mut start = 0;
        firsts
            .iter()
            .zip(&sizes)
            .map(|(first, size)| {
                let rows = ordered.slice(start, *size);
                start += size;
                let values = columns
                    .iter()
                    .map(|column| ScalarValue::try_from_array(column, *first))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Part {
                    key: keys.row(*first).data().into(),
                    values,
                    rows,
                })
            })
            .collect()
    }
}

/// The batch with the rows of each group side by side, in their order.
fn gather(batch: &RecordBatch, group_of: &[usize], sizes: &[usize]) -> Result<RecordBatch> {
    let mut next: Vec<usize> = sizes
        .iter()
        .scan(0, |end, size| {
            let start = *end;
            *end += size;
            Some(start)
        })
        .collect();
    let mut order = vec![0u32; group_of.len()];
    for (row, group) in group_of.iter().enumerate() {
        order[next[*group]] =
            u32::try_from(row).map_err(|_| Error::invalid("a batch has more than 4,294,967,295 rows", ""))?;
        next[*group] += 1;
    }
    Ok(take_record_batch(batch, &UInt32Array::from(order))?)
}

/// Indices from the outermost column inwards, and the type found there. A column whose own name has a
/// dot is preferred over a field inside a struct.
fn find<'a>(schema: &'a Schema, name: &str) -> Option<(Vec<usize>, &'a DataType)> {
    let fields = schema.fields();
    if let Some((index, field)) = fields.find(name) {
        return Some((vec![index], field.data_type()));
    }
    let (mut path, mut fields, mut rest) = (Vec::new(), fields, name);
    loop {
        if let Some((index, field)) = fields.find(rest) {
            path.push(index);
            return Some((path, field.data_type()));
        }
        let (outer, inner) = rest.split_once('.')?;
        let (index, field) = fields.find(outer)?;
        let DataType::Struct(children) = field.data_type() else {
            return None;
        };
        path.push(index);
        (fields, rest) = (children, inner);
    }
}

fn column(batch: &RecordBatch, path: &[usize]) -> Result<ArrayRef> {
    let mut array = Arc::clone(batch.column(path[0]));
    for index in &path[1..] {
        let parent = array.as_struct();
        let child = parent.column(*index);
        array = match parent.nulls() {
            Some(nulls) if nulls.null_count() > 0 => nullif(child, &BooleanArray::new(!nulls.inner(), None))?,
            _ => Arc::clone(child),
        };
    }
    Ok(array)
}
