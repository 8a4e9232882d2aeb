//! Expiring versions with requests that fail: whatever happens, the versions that stay read as before, and running it
//! again ends well.

use std::collections::BTreeMap;

use lakehouse_core::model::Version;
use lakehouse_core::operations::Expire;

use super::*;
use crate::support::aged::aged;

const LAST_TWO: Expire = Expire {
    older_than_ms: Some(0),
    retain_last: Some(2),
};

/// The rows of the last two versions.
async fn kept(store: &Store, versions: &[Version], case: &str) -> BTreeMap<Version, Vec<String>> {
    let mut found = BTreeMap::new();
    for version in versions {
        let read = async {
            let table = Table::open_in(store.clone()).await?;
            let provider = table.provider(&At::Version(*version)).await?;
            let frame = lakehouse_core::scan::session(None).read_table(provider)?;
            Ok::<_, Error>(frame.collect().await?)
        };
        let batches = read
            .await
            .unwrap_or_else(|error| panic!("{case}: version {version}: {error:?}"));
        let text = arrow::util::pretty::pretty_format_batches(&batches)
            .unwrap()
            .to_string();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        found.insert(*version, lines);
    }
    found
}

fn sweep(format: TableFormat, version: Option<u8>) {
    block_on(async {
        let prepared = InMemory::new();
        let root = "memory://faults".parse().unwrap();
        let store = Store::over(Arc::new(prepared.clone()), root);
        let properties = [("write.metadata.previous-versions-max", "2")];
        prepare_with(store.clone(), format, version, &properties).await;
        let newest = Table::open_in(store.clone()).await.unwrap();
        let history = newest.history(Some(2)).await.unwrap();
        let versions: Vec<Version> = history.iter().map(|commit| commit.version).collect();
        let before = kept(&store, &versions, "before").await;
        // Once in health, to count.
        let old = || async {
            let (store, age) = aged(&over(&prepared));
            age.pass().await;
            store
        };
        let healthy = old().await;
        let (counting, faults) = faulty(&healthy);
        let table = Table::open_in(counting).await.unwrap();
        let done = table.expire(&LAST_TWO, &Options::default()).await.unwrap();
        assert!(done.committed && !done.files.files.is_empty(), "{done:?}");
        let (requests, gone) = (faults.requests(), keys(&healthy).await.len());
        for fault in FAULTS {
            for at in 1..=requests {
                let case = format!("{format:?} {version:?}: {fault:?} at request {at}");
                let healthy = old().await;
                let (store, faults) = faulty(&healthy);
                faults.fail_at(at, fault);
                let run = async {
                    let table = Table::open_in(store).await?;
                    table.expire(&LAST_TWO, &Options::default()).await
                };
                let result = run.await;
                assert_eq!(
                    kept(&healthy, &versions, &case).await,
                    before,
                    "{case}: {result:?}"
                );
                faults.deliver(&healthy).await;
                assert_eq!(kept(&healthy, &versions, &case).await, before, "{case}: late");
                let table = Table::open_in(healthy.clone()).await.unwrap();
                let again = table.expire(&LAST_TWO, &Options::default()).await;
                let again = again.unwrap_or_else(|error| panic!("{case}: running it again: {error:?}"));
                assert_eq!(again.kept, 2, "{case}: {again:?}");
                assert_eq!(kept(&healthy, &versions, &case).await, before, "{case}: again");
                // What a fault keeps from going stays behind, and no more than that: a metadata file of another commit,
                // a probe.
                let left = keys(&healthy).await.len();
                assert!(left <= gone + 3, "{case}: {left} objects instead of {gone}");
                let report = table.append(rows(900..901, "eu"), &Options::default()).await;
                assert!(report.unwrap().committed, "{case}");
            }
        }
    });
}

#[test]
fn iceberg_versions_that_stay_survive_every_single_fault_of_an_expire() {
    sweep(TableFormat::Iceberg, Some(2));
}

#[test]
fn delta_versions_that_stay_survive_every_single_fault_of_an_expire() {
    sweep(TableFormat::Delta, None);
}
