//! Tags and branches: `refs` of the table metadata (Iceberg spec, "Snapshot References" and "Snapshot Retention
//! Policy").

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, SnapshotReference, SnapshotRetention, TableMetadata, TableMetadataBuilder,
};
use serde_json::Value;

use super::catalog::{Catalog, Replaced};
use super::commits;
use super::metadata::{State, to_json, written};
use super::tokens;
use super::view::{View, open};
use crate::error::{Error, Result};
use crate::format::Outcome;
use crate::model::{At, Change, MAIN, Ref, RefKind, Retention, Version};
use crate::store::{Store, clock};

/// The tags and branches in table metadata, which the crate keeps to itself.
pub(super) fn parse(metadata: &Value) -> BTreeMap<String, Ref> {
    let given = metadata.get("refs").and_then(Value::as_object);
    let mut refs: BTreeMap<String, Ref> = given
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), parse_one(value)?)))
        .collect();
    let current = metadata.get("current-snapshot-id").and_then(Value::as_i64);
    if let Some(version) = current.filter(|id| *id > 0) {
        refs.entry(MAIN.to_owned()).or_insert(Ref {
            kind: RefKind::Branch,
            version,
            retention: Retention::default(),
        });
    }
    refs
}

fn parse_one(value: &Value) -> Option<Ref> {
    let number = |key: &str| value.get(key).and_then(Value::as_i64);
    Some(Ref {
        kind: match value.get("type").and_then(Value::as_str) {
            Some("tag") => RefKind::Tag,
            _ => RefKind::Branch,
        },
        version: number("snapshot-id")?,
        retention: Retention {
            max_ref_age_ms: number("max-ref-age-ms"),
            min_snapshots_to_keep: number("min-snapshots-to-keep").and_then(|n| i32::try_from(n).ok()),
            max_snapshot_age_ms: number("max-snapshot-age-ms"),
        },
    })
}

fn reference(of: &Ref) -> SnapshotReference {
    let kept = of.retention;
    let retention = match of.kind {
        RefKind::Tag => SnapshotRetention::Tag {
            max_ref_age_ms: kept.max_ref_age_ms,
        },
        RefKind::Branch => SnapshotRetention::branch(
            kept.min_snapshots_to_keep,
            kept.max_snapshot_age_ms,
            kept.max_ref_age_ms,
        ),
    };
    SnapshotReference::new(of.version, retention)
}

/// How the newest version of a branch is asked for.
pub(super) fn at(branch: &str) -> At {
    if branch == MAIN {
        At::Latest
    } else {
        At::Ref(branch.to_owned())
    }
}

/// The newest version of a branch; 0 if it has none yet.
pub(super) fn head(state: &State, branch: &str) -> Version {
    state.refs.get(branch).map_or(0, |found| found.version)
}

/// The tags and branches that there are, for hints.
pub(super) fn known(state: &State) -> String {
    const NAMED: usize = 20;
    let names: Vec<&str> = state.refs.keys().map(String::as_str).collect();
    match names.len() {
        0 => "the table has no versions yet, and so no tags and branches".to_owned(),
        n if n > NAMED => format!(
            "the table has {n} tags and branches, among them {}",
            names[..NAMED].join(", ")
        ),
        _ => format!("the table has {}", names.join(", ")),
    }
}

/// Whether one version is in the history of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descent {
    Yes,
    No,
    /// Versions between them, or the older one, are expired.
    Untold,
}

/// Whether `ancestor` is `version`, or a version from which it descends. 0 is the empty table, from which all do.
pub(super) fn descent(metadata: &TableMetadata, ancestor: Version, version: Version) -> Descent {
    if ancestor == 0 || ancestor == version {
        return Descent::Yes;
    }
    if metadata.snapshot_by_id(ancestor).is_none() {
        return Descent::Untold;
    }
    let mut at = version;
    // No more steps than there are versions: metadata of others may name them in a circle.
    for _ in metadata.snapshots() {
        let Some(snapshot) = metadata.snapshot_by_id(at) else {
            return if at == 0 { Descent::No } else { Descent::Untold };
        };
        match snapshot.parent_snapshot_id() {
            Some(parent) if parent == ancestor => return Descent::Yes,
            Some(parent) => at = parent,
            None => return Descent::No,
        }
    }
    match metadata.snapshot_by_id(at) {
        Some(_) => Descent::No,
        None => Descent::Untold,
    }
}

/// A version and all from which it descends, as far as they are not expired.
pub(super) fn line(metadata: &TableMetadata, version: Version) -> HashSet<Version> {
    let mut line = HashSet::new();
    let mut at = metadata.snapshot_by_id(version);
    while let Some(snapshot) = at.filter(|snapshot| line.insert(snapshot.snapshot_id())) {
        at = snapshot
            .parent_snapshot_id()
            .and_then(|id| metadata.snapshot_by_id(id));
    }
    line
}

/// One attempt to change tags and branches, and to let versions go. `view` is the newest version of the table.
///
/// # Errors
/// [`Error::Conflict`] when one is not what the change was planned on; [`Error::Unsupported`] when the table cannot
/// have any. Nothing is committed then.
pub(super) async fn publish(
    store: &Store,
    catalog: &Catalog,
    view: &View,
    change: &Change,
) -> Result<Outcome> {
    let bytes = changed(view, change)?;
    let ours = |state: &State| commits::has(state, &change.commit_id);
    let ended = catalog
        .replace(store, Some(&view.state), bytes, &change.commit_id, ours)
        .await?;
    Ok(match ended {
        Replaced::Yes(state) => Outcome::Committed(open(&Arc::new(*state), &At::Latest)?),
        Replaced::No => Outcome::Lost,
        Replaced::Unknown(error) => Outcome::Unknown(error),
    })
}

/// Takes versions out of the metadata, and what is said of them: statistics go with them (Iceberg spec, "Table
/// Statistics").
///
/// # Errors
/// [`Error::Conflict`] when one is not there, or is that of a tag or branch which stays.
fn expire(mut builder: TableMetadataBuilder, view: &View, change: &Change) -> Result<TableMetadataBuilder> {
    let metadata = view.metadata();
    let conflict = |detail: String| Error::Conflict {
        table: view.state.paths.location().to_owned(),
        detail,
    };
    for version in &change.expired {
        if metadata.snapshot_by_id(*version).is_none() {
            return Err(conflict(format!("R5: version {version} is not there any more")));
        }
    }
    let stays = |name: &String| change.refs.get(name).is_none_or(|one| one.after.is_some());
    let mut held = view.state.refs.iter().filter(|(name, _)| stays(name));
    if let Some((name, _)) = held.find(|(_, found)| change.expired.contains(&found.version)) {
        return Err(conflict(format!(
            "R7: \"{name}\" is at a version that was to expire"
        )));
    }
    for file in metadata.statistics_iter() {
        if change.expired.contains(&file.snapshot_id) {
            builder = builder.remove_statistics(file.snapshot_id);
        }
    }
    for file in metadata.partition_statistics_iter() {
        if change.expired.contains(&file.snapshot_id) {
            builder = builder.remove_partition_statistics(file.snapshot_id);
        }
    }
    let ids: Vec<i64> = change.expired.iter().copied().collect();
    Ok(builder.remove_snapshots(&ids))
}

/// The metadata with the change in it.
fn changed(view: &View, change: &Change) -> Result<Vec<u8>> {
    let (metadata, location) = (view.metadata(), view.state.paths.location());
    if metadata.format_version() == FormatVersion::V1 && !change.refs.is_empty() {
        return Err(Error::unsupported(
            "tables of Iceberg's format version 1 have no tags and branches here",
            "upgrade the table to version 2 with the engine that wrote it",
        ));
    }
    let conflict = |detail: String| Error::Conflict {
        table: location.to_owned(),
        detail,
    };
    let failed = |e: iceberg::Error| {
        Error::invalid(format!("cannot commit: {}", e.message()), view.state.file.clone())
    };
    let mut recorded = HashMap::from([commits::with(metadata, &change.commit_id)]);
    let mut forgotten = Vec::new();
    let mut builder = metadata.clone().into_builder(Some(view.state.recorded()));
    for (name, one) in &change.refs {
        if view.state.refs.get(name) != one.before.as_ref() {
            return Err(conflict(format!("R7: \"{name}\" was changed meanwhile")));
        }
        match &one.after {
            Some(after) if metadata.snapshot_by_id(after.version).is_none() => {
                return Err(conflict(format!(
                    "R5: version {} is not there any more",
                    after.version
                )));
            }
            Some(after) => {
                builder = builder.set_ref(name, reference(after)).map_err(failed)?;
                if after.kind == RefKind::Branch {
                    let (kept, dropped) = tokens::reached(metadata, name, after.version)?;
                    recorded.extend(kept);
                    forgotten.extend(dropped);
                }
            }
            None => {
                let (kept, dropped) = tokens::dropped(metadata, name)?;
                recorded.extend(kept);
                forgotten.extend(dropped);
                builder = builder.remove_ref(name);
            }
        }
    }
    let builder = expire(builder, view, change)?;
    let built = builder
        .set_properties(recorded)
        .and_then(|builder| builder.remove_properties(&forgotten))
        .and_then(|builder| builder.build())
        .map_err(failed)?;
    let now = clock::now_ms().max(metadata.last_updated_ms() + 1);
    let mut json = to_json(&built.metadata, now)?;
    if change.refs.contains_key(MAIN)
        && let Some(Value::Array(log)) = json.get_mut("snapshot-log")
        && let Some(Value::Object(moved)) = log.last_mut()
    {
        // The crate asks the system.
        moved.insert("timestamp-ms".to_owned(), now.into());
    }
    written(&json)
}
