//! The README's Rust example is the code that runs here. Its shell and Python examples are run by
//! `tests/test_readme.py`.

mod features;

use lakehouse_core::model::{At, Definition};
use lakehouse_core::scan::{parse_columns, session};
use lakehouse_core::{Merge, Options, Result, Rows, Table, TableFormat};

async fn example(location: String, feed: std::path::PathBuf) -> Result<usize> {
    // README
    let table = Table::open(&location).await?;
    let merge = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let report = table
        .merge(Rows::file(&feed, None)?, &merge, &Options::default())
        .await?;
    println!(
        "version {}: {} rows inserted",
        report.version,
        report.metric("num_target_rows_inserted")
    );
    let rows = session(None)
        .read_table(table.provider(&At::Latest).await?)?
        .count()
        .await?;
    // README
    assert!(report.committed);
    Ok(rows)
}

#[tokio::test]
async fn rust_example_of_the_readme_merges_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("t").display().to_string();
    let definition = Definition {
        schema: parse_columns("id bigint not null, name string").unwrap(),
        partition_fields: vec![],
        properties: Default::default(),
        format_version: None,
    };
    Table::create(&location, TableFormat::Iceberg, &definition)
        .await
        .unwrap();
    let feed = folder.path().join("feed.csv");
    std::fs::write(&feed, "id,name\n1,Ada\n2,Grace\n").unwrap();
    assert_eq!(example(location, feed).await.unwrap(), 2);
}

#[test]
fn rust_example_of_the_readme_is_the_one_that_runs() {
    let readme = include_str!("../../../README.md");
    let shown = readme
        .split("```rust\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let run = include_str!("mod.rs").split("// README\n").nth(1).unwrap();
    // Line breaks and the commas before them are the formatter's.
    let code = |text: &str| {
        text.replace(|c: char| c.is_whitespace() || c == '/', "")
            .replace(",)", ")")
    };
    assert_eq!(code(shown), code(run));
}
