//! Plans over made-up files.

use std::collections::BTreeMap;

use datafusion::scalar::ScalarValue;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::plan::{Group, Rules, commits, lots};
use super::{Compact, CompactStrategy};
use crate::model::{DataFile, MaskRef, made_up};

const TARGET: u64 = 1000;
const TODAY: i32 = 1;

fn file(name: impl Into<String>, partition: i64, bytes: u64) -> DataFile {
    DataFile {
        spec_id: TODAY,
        partition: vec![ScalarValue::Int64(Some(partition))],
        ..made_up::data_file(name, bytes, bytes * 10)
    }
}

/// The file with so many rows masked; an unknown number of a mask that other files share.
fn masked(file: DataFile, rows: Option<u64>) -> DataFile {
    let mask = MaskRef {
        path: "mask".to_owned(),
        recorded: "mask".to_owned(),
        offset: None,
        bytes: None,
        inline: None,
        rows,
        shared: rows.is_none(),
    };
    DataFile {
        masks: vec![mask],
        ..file
    }
}

fn of_old(file: DataFile) -> DataFile {
    DataFile {
        spec_id: 0,
        partition: Vec::new(),
        ..file
    }
}

fn rules(strategy: CompactStrategy) -> Rules {
    let compact = Compact {
        strategy,
        ..Compact::default()
    };
    Rules::new(&compact, TARGET, TODAY)
}

fn names(groups: &[Group]) -> Vec<Vec<&str>> {
    groups
        .iter()
        .map(|group| group.files.iter().map(|file| file.path.as_str()).collect())
        .collect()
}

#[test]
fn small_files_are_joined_by_partition_and_good_ones_left_alone() {
    let files = vec![
        file("a", 1, 100),
        file("b", 2, 100),
        file("c", 1, 100),
        file("good", 1, 750),
        file("d", 3, 700),
        file("e", 3, 700),
    ];
    let groups = rules(CompactStrategy::Auto).groups(files);
    // Of two files of 700 bytes two would come again; one small file alone stays what it is.
    assert_eq!(names(&groups), [["a", "c"]]);
}

#[test]
fn masked_files_are_due_by_their_share_and_small_ones_always() {
    let files = vec![
        masked(file("large, few", 1, 1000), Some(10)),
        masked(file("large, many", 2, 1000), Some(500)),
        masked(file("large, unknown", 3, 1000), None),
        masked(file("small, few", 4, 100), Some(1)),
        file("small", 5, 100),
    ];
    let groups = rules(CompactStrategy::Auto).groups(files.clone());
    assert_eq!(
        names(&groups),
        [["large, many"], ["large, unknown"], ["small, few"]]
    );
    let groups = rules(CompactStrategy::MaskedFiles).groups(files.clone());
    assert_eq!(names(&groups), [["large, many"], ["large, unknown"]]);
    assert!(
        rules(CompactStrategy::SmallFiles)
            .groups(files.clone())
            .is_empty()
    );
    let groups = rules(CompactStrategy::All).groups(files);
    assert_eq!(groups.len(), 4, "{groups:?}");
}

#[test]
fn all_takes_every_file_of_a_partition_with_something_to_do() {
    let files = vec![
        file("good", 1, 900),
        file("a", 1, 100),
        file("b", 1, 100),
        file("good too", 2, 900),
        file("tail", 2, 100),
    ];
    let groups = rules(CompactStrategy::All).groups(files);
    assert_eq!(names(&groups), [["good", "a", "b"]]);
}

#[test]
fn groups_are_as_large_as_may_be_and_never_in_pieces_of_a_file() {
    let files: Vec<DataFile> = (0..10).map(|n| file(n.to_string(), 1, 100)).collect();
    let compact = Compact {
        max_rewrite: Some(350),
        ..Compact::default()
    };
    let groups = Rules::new(&compact, TARGET, TODAY).groups(files.clone());
    let sizes: Vec<usize> = groups.iter().map(|group| group.files.len()).collect();
    // The tenth is alone, until a later round finds it beside what the others became.
    assert_eq!(sizes, [3, 3, 3]);
    let compact = Compact {
        min_input_files: Some(4),
        ..compact
    };
    assert!(Rules::new(&compact, TARGET, TODAY).groups(files).is_empty());
}

#[test]
fn a_budget_goes_to_those_who_win_the_most() {
    let mut files: Vec<DataFile> = (0..10).map(|n| file(format!("tiny {n}"), 1, 10)).collect();
    files.extend((0..3).map(|n| file(format!("large {n}"), 2, 600)));
    files.push(masked(file("masked", 3, 400), Some(1000)));
    let rules = rules(CompactStrategy::Auto);
    let (within, beyond) = rules.within(rules.groups(files), 600);
    let first: Vec<&str> = names(&within).iter().map(|group| group[0]).collect();
    assert_eq!(first, ["tiny 0", "masked"]);
    assert_eq!(names(&beyond), [["large 0", "large 1", "large 2"]]);
}

#[test]
fn many_small_partitions_are_few_commits_and_few_writers() {
    let files = (0..20_000).map(|n| file(n.to_string(), n / 2, 100)).collect();
    let groups = rules(CompactStrategy::Auto).groups(files);
    assert_eq!(groups.len(), 10_000);
    assert_eq!(lots(groups.clone()).len(), 10_000_usize.div_ceil(128));
    let commits = commits(groups, u64::MAX, 1);
    assert_eq!(commits.len(), 2, "of 10,000 files each");
    let large = (0..4).map(|n| file(n.to_string(), n / 2, 600 << 20)).collect();
    let rules = Rules {
        target: 2 << 30,
        ..rules(CompactStrategy::Auto)
    };
    let large = super::plan::commits(rules.groups(large), u64::MAX, 1);
    assert_eq!(large.len(), 2, "what is large commits on its own");
}

/// A table of made-up files that are rewritten as a writer does it, as far as sizes go.
struct Table {
    files: Vec<DataFile>,
    random: StdRng,
    made: u64,
}

impl Table {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut files = Vec::new();
        for n in 0..random.random_range(0..60) {
            let bytes = match random.random_range(0..4) {
                0 => random.random_range(1..50),
                1 => random.random_range(1..750),
                2 => random.random_range(600..1100),
                _ => random.random_range(1..4000),
            };
            let mut new = file(format!("old {n}"), random.random_range(0..4), bytes);
            if random.random_bool(0.2) {
                new = of_old(new);
            }
            if random.random_bool(0.3) {
                let rows = *[0, 1, new.rows / 10, new.rows / 2, new.rows]
                    .choose(&mut random)
                    .unwrap();
                new = masked(new, random.random_bool(0.8).then_some(rows));
            }
            files.push(new);
        }
        Self {
            files,
            random,
            made: 0,
        }
    }

    /// The files of a group become files of at least the target size and one that is smaller, per partition.
    fn rewrite(&mut self, group: &Group) {
        let names: Vec<&str> = group.files.iter().map(|file| file.path.as_str()).collect();
        self.files.retain(|file| !names.contains(&file.path.as_str()));
        let mut places: BTreeMap<i64, u64> = BTreeMap::new();
        for old in &group.files {
            // Joined row groups are smaller, or other codecs make them larger.
            let hidden = old.masked_rows().unwrap_or(0);
            let share = (old.rows - hidden) as f64 / old.rows.max(1) as f64;
            let bytes = (old.bytes as f64 * share * self.random.random_range(0.2..1.3)) as u64;
            match old.partition.first() {
                Some(ScalarValue::Int64(Some(place))) => *places.entry(*place).or_default() += bytes,
                _ => {
                    for place in 0..4 {
                        *places.entry(place).or_default() += bytes / 4;
                    }
                }
            }
        }
        for (place, mut bytes) in places {
            while bytes > 0 {
                let full = self.random.random_range(TARGET..TARGET + TARGET / 3);
                let size = if bytes >= TARGET { full.min(bytes) } else { bytes };
                bytes -= size;
                self.made += 1;
                self.files.push(file(format!("new {}", self.made), place, size));
            }
        }
    }
}

#[test]
fn whatever_the_files_are_a_second_run_has_nothing_to_do() {
    let strategies = [
        CompactStrategy::Auto,
        CompactStrategy::SmallFiles,
        CompactStrategy::MaskedFiles,
        CompactStrategy::All,
    ];
    let (mut rewritten, mut most) = (0, 0);
    for seed in 0..4_000 {
        let mut table = Table::new(seed);
        let compact = Compact {
            strategy: strategies[seed as usize % 4],
            min_input_files: table.random.random_bool(0.3).then_some(4),
            delete_ratio_threshold: table.random.random_bool(0.3).then_some(0.4),
            max_rewrite: (table.random.random_bool(0.7)).then(|| table.random.random_range(300..5000)),
            ..Compact::default()
        };
        let rules = Rules::new(&compact, TARGET, TODAY);
        let before = format!("seed {seed}: {compact:?}: {:?}", table.files);
        let mut groups = rules.groups(table.files.clone());
        let mut rounds = 0;
        while !groups.is_empty() {
            rounds += 1;
            assert!(
                rounds < super::rounds::MOST_ROUNDS,
                "it goes on for ever: {before}"
            );
            for group in &groups {
                rewritten += group.files.len();
                table.rewrite(group);
            }
            groups = rules.for_the_rest().groups(table.files.clone());
        }
        most = most.max(rounds);
        let again = rules.groups(table.files.clone());
        assert!(
            again.is_empty(),
            "{:?} are rewritten again: {before}",
            names(&again)
        );
    }
    assert!(
        rewritten > 20_000 && most > 2,
        "{rewritten} files, {most} rounds: too little to see"
    );
}
