//! Writers that meet: each request that others may notice waits for its turn, and every order is tried, but of those
//! that differ only in requests that do not conflict one. Afterwards the rows of every version must be those of running
//! the operations one after the other, in the order of the history; who was told of a commit finds it there once; only
//! a restore may end with a conflict; no file is missing or left behind.
//!
//! `LAKEHOUSE_SCHEDULES=1000000` goes on with random orders, of three writers too and with lost replies, until so many
//! were run over made-up data files, and a hundredth of it with whole operations; `LAKEHOUSE_SOAK_SECONDS=600` runs
//! random orders alone, for so long. `LAKEHOUSE_SEED` repeats one.

pub(crate) mod bed;
pub(crate) mod cases;
mod expire;
pub(crate) mod explorer;
pub(crate) mod gate;
mod groups;
pub(crate) mod history;
pub(crate) mod staged;
pub(crate) mod whole;
mod zombies;

use std::time::Instant;

use bed::{Bed, Kind, Level};
use cases::{Case, OVERLAPS, Overlap, Verb, run};
use explorer::{Explorer, Search};
use gate::Points;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::{number, soak_until};
use crate::verbs::FORMATS;

const STAGED: [Verb; 8] = [
    Verb::Append,
    Verb::Overwrite,
    Verb::Delete,
    Verb::Update,
    Verb::Merge,
    Verb::Compact,
    Verb::AppendColumn,
    Verb::Restore,
];

/// One operation for each way to lose a race: publish again, plan again, fit in, give up.
const SOME: [Verb; 4] = [Verb::Append, Verb::Update, Verb::Merge, Verb::Compact];

const TRIPLES: [[Verb; 3]; 3] = [
    [Verb::Merge, Verb::Compact, Verb::Append],
    [Verb::Update, Verb::Delete, Verb::Merge],
    [Verb::Append, Verb::Overwrite, Verb::Restore],
];

const WHOLE: [Verb; 8] = [
    Verb::Append,
    Verb::Overwrite,
    Verb::Delete,
    Verb::Update,
    Verb::Merge,
    Verb::Compact,
    Verb::MergeColumn,
    Verb::Restore,
];

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// What was run, for the last line of each test.
#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    schedules: u64,
    given_up: u64,
    diverged: u64,
}

impl Tally {
    fn add(&mut self, explorer: &Explorer) {
        self.cases += 1;
        self.schedules += explorer.runs;
        self.given_up += explorer.given_up;
        self.diverged += explorer.diverged;
    }

    fn print(&self, what: &str, started: Instant) {
        // Else not every order was seen.
        assert_eq!(self.diverged, 0, "{what}: the same choices led to other requests");
        println!(
            "{what}: {} schedules of {} cases, {} given up as known, {} diverged, {:.1} s",
            self.schedules,
            self.cases,
            self.given_up,
            self.diverged,
            started.elapsed().as_secs_f64()
        );
    }
}

/// Every schedule of one case, until one goes wrong.
async fn try_explore(bed: &Bed, case: &Case, search: Search) -> Result<Explorer, String> {
    let mut explorer = Explorer::new(search);
    loop {
        let complete = run(bed, case, 1, &mut explorer).await;
        let complete = complete.map_err(|why| format!("schedule {}: {why}", explorer.runs))?;
        if !explorer.advance(complete) {
            return Ok(explorer);
        }
    }
}

async fn explore(bed: &Bed, case: &Case, search: Search, tally: &mut Tally) {
    let explored = try_explore(bed, case, search).await;
    tally.add(&explored.unwrap_or_else(|why| panic!("{why}")));
}

/// How long random orders are run.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Until there are so many schedules, those counted that are always run.
    Schedules(u64),
    /// Alone, until then.
    Time(Instant),
    /// This seed alone.
    Seed(u64),
}

impl Until {
    /// As the environment says; `share` is this test's part of the schedules asked for.
    fn asked(share: u64) -> Option<Self> {
        let seed = number("LAKEHOUSE_SEED").map(Self::Seed);
        seed.or_else(|| soak_until().map(Self::Time))
            .or_else(|| number("LAKEHOUSE_SCHEDULES").map(|schedules| Self::Schedules(schedules / share)))
    }

    /// Whether nothing else is run.
    fn alone(self) -> bool {
        !matches!(self, Self::Schedules(_))
    }

    fn is_over(self, tally: &Tally) -> bool {
        match self {
            Self::Schedules(schedules) => tally.schedules >= schedules,
            Self::Time(end) => Instant::now() >= end,
            Self::Seed(_) => tally.schedules > 0,
        }
    }
}

/// Random orders of random cases.
async fn at_random(beds: &[Bed], verbs: &[Verb], until: Until, tally: &mut Tally) {
    let start = match until {
        Until::Seed(seed) => seed,
        _ => rand::rng().random_range(0..1 << 48),
    };
    for seed in start.. {
        if until.is_over(tally) {
            return;
        }
        let mut random = StdRng::seed_from_u64(seed);
        let writers = if random.random_bool(0.5) { 2 } else { 3 };
        let case = Case {
            verbs: (0..writers)
                .map(|_| *verbs.choose(&mut random).unwrap())
                .collect(),
            overlap: *OVERLAPS.choose(&mut random).unwrap(),
            points: Points::All,
            loses_reply: random.random_bool(0.3).then(|| random.random_range(0..4)),
        };
        let bed = beds.choose(&mut random).unwrap();
        let mut explorer = Explorer::new(Search::Random { seed, runs: 1 });
        let done = run(bed, &case, seed, &mut explorer).await;
        done.unwrap_or_else(|why| panic!("LAKEHOUSE_SEED={seed}: {why}"));
        explorer.advance(true);
        tally.add(&explorer);
    }
}

/// Every pair once: which of the two comes first is for the schedules to say. By hand, each both ways round, so that
/// either operation is about either rows.
fn pairs(verbs: &[Verb]) -> impl Iterator<Item = Vec<Verb>> {
    let both_ways = number("LAKEHOUSE_SCHEDULES").is_some();
    verbs.iter().enumerate().flat_map(move |(at, one)| {
        let others = if both_ways { verbs } else { &verbs[at..] };
        others.iter().map(move |other| vec![*one, *other])
    })
}

/// Iceberg v2 commits as v3 does: unless by hand, little of it is run.
fn few(kind: Kind) -> bool {
    kind.1 == Some(2) && number("LAKEHOUSE_SCHEDULES").is_none()
}

/// Every ordered pair with every overlap, one of the two ways in all orders, the other to a bound; the table for it is `bed`'s.
async fn all_pairs<'a>(kind: Kind, verbs: &[Verb], bed: impl Fn(Overlap) -> &'a Bed, tally: &mut Tally) {
    let verbs = if few(kind) { &SOME } else { verbs };
    for verbs in pairs(verbs) {
        for overlap in OVERLAPS {
            let mut case = Case {
                verbs: verbs.clone(),
                overlap,
                points: Points::Versions,
                loses_reply: None,
            };
            explore(bed(overlap), &case, Search::Exhaustive, tally).await;
            // With the rows exchanged too; by hand the pair comes a second time.
            if !few(kind) && number("LAKEHOUSE_SCHEDULES").is_none() && verbs[0] != verbs[1] {
                case.verbs.reverse();
                explore(bed(overlap), &case, Search::Preemptions(1), tally).await;
            }
        }
    }
}

/// Some pairs that touch the same rows, with a reply lost: of the first create of a version, or of the second.
async fn lost_replies(bed: &Bed, tally: &mut Tally) {
    for verbs in pairs(&SOME) {
        for create in 0..2 {
            let case = Case {
                verbs: verbs.clone(),
                overlap: Overlap::SameRow,
                points: Points::Versions,
                loses_reply: Some(create),
            };
            explore(bed, &case, Search::Exhaustive, tally).await;
        }
    }
}

fn staged(kind: Kind) {
    block_on(async {
        let started = Instant::now();
        let bed = Bed::small(kind, Level::Staged).await;
        let mut tally = Tally::default();
        let until = Until::asked(3);
        if let Some(until) = until.filter(|until| until.alone()) {
            at_random(&[bed], &STAGED, until, &mut tally).await;
            return tally.print(&format!("staged changes, {kind:?}, random orders"), started);
        }
        all_pairs(kind, &STAGED, |_| &bed, &mut tally).await;
        tally.print(&format!("staged changes, {kind:?}, pairs"), started);
        if let Some(until) = until {
            at_random(&[bed], &STAGED, until, &mut tally).await;
            tally.print(&format!("staged changes, {kind:?}, with random orders"), started);
        }
    });
}

/// Replies that are lost, advice that is late, three writers.
fn staged_with_more(kind: Kind) {
    if Until::asked(3).is_some_and(Until::alone) {
        return;
    }
    block_on(async {
        let started = Instant::now();
        let bed = Bed::small(kind, Level::Staged).await;
        let mut tally = Tally::default();
        lost_replies(&bed, &mut tally).await;
        // Advice where to look can come early or late too: it is the same for all operations.
        for verbs in pairs(&SOME) {
            let case = Case {
                verbs,
                overlap: Overlap::SameRow,
                points: Points::All,
                loses_reply: None,
            };
            explore(&bed, &case, Search::Exhaustive, &mut tally).await;
        }
        tally.print(
            &format!("staged changes, {kind:?}, lost replies and late advice"),
            started,
        );
        for verbs in TRIPLES {
            let case = Case {
                verbs: verbs.to_vec(),
                overlap: Overlap::SameRow,
                points: Points::Versions,
                loses_reply: None,
            };
            explore(&bed, &case, Search::Preemptions(1), &mut tally).await;
        }
        tally.print(&format!("staged changes, {kind:?}, with three writers"), started);
    });
}

fn whole(kind: Kind) {
    block_on(async {
        let started = Instant::now();
        let masking = Bed::small(kind, Level::Whole { mask: true }).await;
        let rewriting = Bed::small(kind, Level::Whole { mask: false }).await;
        let mut tally = Tally::default();
        let until = Until::asked(300);
        if let Some(until) = until.filter(|until| until.alone()) {
            at_random(&[masking, rewriting], &WHOLE, until, &mut tally).await;
            return tally.print(&format!("whole operations, {kind:?}, random orders"), started);
        }
        let bed = |overlap| match overlap {
            Overlap::Disjoint => &rewriting,
            Overlap::SameFile | Overlap::SameRow => &masking,
        };
        all_pairs(kind, &WHOLE, bed, &mut tally).await;
        tally.print(&format!("whole operations, {kind:?}, pairs"), started);
        if !few(kind) {
            lost_replies(&masking, &mut tally).await;
            tally.print(&format!("whole operations, {kind:?}, with lost replies"), started);
        }
        if let Some(until) = until {
            at_random(&[masking, rewriting], &WHOLE, until, &mut tally).await;
            tally.print(
                &format!("whole operations, {kind:?}, with random orders"),
                started,
            );
        }
    });
}

#[test]
fn staged_changes_of_two_writers_end_as_if_in_turn_on_iceberg_v2() {
    staged(FORMATS[0]);
}

#[test]
fn staged_changes_of_two_writers_end_as_if_in_turn_on_iceberg_v3() {
    staged(FORMATS[1]);
}

#[test]
fn staged_changes_of_two_writers_end_as_if_in_turn_on_delta() {
    staged(FORMATS[2]);
}

#[test]
fn staged_changes_with_lost_replies_and_of_three_writers_end_as_if_in_turn_on_iceberg_v3() {
    staged_with_more(FORMATS[1]);
}

#[test]
fn staged_changes_with_lost_replies_and_of_three_writers_end_as_if_in_turn_on_delta() {
    staged_with_more(FORMATS[2]);
}

#[test]
fn operations_of_two_writers_end_as_if_in_turn_on_iceberg_v2() {
    whole(FORMATS[0]);
}

#[test]
fn operations_of_two_writers_end_as_if_in_turn_on_iceberg_v3() {
    whole(FORMATS[1]);
}

#[test]
fn operations_of_two_writers_end_as_if_in_turn_on_delta() {
    whole(FORMATS[2]);
}

#[test]
fn a_merge_that_does_not_say_what_it_read_is_found_out() {
    block_on(async {
        for kind in FORMATS {
            let bed = Bed::small(kind, Level::Careless).await;
            let case = Case {
                verbs: vec![Verb::Append, Verb::Merge],
                overlap: Overlap::SameRow,
                points: Points::Versions,
                loses_reply: None,
            };
            // The key that the other writer appended is inserted once more.
            let Err(why) = try_explore(&bed, &case, Search::Exhaustive).await else {
                panic!("{kind:?}: two rows with one key, and nobody saw it");
            };
            assert!(why.contains("is wrong: missing"), "{why}");
        }
    });
}
