//! Feeds: which of several source rows for one key counts, and which stored rows stand against it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Schema};
use arrow::row::{Row, RowConverter, Rows, SortField};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Expr, lit, when};
use datafusion::prelude::SessionContext;

use super::super::update::column;
use super::cdc::{Cdc, DELETED, Own};
use super::matching::{NAMED_DUPLICATES, duplicate_error};
use super::plan::{Effect, Key, Plan, SOURCE, Step, TARGET, same_names};
use super::source::Source;
use super::spec::{Merge, OnDuplicate};
use crate::error::{Error, Result};
use crate::model::floats::as_compared;
use crate::scan::{parse_names, unknown_column};

/// What a merge says about the order of its source, checked.
pub(super) struct Feed {
    /// Columns of the source by which its rows are ordered, NULL first.
    sequence: Vec<String>,
    /// The table has them too: a stored row that is newer stays.
    stored: bool,
    on_duplicate: OnDuplicate,
    tombstones: Option<String>,
    /// Columns of the source that are used, whether or not the table has them.
    named: Vec<String>,
    /// The source says which rows are deletes.
    changes: bool,
}

impl Feed {
    /// `own` are the columns of a change feed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for columns that are not there or not fit for their purpose.
    pub(super) fn new(merge: &Merge, own: Option<&Own>, table: &Schema, source: &Schema) -> Result<Self> {
        let changes = merge.cdc.is_some();
        if changes && !(merge.clauses.is_empty() && merge.never_insert.is_empty()) {
            return Err(
                Error::invalid("a change feed says itself what happens to each row", "merge")
                    .with_hint("leave out the clauses, or merge without the change feed"),
            );
        }
        let sequence = sequence(merge, own, source)?;
        let missing: Vec<&str> = sequence
            .iter()
            .map(String::as_str)
            .filter(|name| table.field_with_name(name).is_err())
            .collect();
        let stored = !sequence.is_empty() && missing.is_empty();
        if !stored && missing.len() < sequence.len() {
            return Err(Error::invalid(
                format!(
                    "the table stores only part of the sequence, it has no column {}",
                    missing.join(", ")
                ),
                sequence.join(", "),
            )
            .with_hint("stored rows are compared by the whole sequence: all of its columns, or none"));
        }
        if let Some(name) = &merge.tombstones {
            check_tombstones(name, table)?;
            if !sequence.is_empty() && !stored {
                return Err(Error::invalid(
                    format!(
                        "the table does not store the sequence: it has no column {}",
                        missing.join(", ")
                    ),
                    format!("tombstones {name}"),
                )
                .with_hint(
                    "marked rows are kept to be compared with later ones: add the column to the table",
                ));
            }
        }
        let mut named = sequence.clone();
        named.extend(own_columns(own));
        Ok(Self {
            sequence,
            stored,
            on_duplicate: match (&merge.cdc, merge.on_duplicate) {
                // The feed is in the order in which things happened.
                (Some(Cdc::Debezium), OnDuplicate::Error) => OnDuplicate::Last,
                (_, given) => given,
            },
            tombstones: merge.tombstones.clone(),
            named,
            changes,
        })
    }

    /// Columns of the source that need not be in the table.
    pub(super) fn named(&self) -> &[String] {
        &self.named
    }

    /// The clauses of a change feed: deletes delete, everything else is written.
    pub(super) fn clauses(&self, table: &Schema, source: &Schema, plan: &mut Plan) {
        if !self.changes {
            return;
        }
        let all = || Effect::Write(same_names(table, source));
        let deleted = column(Some(SOURCE), DELETED);
        plan.matched.push(Step {
            condition: Some(deleted.clone()),
            effect: Effect::Delete,
        });
        plan.matched.push(Step {
            condition: None,
            effect: all(),
        });
        plan.inserts.push(Step {
            condition: Some(Expr::Not(Box::new(deleted))),
            effect: all(),
        });
    }

    /// Keeps stored rows that are newer, and marks rows instead of deleting them. `never_insert` are the
    /// conditions under which source rows are deletes.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a clause sets the column of the tombstones.
    pub(super) fn rules(
        &self,
        table: &Schema,
        source: &Schema,
        never_insert: &[Expr],
        plan: &mut Plan,
    ) -> Result<()> {
        if let Some(mark) = &self.tombstones {
            let mut dead: Vec<Expr> = never_insert.iter().map(|c| c.clone().is_true()).collect();
            dead.extend(self.changes.then(|| column(Some(SOURCE), DELETED)));
            bury(plan, mark, disjunction(dead), table, source)?;
        }
        if self.stored {
            let guard = Expr::Not(Box::new(newer(&self.sequence)));
            for step in &mut plan.matched {
                step.condition = conjunction([guard.clone()].into_iter().chain(step.condition.take()));
            }
        }
        Ok(())
    }

    /// Leaves only the source rows that count: per key the newest; among equals what was asked for.
    ///
    /// # Errors
    /// [`Error::Invalid`] when nothing in the condition of the merge makes a key; [`Error::Limit`] when the
    /// keys do not fit the memory limit.
    pub(super) fn settle(&self, source: Source, keys: &[Key], ctx: &SessionContext) -> Result<Source> {
        if self.sequence.is_empty() && self.on_duplicate == OnDuplicate::Error && !self.changes {
            return Ok(source);
        }
        if keys.is_empty() {
            return Err(Error::invalid(
                "rows have no key by which one could be chosen among several",
                "key of the merge",
            )
            .with_hint("the condition needs an equality, such as target.id = source.id"));
        }
        let names: Vec<&str> = keys.iter().map(|key| key.source.as_str()).collect();
        let key_rows = encoded(&source, &names)?;
        let keyed = keyed(&source, keys)?;
        let order = match self.sequence.is_empty() {
            true => None,
            false => {
                let names: Vec<&str> = self.sequence.iter().map(String::as_str).collect();
                Some(encoded(&source, &names)?)
            }
        };
        let held = MemoryConsumer::new("keys of the merge source").register(&ctx.runtime_env().memory_pool);
        let bytes = key_rows.size()
            + order.as_ref().map_or(0, Rows::size)
            + key_rows.num_rows() * (size_of::<Row<'_>>() + size_of::<usize>());
        if held.try_grow(bytes).is_err() {
            return Err(Error::Limit {
                what: format!(
                    "the keys of {} source rows need {} MiB to find the rows that count, more than the limit allows",
                    source.rows(),
                    (bytes >> 20) + 1
                ),
                place: "memory limit: raise it, or merge the source in parts".to_owned(),
                hint: String::new(),
            });
        }
        let Some(keep) = self.choose(&key_rows, &keyed, order.as_ref()) else {
            return Ok(source);
        };
        if self.changes && self.on_duplicate == OnDuplicate::Error {
            refuse_unordered(&source, &key_rows, &keyed, &keep, &names)?;
        }
        source.filter(&keep)
    }

    /// Which rows count; `None` if all do.
    fn choose(&self, keys: &Rows, keyed: &[bool], order: Option<&Rows>) -> Option<Vec<bool>> {
        let later = |row: usize, than: usize| {
            let by_order = order.map(|order| order.row(row).cmp(&order.row(than)));
            match by_order {
                Some(std::cmp::Ordering::Greater) => true,
                Some(std::cmp::Ordering::Less) => false,
                _ => self.on_duplicate == OnDuplicate::Last,
            }
        };
        let mut newest: HashMap<Row<'_>, usize> = HashMap::with_capacity(keys.num_rows());
        let mut duplicates = false;
        for row in (0..keys.num_rows()).filter(|row| keyed[*row]) {
            match newest.entry(keys.row(row)) {
                Entry::Vacant(slot) => {
                    slot.insert(row);
                }
                Entry::Occupied(mut slot) => {
                    duplicates = true;
                    if later(row, *slot.get()) {
                        slot.insert(row);
                    }
                }
            }
        }
        if !duplicates {
            return None;
        }
        let counts = |row: usize| {
            let winner = newest.get(&keys.row(row)).copied().unwrap_or(row);
            // Equals are left for the merge to refuse, if they meet one row of the table.
            let equal = || order.is_none_or(|order| order.row(row) == order.row(winner));
            winner == row || (self.on_duplicate == OnDuplicate::Error && equal())
        };
        Some(
            (0..keys.num_rows())
                .map(|row| !keyed[row] || counts(row))
                .collect(),
        )
    }
}

/// A delete and another change of one key that nothing orders: the table would depend on chance. Several
/// changes that write are refused where they meet a row, or each other.
fn refuse_unordered(
    source: &Source,
    keys: &Rows,
    keyed: &[bool],
    keep: &[bool],
    names: &[&str],
) -> Result<()> {
    let deleted = source.column(DELETED)?;
    let deleted = deleted.as_boolean();
    let mut first: HashMap<Row<'_>, bool> = HashMap::new();
    let mut unclear = Vec::new();
    for row in (0..keys.num_rows()).filter(|row| keyed[*row] && keep[*row]) {
        if *first.entry(keys.row(row)).or_insert(deleted.value(row)) != deleted.value(row) {
            unclear.push(row as u64);
        }
    }
    if unclear.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    unclear.truncate(NAMED_DUPLICATES);
    let mut texts: Vec<String> = unclear
        .into_iter()
        .map(|row| source.describe(row, &names))
        .collect();
    texts.dedup();
    Err(duplicate_error(
        "a delete and another change of one key, and nothing says which came last",
        &texts,
    ))
}

/// The columns by which a change feed says what happened, and when.
pub(super) fn own_columns(own: Option<&Own>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if let Some(own) = own {
        names.extend([own.op.clone(), DELETED.to_owned()]);
        names.extend(own.sequence.clone());
    }
    names
}

fn sequence(merge: &Merge, own: Option<&Own>, source: &Schema) -> Result<Vec<String>> {
    let of_feed = own.and_then(|own| own.sequence.clone());
    let names = match (&merge.sequence_by, of_feed) {
        (None, of_feed) => of_feed.into_iter().collect(),
        (Some(text), Some(_)) if matches!(merge.cdc, Some(Cdc::Columns(_))) => {
            return Err(Error::invalid("the sequence is given twice", text.clone())
                .with_hint("name it in the change feed or beside it"));
        }
        (Some(text), _) => parse_names(text).ok_or_else(|| {
            Error::invalid(
                "the sequence of a merge is a column of the source, or several",
                text.clone(),
            )
            .with_hint("write seq, or \"day, seq\"")
        })?,
    };
    for name in &names {
        match source.field_with_name(name) {
            Ok(field) if field.data_type().is_nested() => {
                return Err(Error::invalid(
                    format!("{} cannot be ordered", field.data_type()),
                    format!("column {name}, sequence of the merge"),
                ));
            }
            Ok(_) => {}
            Err(_) => {
                let known = source.fields().iter().map(|f| f.name().clone());
                return Err(unknown_column(name, known, "the source, sequence of the merge"));
            }
        }
    }
    Ok(names)
}

fn check_tombstones(name: &str, table: &Schema) -> Result<()> {
    let place = "the table, tombstones of the merge";
    match table.field_with_name(name) {
        Ok(field) if field.data_type() == &DataType::Boolean => Ok(()),
        Ok(field) => Err(Error::invalid(
            format!(
                "column {name} is {}, deleted rows are marked in a boolean one",
                field.data_type()
            ),
            place,
        )
        .with_hint("name a boolean column of the table, such as deleted")),
        Err(_) => {
            let booleans = table
                .fields()
                .iter()
                .filter(|f| f.data_type() == &DataType::Boolean);
            let booleans: Vec<String> = booleans.map(|f| f.name().clone()).collect();
            let none = booleans.is_empty();
            let error = unknown_column(name, booleans, place);
            Err(match none {
                true => error.with_hint("the table has no boolean column to mark deleted rows in"),
                false => error,
            })
        }
    }
}

/// Whether the stored row is newer than the source's. NULL is the oldest; never NULL itself.
fn newer(sequence: &[String]) -> Expr {
    let Some((first, rest)) = sequence.split_first() else {
        return lit(false);
    };
    let (stored, given) = (column(Some(TARGET), first), column(Some(SOURCE), first));
    let greater = stored
        .clone()
        .is_not_null()
        .and(given.clone().is_null().or(stored.clone().gt(given.clone())));
    if rest.is_empty() {
        return greater;
    }
    let equal = stored
        .clone()
        .is_null()
        .and(given.clone().is_null())
        .or(stored.eq(given).is_true());
    greater.or(equal.and(newer(rest)))
}

/// Turns deletes into marks: `mark` is true for rows that are deleted, false for those written.
fn bury(plan: &mut Plan, mark: &str, dead: Option<Expr>, table: &Schema, source: &Schema) -> Result<()> {
    for step in &mut plan.matched {
        step.effect = match std::mem::replace(&mut step.effect, Effect::Delete) {
            Effect::Delete => Effect::Write(marked(keeping_required(table, source)?, mark, true)?),
            Effect::Write(values) => Effect::Write(marked(values, mark, false)?),
        };
    }
    // Rows marked already are deleted as far as the source is concerned, and stay as they are.
    let alive = column(Some(TARGET), mark).is_not_true();
    for step in &mut plan.by_source {
        step.condition = conjunction(step.condition.take().into_iter().chain([alive.clone()]));
        if let Effect::Delete = step.effect {
            step.effect = Effect::Write(vec![(mark.to_owned(), lit(true))]);
        }
    }
    let inserts = !plan.inserts.is_empty();
    for step in &mut plan.inserts {
        if let Effect::Write(values) = &mut step.effect {
            *values = marked(std::mem::take(values), mark, false)?;
        }
    }
    if let Some(dead) = dead.filter(|_| inserts) {
        let effect = Effect::Write(marked(same_names(table, source), mark, true)?);
        let first = Step {
            condition: Some(dead),
            effect,
        };
        plan.inserts.insert(0, first);
    }
    Ok(())
}

fn marked(mut values: Vec<(String, Expr)>, mark: &str, dead: bool) -> Result<Vec<(String, Expr)>> {
    if let Some(at) = values.iter().position(|(name, _)| name == mark) {
        let (_, value) = values.remove(at);
        if value != column(Some(SOURCE), mark) {
            return Err(Error::invalid(
                format!("column {mark} cannot be set: the merge marks deleted rows in it"),
                value.to_string(),
            )
            .with_hint("leave it out of what is set"));
        }
    }
    values.push((mark.to_owned(), lit(dead)));
    Ok(values)
}

/// Every column that the source has; a delete often has only the key, and the others are NULL.
fn keeping_required(table: &Schema, source: &Schema) -> Result<Vec<(String, Expr)>> {
    same_names(table, source)
        .into_iter()
        .map(|(name, value)| {
            let value = match table.field_with_name(&name)?.is_nullable() {
                true => value,
                false => {
                    let kept = column(Some(TARGET), &name);
                    when(value.clone().is_null(), kept).otherwise(value)?
                }
            };
            Ok((name, value))
        })
        .collect()
}

/// Which rows have a key that can match.
fn keyed(source: &Source, keys: &[Key]) -> Result<Vec<bool>> {
    let mut keyed = Vec::with_capacity(source.rows() as usize);
    for batch in source.batches() {
        let from = keyed.len();
        keyed.resize(from + batch.num_rows(), true);
        for key in keys.iter().filter(|key| !key.null_safe) {
            let index = batch.schema_ref().index_of(&key.source)?;
            let Some(nulls) = batch.column(index).logical_nulls() else {
                continue;
            };
            for (keyed, valid) in keyed[from..].iter_mut().zip(&nulls) {
                *keyed &= valid;
            }
        }
    }
    Ok(keyed)
}

/// The values of these columns in a form that compares as they do, NULL first.
fn encoded(source: &Source, names: &[&str]) -> Result<Rows> {
    let mut fields = Vec::with_capacity(names.len());
    let mut indices = Vec::with_capacity(names.len());
    for name in names {
        let index = source.schema().index_of(name)?;
        fields.push(SortField::new(source.schema().field(index).data_type().clone()));
        indices.push(index);
    }
    let converter = RowConverter::new(fields)?;
    let mut rows = converter.empty_rows(source.rows() as usize, 0);
    for batch in source.batches() {
        let columns: Vec<_> = indices.iter().map(|i| as_compared(batch.column(*i))).collect();
        converter.append(&mut rows, &columns)?;
    }
    Ok(rows)
}
