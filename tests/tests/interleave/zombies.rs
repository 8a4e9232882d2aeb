//! Two runs of one stream at the same time, which cut the same lines into batches of different sizes, in every order with
//! few switches: each line is there once, and a run that does not come to its end ends with a conflict.
//!
//! One switch is not enough: a run that looked, was overtaken by one step of the other and goes on takes two.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use lakehouse_core::operations::{Event, Stream, append_lines};
use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::{Error, Options};

use super::bed::{Bed, Level, open, over};
use super::cases::drive;
use super::explorer::{Explorer, Search};
use super::gate::{Gate, Points};
use super::{Tally, block_on};
use crate::verbs::FORMATS;

const SIZES: [u64; 2] = [2, 3];

/// One run of both; false if it was given up because it shows nothing new.
async fn run(
    bed: &Bed,
    count: i64,
    loses_reply: Option<usize>,
    explorer: &mut Explorer,
) -> Result<bool, String> {
    let inner = bed.fork();
    let gate = Gate::new(SIZES.len(), Points::Versions);
    let time = Source::new(1);
    let lines: String = (100..100 + count)
        .map(|id| format!("{{\"id\": {id}, \"n\": {id}}}\n"))
        .collect();
    let actors: Vec<_> = (0..)
        .zip(SIZES)
        .map(|(actor, size)| {
            let handle = open(bed.kind, gate.store(actor, &over(&inner)));
            let source = Arc::new(time.actor(31 + actor as u64, 0));
            let (gate, input) = (gate.clone(), Cursor::new(lines.clone().into_bytes()));
            let stream = Stream {
                key: Some("feed".to_owned()),
                rows: Some(size),
                ..Stream::default()
            };
            let run = async move {
                let mut told = |_: &Event<'_>| ControlFlow::Continue(());
                append_lines(&handle, input, &stream, &Options::default(), &mut told).await
            };
            tokio::spawn(async move { gate.actor(actor, clock::simulated(source, run)).await })
        })
        .collect();
    let (complete, trace) = drive(&gate, loses_reply, explorer).await;
    let mut ended = Vec::new();
    for actor in actors {
        ended.push(actor.await.map_err(|panic| panic.to_string())?);
    }
    if !complete {
        return Ok(false);
    }
    let wrong = |what: String| {
        let steps: Vec<String> = trace
            .iter()
            .map(|(actor, request)| format!("  {actor} {request:?}"))
            .collect();
        Err(format!("{:?}: {what}\n{ended:?}\n{}", bed.kind, steps.join("\n")))
    };
    let mut through = 0;
    for one in &ended {
        match one.as_ref().expect("it was started") {
            Ok(_) => through += 1,
            Err(Error::Conflict { detail, .. }) if detail.contains("another run of this stream") => {}
            Err(_) => return wrong("only a conflict of the two may end a run".to_owned()),
        }
    }
    let versions = bed.versions(&inner).await;
    let last = &versions.last().expect("the base is there").1;
    let mut ids: Vec<i64> = last.iter().map(|row| row.0).filter(|id| *id >= 100).collect();
    ids.sort_unstable();
    // A run that ended leaves the rest to the next one.
    let whole: Vec<i64> = (100..100 + count).collect();
    if through > 0 && ids != whole || !whole.starts_with(&ids) {
        return wrong(format!("the lines are {ids:?}"));
    }
    Ok(true)
}

/// All orders in which running actors are interrupted at most so often, with all replies and with one lost.
fn every_order(switches: u32, lines: i64) {
    let started = Instant::now();
    block_on(async {
        let mut tally = Tally::default();
        // Versions 2 and 3 of Iceberg commit alike.
        for format in FORMATS.into_iter().skip(1) {
            let bed = Bed::small(format, Level::Whole { mask: true }).await;
            for loses_reply in [None, Some(1)] {
                let mut explorer = Explorer::new(Search::Preemptions(switches));
                loop {
                    let complete = run(&bed, lines, loses_reply, &mut explorer).await;
                    let complete = complete.unwrap_or_else(|why| panic!("schedule {}: {why}", explorer.runs));
                    if !explorer.advance(complete) {
                        break;
                    }
                }
                tally.add(&explorer);
            }
        }
        tally.print(
            &format!("two runs of one stream, switched {switches} times at most"),
            started,
        );
    });
}

#[test]
fn two_runs_of_one_stream_add_each_line_once_in_every_order_with_one_switch() {
    every_order(1, 7);
}

#[test]
fn two_runs_of_one_stream_add_each_line_once_in_every_order_with_two_switches() {
    every_order(2, 4);
}
