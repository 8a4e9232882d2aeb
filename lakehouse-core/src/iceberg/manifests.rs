//! Manifest lists and manifests: read with everything inherited, written in memory.
//!
//! Iceberg spec, "Manifests", "Manifest Lists", "Sequence Number Inheritance", "First Row ID Inheritance".

use std::collections::HashSet;
use std::sync::Arc;

use super::entries::{self, Listed};
use super::flow::Flow;
use super::metadata::{State, broken};
use super::types::leaves;
use super::view::{View, is_avro_name};
use crate::error::{Error, Result};
use crate::model::limits::{AVRO_VALUES, Limits};
use crate::store::Store;
use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile as IcebergFile, FormatVersion, ManifestContentType, ManifestFile, ManifestMetadata,
    ManifestStatus, ManifestWriterBuilder, PartitionSpec, PrimitiveType, SchemaRef, SnapshotRef,
};

/// One entry of a manifest, nothing left to inherit.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) status: ManifestStatus,
    pub(super) snapshot_id: i64,
    pub(super) sequence: i64,
    pub(super) file_sequence: i64,
    pub(super) first_row_id: Option<i64>,
    pub(super) file: IcebergFile,
}

impl Entry {
    /// Whether the file is part of the snapshot, not merely remembered as deleted.
    pub(super) fn is_live(&self) -> bool {
        self.status != ManifestStatus::Deleted
    }
}

/// A manifest, read.
#[derive(Debug)]
pub(super) struct Manifest {
    /// What the manifest list says about it.
    pub(super) list: ManifestFile,
    pub(super) schema: SchemaRef,
    pub(super) spec: PartitionSpec,
    /// Types of the partition values.
    pub(super) types: Vec<PrimitiveType>,
    pub(super) entries: Vec<Entry>,
}

/// The manifests of a version, in the order of its list. None before the first snapshot.
///
/// # Errors
/// [`Error::Invalid`] naming the manifest list when it is missing or broken.
pub(super) async fn read_list(store: &Store, view: &View) -> Result<Vec<ManifestFile>> {
    match &view.snapshot {
        Some(snapshot) => read_list_of(store, &view.state, snapshot).await,
        None => Ok(Vec::new()),
    }
}

/// The same, for any snapshot of the metadata.
///
/// # Errors
/// As [`read_list`].
pub(super) async fn read_list_of(
    store: &Store,
    state: &State,
    snapshot: &SnapshotRef,
) -> Result<Vec<ManifestFile>> {
    if snapshot.encryption_key_id().is_some() {
        return Err(encrypted(snapshot.manifest_list()));
    }
    let key = state.paths.relative(snapshot.manifest_list())?;
    let bytes = fetch(store, &key).await?;
    let (place, limits) = (key.clone(), *store.limits());
    decode(&key, move || entries::manifest_list(&bytes, &limits, &place)).await
}

/// Reads one manifest.
///
/// # Errors
/// [`Error::Invalid`] naming the manifest when it is missing or broken.
pub(super) async fn read_manifest(store: &Store, state: &State, list: ManifestFile) -> Result<Manifest> {
    with_manifest(store, state, &Flow::new(), list, |place, list, bytes, limits| {
        let (metadata, listed) = entries::manifest(bytes, limits, place)?;
        let mut next_row_id = first_row_id(&list);
        let entries = listed.into_iter().map(|listed| {
            let row_id = row_id(
                &mut next_row_id,
                listed.file.first_row_id(),
                listed.status != ManifestStatus::Deleted,
                listed.file.record_count(),
            );
            Entry::inherited(listed, &list, row_id)
        });
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let types = entries::partition_types(&metadata, place)?;
        Ok(Manifest::new(list, &metadata, types, entries))
    })
    .await
}

/// Fetches one manifest, once there is room for it, and works on its bytes on a thread for that. The work is told the manifest's name for
/// messages, its line in the list, its bytes, and the limits.
///
/// # Errors
/// [`Error::Invalid`] naming the manifest when it is missing, and those of the work.
pub(super) async fn with_manifest<T: Send + 'static>(
    store: &Store,
    state: &State,
    flow: &Flow,
    list: ManifestFile,
    work: impl FnOnce(&str, ManifestFile, &[u8], &Limits) -> Result<T> + Send + 'static,
) -> Result<T> {
    if list.key_metadata.is_some() {
        return Err(encrypted(&list.manifest_path));
    }
    let key = state.paths.relative(&list.manifest_path)?;
    let _room = flow.room(list.manifest_length).await;
    let fetched = store.fetch_within(&key, store.limits().avro_bytes).await?;
    let fetched = fetched.ok_or_else(|| missing(&key))?;
    let (place, limits) = (key.clone(), *store.limits());
    let work = move || work(&place, list, &fetched.bytes()?, &limits);
    let decoded = flow.decode(work).await;
    decoded.unwrap_or_else(|| Err(gave_up(&key)))
}

/// The row id that the first entry without one inherits.
pub(super) fn first_row_id(list: &ManifestFile) -> Option<i64> {
    match list.content {
        ManifestContentType::Data => list.first_row_id.and_then(|id| i64::try_from(id).ok()),
        ManifestContentType::Deletes => None,
    }
}

/// The first row id of an entry, which it has or inherits.
pub(super) fn row_id(next: &mut Option<i64>, own: Option<i64>, live: bool, rows: u64) -> Option<i64> {
    if own.is_some() || !live {
        return own;
    }
    let inherited = *next;
    let rows = i64::try_from(rows).ok();
    *next = next.zip(rows).and_then(|(id, rows)| id.checked_add(rows));
    inherited
}

impl Entry {
    /// The entry with what it inherits from its manifest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an encrypted file.
    pub(super) fn inherited(listed: Listed, list: &ManifestFile, first_row_id: Option<i64>) -> Result<Self> {
        if listed.file.key_metadata().is_some_and(|key| !key.is_empty()) {
            return Err(encrypted(listed.file.file_path()));
        }
        Ok(Self {
            status: listed.status,
            snapshot_id: listed.snapshot_id.unwrap_or(list.added_snapshot_id),
            sequence: listed.sequence.unwrap_or(list.sequence_number),
            file_sequence: listed.file_sequence.unwrap_or(list.sequence_number),
            first_row_id,
            file: listed.file,
        })
    }
}

impl Manifest {
    /// A manifest of these entries.
    pub(super) fn new(
        list: ManifestFile,
        metadata: &ManifestMetadata,
        types: Vec<PrimitiveType>,
        entries: Vec<Entry>,
    ) -> Self {
        Self {
            schema: Arc::clone(metadata.schema()),
            spec: metadata
                .partition_spec()
                .clone()
                .with_spec_id(list.partition_spec_id),
            list,
            types,
            entries,
        }
    }
}

/// What goes into a new manifest.
#[derive(Debug)]
pub(super) enum NewEntry {
    /// A file that this commit adds.
    Added(IcebergFile),
    /// A file that stays; its `first_row_id` is spelled out.
    Existing(Entry),
    /// A file that this commit removes.
    Deleted(Entry),
}

/// Entries that one new manifest has at most: few enough that the limits of readers, ours among them, are far away
/// however many columns have statistics (six maps, three values each).
pub(super) fn most_entries(schema: &iceberg::spec::Schema) -> usize {
    const MOST: u64 = 10_000;
    let columns = leaves(schema).map_or(1, |leaves| leaves.len() as u64);
    let fit = AVRO_VALUES / 4 / (18 * columns + 40);
    fit.clamp(1, MOST) as usize
}

/// How and where a manifest is written.
#[derive(Debug, Clone)]
pub(super) struct NewManifest {
    pub(super) version: FormatVersion,
    pub(super) content: ManifestContentType,
    pub(super) schema: SchemaRef,
    pub(super) spec: PartitionSpec,
    pub(super) snapshot_id: i64,
    /// The path as it is recorded.
    pub(super) recorded: String,
}

/// Encodes a manifest; returns its line for the manifest list and its bytes.
///
/// # Errors
/// When an entry does not fit the spec.
pub(super) async fn encode_manifest(
    new: NewManifest,
    entries: Vec<NewEntry>,
) -> Result<(ManifestFile, Bytes)> {
    let failed = |e: iceberg::Error| {
        Error::invalid(
            format!("cannot write a manifest: {}", e.message()),
            new.recorded.clone(),
        )
    };
    // The crate writes through its own file abstraction: memory, then our store.
    let io = FileIO::new_with_memory();
    let output = io.new_output(&new.recorded).map_err(failed)?;
    let builder = ManifestWriterBuilder::new(
        output,
        Some(new.snapshot_id),
        Arc::clone(&new.schema),
        spelled(&new.spec, &new.recorded)?,
    );
    let mut writer = match (new.version, new.content) {
        (FormatVersion::V1, _) => builder.build_v1(),
        (FormatVersion::V2, ManifestContentType::Data) => builder.build_v2_data(),
        (FormatVersion::V2, ManifestContentType::Deletes) => builder.build_v2_deletes(),
        (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
        (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
    };
    for entry in entries {
        match entry {
            // A negative number: inherited from the list.
            NewEntry::Added(file) => writer.add_file(file, -1),
            NewEntry::Existing(entry) => writer.add_existing_file(
                entry.file,
                entry.snapshot_id,
                entry.sequence,
                Some(entry.file_sequence),
            ),
            NewEntry::Deleted(entry) => {
                writer.add_delete_file(entry.file, entry.sequence, Some(entry.file_sequence))
            }
        }
        .map_err(failed)?;
    }
    let file = writer.write_manifest_file().await.map_err(failed)?;
    let input = io.new_input(&new.recorded).map_err(failed)?;
    let bytes = input.read().await.map_err(failed)?;
    Ok((file, bytes))
}

/// The spec with names that Avro takes: letters, digits and underscores. Others are escaped, as Iceberg's own library
/// does it (`_x20` for a blank); readers find values by the ids of their fields.
fn spelled(spec: &PartitionSpec, manifest: &str) -> Result<PartitionSpec> {
    if spec.fields().iter().all(|field| is_avro_name(&field.name)) {
        return Ok(spec.clone());
    }
    let failed =
        |error: serde_json::Error| Error::invalid(format!("cannot write a manifest: {error}"), manifest);
    let mut value = serde_json::to_value(spec).map_err(failed)?;
    let mut taken = HashSet::new();
    for field in value["fields"].as_array_mut().into_iter().flatten() {
        let mut name = avro_name(field["name"].as_str().unwrap_or_default());
        if !taken.insert(name.clone()) {
            name = format!("{name}_{}", field["field-id"]);
            taken.insert(name.clone());
        }
        field["name"] = name.into();
    }
    serde_json::from_value(value).map_err(failed)
}

fn avro_name(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len());
    for (at, c) in name.chars().enumerate() {
        match c {
            '0'..='9' if at == 0 => spelled.extend(['_', c]),
            c if c.is_ascii_alphanumeric() || c == '_' => spelled.push(c),
            c => spelled.push_str(&format!("_x{:X}", u32::from(c))),
        }
    }
    spelled
}

async fn fetch(store: &Store, key: &str) -> Result<Bytes> {
    store
        .get_within(key, store.limits().avro_bytes)
        .await?
        .ok_or_else(|| missing(key))
}

fn missing(key: &str) -> Error {
    broken(key, "the file is missing".into())
}

/// Decodes off the async threads; a decoder that panics on hostile bytes is an error like any other. On threads of the
/// runtime, which a forked process makes anew; a pool of its own would be dead there.
async fn decode<T, F>(key: &str, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(decoded) => decoded,
        Err(_) => Err(gave_up(key)),
    }
}

fn gave_up(key: &str) -> Error {
    broken(key, "the Avro decoder gave up on it".into())
}

fn encrypted(file: &str) -> Error {
    Error::unsupported(
        format!("{file} is encrypted"),
        "read the table with an engine that has its keys",
    )
}
