//! What operations ask of a store: the number and kind of requests, pinned, for tables of ten and of many files, early
//! and late in their history. docs/storage.md states the same numbers.

use std::sync::Arc;

use lakehouse_core::model::{At, Prune};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::{Counts, Faults, faulty};
use lakehouse_core::{Merge, Options, Table, TableFormat};
use object_store::memory::InMemory;

use crate::verbs::{FORMATS, append, rows, table_in, table_made};

/// A table with `files` data files, one per region, and the counter under it.
async fn counted(format: (TableFormat, Option<u8>), files: usize) -> (Store, Faults) {
    let root = "memory://costs".parse().unwrap();
    let (store, faults) = faulty(&Store::over(Arc::new(InMemory::new()), root));
    let table = table_in(store.clone(), format, "region").await;
    let values: Vec<String> = (0..files).map(|at| format!("({at}, 'r{at:05}', {at})")).collect();
    append(&table, &values.join(", ")).await;
    (store, faults)
}

/// Requests by kind, bytes left out.
fn kinds(counts: Counts) -> String {
    let Counts {
        get,
        head,
        put,
        create,
        list,
        delete,
        ..
    } = counts;
    format!("get {get}, head {head}, put {put}, create {create}, list {list}, delete {delete}")
}

async fn costs(store: &Store, faults: &Faults, new: &str) -> [String; 5] {
    let taken = || {
        let counts = kinds(faults.counts());
        faults.reset();
        counts
    };
    faults.reset();
    let table = Table::open_in(store.clone()).await.unwrap();
    let open = taken();
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let loaded = taken();
    let everything = Arc::new(Prune::everything());
    let listing = table.handle().format.files(&snapshot, everything);
    futures::TryStreamExt::try_collect::<Vec<_>>(listing)
        .await
        .unwrap();
    let plan = taken();
    append(&table, new).await;
    let appended = taken();
    let source = rows("id, region, n", "(3, 'r00003', 33)").await;
    let merge = Merge::on("id, region").when_matched_update_all();
    table.merge(source, &merge, &Options::default()).await.unwrap();
    [open, loaded, plan, appended, taken()]
}

/// Open, snapshot, plan, append, merge of one row: Iceberg, then Delta.
const ICEBERG: [&str; 5] = [
    "get 0, head 3, put 0, create 0, list 0, delete 0",
    "get 5, head 0, put 0, create 0, list 0, delete 0",
    "get 2, head 0, put 0, create 0, list 0, delete 0",
    "get 6, head 3, put 4, create 1, list 0, delete 0",
    "get 10, head 3, put 5, create 1, list 0, delete 0",
];
const DELTA: [&str; 5] = [
    "get 0, head 3, put 0, create 0, list 1, delete 0",
    "get 4, head 1, put 0, create 0, list 1, delete 0",
    "get 2, head 0, put 0, create 0, list 0, delete 0",
    "get 2, head 1, put 1, create 1, list 2, delete 0",
    "get 6, head 1, put 1, create 1, list 2, delete 0",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_do_not_depend_on_the_number_of_files_and_those_of_an_append_not_on_the_history() {
    for format in FORMATS {
        let pinned = match format.0 {
            TableFormat::Iceberg => ICEBERG,
            TableFormat::Delta => DELTA,
        };
        let (few, few_faults) = counted(format, 10).await;
        let (many, many_faults) = counted(format, 10_000).await;
        assert_eq!(
            costs(&few, &few_faults, "(-1, 'r00001', 0)").await,
            pinned,
            "{format:?}"
        );
        assert_eq!(
            costs(&many, &many_faults, "(-1, 'r00001', 0)").await,
            pinned,
            "{format:?}: many files"
        );
        let table = Table::open_in(few.clone()).await.unwrap();
        for at in 0..60 {
            append(&table, &format!("({}, 'r00001', 0)", -2 - at)).await;
        }
        let late = costs(&few, &few_faults, "(-99, 'r00001', 0)").await;
        assert_eq!(late[0], pinned[0], "{format:?}: opening after 60 commits");
        assert_eq!(late[3], pinned[3], "{format:?}: appending after 60 commits");
    }
}

/// Appends that ask for more than the others, by their numbers: in Iceberg those that join a hundred manifests, which
/// they read; in Delta every tenth version, which writes a checkpoint and reads the log since the last.
fn tidying(format: TableFormat) -> Vec<(i64, String)> {
    let joins = "get 106, head 3, put 5, create 1, list 0, delete 0";
    let first = "get 25, head 1, put 2, create 2, list 2, delete 0";
    let checkpoint = "get 29, head 3, put 2, create 2, list 2, delete 0";
    match format {
        TableFormat::Iceberg => [100, 199].map(|at| (at, joins.to_owned())).to_vec(),
        TableFormat::Delta => (9..=209)
            .step_by(10)
            .map(|at| (at, if at == 9 { first } else { checkpoint }.to_owned()))
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_ask_for_the_same_again_and_again_but_for_those_that_tidy_metadata() {
    for format in FORMATS {
        let usual = match format.0 {
            TableFormat::Iceberg => ICEBERG[3],
            TableFormat::Delta => DELTA[3],
        };
        let (store, faults) = counted(format, 10).await;
        let table = Table::open_in(store).await.unwrap();
        let mut others = Vec::new();
        for at in 1..=210_i64 {
            faults.reset();
            append(&table, &format!("({}, 'r00001', 0)", -at)).await;
            let asked = kinds(faults.counts());
            // The first loads the table, too.
            if at > 1 && asked != usual {
                others.push((at, asked));
            }
        }
        assert_eq!(others, tidying(format.0), "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_to_a_table_that_tracks_rows_do_not_read_its_log_again() {
    let root = "memory://costs".parse().unwrap();
    let (store, faults) = faulty(&Store::over(Arc::new(InMemory::new()), root));
    let properties = [
        ("delta.enableRowTracking", "true"),
        ("delta.checkpointInterval", "1000"),
    ];
    let table = table_made(store, (TableFormat::Delta, None), "", &properties).await;
    let mut asked = Vec::new();
    for at in 0..30 {
        faults.reset();
        append(&table, &format!("({at}, 'eu', 0)")).await;
        asked.push(kinds(faults.counts()));
    }
    // The first loads the table; all others read the entry of the version before, with the ids that it gave.
    let usual = asked[2].clone();
    assert_eq!(asked[2..], vec![usual; 28]);
}
