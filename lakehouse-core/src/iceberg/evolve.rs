//! A table redefined (Iceberg spec, "Schema Evolution", "Partition Evolution"): columns, partition spec, sort order,
//! properties, format version.
//!
//! A new field gets the next id after `last-column-id`, so that no file written before has a column of that
//! id: it reads as NULL there. A field that is there keeps its id, whatever its name, place and type become.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema};
use iceberg::spec::{
    FormatVersion, ListType, MapType, NestedField, NestedFieldRef, NullOrder, PrimitiveType, Schema,
    SchemaRef, SortDirection, SortField, SortOrder, StructType, TableMetadata, TableMetadataBuilder,
    Transform, Type,
};

use super::create::{default_name, partition_spec, to_iceberg_transform};
use super::metadata::{State, version_number};
use super::names;
use super::properties;
use super::types::{Ids, arrow_field, primitive_to_arrow, to_arrow};
use super::view::{View, open_snapshot};
use crate::error::{Error, Result};
use crate::model::schema::{COMMENT, INITIAL_DEFAULT, ORIGIN, WRITE_DEFAULT, field_id, keeps_columns};
use crate::model::{PartitionField, Redefinition, Snapshot, SortColumn, Transform as Partitioned};

/// A version as if it had these columns and were defined so.
///
/// # Errors
/// [`Error::Unsupported`] naming a column that Iceberg cannot store or whose type cannot become the new one;
/// [`Error::Invalid`] for a name that cannot be a column's.
pub(super) fn evolve(
    snapshot: &Snapshot,
    wanted: &ArrowSchema,
    redefinition: &Redefinition,
) -> Result<Arc<Snapshot>> {
    let view = View::of(snapshot)?;
    let metadata = view.metadata();
    let schema = evolved(metadata, &view.schema, wanted, redefinition)?;
    let builder = metadata.clone().into_builder(None);
    let built = apply(builder, metadata, &schema, redefinition)?
        .build()
        .map_err(refused)?;
    let state = State {
        metadata: Arc::new(built.metadata),
        refs: view.state.refs.clone(),
        number: view.state.number,
        file: view.state.file.clone(),
        named: view.state.named.clone(),
        paths: view.state.paths.clone(),
        read_only: view.state.read_only.clone(),
    };
    open_snapshot(&Arc::new(state), view.snapshot.clone(), view.branch.as_deref())
}

/// The schema that a change carries, on the columns of the newest version. With files, it must still be what those
/// columns become: they were written with these field ids.
///
/// # Errors
/// [`Error::Conflict`] when the base gives other ids or types.
pub(super) fn confirmed(
    view: &View,
    wanted: &ArrowSchema,
    redefinition: &Redefinition,
    with_files: bool,
) -> Result<SchemaRef> {
    let metadata = view.metadata();
    let planned_elsewhere = || Error::Conflict {
        table: view.state.paths.location().to_owned(),
        detail: "R4: the new columns were planned on another schema".to_owned(),
    };
    // Rows bring columns along, and take none away.
    if with_files && !keeps_columns(to_arrow(metadata.current_schema())?.fields(), wanted.fields()) {
        return Err(planned_elsewhere());
    }
    let schema = evolved(metadata, metadata.current_schema(), wanted, redefinition)?;
    if with_files && to_arrow(&schema)?.fields() != &names::forgotten(wanted.fields()) {
        return Err(planned_elsewhere());
    }
    Ok(Arc::new(schema))
}

/// Makes the columns and the definition those of the metadata.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::Unsupported`] for what the specification does not allow.
pub(super) fn apply(
    mut builder: TableMetadataBuilder,
    metadata: &TableMetadata,
    schema: &Schema,
    redefinition: &Redefinition,
) -> Result<TableMetadataBuilder> {
    if let Some(version) = version(metadata, redefinition)? {
        builder = builder.upgrade_format_version(version).map_err(refused)?;
    }
    if schema != metadata.current_schema().as_ref() {
        builder = builder.add_current_schema(schema.clone()).map_err(refused)?;
        let mapping = names::extended(metadata, schema);
        builder = builder
            .set_properties(mapping.into_iter().collect())
            .map_err(refused)?;
    }
    if let Some(fields) = &redefinition.partitioning {
        let name = |field: &PartitionField, source| partition_name(metadata, field, source);
        let spec = partition_spec(fields, schema, &name)?;
        builder = builder.add_default_partition_spec(spec).map_err(|e| {
            let refused = refused(e);
            match metadata.format_version() {
                FormatVersion::V1 => refused.with_hint("upgrade the table first: format version 2"),
                _ => refused,
            }
        })?;
    }
    if let Some(columns) = &redefinition.sort_order {
        let order = sort_order(columns, schema)?;
        builder = builder
            .add_sort_order(order)
            .and_then(|builder| builder.set_default_sort_order(-1))
            .map_err(refused)?;
    }
    let set = redefinition.properties.iter();
    let set: HashMap<String, String> = set
        .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
        .collect();
    set.iter()
        .try_for_each(|(key, value)| properties::check(key, value))?;
    let gone: Vec<String> = redefinition
        .properties
        .iter()
        .filter(|(_, value)| value.is_none())
        .map(|(key, _)| key.clone())
        .collect();
    builder
        .set_properties(set)
        .and_then(|builder| builder.remove_properties(&gone))
        .map_err(refused)
}

/// What the metadata's builder does not allow, such as names that partition fields have taken.
fn refused(error: iceberg::Error) -> Error {
    Error::invalid(
        format!("the table cannot be changed so: {}", error.message()),
        "the table's metadata",
    )
}

/// The format version that the table is to get, if that is another one.
fn version(metadata: &TableMetadata, redefinition: &Redefinition) -> Result<Option<FormatVersion>> {
    let old = metadata.format_version();
    let wanted = match redefinition.format_version {
        None => return Ok(None),
        Some(2) => FormatVersion::V2,
        Some(3) => FormatVersion::V3,
        Some(other) => {
            return Err(Error::unsupported(
                format!("there is no Iceberg format version {other} to upgrade to"),
                "choose 2 or 3",
            ));
        }
    };
    if wanted < old {
        return Err(Error::unsupported(
            format!(
                "the table has Iceberg format version {} and cannot go back to {}",
                version_number(old),
                version_number(wanted)
            ),
            "versions only go up; make a new table of the older version and copy the rows",
        ));
    }
    Ok((wanted != old).then_some(wanted))
}

/// The name of a partition field: the one that the same field has in an older spec, else the usual one, unless
/// another field has it. Names are compared over all specs: readers join the partition values of all of them.
fn partition_name(metadata: &TableMetadata, field: &PartitionField, source: i32) -> String {
    let older = || metadata.partition_specs_iter().flat_map(|spec| spec.fields());
    let transform = to_iceberg_transform(field.transform).unwrap_or(Transform::Void);
    if let Some(same) = older().find(|old| old.source_id == source && old.transform == transform) {
        return same.name.clone();
    }
    let taken: HashSet<&str> = older().map(|old| old.name.as_str()).collect();
    let usual = default_name(field);
    if !taken.contains(usual.as_str()) {
        return usual;
    }
    let sized = match field.transform {
        Partitioned::Bucket { buckets, .. } => format!("{usual}_{buckets}"),
        Partitioned::Truncate(width) => format!("{usual}_{width}"),
        _ => usual.clone(),
    };
    let numbered = (2..).map(|n| format!("{usual}_{n}"));
    let free = [sized]
        .into_iter()
        .chain(numbered)
        .find(|name| !taken.contains(name.as_str()));
    free.unwrap_or(usual)
}

fn sort_order(columns: &[SortColumn], schema: &Schema) -> Result<SortOrder> {
    let fields = columns.iter().map(|column| {
        let source = schema.field_by_name(&column.column).ok_or_else(|| {
            Error::not_found(
                format!("column {} of the sort order", column.column),
                "the table's columns",
            )
        })?;
        Ok(SortField {
            source_id: source.id,
            transform: Transform::Identity,
            direction: match column.descending {
                true => SortDirection::Descending,
                false => SortDirection::Ascending,
            },
            null_order: match column.nulls_first {
                true => NullOrder::First,
                false => NullOrder::Last,
            },
        })
    });
    let fields = fields.collect::<Result<Vec<_>>>()?;
    if fields.is_empty() {
        return Ok(SortOrder::unsorted_order());
    }
    Ok(SortOrder { order_id: 1, fields })
}

fn evolved(
    metadata: &TableMetadata,
    old: &Schema,
    wanted: &ArrowSchema,
    redefinition: &Redefinition,
) -> Result<Schema> {
    let mut walk = Walk(Ids {
        next: metadata.last_column_id() + 1,
        version: version(metadata, redefinition)?.unwrap_or_else(|| metadata.format_version()),
    });
    let fields = walk.fields(old.as_struct(), wanted.fields(), "")?;
    let broken = |e: iceberg::Error| {
        Error::invalid(format!("these columns do not make a schema: {}", e.message()), "")
    };
    let schema = |identifier: Vec<i32>| {
        let id = metadata.schemas_iter().map(|schema| schema.schema_id()).max();
        Schema::builder()
            .with_schema_id(id.map_or(0, |id| id + 1))
            .with_fields(fields.clone())
            .with_identifier_field_ids(identifier)
            .build()
            .map_err(broken)
    };
    let made = match &redefinition.identifier {
        None => schema(old.identifier_field_ids().collect())?,
        Some(names) => {
            let plain = schema(Vec::new())?;
            let id = |name: &String| {
                plain.field_id_by_name(name).ok_or_else(|| {
                    Error::not_found(format!("column {name} of the identifier"), "the table's columns")
                })
            };
            schema(names.iter().map(id).collect::<Result<_>>()?)?
        }
    };
    // The same columns keep the id of their schema.
    let unchanged = made.as_struct() == old.as_struct()
        && made.identifier_field_ids().collect::<HashSet<_>>() == old.identifier_field_ids().collect();
    Ok(if unchanged { old.clone() } else { made })
}

/// Old fields beside wanted ones.
struct Walk(Ids);

impl Walk {
    fn fields(&mut self, old: &StructType, wanted: &[FieldRef], parent: &str) -> Result<Vec<NestedFieldRef>> {
        let mut fields = Vec::with_capacity(wanted.len());
        for field in wanted {
            let path = match parent {
                "" => field.name().clone(),
                parent => format!("{parent}.{}", field.name()),
            };
            fields.push(match identity(field, old) {
                Some(old) => self.field(old, field, field.name(), &path)?,
                None => self.0.field(field, &path)?,
            });
        }
        Ok(fields)
    }

    fn field(
        &mut self,
        old: &NestedFieldRef,
        wanted: &Field,
        name: &str,
        path: &str,
    ) -> Result<NestedFieldRef> {
        let ty = self.ty(&old.field_type, wanted, path)?;
        let same = default_of_field(old) == wanted.metadata().get(WRITE_DEFAULT).cloned();
        let widened = *old.field_type != ty;
        let write_default = match same && !widened {
            true => old.write_default.clone(),
            false => self.0.default(wanted, WRITE_DEFAULT, &ty)?,
        };
        let initial_default = match (&old.initial_default, widened) {
            (Some(_), true) => self.0.default(wanted, INITIAL_DEFAULT, &ty)?,
            (kept, _) => kept.clone(),
        };
        Ok(Arc::new(NestedField {
            initial_default,
            write_default,
            name: name.to_owned(),
            required: !wanted.is_nullable(),
            field_type: Box::new(ty),
            doc: wanted.metadata().get(COMMENT).cloned(),
            ..old.as_ref().clone()
        }))
    }

    fn ty(&mut self, old: &Type, wanted: &Field, path: &str) -> Result<Type> {
        use DataType as D;
        Ok(match (old, wanted.data_type()) {
            (Type::Struct(members), D::Struct(wanted)) => {
                Type::Struct(StructType::new(self.fields(members, wanted, path)?))
            }
            (Type::List(list), D::List(element)) => {
                let (path, old) = (format!("{path}.element"), &list.element_field);
                Type::List(ListType::new(self.field(old, element, &old.name, &path)?))
            }
            (Type::Map(map), D::Map(entries, _)) => {
                let D::Struct(pair) = entries.data_type() else {
                    return Ok(old.clone());
                };
                let [_, value] = pair.as_ref() else {
                    return Ok(old.clone());
                };
                let old = &map.value_field;
                let value = self.field(old, value, &old.name, &format!("{path}.value"))?;
                Type::Map(MapType::new(Arc::clone(&map.key_field), value))
            }
            (Type::Primitive(primitive), data_type) if primitive_to_arrow(primitive)? == *data_type => {
                old.clone()
            }
            (old, data_type) => {
                let new = self.0.ty(data_type, wanted, path)?;
                if !promotes(old, &new) {
                    return Err(Error::unsupported(
                        format!("column {path} is {old} and cannot become {new}"),
                        "int may become bigint, float double, and decimals get more digits; for anything else add a \
                         column, or cast the input to the column's type",
                    ));
                }
                new
            }
        })
    }
}

/// The write default that users see.
fn default_of_field(field: &NestedFieldRef) -> Option<String> {
    let shown = arrow_field(field).ok()?;
    shown.metadata().get(WRITE_DEFAULT).cloned()
}

/// The field of the table that a wanted one is: by what it says of its origin, by its id, by its name.
fn identity<'a>(wanted: &Field, old: &'a StructType) -> Option<&'a NestedFieldRef> {
    let named = |name: &str| old.fields().iter().find(|field| field.name == name);
    match (wanted.metadata().get(ORIGIN), field_id(wanted)) {
        (Some(origin), _) => named(origin),
        (None, Some(id)) => old.fields().iter().find(|field| field.id == id),
        (None, None) => named(wanted.name()),
    }
}

/// Whether readers see values of the old type as ones of the new (spec, "Schema Evolution", valid type
/// promotions; those that need version 3 are left out).
fn promotes(old: &Type, new: &Type) -> bool {
    use PrimitiveType as P;
    let (Type::Primitive(old), Type::Primitive(new)) = (old, new) else {
        return false;
    };
    match (old, new) {
        (P::Int, P::Long) | (P::Float, P::Double) => true,
        (
            P::Decimal { precision, scale },
            P::Decimal {
                precision: more,
                scale: same,
            },
        ) => more > precision && same == scale,
        _ => false,
    }
}
