//! What operations mean, on rows in memory, and the judge: the version history gives the order of the commits, so the
//! operations, replayed in that order, must give the rows of every version.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use lakehouse_core::model::Version;
use lakehouse_core::{Error, Result};

/// `(id, n, tip)`; tables may lack the last column.
pub(crate) type Row = (i64, i64, Option<i64>);

/// A bag of rows, sorted.
pub(crate) type Rows = Vec<Row>;

/// One operation of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Append(Rows),
    /// Rows that may have a column which the table lacks.
    AppendColumn(Rows),
    /// The rows with these ids go, those come.
    Overwrite(RangeInclusive<i64>, Rows),
    Delete(RangeInclusive<i64>),
    /// `n = 3 n + by`, which gives another result in another order.
    Update(RangeInclusive<i64>, i64),
    /// By id; matched rows get `n = 2 n + source.n`, others are inserted.
    Merge(Vec<(i64, i64)>),
    /// By id, with a column that the table may lack; matched rows take all values of the source.
    MergeColumn(Rows),
    /// From one id's `n` to another's.
    Transfer {
        from: i64,
        to: i64,
        amount: i64,
    },
    Compact,
    /// The version that [`Bed`](super::bed::Bed) keeps for this.
    Restore,
}

impl Op {
    /// What it makes of these rows. `old` are those of the version that a restore goes back to.
    pub(crate) fn apply(&self, rows: &mut Rows, old: &Rows) {
        match self {
            Self::Append(new) | Self::AppendColumn(new) => rows.extend(new),
            Self::Overwrite(ids, new) => {
                rows.retain(|(id, ..)| !ids.contains(id));
                rows.extend(new);
            }
            Self::Delete(ids) => rows.retain(|(id, ..)| !ids.contains(id)),
            Self::Update(ids, by) => {
                for (id, n, _) in rows.iter_mut() {
                    if ids.contains(id) {
                        *n = 3 * *n + by;
                    }
                }
            }
            Self::Merge(source) => {
                let mut new = Rows::new();
                for (key, value) in source {
                    let mut matched = false;
                    for (_, n, _) in rows.iter_mut().filter(|(id, ..)| id == key) {
                        *n = 2 * *n + value;
                        matched = true;
                    }
                    if !matched {
                        new.push((*key, *value, None));
                    }
                }
                rows.extend(new);
            }
            Self::MergeColumn(source) => {
                for new in source {
                    let matched = rows.iter().any(|(id, ..)| *id == new.0);
                    match matched {
                        true => rows
                            .iter_mut()
                            .filter(|row| row.0 == new.0)
                            .for_each(|row| *row = *new),
                        false => rows.push(*new),
                    }
                }
            }
            Self::Transfer { from, to, amount } => {
                for (id, n, _) in rows.iter_mut() {
                    *n += amount * (i64::from(id == to) - i64::from(id == from));
                }
            }
            Self::Compact => {}
            Self::Restore => rows.clone_from(old),
        }
        rows.sort_unstable();
    }
}

/// How an operation ended, as its caller saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Committed(Version),
    /// There was nothing to do on this version.
    Nothing(Version),
    /// With a conflict: nothing was committed.
    Conflict(String),
    /// With any other error: nothing was committed.
    Failed(String),
    /// It may have been committed or not.
    Unknown,
}

impl Ended {
    /// Of an operation that left the table at a version and made it itself, or not.
    pub(crate) fn of(result: Result<(Version, bool)>) -> Self {
        match result {
            Ok((version, true)) => Self::Committed(version),
            Ok((version, false)) => Self::Nothing(version),
            Err(Error::Conflict { detail, .. }) => Self::Conflict(detail),
            Err(Error::CommitUnknown { .. }) => Self::Unknown,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// An operation that was run.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) op: Op,
    pub(crate) ended: Ended,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.op, self.ended)
    }
}

/// What a table went through: its versions with their rows, oldest first; the first is the one before all operations.
pub(crate) struct History<'a> {
    /// Versions before these, which whoever gets a stale listing may still take for the newest.
    pub(crate) earlier: &'a [(Version, Rows)],
    pub(crate) versions: &'a [(Version, Rows)],
    /// The rows that a restore goes back to.
    pub(crate) old: &'a Rows,
    pub(crate) done: &'a [Done],
}

impl History<'_> {
    /// Whether the operations, run one after the other in the order of the versions that they made, give the rows of
    /// every version. Those with an unknown outcome may have made a version or not.
    ///
    /// # Errors
    /// The operations, the version and the rows that differ.
    pub(crate) fn judge(&self) -> std::result::Result<(), String> {
        let committed = |done: &Done| match done.ended {
            Ended::Committed(version) => Some(version),
            _ => None,
        };
        let mut claimed = BTreeSet::new();
        for done in self.done {
            let Some(version) = committed(done) else { continue };
            if !self.versions[1..].iter().any(|(known, _)| *known == version) {
                return Err(format!("{done}: this version is not in the history"));
            }
            if !claimed.insert(version) {
                return Err(format!("{done}: another operation made that version"));
            }
        }
        for done in self.done {
            if let Ended::Nothing(version) = done.ended {
                self.did_nothing(done, version)?;
            }
        }
        let makers = self.versions[1..].iter().map(|(version, _)| {
            let maker = self
                .done
                .iter()
                .position(|done| committed(done) == Some(*version));
            maker.map_or_else(Vec::new, |maker| vec![maker])
        });
        let unknown: Vec<usize> = (0..self.done.len())
            .filter(|at| self.done[*at].ended == Ended::Unknown)
            .collect();
        let makers: Vec<Vec<usize>> = makers
            .map(|maker| if maker.is_empty() { unknown.clone() } else { maker })
            .collect();
        self.replay(&makers, 0, &mut Vec::new())
    }

    fn did_nothing(&self, done: &Done, version: Version) -> std::result::Result<(), String> {
        let mut known = self.earlier.iter().chain(self.versions);
        let Some((_, rows)) = known.find(|(known, _)| *known == version) else {
            return Err(format!("{done}: this version is not in the history"));
        };
        let mut after = rows.clone();
        done.op.apply(&mut after, self.old);
        match after == *rows {
            true => Ok(()),
            false => Err(format!(
                "{done}: there was something to do: {}",
                differ(rows, &after)
            )),
        }
    }

    /// Version by version; where several operations may have made one, each is tried.
    fn replay(
        &self,
        makers: &[Vec<usize>],
        at: usize,
        used: &mut Vec<usize>,
    ) -> std::result::Result<(), String> {
        let Some(possible) = makers.get(at) else {
            return Ok(());
        };
        let (version, rows) = &self.versions[at + 1];
        let (before_version, before) = &self.versions[at];
        let mut why = format!("nobody made version {version}");
        for maker in possible {
            if used.contains(maker) {
                continue;
            }
            let mut expected = before.clone();
            self.done[*maker].op.apply(&mut expected, self.old);
            if expected != *rows {
                let earlier = match used.last() {
                    Some(earlier) => format!("after {}", self.done[*earlier]),
                    None => format!("after version {before_version}"),
                };
                let differ = differ(&expected, rows);
                why = format!("{earlier}, {} is wrong: {differ}", self.done[*maker]);
                continue;
            }
            used.push(*maker);
            match self.replay(makers, at + 1, used) {
                Ok(()) => return Ok(()),
                Err(later) => why = later,
            }
            used.pop();
        }
        Err(why)
    }
}

/// What is missing and what is too much.
pub(crate) fn differ(expected: &Rows, found: &Rows) -> String {
    let less = |from: &Rows, what: &Rows| {
        let mut left = from.clone();
        for row in what {
            if let Some(at) = left.iter().position(|known| known == row) {
                left.remove(at);
            }
        }
        left
    };
    format!(
        "missing {:?}, too many {:?}",
        less(expected, found),
        less(found, expected)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: [Row; 2] = [(1, 10, None), (2, 20, None)];

    fn done(op: Op, ended: Ended) -> Done {
        Done { op, ended }
    }

    /// Version 0 is the start, 1 and on are what `later` says.
    fn judge(later: &[Rows], done: &[Done]) -> std::result::Result<(), String> {
        let all = [START.to_vec()].into_iter().chain(later.iter().cloned());
        let versions: Vec<(Version, Rows)> = (0..).zip(all).collect();
        let old = Rows::new();
        History {
            earlier: &[],
            versions: &versions,
            old: &old,
            done,
        }
        .judge()
    }

    #[test]
    fn operations_are_judged_in_the_order_of_their_versions() {
        let update = |version| done(Op::Update(1..=1, 1), Ended::Committed(version));
        let merge = |version| done(Op::Merge(vec![(1, 5), (3, 3)]), Ended::Committed(version));
        let merged_last = [
            vec![(1, 31, None), START[1]],
            vec![(1, 67, None), START[1], (3, 3, None)],
        ];
        assert_eq!(judge(&merged_last, &[merge(2), update(1)]), Ok(()));
        let why = judge(&merged_last, &[merge(1), update(2)]).unwrap_err();
        assert!(why.contains("missing [(1, 25, None), (3, 3, None)]"), "{why}");
    }

    #[test]
    fn lost_doubled_and_unclaimed_commits_are_told() {
        let append = |ended| done(Op::Append(vec![(5, 5, None)]), ended);
        let once = vec![START[0], START[1], (5, 5, None)];
        let twice = vec![START[0], START[1], (5, 5, None), (5, 5, None)];
        let both = [once.clone(), twice.clone()];
        assert!(
            judge(&[], &[append(Ended::Committed(1))])
                .unwrap_err()
                .contains("not in")
        );
        assert!(judge(std::slice::from_ref(&twice), &[append(Ended::Committed(1))]).is_err());
        let same = [append(Ended::Committed(1)), append(Ended::Committed(1))];
        assert!(judge(&both, &same).unwrap_err().contains("another operation"));
        assert!(judge(&both, &same[..1]).unwrap_err().contains("nobody made"));
        let conflict = append(Ended::Conflict(String::new()));
        assert!(judge(&[once], &[conflict]).unwrap_err().contains("nobody made"));
    }

    #[test]
    fn an_unknown_outcome_may_be_either() {
        let append = |id| done(Op::Append(vec![(id, 0, None)]), Ended::Unknown);
        let rows = |ids: &[i64]| -> Rows {
            let new = ids.iter().map(|id| (*id, 0, None));
            START.into_iter().chain(new).collect()
        };
        let unknown = [append(7), append(8)];
        assert_eq!(judge(&[], &unknown), Ok(()));
        assert_eq!(judge(&[rows(&[8])], &unknown), Ok(()));
        assert_eq!(judge(&[rows(&[8]), rows(&[7, 8])], &unknown), Ok(()));
        assert!(judge(&[rows(&[9])], &unknown).is_err());
        assert!(judge(&[rows(&[7]), rows(&[7, 7])], &unknown).is_err());
    }

    #[test]
    fn doing_nothing_is_right_only_where_there_was_nothing_to_do() {
        let nothing = |op| done(op, Ended::Nothing(0));
        assert_eq!(
            judge(&[], &[nothing(Op::Delete(5..=9)), nothing(Op::Compact)]),
            Ok(())
        );
        assert!(judge(&[], &[nothing(Op::Delete(2..=9))]).is_err());
    }
}
