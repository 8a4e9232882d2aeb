//! What keeps commits and readers of a stream as quick after many commits as after few.
//!
//! Small files are compacted, and versions go that the table, or who asked for the stream, does not want to keep. Rows are
//! committed by then, so that nothing of this fails a stream: the next time it is tried again. Formats hold names of
//! versions for days, and looking for files that can go takes a listing: what let nothing go is tried less often.

use super::{Event, Stream};
use crate::format::Handle;
use crate::operations::expire::{Files, expire_with};
use crate::operations::{Compact, Expire, Options, compact};

/// Commits between two looks at old versions where files are not compacted.
const EVERY: u64 = 100;
/// Turns that are let pass at most between two tries.
const MOST_PAUSE: u32 = 8;

/// When it is time for what.
#[derive(Debug)]
pub(super) struct Upkeep {
    compact: bool,
    every: u64,
    expire: Option<Expire>,
    commits: u64,
    versions: Pace,
    files: Pace,
}

impl Upkeep {
    pub(super) fn new(stream: &Stream) -> Self {
        Self {
            compact: stream.compact_every.is_some(),
            every: stream.compact_every.unwrap_or(EVERY).max(1),
            expire: stream.expire,
            commits: 0,
            versions: Pace::default(),
            files: Pace::default(),
        }
    }

    /// After each commit of rows.
    pub(super) async fn after_commit(
        &mut self,
        handle: &Handle,
        options: &Options,
        tell: &mut (dyn FnMut(&Event<'_>) + Send),
    ) {
        self.commits += 1;
        if !self.commits.is_multiple_of(self.every) {
            return;
        }
        let options = Options {
            token: None,
            ..options.clone()
        };
        if self.compact {
            match compact(handle, &Compact::default(), &options).await {
                Ok(report) if report.committed => tell(&Event::Report(&report)),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "small files could not be compacted"),
            }
        }
        let Some(what) = self.expire.filter(|_| self.versions.is_due()) else {
            return;
        };
        let looks = self.files.is_due();
        let files = if looks { Files::Clean } else { Files::Leave };
        match expire_with(handle, &what, &options, files).await {
            Ok(report) => {
                self.versions
                    .tried(report.committed || !report.files.files.is_empty());
                if looks {
                    self.files.tried(!report.files.files.is_empty());
                }
                if report.committed {
                    tell(&Event::Expired(&report));
                }
            }
            Err(error) => {
                self.versions.tried(false);
                tracing::warn!(%error, "old versions could not be let go");
            }
        }
    }
}

/// What was in vain waits twice as long before it is tried again.
#[derive(Debug, Default)]
struct Pace {
    pause: u32,
    left: u32,
}

impl Pace {
    /// Whether it is its turn.
    fn is_due(&mut self) -> bool {
        match self.left {
            0 => true,
            _ => {
                self.left -= 1;
                false
            }
        }
    }

    fn tried(&mut self, did_something: bool) {
        self.pause = match did_something {
            true => 0,
            false => (self.pause * 2).clamp(1, MOST_PAUSE),
        };
        self.left = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_vain_is_tried_less_and_less_often_up_to_a_bound() {
        let mut pace = Pace::default();
        let mut tried = Vec::new();
        for turn in 0..60 {
            if pace.is_due() {
                tried.push(turn);
                pace.tried(turn >= 42);
            }
        }
        assert_eq!(tried[..6], [0, 2, 5, 10, 19, 28]);
        // What did something goes on.
        assert!(tried.ends_with(&[55, 56, 57, 58, 59]), "{tried:?}");
    }
}
