//! Debezium's envelope: rows as they were before and after, with what happened and when.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, StructArray, new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast_with_options, filter};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;

use super::cdc::{DELETED, Own};
use crate::error::{Error, Result};

/// Name of the time that orders the feed, where a row has a column `ts_ms` of its own.
const SEQUENCE: &str = "__lakehouse_ts_ms";

const OP: &str = "op";
const TIME: &str = "ts_ms";
const BEFORE: &str = "before";
const AFTER: &str = "after";
const PAYLOAD: &str = "payload";

/// Where the parts of an envelope are, and what its rows look like.
pub(super) struct Envelope {
    /// It is inside this column.
    payload: Option<&'static str>,
    /// Of the row, `before` and `after` together.
    fields: Vec<Field>,
    /// Names under which `op` and `ts_ms` go with the row.
    op: Option<&'static str>,
    time: Option<&'static str>,
    schema: SchemaRef,
}

/// Envelopes around rows of a table, bare and inside `payload`: what is known of the columns of a feed.
pub(super) fn around(table: &Schema) -> Schema {
    let row = |name| Field::new(name, DataType::Struct(table.fields().clone()), true);
    let sides = Fields::from(vec![row(BEFORE), row(AFTER)]);
    let mut fields = sides.to_vec();
    fields.push(Arc::new(Field::new(PAYLOAD, DataType::Struct(sides), true)));
    Schema::new(fields)
}

impl Envelope {
    /// # Errors
    /// [`Error::Invalid`] when these are not the columns of an envelope.
    pub(super) fn new(source: &Schema) -> Result<Self> {
        let (payload, envelope) = match source.field_with_name(PAYLOAD).map(Field::data_type) {
            Ok(DataType::Struct(inner)) if source.field_with_name(OP).is_err() => (Some(PAYLOAD), inner),
            _ => (None, source.fields()),
        };
        let not_one = |what: String| {
            let known: Vec<&str> = envelope.iter().map(|f| f.name().as_str()).collect();
            Error::invalid(what, "source").with_hint(format!(
                "Debezium's envelope has the columns op, before and after (structs), and ts_ms, at the top or \
                 inside payload; this source has {}. Rows that were taken out of it are a feed too: name their \
                 columns, op=__op,sequence=__ts_ms",
                known.join(", ")
            ))
        };
        if find(envelope, OP).is_none() {
            return Err(not_one(
                "this is not a feed of Debezium: it has no column op".to_owned(),
            ));
        }
        let sides: Vec<&Fields> = [AFTER, BEFORE]
            .into_iter()
            .filter_map(|side| match find(envelope, side)?.data_type() {
                DataType::Struct(fields) => Some(fields),
                _ => None,
            })
            .collect();
        if sides.is_empty() {
            return Err(not_one(
                "this is not a feed of Debezium: neither after nor before is a struct".to_owned(),
            ));
        }
        let mut fields: Vec<Field> = Vec::new();
        for field in sides.into_iter().flatten() {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                None => fields.push(Field::new(field.name(), field.data_type().clone(), true)),
                Some(known) => known.set_data_type(common(known, field)?),
            }
        }
        let has = |name: &str| fields.iter().any(|f| f.name() == name);
        let op = (!has(OP)).then_some(OP);
        let time =
            find(envelope, TIME).map(|field| (if has(TIME) { SEQUENCE } else { TIME }, field.data_type()));
        let mut all: Vec<Field> = fields.clone();
        all.extend(op.map(|name| Field::new(name, DataType::Utf8, true)));
        all.extend(time.map(|(name, data_type)| Field::new(name, data_type.clone(), true)));
        all.push(Field::new(DELETED, DataType::Boolean, false));
        Ok(Self {
            payload,
            op,
            time: time.map(|(name, _)| name),
            fields,
            schema: Arc::new(Schema::new(all)),
        })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub(super) fn own(&self) -> Own {
        Own {
            op: OP.to_owned(),
            sequence: self.time.map(str::to_owned),
        }
    }

    /// The rows of a batch that `before` rows preceded. Records without content are left out.
    pub(super) fn read(&self, batch: &RecordBatch, before: u64) -> Result<RecordBatch> {
        let whole = StructArray::from(batch.clone());
        let envelope = match self.payload {
            Some(name) => match batch.column_by_name(name).and_then(|c| c.as_struct_opt()) {
                Some(payload) => payload,
                None => &whole,
            },
            None => &whole,
        };
        let (after, before_image) = (side(envelope, AFTER)?, side(envelope, BEFORE)?);
        let ops = match envelope.column_by_name(OP) {
            Some(ops) => strictly(ops, &DataType::Utf8)?,
            None => new_null_array(&DataType::Utf8, envelope.len()),
        };
        let (keep, deletes) = judge(
            envelope,
            ops.as_string::<i32>(),
            after.as_ref(),
            before_image.as_ref(),
            before,
        )?;
        let deletes = filter(&deletes, &keep)?;
        let deletes = deletes.as_boolean();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for field in &self.fields {
            let value = |side: &Option<StructArray>| -> Result<ArrayRef> {
                match side.as_ref().and_then(|rows| rows.column_by_name(field.name())) {
                    Some(column) => Ok(filter(&strictly(column, field.data_type())?, &keep)?),
                    None => Ok(new_null_array(field.data_type(), deletes.len())),
                }
            };
            columns.push(zip(deletes, &value(&before_image)?, &value(&after)?)?);
        }
        if self.op.is_some() {
            columns.push(filter(&ops, &keep)?);
        }
        if self.time.is_some()
            && let Some(times) = envelope.column_by_name(TIME)
        {
            columns.push(filter(times, &keep)?);
        }
        columns.push(Arc::new(deletes.clone()));
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// Which records are rows, and which of these are deletes.
fn judge(
    envelope: &StructArray,
    ops: &StringArray,
    after: Option<&StructArray>,
    before: Option<&StructArray>,
    rows_before: u64,
) -> Result<(BooleanArray, BooleanArray)> {
    let there = |side: Option<&StructArray>, row| side.is_some_and(|side| side.is_valid(row));
    let mut keep = Vec::with_capacity(envelope.len());
    let mut deletes = Vec::with_capacity(envelope.len());
    for row in 0..envelope.len() {
        let op = (envelope.is_valid(row) && ops.is_valid(row)).then(|| ops.value(row));
        let empty = envelope.is_null(row) || !(there(after, row) || there(before, row));
        if op.is_none() && empty {
            keep.push(false);
            deletes.push(false);
            continue;
        }
        let place = || format!("row {} of the feed", rows_before + row as u64 + 1);
        let delete = match op {
            Some("c" | "r" | "u") => false,
            Some("d") => true,
            Some("t") => {
                return Err(Error::invalid(
                    "the table was truncated here (op = 't'), and a merge cannot do that",
                    place(),
                )
                .with_hint("delete the rows (lake delete), then merge what follows in the feed"));
            }
            Some(other) => {
                return Err(Error::invalid(format!("op = {other:?} is not known"), place())
                    .with_hint("Debezium's are c (create), r (read), u (update) and d (delete)"));
            }
            None => return Err(Error::invalid("op is NULL", place())),
        };
        if delete && !there(before, row) {
            return Err(
                Error::invalid("a delete without before: no key tells which row", place())
                    .with_hint("the source database must log old rows (in PostgreSQL: REPLICA IDENTITY)"),
            );
        }
        if !delete && !there(after, row) {
            return Err(Error::invalid(
                format!("op = {:?} without after: there is no row", op.unwrap_or_default()),
                place(),
            ));
        }
        keep.push(true);
        deletes.push(delete);
    }
    Ok((keep.into(), deletes.into()))
}

/// `before` or `after`; `None` if it is NULL throughout.
fn side(envelope: &StructArray, name: &str) -> Result<Option<StructArray>> {
    let Some(column) = envelope.column_by_name(name) else {
        return Ok(None);
    };
    match column.as_struct_opt() {
        Some(rows) => Ok(Some(rows.clone())),
        None if column.logical_null_count() == column.len() => Ok(None),
        None => Err(Error::invalid(
            format!("{name} is {}, not a struct", column.data_type()),
            "source",
        )
        .with_hint("read the feed as NDJSON, Parquet or Arrow with nested columns")),
    }
}

fn find<'a>(fields: &'a Fields, name: &str) -> Option<&'a FieldRef> {
    fields.iter().find(|field| field.name() == name)
}

/// The type that holds the values of both sides, whose types were perhaps inferred from different rows. Structs have the
/// members of `one`, which is what rows become: what only the other side has is not missed, nor does it hide what is missing.
fn common(one: &Field, other: &Field) -> Result<DataType> {
    if let (DataType::Struct(members), DataType::Struct(others)) = (one.data_type(), other.data_type()) {
        let member = |field: &FieldRef| {
            let data_type = match find(others, field.name()) {
                Some(other) => common(field, other)?,
                None => field.data_type().clone(),
            };
            Ok(field
                .as_ref()
                .clone()
                .with_data_type(data_type)
                .with_nullable(true))
        };
        let members = members.iter().map(member).collect::<Result<Vec<_>>>()?;
        return Ok(DataType::Struct(members.into()));
    }
    let types = [one.data_type().clone(), other.data_type().clone()];
    type_union_resolution(&types).ok_or_else(|| {
        Error::invalid(
            format!(
                "column {} is {} in after and {} in before",
                one.name(),
                one.data_type(),
                other.data_type()
            ),
            "source",
        )
    })
}

fn strictly(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if let (Some(given), DataType::Struct(members)) = (column.as_struct_opt(), data_type) {
        // A cast would go by their places where one is missing.
        let member = |field: &FieldRef| match given.column_by_name(field.name()) {
            Some(member) => strictly(member, field.data_type()),
            None => Ok(new_null_array(field.data_type(), given.len())),
        };
        let columns = members.iter().map(member).collect::<Result<Vec<_>>>()?;
        let nulls = given.nulls().cloned();
        let whole = StructArray::try_new_with_length(members.clone(), columns, nulls, given.len())?;
        return Ok(Arc::new(whole));
    }
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(column, data_type, &strict)?)
}
