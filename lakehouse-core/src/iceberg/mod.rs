//! Apache Iceberg v2 and v3 behind the door: metadata, manifests, delete files, Puffin, publish.

use crate::store::Store;

/// An Iceberg table in the path catalog: `metadata/vN.metadata.json` is created if absent.
#[derive(Debug, Clone)]
pub struct Iceberg {
    store: Store,
}

impl Iceberg {
    /// The table at this store's root, whether it exists yet or not.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store it lives in.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
