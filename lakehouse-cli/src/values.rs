//! How values on the command line are written: sizes, times, `k=v`, versions.

use std::collections::BTreeMap;

use chrono::{NaiveDate, NaiveDateTime};
pub(crate) use lakehouse_core::model::show_duration;
use lakehouse_core::model::{self, At};

use crate::exit::Failure;

/// Reads `512MB`, `1.5 GiB`, `1000`: decimal and binary units, both as powers of 1024, as storage
/// settings of table formats have it.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size; write it like 512MB"))?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1_u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        other => return Err(format!("`{other}` is not a unit of size; use KB, MB, GB or TB")),
    };
    let bytes = number * factor as f64;
    if bytes < 1.0 || bytes > (1_u64 << 60) as f64 {
        return Err(format!("`{text}` is not a size between 1 byte and 1 exabyte"));
    }
    Ok(bytes as u64)
}

/// Reads `30d`, `12h`, `90m`, `45s`, `2w`; in milliseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    model::parse_duration(text)
        .ok_or_else(|| format!("`{text}` is not a length of time; write it like 30d, 12h or 90m"))
}

/// The same, and no time at all: `0d`. How old something has to be to go.
pub(crate) fn parse_age(text: &str) -> Result<i64, String> {
    let is_none = text
        .trim()
        .strip_prefix('0')
        .is_some_and(|unit| parse_duration(&format!("1{unit}")).is_ok());
    if is_none { Ok(0) } else { parse_duration(text) }
}

/// Reads `k=v`.
pub(crate) fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("`{text}` is not of the form key=value")),
    }
}

/// Properties by key; the last one wins.
pub(crate) fn properties(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

/// Reads an instant, in milliseconds since 1970 UTC: RFC 3339, `YYYY-MM-DD[ HH:MM[:SS[.fff]]]` in UTC,
/// or milliseconds.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let trimmed = text.trim();
    if let Ok(milliseconds) = trimmed.parse::<i64>() {
        return Ok(milliseconds);
    }
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(trimmed) {
        return Ok(time.timestamp_millis());
    }
    let spaced = trimmed.replacen('T', " ", 1);
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(&spaced, format) {
            return Ok(time.and_utc().timestamp_millis());
        }
    }
    if let Ok(day) = NaiveDate::parse_from_str(trimmed, "%Y-%m-%d") {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis());
    }
    Err(format!(
        "`{text}` is not a time; write 2013-07-01, 2013-07-01 12:00, 2013-07-01T12:00:00Z or milliseconds since 1970"
    ))
}

/// Reads a version: a number (negative counts back from the newest), a tag or a branch.
pub(crate) fn parse_version(text: &str) -> Result<At, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("a version is a number, a tag or a branch".into());
    }
    Ok(trimmed
        .parse()
        .map_or_else(|_| At::Ref(trimmed.to_owned()), At::Version))
}

/// Milliseconds since 1970 as people read them, in UTC.
pub(crate) fn show_time(milliseconds: i64) -> String {
    chrono::DateTime::from_timestamp_millis(milliseconds).map_or_else(
        || milliseconds.to_string(),
        |time| time.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    )
}

/// Bytes as people read them.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `336776` as `336,776`.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A name with an optional version behind it: `flights@-1`. A table whose whole text exists as a path
/// wins over the reading as a version.
pub(crate) fn split_version(text: &str) -> Result<(String, Option<At>), Failure> {
    if std::path::Path::new(text).exists() {
        return Ok((text.to_owned(), None));
    }
    match text.rsplit_once('@') {
        Some((table, version)) if !table.is_empty() && !version.contains('/') => {
            let at = parse_version(version).map_err(|what| {
                Failure::usage(
                    format!("`{text}`: {what}"),
                    "write name=TABLE@VERSION, for example f=flights@-1",
                )
            })?;
            Ok((table.to_owned(), Some(at)))
        }
        _ => Ok((text.to_owned(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse_size("1000"), Ok(1000));
        assert_eq!(parse_size("512MB"), Ok(512 << 20));
        assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
        assert!(parse_size("0").is_err());
        assert!(parse_size("MB").is_err());
        assert!(parse_size("5 parsec").is_err());
        assert!(parse_size("99999999TB").is_err());
    }

    #[test]
    fn lengths_of_time_are_read_and_shown() {
        for (text, milliseconds, shown) in [
            ("30d", 2_592_000_000, "30d"),
            ("2w", 1_209_600_000, "14d"),
            ("36 h", 129_600_000, "36h"),
            ("90m", 5_400_000, "90m"),
            ("1500ms", 1500, "1500ms"),
        ] {
            assert_eq!(parse_duration(text), Ok(milliseconds));
            assert_eq!(show_duration(milliseconds), shown);
        }
        for wrong in ["0d", "-1d", "7", "d", "1.5d", "9999999999999999d", "3 moons"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_in_every_documented_form() {
        let noon = Ok(1_372_680_000_000);
        assert_eq!(parse_time("2013-07-01T12:00:00Z"), noon);
        assert_eq!(parse_time("2013-07-01T14:00:00+02:00"), noon);
        assert_eq!(parse_time("2013-07-01 12:00"), noon);
        assert_eq!(parse_time("2013-07-01 12:00:00"), noon);
        assert_eq!(parse_time("1372680000000"), noon);
        assert_eq!(parse_time("2013-07-01"), Ok(1_372_636_800_000));
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn versions_are_numbers_or_names() {
        assert_eq!(parse_version("-1"), Ok(At::Version(-1)));
        assert_eq!(parse_version("audit"), Ok(At::Ref("audit".into())));
        assert!(parse_version(" ").is_err());
    }

    #[test]
    fn a_version_follows_the_last_at_sign_of_a_name() {
        let (table, at) = split_version("some/flights@12").unwrap();
        assert_eq!((table.as_str(), at), ("some/flights", Some(At::Version(12))));
        let (table, at) = split_version("s3://user@host/flights").unwrap();
        assert_eq!((table.as_str(), at), ("s3://user@host/flights", None));
    }

    #[test]
    fn counts_and_bytes_are_shown_for_people() {
        assert_eq!(show_count(336_776), "336,776");
        assert_eq!(show_count(12), "12");
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(1536), "1.5 KB");
        assert_eq!(show_time(1_372_680_000_000), "2013-07-01 12:00:00.000");
    }
}
