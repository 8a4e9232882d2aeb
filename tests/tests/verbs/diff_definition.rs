//! How the table was defined when each of two versions was committed, which Iceberg keeps in older metadata files only.

use std::collections::BTreeMap;

use lakehouse_core::model::{At, Snapshot};
use lakehouse_core::operations::diff::{Altered, Diff};
use lakehouse_core::store::Store;
use lakehouse_core::{Alter, Options, Table, TableFormat};

use super::{FORMATS, append, table_in};
use crate::support::memory;

/// What a version says of its table.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    partitioning: Vec<String>,
    sort_order: Vec<String>,
    features: Vec<String>,
    properties: BTreeMap<String, String>,
}

fn told(snapshot: &Snapshot) -> Told {
    Told {
        partitioning: snapshot
            .partition_fields()
            .iter()
            .map(|field| field.term())
            .collect(),
        sort_order: snapshot.sort_order.iter().map(ToString::to_string).collect(),
        features: snapshot.features.clone(),
        properties: snapshot.properties.clone(),
    }
}

fn sides<T: PartialEq + Clone>(from: &T, to: &T) -> Option<Altered<T>> {
    (from != to).then(|| Altered {
        from: from.clone(),
        to: to.clone(),
    })
}

fn assert_told(diff: &Diff, from: &Told, to: &Told, what: &str) {
    let found = &diff.definition;
    assert_eq!(found.unknown, [0i64; 0], "{what}");
    assert_eq!(
        found.partitioning,
        sides(&from.partitioning, &to.partitioning),
        "{what}"
    );
    assert_eq!(
        found.sort_order,
        sides(&from.sort_order, &to.sort_order),
        "{what}"
    );
    assert_eq!(found.features, sides(&from.features, &to.features), "{what}");
    let keys = from.properties.keys().chain(to.properties.keys());
    let expected: BTreeMap<_, _> = keys
        .filter_map(|key| {
            let both = sides(
                &from.properties.get(key).cloned(),
                &to.properties.get(key).cloned(),
            );
            Some((key.clone(), both?))
        })
        .collect();
    assert_eq!(found.properties, expected, "{what}");
}

async fn alter(table: &Table, change: Alter) {
    assert!(table.alter(&change, &Options::default()).await.unwrap().committed);
}

/// A table that is altered between its commits, and what each version said when it was the newest.
async fn altered(
    store: &Store,
    format: (TableFormat, Option<u8>),
    properties: &[(&str, &str)],
) -> (Table, Vec<(i64, Told)>) {
    let table = table_in(store.clone(), format, "").await;
    let created = table.snapshot(&At::Latest).await.unwrap();
    let mut versions = vec![(created.version, told(&created))];
    let iceberg = format.0 == TableFormat::Iceberg;
    for (key, value) in properties {
        alter(&table, Alter::default().property(key, Some(value))).await;
    }
    for round in 0..6 {
        append(&table, &format!("({round}, 'eu', {round})")).await;
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        versions.push((snapshot.version, told(&snapshot)));
        let owner = format!("team {round}");
        // More than one change between two versions, so that the metadata file before a version is not the version before.
        alter(&table, Alter::default().property("owner", Some(&owner))).await;
        match round {
            0 if iceberg => alter(&table, Alter::default().partition_by("bucket(4, id)").unwrap()).await,
            1 if iceberg => alter(&table, Alter::default().sort_by("n desc").unwrap()).await,
            2 if format.1 == Some(2) => alter(&table, Alter::default().format_version(3)).await,
            3 if iceberg => alter(&table, Alter::default().partition_by("").unwrap()).await,
            4 => alter(&table, Alter::default().property("owner", None)).await,
            _ => {}
        }
    }
    // Of the newest version is told what it is today.
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    if let Some(last) = versions.last_mut() {
        *last = (snapshot.version, told(&snapshot));
    }
    (table, versions)
}

#[tokio::test]
async fn any_two_versions_differ_in_what_each_of_them_said_when_it_was_committed() {
    for format in FORMATS {
        // The log of the metadata may be short: each file of it has one of its own.
        for short in [false, true] {
            let properties = [("write.metadata.previous-versions-max", "2")];
            let properties = if short { &properties[..] } else { &[] };
            let (table, versions) = altered(&memory("diff-definition"), format, properties).await;
            for (from, old) in &versions {
                for (to, new) in &versions {
                    let diff = table.diff(&At::Version(*from), &At::Version(*to)).await.unwrap();
                    assert_told(&diff, old, new, &format!("{format:?} {short} {from} to {to}"));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_definition_whose_metadata_are_gone_is_unknown_and_never_the_same() {
    for format in &FORMATS[..2] {
        let store = memory("diff-definition");
        let (table, versions) = altered(&store, *format, &[]).await;
        let [
            (created, _),
            (first, _),
            (second, _),
            (third, old),
            ..,
            (newest, new),
        ] = &versions[..]
        else {
            panic!("{versions:?}")
        };
        // v1 makes the table, v2 its first version, v3 and v4 alter it, v5 makes the second, v6 and v7 alter it, v8 makes the third.
        let gone: Vec<String> = (1..=6).map(|n| format!("metadata/v{n}.metadata.json")).collect();
        store.delete(&gone).await.unwrap();
        for unknown in [created, first, second] {
            for (from, to) in [(unknown, newest), (newest, unknown), (unknown, third)] {
                let diff = table.diff(&At::Version(*from), &At::Version(*to)).await.unwrap();
                assert_eq!(diff.definition.unknown, [*unknown], "{format:?}");
                assert!(diff.definition.partitioning.is_none() && diff.definition.properties.is_empty());
                let words = diff.definition.others().join("; ");
                assert!(
                    words.contains(&format!("of version {unknown} are not known")),
                    "{words}"
                );
                assert_eq!(diff.summary()["unknown"], serde_json::json!([unknown]));
            }
        }
        let diff = table
            .diff(&At::Version(*third), &At::Version(*newest))
            .await
            .unwrap();
        assert_told(&diff, old, new, "the file before it is there");
        // Without it nobody knows whether the table was altered before or after the commit.
        store
            .delete(&["metadata/v7.metadata.json".to_owned()])
            .await
            .unwrap();
        let diff = table
            .diff(&At::Version(*third), &At::Version(*newest))
            .await
            .unwrap();
        assert_eq!(diff.definition.unknown, [*third]);
        // A file that is damaged tells nothing, and stops nobody.
        store.put("metadata/v7.metadata.json", "{".into()).await.unwrap();
        let diff = table
            .diff(&At::Version(*third), &At::Version(*newest))
            .await
            .unwrap();
        assert_eq!(diff.definition.unknown, [*third]);
    }
}
