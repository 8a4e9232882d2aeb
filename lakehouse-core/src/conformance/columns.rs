//! Columns that change.

use super::*;

fn with_columns(snapshot: &Snapshot, new: Vec<Field>) -> Schema {
    let mut fields = snapshot.schema.fields().to_vec();
    fields.extend(new.into_iter().map(Arc::new));
    Schema::new(fields)
}

/// A change that gives the table these columns, with files of them.
fn evolving(format: &Arc<dyn Format>, base: &Snapshot, wanted: &Schema, added: Vec<DataFile>) -> Change {
    let mut change = change(OperationKind::Append, added);
    change.set_schema(Arc::clone(
        &format
            .evolve(base, wanted, &Redefinition::default())
            .unwrap()
            .schema,
    ));
    change
}

fn columns(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .schema
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect()
}

async fn kept(format: &Arc<dyn Format>, snapshot: &Arc<Snapshot>, predicate: Expr) -> Vec<String> {
    let prune = Prune::matching(predicate, Arc::clone(&snapshot.schema)).unwrap();
    let files: Vec<DataFile> = format
        .files(snapshot, Arc::new(prune))
        .try_collect()
        .await
        .unwrap();
    let mut names: Vec<String> = files.iter().map(name_of).collect();
    names.sort();
    names
}

fn bounds(min: ScalarValue, max: ScalarValue, rows: u64) -> ColumnStats {
    ColumnStats {
        values: Some(rows),
        nulls: Some(0),
        min: Some(min),
        max: Some(max),
        exact: true,
        ..ColumnStats::default()
    }
}

pub(crate) async fn columns_come_with_the_rows_of_one_commit(bed: Bed) {
    let (format, base) = bed.created().await;
    let append = change(OperationKind::Append, vec![file("a", 1, 0, 10)]);
    let first = publish(&format, &base, &append).await;
    let wanted = with_columns(&first, vec![Field::new("tip", DataType::Int64, true)]);
    let planned = format.evolve(&first, &wanted, &Redefinition::default()).unwrap();
    let latest = bed.open().snapshot(&At::Latest).await.unwrap();
    assert_eq!(columns(&latest), ["id", "ts", "name"], "planning writes nothing");
    assert_eq!(
        names(&format, &planned).await,
        ["a"],
        "the planned version can be read"
    );

    let mut b = file("b", 1, 10, 5);
    let tip = bounds(ScalarValue::from(2_i64), ScalarValue::from(4_i64), 5);
    b.columns.insert("tip".into(), tip);
    let second = publish(&format, &first, &evolving(&format, &first, &wanted, vec![b])).await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    for snapshot in [&second, &opened] {
        assert_eq!(columns(snapshot), ["id", "ts", "name", "tip"]);
        assert_eq!(
            snapshot.schema, planned.schema,
            "files were written with these ids"
        );
        assert_eq!(snapshot.schema.fields()[..3], first.schema.fields()[..]);
        assert!(snapshot.schema.field(3).is_nullable());
        assert_eq!(
            snapshot.properties.get("owner").map(String::as_str),
            Some("conformance")
        );
        assert_eq!(snapshot.partition_fields().len(), 1);
    }
    let old = reader.snapshot(&At::Version(first.version)).await.unwrap();
    assert_eq!(
        columns(&old),
        ["id", "ts", "name"],
        "an old version has its own columns"
    );
    let listed = list(&reader, &opened).await;
    assert_eq!(listed[1].columns["tip"].max, Some(ScalarValue::from(4_i64)));

    // Files that lack a column are all NULL in it: nobody may say otherwise.
    assert_eq!(kept(&reader, &opened, col("tip").is_null()).await, ["a"]);
    assert_eq!(
        kept(
            &reader,
            &opened,
            col("tip").gt(lit(5_i64)).or(col("tip").is_null())
        )
        .await[0],
        "a"
    );
    assert!(
        kept(&reader, &opened, col("tip").eq(lit(3_i64)))
            .await
            .contains(&"b".to_owned())
    );
    assert!(
        !kept(&reader, &opened, col("tip").eq(lit(9_i64)))
            .await
            .contains(&"b".to_owned())
    );

    let told = reader.changes(&first, &opened).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].metadata.schema && !told[0].metadata.partitioning && !told[0].metadata.properties);
    assert_eq!(told[0].schema.as_ref(), Some(&opened.schema));
    assert_eq!(told[0].added.iter().map(name_of).collect::<Vec<_>>(), ["b"]);
    assert!(!reader.changes(&base, &first).await.unwrap()[0].metadata.schema);

    let third = publish(
        &reader,
        &opened,
        &change(OperationKind::Append, vec![file("c", 1, 20, 1)]),
    )
    .await;
    assert_eq!(columns(&third), ["id", "ts", "name", "tip"]);
    assert!(!reader.changes(&opened, &third).await.unwrap()[0].metadata.schema);
    assert_eq!(names(&bed.open(), &third).await, ["a", "b", "c"]);
}

pub(crate) async fn fields_are_added_inside_structs_lists_and_maps(bed: Bed) {
    let (format, base) = bed.created().await;
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let nested = |names: &[&str]| {
        let members = || DataType::Struct(names.iter().map(|name| number(name)).collect::<Vec<_>>().into());
        let pair = vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", members(), true),
        ];
        let entries = Field::new("key_value", DataType::Struct(pair.into()), false);
        vec![
            Field::new("s", members(), true),
            Field::new(
                "l",
                DataType::List(Arc::new(Field::new("element", members(), true))),
                true,
            ),
            Field::new("m", DataType::Map(Arc::new(entries), false), true),
        ]
    };
    let wanted = with_columns(&base, nested(&["x"]));
    let first = evolving(&format, &base, &wanted, vec![file("a", 1, 0, 1)]);
    let first = publish(&format, &base, &first).await;
    let input: Vec<_> = nested(&["y", "x"]).into_iter().map(Arc::new).collect();
    let evolved = evolve(&first.schema, &input, &|_| true).unwrap().unwrap();
    assert_eq!(evolved.added, ["s.y", "l.element.y", "m.value.y"]);
    let second = evolving(&format, &first, &evolved.schema, vec![file("b", 1, 1, 1)]);
    publish(&format, &first, &second).await;

    let opened = bed.open().snapshot(&At::Latest).await.unwrap();
    assert_eq!(evolve(&opened.schema, &input, &|_| true).unwrap(), None);
    let old = bed.open().snapshot(&At::Version(first.version)).await.unwrap();
    assert!(evolve(&old.schema, &input, &|_| true).unwrap().is_some());
    let mut ids = Vec::new();
    opened
        .schema
        .fields()
        .iter()
        .for_each(|field| ids_of(field, &mut ids));
    let distinct: BTreeSet<i32> = ids.iter().copied().collect();
    assert_eq!(ids.len(), distinct.len(), "every field has its own id: {ids:?}");
    let mut before = Vec::new();
    old.schema
        .fields()
        .iter()
        .for_each(|field| ids_of(field, &mut before));
    assert!(before.iter().all(|id| distinct.contains(id)));
}

fn ids_of(field: &Field, found: &mut Vec<i32>) {
    found.extend(crate::model::schema::field_id(field));
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().for_each(|f| ids_of(f, found)),
        DataType::List(f) | DataType::Map(f, _) => ids_of(f, found),
        _ => {}
    }
}

pub(crate) async fn a_schema_change_that_lost_leaves_no_trace(bed: Bed) {
    let (format, base) = bed.created().await;
    let tip = || Field::new("tip", DataType::Float64, true);
    let wanted = with_columns(&base, vec![tip()]);
    let mine = evolving(&format, &base, &wanted, vec![file("mine", 1, 0, 1)]);
    let theirs = evolving(&format, &base, &wanted, vec![file("theirs", 1, 1, 1)]);
    let won = publish(&bed.open(), &base, &theirs).await;
    let lost = format.publish(&base, &mine).await.unwrap();
    assert!(matches!(lost, Outcome::Lost), "{lost:?}");
    let opened = bed.open().snapshot(&At::Latest).await.unwrap();
    assert_eq!(opened.schema, won.schema);
    assert_eq!(names(&bed.open(), &opened).await, ["theirs"]);
    // Planned again there is nothing to add.
    let input = [Arc::new(tip())];
    assert_eq!(evolve(&opened.schema, &input, &|_| true).unwrap(), None);
    // A plan for another column, made before, has ids that others have now.
    let late = with_columns(&base, vec![Field::new("late", DataType::Utf8, true)]);
    let late = evolving(&format, &base, &late, vec![file("late", 1, 2, 1)]);
    match bed.open().publish(&opened, &late).await {
        Err(Error::Conflict { .. }) => {}
        Ok(Outcome::Committed(snapshot)) => {
            assert_eq!(columns(&snapshot), ["id", "ts", "name", "tip", "late"]);
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn columns_are_widened_where_the_format_can(bed: Bed) {
    columns_are_widened(bed, false).await;
}

pub(crate) async fn columns_are_widened_where_the_owner_allows_it(bed: Bed) {
    columns_are_widened(bed, true).await;
}

async fn columns_are_widened(bed: Bed, allowed: bool) {
    let format = bed.open();
    let fields = |wide: bool| {
        let pick = |narrow: DataType, wider: DataType| if wide { wider } else { narrow };
        vec![
            Field::new("n", pick(DataType::Int32, DataType::Int64), true),
            Field::new("f", pick(DataType::Float32, DataType::Float64), true),
            Field::new(
                "d",
                pick(DataType::Decimal128(5, 2), DataType::Decimal128(12, 2)),
                true,
            ),
        ]
    };
    let definition = Definition {
        schema: Arc::new(Schema::new(fields(false))),
        partition_fields: Vec::new(),
        properties: BTreeMap::from([("delta.enableTypeWidening".to_owned(), allowed.to_string())]),
        format_version: bed.version,
    };
    let base = committed(format.create(&definition, &clock::new_commit_id()).await.unwrap());
    let named = |name: &str, n: ScalarValue| {
        let mut file = file(name, 1, 0, 2);
        file.partition = Vec::new();
        file.columns = BTreeMap::from([("n".to_owned(), bounds(n.clone(), n, 2))]);
        file
    };
    let narrow = change(
        OperationKind::Append,
        vec![named("narrow", ScalarValue::from(7_i32))],
    );
    let first = publish(&format, &base, &narrow).await;
    let input: Vec<_> = fields(true).into_iter().map(Arc::new).collect();
    let evolved = evolve(&first.schema, &input, &|_| true).unwrap().unwrap();
    assert_eq!(evolved.widened, ["n", "f", "d"]);
    if !first.capabilities.widening {
        assert!(!allowed, "the owner allows it");
        let refused = format
            .evolve(&first, &evolved.schema, &Redefinition::default())
            .unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        return;
    }
    let wide = vec![named("wide", ScalarValue::from(5_000_000_000_i64))];
    let second = evolving(&format, &first, &evolved.schema, wide);
    publish(&format, &first, &second).await;
    let reader = bed.open();
    let opened = reader.snapshot(&At::Latest).await.unwrap();
    let types = |snapshot: &Snapshot| -> Vec<DataType> {
        snapshot
            .schema
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect()
    };
    assert_eq!(
        types(&opened),
        fields(true)
            .iter()
            .map(|f| f.data_type().clone())
            .collect::<Vec<_>>()
    );
    let old = reader.snapshot(&At::Version(first.version)).await.unwrap();
    assert_eq!(
        types(&old),
        fields(false)
            .iter()
            .map(|f| f.data_type().clone())
            .collect::<Vec<_>>()
    );
    let listed = list(&reader, &opened).await;
    assert_eq!(listed[0].columns["n"].min, Some(ScalarValue::from(7_i64)));
    assert_eq!(kept(&reader, &opened, col("n").eq(lit(7_i64))).await, ["narrow"]);
    assert_eq!(
        kept(&reader, &opened, col("n").gt(lit(4_000_000_000_i64))).await,
        ["wide"]
    );
}

pub(crate) async fn columns_that_the_format_cannot_have_are_refused_by_name(bed: Bed) {
    let (format, base) = bed.created().await;
    let new = |name: &str, data_type: DataType| with_columns(&base, vec![Field::new(name, data_type, true)]);
    for wanted in [
        new("wait", DataType::Duration(TimeUnit::Second)),
        // The name of the field, or of the column, that the table is partitioned by.
        new("ts_day", DataType::Utf8),
    ] {
        let refused = format
            .evolve(&base, &wanted, &Redefinition::default())
            .unwrap_err();
        let name = wanted.fields().last().unwrap().name();
        assert!(refused.to_string().contains(name.as_str()), "{refused}");
    }
}
