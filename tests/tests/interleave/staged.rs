//! Operations over made-up data files: the protocol of commits alone. A file's content is its rows as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use datafusion::logical_expr::{col, lit};
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use lakehouse_core::Result;
use lakehouse_core::commit::{CommitOptions, Plan, commit};
use lakehouse_core::format::Handle;
use lakehouse_core::model::{
    Change, ColumnStats, CommitId, DataFile, OperationKind, Prune, Redefinition, RowMask, Snapshot, Version,
};

use super::bed::{files, rows_of};
use super::history::{Op, Rows};
use crate::support::data_file;

/// Commits an operation; a careless one does not say what it read.
pub(crate) async fn run(handle: &Handle, op: &Op, old: Version, careless: bool) -> Result<(Version, bool)> {
    let mut plan = Staged {
        careless,
        ..plan(handle, op, old)
    };
    let committed = commit(handle, &CommitOptions::default(), &mut plan).await?;
    Ok((committed.snapshot.version, committed.change.is_some()))
}

/// The plan of an operation.
pub(crate) fn plan<'a>(handle: &'a Handle, op: &'a Op, old: Version) -> Staged<'a> {
    Staged {
        handle,
        op,
        old,
        careless: false,
    }
}

/// The rows of a made-up file.
pub(crate) fn decode(bytes: &Bytes) -> Rows {
    let text = std::str::from_utf8(bytes).unwrap();
    let row = |line: &str| {
        let mut values = line.split(' ').map(|value| value.parse::<i64>().ok());
        let mut value = || values.next().unwrap();
        (value().unwrap(), value().unwrap(), value())
    };
    text.lines().map(row).collect()
}

fn encode(rows: &Rows) -> Bytes {
    let mut text = String::new();
    for (id, n, tip) in rows {
        let tip = tip.map_or("null".to_owned(), |tip| tip.to_string());
        writeln!(text, "{id} {n} {tip}").unwrap();
    }
    text.into_bytes().into()
}

pub(crate) struct Staged<'a> {
    handle: &'a Handle,
    op: &'a Op,
    old: Version,
    careless: bool,
}

impl Plan for Staged<'_> {
    fn plan<'a>(&'a mut self, base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move { self.change(&base, id).await })
    }
}

fn kind(op: &Op) -> OperationKind {
    match op {
        Op::Append(_) | Op::AppendColumn(_) => OperationKind::Append,
        Op::Overwrite(..) => OperationKind::Overwrite,
        Op::Delete(_) => OperationKind::Delete,
        Op::Update(..) | Op::Transfer { .. } => OperationKind::Update,
        Op::Merge(_) | Op::MergeColumn(_) => OperationKind::Merge,
        Op::Compact => OperationKind::Compact,
        Op::Restore => OperationKind::Restore,
    }
}

/// The ids that an operation looks for.
fn ids(op: &Op) -> BTreeSet<i64> {
    match op {
        Op::Append(_) | Op::AppendColumn(_) | Op::Compact | Op::Restore => BTreeSet::new(),
        Op::Overwrite(ids, _) | Op::Delete(ids) | Op::Update(ids, _) => ids.clone().collect(),
        Op::Merge(source) => source.iter().map(|(id, _)| *id).collect(),
        Op::MergeColumn(source) => source.iter().map(|(id, ..)| *id).collect(),
        Op::Transfer { from, to, .. } => [*from, *to].into(),
    }
}

impl Staged<'_> {
    async fn change(&self, base: &Arc<Snapshot>, id: CommitId) -> Result<Option<Change>> {
        let mut change = Change::new(kind(self.op), id);
        match self.op {
            Op::Restore => {
                if base.version != self.old {
                    change.restore = Some(self.old);
                }
            }
            Op::Compact => self.compact(base, &mut change).await?,
            Op::Append(rows) => self.add(base, rows, &mut change).await?,
            Op::AppendColumn(rows) => {
                self.evolve(base, &mut change)?;
                self.add(base, rows, &mut change).await?;
            }
            _ => self.replace(base, &mut change).await?,
        }
        Ok((!change.is_empty()).then_some(change))
    }

    fn evolve(&self, base: &Snapshot, change: &mut Change) -> Result<()> {
        if base.schema.field_with_name("tip").is_err() {
            let mut fields = base.schema.fields().to_vec();
            fields.push(Arc::new(Field::new("tip", DataType::Int64, true)));
            let evolved = self
                .handle
                .format
                .evolve(base, &Schema::new(fields), &Redefinition::default())?;
            change.set_schema(Arc::clone(&evolved.schema));
        }
        Ok(())
    }

    /// Masks the rows that the operation looks for, and adds what it makes of them.
    async fn replace(&self, base: &Arc<Snapshot>, change: &mut Change) -> Result<()> {
        let ids = ids(self.op);
        change.read = Some(Arc::new(match self.op {
            Op::Merge(_) | Op::MergeColumn(_) => {
                let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.iter().copied()));
                Prune::everything().with_keys(vec![("id".to_owned(), keys)])?
            }
            _ => {
                let list = ids.iter().map(|id| lit(*id)).collect();
                Prune::matching(col("id").in_list(list, false), Arc::clone(&base.schema))?
            }
        }));
        if self.careless {
            change.read = None;
        }
        if matches!(self.op, Op::MergeColumn(_)) {
            self.evolve(base, change)?;
        }
        let mut masks = Vec::new();
        let mut found = Rows::new();
        for (file, mut mask, rows) in self.visible(base).await? {
            let before = mask.len();
            for (at, row) in rows {
                if ids.contains(&row.0) {
                    mask.insert(at);
                    found.push(row);
                }
            }
            if mask.len() == file.rows {
                change.removed.push(file);
            } else if mask.len() > before {
                masks.push((file, mask));
            }
        }
        let mut new = found;
        self.op.apply(&mut new, &Rows::new());
        let before: Vec<DataFile> = masks.iter().map(|(file, _)| file.clone()).collect();
        if !masks.is_empty() {
            let staging = self.handle.format.stage_masks(base, masks, &change.commit_id);
            let (after, staged) = staging.await?;
            change.staged.extend(staged);
            change.masked = before.into_iter().zip(after).collect();
        }
        if !new.is_empty() {
            self.add(base, &new, change).await?;
        } else if change.is_without_files() {
            change.schema = None;
            change.metadata = Default::default();
        }
        Ok(())
    }

    async fn compact(&self, base: &Arc<Snapshot>, change: &mut Change) -> Result<()> {
        let visible = self.visible(base).await?;
        if visible.len() < 2 && visible.iter().all(|(_, mask, _)| mask.is_empty()) {
            return Ok(());
        }
        let mut rows = Rows::new();
        for (file, _, visible) in visible {
            change.removed.push(file);
            rows.extend(visible.into_iter().map(|(_, row)| row));
        }
        self.add(base, &rows, change).await
    }

    /// Each file with its mask and the rows that are left, with their positions.
    async fn visible(
        &self,
        base: &Arc<Snapshot>,
    ) -> Result<Vec<(DataFile, RowMask, Vec<(u64, super::history::Row)>)>> {
        let files = files(self.handle, base).await?;
        let masks = self.handle.format.masks(base, &files).await?;
        let mut all = Vec::new();
        for (file, mask) in files.into_iter().zip(masks) {
            let rows = rows_of(&self.handle.store.get(&file.path).await?);
            let visible = (0..).zip(rows).filter(|(at, _)| !mask.contains(*at)).collect();
            all.push((file, mask, visible));
        }
        Ok(all)
    }

    async fn add(&self, base: &Snapshot, rows: &Rows, change: &mut Change) -> Result<()> {
        let path = format!("data/{}-{}.parquet", change.commit_id, change.added.len());
        let content = encode(rows);
        let bytes = content.len() as u64;
        change.staged.push(path.clone());
        self.handle.store.put(&path, content).await?;
        let bound = |least: bool| {
            let ids = rows.iter().map(|(id, ..)| *id);
            ScalarValue::Int64(if least { ids.min() } else { ids.max() })
        };
        let stats = ColumnStats {
            values: Some(rows.len() as u64),
            nulls: Some(0),
            min: Some(bound(true)),
            max: Some(bound(false)),
            exact: true,
            ..ColumnStats::default()
        };
        change.added.push(DataFile {
            spec_id: base.spec_id,
            columns: BTreeMap::from([("id".to_owned(), stats)]),
            ..data_file(path, bytes, rows.len() as u64)
        });
        Ok(())
    }
}
