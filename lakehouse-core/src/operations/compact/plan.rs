//! Which files are worth rewriting, and which of them together. Looks at what the metadata tells, reads and writes
//! nothing.

use std::collections::HashMap;

use datafusion::scalar::ScalarValue;

use crate::model::DataFile;

/// Bytes and partitions that are rewritten at once: few enough that the writer need not close files early.
const LOT_BYTES: u64 = 64 << 20;
const LOT_PARTITIONS: usize = 128;

/// Files of one partition that are rewritten together, in the order of their listing.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    /// The files, all of one partition spec and of the same partition values.
    pub(super) files: Vec<DataFile>,
}

impl Group {
    /// Bytes of the files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What is to be rewritten.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The groups worth it.
    pub(super) chosen: Vec<Group>,
    /// Those that are small and by themselves not worth it.
    pub(super) left: Vec<Group>,
}

/// Groups the files that are small (below three quarters of `target` bytes) or have masked rows.
pub(super) fn groups(files: Vec<DataFile>, target: u64) -> Groups {
    let mut index: HashMap<(i32, Vec<ScalarValue>), usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for file in files {
        let masked = is_masked(&file);
        if !masked && file.bytes >= target / 4 * 3 {
            continue;
        }
        let key = (file.spec_id, file.partition.clone());
        let at = *index.entry(key).or_insert_with(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        groups[at].files.push(file);
    }
    let (chosen, left) = groups.into_iter().partition(|group| {
        let fewer = group.bytes().div_ceil(target) < group.files.len() as u64;
        fewer || group.files.iter().any(is_masked)
    });
    Groups { chosen, left }
}

fn is_masked(file: &DataFile) -> bool {
    !file.masks.is_empty() || !file.equality_deletes.is_empty()
}

/// Groups that are rewritten by one scan and one writer, which splits them again: planning a scan for
/// each small partition would take longer than reading it.
pub(super) fn lots(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut lots: Vec<Vec<Group>> = Vec::new();
    let mut bytes = 0;
    for group in groups {
        let more = group.bytes();
        match lots.last_mut() {
            Some(lot) if bytes + more <= LOT_BYTES && lot.len() < LOT_PARTITIONS => {
                lot.push(group);
                bytes += more;
            }
            _ => {
                lots.push(vec![group]);
                bytes = more;
            }
        }
    }
    lots
}
