//! The machine under delete, update, merge and overwrite: rows that are touched go, by mask or by
//! rewriting their file.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;

use super::decide::Decider;
use super::moving::move_rows;
use super::options::Fate;
use super::work::Work;
use crate::error::{Error, Result};
use crate::model::schema::{FILE_COLUMN, POSITION_COLUMN};
use crate::model::{DataFile, RowMask, Snapshot};
use crate::planted::{self, Bug};
use crate::scan::{MetadataColumns, ScanReport, SnapshotTable, read_file_masks};
use crate::write::Origins;

/// The files that an operation reads, and of each the rows that it touched.
pub(super) struct Touched {
    files: Vec<DataFile>,
    index: HashMap<String, usize>,
    masks: Vec<RowMask>,
}

/// Rows of some files: those that an operation matches, and those of them that it makes disappear.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By path of the file. What the operation does depends on these rows being there.
    pub(super) matched: HashMap<String, RowMask>,
    /// By path of the file.
    pub(super) touched: HashMap<String, RowMask>,
    /// Those of a merge that come back with other values, as far as that is known, among others perhaps.
    pub(super) updated: HashMap<String, RowMask>,
}

/// `_file` and `_pos` of the rows of a batch.
pub(super) struct Places {
    files: DictionaryArray<Int32Type>,
    positions: Int64Array,
}

impl Places {
    /// Finds the two columns in a batch.
    pub(super) fn of(batch: &RecordBatch) -> Result<Self> {
        let paths = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let files = cast(&named(batch, FILE_COLUMN)?, &paths)?;
        let positions = named(batch, POSITION_COLUMN)?;
        Ok(Self {
            files: files.as_dictionary::<Int32Type>().clone(),
            positions: positions.as_primitive::<Int64Type>().clone(),
        })
    }

    /// The places as a writer wants to know them.
    pub(super) fn origins(&self) -> Origins {
        Origins {
            files: self.files.clone(),
            positions: self.positions.clone(),
        }
    }
}

impl Touched {
    /// No row is touched yet. `files` are those that the rows can be in.
    pub(super) fn new(files: Vec<DataFile>) -> Self {
        let index = files
            .iter()
            .enumerate()
            .map(|(i, f)| (f.path.clone(), i))
            .collect();
        Self {
            masks: vec![RowMask::new(); files.len()],
            files,
            index,
        }
    }

    /// The files.
    pub(super) fn files(&self) -> &[DataFile] {
        &self.files
    }

    /// Adds files that are not there yet.
    pub(super) fn extend(&mut self, files: Vec<DataFile>) {
        for file in files {
            if !self.index.contains_key(&file.path) {
                self.index.insert(file.path.clone(), self.files.len());
                self.files.push(file);
                self.masks.push(RowMask::new());
            }
        }
    }

    /// Touches rows; tells for each whether it was untouched before.
    pub(super) fn touch(&mut self, places: &Places) -> Result<Vec<bool>> {
        let mut fresh = Vec::with_capacity(places.positions.len());
        self.each(places, |mask, position| fresh.push(mask.insert(position)))?;
        Ok(fresh)
    }

    /// Tells for each row whether it is touched.
    pub(super) fn contains(&mut self, places: &Places) -> Result<Vec<bool>> {
        let mut found = Vec::with_capacity(places.positions.len());
        self.each(places, |mask, position| found.push(mask.contains(position)))?;
        Ok(found)
    }

    /// Number of touched rows.
    pub(super) fn rows(&self) -> u64 {
        self.masks.iter().map(RowMask::len).sum()
    }

    fn each(&mut self, places: &Places, mut visit: impl FnMut(&mut RowMask, u64)) -> Result<()> {
        let paths = places.files.values().as_string::<i32>();
        // Each path of the batch is looked up once.
        let mut found: Vec<Option<usize>> = vec![None; paths.len()];
        for (file, position) in places.files.keys().iter().zip(&places.positions) {
            let (Some(file), Some(position)) = (file, position) else {
                return Err(Error::invalid("the scan returned a row without its place", ""));
            };
            let file = file as usize;
            let at = match found[file] {
                Some(at) => at,
                None => {
                    let path = paths.value(file);
                    let at = self.index.get(path).ok_or_else(|| {
                        Error::invalid("the scan returned a row of a file not asked for", path)
                    })?;
                    *found[file].insert(*at)
                }
            };
            visit(&mut self.masks[at], position as u64);
        }
        Ok(())
    }

    /// The touched rows by path of their file.
    pub(super) fn by_file(&self) -> HashMap<String, RowMask> {
        let touched = self.files.iter().zip(&self.masks);
        touched
            .filter(|(_, mask)| !mask.is_empty())
            .map(|(file, mask)| (file.path.clone(), mask.clone()))
            .collect()
    }

    /// Makes the touched rows disappear: masks are staged, files removed or rewritten.
    pub(super) async fn apply(self, work: &mut Work) -> Result<()> {
        let touched = self.by_file();
        let matched = touched.clone();
        let found = Found {
            matched,
            touched,
            updated: HashMap::new(),
        };
        self.apply_to(work, found).await
    }

    /// The same for an operation that depends on more rows than it touches.
    pub(super) async fn apply_to(self, work: &mut Work, found: Found) -> Result<()> {
        let decider = Decider::new(work.options.strategy, &work.snapshot, work.change.operation)?;
        work.found = found;
        let (files, touched): (Vec<DataFile>, Vec<RowMask>) = self
            .files
            .into_iter()
            .zip(self.masks)
            .filter(|(_, mask)| !mask.is_empty())
            .unzip();
        if files.is_empty() {
            return Ok(());
        }
        let complete = complete_masks(work, &files, &touched).await?;
        let decided = files.iter().zip(&complete);
        let fates: Vec<Fate> = decided.map(|(file, mask)| decider.decide(file, mask)).collect();
        let updated = std::mem::take(&mut work.found.updated);
        work.note_gone(&files, &touched, &updated, fates.contains(&Fate::Rewrite))
            .await?;
        let mut to_mask = Vec::new();
        let mut to_rewrite = Vec::new();
        let files = files.into_iter().zip(fates);
        for (((file, fate), touched), complete) in files.zip(touched).zip(complete) {
            work.note_file(&file, touched.len(), fate);
            match fate {
                Fate::Remove => work.change.removed.push(file),
                Fate::Mask => to_mask.push((file, complete)),
                Fate::Rewrite => to_rewrite.push((file, touched)),
            }
        }
        rewrite(work, to_rewrite, decider).await?;
        stage_masks(work, to_mask).await
    }
}

/// Of each file, the rows masked so far and those touched now.
async fn complete_masks(work: &mut Work, files: &[DataFile], touched: &[RowMask]) -> Result<Vec<RowMask>> {
    let masked: Vec<DataFile> = files.iter().filter(|f| !f.masks.is_empty()).cloned().collect();
    let mut complete = touched.to_vec();
    if !masked.is_empty() && !planted::is(Bug::OldMaskForgotten) {
        let before = work.handle.format.masks(&work.snapshot, &masked).await?;
        let at = (0..files.len()).filter(|i| !files[*i].masks.is_empty());
        for (i, before) in at.zip(&before) {
            complete[i].union(before);
        }
    }
    Ok(complete)
}

/// Stages complete masks, with them those of new files, and notes them in the change.
pub(super) async fn stage_masks(work: &mut Work, mut masks: Vec<(DataFile, RowMask)>) -> Result<()> {
    if masks.is_empty() && !work.masks_new_files() {
        return Ok(());
    }
    work.begin("write");
    let before: Vec<DataFile> = masks.iter().map(|(file, _)| file.clone()).collect();
    if work.options.dry_run {
        let unchanged = before.clone();
        work.change.masked.extend(before.into_iter().zip(unchanged));
        return Ok(());
    }
    masks.extend(work.take_masked_anew().await?);
    let format = Arc::clone(&work.handle.format);
    let (snapshot, id) = (Arc::clone(&work.snapshot), work.change.commit_id.clone());
    // The new rows are complete: their files are closed meanwhile.
    let (masks, closed) = work
        .finish_files_during(format.stage_masks(&snapshot, masks, &id))
        .await;
    let after = masks.map(|(after, staged)| {
        work.change.staged.extend(staged);
        after
    });
    closed?;
    let mut after = after?;
    work.change.added.extend(after.split_off(before.len()));
    work.change.masked.extend(before.into_iter().zip(after));
    Ok(())
}

/// Writes the untouched rows of these files to new ones and removes the old.
async fn rewrite(work: &mut Work, files: Vec<(DataFile, RowMask)>, decider: Decider) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    work.begin("write");
    work.count("num_target_files_rewritten", files.len() as u64);
    let (files, touched): (Vec<DataFile>, Vec<RowMask>) = files.into_iter().unzip();
    let mut hidden = read_file_masks(&work.handle, &work.snapshot, &files).await?;
    for (hidden, touched) in hidden.iter_mut().zip(&touched) {
        hidden.union(touched);
    }
    // What is there already is not moved again.
    let there = work.take_ahead(&files, &hidden, decider).await;
    for (hidden, there) in hidden.iter_mut().zip(there) {
        hidden.union(&there);
    }
    let rest = files.iter().cloned().zip(hidden);
    let rest = rest.filter(|(file, hidden)| hidden.len() < file.rows);
    move_rows(work, rest.collect(), Some(decider)).await?;
    work.change.removed.extend(files);
    Ok(())
}

/// Exactly these files of the work's snapshot as a query, and what reading them costs.
pub(super) fn frame(
    work: &Work,
    ctx: &SessionContext,
    files: Vec<DataFile>,
    columns: MetadataColumns,
) -> Result<(DataFrame, Arc<ScanReport>)> {
    let table = scan(work, &work.snapshot, files, columns);
    let report = table.report();
    Ok((ctx.read_table(Arc::new(table))?, report))
}

fn scan(
    work: &Work,
    snapshot: &Arc<Snapshot>,
    files: Vec<DataFile>,
    columns: MetadataColumns,
) -> SnapshotTable {
    SnapshotTable::new(work.handle.clone(), Arc::clone(snapshot))
        .with_metadata_columns(columns)
        .with_files(files)
}

/// A column that a scan or join was asked for. Such columns come last: a column of the user's that has
/// the same name is another one.
pub(super) fn named(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    let schema = batch.schema_ref();
    match schema.fields().iter().rposition(|field| field.name() == name) {
        Some(index) => Ok(Arc::clone(batch.column(index))),
        None => Err(Error::invalid(format!("the scan returned no column {name}"), "")),
    }
}

/// The table's columns of a batch that has more.
pub(super) fn table_columns(batch: &RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    let count = schema.fields().len();
    Ok(batch.project(&(0..count).collect::<Vec<_>>())?)
}
