//! The order in which compaction writes rows, so that readers skip files.
//!
//! ```text
//! rank     values of a column as numbers that halve the rows bit by bit
//! curve    numbers of several columns as a position on a curve
//! sort     the rows of some files in order: what they are sorted by, what is known of it before
//! sorter   rows in the order of a key, within some memory
//! ranges   rows on disk, spread over ranges of their key
//! choose   which files are not in order yet
//! split    what is more than may be rewritten together, in several groups
//! figures  how far files overlap
//! ```

mod choose;
mod curve;
mod figures;
mod ranges;
mod rank;
mod sort;
mod sorter;
mod split;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::Expr;

use super::work::Work;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{DataFile, FileOrder, Snapshot, SortColumn, Transform};
pub(super) use choose::{Due, Judge, choose};
use curve::{Curve, MOST_COLUMNS};
pub use figures::{Ordered, Overlaps, overlaps};
pub(super) use sort::move_sorted;

/// How rows lie in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clustering {
    /// In the order of the first column, rows that are equal there in that of the second, and so on: best for filters on
    /// the first.
    Sort(Vec<SortColumn>),
    /// Along the Z-order curve through the columns: filters on any of them skip files.
    ZOrder(Vec<String>),
    /// Along the Hilbert curve through the columns: the same with files that are more compact.
    Hilbert(Vec<String>),
}

/// In which order compaction writes rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// The table's own: its sort order, or the Hilbert curve through the columns that it is clustered by. Where it has
    /// neither, rows stay as they lie.
    #[default]
    OfTable,
    /// Rows stay as they lie, whatever the table says.
    AsItIs,
    /// This one.
    By(Clustering),
}

impl fmt::Display for Clustering {
    /// As the command line has it: `sort-by a asc nulls first`, `zorder a, b`, `hilbert a, b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, columns) = match self {
            Self::Sort(columns) => ("sort-by", columns.iter().map(ToString::to_string).collect()),
            Self::ZOrder(columns) => ("zorder", columns.clone()),
            Self::Hilbert(columns) => ("hilbert", columns.clone()),
        };
        write!(f, "{word} {}", columns.join(", "))
    }
}

impl Clustering {
    /// The columns, in their order.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Sort(columns) => columns.iter().map(|column| column.column.as_str()).collect(),
            Self::ZOrder(columns) | Self::Hilbert(columns) => columns.iter().map(String::as_str).collect(),
        }
    }
}

/// A column that rows are put in order by.
#[derive(Debug, Clone)]
struct Key {
    column: SortColumn,
    data_type: DataType,
    expr: Expr,
}

/// An order of rows that this version of a table can have.
#[derive(Debug, Clone)]
pub(super) struct Order {
    keys: Vec<Key>,
    /// `None` for plain sorting.
    curve: Option<Curve>,
    /// It is the table's own.
    of_table: bool,
    /// What files that have it say of it.
    pub(super) of_files: Arc<FileOrder>,
}

impl Order {
    /// The order that is asked for; `None` if rows stay as they lie.
    ///
    /// # Errors
    /// [`Error::Invalid`] for columns that the table does not have or that have no order.
    pub(super) async fn of(work: &Work, order: &RowOrder) -> Result<Option<Self>> {
        match order {
            RowOrder::AsItIs => Ok(None),
            RowOrder::By(clustering) => Self::new(&work.snapshot, clustering, false),
            RowOrder::OfTable => match of_table(&work.handle, &work.snapshot).await? {
                Some(clustering) => Self::new(&work.snapshot, &clustering, true),
                None => Ok(None),
            },
        }
    }

    fn new(snapshot: &Snapshot, clustering: &Clustering, of_table: bool) -> Result<Option<Self>> {
        let all_ascending = |columns: &[String]| columns.iter().map(|column| ascending(column)).collect();
        let (mut columns, curve): (Vec<_>, _) = match clustering {
            Clustering::Sort(columns) => (columns.clone(), None),
            Clustering::ZOrder(columns) => (all_ascending(columns), Some(Curve::ZOrder)),
            Clustering::Hilbert(columns) => (all_ascending(columns), Some(Curve::Hilbert)),
        };
        let wrong = |what: String| Error::invalid(what, clustering.to_string());
        if columns.is_empty() {
            return Err(wrong("no column is named".to_owned()).with_hint("name columns of the table"));
        }
        if curve.is_some() && columns.len() > MOST_COLUMNS {
            let what = format!("{} columns are too many for a curve", columns.len());
            return Err(
                wrong(what).with_hint(format!("name at most {MOST_COLUMNS}, those that filters name"))
            );
        }
        let mut seen = HashSet::new();
        if let Some(twice) = columns.iter().find(|column| !seen.insert(column.column.clone())) {
            return Err(wrong(format!("column {} is named twice", twice.column)));
        }
        let mut keys = columns
            .iter()
            .map(|column| {
                key(&snapshot.schema, column)
                    .map_err(|what| wrong(what).with_hint(format!("columns are {}", names(&snapshot.schema))))
            })
            .collect::<Result<Vec<_>>>()?;
        if curve.is_some() {
            // In a partition they have one value; a curve would go through nothing.
            let fields = snapshot.partition_fields();
            let is_constant = |column: &SortColumn| {
                fields
                    .iter()
                    .any(|field| field.transform == Transform::Identity && field.source == column.column)
            };
            keys.retain(|key| !is_constant(&key.column));
            columns.retain(|column| !is_constant(column));
            if keys.is_empty() {
                return match of_table {
                    true => Ok(None),
                    false => Err(wrong("the table is partitioned by these columns".to_owned())
                        .with_hint("name columns whose values differ inside of a partition")),
                };
            }
        }
        // A curve through one dimension is a line.
        let curve = curve.filter(|_| keys.len() > 1);
        let name = match curve {
            None => Clustering::Sort(columns.clone()).to_string(),
            Some(_) => clustering.to_string(),
        };
        let of_files = FileOrder {
            name,
            sorted_by: if curve.is_none() { columns } else { Vec::new() },
        };
        Ok(Some(Self {
            keys,
            curve,
            of_table,
            of_files: Arc::new(of_files),
        }))
    }

    /// How far files of a version overlap in the columns.
    pub(super) fn overlaps(&self, snapshot: &Snapshot, files: &[DataFile]) -> Overlaps {
        let columns: Vec<&str> = self.keys.iter().map(|key| key.column.column.as_str()).collect();
        Overlaps::of(snapshot, files, &columns)
    }

    /// The columns, and whether NULLs are before the smallest value of each.
    fn ends(&self) -> Vec<(&str, bool)> {
        let end = |key: &Key| key.column.nulls_first != key.column.descending;
        self.keys
            .iter()
            .map(|key| (key.column.column.as_str(), end(key)))
            .collect()
    }
}

/// The order that a table says its rows shall have: its sort order, or the Hilbert curve through the columns that it is
/// clustered by, as Spark clusters them.
///
/// # Errors
/// Whatever the format meets when it looks for it.
pub(crate) async fn of_table(handle: &Handle, snapshot: &Snapshot) -> Result<Option<Clustering>> {
    if !snapshot.sort_order.is_empty() {
        return Ok(Some(Clustering::Sort(snapshot.sort_order.clone())));
    }
    let columns = handle.format.clustering(snapshot).await?;
    Ok((!columns.is_empty()).then_some(Clustering::Hilbert(columns)))
}

fn ascending(column: &str) -> SortColumn {
    SortColumn {
        column: column.to_owned(),
        descending: false,
        nulls_first: true,
    }
}

/// The column of a schema that a key is. A column whose own name has a dot is preferred over a field inside a struct.
///
/// # Errors
/// What is wrong with it.
fn key(schema: &Schema, column: &SortColumn) -> Result<Key, String> {
    let missing = || format!("there is no column {}", column.column);
    let fields = schema.fields();
    let mut rest = column.column.as_str();
    let mut found: Option<(Expr, &Field)> = fields
        .find(rest)
        .map(|(_, field)| (Expr::Column(Column::new_unqualified(rest)), field.as_ref()));
    if found.is_none() {
        let (outer, inner) = rest.split_once('.').ok_or_else(missing)?;
        let (_, field) = fields.find(outer).ok_or_else(missing)?;
        found = Some((Expr::Column(Column::new_unqualified(outer)), field.as_ref()));
        rest = inner;
        while let Some((expr, field)) = &found {
            let DataType::Struct(members) = field.data_type() else {
                return Err(missing());
            };
            if let Some((_, member)) = members.find(rest) {
                found = Some((get_field(expr.clone(), rest), member.as_ref()));
                break;
            }
            let (outer, inner) = rest.split_once('.').ok_or_else(missing)?;
            let (_, member) = members.find(outer).ok_or_else(missing)?;
            found = Some((get_field(expr.clone(), outer), member.as_ref()));
            rest = inner;
        }
    }
    let (expr, field) = found.ok_or_else(missing)?;
    if field.data_type().is_nested() {
        return Err(format!(
            "column {} is a {}, of which no value is before another",
            column.column,
            field.data_type()
        ));
    }
    Ok(Key {
        column: column.clone(),
        data_type: field.data_type().clone(),
        expr,
    })
}

fn names(schema: &Schema) -> String {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    names.join(", ")
}
