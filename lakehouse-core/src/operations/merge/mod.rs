//! Merge: source rows against target rows.
//!
//! ```text
//! source    collected within the memory limit, or on disk in parts that are merged one after the other;
//!           columns of the table's names brought to its types
//! feed      change records taken apart, one row per key, stored rows that are newer left alone
//! prune     the source's keys against partitions and file statistics
//! match     inner join source x target on the columns that something names, rows by file and position
//! by source target rows without a match, a scan of its own, only if a clause asks for it
//! insert    source rows whose number did not match
//! apply     touched rows are masked or their files rewritten
//! ```

mod cdc;
mod clauses;
mod debezium;
mod feed;
mod matching;
mod members;
mod partial;
mod plan;
mod ranges;
mod source;
mod spec;
mod spool;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;

use datafusion::prelude::SessionContext;

pub use cdc::{Cdc, CdcColumns};
pub use spec::{Action, Clause, Merge, OnDuplicate, When};

use super::rows::Found;
use super::work::{Verb, Work, run};
use super::{Options, Report, Rows, SchemaMode};
use crate::error::Result;
use crate::format::Handle;
use crate::model::{DataFile, OperationKind, Prune};
use crate::scan::memory;
use cdc::Own;
use feed::Feed;
use matching::Matching;
use plan::Plan;
use source::{Collected, Source};

/// Merges source rows into the table, as `merge` says. Rows that are updated keep their ids. A merge
/// that changes nothing commits nothing. With [`SchemaMode::Merge`] the table gets the columns of the source that
/// it lacks, as far as an update or insert of all columns writes them, and rows that are updated keep the members of
/// structs that the source lacks; without it a source that lacks some is refused.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for expressions that cannot be understood, columns that are not there,
/// values that do not fit, and for two source rows that change one target row or would be inserted
/// under one key (it names the key); those of [`crate::commit::commit`].
pub async fn merge(handle: &Handle, source: Rows, merge: &Merge, options: &Options) -> Result<Report> {
    run(handle, options, &mut MergeVerb::new(source, merge)).await
}

pub(super) struct MergeVerb<'a> {
    rows: Rows,
    collected: Option<Collected>,
    merge: &'a Merge,
}

impl<'a> MergeVerb<'a> {
    pub(super) fn new(rows: Rows, merge: &'a Merge) -> Self {
        Self {
            rows,
            collected: None,
            merge,
        }
    }
}

impl Verb for MergeVerb<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Merge
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            work.keep_lineage();
            let Prepared {
                ctx,
                collected,
                feed,
                plan,
            } = self.prepare(work).await?;
            let table = Arc::clone(&work.snapshot.schema);
            let held = collected.memory() + work.settings.writer_memory();
            work.count("memory_predicted", held as u64);
            let mut matching = Matching::new(&ctx, &plan);
            let mut listed: Option<Vec<DataFile>> = None;
            for pass in 0..collected.passes() {
                work.begin("source");
                let source = Source::new(collected, pass, &table)?;
                work.count("num_source_rows", source.rows());
                let source = feed.settle(source, &plan.keys, &ctx)?;
                work.begin("plan");
                let prune = Arc::new(plan.prune(&table, Some(&source))?);
                let files = if collected.passes() == 1 {
                    work.change.read = Some(Arc::clone(&prune));
                    work.list(&prune).await?
                } else {
                    // Only the first pass lists; the keys of all passes together would not fit.
                    let all = match &listed {
                        Some(all) => all,
                        None => {
                            let wide = Arc::new(plan.prune(&table, None)?);
                            work.change.read = Some(Arc::clone(&wide));
                            listed.insert(work.list(&wide).await?)
                        }
                    };
                    let keep = prune.keep_files(&work.snapshot, all)?;
                    all.iter()
                        .zip(keep)
                        .filter(|(_, keep)| *keep)
                        .map(|(file, _)| file.clone())
                        .collect()
                };
                work.begin("scan");
                if collected.passes() == 1 && plan.surely_changes() {
                    let guess = ranges::guess(&plan.keys, &table, &source, &files)?;
                    work.copy_ahead(&prune, guess, &files)?;
                }
                matching.matched(work, &source, files).await?;
                matching.inserts(work, &source).await?;
            }
            if !plan.by_source.is_empty() {
                work.change.read = Some(Arc::new(Prune::everything()));
                work.begin("scan");
                matching.by_source(work).await?;
            }
            let found = matching.found();
            matching.into_touched().apply_to(work, found).await
        })
    }

    fn find<'a>(
        &'a mut self,
        work: &'a mut Work,
        files: Vec<DataFile>,
    ) -> BoxFuture<'a, Result<Option<Found>>> {
        Box::pin(async move {
            let Prepared {
                ctx,
                collected,
                feed,
                plan,
            } = self.prepare(work).await?;
            if !plan.by_source.is_empty() || plan.is_volatile() {
                return Ok(None);
            }
            let mut matching = Matching::new(&ctx, &plan).looking();
            for pass in 0..collected.passes() {
                let source = Source::new(collected, pass, &work.snapshot.schema)?;
                let source = feed.settle(source, &plan.keys, &ctx)?;
                matching.matched(work, &source, files.clone()).await?;
            }
            Ok(Some(matching.found()))
        })
    }
}

/// A merge on the table as it is now.
struct Prepared<'a> {
    ctx: SessionContext,
    collected: &'a Collected,
    feed: Feed,
    plan: Plan,
}

impl MergeVerb<'_> {
    /// What the merge means for the table as it is now. The source is read the first time, and once.
    async fn prepare(&mut self, work: &mut Work) -> Result<Prepared<'_>> {
        let ctx = source::session_for_merge(work.options.memory_limit);
        let mut table = Arc::clone(&work.snapshot.schema);
        let mut rows = None;
        let mut collected = match self.collected.take() {
            Some(collected) => {
                self.evolve(work, collected.schema(), collected.own())?;
                table = Arc::clone(&work.snapshot.schema);
                collected
            }
            None => {
                work.begin("source");
                let memory = memory(work.options.memory_limit);
                let cdc = self.merge.cdc.as_ref();
                let mut given = None;
                if work.options.schema_mode == SchemaMode::Merge || partial::has_members(&table) {
                    let (columns, own) = Collected::columns(&self.rows, cdc, &table).await?;
                    self.evolve(work, &columns, own.as_ref())?;
                    table = Arc::clone(&work.snapshot.schema);
                    given = Some(columns);
                }
                let (collected, stream) = Collected::open(&self.rows, cdc, &table, &ctx, memory).await?;
                rows = Some(stream);
                match given {
                    Some(given) => collected.with_given(given),
                    None => collected,
                }
            }
        };
        let columns = collected.fitted(&table)?;
        let feed = Feed::new(self.merge, collected.own(), &table, &columns)?;
        let mut plan = Plan::new(self.merge, &feed, &table, &columns)?;
        let mode = work.options.schema_mode;
        partial::keep(&mut plan.matched, collected.given(), &table, mode)?;
        if let Some(rows) = rows {
            collected.read(rows, &columns, &plan.source_keys()).await?;
        }
        let ctx = if plan.moves_zones()? {
            source::without_join_filters(&ctx)
        } else {
            ctx
        };
        Ok(Prepared {
            ctx,
            collected: self.collected.insert(collected),
            feed,
            plan,
        })
    }

    /// Gives the table the columns that the merge writes and that it lacks, if that was asked for.
    fn evolve(&self, work: &mut Work, source: &SchemaRef, own: Option<&Own>) -> Result<()> {
        if work.options.schema_mode == SchemaMode::Strict {
            return Ok(());
        }
        let written = plan::written(self.merge, own, &work.snapshot.schema, source)?;
        work.evolve(&written)
    }
}
