//! Rows that went while a compaction was writing: what other commits masked or removed of its old files is masked in
//! the new ones, where a [`RowMap`] says that they are.
//!
//! ```text
//! a file's mask grew        the rows that it hides now, and did not when we read it
//! a file was removed        all of its rows: they are gone, or in files of whoever removed it
//! all else                  plan again
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::commit::may_unmask;
use crate::error::Result;
use crate::model::{Change, DataFile, OperationKind, RowMask, Snapshot};
use crate::operations::work::Work;
use crate::planted::{self, Bug};
use crate::write::RowMap;

/// If more of the new rows than this have to be masked, it is better to write them again without.
const MOST_CARRIED: f64 = 0.5;

/// What became of an old file meanwhile.
enum Fate<'a> {
    Masked(&'a DataFile),
    Removed,
}

/// Rows of new files that are masked, by path.
pub(super) type Carried = BTreeMap<String, RowMask>;

/// What `mine` becomes on the snapshot of `work`, and the rows that are masked in new files then; `None` if it has to
/// be planned again. `carried` are the rows that are masked there already.
///
/// # Errors
/// When masks cannot be read or staged.
pub(super) async fn carry(
    work: &mut Work,
    map: &RowMap,
    carried: &Carried,
    mine: &Change,
    base: &Arc<Snapshot>,
    winners: &[Change],
) -> Result<Option<(Change, Carried)>> {
    let newest = Arc::clone(&work.snapshot);
    if !newest.capabilities.masks {
        return Ok(None);
    }
    let Some(fates) = follow(mine, winners) else {
        return Ok(None);
    };
    let Some(carried) = gone(work, map, carried, mine, base, &fates).await? else {
        return Ok(None);
    };
    let rows: u64 = mine.added.iter().map(|file| file.rows).sum();
    let masked: u64 = carried.values().map(RowMask::len).sum();
    if masked as f64 > rows as f64 * MOST_CARRIED {
        return Ok(None);
    }

    let mut change = mine.clone();
    change.removed.clear();
    for file in &mine.removed {
        match fates.get(file.path.as_str()) {
            None => change.removed.push(file.clone()),
            Some(Fate::Masked(now)) => change.removed.push((*now).clone()),
            Some(Fate::Removed) => {}
        }
    }
    if change.removed.is_empty() {
        return Ok(None);
    }
    if planted::is(Bug::CarriedMaskForgotten) {
        return Ok(Some((change, carried)));
    }
    // All masks are staged again: one object may hold those of several files.
    let old_masks = mine.added.iter().flat_map(|file| &file.masks);
    let old_masks: Vec<&str> = old_masks.map(|mask| mask.path.as_str()).collect();
    change.staged.retain(|path| !old_masks.contains(&path.as_str()));
    let mut to_mask = Vec::new();
    change.added.clear();
    for file in &mine.added {
        let file = DataFile {
            masks: Vec::new(),
            ..file.clone()
        };
        match carried.get(&file.path) {
            // Nothing of it is left; who publishes the change removes what it does not need any more.
            Some(mask) if mask.len() >= file.rows => change.staged.retain(|path| *path != file.path),
            Some(mask) => to_mask.push((file, mask.clone())),
            None => change.added.push(file),
        }
    }
    if !to_mask.is_empty() {
        let format = Arc::clone(&work.handle.format);
        let (masked, staged) = format.stage_masks(&newest, to_mask, &mine.commit_id).await?;
        change.added.extend(masked);
        change.staged.extend(staged);
    }
    Ok(Some((change, carried)))
}

/// What the winners did to the files of `mine`, by path; `None` if that cannot be followed row by row.
fn follow<'a>(mine: &'a Change, winners: &'a [Change]) -> Option<HashMap<&'a str, Fate<'a>>> {
    let ours: HashMap<&str, &DataFile> = (mine.removed.iter().map(|f| (f.path.as_str(), f))).collect();
    let mut fates = HashMap::new();
    for winner in winners {
        if winner.restore.is_some() || winner.operation == OperationKind::Restore {
            return None;
        }
        for file in &winner.removed {
            if ours.contains_key(file.path.as_str()) {
                fates.insert(file.path.as_str(), Fate::Removed);
            }
        }
        for (before, after) in &winner.masked {
            if !ours.contains_key(after.path.as_str()) {
                continue;
            }
            // Equality deletes hide rows that no mask names.
            if may_unmask(winner, before, after) || before.equality_deletes != after.equality_deletes {
                return None;
            }
            fates.insert(after.path.as_str(), Fate::Masked(after));
        }
        // A file that is back was not removed for its rows.
        if winner
            .added
            .iter()
            .any(|file| ours.contains_key(file.path.as_str()))
        {
            return None;
        }
    }
    Some(fates)
}

/// The rows of new files that are masked once those of `fates` are gone, too.
async fn gone(
    work: &Work,
    map: &RowMap,
    carried: &Carried,
    mine: &Change,
    base: &Arc<Snapshot>,
    fates: &HashMap<&str, Fate<'_>>,
) -> Result<Option<Carried>> {
    let mut all = carried.clone();
    let mut add = |moved: Carried| {
        for (path, rows) in moved {
            all.entry(path).or_default().union(&rows);
        }
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for file in &mine.removed {
        match fates.get(file.path.as_str()) {
            None => {}
            Some(Fate::Removed) => add(map.all(&file.path)),
            Some(Fate::Masked(now)) => {
                before.push(file.clone());
                after.push((*now).clone());
            }
        }
    }
    if !before.is_empty() {
        let format = &work.handle.format;
        let old = format.masks(base, &before).await?;
        let new = format.masks(&work.snapshot, &after).await?;
        for ((file, old), new) in before.iter().zip(&old).zip(&new) {
            if !old.bitmap().is_subset(new.bitmap()) {
                return Ok(None);
            }
            match map.moved(&file.path, &new.without(old)) {
                Some(moved) => add(moved),
                None => return Ok(None),
            }
        }
    }
    Ok(Some(all))
}
