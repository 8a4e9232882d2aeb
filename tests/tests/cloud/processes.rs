//! Processes of `lake` that merge into one table at the same time, over S3 and on local disk: each acknowledged merge
//! is there once, and the rows are those of running the merges one after the other in the order of their commits.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::cli::lab::lake;
use lakehouse_tests::s3::{Cloud, Lax, Server};

const KEYS: u64 = 12;

/// What one merge did: which keys it named, the mark it left, and the version that it says it made.
struct Done {
    keys: Vec<u64>,
    mark: String,
    version: String,
}

/// Merges per process; by hand more are worth the time: `LAKEHOUSE_RACE_MERGES=25`.
fn merges() -> u64 {
    let asked = std::env::var("LAKEHOUSE_RACE_MERGES").ok();
    asked.map_or(4, |text| text.parse().expect("LAKEHOUSE_RACE_MERGES is a number"))
}

fn run(args: &[&str], settings: &[(String, String)]) -> Value {
    let mut command = Command::new(lake());
    command.args(args).arg("--json");
    for (name, value) in settings {
        command.env(name.to_ascii_uppercase(), value);
    }
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "lake {args:?}: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("lake {args:?}: {error}: {text}"))
}

fn version(report: &Value) -> String {
    report["version"].to_string()
}

fn race(table: &str, format: &str, processes: u64, settings: &[(String, String)]) {
    let create = [
        "create",
        table,
        "--schema",
        "id bigint not null, log string",
        "--format",
        format,
    ];
    run(&create, settings);
    let all: Vec<String> = (0..KEYS).map(|key| format!("({key}, '')")).collect();
    let fill = format!("INSERT INTO '{table}' VALUES {}", all.join(", "));
    run(&["query", &fill], settings);

    let done: Vec<Done> = thread::scope(|scope| {
        let writers: Vec<_> = (0..processes)
            .map(|writer| {
                scope.spawn(move || {
                    let merge = |n: u64| {
                        // Overlapping, and different for each.
                        let keys: Vec<u64> = (0..4).map(|i| (writer * 3 + n * 5 + i * i) % KEYS).collect();
                        let mut keys = keys;
                        keys.sort_unstable();
                        keys.dedup();
                        let mark = format!("{writer}.{n};");
                        let values: Vec<String> =
                            keys.iter().map(|key| format!("({key}, '{mark}')")).collect();
                        let source = format!("SELECT * FROM (VALUES {}) AS s(id, log)", values.join(", "));
                        let set = "log = concat(target.log, source.log)";
                        let report = run(&["merge", table, &source, "--on", "id", "--set", set], settings);
                        Done {
                            keys,
                            mark,
                            version: version(&report),
                        }
                    };
                    (0..merges()).map(merge).collect::<Vec<_>>()
                })
            })
            .collect();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect()
    });

    let history = run(&["history", table], settings);
    let commits = history["commits"].as_array().unwrap();
    let mut order: Vec<String> = commits.iter().map(version).collect();
    order.reverse();
    // Making an Iceberg table makes no version yet.
    let before = if format == "delta" { 2 } else { 1 };
    assert_eq!(
        order.len() as u64,
        before + processes * merges(),
        "{format}: commits"
    );
    let by_version: BTreeMap<&str, &Done> = done.iter().map(|done| (done.version.as_str(), done)).collect();
    assert_eq!(
        by_version.len(),
        done.len(),
        "{format}: two merges say they made one version"
    );
    let mut expected: BTreeMap<u64, String> = (0..KEYS).map(|key| (key, String::new())).collect();
    for version in &order {
        if let Some(done) = by_version.get(version.as_str()) {
            for key in &done.keys {
                expected.get_mut(key).unwrap().push_str(&done.mark);
            }
        }
    }
    let question = format!("SELECT id, log FROM '{table}' ORDER BY id");
    let rows = run(&["query", &question], settings);
    let found: BTreeMap<u64, String> = rows["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row[0].as_u64().unwrap(), row[1].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(
        found, expected,
        "{format}: not what running the merges in turn gives"
    );
}

fn on_server(cloud: Cloud, processes: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(cloud, Lax::Not)).unwrap();
    for format in ["iceberg", "delta"] {
        let table = server.url(&format!("race-{format}"));
        race(&table, format, processes, &server.options());
    }
}

#[test]
fn processes_on_s3_lose_and_double_nothing() {
    on_server(Cloud::S3, 8);
}

#[test]
fn processes_on_google_lose_and_double_nothing() {
    on_server(Cloud::Google, 4);
}

#[test]
fn processes_on_local_disk_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["iceberg", "delta"] {
        let table = folder.path().join(format);
        race(table.to_str().unwrap(), format, 8, &[]);
    }
}
