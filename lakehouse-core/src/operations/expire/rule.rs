//! Which versions, tags and branches go: one rule for every format (Iceberg spec, "Snapshot Retention Policy").
//!
//! A tag or branch goes when its version is older than the name is kept for; main never does. Of each branch that stays, its
//! newest versions stay: so many, and all that are young enough. A version of a branch grows old from when the next one
//! took its place: until then it is what readers open, however long ago it was committed. A tag keeps its version. A
//! version that is in the history of no branch stays while it is young enough. A version is never taken from the middle of what can be
//! read where its name could be taken again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{MAIN, Ref, RefKind, Retained, Retention, Version};

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Ages are counted from here, in milliseconds since 1970 UTC.
    pub(super) now_ms: i64,
    /// For branches that say nothing themselves, and for versions of none.
    pub(super) retention: Retention,
    /// Names of versions written later than this stay, by the store's clock.
    pub(super) floor_ms: i64,
}

/// What is to become of a table's versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) expired: BTreeSet<Version>,
    pub(super) kept: BTreeSet<Version>,
    /// Tags and branches.
    pub(super) dropped: Vec<String>,
    /// Versions that would go if their names were older.
    pub(super) too_young: u64,
}

impl Policy {
    /// Whether it is less than `kept_ms` since then.
    fn is_young(&self, since_ms: i64, kept_ms: Option<i64>) -> bool {
        // A clock that was fast once makes nothing immortal.
        let age = self.now_ms.saturating_sub(since_ms).max(0);
        kept_ms.is_none_or(|kept| age < kept)
    }
}

/// Decides about these versions; `newest` is what main has where the table has no branches.
pub(super) fn decide(
    versions: &[Retained],
    refs: &BTreeMap<String, Ref>,
    newest: Version,
    policy: &Policy,
) -> Decision {
    let known: HashMap<Version, &Retained> = versions.iter().map(|one| (one.version, one)).collect();
    let main = Ref {
        kind: RefKind::Branch,
        version: newest,
        retention: Retention::default(),
    };
    let mut names = refs.clone();
    names.entry(MAIN.to_owned()).or_insert(main);
    let (mut kept, mut of_a_branch, mut dropped) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (name, found) in names {
        let Some(head) = known.get(&found.version) else {
            continue;
        };
        let retention = found.retention.or(policy.retention);
        if name != MAIN && !policy.is_young(head.timestamp_ms, retention.max_ref_age_ms) {
            dropped.push(name);
            continue;
        }
        if found.kind == RefKind::Tag {
            kept.insert(found.version);
            continue;
        }
        let least = retention.min_snapshots_to_keep.unwrap_or(1).max(1);
        let least = usize::try_from(least).unwrap_or(1);
        let mut unbroken = true;
        let mut replaced_ms = i64::MAX;
        for (rank, one) in line(&known, found.version).enumerate() {
            // The clock of who made the next one may be slow.
            let since_ms = replaced_ms.max(one.timestamp_ms);
            replaced_ms = one.timestamp_ms;
            unbroken &= rank < least || policy.is_young(since_ms, retention.max_snapshot_age_ms);
            if unbroken {
                kept.insert(one.version);
            }
            of_a_branch.insert(one.version);
        }
    }
    for one in versions {
        let age_ms = policy.retention.max_snapshot_age_ms;
        if !of_a_branch.contains(&one.version) && policy.is_young(one.timestamp_ms, age_ms) {
            kept.insert(one.version);
        }
    }
    let too_young = keep_names(versions, &known, policy, &mut kept);
    let expired = known.keys().copied().filter(|version| !kept.contains(version));
    Decision {
        expired: expired.collect(),
        kept,
        dropped,
        too_young,
    }
}

/// A version and those that it descends from, newest first, as far as they are there.
fn line<'a>(
    known: &'a HashMap<Version, &'a Retained>,
    version: Version,
) -> impl Iterator<Item = &'a Retained> {
    let mut at = known.get(&version).copied();
    let mut steps = known.len();
    std::iter::from_fn(move || {
        let one = at.filter(|_| steps > 0)?;
        // Metadata of others may name versions in a circle.
        steps -= 1;
        at = one.parent.and_then(|parent| known.get(&parent).copied());
        Some(one)
    })
}

/// Keeps versions whose names are too young, and all that descend from them; how many these are.
fn keep_names(
    versions: &[Retained],
    known: &HashMap<Version, &Retained>,
    policy: &Policy,
    kept: &mut BTreeSet<Version>,
) -> u64 {
    let young = |one: &Retained| one.named_ms.is_some_and(|named| named > policy.floor_ms);
    let mut settled: HashMap<Version, bool> = HashMap::new();
    let mut more = 0;
    for one in versions.iter().filter(|one| one.named_ms.is_some()) {
        let mut path = Vec::new();
        let mut stays = false;
        for at in line(known, one.version) {
            if let Some(found) = settled.get(&at.version) {
                stays = *found;
                break;
            }
            path.push(at);
        }
        for at in path.into_iter().rev() {
            stays |= young(at);
            settled.insert(at.version, stays);
        }
        if stays && kept.insert(one.version) {
            more += 1;
        }
    }
    more
}
