//! Which step of a stream a branch has.
//!
//! Of each branch the last step that was written to it is recorded (`tokens.rs`), and each snapshot that is a step says
//! so in its summary. A branch has its own record, what others wrote that is in its history, and what the summaries of its
//! history tell: a branch that was made from an older version of main has the step of that version, not main's.

use std::collections::{BTreeSet, HashMap};

use iceberg::spec::TableMetadata;

use super::refs::{self, Descent};
use super::summary::{STEP, STREAM};
use super::tokens::{Edits, Use, all_streams, stream_property};
use super::view::View;
use crate::error::{Error, Result};
use crate::model::{MAIN, Version};

/// The last step of a stream that the branch has whose newest version `view` is.
///
/// # Errors
/// As [`last_at`].
pub(super) fn last_on(view: &View, stream: &str) -> Result<Option<Use>> {
    let branch = view.branch.as_deref().unwrap_or(MAIN);
    last_at(view.metadata(), branch, view.version(), stream)
}

/// The last step of a stream that a version of a branch has; an empty name is no branch's.
///
/// # Errors
/// [`Error::Invalid`] when a record is damaged, and when the versions are expired that would tell: guessing would lose
/// rows or double them.
pub(super) fn last_at(
    metadata: &TableMetadata,
    branch: &str,
    version: Version,
    stream: &str,
) -> Result<Option<Use>> {
    let (mut last, mut others) = (None::<Use>, Vec::new());
    for note in all_streams(metadata).filter(|note| note.name == stream) {
        let used = note.used()?;
        match refs::descent(metadata, used.version, version) {
            Descent::Yes => last = later(last, used),
            Descent::Untold if note.branch == branch => last = later(last, used),
            // Others went on from it, or never had it.
            Descent::Untold | Descent::No => others.push(used),
        }
    }
    if others.is_empty() {
        return Ok(last);
    }
    let began_ms = others.iter().map(|used| used.began_ms).min().flatten();
    let told = from_summaries(metadata, version, stream, began_ms);
    if let Some(last) = told.last.map_or(last.clone(), |told| later(last, told)) {
        return Ok(Some(last));
    }
    // Versions without summaries of streams tell nothing, and expired ones only that they are older.
    let is_told = match (told.oldest_ms, began_ms) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(oldest_ms), Some(began_ms)) => oldest_ms <= began_ms,
    };
    match is_told {
        true => Ok(None),
        false => Err(Error::invalid(
            format!(
                "how far the stream \"{stream}\" came on \"{branch}\" cannot be told: it went on elsewhere, and the \
                 versions that would tell are expired"
            ),
            metadata.location(),
        )
        .with_hint("write to this branch under another stream name, from the line that it lacks")),
    }
}

fn later(one: Option<Use>, other: Use) -> Option<Use> {
    match one {
        Some(one) if one.step >= other.step => Some(one),
        _ => Some(other),
    }
}

/// What the summaries of a version and those before it say of a stream.
struct Told {
    last: Option<Use>,
    /// The time of the oldest version there is, where older ones are expired.
    oldest_ms: Option<i64>,
}

fn from_summaries(metadata: &TableMetadata, version: Version, stream: &str, began_ms: Option<i64>) -> Told {
    let mut at = metadata.snapshot_by_id(version);
    let mut oldest_ms = None;
    // Metadata of others may name versions in a circle.
    for _ in metadata.snapshots() {
        let Some(snapshot) = at else { break };
        let fields = &snapshot.summary().additional_properties;
        if fields.get(STREAM).is_some_and(|of| of == stream) {
            let last = Use {
                version: snapshot.snapshot_id(),
                time_ms: Some(snapshot.timestamp_ms()),
                step: fields.get(STEP).and_then(|step| step.parse().ok()),
                began_ms,
            };
            return Told {
                last: Some(last).filter(|last| last.step.is_some()),
                oldest_ms,
            };
        }
        let parent = snapshot.parent_snapshot_id();
        at = parent.and_then(|parent| metadata.snapshot_by_id(parent));
        if parent.is_some() && at.is_none() {
            oldest_ms = Some(snapshot.timestamp_ms());
        }
    }
    Told {
        last: None,
        oldest_ms,
    }
}

/// When a stream began, if every record of it says so; now, if there is none.
pub(super) fn began(metadata: &TableMetadata, stream: &str, now_ms: i64) -> Option<i64> {
    let mut began_ms = Some(now_ms);
    for note in all_streams(metadata).filter(|note| note.name == stream) {
        let known = note.used().ok().and_then(|used| used.began_ms);
        began_ms = began_ms.zip(known).map(|(one, other)| one.min(other));
    }
    began_ms
}

/// What to note of streams when a branch is made at, or moved to, a version.
///
/// # Errors
/// [`Error::Invalid`] when a record is damaged.
pub(super) fn reached(metadata: &TableMetadata, branch: &str, version: Version) -> Result<Edits> {
    let known: BTreeSet<&str> = all_streams(metadata).map(|note| note.name).collect();
    let (mut set, mut removed) = (HashMap::new(), Vec::new());
    for stream in known {
        for note in all_streams(metadata).filter(|note| note.name == stream) {
            note.used()?;
        }
        // What this branch had says nothing of the version that it is moved to.
        match last_at(metadata, "", version, stream) {
            Ok(Some(last)) => drop(set.insert(stream_property(branch, stream), last.written())),
            Ok(None) => removed.push(stream_property(branch, stream)),
            // It stays open until somebody asks.
            Err(_) => {}
        }
    }
    removed.retain(|property| metadata.properties().contains_key(property));
    Ok((set, removed))
}
