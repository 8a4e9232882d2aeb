//! Checkpoints of version 1, one Parquet file (Delta protocol, "V1 Spec", "Checkpoint Schema").
//!
//! The kernel will not checkpoint tables with generated columns, so we do. The live files come from
//! its replay as a stream; what it does not give (tombstones, applications, domains) is reconciled
//! here from the last checkpoint and the log entries since. A checkpoint is advice: readers take it
//! as soon as they see it, so it is verified *before* it gets its name, and failing to write one
//! never fails a commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::{ReaderBuilder, WriterBuilder};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::actions::{Action, DomainMetadata, FileKey, RemoveFile, Txn};
use super::state::State;
use super::{actions, log, protocol};
use crate::error::{Error, Result};
use crate::model::limits::HINT_BYTES;
use crate::model::{Snapshot, check_whole_parquet_footer};
use crate::planted::{self, Bug};
use crate::store::{Created, Store, clock};

/// Commits between two checkpoints where the table does not say (`delta.checkpointInterval`).
const INTERVAL: i64 = 10;
/// How long tombstones are kept where the table does not say (`delta.deletedFileRetentionDuration`).
pub(super) const RETENTION_MS: i64 = 7 * 24 * 3_600_000;

/// Writes a checkpoint of this version if it is time for one.
pub(super) async fn maybe_write(store: &Store, snapshot: &Snapshot) -> Result<()> {
    let state = State::of(snapshot)?;
    let interval = state
        .number("delta.checkpointInterval")
        .unwrap_or(INTERVAL)
        .max(1);
    // Tables with the newer kind of checkpoint may forbid this one.
    let newer_kind = state.protocol.has(protocol::V2_CHECKPOINT);
    if snapshot.version == 0 || snapshot.version % interval != 0 || newer_kind {
        return Ok(());
    }
    write(store, snapshot).await
}

/// Writes a checkpoint of this version, unless there is one.
pub(super) async fn write(store: &Store, snapshot: &Snapshot) -> Result<()> {
    let state = State::of(snapshot)?;
    let small = Reconciled::load(store, state).await?;
    let mut writer = ArrowWriter::try_new(
        Vec::new(),
        schema(),
        Some(
            WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .build(),
        ),
    )?;
    let mut expected = Contents::default();
    let mut batches = state.replay.files(store);
    let retention = retention_ms(state);
    for rows in small.into_actions(state, clock::now_ms(), retention).chunks(1024) {
        expected.count(rows);
        writer.write(&encode(rows)?)?;
    }
    while let Some(batch) = batches.recv().await {
        let rows: Vec<Action> = batch?
            .into_iter()
            .map(|add| Action {
                add: Some(add),
                ..Action::default()
            })
            .collect();
        expected.count(&rows);
        writer.write(&encode(&rows)?)?;
        if planted::is(Bug::CheckpointOfAPart) {
            break;
        }
    }
    let bytes = Bytes::from(writer.into_inner()?);
    let mut found = Contents::default();
    read(&bytes, None, "the checkpoint just written", |rows| {
        found.count(&rows);
        Ok(())
    })?;
    if found != expected {
        return Err(Error::invalid(
            "the checkpoint does not read back as it was written",
            log::checkpoint_key(snapshot.state),
        ));
    }
    let key = log::checkpoint_key(snapshot.state);
    if planted::is(Bug::PointerBeforeCheckpoint) {
        point_to(store, snapshot.state, &expected, bytes.len()).await?;
    }
    match store.create(&key, bytes.clone()).await? {
        Created::Yes => point_to(store, snapshot.state, &expected, bytes.len()).await,
        // Somebody was faster, and points to theirs.
        Created::Exists => Ok(()),
        Created::Unknown(error) => Err(error),
    }
}

/// Sets `_last_checkpoint`, unless it names a later one.
async fn point_to(store: &Store, version: u64, contents: &Contents, bytes: usize) -> Result<()> {
    let there = match store.get_within(log::LAST_CHECKPOINT, HINT_BYTES).await {
        Err(Error::Limit { .. }) => None,
        there => there?,
    };
    if let Some(there) = there {
        let there: serde_json::Value = serde_json::from_slice(&there).unwrap_or_default();
        if there["version"].as_u64().is_some_and(|there| there >= version) {
            return Ok(());
        }
    }
    let pointer = json!({
        "version": version,
        "size": contents.actions,
        "sizeInBytes": bytes,
        "numOfAddFiles": contents.files,
    });
    store.put(log::LAST_CHECKPOINT, pointer.to_string().into()).await
}

/// The actions of a version that are not live files, after reconciliation (Delta protocol, "Action
/// Reconciliation").
#[derive(Debug, Default)]
struct Reconciled {
    tombstones: HashMap<FileKey, RemoveFile>,
    applications: BTreeMap<String, Txn>,
    domains: BTreeMap<String, DomainMetadata>,
}

impl Reconciled {
    /// Reads the last checkpoint and the log entries since.
    async fn load(store: &Store, state: &State) -> Result<Self> {
        let mut small = Self::default();
        let start = match state.replay.checkpoint() {
            None => 0,
            Some((version, _)) if planted::is(Bug::CheckpointWithoutTheLast) => version + 1,
            Some((version, parts)) => {
                for part in parts {
                    let wanted = Some(["remove", "txn", "domainMetadata"].as_slice());
                    let bytes = store.get(&part).await?;
                    check_whole_parquet_footer(&bytes, store.limits().parquet_footer_bytes, &part)?;
                    read(&bytes, wanted, &part, |rows| {
                        rows.into_iter().for_each(|row| small.apply(row));
                        Ok(())
                    })?;
                }
                version + 1
            }
        };
        for version in start..=state.replay.version() {
            let entry = log::read(store, version)
                .await?
                .ok_or_else(|| Error::invalid("the log entry is missing", log::commit_key(version)))?;
            // Within one commit a file's removal and its new mask may come in any order.
            let (removes, rest): (Vec<_>, Vec<_>) = entry.into_iter().partition(|row| row.remove.is_some());
            removes.into_iter().chain(rest).for_each(|row| small.apply(row));
        }
        Ok(small)
    }

    fn apply(&mut self, action: Action) {
        if let Some(remove) = action.remove {
            self.tombstones.insert(remove.key(), remove);
        }
        if let Some(add) = action.add {
            self.tombstones.remove(&add.key());
        }
        if let Some(txn) = action.txn {
            self.applications.insert(txn.app_id.clone(), txn);
        }
        if let Some(domain) = action.domain_metadata {
            self.domains.insert(domain.domain.clone(), domain);
        }
    }

    fn into_actions(self, state: &State, now: i64, retention: i64) -> Vec<Action> {
        let oldest_tombstone = now.saturating_sub(retention);
        // Without the property, and without a time, applications are remembered for ever.
        let oldest_application = interval(state, "delta.setTransactionRetentionDuration")
            .map_or(i64::MIN, |kept| now.saturating_sub(kept));
        let protocol = Action {
            protocol: Some(state.protocol.clone()),
            ..Action::default()
        };
        let meta_data = Action {
            meta_data: Some(state.metadata.clone()),
            ..Action::default()
        };
        let applications = self
            .applications
            .into_values()
            .filter(|txn| txn.last_updated.is_none_or(|time| time >= oldest_application))
            .map(|txn| Action {
                txn: Some(txn),
                ..Action::default()
            });
        let domains = self
            .domains
            .into_values()
            .filter(|domain| !domain.removed)
            .map(|domain| Action {
                domain_metadata: Some(domain),
                ..Action::default()
            });
        let tombstones = self
            .tombstones
            .into_values()
            .filter(|remove| remove.deletion_timestamp.unwrap_or(0) >= oldest_tombstone)
            .map(|remove| Action {
                remove: Some(remove),
                ..Action::default()
            });
        [protocol, meta_data]
            .into_iter()
            .chain(applications)
            .chain(domains)
            .chain(tombstones)
            .collect()
    }
}

/// How long tombstones are kept: `interval 7 days` and the like.
fn retention_ms(state: &State) -> i64 {
    interval(state, "delta.deletedFileRetentionDuration").unwrap_or(RETENTION_MS)
}

fn interval(state: &State, property: &str) -> Option<i64> {
    interval_ms(state.metadata.configuration.get(property)?)
}

pub(super) fn interval_ms(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let mut words = text.strip_prefix("interval").unwrap_or(&text).split_whitespace();
    let mut total = 0i64;
    while let Some(count) = words.next() {
        let unit = match words.next()?.trim_end_matches('s') {
            "week" => 7 * 24 * 3_600_000,
            "day" => 24 * 3_600_000,
            "hour" => 3_600_000,
            "minute" => 60_000,
            "second" => 1000,
            "millisecond" => 1,
            _ => return None,
        };
        total = total.checked_add(count.parse::<i64>().ok()?.checked_mul(unit)?)?;
    }
    Some(total)
}

/// What a checkpoint holds, to compare what was meant with what is there: counts, and a sum over the
/// files that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    actions: u64,
    files: u64,
    tombstones: u64,
    sum: u64,
}

impl Contents {
    fn count(&mut self, rows: &[Action]) {
        for row in rows {
            self.actions += 1;
            let (key, stats) = match (&row.add, &row.remove) {
                (Some(add), _) => {
                    self.files += 1;
                    (add.key(), &add.stats)
                }
                (_, Some(remove)) => {
                    self.tombstones += 1;
                    (remove.key(), &remove.stats)
                }
                _ => continue,
            };
            let text = format!("{key:?}{stats:?}");
            self.sum = self.sum.wrapping_add(u64::from(crc32fast::hash(text.as_bytes())));
        }
    }
}

fn encode(rows: &[Action]) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(schema())
        .with_batch_size(rows.len())
        .build_decoder()?;
    decoder.serialize(rows)?;
    let batch = decoder.flush()?;
    batch.ok_or_else(|| Error::invalid("an empty part of a checkpoint", ""))
}

/// Reads a checkpoint (part); of its columns only those `wanted`, if not `None`. Rows without any of
/// them are left out.
fn read(
    bytes: &Bytes,
    wanted: Option<&[&str]>,
    place: &str,
    mut visit: impl FnMut(Vec<Action>) -> Result<()>,
) -> Result<()> {
    let broken = |error: parquet::errors::ParquetError| {
        Error::invalid(format!("the checkpoint cannot be read: {error}"), place)
    };
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(broken)?;
    if let Some(wanted) = wanted {
        let roots = builder.schema().fields().iter().enumerate();
        let roots: Vec<usize> = roots
            .filter(|(_, field)| wanted.contains(&field.name().as_str()))
            .map(|(index, _)| index)
            .collect();
        if roots.is_empty() {
            return Ok(());
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        builder = builder.with_projection(mask);
    }
    for batch in builder.build().map_err(broken)? {
        let batch = batch?;
        let filled: Vec<bool> = (0..batch.num_rows())
            .map(|row| batch.columns().iter().any(|column| column.is_valid(row)))
            .collect();
        if filled.contains(&true) {
            let batch = arrow::compute::filter_record_batch(&batch, &filled.into())?;
            visit(decode(&batch, place)?)?;
        }
    }
    Ok(())
}

fn decode(batch: &RecordBatch, place: &str) -> Result<Vec<Action>> {
    let mut text = Vec::new();
    // Nulls are written, so that a partition value that is NULL stays one; `null` structs are none.
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::LineDelimited>(&mut text);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    actions::parse(&text, place)
}

/// The columns of a checkpoint.
fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let group = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(fields.into()), true);
    let texts = |name: &str| {
        let pair = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Utf8, true),
        ]);
        let entries = Field::new("key_value", DataType::Struct(pair), false);
        Field::new(name, DataType::Map(Arc::new(entries), false), true)
    };
    let list = |name: &str| {
        let element = Field::new("element", DataType::Utf8, true);
        Field::new(name, DataType::List(Arc::new(element)), true)
    };
    let vector = || {
        group(
            "deletionVector",
            vec![
                text("storageType"),
                text("pathOrInlineDv"),
                int("offset"),
                int("sizeInBytes"),
                long("cardinality"),
            ],
        )
    };
    Arc::new(Schema::new(vec![
        group("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        group(
            "add",
            vec![
                text("path"),
                texts("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                texts("tags"),
                vector(),
                long("baseRowId"),
                long("defaultRowCommitVersion"),
                text("clusteringProvider"),
            ],
        ),
        group(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                texts("partitionValues"),
                long("size"),
                text("stats"),
                texts("tags"),
                vector(),
                long("baseRowId"),
                long("defaultRowCommitVersion"),
            ],
        ),
        group(
            "metaData",
            vec![
                text("id"),
                text("name"),
                text("description"),
                group("format", vec![text("provider"), texts("options")]),
                text("schemaString"),
                list("partitionColumns"),
                texts("configuration"),
                long("createdTime"),
            ],
        ),
        group(
            "protocol",
            vec![
                int("minReaderVersion"),
                int("minWriterVersion"),
                list("readerFeatures"),
                list("writerFeatures"),
            ],
        ),
        group(
            "domainMetadata",
            vec![text("domain"), text("configuration"), flag("removed")],
        ),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_spark_writes_them() {
        assert_eq!(interval_ms("interval 7 days"), Some(RETENTION_MS));
        assert_eq!(
            interval_ms("INTERVAL 1 week 2 hours"),
            Some(RETENTION_MS + 7_200_000)
        );
        assert_eq!(interval_ms("soon"), None);
    }
}
