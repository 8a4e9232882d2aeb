//! Table properties of Delta: what they switch on, and which of them this writer leaves to others.

use std::collections::BTreeMap;

use super::actions::Protocol;
use super::protocol::{self, DELETION_VECTORS, TYPE_WIDENING};
use super::{change_feed, mapping, row_tracking};
use crate::error::{Error, Result};

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
        check(key, value.as_deref().unwrap_or("false"))?;
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

/// Refuses a property that asks for a feature which we do not write.
///
/// # Errors
/// [`Error::Unsupported`] naming it.
pub(super) fn check(key: &str, value: &str) -> Result<()> {
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
        key if key.starts_with("delta.") && key.ends_with("RetentionDuration") => {
            !value.trim().to_lowercase().starts_with("interval ")
        }
        _ => false,
    };
    if wrong && value != "false" {
        return Err(Error::invalid(
            format!("{value:?} is no value of {key}"),
            "the table's properties",
        )
        .with_hint("numbers are written as such, durations as in `interval 30 days`"));
    }
    match asks {
        true => Err(Error::unsupported(
            format!("the property {key} asks for a Delta feature that is not written"),
            "leave the property out",
        )),
        false => Ok(()),
    }
}
