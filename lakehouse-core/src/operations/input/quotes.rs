//! A CSV file whose quotes close.

use std::io::{self, Read};

/// Where a byte stands.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// A field begins here.
    Start,
    /// In a field without quotes, where a quote is a character like others.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote that closes, or is the first of two that stand for one.
    Closing,
}

/// Reads on, and fails at the end if a quote is open: the parser would take all that follows it for one
/// field (RFC 4180, section 2).
pub(super) struct Quotes<R> {
    inner: R,
    state: State,
    line: u64,
    /// Line of the last quote that opened a field.
    opened: u64,
}

impl<R> Quotes<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            state: State::Start,
            line: 1,
            opened: 0,
        }
    }

    fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let quoted = self.state == State::Quoted;
            self.state = match byte {
                b'"' if quoted => State::Closing,
                b'"' if self.state == State::Closing => State::Quoted,
                b'"' if self.state == State::Start => {
                    self.opened = self.line;
                    State::Quoted
                }
                _ if quoted => State::Quoted,
                b',' | b'\n' | b'\r' => State::Start,
                _ => State::Plain,
            };
            self.line += u64::from(*byte == b'\n');
        }
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.follow(&buffer[..read]);
        if read == 0 && !buffer.is_empty() && self.state == State::Quoted {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the quote that opens in line {} is never closed", self.opened),
            ));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<String> {
        let mut all = String::new();
        Quotes::new(text.as_bytes()).read_to_string(&mut all)?;
        Ok(all)
    }

    #[test]
    fn quotes_that_close_pass_unchanged() {
        for text in [
            "a,b\n\"x\",\"y\"\"z\"\n",
            "size\n5\" pipe\n",
            "a\n\"two\nlines\"\n",
            "a\n\"\"",
            "",
        ] {
            assert_eq!(read(text).unwrap(), text);
        }
    }

    #[test]
    fn a_quote_that_stays_open_is_named_by_its_line() {
        for (text, line) in [
            ("a,b\n1,\"x\n2,y\n", "line 2"),
            ("a\n\"x\"\n\"\"\"\n", "line 3"),
            ("\"", "line 1"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(line), "{text:?}: {error}");
        }
    }
}
