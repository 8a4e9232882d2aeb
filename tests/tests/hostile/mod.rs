//! Tables that were made to hurt their reader (`fixtures/hostile`): whatever is asked of them, `lake` answers within a
//! second and 200 MB, touches nothing outside of the table, deletes nothing, and never dies.
//!
//! The second is one of processor time, which does not depend on what else the machine does, and the memory the peak
//! of resident memory as the system counted it, measured by a small process in between (`tests/src/bin/peak.rs`). A
//! limit on address space would say less: allocators reserve far more of that than they use.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::lab::lake;

const PROCESSOR_MS: u64 = 1000;
const MEMORY_KB: u64 = 200 << 10;
/// After this a command waits for something that does not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a row outside of the table says.
const SECRET: &str = "SECRET-ROW";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/hostile")
}

/// A line of `hostile.json`.
struct Case(Value);

impl Case {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    fn flag(&self, key: &str) -> bool {
        self.0[key].as_bool().unwrap_or(false)
    }
}

/// The commands, and the stage of the table's reading that each of them gets to at least.
const COMMANDS: [(&str, &[&str]); 9] = [
    ("files", &["show", "table"]),
    ("open", &["history", "table"]),
    ("files", &["files", "table"]),
    ("rows", &["query", "SELECT * FROM 'table' ORDER BY id"]),
    (
        "pages",
        &["query", "SELECT count(*) AS n FROM 'table' WHERE id > 4"],
    ),
    ("write", &["append", "table", "more.csv"]),
    ("write", &["delete", "table", "--where", "id = 3"]),
    (
        "write",
        &["update", "table", "--set", "name = 'new'", "--where", "id = 5"],
    ),
    ("write", &["compact", "table"]),
];

/// Where a case is tried: the table, and beside it what must stay as it is.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new(case: &Case) -> Self {
        let home = tempfile::tempdir().unwrap();
        let table = home.path().join("table");
        copy(
            &fixtures().join(case.text("name")),
            &table,
            table.to_str().unwrap(),
        );
        for folder in ["outside", "table-evil"] {
            let folder = home.path().join(folder);
            fs::create_dir(&folder).unwrap();
            for name in ["a.parquet", "data.avro", "secret", "d.puffin"] {
                fs::write(folder.join(name), SECRET).unwrap();
            }
        }
        fs::write(home.path().join("more.csv"), "id,name\n100,more\n").unwrap();
        let outside = home.path().join("outside");
        for (link, target) in case.0["links"].as_object().into_iter().flatten() {
            let link = table.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(outside.join(target.as_str().unwrap()), link).unwrap();
        }
        for pipe in case.0["pipes"].as_array().into_iter().flatten() {
            let made = Command::new("mkfifo")
                .arg(table.join(pipe.as_str().unwrap()))
                .status();
            assert!(made.unwrap().success());
        }
        Self { home }
    }

    /// Every file with what it holds; links and pipes by their names.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.home.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(entry.path());
                } else {
                    let content = if kind.is_file() {
                        fs::read(entry.path()).unwrap()
                    } else {
                        Vec::new()
                    };
                    found.insert(entry.path(), content);
                }
            }
        }
        found
    }

    /// Runs `lake`; gives kilobytes, milliseconds, the exit code, and both streams.
    fn run(&self, args: &[&str]) -> Result<(u64, u64, i32, String), String> {
        let numbers = self.home.path().with_extension("peak");
        let streams = self.home.path().with_extension("out");
        let out = fs::File::create(&streams).unwrap();
        let mut child = Command::new(lake().with_file_name("peak"))
            .arg(&numbers)
            .arg(lake())
            .args(args)
            .arg("--json")
            .current_dir(self.home.path())
            .env_remove("LAKE_LOG")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                return Err("it does not end".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let text = String::from_utf8_lossy(&fs::read(&streams).unwrap()).into_owned();
        let measured = fs::read_to_string(&numbers).map_err(|e| e.to_string())?;
        let _ = (fs::remove_file(&numbers), fs::remove_file(&streams));
        let numbers: Vec<i64> = measured.split(' ').map(|n| n.parse().unwrap()).collect();
        Ok((numbers[0] as u64, numbers[1] as u64, numbers[2] as i32, text))
    }
}

/// Copies a folder; in texts, `@TABLE@` becomes `place`.
fn copy(from: &Path, to: &Path, place: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, place);
            continue;
        }
        let content = fs::read(entry.path()).unwrap();
        let content = match String::from_utf8(content) {
            Ok(text) => text.replace("@TABLE@", place).into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        fs::write(target, content).unwrap();
    }
}

/// What a case takes at most.
#[derive(Debug, Default)]
struct Cost {
    runs: usize,
    memory: u64,
    time: u64,
}

/// Tries every command on a case.
fn attempt(case: &Case, cost: &Mutex<Cost>) -> Vec<String> {
    let stages = ["open", "files", "rows", "pages", "write", "none"];
    let stage = |name: &str| stages.iter().position(|s| *s == name).expect("a known stage");
    let refused_from = stage(case.text("stage"));
    let mut wrong = Vec::new();
    for (at, args) in COMMANDS {
        // Each on a table of its own: what one writes is not for the next to read.
        let place = Place::new(case);
        let before = place.files();
        let (memory, time, code, text) = match place.run(args) {
            Ok(run) => run,
            Err(why) => {
                wrong.push(format!("{args:?}: {why}"));
                continue;
            }
        };
        let mut complain = |what: &str| wrong.push(format!("{args:?}: {what} (exit code {code})\n{text}"));
        if !(0..=4).contains(&code) || text.contains("panicked") {
            complain("it died");
        }
        if memory > MEMORY_KB {
            complain(&format!("it took {memory} KB"));
        }
        if time > PROCESSOR_MS {
            complain(&format!("it took {time} ms"));
        }
        if text.contains(SECRET) {
            complain("it told what lies outside of the table");
        }
        let answer: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default();
        // What is written may pass by what is broken.
        if at != "write" && !case.flag("any") {
            if stage(at) >= refused_from {
                let error = &answer["error"];
                let (kind, message) = (
                    error["kind"].as_str(),
                    error["message"].as_str().unwrap_or_default(),
                );
                if code != 1
                    || !(case.flag("refused") || kind == Some(case.text("error")))
                    || !message.contains(case.text("message"))
                {
                    complain("it should be refused");
                }
            } else if code != 0 {
                complain("it should be answered");
            }
        }
        let after = place.files();
        let table = place.home.path().join("table");
        for (file, content) in &before {
            let hint = file.ends_with("version-hint.text") || file.ends_with("_last_checkpoint");
            match after.get(file) {
                Some(now) if now == content || (hint && file.starts_with(&table)) => {}
                Some(_) => complain(&format!("it changed {}", file.display())),
                None => complain(&format!("it deleted {}", file.display())),
            }
        }
        if let Some(new) = after
            .keys()
            .find(|file| !before.contains_key(*file) && !file.starts_with(&table))
        {
            complain(&format!("it wrote {}", new.display()));
        }
        let mut cost = cost.lock().unwrap();
        cost.runs += 1;
        cost.memory = cost.memory.max(memory);
        cost.time = cost.time.max(time);
    }
    wrong
}

#[test]
fn hostile_tables_are_refused_in_a_second_and_200_mb_and_nothing_else_is_touched() {
    let listed: Vec<Value> =
        serde_json::from_slice(&fs::read(fixtures().join("hostile.json")).unwrap()).unwrap();
    let only = std::env::var("LAKEHOUSE_CASE").unwrap_or_default();
    let cases: Vec<Case> = listed
        .into_iter()
        .map(Case)
        .filter(|case| case.text("name").contains(&only))
        .collect();
    let (next, cost, wrong) = (AtomicUsize::new(0), Mutex::default(), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = attempt(case, &cost);
                    let mut wrong = wrong.lock().unwrap();
                    wrong.extend(
                        found
                            .into_iter()
                            .map(|what| format!("{}: {what}", case.text("name"))),
                    );
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let cost: Cost = cost.into_inner().unwrap();
    println!(
        "{} tables, {} commands: at most {} MB and {} ms",
        cases.len(),
        cost.runs,
        cost.memory >> 10,
        cost.time
    );
    assert!(
        wrong.is_empty(),
        "{} are wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
