//! Tags and branches: made, moved, dropped, fast-forwarded.
//!
//! Each is one commit that changes names only, through the same loop as every other: of two writers that meet, both
//! succeed unless they speak of the same name; then the later one decides again on what it finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::Options;
use super::restore::check_required;
use crate::commit::{CommitOptions, Plan, commit, newest};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{
    At, Change, CommitId, MAIN, OperationKind, Ref, RefChange, RefKind, Retention, Snapshot, Version,
    check_ref_name,
};
use crate::planted::{self, Bug};
use crate::store::clock;

/// A tag or branch as it should be.
#[derive(Debug, Clone)]
pub struct SetRef {
    /// Which of both.
    pub kind: RefKind,
    /// Its name.
    pub name: String,
    /// Its version; `None`: the newest of main, or, of a branch that is replaced, where it is.
    pub at: Option<At>,
    /// How long it is kept. What is not said stays as it is.
    pub retention: Retention,
    /// Change it if it is there with another version or retention, which is an error otherwise.
    pub replace: bool,
}

impl SetRef {
    /// A new tag or branch at the newest version of main.
    pub fn new(kind: RefKind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            at: None,
            retention: Retention::default(),
            replace: false,
        }
    }
}

/// What became of a tag or branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefReport {
    /// Its name.
    pub name: String,
    /// As it was.
    pub before: Option<Ref>,
    /// As it is now; on a dry run, as it would be. `None`: dropped.
    pub after: Option<Ref>,
    /// Whether a commit was made. False when it was so already, and on a dry run.
    pub committed: bool,
    /// Nothing was committed because nothing was to be.
    pub dry_run: bool,
    /// Publish attempts made.
    pub attempts: u32,
}

/// The table's tags and branches, by name.
///
/// # Errors
/// [`Error::Unsupported`] where tables have none.
pub async fn refs(handle: &Handle) -> Result<BTreeMap<String, Ref>> {
    let snapshot = newest(handle, None).await?;
    if snapshot.capabilities.refs {
        return Ok(snapshot.refs.clone());
    }
    Err(Error::unsupported(
        format!("this {} table cannot have tags or branches", handle.format.name()),
        "name versions by number or time, or use a table of --format iceberg, version 2 or 3",
    ))
}

/// Makes a tag or branch, or replaces it. One that is as it should be is left alone. Of the options, `dry_run` and
/// `max_attempts` count.
///
/// # Errors
/// [`Error::Invalid`] for a name that cannot be one or is taken, and for what cannot be kept;
/// [`Error::NotFound`] when there is no such version; [`Error::Unsupported`] where tables have no tags and branches;
/// those of [`commit`].
pub async fn set_ref(handle: &Handle, wanted: &SetRef, options: &Options) -> Result<RefReport> {
    check_ref_name(&wanted.name)?;
    check_retention(wanted)?;
    refs(handle).await?;
    // "-1" and times mean what they meant when the command was given, whatever is committed meanwhile.
    let at = wanted.at.as_ref().unwrap_or(&At::Latest);
    let old = handle.format.snapshot(at).await?;
    if wanted.kind == RefKind::Branch {
        // Branches are read with the columns of today.
        check_required(handle, options, &old, newest(handle, None).await?.as_ref()).await?;
    }
    let version = old.version;
    if version == 0 {
        return Err(Error::invalid(
            format!(
                "the table has no rows yet, and so no version for a {}",
                wanted.kind.name()
            ),
            handle.store.location(),
        )
        .with_hint("write to the table first"));
    }
    run(handle, &wanted.name, &Wanted::Set(wanted, version), options).await
}

/// Drops a tag or branch. Its versions stay until somebody expires them. Options as for [`set_ref`].
///
/// # Errors
/// [`Error::NotFound`] when it is not there, [`Error::Invalid`] when it is of the other kind; [`Error::Unsupported`]
/// for main; those of [`commit`].
pub async fn drop_ref(handle: &Handle, kind: RefKind, name: &str, options: &Options) -> Result<RefReport> {
    if name == MAIN {
        return Err(Error::unsupported(
            "main cannot be dropped: it is what the table is",
            "to remove all rows, overwrite or delete them",
        ));
    }
    refs(handle).await?;
    run(handle, name, &Wanted::Dropped(kind), options).await
}

/// Moves a branch forward to the version of another branch (or tag) that descends from its newest. If it has that
/// version already, nothing is done. Options as for [`set_ref`].
///
/// # Errors
/// [`Error::NotFound`] when one is not there; [`Error::Invalid`] when the branch has versions that the other lacks;
/// those of [`commit`].
pub async fn fast_forward(handle: &Handle, branch: &str, to: &str, options: &Options) -> Result<RefReport> {
    refs(handle).await?;
    run(handle, branch, &Wanted::ForwardTo(to), options).await
}

fn check_retention(wanted: &SetRef) -> Result<()> {
    let kept = wanted.retention;
    let of_versions = kept.min_snapshots_to_keep.is_some() || kept.max_snapshot_age_ms.is_some();
    let ages = [kept.max_ref_age_ms, kept.max_snapshot_age_ms];
    let wrong = if wanted.kind == RefKind::Tag && of_versions {
        "a tag names one version: only the tag itself can be kept for a time"
    } else if wanted.name == MAIN && kept.max_ref_age_ms.is_some() {
        "main is kept for ever"
    } else if ages.into_iter().flatten().any(|age| age <= 0)
        || kept.min_snapshots_to_keep.is_some_and(|count| count <= 0)
    {
        "ages and numbers of versions to keep are greater than zero"
    } else {
        return Ok(());
    };
    Err(Error::invalid(
        wrong,
        format!("{} {}", wanted.kind.name(), wanted.name),
    ))
}

/// What is to become of a name.
#[derive(Debug)]
enum Wanted<'a> {
    /// So, at this version.
    Set(&'a SetRef, Version),
    Dropped(RefKind),
    ForwardTo(&'a str),
}

async fn run(handle: &Handle, name: &str, wanted: &Wanted<'_>, options: &Options) -> Result<RefReport> {
    let mut decision = Decision {
        handle,
        name,
        wanted,
        change: RefChange {
            before: None,
            after: None,
        },
    };
    let (committed, attempts) = if options.dry_run {
        decision
            .plan(newest(handle, None).await?, clock::new_commit_id())
            .await?;
        (false, 0)
    } else {
        let options = CommitOptions {
            max_attempts: options.max_attempts,
            ..CommitOptions::default()
        };
        let done = commit(handle, &options, &mut decision).await?;
        (done.change.is_some(), done.attempts)
    };
    Ok(RefReport {
        name: name.to_owned(),
        before: decision.change.before,
        after: decision.change.after,
        committed,
        dry_run: options.dry_run,
        attempts,
    })
}

/// The operation as the commit loop sees it.
struct Decision<'a> {
    handle: &'a Handle,
    name: &'a str,
    wanted: &'a Wanted<'a>,
    /// Of the last plan.
    change: RefChange,
}

impl Plan for Decision<'_> {
    fn plan<'a>(&'a mut self, base: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            self.handle.format.check_writable(&base)?;
            let before = base.refs.get(self.name).copied();
            let after = match self.wanted {
                Wanted::Set(wanted, version) => Some(self.set(before, wanted, *version)?),
                Wanted::Dropped(kind) => {
                    self.existing(before, *kind)?;
                    None
                }
                Wanted::ForwardTo(to) => Some(self.forward(&base, before, to)?),
            };
            self.change = RefChange { before, after };
            if before == after {
                return Ok(None);
            }
            let mut change = Change::new(OperationKind::Refs, id);
            change.data_change = false;
            change.refs.insert(self.name.to_owned(), self.change);
            Ok(Some(change))
        })
    }
}

impl Decision<'_> {
    fn set(&self, before: Option<Ref>, wanted: &SetRef, version: Version) -> Result<Ref> {
        let Some(old) = before else {
            return Ok(Ref {
                kind: wanted.kind,
                version,
                retention: wanted.retention,
            });
        };
        let (kind, name) = (wanted.kind.name(), self.name);
        self.existing(before, wanted.kind)?;
        // A branch is not taken off what was written to it unless somebody says where to.
        let stays = wanted.replace && wanted.at.is_none() && wanted.kind == RefKind::Branch;
        let new = Ref {
            kind: wanted.kind,
            version: if stays { old.version } else { version },
            retention: wanted.retention.or(old.retention),
        };
        if new != old && !wanted.replace {
            let what = if new.version == old.version {
                format!("the {kind} \"{name}\" is there already, and kept for another time")
            } else {
                format!(
                    "the {kind} \"{name}\" is there already, at version {}",
                    old.version
                )
            };
            return Err(self
                .invalid(what)
                .with_hint("replace it (--replace) to change it, or choose another name"));
        }
        if name == MAIN && new.version != old.version {
            return Err(Error::unsupported(
                "main moves with commits only: what it has now would be lost",
                "make an older version current with restore, or fast-forward main to a branch",
            ));
        }
        Ok(new)
    }

    fn forward(&self, base: &Snapshot, before: Option<Ref>, to: &str) -> Result<Ref> {
        let from = match before {
            // The table without a version: everything descends from it.
            None if self.name == MAIN => Ref {
                kind: RefKind::Branch,
                version: 0,
                retention: Retention::default(),
            },
            before => self.existing(before, RefKind::Branch)?,
        };
        let target = base.refs.get(to).ok_or_else(|| {
            self.missing(format!("branch \"{to}\""))
                .with_hint("list the table's branches")
        })?;
        let format = &self.handle.format;
        if format.is_ancestor(base, target.version, from.version)? {
            return Ok(from);
        }
        if !format.is_ancestor(base, from.version, target.version)? && !planted::is(Bug::ForwardUnchecked) {
            let name = self.name;
            return Err(self
                .invalid(format!(
                    "\"{name}\" cannot be fast-forwarded to \"{to}\": it has versions that \"{to}\" lacks, and \
                     they would be lost"
                ))
                .with_hint(format!(
                    "make a new branch of the newest version of {name}, write to that what was written to {to}, and \
                     fast-forward {name} to it"
                )));
        }
        Ok(Ref {
            version: target.version,
            ..from
        })
    }

    /// The tag or branch, if it is there and of this kind.
    fn existing(&self, found: Option<Ref>, kind: RefKind) -> Result<Ref> {
        let name = self.name;
        match found {
            Some(found) if found.kind == kind => Ok(found),
            Some(found) => Err(self
                .invalid(format!(
                    "\"{name}\" is a {}, not a {}",
                    found.kind.name(),
                    kind.name()
                ))
                .with_hint("a name is that of one tag or one branch; choose another one")),
            None => Err(self
                .missing(format!("{} \"{name}\"", kind.name()))
                .with_hint("list the table's tags and branches")),
        }
    }

    fn invalid(&self, what: String) -> Error {
        Error::invalid(what, self.handle.store.location())
    }

    fn missing(&self, what: String) -> Error {
        Error::not_found(what, self.handle.store.location())
    }
}
