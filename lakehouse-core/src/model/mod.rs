//! The four nouns that everything is said with: [`Snapshot`], [`DataFile`], [`RowMask`], [`Change`].
//!
//! Plain data: no I/O, no async, nothing of the formats. Schemas and values are Arrow's, predicates
//! are DataFusion's `Expr`.

mod alter;
mod chains;
mod change;
mod column_path;
mod definition;
pub mod deletion_vector;
mod duration;
mod evolve;
mod file;
mod finding;
pub mod floats;
pub mod json;
pub mod limits;
#[cfg(test)]
pub(crate) mod made_up;
mod mask;
pub mod objects;
mod overlap;
mod parquet_footer;
mod partition;
pub mod prune;
mod refs;
mod retained;
pub mod retention;
pub mod schema;
mod size;
mod snapshot;
mod token;
mod upkeep;

pub use alter::{ColumnChange, Place, Redefinition, SortColumn, alter};
pub use chains::check_chains;
pub use change::{Change, CommitId, CommitInfo, MetadataChange, OperationKind};
pub use column_path::ColumnPath;
pub use definition::{ADOPTED, Definition};
pub use duration::{parse_duration, show_duration};
pub use evolve::{Evolved, evolve};
pub use file::{CLUSTERING, ColumnStats, DataFile, EqualityDelete, FileNotes, FileOrder, MaskRef};
pub use finding::{Audit, Code, Finding, NeededObject, Severity};
pub use mask::RowMask;
pub use objects::{Keep, Kept, Needed, ObjectKind};
pub(crate) use overlap::Extents;
pub use overlap::{Overlap, overlap};
pub use parquet_footer::{
    PARQUET_TAIL, check_parquet_footer, check_whole_parquet_footer, is_sane_parquet_index,
    largest_parquet_page, parquet_footer_length,
};
pub use partition::{BucketHash, PartitionField, Transform, parse_partitioning, partition_folder};
pub(crate) use partition::{month_start, months_of_day, next_bytes, next_string};
pub use prune::{Prune, PruneCounts};
pub use refs::{MAIN, Ref, RefChange, RefKind, Retention, check_ref_name};
pub use retained::{
    Begun, Checkpoint, CheckpointKind, CleanedUp, Cleanup, FLOOR_MS, LEASE, Regrouping, Retained,
};
pub use size::{is_small_file, parse_size, show_size};
pub use snapshot::{At, Capabilities, Check, Snapshot, Version};
pub use token::Token;
pub use upkeep::{LogTail, MetadataPart, Upkeep};
