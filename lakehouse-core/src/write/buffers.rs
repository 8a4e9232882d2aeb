//! Buffers that are used again.
//!
//! One thread fills a buffer and another lets it go. Allocators keep what is freed for the thread that asked for it, so that
//! large buffers of many threads would add up to most of what was ever read or written.

use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes of buffers that are kept for later.
const MAX_KEPT: usize = 32 << 20;

/// The buffers of one writer that are free.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A full buffer, which goes back when the last of its bytes is let go.
struct Lent {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// An empty buffer of at least so many bytes, and less than twice as many: what is lent may be kept for long.
    pub(super) fn lend(&self, capacity: usize) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<u8>| (capacity..2 * capacity).contains(&buffer.capacity());
        match free.buffers.iter().rposition(fits) {
            Some(at) => {
                let buffer = free.buffers.swap_remove(at);
                free.bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(capacity),
        }
    }

    /// Its bytes, which bring the buffer back.
    pub(super) fn lent(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent {
            bytes,
            home: Arc::clone(self),
        })
    }

    fn take_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.bytes + bytes.capacity() <= MAX_KEPT {
            free.bytes += bytes.capacity();
            free.buffers.push(bytes);
        }
    }

    /// How many are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .buffers
            .len()
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.take_back(take(&mut self.bytes));
    }
}
