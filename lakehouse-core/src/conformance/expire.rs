//! Versions that go, and what stays.

use super::*;
use crate::model::{Cleanup, Retained, Retention, Version};

pub(crate) async fn versions_expire_and_the_kept_ones_read_on(bed: Bed) {
    let (format, mut newest) = bed.created().await;
    let mut made = Vec::new();
    for id in 0..5 {
        let append = change(OperationKind::Append, vec![file(&format!("f{id}"), 1, id, 1)]);
        newest = publish(&format, &newest, &append).await;
        made.push(newest.version);
    }
    let all = format.versions(&newest).await.unwrap();
    for (at, version) in made.iter().enumerate() {
        let one: &Retained = all.iter().find(|one| one.version == *version).unwrap();
        assert!(at == 0 || one.parent == Some(made[at - 1]), "{one:?}");
    }
    let retention = format.retention(&newest, Retention::default()).unwrap();
    assert!(retention.max_snapshot_age_ms > Some(0));
    let kept: BTreeSet<Version> = made[3..].iter().copied().collect();
    let mut expire = Change::new(OperationKind::Expire, clock::new_commit_id());
    expire.data_change = false;
    expire.expired = all
        .iter()
        .map(|one| one.version)
        .filter(|one| !kept.contains(one))
        .collect();
    let after = publish(&format, &newest, &expire).await;
    assert_eq!(after.version, newest.version, "no version is made");
    let mut cleanup = Cleanup {
        kept: kept.clone(),
        not_after_ms: bed.store.clock_ms().await.unwrap(),
        dry_run: true,
    };
    let before = bed.store.list("").await.unwrap();
    let said = format.clean_up(&after, &cleanup).await.unwrap();
    assert_eq!(bed.store.list("").await.unwrap(), before, "a dry run");
    cleanup.dry_run = false;
    let done = format.clean_up(&after, &cleanup).await.unwrap();
    assert_eq!(done.files, said.files);
    let reader = bed.open();
    let newest = reader.snapshot(&At::Latest).await.unwrap();
    let left: BTreeSet<Version> = reader
        .versions(&newest)
        .await
        .unwrap()
        .iter()
        .map(|one| one.version)
        .collect();
    assert_eq!(left, kept);
    for (at, version) in made.iter().enumerate() {
        let found = bed.open().snapshot(&At::Version(*version)).await;
        if !kept.contains(version) {
            assert!(
                matches!(found, Err(Error::NotFound { .. })),
                "{version}: {found:?}"
            );
            continue;
        }
        let expected: Vec<String> = (0..=at).map(|id| format!("f{id}")).collect();
        assert_eq!(names(&reader, &found.unwrap()).await, expected);
    }
    // Writers go on from there, and a second time there is nothing to do.
    let more = change(OperationKind::Append, vec![file("g", 1, 9, 1)]);
    publish(&reader, &newest, &more).await;
    let again = bed.open().clean_up(&newest, &cleanup).await.unwrap();
    assert!(again.files.is_empty(), "{again:?}");
}
