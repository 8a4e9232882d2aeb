//! `lake create --from-parquet`.

use std::fs;

use serde_json::json;

use super::lab::Lab;

/// `sales/month=2024-0N/region=../part.parquet`, as `lake query` writes Parquet.
fn sales() -> Lab {
    let lab = Lab::new();
    for (month, region, from) in [
        (1, "eu", 0),
        (1, "us%2Fwest", 10),
        (2, "__HIVE_DEFAULT_PARTITION__", 20),
    ] {
        let folder = format!("sales/month=2024-0{month}-01/region={region}");
        fs::create_dir_all(lab.path(&folder)).unwrap();
        let sql = format!(
            "SELECT value AS id, 'n' || value AS name FROM generate_series({from}, {})",
            from + 9
        );
        lab.ok(&["query", &sql, "-o", &format!("{folder}/part.parquet")]);
    }
    lab.write("sales/_SUCCESS", "");
    lab
}

#[test]
fn files_that_a_table_was_made_of_are_told_of_by_a_vacuum_and_go_when_it_is_asked_to() {
    for format in ["iceberg", "delta"] {
        let lab = sales();
        lab.ok(&["create", "sales", "--from-parquet", "--format", format]);
        let late = "sales/month=2024-01-01/region=eu/late.parquet";
        lab.ok(&["query", "SELECT 1 AS id, 'n' AS name", "-o", late]);
        let now = ["vacuum", "sales", "--older-than", "0d", "--unsafe-no-writers"];
        let plain = lab.ok(&now);
        assert!(
            plain.stdout.contains("1 file, ") && plain.stdout.contains("--adopted"),
            "{}",
            plain.text()
        );
        let told = lab.ok(&[&now[..], &["--json"]].concat()).json();
        assert_eq!(
            (&told["adopted"]["count"], &told["removed"]["count"]),
            (&json!(1), &json!(0)),
            "{told}"
        );
        assert!(lab.path(late).exists());
        let done = lab.ok(&[&now[..], &["--adopted", "--json"]].concat()).json();
        assert_eq!(
            (&done["adopted"]["count"], &done["removed"]["count"]),
            (&json!(0), &json!(1)),
            "{done}"
        );
        assert!(!lab.path(late).exists());
        assert_eq!(lab.rows("SELECT count(*) FROM 'sales'")[0][0], 30);
    }
}

#[test]
fn files_become_a_table_after_a_dry_run_that_says_so() {
    for format in ["iceberg", "delta"] {
        let lab = sales();
        let files = lab.objects("sales");
        let dry = lab.ok(&[
            "create",
            "sales",
            "--from-parquet",
            "--format",
            format,
            "--dry-run",
        ]);
        assert!(
            dry.stdout
                .contains(&format!("dry run: would create {format} table sales")),
            "{}",
            dry.text()
        );
        assert!(
            dry.stdout.contains("partitioning  month, region"),
            "{}",
            dry.text()
        );
        assert_eq!(lab.objects("sales"), files, "nothing was made");

        let made = lab
            .ok(&["create", "sales", "--from-parquet", "--format", format, "--json"])
            .json();
        assert_eq!(made["committed"], true);
        assert_eq!(
            (&made["files"], &made["rows"], &made["skipped_files"]),
            (&json!(3), &json!(30), &json!(1))
        );
        assert_eq!(made["partitioning"], json!(["month", "region"]));
        assert_eq!(
            made["schema"][2],
            json!({"name": "month", "type": "Date32", "nullable": true})
        );
        let sql = "SELECT region, count(*) AS n, max(id) AS id FROM 'sales' WHERE month < '2024-02-01' GROUP BY region ORDER BY region";
        assert_eq!(lab.rows(sql), json!([["eu", 10, 9], ["us/west", 10, 19]]));
        lab.ok(&["delete", "sales", "--where", "region IS NULL AND id > 25"]);
        assert_eq!(lab.rows("SELECT count(*) FROM 'sales'"), json!([[26]]));

        let again = lab.lake(&["create", "sales", "--from-parquet"]);
        assert_eq!(again.code, 1);
        assert!(again.stderr.contains("already exists"), "{}", again.text());
    }
}

#[test]
fn a_folder_inside_is_taken_and_one_elsewhere_is_not() {
    let lab = sales();
    lab.ok(&[
        "create",
        "sales",
        "--from-parquet",
        "sales/month=2024-01-01",
        "--schema",
        "month string, id bigint not null",
        "--idempotency-key",
        "once",
    ]);
    let sql = "SELECT DISTINCT month, count(*) FROM 'sales' GROUP BY month";
    assert_eq!(lab.rows(sql), json!([["2024-01-01", 20]]));
    let again = lab.ok(&["create", "sales", "--from-parquet", "--idempotency-key", "once"]);
    assert!(again.stdout.contains("nothing was done"), "{}", again.text());

    let run = lab.lake(&["create", "other", "--from-parquet", "sales"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("not inside of") && run.stderr.contains("lake append"),
        "{}",
        run.text()
    );
    let run = lab.lake(&[
        "create",
        "sales/month=2024-02-01",
        "--from-parquet",
        "--schema-from",
        "x",
    ]);
    assert_eq!(run.code, 2, "{}", run.text());
    lab.write("sales/month=2024-02-01/readme.txt", "x");
    let run = lab.lake(&["create", "sales/month=2024-02-01", "--from-parquet"]);
    assert!(
        run.stderr.contains("readme.txt") && run.stderr.contains("hint: move it"),
        "{}",
        run.text()
    );
}
