//! Columns added and widened (Iceberg spec, "Schema Evolution").
//!
//! A new field gets the next id after `last-column-id`, so that no file written before has a column of that
//! id: it reads as NULL there. A field that is there keeps its id, whatever its type becomes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema};
use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, SchemaRef, StructType,
    TableMetadata, Type,
};
use serde_json::{Value, json};

use super::mapping::mapped;
use super::types::{Ids, primitive_to_arrow, to_arrow};
use super::view::View;
use crate::error::{Error, Result};
use crate::model::Snapshot;

/// Property with the names of columns in files without field ids (spec, "Column Projection").
pub(super) const NAME_MAPPING: &str = "schema.name-mapping.default";

/// A version as if it had these columns.
///
/// # Errors
/// [`Error::Unsupported`] naming a column that Iceberg cannot store or whose type cannot become the new one;
/// [`Error::Invalid`] for a name that cannot be a column's.
pub(super) fn evolve(snapshot: &Snapshot, wanted: &ArrowSchema) -> Result<Arc<Snapshot>> {
    let view = View::of(snapshot)?;
    let schema = evolved(view.metadata(), &view.schema, wanted)?;
    // The builder has rules of its own, such as names that partition fields have taken.
    let built = view
        .metadata()
        .clone()
        .into_builder(None)
        .add_schema(schema.clone());
    built.map_err(|e| {
        Error::invalid(
            format!("columns cannot be added: {}", e.message()),
            "the table's schema",
        )
        .with_hint("rename the column in the input, or leave it out")
    })?;
    Ok(Arc::new(Snapshot {
        version: snapshot.version,
        state: snapshot.state,
        timestamp_ms: snapshot.timestamp_ms,
        schema: mapped(to_arrow(&schema)?, view.metadata()),
        specs: snapshot.specs.clone(),
        spec_id: snapshot.spec_id,
        properties: snapshot.properties.clone(),
        refs: snapshot.refs.clone(),
        capabilities: snapshot.capabilities,
        private: Arc::new(View {
            state: Arc::clone(&view.state),
            snapshot: view.snapshot.clone(),
            schema: Arc::new(schema),
        }),
    }))
}

/// The schema that a change carries, if it still is what the base's columns become: files were written with
/// these field ids.
///
/// # Errors
/// [`Error::Conflict`] when the base gives other ids or types.
pub(super) fn confirmed(view: &View, wanted: &ArrowSchema) -> Result<SchemaRef> {
    let metadata = view.metadata();
    let schema = evolved(metadata, metadata.current_schema(), wanted)?;
    if mapped(to_arrow(&schema)?, metadata).as_ref() != wanted {
        return Err(Error::Conflict {
            table: view.state.paths.location().to_owned(),
            detail: "R4: the new columns were planned on another schema".to_owned(),
        });
    }
    Ok(Arc::new(schema))
}

fn evolved(metadata: &TableMetadata, old: &Schema, wanted: &ArrowSchema) -> Result<Schema> {
    let mut walk = Walk(Ids {
        next: metadata.last_column_id() + 1,
        version: metadata.format_version(),
    });
    let fields = walk.fields(old.as_struct(), wanted.fields(), "")?;
    let id = metadata.schemas_iter().map(|schema| schema.schema_id()).max();
    Schema::builder()
        .with_schema_id(id.map_or(0, |id| id + 1))
        .with_fields(fields)
        .with_identifier_field_ids(old.identifier_field_ids())
        .build()
        .map_err(|e| Error::invalid(format!("these columns do not make a schema: {}", e.message()), ""))
}

/// Old fields beside wanted ones.
struct Walk(Ids);

impl Walk {
    fn fields(&mut self, old: &StructType, wanted: &[FieldRef], parent: &str) -> Result<Vec<NestedFieldRef>> {
        let path = |name: &str| match parent {
            "" => name.to_owned(),
            parent => format!("{parent}.{name}"),
        };
        let mut fields = Vec::with_capacity(wanted.len());
        for field in old.fields() {
            fields.push(match wanted.iter().find(|wanted| *wanted.name() == field.name) {
                Some(wanted) => self.field(field, wanted, &path(&field.name))?,
                None => Arc::clone(field),
            });
        }
        for field in wanted {
            if !old.fields().iter().any(|known| known.name == *field.name()) {
                fields.push(self.0.field(field, &path(field.name()))?);
            }
        }
        Ok(fields)
    }

    fn field(&mut self, old: &NestedFieldRef, wanted: &Field, path: &str) -> Result<NestedFieldRef> {
        let ty = self.ty(&old.field_type, wanted, path)?;
        if ty == *old.field_type {
            return Ok(Arc::clone(old));
        }
        Ok(Arc::new(NestedField {
            field_type: Box::new(ty),
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
                let path = format!("{path}.element");
                Type::List(ListType::new(self.field(&list.element_field, element, &path)?))
            }
            (Type::Map(map), D::Map(entries, _)) => {
                let D::Struct(pair) = entries.data_type() else {
                    return Ok(old.clone());
                };
                let [_, value] = pair.as_ref() else {
                    return Ok(old.clone());
                };
                let value = self.field(&map.value_field, value, &format!("{path}.value"))?;
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
                        "cast the input to the column's type",
                    ));
                }
                new
            }
        })
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

/// The table's name mapping with the fields that are new, as a property; nothing where the table has none, or one that
/// is not understood. An older field that it lacks stays so: in files without field ids there is no such column.
pub(super) fn name_mapping(metadata: &TableMetadata, schema: &Schema) -> Option<(String, String)> {
    let text = metadata.properties().get(NAME_MAPPING)?;
    let mut mapping: Value = serde_json::from_str(text).ok()?;
    let last = metadata.last_column_id();
    extend(mapping.as_array_mut()?, schema.as_struct().fields(), last);
    Some((NAME_MAPPING.to_owned(), mapping.to_string()))
}

/// The name mapping of a table's first columns, as the value of the property.
pub(super) fn new_name_mapping(schema: &Schema) -> String {
    let mut mapping = Vec::new();
    extend(&mut mapping, schema.as_struct().fields(), -1);
    Value::Array(mapping).to_string()
}

/// Adds fields whose ids come after `last`. A name that another field has in older files does not become the new one's.
fn extend(mapping: &mut Vec<Value>, fields: &[NestedFieldRef], last: i32) {
    for field in fields {
        let known = mapping.iter().position(|entry| entry["field-id"] == field.id);
        let at = match known {
            Some(at) => at,
            None if field.id <= last => continue,
            None => {
                let names = |entry: &Value| entry["names"].as_array().cloned().unwrap_or_default();
                let taken = mapping.iter().flat_map(names).any(|name| name == *field.name);
                let names = if taken { json!([]) } else { json!([field.name]) };
                mapping.push(json!({"field-id": field.id, "names": names}));
                mapping.len() - 1
            }
        };
        let nested: Vec<NestedFieldRef> = match field.field_type.as_ref() {
            Type::Primitive(_) => continue,
            Type::Struct(members) => members.fields().to_vec(),
            Type::List(list) => vec![Arc::clone(&list.element_field)],
            Type::Map(map) => vec![Arc::clone(&map.key_field), Arc::clone(&map.value_field)],
        };
        let Some(entry) = mapping[at].as_object_mut() else {
            continue;
        };
        if let Some(inner) = entry.entry("fields").or_insert_with(|| json!([])).as_array_mut() {
            extend(inner, &nested, last);
        }
    }
}
