//! `lake demo` on a part of its data: three days of every month.

use std::path::Path;

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionContext};

use super::lab::Lab;

/// Copies the rows of three days of every month.
async fn small_fixtures(lab: &Lab) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/flights");
    std::fs::create_dir(lab.path("flights")).unwrap();
    let context = SessionContext::new();
    let mut names: Vec<_> = (1..=12)
        .map(|month| format!("actuals-2013-{month:02}.parquet"))
        .collect();
    names.push("schedule.parquet".into());
    for name in names {
        let path = source.join(&name).display().to_string();
        context
            .register_parquet("f", path, ParquetReadOptions::default())
            .await
            .unwrap();
        let target = lab.path("flights").join(&name).display().to_string();
        context
            .sql("SELECT * FROM f WHERE date_part('day', time_hour) BETWEEN 10 AND 12")
            .await
            .unwrap()
            .write_parquet(
                &target,
                DataFrameWriteOptions::new().with_single_file_output(true),
                None,
            )
            .await
            .unwrap();
        context.deregister_table("f").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_tables_equal_to_the_source() {
    let lab = Lab::new();
    small_fixtures(&lab).await;
    let run = lab.ok(&["demo", "--fixtures", "flights", "--dir", "tables", "--json"]);
    let story = run.json();
    for (index, format) in ["iceberg", "delta"].into_iter().enumerate() {
        let story = &story["formats"][index];
        assert_eq!(
            (&story["format"], &story["equal"]),
            (&format.into(), &true.into())
        );
        let steps: Vec<_> = story["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["step"].as_str().unwrap())
            .collect();
        assert_eq!(steps.len(), 1 + 12 + 1 + 2 + 1, "{steps:?}");
        assert_eq!(
            lab.rows(&format!("SELECT count(*) FROM 'tables/{format}'"))[0][0],
            story["rows"]
        );
    }
    // As people see it, in a folder that goes away.
    let run = lab.ok(&["demo", "--fixtures", "flights", "--format", "delta"]);
    assert!(run.stdout.contains("│ merge December"), "{}", run.text());
    assert!(
        run.stdout.contains("all done in") && run.stdout.contains("1 of 1 tables equal the source"),
        "{}",
        run.text()
    );
}

#[test]
fn the_demo_without_its_data_says_where_they_are() {
    let lab = Lab::new();
    let run = lab.lake(&["demo"]);
    assert_eq!(run.code, 1, "{}", run.text());
    assert!(
        run.stderr
            .contains("hint: run lake demo in a clone of the repository"),
        "{}",
        run.text()
    );
}
