//! A new table whose first version has files in it that were written before, by whoever it was. Columns are found in
//! them by name; those that folders name are partition columns, whose values come from the log.

use std::sync::Arc;

use super::actions::Action;
use super::create;
use super::files::Stamp;
use super::state::State;
use super::{Delta, log, row_tracking};
use crate::error::Result;
use crate::model::limits;
use crate::model::{Change, Definition, Snapshot};
use crate::store::{Store, clock};

/// The table before it is made. The log is read by the kernel, so it is written where nobody sees it.
///
/// # Errors
/// As [`create::first_entry`].
pub(super) async fn draft(store: &Store, definition: &Definition) -> Result<Arc<Snapshot>> {
    let scratch = store.scratch();
    let entry = create::first_entry(definition, &clock::new_commit_id(), Vec::new())?;
    scratch.put(&log::commit_key(0), entry.into()).await?;
    Delta::new(scratch).load(None).await
}

/// The log entry that makes the table with the files that `change` adds.
///
/// # Errors
/// As [`create::first_entry`]; [`Error::Unsupported`](crate::Error::Unsupported) for a partition value that cannot be
/// written, [`Error::Limit`](crate::Error::Limit) for more files than an entry can name.
pub(super) async fn first_entry(store: &Store, definition: &Definition, change: &Change) -> Result<Vec<u8>> {
    let draft = draft(store, definition).await?;
    let state = State::of(&draft)?;
    let stamp = Stamp {
        now_ms: clock::now_ms(),
        data_change: true,
        clustered: &[],
    };
    let mut files = Vec::with_capacity(change.added.len() + 1);
    for file in &change.added {
        files.push(Action {
            add: Some(state.add_new(file, &stamp)?),
            ..Action::default()
        });
    }
    if row_tracking::is_supported(&state.protocol, &state.metadata) {
        let mark = row_tracking::assign(store, &mut files, None, 0).await?;
        files.extend(mark);
    }
    let entry = create::first_entry(definition, &change.commit_id, files)?;
    let limit = store.limits().commit_bytes;
    limits::at_most(
        entry.len() as u64,
        limit,
        "bytes of a log entry",
        &log::commit_key(0),
    )?;
    Ok(entry)
}
