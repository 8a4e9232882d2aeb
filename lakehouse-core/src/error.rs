//! The one error type: what went wrong, where, and what to do next.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};

/// Every fallible function of this crate returns this.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. The variants are what a caller branches on; the texts are for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another writer committed something that this operation must not ignore, and planning again
    /// did not help within the allowed attempts. Nothing was committed; running again is safe.
    #[error("conflict on {table}: {detail}")]
    Conflict {
        /// Location of the table.
        table: String,
        /// The rule that fired (R1 to R6 of `commit/conflict.rs`) and the files concerned.
        detail: String,
    },
    /// The store did not say whether the commit landed, and it could not be found out. Nothing was
    /// deleted. Look at the table's history for `commit_id` before running again.
    #[error("commit {commit_id} on {table} may or may not have landed: {source}")]
    CommitUnknown {
        /// Location of the table.
        table: String,
        /// The id that the commit carries if it landed.
        commit_id: String,
        /// The store's last answer.
        source: Box<Error>,
    },
    /// Input that cannot be used: a broken metadata file, a value that does not fit, a bad argument.
    #[error("{what}{}", At(place))]
    Invalid {
        /// What is wrong.
        what: String,
        /// Where: a file, column, row or argument. Empty when `what` says it all.
        place: String,
        /// What to do about it. Empty when there is nothing to add.
        hint: String,
    },
    /// Something that the table or its format does not offer.
    #[error("{what}")]
    Unsupported {
        /// What was asked for, and why it is refused.
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// A bound that protects the process was met (size, depth, memory).
    #[error("{what}{}", At(place))]
    Limit {
        /// The limit and the value that met it.
        what: String,
        /// The file or setting concerned.
        place: String,
        /// What to do about it. Empty when there is nothing to add.
        hint: String,
    },
    /// The store or the confinement of paths refused access.
    #[error("access denied: {what}")]
    Denied {
        /// What was refused, and by whom.
        what: String,
    },
    /// A table, version, file or column that is not there.
    #[error("{what} not found{}", At(place))]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where it was looked for.
        place: String,
        /// What to do about it. Empty when there is nothing to add.
        hint: String,
    },
    /// A table (or an output) is already there.
    #[error("{what} already exists")]
    AlreadyExists {
        /// What exists.
        what: String,
    },
    /// The object store failed.
    #[error("storage: cannot {action} {path}: {}", Cause(source))]
    Store {
        /// What was being done: "read", "write", "list" ...
        action: &'static str,
        /// The object: a file's path, or its URL.
        path: String,
        /// The store's own error.
        source: object_store::Error,
    },
    /// The query engine failed (planning or execution).
    #[error("{0}")]
    Engine(Box<datafusion::error::DataFusionError>),
}

/// Prints ` (in PLACE)` unless the place is empty.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " (in {})", self.0)
        }
    }
}

/// Prints the operating system's own words where an error has them at its root.
struct Cause<'a>(&'a object_store::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (io_error(self.0), self.0) {
            (Some(error), _) => error.fmt(f),
            (None, object_store::Error::Generic { source, .. }) => source.fmt(f),
            (None, other) => other.fmt(f),
        }
    }
}

/// The operating system's error at the root of another, however deep it was wrapped.
fn io_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<io::Error>() {
            Some(found) if found.kind() != ErrorKind::Other => return Some(found),
            _ => next = error.source(),
        }
    }
    None
}

/// What the operating system objected to, if it was the operating system.
pub(crate) fn io_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    io_error(error).map(io::Error::kind)
}

/// What to do about a failure of the operating system.
fn io_hint(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    match io_kind(error)? {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(
            "free some space there (or raise the quota) and run the command again: the table is as it was",
        ),
        ErrorKind::ReadOnlyFilesystem => {
            Some("the file system is mounted read-only: remount it, or use a table elsewhere")
        }
        ErrorKind::PermissionDenied => Some("check who may read and write that folder"),
        _ => None,
    }
}

impl Error {
    /// [`Error::Invalid`] with a place and without a hint.
    pub fn invalid(what: impl Into<String>, place: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            place: place.into(),
            hint: String::new(),
        }
    }

    /// [`Error::Unsupported`] with what to do instead.
    pub fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// [`Error::NotFound`] without a hint.
    pub fn not_found(what: impl Into<String>, place: impl Into<String>) -> Self {
        Self::NotFound {
            what: what.into(),
            place: place.into(),
            hint: String::new(),
        }
    }

    /// The same error with what to do about it, where the variant has room for it.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Invalid { hint, .. }
            | Self::Unsupported { hint, .. }
            | Self::Limit { hint, .. }
            | Self::NotFound { hint, .. } => *hint = text.into(),
            _ => {}
        }
        self
    }

    /// What to do next, if the error knows.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Invalid { hint, .. }
            | Self::Unsupported { hint, .. }
            | Self::Limit { hint, .. }
            | Self::NotFound { hint, .. }
                if !hint.is_empty() =>
            {
                Some(hint)
            }
            Self::Conflict { .. } => Some("nothing was committed; it is safe to run the command again"),
            Self::CommitUnknown { .. } => Some(
                "look for the commit id in the table's history before running again; nothing was deleted",
            ),
            Self::Store { source, .. } => io_hint(source),
            Self::Engine(error) => io_hint(error.as_ref()),
            _ => None,
        }
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    /// Finds an error of ours that travelled through the engine, so that it keeps its variant, and what
    /// the store said about a missing or forbidden file.
    fn from(error: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as E;
        match error {
            E::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::recognise(E::External(other)),
            },
            E::Context(_, inner) if matches!(*inner, E::External(_)) => Self::from(*inner),
            E::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
                Ok(inner) => Self::from(inner),
                Err(shared) => Self::recognise(E::Shared(shared)),
            },
            other => Self::recognise(other),
        }
    }
}

impl Error {
    /// An error of the engine, or what lies at its root, however deep it was wrapped.
    fn recognise(error: datafusion::error::DataFusionError) -> Self {
        let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(inner) = next {
            if let Some(ours) = inner.downcast_ref::<Self>().and_then(Self::duplicate) {
                return ours;
            }
            match inner.downcast_ref() {
                Some(object_store::Error::NotFound { path, .. }) => {
                    return Self::not_found(path, "")
                        .with_hint("the file is gone although the table or the query names it");
                }
                Some(object_store::Error::PermissionDenied { path, source }) => {
                    return Self::Denied {
                        what: format!("cannot read or write {path}: {source}"),
                    };
                }
                _ => next = inner.source(),
            }
        }
        if let datafusion::error::DataFusionError::ResourcesExhausted(why) = error.find_root() {
            let what = why.lines().next().unwrap_or_default();
            return Self::Limit {
                what: format!("not enough memory: {what}"),
                place: "memory limit".to_owned(),
                hint: String::new(),
            };
        }
        Self::Engine(Box::new(error))
    }

    /// An error of ours that another one was made of.
    pub(crate) fn within(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(inner) = next {
            if let Some(ours) = inner.downcast_ref::<Self>().and_then(Self::duplicate) {
                return Some(ours);
            }
            next = inner.source();
        }
        None
    }

    /// The same error again, where it consists of text only.
    fn duplicate(&self) -> Option<Self> {
        Some(match self {
            Self::Conflict { table, detail } => Self::Conflict {
                table: table.clone(),
                detail: detail.clone(),
            },
            Self::Invalid { what, place, hint } => Self::Invalid {
                what: what.clone(),
                place: place.clone(),
                hint: hint.clone(),
            },
            Self::Unsupported { what, hint } => Self::Unsupported {
                what: what.clone(),
                hint: hint.clone(),
            },
            Self::Limit { what, place, hint } => Self::Limit {
                what: what.clone(),
                place: place.clone(),
                hint: hint.clone(),
            },
            Self::Denied { what } => Self::Denied { what: what.clone() },
            Self::NotFound { what, place, hint } => Self::NotFound {
                what: what.clone(),
                place: place.clone(),
                hint: hint.clone(),
            },
            Self::AlreadyExists { what } => Self::AlreadyExists { what: what.clone() },
            Self::CommitUnknown { .. } | Self::Store { .. } | Self::Engine(_) => return None,
        })
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(inner) => *inner,
            other => Self::External(Box::new(other)),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::from(datafusion::error::DataFusionError::from(error))
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::from(datafusion::error::DataFusionError::from(error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::error::ArrowError;
    use datafusion::error::DataFusionError as E;
    use parquet::errors::ParquetError;

    use super::*;

    fn ours() -> Error {
        Error::invalid("row 7 has no key", "feed.csv").with_hint("add the key")
    }

    #[test]
    fn our_errors_keep_their_variant_however_the_engine_wraps_them() {
        let external = || E::External(Box::new(ours()));
        let shared = Arc::new(external());
        let wrapped = [
            external(),
            external().context("while joining"),
            E::ArrowError(Box::new(ArrowError::ExternalError(Box::new(external()))), None),
            E::ArrowError(Box::new(ArrowError::ExternalError(Box::new(ours()))), None),
            E::ParquetError(Box::new(ParquetError::External(Box::new(ours())))),
            E::Shared(Arc::clone(&shared)),
        ];
        for wrapped in wrapped {
            let text = format!("{wrapped:?}");
            let found = Error::from(wrapped);
            assert!(
                matches!(&found, Error::Invalid { place, .. } if place == "feed.csv"),
                "{text}: {found:?}"
            );
            assert_eq!(found.hint(), Some("add the key"));
        }
        drop(shared);
    }

    #[test]
    fn a_missing_or_forbidden_file_is_told_as_such_when_the_engine_meets_it() {
        let gone = || object_store::Error::NotFound {
            path: "data/x.parquet".into(),
            source: "no such file".into(),
        };
        for wrapped in [
            E::ObjectStore(Box::new(gone())),
            E::ParquetError(Box::new(ParquetError::External(Box::new(gone())))),
        ] {
            let found = Error::from(wrapped);
            assert!(
                matches!(&found, Error::NotFound { what, .. } if what == "data/x.parquet"),
                "{found:?}"
            );
        }
        let denied = object_store::Error::PermissionDenied {
            path: "data/x.parquet".into(),
            source: "not yours".into(),
        };
        let found = Error::from(E::ObjectStore(Box::new(denied)));
        assert!(matches!(found, Error::Denied { .. }));
    }

    #[test]
    fn a_full_disk_that_the_engine_meets_says_what_to_do() {
        let full = io::Error::from(ErrorKind::StorageFull);
        let full = object_store::Error::Generic {
            store: "local disk",
            source: full.into(),
        };
        let found = Error::from(E::ParquetError(Box::new(ParquetError::External(Box::new(full)))));
        assert!(
            found.hint().is_some_and(|hint| hint.contains("free some space")),
            "{found:?}"
        );
    }
}
