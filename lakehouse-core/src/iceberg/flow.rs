//! What a listing holds of manifests while it reads them: so many bytes as stored between the request and the end of
//! decoding, and as many being decoded as there are processors. They are decoded on the same threads, one after the
//! other: each thread keeps for a while what it frees, and nobody else gets it.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::spawn_blocking;

use super::files::CONCURRENT;

/// Bytes of manifests at once: two of the 8 MB that writers aim at, or [`CONCURRENT`] smaller ones. A larger one goes
/// alone.
const BYTES: u32 = 16 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// Room and threads for the manifests of one listing.
pub(super) struct Flow {
    bytes: Semaphore,
    queue: Arc<Mutex<Queue>>,
    /// Threads that decode.
    most: usize,
}

/// What waits to be decoded.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Threads that take from it.
    threads: usize,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("bytes", &self.bytes)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl Flow {
    pub(super) fn new() -> Self {
        let processors = available_parallelism().map_or(2, usize::from);
        Self {
            bytes: Semaphore::new(BYTES as usize),
            queue: Arc::default(),
            most: processors.min(CONCURRENT),
        }
    }

    /// Waits until there is room for a manifest of so many bytes by its list; what the list says may be wrong, and is
    /// bounded where it is read. `None` if there is no end to waiting, which does not happen.
    pub(super) async fn room(&self, length: i64) -> Option<SemaphorePermit<'_>> {
        let bytes = u32::try_from(length.max(1)).unwrap_or(BYTES).min(BYTES);
        self.bytes.acquire_many(bytes).await.ok()
    }

    /// Does the work when its turn comes, off the async threads; `None` if it panics. On threads of the runtime, which
    /// a forked process makes anew; a pool of its own would be dead there.
    pub(super) async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = move || {
            if let Ok(found) = catch_unwind(AssertUnwindSafe(work)) {
                // Nobody waits for it any more if this fails.
                let _ = done.send(found);
            }
        };
        if self.queue(Box::new(job)) {
            let queue = Arc::clone(&self.queue);
            spawn_blocking(move || {
                while let Some(job) = next(&queue) {
                    job();
                }
            });
        }
        result.await.ok()
    }

    /// Whether it needs one more thread.
    fn queue(&self, job: Job) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting.push_back(job);
        let more = queue.threads < self.most;
        queue.threads += usize::from(more);
        more
    }
}

/// What is to be done next; the thread goes if there is nothing.
fn next(queue: &Mutex<Queue>) -> Option<Job> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let job = queue.waiting.pop_front();
    queue.threads -= usize::from(job.is_none());
    job
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    #[test]
    fn large_manifests_wait_for_each_other_and_small_ones_do_not() {
        let flow = Flow::new();
        let small: Vec<_> = (0..CONCURRENT)
            .map(|_| flow.room(1 << 20).now_or_never().flatten())
            .collect();
        assert!(small.iter().all(Option::is_some));
        assert!(flow.room(9 << 20).now_or_never().is_none());
        drop(small);
        // One that is larger than all the room there is, one of a length that cannot be, and one behind them.
        for length in [1 << 40, i64::MAX] {
            let alone = flow.room(length).now_or_never().flatten();
            assert!(alone.is_some() && flow.room(-1).now_or_never().is_none());
        }
        assert!(flow.room(-1).now_or_never().flatten().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_is_decoded_on_no_more_threads_at_once_than_there_are_processors_and_a_panic_is_one_answer() {
        let flow = Flow::new();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let works = (0..100).map(|number| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            flow.decode(move || {
                assert_ne!(number, 50, "this one is broken");
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(1));
                now.fetch_sub(1, Ordering::SeqCst);
                number
            })
        });
        let found = join_all(works).await;
        let expected: Vec<_> = (0..100).map(|number| (number != 50).then_some(number)).collect();
        assert_eq!(found, expected);
        let most = most.load(Ordering::SeqCst);
        assert!((1..=flow.most).contains(&most), "{most} at once");
    }
}
