//! What several families of tests need.

pub(crate) mod aged;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lakehouse_core::model::DataFile;
use lakehouse_core::store::Store;
use object_store::memory::InMemory;

/// A store of its own in memory.
pub(crate) fn memory(name: &str) -> Store {
    let root = format!("memory://{name}").parse().expect("a URL");
    Store::over(Arc::new(InMemory::new()), root)
}

/// A data file that is not there: of an unpartitioned table, of which no statistics are known.
pub(crate) fn data_file(path: String, bytes: u64, rows: u64) -> DataFile {
    DataFile {
        recorded: path.clone(),
        path,
        bytes,
        rows,
        spec_id: 0,
        partition: Vec::new(),
        columns: BTreeMap::new(),
        masks: Vec::new(),
        equality_deletes: Vec::new(),
        sequence: None,
        first_row_id: None,
        split_offsets: Vec::new(),
        notes: None,
    }
}

/// A number that the environment may set, for longer runs by hand.
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    number(name).unwrap_or(usual)
}

/// A setting that is a number.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let set = std::env::var(variable).ok()?;
    Some(set.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// When families that go on for as long as they are told shall stop: `LAKEHOUSE_SOAK_SECONDS`, from now on.
pub(crate) fn soak_until() -> Option<Instant> {
    number("LAKEHOUSE_SOAK_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds))
}
