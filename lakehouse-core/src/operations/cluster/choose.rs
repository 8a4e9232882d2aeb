//! Which files are not in order yet.
//!
//! Files need rewriting where their ranges overlap. Files of one run of compaction do not count as overlapping each
//! other, whatever their statistics say: bounds are rounded and cut. Along a curve, no files do that were written along it:
//! boxes around stretches of a curve overlap. Which run wrote a file, and in which order, is noted in the file itself; of
//! the formats' metadata no field tells it for all orders. Footers are read of files only that seem to overlap, nearly all
//! of which would be rewritten anyway.
//!
//! A second run finds nothing to do: what is written in a plain order lies within the ranges of what it replaces, which no
//! other file overlaps; what is written along a curve says so.

use std::collections::{BTreeMap, HashMap};

use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use parquet::file::metadata::ParquetMetaData;

use super::Order;
use crate::error::Result;
use crate::format::Handle;
use crate::model::{CLUSTERING, DataFile, Extents, FileOrder, Snapshot};
use crate::scan::read_footer;

/// Footers read at the same time.
const CONCURRENT: usize = 16;

/// Files to be rewritten, and others.
#[derive(Debug, Default)]
pub(in crate::operations) struct Chosen {
    /// Each of one partition, to be written in order, apart from the other ones.
    pub(in crate::operations) groups: Vec<Vec<DataFile>>,
    /// Files that the order says nothing about: their statistics are unknown.
    pub(in crate::operations) others: Vec<DataFile>,
}

/// The run that wrote a file in the order that is asked for, and the size in bytes that its files were to have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    id: String,
    target: Option<u64>,
}

/// By path of the file.
type Runs = HashMap<String, Run>;

/// The files, all of today's partitioning, that have to be rewritten so that rows lie in this order: those that overlap
/// others, and those that `is_due` says are to be rewritten by themselves or, if `become_fewer` says that it is worth it,
/// together with their neighbours.
///
/// # Errors
/// When the footer of a file cannot be read.
pub(in crate::operations) async fn choose(
    handle: &Handle,
    snapshot: &Snapshot,
    order: &Order,
    files: Vec<DataFile>,
    is_due: &(dyn Fn(&DataFile) -> Due + Sync),
    become_fewer: &(dyn Fn(&[DataFile]) -> bool + Sync),
    target: u64,
) -> Result<Chosen> {
    let mut chosen = Chosen::default();
    let become_fewer = |files: &[DataFile], runs: &Runs| {
        // Files of one run are as large as it could make them.
        let run = files.first().and_then(|file| runs.get(&file.path));
        let one_run = run.is_some_and(|run| {
            run.target == Some(target) && files.iter().all(|file| runs.get(&file.path) == Some(run))
        });
        !files.is_empty() && !one_run && become_fewer(files)
    };
    let mut partitions: BTreeMap<usize, Vec<DataFile>> = BTreeMap::new();
    let mut numbers: HashMap<Vec<ScalarValue>, usize> = HashMap::new();
    for file in files {
        // Another implementation keeps track of what it clustered (Delta protocol, "Writer Requirements for
        // Clustered Table").
        let of_others = file.notes.as_ref().and_then(|notes| notes.clustering.as_deref());
        if order.of_table && of_others.is_some_and(|name| name != CLUSTERING) {
            continue;
        }
        let next = numbers.len();
        let number = *numbers.entry(file.partition.clone()).or_insert(next);
        partitions.entry(number).or_default().push(file);
    }
    for files in partitions.into_values() {
        let partition = Partition::new(snapshot, order, files);
        let suspects = partition.suspects(is_due);
        let runs = runs(handle, &order.of_files, suspects).await?;
        partition.choose(order, &runs, is_due, &become_fewer, &mut chosen);
    }
    Ok(chosen)
}

/// Whether a file is to be rewritten, whatever order its rows are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::operations) enum Due {
    /// It is good.
    No,
    /// It is small: where fewer files come of it and its neighbours.
    Small,
    /// It is so large that it will be several, which may as well be in order.
    Large,
    /// In any case.
    Yes,
}

/// The files of one partition.
struct Partition {
    files: Vec<DataFile>,
    extents: Extents,
    /// Ranges in several columns at once, not those of tuples of values.
    boxes: bool,
    descending: Vec<bool>,
}

impl Partition {
    fn new(snapshot: &Snapshot, order: &Order, files: Vec<DataFile>) -> Self {
        let all: Vec<&DataFile> = files.iter().collect();
        Self {
            extents: Extents::new(snapshot, &all, &order.ends()),
            files,
            boxes: order.curve.is_some(),
            descending: order.keys.iter().map(|key| key.column.descending).collect(),
        }
    }

    /// Whether rows of one file belong between those of the other.
    fn overlap(&self, one: usize, other: usize) -> bool {
        if !self.extents.is_known(one) || !self.extents.is_known(other) {
            return false;
        }
        if self.boxes {
            let same = self.extents.of(one) == self.extents.of(other);
            // Nothing puts equal rows apart.
            let single = self.extents.of(one).iter().all(|(low, high)| low == high);
            return !(same && single) && self.extents.overlap(one, other);
        }
        // The first column in which not all rows of both have one value decides.
        let mut columns = self.extents.of(one).iter().zip(self.extents.of(other));
        let decisive = columns.find(|(a, b)| a != b || a.0 != a.1);
        decisive.is_some_and(|(a, b)| Extents::meet(*a, *b))
    }

    /// Files of which it counts who wrote them: those that overlap others by their statistics, small and large ones.
    fn suspects(&self, is_due: &(dyn Fn(&DataFile) -> Due + Sync)) -> Vec<&DataFile> {
        let found = self.extents.any(|one, other| self.overlap(one, other));
        let files = self.files.iter().zip(found);
        let asked = |file: &DataFile| match is_due(file) {
            Due::Small => self.files.len() > 1,
            Due::Large => true,
            Due::No | Due::Yes => false,
        };
        files
            .filter_map(|(file, found)| (found || asked(file)).then_some(file))
            .collect()
    }

    fn choose(
        self,
        order: &Order,
        runs: &Runs,
        is_due: &(dyn Fn(&DataFile) -> Due + Sync),
        become_fewer: &(dyn Fn(&[DataFile], &Runs) -> bool + Sync),
        chosen: &mut Chosen,
    ) {
        let run = |file: usize| runs.get(&self.files[file].path);
        let apart = |one: usize, other: usize| match (run(one), run(other)) {
            // Boxes around stretches of a curve overlap, also those of later runs, which took up what overlapped new rows.
            (Some(_), Some(_)) if self.boxes => true,
            (Some(one), Some(other)) => one.id == other.id,
            _ => false,
        };
        let overlap = |one, other| self.overlap(one, other) && !apart(one, other);
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (file, part) in self.extents.components(overlap).into_iter().enumerate() {
            if self.extents.is_known(file) {
                parts.entry(part).or_default().push(file);
            }
        }
        let parts: Vec<Vec<usize>> = parts.into_values().collect();
        let fate = |part: &[usize]| match part {
            [file] => match is_due(&self.files[*file]) {
                Due::Large if run(*file).is_some() => Due::No,
                Due::Large => Due::Yes,
                due => due,
            },
            _ => Due::Yes,
        };
        let become_fewer = |group: &[usize]| {
            let files: Vec<DataFile> = group.iter().map(|file| self.files[*file].clone()).collect();
            become_fewer(&files, runs)
        };
        let groups = match order.curve {
            Some(_) => self.one_group(&parts, fate, become_fewer),
            None => self.neighbours(parts, fate, become_fewer),
        };
        let mut of_file = vec![None; self.files.len()];
        let count = groups.len();
        for (number, group) in groups.into_iter().enumerate() {
            group.into_iter().for_each(|file| of_file[file] = Some(number));
        }
        let mut groups = vec![Vec::new(); count];
        for (at, file) in self.files.into_iter().enumerate() {
            match of_file[at] {
                Some(group) => groups[group].push(file),
                None if !self.extents.is_known(at) => chosen.others.push(file),
                None => {}
            }
        }
        chosen.groups.extend(groups);
    }

    /// Groups of a plain order: neighbours that are to be rewritten, so that no file reaches over one that stays.
    fn neighbours(
        &self,
        mut parts: Vec<Vec<usize>>,
        fate: impl Fn(&[usize]) -> Due,
        become_fewer: impl Fn(&[usize]) -> bool,
    ) -> Vec<Vec<usize>> {
        let place = |file: usize| -> Vec<(i64, i64)> {
            let columns = self.extents.of(file).iter().zip(&self.descending);
            let ends = columns.map(|((low, high), descending)| match descending {
                true => (-i64::from(*high), -i64::from(*low)),
                false => (i64::from(*low), i64::from(*high)),
            });
            ends.collect()
        };
        parts.sort_by_cached_key(|part| part.iter().map(|file| place(*file)).min());
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let (mut open, mut due) = (Vec::new(), false);
        let mut close = |open: &mut Vec<usize>, due: &mut bool| {
            if *due || become_fewer(open) {
                groups.push(std::mem::take(open));
            }
            open.clear();
            *due = false;
        };
        for part in parts {
            match fate(&part) {
                Due::No => close(&mut open, &mut due),
                fate => {
                    due |= fate == Due::Yes;
                    open.extend(part);
                }
            }
        }
        close(&mut open, &mut due);
        groups
    }

    /// The group of a curve: all that is to be rewritten, so that one small file is left of it and not several.
    fn one_group(
        &self,
        parts: &[Vec<usize>],
        fate: impl Fn(&[usize]) -> Due,
        become_fewer: impl Fn(&[usize]) -> bool,
    ) -> Vec<Vec<usize>> {
        let (mut group, mut due) = (Vec::new(), false);
        for part in parts {
            let fate = fate(part);
            if fate != Due::No {
                due |= fate == Due::Yes;
                group.extend_from_slice(part);
            }
        }
        match due || become_fewer(&group) {
            true => vec![group],
            false => Vec::new(),
        }
    }
}

/// The run that wrote each of these files, if it did in this order.
async fn runs(handle: &Handle, order: &FileOrder, files: Vec<&DataFile>) -> Result<Runs> {
    let mut reading: Vec<BoxFuture<'_, Result<_>>> = Vec::with_capacity(files.len());
    for file in files {
        reading.push(Box::pin(async move {
            let footer = read_footer(&handle.store, &file.path, file.bytes).await?;
            Ok(run(&footer, order).map(|run| (file.path.clone(), run)))
        }));
    }
    let found: Vec<_> = stream::iter(reading).buffered(CONCURRENT).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

fn run(footer: &ParquetMetaData, order: &FileOrder) -> Option<Run> {
    let notes = footer.file_metadata().key_value_metadata()?;
    let noted = |key: &str| notes.iter().find(|note| note.key == key)?.value.clone();
    let name = noted(FileOrder::NAME_KEY)?;
    let run = Run {
        id: noted(FileOrder::RUN_KEY)?,
        target: noted(FileOrder::TARGET_KEY).and_then(|bytes| bytes.parse().ok()),
    };
    (name == order.name).then_some(run)
}
