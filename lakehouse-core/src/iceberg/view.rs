//! One version of a table as a [`Snapshot`]: time travel, columns, partition fields, capabilities.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, NullOrder, PartitionSpec, PrimitiveType, Schema, SchemaRef, SnapshotRef, SortDirection,
    TableMetadata, Type,
};

use super::commits::COMMITS_PROPERTY;
use super::metadata::{State, version_number};
use super::names;
use super::refs;
use super::types::to_arrow;
use crate::error::{Error, Result};
use crate::model::schema::lineage_by_id;
use crate::model::{
    At, BucketHash, Capabilities, MAIN, PartitionField, RefKind, Snapshot, SortColumn, Transform, Version,
};

/// What a [`Snapshot`] of ours carries in `private`.
#[derive(Debug)]
pub(super) struct View {
    pub(super) state: Arc<State>,
    /// `None` for the empty table before its first snapshot.
    pub(super) snapshot: Option<SnapshotRef>,
    pub(super) schema: SchemaRef,
    /// The branch whose newest version this is, and which a commit on it moves; `None` for older versions and those
    /// that a tag was asked for.
    pub(super) branch: Option<String>,
}

impl View {
    /// The view inside a snapshot.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the snapshot was made by another format.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Arc<Self>> {
        let private: Arc<dyn Any + Send + Sync> = Arc::clone(&snapshot.private);
        private
            .downcast::<Self>()
            .map_err(|_| Error::invalid("this snapshot is not one of an Iceberg table", ""))
    }

    pub(super) fn metadata(&self) -> &TableMetadata {
        &self.state.metadata
    }

    /// Id of the snapshot, 0 when there is none.
    pub(super) fn version(&self) -> Version {
        self.snapshot
            .as_ref()
            .map_or(0, |snapshot| snapshot.snapshot_id())
    }
}

/// Opens a version of the table.
///
/// # Errors
/// [`Error::NotFound`] when there is no such version, [`Error::Unsupported`] for columns or partition
/// fields that we cannot read.
pub(super) fn open(state: &Arc<State>, at: &At) -> Result<Arc<Snapshot>> {
    let snapshot = find_snapshot(state, at)?;
    let branch = match at {
        At::Ref(name) => {
            let found = state.refs.get(name);
            found
                .is_some_and(|found| found.kind == RefKind::Branch)
                .then_some(name.as_str())
        }
        _ => Some(MAIN),
    };
    open_snapshot(state, snapshot, branch)
}

/// The same, for a snapshot already found, which may be the newest of this branch.
///
/// # Errors
/// As [`open`].
pub(super) fn open_snapshot(
    state: &Arc<State>,
    snapshot: Option<SnapshotRef>,
    branch: Option<&str>,
) -> Result<Arc<Snapshot>> {
    let metadata = &state.metadata;
    let version = snapshot.as_ref().map_or(0, |s| s.snapshot_id());
    let branch = branch.filter(|branch| refs::head(state, branch) == version);
    // The newest version has the table's columns of today, an older one those of its time. A tag has those of its
    // time wherever it is, as in other engines (Iceberg, "Branching and Tagging", "Schema selection").
    let schema = match &snapshot {
        Some(snapshot) if branch.is_none() => snapshot
            .schema(metadata)
            .map_err(|e| super::metadata::broken_by(&state.file, &e))?,
        _ => metadata.current_schema().clone(),
    };
    let specs = metadata
        .partition_specs_iter()
        .map(|spec| Ok((spec.spec_id(), fields(spec, &schema)?)))
        .collect::<Result<_>>()?;
    let timestamp_ms = snapshot
        .as_ref()
        .map_or(metadata.last_updated_ms(), |s| s.timestamp_ms());
    let properties: BTreeMap<String, String> = metadata
        .properties()
        .iter()
        // For its author only.
        .filter(|(key, _)| *key != COMMITS_PROPERTY)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Ok(Arc::new(Snapshot {
        version,
        state: state.number,
        timestamp_ms,
        schema: names::noted(to_arrow(&schema)?, metadata),
        specs,
        spec_id: metadata.default_partition_spec_id(),
        sort_order: sort_order(metadata, &schema),
        identifier: identifier(&schema),
        features: vec![format!("v{}", version_number(metadata.format_version()))],
        capabilities: capabilities(state, &properties),
        properties,
        checks: Vec::new(),
        refs: state.refs.clone(),
        lineage: (metadata.format_version() >= FormatVersion::V3).then(lineage_by_id),
        private: Arc::new(View {
            state: Arc::clone(state),
            snapshot,
            schema,
            branch: branch.map(str::to_owned),
        }),
    }))
}

/// The snapshot of a version; `None` for the empty table.
///
/// # Errors
/// [`Error::NotFound`] when there is no such version.
pub(super) fn find_snapshot(state: &State, at: &At) -> Result<Option<SnapshotRef>> {
    let metadata = &state.metadata;
    let missing = |what: String| Error::not_found(what, state.paths.location()).with_hint(known(metadata));
    match at {
        At::Latest => Ok(metadata.current_snapshot().cloned()),
        At::Version(0) => Ok(None),
        At::Version(back) if back.unsigned_abs() > metadata.snapshots().len() as u64 && *back < 0 => {
            Err(missing(format!("version {back}")))
        }
        At::Version(back) if *back < 0 => {
            let mut at = metadata.current_snapshot();
            for _ in *back..0 {
                let Some(snapshot) = at else {
                    return Err(missing(format!("version {back}")));
                };
                at = match snapshot.parent_snapshot_id() {
                    None => None,
                    Some(parent) => Some(
                        metadata
                            .snapshot_by_id(parent)
                            .ok_or_else(|| missing(format!("version {back}")))?,
                    ),
                };
            }
            Ok(at.cloned())
        }
        At::Version(id) => metadata
            .snapshot_by_id(*id)
            .map(|snapshot| Some(Arc::clone(snapshot)))
            .ok_or_else(|| missing(format!("version {id}"))),
        At::Timestamp(instant) => {
            let entry = metadata
                .history()
                .iter()
                .rev()
                .find(|entry| entry.timestamp_ms <= *instant);
            entry
                .and_then(|entry| metadata.snapshot_by_id(entry.snapshot_id))
                .map(|snapshot| Some(Arc::clone(snapshot)))
                .ok_or_else(|| missing(format!("a version at or before {instant} ms since 1970")))
        }
        At::Ref(name) => state
            .refs
            .get(name)
            .and_then(|found| metadata.snapshot_by_id(found.version))
            .map(|snapshot| Some(Arc::clone(snapshot)))
            .ok_or_else(|| missing(format!("tag or branch \"{name}\"")).with_hint(refs::known(state))),
    }
}

/// The versions that there are, for hints.
fn known(metadata: &TableMetadata) -> String {
    let mut all: Vec<_> = metadata
        .snapshots()
        .map(|s| (s.timestamp_ms(), s.snapshot_id()))
        .collect();
    all.sort_unstable();
    match (all.first(), all.last()) {
        (Some(oldest), Some(newest)) => format!(
            "the table has {} versions, the oldest is {} (at {} ms), the newest {}",
            all.len(),
            oldest.1,
            oldest.0,
            newest.1
        ),
        _ => "the table has no versions yet".to_owned(),
    }
}

/// The fields of a partition spec. A field whose column is gone says nothing any more: it reads as void.
fn fields(spec: &PartitionSpec, schema: &Schema) -> Result<Vec<PartitionField>> {
    spec.fields()
        .iter()
        .map(|field| {
            let source = schema.name_by_field_id(field.source_id);
            let transform = match source {
                Some(_) => to_transform(field.transform)?,
                None => Transform::Void,
            };
            Ok(PartitionField {
                source: source.unwrap_or_default().to_owned(),
                transform,
                name: field.name.clone(),
                field_id: field.field_id,
                zone_slack_days: 0,
            })
        })
        .collect()
}

/// The columns of the default sort order; empty when it has others than columns as they are.
pub(super) fn sort_order(metadata: &TableMetadata, schema: &Schema) -> Vec<SortColumn> {
    let fields = metadata.default_sort_order().fields.iter();
    let columns = fields.map(|field| {
        let column = schema.name_by_field_id(field.source_id)?;
        (field.transform == iceberg::spec::Transform::Identity).then(|| SortColumn {
            column: column.to_owned(),
            descending: field.direction == SortDirection::Descending,
            nulls_first: field.null_order == NullOrder::First,
        })
    });
    columns.collect::<Option<_>>().unwrap_or_default()
}

/// The names of the identifier fields, in the order of their ids.
fn identifier(schema: &Schema) -> Vec<String> {
    let mut ids: Vec<i32> = schema.identifier_field_ids().collect();
    ids.sort_unstable();
    let names = ids.into_iter().filter_map(|id| schema.name_by_field_id(id));
    names.map(str::to_owned).collect()
}

/// Whether a partition field can have this name in a manifest as it is.
pub(super) fn is_avro_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn to_transform(transform: iceberg::spec::Transform) -> Result<Transform> {
    use iceberg::spec::Transform as T;
    Ok(match transform {
        T::Identity => Transform::Identity,
        T::Bucket(0) | T::Truncate(0) => {
            return Err(Error::invalid(
                format!("the partition transform {transform} is not valid"),
                "",
            ));
        }
        T::Bucket(buckets) => Transform::Bucket {
            buckets,
            hash: BucketHash::Iceberg,
        },
        T::Truncate(width) => Transform::Truncate(width),
        T::Year => Transform::Year,
        T::Month => Transform::Month,
        T::Day => Transform::Day,
        T::Hour => Transform::Hour,
        T::Void => Transform::Void,
        T::Unknown => {
            return Err(Error::unsupported(
                "the table is partitioned by a transform that is not known",
                "a newer release may be able to read it",
            ));
        }
    })
}

/// The types of a spec's partition values, with respect to `schema`. A column that is gone is looked up
/// in the table's older schemas.
///
/// # Errors
/// [`Error::Invalid`] when a field cannot be typed.
pub(super) fn partition_types(
    spec: &PartitionSpec,
    schema: &Schema,
    metadata: &TableMetadata,
) -> Result<Vec<PrimitiveType>> {
    spec.fields()
        .iter()
        .map(|field| {
            let source = schema.field_by_id(field.source_id).or_else(|| {
                let mut older: Vec<_> = metadata.schemas_iter().collect();
                older.sort_by_key(|schema| schema.schema_id());
                older
                    .into_iter()
                    .rev()
                    .find_map(|schema| schema.field_by_id(field.source_id))
            });
            let ty = source
                .and_then(|source| field.transform.result_type(&source.field_type).ok())
                .and_then(|ty| match ty {
                    Type::Primitive(ty) => Some(ty),
                    _ => None,
                });
            ty.ok_or_else(|| {
                Error::invalid(
                    format!(
                        "the partition field {} has no column of a fitting type",
                        field.name
                    ),
                    metadata.location(),
                )
            })
        })
        .collect()
}

fn capabilities(state: &State, properties: &BTreeMap<String, String>) -> Capabilities {
    let version = state.metadata.format_version();
    let copy_on_write = ["write.delete.mode", "write.update.mode", "write.merge.mode"]
        .iter()
        .any(|key| properties.get(*key).is_some_and(|mode| mode == "copy-on-write"));
    Capabilities {
        masks: version >= FormatVersion::V2 && !copy_on_write,
        refs: version >= FormatVersion::V2,
        partition_columns_in_files: true,
        append_over_schema_change: true,
        widening: true,
        data_prefix: "data/",
        change_files: None,
        writable: state.read_only.is_none(),
    }
}
