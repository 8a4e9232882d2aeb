//! Every verb once, as people see it.

use super::lab::{Lab, snapshot};

const FORMATS: [&str; 2] = ["iceberg", "delta"];

#[test]
fn help_of_every_verb_has_an_example() {
    let lab = Lab::new();
    snapshot!("help", lab.ok(&["--help"]));
    for verb in [
        "create",
        "append",
        "overwrite",
        "merge",
        "update",
        "delete",
        "query",
        "compact",
        "vacuum",
        "maintain",
        "history",
        "files",
        "show",
        "restore",
        "alter",
        "tag",
        "branch",
        "expire",
        "checkpoint",
        "rewrite-manifests",
        "demo",
    ] {
        let run = lab.ok(&[verb, "--help"]);
        assert!(
            run.stdout.contains("Example:") && run.stdout.contains(&format!("lake {verb}")),
            "{}",
            run.text()
        );
        assert!(run.stdout.contains("--json"), "{}", run.text());
    }
    snapshot!("help_merge", lab.ok(&["merge", "--help"]));
    snapshot!("help_tag", lab.ok(&["tag", "--help"]));
    snapshot!("help_vacuum", lab.ok(&["vacuum", "--help"]));
    snapshot!("help_maintain", lab.ok(&["maintain", "--help"]));
    snapshot!("help_branch", lab.ok(&["branch", "--help"]));
}

#[test]
fn create_says_what_was_made() {
    for format in FORMATS {
        let lab = Lab::new();
        let args = [
            "create",
            "t",
            "--format",
            format,
            "--schema",
            "id bigint not null, ts timestamptz, name string",
            "--partition-by",
            "day(ts), bucket(4, id)",
            "--property",
            "owner=ann",
        ];
        let dry: Vec<_> = args.iter().copied().chain(["--dry-run"]).collect();
        snapshot!(format!("create_dry_run_{format}"), lab.ok(&dry));
        assert!(!lab.path("t").exists(), "a dry run leaves nothing behind");
        snapshot!(format!("create_{format}"), lab.ok(&args));
        snapshot!(format!("create_again_{format}"), lab.lake(&args));
        snapshot!(format!("show_empty_{format}"), lab.ok(&["show", "t"]));
        let shown = lab.ok(&["show", "t", "--json"]).json();
        assert_eq!(shown["rows"], 0);
        assert_eq!(shown["properties"]["owner"], "ann");
        assert_eq!(
            shown["partitioning"],
            serde_json::json!(["day(ts)", "bucket(4, id)"])
        );
    }
}

#[test]
fn create_takes_the_columns_of_a_file() {
    let lab = Lab::new();
    lab.write("people.csv", "id,name,born\n1,Ann,1990-05-06\n2,Bob,1991-01-02\n");
    lab.ok(&["create", "people", "--schema-from", "people.csv"]);
    snapshot!("create_schema_from", lab.ok(&["show", "people"]));
}

#[test]
fn append_reports_rows_files_and_time() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write(
            "more.ndjson",
            "{\"id\":5,\"name\":\"Eve\",\"balance\":1}\n{\"id\":6}\n",
        );
        snapshot!(
            format!("append_dry_run_{format}"),
            lab.ok(&["append", "accounts", "more.ndjson", "--dry-run"])
        );
        assert_eq!(
            lab.rows("SELECT count(*) FROM 'accounts'"),
            serde_json::json!([[4]])
        );
        snapshot!(
            format!("append_{format}"),
            lab.ok(&["append", "accounts", "more.ndjson"])
        );
        snapshot!(
            format!("query_{format}"),
            lab.ok(&["query", "SELECT * FROM 'accounts' ORDER BY id"])
        );
    }
}

#[test]
fn columns_come_with_rows_when_told() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write(
            "wide.ndjson",
            "{\"id\":5,\"name\":\"Eve\",\"email\":\"eve@example.org\",\"address\":{\"zip\":\"1010\"}}\n",
        );
        let append = ["append", "accounts", "wide.ndjson"];
        snapshot!(format!("append_unknown_column_{format}"), lab.lake(&append));
        let merging = [&append[..], &["--schema-mode", "merge"]].concat();
        snapshot!(
            format!("append_columns_dry_run_{format}"),
            lab.ok(&[&merging[..], &["--dry-run"]].concat())
        );
        snapshot!(format!("append_columns_{format}"), lab.ok(&merging));
        lab.write(
            "more.ndjson",
            "{\"id\":1,\"address\":{\"city\":\"Wien\"}}\n{\"id\":6,\"phone\":\"123\"}\n",
        );
        let merge = [
            "merge",
            "accounts",
            "more.ndjson",
            "--on",
            "id",
            "--schema-mode",
            "merge",
        ];
        snapshot!(format!("merge_columns_{format}"), lab.ok(&merge));
        assert_eq!(
            lab.rows("SELECT id, email, address['zip'], address['city'], phone FROM 'accounts' WHERE id IN (1, 5, 6) ORDER BY id"),
            serde_json::json!([
                [1, null, null, "Wien", null],
                [5, "eve@example.org", "1010", null, null],
                [6, null, null, null, "123"]
            ])
        );
        lab.write("one.csv", "id,name,tip\n9,Zoe,1.5\n");
        let overwrite = [
            "overwrite",
            "accounts",
            "one.csv",
            "--schema-mode",
            "merge",
            "--json",
        ];
        let report: serde_json::Value =
            serde_json::from_slice(&lab.command(&overwrite).output().unwrap().stdout).unwrap();
        assert_eq!(report["columns_added"], serde_json::json!(["tip"]), "{report}");
    }
}

#[test]
fn append_creates_the_table_when_told() {
    for format in FORMATS {
        let lab = Lab::new();
        lab.write("a.csv", "id,name\n1,Ann\n");
        lab.write("b.csv", "name,id\nBob,2\n");
        let create = [
            "append",
            "t",
            "a.csv",
            "b.csv",
            "--create",
            "--format",
            format,
            "--partition-by",
            "bucket(2, id)",
        ];
        lab.ok(&create);
        assert_eq!(
            lab.rows("SELECT id, name FROM 't' ORDER BY id"),
            serde_json::json!([[1, "Ann"], [2, "Bob"]]),
            "columns are found by name"
        );
        // A second run appends to the table that is there now.
        lab.ok(&create);
        assert_eq!(lab.rows("SELECT count(*) FROM 't'"), serde_json::json!([[4]]));
    }
}

#[test]
fn overwrite_replaces_all_rows_or_those_that_match() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write("new.csv", "id,name\n2,Bert\n");
        snapshot!(
            format!("overwrite_where_{format}"),
            lab.ok(&["overwrite", "accounts", "new.csv", "--where", "id = 2"])
        );
        assert_eq!(
            lab.rows("SELECT id, name FROM 'accounts' ORDER BY id"),
            serde_json::json!([[1, "Ann"], [2, "Bert"], [3, "Cay"], [4, null]])
        );
        lab.ok(&["overwrite", "accounts", "new.csv"]);
        assert_eq!(
            lab.rows("SELECT id, name FROM 'accounts'"),
            serde_json::json!([[2, "Bert"]])
        );
    }
}

#[test]
fn merge_with_every_flag_does_what_each_says() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write(
            "changes.csv",
            "id,name,balance,op\n1,Anna,99,U\n2,Bob,5,D\n7,New,1,U\n8,Gone,1,D\n9,Poor,-1,U\n",
        );
        snapshot!(
            format!("merge_{format}"),
            lab.ok(&[
                "merge",
                "accounts",
                "changes.csv",
                "--on",
                "target.id = source.id",
                "--delete-when",
                "source.op = 'D'",
                "--update-when",
                "source.balance > target.balance",
                "--set",
                "name = source.name, balance = -source.balance",
                "--insert-when",
                "source.balance > 0",
                "--when-not-matched-by-source",
                "update",
                "--by-source-when",
                "target.balance < 0",
                "--by-source-set",
                "balance = 0",
            ])
        );
        assert_eq!(
            lab.rows("SELECT id, name, balance FROM 'accounts' ORDER BY id"),
            serde_json::json!([
                [1, "Anna", -99.0],
                [3, "Cay", 0.0],
                [4, null, 0.0],
                [7, "New", 1.0]
            ])
        );
    }
}

#[test]
fn explain_tells_before_what_the_report_tells_afterwards() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write("changes.csv", "id,name,op\n1,Anna,U\n2,Bob,D\n7,New,U\n");
        let merge = |flags: &[&str]| {
            let line = ["merge", "accounts", "changes.csv", "--on", "id"];
            lab.ok(&[&line, &["--delete-when", "source.op = 'D'"][..], flags].concat())
        };
        let before = lab.state("accounts");
        snapshot!(format!("explain_{format}"), merge(&["--explain"]));
        let explained = merge(&["--explain", "--json"]).json();
        assert_eq!(lab.state("accounts"), before);
        let done = merge(&["--json"]).json();
        assert_eq!(
            (&explained["dry_run"], &done["dry_run"]),
            (&true.into(), &false.into())
        );
        for part in ["metrics", "files"] {
            assert_eq!(explained[part], done[part], "{format} {part}");
        }
        let touched = done["files"].as_array().unwrap().iter();
        assert_eq!(
            touched.map(|file| file["touched"].as_u64().unwrap()).sum::<u64>(),
            2
        );
    }
}

#[test]
fn merge_takes_change_feeds() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write(
            "feed.csv",
            "kind,lsn,id,name,balance\nU,12,1,Anna,5\nI,11,1,Ann,4\nD,13,2,,\nI,14,9,New,1\n",
        );
        let args = [
            "merge",
            "accounts",
            "feed.csv",
            "--on",
            "id",
            "--cdc",
            "op=kind,sequence=lsn",
        ];
        snapshot!(format!("merge_cdc_{format}"), lab.ok(&args));
        let wrong = [
            "merge",
            "accounts",
            "feed.csv",
            "--on",
            "id",
            "--cdc",
            "op=kind,sequence=lsn,insert=N",
        ];
        snapshot!("merge_cdc_unknown_word", lab.lake(&wrong));
        lab.write(
            "kafka.ndjson",
            "{\"before\":null,\"after\":{\"id\":9,\"name\":\"Newer\",\"balance\":2.5},\"op\":\"u\",\"ts_ms\":2}\n\
             {\"before\":{\"id\":1,\"name\":\"Anna\",\"balance\":5},\"after\":null,\"op\":\"d\",\"ts_ms\":1}\n",
        );
        lab.ok(&[
            "merge",
            "accounts",
            "kafka.ndjson",
            "--on",
            "id",
            "--cdc",
            "debezium",
        ]);
        assert_eq!(
            lab.rows("SELECT id, name, balance FROM 'accounts' WHERE id IN (1, 2, 9)"),
            serde_json::json!([[9, "Newer", 2.5]])
        );
    }
}

#[test]
fn merge_says_which_of_several_rows_counts_and_what_is_inserted() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write("twice.csv", "id,name,seq\n1,A,2\n1,B,1\n8,C,1\n8,D,1\n");
        let base = [
            "merge",
            "accounts",
            "twice.csv",
            "--on",
            "id",
            "--set",
            "name = source.name",
        ];
        let base = [
            &base[..],
            &["--insert-set", "id = source.id, name = 'new ' || source.name"],
        ]
        .concat();
        let first = [&base[..], &["--on-duplicate", "first"]].concat();
        lab.ok(&first);
        let names = || lab.rows("SELECT id, name FROM 'accounts' WHERE id IN (1, 8) ORDER BY id");
        assert_eq!(names(), serde_json::json!([[1, "A"], [8, "new C"]]));
        let newest = [&base[..], &["--on-duplicate", "last", "--sequence-by", "seq"]].concat();
        lab.ok(&newest);
        assert_eq!(names(), serde_json::json!([[1, "A"], [8, "D"]]));
    }
}

#[test]
fn merge_takes_a_table_a_query_and_stdin() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write("s.csv", "id,name\n1,One\n");
        lab.ok(&["append", "source", "s.csv", "--create"]);
        lab.ok(&["merge", "accounts", "source", "--on", "id"]);
        lab.ok(&[
            "merge",
            "accounts",
            "SELECT id + 1 AS id, 'Two' AS name FROM 'source'",
            "--on",
            "id",
        ]);
        let run = lab.lake_with(
            &[
                "merge",
                "accounts",
                "-",
                "--on",
                "id",
                "--input-format",
                "csv",
                "--when-not-matched",
                "ignore",
            ],
            b"id,name\n3,Three\n77,Nobody\n",
        );
        assert_eq!(run.code, 0, "{}", run.text());
        assert_eq!(
            lab.rows("SELECT id, name FROM 'accounts' ORDER BY id"),
            serde_json::json!([[1, "One"], [2, "Two"], [3, "Three"], [4, null]])
        );
    }
}

#[test]
fn a_merge_that_changes_nothing_commits_nothing() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write("none.csv", "id,name\n100,Nobody\n");
        let before = lab.state("accounts");
        let args = [
            "merge",
            "accounts",
            "none.csv",
            "--on",
            "id",
            "--when-not-matched",
            "ignore",
        ];
        snapshot!(format!("merge_nothing_{format}"), lab.ok(&args));
        assert_eq!(lab.state("accounts"), before);
    }
}

#[test]
fn update_and_delete_report_rows() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        snapshot!(
            format!("update_{format}"),
            lab.ok(&[
                "update",
                "accounts",
                "--set",
                "balance = -1, name = upper(name)",
                "--where",
                "id <= 2"
            ])
        );
        snapshot!(
            format!("delete_{format}"),
            lab.ok(&[
                "delete",
                "accounts",
                "--where",
                "-balance > 1",
                "--strategy",
                "merge-on-read"
            ])
        );
        assert_eq!(
            lab.rows("SELECT id, name, balance FROM 'accounts' ORDER BY id"),
            serde_json::json!([[1, "ANN", -1.0], [2, "BOB", -1.0], [4, null, 0.0]])
        );
    }
}

#[test]
fn compact_reports_and_a_second_run_does_nothing() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.ok(&["append", "accounts", "accounts.csv"]);
        let masking = ["--strategy", "merge-on-read"];
        lab.ok(&[&["delete", "accounts", "--where", "id = 1"][..], &masking].concat());
        let rows = lab.rows("SELECT * FROM 'accounts' ORDER BY id");
        snapshot!(
            format!("compact_dry_run_{format}"),
            lab.ok(&["compact", "accounts", "--target-file-size", "1MB", "--dry-run"])
        );
        snapshot!(
            format!("compact_{format}"),
            lab.ok(&["compact", "accounts", "--target-file-size", "1MB"])
        );
        assert_eq!(lab.rows("SELECT * FROM 'accounts' ORDER BY id"), rows);
        snapshot!(
            format!("compact_again_{format}"),
            lab.ok(&["compact", "accounts"])
        );
    }
}

#[test]
fn history_files_and_show_tell_what_a_table_is() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        let masking = ["--strategy", "merge-on-read"];
        lab.ok(&[&["delete", "accounts", "--where", "id = 1"][..], &masking].concat());
        snapshot!(format!("history_{format}"), lab.ok(&["history", "accounts"]));
        snapshot!(format!("files_{format}"), lab.ok(&["files", "accounts"]));
        snapshot!(format!("show_{format}"), lab.ok(&["show", "accounts"]));
        let files = lab.ok(&["files", "accounts", "--json"]).json();
        let sum = |key: &str| -> u64 {
            files["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| file[key].as_u64().unwrap())
                .sum()
        };
        assert_eq!(sum("rows") - sum("masked_rows"), 3);
        let history = lab.ok(&["history", "accounts", "--json"]).json();
        assert!(history["commits"].as_array().unwrap().len() >= 2);
    }
}

#[test]
fn restore_makes_an_old_version_current_again() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        let before = lab.rows("SELECT * FROM 'accounts' ORDER BY id");
        lab.ok(&["delete", "accounts", "--where", "true"]);
        assert_eq!(lab.rows("SELECT * FROM 'accounts'"), serde_json::json!([]));
        snapshot!(
            format!("restore_{format}"),
            lab.ok(&["restore", "accounts", "--version", "-1"])
        );
        assert_eq!(lab.rows("SELECT * FROM 'accounts' ORDER BY id"), before);
    }
}

#[test]
fn query_travels_in_time_per_table_and_for_all() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.ok(&["delete", "accounts", "--where", "id > 1"]);
        let count = |args: &[&str]| {
            let mut line = vec!["query"];
            line.extend_from_slice(args);
            line.push("--json");
            lab.ok(&line).json()["rows"][0].clone()
        };
        let sql = "SELECT count(*) FROM 'accounts'";
        assert_eq!(count(&[sql]), serde_json::json!([1]));
        assert_eq!(count(&[sql, "--version", "-1"]), serde_json::json!([4]));
        assert_eq!(count(&[sql, "--as-of", "2999-01-01"]), serde_json::json!([1]));
        assert_eq!(
            count(&[
                "SELECT (SELECT count(*) FROM now) AS now, (SELECT count(*) FROM old) AS old",
                "-t",
                "now=accounts",
                "-t",
                "old=accounts@-1",
            ]),
            serde_json::json!([1, 4])
        );
        assert_eq!(
            count(&[
                "SELECT (SELECT count(*) FROM a) AS a, (SELECT count(*) FROM 'accounts') AS b",
                "-t",
                "a=accounts",
                "--version",
                "-1"
            ]),
            serde_json::json!([4, 4]),
            "--version is for every table without a version of its own"
        );
    }
}

#[test]
fn query_changes_tables_and_tells_what_it_did() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write("feed.csv", "id,balance\n2,20\n9,90\n");
        let merge = "MERGE INTO 'accounts' t USING 'feed.csv' s ON t.id = s.id \
                     WHEN MATCHED THEN UPDATE SET balance = s.balance WHEN NOT MATCHED THEN INSERT *";
        let dry = lab.ok(&["query", merge, "--dry-run", "--json"]).json();
        assert_eq!(
            (&dry["operation"], &dry["dry_run"]),
            (&"merge".into(), &true.into())
        );
        snapshot!(
            format!("query_merge_{format}"),
            lab.ok(&["query", merge, "--idempotency-key", "one"])
        );
        let again = lab
            .ok(&["query", merge, "--idempotency-key", "one", "--json"])
            .json();
        assert!(
            again["already"].is_number() && again["committed"] == false,
            "{again}"
        );
        let delete = "DELETE FROM a WHERE id NOT IN (SELECT id FROM 'feed.csv')";
        let done = lab.ok(&["query", delete, "-t", "a=accounts", "--json"]).json();
        assert_eq!(done["metrics"]["num_target_rows_deleted"], 3, "{done}");
        assert_eq!(
            lab.rows("SELECT id, balance FROM 'accounts' ORDER BY id"),
            serde_json::json!([[2, 20.0], [9, 90.0]])
        );
        let state = lab.state("accounts");
        for (args, code, expected) in [
            (vec!["DELETE FROM 'accounts' RETURNING id"], 1, "RETURNING"),
            (vec!["DELETE FROM 'accounts'", "--version", "-1"], 2, "--version"),
            (vec!["DELETE FROM 'accounts'", "-o", "x.csv"], 2, "-o"),
            (vec!["DELETE FROM 'accounts'", "--output", "csv"], 2, "--output"),
            (vec!["DELETE FROM a", "-t", "a=accounts@-1"], 1, "old version"),
            (vec!["DELETE FROM 'acounts'"], 1, "did you mean accounts"),
            (vec!["DELETE FROM 'feed.csv'"], 1, "only tables can be changed"),
            (vec!["SELECT 1", "--dry-run"], 2, "--dry-run"),
            (vec!["SELECT 1", "--idempotency-key", "k"], 2, "--idempotency-key"),
        ] {
            let run = lab.lake(&[&["query"], args.as_slice()].concat());
            assert!(
                run.code == code && run.stderr.contains(expected),
                "{args:?}: {}",
                run.text()
            );
        }
        assert_eq!(lab.state("accounts"), state);
    }
}
