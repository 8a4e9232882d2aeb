//! Which files of a checkpoint a listing wants, decided by columns, before any action is made of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, StructArray, UInt64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::scalar::ScalarValue;

use super::named::{Leaf, Named, Told};
use super::parts::{Numbers, Part, Texted, starts, wrong};
use super::state::State;
use super::stats;
use crate::error::Result;
use crate::model::prune::{Bounds, Outlines, Partition};
use crate::model::{Prune, Snapshot};

/// What is asked of the files of one version.
#[derive(Debug)]
pub(super) struct Sieve {
    snapshot: Arc<Snapshot>,
    prune: Arc<Prune>,
    /// Columns whose statistics decide.
    named: Arc<Named>,
    /// Partition values decide, too.
    partitioned: bool,
    /// The partitions met so far.
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// By their values, each with its length.
    by_text: HashMap<Vec<u8>, u32>,
    partitions: Vec<Partition>,
    /// Which may hold a matching row.
    kept: Vec<bool>,
}

/// Where a part of the checkpoint has the statistics that decide.
#[derive(Debug)]
pub(super) enum Columns {
    /// `add.stats`, as text.
    Text,
    /// `add.stats_parsed`, of these columns.
    Parsed(Arc<Named>),
}

impl Sieve {
    /// `None` if nothing is asked that could skip a file.
    pub(super) fn new(state: &State, snapshot: &Arc<Snapshot>, prune: &Arc<Prune>) -> Option<Self> {
        let asked = prune.columns();
        prune.is_selective().then(|| Self {
            named: Arc::new(Named::new(&asked, &state.data_fields())),
            partitioned: state
                .partitions
                .iter()
                .any(|column| asked.contains(column.field.source.as_str())),
            snapshot: Arc::clone(snapshot),
            prune: Arc::clone(prune),
            places: Mutex::default(),
        })
    }

    /// Whether partition values decide.
    pub(super) fn asks_partitions(&self) -> bool {
        self.partitioned
    }

    /// Whether statistics decide, or nothing that a file has.
    pub(super) fn asks_statistics(&self) -> bool {
        !self.named.leaves.is_empty() || !self.partitioned
    }

    /// Where a part of the checkpoint has what is asked for.
    pub(super) fn columns(&self, part: &Part) -> Columns {
        let parsed = |leaf: &Leaf| {
            ["minValues", "maxValues", "nullCount"].iter().any(|kind| {
                let mut path = vec!["add", "stats_parsed", kind];
                path.extend(leaf.path.iter().map(String::as_str));
                part.has(&path)
            })
        };
        match self.named.leaves.iter().all(parsed) && part.has(&["add", "stats_parsed", "numRecords"]) {
            true => Columns::Parsed(Arc::clone(&self.named)),
            false => Columns::Text,
        }
    }

    /// Holds back files in partitions without a matching row, of those that are kept so far. Counts them.
    pub(super) fn by_partition(&self, adds: &StructArray, keep: &mut [bool]) -> Result<()> {
        let live = keep.iter().filter(|keep| **keep).count();
        if self.partitioned {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let of_files = places.of(&self.snapshot, adds, keep)?;
            let new = places.kept.len();
            let judged = self
                .prune
                .keep_partitions(&self.snapshot, &places.partitions[new..])?;
            places.kept.extend(judged);
            for (keep, place) in keep.iter_mut().zip(of_files) {
                *keep = *keep && places.kept[place as usize];
            }
        }
        let left = keep.iter().filter(|keep| **keep).count();
        self.prune.count(live, live - left, 0);
        Ok(())
    }

    /// Which of these files may hold a matching row by their statistics. Counts the others.
    pub(super) fn by_statistics(&self, columns: &Columns, adds: &StructArray) -> Result<Vec<bool>> {
        let (rows, bounds) = match columns {
            Columns::Text => self.of_text(adds)?,
            Columns::Parsed(named) => of_parsed(named, adds)?,
        };
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let of_files = match self.partitioned {
            true => places.of(&self.snapshot, adds, &vec![true; adds.len()])?,
            false => Vec::new(),
        };
        let outlines = Outlines {
            rows,
            partitions: match self.partitioned {
                true => std::mem::take(&mut places.partitions),
                false => Vec::new(),
            },
            places: of_files,
            columns: bounds,
        };
        let kept = self.prune.keep_outlines(&self.snapshot, &outlines);
        if self.partitioned {
            places.partitions = outlines.partitions;
        }
        let kept = kept?;
        let skipped = kept.iter().filter(|kept| !**kept).count();
        self.prune.count(0, 0, skipped);
        Ok(kept)
    }

    fn of_text(&self, adds: &StructArray) -> Result<(Vec<u64>, HashMap<String, Bounds>)> {
        let texts = Texted::of(adds, "stats")?;
        let leaves = &self.named.leaves;
        let mut rows = Vec::with_capacity(adds.len());
        let mut found: Vec<[Vec<ScalarValue>; 2]> = Vec::new();
        let mut nulls: Vec<Vec<Option<u64>>> = vec![Vec::with_capacity(adds.len()); leaves.len()];
        let nothing = leaves.iter().map(|leaf| ScalarValue::try_from(&leaf.data_type));
        let nothing: Vec<ScalarValue> = nothing.collect::<std::result::Result<_, _>>()?;
        found.resize_with(leaves.len(), || [Vec::new(), Vec::new()]);
        let mut told = Told::default();
        for row in 0..adds.len() {
            self.named.read(texts.get(row), &mut told);
            rows.push(told.rows.unwrap_or(0));
            for (at, leaf) in leaves.iter().enumerate() {
                let bound = |upper: bool| {
                    let value = &told.values[usize::from(upper)][at];
                    let bound = stats::bound(value, &leaf.data_type, upper);
                    bound.map_or_else(|| nothing[at].clone(), |(value, _)| value)
                };
                let bounds = [bound(false), bound(true)];
                for (all, bound) in found[at].iter_mut().zip(bounds) {
                    all.push(bound);
                }
                nulls[at].push(told.values[2][at].as_u64());
            }
        }
        let array = |values: Vec<ScalarValue>, data_type: &DataType| -> Result<ArrayRef> {
            match values.is_empty() {
                true => Ok(arrow::array::new_empty_array(data_type)),
                false => Ok(ScalarValue::iter_to_array(values)?),
            }
        };
        let mut columns = HashMap::new();
        for ((leaf, [min, max]), nulls) in leaves.iter().zip(found).zip(nulls) {
            let bounds = Bounds {
                min: array(min, &leaf.data_type)?,
                max: array(max, &leaf.data_type)?,
                nulls: nulls.into_iter().collect(),
                nans: None,
            };
            columns.insert(leaf.name.clone(), bounds);
        }
        Ok((rows, columns))
    }
}

impl Columns {
    /// Whether a column of the checkpoint has something that decides.
    pub(super) fn wants(&self, path: &[String]) -> bool {
        match self {
            Self::Text => starts(path, &["add", "stats"]),
            Self::Parsed(named) => {
                starts(path, &["add", "stats_parsed", "numRecords"])
                    || (["minValues", "maxValues", "nullCount"]
                        .iter()
                        .any(|kind| starts(path, &["add", "stats_parsed", kind]))
                        && named.leaves.iter().any(|leaf| leaf.path == path[3..]))
            }
        }
    }
}

impl Places {
    /// The partition of each file that is kept; 0 for the others.
    fn of(&mut self, snapshot: &Snapshot, adds: &StructArray, keep: &[bool]) -> Result<Vec<u32>> {
        const NAME: &str = "partitionValues";
        let state = State::of(snapshot)?;
        let maps = adds
            .column_by_name(NAME)
            .map(|column| column.as_map_opt().ok_or_else(|| wrong(NAME)));
        let maps = maps.transpose()?;
        let entries = match maps {
            None => None,
            Some(maps) => {
                let (keys, values) = (
                    maps.keys().as_string_opt::<i32>(),
                    maps.values().as_string_opt::<i32>(),
                );
                Some(keys.zip(values).ok_or_else(|| wrong(NAME))?)
            }
        };
        let mut places = vec![0; adds.len()];
        let mut texts: Vec<Option<&str>> = vec![None; state.partitions.len()];
        let mut key = Vec::new();
        let mut last = None;
        for row in (0..adds.len()).filter(|row| keep[*row]) {
            texts.fill(None);
            if let (Some(maps), Some((keys, values))) = (maps, entries)
                && maps.is_valid(row)
            {
                let offsets = maps.value_offsets();
                for at in offsets[row] as usize..offsets[row + 1] as usize {
                    let column = state
                        .partitions
                        .iter()
                        .position(|column| keys.is_valid(at) && column.physical == keys.value(at));
                    if let Some(column) = column {
                        texts[column] = values.is_valid(at).then(|| values.value(at));
                    }
                }
            }
            let before = key.len();
            for text in &texts {
                let length = text.map_or(u64::MAX, |text| text.len() as u64);
                key.extend_from_slice(&length.to_le_bytes());
                key.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
            // Files of a partition often follow each other.
            let (old, new) = key.split_at(before);
            places[row] = match last {
                Some(last) if old == new => last,
                _ => self.place(new, &texts, state)?,
            };
            last = Some(places[row]);
            key.drain(..before);
        }
        Ok(places)
    }

    fn place(&mut self, key: &[u8], texts: &[Option<&str>], state: &State) -> Result<u32> {
        if let Some(place) = self.by_text.get(key) {
            return Ok(*place);
        }
        let values = state.partitions.iter().zip(texts);
        let values = values.map(|(column, text)| column.parse(*text));
        let place = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        self.partitions.push(Partition {
            spec_id: 0,
            values: values.collect::<Result<_>>()?,
        });
        self.by_text.insert(key.to_vec(), place);
        Ok(place)
    }
}

/// Statistics that are there as columns: the same that texts would say.
fn of_parsed(named: &Named, adds: &StructArray) -> Result<(Vec<u64>, HashMap<String, Bounds>)> {
    let parsed = adds
        .column_by_name("stats_parsed")
        .and_then(|column| column.as_struct_opt());
    let parsed = parsed.ok_or_else(|| wrong("stats_parsed"))?;
    let counted = Numbers::long(parsed, "numRecords")?;
    let there = |row: usize| adds.is_valid(row) && parsed.is_valid(row);
    let count = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    let rows = (0..adds.len()).map(|row| counted.get(row).filter(|_| there(row)));
    let rows = rows.map(|rows| count(rows).unwrap_or(0)).collect();
    let mut columns = HashMap::new();
    for leaf in &named.leaves {
        let bound = |kind: &str, upper: bool| {
            let found =
                inside(parsed, kind, &leaf.path).and_then(|values| bound(&values, &leaf.data_type, upper));
            found.unwrap_or_else(|| arrow::array::new_null_array(&leaf.data_type, adds.len()))
        };
        let nulls = inside(parsed, "nullCount", &leaf.path);
        let nulls: UInt64Array = match nulls
            .as_ref()
            .and_then(|nulls| nulls.as_primitive_opt::<Int64Type>())
        {
            Some(nulls) => nulls.iter().map(count).collect(),
            None => UInt64Array::new_null(adds.len()),
        };
        let bounds = Bounds {
            min: bound("minValues", false),
            max: bound("maxValues", true),
            nulls,
            nans: None,
        };
        columns.insert(leaf.name.clone(), bounds);
    }
    Ok((rows, columns))
}

/// A column inside of structs, NULL where one of them is.
fn inside(parsed: &StructArray, kind: &str, path: &[String]) -> Option<ArrayRef> {
    let mut at: ArrayRef = Arc::clone(parsed.column_by_name(kind)?);
    let mut nulls = arrow::buffer::NullBuffer::union(parsed.nulls(), at.nulls());
    for name in path {
        let inner = Arc::clone(at.as_struct_opt()?.column_by_name(name)?);
        nulls = arrow::buffer::NullBuffer::union(nulls.as_ref(), inner.logical_nulls().as_ref());
        at = inner;
    }
    let data = at.to_data().into_builder().nulls(nulls).build().ok()?;
    Some(arrow::array::make_array(data))
}

/// Bounds in the column's type; `None` where they cannot be bounds of it, as files of another time may have them.
fn bound(values: &ArrayRef, data_type: &DataType, upper: bool) -> Option<ArrayRef> {
    use DataType as T;
    let wider = match (values.data_type(), data_type) {
        (from, to) if from == to => !to.is_floating(),
        (T::Int8 | T::Int16 | T::Int32, T::Int16 | T::Int32 | T::Int64) => {
            values.data_type().primitive_width() < data_type.primitive_width()
        }
        (
            T::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond, a),
            T::Timestamp(TimeUnit::Microsecond, b),
        ) => a.is_some() == b.is_some(),
        (T::Decimal128(a, s), T::Decimal128(b, t)) => a <= b && s == t,
        _ => false,
    };
    if !wider {
        return None;
    }
    let bounds = compute::cast(values, data_type).ok()?;
    let T::Timestamp(TimeUnit::Microsecond, zone) = data_type else {
        return Some(bounds);
    };
    if !upper {
        return Some(bounds);
    }
    // Most writers cut timestamps after the millisecond.
    let bounds = bounds.as_primitive::<TimestampMicrosecondType>();
    let widened = bounds.unary_opt::<_, TimestampMicrosecondType>(|micros| match micros % 1000 {
        0 => micros.checked_add(999),
        _ => Some(micros),
    });
    Some(Arc::new(widened.with_timezone_opt(zone.clone())))
}
