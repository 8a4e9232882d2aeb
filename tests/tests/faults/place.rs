//! Where a prepared table is, fresh for every run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lakehouse_core::TableFormat;
use lakehouse_core::store::Store;
use object_store::memory::InMemory;
use tempfile::TempDir;

/// A prepared table in memory or on local disk.
#[derive(Clone)]
pub(super) enum Place {
    Memory(Arc<InMemory>),
    Local(Arc<TempDir>),
}

impl Place {
    pub(super) async fn in_memory(format: (TableFormat, Option<u8>)) -> Self {
        Self::in_memory_with(format, &[]).await
    }

    /// A table with these properties.
    pub(super) async fn in_memory_with(
        format: (TableFormat, Option<u8>),
        properties: &[(&str, &str)],
    ) -> Self {
        let memory = Arc::new(InMemory::new());
        let root = "memory://faults".parse().unwrap();
        let store = Store::over(Arc::clone(&memory) as _, root);
        super::prepare_with(store, format.0, format.1, properties).await;
        Self::Memory(memory)
    }

    /// In memory that looks like a disk where there is such: syncing takes most of the time otherwise.
    pub(super) async fn on_local_disk(format: (TableFormat, Option<u8>)) -> Self {
        let shared = Path::new("/dev/shm");
        let folder = match shared.is_dir() {
            true => tempfile::tempdir_in(shared),
            false => tempfile::tempdir(),
        }
        .unwrap();
        let place = folder.path().join("table");
        super::prepare(local(&place), format.0, format.1).await;
        copy(&place, &folder.path().join("prepared"));
        Self::Local(Arc::new(folder))
    }

    /// The table as it was prepared. On local disk it takes the place of the one of before: metadata names it.
    pub(super) fn fresh(&self) -> Store {
        match self {
            Self::Memory(memory) => super::over(memory),
            Self::Local(folder) => {
                let place = folder.path().join("table");
                std::fs::remove_dir_all(&place).unwrap();
                copy(&folder.path().join("prepared"), &place);
                local(&place)
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "in memory",
            Self::Local(_) => "on local disk",
        })
    }
}

fn local(place: &Path) -> Store {
    Store::open(place.to_str().unwrap()).unwrap()
}

fn copy(from: &Path, to: &PathBuf) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
