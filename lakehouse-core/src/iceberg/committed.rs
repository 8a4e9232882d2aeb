//! How a table was defined when one of its versions was committed. Metadata keep partitioning, sort order, properties and
//! format version for the table and not by version: what they were is in the metadata file that the commit wrote, if
//! that is there still (Iceberg spec, "Table Metadata Fields", `metadata-log`).

use std::sync::Arc;

use super::load::{number_of_catalog, number_of_path};
use super::metadata::State;
use super::view::{View, open_snapshot};
use crate::error::{Error, Result};
use crate::model::{Snapshot, Version};
use crate::store::Store;

/// How often the oldest file that a log names is asked for its own log, which goes further back.
const ROUNDS: usize = 64;

/// The version as it was defined when it was committed; the newest of a branch as it is today. `None` if that is not known
/// for certain: the metadata file before it must be there too, so that no later change of the definition is taken for one
/// of the commit's.
///
/// # Errors
/// Those of the store. Metadata that cannot be read tell nothing.
pub(super) async fn as_committed(store: &Store, snapshot: &Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>> {
    let view = View::of(snapshot)?;
    if view.branch.is_some() || view.state.is_draft() {
        return Ok(Some(Arc::clone(snapshot)));
    }
    let version = view.version();
    let Some(state) = first_with(store, Arc::clone(&view.state), version).await? else {
        return Ok(None);
    };
    let then = state.metadata.snapshot_by_id(version).cloned();
    Ok(open_snapshot(&state, then, None).ok())
}

/// The first metadata of the table that has a version, as far back from `having` as files are there.
async fn first_with(store: &Store, mut having: Arc<State>, version: Version) -> Result<Option<Arc<State>>> {
    for _ in 0..ROUNDS {
        let log = having.metadata.metadata_log().to_vec();
        if log.is_empty() {
            return Ok(Some(having));
        }
        // The files before it, oldest first: from one of them on, all have the version.
        let (mut low, mut high) = (0, log.len());
        let (mut found, mut last_without) = (None, None);
        while low < high {
            let middle = usize::midpoint(low, high);
            match read(store, &having, &log[middle].metadata_file).await? {
                Some(state) if has(&state, version) => {
                    found = Some(Arc::new(state));
                    high = middle;
                }
                // What is gone is older than what is there.
                gone_or_without => {
                    last_without = gone_or_without.map(|_| middle).or(last_without);
                    low = middle + 1;
                }
            }
        }
        match (low.checked_sub(1), found) {
            (None, Some(oldest)) => having = oldest,
            (None, None) => return Ok(None),
            (Some(before), found) => {
                let certain = last_without == Some(before);
                return Ok(certain.then(|| found.unwrap_or(having)));
            }
        }
    }
    Ok(None)
}

fn has(state: &State, version: Version) -> bool {
    version == 0 || state.metadata.snapshot_by_id(version).is_some()
}

/// A metadata file that the log of another one names; `None` if it is gone, or is not of this table.
async fn read(store: &Store, of: &State, recorded: &str) -> Result<Option<State>> {
    let Ok(key) = of.paths.relative(recorded) else {
        return Ok(None);
    };
    let bytes = match store.get_within(&key, store.limits().metadata_bytes).await {
        Err(Error::Limit { .. }) => None,
        bytes => bytes?,
    };
    let number = number_of_path(&key).or_else(|| number_of_catalog(&key));
    let state = bytes.and_then(|bytes| State::parse(store, &key, number.unwrap_or(0), &bytes).ok());
    Ok(state.filter(|state| state.metadata.uuid() == of.metadata.uuid()))
}
