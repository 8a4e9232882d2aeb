//! The frame around every verb: plan, commit, clean up, report.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::adapt::adapt;
use super::ahead::{Ahead, delete_staged};
use super::changed::{Changed, RowChange};
use super::rows::Found;
use super::rules::Rules;
use super::settings::Settings;
use super::summary::{Summary, short_name};
use super::{Fate, Options, Report, TouchedFile};
use crate::commit::{CommitOptions, Plan, commit, newest};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::schema::{LAST_UPDATED_COLUMN, ROW_ID_COLUMN};
use crate::model::{
    Change, CommitId, DataFile, Evolved, MetadataChange, OperationKind, Prune, RowMask, Snapshot,
};
use crate::store::clock;
use crate::write::{Origins, RowMap, TableWriter, conform};

/// An operation: how it turns the snapshot of `work` into a change. Called again when another
/// commit makes the plan wrong, so it must keep what it needs.
pub(super) trait Verb: Send {
    /// What kind of operation this is.
    fn kind(&self) -> OperationKind;

    /// Fills `work.change`; an empty change means that there is nothing to do.
    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>>;

    /// Fits `mine`, which was planned last and on `base`, to the winners since, in a way of its own; `work` is for the
    /// newest version. `None`: as other operations are fitted, or else planned again.
    fn carry<'a>(
        &'a mut self,
        _work: &'a mut Work,
        _mine: &'a Change,
        _base: &'a Arc<Snapshot>,
        _winners: &'a [Change],
    ) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move { Ok(None) })
    }

    /// The rows of these files that the operation would match and touch; nothing is written. `None`,
    /// whatever files there are, if what it does to a row depends on other rows of the table.
    fn find<'a>(
        &'a mut self,
        _work: &'a mut Work,
        _files: Vec<DataFile>,
    ) -> BoxFuture<'a, Result<Option<Found>>> {
        Box::pin(async move { Ok(None) })
    }
}

/// One plan in the making: the snapshot it is for, the change it has become so far, what was staged.
pub(super) struct Work {
    pub(super) handle: Handle,
    pub(super) options: Options,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) change: Change,
    /// Writers opened so far: their files have names of their own.
    writers: u32,
    writer: Option<TableWriter>,
    /// Row groups that are being copied before it is known which rows go.
    pub(super) ahead: Option<Ahead>,
    /// Where rows that moved are in the files written so far; `None` once that is not known of all.
    pub(super) moved: Option<RowMap>,
    /// Rows of new files that are masked, by path.
    pub(super) masked_anew: BTreeMap<String, RowMask>,
    /// New files carry the lineage columns.
    lineage: bool,
    /// What the table demands of new rows, of the columns it was made for.
    rules: Option<(SchemaRef, Arc<Rules>)>,
    /// Rows that are changed, for who follows the table.
    pub(super) changed: Changed,
    /// How data files are written.
    pub(super) settings: Settings,
    /// The rows that the change depends on, for when other commits come first.
    pub(super) found: Found,
    pub(super) summary: Summary,
}

/// Where rows that are written come from, as far as their identity goes.
pub(super) enum Origin<'a> {
    /// They are new.
    New,
    /// They are new versions of rows with these ids.
    Updated(Option<&'a ArrayRef>),
    /// They are the same rows in another file: ids and sequence numbers of their last change, and where they were, if
    /// that is to be noted.
    Moved(Option<(&'a ArrayRef, &'a ArrayRef)>, Option<&'a Origins>),
}

/// Runs a verb to its report.
pub(super) fn run<'a>(
    handle: &'a Handle,
    options: &'a Options,
    verb: &'a mut dyn Verb,
) -> BoxFuture<'a, Result<Report>> {
    Box::pin(async move {
        if options.dry_run {
            dry_run(handle, options, verb).await
        } else {
            real_run(handle, options, verb).await
        }
    })
}

async fn real_run(handle: &Handle, options: &Options, verb: &mut dyn Verb) -> Result<Report> {
    let kind = verb.kind();
    let commit_options = CommitOptions {
        isolation: options.isolation,
        max_attempts: options.max_attempts,
        token: options.token.clone(),
        branch: options.branch.clone(),
    };
    let mut planner = Planner {
        handle,
        options,
        verb,
        plans: 0,
        found: Found::default(),
        summary: Summary::default(),
    };
    let committed = commit(handle, &commit_options, &mut planner).await?;
    let mut summary = planner.summary;
    summary.end();
    if committed.change.is_none() && committed.already.is_some() {
        summary.metrics.clear();
        summary.files.clear();
        summary.forget_columns();
    }
    Ok(Report {
        operation: kind.name(),
        version: committed.snapshot.version,
        committed: committed.change.is_some(),
        already: committed.already,
        dry_run: false,
        attempts: committed.attempts,
        plans: planner.plans,
        metrics: summary.metrics,
        files: summary.files,
        columns_added: summary.columns_added,
        columns_widened: summary.columns_widened,
        changes: summary.changes,
        phases: summary.phases,
        groups: Vec::new(),
        order: None,
    })
}

/// A verb as the commit loop sees it.
struct Planner<'a> {
    handle: &'a Handle,
    options: &'a Options,
    verb: &'a mut dyn Verb,
    plans: u32,
    /// Of the last plan.
    found: Found,
    summary: Summary,
}

impl Plan for Planner<'_> {
    fn plan<'a>(&'a mut self, base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            self.plans += 1;
            let mut work = Work::new(self.handle, self.options, self.verb.kind(), base, id);
            work.plan(self.verb).await?;
            self.found = work.found;
            self.summary = work.summary;
            self.summary.begin("commit");
            Ok((!work.change.is_empty()).then_some(work.change))
        })
    }

    fn adapt<'a>(
        &'a mut self,
        change: &'a Change,
        base: &'a Arc<Snapshot>,
        newest: &'a Arc<Snapshot>,
        winners: &'a [Change],
    ) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            let id = change.commit_id.clone();
            let mut work = Work::new(
                self.handle,
                self.options,
                self.verb.kind(),
                Arc::clone(newest),
                id,
            );
            let mut adapted = self.verb.carry(&mut work, change, base, winners).await;
            if matches!(adapted, Ok(None)) {
                adapted = adapt(&mut work, self.verb, &mut self.found, change, base, winners).await;
            }
            if adapted.is_err() {
                work.discard().await;
            }
            adapted
        })
    }
}

/// Plans on the newest snapshot, then removes what was staged.
async fn dry_run(handle: &Handle, options: &Options, verb: &mut dyn Verb) -> Result<Report> {
    let kind = verb.kind();
    let snapshot = newest(handle, options.branch.as_deref()).await?;
    let mut report = Report {
        operation: kind.name(),
        version: snapshot.version,
        committed: false,
        already: None,
        dry_run: true,
        attempts: 0,
        plans: 1,
        metrics: BTreeMap::new(),
        files: Vec::new(),
        columns_added: Vec::new(),
        columns_widened: Vec::new(),
        changes: Vec::new(),
        phases: Vec::new(),
        groups: Vec::new(),
        order: None,
    };
    if let Some(token) = &options.token {
        report.already = handle.format.find_token(&snapshot, token).await?;
        if report.already.is_some() {
            return Ok(report);
        }
    }
    let mut work = Work::new(handle, options, kind, snapshot, clock::new_commit_id());
    work.plan(verb).await?;
    work.discard().await;
    work.summary.end();
    report.metrics = work.summary.metrics;
    report.files = work.summary.files;
    report.columns_added = work.summary.columns_added;
    report.columns_widened = work.summary.columns_widened;
    report.changes = work.summary.changes;
    report.phases = work.summary.phases;
    Ok(report)
}

impl Work {
    pub(super) fn new(
        handle: &Handle,
        options: &Options,
        kind: OperationKind,
        snapshot: Arc<Snapshot>,
        id: CommitId,
    ) -> Self {
        let mut change = Change::new(kind, id);
        change.token.clone_from(&options.token);
        let changed = Changed::new(&snapshot, kind, options.dry_run);
        Self {
            handle: handle.clone(),
            options: options.clone(),
            settings: Settings::new(options, changed.is_wanted()),
            changed,
            snapshot,
            change,
            writers: 0,
            writer: None,
            ahead: None,
            moved: Some(RowMap::default()),
            masked_anew: BTreeMap::new(),
            lineage: false,
            rules: None,
            found: Found::default(),
            summary: Summary::default(),
        }
    }

    /// Plans, closes the open writer, and removes what was staged if that fails.
    async fn plan(&mut self, verb: &mut dyn Verb) -> Result<()> {
        self.handle.format.check_writable(&self.snapshot)?;
        self.begin("plan");
        let mut planned = verb.plan(self).await;
        self.drop_ahead().await;
        if planned.is_ok() {
            planned = self.finish_writer().await;
        }
        if planned.is_ok() {
            planned = self.finish_changed().await;
        }
        match planned {
            Ok(()) => {
                if self.change.is_without_files() && self.change.operation != OperationKind::Alter {
                    // Columns without rows are not what was asked for.
                    self.change.schema = None;
                    self.change.metadata = MetadataChange::default();
                    self.summary.forget_columns();
                }
                self.summarise();
                Ok(())
            }
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    /// Notes columns that this plan gives to the table.
    pub(super) fn note_columns(&mut self, evolved: Evolved) {
        self.summary.columns_added = evolved.added;
        self.summary.columns_widened = evolved.widened;
    }

    /// Notes what this plan changes about the table's definition.
    pub(super) fn note_change(&mut self, change: String) {
        self.summary.changes.push(change);
    }

    /// Deletes everything staged. Nothing was published, so nothing can need it.
    async fn discard(&mut self) {
        let mut staged = std::mem::take(&mut self.change.staged);
        if let Some(mut writer) = self.writer.take() {
            staged.extend(writer.abandon().await);
        }
        staged.extend(self.abandon_changed().await);
        delete_staged(&self.handle, &staged).await;
    }

    fn summarise(&mut self) {
        let change = &self.change;
        if change.operation == OperationKind::Alter {
            // It touches no file.
            return;
        }
        let metrics = &mut self.summary.metrics;
        for (name, count) in [
            ("num_target_files_added", change.added.len()),
            ("num_target_files_removed", change.removed.len()),
            ("num_target_files_masked", change.masked.len()),
        ] {
            *metrics.entry(name).or_default() += count as u64;
        }
        let written: u64 = change.added.iter().map(|f| f.bytes).sum();
        *metrics.entry("bytes_written").or_default() += written;
        if self.change.operation == OperationKind::Merge {
            // The conflict rules ask whether anything was inserted.
            metrics.entry("num_target_rows_inserted").or_default();
        }
        self.change.metrics = metrics
            .iter()
            // What the process needed says nothing about the table.
            .filter(|(name, _)| **name != "memory_predicted")
            .map(|(name, value)| (short_name(name).to_owned(), *value))
            .collect();
    }

    /// Adds to a figure of the report.
    pub(super) fn count(&mut self, name: &'static str, by: u64) {
        *self.summary.metrics.entry(name).or_default() += by;
    }

    /// Notes what becomes of a file.
    pub(super) fn note_file(&mut self, file: &DataFile, touched: u64, fate: Fate) {
        self.summary.files.push(TouchedFile {
            path: self.handle.store.shown(&file.path),
            rows: file.rows,
            bytes: file.bytes,
            touched,
            fate,
        });
    }

    /// Starts the next phase of the report.
    pub(super) fn begin(&mut self, phase: &'static str) {
        self.summary.begin(phase);
    }

    /// Files written from now on store row ids, where the table has them.
    pub(super) fn keep_lineage(&mut self) {
        self.lineage = self.snapshot.lineage.is_some();
    }

    /// Whether row ids are stored in new files.
    pub(super) fn lineage(&self) -> bool {
        self.lineage
    }

    /// The data files that may hold rows asked for. Counts what was skipped.
    pub(super) async fn list(&mut self, prune: &Arc<Prune>) -> Result<Vec<DataFile>> {
        use std::sync::atomic::Ordering::Relaxed;
        let listing = self.handle.format.files(&self.snapshot, Arc::clone(prune));
        let files: Vec<DataFile> = listing.try_collect().await?;
        let counts = prune.counts();
        // What a manifest tells of its files are ranges of their partition values.
        let by_partition =
            counts.skipped_by_partition.load(Relaxed) + counts.files_in_skipped_manifests.load(Relaxed);
        let by_statistics = counts.skipped_by_statistics.load(Relaxed);
        // The last listing of an operation is the widest.
        self.summary.metrics.extend([
            ("num_target_files_scanned", files.len() as u64),
            (
                "num_target_files_skipped_during_scan",
                by_partition + by_statistics,
            ),
            ("num_target_files_skipped_by_partition", by_partition),
            ("num_target_files_skipped_by_statistics", by_statistics),
        ]);
        Ok(files)
    }

    /// Makes new rows fit the table ([`Rules::fit`]); `before` is how many rows of the same input came before.
    pub(super) fn fit(&mut self, rows: &RecordBatch, before: Option<u64>) -> Result<RecordBatch> {
        let rules = match &self.rules {
            Some((schema, rules)) if Arc::ptr_eq(schema, &self.snapshot.schema) => Arc::clone(rules),
            _ => {
                let rules = Arc::new(Rules::of(&self.snapshot)?);
                self.rules = Some((Arc::clone(&self.snapshot.schema), Arc::clone(&rules)));
                rules
            }
        };
        rules.fit(rows, before)
    }

    /// Makes rows fit the table's columns and writes them to new data files.
    ///
    /// # Errors
    /// Those of [`Rules::fit`], and those of writing.
    pub(super) async fn write(&mut self, rows: &RecordBatch, origin: Origin<'_>) -> Result<()> {
        let rows = match origin {
            Origin::New | Origin::Updated(_) => self.fit(rows, None)?,
            Origin::Moved(..) => conform(rows, &self.snapshot.schema)?,
        };
        self.write_fitting(rows, origin).await
    }

    /// Writes rows that have the table's columns to new data files.
    pub(super) async fn write_fitting(&mut self, mut rows: RecordBatch, origin: Origin<'_>) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        match origin {
            Origin::New if self.changed.is_on() => self.note_rows(&rows, RowChange::Insert).await?,
            Origin::Updated(_) if self.changed.is_on() => self.note_rows(&rows, RowChange::After).await?,
            _ => {}
        }
        let places = match &origin {
            Origin::Moved(_, places) => *places,
            _ => None,
        };
        if self.lineage {
            rows = with_lineage(&rows, origin)?;
        }
        match places {
            Some(places) => self.writer()?.write_from(&rows, places).await?,
            None => self.writer()?.write(&rows).await?,
        }
        self.count("num_output_rows", rows.num_rows() as u64);
        Ok(())
    }

    /// Whether rows of new files are masked.
    pub(super) fn masks_new_files(&self) -> bool {
        !self.masked_anew.is_empty()
    }

    /// The new files of which rows are masked, and these rows. Files are closed for it; those returned are not among
    /// the added ones any more.
    pub(super) async fn take_masked_anew(&mut self) -> Result<Vec<(DataFile, RowMask)>> {
        if self.masked_anew.is_empty() {
            return Ok(Vec::new());
        }
        self.finish_files().await?;
        let mut masks = std::mem::take(&mut self.masked_anew);
        let added = std::mem::take(&mut self.change.added).into_iter();
        let (to_mask, others) = added.partition::<Vec<_>, _>(|file| masks.contains_key(&file.path));
        self.change.added = others;
        let to_mask = to_mask.into_iter().map(|file| {
            let mask = masks.remove(&file.path).unwrap_or_default();
            (file, mask)
        });
        let to_mask = to_mask.collect();
        match masks.first_key_value() {
            Some((path, _)) => Err(Error::invalid(
                "a row group was copied to a file that is not there",
                path,
            )),
            None => Ok(to_mask),
        }
    }

    /// The writer of new data files.
    pub(super) fn writer(&mut self) -> Result<&mut TableWriter> {
        if self.writer.is_none() {
            self.writer = Some(self.new_writer()?);
        }
        let missing = || Error::invalid("no data file can be written", "");
        self.writer.as_mut().ok_or_else(missing)
    }

    /// Another writer of data files.
    pub(super) fn new_writer(&mut self) -> Result<TableWriter> {
        let options = self
            .settings
            .write_options(&self.snapshot.properties, self.lineage)?;
        let id = &self.change.commit_id;
        let naming = match self.writers {
            0 => id.clone(),
            n => CommitId(format!("{id}-{n}")),
        };
        self.writers += 1;
        TableWriter::new(
            self.handle.store.clone(),
            Arc::clone(&self.snapshot),
            naming,
            options,
        )
    }

    /// Closes the files written so far and adds them to the change. Returns the rows in them.
    pub(super) async fn finish_files(&mut self) -> Result<u64> {
        self.finish_files_during(std::future::ready(())).await.1
    }

    /// The same while something else is done; returns what came of both.
    pub(super) async fn finish_files_during<T>(
        &mut self,
        other: impl Future<Output = T>,
    ) -> (T, Result<u64>) {
        let Some(mut writer) = self.writer.take() else {
            return (other.await, Ok(0));
        };
        let (other, written) = futures::join!(other, writer.finish());
        self.change.staged.extend(writer.staged());
        let rows = written.map(|written| {
            self.change.added.extend(written.files);
            let moved = self.moved.take().zip(written.moved);
            self.moved = moved.and_then(|(all, new)| all.with(new));
            written.rows
        });
        (other, rows)
    }

    async fn finish_writer(&mut self) -> Result<()> {
        if self.writer.is_some() {
            self.begin("write");
            self.finish_files().await?;
        }
        Ok(())
    }
}

/// The table's columns, then row ids and sequence numbers of the last change.
fn with_lineage(rows: &RecordBatch, origin: Origin<'_>) -> Result<RecordBatch> {
    let unknown = || Arc::new(Int64Array::new_null(rows.num_rows())) as ArrayRef;
    let (ids, updated) = match origin {
        Origin::New | Origin::Updated(None) | Origin::Moved(None, _) => (unknown(), unknown()),
        Origin::Updated(Some(ids)) => (Arc::clone(ids), unknown()),
        Origin::Moved(Some((ids, updated)), _) => (Arc::clone(ids), Arc::clone(updated)),
    };
    let mut columns = rows.columns().to_vec();
    columns.push(ids);
    columns.push(updated);
    Ok(RecordBatch::try_new(lineage_schema(rows.schema_ref()), columns)?)
}

fn lineage_schema(schema: &Schema) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    for name in [ROW_ID_COLUMN, LAST_UPDATED_COLUMN] {
        fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
    }
    Arc::new(Schema::new(fields))
}
