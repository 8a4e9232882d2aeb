//! Makes a table of Parquet files that are there already: none is moved or rewritten, only footers are read.
//!
//! ```text
//! listing   which files, and what the names of their folders say (`year=2024/region=eu`)
//! footers   columns, rows, statistics of each file, several at a time
//! columns   the columns of all files as one schema; what a file's values cannot be read as is refused
//! values    the partition values of each file
//! ```
//!
//! The files are the user's: they are never among what is staged, so that no failure deletes them. The table notes that it was
//! made so ([`ADOPTED`]), for a vacuum to ask before it removes them or what lies beside them.

mod columns;
mod footers;
mod listing;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use self::columns::{check_fit, check_ids, stored_by, union};
use self::footers::Footer;
use self::listing::{Key, Listing};
use crate::error::{Error, Result};
use crate::format::{Handle, Outcome};
use crate::model::{
    ADOPTED, Change, DataFile, Definition, OperationKind, PartitionField, Snapshot, Transform, Version,
};
use crate::store::clock;

/// Which files become a table, and what is known of it beforehand.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    /// Folder of the files below the table's root, `/` between its parts; empty for all of it.
    pub folder: String,
    /// Types and NOT NULL of columns, by name; what it does not name is found out.
    pub schema: Option<SchemaRef>,
    /// Partition fields beside the columns that folders name. Every file must lie in one partition of each, as far
    /// as its footer tells.
    pub partition_fields: Vec<PartitionField>,
    /// Table properties.
    pub properties: BTreeMap<String, String>,
    /// The format's own version number (Iceberg 2 or 3); `None` for its default.
    pub format_version: Option<u8>,
}

/// A table that was made of files, or would be.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// Its first version; `None` on a dry run.
    pub version: Option<Version>,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its partition fields.
    pub partition_fields: Vec<PartitionField>,
    /// Files in it.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that are left alone: hidden ones (`_SUCCESS`, `_metadata`, `.part.crc`) and those without a row.
    pub skipped: u64,
}

/// Makes the table of the Parquet files in the folder, in one commit. The cost is one listing and the footers.
///
/// * Names of folders such as `year=2024` make identity partition columns: `bigint` if all values are whole numbers, `date`
///   if all are dates, else `string`. All files must have the same, in the same order. A column that is in the files as well must
///   have the folder's value in every row, as far as the footer tells.
/// * The other columns are those of all files, by name. Types are the widest where the format reads narrower ones
///   as these. A column is required if all files say so, or if `schema` says so and no file has a NULL.
/// * Field ids that files carry become the table's, where the format has any.
///
/// # Errors
/// [`Error::AlreadyExists`] when a table is there; [`Error::NotFound`] when there is no file. [`Error::Invalid`] and
/// [`Error::Unsupported`] naming the file and the column: for what is no sound Parquet file, for types that would have to be
/// converted, for columns that contradict each other or their folder. Nothing is committed then.
pub async fn adopt(handle: &Handle, adoption: &Adoption, dry_run: bool) -> Result<Adopted> {
    let Listing { files, keys, hidden } = listing::list(&handle.store, &adoption.folder).await?;
    let (footers, shapes) = footers::read(&handle.store, files).await?;
    let format = handle.format.name();
    let mut as_stored = Vec::with_capacity(shapes.len());
    for shape in &shapes {
        // What one file alone cannot be in this format is told with the file's name.
        let alone = Definition {
            schema: Arc::new(stored_by(shape, false)),
            partition_fields: Vec::new(),
            properties: adoption.properties.clone(),
            format_version: adoption.format_version,
        };
        let draft = handle
            .format
            .draft(&alone)
            .await
            .map_err(|e| of_file(e, &shape.file))?;
        check_fit(shape, &draft.schema, draft.capabilities.widening, format)?;
        as_stored.push(draft);
    }
    let has_ids = as_stored.iter().any(|draft| has_field_ids(&draft.schema)) && check_ids(&shapes)?;
    let mut fields = union(&shapes, has_ids)?;
    add_keys(&mut fields, &keys);
    if let Some(wanted) = &adoption.schema {
        refine(&mut fields, wanted, &footers, &keys)?;
    }
    let mut properties = adoption.properties.clone();
    let folder = match adoption.folder.trim_matches('/') {
        "" => ".",
        folder => folder,
    };
    properties.insert(ADOPTED.to_owned(), folder.to_owned());
    let definition = Definition {
        schema: Arc::new(Schema::new(fields)),
        partition_fields: partitioning(&keys, &adoption.partition_fields),
        properties,
        format_version: adoption.format_version,
    };
    let draft = handle.format.draft(&definition).await?;
    for shape in &shapes {
        check_fit(shape, &draft.schema, draft.capabilities.widening, format)?;
    }
    let empty = footers.iter().filter(|footer| footer.rows == 0).count() as u64;
    let added = footers
        .into_iter()
        .filter(|footer| footer.rows > 0)
        .map(|footer| data_file(footer, &draft, &keys))
        .collect::<Result<Vec<_>>>()?;
    let mut adopted = Adopted {
        version: None,
        schema: Arc::clone(&draft.schema),
        partition_fields: draft.partition_fields().to_vec(),
        files: added.len() as u64,
        rows: added.iter().map(|file| file.rows).sum(),
        bytes: added.iter().map(|file| file.bytes).sum(),
        skipped: hidden + empty,
    };
    if !dry_run {
        adopted.version = Some(commit(handle, &definition, added).await?);
    }
    Ok(adopted)
}

async fn commit(handle: &Handle, definition: &Definition, added: Vec<DataFile>) -> Result<Version> {
    let mut change = Change::new(OperationKind::Append, clock::new_commit_id());
    let rows = added.iter().map(|file| file.rows).sum();
    change.metrics = BTreeMap::from([
        ("files_added".to_owned(), added.len() as u64),
        ("rows_inserted".to_owned(), rows),
    ]);
    change.added = added;
    let location = || handle.store.location().to_owned();
    match handle.format.create_with(definition, &change).await? {
        Outcome::Committed(snapshot) => Ok(snapshot.version),
        Outcome::Lost => Err(Error::AlreadyExists {
            what: format!("a table at {}", location()),
        }),
        Outcome::Unknown(source) => Err(Error::CommitUnknown {
            table: location(),
            commit_id: change.commit_id.0,
            source: Box::new(source),
        }),
    }
}

/// The columns that folders name, behind those of the files. More partitions may come, also one for NULL.
fn add_keys(fields: &mut Vec<Field>, keys: &[Key]) {
    for key in keys {
        match fields.iter_mut().find(|field| *field.name() == key.name) {
            Some(inside) => inside.set_nullable(true),
            None => fields.push(Field::new(&key.name, key.inferred.clone(), true)),
        }
    }
}

/// Folders first, then what was asked for beside them.
fn partitioning(keys: &[Key], wanted: &[PartitionField]) -> Vec<PartitionField> {
    let by_folder = |field: &PartitionField| {
        field.transform == Transform::Identity && keys.iter().any(|key| key.name == field.source)
    };
    let of_key = |key: &Key| PartitionField {
        source: key.name.clone(),
        transform: Transform::Identity,
        name: String::new(),
        field_id: 0,
        zone_slack_days: 0,
    };
    let beside = wanted.iter().filter(|field| !by_folder(field)).cloned();
    keys.iter().map(of_key).chain(beside).collect()
}

/// Types and NOT NULL as the user wants them; what files cannot be read as is found where they are checked.
fn refine(fields: &mut [Field], wanted: &Schema, footers: &[Footer], keys: &[Key]) -> Result<()> {
    let known: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    for column in wanted.fields() {
        let name = column.name();
        let Some(field) = fields.iter_mut().find(|field| field.name() == name) else {
            return Err(
                Error::invalid(format!("no file and no folder has a column {name}"), "--schema").with_hint(
                    format!("the columns are {}: name some of them, or none", known.join(", ")),
                ),
            );
        };
        if !column.data_type().is_nested() {
            field.set_data_type(column.data_type().clone());
        }
        if column.is_nullable() {
            field.set_nullable(true);
        } else if field.is_nullable() {
            let key = keys.iter().position(|key| key.name == *name);
            let has_null = footers.iter().find(|footer| match key {
                Some(key) => footer.values[key].is_none(),
                None => footer.rows > 0 && footer.columns.get(name).is_none_or(|c| c.nulls != Some(0)),
            });
            if let Some(footer) = has_null {
                return Err(Error::invalid(
                    format!("column {name} cannot be NOT NULL: the file may hold NULLs"),
                    &footer.path,
                )
                .with_hint("leave NOT NULL out"));
            }
            field.set_nullable(false);
        }
    }
    Ok(())
}

fn data_file(footer: Footer, draft: &Snapshot, keys: &[Key]) -> Result<DataFile> {
    let mut columns = footer.columns;
    for (name, stats) in &mut columns {
        values::fit(stats, columns::type_of(&draft.schema, name));
    }
    let by_folder = values::of_folders(&footer.path, &footer.values, keys, &draft.schema, &columns)?;
    let partition = draft
        .partition_fields()
        .iter()
        .map(|field| values::of_field(field, &by_folder, &draft.schema, &columns, &footer.path))
        .collect::<Result<_>>()?;
    Ok(DataFile {
        recorded: footer.path.clone(),
        path: footer.path,
        bytes: footer.bytes,
        rows: footer.rows,
        spec_id: draft.spec_id,
        partition,
        columns,
        masks: Vec::new(),
        equality_deletes: Vec::new(),
        sequence: None,
        first_row_id: None,
        split_offsets: footer.split_offsets,
        notes: None,
    })
}

fn has_field_ids(schema: &Schema) -> bool {
    let mut fields = schema.fields().iter();
    fields.any(|field| crate::model::schema::field_id(field).is_some())
}

/// The same error with the file that it is about.
fn of_file(error: Error, file: &str) -> Error {
    match error {
        Error::Unsupported { what, .. } => Error::unsupported(
            format!("{what} (in {file})"),
            "leave the file out, and load it with `lake append` into a table with columns that it can be cast to",
        ),
        Error::Invalid { what, place, hint } if place.is_empty() => Error::Invalid {
            what,
            place: file.to_owned(),
            hint,
        },
        other => other,
    }
}

/// Files that are adopted are read as they are: what is stored in another form than the table's is refused.
fn to_be_converted(column: &str, stored: &str, file: &str) -> Error {
    Error::unsupported(
        format!("column {column} of {file} is stored as {stored}"),
        "files are adopted as they are: leave this one out, and load it with `lake append`, which converts",
    )
}
