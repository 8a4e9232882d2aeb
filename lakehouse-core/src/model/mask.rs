//! The rows of one data file that are no longer visible.

use std::ops::Range;

use roaring::RoaringTreemap;

/// Positions (0-based) of the rows of one data file that are no longer visible.
///
/// Iceberg v3 deletion vectors, Iceberg v2 position deletes and Delta deletion vectors all decode to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowMask(RoaringTreemap);

impl RowMask {
    /// A mask that hides nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hides one row; tells whether it was visible before.
    pub fn insert(&mut self, position: u64) -> bool {
        self.0.insert(position)
    }

    /// Hides these rows.
    pub fn insert_range(&mut self, positions: Range<u64>) {
        self.0.insert_range(positions);
    }

    /// How many of these rows are hidden.
    pub fn hidden_in(&self, positions: Range<u64>) -> u64 {
        self.0.range_cardinality(positions)
    }

    /// Those of these rows that are hidden, as they are called where the first of the rows is at `start`.
    pub fn moved(&self, positions: Range<u64>, start: u64) -> Self {
        let mut among = RoaringTreemap::new();
        among.insert_range(positions.clone());
        among &= &self.0;
        Self(
            among
                .iter()
                .map(|position| position - positions.start + start)
                .collect(),
        )
    }

    /// Whether the row is hidden.
    pub fn contains(&self, position: u64) -> bool {
        self.0.contains(position)
    }

    /// Hides every row that `other` hides.
    pub fn union(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// The rows that this hides and `other` does not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// Number of hidden rows.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether every row is visible.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hidden positions in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter()
    }

    /// The hidden rows as runs in ascending order. Two that touch may stay apart.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.bitmaps().flat_map(|(high, bitmap)| {
            let base = u64::from(high) << 32;
            let mut positions = bitmap.iter();
            std::iter::from_fn(move || positions.next_range())
                .map(move |run| base + u64::from(*run.start())..base + u64::from(*run.end()) + 1)
        })
    }

    /// The largest hidden position.
    pub fn max(&self) -> Option<u64> {
        self.0.max()
    }

    /// The bitmap, for codecs.
    pub fn bitmap(&self) -> &RoaringTreemap {
        &self.0
    }
}

impl From<RoaringTreemap> for RowMask {
    fn from(bitmap: RoaringTreemap) -> Self {
        Self(bitmap)
    }
}

impl FromIterator<u64> for RowMask {
    fn from_iter<I: IntoIterator<Item = u64>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_hidden_rows_however_far_they_reach() {
        let mut mask: RowMask = [0, 1, 5, (1 << 32) - 1].into_iter().collect();
        mask.insert_range(60_000..70_000);
        mask.insert_range(1 << 32..(1 << 32) + 3);
        let mut all = Vec::new();
        for run in mask.runs() {
            assert!(run.start < run.end && all.last().is_none_or(|last| *last < run.start));
            all.extend(run);
        }
        assert_eq!(all, mask.iter().collect::<Vec<_>>());
        assert_eq!((mask.hidden_in(0..5), mask.hidden_in(69_999..1 << 33)), (2, 5));
        let moved = mask.moved(69_999..1 << 33, 7);
        let shifted = mask.iter().filter(|position| *position >= 69_999);
        assert!(moved.iter().eq(shifted.map(|position| position - 69_999 + 7)));
    }
}
