//! Table properties that say how long versions are kept.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::model::Retention;
use crate::model::retention::{DAY_MS, Setting};

/// How long versions of a branch are kept.
const MAX_SNAPSHOT_AGE: Setting = Setting::milliseconds("history.expire.max-snapshot-age-ms");
/// How many of them are kept at least.
const MIN_SNAPSHOTS: Setting = Setting::count("history.expire.min-snapshots-to-keep");
/// How long tags and branches are kept.
const MAX_REF_AGE: Setting = Setting::milliseconds("history.expire.max-ref-age-ms");

/// How long versions, tags and branches are kept that say nothing themselves (Iceberg spec, "Snapshot Retention
/// Policy"): what was asked, else the table properties, as in other engines.
///
/// # Errors
/// [`crate::Error::Invalid`] for a property that counts and cannot be read.
pub(super) fn retention(properties: &BTreeMap<String, String>, asked: Retention) -> Result<Retention> {
    let min_snapshots_to_keep = match asked.min_snapshots_to_keep {
        Some(asked) => asked,
        None => MIN_SNAPSHOTS
            .of(properties)?
            .map_or(1, |count| i32::try_from(count).unwrap_or(i32::MAX)),
    };
    let max_snapshot_age_ms = match asked.max_snapshot_age_ms {
        Some(asked) => asked,
        None => MAX_SNAPSHOT_AGE.of(properties)?.unwrap_or(5 * DAY_MS),
    };
    let max_ref_age_ms = match asked.max_ref_age_ms {
        Some(asked) => Some(asked),
        None => MAX_REF_AGE.of(properties)?,
    };
    Ok(Retention {
        max_ref_age_ms,
        min_snapshots_to_keep: Some(min_snapshots_to_keep),
        max_snapshot_age_ms: Some(max_snapshot_age_ms),
    })
}

/// Refuses a value that could not be read later.
///
/// # Errors
/// [`crate::Error::Invalid`] naming the property and how to write it.
pub(super) fn check(key: &str, value: &str) -> Result<()> {
    let settings = [MAX_SNAPSHOT_AGE, MIN_SNAPSHOTS, MAX_REF_AGE];
    settings.iter().try_for_each(|setting| setting.check(key, value))
}
