//! Queries put together from parts of a statement.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins,
    With,
};

use super::super::statement;
use crate::error::{Error, Result};

/// Under this name the table that is changed stands in queries, with the places of its rows.
pub(in crate::sql) const TARGET: &str = "__lakehouse_target";

/// `SELECT .. FROM .. WHERE ..`
pub(super) fn select(
    projection: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Result<Query> {
    let (mut query, mut select) = template()?;
    select.projection = projection;
    select.from = from;
    select.selection = selection;
    query.body = Box::new(SetExpr::Select(select));
    Ok(query)
}

/// `SELECT * FROM .. WHERE ..`
pub(super) fn all(from: Vec<TableWithJoins>, selection: Option<Expr>) -> Result<Query> {
    let (mut query, mut select) = template()?;
    select.from = from;
    select.selection = selection;
    query.body = Box::new(SetExpr::Select(select));
    Ok(query)
}

fn template() -> Result<(Query, Box<Select>)> {
    let fault = || Error::invalid("this is a fault in the program, please report it", "SELECT *");
    let mut parser = statement::parser("SELECT *").map_err(|_| fault())?;
    let mut query = *parser.parse_query().map_err(|_| fault())?;
    let nothing = SetExpr::Values(datafusion::sql::sqlparser::ast::Values {
        explicit_row: false,
        value_keyword: false,
        rows: Vec::new(),
    });
    match std::mem::replace(query.body.as_mut(), nothing) {
        SetExpr::Select(select) => Ok((query, select)),
        _ => Err(fault()),
    }
}

/// The query with the statement's WITH in front.
pub(super) fn with(mut query: Query, with: Option<With>) -> Query {
    if with.is_some() {
        if query.with.is_some() {
            let inner = query;
            query = Query {
                with: None,
                body: Box::new(SetExpr::Query(Box::new(inner))),
                order_by: None,
                limit_clause: None,
                fetch: None,
                locks: Vec::new(),
                for_clause: None,
                settings: None,
                format_clause: None,
                pipe_operators: Vec::new(),
            };
        }
        query.with = with;
    }
    query
}

/// The table that is changed, called `alias`.
pub(super) fn target(alias: &Ident) -> TableWithJoins {
    factor(TableFactor::Table {
        name: ObjectName::from(vec![Ident::with_quote('"', TARGET)]),
        alias: Some(called(alias)),
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    })
}

/// A query in FROM, called `alias`.
pub(super) fn derived(query: Query, alias: &Ident) -> TableWithJoins {
    factor(TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(called(alias)),
        sample: None,
    })
}

/// One table in FROM.
pub(super) fn factor(relation: TableFactor) -> TableWithJoins {
    TableWithJoins {
        relation,
        joins: Vec::new(),
    }
}

fn called(alias: &Ident) -> TableAlias {
    TableAlias {
        explicit: true,
        name: alias.clone(),
        columns: Vec::new(),
        at: None,
    }
}

/// `alias.column AS name`
pub(super) fn column(alias: &Ident, column: &str, name: &str) -> SelectItem {
    let parts = vec![alias.clone(), Ident::with_quote('"', column)];
    value(Expr::CompoundIdentifier(parts), name)
}

/// `value AS name`
pub(super) fn value(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias {
        expr,
        alias: Ident::with_quote('"', name),
    }
}
