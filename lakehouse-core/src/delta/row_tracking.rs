//! Row ids and row commit versions (Delta protocol, "Row Tracking").
//!
//! ```text
//! fresh     each file gets a range of ids and the version that adds it, when the entry is written: a lost race
//!           writes another entry, over another base
//! begin     a table that has rows is switched on in one log entry, which names every file again, with ids: there is no
//!           version in which some rows have ids and others none
//! stable    rows that are copied or updated carry theirs in two columns of the file; the scan and the writers of
//!           this crate do that for whatever format names such columns (`Snapshot::lineage`)
//! ```

use std::collections::BTreeMap;

use arrow::datatypes::FieldRef;
use serde_json::{Value, json};

use super::actions::{Action, AddFile, DomainMetadata, Metadata, Protocol};
use super::protocol::is_on;
use super::{footer, stats};
use crate::error::{Error, Result};
use crate::model::schema::{PHYSICAL_NAME, lineage_columns};
use crate::planted::{self, Bug};
use crate::store::{Store, clock};

/// The table feature.
pub(super) const FEATURE: &str = "rowTracking";
/// The table feature of the domain that the high water mark is kept in.
pub(super) const DOMAINS: &str = "domainMetadata";
/// Table property: all rows have ids, and keep them.
pub(super) const ENABLE: &str = "delta.enableRowTracking";
/// Table property: no ids are given.
pub(super) const SUSPENDED: &str = "delta.rowTrackingSuspended";
/// Table properties: the columns of data files that carry the ids and commit versions of rows.
const COLUMNS: [&str; 2] = [
    "delta.rowTracking.materializedRowIdColumnName",
    "delta.rowTracking.materializedRowCommitVersionColumnName",
];
/// The domain with the highest id given so far.
pub(super) const DOMAIN: &str = "delta.rowTracking";
const HIGH_WATER_MARK: &str = "rowIdHighWaterMark";

/// Whether files that are added get ids.
pub(super) fn is_supported(protocol: &Protocol, metadata: &Metadata) -> bool {
    protocol.has(FEATURE) && !is_on(metadata, SUSPENDED)
}

/// Whether rows have ids that writers keep.
pub(super) fn is_enabled(protocol: &Protocol, metadata: &Metadata) -> bool {
    is_supported(protocol, metadata) && is_on(metadata, ENABLE)
}

/// The columns of data files with the ids and commit versions of rows, where rows keep them.
pub(super) fn lineage(protocol: &Protocol, metadata: &Metadata) -> Option<[FieldRef; 2]> {
    let [id, version] = COLUMNS.map(|key| metadata.configuration.get(key).cloned());
    let names = [id?, version?];
    is_enabled(protocol, metadata).then(|| lineage_columns(PHYSICAL_NAME, names))
}

/// What keeps a table with row tracking from being written: what the protocol asks of it, and it lacks.
pub(super) fn lacking(protocol: &Protocol, metadata: &Metadata) -> Option<String> {
    if !is_supported(protocol, metadata) {
        return None;
    }
    if !protocol.has(DOMAINS) {
        return Some(format!("it tracks rows without the table feature {DOMAINS}"));
    }
    let missing = COLUMNS
        .into_iter()
        .find(|key| !metadata.configuration.contains_key(*key));
    missing
        .filter(|_| is_enabled(protocol, metadata))
        .map(|key| format!("it tracks rows, and its property {key} is not set"))
}

/// The protocol and the properties of a table that begins to track rows. It may have done so before: then the columns of
/// its data files are the same.
///
/// # Errors
/// [`Error::Unsupported`] where whoever owns the table has suspended it.
pub(super) fn begun(protocol: Protocol, configuration: &mut BTreeMap<String, String>) -> Result<Protocol> {
    if configuration
        .get(SUSPENDED)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        return Err(Error::unsupported(
            format!("row tracking cannot be switched on: {SUSPENDED} is true, so that new files get no ids"),
            "let the engine that suspended it take that back first",
        ));
    }
    if COLUMNS.iter().any(|key| !configuration.contains_key(*key)) {
        name_columns(configuration);
    }
    Ok(protocol.with(FEATURE, false).with(DOMAINS, false))
}

/// Files that a table has already, as a log entry names them again that begins to track rows: those without ids.
pub(super) fn untracked(files: impl Iterator<Item = AddFile>) -> Vec<Action> {
    let lacks = |add: &AddFile| add.base_row_id.is_none() || add.default_row_commit_version.is_none();
    files
        .filter(lacks)
        .map(|add| Action {
            add: Some(AddFile {
                data_change: false,
                ..add
            }),
            ..Action::default()
        })
        .collect()
}

/// Names the columns of data files for a table that begins to track rows.
pub(super) fn name_columns(configuration: &mut BTreeMap<String, String>) {
    for (key, prefix) in COLUMNS
        .into_iter()
        .zip(["_row-id-col", "_row-commit-version-col"])
    {
        configuration.insert(key.to_owned(), format!("{prefix}-{}", clock::new_commit_id()));
    }
}

/// Gives ids and a commit version to the files of a log entry that have none, as the protocol asks of its writers.
/// `domain` is what the base keeps under [`DOMAIN`], `version` the one that the entry makes. Returns the new high
/// water mark, if it moved.
///
/// # Errors
/// [`Error::Invalid`] when the mark cannot be read, or the ids are used up; those of reading a footer.
pub(super) async fn assign(
    store: &Store,
    entry: &mut [Action],
    domain: Option<&str>,
    version: i64,
) -> Result<Option<Action>> {
    let before = high_water_mark(domain)?;
    let mut mark = if planted::is(Bug::RowIdsReused) {
        -1
    } else {
        before
    };
    for add in entry.iter_mut().filter_map(|action| action.add.as_mut()) {
        if add.base_row_id.is_none() {
            let rows = i64::try_from(rows(store, add).await?).unwrap_or(i64::MAX);
            add.base_row_id = mark.checked_add(1);
            mark = mark.checked_add(rows).ok_or_else(|| broken("no id is left"))?;
            // Rows that had no id have changed in no version that anybody could have asked for.
            add.default_row_commit_version = Some(version);
        }
        add.default_row_commit_version.get_or_insert(version);
    }
    Ok((mark > before).then(|| Action {
        domain_metadata: Some(DomainMetadata {
            domain: DOMAIN.to_owned(),
            configuration: json!({ HIGH_WATER_MARK: mark }).to_string(),
            removed: false,
        }),
        ..Action::default()
    }))
}

/// The highest id given so far; -1 for none.
pub(super) fn high_water_mark(domain: Option<&str>) -> Result<i64> {
    let Some(text) = domain else {
        return Ok(-1);
    };
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    value[HIGH_WATER_MARK]
        .as_i64()
        .filter(|mark| *mark >= -1)
        .ok_or_else(|| broken(&format!("{text:?} has no {HIGH_WATER_MARK}")))
}

async fn rows(store: &Store, add: &AddFile) -> Result<u64> {
    match stats::parse(add.stats.as_deref(), &[], &|_| false).rows {
        Some(rows) => Ok(rows),
        None => {
            let bytes = u64::try_from(add.size).map_err(|_| broken("a file has a negative size"))?;
            footer::rows(store, &store.relative_encoded(&add.path)?, bytes).await
        }
    }
}

fn broken(what: &str) -> Error {
    Error::invalid(
        format!("row ids cannot be given: {what}"),
        format!("the metadata domain {DOMAIN}"),
    )
    .with_hint("the table's log is damaged; restore it from a backup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::tests::memory;

    fn add(path: &str, rows: u64, base: Option<i64>) -> Action {
        Action {
            add: Some(AddFile {
                path: path.to_owned(),
                stats: Some(format!("{{\"numRecords\":{rows}}}")),
                base_row_id: base,
                default_row_commit_version: base.map(|_| 1),
                ..AddFile::default()
            }),
            ..Action::default()
        }
    }

    async fn assigned(
        domain: Option<&str>,
        mut entry: Vec<Action>,
    ) -> (Vec<(Option<i64>, Option<i64>)>, Option<String>) {
        let mark = assign(&memory(), &mut entry, domain, 7).await.unwrap();
        let given = entry.into_iter().filter_map(|action| action.add);
        (
            given
                .map(|add| (add.base_row_id, add.default_row_commit_version))
                .collect(),
            mark.and_then(|action| action.domain_metadata)
                .map(|domain| domain.configuration),
        )
    }

    #[tokio::test]
    async fn files_without_ids_get_ranges_above_the_mark_and_others_keep_theirs() {
        let entry = vec![
            add("a", 3, None),
            add("b", 5, Some(40)),
            add("empty", 0, None),
            add("c", 2, None),
        ];
        let (given, mark) = assigned(Some(r#"{"rowIdHighWaterMark":99,"domainName":"x"}"#), entry).await;
        let seven = Some(7);
        assert_eq!(
            given,
            [
                (Some(100), seven),
                (Some(40), Some(1)),
                (Some(103), seven),
                (Some(103), seven)
            ]
        );
        assert_eq!(mark.unwrap(), r#"{"rowIdHighWaterMark":104}"#);
        let (given, mark) = assigned(None, vec![add("a", 3, None)]).await;
        assert_eq!(
            (given, mark.unwrap().as_str()),
            (vec![(Some(0), seven)], r#"{"rowIdHighWaterMark":2}"#)
        );
        let (_, mark) = assigned(None, vec![add("b", 5, Some(40))]).await;
        assert_eq!(mark, None, "no id was given");
    }

    #[test]
    fn tracking_that_was_suspended_is_not_begun_and_one_that_was_on_has_the_same_columns() {
        let mut configuration = BTreeMap::from([(SUSPENDED.to_owned(), "True".to_owned())]);
        let error = begun(Protocol::default(), &mut configuration).unwrap_err();
        assert!(error.to_string().contains(SUSPENDED), "{error}");
        configuration.clear();
        let protocol = begun(Protocol::default(), &mut configuration).unwrap();
        assert!(protocol.has(FEATURE) && protocol.has(DOMAINS));
        let named = configuration.clone();
        assert_eq!(named.len(), 2);
        begun(protocol, &mut configuration).unwrap();
        assert_eq!(configuration, named);
    }

    #[tokio::test]
    async fn a_mark_that_cannot_be_read_and_ids_that_are_used_up_are_errors() {
        for domain in [
            "",
            "{}",
            r#"{"rowIdHighWaterMark":"many"}"#,
            r#"{"rowIdHighWaterMark":-5}"#,
        ] {
            let error = assign(&memory(), &mut [add("a", 1, None)], Some(domain), 7)
                .await
                .unwrap_err();
            assert!(error.to_string().contains("rowIdHighWaterMark"), "{error}");
        }
        let last = format!(r#"{{"rowIdHighWaterMark":{}}}"#, i64::MAX - 1);
        let error = assign(&memory(), &mut [add("a", 2, None)], Some(&last), 7)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no id is left"), "{error}");
    }
}
