//! Tags and branches.

use super::Version;
use crate::error::{Error, Result};

/// The branch that is read and written where no other is named.
pub const MAIN: &str = "main";

/// What kind of name a version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// Stays at its version.
    Tag,
    /// Moves to every version that is committed to it.
    Branch,
}

impl RefKind {
    /// The word for it: `tag`, `branch`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Branch => "branch",
        }
    }
}

/// What whoever expires versions must leave alone. `None`: as the table's properties say (Iceberg spec,
/// "Snapshot Retention Policy").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long the tag or branch itself is kept, in milliseconds after its version was committed.
    pub max_ref_age_ms: Option<i64>,
    /// How many versions of a branch are kept at least.
    pub min_snapshots_to_keep: Option<i32>,
    /// How long the versions of a branch are kept, in milliseconds.
    pub max_snapshot_age_ms: Option<i64>,
}

impl Retention {
    /// What is said here, and of `other` what is not said here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            max_ref_age_ms: self.max_ref_age_ms.or(other.max_ref_age_ms),
            min_snapshots_to_keep: self.min_snapshots_to_keep.or(other.min_snapshots_to_keep),
            max_snapshot_age_ms: self.max_snapshot_age_ms.or(other.max_snapshot_age_ms),
        }
    }
}

/// A tag or a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ref {
    /// Which of both.
    pub kind: RefKind,
    /// The version that a tag names, the newest one of a branch.
    pub version: Version,
    /// How long it is kept.
    pub retention: Retention,
}

/// What a commit does to one tag or branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefChange {
    /// As it stood in the base; `None` if it was not there.
    pub before: Option<Ref>,
    /// As it is from this commit on; `None` if it is dropped.
    pub after: Option<Ref>,
}

/// Refuses a name that could not be used wherever a version can be named.
///
/// # Errors
/// [`Error::Invalid`] saying what is wrong with it.
pub fn check_ref_name(name: &str) -> Result<()> {
    let digits = name.strip_prefix(['-', '+']).unwrap_or(name);
    let what = if name.trim().is_empty() {
        "a tag or branch needs a name".to_owned()
    } else if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("a tag or branch cannot be called {name}: numbers are versions")
    } else if name.trim() != name || name.chars().any(char::is_control) {
        format!("a tag or branch cannot be called {name:?}: it has blanks around it or control characters")
    } else {
        return Ok(());
    };
    Err(Error::invalid(what, "").with_hint("choose a name such as audit or release-2026-01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_versions_are_refused() {
        for name in [
            "",
            " ",
            "7",
            "-1",
            "+3",
            "99999999999999999999999",
            " audit",
            "audit\n",
        ] {
            assert!(check_ref_name(name).is_err(), "{name:?}");
        }
        for name in ["audit", "release-2026-01", "2026-01-31", "v1", "-", "a b", "été"] {
            assert!(check_ref_name(name).is_ok(), "{name:?}");
        }
    }
}
