//! Sound tables are clean.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lakehouse_core::model::Code;
use lakehouse_core::operations::check::Check;
use lakehouse_core::store::sim::{Counts, faulty};
use lakehouse_core::{Error, Table, TableFormat};

use super::{checked, wrong};
use crate::support::memory;
use crate::verbs::{FORMATS, append, table_in};

/// Every table below the folders of fixtures that other engines wrote.
fn tables() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut tables: Vec<PathBuf> = ["foreign", "spark"]
        .iter()
        .flat_map(|engine| std::fs::read_dir(fixtures.join(engine)).unwrap())
        .map(|entry| entry.unwrap().path().join("table"))
        .filter(|path| path.is_dir())
        .collect();
    tables.sort();
    tables
}

/// What the writers of some of the tables did, which is found every time: their totals are not those of their files.
const WRONG_TOTALS: [&str; 2] = ["duckdb_iceberg_v3_dv", "iceberg_imported"];
/// Tables of which some version is not read at all (docs/formats.md), or only with places that the user allows.
const NOT_READ: [&str; 5] = [
    "delta_shallow_clone",
    "delta_variant",
    "iceberg_avro",
    "iceberg_orc",
    "iceberg_variant",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_other_engines_are_clean_at_every_version() {
    let mut unexpected = Vec::new();
    for path in tables() {
        let name = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let table = Table::open(path.to_str().unwrap()).await.unwrap();
        let check = Check {
            all_versions: true,
            deep: true,
            ..Check::default()
        };
        let checked = match table.check(&check).await {
            Ok(checked) => checked,
            Err(Error::Unsupported { .. } | Error::Denied { .. }) if NOT_READ.contains(&name) => continue,
            Err(error) => {
                unexpected.push(format!("{name}: {error}"));
                continue;
            }
        };
        let codes: BTreeSet<Code> = wrong(&checked).iter().map(|finding| finding.code).collect();
        let expected = match name {
            name if WRONG_TOTALS.contains(&name) => BTreeSet::from([Code::SummaryTotal]),
            _ => BTreeSet::new(),
        };
        if codes != expected {
            unexpected.push(format!("{name}: {:#?}", wrong(&checked)));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn the_documentation_lists_every_code_with_its_severity_and_meaning() {
    let documented: Vec<&str> = include_str!("../../../../docs/check.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let known: Vec<String> = Code::ALL
        .iter()
        .map(|code| {
            format!(
                "| `{}` | {} | {} |",
                code.name(),
                code.severity().name(),
                code.meaning()
            )
        })
        .collect();
    assert_eq!(documented, known);
}

/// What a check asks of a store whose table has so many files, and so many other objects beside them.
async fn requests(format: (TableFormat, Option<u8>), files: usize, others: usize, deep: bool) -> Counts {
    let (store, faults) = faulty(&memory("requests"));
    let table = table_in(store.clone(), format, "region").await;
    let values: Vec<String> = (0..files).map(|at| format!("({at}, 'r{at:05}', {at})")).collect();
    append(&table, &values.join(", ")).await;
    for at in 0..others {
        store.put(&format!("data/other-{at}"), "x".into()).await.unwrap();
        store.put(&format!("other-{at}"), "x".into()).await.unwrap();
    }
    faults.reset();
    assert!(checked(&store, deep).await.is_clean());
    faults.counts()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_looked_up_by_one_listing_or_one_by_one_whichever_is_fewer_requests() {
    for format in FORMATS {
        let one = requests(format, 1, 0, false).await;
        let few = requests(format, 5, 0, false).await;
        let many = requests(format, 50, 0, false).await;
        assert_eq!(
            (few.list, few.head),
            (many.list, many.head),
            "{format:?}: a listing, however many files"
        );
        // A footer of each file, and what is read of the metadata.
        assert_eq!(many.get - few.get, 45, "{format:?}: {few:?} {many:?}");
        assert!(
            one.list <= few.list && one.head <= few.head + 1,
            "{format:?}: {one:?}"
        );
        // Beyond a thousand times as many other objects, the listing is given up.
        let lost = requests(format, 2, 5000, false).await;
        assert_eq!(lost.list, few.list, "{format:?}: {lost:?}");
        assert!(
            lost.head > few.head && lost.head <= few.head + 8,
            "{format:?}: {few:?} {lost:?}"
        );
        // Reading all takes more, in proportion to the files.
        let deep = requests(format, 50, 0, true).await;
        assert!(
            deep.get > many.get && deep.get <= many.get + 50 * 4 + 10,
            "{format:?}: {many:?} {deep:?}"
        );
        assert_eq!(
            (deep.put, deep.create, deep.delete),
            (0, 0, 0),
            "{format:?}: nothing is written"
        );
    }
}
