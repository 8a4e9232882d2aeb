//! How much memory the threads of the fuzz targets hold: an allocator that counts theirs and nobody else's.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// What the threads of one target asked for and did not give back. What they free for others is counted too: near
/// enough.
#[derive(Debug, Default)]
pub(super) struct Held {
    live: AtomicI64,
    peak: AtomicI64,
}

thread_local! {
    /// Whose thread it is, if anybody's.
    static WATCHED: Cell<Option<&'static Held>> = const { Cell::new(None) };
}

/// Threads that are watched: a look at each thread's own flag costs the other tests a tenth of their time.
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// The allocator of `lake`, counting.
pub(crate) struct Counting;

fn count(bytes: i64) {
    if WATCHERS.load(Ordering::Relaxed) > 0
        && let Ok(Some(held)) = WATCHED.try_with(Cell::get)
    {
        let live = held.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        held.peak.fetch_max(live, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as the caller promises.
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }
}

/// From now on this thread counts for a target.
pub(super) fn watch(held: &'static Held) {
    WATCHERS.fetch_add(1, Ordering::Relaxed);
    WATCHED.set(Some(held));
}

/// The thread ends.
pub(super) fn leave() {
    WATCHERS.fetch_sub(1, Ordering::Relaxed);
}

impl Held {
    /// The most that the target's threads held since the last call, in bytes beyond what they hold now.
    pub(super) fn peak(&self) -> i64 {
        let live = self.live.load(Ordering::Relaxed);
        self.peak.swap(live, Ordering::Relaxed) - live
    }
}
