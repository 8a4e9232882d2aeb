//! The values of one column of one file against what its statistics say.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Fields, Float16Type, Float32Type, Float64Type};
use datafusion::scalar::ScalarValue;

use crate::error::Result;
use crate::model::{Code, ColumnStats, Finding};

/// A column that may have statistics.
pub(super) struct Leaf {
    /// `a.b` for a member of a struct.
    pub(super) name: String,
    /// Below a NULL struct all is NULL.
    pub(super) values: ArrayRef,
    /// How many of the NULLs are there because a struct around them is NULL.
    outer_nulls: u64,
}

/// The columns that may have statistics. What lies inside of lists and maps has none.
pub(super) fn leaves(fields: &Fields, columns: &[ArrayRef]) -> Result<Vec<Leaf>> {
    let mut found = Vec::new();
    for (field, column) in fields.iter().zip(columns) {
        below(field.name().clone(), column, None, &mut found)?;
    }
    Ok(found)
}

fn below(name: String, column: &ArrayRef, outer: Option<&NullBuffer>, found: &mut Vec<Leaf>) -> Result<()> {
    if let DataType::Struct(members) = column.data_type() {
        let parent: &StructArray = column.as_struct();
        let nulls = NullBuffer::union(outer, parent.nulls());
        for (member, child) in members.iter().zip(parent.columns()) {
            below(format!("{name}.{}", member.name()), child, nulls.as_ref(), found)?;
        }
        return Ok(());
    }
    let outer = outer.filter(|nulls| nulls.null_count() > 0);
    found.push(Leaf {
        name,
        values: match outer {
            Some(nulls) => nullif(column, &BooleanArray::new(!nulls.inner(), None))?,
            None => Arc::clone(column),
        },
        outer_nulls: outer.map_or(0, |nulls| nulls.null_count() as u64),
    });
    Ok(())
}

/// Counts of one column.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    values: u64,
    nulls: u64,
    nans: u64,
    /// NULLs because of a struct around them.
    outer: u64,
}

impl Counts {
    fn add(&mut self, leaf: &Leaf, nans: Option<&BooleanArray>) {
        self.values += leaf.values.len() as u64;
        self.nulls += leaf.values.logical_null_count() as u64;
        self.outer += leaf.outer_nulls;
        self.nans += nans.map_or(0, |nans| nans.true_count() as u64);
    }
}

/// One column of one file, as far as it is read.
pub(super) struct Column {
    stats: ColumnStats,
    /// Of all rows, and of those that are not masked.
    all: Counts,
    visible: Counts,
    below: Option<String>,
    above: Option<String>,
}

impl Column {
    pub(super) fn new(stats: ColumnStats) -> Self {
        Self {
            stats,
            all: Counts::default(),
            visible: Counts::default(),
            below: None,
            above: None,
        }
    }

    /// Reads on: all rows of a batch and, if some are masked, the others.
    pub(super) fn add(&mut self, all: &Leaf, visible: Option<&Leaf>) -> Result<()> {
        self.all.add(all, nans(&all.values).as_ref());
        let leaf = visible.unwrap_or(all);
        let visible = &leaf.values;
        let nans = nans(visible);
        self.visible.add(leaf, nans.as_ref());
        if visible.data_type().is_nested() {
            return Ok(());
        }
        // NaN is beyond every bound, and bounds leave it out.
        let compared = match &nans {
            Some(nans) if nans.true_count() > 0 => nullif(visible, nans)?,
            _ => Arc::clone(visible),
        };
        if self.below.is_none()
            && let Some(min) = bound(self.stats.min.as_ref(), visible.data_type(), true)
        {
            self.below = first(&compared, &lt(&compared, &min)?);
        }
        if self.above.is_none()
            && let Some(max) = bound(self.stats.max.as_ref(), visible.data_type(), false)
        {
            self.above = first(&compared, &gt(&compared, &max)?);
        }
        Ok(())
    }

    /// What does not agree. `masked`: statistics may be those of the visible rows, or of all.
    pub(super) fn findings(&self, name: &str, path: &str, masked: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut found = |code, what: String| {
            findings.push(Finding::new(
                code,
                path,
                what,
                "filters and counts by statistics give wrong answers: write the rows of the file anew (lake compact after \
                 masking, lake overwrite --where), or restore the metadata from a backup",
            ));
        };
        let (all, visible) = (self.all, self.visible);
        for (code, word, recorded, of) in [
            (
                Code::ValueCount,
                "values",
                self.stats.values,
                (|counts| counts.values) as fn(&Counts) -> u64,
            ),
            (Code::NullCount, "NULLs", self.stats.nulls, |counts| counts.nulls),
            (Code::NanCount, "NaNs", self.stats.nans, |counts| counts.nans),
        ] {
            let (visible_count, all_count) = (of(&visible), of(&all));
            let agrees = |recorded: u64, visible: u64, all: u64| match masked {
                true => (visible..=all).contains(&recorded),
                false => recorded == all,
            };
            // Some writers count what a NULL struct would hold, others do not.
            let counted = |recorded: u64| {
                let inner = |count: u64, counts: &Counts| count.saturating_sub(counts.outer);
                agrees(recorded, visible_count, all_count)
                    || agrees(recorded, inner(visible_count, &visible), inner(all_count, &all))
            };
            let all = all_count;
            if let Some(recorded) = recorded.filter(|recorded| !counted(*recorded)) {
                found(
                    code,
                    format!("column {name} has {all} {word}, the statistics say {recorded}"),
                );
            }
        }
        for (value, bound, word) in [
            (&self.below, &self.stats.min, "least"),
            (&self.above, &self.stats.max, "greatest"),
        ] {
            if let (Some(value), Some(bound)) = (value, bound) {
                found(
                    Code::Bound,
                    format!(
                        "column {name} has the value {value}, the statistics say that {bound} is the {word}"
                    ),
                );
            }
        }
        findings
    }
}

/// A bound to compare with; `None` where it is none of the column's type. Zeros have no sign.
fn bound(value: Option<&ScalarValue>, data_type: &DataType, least: bool) -> Option<Scalar<ArrayRef>> {
    let value = value.filter(|value| !value.is_null())?;
    let value = match value.data_type() == *data_type {
        true => value.clone(),
        false => value.cast_to(data_type).ok().filter(|value| !value.is_null())?,
    };
    let value = match value {
        ScalarValue::Float32(Some(0.0)) => ScalarValue::from(if least { -0.0_f32 } else { 0.0 }),
        ScalarValue::Float64(Some(0.0)) => ScalarValue::from(if least { -0.0_f64 } else { 0.0 }),
        value => value,
    };
    value.to_scalar().ok()
}

/// The first value for which it is true.
fn first(column: &ArrayRef, truth: &BooleanArray) -> Option<String> {
    let at = (0..truth.len()).find(|row| truth.is_valid(*row) && truth.value(*row))?;
    ScalarValue::try_from_array(column, at)
        .ok()
        .map(|value| value.to_string())
}

/// Which values are NaN; `None` for columns that cannot have any.
fn nans(column: &ArrayRef) -> Option<BooleanArray> {
    let known = match column.data_type() {
        DataType::Float16 => {
            BooleanArray::from_unary(column.as_primitive::<Float16Type>(), |value| value.is_nan())
        }
        DataType::Float32 => BooleanArray::from_unary(column.as_primitive::<Float32Type>(), f32::is_nan),
        DataType::Float64 => BooleanArray::from_unary(column.as_primitive::<Float64Type>(), f64::is_nan),
        _ => return None,
    };
    // `nullif` and counts take NULL for no.
    Some(known)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, StringArray};

    use super::*;

    fn judged(stats: ColumnStats, all: ArrayRef, visible: Option<ArrayRef>) -> Vec<Code> {
        let leaf = |values: ArrayRef| Leaf {
            name: "c".to_owned(),
            values,
            outer_nulls: 0,
        };
        let (all, visible) = (leaf(all), visible.map(leaf));
        let mut column = Column::new(stats);
        column.add(&all, visible.as_ref()).unwrap();
        let findings = column.findings("c", "f", visible.is_some());
        findings.into_iter().map(|finding| finding.code).collect()
    }

    fn bounded(min: impl Into<ScalarValue>, max: impl Into<ScalarValue>) -> ColumnStats {
        ColumnStats {
            min: Some(min.into()),
            max: Some(max.into()),
            ..ColumnStats::default()
        }
    }

    #[test]
    fn bounds_may_be_wider_and_never_narrower() {
        let n: ArrayRef = Arc::new(Int32Array::from(vec![Some(3), None, Some(7)]));
        assert_eq!(judged(bounded(3, 7), Arc::clone(&n), None), []);
        assert_eq!(judged(bounded(-9, 99), Arc::clone(&n), None), []);
        assert_eq!(judged(bounded(4, 7), Arc::clone(&n), None), [Code::Bound]);
        assert_eq!(judged(bounded(4, 6), n, None), [Code::Bound, Code::Bound]);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["zürich", "aa"]));
        assert_eq!(judged(bounded("a", "zü\u{fd}"), Arc::clone(&text), None), []);
        assert_eq!(judged(bounded("a", "z"), text, None), [Code::Bound]);
    }

    #[test]
    fn members_of_null_structs_are_counted_or_not() {
        let x = Arc::new(arrow::datatypes::Field::new("x", DataType::Int32, true));
        let n: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
        let nulls = NullBuffer::from(vec![true, true, false]);
        let s: ArrayRef = Arc::new(StructArray::new(vec![x].into(), vec![n], Some(nulls)));
        let field = arrow::datatypes::Field::new("s", s.data_type().clone(), true);
        let leaves = leaves(&vec![field].into(), &[s]).unwrap();
        assert_eq!(leaves[0].name, "s.x");
        for (values, nulls, sound) in [(3, 2, true), (2, 1, true), (3, 3, false), (2, 0, false)] {
            let mut column = Column::new(ColumnStats {
                values: Some(values),
                nulls: Some(nulls),
                ..bounded(1, 1)
            });
            column.add(&leaves[0], None).unwrap();
            assert_eq!(
                column.findings("s.x", "f", false).is_empty(),
                sound,
                "{values} values, {nulls} NULLs"
            );
        }
    }

    #[test]
    fn nans_are_beyond_bounds_and_zeros_have_no_sign() {
        let d: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, f64::NAN, -f64::NAN, 0.0]));
        assert_eq!(judged(bounded(0.0, -0.0), Arc::clone(&d), None), []);
        let counted = |nans| ColumnStats {
            nans: Some(nans),
            ..ColumnStats::default()
        };
        assert_eq!(judged(counted(2), Arc::clone(&d), None), []);
        assert_eq!(judged(counted(1), d, None), [Code::NanCount]);
    }

    #[test]
    fn counts_of_files_with_masks_are_those_of_all_rows_or_of_the_visible_ones() {
        let all: ArrayRef = Arc::new(Int32Array::from(vec![None, None, Some(1), Some(9)]));
        let visible: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(1)]));
        let counted = |nulls| ColumnStats {
            nulls: Some(nulls),
            ..bounded(1, 1)
        };
        for (nulls, expected) in [
            (0, vec![Code::NullCount]),
            (1, vec![]),
            (2, vec![]),
            (3, vec![Code::NullCount]),
        ] {
            let judged = judged(counted(nulls), Arc::clone(&all), Some(Arc::clone(&visible)));
            assert_eq!(judged, expected, "{nulls} NULLs");
        }
    }
}
