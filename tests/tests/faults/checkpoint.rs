//! The commit that writes a checkpoint: what a reader finds who begins with it.

use lakehouse_core::store::sim::Kind;
use lakehouse_core::{Options, Report, Table, TableFormat};

use super::*;

/// Delta's: the next commit is version 10. Rows in many files, some masked, some files gone.
async fn nine_commits() -> Arc<InMemory> {
    let prepared = Arc::new(InMemory::new());
    let root = "memory://faults".parse().unwrap();
    let store = Store::over(Arc::clone(&prepared) as _, root);
    prepare(store.clone(), TableFormat::Delta, None).await;
    let table = Table::open_in(store).await.unwrap();
    let options = Options::default();
    for at in 0..3 {
        let first = 20 + 2 * at;
        table
            .append(rows(first..first + 2, "us"), &options)
            .await
            .unwrap();
    }
    table.delete("id in (20, 22, 23)", &options).await.unwrap();
    let keyed = Options {
        token: Some("early".into()),
        ..options
    };
    table.append(rows(30..32, "eu"), &keyed).await.unwrap();
    let newest = table.snapshot(&At::Latest).await.unwrap().version;
    assert_eq!(newest, 9);
    prepared
}

async fn tenth(store: Store) -> Result<Report> {
    let options = Options {
        token: Some("tenth".into()),
        ..Options::default()
    };
    let table = Table::open_in(store).await?;
    table.append(rows(100..103, "eu"), &options).await
}

/// The checkpoint alone, as when the log was cleaned up.
async fn without_the_entries(store: &Store) {
    let entries = keys(store).await;
    let old = (0..10).map(|version| format!("_delta_log/{version:020}.json"));
    let old: Vec<String> = old.filter(|key| entries.contains(key)).collect();
    store.delete(&old).await.unwrap();
}

#[test]
fn a_checkpoint_is_whole_or_not_there_whichever_request_fails() {
    block_on(async {
        let prepared = nine_commits().await;
        let (before, kept) = (content(&over(&prepared)).await, keys(&over(&prepared)).await);
        let healthy = over(&prepared);
        tenth(healthy.clone()).await.unwrap();
        let by_both = content(&healthy).await;
        let mut checkpoint = keys(&healthy).await;
        checkpoint.retain(|key| key.contains("checkpoint"));
        assert_eq!(checkpoint.len(), 2, "{checkpoint:?}");
        healthy.delete(&checkpoint).await.unwrap();
        let after = content(&healthy).await;
        assert_eq!(by_both, after, "a checkpoint says something else than the log");
        let (store, faults) = faulty(&over(&prepared));
        tenth(store).await.unwrap();
        let log = faults.log();
        let is_commit = |(kind, path): &(Kind, String)| *kind == Kind::Create && path.ends_with("10.json");
        let commit = log.iter().position(is_commit).unwrap() as u64 + 1;
        // A crash first: of all faults it leaves the most behind.
        for fault in FAULTS.into_iter().rev() {
            for at in commit..=faults.requests() {
                let healthy = over(&prepared);
                let (store, faults) = faulty(&healthy);
                faults.fail_at(at, fault);
                let case = format!("{fault:?} at request {at}: {}", log[at as usize - 1].1);
                let done = tenth(store).await;
                // What is late arrives between the two looks.
                let mut checkpoint = has_checkpoint(&healthy, &case).await;
                if faults.deliver(&healthy).await > 0 {
                    checkpoint = has_checkpoint(&healthy, &case).await;
                }
                let landed = content(&healthy).await == after;
                assert!(landed || content(&healthy).await == before, "{case}: torn");
                assert!(
                    landed || done.is_err(),
                    "{case}: acknowledged, but not there: {done:?}"
                );
                if checkpoint {
                    without_the_entries(&healthy).await;
                    assert_eq!(content(&healthy).await, after, "{case}: by the checkpoint alone");
                }
                let again = tenth(healthy.clone()).await.unwrap();
                assert_eq!(again.already.is_some(), landed, "{case}: {again:?}");
                assert_eq!(content(&healthy).await, after, "{case}: after running it again");
            }
        }
        assert_eq!(keys(&over(&prepared)).await, kept);
    });
}

/// Whether there is a checkpoint, which there must be if one is pointed at.
async fn has_checkpoint(store: &Store, case: &str) -> bool {
    let now = keys(store).await;
    let checkpoint = now.iter().any(|key| key.ends_with(".checkpoint.parquet"));
    let pointer = now.iter().any(|key| key.ends_with("_last_checkpoint"));
    assert!(
        checkpoint || !pointer,
        "{case}: _last_checkpoint names a checkpoint that is not there"
    );
    checkpoint
}
