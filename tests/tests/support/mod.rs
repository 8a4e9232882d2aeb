//! What several families of tests need.

use std::sync::Arc;

use lakehouse_core::store::Store;
use object_store::memory::InMemory;

/// A store of its own in memory.
pub(crate) fn memory(name: &str) -> Store {
    let root = format!("memory://{name}").parse().expect("a URL");
    Store::over(Arc::new(InMemory::new()), root)
}

/// A number that the environment may set, for longer runs by hand.
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}
