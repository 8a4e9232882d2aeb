use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::execution::context::ExecutionProps;
use datafusion::functions::core::expr_ext::FieldAccessor;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{cast, col, lit, try_cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::create_physical_expr;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::model::{BucketHash, ColumnStats, Transform, made_up, next_string};

const DAY: i64 = 86_400_000_000;

fn zoned() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn columns() -> SchemaRef {
    let inside: Fields = vec![Field::new("a", DataType::Int32, true)].into();
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", zoned(), true),
        Field::new("name", DataType::Utf8, true),
        Field::new("x", DataType::Float64, true),
        Field::new("d", DataType::Date32, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("s", DataType::Struct(inside), true),
    ]))
}

fn field(source: &str, transform: Transform, slack: i32) -> PartitionField {
    PartitionField {
        source: source.to_owned(),
        transform,
        name: format!("{source}_{transform}"),
        field_id: 1000,
        zone_slack_days: slack,
    }
}

fn bucket(n: u32, hash: BucketHash) -> Transform {
    Transform::Bucket { buckets: n, hash }
}

fn snapshot(schema: SchemaRef, specs: Vec<Vec<PartitionField>>) -> Snapshot {
    made_up::snapshot(schema, specs)
}

fn file(
    spec_id: i32,
    partition: Vec<ScalarValue>,
    rows: u64,
    columns: BTreeMap<String, ColumnStats>,
) -> DataFile {
    DataFile {
        spec_id,
        partition,
        columns,
        ..made_up::data_file("f", 1, rows)
    }
}

/// Random rows, their values within `width` of a random centre so that files differ.
fn random_rows(rng: &mut StdRng, rows: usize) -> RecordBatch {
    let centre = rng.random_range(-50..50i64);
    let near = move |rng: &mut StdRng| centre + rng.random_range(-8..8i64);
    let nulls = [0.0, 0.1, 1.0][rng.random_range(0..3)];
    let value = |rng: &mut StdRng| (!rng.random_bool(nulls)).then(|| near(rng));
    let text = |n: i64| match n.rem_euclid(5) {
        0 => String::new(),
        1 => format!("é{n}"),
        2 => format!("ab{n}"),
        3 => format!("ab{}", char::MAX),
        _ => format!("b%_{n}"),
    };
    let ids: Int64Array = (0..rows).map(|_| value(rng)).collect();
    let ts: TimestampMicrosecondArray = (0..rows)
        .map(|_| value(rng).map(|n| n * DAY / 4 + rng.random_range(-2..2)))
        .collect();
    let names: StringArray = (0..rows).map(|_| value(rng).map(text)).collect();
    let xs: Float64Array = (0..rows)
        .map(|_| {
            value(rng).map(|n| match rng.random_range(0..40) {
                0 => f64::NAN,
                1 => -f64::NAN,
                2 => -0.0,
                3 => 0.0,
                _ => n as f64 / 2.0,
            })
        })
        .collect();
    let ds: Date32Array = (0..rows).map(|_| value(rng).map(|n| n as i32)).collect();
    let flags: BooleanArray = (0..rows).map(|_| value(rng).map(|n| n > 0)).collect();
    let inner: Int32Array = (0..rows).map(|_| value(rng).map(|n| n as i32)).collect();
    let DataType::Struct(inside) = columns().field(6).data_type().clone() else {
        unreachable!()
    };
    let structs = StructArray::new(inside, vec![Arc::new(inner)], None);
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(ids),
        Arc::new(ts.with_timezone("UTC")),
        Arc::new(names),
        Arc::new(xs),
        Arc::new(ds),
        Arc::new(flags),
        Arc::new(structs),
    ];
    RecordBatch::try_new(columns(), arrays).unwrap()
}

/// True statistics of a column, or less: some are missing, bounds may be wider than the values.
fn random_statistics(rng: &mut StdRng, column: &ArrayRef) -> ColumnStats {
    let values: Vec<ScalarValue> = (0..column.len())
        .filter(|i| column.is_valid(*i))
        .map(|i| ScalarValue::try_from_array(column, i).unwrap())
        .filter(|v| !matches!(v, ScalarValue::Float64(Some(x)) if x.is_nan()))
        .collect();
    let mut min = values.iter().min_by(|a, b| a.partial_cmp(b).unwrap()).cloned();
    let mut max = values.iter().max_by(|a, b| a.partial_cmp(b).unwrap()).cloned();
    for (bound, other) in [(&mut min, 0.0), (&mut max, -0.0)] {
        // Some writers get the sign of zero wrong.
        if *bound == Some(ScalarValue::Float64(Some(-other))) && rng.random_bool(0.5) {
            *bound = Some(ScalarValue::Float64(Some(other)));
        }
    }
    if let (Some(ScalarValue::Utf8(Some(low))), Some(ScalarValue::Utf8(Some(high)))) = (&mut min, &mut max)
        && rng.random_bool(0.5)
    {
        *low = low.chars().take(2).collect();
        let cut: String = high.chars().take(2).collect();
        if cut != *high {
            *high = next_string(&cut).unwrap_or_else(|| high.clone());
        }
    }
    let known = |rng: &mut StdRng| rng.random_bool(0.9);
    let nans = column
        .as_primitive_opt::<Float64Type>()
        .map(|c| c.iter().flatten().filter(|v| v.is_nan()).count() as u64);
    ColumnStats {
        values: Some(column.len() as u64),
        nulls: known(rng).then_some(column.null_count() as u64),
        nans: nans.filter(|_| known(rng)),
        min: min.filter(|_| known(rng)),
        max: max.filter(|_| known(rng)),
        exact: false,
        bytes: None,
    }
}

fn statistics(rng: &mut StdRng, rows: &RecordBatch) -> BTreeMap<String, ColumnStats> {
    let mut all = BTreeMap::new();
    for (column, field) in rows.columns().iter().zip(rows.schema_ref().fields()) {
        let (name, column) = match column.as_struct_opt() {
            Some(parent) => ("s.a", parent.column(0)),
            None => (field.name().as_str(), column),
        };
        if rng.random_bool(0.9) {
            all.insert(name.to_owned(), random_statistics(rng, column));
        }
    }
    all
}

/// The rows by partition, naively, with their files.
fn split(
    rng: &mut StdRng,
    snapshot: &Snapshot,
    spec: i32,
    rows: &RecordBatch,
) -> Vec<(DataFile, RecordBatch)> {
    let fields = &snapshot.specs[&spec];
    let values: Vec<ArrayRef> = fields
        .iter()
        .map(|f| {
            f.transform
                .apply(rows.column_by_name(&f.source).unwrap())
                .unwrap()
        })
        .collect();
    let mut numbers: HashMap<Vec<ScalarValue>, usize> = HashMap::new();
    let mut groups: Vec<(Vec<ScalarValue>, Vec<u32>)> = Vec::new();
    for row in 0..rows.num_rows() {
        let mut key: Vec<_> = values
            .iter()
            .map(|v| ScalarValue::try_from_array(v, row).unwrap())
            .collect();
        for (field, value) in fields.iter().zip(&mut key) {
            // A writer in another time zone.
            if field.zone_slack_days > 0
                && let ScalarValue::Date32(Some(day)) = value
            {
                let micros = rows
                    .column_by_name(&field.source)
                    .unwrap()
                    .as_primitive::<arrow::datatypes::TimestampMicrosecondType>()
                    .value(row);
                *day = (micros - DAY / 3).div_euclid(DAY) as i32;
            }
        }
        let number = *numbers.entry(key.clone()).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[number].1.push(row as u32);
    }
    groups
        .into_iter()
        .map(|(partition, indices)| {
            let indices = UInt32Array::from(indices);
            let part = rows
                .columns()
                .iter()
                .map(|c| take(c, &indices, None).unwrap())
                .collect();
            let part = RecordBatch::try_new(rows.schema(), part).unwrap();
            (
                file(spec, partition, part.num_rows() as u64, statistics(rng, &part)),
                part,
            )
        })
        .collect()
}

fn random_specs() -> Vec<Vec<PartitionField>> {
    vec![
        vec![],
        vec![
            field("ts", Transform::Day, 0),
            field("id", bucket(4, BucketHash::Iceberg), 0),
        ],
        vec![
            field("ts", Transform::Day, 1),
            field("id", bucket(3, BucketHash::Spark), 0),
        ],
        vec![
            field("name", Transform::Truncate(2), 0),
            field("ts", Transform::Month, 0),
        ],
        vec![
            field("id", Transform::Truncate(10), 0),
            field("x", Transform::Identity, 0),
        ],
        vec![
            field("d", Transform::Year, 0),
            field("flag", Transform::Identity, 0),
            field("id", Transform::Void, 0),
        ],
        vec![
            field("ts", Transform::Hour, 0),
            field("d", bucket(5, BucketHash::Iceberg), 0),
        ],
        vec![
            field("name", bucket(4, BucketHash::Spark), 0),
            field("d", Transform::Month, 0),
        ],
    ]
}

fn random_literal(rng: &mut StdRng, column: &str) -> Expr {
    let n = rng.random_range(-55..55i64);
    match (column, rng.random_range(0..4)) {
        ("id" | "s.a", 0) => lit(n as i32),
        ("id" | "s.a", 1) => lit(n as f64 / 2.0),
        ("id" | "s.a", _) => lit(n),
        ("ts", 0) => lit(format!(
            "{:?}",
            chrono::DateTime::from_timestamp_micros(n * DAY / 4)
                .unwrap()
                .naive_utc()
        )),
        ("ts", 1) => lit(ScalarValue::Date32(Some(n as i32 / 4))),
        ("ts", 2) => lit(ScalarValue::TimestampNanosecond(
            Some(n * DAY / 4 * 1_000 + 1),
            Some("UTC".into()),
        )),
        ("ts", _) => lit(ScalarValue::TimestampMicrosecond(
            Some(n * DAY / 4),
            Some("UTC".into()),
        )),
        ("name", 0) => lit(""),
        ("name", 1) => lit("ab"),
        ("name", _) => lit(["é3", "ab7", "b%_4", "ab\u{10ffff}", "ac", "abz"][rng.random_range(0..6)]),
        ("x", 0) => lit(f64::NAN),
        ("x", 1) => lit([0.0, -0.0][rng.random_range(0..2)]),
        ("x", _) => lit(n as f64 / 2.0),
        ("d", 0) => lit(chrono::NaiveDate::default()
            .checked_add_signed(chrono::TimeDelta::days(n))
            .unwrap()
            .to_string()),
        ("d", 1) => lit(ScalarValue::TimestampMicrosecond(
            Some(n * DAY / 4),
            Some("UTC".into()),
        )),
        ("d", _) => lit(ScalarValue::Date32(Some(n as i32))),
        _ => lit(n > 0),
    }
}

fn random_leaf(rng: &mut StdRng) -> Expr {
    let name = *["id", "ts", "name", "x", "d", "flag", "s.a"].choose(rng).unwrap();
    let column = if name == "s.a" {
        col("s").field("a")
    } else {
        col(name)
    };
    let literal = random_literal(rng, name);
    match rng.random_range(0..20) {
        0..=2 => column.eq(literal),
        3 => column.not_eq(literal),
        4 | 5 => column.lt(literal),
        6 => column.lt_eq(literal),
        7 | 8 => column.gt(literal),
        9 => literal.gt_eq(column),
        10 => column.between(literal, random_literal(rng, name)),
        11 => {
            let list = (0..[2, 30][rng.random_range(0..2)])
                .map(|_| random_literal(rng, name))
                .collect();
            column.in_list(list, rng.random_bool(0.3))
        }
        12 => column.is_null(),
        13 => column.is_not_null(),
        14 if name == "name" => column.like(lit(
            ["ab%", "a_%", "%b", "b\\%%", "é%", ""][rng.random_range(0..6)]
        )),
        14 if name == "flag" => column,
        15 if name == "name" => column.not_like(lit("ab%")),
        15 if name == "ts" => {
            cast(column, DataType::Date32).eq(lit(ScalarValue::Date32(Some(rng.random_range(-12..12)))))
        }
        15 if name == "ts" || name == "d" => {
            cast(column, DataType::Date32).lt(lit(ScalarValue::Date32(Some(2))))
        }
        16 if name == "ts" => cast(column, DataType::Time64(TimeUnit::Microsecond))
            .gt(lit(ScalarValue::Time64Microsecond(Some(DAY / 2)))),
        16 if name == "id" => try_cast(column, DataType::Int8).eq(lit(rng.random_range(-50..50i8))),
        17 if name == "id" => cast(column, DataType::Boolean).eq(lit(true)),
        17 if name == "id" => (-column).gt(literal),
        18 if name == "id" => cast(column, DataType::Int32).gt(cast(col("d"), DataType::Int32)),
        18 if name == "id" => (column + lit(3i64)).gt(literal),
        19 => Expr::IsTrue(Box::new(column.eq(literal))),
        _ => column.not_eq(literal),
    }
}

fn random_predicate(rng: &mut StdRng, depth: usize) -> Expr {
    match rng.random_range(0..6) {
        0 | 1 if depth > 0 => random_predicate(rng, depth - 1).and(random_predicate(rng, depth - 1)),
        2 if depth > 0 => random_predicate(rng, depth - 1).or(random_predicate(rng, depth - 1)),
        3 if depth > 0 => !random_predicate(rng, depth - 1),
        _ => random_leaf(rng),
    }
}

/// Which rows meet the predicate, by the engine itself; `None` if it cannot be evaluated.
fn matches(predicate: &Expr, rows: &RecordBatch) -> Option<Vec<bool>> {
    let schema = Arc::new(DFSchema::try_from(rows.schema()).unwrap());
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(&schema))
        .build();
    let coerced = ExprSimplifier::new(context)
        .coerce(predicate.clone(), &schema)
        .ok()?;
    let expr = create_physical_expr(
        &coerced,
        &schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .ok()?;
    let result = expr.evaluate(rows).ok()?.into_array(rows.num_rows()).ok()?;
    Some(result.as_boolean().iter().map(|v| v == Some(true)).collect())
}

/// Which rows have one of the keys.
fn has_key(keys: &[(String, ArrayRef)], rows: &RecordBatch) -> Vec<bool> {
    let tuples = |columns: Vec<ArrayRef>| -> Vec<Option<Vec<ScalarValue>>> {
        (0..columns[0].len())
            .map(|row| {
                columns
                    .iter()
                    .map(|c| {
                        c.is_valid(row)
                            .then(|| ScalarValue::try_from_array(c, row).unwrap())
                    })
                    .collect()
            })
            .collect()
    };
    let wanted: std::collections::HashSet<_> = tuples(keys.iter().map(|(_, c)| Arc::clone(c)).collect())
        .into_iter()
        .flatten()
        .collect();
    tuples(
        keys.iter()
            .map(|(n, _)| Arc::clone(rows.column_by_name(n).unwrap()))
            .collect(),
    )
    .into_iter()
    .map(|key| key.is_some_and(|key| wanted.contains(&key)))
    .collect()
}

/// Groups files of one spec, as a manifest summarises them.
fn summarise(fields: &[PartitionField], files: &[&DataFile]) -> Vec<Option<PartitionRange>> {
    (0..fields.len())
        .map(|i| {
            let values: Vec<_> = files.iter().map(|f| &f.partition[i]).collect();
            let there = || {
                values
                    .iter()
                    .filter(|v| !v.is_null())
                    .filter(|v| !matches!(v, ScalarValue::Float64(Some(x)) if x.is_nan()))
            };
            Some(PartitionRange {
                min: there()
                    .min_by(|a, b| a.partial_cmp(b).unwrap())
                    .map(|v| (*v).clone()),
                max: there()
                    .max_by(|a, b| a.partial_cmp(b).unwrap())
                    .map(|v| (*v).clone()),
                has_null: values.iter().any(|v| v.is_null()),
            })
        })
        .collect()
}

#[test]
fn no_skipped_file_or_group_holds_a_row_that_matches() {
    let mut rng = StdRng::seed_from_u64(42);
    let table = snapshot(columns(), random_specs());
    let (mut skipped, mut needless, mut total, mut groups_skipped, mut evaluated) = (0, 0, 0, 0, 0);
    for round in 0..120 {
        let mut files = Vec::new();
        for _ in 0..6 {
            let rows = rng.random_range(1..20);
            let rows = random_rows(&mut rng, rows);
            let spec = rng.random_range(0..table.specs.len() as i32);
            files.extend(split(&mut rng, &table, spec, &rows));
        }
        let listed: Vec<DataFile> = files.iter().map(|(file, _)| file.clone()).collect();
        for _ in 0..12 {
            let predicate = random_predicate(&mut rng, 2);
            let mut prune = match rng.random_range(0..4) {
                0 => Prune::everything(),
                _ => Prune::matching(predicate.clone(), columns()).unwrap(),
            };
            let mut keys = Vec::new();
            if prune.predicate().is_none() || rng.random_bool(0.2) {
                let from = random_rows(&mut rng, 6);
                for name in ["id", "ts", "name", "d", "x"] {
                    if rng.random_bool(0.4) {
                        keys.push((name.to_owned(), Arc::clone(from.column_by_name(name).unwrap())));
                    }
                }
                prune = prune.with_keys(keys.clone()).unwrap();
            }
            let matching: Vec<Option<bool>> = files
                .iter()
                .map(|(_, rows)| {
                    let mut mine = vec![true; rows.num_rows()];
                    if prune.predicate().is_some() {
                        mine = matches(&predicate, rows)?;
                    }
                    if !keys.is_empty() {
                        mine.iter_mut()
                            .zip(has_key(&keys, rows))
                            .for_each(|(m, k)| *m &= k);
                    }
                    Some(mine.contains(&true))
                })
                .collect();
            let keep = prune.keep_files(&table, &listed).unwrap();
            for (i, keep) in keep.iter().enumerate() {
                total += 1;
                evaluated += usize::from(matching[i].is_some());
                skipped += usize::from(!keep);
                needless += usize::from(*keep && matching[i] == Some(false));
                assert!(
                    *keep || matching[i] != Some(true),
                    "round {round}: {predicate} keys {keys:?} skips {:#?} with {:#?}",
                    files[i].0,
                    files[i].1
                );
            }
            for (spec, fields) in &table.specs {
                let group: Vec<usize> = (0..files.len())
                    .filter(|i| listed[*i].spec_id == *spec && rng.random_bool(0.5))
                    .collect();
                if group.is_empty() {
                    continue;
                }
                let members: Vec<&DataFile> = group.iter().map(|i| &listed[*i]).collect();
                let kept = prune
                    .keep_ranges(&table, fields, &[summarise(fields, &members)])
                    .unwrap()[0];
                groups_skipped += usize::from(!kept);
                assert!(
                    kept || group.iter().all(|i| matching[*i] != Some(true)),
                    "round {round}: {predicate} keys {keys:?} skips the group {members:#?}"
                );
            }
        }
    }
    assert!(
        evaluated * 10 > total * 9,
        "{evaluated} of {total} could be evaluated"
    );
    // Statistics are often missing here, and half of the predicates say little.
    assert!(
        skipped * 3 > total,
        "{skipped} of {total} skipped, {needless} needlessly kept"
    );
    assert!(groups_skipped > 500, "{groups_skipped} groups skipped");
}

fn stats(min: impl Into<ScalarValue>, max: impl Into<ScalarValue>) -> ColumnStats {
    ColumnStats {
        nulls: Some(0),
        nans: Some(0),
        min: Some(min.into()),
        max: Some(max.into()),
        exact: true,
        ..ColumnStats::default()
    }
}

/// 100 files of one column `id`, file i with 10 i to 10 i + 9.
fn sorted_by_id() -> (Snapshot, Vec<DataFile>) {
    let files = (0..100i64)
        .map(|i| {
            file(
                0,
                vec![],
                10,
                BTreeMap::from([("id".to_owned(), stats(10 * i, 10 * i + 9))]),
            )
        })
        .collect();
    (snapshot(columns(), vec![vec![]]), files)
}

#[track_caller]
fn kept(table: &Snapshot, files: &[DataFile], predicate: Expr) -> Vec<usize> {
    let prune = Prune::matching(predicate, columns()).unwrap();
    let keep = prune.keep_files(table, files).unwrap();
    (0..files.len()).filter(|i| keep[*i]).collect()
}

#[test]
fn files_outside_the_range_of_a_predicate_are_skipped_by_statistics() {
    let (table, files) = sorted_by_id();
    assert_eq!(kept(&table, &files, col("id").eq(lit(123i64))), [12]);
    assert_eq!(kept(&table, &files, col("id").eq(lit(123i32))), [12]);
    assert_eq!(kept(&table, &files, col("id").eq(lit("123"))), [12]);
    assert_eq!(
        kept(
            &table,
            &files,
            col("t.id").gt(lit(985i64)).and(col("x").is_null())
        ),
        [98, 99]
    );
    assert_eq!(kept(&table, &files, lit(5i64).gt(col("id"))), [0]);
    let scattered: Vec<Expr> = (0..300i64)
        .map(|i| lit(if i % 2 == 0 { 5 } else { 700 + i % 5 }))
        .collect();
    assert_eq!(kept(&table, &files, col("id").in_list(scattered, false)), [0, 70]);
    assert_eq!(kept(&table, &files, lit(false)), Vec::<usize>::new());
    assert_eq!(kept(&table, &files, col("id").is_null()), Vec::<usize>::new());
    let prune = Prune::matching(col("id").lt(lit(10i64)), columns()).unwrap();
    prune.keep_files(&table, &files).unwrap();
    assert_eq!(prune.counts().files.load(Ordering::Relaxed), 100);
    assert_eq!(prune.counts().skipped_by_statistics.load(Ordering::Relaxed), 99);
    assert_eq!(prune.counts().skipped_by_partition.load(Ordering::Relaxed), 0);
}

#[test]
fn what_cannot_be_understood_skips_nothing_but_the_rest_does() {
    let (table, files) = sorted_by_id();
    let unclear = Expr::Placeholder(datafusion::logical_expr::expr::Placeholder::new_with_field(
        "$1".to_owned(),
        None,
    ));
    assert_eq!(kept(&table, &files, unclear.clone().eq(col("id"))).len(), 100);
    assert_eq!(
        kept(&table, &files, unclear.eq(col("x")).and(col("id").eq(lit(5i64)))),
        [0]
    );
}

#[test]
fn a_column_that_is_not_there_is_named() {
    let error = Prune::matching(col("idd").eq(lit(1)), columns()).unwrap_err();
    assert!(
        error.to_string().contains("'idd'") && error.hint().unwrap().contains("id, ts"),
        "{error}"
    );
}

/// One file for each of 20 days and 4 buckets, without statistics.
fn by_day_and_bucket(hash: BucketHash, slack: i32) -> (Snapshot, Vec<DataFile>) {
    let fields = vec![
        field("ts", Transform::Day, slack),
        field("id", bucket(4, hash), 0),
    ];
    let files = (0..80)
        .map(|i| {
            file(
                0,
                vec![ScalarValue::Date32(Some(i / 4)), ScalarValue::Int32(Some(i % 4))],
                10,
                BTreeMap::new(),
            )
        })
        .collect();
    (snapshot(columns(), vec![fields]), files)
}

#[test]
fn partitions_are_found_from_the_source_columns() {
    for hash in [BucketHash::Iceberg, BucketHash::Spark] {
        let (table, files) = by_day_and_bucket(hash, 0);
        let day = |d: i32| (4 * d as usize..4 * d as usize + 4).collect::<Vec<_>>();
        assert_eq!(
            kept(
                &table,
                &files,
                col("ts").between(lit("1970-01-03T00:00:00"), lit("1970-01-03T23:59:59.999999"))
            ),
            day(2)
        );
        assert_eq!(
            kept(
                &table,
                &files,
                cast(col("ts"), DataType::Date32).eq(lit("1970-01-03"))
            ),
            day(2)
        );
        assert_eq!(kept(&table, &files, col("ts").lt(lit("1970-01-02"))), day(0));
        let one = kept(&table, &files, col("id").eq(lit(34i32)));
        assert_eq!(one.len(), 20);
        let both = kept(
            &table,
            &files,
            col("id")
                .eq(lit(34i64))
                .and(col("ts").eq(lit("1970-01-03T10:00:00"))),
        );
        assert_eq!(both.len(), 1);
        let expected = bucket(4, hash)
            .apply_scalar(&ScalarValue::Int64(Some(34)))
            .unwrap();
        assert_eq!(files[both[0]].partition, [ScalarValue::Date32(Some(2)), expected]);
        assert_eq!(kept(&table, &files, col("ts").is_null()), Vec::<usize>::new());
        // NULL has a bucket of its own in Spark's hash, 42 mod 4.
        let nulls = kept(&table, &files, col("id").is_null());
        assert_eq!(nulls.len(), if hash == BucketHash::Spark { 80 } else { 0 });
    }
    let (table, files) = by_day_and_bucket(BucketHash::Iceberg, 1);
    let near = kept(&table, &files, col("ts").eq(lit("1970-01-03T10:00:00")));
    assert_eq!(
        near,
        (4..16).collect::<Vec<_>>(),
        "a day more on each side where time zones are not known"
    );
    let prune = Prune::matching(col("ts").lt(lit("1970-01-02")), columns()).unwrap();
    prune.keep_files(&table, &files).unwrap();
    assert_eq!(prune.counts().skipped_by_partition.load(Ordering::Relaxed), 72);
    assert_eq!(prune.counts().skipped_by_statistics.load(Ordering::Relaxed), 0);
}

#[test]
fn buckets_exclude_files_under_or_of_whatever_columns() {
    for hash in [BucketHash::Iceberg, BucketHash::Spark] {
        let fields = vec![field("id", bucket(4, hash), 0), field("d", bucket(4, hash), 0)];
        let files: Vec<DataFile> = (0..16)
            .map(|i| {
                let buckets = vec![ScalarValue::Int32(Some(i / 4)), ScalarValue::Int32(Some(i % 4))];
                file(0, buckets, 10, BTreeMap::new())
            })
            .collect();
        let table = snapshot(columns(), vec![fields]);
        let of = |value: ScalarValue| match bucket(4, hash).apply_scalar(&value).unwrap() {
            ScalarValue::Int32(Some(bucket)) => bucket,
            other => panic!("{other}"),
        };
        let id = |v: i64| of(ScalarValue::Int64(Some(v)));
        let d = of(ScalarValue::Date32(Some(9)));
        let day = || col("d").eq(lit(ScalarValue::Date32(Some(9))));
        let expected = |may: &dyn Fn(i32, i32) -> bool| -> Vec<usize> {
            (0..16).filter(|i| may(*i as i32 / 4, *i as i32 % 4)).collect()
        };
        let ids = col("id").in_list(vec![lit(34i64), lit(35i64)], false);
        assert_eq!(
            kept(&table, &files, ids.or(day())),
            expected(&|a, b| a == id(34) || a == id(35) || b == d)
        );
        let both = col("id").eq(lit(34i64)).and(day()).or(col("id").eq(lit(7i64)));
        assert_eq!(
            kept(&table, &files, both),
            expected(&|a, b| (a == id(34) && b == d) || a == id(7))
        );
        // What says nothing of buckets keeps all.
        assert_eq!(kept(&table, &files, day().or(col("flag"))).len(), 16);
        // So many alternatives are not looked at one by one, and lose nothing.
        let many = (0..200i64).map(|v| col("id").eq(lit(v)).and(col("name").eq(lit(v.to_string()))));
        assert_eq!(kept(&table, &files, many.reduce(Expr::or).unwrap()).len(), 16);
    }
}

#[test]
fn keys_select_the_exact_partitions_and_the_files_between_whose_bounds_they_lie() {
    let (table, files) = by_day_and_bucket(BucketHash::Spark, 0);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(3)]));
    let ts: ArrayRef = Arc::new(
        TimestampMicrosecondArray::from(vec![Some(5 * DAY), Some(5 * DAY + 7), Some(9 * DAY), None])
            .with_timezone("UTC"),
    );
    let keys = vec![("id".to_owned(), Arc::clone(&ids)), ("ts".to_owned(), ts)];
    let prune = Prune::everything().with_keys(keys).unwrap();
    let keep = prune.keep_files(&table, &files).unwrap();
    let buckets = bucket(4, BucketHash::Spark).apply(&ids).unwrap();
    let buckets = buckets.as_primitive::<arrow::datatypes::Int32Type>();
    for (i, keep) in keep.iter().enumerate() {
        let expected = i / 4 == 5 && (i as i32 % 4 == buckets.value(0) || i as i32 % 4 == buckets.value(1));
        assert_eq!(*keep, expected, "file {i}");
    }

    let (table, files) = sorted_by_id();
    let keys: ArrayRef = Arc::new(Int32Array::from(vec![Some(777), None, Some(3), Some(3)]));
    let prune = Prune::everything()
        .with_keys(vec![("id".to_owned(), keys)])
        .unwrap();
    let keep = prune.keep_files(&table, &files).unwrap();
    assert_eq!((0..100).filter(|i| keep[*i]).collect::<Vec<_>>(), [0, 77]);
    assert_eq!(prune.counts().skipped_by_statistics.load(Ordering::Relaxed), 98);

    let nothing: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
    let prune = Prune::everything()
        .with_keys(vec![("id".to_owned(), nothing)])
        .unwrap();
    assert!(!prune.keep_files(&table, &files).unwrap().contains(&true));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["3"]));
    let prune = Prune::everything()
        .with_keys(vec![("id".to_owned(), text)])
        .unwrap();
    assert!(
        !prune.keep_files(&table, &files).unwrap().contains(&false),
        "types that cannot be compared"
    );
}

#[test]
fn keys_of_different_lengths_are_refused() {
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let error = Prune::everything()
        .with_keys(vec![("a".into(), a), ("b".into(), b)])
        .unwrap_err();
    assert!(error.to_string().contains("'b' 2"), "{error}");
}

#[test]
fn files_of_unknown_specs_and_groups_without_ranges_are_kept() {
    let (table, mut files) = by_day_and_bucket(BucketHash::Iceberg, 0);
    files.truncate(1);
    files[0].spec_id = 9;
    assert_eq!(kept(&table, &files, col("id").eq(lit(1))), [0]);
    let prune = Prune::matching(col("ts").lt(lit("1960-01-01")), columns()).unwrap();
    let fields = table.specs[&0].clone();
    assert_eq!(
        prune
            .keep_ranges(&table, &fields, &[vec![None, None], vec![]])
            .unwrap(),
        [true, true]
    );
}

#[test]
fn a_hundred_thousand_files_are_pruned_by_sixty_six_thousand_keys_in_no_time() {
    let fields = vec![
        field("ts", Transform::Day, 0),
        field("id", bucket(16, BucketHash::Iceberg), 0),
    ];
    let table = snapshot(columns(), vec![fields]);
    let files: Vec<DataFile> = (0..100_000i32)
        .map(|i| {
            let (day, low) = (i / 16, i64::from(i) * 50);
            let columns = BTreeMap::from([
                ("id".to_owned(), stats(low % 1_000, low % 1_000 + 5_000)),
                (
                    "ts".to_owned(),
                    stats(
                        ScalarValue::TimestampMicrosecond(Some(i64::from(day) * DAY), Some("UTC".into())),
                        ScalarValue::TimestampMicrosecond(
                            Some(i64::from(day + 1) * DAY - 1),
                            Some("UTC".into()),
                        ),
                    ),
                ),
            ]);
            file(
                0,
                vec![ScalarValue::Date32(Some(day)), ScalarValue::Int32(Some(i % 16))],
                100,
                columns,
            )
        })
        .collect();
    let ids: ArrayRef = Arc::new((0..66_000i64).map(|i| Some(i % 5_000)).collect::<Int64Array>());
    let ts: ArrayRef = Arc::new(
        (0..66_000i64)
            .map(|i| Some((i % 30) * DAY + i))
            .collect::<TimestampMicrosecondArray>()
            .with_timezone("UTC"),
    );
    #[expect(clippy::disallowed_methods, reason = "time is measured")]
    let started = std::time::Instant::now();
    let predicate = col("ts").lt(lit("1975-01-01"));
    let prune = Prune::matching(predicate, columns())
        .unwrap()
        .with_keys(vec![("id".into(), ids), ("ts".into(), ts)])
        .unwrap();
    let keep: usize = files
        .chunks(1_000)
        .map(|chunk| {
            prune
                .keep_files(&table, chunk)
                .unwrap()
                .into_iter()
                .filter(|k| *k)
                .count()
        })
        .sum();
    let elapsed = started.elapsed();
    eprintln!("100,000 files in {elapsed:?}");
    assert_eq!(keep, 30 * 16);
    // The limit leaves room for an unoptimised build on a busy machine.
    assert!(elapsed.as_secs() < 10, "{elapsed:?}");
}
