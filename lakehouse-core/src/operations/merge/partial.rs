//! Structs of which the source has only some members.
//!
//! A column of the source stands for the column of the table, so a member that it lacks would be lost in every row that
//! is updated, as no column is that the source lacks. With [`SchemaMode::Merge`] rows keep what they have there; without
//! it the merge is refused. So Spark does it (SPARK-54621) and Delta (`UPDATE SET *` with schema evolution). Elements of lists
//! and maps have no counterpart among the stored ones: they are new, and get what new rows get.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, is_not_null, nullif};
use arrow::datatypes::{DataType, Fields, Schema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::super::SchemaMode;
use super::super::update::column;
use super::plan::{Effect, SOURCE, Step, TARGET};
use crate::error::{Error, Result};

/// The members of a struct, in the table's order.
type Parts = Vec<Part>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    /// The source has it.
    Given,
    /// It has a struct that lacks members.
    Some(Parts),
    /// It does not have it.
    Lacking,
}

/// Whether a source can lack members of these columns.
pub(super) fn has_members(table: &Schema) -> bool {
    fn inside(data_type: &DataType) -> bool {
        match data_type {
            DataType::Struct(_) => true,
            DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
                inside(inner.data_type())
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) => pair.iter().any(|field| inside(field.data_type())),
                _ => false,
            },
            _ => false,
        }
    }
    table.fields().iter().any(|field| inside(field.data_type()))
}

/// Lets rows that these clauses write keep what a source with the columns `given` lacks of them.
///
/// # Errors
/// [`Error::Invalid`] naming the members, unless columns may differ.
pub(super) fn keep(steps: &mut [Step], given: &Schema, table: &Schema, mode: SchemaMode) -> Result<()> {
    for step in steps {
        let Effect::Write(values) = &mut step.effect else {
            continue;
        };
        for (name, value) in values {
            let wanted = table.field_with_name(name)?.data_type();
            let Some((value, from)) = taken_whole(value) else {
                continue;
            };
            let Ok(field) = given.field_with_name(&from) else {
                continue;
            };
            let mut paths = Vec::new();
            let part = compared(field.data_type(), wanted, name, &mut paths);
            if paths.is_empty() {
                continue;
            }
            // What has another name does not have the table's types.
            if mode == SchemaMode::Strict || from != *name {
                return Err(lost(&paths, &from, name));
            }
            if let Part::Some(parts) = part {
                let kept = Keep {
                    signature: Signature::any(2, Volatility::Immutable),
                    column: name.clone(),
                    data_type: wanted.clone(),
                    parts,
                };
                let given = std::mem::take(value);
                *value = ScalarUDF::new_from_impl(kept).call(vec![given, column(Some(TARGET), name)]);
            }
        }
    }
    Ok(())
}

/// Where a value is a column of the source as it is, also where a required one stays if that is NULL, and its name.
fn taken_whole(value: &mut Expr) -> Option<(&mut Expr, String)> {
    let value = match value {
        Expr::Case(case) => case.else_expr.as_deref_mut()?,
        value => value,
    };
    let Expr::Column(of) = &*value else { return None };
    let is_source = of.relation.as_ref().is_some_and(|side| side.table() == SOURCE);
    let name = of.name.clone();
    is_source.then_some((value, name))
}

fn lost(paths: &[String], from: &str, column: &str) -> Error {
    let (members, them) = match paths {
        [one] => (format!("the member {one}"), "it"),
        all => (format!("the members {}", all.join(", ")), "them"),
    };
    let keeping = match from == column {
        true => "let rows keep what they have with --schema-mode merge".to_owned(),
        false => format!(
            "call the source's column {column} as the table does, and let rows keep what they have with --schema-mode merge"
        ),
    };
    Error::invalid(
        format!("the source lacks {members}, which rows that are updated would lose"),
        "source",
    )
    .with_hint(format!(
        "add {them} to the source, set other columns only, or {keeping}; elements of lists and maps are new, and get NULL \
         or the default there"
    ))
}

/// What a type lacks of the table's; its paths go to `paths`. Names are matched as those of columns are.
fn compared(given: &DataType, table: &DataType, path: &str, paths: &mut Vec<String>) -> Part {
    use DataType as T;
    match (given, table) {
        (T::Dictionary(_, given), _) => compared(given, table, path, paths),
        (T::RunEndEncoded(_, given), _) => compared(given.data_type(), table, path, paths),
        (T::Struct(given), T::Struct(members)) => {
            let parts: Parts = members
                .iter()
                .map(|member| {
                    let path = format!("{path}.{}", member.name());
                    match find(given, member.name()) {
                        Some(found) => compared(given[found].data_type(), member.data_type(), &path, paths),
                        None => {
                            paths.push(path);
                            Part::Lacking
                        }
                    }
                })
                .collect();
            match parts.iter().all(|part| *part == Part::Given) {
                true => Part::Given,
                false => Part::Some(parts),
            }
        }
        (
            T::List(given)
            | T::LargeList(given)
            | T::FixedSizeList(given, _)
            | T::ListView(given)
            | T::LargeListView(given),
            T::List(element) | T::LargeList(element) | T::FixedSizeList(element, _),
        ) => {
            compared(
                given.data_type(),
                element.data_type(),
                &format!("{path}.element"),
                paths,
            );
            Part::Given
        }
        (T::Map(given, _), T::Map(entries, _)) => {
            if let (T::Struct(given), T::Struct(pair)) = (given.data_type(), entries.data_type()) {
                for ((given, wanted), side) in given.iter().zip(pair).zip(["key", "value"]) {
                    compared(
                        given.data_type(),
                        wanted.data_type(),
                        &format!("{path}.{side}"),
                        paths,
                    );
                }
            }
            Part::Given
        }
        _ => Part::Given,
    }
}

fn find(given: &Fields, name: &str) -> Option<usize> {
    given.iter().position(|field| field.name() == name).or_else(|| {
        let lower = name.to_lowercase();
        given
            .iter()
            .position(|field| field.name().to_lowercase() == lower)
    })
}

/// The source's struct with the members that it lacks from the stored one. Where there is no stored struct, the source's
/// as a new row would have it. Where the source has none and there is a stored one, that keeps those members, and
/// the others are NULL.
#[derive(Debug, PartialEq, Eq)]
struct Keep {
    signature: Signature,
    column: String,
    data_type: DataType,
    parts: Parts,
}

impl Hash for Keep {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.parts.hash(state);
    }
}

impl ScalarUDFImpl for Keep {
    fn name(&self) -> &'static str {
        "keep_members"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let mut values = Vec::with_capacity(2);
        for value in &args.args {
            let value = value.to_array(args.number_rows)?;
            values.push(match value.data_type() == &self.data_type {
                true => value,
                false => cast(&value, &self.data_type)?,
            });
        }
        let [new, old] = values.as_slice() else {
            return datafusion::common::internal_err!("keep_members takes two values");
        };
        let kept = united(new.as_struct(), old.as_struct(), &self.parts, &self.column)?;
        Ok(ColumnarValue::Array(kept))
    }
}

fn united(new: &StructArray, old: &StructArray, parts: &Parts, path: &str) -> Result<ArrayRef> {
    let there = is_not_null(old)?;
    let absent = arrow::compute::is_null(new)?;
    let nulls = NullBuffer::from((&!absent.values()) | there.values());
    let mut columns = Vec::with_capacity(parts.len());
    for ((field, part), (given, stored)) in new
        .fields()
        .iter()
        .zip(parts)
        .zip(new.columns().iter().zip(old.columns()))
    {
        let path = format!("{path}.{}", field.name());
        let shown = |child: &ArrayRef, hidden: &BooleanArray| nullif(child, hidden);
        let values = match part {
            // Values below a NULL struct do not exist, whatever lies there.
            Part::Given => shown(given, &absent)?,
            Part::Lacking => zip(&there, stored, given)?,
            Part::Some(parts) => {
                let (given, stored) = (
                    shown(given, &absent)?,
                    shown(stored, &arrow::compute::is_null(old)?)?,
                );
                united(given.as_struct(), stored.as_struct(), parts, &path)?
            }
        };
        let missing = |row: &usize| nulls.is_valid(*row) && values.is_null(*row);
        if !field.is_nullable() && (0..values.len()).any(|row| missing(&row)) {
            return Err(Error::invalid(
                format!("column '{path}' is NULL but the table requires a value"),
                "a row of the source that has no such struct, where the stored one keeps members that the source lacks",
            )
            .with_hint("give the source all members of the struct"));
        }
        columns.push(values);
    }
    let made = StructArray::try_new_with_length(new.fields().clone(), columns, Some(nulls), new.len())?;
    Ok(Arc::new(made))
}
