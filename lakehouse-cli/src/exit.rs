//! From an error to what the user reads and the shell sees.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done (a closed pipe is no error) |
//! | 1 | error: nothing was committed; or `check` found errors |
//! | 2 | usage: the command line is wrong |
//! | 3 | conflict: nothing was committed, safe to run again |
//! | 4 | commit unknown: look at the history before running again |
//! | 5 | `diff --exit-code` found a difference |
//! | 130 | interrupted by Ctrl-C |

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use lakehouse_core::Error;
use serde_json::{Value, json};

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong: what, and how it should be.
    Usage { what: String, hint: String },
    /// The library's error.
    Lake(Error),
    /// A local file or a terminal: what was done to it, and the system's answer.
    Io {
        action: &'static str,
        place: String,
        source: std::io::Error,
    },
    /// The reader of our output went away.
    BrokenPipe,
    /// Ctrl-C.
    Interrupted,
    /// The two versions that were compared are different, which the command was asked to tell.
    Different,
    /// `lake check` found errors, and has printed them.
    Damaged,
    /// A check that the command makes itself did not hold.
    Check(String),
    /// What went wrong was printed already; this is the exit code.
    Told(u8),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Lake(error)
    }
}

impl From<datafusion::error::DataFusionError> for Failure {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::Lake(error.into())
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Lake(error.into())
    }
}

impl From<parquet::errors::ParquetError> for Failure {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Lake(error.into())
    }
}

impl Failure {
    /// A wrong command line, with what to do about it.
    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// For `map_err` on work with a local file.
    pub(crate) fn io(action: &'static str, place: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let place = place.display().to_string();
        move |source| Self::Io {
            action,
            place,
            source,
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Usage { .. } => 2,
            Self::Lake(error) => code_of(error),
            Self::Different => 5,
            Self::Interrupted => 130,
            Self::Told(code) => *code,
            Self::Io { .. } | Self::Check(_) | Self::Damaged => 1,
        }
    }

    /// One word for machines.
    fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Io { .. } => "io",
            Self::BrokenPipe => "broken_pipe",
            Self::Interrupted => "interrupted",
            Self::Different => "different",
            Self::Check(_) => "check",
            Self::Damaged => "damaged",
            Self::Told(_) => "told",
            Self::Lake(error) => match error {
                Error::Conflict { .. } => "conflict",
                Error::CommitUnknown { .. } => "commit_unknown",
                Error::Invalid { .. } => "invalid",
                Error::Unsupported { .. } => "unsupported",
                Error::Limit { .. } => "limit",
                Error::Denied { .. } => "denied",
                Error::NotFound { .. } => "not_found",
                Error::AlreadyExists { .. } => "already_exists",
                Error::Store { .. } => "store",
                _ => "engine",
            },
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Usage { what, .. } | Self::Check(what) => what.clone(),
            Self::Lake(Error::Engine(inner)) => engine_message(&inner.strip_backtrace()),
            Self::Lake(error) => error.to_string(),
            Self::Io {
                action,
                place,
                source,
            } => format!("cannot {action} {place}: {source}"),
            Self::BrokenPipe => "the reader of the output went away".into(),
            Self::Interrupted => "interrupted".into(),
            Self::Different => "the versions are different".into(),
            Self::Damaged => "the table is damaged".into(),
            Self::Told(_) => "not everything could be done".into(),
        }
    }

    /// What lies beneath, outermost first, without what the message says already.
    fn causes(&self) -> Vec<String> {
        let Self::Lake(error) = self else {
            return Vec::new();
        };
        if matches!(error, Error::Engine(_)) {
            return Vec::new();
        }
        let mut said = self.message();
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Wrappers repeat what lies beneath: what counts is whether the end of it was said.
            let end = text.rsplit(": ").next().unwrap_or(&text);
            if !said.contains(end) {
                said.push_str(&text);
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some(hint.clone()).filter(|hint| !hint.is_empty()),
            Self::Lake(Error::AlreadyExists { .. }) => {
                Some("name another place, or add to it: lake append, lake merge".into())
            }
            Self::Lake(error) => error
                .hint()
                .map(str::to_owned)
                .or_else(|| system_hint(&deepest_io(error)?)),
            Self::Io { source, .. } => system_hint(source),
            Self::Interrupted => Some(
                "nothing was committed unless `lake history` shows a new version; files already written are \
                 invisible to readers"
                    .into(),
            ),
            Self::BrokenPipe | Self::Different | Self::Damaged | Self::Check(_) | Self::Told(_) => None,
        }
    }

    /// The same for machines.
    pub(crate) fn to_json(&self) -> Value {
        json!({"error": {
            "kind": self.kind(),
            "message": self.message(),
            "causes": self.causes(),
            "hint": self.hint(),
            "exit_code": self.code(),
        }})
    }

    /// `error: ..`, `  caused by: ..`, `hint: ..`
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("error: {}\n", self.message());
        for cause in self.causes() {
            let _ = writeln!(text, "  caused by: {cause}");
        }
        if let Some(hint) = self.hint() {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

/// The exit code of an error of the library.
pub(crate) fn code_of(error: &Error) -> u8 {
    match error {
        Error::Conflict { .. } => 3,
        Error::CommitUnknown { .. } => 4,
        _ => 1,
    }
}

/// What is told of a panic, which is always a fault of ours. The place of it went to stderr.
pub(crate) fn fault(error: tokio::task::JoinError) -> Failure {
    let what = error.try_into_panic().ok().and_then(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned())
    });
    Failure::Check(format!(
        "this is a fault in lake, please report it: {}",
        what.as_deref().unwrap_or("the work stopped")
    ))
}

/// The engine's own prefixes say nothing to a user.
fn engine_message(text: &str) -> String {
    let mut text = text;
    loop {
        let before = text;
        for prefix in [
            "Error during planning: ",
            "Execution error: ",
            "External error: ",
            "Arrow error: ",
            "Parquet error: ",
            "Schema error: ",
            "SQL error: ",
        ] {
            text = text.strip_prefix(prefix).unwrap_or(text);
        }
        if text == before {
            return text.to_owned();
        }
    }
}

/// The system's error at the bottom of an error of the library.
fn deepest_io(error: &Error) -> Option<std::io::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut found = None;
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            found = Some(
                io.raw_os_error()
                    .map_or_else(|| io.kind().into(), std::io::Error::from_raw_os_error),
            );
        }
        next = cause.source();
    }
    found
}

/// What to do about the errors of the system that people meet.
fn system_hint(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind as Kind;
    let text = match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            "free some space there (or raise the quota) and run the command again"
        }
        Kind::ReadOnlyFilesystem => {
            "the file system is read-only: write to another place or mount it writable"
        }
        Kind::PermissionDenied => "the current user may not do this: check owner and permissions of the path",
        Kind::NotADirectory => "a part of the path is a file, not a folder: check the path",
        Kind::NotFound => "check the path",
        Kind::IsADirectory => "this is a folder: name a file",
        _ => return None,
    };
    Some(text.into())
}

/// Ends a command: tells the user about a failure, and the shell its code.
pub(crate) fn finish(result: Result<(), Failure>, json: bool) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    if !matches!(
        failure,
        Failure::BrokenPipe | Failure::Different | Failure::Damaged | Failure::Told(_)
    ) {
        tell(&failure, json);
    }
    ExitCode::from(failure.code())
}

/// Ends a command whose arguments clap refused, or that asked for help.
pub(crate) fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let what = text.strip_prefix("error: ").unwrap_or(&text);
        let (what, hint) = what.split_once("\n\n").unwrap_or((what, ""));
        tell(
            &Failure::usage(what.trim(), hint.split_whitespace().collect::<Vec<_>>().join(" ")),
            json,
        );
        return ExitCode::from(2);
    }
    // A closed pipe is no error.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

fn tell(failure: &Failure, json: bool) {
    // Nobody is left to tell when these fail.
    if json {
        let _ = writeln!(std::io::stdout().lock(), "{}", failure.to_json());
    } else {
        let _ = std::io::stderr().lock().write_all(failure.to_text().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage_full() -> Error {
        let full = std::io::Error::from_raw_os_error(28);
        Error::Store {
            action: "write",
            path: "data/1.parquet".into(),
            source: object_store::Error::Generic {
                store: "LocalFileSystem",
                source: Box::new(full),
            },
        }
    }

    #[test]
    fn every_kind_of_failure_has_its_code() {
        let conflict = Error::Conflict {
            table: "t".into(),
            detail: "R1".into(),
        };
        let unknown = Error::CommitUnknown {
            table: "t".into(),
            commit_id: "c".into(),
            source: Box::new(storage_full()),
        };
        for (failure, code) in [
            (Failure::BrokenPipe, 0),
            (Failure::Lake(storage_full()), 1),
            (Failure::usage("a", "b"), 2),
            (Failure::Lake(conflict), 3),
            (Failure::Lake(unknown), 4),
            (Failure::Different, 5),
            (Failure::Damaged, 1),
            (Failure::Interrupted, 130),
        ] {
            assert_eq!(failure.code(), code, "{failure:?}");
        }
    }

    #[test]
    fn a_full_disk_deep_inside_an_error_gives_its_hint() {
        let text = Failure::Lake(storage_full()).to_text();
        assert_eq!(text.matches("No space left on device").count(), 1, "{text}");
        assert!(text.contains("\nhint: free some space"), "{text}");
    }

    #[test]
    fn causes_are_told_once() {
        let unknown = Error::CommitUnknown {
            table: "t".into(),
            commit_id: "c".into(),
            source: Box::new(Error::invalid("what", "where")),
        };
        let text = Failure::Lake(unknown).to_text();
        assert_eq!(text.matches("what").count(), 1, "{text}");
    }

    #[test]
    fn prefixes_of_the_engine_are_left_out() {
        assert_eq!(
            engine_message("Execution error: Arrow error: Divide by zero error"),
            "Divide by zero error"
        );
    }
}
