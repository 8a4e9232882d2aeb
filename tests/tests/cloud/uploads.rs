//! Files that are so large that they are sent in parts before they end.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use lakehouse_core::{Options, Rows, Table};
use lakehouse_tests::s3::{Cloud, Lax, Server};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::store;
use crate::verbs::{FORMATS, schema};

/// Rows that do not compress, in batches; of the last batch, a key is NULL.
fn batches() -> Vec<RecordBatch> {
    const ROWS: usize = 100_000;
    const BATCHES: usize = 20;
    let mut rng = StdRng::seed_from_u64(1);
    (0..BATCHES)
        .map(|at| {
            let ids = (0..ROWS).map(|row| (at + 1 < BATCHES || row != 7).then(|| rng.random::<i64>()));
            let ids: Int64Array = ids.collect();
            let regions = StringArray::from(vec![None::<&str>; ROWS]);
            let n: Int32Array = (0..ROWS).map(|_| Some(rng.random::<i32>())).collect();
            let schema = Arc::new(arrow::datatypes::Schema::new(
                schema()
                    .fields()
                    .iter()
                    .map(|f| f.as_ref().clone().with_nullable(true))
                    .collect::<Vec<_>>(),
            ));
            let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(regions), Arc::new(n)];
            RecordBatch::try_new(schema, columns).unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_fails_while_it_sends_a_file_leaves_no_parts_at_the_store() {
    let server = Server::start(Cloud::S3, Lax::Not).await.unwrap();
    let definition = lakehouse_core::model::Definition {
        schema: schema(),
        partition_fields: Vec::new(),
        properties: [("write.parquet.row-group-limit".to_owned(), "100000".to_owned())].into(),
        format_version: FORMATS[0].1,
    };
    let table = Table::create_in(store(&server, "parts"), FORMATS[0].0, &definition)
        .await
        .unwrap();
    let before = server.keys();
    server.take_log();
    let batches = batches();
    let input = Rows::batches(batches[0].schema(), batches);
    let error = table.append(input, &Options::default()).await.unwrap_err();
    let log = server.take_log();
    assert!(
        log.iter()
            .any(|line| line.starts_with("PUT") && line.contains(".parquet")),
        "nothing was sent before the error: {error}: {log:?}"
    );
    assert_eq!(
        server.uploads(),
        0,
        "an upload that nobody will complete was left: {log:?}"
    );
    assert_eq!(server.keys(), before, "{error}");
}
