//! Tables made of Parquet files that were there before them.

mod files;
mod ids;
mod lacking;
mod refused;
mod whole;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Definition};
use lakehouse_core::operations::{Adopted, Adoption};
use lakehouse_core::scan::{self, MetadataColumns, SnapshotTable};
use lakehouse_core::store::Store;
use lakehouse_core::{Error, Options, Rows, Table, TableFormat};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::{FORMATS, lines, query};
use crate::support::memory;

type Format = (TableFormat, Option<u8>);

/// Batches as a Parquet file, with row groups of so many rows.
fn parquet(schema: &SchemaRef, batches: &[RecordBatch], group: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(schema), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
    bytes
}

/// Puts the result of a query below a table's root.
pub(crate) async fn put(store: &Store, path: &str, sql: &str) {
    let (schema, batches) = query(sql).await;
    store
        .put(path, parquet(&schema, &batches, 1000).into())
        .await
        .unwrap();
}

fn adoption(format: Format) -> Adoption {
    Adoption {
        format_version: format.1,
        ..Adoption::default()
    }
}

/// Makes the table of all files in the store.
async fn adopt(store: &Store, format: Format) -> (Table, Adopted) {
    Table::adopt_in(store.clone(), format.0, &adoption(format), false)
        .await
        .unwrap()
}

/// The error of it, after which nothing was made.
async fn refusal(store: &Store, format: Format, adoption: &Adoption) -> Error {
    let before = store.list("").await.unwrap();
    let error = Table::adopt_in(store.clone(), format.0, adoption, false)
        .await
        .unwrap_err();
    assert_eq!(store.list("").await.unwrap(), before, "nothing was written");
    assert!(!error.to_string().is_empty());
    error
}

/// The answer to a query over the newest version, as sorted lines.
async fn ask(table: &Table, sql: &str) -> Vec<String> {
    let ctx = SessionContext::new_with_config(scan::session(None).copied_config());
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}

/// A table with the same columns and partitioning into which the same rows were appended.
async fn appended(adopted: &Table, format: Format) -> Table {
    let snapshot = adopted.snapshot(&At::Latest).await.unwrap();
    let mut partition_fields = snapshot.partition_fields().to_vec();
    for field in &mut partition_fields {
        (field.name, field.field_id) = (String::new(), 0);
    }
    let definition = Definition {
        schema: Arc::clone(&snapshot.schema),
        partition_fields,
        properties: snapshot.properties.clone(),
        format_version: format.1,
    };
    let table = Table::create_in(memory("appended"), format.0, &definition)
        .await
        .unwrap();
    let rows = Rows::table(adopted, &At::Latest).await.unwrap();
    table.append(rows, &Options::default()).await.unwrap();
    table
}

/// Both hold the same rows.
async fn same(one: &Table, other: &Table, what: &str) {
    let sql = "SELECT * FROM t";
    assert_eq!(ask(one, sql).await, ask(other, sql).await, "{what}");
}

/// Row ids of all rows, where the table has them: they are there, and no two are the same.
async fn row_ids_are_unique(table: &Table, what: &str) {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    if snapshot.lineage.is_none() {
        return;
    }
    let columns = MetadataColumns {
        lineage: true,
        ..MetadataColumns::default()
    };
    let provider = SnapshotTable::new(table.handle().clone(), snapshot).with_metadata_columns(columns);
    let ctx = SessionContext::new();
    ctx.register_table("t", Arc::new(provider)).unwrap();
    let sql =
        "SELECT count(*) = count(DISTINCT _row_id), count(*) = count(_last_updated_sequence_number) FROM t";
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    assert_eq!(lines(&batches), ["true|true"], "{what}");
}

fn types(schema: &Schema) -> Vec<(&str, &DataType, bool)> {
    schema
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.data_type(), f.is_nullable()))
        .collect()
}
