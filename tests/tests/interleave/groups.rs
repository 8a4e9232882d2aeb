//! A compaction that works on several groups at the same time beside other writers, in random orders of requests: also the
//! groups of one run wait for their turn, each apart. Every version must have the rows of running the other operations in
//! turn, no group may fail, whatever the order, and no file is left or missing.
//!
//! Which group a request is of nobody tells a store, so that no order can be taken up again where another one left it:
//! orders are drawn, not enumerated. How many groups are at work is known by who holds the run's clock.
//!
//! `LAKEHOUSE_SOAK_SECONDS=600` goes on for so long, `LAKEHOUSE_SEED` repeats one as far as the machine lets it.

use std::sync::Arc;
use std::time::Instant;

use lakehouse_core::model::Version;
use lakehouse_core::operations::{CompactStrategy, GroupOutcome};
use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::store::sim::Kind as RequestKind;
use lakehouse_core::{Compact, Options, Report, Result, operations};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::bed::{Bed, Kind, Level, end, open, over};
use super::block_on;
use super::cases::judge;
use super::gate::{Gate, Points, Request, Turn};
use super::history::{Done, Ended, Op};
use crate::support::{number, soak_until};
use crate::verbs::FORMATS;

/// Files of the table, each with a masked row: each is a group and a commit of its own.
const FILES: i64 = 4;
/// Orders that are run of each format.
const ORDERS: u64 = 60;

/// Rows 0 to 5 in the first file, 10 to 15 in the second and so on; the fifth of each is masked.
async fn bed(kind: Kind) -> Bed {
    let mut ops: Vec<Op> = (0..FILES)
        .map(|file| {
            Op::Append(
                (file * 10..=file * 10 + 5)
                    .map(|id| (id, id * 10, None))
                    .collect(),
            )
        })
        .collect();
    ops.extend((0..FILES).map(|file| Op::Delete(file * 10 + 4..=file * 10 + 4)));
    Bed::prepare(kind, Level::Whole { mask: true }, &ops).await
}

/// What was seen in the orders that were run.
#[derive(Debug, Default)]
struct Seen {
    orders: u64,
    /// Choices between requests of two groups of one run.
    between_groups: u64,
    /// Commits of compactions.
    commits: u64,
    /// Rows that went while their file was rewritten.
    carried: u64,
    /// Groups whose files others had rewritten.
    gone: u64,
}

/// What a writer does beside the compaction: to rows of one file, or of two.
fn op(random: &mut StdRng) -> Op {
    let at = random.random_range(0..FILES) * 10 + random.random_range(0..4);
    let ids = at..=at + 1;
    let other = (at + 10) % (FILES * 10);
    match random.random_range(0..6) {
        0 => Op::Append(vec![(90, 1, None), (at, 2, None)]),
        1 => Op::Delete(ids),
        2 => Op::Update(ids, 7),
        3 => Op::Overwrite(ids, vec![(at, -1, None)]),
        _ => Op::Merge(vec![(at, 1), (other, 2), (91, 3)]),
    }
}

/// One run in an order that the seed draws.
///
/// # Errors
/// What is wrong with the table afterwards, or with what an operation said.
async fn run(bed: &Bed, seed: u64, seen: &mut Seen) -> std::result::Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let ops: Vec<Op> = (0..random.random_range(1..=2)).map(|_| op(&mut random)).collect();
    let level = Level::Whole {
        mask: random.random_bool(0.7),
    };
    let loses_reply = random.random_bool(0.3).then(|| random.random_range(0..5));
    let compact = Compact {
        max_rewrite: Some(1),
        strategy: *[CompactStrategy::Auto, CompactStrategy::MaskedFiles]
            .choose(&mut random)
            .unwrap(),
        max_concurrent_groups: Some(random.random_range(2..=3)),
        ..Compact::default()
    };
    let inner = bed.fork();
    let gate = Gate::new(1 + ops.len(), Points::Versions);
    let time = Source::new(seed);
    let source = |actor: u64| Arc::new(time.actor(seed.wrapping_mul(31).wrapping_add(actor), 0));
    let clock = source(0);
    let compaction = {
        let handle = open(bed.kind, gate.store(0, &over(&inner)));
        let (gate, clock, compact) = (gate.clone(), Arc::clone(&clock), compact.clone());
        let work = async move { operations::compact(&handle, &compact, &Options::default()).await };
        tokio::spawn(async move { gate.actor(0, clock::simulated(clock, work)).await })
    };
    let writers: Vec<_> = (1..)
        .zip(&ops)
        .map(|(actor, op)| {
            let handle = open(bed.kind, gate.store(actor, &over(&inner)));
            let (gate, clock, op) = (gate.clone(), source(actor as u64), op.clone());
            let work = async move { end(level, &handle, &op, 0).await };
            tokio::spawn(async move { gate.actor(actor, clock::simulated(clock, work)).await })
        })
        .collect();
    // Beside this one and the run itself, each group has the clock.
    let groups = || Arc::strong_count(&clock).saturating_sub(2);
    let mut trace = Vec::new();
    let mut creates = 0;
    loop {
        let waiting = gate
            .all_waiting(|actor| if actor == 0 { groups() } else { 1 })
            .await;
        let Some((actor, place, request)) = waiting.choose(&mut random).cloned() else {
            break;
        };
        let of_groups = waiting.iter().filter(|(actor, ..)| *actor == 0).count();
        seen.between_groups += u64::from(of_groups > 1);
        let mut turn = Turn::Go;
        if matches!(request, Request::Store(RequestKind::Create, _)) {
            if loses_reply == Some(creates) {
                turn = Turn::LoseReply;
            }
            creates += 1;
        }
        trace.push(format!("  {actor} {request:?} {turn:?}"));
        gate.release_at(actor, place, turn);
    }
    let report = compaction
        .await
        .map_err(|panic| panic.to_string())?
        .expect("it was started");
    let mut done = committed(report, seen)?;
    for (writer, op) in writers.into_iter().zip(ops) {
        let ended = writer.await.map_err(|panic| panic.to_string())?;
        let ended = ended.unwrap_or_else(|| Ended::Failed("not started".to_owned()));
        done.push(Done { op, ended });
    }
    seen.orders += 1;
    judge(bed, &inner, &done)
        .await
        .map_err(|why| format!("{:?}, {compact:?}: {why}\n{}", bed.kind, trace.join("\n")))
}

/// The commits of a compaction, each as an operation that changes no row.
fn committed(report: Result<Report>, seen: &mut Seen) -> std::result::Result<Vec<Done>, String> {
    let report = report.map_err(|error| format!("the compaction failed: {error}"))?;
    for group in &report.groups {
        match &group.outcome {
            GroupOutcome::Committed(_) => {}
            GroupOutcome::Skipped(why) if why.contains("rewrote or removed its files") => seen.gone += 1,
            _ => return Err(format!("a group was left for no good reason: {group:?}")),
        }
    }
    seen.commits += report.metric("num_commits");
    seen.carried += report.metric("num_target_rows_carried");
    let mut versions: Vec<Version> = (report.groups.iter())
        .filter_map(|group| group.outcome.version())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    let done = |version| Done {
        op: Op::Compact,
        ended: Ended::Committed(version),
    };
    Ok(versions.into_iter().map(done).collect())
}

fn side_by_side(kind: Kind) {
    let until = soak_until();
    let only = number("LAKEHOUSE_SEED");
    block_on(async {
        let started = Instant::now();
        let bed = bed(kind).await;
        let mut seen = Seen::default();
        let first = only.unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
        for seed in first.. {
            run(&bed, seed, &mut seen)
                .await
                .unwrap_or_else(|why| panic!("LAKEHOUSE_SEED={seed}: {why}"));
            let enough = match until {
                Some(until) => Instant::now() >= until,
                None => seen.orders >= ORDERS,
            };
            if only.is_some() || enough {
                break;
            }
        }
        println!(
            "groups side by side, {kind:?}: {seen:?}, {:.1} s",
            started.elapsed().as_secs_f64()
        );
        if only.is_none() {
            assert!(
                seen.between_groups > seen.orders * 4,
                "groups did not meet: {seen:?}"
            );
            assert!(seen.commits > seen.orders * 2 && seen.carried > 0, "{seen:?}");
        }
    });
}

#[test]
fn groups_of_one_compaction_end_as_if_in_turn_with_each_other_and_with_writers_on_iceberg_v2() {
    side_by_side(FORMATS[0]);
}

#[test]
fn groups_of_one_compaction_end_as_if_in_turn_with_each_other_and_with_writers_on_iceberg_v3() {
    side_by_side(FORMATS[1]);
}

#[test]
fn groups_of_one_compaction_end_as_if_in_turn_with_each_other_and_with_writers_on_delta() {
    side_by_side(FORMATS[2]);
}
