//! Writing rows: Parquet files split by partition, with statistics.

mod conform;
mod encode;
mod lane;
mod layout;
mod split;
mod statistics;
mod writer;

#[cfg(test)]
mod tests;

pub use conform::{conform, conform_at};
pub use writer::{TableWriter, WriteOptions, Written};
