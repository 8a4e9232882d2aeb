//! Log replay by `delta_kernel`: the only file that names it.
//!
//! The kernel is synchronous and asks an engine for I/O. It runs on a blocking thread of the runtime
//! that called us, and its I/O is driven from there by the same runtime's handle: no second runtime,
//! no thread that outlives the call, nothing to deadlock with on a current-thread runtime.
//!
//! Of its `internal-api` we use the table configuration (protocol and metadata as recorded), the log
//! segment (which checkpoint a version was loaded from) and the metadata domains of features.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::scan::StatsOptions;
use delta_kernel::snapshot::SnapshotRef;
use delta_kernel::{KernelError, KernelResult, Snapshot};
use delta_kernel_default_engine::executor::TaskExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use futures::TryFutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::mpsc;

use super::actions::{AddFile, Metadata, Protocol, Texts, Vector, from_value};
use super::log;
use crate::error::{Error, Result};
use crate::model::limits::Limits;
use crate::store::{Bound, Store};

/// Keys of a [`Store`] are relative to the table root, so the kernel's table lies at the root. The
/// scheme makes its engine sort listings, which local stores do not.
const ROOT: &str = "file:///";

/// How many log entries the kernel reads at the same time.
const READ_AHEAD: NonZero<usize> = NonZero::new(16).unwrap();

/// One version of the log as the kernel holds it.
#[derive(Debug, Clone)]
pub(super) struct Replay(SnapshotRef);

/// Drives the kernel's I/O on the runtime that called us.
struct Caller(Handle);

impl TaskExecutor for Caller {
    type Guard<'a> = EnterGuard<'a>;

    fn block_on<T>(&self, task: T) -> T::Output
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        self.0.block_on(task)
    }

    fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn(task);
    }

    fn spawn_blocking<T, R>(&self, task: T) -> BoxFuture<'_, KernelResult<R>>
    where
        T: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Box::pin(self.0.spawn_blocking(task).map_err(KernelError::join_failure))
    }

    fn enter(&self) -> Self::Guard<'_> {
        self.0.enter()
    }
}

fn engine(store: &Store, bound: fn(&str, &Limits) -> Bound, handle: Handle) -> DefaultEngine<Caller> {
    DefaultEngineBuilder::new(store.guarded(bound))
        .with_task_executor(Arc::new(Caller(handle)))
        .with_buffer_size(READ_AHEAD)
        .build()
}

/// Runs the kernel on a blocking thread with an engine over `store`.
async fn run<T: Send + 'static>(
    store: &Store,
    task: impl FnOnce(&DefaultEngine<Caller>) -> Result<T> + Send + 'static,
) -> Result<T> {
    run_within(store, log::bound, task).await
}

/// The same; the engine sees of the log what `bound` allows.
async fn run_within<T: Send + 'static>(
    store: &Store,
    bound: fn(&str, &Limits) -> Bound,
    task: impl FnOnce(&DefaultEngine<Caller>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = store.clone();
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || task(&engine(&store, bound, handle)))
        .await
        .unwrap_or_else(|e| Err(gave_up(&e)))
}

impl Replay {
    /// Loads a version (`None`: the newest), reading only what came after `base` where one is given.
    pub(super) async fn load(store: &Store, base: Option<Self>, version: Option<u64>) -> Result<Self> {
        let loaded = Self::load_within(store, log::bound, base.clone(), version).await;
        let Err(Error::Invalid { .. } | Error::NotFound { .. }) = &loaded else {
            return loaded;
        };
        // `_last_checkpoint` may name a checkpoint that is not there, or no longer. It is advice: the log is whole
        // without it, where its entries or another checkpoint are.
        if store.head(log::LAST_CHECKPOINT).await?.is_none() {
            return loaded;
        }
        let again = Self::load_within(store, log::bound_without_pointer, base, version).await;
        again.or(loaded)
    }

    async fn load_within(
        store: &Store,
        bound: fn(&str, &Limits) -> Bound,
        base: Option<Self>,
        version: Option<u64>,
    ) -> Result<Self> {
        run_within(store, bound, move |engine| {
            let built = match (base, version) {
                (Some(base), None) => Snapshot::builder_from(base.0).build(engine),
                (Some(base), Some(v)) => Snapshot::builder_from(base.0).at_version(v).build(engine),
                (None, None) => Snapshot::builder_for(ROOT).build(engine),
                (None, Some(v)) => Snapshot::builder_for(ROOT).at_version(v).build(engine),
            };
            built.map(Self).map_err(translate)
        })
        .await
    }

    pub(super) fn version(&self) -> u64 {
        self.0.version()
    }

    pub(super) fn protocol(&self) -> Result<Protocol> {
        let value = serde_json::to_value(self.0.table_configuration().protocol());
        from_value(value.unwrap_or_default(), "protocol")
    }

    pub(super) fn metadata(&self) -> Result<Metadata> {
        let value = serde_json::to_value(self.0.table_configuration().metadata());
        from_value(value.unwrap_or_default(), "metadata")
    }

    /// The version and the object keys of the checkpoint that this version was loaded from.
    pub(super) fn checkpoint(&self) -> Option<(u64, Vec<String>)> {
        let segment = self.0.log_segment();
        let version = segment.checkpoint_version?;
        let parts = &segment.listed.checkpoint_parts;
        Some((
            version,
            parts
                .iter()
                .map(|part| format!("_delta_log/{}", part.filename))
                .collect(),
        ))
    }

    /// The version that an application has recorded, if it is not expired.
    pub(super) async fn application(&self, store: &Store, id: String) -> Result<Option<i64>> {
        let snapshot = Arc::clone(&self.0);
        run(store, move |engine| {
            snapshot.get_app_id_version(&id, engine).map_err(translate)
        })
        .await
    }

    /// What the table keeps under these names (Delta protocol, "Domain Metadata"), as far as it does.
    pub(super) async fn domains(
        &self,
        store: &Store,
        names: Vec<&'static str>,
    ) -> Result<BTreeMap<String, String>> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let snapshot = Arc::clone(&self.0);
        run(store, move |engine| {
            let names = names.into_iter().collect();
            let found = snapshot.get_domain_metadatas_internal(engine, Some(&names));
            let found = found.map_err(translate)?;
            Ok(found
                .into_iter()
                .map(|(name, domain)| (name, domain.configuration().to_owned()))
                .collect())
        })
        .await
    }

    /// The live files, batch by batch. The log is read as the receiver is drained; dropping it stops
    /// the reading.
    pub(super) fn files(&self, store: &Store) -> mpsc::Receiver<Result<Vec<AddFile>>> {
        let (sender, receiver) = mpsc::channel(2);
        let (snapshot, store, handle) = (Arc::clone(&self.0), store.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            // Without a word at the end, files that are missing after a panic would be missing in silence.
            let send = || send_files(snapshot, &engine(&store, log::bound, handle), &sender);
            let sent = catch_unwind(AssertUnwindSafe(send)).unwrap_or_else(|_| Err(gave_up(&"a panic")));
            if let Err(error) = sent {
                // The receiver may be gone: then nobody asks any more.
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }
}

fn send_files(
    snapshot: SnapshotRef,
    engine: &DefaultEngine<Caller>,
    sender: &mpsc::Sender<Result<Vec<AddFile>>>,
) -> Result<()> {
    let scan = snapshot
        .scan_builder()
        .with_stats(StatsOptions::json_only())
        .without_row_transforms()
        .build()
        .map_err(translate)?;
    for batch in scan.scan_metadata(engine).map_err(translate)? {
        let (data, mut selected) = batch.map_err(translate)?.scan_files.into_parts();
        let data = ArrowEngineData::try_from_engine_data(data).map_err(translate)?;
        let batch: RecordBatch = data.into();
        selected.resize(batch.num_rows(), true);
        let files = read_files(&batch, &selected)?;
        if !files.is_empty() && sender.blocking_send(Ok(files)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Rows of the kernel's scan metadata (`scan_row_schema`) as `add` actions.
fn read_files(batch: &RecordBatch, selected: &[bool]) -> Result<Vec<AddFile>> {
    let whole = StructArray::from(batch.clone());
    let constants = child(&whole, "fileConstantValues")?.as_struct().clone();
    let vectors = child(&whole, "deletionVector")?.as_struct().clone();
    let mut files = Vec::new();
    for row in (0..batch.num_rows()).filter(|row| selected[*row]) {
        let Some(path) = text(&whole, "path", row)? else {
            continue;
        };
        let vector = match vectors.is_valid(row) {
            true => text(&vectors, "storageType", row)?,
            false => None,
        };
        files.push(AddFile {
            path,
            partition_values: texts(&constants, "partitionValues", row)?.unwrap_or_default(),
            size: long(&whole, "size", row)?.unwrap_or_default(),
            modification_time: long(&whole, "modificationTime", row)?.unwrap_or_default(),
            data_change: false,
            stats: text(&whole, "stats", row)?,
            tags: texts(&constants, "tags", row)?,
            deletion_vector: match vector {
                None => None,
                Some(storage_type) => Some(Vector {
                    storage_type,
                    path_or_inline_dv: text(&vectors, "pathOrInlineDv", row)?.unwrap_or_default(),
                    offset: int(&vectors, "offset", row)?,
                    size_in_bytes: int(&vectors, "sizeInBytes", row)?.unwrap_or_default(),
                    cardinality: long(&vectors, "cardinality", row)?.unwrap_or_default(),
                }),
            },
            base_row_id: long(&constants, "baseRowId", row)?,
            default_row_commit_version: long(&constants, "defaultRowCommitVersion", row)?,
            clustering_provider: text(&constants, "clusteringProvider", row)?,
        });
    }
    Ok(files)
}

fn child<'a>(of: &'a StructArray, name: &str) -> Result<&'a Arc<dyn Array>> {
    of.column_by_name(name).ok_or_else(|| {
        Error::invalid(
            format!("the log replay gave no column {name} for files"),
            "_delta_log",
        )
    })
}

fn wrong(name: &str) -> Error {
    Error::invalid(
        format!("the log replay gave column {name} in another type"),
        "_delta_log",
    )
}

fn text(of: &StructArray, name: &str, row: usize) -> Result<Option<String>> {
    let values = child(of, name)?
        .as_string_opt::<i32>()
        .ok_or_else(|| wrong(name))?;
    Ok(values.is_valid(row).then(|| values.value(row).to_owned()))
}

fn long(of: &StructArray, name: &str, row: usize) -> Result<Option<i64>> {
    let values = child(of, name)?
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| wrong(name))?;
    Ok(values.is_valid(row).then(|| values.value(row)))
}

fn int(of: &StructArray, name: &str, row: usize) -> Result<Option<i64>> {
    let values = child(of, name)?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| wrong(name))?;
    Ok(values.is_valid(row).then(|| i64::from(values.value(row))))
}

fn texts(of: &StructArray, name: &str, row: usize) -> Result<Option<Texts>> {
    let maps = child(of, name)?.as_map_opt().ok_or_else(|| wrong(name))?;
    if maps.is_null(row) {
        return Ok(None);
    }
    let entries = maps.value(row);
    let (Some(keys), Some(values)) = (
        entries.column(0).as_string_opt::<i32>(),
        entries.column(1).as_string_opt::<i32>(),
    ) else {
        return Err(wrong(name));
    };
    Ok(Some(
        keys.iter()
            .zip(values.iter())
            .filter_map(|(key, value)| Some((key?.to_owned(), value.map(str::to_owned))))
            .collect(),
    ))
}

fn gave_up(why: &dyn fmt::Display) -> Error {
    Error::invalid(format!("the log cannot be read: {why}"), "_delta_log")
        .with_hint("a file of the log is damaged: restore it from a backup")
}

/// The kernel's error as one of ours.
fn translate(error: KernelError) -> Error {
    if let Some(ours) = Error::within(&error) {
        return ours;
    }
    match error {
        KernelError::Backtraced { source, .. } => translate(*source),
        KernelError::ObjectStore(source) => Error::within(&source).unwrap_or(Error::Store {
            action: "read",
            path: "_delta_log".into(),
            source,
        }),
        KernelError::Unsupported(what) => Error::unsupported(
            format!("the Delta table cannot be read: {what}"),
            "read it with a tool that has this feature",
        ),
        KernelError::FileNotFound(path) => Error::not_found("a file of the log", path),
        other => Error::invalid(
            format!("the log cannot be read: {}", other.to_string().replace(ROOT, "")),
            "_delta_log",
        ),
    }
}
