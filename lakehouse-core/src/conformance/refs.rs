//! Tags and branches, where the format has them.

use super::*;
use crate::model::{CommitId, MAIN, Ref, RefChange, RefKind, Retention, Version};

fn a_ref(kind: RefKind, version: Version) -> Ref {
    Ref {
        kind,
        version,
        retention: Retention::default(),
    }
}

fn renamed(base: &Snapshot, name: &str, after: Option<Ref>) -> Change {
    let before = base.refs.get(name).copied();
    Change {
        data_change: false,
        refs: BTreeMap::from([(name.to_owned(), RefChange { before, after })]),
        ..Change::new(OperationKind::Refs, clock::new_commit_id())
    }
}

async fn append(format: &Arc<dyn Format>, base: &Arc<Snapshot>, name: &str, id: i64) -> Arc<Snapshot> {
    let append = change(OperationKind::Append, vec![file(name, 1, id, 1)]);
    publish(format, base, &append).await
}

/// A table with a file "a", and a branch "audit" at that version; `None` where there are no branches.
async fn branched(bed: &Bed) -> Option<(Arc<dyn Format>, Arc<Snapshot>)> {
    let (format, base) = bed.created().await;
    let first = append(&format, &base, "a", 0).await;
    let audit = Some(a_ref(RefKind::Branch, first.version));
    let create = renamed(&first, "audit", audit);
    if !first.capabilities.refs {
        assert!(first.refs.is_empty());
        let refused = format.publish(&first, &create).await;
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
        let unknown = format.snapshot(&At::Ref("audit".into())).await;
        assert!(matches!(unknown, Err(Error::Unsupported { .. })), "{unknown:?}");
        return None;
    }
    let made = publish(&format, &first, &create).await;
    assert_eq!(made.version, first.version, "no row changed");
    Some((format, made))
}

pub(crate) async fn tags_and_branches_are_made_kept_and_dropped(bed: Bed) {
    let Some((format, base)) = branched(&bed).await else {
        return;
    };
    let kept = Retention {
        max_ref_age_ms: Some(86_400_000),
        ..Retention::default()
    };
    let tag = Ref {
        retention: kept,
        ..a_ref(RefKind::Tag, base.version)
    };
    let create = renamed(&base, "v1", Some(tag));
    let tagged = publish(&format, &base, &create).await;
    let opened = bed.open().snapshot(&At::Latest).await.unwrap();
    for snapshot in [&tagged, &opened] {
        let expected = BTreeMap::from([
            ("audit".to_owned(), a_ref(RefKind::Branch, base.version)),
            (MAIN.to_owned(), a_ref(RefKind::Branch, base.version)),
            ("v1".to_owned(), tag),
        ]);
        assert_eq!(snapshot.refs, expected);
    }
    // The author of a commit whose reply was lost finds it, also when others came since.
    let after = append(&format, &tagged, "b", 1).await;
    let reader = bed.open();
    assert!(reader.find(&create.commit_id, &base).await.unwrap().is_some());
    assert!(reader.find(&create.commit_id, &tagged).await.unwrap().is_none());
    let other = CommitId("another".into());
    assert!(reader.find(&other, &base).await.unwrap().is_none());
    // A tag stays, and what is made of old names is refused.
    let v1 = reader.snapshot(&At::Ref("v1".into())).await.unwrap();
    assert_eq!(names(&reader, &v1).await, ["a"]);
    let stale = Change {
        refs: create.refs.clone(),
        ..renamed(&after, "v1", None)
    };
    let refused = format.publish(&after, &stale).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let dropped = publish(&format, &after, &renamed(&after, "v1", None)).await;
    assert!(!dropped.refs.contains_key("v1"));
    let gone = bed.open().snapshot(&At::Ref("v1".into())).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    assert_eq!(names(&bed.open(), &dropped).await, ["a", "b"]);
    // No setting of the table changed.
    let told = bed.open().changes(&base, &dropped).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
}

pub(crate) async fn a_branch_moves_alone(bed: Bed) {
    let Some((format, main)) = branched(&bed).await else {
        return;
    };
    let audit = At::Ref("audit".into());
    let base = format.snapshot(&audit).await.unwrap();
    let mine = Change {
        token: Some("night/1".into()),
        ..change(OperationKind::Append, vec![file("b", 1, 1, 1)])
    };
    let written = publish(&format, &base, &mine).await;
    let reader = bed.open();
    let newest = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(newest.version, main.version);
    assert_eq!(names(&reader, &newest).await, ["a"]);
    let opened = reader.snapshot(&audit).await.unwrap();
    assert_eq!(opened.version, written.version);
    assert_eq!(names(&reader, &opened).await, ["a", "b"]);
    assert_eq!(
        reader
            .find(&mine.commit_id, &base)
            .await
            .unwrap()
            .unwrap()
            .version,
        written.version
    );
    // A key counts where its rows are.
    assert_eq!(
        reader.find_token(&opened, &"night/1".into()).await.unwrap(),
        Some(written.version)
    );
    assert_eq!(reader.find_token(&newest, &"night/1".into()).await.unwrap(), None);
    // The state of the table moved on for both, its rows for one.
    let stale = change(OperationKind::Append, vec![file("c", 1, 2, 1)]);
    let lost = format.publish(&main, &stale).await.unwrap();
    assert!(matches!(lost, Outcome::Lost), "{lost:?}");
    assert!(reader.changes(&main, &newest).await.unwrap().is_empty());
    let further = append(&format, &newest, "c", 2).await;
    assert_eq!(names(&reader, &further).await, ["a", "c"]);
    let history = bed.open().history(&audit, None).await.unwrap();
    let versions: Vec<_> = history.iter().map(|commit| commit.version).collect();
    assert_eq!(versions, [written.version, main.version]);
    assert!(
        format
            .is_ancestor(&further, main.version, written.version)
            .unwrap()
    );
    assert!(format.is_ancestor(&further, 0, written.version).unwrap());
    assert!(
        !format
            .is_ancestor(&further, written.version, further.version)
            .unwrap()
    );
    assert!(
        !format
            .is_ancestor(&further, further.version, written.version)
            .unwrap()
    );
    // What is on a branch only is needed too.
    assert!(
        bed.open()
            .reachable(None)
            .await
            .unwrap()
            .contains("data/b.parquet")
    );
}

pub(crate) async fn a_branch_has_the_columns_of_today_and_a_tag_those_of_its_time(bed: Bed) {
    let Some((format, base)) = branched(&bed).await else {
        return;
    };
    let tag = renamed(&base, "v1", Some(a_ref(RefKind::Tag, base.version)));
    let tagged = publish(&format, &base, &tag).await;
    let mut fields = tagged.schema.fields().to_vec();
    fields.push(Arc::new(Field::new("tip", DataType::Int64, true)));
    let mut evolving = change(OperationKind::Append, vec![file("b", 1, 1, 1)]);
    evolving.set_schema(Arc::clone(
        &format
            .evolve(&tagged, &Schema::new(fields), &Redefinition::default())
            .unwrap()
            .schema,
    ));
    publish(&format, &tagged, &evolving).await;
    let reader = bed.open();
    for (name, columns) in [("audit", 4), (MAIN, 4), ("v1", 3)] {
        let found = reader.snapshot(&At::Ref(name.to_owned())).await.unwrap();
        assert_eq!(found.schema.fields().len(), columns, "{name}");
    }
}
