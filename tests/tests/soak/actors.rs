//! Who takes part in a soak, what each does, and what must hold whatever they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakehouse_core::format::Handle;
use lakehouse_core::model::Snapshot;
use lakehouse_core::scan::{self, SnapshotTable};
use rand::Rng;
use rand::rngs::StdRng;

use crate::interleave::bed::{Level, read_rows, rows_in};
use crate::interleave::history::{Op, Row, Rows};

/// Accounts: ids below; their `n` is money.
const ACCOUNTS: i64 = 6;
/// Rows of merges and deletes: ids from here on to the events.
const KEYED: i64 = 100;
/// Rows that are only ever appended: ids from here on.
const EVENTS: i64 = 1000;
/// Money of each account at the start.
const MONEY: i64 = 1000;

/// What an actor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Appender,
    Merger,
    Banker,
    Deleter,
    Compactor,
    Reader,
}

pub(super) const ACTORS: [Role; 7] = [
    Role::Appender,
    Role::Merger,
    Role::Banker,
    Role::Deleter,
    Role::Compactor,
    Role::Reader,
    Role::Reader,
];

/// The rows at the start.
pub(super) fn accounts() -> Rows {
    (0..ACCOUNTS).map(|id| (id, MONEY, None)).collect()
}

impl Role {
    /// What a writer does next.
    pub(super) fn op(self, actor: usize, round: usize, random: &mut StdRng) -> Op {
        let keyed = |random: &mut StdRng| random.random_range(KEYED..KEYED + 12);
        match self {
            Self::Appender => {
                let first = EVENTS * (actor as i64 + 1) + 10 * round as i64;
                let rows = random.random_range(1..4);
                Op::Append((first..first + rows).map(|id| (id, id, None)).collect())
            }
            Self::Merger => {
                let source: BTreeMap<i64, i64> = (0..3)
                    .map(|_| (keyed(random), random.random_range(1..100)))
                    .collect();
                Op::Merge(source.into_iter().collect())
            }
            Self::Banker => {
                let from = random.random_range(0..ACCOUNTS);
                let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
                let amount = random.random_range(1..50);
                Op::Transfer { from, to, amount }
            }
            Self::Deleter => {
                let first = keyed(random);
                Op::Delete(first..=first + random.random_range(0..3))
            }
            Self::Compactor | Self::Reader => Op::Compact,
        }
    }
}

/// The bank's sum, and that no account and no key is there twice.
pub(super) fn check_invariants(rows: &Rows) -> Result<(), String> {
    let sum: i64 = rows.iter().filter(|row| row.0 < ACCOUNTS).map(|row| row.1).sum();
    if sum != ACCOUNTS * MONEY {
        return Err(format!(
            "the accounts hold {sum}, not {}: {rows:?}",
            ACCOUNTS * MONEY
        ));
    }
    for pair in rows.windows(2) {
        if pair[0].0 == pair[1].0 {
            return Err(format!("{} is there twice: {pair:?}", pair[0].0));
        }
    }
    Ok(())
}

/// Appended rows of the one version that the next one lacks.
pub(super) fn lost_events(before: &Rows, after: &Rows) -> Vec<Row> {
    let events = before.iter().filter(|row| row.0 >= EVENTS);
    events.filter(|row| !after.contains(row)).copied().collect()
}

/// The rows of a version as an engine reads them; of made-up files, as they are. `None` if the store failed for longer
/// than a reader is willing to wait.
pub(super) async fn scan(level: Level, handle: &Handle, snapshot: &Arc<Snapshot>) -> Option<Rows> {
    if !matches!(level, Level::Whole { .. }) {
        return read_rows(handle, snapshot).await.ok();
    }
    let table = Arc::new(SnapshotTable::new(handle.clone(), Arc::clone(snapshot)));
    let frame = scan::session(None).read_table(table).ok()?;
    let batches = frame.collect().await.ok()?;
    let mut rows: Rows = batches.iter().flat_map(rows_in).collect();
    rows.sort_unstable();
    Some(rows)
}
