//! A folder to run `lake` in, and what a run gave.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The binary beside the test binary: `cargo build --workspace --bins` puts it there.
pub(crate) fn lake() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test
        .ancestors()
        .nth(2)
        .unwrap()
        .join(format!("lake{}", std::env::consts::EXE_SUFFIX));
    assert!(
        binary.is_file(),
        "{} is missing: run `cargo build --workspace --bins` first",
        binary.display()
    );
    binary
}

/// A folder of its own, in which relative paths are stable in messages.
pub(super) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::TempDir::new().unwrap(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The command, not yet run.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(lake());
        self.prepare(&mut command);
        command.args(args);
        command
    }

    /// A shell script in which `$LAKE` is the binary.
    pub(super) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        self.prepare(&mut command);
        command.env("LAKE", lake()).args(["-c", script]);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .current_dir(self.dir.path())
            .env_remove("LAKE_LOG")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
    }

    /// Runs `lake` and waits.
    pub(super) fn lake(&self, args: &[&str]) -> Run {
        Run::new(self.command(args).output().unwrap(), self.dir.path())
    }

    /// Runs `lake` with this on stdin.
    pub(super) fn lake_with(&self, args: &[&str], stdin: &[u8]) -> Run {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        Run::new(child.wait_with_output().unwrap(), self.dir.path())
    }

    /// Runs a command of this lab and waits.
    pub(super) fn run(&self, mut command: Command) -> Run {
        Run::new(command.output().unwrap(), self.dir.path())
    }

    /// Runs `lake`, which must succeed.
    pub(super) fn ok(&self, args: &[&str]) -> Run {
        let run = self.lake(args);
        assert_eq!(run.code, 0, "lake {args:?}\n{}", run.text());
        run
    }

    /// The rows of a query, as JSON.
    pub(super) fn rows(&self, sql: &str) -> Value {
        self.ok(&["query", sql, "--json"]).json()["rows"].take()
    }

    /// Four accounts in a table called `accounts`, partitioned by bucket, in two commits.
    pub(super) fn accounts(format: &str) -> Self {
        let lab = Self::new();
        lab.write(
            "accounts.csv",
            "id,name,balance,opened\n1,Ann,10.5,2024-01-01\n2,Bob,,2024-01-02\n3,Cay,-3.25,2024-02-01\n4,,0,\n",
        );
        lab.ok(&[
            "create",
            "accounts",
            "--format",
            format,
            "--schema",
            "id bigint not null, name string, balance double, opened date",
            "--partition-by",
            "bucket(2, id)",
        ]);
        lab.ok(&["append", "accounts", "accounts.csv"]);
        lab
    }

    /// Everything that tells whether the table was touched: its rows, its commits, its files' names.
    pub(super) fn state(&self, table: &str) -> Value {
        serde_json::json!({
            "rows": self.rows(&format!("SELECT * FROM '{table}' ORDER BY 1")),
            "history": self.ok(&["history", table, "--json"]).json(),
            "objects": self.objects(table),
        })
    }

    /// Every file below a folder, sorted.
    pub(super) fn objects(&self, folder: &str) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path.display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path(folder), &mut found);
        found.sort();
        found
    }
}

/// What a run of `lake` gave.
pub(super) struct Run {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Run {
    fn new(output: Output, dir: &Path) -> Self {
        let real = dir.canonicalize().unwrap();
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .replace(real.to_str().unwrap(), "[dir]")
                .replace(dir.to_str().unwrap(), "[dir]")
        };
        Self {
            // A signal has no code; shells make it 128 and more.
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Both streams and the exit code.
    pub(super) fn text(&self) -> String {
        format!(
            "exit code: {}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// What differs from run to run, and how it is written in snapshots.
pub(super) const FILTERS: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", "[time]"),
    (r#""timestamp_ms":\d+"#, r#""timestamp_ms":0"#),
    (r"\(at \d+ ms\)", "(at [time])"),
    (r"\b\d+\.\d{3} s\b", "[s] s"),
    (r#""seconds":\{[^}]*\}"#, r#""seconds":{}"#),
    (
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        "[id]",
    ),
    (r"\b\d{5}-\[id\]", "[n]-[id]"),
    // An id has a digit less once in ten times.
    (r"\b\d{14,19}\b", "[snapshot]"),
    (r"\b\d+(\.\d+)? (B|KB|MB)\b", "[size]"),
    (
        r#""(bytes|bytes_[a-z]+|memory_predicted|[a-z-]*-size)":"?\d+"?"#,
        r#""$1":0"#,
    ),
    (
        r"\b([a-z-]*-size|numOutputBytes|bytes_[a-z]+|num[A-Za-z]*Bytes)=\d+",
        "$1=0",
    ),
    // Widths of columns depend on what was replaced above.
    (r" {2,}", " "),
    (r"[─═]{2,}", "──"),
];

/// Compares a run with the snapshot of that name.
macro_rules! snapshot {
    ($name:expr, $run:expr) => {
        insta::with_settings!({filters => super::lab::FILTERS.to_vec(), prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!($name, $run.text());
        });
    };
}
pub(super) use snapshot;
