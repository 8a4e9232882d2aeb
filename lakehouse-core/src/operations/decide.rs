//! What becomes of a file of which some rows are touched. The one place that chooses.

use std::collections::BTreeMap;

use super::options::{Fate, Strategy};
use crate::error::{Error, Result};
use crate::model::{DataFile, OperationKind, RowMask, Snapshot};

/// How often a file is read before something else rewrites it: masked rows cost all of these readers.
const READS: f64 = 15.0;
/// What writing a row costs, in times of what reading it costs: encoding, compression, a new object.
const WRITE: f64 = 4.0;

/// How one operation on one table decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decider {
    strategy: Strategy,
    masks: bool,
}

impl Decider {
    /// What was asked for, what the table's owner asked for, what the table can do, in this order.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when masks are asked for and the table has none.
    pub(super) fn new(asked: Strategy, snapshot: &Snapshot, operation: OperationKind) -> Result<Self> {
        let masks = snapshot.capabilities.masks;
        if asked == Strategy::MergeOnRead && !masks {
            return Err(Error::unsupported(
                "this table cannot mask rows, so merge-on-read is not possible",
                "leave the strategy to auto; or let the table have masks: Delta's property \
                 delta.enableDeletionVectors=true, Iceberg's format version 2",
            ));
        }
        let strategy = match asked {
            Strategy::Auto => owners(&snapshot.properties, operation),
            asked => asked,
        };
        Ok(Self { strategy, masks })
    }

    /// Whether rows may be masked at all.
    pub(super) fn may_mask(self) -> bool {
        self.masks && self.strategy != Strategy::CopyOnWrite
    }

    /// Whether a file may be written with so many of its rows masked, so that they need not be decoded to leave them
    /// out: half as many as make a file worth rewriting, or the next change would do it again.
    pub(super) fn may_stay(self, rows: u64, masked: u64) -> bool {
        self.may_keep(rows, 2 * masked)
    }

    /// Whether so many masked rows of a file are no reason to write it anew.
    pub(super) fn may_keep(self, rows: u64, masked: u64) -> bool {
        self.masks && self.strategy == Strategy::Auto && !rewriting_pays(masked as f64 / rows as f64)
    }

    /// Whether files of so many rows may have to be rewritten, and are worth it, once so many of them go.
    pub(super) fn may_rewrite(self, rows: u64, touched: u64) -> bool {
        let pays = rewriting_pays(touched as f64 / rows.max(1) as f64);
        pays && !(self.masks && self.strategy == Strategy::MergeOnRead)
    }

    /// Decides for one file; `masked` are the rows that must not be visible afterwards, those that were
    /// masked before included.
    pub(super) fn decide(self, file: &DataFile, masked: &RowMask) -> Fate {
        if masked.len() >= file.rows {
            return Fate::Remove;
        }
        match self.strategy {
            _ if !self.masks => Fate::Rewrite,
            Strategy::CopyOnWrite => Fate::Rewrite,
            Strategy::MergeOnRead => Fate::Mask,
            Strategy::Auto if rewriting_pays(masked.len() as f64 / file.rows as f64) => Fate::Rewrite,
            Strategy::Auto => Fate::Mask,
        }
    }
}

/// Whether reading past this share of masked rows until the file goes costs more than reading and
/// writing the others now. From a quarter on it does.
fn rewriting_pays(masked: f64) -> bool {
    masked * READS >= (1.0 - masked) * (1.0 + WRITE)
}

/// What the table's owner asked for (Iceberg's `write.merge.mode` and its like).
fn owners(properties: &BTreeMap<String, String>, operation: OperationKind) -> Strategy {
    let name = match operation {
        OperationKind::Update => "write.update.mode",
        OperationKind::Merge => "write.merge.mode",
        _ => "write.delete.mode",
    };
    // A word that we do not know was meant for another engine.
    let mode = properties.get(name).and_then(|mode| mode.parse().ok());
    mode.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_masked_rows_is_where_rewriting_begins() {
        assert!(!rewriting_pays(0.01) && !rewriting_pays(0.24));
        assert!(rewriting_pays(0.25) && rewriting_pays(0.9));
    }

    #[test]
    fn the_owners_word_counts_for_its_operation_only() {
        let properties = BTreeMap::from([
            ("write.merge.mode".to_owned(), "Copy-On-Write".to_owned()),
            ("write.update.mode".to_owned(), "something".to_owned()),
        ]);
        assert_eq!(owners(&properties, OperationKind::Merge), Strategy::CopyOnWrite);
        assert_eq!(owners(&properties, OperationKind::Update), Strategy::Auto);
        assert_eq!(owners(&properties, OperationKind::Delete), Strategy::Auto);
    }
}
