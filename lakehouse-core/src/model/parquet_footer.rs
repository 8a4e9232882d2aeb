//! A look at a Parquet footer before it is parsed: a hostile one must not abort the process.
//!
//! parquet 59 reserves memory for as many row groups as the footer claims, and follows the schema's
//! nesting by recursion. Both claims are checked here against the footer's own bytes (Thrift compact
//! protocol; `FileMetaData` of the Parquet format).

use super::limits::{self, Limit};
use crate::error::{Error, Result};

/// Bytes at the end of a Parquet file that say how long the footer is.
pub const PARQUET_TAIL: usize = 8;

/// Nesting of a schema, or of Thrift structures, at which a footer is refused.
const MAX_DEPTH: usize = 64;

/// The length of the footer of a file of `file_bytes` bytes whose last eight bytes are `tail`.
///
/// # Errors
/// [`Error::Invalid`] naming `place` when these are not the last bytes of a Parquet file, [`Error::Limit`] when the
/// footer is longer than the limit.
pub fn parquet_footer_length(
    tail: [u8; PARQUET_TAIL],
    file_bytes: u64,
    limit: Limit,
    place: &str,
) -> Result<u64> {
    match &tail[4..] {
        b"PAR1" => {}
        b"PARE" => {
            return Err(Error::unsupported(
                format!("{place} is an encrypted Parquet file"),
                "write the file again without encryption",
            ));
        }
        _ => return Err(not_parquet("it does not end with PAR1", place)),
    }
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    // The file starts with the magic number too.
    if length + 12 > file_bytes {
        return Err(not_parquet(
            &format!("its footer claims {length} of {file_bytes} bytes"),
            place,
        ));
    }
    limits::at_most(length, limit, "bytes of a Parquet footer", place)?;
    Ok(length)
}

/// The same for a file that is in memory.
///
/// # Errors
/// As [`parquet_footer_length`] and [`check_parquet_footer`].
pub fn check_whole_parquet_footer(file: &[u8], limit: Limit, place: &str) -> Result<()> {
    let Some((rest, tail)) = file.split_last_chunk::<PARQUET_TAIL>() else {
        return Err(not_parquet(&format!("it has {} bytes", file.len()), place));
    };
    let length = parquet_footer_length(*tail, file.len() as u64, limit, place)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    check_parquet_footer(&rest[rest.len().saturating_sub(length)..], place)
}

/// Walks through a footer without keeping anything: every list must fit into the bytes that follow, and
/// the schema must not be nested too deeply.
///
/// # Errors
/// [`Error::Invalid`] naming `place`.
pub fn check_parquet_footer(footer: &[u8], place: &str) -> Result<()> {
    let mut walk = Walk { rest: footer };
    walk.file_metadata()
        .map_err(|what| not_parquet(&format!("its footer is broken: {what}"), place))
}

/// Whether a page index (`ColumnIndex` or `OffsetIndex` of the Parquet format) can be parsed without
/// reserving more memory than its own bytes justify.
pub fn is_sane_parquet_index(index: &[u8]) -> bool {
    Walk { rest: index }.skip(STRUCT, 0).is_ok()
}

/// What the largest of these pages claims to be after decompression, in bytes: a reader reserves as much. `pages`
/// follow each other from the first byte on, as in a column chunk, and the last one may be cut off (`PageHeader` of the
/// Parquet format).
///
/// # Errors
/// [`Error::Invalid`] naming `place` for a header that is not written as the format says: a reader that is less strict
/// would take it for another one.
pub fn largest_parquet_page(pages: &[u8], place: &str) -> Result<u64> {
    let mut walk = Walk { rest: pages };
    let mut largest = 0;
    while !walk.rest.is_empty() {
        match walk.page_header() {
            Ok((bytes, stored)) => {
                largest = largest.max(bytes);
                if walk.take(stored).is_err() {
                    break;
                }
            }
            Err(what) if what == CUT_SHORT => break,
            Err(what) => {
                let what =
                    format!("the Parquet file is damaged: the header of a page cannot be read: {what}");
                return Err(Error::invalid(what, place));
            }
        }
    }
    Ok(largest)
}

fn not_parquet(what: &str, place: &str) -> Error {
    Error::invalid(format!("not a Parquet file: {what}"), place)
        .with_hint("the file was damaged, cut short, or is of another kind")
}

type Walked<T = ()> = std::result::Result<T, &'static str>;

const CUT_SHORT: &str = "it ends too early";

/// Element types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;
const I32: u8 = 5;

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    fn file_metadata(&mut self) -> Walked {
        let mut field = 0;
        while let Some(kind) = self.field(&mut field)? {
            // FileMetaData.schema
            if field == 2 && kind == LIST {
                self.schema()?;
            } else {
                self.skip(kind, 0)?;
            }
        }
        Ok(())
    }

    /// `list<SchemaElement>`, the tree in depth-first order: each element says how many children follow.
    fn schema(&mut self) -> Walked {
        let (kind, count) = self.list()?;
        if kind != STRUCT {
            return Err("its schema is not a list of elements");
        }
        let mut open: Vec<i64> = Vec::new();
        for _ in 0..count {
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            let children = self.schema_element()?;
            if children > 0 {
                open.push(children);
                if open.len() > MAX_DEPTH {
                    return Err("its schema is nested too deeply");
                }
            }
        }
        Ok(())
    }

    /// Number of children of one element.
    fn schema_element(&mut self) -> Walked<i64> {
        let (mut field, mut children) = (0, 0);
        while let Some(kind) = self.field(&mut field)? {
            // SchemaElement.num_children
            if field == 5 && kind == I32 {
                children = self.number()?;
            } else {
                self.skip(kind, 0)?;
            }
        }
        Ok(children)
    }

    /// Bytes of a page after decompression, and as stored.
    fn page_header(&mut self) -> Walked<(u64, u64)> {
        const LIE: &str = "a field has another type than the format gives it";
        let (mut field, mut bytes, mut stored) = (0, 0, 0);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                // PageHeader.uncompressed_page_size, PageHeader.compressed_page_size
                (2, I32) => bytes = self.size()?,
                (3, I32) => stored = self.size()?,
                (1 | 4, I32) => self.number().map(drop)?,
                // The headers of data pages, index pages and dictionary pages.
                (5..=8, STRUCT) => {
                    let mut inner = 0;
                    while let Some(kind) = self.field(&mut inner)? {
                        match kind {
                            I32 | TRUE | FALSE | STRUCT => self.skip(kind, 1)?,
                            _ => return Err(LIE),
                        }
                    }
                }
                (1..=8, _) => return Err(LIE),
                _ => self.skip(kind, 0)?,
            }
        }
        Ok((bytes, stored))
    }

    /// A number of bytes, of which readers keep 32 bits.
    fn size(&mut self) -> Walked<u64> {
        let number = self.number()? as i32;
        u64::try_from(number).map_err(|_| "a size is negative")
    }

    /// The next field of a structure, `None` at its end.
    fn field(&mut self, id: &mut i64) -> Walked<Option<u8>> {
        let header = self.byte()?;
        if header == 0 {
            return Ok(None);
        }
        match header >> 4 {
            0 => *id = self.number()?,
            delta => *id += i64::from(delta),
        }
        Ok(Some(header & 0x0f))
    }

    fn list(&mut self) -> Walked<(u8, u64)> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        // Every element takes at least one byte.
        if count > self.rest.len() as u64 {
            return Err("a list claims more elements than there are bytes");
        }
        Ok((header & 0x0f, count))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Walked {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply");
        }
        match kind {
            // A boolean field is its own type.
            1 | 2 => Ok(()),
            3 => self.take(1),
            4..=6 => self.varint().map(drop),
            7 => self.take(8),
            BINARY => {
                let length = self.varint()?;
                self.take(length)
            }
            LIST | 10 => {
                let (kind, count) = self.list()?;
                for _ in 0..count {
                    self.element(kind, depth)?;
                }
                Ok(())
            }
            11 => {
                let count = self.varint()?;
                if count == 0 {
                    return Ok(());
                }
                if count > self.rest.len() as u64 {
                    return Err("a map claims more entries than there are bytes");
                }
                let kinds = self.byte()?;
                for _ in 0..count {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0x0f, depth)?;
                }
                Ok(())
            }
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err("it holds a value of unknown type"),
        }
    }

    /// Elements of lists and maps: booleans take a byte here.
    fn element(&mut self, kind: u8, depth: usize) -> Walked {
        match kind {
            1 | 2 => self.take(1),
            other => self.skip(other, depth + 1),
        }
    }

    /// A number with its sign in the lowest bit.
    fn number(&mut self) -> Walked<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn varint(&mut self) -> Walked<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is too long")
    }

    fn byte(&mut self) -> Walked<u8> {
        let (first, rest) = self.rest.split_first().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, count: u64) -> Walked {
        let count = usize::try_from(count).map_err(|_| CUT_SHORT)?;
        self.rest = self.rest.get(count..).ok_or(CUT_SHORT)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::model::limits::PARQUET_FOOTER_BYTES;

    fn file() -> Vec<u8> {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef),
            (
                "name",
                Arc::new(StringArray::from_iter_values((0..1000).map(|i| format!("n{i}")))) as ArrayRef,
            ),
        ])
        .unwrap();
        let properties = parquet::file::properties::WriterProperties::builder()
            .set_max_row_group_row_count(Some(10))
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn footer(file: &[u8]) -> Result<&[u8]> {
        let tail: [u8; 8] = file[file.len() - 8..].try_into().unwrap();
        let length = parquet_footer_length(tail, file.len() as u64, PARQUET_FOOTER_BYTES, "f")? as usize;
        Ok(&file[file.len() - 8 - length..file.len() - 8])
    }

    #[test]
    fn the_largest_page_is_found_among_all_and_in_what_was_cut_off() {
        let bytes = file();
        let metadata = parquet::file::metadata::ParquetMetaDataReader::new()
            .parse_and_finish(&bytes::Bytes::from(bytes.clone()))
            .unwrap();
        for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            let (start, length) = chunk.byte_range();
            let pages = &bytes[start as usize..(start + length) as usize];
            // A dictionary page and a data page, their headers counted in the chunk's size.
            let all = u64::try_from(chunk.uncompressed_size()).unwrap();
            let largest = largest_parquet_page(pages, "f").unwrap();
            assert!(
                largest > 0 && largest < all && largest >= all / 4,
                "{largest} of {all}"
            );
            let cut = largest_parquet_page(&pages[..pages.len() - 1], "f").unwrap();
            assert_eq!(cut, largest, "its header says so");
        }
        // type 0, uncompressed 2^31 - 1, compressed 2
        let claim = [0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 4, 0];
        assert_eq!(largest_parquet_page(&claim, "f").unwrap(), (1 << 31) - 1);
        for none in [&[][..], &[0], &claim[..4]] {
            assert_eq!(largest_parquet_page(none, "f").unwrap(), 0, "{none:?}");
        }
    }

    /// The engine's parser takes all of these.
    #[test]
    fn a_page_header_that_is_not_written_by_the_book_is_refused_or_read_as_others_read_it() {
        // uncompressed_page_size declared as i64; a field's header as the end; a number of eleven bytes
        let lies: [&[u8]; 4] = [
            &[0x15, 0, 0x16, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 4, 0],
            &[0x15, 0, 0x15, 2, 0x15, 4, 0x10],
            &[
                0x15, 0, 0x15, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0x15, 4, 0,
            ],
            // num_values as text
            &[0x15, 0, 0x15, 2, 0x15, 4, 0x2c, 0x18, 1, 0x61, 0, 0],
        ];
        for lie in lies {
            let error = largest_parquet_page(lie, "f").unwrap_err();
            assert!(error.to_string().contains("page cannot be read"), "{error}");
        }
        // compressed 2^32: none of its 32 bits, so that the next page follows at once
        let mut two = vec![0x15, 0, 0x15, 2, 0x15, 0x80, 0x80, 0x80, 0x80, 0x20, 0];
        two.extend([0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 4, 0]);
        assert_eq!(largest_parquet_page(&two, "f").unwrap(), (1 << 31) - 1);
    }

    #[test]
    fn a_real_footer_passes() {
        let bytes = file();
        check_parquet_footer(footer(&bytes).unwrap(), "f").unwrap();
    }

    #[test]
    fn a_footer_that_claims_a_billion_row_groups_is_refused() {
        // FileMetaData { 1: version = 1, 2: schema = [root], 3: num_rows = 0, 4: row_groups = list of 2^30 }
        let mut hostile = vec![
            0x15, 0x02, 0x19, 0x1c, 0x48, 0x01, b'r', 0x15, 0x00, 0x00, 0x16, 0x00, 0x19, 0xfc,
        ];
        hostile.extend([0x80, 0x80, 0x80, 0x80, 0x04]);
        let error = check_parquet_footer(&hostile, "data/x.parquet")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("more elements") && error.contains("data/x.parquet"),
            "{error}"
        );
    }

    #[test]
    fn a_schema_nested_a_thousand_deep_is_refused() {
        let mut hostile = vec![0x15, 0x02, 0x19, 0xfc, 0xe8, 0x07];
        for _ in 0..1000 {
            // SchemaElement { 4: name = "a", 5: num_children = 1 }
            hostile.extend([0x48, 0x01, b'a', 0x15, 0x02, 0x00]);
        }
        hostile.push(0);
        let error = check_parquet_footer(&hostile, "f").unwrap_err().to_string();
        assert!(error.contains("nested too deeply"), "{error}");
    }

    #[test]
    fn every_cut_of_a_footer_is_refused_without_a_panic() {
        let bytes = file();
        let footer = footer(&bytes).unwrap();
        for length in 0..footer.len() {
            assert!(
                check_parquet_footer(&footer[..length], "f").is_err(),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn a_footer_of_one_byte_more_than_the_limit_is_refused() {
        let bytes = file();
        let length = footer(&bytes).unwrap().len() as u64;
        check_whole_parquet_footer(&bytes, Limit::fixed(length), "f").unwrap();
        let error = check_whole_parquet_footer(&bytes, Limit::fixed(length - 1), "f").unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }

    #[test]
    fn a_file_of_another_kind_is_named() {
        for (tail, expected) in [
            (*b"id,name\n", "does not end with PAR1"),
            (*b"\xff\xff\xff\x7fPAR1", "claims 2147483647 of 100 bytes"),
            (*b"\x04\0\0\0PARE", "encrypted"),
        ] {
            let error = parquet_footer_length(tail, 100, PARQUET_FOOTER_BYTES, "data/x.parquet")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(expected) && error.contains("data/x.parquet"),
                "{error}"
            );
        }
    }
}
