//! Of statistics as text, those of a few columns: the others are passed over, and take no memory.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field};
use serde_json::Value;

use super::walk::Walk;
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
    /// The places of all of them.
    all: Vec<usize>,
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
        Self {
            all: (0..leaves.len()).collect(),
            leaves,
        }
    }

    /// Reads the `stats` of an `add`. Statistics that cannot be read are as good as none: they only help.
    pub(super) fn read(&self, text: Option<&str>, told: &mut Told) {
        self.clear(told);
        let Some(text) = text else { return };
        let mut walk = Walk::new(text);
        if self.whole(&mut walk, told).is_none() || !walk.is_over() {
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

    fn whole(&self, walk: &mut Walk<'_>, told: &mut Told) -> Option<()> {
        walk.members(|walk, name| {
            let kind = match name {
                "numRecords" => {
                    told.rows = walk.value()?.as_u64();
                    return Some(());
                }
                "minValues" => 0,
                "maxValues" => 1,
                "nullCount" => 2,
                _ => return walk.skip(),
            };
            let values = &mut told.values[kind];
            values.fill(Value::Null);
            self.level(walk, &self.all, 0, values)
        })
    }

    /// The values of the columns `within`, all of which have come to this depth.
    fn level(&self, walk: &mut Walk<'_>, within: &[usize], depth: usize, values: &mut [Value]) -> Option<()> {
        // Something else than columns says nothing of them.
        if !walk.is_object() {
            return walk.skip();
        }
        let name_at = |at: usize| self.leaves[at].path.get(depth).map(String::as_str);
        walk.members(|walk, name| {
            // One column, as it mostly is, needs no list.
            let Some(first) = within.iter().copied().find(|at| name_at(*at) == Some(name)) else {
                return walk.skip();
            };
            if self.leaves[first].path.len() == depth + 1 {
                values[first] = walk.value()?;
                return Some(());
            }
            let same = within.iter().copied().filter(|at| name_at(*at) == Some(name));
            self.level(walk, &same.collect::<Vec<_>>(), depth + 1, values)
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::delta::stats;

    #[test]
    fn the_columns_that_are_asked_for_say_what_they_say_when_all_are_read() {
        let number = |name: &str| Field::new(name, DataType::Int64, true);
        let inner = DataType::Struct(vec![number("x"), number("y\"z")].into());
        let columns = [
            number("a"),
            Field::new(
                "s",
                DataType::Struct(vec![number("a"), Field::new("t", inner, true)].into()),
                true,
            ),
            Field::new("text", DataType::Utf8, true),
            number("last"),
        ];
        let columns: Vec<&Field> = columns.iter().collect();
        let names = ["a", "s.a", "s.t.x", "s.t.y\"z", "text", "last"];
        let mut rng = StdRng::seed_from_u64(3);
        let mut told = Told::default();
        let mut told_of = 0;
        for round in 0..3000 {
            let value = |rng: &mut StdRng| match rng.random_range(0..9) {
                0 => "null".to_owned(),
                1 => r#"{"a": [1, "}"], "x": {}}"#.to_owned(),
                2 => "[[], {}]".to_owned(),
                _ => rng.random_range(-9..9).to_string(),
            };
            let kind = |rng: &mut StdRng| {
                let (a, b, x, y, last) = (value(rng), value(rng), value(rng), value(rng), value(rng));
                format!(
                    r#"{{"a":{a},"s":{{"t":{{"x" : {x},"y\"z":{y},"w":1}},"a":{b}}},"text":"\"}}\u00e4","last":{last}}}"#
                )
            };
            let (min, max, nulls) = (kind(&mut rng), kind(&mut rng), kind(&mut rng));
            let mut text = format!(
                r#"{{"numRecords":{round},"minValues":{min},"tightBounds":true,"maxValues":{max}, "nullCount":{nulls}}}"#
            );
            if rng.random_bool(0.1) {
                text.truncate(rng.random_range(0..text.len()));
            }
            let asked = names.into_iter().filter(|_| rng.random_bool(0.5)).collect();
            let named = Named::new(&asked, &columns);
            assert_eq!(named.leaves.len(), asked.len());
            named.read(Some(&text), &mut told);
            let all = stats::parse(Some(&text), &columns, &|_| true);
            assert_eq!(told.rows, all.rows, "{text}");
            for (at, leaf) in named.leaves.iter().enumerate() {
                let known = all.columns.get(&leaf.name).cloned().unwrap_or_default();
                let bound = |upper: bool| {
                    let value = &told.values[usize::from(upper)][at];
                    stats::bound(value, &leaf.data_type, upper).map(|(value, _)| value)
                };
                assert_eq!(
                    (bound(false), bound(true)),
                    (known.min, known.max),
                    "{} of {text}",
                    leaf.name
                );
                assert_eq!(
                    told.values[2][at].as_u64(),
                    known.nulls,
                    "{} of {text}",
                    leaf.name
                );
                told_of += 1;
            }
        }
        assert!(told_of > 5000);
    }
}
