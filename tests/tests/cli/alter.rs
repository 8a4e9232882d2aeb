//! `lake alter`, as people see it.

use serde_json::json;

use super::lab::{Lab, snapshot};

#[test]
fn a_table_changes_in_one_command_and_says_how() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::accounts(format);
        let change = [
            "alter",
            "accounts",
            "--rename",
            "balance=amount",
            "--add",
            "note text comment 'free text'",
            "--move",
            "note after id",
            "--drop",
            "opened",
            "--comment",
            "name=as written",
            "--set",
            "owner=ann",
        ];
        let dry: Vec<_> = change.iter().copied().chain(["--dry-run"]).collect();
        snapshot!(format!("alter_dry_run_{format}"), lab.ok(&dry));
        snapshot!(format!("alter_{format}"), lab.ok(&change));
        snapshot!(format!("show_altered_{format}"), lab.ok(&["show", "accounts"]));
        let rows = lab.rows("SELECT * FROM 'accounts' WHERE id = 1");
        assert_eq!(rows, json!([[1, null, "Ann", 10.5]]));
        lab.write("more.csv", "id,note,name,amount\n9,new,Zoe,1\n");
        lab.ok(&["append", "accounts", "more.csv"]);
        let rows = lab.rows("SELECT id, note FROM 'accounts' WHERE amount = 1 OR id = 2 ORDER BY id");
        assert_eq!(rows, json!([[2, null], [9, "new"]]));
    }
}

#[test]
fn what_cannot_be_altered_is_said_and_nothing_changes() {
    let lab = Lab::accounts("delta");
    for args in [
        &["alter", "accounts"][..],
        &["alter", "accounts", "--rename", "balance"],
        &["alter", "accounts", "--move", "name below id"],
        &["alter", "accounts", "--add", "x"],
        &["alter", "accounts", "--drop", "nosuch"],
        &["alter", "accounts", "--partition-by", "day(opened)"],
        &["alter", "accounts", "--required", "name"],
        &["alter", "nosuch", "--drop", "x"],
    ] {
        let name = format!(
            "alter_refused_{}",
            args.get(2).unwrap_or(&"nothing").trim_start_matches('-')
        );
        let name = match args.get(1) {
            Some(&"nosuch") => "alter_refused_table".to_owned(),
            _ => name,
        };
        let run = lab.lake(args);
        assert_ne!(run.code, 0);
        snapshot!(name, run);
    }
    assert_eq!(
        lab.ok(&["show", "accounts", "--json"]).json()["schema"][1]["name"],
        "name"
    );
}
