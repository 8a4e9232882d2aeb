//! What a store's failure means: whether to ask again, and how to tell the user.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::Duration;

use object_store::Error as StoreError;

use super::{clock, sim};
use crate::error::{Error, io_kind};

/// How often, and after which pauses, a request that failed for a passing reason is sent again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// Requests in all.
    pub(super) attempts: u32,
    /// Longest pause after the first failure; it doubles with every further one.
    first: Duration,
    /// Longest pause of all.
    longest: Duration,
}

impl Retry {
    /// For disks and memory: what fails there either passes at once or stays.
    pub(super) const NEAR: Self = Self {
        attempts: 5,
        first: Duration::from_millis(2),
        longest: Duration::from_millis(100),
    };

    /// For stores behind a network: busy for seconds, or away.
    pub(super) const FAR: Self = Self {
        attempts: 8,
        first: Duration::from_millis(100),
        longest: Duration::from_secs(10),
    };

    /// Where the client sends requests again by itself: what is left are answers that break off.
    pub(super) const CLIENTS: Self = Self {
        attempts: 3,
        first: Duration::from_millis(100),
        longest: Duration::from_secs(10),
    };

    /// Waits after the given number of failures.
    pub(super) async fn pause(self, failures: u32) {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        clock::pause(doubled.min(self.longest)).await;
    }

    /// Sends a request that may be repeated without harm until it succeeds, fails for good, or has
    /// failed too often.
    pub(super) async fn run<T, F>(self, request: impl Fn() -> F) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut failures = 0;
        loop {
            match request().await {
                Err(error) if is_transient(&error) && failures + 1 < self.attempts => {
                    failures += 1;
                    let error = scrubbed(&error.to_string());
                    tracing::debug!(failures, error, "the store failed; asking again");
                    self.pause(failures).await;
                }
                other => return other,
            }
        }
    }
}

/// Whether the same request may succeed when it is sent again.
pub(super) fn is_transient(error: &StoreError) -> bool {
    if let Some(fault) = sim::injected(error) {
        return fault.is_transient();
    }
    if let Some(kind) = io_kind(error) {
        return matches!(
            kind,
            ErrorKind::Interrupted
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::ResourceBusy
                | ErrorKind::StaleNetworkFileHandle
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::NotConnected
                | ErrorKind::UnexpectedEof
        );
    }
    match error {
        // What local disk and memory report without an I/O error is about the request itself.
        StoreError::Generic { store, source } => {
            !matches!(*store, "LocalFileSystem" | "InMemory" | "local disk")
                && !is_rejected(&source.to_string())
        }
        StoreError::JoinError { .. } => true,
        _ => false,
    }
}

/// The HTTP status that a client's error tells of.
pub(super) fn status(text: &str) -> Option<u16> {
    let digits = text.split("status code: ").nth(1)?.get(..3)?;
    digits.parse().ok()
}

/// Whether a server understood a request and will never carry it out. The clients' own errors are private types, so
/// their text has to do.
fn is_rejected(text: &str) -> bool {
    match status(text) {
        Some(408 | 409 | 425 | 429) => false,
        Some(status) => (400..500).contains(&status) || status == 501,
        None => text.contains("Received redirect without LOCATION"),
    }
}

/// Whether nothing can have been written, now or later, by a request that failed like this.
pub(super) fn is_certain(error: &StoreError) -> bool {
    if let Some(fault) = sim::injected(error) {
        return fault.is_certain();
    }
    match error {
        StoreError::PermissionDenied { .. }
        | StoreError::Unauthenticated { .. }
        | StoreError::InvalidPath { .. }
        | StoreError::NotSupported { .. }
        | StoreError::NotImplemented { .. } => true,
        StoreError::Generic { source, .. } if is_rejected(&source.to_string()) => true,
        _ => io_kind(error).is_some_and(|kind| {
            matches!(
                kind,
                ErrorKind::PermissionDenied
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotADirectory
                    | ErrorKind::IsADirectory
                    | ErrorKind::InvalidFilename
                    | ErrorKind::FileTooLarge
            )
        }),
    }
}

/// The error that a user sees: what was being done, where, and why it failed.
pub(super) fn explain(action: &'static str, place: String, error: StoreError) -> Error {
    if let Some(ours) = Error::within(&error) {
        return ours;
    }
    if let Some(missing) = missing_bucket(&error) {
        return Error::not_found(missing, place).with_hint(format!(
            "the server says that the {missing} does not exist: make it first, or check the name"
        ));
    }
    match &error {
        StoreError::NotFound { .. } => Error::not_found(place, ""),
        StoreError::AlreadyExists { .. } => Error::AlreadyExists { what: place },
        StoreError::InvalidPath { .. } => Error::invalid(error.to_string(), place),
        StoreError::PermissionDenied { source, .. } => denied(action, &place, source.as_ref()),
        StoreError::Unauthenticated { source, .. } => denied(action, &place, source.as_ref()),
        _ if io_kind(&error) == Some(ErrorKind::PermissionDenied) => denied(action, &place, &error),
        StoreError::Generic { source, .. } if matches!(status(&source.to_string()), Some(401 | 403)) => {
            denied(action, &place, source.as_ref())
        }
        StoreError::Generic { store, source } if source.to_string().contains("://") => Error::Store {
            action,
            path: place,
            source: StoreError::Generic {
                store,
                source: verdict(&scrubbed(&chain(source.as_ref()))).into(),
            },
        },
        _ => Error::Store {
            action,
            path: place,
            source: error,
        },
    }
}

/// What is missing when not even the place for objects is there.
fn missing_bucket(error: &StoreError) -> Option<&'static str> {
    let (StoreError::Generic { source, .. } | StoreError::NotFound { source, .. }) = error else {
        return None;
    };
    let text = chain(source.as_ref());
    [("NoSuchBucket", "bucket"), ("ContainerNotFound", "container")]
        .into_iter()
        .find_map(|(code, what)| text.contains(code).then_some(what))
}

/// Of a refusal, what the server calls it: the rest of its answer may repeat the signed request.
fn verdict(text: &str) -> String {
    let Some((before, body)) = text.split_once("<?xml").or_else(|| text.split_once("<Error>")) else {
        return text.trim_end().to_owned();
    };
    let tag = |name: &str| {
        let inside = body.split_once(&format!("<{name}>"))?.1;
        Some(inside.split_once("</")?.0.to_owned())
    };
    let said = [tag("Code"), tag("Message")].into_iter().flatten();
    let before = before.trim_end_matches([' ', ':']).to_owned();
    [before].into_iter().chain(said).collect::<Vec<_>>().join(": ")
}

/// An error with its causes, where they say more.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A message without the queries and users of the URLs in it: some carry signatures and passwords.
pub(super) fn scrubbed(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let end = rest[at..]
            .find(|letter: char| letter.is_whitespace() || "\"'<>)".contains(letter))
            .map_or(rest.len(), |length| at + length);
        let url = &rest[at + 3..end];
        let url = url.split('?').next().unwrap_or_default();
        let authority = url.find('/').unwrap_or(url.len());
        let user = url[..authority].rfind('@').map_or(0, |user| user + 1);
        clean.push_str(&rest[..at + 3]);
        clean.push_str(&url[user..]);
        rest = &rest[end..];
    }
    clean.push_str(rest);
    clean
}

fn denied(action: &str, place: &str, error: &(dyn StdError + 'static)) -> Error {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Error::Denied {
        what: format!(
            "cannot {action} {place}: {}; check who may read and write there",
            verdict(&scrubbed(&innermost.to_string()))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_in_urls_are_not_shown() {
        let text = "GET https://a.blob.example/c/k?sv=1&sig=hush in 3s, then (http://b/x?token=hush): no";
        assert_eq!(
            scrubbed(text),
            "GET https://a.blob.example/c/k in 3s, then (http://b/x): no"
        );
        assert_eq!(scrubbed("nothing? here"), "nothing? here");
        assert_eq!(
            scrubbed("at http://u:hush@minio:9000/b?x"),
            "at http://minio:9000/b"
        );
    }

    #[test]
    fn a_refusal_is_told_without_the_request_that_it_repeats() {
        let text = "403 Forbidden: <?xml?><Error><Code>SignatureDoesNotMatch</Code><Message>no</Message>\
                    <CanonicalRequest>x-amz-security-token:hush</CanonicalRequest></Error>";
        assert_eq!(verdict(text), "403 Forbidden: SignatureDoesNotMatch: no");
        assert_eq!(verdict("plain <as> it is\n"), "plain <as> it is");
    }

    #[test]
    fn a_bucket_that_is_not_there_is_called_so() {
        for (code, what) in [("NoSuchBucket", "bucket"), ("ContainerNotFound", "container")] {
            let source = format!("status code: 404: <?xml?><Error><Code>{code}</Code></Error>\n");
            let error = StoreError::Generic {
                store: "S3",
                source: source.into(),
            };
            let error = explain("list", "s3://nowhere/t".to_owned(), error);
            assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
            assert!(error.to_string().starts_with(what), "{error}");
        }
    }

    #[test]
    fn what_a_server_rejects_is_not_asked_again() {
        let error = |text: &str| StoreError::Generic {
            store: "S3",
            source: text.into(),
        };
        let status = |code: &str| error(&format!("Server returned non-2xx status code: {code}: "));
        for passing in ["500 Internal", "503 Slow Down", "429 Too Many", "409 Conflict"] {
            assert!(is_transient(&status(passing)), "{passing}");
            assert!(!is_certain(&status(passing)), "{passing}");
        }
        for lasting in ["400 Bad Request", "405 Not Allowed", "501 Not Implemented"] {
            assert!(!is_transient(&status(lasting)), "{lasting}");
            assert!(is_certain(&status(lasting)), "{lasting}");
        }
        assert!(is_transient(&error("connection closed")));
    }
}
