//! Dictionaries put together.

use std::collections::HashMap;

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::file::properties::DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT;
use parquet::schema::types::ColumnDescriptor;

use super::codes::MAX_WIDTH;

/// The entries of several dictionaries, each once, in the order in which they came.
pub(super) struct Dictionary {
    /// Bytes of an entry, if all have the same.
    fixed: Option<usize>,
    /// Entries have to be UTF-8.
    text: bool,
    numbers: HashMap<Bytes, u32>,
    /// As a dictionary page has them.
    plain: Vec<u8>,
}

impl Dictionary {
    /// `None` for types whose values have to be looked at: NaNs are counted.
    pub(super) fn new(column: &ColumnDescriptor) -> Option<Self> {
        let fixed = match column.physical_type() {
            Type::INT32 => Some(4),
            Type::INT64 => Some(8),
            Type::FIXED_LEN_BYTE_ARRAY => Some(
                usize::try_from(column.type_length())
                    .ok()
                    .filter(|length| *length > 0)?,
            ),
            Type::BYTE_ARRAY => None,
            _ => return None,
        };
        Some(Self {
            fixed,
            text: column.converted_type() == ConvertedType::UTF8
                || matches!(column.logical_type_ref(), Some(LogicalType::String)),
            numbers: HashMap::new(),
            plain: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Adds the entries of a dictionary page (encoding PLAIN of the Parquet format); returns the number of each. `None`
    /// when they become more than a new dictionary would have, or are not as many as they should be.
    pub(super) fn add(&mut self, page: Bytes, entries: u32) -> Option<Vec<u32>> {
        // Each takes a byte, so that nothing is reserved for entries that there are not.
        let mut numbers = Vec::with_capacity(page.len().min(entries as usize));
        let mut at = 0;
        for _ in 0..entries {
            let start = at;
            let length = match self.fixed {
                Some(length) => length,
                None => {
                    let length = u32::from_le_bytes(*page.get(at..)?.first_chunk()?);
                    at += 4;
                    length as usize
                }
            };
            let end = at.checked_add(length).filter(|end| *end <= page.len())?;
            let next = self.numbers.len();
            let number = *self.numbers.entry(page.slice(at..end)).or_insert(next as u32);
            if number as usize == next {
                if self.text && std::str::from_utf8(&page[at..end]).is_err() {
                    return None;
                }
                self.plain.extend(&page[start..end]);
                if next >= 1 << MAX_WIDTH || self.plain.len() > DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT {
                    return None;
                }
            }
            numbers.push(number);
            at = end;
        }
        Some(numbers)
    }
}
