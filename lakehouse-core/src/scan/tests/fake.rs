//! A format that keeps everything in memory, and files as different writers leave them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use url::Url;

use crate::error::{Error, Result};
use crate::format::{Format, Handle, Outcome};
use crate::model::schema::{FIELD_ID, PHYSICAL_NAME};
use crate::model::{
    At, Capabilities, Change, ColumnStats, CommitId, CommitInfo, DataFile, Definition, EqualityDelete,
    MaskRef, PartitionField, Prune, RowMask, Snapshot, Token, Transform, Version, made_up,
};
use crate::store::Store;

/// How files name their columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// By field id; old files have other names, and other columns under today's names.
    Ids,
    /// By physical name (Delta column mapping), without ids.
    Physical,
    /// By name.
    Plain,
}

/// One row of the table `id, a, s, f, day, st {x, y}, l`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) a: Option<i32>,
    pub(super) s: Option<String>,
    pub(super) f: Option<f32>,
    /// Member x and y of a struct that is there.
    pub(super) st: Option<(Option<i32>, Option<String>)>,
    pub(super) l: Option<Vec<Option<i32>>>,
    /// Stored lineage: row id, sequence.
    pub(super) lineage: (Option<i64>, Option<i64>),
}

/// A file to be written.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) rows: Vec<Row>,
    pub(super) day: Option<i32>,
    /// Written before columns were renamed, widened and added.
    pub(super) old: bool,
    pub(super) lineage: bool,
    pub(super) rows_per_group: usize,
    pub(super) mask: RowMask,
    pub(super) exact: bool,
    pub(super) sequence: i64,
    pub(super) first_row_id: Option<i64>,
    pub(super) deletes: Vec<Arc<EqualityDelete>>,
}

#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) files: Vec<DataFile>,
    pub(super) masks: HashMap<String, RowMask>,
}

pub(super) struct Table {
    pub(super) handle: Handle,
    pub(super) snapshot: Arc<Snapshot>,
}

fn tag(field: Field, naming: Naming, id: i32) -> Field {
    let mut metadata = HashMap::new();
    match naming {
        Naming::Ids => {
            metadata.insert(FIELD_ID.to_owned(), id.to_string());
        }
        Naming::Physical => {
            metadata.insert(FIELD_ID.to_owned(), id.to_string());
            metadata.insert(PHYSICAL_NAME.to_owned(), format!("col-{id}"));
        }
        Naming::Plain => {}
    }
    field.with_metadata(metadata)
}

/// What users see.
pub(super) fn table_schema(naming: Naming) -> SchemaRef {
    let member = |name: &str, data_type, id| tag(Field::new(name, data_type, true), naming, id);
    let st = Fields::from(vec![
        member("x", DataType::Int64, 7),
        member("y", DataType::Utf8, 8),
    ]);
    let item = Arc::new(member("element", DataType::Int32, 11));
    Arc::new(Schema::new(vec![
        tag(Field::new("id", DataType::Int64, false), naming, 1),
        member("a", DataType::Int32, 2),
        member("s", DataType::Utf8, 3),
        member("f", DataType::Float64, 4),
        member("day", DataType::Date32, 5),
        member("st", DataType::Struct(st), 6),
        member("l", DataType::List(item), 10),
    ]))
}

impl Table {
    pub(super) fn new(naming: Naming, partition_in_files: bool) -> Self {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = Store::over(inner, Url::parse("memory:///t").unwrap());
        let day = PartitionField {
            source: "day".to_owned(),
            transform: Transform::Identity,
            name: "day".to_owned(),
            field_id: 1000,
            zone_slack_days: 0,
        };
        let made_up = made_up::snapshot(table_schema(naming), vec![vec![day]]);
        let snapshot = Snapshot {
            capabilities: Capabilities {
                refs: false,
                partition_columns_in_files: partition_in_files,
                append_over_schema_change: false,
                ..made_up.capabilities
            },
            lineage: Some(crate::model::schema::lineage_by_id()),
            ..made_up
        };
        Self {
            handle: Handle {
                store,
                format: Arc::new(Fake::default()),
            },
            snapshot: Arc::new(snapshot),
        }
    }

    /// Writes the files and makes them the table's.
    pub(super) async fn load(&mut self, naming: Naming, specs: &[Spec]) {
        let mut fake = Fake::default();
        for (index, spec) in specs.iter().enumerate() {
            let path = format!("data/f {index}%41.parquet");
            let in_files = self.snapshot.capabilities.partition_columns_in_files;
            let batch = file_batch(spec, naming, in_files);
            let bytes = self.put(&path, &batch, spec.rows_per_group).await;
            if !spec.mask.is_empty() {
                fake.masks.insert(path.clone(), spec.mask.clone());
            }
            fake.files.push(data_file(path, bytes, spec));
        }
        self.handle.format = Arc::new(fake);
    }

    pub(super) async fn put(&self, path: &str, batch: &RecordBatch, rows_per_group: usize) -> u64 {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(rows_per_group))
            .set_data_page_row_count_limit(rows_per_group.div_ceil(2))
            .set_write_batch_size(2)
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        let size = bytes.len() as u64;
        let key = object_store::path::Path::parse(path).unwrap();
        self.handle
            .store
            .object_store()
            .put(&key, bytes.into())
            .await
            .unwrap();
        size
    }
}

fn data_file(path: String, bytes: u64, spec: &Spec) -> DataFile {
    let stats = |min: ScalarValue, max: ScalarValue, nulls: usize, exact| ColumnStats {
        values: Some(spec.rows.len() as u64),
        nulls: Some(nulls as u64),
        nans: Some(0),
        min: (!min.is_null()).then_some(min),
        max: (!max.is_null()).then_some(max),
        exact,
        bytes: None,
    };
    let mut columns = BTreeMap::new();
    let ids = || spec.rows.iter().map(|row| row.id);
    let min_max = |min, max| (ScalarValue::Int64(min), ScalarValue::Int64(max));
    let (min, max) = min_max(ids().min(), ids().max());
    columns.insert("id".to_owned(), stats(min, max, 0, spec.exact));
    let a = || spec.rows.iter().filter_map(|row| row.a);
    let nulls = spec.rows.iter().filter(|row| row.a.is_none()).count();
    columns.insert(
        "a".to_owned(),
        stats(
            ScalarValue::Int32(a().min()),
            ScalarValue::Int32(a().max()),
            nulls,
            spec.exact,
        ),
    );
    // Truncated bounds: no value is smaller or larger.
    let s = || spec.rows.iter().filter_map(|row| row.s.as_deref());
    let nulls = spec.rows.iter().filter(|row| row.s.is_none()).count();
    let min = s().min().map(|s| s[..s.len().min(1)].to_owned());
    let max = s().max().map(|s| format!("{}~", &s[..s.len().min(1)]));
    columns.insert(
        "s".to_owned(),
        stats(ScalarValue::Utf8(min), ScalarValue::Utf8(max), nulls, false),
    );
    let masks = (!spec.mask.is_empty()).then(|| MaskRef {
        path: format!("{path}.mask"),
        recorded: format!("{path}.mask"),
        offset: None,
        bytes: None,
        inline: None,
        rows: Some(spec.mask.len()),
        shared: false,
    });
    DataFile {
        partition: vec![ScalarValue::Date32(spec.day)],
        columns,
        masks: masks.into_iter().collect(),
        equality_deletes: spec.deletes.clone(),
        sequence: Some(spec.sequence),
        first_row_id: spec.first_row_id,
        ..made_up::data_file(path, bytes, spec.rows.len() as u64)
    }
}

/// The rows as the file has them.
fn file_batch(spec: &Spec, naming: Naming, partition_in_files: bool) -> RecordBatch {
    let rows = &spec.rows;
    let named = |name: &str, old: &str, data_type: &DataType, id: i32| {
        let spelled = match (naming, spec.old) {
            (Naming::Ids, true) => old.to_owned(),
            (Naming::Physical, _) => format!("col-{id}"),
            _ => name.to_owned(),
        };
        let field = Field::new(spelled, data_type.clone(), true);
        if naming == Naming::Ids {
            tag(field, naming, id)
        } else {
            field
        }
    };
    let mut columns: Vec<(Field, ArrayRef)> = Vec::new();
    let mut add = |name: &str, old: &str, id, values: ArrayRef| {
        columns.push((named(name, old, values.data_type(), id), values));
    };
    add(
        "f",
        "f",
        4,
        if spec.old {
            Arc::new(Float32Array::from_iter(rows.iter().map(|r| r.f)))
        } else {
            Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.f.map(f64::from))))
        },
    );
    add(
        "id",
        "key",
        1,
        if spec.old {
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.id as i32)))
        } else {
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id)))
        },
    );
    add(
        "a",
        "b",
        2,
        Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.a))),
    );
    add(
        "s",
        "text",
        3,
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.s.as_deref()))),
    );
    if partition_in_files {
        add(
            "day",
            "day",
            5,
            Arc::new(Date32Array::from_iter(rows.iter().map(|_| spec.day))),
        );
    }
    let x = rows.iter().map(|r| r.st.as_ref().and_then(|st| st.0));
    let y = rows.iter().map(|r| r.st.as_ref().and_then(|st| st.1.as_deref()));
    let there = NullBuffer::from_iter(rows.iter().map(|r| r.st.is_some()));
    let st = if spec.old {
        let x: ArrayRef = Arc::new(Int32Array::from_iter(x));
        let junk: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "junk")));
        // A member of today's name that is another one.
        let members = vec![
            named("y", "y", &DataType::Utf8, 97),
            named("x", "ex", x.data_type(), 7),
        ];
        let values = vec![junk, x];
        if naming == Naming::Plain {
            StructArray::try_new(
                vec![members[1].clone()].into(),
                vec![Arc::clone(&values[1])],
                Some(there),
            )
        } else {
            StructArray::try_new(members.into(), values, Some(there))
        }
    } else {
        let values: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter(y)),
            Arc::new(Int64Array::from_iter(x.map(|x| x.map(i64::from)))),
        ];
        let members = vec![
            named("y", "y", &DataType::Utf8, 8),
            named("x", "x", &DataType::Int64, 7),
        ];
        StructArray::try_new(members.into(), values, Some(there))
    };
    add("st", "st", 6, Arc::new(st.unwrap()));
    if !spec.old {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(rows.iter().map(|r| r.l.clone()));
        add("l", "l", 10, Arc::new(lists));
    } else if naming == Naming::Ids {
        // Another column under a name that is in use today.
        add(
            "a",
            "a",
            98,
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "decoy"))),
        );
    }
    if spec.lineage {
        let stored = [
            ("_row_id", crate::model::schema::ROW_ID_FIELD_ID),
            (
                "_last_updated_sequence_number",
                crate::model::schema::LAST_UPDATED_FIELD_ID,
            ),
        ];
        for (index, (name, id)) in stored.into_iter().enumerate() {
            let values = rows
                .iter()
                .map(|r| if index == 0 { r.lineage.0 } else { r.lineage.1 });
            let values: ArrayRef = Arc::new(Int64Array::from_iter(values));
            let field = Field::new(name, DataType::Int64, true);
            let field = if naming == Naming::Ids {
                tag(field, naming, id)
            } else {
                field
            };
            columns.push((field, values));
        }
    }
    let (fields, values): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), values).unwrap()
}

impl Format for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn files(&self, snapshot: &Arc<Snapshot>, prune: Arc<Prune>) -> BoxStream<'static, Result<DataFile>> {
        let keep = prune.keep_files(snapshot, &self.files);
        let kept = |keep: Vec<bool>| -> Vec<DataFile> {
            let pairs = self.files.iter().zip(keep);
            pairs
                .filter(|(_, keep)| *keep)
                .map(|(file, _)| file.clone())
                .collect()
        };
        match keep.map(kept) {
            Ok(files) => futures::stream::iter(files.into_iter().map(Ok)).boxed(),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn masks<'a>(&'a self, _: &'a Snapshot, files: &'a [DataFile]) -> BoxFuture<'a, Result<Vec<RowMask>>> {
        Box::pin(async move { Ok(files.iter().map(|file| self.masks[&file.path].clone()).collect()) })
    }

    fn create<'a>(&'a self, _: &'a Definition, _: &'a CommitId) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn snapshot<'a>(&'a self, _: &'a At) -> BoxFuture<'a, Result<Arc<Snapshot>>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn stage_masks<'a>(
        &'a self,
        _: &'a Snapshot,
        _: Vec<(DataFile, RowMask)>,
        _: &'a CommitId,
    ) -> BoxFuture<'a, Result<(Vec<DataFile>, Vec<String>)>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn changes<'a>(&'a self, _: &'a Snapshot, _: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Change>>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn publish<'a>(&'a self, _: &'a Arc<Snapshot>, _: &'a Change) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn find<'a>(&'a self, _: &'a CommitId, _: &'a Snapshot) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn find_token<'a>(&'a self, _: &'a Snapshot, _: &'a Token) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn last_step<'a>(&'a self, _: &'a Snapshot, _: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn history<'a>(&'a self, _: &'a At, _: Option<usize>) -> BoxFuture<'a, Result<Vec<CommitInfo>>> {
        Box::pin(async move { Err(read_only()) })
    }

    fn reachable<'a>(&'a self, _: Option<&'a [Version]>) -> BoxFuture<'a, Result<BTreeSet<String>>> {
        Box::pin(async move { Err(read_only()) })
    }
}

fn read_only() -> Error {
    Error::unsupported("this format only reads", "")
}
