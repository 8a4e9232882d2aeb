//! What goes and what stays, case by case.

use std::collections::BTreeMap;

use lakehouse_core::model::{At, ObjectKind, RefKind};
use lakehouse_core::operations::SetRef;
use lakehouse_core::operations::vacuum::{FLOOR_MS, Vacuumed};
use lakehouse_core::store::Store;
use lakehouse_core::{Error, Options, Table, TableFormat, Vacuum, scan};

use super::aged::{Aged, DAY, Listing, each, take_up};
use crate::support::memory;
use crate::verbs::{FORMATS, append, compact_all, content, delete, rows_of};

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

async fn vacuum(table: &Table) -> Vacuumed {
    let vacuum = Vacuum {
        list: true,
        ..Vacuum::default()
    };
    table.vacuum(&vacuum).await.unwrap()
}

/// The rows of all versions.
async fn all_rows(table: &Table) -> BTreeMap<i64, Vec<String>> {
    let mut rows = BTreeMap::new();
    for commit in table.history(None).await.unwrap() {
        rows.insert(
            commit.version,
            rows_of(table, &At::Version(commit.version)).await.unwrap(),
        );
    }
    rows
}

#[tokio::test]
async fn retained_versions_stay_readable_and_a_second_run_does_nothing() {
    each("region", &[], async |format, aged| {
        let table = &aged.table;
        append(
            table,
            "(1, 'eu', 1), (2, 'us', 2), (3, 'eu', 3), (4, 'eu', 4), (5, 'eu', 5), (6, 'eu', 6)",
        )
        .await;
        append(table, "(7, 'eu', 7), (8, 'us', 8)").await;
        delete(table, "id = 1").await;
        compact_all(table).await;
        let before = aged.keys().await;
        aged.clock.advance(3 * DAY);
        delete(table, "id = 3").await;
        delete(table, "id = 4").await;
        aged.clock.advance(5 * DAY);
        let rows = all_rows(table).await;
        let report = vacuum(table).await;
        let after = aged.keys().await;
        match format.0 {
            // Versions of Iceberg are kept until they expire.
            TableFormat::Iceberg => assert_eq!(report.total().count, 0, "{report:?}"),
            // The first three files, and the mask of the delete before the compaction.
            TableFormat::Delta => {
                assert_eq!(report.removed[&ObjectKind::Data].count, 4, "{report:?}");
                assert_eq!(report.removed[&ObjectKind::Mask].count, 1, "{report:?}");
                assert_eq!(report.oldest_kept, 4);
                rows_of(table, &At::Version(3)).await.unwrap_err();
            }
        }
        assert_eq!(
            before.iter().filter(|key| !after.contains(key)).count() as u64,
            report.total().count
        );
        for (version, rows) in rows
            .into_iter()
            .filter(|(version, _)| format.0 == TableFormat::Iceberg || *version >= report.oldest_kept)
        {
            assert_eq!(
                rows_of(table, &At::Version(version)).await.unwrap(),
                rows,
                "{format:?}, version {version}"
            );
        }
        let again = vacuum(table).await;
        assert_eq!((again.total().count, again.young.count), (0, 0), "{again:?}");
        assert_eq!(aged.keys().await, after);
    })
    .await;
}

#[tokio::test]
async fn files_of_no_version_go_once_they_are_old_enough_and_those_of_others_stay() {
    each("region", &[], async |format, aged| {
        let table = &aged.table;
        append(table, "(1, 'eu', 1), (2, 'us', 2)").await;
        let put = async |key: &str| aged.store().put(key, "x".into()).await.unwrap();
        let mut gone = vec![
            "data/region=eu/a b%2F.parquet",
            "data/.lake-0.tmp",
            ".lake-probe-1",
            "data/.x.parquet.crc",
        ];
        let mut stays = vec![
            ".hidden/a.parquet",
            "_other/a.parquet",
            "data/.b.parquet",
            "notes.txt",
            "data/c.parquet.tmp",
            ".quarantine/data/.lake-0.tmp",
            "__elsewhere__/0/a.parquet",
            "_region=eu/a.parquet",
        ];
        match format.0 {
            TableFormat::Iceberg => {
                gone.extend([
                    "metadata/snap-1-0-x.avro",
                    "metadata/x-m0.avro",
                    "metadata/1.stats",
                    "data/x.puffin",
                    "metadata/.lake-3.tmp",
                    "data/x.orc",
                ]);
                stays.extend([
                    "metadata/v0.metadata.json",
                    "metadata/00000-x.metadata.json",
                    "metadata/.v0.metadata.json.crc",
                ]);
            }
            TableFormat::Delta => {
                gone.extend([
                    "_change_data/cdc-0.parquet",
                    "ab/deletion_vector_x.bin",
                    "part-0.snappy.parquet",
                    "_delta_index/x.idx",
                    "_delta_log/.lake-3.tmp",
                    "_change_data/.cdc-0.parquet.crc",
                ]);
                stays.extend([
                    "_delta_log/00000000000000000000.crc",
                    "_delta_log/_sidecars/a.parquet",
                    "_delta_log/.s3-optimization-0",
                    "metadata/v1.metadata.json",
                    "metadata/x.parquet",
                ]);
            }
        }
        for key in gone.iter().chain(&stays) {
            put(key).await;
        }
        // The checksum of a file that is there, which is as old as the table.
        let file = table.files(&At::Latest).await.unwrap()[0].path.clone();
        let (folder, name) = file.rsplit_once('/').unwrap();
        let checksum = format!("{folder}/.{name}.crc");
        put(&checksum).await;
        let before = aged.keys().await;
        aged.clock.advance(DAY);
        let young = vacuum(table).await;
        assert_eq!(
            (young.total().count, young.young.count),
            (0, gone.len() as u64),
            "{young:?}"
        );
        aged.clock.advance(7 * DAY);
        let put_late = "data/late.parquet";
        put(put_late).await;
        let report = vacuum(table).await;
        let mut removed: Vec<&str> = report
            .objects
            .iter()
            .map(|one| one.object.path.as_str())
            .collect();
        removed.sort_unstable();
        gone.sort_unstable();
        assert_eq!(removed, gone, "{format:?}");
        assert_eq!(report.young.count, 1);
        let after = aged.keys().await;
        assert_eq!(after.len(), before.len() + 1 - gone.len());
        assert!(stays.iter().all(|key| after.contains(&(*key).to_owned())) && after.contains(&checksum));
        assert_eq!(report.left[".quarantine/"].count, 1, "{:?}", report.left);
        assert_eq!(report.left[""].count, 2, "{:?}", report.left);
        assert_eq!(content(table).await, ["1|eu|1", "2|us|2"]);
    })
    .await;
}

#[tokio::test]
async fn partition_columns_that_begin_with_an_underscore_hide_nothing() {
    for format in FORMATS {
        let aged = Aged::new(format, "", &[]).await;
        aged.at(async {
            let table = &aged.table;
            append(table, "(1, 'eu', 1)").await;
            let snapshot = table.snapshot(&At::Latest).await.unwrap();
            let kind = |key: &str| table.handle().format.kind(&snapshot, key);
            assert_eq!(kind("data/_region=eu/a.parquet"), ObjectKind::Hidden);
        })
        .await;
        let schema = scan::parse_columns("id bigint, _region string").unwrap();
        let definition = lakehouse_core::model::Definition {
            schema,
            partition_fields: lakehouse_core::model::parse_partitioning("_region").unwrap(),
            properties: BTreeMap::new(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("underscore"), format.0, &definition)
            .await
            .unwrap();
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        let kind = table.handle().format.kind(&snapshot, "data/_region=eu/a.parquet");
        assert_eq!(kind, ObjectKind::Data, "{format:?}");
    }
}

#[tokio::test]
async fn a_dry_run_lists_what_a_run_then_removes() {
    each("", &[], async |_, aged| {
        let table = &aged.table;
        append(table, "(1, 'eu', 1)").await;
        append(table, "(2, 'eu', 2)").await;
        aged.orphan("data/orphan.parquet").await;
        compact_all(table).await;
        aged.clock.advance(8 * DAY);
        let before = aged.keys().await;
        let dry = Vacuum {
            dry_run: true,
            list: true,
            ..Vacuum::default()
        };
        let planned = table.vacuum(&dry).await.unwrap();
        assert!(planned.dry_run && planned.total().count > 0);
        assert_eq!(aged.keys().await, before);
        let done = vacuum(table).await;
        assert_eq!((done.objects, done.removed), (planned.objects, planned.removed));
    })
    .await;
}

#[tokio::test]
async fn what_was_moved_to_a_quarantine_repairs_when_it_is_moved_back() {
    each("region", &[], async |format, aged| {
        let table = &aged.table;
        append(table, "(1, 'e/u %', 1), (2, 'us', 2)").await;
        append(table, "(3, 'e/u %', 3)").await;
        let version = table.snapshot(&At::Latest).await.unwrap().version;
        let rows = rows_of(table, &At::Version(version)).await.unwrap();
        let orphan = aged.orphan("data/orphan.parquet").await;
        compact_all(table).await;
        aged.clock.advance(8 * DAY);
        let before = aged.keys().await;
        let away = Vacuum {
            quarantine: Some(".quarantine/today".to_owned()),
            list: true,
            ..Vacuum::default()
        };
        let moved = table.vacuum(&away).await.unwrap();
        assert!(moved.objects.iter().any(|one| one.object.path == orphan.path));
        aged.clock.advance(30 * DAY);
        let later = vacuum(table).await;
        assert_eq!(later.total().count, 0, "{later:?}");
        assert_eq!(later.left[".quarantine/"].count, moved.total().count);
        if format.0 == TableFormat::Delta {
            rows_of(table, &At::Version(version)).await.unwrap_err();
        }
        for one in &moved.objects {
            let away = aged
                .store()
                .head(&format!(".quarantine/today/{}", one.object.path))
                .await
                .unwrap();
            let away = away.expect("it is in the quarantine");
            aged.store().copy(&away, &one.object.path).await.unwrap();
            aged.store().delete(&[away.path]).await.unwrap();
        }
        assert_eq!(aged.keys().await, before);
        assert_eq!(rows_of(table, &At::Version(version)).await.unwrap(), rows);
    })
    .await;
}

#[tokio::test]
async fn a_file_that_a_commit_takes_up_while_the_objects_are_listed_stays() {
    for format in FORMATS {
        let branches = match format.0 {
            TableFormat::Iceberg => &[None, Some("audit")][..],
            TableFormat::Delta => &[None],
        };
        for (listing, branch) in [1, 2]
            .into_iter()
            .flat_map(|n| branches.iter().map(move |b| (n, *b)))
        {
            let (store, listed) = Listing::over(&memory("taken-up"));
            let aged = Aged::over(store, format, "", &[]).await;
            aged.at(async {
                let table = &aged.table;
                append(table, "(1, 'eu', 1)").await;
                if let Some(branch) = branch {
                    let make = SetRef::new(RefKind::Branch, branch);
                    table.set_ref(&make, &Options::default()).await.unwrap();
                }
                let file = aged.orphan("data/old.parquet").await;
                aged.clock.advance(30 * DAY);
                let other = Table::open_in(aged.store().clone()).await.unwrap();
                listed.after(
                    listing,
                    async move { take_up(other.handle(), file, branch).await },
                );
                let report = vacuum(table).await;
                assert!(listed.has_happened());
                assert_eq!(
                    report.total().count,
                    0,
                    "a file that a commit took up was removed: {branch:?}, {report:?}"
                );
                match branch {
                    None => assert_eq!(content(table).await, ["1|eu|1", "1|eu|1"]),
                    Some(_) => assert_eq!(content(table).await, ["1|eu|1"]),
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_removes_nothing_early_and_nothing_late() {
    for format in FORMATS {
        for skew in [-YEAR_MS, -600_000, 600_000, YEAR_MS] {
            let aged = Aged::new(format, "", &[]).await;
            aged.at(append(&aged.table, "(1, 'eu', 1)")).await;
            aged.at(aged.orphan("data/staged.parquet")).await;
            aged.clock.advance(DAY);
            let report = aged.skewed(skew, vacuum(&aged.table)).await;
            assert_eq!(
                report.total().count,
                0,
                "a file of a running writer was removed, skew {skew}"
            );
            aged.clock.advance(7 * DAY);
            let report = aged.skewed(skew, vacuum(&aged.table)).await;
            assert_eq!(report.total().count, 1, "skew {skew}");
        }
    }
}

/// Versions of Delta that a writer dated wrongly.
#[tokio::test]
async fn versions_of_a_writer_whose_clock_is_wrong_are_kept_for_as_long_as_the_stores_clock_says() {
    for skew in [-YEAR_MS, 0, YEAR_MS] {
        let aged = Aged::new(FORMATS[2], "", &[]).await;
        let table = &aged.table;
        aged.skewed(skew, append(table, "(1, 'eu', 1)")).await;
        aged.skewed(skew, append(table, "(2, 'eu', 2)")).await;
        aged.skewed(skew, compact_all(table)).await;
        aged.clock.advance(6 * DAY);
        assert_eq!(aged.at(vacuum(table)).await.total().count, 0, "skew {skew}");
        aged.at(rows_of(table, &At::Version(2))).await.unwrap();
        aged.clock.advance(2 * DAY);
        let removed = aged.at(vacuum(table)).await.total().count;
        // A version that says that it was made in a year may be asked for by that time.
        assert_eq!(removed, if skew > 0 { 0 } else { 2 }, "skew {skew}");
    }
}

#[tokio::test]
async fn masks_and_changed_rows_of_retained_versions_stay() {
    each(
        "",
        &[("delta.enableChangeDataFeed", "true")],
        async |format, aged| {
            let table = &aged.table;
            append(
                table,
                "(1, 'eu', 1), (2, 'us', 2), (3, 'eu', 3), (4, 'eu', 4), (5, 'eu', 5), (6, 'eu', 6)",
            )
            .await;
            table
                .update("n = 9", Some("id = 1"), &Options::default())
                .await
                .unwrap();
            aged.clock.advance(30 * DAY);
            table
                .update("n = 10", Some("id = 2"), &Options::default())
                .await
                .unwrap();
            let rows = content(table).await;
            aged.clock.advance(5 * DAY);
            let report = vacuum(table).await;
            assert_eq!(content(table).await, rows, "masks are gone");
            if format.0 == TableFormat::Delta {
                // The first feed file belongs to the version that was current for long, the second to the newest.
                assert!(!report.removed.contains_key(&ObjectKind::Changes), "{report:?}");
                aged.clock.advance(10 * DAY);
                let report = vacuum(table).await;
                assert_eq!(report.removed[&ObjectKind::Changes].count, 1, "{report:?}");
                let masks = report.removed.get(&ObjectKind::Mask).map(|removed| removed.count);
                assert_eq!(masks, Some(1), "masks are gone already: {report:?}");
                assert_eq!(content(table).await, rows);
            }
        },
    )
    .await;
}

#[tokio::test]
async fn versions_that_are_named_are_kept_whatever_their_age() {
    let aged = Aged::new(FORMATS[2], "", &[]).await;
    aged.at(async {
        let table = &aged.table;
        append(table, "(1, 'eu', 1)").await;
        append(table, "(2, 'eu', 2)").await;
        table
            .overwrite(
                crate::verbs::rows("id, region, n", "(3, 'eu', 3)").await,
                None,
                &Options::default(),
            )
            .await
            .unwrap();
        aged.clock.advance(30 * DAY);
        let keep = Vacuum {
            keep_versions: vec![1],
            ..Vacuum::default()
        };
        let report = table.vacuum(&keep).await.unwrap();
        assert_eq!(
            (report.total().count, report.versions_kept, report.oldest_kept),
            (1, 2, 3),
            "{report:?}"
        );
        assert_eq!(rows_of(table, &At::Version(1)).await.unwrap(), ["1|eu|1"]);
        rows_of(table, &At::Version(2)).await.unwrap_err();
        let missing = Vacuum {
            keep_versions: vec![17],
            ..Vacuum::default()
        };
        assert!(matches!(
            table.vacuum(&missing).await,
            Err(Error::NotFound { .. })
        ));
    })
    .await;
}

#[tokio::test]
async fn how_long_delta_keeps_versions_is_what_the_table_says_and_never_too_little_for_files_of_writers() {
    let property = "delta.deletedFileRetentionDuration";
    for (text, days, goes) in [
        ("interval 30 days", 20, false),
        ("interval 30 days", 40, true),
        ("interval 1 hours", 1, false),
        ("interval 1 hours", 3, true),
    ] {
        let aged = Aged::new(FORMATS[2], "", &[(property, text)]).await;
        aged.at(async {
            append(&aged.table, "(1, 'eu', 1)").await;
            append(&aged.table, "(2, 'eu', 2)").await;
            compact_all(&aged.table).await;
            aged.clock.advance(days * DAY);
            assert_eq!(
                vacuum(&aged.table).await.total().count > 0,
                goes,
                "{text}, {days} days"
            );
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_not_safe_is_refused_before_anything_is_written() {
    for format in FORMATS {
        let table = crate::verbs::table(format, "").await;
        let refused = async |vacuum: Vacuum| {
            let error = table.vacuum(&vacuum).await.unwrap_err();
            format!("{error}\n{}", error.hint().unwrap_or_default())
        };
        let young = Vacuum {
            older_than_ms: Some(FLOOR_MS - 1),
            ..Vacuum::default()
        };
        let error = refused(young.clone()).await;
        assert!(
            error.contains("48 hours") && error.contains("--unsafe-no-writers"),
            "{error}"
        );
        for folder in [
            "data",
            "",
            "/tmp",
            ".a/../b",
            "..",
            "_delta_log/x",
            "_change_data",
            ".p=1",
            ".q/",
        ] {
            let error = refused(Vacuum {
                quarantine: Some(folder.to_owned()),
                ..Vacuum::default()
            });
            let error = error.await;
            assert!(error.contains("no hidden folder"), "{folder}: {error}");
        }
        table
            .vacuum(&Vacuum {
                unsafe_no_writers: true,
                ..young
            })
            .await
            .unwrap();
    }
    let table = crate::verbs::table_with(FORMATS[1], "", &[("gc.enabled", "false")]).await;
    let error = table.vacuum(&Vacuum::default()).await.unwrap_err().to_string();
    assert!(error.contains("gc.enabled"), "{error}");
}

/// Delta protocol, "VACUUM Protocol Check": whoever does not know all writer features must not remove files.
#[tokio::test]
async fn a_table_that_cannot_be_written_is_not_vacuumed() {
    let aged = Aged::new(FORMATS[2], "", &[]).await;
    aged.at(async {
        append(&aged.table, "(1, 'eu', 1)").await;
        aged.orphan("orphan.parquet").await;
        let next = "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[\"deletionVectors\",\
                    \"vacuumProtocolCheck\"],\"writerFeatures\":[\"deletionVectors\",\"vacuumProtocolCheck\",\"news\"]}}";
        aged.store().put("_delta_log/00000000000000000002.json", next.into()).await.unwrap();
        aged.clock.advance(30 * DAY);
        let before = aged.keys().await;
        let error = aged.table.vacuum(&Vacuum::default()).await.unwrap_err();
        assert!(error.to_string().contains("news"), "{error}");
        assert_eq!(aged.keys().await, before);
    })
    .await;
}

/// Names that are spelled in more than one way in metadata and on disk.
#[tokio::test]
async fn partition_folders_with_every_kind_of_letter_stay_on_local_disk_and_in_memory() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open(folder.path().join("a table %20 ü").to_str().unwrap()).unwrap();
        for store in [local, memory("letters")] {
            let table = crate::verbs::table_in(store, format, "region").await;
            append(
                &table,
                "(1, 'a b', 1), (2, 'a%20b', 2), (3, 'Zu\u{308}rich', 3), (4, 'Z\u{fc}rich', 4), (5, 'A B', 5), \
                 (6, 'x/y?#:&=+', 6), (8, NULL, 8), (9, '日本', 9)",
            )
            .await;
            delete(&table, "id = 9").await;
            let rows = content(&table).await;
            let store = &table.handle().store;
            store
                .put("data/region=a b/orphan.parquet", "x".into())
                .await
                .unwrap();
            let now = Vacuum {
                older_than_ms: Some(1),
                unsafe_no_writers: true,
                list: true,
                keep_versions: vec![table.history(None).await.unwrap()[1].version],
                ..Vacuum::default()
            };
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let report = table.vacuum(&now).await.unwrap();
            let removed: Vec<&str> = report
                .objects
                .iter()
                .map(|one| one.object.path.as_str())
                .collect();
            assert_eq!(removed, ["data/region=a b/orphan.parquet"], "{format:?}");
            assert_eq!(content(&table).await, rows);
        }
    }
}

/// More than one batch, and a store that fails in the middle.
#[tokio::test]
async fn a_vacuum_that_breaks_off_is_finished_by_the_next() {
    use lakehouse_core::store::sim::{Fault, faulty};
    each("", &[], async |_, aged| {
        append(&aged.table, "(1, 'eu', 1)").await;
        for number in 0..1500 {
            let key = format!("data/orphan-{number}.parquet");
            aged.store().put(&key, "x".into()).await.unwrap();
        }
        aged.clock.advance(8 * DAY);
        let (store, faults) = faulty(aged.store());
        let broken = Table::open_in(store).await.unwrap();
        faults.reset();
        faults.fail_at(600, Fault::Crash);
        broken.vacuum(&Vacuum::default()).await.unwrap_err();
        let left = aged.keys().await.len();
        assert!(left > 500, "{left}");
        let report = vacuum(&aged.table).await;
        assert!(
            report.total().count >= 500 && report.total().count < 1500,
            "{}",
            report.total().count
        );
        assert_eq!(content(&aged.table).await, ["1|eu|1"]);
        assert!(!aged.keys().await.iter().any(|key| key.contains("orphan")));
    })
    .await;
}

/// A link is a second name for what it leads to.
#[cfg(unix)]
#[tokio::test]
async fn what_lies_behind_a_link_is_not_removed_by_its_other_name() {
    use std::os::unix::fs::symlink;
    let now = Vacuum {
        older_than_ms: Some(1),
        unsafe_no_writers: true,
        list: true,
        ..Vacuum::default()
    };
    for format in FORMATS {
        let home = tempfile::tempdir().unwrap();
        let (root, big) = (home.path().join("t"), home.path().join("big"));
        let options = [("allow_links", big.to_str().unwrap())].into_iter().collect();
        let open = || Store::open_with(root.to_str().unwrap(), &options).unwrap();
        let table = crate::verbs::table_in(open(), format, "region").await;
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        let rows = content(&table).await;
        let file = table.files(&At::Latest).await.unwrap()[0].path.clone();
        let folder = root.join(&file).parent().unwrap().to_owned();
        std::fs::create_dir(&big).unwrap();
        for place in [big.join("moved"), root.join("moved")] {
            std::fs::rename(&folder, &place).unwrap();
            symlink(&place, &folder).unwrap();
            std::fs::write(root.join("orphan.parquet"), "x").unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let table = Table::open_in(open()).await.unwrap();
            let done = table.vacuum(&now).await;
            if place.starts_with(&root) {
                let error = done.unwrap_err().to_string();
                assert!(error.contains("two names"), "{error}");
            } else {
                let removed: Vec<_> = done
                    .unwrap()
                    .objects
                    .into_iter()
                    .map(|one| one.object.path)
                    .collect();
                assert_eq!(removed, ["orphan.parquet"]);
            }
            assert_eq!(content(&table).await, rows, "{format:?}");
            std::fs::remove_file(&folder).unwrap();
            std::fs::rename(&place, &folder).unwrap();
        }
    }
}
