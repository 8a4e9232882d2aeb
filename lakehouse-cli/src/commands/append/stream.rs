//! Rows that come in for as long as somebody sends them.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lakehouse_core::operations::{self, Event, Expire, Folder, InputFormat, Stream};
use lakehouse_core::{Options, Report, Table};
use serde_json::{Value, json};

use crate::commands::signals::Stop;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values::{self, parse_duration, show_count};

#[derive(Debug, Clone, Args)]
pub(super) struct StreamArgs {
    /// Take the files that appear in this folder, each once, also over restarts; committed ones are moved to
    /// DIR/.lake/done, those that cannot be added to DIR/.lake/refused, with the reason beside them. Write files
    /// elsewhere and move them in, or name them *.tmp until they are complete
    #[arg(long, value_name = "DIR", conflicts_with = "files")]
    watch: Option<PathBuf>,
    /// Commit so often (10s), or every so many rows (5000), or whichever comes first if it is given twice.
    /// The rows of stdin are then JSON lines
    #[arg(long, value_name = "TIME|ROWS")]
    commit_every: Vec<Every>,
    /// With --commit-every: the name of these lines in the table. A run that is started again with the same lines from
    /// the first one on skips those that the table has. Of two runs at once one ends with a conflict
    #[arg(long, value_name = "NAME", requires = "commit_every")]
    stream: Option<String>,
    /// Compact small files after so many commits [default: 100, 0 for never]
    #[arg(long, value_name = "COMMITS")]
    compact_every: Option<u64>,
    /// As often as files are compacted, let versions go that are this old (1h, 7d), or, with --keep-commits, as soon as
    /// they have so many after them; never keeps all. Tags, branches and what they hold stay. Without it: as the table's
    /// properties say, 5 days (Iceberg) and 30 days (Delta) where they say nothing. A Delta table keeps all of the last
    /// 48 hours
    #[arg(long, value_name = "TIME|never", value_parser = parse_age)]
    expire_after: Option<Age>,
    /// Keep at least the last N versions. Without --expire-after: those and no others, however young
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_commits: Option<u32>,
    /// With --watch: a file that has not changed for so long is complete
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "2s")]
    settle: Duration,
    /// With --watch: end when no file is left
    #[arg(long, requires = "watch")]
    drain: bool,
    /// With --watch: remove committed files instead of moving them
    #[arg(long, requires = "watch")]
    remove: bool,
}

/// Commits between two compactions.
const COMPACT_EVERY: u64 = 100;

#[derive(Debug, Clone, Copy)]
enum Every {
    Time(Duration),
    Rows(u64),
}

impl std::str::FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().trim_end_matches("rows").trim_end().parse() {
            Ok(0) => Err("a commit has at least one row".to_owned()),
            Ok(rows) => Ok(Self::Rows(rows)),
            Err(_) => parse_time(text).map(Self::Time).map_err(|_| {
                format!(
                    "`{text}` is neither a length of time nor a number of rows; write it like 10s or 5000"
                )
            }),
        }
    }
}

/// How old versions become.
#[derive(Debug, Clone, Copy)]
enum Age {
    Never,
    Of(i64),
}

fn parse_age(text: &str) -> Result<Age, String> {
    match text {
        "never" => Ok(Age::Never),
        text => values::parse_age(text).map(Age::Of),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let milliseconds = parse_duration(text)?;
    Ok(Duration::from_millis(milliseconds.unsigned_abs()))
}

impl StreamArgs {
    /// Whether rows are committed as they come.
    pub(super) fn any(&self) -> bool {
        self.watch.is_some() || !self.commit_every.is_empty()
    }

    fn stream(&self) -> Stream {
        let mut stream = Stream {
            key: self.stream.clone(),
            compact_every: Some(self.compact_every.unwrap_or(COMPACT_EVERY)).filter(|every| *every > 0),
            expire: self.expire(),
            ..Stream::default()
        };
        for every in &self.commit_every {
            match every {
                Every::Time(time) => stream.time = Some(*time),
                Every::Rows(rows) => stream.rows = Some(*rows),
            }
        }
        stream
    }

    fn expire(&self) -> Option<Expire> {
        Some(Expire {
            older_than_ms: match (self.expire_after, self.keep_commits) {
                (Some(Age::Never), _) => return None,
                (Some(Age::Of(age)), _) => Some(age),
                (None, Some(_)) => Some(0),
                (None, None) => None,
            },
            retain_last: self.keep_commits,
        })
    }

    pub(super) async fn run(
        &self,
        (name, table): (&str, &Table),
        files: &[String],
        format: Option<InputFormat>,
        options: &Options,
        stop: &Stop,
        ui: &Ui,
    ) -> Result<(), Failure> {
        if options.token.is_some() || options.dry_run {
            return Err(Failure::usage(
                "--idempotency-key and --dry-run are for one change, this is a stream of them",
                "leave them out; --stream NAME makes that no line is added twice",
            ));
        }
        let stream = Stream {
            stop: Some(stop.receiver()),
            ..self.stream()
        };
        let mut unheard = None;
        let mut set_aside = Vec::new();
        let mut told = |event: &Event<'_>| match told(name, event, &mut set_aside, ui) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                unheard = Some(failure);
                ControlFlow::Break(())
            }
        };
        let done = if let Some(path) = &self.watch {
            if stream.rows.is_some() {
                return Err(Failure::usage(
                    "files are committed whole, not by rows",
                    "give --commit-every a time: 10s",
                ));
            }
            let folder = Folder {
                path: path.clone(),
                format,
                settle: self.settle,
                drain: self.drain,
                remove: self.remove,
            };
            operations::append_folder(table.handle(), &folder, &stream, options, &mut told).await
        } else {
            if files != ["-"] || !matches!(format, None | Some(InputFormat::Ndjson)) {
                return Err(Failure::usage(
                    "--commit-every takes JSON lines from stdin, or files with --watch",
                    "write: lake append TABLE - --commit-every 10s, or lake append TABLE --watch DIR",
                ));
            }
            operations::append_lines(table.handle(), std::io::stdin(), &stream, options, &mut told).await
        };
        if let Some(failure) = unheard {
            return Err(failure);
        }
        let done = done?;
        if ui.json {
            return ui.json(&json!({
                "operation": "append", "table": name, "commits": done.commits, "rows": done.rows,
                "lines_skipped": done.skipped, "files_set_aside": set_aside,
            }));
        }
        let skipped = match done.skipped {
            0 => String::new(),
            lines => format!(", {} lines were there already", show_count(lines)),
        };
        let aside = match done.set_aside {
            0 => String::new(),
            files => format!(", {} files were set aside", show_count(files)),
        };
        ui.line(&format!(
            "{} commits with {} rows to {name}{skipped}{aside}",
            show_count(done.commits),
            show_count(done.rows)
        ))
    }
}

/// One line for each commit, and on stderr for each file that is set aside.
fn told(name: &str, event: &Event<'_>, set_aside: &mut Vec<Value>, ui: &Ui) -> Result<(), Failure> {
    match event {
        Event::Report(report) => committed(name, report, ui),
        Event::Expired(report) if ui.json => ui.json(&json!({
            "operation": "expire", "table": name, "version": report.version, "versions_expired": report.expired.len(),
            "versions_kept": report.kept, "files_deleted": report.files.files.len(),
        })),
        Event::Expired(report) => ui.line(&format!(
            "expire: {} versions, {} are kept",
            show_count(report.expired.len() as u64),
            show_count(report.kept)
        )),
        Event::SetAside { name, path, reason } => {
            let path = path.display().to_string();
            // Who does not read stderr finds it in the report.
            let _unread = writeln!(std::io::stderr(), "{name} was set aside ({path}): {reason}");
            set_aside.push(json!({"file": name, "path": path, "reason": reason}));
            Ok(())
        }
    }
}

fn committed(name: &str, report: &Report, ui: &Ui) -> Result<(), Failure> {
    if ui.json {
        return ui.report(name, report);
    }
    let figure = |name: &str| report.metrics.get(name).copied().unwrap_or(0);
    if !report.committed {
        return ui.line("nothing to commit");
    }
    ui.line(&match report.operation {
        "append" => format!(
            "version {}: {} rows",
            report.version,
            show_count(figure("num_target_rows_inserted"))
        ),
        other => format!(
            "version {}: {other}, {} files become {}",
            report.version,
            show_count(figure("num_target_files_removed")),
            show_count(figure("num_target_files_added"))
        ),
    })
}
