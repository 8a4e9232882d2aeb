//! What is wrong with the log of a table: gaps, pointers, checkpoints (Delta protocol, "Delta Log Entries",
//! "Checkpoints", "Last Checkpoint File", "Row Tracking").

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::actions::{Action, AddFile, FileKey, Metadata, Protocol};
use super::state::State;
use super::{Delta, footer, log, protocol, row_tracking, stats};
use crate::error::{Error, Result};
use crate::model::limits::HINT_BYTES;
use crate::model::{At, Audit, Code, Finding, Snapshot};
use crate::store::{Listed, Store};

const FROM_BACKUP: &str = "restore the file from a backup, or go on from a version that can still be read";

/// Looks at the log, and at what it says of one version.
///
/// # Errors
/// As [`crate::format::Format::audit`].
pub(super) async fn audit(store: &Store, at: &At) -> Result<Audit> {
    let log = Log::of(&store.list(log::FOLDER).await?);
    let mut audit = Audit {
        findings: log.incomplete(),
        ..Audit::default()
    };
    // Anew: what was loaded before may be there no longer.
    let table = Delta::new(store.clone());
    let snapshot = match table.load_at(at).await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            audit.findings.extend(log.pointer(store, None).await?);
            audit.findings.extend(log.unloadable(at, error)?);
            return Ok(audit);
        }
    };
    audit.findings.extend(log.gaps_before(&snapshot));
    let state = State::of(&snapshot)?;
    entries(store, state, &mut audit).await?;
    let mut counted = None;
    if let Some((version, _)) = state.replay.checkpoint() {
        match checkpoint(&table, version).await {
            Ok((files, findings)) => {
                counted = Some((version, files));
                audit.findings.extend(findings);
            }
            Err(error) => {
                let todo = "delete the checkpoint if the log entries before it are all there, else restore it from a backup";
                audit
                    .findings
                    .push(Finding::of(Code::CheckpointUnreadable, error, "", todo)?);
            }
        }
    }
    audit.findings.extend(log.pointer(store, counted).await?);
    if row_tracking::is_supported(&state.protocol, &state.metadata) {
        row_ids(store, state, &mut audit).await?;
    }
    audit.sequence = Some(snapshot.version);
    audit.snapshot = Some(snapshot);
    Ok(audit)
}

/// Writes the pointer to the newest checkpoint anew. Where that has several files, or where there is none, the pointer goes:
/// readers then list the log.
///
/// # Errors
/// When the checkpoint cannot be read; those of the store.
pub(super) async fn repoint(store: &Store) -> Result<()> {
    let log = Log::of(&store.list(log::FOLDER).await?);
    let newest = log.newest_checkpoint(u64::MAX);
    let whole = newest.and_then(|version| Some((version, log.checkpoints.get(&version)?)));
    let Some((version, bytes)) = whole.and_then(|(version, found)| match found.whole.as_slice() {
        [bytes] => Some((version, *bytes)),
        _ => None,
    }) else {
        return store.delete(&[log::LAST_CHECKPOINT.to_owned()]).await;
    };
    let key = log::checkpoint_key(version);
    if store.head(&key).await?.is_none() {
        // One file, and of version 2.
        return store.delete(&[log::LAST_CHECKPOINT.to_owned()]).await;
    }
    let (files, _) = checkpoint(&Delta::new(store.clone()), version).await?;
    let pointer = json!({
        "version": version,
        "size": footer::rows(store, &key, bytes).await?,
        "sizeInBytes": bytes,
        "numOfAddFiles": files,
    });
    store.put(log::LAST_CHECKPOINT, pointer.to_string().into()).await
}

/// What the names in the log folder say.
#[derive(Debug, Default)]
struct Log {
    commits: BTreeSet<u64>,
    checkpoints: BTreeMap<u64, Checkpoint>,
}

/// The files of the checkpoints of one version.
#[derive(Debug, Default)]
struct Checkpoint {
    /// Bytes of those that are one file.
    whole: Vec<u64>,
    /// Which parts there are, by how many there should be.
    parts: BTreeMap<u64, BTreeSet<u64>>,
}

impl Checkpoint {
    fn is_complete(&self) -> bool {
        !self.whole.is_empty() || self.parts.iter().any(|(all, there)| there.len() as u64 == *all)
    }
}

impl Log {
    fn of(files: &[Listed]) -> Self {
        let mut log = Self::default();
        for file in files {
            if let Some(version) = log::commit_version(&file.path) {
                log.commits.insert(version);
            } else if let Some(version) =
                log::file_version(&file.path).filter(|_| log::is_checkpoint(&file.path))
            {
                let found = log.checkpoints.entry(version).or_default();
                match part_of(&file.path) {
                    Some((part, parts)) => {
                        found.parts.entry(parts).or_default().insert(part);
                    }
                    None => found.whole.push(file.bytes),
                }
            }
        }
        log
    }

    /// The newest version, by whatever file.
    fn newest(&self) -> Option<u64> {
        self.commits.last().max(self.checkpoints.keys().last()).copied()
    }

    fn newest_checkpoint(&self, upto: u64) -> Option<u64> {
        let complete = self
            .checkpoints
            .range(..=upto)
            .filter(|(_, found)| found.is_complete());
        complete.map(|(version, _)| *version).next_back()
    }

    /// Checkpoints that lack some of their parts.
    fn incomplete(&self) -> Vec<Finding> {
        let lacking = self.checkpoints.iter().filter(|(_, found)| !found.is_complete());
        let findings = lacking.filter_map(|(version, found)| {
            let (all, there) = found.parts.last_key_value()?;
            let first = (1..=*all).find(|part| !there.contains(part))?;
            Some(Finding::new(
                Code::CheckpointIncomplete,
                format!(
                    "{}{version:020}.checkpoint.{first:010}.{all:010}.parquet",
                    log::FOLDER
                ),
                format!(
                    "the checkpoint of version {version} has {} of its {all} parts",
                    there.len()
                ),
                "readers pass over it; the next checkpoint replaces it",
            ))
        });
        findings.collect()
    }

    /// What `_last_checkpoint` says that is not so. `counted`: the version of a checkpoint, and its files.
    async fn pointer(&self, store: &Store, counted: Option<(u64, u64)>) -> Result<Vec<Finding>> {
        let finding =
            |code, what: String, todo: &str| vec![Finding::new(code, log::LAST_CHECKPOINT, what, todo)];
        let newest = self.newest_checkpoint(u64::MAX);
        let broken = |what: &str| {
            finding(
                Code::CheckpointPointer,
                what.to_owned(),
                "delete the file: readers find the checkpoint by listing, and the next one writes it anew",
            )
        };
        let text = match store.get_within(log::LAST_CHECKPOINT, HINT_BYTES).await {
            Err(Error::Limit { .. }) => return Ok(broken("it is larger than any pointer")),
            text => text?,
        };
        let Some(text) = text else {
            return Ok(newest.map_or_else(Vec::new, |newest| {
                finding(
                    Code::CheckpointPointerStale,
                    format!("there is a checkpoint of version {newest}, and no pointer to it"),
                    "the next checkpoint writes it; until then readers list the whole log",
                )
            }));
        };
        let pointer: Value = serde_json::from_slice(&text).unwrap_or_default();
        let Some(version) = pointer["version"].as_u64() else {
            return Ok(broken("it names no version"));
        };
        let Some(checkpoint) = self.checkpoints.get(&version).filter(|found| found.is_complete()) else {
            return Ok(broken(&format!(
                "it names the checkpoint of version {version}, which is not there"
            )));
        };
        let mut lies = Vec::new();
        if let (Some(said), [bytes]) = (pointer["sizeInBytes"].as_u64(), checkpoint.whole.as_slice())
            && pointer["parts"].is_null()
            && said != *bytes
        {
            // Of version 2, the size is that of the sidecars too.
            if pointer["v2Checkpoint"].is_null() && !self.has_sidecars(version) {
                lies.push(format!("it has {bytes} bytes, not {said}"));
            }
        }
        if let (Some(said), Some((_, files))) = (
            pointer["numOfAddFiles"].as_u64(),
            counted.filter(|(counted, _)| *counted == version),
        ) && said != files
        {
            lies.push(format!("it has {files} files, not {said}"));
        }
        if !lies.is_empty() {
            return Ok(finding(
                Code::CheckpointPointerFigures,
                format!("of the checkpoint of version {version}: {}", lies.join("; ")),
                "the next checkpoint writes it anew",
            ));
        }
        Ok(match newest.filter(|newest| *newest > version) {
            Some(newest) => finding(
                Code::CheckpointPointerStale,
                format!("it names the checkpoint of version {version}, there is one of version {newest}"),
                "the next checkpoint writes it anew",
            ),
            None => Vec::new(),
        })
    }

    /// Whether the checkpoint may be of version 2, of which the pointer's figures mean something else.
    fn has_sidecars(&self, version: u64) -> bool {
        self.checkpoints
            .get(&version)
            .is_some_and(|found| found.whole.len() > 1)
    }

    /// Why a version cannot be loaded.
    ///
    /// # Errors
    /// The error, where it tells of no damage: there is no such version.
    fn unloadable(&self, at: &At, error: Error) -> Result<Vec<Finding>> {
        let Some(newest) = self.newest() else {
            return Err(error);
        };
        let target = match at {
            At::Version(version @ 0..) => version.cast_unsigned(),
            At::Ref(_) => return Err(error),
            _ => newest,
        };
        let start = self.newest_checkpoint(target);
        let cleaned = start.is_none() && !self.commits.contains(&0);
        if target > newest || (cleaned && !matches!(at, At::Latest)) {
            return Err(error);
        }
        let first = start.map_or(0, |version| version + 1);
        let gaps = missing(&self.commits, first, target);
        if gaps.is_empty() {
            let (code, todo) = match &error {
                Error::Invalid { place, .. } if log::is_checkpoint(place) => (
                    Code::CheckpointUnreadable,
                    "delete the checkpoint if the log entries before it are all there, else restore it from a backup",
                ),
                Error::Invalid { place, .. } if log::commit_version(place).is_some() => {
                    (Code::LogEntry, FROM_BACKUP)
                }
                _ => (Code::MetadataUnreadable, ""),
            };
            return Ok(vec![Finding::of(code, error, "", todo)?]);
        }
        let finding = |(from, to): (u64, u64)| {
            Finding::new(
                Code::LogGap,
                log::commit_key(from),
                format!("version {target} needs the log entries of {}, which are missing", versions(from, to)),
                match from {
                    0 => "restore them from a backup: without them and without a checkpoint nothing can be read".to_owned(),
                    from => format!("restore them from a backup; versions before {from} can still be read"),
                },
            )
        };
        Ok(gaps.into_iter().map(finding).collect())
    }

    /// Log entries that older versions need, and that are missing between others.
    fn gaps_before(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let Some(first) = self.commits.first() else {
            return Vec::new();
        };
        let gaps = missing(&self.commits, *first, snapshot.state);
        let finding = |(from, to): (u64, u64)| {
            Finding::new(
                Code::LogGapBefore,
                log::commit_key(from),
                format!("the log entries of {} are missing", versions(from, to)),
                "versions from there to the next checkpoint cannot be read; restore the files from a backup if they are needed",
            )
        };
        gaps.into_iter().map(finding).collect()
    }
}

/// Which part of how many a file of a checkpoint is: `VERSION.checkpoint.PART.PARTS.parquet`.
fn part_of(key: &str) -> Option<(u64, u64)> {
    let [_, _, part, parts, _] = key.split('.').collect::<Vec<_>>().try_into().ok()?;
    let number = |text: &str| (text.len() == 10).then(|| text.parse().ok()).flatten();
    Some((number(part)?, number(parts)?))
}

/// The numbers from `first` to `last` that are not there, as runs. Names of files may have any number: what is counted is
/// what is there.
fn missing(there: &BTreeSet<u64>, first: u64, last: u64) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let mut next = first;
    for number in there.iter().copied().skip_while(|number| *number < first) {
        if number > last {
            break;
        }
        if number > next {
            runs.push((next, number - 1));
        }
        next = number + 1;
    }
    if next <= last {
        runs.push((next, last));
    }
    runs
}

fn versions(from: u64, to: u64) -> String {
    match from == to {
        true => format!("version {from}"),
        false => format!("versions {from} to {to}"),
    }
}

/// The log entries since the checkpoint.
async fn entries(store: &Store, state: &State, audit: &mut Audit) -> Result<()> {
    let since = state.replay.checkpoint().map_or(0, |(version, _)| version + 1);
    let timed = protocol::in_commit_timestamps(&state.protocol, &state.metadata);
    let mut before: Option<i64> = None;
    for version in since..=state.replay.version() {
        let key = log::commit_key(version);
        let actions = match log::read(store, version).await {
            Ok(actions) => actions.unwrap_or_default(),
            Err(error) => {
                audit
                    .findings
                    .push(Finding::of(Code::LogEntry, error, &key, FROM_BACKUP)?);
                continue;
            }
        };
        let mut added = HashSet::new();
        for add in actions.iter().filter_map(|action| action.add.as_ref()) {
            if !added.insert(add.key()) {
                audit.findings.push(Finding::new(
                    Code::DuplicateAdd,
                    &key,
                    format!("it adds the file {:?} twice", add.path),
                    "readers may count its rows twice: take one of the two lines out, with no writer at work",
                ));
            }
        }
        if !timed {
            continue;
        }
        let infos = actions.iter().filter_map(|action| action.commit_info.as_ref());
        let time = infos
            .filter_map(|info| info.get("inCommitTimestamp")?.as_i64())
            .next();
        if let (Some(before), Some(time)) = (before, time)
            && time <= before
        {
            audit.findings.push(Finding::new(
                Code::CommitTime,
                &key,
                format!(
                    "its time, {time} ms since 1970, is not later than the {before} of the version before"
                ),
                "asking for a version by time may give another one; ask by number",
            ));
        }
        before = time.or(before);
    }
    Ok(())
}

/// What must be the same of a file in a checkpoint and in the log.
fn fingerprint(add: &AddFile) -> u64 {
    let mut hasher = DefaultHasher::new();
    (
        add.size,
        &add.partition_values,
        add.base_row_id,
        add.default_row_commit_version,
    )
        .hash(&mut hasher);
    // Checkpoints may spell the statistics otherwise.
    stats::parse(add.stats.as_deref(), &[], &|_| false)
        .rows
        .hash(&mut hasher);
    hasher.finish()
}

/// Compares a checkpoint with the log before it, as far as that is there. Returns how many files the checkpoint has.
///
/// # Errors
/// [`Error::Invalid`] when the checkpoint cannot be read.
async fn checkpoint(table: &Delta, version: u64) -> Result<(u64, Vec<Finding>)> {
    let of_checkpoint = table.load(Some(version)).await?;
    let state = State::of(&of_checkpoint)?;
    let key = state
        .replay
        .checkpoint()
        .and_then(|(_, parts)| parts.into_iter().next())
        .unwrap_or_default();
    let mut expected = before(table, version).await?;
    let mut findings = Vec::new();
    let todo = "delete the checkpoint: readers then take the log entries before it, which are all there";
    let mut differs = |what: String| findings.push(Finding::new(Code::CheckpointDiffers, &key, what, todo));
    if let Some(expected) = &expected {
        let described = |what: &str| format!("its {what} is not the one that the log gives");
        if expected
            .protocol
            .as_ref()
            .is_some_and(|protocol| *protocol != state.protocol)
        {
            differs(described("protocol"));
        }
        if expected
            .metadata
            .as_ref()
            .is_some_and(|metadata| *metadata != state.metadata)
        {
            differs(described("metaData"));
        }
    }
    let mut files = 0;
    let mut batches = state.replay.files(&table.store);
    while let Some(batch) = batches.recv().await {
        for add in batch? {
            files += 1;
            let Some(expected) = &mut expected else { continue };
            match expected.files.remove(&add.key()) {
                None => differs(format!(
                    "it has the file {:?}, which the log does not give",
                    add.path
                )),
                Some(known) if known != fingerprint(&add) => {
                    differs(format!(
                        "it says of the file {:?} what the log does not",
                        add.path
                    ));
                }
                Some(_) => {}
            }
        }
    }
    let left = expected.into_iter().flat_map(|expected| expected.files);
    let mut lacking: Vec<String> = left.map(|((path, _), _)| path).collect();
    lacking.sort_unstable();
    for path in lacking {
        differs(format!("it lacks the file {path:?}"));
    }
    Ok((files, findings))
}

/// What a checkpoint should hold.
struct Expected {
    files: HashMap<FileKey, u64>,
    /// Where the last entry before it says it.
    protocol: Option<Protocol>,
    metadata: Option<Metadata>,
}

/// What the log gives for a version without its checkpoint; `None` where it was cleaned up.
async fn before(table: &Delta, version: u64) -> Result<Option<Expected>> {
    let Some(previous) = version.checked_sub(1) else {
        return Ok(None);
    };
    let Some(entry) = log::read(&table.store, version).await.unwrap_or_default() else {
        return Ok(None);
    };
    // Cleaned up, or damaged: the check of the log tells of that.
    let Ok(snapshot) = Delta::new(table.store.clone()).load(Some(previous)).await else {
        return Ok(None);
    };
    let state = State::of(&snapshot)?;
    let mut expected = Expected {
        files: HashMap::new(),
        protocol: Some(state.protocol.clone()),
        metadata: Some(state.metadata.clone()),
    };
    let mut batches = state.replay.files(&table.store);
    while let Some(batch) = batches.recv().await {
        let Ok(batch) = batch else { return Ok(None) };
        expected
            .files
            .extend(batch.iter().map(|add| (add.key(), fingerprint(add))));
    }
    let (removes, rest): (Vec<Action>, Vec<Action>) = entry.into_iter().partition(|row| row.remove.is_some());
    for action in removes.into_iter().chain(rest) {
        if let Some(remove) = action.remove {
            expected.files.remove(&remove.key());
        }
        if let Some(add) = action.add {
            expected.files.insert(add.key(), fingerprint(&add));
        }
        // What is in the entry itself need not be spelled alike.
        if action.protocol.is_some() {
            expected.protocol = None;
        }
        if action.meta_data.is_some() {
            expected.metadata = None;
        }
    }
    Ok(Some(expected))
}

/// The highest row id that the table says it gave out.
async fn row_ids(store: &Store, state: &State, audit: &mut Audit) -> Result<()> {
    let domains = state.replay.domains(store, &[row_tracking::DOMAIN]).await?;
    let mark = row_tracking::high_water_mark(domains.get(row_tracking::DOMAIN).map(String::as_str));
    match mark {
        Ok(mark) => {
            audit.next_row_id = mark.checked_add(1);
            audit.row_ids_required = row_tracking::is_enabled(&state.protocol, &state.metadata);
        }
        Err(error) => audit.findings.push(Finding::of(
            Code::MetadataUnreadable,
            error,
            "",
            "restore the table's log from a backup",
        )?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Log {
        let file = |name: &&str| Listed {
            path: format!("{}{name}", log::FOLDER),
            bytes: 1,
            modified_ms: 0,
        };
        Log::of(&names.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn a_checkpoint_of_several_parts_counts_when_all_are_there() {
        let part = |part: u64| format!("{:020}.checkpoint.{part:010}.{:010}.parquet", 4, 2);
        let one = part(1);
        let log = listed(&[&one]);
        assert_eq!((log.newest(), log.newest_checkpoint(9)), (Some(4), None));
        let findings = log.incomplete();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].path.ends_with(&part(2)), "{findings:?}");
        let both = part(2);
        let log = listed(&[&one, &both]);
        assert_eq!(log.newest_checkpoint(9), Some(4));
        assert!(log.incomplete().is_empty());
    }

    #[test]
    fn missing_numbers_are_told_as_runs_however_many_they_are() {
        let there = BTreeSet::from([0, 4, 5, 6, 8, 1 << 40]);
        let most = (1 << 40) - 1;
        assert_eq!(missing(&there, 0, 1 << 40), [(1, 3), (7, 7), (9, most)]);
        assert_eq!(missing(&there, 5, 6), []);
        assert_eq!(missing(&there, 5, 10), [(7, 7), (9, 10)]);
        assert_eq!(missing(&there, 9, 8), []);
    }
}
