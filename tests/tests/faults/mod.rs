//! Every operation, both formats, with every single request failing in turn. Afterwards a fresh look at
//! the table shows it as it was or as it should be (as it should be, if that was acknowledged), and
//! running the operation again ends well.

use std::sync::Arc;

use arrow::array::{Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::{Fault, Refusal, faulty};
use lakehouse_core::{Compact, Error, Merge, Options, Report, Result, Rows, SchemaMode, Table, TableFormat};
use object_store::memory::InMemory;

const FAULTS: [Fault; 8] = [
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::FalseExists,
    Fault::Late,
    Fault::Throttle,
    Fault::CutShort,
    Fault::StaleList,
    Fault::Crash,
];

#[derive(Debug, Clone, Copy)]
enum Verb {
    Append,
    OverwriteAll,
    OverwriteWhere,
    Delete,
    Update,
    Merge,
    MergeColumns,
    Compact,
    Restore,
}

const VERBS: [Verb; 9] = [
    Verb::Append,
    Verb::OverwriteAll,
    Verb::OverwriteWhere,
    Verb::Delete,
    Verb::Update,
    Verb::Merge,
    Verb::MergeColumns,
    Verb::Compact,
    Verb::Restore,
];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("region", DataType::Utf8, true),
        Field::new("n", DataType::Int32, true),
    ]))
}

fn definition(version: Option<u8>) -> Definition {
    Definition {
        schema: schema(),
        partition_fields: parse_partitioning("region").unwrap(),
        properties: Default::default(),
        format_version: version,
    }
}

fn rows(ids: std::ops::Range<i64>, region: &str) -> Rows {
    let count = ids.clone().count();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids)),
        Arc::new(StringArray::from(vec![region; count])),
        Arc::new(Int32Array::from_iter_values(0..count as i32)),
    ];
    let batch = RecordBatch::try_new(schema(), columns).unwrap();
    Rows::batches(schema(), vec![batch])
}

/// Rows with a column that the table lacks.
fn rows_with_tip(ids: std::ops::Range<i64>) -> Rows {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("tip", DataType::Float64, true),
    ]));
    let tips = Float64Array::from_iter_values(ids.clone().map(|id| id as f64 / 2.0));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(ids)), Arc::new(tips)];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    Rows::batches(schema, vec![batch])
}

impl Verb {
    async fn run(self, table: &Table, options: &Options) -> Result<Report> {
        match self {
            Self::Append => table.append(rows(100..103, "eu"), options).await,
            Self::OverwriteAll => table.overwrite(rows(200..202, "us"), None, options).await,
            Self::OverwriteWhere => {
                table
                    .overwrite(rows(6..9, "us"), Some("region = 'us'"), options)
                    .await
            }
            Self::Delete => table.delete("id % 3 = 0", options).await,
            Self::Update => table.update("n = n + 100", Some("id >= 3"), options).await,
            Self::Merge => {
                let merge = Merge::on("id")
                    .when_matched_update_all()
                    .when_not_matched_insert_all();
                table.merge(rows(2..12, "eu"), &merge, options).await
            }
            Self::MergeColumns => {
                let merge = Merge::on("id")
                    .when_matched_update_all()
                    .when_not_matched_insert_all();
                let options = options.clone().schema_mode(SchemaMode::Merge);
                table.merge(rows_with_tip(2..12), &merge, &options).await
            }
            Self::Compact => table.compact(&Compact::default(), options).await,
            Self::Restore => table.restore(&At::Version(-1), options).await,
        }
    }
}

/// Some files in two partitions, one row deleted.
async fn prepare(store: Store, format: TableFormat, version: Option<u8>) {
    let table = Table::create_in(store, format, &definition(version))
        .await
        .unwrap();
    let options = Options::default();
    table.append(rows(0..4, "eu"), &options).await.unwrap();
    table.append(rows(4..8, "us"), &options).await.unwrap();
    table.append(rows(8..10, "eu"), &options).await.unwrap();
    table.delete("id = 1", &options).await.unwrap();
}

async fn content(store: &Store) -> Vec<String> {
    let table = Table::open_in(store.clone()).await.unwrap();
    let provider = table.provider(&At::Latest).await.unwrap();
    let frame = lakehouse_core::scan::session(None).read_table(provider).unwrap();
    let batches = frame.collect().await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&batches)
        .unwrap()
        .to_string();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|l| !l.starts_with('+'))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

async fn keys(store: &Store) -> Vec<String> {
    store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.path)
        .collect()
}

fn over(inner: &InMemory) -> Store {
    Store::over(Arc::new(inner.fork()), "memory://faults".parse().unwrap())
}

async fn every_request_fails_in_turn(format: TableFormat, version: Option<u8>) {
    let prepared = Arc::new(InMemory::new());
    let root = "memory://faults".parse().unwrap();
    prepare(Store::over(Arc::clone(&prepared) as _, root), format, version).await;
    let before = content(&over(&prepared)).await;
    let keys_before = keys(&over(&prepared)).await;
    for verb in VERBS {
        // "-1" would mean another version the second time: the token makes that a no-op as well.
        let options = Options {
            token: Some(format!("once-{verb:?}")),
            ..Options::default()
        };
        let (store, faults) = faulty(&over(&prepared));
        let table = Table::open_in(store.clone()).await.unwrap();
        faults.reset();
        let report = verb.run(&table, &options).await.unwrap();
        assert!(report.committed, "{verb:?}: {report:?}");
        let requests = faults.requests();
        let after = content(&store).await;
        for fault in FAULTS {
            // "The version before" is another one for whoever is not told of the newest.
            if fault == Fault::StaleList && matches!(verb, Verb::Restore) {
                continue;
            }
            for at in 1..=requests {
                let healthy = over(&prepared);
                let (store, faults) = faulty(&healthy);
                let table = Table::open_in(store).await.unwrap();
                faults.reset();
                faults.fail_at(at, fault);
                let case = format!("{format} {version:?} {verb:?}: {fault:?} at request {at} of {requests}");
                let result = verb.run(&table, &options).await;
                let log = faults.log();
                let found = content(&healthy).await;
                match &result {
                    Ok(report) => {
                        assert!(report.committed, "{case}: {report:?}");
                        assert_eq!(found, after, "{case}: acknowledged, but not there");
                    }
                    Err(Error::CommitUnknown { .. }) => {
                        assert!(found == before || found == after, "{case}: torn: {found:?}");
                    }
                    Err(error) => {
                        assert_eq!(found, before, "{case}: {error}, and yet it landed\n{log:?}");
                        // What arrives late may arrive after the cleaning.
                        if !matches!(fault, Fault::Crash | Fault::Late) {
                            assert_eq!(
                                keys(&healthy).await,
                                keys_before,
                                "{case}: {error}: files left behind"
                            );
                        }
                    }
                }
                faults.reset();
                let again = Table::open_in(healthy.clone()).await.unwrap();
                let second = verb.run(&again, &options).await;
                let second = second.unwrap_or_else(|error| panic!("{case}: running it again: {error}"));
                assert_eq!(content(&healthy).await, after, "{case}: after running it again");
                if result.is_ok() {
                    assert!(
                        second.already.is_some(),
                        "{case}: the key was not recorded: {second:?}"
                    );
                }
            }
        }
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

#[test]
fn iceberg_v2_survives_every_single_fault() {
    block_on(every_request_fails_in_turn(TableFormat::Iceberg, Some(2)));
}

#[test]
fn iceberg_v3_survives_every_single_fault() {
    block_on(every_request_fails_in_turn(TableFormat::Iceberg, Some(3)));
}

#[test]
fn delta_survives_every_single_fault() {
    block_on(every_request_fails_in_turn(TableFormat::Delta, None));
}

/// Creating: afterwards there is no table, or the whole table, and creating again says which.
#[test]
fn creating_a_table_survives_every_single_fault() {
    block_on(async {
        for (format, version) in [
            (TableFormat::Iceberg, Some(2)),
            (TableFormat::Iceberg, Some(3)),
            (TableFormat::Delta, None),
        ] {
            let (store, faults) = faulty(&over(&InMemory::new()));
            Table::create_in(store, format, &definition(version))
                .await
                .unwrap();
            for fault in FAULTS {
                for at in 1..=faults.requests() {
                    let healthy = over(&InMemory::new());
                    let (store, faults) = faulty(&healthy);
                    faults.fail_at(at, fault);
                    let case = format!("{format} {version:?}: {fault:?} at request {at}");
                    let made = Table::create_in(store, format, &definition(version)).await;
                    faults.reset();
                    let again = Table::create_in(healthy.clone(), format, &definition(version)).await;
                    match (&made, &again) {
                        (Ok(_), Err(Error::AlreadyExists { .. })) => {}
                        (Err(Error::CommitUnknown { .. }), Ok(_) | Err(Error::AlreadyExists { .. })) => {}
                        (Err(_), Ok(_)) => {}
                        other => panic!("{case}: {other:?}"),
                    }
                    assert_eq!(content(&healthy).await, Vec::<String>::new(), "{case}");
                }
            }
        }
    });
}

/// A disk that is full or must not be written: an error that says so, the table as it was, and the same
/// operation once the disk is well again.
#[test]
fn a_full_or_read_only_disk_leaves_the_table_as_it_was() {
    block_on(async {
        for (format, version) in [
            (TableFormat::Iceberg, Some(2)),
            (TableFormat::Iceberg, Some(3)),
            (TableFormat::Delta, None),
        ] {
            let prepared = Arc::new(InMemory::new());
            let root = "memory://faults".parse().unwrap();
            prepare(Store::over(Arc::clone(&prepared) as _, root), format, version).await;
            let before = content(&over(&prepared)).await;
            let keys_before = keys(&over(&prepared)).await;
            for verb in VERBS {
                for refusal in [Refusal::DiskFull, Refusal::ReadOnly, Refusal::Permission] {
                    let healthy = over(&prepared);
                    let (store, faults) = faulty(&healthy);
                    let table = Table::open_in(store).await.unwrap();
                    faults.refuse(Some(refusal));
                    let case = format!("{format} {version:?} {verb:?}: {refusal:?}");
                    let error = verb.run(&table, &Options::default()).await.expect_err(&case);
                    assert!(
                        !matches!(error, Error::CommitUnknown { .. } | Error::Conflict { .. }),
                        "{case}: {error}"
                    );
                    assert_eq!(content(&healthy).await, before, "{case}");
                    assert_eq!(keys(&healthy).await, keys_before, "{case}: files left behind");
                    faults.refuse(None);
                    let report = verb.run(&table, &Options::default()).await.expect(&case);
                    assert!(report.committed, "{case}");
                }
            }
        }
    });
}
