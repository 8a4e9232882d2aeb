//! The keys of a merge's source against files: sorted for ranges, transformed for partitions.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, BooleanArray, Scalar};
use arrow::compute::kernels::cmp;
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::scalar::ScalarValue;

use super::PartitionRange;
use super::evidence::{Place, Witness, of_type};
use crate::error::{Error, Result};
use crate::model::floats::as_compared;
use crate::model::schema::is_utc;
use crate::model::{PartitionField, Snapshot, Transform};

/// For so many files, looking at all keys costs less than sorting them.
const FEW: usize = 32;

/// Keys, and what was made of them for the table's types and specs.
#[derive(Debug)]
pub(super) struct Keys {
    columns: Vec<(String, ArrayRef)>,
    /// How many files were asked about.
    asked: AtomicUsize,
    sorted: Mutex<HashMap<SortedBy, Option<Arc<Sorted>>>>,
    tuples: Mutex<HashMap<i32, Arc<Tuples>>>,
}

/// What a sorted list was made from: key column, the table's type, and a transform if there is one.
type SortedBy = (usize, DataType, Option<Transform>);

/// Values in order.
#[derive(Debug)]
struct Sorted {
    converter: RowConverter,
    data_type: DataType,
    rows: Rows,
}

/// The partitions that keys are in, by the fields of one spec whose source is a key column.
#[derive(Debug)]
struct Tuples {
    fields: Vec<PartitionField>,
    /// Indices and types of the fields that are compared; empty if none can be.
    compared: Vec<(usize, DataType)>,
    converter: Option<RowConverter>,
    set: HashSet<Box<[u8]>>,
}

impl Keys {
    /// `None` if there are no columns: then nothing is asked.
    pub(super) fn new(columns: Vec<(String, ArrayRef)>) -> Result<Option<Self>> {
        let Some((name, first)) = columns.first() else {
            return Ok(None);
        };
        if let Some((other, column)) = columns.iter().find(|(_, column)| column.len() != first.len()) {
            let (a, b) = (first.len(), column.len());
            let what = format!("key column '{name}' has {a} rows, '{other}' {b}");
            return Err(Error::invalid(what, ""));
        }
        let columns = without_nulls(columns)?.into_iter();
        let columns = columns.map(|(name, values)| (name, as_compared(&values)));
        Ok(Some(Self {
            columns: columns.collect(),
            asked: AtomicUsize::new(0),
            sorted: Mutex::default(),
            tuples: Mutex::default(),
        }))
    }

    /// The key columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// Which files may hold a key, by the bounds of the key columns.
    pub(super) fn in_ranges(&self, witness: &Witness<'_>, schema: &Schema) -> Result<Vec<bool>> {
        let rows = witness.rows();
        let asked = self.asked.fetch_add(rows.len(), Ordering::Relaxed) + rows.len();
        let mut keep = vec![!self.is_empty(); rows.len()];
        for (index, (name, _)) in self.columns.iter().enumerate() {
            let Ok(field) = schema.field_with_name(name) else {
                continue;
            };
            if !witness.knows(name) {
                continue;
            }
            let known = witness.known(name, field.data_type(), &rows)?;
            let (min, max) = (&known.min, &known.max);
            let within = if asked <= FEW && !field.data_type().is_floating() {
                let Some(values) = as_type(&self.columns[index].1, field.data_type()) else {
                    continue;
                };
                any_within(&values, min, max)?
            } else {
                let Some(sorted) = self.sorted(index, field.data_type(), None)? else {
                    continue;
                };
                sorted.any_within(min, max)?
            };
            for (i, keep) in keep.iter_mut().enumerate() {
                let all_null = known.nulls.is_valid(i) && known.nulls.value(i) == rows[i];
                *keep &= within[i] && !(all_null && rows[i] > 0);
            }
        }
        Ok(keep)
    }

    /// Which files are in a partition that a key is in.
    pub(super) fn in_partitions(&self, snapshot: &Snapshot, places: &[Place<'_>]) -> Result<Vec<bool>> {
        let mut keep = vec![!self.is_empty(); places.len()];
        if self.is_empty() {
            return Ok(keep);
        }
        let mut by_spec: HashMap<i32, Vec<usize>> = HashMap::new();
        for (index, (spec, _)) in places.iter().enumerate() {
            by_spec.entry(*spec).or_default().push(index);
        }
        for (spec, indices) in by_spec {
            let Some(tuples) = self.tuples(snapshot, spec)? else {
                continue;
            };
            let Some(converter) = &tuples.converter else {
                continue;
            };
            // A file whose partition values are not of the spec's number is left alone.
            let indices: Vec<usize> = indices
                .into_iter()
                .filter(|i| places[*i].1.len() == tuples.fields.len())
                .collect();
            let columns: Option<Vec<ArrayRef>> = tuples
                .compared
                .iter()
                .map(|(field, data_type)| {
                    values(indices.iter().map(|i| Some(&places[*i].1[*field])), data_type)
                })
                .collect();
            let Some(columns) = columns else { continue };
            let rows = converter.convert_columns(&columns)?;
            for (row, index) in rows.iter().zip(indices) {
                keep[index] = tuples.set.contains(row.data());
            }
        }
        Ok(keep)
    }

    /// Which groups of files may hold a partition that a key is in.
    pub(super) fn in_partition_ranges(
        &self,
        snapshot: &Snapshot,
        fields: &[PartitionField],
        ranges: &[Vec<Option<PartitionRange>>],
    ) -> Result<Vec<bool>> {
        let mut keep = vec![!self.is_empty(); ranges.len()];
        for (position, field) in fields.iter().enumerate() {
            let Some((key, source)) = self.compared(snapshot, field) else {
                continue;
            };
            // Ranges of partition values leave out NaNs.
            if source.is_floating() {
                continue;
            }
            let Some(sorted) = self.sorted(key, source, Some(field.transform))? else {
                continue;
            };
            let range = |i: usize| ranges[i].get(position).and_then(Option::as_ref);
            let bounds = |of: fn(&PartitionRange) -> Option<&ScalarValue>| {
                let bounds: Vec<_> = (0..ranges.len())
                    .map(|i| range(i).and_then(of).and_then(|v| of_type(v, &sorted.data_type)))
                    .collect();
                values(bounds.iter().map(Option::as_ref), &sorted.data_type)
            };
            let (Some(min), Some(max)) = (bounds(|r| r.min.as_ref()), bounds(|r| r.max.as_ref())) else {
                continue;
            };
            let within = sorted.any_within(&min, &max)?;
            for (i, keep) in keep.iter_mut().enumerate() {
                let all_null = range(i).is_some_and(|r| r.min.is_none() && r.max.is_none() && r.has_null);
                *keep &= within[i] && !all_null;
            }
        }
        Ok(keep)
    }

    fn is_empty(&self) -> bool {
        self.columns.iter().any(|(_, column)| column.is_empty())
    }

    /// The key column of a partition field, and its type in the table, if the partition of a key can be
    /// told for certain.
    fn compared<'a>(&self, snapshot: &'a Snapshot, field: &PartitionField) -> Option<(usize, &'a DataType)> {
        // Where the writer's time zone is not known, or an empty text is NULL, only ranges are looked at.
        if matches!(field.transform, Transform::Void | Transform::Prefix(_)) || field.zone_slack_days != 0 {
            return None;
        }
        let key = self.columns.iter().position(|(name, _)| *name == field.source)?;
        let source = snapshot.schema.field_with_name(&field.source).ok()?;
        Some((key, source.data_type()))
    }

    /// The values of a key column as the table's type, transformed, in order. `None` if they cannot be
    /// compared.
    fn sorted(
        &self,
        key: usize,
        data_type: &DataType,
        transform: Option<Transform>,
    ) -> Result<Option<Arc<Sorted>>> {
        let mut cache = self.sorted.lock().unwrap_or_else(PoisonError::into_inner);
        let by = (key, data_type.clone(), transform);
        if let Some(sorted) = cache.get(&by) {
            return Ok(sorted.clone());
        }
        let made = match as_type(&self.columns[key].1, data_type) {
            None => None,
            Some(values) => match transform.map_or(Ok(Arc::clone(&values)), |t| t.apply(&values)) {
                Ok(values) => Some(Arc::new(Sorted::new(&values)?)),
                Err(_) => None,
            },
        };
        cache.insert(by, made.clone());
        Ok(made)
    }

    /// The partitions of the keys under a spec; `None` if the snapshot has no such spec.
    fn tuples(&self, snapshot: &Snapshot, spec: i32) -> Result<Option<Arc<Tuples>>> {
        let Some(fields) = snapshot.specs.get(&spec) else {
            return Ok(None);
        };
        let mut cache = self.tuples.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tuples) = cache.get(&spec).filter(|tuples| tuples.fields == *fields) {
            return Ok(Some(Arc::clone(tuples)));
        }
        let made = Arc::new(self.make_tuples(snapshot, fields)?);
        cache.insert(spec, Arc::clone(&made));
        Ok(Some(made))
    }

    fn make_tuples(&self, snapshot: &Snapshot, fields: &[PartitionField]) -> Result<Tuples> {
        let mut compared = Vec::new();
        let mut columns = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let Some((key, source)) = self.compared(snapshot, field) else {
                continue;
            };
            let Some(values) = as_type(&self.columns[key].1, source) else {
                continue;
            };
            // A sign of zero and NaNs are spelt in several ways in partition values.
            if source.is_floating() {
                continue;
            }
            let Ok(values) = field.transform.apply(&values) else {
                continue;
            };
            compared.push((index, values.data_type().clone()));
            columns.push(values);
        }
        let mut set = HashSet::new();
        let mut converter = None;
        if !columns.is_empty() {
            let types = compared.iter().map(|(_, t)| SortField::new(t.clone())).collect();
            let made = RowConverter::new(types)?;
            let rows = made.convert_columns(&columns)?;
            let mut last: Option<&[u8]> = None;
            for (index, row) in rows.iter().enumerate() {
                // A key that is beyond the table's type became NULL: it matches nothing.
                if columns.iter().any(|column| column.is_null(index)) || last == Some(row.data()) {
                    continue;
                }
                set.insert(row.data().into());
                last = Some(row.data());
            }
            converter = Some(made);
        }
        Ok(Tuples {
            fields: fields.to_vec(),
            compared,
            converter,
            set,
        })
    }
}

impl Sorted {
    fn new(values: &ArrayRef) -> Result<Self> {
        let there = compute::is_not_null(values)?;
        let values = compute::sort(&compute::filter(values, &there)?, None)?;
        let data_type = values.data_type().clone();
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        let rows = converter.convert_columns(&[values])?;
        Ok(Self {
            converter,
            data_type,
            rows,
        })
    }

    /// For each pair of bounds (NULL where open), whether a value lies within.
    fn any_within(&self, min: &ArrayRef, max: &ArrayRef) -> Result<Vec<bool>> {
        let encoded = |bounds: &ArrayRef| -> Result<Option<Rows>> {
            let bounds = match *bounds.data_type() == self.data_type {
                true => Arc::clone(bounds),
                false => match compute::cast(bounds, &self.data_type) {
                    Ok(bounds) => bounds,
                    Err(_) => return Ok(None),
                },
            };
            Ok(Some(self.converter.convert_columns(&[bounds])?))
        };
        let (Some(low), Some(high)) = (encoded(min)?, encoded(max)?) else {
            return Ok(vec![true; min.len()]);
        };
        let count = self.rows.num_rows();
        let first_from = |bound: arrow::row::Row<'_>| {
            let (mut start, mut end) = (0, count);
            while start < end {
                let middle = start + (end - start) / 2;
                if self.rows.row(middle) < bound {
                    start = middle + 1;
                } else {
                    end = middle;
                }
            }
            start
        };
        Ok((0..min.len())
            .map(|i| {
                let first = if min.is_valid(i) {
                    first_from(low.row(i))
                } else {
                    0
                };
                first < count && (max.is_null(i) || self.rows.row(first) <= high.row(i))
            })
            .collect())
    }
}

/// For each pair of bounds (NULL where open), whether one of these values lies within.
fn any_within(keys: &ArrayRef, low: &ArrayRef, high: &ArrayRef) -> Result<Vec<bool>> {
    if low.data_type() != keys.data_type() || high.data_type() != keys.data_type() {
        return Ok(vec![true; low.len()]);
    }
    let mut found = Vec::with_capacity(low.len());
    for i in 0..low.len() {
        let mut within = compute::is_not_null(keys)?;
        if low.is_valid(i) {
            within = compute::and_kleene(&within, &cmp::gt_eq(keys, &Scalar::new(low.slice(i, 1)))?)?;
        }
        if high.is_valid(i) {
            within = compute::and_kleene(&within, &cmp::lt_eq(keys, &Scalar::new(high.slice(i, 1)))?)?;
        }
        found.push(within.true_count() > 0);
    }
    Ok(found)
}

/// Values of this type (NULL for `None`); nothing if one is of another type.
fn values<'a>(
    values: impl Iterator<Item = Option<&'a ScalarValue>>,
    data_type: &DataType,
) -> Option<ArrayRef> {
    let nothing = ScalarValue::try_from(data_type).ok()?;
    let values = values
        .map(|value| match value {
            None => Some(nothing.clone()),
            Some(value) if value.data_type() == *data_type => Some(value.clone()),
            Some(value) if value.is_null() => Some(nothing.clone()),
            Some(value) => value.cast_to(data_type).ok(),
        })
        .collect::<Option<Vec<_>>>()?;
    if values.is_empty() {
        return Some(arrow::array::new_empty_array(data_type));
    }
    ScalarValue::iter_to_array(values).ok()
}

/// Rows without NULL in any column.
fn without_nulls(columns: Vec<(String, ArrayRef)>) -> Result<Vec<(String, ArrayRef)>> {
    let mut there: Option<BooleanArray> = None;
    for (_, column) in columns
        .iter()
        .filter(|(_, column)| column.logical_null_count() > 0)
    {
        let valid = match column.logical_nulls() {
            Some(nulls) => BooleanArray::new(nulls.into_inner(), None),
            None => continue,
        };
        there = Some(match there {
            Some(there) => compute::and(&there, &valid)?,
            None => valid,
        });
    }
    let Some(there) = there else {
        return Ok(columns);
    };
    columns
        .into_iter()
        .map(|(name, column)| Ok((name, compute::filter(&column, &there)?)))
        .collect()
}

/// The keys in the table's type, NULL where a key is beyond it. `None` where comparing after the cast
/// could differ from what the engine compares: such columns skip nothing.
fn as_type(column: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    use DataType as T;
    let from = column.data_type();
    if let T::Dictionary(_, inner) = from {
        return as_type(&compute::cast(column, inner).ok()?, to);
    }
    let utc = |t: &DataType| match t {
        T::Timestamp(_, zone) => zone.as_deref().is_none_or(is_utc),
        _ => true,
    };
    // Finer units may be rounded to one key too many, never to one too few.
    let unit = |t: &DataType| match t {
        T::Timestamp(TimeUnit::Second, _) => 0,
        T::Timestamp(TimeUnit::Millisecond, _) => 1,
        T::Timestamp(TimeUnit::Microsecond, _) => 2,
        _ => 3,
    };
    let comparable = from == to
        || (from.is_integer() && to.is_integer())
        || (from.is_string() && to.is_string())
        || (from.is_binary() && to.is_binary())
        || (from.is_integer() && matches!(to, T::Decimal128(..)))
        || matches!((from, to), (T::Decimal128(_, a), T::Decimal128(_, b)) if a <= b)
        || matches!((from, to), (T::Float32, T::Float64))
        || (matches!((from, to), (T::Timestamp(..), T::Timestamp(..)))
            && utc(from)
            && utc(to)
            && unit(from) <= unit(to))
        || (matches!((from, to), (T::Date32, T::Timestamp(..))) && utc(to));
    if !comparable || to.is_nested() {
        return None;
    }
    if from == to {
        return Some(Arc::clone(column));
    }
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    compute::cast_with_options(column, to, &options).ok()
}
