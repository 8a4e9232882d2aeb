//! Rows that a commit changes, in files of their own (`Change::change_files`), for readers who follow a table change by
//! change. Only where the table asks for them, and only in commits whose data files and masks do not tell already:
//!
//! ```text
//! append, compact, restore     never: files that come and go, and masks that grow, say it all
//! delete, overwrite            if a file is rewritten: rows that only moved look like new ones then
//! update, merge                always: which row became which is nowhere else
//! ```
//!
//! New rows and new versions of rows are noted as they are written (`Work::write`). What they were before is read once
//! more, by the positions of the rows that go, when it is known which these are (`Touched::apply_to`).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;

use super::work::Work;
use crate::error::Result;
use crate::model::schema::CHANGE_TYPE_COLUMN;
use crate::model::{CommitId, DataFile, OperationKind, RowMask, Snapshot};
use crate::planted::{self, Bug};
use crate::scan::{SnapshotTable, session};
use crate::write::TableWriter;

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowChange {
    Insert,
    Delete,
    /// As it was before an update.
    Before,
    /// As it is after an update.
    After,
}

impl RowChange {
    /// The word for it in files (Delta protocol, "Change Data Files").
    fn word(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::Before => "update_preimage",
            Self::After => "update_postimage",
        }
    }
}

/// The changed rows of one plan.
pub(super) struct Changed {
    when: When,
    writer: Option<TableWriter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Never,
    IfRewritten,
    Always,
}

impl Changed {
    /// Whether, and when, an operation on this version keeps the rows that it changes.
    pub(super) fn new(snapshot: &Snapshot, kind: OperationKind, dry_run: bool) -> Self {
        let when = match kind {
            _ if snapshot.capabilities.change_files.is_none() || dry_run => When::Never,
            OperationKind::Update | OperationKind::Merge => When::Always,
            OperationKind::Delete | OperationKind::Overwrite => When::IfRewritten,
            _ => When::Never,
        };
        Self { when, writer: None }
    }

    /// Whether there may be such rows.
    pub(super) fn is_wanted(&self) -> bool {
        self.when != When::Never
    }

    /// Whether rows that are written now are noted.
    pub(super) fn is_on(&self) -> bool {
        self.when == When::Always
    }
}

impl Work {
    /// Notes rows of the table's columns.
    pub(super) async fn note_rows(&mut self, rows: &RecordBatch, change: RowChange) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let words = StringArray::from(vec![change.word(); rows.num_rows()]);
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(words));
        let rows = RecordBatch::try_new(with_change_type(rows.schema_ref()), columns)?;
        self.changed_writer()?.write(&rows).await
    }

    /// Notes the rows that go: of each file those touched, `updated` those of them that come back with other values.
    /// `rewritten`: some of these files are written anew.
    pub(super) async fn note_gone(
        &mut self,
        files: &[DataFile],
        touched: &[RowMask],
        updated: &HashMap<String, RowMask>,
        rewritten: bool,
    ) -> Result<()> {
        if self.changed.when == When::IfRewritten && rewritten {
            self.changed.when = When::Always;
        }
        if !self.changed.is_on() || planted::is(Bug::OldRowsUntold) {
            return Ok(());
        }
        self.begin("changes");
        let everything = self.change.operation == OperationKind::Update;
        for change in [RowChange::Before, RowChange::Delete] {
            let mut visible = Vec::new();
            for (file, touched) in files.iter().zip(touched) {
                let again = updated.get(&file.path);
                let wanted = match (change, again) {
                    (RowChange::Before, _) if everything => touched.clone(),
                    (RowChange::Before, Some(again)) => RowMask::from(touched.bitmap() & again.bitmap()),
                    (RowChange::Before, None) => RowMask::new(),
                    _ if everything => RowMask::new(),
                    (_, Some(again)) => RowMask::from(touched.bitmap() - again.bitmap()),
                    (_, None) => touched.clone(),
                };
                if !wanted.is_empty() {
                    let mut hidden = RowMask::new();
                    hidden.insert_range(0..file.rows);
                    visible.push((file.clone(), RowMask::from(hidden.bitmap() - wanted.bitmap())));
                }
            }
            self.note_visible(visible, change).await?;
        }
        Ok(())
    }

    /// Notes the rows of these files that are not hidden.
    async fn note_visible(&mut self, files: Vec<(DataFile, RowMask)>, change: RowChange) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let table =
            SnapshotTable::new(self.handle.clone(), Arc::clone(&self.snapshot)).with_hidden_rows(files);
        let ctx = session(self.options.memory_limit);
        let mut rows = ctx.read_table(Arc::new(table))?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            self.note_rows(&batch, change).await?;
        }
        Ok(())
    }

    /// Closes the files of changed rows and adds them to the change, or deletes them if the data files alone tell.
    pub(super) async fn finish_changed(&mut self) -> Result<()> {
        let Some(mut writer) = self.changed.writer.take() else {
            return Ok(());
        };
        if self.change.removed.is_empty() && self.change.masked.is_empty() {
            // Rows were added and nothing else.
            let staged = writer.abandon().await;
            if let Err(error) = self.handle.store.delete(&staged).await {
                tracing::warn!(%error, "files of changed rows that nobody needs could not be removed");
            }
            return Ok(());
        }
        let written = writer.finish().await;
        self.change.staged.extend(writer.staged());
        self.change.change_files = written?.files;
        Ok(())
    }

    /// Gives up the files of changed rows; returns those that may be there.
    pub(super) async fn abandon_changed(&mut self) -> Vec<String> {
        match self.changed.writer.take() {
            Some(mut writer) => writer.abandon().await,
            None => Vec::new(),
        }
    }

    fn changed_writer(&mut self) -> Result<&mut TableWriter> {
        let writer = match self.changed.writer.take() {
            Some(writer) => writer,
            None => {
                let options = self.settings.write_options(&self.snapshot.properties, false)?;
                let naming = CommitId(format!("{}-changes", self.change.commit_id));
                let snapshot = Arc::new(for_changed_rows(&self.snapshot));
                TableWriter::new(self.handle.store.clone(), snapshot, naming, options)?
            }
        };
        Ok(self.changed.writer.insert(writer))
    }
}

/// The version as files of changed rows have it: partitioned as data files are, in a folder of their own, with one more
/// column.
fn for_changed_rows(snapshot: &Snapshot) -> Snapshot {
    let mut capabilities = snapshot.capabilities;
    capabilities.data_prefix = capabilities.change_files.unwrap_or_default();
    Snapshot {
        schema: with_change_type(&snapshot.schema),
        specs: snapshot.specs.clone(),
        checks: Vec::new(),
        sort_order: Vec::new(),
        identifier: Vec::new(),
        features: Vec::new(),
        properties: snapshot.properties.clone(),
        refs: std::collections::BTreeMap::new(),
        capabilities,
        lineage: None,
        private: Arc::clone(&snapshot.private),
        ..*snapshot
    }
}

fn with_change_type(schema: &Schema) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(CHANGE_TYPE_COLUMN, DataType::Utf8, false)));
    Arc::new(Schema::new(fields))
}
