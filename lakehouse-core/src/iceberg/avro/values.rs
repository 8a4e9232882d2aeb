//! The values of a block, taken by serde: what nobody asks for is passed over, and nothing is kept of it.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::input::Input;
use super::shape::{Definitions, Field, Shape};
use super::{MAX_DEPTH, Walked};

/// What is wrong with a value.
#[derive(Debug)]
pub(in super::super) struct Wrong(pub(super) Cow<'static, str>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(what: T) -> Self {
        let mut said = Said(String::new());
        // It fails where enough is said: a text of the file may be in there.
        let _ = write!(said, "{what}");
        Self(said.0.into())
    }
}

/// The start of what is written.
struct Said(String);

impl Write for Said {
    fn write_char(&mut self, c: char) -> fmt::Result {
        const MOST: usize = 200;
        match self.0.len() < MOST {
            true => {
                self.0.push(c);
                Ok(())
            }
            false => Err(fmt::Error),
        }
    }

    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }
}

impl From<&'static str> for Wrong {
    fn from(what: &'static str) -> Self {
        Self(what.into())
    }
}

/// A number or bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Plain<'de> {
    Number(i64),
    Bytes(&'de [u8]),
}

/// The way through the values of a block.
pub(in super::super) struct Walk<'s, 'de> {
    pub(super) input: Input<'de>,
    pub(super) defined: &'s Definitions,
    /// Values met so far in the file.
    pub(super) values: u64,
    /// How many there may be.
    pub(super) most: u64,
}

impl<'s, 'de> Walk<'s, 'de> {
    /// The same way from other bytes, which were passed over before: they are not counted again.
    pub(in super::super) fn again(&self, bytes: &'de [u8]) -> Self {
        Self {
            input: Input { rest: bytes },
            defined: self.defined,
            values: 0,
            most: u64::MAX,
        }
    }

    /// A value of this shape, for serde.
    pub(in super::super) fn value<'w>(&'w mut self, shape: &'s Shape) -> One<'w, 's, 'de> {
        One {
            walk: self,
            shape,
            depth: 0,
        }
    }

    /// What a shape stands for: the type that has this name.
    fn named(&self, mut shape: &'s Shape) -> Walked<&'s Shape> {
        // A name stands for a type that was defined, never for another name.
        if let Shape::Named(place) = shape {
            shape = self
                .defined
                .get(*place)
                .ok_or("its schema names a type that it does not define")?;
        }
        Ok(shape)
    }

    fn variant(&mut self, variants: &'s [Shape]) -> Walked<&'s Shape> {
        let at = usize::try_from(self.input.long()?).unwrap_or(usize::MAX);
        variants.get(at).ok_or("a union has no such variant")
    }

    /// The shape of the value that is here, which is neither a name nor a union, and no longer counted.
    fn concrete(&mut self, mut shape: &'s Shape, depth: &mut usize) -> Walked<&'s Shape> {
        loop {
            if *depth > MAX_DEPTH {
                return Err("it is nested too deeply");
            }
            shape = match self.named(shape)? {
                Shape::Union(variants) => self.variant(variants)?,
                found => {
                    shape = found;
                    break;
                }
            };
            *depth += 1;
        }
        self.count(1)?;
        Ok(shape)
    }

    fn count(&mut self, values: u64) -> Walked {
        self.values += values;
        match self.values > self.most {
            true => Err("it has too many values"),
            false => Ok(()),
        }
    }

    fn boolean(&mut self) -> Walked<bool> {
        match self.input.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a boolean is neither true nor false"),
        }
    }

    /// Passes over a value.
    pub(in super::super) fn skip(&mut self, shape: &'s Shape, mut depth: usize) -> Walked {
        let shape = self.concrete(shape, &mut depth)?;
        self.skip_concrete(shape, depth)
    }

    /// Passes over a value, and tells the bytes that it takes.
    pub(in super::super) fn raw(&mut self, shape: &'s Shape, depth: usize) -> Walked<&'de [u8]> {
        let from = self.input.rest;
        self.skip(shape, depth)?;
        Ok(&from[..from.len() - self.input.rest.len()])
    }

    /// The fields of the record that is here, whose values follow one after the other.
    pub(in super::super) fn record(&mut self, shape: &'s Shape, depth: usize) -> Walked<&'s [Field]> {
        let mut depth = depth;
        match self.concrete(shape, &mut depth)? {
            Shape::Record(fields) => Ok(fields),
            _ => Err("a value is no record"),
        }
    }

    /// A number, or NULL.
    pub(in super::super) fn number(&mut self, shape: &'s Shape, depth: usize) -> Walked<Option<i64>> {
        let mut depth = depth;
        match self.concrete(shape, &mut depth)? {
            Shape::Nothing => Ok(None),
            Shape::Number => self.input.long().map(Some),
            _ => Err("a value is no number"),
        }
    }

    /// Of an array of pairs, each a number and a value, or NULL: the values of these numbers, with their place in
    /// `wanted`. Pairs of another kind are passed over.
    pub(in super::super) fn pairs(
        &mut self,
        shape: &'s Shape,
        depth: usize,
        wanted: &[i32],
        found: impl FnMut(usize, Plain<'de>),
    ) -> Walked {
        let mut depth = depth;
        match self.concrete(shape, &mut depth)? {
            Shape::Array(element) => match self.plain_pair(element)? {
                Some(value) => self.plain_pairs(value, wanted, found),
                None => self.skip_elements(None, element, depth),
            },
            other => self.skip_concrete(other, depth),
        }
    }

    /// The shape of the second value of a pair whose first one is a number, where that is a number or bytes.
    fn plain_pair(&self, element: &'s Shape) -> Walked<Option<&'s Shape>> {
        let Shape::Record(fields) = self.named(element)? else {
            return Ok(None);
        };
        Ok(match fields.as_slice() {
            [key, value] if matches!(key.shape, Shape::Number) => match &value.shape {
                plain @ (Shape::Number | Shape::Bytes) => Some(plain),
                _ => None,
            },
            _ => None,
        })
    }

    /// Metadata has six such arrays for every file, with a pair for each column: they are read without asking for the
    /// shape of each value anew.
    fn plain_pairs(
        &mut self,
        value: &Shape,
        wanted: &[i32],
        mut found: impl FnMut(usize, Plain<'de>),
    ) -> Walked {
        loop {
            let count = self.input.elements()?;
            if count == 0 {
                return Ok(());
            }
            // The pair, and what is in it.
            self.count(count.saturating_mul(3))?;
            for _ in 0..count {
                let key = self.input.long()?;
                let value = match value {
                    Shape::Number => Plain::Number(self.input.long()?),
                    _ => Plain::Bytes(self.input.text()?),
                };
                if let Some(at) = wanted.iter().position(|id| i64::from(*id) == key) {
                    found(at, value);
                }
            }
        }
    }

    fn skip_concrete(&mut self, shape: &'s Shape, depth: usize) -> Walked {
        match shape {
            Shape::Nothing | Shape::Named(_) | Shape::Union(_) => Ok(()),
            Shape::Boolean => self.boolean().map(drop),
            Shape::Number => self.input.long().map(drop),
            Shape::Float => self.input.take(4).map(drop),
            Shape::Double => self.input.take(8).map(drop),
            Shape::Fixed(size) => self.input.take(*size).map(drop),
            Shape::Bytes | Shape::Text => self.input.text().map(drop),
            Shape::Array(element) => self.skip_elements(None, element, depth),
            Shape::Map(value) => self.skip_elements(Some(&Shape::Text), value, depth),
            Shape::Record(fields) => fields
                .iter()
                .try_for_each(|field| self.skip(&field.shape, depth + 1)),
        }
    }

    fn skip_elements(&mut self, key: Option<&'s Shape>, value: &'s Shape, depth: usize) -> Walked {
        if key.is_none()
            && depth < MAX_DEPTH - 1
            && let Some(value) = self.plain_pair(value)?
        {
            return self.plain_pairs(value, &[], |_, _| {});
        }
        loop {
            let count = self.input.elements()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                if let Some(key) = key {
                    self.skip(key, depth + 1)?;
                }
                self.skip(value, depth + 1)?;
            }
        }
    }
}

/// One value.
pub(in super::super) struct One<'w, 's, 'de> {
    walk: &'w mut Walk<'s, 'de>,
    shape: &'s Shape,
    depth: usize,
}

fn text(bytes: &[u8]) -> Result<&str, Wrong> {
    std::str::from_utf8(bytes).map_err(|_| Wrong::from("a text is not UTF-8"))
}

impl<'de> Deserializer<'de> for One<'_, '_, 'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Self {
            walk,
            shape,
            mut depth,
        } = self;
        let number = |bytes: &[u8]| Wrong::invalid_length(bytes.len(), &"a number");
        match walk.concrete(shape, &mut depth)? {
            Shape::Nothing => visitor.visit_unit(),
            Shape::Boolean => visitor.visit_bool(walk.boolean()?),
            Shape::Number => visitor.visit_i64(walk.input.long()?),
            Shape::Float => {
                let bytes = walk.input.take(4)?;
                visitor.visit_f32(f32::from_le_bytes(bytes.try_into().map_err(|_| number(bytes))?))
            }
            Shape::Double => {
                let bytes = walk.input.take(8)?;
                visitor.visit_f64(f64::from_le_bytes(bytes.try_into().map_err(|_| number(bytes))?))
            }
            Shape::Fixed(size) => visitor.visit_borrowed_bytes(walk.input.take(*size)?),
            Shape::Bytes => visitor.visit_borrowed_bytes(walk.input.text()?),
            Shape::Text => visitor.visit_borrowed_str(text(walk.input.text()?)?),
            Shape::Array(value) => visitor.visit_seq(Elements {
                walk,
                value,
                depth,
                left: 0,
                ended: false,
            }),
            Shape::Map(value) => visitor.visit_map(Elements {
                walk,
                value,
                depth,
                left: 0,
                ended: false,
            }),
            Shape::Record(fields) => visitor.visit_map(Fields {
                walk,
                fields: fields.iter(),
                value: None,
                depth,
            }),
            Shape::Named(_) | Shape::Union(_) => Err(Wrong::invalid_type(Unexpected::Enum, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Wrong> {
        loop {
            self.shape = self.walk.named(self.shape)?;
            let Shape::Union(variants) = self.shape else {
                break;
            };
            self.shape = self.walk.variant(variants)?;
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err("it is nested too deeply".into());
            }
        }
        match self.shape {
            Shape::Nothing => {
                self.walk.skip(self.shape, self.depth)?;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.walk.skip(self.shape, self.depth)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier
    }
}

/// The elements of an array or a map, which come in blocks.
struct Elements<'w, 's, 'de> {
    walk: &'w mut Walk<'s, 'de>,
    value: &'s Shape,
    depth: usize,
    /// How many are left in this block.
    left: u64,
    ended: bool,
}

impl<'w, 's, 'de> Elements<'w, 's, 'de> {
    fn has_more(&mut self) -> Walked<bool> {
        if self.left == 0 && !self.ended {
            self.left = self.walk.input.elements()?;
            self.ended = self.left == 0;
        }
        Ok(!self.ended)
    }

    fn next(&mut self, shape: &'s Shape) -> One<'_, 's, 'de> {
        One {
            walk: self.walk,
            shape,
            depth: self.depth + 1,
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, '_, 'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        if !self.has_more()? {
            return Ok(None);
        }
        self.left -= 1;
        let value = self.value;
        seed.deserialize(self.next(value)).map(Some)
    }
}

impl<'de> MapAccess<'de> for Elements<'_, '_, 'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        if !self.has_more()? {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.next(&Shape::Text)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let value = self.value;
        seed.deserialize(self.next(value))
    }
}

/// The fields of a record, by name.
struct Fields<'w, 's, 'de> {
    walk: &'w mut Walk<'s, 'de>,
    fields: std::slice::Iter<'s, Field>,
    value: Option<&'s Shape>,
    depth: usize,
}

impl<'de> MapAccess<'de> for Fields<'_, '_, 'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        let Some(field) = self.fields.next() else {
            return Ok(None);
        };
        self.value = Some(&field.shape);
        seed.deserialize(StrDeserializer::new(&field.name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let shape = self
            .value
            .take()
            .ok_or_else(|| Wrong::from("a value without a name"))?;
        seed.deserialize(One {
            walk: self.walk,
            shape,
            depth: self.depth + 1,
        })
    }
}
