//! What is kept of a table's past, as people see it.

use super::lab::{Lab, snapshot};

#[test]
fn versions_expire_by_number_and_age() {
    for format in ["iceberg", "delta"] {
        let lab = Lab::accounts(format);
        for id in [1, 2, 3] {
            lab.ok(&["delete", "accounts", "--where", &format!("id = {id}")]);
        }
        let dry = [
            "expire",
            "accounts",
            "--older-than",
            "0d",
            "--retain-last",
            "2",
            "--dry-run",
        ];
        snapshot!(format!("expire_dry_run_{format}"), lab.ok(&dry));
        let said = lab.ok(&[&dry[..], &["--json"]].concat()).json();
        let run = lab.ok(&[&dry[..6], &["--json"]].concat()).json();
        assert_eq!(run["operation"], "expire");
        match format {
            "iceberg" => {
                assert_eq!(run["expired"].as_array().unwrap().len(), 2, "{run}");
                assert_eq!(run["kept"], 2);
                assert_eq!(run["expired"], said["expired"]);
                assert_eq!(run["files_too_young"], 0, "{run}");
            }
            // Names of versions are not freed within two days.
            _ => {
                assert_eq!(run["expired"].as_array().unwrap().len(), 0, "{run}");
                assert_eq!(run["too_young"], 3, "{run}");
            }
        }
        assert_eq!(lab.rows("SELECT count(*) FROM 'accounts'")[0][0], 1);
        for usage in [
            ["expire", "accounts", "--older-than", "soon"].as_slice(),
            &["expire", "accounts", "--retain-last", "0"],
            &["checkpoint", "accounts", "--format", "v3"],
        ] {
            let run = lab.lake(usage);
            assert_eq!(run.code, 2, "{usage:?}: {}", run.text());
        }
    }
}

#[test]
fn checkpoints_and_manifests_are_written_where_the_format_has_them() {
    let delta = Lab::accounts("delta");
    let done = delta.ok(&["checkpoint", "accounts", "--json"]).json();
    assert_eq!(done["already"], false, "{done}");
    assert_eq!(done["files"].as_array().unwrap().len(), 1);
    assert_eq!(
        delta.ok(&["checkpoint", "accounts", "--json"]).json()["already"],
        true
    );
    snapshot!(
        "checkpoint_v2_refused",
        delta.lake(&["checkpoint", "accounts", "--format", "v2"])
    );
    snapshot!(
        "rewrite_manifests_delta",
        delta.lake(&["rewrite-manifests", "accounts"])
    );
    let iceberg = Lab::accounts("iceberg");
    snapshot!("checkpoint_iceberg", iceberg.lake(&["checkpoint", "accounts"]));
    iceberg.ok(&["append", "accounts", "accounts.csv"]);
    let done = iceberg.ok(&["rewrite-manifests", "accounts", "--json"]).json();
    assert_eq!(done["committed"], true, "{done}");
    assert_eq!(done["manifests_created"], 1);
    snapshot!(
        "rewrite_manifests_again",
        iceberg.ok(&["rewrite-manifests", "accounts"])
    );
}
