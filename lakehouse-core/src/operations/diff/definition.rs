//! What is different in the definitions of two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};

use crate::error::Result;
use crate::format::Handle;
use crate::model::schema::{COMMENT, same_column};
use crate::model::{ColumnPath, PartitionField, Snapshot, SortColumn, Version};

/// A value in both versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered<T> {
    /// In the first.
    pub from: T,
    /// In the second.
    pub to: T,
}

impl<T: PartialEq> Altered<T> {
    fn of(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

/// What is different in a table's definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinitionDifference {
    /// Columns and fields inside of them, in the order of the second version, then those that it lacks.
    pub columns: Vec<ColumnDifference>,
    /// Terms of the partitioning: `day(ts)`.
    pub partitioning: Option<Altered<Vec<String>>>,
    /// The order that rows of a file are meant to have.
    pub sort_order: Option<Altered<Vec<String>>>,
    /// The columns that tell rows apart.
    pub identifier: Option<Altered<Vec<String>>>,
    /// What readers and writers need to understand: the format version, table features.
    pub features: Option<Altered<Vec<String>>>,
    /// Properties by key; `None` where a version does not have it.
    pub properties: BTreeMap<String, Altered<Option<String>>>,
    /// The versions of which partitioning, sort order, features and properties are not known any more, since the metadata
    /// of then are gone. Where there is one, none of these is told, which does not say that they are the same.
    pub unknown: Vec<Version>,
}

/// What is different about one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDifference {
    /// Its path, as the second version calls it; a dropped one as the first does: `address.zip`.
    pub column: String,
    /// What is different.
    pub difference: Difference,
}

/// What can be different about a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the second version has it, with this type.
    Added(DataType),
    /// Only the first version has it.
    Dropped(DataType),
    /// The first version calls it so.
    Renamed(String),
    /// It stands elsewhere among its siblings.
    Moved,
    /// It has another type.
    Type(Box<Altered<DataType>>),
    /// Whether it may be NULL, in the second version.
    Nullable(bool),
    /// What is noted about it.
    Comment(Altered<Option<String>>),
}

impl Difference {
    /// The word for it: `added`, `renamed` ...
    pub fn name(&self) -> &'static str {
        match self {
            Self::Added(_) => "added",
            Self::Dropped(_) => "dropped",
            Self::Renamed(_) => "renamed",
            Self::Moved => "moved",
            Self::Type(_) => "type",
            Self::Nullable(_) => "nullable",
            Self::Comment(_) => "comment",
        }
    }
}

impl fmt::Display for ColumnDifference {
    /// In words: `added tip Float64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match &self.difference {
            Difference::Added(data_type) => write!(f, "added {column} {data_type}"),
            Difference::Dropped(data_type) => write!(f, "dropped {column} {data_type}"),
            Difference::Renamed(from) => write!(f, "renamed {from} to {column}"),
            Difference::Moved => write!(f, "moved {column}"),
            Difference::Type(both) => write!(f, "{column} was {}, is {}", both.from, both.to),
            Difference::Nullable(true) => write!(f, "{column} may be NULL"),
            Difference::Nullable(false) => write!(f, "{column} is required"),
            Difference::Comment(Altered { to: Some(text), .. }) => write!(f, "comment on {column}: {text}"),
            Difference::Comment(_) => write!(f, "no comment on {column}"),
        }
    }
}

impl DefinitionDifference {
    pub(super) async fn of(handle: &Handle, from: &Arc<Snapshot>, to: &Arc<Snapshot>) -> Result<Self> {
        let mut columns = Vec::new();
        compare(from.schema.fields(), to.schema.fields(), &[], &[], &mut columns);
        let mut difference = Self {
            columns,
            identifier: Altered::of(from.identifier.clone(), to.identifier.clone()),
            ..Self::default()
        };
        let (old, new) = (
            handle.format.as_committed(from).await?,
            handle.format.as_committed(to).await?,
        );
        match (&old, &new) {
            (Some(old), Some(new)) => difference.compare_tables(old, new),
            _ => {
                let each = [(from, &old), (to, &new)].into_iter();
                let unknown = each.filter(|(_, then)| then.is_none());
                difference.unknown = unknown.map(|(version, _)| version.version).collect();
            }
        }
        Ok(difference)
    }

    /// All but the columns and the identifier, which are a version's own in each format.
    fn compare_tables(&mut self, from: &Snapshot, to: &Snapshot) {
        let terms = |snapshot: &Snapshot| -> Vec<String> {
            let fields = snapshot.partition_fields().iter();
            fields.map(PartitionField::term).collect()
        };
        let order = |snapshot: &Snapshot| -> Vec<String> {
            snapshot.sort_order.iter().map(SortColumn::to_string).collect()
        };
        let keys: BTreeSet<&String> = from.properties.keys().chain(to.properties.keys()).collect();
        let property = |key: &String| {
            let both = Altered::of(from.properties.get(key).cloned(), to.properties.get(key).cloned());
            both.map(|both| (key.clone(), both))
        };
        self.partitioning = Altered::of(terms(from), terms(to));
        self.sort_order = Altered::of(order(from), order(to));
        self.features = Altered::of(from.features.clone(), to.features.clone());
        self.properties = keys.into_iter().filter_map(property).collect();
    }

    /// Whether the definition is the same, as far as it is known.
    pub fn is_empty(&self) -> bool {
        let known = Self {
            unknown: Vec::new(),
            ..self.clone()
        };
        known == Self::default()
    }

    /// What is different but for the columns, in words.
    pub fn others(&self) -> Vec<String> {
        let joined = |words: &[String], none: &str| match words {
            [] => none.to_owned(),
            words => words.join(", "),
        };
        let mut words = Vec::new();
        for (what, both) in [
            ("partitioned by", &self.partitioning),
            ("sorted by", &self.sort_order),
            ("identified by", &self.identifier),
            ("needs", &self.features),
        ] {
            if let Some(both) = both {
                words.push(format!(
                    "{what} {} (was {})",
                    joined(&both.to, "nothing"),
                    joined(&both.from, "nothing")
                ));
            }
        }
        for (key, both) in &self.properties {
            words.push(match (&both.from, &both.to) {
                (Some(old), Some(new)) => format!("property {key} = {new} (was {old})"),
                (None, Some(new)) => format!("property {key} = {new} (new)"),
                (_, None) => format!("property {key} is gone"),
            });
        }
        if !self.unknown.is_empty() {
            let versions: Vec<String> = self.unknown.iter().map(ToString::to_string).collect();
            words.push(format!(
                "partitioning, sort order, properties and format version of version {} are not known any more",
                versions.join(" and ")
            ));
        }
        words
    }
}

fn compare(
    from: &Fields,
    to: &Fields,
    old_parents: &[String],
    parents: &[String],
    found: &mut Vec<ColumnDifference>,
) {
    let place = |new: &Field| from.iter().position(|old| same_column(old, new));
    let places: Vec<Option<usize>> = to.iter().map(|new| place(new)).collect();
    let moved = moved(&places);
    for (at, (new, old)) in to.iter().zip(&places).enumerate() {
        let path = joined(parents, new.name());
        let mut note = |difference| {
            found.push(ColumnDifference {
                column: shown(&path),
                difference,
            });
        };
        let Some(old) = old.map(|old| &from[old]) else {
            note(Difference::Added(new.data_type().clone()));
            continue;
        };
        let old_path = joined(old_parents, old.name());
        if old.name() != new.name() {
            note(Difference::Renamed(shown(&old_path)));
        }
        if moved.contains(&at) {
            note(Difference::Moved);
        }
        if old.is_nullable() != new.is_nullable() {
            note(Difference::Nullable(new.is_nullable()));
        }
        let comment = |field: &Field| field.metadata().get(COMMENT).cloned();
        if let Some(both) = Altered::of(comment(old), comment(new)) {
            note(Difference::Comment(both));
        }
        inside((old, &old_path), (new, &path), found);
    }
    let gone = from
        .iter()
        .filter(|old| !to.iter().any(|new| same_column(old, new)));
    found.extend(gone.map(|old| ColumnDifference {
        column: shown(&joined(old_parents, old.name())),
        difference: Difference::Dropped(old.data_type().clone()),
    }));
}

/// What is different about the type of a column, or about the fields inside of it.
fn inside(
    (old, old_path): (&Field, &[String]),
    (new, path): (&Field, &[String]),
    found: &mut Vec<ColumnDifference>,
) {
    let mut items = |old: &Field, new: &Field, name: &str| {
        inside((old, &joined(old_path, name)), (new, &joined(path, name)), found);
    };
    match (old.data_type(), new.data_type()) {
        (DataType::Struct(old), DataType::Struct(new)) => compare(old, new, old_path, path, found),
        (DataType::List(old), DataType::List(new))
        | (DataType::LargeList(old), DataType::LargeList(new))
        | (DataType::FixedSizeList(old, _), DataType::FixedSizeList(new, _)) => items(old, new, "element"),
        (DataType::Map(old, _), DataType::Map(new, _)) => {
            if let (DataType::Struct(old), DataType::Struct(new)) = (old.data_type(), new.data_type()) {
                for ((old, new), name) in old.iter().zip(new).zip(["key", "value"]) {
                    items(old, new, name);
                }
            }
        }
        (old, new) if old != new => found.push(ColumnDifference {
            column: shown(path),
            difference: Difference::Type(Box::new(Altered {
                from: old.clone(),
                to: new.clone(),
            })),
        }),
        _ => {}
    }
}

/// The fewest that must have been moved to come from the first order to the second: all but a longest row of them
/// that still stand behind one another. `places` are those in the first order, `None` for new ones.
fn moved(places: &[Option<usize>]) -> BTreeSet<usize> {
    // The last of the best row of each length, and before each column the one that precedes it in its row.
    let mut ends: Vec<(usize, usize)> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; places.len()];
    for (at, place) in places.iter().enumerate() {
        let Some(place) = *place else { continue };
        let length = ends.partition_point(|(other, _)| *other < place);
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter].1);
        match ends.get_mut(length) {
            Some(end) => *end = (place, at),
            None => ends.push((place, at)),
        }
    }
    let known = places.iter().enumerate().filter(|(_, place)| place.is_some());
    let mut moved: BTreeSet<usize> = known.map(|(at, _)| at).collect();
    let mut stays = ends.last().map(|(_, at)| *at);
    while let Some(at) = stays {
        moved.remove(&at);
        stays = before[at];
    }
    moved
}

fn joined(parents: &[String], name: &str) -> Vec<String> {
    let names = parents.iter().map(String::as_str).chain([name]);
    names.map(str::to_owned).collect()
}

fn shown(path: &[String]) -> String {
    ColumnPath::new(path.to_vec()).map_or_else(|_| path.join("."), |path| path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_columns_as_possible_count_as_moved() {
        let moved = |places: &[Option<usize>]| moved(places).into_iter().collect::<Vec<_>>();
        assert!(moved(&[Some(0), Some(1), Some(2)]).is_empty());
        assert!(moved(&[None, Some(0), None, Some(3)]).is_empty());
        assert_eq!(moved(&[Some(3), Some(0), Some(1), Some(2)]), [0]);
        assert_eq!(moved(&[Some(1), Some(2), None, Some(0)]), [3]);
        assert_eq!(moved(&[Some(2), Some(1), Some(0)]).len(), 2);
    }
}
