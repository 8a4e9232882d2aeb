//! Whether the faults happened: every fault at every kind of request that it is about, for every operation that
//! sends such requests.

use std::collections::{BTreeMap, BTreeSet};

use lakehouse_core::store::sim::{Fault, Kind};

use super::FAULTS;

const KINDS: [Kind; 6] = [
    Kind::Get,
    Kind::Head,
    Kind::List,
    Kind::Put,
    Kind::Create,
    Kind::Delete,
];

/// The kinds of requests that a fault does something of its own to; at others it is [`Fault::FailBefore`].
pub(super) fn is_about(fault: Fault, kind: Kind) -> bool {
    match fault {
        Fault::FalseExists => kind == Kind::Create,
        Fault::Late | Fault::Stray => kind.is_write(),
        Fault::CutShort => kind == Kind::Get,
        Fault::StaleList => kind == Kind::List,
        _ => true,
    }
}

/// Counts of a sweep. Faults and kinds go by their names.
#[derive(Debug, Default)]
pub(super) struct Activation {
    /// Requests of each kind that an operation sends when all is well.
    sent: BTreeMap<(String, String), u64>,
    /// How often a fault was met by a request of a kind.
    met: BTreeMap<(String, String, String), u64>,
    /// Operation and fault that do not go together.
    left_out: BTreeSet<(String, String)>,
}

impl Activation {
    /// Notes what an operation sends when all is well.
    pub(super) fn sends(&mut self, verb: &str, log: &[(Kind, String)]) {
        for (kind, _) in log {
            *self.sent.entry((verb.into(), format!("{kind:?}"))).or_default() += 1;
        }
    }

    /// Notes that a run was to meet a fault at this request, if it did.
    pub(super) fn met(&mut self, verb: &str, fault: Fault, at: u64, fired: u64, log: &[(Kind, String)]) {
        if fired == 0 {
            return;
        }
        let (kind, _) = &log[at as usize - 1];
        let key = (verb.into(), format!("{fault:?}"), format!("{kind:?}"));
        *self.met.entry(key).or_default() += 1;
    }

    /// Notes that a fault says nothing about an operation.
    pub(super) fn leaves_out(&mut self, verb: &str, fault: Fault) {
        self.left_out.insert((verb.into(), format!("{fault:?}")));
    }

    /// Prints the counts, and fails where one that should be there is nought.
    pub(super) fn check(&self, what: &str) {
        let verbs: BTreeSet<&String> = self.sent.keys().map(|(verb, _)| verb).collect();
        let mut never = Vec::new();
        println!("{what}: faults that happened, by kind of request");
        for verb in verbs {
            for kind in KINDS {
                let name = format!("{kind:?}");
                let Some(sent) = self.sent.get(&(verb.clone(), name.clone())) else {
                    continue;
                };
                let mut line = format!("{verb:15} {name:7} {sent:3} sent:");
                for fault in FAULTS.into_iter().filter(|fault| is_about(*fault, kind)) {
                    let fault = format!("{fault:?}");
                    if self.left_out.contains(&(verb.clone(), fault.clone())) {
                        continue;
                    }
                    let met = self.met.get(&(verb.clone(), fault.clone(), name.clone()));
                    let met = met.copied().unwrap_or_default();
                    line.push_str(&format!(" {fault} {met}"));
                    if met == 0 {
                        never.push(format!("{verb}: {fault} at a {name}"));
                    }
                }
                println!("{line}");
            }
        }
        assert!(
            never.is_empty(),
            "{what}: these faults never happened: {never:#?}"
        );
    }
}
