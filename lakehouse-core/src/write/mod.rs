//! Writing rows: Parquet files split by partition, with statistics; row groups copied as they are.

mod buffers;
mod codec;
mod conform;
mod copy;
mod encode;
mod footer;
mod join;
mod lane;
mod layout;
mod names;
mod profile;
mod rows;
mod sink;
mod split;
mod statistics;
mod trace;
mod writer;

#[cfg(test)]
mod tests;

pub use codec::Codec;
pub use conform::{conform, conform_at};
pub use copy::{CopySource, StoredRows};
pub use footer::{footer_statistics, row_group_offsets};
pub use names::is_own_name;
pub use trace::{Origins, RowMap};
pub use writer::{TableWriter, WriteOptions, Written};
