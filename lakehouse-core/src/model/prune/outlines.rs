//! Files of which only what a filter asks for is known, column by column: of a million files, most are skipped before
//! any [`DataFile`](crate::model::DataFile) is made of them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, UInt64Array};
use arrow::compute::kernels::cmp;
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::scalar::ScalarValue;

use super::evidence::{Evidence, Nulls, of_partition};
use crate::error::Result;
use crate::model::{PartitionField, Snapshot};

/// A partition: the spec, and one value per field of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// Which partition spec the values belong to.
    pub spec_id: i32,
    /// One value per partition field; typed NULL where the value is NULL.
    pub values: Vec<ScalarValue>,
}

/// What is known of some files before they are read in full.
#[derive(Debug)]
pub struct Outlines {
    /// Rows of each file, masked ones included; 0 where nobody counted them.
    pub rows: Vec<u64>,
    /// The partitions that files are in.
    pub partitions: Vec<Partition>,
    /// Of each file, which of `partitions` it is in.
    pub places: Vec<u32>,
    /// Statistics by column name (`a.b` inside structs), of the columns that were asked for.
    pub columns: HashMap<String, Bounds>,
}

/// Statistics of one column, a value per file, NULL where it is not known.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// No value is smaller.
    pub min: ArrayRef,
    /// No value is larger.
    pub max: ArrayRef,
    /// Number of NULLs.
    pub nulls: UInt64Array,
    /// Number of NaNs (floating point only).
    pub nans: Option<UInt64Array>,
}

/// Bounds of the values of one column, file by file.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) min: ArrayRef,
    pub(super) max: ArrayRef,
    pub(super) nulls: UInt64Array,
}

impl Outlines {
    /// What statistics and partitions together say of a column of this type.
    pub(super) fn of_column(
        &self,
        snapshot: &Snapshot,
        name: &str,
        data_type: &DataType,
        rows: &[u64],
    ) -> Result<Known> {
        let mut known = match self.columns.get(name) {
            Some(bounds) => bounds.known(data_type)?,
            None => Known::nothing(data_type, rows.len()),
        };
        let fields = |partition: &Partition| {
            let fields = snapshot.specs.get(&partition.spec_id);
            fields.map_or(&[][..], Vec::as_slice)
        };
        let most = self
            .partitions
            .iter()
            .map(|partition| fields(partition).len())
            .max();
        for at in 0..most.unwrap_or(0) {
            let of = |partition: &Partition| -> Option<Evidence> {
                let field: &PartitionField = fields(partition).get(at)?;
                let value = partition.values.get(at)?;
                (field.source == name).then(|| of_partition(field, value, data_type))
            };
            let evidence: Vec<Option<Evidence>> = self.partitions.iter().map(of).collect();
            if evidence.iter().any(Option::is_some) {
                let evidence: Vec<Evidence> = evidence.into_iter().map(Option::unwrap_or_default).collect();
                known = known.and(&evidence, &self.places, data_type, rows)?;
            }
        }
        Ok(known)
    }
}

impl Bounds {
    /// In the column's type, without those that comparisons must not believe.
    fn known(&self, data_type: &DataType) -> Result<Known> {
        // NaN is beyond all other values, on either side by its sign, and bounds leave it out.
        let believed = |bound: &ArrayRef| -> Result<ArrayRef> {
            if !data_type.is_floating() {
                return Ok(Arc::clone(bound));
            }
            let none = |nans: &UInt64Array| -> BooleanArray {
                nans.iter().map(|nans| Some(nans != Some(0))).collect()
            };
            Ok(match &self.nans {
                Some(nans) => compute::nullif(bound, &none(nans))?,
                None => arrow::array::new_null_array(bound.data_type(), bound.len()),
            })
        };
        // Files may be older than a change of the column's type.
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let typed = |bound: &ArrayRef, zero: f64| -> Result<ArrayRef> {
            let bound = believed(bound)?;
            let bound = match bound.data_type() == data_type {
                true => bound,
                false => match compute::cast_with_options(&bound, data_type, &options) {
                    Ok(bound) => bound,
                    Err(_) => arrow::array::new_null_array(data_type, bound.len()),
                },
            };
            Ok(widened_zeros(bound, zero))
        };
        Ok(Known {
            min: typed(&self.min, -0.0)?,
            max: typed(&self.max, 0.0)?,
            nulls: self.nulls.clone(),
        })
    }
}

/// Writers do not agree on the sign of zero: a bound of zero becomes the outer one.
fn widened_zeros(bound: ArrayRef, zero: f64) -> ArrayRef {
    match bound.data_type() {
        DataType::Float64 => {
            let bound = bound.as_primitive::<Float64Type>();
            Arc::new(bound.unary::<_, Float64Type>(|v| if v == 0.0 { zero } else { v }))
        }
        DataType::Float32 => {
            let zero = zero as f32;
            let bound = bound.as_primitive::<Float32Type>();
            Arc::new(bound.unary::<_, Float32Type>(|v| if v == 0.0 { zero } else { v }))
        }
        _ => bound,
    }
}

impl Known {
    fn nothing(data_type: &DataType, files: usize) -> Self {
        Self {
            min: arrow::array::new_null_array(data_type, files),
            max: arrow::array::new_null_array(data_type, files),
            nulls: UInt64Array::new_null(files),
        }
    }

    /// The same, file by file, where what is known comes one by one.
    pub(super) fn of(evidence: &[Evidence], data_type: &DataType, rows: &[u64]) -> Result<Self> {
        let nulls = evidence.iter().zip(rows).map(|(e, rows)| match e.nulls {
            Nulls::Unknown => None,
            Nulls::Count(nulls) => Some(nulls),
            Nulls::All => Some(*rows),
        });
        Ok(Self {
            min: array(evidence, |e| &e.min, data_type)?,
            max: array(evidence, |e| &e.max, data_type)?,
            nulls: nulls.collect(),
        })
    }

    /// Both are true: these, and what each partition says of its files.
    fn and(self, evidence: &[Evidence], places: &[u32], data_type: &DataType, rows: &[u64]) -> Result<Self> {
        let places_array = UInt32Array::from(places.to_vec());
        let spread = |of: fn(&Evidence) -> &Option<ScalarValue>| -> Result<ArrayRef> {
            Ok(compute::take(
                &array(evidence, of, data_type)?,
                &places_array,
                None,
            )?)
        };
        let nulls = self
            .nulls
            .iter()
            .zip(places)
            .zip(rows)
            .map(|((nulls, place), rows)| match evidence[*place as usize].nulls {
                Nulls::All => Some(*rows),
                Nulls::Count(count) => nulls.or(Some(count)),
                Nulls::Unknown => nulls,
            });
        let nulls = nulls.collect();
        Ok(Self {
            min: tighter(&self.min, &spread(|e| &e.min)?, Ordering::Greater)?,
            max: tighter(&self.max, &spread(|e| &e.max)?, Ordering::Less)?,
            nulls,
        })
    }
}

fn array(
    evidence: &[Evidence],
    of: fn(&Evidence) -> &Option<ScalarValue>,
    data_type: &DataType,
) -> Result<ArrayRef> {
    if evidence.is_empty() {
        return Ok(arrow::array::new_empty_array(data_type));
    }
    let nothing = ScalarValue::try_from(data_type)?;
    let values = evidence
        .iter()
        .map(|e| of(e).clone().unwrap_or_else(|| nothing.clone()));
    Ok(ScalarValue::iter_to_array(values)?)
}

/// Of two bounds each the one that lies on this side of the other, or the one that there is.
fn tighter(a: &ArrayRef, b: &ArrayRef, side: Ordering) -> Result<ArrayRef> {
    if a.data_type() != b.data_type() || b.null_count() == b.len() {
        return Ok(Arc::clone(a));
    }
    if a.null_count() == a.len() {
        return Ok(Arc::clone(b));
    }
    let beyond = match side {
        Ordering::Greater => cmp::gt(b, a)?,
        _ => cmp::lt(b, a)?,
    };
    let second: BooleanArray = (0..a.len())
        .map(|at| Some(b.is_valid(at) && (a.is_null(at) || (beyond.is_valid(at) && beyond.value(at)))))
        .collect();
    Ok(compute::kernels::zip::zip(&second, b, a)?)
}
