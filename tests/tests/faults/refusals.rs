//! A disk that refuses.

use lakehouse_core::store::sim::Refusal;

use super::*;

/// A disk that is full or must not be written: an error that says so, the table as it was, and the same
/// operation once the disk is well again.
#[test]
fn a_full_or_read_only_disk_leaves_the_table_as_it_was() {
    block_on(async {
        for format in FORMATS {
            let place = Place::in_memory(format).await;
            let before = content(&place.fresh()).await;
            let keys_before = keys(&place.fresh()).await;
            for verb in VERBS {
                for refusal in [Refusal::DiskFull, Refusal::ReadOnly, Refusal::Permission] {
                    let healthy = place.fresh();
                    let (store, faults) = faulty(&healthy);
                    let table = Table::open_in(store).await.unwrap();
                    faults.refuse(Some(refusal));
                    let case = format!("{format:?} {verb:?}: {refusal:?}");
                    let error = verb.run(&table, &Options::default()).await.expect_err(&case);
                    assert!(
                        !matches!(error, Error::CommitUnknown { .. } | Error::Conflict { .. }),
                        "{case}: {error}"
                    );
                    assert_eq!(content(&healthy).await, before, "{case}");
                    assert_eq!(keys(&healthy).await, keys_before, "{case}: files left behind");
                    faults.refuse(None);
                    let report = verb.run(&table, &Options::default()).await.expect(&case);
                    assert!(report.committed, "{case}");
                }
            }
        }
    });
}
