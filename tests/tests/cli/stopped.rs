//! Streams of rows that are asked to end: what was taken in is committed, and that is no failure.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use super::lab::Lab;

struct Going {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Going {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        let mut child = lab
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Sends this signal once; returns what came after it on stdout and stderr, and the exit code.
    fn end(mut self, signal: &str) -> (Vec<String>, String, Option<i32>) {
        let killed = std::process::Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        let rest = self.lines.map(Result::unwrap).collect();
        let mut complaints = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut complaints).unwrap();
        (rest, complaints, self.child.wait().unwrap().code())
    }
}

#[test]
fn a_watched_folder_is_left_with_exit_code_0_and_a_line_of_what_was_done() {
    for (format, signal, json) in [
        ("iceberg", "-INT", false),
        ("iceberg", "-TERM", true),
        ("delta", "-INT", true),
        ("delta", "-TERM", false),
    ] {
        let what = format!("{format} {signal}");
        let lab = Lab::accounts(format);
        std::fs::create_dir(lab.path("incoming")).unwrap();
        lab.write("incoming/a.csv", "id,name\n5,Eve\n6,Fay\n");
        let mut args = vec!["append", "accounts", "--watch", "incoming"];
        args.extend(["--settle", "50ms", "--commit-every", "1h"]);
        args.extend(json.then_some("--json"));
        let mut going = Going::start(&lab, &args);
        let committed = going.line();
        // Until it is due it lies there.
        lab.write("incoming/b.csv", "id,name\n7,Gus\n");
        let (rest, complaints, code) = going.end(signal);
        assert_eq!((code, complaints.as_str()), (Some(0), ""), "{what}");
        assert_eq!(rest.len(), 1, "{what}: {rest:?}");
        if json {
            let first: Value = serde_json::from_str(&committed).unwrap();
            assert_eq!(first["committed"], true, "{what}");
            let last: Value = serde_json::from_str(&rest[0]).unwrap();
            assert_eq!(
                (&last["commits"], &last["rows"]),
                (&1.into(), &2.into()),
                "{what}"
            );
        } else {
            assert!(committed.ends_with(": 2 rows"), "{what}: {committed}");
            assert_eq!(rest[0], "1 commits with 2 rows to accounts", "{what}");
        }
        assert!(lab.path("incoming/b.csv").exists(), "{what}");
        // The next run goes on from there.
        lab.ok(&[
            "append", "accounts", "--watch", "incoming", "--settle", "50ms", "--drain",
        ]);
        assert_eq!(lab.rows("SELECT count(*) FROM 'accounts'")[0][0], 7, "{what}");
    }
}

#[test]
fn lines_that_were_read_are_committed_before_a_stream_is_left() {
    for (format, signal) in [("iceberg", "-TERM"), ("delta", "-INT")] {
        let what = format!("{format} {signal}");
        let lab = Lab::accounts(format);
        let args = ["append", "accounts", "-", "--commit-every", "2", "--stream", "s"];
        let mut going = Going::start(&lab, &args);
        let mut stdin = going.child.stdin.take().unwrap();
        // One piece of the pipe: where two of its lines are committed, the third was read too. The last one is not complete.
        let lines = "{\"id\": 5}\n{\"id\": 6}\n{\"id\": 7}\n{\"id\": 8";
        stdin.write_all(lines.as_bytes()).unwrap();
        let committed = going.line();
        assert!(committed.ends_with(": 2 rows"), "{what}: {committed}");
        let (rest, complaints, code) = going.end(signal);
        assert_eq!((code, complaints.as_str()), (Some(0), ""), "{what}");
        assert_eq!(rest.len(), 2, "{what}: {rest:?}");
        assert!(rest[0].ends_with(": 1 rows"), "{what}: {rest:?}");
        assert_eq!(rest[1], "2 commits with 3 rows to accounts", "{what}");
        drop(stdin);
        // From the first line on, as the name of the stream has it.
        let again = lab.lake_with(&args, format!("{lines}}}\n").as_bytes());
        assert_eq!(again.code, 0, "{what}: {}", again.text());
        assert!(
            again.stdout.contains("3 lines were there already"),
            "{what}: {}",
            again.text()
        );
        assert_eq!(lab.rows("SELECT count(*) FROM 'accounts'")[0][0], 8, "{what}");
    }
}
