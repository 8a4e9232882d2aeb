//! From what a user or the metadata writes to a key below the table root.

use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::cloud::Cloud;
use super::options::ALLOW_LOCATIONS;
use crate::error::{Error, Result};
use crate::planted::{self, Bug};

/// Where a table is: parsed from a path or URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(pub Url);

impl Location {
    /// Parses a path (relative ones start at the current folder) or a URL.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another scheme, [`Error::Invalid`] for text that is no location.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| {
            Error::invalid(why, format!("location \"{text}\""))
                .with_hint("write a path such as data/flights, or a URL such as file:///data/flights")
        };
        if text.trim().is_empty() {
            return Err(invalid("the table's location is empty".into()));
        }
        if text.contains('\0') {
            return Err(invalid("a location cannot contain NUL".into()));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Self::from_path(Path::new(text));
        };
        let mut url = Url::parse(text).map_err(|error| match text.contains(['@', '?']) {
            true => Error::invalid(error.to_string(), "location"),
            false => invalid(error.to_string()),
        })?;
        // abfss://container@account..: what looks like a user is none.
        let container = matches!(scheme.as_str(), "abfs" | "abfss");
        if (!url.username().is_empty() && !container) || url.password().is_some() {
            if planted::is(Bug::PasswordRepeated) {
                return Err(invalid("a location cannot carry a user name or password".into()));
            }
            // Not `invalid`: it would print the password.
            return Err(
                Error::invalid("a location cannot carry a user name or password", "location")
                    .with_hint("credentials come from the environment or the cloud's own profile files"),
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            // Not `invalid`: it would print the query, which may be a signature.
            return Err(
                Error::invalid("a location has no query (?) or fragment (#)", "location")
                    .with_hint("write %3F for ? and %23 for # in a URL, or use a path"),
            );
        }
        match scheme.as_str() {
            "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| invalid("a file URL must name a path on this machine".into()))?;
                Self::from_path(&path)
            }
            "memory" => {
                if url.host_str().unwrap_or_default().is_empty() {
                    let why = format!("\"{rest}\" does not name a table in memory");
                    return Err(invalid(why).with_hint("write memory://NAME"));
                }
                let path = url.path().trim_end_matches('/').to_owned();
                url.set_path(&path);
                Ok(Self(url))
            }
            _ if Cloud::of(&scheme).is_some() => {
                if url.host_str().unwrap_or_default().is_empty() {
                    let why = format!("\"{rest}\" names no bucket");
                    return Err(invalid(why).with_hint(format!("write {scheme}://BUCKET/PATH")));
                }
                let path = url.path().trim_end_matches('/').to_owned();
                url.set_path(&path);
                Ok(Self(url))
            }
            _ => Err(Error::unsupported(
                format!("\"{scheme}://\" is not a kind of storage that is known here"),
                "known are paths, s3://, gs://, az://, abfss://, file:// and memory://",
            )),
        }
    }

    /// A folder on local disk; it need not exist.
    fn from_path(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mut path = std::path::absolute(path)
            .map_err(|error| Error::invalid(error.to_string(), format!("location \"{shown}\"")))?;
        if path.components().any(|part| part == Component::ParentDir) {
            path = without_parents(&path);
        }
        // A trailing slash goes, `/` itself stays.
        let path: PathBuf = path.components().collect();
        if path.to_str().is_none() {
            return Err(Error::invalid(
                "the path is not valid UTF-8",
                format!("location \"{shown}\""),
            ));
        }
        Url::from_file_path(&path)
            .map(Self)
            .map_err(|()| Error::invalid("the path is not absolute", format!("location \"{shown}\"")))
    }

    /// The folder, for a location on local disk.
    pub(super) fn local_path(&self) -> Result<PathBuf> {
        self.0
            .to_file_path()
            .map_err(|()| Error::invalid("this is not a path on local disk", self.0.to_string()))
    }
}

/// Resolves `..`: through links as far as the path exists, by its text beyond.
fn without_parents(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                resolved = std::fs::canonicalize(&resolved).unwrap_or(resolved);
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}

/// Splits `scheme:rest` where the rest starts with `/`; a colon elsewhere belongs to a path.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let is_scheme = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    (is_scheme && rest.starts_with('/')).then(|| (scheme.to_ascii_lowercase(), rest))
}

/// A path as metadata spells it, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spelled {
    /// Scheme and authority; `None` for a relative path. An absolute path is `file` without authority.
    place: Option<(String, String)>,
    /// The rest, as it is written; starts with `/` unless it is relative.
    path: String,
}

/// Whether a path found in metadata is one wherever the table is.
pub(super) fn is_absolute(recorded: &str) -> bool {
    Spelled::parse(recorded).place.is_some()
}

impl Spelled {
    fn parse(text: &str) -> Self {
        let Some((scheme, rest)) = split_scheme(text) else {
            let place = text.starts_with('/').then(|| ("file".to_owned(), String::new()));
            return Self {
                place,
                path: text.to_owned(),
            };
        };
        // `file:/tmp/t` has no authority, `file:///tmp/t` an empty one.
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let authority = match (scheme.as_str(), authority) {
            ("file", "localhost") => "",
            (_, authority) => authority,
        };
        // Hadoop's names for one store.
        let scheme = match scheme.as_str() {
            "s3a" | "s3n" => "s3".to_owned(),
            "gcs" => "gs".to_owned(),
            "abfs" => "abfss".to_owned(),
            _ => scheme,
        };
        Self {
            place: Some((scheme, authority.to_owned())),
            path: path.to_owned(),
        }
    }

    /// What follows `self`, a folder, in `other`: no part of a name, nothing elsewhere.
    fn rest_of<'a>(&self, other: &'a Self) -> Option<&'a str> {
        if self.place != other.place {
            return None;
        }
        let folder = self.path.trim_end_matches('/');
        let rest = other.path.strip_prefix(folder)?;
        let inside = rest.strip_prefix('/');
        inside.or_else(|| planted::is(Bug::PrefixWithoutSlash).then_some(rest))
    }
}

/// The root of a table in the spellings that metadata may use for it.
#[derive(Debug)]
pub(super) struct Root {
    url: Url,
    verbatim: String,
    spellings: Vec<Spelled>,
}

impl Root {
    pub(super) fn new(url: &Url) -> Self {
        let mut url = url.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        let decoded = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        let authority = url.authority().to_owned();
        let verbatim = format!("{}://{authority}{decoded}", url.scheme());
        Self {
            spellings: vec![Spelled::parse(&verbatim)],
            verbatim,
            url,
        }
    }

    /// Accepts another path of the same folder.
    pub(super) fn also_known_as(&mut self, path: &Path) {
        if let Some(path) = path.to_str() {
            let spelled = Spelled::parse(path);
            if !self.spellings.contains(&spelled) {
                self.spellings.push(spelled);
            }
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn verbatim(&self) -> &str {
        &self.verbatim
    }

    pub(super) fn is_root(&self, recorded: &str) -> bool {
        let recorded = Spelled::parse(recorded.trim_end_matches('/'));
        let encoded = Spelled::parse(self.url.as_str());
        self.spellings.contains(&recorded) || recorded == encoded
    }

    pub(super) fn relative(&self, recorded: &str) -> Result<String> {
        self.key_of(&Spelled::parse(recorded), recorded)
    }

    pub(super) fn relative_encoded(&self, recorded: &str) -> Result<String> {
        let mut spelled = Spelled::parse(recorded);
        if spelled.place.is_some() && spelled.path.contains(['?', '#']) {
            return Err(bad(recorded, "a URL of a file has no query (?) or fragment (#)"));
        }
        spelled.path = percent_decode_str(&spelled.path)
            .decode_utf8()
            .map_err(|_| bad(recorded, "it is not UTF-8 once decoded"))?
            .into_owned();
        if planted::is(Bug::DecodedTwice) {
            spelled.path = percent_decode_str(&spelled.path).decode_utf8_lossy().into_owned();
        }
        self.key_of(&spelled, recorded)
    }

    pub(super) fn relative_to(&self, recorded_root: &str, recorded: &str) -> Result<String> {
        let spelled = Spelled::parse(recorded);
        let root = Spelled::parse(recorded_root);
        if let Some(rest) = root.rest_of(&spelled) {
            return key(rest, recorded);
        }
        if spelled.place.is_none() && root.place.is_none() {
            return Err(Error::Denied {
                what: format!(
                    "the metadata names \"{recorded}\", which is outside of the table it calls \"{recorded_root}\""
                ),
            });
        }
        self.key_of(&spelled, recorded)
    }

    fn key_of(&self, spelled: &Spelled, recorded: &str) -> Result<String> {
        if spelled.place.is_none() {
            return key(&spelled.path, recorded);
        }
        let rest = self.spellings.iter().find_map(|root| root.rest_of(spelled));
        match rest {
            Some(rest) => key(rest, recorded),
            None if planted::is(Bug::OutsideAccepted) => key(spelled.path.trim_start_matches('/'), recorded),
            None => Err(Error::Denied {
                what: format!(
                    "the metadata names \"{recorded}\", which is outside of the table at {} (storage option \
                     {ALLOW_LOCATIONS}=PLACE names places that it may name files in)",
                    self.verbatim
                ),
            }),
        }
    }
}

/// The key, if it can be one.
fn key(path: &str, recorded: &str) -> Result<String> {
    check_key(path).map_err(|why| bad(recorded, why))?;
    Ok(path.to_owned())
}

/// Why a text cannot be a key below the table root.
pub(super) fn check_key(path: &str) -> std::result::Result<(), &'static str> {
    if path.is_empty() {
        return Err("it is empty");
    }
    if path.contains('\\') {
        return Err("it contains a backslash");
    }
    if path.chars().any(|letter| letter.is_ascii_control()) {
        return Err("it contains a control character");
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err("it has an empty segment (// or a slash at an end)"),
            "." | ".." => return Err("it has a segment . or .."),
            _ => {}
        }
    }
    Ok(())
}

fn bad(recorded: &str, why: &str) -> Error {
    Error::invalid(
        format!("the metadata names a file \"{recorded}\" that cannot be read: {why}"),
        "",
    )
    .with_hint("the table's metadata is damaged, or was made to lead out of the table")
}
