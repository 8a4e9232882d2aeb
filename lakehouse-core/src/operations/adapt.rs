//! Fitting a planned change to commits that came first, without planning it again.
//!
//! ```text
//! added rows       read on the key columns, or by the predicate: if one matches, plan again
//! masked rows      if they avoid every row that mine matched, the masks are united
//! moved rows       a compaction took a file away: its rows are found again in the new files
//! all else         plan again
//! ```
//!
//! Only for operations that look at one row of the table at a time: what they do to a row does not
//! depend on other rows, so it stays right as long as the rows that they matched are still there and no
//! others have come.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::decide::Decider;
use super::rows::Found;
use super::work::{Verb, Work};
use crate::commit::may_unmask;
use crate::error::{Error, Result};
use crate::model::{Change, DataFile, OperationKind, RowMask, Snapshot};
use crate::planted::{self, Bug};

/// The change that `mine` becomes on `newest`, the snapshot of `work`; `None` if it has to be planned again.
/// `found` are the rows that it depends on, and is brought up to date.
///
/// # Errors
/// When files or masks cannot be read, or the new masks not be staged.
pub(super) async fn adapt(
    work: &mut Work,
    verb: &mut dyn Verb,
    found: &mut Found,
    mine: &Change,
    base: &Arc<Snapshot>,
    winners: &[Change],
) -> Result<Option<Change>> {
    let concerned = mine
        .removed
        .iter()
        .chain(mine.masked.iter().map(|(before, _)| before));
    if concerned
        .into_iter()
        .any(|file| !found.matched.contains_key(&file.path))
    {
        // It takes whole files, whatever is in them (overwrite, compact).
        return Ok(None);
    }
    if verb.find(work, Vec::new()).await?.is_none() {
        return Ok(None);
    }
    let Some(outcome) = Outcome::of(found, mine, winners) else {
        return Ok(None);
    };
    let Some(appeared) = find(work, verb, mine, outcome.appeared).await? else {
        return Ok(None);
    };
    if !appeared.matched.is_empty() && !planted::is(Bug::NewRowsUnseen) {
        return Ok(None);
    }
    let mut united: Vec<(DataFile, RowMask)> = Vec::new();
    let mut stay: Vec<(DataFile, RowMask)> = Vec::new();
    for (before, _) in &mine.masked {
        let path = before.path.as_str();
        if outcome.moved.contains(path) {
            continue;
        }
        let touched = found.touched.get(path).cloned().unwrap_or_default();
        match outcome.masked.get(path) {
            Some((_, after)) => united.push((after.clone(), touched)),
            None => stay.push((before.clone(), touched)),
        }
    }
    for (path, (before, after)) in &outcome.masked {
        let Some(matched) = found.matched.get(path) else {
            continue;
        };
        let old = mask(work, base, before).await?;
        let new = mask(work, &work.snapshot, after).await?;
        let theirs: RoaringTreemap = new.bitmap() - old.bitmap();
        if !old.bitmap().is_subset(new.bitmap())
            || !(theirs.is_disjoint(matched.bitmap()) || planted::is(Bug::MasksUnitedUnseen))
            || mine.removed.iter().any(|file| file.path == *path)
        {
            return Ok(None);
        }
    }
    let Some(again) = found_again(work, verb, found, mine, &outcome.moved, outcome.fresh).await? else {
        return Ok(None);
    };

    let masking = !(united.is_empty() && stay.is_empty() && again.is_empty());
    if masking && !Decider::new(work.options.strategy, &work.snapshot, mine.operation)?.may_mask() {
        // Rows that were to go with their whole file have company now.
        return Ok(None);
    }

    let mut change = mine.clone();
    change.masked.clear();
    change.removed.retain(|file| !outcome.moved.contains(&file.path));
    change.staged.retain(|path| !is_mask(mine, path));
    work.change = change;
    let mut concerned = united;
    concerned.extend(stay);
    concerned.extend(again);
    if let Err(error) = stage(work, concerned).await {
        // What was staged for `mine` is not ours to remove.
        work.change.staged.retain(|path| !mine.staged.contains(path));
        return Err(error);
    }
    Ok(Some(work.change.clone()))
}

/// Whether an object was staged for the masks of a change, and for nothing else.
fn is_mask(mine: &Change, path: &str) -> bool {
    let holds = |file: &DataFile| file.masks.iter().any(|mask| mask.path == path);
    mine.masked.iter().any(|(_, after)| holds(after)) && !mine.added.iter().any(holds)
}

/// What the winners did, as far as it concerns this change.
#[derive(Debug, Default)]
struct Outcome {
    /// Files with rows that were not there before.
    appeared: Vec<DataFile>,
    /// Files that hold rows of files that compactions took away.
    fresh: Vec<DataFile>,
    /// The files of mine that compactions took away.
    moved: HashSet<String>,
    /// Files of mine of which rows were masked: before the first winner, after the last.
    masked: HashMap<String, (DataFile, DataFile)>,
}

impl Outcome {
    /// `None` when something happened that cannot be followed row by row.
    fn of(found: &Found, mine: &Change, winners: &[Change]) -> Option<Self> {
        let mut outcome = Self::default();
        let mut kept: HashMap<String, DataFile> = HashMap::new();
        let removed: HashMap<&str, &DataFile> = mine.removed.iter().map(|f| (f.path.as_str(), f)).collect();
        for winner in winners {
            if winner.restore.is_some() || winner.operation == OperationKind::Restore {
                return None;
            }
            for file in &winner.removed {
                let path = file.path.as_str();
                let follows = !winner.data_change && !kept.contains_key(path);
                outcome.fresh.retain(|fresh| fresh.path != path);
                if found.matched.contains_key(path) {
                    // Its other rows were written to a new file already, where nobody else knows them.
                    let rewritten = removed.get(path).is_some_and(|file| !all_gone(file, found));
                    if !follows || rewritten || outcome.masked.contains_key(path) {
                        return None;
                    }
                    outcome.moved.insert(path.to_owned());
                } else if kept.remove(path).is_some() && !winner.data_change {
                    // Rows that appeared and then moved would pass for rows of mine.
                    return None;
                }
            }
            for (before, after) in &winner.masked {
                let moved = outcome.fresh.iter().any(|fresh| fresh.path == after.path);
                // Equality deletes hide rows that no mask names.
                if moved
                    || may_unmask(winner, before, after)
                    || before.equality_deletes != after.equality_deletes
                {
                    return None;
                }
                if let Some(appeared) = kept.get_mut(&after.path) {
                    appeared.clone_from(after);
                } else if found.matched.contains_key(&after.path) {
                    let entry = outcome.masked.entry(after.path.clone());
                    entry
                        .and_modify(|(_, last)| last.clone_from(after))
                        .or_insert_with(|| (before.clone(), after.clone()));
                }
            }
            for file in &winner.added {
                if winner.data_change {
                    kept.insert(file.path.clone(), file.clone());
                } else {
                    outcome.fresh.push(file.clone());
                }
            }
        }
        if outcome.moved.is_empty() {
            outcome.fresh.clear();
        }
        outcome.appeared = kept.into_values().collect();
        outcome.appeared.sort_by(|a, b| a.path.cmp(&b.path));
        Some(outcome)
    }
}

/// Whether a file that the operation removed had no other visible rows than those it touched.
fn all_gone(file: &DataFile, found: &Found) -> bool {
    let touched = found.touched.get(&file.path).map_or(0, RowMask::len);
    file.masked_rows()
        .is_some_and(|masked| touched + masked >= file.rows)
}

/// The rows of these files that the operation matches.
async fn find(
    work: &mut Work,
    verb: &mut dyn Verb,
    mine: &Change,
    mut files: Vec<DataFile>,
) -> Result<Option<Found>> {
    if let Some(read) = &mine.read {
        let keep = read.keep_files(&work.snapshot, &files)?;
        let mut keep = keep.into_iter();
        files.retain(|_| keep.next().unwrap_or(true));
    }
    if files.is_empty() {
        return Ok(Some(Found::default()));
    }
    verb.find(work, files).await
}

/// The masks of the files that hold the rows of `moved` now, if they hold just these. `found` follows.
async fn found_again(
    work: &mut Work,
    verb: &mut dyn Verb,
    found: &mut Found,
    mine: &Change,
    moved: &HashSet<String>,
    fresh: Vec<DataFile>,
) -> Result<Option<Vec<(DataFile, RowMask)>>> {
    if moved.is_empty() || planted::is(Bug::MovedRowsUnseen) {
        return Ok(Some(Vec::new()));
    }
    let Some(again) = find(work, verb, mine, fresh.clone()).await? else {
        return Ok(None);
    };
    let count = |rows: &HashMap<String, RowMask>| -> u64 {
        moved
            .iter()
            .filter_map(|path| rows.get(path))
            .map(RowMask::len)
            .sum()
    };
    let total = |rows: &HashMap<String, RowMask>| -> u64 { rows.values().map(RowMask::len).sum() };
    if count(&found.matched) != total(&again.matched) || count(&found.touched) != total(&again.touched) {
        return Ok(None);
    }
    for path in moved {
        found.matched.remove(path);
        found.touched.remove(path);
    }
    let masks = fresh
        .into_iter()
        .filter_map(|file| {
            again
                .touched
                .get(&file.path)
                .map(|mask| (file.clone(), mask.clone()))
        })
        .collect();
    found.matched.extend(again.matched);
    found.touched.extend(again.touched);
    Ok(Some(masks))
}

async fn mask(work: &Work, snapshot: &Snapshot, file: &DataFile) -> Result<RowMask> {
    if file.masks.is_empty() {
        return Ok(RowMask::new());
    }
    let mut masks = work
        .handle
        .format
        .masks(snapshot, std::slice::from_ref(file))
        .await?;
    masks
        .pop()
        .ok_or_else(|| Error::invalid("a mask was asked for, none was read", &file.path))
}

/// Masks these rows, in addition to those that are masked by now.
async fn stage(work: &mut Work, concerned: Vec<(DataFile, RowMask)>) -> Result<()> {
    let mut masks = Vec::with_capacity(concerned.len());
    for (file, touched) in concerned {
        let mut complete = match planted::is(Bug::WinnersMaskForgotten) {
            true => RowMask::new(),
            false => mask(work, &work.snapshot, &file).await?,
        };
        complete.union(&touched);
        if complete.len() >= file.rows {
            work.change.removed.push(file);
        } else {
            masks.push((file, complete));
        }
    }
    super::rows::stage_masks(work, masks).await
}
