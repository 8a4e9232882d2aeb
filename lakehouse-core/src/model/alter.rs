//! A table redefined: its columns changed one by one, and what else its metadata says.
//!
//! Columns keep their identity through every change: a renamed field carries the name that it had
//! ([`ORIGIN`]), a new one says that it is new, so that no format confuses a column with another that had
//! its name before.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};

use super::evolve::{find, is_reserved};
use super::schema::{COMMENT, DEFAULT_EXPRESSION, INITIAL_DEFAULT, ORIGIN, WRITE_DEFAULT};
use super::{ColumnPath, PartitionField};
use crate::error::{Error, Result};

/// One change of a table's columns.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnChange {
    /// A new column behind the others, or a new field of the struct `parent`. Nullable: rows that are there have
    /// no value for it.
    Add {
        /// The struct that it becomes a field of; `None` for the table itself.
        parent: Option<ColumnPath>,
        /// Its name and type; a comment under the key [`COMMENT`].
        field: Field,
    },
    /// The column and its values are gone from this version on.
    Drop(ColumnPath),
    /// The same column under another name.
    Rename {
        /// Which.
        column: ColumnPath,
        /// Its new name, without the names of the structs around it.
        to: String,
    },
    /// The same column in another place among its siblings.
    Move {
        /// Which.
        column: ColumnPath,
        /// Where to.
        to: Place,
    },
    /// A wider type, to which readers can promote the values that are there.
    Type {
        /// Which column.
        column: ColumnPath,
        /// Its new type.
        data_type: DataType,
    },
    /// Whether it may be NULL.
    Nullable {
        /// Which column.
        column: ColumnPath,
        /// It may.
        nullable: bool,
    },
    /// What is noted about it.
    Comment {
        /// Which column.
        column: ColumnPath,
        /// The note; `None` takes it away.
        comment: Option<String>,
    },
    /// What it is in new rows that do not say; a column that is new with this change has it in all rows.
    Default {
        /// Which column of the table itself.
        column: ColumnPath,
        /// The value as [`default_of`](super::schema::default_of) reads it; `None` takes it away.
        value: Option<String>,
    },
}

/// A place among the fields of one struct or table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    First,
    /// Behind all others.
    Last,
    /// Right before this one.
    Before(String),
    /// Right behind this one.
    After(String),
}

impl FromStr for Place {
    type Err = Error;

    /// `first`, `last`, `before other`, `after other`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("there is no place {text:?} for a column"), "")
                .with_hint("write first, last, after COLUMN or before COLUMN")
        };
        let other = |name: &str| -> Result<String> {
            // Siblings are in the same struct, which may be named with them.
            let path: ColumnPath = name.parse()?;
            Ok(path.split().1.to_owned())
        };
        match text.trim().split_once(char::is_whitespace) {
            None if text.trim() == "first" => Ok(Self::First),
            None if text.trim() == "last" => Ok(Self::Last),
            Some(("before", name)) => other(name).map(Self::Before),
            Some(("after", name)) => other(name).map(Self::After),
            _ => Err(wrong()),
        }
    }
}

/// What a commit makes of a table's definition, beside its columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Redefinition {
    /// How new files are partitioned; files that are there keep their partitioning.
    pub partitioning: Option<Vec<PartitionField>>,
    /// The order that rows of a file are meant to have.
    pub sort_order: Option<Vec<SortColumn>>,
    /// The columns that tell rows apart (Iceberg's identifier fields).
    pub identifier: Option<Vec<String>>,
    /// Table properties: a new value, or `None` for those that go.
    pub properties: BTreeMap<String, Option<String>>,
    /// The format's own version number.
    pub format_version: Option<u8>,
    /// Features of the table that the new columns need may be switched on; readers that lack them cannot read it then.
    pub upgrade: bool,
}

impl Redefinition {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One column of a sort order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortColumn {
    /// The column, `a.b` for a field of a struct.
    pub column: String,
    /// Largest first.
    pub descending: bool,
    /// NULLs before all others.
    pub nulls_first: bool,
}

impl fmt::Display for SortColumn {
    /// As SQL has it: `ts desc nulls last`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { "desc" } else { "asc" };
        let nulls = if self.nulls_first { "first" } else { "last" };
        write!(f, "{} {direction} nulls {nulls}", self.column)
    }
}

/// The columns of a table after these changes, one after the other. Ids stay with their columns; new ones have none.
///
/// # Errors
/// [`Error::Invalid`] for a column that is not there or a name that is taken or cannot be one.
pub fn alter(schema: &Schema, changes: &[ColumnChange]) -> Result<Schema> {
    let mut fields = schema.fields().clone();
    for change in changes {
        fields = match change {
            ColumnChange::Add { parent: None, field } => with_new(&fields, field, None)?,
            ColumnChange::Add {
                parent: Some(parent),
                field,
            } => at(&fields, parent, &mut |siblings, at| {
                siblings[at] = with_member(&siblings[at], field, parent)?;
                Ok(())
            })?,
            ColumnChange::Drop(column) => at(&fields, column, &mut |siblings, at| {
                if siblings.len() == 1 {
                    return Err(refused(column, "cannot be dropped: it is the last one there")
                        .with_hint("add another column first"));
                }
                siblings.remove(at);
                Ok(())
            })?,
            ColumnChange::Rename { column, to } => at(&fields, column, &mut |siblings, at| {
                check_name(to, column.parts().len() == 1)?;
                if let Some(other) = taken(siblings, to, Some(at)) {
                    return Err(refused(
                        column,
                        &format!("cannot be renamed to {to}: there is a column {other}"),
                    ));
                }
                let field = &siblings[at];
                let mut metadata = field.metadata().clone();
                metadata
                    .entry(ORIGIN.to_owned())
                    .or_insert_with(|| field.name().clone());
                siblings[at] = Arc::new(field.as_ref().clone().with_name(to).with_metadata(metadata));
                Ok(())
            })?,
            ColumnChange::Move { column, to } => at(&fields, column, &mut |siblings, at| {
                moved(siblings, at, to, column)
            })?,
            ColumnChange::Type { column, data_type } => at(&fields, column, &mut |siblings, at| {
                let field = &siblings[at];
                if field.data_type().is_nested() || data_type.is_nested() {
                    return Err(refused(
                        column,
                        "cannot get another type as a whole: it is nested or would be",
                    )
                    .with_hint("change its fields one by one, or add a new column"));
                }
                siblings[at] = Arc::new(field.as_ref().clone().with_data_type(data_type.clone()));
                Ok(())
            })?,
            ColumnChange::Nullable { column, nullable } => at(&fields, column, &mut |siblings, at| {
                siblings[at] = Arc::new(siblings[at].as_ref().clone().with_nullable(*nullable));
                Ok(())
            })?,
            ColumnChange::Comment { column, comment } => at(&fields, column, &mut |siblings, at| {
                let field = siblings[at].as_ref().clone();
                let mut metadata = field.metadata().clone();
                match comment {
                    Some(text) => metadata.insert(COMMENT.to_owned(), text.clone()),
                    None => metadata.remove(COMMENT),
                };
                siblings[at] = Arc::new(field.with_metadata(metadata));
                Ok(())
            })?,
            ColumnChange::Default { column, value } => at(&fields, column, &mut |siblings, at| {
                let field = siblings[at].as_ref().clone();
                let mut metadata = field.metadata().clone();
                let is_new = metadata.get(ORIGIN).is_some_and(String::is_empty);
                metadata.remove(DEFAULT_EXPRESSION);
                match value {
                    Some(text) => {
                        metadata.insert(WRITE_DEFAULT.to_owned(), text.clone());
                        if is_new {
                            metadata.insert(INITIAL_DEFAULT.to_owned(), text.clone());
                        }
                    }
                    None => {
                        metadata.remove(WRITE_DEFAULT);
                    }
                }
                siblings[at] = Arc::new(field.with_metadata(metadata));
                Ok(())
            })?,
        };
    }
    Ok(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// What is done to one field among its siblings.
type Edit<'a> = &'a mut dyn FnMut(&mut Vec<FieldRef>, usize) -> Result<()>;

/// The fields with that one edited which `column` leads to.
fn at(fields: &Fields, column: &ColumnPath, edit: Edit<'_>) -> Result<Fields> {
    among(fields, column.parts(), column, edit)
}

fn among(fields: &Fields, path: &[String], column: &ColumnPath, edit: Edit<'_>) -> Result<Fields> {
    let mut siblings = fields.to_vec();
    let Some((name, rest)) = path.split_first() else {
        return Err(refused(column, "has no name"));
    };
    let at = find(name, &siblings).ok_or_else(|| {
        let known: Vec<&str> = siblings.iter().map(|field| field.name().as_str()).collect();
        Error::invalid(format!("there is no column {column}"), "the table's columns")
            .with_hint(format!("those there are {}", known.join(", ")))
    })?;
    if rest.is_empty() {
        edit(&mut siblings, at)?;
    } else {
        siblings[at] = inside(&siblings[at], rest, column, edit)?;
    }
    Ok(siblings.into())
}

fn inside(field: &FieldRef, path: &[String], column: &ColumnPath, edit: Edit<'_>) -> Result<FieldRef> {
    let data_type = match field.data_type() {
        DataType::Struct(members) => DataType::Struct(among(members, path, column, edit)?),
        DataType::List(element) if path[0] == "element" => DataType::List(only(element, path, column, edit)?),
        DataType::Map(entries, sorted) => {
            let (DataType::Struct(pair), "value") = (entries.data_type(), path[0].as_str()) else {
                return Err(refused(
                    column,
                    "cannot be changed: keys of maps stay as they are",
                ));
            };
            let [key, value] = pair.as_ref() else {
                return Err(refused(column, "is inside a map of another shape"));
            };
            let pair = vec![Arc::clone(key), only(value, path, column, edit)?];
            let pair = DataType::Struct(pair.into());
            DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(pair)), *sorted)
        }
        other => {
            return Err(
                refused(column, &format!("is not there: {} is {other}", field.name()))
                    .with_hint("inside lists write column.element, inside maps column.value"),
            );
        }
    };
    Ok(Arc::new(field.as_ref().clone().with_data_type(data_type)))
}

/// The elements of a list or the values of a map: they have a type and may be NULL, and that is all.
fn only(field: &FieldRef, path: &[String], column: &ColumnPath, edit: Edit<'_>) -> Result<FieldRef> {
    if path.len() > 1 {
        return inside(field, &path[1..], column, edit);
    }
    let mut one = vec![Arc::clone(field)];
    edit(&mut one, 0)?;
    match one.as_slice() {
        [edited] if edited.metadata().contains_key(WRITE_DEFAULT) => Err(refused(
            column,
            "cannot have a default: elements of lists and values of maps have none",
        )),
        [edited] if edited.name() == field.name() => Ok(Arc::clone(edited)),
        _ => Err(refused(column, "has no name of its own that could change")),
    }
}

fn with_member(parent: &FieldRef, field: &Field, path: &ColumnPath) -> Result<FieldRef> {
    let DataType::Struct(members) = parent.data_type() else {
        return Err(refused(
            path,
            &format!("is {}: it can have no field {}", parent.data_type(), field.name()),
        )
        .with_hint("fields are added to structs; of a list of structs to column.element"));
    };
    let members = with_new(members, field, Some(path))?;
    Ok(Arc::new(
        parent.as_ref().clone().with_data_type(DataType::Struct(members)),
    ))
}

fn with_new(fields: &Fields, field: &Field, parent: Option<&ColumnPath>) -> Result<Fields> {
    check_name(field.name(), parent.is_none())?;
    let mut siblings = fields.to_vec();
    if let Some(other) = taken(&siblings, field.name(), None) {
        return Err(Error::invalid(
            format!(
                "column {} cannot be added: there is a column {other}",
                field.name()
            ),
            "the table's columns",
        ));
    }
    if !field.is_nullable() {
        return Err(Error::invalid(
            format!(
                "column {} cannot be added as not null: rows that are there have no value for it",
                field.name()
            ),
            "the table's columns",
        )
        .with_hint("add it nullable, fill it, then require it"));
    }
    let comment = field.metadata().get_key_value(COMMENT);
    let mut metadata: HashMap<String, String> =
        comment.map(|(k, v)| (k.clone(), v.clone())).into_iter().collect();
    metadata.insert(ORIGIN.to_owned(), String::new());
    siblings.push(Arc::new(field.clone().with_metadata(metadata)));
    Ok(siblings.into())
}

fn moved(siblings: &mut Vec<FieldRef>, at: usize, to: &Place, column: &ColumnPath) -> Result<()> {
    let beside = |name: &str, siblings: &[FieldRef]| {
        find(name, siblings).ok_or_else(|| {
            refused(
                column,
                &format!("cannot be moved: there is no column {name} beside it"),
            )
        })
    };
    let field = siblings.remove(at);
    let to = match to {
        Place::First => 0,
        Place::Last => siblings.len(),
        Place::Before(name) => beside(name, siblings)?,
        Place::After(name) => beside(name, siblings)? + 1,
    };
    siblings.insert(to, field);
    Ok(())
}

/// The field that has this name already, in whatever case.
fn taken(siblings: &[FieldRef], name: &str, but: Option<usize>) -> Option<String> {
    let lower = name.to_lowercase();
    let mut others = siblings.iter().enumerate().filter(|(at, _)| Some(*at) != but);
    others
        .find(|(_, field)| field.name().to_lowercase() == lower)
        .map(|(_, field)| field.name().clone())
}

fn check_name(name: &str, top: bool) -> Result<()> {
    let why = match name {
        "" => "a column has no name".to_owned(),
        name if top && is_reserved(name) => format!("the name {name} is reserved"),
        _ => return Ok(()),
    };
    Err(Error::invalid(why, "the table's columns").with_hint("choose another name"))
}

fn refused(column: &ColumnPath, why: &str) -> Error {
    Error::invalid(format!("column {column} {why}"), "the table's columns")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::FIELD_ID;

    fn field(id: i32, name: &str, data_type: DataType) -> Field {
        Field::new(name, data_type, true)
            .with_metadata(HashMap::from([(FIELD_ID.to_owned(), id.to_string())]))
    }

    fn table() -> Schema {
        let stop =
            DataType::Struct(vec![field(5, "at", DataType::Int32), field(6, "name", DataType::Utf8)].into());
        Schema::new(vec![
            field(1, "id", DataType::Int64),
            field(2, "fare", DataType::Float32),
            field(3, "stops", DataType::List(Arc::new(field(4, "element", stop)))),
        ])
    }

    fn path(text: &str) -> ColumnPath {
        text.parse().unwrap()
    }

    fn add(parent: Option<&str>, name: &str) -> ColumnChange {
        ColumnChange::Add {
            parent: parent.map(path),
            field: Field::new(name, DataType::Utf8, true),
        }
    }

    fn rename(column: &str, to: &str) -> ColumnChange {
        ColumnChange::Rename {
            column: path(column),
            to: to.into(),
        }
    }

    fn names(fields: &Fields) -> Vec<String> {
        let shown = fields.iter().map(|field| {
            let origin = field
                .metadata()
                .get(ORIGIN)
                .map(|origin| format!("<{origin}"))
                .unwrap_or_default();
            format!("{}{origin}", field.name())
        });
        shown.collect()
    }

    #[test]
    fn a_name_that_is_free_again_belongs_to_a_new_column() {
        let changes = [
            rename("id", "key"),
            ColumnChange::Drop(path("fare")),
            add(None, "id"),
            add(None, "fare"),
        ];
        let altered = alter(&table(), &changes).unwrap();
        assert_eq!(names(altered.fields()), ["key<id", "stops", "id<", "fare<"]);
        assert_eq!(altered.field(0).metadata()[FIELD_ID], "1");
        assert!(!altered.field(3).metadata().contains_key(FIELD_ID));
    }

    #[test]
    fn columns_move_and_fields_inside_lists_of_structs_change_where_they_are() {
        let changes = [
            ColumnChange::Move {
                column: path("stops"),
                to: Place::First,
            },
            ColumnChange::Move {
                column: path("ID"),
                to: Place::After("fare".into()),
            },
            rename("stops.element.name", "label"),
            add(Some("stops.element"), "zone"),
            ColumnChange::Move {
                column: path("stops.element.zone"),
                to: Place::Before("at".into()),
            },
        ];
        let altered = alter(&table(), &changes).unwrap();
        assert_eq!(names(altered.fields()), ["stops", "fare", "id"]);
        let DataType::List(element) = altered.field(0).data_type() else {
            panic!()
        };
        let DataType::Struct(members) = element.data_type() else {
            panic!()
        };
        assert_eq!(names(members), ["zone<", "at", "label<name"]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (change, expected) in [
            (rename("nosuch", "x"), "nosuch"),
            (rename("id", "FARE"), "there is a column fare"),
            (rename("id", "_file"), "reserved"),
            (rename("stops.element", "x"), "no name of its own"),
            (add(None, "Id"), "there is a column id"),
            (add(Some("fare"), "x"), "can have no field"),
            (ColumnChange::Drop(path("id.x")), "is not there"),
            (
                ColumnChange::Move {
                    column: path("id"),
                    to: Place::After("zz".into()),
                },
                "no column zz beside it",
            ),
        ] {
            let error = alter(&table(), std::slice::from_ref(&change)).unwrap_err();
            assert!(error.to_string().contains(expected), "{change:?}: {error}");
        }
        let one = Schema::new(vec![field(1, "id", DataType::Int64)]);
        assert!(alter(&one, &[ColumnChange::Drop(path("id"))]).is_err());
    }
}
