//! A column of the table found in a file: by field id, by physical name, never by position or luck.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::functions::core::getfield::GetFieldFunc;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datafusion::scalar::ScalarValue;
use parquet::arrow::RowNumber;

use super::nested::{Reshape, reshape};
use super::reader::FILE_KEY;
use crate::error::{Error, Result};
use crate::model::schema::{
    INITIAL_DEFAULT, MAPPED_NAMES, NAMES_JOINED_BY, PHYSICAL_NAME, POSITION_COLUMN, default_of, field_id,
    physical_name,
};

/// Which of a file's columns (or a struct's members) is the one that the table calls `wanted`.
///
/// A recorded physical name (Delta column mapping) comes first; then the field id; a name counts only
/// where one of the two sides has no ids (files that were written before the table had them), and then it is the
/// name that the column had in those files, if the table keeps that.
pub(super) fn find(wanted: &Field, fields: &Fields) -> Option<usize> {
    if let Some(name) = wanted.metadata().get(PHYSICAL_NAME)
        && let Some(index) = fields.iter().position(|field| field.name() == name)
    {
        return Some(index);
    }
    let id = field_id(wanted);
    if id.is_some()
        && let Some(index) = fields.iter().position(|field| field_id(field) == id)
    {
        return Some(index);
    }
    let is_named = |name: &str| match wanted.metadata().get(MAPPED_NAMES) {
        Some(names) => names.split(NAMES_JOINED_BY).any(|mapped| mapped == name),
        None => physical_name(wanted) == name,
    };
    fields
        .iter()
        .position(|field| is_named(field.name()) && (id.is_none() || field_id(field).is_none()))
}

/// The values of the table's column `wanted` in a batch read from a file.
///
/// # Errors
/// When the file lacks a required column, or holds values that cannot become the table's type.
///
/// `recorded` is the file's value of an identity partition column that it may not store.
pub(super) fn column_of(
    batch: &RecordBatch,
    wanted: &Field,
    recorded: Option<&ScalarValue>,
) -> Result<ArrayRef> {
    let schema = batch.schema_ref();
    match (find(wanted, schema.fields()), recorded) {
        (Some(index), _) => reshape(batch.column(index), schema.field(index), wanted),
        (None, Some(value)) => {
            let value = value.cast_to(wanted.data_type())?;
            Ok(value.to_array_of_size(batch.num_rows())?)
        }
        (None, None) if may_lack(wanted) => {
            let value = default_of(wanted, INITIAL_DEFAULT)?;
            Ok(value.to_array_of_size(batch.num_rows())?)
        }
        (None, None) => Err(missing(wanted, schema)),
    }
}

/// Whether files may lack the column: it is NULL there, or has a default.
fn may_lack(wanted: &Field) -> bool {
    wanted.is_nullable() || wanted.metadata().contains_key(INITIAL_DEFAULT)
}

fn missing(wanted: &Field, file: &Schema) -> Error {
    let place = file.metadata().get(FILE_KEY).cloned().unwrap_or_default();
    Error::invalid(
        format!(
            "the data file has no column {}, which the table requires",
            wanted.name()
        ),
        place,
    )
}

/// The values of identity partition columns by the path of a file.
pub(super) type Recorded = HashMap<String, Vec<(String, ScalarValue)>>;

/// Rewrites expressions over the table's columns into expressions over one file's columns. A column that a file
/// lacks has the value that its metadata records, if it is an identity partition column, else its initial default, else
/// NULL (Iceberg spec, "Column Projection").
#[derive(Debug)]
pub(super) struct ColumnsById {
    pub(super) recorded: Arc<Recorded>,
}

impl PhysicalExprAdapterFactory for ColumnsById {
    fn create(
        &self,
        logical_file_schema: SchemaRef,
        physical_file_schema: SchemaRef,
    ) -> datafusion::error::Result<Arc<dyn PhysicalExprAdapter>> {
        let path = physical_file_schema.metadata().get(FILE_KEY);
        let recorded = path.and_then(|path| self.recorded.get(path));
        Ok(Arc::new(FileColumns {
            recorded: recorded.cloned().unwrap_or_default(),
            table: logical_file_schema,
            file: physical_file_schema,
        }))
    }
}

#[derive(Debug)]
struct FileColumns {
    table: SchemaRef,
    file: SchemaRef,
    recorded: Vec<(String, ScalarValue)>,
}

impl PhysicalExprAdapter for FileColumns {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
        expr.transform_down(|node| {
            if let Some(member) = self.member(&node)? {
                return Ok(Transformed::new(member, true, TreeNodeRecursion::Jump));
            }
            match node.downcast_ref::<Column>() {
                Some(column) => {
                    let found = self.column(column)?;
                    Ok(Transformed::new(found, true, TreeNodeRecursion::Jump))
                }
                None => Ok(Transformed::no(node)),
            }
        })
        .data()
    }
}

impl FileColumns {
    fn column(&self, column: &Column) -> Result<Arc<dyn PhysicalExpr>> {
        let Ok(wanted) = self.table.field_with_name(column.name()) else {
            return Err(Error::invalid(
                format!("the scan has no column {}", column.name()),
                "plan",
            ));
        };
        match self.index_of(wanted) {
            Some(index) => self.adapted(self.at(index), Arc::clone(&self.file.fields()[index]), wanted),
            None => match self.recorded.iter().find(|(name, _)| name == wanted.name()) {
                Some((_, value)) => constant(value.cast_to(wanted.data_type())?, wanted),
                None if may_lack(wanted) => constant(default_of(wanted, INITIAL_DEFAULT)?, wanted),
                None => Err(missing(wanted, &self.file)),
            },
        }
    }

    fn index_of(&self, wanted: &Field) -> Option<usize> {
        // Columns that the reader makes up come after the file's own.
        if wanted
            .extension_type_name()
            .is_some_and(|name| Some(name) == position_field().extension_type_name())
        {
            return self.file.fields().len().checked_sub(1);
        }
        find(wanted, self.file.fields())
    }

    fn at(&self, index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.file.field(index).name(), index))
    }

    fn adapted(
        &self,
        expr: Arc<dyn PhysicalExpr>,
        from: FieldRef,
        to: &Field,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        // Checked here, because a filter that the Parquet reader cannot evaluate would be dropped.
        if !alike(from.data_type(), to.data_type()) {
            let place = self.file.metadata().get(FILE_KEY).cloned().unwrap_or_default();
            let what = format!(
                "column {}: the file has {}, the table {}",
                to.name(),
                from.data_type(),
                to.data_type()
            );
            return Err(Error::invalid(what, place));
        }
        Ok(if from.data_type() == to.data_type() {
            expr
        } else if to.data_type().is_nested() {
            Arc::new(Reshape::new(expr, from, Arc::new(to.clone())))
        } else {
            // A cast that the engine knows: it moves to the constants of a comparison, so that
            // statistics still prune.
            Arc::new(CastExpr::new(expr, to.data_type().clone(), None))
        })
    }

    /// `get_field(column, 'a', 'b')`, so that only the leaf is read and the scan can filter by it.
    fn member(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
    ) -> datafusion::error::Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(function) = ScalarFunctionExpr::try_downcast_func::<GetFieldFunc>(expr.as_ref()) else {
            return Ok(None);
        };
        let Some((source, names)) = function.args().split_first() else {
            return Ok(None);
        };
        let Some(column) = source.downcast_ref::<Column>() else {
            return Ok(None);
        };
        let Ok(root) = self.table.field_with_name(column.name()) else {
            return Ok(None);
        };
        let mut wanted: &Field = root;
        let mut found = self.index_of(root).map(|index| &self.file.fields()[index]);
        let mut path = Vec::with_capacity(names.len());
        for name in names {
            let literal = name
                .downcast_ref::<Literal>()
                .and_then(|l| l.value().try_as_str().flatten());
            let (Some(name), DataType::Struct(members)) = (literal, wanted.data_type()) else {
                return Ok(None);
            };
            let Some(member) = members.iter().find(|member| member.name() == name) else {
                return Ok(None);
            };
            wanted = member;
            let around = found;
            found = match found.map(|field| field.data_type()) {
                Some(DataType::Struct(members)) => find(member, members).map(|index| &members[index]),
                Some(_) => return Ok(None),
                None => None,
            };
            if around.is_some() && found.is_none() && member.metadata().contains_key(INITIAL_DEFAULT) {
                // It has its default where the struct is there, which takes the struct to tell.
                return Ok(None);
            }
            if let Some(field) = found {
                let name = ScalarValue::Utf8(Some(field.name().clone()));
                path.push(Arc::new(Literal::new(name)) as Arc<dyn PhysicalExpr>);
            }
        }
        let (Some(leaf), Some(index)) = (found, self.index_of(root)) else {
            return Ok(Some(null_of(wanted)?));
        };
        let mut args = vec![self.at(index)];
        args.extend(path);
        let read: Arc<dyn PhysicalExpr> = Arc::new(ScalarFunctionExpr::try_new(
            Arc::new(function.fun().clone()),
            args,
            &self.file,
            Arc::new(function.config_options().clone()),
        )?);
        self.adapted(read, Arc::clone(leaf), wanted)
            .map(Some)
            .map_err(DataFusionError::from)
    }
}

/// Whether values of one type can be brought into the other's shape at all.
fn alike(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Struct(_), DataType::Struct(_))
        | (DataType::List(_), DataType::List(_))
        | (DataType::LargeList(_), DataType::LargeList(_))
        | (DataType::FixedSizeList(..), DataType::FixedSizeList(..))
        | (DataType::Map(..), DataType::Map(..)) => true,
        (from, to) => !from.is_nested() && !to.is_nested() && can_cast_types(from, to),
    }
}

fn null_of(wanted: &Field) -> Result<Arc<dyn PhysicalExpr>> {
    constant(ScalarValue::try_new_null(wanted.data_type())?, wanted)
}

fn constant(value: ScalarValue, wanted: &Field) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(Literal::new_with_metadata(
        value,
        Some(FieldMetadata::from(wanted)),
    )))
}

/// The column that the Parquet reader makes up: each row's position in the file.
pub(super) fn position_field() -> Field {
    Field::new(POSITION_COLUMN, DataType::Int64, false).with_extension_type(RowNumber)
}
