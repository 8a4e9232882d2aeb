//! Rewrites small and masked files, rows unchanged.
//!
//! ```text
//! plan    which files are worth rewriting, which of them together
//! run     how the files of a group are rewritten
//! ```

mod plan;
mod run;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::delete::understood;
use super::work::{self, Verb, Work};
use super::{Options, Report};
use crate::error::Result;
use crate::format::Handle;
use crate::model::{OperationKind, Prune};
use plan::{Group, Groups, groups, lots};

/// What to compact.
#[derive(Debug, Clone, Default)]
pub struct Compact {
    /// Size of the new files in bytes; `None` for the operation's or the table's own setting.
    pub target_file_bytes: Option<u64>,
    /// Only files that may hold a row for which this is true.
    pub predicate: Option<String>,
}

/// Rewrites, per partition, files that are small (below three quarters of the target size) where
/// that makes fewer of them, and files with masked rows. Rows, their order within a file and their
/// ids stay. What is already good is left alone: a second run does nothing.
///
/// # Errors
/// [`Error::Invalid`] for a predicate that cannot be understood; those of [`crate::commit::commit`].
pub async fn compact(handle: &Handle, compact: &Compact, options: &Options) -> Result<Report> {
    work::run(handle, options, &mut CompactVerb { compact }).await
}

struct CompactVerb<'a> {
    compact: &'a Compact,
}

impl Verb for CompactVerb<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Compact
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            work.settings.for_lasting_files(self.compact.target_file_bytes);
            work.keep_lineage();
            let target = work.settings.target_file_bytes(&work.snapshot.properties)?;
            let prune = match &self.compact.predicate {
                Some(predicate) => {
                    Prune::matching(understood(work, predicate)?, Arc::clone(&work.snapshot.schema))?
                }
                None => Prune::everything(),
            };
            let files = work.list(&Arc::new(prune)).await?;
            let Groups { mut chosen, left } = groups(files, target);
            let is_of_today =
                |group: &Group| (group.files.first()).is_some_and(|file| file.spec_id == work.snapshot.spec_id);
            let lots = if chosen.iter().all(is_of_today) {
                lots(chosen)
            } else {
                // Rows that were partitioned otherwise come to lie beside those of small files, in partitions that
                // nobody knows before: one writer for all of them, so that a second run finds nothing to do.
                chosen.extend(left.into_iter().filter(is_of_today));
                vec![chosen]
            };
            for lot in lots {
                run::rewrite(work, self.compact, lot).await?;
            }
            Ok(())
        })
    }
}
