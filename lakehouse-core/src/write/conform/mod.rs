//! Rows as they come in, made to fit the table's schema, or refused by column and row.

mod cast;
mod decimal;
mod fit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};

use crate::error::{Error, Result};

/// Brings a batch into the table's columns: by name (exactly, or else ignoring case where that is not
/// ambiguous), in the table's order, missing nullable columns filled with NULL, types cast where no
/// value can be lost (each value is checked), structs and lists inside out. The result has exactly
/// `schema`.
///
/// # Errors
/// [`Error::Invalid`] naming the column (and the first row concerned, the batch's first being 1) for an
/// extra column, a missing or NULL required column, a value that does not fit.
pub fn conform(batch: &RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    conform_at(batch, schema, 0)
}

/// The same for a batch that `before` rows of the same input preceded, so that errors name the
/// input's row.
///
/// # Errors
/// As [`conform`].
pub fn conform_at(batch: &RecordBatch, schema: &Schema, before: u64) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let given = batch.schema_ref().fields();
    let names: Vec<&str> = given.iter().map(|f| f.name().as_str()).collect();
    let wanted: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let matched = match_names(&names, &wanted).map_err(|misfit| misfit.into_error(before, &wanted))?;
    let columns = schema
        .fields()
        .iter()
        .zip(matched)
        .map(|(field, source)| {
            let array = source.map(|i| batch.column(i));
            fit::column(array, field, rows)
                .map_err(|misfit| misfit.inside(field.name()).into_error(before, &wanted))
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(schema.clone()),
        columns,
        &options,
    )?)
}

/// For each wanted name the index of the given one, if there is one.
fn match_names(given: &[&str], wanted: &[&str]) -> Result<Vec<Option<usize>>, Misfit> {
    let mut used = vec![false; given.len()];
    let mut matched = vec![None; wanted.len()];
    for (slot, name) in matched.iter_mut().zip(wanted) {
        let mut same = (0..given.len()).filter(|i| given[*i] == *name);
        *slot = same.next();
        if let Some(index) = *slot {
            used[index] = true;
            if same.next().is_some() {
                return Err(Misfit::column(*name, "is in the input twice"));
            }
        }
    }
    for (slot, name) in matched.iter_mut().zip(wanted).filter(|(slot, _)| slot.is_none()) {
        let lower = name.to_lowercase();
        let mut same = (0..given.len()).filter(|i| !used[*i] && given[*i].to_lowercase() == lower);
        let Some(index) = same.next() else { continue };
        if let Some(other) = same.next() {
            let what = format!("could be '{}' or '{}' of the input", given[index], given[other]);
            return Err(Misfit::column(*name, what));
        }
        used[index] = true;
        *slot = Some(index);
    }
    match used.iter().position(|u| !u) {
        Some(extra) => Err(Misfit::column(given[extra], "is not in the table").extra()),
        None => Ok(matched),
    }
}

/// Why a column does not fit, and where.
#[derive(Debug)]
struct Misfit {
    /// Names from the outermost column inwards.
    path: Vec<String>,
    /// Index of the first row concerned.
    row: Option<usize>,
    /// What is wrong, to follow the column's name.
    what: String,
    extra: bool,
}

impl Misfit {
    fn new(what: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            row: None,
            what: what.into(),
            extra: false,
        }
    }

    fn at(row: usize, what: impl Into<String>) -> Self {
        Self {
            row: Some(row),
            ..Self::new(what)
        }
    }

    fn column(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(what).inside(name)
    }

    fn extra(mut self) -> Self {
        self.extra = true;
        self
    }

    /// The same, seen from one level further out.
    fn inside(mut self, name: impl Into<String>) -> Self {
        self.path.insert(0, name.into());
        self
    }

    fn into_error(self, before: u64, columns: &[&str]) -> Error {
        let column = self.path.join(".");
        let place = match self.row {
            Some(row) => format!("row {}", before + row as u64 + 1),
            None => String::new(),
        };
        let error = Error::invalid(format!("column '{column}' {}", self.what), place);
        if self.extra {
            let columns = columns.join(", ");
            error.with_hint(format!(
                "the table's columns are {columns}; leave the column out, or add it with --schema-mode merge"
            ))
        } else if self.row.is_some() {
            error.with_hint("correct the value, or leave the row out")
        } else {
            error.with_hint("change the input, or select and cast its columns in a query")
        }
    }
}

/// A NULL where there must be none.
fn check_required(array: &ArrayRef, field: &Field) -> Result<(), Misfit> {
    if field.is_nullable() || array.logical_null_count() == 0 {
        return Ok(());
    }
    let row = (0..array.len()).find(|row| array.is_null(*row));
    Err(Misfit {
        row,
        ..Misfit::new("is NULL but the table requires a value")
    })
}
