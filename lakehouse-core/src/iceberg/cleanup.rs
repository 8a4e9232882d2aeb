//! Metadata files of former states of the table that the metadata log does not name any more.
//!
//! They go one after the other, the oldest first: what is left is always an unbroken row, which readers count along from
//! a hint that may be late. A name goes only when it is older than twice the lease, by the store's clock: a writer that slept as
//! long could take it again.

use std::collections::HashSet;

use super::catalog::Catalog;
use super::load::{FOLDER, HINT, number_of_catalog, number_of_path};
use super::metadata::State;
use crate::error::Result;
use crate::model::limits::HINT_BYTES;
use crate::model::{CleanedUp, Cleanup, FLOOR_MS};
use crate::store::{Listed, Store};

/// Property: commits delete metadata files that the log does not name any more.
const AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";
/// Commits between two looks at the folder, where commits delete.
const EVERY: u64 = 20;

/// Deletes what the metadata log does not name.
///
/// # Errors
/// When the folder cannot be listed, or a file cannot be deleted: then it and all that are newer are left.
pub(super) async fn clean_up(store: &Store, catalog: &Catalog, what: &Cleanup) -> Result<CleanedUp> {
    let state = catalog.newest(store).await?;
    let mut done = CleanedUp::default();
    let old = unneeded(store, catalog, &state).await?;
    let count = old.len();
    if !what.dry_run
        && old
            .first()
            .is_some_and(|file| file.modified_ms <= what.not_after_ms)
    {
        point_to(store, catalog, state.number).await?;
    }
    for (at, file) in old.into_iter().enumerate() {
        if file.modified_ms > what.not_after_ms {
            done.too_young = (count - at) as u64;
            break;
        }
        if !what.dry_run {
            store.delete(std::slice::from_ref(&file.path)).await?;
        }
        done.bytes += file.bytes;
        done.files.push(file.path);
    }
    Ok(done)
}

/// After a commit, now and then, where the table asks for it. The commit has landed, so what fails here only costs space.
pub(super) async fn after_commit(store: &Store, catalog: &Catalog, state: &State) {
    let asked = state.metadata.properties().get(AFTER_COMMIT);
    if asked.is_none_or(|text| !text.eq_ignore_ascii_case("true")) || !state.number.is_multiple_of(EVERY) {
        return;
    }
    let cleaned = async {
        let now_ms = store.clock_ms().await?;
        let what = Cleanup {
            kept: std::collections::BTreeSet::new(),
            not_after_ms: now_ms.saturating_sub(FLOOR_MS),
            dry_run: false,
        };
        clean_up(store, catalog, &what).await
    };
    if let Err(error) = cleaned.await {
        tracing::warn!(%error, "old metadata files were left; a later commit tries again");
    }
}

/// Files of former states that the log does not name, the oldest first.
async fn unneeded(store: &Store, catalog: &Catalog, state: &State) -> Result<Vec<Listed>> {
    // A file that lies elsewhere is not ours to delete.
    let log = state.metadata.metadata_log().iter();
    let named: HashSet<String> = log
        .filter_map(|entry| state.paths.relative(&entry.metadata_file).ok())
        .chain([state.file.clone()])
        .collect();
    let number = |file: &Listed| match catalog {
        Catalog::Path => number_of_path(&file.path),
        Catalog::Pointer(_) => number_of_catalog(&file.path),
    };
    let listed = store.list(FOLDER).await?;
    let mut former: Vec<(u64, Listed)> = listed
        .into_iter()
        .filter_map(|file| Some((number(&file)?, file)))
        .filter(|(number, _)| *number < state.number)
        .collect();
    former.sort_by(|(a, one), (b, other)| (a, &one.path).cmp(&(b, &other.path)));
    let needed = |file: &Listed| named.contains(&file.path);
    if matches!(catalog, Catalog::Pointer(_)) {
        let former = former.into_iter().map(|(_, file)| file);
        return Ok(former.filter(|file| !needed(file)).collect());
    }
    // Readers count along: what follows a file that is needed stays, and what follows a gap, for the listing may be late.
    let (mut row, mut last) = (Vec::new(), None);
    for (number, file) in former {
        if needed(&file) || last.is_some_and(|last| number > last + 1) {
            break;
        }
        last = Some(number);
        row.push(file);
    }
    Ok(row)
}

/// Makes sure that the hint names no file that is about to go.
async fn point_to(store: &Store, catalog: &Catalog, number: u64) -> Result<()> {
    if matches!(catalog, Catalog::Pointer(_)) {
        return Ok(());
    }
    let hint = store.get_within(HINT, HINT_BYTES).await.ok().flatten();
    let hinted = hint.and_then(|hint| String::from_utf8_lossy(&hint).trim().parse::<u64>().ok());
    if hinted.is_some_and(|hinted| hinted >= number) {
        return Ok(());
    }
    store.put(HINT, number.to_string().into_bytes().into()).await
}
