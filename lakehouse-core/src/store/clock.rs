//! The clock and the ids. Nothing else in this crate asks the system for time or randomness.

use std::time::Duration;

use crate::model::CommitId;

/// Now, in milliseconds since 1970 UTC.
pub fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// A new id for one operation: sorts by time, unique; used in commit metadata and staged file names.
pub fn new_commit_id() -> CommitId {
    CommitId(uuid::Uuid::now_v7().to_string())
}

/// A new positive 63-bit id (Iceberg snapshot ids).
pub fn new_snapshot_id() -> i64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    ((high ^ low) >> 1) as i64
}

/// Waits for a random time between half of `longest` and `longest`, so that writers that collided once
/// do not collide again in step.
pub async fn pause(longest: Duration) {
    tokio::time::sleep(longest.mul_f64(rand::random_range(0.5..=1.0))).await;
}
