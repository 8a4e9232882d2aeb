//! One commit of a compaction: its groups are brought up to date, rewritten, and fitted to commits that come first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::Compact;
use super::carry::{Carried, carry};
use super::plan::{Group, Rules, lots, ordered_lots, partition};
use crate::commit::newest;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{Change, DataFile, MetadataChange, OperationKind, Prune, RowMask, Snapshot, Version};
use crate::operations::cluster::{Order, move_sorted};
use crate::operations::moving::move_rows;
use crate::operations::work::{Verb, Work};
use crate::planted::{self, Bug};
use crate::scan::read_file_masks;
use crate::write::RowMap;

/// The groups of commits that nobody works on yet, as they are in one version.
pub(super) struct Course {
    at: Arc<Snapshot>,
    /// A version that a commit of ours made right after `at`.
    own: Option<Version>,
    queue: VecDeque<Vec<Group>>,
    /// What was tried together and failed, to be tried one by one.
    again: VecDeque<Part>,
}

/// The groups of one commit, as they are in one version.
#[derive(Clone)]
pub(super) struct Part {
    at: Arc<Snapshot>,
    pub(super) groups: Vec<Group>,
}

/// One commit.
pub(super) struct Batch<'a> {
    compact: &'a Compact,
    pub(super) part: Part,
    /// Of the last plan: the groups that are rewritten, and those that are not worth it any more.
    pub(super) rewritten: Vec<Group>,
    pub(super) gone: Vec<Group>,
    /// Partitions and bytes of the new files.
    pub(super) written: Vec<((i32, Vec<ScalarValue>), u64)>,
    map: Option<RowMap>,
    carried: Carried,
}

impl Course {
    /// Groups that were planned on a snapshot.
    pub(super) fn new(at: Arc<Snapshot>, queue: VecDeque<Vec<Group>>) -> Self {
        Self {
            at,
            own: None,
            queue,
            again: VecDeque::new(),
        }
    }

    /// Commits that are still to be begun.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.again.len()
    }

    /// The groups of the next commit. Those that wait are brought up to date, so that what is read of other commits
    /// does not grow with the number of ours.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub(super) async fn next(&mut self, handle: &Handle, branch: Option<&str>) -> Result<Option<Part>> {
        if let Some(part) = self.again.pop_front() {
            return Ok(Some(part));
        }
        // After the last one nothing is asked for: a run that did all its work does not fail by what it need not know.
        if self.own.is_some() && !self.queue.is_empty() {
            let newest = newest(handle, branch).await?;
            if self.own != Some(newest.version) {
                follow(handle, &self.at, &newest, self.queue.iter_mut().flatten()).await?;
            }
            (self.at, self.own) = (newest, None);
        }
        let at = Arc::clone(&self.at);
        Ok(self.queue.pop_front().map(|groups| Part { at, groups }))
    }

    /// What is left to be begun is not.
    pub(super) fn rest(&mut self) -> Vec<Group> {
        let again = self.again.drain(..).flat_map(|part| part.groups);
        again.chain(self.queue.drain(..).flatten()).collect()
    }

    /// Each group of a commit is to be tried by itself.
    pub(super) fn try_apart(&mut self, part: Part) {
        for group in part.groups.into_iter().rev() {
            self.again.push_front(Part {
                at: Arc::clone(&part.at),
                groups: vec![group],
            });
        }
    }

    /// A part was committed, and this is its version. If it is the one right after ours, by the only attempt, nobody
    /// else committed in between, and it did nothing to the groups that wait.
    pub(super) fn committed(&mut self, part: &Part, version: Version, attempts: u32) {
        let own = attempts == 1 && is_same(&part.at, &self.at) || planted::is(Bug::GroupsLeftBehind);
        // Of any other commit it is only known that there was one.
        self.own = Some(if own { version } else { UNKNOWN });
    }
}

/// No version has this number.
const UNKNOWN: Version = Version::MIN;

fn is_same(one: &Snapshot, other: &Snapshot) -> bool {
    (one.version, one.state) == (other.version, other.state)
}

/// Brings the files of groups from what they are in one version to what they are in a later one; those that are not there
/// any more are left out.
///
/// # Errors
/// When the metadata cannot be read.
async fn follow(
    handle: &Handle,
    from: &Arc<Snapshot>,
    newest: &Arc<Snapshot>,
    groups: impl Iterator<Item = &mut Group>,
) -> Result<()> {
    if is_same(from, newest) {
        return Ok(());
    }
    let groups: Vec<&mut Group> = groups.collect();
    let news = match handle.format.changes(from, newest).await {
        Ok(winners) if winners.iter().all(is_plain) => news_of(winners),
        Ok(_) | Err(Error::Conflict { .. }) => listed(handle, newest, &groups).await?,
        Err(error) => return Err(error),
    };
    for group in groups {
        for file in std::mem::take(&mut group.files) {
            match news.get(name(&file)) {
                None => group.files.push(file),
                Some(Some(now)) => group.files.push(now.clone()),
                Some(None) => group.lost.push(file),
            }
        }
    }
    Ok(())
}

/// What the files of groups are in a version.
async fn listed(handle: &Handle, newest: &Arc<Snapshot>, groups: &[&mut Group]) -> Result<News> {
    let files = groups.iter().flat_map(|group| &group.files);
    let mut news: News = files.map(|file| (name(file).to_owned(), None)).collect();
    let mut listing = handle.format.files(newest, Arc::new(Prune::everything()));
    while let Some(file) = listing.try_next().await? {
        if let Some(now) = news.get_mut(name(&file)) {
            *now = Some(file);
        }
    }
    Ok(news)
}

/// Files that are otherwise than they were, by name; `None` for those that are gone.
type News = HashMap<String, Option<DataFile>>;

/// What makes a file the same file in two versions.
fn name(file: &DataFile) -> &str {
    if file.path.is_empty() {
        &file.recorded
    } else {
        &file.path
    }
}

/// Whether the files that a commit names are all that it changed.
fn is_plain(winner: &Change) -> bool {
    let reshaped = MetadataChange {
        properties: false,
        ..winner.metadata
    };
    reshaped == MetadataChange::default()
        && winner.restore.is_none()
        && winner.operation != OperationKind::Restore
}

fn news_of(winners: Vec<Change>) -> News {
    let mut news = News::new();
    for winner in winners {
        news.extend(
            winner
                .removed
                .into_iter()
                .map(|file| (name(&file).to_owned(), None)),
        );
        let now = winner
            .masked
            .into_iter()
            .map(|(_, after)| after)
            .chain(winner.added);
        news.extend(now.map(|file| (name(&file).to_owned(), Some(file))));
    }
    news
}

impl<'a> Batch<'a> {
    /// The commit of these groups.
    pub(super) fn new(compact: &'a Compact, part: Part) -> Self {
        Self {
            compact,
            part,
            rewritten: Vec::new(),
            gone: Vec::new(),
            written: Vec::new(),
            map: None,
            carried: Carried::new(),
        }
    }

    /// Rows that went while their files were rewritten.
    pub(super) fn rows_carried(&self) -> u64 {
        self.carried.values().map(RowMask::len).sum()
    }
}

impl Verb for Batch<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Compact
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            (self.map, self.carried) = (None, Carried::new());
            let part = &mut self.part;
            follow(&work.handle, &part.at, &work.snapshot, part.groups.iter_mut()).await?;
            part.at = Arc::clone(&work.snapshot);
            work.settings.for_lasting_files(self.compact.target_file_bytes);
            work.keep_lineage();
            if work.snapshot.capabilities.masks {
                work.settings.trace_rows(true);
            }
            let target = work.settings.target_file_bytes(&work.snapshot.properties)?;
            let rules = Rules::new(self.compact, target, work.snapshot.spec_id);
            let groups = self.part.groups.iter().cloned();
            (self.rewritten, self.gone) = groups.partition(|group| rules.is_worth_rewriting(group));
            let order = Order::of(work, &self.compact.order).await?;
            let lots = match &order {
                Some(_) => ordered_lots(self.rewritten.clone()),
                None => lots(self.rewritten.clone()),
            };
            for lot in lots {
                rewrite(work, order.as_ref(), lot).await?;
            }
            self.map = work.moved.take();
            let added = work.change.added.iter();
            self.written = added.map(|file| (partition(file), file.bytes)).collect();
            Ok(())
        })
    }

    fn carry<'a>(
        &'a mut self,
        work: &'a mut Work,
        mine: &'a Change,
        base: &'a Arc<Snapshot>,
        winners: &'a [Change],
    ) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            let Some(map) = &self.map else {
                return Ok(None);
            };
            let carried = carry(work, map, &self.carried, mine, base, winners).await?;
            Ok(carried.map(|(change, carried)| {
                self.carried = carried;
                change
            }))
        })
    }
}

/// Rewrites the groups of one lot: their visible rows go to new files, the old files are removed.
///
/// # Errors
/// When the number of rows would change; those of reading and writing.
async fn rewrite(work: &mut Work, order: Option<&Order>, lot: Vec<Group>) -> Result<()> {
    work.begin("write");
    let files: Vec<DataFile> = lot.into_iter().flat_map(|group| group.files).collect();
    let hidden = read_file_masks(&work.handle, &work.snapshot, &files).await?;
    let read = write_rows(work, order, files.iter().cloned().zip(hidden).collect()).await?;
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

/// Writes the rows of these files that are not hidden to new files, in this order, else in that of the files and of the
/// rows in each; returns how many.
async fn write_rows(work: &mut Work, order: Option<&Order>, files: Vec<(DataFile, RowMask)>) -> Result<u64> {
    match order {
        Some(order) => move_sorted(work, order, files).await,
        None => move_rows(work, files, None).await,
    }
}
