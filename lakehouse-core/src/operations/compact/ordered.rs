//! Which files are rewritten so that rows lie in an order.

use std::collections::{HashMap, HashSet};

use super::CompactStrategy;
use super::plan::{Group, Rules, partition};
use crate::error::Result;
use crate::format::Handle;
use crate::model::{DataFile, Snapshot};
use crate::operations::cluster::{Due, Judge, Order, choose};

/// The groups that are worth it, those of one partition side by side: files that overlap in this order, and what the
/// rules say, so that no group reaches over files that stay.
///
/// # Errors
/// When what files note about themselves cannot be read.
pub(super) async fn groups(
    handle: &Handle,
    snapshot: &Snapshot,
    rules: &Rules,
    order: &Order,
    files: Vec<DataFile>,
) -> Result<Vec<Group>> {
    let (foreign, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| rules.is_foreign(file));
    let due = |file: &DataFile| match (rules.is_due(file), rules.is_small(file)) {
        (true, _) => Due::Yes,
        (false, true) if rules.strategy != CompactStrategy::MaskedFiles => Due::Small,
        _ if file.bytes > rules.target / 2 * 3 => Due::Large,
        _ => Due::No,
    };
    let all = match rules.strategy {
        CompactStrategy::All => files.clone(),
        _ => Vec::new(),
    };
    let rest = rules.for_the_rest();
    let become_fewer = |files: &[DataFile]| rest.is_worth_it(files);
    let judge = Judge {
        due: &due,
        become_fewer: &become_fewer,
        target: rules.target,
        most: rules.max_ordered,
    };
    let chosen = choose(handle, snapshot, order, files, &judge).await?;
    let mut groups: Vec<Group> = chosen.groups.into_iter().map(Group::of).collect();
    if rules.strategy == CompactStrategy::All {
        // A partition with anything to do is one group, if that is not too much.
        let mut left = chosen.others;
        let mut bytes: HashMap<_, u64> = HashMap::new();
        for file in &all {
            *bytes.entry(partition(file)).or_default() += file.bytes;
        }
        let place = |group: &Group| group.files.first().map(partition);
        let fits = |place: &_| bytes.get(place).is_none_or(|bytes| *bytes <= rules.max_ordered);
        let unfinished: HashSet<_> = groups.iter().filter_map(place).filter(fits).collect();
        groups.retain(|group| place(group).is_some_and(|place| !unfinished.contains(&place)));
        left.retain(|file| !unfinished.contains(&partition(file)));
        let mut whole: Vec<Group> = Vec::new();
        for file in all
            .into_iter()
            .filter(|file| unfinished.contains(&partition(file)))
        {
            let same = |group: &&mut Group| group.files.first().map(partition) == Some(partition(&file));
            match whole.iter_mut().find(same) {
                Some(group) => group.files.push(file),
                None => whole.push(Group::of(vec![file])),
            }
        }
        groups.extend(whole);
        groups.extend(rest.groups(left));
    } else {
        groups.extend(rules.groups(chosen.others));
    }
    groups.iter_mut().for_each(|group| group.overlapping = true);
    groups.extend(rules.groups(foreign));
    Ok(groups)
}
