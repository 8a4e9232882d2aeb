//! What every change must satisfy before it is published: the last guard against our own mistakes.

use std::collections::HashSet;

use super::identity;
use crate::error::{Error, Result};
use crate::model::{Change, DataFile, Snapshot};

/// Refuses a change that would damage the table.
///
/// # Errors
/// [`Error::Invalid`] that says what is wrong with it.
pub(super) fn assert_sound(table: &str, base: &Snapshot, change: &Change) -> Result<()> {
    defect(base, change).map_or(Ok(()), |defect| {
        Err(Error::invalid(
            format!(
                "this {} would damage the table: {defect}",
                change.operation.name()
            ),
            table,
        )
        .with_hint("nothing was committed; this is a fault in the program, please report it"))
    })
}

fn defect(base: &Snapshot, change: &Change) -> Option<String> {
    if change.restore.is_some()
        && !(change.added.is_empty() && change.removed.is_empty() && change.masked.is_empty())
    {
        return Some("a restore cannot add, remove or mask files".to_owned());
    }
    let with_rows = !change.is_without_files() || change.restore.is_some() || change.schema.is_some();
    if !change.refs.is_empty() && with_rows {
        return Some("tags and branches cannot be changed together with rows".to_owned());
    }
    if !change.expired.is_empty() && with_rows {
        return Some("versions cannot expire together with a change of rows".to_owned());
    }
    let mut named = HashSet::new();
    for file in &change.added {
        if !named.insert(identity(file)) {
            return Some(format!("{} is added twice", identity(file)));
        }
        let fields = base.specs.get(&file.spec_id).map(Vec::len);
        if fields.is_some_and(|fields| fields != file.partition.len()) {
            return Some(format!(
                "{} has {} partition values, its partitioning has {} fields",
                identity(file),
                file.partition.len(),
                fields.unwrap_or_default()
            ));
        }
    }
    let full = |file: &&DataFile| file.masked_rows().is_some_and(|masked| masked > file.rows);
    if let Some(file) = change.added.iter().find(full) {
        return Some(format!("{} has more rows masked than rows", identity(file)));
    }
    for file in &change.removed {
        if !named.insert(identity(file)) {
            return Some(format!("{} is removed and named elsewhere too", identity(file)));
        }
    }
    for (before, after) in &change.masked {
        if !named.insert(identity(before)) {
            return Some(format!("{} is masked and named elsewhere too", identity(before)));
        }
        if identity(before) != identity(after) || before.rows != after.rows {
            return Some(format!(
                "the mask of {} belongs to another file, {}",
                identity(before),
                identity(after)
            ));
        }
        if after.masked_rows().is_some_and(|masked| masked > after.rows) {
            return Some(format!("{} has more rows masked than rows", identity(after)));
        }
    }
    if change.data_change {
        return None;
    }
    let masked = |files: &[DataFile]| files.iter().map(DataFile::masked_rows).sum::<Option<u64>>();
    let hidden = masked(&change.removed)?;
    let before: u64 = change.removed.iter().map(|file| file.rows).sum();
    let after: u64 = change.added.iter().map(|file| file.rows).sum();
    let after = after.saturating_sub(masked(&change.added)?);
    let visible = before.checked_sub(hidden);
    (visible != Some(after))
        .then(|| format!("rows are not conserved: {before} rows, {hidden} of them masked, became {after}"))
}
