//! Hidden partitioning: transforms from a column to a partition value.

mod apply;
mod bounds;
mod bucket;
mod calendar;
mod parse;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::str::FromStr;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;

pub(crate) use bounds::{next_bytes, next_string};
pub(crate) use calendar::{month_start, months_of_day};
pub use parse::parse_partitioning;
pub use text::partition_folder;

use crate::error::{Error, Result};

/// Which hash a bucket transform uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BucketHash {
    /// Iceberg spec, Appendix B: 32-bit murmur3 (x86, seed 0) of the value's byte form.
    Iceberg,
    /// Spark's `hash()`: murmur3 with seed 42, tail bytes mixed one by one; used as `pmod(hash(c), N)`.
    Spark,
}

/// A function from a column's value to its partition value (Iceberg spec, "Partition Transforms").
///
/// Values of `year`, `month` and `hour` are `Int32` counts since 1970, of `day` `Date32`, of `bucket`
/// `Int32`; of `identity`, `truncate`, `prefix` and `void` the source's type. NULL stays NULL, except in Spark's
/// buckets, where NULL has a hash too (the seed, 42).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transform {
    /// The value itself.
    Identity,
    /// Years since 1970.
    Year,
    /// Months since January 1970.
    Month,
    /// The date.
    Day,
    /// Hours since 1970-01-01T00.
    Hour,
    /// `hash(value) mod buckets`, never negative.
    Bucket {
        /// Number of buckets.
        buckets: u32,
        /// Which hash.
        hash: BucketHash,
    },
    /// Integers and decimals rounded down to a multiple, strings and binary cut after so many
    /// characters or bytes.
    Truncate(u32),
    /// Text cut after so many characters, the empty text as NULL: partitions of Delta cannot tell them apart.
    Prefix(u32),
    /// Always NULL (a dropped field in Iceberg v1 specs).
    Void,
}

/// One field of a partition spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionField {
    /// Name of the column it is derived from.
    pub source: String,
    /// How.
    pub transform: Transform,
    /// Name of the partition value: in folder names and metadata. Empty in a definition: the format
    /// chooses (`ts_day`, `id_bucket`).
    pub name: String,
    /// Iceberg's partition field id (1000 and up); 0 where there is none.
    pub field_id: i32,
    /// Days that a writer's session time zone may have moved the value to either side; pruning
    /// widens by as much. 0 for Iceberg, 1 for Delta columns generated from zoned timestamps.
    pub zone_slack_days: i32,
}

impl Transform {
    /// The type of partition values for a source column of this type.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the transform is not defined for the type.
    pub fn result_type(&self, source: &DataType) -> Result<DataType> {
        apply::result_type(self, source)
    }

    /// Applies the transform to every value of a column.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the transform is not defined for the array's type, or a value is too far
    /// from 1970 for the result's type.
    pub fn apply(&self, column: &ArrayRef) -> Result<ArrayRef> {
        apply::apply(self, column)
    }

    /// Applies the transform to one value.
    ///
    /// # Errors
    /// As [`Transform::apply`].
    pub fn apply_scalar(&self, value: &ScalarValue) -> Result<ScalarValue> {
        let result = self.apply(&value.to_array_of_size(1)?)?;
        Ok(ScalarValue::try_from_array(&result, 0)?)
    }

    /// The smallest and largest source value (both inclusive, of type `source`) that a row in the
    /// partition `value` can have; `None` where the partition says nothing about order (bucket, void)
    /// or one end is open.
    pub fn bounds(&self, value: &ScalarValue, source: &DataType) -> Option<(ScalarValue, ScalarValue)> {
        let (min, max) = self.range(value, source);
        Some((min?, max?))
    }

    /// As [`Transform::bounds`], each end on its own: a string prefix may have no upper end.
    pub(crate) fn range(
        &self,
        value: &ScalarValue,
        source: &DataType,
    ) -> (Option<ScalarValue>, Option<ScalarValue>) {
        bounds::range(self, value, source)
    }

    /// Whether larger source values never have smaller partition values.
    pub(crate) fn keeps_order(&self) -> bool {
        !matches!(self, Self::Bucket { .. } | Self::Void)
    }
}

impl PartitionField {
    /// The partition value as text for folder names, before escaping (Iceberg's human strings:
    /// `2013-01-01`, `2013-01`, `2013-01-01-05`, `null`).
    pub fn text(&self, value: &ScalarValue) -> String {
        text::text(&self.transform, value)
    }

    /// As users write it: `day(ts)`, `bucket(16, id)`, `region`.
    pub fn term(&self) -> String {
        match self.transform {
            Transform::Identity => self.source.clone(),
            Transform::Bucket { buckets, .. } => format!("bucket({buckets}, {})", self.source),
            Transform::Truncate(width) | Transform::Prefix(width) => {
                format!("truncate({width}, {})", self.source)
            }
            other => format!("{other}({})", self.source),
        }
    }
}

impl fmt::Display for Transform {
    /// As in Iceberg metadata: `day`, `bucket[16]`, `truncate[4]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Year => f.write_str("year"),
            Self::Month => f.write_str("month"),
            Self::Day => f.write_str("day"),
            Self::Hour => f.write_str("hour"),
            Self::Bucket { buckets, .. } => write!(f, "bucket[{buckets}]"),
            Self::Truncate(width) | Self::Prefix(width) => write!(f, "truncate[{width}]"),
            Self::Void => f.write_str("void"),
        }
    }
}

impl FromStr for Transform {
    type Err = Error;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self> {
        let parameter = |name: &str| -> Option<u32> {
            let inside = text.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            inside.parse().ok().filter(|n| (1..=i32::MAX as u32).contains(n))
        };
        Ok(match text {
            "identity" => Self::Identity,
            "year" => Self::Year,
            "month" => Self::Month,
            "day" => Self::Day,
            "hour" => Self::Hour,
            "void" => Self::Void,
            _ => {
                if let Some(buckets) = parameter("bucket") {
                    Self::Bucket {
                        buckets,
                        hash: BucketHash::Iceberg,
                    }
                } else if let Some(width) = parameter("truncate") {
                    Self::Truncate(width)
                } else {
                    return Err(
                        Error::invalid(format!("partition transform '{text}' is not known"), "").with_hint(
                            "known are identity, year, month, day, hour, bucket[N], truncate[W], void",
                        ),
                    );
                }
            }
        })
    }
}
