//! Sizes and lengths of time as a policy writes them: `"128MB"`, `"7d"`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{parse_duration, parse_size, show_duration, show_size};

/// A size in bytes, written `"128MB"` or as a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A length of time, written `"7d"`, `"90m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Time {
    /// In milliseconds.
    pub fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&show_size(self.0))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&show_duration(self.millis()))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;

        impl Visitor<'_> for Sizes {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"128MB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                let wrong = || E::custom(format!("\"{text}\" is not a size; write it like \"128MB\""));
                parse_size(text).map(Bytes).ok_or_else(wrong)
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Bytes, E> {
                let wrong = || E::custom(format!("{bytes} bytes are not a size; write it like \"128MB\""));
                u64::try_from(bytes)
                    .ok()
                    .filter(|bytes| *bytes > 0)
                    .map(Bytes)
                    .ok_or_else(wrong)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Bytes, E> {
                self.visit_i64(i64::try_from(bytes).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(Sizes)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Times;

        impl Visitor<'_> for Times {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as \"7d\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                let wrong = || {
                    E::custom(format!(
                        "\"{text}\" is not a length of time; write it like \"7d\" or \"90m\""
                    ))
                };
                let milliseconds = parse_duration(text).ok_or_else(wrong)?;
                Ok(Time(Duration::from_millis(milliseconds.unsigned_abs())))
            }
        }

        deserializer.deserialize_any(Times)
    }
}
