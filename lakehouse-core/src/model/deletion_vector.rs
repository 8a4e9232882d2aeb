//! Row masks as bytes: one codec for Iceberg's `deletion-vector-v1` blobs and Delta's deletion vectors.
//!
//! ```text
//! bare    magic 0x6439D3D1 (u32 LE) | portable 64-bit roaring bitmap      Delta, inline
//! framed  length of bare (u32 BE) | bare | CRC-32 of bare (u32 BE)         Iceberg blob; Delta file after its version byte
//! ```
//!
//! The portable 64-bit form is the count of 32-bit bitmaps (u64 LE), then for each, in ascending
//! order, its high word (u32 LE) and the bitmap in the Roaring format specification.

use roaring::{RoaringBitmap, RoaringTreemap};

use super::RowMask;
use crate::error::{Error, Result};

const MAGIC: u32 = 0x6439_D3D1;

/// The bare form: magic and bitmap.
///
/// # Errors
/// [`Error::Limit`] when the bitmap is larger than the format's 32-bit length allows.
pub fn encode(mask: &RowMask) -> Result<Vec<u8>> {
    let mut bitmap = mask.bitmap().clone();
    bitmap.optimize();
    let size = bitmap.serialized_size() + 4;
    if i32::try_from(size).is_err() {
        return Err(Error::Limit {
            what: format!(
                "a deletion vector of {size} bytes; the format allows {}",
                i32::MAX
            ),
            place: String::new(),
            hint: String::new(),
        });
    }
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(MAGIC.to_le_bytes());
    bitmap
        .serialize_into(&mut bytes)
        .map_err(|e| Error::invalid(format!("cannot encode a deletion vector: {e}"), ""))?;
    Ok(bytes)
}

/// Reads what [`encode`] writes. `place` names the file in errors.
///
/// # Errors
/// [`Error::Invalid`] when the magic is wrong or the bitmap is broken or followed by other bytes.
pub fn decode(bytes: &[u8], place: &str) -> Result<RowMask> {
    let broken = |what: String| {
        Error::invalid(format!("broken deletion vector: {what}"), place).with_hint(
            "the file is damaged or was not written by this table's writers; restore it or an older version",
        )
    };
    let (magic, mut rest) = take::<4>(bytes).ok_or_else(|| broken("shorter than its magic number".into()))?;
    let magic = u32::from_le_bytes(magic);
    if magic != MAGIC {
        return Err(broken(format!("magic number {magic:#x} instead of {MAGIC:#x}")));
    }
    let (count, after) = take::<8>(rest).ok_or_else(|| broken("no bitmap count".into()))?;
    rest = after;
    let mut bitmaps: Vec<(u32, RoaringBitmap)> = Vec::new();
    for _ in 0..u64::from_le_bytes(count) {
        let (key, after) = take::<4>(rest).ok_or_else(|| broken("fewer bitmaps than announced".into()))?;
        rest = after;
        let key = u32::from_le_bytes(key);
        if bitmaps.last().is_some_and(|(last, _)| *last >= key) {
            return Err(broken(format!("bitmap {key} is out of order")));
        }
        let bitmap = RoaringBitmap::deserialize_from(&mut rest).map_err(|e| broken(e.to_string()))?;
        bitmaps.push((key, bitmap));
    }
    if !rest.is_empty() {
        return Err(broken(format!("{} bytes after the bitmap", rest.len())));
    }
    bitmaps.retain(|(_, bitmap)| !bitmap.is_empty());
    Ok(RowMask::from(RoaringTreemap::from_bitmaps(bitmaps)))
}

/// The framed form: length, bare form, checksum.
///
/// # Errors
/// As [`encode`].
pub fn encode_framed(mask: &RowMask) -> Result<Vec<u8>> {
    let bare = encode(mask)?;
    let mut bytes = Vec::with_capacity(bare.len() + 8);
    bytes.extend((bare.len() as u32).to_be_bytes());
    bytes.extend(&bare);
    bytes.extend(crc32fast::hash(&bare).to_be_bytes());
    Ok(bytes)
}

/// Reads what [`encode_framed`] writes; `bytes` is exactly one frame. `place` names the file in errors.
///
/// # Errors
/// [`Error::Invalid`] when length or checksum do not agree with the content, and as [`decode`].
pub fn decode_framed(bytes: &[u8], place: &str) -> Result<RowMask> {
    let broken = |what: String| Error::invalid(format!("broken deletion vector: {what}"), place);
    let (length, rest) = take::<4>(bytes).ok_or_else(|| broken("shorter than its length field".into()))?;
    let length = u32::from_be_bytes(length) as usize;
    if rest.len() != length.saturating_add(4) {
        return Err(broken(format!(
            "announces {length} bytes, the blob holds {}",
            rest.len().saturating_sub(4)
        )));
    }
    let (bare, crc) = rest.split_at(length);
    let found = crc32fast::hash(bare);
    if crc != found.to_be_bytes() {
        return Err(broken("checksum does not agree with the content".into()));
    }
    decode(bare, place)
}

/// Checks a decoded mask against what the metadata says about it and its file.
///
/// # Errors
/// [`Error::Invalid`] when it masks rows that the file does not have, or another number of rows than announced.
pub fn check(mask: &RowMask, file_rows: u64, announced: Option<u64>, place: &str) -> Result<()> {
    if let Some(max) = mask.max().filter(|max| *max >= file_rows) {
        return Err(Error::invalid(
            format!("the mask hides row {max} of a file with {file_rows} rows"),
            place,
        ));
    }
    match announced {
        Some(rows) if rows != mask.len() => Err(Error::invalid(
            format!("the mask hides {} rows, the metadata says {rows}", mask.len()),
            place,
        )),
        _ => Ok(()),
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_survive_both_forms() {
        let masks = [
            RowMask::new(),
            [0].into_iter().collect(),
            (0..100_000).filter(|i| i % 3 == 0).collect(),
            (5..70_000).collect(),
            [1, u64::from(u32::MAX), 1 << 33, (1 << 33) + 7]
                .into_iter()
                .collect(),
        ];
        for mask in masks {
            assert_eq!(decode(&encode(&mask).unwrap(), "x").unwrap(), mask);
            assert_eq!(decode_framed(&encode_framed(&mask).unwrap(), "x").unwrap(), mask);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let mask: RowMask = [3, 9].into_iter().collect();
        let bytes = encode_framed(&mask).unwrap();
        // length BE, magic, one bitmap, key 0, cookie without runs, one container, cardinality - 1, offset, values
        let mut expected: Vec<u8> = vec![0, 0, 0, 36, 0xD1, 0xD3, 0x39, 0x64];
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3A, 0x30, 0, 0, 1, 0, 0, 0]);
        expected.extend([0, 0, 1, 0, 16, 0, 0, 0, 3, 0, 9, 0]);
        expected.extend(crc32fast::hash(&expected[4..]).to_be_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_single_damaged_byte_of_a_frame_is_noticed() {
        let mask: RowMask = (0..2000).filter(|i| i % 7 < 2).collect();
        let good = encode_framed(&mask).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(decode_framed(&bad, "x").is_err(), "byte {at}");
            assert!(decode_framed(&good[..at], "x").is_err(), "cut at {at}");
            let _ = decode(&bad[4..], "x");
        }
    }

    #[test]
    fn a_mask_beyond_its_file_or_of_another_size_is_refused() {
        let mask: RowMask = [3, 9].into_iter().collect();
        assert!(check(&mask, 10, Some(2), "x").is_ok());
        assert!(check(&mask, 9, Some(2), "x").is_err());
        assert!(check(&mask, 10, Some(3), "x").is_err());
    }
}
