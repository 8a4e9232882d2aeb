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

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::codec::Codec;
use self::input::Input;
use self::shape::{Definitions, shape};
pub(super) use self::shape::{Field, Shape};
use self::values::Wrong;
pub(super) use self::values::{Plain, Walk};
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
pub(super) type Walked<T = ()> = std::result::Result<T, &'static str>;

/// A file whose header is read.
pub(super) struct File<'a> {
    header: HashMap<String, &'a [u8]>,
    schema: Arc<Schema>,
    codec: Codec,
    sync: &'a [u8],
    blocks: Input<'a>,
    /// Bytes of blocks so far, after decompression.
    total: u64,
    /// The memory of blocks that were let go, for the next ones: a buffer that grows takes twice what it will hold.
    used: Vec<Vec<u8>>,
    limits: &'a Limits,
    place: &'a str,
}

/// Who reads records in two passes ([`File::sift`]): first of all of them what decides which are wanted, then those.
pub(super) trait Sieve {
    /// What decides.
    type Outline;
    /// What is read of those that are wanted.
    type Record: DeserializeOwned;

    /// Reads of a record what decides, and passes over the rest of it.
    fn outline<'s>(&mut self, walk: &mut Walk<'s, '_>, record: &'s Shape) -> Walked<Self::Outline>;

    /// Which of these records, which follow each other, are wanted.
    fn judge(&mut self, outlines: &[Self::Outline]) -> Result<Vec<bool>>;

    /// Takes one that is wanted.
    fn take(&mut self, outline: &Self::Outline, record: Self::Record) -> Result<()>;
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
            total: 0,
            used: Vec::new(),
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
        let schema = Arc::clone(&self.schema);
        let mut values = 0;
        while let Some((count, block)) = self.block()? {
            let mut walk = self.walk(&schema, &block, values);
            for _ in 0..count {
                let record = T::deserialize(walk.value(&schema.shape));
                take(record.map_err(|Wrong(what)| self.wrong(&what, walk.values))?)?;
            }
            values = self.end(&walk)?;
            self.let_go(block);
        }
        Ok(())
    }

    /// Reads those records that a sieve wants, in order. What the others hold takes no memory.
    ///
    /// # Errors
    /// As [`File::records`], and those of the sieve.
    pub(super) fn sift<S: Sieve>(mut self, sieve: &mut S) -> Result<()> {
        /// Records judged together: enough for what each judgement costs on its own.
        const MOST: usize = 2048;
        /// The blocks of so many bytes wait for a judgement: where many columns have statistics, few records do.
        const MOST_BYTES: usize = 1 << 20;
        let schema = Arc::clone(&self.schema);
        let mut values = 0;
        loop {
            let (mut blocks, mut outlines, mut bytes) = (Vec::new(), Vec::new(), 0);
            while outlines.len() < MOST && bytes < MOST_BYTES {
                let Some((count, block)) = self.block()? else {
                    break;
                };
                let mut starts = Vec::new();
                let mut walk = self.walk(&schema, &block, values);
                for _ in 0..count {
                    starts.push(block.len() - walk.input.rest.len());
                    let outline = sieve.outline(&mut walk, &schema.shape);
                    outlines.push(outline.map_err(|what| self.wrong(what, walk.values))?);
                }
                values = self.end(&walk)?;
                bytes += block.len();
                blocks.push((block, starts));
            }
            if blocks.is_empty() {
                return Ok(());
            }
            let wanted = sieve.judge(&outlines)?;
            let records = blocks
                .iter()
                .flat_map(|(block, starts)| starts.iter().map(move |start| (block, *start)));
            for (((block, start), outline), wanted) in records.zip(&outlines).zip(wanted) {
                if !wanted {
                    continue;
                }
                let mut walk = Walk {
                    most: u64::MAX,
                    ..self.walk(&schema, &block[start..], 0)
                };
                let record = S::Record::deserialize(walk.value(&schema.shape));
                sieve.take(outline, record.map_err(|Wrong(what)| damaged(self.place, &what))?)?;
            }
            blocks.into_iter().for_each(|(block, _)| self.let_go(block));
        }
    }

    /// The next block, decompressed, and how many records it has; `None` at the end.
    fn block(&mut self) -> Result<Option<(u64, Cow<'a, [u8]>)>> {
        if self.blocks.rest.is_empty() {
            return Ok(None);
        }
        let (limits, place) = (self.limits, self.place);
        let failed = |what: &str| damaged(place, what);
        let count = self.blocks.count().map_err(failed)?;
        let size = self.blocks.count().map_err(failed)?;
        let stored = self.blocks.take(size).map_err(failed)?;
        if self.blocks.take(SYNC).map_err(failed)? != self.sync {
            return Err(failed("a block does not end where it should"));
        }
        let used = self.used.pop().unwrap_or_default();
        let block = self
            .codec
            .decompress(stored, limits.avro_block_bytes, place, used)?;
        self.total += block.len() as u64;
        limits::at_most(self.total, limits.avro_bytes, "bytes of Avro", place)?;
        if count > block.len() as u64 {
            return Err(failed("a block claims more records than it has bytes"));
        }
        Ok(Some((count, block)))
    }

    /// Takes back the memory of a block that nobody needs any more.
    fn let_go(&mut self, block: Cow<'_, [u8]>) {
        /// More is not kept: a file with a few large blocks would have that of each of them.
        const MOST: usize = 64;
        const MOST_BYTES: usize = 4 << 20;
        if let Cow::Owned(block) = block
            && block.capacity() <= MOST_BYTES
            && self.used.len() < MOST
        {
            self.used.push(block);
        }
    }

    /// The way through a block; so many values were met before it.
    fn walk<'s, 'b>(&self, schema: &'s Schema, block: &'b [u8], values: u64) -> Walk<'s, 'b> {
        Walk {
            input: Input { rest: block },
            defined: &schema.defined,
            values,
            most: self.limits.avro_values.most(),
        }
    }

    /// How many values were met up to the end of a block.
    fn end(&self, walk: &Walk<'_, '_>) -> Result<u64> {
        match walk.input.rest.is_empty() {
            true => Ok(walk.values),
            false => Err(damaged(self.place, "a block goes on after its last record")),
        }
    }

    fn wrong(&self, what: &str, values: u64) -> crate::Error {
        let counted = limits::at_most(
            values,
            self.limits.avro_values,
            "values in an Avro file",
            self.place,
        );
        counted.err().unwrap_or_else(|| damaged(self.place, what))
    }
}

#[cfg(test)]
mod tests;
