//! Merge: source rows against target rows.
//!
//! ```text
//! source    collected within the memory limit, columns of the table's names brought to its types
//! prune     the source's keys against partitions and file statistics
//! match     inner join source x target on the columns that something names, rows by file and position
//! by source target rows without a match, a scan of its own, only if a clause asks for it
//! insert    source rows whose number did not match
//! apply     touched rows are masked or their files rewritten
//! ```

mod clauses;
mod matching;
mod plan;
mod source;
mod spec;

use std::sync::Arc;

use async_trait::async_trait;

use datafusion::prelude::SessionContext;
pub use spec::{Action, Clause, Merge, When};

use super::rows::Found;
use super::work::{Verb, Work, run};
use super::{Options, Report, Rows};
use crate::error::Result;
use crate::format::Handle;
use crate::model::{DataFile, OperationKind, Prune};
use matching::Matching;
use plan::Plan;
use source::{Collected, Source};

/// Merges source rows into the table, as `merge` says. Rows that are updated keep their ids. A merge
/// that changes nothing commits nothing.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for expressions that cannot be understood, columns that are not there,
/// values that do not fit, and for two source rows that change one target row or would be inserted
/// under one key (it names the key); those of [`crate::commit::commit`].
pub async fn merge(handle: &Handle, source: Rows, merge: &Merge, options: &Options) -> Result<Report> {
    let mut verb = MergeVerb {
        rows: source,
        collected: None,
        merge,
    };
    run(handle, options, &mut verb).await
}

struct MergeVerb<'a> {
    rows: Rows,
    collected: Option<Collected>,
    merge: &'a Merge,
}

#[async_trait]
impl Verb for MergeVerb<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Merge
    }

    async fn plan(&mut self, work: &mut Work) -> Result<()> {
        work.keep_lineage();
        let (ctx, source, plan) = self.prepare(work).await?;
        work.count("num_source_rows", source.rows());
        let prune = Arc::new(plan.prune(&work.snapshot.schema, &source)?);
        work.change.read = Some(if plan.by_source.is_empty() {
            Arc::clone(&prune)
        } else {
            Arc::new(Prune::everything())
        });

        let files = work.list(&prune).await?;
        let mut matching = Matching::new(ctx, &plan, &source, files);
        work.begin("scan");
        matching.matched(work).await?;
        matching.by_source(work).await?;
        matching.inserts(work).await?;
        let found = matching.found();
        matching.into_touched().apply_to(work, found).await
    }

    async fn find(&mut self, work: &mut Work, files: Vec<DataFile>) -> Result<Option<Found>> {
        let (ctx, source, plan) = self.prepare(work).await?;
        if !plan.by_source.is_empty() {
            return Ok(None);
        }
        let mut matching = Matching::new(ctx, &plan, &source, files).looking();
        matching.matched(work).await?;
        Ok(Some(matching.found()))
    }
}

impl MergeVerb<'_> {
    /// The source, read once, and what the merge means for it and the table as it is now.
    async fn prepare(&mut self, work: &mut Work) -> Result<(SessionContext, Source, Plan)> {
        let ctx = source::session_for_merge(work.options.memory_limit);
        let collected = match &self.collected {
            Some(collected) => collected,
            None => {
                let table = Arc::clone(&work.snapshot.schema);
                work.begin("source");
                let collected = Collected::read(&self.rows, &table, &ctx).await?;
                work.begin("plan");
                self.collected.insert(collected)
            }
        };
        let source = Source::new(collected, &work.snapshot.schema)?;
        let plan = Plan::new(self.merge, &work.snapshot.schema, source.schema())?;
        Ok((ctx, source, plan))
    }
}
