//! Random tables and random programs.

use std::cell::Cell;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::scalar::ScalarValue;
use lakehouse_core::operations::{OnDuplicate, Strategy};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::evolution::{Evolution, Evolver};
use super::reference::{Assignments, Clause, Column, Condition, Effect, Merge, Row, Scope, Side, Term};

/// A table and what is done to it.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) columns: Vec<Column>,
    pub(super) partitioning: &'static str,
    /// Files are rewritten instead of masked.
    pub(super) copy_on_write: bool,
    /// A few rows each, so that files have several and some of them are copied.
    pub(super) small_row_groups: bool,
    pub(super) target_file_bytes: Option<u64>,
    pub(super) steps: Vec<Step>,
    /// Of each step.
    pub(super) strategies: Vec<Strategy>,
}

#[derive(Debug)]
pub(super) enum Step {
    Append(Vec<Column>, Vec<Row>),
    OverwriteAll(Vec<Row>),
    OverwriteWhere(Condition, Vec<Row>),
    Delete(Condition),
    Update(Assignments, Option<Condition>),
    Merge(Merge),
    Compact,
    /// The version that this many commits made.
    Restore(usize),
    Alter(Evolution),
}

thread_local! {
    /// Whether the program at hand may use empty text.
    static EMPTY_TEXT: Cell<bool> = const { Cell::new(true) };
}

/// Larger than any key that is used at first, so that some are new.
const KEYS: i64 = 24;

/// What becomes of a table's columns while programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evolving {
    /// Nothing.
    No,
    /// They come, go and change.
    Columns,
    /// And so does the partitioning.
    Partitioning,
}

impl Program {
    pub(super) fn random(seed: u64) -> Self {
        Self::evolving(seed, Evolving::No)
    }

    pub(super) fn evolving(seed: u64, evolving: Evolving) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let columns = columns(rng);
        let has = |name: &str| columns.iter().any(|c| c.name == name);
        let mut partitionings = vec![
            "",
            "",
            "bucket(3, id)",
            "truncate(10, id)",
            "region",
            "region, bucket(2, id)",
            "truncate(1, region)",
        ];
        if has("ts") {
            partitionings.extend(["day(ts)", "day(ts), region", "hour(ts)", "month(ts)"]);
        }
        if has("d") {
            partitionings.extend(["day(d)", "d", "month(d)", "year(d)"]);
        }
        if has("flag") {
            partitionings.push("flag");
        }
        let partitioning = pick(rng, &partitionings);
        // Delta has no way to tell an empty partition value from NULL.
        EMPTY_TEXT.set(!partitioning.contains("region") || partitioning == "truncate(1, region)");
        let copy_on_write = rng.random_bool(0.25);
        let small_row_groups = rng.random_bool(0.5);
        let target_file_bytes = *[None, None, Some(3000)].choose(rng).unwrap();
        let mut steps = vec![Step::Append(columns.clone(), rows(rng, &columns, 12))];
        let mut now = Evolver {
            columns: columns.clone(),
            partitioning,
            next: columns.len() as u32,
        };
        for done in 0..rng.random_range(3..8) {
            if evolving != Evolving::No && rng.random_bool(0.7) {
                steps.extend(now.step(rng, evolving).map(Step::Alter));
            }
            steps.push(step(rng, &now.columns, done));
        }
        let mut strategies = vec![Strategy::Auto, Strategy::Auto, Strategy::CopyOnWrite];
        if !copy_on_write {
            strategies.push(Strategy::MergeOnRead);
        }
        let strategies = steps.iter().map(|_| pick(rng, &strategies)).collect();
        Self {
            columns,
            partitioning,
            copy_on_write,
            small_row_groups,
            target_file_bytes,
            steps,
            strategies,
        }
    }
}

pub(super) fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    *from.choose(rng).unwrap()
}

fn columns(rng: &mut StdRng) -> Vec<Column> {
    let column = |name, data_type, nullable| Column {
        id: 0,
        name,
        data_type,
        nullable,
    };
    let utc = || Some("UTC".into());
    let mut columns = vec![
        column("id", DataType::Int64, false),
        column("region", DataType::Utf8, true),
    ];
    for extra in [
        column("n", DataType::Int32, true),
        column("x", DataType::Float64, true),
        column("flag", DataType::Boolean, true),
        column("d", DataType::Date32, true),
        column("ts", DataType::Timestamp(TimeUnit::Microsecond, utc()), true),
        column("local", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        column("price", DataType::Decimal128(9, 2), true),
    ] {
        if rng.random_bool(0.5) {
            columns.push(extra);
        }
    }
    (0..).zip(&mut columns).for_each(|(id, column)| column.id = id);
    columns
}

fn value(rng: &mut StdRng, column: &Column) -> ScalarValue {
    if column.nullable && rng.random_bool(0.2) {
        return ScalarValue::try_new_null(&column.data_type).unwrap();
    }
    const DAY_US: i64 = 86_400_000_000;
    let day = rng.random_range(-3..4);
    match &column.data_type {
        DataType::Int64 => ScalarValue::Int64(Some(rng.random_range(0..KEYS))),
        DataType::Int32 => ScalarValue::Int32(Some(rng.random_range(-5..6))),
        DataType::Float64 => ScalarValue::Float64(Some(f64::from(rng.random_range(-8..9)) / 4.0)),
        DataType::Boolean => ScalarValue::Boolean(Some(rng.random_bool(0.5))),
        DataType::Utf8 => {
            let empty = if EMPTY_TEXT.get() { "" } else { "ap" };
            ScalarValue::Utf8(Some(
                pick(rng, &["eu", "us", empty, "a/b=c", "über", "x y"]).to_owned(),
            ))
        }
        DataType::Date32 => ScalarValue::Date32(Some(day)),
        DataType::Timestamp(_, zone) => {
            let us =
                i64::from(day) * DAY_US + rng.random_range(0..24) * (DAY_US / 24) + rng.random_range(0..2);
            ScalarValue::TimestampMicrosecond(Some(us), zone.clone())
        }
        DataType::Decimal128(precision, scale) => {
            ScalarValue::Decimal128(Some(rng.random_range(-4..5) * 25), *precision, *scale)
        }
        other => panic!("no values for {other}"),
    }
}

fn rows(rng: &mut StdRng, columns: &[Column], most: usize) -> Vec<Row> {
    let count = rng.random_range(0..=most);
    (0..count)
        .map(|_| columns.iter().map(|c| value(rng, c)).collect())
        .collect()
}

fn comparison(rng: &mut StdRng, columns: &[Column], side: Side) -> Condition {
    let column = columns.choose(rng).unwrap();
    if column.nullable && rng.random_bool(0.15) {
        return Condition::IsNull(side, column.name);
    }
    let literal = loop {
        let value = value(rng, column);
        if !value.is_null() {
            break value;
        }
    };
    let operators: &[&'static str] = if column.data_type == DataType::Boolean {
        &["=", "<>"]
    } else {
        &["=", "<>", "<", ">="]
    };
    Condition::Compare(
        Term::Column(side, column.name),
        pick(rng, operators),
        Term::Literal(literal),
    )
}

fn condition(rng: &mut StdRng, columns: &[Column], side: Side) -> Condition {
    let left = comparison(rng, columns, side);
    match rng.random_range(0..6) {
        0 => Condition::And(Box::new(left), Box::new(comparison(rng, columns, side))),
        1 => Condition::Or(Box::new(left), Box::new(comparison(rng, columns, side))),
        2 => Condition::Not(Box::new(left)),
        _ => left,
    }
}

fn assignments(rng: &mut StdRng, columns: &[Column], side: Side) -> Assignments {
    let mut set = Assignments::new();
    for column in columns {
        // Keys stay small in number, so that merges meet rows.
        if column.name == "id" || rng.random_bool(0.6) {
            continue;
        }
        let same = columns
            .iter()
            .find(|c| c.data_type == column.data_type && c.name != column.name);
        let term = match (rng.random_range(0..3), same) {
            (0, _) if column.data_type == DataType::Int32 => Term::PlusOne(side, column.name),
            (1, Some(other)) => Term::Column(side, other.name),
            _ => Term::Literal(value(rng, column)),
        };
        set.push((column.name, term));
    }
    if set.is_empty() {
        set.push(("region", Term::Literal(ScalarValue::Utf8(Some("set".to_owned())))));
    }
    set
}

fn some_columns(rng: &mut StdRng, columns: &[Column]) -> Vec<Column> {
    let keep = |rng: &mut StdRng, c: &Column| matches!(c.name, "id" | "region") || rng.random_bool(0.8);
    let mut kept: Vec<Column> = columns.iter().filter(|c| keep(rng, c)).cloned().collect();
    if rng.random_bool(0.3) {
        kept.reverse();
    }
    kept
}

fn step(rng: &mut StdRng, columns: &[Column], done: usize) -> Step {
    match rng.random_range(0..20) {
        0..3 => {
            let given = some_columns(rng, columns);
            let rows = rows(rng, &given, 10);
            Step::Append(given, rows)
        }
        3 => Step::OverwriteAll(rows(rng, columns, 8)),
        4..6 => {
            let replaced = condition(rng, columns, Side::Only);
            let mut new = rows(rng, columns, 30);
            new.retain(|row| replaced.is_true(Scope::of(columns, row)));
            new.truncate(5);
            Step::OverwriteWhere(replaced, new)
        }
        6..8 => Step::Delete(condition(rng, columns, Side::Only)),
        8..11 => {
            let only = rng.random_bool(0.8).then(|| condition(rng, columns, Side::Only));
            Step::Update(assignments(rng, columns, Side::Only), only)
        }
        11..17 => Step::Merge(merge(rng, columns)),
        17..19 => Step::Compact,
        _ => Step::Restore(rng.random_range(0..=done)),
    }
}

fn merge(rng: &mut StdRng, columns: &[Column]) -> Merge {
    let source = some_columns(rng, columns);
    let keys = pick(
        rng,
        &[
            &["id"][..],
            &["id"],
            &["id", "region"],
            &["region", "id"],
            &["region"],
        ],
    )
    .to_vec();
    let mut source_rows = rows(rng, &source, 10);
    if rng.random_bool(0.85) {
        let mut seen: Vec<Row> = Vec::new();
        source_rows.retain(|row| {
            let at = |key: &&str| row[source.iter().position(|c| c.name == *key).unwrap()].clone();
            let key: Row = keys.iter().map(at).collect();
            let fresh = !seen.contains(&key);
            seen.push(key);
            fresh
        });
    }
    let on_duplicate = pick(
        rng,
        &[
            OnDuplicate::Error,
            OnDuplicate::Error,
            OnDuplicate::First,
            OnDuplicate::Last,
        ],
    );
    let sequence = rng.random_bool(0.3).then(|| source.choose(rng).unwrap().name);
    let mark = (columns.iter().any(|c| c.name == "flag") && rng.random_bool(0.3)).then_some("flag");
    let mut matched = Vec::new();
    for _ in 0..rng.random_range(0..3) {
        let side = pick(rng, &[Side::Target, Side::Source]);
        let of = if side == Side::Target { columns } else { &source };
        let only = rng.random_bool(0.6).then(|| condition(rng, of, side));
        let effect = match rng.random_range(0..4) {
            0 => Effect::Delete,
            1 => {
                let mut set = assignments(rng, columns, Side::Target);
                for (name, term) in &mut set {
                    if source.iter().any(|c| c.name == *name) && rng.random_bool(0.5) {
                        *term = Term::Column(Side::Source, name);
                    }
                }
                set.retain(|(name, _)| Some(*name) != mark);
                match set.is_empty() {
                    true => Effect::UpdateAll,
                    false => Effect::Update(set),
                }
            }
            _ => Effect::UpdateAll,
        };
        matched.push(Clause {
            condition: only,
            effect,
        });
    }
    let mut inserts = Vec::new();
    if rng.random_bool(0.7) {
        let only = rng
            .random_bool(0.3)
            .then(|| condition(rng, &source, Side::Source));
        let effect = match rng.random_bool(0.3) {
            true => {
                let mut set = assignments(rng, &source, Side::Source);
                set.retain(|(name, _)| Some(*name) != mark);
                set.push(("id", Term::Column(Side::Source, "id")));
                Effect::Insert(set)
            }
            false => Effect::InsertAll,
        };
        inserts.push(Clause {
            condition: only,
            effect,
        });
    }
    let mut by_source = Vec::new();
    if rng.random_bool(0.25) || (matched.is_empty() && inserts.is_empty()) {
        let only = rng
            .random_bool(0.7)
            .then(|| condition(rng, columns, Side::Target));
        let effect = match rng.random_bool(0.5) {
            true => Effect::Delete,
            false => Effect::Update(assignments(rng, columns, Side::Target)),
        };
        by_source.push(Clause {
            condition: only,
            effect,
        });
    }
    let null_safe: Vec<&str> = match rng.random_bool(0.3) {
        true => keys.iter().copied().filter(|_| rng.random_bool(0.7)).collect(),
        false => Vec::new(),
    };
    Merge {
        spelled_out: !null_safe.is_empty() || rng.random_bool(0.4),
        keys,
        null_safe,
        on_duplicate,
        sequence,
        mark,
        columns: source,
        rows: source_rows,
        matched,
        inserts,
        by_source,
    }
}
