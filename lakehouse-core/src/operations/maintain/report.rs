//! What became of each step.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::Error;
use crate::model::Version;

/// A step of maintenance, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Small and masked files are rewritten.
    Compact,
    /// Manifests are written anew, where the format has them.
    RewriteManifests,
    /// The log is summed up, where the format has one.
    Checkpoint,
    /// Old versions go.
    Expire,
    /// Files that nobody needs go.
    Vacuum,
}

impl Step {
    /// The verb that does the same alone, and the section of the policy.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::RewriteManifests => "rewrite-manifests",
            Self::Checkpoint => "checkpoint",
            Self::Expire => "expire",
            Self::Vacuum => "vacuum",
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone)]
pub enum StepOutcome {
    /// It did something.
    Done,
    /// There was nothing to do, and nothing was written.
    Nothing,
    /// A dry run: it would do something.
    Planned,
    /// It was left out, for this reason.
    Skipped(String),
    /// It failed. What it had committed until then stays.
    Failed(Arc<Error>),
}

impl StepOutcome {
    /// The word in reports: `done`, `nothing`, `planned`, `skipped`, `failed`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Nothing => "nothing",
            Self::Planned => "planned",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it was left out or failed.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Skipped(why) => Some(why.clone()),
            Self::Failed(error) => Some(error.to_string()),
            _ => None,
        }
    }
}

/// One step.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Which.
    pub step: Step,
    /// What became of it.
    pub outcome: StepOutcome,
    /// Figures of what it did, or would do. Of compact `files`, `bytes`, `rows`, `masked_rows` (of files that are
    /// rewritten), `new_files`; of rewrite-manifests `manifests`, `new_manifests`; of checkpoint `log_entries`; of expire
    /// `versions`, `refs`, `metadata_files`, `bytes`; of vacuum `files`, `bytes`.
    pub figures: BTreeMap<&'static str, u64>,
    /// What of it was left for the next run, by reason: files.
    pub left: BTreeMap<String, u64>,
}

impl StepReport {
    /// One figure; 0 where the step has none of that name.
    pub fn figure(&self, name: &str) -> u64 {
        self.figures.get(name).copied().unwrap_or(0)
    }

    /// The step for machines.
    pub fn to_json(&self) -> Value {
        json!({
            "step": self.step.name(), "outcome": self.outcome.name(), "why": self.outcome.why(),
            "figures": self.figures, "left": self.left,
        })
    }
}

/// What maintenance did.
#[derive(Debug, Clone)]
pub struct Maintained {
    /// The newest version afterwards.
    pub version: Version,
    /// Nothing was done because nothing was to be.
    pub dry_run: bool,
    /// Its steps, in their order.
    pub steps: Vec<StepReport>,
}

impl Maintained {
    /// One step; `None` where the table has no such thing.
    pub fn step(&self, step: Step) -> Option<&StepReport> {
        self.steps.iter().find(|one| one.step == step)
    }

    /// Whether any step did something.
    pub fn did_something(&self) -> bool {
        self.steps
            .iter()
            .any(|one| matches!(one.outcome, StepOutcome::Done))
    }

    /// The steps that failed, and why.
    pub fn failed(&self) -> impl Iterator<Item = (Step, &Error)> {
        self.steps.iter().filter_map(|one| match &one.outcome {
            StepOutcome::Failed(error) => Some((one.step, error.as_ref())),
            _ => None,
        })
    }

    /// The report for machines.
    pub fn to_json(&self) -> Value {
        json!({
            "version": self.version, "dry_run": self.dry_run, "did_something": self.did_something(),
            "steps": self.steps.iter().map(StepReport::to_json).collect::<Value>(),
        })
    }
}
