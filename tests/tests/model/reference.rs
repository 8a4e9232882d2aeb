//! Tables and operations as a child would write them: vectors of rows, loops over loops.

use std::cmp::Ordering;
use std::fmt;

use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use datafusion::scalar::ScalarValue;
use lakehouse_core::operations::OnDuplicate;

pub(super) type Row = Vec<ScalarValue>;

/// A column of a table.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Which column it is, whatever its name.
    pub(super) id: u32,
    pub(super) name: &'static str,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
}

/// Which side of a merge a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// No qualifier: there is only one side.
    Only,
    Target,
    Source,
}

/// A value in an expression.
#[derive(Debug, Clone)]
pub(super) enum Term {
    Column(Side, &'static str),
    Literal(ScalarValue),
    /// Of a `BIGINT` or `INT` column.
    PlusOne(Side, &'static str),
}

/// A condition, with SQL's three values.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    Compare(Term, &'static str, Term),
    IsNull(Side, &'static str),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

/// The row, or the pair of rows, that an expression is about.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) target: Option<(&'a [Column], &'a Row)>,
    pub(super) source: Option<(&'a [Column], &'a Row)>,
}

impl<'a> Scope<'a> {
    pub(super) fn of(columns: &'a [Column], row: &'a Row) -> Self {
        Self {
            target: Some((columns, row)),
            source: None,
        }
    }

    fn get(&self, side: Side, name: &str) -> ScalarValue {
        let (columns, row) = match side {
            Side::Only => self.target.or(self.source),
            Side::Target => self.target,
            Side::Source => self.source,
        }
        .expect("the generator names only sides that are there");
        row[position(columns, name)].clone()
    }
}

pub(super) fn position(columns: &[Column], name: &str) -> usize {
    columns
        .iter()
        .position(|c| c.name == name)
        .expect("the generator names only columns that are there")
}

impl Term {
    pub(super) fn value(&self, scope: Scope<'_>) -> ScalarValue {
        match self {
            Self::Column(side, name) => scope.get(*side, name),
            Self::Literal(value) => value.clone(),
            Self::PlusOne(side, name) => match scope.get(*side, name) {
                ScalarValue::Int64(Some(n)) => ScalarValue::Int64(Some(n + 1)),
                ScalarValue::Int32(Some(n)) => ScalarValue::Int32(Some(n + 1)),
                null => null,
            },
        }
    }
}

impl Condition {
    /// True, false, or NULL.
    pub(super) fn value(&self, scope: Scope<'_>) -> Option<bool> {
        match self {
            Self::Compare(left, operator, right) => {
                let (left, right) = (left.value(scope), right.value(scope));
                if left.is_null() || right.is_null() {
                    return None;
                }
                let order = left.partial_cmp(&right).expect("same type");
                Some(match *operator {
                    "=" => order == Ordering::Equal,
                    "<>" => order != Ordering::Equal,
                    "<" => order == Ordering::Less,
                    ">=" => order != Ordering::Less,
                    other => panic!("operator {other}"),
                })
            }
            Self::IsNull(side, name) => Some(scope.get(*side, name).is_null()),
            Self::Not(inner) => inner.value(scope).map(|truth| !truth),
            Self::And(left, right) => match (left.value(scope), right.value(scope)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.value(scope), right.value(scope)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    pub(super) fn is_true(&self, scope: Scope<'_>) -> bool {
        self.value(scope) == Some(true)
    }
}

fn name(f: &mut fmt::Formatter<'_>, side: Side, column: &str) -> fmt::Result {
    match side {
        Side::Only => write!(f, "{column}"),
        Side::Target => write!(f, "target.{column}"),
        Side::Source => write!(f, "source.{column}"),
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(side, column) => name(f, *side, column),
            Self::PlusOne(side, column) => {
                name(f, *side, column)?;
                f.write_str(" + 1")
            }
            Self::Literal(value) if value.is_null() => f.write_str("NULL"),
            Self::Literal(value) => {
                let array = value.to_array().map_err(|_| fmt::Error)?;
                let text = array_value_to_string(&array, 0).map_err(|_| fmt::Error)?;
                match value.data_type() {
                    DataType::Utf8 | DataType::Date32 | DataType::Timestamp(..) => write!(f, "'{text}'"),
                    _ => f.write_str(&text),
                }
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(left, operator, right) => write!(f, "{left} {operator} {right}"),
            Self::IsNull(side, column) => {
                name(f, *side, column)?;
                f.write_str(" IS NULL")
            }
            Self::Not(inner) => write!(f, "NOT ({inner})"),
            Self::And(left, right) => write!(f, "({left} AND {right})"),
            Self::Or(left, right) => write!(f, "({left} OR {right})"),
        }
    }
}

/// `column = value, ..`.
pub(super) type Assignments = Vec<(&'static str, Term)>;

pub(super) fn spell(assignments: &Assignments) -> String {
    let parts: Vec<String> = assignments
        .iter()
        .map(|(column, term)| format!("{column} = {term}"))
        .collect();
    parts.join(", ")
}

pub(super) fn assign(columns: &[Column], row: &Row, assignments: &Assignments, scope: Scope<'_>) -> Row {
    let mut new = row.clone();
    for (column, term) in assignments {
        new[position(columns, column)] = term.value(scope);
    }
    new
}

/// What a clause of a merge does.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    UpdateAll,
    Update(Assignments),
    Delete,
    InsertAll,
    Insert(Assignments),
}

#[derive(Debug, Clone)]
pub(super) struct Clause {
    pub(super) condition: Option<Condition>,
    pub(super) effect: Effect,
}

/// A merge on equal keys.
#[derive(Debug, Clone)]
pub(super) struct Merge {
    pub(super) keys: Vec<&'static str>,
    /// Of these, those in which NULL matches NULL.
    pub(super) null_safe: Vec<&'static str>,
    pub(super) on_duplicate: OnDuplicate,
    /// A column that both sides have.
    pub(super) sequence: Option<&'static str>,
    /// Deletes set this column.
    pub(super) mark: Option<&'static str>,
    /// Write the keys as a full condition.
    pub(super) spelled_out: bool,
    /// Of the source.
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    pub(super) matched: Vec<Clause>,
    pub(super) inserts: Vec<Clause>,
    pub(super) by_source: Vec<Clause>,
}

fn first<'a>(clauses: &'a [Clause], scope: Scope<'_>) -> Option<&'a Clause> {
    clauses
        .iter()
        .find(|clause| clause.condition.as_ref().is_none_or(|c| c.is_true(scope)))
}

fn new_row(target: &[Column], source: &[Column], row: &Row) -> Row {
    let value = |column: &Column| match source.iter().position(|c| c.name == column.name) {
        Some(at) => row[at].clone(),
        None => ScalarValue::try_new_null(&column.data_type).unwrap(),
    };
    target.iter().map(value).collect()
}

impl Merge {
    fn key(&self, columns: &[Column], row: &Row) -> Option<Row> {
        let mut values = Row::new();
        for key in &self.keys {
            let value = row[position(columns, key)].clone();
            if value.is_null() && !self.null_safe.contains(key) {
                return None;
            }
            values.push(value);
        }
        Some(values)
    }

    /// How two rows stand in the sequence; NULL is the oldest.
    fn order(&self, one: (&[Column], &Row), other: (&[Column], &Row)) -> Ordering {
        let Some(name) = self.sequence else {
            return Ordering::Equal;
        };
        let (one, other) = (&one.1[position(one.0, name)], &other.1[position(other.0, name)]);
        match (one.is_null(), other.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => one.partial_cmp(other).expect("same type"),
        }
    }

    /// The source rows that count.
    fn settled(&self) -> Vec<Row> {
        let beats = |one: usize, other: usize| {
            let columns = &self.columns[..];
            match self.order((columns, &self.rows[one]), (columns, &self.rows[other])) {
                Ordering::Greater => true,
                Ordering::Less => false,
                Ordering::Equal => match self.on_duplicate {
                    OnDuplicate::Error => false,
                    OnDuplicate::First => one < other,
                    OnDuplicate::Last => one > other,
                },
            }
        };
        let counts = |row: &usize| {
            let key = self.key(&self.columns, &self.rows[*row]);
            key.is_none()
                || !(0..self.rows.len())
                    .any(|other| self.key(&self.columns, &self.rows[other]) == key && beats(other, *row))
        };
        (0..self.rows.len())
            .filter(counts)
            .map(|row| self.rows[row].clone())
            .collect()
    }

    /// A row that is written, or one that is deleted and stays with a mark.
    fn marked(&self, columns: &[Column], mut row: Row, dead: bool) -> Row {
        if let Some(mark) = self.mark {
            row[position(columns, mark)] = ScalarValue::Boolean(Some(dead));
        }
        row
    }

    /// The rows afterwards; `None` when the merge must be refused for duplicate keys.
    pub(super) fn apply(&self, columns: &[Column], table: &[Row]) -> Option<Vec<Row>> {
        let rows = self.settled();
        let mut after = Vec::new();
        let mut source_matched = vec![false; rows.len()];
        for row in table {
            let key = self.key(columns, row);
            let mut matched = false;
            let mut acting = Vec::new();
            for (at, source) in rows.iter().enumerate() {
                if key.is_none() || self.key(&self.columns, source) != key {
                    continue;
                }
                matched = true;
                source_matched[at] = true;
                let scope = Scope {
                    target: Some((columns, row)),
                    source: Some((&self.columns, source)),
                };
                if self.order((columns, row), (&self.columns[..], source)) == Ordering::Greater {
                    continue;
                }
                if let Some(clause) = first(&self.matched, scope) {
                    acting.push((source, clause, scope));
                }
            }
            let deletes = acting
                .iter()
                .filter(|(_, c, _)| matches!(c.effect, Effect::Delete) && self.mark.is_none())
                .count();
            if acting.len() > 1 && deletes < acting.len() {
                return None;
            }
            if !matched {
                let scope = Scope {
                    target: Some((columns, row)),
                    source: None,
                };
                let dead = |mark| row[position(columns, mark)] == ScalarValue::Boolean(Some(true));
                let clause = match self.mark {
                    Some(mark) if dead(mark) => None,
                    _ => first(&self.by_source, scope),
                };
                match clause.map(|clause| &clause.effect) {
                    None => after.push(row.clone()),
                    Some(Effect::Delete) if self.mark.is_some() => {
                        after.push(self.marked(columns, row.clone(), true));
                    }
                    Some(Effect::Update(set)) => after.push(assign(columns, row, set, scope)),
                    Some(_) => {}
                }
                continue;
            }
            match acting.first() {
                None => after.push(row.clone()),
                Some((source, clause, scope)) => {
                    let all = || {
                        let mut new = row.clone();
                        for (at, column) in self.columns.iter().enumerate() {
                            new[position(columns, column.name)] = source[at].clone();
                        }
                        new
                    };
                    match &clause.effect {
                        Effect::Update(set) => {
                            after.push(self.marked(columns, assign(columns, row, set, *scope), false));
                        }
                        Effect::UpdateAll => after.push(self.marked(columns, all(), false)),
                        Effect::Delete if self.mark.is_some() => {
                            after.push(self.marked(columns, all(), true));
                        }
                        _ => {}
                    }
                }
            }
        }
        let mut inserted: Vec<Row> = Vec::new();
        for (at, source) in rows.iter().enumerate() {
            let scope = Scope {
                target: None,
                source: Some((&self.columns, source)),
            };
            let Some(clause) = first(&self.inserts, scope).filter(|_| !source_matched[at]) else {
                continue;
            };
            if let Some(key) = self.key(&self.columns, source) {
                if inserted.contains(&key) {
                    return None;
                }
                inserted.push(key);
            }
            let row = match &clause.effect {
                Effect::Insert(set) => assign(columns, &new_row(columns, &[], &Row::new()), set, scope),
                _ => new_row(columns, &self.columns, source),
            };
            after.push(self.marked(columns, row, false));
        }
        Some(after)
    }
}

/// Rows of some of a table's columns as rows of all.
pub(super) fn widen(columns: &[Column], given: &[Column], rows: &[Row]) -> Vec<Row> {
    rows.iter().map(|row| new_row(columns, given, row)).collect()
}
