//! The writer's schema, reduced to what it takes to read values.

use std::collections::HashMap;

use serde_json::Value;

use super::{MAX_DEPTH, Walked};

/// The types that a schema defines, by full name.
pub(super) type Names = HashMap<String, Shape>;

/// A schema. Logical types are for whoever takes the values.
#[derive(Debug, Clone)]
pub(super) enum Shape {
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
    /// Its fields, with their names.
    Record(Vec<(String, Shape)>),
    /// A type that was defined before.
    Named(String),
}

/// Reads a schema; `space` is the namespace around it.
pub(super) fn shape(schema: &Value, space: &str, names: &mut Names, depth: usize) -> Walked<Shape> {
    const UNKNOWN: &str = "its schema is none of Avro";
    if depth > MAX_DEPTH {
        return Err("its schema is nested too deeply");
    }
    let fields = match schema {
        Value::String(name) => return primitive(name, space).ok_or(UNKNOWN),
        Value::Array(variants) => {
            let variants = variants.iter().map(|v| shape(v, space, names, depth + 1));
            return Ok(Shape::Union(variants.collect::<Walked<_>>()?));
        }
        Value::Object(fields) => fields,
        _ => return Err(UNKNOWN),
    };
    let inner = |key: &str, names: &mut _| shape(fields.get(key).ok_or(UNKNOWN)?, space, names, depth + 1);
    match fields.get("type").ok_or(UNKNOWN)? {
        Value::String(kind) => match kind.as_str() {
            "array" => Ok(Shape::Array(Box::new(inner("items", names)?))),
            "map" => Ok(Shape::Map(Box::new(inner("values", names)?))),
            "record" | "error" | "enum" | "fixed" => {
                let (name, space) = full_name(fields, space).ok_or(UNKNOWN)?;
                let found = match kind.as_str() {
                    "enum" => Shape::Number,
                    "fixed" => Shape::Fixed(fields.get("size").and_then(Value::as_u64).ok_or(UNKNOWN)?),
                    _ => {
                        let members = fields.get("fields").and_then(Value::as_array).ok_or(UNKNOWN)?;
                        let members = members.iter().map(|member| {
                            let name = member.get("name").and_then(Value::as_str).ok_or(UNKNOWN)?;
                            let shape = shape(member.get("type").ok_or(UNKNOWN)?, &space, names, depth + 1)?;
                            Ok((name.to_owned(), shape))
                        });
                        Shape::Record(members.collect::<Walked<_>>()?)
                    }
                };
                names.insert(name, found.clone());
                Ok(found)
            }
            name => primitive(name, space).ok_or(UNKNOWN),
        },
        nested => shape(nested, space, names, depth + 1),
    }
}

fn primitive(name: &str, space: &str) -> Option<Shape> {
    Some(match name {
        "null" => Shape::Nothing,
        "boolean" => Shape::Boolean,
        "int" | "long" => Shape::Number,
        "float" => Shape::Float,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "string" => Shape::Text,
        name if !is_name(name) => return None,
        name if name.contains('.') || space.is_empty() => Shape::Named(name.to_owned()),
        name => Shape::Named(format!("{space}.{name}")),
    })
}

/// Whether this can be a name (Avro specification, "Names").
fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let sound =
        |part: &str| part.starts_with(letter) && part.chars().all(|c| letter(c) || c.is_ascii_digit());
    name.split('.').all(sound)
}

/// The full name of a type that is defined here, and the namespace inside of it.
fn full_name(fields: &serde_json::Map<String, Value>, space: &str) -> Option<(String, String)> {
    let name = fields.get("name")?.as_str().filter(|name| is_name(name))?;
    if let Some((space, _)) = name.rsplit_once('.') {
        return Some((name.to_owned(), space.to_owned()));
    }
    let space = fields.get("namespace").and_then(Value::as_str).unwrap_or(space);
    let full = if space.is_empty() {
        name.to_owned()
    } else {
        format!("{space}.{name}")
    };
    Some((full, space.to_owned()))
}
