//! Groups of a compaction: how row groups are joined in them, several at the same time, and ordered ones within a bound.

use std::collections::BTreeMap;

use lakehouse_core::model::{At, DataFile};
use lakehouse_core::operations::{Clustering, CompactStrategy, Merge, RowOrder, Strategy};
use lakehouse_core::scan::{parse_sort_order, read_footer};
use lakehouse_core::{Alter, Compact, Options, Report, Table, TableFormat};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::check::{checked_all, wrong};
use super::cluster::{digest, scattered};
use super::compact::{STRATEGIES, random_table, three_partitions};
use super::{FORMATS, append, content, rows, table, table_with};
use crate::races::orphans;
use crate::support::memory;

async fn files(table: &Table) -> Vec<DataFile> {
    table.files(&At::Latest).await.unwrap()
}

async fn compact(table: &Table, compact: &Compact) -> Report {
    table.compact(compact, &Options::default()).await.unwrap()
}

async fn assert_sound(table: &Table, what: &str) {
    let checked = checked_all(table).await;
    assert!(wrong(&checked).is_empty(), "{what}: {checked:?}");
    assert_eq!(orphans(table).await, Vec::<String>::new(), "{what}");
}

/// Rows of each row group of each file.
async fn row_groups(table: &Table) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    for file in files(table).await {
        let footer = read_footer(&table.handle().store, &file.path, file.bytes)
            .await
            .unwrap();
        all.push(footer.row_groups().iter().map(|group| group.num_rows()).collect());
    }
    all
}

fn values(from: i64, rows: i64) -> String {
    let values: Vec<String> = (from..from + rows)
        .map(|id| format!("({id}, 'r{}', {})", id * 7919 % 1009, id % 977))
        .collect();
    values.join(", ")
}

/// Five files of four row groups of 100 rows each, in a table whose row groups are to have as many as `limit` says.
async fn of_small_row_groups(format: (TableFormat, Option<u8>), limit: &str) -> Table {
    const LIMIT: &str = "write.parquet.row-group-limit";
    let table = table_with(format, "", &[(LIMIT, "100")]).await;
    for file in 0..5 {
        append(&table, &values(file * 400, 400)).await;
    }
    assert_eq!(row_groups(&table).await, vec![vec![100; 4]; 5]);
    let alter = Alter::default().property(LIMIT, Some(limit));
    table.alter(&alter, &Options::default()).await.unwrap();
    table
}

#[tokio::test]
async fn row_groups_of_less_than_half_of_what_one_may_have_are_joined_and_others_copied() {
    for format in FORMATS {
        for (limit, expected) in [
            ("300", vec![300, 300, 300, 300, 300, 300, 200]),
            ("2000", vec![2000]),
            ("200", vec![100; 20]),
        ] {
            let what = format!("{format:?}, {limit}");
            let table = of_small_row_groups(format, limit).await;
            let before = content(&table).await;
            let report = compact(&table, &Compact::default()).await;
            let copied = report.metric("num_target_row_groups_copied");
            assert_eq!(copied, if limit == "200" { 20 } else { 0 }, "{what}: {report:?}");
            assert_eq!(row_groups(&table).await, [expected], "{what}");
            assert_eq!(content(&table).await, before, "{what}");
            let again = compact(&table, &Compact::default()).await;
            assert!(!again.committed, "{what}: {again:?}");
            assert_sound(&table, &what).await;
        }
    }
}

/// A row group that is as large as half a file is good, however few rows it has.
#[tokio::test]
async fn row_groups_of_half_a_file_are_copied() {
    for format in FORMATS {
        let table = of_small_row_groups(format, "100000").await;
        let bytes = files(&table).await[0].bytes;
        let small = Compact {
            target_file_bytes: Some(bytes / 3),
            strategy: CompactStrategy::All,
            ..Compact::default()
        };
        table.delete("id = 7", &masking()).await.unwrap();
        let report = compact(&table, &small).await;
        let copied = report.metric("num_target_row_groups_copied");
        assert_eq!(copied, 19, "{format:?}: {report:?}");
        let again = compact(&table, &small).await;
        assert!(!again.committed, "{format:?}: {again:?}");
        assert_sound(&table, &format!("{format:?}")).await;
    }
}

fn masking() -> Options {
    Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    }
}

/// A merge copies to be done sooner; what it leaves, a compaction joins.
#[tokio::test]
async fn merges_go_on_copying_row_groups_that_a_compaction_would_join() {
    for format in FORMATS {
        let table = of_small_row_groups(format, "300").await;
        let rewriting = Options {
            strategy: Strategy::CopyOnWrite,
            ..Options::default()
        };
        let merge = Merge::on("id").when_matched_update_all();
        let report = table
            .merge(
                rows("id, region, n", "(150, 'new', -1)").await,
                &merge,
                &rewriting,
            )
            .await
            .unwrap();
        let copied = report.metric("num_target_row_groups_copied");
        assert_eq!(copied, 3, "{format:?}: {report:?}");
        let report = compact(&table, &Compact::default()).await;
        assert_eq!(
            report.metric("num_target_row_groups_copied"),
            0,
            "{format:?}: {report:?}"
        );
    }
}

/// Against the same table compacted group by group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_side_by_side_leave_the_table_that_they_leave_one_by_one() {
    let (mut several, mut committed) = (0, 0);
    for seed in 0..36_u64 {
        let format = FORMATS[(seed % 3) as usize];
        let made = async || {
            let mut rng = StdRng::seed_from_u64(seed);
            let limit = *["20", "100", "100000"].choose(&mut rng).unwrap();
            (random_table(&mut rng, format, limit).await, rng)
        };
        let (one, mut rng) = made().await;
        let (many, _) = made().await;
        let alone = Compact {
            strategy: STRATEGIES[(seed / 3 % 4) as usize],
            target_file_bytes: Some(*[1_500, 4_000, 1 << 20].choose(&mut rng).unwrap()),
            max_rewrite: rng.random_bool(0.6).then(|| rng.random_range(2_000..9_000)),
            ..Compact::default()
        };
        let beside = Compact {
            max_concurrent_groups: Some(*[2, 4].choose(&mut rng).unwrap()),
            ..alone.clone()
        };
        let what = format!("seed {seed}, {format:?}, {beside:?}");
        let rows = content(&one).await;
        let expected = compact(&one, &alone).await;
        let report = compact(&many, &beside).await;
        assert_eq!(report.committed, expected.committed, "{what}: {report:?}");
        assert_eq!(report.metric("num_groups_skipped"), 0, "{what}: {report:?}");
        committed += usize::from(report.committed);
        several += usize::from(report.metric("num_commits") > 1);
        let left = async |table: &Table| {
            // Where files are cut depends on which groups one writer writes.
            let mut left: BTreeMap<String, (u64, usize)> = BTreeMap::new();
            for file in files(table).await {
                let place = left.entry(format!("{:?}", file.partition)).or_default();
                (place.0, place.1) = (place.0 + file.rows, place.1 + file.masks.len());
            }
            left
        };
        assert_eq!(left(&many).await, left(&one).await, "{what}");
        assert_eq!(content(&many).await, rows, "{what}");
        let again = compact(&many, &beside).await;
        assert!(!again.committed, "{what}: {report:?}, and again {again:?}");
        assert_sound(&many, &what).await;
    }
    assert!(several > 4 && committed > 16, "{several} of {committed}");
}

#[tokio::test]
async fn a_key_is_recorded_with_the_commit_that_comes_after_all_others() {
    for format in FORMATS {
        let table = three_partitions(memory("key"), format).await;
        let options = Options {
            token: Some("nightly".into()),
            ..Options::default()
        };
        let beside = Compact {
            max_rewrite: Some(1),
            strategy: CompactStrategy::MaskedFiles,
            max_concurrent_groups: Some(4),
            ..Compact::default()
        };
        let report = table.compact(&beside, &options).await.unwrap();
        assert_eq!(report.metric("num_commits"), 3, "{format:?}: {report:?}");
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        assert_eq!(snapshot.version, report.version, "{format:?}");
        let format = &table.handle().format;
        let recorded = format.find_token(&snapshot, &"nightly".into()).await.unwrap();
        assert_eq!(recorded, Some(report.version));
        let again = table.compact(&Compact::default(), &options).await.unwrap();
        assert_eq!((again.committed, again.already), (false, recorded));
    }
}

fn orders() -> [RowOrder; 2] {
    let names = vec!["id".to_owned(), "n".to_owned()];
    [
        RowOrder::By(Clustering::Sort(parse_sort_order("id").unwrap())),
        RowOrder::By(Clustering::Hilbert(names)),
    ]
}

/// How many files a lookup reads.
async fn depth(table: &Table, order: &RowOrder) -> f64 {
    let RowOrder::By(clustering) = order else {
        unreachable!()
    };
    let columns: Vec<String> = clustering.columns().iter().map(ToString::to_string).collect();
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let found = table
        .overlaps(&snapshot, &files(table).await, Some(&columns))
        .await;
    found.unwrap().unwrap().together.depth
}

async fn bytes(table: &Table) -> u64 {
    files(table).await.iter().map(|file| file.bytes).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_in_order_is_split_into_groups_within_the_bound_and_comes_to_an_end() {
    for format in [FORMATS[1], FORMATS[2]] {
        for order in orders() {
            let what = format!("{format:?}, {order:?}");
            let table = table(format, "").await;
            scattered(&table, 24, 8_200, "r").await;
            let bounded = Compact {
                order: order.clone(),
                target_file_bytes: Some(4096),
                max_rewrite: Some(bytes(&table).await / 3),
                ..Compact::default()
            };
            let (rows, before) = (digest(&table).await, depth(&table, &order).await);
            let report = compact(&table, &bounded).await;
            let most = report.groups.iter().map(|group| group.bytes).max().unwrap();
            assert!(most <= bounded.max_rewrite.unwrap(), "{what}: {report:?}");
            assert!(report.metric("num_commits") >= 3, "{what}: {report:?}");
            assert_eq!(digest(&table).await, rows, "{what}");
            let after = depth(&table, &order).await;
            match order {
                RowOrder::By(Clustering::Sort(_)) => assert!(after < 1.1, "{what}: {before}, {after}"),
                _ => assert!(after * 2.0 < before, "{what}: {before}, {after}"),
            }
            let again = compact(&table, &bounded).await;
            assert!(!again.committed, "{what}: {again:?}");
            let checked = checked_all(&table).await;
            assert!(wrong(&checked).is_empty(), "{what}: {checked:?}");
        }
    }
}

/// Files of any size within a bound that some of them are larger than, keys of which many are NULL or the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_keys_and_sizes_are_what_is_put_in_order_in_groups_keeps_its_rows_and_comes_to_an_end() {
    let (mut several, mut beyond) = (0, 0);
    for seed in 0..24_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let format = FORMATS[(seed % 3) as usize];
        let partitioning = *["", "", "region", "bucket(2, id)"].choose(&mut rng).unwrap();
        let limit = [("write.parquet.row-group-limit", "100")];
        let table = table_with(format, partitioning, &limit).await;
        let (mut next, values) = (0, *[1, 3, 1_000].choose(&mut rng).unwrap());
        for _ in 0..rng.random_range(1..10) {
            let rows = *[1, 4, 60, 900].choose(&mut rng).unwrap();
            let mut row = |id: i64| {
                let region = *["NULL", "'eu'", "'us'"].choose(&mut rng).unwrap();
                let n = match rng.random_bool(0.3) {
                    true => "NULL".to_owned(),
                    false => rng.random_range(-values..values).to_string(),
                };
                format!("({id}, {region}, {n})")
            };
            let given: Vec<String> = (next..next + rows).map(&mut row).collect();
            next += rows;
            append(&table, &given.join(", ")).await;
        }
        if rng.random_bool(0.5) {
            table.delete("id % 7 = 3", &masking()).await.unwrap();
        }
        let order = match rng.random_range(0..5) {
            0 => Clustering::Sort(parse_sort_order("n desc nulls last").unwrap()),
            1 => Clustering::Sort(parse_sort_order("n, id desc").unwrap()),
            2 => Clustering::Sort(parse_sort_order("region desc, n nulls last").unwrap()),
            3 => Clustering::ZOrder(vec!["n".to_owned(), "id".to_owned()]),
            _ => Clustering::Hilbert(vec!["region".to_owned(), "n".to_owned()]),
        };
        let most = bytes(&table).await / *[1, 3, 8, 1_000].choose(&mut rng).unwrap();
        let bounded = Compact {
            order: RowOrder::By(order),
            target_file_bytes: Some(*[1_500, 6_000].choose(&mut rng).unwrap()),
            max_rewrite: Some(most.max(1)),
            max_concurrent_groups: Some(rng.random_range(1..3)),
            ..Compact::default()
        };
        let what = format!("seed {seed}, {format:?}, {partitioning:?}, {bounded:?}");
        let rows = content(&table).await;
        let mut runs = 0;
        loop {
            let report = compact(&table, &bounded).await;
            assert_eq!(report.metric("num_groups_skipped"), 0, "{what}: {report:?}");
            for group in &report.groups {
                assert!(group.bytes <= most || group.files == 1, "{what}: {group:?}");
                beyond += usize::from(group.bytes > most);
            }
            several += usize::from(report.metric("num_commits") > 1);
            assert_eq!(content(&table).await, rows, "{what}");
            if !report.committed {
                break;
            }
            runs += 1;
            assert!(runs < 10, "{what}: it goes on for ever");
        }
        assert_sound(&table, &what).await;
    }
    assert!(several > 6 && beyond > 6, "{several}, {beyond}");
}

/// A budget that is less than the table: each run does a part, the next goes on, until there is nothing left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_with_a_budget_put_a_table_in_order_one_after_the_other() {
    for format in [FORMATS[1], FORMATS[2]] {
        for order in orders() {
            let what = format!("{format:?}, {order:?}");
            let table = table(format, "").await;
            scattered(&table, 24, 8_200, "r").await;
            let budget = bytes(&table).await / 3;
            let some = Compact {
                order: order.clone(),
                target_file_bytes: Some(4096),
                max_bytes: Some(budget),
                ..Compact::default()
            };
            let (rows, before) = (digest(&table).await, depth(&table, &order).await);
            let mut runs = 0;
            loop {
                let report = compact(&table, &some).await;
                if !report.committed {
                    break;
                }
                runs += 1;
                assert!(runs < 30, "{what}: it goes on for ever");
                let done = report
                    .groups
                    .iter()
                    .filter(|group| group.outcome.version().is_some());
                let done: u64 = done.map(|group| group.bytes).sum();
                assert!(done <= budget, "{what}: {done} of {budget}: {report:?}");
                assert_eq!(digest(&table).await, rows, "{what}");
            }
            assert!(runs >= 3, "{what}: {runs} runs");
            let after = depth(&table, &order).await;
            assert!(
                after * 2.0 < before,
                "{what}: {before}, {after} after {runs} runs"
            );
            let checked = checked_all(&table).await;
            assert!(wrong(&checked).is_empty(), "{what}: {checked:?}");
        }
    }
}
