//! Which files a scan reads, and which of their rows are visible.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use super::equality::EqualityDeletes;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{DataFile, Prune, RowMask, Snapshot};

/// Files pruned together.
const PRUNE_BATCH: usize = 1024;

/// The files of a version that may hold a row that `prune` asks for.
///
/// # Errors
/// Whatever the format meets while listing.
pub async fn plan_files(
    handle: &Handle,
    snapshot: &Arc<Snapshot>,
    prune: Arc<Prune>,
) -> Result<Vec<DataFile>> {
    handle.format.files(snapshot, prune).try_collect().await
}

/// The hidden rows of each of these files, in the order given: its masks, and the equality deletes that
/// apply to it.
///
/// # Errors
/// When a mask or delete file cannot be read, or names rows that its data file does not have.
pub async fn read_file_masks(
    handle: &Handle,
    snapshot: &Snapshot,
    files: &[DataFile],
) -> Result<Vec<RowMask>> {
    let mut masks = vec![RowMask::new(); files.len()];
    let marked: Vec<usize> = (0..files.len()).filter(|&i| !files[i].masks.is_empty()).collect();
    if !marked.is_empty() {
        let asked: Vec<DataFile> = marked.iter().map(|&i| files[i].clone()).collect();
        let read = handle.format.masks(snapshot, &asked).await?;
        if read.len() != asked.len() {
            return Err(Error::invalid(
                format!("{} masks were asked for, {} read", asked.len(), read.len()),
                handle.format.name(),
            ));
        }
        for (index, mask) in marked.into_iter().zip(read) {
            masks[index] = mask;
        }
    }
    let mut deletes = EqualityDeletes::new(handle.store.clone(), snapshot);
    for (file, mask) in files.iter().zip(&mut masks) {
        if !file.equality_deletes.is_empty() {
            deletes.apply(file, mask).await?;
        }
        if let Some(last) = mask.max().filter(|&last| last >= file.rows) {
            return Err(Error::invalid(
                format!("row {last} is masked, but the file has {} rows", file.rows),
                &file.path,
            ));
        }
    }
    Ok(masks)
}

/// What a listing found and left out.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<DataFile>,
    /// Listed, but excluded by the second prune.
    pub(super) excluded: u64,
}

/// Lists through the first prune, then applies the second. Stops as soon as `enough` rows are certain.
pub(super) async fn list(
    handle: &Handle,
    snapshot: &Arc<Snapshot>,
    first: Arc<Prune>,
    second: Option<&Prune>,
    enough: Option<usize>,
) -> Result<Listing> {
    let mut listed = handle.format.files(snapshot, first).ready_chunks(PRUNE_BATCH);
    let mut listing = Listing::default();
    let mut rows: u64 = 0;
    while let Some(chunk) = listed.next().await {
        let chunk: Vec<DataFile> = chunk.into_iter().collect::<Result<_>>()?;
        for file in narrow(snapshot, second, chunk, &mut listing.excluded)? {
            rows += file
                .masked_rows()
                .map_or(0, |masked| file.rows.saturating_sub(masked));
            listing.files.push(file);
            if enough.is_some_and(|enough| rows >= enough as u64) {
                return Ok(listing);
            }
        }
    }
    Ok(listing)
}

/// Keeps the files that a prune keeps.
pub(super) fn narrow(
    snapshot: &Snapshot,
    prune: Option<&Prune>,
    files: Vec<DataFile>,
    excluded: &mut u64,
) -> Result<Vec<DataFile>> {
    let Some(prune) = prune else {
        return Ok(files);
    };
    let keep = prune.keep_files(snapshot, &files)?;
    let before = files.len();
    let kept: Vec<DataFile> = files
        .into_iter()
        .zip(keep)
        .filter_map(|(file, keep)| keep.then_some(file))
        .collect();
    *excluded += (before - kept.len()) as u64;
    Ok(kept)
}

/// The visible rows of a file as runs.
pub(super) fn selection(mask: &RowMask, rows: u64) -> RowSelection {
    let length = |from: u64, to: u64| usize::try_from(to - from).unwrap_or(usize::MAX);
    let mut runs: Vec<RowSelector> = Vec::new();
    let mut next = 0;
    for hidden in mask.runs() {
        if hidden.start > next {
            runs.push(RowSelector::select(length(next, hidden.start)));
        }
        runs.push(RowSelector::skip(length(hidden.start, hidden.end)));
        next = hidden.end;
    }
    if rows > next {
        runs.push(RowSelector::select(length(next, rows)));
    }
    RowSelection::from(runs)
}
