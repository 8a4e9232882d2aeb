//! What `lake check` and `lake show --health` say, and their exit codes.

use std::fs;

use super::lab::{Lab, snapshot};

/// The data files of the table.
fn data_files(lab: &Lab) -> Vec<String> {
    let objects = lab.objects("accounts").into_iter();
    objects
        .filter(|path| path.ends_with(".parquet") && !path.contains("checkpoint"))
        .collect()
}

#[test]
fn a_sound_table_is_clean_and_a_damaged_one_is_exit_code_one() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::accounts(format);
        for options in [
            &[][..],
            &["--deep"],
            &["--all-versions", "--deep"],
            &["--version", "-1"],
        ] {
            let run = lab.ok(&[&["check", "accounts"], options].concat());
            assert!(run.text().contains("clean"), "{options:?}: {}", run.text());
        }
        let report = lab.ok(&["check", "accounts", "--deep", "--json"]).json();
        assert_eq!(
            (report["clean"].as_bool(), report["files"].as_u64()),
            (Some(true), Some(2))
        );
        fs::remove_file(&data_files(&lab)[0]).unwrap();
        let run = lab.lake(&["check", "accounts"]);
        assert_eq!(run.code, 1);
        assert!(
            run.text().contains("file-missing") && run.text().contains("errors: 1"),
            "{}",
            run.text()
        );
        assert!(
            !run.text().contains("error: "),
            "the findings say it all: {}",
            run.text()
        );
        let run = lab.lake(&["check", "accounts", "--json"]);
        assert_eq!(run.code, 1);
        let finding = &run.json()["findings"][0];
        assert_eq!(
            (finding["code"].as_str(), finding["severity"].as_str()),
            (Some("file-missing"), Some("error"))
        );
        let before = lab.lake(&["check", "accounts", "--version", "99"]);
        assert_eq!(before.code, 1);
        assert!(
            before.text().contains("error: version 99 not found"),
            "{}",
            before.text()
        );
    }
    snapshot!("check_help", Lab::new().ok(&["check", "--help"]));
}

#[test]
fn a_warning_is_no_error() {
    let lab = Lab::accounts("iceberg");
    fs::remove_file(lab.path("accounts/metadata/version-hint.text")).unwrap();
    let run = lab.ok(&["check", "accounts"]);
    assert!(
        run.text().contains("errors: 0, warnings: 1, notes: 0"),
        "{}",
        run.text()
    );
}

#[test]
fn health_is_told_as_text_as_json_and_as_a_page() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::accounts(format);
        lab.ok(&[
            "delete",
            "accounts",
            "--where",
            "id = 1",
            "--strategy",
            "merge-on-read",
        ]);
        let text = lab.ok(&["show", "accounts", "--health"]).text();
        for wanted in [
            "small files",
            "masked rows",
            "1 of 4 (25.0 %)",
            "bucket(2, id) = 0",
            "read to plan a scan",
            "1 delete",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let figures = lab.ok(&["show", "accounts", "--health", "--json"]).json();
        assert_eq!(figures["files"]["files"], 2);
        assert_eq!(figures["files"]["masked_rows"], 1);
        assert_eq!(figures["partitions"].as_array().unwrap().len(), 2);
        let of_sizes = figures["sizes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|size| size["files"].as_u64().unwrap());
        assert_eq!(of_sizes.sum::<u64>(), 2);
        assert_eq!(figures["to_compact"]["files"], 1, "the one with a masked row");
        let compacted = lab.ok(&["compact", "accounts", "--json"]).json();
        assert_eq!(
            compacted["metrics"]["num_target_files_removed"],
            figures["to_compact"]["files"]
        );
        lab.ok(&["show", "accounts", "--health", "--html", "page.html"]);
        let page = fs::read_to_string(lab.path("page.html")).unwrap();
        assert!(
            page.starts_with("<!DOCTYPE html>") && page.contains("<svg"),
            "{page}"
        );
        assert_eq!(lab.lake(&["show", "accounts", "--html", "page.html"]).code, 2);
    }
}
