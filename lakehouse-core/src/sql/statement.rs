//! What may run, and which tables it names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, SetExpr, Statement, TableAlias, TableFactor, VisitMut,
    VisitorMut, With,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Error, Result};
use crate::model::check_chains;
use crate::scan::settle;

/// Nesting at which a query is refused.
const MAX_DEPTH: usize = 100;

/// A query as tokens.
pub(super) fn tokens(sql: &str) -> Result<Vec<Token>> {
    let tokens = Tokenizer::new(&GenericDialect, sql)
        .tokenize()
        .map_err(|e| broken(&e.to_string()))?;
    check_chains(&tokens)?;
    Ok(tokens)
}

/// A parser for a part of a statement.
pub(super) fn parser(text: &str) -> Result<Parser<'_>, ParserError> {
    Parser::new(&GenericDialect)
        .with_recursion_limit(MAX_DEPTH)
        .try_with_sql(text)
}

/// The one statement of these tokens.
pub(super) fn parse(tokens: Vec<Token>) -> Result<Statement> {
    let mut statements = Parser::new(&GenericDialect)
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens(tokens)
        .parse_statements()
        .map_err(|e| broken(&e.to_string()))?;
    match (statements.pop(), statements.len()) {
        (Some(mut statement), 0) => {
            settle(&mut statement, "")?;
            Ok(statement)
        }
        (None, _) => Err(broken("it is empty")),
        (Some(_), more) => Err(Error::unsupported(
            format!("one statement at a time can run, these are {}", more + 1),
            "run them one after the other",
        )),
    }
}

/// A statement that changes a table, and the WITH in front of it; any other statement as it is.
pub(super) fn split(statement: Statement) -> Result<(Option<With>, Statement), Box<Statement>> {
    use Statement as S;
    match statement {
        S::Insert(_) | S::Update(_) | S::Delete(_) | S::Merge(_) | S::Truncate(_) | S::AlterTable(_) => {
            Ok((None, statement))
        }
        S::Query(query) => match *query.body {
            SetExpr::Insert(inner)
            | SetExpr::Update(inner)
            | SetExpr::Delete(inner)
            | SetExpr::Merge(inner) => Ok((query.with, inner)),
            body => Err(Box::new(S::Query(Box::new(Query {
                body: Box::new(body),
                ..*query
            })))),
        },
        other => Err(Box::new(other)),
    }
}

pub(super) fn broken(what: &str) -> Error {
    let what = what.trim_start_matches("sql parser error: ");
    Error::invalid(format!("the query cannot be understood: {what}"), "")
}

/// Refuses what changes something.
pub(super) fn only_reads(statement: &Statement) -> Result<()> {
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
        Statement::Explain { statement, .. } => {
            return only_reads(statement)
                .map_err(|error| error.with_hint("a dry run tells what the statement would do: --dry-run"));
        }
        Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowVariables { .. } => return Ok(()),
        Statement::Insert(_) => ("INSERT", CHANGES),
        Statement::Update(_) => ("UPDATE", CHANGES),
        Statement::Delete(_) => ("DELETE", CHANGES),
        Statement::Truncate(_) => ("TRUNCATE", CHANGES),
        Statement::AlterTable(_) => ("ALTER TABLE", CHANGES),
        Statement::Merge(_) => ("MERGE", CHANGES),
        Statement::CreateTable(_) => ("CREATE TABLE", "to make a table: `lake create TABLE --schema ..`"),
        Statement::Copy { .. } => ("COPY", "to write a result to a file: `lake query .. -o FILE`"),
        Statement::Drop { .. } => ("DROP", "a table is its folder: remove that"),
        _ => (
            "this statement",
            "queries (SELECT, WITH, VALUES), EXPLAIN, SHOW and DESCRIBE can run; INSERT, UPDATE, DELETE, MERGE, \
             TRUNCATE and ALTER TABLE change tables",
        ),
    };
    let why = if hint == CHANGES {
        " in a query, which only reads"
    } else {
        ""
    };
    Err(Error::unsupported(format!("{what} cannot run{why}"), hint))
}

/// What runs statements that change a table.
const CHANGES: &str = "`Session::execute` and `lake query` run statements that change a table";

/// The parts of a name with points between them.
pub(super) fn spelled(parts: &[Ident]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
    parts.join(".")
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
pub(super) fn names(statement: &mut impl VisitMut, known: &dyn Fn(&[String]) -> bool) -> Result<Vec<Named>> {
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

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match query.body.as_ref() {
            SetExpr::Insert(inner)
            | SetExpr::Update(inner)
            | SetExpr::Delete(inner)
            | SetExpr::Merge(inner) => match only_reads(inner) {
                Err(error) => ControlFlow::Break(error.with_hint("run it as a statement of its own")),
                Ok(()) => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }

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
