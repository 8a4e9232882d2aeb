//! `kill -9` at random moments: whatever `lake` was doing on local disk is there wholly or not at all, what it
//! acknowledged stays, and running the same command again brings the table to where it should be, once.
//!
//! By hand, for longer: `LAKEHOUSE_KILLS=2000 cargo test -p lakehouse-tests crash`, or for so many
//! `LAKEHOUSE_SOAK_SECONDS`; `LAKEHOUSE_SEED` repeats a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use lakehouse_core::model::At;
use lakehouse_core::{Table, scan};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cli::lab::lake;
use crate::support::{number, soak_until};

type Rows = BTreeMap<i64, i64>;

/// One command, and what the rows are after it.
fn step(random: &mut StdRng, table: &str, rows: &Rows, next: &mut i64) -> (Vec<String>, Rows) {
    let mut after = rows.clone();
    let mut new = || {
        *next += 1;
        *next
    };
    let values = |rows: &Rows| {
        let values: Vec<String> = rows.iter().map(|(id, n)| format!("({id}, {n})")).collect();
        format!("SELECT * FROM (VALUES {}) AS s(id, n)", values.join(", "))
    };
    let words = match random.random_range(0..10) {
        0..=1 => {
            let added: Rows = (0..20).map(|_| (new(), random.random_range(0..1000))).collect();
            after.extend(&added);
            vec![
                "query".into(),
                format!("INSERT INTO '{table}' {}", values(&added)),
            ]
        }
        2..=6 => {
            let mut source: Rows = (0..3).map(|_| (new(), random.random_range(0..1000))).collect();
            for id in rows.keys() {
                if random.random_range(0..5) == 0 {
                    source.insert(*id, random.random_range(0..1000));
                }
            }
            after.extend(&source);
            vec![
                "merge".into(),
                table.into(),
                values(&source),
                "--on".into(),
                "id".into(),
            ]
        }
        7 => {
            after.retain(|id, _| id % 7 != 3);
            vec![
                "delete".into(),
                table.into(),
                "--where".into(),
                "id % 7 = 3".into(),
            ]
        }
        8 => {
            after.values_mut().for_each(|n| *n += 1);
            vec!["update".into(), table.into(), "--set".into(), "n = n + 1".into()]
        }
        _ => vec!["compact".into(), table.into()],
    };
    (words, after)
}

fn content(table: &Path) -> Rows {
    let read = async {
        let table = Table::open(table.to_str().unwrap()).await.unwrap();
        let provider = table.provider(&At::Latest).await.unwrap();
        let frame = scan::session(None).read_table(provider).unwrap();
        let mut rows = Rows::new();
        for batch in frame.collect().await.unwrap() {
            let [id, n] = [0, 1].map(|at| batch.column(at).as_primitive::<Int64Type>().clone());
            for row in 0..batch.num_rows() {
                assert!(
                    rows.insert(id.value(row), n.value(row)).is_none(),
                    "a row is there twice"
                );
            }
        }
        rows
    };
    tokio::runtime::Runtime::new().unwrap().block_on(read)
}

fn spawn(words: &[String], key: &str) -> Child {
    let mut command = Command::new(lake());
    command.args(words);
    if words[0] != "compact" {
        command.args(["--idempotency-key", key]);
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child, what: &str) {
    let out = child.wait_with_output().unwrap();
    assert!(
        out.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn kills(format: &str, version: &[&str]) {
    let until = soak_until();
    let count = number("LAKEHOUSE_KILLS").unwrap_or(if until.is_some() { u64::MAX } else { 51 }) / 3;
    let seed = number("LAKEHOUSE_SEED").unwrap_or_else(rand::random);
    println!("{format} {version:?}: LAKEHOUSE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("t");
    let table = place.to_str().unwrap();
    let mut create = vec![
        "create",
        table,
        "--schema",
        "id bigint not null, n bigint",
        "--format",
        format,
    ];
    create.extend(version);
    let create: Vec<String> = create.into_iter().map(str::to_owned).collect();
    finish(spawn(&create, "create"), "create");

    let (mut rows, mut next) = (Rows::new(), 0);
    let mut usual = Duration::from_millis(300);
    let (mut dead, mut landed, mut done) = (0, 0, 0);
    for round in 0.. {
        if dead >= count || until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let (words, after) = step(&mut random, table, &rows, &mut next);
        let what = format!("seed {seed}, round {round}: {words:?}");
        let key = format!("round {round}");
        let started = Instant::now();
        let mut child = spawn(&words, &key);
        thread::sleep(usual.mul_f64(random.random_range(0.0..1.2)));
        let acknowledged = match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{what}");
                usual = (usual + started.elapsed()) / 2;
                true
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap().success()
            }
        };
        let found = content(&place);
        if acknowledged {
            done += 1;
            assert_eq!(found, after, "{what}: acknowledged, and not there");
        } else {
            dead += 1;
            landed += u64::from(found == after);
            assert!(found == after || found == rows, "{what}: torn: {found:?}");
            finish(spawn(&words, &key), &what);
            assert_eq!(content(&place), after, "{what}: run again");
        }
        rows = after;
    }
    println!("{format} {version:?}: {dead} killed, of which {landed} had landed; {done} finished");
}

#[test]
fn iceberg_v2_survives_kill_9() {
    kills("iceberg", &["--format-version", "2"]);
}

#[test]
fn iceberg_v3_survives_kill_9() {
    kills("iceberg", &["--format-version", "3"]);
}

#[test]
fn delta_survives_kill_9() {
    kills("delta", &[]);
}
