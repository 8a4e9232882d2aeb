//! Idempotency keys: table properties, so that they outlive snapshots, with a bound on their number.
//!
//! The value of a key is the snapshot id that it made and when, in milliseconds since 1970 UTC.

use std::collections::HashMap;

use iceberg::spec::TableMetadata;

use super::metadata::TOKEN_PROPERTY;
use crate::error::{Error, Result};
use crate::model::Version;
use crate::planted::{self, Bug};

/// Keys are kept this long ..
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// .. as long as there are no more than this, since every commit writes all of them ..
const MOST: usize = 10_000;
/// .. and the newest of them longer.
const AT_LEAST: usize = 1000;

/// The properties to set and those to remove when a commit records a key.
pub(super) fn record(
    metadata: &TableMetadata,
    token: Option<&str>,
    snapshot_id: i64,
    now_ms: i64,
) -> (HashMap<String, String>, Vec<String>) {
    let Some(token) = token else {
        return (HashMap::new(), Vec::new());
    };
    let key = format!("{TOKEN_PROPERTY}{token}");
    let known = metadata
        .properties()
        .iter()
        .filter(|(name, _)| name.starts_with(TOKEN_PROPERTY) && **name != key)
        .map(|(name, value)| (name.as_str(), time_of(metadata, value)));
    let expired = expired(known.collect(), now_ms);
    (
        HashMap::from([(key, format!("{snapshot_id} {now_ms}"))]),
        expired.into_iter().map(str::to_owned).collect(),
    )
}

/// The version that a commit with this key made.
///
/// # Errors
/// [`Error::Invalid`] when the record of the key is damaged.
pub(super) fn find(metadata: &TableMetadata, token: &str) -> Result<Option<Version>> {
    let key = format!("{TOKEN_PROPERTY}{token}");
    let Some(value) = metadata.properties().get(&key) else {
        return Ok(None);
    };
    match parse(value) {
        Some((version, _)) => Ok(Some(version)),
        None => Err(Error::invalid(
            format!("the table property {key} does not hold a version: {value}"),
            "",
        )),
    }
}

fn parse(value: &str) -> Option<(Version, Option<i64>)> {
    match value.split_once(' ') {
        Some((version, time)) => Some((version.parse().ok()?, Some(time.parse().ok()?))),
        None => Some((value.parse().ok()?, None)),
    }
}

/// When a key was recorded; those without a time go with their snapshot.
fn time_of(metadata: &TableMetadata, value: &str) -> i64 {
    match parse(value) {
        Some((_, Some(time))) => time,
        Some((version, None)) => metadata
            .snapshot_by_id(version)
            .map_or(0, |snapshot| snapshot.timestamp_ms()),
        None => 0,
    }
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
    fn records_with_and_without_a_time_are_read() {
        assert_eq!(parse("77 1700000000000"), Some((77, Some(1_700_000_000_000))));
        assert_eq!(parse("77"), Some((77, None)));
        assert_eq!(parse("x 1"), None);
        assert_eq!(parse("1 x"), None);
    }
}
