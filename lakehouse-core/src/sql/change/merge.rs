//! MERGE.

use datafusion::dataframe::DataFrame;
use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, Expr, Ident, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr,
    MergeInsertKind, MergeUpdateExpr, ObjectName, Query, TableFactor,
};
use futures::future::BoxFuture;

use super::qualify::Qualifiers;
use super::stars::ALL;
use super::{Change, Changed, assigned, build, called, column, refuse};
use crate::error::{Error, Result};
use crate::operations::{self, Action, Merge, PlanQuery, Report, Rows, Target, When};

/// What the verb calls the two sides.
const TARGET: &str = "target";
const SOURCE: &str = "source";

pub(super) async fn run(mut change: Change<'_>, merge: ast::Merge) -> Result<(String, Report)> {
    refuse(
        "MERGE",
        &[
            (merge.output.is_some(), "OUTPUT or RETURNING"),
            (!merge.optimizer_hints.is_empty(), "a hint to the optimizer"),
        ],
    )?;
    let changed = change.open_factor(&merge.table).await?;
    if matches!(
        merge.source,
        TableFactor::NestedJoin { .. } | TableFactor::Pivot { .. } | TableFactor::Unpivot { .. }
    ) {
        return Err(Error::unsupported(
            format!("{} cannot be the source of a MERGE", merge.source),
            "make it a query with an alias: USING (SELECT .. FROM .. JOIN ..) AS s",
        ));
    }
    let alias = called(&merge.source).map(str::to_owned);
    if alias.as_ref().is_some_and(|alias| *alias == changed.alias.value) {
        return Err(
            Error::invalid(format!("both sides are called {}", changed.alias.value), "MERGE")
                .with_hint("give one of them an alias"),
        );
    }
    let source = Source {
        change: &change,
        query: build::all(vec![build::factor(merge.source)], None)?,
    };
    let frame = change.plan(source.query.clone(), None).await?;
    let mut sides = Qualifiers::default().rename(&changed.alias.value, Some(TARGET));
    if let Some(alias) = &alias {
        sides = sides.rename(alias, Some(SOURCE));
    }
    let source_columns = frame.schema().fields().iter().map(|f| f.name().clone());
    let target_columns = changed.schema.fields().iter().map(|f| f.name().clone());
    let clauses = Clauses {
        inserts: sides.implying(SOURCE, source_columns),
        by_source: sides.implying(TARGET, target_columns),
        matched: sides,
        changed: &changed,
    };
    // In parentheses, so that one column is never taken for a list of keys.
    let mut plan = Merge::on(format!("({})", clauses.matched.text(&merge.on, "ON")?));
    for clause in merge.clauses {
        plan = clauses.add(plan, clause)?;
    }
    let (handle, options) = (&changed.handle, &change.options);
    let report = if change.reads_own(&source.query)? {
        operations::merge_query(handle, &source, &plan, options).await?
    } else {
        operations::merge(handle, Rows::frame(frame), &plan, options).await?
    };
    Ok((changed.name, report))
}

/// The source's rows.
struct Source<'a> {
    change: &'a Change<'a>,
    query: Query,
}

impl PlanQuery for Source<'_> {
    fn plan<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<DataFrame>> {
        Box::pin(async move { self.change.plan(self.query.clone(), Some(target)).await })
    }
}

/// How names are understood in each kind of clause: rows without a match have only one side, so a
/// column without a qualifier is that side's.
struct Clauses<'a> {
    matched: Qualifiers,
    inserts: Qualifiers,
    by_source: Qualifiers,
    changed: &'a Changed,
}

impl Clauses<'_> {
    fn add(&self, plan: Merge, clause: MergeClause) -> Result<Merge> {
        let (when, names) = match clause.clause_kind {
            MergeClauseKind::Matched => (When::Matched, &self.matched),
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => {
                (When::NotMatched, &self.inserts)
            }
            MergeClauseKind::NotMatchedBySource => (When::NotMatchedBySource, &self.by_source),
        };
        let action = match clause.action {
            MergeAction::Delete { .. } => Action::Delete,
            MergeAction::Update(update) => self.update(update, when, names)?,
            MergeAction::Insert(insert) => self.insert(insert, names)?,
        };
        let plan = plan.clause(when, action);
        Ok(match clause.predicate {
            Some(condition) => plan.only_if(names.text(&condition, "the condition of a clause")?),
            None => plan,
        })
    }

    fn update(&self, update: MergeUpdateExpr, when: When, names: &Qualifiers) -> Result<Action> {
        let conditional = update.update_predicate.is_some() || update.delete_predicate.is_some();
        refuse(
            "MERGE",
            &[(
                conditional,
                "UPDATE .. WHERE (say it in front: WHEN MATCHED AND .. THEN)",
            )],
        )?;
        if let [only] = update.assignments.as_slice()
            && matches!(&only.target, AssignmentTarget::ColumnName(name) if is_all(name))
        {
            if when == When::Matched {
                return Ok(Action::UpdateAll);
            }
            refuse("WHEN NOT MATCHED BY SOURCE", &[(true, "UPDATE SET *")])?;
        }
        let mut set = Vec::with_capacity(update.assignments.len());
        for assignment in &update.assignments {
            let column = assigned(&assignment.target, self.changed)?;
            set.push(assignment_text(column, &assignment.value, names)?);
        }
        Ok(Action::UpdateSet(set.join(", ")))
    }

    fn insert(&self, insert: MergeInsertExpr, names: &Qualifiers) -> Result<Action> {
        refuse(
            "MERGE",
            &[(
                insert.insert_predicate.is_some(),
                "INSERT .. WHERE (say it in front: WHEN NOT MATCHED AND .. THEN)",
            )],
        )?;
        if let [only] = insert.columns.as_slice()
            && is_all(only)
        {
            return Ok(Action::InsertAll);
        }
        let MergeInsertKind::Values(values) = insert.kind else {
            return Err(Error::unsupported(
                "INSERT ROW cannot run in MERGE",
                "INSERT * takes the source's columns by their names",
            ));
        };
        let [row] = values.rows.as_slice() else {
            return Err(Error::invalid(
                "a clause inserts one row for each source row",
                "MERGE",
            ));
        };
        let all = self.changed.schema.fields().iter().map(|f| f.name().as_str());
        let columns: Vec<&str> = match insert.columns.as_slice() {
            [] => all.collect(),
            named => named
                .iter()
                .map(|name| column(name, self.changed))
                .collect::<Result<_>>()?,
        };
        if columns.len() != row.content.len() {
            return Err(Error::invalid(
                format!(
                    "INSERT has {} values for {} columns ({})",
                    row.content.len(),
                    columns.len(),
                    columns.join(", ")
                ),
                "MERGE",
            ));
        }
        let set = columns
            .iter()
            .zip(&row.content)
            .map(|(column, value)| assignment_text(column, value, names))
            .collect::<Result<Vec<_>>>()?;
        Ok(Action::InsertSet(set.join(", ")))
    }
}

fn assignment_text(column: &str, value: &Expr, names: &Qualifiers) -> Result<String> {
    let column = Ident::with_quote('"', column);
    Ok(format!("{column} = {}", names.text(value, "a clause of MERGE")?))
}

/// Whether it is the stand-in for `*`.
fn is_all(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| ident.value == ALL))
}
