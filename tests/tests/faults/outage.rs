//! A store that is away from the commit's own request on, for as long as the operation keeps asking, and well again
//! right after: whoever cleans up then must know what it cleans.

use lakehouse_core::store::sim::{Fault, Faults, Kind};
use lakehouse_core::{Error, Options, Report, Result, Table, TableFormat};

use super::*;

/// More requests than any operation sends.
const FOR_GOOD: u64 = 2_000;

/// Runs an operation; the store fails its requests from `from` to `upto`, the first as `first` says.
async fn away(
    prepared: &InMemory,
    verb: Verb,
    first: Fault,
    from: u64,
    upto: u64,
) -> (Result<Report>, Store, Faults) {
    let healthy = over(prepared);
    let (store, faults) = faulty(&healthy);
    let table = Table::open_in(store).await.unwrap();
    faults.reset();
    for at in from..=upto {
        faults.fail_at(at, if at == from { first } else { Fault::FailBefore });
    }
    let result = verb.run(&table, &Options::default()).await;
    (result, healthy, faults)
}

fn makes_a_version(kind: Kind, path: &str) -> bool {
    kind == Kind::Create && (path.starts_with("_delta_log/") || path.starts_with("metadata/v"))
}

#[test]
fn what_may_have_landed_is_left_alone_whenever_the_store_comes_back() {
    block_on(async {
        for (format, version) in [
            (TableFormat::Iceberg, Some(2)),
            (TableFormat::Iceberg, Some(3)),
            (TableFormat::Delta, None),
        ] {
            let prepared = Arc::new(InMemory::new());
            let root = "memory://faults".parse().unwrap();
            prepare(Store::over(Arc::clone(&prepared) as _, root), format, version).await;
            let before = content(&over(&prepared)).await;
            let verb = Verb::Update;
            let (_, healthy, faults) = away(&prepared, verb, Fault::FailBefore, FOR_GOOD, 0).await;
            let after = content(&healthy).await;
            let log = faults.log();
            let commit = log.iter().position(|(kind, path)| makes_a_version(*kind, path));
            let commit = commit.unwrap() as u64 + 1;
            for (first, expected) in [
                (Fault::FailAfter, &after),
                (Fault::FailBefore, &before),
                (Fault::Stray, &before),
            ] {
                let (result, _, faults) = away(&prepared, verb, first, commit, FOR_GOOD).await;
                let log = faults.log();
                let case = format!("{format} {version:?}: {first:?} at the commit, then no answer");
                assert!(
                    matches!(result, Err(Error::CommitUnknown { .. })),
                    "{case}: {result:?}"
                );
                // Back before it looks for its commit, and before it would clean up.
                let (_, name) = &log[commit as usize - 1];
                let own = log.iter().rposition(|(_, path)| path == name).unwrap() as u64 + 1;
                let last = log.iter().rposition(|(kind, _)| *kind != Kind::Delete).unwrap() as u64 + 1;
                for upto in [own, last] {
                    let case = format!("{case} for {} requests", upto - commit);
                    let (result, healthy, faults) = away(&prepared, verb, first, commit, upto).await;
                    let found = match readable(&healthy).await {
                        Ok(found) => found,
                        Err(error) => {
                            panic!("{case}: files of a commit that may have landed are gone: {error}")
                        }
                    };
                    assert_eq!(&found, expected, "{case}: {result:?}");
                    match result {
                        Ok(report) => assert!(report.committed && found == after, "{case}: {report:?}"),
                        Err(Error::CommitUnknown { .. }) if first == Fault::Stray => {
                            // It lands after all, and finds everything that it needs.
                            assert_eq!(faults.deliver(&healthy).await, 1, "{case}");
                            assert_eq!(content(&healthy).await, after, "{case}, then it arrives");
                        }
                        Err(Error::CommitUnknown { .. }) => {}
                        Err(other) => panic!("{case}: {other}"),
                    }
                }
            }
        }
    });
}

/// Without a hint the newest version is looked for in a listing, which may lack the newest.
#[test]
fn a_listing_that_lacks_the_newest_version_does_not_hide_it() {
    block_on(async {
        let prepared = Arc::new(InMemory::new());
        let root = "memory://faults".parse().unwrap();
        let healthy = Store::over(Arc::clone(&prepared) as _, root);
        prepare(healthy.clone(), TableFormat::Iceberg, Some(2)).await;
        let hint = ["metadata/version-hint.text".to_owned()];
        let newest = Table::open_in(healthy.clone()).await.unwrap();
        let newest = newest.snapshot(&At::Latest).await.unwrap();
        // A folder with nothing behind the versions in it.
        let all = keys(&healthy).await;
        let last = all.iter().rfind(|key| key.starts_with("metadata/")).unwrap();
        assert!(last == &hint[0], "{all:?}");
        healthy.delete(&hint).await.unwrap();
        let (store, faults) = faulty(&healthy);
        let table = Table::open_in(store).await.unwrap();
        faults.reset();
        table.snapshot(&At::Latest).await.unwrap();
        let lists: Vec<u64> = (1..)
            .zip(faults.log())
            .filter(|(_, (kind, _))| *kind == Kind::List)
            .map(|(at, _)| at)
            .collect();
        assert!(!lists.is_empty(), "{:?}", faults.log());
        for at in lists {
            faults.reset();
            faults.fail_at(at, Fault::StaleList);
            let found = table.snapshot(&At::Latest).await.unwrap();
            assert_eq!(faults.fired(), 1);
            assert_eq!(
                found.version, newest.version,
                "the listing at request {at} was believed"
            );
        }
    });
}
