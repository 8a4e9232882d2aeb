//! Idempotency keys.

use std::fmt;

/// The user's name for a change, recorded with it: what bears a recorded name is not done again.
///
/// ```
/// use lakehouse_core::model::Token;
/// assert_eq!(Token::from("night/42").to_string(), "night/42");
/// assert_eq!(Token::step("events", 7).to_string(), "events, step 7");
/// assert_eq!(Token::following("events", 7, 3).after, Some(3));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// The name.
    pub key: String,
    /// Of a stream of changes under one name, which it is: it is done when it, or a later one, is recorded. The table
    /// keeps the last step only, however many there were. Delta calls the two `txnAppId` and `txnVersion` (protocol,
    /// "Transaction Identifiers").
    pub step: Option<u64>,
    /// Of a step, the one that it follows, 0 for none: the change lands only where that is the last one recorded, so that
    /// two who go on from the same step cannot both. `None`: whatever is recorded.
    pub after: Option<u64>,
}

impl Token {
    /// One step of a stream.
    pub fn step(key: impl Into<String>, step: u64) -> Self {
        Self {
            key: key.into(),
            step: Some(step),
            after: None,
        }
    }

    /// One step of a stream that follows another, 0 for none.
    pub fn following(key: impl Into<String>, step: u64, after: u64) -> Self {
        Self {
            after: Some(after),
            ..Self::step(key, step)
        }
    }

    /// Whether a change that carries this does what `other` stands for.
    pub fn covers(&self, other: &Self) -> bool {
        self.key == other.key
            && match (self.step, other.step) {
                (None, None) => true,
                (Some(recorded), Some(asked)) => recorded >= asked,
                _ => false,
            }
    }
}

impl From<&str> for Token {
    fn from(key: &str) -> Self {
        Self::from(key.to_owned())
    }
}

impl From<String> for Token {
    fn from(key: String) -> Self {
        Self {
            key,
            step: None,
            after: None,
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => write!(f, "{}, step {step}", self.key),
            None => f.write_str(&self.key),
        }
    }
}
