//! What is wrong with the input is told with what, where and what next, and the table stays as it was.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::lab::{Lab, Run, snapshot};

const FORMATS: [&str; 2] = ["iceberg", "delta"];

/// Runs a command that must fail with code 1, a message and a hint, and must not touch the table.
fn refused(lab: &Lab, name: &str, args: &[&str]) {
    let before = lab.state("accounts");
    let run = lab.lake(args);
    expect_error(name, &run);
    assert_eq!(lab.state("accounts"), before, "{name} touched the table");
    snapshot!(name, run);
    let error = lab.lake(&[args, &["--json"]].concat());
    assert_eq!(error.code, 1, "{name}");
    let error: Value = error.json();
    assert!(
        run.stderr.contains(error["error"]["message"].as_str().unwrap()),
        "{name}: {error}"
    );
    assert_eq!(lab.state("accounts"), before, "{name} touched the table");
}

fn expect_error(name: &str, run: &Run) {
    assert_eq!(run.code, 1, "{name}: {}", run.text());
    assert_eq!(run.stdout, "", "{name}");
    assert!(run.stderr.starts_with("error: "), "{name}: {}", run.text());
    assert!(
        run.stderr.contains("\nhint: "),
        "{name} says nothing to do next: {}",
        run.text()
    );
    assert!(!run.stderr.contains("panicked"), "{name}: {}", run.text());
}

#[test]
fn a_wrong_source_or_expression_is_explained() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        lab.write("keyless.csv", "name\nAnn\n");
        lab.write("twice.csv", "id,name\n1,Ann\n1,Anna\n");
        lab.write("words.csv", "id,name\nfive,Eve\n");
        lab.write("null.csv", "id,name\n,Eve\n");
        lab.write("extra.csv", "id,nick\n5,E\n");
        lab.write("ragged.csv", "id,name\n5,Eve,6\n");
        lab.write("broken.ndjson", "{\"id\":5}\n{\"id\":\n");
        lab.write(
            "words.parquet",
            "this is not a Parquet file, whatever its name says",
        );
        lab.write("short.parquet", "PAR1");
        lab.write("words.arrow", "this is not an Arrow file");
        lab.write("data.xyz", "id\n1\n");
        for (name, args) in [
            (
                "merge_source_lacks_the_key",
                vec!["merge", "accounts", "keyless.csv", "--on", "id"],
            ),
            (
                "merge_key_is_in_neither",
                vec!["merge", "accounts", "twice.csv", "--on", "nope"],
            ),
            (
                "merge_duplicate_source_key",
                vec!["merge", "accounts", "twice.csv", "--on", "id"],
            ),
            (
                "merge_ambiguous_name",
                vec![
                    "merge",
                    "accounts",
                    "twice.csv",
                    "--on",
                    "id",
                    "--update-when",
                    "name = 'x'",
                ],
            ),
            (
                "merge_set_of_unknown_column",
                vec![
                    "merge",
                    "accounts",
                    "twice.csv",
                    "--on",
                    "id",
                    "--set",
                    "nope = 1",
                ],
            ),
            ("type_does_not_fit", vec!["append", "accounts", "words.csv"]),
            ("null_in_required_column", vec!["append", "accounts", "null.csv"]),
            ("unknown_column", vec!["append", "accounts", "extra.csv"]),
            (
                "csv_with_too_many_cells",
                vec!["append", "accounts", "ragged.csv"],
            ),
            (
                "ndjson_that_ends_early",
                vec!["append", "accounts", "broken.ndjson"],
            ),
            ("not_a_parquet_file", vec!["append", "accounts", "words.parquet"]),
            ("cut_parquet_file", vec!["append", "accounts", "short.parquet"]),
            ("not_an_arrow_file", vec!["append", "accounts", "words.arrow"]),
            ("unknown_kind_of_file", vec!["append", "accounts", "data.xyz"]),
            ("file_is_not_there", vec!["append", "accounts", "nope.csv"]),
            (
                "merge_source_is_not_there",
                vec!["merge", "accounts", "nope.csv", "--on", "id"],
            ),
            (
                "update_of_unknown_column",
                vec!["update", "accounts", "--set", "nope = 1"],
            ),
            (
                "update_type_does_not_fit",
                vec!["update", "accounts", "--set", "balance = 'much'"],
            ),
            (
                "update_required_to_null",
                vec!["update", "accounts", "--set", "id = NULL"],
            ),
            (
                "delete_by_unknown_column",
                vec!["delete", "accounts", "--where", "nmae = 'Ann'"],
            ),
            (
                "delete_by_broken_expression",
                vec!["delete", "accounts", "--where", "id ="],
            ),
            (
                "delete_by_number",
                vec!["delete", "accounts", "--where", "id + 1"],
            ),
            (
                "overwrite_rows_outside_where",
                vec!["overwrite", "accounts", "accounts.csv", "--where", "id = 1"],
            ),
            (
                "restore_of_unknown_version",
                vec!["restore", "accounts", "--version", "123456"],
            ),
            (
                "query_of_unknown_version",
                vec!["query", "SELECT * FROM 'accounts'", "--version", "123456"],
            ),
            (
                "query_before_the_table_was",
                vec!["query", "SELECT * FROM 'accounts'", "--as-of", "1999-01-01"],
            ),
            (
                "query_of_unknown_ref",
                vec!["query", "SELECT * FROM 'accounts'", "--version", "nope"],
            ),
        ] {
            refused(&lab, &format!("{name}_{format}"), &args);
        }
    }
}

#[test]
fn a_wrong_query_is_explained() {
    let lab = Lab::accounts("delta");
    for (name, sql) in [
        ("query_with_a_typo", "SELEC 1"),
        ("query_of_unknown_column", "SELECT nmae FROM 'accounts'"),
        ("query_of_unknown_table", "SELECT * FROM nowhere"),
        ("query_of_unknown_path", "SELECT * FROM './nowhere'"),
        ("query_that_divides_by_zero", "SELECT id / 0 FROM 'accounts'"),
    ] {
        let before = lab.state("accounts");
        let run = lab.lake(&["query", sql]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{name}: {}", run.text());
        snapshot!(name, run);
        assert_eq!(lab.state("accounts"), before);
    }
}

#[test]
fn a_table_that_is_not_there_is_looked_for_nearby() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        for verb in [
            vec!["show", "acounts"],
            vec!["append", "acounts", "accounts.csv"],
            vec!["merge", "acounts", "accounts.csv", "--on", "id"],
            vec!["query", "SELECT * FROM a", "-t", "a=acounts"],
        ] {
            let run = lab.lake(&verb);
            expect_error(verb[0], &run);
            assert!(run.stderr.contains("did you mean accounts?"), "{}", run.text());
        }
        snapshot!(
            format!("table_not_there_{format}"),
            lab.lake(&["history", "nowhere"])
        );
        fs::create_dir(lab.path("empty")).unwrap();
        snapshot!(
            format!("table_is_an_empty_folder_{format}"),
            lab.lake(&["show", "empty"])
        );
        snapshot!(
            format!("table_is_a_file_{format}"),
            lab.lake(&["show", "accounts.csv"])
        );
    }
}

#[test]
fn a_broken_metadata_file_is_named() {
    for format in FORMATS {
        for (damage, content) in [
            ("cut", "{\"format-version\": 2, \"tab"),
            ("empty", ""),
            ("words", "not json at all"),
        ] {
            let lab = Lab::accounts(format);
            let newest = newest_metadata(&lab, format);
            fs::write(&newest, content).unwrap();
            let name = format!("metadata_{damage}_{format}");
            for args in [
                vec!["show", "accounts"],
                vec!["append", "accounts", "accounts.csv"],
                vec!["delete", "accounts", "--where", "true"],
            ] {
                let objects = lab.objects("accounts");
                let run = lab.lake(&args);
                assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{name}: {}", run.text());
                let file = newest.file_name().unwrap().to_str().unwrap();
                assert!(
                    run.stderr.contains(file),
                    "{name} does not name {file}: {}",
                    run.text()
                );
                assert_eq!(lab.objects("accounts"), objects, "{name}: something was written");
                if args[0] == "show" {
                    snapshot!(name.clone(), run);
                }
            }
        }
    }
}

fn newest_metadata(lab: &Lab, format: &str) -> std::path::PathBuf {
    let folder = lab.path("accounts").join(if format == "delta" {
        "_delta_log"
    } else {
        "metadata"
    });
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    found.sort();
    found.pop().unwrap()
}

#[test]
fn a_missing_data_file_is_named() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        for file in lab
            .objects("accounts")
            .iter()
            .filter(|path| path.ends_with(".parquet"))
        {
            fs::remove_file(file).unwrap();
        }
        let run = lab.lake(&["query", "SELECT sum(balance) FROM 'accounts'"]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.text());
        assert!(run.stderr.contains(".parquet"), "{}", run.text());
    }
}

#[test]
fn a_path_through_a_file_is_refused() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        let run = lab.lake(&[
            "create",
            "accounts.csv/t",
            "--format",
            format,
            "--schema",
            "id bigint",
        ]);
        expect_error("through a file", &run);
        snapshot!(format!("path_through_a_file_{format}"), run);
    }
}

/// A mount of its own needs rights that not every machine gives.
fn can_mount(lab: &Lab) -> bool {
    let able = lab
        .run(lab.shell("mkdir -p probe && unshare -rm sh -c 'mount -t tmpfs -o size=64k tmpfs probe'"))
        .code
        == 0;
    if !able {
        eprintln!("skipped: this machine does not let tests mount file systems (unshare -rm, mount)");
    }
    able
}

#[test]
fn a_full_disk_stops_a_write_and_leaves_the_table_alone() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        if !can_mount(&lab) {
            return;
        }
        let big = "SELECT value AS id, md5(CAST(value AS STRING)) AS name FROM generate_series(1, 200000)";
        lab.ok(&["query", big, "-o", "big.parquet"]);
        // The table lives on a disk of one megabyte while the script runs.
        lab.write(
            "full.sh",
            "mkdir -p disk && mount -t tmpfs -o size=1m tmpfs disk || exit 9\n\
             $LAKE append disk/t accounts.csv --create --format $1 > /dev/null\n\
             state() { $LAKE query \"SELECT * FROM 'disk/t' ORDER BY id\" --json; find disk/t -type f | sort; }\n\
             state > before\n\
             $LAKE append disk/t big.parquet; echo code $?\n\
             state > after\n\
             $LAKE delete disk/t --where 'id = 1' > /dev/null; echo then $?\n",
        );
        let run = lab.run(lab.shell(&format!("unshare -rm sh full.sh {format}")));
        assert!(run.stdout.contains("code 1\n"), "{format}: {}", run.text());
        assert!(run.stderr.contains("No space left"), "{}", run.text());
        assert!(run.stderr.contains("hint: free some space"), "{}", run.text());
        let read = |name: &str| fs::read_to_string(lab.path(name)).unwrap();
        assert!(read("before").contains("Ann"), "{}", run.text());
        assert_eq!(
            read("before"),
            read("after"),
            "{format}: the table changed, or staged files were left behind"
        );
        assert!(
            run.stdout.contains("then 0\n"),
            "{format}: small writes work again: {}",
            run.text()
        );
    }
}

#[test]
fn a_read_only_disk_is_named_and_still_read() {
    for format in FORMATS {
        let lab = Lab::accounts(format);
        if !can_mount(&lab) {
            return;
        }
        let run = lab.run(lab.shell(
            "unshare -rm sh -c 'mount --bind accounts accounts && mount -o remount,ro,bind accounts && \
             $LAKE append accounts accounts.csv; echo code $?; $LAKE show accounts > /dev/null; echo then $?'",
        ));
        assert!(
            run.stdout.contains("code 1\n") && run.stdout.contains("then 0\n"),
            "{format}: {}",
            run.text()
        );
        assert!(
            run.stderr.contains("hint: the file system is mounted read-only"),
            "{format}: {}",
            run.text()
        );
    }
}

#[test]
fn a_full_output_device_is_an_error() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: this machine has no /dev/full");
        return;
    }
    let lab = Lab::new();
    let run = lab.lake(&["query", "SELECT 1 AS a", "--output", "csv", "-o", "/dev/full"]);
    assert_eq!(run.code, 1, "{}", run.text());
    assert!(run.stderr.contains("hint: free some space"), "{}", run.text());
}
