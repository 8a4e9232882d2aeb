//! Rewrites small and masked files, rows unchanged.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;

use super::delete::understood;
use super::moving::move_rows;
use super::work::{Verb, Work, run};
use super::{Options, Report};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{DataFile, OperationKind, Prune};
use crate::scan::read_file_masks;

/// Bytes and partitions that are rewritten at once: few enough that the writer need not close files early.
const LOT_BYTES: u64 = 64 << 20;
const LOT_PARTITIONS: usize = 128;

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
    run(handle, options, &mut CompactVerb { compact }).await
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
            let (mut chosen, left) = groups(files, target);
            let is_of_today = |group: &Vec<DataFile>| group[0].spec_id == work.snapshot.spec_id;
            let lots = if chosen.iter().all(is_of_today) {
                lots(chosen)
            } else {
                // Rows that were partitioned otherwise come to lie beside those of small files, in partitions that
                // nobody knows before: one writer for all of them, so that a second run finds nothing to do.
                chosen.extend(left.into_iter().filter(is_of_today));
                vec![chosen.concat()]
            };
            for files in lots {
                rewrite(work, files).await?;
            }
            Ok(())
        })
    }
}

/// Groups that are rewritten by one scan and one writer, which splits them again: planning a scan for
/// each small partition would take longer than reading it.
fn lots(groups: Vec<Vec<DataFile>>) -> Vec<Vec<DataFile>> {
    let mut lots: Vec<Vec<DataFile>> = Vec::new();
    let (mut bytes, mut partitions) = (0, 0);
    for group in groups {
        let more: u64 = group.iter().map(|f| f.bytes).sum();
        match lots.last_mut() {
            Some(lot) if bytes + more <= LOT_BYTES && partitions < LOT_PARTITIONS => {
                lot.extend(group);
                bytes += more;
                partitions += 1;
            }
            _ => {
                lots.push(group);
                (bytes, partitions) = (more, 1);
            }
        }
    }
    lots
}

/// The files worth rewriting, those of one partition together, in the order of their listing; then those that are
/// small and by themselves not worth it.
fn groups(files: Vec<DataFile>, target: u64) -> (Vec<Vec<DataFile>>, Vec<Vec<DataFile>>) {
    let mut index: HashMap<(i32, Vec<ScalarValue>), usize> = HashMap::new();
    let mut groups: Vec<Vec<DataFile>> = Vec::new();
    for file in files {
        let masked = is_masked(&file);
        if !masked && file.bytes >= target / 4 * 3 {
            continue;
        }
        let key = (file.spec_id, file.partition.clone());
        let at = *index.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[at].push(file);
    }
    groups.into_iter().partition(|group| {
        let bytes: u64 = group.iter().map(|f| f.bytes).sum();
        let fewer = bytes.div_ceil(target) < group.len() as u64;
        fewer || group.iter().any(is_masked)
    })
}

/// The files that compaction would rewrite now, where data files are to have so many bytes.
pub(super) fn pending(files: Vec<DataFile>, target: u64) -> Vec<DataFile> {
    groups(files, target).0.concat()
}

fn is_masked(file: &DataFile) -> bool {
    !file.masks.is_empty() || !file.equality_deletes.is_empty()
}

async fn rewrite(work: &mut Work, files: Vec<DataFile>) -> Result<()> {
    work.begin("write");
    let hidden = read_file_masks(&work.handle, &work.snapshot, &files).await?;
    let read = move_rows(work, files.iter().cloned().zip(hidden).collect(), None).await?;
    let written = work.finish_files().await?;
    if written != read {
        return Err(Error::invalid(
            format!("compaction would change the number of rows: {read} were read, {written} written"),
            files.first().map_or("", |f| f.path.as_str()),
        )
        .with_hint("nothing was committed; the metadata of these files does not agree with their content"));
    }
    work.change.removed.extend(files);
    Ok(())
}
