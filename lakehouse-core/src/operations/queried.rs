//! Changes whose rows a query finds: what joins, subqueries and LIMIT ask for, and rows that come out
//! of the very table that they go into.
//!
//! The query is planned on the version that is changed, again for each version that the change is
//! planned on. What it may read is not known, so all of the table counts as read.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::ident;
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::append::Append;
use super::delete::understood;
use super::merge::MergeVerb;
use super::overwrite::{Overwrite, describe_row};
use super::rows::{Places, Touched, named};
use super::work::{Origin, Verb, Work, run};
use super::{Merge, Options, Report, Rows};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::schema::{FILE_COLUMN, POSITION_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, OperationKind, Prune};
use crate::scan::{MetadataColumns, ScanReport, SnapshotTable, session};

/// Where a row is: the columns of [`Target::placed`], and what the query calls them in its result.
const PLACE: [(&str, &str); 3] = [
    ("__lakehouse_file", FILE_COLUMN),
    ("__lakehouse_pos", POSITION_COLUMN),
    ("__lakehouse_row_id", ROW_ID_COLUMN),
];

/// How many rows that match twice an error names.
const NAMED_DUPLICATES: usize = 5;

/// The version that is changed, as a query sees it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its columns.
    pub table: Arc<dyn TableProvider>,
    /// The same, and where each row is: the columns of [`Target::places`]. Only for rows that are to be
    /// deleted or updated.
    pub placed: Option<Arc<dyn TableProvider>>,
    row_ids: bool,
}

impl Target {
    /// Columns of `placed` that say where a row is, and the names under which the result of the query
    /// must have them, behind all others.
    pub fn places(&self) -> &'static [(&'static str, &'static str)] {
        if self.row_ids { &PLACE } else { &PLACE[..2] }
    }

    /// The table without places, for rows that only go in.
    fn source(work: &Work) -> Self {
        Self {
            table: Arc::new(SnapshotTable::new(
                work.handle.clone(),
                Arc::clone(&work.snapshot),
            )),
            placed: None,
            row_ids: false,
        }
    }

    /// The table, and the rows of these files with their places.
    fn with_places(work: &Work, files: Vec<DataFile>, row_ids: bool) -> Result<(Self, Arc<ScanReport>)> {
        let columns = MetadataColumns {
            file: true,
            position: true,
            lineage: row_ids,
        };
        let scan = SnapshotTable::new(work.handle.clone(), Arc::clone(&work.snapshot))
            .with_metadata_columns(columns)
            .with_files(files);
        let report = scan.report();
        let mut target = Self {
            row_ids,
            ..Self::source(work)
        };
        // Under names that no query can mean by accident.
        let own = work.snapshot.schema.fields().iter().map(|f| ident(f.name()));
        let places = target
            .places()
            .iter()
            .map(|(hidden, name)| ident(*name).alias(*hidden));
        let columns: Vec<_> = own.chain(places).collect();
        let frame = session(None).read_table(Arc::new(scan))?.select(columns)?;
        target.placed = Some(frame.into_view());
        Ok((target, report))
    }
}

/// A query over the table that is changed, and others.
pub trait PlanQuery: Send + Sync {
    /// Plans it on one version. Called again when another commit makes the plan wrong.
    ///
    /// # Errors
    /// When the query is wrong.
    fn plan<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<DataFrame>>;
}

/// Deletes the rows that a query finds. Its result has the columns of [`Target::places`]; a row may come
/// several times. Only files that may hold rows for which `narrow` is true are read.
///
/// # Errors
/// Those of the query and of [`crate::commit::commit`].
pub async fn delete_rows(
    handle: &Handle,
    query: &dyn PlanQuery,
    narrow: Option<&str>,
    options: &Options,
) -> Result<Report> {
    run(handle, options, &mut DeleteRows { query, narrow }).await
}

/// Replaces the rows that a query finds by new versions. Its result has all columns of the table, with
/// the new values, then those of [`Target::places`]. Rows keep their ids. For `narrow` see [`delete_rows`].
///
/// # Errors
/// [`Error::Invalid`] naming a row that comes twice, and for a value that does not fit; those of the
/// query and of [`crate::commit::commit`].
pub async fn update_rows(
    handle: &Handle,
    query: &dyn PlanQuery,
    narrow: Option<&str>,
    options: &Options,
) -> Result<Report> {
    run(handle, options, &mut UpdateRows { query, narrow }).await
}

/// As [`super::append`], with rows that come out of the table itself.
///
/// # Errors
/// As there, and those of the query.
pub async fn append_query(handle: &Handle, query: &dyn PlanQuery, options: &Options) -> Result<Report> {
    let sink = Sink::Append;
    run(handle, options, &mut FromItself { query, sink }).await
}

/// As [`super::overwrite`] of all rows, with rows that come out of the table itself.
///
/// # Errors
/// As there, and those of the query.
pub async fn overwrite_query(handle: &Handle, query: &dyn PlanQuery, options: &Options) -> Result<Report> {
    let sink = Sink::Overwrite;
    run(handle, options, &mut FromItself { query, sink }).await
}

/// As [`super::merge`], with a source that reads the table itself.
///
/// # Errors
/// As there, and those of the query.
pub async fn merge_query(
    handle: &Handle,
    query: &dyn PlanQuery,
    merge: &Merge,
    options: &Options,
) -> Result<Report> {
    let sink = Sink::Merge(merge);
    run(handle, options, &mut FromItself { query, sink }).await
}

/// Which verb takes the rows.
enum Sink<'a> {
    Append,
    Overwrite,
    Merge(&'a Merge),
}

struct FromItself<'a> {
    query: &'a dyn PlanQuery,
    sink: Sink<'a>,
}

impl Verb for FromItself<'_> {
    fn kind(&self) -> OperationKind {
        match self.sink {
            Sink::Append => OperationKind::Append,
            Sink::Overwrite => OperationKind::Overwrite,
            Sink::Merge(_) => OperationKind::Merge,
        }
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let rows = Rows::frame(self.query.plan(&Target::source(work)).await?);
            match self.sink {
                Sink::Append => Append { rows }.plan(work).await?,
                Sink::Overwrite => {
                    Overwrite {
                        rows,
                        predicate: None,
                    }
                    .plan(work)
                    .await?;
                }
                Sink::Merge(merge) => MergeVerb::new(rows, merge).plan(work).await?,
            }
            work.change.read = Some(Arc::new(Prune::everything()));
            Ok(())
        })
    }
}

struct DeleteRows<'a> {
    query: &'a dyn PlanQuery,
    narrow: Option<&'a str>,
}

impl Verb for DeleteRows<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Delete
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut touched = files(work, self.narrow).await?;
            if touched.files().is_empty() {
                return Ok(());
            }
            work.begin("scan");
            let (target, report) = Target::with_places(work, touched.files().to_vec(), false)?;
            let mut stream = run_query(self.query.plan(&target).await?).await?;
            while let Some(batch) = stream.try_next().await? {
                touched.touch(&Places::of(&batch)?)?;
            }
            work.count("num_target_rows_deleted", touched.rows());
            work.count("bytes_read", report.bytes_planned.load(Relaxed));
            touched.apply(work).await
        })
    }
}

struct UpdateRows<'a> {
    query: &'a dyn PlanQuery,
    narrow: Option<&'a str>,
}

impl Verb for UpdateRows<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Update
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut touched = files(work, self.narrow).await?;
            if touched.files().is_empty() {
                return Ok(());
            }
            work.begin("scan");
            let (target, report) = Target::with_places(work, touched.files().to_vec(), work.lineage())?;
            let frame = self.query.plan(&target).await?;
            let mut stream = run_query(frame).await?;
            while let Some(batch) = stream.try_next().await? {
                let fresh = touched.touch(&Places::of(&batch)?)?;
                let columns = batch.num_columns() - target.places().len();
                let rows = batch.project(&(0..columns).collect::<Vec<_>>())?;
                refuse_duplicates(&rows, &fresh)?;
                if work.lineage() {
                    let ids = named(&batch, ROW_ID_COLUMN)?;
                    work.write(&rows, Origin::Updated(Some(&ids))).await?;
                } else {
                    work.write(&rows, Origin::Updated(None)).await?;
                }
            }
            work.count("num_target_rows_updated", touched.rows());
            work.count("bytes_read", report.bytes_planned.load(Relaxed));
            touched.apply(work).await
        })
    }
}

/// Starts a query, and says what to do about one that the engine has no plan for.
async fn run_query(frame: DataFrame) -> Result<SendableRecordBatchStream> {
    frame.execute_stream().await.map_err(|error| {
        if error.to_string().contains("does not support logical expression") {
            Error::unsupported(
                "a subquery depends on the row in a way that cannot run",
                "compare with the row's columns by equality, or join: DELETE .. USING, UPDATE .. FROM",
            )
        } else {
            Error::from(error)
        }
    })
}

/// The files that may hold rows for which `narrow` is true. Notes that the whole table is read: the
/// query may look at any row of it.
async fn files(work: &mut Work, narrow: Option<&str>) -> Result<Touched> {
    work.keep_lineage();
    work.change.read = Some(Arc::new(Prune::everything()));
    // What the predicate is good for is decided here; the query says what is wrong with it.
    let predicate = narrow.and_then(|text| understood(work, text).ok());
    let prune = match predicate.filter(|predicate| !predicate.is_volatile()) {
        Some(predicate) => Prune::matching(predicate, Arc::clone(&work.snapshot.schema))?,
        None => Prune::everything(),
    };
    Ok(Touched::new(work.list(&Arc::new(prune)).await?))
}

/// A row that comes twice would take one of two values by luck.
fn refuse_duplicates(rows: &RecordBatch, fresh: &[bool]) -> Result<()> {
    let mut twice: Vec<String> = Vec::new();
    for at in (0..fresh.len()).filter(|at| !fresh[*at]) {
        let text = describe_row(rows, at);
        if !twice.contains(&text) && twice.len() < NAMED_DUPLICATES {
            twice.push(text);
        }
    }
    if twice.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(
        format!(
            "a row of the table would be updated more than once, the second time to {}",
            twice.join("; ")
        ),
        "UPDATE",
    )
    .with_hint(
        "make sure that each row of the table matches at most one row of the others, for example by GROUP BY",
    ))
}
