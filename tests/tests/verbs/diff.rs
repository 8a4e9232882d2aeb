//! What is different between two versions: definition, files, rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder,
    StructArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::prelude::ident;
use lakehouse_core::model::{At, Definition, RefKind};
use lakehouse_core::operations::SetRef;
use lakehouse_core::operations::diff::{Diff, RowCounts};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::faulty;
use lakehouse_core::{Alter, Compact, Error, Merge, Options, Rows, Table, TableFormat};
use object_store::memory::InMemory;

use super::{FORMATS, append, lines, rows, table, table_in, table_with};
use crate::support::memory;

const HERE: At = At::Latest;
const BEFORE: At = At::Version(-1);

async fn compare(table: &Table, from: &At, to: &At) -> Diff {
    table.diff(from, to).await.unwrap()
}

/// The lines of a difference, in their order.
async fn changes(diff: &Diff, on: Option<&str>) -> Vec<String> {
    let rows = diff.rows(on, None).await.unwrap();
    let batches = rows.frame().unwrap().collect().await.unwrap();
    let mut found = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            found.extend(lines(&[batch.slice(row, 1)]));
        }
    }
    found
}

async fn counts(diff: &Diff, on: Option<&str>) -> RowCounts {
    diff.rows(on, None).await.unwrap().count().await.unwrap()
}

fn words(diff: &Diff) -> Vec<String> {
    let columns = diff.definition.columns.iter().map(ToString::to_string);
    columns.chain(diff.definition.others()).collect()
}

fn said<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

async fn alter(table: &Table, alter: Alter) {
    let report = table.alter(&alter, &Options::default()).await.unwrap();
    assert!(report.committed);
}

async fn version(table: &Table) -> At {
    At::Version(table.snapshot(&HERE).await.unwrap().version)
}

async fn upsert(table: &Table, values: &str) {
    let merge = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let source = rows("id, region, n", values).await;
    table.merge(source, &merge, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_row_that_a_merge_changes_is_removed_and_added_and_with_a_key_changed() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2), (3, NULL, 3)").await;
        upsert(&table, "(2, 'us', 20), (3, NULL, 3), (4, 'eu', NULL)").await;
        let diff = compare(&table, &BEFORE, &HERE).await;
        assert_eq!(
            changes(&diff, None).await,
            ["2|us|2|delete", "2|us|20|insert", "4|eu||insert"],
            "{format:?}"
        );
        assert_eq!(
            changes(&diff, Some("id")).await,
            [
                "2|us|2|update_preimage",
                "2|us|20|update_postimage",
                "4|eu||insert"
            ]
        );
        let keyed = counts(&diff, Some("id")).await;
        assert_eq!((keyed.added, keyed.removed, keyed.changed), (1, 0, 1));
        assert!(!diff.rows.exact && diff.rows.added >= 2 && diff.rows.removed >= 1);
        // Backwards.
        let back = compare(&table, &HERE, &BEFORE).await;
        assert_eq!(
            changes(&back, Some("id")).await,
            [
                "2|us|20|update_preimage",
                "2|us|2|update_postimage",
                "4|eu||delete"
            ]
        );
        let same = compare(&table, &HERE, &HERE).await;
        assert!(same.is_empty() && changes(&same, None).await.is_empty());
        assert_eq!(
            (same.rows.added, same.rows.removed, same.rows.exact),
            (0, 0, true)
        );
    }
}

#[tokio::test]
async fn rows_that_a_compaction_moved_are_no_difference_and_duplicates_count_one_by_one() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (1, 'eu', 1)").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        let moved = compare(&table, &BEFORE, &HERE).await;
        assert_eq!((moved.files.added.files, moved.files.removed.files), (1, 2));
        assert!(changes(&moved, None).await.is_empty(), "{format:?}");
        assert_eq!(counts(&moved, Some("id")).await, RowCounts::default());
        // A compaction, and two rows of three that are equal are gone.
        let rows = rows("id, region, n", "(1, 'eu', 1), (2, 'us', 2)").await;
        table.overwrite(rows, None, &Options::default()).await.unwrap();
        let diff = compare(&table, &BEFORE, &HERE).await;
        assert_eq!(changes(&diff, None).await, ["1|eu|1|delete", "1|eu|1|delete"]);
        let back = compare(&table, &HERE, &BEFORE).await;
        assert_eq!(
            changes(&back, Some("id")).await,
            ["1|eu|1|insert", "1|eu|1|insert"]
        );
    }
}

#[tokio::test]
async fn a_key_of_several_different_rows_matches_none_of_them() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1), (1, 'eu', 2), (2, NULL, 2), (3, 'eu', 3)").await;
        let rows = rows(
            "id, region, n",
            "(1, 'eu', 9), (2, NULL, 20), (3, 'eu', 30), (3, 'eu', 31), (3, 'eu', 32)",
        )
        .await;
        table.overwrite(rows, None, &Options::default()).await.unwrap();
        let diff = compare(&table, &BEFORE, &HERE).await;
        let found = counts(&diff, Some("id")).await;
        let expected = RowCounts {
            added: 4,
            removed: 3,
            changed: 1,
            ambiguous_keys: 2,
        };
        assert_eq!(found, expected);
        // NULLs are equal, so that region alone matches one pair, in which NULL stays NULL.
        let by_region = changes(&diff, Some("region")).await;
        assert_eq!(
            by_region.iter().filter(|line| line.contains("update")).count(),
            2,
            "{by_region:?}"
        );
        assert!(by_region.contains(&"2||20|update_postimage".to_owned()));
    }
}

/// Objects of data files, by when they were written.
async fn data_files(store: &Store) -> Vec<String> {
    let listed = store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.path);
    let mut data: Vec<String> = listed.filter(|path| path.ends_with(".parquet")).collect();
    data.sort();
    data
}

#[tokio::test]
async fn files_that_both_versions_have_with_the_same_rows_are_never_opened() {
    for format in FORMATS {
        let store = memory("diff-untouched");
        let table = table_in(store.clone(), format, "region").await;
        let us: Vec<String> = (10..20).map(|id| format!("({id}, 'us', 0)")).collect();
        append(&table, &format!("(1, 'eu', 1), (2, 'us', 2), {}", us.join(", "))).await;
        let from = version(&table).await;
        append(&table, "(6, 'eu', 6)").await;
        table.delete("id = 2", &Options::default()).await.unwrap();
        let shared = table.files(&from).await.unwrap();
        let shared = shared.iter().find(|file| file.rows == 1).unwrap();
        // Whoever reads it fails.
        store.delete(std::slice::from_ref(&shared.path)).await.unwrap();
        let diff = compare(&table, &from, &HERE).await;
        assert_eq!(diff.files.unchanged.files, 1);
        let rows = diff.rows(None, None).await.unwrap();
        assert_eq!(rows.files_read, 2, "{format:?} {:?}", data_files(&store).await);
        assert_eq!(changes(&diff, None).await, ["2|us|2|delete", "6|eu|6|insert"]);
        // Only the deleted row of eleven is looked at, and it is known without reading it.
        assert_eq!((diff.rows.added, diff.rows.removed), (1, 1));
    }
}

#[tokio::test]
async fn without_rows_only_metadata_and_masks_are_read() {
    for format in FORMATS {
        let root = "memory://diff-metadata".parse().unwrap();
        let (store, _) = faulty(&Store::over(Arc::new(InMemory::new()), root));
        let table = table_in(store.clone(), format, "").await;
        append(
            &table,
            "(1, 'eu', 1), (2, 'us', 2), (3, 'us', 3), (4, 'us', 4), (5, 'us', 5)",
        )
        .await;
        let from = version(&table).await;
        table.delete("id = 2", &Options::default()).await.unwrap();
        let middle = version(&table).await;
        append(&table, "(6, 'eu', 6), (7, 'eu', 7)").await;
        for file in table.files(&HERE).await.unwrap() {
            store.delete(&[file.path]).await.unwrap();
        }
        let deleted = compare(&table, &from, &middle).await;
        assert_eq!(
            (deleted.rows.added, deleted.rows.removed, deleted.rows.exact),
            (0, 1, true),
            "{format:?}"
        );
        assert_eq!((deleted.rows.from, deleted.rows.to), (Some(5), Some(4)));
        assert_eq!((deleted.files.masked.files, deleted.files.masked.rows), (1, 5));
        let added = compare(&table, &middle, &HERE).await;
        assert_eq!(
            (added.rows.added, added.rows.removed, added.rows.exact),
            (2, 0, true)
        );
        assert_eq!((added.files.added.files, added.files.added.rows), (1, 2));
        assert!(added.files.added.bytes > 0 && added.files.unchanged.files == 1);
        let rows = added.rows(None, None).await.unwrap();
        assert!(rows.count().await.is_err(), "the files are gone");
    }
}

#[tokio::test]
async fn rows_of_different_columns_are_compared_by_those_that_both_versions_have() {
    for format in FORMATS {
        let table = table_with(format, "", &[("delta.enableTypeWidening", "true")]).await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        let from = version(&table).await;
        let path = |name: &str| name.parse().unwrap();
        alter(
            &table,
            Alter::default()
                .rename_column(path("region"), "area")
                .add_column("tip double")
                .unwrap()
                .widen("n bigint")
                .unwrap()
                .comment(path("id"), Some("the key")),
        )
        .await;
        let source = rows("id, area, n, tip", "(2, 'us', 2, 0.5), (1, 'asia', 1, 0.25)").await;
        let merge = Merge::on("id").when_matched_update_all();
        table.merge(source, &merge, &Options::default()).await.unwrap();
        let diff = compare(&table, &from, &HERE).await;
        assert_eq!(diff.compared.columns, ["id", "area", "n"]);
        assert_eq!(diff.compared.left_out, ["tip"]);
        let mut found = words(&diff);
        found.retain(|word| !word.starts_with("needs") && !word.starts_with("property"));
        assert_eq!(
            found,
            [
                "comment on id: the key",
                "renamed region to area",
                "n was Int32, is Int64",
                "added tip Float64"
            ],
            "{format:?}"
        );
        // Row 2 was written again: what both versions have of it is the same.
        assert_eq!(
            changes(&diff, Some("id")).await,
            ["1|eu|1|update_preimage", "1|asia|1|update_postimage"]
        );
        let back = compare(&table, &HERE, &from).await;
        assert_eq!(back.compared.columns, ["id", "region", "n"]);
        assert_eq!(changes(&back, None).await, ["1|asia|1|delete", "1|eu|1|insert"]);
        let mut found = words(&back);
        found.retain(|word| !word.starts_with("needs") && !word.starts_with("property"));
        assert_eq!(
            found,
            [
                "no comment on id",
                "renamed area to region",
                "n was Int64, is Int32",
                "dropped tip Float64"
            ]
        );
        for (key, expected) in [
            ("tip", "cannot be compared"),
            ("region", "there is no column region"),
            ("", "is not a list of columns"),
            ("id, id", "named twice"),
            ("id = 1", "is not a list of columns"),
        ] {
            let refused = said(diff.rows(Some(key), None).await);
            assert!(refused.contains(expected), "{key}: {refused}");
        }
    }
}

#[tokio::test]
async fn moved_dropped_and_optional_columns_are_told_and_a_name_that_came_back_is_another_column() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        let from = version(&table).await;
        let path = |name: &str| name.parse().unwrap();
        alter(
            &table,
            Alter::default()
                .drop_column(path("region"))
                .move_column(path("n"), lakehouse_core::model::Place::First)
                .nullable(path("id"), true),
        )
        .await;
        alter(&table, Alter::default().add_column("region text").unwrap()).await;
        let source = rows("n, id, region", "(1, 1, 'us')").await;
        table.overwrite(source, None, &Options::default()).await.unwrap();
        let diff = compare(&table, &from, &HERE).await;
        let mut found = words(&diff);
        found.retain(|word| !word.starts_with("needs") && !word.starts_with("property"));
        assert_eq!(
            found,
            [
                "moved n",
                "id may be NULL",
                "added region Utf8",
                "dropped region Utf8"
            ],
            "{format:?}"
        );
        assert_eq!(diff.compared.columns, ["n", "id"]);
        assert!(changes(&diff, None).await.is_empty());
    }
}

#[tokio::test]
async fn properties_and_features_are_told_where_versions_have_them() {
    let table = table((TableFormat::Delta, None), "").await;
    append(&table, "(1, 'eu', 1)").await;
    let from = version(&table).await;
    alter(&table, Alter::default().property("owner", Some("ops"))).await;
    let one = compare(&table, &from, &HERE).await;
    assert_eq!(words(&one), ["property owner = ops (new)"]);
    alter(&table, Alter::default().property("owner", Some("dev"))).await;
    assert_eq!(
        words(&compare(&table, &BEFORE, &HERE).await),
        ["property owner = dev (was ops)"]
    );
    assert_eq!(
        words(&compare(&table, &HERE, &from).await),
        ["property owner is gone"]
    );
    assert!(!one.is_empty() && one.files.is_empty());
    for version in [2, 3] {
        let table = super::table((TableFormat::Iceberg, Some(version)), "").await;
        append(&table, "(1, 'eu', 1)").await;
        let from = self::version(&table).await;
        alter(&table, Alter::default().identifier(vec!["id".to_owned()])).await;
        append(&table, "(2, 'eu', 2)").await;
        assert_eq!(
            words(&compare(&table, &from, &HERE).await),
            ["identified by id (was nothing)"]
        );
    }
}

#[tokio::test]
async fn branches_are_compared_though_neither_descends_from_the_other() {
    for version in [2, 3] {
        let table = table((TableFormat::Iceberg, Some(version)), "").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        for (kind, name) in [(RefKind::Branch, "audit"), (RefKind::Tag, "v1")] {
            let wanted = SetRef::new(kind, name);
            table.set_ref(&wanted, &Options::default()).await.unwrap();
        }
        let on_audit = Options {
            branch: Some("audit".to_owned()),
            ..Options::default()
        };
        table.update("n = 20", Some("id = 2"), &on_audit).await.unwrap();
        append(&table, "(3, 'eu', 3)").await;
        let at = |name: &str| At::Ref(name.to_owned());
        let diff = compare(&table, &at("main"), &at("audit")).await;
        assert_eq!(
            changes(&diff, Some("id")).await,
            [
                "2|us|2|update_preimage",
                "2|us|20|update_postimage",
                "3|eu|3|delete"
            ]
        );
        let since = compare(&table, &at("v1"), &at("main")).await;
        assert_eq!(changes(&since, None).await, ["3|eu|3|insert"]);
        let missing = said(table.diff(&at("v1"), &at("nosuch")).await);
        assert!(missing.contains("nosuch"), "{missing}");
    }
}

/// `id`, a double, a struct and a map.
fn nested(id: &[i64], x: &[f64], entries: &[&[(&str, &str)]]) -> RecordBatch {
    let x: ArrayRef = Arc::new(Float64Array::from(x.to_vec()));
    let label: ArrayRef = Arc::new(StringArray::from_iter(
        id.iter().map(|id| (*id != 2).then(|| format!("r{id}"))),
    ));
    let point = StructArray::from(vec![
        (Arc::new(Field::new("x", DataType::Float64, true)), Arc::clone(&x)),
        (Arc::new(Field::new("label", DataType::Utf8, true)), label),
    ]);
    let mut tags = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for map in entries {
        for (key, value) in *map {
            tags.keys().append_value(key);
            tags.values().append_value(value);
        }
        tags.append(true).unwrap();
    }
    let tags: ArrayRef = Arc::new(tags.finish());
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("x", DataType::Float64, true),
        Field::new("point", point.data_type().clone(), true),
        Field::new("tags", tags.data_type().clone(), true),
    ]);
    let id = Arc::new(Int64Array::from(id.to_vec()));
    RecordBatch::try_new(Arc::new(schema), vec![id, x, Arc::new(point), tags]).unwrap()
}

#[tokio::test]
async fn nans_zeros_and_maps_are_compared_by_value_and_shown_as_they_are_stored() {
    let other_nan = f64::from_bits(f64::NAN.to_bits() | 7);
    let before = nested(
        &[1, 2, 3, 4],
        &[f64::NAN, 0.0, 1.5, 2.0],
        &[
            &[("a", "1"), ("b", "2")],
            &[],
            &[("k", "v")],
            &[("z", "1"), ("y", "2")],
        ],
    );
    let after = nested(
        &[1, 2, 3, 5],
        &[other_nan, -0.0, 1.5, -0.0],
        &[
            &[("b", "2"), ("a", "1")],
            &[],
            &[("k", "w")],
            &[("z", "1"), ("y", "2")],
        ],
    );
    for format in FORMATS {
        let definition = Definition {
            schema: before.schema(),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("diff-nested"), format.0, &definition)
            .await
            .unwrap();
        let rows = |batch: &RecordBatch| Rows::batches(batch.schema(), vec![batch.clone()]);
        table.append(rows(&before), &Options::default()).await.unwrap();
        table
            .overwrite(rows(&after), None, &Options::default())
            .await
            .unwrap();
        let diff = compare(&table, &BEFORE, &HERE).await;
        assert_eq!(
            changes(&diff, Some("id")).await,
            [
                "3|1.5|{x: 1.5, label: r3}|{k: v}|update_preimage",
                "3|1.5|{x: 1.5, label: r3}|{k: w}|update_postimage",
                "4|2.0|{x: 2.0, label: r4}|{z: 1, y: 2}|delete",
                "5|-0.0|{x: -0.0, label: r5}|{z: 1, y: 2}|insert",
            ],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn more_rows_than_memory_holds_are_spilled_and_a_row_of_many_copies_is_there_as_often() {
    let table = table((TableFormat::Iceberg, Some(3)), "").await;
    let wide = |step: i64| {
        super::query(Box::leak(
            format!(
                "SELECT value AS id, repeat('x', 60) || CAST(value % 1000 AS TEXT) AS region, \
                 CAST(value % {step} AS INT) AS n FROM generate_series(1, 300000)"
            )
            .into_boxed_str(),
        ))
    };
    let (schema, batches) = wide(1000).await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    // Every row is written again, one in ten of them another.
    table
        .update(
            "n = n + 0",
            None,
            &Options {
                strategy: "copy-on-write".parse().unwrap(),
                ..Options::default()
            },
        )
        .await
        .unwrap();
    table
        .update(
            "n = -1",
            Some("id % 10 = 0"),
            &Options {
                strategy: "copy-on-write".parse().unwrap(),
                ..Options::default()
            },
        )
        .await
        .unwrap();
    let diff = compare(&table, &At::Version(-2), &HERE).await;
    let rows = diff.rows(Some("id"), Some(32 << 20)).await.unwrap();
    let counts = rows.count().await.unwrap();
    assert_eq!((counts.added, counts.removed, counts.changed), (0, 0, 30_000));
    // What is done to the rows leaves them in their order.
    let negative = rows
        .frame()
        .unwrap()
        .select(vec![(-ident("id")).alias("minus")])
        .unwrap();
    let negative = negative.collect().await.unwrap();
    let found = negative
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
    let found: Vec<i64> = found.collect();
    assert!(found.len() == 60_000 && found.is_sorted_by(|one, other| one >= other));

    let (schema, batches) = super::query(
        "SELECT CAST(7 AS BIGINT) AS id, 'same' AS region, 7 AS n FROM generate_series(1, 50000)",
    )
    .await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    let diff = compare(&table, &BEFORE, &HERE).await;
    let frame = diff.rows(None, None).await.unwrap().frame().unwrap();
    assert_eq!(frame.clone().count().await.unwrap(), 50_000);
    assert_eq!(frame.limit(0, Some(3)).unwrap().count().await.unwrap(), 3);
}
