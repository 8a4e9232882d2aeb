//! Hidden partitioning: transforms from a column to a partition value.

use std::fmt;
use std::str::FromStr;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;

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
/// `Int32`; of `identity`, `truncate` and `void` the source's type. NULL stays NULL.
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
        let _ = source;
        unimplemented!()
    }

    /// Applies the transform to every value of a column.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the transform is not defined for the array's type.
    pub fn apply(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let _ = column;
        unimplemented!()
    }

    /// Applies the transform to one value.
    ///
    /// # Errors
    /// As [`Transform::apply`].
    pub fn apply_scalar(&self, value: &ScalarValue) -> Result<ScalarValue> {
        let _ = value;
        unimplemented!()
    }

    /// The smallest and largest source value (both inclusive, of type `source`) that a row in the
    /// partition `value` can have; `None` where the partition says nothing about order (bucket, void).
    pub fn bounds(&self, value: &ScalarValue, source: &DataType) -> Option<(ScalarValue, ScalarValue)> {
        let _ = (value, source);
        unimplemented!()
    }
}

impl PartitionField {
    /// The partition value as text for folder names, before escaping (Iceberg's human strings:
    /// `2013-01-01`, `2013-01`, `2013-01-01-05`, `null`).
    pub fn text(&self, value: &ScalarValue) -> String {
        let _ = value;
        unimplemented!()
    }
}

/// The folder of a partition, each name and value percent-encoded: `time_hour_day=2013-01-01/carrier_bucket=3`.
/// Empty for an unpartitioned table.
pub fn partition_folder(fields: &[PartitionField], values: &[ScalarValue]) -> String {
    let _ = (fields, values);
    unimplemented!()
}

/// Parses what users write: `day(ts), bucket(16, id), region, truncate(4, name)`; plural names
/// (`days(ts)`) and `bucket(id, 16)` too. Bucket hashes are left as Iceberg's; the format sets its own.
///
/// # Errors
/// [`Error::Invalid`] naming the term that is not understood and the terms that are.
pub fn parse_partitioning(text: &str) -> Result<Vec<PartitionField>> {
    let _ = text;
    unimplemented!()
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
            Self::Truncate(width) => write!(f, "truncate[{width}]"),
            Self::Void => f.write_str("void"),
        }
    }
}

impl FromStr for Transform {
    type Err = Error;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
}
