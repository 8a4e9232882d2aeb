//! UPDATE.

use datafusion::dataframe::DataFrame;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Update, UpdateTableFromKind};
use futures::future::BoxFuture;

use super::{Change, Selected, assigned, build, places, qualify, refuse};
use crate::error::{Error, Result};
use crate::model::schema::GENERATED;
use crate::operations::{self, PlanQuery, Report, Target};

pub(super) async fn run(mut change: Change<'_>, update: Update) -> Result<(String, Report)> {
    refuse(
        "UPDATE",
        &[
            (!update.table.joins.is_empty(), "JOIN (FROM takes other tables)"),
            (update.or.is_some(), "OR .. for conflicts"),
            (update.returning.is_some(), "RETURNING"),
            (update.output.is_some(), "OUTPUT"),
            (!update.optimizer_hints.is_empty(), "a hint to the optimizer"),
        ],
    )?;
    let changed = change.open_factor(&update.table.relation).await?;
    let mut values: Vec<(String, Expr)> = Vec::new();
    for assignment in update.assignments {
        let column = assigned(&assignment.target, &changed)?;
        if values.iter().any(|(other, _)| other == column) {
            return Err(Error::invalid(format!("column {column} is set twice"), "UPDATE"));
        }
        values.push((column.to_owned(), assignment.value));
    }
    let others = match update.from {
        Some(UpdateTableFromKind::BeforeSet(tables) | UpdateTableFromKind::AfterSet(tables)) => tables,
        None => Vec::new(),
    };
    let rows = Selected {
        others,
        condition: update.selection,
        order_by: update.order_by,
        limit: update.limit,
    };
    rows.check("UPDATE", &changed.alias)?;
    let alias = changed.alias;
    let plain = !values.iter().any(|(_, value)| qualify::has_subquery(value));
    let report = if plain && rows.is_plain() && change.with.is_none() {
        let qualifiers = qualify::Qualifiers::dropped(&alias.value);
        let set = values
            .iter()
            .map(|(column, value)| {
                let column = Ident::with_quote('"', column);
                Ok(format!("{column} = {}", qualifiers.text(value, "SET")?))
            })
            .collect::<Result<Vec<_>>>()?
            .join(", ");
        let condition = rows.condition.as_ref();
        let condition = condition.map(|c| qualifiers.text(c, "WHERE")).transpose()?;
        operations::update(&changed.handle, &set, condition.as_deref(), &change.options).await?
    } else {
        let narrow = rows.narrow(&alias);
        let query = Renewed {
            change: &change,
            rows,
            values,
            alias,
        };
        operations::update_rows(&changed.handle, &query, narrow.as_deref(), &change.options).await?
    };
    Ok((changed.name, report))
}

/// The new versions of rows, and where the old ones are.
struct Renewed<'a> {
    change: &'a Change<'a>,
    rows: Selected,
    values: Vec<(String, Expr)>,
    alias: Ident,
}

impl PlanQuery for Renewed<'_> {
    fn plan<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<DataFrame>> {
        Box::pin(async move {
            let Self { rows, alias, .. } = self;
            let schema = target.table.schema();
            let mut projection = Vec::with_capacity(schema.fields().len() + target.places().len());
            for field in schema.fields() {
                let name = field.name();
                let new = self.values.iter().find(|(column, _)| column == name);
                projection.push(match new {
                    Some((_, value)) => build::value(value.clone(), name),
                    // It is computed anew.
                    None if field.metadata().contains_key(GENERATED) => continue,
                    None => build::column(alias, name, name),
                });
            }
            projection.extend(places(target, alias));
            let query = if rows.limit.is_some() {
                // The rows are chosen by their old values, so before the new ones are made.
                let mut chosen = build::all(vec![build::target(alias)], rows.condition.clone())?;
                rows.limit(&mut chosen);
                build::select(projection, vec![build::derived(chosen, alias)], None)?
            } else {
                let mut from = vec![build::target(alias)];
                from.extend(rows.others.iter().cloned());
                build::select(projection, from, rows.condition.clone())?
            };
            self.change.plan(query, Some(target)).await
        })
    }
}
