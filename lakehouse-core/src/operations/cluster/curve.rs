//! Space-filling curves: points of several dimensions in one order in which neighbours lie close together.

/// A curve through all points of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    /// Bits of the coordinates in turn (Morton). Cheap to compute; jumps where a high bit changes.
    ZOrder,
    /// Each step goes to a neighbour, so that a stretch of the curve covers a compact region.
    Hilbert,
}

/// Columns that a curve may go through. With more of them, each gets too few bits to put apart what a filter names.
pub(super) const MOST_COLUMNS: usize = 8;

/// Bits of a position on a curve.
const POSITION_BITS: u32 = 64;

/// For so many dimensions the bits of each byte, so far apart: bit `i` of it is bit `i` times the dimensions.
static SPREAD: [[u64; 256]; MOST_COLUMNS + 1] = spread();

/// Bits of a rank: more than one of so many values per column are not told apart.
pub(super) const RANK_BITS: u32 = 16;

/// Bits that each of so many coordinates may have, so that a position has at most 64. Ranks halve the rows with each
/// bit, and no table has so many rows that 64 halvings would not do.
pub(super) fn coordinate_bits(dimensions: usize) -> u32 {
    let dimensions = u32::try_from(dimensions.max(1)).unwrap_or(POSITION_BITS);
    (POSITION_BITS / dimensions).clamp(1, RANK_BITS)
}

impl Curve {
    /// Where a point lies on the curve. Coordinates are of `bits` bits, at least one and at most 16, and all of them
    /// together of at most 64. The point is used up.
    pub(super) fn position(self, point: &mut [u32], bits: u32) -> u64 {
        if self == Self::Hilbert {
            transpose(point, bits);
        }
        interleave(point)
    }
}

/// Bits of the coordinates in turn, the highest of the first one first. There are at most [`MOST_COLUMNS`].
fn interleave(point: &[u32]) -> u64 {
    let dimensions = point.len();
    let spread = &SPREAD[dimensions];
    let of = |coordinate: &u32| {
        let [low, high, ..] = coordinate.to_le_bytes();
        // Bits that are not there are zero, wherever they would go.
        spread[usize::from(low)] | spread[usize::from(high)].unbounded_shl(8 * dimensions as u32)
    };
    let shifted = |(axis, coordinate)| of(coordinate) << (dimensions - 1 - axis);
    point
        .iter()
        .enumerate()
        .map(shifted)
        .fold(0, |all, one| all | one)
}

const fn spread() -> [[u64; 256]; MOST_COLUMNS + 1] {
    let mut tables = [[0; 256]; MOST_COLUMNS + 1];
    let mut dimensions = 1;
    while dimensions <= MOST_COLUMNS {
        let mut byte = 0;
        while byte < 256 {
            let mut bit = 0;
            while bit < 8 {
                tables[dimensions][byte] |= ((byte >> bit & 1) as u64) << (bit * dimensions);
                bit += 1;
            }
            byte += 1;
        }
        dimensions += 1;
    }
    tables
}

/// Coordinates to those whose bits in turn are the position on the Hilbert curve (John Skilling, "Programming the
/// Hilbert curve", AIP Conference Proceedings 707, 2004).
fn transpose(point: &mut [u32], bits: u32) {
    let Some(last) = point.len().checked_sub(1) else {
        return;
    };
    let highest = 1u32 << (bits - 1);
    // Undo the rotations and reflections of the cells, from the largest on.
    let mut bit = highest;
    while bit > 1 {
        let below = bit - 1;
        for axis in 0..=last {
            if point[axis] & bit != 0 {
                point[0] ^= below;
            } else {
                let swapped = (point[0] ^ point[axis]) & below;
                point[0] ^= swapped;
                point[axis] ^= swapped;
            }
        }
        bit >>= 1;
    }
    // Gray code.
    for axis in 1..=last {
        point[axis] ^= point[axis - 1];
    }
    let mut flipped = 0;
    let mut bit = highest;
    while bit > 1 {
        if point[last] & bit != 0 {
            flipped ^= bit - 1;
        }
        bit >>= 1;
    }
    point.iter_mut().for_each(|coordinate| *coordinate ^= flipped);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All points of a grid in the order of a curve, and their positions.
    fn walk(curve: Curve, dimensions: usize, bits: u32) -> Vec<(u64, Vec<u32>)> {
        let side = 1u32 << bits;
        let mut points = vec![Vec::new()];
        for _ in 0..dimensions {
            let longer = |point: &Vec<u32>| {
                let point = point.clone();
                (0..side).map(move |next| [point.as_slice(), &[next]].concat())
            };
            points = points.iter().flat_map(longer).collect();
        }
        let placed = points.into_iter();
        let mut placed: Vec<_> = placed
            .map(|point| (curve.position(&mut point.clone(), bits), point))
            .collect();
        placed.sort_unstable();
        placed
    }

    const GRIDS: [(usize, u32); 9] = [
        (1, 1),
        (1, 8),
        (2, 1),
        (2, 5),
        (3, 1),
        (3, 3),
        (4, 2),
        (5, 2),
        (8, 1),
    ];

    #[test]
    fn each_curve_passes_each_point_of_a_grid_once() {
        for curve in [Curve::ZOrder, Curve::Hilbert] {
            for (dimensions, bits) in GRIDS {
                let positions = walk(curve, dimensions, bits)
                    .into_iter()
                    .map(|(position, _)| position);
                let count = 1u64 << (bits as usize * dimensions);
                assert!(
                    positions.eq(0..count),
                    "{curve:?} of {dimensions} dimensions with {bits} bits"
                );
            }
        }
    }

    #[test]
    fn each_step_of_the_hilbert_curve_goes_to_a_neighbour() {
        for (dimensions, bits) in GRIDS {
            let points = walk(Curve::Hilbert, dimensions, bits);
            for pair in points.windows(2) {
                let steps = pair[0].1.iter().zip(&pair[1].1).map(|(a, b)| a.abs_diff(*b));
                assert_eq!(steps.sum::<u32>(), 1, "{dimensions} dimensions: {pair:?}");
            }
        }
    }

    #[test]
    fn z_order_rises_with_each_coordinate() {
        for (dimensions, bits) in GRIDS {
            for (position, point) in walk(Curve::ZOrder, dimensions, bits) {
                for axis in 0..dimensions {
                    let mut next = point.clone();
                    next[axis] += 1;
                    if next[axis] < 1 << bits {
                        assert!(Curve::ZOrder.position(&mut next, bits) > position);
                    }
                }
            }
        }
    }

    /// The curve of two dimensions as it is drawn: a quadrant of a quadrant, turned and mirrored.
    #[test]
    fn the_hilbert_curve_of_two_dimensions_is_the_one_in_the_books() {
        fn drawn(bits: u32) -> Vec<(u32, u32)> {
            if bits == 0 {
                return vec![(0, 0)];
            }
            let (part, side) = (drawn(bits - 1), 1 << (bits - 1));
            let mut all: Vec<_> = part.iter().map(|(x, y)| (*y, *x)).collect();
            all.extend(part.iter().map(|(x, y)| (*x, y + side)));
            all.extend(part.iter().map(|(x, y)| (x + side, y + side)));
            all.extend(part.iter().map(|(x, y)| (2 * side - 1 - y, side - 1 - x)));
            all
        }
        for bits in 1..=5 {
            let walked = walk(Curve::Hilbert, 2, bits);
            let walked: Vec<_> = walked.iter().map(|(_, point)| (point[0], point[1])).collect();
            let mirrored: Vec<_> = walked.iter().map(|(x, y)| (*y, *x)).collect();
            let drawn = drawn(bits);
            assert!(drawn == walked || drawn == mirrored, "{bits} bits: {walked:?}");
        }
    }

    #[test]
    fn coordinates_have_as_many_bits_as_fit() {
        let bits: Vec<u32> = [1, 2, 4, 5, 8, 64].map(coordinate_bits).to_vec();
        assert_eq!(bits, [16, 16, 16, 12, 8, 1]);
        let whole = Curve::Hilbert.position(&mut [0xffff, 0, 0xffff, 1], 16);
        assert_ne!(whole, 0);
    }
}
