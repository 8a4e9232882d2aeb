//! A watched folder: every file once, whatever happens to it and to who watches.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use lakehouse_core::operations::{Event, Folder, Stream, Streamed, append_folder};
use lakehouse_core::{Error, Options, Result, Table};

use super::streams::{expected, lines, sorted};
use super::{FORMATS, table};

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
        let mut told = |event: &Event<'_>| {
            if matches!(event, Event::SetAside { .. }) {
                return ControlFlow::Continue(());
            }
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
        assert!(!at.path().join("a.ndjson").exists());
        // Another file of the same name, and a new one.
        put("b.ndjson", 7..11);
        put("E.NDJSON", 11..12);
        let done = run_folder(&table, &folder, 100).await.unwrap().unwrap();
        assert_eq!(done.rows, 5, "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..12), "{format:?}");
        let done: Vec<_> = names(&at.path().join(".lake/done"))
            .into_iter()
            .map(|name| name.split_inclusive(".ndjson").next().unwrap().to_lowercase())
            .collect();
        assert_eq!(
            done,
            ["e.ndjson", "a.ndjson", "b.ndjson", "b.ndjson"],
            "{format:?}: a name that is taken gets the step behind it"
        );
        assert!(at.path().join("c.ndjson.tmp").exists() && at.path().join("inner/d.ndjson").exists());
        let done = run_folder(&table, &folder, 100).await.unwrap().unwrap();
        assert_eq!(done, Streamed::default(), "{format:?}");
        // The same name once more: both are kept.
        put("a.ndjson", 12..13);
        run_folder(&table, &folder, 100).await.unwrap().unwrap();
        assert_eq!(sorted(&table).await, expected(0..13), "{format:?}");
        assert_eq!(names(&at.path().join(".lake/done")).len(), 5);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_cannot_be_added_is_set_aside_with_its_reason_and_the_others_go_on() {
    for format in FORMATS {
        let table = table(format, "").await;
        let at = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(at.path().join(name), text).unwrap();
        put("a.ndjson", &lines(0..5));
        put("b.parquet", "no such thing");
        put("c.txt", "notes");
        put("d.ndjson", "{\"id\": \"none\"}\n");
        put("e.csv", "id,colour\n1,red\n");
        put("f.ndjson", &lines(5..7));
        fs::create_dir(at.path().join("g.parquet")).unwrap();
        put("g.parquet/part.parquet", "whatever");
        std::os::unix::fs::symlink("a.ndjson", at.path().join("h.ndjson")).unwrap();
        let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"i\xff.ndjson");
        fs::write(at.path().join(odd), lines(8..9)).unwrap();
        let done = run_folder(&table, &watched(at.path()), 100)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((done.rows, done.set_aside), (7, 7), "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..7), "{format:?}");
        assert_eq!(names(at.path()), [".lake"], "{format:?}");
        let refused = at.path().join(".lake/refused");
        let reason = |name: &str| fs::read_to_string(refused.join(format!("{name}.reason.txt"))).unwrap();
        for (name, says) in [
            ("b.parquet", "b.parquet"),
            ("c.txt", "does not tell the format"),
            ("d.ndjson", "id"),
            ("e.csv", "colour"),
            ("g.parquet", "folder"),
            ("h.ndjson", "link"),
        ] {
            assert!(refused.join(name).symlink_metadata().is_ok(), "{name}");
            assert!(reason(name).contains(says), "{name}: {}", reason(name));
        }
        // Mended, it is taken; the same name is refused again beside the first.
        put("d.ndjson", &lines(7..8));
        put("b.parquet", "again no such thing");
        let done = run_folder(&table, &watched(at.path()), 100)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((done.rows, done.set_aside), (1, 1), "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..8), "{format:?}");
    }
}

/// What is wrong with the table is no file's fault.
#[tokio::test]
async fn a_table_that_is_lost_ends_the_watch_and_leaves_the_files() {
    let table = table(FORMATS[0], "").await;
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("a.ndjson"), lines(0..5)).unwrap();
    let slow = Folder {
        settle: Duration::from_millis(700),
        ..watched(at.path())
    };
    let other = table.clone();
    let run = tokio::spawn(async move { run_folder(&other, &slow, 100).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let store = &table.handle().store;
    let objects = store.list("metadata/").await.unwrap();
    let keys: Vec<String> = objects.into_iter().map(|object| object.path).collect();
    store.delete(&keys).await.unwrap();
    let ended = run.await.unwrap().unwrap();
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(names(at.path()), [".lake", "a.ndjson"]);
    assert!(names(&at.path().join(".lake/refused")).is_empty());
}

/// Runs, and does something right after the first commit, before the files are moved away; then it is killed, or not.
async fn meanwhile(
    table: &Table,
    folder: &Folder,
    kill: bool,
    act: impl Fn() + Send + 'static,
) -> Option<Streamed> {
    let (table, folder) = (table.clone(), folder.clone());
    let run = tokio::spawn(async move {
        let mut first = true;
        let mut told = move |_: &Event<'_>| {
            if std::mem::take(&mut first) {
                act();
                assert!(!kill, "killed");
            }
            ControlFlow::Continue(())
        };
        let stream = Stream::default();
        append_folder(table.handle(), &folder, &stream, &Options::default(), &mut told)
            .await
            .unwrap()
    });
    run.await.ok()
}

#[tokio::test]
async fn files_that_are_replaced_or_renamed_while_they_are_committed_are_added_once() {
    for format in FORMATS {
        for kill in [false, true] {
            let table = table(format, "").await;
            let at = tempfile::tempdir().unwrap();
            let folder = watched(at.path());
            for (name, ids) in [("a.ndjson", 0..3), ("b.ndjson", 3..6), ("c.ndjson", 6..7)] {
                fs::write(at.path().join(name), lines(ids)).unwrap();
            }
            let place = at.path().to_owned();
            let act = move || {
                // Another file under the name of one that was committed; and what looks for the others finds nothing.
                fs::write(place.join("a.ndjson"), lines(7..9)).unwrap();
                assert!(fs::rename(place.join("b.ndjson"), place.join("z.ndjson")).is_err());
                assert!(
                    fs::OpenOptions::new()
                        .append(true)
                        .open(place.join("c.ndjson"))
                        .is_err()
                );
            };
            let done = meanwhile(&table, &folder, kill, act).await;
            assert_eq!(done.is_none(), kill);
            run_folder(&table, &folder, 100).await.unwrap().unwrap();
            assert_eq!(sorted(&table).await, expected(0..9), "{format:?} killed: {kill}");
            assert_eq!(names(at.path()), [".lake"]);
            let left = names(&at.path().join(".lake"));
            assert!(!left.iter().any(|name| name.starts_with("step-")), "{left:?}");
            assert_eq!(names(&at.path().join(".lake/done")).len(), 4);
        }
    }
}

#[tokio::test]
async fn who_still_writes_to_a_file_that_is_being_committed_is_told() {
    for format in FORMATS {
        let table = table(format, "").await;
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("a.ndjson");
        fs::write(&path, lines(0..2)).unwrap();
        let open = std::sync::Mutex::new(fs::OpenOptions::new().append(true).open(&path).unwrap());
        let act = move || open.lock().unwrap().write_all(lines(2..3).as_bytes()).unwrap();
        let done = meanwhile(&table, &watched(at.path()), false, act).await.unwrap();
        assert_eq!((done.rows, done.set_aside), (2, 1), "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..2), "{format:?}");
        let refused = at.path().join(".lake/refused");
        assert_eq!(fs::read_to_string(refused.join("a.ndjson")).unwrap(), lines(0..3));
        let reason = fs::read_to_string(refused.join("a.ndjson.reason.txt")).unwrap();
        assert!(reason.contains("while it was being committed"), "{reason}");
    }
}

/// What lies in the folder of a step is committed if the table has the step, and not if it is behind.
#[tokio::test]
async fn a_batch_that_was_left_is_finished_by_the_step_of_the_table() {
    for format in FORMATS {
        let table = table(format, "").await;
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join("a.ndjson"), lines(0..2)).unwrap();
        assert!(run_folder(&table, &watched(at.path()), 1).await.is_none());
        let state = at.path().join(".lake");
        let key = fs::read_to_string(state.join("stream")).unwrap();
        let last = table.last_step(&key, None).await.unwrap().unwrap();
        assert_eq!(names(&state.join(format!("step-{last}"))), ["a.ndjson"]);
        // One that was moved there, and not committed.
        let next = state.join(format!("step-{}", last + 1));
        fs::create_dir(&next).unwrap();
        fs::write(next.join("b.ndjson"), lines(2..5)).unwrap();
        let done = run_folder(&table, &watched(at.path()), 100)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(done.rows, 3, "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..5), "{format:?}");
        assert_eq!(table.last_step(&key, None).await.unwrap(), Some(last + 1));
        assert_eq!(names(&state.join("done")), ["a.ndjson", "b.ndjson"]);
        // One of which nobody knows whether it landed before another run went on.
        let lost = state.join(format!("step-{}", last - 1));
        fs::create_dir(&lost).unwrap();
        fs::write(lost.join("c.ndjson"), lines(5..6)).unwrap();
        fs::write(at.path().join("d.ndjson"), lines(6..7)).unwrap();
        let done = run_folder(&table, &watched(at.path()), 100)
            .await
            .unwrap()
            .unwrap();
        // It is set aside for somebody to look at, and what comes after it goes on.
        assert_eq!((done.rows, done.set_aside), (1, 1), "{format:?}");
        assert!(!lost.exists(), "{format:?}");
        let refused = state.join("refused");
        assert_eq!(fs::read_to_string(refused.join("c.ndjson")).unwrap(), lines(5..6));
        let reason = fs::read_to_string(refused.join("c.ndjson.reason.txt")).unwrap();
        for says in ["another run", "move the file back", &format!("step {}", last - 1)] {
            assert!(reason.contains(says), "{says}: {reason}");
        }
        // Put back, it is added.
        fs::rename(refused.join("c.ndjson"), at.path().join("c.ndjson")).unwrap();
        let done = run_folder(&table, &watched(at.path()), 100)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((done.rows, done.set_aside), (1, 0), "{format:?}");
        assert_eq!(sorted(&table).await, expected(0..7), "{format:?}");
    }
}

/// A file that was refused is named by where it is, in the report and in the note beside it.
#[tokio::test]
async fn the_reason_of_a_refused_file_names_where_it_is_now() {
    for format in FORMATS {
        let table = table(format, "").await;
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join("b.parquet"), "no such thing").unwrap();
        fs::write(at.path().join("c.txt"), "notes").unwrap();
        fs::write(at.path().join("d.ndjson"), "{\"id\": \"none\"}\n").unwrap();
        fs::write(at.path().join("e.csv"), "id,colour\n1,red\n").unwrap();
        let mut reasons = Vec::new();
        let mut told = |event: &Event<'_>| {
            if let Event::SetAside { path, reason, .. } = event {
                reasons.push((path.to_path_buf(), (*reason).to_owned()));
            }
            ControlFlow::Continue(())
        };
        let (stream, options) = (Stream::default(), Options::default());
        let done = append_folder(table.handle(), &watched(at.path()), &stream, &options, &mut told).await;
        assert_eq!(done.unwrap().set_aside, 4, "{format:?}");
        for (path, reason) in reasons {
            assert!(path.exists(), "{format:?}: {path:?}");
            let note = format!("{}.reason.txt", path.display());
            assert_eq!(
                fs::read_to_string(note).unwrap(),
                format!("{reason}\n"),
                "{format:?}"
            );
            assert!(!reason.contains("step-"), "{format:?}: {reason}");
            if reason.contains(at.path().to_str().unwrap()) {
                assert!(reason.contains(path.to_str().unwrap()), "{format:?}: {reason}");
            }
        }
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
