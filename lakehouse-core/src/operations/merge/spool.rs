//! Source rows that do not fit in memory: on disk, in parts that do. Rows of one key are in one part, in
//! the order in which they came, so that a part can be merged without looking at the others.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufReader, BufWriter, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::row::{RowConverter, SortField};

use super::source::PER_ROW;
use crate::error::{Error, Result};
use crate::model::floats::as_compared;
use crate::write::conform_at;

/// Parts that rows are spread over. Each has to fit, so a source may be this many times as large as what fits.
const PARTS: usize = 64;
/// Rows of a part that are written at once.
const ROWS: usize = 2048;
/// Rows of a batch that is read back.
const READ_ROWS: usize = 8192;

/// Takes rows.
pub(super) struct Spool {
    schema: SchemaRef,
    /// Indices of the key columns, and what makes bytes of them; rows without a key are dealt out in turn.
    keys: Option<Keys>,
    parts: Vec<Open>,
    turn: usize,
    rows: u64,
    /// Bytes that wait to be written, and how many may.
    waiting: usize,
    most_waiting: usize,
}

/// What tells in which part a row belongs: its key as the merge compares it.
struct Keys {
    indices: Vec<usize>,
    fitted: Schema,
    converter: RowConverter,
}

struct Open {
    writer: StreamWriter<BufWriter<File>>,
    waiting: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

/// Rows on disk, gone with this value.
pub(super) struct Part {
    file: File,
    schema: SchemaRef,
    /// What they take in memory to be merged, about.
    pub(super) bytes: usize,
}

impl Spool {
    /// Parts by these columns, brought to the types that `fitted` gives them; by turns if there are none. Up to
    /// `most_waiting` bytes are held.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub(super) fn new(
        schema: SchemaRef,
        fitted: &Schema,
        keys: &[String],
        most_waiting: usize,
    ) -> Result<Self> {
        let mut indices = Vec::with_capacity(keys.len());
        for key in keys {
            indices.push(schema.index_of(key)?);
        }
        let keys = match indices.is_empty() {
            true => None,
            false => {
                let fitted = fitted.project(&indices)?;
                let fields = fitted.fields().iter();
                let fields = fields
                    .map(|field| SortField::new(field.data_type().clone()))
                    .collect();
                Some(Keys {
                    indices,
                    converter: RowConverter::new(fields)?,
                    fitted,
                })
            }
        };
        let mut parts = Vec::with_capacity(PARTS);
        for _ in 0..PARTS {
            let file = tempfile::tempfile().map_err(on_disk)?;
            parts.push(Open {
                writer: StreamWriter::try_new(BufWriter::new(file), &schema)?,
                waiting: Vec::new(),
                rows: 0,
                bytes: 0,
            });
        }
        Ok(Self {
            schema,
            keys,
            parts,
            turn: 0,
            rows: 0,
            waiting: 0,
            most_waiting,
        })
    }

    /// Takes rows of the schema.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); PARTS];
        let count =
            u32::try_from(batch.num_rows()).map_err(|_| Error::invalid("a batch is too long", "source"))?;
        match &self.keys {
            Some(keys) => {
                let columns = conform_at(&batch.project(&keys.indices)?, &keys.fitted, self.rows)?;
                let columns: Vec<ArrayRef> = columns.columns().iter().map(as_compared).collect();
                let keys = keys.converter.convert_columns(&columns)?;
                for (row, key) in (0..count).zip(keys.iter()) {
                    let mut hasher = DefaultHasher::new();
                    hasher.write(key.as_ref());
                    rows[(hasher.finish() % PARTS as u64) as usize].push(row);
                }
            }
            None => {
                rows[self.turn % PARTS].extend(0..count);
                self.turn += 1;
            }
        }
        for (part, rows) in self.parts.iter_mut().zip(rows) {
            if rows.is_empty() {
                continue;
            }
            part.rows += rows.len();
            let taken = compact(take_record_batch(batch, &UInt32Array::from(rows))?)?;
            self.waiting += taken.get_array_memory_size();
            part.waiting.push(taken);
            if part.rows >= ROWS {
                self.waiting -= part.write(&self.schema)?;
            }
        }
        self.rows += u64::from(count);
        if self.waiting > self.most_waiting {
            for part in &mut self.parts {
                part.write(&self.schema)?;
            }
            self.waiting = 0;
        }
        Ok(())
    }

    /// The parts that have rows.
    ///
    /// # Errors
    /// When the last rows cannot be written.
    pub(super) fn finish(self) -> Result<Vec<Part>> {
        let mut parts = Vec::with_capacity(PARTS);
        for mut open in self.parts {
            open.write(&self.schema)?;
            open.writer.finish()?;
            if open.bytes > 0 {
                let file = open
                    .writer
                    .into_inner()?
                    .into_inner()
                    .map_err(|e| on_disk(e.into_error()))?;
                parts.push(Part {
                    file,
                    schema: self.schema.clone(),
                    bytes: open.bytes,
                });
            }
        }
        Ok(parts)
    }
}

impl Open {
    /// Writes what waits; tells how many bytes of memory that was.
    fn write(&mut self, schema: &SchemaRef) -> Result<usize> {
        if self.rows == 0 {
            return Ok(0);
        }
        let waiting = self.waiting.iter().map(RecordBatch::get_array_memory_size).sum();
        let batch = concat_batches(schema, &self.waiting)?;
        self.waiting.clear();
        self.rows = 0;
        self.bytes += batch.get_array_memory_size() + batch.num_rows() * PER_ROW;
        self.writer.write(&batch)?;
        Ok(waiting)
    }
}

/// Rows that own what they hold: taking some rows of a view array keeps the text of all.
fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    });
    Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
}

impl Part {
    /// The rows, in the order in which they came.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn read(&self) -> Result<Vec<RecordBatch>> {
        let mut file = self.file.try_clone().map_err(on_disk)?;
        file.seek(SeekFrom::Start(0)).map_err(on_disk)?;
        let mut batches = Vec::new();
        let mut waiting = Vec::new();
        let mut rows = 0;
        for batch in StreamReader::try_new(BufReader::new(file), None)? {
            let batch = batch?;
            rows += batch.num_rows();
            waiting.push(batch);
            if rows >= READ_ROWS {
                batches.push(concat_batches(&self.schema, &waiting)?);
                waiting.clear();
                rows = 0;
            }
        }
        if rows > 0 {
            batches.push(concat_batches(&self.schema, &waiting)?);
        }
        Ok(batches)
    }
}

fn on_disk(source: std::io::Error) -> Error {
    Error::Store {
        action: "spill the source of the merge to",
        path: std::env::temp_dir().display().to_string(),
        source: object_store::Error::Generic {
            store: "temporary files",
            source: Box::new(source),
        },
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type};
    use std::collections::HashMap;

    use super::*;

    fn batch(from: i64, count: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
        ]));
        let ids: Int64Array = (from..from + count)
            .map(|i| (i % 7 != 0).then_some(i % 500))
            .collect();
        let text: StringArray = (from..from + count).map(|i| Some(format!("row {i}"))).collect();
        RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(text)]).unwrap()
    }

    #[test]
    fn rows_of_one_key_come_back_from_one_part_in_their_order() {
        for keys in [vec!["id".to_owned()], Vec::new()] {
            let schema = batch(0, 1).schema();
            let mut spool = Spool::new(Arc::clone(&schema), &schema, &keys, 100_000).unwrap();
            for from in 0..40 {
                spool.add(&batch(from * 1000, 1000)).unwrap();
            }
            let mut seen: HashMap<Option<i64>, (usize, i64)> = HashMap::new();
            let mut total = 0;
            for (number, part) in spool.finish().unwrap().iter().enumerate() {
                for _ in 0..2 {
                    assert_eq!(part.read().unwrap().len(), part.read().unwrap().len());
                }
                for batch in part.read().unwrap() {
                    total += batch.num_rows();
                    let ids = batch.column(0).as_primitive::<Int64Type>();
                    let texts = batch.column(1).as_string::<i32>();
                    for (id, text) in ids.iter().zip(texts) {
                        let row: i64 = text.unwrap()[4..].parse().unwrap();
                        assert_eq!(id, (row % 7 != 0).then_some(row % 500));
                        let (part, last) = seen.entry(id).or_insert((number, -1));
                        if !keys.is_empty() {
                            assert_eq!(*part, number, "key {id:?} is in two parts");
                            assert!(row > *last, "key {id:?} lost its order");
                        }
                        *last = row;
                    }
                }
            }
            assert_eq!(total, 40_000);
        }
    }
}
