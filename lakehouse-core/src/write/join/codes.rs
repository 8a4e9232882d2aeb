//! Dictionary codes of a data page under other numbers ("RLE/Bit-Packing Hybrid" of the Parquet format): a run stays a
//! run, and packed groups of eight stay such groups.

/// Wider codes are not renumbered: eight of them have to fit into 128 bits.
pub(super) const MAX_WIDTH: u32 = 16;

/// Bits that codes of so many entries need.
pub(super) fn width(entries: usize) -> u32 {
    usize::BITS - entries.saturating_sub(1).leading_zeros()
}

/// How many of the first so many levels of one bit are 1; `None` if there are not so many, or if they are not written as
/// the format says.
pub(super) fn ones(mut levels: &[u8], mut count: u64) -> Option<u64> {
    let mut ones = 0;
    while count > 0 {
        let header = take_varint(&mut levels)?;
        if header & 1 == 0 {
            let here = count.min(header >> 1);
            ones += match take_bits(&mut levels, 1)? {
                0 => 0,
                1 => here,
                _ => return None,
            };
            count -= here;
            continue;
        }
        for _ in 0..header >> 1 {
            let byte = take_bits(&mut levels, 1)?;
            let here = count.min(8);
            ones += u64::from((byte & ((1 << here) - 1)).count_ones());
            count -= here;
        }
    }
    Some(ones)
}

/// Appends codes of one width as codes of another one, each replaced by what `numbers` has in its place; returns how many
/// there are, those counted that only fill the last group. `None` if they are not written as the format says, or one has no
/// place in `numbers`.
pub(super) fn renumber(
    mut codes: &[u8],
    from: u32,
    numbers: &[u32],
    to: u32,
    out: &mut Vec<u8>,
) -> Option<u64> {
    let mut count = 0_u64;
    if from > MAX_WIDTH || to > MAX_WIDTH {
        return None;
    }
    while !codes.is_empty() {
        let header = take_varint(&mut codes)?;
        put_varint(header, out);
        if header & 1 == 0 {
            count += header >> 1;
            let code = take_bits(&mut codes, from.div_ceil(8) as usize)?;
            let number = *numbers.get(usize::try_from(code).ok()?)?;
            out.extend(&number.to_le_bytes()[..to.div_ceil(8) as usize]);
            continue;
        }
        count += (header >> 1) * 8;
        let groups = usize::try_from(header >> 1).ok()?;
        // Every group takes a byte per bit of a code; none of width 0 takes any, so that nothing bounds their number.
        if from == 0 || codes.len() / (from as usize) < groups {
            return None;
        }
        out.reserve(groups.checked_mul(to as usize)?);
        let mask = (1_u128 << from) - 1;
        for _ in 0..groups {
            let packed = take_bits(&mut codes, from as usize)?;
            let mut all = 0_u128;
            for place in 0..8 {
                let code = (packed >> (place * from)) & mask;
                all |= u128::from(*numbers.get(code as usize)?) << (place * to);
            }
            out.extend(&all.to_le_bytes()[..to as usize]);
        }
    }
    Some(count)
}

/// So many bytes, the lowest first.
fn take_bits(bytes: &mut &[u8], count: usize) -> Option<u128> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    let mut all = [0; 16];
    all.get_mut(..count)?.copy_from_slice(taken);
    Some(u128::from_le_bytes(all))
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Runs and packed groups at random; returns the bytes and the codes in them.
    fn random(rng: &mut StdRng, width: u32, entries: usize) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut codes) = (Vec::new(), Vec::new());
        for _ in 0..rng.random_range(0..6) {
            if rng.random_bool(0.5) || width == 0 {
                let (count, code) = (rng.random_range(1..300), rng.random_range(0..entries));
                put_varint(count << 1, &mut bytes);
                bytes.extend(&(code as u32).to_le_bytes()[..width.div_ceil(8) as usize]);
                codes.extend(std::iter::repeat_n(code, count as usize));
            } else {
                let groups = rng.random_range(1..100_u64);
                put_varint(groups << 1 | 1, &mut bytes);
                for _ in 0..groups {
                    let own: Vec<usize> = (0..8).map(|_| rng.random_range(0..entries)).collect();
                    let packed = |(at, code): (usize, &usize)| (*code as u128) << (at as u32 * width);
                    let packed: u128 = own.iter().enumerate().map(packed).sum();
                    bytes.extend(&packed.to_le_bytes()[..width as usize]);
                    codes.extend(own);
                }
            }
        }
        (bytes, codes)
    }

    fn decoded(mut bytes: &[u8], width: u32) -> Vec<usize> {
        let mut codes = Vec::new();
        while !bytes.is_empty() {
            let header = take_varint(&mut bytes).unwrap();
            if header & 1 == 0 {
                let code = take_bits(&mut bytes, width.div_ceil(8) as usize).unwrap();
                codes.extend(std::iter::repeat_n(code as usize, (header >> 1) as usize));
            } else {
                for _ in 0..header >> 1 {
                    let packed = take_bits(&mut bytes, width as usize).unwrap();
                    codes.extend((0..8).map(|at| (packed >> (at * width)) as usize & ((1 << width) - 1)));
                }
            }
        }
        codes
    }

    #[test]
    fn codes_are_what_they_were_under_their_new_numbers() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..500 {
            let entries = [1, 2, 3, 100, 256, 257, 60_000][rng.random_range(0..7)];
            let after = [entries, 65_536][rng.random_range(0..2)];
            let numbers: Vec<u32> = (0..entries).map(|_| rng.random_range(0..after as u32)).collect();
            let (bytes, codes) = random(&mut rng, width(entries), entries);
            let mut out = Vec::new();
            let to = width(after).max(1);
            let count = renumber(&bytes, width(entries), &numbers, to, &mut out);
            assert_eq!(count, Some(codes.len() as u64));
            let expected: Vec<usize> = codes.iter().map(|code| numbers[*code] as usize).collect();
            assert_eq!(decoded(&out, to), expected);
        }
    }

    #[test]
    fn levels_of_one_bit_are_counted_and_no_more_than_there_are() {
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..500 {
            let (bytes, levels) = random(&mut rng, 1, 2);
            let count = rng.random_range(0..=levels.len());
            let expected = levels[..count].iter().sum::<usize>();
            assert_eq!(ones(&bytes, count as u64), Some(expected as u64));
            assert_eq!(ones(&bytes, levels.len() as u64 + 1), None);
        }
        assert_eq!(ones(&[2, 2], 1), None, "no level of one bit is 2");
    }

    #[test]
    fn codes_that_are_damaged_are_refused_and_never_read_beyond_their_end() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut refused = 0;
        for _ in 0..2_000 {
            let (mut bytes, _) = random(&mut rng, 7, 100);
            bytes.truncate(rng.random_range(0..bytes.len().max(1)));
            for _ in 0..3 {
                if !bytes.is_empty() {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = rng.random();
                }
            }
            let mut out = Vec::new();
            refused += u32::from(renumber(&bytes, 7, &[0; 100], 3, &mut out).is_none());
            assert!(out.len() <= bytes.len() + 8);
        }
        assert!(refused > 1_000, "{refused}");
        assert!(renumber(&[0xff, 0xff, 0xff, 0xff, 0x7f], 0, &[0], 1, &mut Vec::new()).is_none());
    }

    #[test]
    fn codes_are_as_wide_as_their_number_demands() {
        let widths = [0, 1, 2, 3, 256, 257, 65_536, 65_537].map(width);
        assert_eq!(widths, [0, 0, 1, 2, 8, 9, 16, 17]);
    }
}
