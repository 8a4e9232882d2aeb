//! Whether a checkpoint says what the log before it says.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::actions::{AddFile, FileKey};
use super::super::kernel::Replay;
use super::super::log;
use crate::error::{Error, Result};
use crate::store::Store;

/// Data files: how many, and a sum over them that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    files: u64,
    sum: u64,
}

impl Sum {
    fn add(&mut self, add: &AddFile) {
        let mut hasher = DefaultHasher::new();
        (add.key(), add.size, &add.partition_values).hash(&mut hasher);
        (add.base_row_id, add.default_row_commit_version).hash(&mut hasher);
        self.files += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }

    /// Those of a version, but for the ones that are `decided` already.
    async fn of(store: &Store, replay: &Replay, decided: &HashSet<FileKey>) -> Result<Self> {
        let mut sum = Self::default();
        let mut batches = replay.files(store);
        while let Some(batch) = batches.recv().await {
            let undecided = batch?.into_iter().filter(|add| !decided.contains(&add.key()));
            undecided.for_each(|add| sum.add(&add));
        }
        Ok(sum)
    }
}

/// Compares what a reader finds who begins with the checkpoint of a version with the version before and the log entry: data files,
/// protocol, metadata. Where the version before cannot be read any more there is nothing to compare with. How many data files it
/// lists.
///
/// # Errors
/// [`Error::Invalid`] when they differ, or the checkpoint is not whole.
pub(in crate::delta) async fn verify(store: &Store, version: u64) -> Result<u64> {
    let key = log::checkpoint_key(version);
    let replay = Replay::load(store, None, Some(version)).await?;
    if replay.checkpoint().map(|(found, _)| found) != Some(version) {
        return Err(Error::invalid("the checkpoint is not there, or not whole", key));
    }
    let found = Sum::of(store, &replay, &HashSet::new()).await?;
    let Some(entry) = log::read(store, version).await? else {
        return Ok(found.files);
    };
    let before = match version.checked_sub(1) {
        None => None,
        Some(before) => match Replay::load(store, None, Some(before)).await {
            Ok(before) => Some(before),
            Err(Error::Invalid { .. } | Error::NotFound { .. }) => return Ok(found.files),
            Err(error) => return Err(error),
        },
    };
    let removed = entry
        .iter()
        .filter_map(|row| row.remove.as_ref())
        .map(|remove| remove.key());
    let added = entry.iter().filter_map(|row| row.add.as_ref()).map(AddFile::key);
    let decided: HashSet<FileKey> = removed.chain(added).collect();
    let mut expected = match &before {
        Some(before) => Sum::of(store, before, &decided).await?,
        None => Sum::default(),
    };
    entry
        .iter()
        .filter_map(|row| row.add.as_ref())
        .for_each(|add| expected.add(add));
    let protocol = entry.iter().find_map(|row| row.protocol.clone());
    let metadata = entry.iter().find_map(|row| row.meta_data.clone());
    let (protocol, metadata) = match &before {
        Some(before) => (
            Some(protocol.map_or_else(|| before.protocol(), Ok)?),
            Some(metadata.map_or_else(|| before.metadata(), Ok)?),
        ),
        None => (protocol, metadata),
    };
    let same = found == expected
        && protocol.is_none_or(|protocol| replay.protocol().is_ok_and(|found| alike(&found, &protocol)))
        && metadata.is_none_or(|metadata| replay.metadata().is_ok_and(|found| found == metadata));
    if same {
        return Ok(found.files);
    }
    Err(Error::invalid(
        format!(
            "the checkpoint does not say what the log says: it lists {} data files, the log {}",
            found.files, expected.files
        ),
        key,
    )
    .with_hint("delete the checkpoint, which is wrong, and write it again: lake checkpoint"))
}

/// Whether two protocols ask for the same, in whatever order.
fn alike(a: &super::super::actions::Protocol, b: &super::super::actions::Protocol) -> bool {
    let sorted = |features: &Option<Vec<String>>| {
        let mut features = features.clone().unwrap_or_default();
        features.sort_unstable();
        features
    };
    a.min_reader_version == b.min_reader_version
        && a.min_writer_version == b.min_writer_version
        && sorted(&a.reader_features) == sorted(&b.reader_features)
        && sorted(&a.writer_features) == sorted(&b.writer_features)
}
