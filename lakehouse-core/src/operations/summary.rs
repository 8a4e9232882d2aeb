//! What an operation tells of itself: figures, files, phases.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::TouchedFile;

/// Figures and times of the last plan.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) metrics: BTreeMap<&'static str, u64>,
    pub(super) files: Vec<TouchedFile>,
    pub(super) columns_added: Vec<String>,
    pub(super) columns_widened: Vec<String>,
    pub(super) changes: Vec<String>,
    pub(super) phases: Vec<(&'static str, Duration)>,
    running: Option<(&'static str, Instant)>,
}

impl Summary {
    pub(super) fn forget_columns(&mut self) {
        self.columns_added.clear();
        self.columns_widened.clear();
        self.changes.clear();
    }

    pub(super) fn begin(&mut self, phase: &'static str) {
        self.end();
        #[expect(
            clippy::disallowed_methods,
            reason = "how long it took is told, nothing depends on it"
        )]
        let now = Instant::now();
        self.running = Some((phase, now));
    }

    pub(super) fn end(&mut self) {
        let Some((phase, started)) = self.running.take() else {
            return;
        };
        let took = started.elapsed();
        match self.phases.iter_mut().find(|(name, _)| *name == phase) {
            Some((_, sum)) => *sum += took,
            None => self.phases.push((phase, took)),
        }
    }
}

/// The name that commits keep a figure under: `rows_inserted`, `files_added` ...
pub(super) fn short_name(name: &str) -> &str {
    let name = name.strip_prefix("num_").unwrap_or(name);
    name.strip_prefix("target_").unwrap_or(name)
}
