//! Which entries of a manifest a listing wants, decided before any of them is read in full: of a million entries, a
//! selective filter leaves few. Of each, its partition and the statistics of the columns that the filter names are read;
//! all else is passed over.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, UInt64Array};
use datafusion::scalar::ScalarValue;
use iceberg::spec::{ManifestFile, ManifestStatus, PrimitiveType};
use serde::Deserialize;

use super::avro::{self, Field, Plain, Shape, Walk, Walked};
use super::convert::{bound_of, partition_values};
use super::entries::{self, Header};
use super::manifests::{self, Entry, Manifest};
use super::types::Leaf;
use crate::error::Result;
use crate::model::limits::Limits;
use crate::model::prune::{Bounds, Outlines, Partition};
use crate::model::{Prune, Snapshot};

/// What is asked of the manifests of one version.
#[derive(Debug)]
pub(super) struct Sieve {
    snapshot: Arc<Snapshot>,
    prune: Arc<Prune>,
    /// The columns whose statistics decide, and their ids in the same order.
    columns: Vec<Leaf>,
    ids: Vec<i32>,
    /// The columns of which the files that are wanted tell statistics; `None` for all.
    told: Option<HashSet<i32>>,
}

impl Sieve {
    /// What `prune` asks for, by the columns of the reader.
    pub(super) fn new(snapshot: Arc<Snapshot>, prune: Arc<Prune>, columns: &BTreeMap<i32, Leaf>) -> Self {
        let named = prune.columns();
        let wanted = columns
            .iter()
            .filter(|(_, leaf)| named.contains(leaf.name.as_str()));
        let told: HashSet<i32> = columns
            .iter()
            .filter(|(_, leaf)| prune.tells_of(&leaf.name))
            .map(|(id, _)| *id)
            .collect();
        let told = (told.len() < columns.len()).then_some(told);
        let (ids, columns) = wanted.map(|(id, leaf)| (*id, leaf.clone())).unzip();
        Self {
            told,
            snapshot,
            prune,
            columns,
            ids,
        }
    }

    /// A manifest with those entries only that are live and may hold a matching row. Counts what it skips.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) naming the manifest when it is broken, and those of its limits.
    pub(super) fn manifest(
        &self,
        place: &str,
        list: ManifestFile,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Manifest> {
        let (mut header, file) = entries::open(bytes, limits, place)?;
        header.wanted.clone_from(&self.told);
        let schema = header.metadata.schema();
        let types = self.ids.iter().map(|id| {
            let field = schema.field_by_id(*id)?;
            field.field_type.as_primitive_type().cloned()
        });
        let mut pass = Pass {
            sieve: self,
            types: types.collect(),
            next_row_id: manifests::first_row_id(&list),
            list: &list,
            header: &header,
            roles: None,
            places: HashMap::new(),
            partitions: Vec::new(),
            kept: Vec::new(),
            found: Vec::new(),
        };
        file.sift(&mut pass)?;
        let found = pass.found;
        Ok(Manifest::new(list, &header.metadata, header.types, found))
    }
}

/// What a field of an entry is to us.
#[derive(Debug, Clone, Copy)]
enum Role {
    Status,
    File,
    Partition,
    Rows,
    RowId,
    Nulls,
    Nans,
    Lower,
    Upper,
    Other,
}

impl Role {
    fn of_entry(field: &Field) -> Self {
        match field.name.as_str() {
            "status" => Self::Status,
            "data_file" => Self::File,
            _ => Self::Other,
        }
    }

    fn of_file(field: &Field) -> Self {
        match field.name.as_str() {
            "partition" => Self::Partition,
            "record_count" => Self::Rows,
            "first_row_id" => Self::RowId,
            "null_value_counts" => Self::Nulls,
            "nan_value_counts" => Self::Nans,
            "lower_bounds" => Self::Lower,
            "upper_bounds" => Self::Upper,
            _ => Self::Other,
        }
    }
}

/// What is known of one column of a file.
#[derive(Debug, Default)]
struct Stats {
    min: Option<ScalarValue>,
    max: Option<ScalarValue>,
    nulls: Option<u64>,
    nans: Option<u64>,
}

/// What decides whether an entry is wanted.
#[derive(Debug)]
struct Outline {
    live: bool,
    rows: u64,
    first_row_id: Option<i64>,
    /// Its place among the partitions of the manifest.
    place: u32,
    columns: Vec<Stats>,
}

/// The way through one manifest.
struct Pass<'a> {
    sieve: &'a Sieve,
    list: &'a ManifestFile,
    header: &'a Header<'a>,
    /// The types that the manifest gives the columns.
    types: Vec<Option<PrimitiveType>>,
    next_row_id: Option<i64>,
    /// What the fields of entries and of their files are, once an entry was seen.
    roles: Option<(Vec<Role>, Vec<Role>)>,
    /// Partitions by their bytes: many files are in one.
    places: HashMap<Vec<u8>, u32>,
    partitions: Vec<Partition>,
    /// Which of them may hold a matching row, as far as they are judged.
    kept: Vec<bool>,
    found: Vec<Entry>,
}

impl Pass<'_> {
    fn place<'s>(&mut self, walk: &mut Walk<'s, '_>, shape: &'s Shape, depth: usize) -> Walked<u32> {
        let raw = walk.raw(shape, depth)?;
        if let Some(place) = self.places.get(raw) {
            return Ok(*place);
        }
        let wrong = "a partition is none of its spec";
        let values = entries::Partition::deserialize(walk.again(raw).value(shape)).map_err(|_| wrong)?;
        let values = values.under(self.header).map_err(|_| wrong)?;
        let values = partition_values(&values, &self.header.types, self.header.place).map_err(|_| wrong)?;
        let place = u32::try_from(self.partitions.len()).map_err(|_| "it has too many partitions")?;
        self.partitions.push(Partition {
            spec_id: self.list.partition_spec_id,
            values,
        });
        self.places.insert(raw.to_vec(), place);
        Ok(place)
    }

    fn file<'s>(&mut self, walk: &mut Walk<'s, '_>, fields: &'s [Field], roles: &[Role]) -> Walked<Outline> {
        const DEPTH: usize = 2;
        let mut outline = Outline {
            live: true,
            rows: 0,
            first_row_id: None,
            place: 0,
            columns: Vec::new(),
        };
        outline.columns.resize_with(self.types.len(), Stats::default);
        let (ids, columns) = (&self.sieve.ids, &self.sieve.columns);
        for (field, role) in fields.iter().zip(roles) {
            let shape = &field.shape;
            match role {
                Role::Partition => outline.place = self.place(walk, shape, DEPTH)?,
                Role::Rows => {
                    let rows = walk.number(shape, DEPTH)?.unwrap_or(-1);
                    outline.rows = u64::try_from(rows).map_err(|_| "a file has no number of rows")?;
                }
                Role::RowId => outline.first_row_id = walk.number(shape, DEPTH)?,
                Role::Nulls | Role::Nans if !ids.is_empty() => {
                    walk.pairs(shape, DEPTH, ids, |at, value| {
                        // Counts are not negative: what is, says nothing.
                        let Plain::Number(count) = value else { return };
                        let (stats, count) = (&mut outline.columns[at], u64::try_from(count).ok());
                        match role {
                            Role::Nulls => stats.nulls = count,
                            _ => stats.nans = count,
                        }
                    })?;
                }
                Role::Lower | Role::Upper if !ids.is_empty() => {
                    walk.pairs(shape, DEPTH, ids, |at, value| {
                        let (Plain::Bytes(bytes), Some(ty)) = (value, &self.types[at]) else {
                            return;
                        };
                        let bound =
                            entries::bound(bytes, ty).and_then(|datum| bound_of(&datum, &columns[at]));
                        let stats = &mut outline.columns[at];
                        match role {
                            Role::Lower => stats.min = bound,
                            _ => stats.max = bound,
                        }
                    })?;
                }
                _ => walk.skip(shape, DEPTH)?,
            }
        }
        Ok(outline)
    }

    /// Which of these live entries are in partitions that may hold a matching row.
    fn by_partition(&mut self, entries: &[&Outline]) -> Result<Vec<bool>> {
        let snapshot = &self.sieve.snapshot;
        if snapshot.specs.values().all(Vec::is_empty) {
            return Ok(vec![true; entries.len()]);
        }
        let new = &self.partitions[self.kept.len()..];
        self.kept.extend(self.sieve.prune.keep_partitions(snapshot, new)?);
        Ok(entries
            .iter()
            .map(|entry| self.kept[entry.place as usize])
            .collect())
    }

    /// Which of these entries may hold a matching row by the statistics of the columns.
    fn by_statistics(&mut self, entries: &[&Outline]) -> Result<Vec<bool>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut columns = HashMap::new();
        for (at, leaf) in self.sieve.columns.iter().enumerate() {
            let nothing = ScalarValue::try_from(&leaf.arrow)?;
            let array = |of: fn(&Stats) -> &Option<ScalarValue>| -> Result<ArrayRef> {
                let values = entries.iter().map(|entry| {
                    let value = of(&entry.columns[at]).clone();
                    value.unwrap_or_else(|| nothing.clone())
                });
                Ok(ScalarValue::iter_to_array(values)?)
            };
            let counts = |of: fn(&Stats) -> Option<u64>| -> UInt64Array {
                entries.iter().map(|entry| of(&entry.columns[at])).collect()
            };
            let bounds = Bounds {
                min: array(|stats| &stats.min)?,
                max: array(|stats| &stats.max)?,
                nulls: counts(|stats| stats.nulls),
                nans: Some(counts(|stats| stats.nans)),
            };
            columns.insert(leaf.name.clone(), bounds);
        }
        let outlines = Outlines {
            rows: entries.iter().map(|entry| entry.rows).collect(),
            places: entries.iter().map(|entry| entry.place).collect(),
            partitions: std::mem::take(&mut self.partitions),
            columns,
        };
        let kept = self.sieve.prune.keep_outlines(&self.sieve.snapshot, &outlines);
        self.partitions = outlines.partitions;
        kept
    }
}

impl avro::Sieve for Pass<'_> {
    type Outline = Outline;
    type Record = entries::Entry;

    fn outline<'s>(&mut self, walk: &mut Walk<'s, '_>, record: &'s Shape) -> Walked<Outline> {
        let fields = walk.record(record, 0)?;
        let mut roles = match self.roles.take() {
            Some(roles) => roles,
            None => (fields.iter().map(Role::of_entry).collect(), Vec::new()),
        };
        let (mut status, mut outline) = (None, None);
        for (field, role) in fields.iter().zip(&roles.0) {
            match role {
                Role::Status => status = walk.number(&field.shape, 1)?,
                Role::File => {
                    let inner = walk.record(&field.shape, 1)?;
                    if roles.1.is_empty() {
                        roles.1 = inner.iter().map(Role::of_file).collect();
                    }
                    outline = Some(self.file(walk, inner, &roles.1)?);
                }
                _ => walk.skip(&field.shape, 1)?,
            }
        }
        self.roles = Some(roles);
        let mut outline = outline.ok_or("an entry has no file")?;
        let status = i32::try_from(status.ok_or("an entry has no status")?).unwrap_or(-1);
        let status = ManifestStatus::try_from(status).map_err(|_| "an entry has a status that is none")?;
        outline.live = status != ManifestStatus::Deleted;
        outline.first_row_id = manifests::row_id(
            &mut self.next_row_id,
            outline.first_row_id,
            outline.live,
            outline.rows,
        );
        Ok(outline)
    }

    fn judge(&mut self, outlines: &[Outline]) -> Result<Vec<bool>> {
        let mut wanted: Vec<bool> = outlines.iter().map(|outline| outline.live).collect();
        let live = wanted.iter().filter(|live| **live).count();
        let prune = Arc::clone(&self.sieve.prune);
        if !prune.is_selective() {
            prune.count(live, 0, 0);
            return Ok(wanted);
        }
        let mut narrow = |judge: &mut dyn FnMut(&[&Outline]) -> Result<Vec<bool>>| -> Result<usize> {
            let (places, asked): (Vec<usize>, Vec<&Outline>) =
                outlines.iter().enumerate().filter(|(at, _)| wanted[*at]).unzip();
            let keep = judge(&asked)?;
            places
                .into_iter()
                .zip(&keep)
                .for_each(|(at, keep)| wanted[at] = *keep);
            Ok(keep.iter().filter(|keep| **keep).count())
        };
        let by_partition = narrow(&mut |entries| self.by_partition(entries))?;
        let left = narrow(&mut |entries| self.by_statistics(entries))?;
        prune.count(live, live - by_partition, by_partition - left);
        Ok(wanted)
    }

    fn take(&mut self, outline: &Outline, record: entries::Entry) -> Result<()> {
        self.sieve.prune.counts().read_in_full.fetch_add(1, Relaxed);
        let listed = record.under(self.header)?;
        let entry = Entry::inherited(listed, self.list, outline.first_row_id)?;
        self.found.push(entry);
        Ok(())
    }
}
