//! What several families of tests need.

use std::sync::Arc;

use lakehouse_core::store::Store;
use object_store::memory::InMemory;

/// A store of its own in memory.
pub(crate) fn memory(name: &str) -> Store {
    let root = format!("memory://{name}").parse().expect("a URL");
    Store::over(Arc::new(InMemory::new()), root)
}
