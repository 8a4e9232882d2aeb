//! What meets what, and one run of it under the scheduler.

use std::fmt;
use std::sync::Arc;

use lakehouse_core::store::clock::{self, Source};
use lakehouse_core::store::sim::Kind as RequestKind;

use super::bed::{Bed, end, open, over};
use super::explorer::Explorer;
use super::gate::{Gate, Points, Request, Turn};
use super::history::{Done, Ended, History, Op, Row};

/// Kinds of write operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Append,
    Overwrite,
    Delete,
    Update,
    Merge,
    Compact,
    AppendColumn,
    MergeColumn,
    Restore,
}

/// How near the rows are that the operations of a case are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// Of different files.
    Disjoint,
    /// Different rows of one file.
    SameFile,
    /// Some rows are the same, and so is the key that merges insert.
    SameRow,
}

pub(crate) const OVERLAPS: [Overlap; 3] = [Overlap::Disjoint, Overlap::SameFile, Overlap::SameRow];

impl Verb {
    /// The operation of this kind that the given actor runs in a case.
    pub(crate) fn op(self, actor: usize, overlap: Overlap) -> Op {
        let ids = match (overlap, actor) {
            (Overlap::Disjoint | Overlap::SameFile, 0) => 0..=1,
            (Overlap::Disjoint, 1) => 12..=13,
            (Overlap::Disjoint, _) => 10..=11,
            (Overlap::SameFile, 1) => 2..=3,
            (Overlap::SameFile, _) => 5..=5,
            (Overlap::SameRow, 0) => 0..=1,
            (Overlap::SameRow, 1) => 1..=2,
            (Overlap::SameRow, _) => 0..=2,
        };
        let number = actor as i64 + 1;
        let fresh = match overlap {
            Overlap::SameRow => 20,
            _ => 20 + number,
        };
        let with_fresh = || ids.clone().chain([fresh]);
        let value = |id: i64| 1000 * number + id;
        let plain = |id: i64| -> Row { (id, value(id), None) };
        let with_tip = |id: i64| -> Row { (id, value(id), Some(number)) };
        match self {
            Self::Append => Op::Append(with_fresh().map(plain).collect()),
            Self::AppendColumn => Op::AppendColumn(with_fresh().map(with_tip).collect()),
            Self::Overwrite => Op::Overwrite(ids.clone(), ids.map(plain).collect()),
            Self::Delete => Op::Delete(ids),
            Self::Update => Op::Update(ids, number),
            Self::Merge => Op::Merge(with_fresh().map(|id| (id, value(id))).collect()),
            Self::MergeColumn => Op::MergeColumn(with_fresh().map(with_tip).collect()),
            Self::Compact => Op::Compact,
            Self::Restore => Op::Restore,
        }
    }
}

/// Operations that run at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) verbs: Vec<Verb>,
    pub(crate) overlap: Overlap,
    pub(crate) points: Points,
    /// Of the creates that make versions, counted from 0, the one whose reply is lost.
    pub(crate) loses_reply: Option<usize>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.verbs, self.overlap)?;
        match self.loses_reply {
            Some(create) => write!(f, ", the reply to create {create} is lost"),
            None => Ok(()),
        }
    }
}

/// One run of a case over a copy of the table; false if it was given up because it shows nothing new.
///
/// # Errors
/// What is wrong with the table afterwards, or with what an operation said.
pub(crate) async fn run(bed: &Bed, case: &Case, seed: u64, explorer: &mut Explorer) -> Result<bool, String> {
    let inner = bed.fork();
    let ops: Vec<Op> = case
        .verbs
        .iter()
        .enumerate()
        .map(|(at, verb)| verb.op(at, case.overlap))
        .collect();
    let gate = Gate::new(ops.len(), case.points);
    let time = Source::new(seed);
    let actors: Vec<_> = ops
        .iter()
        .enumerate()
        .map(|(actor, op)| {
            let handle = open(bed.kind, gate.store(actor, &over(&inner)));
            let source = Arc::new(time.actor(seed.wrapping_mul(31).wrapping_add(actor as u64), 0));
            let (level, op, old, gate) = (bed.level, op.clone(), bed.old.0, gate.clone());
            tokio::spawn(async move {
                let operation = async { end(level, &handle, &op, old).await };
                gate.actor(actor, clock::simulated(source, operation)).await
            })
        })
        .collect();
    let (complete, trace) = drive(&gate, case.loses_reply, explorer).await;
    let mut done = Vec::new();
    for (actor, op) in actors.into_iter().zip(ops) {
        let ended = actor.await.map_err(|panic| format!("{op:?}: {panic}"))?;
        let ended = ended.unwrap_or_else(|| Ended::Failed("not started".to_owned()));
        done.push(Done { op, ended });
    }
    if complete {
        let wrong = judge(bed, &inner, &done).await;
        wrong.map_err(|why| {
            let steps: Vec<String> = trace
                .iter()
                .map(|(actor, request)| format!("  {actor} {request:?}"))
                .collect();
            format!("{:?}, {case}: {why}\n{}", bed.kind, steps.join("\n"))
        })?;
    }
    Ok(complete)
}

/// Lets one actor after the other go on until all are done; tells whether all came to their end.
pub(crate) async fn drive(
    gate: &Gate,
    loses_reply: Option<usize>,
    explorer: &mut Explorer,
) -> (bool, Vec<(usize, Request)>) {
    let mut trace = Vec::new();
    let mut creates = 0;
    // Nothing can be noticed of what actors do before their first request: they start one after the other.
    loop {
        let starting = gate
            .settled()
            .await
            .into_iter()
            .find(|(_, request)| *request == Request::Start);
        let Some((actor, _)) = starting else { break };
        gate.release(actor, Turn::Go);
    }
    loop {
        let enabled = gate.settled().await;
        explorer.reverse_conflicts(&gate.passed());
        if enabled.is_empty() {
            return (true, trace);
        }
        let Some(chosen) = explorer.choose(&enabled) else {
            gate.close();
            return (false, trace);
        };
        let request = enabled.into_iter().find(|(actor, _)| *actor == chosen);
        let request = request.expect("it can go on").1;
        let mut turn = Turn::Go;
        if matches!(request, Request::Store(RequestKind::Create, _)) {
            if loses_reply == Some(creates) {
                turn = Turn::LoseReply;
            }
            creates += 1;
        }
        trace.push((chosen, request));
        gate.release(chosen, turn);
    }
}

/// The rules: design.md, "Conflict rules", and the promises in the README.
///
/// # Errors
/// What is wrong with the table, or with what an operation said.
pub(crate) async fn judge(
    bed: &Bed,
    inner: &Arc<object_store::memory::InMemory>,
    done: &[Done],
) -> Result<(), String> {
    let told = || done.iter().map(Done::to_string).collect::<Vec<_>>().join("\n");
    for one in done {
        match &one.ended {
            Ended::Committed(_) | Ended::Nothing(_) => {}
            // A restore would undo what was committed meanwhile; everything else is planned again.
            Ended::Conflict(_) if one.op == Op::Restore && done.len() > 1 => {}
            _ => return Err(format!("this should not have failed\n{}", told())),
        }
    }
    let versions = bed.versions(inner).await;
    let history = History {
        earlier: &bed.earlier,
        versions: &versions,
        old: &bed.old.1,
        done,
    };
    history
        .judge()
        .map_err(|why| format!("{why}\n{}\nbefore: {:?}", told(), bed.base.1))?;
    let misplaced = bed.misplaced(inner, &versions).await;
    match misplaced.is_empty() {
        true => Ok(()),
        false => Err(format!("{misplaced:?}\n{}", told())),
    }
}
