//! Tags and branches: made, moved, written to, published, dropped.

use lakehouse_core::model::{At, MAIN, RefKind, Retention};
use lakehouse_core::operations::SetRef;
use lakehouse_core::scan;
use lakehouse_core::sql::Executed;
use lakehouse_core::store::StorageOptions;
use lakehouse_core::{Compact, Error, Merge, Options, Report, Result, SchemaMode, Table, TableFormat};

use super::{append, content, lines, rows, table};

const FORMATS: [(TableFormat, Option<u8>); 2] =
    [(TableFormat::Iceberg, Some(2)), (TableFormat::Iceberg, Some(3))];

fn on(branch: &str) -> Options {
    Options {
        branch: Some(branch.to_owned()),
        ..Options::default()
    }
}

async fn make(table: &Table, kind: RefKind, name: &str) {
    let report = table.set_ref(&SetRef::new(kind, name), &Options::default()).await;
    assert!(report.unwrap().committed);
}

async fn forward(table: &Table, branch: &str, to: &str) -> Result<bool> {
    let report = table.fast_forward(branch, to, &Options::default()).await?;
    Ok(report.committed)
}

async fn append_on(table: &Table, branch: &str, values: &str) -> Report {
    let rows = rows("id, region, n", values).await;
    table.append(rows, &on(branch)).await.unwrap()
}

/// The rows at a tag or branch, sorted.
async fn content_at(table: &Table, name: &str) -> Vec<String> {
    let provider = table.provider(&At::Ref(name.to_owned())).await.unwrap();
    let frame = scan::session(None).read_table(provider).unwrap();
    lines(&frame.collect().await.unwrap())
}

async fn version(table: &Table, name: &str) -> i64 {
    table.snapshot(&At::Ref(name.to_owned())).await.unwrap().version
}

fn said(result: Result<impl std::fmt::Debug>) -> String {
    let error = result.unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

#[tokio::test]
async fn a_tag_stays_at_its_version_and_making_it_again_does_nothing() {
    for format in FORMATS {
        let table = table(format, "").await;
        let early = table
            .set_ref(&SetRef::new(RefKind::Tag, "v0"), &Options::default())
            .await;
        assert!(said(early).contains("write to the table first"));
        let first = append(&table, "(1, 'eu', 1)").await.version;
        let v1 = SetRef::new(RefKind::Tag, "v1");
        make(&table, RefKind::Tag, "v1").await;
        let again = table.set_ref(&v1, &Options::default()).await.unwrap();
        assert!(!again.committed && again.before == again.after);
        let second = append(&table, "(2, 'eu', 2)").await.version;
        assert_eq!(content_at(&table, "v1").await, ["1|eu|1"]);
        assert_eq!(content(&table).await.len(), 2);

        let taken = said(table.set_ref(&v1, &Options::default()).await);
        assert!(
            taken.contains(&format!("at version {first}")) && taken.contains("replace"),
            "{taken}"
        );
        let replace = SetRef {
            replace: true,
            ..v1.clone()
        };
        let dry = Options {
            dry_run: true,
            ..Options::default()
        };
        let told = table.set_ref(&replace, &dry).await.unwrap();
        assert!(told.dry_run && !told.committed && told.after.unwrap().version == second);
        assert_eq!(version(&table, "v1").await, first);
        assert!(
            table
                .set_ref(&replace, &Options::default())
                .await
                .unwrap()
                .committed
        );
        assert_eq!(version(&table, "v1").await, second);
        let back = SetRef {
            at: Some(At::Version(-1)),
            ..replace
        };
        table.set_ref(&back, &Options::default()).await.unwrap();
        assert_eq!(version(&table, "v1").await, first);

        let dropped = table
            .drop_ref(RefKind::Tag, "v1", &Options::default())
            .await
            .unwrap();
        assert!(dropped.committed && dropped.before.unwrap().version == first && dropped.after.is_none());
        let gone = table.drop_ref(RefKind::Tag, "v1", &Options::default()).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_tag_or_branch_is_refused_with_what_to_do() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        make(&table, RefKind::Branch, "audit").await;
        let options = Options::default();
        for name in ["", "7", "-1", " x"] {
            let refused = said(table.set_ref(&SetRef::new(RefKind::Tag, name), &options).await);
            assert!(refused.contains("choose a name"), "{refused}");
        }
        let other_kind = said(table.set_ref(&SetRef::new(RefKind::Tag, "audit"), &options).await);
        assert!(
            other_kind.contains("\"audit\" is a branch, not a tag"),
            "{other_kind}"
        );
        let other_kind = said(table.drop_ref(RefKind::Tag, "audit", &options).await);
        assert!(other_kind.contains("\"audit\" is a branch"), "{other_kind}");
        let unknown = SetRef {
            at: Some(At::Version(4711)),
            ..SetRef::new(RefKind::Tag, "v1")
        };
        assert!(matches!(
            table.set_ref(&unknown, &options).await,
            Err(Error::NotFound { .. })
        ));
        assert!(said(table.drop_ref(RefKind::Branch, MAIN, &options).await).contains("cannot be dropped"));
        append(&table, "(2, 'eu', 2)").await;
        let back = SetRef {
            at: Some(At::Version(-1)),
            replace: true,
            ..SetRef::new(RefKind::Branch, MAIN)
        };
        assert!(said(table.set_ref(&back, &options).await).contains("restore"));
        assert!(said(forward(&table, MAIN, "nowhere").await).contains("branch \"nowhere\" not found"));
        make(&table, RefKind::Tag, "v1").await;
        let fixed = said(table.append(rows("id", "(3)").await, &on("v1")).await);
        assert!(fixed.contains("is a tag, which stays where it is"), "{fixed}");
        let missing = table.append(rows("id", "(3)").await, &on("nowhere")).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
        assert_eq!(content(&table).await.len(), 2);
    }
}

#[tokio::test]
async fn how_long_a_name_is_kept_is_stored_and_changed_by_replacing_it() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        make(&table, RefKind::Branch, "audit").await;
        append_on(&table, "audit", "(2, 'eu', 2)").await;
        let written = version(&table, "audit").await;
        let kept = Retention {
            max_ref_age_ms: Some(1000),
            min_snapshots_to_keep: Some(3),
            max_snapshot_age_ms: None,
        };
        let keep = SetRef {
            retention: kept,
            replace: true,
            ..SetRef::new(RefKind::Branch, "audit")
        };
        table.set_ref(&keep, &Options::default()).await.unwrap();
        let longer = Retention {
            max_ref_age_ms: Some(2000),
            ..Retention::default()
        };
        let longer = SetRef {
            retention: longer,
            ..keep
        };
        table.set_ref(&longer, &Options::default()).await.unwrap();
        append_on(&table, "audit", "(3, 'eu', 3)").await;
        let audit = table.snapshot(&At::Latest).await.unwrap().refs["audit"];
        assert_eq!(
            audit.retention,
            Retention {
                max_ref_age_ms: Some(2000),
                ..kept
            }
        );
        assert_ne!(audit.version, written, "a commit moves it and keeps the rest");

        let refused = [
            SetRef {
                retention: kept,
                ..SetRef::new(RefKind::Tag, "v1")
            },
            SetRef {
                retention: longer.retention,
                ..SetRef::new(RefKind::Branch, MAIN)
            },
            SetRef {
                retention: Retention {
                    min_snapshots_to_keep: Some(0),
                    ..Retention::default()
                },
                ..SetRef::new(RefKind::Branch, "b")
            },
        ];
        for wanted in refused {
            assert!(matches!(
                table.set_ref(&wanted, &Options::default()).await,
                Err(Error::Invalid { .. })
            ));
        }
        let main = SetRef {
            retention: Retention {
                min_snapshots_to_keep: Some(9),
                ..Retention::default()
            },
            replace: true,
            ..SetRef::new(RefKind::Branch, MAIN)
        };
        assert!(table.set_ref(&main, &Options::default()).await.unwrap().committed);
        assert_eq!(content(&table).await, ["1|eu|1"]);
    }
}

#[tokio::test]
async fn every_verb_writes_to_a_branch_and_leaves_main_alone() {
    for format in FORMATS {
        let table = table(format, "region").await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2), (3, 'us', 3)").await;
        make(&table, RefKind::Branch, "audit").await;
        let main = table.snapshot(&At::Latest).await.unwrap();
        let audit = on("audit");
        append_on(&table, "audit", "(4, 'us', 4)").await;
        table.delete("id = 2", &audit).await.unwrap();
        table.update("n = n + 10", Some("id = 1"), &audit).await.unwrap();
        // It sees rows that only the branch has, and not those that it lost.
        let merge = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let source = rows("id, region, n", "(4, 'us', 40), (2, 'eu', 20)").await;
        let report = table.merge(source, &merge, &audit).await.unwrap();
        assert_eq!(report.metric("num_target_rows_updated"), 1);
        assert_eq!(report.metric("num_target_rows_inserted"), 1);
        table.compact(&Compact::default(), &audit).await.unwrap();
        assert_eq!(
            content_at(&table, "audit").await,
            ["1|eu|11", "2|eu|20", "3|us|3", "4|us|40"]
        );
        let replaced = rows("id, region, n", "(9, 'us', 9)").await;
        table
            .overwrite(replaced, Some("region = 'us'"), &audit)
            .await
            .unwrap();
        assert_eq!(
            content_at(&table, "audit").await,
            ["1|eu|11", "2|eu|20", "9|us|9"]
        );
        table.restore(&At::Version(-1), &audit).await.unwrap();
        assert_eq!(
            content_at(&table, "audit").await,
            ["1|eu|11", "2|eu|20", "3|us|3", "4|us|40"]
        );
        let mut statement = Table::session(None, &StorageOptions::default());
        statement.table("t", table.handle().clone(), At::Latest);
        let sql = "DELETE FROM t WHERE n = (SELECT max(n) FROM t)";
        let done = statement.execute(sql, &audit).await.unwrap();
        assert!(matches!(done, Executed::Changed { .. }));
        assert_eq!(
            content_at(&table, "audit").await,
            ["1|eu|11", "2|eu|20", "3|us|3"]
        );
        let history = table.history_at(&At::Ref("audit".into()), None).await.unwrap();
        assert_eq!(history.len(), 9);
        assert_eq!(history.last().unwrap().version, main.version);

        let now = table.snapshot(&At::Latest).await.unwrap();
        assert_eq!(now.version, main.version);
        assert_eq!(content(&table).await, ["1|eu|1", "2|eu|2", "3|us|3"]);
        assert_eq!(table.history(None).await.unwrap().len(), 1);
        let later = now.timestamp_ms + 86_400_000;
        assert_eq!(
            table.snapshot(&At::Timestamp(later)).await.unwrap().version,
            main.version
        );
    }
}

#[tokio::test]
async fn what_was_written_audited_and_found_good_is_published_by_a_fast_forward() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        make(&table, RefKind::Branch, "audit").await;
        append_on(&table, "audit", "(2, 'eu', 2)").await;
        append_on(&table, "audit", "(3, 'eu', 3)").await;
        let mut session = Table::session(None, &StorageOptions::default());
        session.table("t", table.handle().clone(), At::Latest);
        let bad = session
            .query("SELECT * FROM t VERSION AS OF 'audit' WHERE n < 0")
            .await
            .unwrap();
        assert_eq!(bad.count().await.unwrap(), 0);
        assert!(forward(&table, MAIN, "audit").await.unwrap());
        assert!(!forward(&table, MAIN, "audit").await.unwrap(), "main has it");
        assert_eq!(content(&table).await.len(), 3);
        let before = table.snapshot(&At::Version(-2)).await.unwrap();
        let newest = table.snapshot(&At::Latest).await.unwrap();
        // Main had these rows from the fast-forward on, not since they were written.
        let just_before = table.snapshot(&At::Timestamp(newest.timestamp_ms)).await.unwrap();
        assert_eq!(just_before.version, before.version);
        append(&table, "(4, 'eu', 4)").await;
        assert!(
            !forward(&table, MAIN, "audit").await.unwrap(),
            "it has more by now"
        );
        assert_eq!(content(&table).await.len(), 4);
        assert_eq!(content_at(&table, "audit").await.len(), 3);
        assert!(forward(&table, "audit", MAIN).await.unwrap());
        assert_eq!(version(&table, "audit").await, version(&table, MAIN).await);
    }
}

#[tokio::test]
async fn a_branch_that_lacks_versions_of_main_is_no_fast_forward() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        make(&table, RefKind::Branch, "audit").await;
        append_on(&table, "audit", "(2, 'eu', 2)").await;
        append(&table, "(3, 'eu', 3)").await;
        let refused = forward(&table, MAIN, "audit").await;
        assert!(
            refused.is_err(),
            "rows of main were lost by a fast-forward: {:?}",
            content(&table).await
        );
        let refused = said(refused);
        assert!(
            refused.contains("they would be lost") && refused.contains("make a new branch"),
            "{refused}"
        );
        assert_eq!(content(&table).await, ["1|eu|1", "3|eu|3"]);
    }
}

#[tokio::test]
async fn a_key_counts_on_a_branch_if_its_rows_are_there() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        let with_key = |branch: Option<&str>| Options {
            token: Some("night/1".into()),
            branch: branch.map(str::to_owned),
            ..Options::default()
        };
        let write = async |branch: Option<&str>| {
            let rows = rows("id, region, n", "(2, 'eu', 2)").await;
            table.append(rows, &with_key(branch)).await.unwrap().committed
        };
        make(&table, RefKind::Branch, "a").await;
        make(&table, RefKind::Branch, "b/c").await;
        assert!(write(Some("a")).await);
        assert!(!write(Some("a")).await);
        assert!(write(Some("b/c")).await, "the rows are on the other branch only");
        assert!(!write(Some("a")).await && !write(Some("b/c")).await);
        // What goes with a branch can be written again.
        table
            .drop_ref(RefKind::Branch, "a", &Options::default())
            .await
            .unwrap();
        make(&table, RefKind::Branch, "a").await;
        assert!(write(Some("a")).await);
        // What was published is not.
        assert!(forward(&table, MAIN, "a").await.unwrap());
        assert!(!write(None).await);
        let properties = table.snapshot(&At::Latest).await.unwrap().properties.clone();
        assert!(
            properties.contains_key("lakehouse.idempotency.night/1"),
            "{properties:?}"
        );
        table
            .drop_ref(RefKind::Branch, "a", &Options::default())
            .await
            .unwrap();
        assert!(!write(None).await);
        assert_eq!(content(&table).await, ["1|eu|1", "2|eu|2"]);
    }
}

#[tokio::test]
async fn columns_that_come_with_rows_of_a_branch_are_columns_of_the_table() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        make(&table, RefKind::Branch, "audit").await;
        make(&table, RefKind::Tag, "v1").await;
        let options = on("audit").schema_mode(SchemaMode::Merge);
        let with_tip = rows("id, tip", "(2, 0.5)").await;
        table.append(with_tip, &options).await.unwrap();
        assert_eq!(content(&table).await, ["1|eu|1|"]);
        assert_eq!(content_at(&table, "v1").await, ["1|eu|1"]);
        assert_eq!(content_at(&table, "audit").await, ["1|eu|1|", "2|||0.5"]);
        append(&table, "(3, 'eu', 3)").await;
        assert_eq!(content(&table).await, ["1|eu|1|", "3|eu|3|"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_different_branches_meet_and_all_land_where_they_belong() {
    for format in FORMATS {
        let table = table(format, "").await;
        append(&table, "(1, 'eu', 1)").await;
        make(&table, RefKind::Branch, "audit").await;
        let writers = ["main", "audit"]
            .into_iter()
            .flat_map(|branch| (0..2).map(move |n| (branch, n)));
        let writers: Vec<_> = writers
            .map(|(branch, writer)| {
                let table = table.clone();
                tokio::spawn(async move {
                    for round in 0..4 {
                        let id = 100 + writer * 10 + round;
                        append_on(&table, branch, &format!("({id}, '{branch}', 0)")).await;
                        let delete = format!("id = {id} AND n = 1");
                        table.delete(&delete, &on(branch)).await.unwrap();
                        table
                            .update("n = n + 1", Some("id = 1"), &on(branch))
                            .await
                            .unwrap();
                        let tag = format!("{branch}-{writer}-{round}");
                        make(&table, RefKind::Tag, &tag).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        for branch in ["main", "audit"] {
            let found = content_at(&table, branch).await;
            assert_eq!(found.len(), 9, "{branch}: {found:?}");
            assert!(found.contains(&"1|eu|9".to_owned()), "{branch}: {found:?}");
            assert_eq!(
                found.iter().filter(|row| row.contains(branch)).count(),
                8,
                "{found:?}"
            );
        }
        let refs = table.snapshot(&At::Latest).await.unwrap().refs.clone();
        assert_eq!(refs.len(), 2 + 16, "{refs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_that_race_a_fast_forward_are_never_lost() {
    for format in FORMATS {
        for round in 0..6 {
            let table = table(format, "").await;
            append(&table, "(1, 'eu', 1)").await;
            make(&table, RefKind::Branch, "audit").await;
            append_on(&table, "audit", "(2, 'eu', 2)").await;
            let other = table.clone();
            let writer = tokio::spawn(async move { append(&other, "(3, 'eu', 3)").await });
            let forwarded = forward(&table, MAIN, "audit").await;
            writer.await.unwrap();
            let mut expected = vec!["1|eu|1", "3|eu|3"];
            if forwarded.is_ok() {
                expected.insert(1, "2|eu|2");
            }
            assert_eq!(
                content(&table).await,
                expected,
                "{format:?} {round}: {forwarded:?}"
            );
        }
    }
}

#[tokio::test]
async fn delta_tables_say_that_they_have_none() {
    let table = table((TableFormat::Delta, None), "").await;
    append(&table, "(1, 'eu', 1)").await;
    let options = Options::default();
    let tag = said(table.set_ref(&SetRef::new(RefKind::Tag, "v1"), &options).await);
    assert!(
        tag.contains("cannot have tags or branches") && tag.contains("iceberg"),
        "{tag}"
    );
    assert!(
        said(table.drop_ref(RefKind::Tag, "v1", &options).await).contains("cannot have tags or branches")
    );
    assert!(said(forward(&table, "a", "b").await).contains("cannot have tags or branches"));
    let write = said(table.append(rows("id", "(3)").await, &on("audit")).await);
    assert!(write.contains("Delta tables have no branches or tags"), "{write}");
    append_on(&table, MAIN, "(2, 'eu', 2)").await;
    assert_eq!(content(&table).await.len(), 2);
}
