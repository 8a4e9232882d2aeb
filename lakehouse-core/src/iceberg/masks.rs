//! Row masks: read from deletion vectors and position-delete files, staged as what the table's version has.

use std::collections::HashMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::FormatVersion;
use roaring::RoaringTreemap;

use super::files::CONCURRENT;
use super::view::View;
use super::{position_deletes, puffin};
use crate::error::{Error, Result};
use crate::model::limits;
use crate::model::{CommitId, DataFile, MaskRef, RowMask, deletion_vector};
use crate::store::{Store, clock};

/// The complete mask of each file.
///
/// # Errors
/// [`Error::Invalid`] when a mask is broken or does not fit its file.
pub(super) async fn read(store: &Store, files: &[DataFile]) -> Result<Vec<RowMask>> {
    let positions = read_position_deletes(store, files).await?;
    let positions = &positions;
    stream::iter(0..files.len())
        .map(|place| async move {
            let file = &files[place];
            let mut mask = RowMask::new();
            for reference in &file.masks {
                match reference.offset {
                    Some(offset) => mask.union(&read_vector(store, file, reference, offset).await?),
                    None => {
                        let found = positions
                            .get(&reference.path)
                            .and_then(|by_file| by_file.get(&file.recorded));
                        if let Some(found) = found {
                            mask.union(&RowMask::from(found.clone()));
                        }
                    }
                }
            }
            deletion_vector::check(&mask, file.rows, None, &file.path)?;
            Ok(mask)
        })
        .buffered(CONCURRENT)
        .try_collect()
        .await
}

async fn read_vector(store: &Store, file: &DataFile, mask: &MaskRef, offset: u64) -> Result<RowMask> {
    let end = mask.bytes.and_then(|bytes| offset.checked_add(bytes));
    let end = end.ok_or_else(|| Error::invalid("a deletion vector has no length", mask.path.clone()))?;
    limits::at_most(
        end - offset,
        store.limits().mask_bytes,
        "bytes of a row mask",
        &mask.path,
    )?;
    let bytes = store.get_range(&mask.path, offset..end).await?;
    let decoded = deletion_vector::decode_framed(&bytes, &mask.path)?;
    deletion_vector::check(&decoded, file.rows, mask.rows, &mask.path)?;
    Ok(decoded)
}

/// Positions by delete file, then by data file. A file that concerns several data files is read once.
async fn read_position_deletes(
    store: &Store,
    files: &[DataFile],
) -> Result<HashMap<String, HashMap<String, RoaringTreemap>>> {
    let mut wanted: HashMap<String, HashMap<String, u64>> = HashMap::new();
    for file in files {
        for mask in file.masks.iter().filter(|mask| mask.offset.is_none()) {
            let targets = wanted.entry(mask.path.clone()).or_default();
            targets.insert(file.recorded.clone(), file.rows);
        }
    }
    stream::iter(wanted)
        .map(|(path, targets)| async move {
            let content = store.get_within(&path, store.limits().mask_bytes).await?;
            let content = content.ok_or_else(|| store.absent(&path))?;
            let (place, limits) = (path.clone(), *store.limits());
            let work = move || {
                let wanted = |target: &str| targets.get(target).copied();
                position_deletes::decode(content, wanted, &limits, &place)
            };
            Ok((path, tokio::task::spawn_blocking(work).await.map_err(joined)??))
        })
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await
}

/// Writes complete masks: one Puffin file with a deletion vector per data file (v3), or one
/// position-delete file per data file (v2).
///
/// # Errors
/// [`Error::Unsupported`] for a v1 table, which has no masks.
pub(super) async fn stage(
    store: &Store,
    view: &View,
    masks: Vec<(DataFile, RowMask)>,
    operation: &CommitId,
) -> Result<(Vec<DataFile>, Vec<String>)> {
    view.state.check_writable()?;
    for (file, mask) in &masks {
        deletion_vector::check(mask, file.rows, None, &file.path)?;
    }
    match view.metadata().format_version() {
        FormatVersion::V1 => Err(Error::unsupported(
            "an Iceberg v1 table has no row masks",
            "upgrade the table to format version 2",
        )),
        FormatVersion::V2 => stage_position_deletes(store, view, masks, operation).await,
        FormatVersion::V3 => stage_vectors(store, view, masks, operation).await,
    }
}

async fn stage_vectors(
    store: &Store,
    view: &View,
    masks: Vec<(DataFile, RowMask)>,
    operation: &CommitId,
) -> Result<(Vec<DataFile>, Vec<String>)> {
    if masks.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let paths = &view.state.paths;
    let named: Vec<_> = masks
        .iter()
        .map(|(file, mask)| (paths.absolute(&file.recorded), mask))
        .collect();
    let (bytes, extents) = puffin::encode(&named).await?;
    // An operation may stage more than once, when it is planned again.
    let key = format!("data/deletes-{operation}-{:x}.puffin", clock::new_snapshot_id());
    store.put(&key, bytes).await?;
    let staged = masks
        .into_iter()
        .zip(extents)
        .map(|((mut file, mask), extent)| {
            // The vector is complete: readers ignore position deletes of a file that has one.
            file.masks = vec![MaskRef {
                path: key.clone(),
                recorded: paths.absolute(&key),
                offset: Some(extent.offset),
                bytes: Some(extent.length),
                inline: None,
                rows: Some(mask.len()),
                shared: false,
            }];
            file
        })
        .collect();
    Ok((staged, vec![key]))
}

async fn stage_position_deletes(
    store: &Store,
    view: &View,
    masks: Vec<(DataFile, RowMask)>,
    operation: &CommitId,
) -> Result<(Vec<DataFile>, Vec<String>)> {
    let paths = &view.state.paths;
    let batch = clock::new_snapshot_id();
    let staged: Vec<(DataFile, String)> = stream::iter(masks.into_iter().enumerate())
        .map(|(number, (mut file, mask))| async move {
            let key = format!("data/deletes-{operation}-{batch:x}-{number}.parquet");
            let bytes = position_deletes::encode(&paths.absolute(&file.recorded), &mask)?;
            // Files that concern other data files too stay; those of this file alone are replaced.
            file.masks.retain(|mask| mask.shared);
            file.masks.push(MaskRef {
                path: key.clone(),
                recorded: paths.absolute(&key),
                offset: None,
                bytes: Some(bytes.len() as u64),
                inline: None,
                rows: Some(mask.len()),
                shared: false,
            });
            store.put(&key, bytes.into()).await?;
            Ok::<_, Error>((file, key))
        })
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    Ok(staged.into_iter().unzip())
}

/// Work that was moved to another thread and did not come back.
fn joined(error: tokio::task::JoinError) -> Error {
    Error::invalid(format!("reading the table's metadata was abandoned: {error}"), "")
}
