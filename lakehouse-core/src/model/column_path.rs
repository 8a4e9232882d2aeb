//! Where a column is: its name, after those of the structs around it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The path to a column: `tip`, `address.zip`, `stops.element.delay` (elements of lists), `tags.value` (values of
/// maps). A part in double quotes may have dots; `""` in it is one quote.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnPath(Vec<String>);

impl ColumnPath {
    /// The path of these names, from the outermost on.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none, or one is empty.
    pub fn new(parts: Vec<String>) -> Result<Self> {
        if parts.is_empty() || parts.iter().any(String::is_empty) {
            return Err(Error::invalid("the name of a column is empty", "a column's path"));
        }
        Ok(Self(parts))
    }

    /// Its names, from the outermost on; never empty.
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// The struct around it, if there is one, and its own name.
    pub fn split(&self) -> (Option<Self>, &str) {
        match self.0.as_slice() {
            [] => (None, ""),
            [name] => (None, name),
            [parents @ .., name] => (Some(Self(parents.to_vec())), name),
        }
    }

    /// The names joined by dots, as statistics and partition fields name columns.
    pub fn dotted(&self) -> String {
        self.0.join(".")
    }
}

impl fmt::Display for ColumnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            match part.contains(['.', '"']) {
                true => write!(f, "\"{}\"", part.replace('"', "\"\""))?,
                false => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl FromStr for ColumnPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let broken = |why: &str| Error::invalid(format!("the column {text:?} cannot be read: {why}"), "");
        let mut parts = Vec::new();
        let mut rest = text.trim();
        loop {
            let part = match rest.strip_prefix('"') {
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    let part = rest[..end].trim().to_owned();
                    rest = &rest[end..];
                    part
                }
                Some(quoted) => {
                    let mut part = String::new();
                    let mut from = quoted;
                    loop {
                        let end = from.find('"').ok_or_else(|| broken("a quote is not closed"))?;
                        part.push_str(&from[..end]);
                        from = &from[end + 1..];
                        match from.strip_prefix('"') {
                            Some(more) => {
                                part.push('"');
                                from = more;
                            }
                            None => break,
                        }
                    }
                    rest = from;
                    part
                }
            };
            parts.push(part);
            match rest.strip_prefix('.') {
                Some(more) => rest = more,
                None if rest.is_empty() => break,
                None => return Err(broken("after a quoted name a dot may follow")),
            }
        }
        Self::new(parts).map_err(|_| broken("a name is empty"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_shown() {
        for (text, parts) in [
            ("tip", vec!["tip"]),
            ("stops.element.delay", vec!["stops", "element", "delay"]),
            ("\"a.b\".c", vec!["a.b", "c"]),
            ("\"say \"\"x\"\"\"", vec!["say \"x\""]),
            ("two words", vec!["two words"]),
        ] {
            let path: ColumnPath = text.parse().unwrap();
            assert_eq!(path.parts(), parts, "{text}");
            assert_eq!(path.to_string().parse::<ColumnPath>().unwrap(), path, "{text}");
        }
        for text in ["", "a.", ".a", "a..b", "\"a", "\"a\"b", "\"\""] {
            assert!(text.parse::<ColumnPath>().is_err(), "{text}");
        }
    }
}
