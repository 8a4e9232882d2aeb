//! What a merge means for the columns of one table and one source.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema};
use datafusion::logical_expr::ExprSchemable;
use datafusion::logical_expr::utils::{conjunction, disjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;

use super::super::update::column;
use super::cdc::Own;
use super::feed::{Feed, own_columns};
use super::source::Source;
use super::spec::{Action, Clause, Merge, When};
use crate::error::{Error, Result};
use crate::model::Prune;
use crate::model::schema::is_utc;
use crate::scan::{columns_of_both, parse_assignments, parse_names, parse_predicate, stored, unknown_column};

/// Qualifier of the table's columns.
pub(super) const TARGET: &str = "target";
/// Qualifier of the source's columns.
pub(super) const SOURCE: &str = "source";

/// A merge with every name resolved.
pub(super) struct Plan {
    /// When rows match.
    pub(super) on: Expr,
    /// Equalities in it (`<=>` too): a column of the table and one of the source.
    pub(super) keys: Vec<Key>,
    /// It consists of nothing else, so that equal keys mean that rows match the same.
    pub(super) only_keys: bool,
    /// Clauses for rows that match.
    pub(super) matched: Vec<Step>,
    /// Clauses for source rows that match nothing.
    pub(super) inserts: Vec<Step>,
    /// Clauses for target rows that match nothing.
    pub(super) by_source: Vec<Step>,
    /// Rows that an update would not change are left where they are.
    pub(super) skip_unchanged: bool,
}

/// `target.x = source.y`.
pub(super) struct Key {
    pub(super) target: String,
    pub(super) source: String,
    /// `<=>`: NULL matches NULL.
    pub(super) null_safe: bool,
}

/// A clause.
pub(super) struct Step {
    pub(super) condition: Option<Expr>,
    pub(super) effect: Effect,
}

/// What a clause does to a row.
pub(super) enum Effect {
    /// It goes.
    Delete,
    /// A row with these values takes its place, or is added.
    Write(Vec<(String, Expr)>),
}

impl Plan {
    pub(super) fn new(merge: &Merge, feed: &Feed, table: &SchemaRef, source: &Schema) -> Result<Self> {
        let both = columns_of_both(table, source)?;
        let (on, keys, only_keys) = match parse_names(&merge.on) {
            Some(names) => by_names(names, table, source)?,
            None => by_condition(&merge.on, &both)?,
        };
        let mut plan = Self {
            on,
            keys,
            only_keys,
            matched: Vec::new(),
            inserts: Vec::new(),
            by_source: Vec::new(),
            skip_unchanged: merge.skip_unchanged,
        };
        let mut named: BTreeSet<String> = feed.named().iter().cloned().collect();
        note_source_columns(&plan.on, &mut named);
        let never_insert = never_insert(merge, &both, &mut named)?;
        for clause in &merge.clauses {
            let step = step(clause, table, source, &both, &mut named)?;
            match clause.when {
                When::Matched => plan.matched.push(step),
                When::NotMatched => plan.inserts.push(Step {
                    condition: conjunction(
                        step.condition
                            .into_iter()
                            .chain(never_insert.iter().map(|c| c.clone().is_not_true())),
                    ),
                    effect: step.effect,
                }),
                When::NotMatchedBySource => plan.by_source.push(step),
            }
        }
        feed.clauses(table, source, &mut plan);
        if plan.matched.is_empty() && plan.inserts.is_empty() && plan.by_source.is_empty() {
            return Err(Error::invalid("a merge without clauses does nothing", "")
                .with_hint("say what happens to rows that match, and to those that do not"));
        }
        feed.rules(table, source, &never_insert, &mut plan)?;
        if takes_all(merge) {
            refuse_extra_columns(table, source, &named)?;
        }
        Ok(plan)
    }

    /// Which rows of the table can match and matter: by what the condition and the clauses say about the
    /// table's columns alone, and by the source's keys.
    pub(super) fn prune(&self, table: &SchemaRef, source: Option<&Source>) -> Result<Prune> {
        let alone = split_conjunction(&self.on)
            .into_iter()
            .filter(|part| is_only(part, TARGET) && !part.is_volatile())
            .cloned();
        let alone = alone.chain(self.wanted()).map(|part| unqualified(&part));
        let prune = match conjunction(alone.collect::<Result<Vec<_>>>()?) {
            Some(predicate) => Prune::matching(predicate, Arc::clone(table))?,
            None => Prune::everything(),
        };
        let Some(source) = source else {
            return Ok(prune);
        };
        let mut keys: Vec<(String, ArrayRef)> = Vec::new();
        for key in &self.keys {
            let wanted = table.field_with_name(&key.target)?.data_type();
            let values = source.column(&key.source)?;
            if key.null_safe && values.logical_null_count() > 0 {
                // Bounds say nothing of rows with NULL, and those match too.
                continue;
            }
            if let Some(values) = as_type(&values, wanted)?
                && !keys.iter().any(|(name, _)| *name == key.target)
            {
                keys.push((key.target.clone(), values));
            }
        }
        if keys.is_empty() {
            Ok(prune)
        } else {
            prune.with_keys(keys)
        }
    }

    /// Which rows of the table the clauses for rows without a match are about; `None` for all.
    pub(super) fn by_source_predicate(&self) -> Result<Option<Expr>> {
        let conditions: Option<Vec<Expr>> = self.by_source.iter().map(|s| s.condition.clone()).collect();
        match conditions.and_then(disjunction) {
            Some(any) => unqualified(&any).map(Some),
            None => Ok(None),
        }
    }

    /// Which rows of the table some clause for rows that match is about, if that can be said by the table's
    /// columns alone. Not where rows are inserted: those that match must be known then, wanted or not.
    pub(super) fn wanted(&self) -> Option<Expr> {
        if !self.inserts.is_empty() || !self.by_source.is_empty() {
            return None;
        }
        let conditions: Option<Vec<Expr>> = self
            .matched
            .iter()
            .map(|step| {
                let parts = split_conjunction(step.condition.as_ref()?);
                let alone = parts
                    .into_iter()
                    .filter(|part| is_only(part, TARGET) && !part.is_volatile());
                conjunction(alone.cloned())
            })
            .collect();
        disjunction(conditions?)
    }

    /// Whether every row that matches is changed, and no other one.
    pub(super) fn surely_changes(&self) -> bool {
        let always = |step: &Step| step.condition.is_none();
        self.by_source.is_empty() && !self.skip_unchanged && self.matched.iter().any(always)
    }

    /// Whether the condition moves times to a zone other than UTC.
    pub(super) fn moves_zones(&self) -> Result<bool> {
        Ok(self.on.exists(|part| {
            let to = match part {
                Expr::Cast(cast) => Some(cast.field.data_type()),
                Expr::TryCast(cast) => Some(cast.field.data_type()),
                _ => None,
            };
            Ok(matches!(to, Some(DataType::Timestamp(_, zone)) if zone.as_deref().is_some_and(|zone| !is_utc(zone))))
        })?)
    }

    /// Whether the same rows might match, or act, differently another time.
    pub(super) fn is_volatile(&self) -> bool {
        let conditions = self.matched.iter().filter_map(|step| step.condition.as_ref());
        self.on.is_volatile() || conditions.into_iter().any(Expr::is_volatile)
    }

    /// Names of the source's key columns.
    pub(super) fn source_keys(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.source.clone()).collect()
    }
}

/// `k1, k2`: equality of the columns of these names.
fn by_names(names: Vec<String>, table: &Schema, source: &Schema) -> Result<(Expr, Vec<Key>, bool)> {
    for (schema, place) in [(table, "the table"), (source, "the source")] {
        for name in &names {
            if schema.field_with_name(name).is_err() {
                let known = schema.fields().iter().map(|f| f.name().clone());
                return Err(unknown_column(name, known, &format!("{place}, key of the merge")));
            }
        }
    }
    let equalities = names
        .iter()
        .map(|name| column(Some(TARGET), name).eq(column(Some(SOURCE), name)));
    let on = conjunction(equalities)
        .ok_or_else(|| Error::invalid("a merge needs at least one key column", "key of the merge"))?;
    let keys = names
        .into_iter()
        .map(|name| Key {
            target: name.clone(),
            source: name,
            null_safe: false,
        })
        .collect();
    Ok((on, keys, true))
}

fn by_condition(text: &str, both: &DFSchema) -> Result<(Expr, Vec<Key>, bool)> {
    let on = parse_predicate(text, both)?;
    let parts = split_conjunction(&on);
    let keys: Vec<Key> = parts.iter().filter_map(|part| equality(part, both)).collect();
    let only_keys = keys.len() == parts.len();
    Ok((on, keys, only_keys))
}

fn equality(part: &Expr, both: &DFSchema) -> Option<Key> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else {
        return None;
    };
    let null_safe = match op {
        Operator::Eq => false,
        Operator::IsNotDistinctFrom => true,
        _ => return None,
    };
    let (left, right) = (bare(left, both)?, bare(right, both)?);
    match (side(left)?, side(right)?) {
        (TARGET, SOURCE) => Some(Key {
            target: left.name.clone(),
            source: right.name.clone(),
            null_safe,
        }),
        (SOURCE, TARGET) => Some(Key {
            target: right.name.clone(),
            source: left.name.clone(),
            null_safe,
        }),
        _ => None,
    }
}

/// A column, perhaps in a cast that makes two types comparable and keeps values apart: then equal keys are
/// equal columns.
fn bare<'a>(expr: &'a Expr, both: &DFSchema) -> Option<&'a Column> {
    match expr {
        Expr::Column(column) => Some(column),
        // Numbers of floating point are compared so whenever they are.
        Expr::ScalarFunction(_) => bare(stored(expr)?, both),
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(both).ok()?;
            if keeps_apart(&from, cast.field.data_type()) {
                bare(&cast.expr, both)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Whether a cast from one type to the other keeps values what they are, so that those that are the same after it
/// were so before.
fn keeps_apart(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Dictionary(_, from), to) => from.as_ref() == to || keeps_apart(from, to),
        (DataType::Float32, DataType::Float64) => true,
        (DataType::Date32, DataType::Timestamp(_, zone)) => zone.as_deref().is_none_or(is_utc),
        (from, to) if from.is_string() && to.is_string() => true,
        (from, to) if from.is_integer() => to.is_integer() || matches!(to, DataType::Decimal128(_, 0)),
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => to >= from,
        (DataType::Timestamp(from, from_zone), DataType::Timestamp(to, to_zone)) => {
            // Between an instant and a local time, another zone moves values, and to each other in autumn.
            let both = from_zone.is_some() == to_zone.is_some();
            to >= from
                && (both
                    || [from_zone, to_zone]
                        .iter()
                        .all(|zone| zone.as_deref().is_none_or(is_utc)))
        }
        (from, to) => from == to,
    }
}

fn side(column: &Column) -> Option<&str> {
    column.relation.as_ref().map(|relation| relation.table())
}

fn is_only(expr: &Expr, qualifier: &str) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|c| side(c) == Some(qualifier))
}

/// The same expression over the columns of one table.
fn unqualified(expr: &Expr) -> Result<Expr> {
    let transformed = expr.clone().transform(|node| match node {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(
            column.name,
        )))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(transformed.data)
}

/// Values as the type of the column they are compared with, if both say the same after it. A value
/// that the type does not have becomes NULL, which matches nothing.
pub(super) fn as_type(values: &ArrayRef, wanted: &DataType) -> Result<Option<ArrayRef>> {
    if values.data_type() == wanted {
        return Ok(Some(Arc::clone(values)));
    }
    let comparable = values.data_type().is_integer() && wanted.is_integer()
        || values.data_type().is_string() && wanted.is_string();
    if !comparable {
        return Ok(None);
    }
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    Ok(Some(cast_with_options(values, wanted, &options)?))
}

/// Conditions under which source rows are not inserted. There is no target row: its columns are NULL.
fn never_insert(merge: &Merge, both: &DFSchema, named: &mut BTreeSet<String>) -> Result<Vec<Expr>> {
    let mut conditions = Vec::new();
    for text in &merge.never_insert {
        let condition = parse_predicate(text, both)?;
        note_source_columns(&condition, named);
        let condition = condition.transform(|node| match node {
            Expr::Column(column) if side(&column) == Some(TARGET) => {
                let field = both.field_from_column(&column)?;
                let null = ScalarValue::try_from(field.data_type())?;
                Ok(Transformed::yes(Expr::Literal(null, None)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        conditions.push(condition.data);
    }
    Ok(conditions)
}

fn step(
    clause: &Clause,
    table: &Schema,
    source: &Schema,
    both: &DFSchema,
    named: &mut BTreeSet<String>,
) -> Result<Step> {
    let condition = match &clause.condition {
        Some(text) => Some(parse_predicate(text, both)?),
        None => None,
    };
    let effect = match (&clause.action, clause.when) {
        (Action::UpdateAll, When::Matched) | (Action::InsertAll, When::NotMatched) => {
            Effect::Write(same_names(table, source))
        }
        (Action::UpdateSet(text), When::Matched | When::NotMatchedBySource)
        | (Action::InsertSet(text), When::NotMatched) => Effect::Write(parse_assignments(text, table, both)?),
        (Action::Delete, When::Matched | When::NotMatchedBySource) => Effect::Delete,
        (action, when) => {
            return Err(Error::invalid(
                format!(
                    "{} cannot be done to rows that are {}",
                    action_name(action),
                    when_name(when)
                ),
                "",
            ));
        }
    };
    let values = match &effect {
        Effect::Write(values) => values.as_slice(),
        Effect::Delete => &[],
    };
    for expr in condition.iter().chain(values.iter().map(|(_, value)| value)) {
        one_side_only(expr, clause.when)?;
        if !matches!(clause.action, Action::UpdateAll | Action::InsertAll) {
            note_source_columns(expr, named);
        }
    }
    if let Some(condition) = &condition {
        note_source_columns(condition, named);
    }
    Ok(Step { condition, effect })
}

/// Rows without a match have only one side.
fn one_side_only(expr: &Expr, when: When) -> Result<()> {
    let (absent, rows) = match when {
        When::Matched => return Ok(()),
        When::NotMatched => (TARGET, "source rows without a match have no target row"),
        When::NotMatchedBySource => (SOURCE, "target rows without a match have no source row"),
    };
    match expr.column_refs().into_iter().find(|c| side(c) == Some(absent)) {
        Some(column) => Err(Error::invalid(
            format!("{} cannot be used here: {rows}", column.flat_name()),
            expr.to_string(),
        )),
        None => Ok(()),
    }
}

/// Every column of the table that the source has, from there.
pub(super) fn same_names(table: &Schema, source: &Schema) -> Vec<(String, Expr)> {
    table
        .fields()
        .iter()
        .filter(|field| source.field_with_name(field.name()).is_ok())
        .map(|field| (field.name().clone(), column(Some(SOURCE), field.name())))
        .collect()
}

fn takes_all(merge: &Merge) -> bool {
    merge.cdc.is_some()
        || merge
            .clauses
            .iter()
            .any(|clause| matches!(clause.action, Action::UpdateAll | Action::InsertAll))
}

/// The columns of the source that an update or insert of all columns writes, whether the table has them or
/// not. What a change feed or a sequence says of itself, and what tells which rows are deletes, is none of them
/// unless the table has it.
///
/// # Errors
/// [`Error::Invalid`] for a condition that cannot be understood.
pub(super) fn written(
    merge: &Merge,
    own: Option<&Own>,
    table: &SchemaRef,
    source: &SchemaRef,
) -> Result<Vec<FieldRef>> {
    if !takes_all(merge) {
        return Ok(Vec::new());
    }
    let mut aside: BTreeSet<String> = own_columns(own);
    aside.extend(
        merge
            .sequence_by
            .as_deref()
            .and_then(parse_names)
            .into_iter()
            .flatten(),
    );
    if !merge.never_insert.is_empty() {
        never_insert(merge, &columns_of_both(table, source)?, &mut aside)?;
    }
    let known = |name: &str| table.field_with_name(name).is_ok();
    let fields = source.fields().iter();
    Ok(fields
        .filter(|field| known(field.name()) || !aside.contains(field.name()))
        .cloned()
        .collect())
}

/// A source column that would be lost without a word.
fn refuse_extra_columns(table: &Schema, source: &Schema, named: &BTreeSet<String>) -> Result<()> {
    let extra: Vec<&str> = source
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .filter(|name| table.field_with_name(name).is_err() && !named.contains(*name))
        .collect();
    if extra.is_empty() {
        return Ok(());
    }
    let known: Vec<&str> = table.fields().iter().map(|f| f.name().as_str()).collect();
    Err(Error::invalid(
        format!(
            "the table has no column {}, and no expression uses it",
            extra.join(", ")
        ),
        "source",
    )
    .with_hint(format!(
        "leave it out of the source, name the columns to set, or add it with --schema-mode merge; columns of the table: {}",
        known.join(", ")
    )))
}

fn note_source_columns(expr: &Expr, named: &mut BTreeSet<String>) {
    for column in expr.column_refs() {
        if side(column) == Some(SOURCE) {
            named.insert(column.name.clone());
        }
    }
}

fn action_name(action: &Action) -> &'static str {
    match action {
        Action::UpdateAll | Action::UpdateSet(_) => "an update",
        Action::Delete => "a delete",
        Action::InsertAll | Action::InsertSet(_) => "an insert",
    }
}

fn when_name(when: When) -> &'static str {
    match when {
        When::Matched => "matched",
        When::NotMatched => "not matched",
        When::NotMatchedBySource => "not matched by the source",
    }
}
