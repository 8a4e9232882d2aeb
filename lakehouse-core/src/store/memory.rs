//! Stores that live as long as the process: `memory://NAME`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::Store;

static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

/// The store of that URL: the same objects every time.
pub(super) fn named(url: &str) -> Arc<dyn ObjectStore> {
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(stores.entry(url.to_owned()).or_default()) as Arc<dyn ObjectStore>
}

impl Store {
    /// An empty store in memory under the same location and limits, gone when it is dropped: for what is only tried.
    #[must_use]
    pub fn scratch(&self) -> Self {
        Self {
            limits: Arc::clone(&self.limits),
            ..Self::over(Arc::new(InMemory::new()), self.root().clone())
        }
    }
}
