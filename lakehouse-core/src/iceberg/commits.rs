//! Commits without a snapshot: of tags and branches, or of the table's definition. So that the author of one finds it
//! again, a property keeps the ids of the last of them.

use iceberg::spec::TableMetadata;

use super::metadata::State;
use crate::model::CommitId;

/// Property with the ids, separated by blanks, the newest first.
pub(super) const COMMITS_PROPERTY: &str = "lakehouse.commits";
/// How many: those that can land while the author of one waits for the answer to it.
const KEPT: usize = 32;

/// Whether a commit of this id is among the last ones.
pub(super) fn has(state: &State, id: &CommitId) -> bool {
    let known = state.metadata.properties().get(COMMITS_PROPERTY);
    known.is_some_and(|ids| ids.split(' ').any(|known| known == id.0))
}

/// The property with one more.
pub(super) fn with(metadata: &TableMetadata, id: &CommitId) -> (String, String) {
    let known = metadata.properties().get(COMMITS_PROPERTY);
    let ids = known.map_or("", String::as_str).split(' ');
    let newest_first = std::iter::once(id.0.as_str()).chain(ids.filter(|known| !known.is_empty()));
    let kept = newest_first.take(KEPT).collect::<Vec<_>>().join(" ");
    (COMMITS_PROPERTY.to_owned(), kept)
}
