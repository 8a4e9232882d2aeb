use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::model::{PartitionField, made_up};

const COLUMNS: [&str; 2] = ["a", "b"];

fn snapshot(partitioned: bool) -> Snapshot {
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let partition = PartitionField {
        source: "p".to_owned(),
        transform: Transform::Identity,
        name: "p".to_owned(),
        field_id: 1000,
        zone_slack_days: 0,
    };
    let schema = Arc::new(Schema::new(vec![field("a"), field("b"), field("p")]));
    made_up::snapshot(
        schema,
        vec![if partitioned { vec![partition] } else { Vec::new() }],
    )
}

fn stats(min: impl Into<ScalarValue>, max: impl Into<ScalarValue>) -> ColumnStats {
    ColumnStats {
        nulls: Some(0),
        min: Some(min.into()),
        max: Some(max.into()),
        exact: true,
        ..ColumnStats::default()
    }
}

fn file(partition: &[i64], rows: u64, columns: Vec<(&str, ColumnStats)>) -> DataFile {
    DataFile {
        partition: partition.iter().map(|value| ScalarValue::from(*value)).collect(),
        columns: columns
            .into_iter()
            .map(|(name, stats)| (name.to_owned(), stats))
            .collect(),
        ..made_up::data_file("f", 1, rows)
    }
}

fn line(ranges: &[(i64, i64)]) -> Overlap {
    let files: Vec<_> = ranges
        .iter()
        .map(|(min, max)| file(&[], 10, vec![("a", stats(*min, *max))]))
        .collect();
    overlap(&snapshot(false), &files, &["a"])
}

#[test]
fn files_in_order_are_read_one_by_one_and_unordered_ones_all_together() {
    let ordered = line(&[(20, 30), (0, 10), (11, 20), (30, 31)]);
    assert_eq!((ordered.depth, ordered.overlapping), (1.0, 0));
    let same = line(&[(0, 30), (0, 30), (0, 30)]);
    assert_eq!((same.depth, same.overlapping), (3.0, 3));
    // One file over all the others: theirs and it are read.
    let late = line(&[(0, 10), (11, 20), (21, 30), (0, 30)]);
    assert_eq!((late.depth, late.overlapping), (2.0, 4));
    let one_value = line(&[(0, 5), (5, 5), (5, 9)]);
    // A lookup of 5 reads all three, but they are in order.
    assert_eq!(
        (one_value.depth, one_value.overlapping),
        ((1.0 + 3.0 + 1.0) / 3.0, 0)
    );
    let twice = line(&[(5, 5), (5, 5)]);
    assert_eq!((twice.depth, twice.overlapping), (2.0, 2));
    let none = overlap(&snapshot(false), &[], &["a"]);
    assert_eq!(none, Overlap::default());
}

#[test]
fn files_of_other_partitions_do_not_overlap_and_partition_columns_are_known_without_statistics() {
    let files = [
        file(&[1], 10, vec![("a", stats(0i64, 9i64))]),
        file(&[2], 10, vec![("a", stats(0i64, 9i64))]),
    ];
    for columns in [&["a"] as &[&str], &["a", "p"]] {
        let found = overlap(&snapshot(true), &files, columns);
        assert_eq!(
            (found.depth, found.overlapping, found.unknown),
            (1.0, 0, 0),
            "{columns:?}"
        );
    }
}

#[test]
fn files_without_statistics_are_read_by_every_lookup() {
    let files = [
        file(&[], 10, vec![("a", stats(0i64, 9i64))]),
        file(&[], 10, vec![("a", stats(10i64, 19i64))]),
        file(&[], 20, vec![]),
    ];
    let found = overlap(&snapshot(false), &files, &["a"]);
    // Its own rows are assumed to be in the middle, which is in neither of the others.
    assert_eq!(
        (found.unknown, found.depth),
        (1, (10.0 * 2.0 + 10.0 * 2.0 + 20.0) / 40.0)
    );
}

#[test]
fn nulls_and_nans_lie_outside_of_the_bounds() {
    let with = |nulls, nans, min: f64, max: f64| {
        let stats = ColumnStats {
            nulls: Some(nulls),
            nans: Some(nans),
            ..stats(min, max)
        };
        file(&[], 10, vec![("a", stats)])
    };
    let read = |files: &[DataFile]| overlap(&snapshot(false), files, &["a"]).overlapping;
    assert_eq!(read(&[with(1, 0, 0.0, 1.0), with(0, 1, 2.0, 3.0)]), 0);
    // The second reaches down to NULL, over all of the first.
    assert_eq!(read(&[with(0, 0, 0.0, 1.0), with(1, 0, 2.0, 3.0)]), 2);
    // The first reaches up to NaN.
    assert_eq!(read(&[with(0, 1, 0.0, 1.0), with(0, 0, 2.0, 3.0)]), 2);
    let only_nulls = ColumnStats {
        nulls: Some(10),
        ..ColumnStats::default()
    };
    assert_eq!(
        read(&[file(&[], 10, vec![("a", only_nulls)]), with(0, 0, 0.0, 1.0)]),
        0
    );
    assert_eq!(read(&[with(0, 0, -1.0, 0.0), with(0, 0, -0.0, 1.0)]), 0);
}

#[test]
fn bounds_that_were_rounded_or_cut_do_not_make_files_overlap_that_are_in_order() {
    let inexact = |min: ScalarValue, max: ScalarValue| {
        let stats = ColumnStats {
            exact: false,
            ..stats(min, max)
        };
        file(&[], 10, vec![("a", stats)])
    };
    let read = |files: &[DataFile]| overlap(&snapshot(false), files, &["a"]).overlapping;
    // The first ends with 0.1, but its bound allows for 0.1 of single precision.
    let single = f64::from(0.1f32);
    let doubles = [
        inexact(0.0.into(), single.into()),
        inexact(0.100_000_000_1.into(), 1.0.into()),
    ];
    assert!(single > 0.100_000_000_1);
    assert_eq!(read(&doubles), 0);
    let cut = |min: &str, max: &str| inexact(min.into(), max.into());
    let prefix = "https://example.org/of/everybody";
    assert_eq!(
        read(&[
            cut("https://a", &prefix.replace("body", "bodz")),
            cut(prefix, "zz")
        ]),
        0
    );
    assert_eq!(read(&[cut("a", "k"), cut("f", "z")]), 2);
}

/// Random boxes, some of them points or without statistics.
fn boxes(random: &mut StdRng, count: usize, width: i64) -> Vec<DataFile> {
    let side = |random: &mut StdRng| {
        let low = random.random_range(0..30i64);
        (low, low + random.random_range(0..=width))
    };
    let boxes = (0..count).map(|_| {
        let mut columns = Vec::new();
        for name in COLUMNS {
            let (low, high) = side(random);
            if random.random_ratio(19, 20) {
                columns.push((name, stats(low, high)));
            }
        }
        file(&[random.random_range(0..2)], random.random_range(1..50), columns)
    });
    boxes.collect()
}

/// The same figures, from the definitions, file by file and value by value.
fn by_hand(files: &[DataFile], columns: &[&str]) -> Overlap {
    let value = |value: &Option<ScalarValue>| match value {
        Some(ScalarValue::Int64(Some(n))) => Some(*n),
        _ => None,
    };
    let range = |file: &DataFile, column: &str| {
        let stats = file.columns.get(column)?;
        Some((value(&stats.min)?, value(&stats.max)?))
    };
    let (mut read, mut rows, mut overlapping) = (0.0, 0.0, 0);
    for (at, file) in files.iter().enumerate() {
        let beside: Vec<&DataFile> = files
            .iter()
            .filter(|other| other.partition == file.partition)
            .collect();
        let holds_middle = |other: &DataFile| {
            columns.iter().all(|column| {
                let all = beside.iter().filter_map(|file| range(file, column));
                let ends: BTreeSet<i64> = all.flat_map(|(low, high)| [low, high]).collect();
                let place = |n: i64| ends.iter().filter(|end| **end < n).count() as f64;
                let places = |file: &DataFile| match range(file, column) {
                    Some((low, high)) => (place(low), place(high)),
                    None => (0.0, ends.len().saturating_sub(1) as f64),
                };
                let (low, high) = places(file);
                let middle = (low + high) / 2.0;
                let (low, high) = places(other);
                (low..=high).contains(&middle)
            })
        };
        let count = beside.iter().filter(|other| holds_middle(other)).count();
        read += count as f64 * file.rows as f64;
        rows += file.rows as f64;
        let shares = |other: &DataFile| {
            columns.iter().all(|column| {
                let all = beside.iter().filter_map(|file| range(file, column));
                let ends: BTreeSet<i64> = all.flat_map(|(low, high)| [low, high]).collect();
                let whole = (*ends.first().unwrap_or(&0), *ends.last().unwrap_or(&0));
                let (a, b) = (
                    range(file, column).unwrap_or(whole),
                    range(other, column).unwrap_or(whole),
                );
                let common: Vec<i64> = (a.0.max(b.0)..=a.1.min(b.1)).collect();
                match common[..] {
                    [] => false,
                    // More than one value, or one that is not merely where one begins and the other ends.
                    [one] => [(a, b), (b, a)]
                        .iter()
                        .any(|(x, y)| x.0 == x.1 && (y.0 == y.1 || (y.0 < one && one < y.1))),
                    _ => true,
                }
            })
        };
        let others = files.iter().enumerate().filter(|(other, _)| *other != at);
        let mut others = others.filter(|(_, other)| other.partition == file.partition);
        overlapping += u64::from(others.any(|(_, other)| shares(other)));
    }
    Overlap {
        files: files.len() as u64,
        depth: read / rows,
        overlapping,
        unknown: files
            .iter()
            .filter(|file| columns.iter().any(|c| range(file, c).is_none()))
            .count() as u64,
    }
}

#[test]
fn figures_are_those_that_comparing_every_file_with_every_other_one_gives() {
    let mut random = StdRng::seed_from_u64(7);
    let snapshot = snapshot(true);
    for round in 0..400 {
        let (count, width) = (1 + round % 30, [0, 1, 4, 30][round % 4]);
        let files = boxes(&mut random, count, width);
        for columns in [&COLUMNS[..1], &COLUMNS] {
            let (found, expected) = (overlap(&snapshot, &files, columns), by_hand(&files, columns));
            assert!(
                (found.depth - expected.depth).abs() < 1e-9,
                "{found:?} {expected:?}"
            );
            let expected = Overlap {
                depth: found.depth,
                ..expected
            };
            assert_eq!(found, expected, "round {round}, {columns:?}");
        }
    }
}

#[test]
fn components_are_what_overlaps_directly_or_by_way_of_others() {
    let mut random = StdRng::seed_from_u64(8);
    for round in 0..200 {
        let files = boxes(&mut random, 1 + round % 20, 4);
        let all: Vec<&DataFile> = files.iter().collect();
        let extents = Extents::new(&snapshot(false), &all, &[("a", true), ("b", false)]);
        let found = extents.components(|one, other| extents.overlap(one, other));
        let mut expected: Vec<usize> = (0..files.len()).collect();
        for _ in 0..files.len() {
            for one in 0..files.len() {
                for other in 0..files.len() {
                    if one != other && extents.overlap(one, other) {
                        expected[one] = expected[one].min(expected[other]);
                    }
                }
            }
        }
        for one in 0..files.len() {
            for other in 0..files.len() {
                assert_eq!(found[one] == found[other], expected[one] == expected[other]);
            }
        }
    }
}
