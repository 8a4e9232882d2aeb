//! Versions go, the ones that stay read as before, and nothing that they need goes with the others.

use std::collections::{BTreeMap, BTreeSet};

use lakehouse_core::model::{At, CheckpointKind, Retention, Version};
use lakehouse_core::operations::{Expire, ExpireReport, SetRef};
use lakehouse_core::store::Store;
use lakehouse_core::{Error, Options, Table, TableFormat, scan};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{FORMATS, append, content, lines, rows_at, table_made};
use crate::support::aged::{Age, aged};
use crate::support::memory;

/// A table in a store whose objects grow old when told.
async fn old_table(format: (TableFormat, Option<u8>), properties: &[(&str, &str)]) -> (Table, Store, Age) {
    let (store, age) = aged(&memory("expire"));
    let table = table_made(store.clone(), format, "region", properties).await;
    (table, store, age)
}

fn last(count: u32) -> Expire {
    Expire {
        older_than_ms: Some(0),
        retain_last: Some(count),
    }
}

async fn expire(table: &Table, what: &Expire) -> ExpireReport {
    table.expire(what, &Options::default()).await.unwrap()
}

async fn keys(store: &Store) -> BTreeSet<String> {
    let listed = store.list("").await.unwrap();
    listed.into_iter().map(|object| object.path).collect()
}

/// Objects that are no files of the log or metadata files.
async fn data(store: &Store) -> BTreeSet<String> {
    let mut all = keys(store).await;
    all.retain(|key| !key.starts_with("_delta_log/") && !key.ends_with(".metadata.json"));
    all.retain(|key| !key.ends_with("version-hint.text"));
    all
}

async fn numbers(table: &Table) -> Vec<Version> {
    let newest = table.snapshot(&At::Latest).await.unwrap();
    let found = table.handle().format.versions(&newest).await.unwrap();
    let mut found: Vec<Version> = found.iter().map(|one| one.version).collect();
    found.sort_unstable();
    found
}

#[tokio::test]
async fn the_last_versions_stay_and_read_as_before_and_no_data_file_goes() {
    for format in FORMATS {
        let (table, store, age) = old_table(format, &[]).await;
        for id in 0..14 {
            append(&table, &format!("({id}, 'eu', 1)")).await;
        }
        table.delete("id = 3", &Options::default()).await.unwrap();
        age.pass().await;
        let history = table.history(None).await.unwrap();
        let mut kept = BTreeMap::new();
        for commit in &history[..4] {
            let rows = rows_at(&store, &At::Version(commit.version)).await.unwrap();
            kept.insert(commit.version, rows);
        }
        let (before, of_data) = (content(&table).await, data(&store).await);
        let dry = Options {
            dry_run: true,
            ..Options::default()
        };
        let all = keys(&store).await;
        let said = table.expire(&last(4), &dry).await.unwrap();
        assert!(said.dry_run && !said.committed);
        assert_eq!(keys(&store).await, all, "{format:?}: a dry run");
        let report = expire(&table, &last(4)).await;
        assert!(report.committed, "{report:?}");
        assert_eq!(report.expired, said.expired, "{format:?}");
        assert_eq!(report.kept, 4, "{format:?}: {report:?}");
        assert!(report.files.files.len() >= said.files.files.len(), "{format:?}");
        assert_eq!(content(&table).await, before);
        for (version, rows) in &kept {
            let found = rows_at(&store, &At::Version(*version)).await.unwrap();
            assert_eq!(found, *rows, "{format:?}: version {version}");
        }
        for version in &report.expired {
            let gone = rows_at(&store, &At::Version(*version)).await;
            assert!(
                matches!(gone, Err(Error::NotFound { .. })),
                "{format:?}: {version}: {gone:?}"
            );
        }
        assert_eq!(data(&store).await, of_data, "{format:?}");
        let again = expire(&table, &last(4)).await;
        assert!(
            !again.committed && again.expired.is_empty(),
            "{format:?}: {again:?}"
        );
        // And it goes on as before.
        append(&table, "(100, 'us', 7)").await;
        assert_eq!(
            rows_at(&store, &At::Version(-1)).await.unwrap(),
            before,
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn versions_of_the_log_that_could_be_taken_again_stay_for_two_days() {
    let (table, store, age) = old_table((TableFormat::Delta, None), &[]).await;
    for id in 0..3 {
        append(&table, &format!("({id}, 'eu', 1)")).await;
    }
    let before = keys(&store).await;
    let report = expire(&table, &last(1)).await;
    assert!(!report.committed && report.expired.is_empty(), "{report:?}");
    assert_eq!(report.too_young, 3);
    assert_eq!(keys(&store).await, before);
    age.pass().await;
    append(&table, "(7, 'eu', 1)").await;
    append(&table, "(8, 'eu', 1)").await;
    let report = expire(&table, &last(1)).await;
    assert_eq!(report.expired, [0, 1, 2, 3], "{report:?}");
    assert_eq!(report.too_young, 1);
    assert_eq!(report.files.checkpoint, Some(4));
    assert_eq!(numbers(&table).await, [4, 5]);
}

#[tokio::test]
async fn tags_and_what_branches_keep_stay_and_old_names_go() {
    for format in &FORMATS[..2] {
        let (table, store, _) = old_table(*format, &[]).await;
        let plain = Options::default();
        for id in 0..3 {
            append(&table, &format!("({id}, 'eu', 1)")).await;
        }
        let tagged = rows_at(&store, &At::Version(-1)).await.unwrap();
        let tag = SetRef {
            at: Some(At::Version(-1)),
            ..SetRef::new(lakehouse_core::model::RefKind::Tag, "v2")
        };
        table.set_ref(&tag, &plain).await.unwrap();
        let branch = SetRef {
            retention: Retention {
                min_snapshots_to_keep: Some(2),
                ..Retention::default()
            },
            ..SetRef::new(lakehouse_core::model::RefKind::Branch, "audit")
        };
        table.set_ref(&branch, &plain).await.unwrap();
        let short = SetRef {
            retention: Retention {
                max_ref_age_ms: Some(1),
                ..Retention::default()
            },
            ..SetRef::new(lakehouse_core::model::RefKind::Tag, "short")
        };
        table.set_ref(&short, &plain).await.unwrap();
        let on_audit = Options {
            branch: Some("audit".into()),
            token: Some("once".into()),
            ..plain.clone()
        };
        table
            .append(super::rows("id, region, n", "(50, 'us', 1)").await, &on_audit)
            .await
            .unwrap();
        append(&table, "(9, 'eu', 1)").await;
        append(&table, "(10, 'eu', 1)").await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let audit = rows_at(&store, &At::Ref("audit".into())).await.unwrap();
        let report = expire(&table, &last(1)).await;
        assert_eq!(report.refs_dropped, ["short"], "{report:?}");
        // Main's newest, the tag's, two of the branch.
        assert_eq!(report.kept, 4, "{report:?}");
        assert_eq!(rows_at(&store, &At::Ref("v2".into())).await.unwrap(), tagged);
        assert_eq!(rows_at(&store, &At::Ref("audit".into())).await.unwrap(), audit);
        let names: Vec<String> = table.refs().await.unwrap().into_keys().collect();
        assert_eq!(names, ["audit", "main", "v2"]);
        // Keys outlive versions.
        let again = table
            .append(super::rows("id, region, n", "(50, 'us', 1)").await, &on_audit)
            .await
            .unwrap();
        assert!(again.already.is_some(), "{again:?}");
    }
}

#[tokio::test]
async fn statistics_of_versions_that_went_go_with_them() {
    let (table, store, _) = old_table(FORMATS[0], &[]).await;
    append(&table, "(1, 'eu', 1)").await;
    append(&table, "(2, 'eu', 1)").await;
    let history = table.history(None).await.unwrap();
    let key = "metadata/v3.metadata.json";
    let bytes = store.get(key).await.unwrap();
    let mut metadata: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let of = |version: Version| {
        serde_json::json!({"snapshot-id": version, "statistics-path": format!("memory://expire/metadata/{version}.puffin"),
            "file-size-in-bytes": 1, "file-footer-size-in-bytes": 1, "blob-metadata": []})
    };
    let parts = |version: Version| {
        serde_json::json!({"snapshot-id": version, "file-size-in-bytes": 1,
            "statistics-path": format!("memory://expire/metadata/{version}.parquet")})
    };
    metadata["statistics"] = history.iter().map(|commit| of(commit.version)).collect();
    metadata["partition-statistics"] = history.iter().map(|commit| parts(commit.version)).collect();
    store
        .put(key, serde_json::to_vec(&metadata).unwrap().into())
        .await
        .unwrap();
    expire(&table, &last(1)).await;
    let bytes = store.get("metadata/v4.metadata.json").await.unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    for list in ["statistics", "partition-statistics"] {
        let left = metadata[list].as_array().unwrap();
        assert_eq!(left.len(), 1, "{list}: {left:?}");
        assert_eq!(left[0]["snapshot-id"], history[0].version, "{list}");
    }
    assert_eq!(metadata["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(metadata["snapshot-log"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn properties_of_the_table_say_what_goes_where_nobody_else_does() {
    for format in FORMATS {
        let properties: &[(&str, &str)] = match format.0 {
            TableFormat::Iceberg => &[
                ("history.expire.max-snapshot-age-ms", "0"),
                ("history.expire.min-snapshots-to-keep", "2"),
            ],
            TableFormat::Delta => &[("delta.logRetentionDuration", "interval 0 days")],
        };
        let (table, _, age) = old_table(format, properties).await;
        for id in 0..4 {
            append(&table, &format!("({id}, 'eu', 1)")).await;
        }
        age.pass().await;
        let kept = match format.0 {
            TableFormat::Iceberg => 2,
            TableFormat::Delta => 1,
        };
        assert_eq!(expire(&table, &Expire::default()).await.kept, kept, "{format:?}");
        let (table, _, _) = old_table(format, &[]).await;
        append(&table, "(1, 'eu', 1)").await;
        append(&table, "(2, 'eu', 1)").await;
        assert!(
            !expire(&table, &Expire::default()).await.committed,
            "{format:?}: days by default"
        );
    }
    let (table, _, _) = old_table(FORMATS[0], &[]).await;
    for wrong in [
        Expire {
            older_than_ms: Some(-1),
            retain_last: None,
        },
        Expire {
            older_than_ms: None,
            retain_last: Some(0),
        },
    ] {
        let refused = table.expire(&wrong, &Options::default()).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
}

/// What a random table's versions read as, by version.
type Read = BTreeMap<Version, Vec<String>>;

#[tokio::test]
async fn random_tables_expire_at_random_and_every_kept_version_reads_the_same() {
    for format in FORMATS {
        for seed in 0..crate::support::setting("LAKEHOUSE_EXPIRE_SEEDS", 6) {
            let mut random = StdRng::seed_from_u64(seed);
            let interval = random.random_range(2..6).to_string();
            let properties: &[(&str, &str)] = match format.0 {
                TableFormat::Iceberg => &[("write.metadata.previous-versions-max", "3")],
                TableFormat::Delta if seed % 2 == 0 => &[("delta.checkpointInterval", &interval)],
                TableFormat::Delta => &[
                    ("delta.checkpointPolicy", "v2"),
                    ("delta.checkpointInterval", &interval),
                ],
            };
            let (table, store, age) = old_table(format, properties).await;
            let plain = Options::default();
            let mut expected: Read = BTreeMap::new();
            let mut next = 0;
            for round in 0..5 {
                for _ in 0..random.random_range(1..6) {
                    match random.random_range(0..6) {
                        0 if next > 3 => {
                            let id = random.random_range(0..next);
                            table.delete(&format!("id = {id}"), &plain).await.unwrap();
                        }
                        1 if next > 3 => {
                            table
                                .update("n = n + 1", Some("id % 3 = 0"), &plain)
                                .await
                                .unwrap();
                        }
                        2 => {
                            let compact = lakehouse_core::Compact::default();
                            table.compact(&compact, &plain).await.unwrap();
                        }
                        _ => {
                            next += 1;
                            append(&table, &format!("({next}, 'r{}', 1)", next % 2)).await;
                        }
                    }
                    let newest = table.snapshot(&At::Latest).await.unwrap().version;
                    expected.insert(newest, content(&table).await);
                }
                if random.random_bool(0.7) {
                    age.pass().await;
                }
                let keep = random.random_range(1..5);
                let case = format!("{format:?}, seed {seed}, round {round}, the last {keep}");
                let before = numbers(&table).await;
                let line: Vec<Version> = table
                    .history(None)
                    .await
                    .unwrap()
                    .iter()
                    .map(|commit| commit.version)
                    .collect();
                let report = expire(&table, &last(keep)).await;
                let after = numbers(&table).await;
                let stays: BTreeSet<Version> = line.iter().take(keep as usize).copied().collect();
                let after: BTreeSet<Version> = after.into_iter().collect();
                assert!(
                    stays.is_subset(&after),
                    "{case}: {stays:?} are to stay of {before:?}: {after:?}"
                );
                if report.too_young == 0 {
                    assert_eq!(stays, after, "{case}: {before:?} {report:?}");
                }
                assert_eq!(report.kept as usize, after.len(), "{case}");
                for version in after.iter().filter(|version| expected.contains_key(version)) {
                    let found = rows_at(&store, &At::Version(*version)).await;
                    assert_eq!(found.unwrap(), expected[version], "{case}: version {version}");
                }
                let newest = rows_at(&store, &At::Latest).await.unwrap();
                assert_eq!(newest, content(&table).await, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_reader_who_began_before_reads_on_while_its_log_goes() {
    let (table, store, age) =
        old_table((TableFormat::Delta, None), &[("delta.checkpointInterval", "4")]).await;
    for id in 0..7 {
        append(&table, &format!("({id}, 'eu', 1)")).await;
    }
    table.delete("id = 5", &Options::default()).await.unwrap();
    age.pass().await;
    // One who has not listed the files yet, one who has loaded a table long ago, of the newest and of an older version.
    let slow = Table::open_in(store.clone()).await.unwrap();
    let (newest, older) = (At::Latest, At::Version(6));
    let began = [
        slow.provider(&newest).await.unwrap(),
        slow.provider(&older).await.unwrap(),
    ];
    let expected = [
        rows_at(&store, &newest).await.unwrap(),
        rows_at(&store, &older).await.unwrap(),
    ];
    let report = expire(&table, &last(3)).await;
    assert_eq!(report.files.checkpoint, Some(6));
    for (provider, expected) in began.into_iter().zip(expected) {
        let frame = scan::session(None).read_table(provider).unwrap();
        assert_eq!(lines(&frame.collect().await.unwrap()), expected);
    }
    let keyed = Options {
        token: Some("k".into()),
        ..Options::default()
    };
    let rows = super::rows("id, region, n", "(50, 'us', 1)").await;
    assert!(slow.append(rows, &keyed).await.unwrap().committed);
    for id in 60..66 {
        append(&slow, &format!("({id}, 'eu', 1)")).await;
    }
    let checkpoints = store.list("_delta_log/").await.unwrap();
    assert!(
        checkpoints.iter().any(|file| file.path.contains("12.checkpoint")),
        "{checkpoints:?}"
    );
}

#[tokio::test]
async fn a_reader_who_began_before_reads_on_while_its_checkpoint_goes() {
    for (kind, policy) in [(CheckpointKind::Classic, "classic"), (CheckpointKind::V2, "v2")] {
        let properties = [
            ("delta.checkpointInterval", "100"),
            ("delta.checkpointPolicy", policy),
        ];
        let (table, store, _) = old_table((TableFormat::Delta, None), &properties).await;
        let mut checkpoints = Vec::new();
        for id in 0..6 {
            append(&table, &format!("({id}, 'eu', 1)")).await;
            if id == 3 {
                table.checkpoint(kind).await.unwrap();
                checkpoints = store.list("_delta_log/").await.unwrap();
                checkpoints.retain(|file| file.path.contains(".checkpoint"));
            }
        }
        let slow = Table::open_in(store.clone()).await.unwrap();
        let began = slow.provider(&At::Latest).await.unwrap();
        // The log before it is still there: only what it was loaded from is gone.
        table.checkpoint(kind).await.unwrap();
        assert!(!checkpoints.is_empty(), "{kind:?}");
        let gone: Vec<String> = checkpoints.into_iter().map(|file| file.path).collect();
        store.delete(&gone).await.unwrap();
        let frame = scan::session(None).read_table(began).unwrap();
        let expected = rows_at(&store, &At::Latest).await.unwrap();
        assert_eq!(expected.len(), 6);
        assert_eq!(lines(&frame.collect().await.unwrap()), expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_says_something_else_than_the_log_stops_the_clean_up() {
    let (table, store, age) =
        old_table((TableFormat::Delta, None), &[("delta.checkpointInterval", "3")]).await;
    for id in 0..7 {
        append(&table, &format!("({id}, 'eu', 1)")).await;
    }
    let older = store
        .get("_delta_log/00000000000000000003.checkpoint.parquet")
        .await
        .unwrap();
    store
        .put("_delta_log/00000000000000000006.checkpoint.parquet", older)
        .await
        .unwrap();
    age.pass().await;
    let before = keys(&store).await;
    let refused = table.expire(&last(2), &Options::default()).await;
    let Err(Error::Invalid { .. }) = &refused else {
        panic!("{refused:?}");
    };
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("does not say what the log says")
    );
    assert_eq!(keys(&store).await, before);
}

#[tokio::test]
async fn protected_checkpoints_are_left_alone_unless_all_before_them_goes() {
    let (table, store, age) =
        old_table((TableFormat::Delta, None), &[("delta.checkpointInterval", "100")]).await;
    for id in 0..8 {
        append(&table, &format!("({id}, 'eu', 1)")).await;
    }
    let key = "_delta_log/00000000000000000000.json";
    let text = String::from_utf8(store.get(key).await.unwrap().to_vec()).unwrap();
    let text = text
        .replace(
            "\"writerFeatures\":[",
            "\"writerFeatures\":[\"checkpointProtection\",",
        )
        .replace(
            "\"configuration\":{",
            "\"configuration\":{\"delta.requireCheckpointProtectionBeforeVersion\":\"5\",",
        );
    store.put(key, text.into_bytes().into()).await.unwrap();
    age.pass().await;
    let table_again = Table::open_in(store.clone()).await.unwrap();
    let before = keys(&store).await;
    let refused = table_again.expire(&last(6), &Options::default()).await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    assert_eq!(keys(&store).await, before);
    let report = expire(&table_again, &last(3)).await;
    assert_eq!(report.files.checkpoint, Some(6), "{report:?}");
    drop(table);
    assert_eq!(content(&table_again).await.len(), 8);
}

#[tokio::test]
async fn everything_of_the_log_that_only_old_versions_need_goes() {
    let properties = [
        ("delta.checkpointInterval", "2"),
        ("delta.checkpointPolicy", "v2"),
    ];
    let (table, store, age) = old_table((TableFormat::Delta, None), &properties).await;
    for id in 0..6 {
        append(&table, &format!("({id}, 'eu', 1)")).await;
    }
    for name in [
        "00000000000000000001.crc",
        "00000000000000000006.crc",
        "00000000000000000001.00000000000000000003.compacted.json",
        "_sidecars/left-over.parquet",
    ] {
        store
            .put(&format!("_delta_log/{name}"), "{}".into())
            .await
            .unwrap();
    }
    age.pass().await;
    let rows = content(&table).await;
    let report = expire(&table, &last(1)).await;
    assert_eq!(report.files.checkpoint, Some(6));
    let left: Vec<String> = keys(&store)
        .await
        .into_iter()
        .filter(|key| key.starts_with("_delta_log/"))
        .collect();
    let names: Vec<&str> = left
        .iter()
        .map(|key| key.trim_start_matches("_delta_log/"))
        .collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.contains(&"00000000000000000006.crc") && names.contains(&"_last_checkpoint"));
    assert_eq!(
        names.iter().filter(|name| name.starts_with("_sidecars/")).count(),
        1,
        "{names:?}"
    );
    assert_eq!(rows_at(&store, &At::Latest).await.unwrap(), rows);
}

#[tokio::test]
async fn checkpoints_of_both_kinds_read_as_the_log_and_need_no_log_before_them() {
    for (policy, kind) in [("classic", CheckpointKind::Classic), ("v2", CheckpointKind::V2)] {
        let properties = [
            ("delta.checkpointInterval", "100"),
            ("delta.checkpointPolicy", policy),
        ];
        let (table, store, _) = old_table((TableFormat::Delta, None), &properties).await;
        for id in 0..5 {
            append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 10)).await;
        }
        table.delete("id IN (1, 12)", &Options::default()).await.unwrap();
        let keyed = Options {
            token: Some("early".into()),
            ..Options::default()
        };
        let rows = || super::rows("id, region, n", "(70, 'eu', 1)");
        table.append(rows().await, &keyed).await.unwrap();
        let before = content(&table).await;
        let done = table.checkpoint(kind).await.unwrap();
        assert!(!done.already && done.version == 7, "{done:?}");
        assert_eq!(done.data_files, 9);
        assert_eq!(
            done.files.len(),
            if kind == CheckpointKind::V2 { 2 } else { 1 },
            "{done:?}"
        );
        assert!(table.checkpoint(CheckpointKind::Auto).await.unwrap().already);
        // Made again from the checkpoint, and not from the log.
        for round in 0..2 {
            let entries: Vec<String> = (0..7 + 2 * round)
                .map(|version| format!("_delta_log/{version:020}.json"))
                .collect();
            store.delete(&entries).await.unwrap();
            let fresh = Table::open_in(store.clone()).await.unwrap();
            assert_eq!(content(&fresh).await, before, "{policy}");
            let again = fresh.append(rows().await, &keyed).await.unwrap();
            assert_eq!(again.already, Some(7), "{policy}: {again:?}");
            fresh.delete("id = -1", &Options::default()).await.unwrap();
            fresh
                .update("n = 5", Some("id = 2"), &Options::default())
                .await
                .unwrap();
            fresh
                .update("n = 1", Some("id = 2"), &Options::default())
                .await
                .unwrap();
            assert_eq!(content(&fresh).await, before, "{policy}");
            fresh.checkpoint(kind).await.unwrap();
        }
    }
    let (table, _, _) = old_table((TableFormat::Delta, None), &[]).await;
    let refused = table.checkpoint(CheckpointKind::V2).await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    let (table, _, _) = old_table(FORMATS[0], &[]).await;
    let refused = table.checkpoint(CheckpointKind::Auto).await.unwrap_err();
    assert!(
        refused.to_string().contains("iceberg tables have no checkpoints"),
        "{refused}"
    );
}

#[tokio::test]
async fn metadata_files_that_the_log_does_not_name_go_when_they_are_old() {
    for format in &FORMATS[..2] {
        let (table, store, age) = old_table(*format, &[("write.metadata.previous-versions-max", "3")]).await;
        for id in 0..9 {
            append(&table, &format!("({id}, 'eu', 1)")).await;
        }
        let everything = Expire {
            older_than_ms: None,
            retain_last: Some(100),
        };
        let young = expire(&table, &everything).await;
        assert_eq!(
            (young.files.files.len(), young.files.too_young),
            (0, 6),
            "{young:?}"
        );
        age.pass().await;
        // A hint that is late, and names what is about to go.
        store.put("metadata/version-hint.text", "2".into()).await.unwrap();
        let report = expire(&table, &everything).await;
        let names: Vec<String> = (1..7).map(|n| format!("metadata/v{n}.metadata.json")).collect();
        assert_eq!(report.files.files, names);
        assert!(!report.committed);
        assert_eq!(store.get("metadata/version-hint.text").await.unwrap(), "10");
        let rows = content(&table).await;
        for hint in [Some("3"), None] {
            match hint {
                Some(hint) => store
                    .put("metadata/version-hint.text", hint.into())
                    .await
                    .unwrap(),
                None => store
                    .delete(&["metadata/version-hint.text".into()])
                    .await
                    .unwrap(),
            }
            assert_eq!(rows_at(&store, &At::Latest).await.unwrap(), rows, "hint {hint:?}");
        }
        append(&table, "(9, 'eu', 1)").await;
        assert!(keys(&store).await.contains("metadata/v11.metadata.json"));
        let definition = lakehouse_core::model::Definition {
            schema: super::schema(),
            partition_fields: vec![],
            properties: Default::default(),
            format_version: None,
        };
        let twice = Table::create_in(store.clone(), TableFormat::Iceberg, &definition).await;
        assert!(matches!(twice, Err(Error::AlreadyExists { .. })), "{twice:?}");
    }
}

#[tokio::test]
async fn commits_delete_old_metadata_files_where_the_table_asks_for_it() {
    let properties = [
        ("write.metadata.previous-versions-max", "2"),
        ("write.metadata.delete-after-commit.enabled", "true"),
    ];
    let (table, store, age) = old_table(FORMATS[0], &properties).await;
    for id in 0..18 {
        append(&table, &format!("({id}, 'eu', 1)")).await;
    }
    store
        .put("metadata/v3.gz.metadata.json", "{}".into())
        .await
        .unwrap();
    age.pass().await;
    append(&table, "(18, 'eu', 1)").await;
    let left = store.list("metadata/v").await.unwrap();
    let left: Vec<String> = left
        .into_iter()
        .map(|file| file.path)
        .filter(|key| key.ends_with(".json"))
        .collect();
    assert_eq!(
        left,
        [
            "metadata/v18.metadata.json",
            "metadata/v19.metadata.json",
            "metadata/v20.metadata.json"
        ]
    );
    assert_eq!(content(&table).await.len(), 19);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_an_expirer_at_the_same_time_lose_nothing() {
    for format in FORMATS {
        let (table, store, age) = old_table(format, &[("delta.checkpointInterval", "3")]).await;
        append(&table, "(-1, 'eu', 1)").await;
        let writers = (0..3).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let table = Table::open_in(store).await.unwrap();
                for id in 0..8 {
                    append(&table, &format!("({}, 'eu', 1)", writer * 100 + id)).await;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut expired = 0;
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            age.pass().await;
            // It takes turns with the others, and reads on.
            expired += expire(&table, &last(3)).await.expired.len();
            rows_at(&store, &At::Version(-1)).await.unwrap();
        }
        for writer in writers {
            writer.await.unwrap();
        }
        age.pass().await;
        expired += expire(&table, &last(3)).await.expired.len();
        assert!(expired >= 20, "{format:?}: {expired}");
        assert_eq!(content(&table).await.len(), 25, "{format:?}");
        assert_eq!(numbers(&table).await.len(), 3, "{format:?}");
    }
}
