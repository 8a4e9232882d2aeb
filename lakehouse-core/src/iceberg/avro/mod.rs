//! Avro files, read in one pass and within bounds: a hostile one must not take memory that its bytes do not justify.
//!
//! ```text
//! input   bytes, numbers, texts        codec   blocks, decompressed with a bound
//! shape   the writer's schema          values  a block's values, for serde; what nobody asks for is passed over
//! ```
//!
//! The usual decoder decompresses without a bound, reserves memory for as many elements as an array claims, takes NULL
//! for what is cut off, panics at odd names, and parses the schema anew, three times, for every file of a few records
//! (Avro specification, "Object Container Files", "Binary encoding").

mod codec;
mod input;
mod shape;
mod values;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::codec::Codec;
use self::input::Input;
use self::shape::{Definitions, Field, Shape, shape};
use self::values::{Walk, Wrong};
use super::metadata::broken;
use crate::error::Result;
use crate::model::limits::{self, Limit, Limits};

const MAGIC: &[u8; 4] = b"Obj\x01";
const SYNC: u64 = 16;
/// The schema in a header.
const SCHEMA_BYTES: Limit = Limit::fixed(4 << 20);
/// Nesting of schemas and of values at which a file is refused.
const MAX_DEPTH: usize = 64;

const CUT_SHORT: &str = "it ends too early";

/// What is wrong is said in words; the file is named by whoever asked.
type Walked<T = ()> = std::result::Result<T, &'static str>;

/// A file whose header is read.
pub(super) struct File<'a> {
    header: HashMap<String, &'a [u8]>,
    schema: Arc<Schema>,
    codec: Codec,
    sync: &'a [u8],
    blocks: Input<'a>,
    limits: &'a Limits,
    place: &'a str,
}

/// A writer's schema.
struct Schema {
    shape: Shape,
    defined: Definitions,
}

impl Schema {
    fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        let schema: Value =
            serde_json::from_slice(text).map_err(|error| format!("its schema cannot be read: {error}"))?;
        let mut defined = Definitions::default();
        let shape = shape(&schema, "", &mut defined, 0)?;
        Ok(Self { shape, defined })
    }

    /// The same; those of the last files are kept, since all manifests of a table have one of a few, and reading it
    /// takes longer than reading their entries.
    fn known(text: &[u8]) -> std::result::Result<Arc<Self>, String> {
        const KEPT: usize = 8;
        const KEPT_BYTES: usize = 64 << 10;
        static LAST: Mutex<VecDeque<(Vec<u8>, Arc<Schema>)>> = Mutex::new(VecDeque::new());
        // Nobody waits for it: in a forked process it may stay taken for ever.
        let known = |last: &VecDeque<(Vec<u8>, Arc<Self>)>| {
            let found = last.iter().find(|(known, _)| known == text);
            found.map(|(_, schema)| Arc::clone(schema))
        };
        if let Some(schema) = LAST.try_lock().ok().and_then(|last| known(&last)) {
            return Ok(schema);
        }
        let schema = Arc::new(Self::parse(text)?);
        if let Ok(mut last) = LAST.try_lock()
            && text.len() <= KEPT_BYTES
            && known(&last).is_none()
        {
            last.truncate(KEPT - 1);
            last.push_front((text.to_vec(), Arc::clone(&schema)));
        }
        Ok(schema)
    }

    /// The fields of the record that these names lead to, from record to record: their names and numbers.
    fn fields(&self, way: &[&str]) -> Option<Vec<(&str, Option<i32>)>> {
        let mut at = &self.shape;
        for name in way {
            let field = self.record(at)?.iter().find(|field| field.name == *name)?;
            at = &field.shape;
        }
        let fields = self.record(at)?.iter();
        Some(fields.map(|field| (field.name.as_str(), field.id)).collect())
    }

    /// The record that a shape is, or the one in a union with NULL.
    fn record<'s>(&'s self, shape: &'s Shape) -> Option<&'s [Field]> {
        match shape {
            Shape::Record(fields) => Some(fields),
            Shape::Named(place) => match self.defined.get(*place)? {
                Shape::Record(fields) => Some(fields),
                _ => None,
            },
            Shape::Union(variants) => {
                let records = variants
                    .iter()
                    .filter(|variant| !matches!(variant, Shape::Union(_)));
                records.filter_map(|variant| self.record(variant)).next()
            }
            _ => None,
        }
    }
}

fn damaged(place: &str, what: &str) -> crate::Error {
    broken(place, format!("the Avro file is damaged: {what}"))
}

impl<'a> File<'a> {
    /// Reads the header; no more is read than the limits allow. `place` names the file in errors.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when it is broken, [`Error::Limit`](crate::Error::Limit) when its
    /// schema is too large, [`Error::Unsupported`](crate::Error::Unsupported) for a codec that is not read.
    pub(super) fn open(bytes: &'a [u8], limits: &'a Limits, place: &'a str) -> Result<Self> {
        let failed = |what: &str| damaged(place, what);
        let mut input = Input { rest: bytes };
        if input.take(4).map_err(failed)? != MAGIC {
            return Err(broken(place, "it is not an Avro file".into()));
        }
        let header = input.header().map_err(failed)?;
        let sync = input.take(SYNC).map_err(failed)?;
        let codec = Codec::named(header.get("avro.codec").copied(), place)?;
        let schema = header.get("avro.schema").copied().unwrap_or_default();
        let what = "bytes of schema in an Avro file";
        limits::at_most(schema.len() as u64, SCHEMA_BYTES, what, place)?;
        Ok(Self {
            schema: Schema::known(schema).map_err(|what| failed(&what))?,
            header,
            codec,
            sync,
            blocks: input,
            limits,
            place,
        })
    }

    /// What the writer noted in the header, by key.
    pub(super) fn header(&self, key: &str) -> Option<&'a [u8]> {
        self.header.get(key).copied()
    }

    /// The fields of the record that these names lead to, from record to record: their names, and Iceberg's numbers
    /// for them. `None` if there is no such record.
    pub(super) fn fields(&self, way: &[&str]) -> Option<Vec<(&str, Option<i32>)>> {
        self.schema.fields(way)
    }

    /// Reads all records, in order.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the file is broken or a record is none of these,
    /// [`Error::Limit`](crate::Error::Limit) when it is too large, and those of `take`.
    pub(super) fn records<T: DeserializeOwned>(
        mut self,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let (limits, place) = (self.limits, self.place);
        let failed = |what: &str| damaged(place, what);
        let (mut values, mut total) = (0, 0);
        while !self.blocks.rest.is_empty() {
            let count = self.blocks.count().map_err(failed)?;
            let size = self.blocks.count().map_err(failed)?;
            let stored = self.blocks.take(size).map_err(failed)?;
            if self.blocks.take(SYNC).map_err(failed)? != self.sync {
                return Err(failed("a block does not end where it should"));
            }
            let block = self.codec.decompress(stored, limits.avro_block_bytes, place)?;
            total += block.len() as u64;
            limits::at_most(total, limits.avro_bytes, "bytes of Avro", place)?;
            if count > block.len() as u64 {
                return Err(failed("a block claims more records than it has bytes"));
            }
            let mut walk = Walk {
                input: Input { rest: &block },
                defined: &self.schema.defined,
                values: &mut values,
                most: limits.avro_values.most(),
            };
            for _ in 0..count {
                let record = T::deserialize(walk.value(&self.schema.shape));
                take(record.map_err(|Wrong(what)| {
                    let counted =
                        limits::at_most(*walk.values, limits.avro_values, "values in an Avro file", place);
                    counted.err().unwrap_or_else(|| failed(&what))
                })?)?;
            }
            if !walk.input.rest.is_empty() {
                return Err(failed("a block goes on after its last record"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
