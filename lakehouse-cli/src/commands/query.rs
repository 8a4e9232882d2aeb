use std::path::PathBuf;

use clap::Args;
use lakehouse_core::model::At;
use lakehouse_core::sql::{Executed, Session};
use serde_json::json;

use super::storage::StorageArgs;
use super::{AtArgs, WriteArgs};
use crate::exit::Failure;
use crate::output::{self, Form, Ui};
use crate::values;

/// Ask a question in SQL, or change a table.
///
/// A quoted path or URL in FROM is a table; -t gives a table a name. VERSION AS OF and TIMESTAMP AS OF
/// work per table, --version and --as-of for every table that has no version of its own.
/// f.branch_audit and 'data/flights.tag_v1' are a branch and a tag of an Iceberg table; statements
/// that change a table write to the branch that its name says.
///
/// INSERT INTO, INSERT OVERWRITE, UPDATE (with FROM), DELETE (with USING), MERGE and TRUNCATE TABLE
/// change a table and print what they did, as the verbs do. Subqueries, WITH and LIMIT work in them;
/// in a MERGE, subqueries stand in the source only. ALTER TABLE adds, drops, renames and widens columns and sets
/// properties. A form that is not known is refused.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake query "SELECT carrier, avg(arr_delay) FROM 'data/flights' GROUP BY carrier"
  lake query "SELECT count(*) FROM f" -t f=data/flights@-1
  lake query -f report.sql -t f=data/flights -o report.parquet
  lake query "DELETE FROM f WHERE carrier IN (SELECT carrier FROM 'gone.csv')" -t f=data/flights
  lake query "MERGE INTO f USING 'feed.parquet' s ON f.id = s.id WHEN MATCHED THEN UPDATE SET *
    WHEN NOT MATCHED THEN INSERT *" -t f=data/flights"#)]
pub(super) struct Query {
    /// The question or statement
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// Read it from this file (- for stdin)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A table by name, at a version if one is given; may be given several times
    #[arg(short, long, value_name = "NAME=TABLE[@VERSION]", value_parser = values::parse_property)]
    table: Vec<(String, String)>,
    #[command(flatten)]
    at: AtArgs,
    /// Form of the answer [default: table; with -o, as the name of the file ends]
    #[arg(long, value_enum, conflicts_with = "json")]
    output: Option<Form>,
    /// Write the answer to this file
    #[arg(short, value_name = "FILE")]
    o: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

impl Query {
    /// Refuses options that have no meaning for what the SQL is.
    fn check(&self, changes: bool) -> Result<(), Failure> {
        let for_queries = [
            ("--version", self.at.version.is_some()),
            ("--as-of", self.at.as_of.is_some()),
            ("--output", self.output.is_some()),
            ("-o", self.o.is_some()),
        ];
        let for_changes = [
            ("--idempotency-key", self.write.once.idempotency_key.is_some()),
            ("--step", self.write.step.is_some()),
            ("--dry-run", self.write.once.dry_run),
            ("--branch", self.write.branch.is_some()),
        ];
        let (wrong, what) = if changes {
            (for_queries.as_slice(), "a statement that changes a table")
        } else {
            (for_changes.as_slice(), "a query, which changes nothing")
        };
        match wrong.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Failure::usage(
                format!("{option} cannot be used with {what}"),
                format!("leave {option} out"),
            )),
            None => Ok(()),
        }
    }
}

pub(super) async fn query(args: Query, ui: &Ui) -> Result<(), Failure> {
    let sql = match (&args.sql, &args.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(file)) if file.as_os_str() == "-" => {
            std::io::read_to_string(std::io::stdin()).map_err(Failure::io("read", file))?
        }
        (None, Some(file)) => std::fs::read_to_string(file).map_err(Failure::io("read", file))?,
        (None, None) => return Err(Failure::usage("the question is missing", "give SQL or -f FILE")),
    };
    args.check(Session::changes(&sql)?)?;
    // Before any work, so that a wrong name of a file costs nothing.
    let form = match (&args.output, &args.o) {
        (Some(form), _) => *form,
        (None, Some(file)) => Form::of(file)?,
        (None, None) if ui.json => Form::Json,
        (None, None) => Form::Table,
    };
    let mut session = args.storage.session(args.at.at().unwrap_or(At::Latest))?;
    for (name, text) in &args.table {
        let (location, at) = values::split_version(text)?;
        session.name(name, location, at.unwrap_or(At::Latest));
    }
    let working = ui.progress("query".into());
    let frame = match session.execute(&sql, &args.write.options()).await? {
        Executed::Rows(frame) => frame,
        Executed::Changed { table, report } => {
            drop(working);
            return ui.report(&table, &report);
        }
    };
    let stream = frame.execute_stream().await?;
    let rows = output::write(stream, form, args.o.as_deref(), working).await?;
    match &args.o {
        Some(file) if ui.json => ui.json(&json!({"file": file.display().to_string(), "rows": rows})),
        Some(file) => ui.line(&format!(
            "{} rows in {}",
            values::show_count(rows),
            file.display()
        )),
        None => Ok(()),
    }
}
