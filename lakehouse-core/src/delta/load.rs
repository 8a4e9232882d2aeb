//! Loading a version: by number, distance or time.

use std::sync::{Arc, PoisonError};

use chrono::DateTime;

use super::kernel::Replay;
use super::state::State;
use super::{Delta, log};
use crate::error::{Error, Result};
use crate::model::{At, Snapshot};
use crate::planted::{self, Bug};

impl Delta {
    /// Loads what `at` names.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the versions that there are.
    pub(super) async fn load_at(&self, at: &At) -> Result<Arc<Snapshot>> {
        match at {
            At::Latest => self.load(None).await,
            At::Version(version @ 0..) => self.load(Some(version.cast_unsigned())).await,
            At::Version(back) => {
                let newest = self.load(None).await?;
                match newest.version.checked_add(*back).filter(|version| *version >= 0) {
                    Some(version) => self.load(Some(version.cast_unsigned())).await,
                    None => Err(Error::not_found(
                        format!("a version {} before the newest", back.unsigned_abs()),
                        self.store.location(),
                    )
                    .with_hint(format!("the newest version is {}", newest.version))),
                }
            }
            At::Timestamp(instant) => self.load_before(*instant).await,
            At::Ref(name) => Err(Error::unsupported(
                format!("there is no tag or branch {name:?}: Delta tables have no branches or tags"),
                "name a version or a time, or use --format iceberg",
            )),
        }
    }

    /// Loads a version, the newest if `None`.
    pub(super) async fn load(&self, version: Option<u64>) -> Result<Arc<Snapshot>> {
        let known = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.filter(|known| version.is_none_or(|version| version >= known.state));
        let settled = version.is_none() && planted::is(Bug::CacheTrusted);
        if let Some(known) = known
            .as_ref()
            .filter(|known| settled || version == Some(known.state))
        {
            return Ok(Arc::clone(known));
        }
        // The kernel looks for a version from its number backwards, however far that is.
        let next = known.as_ref().map(|known| known.state + 1);
        if let Some(version) = version.filter(|version| next != Some(*version)) {
            log::check_version(&self.store, version).await?;
        }
        let base = match &known {
            Some(known) => Some(State::of(known)?.replay.clone()),
            None => None,
        };
        let mut loaded = Replay::load(&self.store, base, version).await;
        if known.is_some() && matches!(loaded, Err(Error::Invalid { .. } | Error::NotFound { .. })) {
            // The log may have been cleaned up beneath the version that we knew.
            loaded = Replay::load(&self.store, None, version).await;
        }
        let replay = match loaded {
            Ok(replay) => replay,
            Err(error) => return Err(log::explain(&self.store, version, error).await),
        };
        if let Some(known) = known.filter(|known| known.state == replay.version()) {
            return Ok(known);
        }
        let timestamp_ms = log::timestamp(&self.store, replay.version()).await?;
        let snapshot = Arc::new(State::new(replay)?.into_snapshot(timestamp_ms));
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.as_ref().is_none_or(|known| known.state < snapshot.state) {
            *newest = Some(Arc::clone(&snapshot));
        }
        Ok(snapshot)
    }

    /// Loads the newest version that was committed at or before an instant. Times grow from version to
    /// version in the logs that we write; where a clock went back, one of the versions between which
    /// the instant lies is taken.
    async fn load_before(&self, instant: i64) -> Result<Arc<Snapshot>> {
        let newest = self.load(None).await?;
        if newest.timestamp_ms <= instant {
            return Ok(newest);
        }
        let there = log::commits(&self.store).await?;
        let versions: Vec<u64> = there.range(..newest.state).copied().collect();
        let time_of = async |version: u64| log::timestamp(&self.store, version).await;
        // Invariant: everything below `low` is at or before the instant, everything from `high` on after.
        let (mut low, mut high) = (0, versions.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if time_of(versions[middle]).await? <= instant {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if let Some(last) = low.checked_sub(1) {
            return self.load(Some(versions[last])).await;
        }
        let (oldest, time) = match versions.first() {
            Some(first) => (*first, time_of(*first).await?),
            None => (newest.state, newest.timestamp_ms),
        };
        Err(Error::not_found(
            format!("a version of {} or before", show(instant)),
            self.store.location(),
        )
        .with_hint(format!(
            "the oldest version in the log is {oldest}, of {}",
            show(time)
        )))
    }
}

/// An instant for people.
fn show(instant_ms: i64) -> String {
    DateTime::from_timestamp_millis(instant_ms).map_or_else(
        || format!("{instant_ms} ms since 1970"),
        |instant| instant.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
    )
}
