//! Files that overlap and are more than may be rewritten together, in several groups.
//!
//! ```text
//! plain order   files in the order of where they begin, as many as fit: first those that nobody has sorted yet, which
//!               become runs, each in order. Runs that overlap are merged in the same way: their files are narrow, so what
//!               lies side by side in such a group is a range of the key, and the next ones are narrower. In the end each
//!               range is what one group holds, and is in order as a whole.
//! curve         files that nobody has put along it yet, as many as fit. Files along the curve stay what they are.
//! ```
//!
//! It ends: a file is written anew once to be sorted, and runs are merged only where that takes a sixth of the overlap
//! away. What overlaps less stays.

/// Merging runs is worth it from so many files on that a row's place in the group lies in, on average.
const LEAST_DEPTH: f64 = 1.2;
/// Runs are merged if so many of their files fit into a group: of fewer, the result would be hardly narrower.
const LEAST_FILES: usize = 4;

/// A file of a part that is too large.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Which file.
    pub(super) file: usize,
    pub(super) bytes: u64,
    /// Where it begins and ends, as numbers in the order of the key.
    pub(super) place: (usize, usize),
    /// It has to be written anew, whatever lies beside it: nobody has put it in order, or rows of it are masked.
    pub(super) open: bool,
}

/// Packs of at most so many bytes, or of one file that is larger, of which each is worth rewriting.
pub(super) fn packs(mut pieces: Vec<Piece>, most: u64) -> Vec<Vec<usize>> {
    pieces.sort_by_key(|piece| (piece.place, piece.file));
    let mut packs: Vec<Vec<Piece>> = Vec::new();
    let mut bytes = 0_u64;
    for piece in pieces {
        bytes = bytes.saturating_add(piece.bytes);
        match packs.last_mut() {
            Some(pack) if bytes <= most => pack.push(piece),
            _ => {
                bytes = piece.bytes;
                packs.push(vec![piece]);
            }
        }
    }
    packs.retain(|pack| is_worth_it(pack));
    let files = |pack: Vec<Piece>| pack.into_iter().map(|piece| piece.file).collect();
    packs.into_iter().map(files).collect()
}

fn is_worth_it(pack: &[Piece]) -> bool {
    pack.iter().any(|piece| piece.open) || (pack.len() >= LEAST_FILES && depth(pack) >= LEAST_DEPTH)
}

/// How many files of a pack lie over one place of it on average.
fn depth(pack: &[Piece]) -> f64 {
    let width = |(low, high): (usize, usize)| high.saturating_sub(low) as f64;
    let low = pack.iter().map(|piece| piece.place.0).min().unwrap_or(0);
    let high = pack.iter().map(|piece| piece.place.1).max().unwrap_or(0);
    let all: f64 = pack.iter().map(|piece| width(piece.place)).sum();
    match width((low, high)) {
        0.0 => 0.0,
        whole => all / whole,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// A file of so many rows, one byte each: its keys, and the run that sorted it.
    #[derive(Debug, Clone)]
    struct Sorted {
        keys: Vec<u32>,
        run: Option<usize>,
    }

    impl Sorted {
        fn ends(&self) -> (u32, u32) {
            (*self.keys.iter().min().unwrap(), *self.keys.iter().max().unwrap())
        }
    }

    fn overlap(a: &Sorted, b: &Sorted) -> bool {
        let (a_ends, b_ends) = (a.ends(), b.ends());
        let one_run = a.run.is_some() && a.run == b.run;
        !one_run && a_ends.0.max(b_ends.0) < a_ends.1.min(b_ends.1)
    }

    /// Files that overlap, directly or by way of others, as sets of two or more.
    fn parts(files: &[Sorted]) -> Vec<Vec<usize>> {
        let mut part: Vec<usize> = (0..files.len()).collect();
        loop {
            let before = part.clone();
            for a in 0..files.len() {
                for b in 0..a {
                    if overlap(&files[a], &files[b]) {
                        let least = part[a].min(part[b]);
                        (part[a], part[b]) = (least, least);
                    }
                }
            }
            if part == before {
                break;
            }
        }
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (file, part) in part.into_iter().enumerate() {
            parts.entry(part).or_default().push(file);
        }
        parts.into_values().filter(|part| part.len() > 1).collect()
    }

    fn groups(files: &[Sorted], most: u64) -> Vec<Vec<usize>> {
        let mut groups = Vec::new();
        for part in parts(files) {
            let bytes: usize = part.iter().map(|file| files[*file].keys.len()).sum();
            if bytes as u64 <= most {
                groups.push(part);
                continue;
            }
            let mut ends: Vec<u32> = part
                .iter()
                .flat_map(|file| [files[*file].ends().0, files[*file].ends().1])
                .collect();
            ends.sort_unstable();
            ends.dedup();
            let number = |end: u32| ends.partition_point(|other| *other < end);
            let piece = |file: &usize| {
                let (low, high) = files[*file].ends();
                Piece {
                    file: *file,
                    bytes: files[*file].keys.len() as u64,
                    place: (number(low), number(high)),
                    open: files[*file].run.is_none(),
                }
            };
            groups.extend(packs(part.iter().map(piece).collect(), most));
        }
        groups
    }

    /// A round of rewriting: each group becomes files of `target` rows in order.
    fn rewrite(files: Vec<Sorted>, groups: &[Vec<usize>], target: usize, runs: &mut usize) -> Vec<Sorted> {
        let taken = |file: usize| groups.iter().any(|group| group.contains(&file));
        let mut after: Vec<Sorted> = (0..files.len())
            .filter(|file| !taken(*file))
            .map(|file| files[file].clone())
            .collect();
        for group in groups {
            *runs += 1;
            let mut keys: Vec<u32> = group
                .iter()
                .flat_map(|file| files[*file].keys.iter().copied())
                .collect();
            keys.sort_unstable();
            after.extend(keys.chunks(target).map(|keys| Sorted {
                keys: keys.to_vec(),
                run: Some(*runs),
            }));
        }
        after
    }

    /// Packs, said once more: what fits next to each other in the order of the places is together, and stays if it is worth it.
    fn packed_naively(pieces: &[Piece], most: u64) -> Vec<Vec<usize>> {
        let mut left: Vec<Piece> = pieces.to_vec();
        left.sort_by_key(|piece| (piece.place.0, piece.place.1, piece.file));
        let mut packs = Vec::new();
        while !left.is_empty() {
            let bytes = |count: usize| {
                left[..count]
                    .iter()
                    .map(|piece| u128::from(piece.bytes))
                    .sum::<u128>()
                    .min(u64::MAX.into())
            };
            let count = (2..=left.len())
                .rev()
                .find(|count| bytes(*count) <= u128::from(most))
                .unwrap_or(1);
            let pack: Vec<Piece> = left.drain(..count).collect();
            let span = pack.iter().map(|piece| piece.place.1).max().unwrap()
                - pack.iter().map(|piece| piece.place.0).min().unwrap();
            let widths: usize = pack.iter().map(|piece| piece.place.1 - piece.place.0).sum();
            let overlaps = span > 0 && 5 * widths >= 6 * span;
            if pack.iter().any(|piece| piece.open) || (pack.len() > 3 && overlaps) {
                packs.push(pack.iter().map(|piece| piece.file).collect());
            }
        }
        packs
    }

    #[test]
    fn packs_are_within_the_bound_whatever_the_sizes_and_no_file_that_is_due_is_left() {
        assert_eq!(packs(Vec::new(), 10), Vec::<Vec<usize>>::new());
        let mut several = 0;
        for seed in 0..5_000 {
            let random = &mut StdRng::seed_from_u64(seed);
            let places = random.random_range(1..30);
            let piece = |file: usize, random: &mut StdRng| {
                let low = random.random_range(0..places);
                Piece {
                    file,
                    bytes: match random.random_range(0..8) {
                        0 => 0,
                        1 => u64::MAX - random.random_range(0..2),
                        _ => random.random_range(1..100),
                    },
                    place: (low, low + random.random_range(0..4) * random.random_range(0..10)),
                    open: random.random_bool(0.3),
                }
            };
            let pieces: Vec<Piece> = (0..random.random_range(0..25))
                .map(|file| piece(file, random))
                .collect();
            let most = *[0, 1, 99, 150, 1_000, u64::MAX].choose(random).unwrap();
            let found = packs(pieces.clone(), most);
            assert_eq!(found, packed_naively(&pieces, most), "seed {seed}");
            let mut shuffled = pieces.clone();
            shuffled.reverse();
            assert_eq!(
                packs(shuffled, most),
                found,
                "seed {seed}: the order of the listing counts"
            );
            let taken: Vec<usize> = found.concat();
            for piece in &pieces {
                let times = taken.iter().filter(|file| **file == piece.file).count();
                assert!(
                    times == 1 || (times == 0 && !piece.open),
                    "seed {seed}: {piece:?} {times} times"
                );
            }
            several += usize::from(found.len() > 1);
        }
        assert!(several > 1_000, "{several}");
    }

    #[test]
    fn whatever_the_files_are_it_ends_within_the_bound_and_most_overlap_is_gone() {
        let (mut several, mut most_rounds) = (0, 0);
        for seed in 0..600 {
            let random = &mut StdRng::seed_from_u64(seed);
            let target = 20;
            let (count, values) = (random.random_range(2..40), random.random_range(2..5000));
            let drift = random.random_bool(0.4);
            let mut files: Vec<Sorted> = (0..count)
                .map(|number| {
                    let from = if drift { number * values / 10 } else { 0 };
                    let keys = (0..random.random_range(1..30)).map(|_| from + random.random_range(0..values));
                    Sorted {
                        keys: keys.collect(),
                        run: None,
                    }
                })
                .collect();
            let all: usize = files.iter().map(|file| file.keys.len()).sum();
            let most = random.random_range(20..600);
            let (mut rounds, mut runs) = (0, 0);
            loop {
                let groups = groups(&files, most);
                if groups.is_empty() {
                    break;
                }
                for group in &groups {
                    let bytes: usize = group.iter().map(|file| files[*file].keys.len()).sum();
                    assert!(
                        bytes as u64 <= most || group.len() == 1,
                        "seed {seed}: {bytes} bytes"
                    );
                }
                several += usize::from(groups.len() > 1);
                rounds += 1;
                assert!(rounds < 30, "seed {seed}: it goes on for ever");
                files = rewrite(files, &groups, target, &mut runs);
            }
            let left: usize = files.iter().map(|file| file.keys.len()).sum();
            assert_eq!(left, all, "seed {seed}");
            most_rounds = most_rounds.max(rounds);
            if most >= 8 * target as u64 {
                let covered = |key: u32| {
                    let over = |file: &&Sorted| (file.ends().0..file.ends().1).contains(&key);
                    files.iter().filter(over).count()
                };
                let keys = files.iter().flat_map(|file| &file.keys);
                let depth = keys.map(|key| covered(*key)).sum::<usize>() as f64 / all as f64;
                assert!(
                    depth < 1.25,
                    "seed {seed}: {depth} files for a row, within {most}"
                );
            }
        }
        println!("{several} rounds of several groups, {most_rounds} rounds at most");
        assert!(several > 100 && most_rounds > 2);
    }
}
