//! What a command prints: text and tables for people, one JSON object for machines, and the rows of
//! a query in every form.

mod overlap;
mod rows;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};
use indicatif::{ProgressBar, ProgressStyle};
use lakehouse_core::Report;
use lakehouse_core::operations::CompactedGroup;
use serde_json::{Value, json};

use overlap::{ordered, ordered_json};
pub(crate) use overlap::{overlap_json, overlap_rows};
pub(crate) use rows::{Form, append_cells, write};

use crate::exit::Failure;
use crate::values::{show_bytes, show_count};

/// How this run of `lake` speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    /// One JSON object instead of text.
    pub(crate) json: bool,
}

impl Ui {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").map_err(stdout_failed)
    }

    /// Tells on stderr what went wrong while the command goes on.
    pub(crate) fn complain(&self, text: &str) {
        // Nobody is left to tell when this fails.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Prints the one object of this run.
    pub(crate) fn json(&self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Prints a table. Columns whose every cell is a number stand to the right.
    pub(crate) fn table(&self, header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        self.line(&grid(header, rows, true))
    }

    /// Prints names and values, one a line.
    pub(crate) fn pairs(&self, pairs: &[(&str, String)]) -> Result<(), Failure> {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in pairs {
            self.line(&format!("{name:width$}  {value}"))?;
        }
        Ok(())
    }

    /// Shows on a terminal that work goes on, once it has taken a second, until the guard is dropped.
    pub(crate) fn progress(&self, message: String) -> Progress {
        Progress::start(message)
    }

    /// Prints what an operation did to a table.
    pub(crate) fn report(&self, table: &str, report: &Report) -> Result<(), Failure> {
        if self.json {
            return self.json(&report_json(table, report));
        }
        self.line(&headline(table, report))?;
        if report.already.is_some() {
            return Ok(());
        }
        let mut pairs = Vec::new();
        for (group, figures) in FIGURES {
            let words: Vec<_> = figures
                .iter()
                .filter_map(|(word, metric)| {
                    let value = report.metrics.get(metric)?;
                    let shown = if matches!(*group, "bytes" | "memory") {
                        show_bytes(*value)
                    } else {
                        show_count(*value)
                    };
                    Some(format!("{word} {shown}"))
                })
                .collect();
            if !words.is_empty() {
                pairs.push((*group, words.join(", ")));
            }
        }
        let columns: Vec<_> = [
            ("added", &report.columns_added),
            ("widened", &report.columns_widened),
        ]
        .into_iter()
        .filter(|(_, columns)| !columns.is_empty())
        .map(|(word, columns)| format!("{word} {}", columns.join(", ")))
        .collect();
        if !columns.is_empty() {
            pairs.push(("columns", columns.join("; ")));
        }
        if !report.changes.is_empty() {
            pairs.push(("changes", report.changes.join("; ")));
        }
        if let Some(order) = &report.order {
            pairs.push(("order", ordered(order)));
        }
        if report.attempts > 1 {
            pairs.push(("attempts", report.attempts.to_string()));
        }
        if !report.phases.is_empty() {
            let phases: Vec<_> = report
                .phases
                .iter()
                .map(|(phase, time)| format!("{phase} {:.3} s", time.as_secs_f64()))
                .collect();
            pairs.push(("time", phases.join(", ")));
        }
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(name, value)| (format!("  {name}"), value))
            .collect();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        self.pairs(&pairs)?;
        self.groups(report)?;
        if !report.dry_run || report.files.is_empty() {
            return Ok(());
        }
        self.table(
            &["file", "rows that change", "rows", "size", "becomes"],
            &touched_files(report),
        )?;
        match report.files.len().saturating_sub(LISTED_FILES) {
            0 => Ok(()),
            more => self.line(&format!("and {more} more files (all of them with --json)")),
        }
    }
}

impl Ui {
    /// The groups of a compaction: all on a dry run, else those that were skipped.
    fn groups(&self, report: &Report) -> Result<(), Failure> {
        let told = |group: &&CompactedGroup| report.dry_run || group.outcome.why().is_some();
        let groups: Vec<_> = report.groups.iter().filter(told).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let cells = groups.iter().take(LISTED_FILES).map(|group| {
            vec![
                match group.partition.as_str() {
                    "" => "(all)".to_owned(),
                    partition => partition.to_owned(),
                },
                show_count(group.files),
                show_bytes(group.bytes),
                show_count(group.masked_rows),
                show_count(group.expected_files),
                group.outcome.why().unwrap_or(group.outcome.name()).to_owned(),
            ]
        });
        let header = [
            "partition",
            "files",
            "size",
            "masked rows",
            "new files",
            "becomes",
        ];
        self.table(&header, &cells.collect::<Vec<_>>())?;
        match groups.len().saturating_sub(LISTED_FILES) {
            0 => Ok(()),
            more => self.line(&format!("and {more} more groups (all of them with --json)")),
        }
    }
}

/// The figures of a report, as people read them: group, and in it word and metric.
const FIGURES: &[(&str, &[(&str, &str)])] = &[
    (
        "rows",
        &[
            ("source", "num_source_rows"),
            ("inserted", "num_target_rows_inserted"),
            ("updated", "num_target_rows_updated"),
            ("deleted", "num_target_rows_deleted"),
            ("unchanged", "num_target_rows_unchanged"),
            ("copied", "num_target_rows_copied"),
            ("written", "num_output_rows"),
        ],
    ),
    (
        "files",
        &[
            ("scanned", "num_target_files_scanned"),
            ("skipped by partition", "num_target_files_skipped_by_partition"),
            ("skipped by statistics", "num_target_files_skipped_by_statistics"),
            ("masked", "num_target_files_masked"),
            ("rewritten", "num_target_files_rewritten"),
            ("added", "num_target_files_added"),
            ("removed", "num_target_files_removed"),
        ],
    ),
    (
        "groups",
        &[
            ("planned", "num_groups_planned"),
            ("committed", "num_groups_committed"),
            ("skipped", "num_groups_skipped"),
            ("commits", "num_commits"),
            ("rows that went meanwhile", "num_target_rows_carried"),
        ],
    ),
    ("row groups", &[("copied", "num_target_row_groups_copied")]),
    ("bytes", &[("read", "bytes_read"), ("written", "bytes_written")]),
    ("memory", &[("at most", "memory_predicted")]),
];

/// How many files a dry run lists.
const LISTED_FILES: usize = 20;

/// The files of which rows change, most rows first: header and lines.
fn touched_files(report: &Report) -> Vec<Vec<String>> {
    let mut files: Vec<_> = report.files.iter().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.touched));
    let cells = files.iter().take(LISTED_FILES).map(|file| {
        vec![
            file.path.clone(),
            show_count(file.touched),
            show_count(file.rows),
            show_bytes(file.bytes),
            file.fate.name().to_owned(),
        ]
    });
    cells.collect()
}

fn headline(table: &str, report: &Report) -> String {
    let operation = report.operation;
    if let Some(version) = report.already {
        return format!(
            "{operation} {table}: this idempotency key made version {version} already; nothing was committed"
        );
    }
    if report.dry_run {
        return format!(
            "{operation} {table}: dry run on version {}, nothing was committed",
            report.version
        );
    }
    if report.committed {
        return format!("{operation} {table}: version {}", report.version);
    }
    format!(
        "{operation} {table}: nothing to do, still version {}",
        report.version
    )
}

/// A report for machines.
fn report_json(table: &str, report: &Report) -> Value {
    let mut value = json!({
        "operation": report.operation,
        "table": table,
        "version": report.version,
        "committed": report.committed,
        "already": report.already,
        "dry_run": report.dry_run,
        "attempts": report.attempts,
        "plans": report.plans,
        "columns_added": report.columns_added,
        "columns_widened": report.columns_widened,
        "changes": report.changes,
        "metrics": report.metrics,
        "files": files_json(report),
        "seconds": phases_json(report),
    });
    if report.operation == "compact" {
        value["groups"] = groups_json(report);
        value["order"] = report.order.as_ref().map(ordered_json).into();
    }
    value
}

/// What becomes of the groups of a compaction.
fn groups_json(report: &Report) -> Value {
    let groups = report.groups.iter().map(|group| {
        json!({
            "partition": group.partition, "files": group.files, "bytes": group.bytes, "rows": group.rows,
            "masked_rows": group.masked_rows, "expected_files": group.expected_files,
            "outcome": group.outcome.name(), "version": group.outcome.version(), "why": group.outcome.why(),
        })
    });
    groups.collect()
}

/// What becomes of files of which rows change.
fn files_json(report: &Report) -> Value {
    let files = report.files.iter().map(|file| {
        json!({
            "path": file.path, "rows": file.rows, "bytes": file.bytes, "touched": file.touched,
            "fate": file.fate.name(),
        })
    });
    files.collect()
}

/// Seconds per phase.
pub(crate) fn phases_json(report: &Report) -> Value {
    let seconds = report.phases.iter();
    seconds
        .map(|(phase, time)| ((*phase).to_owned(), json!(time.as_secs_f64())))
        .collect()
}

/// Text as a table. `fit` breaks long cells where the terminal is too narrow; otherwise lines are as
/// long as they need to be.
fn grid(header: &[&str], rows: &[Vec<String>], fit: bool) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::UTF8_FULL_CONDENSED);
    if fit && std::io::stdout().is_terminal() {
        grid.set_content_arrangement(ContentArrangement::Dynamic);
    }
    grid.set_header(header);
    for row in rows {
        grid.add_row(row);
    }
    for (index, column) in grid.column_iter_mut().enumerate() {
        let mut cells = rows
            .iter()
            .filter_map(|row| row.get(index))
            .filter(|cell| *cell != "NULL")
            .peekable();
        if cells.peek().is_some() && cells.all(|cell| is_number(cell)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.to_string()
}

/// Whether a cell is a number, a size or a duration.
fn is_number(cell: &str) -> bool {
    let digits = cell
        .trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ')
        .replace(',', "");
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '-') && digits.parse::<f64>().is_ok()
}

fn stdout_failed(source: std::io::Error) -> Failure {
    if source.kind() == std::io::ErrorKind::BrokenPipe {
        Failure::BrokenPipe
    } else {
        Failure::Io {
            action: "write to",
            place: "stdout".into(),
            source,
        }
    }
}

/// A line on stderr that says that work goes on. Dropping it takes the line away.
pub(crate) struct Progress {
    bar: Arc<OnceLock<ProgressBar>>,
    starter: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    fn start(message: String) -> Self {
        let bar = Arc::new(OnceLock::new());
        let starter = std::io::stderr().is_terminal().then(|| {
            let bar = Arc::clone(&bar);
            tokio::spawn(async move {
                // What is done within a second needs no progress.
                tokio::time::sleep(Duration::from_secs(1)).await;
                let spinner = ProgressBar::new_spinner()
                    .with_message(message)
                    .with_elapsed(Duration::from_secs(1));
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                    spinner.set_style(style);
                }
                spinner.enable_steady_tick(Duration::from_millis(120));
                // A bar that comes after the guard was dropped draws nothing: nobody holds it.
                let _ = bar.set(spinner);
            })
        });
        Self { bar, starter }
    }

    /// Says something else from now on.
    pub(crate) fn say(&self, message: String) {
        if let Some(bar) = self.bar.get() {
            bar.set_message(message);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(starter) = &self.starter {
            starter.abort();
        }
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let rows = [
            vec!["a".to_owned(), "1,234".to_owned()],
            vec!["bb".to_owned(), "5".to_owned()],
        ];
        let text = grid(&["name", "count"], &rows, false);
        assert!(text.contains("│ a    ┆ 1,234 │"), "{text}");
        assert!(text.contains("│ bb   ┆     5 │"), "{text}");
        assert!(is_number("1.5 MB") && is_number("-3") && is_number("1e-5"));
        assert!(!is_number("2013-01-01") && !is_number("word") && !is_number(""));
    }
}
