//! The rule against a naive model, and cases that it must get right.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rule::{Decision, Policy, decide};
use crate::model::{MAIN, Ref, RefKind, Retained, Retention, Version};

const NOW: i64 = 1_000_000;

fn version(version: Version, parent: Option<Version>, age: i64) -> Retained {
    Retained {
        version,
        parent,
        timestamp_ms: NOW - age,
        named_ms: None,
    }
}

fn a_ref(kind: RefKind, version: Version, retention: Retention) -> Ref {
    Ref {
        kind,
        version,
        retention,
    }
}

fn policy(age: i64, least: i32) -> Policy {
    Policy {
        now_ms: NOW,
        retention: Retention {
            max_ref_age_ms: None,
            min_snapshots_to_keep: Some(least),
            max_snapshot_age_ms: Some(age),
        },
        floor_ms: i64::MIN,
    }
}

/// Ten versions in a row, the newest (10) of age 0, each ten older than the next.
fn row() -> Vec<Retained> {
    (1..=10)
        .map(|n| version(n, (n > 1).then_some(n - 1), (10 - n) * 10))
        .collect()
}

fn kept(decision: &Decision) -> Vec<Version> {
    decision.kept.iter().copied().collect()
}

#[test]
fn the_last_versions_and_the_young_ones_stay() {
    let none = BTreeMap::new();
    assert_eq!(kept(&decide(&row(), &none, 10, &policy(25, 1))), [7, 8, 9, 10]);
    assert_eq!(kept(&decide(&row(), &none, 10, &policy(0, 4))), [7, 8, 9, 10]);
    assert_eq!(kept(&decide(&row(), &none, 10, &policy(0, 1))), [10]);
    assert_eq!(kept(&decide(&row(), &none, 10, &policy(1000, 1))).len(), 10);
    assert_eq!(kept(&decide(&row(), &none, 10, &policy(0, i32::MAX))).len(), 10);
}

#[test]
fn tags_hold_one_version_branches_what_they_say_and_both_go_when_they_are_old() {
    let named = |name: &str, one: Ref| (name.to_owned(), one);
    let own = Retention {
        min_snapshots_to_keep: Some(2),
        max_snapshot_age_ms: Some(1),
        max_ref_age_ms: None,
    };
    let short = Retention {
        max_ref_age_ms: Some(60),
        ..Retention::default()
    };
    let refs = BTreeMap::from([
        named(MAIN, a_ref(RefKind::Branch, 10, short)),
        named("v2", a_ref(RefKind::Tag, 2, Retention::default())),
        named("gone", a_ref(RefKind::Tag, 4, short)),
        named("old", a_ref(RefKind::Branch, 3, short)),
        named("audit", a_ref(RefKind::Branch, 6, own)),
    ]);
    let decision = decide(&row(), &refs, 10, &policy(0, 1));
    assert_eq!(kept(&decision), [2, 5, 6, 10]);
    assert_eq!(decision.dropped, ["gone", "old"]);
}

#[test]
fn versions_of_no_branch_stay_while_they_are_young() {
    let mut versions = row();
    versions.push(version(20, Some(3), 5));
    versions.push(version(21, Some(3), 50));
    let decision = decide(&versions, &BTreeMap::new(), 10, &policy(20, 1));
    assert_eq!(kept(&decision), [8, 9, 10, 20]);
}

#[test]
fn a_version_that_was_current_until_just_now_stays_however_old_it_is() {
    let versions = [
        version(1, None, 900),
        version(2, Some(1), 800),
        version(3, Some(2), 5),
    ];
    assert_eq!(
        kept(&decide(&versions, &BTreeMap::new(), 3, &policy(100, 1))),
        [2, 3]
    );
    // The clock of who made the next one was slow: the version's own time counts.
    let versions = [version(1, None, 50), version(2, Some(1), 800)];
    assert_eq!(
        kept(&decide(&versions, &BTreeMap::new(), 2, &policy(100, 1))),
        [1, 2]
    );
}

#[test]
fn a_young_name_keeps_its_version_and_all_after_it() {
    let mut versions = row();
    for one in &mut versions {
        one.named_ms = Some(if one.version == 6 { 500 } else { 100 });
    }
    let policy = Policy {
        floor_ms: 400,
        ..policy(0, 2)
    };
    let decision = decide(&versions, &BTreeMap::new(), 10, &policy);
    assert_eq!(kept(&decision), [6, 7, 8, 9, 10]);
    assert_eq!(decision.too_young, 3);
}

#[test]
fn versions_that_descend_from_each_other_in_a_circle_end_the_walk() {
    let versions = [version(1, Some(2), 10), version(2, Some(1), 5)];
    assert_eq!(kept(&decide(&versions, &BTreeMap::new(), 2, &policy(0, 1))), [2]);
}

/// What must stay, said of each version on its own.
fn naive(versions: &[Retained], refs: &BTreeMap<String, Ref>, policy: &Policy) -> BTreeSet<Version> {
    let find = |id: Version| versions.iter().find(|one| one.version == id);
    let age = |one: &Retained| NOW - one.timestamp_ms;
    let ancestors = |mut id: Version| {
        let mut line = Vec::new();
        while let Some(one) = find(id) {
            line.push(one);
            id = one.parent.unwrap_or(0);
        }
        line
    };
    let of = |one: &Ref| one.retention.or(policy.retention);
    let alive: Vec<&Ref> = refs
        .iter()
        .filter(|(name, one)| {
            let limit = of(one).max_ref_age_ms.unwrap_or(i64::MAX);
            name.as_str() == MAIN || find(one.version).is_some_and(|head| age(head) < limit)
        })
        .map(|(_, one)| one)
        .collect();
    let stays = |one: &Retained| {
        let tagged = alive
            .iter()
            .any(|r| r.kind == RefKind::Tag && r.version == one.version);
        let mut in_a_branch = false;
        let mut held = false;
        for branch in alive.iter().filter(|r| r.kind == RefKind::Branch) {
            let line = ancestors(branch.version);
            if let Some(rank) = line.iter().position(|other| other.version == one.version) {
                in_a_branch = true;
                let kept = of(branch);
                // Since the next one took its place, or it was made, whichever was later.
                let is_old = |at: usize| {
                    let replaced = at.checked_sub(1).map(|next| age(line[next]));
                    let limit = kept.max_snapshot_age_ms.unwrap_or(i64::MAX);
                    replaced.is_some_and(|replaced| replaced.min(age(line[at])) >= limit)
                };
                let old = (0..=rank).find(|at| is_old(*at));
                let least = kept.min_snapshots_to_keep.unwrap_or(1).max(1) as usize;
                // The first old one ends it, unless it is among the last so many: then the first old one after these.
                let ends = match old {
                    None => usize::MAX,
                    Some(first) if first >= least => first,
                    Some(_) => (least..line.len()).find(|at| is_old(*at)).unwrap_or(usize::MAX),
                };
                held |= rank < ends;
            }
        }
        let young = age(one) < policy.retention.max_snapshot_age_ms.unwrap_or(i64::MAX);
        tagged || held || (!in_a_branch && young)
    };
    versions
        .iter()
        .filter(|one| stays(one))
        .map(|one| one.version)
        .collect()
}

#[test]
fn random_histories_with_tags_and_branches_agree_with_the_naive_model() {
    for seed in 0..3000 {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(1..25);
        let mut age = random.random_range(0..20);
        let mut versions: Vec<Retained> = Vec::new();
        for id in (1..=count).rev() {
            // Parents are older; some were expired before.
            let parent = (id > 1).then(|| random.random_range((id - 3).max(1)..id));
            versions.push(version(
                id,
                parent.filter(|_| random.random_range(0..10) > 0),
                age,
            ));
            age += random.random_range(0..10);
        }
        let some =
            |random: &mut StdRng, most: i64| random.random_bool(0.5).then(|| random.random_range(1..most));
        let mut refs = BTreeMap::new();
        for at in 0..random.random_range(1..5) {
            let name = if at == 0 {
                MAIN.to_owned()
            } else {
                format!("r{at}")
            };
            let kind = match at > 0 && random.random_bool(0.4) {
                true => RefKind::Tag,
                false => RefKind::Branch,
            };
            let retention = Retention {
                max_ref_age_ms: some(&mut random, 120),
                min_snapshots_to_keep: some(&mut random, 6).map(|n| n as i32),
                max_snapshot_age_ms: some(&mut random, 120),
            };
            refs.insert(name, a_ref(kind, random.random_range(1..=count), retention));
        }
        let policy = policy(random.random_range(0..120), random.random_range(1..6));
        let decision = decide(&versions, &refs, count, &policy);
        assert_eq!(
            decision.kept,
            naive(&versions, &refs, &policy),
            "seed {seed}: {versions:?} {refs:?} {policy:?}"
        );
        let all: BTreeSet<Version> = decision.kept.union(&decision.expired).copied().collect();
        assert_eq!(all.len(), versions.len(), "seed {seed}");
        assert!(decision.kept.is_disjoint(&decision.expired), "seed {seed}");
    }
}
