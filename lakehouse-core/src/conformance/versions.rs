//! Versions: made, raced for, found again, told apart, restored.

use super::*;
use crate::model::Begun;

pub(crate) async fn created_table_opens_with_its_definition(bed: Bed) {
    let (_, created) = bed.created().await;
    let opened = bed.open().snapshot(&At::Latest).await.unwrap();
    for snapshot in [&created, &opened] {
        let columns: Vec<_> = snapshot
            .schema
            .fields()
            .iter()
            .map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable()))
            .collect();
        let expected: Vec<_> = definition(None)
            .schema
            .fields()
            .iter()
            .map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable()))
            .collect();
        assert_eq!(columns, expected);
        assert_eq!(
            snapshot.properties.get("owner").map(String::as_str),
            Some("conformance")
        );
        assert_eq!(snapshot.partition_fields().len(), 1);
        assert_eq!(snapshot.partition_fields()[0].source, "ts");
        assert_eq!(snapshot.partition_fields()[0].transform, Transform::Day);
        assert!(!snapshot.partition_fields()[0].name.is_empty());
        assert!(snapshot.capabilities.writable);
        assert!(snapshot.timestamp_ms > 1_500_000_000_000);
    }
    assert_eq!(created.version, 0);
    assert!(list(&bed.open(), &opened).await.is_empty());
}

pub(crate) async fn creating_twice_loses(bed: Bed) {
    let missing = bed.open().snapshot(&At::Latest).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    bed.created().await;
    let again = bed
        .open()
        .create(&definition(bed.version), &clock::new_commit_id())
        .await
        .unwrap();
    assert!(matches!(again, Outcome::Lost), "{again:?}");
}

pub(crate) async fn second_publisher_on_one_base_loses_and_leaves_no_trace(bed: Bed) {
    let (format, base) = bed.created().await;
    let other = bed.open();
    let base_of_other = other.snapshot(&At::Latest).await.unwrap();
    let first = publish(
        &format,
        &base,
        &change(OperationKind::Append, vec![file("first", 1, 0, 1)]),
    )
    .await;
    let loser = change(OperationKind::Append, vec![file("second", 1, 1, 1)]);
    let outcome = other.publish(&base_of_other, &loser).await.unwrap();
    assert!(matches!(outcome, Outcome::Lost), "{outcome:?}");
    assert!(
        other
            .find(&loser.commit_id, &base_of_other)
            .await
            .unwrap()
            .is_none()
    );
    let newest = other.snapshot(&At::Latest).await.unwrap();
    assert_eq!(newest.version, first.version);
    assert_eq!(names(&other, &newest).await, ["first"]);
    let second = publish(&other, &newest, &loser).await;
    assert_eq!(names(&bed.open(), &second).await, ["first", "second"]);
}

pub(crate) async fn commit_is_found_by_its_id_and_token(bed: Bed) {
    let (format, base) = bed.created().await;
    let mine = Change {
        token: Some("night/42".into()),
        ..change(OperationKind::Append, vec![file("a", 1, 0, 1)])
    };
    let snapshot = publish(&format, &base, &mine).await;
    let after = publish(
        &format,
        &snapshot,
        &change(OperationKind::Append, vec![file("b", 1, 1, 1)]),
    )
    .await;
    let reader = bed.open();
    let found = reader
        .find(&mine.commit_id, &base)
        .await
        .unwrap()
        .expect("it landed");
    assert_eq!(found.version, snapshot.version);
    assert!(
        reader.find(&mine.commit_id, &snapshot).await.unwrap().is_none(),
        "it landed before that base"
    );
    let newest = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(newest.version, after.version);
    assert_eq!(
        reader.find_token(&newest, &"night/42".into()).await.unwrap(),
        Some(snapshot.version)
    );
    assert_eq!(
        reader.find_token(&newest, &"night/43".into()).await.unwrap(),
        None
    );
    assert_eq!(reader.find_token(&base, &"night/42".into()).await.unwrap(), None);
}

pub(crate) async fn a_stream_is_known_by_its_last_step(bed: Bed) {
    let (format, mut newest) = bed.created().await;
    assert_eq!(format.last_step(&newest, "feed").await.unwrap(), None);
    for (file_name, step, other) in [("a", 3, 1), ("b", 7, 2)] {
        for (name, key, step) in [(file_name, "feed", step), ("x", "other", other)] {
            let mine = Change {
                token: Some(Token::step(key, step)),
                ..change(
                    OperationKind::Append,
                    vec![file(&format!("{name}{step}"), 1, step as i64, 1)],
                )
            };
            newest = publish(&format, &newest, &mine).await;
        }
        let reader = bed.open();
        let opened = reader.snapshot(&At::Latest).await.unwrap();
        assert_eq!(reader.last_step(&opened, "feed").await.unwrap(), Some(step));
        assert_eq!(reader.last_step(&opened, "other").await.unwrap(), Some(other));
        for (asked, done) in [(0, true), (step - 1, true), (step, true), (step + 1, false)] {
            let token = Token::step("feed", asked);
            let found = reader.find_token(&opened, &token).await.unwrap();
            assert_eq!(found.is_some(), done, "{asked} after {step}");
        }
        // The same name without steps is another key.
        assert_eq!(reader.find_token(&opened, &"feed".into()).await.unwrap(), None);
    }
}

pub(crate) async fn old_versions_are_found_by_number_distance_and_time(bed: Bed) {
    let (format, mut snapshot) = bed.created().await;
    let mut versions = Vec::new();
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        // Versions are told apart by time: no two in one millisecond.
        clock::pause(std::time::Duration::from_millis(30)).await;
        snapshot = publish(
            &format,
            &snapshot,
            &change(OperationKind::Append, vec![file(name, 1, n as i64, 1)]),
        )
        .await;
        versions.push(Arc::clone(&snapshot));
    }
    let reader = bed.open();
    for (n, version) in versions.iter().enumerate() {
        let expected = &["a", "b", "c"][..=n];
        for at in [
            At::Version(version.version),
            At::Timestamp(version.timestamp_ms),
            At::Timestamp(version.timestamp_ms + 3),
        ] {
            let found = reader.snapshot(&at).await.unwrap();
            assert_eq!(found.version, version.version, "{at:?}");
            assert_eq!(found.timestamp_ms, version.timestamp_ms, "{at:?}");
            assert_eq!(names(&reader, &found).await, expected, "{at:?}");
        }
    }
    let before = reader.snapshot(&At::Version(-1)).await.unwrap();
    assert_eq!(before.version, versions[1].version);
    for missing in [At::Version(4_242_424_242), At::Version(-77), At::Timestamp(1_000)] {
        let error = reader.snapshot(&missing).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{missing:?}: {error:?}");
        assert!(error.hint().is_some(), "{missing:?}: the error says what to do");
    }
}

pub(crate) async fn changes_tell_what_each_winner_did(bed: Bed) {
    let (format, base) = bed.created().await;
    let append = change(
        OperationKind::Append,
        vec![file("a", 1, 0, 10), file("b", 2, 10, 10)],
    );
    let appended = publish(&format, &base, &append).await;
    let mut last = Arc::clone(&appended);
    let mut expected = vec![(OperationKind::Append, vec!["a", "b"], vec![], vec![], true)];
    if last.capabilities.masks {
        let listed = list(&format, &last).await;
        let hidden: RowMask = [1].into_iter().collect();
        last = mask(
            &format,
            &last,
            OperationKind::Delete,
            vec![(listed[1].clone(), hidden)],
        )
        .await;
        expected.push((OperationKind::Delete, vec![], vec![], vec!["b"], true));
    }
    let mut compact = change(OperationKind::Compact, vec![file("a2", 1, 0, 10)]);
    compact.removed = list(&format, &last)
        .await
        .into_iter()
        .filter(|f| name_of(f) == "a")
        .collect();
    last = publish(&format, &last, &compact).await;
    expected.push((OperationKind::Compact, vec!["a2"], vec!["a"], vec![], false));
    let mut overwrite = change(OperationKind::Overwrite, vec![file("z", 3, 90, 5)]);
    overwrite.removed = list(&format, &last).await;
    last = publish(&format, &last, &overwrite).await;
    expected.push((OperationKind::Overwrite, vec!["z"], vec!["a2", "b"], vec![], true));

    let reader = bed.open();
    let told = reader.changes(&base, &last).await.unwrap();
    let sorted = |files: Vec<String>| files.into_iter().collect::<BTreeSet<_>>();
    for (told, (operation, added, removed, masked, data_change)) in told.iter().zip(&expected) {
        assert_eq!(told.operation, *operation);
        assert_eq!(
            sorted(told.added.iter().map(name_of).collect()),
            sorted(added.iter().map(|s| (*s).into()).collect())
        );
        assert_eq!(
            sorted(told.removed.iter().map(name_of).collect()),
            sorted(removed.iter().map(|s| (*s).into()).collect())
        );
        assert_eq!(
            sorted(told.masked.iter().map(|(f, _)| name_of(f)).collect()),
            sorted(masked.iter().map(|s| (*s).into()).collect())
        );
        assert_eq!(told.data_change, *data_change, "{operation:?}");
        assert!(
            !told.metadata.schema && !told.metadata.partitioning,
            "{operation:?}"
        );
    }
    assert_eq!(told.len(), expected.len());
    assert!(reader.changes(&last, &last).await.unwrap().is_empty());
    let later = reader.changes(&appended, &last).await.unwrap();
    assert_eq!(later.len(), expected.len() - 1);
    // The conflict rules prune a winner's files: their statistics come along.
    assert_eq!(told[0].added[0].columns["id"].nulls, Some(0));
    assert_eq!(told[0].added[0].partition.len(), 1);
}

pub(crate) async fn restore_brings_an_old_version_back(bed: Bed) {
    let (format, base) = bed.created().await;
    let first = publish(
        &format,
        &base,
        &change(OperationKind::Append, vec![file("a", 1, 0, 10)]),
    )
    .await;
    let mut old = Arc::clone(&first);
    let mut hidden = RowMask::new();
    if first.capabilities.masks {
        hidden.insert(4);
        let listed = list(&format, &first).await;
        old = mask(
            &format,
            &first,
            OperationKind::Delete,
            vec![(listed[0].clone(), hidden.clone())],
        )
        .await;
    }
    let mut overwrite = change(OperationKind::Overwrite, vec![file("b", 2, 0, 3)]);
    overwrite.removed = list(&format, &old).await;
    let newest = publish(&format, &old, &overwrite).await;
    let restore = Change {
        restore: Some(old.version),
        ..change(OperationKind::Restore, Vec::new())
    };
    let restored = publish(&format, &newest, &restore).await;
    assert_ne!(restored.version, old.version, "a restore is a commit of its own");
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.version, restored.version);
    let listed = list(&reader, &opened).await;
    assert_eq!(listed.iter().map(name_of).collect::<Vec<_>>(), ["a"]);
    assert_eq!(reader.masks(&opened, &listed).await.unwrap(), [hidden]);
    let between = reader.snapshot(&At::Version(newest.version)).await.unwrap();
    assert_eq!(
        names(&reader, &between).await,
        ["b"],
        "what was restored over stays in history"
    );
    let after = publish(
        &reader,
        &opened,
        &change(OperationKind::Append, vec![file("c", 1, 50, 1)]),
    )
    .await;
    assert_eq!(names(&bed.open(), &after).await, ["a", "c"]);
}

pub(crate) async fn history_is_newest_first(bed: Bed) {
    let (format, base) = bed.created().await;
    let first = publish(
        &format,
        &base,
        &change(OperationKind::Append, vec![file("a", 1, 0, 1)]),
    )
    .await;
    let second = publish(
        &format,
        &first,
        &change(OperationKind::Append, vec![file("b", 1, 1, 1)]),
    )
    .await;
    let history = bed.open().history(&At::Latest, None).await.unwrap();
    let versions: Vec<_> = history.iter().map(|commit| commit.version).collect();
    assert_eq!(versions[..2], [second.version, first.version]);
    assert!(
        history
            .windows(2)
            .all(|pair| pair[0].timestamp_ms >= pair[1].timestamp_ms)
    );
    assert_eq!(history[0].parent, Some(first.version));
    assert_eq!(bed.open().history(&At::Latest, Some(1)).await.unwrap().len(), 1);
}

pub(crate) async fn everything_written_is_reachable_and_nothing_else(bed: Bed) {
    let (format, base) = bed.created().await;
    let mut snapshot = publish(
        &format,
        &base,
        &change(
            OperationKind::Append,
            vec![file("a", 1, 0, 9), file("b", 2, 9, 9)],
        ),
    )
    .await;
    if snapshot.capabilities.masks {
        let listed = list(&format, &snapshot).await;
        let hidden: RowMask = [3].into_iter().collect();
        snapshot = mask(
            &format,
            &snapshot,
            OperationKind::Delete,
            vec![(listed[0].clone(), hidden)],
        )
        .await;
    }
    let mut overwrite = change(OperationKind::Overwrite, vec![file("c", 2, 0, 3)]);
    overwrite.removed = list(&format, &snapshot).await;
    publish(&format, &snapshot, &overwrite).await;
    let reachable = bed.open().reachable(None).await.unwrap();
    let stored: BTreeSet<String> = bed
        .store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.path)
        .collect();
    let data: BTreeSet<String> = ["a", "b", "c"]
        .iter()
        .map(|n| format!("data/{n}.parquet"))
        .collect();
    assert_eq!(reachable, stored.union(&data).cloned().collect());
    let newest = bed.open().snapshot(&At::Latest).await.unwrap();
    let kept = bed.open().reachable(Some(&[newest.version])).await.unwrap();
    assert!(kept.contains("data/c.parquet") && !kept.contains("data/a.parquet"));
    assert!(kept.is_subset(&reachable));
}

pub(crate) async fn racing_publishers_each_land_exactly_once(bed: Bed) {
    let (_, _) = bed.created().await;
    let bed = Arc::new(bed);
    let writers: Vec<_> = (0..6)
        .map(|n| {
            let bed = Arc::clone(&bed);
            tokio::spawn(async move {
                let format = bed.open();
                let mine = change(OperationKind::Append, vec![file(&format!("w{n}"), 1, n, 1)]);
                loop {
                    let base = format.snapshot(&At::Latest).await.unwrap();
                    match format.publish(&base, &mine).await.unwrap() {
                        Outcome::Committed(_) => break,
                        Outcome::Lost => {}
                        Outcome::Unknown(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let reader = bed.open();
    let newest = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(
        names(&reader, &newest).await,
        ["w0", "w1", "w2", "w3", "w4", "w5"]
    );
}

pub(crate) async fn many_commits_stay_readable(bed: Bed) {
    let (format, mut snapshot) = bed.created().await;
    for n in 0..25 {
        let mut next = change(OperationKind::Append, vec![file(&format!("{n:02}"), 1, n, 1)]);
        if n % 5 == 4 {
            next.operation = OperationKind::Compact;
            next.data_change = false;
            next.removed = list(&format, &snapshot).await;
        }
        snapshot = publish(&format, &snapshot, &next).await;
    }
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(names(&reader, &opened).await, ["24"]);
    let earlier = reader.snapshot(&At::Version(-2)).await.unwrap();
    assert_eq!(names(&reader, &earlier).await, ["19", "20", "21", "22"]);
}

/// A writer that slept between its look at the lease and its put: a vacuum may have taken what it staged.
pub(crate) async fn a_change_that_is_too_old_is_not_published(bed: Bed) {
    let (format, base) = bed.created().await;
    let mut append = change(OperationKind::Append, vec![file("a", 1, 1, 1)]);
    let hours_ago = |hours: i64| {
        Some(Begun {
            wall_ms: clock::now_ms() - hours * 3_600_000,
            steady: None,
        })
    };
    append.begun = hours_ago(37);
    let before = bed.store.list("").await.unwrap();
    let outcome = format.publish(&base, &append).await.unwrap();
    assert!(matches!(outcome, Outcome::Lost), "{outcome:?}");
    assert_eq!(bed.store.list("").await.unwrap(), before, "it leaves nothing");
    assert!(format.find(&append.commit_id, &base).await.unwrap().is_none());
    append.begun = hours_ago(23);
    publish(&format, &base, &append).await;
}
