//! What operations ask of a store: the number and kind of requests, pinned, for tables of ten and of many files, early
//! and late in their history. docs/storage.md states the same numbers.

use std::sync::Arc;

use lakehouse_core::model::{At, Prune};
use lakehouse_core::operations::{Event, Expire, Stream, append_lines};
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

/// A line for each commit, handed out one at a time.
struct OneByOne(std::collections::VecDeque<String>);

impl std::io::Read for OneByOne {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some(line) = self.0.pop_front() else {
            return Ok(0);
        };
        buffer[..line.len()].copy_from_slice(line.as_bytes());
        Ok(line.len())
    }
}

/// What each commit of a stream asks of the store and sends there, with what keeps the table in order after it.
async fn of_a_stream(format: (TableFormat, Option<u8>), commits: usize) -> Vec<(String, u64)> {
    let root = "memory://costs".parse().unwrap();
    let (store, faults) = faulty(&Store::over(Arc::new(InMemory::new()), root));
    // What the table itself wants to remember of files that are gone is not the stream's to forget.
    let forget = [("delta.deletedFileRetentionDuration", "interval 1 millisecond")];
    let properties: &[(&str, &str)] = match format.0 {
        TableFormat::Iceberg => &[],
        TableFormat::Delta => &forget,
    };
    let table = table_made(store, format, "", properties).await;
    let stream = Stream {
        key: Some("feed".to_owned()),
        rows: Some(1),
        compact_every: Some(20),
        expire: Some(Expire {
            older_than_ms: Some(0),
            retain_last: Some(20),
        }),
        ..Stream::default()
    };
    let lines = (10_000..10_000 + commits).map(|id| format!("{{\"id\": {id}, \"n\": {id}}}\n"));
    let mut asked = Vec::new();
    faults.reset();
    let mut told = |event: &Event<'_>| {
        let Event::Report(report) = event else {
            return std::ops::ControlFlow::Continue(());
        };
        // A commit of rows begins with what came after the one before.
        if report.operation == "append" {
            let counts = faults.counts();
            asked.push((kinds(counts), counts.put_bytes + counts.create_bytes));
            faults.reset();
        }
        std::ops::ControlFlow::Continue(())
    };
    append_lines(
        table.handle(),
        OneByOne(lines.collect()),
        &stream,
        &Options::default(),
        &mut told,
    )
    .await
    .unwrap();
    assert_eq!(asked.len(), commits, "{format:?}");
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_a_stream_ask_for_the_same_and_send_as_much_after_three_hundred_as_after_one_hundred() {
    for format in FORMATS {
        let asked = of_a_stream(format, 340).await;
        // Two whole turns of compaction, which hold whole turns of checkpoints.
        let (early, late) = (&asked[101..141], &asked[301..asked.len().min(341)]);
        for (at, (early, late)) in early.iter().zip(late).enumerate() {
            // What lets nothing go, or no file, is tried less often: a listing is not asked for each time.
            let without_listings = |text: &str| text.split(", list").next().unwrap_or_default().to_owned();
            if at % 20 != 0 && at % 20 != 19 {
                assert_eq!(
                    without_listings(&early.0),
                    without_listings(&late.0),
                    "{format:?} {at}"
                );
            }
        }
        let bytes =
            |part: &[(String, u64)]| part.iter().map(|(_, bytes)| bytes).sum::<u64>() / part.len() as u64;
        let (early, late) = (bytes(&early[..39]), bytes(late));
        assert!(
            late * 100 <= early * 110,
            "{format:?}: a commit sends {late} bytes, {early} before"
        );
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
