//! The columns of checkpoints (Delta protocol, "Checkpoint Schema", "Sidecar File Schema").

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

/// The columns of one file with everything: version 1.
pub(super) fn whole() -> SchemaRef {
    let mut fields = others();
    fields.extend(files());
    Arc::new(Schema::new(fields))
}

/// The columns of the file of version 2 that names the others.
pub(super) fn top() -> SchemaRef {
    let mut fields = others();
    // Not used, but Spark asks for them by name.
    fields.extend(files());
    fields.push(group("checkpointMetadata", vec![long("version"), texts("tags")]));
    fields.push(group(
        "sidecar",
        vec![
            text("path"),
            long("sizeInBytes"),
            long("modificationTime"),
            texts("tags"),
        ],
    ));
    Arc::new(Schema::new(fields))
}

/// The columns of the files of version 2 with the list of data files.
pub(super) fn sidecar() -> SchemaRef {
    Arc::new(Schema::new(files()))
}

/// Actions that are not about data files.
fn others() -> Vec<Field> {
    vec![
        group("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        group(
            "metaData",
            vec![
                text("id"),
                text("name"),
                text("description"),
                group("format", vec![text("provider"), texts("options")]),
                text("schemaString"),
                list("partitionColumns"),
                texts("configuration"),
                long("createdTime"),
            ],
        ),
        group(
            "protocol",
            vec![
                int("minReaderVersion"),
                int("minWriterVersion"),
                list("readerFeatures"),
                list("writerFeatures"),
            ],
        ),
        group(
            "domainMetadata",
            vec![text("domain"), text("configuration"), flag("removed")],
        ),
    ]
}

/// Actions about data files.
fn files() -> Vec<Field> {
    vec![
        group(
            "add",
            vec![
                text("path"),
                texts("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                texts("tags"),
                vector(),
                long("baseRowId"),
                long("defaultRowCommitVersion"),
                text("clusteringProvider"),
            ],
        ),
        group(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                texts("partitionValues"),
                long("size"),
                text("stats"),
                texts("tags"),
                vector(),
                long("baseRowId"),
                long("defaultRowCommitVersion"),
            ],
        ),
    ]
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn long(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn int(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

fn flag(name: &str) -> Field {
    Field::new(name, DataType::Boolean, true)
}

fn group(name: &str, fields: Vec<Field>) -> Field {
    Field::new(name, DataType::Struct(fields.into()), true)
}

fn texts(name: &str) -> Field {
    let pair = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    let entries = Field::new("key_value", DataType::Struct(pair), false);
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

fn list(name: &str) -> Field {
    let element = Field::new("element", DataType::Utf8, true);
    Field::new(name, DataType::List(Arc::new(element)), true)
}

fn vector() -> Field {
    group(
        "deletionVector",
        vec![
            text("storageType"),
            text("pathOrInlineDv"),
            int("offset"),
            int("sizeInBytes"),
            long("cardinality"),
        ],
    )
}
