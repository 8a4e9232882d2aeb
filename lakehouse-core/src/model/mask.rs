//! The rows of one data file that are no longer visible.

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

    /// Whether the row is hidden.
    pub fn contains(&self, position: u64) -> bool {
        self.0.contains(position)
    }

    /// Hides every row that `other` hides.
    pub fn union(&mut self, other: &Self) {
        self.0 |= &other.0;
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
