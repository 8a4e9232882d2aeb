//! A walk over JSON text that passes over what nobody asks for, eight bytes at a time: the statistics of a million files
//! are hundreds of megabytes, of which a filter asks for a few numbers each. What is passed over is looked at as far as it
//! takes to find its end, and no further.

use std::borrow::Cow;

use serde_json::Value;

/// A place in a JSON text. All steps are `None` where the text is not JSON.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    /// At the beginning of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        let byte = rest.iter().find(|byte| !blank(byte));
        self.at += rest.iter().take_while(blank).count();
        byte.copied()
    }

    /// Steps over this byte.
    fn over(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// Whether an object comes next.
    pub(super) fn is_object(&mut self) -> bool {
        self.next() == Some(b'{')
    }

    /// Steps through an object. `visit` is told the name of each member, and must step over its value.
    pub(super) fn members(&mut self, mut visit: impl FnMut(&mut Self, &str) -> Option<()>) -> Option<()> {
        self.over(b'{')?;
        if self.next()? == b'}' {
            return self.over(b'}');
        }
        loop {
            let name = self.name()?;
            self.over(b':')?;
            visit(self, &name)?;
            match self.next()? {
                b',' => self.at += 1,
                b'}' => return self.over(b'}'),
                _ => return None,
            }
        }
    }

    fn name(&mut self) -> Option<Cow<'a, str>> {
        (self.next()? == b'"').then_some(())?;
        let start = self.at;
        self.at = string_end(self.text.as_bytes(), start + 1)?;
        let inside = self.text.get(start + 1..self.at - 1)?;
        match inside.contains('\\') {
            false => Some(Cow::Borrowed(inside)),
            true => serde_json::from_str(self.text.get(start..self.at)?)
                .ok()
                .map(Cow::Owned),
        }
    }

    /// The value that comes next.
    pub(super) fn value(&mut self) -> Option<Value> {
        self.next()?;
        let start = self.at;
        self.skip()?;
        serde_json::from_str(self.text.get(start..self.at)?).ok()
    }

    /// Steps over a value, whatever it is.
    pub(super) fn skip(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        match self.next()? {
            b'"' => self.at = string_end(bytes, self.at + 1)?,
            b'{' | b'[' => self.at = nested_end(bytes, self.at)?,
            _ => {
                let rest = bytes.get(self.at..)?;
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                (length > 0).then(|| self.at += length)?;
            }
        }
        Some(())
    }

    /// Whether nothing comes any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.next().is_none()
    }
}

/// Every byte of a word is this one.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The lowest byte that is zero has its highest bit set, and none below it has.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(all(1)) & !word & all(0x80)
}

/// Where the first byte from `at` on is that `found` marks in the word of it and the seven after it; it may be one that
/// is only like those that are looked for.
fn first(bytes: &[u8], mut at: usize, found: impl Fn(u64) -> u64) -> Option<usize> {
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let marks = found(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let mut word = [0; 8];
    let rest = bytes.get(at..)?;
    word[..rest.len()].copy_from_slice(rest);
    let marks = found(u64::from_le_bytes(word));
    (marks != 0)
        .then(|| at + marks.trailing_zeros() as usize / 8)
        .filter(|at| *at < bytes.len())
}

/// The place behind the string whose first character is at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let ends = |word: u64| zeros(word ^ all(b'"')) | zeros(word ^ all(b'\\'));
    loop {
        at = first(bytes, at, ends)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            // What is escaped cannot end the string.
            _ => at += 2,
        }
    }
}

/// The place behind the object or list that begins at `at`.
fn nested_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    // Braces and brackets differ in three bits.
    let nests = |word: u64| zeros(((word | all(0x20)) & all(!0x06)) ^ all(b'{' & !0x06));
    let mut depth = 0usize;
    loop {
        at = first(bytes, at, |word| zeros(word ^ all(b'"')) | nests(word))?;
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at + 1)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::{Map, json};

    use super::*;

    fn random(rng: &mut StdRng, depth: usize) -> Value {
        const TEXTS: [&str; 7] = [
            "",
            "a",
            "\"",
            "\\",
            "}{][,:",
            "é\u{10ffff}\n",
            "0123456789abcdef\\\"",
        ];
        let text = |rng: &mut StdRng| TEXTS[rng.random_range(0..TEXTS.len())].repeat(rng.random_range(0..4));
        match rng.random_range(0..8) {
            0 if depth > 0 => (0..rng.random_range(0..4))
                .map(|_| random(rng, depth - 1))
                .collect(),
            1 | 2 if depth > 0 => {
                let members = (0..rng.random_range(0..5)).map(|_| (text(rng), random(rng, depth - 1)));
                Value::Object(members.collect())
            }
            3 => json!(text(rng)),
            4 => json!(rng.random_range(-1e300..1e300)),
            5 => json!(rng.random_bool(0.5)),
            6 => Value::Null,
            _ => json!(rng.random_range(i64::MIN..i64::MAX)),
        }
    }

    #[test]
    fn a_walk_finds_the_members_that_a_parser_finds_and_ends_where_the_text_does() {
        let mut rng = StdRng::seed_from_u64(7);
        for number in 0..4000 {
            let object: Map<String, Value> = (0..rng.random_range(0..6))
                .map(|at| (format!("{at}\"\\k"), random(&mut rng, 3)))
                .collect();
            let object = Value::Object(object);
            let text = match number % 2 {
                0 => object.to_string(),
                _ => serde_json::to_string_pretty(&object).unwrap(),
            };
            let mut found = Map::new();
            let mut walk = Walk::new(&text);
            let walked = walk.members(|walk, name| {
                let value = match name.starts_with(['0', '2']) {
                    true => walk.value()?,
                    false => {
                        walk.skip()?;
                        return Some(());
                    }
                };
                found.insert(name.to_owned(), value);
                Some(())
            });
            assert_eq!(walked, Some(()), "{text}");
            assert!(walk.is_over(), "{text}");
            let mut expected = object.as_object().unwrap().clone();
            expected.retain(|name, _| name.starts_with(['0', '2']));
            assert_eq!(found, expected, "{text}");
            // Cut anywhere, it has no end.
            let cut = (0..text.len()).filter(|at| text.is_char_boundary(*at));
            for cut in cut.filter(|_| rng.random_bool(0.2)) {
                assert_eq!(Walk::new(&text[..cut]).skip(), None, "{}", &text[..cut]);
            }
        }
    }

    #[test]
    fn what_is_not_json_ends_a_walk() {
        for text in [
            "",
            " ",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1 2}",
            "{,}",
            "}",
            "{\"a\":}",
        ] {
            let mut walk = Walk::new(text);
            assert_eq!(walk.members(|walk, _| walk.skip()), None, "{text}");
        }
    }
}
