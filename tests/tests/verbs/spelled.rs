//! CSV and JSON lines whose names are the table's but for their case: values have the table's types all the same.

use std::collections::BTreeMap;

use lakehouse_core::model::Definition;
use lakehouse_core::operations::SchemaMode;
use lakehouse_core::scan::parse_columns;
use lakehouse_core::{Error, Options, Rows, Table, TableFormat};

use super::{FORMATS, content};
use crate::support::memory;

const COLUMNS: &str =
    "id bigint not null, zip string, price decimal(20, 4), s struct<zip string, price decimal(20, 4)>";

async fn table(format: (TableFormat, Option<u8>)) -> Table {
    let definition = Definition {
        schema: parse_columns(COLUMNS).unwrap(),
        partition_fields: Vec::new(),
        properties: BTreeMap::new(),
        format_version: format.1,
    };
    Table::create_in(memory("spelled"), format.0, &definition)
        .await
        .unwrap()
}

fn written(folder: &tempfile::TempDir, name: &str, text: &str) -> Rows {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    Rows::file(&path, None).unwrap()
}

/// Values that an inferred type would change: a text that looks like a number, more digits than a double has.
const CSV: &str = "id,zip,price\n1,00123,1234567890123456.7891\n2,1e3,0.1000\n";
const LINES: &str = concat!(
    r#"{"id": 1, "zip": "00123", "price": 1234567890123456.7891, "s": {"zip": 1.10, "price": 1234567890123456.7891}}"#,
    "\n",
    r#"{"id": 2, "zip": 1e3, "price": 0.1000, "s": {"zip": 7}}"#,
    "\n",
);

#[tokio::test]
async fn values_are_the_same_whatever_the_case_of_their_columns_names() {
    let folder = tempfile::tempdir().unwrap();
    let spelled = |text: &str| {
        text.replace("zip", "Zip")
            .replace("price", "PRICE")
            .replace("\"s\"", "\"S\"")
    };
    for format in FORMATS {
        for (name, text) in [("rows.csv", CSV), ("rows.ndjson", LINES)] {
            for mode in [SchemaMode::Strict, SchemaMode::Merge] {
                let what = format!("{format:?}, {name}, {mode:?}");
                let options = || Options::default().schema_mode(mode);
                let expected = table(format).await;
                expected
                    .append(written(&folder, name, text), &options())
                    .await
                    .unwrap();
                let expected = content(&expected).await;
                assert!(
                    expected[0].starts_with("1|00123|1234567890123456.7891|"),
                    "{what}: {expected:?}"
                );
                let other = spelled(text);
                assert_ne!(other, text);
                let one = table(format).await;
                one.append(written(&folder, name, &other), &options())
                    .await
                    .unwrap();
                assert_eq!(content(&one).await, expected, "{what}");
                // Beside a file with the table's own names.
                let several = table(format).await;
                let inputs = [("1", text), ("2", &other)]
                    .map(|(number, text)| written(&folder, &format!("{number}{name}"), text));
                for input in inputs {
                    several
                        .append(Rows::several(vec![input]), &options())
                        .await
                        .unwrap();
                }
                let twice: Vec<String> = expected
                    .iter()
                    .flat_map(|row| [row.clone(), row.clone()])
                    .collect();
                assert_eq!(content(&several).await, twice, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn two_columns_that_differ_in_case_only_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let table = table(format).await;
        let input = written(&folder, "rows.csv", "id,Zip,ZIP\n1,a,b\n");
        let refused = table.append(input, &Options::default()).await.unwrap_err();
        assert!(matches!(refused, Error::Invalid { .. }), "{refused:?}");
        assert!(
            refused.to_string().contains("could be 'Zip' or 'ZIP'"),
            "{format:?}: {refused}"
        );
        // One that is spelled as the table's is the table's, the other one is none of it.
        let input = written(&folder, "rows.csv", "id,Zip,zip\n1,a,b\n");
        let refused = table.append(input, &Options::default()).await.unwrap_err();
        assert!(
            refused.to_string().contains("column 'Zip' is not in the table"),
            "{format:?}: {refused}"
        );
    }
}
