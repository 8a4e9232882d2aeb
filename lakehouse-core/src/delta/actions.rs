//! The actions of the log as they are written, one JSON object a line (Delta protocol, "Actions").

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Names with optional values, as in `partitionValues` and `tags`.
pub(super) type Texts = BTreeMap<String, Option<String>>;

/// One line of a log entry: exactly one field is set. Kinds of action that we do not know are
/// skipped, as the protocol asks; it guards what must not be skipped with table features.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Action {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit_info: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meta_data: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) domain_metadata: Option<DomainMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remove: Option<RemoveFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) add: Option<AddFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cdc: Option<ChangeFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint_metadata: Option<CheckpointMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sidecar: Option<SidecarFile>,
}

/// `add`: a data file becomes part of the table, or its mask is replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AddFile {
    pub(super) path: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) partition_values: Texts,
    pub(super) size: i64,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) modification_time: i64,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stats: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tags: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deletion_vector: Option<Vector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base_row_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) default_row_commit_version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) clustering_provider: Option<String>,
}

/// `remove`: a data file, with the mask it had, is no longer part of the table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RemoveFile {
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deletion_timestamp: Option<i64>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extended_file_metadata: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition_values: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stats: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tags: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deletion_vector: Option<Vector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base_row_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) default_row_commit_version: Option<i64>,
}

/// Where a deletion vector is (Delta protocol, "Deletion Vector Descriptor Schema").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Vector {
    /// `u` file named by a UUID, `p` path, `i` inline.
    pub(super) storage_type: String,
    pub(super) path_or_inline_dv: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<i64>,
    pub(super) size_in_bytes: i64,
    pub(super) cardinality: i64,
}

/// `metaData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    pub(super) format: FileFormat,
    pub(super) schema_string: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) partition_columns: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) configuration: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_time: Option<i64>,
}

/// `metaData.format`: always Parquet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FileFormat {
    pub(super) provider: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) options: BTreeMap<String, String>,
}

impl Default for FileFormat {
    fn default() -> Self {
        Self {
            provider: "parquet".into(),
            options: BTreeMap::new(),
        }
    }
}

/// `protocol`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Protocol {
    pub(super) min_reader_version: i32,
    pub(super) min_writer_version: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reader_features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writer_features: Option<Vec<String>>,
}

/// `txn`: the last version that an application has committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Txn {
    pub(super) app_id: String,
    pub(super) version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_updated: Option<i64>,
}

/// `domainMetadata`: kept through checkpoints, never interpreted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DomainMetadata {
    pub(super) domain: String,
    pub(super) configuration: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) removed: bool,
}

/// `cdc`: a change file of a table with the change data feed. Only its path matters here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ChangeFile {
    pub(super) path: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) partition_values: Texts,
    pub(super) size: i64,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) data_change: bool,
}

/// `checkpointMetadata`: begins a checkpoint of version 2.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CheckpointMetadata {
    pub(super) version: i64,
}

/// `sidecar`: a file with a part of the list of data files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SidecarFile {
    pub(super) path: String,
    pub(super) size_in_bytes: i64,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) modification_time: i64,
}

/// What identifies a live file: its path as recorded and its deletion vector (Delta protocol,
/// "Add File and Remove File": the primary key).
pub(super) type FileKey = (String, Option<String>);

/// Some writers spell out what is not there.
fn null_is_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Vector {
    /// The unique id of the protocol: storage type, path or data, offset.
    pub(super) fn id(&self) -> String {
        match self.offset {
            Some(offset) => format!("{}{}@{offset}", self.storage_type, self.path_or_inline_dv),
            None => format!("{}{}", self.storage_type, self.path_or_inline_dv),
        }
    }
}

impl AddFile {
    pub(super) fn key(&self) -> FileKey {
        (self.path.clone(), self.deletion_vector.as_ref().map(Vector::id))
    }

    /// The `remove` that undoes this `add`.
    pub(super) fn removal(self, now_ms: i64, data_change: bool) -> RemoveFile {
        RemoveFile {
            path: self.path,
            deletion_timestamp: Some(now_ms),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition_values),
            size: Some(self.size),
            stats: self.stats,
            tags: self.tags,
            deletion_vector: self.deletion_vector,
            base_row_id: self.base_row_id,
            default_row_commit_version: self.default_row_commit_version,
        }
    }
}

impl RemoveFile {
    pub(super) fn key(&self) -> FileKey {
        (self.path.clone(), self.deletion_vector.as_ref().map(Vector::id))
    }
}

/// Reads a log entry. `place` is its key, for errors.
///
/// # Errors
/// [`Error::Invalid`] with the line that cannot be read.
pub(super) fn parse(bytes: &[u8], place: &str) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        actions.push(serde_json::from_slice(line).map_err(|e| broken_line(place, number + 1, &e))?);
    }
    if actions.is_empty() {
        return Err(
            Error::invalid("the log entry is empty", place).with_hint("restore the file from a backup")
        );
    }
    Ok(actions)
}

/// The `commitInfo` of a log entry without reading its other actions. Writers put it first, so that
/// the beginning of the entry (`whole` false) is mostly enough; `None` then means "read all of it".
pub(super) fn parse_commit_info(
    bytes: &[u8],
    whole: bool,
    place: &str,
) -> Result<Option<Option<Map<String, Value>>>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line {
        #[serde(default)]
        commit_info: Option<Map<String, Value>>,
    }
    let mut lines = bytes.split(|b| *b == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if lines.peek().is_none() && !whole {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line: Line = serde_json::from_slice(line).map_err(|e| broken_line(place, number + 1, &e))?;
        if line.commit_info.is_some() {
            return Ok(Some(line.commit_info));
        }
    }
    Ok(whole.then_some(None))
}

fn broken_line(place: &str, line: usize, error: &serde_json::Error) -> Error {
    Error::invalid(
        format!("line {line} of the log entry cannot be read: {error}"),
        place,
    )
    .with_hint("the table cannot be read past this entry; restore the file from a backup")
}

/// A log entry's bytes: one action a line.
pub(super) fn render(actions: &[Action]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action)
            .map_err(|e| Error::invalid(format!("cannot write an action: {e}"), ""))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Reads an action from what the kernel gives, which spells it as the log does.
pub(super) fn from_value<T: serde::de::DeserializeOwned>(value: Value, what: &str) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|e| Error::invalid(format!("the table's {what} cannot be read: {e}"), "_delta_log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_actions_and_fields_are_skipped_and_known_ones_kept() {
        let text = br#"{"future":{"x":1}}
{"add":{"path":"a.parquet","partitionValues":{"d":null},"size":3,"modificationTime":7,"dataChange":true,"later":[1]}}
"#;
        let actions = parse(text, "x").unwrap();
        let add = actions[1].add.as_ref().unwrap();
        assert_eq!((add.size, &add.partition_values["d"]), (3, &None));
        assert!(actions[0].add.is_none());
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = parse(b"{\"txn\":{}}\n{\"add\":", "_delta_log/3.json").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(error.to_string().contains("_delta_log/3.json"), "{error}");
        assert!(error.hint().is_some());
        assert!(parse(b"\n", "x").is_err());
    }

    #[test]
    fn commit_info_is_found_in_the_beginning_of_an_entry_only_when_its_line_is_whole() {
        let text = b"{\"commitInfo\":{\"timestamp\":5}}\n{\"add\":{\"pa";
        let info = parse_commit_info(text, false, "x").unwrap().flatten().unwrap();
        assert_eq!(info["timestamp"], 5);
        assert!(parse_commit_info(&text[..20], false, "x").unwrap().is_none());
        assert_eq!(parse_commit_info(b"{\"txn\":{}}", true, "x").unwrap(), Some(None));
    }
}
