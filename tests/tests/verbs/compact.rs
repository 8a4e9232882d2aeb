//! Compaction, case by case.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use lakehouse_core::model::At;
use lakehouse_core::operations::{CompactStrategy, GroupOutcome, Strategy};
use lakehouse_core::scan::{self, MetadataColumns, SnapshotTable};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::{Fault, faulty};
use lakehouse_core::{Compact, Options, Report, Table, TableFormat};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{FORMATS, append, content, table, table_in, table_with};
use crate::support::memory;

#[tokio::test]
async fn small_and_masked_files_become_one_per_partition_and_a_second_run_does_nothing() {
    for format in FORMATS {
        let table = table(format, "region").await;
        for id in 0..4 {
            append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 100)).await;
        }
        table.delete("id IN (1, 101)", &Options::default()).await.unwrap();
        let before = content(&table).await;
        let report = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert!(report.committed);
        assert_eq!(report.metric("num_target_rows_copied"), 6);
        let files = table.files(&At::Latest).await.unwrap();
        assert_eq!(files.len(), 2);
        assert!(
            files.iter().all(|f| f.masks.is_empty() && f.rows == 3),
            "{files:?}"
        );
        assert_eq!(content(&table).await, before);
        let again = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert!(!again.committed, "{again:?}");
    }
}

#[tokio::test]
async fn only_partitions_that_may_hold_such_rows_are_compacted() {
    for format in FORMATS {
        let table = table(format, "region").await;
        for id in 0..3 {
            append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 100)).await;
        }
        let compact = Compact {
            predicate: Some("region = 'eu'".to_owned()),
            ..Compact::default()
        };
        let report = table.compact(&compact, &Options::default()).await.unwrap();
        assert_eq!(report.metric("num_target_files_removed"), 3, "{report:?}");
        assert_eq!(table.files(&At::Latest).await.unwrap().len(), 4);
    }
}

#[tokio::test]
async fn good_files_are_left_alone_whatever_their_number() {
    for format in FORMATS {
        let table = table(format, "").await;
        for id in 0..3 {
            let values: Vec<String> = (0..500)
                .map(|n| format!("({}, 'r{}', {n})", id * 1000 + n, n * 7919))
                .collect();
            append(&table, &values.join(", ")).await;
        }
        let bytes = table.files(&At::Latest).await.unwrap()[0].bytes;
        let compact = Compact {
            target_file_bytes: Some(bytes),
            ..Compact::default()
        };
        let report = table.compact(&compact, &Options::default()).await.unwrap();
        assert!(!report.committed, "{report:?}");
    }
}

pub(super) const STRATEGIES: [CompactStrategy; 4] = [
    CompactStrategy::Auto,
    CompactStrategy::SmallFiles,
    CompactStrategy::MaskedFiles,
    CompactStrategy::All,
];

/// What became of each group, by its partition.
fn outcomes(report: &Report) -> BTreeMap<String, Vec<&'static str>> {
    let mut outcomes: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for group in &report.groups {
        let all = outcomes.entry(group.partition.clone()).or_default();
        all.push(group.outcome.name());
    }
    outcomes
}

/// Three partitions with two small files each, a row of each masked.
pub(super) async fn three_partitions(store: Store, format: (TableFormat, Option<u8>)) -> Table {
    let table = table_in(store, format, "region").await;
    for id in 0..2 {
        let of = |region: &str, first: i64| {
            format!(
                "({}, '{region}', 1), ({}, '{region}', 2)",
                first + id,
                first + 10 + id
            )
        };
        append(
            &table,
            &format!("{}, {}, {}", of("ap", 0), of("eu", 100), of("us", 200)),
        )
        .await;
    }
    let masking = Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    };
    table.delete("id IN (0, 100, 200)", &masking).await.unwrap();
    table
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_names_the_groups_that_the_run_then_commits() {
    for format in FORMATS {
        let (store, faults) = faulty(&memory("dry"));
        let table = three_partitions(store, format).await;
        let dry = Options {
            dry_run: true,
            ..Options::default()
        };
        faults.reset();
        let planned = table.compact(&Compact::default(), &dry).await.unwrap();
        let counts = faults.counts();
        assert_eq!(
            (counts.put, counts.create, counts.delete),
            (0, 0, 0),
            "{format:?}: {counts:?}"
        );
        assert!(planned.dry_run && !planned.committed);
        let expected =
            ["region=ap", "region=eu", "region=us"].map(|place| (place.to_owned(), vec!["planned"]));
        assert_eq!(outcomes(&planned), BTreeMap::from(expected), "{format:?}");
        let done = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        for (planned, done) in planned.groups.iter().zip(&done.groups) {
            assert_eq!(
                (planned.files, planned.rows, planned.expected_files),
                (2, 4, 1),
                "{planned:?}"
            );
            assert_eq!(planned.masked_rows, 1, "{planned:?}");
            assert_eq!(
                done.outcome,
                GroupOutcome::Committed(done.outcome.version().unwrap())
            );
            assert_eq!((done.files, done.bytes), (planned.files, planned.bytes));
        }
        // They are small: one commit for all of them.
        assert_eq!(
            (done.metric("num_groups_committed"), done.metric("num_commits")),
            (3, 1)
        );
        assert_eq!(table.files(&At::Latest).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_group_with_a_damaged_file_is_skipped_and_the_others_are_committed() {
    for format in FORMATS {
        let store = memory("damaged");
        let table = three_partitions(store.clone(), format).await;
        let files = table.files(&At::Latest).await.unwrap();
        let broken = files.iter().find(|file| file.path.contains("eu")).unwrap();
        store
            .put(&broken.path, vec![7; broken.bytes as usize].into())
            .await
            .unwrap();
        let report = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        let expected = [("ap", "committed"), ("eu", "skipped"), ("us", "committed")];
        let expected = expected.map(|(place, outcome)| (format!("region={place}"), vec![outcome]));
        assert_eq!(
            outcomes(&report),
            BTreeMap::from(expected),
            "{format:?}: {report:?}"
        );
        let why = report
            .groups
            .iter()
            .find_map(|group| group.outcome.why())
            .unwrap();
        assert!(why.contains(&broken.path), "{format:?}: {why}");
        let left = table.files(&At::Latest).await.unwrap();
        assert_eq!(left.len(), 4, "{format:?}: {left:?}");
        // Alone it is an error.
        let again = table.compact(&Compact::default(), &Options::default()).await;
        let error = again.unwrap_err().to_string();
        assert!(error.contains(&broken.path), "{format:?}: {error}");
        assert_eq!(
            crate::races::orphans(&table).await,
            Vec::<String>::new(),
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn budgets_of_bytes_and_time_leave_the_rest_for_the_next_run() {
    for format in FORMATS {
        let table = three_partitions(memory("budget"), format).await;
        let before = content(&table).await;
        let sizes: Vec<u64> = {
            let dry = Options {
                dry_run: true,
                ..Options::default()
            };
            let planned = table.compact(&Compact::default(), &dry).await.unwrap();
            planned.groups.iter().map(|group| group.bytes).collect()
        };
        let none = Compact {
            max_time: Some(Duration::ZERO),
            ..Compact::default()
        };
        let report = table.compact(&none, &Options::default()).await.unwrap();
        assert!(
            !report.committed && report.metric("num_groups_skipped") == 3,
            "{report:?}"
        );
        let two = Compact {
            max_bytes: Some(sizes.iter().sum::<u64>() - 1),
            ..Compact::default()
        };
        let report = table.compact(&two, &Options::default()).await.unwrap();
        // Of the third, at most the file with the masked row.
        assert!(
            report.metric("num_groups_committed") >= 2,
            "{format:?}: {report:?}"
        );
        assert_eq!(report.metric("num_groups_skipped"), 1, "{format:?}: {report:?}");
        let report = table.compact(&two, &Options::default()).await.unwrap();
        assert_eq!(report.metric("num_groups_committed"), 1, "{format:?}: {report:?}");
        let report = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert!(!report.committed);
        assert_eq!(content(&table).await, before, "{format:?}");
    }
}

/// Each group in a commit of its own.
fn one_by_one() -> Compact {
    Compact {
        max_rewrite: Some(1),
        ..Compact::default()
    }
}

#[tokio::test]
async fn a_key_is_recorded_with_the_last_of_several_commits() {
    for format in FORMATS {
        let table = three_partitions(memory("key"), format).await;
        for id in 0..2 {
            append(&table, &format!("({}, 'us', 7)", 300 + id)).await;
        }
        let options = Options {
            token: Some("nightly".into()),
            ..Options::default()
        };
        let masked = Compact {
            strategy: CompactStrategy::MaskedFiles,
            ..one_by_one()
        };
        let report = table.compact(&masked, &options).await.unwrap();
        assert_eq!(report.metric("num_commits"), 3, "{format:?}: {report:?}");
        let versions: Vec<_> = report
            .groups
            .iter()
            .filter_map(|group| group.outcome.version())
            .collect();
        assert_eq!(versions.last(), Some(&report.version), "{format:?}");
        let format = &table.handle().format;
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        let recorded = format.find_token(&snapshot, &"nightly".into()).await.unwrap();
        assert_eq!(recorded, versions.last().copied(), "{format:?}");
        let again = table.compact(&Compact::default(), &options).await.unwrap();
        assert_eq!((again.committed, again.already), (false, recorded), "{format:?}");
    }
}

#[tokio::test]
async fn whenever_it_is_killed_the_table_is_good_and_the_next_run_goes_on() {
    killed(1).await;
}

#[tokio::test]
async fn so_it_is_when_it_was_at_work_on_several_groups() {
    killed(2).await;
}

/// So many groups are worked on at the same time.
async fn killed(concurrent: usize) {
    for format in FORMATS {
        let inner = Arc::new(InMemory::new());
        let over =
            |inner: &Arc<InMemory>| Store::over(Arc::clone(inner) as _, "memory://killed".parse().unwrap());
        let masked = Compact {
            strategy: CompactStrategy::MaskedFiles,
            max_concurrent_groups: Some(concurrent),
            ..one_by_one()
        };
        let before = content(&three_partitions(over(&inner), format).await).await;
        let (store, faults) = faulty(&over(&Arc::new(inner.fork())));
        let whole = Table::open_in(store).await.unwrap();
        whole.compact(&masked, &Options::default()).await.unwrap();
        let mut partly = 0;
        for request in (1..=faults.requests()).step_by(2) {
            let fork = Arc::new(inner.fork());
            let (store, faults) = faulty(&over(&fork));
            faults.fail_at(request, Fault::Crash);
            let killed = match Table::open_in(store).await {
                Ok(table) => table.compact(&masked, &Options::default()).await,
                Err(error) => Err(error),
            };
            let table = Table::open_in(over(&fork)).await.unwrap();
            assert_eq!(
                content(&table).await,
                before,
                "{format:?}, request {request}: {killed:?}"
            );
            let files = table.files(&At::Latest).await.unwrap();
            let left = files.iter().filter(|file| !file.masks.is_empty()).count() as u64;
            partly += u32::from(left > 0 && left < 3);
            let again = table.compact(&masked, &Options::default()).await.unwrap();
            assert_eq!(
                again.metric("num_groups_committed"),
                left,
                "{format:?}, request {request}: {again:?}"
            );
            assert_eq!(content(&table).await, before, "{format:?}, request {request}");
        }
        assert!(partly > 1, "{format:?}: it was never killed between two groups");
    }
}

/// A table of random files, some with masks, some large for the target size.
pub(super) async fn random_table(rng: &mut StdRng, format: (TableFormat, Option<u8>), limit: &str) -> Table {
    let partitioning = *["", "region", "bucket(2, id)"].choose(rng).unwrap();
    let table = table_with(format, partitioning, &[("write.parquet.row-group-limit", limit)]).await;
    let mut next = 0;
    for _ in 0..rng.random_range(2..9) {
        let rows = *[1, 5, 40, 400].choose(rng).unwrap();
        let values: Vec<String> = (next..next + rows)
            .map(|id| {
                format!(
                    "({id}, '{}', {})",
                    if id % 3 == 0 { "eu" } else { "us" },
                    rng.random_range(0..1000)
                )
            })
            .collect();
        next += rows;
        append(&table, &values.join(", ")).await;
    }
    if rng.random_bool(0.8) {
        let options = Options {
            strategy: Strategy::MergeOnRead,
            ..Options::default()
        };
        let condition = *["id % 10 = 3", "id < 30", "n < 100", "id % 400 = 7"]
            .choose(rng)
            .unwrap();
        table.delete(condition, &options).await.unwrap();
    }
    table
}

/// The rows of each file in their order, all files one after the other.
async fn order(table: &Table) -> Vec<(i64, i64)> {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let columns = MetadataColumns {
        file: true,
        position: true,
        ..MetadataColumns::default()
    };
    let provider = SnapshotTable::new(table.handle().clone(), snapshot).with_metadata_columns(columns);
    let ctx = scan::session(None);
    ctx.register_table("t", Arc::new(provider)).unwrap();
    let sql =
        "SELECT id, CAST(dense_rank() OVER (ORDER BY _file) AS bigint) AS file FROM t ORDER BY _file, _pos";
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let rows = batches.iter().flat_map(|batch| {
        let (ids, files) = (batch.column(0), batch.column(1));
        let (ids, files) = (ids.as_primitive::<Int64Type>(), files.as_primitive::<Int64Type>());
        let pairs: Vec<_> = ids
            .values()
            .iter()
            .copied()
            .zip(files.values().iter().copied())
            .collect();
        pairs
    });
    rows.collect()
}

#[tokio::test]
async fn on_real_tables_too_a_second_run_does_nothing_and_rows_keep_their_order_within_a_file() {
    let mut committed = 0;
    for seed in 0..48_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let format = FORMATS[(seed % 3) as usize];
        let limit = *["20", "100", "100000"].choose(&mut rng).unwrap();
        let table = random_table(&mut rng, format, limit).await;
        let compact = Compact {
            strategy: STRATEGIES[(seed / 3 % 4) as usize],
            target_file_bytes: Some(*[1_500, 4_000, 1 << 20].choose(&mut rng).unwrap()),
            max_rewrite: rng.random_bool(0.6).then(|| rng.random_range(2_000..9_000)),
            ..Compact::default()
        };
        let what = format!("seed {seed}, {format:?}, {compact:?}");
        let (before, rows) = (order(&table).await, content(&table).await);
        let report = table.compact(&compact, &Options::default()).await.unwrap();
        committed += u32::from(report.committed);
        assert_eq!(content(&table).await, rows, "{what}: {report:?}");
        // Rows of one old file that are in one new file are in it as they were.
        let place: HashMap<i64, i64> = order(&table)
            .await
            .into_iter()
            .zip(0..)
            .map(|((id, file), at)| (id, file << 32 | at))
            .collect();
        for pair in before.windows(2).filter(|pair| pair[0].1 == pair[1].1) {
            let (one, other) = (place[&pair[0].0], place[&pair[1].0]);
            assert!(one >> 32 != other >> 32 || one < other, "{what}: {pair:?}");
        }
        let again = table.compact(&compact, &Options::default()).await.unwrap();
        assert!(!again.committed, "{what}: {report:?}, and again {again:?}");
        let dry = Options {
            dry_run: true,
            ..Options::default()
        };
        let planned = table.compact(&compact, &dry).await.unwrap();
        assert!(planned.groups.is_empty(), "{what}: {planned:?}");
        assert_eq!(
            crate::races::orphans(&table).await,
            Vec::<String>::new(),
            "{what}"
        );
    }
    assert!(committed > 24, "{committed} of 48 had something to do");
}

#[tokio::test]
async fn large_row_groups_are_copied_and_only_small_or_masked_ones_decoded() {
    for format in FORMATS {
        let table = table_with(format, "", &[("write.parquet.row-group-limit", "50")]).await;
        let values = |from: i64, rows: i64| -> String {
            let values: Vec<String> = (from..from + rows)
                .map(|id| format!("({id}, 'eu', {id})"))
                .collect();
            values.join(", ")
        };
        for file in 0..64 {
            append(&table, &values(file * 50, 50)).await;
        }
        let report = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        let row_groups = |report: &Report| {
            [
                "num_target_row_groups_copied",
                "num_target_row_groups_decoded",
                "bytes_decoded",
            ]
            .map(|name| report.metric(name))
        };
        assert_eq!(row_groups(&report), [64, 0, 0], "{format:?}: {report:?}");
        assert_eq!(
            report.metric("bytes_copied"),
            report.metric("bytes_read"),
            "{format:?}"
        );
        // One row group of the 64 has a masked row.
        let masking = Options {
            strategy: Strategy::MergeOnRead,
            ..Options::default()
        };
        table.delete("id = 777", &masking).await.unwrap();
        let report = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        let [copied, decoded, bytes] = row_groups(&report);
        assert_eq!((copied, decoded), (63, 1), "{format:?}: {report:?}");
        assert!(
            bytes > 0 && bytes * 20 < report.metric("bytes_copied"),
            "{format:?}: {report:?}"
        );
        // Ten rows are little: 60 such files become row groups of 50, once.
        for file in 0..60 {
            append(&table, &values(10_000 + file * 10, 10)).await;
        }
        let report = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(row_groups(&report)[1], 60, "{format:?}: {report:?}");
        let files = table.files(&At::Latest).await.unwrap();
        assert_eq!(files.len(), 1, "{format:?}: {files:?}");
        if format.0 == TableFormat::Iceberg {
            // 64 as they were, one of them with 49 rows, and 600 rows in twelve; at most one more where they meet.
            assert!(
                (76..=77).contains(&files[0].split_offsets.len()),
                "{:?}",
                files[0].split_offsets.len()
            );
        }
        assert_eq!(content(&table).await.len(), 64 * 50 - 1 + 600, "{format:?}");
    }
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_by_name() {
    let table = table(FORMATS[0], "").await;
    let cases = [
        (
            Compact {
                min_input_files: Some(1),
                ..Compact::default()
            },
            "min-input-files",
        ),
        (
            Compact {
                delete_ratio_threshold: Some(1.5),
                ..Compact::default()
            },
            "delete-ratio-threshold",
        ),
        (
            Compact {
                max_rewrite: Some(0),
                ..Compact::default()
            },
            "max-rewrite",
        ),
    ];
    for (compact, name) in cases {
        let error = table.compact(&compact, &Options::default()).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(
        "some-files"
            .parse::<CompactStrategy>()
            .unwrap_err()
            .to_string()
            .contains("some-files")
    );
}
