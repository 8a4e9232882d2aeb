//! The data files of a version: manifests pruned, deletes attached, streamed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{FieldSummary, ManifestContentType, ManifestFile, PrimitiveType};

use super::convert::Reader;
use super::deletes::DeleteIndex;
use super::flow::Flow;
use super::manifests::{Manifest, read_list, read_manifest, with_manifest};
use super::sieve::Sieve;
use super::types::primitive_to_arrow;
use super::values::decode_bound;
use super::view::{View, partition_types};
use crate::error::Result;
use crate::model::limits::Limits;
use crate::model::prune::PartitionRange;
use crate::model::{DataFile, Prune, Snapshot};
use crate::store::Store;

/// Manifests read at the same time.
pub(super) const CONCURRENT: usize = 8;

/// The data files of `snapshot` that may hold matching rows.
pub(super) fn files(
    store: Store,
    snapshot: Arc<Snapshot>,
    prune: Arc<Prune>,
) -> BoxStream<'static, Result<DataFile>> {
    let plan = async move {
        let view = View::of(&snapshot)?;
        let manifests = read_list(&store, &view).await?;
        let (data, deletes) = split(manifests);
        let counts = prune.counts();
        counts.manifests.fetch_add(data.len() as u64, Relaxed);
        let mut kept = Vec::with_capacity(data.len());
        for (manifest, keep) in keep(&snapshot, &view, &prune, data)? {
            if keep {
                kept.push(manifest);
            } else {
                counts.manifests_skipped.fetch_add(1, Relaxed);
                counts
                    .files_in_skipped_manifests
                    .fetch_add(live_files(&manifest), Relaxed);
            }
        }
        let index = if kept.is_empty() {
            DeleteIndex::default()
        } else {
            // Deletes of a partition that is not asked for concern no file that is listed.
            let deletes = keep(&snapshot, &view, &prune, deletes)?;
            let deletes = deletes
                .into_iter()
                .filter_map(|(manifest, keep)| keep.then_some(manifest));
            index(&store, &view, deletes.collect()).await?
        };
        let reader = Reader::new(&view.state.paths, &view.schema)?;
        let sieve = Arc::new(Sieve::new(snapshot, prune, &reader.columns));
        let (index, flow) = (Arc::new(index), Arc::new(Flow::new()));
        let read = move |manifest: ManifestFile| {
            let (store, view, reader) = (store.clone(), Arc::clone(&view), reader.clone());
            let (sieve, index, flow) = (Arc::clone(&sieve), Arc::clone(&index), Arc::clone(&flow));
            async move {
                let work = move |place: &str, list, bytes: &[u8], limits: &Limits| {
                    let manifest = sieve.manifest(place, list, bytes, limits)?;
                    data_files(&manifest, &reader, &index)
                };
                let found = with_manifest(&store, &view.state, &flow, manifest, work).await?;
                Ok::<_, crate::Error>(stream::iter(found.into_iter().map(Ok)))
            }
        };
        let files = stream::iter(kept).map(read).buffered(CONCURRENT).try_flatten();
        Ok::<_, crate::Error>(files)
    };
    stream::once(plan).try_flatten().boxed()
}

/// Data manifests and delete manifests.
pub(super) fn split(
    manifests: impl IntoIterator<Item = ManifestFile>,
) -> (Vec<ManifestFile>, Vec<ManifestFile>) {
    manifests
        .into_iter()
        .partition(|manifest| manifest.content == ManifestContentType::Data)
}

/// Reads delete manifests into an index.
///
/// # Errors
/// When a manifest cannot be read.
pub(super) async fn index(store: &Store, view: &View, manifests: Vec<ManifestFile>) -> Result<DeleteIndex> {
    let mut index = DeleteIndex::default();
    let mut read = stream::iter(manifests)
        .map(|manifest| read_manifest(store, &view.state, manifest))
        .buffered(CONCURRENT);
    while let Some(manifest) = read.try_next().await? {
        index.add(&manifest, &view.state.paths, &view.schema)?;
    }
    Ok(index)
}

fn data_files(manifest: &Manifest, reader: &Reader, index: &DeleteIndex) -> Result<Vec<DataFile>> {
    let files = manifest.entries.iter().map(|entry| {
        let mut file = reader.data_file(manifest, entry)?;
        index.attach(&mut file);
        Ok(file)
    });
    files.collect()
}

/// Asks for each manifest whether its partitions can hold a matching row, in the order given.
fn keep(
    snapshot: &Snapshot,
    view: &View,
    prune: &Prune,
    manifests: Vec<ManifestFile>,
) -> Result<Vec<(ManifestFile, bool)>> {
    let mut kept = vec![true; manifests.len()];
    for (spec_id, fields) in &snapshot.specs {
        let Some(spec) = view
            .metadata()
            .partition_spec_by_id(*spec_id)
            .filter(|_| !fields.is_empty())
        else {
            continue;
        };
        let types = partition_types(spec, &view.schema, view.metadata())?;
        let (places, ranges): (Vec<_>, Vec<_>) = manifests
            .iter()
            .enumerate()
            .filter(|(_, manifest)| manifest.partition_spec_id == *spec_id)
            .filter_map(|(place, manifest)| Some((place, ranges(manifest, &types)?)))
            .unzip();
        if places.is_empty() {
            continue;
        }
        for (place, keep) in places
            .into_iter()
            .zip(prune.keep_ranges(snapshot, fields, &ranges)?)
        {
            kept[place] = keep;
        }
    }
    Ok(manifests.into_iter().zip(kept).collect())
}

/// The partition ranges of a manifest; `None` when it does not tell.
pub(super) fn ranges(
    manifest: &ManifestFile,
    types: &[PrimitiveType],
) -> Option<Vec<Option<PartitionRange>>> {
    let summaries = manifest
        .partitions
        .as_ref()
        .filter(|all| all.len() == types.len())?;
    Some(
        summaries
            .iter()
            .zip(types)
            .map(|(summary, ty)| range(summary, ty))
            .collect(),
    )
}

fn range(summary: &FieldSummary, ty: &PrimitiveType) -> Option<PartitionRange> {
    // NaN lies outside the bounds: a field that has one, or may have one, has no known range.
    let floating = matches!(ty, PrimitiveType::Float | PrimitiveType::Double);
    if floating && summary.contains_nan != Some(false) {
        return None;
    }
    let arrow = primitive_to_arrow(ty).ok()?;
    let bound = |bytes: &Option<iceberg::spec::ByteBuf>| match bytes {
        None => Some(None),
        Some(bytes) => decode_bound(bytes, ty, &arrow).map(Some),
    };
    let (min, max) = (bound(&summary.lower_bound)?, bound(&summary.upper_bound)?);
    if min.is_none() != max.is_none() || (min.is_none() && !summary.contains_null) {
        return None;
    }
    Some(PartitionRange {
        min,
        max,
        has_null: summary.contains_null,
    })
}

fn live_files(manifest: &ManifestFile) -> u64 {
    u64::from(manifest.added_files_count.unwrap_or(0)) + u64::from(manifest.existing_files_count.unwrap_or(0))
}
