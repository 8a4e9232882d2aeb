//! The columns by which rows of two versions can be compared.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;

use crate::model::schema::same_column;

/// Which columns of both versions rows are compared by. A column is the same by its field id, else by its name in data
/// files, whatever it is called in either version; of a struct, the members that both versions have count.
#[derive(Debug, Clone)]
pub struct Compared {
    /// What the second version calls them, in its order.
    pub columns: Vec<String>,
    /// Columns, and members of structs, that only one version has or that have types which cannot be compared.
    pub left_out: Vec<String>,
    pub(super) pairs: Vec<Pair>,
}

/// One column as each version is read for the comparison: under its name there, and in the same type on both sides
/// but for the names of struct members.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) from: FieldRef,
    pub(super) to: FieldRef,
}

impl Compared {
    pub(super) fn of(from: &Schema, to: &Schema) -> Self {
        let mut left_out = Vec::new();
        let pairs = members(from.fields(), to.fields(), "", &mut left_out);
        Self {
            columns: pairs.iter().map(|pair| pair.to.name().clone()).collect(),
            left_out,
            pairs,
        }
    }
}

fn members(from: &Fields, to: &Fields, parent: &str, left_out: &mut Vec<String>) -> Vec<Pair> {
    let path = |field: &Field| format!("{parent}{}", field.name());
    let mut pairs = Vec::new();
    for new in to {
        let old = from.iter().find(|old| same_column(old, new));
        match old.and_then(|old| alike(old, new, &path(new), left_out)) {
            Some(pair) => pairs.push(pair),
            None => left_out.push(path(new)),
        }
    }
    let gone = from
        .iter()
        .filter(|old| !to.iter().any(|new| same_column(old, new)));
    left_out.extend(gone.map(|field| path(field)));
    pairs
}

/// The field in a type that holds the values of both; `None` if there is none.
fn alike(old: &Field, new: &Field, path: &str, left_out: &mut Vec<String>) -> Option<Pair> {
    let made = |old_type, new_type| Pair {
        from: Arc::new(old.clone().with_data_type(old_type)),
        // What is NULL in one version may be shown among the rows of both.
        to: Arc::new(
            new.clone()
                .with_data_type(new_type)
                .with_nullable(old.is_nullable() || new.is_nullable()),
        ),
    };
    let mut element = |old: &FieldRef, new: &FieldRef| alike(old, new, &format!("{path}.element"), left_out);
    match (old.data_type(), new.data_type()) {
        (DataType::Struct(old_members), DataType::Struct(new_members)) => {
            let pairs = members(old_members, new_members, &format!("{path}."), left_out);
            if pairs.is_empty() {
                return None;
            }
            let (old, new): (Vec<FieldRef>, Vec<FieldRef>) =
                pairs.into_iter().map(|pair| (pair.from, pair.to)).unzip();
            Some(made(DataType::Struct(old.into()), DataType::Struct(new.into())))
        }
        (DataType::List(old), DataType::List(new)) => {
            let pair = element(old, new)?;
            Some(made(DataType::List(pair.from), DataType::List(pair.to)))
        }
        (DataType::LargeList(old), DataType::LargeList(new)) => {
            let pair = element(old, new)?;
            Some(made(DataType::LargeList(pair.from), DataType::LargeList(pair.to)))
        }
        (DataType::FixedSizeList(old, length), DataType::FixedSizeList(new, same)) if length == same => {
            let pair = element(old, new)?;
            Some(made(
                DataType::FixedSizeList(pair.from, *length),
                DataType::FixedSizeList(pair.to, *length),
            ))
        }
        (DataType::Map(old_entries, old_sorted), DataType::Map(new_entries, new_sorted)) => {
            let (DataType::Struct(old_pair), DataType::Struct(new_pair)) =
                (old_entries.data_type(), new_entries.data_type())
            else {
                return None;
            };
            let ([old_key, old_value], [new_key, new_value]) = (old_pair.as_ref(), new_pair.as_ref()) else {
                return None;
            };
            let key = alike(old_key, new_key, &format!("{path}.key"), left_out)?;
            let value = alike(old_value, new_value, &format!("{path}.value"), left_out)?;
            let entries = |entries: &FieldRef, key, value| {
                let pair = DataType::Struct(vec![key, value].into());
                Arc::new(entries.as_ref().clone().with_data_type(pair))
            };
            Some(made(
                DataType::Map(entries(old_entries, key.from, value.from), *old_sorted),
                DataType::Map(entries(new_entries, key.to, value.to), *new_sorted),
            ))
        }
        (old, new) if old == new => Some(made(old.clone(), new.clone())),
        (old, new) => {
            let both = wider(old, new)?;
            Some(made(both.clone(), both))
        }
    }
}

/// The type that holds the values of both without loss, where one was widened to the other.
fn wider(one: &DataType, other: &DataType) -> Option<DataType> {
    let widened = match (one, other) {
        (DataType::Date32, DataType::Timestamp(..)) | (DataType::Timestamp(..), DataType::Date32) => true,
        (one, other) => one.is_numeric() && other.is_numeric(),
    };
    widened.then(|| comparison_coercion(one, other)).flatten()
}
