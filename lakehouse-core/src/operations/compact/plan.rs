//! Which files are worth rewriting, and which of them together. Looks at what the metadata tells, reads and writes
//! nothing.
//!
//! A plan over files that a run has left must be empty (`tests.rs` tries that). It is, because of the files that one
//! group becomes, one at most is small, and none is masked: what can be joined again gets less with every round, and
//! [`super::compact`] goes on until there is nothing.

use std::collections::{HashMap, HashSet};

use datafusion::scalar::ScalarValue;

use super::options::{CompactStrategy, DELETE_RATIO, MAX_REWRITE, MIN_INPUT_FILES, REWRITE_TARGETS};
use super::{Compact, CompactedGroup, GroupOutcome};
use crate::model::{DataFile, Snapshot, is_small_file, partition_folder};

/// Bytes and partitions that one writer takes: few enough that it need not close files early.
const LOT_BYTES: u64 = 64 << 20;
const LOT_PARTITIONS: usize = 128;

/// Bytes and files that one commit takes, if a single group is not more: a commit costs as much as reading some
/// megabytes, and what is done is safe from then on.
const COMMIT_BYTES: u64 = 1 << 30;
const COMMIT_FILES: usize = 10_000;

/// Files that are rewritten together, in the order of their listing: of one partition, or of an older partitioning.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub(super) files: Vec<DataFile>,
    /// Files of it that others have removed since it was planned.
    pub(super) lost: Vec<DataFile>,
    /// They are to be put in order together: reason enough, as long as there are two of them if others removed some.
    pub(super) overlapping: bool,
}

impl Group {
    pub(super) fn of(files: Vec<DataFile>) -> Self {
        Self {
            files,
            lost: Vec::new(),
            overlapping: false,
        }
    }

    /// Bytes of the files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// How files are chosen.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) target: u64,
    pub(super) strategy: CompactStrategy,
    pub(super) min_input_files: usize,
    pub(super) delete_ratio: f64,
    pub(super) max_rewrite: u64,
    /// Bytes of files that are put in order together, if they are more than one.
    pub(super) max_ordered: u64,
    /// The partitioning that new files have.
    pub(super) spec_id: i32,
}

type Partition = (i32, Vec<ScalarValue>);

impl Rules {
    /// What was asked for; `target` is the size of new files in bytes.
    pub(super) fn new(compact: &Compact, target: u64, spec_id: i32) -> Self {
        let usual = MAX_REWRITE.max(target.saturating_mul(REWRITE_TARGETS));
        Self {
            target,
            strategy: compact.strategy,
            min_input_files: compact.min_input_files.unwrap_or(MIN_INPUT_FILES),
            delete_ratio: compact.delete_ratio_threshold.unwrap_or(DELETE_RATIO),
            max_rewrite: compact.max_rewrite.unwrap_or(usual),
            // Put in order at once they come to lie best, so only who asks gets less.
            max_ordered: (compact.max_rewrite.into_iter().chain(compact.max_bytes))
                .min()
                .unwrap_or(u64::MAX),
            spec_id,
        }
    }

    /// The rules for what a run leaves: tails of groups that can be joined, nothing that is good.
    pub(super) fn for_the_rest(&self) -> Self {
        match self.strategy {
            CompactStrategy::All => self.thorough(),
            _ => self.clone(),
        }
    }

    /// [`CompactStrategy::Auto`], and any masked row is reason enough.
    fn thorough(&self) -> Self {
        Self {
            strategy: CompactStrategy::Auto,
            delete_ratio: 0.0,
            ..self.clone()
        }
    }

    /// The groups that are worth it, in the order of the first file of each.
    pub(super) fn groups(&self, files: Vec<DataFile>) -> Vec<Group> {
        let mut index: HashMap<Partition, usize> = HashMap::new();
        let mut partitions: Vec<Vec<DataFile>> = Vec::new();
        for file in files {
            if self.strategy != CompactStrategy::All && !self.is_candidate(&file) {
                continue;
            }
            let at = *index.entry(partition(&file)).or_insert_with(|| {
                partitions.push(Vec::new());
                partitions.len() - 1
            });
            partitions[at].push(file);
        }
        let (mut chosen, mut left) = (Vec::new(), Vec::new());
        for files in partitions {
            if self.strategy == CompactStrategy::All && !self.is_unfinished(&files) {
                continue;
            }
            for files in packed(files, self.max_rewrite, usize::MAX, |file| (file.bytes, 1)) {
                let side = if self.is_worth_it(&files) {
                    &mut chosen
                } else {
                    &mut left
                };
                side.push(Group::of(files));
            }
        }
        let is_foreign = |group: &Group| group.files.iter().any(|file| self.is_foreign(file));
        if !chosen.iter().any(is_foreign) {
            return chosen;
        }
        // Rows that were partitioned otherwise come to lie beside those of small files, in partitions that nobody knows
        // before: one writer for all of them, as far as they fit into a group.
        if self.strategy != CompactStrategy::All {
            chosen.extend(left.into_iter().filter(|group| !is_foreign(group)));
        }
        let packs = packed(chosen, self.max_rewrite, usize::MAX, |group| (group.bytes(), 1));
        let joined = packs
            .into_iter()
            .map(|pack| pack.into_iter().flat_map(|group| group.files));
        joined.map(|files| Group::of(files.collect())).collect()
    }

    /// Whether a group is worth rewriting, as it is by now.
    pub(super) fn is_worth_rewriting(&self, group: &Group) -> bool {
        let as_planned = !group.files.is_empty() && group.lost.is_empty();
        (group.overlapping && (as_planned || group.files.len() > 1)) || self.is_worth_it(&group.files)
    }

    /// Whether these files, of one partition, are worth rewriting together.
    pub(super) fn is_worth_it(&self, files: &[DataFile]) -> bool {
        if self.strategy == CompactStrategy::All {
            return files.len() > 1 || files.iter().any(|file| self.is_foreign(file) || is_masked(file));
        }
        if files.iter().any(|file| self.is_due(file)) {
            return true;
        }
        files.len() >= self.min_input_files && self.expected_files(files) < files.len() as u64
    }

    /// Files that will come of these, going by their bytes and by the rows that the metadata knows to be masked.
    pub(super) fn expected_files(&self, files: &[DataFile]) -> u64 {
        let left = |file: &DataFile| {
            let masked = known_masked_rows(file).min(file.rows);
            match file.rows {
                0 => 0.0,
                rows => file.bytes as f64 * (rows - masked) as f64 / rows as f64,
            }
        };
        let bytes: f64 = files.iter().map(left).sum();
        (bytes.ceil() as u64).div_ceil(self.target)
    }

    /// Whether a partition has anything to do at all.
    fn is_unfinished(&self, files: &[DataFile]) -> bool {
        files.iter().any(|file| self.is_foreign(file)) || !self.thorough().groups(files.to_vec()).is_empty()
    }

    /// Whether a file may be part of a group.
    fn is_candidate(&self, file: &DataFile) -> bool {
        match self.strategy {
            CompactStrategy::Auto => self.is_small(file) || self.is_due(file),
            CompactStrategy::SmallFiles => self.is_small(file),
            CompactStrategy::MaskedFiles => self.is_due(file),
            CompactStrategy::All => true,
        }
    }

    /// Whether a file is rewritten whatever lies beside it.
    pub(super) fn is_due(&self, file: &DataFile) -> bool {
        if !is_masked(file) || self.strategy == CompactStrategy::SmallFiles {
            return false;
        }
        // What must be read to be known may be all of its rows.
        let ratio = file
            .masked_rows()
            .map_or(1.0, |masked| masked as f64 / file.rows.max(1) as f64);
        let cheap = self.strategy == CompactStrategy::Auto && self.is_small(file);
        cheap || ratio >= self.delete_ratio
    }

    /// Whether a file is smaller than it should be.
    pub(super) fn is_small(&self, file: &DataFile) -> bool {
        self.is_small_size(file.bytes)
    }

    /// The same of so many bytes.
    pub(super) fn is_small_size(&self, bytes: u64) -> bool {
        is_small_file(bytes, self.target)
    }

    pub(super) fn is_foreign(&self, file: &DataFile) -> bool {
        file.spec_id != self.spec_id
    }

    /// The groups that fit into so many bytes, those first that win the most for what they cost, one of them in part
    /// perhaps; and the others.
    pub(super) fn within(&self, groups: Vec<Group>, max_bytes: u64) -> (Vec<Group>, Vec<Group>) {
        let gain = |group: &Group| {
            let due = group.files.iter().filter(|file| is_masked(file)).count() as u64;
            let fewer = (group.files.len() as u64).saturating_sub(self.expected_files(&group.files));
            (fewer + due) as f64 / group.bytes().max(1) as f64
        };
        let mut by_gain = groups;
        by_gain.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        let mut left = max_bytes;
        let (mut within, mut beyond) = (Vec::new(), Vec::new());
        for mut group in by_gain {
            let mut room = left;
            let fits = |file: &DataFile| {
                room.checked_sub(file.bytes).is_some_and(|rest| {
                    room = rest;
                    true
                })
            };
            let fitting = group.files.iter().map(fits).take_while(|fits| *fits).count();
            let whole = fitting == group.files.len();
            // A part of what overlaps would overlap the rest.
            if !whole && (group.overlapping || !self.is_worth_it(&group.files[..fitting])) {
                beyond.push(group);
                continue;
            }
            let rest = group.files.split_off(fitting);
            left -= group.bytes();
            within.push(group);
            if !rest.is_empty() {
                beyond.push(Group::of(rest));
            }
        }
        (within, beyond)
    }
}

impl Group {
    /// What is told of the group.
    pub(super) fn report(&self, rules: &Rules, snapshot: &Snapshot, outcome: GroupOutcome) -> CompactedGroup {
        let files = match self.files.as_slice() {
            [] => &self.lost,
            files => files,
        };
        let first = files.first();
        let same = |file: &DataFile| first.is_some_and(|first| partition(first) == partition(file));
        let common = first.filter(|_| files.iter().all(same));
        let folder = common.and_then(|file| {
            let fields = snapshot.specs.get(&file.spec_id)?;
            Some(partition_folder(fields, &file.partition))
        });
        CompactedGroup {
            partition: folder.unwrap_or_default(),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
            rows: files.iter().map(|file| file.rows).sum(),
            masked_rows: files.iter().map(known_masked_rows).sum(),
            expected_files: rules.expected_files(files),
            outcome,
        }
    }
}

/// What makes files lie side by side.
pub(super) fn partition(file: &DataFile) -> Partition {
    (file.spec_id, file.partition.clone())
}

fn is_masked(file: &DataFile) -> bool {
    !file.masks.is_empty() || !file.equality_deletes.is_empty()
}

fn known_masked_rows(file: &DataFile) -> u64 {
    let own = file.masks.iter().filter(|mask| !mask.shared);
    let known = || own.filter_map(|mask| mask.rows).sum::<u64>();
    file.masked_rows().unwrap_or_else(known).min(file.rows)
}

/// Groups that are rewritten by one scan and one writer, which splits them again: planning a scan for
/// each small partition would take longer than reading it.
pub(super) fn lots(groups: Vec<Group>) -> Vec<Vec<Group>> {
    packed(groups, LOT_BYTES, LOT_PARTITIONS, |group| (group.bytes(), 1))
}

/// The same of groups whose rows are put in order: of one partition each is alone, so that no new file reaches over
/// files that lie between two groups.
pub(super) fn ordered_lots(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut lots = Vec::new();
    for lot in lots_of_neighbours(groups) {
        lots.extend(packed(lot, LOT_BYTES, LOT_PARTITIONS, |group| (group.bytes(), 1)));
    }
    lots
}

/// Groups that lie side by side, cut before each that has a partition in common with one before it.
fn lots_of_neighbours(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let (mut lots, mut seen) = (vec![Vec::new()], HashSet::new());
    for group in groups {
        let places: HashSet<Partition> = group.files.iter().map(partition).collect();
        if !seen.is_disjoint(&places) {
            lots.push(Vec::new());
            seen.clear();
        }
        seen.extend(places);
        if let Some(lot) = lots.last_mut() {
            lot.push(group);
        }
    }
    lots
}

/// Groups that are committed together; `max_rewrite` is what a group may be. If several commits are worked on at the same
/// time, there are about as many, as far as there are groups.
pub(super) fn commits(groups: Vec<Group>, max_rewrite: u64, concurrent: usize) -> Vec<Vec<Group>> {
    let mut bytes = COMMIT_BYTES.min(max_rewrite);
    if concurrent > 1 {
        let all: u64 = groups.iter().map(Group::bytes).sum();
        bytes = bytes.min(all.div_ceil(concurrent as u64));
    }
    packed(groups, bytes, COMMIT_FILES, |group| {
        (group.bytes(), group.files.len())
    })
}

/// What lies side by side, in packs of so many bytes and pieces, or of one that is larger.
fn packed<T>(items: Vec<T>, bytes: u64, pieces: usize, weigh: impl Fn(&T) -> (u64, usize)) -> Vec<Vec<T>> {
    let mut packs: Vec<Vec<T>> = Vec::new();
    let mut full = (0_u64, 0_usize);
    for item in items {
        let (more_bytes, more_pieces) = weigh(&item);
        let sum = (full.0.saturating_add(more_bytes), full.1 + more_pieces);
        match packs.last_mut() {
            Some(pack) if sum.0 <= bytes && sum.1 <= pieces => {
                pack.push(item);
                full = sum;
            }
            _ => {
                packs.push(vec![item]);
                full = (more_bytes, more_pieces);
            }
        }
    }
    packs
}
