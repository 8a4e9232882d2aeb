//! Streams of small commits: every row once, whatever stops in between.

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use lakehouse_core::operations::{Folder, Stream, Streamed, append_folder, append_lines};
use lakehouse_core::{Error, Options, Result, Table};

use super::{FORMATS, content, table};

fn line(id: usize) -> String {
    format!("{{\"id\": {id}, \"region\": \"eu\", \"n\": {}}}\n", id * 10)
}

fn lines(ids: std::ops::Range<usize>) -> String {
    ids.map(line).collect()
}

fn expected(ids: std::ops::Range<usize>) -> Vec<String> {
    let mut rows: Vec<_> = ids.map(|id| format!("{id}|eu|{}", id * 10)).collect();
    rows.sort();
    rows
}

async fn sorted(table: &Table) -> Vec<String> {
    let mut rows = content(table).await;
    rows.sort();
    rows
}

fn named(rows: u64) -> Stream {
    Stream {
        key: Some("feed".to_owned()),
        rows: Some(rows),
        ..Stream::default()
    }
}

/// Runs until it has told of so many commits, where it breaks off: as if the process was killed, or on being told to.
async fn run_lines(
    table: &Table,
    input: String,
    stream: &Stream,
    commits: u64,
    kill: bool,
) -> Option<Streamed> {
    let (table, stream) = (table.clone(), stream.clone());
    let run = tokio::spawn(async move {
        let mut left = commits;
        let mut told = |_: &lakehouse_core::Report| {
            left -= 1;
            assert!(left > 0 || !kill, "killed");
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let input = io::Cursor::new(input.into_bytes());
        append_lines(table.handle(), input, &stream, &Options::default(), &mut told)
            .await
            .unwrap()
    });
    run.await.ok()
}

#[tokio::test]
async fn lines_are_committed_once_however_often_the_stream_starts_again() {
    for format in FORMATS {
        for kill in [true, false] {
            let table = table(format, "").await;
            for (through, stops_after) in [(10, 2), (25, 1), (25, 3), (37, 1_000)] {
                let done = run_lines(&table, lines(0..through), &named(4), stops_after, kill).await;
                assert_eq!(done.is_none(), kill && stops_after < 1000, "{format:?}");
            }
            assert_eq!(sorted(&table).await, expected(0..37), "{format:?} killed: {kill}");
            let again = run_lines(&table, lines(0..37), &named(4), 1, false)
                .await
                .unwrap();
            let nothing = Streamed {
                skipped: 37,
                ..Streamed::default()
            };
            assert_eq!(again, nothing, "{format:?}");
        }
    }
}

#[tokio::test]
async fn commits_have_as_many_lines_as_asked_for_and_a_last_line_needs_no_end() {
    for format in FORMATS {
        let table = table(format, "").await;
        let input = format!("{}\n{}", lines(0..9), line(9).trim_end());
        let done = run_lines(&table, input, &named(3), 100, false).await.unwrap();
        // The empty line is one of them, and no row.
        assert_eq!((done.commits, done.rows, done.skipped), (4, 10, 0), "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..10), "{format:?}");
        assert_eq!(table.last_step("feed", None).await.unwrap(), Some(11));
    }
}

/// Gives its lines, then nothing for a while, then the end.
struct Slow(Vec<String>);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(text) = self.0.pop() else { return Ok(0) };
        if text.is_empty() {
            std::thread::sleep(Duration::from_millis(400));
            return self.read(buffer);
        }
        buffer[..text.len()].copy_from_slice(text.as_bytes());
        Ok(text.len())
    }
}

#[tokio::test]
async fn lines_that_came_are_committed_while_others_are_waited_for() {
    for format in FORMATS {
        let table = table(format, "").await;
        let stream = Stream {
            time: Some(Duration::from_millis(50)),
            ..Stream::default()
        };
        let input = Slow(vec![lines(3..4), String::new(), lines(1..3), lines(0..1)]);
        let mut versions = Vec::new();
        let mut told = |report: &lakehouse_core::Report| {
            versions.push(report.metrics["num_target_rows_inserted"]);
            ControlFlow::Continue(())
        };
        let done = append_lines(table.handle(), input, &stream, &Options::default(), &mut told).await;
        assert_eq!(done.unwrap().rows, 4, "{format:?}");
        assert_eq!(versions, [3, 1], "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..4), "{format:?}");
    }
}

#[tokio::test]
async fn a_line_that_does_not_fit_stops_the_stream_and_is_named() {
    for format in FORMATS {
        let table = table(format, "").await;
        let input = format!("{}{{\"id\": \"none\"}}\n{}", lines(0..5), lines(5..9));
        let mut told = |_: &lakehouse_core::Report| ControlFlow::Continue(());
        let input = io::Cursor::new(input.into_bytes());
        let failed = append_lines(table.handle(), input, &named(2), &Options::default(), &mut told).await;
        let error = failed.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("(in lines 5 to 6 of the input, row 2)"),
            "{error}"
        );
        assert!(
            error.hint().unwrap().contains("those before them were"),
            "{error:?}"
        );
        assert_eq!(sorted(&table).await, expected(0..4), "{format:?}");
        // Mended, and started again.
        let done = run_lines(&table, lines(0..9), &named(2), 100, false)
            .await
            .unwrap();
        assert_eq!(done.skipped, 4);
        assert_eq!(sorted(&table).await, expected(0..9), "{format:?}");
    }
}

#[tokio::test]
async fn small_files_are_compacted_on_the_way() {
    for format in FORMATS {
        let table = table(format, "").await;
        let stream = Stream {
            compact_every: Some(10),
            ..named(1)
        };
        run_lines(&table, lines(0..35), &stream, 1000, false)
            .await
            .unwrap();
        assert_eq!(sorted(&table).await, expected(0..35), "{format:?}");
        let files = table
            .files(&lakehouse_core::model::At::Latest)
            .await
            .unwrap()
            .len();
        assert!(files <= 6, "{format:?}: {files}");
    }
}

fn watched(path: &Path) -> Folder {
    Folder {
        path: path.to_owned(),
        format: None,
        settle: Duration::from_millis(30),
        drain: true,
        remove: false,
    }
}

async fn run_folder(table: &Table, folder: &Folder, commits: u64) -> Option<Result<Streamed>> {
    let (table, folder) = (table.clone(), folder.clone());
    let run = tokio::spawn(async move {
        let mut left = commits;
        let mut told = |_: &lakehouse_core::Report| {
            left -= 1;
            assert!(left > 0, "killed");
            ControlFlow::Continue(())
        };
        append_folder(
            table.handle(),
            &folder,
            &Stream::default(),
            &Options::default(),
            &mut told,
        )
        .await
    });
    run.await.ok()
}

#[tokio::test]
async fn files_are_committed_once_and_moved_away() {
    for format in FORMATS {
        let table = table(format, "").await;
        let at = tempfile::tempdir().unwrap();
        let folder = watched(at.path());
        let put = |name: &str, ids| fs::write(at.path().join(name), lines(ids)).unwrap();
        put("a.ndjson", 0..5);
        put("b.ndjson", 5..7);
        fs::create_dir(at.path().join("inner")).unwrap();
        for left_alone in ["c.ndjson.tmp", ".hidden.ndjson", "_note.ndjson", "inner/d.ndjson"] {
            put(left_alone, 90..91);
        }
        // Killed after the commit, before a file is moved.
        assert!(run_folder(&table, &folder, 1).await.is_none(), "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..7), "{format:?}");
        assert!(at.path().join("a.ndjson").exists());
        // Another file of the same name, and a new one.
        put("b.ndjson", 7..11);
        put("e.ndjson", 11..12);
        let done = run_folder(&table, &folder, 100).await.unwrap().unwrap();
        assert_eq!(done.rows, 5, "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..12), "{format:?}");
        let mut names: Vec<_> = fs::read_dir(at.path().join(".lake/done"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["a.ndjson", "b.ndjson", "e.ndjson"], "{format:?}");
        assert!(at.path().join("c.ndjson.tmp").exists() && at.path().join("inner/d.ndjson").exists());
        let done = run_folder(&table, &folder, 100).await.unwrap().unwrap();
        assert_eq!(done, Streamed::default(), "{format:?}");
        // The same name once more: both are kept.
        put("a.ndjson", 12..13);
        run_folder(&table, &folder, 100).await.unwrap().unwrap();
        assert_eq!(sorted(&table).await, expected(0..13), "{format:?}");
        assert_eq!(fs::read_dir(at.path().join(".lake/done")).unwrap().count(), 4);
    }
}

#[tokio::test]
async fn a_file_that_does_not_fit_stops_the_watch_and_loses_nothing() {
    for format in FORMATS {
        let table = table(format, "").await;
        let at = tempfile::tempdir().unwrap();
        let folder = watched(at.path());
        fs::write(at.path().join("a.ndjson"), lines(0..5)).unwrap();
        fs::write(at.path().join("b.parquet"), "no such thing").unwrap();
        let error = run_folder(&table, &folder, 100).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("b.parquet"), "{error}");
        assert!(error.hint().unwrap().contains("nothing of 2 files"), "{error:?}");
        assert!(content(&table).await.is_empty(), "{format:?}");
        fs::remove_file(at.path().join("b.parquet")).unwrap();
        let remove = Folder {
            remove: true,
            ..folder
        };
        run_folder(&table, &remove, 100).await.unwrap().unwrap();
        assert_eq!(sorted(&table).await, expected(0..5), "{format:?}");
        assert!(!at.path().join("a.ndjson").exists() && !at.path().join(".lake/done/a.ndjson").exists());
    }
}

#[tokio::test]
async fn a_folder_is_watched_by_one() {
    let table = table(FORMATS[2], "").await;
    let at = tempfile::tempdir().unwrap();
    let waiting = Folder {
        drain: false,
        ..watched(at.path())
    };
    let other = table.clone();
    let first = tokio::spawn(async move { run_folder(&other, &waiting, 100).await });
    while !at.path().join(".lake/stream").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = run_folder(&table, &watched(at.path()), 100).await.unwrap();
    assert!(matches!(second, Err(Error::Conflict { .. })), "{second:?}");
    first.abort();
}

/// A copy of the folder, with the name of its stream: what the other copy committed is not taken for this one's.
#[tokio::test]
async fn two_folders_of_one_stream_lose_nothing() {
    for format in FORMATS {
        let table = table(format, "").await;
        let (at, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(at.path().join("a.ndjson"), lines(0..1)).unwrap();
        run_folder(&table, &watched(at.path()), 100)
            .await
            .unwrap()
            .unwrap();
        fs::create_dir_all(copy.path().join(".lake")).unwrap();
        fs::copy(at.path().join(".lake/stream"), copy.path().join(".lake/stream")).unwrap();
        // One that is at work while the other commits: it began behind.
        let waiting = Folder {
            settle: Duration::from_millis(700),
            ..watched(at.path())
        };
        fs::write(at.path().join("b.ndjson"), lines(1..3)).unwrap();
        let other = table.clone();
        let slow = tokio::spawn(async move { run_folder(&other, &waiting, 100).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        fs::write(copy.path().join("c.ndjson"), lines(3..4)).unwrap();
        run_folder(&table, &watched(copy.path()), 100)
            .await
            .unwrap()
            .unwrap();
        let behind = slow.await.unwrap().unwrap();
        assert!(
            matches!(behind, Err(Error::Conflict { .. })),
            "{format:?}: {behind:?}"
        );
        assert!(at.path().join("b.ndjson").exists(), "{format:?}");
        run_folder(&table, &watched(at.path()), 100)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(sorted(&table).await, expected(0..4), "{format:?}");
    }
}

#[tokio::test]
async fn a_compaction_that_fails_on_the_way_is_no_failure_of_the_rows() {
    for format in FORMATS {
        let table = table(format, "").await;
        run_lines(&table, lines(0..1), &named(1), 100, false)
            .await
            .unwrap();
        let file = table
            .files(&lakehouse_core::model::At::Latest)
            .await
            .unwrap()
            .remove(0);
        table.handle().store.delete(&[file.path]).await.unwrap();
        let stream = Stream {
            compact_every: Some(1),
            ..named(1)
        };
        let done = run_lines(&table, lines(0..7), &stream, 100, false).await.unwrap();
        assert_eq!((done.rows, done.skipped), (6, 1), "{format:?}");
    }
}
