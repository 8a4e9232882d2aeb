//! A new table: version 1 of the metadata.

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, Schema, SortOrder, TableMetadata, TableMetadataBuilder, Transform as IcebergTransform,
    UnboundPartitionField, UnboundPartitionSpec,
};
use uuid::Uuid;

use super::catalog::{Catalog, Replaced};
use super::metadata::{encode, version_number};
use super::properties;
use super::types::to_iceberg;
use super::view::open;
use crate::error::{Error, Result};
use crate::format::Outcome;
use crate::model::{At, BucketHash, CommitId, Definition, PartitionField, Transform};
use crate::store::{Store, clock};

/// Creates the table. Its uuid is the commit id, so that its author recognises it.
///
/// # Errors
/// [`Error::Unsupported`] or [`Error::Invalid`] for a definition that Iceberg cannot store.
pub(super) async fn create(
    store: &Store,
    catalog: &Catalog,
    definition: &Definition,
    commit_id: &CommitId,
) -> Result<Outcome> {
    let metadata = first_metadata(store, definition, commit_id)?;
    if catalog.is_taken(store, None).await? {
        return Ok(Outcome::Lost);
    }
    let bytes = encode(&metadata, clock::now_ms())?;
    let uuid = metadata.uuid();
    let ours = |state: &super::metadata::State| state.metadata.uuid() == uuid;
    Ok(
        match catalog.replace(store, None, bytes, commit_id, ours).await? {
            Replaced::Yes(state) => Outcome::Committed(open(&Arc::new(*state), &At::Latest)?),
            Replaced::No => Outcome::Lost,
            Replaced::Unknown(error) => Outcome::Unknown(error),
        },
    )
}

/// The uuid of a table that this commit creates.
fn table_uuid(commit_id: &CommitId) -> Uuid {
    Uuid::parse_str(&commit_id.0).unwrap_or_else(|_| {
        let half = |seed: u32| u128::from(crc32fast::hash(format!("{seed}{commit_id}").as_bytes()));
        Uuid::from_u128(half(1) << 96 | half(2) << 64 | half(3) << 32 | half(4))
    })
}

pub(super) fn first_metadata(
    store: &Store,
    definition: &Definition,
    commit_id: &CommitId,
) -> Result<TableMetadata> {
    let version = match definition.format_version {
        None | Some(2) => FormatVersion::V2,
        Some(3) => FormatVersion::V3,
        Some(other) => {
            return Err(Error::unsupported(
                format!("Iceberg format version {other} cannot be created"),
                "choose 2 or 3",
            ));
        }
    };
    let schema = to_iceberg(&definition.schema, version)?;
    let spec = partition_spec(&definition.partition_fields, &schema, &|field, _| {
        default_name(field)
    })?;
    for (key, value) in &definition.properties {
        properties::check(key, value)?;
    }
    let properties = definition.properties.clone().into_iter().collect();
    let refused = |e: iceberg::Error| Error::invalid(e.message(), "the definition of the table");
    let built = TableMetadataBuilder::new(
        schema,
        spec,
        SortOrder::unsorted_order(),
        store.location().to_owned(),
        version,
        properties,
    )
    .and_then(|builder| builder.assign_uuid(table_uuid(commit_id)).build())
    .map_err(refused)?;
    debug_assert_eq!(
        version_number(built.metadata.format_version()),
        version_number(version)
    );
    Ok(built.metadata)
}

/// A partition spec as the builder of metadata takes it; fields without a name get the one of `name`.
///
/// # Errors
/// [`Error::NotFound`] for a column that is not there, [`Error::Unsupported`] for a transform that its type does not
/// have, [`Error::Invalid`] for a name that cannot be one.
pub(super) fn partition_spec(
    fields: &[PartitionField],
    schema: &Schema,
    name_of: &dyn Fn(&PartitionField, i32) -> String,
) -> Result<UnboundPartitionSpec> {
    let mut names = HashSet::new();
    let mut builder = UnboundPartitionSpec::builder().with_spec_id(0);
    for field in fields {
        let source = schema.field_by_name(&field.source).ok_or_else(|| {
            let known: Vec<_> = schema
                .as_struct()
                .fields()
                .iter()
                .map(|f| f.name.as_str())
                .collect();
            Error::not_found(format!("partition column {}", field.source), "")
                .with_hint(format!("the columns are {}", known.join(", ")))
        })?;
        let transform = to_iceberg_transform(field.transform)?;
        transform.result_type(&source.field_type).map_err(|_| {
            Error::unsupported(
                format!(
                    "{} cannot be partitioned by {transform}: its type is {}",
                    field.source, source.field_type
                ),
                "choose a transform that is defined for this type",
            )
        })?;
        let name = match field.name.as_str() {
            "" => name_of(field, source.id),
            given => given.to_owned(),
        };
        if !names.insert(name.clone()) {
            return Err(Error::invalid(
                format!("two partition fields have the name {name}"),
                "partitioning",
            )
            .with_hint("partition by a column and transform once"));
        }
        builder = builder
            .add_partition_fields([UnboundPartitionField {
                source_id: source.id,
                field_id: None,
                name,
                transform,
            }])
            .map_err(|e| Error::invalid(e.message(), "partitioning"))?;
    }
    Ok(builder.build())
}

/// The name that other engines give to such a field, with what manifests cannot spell replaced.
pub(super) fn default_name(field: &PartitionField) -> String {
    let suffix = match field.transform {
        Transform::Identity => "",
        Transform::Year => "_year",
        Transform::Month => "_month",
        Transform::Day => "_day",
        Transform::Hour => "_hour",
        Transform::Bucket { .. } => "_bucket",
        Transform::Truncate(_) | Transform::Prefix(_) => "_trunc",
        Transform::Void => "_null",
    };
    let mut name = format!("{}{suffix}", field.source).replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

pub(super) fn to_iceberg_transform(transform: Transform) -> Result<IcebergTransform> {
    Ok(match transform {
        Transform::Identity => IcebergTransform::Identity,
        Transform::Year => IcebergTransform::Year,
        Transform::Month => IcebergTransform::Month,
        Transform::Day => IcebergTransform::Day,
        Transform::Hour => IcebergTransform::Hour,
        Transform::Void => IcebergTransform::Void,
        Transform::Bucket { buckets: 0, .. } | Transform::Truncate(0) => {
            return Err(Error::invalid(
                "the number in bucket and truncate must be at least 1",
                "partitioning",
            ));
        }
        Transform::Bucket {
            hash: BucketHash::Spark,
            ..
        } => {
            return Err(Error::unsupported(
                "Iceberg tables do not have Spark's bucket hash",
                "partition by bucket(N, column)",
            ));
        }
        Transform::Bucket { buckets, .. } => IcebergTransform::Bucket(buckets),
        Transform::Truncate(width) | Transform::Prefix(width) => IcebergTransform::Truncate(width),
    })
}
