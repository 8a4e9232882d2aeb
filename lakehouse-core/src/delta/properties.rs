//! Table properties of Delta: what they switch on, and which of them this writer leaves to others.

use std::collections::BTreeMap;

use super::actions::Protocol;
use super::protocol::{self, DELETION_VECTORS, TYPE_WIDENING};
use super::{change_feed, mapping, row_tracking};
use crate::error::{Error, Result};
use crate::model::Retention;
use crate::model::retention::{self, DAY_MS, Setting};

/// How long files stay that are no longer part of the table, and the tombstones that tell of them.
const FILES: Setting = Setting::interval("delta.deletedFileRetentionDuration");
/// How long log entries stay.
const LOG: Setting = Setting::interval("delta.logRetentionDuration");
/// How long applications are remembered that write no more.
const APPLICATIONS: Setting = Setting::interval("delta.setTransactionRetentionDuration");

/// How long files stay that are no longer part of the table, in milliseconds.
///
/// # Errors
/// [`Error::Invalid`] when the table says it in words that cannot be read.
pub(super) fn files_ms(properties: &BTreeMap<String, String>) -> Result<i64> {
    Ok(FILES.of(properties)?.unwrap_or(7 * DAY_MS))
}

/// How long applications are remembered, in milliseconds; `None` for ever.
///
/// # Errors
/// As [`files_ms`].
pub(super) fn applications_ms(properties: &BTreeMap<String, String>) -> Result<Option<i64>> {
    APPLICATIONS.of(properties)
}

/// How long versions are kept: what was asked, else what the table says, else 30 days.
///
/// # Errors
/// As [`files_ms`].
pub(super) fn retention(properties: &BTreeMap<String, String>, asked: Retention) -> Result<Retention> {
    let age = match asked.max_snapshot_age_ms {
        Some(asked) => asked,
        None => LOG.of(properties)?.unwrap_or(30 * DAY_MS),
    };
    Ok(Retention {
        max_ref_age_ms: asked.max_ref_age_ms,
        min_snapshots_to_keep: Some(asked.min_snapshots_to_keep.unwrap_or(1)),
        max_snapshot_age_ms: Some(age),
    })
}

/// Properties of which a table keeps its own books.
const KEPT: [&str; 4] = [
    "delta.columnMapping.maxColumnId",
    "delta.rowTracking.",
    row_tracking::SUSPENDED,
    "delta.requireCheckpointProtectionBeforeVersion",
];

/// The protocol and properties of a table once these are set (`None`: gone).
///
/// # Errors
/// [`Error::Unsupported`] for a property that asks for what is not written, or cannot be taken back.
pub(super) fn apply(
    mut protocol: Protocol,
    mut configuration: BTreeMap<String, String>,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(Protocol, BTreeMap<String, String>)> {
    for (key, value) in changes {
        let before = configuration.get(key);
        if before == value.as_ref() {
            continue;
        }
        match value {
            Some(value) => check(key, value)?,
            None => check_kind(key, "false")?,
        }
        if key == mapping::MODE {
            let (old, new) = (
                before.map_or("none", String::as_str),
                value.as_deref().unwrap_or("none"),
            );
            if (old, new) != ("none", "name") && old != new {
                return Err(Error::unsupported(
                    format!("column mapping cannot go from {old} to {new}"),
                    "a table without it can get the mode name; no other change keeps its files readable",
                ));
            }
        }
        let on = value.as_deref().is_some_and(is_true);
        match key.as_str() {
            protocol::ENABLE_VECTORS if on => protocol = protocol.with(DELETION_VECTORS, true),
            protocol::ENABLE_WIDENING if on => protocol = protocol.with(TYPE_WIDENING, true),
            change_feed::ENABLE if on => protocol = protocol.with(change_feed::FEATURE, false),
            row_tracking::ENABLE if on => {
                protocol = row_tracking::begun(protocol, &mut configuration)?;
            }
            protocol::CHECKPOINT_POLICY if value.as_deref() == Some("v2") => {
                protocol = protocol.with(protocol::V2_CHECKPOINT, true);
            }
            "delta.appendOnly" if on => protocol = protocol.with("appendOnly", false),
            key if key.starts_with(protocol::CONSTRAINT) && value.is_some() => {
                protocol = protocol.with(protocol::CHECK_CONSTRAINTS, false);
            }
            _ => {}
        }
        match value {
            Some(value) => configuration.insert(key.clone(), value.clone()),
            None => configuration.remove(key),
        };
    }
    Ok((protocol, configuration))
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// Refuses a property that asks for a feature which we do not write, and a value that cannot be read.
///
/// # Errors
/// [`Error::Unsupported`] naming it; [`Error::Invalid`] saying how to write it.
pub(super) fn check(key: &str, value: &str) -> Result<()> {
    check_kind(key, value)?;
    match key.starts_with("delta.") && key.ends_with("RetentionDuration") {
        true => retention::check_interval(key, value),
        false => Ok(()),
    }
}

fn check_kind(key: &str, value: &str) -> Result<()> {
    if KEPT.iter().any(|kept| key.starts_with(kept)) {
        return Err(Error::unsupported(
            format!("the property {key} is kept by the table itself"),
            "leave the property out",
        ));
    }
    let on = is_true(value);
    let asks = key.starts_with("delta.feature.")
        || key == protocol::CONSTRAINT
        // Others look for it in small letters.
        || (key.to_lowercase().starts_with(protocol::CONSTRAINT) && !key.starts_with(protocol::CONSTRAINT))
        || matches!(key, "delta.minReaderVersion" | "delta.minWriterVersion")
        || (key == protocol::CHECKPOINT_POLICY && !matches!(value, "classic" | "v2" | "false"))
        || (on && (key.starts_with("delta.enableIcebergCompat") || key == "delta.enableInCommitTimestamps"));
    let asks =
        asks || key.starts_with("delta.universalFormat.") || key.starts_with("delta.coordinatedCommits.");
    let number = |least: i64| value.trim().parse::<i64>().is_ok_and(|number| number >= least);
    let wrong = match key {
        "delta.checkpointInterval" => !number(1),
        "delta.dataSkippingNumIndexedCols" => !number(-1),
        _ => false,
    };
    if wrong && value != "false" {
        return Err(Error::invalid(
            format!("{value:?} is no value of {key}"),
            "the table's properties",
        )
        .with_hint("write a whole number"));
    }
    match asks {
        true => Err(Error::unsupported(
            format!("the property {key} asks for a Delta feature that is not written"),
            "leave the property out",
        )),
        false => Ok(()),
    }
}
