//! DELETE.

use datafusion::dataframe::DataFrame;
use datafusion::sql::sqlparser::ast::{Delete, FromTable, Ident};
use futures::future::BoxFuture;

use super::{Change, Selected, build, places, qualify, refuse};
use crate::error::{Error, Result};
use crate::operations::{self, PlanQuery, Report, Target};

pub(super) async fn run(mut change: Change<'_>, delete: Delete) -> Result<(String, Report)> {
    let (FromTable::WithFromKeyword(mut from) | FromTable::WithoutKeyword(mut from)) = delete.from;
    let joined = from.iter().any(|table| !table.joins.is_empty());
    refuse(
        "DELETE",
        &[
            (
                !delete.tables.is_empty() || from.len() > 1,
                "more than one table to delete from",
            ),
            (joined, "JOIN in FROM (USING takes other tables)"),
            (delete.returning.is_some(), "RETURNING"),
            (delete.output.is_some(), "OUTPUT"),
            (!delete.optimizer_hints.is_empty(), "a hint to the optimizer"),
        ],
    )?;
    let Some(target) = from.pop() else {
        return Err(Error::invalid("DELETE needs a table", ""));
    };
    let changed = change.open_factor(&target.relation).await?;
    let rows = Selected {
        others: delete.using.unwrap_or_default(),
        condition: delete.selection,
        order_by: delete.order_by,
        limit: delete.limit,
    };
    rows.check("DELETE", &changed.alias)?;
    let alias = changed.alias;
    let report = if rows.is_plain() && change.with.is_none() {
        let condition = match &rows.condition {
            Some(condition) => qualify::Qualifiers::dropped(&alias.value).text(condition, "WHERE")?,
            None => "true".to_owned(),
        };
        operations::delete(&changed.handle, &condition, &change.options).await?
    } else {
        let narrow = rows.narrow(&alias);
        let query = Doomed {
            change: &change,
            rows,
            alias,
        };
        operations::delete_rows(&changed.handle, &query, narrow.as_deref(), &change.options).await?
    };
    Ok((changed.name, report))
}

/// Where the rows are that go.
struct Doomed<'a> {
    change: &'a Change<'a>,
    rows: Selected,
    alias: Ident,
}

impl PlanQuery for Doomed<'_> {
    fn plan<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<DataFrame>> {
        Box::pin(async move {
            let mut from = vec![build::target(&self.alias)];
            from.extend(self.rows.others.iter().cloned());
            let mut query = build::select(places(target, &self.alias), from, self.rows.condition.clone())?;
            self.rows.limit(&mut query);
            self.change.plan(query, Some(target)).await
        })
    }
}
