//! Which files are not in order yet.
//!
//! Files need rewriting where their ranges overlap. Files of one run of compaction do not count as overlapping each
//! other, whatever their statistics say: bounds are rounded and cut. Along a curve, no files do that were written along it:
//! boxes around stretches of a curve overlap. Which run wrote a file, and in which order, is noted in the file itself; of
//! the formats' metadata no field tells it for all orders. Footers are read of files only that seem to overlap, nearly all
//! of which would be rewritten anyway.
//!
//! An order that is asked for, and is not the table's own, is also for a file that is alone in its partition, unless the file
//! says that it has it: nothing tells whether its rows lie in that order.
//!
//! A second run finds nothing to do: what is written in a plain order lies within the ranges of what it replaces, which no
//! other file overlaps; what is written along a curve says so.

use std::collections::{BTreeMap, HashMap};

use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use parquet::file::metadata::ParquetMetaData;

use super::Order;
use super::split::{Piece, packs};
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

/// What is to be known of files beside their order.
pub(in crate::operations) struct Judge<'a> {
    /// Whether a file is to be rewritten by itself.
    pub(in crate::operations) due: &'a (dyn Fn(&DataFile) -> Due + Sync),
    /// Whether it is worth it to join these.
    pub(in crate::operations) become_fewer: &'a (dyn Fn(&[DataFile]) -> bool + Sync),
    /// Size of new files in bytes.
    pub(in crate::operations) target: u64,
    /// Bytes that a group has at most, if it is more than one file.
    pub(in crate::operations) most: u64,
}

impl Judge<'_> {
    /// Whether it is worth it to join these, which these runs wrote.
    fn become_fewer(&self, files: &[DataFile], runs: &Runs) -> bool {
        // Files of one run are as large as it could make them.
        let run = files.first().and_then(|file| runs.get(&file.path));
        let one_run = run.is_some_and(|run| {
            run.target == Some(self.target) && files.iter().all(|file| runs.get(&file.path) == Some(run))
        });
        !files.is_empty() && !one_run && (self.become_fewer)(files)
    }
}

/// The files, all of today's partitioning, that have to be rewritten so that rows lie in this order: those that overlap
/// others, and those that are to be rewritten by themselves or, where it is worth it, together with their neighbours.
///
/// # Errors
/// When the footer of a file cannot be read.
pub(in crate::operations) async fn choose(
    handle: &Handle,
    snapshot: &Snapshot,
    order: &Order,
    files: Vec<DataFile>,
    judge: &Judge<'_>,
) -> Result<Chosen> {
    let mut chosen = Chosen::default();
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
        let suspects = partition.suspects(judge.due);
        let runs = runs(handle, &order.of_files, suspects).await?;
        partition.choose(order, &runs, judge, &mut chosen);
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
    /// It is one file, to be put in order if it does not say that it is.
    alone: bool,
}

impl Partition {
    fn new(snapshot: &Snapshot, order: &Order, files: Vec<DataFile>) -> Self {
        let all: Vec<&DataFile> = files.iter().collect();
        Self {
            extents: Extents::new(snapshot, &all, &order.ends()),
            alone: !order.of_table && files.len() == 1 && files[0].rows > 1,
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
            Due::Small => self.files.len() > 1 || self.alone,
            Due::Large => true,
            Due::No | Due::Yes => self.alone,
        };
        files
            .filter_map(|(file, found)| (found || asked(file)).then_some(file))
            .collect()
    }

    fn choose(self, order: &Order, runs: &Runs, judge: &Judge<'_>, chosen: &mut Chosen) {
        if self.alone && runs.is_empty() {
            chosen.groups.push(self.files);
            return;
        }
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
        let groups = match order.curve {
            Some(_) => self.along(&parts, runs, judge),
            None => self.neighbours(parts, runs, judge),
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

    /// Whether a part is to be rewritten.
    fn fate(&self, part: &[usize], runs: &Runs, judge: &Judge<'_>) -> Due {
        let [file] = part else { return Due::Yes };
        let file = &self.files[*file];
        match (judge.due)(file) {
            Due::Large if runs.contains_key(&file.path) => Due::No,
            Due::Large => Due::Yes,
            due => due,
        }
    }

    fn become_fewer(&self, group: &[usize], runs: &Runs, judge: &Judge<'_>) -> bool {
        let files: Vec<DataFile> = group.iter().map(|file| self.files[*file].clone()).collect();
        judge.become_fewer(&files, runs)
    }

    fn bytes(&self, files: &[usize]) -> u64 {
        files.iter().map(|file| self.files[*file].bytes).sum()
    }

    /// The lower ends of a file's ranges, and the upper ones, in the direction of the order.
    fn ends(&self, file: usize) -> (Vec<i64>, Vec<i64>) {
        let columns = self.extents.of(file).iter().zip(&self.descending);
        let ends = columns.map(|((low, high), descending)| match descending {
            true => (-i64::from(*high), -i64::from(*low)),
            false => (i64::from(*low), i64::from(*high)),
        });
        ends.unzip()
    }

    /// Groups of a plain order: neighbours that are to be rewritten, so that no file reaches over one that stays.
    fn neighbours(&self, mut parts: Vec<Vec<usize>>, runs: &Runs, judge: &Judge<'_>) -> Vec<Vec<usize>> {
        parts.sort_by_cached_key(|part| part.iter().map(|file| self.ends(*file)).min());
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let (mut open, mut due) = (Vec::new(), false);
        let close = |groups: &mut Vec<Vec<usize>>, open: &mut Vec<usize>, due: &mut bool| {
            if *due || self.become_fewer(open, runs, judge) {
                groups.push(std::mem::take(open));
            }
            open.clear();
            *due = false;
        };
        for part in parts {
            let fate = self.fate(&part, runs, judge);
            let bytes = self.bytes(&part);
            if fate == Due::No || bytes.saturating_add(self.bytes(&open)) > judge.most {
                close(&mut groups, &mut open, &mut due);
            }
            if part.len() > 1 && bytes > judge.most {
                groups.extend(self.split(&part, runs, judge));
            } else if fate != Due::No {
                due |= fate == Due::Yes;
                open.extend(part);
            }
        }
        close(&mut groups, &mut open, &mut due);
        groups
    }

    /// The group of a curve: all that is to be rewritten, so that one small file is left of it and not several; what is
    /// not along the curve yet, in several, if that is too much.
    fn along(&self, parts: &[Vec<usize>], runs: &Runs, judge: &Judge<'_>) -> Vec<Vec<usize>> {
        let (mut group, mut due) = (Vec::new(), false);
        for part in parts {
            let fate = self.fate(part, runs, judge);
            if fate != Due::No {
                due |= fate == Due::Yes;
                group.extend_from_slice(part);
            }
        }
        if self.bytes(&group) > judge.most && group.len() > 1 {
            return self.split(&group, runs, judge);
        }
        match due || self.become_fewer(&group, runs, judge) {
            true => vec![group],
            false => Vec::new(),
        }
    }

    /// Files that are to be rewritten and are too much for one group.
    fn split(&self, part: &[usize], runs: &Runs, judge: &Judge<'_>) -> Vec<Vec<usize>> {
        let is_open = |file: usize| {
            let file = &self.files[file];
            !runs.contains_key(&file.path) || (judge.due)(file) == Due::Yes
        };
        let ends: Vec<_> = part.iter().map(|file| self.ends(*file)).collect();
        let mut all: Vec<&Vec<i64>> = ends.iter().flat_map(|(low, high)| [low, high]).collect();
        all.sort_unstable();
        all.dedup();
        let number = |end: &Vec<i64>| all.partition_point(|other| *other < end);
        let pieces = part.iter().zip(&ends).map(|(file, (low, high))| Piece {
            file: *file,
            bytes: self.files[*file].bytes,
            place: (number(low), number(high)),
            open: is_open(*file),
        });
        match self.boxes {
            true => packs(pieces.filter(|piece| piece.open).collect(), judge.most),
            false => packs(pieces.collect(), judge.most),
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
