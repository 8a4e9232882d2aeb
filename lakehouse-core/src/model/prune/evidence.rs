//! What partition values and statistics say about the values of a column.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;

use super::PartitionRange;
use super::outlines::{Known, Outlines};
use crate::error::Result;
use crate::model::{BucketHash, ColumnStats, DataFile, PartitionField, Snapshot, Transform};

/// A partition: the spec and its values.
pub(super) type Place<'a> = (i32, &'a [ScalarValue]);

/// What is known of one column in one container (a file, or a group of files).
#[derive(Debug, Default, Clone)]
pub(super) struct Evidence {
    /// No value is smaller.
    pub(super) min: Option<ScalarValue>,
    /// No value is larger.
    pub(super) max: Option<ScalarValue>,
    pub(super) nulls: Nulls,
}

/// What is known of NULLs in a container.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nulls {
    #[default]
    Unknown,
    /// So many rows are NULL.
    Count(u64),
    /// Every row is.
    All,
}

/// Containers, and where what is known about them comes from.
#[derive(Debug)]
pub(super) enum Witness<'a> {
    /// Partitions, by their values.
    Places {
        snapshot: &'a Snapshot,
        places: &'a [Place<'a>],
    },
    /// Files, by partition values and column statistics.
    Files {
        snapshot: &'a Snapshot,
        files: &'a [&'a DataFile],
    },
    /// The same, of files that are not read in full.
    Outlines {
        snapshot: &'a Snapshot,
        outlines: &'a Outlines,
    },
    /// Groups of files, by ranges of partition values.
    Ranges {
        fields: &'a [PartitionField],
        ranges: &'a [Vec<Option<PartitionRange>>],
    },
}

impl<'a> Witness<'a> {
    /// Number of containers.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Places { places, .. } => places.len(),
            Self::Files { files, .. } => files.len(),
            Self::Outlines { outlines, .. } => outlines.rows.len(),
            Self::Ranges { ranges, .. } => ranges.len(),
        }
    }

    /// Rows of each container. A group of files counts as one row: only "none" and "all" matter. Of a file whose rows
    /// nobody counted (0, Delta without statistics) no number of NULLs is all of them.
    pub(super) fn rows(&self) -> Vec<u64> {
        let counted = |rows: u64| if rows == 0 { u64::MAX } else { rows };
        match self {
            Self::Files { files, .. } => files.iter().map(|file| counted(file.rows)).collect(),
            Self::Outlines { outlines, .. } => outlines.rows.iter().copied().map(counted).collect(),
            Self::Places { .. } | Self::Ranges { .. } => vec![1; self.len()],
        }
    }

    /// Whether anything can be known about a column.
    pub(super) fn knows(&self, column: &str) -> bool {
        let source = |fields: &[PartitionField]| fields.iter().any(|field| field.source == column);
        match self {
            Self::Files { .. } => true,
            Self::Outlines { snapshot, outlines } => {
                outlines.columns.contains_key(column) || snapshot.specs.values().any(|fields| source(fields))
            }
            Self::Places { snapshot, .. } => snapshot.specs.values().any(|fields| source(fields)),
            Self::Ranges { fields, .. } => source(fields),
        }
    }

    /// What is known of a column of this type, as arrays; `rows` as [`Witness::rows`] gives them.
    pub(super) fn known(&self, column: &str, data_type: &DataType, rows: &[u64]) -> Result<Known> {
        match self {
            Self::Outlines { snapshot, outlines } => outlines.of_column(snapshot, column, data_type, rows),
            _ => Known::of(&self.of_column(column, data_type), data_type, rows),
        }
    }

    /// What is known of a column of this type, container by container. (Of outlines, by their partitions only.)
    fn of_column(&self, column: &str, data_type: &DataType) -> Vec<Evidence> {
        let in_place = |snapshot: &Snapshot, (spec_id, values): Place<'_>, mut known: Evidence| {
            let fields = snapshot.specs.get(&spec_id).map_or(&[][..], Vec::as_slice);
            for (field, value) in fields.iter().zip(values) {
                if field.source == column {
                    known = known.and(of_partition(field, value, data_type));
                }
            }
            known
        };
        match self {
            Self::Places { snapshot, places } => places
                .iter()
                .map(|place| in_place(snapshot, *place, Evidence::default()))
                .collect(),
            Self::Files { snapshot, files } => files
                .iter()
                .map(|file| {
                    let known = of_statistics(file.columns.get(column), data_type);
                    in_place(snapshot, (file.spec_id, &file.partition), known)
                })
                .collect(),
            Self::Outlines { snapshot, .. } => (0..self.len())
                .map(|at| match self.place(at) {
                    Some(place) => in_place(snapshot, place, Evidence::default()),
                    None => Evidence::default(),
                })
                .collect(),
            Self::Ranges { fields, ranges, .. } => ranges
                .iter()
                .map(|ranges| {
                    fields
                        .iter()
                        .zip(ranges)
                        .filter(|(field, _)| field.source == column)
                        .filter_map(|(field, range)| Some(of_range(field, range.as_ref()?, data_type)))
                        .fold(Evidence::default(), Evidence::and)
                })
                .collect(),
        }
    }

    /// The partition of a container that is in one.
    fn place(&self, at: usize) -> Option<Place<'_>> {
        match self {
            Self::Places { places, .. } => places.get(at).copied(),
            Self::Files { files, .. } => files
                .get(at)
                .map(|file| (file.spec_id, file.partition.as_slice())),
            Self::Outlines { outlines, .. } => {
                let partition = outlines.partitions.get(*outlines.places.get(at)? as usize)?;
                Some((partition.spec_id, partition.values.as_slice()))
            }
            Self::Ranges { .. } => None,
        }
    }

    /// Whether the buckets of a column show that it holds none of these values, container by container;
    /// `None` if it is in no bucket.
    pub(super) fn excluded_by_buckets(&self, column: &str, values: &[ScalarValue]) -> Option<Vec<bool>> {
        let mut buckets: HashMap<Transform, Option<HashSet<i32>>> = HashMap::new();
        let mut of = |field: &PartitionField| -> Option<HashSet<i32>> {
            if field.source != column || !matches!(field.transform, Transform::Bucket { .. }) {
                return None;
            }
            buckets
                .entry(field.transform)
                .or_insert_with(|| bucket_numbers(field.transform, values))
                .clone()
        };
        match self {
            Self::Places { snapshot, .. }
            | Self::Files { snapshot, .. }
            | Self::Outlines { snapshot, .. } => {
                let by_spec: HashMap<i32, Vec<(usize, HashSet<i32>)>> = snapshot
                    .specs
                    .iter()
                    .map(|(id, fields)| {
                        (
                            *id,
                            fields
                                .iter()
                                .enumerate()
                                .filter_map(|(i, f)| Some((i, of(f)?)))
                                .collect(),
                        )
                    })
                    .filter(|(_, sets): &(i32, Vec<_>)| !sets.is_empty())
                    .collect();
                if by_spec.is_empty() {
                    return None;
                }
                let excluded = (0..self.len()).map(|at| {
                    let Some((spec_id, values)) = self.place(at) else {
                        return false;
                    };
                    by_spec.get(&spec_id).is_some_and(|sets| {
                        sets.iter().any(|(i, set)| match values.get(*i) {
                            Some(ScalarValue::Int32(Some(bucket))) => !set.contains(bucket),
                            Some(value) => value.is_null(),
                            None => false,
                        })
                    })
                });
                Some(excluded.collect())
            }
            Self::Ranges { fields, ranges, .. } => {
                let sets: Vec<_> = fields
                    .iter()
                    .enumerate()
                    .filter_map(|(i, f)| Some((i, of(f)?)))
                    .collect();
                if sets.is_empty() {
                    return None;
                }
                let excluded = ranges.iter().map(|ranges| {
                    sets.iter().any(|(i, set)| match ranges.get(*i) {
                        Some(Some(PartitionRange {
                            min: Some(ScalarValue::Int32(Some(min))),
                            max: Some(ScalarValue::Int32(Some(max))),
                            ..
                        })) => !set.iter().any(|bucket| (min..=max).contains(&bucket)),
                        Some(Some(PartitionRange {
                            min: None,
                            max: None,
                            has_null,
                        })) => *has_null,
                        _ => false,
                    })
                });
                Some(excluded.collect())
            }
        }
    }
}

/// The buckets of some values; `None` if they cannot be told.
fn bucket_numbers(transform: Transform, values: &[ScalarValue]) -> Option<HashSet<i32>> {
    let array = ScalarValue::iter_to_array(values.iter().cloned()).ok()?;
    let buckets = transform.apply(&array).ok()?;
    (0..buckets.len())
        .map(|i| match ScalarValue::try_from_array(&buckets, i) {
            Ok(ScalarValue::Int32(bucket)) => bucket,
            _ => None,
        })
        .collect()
}

impl Evidence {
    /// Both are true.
    fn and(self, other: Self) -> Self {
        Self {
            min: tighter(self.min, other.min, Ordering::Greater),
            max: tighter(self.max, other.max, Ordering::Less),
            nulls: match (self.nulls, other.nulls) {
                (Nulls::All, _) | (_, Nulls::All) => Nulls::All,
                (Nulls::Unknown, known) | (known, _) => known,
            },
        }
    }
}

/// Of two bounds the one that lies on this side of the other.
fn tighter(a: Option<ScalarValue>, b: Option<ScalarValue>, side: Ordering) -> Option<ScalarValue> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.partial_cmp(&a) == Some(side) { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn of_statistics(stats: Option<&ColumnStats>, data_type: &DataType) -> Evidence {
    let Some(stats) = stats else {
        return Evidence::default();
    };
    // Statistics leave out NaNs, but comparisons do not: NaN is beyond all other values, on either side
    // by its sign.
    let ordered = !data_type.is_floating() || stats.nans == Some(0);
    let bound = |value: &Option<ScalarValue>, zero: f64| {
        value
            .as_ref()
            .filter(|_| ordered)
            .and_then(|v| of_type(v, data_type))
            .map(|v| widened_zero(v, zero))
    };
    Evidence {
        min: bound(&stats.min, -0.0),
        max: bound(&stats.max, 0.0),
        nulls: stats.nulls.map_or(Nulls::Unknown, Nulls::Count),
    }
}

/// Of a partition value: the source values that it stands for.
pub(super) fn of_partition(field: &PartitionField, value: &ScalarValue, data_type: &DataType) -> Evidence {
    if !null_is_null(field.transform) {
        return Evidence::default();
    }
    if value.is_null() {
        return Evidence {
            nulls: all_null(field.transform),
            ..Evidence::default()
        };
    }
    let not_a_number = match value {
        ScalarValue::Float32(Some(v)) => v.is_nan(),
        ScalarValue::Float64(Some(v)) => v.is_nan(),
        _ => false,
    };
    let (min, max) = if not_a_number {
        (None, None)
    } else {
        // A column that became wider since has its old values here.
        let of_source = matches!(
            field.transform,
            Transform::Identity | Transform::Truncate(_) | Transform::Prefix(_)
        );
        let value = match of_source {
            true => value.cast_to(data_type).unwrap_or_else(|_| value.clone()),
            false => value.clone(),
        };
        field.transform.range(&value, data_type)
    };
    Evidence {
        min: min
            .and_then(|v| shifted(v, -field.zone_slack_days))
            .map(|v| widened_zero(v, -0.0)),
        max: max
            .and_then(|v| shifted(v, field.zone_slack_days))
            .map(|v| widened_zero(v, 0.0)),
        nulls: Nulls::Count(0),
    }
}

fn of_range(field: &PartitionField, range: &PartitionRange, data_type: &DataType) -> Evidence {
    if !null_is_null(field.transform) {
        return Evidence::default();
    }
    let nulls = match (&range.min, &range.max, range.has_null) {
        (None, None, true) => all_null(field.transform),
        (_, _, false) => Nulls::Count(0),
        _ => Nulls::Unknown,
    };
    // Ranges of partition values leave out NaNs.
    if data_type.is_floating() || !field.transform.keeps_order() {
        return Evidence {
            nulls,
            ..Evidence::default()
        };
    }
    let end = |value: &Option<ScalarValue>| value.as_ref().map(|v| field.transform.range(v, data_type));
    // A value at the type's lower end is rounded down to one that wraps around, to its upper end.
    let wrapped = matches!(field.transform, Transform::Truncate(width)
        if range.max.as_ref().is_some_and(|max| is_near_the_end(max, width)));
    Evidence {
        min: end(if wrapped { &None } else { &range.min })
            .and_then(|(min, _)| min)
            .and_then(|v| shifted(v, -field.zone_slack_days)),
        max: end(&range.max)
            .and_then(|(_, max)| max)
            .and_then(|v| shifted(v, field.zone_slack_days)),
        nulls,
    }
}

/// Whether a whole number is less than so many below the largest of its type.
fn is_near_the_end(value: &ScalarValue, width: u32) -> bool {
    let (value, end) = match value {
        ScalarValue::Int32(Some(v)) => (i128::from(*v), i128::from(i32::MAX)),
        ScalarValue::Int64(Some(v)) => (i128::from(*v), i128::from(i64::MAX)),
        _ => return false,
    };
    value + i128::from(width) > end
}

/// What a partition of NULL says.
fn all_null(transform: Transform) -> Nulls {
    match transform {
        Transform::Prefix(_) => Nulls::Unknown,
        _ => Nulls::All,
    }
}

/// Whether partition values are NULL wherever the source is, and of all other values but the empty text none is.
fn null_is_null(transform: Transform) -> bool {
    !matches!(
        transform,
        Transform::Void
            | Transform::Bucket {
                hash: BucketHash::Spark,
                ..
            }
    )
}

/// The value in the column's type: files may be older than a change of type.
pub(super) fn of_type(value: &ScalarValue, data_type: &DataType) -> Option<ScalarValue> {
    let value = if value.data_type() == *data_type {
        value.clone()
    } else {
        value.cast_to(data_type).ok()?
    };
    (!value.is_null()).then_some(value)
}

/// Moved by days: what a writer's time zone may have done.
fn shifted(value: ScalarValue, days: i32) -> Option<ScalarValue> {
    use ScalarValue as S;
    const DAY: i64 = 86_400;
    let by = |v: i64, per_day: i64| v.checked_add(i64::from(days) * per_day);
    Some(match value {
        other if days == 0 => other,
        S::TimestampSecond(Some(v), zone) => S::TimestampSecond(Some(by(v, DAY)?), zone),
        S::TimestampMillisecond(Some(v), zone) => S::TimestampMillisecond(Some(by(v, DAY * 1_000)?), zone),
        S::TimestampMicrosecond(Some(v), zone) => {
            S::TimestampMicrosecond(Some(by(v, DAY * 1_000_000)?), zone)
        }
        S::TimestampNanosecond(Some(v), zone) => {
            S::TimestampNanosecond(Some(by(v, DAY * 1_000_000_000)?), zone)
        }
        S::Date32(Some(v)) => S::Date32(Some(v.checked_add(days)?)),
        S::Date64(Some(v)) => S::Date64(Some(by(v, DAY * 1_000)?)),
        other => other,
    })
}

/// Writers do not agree on the sign of zero: a bound of zero becomes the outer one.
fn widened_zero(value: ScalarValue, zero: f64) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(0.0)) => ScalarValue::Float64(Some(zero)),
        ScalarValue::Float32(Some(0.0)) => ScalarValue::Float32(Some(zero as f32)),
        other => other,
    }
}
