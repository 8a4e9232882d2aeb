//! Lengths of time as people write them.

/// Units of time and their milliseconds, the largest first.
const UNITS: [(&str, i64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// `30d`, `12h`, `90m`, `45s`, `2w`, in milliseconds. `None` for what is no length of time, and for zero.
pub fn parse_duration(text: &str) -> Option<i64> {
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    let milliseconds = number.parse::<i64>().ok()?.checked_mul(*unit);
    milliseconds.filter(|milliseconds| *milliseconds > 0)
}

/// Milliseconds as people write them: in the largest unit that fits, but for weeks.
pub fn show_duration(milliseconds: i64) -> String {
    let units = UNITS.iter().skip(1);
    let fits = units.into_iter().find(|(_, unit)| milliseconds % unit == 0);
    fits.map_or_else(
        || milliseconds.to_string(),
        |(name, unit)| format!("{}{name}", milliseconds / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_as_the_same_length_of_time() {
        for milliseconds in [1, 1500, 60_000, 5_400_000, 86_400_000, 30 * 86_400_000] {
            let shown = show_duration(milliseconds);
            assert_eq!(parse_duration(&shown), Some(milliseconds), "{shown}");
        }
        for wrong in ["", "d", "0d", "-1d", "7", "1.5d", "3 moons", "9999999999999999d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
