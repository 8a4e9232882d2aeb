//! Writing rows: Parquet files split by partition, with statistics.

mod conform;
mod writer;

pub use conform::conform;
pub use writer::{TableWriter, WriteOptions, Written};
