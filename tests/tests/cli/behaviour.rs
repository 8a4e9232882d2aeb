//! How the binary behaves whatever the verb: streams, forms of output, keys, signals.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use super::lab::{Lab, snapshot};

#[test]
fn every_form_of_output_holds_the_same_rows_and_comes_back_in() {
    let lab = Lab::accounts("iceberg");
    let sql = "SELECT * FROM 'accounts' ORDER BY id";
    let rows = lab.rows(sql);
    for (file, flags) in [
        ("out.csv", &[][..]),
        ("out.ndjson", &[]),
        ("out.parquet", &[]),
        ("out.arrow", &[]),
        ("out.dat", &["--output", "parquet"]),
    ] {
        let mut args = vec!["query", sql, "-o", file];
        args.extend_from_slice(flags);
        let run = lab.ok(&args);
        assert_eq!(run.stdout, format!("4 rows in {file}\n"));
        let mut args = vec!["append", file, file, "--create"];
        let table = format!("back-{file}");
        args[1] = &table;
        if file == "out.dat" {
            args.extend(["--input-format", "parquet"]);
        }
        lab.ok(&args);
        assert_eq!(
            lab.rows(&format!("SELECT * FROM '{table}' ORDER BY id")),
            rows,
            "{file}"
        );
    }
    // To stdout and back through stdin.
    for form in ["csv", "ndjson", "parquet", "arrow"] {
        let bytes = lab
            .command(&["query", sql, "--output", form])
            .output()
            .unwrap()
            .stdout;
        let table = format!("piped-{form}");
        let mut args = vec!["append", table.as_str(), "-", "--create"];
        if form == "csv" {
            args.extend(["--input-format", "csv"]);
        }
        let run = lab.lake_with(&args, &bytes);
        assert_eq!(run.code, 0, "{form}: {}", run.text());
        assert_eq!(
            lab.rows(&format!("SELECT * FROM '{table}' ORDER BY id")),
            rows,
            "{form}"
        );
    }
}

#[test]
fn json_of_a_query_has_columns_and_rows_of_every_type() {
    let lab = Lab::new();
    let run = lab.ok(&[
        "query",
        "SELECT 1 AS i, 1.5 AS f, 'x\"y' AS s, NULL AS n, true AS b, DATE '2024-01-02' AS d, \
         TIMESTAMP '2024-01-02T03:04:05Z' AS t, [1, NULL] AS l, {'a': 1} AS o, CAST('NaN' AS DOUBLE) AS nan",
        "--json",
    ]);
    snapshot!("query_json", run);
    let empty = lab.ok(&["query", "SELECT 1 AS a WHERE false", "--json"]).json();
    assert_eq!(empty, json!({"columns": ["a"], "rows": []}));
    let empty = lab.ok(&["query", "SELECT 1 AS a WHERE false", "--output", "csv"]);
    assert_eq!(empty.stdout, "a\n");
}

#[test]
fn a_limit_is_moved_by_a_storage_option_of_any_verb_and_named_where_it_is_met() {
    for (format, option) in [("iceberg", "max_metadata_bytes"), ("delta", "max_commit_bytes")] {
        let lab = Lab::accounts(format);
        let rows = "SELECT * FROM 'accounts' ORDER BY id";
        for verb in [
            &["show", "accounts"][..],
            &["query", rows],
            &["append", "accounts", "accounts.csv"],
        ] {
            let with = |value: &str| {
                let setting = format!("{option}={value}");
                lab.lake(&[verb, &["--storage-option", setting.as_str()]].concat())
            };
            let run = with("100");
            assert_eq!(run.code, 1, "{verb:?}\n{}", run.text());
            assert!(run.stderr.contains("at most 100 are read"), "{}", run.stderr);
            assert!(
                run.stderr.contains(&format!("storage option {option}\n")),
                "{}",
                run.stderr
            );
            let run = with("plenty");
            assert_eq!(run.code, 1, "{verb:?}\n{}", run.text());
            assert!(
                run.stderr.contains("hint: write a number of bytes"),
                "{}",
                run.stderr
            );
            let run = with("1MB");
            assert_eq!(run.code, 0, "{verb:?}\n{}", run.text());
        }
    }
}

#[test]
fn a_query_that_fails_leaves_an_existing_output_file_alone() {
    let lab = Lab::new();
    lab.write("out.csv", "precious\n");
    let sql = "SELECT CAST(CASE WHEN value > 50000 THEN 'x' ELSE '1' END AS BIGINT) AS v FROM generate_series(1, 100000)";
    let run = lab.lake(&["query", sql, "-o", "out.csv"]);
    assert_eq!(run.code, 1, "{}", run.text());
    assert_eq!(
        std::fs::read_to_string(lab.path("out.csv")).unwrap(),
        "precious\n"
    );
    assert_eq!(lab.objects("").len(), 1, "no temporary file is left");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let lab = Lab::new();
    for flags in [
        &["--output", "csv"][..],
        &["--output", "ndjson"],
        &["--output", "parquet"],
        &["--json"],
        &[],
    ] {
        let mut args = vec![
            "query",
            "SELECT value, md5(CAST(value AS STRING)) FROM generate_series(1, 300000)",
        ];
        args.extend_from_slice(flags);
        let mut child = lab
            .command(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut head = [0; 1];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut head).unwrap();
        drop(stdout);
        let done = child.wait_with_output().unwrap();
        assert_eq!(
            done.status.code(),
            Some(0),
            "{flags:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{flags:?}");
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_stops_without_a_commit() {
    let lab = Lab::accounts("iceberg");
    let before = lab.state("accounts");
    let mut child = lab
        .command(&["append", "accounts", "-", "--input-format", "csv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"id,name\n5,Eve\n").unwrap();
    // Held open: the command waits for more.
    std::thread::sleep(Duration::from_secs(2));
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let done = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(done.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&done.stderr).starts_with("error: interrupted\nhint: "));
    assert_eq!(lab.state("accounts"), before);
}

#[test]
fn a_second_run_with_the_same_key_commits_nothing_and_says_so() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::accounts(format);
        lab.write("new.csv", "id,name\n5,Eve\n");
        for (verb, args) in [
            ("append", vec!["append", "accounts", "new.csv"]),
            (
                "overwrite",
                vec!["overwrite", "accounts", "new.csv", "--where", "id = 5"],
            ),
            ("merge", vec!["merge", "accounts", "new.csv", "--on", "id"]),
            (
                "update",
                vec![
                    "update",
                    "accounts",
                    "--set",
                    "balance = coalesce(balance, 0) + 1",
                ],
            ),
            (
                "delete",
                vec![
                    "delete",
                    "accounts",
                    "--where",
                    "id = 1",
                    "--strategy",
                    "merge-on-read",
                ],
            ),
            ("compact", vec!["compact", "accounts"]),
            ("restore", vec!["restore", "accounts", "--version", "-1"]),
        ] {
            let mut args = args;
            args.extend(["--idempotency-key", verb]);
            let first = lab.ok(&[&args[..], &["--json"]].concat()).json();
            assert_eq!(first["committed"], true, "{format} {verb}: {first}");
            let state = lab.state("accounts");
            let second = lab.ok(&[&args[..], &["--json"]].concat()).json();
            assert_eq!(second["committed"], false, "{format} {verb}: {second}");
            assert_eq!(second["already"], first["version"], "{format} {verb}: {second}");
            assert_eq!(lab.state("accounts"), state, "{format} {verb}");
            if verb == "append" {
                snapshot!(format!("append_already_{format}"), lab.ok(&args));
            }
        }
        let create = [
            "create",
            "other",
            "--format",
            format,
            "--schema",
            "id bigint",
            "--idempotency-key",
            "c",
        ];
        lab.ok(&create);
        snapshot!(format!("create_already_{format}"), lab.ok(&create));
        assert_eq!(
            lab.lake(&[
                "create",
                "other",
                "--schema",
                "id bigint",
                "--idempotency-key",
                "d"
            ])
            .code,
            1
        );
    }
}

#[test]
fn a_dry_run_of_every_verb_leaves_everything_as_it_was() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::accounts(format);
        lab.ok(&["append", "accounts", "accounts.csv"]);
        lab.write("new.csv", "id,name\n5,Eve\n1,Ann\n");
        let before = lab.state("accounts");
        for args in [
            vec!["append", "accounts", "new.csv"],
            vec!["overwrite", "accounts", "new.csv"],
            vec!["merge", "accounts", "SELECT 1 AS id, 'x' AS name", "--on", "id"],
            vec!["update", "accounts", "--set", "balance = 0"],
            vec!["delete", "accounts", "--where", "id > 1"],
            vec!["compact", "accounts"],
            vec!["restore", "accounts", "--version", "-1"],
        ] {
            let report = lab.ok(&[&args[..], &["--dry-run", "--json"]].concat()).json();
            assert_eq!(
                (&report["committed"], &report["dry_run"]),
                (&json!(false), &json!(true)),
                "{format} {args:?}"
            );
            assert_eq!(lab.state("accounts"), before, "{format} {args:?}");
        }
        lab.ok(&[
            "append",
            "new",
            "new.csv",
            "--create",
            "--format",
            format,
            "--dry-run",
        ]);
        assert!(!lab.path("new").exists());
    }
}

#[test]
fn a_query_is_read_from_a_file_and_from_stdin() {
    let lab = Lab::new();
    lab.write("q.sql", "SELECT 40 + 2 AS answer;\n");
    assert_eq!(
        lab.ok(&["query", "-f", "q.sql", "--output", "csv"]).stdout,
        "answer\n42\n"
    );
    let run = lab.lake_with(&["query", "-f", "-", "--output", "csv"], b"SELECT 1 AS a");
    assert_eq!(run.stdout, "a\n1\n", "{}", run.text());
}

#[test]
fn a_wrong_command_line_is_code_2_in_text_and_in_json() {
    let lab = Lab::new();
    lab.write("a.csv", "id\n1\n");
    for (name, args) in [
        ("no_schema", vec!["create", "t"]),
        (
            "bad_format",
            vec!["create", "t", "--schema", "id bigint", "--format", "hudi"],
        ),
        (
            "delta_has_no_format_version",
            vec![
                "create",
                "t",
                "--schema",
                "id bigint",
                "--format",
                "delta",
                "--format-version",
                "3",
            ],
        ),
        (
            "options_without_create",
            vec!["append", "t", "a.csv", "--partition-by", "id"],
        ),
        (
            "idle_flag",
            vec![
                "merge",
                "t",
                "a.csv",
                "--on",
                "id",
                "--when-matched",
                "ignore",
                "--set",
                "a = 1",
            ],
        ),
        ("no_version", vec!["restore", "t"]),
        ("bad_time", vec!["query", "SELECT 1", "--as-of", "yesterday"]),
        ("bad_size", vec!["compact", "t", "--target-file-size", "big"]),
        ("output_without_a_form", vec!["query", "SELECT 1", "-o", "answer"]),
        ("stdin_without_a_format", vec!["append", "t", "-", "--create"]),
    ] {
        let run = lab.lake(&args);
        assert_eq!(run.code, 2, "{name}: {}", run.text());
        assert_eq!(run.stdout, "", "{name}");
        snapshot!(format!("usage_{name}"), run);
        let error = lab.lake(&[&args[..], &["--json"]].concat());
        assert_eq!(error.code, 2, "{name}");
        assert_eq!(error.json()["error"]["kind"], "usage", "{name}: {}", error.text());
    }
    assert!(!lab.path("t").exists());
}

#[test]
fn appends_that_race_to_create_a_table_all_land() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::new();
        lab.write("one.csv", "id\n1\n");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| lab.ok(&["append", "t", "one.csv", "--create", "--format", format]));
            }
        });
        assert_eq!(
            lab.rows("SELECT count(*) FROM 't'"),
            serde_json::json!([[8]]),
            "{format}"
        );
    }
}

/// A pipe that stays open: what came is in the table before it ends.
#[test]
fn lines_from_stdin_are_committed_as_they_come() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::accounts(format);
        let args = [
            "append",
            "accounts",
            "-",
            "--commit-every",
            "100ms",
            "--stream",
            "feed",
        ];
        let before = lab.rows("SELECT count(*) AS n FROM 'accounts'");
        let mut lake = lab
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = lake.stdin.take().unwrap();
        stdin.write_all(b"{\"id\": 101}\n{\"id\": 102}\n").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while lab.rows("SELECT count(*) AS n FROM 'accounts'") == before {
            assert!(
                std::time::Instant::now() < deadline,
                "{format}: nothing was committed"
            );
        }
        lake.kill().unwrap();
        lake.wait().unwrap();
        // The same lines from the start, and one more.
        let run = lab.lake_with(&args, b"{\"id\": 101}\n{\"id\": 102}\n{\"id\": 103}\n");
        assert_eq!(run.code, 0, "{}", run.text());
        assert!(
            run.stdout
                .ends_with("1 commits with 1 rows to accounts, 2 lines were there already\n"),
            "{}",
            run.stdout
        );
        let found = lab.rows("SELECT id FROM 'accounts' WHERE id > 100 ORDER BY id");
        assert_eq!(found, json!([[101], [102], [103]]), "{format}");
        for (wrong, code) in [
            (&["append", "accounts", "x.parquet", "--commit-every", "5"][..], 2),
            (&["append", "accounts", "--watch", ".", "--commit-every", "5"], 2),
            (&["append", "accounts", "-", "--commit-every", "soon"], 2),
            (&["append", "accounts", "--watch", "nowhere"], 1),
        ] {
            assert_eq!(lab.lake_with(wrong, b"").code, code, "{wrong:?}");
        }
    }
}
