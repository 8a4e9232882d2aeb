//! Avro files taken apart, so that damage is done to records and not to their compression.

use std::io::Read;

use rand::Rng;
use rand::rngs::StdRng;

use super::mutate;

const SYNC: usize = 16;

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut left = (value as u64) << 1;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn number(input: &mut &[u8]) -> Option<usize> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return usize::try_from(value >> 1).ok();
        }
    }
}

fn text<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(input)?;
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(text)
}

type Header<'a> = Vec<(&'a [u8], Vec<u8>)>;
type Blocks = Vec<(usize, Vec<u8>)>;

/// The header without its codec, and the blocks as count and plain bytes.
fn unpack(file: &[u8]) -> Option<(Header<'_>, Blocks)> {
    let mut input = file.strip_prefix(b"Obj\x01")?;
    let (mut header, mut deflated) = (Vec::new(), false);
    loop {
        let pairs = number(&mut input)?;
        if pairs == 0 {
            break;
        }
        for _ in 0..pairs {
            let (key, value) = (text(&mut input)?, text(&mut input)?);
            match key == b"avro.codec" {
                true => deflated = value == b"deflate",
                false => header.push((key, value.to_vec())),
            }
        }
    }
    input = input.get(SYNC..)?;
    let mut blocks = Vec::new();
    while !input.is_empty() {
        let count = number(&mut input)?;
        let stored = text(&mut input)?;
        let mut block = stored.to_vec();
        if deflated {
            block.clear();
            flate2::read::DeflateDecoder::new(stored)
                .read_to_end(&mut block)
                .ok()?;
        }
        blocks.push((count, block));
        input = input.get(SYNC..)?;
    }
    Some((header, blocks))
}

fn pack(header: &Header<'_>, blocks: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"Obj\x01".to_vec();
    varint(&mut out, header.len());
    for text in header.iter().flat_map(|(key, value)| [key, value.as_slice()]) {
        varint(&mut out, text.len());
        out.extend_from_slice(text);
    }
    out.push(0);
    out.extend([7; SYNC]);
    for (count, block) in blocks {
        varint(&mut out, *count);
        varint(&mut out, block.len());
        out.extend_from_slice(block);
        out.extend([7; SYNC]);
    }
    out
}

/// Damages an Avro file: mostly its records, sometimes its schema, its header or the bytes as they are stored.
pub(super) fn damage(rng: &mut StdRng, file: &[u8]) -> Vec<u8> {
    let Some((mut header, mut blocks)) = unpack(file).filter(|_| rng.random_bool(0.95)) else {
        let mut stored = file.to_vec();
        mutate::bytes(rng, &mut stored, false);
        return stored;
    };
    let kind = rng.random_range(0..10);
    if kind < 2 {
        let at = rng.random_range(0..header.len());
        match serde_json::from_slice(&header[at].1) {
            Ok(mut document) if rng.random_bool(0.9) => {
                mutate::json(rng, &mut document);
                header[at].1 = document.to_string().into_bytes();
            }
            _ => mutate::bytes(rng, &mut header[at].1, false),
        }
    } else if let Some(at) = (!blocks.is_empty()).then(|| rng.random_range(0..blocks.len())) {
        match kind {
            2 => blocks[at].0 = rng.random_range(0..1000),
            3 => blocks.push(blocks[at].clone()),
            _ => mutate::bytes(rng, &mut blocks[at].1, kind < 8),
        }
    }
    pack(&header, &blocks)
}
