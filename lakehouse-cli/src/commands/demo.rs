mod check;
mod feed;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use datafusion::prelude::{SessionContext, col};
use futures::StreamExt;
use lakehouse_core::model::{At, Definition, Version, parse_partitioning};
use lakehouse_core::{Compact, Merge, Options, Report, Rows, Table, TableFormat};
use serde_json::{Value, json};

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::{self, Ui};
use crate::values::{show_bytes, show_count};
use feed::Feed;

/// Run the main job on real data: load, merge a year of changes, compact, query, go back in time.
///
/// The data are the 336,776 flights that left New York in 2013. Their schedule is loaded first,
/// partitioned by day(time_hour), bucket(4, carrier); what actually happened comes in twelve monthly
/// merges. At the end the table is compared with the source files in every row and column.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake demo
  lake demo --format delta --dir /tmp/flights"#)]
pub(super) struct Demo {
    /// Only this table format [default: both, one after the other]
    #[arg(long, value_name = "FORMAT", value_parser = ["iceberg", "delta"])]
    format: Option<String>,
    /// Make the tables in this folder and leave them there [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Folder with the source files [default: fixtures/flights, here or above]
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
}

/// How the table of the demo is partitioned.
const PARTITIONING: &str = "day(time_hour), bucket(4, carrier)";

/// The question of the demo.
const QUESTION: &str = "SELECT carrier, count(*) AS flights, count(arr_delay) AS arrived, \
    round(avg(arr_delay), 2) AS mean_arrival_delay FROM flights GROUP BY carrier ORDER BY carrier";

/// After this many merges the table is looked at again at the end.
const OLD_MERGE: usize = 6;

/// One line of what happened.
struct Step {
    name: String,
    seconds: f64,
    report: Option<Report>,
    note: String,
}

pub(super) async fn demo(args: Demo, ui: &Ui) -> Result<(), Failure> {
    let fixtures = find_fixtures(args.fixtures.as_deref())?;
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(
            tempfile::TempDir::with_prefix("lake-demo-")
                .map_err(Failure::io("make a folder in", &std::env::temp_dir()))?,
        ),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => PathBuf::from("."),
    };
    let formats = match args.format.as_deref() {
        Some(format) => vec![format.parse::<TableFormat>()?],
        None => vec![TableFormat::Iceberg, TableFormat::Delta],
    };
    let started = Instant::now();
    let feed = Feed::open(&fixtures).await?;
    let mut results = Vec::new();
    let mut removing = tokio::task::JoinSet::new();
    for format in formats {
        let place = dir.join(format.to_string());
        results.push(run(format, &place, &feed, ui).await?);
        if temporary.is_some() {
            removing.spawn(remove(place));
        }
    }
    removing.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    if ui.json {
        return ui.json(&json!({"formats": results, "seconds": seconds}));
    }
    let formats = results.len();
    ui.line(&format!(
        "all done in {seconds:.1} s: {formats} of {formats} tables equal the source in every row and column"
    ))?;
    match &args.dir {
        Some(dir) => ui.line(&format!("the tables are in {}", dir.display())),
        None => Ok(()),
    }
}

/// Removes a table of thousands of files. Each removal waits for the disk, so many wait at once.
/// What is left, the temporary folder takes with it.
async fn remove(table: PathBuf) {
    let folders = tokio::task::spawn_blocking(move || {
        let below = |folder: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
        };
        // Data files are two folders down: day and bucket.
        let days = below(&table).into_iter().flat_map(|path| below(&path));
        days.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] })
            .collect::<Vec<_>>()
    });
    let paths = folders.await.unwrap_or_default();
    futures::stream::iter(paths)
        .for_each_concurrent(32, |path| async move {
            let _ = tokio::task::spawn_blocking(move || {
                if path.is_dir() {
                    std::fs::remove_dir_all(&path)
                } else {
                    std::fs::remove_file(&path)
                }
            })
            .await;
        })
        .await;
}

/// The folder with the flights: as told, or `fixtures/flights` here or in a folder above.
fn find_fixtures(told: Option<&Path>) -> Result<PathBuf, Failure> {
    let here = std::env::current_dir().map_err(Failure::io("find", Path::new("the current folder")))?;
    let places: Vec<PathBuf> = match told {
        Some(dir) => vec![dir.to_owned()],
        None => here.ancestors().map(|dir| dir.join("fixtures/flights")).collect(),
    };
    places
        .iter()
        .find(|dir| dir.join("schedule.parquet").is_file())
        .cloned()
        .ok_or_else(|| {
            lakehouse_core::Error::not_found("schedule.parquet", places[0].display().to_string())
                .with_hint("run lake demo in a clone of the repository, or name its fixtures/flights with --fixtures")
                .into()
        })
}

/// The whole story for one format.
async fn run(format: TableFormat, place: &Path, feed: &Feed, ui: &Ui) -> Result<Value, Failure> {
    let location = place.display().to_string();
    if !ui.json {
        ui.line(&format!(
            "== {format}: {}, partitioned by {PARTITIONING}",
            feed.summary()
        ))?;
    }
    let working = ui.progress(format!("demo: {format}"));
    let options = Options::default();
    let mut steps = Vec::new();

    let started = Instant::now();
    let definition = Definition {
        schema: feed.schema(),
        partition_fields: parse_partitioning(PARTITIONING)?,
        properties: std::collections::BTreeMap::new(),
        format_version: None,
    };
    let table = Table::create(&location, format, &definition).await?;
    let report = table.append(Rows::file(feed.schedule(), None)?, &options).await?;
    steps.push(step("load the schedule", started, Some(report)));

    let merge = Merge::on(feed::KEY.join(", "))
        .sequence_by(feed::REPORT)
        .when_matched_update_all()
        .when_not_matched_insert_all();
    let mut old = At::Latest;
    for month in 1..=feed.months() {
        let started = Instant::now();
        let report = table.merge(feed.month(month)?, &merge, &options).await?;
        if month == OLD_MERGE {
            old = At::Version(report.version);
        }
        steps.push(step(
            &format!("merge {}", feed.month_name(month)),
            started,
            Some(report),
        ));
    }

    let started = Instant::now();
    let report = table.compact(&Compact::default(), &options).await?;
    steps.push(step("compact", started, Some(report)));

    let started = Instant::now();
    let now = ask(&table, &At::Latest).await?;
    steps.push(step("query", started, None));
    let started = Instant::now();
    let before = ask(&table, &old).await?;
    steps.push(step("query an old version", started, None));

    let started = Instant::now();
    let rows = check::equal_to_source(&table, feed).await?;
    let mut compared = step("compare with the source", started, None);
    compared.note = format!("{} rows equal", show_count(rows));
    steps.push(compared);
    drop(working);

    let files = table.files(&At::Latest).await?;
    let bytes = files.iter().map(|file| file.bytes).sum::<u64>();
    if !ui.json {
        tell(&steps, &now, &before, &old, ui)?;
        ui.line(&format!(
            "{} files, {}\n",
            show_count(files.len() as u64),
            show_bytes(bytes)
        ))?;
    }
    Ok(json!({
        "format": format.to_string(), "rows": rows, "files": files.len(), "bytes": bytes, "equal": true,
        "steps": steps.iter().map(|step| json!({
            "step": step.name, "seconds": step.seconds,
            "version": step.report.as_ref().map(|report| report.version),
            "metrics": step.report.as_ref().map(|report| &report.metrics),
            "phases": step.report.as_ref().map(output::phases_json),
        })).collect::<Vec<_>>(),
    }))
}

fn step(name: &str, started: Instant, report: Option<Report>) -> Step {
    Step {
        name: name.to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        report,
        note: String::new(),
    }
}

/// Where the time of all operations went, the longest first.
fn phases(steps: &[Step]) -> String {
    let mut sums: Vec<(&str, f64)> = Vec::new();
    for (phase, time) in steps
        .iter()
        .filter_map(|step| step.report.as_ref())
        .flat_map(|report| &report.phases)
    {
        match sums.iter_mut().find(|(name, _)| name == phase) {
            Some((_, sum)) => *sum += time.as_secs_f64(),
            None => sums.push((phase, time.as_secs_f64())),
        }
    }
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    let texts: Vec<_> = sums
        .iter()
        .map(|(phase, seconds)| format!("{phase} {seconds:.1} s"))
        .collect();
    texts.join(", ")
}

/// The answer to [`QUESTION`] at a version, as rows of text.
async fn ask(table: &Table, at: &At) -> Result<Vec<Vec<String>>, Failure> {
    let session = StorageArgs::default().session(At::Latest)?;
    session.register("flights", table.provider(at).await?)?;
    let batches = session.query(QUESTION).await?.collect().await?;
    let mut rows = Vec::new();
    for batch in &batches {
        output::append_cells(batch, &mut rows)?;
    }
    Ok(rows)
}

/// Prints the steps, and both answers side by side.
fn tell(
    steps: &[Step],
    now: &[Vec<String>],
    before: &[Vec<String>],
    old: &At,
    ui: &Ui,
) -> Result<(), Failure> {
    let figure = |step: &Step, name: &str| match &step.report {
        Some(report) => report
            .metrics
            .get(name)
            .map_or_else(String::new, |value| show_count(*value)),
        None => String::new(),
    };
    let rows: Vec<_> = steps
        .iter()
        .map(|step| {
            vec![
                step.name.clone(),
                step.report
                    .as_ref()
                    .map_or_else(String::new, |report| report.version.to_string()),
                figure(step, "num_target_rows_inserted"),
                figure(step, "num_target_rows_updated"),
                figure(step, "num_target_files_scanned"),
                figure(step, "num_target_files_skipped_during_scan"),
                figure(step, "num_target_files_masked"),
                figure(step, "num_target_files_added"),
                figure(step, "num_target_files_removed"),
                format!("{:.2}", step.seconds),
                step.note.clone(),
            ]
        })
        .collect();
    ui.table(
        &[
            "step",
            "version",
            "rows inserted",
            "updated",
            "files read",
            "skipped",
            "masked",
            "added",
            "removed",
            "seconds",
            "",
        ],
        &rows,
    )?;
    ui.line(&format!("time of the operations: {}", phases(steps)))?;
    let old = match old {
        At::Version(version) => *version,
        _ => Version::default(),
    };
    let then = format!("arrived in version {old}");
    let mean_then = format!("mean delay in version {old}");
    let answers: Vec<_> = now
        .iter()
        .zip(before)
        .map(|(now, before)| {
            let mut cells = now.clone();
            cells.extend_from_slice(&before[2..]);
            cells
        })
        .collect();
    ui.table(
        &[
            "carrier",
            "flights",
            "arrived",
            "mean arrival delay",
            &then,
            &mean_then,
        ],
        &answers,
    )
}

/// One Parquet file as a frame of a session.
async fn parquet(context: &SessionContext, file: &Path) -> Result<datafusion::dataframe::DataFrame, Failure> {
    let name = file.display().to_string();
    Ok(context
        .read_parquet(name, datafusion::prelude::ParquetReadOptions::default())
        .await?)
}

/// Columns by name.
fn columns(names: &[impl AsRef<str>]) -> Vec<datafusion::logical_expr::Expr> {
    names
        .iter()
        .map(|name| col(format!("\"{}\"", name.as_ref())))
        .collect()
}
