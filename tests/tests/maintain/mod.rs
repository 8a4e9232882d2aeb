//! Maintenance: its steps, its order, its budget, what still runs when something fails, and that a second run does
//! nothing.

mod beside;
mod cases;
mod faults;

use std::ops::ControlFlow;
use std::time::Duration;

use lakehouse_core::model::At;
use lakehouse_core::operations::maintain::{Maintained, Policy, Step, StepOutcome};
use lakehouse_core::{Options, Result, Table, TableFormat};

use crate::vacuum::aged::{Aged, DAY};
use crate::verbs::{append, delete};

/// Runs maintenance; whatever a step comes to is in the report.
pub(crate) async fn run(table: &Table, policy: &Policy, dry_run: bool) -> Result<Maintained> {
    let options = Options {
        dry_run,
        ..Options::default()
    };
    let mut go_on = |_: &_| ControlFlow::Continue(());
    table.maintain(policy, &options, &mut go_on).await
}

/// The same, in which no step may fail.
async fn maintained(table: &Table, policy: &Policy) -> Maintained {
    let done = run(table, policy, false).await.unwrap();
    assert_eq!(done.failed().count(), 0, "{done:?}");
    done
}

/// The word for what became of a step; nothing where the table has no such step.
fn outcome(done: &Maintained, step: Step) -> &'static str {
    done.step(step).map_or("", |report| report.outcome.name())
}

fn why(done: &Maintained, step: Step) -> String {
    match &done.step(step).unwrap().outcome {
        StepOutcome::Skipped(why) => why.clone(),
        other => panic!("{step:?} was not left out: {other:?}"),
    }
}

/// A table that nobody cared for: small files in two partitions, masked rows, versions of `days` days, the newest of today
/// but for an hour, and a file of no version that is as old as the table.
async fn neglected(format: (TableFormat, Option<u8>), days: u32, properties: &[(&str, &str)]) -> Aged {
    let aged = Aged::new(format, "region", properties).await;
    for id in 0..6 {
        let values = format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 100);
        aged.at(append(&aged.table, &values)).await;
    }
    let files = aged.at(aged.table.files(&At::Latest)).await.unwrap();
    let path = &files[0].path;
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    aged.orphan(&format!("{folder}/00000-0-left-behind.parquet"))
        .await;
    aged.clock.advance(DAY * days);
    aged.at(append(&aged.table, "(50, 'eu', 3), (150, 'us', 4)"))
        .await;
    aged.at(delete(&aged.table, "id IN (1, 150)")).await;
    aged.clock.advance(Duration::from_secs(3600));
    aged
}
