use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use clap::Args;
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::operations::Adoption;
use lakehouse_core::scan::parse_columns;
use lakehouse_core::store::Store;
use lakehouse_core::{Error, Table, TableFormat};
use serde_json::json;

use super::storage::StorageArgs;
use super::{InputArgs, OnceArgs, show};
use crate::exit::Failure;
use crate::input::Input;
use crate::output::Ui;
use crate::values;

/// The table property that remembers `--idempotency-key` of a create.
const KEY_PROPERTY: &str = "lakehouse.created-by-key";

/// Make a new, empty table, or one of Parquet files that are there.
///
/// Partitioning is hidden: queries filter on the columns themselves. Transforms are day(ts), hour(ts),
/// month(ts), year(ts), bucket(16, id), truncate(4, name), or a column as it is.
///
/// With --from-parquet the Parquet files that lie at the table's place, or in a folder of it, become the table in one
/// commit. They are neither moved nor rewritten: only their footers are read. Folders such as year=2024/region=eu
/// become columns that the table is partitioned by, --schema gives columns another type (their own types must
/// fit) or NOT NULL. Types that the format does not store as they are, such as unsigned numbers, are refused by name.
/// A vacuum leaves these files, and others beside them, unless it is told otherwise: lake vacuum --adopted.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake create flights --schema "id bigint not null, ts timestamp, carrier text" \
      --partition-by "day(ts), bucket(16, id)"
  lake create events --from-parquet --dry-run
  lake create events --from-parquet events/raw --format delta --schema "month string""#)]
pub(super) struct Create {
    /// Path or URL of the table
    table: String,
    #[command(flatten)]
    schema: SchemaArgs,
    #[command(flatten)]
    definition: DefinitionArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: OnceArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct SchemaArgs {
    /// Columns, as SQL has them: "id bigint not null, ts timestamp, .."
    #[arg(long, value_name = "COLUMNS")]
    schema: Option<String>,
    /// Take the columns of this file (parquet, csv, ndjson or arrow; - for stdin)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["schema", "from_parquet"])]
    schema_from: Option<String>,
    /// Adopt the Parquet files in this folder, which is the table's own or inside of it [default: the table's own]
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    from_parquet: Option<Option<String>>,
}

/// What a new table shall be, apart from its columns.
#[derive(Debug, Clone, Args)]
pub(super) struct DefinitionArgs {
    /// Table format [default: iceberg]
    #[arg(long, value_name = "FORMAT", value_parser = ["iceberg", "delta"])]
    pub(super) format: Option<String>,
    /// Version of the Iceberg format [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=3))]
    format_version: Option<u8>,
    /// Hidden partitioning: "day(ts), bucket(16, id)"
    #[arg(long, value_name = "FIELDS")]
    partition_by: Option<String>,
    /// A table property; may be given several times
    #[arg(long, value_name = "K=V", value_parser = values::parse_property)]
    property: Vec<(String, String)>,
}

impl DefinitionArgs {
    /// Whether any of these was given.
    pub(super) fn any(&self) -> bool {
        self.format.is_some()
            || self.format_version.is_some()
            || self.partition_by.is_some()
            || !self.property.is_empty()
    }

    /// The format asked for, or the default.
    pub(super) fn format(&self) -> Result<TableFormat, Failure> {
        let format: TableFormat = self.format.as_deref().unwrap_or("iceberg").parse()?;
        if format == TableFormat::Delta && self.format_version.is_some() {
            return Err(Failure::usage(
                "--format-version is for Iceberg; Delta tables have features instead of versions",
                "leave --format-version out, or use --format iceberg",
            ));
        }
        Ok(format)
    }

    /// The whole definition.
    pub(super) fn definition(&self, schema: SchemaRef) -> Result<Definition, Failure> {
        let partition_fields = match self.partition_by.as_deref() {
            Some(text) => parse_partitioning(text)?,
            None => Vec::new(),
        };
        Ok(Definition {
            schema,
            partition_fields,
            properties: values::properties(&self.property),
            format_version: self.format_version,
        })
    }
}

pub(super) async fn create(args: Create, ui: &Ui) -> Result<(), Failure> {
    if let Some(folder) = &args.schema.from_parquet {
        return match adopt(&args, folder.as_deref(), ui).await {
            Err(Failure::Lake(error @ Error::AlreadyExists { .. })) => already(&args, error, ui).await,
            ended => ended,
        };
    }
    let schema = match (&args.schema.schema, &args.schema.schema_from) {
        (Some(text), _) => parse_columns(text)?,
        (None, Some(file)) => {
            Input::open(file, args.input.format()?)
                .await?
                .rows
                .schema()
                .await?
        }
        (None, None) => {
            return Err(Failure::usage(
                "columns are missing",
                "give --schema, --schema-from or --from-parquet",
            ));
        }
    };
    let format = args.definition.format()?;
    let definition = keyed(&args, schema)?;
    if args.write.dry_run {
        return dry_run(&args.table, &args.storage, format, &definition, ui).await;
    }
    match Table::create_with(&args.table, &args.storage.options()?, format, &definition).await {
        Ok(table) => {
            let version = table.snapshot(&At::Latest).await?.version;
            if ui.json {
                return ui.json(&json!({
                    "operation": "create", "table": args.table, "format": table.format(), "version": version,
                    "committed": true, "dry_run": false, "schema": show::columns_json(&definition.schema),
                }));
            }
            ui.line(&format!(
                "created {} table {}, version {version}",
                table.format(),
                args.table
            ))
        }
        Err(error @ Error::AlreadyExists { .. }) => already(&args, error, ui).await,
        Err(error) => Err(error.into()),
    }
}

/// The definition, with the key that makes a second run harmless.
fn keyed(args: &Create, schema: SchemaRef) -> Result<Definition, Failure> {
    let mut definition = args.definition.definition(schema)?;
    if let Some(key) = &args.write.idempotency_key {
        definition.properties.insert(KEY_PROPERTY.into(), key.clone());
    }
    Ok(definition)
}

/// Makes the table of files that are there.
async fn adopt(args: &Create, folder: Option<&str>, ui: &Ui) -> Result<(), Failure> {
    let format = args.definition.format()?;
    let store = Store::open_with(&args.table, &args.storage.options()?)?;
    let schema = args.schema.schema.as_deref().map(parse_columns).transpose()?;
    let definition = keyed(args, Arc::new(Schema::empty()))?;
    let adoption = Adoption {
        folder: match folder {
            Some(folder) => store.folder(folder)?,
            None => String::new(),
        },
        schema,
        partition_fields: definition.partition_fields,
        properties: definition.properties,
        format_version: definition.format_version,
    };
    let (table, adopted) = Table::adopt_in(store, format, &adoption, args.write.dry_run).await?;
    show::adopted(&args.table, &table, &adopted, ui)
}

/// The table is there: that is what a second run with the same key expects.
async fn already(args: &Create, error: Error, ui: &Ui) -> Result<(), Failure> {
    let Some(key) = &args.write.idempotency_key else {
        return Err(error.into());
    };
    let table = Table::open_with(&args.table, &args.storage.options()?).await?;
    let snapshot = table.snapshot(&At::Latest).await?;
    if snapshot.properties.get(KEY_PROPERTY) != Some(key) {
        return Err(error.into());
    }
    if ui.json {
        return ui.json(&json!({
            "operation": "create", "table": args.table, "format": table.format(), "version": snapshot.version,
            "committed": false, "dry_run": false, "already": true,
        }));
    }
    ui.line(&format!(
        "{} was already created with idempotency key {key:?}; nothing was done",
        args.table
    ))
}

/// Says what table would be made.
pub(super) async fn dry_run(
    table: &str,
    storage: &StorageArgs,
    format: TableFormat,
    definition: &Definition,
    ui: &Ui,
) -> Result<(), Failure> {
    match Table::open_with(table, &storage.options()?).await {
        Err(Error::NotFound { .. }) => {}
        Ok(_) => {
            return Err(Error::AlreadyExists {
                what: format!("table {table}"),
            }
            .into());
        }
        Err(error) => return Err(error.into()),
    }
    if ui.json {
        return ui.json(&json!({
            "operation": "create", "table": table, "format": format.to_string(), "committed": false,
            "dry_run": true, "schema": show::columns_json(&definition.schema),
        }));
    }
    ui.line(&format!("dry run: would create {format} table {table}"))?;
    ui.table(
        &["column", "type", "null"],
        &show::column_rows(&definition.schema),
    )
}
