//! How far files overlap, for people and machines.

use lakehouse_core::model::Overlap;
use lakehouse_core::operations::{Ordered, Overlaps};
use serde_json::{Value, json};

use crate::values::show_count;

/// A row for each column, and one for all of them together: which columns, files that a lookup reads, files that
/// overlap.
pub(crate) fn overlap_rows(overlaps: &Overlaps) -> Vec<Vec<String>> {
    figures(overlaps)
        .map(|(columns, overlap)| {
            vec![
                columns.join(", "),
                format!("{:.1} of {}", overlap.depth, show_count(overlap.files)),
                overlapping(overlap),
            ]
        })
        .collect()
}

/// The share of files that overlap others, and what is not known about them.
fn overlapping(overlap: &Overlap) -> String {
    let share = overlap.overlapping as f64 / overlap.files.max(1) as f64 * 100.0;
    match overlap.unknown {
        0 => format!("{share:.0} %"),
        files => format!("{share:.0} %, {} without statistics", show_count(files)),
    }
}

/// The same for machines.
pub(crate) fn overlap_json(overlaps: &Overlaps) -> Value {
    figures(overlaps)
        .map(|(columns, overlap)| {
            json!({
                "columns": columns, "depth": overlap.depth, "files": overlap.files,
                "overlapping_files": overlap.overlapping, "files_without_statistics": overlap.unknown,
            })
        })
        .collect()
}

/// Columns and their figures: each by itself, then all of them if there are several.
fn figures(overlaps: &Overlaps) -> impl Iterator<Item = (Vec<&str>, &Overlap)> {
    let each = overlaps
        .columns
        .iter()
        .map(|(column, overlap)| (vec![column.as_str()], overlap));
    let all = overlaps
        .columns
        .iter()
        .map(|(column, _)| column.as_str())
        .collect();
    let together = (overlaps.columns.len() > 1).then_some((all, &overlaps.together));
    each.chain(together)
}

/// What putting rows in order won, in a line.
pub(super) fn ordered(told: &Ordered) -> String {
    let depth = |overlaps: &Overlaps| {
        let Overlap { depth, files, .. } = overlaps.together;
        format!("{depth:.1} of {} files", show_count(files))
    };
    let before = depth(&told.before);
    match &told.after {
        Some(after) => format!("{}: a lookup reads {}, before {before}", told.order, depth(after)),
        None => format!("{}: a lookup reads {before}", told.order),
    }
}

/// The same for machines.
pub(super) fn ordered_json(told: &Ordered) -> Value {
    json!({
        "order": told.order, "before": overlap_json(&told.before), "after": told.after.as_ref().map(overlap_json),
    })
}
