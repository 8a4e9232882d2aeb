//! An expire that meets a writer and a reader, in every order with few switches: the writer's rows are there, the reader has read one
//! version, what is kept can be read.

use std::sync::Arc;
use std::time::Instant;

use lakehouse_core::Options;
use lakehouse_core::model::At;
use lakehouse_core::operations::{Expire, expire};
use lakehouse_core::store::clock::{self, Source};

use super::bed::{Bed, Kind, Level, end, open, over, read_rows, rows_at};
use super::cases::{Overlap, Verb, drive};
use super::explorer::{Explorer, Search};
use super::gate::{Gate, Points};
use super::history::{Ended, Rows};
use super::{Tally, block_on};
use crate::support::aged::aged;
use crate::verbs::FORMATS;

/// One run; false if it was given up because it shows nothing new.
async fn run(
    bed: &Bed,
    verb: Verb,
    keep: u32,
    after: &Rows,
    explorer: &mut Explorer,
) -> Result<bool, String> {
    let inner = bed.fork();
    let (store, age) = aged(&over(&inner));
    age.pass().await;
    let gate = Gate::new(3, Points::Versions);
    let time = Source::new(1);
    let source = |actor: u64| Arc::new(time.actor(31 + actor, 0));
    let handles: Vec<_> = (0..3)
        .map(|actor| open(bed.kind, gate.store(actor, &store)))
        .collect();
    let expirer = {
        let (handle, gate, source) = (handles[0].clone(), gate.clone(), source(0));
        let what = Expire {
            older_than_ms: Some(0),
            retain_last: Some(keep),
        };
        let run = async move { expire(&handle, &what, &Options::default()).await };
        tokio::spawn(async move { gate.actor(0, clock::simulated(source, run)).await })
    };
    let writer = {
        let (handle, gate, source) = (handles[1].clone(), gate.clone(), source(1));
        let (level, op, old) = (bed.level, verb.op(0, Overlap::SameFile), bed.old.0);
        let run = async move { end(level, &handle, &op, old).await };
        tokio::spawn(async move { gate.actor(1, clock::simulated(source, run)).await })
    };
    let reader = {
        let (handle, gate, source) = (handles[2].clone(), gate.clone(), source(2));
        let run = async move {
            let newest = handle.format.snapshot(&At::Latest).await?;
            read_rows(&handle, &newest).await
        };
        tokio::spawn(async move { gate.actor(2, clock::simulated(source, run)).await })
    };
    let (complete, trace) = drive(&gate, None, explorer).await;
    let (expired, written, read) = (expirer.await, writer.await, reader.await);
    if !complete {
        return Ok(false);
    }
    let expired = expired.map_err(|e| e.to_string())?.expect("it was started");
    let written = written.map_err(|e| e.to_string())?.expect("it was started");
    let read = read.map_err(|e| e.to_string())?.expect("it was started");
    let wrong = |what: String| {
        let steps: Vec<String> = trace
            .iter()
            .map(|(actor, request)| format!("  {actor} {request:?}"))
            .collect();
        Err(format!(
            "{:?}, {verb:?}, keep {keep}: {what}\n{}",
            bed.kind,
            steps.join("\n")
        ))
    };
    let report = match expired {
        Ok(report) => report,
        Err(error) => return wrong(format!("expire: {error:?}")),
    };
    if !matches!(written, Ended::Committed(_)) {
        return wrong(format!("the writer: {written:?}"));
    }
    match read {
        Ok(rows) if rows == bed.base.1 || rows == *after => {}
        other => return wrong(format!("the reader: {other:?}")),
    }
    let fresh = open(bed.kind, over(&inner));
    let newest = fresh
        .format
        .snapshot(&At::Latest)
        .await
        .map_err(|e| format!("{e:?}"))?;
    if rows_at(&fresh, newest.version).await != *after {
        return wrong("rows are missing".to_owned());
    }
    let left = fresh
        .format
        .versions(&newest)
        .await
        .map_err(|e| format!("{e:?}"))?;
    let known = |version| {
        bed.earlier
            .iter()
            .chain([&bed.base])
            .find(|(one, _)| *one == version)
    };
    for one in &left {
        let rows = rows_at(&fresh, one.version).await;
        if known(one.version).is_some_and(|(_, expected)| rows != *expected) {
            return wrong(format!("version {} reads otherwise", one.version));
        }
    }
    // A version that came after it had decided is one more.
    let most = keep as usize + 1;
    if left.len() > most || (left.len() as u64) < report.kept {
        return wrong(format!("{} versions are left: {report:?}", left.len()));
    }
    Ok(true)
}

fn every_order(kind: Kind) {
    let started = Instant::now();
    let mut tally = Tally::default();
    block_on(async {
        let bed = Bed::small(kind, Level::Staged).await;
        for verb in [Verb::Append, Verb::Update, Verb::Compact] {
            let alone = bed.fork();
            let handle = open(kind, over(&alone));
            let op = verb.op(0, Overlap::SameFile);
            let source = Arc::new(Source::new(9));
            clock::simulated(source, end(bed.level, &handle, &op, bed.old.0)).await;
            let newest = handle.format.snapshot(&At::Latest).await.unwrap();
            let after = rows_at(&handle, newest.version).await;
            for keep in [1, 2] {
                let mut explorer = Explorer::new(Search::Preemptions(1));
                loop {
                    let complete = run(&bed, verb, keep, &after, &mut explorer).await;
                    let complete = complete.unwrap_or_else(|why| panic!("schedule {}: {why}", explorer.runs));
                    if !explorer.advance(complete) {
                        break;
                    }
                }
                tally.add(&explorer);
            }
        }
    });
    println!(
        "expire on {kind:?}: {} schedules, {:.1} s",
        tally.schedules,
        started.elapsed().as_secs_f64()
    );
    assert!(tally.schedules > 20, "{tally:?}");
}

#[test]
fn an_expire_meets_a_writer_and_a_reader_on_iceberg() {
    every_order(FORMATS[1]);
}

#[test]
fn an_expire_meets_a_writer_and_a_reader_on_delta() {
    every_order(FORMATS[2]);
}
