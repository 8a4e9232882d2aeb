mod words;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lakehouse_core::Options;
use lakehouse_core::operations::maintain::{Bytes, Maintained, Policy, StepReport, Time};
use lakehouse_core::store::clock;
use serde_json::{Value, json};

use super::signals::Stop;
use super::storage::StorageArgs;
use crate::exit::{Failure, code_of};
use crate::output::Ui;
use crate::values;
pub(super) use words::what;

/// Do all that tables need from time to time: compact, put metadata in order, expire, vacuum.
///
/// Made to be run every night without looking. Small files and files with masked rows are compacted (in the table's order
/// of rows, if it has one), then manifests are rewritten (Iceberg) or a checkpoint is written (Delta), then old versions
/// expire, then files go that no version needs: each as the verb of its name does it, with its limits. What is
/// good already is left alone, a second run does nothing. Writers, readers and other maintenance may be at work.
///
/// A step that fails is told and the later ones go on, but for two cases: after damage nothing is removed, and
/// nothing is done any more when nobody knows whether a commit landed. A table that fails does not stop the next one.
/// The exit code is 0 if all is well, 3 if there were conflicts only, 4 if a commit is unknown, else 1.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake maintain flights --dry-run
  lake maintain flights sales s3://bucket/clicks --policy nightly.toml --max-time 2h
  lake maintain flights --watch 10m
  lake maintain --print-policy > nightly.toml"#)]
pub(super) struct Maintain {
    /// Paths or URLs of the tables, one after the other
    #[arg(value_name = "TABLE", required_unless_present = "print_policy")]
    tables: Vec<String>,
    /// What is to be done, as a TOML file with a section for each step; one policy may be for many tables
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print the policy in force, with every key and what it means, as such a file, and do nothing
    #[arg(long)]
    print_policy: bool,
    /// Time for all steps of one table: compact begins no group after three quarters of it; expire and vacuum
    /// are always begun; what is begun is finished, what is left the next run does [default: as the policy says]
    #[arg(long, value_name = "TIME", value_parser = values::parse_duration)]
    max_time: Option<i64>,
    /// Bytes of data files of one table that are rewritten at most [default: as the policy says]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    max_bytes: Option<u64>,
    /// Say what each step would do to the table as it is now, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it again and again, so long after each round on average [default: 10m], with a line for each round. SIGINT or
    /// SIGTERM ends it after the step at hand, a second one at once
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "10m", conflicts_with = "dry_run",
        value_parser = values::parse_duration)]
    watch: Option<i64>,
    #[command(flatten)]
    storage: StorageArgs,
}

impl Maintain {
    /// The policy of the file, with what the command line says.
    fn policy(&self) -> Result<Policy, Failure> {
        let mut policy = match &self.policy {
            None => Policy::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(Failure::io("read", file))?;
                Policy::from_toml(&text, &file.display().to_string())?
            }
        };
        if let Some(most) = self.max_time {
            policy.max_time = Some(Time(Duration::from_millis(most.unsigned_abs())));
        }
        policy.max_bytes = self.max_bytes.map(Bytes).or(policy.max_bytes);
        Ok(policy)
    }
}

/// What became of a table.
struct Ended {
    table: String,
    result: Result<Maintained, Failure>,
}

impl Ended {
    /// Exit codes of all that failed.
    fn codes(&self) -> Vec<u8> {
        match &self.result {
            Ok(done) => done.failed().map(|(_, error)| code_of(error)).collect(),
            Err(failure) => vec![failure.code()],
        }
    }

    fn to_json(&self) -> Value {
        let mut value = match &self.result {
            Ok(done) => done.to_json(),
            Err(failure) => failure.to_json(),
        };
        value["table"] = self.table.as_str().into();
        value
    }

    fn line(&self) -> String {
        match &self.result {
            Ok(done) => format!("{}: {}", self.table, words::line(done)),
            Err(failure) => format!("{}: failed: {}", self.table, failure.message()),
        }
    }

    fn print(&self, ui: &Ui) -> Result<(), Failure> {
        let table = &self.table;
        let done = match &self.result {
            Ok(done) => done,
            Err(failure) => {
                ui.complain(&format!("{table}: {}", failure.to_text()));
                return Ok(());
            }
        };
        ui.line(&match (done.dry_run, done.did_something()) {
            (true, _) => format!(
                "maintain {table}: dry run on version {}, nothing was written",
                done.version
            ),
            (false, true) => format!("maintain {table}: version {}", done.version),
            (false, false) => format!(
                "maintain {table}: nothing was done, still version {}",
                done.version
            ),
        })?;
        let names: Vec<_> = done
            .steps
            .iter()
            .map(|report| format!("  {}", report.step.name()))
            .collect();
        let pairs = names
            .iter()
            .zip(&done.steps)
            .map(|(name, report)| (name.as_str(), what(report)));
        ui.pairs(&pairs.collect::<Vec<_>>())?;
        for (step, error) in done.failed() {
            let hint = error
                .hint()
                .map_or_else(String::new, |hint| format!("hint: {hint}\n"));
            ui.complain(&format!("{table}: error: {}: {error}\n{hint}", step.name()));
        }
        Ok(())
    }
}

/// The exit code of all that failed: an unknown commit comes first, a conflict last.
fn worst(codes: &[u8]) -> u8 {
    match codes {
        [] => 0,
        codes if codes.contains(&4) => 4,
        codes if codes.iter().all(|code| *code == 3) => 3,
        _ => 1,
    }
}

pub(super) async fn maintain(args: Maintain, ui: &Ui) -> Result<(), Failure> {
    let policy = args.policy()?;
    if args.print_policy {
        return match ui.json {
            true => ui.json(&serde_json::to_value(&policy).unwrap_or_default()),
            false => ui.line(policy.to_toml().trim_end()),
        };
    }
    let mut stop = Stop::listen();
    let Some(interval) = args.watch else {
        let ended = round(&args, &policy, &stop, ui, !ui.json).await?;
        let codes: Vec<u8> = ended.iter().flat_map(Ended::codes).collect();
        if ui.json {
            ui.json(&json!({
                "operation": "maintain", "dry_run": args.dry_run,
                "tables": ended.iter().map(Ended::to_json).collect::<Value>(),
            }))?;
        }
        return match (stop.is_asked(), worst(&codes)) {
            (true, _) => Err(Failure::Told(130)),
            (false, 0) => Ok(()),
            (false, code) => Err(Failure::Told(code)),
        };
    };
    for number in 1_u64.. {
        let ended = round(&args, &policy, &stop, ui, false).await?;
        if ui.json {
            ui.json(&json!({
                "operation": "maintain", "round": number, "timestamp_ms": clock::now_ms(),
                "tables": ended.iter().map(Ended::to_json).collect::<Value>(),
            }))?;
        } else {
            let tables: Vec<String> = ended.iter().map(Ended::line).collect();
            let time = values::show_time(clock::now_ms());
            ui.line(&format!("{time} round {number}: {}", tables.join("; ")))?;
        }
        // Between two thirds and four thirds of it, so that many that were started together do not stay together.
        let longest = Duration::from_millis(interval.unsigned_abs()).mul_f64(4.0 / 3.0);
        tokio::select! {
            () = clock::pause(longest) => {}
            () = stop.asked() => break,
        }
        if stop.is_asked() {
            break;
        }
    }
    Ok(())
}

/// All tables once, as far as nobody asks to stop.
async fn round(
    args: &Maintain,
    policy: &Policy,
    stop: &Stop,
    ui: &Ui,
    print: bool,
) -> Result<Vec<Ended>, Failure> {
    let options = Options {
        dry_run: args.dry_run,
        ..Options::default()
    };
    let mut all = Vec::new();
    for name in &args.tables {
        if stop.is_asked() {
            break;
        }
        let working = ui.progress(format!("maintain {name}"));
        let mut told = |report: &StepReport| {
            working.say(format!("maintain {name}: {} is over", report.step.name()));
            match stop.is_asked() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let result = async {
            let table = args.storage.open(name).await?;
            Ok::<_, Failure>(table.maintain(policy, &options, &mut told).await?)
        };
        let ended = Ended {
            table: name.clone(),
            result: result.await,
        };
        drop(working);
        if print {
            ended.print(ui)?;
        }
        all.push(ended);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_worst_failure() {
        for (codes, expected) in [
            (&[][..], 0),
            (&[3, 3], 3),
            (&[3, 1], 1),
            (&[1, 4, 3], 4),
            (&[130], 1),
        ] {
            assert_eq!(worst(codes), expected, "{codes:?}");
        }
    }
}
