//! The conflict rules R1 to R7, once, for every format.
//!
//! | mine \ winner | append | delete, update, merge | overwrite | compact | schema |
//! | --- | --- | --- | --- | --- | --- |
//! | append (blind) | ok | ok | ok | ok | ok if it still fits, where the format allows; else R4 |
//! | append after a read | R3 | R1 R3 | R1 R3 | ok | R4 |
//! | delete, update | R3 | R1 R2 R3 | R1 R3 | R1 | R4 |
//! | merge | R3 | R1 R2 R3 | R1 R3 | R1 | R4 |
//! | overwrite | R3 | R1 R2 R3 | R1 R3 | R1 | R4 |
//! | compact | ok | R1 R2 | R1 | R1 | ok where the format allows and its version is the same; else R4 |
//! | alter | ok (R3 if it read rows) | the same | the same | ok | R4 |
//! | restore | conflict | conflict | conflict | conflict | conflict |
//!
//! Winners are those of the branch that is written to. A change of tags and branches conflicts only with
//! another of the same name (R7), and is planned again then.
//!
//! Rows that bring columns along (`Change::schema`) are judged as rows of their kind; a winner that changed
//! the schema is R4 for them, blind or not, and planning again finds which columns are still to be added.
//!
//! A rule that fires means: the operation is asked to fit its change to the newest version, where R1 to R3
//! fired (masks of different rows of one file are united, rows that a compaction moved are found again),
//! else to plan again. Only what planning again cannot mend is a conflict that ends the operation.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Fields};

use super::identity;
use crate::error::Result;
use crate::model::schema::{keeps_columns, same_column};
use crate::model::{Change, DataFile, MetadataChange, OperationKind, Snapshot};
use crate::planted::{self, Bug};

/// How strictly reads are protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// A winner that added rows which the operation would have read is a conflict.
    #[default]
    Serializable,
    /// Such rows are ignored (except by a merge that inserts: they would become duplicate keys).
    Snapshot,
}

/// What one winner means for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The change can be published over the winner as it is.
    Compatible,
    /// The change must be planned again on the new snapshot: the rule and what it fired on.
    Replan(String),
    /// Planning again cannot be right either (a restore, an overlapping schema change): rule and reason.
    Conflict(String),
}

/// Judges `mine` against one `winner` that was committed after `base`.
///
/// # Errors
/// When the winner's files cannot be compared with what was read.
pub fn check(base: &Snapshot, mine: &Change, winner: &Change, isolation: Isolation) -> Result<Verdict> {
    if mine.restore.is_some() && !planted::is(Bug::RestoreUnchecked) {
        let what = format!(
            "restore: {} was committed meanwhile and would be undone",
            winner.operation.name()
        );
        return Ok(Verdict::Conflict(what));
    }
    if planted::is(Bug::DeletesUnchecked) && mine.operation == OperationKind::Delete {
        return Ok(Verdict::Compatible);
    }
    let rules: [&dyn Fn() -> Result<Option<Verdict>>; 6] = [
        &|| Ok(removed(mine, winner).map(Verdict::Replan)),
        &|| Ok(mask_changed(mine, winner).map(Verdict::Replan)),
        &|| Ok(lost_what_was_read(base, mine, winner, isolation)?.map(Verdict::Replan)),
        &|| Ok(added_what_was_read(base, mine, winner, isolation)?.map(Verdict::Replan)),
        &|| Ok(metadata_changed(base, mine, winner)),
        &|| Ok(same_token(mine, winner).map(Verdict::Conflict)),
    ];
    for rule in rules {
        if let Some(verdict) = rule()? {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Compatible)
}

/// Whether a change neither read nor touches any file: it adds files, whatever the table holds.
fn is_blind(mine: &Change) -> bool {
    mine.read.is_none() && mine.removed.is_empty() && mine.masked.is_empty() && mine.restore.is_none()
}

/// The files whose content in the base the change depends on, because it removes or masks them.
fn touched(mine: &Change) -> HashSet<&str> {
    let masked = mine.masked.iter().map(|(before, _)| before);
    mine.removed.iter().chain(masked).map(identity).collect()
}

/// R1: a file that I remove, mask or rewrite was removed.
fn removed(mine: &Change, winner: &Change) -> Option<String> {
    let restores = winner.restore.is_some() || winner.operation == OperationKind::Restore;
    if restores && !is_blind(mine) {
        return Some("R1: an older version was restored".to_owned());
    }
    let touched = touched(mine);
    let file = winner
        .removed
        .iter()
        .find(|file| touched.contains(identity(file)))?;
    Some(fired("R1", "removed", file, winner))
}

/// R1 for what I only read: a file whose rows I may have read lost rows, whether or not I touch it.
fn lost_what_was_read(
    base: &Snapshot,
    mine: &Change,
    winner: &Change,
    isolation: Isolation,
) -> Result<Option<String>> {
    if !winner.data_change || isolation == Isolation::Snapshot {
        return Ok(None);
    }
    let masked = winner.masked.iter().map(|(before, _)| before);
    let masked = masked.filter(|_| !planted::is(Bug::MaskChangeUnseen));
    let lost: Vec<DataFile> = winner.removed.iter().chain(masked).cloned().collect();
    let hit = first_match(base, mine, &lost)?;
    Ok(hit.map(|file| fired("R1", "removed rows of", file, winner)))
}

/// R2: the mask of a file that I mask or remove changed.
fn mask_changed(mine: &Change, winner: &Change) -> Option<String> {
    let compacts = mine.operation == OperationKind::Compact;
    if planted::is(Bug::MaskChangeUnseen) || (compacts && planted::is(Bug::CompactionBringsBack)) {
        return None;
    }
    let touched = touched(mine);
    let hit = winner
        .masked
        .iter()
        .find(|(before, _)| touched.contains(identity(before)))?;
    Some(fired("R2", "masked rows of", &hit.0, winner))
}

/// R3: the winner added rows that may match what I read.
fn added_what_was_read(
    base: &Snapshot,
    mine: &Change,
    winner: &Change,
    isolation: Isolation,
) -> Result<Option<String>> {
    if !winner.data_change || (isolation == Isolation::Snapshot && !inserts_by_key(mine)) {
        return Ok(None);
    }
    if planted::is(Bug::MergesReadNothing) && mine.operation == OperationKind::Merge {
        return Ok(None);
    }
    let mut appeared = winner.added.clone();
    // Rows also appear where a mask shrinks: only a restore does that.
    appeared.extend(
        winner
            .masked
            .iter()
            .filter(|(b, a)| may_unmask(winner, b, a))
            .map(|(_, a)| a.clone()),
    );
    let hit = first_match(base, mine, &appeared)?;
    Ok(hit.map(|file| fired("R3", "added rows that may match, in", file, winner)))
}

/// Whether the change inserts rows because their key was absent: then rows that it did not see are
/// duplicates, at every level of isolation.
fn inserts_by_key(mine: &Change) -> bool {
    mine.operation == OperationKind::Merge && mine.metrics.get("rows_inserted") != Some(&0)
}

/// Whether rows that were masked may be visible after a commit.
pub(crate) fn may_unmask(winner: &Change, before: &DataFile, after: &DataFile) -> bool {
    if winner.operation == OperationKind::Restore {
        return true;
    }
    match (before.masked_rows(), after.masked_rows()) {
        (Some(before), Some(after)) => after < before,
        _ => winner.operation == OperationKind::Other,
    }
}

/// The first of these files that may hold a row that I read.
fn first_match<'a>(base: &Snapshot, mine: &Change, files: &'a [DataFile]) -> Result<Option<&'a DataFile>> {
    let Some(read) = &mine.read else {
        return Ok(None);
    };
    if files.is_empty() {
        return Ok(None);
    }
    let keep = read.keep_files(base, files)?;
    Ok(files
        .iter()
        .zip(keep)
        .find_map(|(file, keep)| keep.then_some(file)))
}

/// R4: schema, partitioning or protocol changed.
fn metadata_changed(base: &Snapshot, mine: &Change, winner: &Change) -> Option<Verdict> {
    let theirs = winner.metadata;
    let shape = theirs.schema || theirs.partitioning;
    if (!shape && !theirs.properties) || planted::is(Bug::ColumnsUnchecked) {
        return None;
    }
    // What is to be altered is named, not numbered: it is looked up again in the table as it is then.
    if mine.operation == OperationKind::Alter || (mine.schema.is_some() && shape) {
        return Some(Verdict::Replan(
            "R4: the table's definition changed meanwhile, as this operation would".to_owned(),
        ));
    }
    if base.capabilities.append_over_schema_change
        && (!shape || is_blind(mine) || mine.operation == OperationKind::Compact)
    {
        return None;
    }
    let what = if shape {
        "schema or partitioning"
    } else {
        "properties"
    };
    Some(Verdict::Replan(format!(
        "R4: the table's {what} changed meanwhile"
    )))
}

/// R5: the base is no longer in the table's history. What read the base must not be published; what
/// is blind may.
pub(super) fn base_gone(mine: &Change, detail: &str) -> Verdict {
    if is_blind(mine) && mine.metadata == MetadataChange::default() {
        Verdict::Compatible
    } else {
        Verdict::Conflict(format!("R5: {detail}"))
    }
}

/// R6: the winner carries the same idempotency key. The loop looks for it first and then reports a
/// no-op; here it is the last guard.
fn same_token(mine: &Change, winner: &Change) -> Option<String> {
    let token = mine.token.as_ref()?;
    let done = winner.token.as_ref().is_some_and(|winner| {
        let same_stream = winner.key == token.key && winner.step.is_some();
        winner.covers(token) || (same_stream && token.after.is_some() && !planted::is(Bug::StepsInterleave))
    });
    (done && !planted::is(Bug::KeyNotLookedForAgain))
        .then(|| format!("R6: another commit carries the idempotency key \"{token}\""))
}

/// R7: a tag or branch that I make, move or drop is not what it was.
pub(super) fn refs_changed(base: &Snapshot, newest: &Snapshot, mine: &Change) -> Option<String> {
    let mut names = mine.refs.keys();
    let changed = names.find(|name| base.refs.get(*name) != newest.refs.get(*name))?;
    Some(format!(
        "R7: the tag or branch \"{changed}\" was changed meanwhile"
    ))
}

/// Whether files written for `base` can be appended to `newest`, whose schema or partitioning changed
/// (R4, the exception for appends): no required column that they lack, their specs still known, and every column still
/// under the name by which their statistics know it. Rows that were there before keep what the table has come to keep of
/// rows (ids, when they changed), and their masks are of the kind that it has by now.
pub(super) fn still_fits(base: &Snapshot, newest: &Snapshot, mine: &Change) -> bool {
    let columns_fit = has_values(base.schema.fields(), newest.schema.fields());
    let moves_rows = !mine.removed.is_empty() || !mine.masked.is_empty();
    columns_fit
        && (!moves_rows || base.features == newest.features || planted::is(Bug::UpgradeUnseen))
        && (keeps_columns(base.schema.fields(), newest.schema.fields()) || planted::is(Bug::RenamesUnseen))
        && mine
            .added
            .iter()
            .all(|file| newest.specs.contains_key(&file.spec_id))
}

/// Whether every column that is required now was required before, at any depth.
fn has_values(old: &Fields, new: &Fields) -> bool {
    new.iter().all(|field| {
        let before = old.iter().find(|old| same_column(old, field));
        let fits = field.is_nullable() || before.is_some_and(|before| !before.is_nullable());
        let inside = match (before.map(|before| before.data_type()), field.data_type()) {
            (Some(DataType::Struct(old)), DataType::Struct(new)) => has_values(old, new),
            _ => true,
        };
        fits && inside
    })
}

fn fired(rule: &str, did: &str, file: &DataFile, winner: &Change) -> String {
    format!(
        "{rule}: a concurrent {} {did} {}",
        winner.operation.name(),
        identity(file)
    )
}
