//! A session in which statements run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
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
use datafusion::sql::sqlparser::ast::{Query, Statement, VisitMut};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::change;
use super::files;
use super::statement::{self, Named};
use super::travel::{self, Travel};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::At;
use crate::operations::{Options, Report, Target};
use crate::scan::{self, SnapshotTable};

/// Opens the tables that statements name.
pub trait Open: Send + Sync {
    /// The table at a path, URL or catalog name; `None` where there is none.
    ///
    /// # Errors
    /// When there is one that cannot be opened.
    fn table<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Option<Handle>>>;

    /// One version of it, to be read.
    ///
    /// # Errors
    /// As [`Open::table`], and when there is no such version.
    fn provider<'a>(
        &'a self,
        place: &'a str,
        at: &'a At,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn TableProvider>>>> {
        async move {
            match self.table(place).await? {
                Some(handle) => Ok(Some(version(&handle, at).await?)),
                None => Ok(None),
            }
        }
        .boxed()
    }
}

/// What opens the tables of a session.
pub type Opener = Arc<dyn Open>;

/// What a statement gave.
#[derive(Debug)]
pub enum Executed {
    /// The planned rows of a query.
    Rows(Box<DataFrame>),
    /// What was done to a table.
    Changed {
        /// The table, as the statement calls it.
        table: String,
        /// What was done.
        report: Box<Report>,
    },
}

/// Runs statements. Tables are those registered by name, and any path or URL in quotes; plain files
/// (`'x.parquet'`, `.csv`, `.ndjson`, `.json`, `.arrow`) can be read as tables too. Every statement opens
/// its tables anew, at their newest version unless it says otherwise.
pub struct Session {
    ctx: SessionContext,
    opener: Opener,
    names: BTreeMap<String, (Place, At)>,
    at: At,
    /// Tables that a query opens are registered only while it is planned.
    planning: tokio::sync::Mutex<()>,
}

/// Where a table is.
#[derive(Clone)]
pub(super) enum Place {
    /// What to open, and whether it was a path in quotes or a name bound to one.
    At(String, bool),
    /// It is open.
    Open(Handle),
}

/// What a statement says about its tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// All names in it.
    pub(super) named: Vec<Named>,
    /// Those at a version.
    pub(super) travels: Vec<Travel>,
    /// Those that are the table that the statement changes, at its newest version.
    pub(super) own: BTreeSet<String>,
}

async fn version(handle: &Handle, at: &At) -> Result<Arc<dyn TableProvider>> {
    let snapshot = handle.format.snapshot(at).await?;
    Ok(Arc::new(SnapshotTable::new(handle.clone(), snapshot)))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("names", &self.names.keys())
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

    /// Which version tables are read at where the statement does not say.
    pub(super) fn version(&self) -> &At {
        &self.at
    }

    pub(super) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Whether a table has exactly this name.
    pub(super) fn is_named(&self, name: &str) -> Result<bool> {
        Ok(self.names.contains_key(name) || self.ctx.table_exist(TableReference::bare(name))?)
    }

    /// Where the table of this name is.
    pub(super) fn place_of(&self, name: &str) -> Option<Place> {
        self.names.get(name).map(|(place, _)| place.clone())
    }

    /// The engine's session.
    pub fn context(&self) -> &SessionContext {
        &self.ctx
    }

    /// Names a table for the queries of this session: what is at `location`, at this version
    /// ([`At::Latest`]: at the session's) unless a query asks for another.
    pub fn name(&mut self, name: impl Into<String>, location: impl Into<String>, at: At) {
        let place = Place::At(location.into(), true);
        self.names.insert(name.into(), (place, at));
    }

    /// Names a table that is open already.
    pub fn table(&mut self, name: impl Into<String>, handle: Handle, at: At) {
        self.names.insert(name.into(), (Place::Open(handle), at));
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
    /// [`Error::Unsupported`] for statements that change something;
    /// [`Error::NotFound`] for a table that is not there; [`Error::Invalid`] for a query that is wrong.
    pub async fn query(&self, sql: &str) -> Result<DataFrame> {
        let (tokens, travels) = travel::take_out(statement::tokens(sql)?)?;
        self.read(statement::parse(tokens)?, travels).await
    }

    /// Plans a query, or runs a statement that changes a table: INSERT INTO, INSERT OVERWRITE, UPDATE,
    /// DELETE, MERGE, TRUNCATE TABLE.
    ///
    /// # Errors
    /// As [`Session::query`]; [`Error::Unsupported`] for a form of a statement that is not known; those of
    /// the operations of [`crate::operations`].
    pub async fn execute(&self, sql: &str, options: &Options) -> Result<Executed> {
        let (tokens, travels) = travel::take_out(statement::tokens(sql)?)?;
        let statement = statement::parse(change::prepare(tokens)?)?;
        match statement::split(statement) {
            Ok((with, statement)) => change::run(self, with, statement, travels, options).await,
            Err(query) => {
                let frame = self.read(*query, travels).await?;
                Ok(Executed::Rows(Box::new(frame)))
            }
        }
    }

    /// Whether a statement changes a table. Nothing is opened.
    ///
    /// # Errors
    /// [`Error::Invalid`] for text that is no statement.
    pub fn changes(sql: &str) -> Result<bool> {
        let (tokens, _) = travel::take_out(statement::tokens(sql)?)?;
        let statement = statement::parse(change::prepare(tokens)?)?;
        Ok(statement::split(statement).is_ok())
    }

    async fn read(&self, mut statement: Statement, travels: Vec<Travel>) -> Result<DataFrame> {
        statement::only_reads(&statement)?;
        let tables = Tables {
            named: self.named(&mut statement)?,
            travels,
            own: BTreeSet::new(),
        };
        // What lists tables must see them all, and see them when it runs.
        let lists = matches!(
            &statement,
            Statement::ShowTables { .. } | Statement::ShowColumns { .. }
        );
        let statement = Parsed::Statement(Box::new(statement));
        let mut wanted = self.unknown(&statement, &tables.named)?;
        if lists {
            wanted.extend(self.names.keys().map(|name| Named {
                name: name.clone(),
                quoted: false,
            }));
        }
        self.planned(statement, wanted, &tables, None, lists).await
    }

    /// Every name in a statement or a part of one. Names of several parts become one.
    pub(super) fn named(&self, statement: &mut impl VisitMut) -> Result<Vec<Named>> {
        statement::names(statement, &|parts| self.is_known(parts))
    }

    /// Plans a query of a statement that changes a table; `target` is the version that is changed.
    pub(super) async fn plan_query(
        &self,
        query: Query,
        tables: &Tables,
        target: Option<&Target>,
    ) -> Result<DataFrame> {
        let statement = Parsed::Statement(Box::new(Statement::Query(Box::new(query))));
        let wanted = self.unknown(&statement, &tables.named)?;
        self.planned(statement, wanted, tables, target, false).await
    }

    /// Whether a query reads the table that its statement changes.
    pub(super) fn reads_own(&self, query: &Query, tables: &Tables) -> Result<bool> {
        let statement = Parsed::Statement(Box::new(Statement::Query(Box::new(query.clone()))));
        let read = self.unknown(&statement, &tables.named)?;
        Ok(read.iter().any(|one| tables.own.contains(&one.name)))
    }

    async fn planned(
        &self,
        statement: Parsed,
        wanted: Vec<Named>,
        tables: &Tables,
        target: Option<&Target>,
        lists: bool,
    ) -> Result<DataFrame> {
        let planning = self.planning.lock().await;
        let mut opened = Vec::new();
        let mut planned = self.plan(statement, wanted, tables, target, &mut opened).await;
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
        tables: &Tables,
        target: Option<&Target>,
        opened: &mut Vec<String>,
    ) -> Result<DataFrame> {
        for named in wanted {
            if opened.contains(&named.name) {
                continue;
            }
            let provider = match target {
                Some(target) if tables.own.contains(&named.name) => Arc::clone(&target.table),
                _ => match self.named_ref(&named, &tables.travels).await? {
                    Some(found) => version(&found.handle, &At::Ref(found.name)).await?,
                    None => {
                        let (place, at) = self.place(&named, &tables.travels)?;
                        self.open(place, at).await?
                    }
                },
            };
            self.register(&named.name, provider)?;
            opened.push(named.name);
        }
        if let Some(placed) = target.and_then(|target| target.placed.as_ref()) {
            self.register(change::TARGET, Arc::clone(placed))?;
            opened.push(change::TARGET.to_owned());
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

    /// Where the table of this name is, and which version of it is meant.
    pub(super) fn place(&self, named: &Named, travels: &[Travel]) -> Result<(Place, At)> {
        let Named { name, quoted } = named;
        let Some(travel) = travels.iter().find(|travel| travel.name == *name) else {
            return Ok(match self.names.get(name) {
                Some((place, At::Latest)) => (place.clone(), self.at.clone()),
                Some((place, at)) => (place.clone(), at.clone()),
                None => (Place::At(name.clone(), *quoted), self.at.clone()),
            });
        };
        let name = &travel.table;
        if let Some((place, _)) = self.names.get(name) {
            return Ok((place.clone(), travel.at.clone()));
        }
        if self.ctx.table_exist(TableReference::bare(name.as_str()))? {
            return Err(Error::unsupported(
                format!("{name} has no versions that a query can ask for"),
                "name the table by its path, or give the version where it is named",
            ));
        }
        Ok((Place::At(name.clone(), travel.quoted), travel.at.clone()))
    }

    async fn open(&self, place: Place, at: At) -> Result<Arc<dyn TableProvider>> {
        let (place, quoted) = match place {
            Place::Open(handle) => return version(&handle, &at).await,
            Place::At(place, quoted) => (place, quoted),
        };
        if quoted {
            if (at == At::Latest || at == self.at)
                && let Some(file) = files::open(&self.ctx, &place).await?
            {
                return Ok(file);
            }
            if let Some(table) = self.opener.provider(&place, &at).await? {
                return Ok(table);
            }
        }
        Err(self.not_found(&place, quoted))
    }

    /// The table at a place, to be changed; `None` where none can be.
    pub(super) async fn open_table(&self, place: &Place) -> Result<Option<Handle>> {
        match place {
            Place::Open(handle) => Ok(Some(handle.clone())),
            Place::At(place, true) if !files::is_file(place) => self.opener.table(place).await,
            Place::At(..) => Ok(None),
        }
    }

    pub(super) fn not_found(&self, place: &str, quoted: bool) -> Error {
        let mut hint = format!("a path goes in quotes: FROM './{place}'; or name the table: -t {place}=PATH");
        if quoted {
            "there is neither a table nor a file".clone_into(&mut hint);
        } else if !self.names.is_empty() {
            let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
            hint = format!("{hint}. Named tables: {}", names.join(", "));
        }
        Error::not_found(format!("table {place}"), "").with_hint(hint)
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
    fn unknown(&self, statement: &Parsed, named: &[Named]) -> Result<Vec<Named>> {
        let (tables, _) = resolve_table_references(statement, false)?;
        let tables: HashSet<TableReference> = tables.into_iter().collect();
        let mut unknown = Vec::new();
        for one in named {
            let reference = TableReference::bare(one.name.as_str());
            if tables.contains(&reference) && !self.ctx.table_exist(reference)? {
                unknown.push(one.clone());
            }
        }
        Ok(unknown)
    }
}
