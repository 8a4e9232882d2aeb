//! Base 85 in the Z85 alphabet (ZeroMQ RFC 32), as deletion vector descriptors use it.

const ALPHABET: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Five characters for every four bytes; the last group is filled with zeros.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(4) * 5);
    for chunk in bytes.chunks(4) {
        let mut group = [0u8; 4];
        group[..chunk.len()].copy_from_slice(chunk);
        let mut value = u32::from_be_bytes(group);
        let mut digits = [0u8; 5];
        for digit in digits.iter_mut().rev() {
            *digit = ALPHABET[(value % 85) as usize];
            value /= 85;
        }
        text.extend(digits.map(char::from));
    }
    text
}

/// Reads what [`encode`] writes; `None` when the text is no Z85.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(5) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 5 * 4);
    for group in digits.chunks(5) {
        let mut value = 0u64;
        for digit in group {
            value = value * 85 + ALPHABET.iter().position(|c| c == digit)? as u64;
        }
        bytes.extend(u32::try_from(value).ok()?.to_be_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_vector_of_the_rfc_holds() {
        let bytes = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B];
        assert_eq!(encode(&bytes), "HelloWorld");
        assert_eq!(decode("HelloWorld").unwrap(), bytes);
    }

    #[test]
    fn every_length_comes_back_with_its_padding() {
        for length in 0..40usize {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 37 + 250) as u8).collect();
            let back = decode(&encode(&bytes)).unwrap();
            assert_eq!(back[..length], bytes);
            assert!(back[length..].iter().all(|b| *b == 0) && back.len() - length < 4);
        }
    }

    #[test]
    fn text_that_is_no_z85_is_refused() {
        for text in ["Hell", "Hello Worl", "#####", "\u{e9}abc"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
