//! Delta Lake behind the door: log, actions, checkpoints, deletion vectors, protocol features, publish.

use crate::store::Store;

/// A Delta table: `_delta_log/N.json` is created if absent.
#[derive(Debug, Clone)]
pub struct Delta {
    store: Store,
}

impl Delta {
    /// The table at this store's root, whether it exists yet or not.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store it lives in.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
