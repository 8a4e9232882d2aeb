//! The first version of a table.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::actions::{Action, AddFile, Metadata, Protocol};
use super::publish::{ENGINE, render_commit};
use super::{change_feed, hidden, log, mapping, properties, protocol, row_tracking, schema};
use crate::error::{Error, Result};
use crate::model::{CommitId, Definition};
use crate::store::{Store, clock};

/// Whether the folder has a log already: then the table exists, even where its first entries were
/// cleaned up.
pub(super) async fn exists(store: &Store) -> Result<bool> {
    let files = store.list(log::FOLDER).await?;
    Ok(files.iter().any(|file| log::file_version(&file.path).is_some()))
}

/// The log entry of version 0, with these files in it and what is noted beside them.
///
/// # Errors
/// [`Error::Unsupported`] when the definition asks for what Delta, or this writer, does not have.
pub(super) fn first_entry(
    definition: &Definition,
    commit_id: &CommitId,
    files: Vec<Action>,
) -> Result<Vec<u8>> {
    if let Some(version) = definition.format_version {
        return Err(Error::unsupported(
            format!("Delta tables have no format version {version}"),
            "leave the format version out; table features are chosen by what the table needs",
        ));
    }
    check_names(definition)?;
    let (fields, generated) = hidden::plan(&definition.schema, &definition.partition_fields)?;
    let mut schema_string = schema::render(&definition.schema, &generated)?;
    let mut configuration = definition.properties.clone();
    configuration
        .iter()
        .try_for_each(|(key, value)| properties::check(key, value))?;
    if let Some(key) = configuration
        .keys()
        .find(|key| key.starts_with(protocol::CONSTRAINT))
    {
        return Err(Error::unsupported(
            format!("a table cannot be made with the constraint {key}"),
            "make the table, then give it the property with `alter`",
        ));
    }
    let mapped = configuration
        .get(mapping::MODE)
        .is_some_and(|mode| mode != "none");
    if mapped {
        schema_string = mapping::mapped(&schema_string, &mut configuration)?;
    }
    let vectors = configuration
        .entry(protocol::ENABLE_VECTORS.into())
        .or_insert_with(|| "true".into())
        .eq_ignore_ascii_case("true");
    let tracked = configuration
        .get(row_tracking::ENABLE)
        .is_some_and(|on| on.eq_ignore_ascii_case("true"));
    if tracked {
        row_tracking::name_columns(&mut configuration);
    }
    let now = clock::now_ms();
    let metadata = Metadata {
        id: clock::new_commit_id().0,
        schema_string,
        partition_columns: fields.into_iter().map(|field| field.name).collect(),
        configuration,
        created_time: Some(now),
        ..Metadata::default()
    };
    let mut protocol = protocol_for(&metadata, definition, vectors, !generated.is_empty());
    if mapped {
        protocol = protocol.with(protocol::COLUMN_MAPPING, true);
    }
    if tracked {
        protocol = protocol
            .with(row_tracking::FEATURE, false)
            .with(row_tracking::DOMAINS, false);
    }
    if metadata
        .configuration
        .get(protocol::CHECKPOINT_POLICY)
        .is_some_and(|policy| policy == "v2")
    {
        protocol = protocol.with(protocol::V2_CHECKPOINT, true);
    }
    if protocol::is_on(&metadata, change_feed::ENABLE) {
        protocol = protocol.with(change_feed::FEATURE, false);
    }
    let columns = schema::parse(&metadata.schema_string, protocol::mapping(&metadata)?)?;
    if let Some(refusal) = protocol::refusal(&protocol, &metadata, &columns) {
        return Err((&refusal).into());
    }
    let info = commit_info(&metadata, commit_id, now, &files);
    let mut entry = vec![
        Action {
            protocol: Some(protocol),
            ..Action::default()
        },
        Action {
            meta_data: Some(metadata),
            ..Action::default()
        },
    ];
    entry.extend(files);
    render_commit(info, entry)
}

fn protocol_for(metadata: &Metadata, definition: &Definition, vectors: bool, generated: bool) -> Protocol {
    let mut both = Vec::new();
    if vectors {
        both.push(protocol::DELETION_VECTORS.to_owned());
    }
    if schema::uses_timestamp_ntz(&definition.schema) {
        both.push(protocol::TIMESTAMP_NTZ.to_owned());
    }
    if protocol::is_on(metadata, protocol::ENABLE_WIDENING) {
        both.push(protocol::TYPE_WIDENING.to_owned());
    }
    let mut writer = both.clone();
    writer.extend(["appendOnly".to_owned(), "invariants".to_owned()]);
    if generated {
        writer.push(protocol::GENERATED_COLUMNS.to_owned());
    }
    Protocol {
        // A table that readers need no feature for stays readable by the oldest of them.
        min_reader_version: if both.is_empty() { 1 } else { 3 },
        min_writer_version: 7,
        reader_features: (!both.is_empty()).then_some(both),
        writer_features: Some(writer),
    }
}

/// Delta compares column names without regard to case.
fn check_names(definition: &Definition) -> Result<()> {
    let mut seen = BTreeMap::new();
    for field in definition.schema.fields() {
        check_name(field.name())?;
        if let Some(other) = seen.insert(field.name().to_lowercase(), field.name()) {
            return Err(Error::invalid(
                format!("the columns {other} and {} differ only in case", field.name()),
                "",
            )
            .with_hint("rename one of them"));
        }
    }
    if definition.schema.fields().is_empty() {
        return Err(Error::invalid("the table has no columns", "").with_hint("give it at least one"));
    }
    Ok(())
}

/// Refuses what cannot be a column's name.
///
/// # Errors
/// [`Error::Invalid`] saying why.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("a column has no name", ""));
    }
    if name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
        return Err(Error::invalid(
            format!("the column name {name:?} has a character that Delta does not allow"),
            "",
        )
        .with_hint("rename it without any of space , ; { } ( ) = tab newline, or use --format iceberg"));
    }
    Ok(())
}

fn commit_info(metadata: &Metadata, commit_id: &CommitId, now: i64, entry: &[Action]) -> Map<String, Value> {
    let text = |value: Value| Value::from(value.to_string());
    let parameters = json!({
        "isManaged": "false",
        "partitionBy": text(json!(metadata.partition_columns)),
        "properties": text(json!(metadata.configuration)),
    });
    let files: Vec<&AddFile> = entry.iter().filter_map(|action| action.add.as_ref()).collect();
    let metrics = match files.as_slice() {
        [] => json!({}),
        files => json!({
            "numAddedFiles": files.len().to_string(),
            "numOutputBytes": files.iter().map(|file| file.size).sum::<i64>().to_string(),
        }),
    };
    let mut info = Map::new();
    info.insert("timestamp".into(), json!(now));
    info.insert("operation".into(), json!("CREATE TABLE"));
    info.insert("operationParameters".into(), parameters);
    info.insert("isBlindAppend".into(), json!(true));
    info.insert("operationMetrics".into(), metrics);
    info.insert("engineInfo".into(), json!(ENGINE));
    info.insert("txnId".into(), json!(commit_id.0));
    info
}
