//! The rows and the open file of one partition.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::scalar::ScalarValue;
use object_store::WriteMultipart;

use super::encode::Encoder;
use super::rows::Rows;
use super::trace::LaneTrace;
use crate::error::{Error, Result};

/// The rows and the open file of one partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) values: Vec<ScalarValue>,
    pub(super) folder: String,
    /// Rows that wait for the encoder, how many and of how many bytes.
    waiting: Vec<Rows>,
    pub(super) rows: usize,
    pub(super) bytes: usize,
    /// So many of `waiting` own their memory; the others are slices of larger ones.
    owned: usize,
    /// A job has the lane's file.
    pub(super) busy: bool,
    pub(super) open: Option<Alone<Encoder>>,
    pub(super) open_bytes: usize,
    /// What of the open file is stored already.
    pub(super) upload: Option<Alone<WriteMultipart>>,
    /// Where its rows are from.
    pub(super) trace: LaneTrace,
}

impl Lane {
    pub(super) fn new(values: Vec<ScalarValue>, folder: String) -> Self {
        Self {
            values,
            folder,
            waiting: Vec::new(),
            rows: 0,
            bytes: 0,
            owned: 0,
            busy: false,
            open: None,
            open_bytes: 0,
            upload: None,
            trace: LaneTrace::default(),
        }
    }

    /// Adds rows; `slice` says that they are a part of a batch whose other rows went elsewhere.
    pub(super) fn push(&mut self, rows: Rows, bytes: usize, slice: bool) {
        self.rows += rows.len();
        self.bytes += bytes;
        if !slice && self.owned == self.waiting.len() {
            self.owned += 1;
        }
        self.waiting.push(rows);
    }

    /// Takes all rows; returns them and their bytes.
    pub(super) fn take(&mut self) -> (Vec<Rows>, usize) {
        (self.owned, self.rows) = (0, 0);
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.bytes))
    }

    /// Slices keep the batch alive that they were cut from, even if all its other rows are gone: this
    /// copies them out.
    pub(super) fn own(&mut self) -> Result<()> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        let join = |batches: &mut Vec<RecordBatch>, own: &mut Vec<Rows>| {
            if let [first, ..] = batches.as_slice() {
                own.push(Rows::Batch(concat_batches(first.schema_ref(), &*batches)?));
                batches.clear();
            }
            Ok::<_, Error>(())
        };
        for rows in self.waiting.split_off(self.owned) {
            match rows {
                Rows::Batch(batch) => batches.push(batch),
                stored @ Rows::Stored(_) => {
                    join(&mut batches, &mut self.waiting)?;
                    self.waiting.push(stored);
                }
            }
        }
        join(&mut batches, &mut self.waiting)?;
        self.owned = self.waiting.len();
        Ok(())
    }
}

/// Something that only one thread at a time can have, inside something that threads share.
pub(super) struct Alone<T>(Mutex<T>);

impl<T> Alone<T> {
    pub(super) fn new(inner: T) -> Self {
        Self(Mutex::new(inner))
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Alone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alone").finish_non_exhaustive()
    }
}
