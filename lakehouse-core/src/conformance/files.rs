//! Files and masks: listed as they were given, skipped, replaced.

use super::*;

pub(crate) async fn appended_files_are_listed_as_they_were_given(bed: Bed) {
    let (format, base) = bed.created().await;
    let given = vec![file("a", 100, 0, 10), file("b", 101, 10, 20)];
    let snapshot = publish(&format, &base, &change(OperationKind::Append, given.clone())).await;
    assert_eq!(snapshot.state, base.state + 1);
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.version, snapshot.version);
    for (format, snapshot) in [(&format, &snapshot), (&reader, &opened)] {
        let listed = list(format, snapshot).await;
        assert_eq!(listed.len(), 2);
        for (listed, given) in listed.iter().zip(&given) {
            assert_eq!(listed.path, given.path);
            assert_eq!((listed.bytes, listed.rows), (given.bytes, given.rows));
            assert_eq!(listed.partition, given.partition);
            assert_eq!(listed.masked_rows(), Some(0));
            for (column, stats) in &given.columns {
                let read = &listed.columns[column];
                assert_eq!(read.nulls, stats.nulls, "{column}");
                assert_eq!(read.min, stats.min, "{column}");
                assert!(
                    read.max >= stats.max,
                    "{column}: a bound may be widened, never narrowed"
                );
            }
        }
        if snapshot.lineage.is_some() {
            let ids: BTreeSet<_> = listed.iter().map(|f| f.first_row_id.unwrap()).collect();
            assert!(
                ids == BTreeSet::from([0, 10]) || ids == BTreeSet::from([0, 20]),
                "{ids:?}"
            );
        }
    }
}

pub(crate) async fn listing_skips_files_by_partition_and_by_statistics(bed: Bed) {
    let (format, mut snapshot) = bed.created().await;
    for day in 0..5 {
        let files = (0..4)
            .map(|i| file(&format!("d{day}-{i}"), 100 + day, i * 100, 100))
            .collect();
        snapshot = publish(&format, &snapshot, &change(OperationKind::Append, files)).await;
    }
    let count = async |predicate: Expr| {
        let prune = Arc::new(Prune::matching(predicate, Arc::clone(&snapshot.schema)).unwrap());
        let files: Vec<DataFile> = format.files(&snapshot, prune).try_collect().await.unwrap();
        files.len()
    };
    assert_eq!(count(col("ts").gt_eq(lit(ts(0)))).await, 20);
    // A zoned timestamp's partition keeps a day to either side on Delta; the statistics cut that off.
    assert_eq!(count(col("ts").eq(lit(ts(102)))).await, 4);
    assert_eq!(count(col("ts").lt(lit(ts(102)))).await, 8);
    assert_eq!(count(col("id").eq(lit(250i64))).await, 5);
    assert_eq!(
        count(col("id").eq(lit(250i64)).and(col("ts").gt(lit(noon_of(103))))).await,
        1
    );
    assert_eq!(count(col("id").gt(lit(4000i64))).await, 0);
    assert_eq!(
        count(col("name").eq(lit("x"))).await,
        20,
        "no statistics, nothing skipped"
    );
}

pub(crate) async fn masks_are_read_back_and_replaced(bed: Bed) {
    let (format, base) = bed.created().await;
    let files = vec![
        file("a", 1, 0, 100),
        file("b", 2, 100, 100),
        file("c", 2, 200, 100),
    ];
    let snapshot = publish(&format, &base, &change(OperationKind::Append, files)).await;
    if !snapshot.capabilities.masks {
        let refused = format
            .stage_masks(&snapshot, vec![], &clock::new_commit_id())
            .await;
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
        return;
    }
    let listed = list(&format, &snapshot).await;
    let first: RowMask = [0, 7, 99].into_iter().collect();
    let second: RowMask = [50].into_iter().collect();
    let masked = mask(
        &format,
        &snapshot,
        OperationKind::Delete,
        vec![
            (listed[0].clone(), first.clone()),
            (listed[1].clone(), second.clone()),
        ],
    )
    .await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.version, masked.version);
    let listed = list(&reader, &opened).await;
    assert_eq!(
        reader.masks(&opened, &listed).await.unwrap(),
        [first, second.clone(), RowMask::new()]
    );
    assert_eq!(listed[2].masked_rows(), Some(0));
    // The complete mask replaces the one before it.
    let wider: RowMask = [0, 7, 8, 99].into_iter().collect();
    let again = mask(
        &reader,
        &opened,
        OperationKind::Delete,
        vec![(listed[0].clone(), wider.clone())],
    )
    .await;
    let listed = list(&bed.open(), &again).await;
    assert_eq!(listed.iter().map(name_of).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(
        bed.open().masks(&again, &listed).await.unwrap(),
        [wider, second, RowMask::new()]
    );
    // The older version keeps its own mask.
    let old = bed.open().snapshot(&At::Version(snapshot.version)).await.unwrap();
    let listed = list(&bed.open(), &old).await;
    assert!(
        bed.open()
            .masks(&old, &listed)
            .await
            .unwrap()
            .iter()
            .all(RowMask::is_empty)
    );
}

pub(crate) async fn a_masked_file_can_be_removed(bed: Bed) {
    let (format, base) = bed.created().await;
    let snapshot = publish(
        &format,
        &base,
        &change(
            OperationKind::Append,
            vec![file("a", 1, 0, 9), file("b", 1, 9, 9)],
        ),
    )
    .await;
    let mut listed = list(&format, &snapshot).await;
    let mut snapshot = snapshot;
    if snapshot.capabilities.masks {
        let hidden: RowMask = [3].into_iter().collect();
        snapshot = mask(
            &format,
            &snapshot,
            OperationKind::Delete,
            vec![(listed[0].clone(), hidden)],
        )
        .await;
        listed = list(&format, &snapshot).await;
    }
    let mut compact = change(OperationKind::Compact, vec![file("ab", 1, 0, 17)]);
    compact.removed = listed;
    let compacted = publish(&format, &snapshot, &compact).await;
    let listed = list(&bed.open(), &compacted).await;
    assert_eq!(listed.iter().map(name_of).collect::<Vec<_>>(), ["ab"]);
    assert_eq!(
        listed[0].masked_rows(),
        Some(0),
        "the mask of a removed file does not reach its successor"
    );
}

pub(crate) async fn values_of_every_partition_type_survive(bed: Bed) {
    let schema = Schema::new(vec![
        Field::new("i", DataType::Int32, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("d", DataType::Date32, true),
        Field::new("m", DataType::Decimal128(12, 2), true),
        Field::new("b", DataType::Boolean, true),
        Field::new("k", DataType::Int64, true),
    ]);
    let bucket = Transform::Bucket {
        buckets: 8,
        hash: BucketHash::Iceberg,
    };
    let identity = |c| partition_field(c, Transform::Identity);
    let definition = Definition {
        schema: Arc::new(schema),
        partition_fields: vec![
            identity("i"),
            identity("s"),
            identity("d"),
            identity("m"),
            identity("b"),
            partition_field("k", bucket),
        ],
        properties: BTreeMap::new(),
        format_version: bed.version,
    };
    let format = bed.open();
    let base = committed(format.create(&definition, &clock::new_commit_id()).await.unwrap());
    let rows = [
        vec![
            ScalarValue::Int32(Some(-5)),
            ScalarValue::from("a b/c=ü%20\"x\""),
            ScalarValue::Date32(Some(-1)),
            ScalarValue::Decimal128(Some(-1234), 12, 2),
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Int32(Some(7)),
        ],
        vec![
            ScalarValue::Int32(None),
            ScalarValue::Utf8(None),
            ScalarValue::Date32(None),
            ScalarValue::Decimal128(None, 12, 2),
            ScalarValue::Boolean(None),
            ScalarValue::Int32(None),
        ],
    ];
    let files: Vec<DataFile> = rows
        .iter()
        .enumerate()
        .map(|(n, partition)| DataFile {
            partition: partition.clone(),
            columns: BTreeMap::new(),
            ..file(&format!("p{n} x=1%"), 0, 0, 1)
        })
        .collect();
    publish(&format, &base, &change(OperationKind::Append, files)).await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    let listed = list(&reader, &opened).await;
    assert_eq!(
        listed.iter().map(|f| f.partition.clone()).collect::<Vec<_>>(),
        rows
    );
    assert_eq!(listed[0].path, "data/p0 x=1%.parquet");
}
