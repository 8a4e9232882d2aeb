//! Two versions side by side, as people and machines see them.

use super::lab::{Lab, snapshot};

/// Accounts of which one was changed, one deleted and one added, with a column more, in three commits.
fn changed(format: &str) -> Lab {
    let lab = Lab::accounts(format);
    lab.write(
        "feed.csv",
        "id,name,balance,opened,tip\n2,Bob,7.5,2024-01-02,1\n5,Eve,1,2024-05-01,2\n",
    );
    let merge = [
        "merge",
        "accounts",
        "feed.csv",
        "--on",
        "id",
        "--schema-mode",
        "merge",
    ];
    lab.ok(&merge);
    lab.ok(&["delete", "accounts", "--where", "id = 3"]);
    lab
}

#[test]
fn a_difference_is_summed_up_counted_and_printed() {
    for format in ["iceberg", "delta"] {
        let lab = changed(format);
        let name = |what: &str| format!("diff_{what}_{format}");
        let from = ["diff", "accounts", "--from", "-2"];
        let with = |more: &[&str]| lab.ok(&[&from[..], more].concat());
        snapshot!(name("summary"), with(&[]));
        snapshot!(name("count"), with(&["--count", "--on", "id"]));
        snapshot!(name("rows"), with(&["--rows", "--on", "id"]));
        snapshot!(name("json"), with(&["--json"]));
        snapshot!(name("count_json"), with(&["--json", "--count", "--on", "id"]));
        snapshot!(name("rows_csv"), with(&["--rows", "--output", "csv"]));
        let rows = with(&["--rows", "--on", "id", "--limit", "2", "--json"]).json();
        assert_eq!(
            rows["columns"].as_array().unwrap().last().unwrap(),
            "_change_type"
        );
        assert_eq!(rows["rows"].as_array().unwrap().len(), 2);
        snapshot!(name("file"), with(&["--rows", "-o", "changes.parquet"]));
        let found = lab.rows("SELECT _change_type, count(*) FROM 'changes.parquet' GROUP BY 1 ORDER BY 1");
        assert_eq!(found, serde_json::json!([["delete", 2], ["insert", 2]]));
        let back = lab
            .ok(&[
                "diff", "accounts", "--from", "-1", "--to", "-2", "--count", "--json",
            ])
            .json();
        assert_eq!(back["columns"][0]["change"], "dropped");
    }
}

#[test]
fn versions_are_named_by_number_time_tag_and_branch() {
    let lab = Lab::accounts("iceberg");
    lab.ok(&["tag", "accounts", "v1"]);
    lab.ok(&["branch", "accounts", "audit"]);
    lab.ok(&["delete", "accounts", "--where", "id = 1", "--branch", "audit"]);
    lab.ok(&["delete", "accounts", "--where", "id = 2"]);
    let count = |args: &[&str]| {
        let found = lab
            .ok(&[&["diff", "accounts", "--count", "--json"], args].concat())
            .json();
        (found["rows"]["added"].clone(), found["rows"]["removed"].clone())
    };
    for args in [
        &["--from", "v1"][..],
        &["--from", "-1"],
        &["--from", "v1", "--to", "main"],
        &["--from", "v1", "--to-as-of", "2999-01-01"],
    ] {
        assert_eq!(count(args), (0.into(), 1.into()), "{args:?}");
    }
    assert_eq!(count(&["--from", "main", "--to", "audit"]), (1.into(), 1.into()));
    assert_eq!(count(&["--from-as-of", "2999-01-01"]), (0.into(), 0.into()));
    assert_eq!(count(&["--from", "0", "--to", "v1"]), (4.into(), 0.into()));
}

#[test]
fn the_exit_code_tells_of_a_difference_where_it_is_asked_for() {
    for format in ["iceberg", "delta"] {
        let lab = changed(format);
        let code = |args: &[&str]| {
            let run = lab.lake(&[&["diff", "accounts", "--from"], args].concat());
            assert!(run.stderr.is_empty(), "{}", run.text());
            run.code
        };
        assert_eq!(code(&["-1"]), 0);
        assert_eq!(code(&["-1", "--exit-code"]), 5);
        assert_eq!(code(&["-1", "--exit-code", "--count"]), 5);
        assert_eq!(code(&["-1", "--exit-code", "--rows"]), 5);
        lab.ok(&["append", "accounts", "accounts.csv"]);
        lab.ok(&["compact", "accounts"]);
        assert_eq!(code(&["-1", "--exit-code"]), 5, "files are different");
        assert_eq!(code(&["-1", "--exit-code", "--count"]), 0, "rows are not");
        assert_eq!(code(&["-1", "--exit-code", "--rows"]), 0);
        snapshot!(
            format!("diff_compacted_{format}"),
            lab.ok(&["diff", "accounts", "--from", "-1", "--count"])
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let lab = Lab::accounts("iceberg");
    for (usage, expected) in [
        (&["diff", "accounts"][..], "--from"),
        (
            &["diff", "accounts", "--from", "-1", "--from-as-of", "2024-01-01"],
            "cannot be used with",
        ),
        (&["diff", "accounts", "--from", "-1", "--on", "id"], "--count"),
        (
            &["diff", "accounts", "--from", "-1", "--count", "--rows"],
            "cannot be used with",
        ),
        (&["diff", "accounts", "--from", "-1", "--limit", "3"], "--rows"),
        (
            &["diff", "accounts", "--from", "-1", "--rows", "-o", "x.doc"],
            "does not tell the form",
        ),
        (
            &[
                "diff", "accounts", "--from", "-1", "--rows", "--json", "--output", "csv",
            ],
            "cannot be used with",
        ),
    ] {
        let run = lab.lake(usage);
        assert_eq!(run.code, 2, "{usage:?}: {}", run.text());
        assert!(run.text().contains(expected), "{usage:?}: {}", run.text());
    }
    for (args, expected) in [
        (&["--from", "nosuch"][..], "nosuch"),
        (&["--from", "-1", "--to", "123"], "version 123"),
        (&["--from", "-9"], "version -9"),
        (&["--from-as-of", "1970-01-02"], "before"),
        (&["--from", "-1", "--count", "--on", "Id"], "did you mean id?"),
        (
            &["--from", "-1", "--rows", "--on", "id > 1"],
            "is not a list of columns",
        ),
    ] {
        let run = lab.lake(&[&["diff", "accounts"], args].concat());
        assert_eq!(run.code, 1, "{args:?}: {}", run.text());
        assert!(run.stderr.contains(expected), "{args:?}: {}", run.text());
    }
}
