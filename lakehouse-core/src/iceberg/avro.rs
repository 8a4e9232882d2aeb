//! A look at an Avro file before it is decoded: a hostile one must not take memory that its bytes do not justify.
//!
//! The decoder decompresses without a bound, reserves memory for as many elements as an array claims, repeats a record
//! as often as a block's count says, and takes NULL for what is cut off. So blocks are decompressed here, with a bound,
//! and walked through by the writer's schema, nothing kept. What goes on to the decoder is the same file without
//! compression (Avro specification, "Object Container Files", "Binary encoding").

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;

use super::metadata::broken;
use crate::error::{Error, Result};
use crate::model::limits::{self, AVRO_BLOCK_BYTES, AVRO_BYTES, AVRO_VALUES};

const MAGIC: &[u8; 4] = b"Obj\x01";
const SYNC: usize = 16;
/// The schema in a header.
const SCHEMA_BYTES: u64 = 4 << 20;
/// Nesting of schemas and of values at which a file is refused.
const MAX_DEPTH: usize = 64;

const CUT_SHORT: &str = "it ends too early";

/// The file, checked, without compression. `place` names it in errors.
///
/// # Errors
/// [`Error::Invalid`] when it is broken, [`Error::Limit`] when it is too large, [`Error::Unsupported`] for a codec
/// that is not read.
pub(super) fn checked(bytes: &Bytes, place: &str) -> Result<Bytes> {
    let failed = |what: &str| broken(place, format!("the Avro file is damaged: {what}"));
    let mut input = Input { rest: bytes };
    if input.take(4).map_err(failed)? != MAGIC {
        return Err(broken(place, "it is not an Avro file".into()));
    }
    let header = input.header().map_err(failed)?;
    let header_end = bytes.len() - input.rest.len();
    let sync = input.take(SYNC as u64).map_err(failed)?;
    let codec = Codec::named(header.get("avro.codec").copied(), place)?;
    let schema = header.get("avro.schema").copied().unwrap_or_default();
    limits::at_most(
        schema.len() as u64,
        SCHEMA_BYTES,
        "bytes of schema in an Avro file",
        place,
    )?;
    let schema: Value =
        serde_json::from_slice(schema).map_err(|e| failed(&format!("its schema cannot be read: {e}")))?;
    let mut names = HashMap::new();
    let shape = shape(&schema, "", &mut names, 0).map_err(failed)?;
    let mut values = 0;
    let mut plain = Vec::new();
    let mut total = 0;
    while !input.rest.is_empty() {
        let count = input.count().map_err(failed)?;
        let size = input.count().map_err(failed)?;
        let stored = input.take(size).map_err(failed)?;
        if input.take(SYNC as u64).map_err(failed)? != sync {
            return Err(failed("a block does not end where it should"));
        }
        let block = codec.decompress(stored, place)?;
        total += block.len() as u64;
        limits::at_most(total, AVRO_BYTES, "bytes of Avro", place)?;
        let mut walk = Walk {
            input: Input { rest: &block },
            names: &names,
            values: &mut values,
        };
        if let Err(what) = walk.block(&shape, count) {
            limits::at_most(values, AVRO_VALUES, "values in an Avro file", place)?;
            return Err(failed(what));
        }
        if codec != Codec::Null {
            if plain.is_empty() {
                plain = without_codec(&header, sync);
            }
            put_varint(&mut plain, count);
            put_varint(&mut plain, block.len() as u64);
            plain.extend_from_slice(&block);
            plain.extend_from_slice(sync);
        }
    }
    match (codec, plain.is_empty()) {
        (Codec::Null, _) => Ok(bytes.clone()),
        // No blocks: the header alone.
        (_, true) => Ok(bytes.slice(..header_end + SYNC)),
        (_, false) => Ok(plain.into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

impl Codec {
    fn named(name: Option<&[u8]>, place: &str) -> Result<Self> {
        Ok(match name {
            None | Some(b"null") => Self::Null,
            Some(b"deflate") => Self::Deflate,
            Some(b"snappy") => Self::Snappy,
            Some(b"zstandard") => Self::Zstandard,
            Some(other) => {
                return Err(Error::unsupported(
                    format!(
                        "{place} is compressed with {:?}; deflate, snappy and zstandard are read",
                        String::from_utf8_lossy(other)
                    ),
                    "let the engine that wrote the table rewrite its manifests",
                ));
            }
        })
    }

    fn decompress<'a>(self, stored: &'a [u8], place: &str) -> Result<std::borrow::Cow<'a, [u8]>> {
        let failed =
            |e: &dyn std::fmt::Display| broken(place, format!("a block cannot be decompressed: {e}"));
        let too_large = || {
            let what = "a block of the Avro file has more bytes after decompression";
            limits::over(what, AVRO_BLOCK_BYTES, place)
        };
        let block = match self {
            Self::Null => {
                if stored.len() as u64 > AVRO_BLOCK_BYTES {
                    return Err(too_large());
                }
                return Ok(stored.into());
            }
            Self::Deflate => {
                let open = || Ok(flate2::bufread::DeflateDecoder::new(stored));
                let read = limits::read_within(open, AVRO_BLOCK_BYTES);
                read.map_err(|e| failed(&e))?.ok_or_else(too_large)?
            }
            Self::Zstandard => {
                let open = || zstd::stream::read::Decoder::with_buffer(stored);
                let read = limits::read_within(open, AVRO_BLOCK_BYTES);
                read.map_err(|e| failed(&e))?.ok_or_else(too_large)?
            }
            Self::Snappy => {
                let (data, sum) = stored.split_last_chunk::<4>().ok_or_else(|| failed(&CUT_SHORT))?;
                let size = snap::raw::decompress_len(data).map_err(|e| failed(&e))?;
                if size as u64 > AVRO_BLOCK_BYTES {
                    return Err(too_large());
                }
                let out = snap::raw::Decoder::new()
                    .decompress_vec(data)
                    .map_err(|e| failed(&e))?;
                if crc32fast::hash(&out).to_be_bytes() != *sum {
                    return Err(failed(&"its checksum does not agree"));
                }
                out
            }
        };
        Ok(block.into())
    }
}

/// The header of the same file, which says that nothing is compressed.
fn without_codec(header: &HashMap<String, &[u8]>, sync: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let kept: Vec<_> = header
        .iter()
        .filter(|(key, _)| !key.starts_with("avro.codec"))
        .collect();
    put_varint(&mut out, kept.len() as u64);
    for (key, value) in kept {
        for text in [key.as_bytes(), value] {
            put_varint(&mut out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }
    out.push(0);
    out.extend_from_slice(sync);
    out
}

/// A number that is not negative, zigzag.
fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut left = value << 1;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

type Walked<T = ()> = std::result::Result<T, &'static str>;

/// Bytes being read.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: u64) -> Walked<&'a [u8]> {
        let count = usize::try_from(count).map_err(|_| CUT_SHORT)?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn long(&mut self) -> Walked<i64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(CUT_SHORT)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err("a number is too long")
    }

    fn count(&mut self) -> Walked<u64> {
        u64::try_from(self.long()?).map_err(|_| "a length is negative")
    }

    fn text(&mut self) -> Walked<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    /// How many elements of an array or map follow, 0 at its end.
    fn elements(&mut self) -> Walked<u64> {
        let mut count = self.long()?;
        if count < 0 {
            count = count.checked_neg().ok_or("a count is too large")?;
            self.count()?;
        }
        let count = count.unsigned_abs();
        // Every element takes a byte at least: arrays of nothing have no use.
        if count > self.rest.len() as u64 {
            return Err("an array claims more elements than there are bytes");
        }
        Ok(count)
    }

    fn header(&mut self) -> Walked<HashMap<String, &'a [u8]>> {
        let mut pairs = HashMap::new();
        loop {
            let count = self.elements()?;
            if count == 0 {
                return Ok(pairs);
            }
            for _ in 0..count {
                let key = String::from_utf8(self.text()?.to_vec()).map_err(|_| "a key is not UTF-8")?;
                pairs.insert(key, self.text()?);
            }
        }
    }
}

/// A schema, reduced to how many bytes its values take.
#[derive(Debug, Clone)]
enum Shape {
    Nothing,
    Number,
    Fixed(u64),
    Text,
    Array(Box<Shape>),
    Map(Box<Shape>),
    Union(Vec<Shape>),
    Record(Vec<Shape>),
    /// A type that was defined before.
    Named(String),
}

fn shape(schema: &Value, space: &str, names: &mut HashMap<String, Shape>, depth: usize) -> Walked<Shape> {
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
                            shape(member.get("type").ok_or(UNKNOWN)?, &space, names, depth + 1)
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
        "boolean" => Shape::Fixed(1),
        "int" | "long" => Shape::Number,
        "float" => Shape::Fixed(4),
        "double" => Shape::Fixed(8),
        "bytes" | "string" => Shape::Text,
        name if !is_name(name) => return None,
        name if name.contains('.') || space.is_empty() => Shape::Named(name.to_owned()),
        name => Shape::Named(format!("{space}.{name}")),
    })
}

/// Whether the decoder takes this for a name; at any other it panics.
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

/// The way through the values of a block.
struct Walk<'a> {
    input: Input<'a>,
    names: &'a HashMap<String, Shape>,
    values: &'a mut u64,
}

impl<'a> Walk<'a> {
    fn block(&mut self, shape: &'a Shape, count: u64) -> Walked {
        if count > self.input.rest.len() as u64 {
            return Err("a block claims more records than it has bytes");
        }
        for _ in 0..count {
            self.value(shape, 0)?;
        }
        match self.input.rest.is_empty() {
            true => Ok(()),
            false => Err("a block goes on after its last record"),
        }
    }

    fn value(&mut self, shape: &'a Shape, depth: usize) -> Walked {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply");
        }
        // What only says which value follows is none.
        let stands_for_one = matches!(shape, Shape::Union(_) | Shape::Named(_));
        *self.values += u64::from(!stands_for_one);
        if *self.values > AVRO_VALUES {
            return Err("it has too many values");
        }
        match shape {
            Shape::Nothing => Ok(()),
            Shape::Number => self.input.long().map(drop),
            Shape::Fixed(size) => self.input.take(*size).map(drop),
            Shape::Text => self.input.text().map(drop),
            Shape::Array(element) => self.elements(None, element, depth),
            Shape::Map(value) => self.elements(Some(&Shape::Text), value, depth),
            Shape::Union(variants) => {
                let at = usize::try_from(self.input.long()?).unwrap_or(usize::MAX);
                let variant = variants.get(at).ok_or("a union has no such variant")?;
                self.value(variant, depth + 1)
            }
            Shape::Record(fields) => fields.iter().try_for_each(|field| self.value(field, depth + 1)),
            Shape::Named(name) => {
                let names = self.names;
                let named = names
                    .get(name)
                    .ok_or("its schema names a type that it does not define")?;
                self.value(named, depth + 1)
            }
        }
    }

    fn elements(&mut self, key: Option<&'a Shape>, value: &'a Shape, depth: usize) -> Walked {
        loop {
            let count = self.input.elements()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                if let Some(key) = key {
                    self.value(key, depth + 1)?;
                }
                self.value(value, depth + 1)?;
            }
        }
    }
}

#[cfg(test)]
#[path = "avro_tests.rs"]
mod tests;
