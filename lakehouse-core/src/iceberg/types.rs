//! Columns: Arrow types to Iceberg types and back.
//!
//! Iceberg spec, "Schemas and Data Types". Types that Iceberg lacks are stored as the next wider one
//! it has; the writer checks each value.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use datafusion::scalar::ScalarValue;
use iceberg::spec::{
    FormatVersion, ListType, Literal, MapType, NestedField, NestedFieldRef, PrimitiveLiteral, PrimitiveType,
    Schema, StructType, Type,
};

use super::values::{to_literal, to_scalar};
use crate::error::{Error, Result};
use crate::model::schema::{COMMENT, FIELD_ID, INITIAL_DEFAULT, WRITE_DEFAULT, default_of};

const EXTENSION: &str = "ARROW:extension:name";
const UUID_EXTENSION: &str = "arrow.uuid";

/// The Iceberg schema of a new table, ids assigned in order.
///
/// # Errors
/// [`Error::Unsupported`] naming the column whose type Iceberg cannot store; [`Error::Invalid`] for
/// duplicate or empty names.
pub(super) fn to_iceberg(schema: &ArrowSchema, version: FormatVersion) -> Result<Schema> {
    if schema.fields().is_empty() {
        return Err(Error::invalid("a table needs at least one column", ""));
    }
    let mut ids = Ids { next: 1, version };
    let fields = schema
        .fields()
        .iter()
        .map(|field| ids.field(field, field.name()))
        .collect::<Result<Vec<_>>>()?;
    Schema::builder().with_fields(fields).build().map_err(|e| {
        Error::invalid(format!("these columns do not make a schema: {}", e.message()), "")
            .with_hint("give every column its own, non-empty name")
    })
}

/// Types as Iceberg has them, and the next field id to be given.
pub(super) struct Ids {
    pub(super) next: i32,
    pub(super) version: FormatVersion,
}

impl Ids {
    fn take(&mut self) -> i32 {
        let id = self.next;
        self.next += 1;
        id
    }

    pub(super) fn field(&mut self, field: &Field, column: &str) -> Result<NestedFieldRef> {
        if field.name().is_empty() {
            return Err(Error::invalid("a column has an empty name", column));
        }
        let id = self.take();
        let ty = self.ty(field.data_type(), field, column)?;
        let new = NestedField::new(id, field.name(), ty, !field.is_nullable());
        Ok(Arc::new(NestedField {
            initial_default: self.default(field, INITIAL_DEFAULT, &new.field_type)?,
            write_default: self.default(field, WRITE_DEFAULT, &new.field_type)?,
            doc: field.metadata().get(COMMENT).cloned(),
            ..new
        }))
    }

    /// A default of a column, which has this type in the table.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before version 3, and for types that have none.
    pub(super) fn default(&self, field: &Field, kind: &str, ty: &Type) -> Result<Option<Literal>> {
        if !field.metadata().contains_key(kind) {
            return Ok(None);
        }
        if self.version < FormatVersion::V3 {
            return Err(Error::unsupported(
                format!(
                    "column {} cannot have a default: the table is of version {}",
                    field.name(),
                    self.version
                ),
                "upgrade it in the same change: format version 3",
            ));
        }
        match ty {
            Type::Primitive(primitive) => {
                let value = default_of(field, kind)?;
                let finite = match &value {
                    ScalarValue::Float32(Some(v)) => v.is_finite(),
                    ScalarValue::Float64(Some(v)) => v.is_finite(),
                    _ => true,
                };
                if !finite {
                    return Err(Error::unsupported(
                        format!(
                            "column {} cannot have the default {value}: metadata have no such number",
                            field.name()
                        ),
                        "choose a number, or leave the default out",
                    ));
                }
                to_literal(&value, primitive)
            }
            other => Err(Error::unsupported(
                format!(
                    "column {} cannot have a default: its type is {other}",
                    field.name()
                ),
                "leave the default out",
            )),
        }
    }

    pub(super) fn ty(&mut self, ty: &DataType, field: &Field, column: &str) -> Result<Type> {
        use DataType as D;
        use PrimitiveType as P;
        let nanos = if self.version >= FormatVersion::V3 {
            (P::TimestampNs, P::TimestamptzNs)
        } else {
            (P::Timestamp, P::Timestamptz)
        };
        Ok(Type::Primitive(match ty {
            D::Boolean => P::Boolean,
            D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 => P::Int,
            D::Int64 | D::UInt32 | D::UInt64 => P::Long,
            D::Float16 | D::Float32 => P::Float,
            D::Float64 => P::Double,
            D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) | D::Decimal256(p, s)
                if *p <= 38 && *s >= 0 =>
            {
                P::Decimal {
                    precision: u32::from(*p),
                    scale: s.unsigned_abs().into(),
                }
            }
            D::Date32 | D::Date64 => P::Date,
            D::Time32(_) | D::Time64(TimeUnit::Microsecond) => P::Time,
            D::Timestamp(TimeUnit::Nanosecond, None) => nanos.0,
            D::Timestamp(TimeUnit::Nanosecond, Some(_)) => nanos.1,
            D::Timestamp(_, None) => P::Timestamp,
            D::Timestamp(_, Some(_)) => P::Timestamptz,
            D::Utf8 | D::LargeUtf8 | D::Utf8View => P::String,
            D::Binary | D::LargeBinary | D::BinaryView => P::Binary,
            D::FixedSizeBinary(16)
                if field.metadata().get(EXTENSION).map(String::as_str) == Some(UUID_EXTENSION) =>
            {
                P::Uuid
            }
            D::FixedSizeBinary(length) if *length > 0 => P::Fixed(length.unsigned_abs().into()),
            D::Dictionary(_, values) => return self.ty(values, field, column),
            D::RunEndEncoded(_, values) => return self.ty(values.data_type(), field, column),
            D::Struct(fields) if !fields.is_empty() => {
                let fields = fields
                    .iter()
                    .map(|field| self.field(field, &format!("{column}.{}", field.name())))
                    .collect::<Result<Vec<_>>>()?;
                return Ok(Type::Struct(StructType::new(fields)));
            }
            D::List(element)
            | D::LargeList(element)
            | D::FixedSizeList(element, _)
            | D::ListView(element)
            | D::LargeListView(element) => {
                let id = self.take();
                let ty = self.ty(element.data_type(), element, &format!("{column}.element"))?;
                let element = NestedField::list_element(id, ty, !element.is_nullable());
                return Ok(Type::List(ListType::new(Arc::new(element))));
            }
            D::Map(entries, _) => return self.map(entries, column),
            other => return Err(refused(other, column)),
        }))
    }

    fn map(&mut self, entries: &Field, column: &str) -> Result<Type> {
        let DataType::Struct(parts) = entries.data_type() else {
            return Err(refused(entries.data_type(), column));
        };
        let [key, value] = parts.as_ref() else {
            return Err(refused(entries.data_type(), column));
        };
        let (key_id, value_id) = (self.take(), self.take());
        let key_type = self.ty(key.data_type(), key, &format!("{column}.key"))?;
        let value_type = self.ty(value.data_type(), value, &format!("{column}.value"))?;
        Ok(Type::Map(MapType::new(
            Arc::new(NestedField::map_key_element(key_id, key_type)),
            Arc::new(NestedField::map_value_element(
                value_id,
                value_type,
                !value.is_nullable(),
            )),
        )))
    }
}

fn refused(ty: &DataType, column: &str) -> Error {
    let hint = match ty {
        DataType::Time64(TimeUnit::Nanosecond) => "cast it to a time in microseconds",
        DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::Decimal32(..)
        | DataType::Decimal64(..) => "Iceberg decimals have at most 38 digits and a scale of 0 or more",
        DataType::Null => "give the column a type, for example string",
        DataType::Duration(_) | DataType::Interval(_) => "store it as a number of microseconds (bigint)",
        DataType::Struct(_) => "a struct needs at least one field",
        _ => "cast the column to a type that Iceberg has, or leave it out",
    };
    Error::unsupported(
        format!("column {column} has type {ty}, which Iceberg cannot store"),
        hint,
    )
}

/// The columns as Arrow fields that carry their ids, nested ones too.
///
/// # Errors
/// [`Error::Unsupported`] for columns with a default that is none of a primitive type.
pub(super) fn to_arrow(schema: &Schema) -> Result<SchemaRef> {
    let fields = schema
        .as_struct()
        .fields()
        .iter()
        .map(arrow_field)
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ArrowSchema::new(fields)))
}

pub(super) fn arrow_field(field: &NestedFieldRef) -> Result<Field> {
    named_field(field, &field.name)
}

fn named_field(field: &NestedField, name: &str) -> Result<Field> {
    let mut metadata = HashMap::from([(FIELD_ID.to_owned(), field.id.to_string())]);
    if *field.field_type == Type::Primitive(PrimitiveType::Uuid) {
        metadata.insert(EXTENSION.to_owned(), UUID_EXTENSION.to_owned());
    }
    if let Some(comment) = &field.doc {
        metadata.insert(COMMENT.to_owned(), comment.clone());
    }
    let ty = arrow_type(&field.field_type)?;
    for (default, key) in [
        (&field.initial_default, INITIAL_DEFAULT),
        (&field.write_default, WRITE_DEFAULT),
    ] {
        if let Some(value) = default {
            metadata.insert(key.to_owned(), default_text(field, value, &ty)?);
        }
    }
    Ok(Field::new(name, ty, !field.required).with_metadata(metadata))
}

/// A column of which the crate would not write the default that was read: its arithmetic on times before 1970
/// overflows.
pub(super) fn unspellable_default(schema: &Schema) -> Option<&str> {
    first_unspellable(schema.as_struct())
}

fn first_unspellable(fields: &StructType) -> Option<&str> {
    fn inside(ty: &Type) -> Option<&str> {
        match ty {
            Type::Primitive(_) => None,
            Type::Struct(members) => first_unspellable(members),
            Type::List(list) => inside(&list.element_field.field_type),
            Type::Map(map) => inside(&map.value_field.field_type),
        }
    }
    let is_early = |default: &Literal| matches!(default.as_primitive_literal(), Some(PrimitiveLiteral::Long(time)) if time < 0);
    let is_time = |field: &NestedField| {
        use PrimitiveType as P;
        matches!(
            field.field_type.as_ref(),
            Type::Primitive(P::Timestamp | P::Timestamptz | P::TimestampNs | P::TimestamptzNs)
        )
    };
    let mut fields = fields.fields().iter();
    fields.find_map(|field| {
        let defaults = [&field.initial_default, &field.write_default];
        match is_time(field) && defaults.into_iter().flatten().any(is_early) {
            true => Some(field.name.as_str()),
            false => inside(&field.field_type),
        }
    })
}

/// A default as text that [`crate::model::schema::default_of`] reads.
///
/// # Errors
/// [`Error::Unsupported`] naming a column that is of no primitive type.
fn default_text(field: &NestedField, value: &Literal, ty: &DataType) -> Result<String> {
    let refused = || {
        Error::unsupported(
            format!(
                "column {} has a default value of the type {}, which is not read",
                field.name, field.field_type
            ),
            "rewrite the table with the engine that added the column, so that every file has it",
        )
    };
    let (Type::Primitive(primitive), Some(literal)) =
        (field.field_type.as_ref(), value.as_primitive_literal())
    else {
        return Err(refused());
    };
    match to_scalar(&literal, primitive, ty).ok_or_else(refused)? {
        ScalarValue::Binary(Some(bytes)) | ScalarValue::FixedSizeBinary(_, Some(bytes)) => {
            Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        scalar => match scalar.cast_to(&DataType::Utf8).map_err(|_| refused())? {
            ScalarValue::Utf8(Some(text)) => Ok(text),
            _ => Err(refused()),
        },
    }
}

/// The elements of a list, the keys and values of a map: there is no file in which they could be missing.
fn item_field(field: &NestedField, name: &str) -> Result<Field> {
    if field.initial_default.is_some() || field.write_default.is_some() {
        return Err(Error::unsupported(
            format!(
                "{} of a list or map has a default value, which has no meaning",
                field.name
            ),
            "let the engine that defined the table take it away",
        ));
    }
    named_field(field, name)
}

fn arrow_type(ty: &Type) -> Result<DataType> {
    Ok(match ty {
        Type::Primitive(ty) => primitive_to_arrow(ty)?,
        Type::Struct(fields) => DataType::Struct(
            fields
                .fields()
                .iter()
                .map(arrow_field)
                .collect::<Result<Vec<_>>>()?
                .into(),
        ),
        Type::List(list) => DataType::List(Arc::new(item_field(&list.element_field, "element")?)),
        Type::Map(map) => {
            let entries = vec![
                item_field(&map.key_field, "key")?,
                item_field(&map.value_field, "value")?,
            ];
            let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
            DataType::Map(Arc::new(entries), false)
        }
    })
}

/// The Arrow type of a primitive column.
pub(super) fn primitive_to_arrow(ty: &PrimitiveType) -> Result<DataType> {
    use PrimitiveType as P;
    let zone = || Some(Arc::from("UTC"));
    let too_large = || Error::invalid(format!("the type {ty} is out of range"), "the table's schema");
    Ok(match ty {
        P::Boolean => DataType::Boolean,
        P::Int => DataType::Int32,
        P::Long => DataType::Int64,
        P::Float => DataType::Float32,
        P::Double => DataType::Float64,
        P::Decimal { precision, scale } => DataType::Decimal128(
            u8::try_from(*precision)
                .ok()
                .filter(|p| (1..=38).contains(p))
                .ok_or_else(too_large)?,
            i8::try_from(*scale)
                .ok()
                .filter(|s| *s <= 38)
                .ok_or_else(too_large)?,
        ),
        P::Date => DataType::Date32,
        P::Time => DataType::Time64(TimeUnit::Microsecond),
        P::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        P::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, zone()),
        P::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
        P::TimestamptzNs => DataType::Timestamp(TimeUnit::Nanosecond, zone()),
        P::String => DataType::Utf8,
        P::Uuid => DataType::FixedSizeBinary(16),
        P::Fixed(length) => DataType::FixedSizeBinary(i32::try_from(*length).map_err(|_| too_large())?),
        P::Binary => DataType::Binary,
    })
}

/// A column that statistics are kept for: its dotted name and types.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) name: String,
    pub(super) primitive: PrimitiveType,
    pub(super) arrow: DataType,
}

/// The primitive columns by field id, inside structs too, but not inside lists and maps.
pub(super) fn leaves(schema: &Schema) -> Result<BTreeMap<i32, Leaf>> {
    fn collect(fields: &StructType, prefix: &str, leaves: &mut BTreeMap<i32, Leaf>) -> Result<()> {
        for field in fields.fields() {
            let name = format!("{prefix}{}", field.name);
            match field.field_type.as_ref() {
                Type::Primitive(ty) => {
                    let arrow = primitive_to_arrow(ty)?;
                    let leaf = Leaf {
                        name,
                        primitive: ty.clone(),
                        arrow,
                    };
                    leaves.insert(field.id, leaf);
                }
                Type::Struct(inner) => collect(inner, &format!("{name}."), leaves)?,
                Type::List(_) | Type::Map(_) => {}
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    collect(schema.as_struct(), "", &mut found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ty: DataType, version: FormatVersion) -> DataType {
        let schema = ArrowSchema::new(vec![Field::new("c", ty, true)]);
        let iceberg = to_iceberg(&schema, version).unwrap();
        to_arrow(&iceberg).unwrap().field(0).data_type().clone()
    }

    #[test]
    fn types_that_iceberg_has_come_back_and_others_are_widened() {
        use DataType as D;
        use TimeUnit::{Microsecond as Us, Nanosecond as Ns, Second as S};
        let utc = || Some(Arc::from("UTC"));
        for (from, to) in [
            (D::Boolean, D::Boolean),
            (D::Int16, D::Int32),
            (D::UInt64, D::Int64),
            (D::Float16, D::Float32),
            (D::Decimal128(12, 3), D::Decimal128(12, 3)),
            (D::Decimal256(30, 0), D::Decimal128(30, 0)),
            (D::Date64, D::Date32),
            (D::Time32(S), D::Time64(Us)),
            (D::Timestamp(Ns, None), D::Timestamp(Us, None)),
            (
                D::Timestamp(S, Some("Europe/Paris".into())),
                D::Timestamp(Us, utc()),
            ),
            (D::LargeUtf8, D::Utf8),
            (D::Utf8View, D::Utf8),
            (D::BinaryView, D::Binary),
            (D::FixedSizeBinary(7), D::FixedSizeBinary(7)),
            (D::Dictionary(Box::new(D::Int8), Box::new(D::Utf8)), D::Utf8),
        ] {
            assert_eq!(round(from.clone(), FormatVersion::V2), to, "{from}");
        }
        let nanos = D::Timestamp(Ns, utc());
        assert_eq!(round(nanos.clone(), FormatVersion::V3), nanos);
    }

    #[test]
    fn every_nested_field_has_its_own_id() {
        let inner = Field::new("x", DataType::Int32, false);
        let list = Field::new("item", DataType::Struct(vec![inner].into()), true);
        let entries = DataType::Struct(
            vec![
                Field::new("k", DataType::Utf8, false),
                Field::new("v", DataType::Int64, true),
            ]
            .into(),
        );
        let schema = ArrowSchema::new(vec![
            Field::new("l", DataType::LargeList(Arc::new(list)), false),
            Field::new(
                "m",
                DataType::Map(Arc::new(Field::new("e", entries, false)), false),
                true,
            ),
        ]);
        let arrow = to_arrow(&to_iceberg(&schema, FormatVersion::V2).unwrap()).unwrap();
        fn ids(field: &Field, found: &mut Vec<i32>) {
            found.extend(crate::model::schema::field_id(field));
            match field.data_type() {
                DataType::Struct(fields) => fields.iter().for_each(|f| ids(f, found)),
                DataType::List(f) | DataType::Map(f, _) => ids(f, found),
                _ => {}
            }
        }
        let mut found = Vec::new();
        arrow.fields().iter().for_each(|field| ids(field, &mut found));
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4, 5, 6]);
        assert!(!arrow.field(0).is_nullable());
    }

    #[test]
    fn a_type_that_iceberg_lacks_names_the_column() {
        let inner = Field::new("wait", DataType::Duration(TimeUnit::Second), true);
        let schema = ArrowSchema::new(vec![Field::new(
            "trip",
            DataType::Struct(vec![inner].into()),
            true,
        )]);
        let error = to_iceberg(&schema, FormatVersion::V2).unwrap_err();
        assert!(error.to_string().contains("trip.wait"), "{error}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn uuids_are_told_from_other_sixteen_bytes() {
        let plain = Field::new("f", DataType::FixedSizeBinary(16), true);
        let uuid = Field::new("u", DataType::FixedSizeBinary(16), true)
            .with_metadata(HashMap::from([(EXTENSION.to_owned(), UUID_EXTENSION.to_owned())]));
        let schema = to_iceberg(&ArrowSchema::new(vec![plain, uuid]), FormatVersion::V2).unwrap();
        let fields = schema.as_struct().fields();
        assert_eq!(*fields[0].field_type, Type::Primitive(PrimitiveType::Fixed(16)));
        assert_eq!(*fields[1].field_type, Type::Primitive(PrimitiveType::Uuid));
        let arrow = to_arrow(&schema).unwrap();
        assert_eq!(arrow.field(1).metadata().get(EXTENSION).unwrap(), UUID_EXTENSION);
    }
}
