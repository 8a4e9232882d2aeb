//! The files that a change removes and the delete entries it adds, as manifests need them.

use std::collections::{BTreeMap, HashMap, HashSet};

use iceberg::spec::{
    DataContentType, DataFile as IcebergFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveType,
};

use super::convert::partition_struct;
use super::deletes::DELETE_PATH_ID;
use super::rewrite::Target;
use super::view::{View, partition_types};
use crate::error::{Error, Result};
use crate::model::{Change, DataFile, MaskRef};
use crate::store::Store;

/// A change in terms of manifest entries.
#[derive(Debug)]
pub(super) struct Staged {
    /// Data files to remove.
    pub(super) removed: Vec<Target>,
    /// Delete files and deletion vectors to remove.
    pub(super) removed_masks: Vec<Target>,
    /// Delete entries to add, by partition spec.
    pub(super) added_masks: BTreeMap<i32, Vec<IcebergFile>>,
}

/// Works out what a change means for the manifests.
///
/// # Errors
/// [`Error::Invalid`] when a staged mask is missing or incomplete.
pub(super) async fn staged(store: &Store, view: &View, change: &Change) -> Result<Staged> {
    let removed = change.removed.iter().map(|file| target(file, None)).collect();
    let mut gone: Vec<(&DataFile, &MaskRef)> = Vec::new();
    let mut new: Vec<(&DataFile, &MaskRef)> = Vec::new();
    for file in &change.removed {
        // A mask goes with its file.
        gone.extend(
            file.masks
                .iter()
                .filter(|mask| !mask.shared)
                .map(|mask| (file, mask)),
        );
    }
    for file in &change.added {
        new.extend(file.masks.iter().map(|mask| (file, mask)));
    }
    for (before, after) in &change.masked {
        let replaced = before
            .masks
            .iter()
            .filter(|mask| !mask.shared && !after.masks.contains(mask));
        gone.extend(replaced.map(|mask| (before, mask)));
        let fresh = after.masks.iter().filter(|mask| !before.masks.contains(mask));
        new.extend(fresh.map(|mask| (after, mask)));
    }
    let sizes = sizes(store, &new).await?;
    let mut added_masks: BTreeMap<i32, Vec<IcebergFile>> = BTreeMap::new();
    for (file, mask) in new {
        let entry = entry(view, file, mask, &sizes)?;
        added_masks.entry(file.spec_id).or_default().push(entry);
    }
    Ok(Staged {
        removed,
        removed_masks: gone
            .into_iter()
            .map(|(file, mask)| target(file, Some(mask)))
            .collect(),
        added_masks,
    })
}

fn target(file: &DataFile, mask: Option<&MaskRef>) -> Target {
    Target {
        key: match mask {
            Some(mask) => (mask.recorded.clone(), mask.offset),
            None => (file.recorded.clone(), None),
        },
        spec_id: file.spec_id,
        partition: file.partition.clone(),
        sequence: file.sequence.filter(|_| mask.is_none()),
    }
}

/// Sizes of the files that hold new deletion vectors; asking for them also proves that they are there.
async fn sizes(store: &Store, new: &[(&DataFile, &MaskRef)]) -> Result<HashMap<String, u64>> {
    let vectors = new.iter().filter(|(_, mask)| mask.offset.is_some());
    let distinct: HashSet<&String> = vectors.map(|(_, mask)| &mask.path).collect();
    let mut sizes = HashMap::new();
    for path in distinct {
        let found = store.head(path).await?;
        let found = found.ok_or_else(|| Error::invalid("a staged row mask is missing", path.clone()))?;
        sizes.insert(path.clone(), found.bytes);
    }
    Ok(sizes)
}

fn entry(view: &View, file: &DataFile, mask: &MaskRef, sizes: &HashMap<String, u64>) -> Result<IcebergFile> {
    let incomplete =
        |what: &str| Error::invalid(format!("a staged row mask lacks {what}"), mask.path.clone());
    let metadata = view.metadata();
    let spec = metadata.partition_spec_by_id(file.spec_id).ok_or_else(|| {
        Error::invalid(
            format!("partition spec {} is not one of the table's", file.spec_id),
            file.path.clone(),
        )
    })?;
    let types: Vec<PrimitiveType> = partition_types(spec, metadata.current_schema(), metadata)?;
    let bytes = mask.bytes.ok_or_else(|| incomplete("its length"))?;
    let number = |value: u64| i64::try_from(value).map_err(|_| incomplete("a sensible position"));
    let data_file = view.state.paths.absolute(&file.recorded);
    let mut entry = DataFileBuilder::default();
    entry
        .content(DataContentType::PositionDeletes)
        .file_path(view.state.paths.absolute(&mask.recorded))
        .partition(partition_struct(&file.partition, &types, &file.path)?)
        .partition_spec_id(file.spec_id)
        .record_count(mask.rows.ok_or_else(|| incomplete("its number of rows"))?)
        .referenced_data_file(Some(data_file.clone()));
    match mask.offset {
        Some(offset) => entry
            .file_format(DataFileFormat::Puffin)
            .file_size_in_bytes(
                sizes
                    .get(&mask.path)
                    .copied()
                    .ok_or_else(|| incomplete("its file"))?,
            )
            .content_offset(Some(number(offset)?))
            .content_size_in_bytes(Some(number(bytes)?)),
        // Readers that do not know referenced_data_file go by equal bounds.
        None => entry
            .file_format(DataFileFormat::Parquet)
            .file_size_in_bytes(bytes)
            .lower_bounds(HashMap::from([(DELETE_PATH_ID, Datum::string(&data_file))]))
            .upper_bounds(HashMap::from([(DELETE_PATH_ID, Datum::string(&data_file))])),
    };
    entry
        .build()
        .map_err(|e| Error::invalid(format!("cannot describe a row mask: {e}"), mask.path.clone()))
}
