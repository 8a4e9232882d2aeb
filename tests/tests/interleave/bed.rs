//! A small table in memory, copies of it for each run, and a look at what a run made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use futures::TryStreamExt;
use lakehouse_core::delta::Delta;
use lakehouse_core::format::{Format, Handle, Outcome};
use lakehouse_core::iceberg::Iceberg;
use lakehouse_core::model::{At, DataFile, Definition, Prune, Snapshot, Version};
use lakehouse_core::store::{Store, clock};
use lakehouse_core::{Result, TableFormat};
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::history::{Ended, Op, Row, Rows};
use super::{staged, whole};

/// How much of an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Load, check, publish, resolve: data files are made up.
    Staged,
    /// The same by writers that do not say what they read: a fault that has to be found.
    Careless,
    /// All of it, over Parquet files. Rows that go are masked, or their files rewritten.
    Whole { mask: bool },
}

/// A format in one of its versions.
pub(crate) type Kind = (TableFormat, Option<u8>);

fn column(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Int64, nullable)
}

/// The columns of rows, with or without the last.
pub(crate) fn schema(tip: bool) -> SchemaRef {
    let mut fields = vec![column("id", false), column("n", true)];
    fields.extend(tip.then(|| column("tip", true)));
    Arc::new(Schema::new(fields))
}

/// A table over a store.
pub(crate) fn open(kind: Kind, store: Store) -> Handle {
    let format: Arc<dyn Format> = match kind.0 {
        TableFormat::Iceberg => Arc::new(Iceberg::new(store.clone())),
        TableFormat::Delta => Arc::new(Delta::new(store.clone())),
    };
    Handle { store, format }
}

pub(crate) fn over(inner: &Arc<InMemory>) -> Store {
    let root = "memory://interleave".parse().unwrap();
    Store::over(Arc::clone(inner) as _, root)
}

/// Runs an operation. `old` is the version that a restore goes back to.
pub(crate) async fn perform(level: Level, handle: &Handle, op: &Op, old: Version) -> Result<(Version, bool)> {
    match level {
        Level::Staged => staged::run(handle, op, old, false).await,
        Level::Careless => staged::run(handle, op, old, true).await,
        Level::Whole { mask } => whole::run(handle, op, old, mask).await,
    }
}

/// A prepared table: two files, a row of the first of them masked, and an older version with the first file only.
pub(crate) struct Bed {
    pub(crate) kind: Kind,
    pub(crate) level: Level,
    inner: Arc<InMemory>,
    pub(crate) old: (Version, Rows),
    pub(crate) base: (Version, Rows),
    /// The versions before the base.
    pub(crate) earlier: Vec<(Version, Rows)>,
    objects: BTreeSet<String>,
}

impl Bed {
    /// Rows 0 to 5 without 4, and 10 to 15; the older version has 0 to 5.
    pub(crate) async fn small(kind: Kind, level: Level) -> Self {
        let file =
            |ids: std::ops::RangeInclusive<i64>| Op::Append(ids.map(|id| (id, id * 10, None)).collect());
        Self::prepare(kind, level, &[file(0..=5), file(10..=15), Op::Delete(4..=4)]).await
    }

    /// A table after these operations.
    pub(crate) async fn prepare(kind: Kind, level: Level, ops: &[Op]) -> Self {
        let inner = Arc::new(InMemory::new());
        let definition = Definition {
            schema: schema(false),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: kind.1,
        };
        let handle = open(kind, over(&inner));
        let source = Arc::new(clock::Source::new(0));
        let prepared = clock::simulated(source, async {
            let id = clock::new_commit_id();
            let created = handle.format.create(&definition, &id).await.unwrap();
            assert!(matches!(created, Outcome::Committed(_)), "{created:?}");
            let mut versions = Vec::new();
            for op in ops {
                let (version, committed) = perform(level, &handle, op, 0).await.unwrap();
                assert!(committed, "{op:?}");
                versions.push(version);
            }
            versions
        });
        let versions = prepared.await;
        let (first, last) = (versions[0], *versions.last().unwrap());
        let old = (first, rows_at(&handle, first).await);
        let base = (last, rows_at(&handle, last).await);
        let mut earlier = Vec::new();
        for commit in handle.format.history(&At::Latest, None).await.unwrap() {
            if commit.version != last {
                earlier.push((commit.version, rows_at(&handle, commit.version).await));
            }
        }
        Self {
            kind,
            level,
            earlier,
            objects: objects(&handle.store).await,
            inner,
            old,
            base,
        }
    }

    /// A copy of the objects, for one run.
    pub(crate) fn fork(&self) -> Arc<InMemory> {
        Arc::new(self.inner.fork())
    }

    /// The versions after the base with their rows, oldest first, the base before them.
    pub(crate) async fn versions(&self, inner: &Arc<InMemory>) -> Vec<(Version, Rows)> {
        let handle = open(self.kind, over(inner));
        let history = handle.format.history(&At::Latest, None).await.unwrap();
        let mut new: Vec<Version> = history.iter().map(|commit| commit.version).collect();
        let base = new.iter().position(|version| *version == self.base.0);
        new.truncate(base.expect("the base is still in the history"));
        let mut versions = vec![self.base.clone()];
        for version in new.into_iter().rev() {
            versions.push((version, rows_at(&handle, version).await));
        }
        versions
    }

    /// Files that are there and belong to no version, and files that belong to one and are not there.
    pub(crate) async fn misplaced(&self, inner: &Arc<InMemory>, versions: &[(Version, Rows)]) -> Vec<String> {
        let handle = open(self.kind, over(inner));
        let new: Vec<Version> = versions[1..].iter().map(|(version, _)| *version).collect();
        let mut needed = handle.format.reachable(Some(&new)).await.unwrap();
        needed.extend(self.objects.iter().cloned());
        let there = objects(&handle.store).await;
        let left = there
            .difference(&needed)
            .map(|path| format!("{path} is left behind"));
        left.chain(needed.difference(&there).map(|path| format!("{path} is gone")))
            .collect()
    }
}

async fn objects(store: &Store) -> BTreeSet<String> {
    let listed = store.list("").await.unwrap();
    listed.into_iter().map(|object| object.path).collect()
}

/// The data files of a version.
pub(crate) async fn files(handle: &Handle, snapshot: &Arc<Snapshot>) -> Result<Vec<DataFile>> {
    let everything = Arc::new(Prune::everything());
    let mut files: Vec<DataFile> = handle.format.files(snapshot, everything).try_collect().await?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The rows of a version, read without the engine's scans.
pub(crate) async fn rows_at(handle: &Handle, version: Version) -> Rows {
    let snapshot = handle.format.snapshot(&At::Version(version)).await.unwrap();
    read_rows(handle, &snapshot).await.unwrap()
}

/// The same of a version that is loaded.
pub(crate) async fn read_rows(handle: &Handle, snapshot: &Arc<Snapshot>) -> Result<Rows> {
    let files = files(handle, snapshot).await?;
    let masks = handle.format.masks(snapshot, &files).await?;
    let mut rows = Rows::new();
    for (file, mask) in files.iter().zip(masks) {
        let all = rows_of(&handle.store.get(&file.path).await?);
        assert_eq!(all.len() as u64, file.rows, "{}", file.path);
        let visible = (0..).zip(all).filter(|(at, _)| !mask.contains(*at));
        rows.extend(visible.map(|(_, row)| row));
    }
    rows.sort_unstable();
    Ok(rows)
}

/// The rows of a data file: of a Parquet file, or of one that [`staged`] made up.
pub(crate) fn rows_of(bytes: &Bytes) -> Rows {
    if !bytes.starts_with(b"PAR1") {
        return staged::decode(bytes);
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let mut rows = Rows::new();
    for batch in reader.build().unwrap() {
        rows.extend(rows_in(&batch.unwrap()));
    }
    rows
}

/// The rows of a batch.
pub(crate) fn rows_in(batch: &RecordBatch) -> Vec<Row> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .map(|column| column.as_primitive::<Int64Type>())
    };
    let (id, n, tip) = (column("id").unwrap(), column("n").unwrap(), column("tip"));
    let row = |at: usize| {
        let tip = tip.filter(|tip| tip.is_valid(at)).map(|tip| tip.value(at));
        (id.value(at), n.value(at), tip)
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Runs an operation to its end, whatever that is.
pub(crate) async fn end(level: Level, handle: &Handle, op: &Op, old: Version) -> Ended {
    Ended::of(perform(level, handle, op, old).await)
}
