//! Of statistics as text, those of a few columns: the others are passed over, and take no memory.

use std::collections::BTreeSet;
use std::fmt;

use arrow::datatypes::{DataType, Field};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::model::schema::{ambiguous_paths, physical_name};

/// A column without columns inside.
#[derive(Debug)]
pub(super) struct Leaf {
    /// The names that lead to it in statistics.
    pub(super) path: Vec<String>,
    /// Its name; `a.b` inside structs.
    pub(super) name: String,
    pub(super) data_type: DataType,
}

/// Columns whose statistics are asked for.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) leaves: Vec<Leaf>,
}

/// What the statistics of one file say of them.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Rows of the file, masked ones included.
    pub(super) rows: Option<u64>,
    /// Minima, maxima and numbers of NULLs, column by column.
    pub(super) values: [Vec<Value>; 3],
}

impl Named {
    /// The columns of these names. Those of which there are two say nothing.
    pub(super) fn new(names: &BTreeSet<&str>, columns: &[&Field]) -> Self {
        fn collect(field: &Field, parents: &[&Field], names: &BTreeSet<&str>, leaves: &mut Vec<Leaf>) {
            let mut path = parents.to_vec();
            path.push(field);
            if let DataType::Struct(members) = field.data_type() {
                for member in members {
                    collect(member, &path, names, leaves);
                }
                return;
            }
            let name: Vec<&str> = path.iter().map(|field| field.name().as_str()).collect();
            let name = name.join(".");
            if names.contains(name.as_str()) {
                leaves.push(Leaf {
                    path: path.iter().map(|field| physical_name(field).to_owned()).collect(),
                    data_type: field.data_type().clone(),
                    name,
                });
            }
        }
        let mut leaves = Vec::new();
        for field in columns {
            collect(field, &[], names, &mut leaves);
        }
        let ambiguous = ambiguous_paths(columns);
        leaves.retain(|leaf| !ambiguous.contains(&leaf.name));
        Self { leaves }
    }

    /// Reads the `stats` of an `add`. Statistics that cannot be read are as good as none: they only help.
    pub(super) fn read(&self, text: Option<&str>, told: &mut Told) {
        self.clear(told);
        let Some(text) = text else { return };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(Whole { named: self, told });
        if read.and_then(|()| json.end()).is_err() {
            self.clear(told);
        }
    }

    fn clear(&self, told: &mut Told) {
        told.rows = None;
        for values in &mut told.values {
            values.clear();
            values.resize(self.leaves.len(), Value::Null);
        }
    }
}

/// The statistics of a file.
struct Whole<'a> {
    named: &'a Named,
    told: &'a mut Told,
}

/// What a key of them says.
enum Key {
    Rows,
    Kind(usize),
    Other,
}

/// Asks a key what it is.
struct Ask<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Ask<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        struct Text<F>(F);
        impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Text<F> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<T, E> {
                Ok(self.0(name))
            }
        }
        deserializer.deserialize_str(Text(self.0))
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("statistics")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let key = |name: &str| match name {
            "numRecords" => Key::Rows,
            "minValues" => Key::Kind(0),
            "maxValues" => Key::Kind(1),
            "nullCount" => Key::Kind(2),
            _ => Key::Other,
        };
        let all: Vec<usize> = (0..self.named.leaves.len()).collect();
        while let Some(key) = map.next_key_seed(Ask(key))? {
            match key {
                Key::Rows => self.told.rows = map.next_value::<Value>()?.as_u64(),
                Key::Kind(kind) => {
                    let values = &mut self.told.values[kind];
                    values.fill(Value::Null);
                    map.next_value_seed(Level {
                        named: self.named,
                        within: &all,
                        depth: 0,
                        values,
                    })?;
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The values of the columns `within`, all of which have come to this depth.
struct Level<'a> {
    named: &'a Named,
    within: &'a [usize],
    depth: usize,
    values: &'a mut [Value],
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Something else than columns says nothing of them.
macro_rules! nothing {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("values by column")
    }

    nothing!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self {
            named,
            within,
            depth,
            values,
        } = self;
        // Schemas are not nested deeper, and their names are short.
        if depth > 128 {
            return Err(A::Error::custom("statistics are nested too deeply"));
        }
        let name_at = |at: usize| named.leaves[at].path.get(depth).map(String::as_str);
        loop {
            // One column, as it mostly is, needs no list.
            let mut first = None;
            let key = Ask(|name: &str| {
                first = within.iter().copied().find(|at| name_at(*at) == Some(name));
            });
            if map.next_key_seed(key)?.is_none() {
                return Ok(());
            }
            match first {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(at) if named.leaves[at].path.len() == depth + 1 => values[at] = map.next_value()?,
                Some(at) => {
                    let same = within
                        .iter()
                        .copied()
                        .filter(|other| name_at(*other) == name_at(at));
                    let inner: Vec<usize> = same.collect();
                    map.next_value_seed(Level {
                        named,
                        within: &inner,
                        depth: depth + 1,
                        values: &mut *values,
                    })?;
                }
            }
        }
    }
}
