//! The bytes of a file, and the primitives in them (Avro specification, "Binary Encoding").

use std::collections::HashMap;

use super::{CUT_SHORT, Walked};

/// Bytes being read.
pub(in super::super) struct Input<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// The next so many bytes.
    pub(super) fn take(&mut self, count: u64) -> Walked<&'a [u8]> {
        let count = usize::try_from(count).map_err(|_| CUT_SHORT)?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number, zigzag.
    pub(super) fn long(&mut self) -> Walked<i64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(CUT_SHORT)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err("a number is too long")
    }

    /// A number that is not negative.
    pub(super) fn count(&mut self) -> Walked<u64> {
        u64::try_from(self.long()?).map_err(|_| "a length is negative")
    }

    /// Bytes behind their length.
    pub(super) fn text(&mut self) -> Walked<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    /// How many elements of an array or map follow, 0 at its end.
    pub(super) fn elements(&mut self) -> Walked<u64> {
        let mut count = self.long()?;
        if count < 0 {
            count = count.checked_neg().ok_or("a count is too large")?;
            self.count()?;
        }
        let count = count.unsigned_abs();
        // Every element takes a byte at least: arrays of nothing have no use.
        if count > self.rest.len() as u64 {
            return Err("an array claims more elements than there are bytes");
        }
        Ok(count)
    }

    /// The map at the start of a file.
    pub(super) fn header(&mut self) -> Walked<HashMap<String, &'a [u8]>> {
        const MOST_PAIRS: usize = 1000;
        let mut pairs = HashMap::new();
        loop {
            let count = self.elements()?;
            if count == 0 {
                return Ok(pairs);
            }
            for _ in 0..count {
                if pairs.len() >= MOST_PAIRS {
                    return Err("its header has too many entries");
                }
                let key = String::from_utf8(self.text()?.to_vec()).map_err(|_| "a key is not UTF-8")?;
                pairs.insert(key, self.text()?);
            }
        }
    }
}
