//! Reading with requests that fail: everything is told as it is, or it is an error; and nothing is ever written.

use super::activation::is_about;
use super::*;

/// What is to be read of a table: rows now and then, what happened, which files there are.
async fn read(store: Store) -> Result<Vec<String>> {
    let table = Table::open_in(store).await?;
    let mut read = rows_of(&table).await?;
    let history = table.history(None).await?;
    let oldest = history.iter().map(|commit| commit.version).min().unwrap();
    read.extend(history.iter().map(|commit| format!("{commit:?}")));
    for at in [At::Latest, At::Version(oldest)] {
        read.extend(table.files(&at).await?.iter().map(|file| format!("{file:?}")));
    }
    Ok(read)
}

#[test]
fn reading_with_any_single_fault_tells_the_truth_or_fails_and_writes_nothing() {
    block_on(async {
        for format in FORMATS {
            let place = Place::in_memory(format).await;
            let (store, faults) = faulty(&place.fresh());
            let truth = read(store).await.unwrap();
            let log = faults.log();
            let (mut told, mut failed) = (0, 0);
            // Where a listing lacks the newest version, the one before it is no lie.
            for fault in FAULTS.into_iter().filter(|fault| *fault != Fault::StaleList) {
                let about = (1..).zip(&log).filter(|(_, (kind, _))| is_about(fault, *kind));
                for (at, (kind, path)) in about {
                    let healthy = place.fresh();
                    let (store, faults) = faulty(&healthy);
                    faults.fail_at(at, fault);
                    let case = format!("{format:?}: {fault:?} at request {at}, {kind:?} {path}");
                    match read(store).await {
                        Ok(read) => {
                            assert_eq!(read, truth, "{case}");
                            told += 1;
                        }
                        Err(_) => failed += 1,
                    }
                    assert_eq!(faults.fired(), 1, "{case}");
                    let written = faults.log().into_iter().find(|(kind, _)| kind.is_write());
                    assert_eq!(written, None, "{case}");
                }
            }
            println!("{format:?}: read {told} times with a fault, {failed} errors");
            // One that passes is no reason to give up; where no client asks again, Delta's log is read once.
            assert!(told > failed / 2, "{format:?}: {told} times, {failed} errors");
        }
    });
}
