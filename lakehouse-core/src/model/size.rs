//! Sizes as people write them.

/// `134217728`, `128mb`, `1 GB`: units are powers of 1024, as in Delta's properties. `None` for what is no size, and
/// for zero.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let count: u64 = digits.parse().ok()?;
    count.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

/// Bytes as people write them, exactly: in the largest unit that fits.
pub fn show_size(bytes: u64) -> String {
    let units = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10)];
    let fits = units
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fits.map_or_else(
        || bytes.to_string(),
        |(name, shift)| format!("{}{name}", bytes >> shift),
    )
}

/// Whether a data file is smaller than it should be where files are closed at `target` bytes: below three quarters of it.
pub fn is_small_file(bytes: u64, target: u64) -> bool {
    bytes < target / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse_size("134217728"), Some(128 << 20));
        assert_eq!(parse_size("128mb"), Some(128 << 20));
        assert_eq!(parse_size("2 GB"), Some(2 << 30));
        assert_eq!(parse_size("1TiB"), Some(1 << 40));
        for bytes in [1, 1000, 1024, 512 << 20, 3 << 30, 1 << 40, (1 << 20) + 1] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes), "{}", show_size(bytes));
        }
        for wrong in ["", "mb", "1.5gb", "-1", "0", "99999999999gb"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
