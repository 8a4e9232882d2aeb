//! Which actor goes on: every order that matters, every order with few switches, or orders at random.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::gate::Request;

/// Which schedules are run.
#[derive(Debug, Clone)]
pub(crate) enum Search {
    /// Every order of requests, but of those that differ only in the order of requests that do not conflict one:
    /// another actor goes first only where that reverses a conflict that was seen (Flanagan and Godefroid, "Dynamic
    /// partial-order reduction", 2005), with sleep sets.
    Exhaustive,
    /// Every order in which an actor that could go on is interrupted at most so often.
    Preemptions(u32),
    /// So many orders at random.
    Random { seed: u64, runs: u64 },
}

/// One choice of the run at hand, and what else could be chosen there.
#[derive(Debug)]
struct Node {
    enabled: Vec<(usize, Request)>,
    /// Actors whose request was tried before, in an order that gives the same.
    asleep: Vec<usize>,
    chosen: usize,
    tried: Vec<usize>,
    /// Actors that have to be tried here, because what they do later conflicts with what was chosen.
    backtrack: Vec<usize>,
    /// Who went before, and how many were interrupted until here.
    current: Option<usize>,
    preemptions: u32,
}

impl Node {
    fn request(&self, actor: usize) -> Option<&Request> {
        let found = self.enabled.iter().find(|(enabled, _)| *enabled == actor);
        found.map(|(_, request)| request)
    }

    fn interrupts(&self, actor: usize) -> bool {
        self.current
            .is_some_and(|current| current != actor && self.request(current).is_some())
    }

    /// The next actor to try: the one that is at it, if possible.
    fn next(&self, search: &Search) -> Option<usize> {
        let may = |actor: &usize| {
            let within = match search {
                Search::Preemptions(bound) => !self.interrupts(*actor) || self.preemptions < *bound,
                Search::Exhaustive => self.tried.is_empty() || self.backtrack.contains(actor),
                Search::Random { .. } => true,
            };
            within && !self.tried.contains(actor) && !self.asleep.contains(actor)
        };
        let current = self.current.filter(|current| self.request(*current).is_some());
        let all = self.enabled.iter().map(|(actor, _)| *actor);
        current.into_iter().chain(all).find(may)
    }
}

/// Depth-first over all choices, by running again and again from the start.
pub(crate) struct Explorer {
    search: Search,
    path: Vec<Node>,
    depth: usize,
    random: StdRng,
    /// Runs that came to their end.
    pub(crate) runs: u64,
    /// Runs that were given up, because what follows had been tried in another order.
    pub(crate) given_up: u64,
    /// Choices that were not there when they came up again: something in a run was left to chance.
    pub(crate) diverged: u64,
}

impl Explorer {
    pub(crate) fn new(search: Search) -> Self {
        let seed = match search {
            Search::Random { seed, .. } => seed,
            _ => 0,
        };
        Self {
            search,
            path: Vec::new(),
            depth: 0,
            random: StdRng::seed_from_u64(seed),
            runs: 0,
            given_up: 0,
            diverged: 0,
        }
    }

    /// The actor that goes on; `None` if this run shows nothing new.
    pub(crate) fn choose(&mut self, enabled: &[(usize, Request)]) -> Option<usize> {
        let depth = self.depth;
        self.reverse_conflicts(enabled);
        self.depth += 1;
        if let Search::Random { .. } = self.search {
            // Actors that run for a while reach states that even shares never do.
            let current = self.path.last().map(|node| node.chosen);
            let stays = current.filter(|at| enabled.iter().any(|(actor, _)| actor == at));
            let chosen = match stays.filter(|_| self.random.random_bool(0.5)) {
                Some(current) => current,
                None => enabled.choose(&mut self.random)?.0,
            };
            self.path.push(self.node(enabled, chosen));
            return Some(chosen);
        }
        if let Some(node) = self.path.get_mut(depth) {
            if node.enabled == enabled {
                return Some(node.chosen);
            }
            self.diverged += 1;
            if enabled.iter().any(|(actor, _)| *actor == node.chosen) {
                node.enabled = enabled.to_vec();
                return Some(node.chosen);
            }
            self.path.truncate(depth);
        }
        let mut node = self.node(enabled, 0);
        node.chosen = node.next(&self.search)?;
        let chosen = node.chosen;
        self.path.push(node);
        Some(chosen)
    }

    /// Where an actor comes to a request that conflicts with an earlier one of another actor, it has to be tried before
    /// that one too.
    pub(crate) fn reverse_conflicts(&mut self, requests: &[(usize, Request)]) {
        for (actor, request) in requests {
            let mut seen = vec![*actor];
            let gone = self.depth.min(self.path.len());
            for node in self.path[..gone].iter_mut().rev() {
                let conflict = node
                    .request(node.chosen)
                    .is_some_and(|went| went.conflicts(request));
                if conflict && !seen.contains(&node.chosen) {
                    seen.push(node.chosen);
                    if !node.backtrack.contains(actor) {
                        node.backtrack.push(*actor);
                    }
                }
            }
        }
    }

    fn node(&self, enabled: &[(usize, Request)], chosen: usize) -> Node {
        let mut node = Node {
            enabled: enabled.to_vec(),
            asleep: Vec::new(),
            chosen,
            tried: Vec::new(),
            backtrack: Vec::new(),
            current: None,
            preemptions: 0,
        };
        if let Some(last) = self.path.last() {
            node.current = Some(last.chosen);
            node.preemptions = last.preemptions + u32::from(last.interrupts(last.chosen));
            if let (Search::Exhaustive, Some(went)) = (&self.search, last.request(last.chosen)) {
                let before = last.asleep.iter().chain(&last.tried).copied();
                let still = before.filter(|actor| {
                    *actor != last.chosen
                        && last
                            .request(*actor)
                            .is_some_and(|request| !request.conflicts(went))
                });
                node.asleep = still.collect();
            }
        }
        node
    }

    /// After a run: whether there is another one to do.
    pub(crate) fn advance(&mut self, complete: bool) -> bool {
        self.depth = 0;
        self.runs += u64::from(complete);
        self.given_up += u64::from(!complete);
        if let Search::Random { runs, .. } = self.search {
            self.path.clear();
            return self.runs < runs;
        }
        while let Some(node) = self.path.last_mut() {
            node.tried.push(node.chosen);
            if let Some(next) = node.next(&self.search) {
                node.chosen = next;
                return true;
            }
            self.path.pop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lakehouse_core::store::sim::Kind;

    use super::*;

    /// Runs actors that are lists of requests; gives the orders seen.
    fn explore(actors: &[Vec<Request>], search: Search) -> (Vec<Vec<usize>>, u64) {
        let mut explorer = Explorer::new(search);
        let mut seen = Vec::new();
        loop {
            let mut at = vec![0; actors.len()];
            let mut order = Vec::new();
            let complete = loop {
                let enabled: Vec<(usize, Request)> = (0..actors.len())
                    .filter_map(|actor| Some((actor, actors[actor].get(at[actor])?.clone())))
                    .collect();
                if enabled.is_empty() {
                    break true;
                }
                let Some(chosen) = explorer.choose(&enabled) else {
                    break false;
                };
                at[chosen] += 1;
                order.push(chosen);
            };
            if complete {
                seen.push(order);
            }
            if !explorer.advance(complete) {
                return (seen, explorer.given_up);
            }
        }
    }

    fn request(kind: Kind, key: &str) -> Request {
        Request::Store(kind, key.to_owned())
    }

    #[test]
    fn every_order_is_seen_once_where_all_requests_conflict() {
        let puts = vec![request(Kind::Put, "a"); 4];
        let (seen, given_up) = explore(&[puts.clone(), puts], Search::Exhaustive);
        assert_eq!(seen.len(), 70, "eight over four");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 70);
        assert_eq!(given_up, 0);
    }

    #[test]
    fn requests_that_do_not_conflict_are_seen_in_one_order() {
        let actor = |key: &str| vec![request(Kind::Get, "shared"), request(Kind::Put, key)];
        let (seen, _) = explore(&[actor("a"), actor("b")], Search::Exhaustive);
        assert_eq!(seen.len(), 1);
        let (seen, _) = explore(&[actor("a"), actor("a")], Search::Exhaustive);
        assert_eq!(seen.len(), 2, "who puts last");
        let list = vec![request(Kind::List, "folder/")];
        let (seen, _) = explore(
            &[list.clone(), vec![request(Kind::Put, "folder/a")]],
            Search::Exhaustive,
        );
        assert_eq!(seen.len(), 2);
        let (seen, _) = explore(&[list, vec![request(Kind::Put, "other/a")]], Search::Exhaustive);
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn a_bound_limits_how_often_an_actor_is_interrupted() {
        let puts = vec![request(Kind::Put, "a"); 3];
        let count = |bound| {
            explore(&[puts.clone(), puts.clone()], Search::Preemptions(bound))
                .0
                .len()
        };
        assert_eq!(count(0), 2);
        assert_eq!(count(1), 2 + 4);
        assert_eq!(count(6), 20, "six over three: all");
    }
}
