//! Where rows that move come to be: which rows of which old file are which rows of which new one.
//!
//! ```text
//! lane      the rows that it takes, in order, as runs of old positions; the files that it becomes, in order
//! RowMap    both laid over each other: old file, old positions -> new file, new positions
//! ```
//!
//! Rows of a lane keep their order on their way into its files, so nothing has to be noted per row: what moves as it
//! is costs one entry per file, or per masked row.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use arrow::array::{Array, AsArray, DictionaryArray, Int64Array};
use arrow::datatypes::Int32Type;

use crate::error::{Error, Result};
use crate::model::RowMask;
use crate::planted::{self, Bug};

/// Runs that one operation holds at most, some 100 MB: rows that are sorted on their way are runs of one row each.
const MAX_RUNS: usize = 4 << 20;

/// The old places of the rows of a batch.
#[derive(Debug)]
pub struct Origins {
    /// Paths of their files.
    pub files: DictionaryArray<Int32Type>,
    /// Their positions in these files.
    pub positions: Int64Array,
}

/// Where rows of old files are in new ones.
#[derive(Debug, Clone, Default)]
pub struct RowMap {
    files: Vec<String>,
    /// By path of the old file, in the order of old positions.
    runs: HashMap<String, Vec<Run>>,
    count: usize,
}

/// Rows that lie side by side in the old file and in the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    start: u64,
    rows: u64,
    file: usize,
    at: u64,
}

impl RowMap {
    /// These rows of an old file, as they are called in the new files; `None` if one of them did not move.
    pub fn moved(&self, path: &str, rows: &RowMask) -> Option<BTreeMap<String, RowMask>> {
        let mut moved: BTreeMap<String, RowMask> = BTreeMap::new();
        let mut found = 0;
        let runs = self.runs.get(path).map_or(&[][..], Vec::as_slice);
        for wanted in rows.runs() {
            let first = runs.partition_point(|run| run.start + run.rows <= wanted.start);
            for run in runs[first..].iter().take_while(|run| run.start < wanted.end) {
                let start = wanted.start.max(run.start);
                let end = wanted.end.min(run.start + run.rows);
                found += end - start;
                self.note(&mut moved, *run, start..end);
            }
        }
        (found == rows.len()).then_some(moved)
    }

    /// All rows of an old file that moved, as they are called in the new files.
    pub fn all(&self, path: &str) -> BTreeMap<String, RowMask> {
        let mut moved = BTreeMap::new();
        for run in self.runs.get(path).into_iter().flatten() {
            self.note(&mut moved, *run, run.start..run.start + run.rows);
        }
        moved
    }

    fn note(&self, moved: &mut BTreeMap<String, RowMask>, run: Run, rows: Range<u64>) {
        let mut at = run.at + (rows.start - run.start);
        if planted::is(Bug::MovedPositionsOff) && at > 0 {
            at -= 1;
        }
        let mask = moved.entry(self.files[run.file].clone()).or_default();
        mask.insert_range(at..at + (rows.end - rows.start));
    }

    /// Both maps as one; `None` if that is more than shall be held.
    pub fn with(mut self, other: Self) -> Option<Self> {
        let base = self.files.len();
        self.files.extend(other.files);
        self.count += other.count;
        if self.count > MAX_RUNS {
            return None;
        }
        for (path, runs) in other.runs {
            let all = self.runs.entry(path).or_default();
            all.extend(runs.into_iter().map(|run| Run {
                file: base + run.file,
                ..run
            }));
            all.sort_unstable_by_key(|run| run.start);
        }
        Some(self)
    }
}

/// What is noted of one lane.
#[derive(Debug, Default)]
pub(super) struct LaneTrace {
    /// Runs of old positions, in the order of the lane's rows: number of the old file, first position, rows.
    taken: Vec<(usize, u64, u64)>,
    /// The lane's files, in order, with their rows.
    files: Vec<(String, u64)>,
}

/// What is noted of a writer's rows.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    files: Vec<String>,
    numbers: HashMap<String, usize>,
    runs: usize,
}

impl Tracer {
    fn number(&mut self, path: &str) -> usize {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        self.numbers.insert(path.to_owned(), self.files.len());
        self.files.push(path.to_owned());
        self.files.len() - 1
    }

    /// For each row the number of its old file.
    ///
    /// # Errors
    /// When a row has no place.
    pub(super) fn numbers(&mut self, origins: &Origins) -> Result<Vec<i32>> {
        let names = origins.files.values().as_string::<i32>();
        let mut known: Vec<Option<i32>> = vec![None; names.len()];
        let mut numbers = Vec::with_capacity(origins.files.len());
        for key in origins.files.keys() {
            let key = key.ok_or_else(|| Error::invalid("a row that moves has no place", ""))? as usize;
            let number = match known[key] {
                Some(number) => number,
                None => *known[key].insert(i32::try_from(self.number(names.value(key))).unwrap_or(i32::MAX)),
            };
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// Notes rows that a lane takes.
    pub(super) fn take(&mut self, lane: &mut LaneTrace, files: &[i32], positions: &[i64]) {
        for (file, position) in files.iter().zip(positions) {
            let (file, position) = (file.cast_unsigned() as usize, position.cast_unsigned());
            self.run(lane, file, position..position + 1);
        }
    }

    /// Notes a row group that a lane takes.
    pub(super) fn take_group(&mut self, lane: &mut LaneTrace, path: &str, rows: Range<u64>) {
        let file = self.number(path);
        self.run(lane, file, rows);
    }

    fn run(&mut self, lane: &mut LaneTrace, file: usize, rows: Range<u64>) {
        match lane.taken.last_mut() {
            Some((last, start, count)) if *last == file && *start + *count == rows.start => {
                *count += rows.end - rows.start;
            }
            _ if self.runs > MAX_RUNS => {}
            _ => {
                self.runs += 1;
                lane.taken.push((file, rows.start, rows.end - rows.start));
            }
        }
    }

    /// The map, if all of it was noted.
    pub(super) fn finish<'a>(self, lanes: impl Iterator<Item = &'a mut LaneTrace>) -> Option<RowMap> {
        if self.runs > MAX_RUNS {
            return None;
        }
        let mut map = RowMap::default();
        for lane in lanes {
            let mut files = std::mem::take(&mut lane.files).into_iter();
            let (mut at, mut room) = (0, 0);
            for (file, mut start, mut rows) in std::mem::take(&mut lane.taken) {
                while rows > 0 {
                    if at == room {
                        let (path, rows) = files.next()?;
                        map.files.push(path);
                        (at, room) = (0, rows);
                        continue;
                    }
                    let here = rows.min(room - at);
                    let runs = map.runs.entry(self.files[file].clone()).or_default();
                    runs.push(Run {
                        start,
                        rows: here,
                        file: map.files.len() - 1,
                        at,
                    });
                    map.count += 1;
                    (start, rows, at) = (start + here, rows - here, at + here);
                }
            }
            if at != room || files.next().is_some() {
                // Rows of which nobody said where they are from.
                return None;
            }
        }
        for runs in map.runs.values_mut() {
            runs.sort_unstable_by_key(|run| run.start);
        }
        Some(map)
    }
}

impl LaneTrace {
    /// A file of the lane is complete.
    pub(super) fn complete(&mut self, path: &str, rows: u64) {
        self.files.push((path.to_owned(), rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[u64]) -> RowMask {
        rows.iter().copied().collect()
    }

    /// Two old files, of which some rows do not move, become three files of two lanes.
    fn map() -> RowMap {
        let (mut tracer, mut one, mut two) = (Tracer::default(), LaneTrace::default(), LaneTrace::default());
        tracer.take_group(&mut one, "a", 0..10);
        tracer.take_group(&mut two, "b", 0..3);
        tracer.take_group(&mut one, "a", 12..20);
        tracer.take_group(&mut one, "b", 3..5);
        one.complete("x", 7);
        one.complete("y", 13);
        two.complete("z", 3);
        tracer.finish([&mut one, &mut two].into_iter()).unwrap()
    }

    #[test]
    fn rows_are_found_where_their_lane_put_them() {
        let map = map();
        assert_eq!(map.runs["a"].len(), 3, "{map:?}");
        let found = map.moved("a", &mask(&[0, 6, 7, 9, 12, 19])).unwrap();
        assert_eq!(found["x"], mask(&[0, 6]));
        assert_eq!(found["y"], mask(&[0, 2, 3, 10]));
        let found = map.moved("b", &mask(&[2, 3, 4])).unwrap();
        assert_eq!((&found["y"], &found["z"]), (&mask(&[11, 12]), &mask(&[2])));
        let all = map.all("b");
        assert_eq!((&all["y"], &all["z"]), (&mask(&[11, 12]), &mask(&[0, 1, 2])));
    }

    #[test]
    fn rows_that_did_not_move_are_not_made_up() {
        let map = map();
        assert!(map.moved("a", &mask(&[10])).is_none());
        assert!(map.moved("a", &mask(&[20])).is_none());
        assert!(map.moved("c", &mask(&[0])).is_none());
        assert_eq!(map.moved("c", &mask(&[])), Some(BTreeMap::new()));
    }

    #[test]
    fn rows_without_a_place_leave_no_map() {
        let (mut tracer, mut lane) = (Tracer::default(), LaneTrace::default());
        tracer.take_group(&mut lane, "a", 0..10);
        lane.complete("x", 11);
        assert!(tracer.finish([&mut lane].into_iter()).is_none());
    }

    #[test]
    fn maps_of_several_writers_are_one() {
        let (mut tracer, mut lane) = (Tracer::default(), LaneTrace::default());
        tracer.take_group(&mut lane, "c", 5..8);
        lane.complete("w", 3);
        let other = tracer.finish([&mut lane].into_iter()).unwrap();
        let map = map().with(other).unwrap();
        assert_eq!(map.moved("c", &mask(&[6])).unwrap()["w"], mask(&[1]));
        assert_eq!(map.moved("b", &mask(&[2])).unwrap()["z"], mask(&[2]));
    }
}
