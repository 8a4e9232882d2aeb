//! Idempotency keys and streams: table properties, so that they outlive snapshots, with a bound on their number.
//!
//! The value of a key is the snapshot id that it made and when, in milliseconds since 1970 UTC. A key counts on a
//! branch if what it made is in the history of that branch, wherever it was written: so a change that was published
//! by a fast-forward is not made again, and one that went with a dropped branch is. Where expired versions leave that
//! open, it counts on the branch that it was written to, and what was written to main counts everywhere.
//!
//! Streams ([`Token::step`]) have properties of their own, so that a key of the same name is another thing: snapshot id
//! and time of the last step, the step, and when the stream began. What counts on a branch is `streams.rs`. (They were
//! kept beside the keys once, told from them by the step; such a record is read, and gives way to the next.)

use std::collections::{HashMap, HashSet};

use iceberg::spec::TableMetadata;

use super::commits::COMMITS_PROPERTY;
use super::refs::{self, Descent};
use super::streams;
use super::view::View;
use crate::error::{Error, Result};
use crate::model::{MAIN, Token, Version};
use crate::planted::{self, Bug};

/// Properties that record that a key was used on main, and on another branch: then its name and a slash follow, and the
/// key.
const KEYS: [&str; 2] = ["lakehouse.idempotency.", "lakehouse.branch-idempotency."];
/// The same of streams.
const STREAMS: [&str; 2] = ["lakehouse.stream.", "lakehouse.branch-stream."];
/// Keys are kept this long ..
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// .. as long as there are no more than this, since every commit writes all of them ..
const MOST: usize = 10_000;
/// .. and the newest of them longer.
const AT_LEAST: usize = 1000;

/// Whether a property is one of the notes that commits keep for themselves, and no setting of the table.
pub(super) fn is_note(property: &str) -> bool {
    read(KEYS, property).is_some() || read(STREAMS, property).is_some() || property == COMMITS_PROPERTY
}

/// Where the use of a key on a branch is recorded.
fn property([main, others]: [&str; 2], branch: &str, name: &str) -> String {
    if branch == MAIN {
        return format!("{main}{name}");
    }
    let branch = branch.replace('%', "%25").replace('/', "%2F");
    format!("{others}{branch}/{name}")
}

/// Where the last step of a stream on a branch is recorded.
pub(super) fn stream_property(branch: &str, stream: &str) -> String {
    property(STREAMS, branch, stream)
}

/// The branch and the key that a property is about.
fn read<'a>([main, others]: [&str; 2], property: &'a str) -> Option<(String, &'a str)> {
    if let Some(name) = property.strip_prefix(main) {
        return Some((MAIN.to_owned(), name));
    }
    let (branch, name) = property.strip_prefix(others)?.split_once('/')?;
    Some((branch.replace("%2F", "/").replace("%25", "%"), name))
}

/// What one property records.
pub(super) struct Note<'a> {
    pub(super) property: &'a str,
    pub(super) branch: String,
    /// The key, or the stream.
    pub(super) name: &'a str,
    value: &'a str,
}

impl Note<'_> {
    /// # Errors
    /// [`Error::Invalid`] when the record is damaged.
    pub(super) fn used(&self) -> Result<Use> {
        Use::read(self.value).ok_or_else(|| {
            Error::invalid(
                format!(
                    "the table property {} does not hold a version: {}",
                    self.property, self.value
                ),
                "",
            )
        })
    }
}

fn notes<'a>(metadata: &'a TableMetadata, of: [&'static str; 2]) -> impl Iterator<Item = Note<'a>> {
    metadata.properties().iter().filter_map(move |(property, value)| {
        let (branch, name) = read(of, property)?;
        Some(Note {
            property,
            branch,
            name,
            value,
        })
    })
}

fn is_step(value: &str) -> bool {
    Use::read(value).is_some_and(|used| used.step.is_some())
}

/// Every use of a key.
fn keys(metadata: &TableMetadata) -> impl Iterator<Item = Note<'_>> {
    notes(metadata, KEYS).filter(|note| !is_step(note.value))
}

/// Every record of a stream.
pub(super) fn all_streams(metadata: &TableMetadata) -> impl Iterator<Item = Note<'_>> {
    let beside_keys = notes(metadata, KEYS).filter(|note| is_step(note.value));
    notes(metadata, STREAMS).chain(beside_keys)
}

/// Properties to set, and those to remove.
pub(super) type Edits = (HashMap<String, String>, Vec<String>);

/// What to note when a commit to `branch` carries a key.
pub(super) fn record(
    metadata: &TableMetadata,
    branch: &str,
    token: Option<&Token>,
    snapshot_id: i64,
    now_ms: i64,
) -> Edits {
    let Some(token) = token else {
        return Edits::default();
    };
    let key = property(KEYS, branch, &token.key);
    let known = keys(metadata)
        .filter(|note| note.property != key)
        .map(|note| (note.property, time_of(metadata, note.value)));
    let expired = expired(known.collect(), now_ms);
    let mut removed: Vec<String> = expired.into_iter().map(str::to_owned).collect();
    let beside = metadata.properties().get(&key).filter(|value| is_step(value));
    let mut set = HashMap::new();
    if let Some(step) = token.step {
        let used = Use {
            version: snapshot_id,
            time_ms: Some(now_ms),
            step: Some(step),
            began_ms: streams::began(metadata, &token.key, now_ms),
        };
        set.insert(stream_property(branch, &token.key), used.written());
        removed.extend(beside.map(|_| key));
        return (set, removed);
    }
    // A stream that was recorded here goes where streams are.
    let stream = stream_property(branch, &token.key);
    if let Some(value) = beside.filter(|_| !metadata.properties().contains_key(&stream)) {
        set.insert(stream, value.clone());
    }
    set.insert(key, format!("{snapshot_id} {now_ms}"));
    (set, removed)
}

/// The version that a commit with this key made, if it counts on the branch whose newest version `view` is. Of a step,
/// the version of the last one.
///
/// # Errors
/// [`Error::Invalid`] when the record of the key is damaged; for a step, as [`last_step`].
pub(super) fn find(view: &View, token: &Token) -> Result<Option<Version>> {
    if let Some(step) = token.step {
        let last = streams::last_on(view, &token.key)?;
        return Ok(last
            .filter(|last| last.step >= Some(step))
            .map(|last| last.version));
    }
    let metadata = view.metadata();
    let mine = view.branch.as_deref().unwrap_or(MAIN);
    let mut untold = None;
    for note in keys(metadata).filter(|note| note.name == token.key) {
        let used = note.used()?;
        match refs::descent(metadata, used.version, view.version()) {
            Descent::Yes => return Ok(Some(used.version)),
            Descent::Untold if note.branch == mine || note.branch == MAIN => untold = Some(used.version),
            Descent::Untold | Descent::No => {}
        }
    }
    Ok(untold)
}

/// The last step of a stream that counts on the branch.
///
/// # Errors
/// As [`streams::last_on`].
pub(super) fn last_step(view: &View, key: &str) -> Result<Option<u64>> {
    Ok(streams::last_on(view, key)?.and_then(|used| used.step))
}

/// What to note when a branch is made at, or moved to, a version: keys that were used on other branches and came
/// along are recorded for this one, because versions expire. (What was made on main counts anyway.) Of streams, what
/// the version has is recorded, whoever wrote it: what others add to it from now on is not this branch's.
///
/// # Errors
/// [`Error::Invalid`] when the record of a stream is damaged.
pub(super) fn reached(metadata: &TableMetadata, branch: &str, version: Version) -> Result<Edits> {
    let line = refs::line(metadata, version);
    let mut set: HashMap<String, String> = keys(metadata)
        .filter(|note| note.branch != MAIN && note.branch != branch)
        .filter(|note| came_along(note.value, &line))
        .map(|note| (property(KEYS, branch, note.name), note.value.to_owned()))
        .collect();
    let (streams, removed) = streams::reached(metadata, branch, version)?;
    set.extend(streams);
    Ok((set, removed))
}

/// What to note when a branch is dropped: what it made is forgotten, except what is part of main.
///
/// # Errors
/// As [`reached`].
pub(super) fn dropped(metadata: &TableMetadata, branch: &str) -> Result<Edits> {
    let newest = metadata.current_snapshot_id().unwrap_or(0);
    let main = refs::line(metadata, newest);
    let (mut kept, mut forgotten) = (HashMap::new(), Vec::new());
    for note in keys(metadata).filter(|note| note.branch == branch) {
        if came_along(note.value, &main) {
            kept.insert(property(KEYS, MAIN, note.name), note.value.to_owned());
        }
        forgotten.push(note.property.to_owned());
    }
    for note in all_streams(metadata).filter(|note| note.branch == branch) {
        // Main may be further, and knows it then.
        if let Some(used) = note.used().ok().filter(|used| line_has(&main, used)) {
            let known = streams::last_at(metadata, MAIN, newest, note.name)?;
            if known.is_none_or(|known| known.step <= used.step) {
                kept.insert(stream_property(MAIN, note.name), used.written());
            }
        }
        forgotten.push(note.property.to_owned());
    }
    Ok((kept, forgotten))
}

fn line_has(line: &HashSet<Version>, used: &Use) -> bool {
    line.contains(&used.version)
}

fn came_along(value: &str, line: &HashSet<Version>) -> bool {
    Use::read(value).is_some_and(|used| line_has(line, &used))
}

/// What is recorded of the use of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) version: Version,
    pub(super) time_ms: Option<i64>,
    pub(super) step: Option<u64>,
    /// When the first step of the stream was recorded: no version before that has any.
    pub(super) began_ms: Option<i64>,
}

impl Use {
    fn read(value: &str) -> Option<Self> {
        let mut parts = value.split(' ');
        let version = parts.next()?.parse().ok()?;
        let time_ms = parts.next().map(str::parse).transpose().ok()?;
        let step = parts.next().map(str::parse).transpose().ok()?;
        let began_ms = parts.next().map(str::parse).transpose().ok()?;
        parts.next().is_none().then_some(Self {
            version,
            time_ms,
            step,
            began_ms,
        })
    }

    /// The value of a property.
    pub(super) fn written(&self) -> String {
        let Some(step) = self.step else {
            return format!("{} {}", self.version, self.time_ms.unwrap_or(0));
        };
        let began = self.began_ms.map(|began| format!(" {began}")).unwrap_or_default();
        format!("{} {} {step}{began}", self.version, self.time_ms.unwrap_or(0))
    }
}

/// When a key was recorded; those without a time go with their snapshot.
fn time_of(metadata: &TableMetadata, value: &str) -> i64 {
    let Some(used) = Use::read(value) else {
        return 0;
    };
    let made = || metadata.snapshot_by_id(used.version);
    let time_ms = used
        .time_ms
        .or_else(|| made().map(|snapshot| snapshot.timestamp_ms()));
    time_ms.unwrap_or(0)
}

fn expired(mut known: Vec<(&str, i64)>, now_ms: i64) -> Vec<&str> {
    // The new key is one of those that are kept.
    let always = AT_LEAST - 1;
    if planted::is(Bug::KeysForgotten) {
        return known.into_iter().map(|(name, _)| name).collect();
    }
    if known.len() <= always {
        return Vec::new();
    }
    known.sort_unstable_by_key(|(_, time)| std::cmp::Reverse(*time));
    let oldest = now_ms.saturating_sub(KEPT_MS);
    known
        .into_iter()
        .enumerate()
        .skip(always)
        .filter(|(rank, (_, time))| *time < oldest || *rank >= MOST - 1)
        .map(|(_, (name, _))| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_and_those_of_thirty_days_are_kept() {
        let names: Vec<String> = (0..12_000).map(|n| n.to_string()).collect();
        let now = 100 * 24 * 3_600_000_i64;
        let minute = 60_000;
        let known = |count: usize, every: i64| -> Vec<(&str, i64)> {
            let at = |n: usize| now - n as i64 * every;
            (0..count).map(|n| (names[n].as_str(), at(n))).rev().collect()
        };
        // Few, however old.
        assert!(expired(known(999, 60 * minute * 24), now).is_empty());
        // A key an hour: thirty days are 720, the newest thousand are more.
        assert_eq!(expired(known(1500, 60 * minute), now), names[999..1500].to_vec());
        // A key every ten minutes: thirty days.
        let gone = expired(known(5000, 10 * minute), now);
        assert_eq!(gone, names[30 * 24 * 6 + 1..5000].to_vec());
        // A key a second: ten thousand with the new one.
        assert_eq!(expired(known(12_000, 1000), now), names[9999..].to_vec());
    }

    #[test]
    fn properties_tell_branch_and_key_apart_whatever_they_are_called() {
        for (branch, token) in [
            (MAIN, "night/42"),
            ("audit", "a/b"),
            ("a/b", "c"),
            ("100%2F/x", "k"),
            ("audit", ""),
        ] {
            for of in [KEYS, STREAMS] {
                let name = property(of, branch, token);
                assert_eq!(read(of, &name), Some((branch.to_owned(), token)), "{name}");
                assert!(is_note(&name));
            }
            assert_ne!(property(KEYS, branch, token), property(STREAMS, branch, token));
        }
        assert_ne!(property(KEYS, "a/b", "c"), property(KEYS, "a", "b/c"));
        assert_eq!(read(KEYS, "owner"), None);
        assert!(is_note(COMMITS_PROPERTY) && !is_note("lakehouse.owner"));
    }

    #[test]
    fn records_with_and_without_a_time_and_a_step_are_read() {
        let used = |version, time_ms, step, began_ms| {
            Some(Use {
                version,
                time_ms,
                step,
                began_ms,
            })
        };
        assert_eq!(
            Use::read("77 1700000000000"),
            used(77, Some(1_700_000_000_000), None, None)
        );
        assert_eq!(Use::read("77 17 3"), used(77, Some(17), Some(3), None));
        assert_eq!(Use::read("77"), used(77, None, None, None));
        let whole = used(77, Some(17), Some(3), Some(5));
        assert_eq!(Use::read("77 17 3 5"), whole);
        assert_eq!(whole.unwrap().written(), "77 17 3 5");
        for broken in ["x 1", "1 x", "1 2 x", "1 2 -3", "1 2 3 x", "1 2 3 4 5", ""] {
            assert_eq!(Use::read(broken), None, "{broken}");
        }
    }
}
