//! The tables that programs of evolution leave on local disk, with the rows that the model has of them: what readers that
//! we did not write shall read (`tests/interop/test_evolved.py`, `tests/spark/test_spark_evolved.py`).
//!
//! They lie in `target/evolved/<columns or partitioning>/<format>-<seed>`: the folder `table`, and `rows.arrow`, the newest
//! version as the model has it. `LAKEHOUSE_EVOLVED=1000` leaves those of more seeds.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::writer::FileWriter;
use futures::TryStreamExt;
use lakehouse_core::store::Store;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::program::Evolving;
use super::run::{Kind, run_program};
use crate::support::setting;

/// Seeds whose tables are left, unless the environment says otherwise.
const LEFT: u64 = 100;

/// Where the tables of one kind of evolution are left. They come into sight all at once, when each program ended well:
/// of a run that was killed, or that found a difference, there are none.
pub(super) struct Shelf {
    evolving: Evolving,
    folder: PathBuf,
    /// Beside it, where the tables wait.
    staged: PathBuf,
    seeds: u64,
}

impl Shelf {
    /// An empty shelf: what an older run left is gone.
    pub(super) fn clear(evolving: Evolving) -> Self {
        let name = format!("{evolving:?}").to_lowercase();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let root = root.join("target").join("evolved");
        let (folder, staged) = (root.join(&name), root.join(format!(".{name}")));
        let gone = |done: std::io::Result<()>| match done {
            Err(e) if e.kind() != ErrorKind::NotFound => panic!("{}: {e}", root.display()),
            _ => {}
        };
        gone(fs::remove_dir_all(&staged));
        // Out of sight at once: of a run that is killed while it clears, no half of a table is left to read.
        gone(fs::rename(&folder, &staged));
        gone(fs::remove_dir_all(&staged));
        fs::create_dir_all(&staged).unwrap();
        Self {
            evolving,
            folder,
            staged,
            seeds: setting("LAKEHOUSE_EVOLVED", LEFT),
        }
    }

    /// Whether the tables of this seed are left.
    pub(super) fn takes(&self, seed: u64) -> bool {
        seed < self.seeds
    }

    /// Runs a program in memory, where nothing is synced, and leaves its table, which is made as if it were where it will
    /// lie: Iceberg's metadata have absolute paths.
    pub(super) async fn run(&self, seed: u64, kind: Kind) -> Result<(), String> {
        let name = format!("{}-{seed}", kind.name());
        let place = self.folder.join(&name).join("table");
        let objects = Arc::new(InMemory::new());
        let root = Store::open(place.to_str().unwrap()).unwrap().root().clone();
        let rows = run_program(seed, self.evolving, kind, Store::over(objects.clone(), root)).await?;
        self.leave(&name, &objects, &rows)
            .await
            .map_err(|e| format!("leaving {name}: {e}"))
    }

    async fn leave(
        &self,
        name: &str,
        objects: &InMemory,
        rows: &RecordBatch,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let folder = self.staged.join(name);
        for object in objects.list(None).try_collect::<Vec<_>>().await? {
            let file = folder.join("table").join(object.location.as_ref());
            fs::create_dir_all(file.parent().unwrap_or(&folder))?;
            fs::write(file, objects.get(&object.location).await?.bytes().await?)?;
        }
        let mut file = FileWriter::try_new(File::create(folder.join("rows.arrow"))?, &rows.schema())?;
        file.write(rows)?;
        Ok(file.finish()?)
    }

    /// The tables are there for all to read.
    pub(super) fn open(&self) {
        fs::rename(&self.staged, &self.folder).unwrap();
    }
}
