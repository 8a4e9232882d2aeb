//! A table in a catalog: every operation with the catalog going away at each of its requests, and with each wrong
//! answer to the swap. Unlike a store of files, a catalog can leave a commit unknown; then nothing is deleted.

use std::sync::Arc;

use lakehouse_core::format::Handle;
use lakehouse_core::iceberg::Iceberg;
use lakehouse_core::iceberg::catalog::{MemoryCatalog, SwapFault};
use lakehouse_core::model::CommitId;

use super::*;

struct InCatalog {
    memory: InMemory,
    catalog: MemoryCatalog,
}

impl InCatalog {
    fn fork(&self) -> Self {
        Self {
            memory: self.memory.fork(),
            catalog: self.catalog.fork(),
        }
    }

    fn store(&self) -> Store {
        // A clone shares the objects, unlike a fork.
        Store::over(Arc::new(self.memory.clone()), "memory://faults".parse().unwrap())
    }

    fn table(&self) -> Table {
        let store = self.store();
        let format = Arc::new(Iceberg::in_catalog(store.clone(), Arc::new(self.catalog.clone())));
        Table::over(Handle { store, format })
    }

    async fn prepared(version: Option<u8>) -> Self {
        let made = Self {
            memory: InMemory::new(),
            catalog: MemoryCatalog::default(),
        };
        let table = made.table();
        let id = CommitId("create".to_owned());
        let created = table
            .handle()
            .format
            .create(&definition(version), &id)
            .await
            .unwrap();
        assert!(
            matches!(created, lakehouse_core::format::Outcome::Committed(_)),
            "{created:?}"
        );
        fill(&table).await;
        made
    }
}

async fn swaps_fail(version: Option<u8>) {
    let prepared = InCatalog::prepared(version).await;
    let before = rows_of(&prepared.table()).await.unwrap();
    let (mut runs, mut unknown) = (0, 0);
    for verb in VERBS {
        let options = Options {
            token: Some(format!("once-{verb:?}").into()),
            ..Options::default()
        };
        let well = prepared.fork();
        verb.run(&well.table(), &options).await.unwrap();
        let (after, requests) = (rows_of(&well.table()).await.unwrap(), well.catalog.met().0);
        let swaps = [
            None,
            Some(SwapFault::Lost),
            Some(SwapFault::Swallowed),
            Some(SwapFault::Late),
            Some(SwapFault::DeniedAfterwards),
        ];
        for swap in swaps {
            for down_after in (0..requests + 2).map(Some).chain([None]) {
                let case = format!("{version:?} {verb:?}: swap {swap:?}, down after {down_after:?}");
                let made = prepared.fork();
                made.catalog.fail_next(swap);
                if let Some(requests) = down_after {
                    made.catalog.go_down_after(requests);
                }
                let result = verb.run(&made.table(), &options).await;
                made.catalog.heal();
                let found = rows_of(&made.table()).await.unwrap();
                runs += 1;
                match &result {
                    Ok(report) => {
                        assert!(report.committed, "{case}: {report:?}");
                        assert_eq!(found, after, "{case}: acknowledged, but not there");
                    }
                    Err(Error::CommitUnknown { .. }) => {
                        unknown += 1;
                        assert!(found == before || found == after, "{case}: torn: {found:?}");
                    }
                    Err(error) => {
                        assert_eq!(found, before, "{case}: {error}, and yet it landed");
                        let left = keys(&made.store()).await;
                        assert_eq!(left, keys(&prepared.store()).await, "{case}: files left behind");
                    }
                }
                if down_after.is_none() {
                    assert!(result.is_ok(), "{case}: {result:?}");
                }
                let second = verb.run(&made.table(), &options).await;
                second.unwrap_or_else(|error| panic!("{case}: running it again: {error}"));
                assert_eq!(
                    rows_of(&made.table()).await.unwrap(),
                    after,
                    "{case}: after running it again"
                );
            }
        }
    }
    assert!(
        unknown > VERBS.len(),
        "the catalog hardly ever left a commit unknown: {unknown}"
    );
    println!("{version:?} in a catalog: {runs} runs, {unknown} unknown");
}

#[test]
fn iceberg_v2_in_a_catalog_that_goes_away_loses_nothing() {
    block_on(swaps_fail(Some(2)));
}

#[test]
fn iceberg_v3_in_a_catalog_that_goes_away_loses_nothing() {
    block_on(swaps_fail(Some(3)));
}
