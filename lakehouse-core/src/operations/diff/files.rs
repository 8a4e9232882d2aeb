//! Which files two versions do not share, and which rows of those that they do.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Result;
use crate::format::Handle;
use crate::model::{DataFile, Prune, RowMask, Snapshot};
use crate::scan::read_file_masks;

/// Sums over data files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// How many there are.
    pub files: u64,
    /// Their rows, masked ones included.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl FileTotals {
    fn add(&mut self, file: &DataFile) {
        self.files += 1;
        self.rows += file.rows;
        self.bytes += file.bytes;
    }
}

/// The data files of two versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileDifference {
    /// Files that only the second version has.
    pub added: FileTotals,
    /// Files that only the first version has.
    pub removed: FileTotals,
    /// Files that both have, with other rows hidden by masks or equality deletes.
    pub masked: FileTotals,
    /// Files that both have with the same rows.
    pub unchanged: FileTotals,
}

impl FileDifference {
    /// Whether both versions have the same files with the same rows.
    pub fn is_empty(&self) -> bool {
        [self.added, self.removed, self.masked]
            .iter()
            .all(|group| group.files == 0)
    }
}

/// What metadata and masks tell about rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowBounds {
    /// Rows of the first version; `None` where only reading masks or files would tell.
    pub from: Option<u64>,
    /// Rows of the second version.
    pub to: Option<u64>,
    /// So many rows were added at most: those that only files or masks of the second version have.
    pub added: u64,
    /// So many rows were removed at most.
    pub removed: u64,
    /// `added` and `removed` are no bounds, but exact: nothing was both taken away and put there, so that no row can
    /// have been written again as it was.
    pub exact: bool,
}

/// What is to be read of a file to find the rows that only one version has.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// Every row that the version shows.
    Shown(DataFile),
    /// These rows.
    Rows(DataFile, RowMask),
}

/// Both versions without what they share.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) from: Vec<Part>,
    pub(super) to: Vec<Part>,
    /// Files of which only reading them tells which rows equality deletes hide, as each version has them.
    pub(super) open: Vec<(DataFile, DataFile)>,
    pub(super) difference: FileDifference,
    pub(super) rows: RowBounds,
}

/// Rows of a version so far; `None` from the first file on whose rows the metadata does not tell.
struct Rows(Option<u64>);

impl Rows {
    fn add(&mut self, file: &DataFile) {
        let shown = file.masked_rows().map(|masked| file.rows.saturating_sub(masked));
        self.0 = self.0.zip(shown).map(|(sum, shown)| sum + shown);
    }
}

enum Listed {
    From(DataFile),
    To(DataFile),
}

/// Lists both versions side by side. A file that both have is forgotten as soon as it was met twice, so that what is
/// held at a time is about what is different, not the table.
///
/// # Errors
/// Whatever the format meets while it lists files or reads masks.
pub(super) async fn compare(handle: &Handle, from: &Arc<Snapshot>, to: &Arc<Snapshot>) -> Result<Sides> {
    let list = |snapshot| handle.format.files(snapshot, Arc::new(Prune::everything()));
    let mut listed = stream::select(list(from).map_ok(Listed::From), list(to).map_ok(Listed::To));
    let (mut old, mut new) = (Waiting::default(), Waiting::default());
    let (mut from_rows, mut to_rows) = (Rows(Some(0)), Rows(Some(0)));
    let mut difference = FileDifference::default();
    let mut pairs: Vec<(DataFile, DataFile)> = Vec::new();
    while let Some(next) = listed.next().await {
        let (before, after) = match next? {
            Listed::From(file) => {
                from_rows.add(&file);
                match new.take(&file.path) {
                    Some(other) => (file, other),
                    None => {
                        old.put(file);
                        continue;
                    }
                }
            }
            Listed::To(file) => {
                to_rows.add(&file);
                match old.take(&file.path) {
                    Some(other) => (other, file),
                    None => {
                        new.put(file);
                        continue;
                    }
                }
            }
        };
        if before.masks == after.masks && before.equality_deletes == after.equality_deletes {
            difference.unchanged.add(&after);
        } else {
            pairs.push((before, after));
        }
    }
    let mut sides = Sides {
        from: Vec::new(),
        to: Vec::new(),
        open: Vec::new(),
        difference,
        rows: RowBounds {
            from: from_rows.0,
            to: to_rows.0,
            exact: true,
            ..RowBounds::default()
        },
    };
    for file in old.left() {
        sides.difference.removed.add(&file);
        sides.rows.removed += sides.rows.shown(&file);
        sides.from.push(Part::Shown(file));
    }
    for file in new.left() {
        sides.difference.added.add(&file);
        sides.rows.added += sides.rows.shown(&file);
        sides.to.push(Part::Shown(file));
    }
    // Equality deletes are applied by reading data files.
    let by_value = |(before, after): &(DataFile, DataFile)| {
        !before.equality_deletes.is_empty() || !after.equality_deletes.is_empty()
    };
    let (open, masked): (Vec<_>, Vec<_>) = pairs.into_iter().partition(by_value);
    for (before, after) in &open {
        sides.difference.masked.add(after);
        sides.rows.removed += before.rows;
        sides.rows.added += after.rows;
        sides.rows.exact = false;
    }
    sides.open = open;
    for (before, after) in mask_differences(handle, from, to, masked).await? {
        let (Part::Rows(file, gone), Part::Rows(_, shown)) = (&before, &after) else {
            continue;
        };
        if gone.is_empty() && shown.is_empty() {
            // Other masks of the same rows.
            sides.difference.unchanged.add(file);
            continue;
        }
        sides.difference.masked.add(file);
        sides.rows.removed += gone.len();
        sides.rows.added += shown.len();
        sides.push(before, after);
    }
    sides.rows.exact &= sides.rows.added == 0 || sides.rows.removed == 0;
    Ok(sides)
}

impl RowBounds {
    /// Visible rows of a file, or all of them where only its masks tell.
    fn shown(&mut self, file: &DataFile) -> u64 {
        let masked = file.masked_rows();
        self.exact &= masked.is_some();
        file.rows.saturating_sub(masked.unwrap_or(0))
    }
}

impl Sides {
    /// Adds the rows of a file that only one version shows.
    fn push(&mut self, before: Part, after: Part) {
        let has_rows = |part: &Part| matches!(part, Part::Rows(_, rows) if !rows.is_empty());
        self.from.extend(Some(before).filter(has_rows));
        self.to.extend(Some(after).filter(has_rows));
    }

    /// The same with nothing left open: what equality deletes hide is found out.
    ///
    /// # Errors
    /// When a mask, delete file or data file cannot be read.
    pub(super) async fn settled(
        &self,
        handle: &Handle,
        from: &Snapshot,
        to: &Snapshot,
    ) -> Result<(Vec<Part>, Vec<Part>)> {
        let mut settled = Self {
            from: self.from.clone(),
            to: self.to.clone(),
            open: Vec::new(),
            difference: self.difference,
            rows: self.rows,
        };
        for (before, after) in mask_differences(handle, from, to, self.open.clone()).await? {
            settled.push(before, after);
        }
        Ok((settled.from, settled.to))
    }
}

/// The rows of each file that only one of both versions shows.
async fn mask_differences(
    handle: &Handle,
    from: &Snapshot,
    to: &Snapshot,
    pairs: Vec<(DataFile, DataFile)>,
) -> Result<Vec<(Part, Part)>> {
    let (old, new): (Vec<DataFile>, Vec<DataFile>) = pairs.into_iter().unzip();
    let before = read_file_masks(handle, from, &old).await?;
    let after = read_file_masks(handle, to, &new).await?;
    let files = old.into_iter().zip(new);
    let parts = files
        .zip(before.into_iter().zip(after))
        .map(|((old, new), (before, after))| {
            let gone = after.without(&before);
            let shown = before.without(&after);
            (Part::Rows(old, gone), Part::Rows(new, shown))
        });
    Ok(parts.collect())
}

/// Files of one version that the other was not seen to have yet. Statistics are let go: nothing here is pruned by them.
#[derive(Default)]
struct Waiting(HashMap<String, Vec<DataFile>>);

impl Waiting {
    fn put(&mut self, mut file: DataFile) {
        file.columns.clear();
        file.split_offsets = Vec::new();
        self.0.entry(file.path.clone()).or_default().push(file);
    }

    fn take(&mut self, path: &str) -> Option<DataFile> {
        let files = self.0.get_mut(path)?;
        let file = files.pop();
        if files.is_empty() {
            self.0.remove(path);
        }
        file
    }

    /// Those that the other version does not have, in the order of their paths.
    fn left(self) -> Vec<DataFile> {
        let mut files: Vec<DataFile> = self.0.into_values().flatten().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }
}
