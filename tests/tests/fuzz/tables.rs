//! Sound tables to damage, and everything that reads a table.

use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;

use bytes::Bytes;
use datafusion::prelude::{SessionContext, col, lit};
use futures::{StreamExt, TryStreamExt};
use lakehouse_core::model::{At, Prune};
use lakehouse_core::store::Store;
use lakehouse_core::{Error, Table, scan};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

/// More rows than any sound table here has.
const MOST_ROWS: usize = 200_000;

/// One for all: what it takes to make one is more than what a small table takes.
static SESSION: LazyLock<SessionContext> = LazyLock::new(|| scan::session(Some(256 << 20)));

/// A table's objects by their keys.
pub(super) struct Seed {
    pub(super) name: String,
    pub(super) objects: Vec<(String, Bytes)>,
}

/// The tables of `fixtures/foreign`, which other engines wrote.
pub(super) static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/foreign");
    let mut seeds: Vec<Seed> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| {
            let mut objects = Vec::new();
            load(&path.join("table"), "", &mut objects);
            objects.sort();
            Seed {
                name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                objects,
            }
        })
        .collect();
    seeds.sort_by(|a, b| a.name.cmp(&b.name));
    seeds
});

fn load(folder: &Path, prefix: &str, objects: &mut Vec<(String, Bytes)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => load(&entry.path(), &format!("{key}/"), objects),
            false => objects.push((key, std::fs::read(entry.path()).unwrap().into())),
        }
    }
}

/// A table with one object replaced.
pub(super) async fn damaged(table: &str, key: &str, bytes: Bytes) -> Store {
    let memory = InMemory::new();
    let seed = SEEDS.iter().find(|seed| seed.name == table);
    for (other, content) in &seed.unwrap_or_else(|| panic!("no table {table}")).objects {
        if other != key {
            put(&memory, other, content.clone()).await;
        }
    }
    put(&memory, key, bytes).await;
    Store::over(Arc::new(memory), "memory://fuzz".parse().unwrap())
}

async fn put(memory: &dyn ObjectStore, key: &str, bytes: Bytes) {
    memory.put(&key.into(), bytes.into()).await.unwrap();
}

/// Reads all that can be asked of a table; errors are answers. What is given back must hold what callers rely on.
pub(super) async fn read(store: Store) -> Result<(), String> {
    let Ok(table) = Table::open_in(store.clone()).await else {
        return Ok(());
    };
    let _ = table.history(Some(100)).await;
    for at in [
        At::Version(-1),
        At::Timestamp(1_700_000_000_000),
        At::Ref("main".into()),
    ] {
        let _ = table.snapshot(&at).await;
    }
    let format = &table.handle().format;
    let _ = format.reachable(None).await;
    let Ok(snapshot) = table.snapshot(&At::Latest).await else {
        return Ok(());
    };
    let _ = format.check_writable(&snapshot);
    let listed = format
        .files(&snapshot, Arc::new(Prune::everything()))
        .try_collect::<Vec<_>>();
    let files = listed.await.unwrap_or_default();
    for path in files.iter().flat_map(|file| {
        let masks = file
            .masks
            .iter()
            .filter(|mask| mask.inline.is_none())
            .map(|mask| &mask.path);
        let equality = file.equality_deletes.iter().map(|delete| &delete.path);
        [&file.path].into_iter().chain(masks).chain(equality)
    }) {
        if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!("a file outside of the table: {path:?}"));
        }
    }
    if let Ok(masks) = format.masks(&snapshot, &files).await {
        for (file, mask) in files.iter().zip(masks) {
            if mask.max().is_some_and(|max| max >= file.rows) {
                return Err(format!("a mask beyond the {} rows of {}", file.rows, file.path));
            }
        }
    }
    for filtered in [false, true] {
        let _ = rows(&table, filtered).await;
    }
    Ok(())
}

async fn rows(table: &Table, filtered: bool) -> Result<usize, Error> {
    let provider = table.provider(&At::Latest).await?;
    let mut frame = SESSION.read_table(provider)?;
    if filtered && frame.schema().fields().iter().any(|field| field.name() == "id") {
        frame = frame.filter(col("id").gt(lit(20_i64)))?;
    }
    let mut batches = frame.execute_stream().await?;
    let mut rows = 0;
    while let Some(batch) = batches.next().await {
        rows += batch?.num_rows();
        if rows > MOST_ROWS {
            break;
        }
    }
    Ok(rows)
}
