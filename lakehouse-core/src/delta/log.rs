//! The log folder: names, log entries, when a version was committed, what is wrong with a broken log
//! (Delta protocol, "Delta Log Entries").

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::actions::{self, Action};
use crate::error::{Error, Result};
use crate::model::limits::{HINT_BYTES, Limit, Limits, VERSION};
use crate::store::{Bound, Listed, Store};

/// The folder of the log.
pub(super) const FOLDER: &str = "_delta_log/";
/// Names the newest checkpoint.
pub(super) const LAST_CHECKPOINT: &str = "_delta_log/_last_checkpoint";
/// The folder of files that checkpoints of version 2 name.
pub(super) const SIDECARS: &str = "_delta_log/_sidecars/";
/// Log entries larger than this are read from their beginning first when only their `commitInfo` counts.
const BEGINNING: u64 = 64 * 1024;

/// Key of the log entry of a version.
pub(super) fn commit_key(version: u64) -> String {
    format!("{FOLDER}{version:020}.json")
}

/// Key of the single-file checkpoint of a version.
pub(super) fn checkpoint_key(version: u64) -> String {
    format!("{FOLDER}{version:020}.checkpoint.parquet")
}

/// The version of a log entry's key; `None` for any other key.
pub(super) fn commit_version(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(FOLDER)?.strip_suffix(".json")?;
    number(digits)
}

/// The version that a file of the log belongs to: log entries, checkpoints and their parts, checksums.
pub(super) fn file_version(key: &str) -> Option<u64> {
    number(key.strip_prefix(FOLDER)?.split('.').next()?)
}

fn number(digits: &str) -> Option<u64> {
    let sound = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    // A number from which one cannot count on is none.
    sound
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|number| *number < VERSION)
}

/// What the kernel may read of the log.
pub(super) fn bound(key: &str, limits: &Limits) -> Bound {
    let name = key.strip_prefix(FOLDER).unwrap_or_default();
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 20 && file_version(key).is_none() && digits == name.find('.').unwrap_or(0) {
        return Bound::Never("the name of a file of the log has a number that no version can have");
    }
    match key {
        LAST_CHECKPOINT => Bound::Hint(HINT_BYTES),
        key if key.ends_with(".parquet") => Bound::Parquet,
        _ => Bound::Bytes(limits.commit_bytes),
    }
}

/// The same, where [`LAST_CHECKPOINT`] is not to be believed.
pub(super) fn bound_without_pointer(key: &str, limits: &Limits) -> Bound {
    match key {
        LAST_CHECKPOINT => Bound::Hint(Limit::fixed(0)),
        key => bound(key, limits),
    }
}

/// Whether a key is (part of) a checkpoint.
pub(super) fn is_checkpoint(key: &str) -> bool {
    file_version(key).is_some() && key.contains(".checkpoint.")
}

/// The checkpoints among these files that are whole, each with its files: those in several parts are only with all of them
/// (Delta protocol, "Multi-part checkpoint").
pub(super) fn whole_checkpoints(files: Vec<Listed>) -> Vec<Vec<Listed>> {
    let mut whole = Vec::new();
    let mut parts: BTreeMap<(u64, u64), Vec<Listed>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| is_checkpoint(&file.path)) {
        let words: Vec<&str> = file.path.split('.').collect();
        match (words.as_slice(), file_version(&file.path)) {
            ([_, "checkpoint", _, of, "parquet"], Some(version)) => {
                if let Ok(of) = of.parse::<u64>() {
                    parts.entry((version, of)).or_default().push(file);
                }
            }
            ([_, "checkpoint", "parquet"] | [_, "checkpoint", _, "parquet" | "json"], Some(_)) => {
                whole.push(vec![file]);
            }
            _ => {}
        }
    }
    let all_there = |((_, of), parts): ((u64, u64), Vec<Listed>)| (parts.len() as u64 == of).then_some(parts);
    whole.extend(parts.into_iter().filter_map(all_there));
    whole
}

/// What the names in the log folder tell, and when the files were written: by the store's clock, in milliseconds since 1970
/// UTC.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Versions with a log entry.
    pub(super) commits: BTreeMap<u64, i64>,
    /// Versions with a whole checkpoint; the time of the last of its files.
    pub(super) checkpoints: BTreeMap<u64, i64>,
}

impl Names {
    /// Of a listing of the folder.
    pub(super) fn of(files: Vec<Listed>) -> Self {
        let mut names = Self::default();
        for file in &files {
            if let Some(version) = commit_version(&file.path) {
                names.commits.insert(version, file.modified_ms);
            }
        }
        for files in whole_checkpoints(files) {
            let version = files.first().and_then(|file| file_version(&file.path));
            let written = files.iter().map(|file| file.modified_ms).max();
            names.checkpoints.extend(version.zip(written));
        }
        names
    }

    /// The oldest version that can be read, whether all later ones can or not.
    pub(super) fn oldest(&self) -> Option<u64> {
        match self.commits.contains_key(&0) {
            true => Some(0),
            false => self.checkpoints.keys().next().copied(),
        }
    }

    /// The oldest version from which all can be read up to `newest`, which is there.
    pub(super) fn oldest_without_gap(&self, newest: u64) -> Option<u64> {
        let mut first = newest;
        while first > 0 && self.commits.contains_key(&(first - 1)) {
            first -= 1;
        }
        match first {
            0 => Some(0),
            // The entry of the checkpoint itself may be gone.
            first => self
                .checkpoints
                .range(first - 1..=newest)
                .next()
                .map(|(version, _)| *version),
        }
    }

    /// When a version was written: its log entry, where that is gone its checkpoint.
    pub(super) fn written_ms(&self, version: u64) -> Option<i64> {
        let entry = self.commits.get(&version);
        entry.or_else(|| self.checkpoints.get(&version)).copied()
    }
}

/// Reads a log entry; `None` if it is not there.
pub(super) async fn read(store: &Store, version: u64) -> Result<Option<Vec<Action>>> {
    let key = commit_key(version);
    match store.get_within(&key, store.limits().commit_bytes).await? {
        Some(bytes) => actions::parse(&bytes, &key).map(Some),
        None => Ok(None),
    }
}

/// What a log entry says about itself.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its `commitInfo`, which writers may leave out.
    pub(super) info: Map<String, Value>,
    /// When it was committed, in milliseconds since 1970 UTC: the time inside the commit if the table
    /// keeps one, else the writer's, else the file's.
    pub(super) timestamp_ms: i64,
}

impl Entry {
    /// A text of the `commitInfo`.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.info.get(key).and_then(Value::as_str)
    }
}

/// Reads what a log entry says about itself; `None` if it is not there.
pub(super) async fn entry(store: &Store, version: u64) -> Result<Option<Entry>> {
    let key = commit_key(version);
    let Some(file) = store.head(&key).await? else {
        return Ok(None);
    };
    if file.bytes == 0 {
        // The protocol could read it as a version that changes nothing: rows would be missing in silence.
        return Err(Error::invalid("the log entry is empty", key)
            .with_hint("it was cut off: copy it again; versions before it can still be read"));
    }
    let mut info = None;
    if file.bytes > BEGINNING {
        let bytes = store.get_range(&key, 0..BEGINNING).await?;
        info = actions::parse_commit_info(&bytes, false, &key)?;
    }
    if info.is_none() {
        let whole = store.get_within(&key, store.limits().commit_bytes).await?;
        let whole = whole.ok_or_else(|| Error::not_found(&key, store.location()))?;
        info = actions::parse_commit_info(&whole, true, &key)?;
    }
    let info = info.flatten().unwrap_or_default();
    let time = |key: &str| info.get(key).and_then(Value::as_i64);
    Ok(Some(Entry {
        timestamp_ms: time("inCommitTimestamp")
            .or_else(|| time("timestamp"))
            .unwrap_or(file.modified_ms),
        info,
    }))
}

/// When a version was committed, also where its log entry is gone and only a checkpoint is left.
pub(super) async fn timestamp(store: &Store, version: u64) -> Result<i64> {
    if let Some(entry) = entry(store, version).await? {
        return Ok(entry.timestamp_ms);
    }
    let files = store.list(&format!("{FOLDER}{version:020}.")).await?;
    Ok(files.first().map_or(0, |file| file.modified_ms))
}

/// The versions whose log entries are there.
pub(super) async fn commits(store: &Store) -> Result<BTreeSet<u64>> {
    let files = store.list(FOLDER).await?;
    Ok(files
        .iter()
        .filter_map(|file| commit_version(&file.path))
        .collect())
}

/// Refuses a version that the log does not have.
///
/// # Errors
/// [`Error::NotFound`] with the versions that there are.
pub(super) async fn check_version(store: &Store, version: u64) -> Result<()> {
    let there = store.head(&commit_key(version)).await?.is_some()
        || !store.list(&format!("{FOLDER}{version:020}.")).await?.is_empty();
    if there {
        return Ok(());
    }
    let missing = Error::not_found(format!("version {version}"), store.location());
    Err(diagnose(store, Some(version)).await?.unwrap_or(missing))
}

/// What is wrong, once loading a version has failed with `error`: no table, no such version, a gap, a
/// broken file. `error` itself where nothing better is found.
pub(super) async fn explain(store: &Store, version: Option<u64>, error: Error) -> Error {
    if !matches!(error, Error::Invalid { .. } | Error::NotFound { .. }) {
        return error;
    }
    match diagnose(store, version).await {
        Ok(None) => error,
        Ok(Some(better)) | Err(better) => better,
    }
}

async fn diagnose(store: &Store, version: Option<u64>) -> Result<Option<Error>> {
    let files = store.list(FOLDER).await?;
    let names = Names::of(files.clone());
    let (commits, checkpoints) = (&names.commits, &names.checkpoints);
    let newest = commits.keys().next_back().max(checkpoints.keys().next_back());
    let Some(newest) = newest.copied() else {
        return Ok(Some(
            Error::not_found("a Delta table", store.location())
                .with_hint("check the location; `lake create --format delta` makes a new table"),
        ));
    };
    let target = version.unwrap_or(newest);
    let missing = |hint: String| {
        Ok(Some(
            Error::not_found(format!("version {target}"), store.location()).with_hint(hint),
        ))
    };
    if target > newest {
        return missing(format!("the newest version is {newest}"));
    }
    let start = checkpoints
        .range(..=target)
        .next_back()
        .map(|(version, _)| *version);
    if start.is_none() && !commits.contains_key(&0) {
        let oldest = names.oldest().map_or_else(String::new, |oldest| {
            format!("; the oldest that can be read is {oldest}")
        });
        return missing(format!("its log entries were cleaned up{oldest}"));
    }
    let first = start.map_or(0, |version| version + 1);
    if let Some(gap) = (first..=target).find(|version| !commits.contains_key(version)) {
        return Ok(Some(
            Error::invalid(
                format!("version {target} cannot be read: the log entry of version {gap} is missing"),
                commit_key(gap),
            )
            .with_hint(format!(
                "restore the file from a backup; versions before {gap} can be read"
            )),
        ));
    }
    for version in first..=target {
        if let Some(actions) = read(store, version).await? {
            let known = |action: &Action| action.protocol.is_some() || action.meta_data.is_some();
            if version == 0 && !actions.iter().any(known) {
                return Ok(Some(Error::invalid(
                    "the first log entry has neither protocol nor metaData",
                    commit_key(0),
                )));
            }
        }
    }
    broken_checkpoint(store, &files, start).await
}

/// Names a checkpoint that is no Parquet file.
async fn broken_checkpoint(store: &Store, files: &[Listed], start: Option<u64>) -> Result<Option<Error>> {
    for file in files {
        let parquet = is_checkpoint(&file.path) && file.path.ends_with(".parquet");
        if !parquet || file_version(&file.path) != start {
            continue;
        }
        let tail = store
            .get_range(&file.path, file.bytes.saturating_sub(4)..file.bytes)
            .await?;
        if tail != b"PAR1"[..] {
            return Ok(Some(
                Error::invalid("the checkpoint is not a Parquet file", &file.path).with_hint(
                    "delete it: the log entries before it are read instead, if they are still there",
                ),
            ));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names_of_the_log_only() {
        assert_eq!(commit_version(&commit_key(17)), Some(17));
        assert_eq!(commit_version("_delta_log/17.json"), None);
        assert_eq!(commit_version("_delta_log/00000000000000000017.crc"), None);
        assert_eq!(file_version("_delta_log/00000000000000000017.crc"), Some(17));
        assert!(is_checkpoint(&checkpoint_key(3)));
        assert!(is_checkpoint(
            "_delta_log/00000000000000000010.checkpoint.0000000001.0000000002.parquet"
        ));
        assert!(!is_checkpoint("_delta_log/_last_checkpoint"));
    }
}
