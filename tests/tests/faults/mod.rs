//! Every operation, both formats, with requests that fail: each in turn and in each way, two in one run, parts of
//! uploads, a disk that refuses, a catalog that goes away. Afterwards a fresh look at the table shows it as it was or as
//! it should be (as it should be, if that was acknowledged), and running the operation again ends well.
//!
//! `LAKEHOUSE_FAULTS_VERB=Merge` sweeps one operation only. By hand: `LAKEHOUSE_FAULTS=all` (every request, in memory
//! and on local disk), `LAKEHOUSE_DOUBLE_FAULTS=20000`, `LAKEHOUSE_SOAK_SECONDS=600` (two faults); `LAKEHOUSE_SEED` repeats
//! a run.

mod activation;
mod alter;
mod catalog;
mod checkpoint;
mod double;
mod expire;
mod outage;
mod place;
mod reads;
mod refs;
mod refusals;
mod single;
mod uploads;

use std::sync::Arc;

use arrow::array::{Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::operations::Strategy;
use lakehouse_core::store::sim::{Fault, Kind, faulty};
use lakehouse_core::store::{Store, clock};
use lakehouse_core::{Compact, Error, Merge, Options, Report, Result, Rows, SchemaMode, Table, TableFormat};

use object_store::memory::InMemory;
use place::Place;

/// What a request can meet; a tenth, [`Fault::Torn`], is about uploads in parts alone: `uploads.rs`.
const FAULTS: [Fault; 9] = [
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::FalseExists,
    Fault::Late,
    Fault::Stray,
    Fault::Throttle,
    Fault::CutShort,
    Fault::StaleList,
    Fault::Crash,
];

const FORMATS: [(TableFormat, Option<u8>); 3] = [
    (TableFormat::Iceberg, Some(2)),
    (TableFormat::Iceberg, Some(3)),
    (TableFormat::Delta, None),
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
    /// Rows are masked, however many there are.
    MergeMasks,
    Compact,
    Restore,
}

const VERBS: [Verb; 10] = [
    Verb::Append,
    Verb::OverwriteAll,
    Verb::OverwriteWhere,
    Verb::Delete,
    Verb::Update,
    Verb::Merge,
    Verb::MergeColumns,
    Verb::MergeMasks,
    Verb::Compact,
    Verb::Restore,
];

/// All, or the one that was asked for.
fn verbs() -> Vec<Verb> {
    let only = std::env::var("LAKEHOUSE_FAULTS_VERB").ok();
    let mut verbs = VERBS.to_vec();
    verbs.retain(|verb| only.as_ref().is_none_or(|only| format!("{verb:?}") == *only));
    assert!(!verbs.is_empty(), "{only:?} is none of {VERBS:?}");
    verbs
}

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
        // So that files have row groups to copy.
        properties: [("write.parquet.row-group-limit".to_owned(), "4".to_owned())].into(),
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
            // Masks, and a file that is written with a mask: a row group keeps three rows of four.
            Self::Delete => {
                let condition = "id % 3 = 0 AND id < 8 OR id BETWEEN 8 AND 16";
                table.delete(condition, options).await
            }
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
            Self::MergeMasks => {
                let masking = Options {
                    strategy: Strategy::MergeOnRead,
                    ..options.clone()
                };
                Box::pin(Self::Merge.run(table, &masking)).await
            }
            Self::Compact => table.compact(&Compact::default(), options).await,
            Self::Restore => table.restore(&At::Version(-1), options).await,
        }
    }
}

async fn prepare(store: Store, format: TableFormat, version: Option<u8>) {
    prepare_with(store, format, version, &[]).await;
}

/// With these properties.
async fn prepare_with(store: Store, format: TableFormat, version: Option<u8>, properties: &[(&str, &str)]) {
    let mut definition = definition(version);
    let more = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    definition.properties.extend(more);
    let table = Table::create_in(store, format, &definition).await;
    fill(&table.unwrap()).await;
}

/// Some files in two partitions, one row deleted.
async fn fill(table: &Table) {
    let options = Options::default();
    table.append(rows(0..4, "eu"), &options).await.unwrap();
    table.append(rows(4..8, "us"), &options).await.unwrap();
    table.append(rows(8..32, "eu"), &options).await.unwrap();
    table.delete("id = 1", &options).await.unwrap();
}

async fn content(store: &Store) -> Vec<String> {
    let read = readable(store).await;
    read.unwrap_or_else(|error| panic!("the table cannot be read any more: {error:?}"))
}

/// The rows, or why they cannot be read.
async fn readable(store: &Store) -> Result<Vec<String>> {
    rows_of(&Table::open_in(store.clone()).await?).await
}

async fn rows_of(table: &Table) -> Result<Vec<String>> {
    let provider = table.provider(&At::Latest).await?;
    let frame = lakehouse_core::scan::session(None).read_table(provider)?;
    let batches = frame.collect().await?;
    let text = arrow::util::pretty::pretty_format_batches(&batches)
        .unwrap()
        .to_string();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|l| !l.starts_with('+'))
        .map(str::to_owned)
        .collect();
    lines.sort();
    Ok(lines)
}

/// What is run, and once more after a fault.
trait Repeated: Copy {
    /// Whether it was this run that did it.
    async fn run(self, store: Store) -> Result<bool>;

    /// All that can be seen of it.
    async fn seen(store: &Store) -> Vec<String>;

    /// Whether this error says that it was done before.
    fn was_done(self, _: &Error) -> bool {
        false
    }
}

/// One request of it fails: it was done or not, as it says, and running it again does it.
async fn survives<R: Repeated>(
    memory: &InMemory,
    step: R,
    case: &str,
    at: u64,
    fault: Fault,
    after: &[String],
) {
    let healthy = over(memory);
    let before = R::seen(&healthy).await;
    let (store, faults) = faulty(&healthy);
    faults.fail_at(at, fault);
    let result = step.run(store).await;
    let case = format!("{case}: {fault:?} at request {at}: {result:?}");
    let found = R::seen(&healthy).await;
    match &result {
        Ok(committed) => {
            assert!(committed, "{case}: it was this run, and nobody else was there");
            assert_eq!(found, after, "{case}: acknowledged, but not there");
        }
        Err(Error::CommitUnknown { .. }) => assert!(found == before || found == after, "{case}: {found:?}"),
        Err(_) => assert_eq!(found, before, "{case}: and yet it landed"),
    }
    faults.deliver(&healthy).await;
    match step.run(healthy.clone()).await {
        Err(error) if !step.was_done(&error) => panic!("{case}: running it again: {error}"),
        _ => {}
    }
    assert_eq!(R::seen(&healthy).await, after, "{case}: after running it again");
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

/// The same objects, on their own from here on.
fn over(memory: &InMemory) -> Store {
    Store::over(Arc::new(memory.fork()), "memory://faults".parse().unwrap())
}

async fn open_and_run(store: Store, verb: Verb, options: &Options) -> Result<Report> {
    let table = Table::open_in(store).await?;
    verb.run(&table, options).await
}

/// One operation on one table: what the table is before it, what it should be after it.
struct Scene {
    place: Place,
    name: String,
    verb: Verb,
    options: Options,
    before: Vec<String>,
    after: Vec<String>,
    keys_before: Vec<String>,
    objects_after: usize,
    /// Requests of a run in which all goes well: how many, and which.
    requests: u64,
    log: Vec<(Kind, String)>,
}

impl Scene {
    async fn new(place: &Place, format: (TableFormat, Option<u8>), verb: Verb) -> Self {
        let store = place.fresh();
        let (before, keys_before) = (content(&store).await, keys(&store).await);
        // "-1" would mean another version the second time: the token makes that a no-op as well.
        let options = Options {
            token: Some(format!("once-{verb:?}").into()),
            ..Options::default()
        };
        let (store, faults) = faulty(&store);
        let report = open_and_run(store.clone(), verb, &options).await.unwrap();
        assert!(report.committed, "{verb:?}: {report:?}");
        let (requests, log) = (faults.requests(), faults.log());
        Self {
            name: format!("{} {:?} {verb:?} {place:?}", format.0, format.1),
            place: place.clone(),
            verb,
            options,
            before,
            after: content(&store).await,
            objects_after: keys(&store).await.len(),
            keys_before,
            requests,
            log,
        }
    }

    /// Runs the operation with these requests failing, looks, and runs it again in health. Returns how many of the
    /// faults were met, and the requests of the first run.
    async fn run(&self, armed: &[(u64, Fault)]) -> (u64, Vec<(Kind, String)>) {
        let healthy = self.place.fresh();
        let (store, faults) = faulty(&healthy);
        for (at, fault) in armed {
            faults.fail_at(*at, *fault);
        }
        let (name, requests) = (&self.name, self.requests);
        let case = format!("{name}: {armed:?} of {requests} requests");
        let result = open_and_run(store, self.verb, &self.options).await;
        let (fired, log) = (faults.fired(), faults.log());
        // Listed before it is read, so that what arrives late makes a difference.
        let mut objects = healthy.list("").await.unwrap();
        let mut found = content(&healthy).await;
        match &result {
            Ok(report) => {
                assert!(report.committed, "{case}: {report:?}");
                assert_eq!(found, self.after, "{case}: acknowledged, but not there");
                // Names are new each time; a fault may keep an aid such as the hint from being written.
                if let [(_, fault)] = armed
                    && !matches!(fault, Fault::Late | Fault::Stray)
                {
                    let (now, then) = (keys(&healthy).await.len(), self.objects_after);
                    assert!(
                        now <= then,
                        "{case}: {now} objects instead of {then}: files left behind"
                    );
                }
                assert!(
                    report.attempts == 1 || armed.iter().any(|(_, fault)| *fault == Fault::StaleList),
                    "{case}: lost a race, and nobody else was there: {report:?}"
                );
            }
            Err(Error::CommitUnknown { .. }) => {
                assert!(
                    found == self.before || found == self.after,
                    "{case}: torn: {found:?}"
                );
            }
            Err(error) => {
                assert_eq!(found, self.before, "{case}: {error}, and yet it landed\n{log:?}");
                // A second fault may hit the cleaning, and what arrives late may arrive after it.
                if let [(_, fault)] = armed
                    && !matches!(fault, Fault::Crash | Fault::Late | Fault::Stray)
                {
                    let keys = keys(&healthy).await;
                    assert_eq!(keys, self.keys_before, "{case}: {error}: files left behind");
                }
            }
        }
        // What is late arrives before the operation is run again, or after it.
        let before_again = armed.iter().map(|(at, _)| at).sum::<u64>() % 2 == 0;
        if before_again && faults.deliver(&healthy).await > 0 {
            // It may settle what was unknown, and nothing else.
            let (then, unknown) = (found, matches!(result, Err(Error::CommitUnknown { .. })));
            objects = healthy.list("").await.unwrap();
            found = content(&healthy).await;
            assert!(
                found == then || unknown && found == self.after,
                "{case}: {result:?}, and then something arrived: {found:?}"
            );
        }
        let second = open_and_run(healthy.clone(), self.verb, &self.options).await;
        let second = second.unwrap_or_else(|error| panic!("{case}: running it again: {error}"));
        faults.deliver(&healthy).await;
        // Of the same objects the same rows are read.
        let found = match healthy.list("").await.unwrap() == objects {
            true => found,
            false => content(&healthy).await,
        };
        assert_eq!(found, self.after, "{case}: after running it again");
        if result.is_ok() {
            assert!(
                second.already.is_some(),
                "{case}: the key was not recorded: {second:?}"
            );
        }
        (fired, log)
    }
}

/// "The version before" is another one for whoever is not told of the newest.
fn means_nothing(fault: Fault, verb: Verb) -> bool {
    fault == Fault::StaleList && matches!(verb, Verb::Restore)
}

/// On one thread, with pauses that take no time.
fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(clock::simulated(Arc::new(clock::Source::new(1)), future));
}
