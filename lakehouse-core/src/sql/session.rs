//! A session in which queries run.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::Statement;
use futures::future::BoxFuture;

use super::files;
use super::statement::{self, Named};
use super::travel::{self, Travel};
use crate::error::{Error, Result};
use crate::model::At;
use crate::scan;

/// Opens the table at a path, URL or catalog name, at a version; `None` where there is none.
pub type Opener =
    Arc<dyn Fn(String, At) -> BoxFuture<'static, Result<Option<Arc<dyn TableProvider>>>> + Send + Sync>;

/// Runs queries. Tables in FROM are those registered by name, and any path or URL in quotes; plain
/// files (`'x.parquet'`, `.csv`, `.ndjson`, `.json`, `.arrow`) are tables too. Every query opens its
/// tables anew, at their newest version unless it says otherwise.
pub struct Session {
    ctx: SessionContext,
    opener: Opener,
    names: BTreeMap<String, (String, At)>,
    at: At,
    /// Tables that a query opens are registered only while it is planned.
    planning: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that opens tables through `opener`. For `memory_limit` see [`scan::session`].
    pub fn new(opener: Opener, memory_limit: Option<usize>) -> Self {
        Self {
            ctx: scan::session(memory_limit),
            opener,
            names: BTreeMap::new(),
            at: At::Latest,
            planning: tokio::sync::Mutex::default(),
        }
    }

    /// Which version tables are read at where the query does not say.
    #[must_use]
    pub fn with_version(mut self, at: At) -> Self {
        self.at = at;
        self
    }

    /// The engine's session.
    pub fn context(&self) -> &SessionContext {
        &self.ctx
    }

    /// Names a table for the queries of this session: what is at `location`, at this version
    /// ([`At::Latest`]: at the session's) unless a query asks for another.
    pub fn name(&mut self, name: impl Into<String>, location: impl Into<String>, at: At) {
        self.names.insert(name.into(), (location.into(), at));
    }

    /// Names anything that the engine can read. A query cannot ask for other versions of it.
    ///
    /// # Errors
    /// When the engine refuses the name.
    pub fn register(&self, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
        self.ctx.register_table(TableReference::bare(name), provider)?;
        Ok(())
    }

    /// Plans a query (SELECT, WITH, VALUES, EXPLAIN, SHOW, DESCRIBE). Nothing is read yet but metadata.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for statements that change something, with the verb that does it;
    /// [`Error::NotFound`] for a table that is not there; [`Error::Invalid`] for a query that is wrong.
    pub async fn query(&self, sql: &str) -> Result<DataFrame> {
        let (tokens, travels) = travel::take_out(statement::tokens(sql)?)?;
        let mut statement = statement::parse(tokens)?;
        let named = statement::names(&mut statement, &|parts| self.is_known(parts))?;
        let statement = Parsed::Statement(Box::new(statement));
        let wanted = self.unknown(&statement, named)?;

        // What lists tables must see them all, and see them when it runs.
        let lists = matches!(
            &statement,
            Parsed::Statement(s) if matches!(
                s.as_ref(),
                Statement::ShowTables { .. } | Statement::ShowColumns { .. }
            )
        );
        let mut wanted = wanted;
        if lists {
            wanted.extend(self.names.keys().map(|name| Named {
                name: name.clone(),
                quoted: false,
            }));
        }
        let planning = self.planning.lock().await;
        let mut opened = Vec::new();
        let mut planned = self.plan(statement, wanted, &travels, &mut opened).await;
        if lists && let Ok(frame) = planned {
            planned = self.listed(frame).await;
        }
        for name in opened {
            self.ctx.deregister_table(TableReference::bare(name))?;
        }
        drop(planning);
        planned
    }

    async fn listed(&self, frame: DataFrame) -> Result<DataFrame> {
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let table = MemTable::try_new(schema, vec![frame.collect().await?])?;
        Ok(self.ctx.read_table(Arc::new(table))?)
    }

    async fn plan(
        &self,
        statement: Parsed,
        wanted: Vec<Named>,
        travels: &[Travel],
        opened: &mut Vec<String>,
    ) -> Result<DataFrame> {
        for Named { name, quoted } in wanted {
            if opened.contains(&name) {
                continue;
            }
            let provider = match travels.iter().find(|travel| travel.name == name) {
                Some(travel) => {
                    self.open_at(&travel.table, travel.quoted, travel.at.clone())
                        .await?
                }
                None => self.open(&name, quoted).await?,
            };
            self.register(&name, provider)?;
            opened.push(name);
        }
        let state = self.ctx.state();
        let plan = state
            .statement_to_plan(statement)
            .await
            .map_err(|e| scan::planning_error(e, "the query"))?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|e| Error::unsupported(e.strip_backtrace(), "queries only read"))?;
        Ok(DataFrame::new(state, plan))
    }

    /// A table by name or place, at the version that the session or the name says.
    async fn open(&self, name: &str, quoted: bool) -> Result<Arc<dyn TableProvider>> {
        match self.names.get(name) {
            Some((location, At::Latest)) => self.open_place(location, true, self.at.clone()).await,
            Some((location, at)) => self.open_place(location, true, at.clone()).await,
            None => self.open_place(name, quoted, self.at.clone()).await,
        }
    }

    /// A table at the version that the query says.
    async fn open_at(&self, name: &str, quoted: bool, at: At) -> Result<Arc<dyn TableProvider>> {
        if let Some((location, _)) = self.names.get(name) {
            return self.open_place(location, true, at).await;
        }
        if self.ctx.table_exist(TableReference::bare(name))? {
            return Err(Error::unsupported(
                format!("{name} has no versions that a query can ask for"),
                "name the table by its path, or give the version where it is named",
            ));
        }
        self.open_place(name, quoted, at).await
    }

    async fn open_place(&self, place: &str, quoted: bool, at: At) -> Result<Arc<dyn TableProvider>> {
        if quoted {
            if (at == At::Latest || at == self.at)
                && let Some(file) = files::open(&self.ctx, place).await?
            {
                return Ok(file);
            }
            if let Some(table) = (self.opener)(place.to_owned(), at).await? {
                return Ok(table);
            }
        }
        let mut hint = format!("a path goes in quotes: FROM './{place}'; or name the table: -t {place}=PATH");
        if quoted {
            "there is neither a table nor a file".clone_into(&mut hint);
        } else if !self.names.is_empty() {
            let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
            hint = format!("{hint}. Named tables: {}", names.join(", "));
        }
        Err(Error::not_found(format!("table {place}"), "").with_hint(hint))
    }

    /// Whether a name of several parts is one of the engine's own.
    fn is_known(&self, parts: &[String]) -> bool {
        let ([schema, _] | [_, schema, _]) = parts else {
            return false;
        };
        schema == "information_schema"
            || (schema == "public"
                && parts.last().is_some_and(|table| {
                    self.ctx
                        .table_exist(TableReference::bare(table.as_str()))
                        .unwrap_or(false)
                }))
    }

    /// The names that have to be opened: no common table expressions, nothing that is registered.
    fn unknown(&self, statement: &Parsed, named: Vec<Named>) -> Result<Vec<Named>> {
        let (tables, _) = resolve_table_references(statement, false)?;
        let tables: HashSet<TableReference> = tables.into_iter().collect();
        let mut unknown = Vec::new();
        for one in named {
            let reference = TableReference::bare(one.name.as_str());
            if tables.contains(&reference) && !self.ctx.table_exist(reference)? {
                unknown.push(one);
            }
        }
        Ok(unknown)
    }
}
