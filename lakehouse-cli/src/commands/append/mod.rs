mod stream;

use clap::Args;
use lakehouse_core::{Error, Table};

use super::create::{self, DefinitionArgs};
use super::signals::Stop;
use super::storage::StorageArgs;
use super::{InputArgs, SchemaArgs, WriteArgs};
use crate::exit::Failure;
use crate::input::Input;
use crate::output::Ui;
use stream::StreamArgs;

/// Add the rows of a file to a table.
///
/// With --create, a table that is not there is made first, with the columns of the file. With --watch or
/// --commit-every, rows are committed as they come, until the end of stdin or Ctrl-C (SIGINT) or SIGTERM: then what was
/// taken in is committed, and the exit code is 0. A second signal ends it at once.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake append flights january.parquet
  lake append flights with_delays.parquet --schema-mode merge
  zcat events.csv.gz | lake append events - --input-format csv --create --partition-by "day(ts)"
  lake append events --watch incoming --commit-every 10s
  tail -n +1 -F events.ndjson | lake append events - --commit-every 10s --stream events"#)]
pub(super) struct Append {
    /// Path or URL of the table
    table: String,
    /// Rows to add: a parquet, csv, ndjson or arrow file, or - for stdin
    #[arg(
        required_unless_present = "watch",
        value_name = "FILE|-",
        allow_hyphen_values = false
    )]
    files: Vec<String>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    stream: StreamArgs,
    /// Make the table if it is not there
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    definition: DefinitionArgs,
    #[command(flatten)]
    schema: SchemaArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

impl Append {
    /// Whether rows are committed as they come, until somebody asks it to end.
    pub(super) fn is_stream(&self) -> bool {
        self.stream.any()
    }
}

pub(super) async fn append(args: Append, ui: &Ui) -> Result<(), Failure> {
    if args.definition.any() && !args.create {
        return Err(Failure::usage(
            "--format, --format-version, --partition-by and --property describe a new table",
            "add --create, or leave them out",
        ));
    }
    if args.is_stream() {
        let stop = Stop::listen();
        if args.create {
            return Err(Failure::usage(
                "a stream does not tell its columns before it begins",
                "make the table first: lake create",
            ));
        }
        let table = args.storage.open(&args.table).await?;
        let options = args.write.options().schema_mode(args.schema.mode());
        let (table, format) = ((args.table.as_str(), &table), args.input.format()?);
        return args
            .stream
            .run(table, &args.files, format, &options, &stop, ui)
            .await;
    }
    let input = Input::open_all(&args.files, args.input.format()?).await?;
    let table = match args.storage.open(&args.table).await {
        Err(Failure::Lake(Error::NotFound { .. })) if args.create => {
            let format = args.definition.format()?;
            let definition = args.definition.definition(input.rows.schema().await?)?;
            if args.write.once.dry_run {
                return create::dry_run(&args.table, &args.storage, format, &definition, ui).await;
            }
            match Table::create_with(&args.table, &args.storage.options()?, format, &definition).await {
                // Somebody else was faster; the rows decide whether the table fits.
                Err(Error::AlreadyExists { .. }) => args.storage.open(&args.table).await?,
                made => made?,
            }
        }
        Err(Failure::Lake(Error::NotFound { what, place, hint })) if what == "table" => {
            let hint = if hint.starts_with("did you mean") {
                hint
            } else {
                "check the path, or add --create to make the table from the columns of the file".into()
            };
            return Err(Error::NotFound { what, place, hint }.into());
        }
        found => found?,
    };
    if let Some(format) = args.definition.format.as_deref()
        && format != table.format()
    {
        return Err(Failure::usage(
            format!(
                "{} is there already, in {} format, not {format}",
                args.table,
                table.format()
            ),
            "leave --format out, or name another table",
        ));
    }
    let working = ui.progress(format!("append to {}", args.table));
    let report = table
        .append(input.rows, &args.write.options().schema_mode(args.schema.mode()))
        .await?;
    drop(working);
    ui.report(&args.table, &report)
}
