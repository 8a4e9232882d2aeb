//! The test of the tests: each bug of `lakehouse_core::planted` is switched on in a run of this same binary, and the
//! test that is there to catch it must fail, for its own reason, within its budget.
//!
//! `make test-planted`; `LAKEHOUSE_BUG=HintTrusted` tries one bug only. That the same tests pass without a bug is
//! what the rest of the suite shows.

mod catches;

use std::collections::VecDeque;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use catches::{CATCHES, Catch};
use lakehouse_core::planted::Bug;

/// Runs at the same time.
const AT_ONCE: usize = 2;

/// How the run of one test ended.
struct Ended {
    failed: bool,
    took: Duration,
    said: String,
}

fn run(catch: &Catch) -> Ended {
    let started = Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([catch.test, "--exact"])
        .env("LAKEHOUSE_PLANTED", format!("{:?}", catch.bug))
        .envs(catch.set.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        text
    });
    let read_errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if started.elapsed() > catch.budget => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    Ended {
        // What libtest says when a test has failed; a signal or a hang is something else.
        failed: status.is_some_and(|status| status.code() == Some(101)),
        took: started.elapsed(),
        said: read.join().unwrap() + &read_errors.join().unwrap(),
    }
}

/// Why the bug was not caught as it should be.
fn missed(catch: &Catch, ended: &Ended) -> Option<String> {
    let why = if ended.took > catch.budget {
        "it took too long"
    } else if !ended.said.contains("running 1 test") {
        "there is no such test"
    } else if !ended.failed {
        "it passed"
    } else if !ended.said.contains(catch.says) {
        "it failed for another reason"
    } else {
        return None;
    };
    let said: String = ended.said.chars().take(4_000).collect();
    Some(format!(
        "{:?}: {} should fail with \"{}\", but {why}:\n{said}",
        catch.bug, catch.test, catch.says
    ))
}

#[test]
fn every_planted_bug_is_caught_by_the_test_that_is_there_for_it() {
    let only = std::env::var("LAKEHOUSE_BUG").ok();
    let wanted = |catch: &&Catch| only.as_ref().is_none_or(|bug| format!("{:?}", catch.bug) == *bug);
    let left: Mutex<VecDeque<&Catch>> = Mutex::new(CATCHES.iter().filter(wanted).collect());
    assert!(!left.lock().unwrap().is_empty(), "{only:?} is no bug");
    let misses = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(catch) = left.lock().unwrap().pop_front() else {
                        return;
                    };
                    let ended = run(catch);
                    let miss = missed(catch, &ended);
                    let verdict = if miss.is_none() { "caught" } else { "MISSED" };
                    let bug = format!("{:?}", catch.bug);
                    let seconds = ended.took.as_secs_f64();
                    println!("{verdict} {bug:25} {seconds:5.1} s  {}", catch.test);
                    misses.lock().unwrap().extend(miss);
                }
            });
        }
    });
    println!("in {:.0} s", started.elapsed().as_secs_f64());
    let misses = misses.into_inner().unwrap();
    assert!(misses.is_empty(), "{}", misses.join("\n\n"));
}

#[test]
fn every_bug_has_a_test_that_is_there_for_it() {
    let without: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|bug| !CATCHES.iter().any(|catch| catch.bug == *bug))
        .collect();
    assert!(without.is_empty(), "nothing catches {without:?}");
}
