//! How many rows a Parquet file has, read from its footer: for files whose `add` does not say.
//!
//! The number is the third field of `FileMetaData` (Parquet format, `parquet.thrift`), behind the
//! schema. The schema is skipped without building anything, so that a hostile footer costs no memory.

use crate::error::{Error, Result};
use crate::model::limits;
use crate::store::Store;

/// Structures nested deeper than this are no Parquet footer.
const DEEPEST: u32 = 16;

/// The rows of the file at `key`, which has `bytes` bytes.
///
/// # Errors
/// [`Error::Invalid`] when it is no Parquet file.
pub(super) async fn rows(store: &Store, key: &str, bytes: u64) -> Result<u64> {
    let broken = || {
        Error::invalid("the data file is not a Parquet file, or is damaged", key)
            .with_hint("the log does not count its rows; restore the file or an older version of the table")
    };
    let tail_start = bytes.checked_sub(8).ok_or_else(broken)?;
    let tail = store.get_range(key, tail_start..bytes).await?;
    let (length, magic) = tail.split_first_chunk::<4>().ok_or_else(broken)?;
    let length = u64::from(u32::from_le_bytes(*length));
    let start = tail_start.checked_sub(length).ok_or_else(broken)?;
    if magic != b"PAR1" {
        return Err(broken());
    }
    let limit = store.limits().parquet_footer_bytes;
    limits::at_most(length, limit, "bytes of a Parquet footer", key)?;
    let footer = store.get_range(key, start..tail_start).await?;
    Compact(&footer).rows().ok_or_else(broken)
}

/// A reader of Thrift's compact protocol that skips.
struct Compact<'a>(&'a [u8]);

impl Compact<'_> {
    /// Field 3 of the structure that starts here.
    fn rows(&mut self) -> Option<u64> {
        let mut id = 0;
        loop {
            let kind = self.field(&mut id)?;
            if id == 3 && kind == 6 {
                return u64::try_from(self.zigzag()?).ok();
            }
            self.skip(kind, DEEPEST)?;
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn advance(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    /// The next field's type; `None` at the end of the structure.
    fn field(&mut self, id: &mut i64) -> Option<u8> {
        let head = self.byte()?;
        if head == 0 {
            return None;
        }
        *id = match head >> 4 {
            0 => self.zigzag()?,
            delta => *id + i64::from(delta),
        };
        Some(head & 0x0F)
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 => {}
            3 => self.advance(1)?,
            4..=6 => {
                self.varint()?;
            }
            7 => self.advance(8)?,
            8 => {
                let length = self.varint()?;
                self.advance(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let size = match head >> 4 {
                    15 => self.varint()?,
                    size => u64::from(size),
                };
                for _ in 0..size {
                    self.skip_element(head & 0x0F, depth)?;
                }
            }
            11 => {
                let size = self.varint()?;
                let kinds = if size == 0 { 0 } else { self.byte()? };
                for _ in 0..size {
                    self.skip_element(kinds >> 4, depth)?;
                    self.skip_element(kinds & 0x0F, depth)?;
                }
            }
            12 => {
                let mut id = 0;
                while self.0.first()? != &0 {
                    let kind = self.field(&mut id)?;
                    self.skip(kind, depth)?;
                }
                self.advance(1)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Inside lists a boolean takes a byte, in a field it is part of the field's head.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            1 | 2 => self.advance(1),
            other => self.skip(other, depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
    use arrow::datatypes::Int32Type;
    use parquet::arrow::ArrowWriter;

    fn parquet(rows: usize) -> Vec<u8> {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|i| i.to_string())));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
            (0..rows).map(|i| Some(vec![Some(i as i32), None])),
        ));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("t", texts), ("l", lists)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    #[tokio::test]
    async fn rows_are_those_that_were_written() {
        let store = crate::delta::tests::memory();
        for count in [1, 1000] {
            let bytes = parquet(count);
            let size = bytes.len() as u64;
            let key = format!("{count}.parquet");
            store.put(&key, bytes.into()).await.unwrap();
            assert_eq!(rows(&store, &key, size).await.unwrap(), count as u64);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_parquet_is_named() {
        let store = crate::delta::tests::memory();
        let whole = parquet(10);
        let mut damaged = whole.clone();
        let length = damaged.len();
        damaged[length - 7] = 0xFF;
        let files = [
            b"PAR1".to_vec(),
            vec![7; 100],
            whole[..whole.len() - 1].to_vec(),
            damaged,
        ];
        for (n, bytes) in files.into_iter().enumerate() {
            let (key, size) = (format!("{n}.parquet"), bytes.len() as u64);
            store.put(&key, bytes.into()).await.unwrap();
            let error = rows(&store, &key, size).await.unwrap_err();
            assert!(error.to_string().contains(&key), "{error}");
        }
        // Cut or scrambled footers end without an answer, never in a panic.
        for cut in 0..whole.len().min(300) {
            let _ = Compact(&whole[whole.len() - 8 - cut..]).rows();
        }
    }
}
