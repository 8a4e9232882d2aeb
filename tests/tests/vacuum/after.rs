//! What other verbs make of versions whose files a vacuum took.

use std::collections::BTreeSet;

use lakehouse_core::model::{At, Severity};
use lakehouse_core::operations::check::{Check, Checked};
use lakehouse_core::{Options, Table, TableFormat, Vacuum};

use super::aged::{Aged, DAY, each};
use crate::verbs::{FORMATS, append, compact_all, content};

/// Two files that became one, which is the newest version; the version before it.
async fn compacted(aged: &Aged) -> i64 {
    let table = &aged.table;
    append(table, "(1, 'eu', 1)").await;
    append(table, "(2, 'us', 2)").await;
    let before = table.snapshot(&At::Latest).await.unwrap().version;
    compact_all(table).await;
    before
}

async fn check_all(table: &Table) -> Checked {
    let check = Check {
        all_versions: true,
        ..Check::default()
    };
    let anew = Table::open_in(table.handle().store.clone()).await.unwrap();
    anew.check(&check).await.unwrap()
}

#[tokio::test]
async fn a_version_whose_files_are_gone_is_not_restored_and_the_error_names_them() {
    each("", &[], async |format, aged| {
        let table = &aged.table;
        let before = compacted(aged).await;
        let files = table.files(&At::Version(before)).await.unwrap();
        aged.clock.advance(8 * DAY);
        table.vacuum(&Vacuum::default()).await.unwrap();
        if format.0 == TableFormat::Iceberg {
            // What its metadata has is never a vacuum's.
            let dry = Options {
                dry_run: true,
                ..Options::default()
            };
            table.restore(&At::Version(before), &dry).await.unwrap();
            let gone: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
            aged.store().delete(&gone).await.unwrap();
        }
        let newest = table.snapshot(&At::Latest).await.unwrap().version;
        for dry_run in [true, false] {
            let options = Options {
                dry_run,
                ..Options::default()
            };
            let error = table.restore(&At::Version(before), &options).await.unwrap_err();
            let said = format!("{error}\n{}", error.hint().unwrap_or_default());
            assert!(said.contains("2 of its files"), "{format:?}: {said}");
            assert!(
                files.iter().any(|file| said.contains(&file.path)),
                "{format:?}: {said}"
            );
            assert!(said.contains("lake history"), "{format:?}: {said}");
        }
        assert_eq!(table.snapshot(&At::Latest).await.unwrap().version, newest);
        assert_eq!(content(table).await, ["1|eu|1", "2|us|2"]);
    })
    .await;
}

#[tokio::test]
async fn files_that_a_vacuum_took_from_versions_past_their_time_are_no_damage() {
    let aged = Aged::new(FORMATS[2], "", &[]).await;
    aged.at(async {
        let table = &aged.table;
        let before = compacted(&aged).await;
        aged.clock.advance(8 * DAY);
        append(table, "(3, 'eu', 3)").await;
        assert!(table.vacuum(&Vacuum::default()).await.unwrap().total().count >= 2);
        let checked = check_all(table).await;
        assert!(checked.is_clean(), "{:#?}", checked.findings);
        let of_version = format!("version {before} ");
        let note = checked.findings.iter().find(|one| one.what.contains(&of_version));
        let note = note.unwrap_or_else(|| panic!("{:#?}", checked.findings));
        assert_eq!(
            (note.code.name(), note.severity),
            ("version-not-retained", Severity::Note)
        );
        assert!(note.what.contains("2 of its files"), "{note:?}");
    })
    .await;
}

#[tokio::test]
async fn files_that_are_gone_too_early_are_warned_of_and_those_of_the_newest_version_are_damage() {
    each("", &[], async |format, aged| {
        let table = &aged.table;
        let before = compacted(aged).await;
        let old = table.files(&At::Version(before)).await.unwrap();
        aged.store().delete(&[old[0].path.clone()]).await.unwrap();
        let checked = check_all(table).await;
        let codes: BTreeSet<(&str, Severity)> = (checked.findings.iter())
            .filter(|one| one.severity != Severity::Note)
            .map(|one| (one.code.name(), one.severity))
            .collect();
        // Iceberg promises the files of every version of its metadata.
        let expected = match format.0 {
            TableFormat::Iceberg => ("file-missing", Severity::Error),
            TableFormat::Delta => ("version-incomplete", Severity::Warning),
        };
        assert_eq!(codes, BTreeSet::from([expected]), "{:#?}", checked.findings);
        let new = table.files(&At::Latest).await.unwrap();
        aged.store().delete(&[new[0].path.clone()]).await.unwrap();
        let checked = check_all(table).await;
        let missing = checked
            .findings
            .iter()
            .any(|one| (one.code.name(), one.path.as_str()) == ("file-missing", new[0].path.as_str()));
        assert!(missing, "{format:?}: {:#?}", checked.findings);
    })
    .await;
}
