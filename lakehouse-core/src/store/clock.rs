//! The clock and the ids. Nothing else in this crate asks the system for time or randomness.
//!
//! Inside of [`simulated`] they come from a [`Source`] instead: the same seed gives the same ids and times.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use std::{sync::Arc, time::Duration};
//! use lakehouse_core::store::clock::{self, Source};
//! let run = || {
//!     let late = Arc::new(Source::new(7).actor(1, -600_000));
//!     clock::simulated(late, async {
//!         clock::pause(Duration::from_secs(3600)).await; // an hour passes at once
//!         (clock::now_ms(), clock::new_commit_id(), clock::new_snapshot_id())
//!     })
//! };
//! assert_eq!(run().await, run().await);
//! # });
//! ```

#![expect(clippy::disallowed_methods, reason = "this is where they are allowed")]

use std::cell::RefCell;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::{Begun, Change, CommitId, FLOOR_MS};

/// Where simulated time starts: the first of January 2026, UTC.
const START_MS: i64 = 1_767_225_600_000;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Source>>> = const { RefCell::new(None) };
}

/// What [`simulated`] takes time, ids and randomness from. Time passes by a millisecond whenever somebody looks at
/// it, and by a pause's length in a pause.
#[derive(Debug)]
pub struct Source {
    /// Shared by all actors of a run.
    time_ms: Arc<AtomicI64>,
    skew_ms: i64,
    random: Mutex<StdRng>,
}

impl Source {
    /// A clock of its own and the randomness of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            time_ms: Arc::new(AtomicI64::new(START_MS)),
            skew_ms: 0,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    /// Another machine of the same run: the same time, read off a clock that is `skew_ms` milliseconds fast, and
    /// randomness of its own.
    #[must_use]
    pub fn actor(&self, seed: u64, skew_ms: i64) -> Self {
        Self {
            time_ms: Arc::clone(&self.time_ms),
            skew_ms,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    /// What this clock shows, in milliseconds since 1970 UTC. Looking takes a millisecond.
    pub fn now_ms(&self) -> i64 {
        self.pass(1)
    }

    /// Lets time pass, for all actors of the run.
    pub fn advance(&self, by: Duration) {
        self.pass(by.as_millis() as i64);
    }

    fn pass(&self, ms: i64) -> i64 {
        self.time_ms.fetch_add(ms, Ordering::Relaxed) + ms + self.skew_ms
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs a future with time, ids and randomness from `source`: that future alone, not what it hands to other tasks or
/// threads. So several actors on one thread can have a source each.
pub async fn simulated<F: Future>(source: Arc<Source>, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _outer = Restore(CURRENT.replace(Some(Arc::clone(&source))));
        future.as_mut().poll(context)
    })
    .await
}

/// The same future for another task: with the source that it would have here.
pub fn inherited<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let source = current();
    async move {
        match source {
            Some(source) => simulated(source, future).await,
            None => future.await,
        }
    }
}

/// Puts back the source that was there before, also when a poll panics.
struct Restore(Option<Arc<Source>>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

fn current() -> Option<Arc<Source>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Now, in milliseconds since 1970 UTC.
pub fn now_ms() -> i64 {
    current().map_or_else(|| chrono::Utc::now().timestamp_millis(), |source| source.pass(1))
}

/// Now, for who asks later how long it has been.
pub fn begin() -> Begun {
    Begun {
        wall_ms: now_ms(),
        steady: current().is_none().then(Instant::now),
    }
}

/// How long ago something began, by whichever clock shows more: one may have been set back since, the other stood still
/// while the machine slept.
pub fn since(begun: &Begun) -> Duration {
    let by_wall = now_ms().saturating_sub(begun.wall_ms);
    let by_wall = Duration::from_millis(u64::try_from(by_wall).unwrap_or(0));
    begun
        .steady
        .map_or(by_wall, |steady| by_wall.max(steady.elapsed()))
}

/// Whether a change is too old to be published: a writer that slept since it looked at its lease. What was staged goes at
/// twice the lease; a quarter of that is left for the put itself.
pub fn is_overdue(change: &Change) -> bool {
    let most = Duration::from_millis((FLOOR_MS / 4 * 3).cast_unsigned());
    change.begun.as_ref().is_some_and(|begun| since(begun) > most)
}

/// A new id for one operation: sorts by time, unique; used in commit metadata and staged file names.
pub fn new_commit_id() -> CommitId {
    let id = current().map_or_else(uuid::Uuid::now_v7, |source| {
        let now = source.pass(1).cast_unsigned();
        uuid::Builder::from_unix_timestamp_millis(now, &source.draw(|random| random.random())).into_uuid()
    });
    CommitId(id.to_string())
}

/// A new positive 63-bit id (Iceberg snapshot ids).
pub fn new_snapshot_id() -> i64 {
    if let Some(source) = current() {
        return source.draw(|random| random.random_range(1..i64::MAX));
    }
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    ((high ^ low) >> 1) as i64
}

/// A name that nobody else takes.
pub fn new_name() -> String {
    let id = current().map_or_else(uuid::Uuid::new_v4, |source| {
        uuid::Builder::from_random_bytes(source.draw(|random| random.random())).into_uuid()
    });
    id.simple().to_string()
}

/// Waits for a random time between half of `longest` and `longest`, so that writers that collided once
/// do not collide again in step.
pub async fn pause(longest: Duration) {
    if let Some(source) = current() {
        let length = longest.mul_f64(source.draw(|random| random.random_range(0.5..=1.0)));
        source.pass(length.as_millis() as i64);
        return tokio::task::yield_now().await;
    }
    tokio::time::sleep(longest.mul_f64(rand::random_range(0.5..=1.0))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_is_as_long_ago_as_the_clock_says_that_shows_more() {
        let hour_ms = 3_600_000;
        let set_back = Begun {
            wall_ms: now_ms() + hour_ms,
            steady: Instant::now().checked_sub(Duration::from_secs(2)),
        };
        assert!((2..60).contains(&since(&set_back).as_secs()));
        let slept = Begun {
            wall_ms: now_ms() - hour_ms,
            steady: Some(Instant::now()),
        };
        assert!((3600..3660).contains(&since(&slept).as_secs()));
    }

    #[tokio::test]
    async fn actors_take_turns_on_one_thread_and_keep_their_own_clock_and_ids() {
        let run = || async {
            let clock = Source::new(1);
            let look = |seed, skew| {
                simulated(Arc::new(clock.actor(seed, skew)), async move {
                    let before = now_ms();
                    pause(Duration::from_millis(1000)).await;
                    (before, now_ms(), new_commit_id(), new_snapshot_id())
                })
            };
            tokio::join!(look(2, 0), look(3, 600_000))
        };
        let (one, other) = run().await;
        assert_eq!((one.clone(), other.clone()), run().await);
        assert!(one.0 - START_MS < 10 && other.0 - START_MS > 600_000);
        // Pauses take no less than half of their longest; the first to look back has seen the other's too.
        assert!(one.1 - one.0 >= 1000 && other.1 - other.0 >= 500);
        assert!(one.2 != other.2 && one.3 != other.3 && one.3 > 0);
        assert!(now_ms() > START_MS && current().is_none());
    }
}
