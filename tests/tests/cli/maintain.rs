//! What maintenance says, what it takes from a policy, and how it ends.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::lab::{Lab, snapshot};

/// Two commits of small files, one masked row.
fn neglected(format: &str) -> Lab {
    let lab = Lab::accounts(format);
    lab.write("more.csv", "id,name\n5,Eve\n6,Fay\n7,Gus\n8,Hal\n");
    lab.ok(&["append", "accounts", "more.csv"]);
    lab.ok(&[
        "delete",
        "accounts",
        "--where",
        "id = 1",
        "--strategy",
        "merge-on-read",
    ]);
    lab
}

#[test]
fn each_step_is_told_and_a_second_run_does_nothing() {
    for format in ["iceberg", "delta"] {
        let lab = neglected(format);
        let before = lab.state("accounts");
        snapshot!(
            format!("maintain_dry_run_{format}"),
            lab.ok(&["maintain", "accounts", "--dry-run"])
        );
        let planned = lab.ok(&["maintain", "accounts", "--dry-run", "--json"]).json();
        assert_eq!(lab.state("accounts"), before);
        let health = lab.ok(&["show", "accounts", "--health", "--json"]).json();
        assert_eq!(planned["tables"][0]["steps"], health["maintenance"]);
        snapshot!(format!("maintain_{format}"), lab.ok(&["maintain", "accounts"]));
        assert_eq!(lab.state("accounts")["rows"], before["rows"]);
        let after = lab.state("accounts");
        snapshot!(
            format!("maintain_again_{format}"),
            lab.ok(&["maintain", "accounts"])
        );
        assert_eq!(lab.state("accounts"), after);
    }
}

#[test]
fn the_policy_that_is_printed_is_a_policy() {
    let lab = neglected("delta");
    let usual = lab.ok(&["maintain", "--print-policy"]);
    snapshot!("maintain_print_policy", lab.ok(&["maintain", "--print-policy"]));
    lab.write("usual.toml", &usual.stdout);
    let again = lab.ok(&["maintain", "--print-policy", "--policy", "usual.toml"]);
    assert_eq!(again.stdout, usual.stdout);
    lab.write("mine.toml", "max-bytes = \"1GB\"\n[compact]\nenabled = false\n");
    let mine = lab.ok(&[
        "maintain",
        "--print-policy",
        "--policy",
        "mine.toml",
        "--max-time",
        "90m",
    ]);
    for line in ["max-time = \"90m\"", "max-bytes = \"1GB\"", "enabled = false"] {
        assert!(
            mine.stdout.lines().any(|printed| printed == line),
            "{line}: {}",
            mine.text()
        );
    }
    let done = lab.ok(&["maintain", "accounts", "--policy", "mine.toml"]);
    assert!(
        done.stdout.contains("left out: the policy says so"),
        "{}",
        done.text()
    );
}

#[test]
fn what_is_wrong_with_a_policy_is_told_by_line_and_key() {
    let lab = neglected("iceberg");
    for (name, text) in [
        ("key", "[expire]\nolder-thn = \"7d\"\n"),
        ("type", "[compact]\n\ntarget-file-size = true\n"),
        ("young", "[vacuum]\nolder-than = \"1h\"\n"),
    ] {
        lab.write("nightly.toml", text);
        let run = lab.lake(&["maintain", "accounts", "--policy", "nightly.toml"]);
        snapshot!(format!("maintain_policy_{name}"), run);
    }
    let run = lab.lake(&["maintain", "accounts", "--policy", "none.toml"]);
    assert_eq!(run.code, 1, "{}", run.text());
    for usage in [
        &["maintain"][..],
        &["maintain", "accounts", "--max-time", "soon"],
        &["maintain", "accounts", "--watch", "--dry-run"],
    ] {
        let run = lab.lake(usage);
        assert_eq!(run.code, 2, "{usage:?}: {}", run.text());
    }
}

#[test]
fn a_table_that_fails_does_not_stop_the_next_one_and_the_exit_code_tells() {
    let lab = neglected("iceberg");
    let run = lab.lake(&["maintain", "nowhere", "accounts"]);
    snapshot!("maintain_one_fails", run);
    let again = lab.lake(&["maintain", "accounts", "nowhere", "--json"]);
    assert_eq!(again.code, 1);
    let told = again.json();
    assert_eq!(told["tables"][0]["did_something"], false);
    assert_eq!(told["tables"][1]["error"]["kind"], "not_found");
    // A step that fails is one of a table.
    let file = lab
        .objects("accounts/data")
        .into_iter()
        .find(|path| path.ends_with(".parquet"))
        .unwrap();
    let files: Vec<String> = lab.objects("accounts/data");
    assert!(files.contains(&file));
    lab.ok(&["append", "accounts", "more.csv"]);
    let new: Vec<String> = lab.objects("accounts/data");
    for path in new.iter().filter(|path| !files.contains(path)) {
        std::fs::write(path, "damaged").unwrap();
    }
    let damaged = lab.lake(&["maintain", "accounts"]);
    assert_eq!(damaged.code, 1, "{}", damaged.text());
    assert!(
        damaged.stdout.contains("compact met damage"),
        "{}",
        damaged.text()
    );
    assert!(
        damaged.stderr.contains("accounts: error: compact: "),
        "{}",
        damaged.text()
    );
}

#[test]
#[cfg(unix)]
fn a_watch_says_a_line_for_each_round_and_ends_well_when_it_is_asked_to() {
    for (signal, json) in [("-TERM", false), ("-INT", true)] {
        let lab = neglected("delta");
        let mut args = vec!["maintain", "accounts", "nowhere", "--watch", "100ms"];
        args.extend(json.then_some("--json"));
        let mut child = lab
            .command(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let rounds: Vec<String> = (0..3).map(|_| lines.next().unwrap().unwrap()).collect();
        let killed = std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        // Rounds may come until it is heard; then the stream ends.
        assert!(lines.all(|line| line.is_ok()));
        let done = child.wait().unwrap();
        assert_eq!(done.code(), Some(0), "{signal}");
        match json {
            false => {
                assert!(rounds[0].contains("round 1: accounts: compact "), "{rounds:?}");
                assert!(rounds[0].contains("nowhere: failed: "), "{rounds:?}");
                assert!(
                    rounds[1].contains("round 2: accounts: nothing to do;"),
                    "{rounds:?}"
                );
            }
            true => {
                let last: serde_json::Value = serde_json::from_str(&rounds[2]).unwrap();
                assert_eq!(last["round"], 3);
                assert_eq!(last["tables"][0]["did_something"], false);
            }
        }
        assert_eq!(lab.rows("SELECT count(*) FROM 'accounts'")[0][0], 7);
    }
}
