//! What commits did: winners of a race, history, finding a commit again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::actions::{Action, AddFile, Metadata, RemoveFile};
use super::files::complete;
use super::log::{self, Entry};
use super::state::{State, visible};
use super::{protocol, publish, schema};
use crate::error::{Error, Result};
use crate::model::{Change, CommitId, CommitInfo, DataFile, MetadataChange, OperationKind, Snapshot};
use crate::store::Store;

/// Log entries read at the same time.
const CONCURRENT_READS: usize = 8;

/// What each commit after `base` up to and including `upto` did, oldest first.
///
/// # Errors
/// [`Error::Conflict`] (R5) when a log entry between them is gone.
pub(super) async fn between(store: &Store, base: &Snapshot, upto: &Snapshot) -> Result<Vec<Change>> {
    if base.state > upto.state {
        return Err(gone(store, base.state, upto.state));
    }
    let mut entries = stream::iter(base.state + 1..=upto.state)
        .map(|version| async move { Ok::<_, Error>((version, log::read(store, version).await?)) })
        .buffered(CONCURRENT_READS);
    let (state, mut known) = (State::of(upto)?, Known::new(State::of(base)?));
    let mut changes = Vec::new();
    while let Some((version, actions)) = entries.try_next().await? {
        let actions = actions.ok_or_else(|| gone(store, base.state, version))?;
        changes.push(known.change(store, state, actions).await?);
    }
    Ok(changes)
}

fn gone(store: &Store, base: u64, version: u64) -> Error {
    Error::Conflict {
        table: store.location().to_owned(),
        detail: format!("R5: version {base} is no longer part of the history (version {version} is missing)"),
    }
}

/// What is known of the table before the next commit.
struct Known<'a> {
    base: &'a State,
    schema: String,
    partition_columns: Vec<String>,
    configuration: BTreeMap<String, String>,
    /// Live files that removals may name without their statistics.
    files: HashMap<String, AddFile>,
    /// Whether `files` has those of the base too.
    listed: bool,
}

impl<'a> Known<'a> {
    fn new(base: &'a State) -> Self {
        let metadata = &base.metadata;
        Self {
            base,
            schema: metadata.schema_string.clone(),
            partition_columns: metadata.partition_columns.clone(),
            configuration: metadata.configuration.clone(),
            files: HashMap::new(),
            listed: false,
        }
    }

    async fn change(&mut self, store: &Store, state: &State, actions: Vec<Action>) -> Result<Change> {
        let mut entry = Entry {
            info: serde_json::Map::new(),
            timestamp_ms: 0,
        };
        let (mut added, mut removed) = (
            BTreeMap::<String, AddFile>::new(),
            BTreeMap::<String, RemoveFile>::new(),
        );
        let mut metadata = MetadataChange::default();
        let mut columns = None;
        let mut token = None;
        for action in actions {
            if let Some(info) = action.commit_info {
                entry.info = info;
            }
            if let Some(add) = action.add {
                added.insert(add.path.clone(), add);
            }
            if let Some(remove) = action.remove {
                removed.insert(remove.path.clone(), remove);
            }
            if let Some(new) = action.meta_data {
                if new.schema_string != self.schema {
                    metadata.schema = true;
                    columns = columns_of(&new);
                }
                metadata.partitioning |= new.partition_columns != self.partition_columns;
                metadata.properties |= new.configuration != self.configuration;
                self.schema = new.schema_string;
                self.partition_columns = new.partition_columns;
                self.configuration = new.configuration;
            }
            metadata.schema |= action.protocol.is_some();
            if let Some(txn) = action.txn {
                token = publish::token(&txn).or(token);
            }
        }
        let mut change = Change {
            token,
            metadata,
            schema: columns,
            data_change: added.values().any(|add| add.data_change)
                || removed.values().any(|remove| remove.data_change),
            metrics: metrics(&entry),
            ..Change::new(
                operation_kind(&entry),
                CommitId(entry.text("txnId").unwrap_or_default().to_owned()),
            )
        };
        for (path, remove) in removed {
            let vector = remove.deletion_vector.clone();
            let before = self.removed_file(store, remove, added.get(&path)).await?;
            let Some(add) = added.remove(&path) else {
                self.files.remove(&path);
                change
                    .removed
                    .push(removed_data_file(store, state, &before).await?);
                continue;
            };
            // The same file with the same mask again: only what is noted about it has changed.
            if add.deletion_vector != vector {
                let after = complete(store, state.data_file(&add, store)?).await?;
                change
                    .masked
                    .push((removed_data_file(store, state, &before).await?, after));
            }
            self.files.insert(path, add);
        }
        for (path, add) in added {
            change
                .added
                .push(complete(store, state.data_file(&add, store)?).await?);
            self.files.insert(path, add);
        }
        Ok(change)
    }

    /// The `add` that a `remove` undoes. Removals need not repeat statistics: then they come from the
    /// same file's new `add`, or from the version that had it.
    async fn removed_file(
        &mut self,
        store: &Store,
        remove: RemoveFile,
        again: Option<&AddFile>,
    ) -> Result<AddFile> {
        let complete = remove.stats.is_some() && remove.partition_values.is_some() && remove.size.is_some();
        let known = match again.or_else(|| self.files.get(&remove.path)) {
            Some(known) => Some(known.clone()),
            None if complete => None,
            None => {
                self.list_base(store).await?;
                self.files.get(&remove.path).cloned()
            }
        };
        let known = known.unwrap_or_default();
        Ok(AddFile {
            path: remove.path,
            partition_values: remove.partition_values.unwrap_or(known.partition_values),
            size: remove.size.unwrap_or(known.size),
            stats: remove.stats.or(known.stats),
            deletion_vector: remove.deletion_vector,
            data_change: remove.data_change,
            base_row_id: remove.base_row_id.or(known.base_row_id),
            default_row_commit_version: remove
                .default_row_commit_version
                .or(known.default_row_commit_version),
            tags: remove.tags.or(known.tags),
            clustering_provider: known.clustering_provider,
            ..AddFile::default()
        })
    }

    async fn list_base(&mut self, store: &Store) -> Result<()> {
        if self.listed {
            return Ok(());
        }
        let mut batches = self.base.replay.files(store);
        while let Some(batch) = batches.recv().await {
            for add in batch? {
                self.files.entry(add.path.clone()).or_insert(add);
            }
        }
        self.listed = true;
        Ok(())
    }
}

/// The columns that a commit leaves the table with, where they are of types that we read.
fn columns_of(metadata: &Metadata) -> Option<SchemaRef> {
    let mapping = protocol::mapping(metadata).ok()?;
    let columns = schema::parse(&metadata.schema_string, mapping).ok()?;
    Some(visible(&columns, &metadata.partition_columns))
}

/// A removed file's rows may be unknown for good: its statistics were never written, and the file
/// itself may be gone.
async fn removed_data_file(store: &Store, state: &State, add: &AddFile) -> Result<DataFile> {
    let found = state.data_file(add, store)?;
    let unread = found.file.clone();
    match complete(store, found).await {
        Err(Error::NotFound { .. } | Error::Invalid { .. }) => Ok(unread),
        other => other,
    }
}

fn operation_kind(entry: &Entry) -> OperationKind {
    let mode = entry
        .info
        .get("operationParameters")
        .and_then(|parameters| parameters.get("mode"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let operation = entry.text("operation").unwrap_or_default();
    match operation {
        "WRITE" if mode.eq_ignore_ascii_case("overwrite") => OperationKind::Overwrite,
        "WRITE" | "STREAMING UPDATE" | "COPY INTO" => OperationKind::Append,
        "DELETE" | "TRUNCATE" => OperationKind::Delete,
        "UPDATE" => OperationKind::Update,
        "MERGE" => OperationKind::Merge,
        "OPTIMIZE" | "REORG" => OperationKind::Compact,
        "RESTORE" => OperationKind::Restore,
        "ALTER TABLE"
        | "ADD COLUMNS"
        | "DROP COLUMNS"
        | "RENAME COLUMN"
        | "CHANGE COLUMN"
        | "SET TBLPROPERTIES"
        | "UNSET TBLPROPERTIES"
        | "UPGRADE PROTOCOL" => OperationKind::Alter,
        _ if operation.starts_with("CREATE") || operation.starts_with("REPLACE") => OperationKind::Create,
        _ => OperationKind::Other,
    }
}

fn metrics(entry: &Entry) -> BTreeMap<String, u64> {
    let metrics = entry.info.get("operationMetrics").and_then(Value::as_object);
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    metrics
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), number(value)?)))
        .collect()
}

/// The version whose commit carries this id, if it came after `base`.
pub(super) async fn find(store: &Store, commit_id: &CommitId, base: u64) -> Result<Option<u64>> {
    let mut version = base;
    loop {
        version += 1;
        match log::entry(store, version).await? {
            None => return Ok(None),
            Some(entry) if entry.text("txnId") == Some(&commit_id.0) => return Ok(Some(version)),
            Some(_) => {}
        }
    }
}

/// The commits up to `newest`, newest first, as far back as the log goes.
pub(super) async fn history(store: &Store, newest: u64, limit: usize) -> Result<Vec<CommitInfo>> {
    let mut entries = stream::iter((0..=newest).rev().take(limit))
        .map(|version| async move { Ok::<_, Error>((version, log::entry(store, version).await?)) })
        .buffered(CONCURRENT_READS);
    let mut commits = Vec::new();
    while let Some((version, entry)) = entries.try_next().await? {
        let Some(entry) = entry else { break };
        let version = version.cast_signed();
        commits.push(CommitInfo {
            version,
            parent: version.checked_sub(1).filter(|parent| *parent >= 0),
            timestamp_ms: entry.timestamp_ms,
            operation: entry.text("operation").unwrap_or("unknown").to_owned(),
            summary: summary(&entry),
        });
    }
    Ok(commits)
}

/// Figures and notes of a commit as texts; those of operation and metrics without their prefix.
fn summary(entry: &Entry) -> BTreeMap<String, String> {
    const KNOWN_ELSEWHERE: [&str; 3] = ["timestamp", "inCommitTimestamp", "operation"];
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut summary = BTreeMap::new();
    let known: BTreeSet<&str> = KNOWN_ELSEWHERE.into();
    for (key, value) in &entry.info {
        match value {
            Value::Null => {}
            _ if known.contains(key.as_str()) => {}
            Value::Object(inner) if key == "operationParameters" || key == "operationMetrics" => {
                summary.extend(inner.iter().map(|(key, value)| (key.clone(), text(value))));
            }
            other => {
                summary.insert(key.clone(), text(other));
            }
        }
    }
    summary
}
