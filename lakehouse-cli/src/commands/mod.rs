//! The verbs, one file each.

mod alter;
mod append;
mod branch;
mod check;
mod checkpoint;
mod compact;
mod create;
mod delete;
mod demo;
mod diff;
mod expire;
mod files;
mod health;
mod history;
mod maintain;
mod merge;
mod overwrite;
mod query;
mod restore;
mod rewrite_manifests;
mod show;
mod signals;
mod storage;
mod tag;
mod update;
mod vacuum;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lakehouse_core::model::{At, Token};
use lakehouse_core::operations::{InputFormat, Options, SchemaMode};

use crate::exit::{self, Failure};
use crate::output::Ui;
use crate::values;

/// Apache Iceberg and Delta Lake tables on the command line.
///
/// TABLE is a path or a URL (s3://, gs://, az://, abfss://, file://); its format is found out.
/// Cloud storage is set up by the environment (AWS_*, GOOGLE_*, AZURE_*, AWS profiles) or --storage-option.
#[derive(Debug, Parser)]
#[command(name = "lake", version, propagate_version = false, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 error (nothing committed), or check found errors, 2 usage, 3 conflict (safe to run again), \
    4 commit unknown (look at the history before you run again), 5 a difference (diff --exit-code), 130 interrupted.\n\n\
    Example:\n  lake append flights january.parquet --create --partition-by \"day(time_hour)\"\n  \
    lake merge flights february.parquet --on \"time_hour, carrier, flight, origin\"\n  \
    lake query \"SELECT carrier, count(*) FROM 'flights' GROUP BY carrier\""
)]
struct Cli {
    /// Print one JSON object on stdout instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(create::Create),
    Append(append::Append),
    Overwrite(overwrite::Overwrite),
    Merge(Box<merge::Merge>),
    Update(update::Update),
    Delete(delete::Delete),
    Query(Box<query::Query>),
    Compact(compact::Compact),
    Vacuum(vacuum::Vacuum),
    Maintain(Box<maintain::Maintain>),
    History(history::History),
    Diff(Box<diff::Diff>),
    Files(files::Files),
    Show(show::Show),
    Check(check::Check),
    Restore(restore::Restore),
    Alter(Box<alter::Alter>),
    Tag(tag::Tag),
    Branch(Box<branch::Branch>),
    Expire(expire::Expire),
    Checkpoint(checkpoint::Checkpoint),
    RewriteManifests(rewrite_manifests::RewriteManifests),
    Demo(demo::Demo),
}

/// Reads the command line, does what it says, tells how it went.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // What could not be parsed cannot say whether `--json` was meant.
        Err(error) => return exit::usage(&error, std::env::args_os().any(|arg| arg == "--json")),
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LAKE_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off")),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Plans of long expressions recurse deeply in builds that are not optimised.
        .thread_stack_size(16 << 20)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            let failure = Failure::Io {
                action: "start",
                place: "the worker threads".into(),
                source,
            };
            return exit::finish(Err(failure), cli.json);
        }
    };
    let ui = Ui::new(cli.json);
    // It ends by itself when it is asked to; who asks twice will not wait.
    let ends_by_itself = match &cli.verb {
        Verb::Maintain(_) => true,
        Verb::Append(args) => args.is_stream(),
        _ => false,
    };
    let result = runtime.block_on(async {
        // On a worker thread, for its stack; aborted when Ctrl-C comes first.
        let mut work = tokio::spawn(async move { dispatch(cli.verb, &ui).await });
        tokio::select! {
            done = &mut work => done.unwrap_or_else(|fault| Err(exit::fault(fault))),
            () = interrupted(ends_by_itself) => {
                work.abort();
                // Temporary files go with the future.
                let _ = work.await;
                Err(Failure::Interrupted)
            }
        }
    });
    // Not shut down: that would let go of threads that may end at this very moment, and `pthread_detach` of glibc (seen
    // in 2.36) looks at such a thread once more after its memory is gone. Once in some thousand runs a command that had
    // done its work died of that. The process ends all of them.
    std::mem::forget(runtime);
    exit::finish(result, ui.json)
}

/// Waits for Ctrl-C, and of verbs that end by themselves for the second signal.
async fn interrupted(ends_by_itself: bool) {
    if ends_by_itself {
        return signals::asked_to_end(2).await;
    }
    // If nobody can listen, the system's own way stays.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn dispatch(verb: Verb, ui: &Ui) -> Result<(), Failure> {
    match verb {
        Verb::Create(args) => create::create(args, ui).await,
        Verb::Append(args) => append::append(args, ui).await,
        Verb::Overwrite(args) => overwrite::overwrite(args, ui).await,
        Verb::Merge(args) => merge::merge(*args, ui).await,
        Verb::Update(args) => update::update(args, ui).await,
        Verb::Delete(args) => delete::delete(args, ui).await,
        Verb::Query(args) => query::query(*args, ui).await,
        Verb::Compact(args) => compact::compact(args, ui).await,
        Verb::Vacuum(args) => vacuum::vacuum(args, ui).await,
        Verb::Maintain(args) => maintain::maintain(*args, ui).await,
        Verb::History(args) => history::history(args, ui).await,
        Verb::Diff(args) => diff::diff(*args, ui).await,
        Verb::Files(args) => files::files(args, ui).await,
        Verb::Show(args) => show::show(args, ui).await,
        Verb::Check(args) => check::check(args, ui).await,
        Verb::Restore(args) => restore::restore(args, ui).await,
        Verb::Alter(args) => alter::alter(*args, ui).await,
        Verb::Tag(args) => tag::tag(args, ui).await,
        Verb::Branch(args) => branch::branch(*args, ui).await,
        Verb::Expire(args) => expire::expire(args, ui).await,
        Verb::Checkpoint(args) => checkpoint::checkpoint(args, ui).await,
        Verb::RewriteManifests(args) => rewrite_manifests::rewrite_manifests(args, ui).await,
        Verb::Demo(args) => demo::demo(args, ui).await,
    }
}

/// What every verb that writes to a table understands.
#[derive(Debug, Clone, Default, Args)]
struct WriteArgs {
    #[command(flatten)]
    once: OnceArgs,
    /// This change is the Nth of those of that name, which come one after the other: it is done if the table has it or
    /// a later one, and the table keeps the last number only (Spark calls the two txnAppId and txnVersion)
    #[arg(long, value_name = "N", requires = "idempotency_key")]
    step: Option<u64>,
    /// Write to this branch instead of main: the verb sees its rows, main stays as it is (Iceberg)
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
}

/// How a change is made once, or not at all.
#[derive(Debug, Clone, Default, Args)]
struct OnceArgs {
    /// Name of this change: a second run with the same one commits nothing and says so. Names outlive expire
    /// and the clean-up of logs: Iceberg tables keep those of 30 days (up to 10,000) and at least the newest
    /// 1,000, Delta tables all, or as long as delta.setTransactionRetentionDuration says
    #[arg(long, value_name = "K")]
    idempotency_key: Option<String>,
    /// Say what would happen, and do nothing: which files would be read, masked and rewritten, bytes and memory
    #[arg(long, visible_alias = "explain")]
    dry_run: bool,
}

impl WriteArgs {
    fn token(&self) -> Option<Token> {
        let key = self.once.idempotency_key.clone()?;
        Some(Token {
            step: self.step,
            ..Token::from(key)
        })
    }

    fn options(&self) -> Options {
        Options {
            token: self.token(),
            dry_run: self.once.dry_run,
            branch: self.branch.clone(),
            ..Options::default()
        }
    }
}

/// What verbs understand that take whole rows in.
#[derive(Debug, Clone, Args)]
struct SchemaArgs {
    /// What becomes of columns of the input that the table lacks: they are refused (strict), or they become columns
    /// of the table in the same commit (merge): nullable, behind all others, also inside structs; and an int, float
    /// or decimal column gets the input's wider type, bigint, double or more digits (in a Delta table if its
    /// property delta.enableTypeWidening is true). What writes no row changes no column
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Strict)]
    schema_mode: Mode,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    Strict,
    Merge,
}

impl SchemaArgs {
    fn mode(&self) -> SchemaMode {
        match self.schema_mode {
            Mode::Strict => SchemaMode::Strict,
            Mode::Merge => SchemaMode::Merge,
        }
    }
}

/// What verbs understand that change rows in place.
#[derive(Debug, Clone, Default, Args)]
struct TouchArgs {
    /// What becomes of files of which some rows change: their rows are masked (merge-on-read), they are
    /// rewritten (copy-on-write), or whichever costs less (auto: as the table's properties say, else file by file)
    #[arg(long, value_name = "STRATEGY", value_parser = ["auto", "merge-on-read", "copy-on-write"], default_value = "auto")]
    strategy: String,
    /// Memory for joins and sorts [default: 60% of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    memory_limit: Option<u64>,
}

impl TouchArgs {
    fn options(&self, write: &WriteArgs) -> Result<Options, Failure> {
        Ok(Options {
            strategy: self.strategy.parse()?,
            memory_limit: self
                .memory_limit
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            ..write.options()
        })
    }
}

/// A version to read or to go back to.
#[derive(Debug, Clone, Args)]
struct AtArgs {
    /// Version: a number (-1 is the one before the newest), a tag or a branch
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = values::parse_version)]
    version: Option<At>,
    /// The version that was current at this time: 2013-07-01, "2013-07-01 12:00" (UTC), RFC 3339, or
    /// milliseconds since 1970
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = values::parse_time, conflicts_with = "version")]
    as_of: Option<i64>,
}

impl AtArgs {
    fn at(&self) -> Option<At> {
        self.version.clone().or_else(|| self.as_of.map(At::Timestamp))
    }
}

/// The format of an input file, if its name does not say.
#[derive(Debug, Clone, Args)]
struct InputArgs {
    /// Format of the input, if neither its name nor its first bytes tell
    #[arg(long, value_name = "FORMAT", value_parser = ["parquet", "csv", "ndjson", "arrow"])]
    input_format: Option<String>,
}

impl InputArgs {
    fn format(&self) -> Result<Option<InputFormat>, Failure> {
        Ok(self.input_format.as_deref().map(str::parse).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_every_verb_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
