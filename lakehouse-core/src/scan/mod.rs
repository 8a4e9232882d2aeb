//! Reading a version: planning, pruning, the DataFusion table provider.

mod columns;
mod dialect;
mod equality;
mod explain;
mod expr;
mod floats;
mod function;
mod layout;
mod nan;
mod narrowing;
mod nested;
mod plan;
mod probe;
mod provider;
mod reader;
mod schema_text;
mod session;
mod spark;
mod statistics;
mod times;
mod trunc;

#[cfg(test)]
mod tests;

pub use dialect::settle;
pub use expr::{
    columns_of, columns_of_both, parse_assignments, parse_expression, parse_names, parse_predicate,
    planning_error, unknown_column,
};
pub use floats::{compare_floats, stored};
pub use plan::{plan_files, read_file_masks};
pub use probe::{BadChunk, bad_chunks};
pub use provider::{MetadataColumns, ScanReport, SnapshotTable};
pub use reader::read_footer;
pub use schema_text::{parse_columns, parse_new_column, parse_sort_order};
pub use session::{config, memory, session, session_with};
pub use spark::parse_spark;
