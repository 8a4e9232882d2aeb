//! ALTER TABLE: columns and properties.

use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, Expr, Ident, MySQLColumnPosition, SqlOption, Value,
};

use super::{Change, refuse};
use crate::error::{Error, Result};
use crate::model::{ColumnPath, Place};
use crate::operations::{self, Alter, Report};

pub(super) async fn run(mut change: Change<'_>, statement: AlterTable) -> Result<(String, Report)> {
    refuse(
        "ALTER TABLE",
        &[
            (change.with.is_some(), "WITH"),
            (statement.if_exists, "IF EXISTS"),
            (statement.only, "ONLY"),
            (statement.location.is_some(), "SET LOCATION"),
            (statement.on_cluster.is_some(), "ON CLUSTER"),
            (statement.table_type.is_some(), "a kind of table"),
        ],
    )?;
    let mut alter = Alter::default();
    for operation in statement.operations {
        alter = altered(alter, operation)?;
    }
    let asked = change.options.branch.clone();
    let changed = change.open(&statement.name, None).await?;
    refuse(
        "ALTER TABLE",
        &[(
            change.options.branch != asked,
            "the name of a branch (all of them have the table's columns)",
        )],
    )?;
    let report = operations::alter(&changed.handle, &alter, &change.options).await?;
    Ok((changed.name, report))
}

fn altered(alter: Alter, operation: AlterTableOperation) -> Result<Alter> {
    use AlterTableOperation as A;
    Ok(match operation {
        A::AddColumn {
            if_not_exists: false,
            column_def,
            column_position,
            ..
        } => {
            let name = path(&column_def.name)?;
            let alter = alter.add_column(&column_def.to_string())?;
            match column_position {
                None => alter,
                Some(MySQLColumnPosition::First) => alter.move_column(name, Place::First),
                Some(MySQLColumnPosition::After(other)) => alter.move_column(name, Place::After(other.value)),
            }
        }
        A::DropColumn {
            column_names,
            if_exists: false,
            drop_behavior: None,
            ..
        } => {
            let names = column_names.iter().map(path).collect::<Result<Vec<_>>>()?;
            names.into_iter().fold(alter, Alter::drop_column)
        }
        A::RenameColumn {
            old_column_name,
            new_column_name,
        } => alter.rename_column(path(&old_column_name)?, &new_column_name.value),
        A::AlterColumn { column_name, op } => match op {
            AlterColumnOperation::SetNotNull => alter.nullable(path(&column_name)?, false),
            AlterColumnOperation::DropNotNull => alter.nullable(path(&column_name)?, true),
            AlterColumnOperation::SetDefault { value } => {
                alter.default_value(path(&column_name)?, Some(&value.to_string()))
            }
            AlterColumnOperation::DropDefault => alter.default_value(path(&column_name)?, None),
            AlterColumnOperation::SetDataType {
                data_type,
                using: None,
                ..
            } => alter.widen(&format!("{column_name} {data_type}"))?,
            other => return Err(not_understood(&format!("ALTER COLUMN {column_name} {other}"))),
        },
        A::SetTblProperties { table_properties } => {
            table_properties
                .into_iter()
                .try_fold(alter, |alter, option| match &option {
                    SqlOption::KeyValue {
                        key,
                        value: Expr::Value(value),
                    } => match &value.value {
                        Value::SingleQuotedString(text) => Ok(alter.property(&key.value, Some(text))),
                        other => Ok(alter.property(&key.value, Some(&other.to_string()))),
                    },
                    other => Err(not_understood(&other.to_string())),
                })?
        }
        other => return Err(not_understood(&other.to_string())),
    })
}

/// A column of the table itself; SQL has no way to name a field of a struct here.
fn path(name: &Ident) -> Result<ColumnPath> {
    ColumnPath::new(vec![name.value.clone()])
}

fn not_understood(what: &str) -> Error {
    Error::unsupported(
        format!("{what} cannot run in ALTER TABLE"),
        "ADD COLUMN, DROP COLUMN, RENAME COLUMN, ALTER COLUMN .. TYPE | SET NOT NULL | DROP NOT NULL | SET \
         DEFAULT | DROP DEFAULT and SET TBLPROPERTIES can; for fields of structs, comments and partitioning there is `lake alter`",
    )
}
