//! What may run, and which tables it names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, SetExpr, Statement, TableAlias, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Error, Result};

/// Nesting at which a query is refused.
const MAX_DEPTH: usize = 100;

/// A query as tokens.
pub(super) fn tokens(sql: &str) -> Result<Vec<Token>> {
    Tokenizer::new(&GenericDialect, sql)
        .tokenize()
        .map_err(|e| broken(&e.to_string()))
}

/// The one statement of a query, if it is one that only reads.
pub(super) fn parse(tokens: Vec<Token>) -> Result<Statement> {
    let mut statements = Parser::new(&GenericDialect)
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens(tokens)
        .parse_statements()
        .map_err(|e| broken(&e.to_string()))?;
    let statement = match (statements.pop(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err(broken("it is empty")),
        (Some(_), more) => {
            return Err(Error::unsupported(
                format!("one statement at a time can run, these are {}", more + 1),
                "run them one after the other",
            ));
        }
    };
    only_reads(&statement)?;
    Ok(statement)
}

fn broken(what: &str) -> Error {
    let what = what.trim_start_matches("sql parser error: ");
    Error::invalid(format!("the query cannot be understood: {what}"), "")
}

fn only_reads(statement: &Statement) -> Result<()> {
    let (what, hint) = match statement {
        Statement::Query(query) => match query.body.as_ref() {
            SetExpr::Insert(inner)
            | SetExpr::Update(inner)
            | SetExpr::Delete(inner)
            | SetExpr::Merge(inner) => {
                return only_reads(inner);
            }
            _ => return Ok(()),
        },
        Statement::Explain { statement, .. } => return only_reads(statement),
        Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowVariables { .. } => return Ok(()),
        Statement::Insert(_) => ("INSERT", "to add rows: `lake append TABLE FILE`"),
        Statement::Update(_) => (
            "UPDATE",
            "to change rows: `lake update TABLE --set .. --where ..`",
        ),
        Statement::Delete(_) => ("DELETE", "to delete rows: `lake delete TABLE --where ..`"),
        Statement::Truncate(_) => ("TRUNCATE", "to delete all rows: `lake delete TABLE --where true`"),
        Statement::Merge(_) => ("MERGE", "to merge: `lake merge TABLE SOURCE --on ..`"),
        Statement::CreateTable(_) => ("CREATE TABLE", "to make a table: `lake create TABLE --schema ..`"),
        Statement::Copy { .. } => ("COPY", "to write a result to a file: `lake query .. -o FILE`"),
        _ => (
            "this statement",
            "queries (SELECT, WITH, VALUES), EXPLAIN, SHOW and DESCRIBE can run",
        ),
    };
    Err(Error::unsupported(
        format!("{what} cannot run in a query, which only reads"),
        hint,
    ))
}

/// A name in FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// It was written in quotes, or has several parts.
    pub(super) quoted: bool,
}

/// Makes names of several parts (`catalog.namespace.table`) one name each, unless `known`, and lists all
/// single names. Refuses what the planner would ignore.
pub(super) fn names(statement: &mut Statement, known: &dyn Fn(&[String]) -> bool) -> Result<Vec<Named>> {
    let mut walk = Names {
        known,
        names: Vec::new(),
        function: false,
    };
    match statement.visit(&mut walk) {
        ControlFlow::Continue(()) => Ok(walk.names),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Names<'a> {
    known: &'a dyn Fn(&[String]) -> bool,
    names: Vec<Named>,
    /// The name that is visited next is called with arguments: `generate_series(1, 9)`.
    function: bool,
}

impl VisitorMut for Names<'_> {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table {
            name,
            alias,
            version,
            sample,
            partitions,
            args,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        self.function = args.is_some();
        let ignored = if version.is_some() {
            "this way to name a version"
        } else if sample.is_some() {
            "TABLESAMPLE"
        } else if !partitions.is_empty() {
            "PARTITION in FROM"
        } else {
            ""
        };
        if !ignored.is_empty() {
            return ControlFlow::Break(Error::unsupported(
                format!("{ignored} is not understood ({name})"),
                "versions: FROM t VERSION AS OF 3, FROM t TIMESTAMP AS OF '2026-01-01'",
            ));
        }
        let parts = parts(name);
        if parts.len() > 1 && alias.is_none() && !(self.known)(&parts) {
            *alias = name
                .0
                .last()
                .and_then(ObjectNamePart::as_ident)
                .map(|last| TableAlias {
                    explicit: true,
                    name: last.clone(),
                    columns: Vec::new(),
                    at: None,
                });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<Error> {
        if std::mem::take(&mut self.function) {
            return ControlFlow::Continue(());
        }
        let parts = parts(name);
        let named = if parts.len() > 1 {
            if (self.known)(&parts) {
                return ControlFlow::Continue(());
            }
            let whole = parts.join(".");
            *name = ObjectName::from(vec![Ident::with_quote('"', &whole)]);
            Named {
                name: whole,
                quoted: true,
            }
        } else {
            Named {
                name: parts.concat(),
                quoted: name
                    .0
                    .iter()
                    .any(|part| part.as_ident().is_some_and(|ident| ident.quote_style.is_some())),
            }
        };
        if !self.names.contains(&named) {
            self.names.push(named);
        }
        ControlFlow::Continue(())
    }
}

fn parts(name: &ObjectName) -> Vec<String> {
    name.0
        .iter()
        .map(|part| {
            part.as_ident()
                .map_or_else(|| part.to_string(), |ident| ident.value.clone())
        })
        .collect()
}
