//! What each verb promises, case by case, in every format.

pub(crate) mod adopt;
mod alter;
mod bad_input;
pub(crate) mod change_feed;
pub(crate) mod check;
mod cluster;
mod compact;
mod concurrent;
mod confined;
mod copied;
mod copied_ahead;
mod defaults;
mod diff;
mod diff_definition;
mod diff_foreign;
mod evolve;
mod expire;
mod feed;
mod files;
mod floats;
mod groups;
mod limits;
pub(crate) mod lineage;
mod long;
mod manifests;
mod members;
mod merge;
mod named_refs;
mod overwrite;
mod pruned;
mod refs;
mod retention;
mod rules;
mod scans;
mod settings;
mod sifted;
mod spelled;
mod streams;
mod switched;
mod types;
mod watched;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::store::Store;
use lakehouse_core::{Compact, Options, Report, Result, Rows, Table, TableFormat, scan};

use crate::support::memory;

/// Every format, in every version that we write.
pub(crate) const FORMATS: [(TableFormat, Option<u8>); 3] = [
    (TableFormat::Iceberg, Some(2)),
    (TableFormat::Iceberg, Some(3)),
    (TableFormat::Delta, None),
];

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("region", DataType::Utf8, true),
        Field::new("n", DataType::Int32, true),
    ]))
}

/// An empty table `(id bigint not null, region string, n int)` in a store of its own.
pub(crate) async fn table(format: (TableFormat, Option<u8>), partitioning: &str) -> Table {
    table_in(memory("verbs"), format, partitioning).await
}

/// The same in this store.
pub(crate) async fn table_in(store: Store, format: (TableFormat, Option<u8>), partitioning: &str) -> Table {
    table_made(store, format, partitioning, &[]).await
}

/// The same in a store of its own, with these properties.
pub(crate) async fn table_with(
    format: (TableFormat, Option<u8>),
    partitioning: &str,
    properties: &[(&str, &str)],
) -> Table {
    table_made(memory("verbs"), format, partitioning, properties).await
}

/// The same with these properties.
pub(crate) async fn table_made(
    store: Store,
    format: (TableFormat, Option<u8>),
    partitioning: &str,
    properties: &[(&str, &str)],
) -> Table {
    let properties = properties.iter();
    let definition = Definition {
        schema: schema(),
        partition_fields: parse_partitioning(partitioning).unwrap(),
        properties: properties
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        format_version: format.1,
    };
    Table::create_in(store, format.0, &definition).await.unwrap()
}

/// Rows of a query such as `VALUES (1, 'eu', 1)`, columns named as given.
pub(crate) async fn rows(columns: &str, values: &str) -> Rows {
    let (schema, batches) = query(&format!("SELECT * FROM (VALUES {values}) AS t({columns})")).await;
    Rows::batches(schema, batches)
}

pub(crate) async fn query(sql: &str) -> (SchemaRef, Vec<RecordBatch>) {
    let frame = scan::session(None).sql(sql).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    (schema, frame.collect().await.unwrap())
}

pub(crate) async fn append(table: &Table, values: &str) -> Report {
    table
        .append(rows("id, region, n", values).await, &Options::default())
        .await
        .unwrap()
}

/// Compacts what is worth it, as `lake compact` without options.
pub(crate) async fn compact_all(table: &Table) -> Report {
    table
        .compact(&Compact::default(), &Options::default())
        .await
        .unwrap()
}

pub(crate) async fn delete(table: &Table, predicate: &str) -> Report {
    table.delete(predicate, &Options::default()).await.unwrap()
}

/// The rows of a version, for a reader who knows nothing yet.
pub(crate) async fn rows_at(store: &Store, at: &At) -> Result<Vec<String>> {
    rows_of(&Table::open_in(store.clone()).await?, at).await
}

/// The rows of a version, as sorted lines.
pub(crate) async fn rows_of(table: &Table, at: &At) -> Result<Vec<String>> {
    let frame = scan::session(None).read_table(table.provider(at).await?)?;
    Ok(lines(&frame.collect().await?))
}

/// The newest rows as `id|region|n` lines, sorted.
pub(crate) async fn content(table: &Table) -> Vec<String> {
    let ctx = SessionContext::new();
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    let batches = ctx.sql("SELECT * FROM t").await.unwrap().collect().await.unwrap();
    lines(&batches)
}

pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let text = pretty_format_batches(batches).unwrap().to_string();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    lines.sort();
    lines
}
