//! What a table demands of new rows beyond the types of its columns, and what it fills in: defaults, generated columns,
//! CHECK constraints and invariants (Delta protocol).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{Expr, SessionContext};

use super::evaluate::Compiled;
use super::overwrite::describe_row;
use crate::error::{Error, Result};
use crate::model::floats::as_compared;
use crate::model::schema::{DEFAULT_EXPRESSION, GENERATED, WRITE_DEFAULT};
use crate::model::{Check, Snapshot};
use crate::scan::{columns_of, parse_spark, session};
use crate::write::{conform, conform_at};

/// The rules of one version of a table.
pub(super) struct Rules {
    /// The table's columns.
    table: SchemaRef,
    /// The same: generated ones may be missing, defaults are written out.
    input: Schema,
    generated: Vec<Generated>,
    checks: Vec<Condition>,
}

struct Generated {
    index: usize,
    text: String,
    value: Compiled,
}

struct Condition {
    name: String,
    text: String,
    holds: Compiled,
}

impl Rules {
    /// The rules of a version. Defaults that are computed are so now, once for the operation.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the rule that is not understood.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Self> {
        let table = Arc::clone(&snapshot.schema);
        let ruled = |field: &Field| {
            let metadata = field.metadata();
            metadata.contains_key(GENERATED) || metadata.contains_key(DEFAULT_EXPRESSION)
        };
        if snapshot.checks.is_empty() && !table.fields().iter().any(|field| ruled(field)) {
            return Ok(Self {
                input: table.as_ref().clone(),
                table,
                generated: Vec::new(),
                checks: Vec::new(),
            });
        }
        let ctx = session(None);
        let columns = columns_of(&table, None)?;
        let mut generated = Vec::new();
        let mut input = Vec::with_capacity(table.fields().len());
        for (index, field) in table.fields().iter().enumerate() {
            let mut field = field.as_ref().clone();
            if let Some(text) = field.metadata().get(GENERATED) {
                let rule = format!("column {} is generated", field.name());
                let expr = parse_spark(text, &table).map_err(|e| because(&rule, e))?;
                generated.push(Generated {
                    index,
                    text: text.clone(),
                    value: Compiled::new(&ctx, expr, &columns)?,
                });
                field.set_nullable(true);
            } else if let Some(text) = field.metadata().get(DEFAULT_EXPRESSION) {
                let rule = format!("column {} has a default", field.name());
                let value = default(&ctx, text, &field).map_err(|e| because(&rule, e))?;
                let mut metadata = field.metadata().clone();
                if let Some(value) = value {
                    metadata.insert(WRITE_DEFAULT.into(), value);
                }
                field.set_metadata(metadata);
            }
            input.push(field);
        }
        let mut checks = Vec::new();
        for check in &snapshot.checks {
            let rule = format!("the table has the {}", check.name);
            let expr = parse_spark(&check.expression, &table).map_err(|e| because(&rule, e))?;
            checks.push(Condition {
                name: check.name.clone(),
                text: check.expression.clone(),
                holds: Compiled::new(&ctx, expr, &columns)?,
            });
        }
        Ok(Self {
            table,
            input: Schema::new(input),
            generated,
            checks,
        })
    }

    /// Makes new rows fit the table: as [`conform_at`], with defaults and generated columns filled in, and checked.
    /// `before` is how many rows of the same input came before; `None` for rows that are not of an input.
    ///
    /// # Errors
    /// Those of [`conform_at`]; [`Error::Invalid`] with the row for a generated column that was given another value
    /// than its expression has, and for a row that violates a constraint.
    pub(super) fn fit(&self, batch: &RecordBatch, before: Option<u64>) -> Result<RecordBatch> {
        let start = before.unwrap_or(0);
        let mut rows = conform_at(batch, &self.input, start)?;
        if !self.generated.is_empty() {
            rows = self.generate(batch, rows, before)?;
        }
        for check in &self.checks {
            // NULL is not true.
            if let Some(row) = first(&check.holds.truth(&rows)?, false) {
                return Err(Error::invalid(
                    format!(
                        "{} violates the {} `{}`: {}",
                        the_row(before, row),
                        check.name,
                        check.text,
                        describe_row(&rows, row)
                    ),
                    "",
                )
                .with_hint("correct the row or leave it out; a constraint holds only where it is true, not where it is NULL"));
            }
        }
        Ok(rows)
    }

    /// The constraints that rows of the table violate: name and text, and the first row.
    ///
    /// # Errors
    /// When a constraint cannot be evaluated.
    pub(super) fn broken(&self, rows: &RecordBatch) -> Result<Vec<(String, usize)>> {
        let mut broken = Vec::new();
        for check in &self.checks {
            if let Some(row) = first(&check.holds.truth(rows)?, false) {
                broken.push((format!("{} `{}`", check.name, check.text), row));
            }
        }
        Ok(broken)
    }

    fn generate(&self, given: &RecordBatch, rows: RecordBatch, before: Option<u64>) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        for Generated { index, text, value } in &self.generated {
            let field = self.table.field(*index);
            let computed = self.computed(field, &value.values(&rows)?)?;
            let is_given = given
                .schema_ref()
                .fields()
                .iter()
                .any(|other| other.name().eq_ignore_ascii_case(field.name()));
            if is_given && let Some(row) = first(&same(&columns[*index], &computed)?, false) {
                let shown = |array: &ArrayRef| shown(array, row);
                return Err(Error::invalid(
                    format!(
                        "{}: column '{}' is {}, its expression `{text}` gives {}",
                        the_row(before, row),
                        field.name(),
                        shown(&columns[*index]),
                        shown(&computed)
                    ),
                    "",
                )
                .with_hint("leave the generated column out of the input: it is computed"));
            }
            columns[*index] = computed;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::new(self.input.clone()), columns, &options)?;
        // Required columns among the generated ones.
        conform_at(&rows, &self.table, before.unwrap_or(0))
    }

    /// Computed values in the column's type.
    fn computed(&self, field: &Field, values: &ArrayRef) -> Result<ArrayRef> {
        let name = field.name();
        let one = RecordBatch::try_from_iter([(name.as_str(), Arc::clone(values))])?;
        let wanted = Schema::new(vec![field.clone().with_nullable(true)]);
        Ok(Arc::clone(conform(&one, &wanted)?.column(0)))
    }
}

/// The columns that rules of a version are about, in lower case, each with the name of the rule.
///
/// # Errors
/// As [`Rules::of`].
pub(super) fn ruled_columns(snapshot: &Snapshot) -> Result<Vec<(String, String)>> {
    let table = &snapshot.schema;
    let checks = snapshot.checks.iter();
    let checks = checks.map(|check| (check.name.clone(), &check.expression));
    let generated = table.fields().iter().filter_map(|field| {
        let name = format!("generated column {}", field.name());
        Some((name, field.metadata().get(GENERATED)?))
    });
    let mut found = Vec::new();
    for (rule, text) in checks.chain(generated) {
        let expr = parse_spark(text, table).map_err(|e| because(&format!("it has the {rule}"), e))?;
        let columns = expr.column_refs();
        found.extend(
            columns
                .into_iter()
                .map(|column| (column.name.to_lowercase(), rule.clone())),
        );
    }
    Ok(found)
}

/// Rows that a constraint of `after` does not let in and that no constraint of `before` kept out.
///
/// # Errors
/// As [`Rules::of`].
pub(super) fn newly_forbidden(before: &Snapshot, after: &Snapshot) -> Result<Vec<(Check, Expr)>> {
    let new = after.checks.iter().filter(|check| !before.checks.contains(check));
    new.map(|check| {
        let expr = parse_spark(&check.expression, &before.schema)
            .map_err(|e| because(&format!("it would have the {}", check.name), e))?;
        Ok((check.clone(), expr.is_not_true()))
    })
    .collect()
}

/// Why the table cannot be written.
fn because(rule: &str, error: Error) -> Error {
    let hint = error.hint().unwrap_or_default().to_owned();
    Error::unsupported(format!("the table cannot be written: {rule}; {error}"), hint)
}

/// A default as text that [`crate::model::schema::default_of`] reads; `None` for NULL.
///
/// # Errors
/// [`Error::Invalid`] for what is no value of the column; [`Error::Unsupported`] for an expression that is not understood.
pub(super) fn default_value(text: &str, field: &Field) -> Result<Option<String>> {
    let inside = |error: Error| {
        let hint = error.hint().unwrap_or_default().to_owned();
        Error::invalid(
            format!("{text} cannot be the default of column {}: {error}", field.name()),
            "",
        )
        .with_hint(hint)
    };
    default(&session(None), text, field).map_err(inside)
}

fn default(ctx: &SessionContext, text: &str, field: &Field) -> Result<Option<String>> {
    let none = Schema::empty();
    let expr = parse_spark(text, &none)?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(none.clone()), Vec::new(), &options)?;
    let value = Compiled::new(ctx, expr, &columns_of(&none, None)?)?.values(&row)?;
    let one = RecordBatch::try_from_iter([(field.name().as_str(), value)])?;
    let wanted = Schema::new(vec![field.clone().with_nullable(true)]);
    let value = conform(&one, &wanted)?;
    let value = value.column(0);
    Ok(value.is_valid(0).then(|| shown(value, 0)))
}

fn shown(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(array, &options)
        .map(|formatter| formatter.value(row).to_string())
        .unwrap_or_default()
}

/// Whether values are the same, NULL the same as NULL.
fn same(one: &ArrayRef, other: &ArrayRef) -> Result<BooleanArray> {
    Ok(not_distinct(&as_compared(one), &as_compared(other))?)
}

fn first(truth: &BooleanArray, wanted: bool) -> Option<usize> {
    (0..truth.len()).find(|row| truth.value(*row) == wanted)
}

fn the_row(before: Option<u64>, row: usize) -> String {
    match before {
        Some(before) => format!("input row {}", before + row as u64 + 1),
        None => "a row".to_owned(),
    }
}
