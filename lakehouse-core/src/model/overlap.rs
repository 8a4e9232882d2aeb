//! How far the ranges of files overlap: what clustering improves, told from statistics alone.

use std::cmp::Ordering;
use std::collections::HashMap;

use datafusion::scalar::ScalarValue;

use super::{ColumnStats, DataFile, Snapshot, Transform};

/// Comparisons that one figure may take; of very many files, a sample is looked up.
const MOST_COMPARED: usize = 1 << 28;
const FEWEST_LOOKUPS: usize = 64;

/// Characters from which on a text bound may be the beginning of a longer value (16 in other writers' Iceberg files, 32
/// in Delta's and in ours).
const CUT_BOUND: usize = 16;

/// How far files overlap in some columns, each within its partition.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overlap {
    /// Files of the version.
    pub files: u64,
    /// How many files a lookup of one row reads on average, if it names a value of each of the columns and the
    /// partition. 1 is best; without any order it is the number of files of a partition. Estimated at the middle of each
    /// file's ranges.
    pub depth: f64,
    /// Files that share more than an end of their ranges with another one, in all of the columns.
    pub overlapping: u64,
    /// Files without statistics of one of the columns: every lookup reads them.
    pub unknown: u64,
}

/// How far files overlap in these columns, `a.b` inside structs.
pub fn overlap(snapshot: &Snapshot, files: &[DataFile], columns: &[&str]) -> Overlap {
    let ends: Vec<_> = columns.iter().map(|column| (*column, true)).collect();
    let mut partitions: HashMap<(i32, &[ScalarValue]), Vec<&DataFile>> = HashMap::new();
    for file in files {
        partitions
            .entry((file.spec_id, &file.partition))
            .or_default()
            .push(file);
    }
    let mut sum = Sum::default();
    for files in partitions.values() {
        sum.add(files, &Extents::new(snapshot, files, &ends));
    }
    Overlap {
        files: files.len() as u64,
        depth: if sum.rows > 0.0 { sum.read / sum.rows } else { 0.0 },
        overlapping: sum.overlapping,
        unknown: sum.unknown,
    }
}

#[derive(Default)]
struct Sum {
    /// Rows that were looked up, and files read for each of them.
    rows: f64,
    read: f64,
    overlapping: u64,
    unknown: u64,
}

impl Sum {
    /// Adds the files of one partition.
    fn add(&mut self, files: &[&DataFile], extents: &Extents) {
        let most = (MOST_COMPARED / files.len().max(1)).max(FEWEST_LOOKUPS);
        let step = files.len().div_ceil(most).max(1);
        for at in (0..files.len()).step_by(step) {
            let rows = files[at].rows as f64;
            self.rows += rows;
            self.read += rows * extents.holding_middle_of(at) as f64;
        }
        let overlapping = extents.any(|one, other| extents.overlap(one, other));
        self.overlapping += overlapping.iter().filter(|found| **found).count() as u64;
        self.unknown += extents.known.iter().filter(|known| !**known).count() as u64;
    }
}

/// The ranges of files in some columns. Ends are numbered in their order: what is asked of them is how they compare.
#[derive(Debug)]
pub(crate) struct Extents {
    width: usize,
    /// The lower and the upper end by file and column.
    ends: Vec<(u32, u32)>,
    /// All ranges of the file are known; an unknown one covers everything.
    known: Vec<bool>,
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq)]
enum End {
    Null,
    Value(ScalarValue),
    Nan,
}

impl Extents {
    /// Those of files of one partition, in columns of which NULLs come before all values, or after them.
    pub(crate) fn new(snapshot: &Snapshot, files: &[&DataFile], columns: &[(&str, bool)]) -> Self {
        let width = columns.len();
        let mut extents = Self {
            width,
            ends: vec![(0, 0); files.len() * width],
            known: vec![true; files.len()],
        };
        for (at, (column, nulls_low)) in columns.iter().enumerate() {
            let ranges = files.iter().map(|file| range(snapshot, file, column, *nulls_low));
            let ranges: Vec<Option<(End, End)>> = ranges.collect();
            let all = ranges.iter().flatten();
            let mut order: Vec<&End> = all.flat_map(|(low, high)| [low, high]).collect();
            let compare = |a: &End, b: &End| compare(a, b, *nulls_low);
            order.sort_by(|a, b| compare(a, b));
            order.dedup_by(|a, b| compare(a, b) == Ordering::Equal);
            let number = |end: &End| {
                let found = order.partition_point(|other| compare(other, end) == Ordering::Less);
                u32::try_from(found).unwrap_or(u32::MAX)
            };
            let last = u32::try_from(order.len().saturating_sub(1)).unwrap_or(u32::MAX);
            for (file, range) in ranges.iter().enumerate() {
                extents.known[file] &= range.is_some();
                extents.ends[file * width + at] = match range {
                    Some((low, high)) => (number(low), number(high)),
                    None => (0, last),
                };
            }
        }
        extents
    }

    /// The ranges of a file, by column.
    pub(crate) fn of(&self, file: usize) -> &[(u32, u32)] {
        &self.ends[file * self.width..(file + 1) * self.width]
    }

    /// Whether statistics tell all ranges of a file.
    pub(crate) fn is_known(&self, file: usize) -> bool {
        self.known[file]
    }

    /// Whether two files share more than an end of their ranges, in every column.
    pub(crate) fn overlap(&self, one: usize, other: usize) -> bool {
        self.of(one)
            .iter()
            .zip(self.of(other))
            .all(|(a, b)| Self::meet(*a, *b))
    }

    /// How many files may hold the row in the middle of this one.
    fn holding_middle_of(&self, file: usize) -> usize {
        let middle = |(low, high): &(u32, u32)| u64::from(*low) + u64::from(*high);
        let middles: Vec<u64> = self.of(file).iter().map(middle).collect();
        let holds = |(middle, (low, high)): (&u64, &(u32, u32))| {
            (2 * u64::from(*low)..=2 * u64::from(*high)).contains(middle)
        };
        let others = 0..self.known.len();
        others
            .filter(|other| middles.iter().zip(self.of(*other)).all(holds))
            .count()
    }

    /// Files that fulfil a condition together with another one, which only such do whose ranges in the first column
    /// have a value in common.
    pub(crate) fn any(&self, condition: impl Fn(usize, usize) -> bool) -> Vec<bool> {
        let mut found = vec![false; self.known.len()];
        let order = self.in_order();
        // The largest end up to each place: where it is below a file's, nothing before can overlap it.
        let mut furthest: Vec<u32> = Vec::with_capacity(order.len());
        for file in &order {
            let end = self.first(*file).1;
            furthest.push(furthest.last().map_or(end, |last| end.max(*last)));
        }
        for (at, &file) in order.iter().enumerate() {
            if found[file] {
                continue;
            }
            let (low, high) = self.first(file);
            let before = (0..at).rev().take_while(|place| furthest[*place] >= low);
            let after = (at + 1..order.len()).take_while(|place| self.first(order[*place]).0 <= high);
            let mut others = before.chain(after);
            if let Some(place) = others.find(|place| condition(file, order[*place])) {
                found[file] = true;
                found[order[place]] = true;
            }
        }
        found
    }

    /// Numbers files so that those have the same number that fulfil a condition together, directly or by way of others.
    /// Only such do whose ranges in the first column have a value in common.
    pub(crate) fn components(&self, condition: impl Fn(usize, usize) -> bool) -> Vec<usize> {
        fn root(parents: &mut [usize], mut file: usize) -> usize {
            while parents[file] != file {
                parents[file] = parents[parents[file]];
                file = parents[file];
            }
            file
        }
        let mut parents: Vec<usize> = (0..self.known.len()).collect();
        let order = self.in_order();
        for (at, &file) in order.iter().enumerate() {
            let high = self.first(file).1;
            for &other in order[at + 1..]
                .iter()
                .take_while(|other| self.first(**other).0 <= high)
            {
                let (one, two) = (root(&mut parents, file), root(&mut parents, other));
                if one != two && condition(file, other) {
                    parents[one.max(two)] = one.min(two);
                }
            }
        }
        (0..parents.len()).map(|file| root(&mut parents, file)).collect()
    }

    /// Files by where their ranges begin in the first column.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.known.len()).collect();
        order.sort_by_key(|file| self.first(*file));
        order
    }

    /// The range of a file in the first column.
    fn first(&self, file: usize) -> (u32, u32) {
        self.of(file).first().copied().unwrap_or_default()
    }

    /// Whether two ranges share more than an end: a file that ends with the value that the next begins with is in order.
    pub(crate) fn meet(a: (u32, u32), b: (u32, u32)) -> bool {
        let (low, high) = (a.0.max(b.0), a.1.min(b.1));
        match low.cmp(&high) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                let inside = |range: (u32, u32)| range.0 < low && low < range.1;
                let single = |range: (u32, u32)| range.0 == range.1;
                match (single(a), single(b)) {
                    (true, true) => true,
                    (true, false) => inside(b),
                    (false, true) => inside(a),
                    (false, false) => false,
                }
            }
        }
    }
}

fn compare(a: &End, b: &End, nulls_low: bool) -> Ordering {
    let place = |end: &End| match end {
        End::Null if nulls_low => 0,
        End::Value(_) => 1,
        End::Nan => 2,
        End::Null => 3,
    };
    match (a, b) {
        (End::Value(a), End::Value(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        _ => place(a).cmp(&place(b)),
    }
}

/// The range of a column in a file, NULLs and NaNs included; `None` if statistics do not tell.
fn range(snapshot: &Snapshot, file: &DataFile, column: &str, nulls_low: bool) -> Option<(End, End)> {
    let Some(stats) = file.columns.get(column) else {
        return in_partition(snapshot, file, column).map(|end| (end.clone(), end));
    };
    if stats.nulls.is_some_and(|nulls| nulls >= file.rows) {
        return Some((End::Null, End::Null));
    }
    let (mut low, mut high) = match (&stats.min, &stats.max) {
        (Some(min), Some(max)) => bounds(min, max, stats),
        // Of nothing but NaNs there are no bounds.
        _ if stats.nans.is_some_and(|nans| nans >= file.rows) => (End::Nan, End::Nan),
        _ => return in_partition(snapshot, file, column).map(|end| (end.clone(), end)),
    };
    if stats.nans.is_some_and(|nans| nans > 0) {
        high = End::Nan;
    }
    if stats.nulls.is_some_and(|nulls| nulls > 0) {
        match nulls_low {
            true => low = End::Null,
            false => high = End::Null,
        }
    }
    Some((low, high))
}

/// The value that all rows of the file have because the table is partitioned by it.
fn in_partition(snapshot: &Snapshot, file: &DataFile, column: &str) -> Option<End> {
    let fields = snapshot.specs.get(&file.spec_id)?;
    let same =
        |field: &super::PartitionField| field.source == column && field.transform == Transform::Identity;
    let value = file.partition.get(fields.iter().position(same)?)?;
    Some(match value.is_null() {
        true => End::Null,
        false => End::Value(value.clone()),
    })
}

/// Both bounds, as coarse as they may be. Two files that are in order, one after the other, must not seem to overlap
/// because one's bound was widened and the other's was not.
fn bounds(min: &ScalarValue, max: &ScalarValue, stats: &ColumnStats) -> (End, End) {
    let (low, high) = match (min, max) {
        // Delta's bounds of doubles allow for those of a narrower column.
        (ScalarValue::Float64(Some(low)), ScalarValue::Float64(Some(high))) => {
            let coarse = |n: f64| match stats.exact || f64::from(n as f32).is_infinite() {
                true => ScalarValue::from(n + 0.0),
                false => ScalarValue::from(f64::from(n as f32) + 0.0),
            };
            (coarse(*low), coarse(*high))
        }
        (ScalarValue::Float32(Some(low)), ScalarValue::Float32(Some(high))) => {
            (ScalarValue::from(low + 0.0), ScalarValue::from(high + 0.0))
        }
        // What a cut value became an upper bound by is its last character.
        (ScalarValue::Utf8(Some(_)), ScalarValue::Utf8(Some(high)))
            if !stats.exact && high.chars().nth(CUT_BOUND - 1).is_some() =>
        {
            let end = high.char_indices().next_back().map_or(0, |(end, _)| end);
            (min.clone(), ScalarValue::from(&high[..end]))
        }
        (ScalarValue::Binary(Some(_)), ScalarValue::Binary(Some(high)))
            if !stats.exact && high.len() >= CUT_BOUND =>
        {
            let cut = high[..high.len() - 1].to_vec();
            (min.clone(), ScalarValue::Binary(Some(cut)))
        }
        _ => (min.clone(), max.clone()),
    };
    let high = if high < low { low.clone() } else { high };
    (End::Value(low), End::Value(high))
}

#[cfg(test)]
mod tests;
