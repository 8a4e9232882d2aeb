//! From counted rows to lines of a difference: what was inserted, deleted, and changed where a key matches.

use std::iter::{from_fn, repeat_n};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::row::RowConverter;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::spelling::{canonical, converter};
use crate::error::{Error, Result};

/// Name of the column that says what became of a row (that of Delta's change feed).
pub const CHANGE_TYPE: &str = "_change_type";

/// Rows of a batch that is given out.
const BATCH_ROWS: usize = 8192;

/// What became of a row, in the words of Delta's change feed (Delta protocol, "Change Data Files").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeType {
    /// Only the second version has it.
    Insert,
    /// Only the first version has it.
    Delete,
    /// The first version has it; the second has another one with its key, which follows.
    UpdatePreimage,
    /// The second version has it, instead of the one before.
    UpdatePostimage,
}

impl ChangeType {
    /// The word in the column [`CHANGE_TYPE`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::UpdatePreimage => "update_preimage",
            Self::UpdatePostimage => "update_postimage",
        }
    }

    fn of(count: i64) -> Self {
        if count > 0 { Self::Insert } else { Self::Delete }
    }
}

/// How many rows are different.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows that only the second version has.
    pub added: u64,
    /// Rows that only the first version has.
    pub removed: u64,
    /// Rows with a key that both versions have, and other values; not among those above.
    pub changed: u64,
    /// Keys that both versions have, one of them in several rows that are different: these rows count as added and
    /// removed, because nothing tells which became which.
    pub ambiguous_keys: u64,
}

/// How rows come in and go out.
#[derive(Debug)]
pub(super) struct Lines {
    /// The columns that come in as bytes, key columns first.
    fields: Vec<FieldRef>,
    /// How many of them are the key; 0 for none.
    keys: usize,
    /// Which of `fields` each column of the result is.
    order: Vec<usize>,
    /// The columns of the result: those of the table, then [`CHANGE_TYPE`].
    pub(super) schema: SchemaRef,
}

impl Lines {
    /// `columns` as they are to be shown, and which of them are the key.
    pub(super) fn new(columns: &[FieldRef], key: &[usize]) -> Self {
        let rest = (0..columns.len()).filter(|at| !key.contains(at));
        let places: Vec<usize> = key.iter().copied().chain(rest).collect();
        let shown = (0..columns.len()).filter_map(|at| places.iter().position(|place| *place == at));
        let mut fields = columns.to_vec();
        fields.push(Arc::new(Field::new(CHANGE_TYPE, DataType::Utf8, false)));
        Self {
            order: shown.collect(),
            fields: places.into_iter().map(|at| Arc::clone(&columns[at])).collect(),
            keys: key.len(),
            schema: Arc::new(Schema::new(fields)),
        }
    }

    /// The names of the columns as they are to come in.
    pub(super) fn places(&self) -> impl Iterator<Item = &FieldRef> {
        self.fields.iter()
    }

    /// The lines of rows that come as bytes in the order of these, with how often more the second version has them
    /// (negative: the first). What is counted is added to `counts`.
    pub(super) fn of(
        self: Arc<Self>,
        rows: SendableRecordBatchStream,
        counts: Arc<Mutex<RowCounts>>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let types = self.fields.iter().map(|field| field.data_type());
        let made = converter(types.clone()).and_then(|all| Ok((all, converter(types.take(self.keys))?)));
        let (all, key) = match made {
            Ok(made) => made,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let pairing = Pairing {
            lines: self,
            all,
            key,
            held: None,
            crowded: None,
            counts,
        };
        let parts = stream::try_unfold(Some((rows, pairing)), |state| async move {
            let Some((mut rows, mut pairing)) = state else {
                return Ok::<_, Error>(None);
            };
            Ok(match rows.try_next().await? {
                Some(batch) => {
                    let part = pairing.push(&batch)?;
                    Some((part, Some((rows, pairing))))
                }
                None => Some((pairing.finish()?, None)),
            })
        });
        parts
            .map_ok(|part| stream::iter(part.batches()))
            .try_flatten()
            .boxed()
    }
}

/// Rows with how often each is there more in the second version.
struct Counted {
    columns: Vec<ArrayRef>,
    counts: Vec<i64>,
}

impl Counted {
    fn slice(&self, rows: Range<usize>) -> Self {
        let columns = self.columns.iter();
        Self {
            columns: columns
                .map(|column| column.slice(rows.start, rows.len()))
                .collect(),
            counts: self.counts[rows].to_vec(),
        }
    }

    fn followed_by(self, other: Self) -> Result<Self> {
        let both = self.columns.iter().zip(&other.columns);
        let columns = both.map(|(one, other)| concat(&[one.as_ref(), other.as_ref()]));
        Ok(Self {
            columns: columns.collect::<Result<_, _>>()?,
            counts: [self.counts, other.counts].concat(),
        })
    }
}

/// Finds rows with the same key among rows that come in the order of their keys. Two of them are held at most.
struct Pairing {
    lines: Arc<Lines>,
    all: RowConverter,
    key: RowConverter,
    /// The rows with the last key, if more of them may follow and they may still become a pair.
    held: Option<Counted>,
    /// The last key, if there were too many rows of it, and whether some were removed, some added.
    crowded: Option<Crowd>,
    counts: Arc<Mutex<RowCounts>>,
}

struct Crowd {
    key: Vec<u8>,
    removed: bool,
    added: bool,
}

impl Pairing {
    fn push(&mut self, batch: &RecordBatch) -> Result<Part> {
        let rows = self.decode(batch)?;
        let rows = match self.held.take() {
            Some(held) => held.followed_by(rows)?,
            None => rows,
        };
        self.judge(rows, false)
    }

    fn finish(&mut self) -> Result<Part> {
        match self.held.take() {
            Some(held) => self.judge(held, true),
            None => Ok(self.part(Vec::new(), Vec::new())),
        }
    }

    fn decode(&self, batch: &RecordBatch) -> Result<Counted> {
        let compared = batch.column(0).as_binary::<i64>();
        let stored = batch.column(2).as_binary::<i64>();
        let parser = self.all.parser();
        let rows = (0..batch.num_rows()).map(|at| {
            let bytes = if stored.is_null(at) { compared } else { stored };
            parser.parse(bytes.value(at))
        });
        Ok(Counted {
            columns: self.all.convert_rows(rows)?,
            counts: batch.column(1).as_primitive::<Int64Type>().values().to_vec(),
        })
    }

    fn judge(&mut self, rows: Counted, last: bool) -> Result<Part> {
        let total = rows.counts.len();
        let mut lines = Vec::with_capacity(total);
        if self.lines.keys == 0 {
            self.plain(&rows, 0..total, &mut lines);
            return Ok(self.part(rows.columns, lines));
        }
        let key = rows.columns.iter().take(self.lines.keys);
        let key = key.map(canonical).collect::<Result<Vec<_>>>()?;
        let keys = self.key.convert_columns(&key)?;
        let mut start = 0;
        while start < total {
            let mut end = start + 1;
            while end < total && keys.row(end) == keys.row(start) {
                end += 1;
            }
            let key = keys.row(start);
            if self.crowded.as_ref().is_some_and(|crowd| crowd.key == key.data()) {
                self.crowd(&rows, start..end);
                self.plain(&rows, start..end, &mut lines);
            } else if end == total && !last && end - start <= 2 {
                self.held = Some(rows.slice(start..end));
                break;
            } else if let [one, other] = rows.counts[start..end]
                && one.abs() == 1
                && one + other == 0
            {
                let (old, new) = if one < 0 {
                    (start, start + 1)
                } else {
                    (start + 1, start)
                };
                lines.push(Line::once(old, ChangeType::UpdatePreimage));
                lines.push(Line::once(new, ChangeType::UpdatePostimage));
                self.count(|counts| counts.changed += 1);
            } else {
                self.crowded = Some(Crowd {
                    key: key.data().to_vec(),
                    removed: false,
                    added: false,
                });
                self.crowd(&rows, start..end);
                self.plain(&rows, start..end, &mut lines);
            }
            start = end;
        }
        Ok(self.part(rows.columns, lines))
    }

    /// Notes more rows of the last key. It is ambiguous as soon as rows of it were both removed and added.
    fn crowd(&mut self, rows: &Counted, range: Range<usize>) {
        let Some(crowd) = &mut self.crowded else { return };
        let known = crowd.removed && crowd.added;
        crowd.removed |= rows.counts[range.clone()].iter().any(|count| *count < 0);
        crowd.added |= rows.counts[range].iter().any(|count| *count > 0);
        if !known && crowd.removed && crowd.added {
            self.count(|counts| counts.ambiguous_keys += 1);
        }
    }

    fn plain(&self, rows: &Counted, range: Range<usize>, lines: &mut Vec<Line>) {
        let (mut added, mut removed) = (0, 0);
        for at in range {
            let count = rows.counts[at];
            let times = count.unsigned_abs();
            if count > 0 {
                added += times;
            } else {
                removed += times;
            }
            lines.push(Line {
                row: at as u64,
                change: ChangeType::of(count),
                times,
            });
        }
        self.count(|counts| {
            counts.added += added;
            counts.removed += removed;
        });
    }

    fn count(&self, add: impl FnOnce(&mut RowCounts)) {
        add(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn part(&self, columns: Vec<ArrayRef>, lines: Vec<Line>) -> Part {
        Part {
            shape: Arc::clone(&self.lines),
            columns,
            lines,
        }
    }
}

/// A row of the result, and how often it is there.
struct Line {
    row: u64,
    change: ChangeType,
    times: u64,
}

impl Line {
    fn once(row: usize, change: ChangeType) -> Self {
        Self {
            row: row as u64,
            change,
            times: 1,
        }
    }
}

/// Lines that are given out batch by batch: a row may be there any number of times.
struct Part {
    shape: Arc<Lines>,
    columns: Vec<ArrayRef>,
    lines: Vec<Line>,
}

impl Part {
    fn batches(self) -> impl Iterator<Item = Result<RecordBatch>> + Send {
        let (mut at, mut done) = (0, 0);
        from_fn(move || {
            let mut rows: Vec<u64> = Vec::new();
            let mut changes: Vec<&'static str> = Vec::new();
            while let Some(line) = self.lines.get(at)
                && rows.len() < BATCH_ROWS
            {
                let room = BATCH_ROWS - rows.len();
                let times = usize::try_from(line.times - done).unwrap_or(usize::MAX).min(room);
                rows.extend(repeat_n(line.row, times));
                changes.extend(repeat_n(line.change.name(), times));
                done += times as u64;
                if done == line.times {
                    (at, done) = (at + 1, 0);
                }
            }
            (!rows.is_empty()).then(|| self.batch(rows, changes))
        })
    }

    fn batch(&self, rows: Vec<u64>, changes: Vec<&'static str>) -> Result<RecordBatch> {
        let rows = UInt64Array::from(rows);
        let order = self.shape.order.iter();
        let mut columns = order
            .map(|at| take(&self.columns[*at], &rows, None))
            .collect::<Result<Vec<_>, _>>()?;
        columns.push(Arc::new(StringArray::from(changes)));
        Ok(RecordBatch::try_new(Arc::clone(&self.shape.schema), columns)?)
    }
}
