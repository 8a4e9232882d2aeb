//! Whole tables through the door: the conformance suite, and what only Delta has.

use std::sync::Arc;

use super::Delta;
use crate::store::Store;

/// A store in memory that nobody else has.
pub(super) fn memory() -> Store {
    Store::open(&format!("memory://{}/table", uuid::Uuid::new_v4())).unwrap()
}

crate::conformance::suite!(conformance, |store| Arc::new(Delta::new(store)), None);
