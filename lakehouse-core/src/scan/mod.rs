//! Reading a version: planning, pruning, the DataFusion table provider.

mod expr;
mod provider;
mod schema_text;
mod session;

pub use expr::{
    columns_of, columns_of_both, parse_assignments, parse_expression, parse_names, parse_predicate,
    unknown_column,
};
pub use provider::{MetadataColumns, ScanReport, SnapshotTable};
pub use schema_text::parse_columns;
pub use session::session;
