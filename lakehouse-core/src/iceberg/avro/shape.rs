//! The writer's schema, reduced to what it takes to read values.

use std::collections::HashMap;

use serde_json::Value;

use super::{MAX_DEPTH, Walked};

const UNKNOWN: &str = "its schema is none of Avro";
/// Bytes of a name or namespace: each use of a name spells it out for a moment.
const NAME_BYTES: usize = 1024;

/// The types that a schema defines or names.
#[derive(Debug, Default)]
pub(in super::super) struct Definitions {
    /// `None` where one is named that is not defined.
    shapes: Vec<Option<Shape>>,
    /// Where the type of a full name is: the last one of this name.
    places: HashMap<String, usize>,
}

impl Definitions {
    /// The type at a place, if it is defined.
    pub(super) fn get(&self, place: usize) -> Option<&Shape> {
        self.shapes.get(place)?.as_ref()
    }

    /// Where a type is that is named here.
    fn place(&mut self, name: String) -> usize {
        let new = self.shapes.len();
        let place = *self.places.entry(name).or_insert(new);
        if place == new {
            self.shapes.push(None);
        }
        place
    }

    /// Where a type will be that is defined here.
    fn begin(&mut self, name: String) -> usize {
        if self
            .places
            .get(&name)
            .is_some_and(|place| self.shapes[*place].is_some())
        {
            self.places.remove(&name);
        }
        self.place(name)
    }
}

/// A schema. Logical types are for whoever takes the values.
#[derive(Debug, Clone)]
pub(in super::super) enum Shape {
    Nothing,
    Boolean,
    /// An int, a long, or the number of an enum's symbol.
    Number,
    Float,
    Double,
    Fixed(u64),
    Bytes,
    Text,
    Array(Box<Shape>),
    Map(Box<Shape>),
    Union(Vec<Shape>),
    Record(Vec<Field>),
    /// The type that is defined at this place.
    Named(usize),
}

/// A field of a record.
#[derive(Debug, Clone)]
pub(in super::super) struct Field {
    pub(in super::super) name: String,
    /// Iceberg's number for it, where the writer noted one.
    pub(super) id: Option<i32>,
    pub(in super::super) shape: Shape,
}

/// Reads a schema; `space` is the namespace around it.
pub(super) fn shape(schema: &Value, space: &str, defined: &mut Definitions, depth: usize) -> Walked<Shape> {
    if depth > MAX_DEPTH {
        return Err("its schema is nested too deeply");
    }
    let fields = match schema {
        Value::String(name) => return primitive(name, space, defined),
        Value::Array(variants) => {
            let variants = variants.iter().map(|v| shape(v, space, defined, depth + 1));
            return Ok(Shape::Union(variants.collect::<Walked<_>>()?));
        }
        Value::Object(fields) => fields,
        _ => return Err(UNKNOWN),
    };
    let inner =
        |key: &str, defined: &mut _| shape(fields.get(key).ok_or(UNKNOWN)?, space, defined, depth + 1);
    match fields.get("type").ok_or(UNKNOWN)? {
        Value::String(kind) => match kind.as_str() {
            "array" => Ok(Shape::Array(Box::new(inner("items", defined)?))),
            "map" => Ok(Shape::Map(Box::new(inner("values", defined)?))),
            "record" | "error" | "enum" | "fixed" => {
                let (name, space) = full_name(fields, space)?;
                let place = defined.begin(name);
                let found = match kind.as_str() {
                    "enum" => Shape::Number,
                    "fixed" => Shape::Fixed(fields.get("size").and_then(Value::as_u64).ok_or(UNKNOWN)?),
                    _ => {
                        let members = fields.get("fields").and_then(Value::as_array).ok_or(UNKNOWN)?;
                        let members = members
                            .iter()
                            .map(|member| field(member, &space, defined, depth + 1));
                        Shape::Record(members.collect::<Walked<_>>()?)
                    }
                };
                defined.shapes[place] = Some(found);
                Ok(Shape::Named(place))
            }
            name => primitive(name, space, defined),
        },
        nested => shape(nested, space, defined, depth + 1),
    }
}

fn field(member: &Value, space: &str, defined: &mut Definitions, depth: usize) -> Walked<Field> {
    let name = member.get("name").and_then(Value::as_str).ok_or(UNKNOWN)?;
    let id = member.get("field-id").and_then(Value::as_i64);
    Ok(Field {
        name: name.to_owned(),
        id: id.and_then(|id| i32::try_from(id).ok()),
        shape: shape(member.get("type").ok_or(UNKNOWN)?, space, defined, depth)?,
    })
}

fn primitive(name: &str, space: &str, defined: &mut Definitions) -> Walked<Shape> {
    Ok(match name {
        "null" => Shape::Nothing,
        "boolean" => Shape::Boolean,
        "int" | "long" => Shape::Number,
        "float" => Shape::Float,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "string" => Shape::Text,
        name if !is_name(name) => return Err(UNKNOWN),
        name => Shape::Named(defined.place(qualified(name, space))),
    })
}

fn qualified(name: &str, space: &str) -> String {
    match name.contains('.') || space.is_empty() {
        true => name.to_owned(),
        false => format!("{space}.{name}"),
    }
}

/// Whether this can be a name (Avro specification, "Names").
fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let sound =
        |part: &str| part.starts_with(letter) && part.chars().all(|c| letter(c) || c.is_ascii_digit());
    name.len() <= NAME_BYTES && name.split('.').all(sound)
}

/// The full name of a type that is defined here, and the namespace inside of it.
fn full_name(fields: &serde_json::Map<String, Value>, space: &str) -> Walked<(String, String)> {
    let name = fields.get("name").and_then(Value::as_str).ok_or(UNKNOWN)?;
    let space = match name.rsplit_once('.') {
        Some((space, _)) => space,
        None => fields.get("namespace").and_then(Value::as_str).unwrap_or(space),
    };
    match is_name(name) && space.len() <= NAME_BYTES {
        true => Ok((qualified(name, space), space.to_owned())),
        false => Err(UNKNOWN),
    }
}
