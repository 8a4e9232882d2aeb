//! What a clean-up takes for now, and what a dry run writes: nothing.

use lakehouse_core::operations::Expire;
use lakehouse_core::store::sim::faulty;
use lakehouse_core::{Options, Table, TableFormat, Vacuum};

use super::aged::{Aged, DAY, each};
use crate::verbs::{FORMATS, append, compact_all};

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

fn dry() -> Options {
    Options {
        dry_run: true,
        ..Options::default()
    }
}

#[tokio::test]
async fn a_dry_run_writes_nothing_at_all() {
    each("", &[], async |format, aged| {
        for id in 0..3 {
            append(&aged.table, &format!("({id}, 'eu', 1)")).await;
        }
        aged.clock.advance(60 * DAY);
        let (store, faults) = faulty(aged.store());
        let table = Table::open_in(store).await.unwrap();
        faults.reset();
        let vacuum = Vacuum {
            dry_run: true,
            ..Vacuum::default()
        };
        table.vacuum(&vacuum).await.unwrap();
        let counts = faults.counts();
        assert_eq!(
            (counts.put, counts.create, counts.delete),
            (0, 0, 0),
            "vacuum of {format:?}"
        );
        let said = table.expire(&Expire::default(), &dry()).await.unwrap();
        assert!(!said.expired.is_empty(), "{format:?}: {said:?}");
        let counts = faults.counts();
        assert_eq!(
            (counts.put, counts.create, counts.delete),
            (0, 0, 0),
            "expire of {format:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn versions_expire_by_the_stores_clock_whatever_this_machine_shows() {
    for format in FORMATS {
        for skew in [-YEAR_MS, YEAR_MS] {
            let aged = Aged::new(format, "", &[]).await;
            let table = &aged.table;
            aged.at(append(table, "(1, 'eu', 1)")).await;
            aged.at(append(table, "(2, 'eu', 2)")).await;
            aged.clock.advance(DAY);
            let plain = Options::default();
            let early = aged
                .skewed(skew, table.expire(&Expire::default(), &plain))
                .await
                .unwrap();
            assert_eq!(
                early.expired,
                [] as [i64; 0],
                "{format:?}, skew {skew}: {early:?}"
            );
            aged.clock.advance(60 * DAY);
            let late = aged
                .skewed(skew, table.expire(&Expire::default(), &plain))
                .await
                .unwrap();
            assert!(!late.expired.is_empty(), "{format:?}, skew {skew}: {late:?}");
        }
    }
}

/// The store cannot be asked without writing, but no object is younger than now.
#[tokio::test]
async fn a_dry_run_on_a_machine_whose_clock_is_late_counts_from_the_newest_object() {
    let aged = Aged::new((TableFormat::Delta, None), "", &[]).await;
    let table = &aged.table;
    aged.at(async {
        append(table, "(1, 'eu', 1)").await;
        append(table, "(2, 'eu', 2)").await;
        compact_all(table).await;
        aged.clock.advance(60 * DAY);
        append(table, "(3, 'eu', 3)").await;
    })
    .await;
    let vacuum = Vacuum {
        dry_run: true,
        ..Vacuum::default()
    };
    let said = aged.skewed(-YEAR_MS, table.vacuum(&vacuum)).await.unwrap();
    assert_eq!(said.total().count, 2, "{said:?}");
    let said = aged
        .skewed(-YEAR_MS, table.expire(&Expire::default(), &dry()))
        .await
        .unwrap();
    assert!(!said.expired.is_empty(), "{said:?}");
}
