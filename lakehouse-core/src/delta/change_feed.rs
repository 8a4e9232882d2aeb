//! The change data feed (Delta protocol, "Add CDC File", "Change Data Files"). Which rows go there is the operations'
//! business; here is whether the table asks for it, and the `cdc` actions.

use super::actions::{Action, ChangeFile, Metadata, Protocol};
use super::files::Stamp;
use super::protocol::is_on;
use super::schema::Column;
use super::state::State;
use crate::error::Result;
use crate::model::Change;
use crate::model::schema::CHANGE_TYPE_COLUMN;

/// The table feature.
pub(super) const FEATURE: &str = "changeDataFeed";
/// Table property: the feed is on.
pub(super) const ENABLE: &str = "delta.enableChangeDataFeed";
/// Where files with changed rows are.
const FOLDER: &str = "_change_data/";
/// Columns that readers of the feed add to the table's.
const ADDED: [&str; 3] = [CHANGE_TYPE_COLUMN, "_commit_version", "_commit_timestamp"];

/// The folder of files with changed rows, if the table asks for them.
pub(super) fn folder(protocol: &Protocol, metadata: &Metadata) -> Option<&'static str> {
    // Older writers know it by their number; from 7 on it is a feature of its own.
    let supported = (4..7).contains(&protocol.min_writer_version) || protocol.has(FEATURE);
    (supported && is_on(metadata, ENABLE)).then_some(FOLDER)
}

/// A column that readers of the feed could not tell from theirs.
pub(super) fn taken_name<'a>(
    protocol: &Protocol,
    metadata: &Metadata,
    columns: &'a [Column],
) -> Option<&'a str> {
    folder(protocol, metadata)?;
    let names = columns.iter().map(|column| column.field.name().as_str());
    names
        .into_iter()
        .find(|name| ADDED.iter().any(|added| added.eq_ignore_ascii_case(name)))
}

/// The `cdc` actions of a change.
///
/// # Errors
/// As [`State::add_new`].
pub(super) fn actions(state: &State, change: &Change, now_ms: i64) -> Result<Vec<Action>> {
    let stamp = Stamp {
        now_ms,
        data_change: false,
        clustered: &[],
    };
    let mut actions = Vec::with_capacity(change.change_files.len());
    for file in &change.change_files {
        let add = state.add_new(file, &stamp)?;
        actions.push(Action {
            cdc: Some(ChangeFile {
                path: add.path,
                partition_values: add.partition_values,
                size: add.size,
                data_change: false,
            }),
            ..Action::default()
        });
    }
    Ok(actions)
}
