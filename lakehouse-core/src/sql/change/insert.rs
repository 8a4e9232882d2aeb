//! INSERT INTO and INSERT OVERWRITE. Values go to columns by their place, as in SQL everywhere, not by
//! name as in the verbs.

use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::{Insert, Query, TableObject};
use futures::future::BoxFuture;

use super::{Change, column, not_a_table, refuse};
use crate::error::{Error, Result};
use crate::operations::{self, PlanQuery, Report, Rows, Target};

pub(super) async fn run(mut change: Change<'_>, insert: Insert) -> Result<(String, Report)> {
    let several = insert.multi_table_insert_type.is_some()
        || !insert.multi_table_into_clauses.is_empty()
        || !insert.multi_table_when_clauses.is_empty()
        || insert.multi_table_else_clause.is_some();
    refuse(
        "INSERT",
        &[
            (insert.partitioned.is_some(), "PARTITION"),
            (
                !insert.after_columns.is_empty(),
                "a list of columns behind PARTITION",
            ),
            (
                insert.on.is_some(),
                "ON CONFLICT or ON DUPLICATE KEY (MERGE does that)",
            ),
            (insert.returning.is_some(), "RETURNING"),
            (insert.output.is_some(), "OUTPUT"),
            (insert.or.is_some(), "OR .. for conflicts"),
            (insert.ignore, "IGNORE"),
            (insert.replace_into, "REPLACE INTO (MERGE does that)"),
            (insert.priority.is_some(), "a priority"),
            (insert.insert_alias.is_some(), "an alias of the new row"),
            (insert.table_alias.is_some(), "an alias of the table"),
            (!insert.assignments.is_empty(), "SET"),
            (insert.settings.is_some(), "SETTINGS"),
            (insert.format_clause.is_some(), "FORMAT"),
            (several, "more than one table"),
            (!insert.optimizer_hints.is_empty(), "a hint to the optimizer"),
            (insert.source.is_none(), "DEFAULT VALUES"),
        ],
    )?;
    let TableObject::TableName(name) = &insert.table else {
        return Err(not_a_table(&insert.table.to_string()));
    };
    let changed = change.open(name, None).await?;
    let mut columns = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let column = column(name, &changed)?;
        if columns.iter().any(|other| other == column) {
            return Err(Error::invalid(
                format!("column {column} is named twice"),
                "INSERT",
            ));
        }
        columns.push(column.to_owned());
    }
    let Some(source) = insert.source else {
        return Err(Error::invalid("INSERT needs rows", ""));
    };
    let query = NewRows {
        change: &change,
        columns,
        source: *source,
    };
    let (handle, options) = (&changed.handle, &change.options);
    let report = match (insert.overwrite, change.reads_own(&query.source)?) {
        (false, true) => operations::append_query(handle, &query, options).await?,
        (true, true) => operations::overwrite_query(handle, &query, options).await?,
        (overwrite, false) => {
            let names: Vec<String> = changed.schema.fields().iter().map(|f| f.name().clone()).collect();
            let rows = Rows::frame(query.frame(None, names).await?);
            if overwrite {
                operations::overwrite(handle, rows, None, options).await?
            } else {
                operations::append(handle, rows, options).await?
            }
        }
    };
    Ok((changed.name, report))
}

/// The rows that go in, under the names of the table's columns.
struct NewRows<'a> {
    change: &'a Change<'a>,
    /// Those that the statement names; none for all.
    columns: Vec<String>,
    source: Query,
}

impl NewRows<'_> {
    async fn frame(&self, target: Option<&Target>, table: Vec<String>) -> Result<DataFrame> {
        let frame = self.change.plan(self.source.clone(), target).await?;
        let names = if self.columns.is_empty() {
            &table
        } else {
            &self.columns
        };
        let given = frame.schema().columns();
        if given.len() != names.len() {
            return Err(Error::invalid(
                format!(
                    "there are {} values for {} columns ({})",
                    given.len(),
                    names.len(),
                    names.join(", ")
                ),
                "INSERT",
            )
            .with_hint(
                "name the columns that get a value: INSERT INTO t (a, b) ..; the others become NULL",
            ));
        }
        let renamed = given
            .into_iter()
            .zip(names)
            .map(|(column, name)| Expr::Column(column).alias(name));
        let renamed: Vec<Expr> = renamed.collect();
        Ok(frame.select(renamed)?)
    }
}

impl PlanQuery for NewRows<'_> {
    fn plan<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<DataFrame>> {
        Box::pin(async move {
            let schema = target.table.schema();
            let names = schema.fields().iter().map(|f| f.name().clone()).collect();
            self.frame(Some(target), names).await
        })
    }
}
