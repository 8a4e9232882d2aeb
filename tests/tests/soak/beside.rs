//! A compaction that goes on and on beside four writers that merge, on threads of their own: no writer fails, the
//! compactor gets on, and the history is that of running one after the other.
//!
//! `LAKEHOUSE_SOAK_SECONDS=600` goes on for so long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lakehouse_core::format::Handle;
use lakehouse_core::model::At;
use lakehouse_core::{Compact, Options, operations};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::interleave::bed::{Bed, Kind, Level, end, open, over};
use crate::interleave::history::{Done, Ended, History, Op};
use crate::support::{number, soak_until};
use crate::verbs::FORMATS;

const WRITERS: u64 = 4;
const KEYS: i64 = 200;
/// Versions whose rows are compared at most in one run: each of them is read.
const VERSIONS: usize = 400;

/// What a writer does next.
fn op(random: &mut StdRng) -> Op {
    let key = random.random_range(0..KEYS);
    match random.random_range(0..10) {
        0 => Op::Delete(key..=key + 2),
        1 => Op::Update(key..=key + 3, random.random_range(1..5)),
        _ => {
            let source: BTreeMap<i64, i64> = (0..random.random_range(1..6))
                .map(|_| (random.random_range(0..KEYS), random.random_range(1..9)))
                .collect();
            Op::Merge(source.into_iter().collect())
        }
    }
}

/// What came of one run: commits of writers and of the compactor, rows that it carried, plans that were made again.
#[derive(Debug, Default)]
struct Tally {
    written: usize,
    compacted: usize,
    carried: u64,
    again: u32,
    /// Runs that made more than one commit.
    side_by_side: usize,
}

async fn run(kind: Kind, seed: u64, time: Duration) -> Result<Tally, String> {
    let level = Level::Whole { mask: true };
    let files: Vec<Op> = (0..4)
        .map(|file| Op::Append((file * 50..file * 50 + 50).map(|id| (id, 1, None)).collect()))
        .collect();
    let bed = Arc::new(Bed::prepare(kind, level, &files).await);
    let inner = bed.fork();
    let stop = Arc::new(AtomicBool::new(false));
    let rest = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let handle = open(kind, over(&inner));
        let (stop, rest) = (Arc::clone(&stop), Arc::clone(&rest));
        let mut random = StdRng::seed_from_u64(seed * WRITERS + writer);
        // Some rewrite the files that they touch.
        let level = Level::Whole { mask: writer > 0 };
        writers.push(tokio::spawn(async move {
            let mut done = Vec::new();
            while !stop.load(Ordering::Relaxed) && done.len() < VERSIONS / WRITERS as usize {
                let op = op(&mut random);
                let begun = Instant::now();
                let ended = end(level, &handle, &op, 0).await;
                done.push(Done { op, ended });
                if rest.load(Ordering::Relaxed) {
                    tokio::time::sleep(begun.elapsed() * 4).await;
                }
            }
            done
        }));
    }
    let met = Arc::new(AtomicBool::new(false));
    let (handle, halt, meet) = (open(kind, over(&inner)), Arc::clone(&stop), Arc::clone(&met));
    let compactor = tokio::spawn(async move {
        let (mut done, mut tally, mut turns) = (Vec::new(), Tally::default(), 0);
        while !halt.load(Ordering::Relaxed) {
            // Now all together, now in several groups, two or four of them side by side.
            let compact = match turns % 6 {
                0 => Compact::default(),
                some => Compact {
                    max_rewrite: Some(1),
                    max_concurrent_groups: Some(2 + some % 2 * 2),
                    ..Compact::default()
                },
            };
            // Turns come so fast that mostly one file has masked rows by then. Some wait until there is work for several.
            if matches!(turns % 6, 2 | 3) && planned(&handle, &compact).await? < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            turns += 1;
            let report = operations::compact(&handle, &compact, &Options::default()).await;
            let report = report.map_err(|error| format!("the compaction failed: {error}"))?;
            if report.metric("num_commits") > 1 {
                tally.side_by_side += 1;
                meet.store(true, Ordering::Relaxed);
            }
            let mut versions: Vec<_> = report
                .groups
                .iter()
                .filter_map(|group| group.outcome.version())
                .collect();
            versions.dedup();
            tally.compacted += versions.len();
            tally.carried += report.metric("num_target_rows_carried");
            tally.again += report.plans - 1;
            done.extend(versions.into_iter().map(|version| Done {
                op: Op::Compact,
                ended: Ended::Committed(version),
            }));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, String>((done, tally))
    });
    let began = Instant::now();
    // Not before groups met. On a machine with much to do a compaction loses against four writers without a pause again and
    // again: then they rest after each operation.
    let goes_on = || {
        let over = began.elapsed() >= time;
        rest.store(over, Ordering::Relaxed);
        !over || !met.load(Ordering::Relaxed)
    };
    while goes_on() && !writers.iter().all(|writer| writer.is_finished()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut done, mut tally) = compactor.await.map_err(|panic| panic.to_string())??;
    for writer in writers {
        let ended = writer.await.map_err(|panic| panic.to_string())?;
        let fine = |one: &&Done| matches!(one.ended, Ended::Committed(_) | Ended::Nothing(_));
        if let Some(one) = ended.iter().find(|one| !fine(one)) {
            return Err(format!("a writer failed beside the compaction: {one}"));
        }
        tally.written += ended.len();
        done.extend(ended);
    }
    let versions = bed.versions(&inner).await;
    let history = History {
        earlier: &bed.earlier,
        versions: &versions,
        old: &bed.old.1,
        done: &done,
    };
    history.judge()?;
    // What is left is compacted once more, and once is enough.
    let handle = open(kind, over(&inner));
    for again in [false, true] {
        let report = operations::compact(&handle, &Compact::default(), &Options::default()).await;
        let report = report.map_err(|error| error.to_string())?;
        if again && report.committed {
            return Err(format!("a second run alone has something to do: {report:?}"));
        }
    }
    let snapshot = handle.format.snapshot(&At::Latest).await.unwrap();
    let files = crate::interleave::bed::files(&handle, &snapshot).await.unwrap();
    match files.len() {
        0 | 1 => Ok(tally),
        left => Err(format!("{left} files are left of a small table")),
    }
}

/// Groups that a compaction would work on by now.
async fn planned(handle: &Handle, compact: &Compact) -> Result<usize, String> {
    let dry_run = Options {
        dry_run: true,
        ..Options::default()
    };
    let report = operations::compact(handle, compact, &dry_run).await;
    Ok(report.map_err(|error| error.to_string())?.groups.len())
}

fn beside(kind: Kind) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let until = soak_until().unwrap_or_else(Instant::now);
        let first = number("LAKEHOUSE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
        let mut all = Tally::default();
        for seed in first.. {
            let done = run(kind, seed, Duration::from_secs(5)).await;
            let done = done.unwrap_or_else(|why| panic!("{kind:?}, LAKEHOUSE_SEED={seed}: {why}"));
            all.written += done.written;
            all.compacted += done.compacted;
            all.carried += done.carried;
            all.again += done.again;
            all.side_by_side += done.side_by_side;
            if number("LAKEHOUSE_SEED").is_some() || Instant::now() >= until {
                break;
            }
        }
        println!("{kind:?}: {all:?}");
        assert!(all.written > 10, "{kind:?}: the writers did not get on: {all:?}");
        assert!(
            all.compacted > 0,
            "{kind:?}: the compaction did not get on: {all:?}"
        );
        assert!(
            all.side_by_side > 0,
            "{kind:?}: no two groups were side by side: {all:?}"
        );
    });
}

#[test]
fn a_compaction_without_end_fails_no_merging_writer_on_iceberg_v2() {
    beside(FORMATS[0]);
}

#[test]
fn a_compaction_without_end_fails_no_merging_writer_on_iceberg_v3() {
    beside(FORMATS[1]);
}

#[test]
fn a_compaction_without_end_fails_no_merging_writer_on_delta() {
    beside(FORMATS[2]);
}
