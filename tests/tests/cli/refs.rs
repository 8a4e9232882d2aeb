//! Tags and branches, as people see them.

use super::lab::{Lab, snapshot};

#[test]
fn a_tag_is_made_listed_moved_and_dropped() {
    let lab = Lab::accounts("iceberg");
    snapshot!("tag", lab.ok(&["tag", "accounts", "v1", "--keep-for", "30d"]));
    snapshot!("tag_again", lab.ok(&["tag", "accounts", "v1"]));
    snapshot!("tag_list", lab.ok(&["tag", "accounts"]));
    lab.ok(&["delete", "accounts", "--where", "id = 1"]);
    snapshot!("tag_taken", lab.lake(&["tag", "accounts", "v1"]));
    let moved = ["tag", "accounts", "v1", "--replace", "--dry-run"];
    snapshot!("tag_replace_dry_run", lab.ok(&moved));
    snapshot!("tag_replace", lab.ok(&moved[..4]));
    let listed = lab.ok(&["tag", "accounts", "--json"]).json();
    assert_eq!(listed["tags"][0]["name"], "v1");
    assert_eq!(listed["tags"][0]["max_ref_age_ms"], 2_592_000_000_i64);
    snapshot!("tag_drop", lab.ok(&["tag", "accounts", "v1", "--drop"]));
    snapshot!(
        "tag_dropped_already",
        lab.lake(&["tag", "accounts", "v1", "--drop"])
    );
    let number = lab.lake(&["tag", "accounts", "7"]);
    assert_eq!(number.code, 1, "{}", number.text());
    for usage in [
        ["tag", "accounts", "--version", "-1"].as_slice(),
        &["tag", "accounts", "--drop"],
        &["tag", "accounts", "v1", "--drop", "--replace"],
        &["tag", "accounts", "v1", "--keep-for", "soon"],
        &["branch", "accounts", "main", "--fast-forward-to", "x", "--drop"],
        &["query", "SELECT 1", "--branch", "audit"],
        &["create", "t", "--schema", "id int", "--branch", "audit"],
    ] {
        let run = lab.lake(usage);
        assert_eq!(run.code, 2, "{usage:?}: {}", run.text());
    }
}

#[test]
fn rows_are_written_to_a_branch_audited_and_published() {
    let lab = Lab::accounts("iceberg");
    let count = |sql: &str| lab.rows(sql)[0][0].clone();
    let before = count("SELECT count(*) FROM 'accounts'");
    let keep = ["--min-snapshots", "3", "--max-snapshot-age", "7d"];
    let make: Vec<_> = ["branch", "accounts", "audit"].into_iter().chain(keep).collect();
    snapshot!("branch", lab.ok(&make));
    snapshot!("branch_list", lab.ok(&["branch", "accounts"]));
    lab.write("more.csv", "id,name,balance,opened\n8,Eve,1,2024-05-01\n");
    let on_audit = ["--branch", "audit"];
    for verb in [
        ["append", "accounts", "more.csv"].as_slice(),
        &["merge", "accounts", "more.csv", "--on", "id"],
        &["update", "accounts", "--set", "balance = 5", "--where", "id = 8"],
        &["delete", "accounts", "--where", "id = 1"],
        &["compact", "accounts"],
        &["query", "INSERT INTO 'accounts' SELECT 9, 'Flo', 0, NULL"],
    ] {
        let verb: Vec<_> = verb.iter().copied().chain(on_audit).collect();
        lab.ok(&verb);
    }
    assert_eq!(count("SELECT count(*) FROM 'accounts'"), before);
    let at_audit = "SELECT count(*) FROM 'accounts' VERSION AS OF 'audit' WHERE id IN (8, 9)";
    assert_eq!(count(at_audit), 2);
    let flag = lab.ok(&[
        "query",
        "SELECT balance FROM 'accounts' WHERE id = 8",
        "--version",
        "audit",
        "--json",
    ]);
    assert_eq!(flag.json()["rows"][0][0], 5.0);
    let history = lab
        .ok(&["history", "accounts", "--branch", "audit", "--json"])
        .json();
    let of_main = lab.ok(&["history", "accounts", "--json"]).json();
    let length = |history: &serde_json::Value| history["commits"].as_array().unwrap().len();
    assert!(length(&history) >= length(&of_main) + 4, "{history}");
    snapshot!(
        "branch_forward",
        lab.ok(&["branch", "accounts", "main", "--fast-forward-to", "audit"])
    );
    assert_eq!(count("SELECT count(*) FROM 'accounts' WHERE id IN (8, 9)"), 2);
    lab.ok(&["append", "accounts", "more.csv"]);
    lab.ok(&["append", "accounts", "more.csv", "--branch", "audit"]);
    snapshot!(
        "branch_forward_refused",
        lab.lake(&["branch", "accounts", "main", "--fast-forward-to", "audit"])
    );
    snapshot!("branch_drop", lab.ok(&["branch", "accounts", "audit", "--drop"]));
    snapshot!("branch_main", lab.lake(&["branch", "accounts", "main", "--drop"]));
    snapshot!(
        "branch_missing",
        lab.lake(&["delete", "accounts", "--where", "id = 1", "--branch", "audit"])
    );
}

#[test]
fn a_delta_table_has_no_tags_and_branches() {
    let lab = Lab::accounts("delta");
    snapshot!("tag_delta", lab.lake(&["tag", "accounts", "v1"]));
    snapshot!("branch_list_delta", lab.lake(&["branch", "accounts"]));
    let write = ["delete", "accounts", "--where", "id = 1", "--branch", "audit"];
    snapshot!("branch_write_delta", lab.lake(&write));
}
