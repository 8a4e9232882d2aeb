//! One attempt to commit: manifests, manifest list, metadata file.
//!
//! Iceberg spec, "Commit Conflict Resolution" for path tables: version N+1 of the metadata is created
//! under a name that must not exist. Everything else is written before, under names of its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile as IcebergFile, FormatVersion, ManifestContentType, ManifestFile, ManifestListWriter,
    PartitionSpec, PrimitiveType, SchemaRef, Snapshot as IcebergSnapshot, Summary,
};

use super::catalog::{Catalog, Replaced};
use super::cleanup;
use super::commits;
use super::convert::added_file;
use super::evolve;
use super::files::{CONCURRENT, split};
use super::load::FOLDER;
use super::manifests::{NewEntry, NewManifest, encode_manifest, most_entries, read_list, read_list_of};
use super::metadata::{State, encode};
use super::refs;
use super::regroup::regroup;
use super::rewrite::{Planned, first_row_id, fold, has_live, plan};
use super::staged::{Staged, staged};
use super::summary::{Tally, restored};
use super::tokens;
use super::types::leaves;
use super::view::{View, open, partition_types, sort_order};
use crate::error::{Error, Result};
use crate::format::Outcome;
use crate::model::{Change, MAIN, OperationKind, Snapshot};
use crate::planted::{self, Bug};
use crate::store::{Store, clock};

/// One attempt to make `change` the successor of `base`.
///
/// # Errors
/// [`Error::Conflict`] when the base is not the newest version of its metadata, or a file that is to be
/// removed is not part of it; [`Error::Unsupported`] when the table is read-only. Nothing is committed then.
pub(super) async fn publish(
    store: &Store,
    catalog: &Catalog,
    base: &Arc<Snapshot>,
    change: &Change,
) -> Result<Outcome> {
    let view = View::of(base)?;
    let metadata = view.metadata();
    view.state.check_writable()?;
    if view.branch.is_none() {
        let detail = format!(
            "version {} is not the newest; load the table again",
            view.version()
        );
        return Err(conflict(&view, detail));
    }
    if catalog.is_taken(store, Some(&view.state)).await? {
        return Ok(Outcome::Lost);
    }
    if !change.refs.is_empty() || !change.expired.is_empty() {
        return refs::publish(store, catalog, &view, change).await;
    }
    let schema = match &change.schema {
        Some(wanted) => evolve::confirmed(&view, wanted, &change.redefinition, !change.is_without_files())?,
        None => Arc::clone(metadata.current_schema()),
    };
    attempt(store, catalog, &view, change, schema).await
}

/// The attempt itself, once it is allowed: over a version, or over the draft of a table that is not made yet.
///
/// # Errors
/// As [`publish`].
pub(super) async fn attempt(
    store: &Store,
    catalog: &Catalog,
    view: &View,
    change: &Change,
    schema: SchemaRef,
) -> Result<Outcome> {
    let base = (!view.state.is_draft()).then_some(view.state.as_ref());
    let branch = view.branch.as_deref().unwrap_or(MAIN);
    let mut attempt = Attempt {
        store,
        schema,
        view,
        branch,
        change,
        snapshot_id: fresh_id(view),
        written: Vec::new(),
        waiting: Vec::new(),
    };
    let prepared = attempt.prepare().await;
    let (written, snapshot_id) = (attempt.written, attempt.snapshot_id);
    let bytes = match prepared {
        Ok(bytes) => bytes,
        Err(error) => {
            discard(store, &written).await;
            return Err(error);
        }
    };
    if clock::is_overdue(change) {
        discard(store, &written).await;
        return Ok(Outcome::Lost);
    }
    let ours = |state: &State| {
        state.metadata.snapshot_by_id(snapshot_id).is_some() || commits::has(state, &change.commit_id)
    };
    let ended = catalog.replace(store, base, bytes, &change.commit_id, ours).await;
    match ended {
        Ok(Replaced::Yes(state)) => {
            tracing::debug!(state.number, "committed");
            cleanup::after_commit(store, catalog, &state).await;
            Ok(Outcome::Committed(open(&Arc::new(*state), &refs::at(branch))?))
        }
        Ok(Replaced::No) => {
            discard(store, &written).await;
            Ok(Outcome::Lost)
        }
        Ok(Replaced::Unknown(error)) => {
            if planted::is(Bug::DiscardedAfterUnknown) {
                discard(store, &written).await;
            }
            Ok(Outcome::Unknown(error))
        }
        Err(error) => {
            discard(store, &written).await;
            Err(error)
        }
    }
}

fn conflict(view: &View, detail: String) -> Error {
    Error::Conflict {
        table: view.state.paths.location().to_owned(),
        detail,
    }
}

fn fresh_id(view: &View) -> i64 {
    loop {
        let id = clock::new_snapshot_id();
        if id > 0 && view.metadata().snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// Deletes what a certainly failed attempt wrote. Nothing refers to it, so a failure only costs space.
async fn discard(store: &Store, written: &[String]) {
    if let Err(error) = store.delete(written).await {
        tracing::warn!(%error, "could not delete the manifests of a lost attempt");
    }
}

/// A manifest to write: its entries, and the first row id that it had before.
type Job = (NewManifest, Vec<NewEntry>, Option<u64>);

struct Attempt<'a> {
    store: &'a Store,
    view: &'a View,
    /// Which the commit moves.
    branch: &'a str,
    change: &'a Change,
    /// The table's columns from this commit on.
    schema: SchemaRef,
    snapshot_id: i64,
    /// Keys of manifests and manifest lists written.
    written: Vec<String>,
    /// Manifests that are written together with their list, with their keys.
    waiting: Vec<(String, Bytes)>,
}

impl Attempt<'_> {
    /// Writes what the change needs beside it; returns the new metadata file.
    async fn prepare(&mut self) -> Result<Vec<u8>> {
        let metadata = self.view.metadata();
        let timestamp = clock::now_ms().max(metadata.last_updated_ms() + 1);
        let alters = self.change.operation == OperationKind::Alter;
        let snapshot = match alters {
            true => None,
            false => Some(self.snapshot(timestamp).await?),
        };
        // Who only alters the table makes no snapshot that would tell of it.
        let made = match &snapshot {
            Some(snapshot) => snapshot.snapshot_id(),
            None => self.view.version(),
        };
        let (mut recorded, expired) =
            tokens::record(metadata, self.branch, self.change.token.as_ref(), made, timestamp);
        if alters {
            recorded.extend([commits::with(metadata, &self.change.commit_id)]);
        }
        let previous = (!self.view.state.is_draft()).then(|| self.view.state.recorded());
        let builder = metadata.clone().into_builder(previous);
        let builder = evolve::apply(builder, metadata, &self.schema, &self.change.redefinition)?;
        let built = builder
            .set_properties(recorded)
            .and_then(|builder| builder.remove_properties(&expired))
            .and_then(|builder| match snapshot {
                Some(snapshot) => builder.set_branch_snapshot(snapshot, self.branch),
                None => Ok(builder),
            })
            .and_then(|builder| builder.build())
            .map_err(|e| {
                Error::invalid(
                    format!("cannot commit: {}", e.message()),
                    self.view.state.file.clone(),
                )
            })?;
        encode(&built.metadata, timestamp)
    }

    /// The snapshot of a change of files, its manifests and their list written.
    async fn snapshot(&mut self, timestamp: i64) -> Result<IcebergSnapshot> {
        let (manifests, summary) = match self.change.restore {
            Some(version) => self.restore(version).await?,
            None if self.change.manifests => self.rewrite_manifests().await?,
            None => self.change_files().await?,
        };
        let metadata = self.view.metadata();
        let sequence = metadata.next_sequence_number();
        let (list, rows) = self.write_list(manifests, sequence).await?;
        let snapshot = IcebergSnapshot::builder()
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(self.parent())
            .with_sequence_number(sequence)
            .with_timestamp_ms(timestamp)
            .with_manifest_list(list)
            .with_summary(summary)
            .with_schema_id(self.schema.schema_id());
        Ok(match rows {
            Some((first, added)) => snapshot.with_row_range(first, added).build(),
            None => snapshot.build(),
        })
    }

    /// The version that the commit follows.
    fn parent(&self) -> Option<i64> {
        self.view.snapshot.as_ref().map(|parent| parent.snapshot_id())
    }

    /// The manifests of an older version, as they are.
    async fn restore(&mut self, version: i64) -> Result<(Vec<ManifestFile>, Summary)> {
        let target = match version {
            0 => None,
            id => Some(self.view.metadata().snapshot_by_id(id).cloned().ok_or_else(|| {
                Error::not_found(format!("version {id}"), self.view.state.paths.location())
            })?),
        };
        let mut manifests = match &target {
            Some(target) => read_list_of(self.store, &self.view.state, target).await?,
            None => Vec::new(),
        };
        manifests.retain(has_live);
        Ok((manifests, restored(self.change, target.as_deref())))
    }

    /// The same files, listed anew.
    async fn rewrite_manifests(&mut self) -> Result<(Vec<ManifestFile>, Summary)> {
        let (plan, processed) = regroup(self.store, self.view).await?;
        let mut jobs = Vec::new();
        let before = read_list(self.store, self.view).await?.len();
        let carried = self.planned_manifests(plan, &mut jobs);
        let (created, kept) = (jobs.len(), carried.len());
        let mut manifests = self.write(jobs).await?;
        manifests.extend(carried);
        let mut summary = self.tally().summary(self.change, self.view.snapshot.as_deref());
        let figures = [
            ("manifests-created", created as u64),
            ("manifests-kept", kept as u64),
            ("manifests-replaced", before.saturating_sub(kept) as u64),
            ("entries-processed", processed),
        ];
        let figures = figures.map(|(name, figure)| (name.to_owned(), figure.to_string()));
        summary.additional_properties.extend(figures);
        Ok((manifests, summary))
    }

    async fn change_files(&mut self) -> Result<(Vec<ManifestFile>, Summary)> {
        let Staged {
            removed,
            removed_masks,
            added_masks,
        } = staged(self.store, self.view, self.change).await?;
        let (data, deletes) = split(read_list(self.store, self.view).await?);
        let (data, found) = plan(self.store, self.view, data, &removed).await?;
        if let Some(target) = removed.iter().find(|target| !found.contains(&target.key)) {
            let detail = format!("R1: {} is not part of the table any more", target.key.0);
            return Err(conflict(self.view, detail));
        }
        let (deletes, found) = plan(self.store, self.view, deletes, &removed_masks).await?;
        if let Some(target) = removed_masks.iter().find(|target| !found.contains(&target.key)) {
            let detail = format!(
                "R2: the row mask in {} is not part of the table any more",
                target.key.0
            );
            return Err(conflict(self.view, detail));
        }
        let added = self.added_files()?;
        let mut jobs = self.new_manifests(ManifestContentType::Data, added)?;
        let data = fold(self.store, self.view, data).await?;
        let mut carried = self.planned_manifests(data, &mut jobs);
        jobs.extend(self.new_manifests(ManifestContentType::Deletes, added_masks)?);
        let deletes = fold(self.store, self.view, deletes).await?;
        carried.extend(self.planned_manifests(deletes, &mut jobs));
        let mut manifests = self.write(jobs).await?;
        manifests.extend(carried);
        let parent = self.view.snapshot.as_deref();
        Ok((manifests, self.tally().summary(self.change, parent)))
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for file in &self.change.added {
            tally.added(file);
            file.masks.iter().for_each(|mask| tally.mask_added(file, mask));
        }
        for file in &self.change.removed {
            tally.removed(file);
            let own = file.masks.iter().filter(|mask| !mask.shared);
            own.for_each(|mask| tally.mask_removed(file, mask));
        }
        for (before, after) in &self.change.masked {
            let gone = before
                .masks
                .iter()
                .filter(|mask| !mask.shared && !after.masks.contains(mask));
            gone.for_each(|mask| tally.mask_removed(before, mask));
            let new = after.masks.iter().filter(|mask| !before.masks.contains(mask));
            new.for_each(|mask| tally.mask_added(after, mask));
        }
        tally
    }

    /// The added data files, by partition spec.
    fn added_files(&self) -> Result<BTreeMap<i32, Vec<IcebergFile>>> {
        let columns = leaves(&self.schema)?;
        let metadata = self.view.metadata();
        let (order, order_id) = (
            sort_order(metadata, &self.schema),
            metadata.default_sort_order_id(),
        );
        let (mut added, mut seen) = (BTreeMap::<i32, Vec<_>>::new(), HashSet::new());
        let mut specs = HashMap::new();
        for file in &self.change.added {
            if !seen.insert(&file.path) {
                return Err(Error::invalid("a data file is added twice", file.path.clone()));
            }
            let (spec, types) = match specs.entry(file.spec_id) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert(self.spec(file.spec_id)?),
            };
            let recorded = self.view.state.paths.absolute(&file.recorded);
            let notes = file.notes.as_deref();
            // Only files that were sorted are written with the id of an order (Iceberg spec, "Sorting").
            let sorted = notes.is_some_and(|notes| !order.is_empty() && notes.sorted_by == order);
            let order_id = sorted.then_some(order_id).and_then(|id| i32::try_from(id).ok());
            let entry = added_file(file, recorded, order_id, (spec, types), &columns)?;
            added.entry(file.spec_id).or_default().push(entry);
        }
        Ok(added)
    }

    fn spec(&self, id: i32) -> Result<(Arc<PartitionSpec>, Vec<PrimitiveType>)> {
        let metadata = self.view.metadata();
        let spec = metadata.partition_spec_by_id(id).ok_or_else(|| {
            Error::invalid(
                format!("partition spec {id} is not one of the table's"),
                metadata.location(),
            )
        })?;
        Ok((Arc::clone(spec), partition_types(spec, &self.schema, metadata)?))
    }

    /// Manifests of new entries, by partition spec.
    fn new_manifests(
        &mut self,
        content: ManifestContentType,
        files: BTreeMap<i32, Vec<IcebergFile>>,
    ) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        let most = most_entries(&self.schema);
        for (spec_id, mut files) in files {
            let (spec, _) = self.spec(spec_id)?;
            while !files.is_empty() {
                let rest = files.split_off(files.len().min(most));
                let entries = files.into_iter().map(NewEntry::Added).collect();
                let schema = Arc::clone(&self.schema);
                jobs.push((self.new_manifest(content, schema, (*spec).clone()), entries, None));
                files = rest;
            }
        }
        Ok(jobs)
    }

    /// Adds those that have to be written to the `jobs`; returns those that stay as they are.
    fn planned_manifests(&mut self, planned: Vec<Planned>, jobs: &mut Vec<Job>) -> Vec<ManifestFile> {
        let mut carried = Vec::new();
        for one in planned {
            match one {
                Planned::Carried(manifest) => carried.push(manifest),
                Planned::Rewritten(manifest, entries) => {
                    let first = match manifest.list.content {
                        ManifestContentType::Data => first_row_id(&entries),
                        ManifestContentType::Deletes => None,
                    };
                    let new = self.new_manifest(manifest.list.content, manifest.schema, manifest.spec);
                    jobs.push((new, entries, first));
                }
            }
        }
        carried
    }

    fn new_manifest(
        &mut self,
        content: ManifestContentType,
        schema: SchemaRef,
        spec: PartitionSpec,
    ) -> NewManifest {
        let count = self.written.len();
        let key = format!(
            "{FOLDER}{}-{:x}-m{count}.avro",
            self.change.commit_id, self.snapshot_id
        );
        let recorded = self.view.state.paths.absolute(&key);
        self.written.push(key);
        NewManifest {
            version: self.view.metadata().format_version(),
            content,
            schema,
            spec,
            snapshot_id: self.snapshot_id,
            recorded,
        }
    }

    /// Writes manifests, several at a time. Few of them wait for their list: to write all at once takes as long as to
    /// write one, and what the list tells of them is known before.
    async fn write(&mut self, jobs: Vec<Job>) -> Result<Vec<ManifestFile>> {
        let wait = jobs.len() <= CONCURRENT;
        let this = &*self;
        let written: Vec<(ManifestFile, Option<(String, Bytes)>)> = stream::iter(jobs)
            .map(|(new, entries, first)| async move {
                let key = this.view.state.paths.relative(&new.recorded)?;
                let (mut manifest, bytes) = encode_manifest(new, entries).await?;
                manifest.first_row_id = first;
                if wait {
                    return Ok((manifest, Some((key, bytes))));
                }
                this.store.put(&key, bytes).await?;
                Ok::<_, Error>((manifest, None))
            })
            .buffered(CONCURRENT)
            .try_collect()
            .await?;
        let (manifests, waiting): (Vec<_>, Vec<_>) = written.into_iter().unzip();
        self.waiting.extend(waiting.into_iter().flatten());
        Ok(manifests)
    }

    /// Writes the manifest list; returns its recorded path and, in v3, the first row id and the number
    /// of rows that got one.
    async fn write_list(
        &mut self,
        manifests: Vec<ManifestFile>,
        sequence: i64,
    ) -> Result<(String, Option<(u64, u64)>)> {
        let metadata = self.view.metadata();
        let key = format!(
            "{FOLDER}snap-{}-1-{}.avro",
            self.snapshot_id, self.change.commit_id
        );
        let recorded = self.view.state.paths.absolute(&key);
        let place = key.clone();
        let failed = |e: iceberg::Error| {
            Error::invalid(format!("cannot write a manifest list: {}", e.message()), &place)
        };
        let io = FileIO::new_with_memory();
        let output = io.new_output(&recorded).map_err(failed)?;
        let parent = self.parent();
        let target = output.writer().await.map_err(failed)?;
        let first = metadata.next_row_id();
        let parents = self.view.snapshot.as_ref().and_then(|parent| parent.row_range());
        let reused = parents.filter(|_| planted::is(Bug::RowIdsReused));
        let given = reused.map_or(first, |(first, _)| first);
        let mut writer = match metadata.format_version() {
            FormatVersion::V1 => ManifestListWriter::v1(target, self.snapshot_id, parent),
            FormatVersion::V2 => ManifestListWriter::v2(target, self.snapshot_id, parent, sequence),
            FormatVersion::V3 => {
                ManifestListWriter::v3(target, self.snapshot_id, parent, sequence, Some(given))
            }
        };
        writer.add_manifests(manifests.into_iter()).map_err(failed)?;
        let rows = writer.next_row_id().map(|next| (first, next - given));
        writer.close().await.map_err(failed)?;
        let bytes = output.to_input_file().read().await.map_err(failed)?;
        self.written.push(key.clone());
        self.waiting.push((key, bytes));
        let store = self.store;
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let puts = waiting.map(|(key, bytes)| async move { store.put(&key, bytes).await });
        // Each of them to its end: what failed is deleted next.
        futures::future::join_all(puts)
            .await
            .into_iter()
            .collect::<Result<()>>()?;
        Ok((recorded, rows))
    }
}
