//! Merge: source rows against target rows.
//!
//! ```text
//! source    collected within the memory limit, columns of the table's names brought to its types
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
mod plan;
mod source;
mod spec;

use std::sync::Arc;

use async_trait::async_trait;

pub use cdc::{Cdc, CdcColumns};
pub use spec::{Action, Clause, Merge, OnDuplicate, When};

use super::work::{Verb, Work, run};
use super::{Options, Report, Rows};
use crate::error::Result;
use crate::format::Handle;
use crate::model::{OperationKind, Prune};
use feed::Feed;
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
        let ctx = source::session_for_merge(work.options.memory_limit);
        let table = Arc::clone(&work.snapshot.schema);
        if self.collected.is_none() {
            work.begin("source");
            self.collected = Some(Collected::read(&self.rows, self.merge.cdc.as_ref(), &table, &ctx).await?);
            work.begin("plan");
        }
        let Some(collected) = &self.collected else {
            return Ok(());
        };
        let source = Source::new(collected, &table)?;
        work.count("num_source_rows", source.rows());
        let feed = Feed::new(self.merge, collected.own(), &table, source.schema())?;
        let plan = Plan::new(self.merge, &feed, &table, source.schema())?;
        let source = feed.settle(source, &plan.keys, &ctx)?;
        let prune = Arc::new(plan.prune(&table, &source)?);
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
        matching.into_touched().apply(work).await
    }
}
