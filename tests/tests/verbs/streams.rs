//! Streams of small commits: every row once, whatever stops in between.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::time::Duration;

use lakehouse_core::model::{At, RefKind, Token};
use lakehouse_core::operations::{Event, Expire, SetRef, Stream, Streamed, append_lines};
use lakehouse_core::{Error, Options, Result, Table, TableFormat};

use super::{FORMATS, content, rows, table};

pub(super) fn line(id: usize) -> String {
    format!("{{\"id\": {id}, \"region\": \"eu\", \"n\": {}}}\n", id * 10)
}

pub(super) fn lines(ids: std::ops::Range<usize>) -> String {
    ids.map(line).collect()
}

pub(super) fn expected(ids: std::ops::Range<usize>) -> Vec<String> {
    let mut rows: Vec<_> = ids.map(|id| format!("{id}|eu|{}", id * 10)).collect();
    rows.sort();
    rows
}

pub(super) async fn sorted(table: &Table) -> Vec<String> {
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
        let mut told = |_: &Event<'_>| {
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
        let mut told = |event: &Event<'_>| {
            if let Event::Report(report) = event {
                versions.push(report.metrics["num_target_rows_inserted"]);
            }
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
        let mut told = |_: &Event<'_>| ControlFlow::Continue(());
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
        let files = table.files(&At::Latest).await.unwrap().len();
        assert!(files <= 6, "{format:?}: {files}");
    }
}

#[tokio::test]
async fn a_compaction_that_fails_on_the_way_is_no_failure_of_the_rows() {
    for format in FORMATS {
        let table = table(format, "").await;
        run_lines(&table, lines(0..1), &named(1), 100, false)
            .await
            .unwrap();
        let file = table.files(&At::Latest).await.unwrap().remove(0);
        table.handle().store.delete(&[file.path]).await.unwrap();
        let stream = Stream {
            compact_every: Some(1),
            ..named(1)
        };
        let done = run_lines(&table, lines(0..7), &stream, 100, false).await.unwrap();
        assert_eq!((done.rows, done.skipped), (6, 1), "{format:?}");
    }
}

/// Runs to the end, or to what ends it.
async fn try_lines(table: &Table, input: String, stream: &Stream, options: &Options) -> Result<Streamed> {
    let mut told = |_: &Event<'_>| ControlFlow::Continue(());
    let input = io::Cursor::new(input.into_bytes());
    append_lines(table.handle(), input, stream, options, &mut told).await
}

/// Waits before its first lines.
struct Late(Duration, io::Cursor<Vec<u8>>);

impl Read for Late {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(std::mem::take(&mut self.0));
        self.1.read(buffer)
    }
}

#[tokio::test]
async fn a_run_that_another_one_overtook_ends_with_a_conflict_and_doubles_nothing() {
    for format in FORMATS {
        let table = table(format, "").await;
        let zombie = {
            let (table, input) = (table.clone(), io::Cursor::new(lines(0..10).into_bytes()));
            tokio::spawn(async move {
                let mut told = |_: &Event<'_>| ControlFlow::Continue(());
                let input = Late(Duration::from_millis(800), input);
                append_lines(table.handle(), input, &named(5), &Options::default(), &mut told).await
            })
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        // It has begun by now, from the first line.
        run_lines(&table, lines(0..10), &named(3), 1, false)
            .await
            .unwrap();
        let error = zombie.await.unwrap().unwrap_err();
        let Error::Conflict { detail, .. } = &error else {
            panic!("{format:?}: {error:?}");
        };
        assert!(
            detail.contains("step 5") && detail.contains("follows step 0"),
            "{detail}"
        );
        assert_eq!(sorted(&table).await, expected(0..3), "{format:?}");
        let done = try_lines(&table, lines(0..10), &named(5), &Options::default()).await;
        assert_eq!(done.unwrap().skipped, 3, "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..10), "{format:?}");
    }
}

#[tokio::test]
async fn a_step_lands_only_after_the_step_that_it_names() {
    for format in FORMATS {
        let table = table(format, "").await;
        let append = async |id: u64, token: Token| {
            let options = Options {
                token: Some(token),
                ..Options::default()
            };
            let rows = rows("id, region, n", &format!("({id}, 'eu', {})", id * 10)).await;
            let done = table.append(rows, &options).await;
            done.map(|report| (report.committed, report.already.is_some()))
        };
        assert_eq!(
            append(0, Token::following("k", 4, 0)).await.unwrap(),
            (true, false)
        );
        // The same once more, as after a lost reply.
        assert_eq!(
            append(0, Token::following("k", 4, 0)).await.unwrap(),
            (false, true)
        );
        for (step, after) in [(3, 0), (9, 0), (9, 3), (9, 5)] {
            let refused = append(1, Token::following("k", step, after)).await;
            assert!(
                matches!(refused, Err(Error::Conflict { .. })),
                "{format:?} {step} after {after}: {refused:?}"
            );
        }
        assert_eq!(
            append(1, Token::following("k", 9, 4)).await.unwrap(),
            (true, false)
        );
        assert_eq!(
            append(2, Token::following("other", 9, 0)).await.unwrap(),
            (true, false)
        );
        assert_eq!(sorted(&table).await, expected(0..3), "{format:?}");
    }
}

#[tokio::test]
async fn a_stream_and_a_key_of_one_name_are_two_things() {
    for format in FORMATS {
        let names = ["k", "lakehouse:k", "lakehouse-stream:k", "lakehouse:lakehouse:k"];
        for name in names {
            let table = table(format, "").await;
            let keyed = async |key: &str, id: u64| {
                let options = Options {
                    token: Some(key.into()),
                    ..Options::default()
                };
                let rows = rows("id, region, n", &format!("({id}, 'eu', {})", id * 10)).await;
                table.append(rows, &options).await.unwrap().committed
            };
            let stream = Stream {
                key: Some(name.to_owned()),
                ..named(2)
            };
            assert!(keyed(name, 50).await, "{format:?} {name}");
            try_lines(&table, lines(0..4), &stream, &Options::default())
                .await
                .unwrap();
            assert!(!keyed(name, 51).await, "{format:?} {name}");
            // And one that a key could be taken for.
            let tail = name.trim_start_matches("lakehouse:");
            assert_eq!(keyed(tail, 52).await, tail != name, "{format:?} {name}");
            let done = try_lines(&table, lines(0..6), &stream, &Options::default()).await;
            assert_eq!(done.unwrap().skipped, 4, "{format:?} {name}");
            let again = try_lines(&table, lines(0..6), &stream, &Options::default()).await;
            assert_eq!(again.unwrap().rows, 0, "{format:?} {name}");
        }
    }
}

/// A branch has the lines of the version that it was made from, whatever main had since, and whatever is expired.
#[tokio::test]
async fn a_stream_on_a_branch_goes_on_from_what_the_branch_has() {
    for format in FORMATS {
        if format.0 == TableFormat::Delta {
            continue;
        }
        for expired in [false, true] {
            let table = table(format, "").await;
            let streamed = async |branch: Option<&str>, ids: std::ops::Range<usize>| {
                let options = Options {
                    branch: branch.map(str::to_owned),
                    ..Options::default()
                };
                try_lines(&table, lines(ids), &named(2), &options).await
            };
            let last = async |branch: &str| table.last_step("feed", Some(branch)).await.unwrap();
            let make = async |branch: &str, at: At| {
                let branch = SetRef {
                    at: Some(at),
                    ..SetRef::new(RefKind::Branch, branch)
                };
                table.set_ref(&branch, &Options::default()).await.unwrap();
            };
            let forget = async || {
                if expired {
                    let all = Expire {
                        older_than_ms: Some(0),
                        retain_last: Some(1),
                    };
                    table.expire(&all, &Options::default()).await.unwrap();
                }
            };
            super::append(&table, "(90, 'eu', 900)").await;
            make("before", At::Latest).await;
            streamed(None, 0..4).await.unwrap();
            let four = table.snapshot(&At::Latest).await.unwrap().version;
            make("at-four", At::Latest).await;
            streamed(None, 0..10).await.unwrap();
            // Nobody took down what older versions have.
            let two = table.history(None).await.unwrap();
            let two = two.iter().find(|commit| commit.version == four).unwrap().parent;
            make("at-two", At::Version(two.unwrap())).await;
            make("later-at-four", At::Version(four)).await;
            forget().await;
            assert_eq!(last("at-four").await, Some(4), "{format:?} {expired}");
            assert_eq!(last("later-at-four").await, Some(4), "{format:?} {expired}");
            assert_eq!(last("at-two").await, Some(2), "{format:?} {expired}");
            assert_eq!(last("before").await, None, "{format:?} {expired}");
            assert_eq!(last("main").await, Some(10), "{format:?} {expired}");
            for (branch, had) in [("at-four", 4), ("before", 0), ("later-at-four", 4), ("at-two", 2)] {
                let done = streamed(Some(branch), 0..6).await.unwrap();
                assert_eq!(done.skipped, had, "{format:?} {branch}");
                forget().await;
                let provider = table.provider(&At::Ref(branch.to_owned())).await.unwrap();
                let frame = lakehouse_core::scan::session(None).read_table(provider).unwrap();
                let mut found = super::lines(&frame.collect().await.unwrap());
                found.retain(|row| !row.starts_with("90"));
                found.sort();
                assert_eq!(found, expected(0..6), "{format:?} {branch} {expired}");
                assert_eq!(streamed(Some(branch), 0..6).await.unwrap().rows, 0);
            }
            // Main knows nothing of it.
            assert_eq!(last("main").await, Some(10), "{format:?} {expired}");
            assert_eq!(streamed(None, 0..10).await.unwrap().rows, 0);
            // What is published is main's.
            make("ahead", At::Latest).await;
            streamed(Some("ahead"), 0..13).await.unwrap();
            table
                .fast_forward("main", "ahead", &Options::default())
                .await
                .unwrap();
            table
                .drop_ref(RefKind::Branch, "ahead", &Options::default())
                .await
                .unwrap();
            forget().await;
            assert_eq!(last("main").await, Some(13), "{format:?} {expired}");
        }
    }
}

#[tokio::test]
async fn old_versions_go_on_the_way_where_they_are_not_to_be_kept() {
    for format in FORMATS {
        let table = table(format, "").await;
        let stream = Stream {
            compact_every: Some(10),
            expire: Some(Expire {
                older_than_ms: Some(0),
                retain_last: Some(5),
            }),
            ..named(1)
        };
        let mut expired = 0;
        let mut told = |event: &Event<'_>| {
            if let Event::Expired(report) = event {
                expired += report.expired.len();
            }
            ControlFlow::Continue(())
        };
        let input = io::Cursor::new(lines(0..40).into_bytes());
        append_lines(table.handle(), input, &stream, &Options::default(), &mut told)
            .await
            .unwrap();
        let left = table.history(None).await.unwrap().len();
        match format.0 {
            TableFormat::Iceberg => assert_eq!((left, expired), (5, 39), "{format:?}"),
            // Its names of versions are held for two days.
            TableFormat::Delta => assert_eq!((left, expired), (45, 0), "{format:?}"),
        }
        assert_eq!(sorted(&table).await, expected(0..40), "{format:?}");
        assert_eq!(
            table.last_step("feed", None).await.unwrap(),
            Some(40),
            "{format:?}"
        );
    }
}
