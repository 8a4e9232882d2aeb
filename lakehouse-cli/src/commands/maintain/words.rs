//! A step of maintenance in words.

use lakehouse_core::operations::maintain::{Maintained, Step, StepOutcome, StepReport};

use crate::values::{show_bytes, show_count};

/// `1 file`, `12 files`.
fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", show_count(count)),
    }
}

/// What a step did, or on a dry run would do: `12 files of 3.1 MB into 2`; `nothing to do`; why it did not.
pub(in crate::commands) fn what(report: &StepReport) -> String {
    match &report.outcome {
        StepOutcome::Nothing => "nothing to do".to_owned(),
        StepOutcome::Skipped(why) => format!("left out: {why}"),
        StepOutcome::Failed(error) => format!("failed: {error}"),
        StepOutcome::Done | StepOutcome::Planned => {
            let mut text = figures(report);
            for (why, files) in &report.left {
                text.push_str(&format!(
                    "; {} left for the next run: {why}",
                    counted(*files, "file")
                ));
            }
            text
        }
    }
}

fn figures(report: &StepReport) -> String {
    let figure = |name: &str| report.figure(name);
    let files = |files: u64| format!("{} of {}", counted(files, "file"), show_bytes(figure("bytes")));
    match report.step {
        Step::Compact => format!(
            "{} into {}",
            files(figure("files")),
            show_count(figure("new_files"))
        ),
        Step::RewriteManifests => format!(
            "{} into {}",
            counted(figure("manifests"), "manifest"),
            show_count(figure("new_manifests"))
        ),
        Step::Checkpoint => format!(
            "after {} log entries without one",
            show_count(figure("log_entries"))
        ),
        Step::Expire => {
            let mut parts = vec![counted(figure("versions"), "version")];
            if figure("refs") > 0 {
                parts.push(format!("{} tags and branches", show_count(figure("refs"))));
            }
            if figure("metadata_files") > 0 {
                parts.push(format!("{} of metadata", files(figure("metadata_files"))));
            }
            parts.join(", ")
        }
        Step::Vacuum => files(figure("files")),
    }
}

/// All of it in one line: what was done, and what failed.
pub(super) fn line(done: &Maintained) -> String {
    let told = |report: &&StepReport| matches!(report.outcome, StepOutcome::Done | StepOutcome::Failed(_));
    let steps = done.steps.iter().filter(told);
    let steps: Vec<String> = steps
        .map(|report| format!("{} {}", report.step.name(), what(report)))
        .collect();
    match steps.is_empty() {
        true => "nothing to do".to_owned(),
        false => steps.join(", "),
    }
}
