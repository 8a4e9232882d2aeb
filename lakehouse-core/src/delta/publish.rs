//! A change as one log entry.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::actions::{self, Action, AddFile, FileKey, Txn};
use super::files::Stamp;
use super::protocol::{self, is_on};
use super::state::State;
use super::{change_feed, clustering, row_tracking};
use crate::error::{Error, Result};
use crate::model::limits;
use crate::model::schema::keeps_columns;
use crate::model::{Change, OperationKind, Snapshot, Token};
use crate::store::{Store, clock};

/// How commits name this writer.
pub(super) const ENGINE: &str = concat!("lakehouse/", env!("CARGO_PKG_VERSION"));

/// What the application ids of keys without steps begin with.
const KEY: &str = "lakehouse:";
/// What those of streams begin with whose own names begin with either of the two.
const STREAM: &str = "lakehouse-stream:";

/// The application id under which an idempotency key is recorded. Its version is the table version; of a stream, whose
/// key is the id as it is, so that Spark's `txnAppId` and `txnVersion` are the same, it is the step. Only streams that
/// could be taken for a key have an id of their own.
pub(super) fn application(token: &Token) -> String {
    match token.step {
        Some(_) if [KEY, STREAM].iter().any(|own| token.key.starts_with(own)) => {
            format!("{STREAM}{}", token.key)
        }
        Some(_) => token.key.clone(),
        None => format!("{KEY}{}", token.key),
    }
}

/// The key that was recorded so.
pub(super) fn token(txn: &Txn) -> Option<Token> {
    if let Some(key) = txn.app_id.strip_prefix(KEY) {
        return Some(Token::from(key));
    }
    let stream = txn.app_id.strip_prefix(STREAM).unwrap_or(&txn.app_id);
    Some(Token::step(stream, u64::try_from(txn.version).ok()?))
}

/// The bytes of the log entry that makes `change` the successor of `base`.
///
/// # Errors
/// [`Error::Unsupported`] when the table forbids it, [`Error::Invalid`] when the change contradicts itself.
pub(super) async fn entry(
    store: &Store,
    base: &Snapshot,
    change: &Change,
    restored: Option<&Snapshot>,
) -> Result<Vec<u8>> {
    let before = State::of(base)?;
    before.check_writable()?;
    // Rows bring columns along, and take none away.
    if let Some(schema) = change.schema.as_ref().filter(|_| !change.is_without_files())
        && !keeps_columns(base.schema.fields(), schema.fields())
    {
        return Err(Error::Conflict {
            table: store.location().to_owned(),
            detail: "R4: the new columns were planned on another schema".to_owned(),
        });
    }
    if !change.refs.is_empty() {
        return Err(Error::unsupported(
            "Delta tables have no tags or branches",
            "use --format iceberg",
        ));
    }
    let evolved = match (&change.schema, change.redefinition.is_empty()) {
        (None, true) => None,
        (Some(schema), _) => Some(before.evolved(schema, &change.redefinition)?),
        (None, false) => Some(before.evolved(&base.schema, &change.redefinition)?),
    };
    let state = evolved.as_ref().unwrap_or(before);
    // Later than the version before it, whatever the clock says: versions are found by time.
    let now = clock::now_ms().max(base.timestamp_ms.saturating_add(1));
    let tracked = row_tracking::is_supported(&state.protocol, &state.metadata);
    let mut domains = domains(store, before, tracked).await?;
    let clustered = clustering::columns(
        &state.protocol,
        domains.get(clustering::DOMAIN).map(String::as_str),
    )?;
    if evolved.is_some() {
        clustering::check_kept(&clustered, state.columns())?;
    }
    let mut files = match restored {
        Some(old) => restore(store, state, State::of(old)?, now).await?,
        None => {
            let stamp = Stamp {
                now_ms: now,
                data_change: change.data_change,
                clustered: &clustered,
            };
            file_actions(state, change, &stamp)?
        }
    };
    let begins = !row_tracking::is_enabled(&before.protocol, &before.metadata)
        && row_tracking::is_enabled(&state.protocol, &state.metadata);
    if begins {
        if !files.is_empty() {
            return Err(Error::invalid(
                "the change adds or removes files and begins to track rows",
                store.location(),
            ));
        }
        let live: BTreeMap<_, _> = live_files(store, before).await?.into_iter().collect();
        files = row_tracking::untracked(live.into_values());
    }
    let mark = if tracked {
        let domain = domains.remove(row_tracking::DOMAIN);
        row_tracking::assign(store, &mut files, domain.as_deref(), base.version + 1).await?
    } else {
        None
    };
    let removes = files.iter().any(|action| action.remove.is_some());
    if removes && change.data_change && is_on(&state.metadata, "delta.appendOnly") {
        return Err(Error::unsupported(
            "rows of this Delta table cannot be removed or changed: delta.appendOnly is true",
            "append only, or switch the property off",
        ));
    }
    let mut entry = Vec::with_capacity(files.len() + 3);
    if let Some(evolved) = &evolved {
        entry.extend(evolved.new_columns(before));
    }
    if let Some(token) = &change.token {
        entry.push(Action {
            txn: Some(Txn {
                app_id: application(token),
                version: match token.step {
                    Some(step) => i64::try_from(step).unwrap_or(i64::MAX),
                    None => base.version + 1,
                },
                last_updated: Some(now),
            }),
            ..Action::default()
        });
    }
    entry.extend(files);
    entry.extend(change_feed::actions(state, change, now)?);
    entry.extend(mark);
    let mut info = commit_info(base, change, &entry, now);
    if protocol::in_commit_timestamps(&state.protocol, &state.metadata) {
        info.insert("inCommitTimestamp".into(), json!(now));
    }
    if row_tracking::is_enabled(&state.protocol, &state.metadata) {
        // All operations keep the ids of rows that they copy or update.
        info.insert("tags".into(), json!({"delta.rowTracking.preserved": "true"}));
    }
    let entry = render_commit(info, entry)?;
    let limit = store.limits().commit_bytes;
    if begins && limits::at_most(entry.len() as u64, limit, "bytes of a log entry", "_delta_log").is_err() {
        return Err(Error::unsupported(
            format!(
                "row tracking cannot be switched on: the log entry that gives every file its ids would have {} bytes",
                entry.len()
            ),
            "compact the table first, so that it has fewer files, or let Spark switch it on",
        ));
    }
    Ok(entry)
}

/// What the features of the table keep in domains that a log entry depends on.
async fn domains(store: &Store, state: &State, tracked: bool) -> Result<BTreeMap<String, String>> {
    let mut names = Vec::new();
    if tracked {
        names.push(row_tracking::DOMAIN);
    }
    if state.protocol.has(clustering::FEATURE) {
        names.push(clustering::DOMAIN);
    }
    state.replay.domains(store, &names).await
}

/// A log entry's bytes: `commitInfo` comes first, as in-commit timestamps ask.
pub(super) fn render_commit(info: Map<String, Value>, rest: Vec<Action>) -> Result<Vec<u8>> {
    let mut entry = vec![Action {
        commit_info: Some(info),
        ..Action::default()
    }];
    entry.extend(rest);
    actions::render(&entry)
}

fn file_actions(state: &State, change: &Change, stamp: &Stamp<'_>) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    let mut seen: HashMap<&str, &str> = HashMap::new();
    let mut once = |path, role| match seen.insert(path, role) {
        None => Ok(()),
        Some(other) => Err(Error::invalid(
            format!("the change names a file twice, as {other} and as {role}"),
            path,
        )),
    };
    let masked = change.masked.iter().map(|(before, _)| before);
    for (file, role) in change
        .removed
        .iter()
        .map(|file| (file, "removed"))
        .chain(masked.map(|file| (file, "masked")))
    {
        once(&file.path, role)?;
        actions.push(Action {
            remove: Some(state.remove(file, stamp)?),
            ..Action::default()
        });
    }
    for file in &change.added {
        once(&file.path, "added")?;
        actions.push(Action {
            add: Some(state.add_new(file, stamp)?),
            ..Action::default()
        });
    }
    for (before, after) in &change.masked {
        if before.recorded != after.recorded {
            return Err(Error::invalid("a mask was set on another file", &after.path));
        }
        actions.push(Action {
            add: Some(state.add(after, stamp)?),
            ..Action::default()
        });
    }
    Ok(actions)
}

/// The difference between the files of the newest version and those of an older one.
async fn restore(store: &Store, newest: &State, old: &State, now: i64) -> Result<Vec<Action>> {
    let physical = |state: &State| -> Vec<String> {
        state
            .partitions
            .iter()
            .map(|column| column.physical.clone())
            .collect()
    };
    if !newest.has_columns_of(old) || physical(newest) != physical(old) {
        return Err(Error::unsupported(
            format!(
                "version {} has other columns than the newest version, not only fewer, or another partitioning",
                old.replay.version()
            ),
            "read the old version with a query and overwrite the table with the result",
        ));
    }
    let mut gone = live_files(store, newest).await?;
    let mut back = live_files(store, old).await?;
    // What a file was given since stays with it.
    let ids = |add: &AddFile| (add.base_row_id, add.default_row_commit_version);
    let given: HashMap<String, _> = (gone.values())
        .filter(|add| add.base_row_id.is_some())
        .map(|add| (add.path.clone(), ids(add)))
        .collect();
    back.retain(|key, _| gone.remove(key).is_none());
    for add in back.values_mut() {
        if let Some((base, version)) = given.get(&add.path).filter(|_| add.base_row_id.is_none()) {
            (add.base_row_id, add.default_row_commit_version) = (*base, *version);
        }
    }
    let sorted =
        |files: HashMap<FileKey, AddFile>| files.into_iter().collect::<BTreeMap<_, _>>().into_values();
    let removes = sorted(gone).map(|add| Action {
        remove: Some(add.removal(now, true)),
        ..Action::default()
    });
    let adds = sorted(back).map(|add| Action {
        add: Some(AddFile {
            data_change: true,
            ..add
        }),
        ..Action::default()
    });
    Ok(removes.chain(adds).collect())
}

async fn live_files(store: &Store, state: &State) -> Result<HashMap<FileKey, AddFile>> {
    let mut found = HashMap::new();
    let mut batches = state.replay.files(store);
    while let Some(batch) = batches.recv().await {
        found.extend(batch?.into_iter().map(|add| (add.key(), add)));
    }
    Ok(found)
}

fn commit_info(base: &Snapshot, change: &Change, entry: &[Action], now: i64) -> Map<String, Value> {
    let (operation, parameters) = operation(change);
    let blind = change.operation == OperationKind::Append
        && change.read.is_none()
        && entry.iter().all(|action| action.remove.is_none());
    let mut info = Map::new();
    info.insert("timestamp".into(), json!(now));
    info.insert("operation".into(), json!(operation));
    info.insert("operationParameters".into(), parameters);
    info.insert("readVersion".into(), json!(base.version));
    info.insert("isolationLevel".into(), json!("Serializable"));
    info.insert("isBlindAppend".into(), json!(blind));
    info.insert("operationMetrics".into(), metrics(change, entry));
    info.insert("engineInfo".into(), json!(ENGINE));
    info.insert("txnId".into(), json!(change.commit_id.0));
    info
}

/// The operation in Delta's own words, with the parameters that its readers know. Values are texts.
fn operation(change: &Change) -> (&'static str, Value) {
    match change.operation {
        OperationKind::Append
        | OperationKind::Refs
        | OperationKind::RewriteManifests
        | OperationKind::Expire
        | OperationKind::Other => ("WRITE", json!({"mode": "Append"})),
        OperationKind::Overwrite => ("WRITE", json!({"mode": "Overwrite"})),
        OperationKind::Create => ("CREATE TABLE", json!({})),
        OperationKind::Delete => ("DELETE", json!({})),
        OperationKind::Update => ("UPDATE", json!({})),
        OperationKind::Merge => ("MERGE", json!({})),
        OperationKind::Alter => ("ALTER TABLE", json!({})),
        OperationKind::Compact => ("OPTIMIZE", json!({"auto": "false"})),
        OperationKind::Restore => {
            let version = change
                .restore
                .map_or_else(String::new, |version| version.to_string());
            ("RESTORE", json!({"version": version}))
        }
    }
}

/// Delta's figures for a commit, and ours.
fn metrics(change: &Change, entry: &[Action]) -> Value {
    let count = |keep: fn(&Action) -> bool| entry.iter().filter(|action| keep(action)).count() as u64;
    let mut metrics = change.metrics.clone();
    metrics.insert("numAddedFiles".into(), count(|action| action.add.is_some()));
    metrics.insert("numRemovedFiles".into(), count(|action| action.remove.is_some()));
    if !change.change_files.is_empty() {
        metrics.insert("numAddedChangeFiles".into(), change.change_files.len() as u64);
    }
    metrics.insert(
        "numOutputRows".into(),
        (change.added.iter())
            .map(|file| file.rows.saturating_sub(file.masked_rows().unwrap_or_default()))
            .sum(),
    );
    metrics.insert(
        "numOutputBytes".into(),
        change.added.iter().map(|file| file.bytes).sum(),
    );
    let texts = metrics
        .into_iter()
        .map(|(key, value)| (key, json!(value.to_string())));
    Value::Object(texts.collect())
}
