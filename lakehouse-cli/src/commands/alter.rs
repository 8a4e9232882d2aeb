use clap::Args;
use lakehouse_core::model::{ColumnPath, Place};
use lakehouse_core::operations::Alter as Change;

use super::WriteArgs;
use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Change what a table is: its columns, partitioning, sort order, properties or format version.
///
/// No file is rewritten: those that are there are read with the new columns, old versions with theirs. All that is
/// asked for happens in one commit, or nothing does. A column inside a struct is written address.zip, in a list of
/// structs stops.element.delay, in values of a map tags.value. Changes of columns happen in this order: required,
/// optional, type, comment, drop, rename, add, default, move; the last three know columns by their new names.
///
/// A Delta table maps column names once a column is renamed or dropped, and widens types once one is widened: readers
/// must understand these table features then, and the report says so. Its partitioning stays as it is. With
/// --set delta.enableRowTracking=true rows that are there get ids, in the same commit.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake alter sales --add "tip double" --move "tip after amount" --rename day=sold_on
  lake alter sales --type "id bigint" --drop address.fax --partition-by "month(sold_on), bucket(8, id)""#)]
pub(super) struct Alter {
    /// Path or URL of the table
    table: String,
    /// Add a column: "tip double", "address.zip text comment 'postal code'"
    #[arg(long, value_name = "COLUMN")]
    add: Vec<String>,
    /// Drop a column; its values stay in old versions
    #[arg(long, value_name = "NAME")]
    drop: Vec<ColumnPath>,
    /// Rename a column
    #[arg(long, value_name = "OLD=NEW", value_parser = renaming)]
    rename: Vec<(ColumnPath, String)>,
    /// Move a column: "tip first", "tip last", "tip after amount", "tip before amount"
    #[arg(long = "move", value_name = "WHERE", value_parser = moving)]
    moves: Vec<(ColumnPath, Place)>,
    /// Give a column a wider type: "id bigint"; int to bigint, float to double, decimals with more digits
    #[arg(long = "type", value_name = "COLUMN")]
    types: Vec<String>,
    /// The column may not be NULL from now on; rows are looked at first
    #[arg(long, value_name = "NAME")]
    required: Vec<ColumnPath>,
    /// The column may be NULL from now on
    #[arg(long, value_name = "NAME")]
    optional: Vec<ColumnPath>,
    /// Note something about a column; an empty text takes the note away
    #[arg(long, value_name = "NAME=TEXT", value_parser = noting)]
    comment: Vec<(ColumnPath, String)>,
    /// What the column is in new rows that do not say, as SQL writes it: "n=5", "region='eu'", "day=DATE '2024-01-31'",
    /// "raw=X'00ff'", of a member of a struct "address.zip='0'" (Iceberg version 3). Of a column that is added with it, rows that
    /// are there have it too (Iceberg version 3)
    #[arg(long, value_name = "NAME=VALUE", value_parser = noting)]
    default: Vec<(ColumnPath, String)>,
    /// Take the default of a column away
    #[arg(long, value_name = "NAME")]
    no_default: Vec<ColumnPath>,
    /// Hidden partitioning of new files: "day(ts), bucket(16, id)"; "" for none (Iceberg)
    #[arg(long, value_name = "FIELDS")]
    partition_by: Option<String>,
    /// The order that rows of a file are meant to have: "ts desc, id"; "" for none (Iceberg)
    #[arg(long, value_name = "COLUMNS")]
    sort_by: Option<String>,
    /// The columns that tell rows apart: "id, region"; "" for none. They must be required (Iceberg)
    #[arg(long, value_name = "COLUMNS")]
    identifier: Option<String>,
    /// Set a table property; may be given several times
    #[arg(long, value_name = "K=V", value_parser = values::parse_property)]
    set: Vec<(String, String)>,
    /// Take a table property away
    #[arg(long, value_name = "K")]
    unset: Vec<String>,
    /// Upgrade the Iceberg format to this version; there is no way back
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=3))]
    format_version: Option<u8>,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(super) async fn alter(args: Alter, ui: &Ui) -> Result<(), Failure> {
    let change = args.change()?;
    if change.is_empty() {
        return Err(Failure::usage(
            "nothing is to be changed",
            "say what: --add, --drop, --rename, --partition-by ..; lake alter --help lists all",
        ));
    }
    let table = args.storage.open(&args.table).await?;
    let working = ui.progress(format!("alter {}", args.table));
    let report = table.alter(&change, &args.write.options()).await?;
    drop(working);
    ui.report(&args.table, &report)
}

impl Alter {
    fn change(&self) -> Result<Change, Failure> {
        let mut change = Change::default();
        for column in &self.required {
            change = change.nullable(column.clone(), false);
        }
        for column in &self.optional {
            change = change.nullable(column.clone(), true);
        }
        for definition in &self.types {
            change = change.widen(definition)?;
        }
        for (column, text) in &self.comment {
            change = change.comment(
                column.clone(),
                Some(text.as_str()).filter(|text| !text.is_empty()),
            );
        }
        for column in &self.drop {
            change = change.drop_column(column.clone());
        }
        for (column, to) in &self.rename {
            change = change.rename_column(column.clone(), to);
        }
        for definition in &self.add {
            change = change.add_column(definition)?;
        }
        for (column, value) in &self.default {
            change = change.default_value(column.clone(), Some(value));
        }
        for column in &self.no_default {
            change = change.default_value(column.clone(), None);
        }
        for (column, to) in &self.moves {
            change = change.move_column(column.clone(), to.clone());
        }
        if let Some(fields) = &self.partition_by {
            change = change.partition_by(fields)?;
        }
        if let Some(columns) = &self.sort_by {
            change = change.sort_by(columns)?;
        }
        if let Some(columns) = &self.identifier {
            let names = columns.split(',').map(str::trim).filter(|name| !name.is_empty());
            change = change.identifier(names.map(str::to_owned).collect());
        }
        if let Some((key, _)) = self.set.iter().find(|(key, _)| self.unset.contains(key)) {
            return Err(Failure::usage(
                format!("the property {key} is to be set and to be taken away"),
                "say one of them",
            ));
        }
        for (key, value) in &self.set {
            change = change.property(key, Some(value));
        }
        for key in &self.unset {
            change = change.property(key, None);
        }
        if let Some(version) = self.format_version {
            change = change.format_version(version);
        }
        Ok(change)
    }
}

fn renaming(text: &str) -> Result<(ColumnPath, String), String> {
    let (old, new) = text.split_once('=').ok_or("write OLD=NEW")?;
    if new.trim().is_empty() {
        return Err("the new name is missing: write OLD=NEW".to_owned());
    }
    let (old, new) = (path(old)?, path(new)?);
    let (parent, name) = new.split();
    if parent.is_some() && parent != old.split().0 {
        return Err(format!(
            "a column stays in its struct: write only its own new name, {name}, in quotes if it has dots"
        ));
    }
    Ok((old, name.to_owned()))
}

fn noting(text: &str) -> Result<(ColumnPath, String), String> {
    let (column, note) = text.split_once('=').ok_or("write NAME=TEXT")?;
    Ok((path(column)?, note.to_owned()))
}

fn moving(text: &str) -> Result<(ColumnPath, Place), String> {
    const HOW: &str = "write \"tip first\", \"tip last\", \"tip after amount\" or \"tip before amount\"";
    let text = text.trim();
    let mut quoted = false;
    let end = text.find(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    });
    let (column, place) = text.split_at(end.ok_or(HOW)?);
    Ok((path(column)?, place.parse().map_err(|_| HOW)?))
}

fn path(text: &str) -> Result<ColumnPath, String> {
    text.parse()
        .map_err(|error: lakehouse_core::Error| error.to_string())
}
