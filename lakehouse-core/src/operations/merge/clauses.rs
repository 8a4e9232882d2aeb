//! The clauses of a merge, ready to run on batches.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;

use super::super::evaluate::{Compiled, first_match};
use super::super::update::{Assigned, column};
use super::plan::{Effect, Step, TARGET};
use crate::error::Result;

/// Clauses compiled for batches of one schema.
pub(super) struct Clauses {
    conditions: Vec<Option<Compiled>>,
    effects: Vec<Option<Assigned>>,
    /// The target's columns as they are, if new values are compared with them.
    pub(super) old: Option<Assigned>,
}

impl Clauses {
    /// Columns that no assignment names are kept from the target if `keep`, else left out. To `compare` new
    /// values with old ones, batches must have all columns of the target.
    pub(super) fn new(
        ctx: &SessionContext,
        steps: &[Step],
        table: &Schema,
        batch: &DFSchema,
        keep: bool,
        compare: bool,
    ) -> Result<Self> {
        let mut conditions = Vec::with_capacity(steps.len());
        let mut effects = Vec::with_capacity(steps.len());
        for step in steps {
            let condition = step.condition.clone();
            conditions.push(condition.map(|c| Compiled::new(ctx, c, batch)).transpose()?);
            effects.push(match &step.effect {
                Effect::Delete => None,
                Effect::Write(values) if keep => {
                    Some(Assigned::new(ctx, table, values.clone(), batch, Some(TARGET))?)
                }
                Effect::Write(values) => Some(Assigned::only(ctx, values.clone(), batch)?),
            });
        }
        let old = if compare && steps.iter().any(|step| matches!(step.effect, Effect::Write(_))) {
            Some(Assigned::kept(ctx, table, batch, Some(TARGET))?)
        } else {
            None
        };
        Ok(Self {
            conditions,
            effects,
            old,
        })
    }

    /// Gives each row to the first clause that applies: the rows, and how to make the new ones
    /// (`None`: they are deleted).
    pub(super) fn take(&self, batch: RecordBatch) -> Result<Vec<(RecordBatch, Option<&Assigned>)>> {
        let taken = first_match(&self.conditions, batch)?;
        Ok(taken
            .into_iter()
            .map(|(index, rows)| (rows, self.effects[index].as_ref()))
            .collect())
    }
}

/// The columns that clauses read: those in expressions, and those of the target that updated rows keep,
/// or that they are compared with.
pub(super) fn needed(steps: &[Step], table: &Schema, compare: bool) -> Vec<Expr> {
    let mut names = BTreeSet::new();
    for step in steps {
        if let Some(condition) = &step.condition {
            names.extend(condition.column_refs().into_iter().cloned());
        }
        let Effect::Write(values) = &step.effect else {
            continue;
        };
        for (_, value) in values {
            names.extend(value.column_refs().into_iter().cloned());
        }
        for field in table.fields() {
            let kept = !values.iter().any(|(name, _)| name == field.name());
            if (kept || compare)
                && let Expr::Column(kept) = column(Some(TARGET), field.name())
            {
                names.insert(kept);
            }
        }
    }
    names.into_iter().map(Expr::Column).collect()
}
