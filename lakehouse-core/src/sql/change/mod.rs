//! Statements that change a table, each done by the verb that it stands for. What a verb cannot say as
//! an expression over one row (subqueries, joins, LIMIT) becomes a query that finds the rows, planned by
//! the session on the version that is changed.
//!
//! Every part of a statement is either used or refused by name: a part that is overlooked would change
//! other rows than the user named.

mod alter;
mod build;
mod delete;
mod insert;
mod merge;
mod qualify;
mod stars;
mod update;

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, Expr, Ident, LimitClause, ObjectName, OrderBy, OrderByExpr, OrderByKind, Query,
    SelectItem, Statement, TableFactor, TableWithJoins, Truncate, With,
};
use datafusion::sql::sqlparser::tokenizer::Token;

pub(super) use build::TARGET;

use super::refs::NamedRef;
use super::session::{Executed, Place, Session, Tables};
use super::statement::Named;
use super::travel::Travel;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{At, MAIN, RefKind};
use crate::operations::{self, Options, Report, Target};
use crate::scan::unknown_column;

/// Tokens in the form that the parser knows.
pub(super) fn prepare(tokens: Vec<Token>) -> Result<Vec<Token>> {
    stars::rewrite(tokens)
}

/// A statement on its way.
struct Change<'a> {
    session: &'a Session,
    with: Option<With>,
    tables: Tables,
    /// Of the branch that the table's name says, if it says one.
    options: Options,
}

/// The table that a statement changes.
struct Changed {
    /// As the statement calls it.
    name: String,
    /// The qualifier of its columns.
    alias: Ident,
    handle: Handle,
    /// Its columns when the statement began.
    schema: SchemaRef,
}

/// Runs a statement with the WITH that stands in front of it.
pub(super) async fn run(
    session: &Session,
    mut with: Option<With>,
    mut statement: Statement,
    travels: Vec<Travel>,
    options: &Options,
) -> Result<Executed> {
    if *session.version() != At::Latest {
        return Err(Error::unsupported(
            "an old version cannot be changed, only the newest",
            "say AS OF behind the tables that the statement reads",
        ));
    }
    let mut named = session.named(&mut statement)?;
    named.extend(session.named(&mut with)?);
    let change = Change {
        session,
        with,
        tables: Tables {
            named,
            travels,
            own: BTreeSet::new(),
        },
        options: options.clone(),
    };
    let (table, report) = match statement {
        Statement::Delete(delete) => delete::run(change, delete).await?,
        Statement::Update(update) => update::run(change, update).await?,
        Statement::Insert(insert) => insert::run(change, insert).await?,
        Statement::Merge(merge) => merge::run(change, merge).await?,
        Statement::Truncate(truncate) => run_truncate(change, truncate).await?,
        Statement::AlterTable(alter) => alter::run(change, alter).await?,
        other => {
            return Err(Error::unsupported(
                format!("this statement cannot run: {other}"),
                "see `lake query --help`",
            ));
        }
    };
    Ok(Executed::Changed {
        table,
        report: Box::new(report),
    })
}

async fn run_truncate(mut change: Change<'_>, truncate: Truncate) -> Result<(String, Report)> {
    let several = truncate.table_names.len() != 1;
    let decorated = truncate.table_names.iter().any(|t| t.only || t.has_asterisk);
    refuse(
        "TRUNCATE",
        &[
            (several, "more than one table"),
            (decorated, "ONLY or *"),
            (truncate.partitions.is_some(), "PARTITION"),
            (truncate.if_exists, "IF EXISTS"),
            (truncate.identity.is_some(), "IDENTITY"),
            (truncate.cascade.is_some(), "CASCADE or RESTRICT"),
            (truncate.on_cluster.is_some(), "ON CLUSTER"),
        ],
    )?;
    let Some(target) = truncate.table_names.first() else {
        return Err(Error::invalid("TRUNCATE needs a table", ""));
    };
    let changed = change.open(&target.name, None).await?;
    let report = operations::delete(&changed.handle, "true", &change.options).await?;
    Ok((changed.name, report))
}

impl Change<'_> {
    /// Opens the table to change that a statement names as one in FROM.
    async fn open_factor(&mut self, factor: &TableFactor) -> Result<Changed> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } = factor
        else {
            return Err(not_a_table(&factor.to_string()));
        };
        let renames = alias
            .as_ref()
            .is_some_and(|a| !a.columns.is_empty() || a.at.is_some());
        if !with_hints.is_empty() || !partitions.is_empty() || !index_hints.is_empty() || renames {
            return Err(not_a_table(&factor.to_string()));
        }
        self.open(name, alias.as_ref().map(|alias| alias.name.value.clone()))
            .await
    }

    /// Opens the table to change, at its newest version or that of a branch.
    async fn open(&mut self, name: &ObjectName, alias: Option<String>) -> Result<Changed> {
        let [part] = name.0.as_slice() else {
            return Err(not_a_table(&name.to_string()));
        };
        let Some(name) = part.as_ident().map(|ident| ident.value.clone()) else {
            return Err(not_a_table(&name.to_string()));
        };
        let ctes = self.with.iter().flat_map(|with| &with.cte_tables);
        if ctes.into_iter().any(|cte| cte.alias.name.value == name) {
            return Err(Error::unsupported(
                format!("{name} is a name in WITH, which cannot be changed"),
                "name a table",
            ));
        }
        let Some(named) = self.tables.named.iter().find(|named| named.name == name).cloned() else {
            return Err(not_a_table(&name));
        };
        let (handle, by_name) = match self.session.named_ref(&named, &self.tables.travels).await? {
            Some(found) => (self.writes_to(found, &name)?, true),
            None => (self.open_newest(&named).await?, false),
        };
        self.tables.own = self.own_names(&name, by_name, &handle).await;
        let schema = handle.format.snapshot(&At::Latest).await?.schema.clone();
        Ok(Changed {
            alias: Ident::with_quote('"', alias.as_ref().unwrap_or(&name)),
            name,
            handle,
            schema,
        })
    }

    /// The newest version of a table of this name.
    async fn open_newest(&self, named: &Named) -> Result<Handle> {
        let name = &named.name;
        let (place, at) = self.session.place(named, &self.tables.travels)?;
        if at != At::Latest {
            return Err(Error::unsupported(
                format!("{name} stands for an old version, which cannot be changed"),
                "name the table without a version, or write its path",
            ));
        }
        if self
            .session
            .context()
            .table_exist(TableReference::bare(name.as_str()))?
        {
            return Err(not_a_table(name));
        }
        let handle = self.session.open_table(&place).await?;
        handle.ok_or_else(|| match place {
            Place::At(place, true) if super::files::is_file(&place) => Error::unsupported(
                format!("{place} is a file, only tables can be changed"),
                "make a table of it: lake append TABLE FILE --create",
            ),
            Place::At(place, quoted) => self.session.not_found(&place, quoted),
            Place::Open(_) => not_a_table(name),
        })
    }

    /// Has the statement write to the branch that the table's name says.
    fn writes_to(&mut self, found: NamedRef, name: &str) -> Result<Handle> {
        let branch = found.name;
        if found.kind == RefKind::Tag {
            return Err(Error::unsupported(
                format!("{name} is a tag, which stays as it is"),
                "write to the table or to a branch of it",
            ));
        }
        if let Some(other) = self.options.branch.as_ref().filter(|other| **other != branch) {
            return Err(Error::invalid(
                format!("{name} names one branch, the options of the statement another: {other}"),
                "the statement",
            )
            .with_hint("name the branch once"));
        }
        self.options.branch = Some(branch);
        Ok(found.handle)
    }

    /// The names in the statement that stand for the table that it changes: they must be read at the very
    /// version that is changed. Where the name of the table says the branch, a name without one means main.
    async fn own_names(&self, name: &str, by_name: bool, handle: &Handle) -> BTreeSet<String> {
        let branch = self.options.branch.as_deref().unwrap_or(MAIN);
        let mut own = BTreeSet::from([name.to_owned()]);
        for named in &self.tables.named {
            // What cannot be opened is told when the query is planned.
            let Ok(found) = self.session.named_ref(named, &self.tables.travels).await else {
                continue;
            };
            let other = match found {
                Some(found) if found.kind == RefKind::Branch && found.name == branch => found.handle,
                Some(_) => continue,
                None if by_name && branch != MAIN => continue,
                None => {
                    let Ok((place, At::Latest)) = self.session.place(named, &self.tables.travels) else {
                        continue;
                    };
                    match self.session.open_table(&place).await {
                        Ok(Some(other)) => other,
                        _ => continue,
                    }
                }
            };
            if other.store.location() == handle.store.location() {
                own.insert(named.name.clone());
            }
        }
        own
    }

    /// Plans a query of the statement.
    async fn plan(&self, query: Query, target: Option<&Target>) -> Result<datafusion::dataframe::DataFrame> {
        let query = build::with(query, self.with.clone());
        let planned = self.session.plan_query(query, &self.tables, target).await;
        planned.map_err(without_hidden_columns)
    }

    /// Whether a query of the statement reads the table that is changed.
    fn reads_own(&self, query: &Query) -> Result<bool> {
        let query = build::with(query.clone(), self.with.clone());
        self.session.reads_own(&query, &self.tables)
    }
}

/// The rows that a DELETE or UPDATE speaks of.
struct Selected {
    /// Tables beside the one that is changed.
    others: Vec<TableWithJoins>,
    condition: Option<Expr>,
    order_by: Vec<OrderByExpr>,
    limit: Option<Expr>,
}

impl Selected {
    /// Refuses what would select other rows than it says.
    fn check(&self, verb: &str, alias: &Ident) -> Result<()> {
        let by_number = self
            .order_by
            .iter()
            .any(|order| matches!(order.expr, Expr::Value(_)));
        refuse(
            verb,
            &[
                (
                    !self.order_by.is_empty() && self.limit.is_none(),
                    "ORDER BY without LIMIT",
                ),
                (by_number, "ORDER BY the number of a column"),
                (
                    !self.others.is_empty() && (self.limit.is_some() || !self.order_by.is_empty()),
                    "LIMIT over more than one table",
                ),
            ],
        )?;
        let factors = self.others.iter().flat_map(|table| {
            let joined = table.joins.iter().map(|join| &join.relation);
            std::iter::once(&table.relation).chain(joined)
        });
        for factor in factors {
            if called(factor).is_some_and(|name| name == alias.value) {
                return Err(Error::invalid(
                    format!("two tables are called {}", alias.value),
                    verb.to_owned(),
                )
                .with_hint("the table that is changed is there already; give the other one an alias"));
            }
        }
        Ok(())
    }

    /// Whether the condition can be told from each row alone.
    fn is_plain(&self) -> bool {
        self.others.is_empty() && self.limit.is_none() && !qualify::has_subquery(&self.condition)
    }

    /// What is known of the rows without running the query.
    fn narrow(&self, alias: &Ident) -> Option<String> {
        qualify::narrow(self.condition.as_ref(), &alias.value, !self.others.is_empty())
    }

    /// Puts ORDER BY and LIMIT behind a query.
    fn limit(&self, query: &mut Query) {
        if !self.order_by.is_empty() {
            query.order_by = Some(OrderBy {
                kind: OrderByKind::Expressions(self.order_by.clone()),
                interpolate: None,
            });
        }
        query.limit_clause = self.limit.clone().map(|limit| LimitClause::LimitOffset {
            limit: Some(limit),
            offset: None,
            limit_by: Vec::new(),
        });
    }
}

/// The columns that say where rows are.
fn places(target: &Target, alias: &Ident) -> Vec<SelectItem> {
    let places = target.places().iter();
    places
        .map(|(hidden, name)| build::column(alias, hidden, name))
        .collect()
}

/// The name under which the columns of a table in FROM are known.
fn called(factor: &TableFactor) -> Option<&str> {
    match factor {
        TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        }
        | TableFactor::TableFunction {
            alias: Some(alias), ..
        }
        | TableFactor::Function {
            alias: Some(alias), ..
        }
        | TableFactor::UNNEST {
            alias: Some(alias), ..
        } => Some(&alias.name.value),
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().map(|ident| ident.value.as_str()),
        _ => None,
    }
}

/// The column that an assignment sets.
fn assigned<'a>(target: &'a AssignmentTarget, changed: &Changed) -> Result<&'a str> {
    let AssignmentTarget::ColumnName(name) = target else {
        return Err(Error::unsupported(
            format!("several columns at once cannot be set: {target}"),
            "set each column by itself: SET a = .., b = ..",
        ));
    };
    column(name, changed)
}

/// A column of the table that is changed.
fn column<'a>(name: &'a ObjectName, changed: &Changed) -> Result<&'a str> {
    let idents: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let column = match idents.as_slice() {
        [column] => column,
        [table, column] if table.value == changed.alias.value => column,
        _ => {
            return Err(Error::unsupported(
                format!(
                    "{name} cannot be set, only whole columns of {} can",
                    changed.alias.value
                ),
                "name a column of the table that is changed",
            ));
        }
    };
    if changed.schema.field_with_name(&column.value).is_err() {
        let known = changed.schema.fields().iter().map(|field| field.name().clone());
        return Err(unknown_column(&column.value, known, &changed.name));
    }
    Ok(&column.value)
}

/// The error without the columns that only we know of, where its hint lists what exists.
fn without_hidden_columns(error: Error) -> Error {
    let Some(hint) = error.hint().map(str::to_owned) else {
        return error;
    };
    let shown: Vec<&str> = hint
        .split(", ")
        .filter(|part| !part.contains("__lakehouse_"))
        .collect();
    error.with_hint(shown.join(", "))
}

/// Refuses the first of these forms that is there.
fn refuse(verb: &str, forms: &[(bool, &str)]) -> Result<()> {
    match forms.iter().find(|(there, _)| *there) {
        Some((_, form)) => Err(Error::unsupported(
            format!("{form} cannot run in {verb}"),
            "nothing was changed; write the statement without it",
        )),
        None => Ok(()),
    }
}

fn not_a_table(what: &str) -> Error {
    Error::unsupported(
        format!("{what} is not a table that can be changed"),
        "name a table, or write its path in quotes; it may have an alias",
    )
}

#[cfg(test)]
mod tests;
