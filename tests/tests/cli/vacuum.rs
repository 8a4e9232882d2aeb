//! What a vacuum says, and what it leaves on disk.

use super::lab::{Lab, snapshot};

const NOW: [&str; 3] = ["--older-than", "1ms", "--unsafe-no-writers"];

/// A table with versions of before, a file of no version, and files of others.
fn lab(format: &str) -> Lab {
    let lab = Lab::accounts(format);
    lab.ok(&[
        "update",
        "accounts",
        "--set",
        "balance = 0",
        "--where",
        "id < 5",
        "--strategy",
        "copy-on-write",
    ]);
    lab.write("accounts/orphan.parquet", "x");
    lab.write("accounts/notes.txt", "x");
    std::fs::create_dir(lab.path("accounts/.mine")).unwrap();
    lab.write("accounts/.mine/a.parquet", "x");
    std::thread::sleep(std::time::Duration::from_millis(50));
    lab
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["vacuum", "accounts"]
        .into_iter()
        .chain(NOW)
        .chain(more.iter().copied())
        .collect()
}

#[test]
fn a_vacuum_says_what_goes_and_what_stays() {
    for format in ["iceberg", "delta"] {
        let lab = lab(format);
        let before = lab.objects("accounts");
        snapshot!(format!("vacuum_young_{format}"), lab.ok(&["vacuum", "accounts"]));
        assert_eq!(lab.objects("accounts"), before);
        snapshot!(format!("vacuum_dry_run_{format}"), lab.ok(&with(&["--dry-run"])));
        let planned = lab.ok(&with(&["--dry-run", "--json"])).json();
        assert_eq!(lab.objects("accounts"), before);
        snapshot!(format!("vacuum_{format}"), lab.ok(&with(&[])));
        let after = lab.objects("accounts");
        let mut gone: Vec<&String> = before.iter().filter(|path| !after.contains(path)).collect();
        let files = planned["files"].as_array().unwrap();
        let folder = lab.path("accounts").display().to_string();
        let mut listed: Vec<String> = files
            .iter()
            .map(|file| format!("{folder}/{}", file["path"].as_str().unwrap()))
            .collect();
        listed.sort();
        gone.sort();
        assert_eq!(gone, listed.iter().collect::<Vec<_>>());
        assert_eq!(planned["removed"]["count"], gone.len());
        assert_eq!(planned["left"][".mine/"]["count"], 1);
        snapshot!(format!("vacuum_again_{format}"), lab.ok(&with(&[])));
        assert_eq!(lab.rows("SELECT count(*) FROM 'accounts'")[0][0], 4);
    }
}

#[test]
fn files_are_moved_to_a_quarantine_and_listed() {
    for format in ["iceberg", "delta"] {
        let lab = lab(format);
        let moved = lab.ok(&with(&["--quarantine", ".quarantine", "--verbose"]));
        assert!(moved.stdout.contains("moved to .quarantine"), "{}", moved.text());
        assert!(
            moved.stdout.lines().any(|line| line == "orphan.parquet"),
            "{}",
            moved.text()
        );
        assert!(lab.path("accounts/.quarantine/orphan.parquet").exists());
        assert!(!lab.path("accounts/orphan.parquet").exists());
        let later = lab.ok(&with(&[]));
        assert!(later.stdout.contains(".quarantine/: "), "{}", later.text());
        assert!(lab.path("accounts/.quarantine/orphan.parquet").exists());
    }
}

#[test]
fn what_is_not_safe_is_refused() {
    let lab = lab("delta");
    snapshot!(
        "vacuum_refused_young",
        lab.lake(&["vacuum", "accounts", "--older-than", "47h"])
    );
    let refused = |age| lab.lake(&["vacuum", "accounts", "--older-than", age]).text();
    assert_eq!(refused("0d"), refused("47h"), "no age is too small to be read");
    let none = [
        "vacuum",
        "accounts",
        "--older-than",
        "0d",
        "--unsafe-no-writers",
        "--dry-run",
    ];
    lab.ok(&none);
    let quarantine = lab.lake(&["vacuum", "accounts", "--quarantine", "data"]);
    snapshot!("vacuum_refused_quarantine", quarantine);
    snapshot!(
        "vacuum_refused_version",
        lab.lake(&["vacuum", "accounts", "--keep-versions", "0,9"])
    );
    for usage in [["--older-than", "soon"], ["--keep-versions", "x"]] {
        let run = lab.lake(&["vacuum", "accounts", usage[0], usage[1]]);
        assert_eq!(run.code, 2, "{}", run.text());
    }
}
