//! How much a JSON document holds, counted before any of it is kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::limits::{Limit, over};
use crate::error::Result;

/// Refuses a document of more values than the limit. What is no JSON passes: whoever reads it says so better.
///
/// # Errors
/// [`Error::Limit`](crate::Error::Limit) naming `place`.
pub fn check(json: &[u8], limit: Limit, place: &str) -> Result<()> {
    // Every value but the last takes two bytes: itself and a comma.
    if json.len() as u64 / 2 <= limit.most() {
        return Ok(());
    }
    let mut left = limit.most();
    let counted = Count(&mut left).deserialize(&mut serde_json::Deserializer::from_slice(json));
    match (counted, left) {
        (Err(_), 0) => Err(over("a JSON document of more values", limit, place)),
        _ => Ok(()),
    }
}

/// Counts down, a value at a time; fails at zero.
struct Count<'a>(&'a mut u64);

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.0.checked_sub(1) {
            Some(left) => *self.0 = left,
            None => return Err(serde::de::Error::custom("too many values")),
        }
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Count(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_key_seed(Count(self.0))?.is_some() {
            entries.next_value_seed(Count(self.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::Limits;

    #[test]
    fn a_document_of_too_many_values_is_refused_and_one_less_is_not() {
        // The list itself is a value.
        let list = |values: u64| {
            let mut text = vec![b'['];
            text.extend(b"0,".repeat(values as usize - 2));
            text.extend(b"0     ]");
            text
        };
        let limit = Limits::default().metadata_values;
        check(&list(limit.most()), limit, "m").unwrap();
        let error = check(&list(limit.most() + 1), limit, "metadata/v1.metadata.json")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("4000000") && error.contains("v1.metadata.json"),
            "{error}"
        );
        // What is no JSON is for the reader to refuse.
        check(&b"[".repeat(10_000_000), limit, "m").unwrap();
    }
}
