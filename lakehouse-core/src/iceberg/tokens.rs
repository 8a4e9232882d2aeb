//! Idempotency keys: table properties, so that they outlive snapshots, with a bound on their number.
//!
//! The value of a key is the snapshot id that it made and when, in milliseconds since 1970 UTC; of a stream, then the
//! last step. A key counts on a
//! branch if what it made is in the history of that branch, wherever it was written: so a change that was published
//! by a fast-forward is not made again, and one that went with a dropped branch is. Where expired versions leave that
//! open, it counts on the branch that it was written to, and what was written to main counts everywhere.

use std::collections::{HashMap, HashSet};

use iceberg::spec::TableMetadata;

use super::commits::COMMITS_PROPERTY;
use super::refs::{self, Descent};
use super::view::View;
use crate::error::{Error, Result};
use crate::model::{MAIN, Token, Version};
use crate::planted::{self, Bug};

/// Property that records that a key was used on main ..
const MAIN_PROPERTY: &str = "lakehouse.idempotency.";
/// .. and on another branch: its name and a slash follow, then the key.
const BRANCH_PROPERTY: &str = "lakehouse.branch-idempotency.";
/// Keys are kept this long ..
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// .. as long as there are no more than this, since every commit writes all of them ..
const MOST: usize = 10_000;
/// .. and the newest of them longer.
const AT_LEAST: usize = 1000;

/// Whether a property is one of the notes that commits keep for themselves, and no setting of the table.
pub(super) fn is_note(property: &str) -> bool {
    read(property).is_some() || property == COMMITS_PROPERTY
}

/// Where the use of a key on a branch is recorded.
fn property(branch: &str, token: &str) -> String {
    if branch == MAIN {
        return format!("{MAIN_PROPERTY}{token}");
    }
    let branch = branch.replace('%', "%25").replace('/', "%2F");
    format!("{BRANCH_PROPERTY}{branch}/{token}")
}

/// The branch and the key that a property is about.
fn read(property: &str) -> Option<(String, &str)> {
    if let Some(token) = property.strip_prefix(MAIN_PROPERTY) {
        return Some((MAIN.to_owned(), token));
    }
    let (branch, token) = property.strip_prefix(BRANCH_PROPERTY)?.split_once('/')?;
    Some((branch.replace("%2F", "/").replace("%25", "%"), token))
}

/// Every use of a key: the property, its branch, the key, its value.
fn uses(metadata: &TableMetadata) -> impl Iterator<Item = (&str, String, &str, &str)> {
    metadata.properties().iter().filter_map(|(name, value)| {
        let (branch, token) = read(name)?;
        Some((name.as_str(), branch, token, value.as_str()))
    })
}

/// The properties to set and those to remove when a commit to `branch` records a key.
pub(super) fn record(
    metadata: &TableMetadata,
    branch: &str,
    token: Option<&Token>,
    snapshot_id: i64,
    now_ms: i64,
) -> (HashMap<String, String>, Vec<String>) {
    let Some(token) = token else {
        return (HashMap::new(), Vec::new());
    };
    let key = property(branch, &token.key);
    // Of a stream one record is left, and it may pause for long.
    let known = uses(metadata)
        .filter(|(name, _, _, value)| *name != key && Use::read(value).is_none_or(|used| used.step.is_none()))
        .map(|(name, _, _, value)| (name, time_of(metadata, value)));
    let expired = expired(known.collect(), now_ms);
    let expired = expired.into_iter().map(str::to_owned).collect();
    let step = token.step.map(|step| format!(" {step}")).unwrap_or_default();
    (
        HashMap::from([(key, format!("{snapshot_id} {now_ms}{step}"))]),
        expired,
    )
}

/// The version that a commit with this key made, if it counts on the branch whose newest version `view` is.
///
/// # Errors
/// [`Error::Invalid`] when the record of the key is damaged.
pub(super) fn find(view: &View, token: &Token) -> Result<Option<Version>> {
    let counted = counted(view, &token.key)?.into_iter();
    let recorded = |used: &Use| Token {
        key: token.key.clone(),
        step: used.step,
    };
    Ok(counted
        .filter(|used| recorded(used).covers(token))
        .map(|used| used.version)
        .next())
}

/// The last step of a stream that counts on the branch.
///
/// # Errors
/// As [`find`].
pub(super) fn last_step(view: &View, key: &str) -> Result<Option<u64>> {
    Ok(counted(view, key)?.into_iter().filter_map(|used| used.step).max())
}

/// The uses of a key that count on the branch whose newest version `view` is, certain ones first.
fn counted(view: &View, key: &str) -> Result<Vec<Use>> {
    let metadata = view.metadata();
    let mine = view.branch.as_deref().unwrap_or(MAIN);
    let (mut told, mut untold) = (Vec::new(), Vec::new());
    for (name, branch, _, value) in uses(metadata).filter(|(_, _, of, _)| *of == key) {
        let Some(used) = Use::read(value) else {
            return Err(Error::invalid(
                format!("the table property {name} does not hold a version: {value}"),
                "",
            ));
        };
        match refs::descent(metadata, used.version, view.version()) {
            Descent::Yes => told.push(used),
            Descent::Untold if branch == mine || branch == MAIN => untold.push(used),
            Descent::Untold | Descent::No => {}
        }
    }
    told.extend(untold);
    Ok(told)
}

/// The properties to set when a branch is made at, or moved to, a version: what was made on other branches and came
/// along is recorded for this one, because versions expire. (What was made on main counts anyway.)
pub(super) fn reached(metadata: &TableMetadata, branch: &str, version: Version) -> Vec<(String, String)> {
    let line = refs::line(metadata, version);
    uses(metadata)
        .filter(|(_, of, ..)| of != MAIN && of != branch)
        .filter(|(.., value)| came_along(value, &line))
        .map(|(_, _, token, value)| (property(branch, token), value.to_owned()))
        .collect()
}

/// The properties to set and those to remove when a branch is dropped: what it made is forgotten, except what is part
/// of main.
pub(super) fn dropped(metadata: &TableMetadata, branch: &str) -> (Vec<(String, String)>, Vec<String>) {
    let main = refs::line(metadata, metadata.current_snapshot_id().unwrap_or(0));
    let (mut kept, mut forgotten) = (Vec::new(), Vec::new());
    for (name, _, token, value) in uses(metadata).filter(|(_, of, ..)| of == branch) {
        if came_along(value, &main) {
            kept.push((property(MAIN, token), value.to_owned()));
        }
        forgotten.push(name.to_owned());
    }
    (kept, forgotten)
}

fn came_along(value: &str, line: &HashSet<Version>) -> bool {
    Use::read(value).is_some_and(|used| line.contains(&used.version))
}

/// What is recorded of the use of a key.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    version: Version,
    time_ms: Option<i64>,
    step: Option<u64>,
}

impl Use {
    fn read(value: &str) -> Option<Self> {
        let mut parts = value.split(' ');
        let version = parts.next()?.parse().ok()?;
        let time_ms = parts.next().map(|time| time.parse().ok());
        let step = parts.next().map(|step| step.parse().ok());
        match (time_ms, step, parts.next()) {
            (Some(None), ..) | (_, Some(None), _) | (.., Some(_)) => None,
            (time_ms, step, None) => Some(Self {
                version,
                time_ms: time_ms.flatten(),
                step: step.flatten(),
            }),
        }
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
            let name = property(branch, token);
            assert_eq!(read(&name), Some((branch.to_owned(), token)), "{name}");
        }
        assert_ne!(property("a/b", "c"), property("a", "b/c"));
        assert_eq!(read("owner"), None);
        assert!(is_note(COMMITS_PROPERTY) && !is_note("lakehouse.owner"));
    }

    #[test]
    fn records_with_and_without_a_time_and_a_step_are_read() {
        let used = |version, time_ms, step| {
            Some(Use {
                version,
                time_ms,
                step,
            })
        };
        assert_eq!(
            Use::read("77 1700000000000"),
            used(77, Some(1_700_000_000_000), None)
        );
        assert_eq!(Use::read("77 17 3"), used(77, Some(17), Some(3)));
        assert_eq!(Use::read("77"), used(77, None, None));
        for broken in ["x 1", "1 x", "1 2 x", "1 2 -3", "1 2 3 4", ""] {
            assert_eq!(Use::read(broken), None, "{broken}");
        }
    }
}
