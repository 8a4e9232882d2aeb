//! The verbs. An operation turns a snapshot into a change and never names a format.
//!
//! [`append`] and the others all run in one frame (`work.rs`): plan, commit, clean up, report.
//! Delete, update, merge and overwrite share one machine (`rows.rs`): rows are touched where they are
//! and, if they live on, written anew; `decide.rs` chooses what becomes of each file; `moving.rs` carries
//! the rows that stay as they are to new files. What only a query can find comes in through `queried.rs`,
//! columns that come with rows through `columns.rs`. [`adopt`] alone begins without a table. `settings.rs` says how files are written, `changed.rs` which rows a
//! change feed tells of, `rules.rs` what new rows must satisfy. Tags and branches
//! (`refs.rs`) have no rows and a plan of their own, and so has [`expire`], by which versions go. [`diff`], [`check`]
//! and [`health`] only read, [`vacuum()`] commits nothing. [`maintain()`] is an order over some of them, health its dry run. Streams of small commits (`stream/`) are appends, one after
//! the other.

mod adapt;
mod adopt;
mod ahead;
mod alter;
mod append;
mod changed;
pub mod check;
mod cluster;
mod columns;
mod compact;
mod decide;
mod delete;
pub mod diff;
mod evaluate;
mod expire;
pub mod health;
mod input;
pub mod maintain;
mod manifests;
mod merge;
mod moving;
mod options;
mod overwrite;
mod queried;
mod refs;
mod restore;
mod rows;
mod rules;
mod settings;
mod stream;
mod summary;
mod update;
pub mod vacuum;
mod work;

pub use adopt::{Adopted, Adoption, adopt};
pub use alter::{Alter, alter};
pub use append::append;
pub use cluster::{Clustering, Ordered, Overlaps, RowOrder, overlaps};
pub use compact::{Compact, CompactStrategy, CompactedGroup, GroupOutcome, compact};
pub use delete::delete;
pub use expire::{Expire, ExpireReport, expire};
pub use input::{InputFormat, Rows};
pub use maintain::{Maintained, Policy, maintain};
pub use manifests::{ManifestsReport, rewrite_manifests};
pub use merge::{Action, Cdc, CdcColumns, Clause, Merge, OnDuplicate, When, merge};
pub use options::{Fate, Options, Report, SchemaMode, Strategy, TouchedFile};
pub use overwrite::overwrite;
pub use queried::{PlanQuery, Target, append_query, delete_rows, merge_query, overwrite_query, update_rows};
pub use refs::{RefReport, SetRef, drop_ref, fast_forward, refs, set_ref};
pub use restore::restore;
pub use stream::{Event, Folder, Stream, Streamed, Told, append_folder, append_lines};
pub use update::update;
pub use vacuum::{Vacuum, Vacuumed, vacuum};
