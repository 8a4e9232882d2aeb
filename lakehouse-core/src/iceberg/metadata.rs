//! `metadata.json`: bytes to table metadata and back.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use iceberg::spec::{FormatVersion, TableMetadata};
use serde_json::Value;

use super::paths::Paths;
use super::refs;
use super::types::unspellable_default;
use crate::error::{Error, Result};
use crate::model::limits::{self, Limit};
use crate::model::{MAIN, Ref, json};
use crate::store::Store;

/// One metadata file, read.
#[derive(Debug)]
pub(super) struct State {
    pub(super) metadata: Arc<TableMetadata>,
    /// Tags and branches, which the crate keeps to itself.
    pub(super) refs: BTreeMap<String, Ref>,
    /// N of `vN.metadata.json`.
    pub(super) number: u64,
    /// Key of the metadata file.
    pub(super) file: String,
    /// How a catalog spells its location.
    pub(super) named: Option<String>,
    pub(super) paths: Paths,
    /// Why the table can only be read, and what to do about it.
    pub(super) read_only: Option<(String, String)>,
}

impl State {
    /// Reads a metadata file that was found under the key `file`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the file when it cannot be understood; [`Error::Limit`] when it is too large.
    pub(super) fn parse(store: &Store, file: &str, number: u64, bytes: &Bytes) -> Result<Self> {
        let json = plain(bytes, store.limits().metadata_bytes, file)?;
        json::check(&json, store.limits().metadata_values, file)?;
        let mut value: Value =
            serde_json::from_slice(&json).map_err(|e| broken(file, format!("it is not JSON: {e}")))?;
        check_version(&value, file)?;
        check_types(&value)?;
        check_paths(&value, file)?;
        number_snapshots(&mut value);
        rename_voids(&mut value);
        let refs = refs::parse(&value);
        // The crate's checks overflow at times and numbers that make no sense.
        let read = || serde_json::from_value::<TableMetadata>(value);
        let metadata = catch_unwind(AssertUnwindSafe(read))
            .map_err(|_| broken(file, "its numbers make no sense".into()))?
            .map_err(|e| broken(file, e.to_string()))?;
        let paths = Paths::new(store, metadata.location());
        let moved = paths.moved().then(|| {
            (
                format!(
                    "the table was copied: its metadata names {}, it was opened at {}",
                    paths.location(),
                    store.location()
                ),
                "write to the table at its own place, or load this copy's rows into a new table".to_owned(),
            )
        });
        // The crate forgets them when it writes.
        let forgets = metadata.format_version() == FormatVersion::V1 && refs.keys().any(|name| name != MAIN);
        let tagged = forgets.then(|| {
            (
                "it is of format version 1 and has tags or branches".to_owned(),
                "upgrade the table to version 2 with the engine that wrote it".to_owned(),
            )
        });
        let early = metadata
            .schemas_iter()
            .find_map(|schema| unspellable_default(schema));
        let early = early.map(|column| {
            (
                format!("the default of column {column} is a time before 1970, which is not written"),
                "write to the table with the engine that added the column".to_owned(),
            )
        });
        let read_only = moved.or(tagged).or(early);
        Ok(Self {
            metadata: Arc::new(metadata),
            refs,
            number,
            file: file.to_owned(),
            named: None,
            paths,
            read_only,
        })
    }

    /// Whether it is that of a table which is not made yet: there is no metadata file.
    pub(super) fn is_draft(&self) -> bool {
        self.file.is_empty()
    }

    /// The location of the metadata file: as the catalog spells it, else as the metadata spells paths.
    pub(super) fn recorded(&self) -> String {
        self.named
            .clone()
            .unwrap_or_else(|| self.paths.absolute(&self.file))
    }

    /// Refuses to write where that would break the table.
    ///
    /// # Errors
    /// [`Error::Unsupported`] saying why and what to do.
    pub(super) fn check_writable(&self) -> Result<()> {
        match &self.read_only {
            Some((what, hint)) => Err(Error::unsupported(
                format!("this Iceberg table is read-only: {what}"),
                hint.clone(),
            )),
            None => Ok(()),
        }
    }
}

/// Metadata as a file. `updated_ms` replaces the time that the crate's builder took from the system.
///
/// # Errors
/// When the metadata cannot be serialised.
pub(super) fn encode(metadata: &TableMetadata, updated_ms: i64) -> Result<Vec<u8>> {
    written(&to_json(metadata, updated_ms)?)
}

/// The same before it is text.
///
/// # Errors
/// As [`encode`].
pub(super) fn to_json(metadata: &TableMetadata, updated_ms: i64) -> Result<Value> {
    let mut value = serde_json::to_value(metadata).map_err(unwritable)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("last-updated-ms".into(), updated_ms.into());
        // Older readers take these lists for granted.
        for list in ["snapshots", "snapshot-log", "metadata-log"] {
            fields.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        }
        for (list, key) in [
            ("snapshots", "timestamp-ms"),
            ("schemas", "schema-id"),
            ("partition-specs", "spec-id"),
            ("sort-orders", "order-id"),
        ] {
            if let Some(Value::Array(items)) = fields.get_mut(list) {
                items.sort_by_key(|item| item.get(key).and_then(Value::as_i64));
            }
        }
    }
    Ok(value)
}

/// The text of it.
///
/// # Errors
/// As [`encode`].
pub(super) fn written(json: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(json).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::invalid(format!("cannot write table metadata: {error}"), "")
}

fn plain(bytes: &Bytes, limit: Limit, file: &str) -> Result<Bytes> {
    if !bytes.starts_with(&[0x1F, 0x8B]) {
        limits::at_most(bytes.len() as u64, limit, "bytes of table metadata", file)?;
        return Ok(bytes.clone());
    }
    let too_large = || limits::over("table metadata of more bytes", limit, file);
    let read = limits::read_within(|| Ok(MultiGzDecoder::new(bytes.as_ref())), limit);
    let out = read.map_err(|e| broken(file, format!("it cannot be decompressed: {e}")))?;
    Ok(out.ok_or_else(too_large)?.into())
}

/// Snapshots of version 1 have no sequence number: in a table that was upgraded it is 0 (spec, "Snapshots"), which the
/// crate knows of version 2 only.
fn number_snapshots(value: &mut Value) {
    if value["format-version"].as_u64() < Some(2) {
        return;
    }
    let snapshots = value.get_mut("snapshots").and_then(Value::as_array_mut);
    for snapshot in snapshots.into_iter().flatten().filter_map(Value::as_object_mut) {
        snapshot.entry("sequence-number").or_insert_with(|| 0.into());
    }
}

/// Renames the void fields of all partition specs that have the name of a column ([`rename_void`]).
fn rename_voids(value: &mut Value) {
    let lists = ["schemas", "schema"].map(|key| match &value[key] {
        Value::Array(schemas) => schemas.iter().flat_map(columns).collect(),
        schema => columns(schema).collect::<Vec<_>>(),
    });
    let names: BTreeSet<String> = lists.into_iter().flatten().map(str::to_owned).collect();
    let specs = value.get_mut("partition-specs").and_then(Value::as_array_mut);
    for fields in specs
        .into_iter()
        .flatten()
        .filter_map(|spec| spec.get_mut("fields"))
    {
        rename_void(fields, &names);
    }
    if let Some(fields) = value.get_mut("partition-spec") {
        rename_void(fields, &names);
    }
}

/// The names of the columns of a schema as JSON.
pub(super) fn columns(schema: &Value) -> impl Iterator<Item = &str> {
    let fields = schema["fields"].as_array().into_iter().flatten();
    fields.filter_map(|field| field["name"].as_str())
}

/// Gives the void fields among the fields of a partition spec another name, if they have that of a column, as dropped
/// identity fields of format version 1 do: the name, and the id of the field, as newer versions of Iceberg's own library
/// call them. The crate takes such a name for damage. Values are found by the field's id.
pub(super) fn rename_void(fields: &mut Value, columns: &BTreeSet<String>) {
    for (at, field) in fields.as_array_mut().into_iter().flatten().enumerate() {
        let name = field["name"].as_str().filter(|name| columns.contains(*name));
        if let Some(name) = name.filter(|_| field["transform"] == "void") {
            // Without ids they count from 1000 (Iceberg spec, "Partition Evolution").
            let id = field["field-id"].as_i64().unwrap_or(1000 + at as i64);
            field["name"] = format!("{name}_{id}").into();
        }
    }
}

/// Refuses a type that the crate does not know, by its column: it would say of all the metadata that it cannot be read.
fn check_types(value: &Value) -> Result<()> {
    let schemas = value.get("schemas").and_then(Value::as_array);
    let schemas = schemas.into_iter().flatten().chain(value.get("schema"));
    match schemas.into_iter().find_map(|schema| unknown_type(schema, "")) {
        Some((column, name)) => Err(Error::unsupported(
            format!("column {column} has the Iceberg type {name}, which is not read"),
            "read the table with a tool that has this type, or copy its other columns with one",
        )),
        None => Ok(()),
    }
}

/// The first column below a type whose own type is none of the specification's that are read, and that type.
fn unknown_type(ty: &Value, path: &str) -> Option<(String, String)> {
    const KNOWN: [&str; 13] = [
        "boolean",
        "int",
        "long",
        "float",
        "double",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "timestamp_ns",
        "timestamptz_ns",
        "string",
        "uuid",
    ];
    if let Some(name) = ty.as_str() {
        let known = KNOWN.contains(&name)
            || name == "binary"
            || name.starts_with("decimal(")
            || name.starts_with("fixed[");
        return (!known).then(|| (path.to_owned(), name.to_owned()));
    }
    let inside = |key: &str, name: &str| unknown_type(ty.get(key)?, &format!("{path}.{name}"));
    let fields = ty.get("fields").and_then(Value::as_array);
    let mut fields = fields.into_iter().flatten();
    fields
        .find_map(|field| {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            let dot = if path.is_empty() { "" } else { "." };
            unknown_type(field.get("type")?, &format!("{path}{dot}{name}"))
        })
        .or_else(|| inside("element", "element"))
        .or_else(|| inside("key", "key"))
        .or_else(|| inside("value", "value"))
}

fn check_version(value: &Value, file: &str) -> Result<()> {
    let Some(fields) = value.as_object() else {
        return Err(broken(file, "it is not a JSON object".into()));
    };
    let Some(version) = fields.get("format-version").and_then(Value::as_u64) else {
        return Err(broken(file, "it has no format-version".into()));
    };
    let required: &[&str] = match version {
        1 => &["location", "last-updated-ms", "last-column-id"],
        2 | 3 => &[
            "table-uuid",
            "location",
            "last-sequence-number",
            "last-updated-ms",
            "last-column-id",
            "schemas",
            "current-schema-id",
            "partition-specs",
            "default-spec-id",
            "last-partition-id",
            "sort-orders",
            "default-sort-order-id",
        ],
        _ => {
            return Err(Error::Unsupported {
                what: format!("{file} has Iceberg format version {version}; 1, 2 and 3 can be read"),
                hint: "a newer release may be able to read it".into(),
            });
        }
    };
    match required.iter().find(|key| !fields.contains_key(**key)) {
        Some(key) => Err(broken(file, format!("it lacks {key}"))),
        None => Ok(()),
    }
}

/// A metadata file (of any kind) that cannot be understood.
pub(super) fn broken(file: &str, what: String) -> Error {
    Error::invalid(format!("broken Iceberg metadata: {what}"), file).with_hint(
        "the file is damaged or incomplete: restore it from a backup, or read an older version of the table",
    )
}

/// Metadata so short cannot name many columns at great length.
pub(super) const SHORT: usize = 64 << 10;

/// Refuses columns whose names, spelled out from the outermost column on, take a large multiple of their text: the crate keeps
/// them so.
///
/// # Errors
/// [`Error::Limit`].
pub(super) fn check_paths(metadata: &Value, file: &str) -> Result<()> {
    const BYTES: Limit = Limit::fixed(64 << 20);
    fn walk(value: &Value, before: u64, total: &mut u64) {
        match value {
            Value::Object(fields) => {
                let name = fields.get("name").and_then(Value::as_str);
                let path = before + name.map_or(0, |name| name.len() as u64 + 1);
                *total = total.saturating_add(name.map_or(0, |_| path));
                fields.values().for_each(|value| walk(value, path, total));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, before, total)),
            _ => {}
        }
    }
    let mut total = 0;
    walk(metadata, 0, &mut total);
    limits::at_most(total, BYTES, "bytes of names of columns", file)
}

/// What the crate says about a file.
pub(super) fn broken_by(file: &str, error: &iceberg::Error) -> Error {
    broken(file, error.message().to_owned())
}

/// The format version as a number.
pub(super) fn version_number(version: FormatVersion) -> u8 {
    match version {
        FormatVersion::V1 => 1,
        FormatVersion::V2 => 2,
        FormatVersion::V3 => 3,
    }
}
