//! Which deletes apply to which data file.
//!
//! Iceberg spec, "Scan Planning": a deletion vector or position delete applies to data of an equal or
//! smaller sequence number in the same partition, an equality delete to data of a strictly smaller one
//! in the same partition, or anywhere if its spec is unpartitioned. A deletion vector replaces all
//! position deletes of its file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::scalar::ScalarValue;
use iceberg::spec::{DataContentType, DataFile as IcebergFile, DataFileFormat, Schema};

use super::convert::partition_of;
use super::manifests::{Entry, Manifest};
use super::metadata::broken;
use super::paths::Paths;
use crate::error::{Error, Result};
use crate::model::{DataFile, EqualityDelete, MaskRef};

/// Field id of `file_path` in position-delete files (spec, "Reserved Field IDs").
pub(super) const DELETE_PATH_ID: i32 = 2_147_483_546;
/// Field id of `pos` in position-delete files.
pub(super) const DELETE_POS_ID: i32 = 2_147_483_545;

type Partition = (i32, Vec<ScalarValue>);

/// The deletes of a version, found by data file.
#[derive(Debug, Default)]
pub(super) struct DeleteIndex {
    /// Deletion vectors by the data file they belong to.
    vectors: HashMap<String, (i64, MaskRef)>,
    /// Position-delete files that concern one data file.
    by_file: HashMap<String, Vec<(i64, MaskRef)>>,
    /// Position-delete files that may concern any data file of a partition.
    by_partition: HashMap<Partition, Vec<(i64, MaskRef)>>,
    /// Equality deletes of a partition.
    equality: HashMap<Partition, Vec<Arc<EqualityDelete>>>,
    /// Equality deletes of an unpartitioned spec: they concern every data file.
    global: Vec<Arc<EqualityDelete>>,
}

/// Which data files a set of deletes concerns.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    /// Data files named outright, as recorded.
    files: HashSet<String>,
    /// Partitions of which any data file may be concerned.
    partitions: HashSet<Partition>,
    /// Partitions that the named data files lie in.
    places: HashSet<Partition>,
    all: bool,
}

impl DeleteIndex {
    /// Adds the live entries of a delete manifest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for delete files that are neither Parquet nor Puffin, [`Error::Invalid`]
    /// for entries that lack what the spec requires.
    pub(super) fn add(&mut self, manifest: &Manifest, paths: &Paths, schema: &Schema) -> Result<()> {
        let place = &manifest.list.manifest_path;
        for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
            let file = &entry.file;
            let partition = || -> Result<Partition> {
                Ok((
                    manifest.list.partition_spec_id,
                    partition_of(file, &manifest.types, place)?,
                ))
            };
            match (file.content_type(), file.file_format()) {
                (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
                    let (target, mask) = vector(entry, paths, place)?;
                    let newer = self
                        .vectors
                        .get(&target)
                        .is_none_or(|(sequence, _)| *sequence < entry.sequence);
                    if newer {
                        self.vectors.insert(target, (entry.sequence, mask));
                    }
                }
                (DataContentType::PositionDeletes, DataFileFormat::Parquet) => {
                    let target = referenced(file);
                    let mask = MaskRef {
                        path: paths.relative(file.file_path())?,
                        recorded: file.file_path().to_owned(),
                        offset: None,
                        bytes: Some(file.file_size_in_bytes()),
                        inline: None,
                        rows: target.is_some().then(|| file.record_count()),
                        shared: target.is_none(),
                    };
                    match target {
                        Some(target) => self
                            .by_file
                            .entry(target)
                            .or_default()
                            .push((entry.sequence, mask)),
                        None => self
                            .by_partition
                            .entry(partition()?)
                            .or_default()
                            .push((entry.sequence, mask)),
                    }
                }
                (DataContentType::EqualityDeletes, DataFileFormat::Parquet) => {
                    let delete = Arc::new(equality(entry, paths, schema, place)?);
                    if manifest.spec.is_unpartitioned() {
                        self.global.push(delete);
                    } else {
                        self.equality.entry(partition()?).or_default().push(delete);
                    }
                }
                (DataContentType::Data, _) => {
                    return Err(broken(place, "a manifest of deletes lists a data file".into()));
                }
                (_, format) => {
                    return Err(Error::unsupported(
                        format!(
                            "{} is a delete file in {format}; Parquet and Puffin are read",
                            file.file_path()
                        ),
                        "let the engine that wrote it rewrite the table's deletes as Parquet",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Attaches to a data file what applies to it.
    pub(super) fn attach(&self, file: &mut DataFile) {
        let data = file.sequence.unwrap_or(0);
        let partition = (file.spec_id, std::mem::take(&mut file.partition));
        match self
            .vectors
            .get(&file.recorded)
            .filter(|(sequence, _)| data <= *sequence)
        {
            Some((_, vector)) => file.masks.push(vector.clone()),
            None => {
                let own = self.by_file.get(&file.recorded).into_iter().flatten();
                let shared = self.by_partition.get(&partition).into_iter().flatten();
                let applies = own.chain(shared).filter(|(sequence, _)| data <= *sequence);
                file.masks.extend(applies.map(|(_, mask)| mask.clone()));
            }
        }
        let equality = self
            .equality
            .get(&partition)
            .into_iter()
            .flatten()
            .chain(&self.global);
        file.equality_deletes
            .extend(equality.filter(|delete| data < delete.sequence).cloned());
        file.partition = partition.1;
        if !file.masks.is_empty() || !file.equality_deletes.is_empty() {
            file.columns.values_mut().for_each(|stats| stats.exact = false);
        }
    }
}

impl Concerned {
    /// Adds what one delete entry of a manifest concerns.
    ///
    /// # Errors
    /// [`Error::Invalid`] when its partition values are not of the spec's types.
    pub(super) fn add(&mut self, manifest: &Manifest, entry: &Entry) -> Result<()> {
        let place = &manifest.list.manifest_path;
        let partition = (
            manifest.list.partition_spec_id,
            partition_of(&entry.file, &manifest.types, place)?,
        );
        match (entry.file.content_type(), referenced(&entry.file)) {
            (DataContentType::EqualityDeletes, _) if manifest.spec.is_unpartitioned() => self.all = true,
            (DataContentType::PositionDeletes, Some(target)) => {
                self.files.insert(target);
                self.places.insert(partition);
            }
            _ => {
                self.partitions.insert(partition);
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.partitions.is_empty() && !self.all
    }

    /// Whether the deletes may concern this data file.
    pub(super) fn contains(&self, file: &DataFile) -> bool {
        self.all
            || self.files.contains(&file.recorded)
            || (!self.partitions.is_empty()
                && self.partitions.contains(&(file.spec_id, file.partition.clone())))
    }

    /// Whether a data file of this spec, its partition picked by `holds`, may be concerned.
    pub(super) fn reaches(&self, spec_id: i32, holds: impl Fn(&[ScalarValue]) -> bool) -> bool {
        let mut places = self.partitions.iter().chain(&self.places);
        self.all || places.any(|(spec, partition)| *spec == spec_id && holds(partition))
    }
}

fn vector(entry: &Entry, paths: &Paths, place: &str) -> Result<(String, MaskRef)> {
    let file = &entry.file;
    let lacks = |what: &str| {
        broken(
            place,
            format!("the deletion vector in {} lacks {what}", file.file_path()),
        )
    };
    let target = file
        .referenced_data_file()
        .ok_or_else(|| lacks("its data file"))?;
    let number = |value: Option<i64>, what: &str| {
        value
            .and_then(|value| u64::try_from(value).ok())
            .ok_or_else(|| lacks(what))
    };
    let mask = MaskRef {
        path: paths.relative(file.file_path())?,
        recorded: file.file_path().to_owned(),
        offset: Some(number(file.content_offset(), "its offset")?),
        bytes: Some(number(file.content_size_in_bytes(), "its length")?),
        inline: None,
        rows: Some(file.record_count()),
        shared: false,
    };
    Ok((target, mask))
}

/// The one data file that a position-delete file concerns: named outright, or by equal path bounds.
fn referenced(file: &IcebergFile) -> Option<String> {
    use iceberg::spec::PrimitiveLiteral::String as Text;
    if let Some(target) = file.referenced_data_file() {
        return Some(target);
    }
    let (lower, upper) = (
        file.lower_bounds().get(&DELETE_PATH_ID)?,
        file.upper_bounds().get(&DELETE_PATH_ID)?,
    );
    match (lower.literal(), upper.literal()) {
        (Text(lower), Text(upper)) if lower == upper => Some(lower.clone()),
        _ => None,
    }
}

fn equality(entry: &Entry, paths: &Paths, schema: &Schema, place: &str) -> Result<EqualityDelete> {
    let file = &entry.file;
    let ids = file.equality_ids().filter(|ids| !ids.is_empty());
    let ids =
        ids.ok_or_else(|| broken(place, format!("{} names no columns to compare", file.file_path())))?;
    let columns = ids
        .iter()
        .map(|id| {
            schema.name_by_field_id(*id).map(str::to_owned).ok_or_else(|| {
                Error::unsupported(
                    format!(
                        "{} compares column {id}, which this version does not have",
                        file.file_path()
                    ),
                    "let the engine that wrote it apply the table's equality deletes",
                )
            })
        })
        .collect::<Result<_>>()?;
    Ok(EqualityDelete {
        path: paths.relative(file.file_path())?,
        recorded: file.file_path().to_owned(),
        bytes: file.file_size_in_bytes(),
        rows: file.record_count(),
        columns,
        sequence: entry.sequence,
    })
}
