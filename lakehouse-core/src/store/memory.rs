//! Stores that live as long as the process: `memory://NAME`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object_store::ObjectStore;
use object_store::memory::InMemory;

static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

/// The store of that URL: the same objects every time.
pub(super) fn named(url: &str) -> Arc<dyn ObjectStore> {
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(stores.entry(url.to_owned()).or_default()) as Arc<dyn ObjectStore>
}
