//! Table properties that say how long something is kept. There is one rule for all of them: what cannot be read is
//! refused, because a default in its place would remove what somebody wanted kept.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * 3_600_000;

/// A property, and how its value is written.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    name: &'static str,
    form: Form,
}

/// How a value is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// `interval 7 days` (Delta).
    Interval,
    /// A whole number of milliseconds (Iceberg).
    Milliseconds,
    /// How many, at least one.
    Count,
}

impl Setting {
    /// A length of time such as `interval 7 days`.
    pub const fn interval(name: &'static str) -> Self {
        let form = Form::Interval;
        Self { name, form }
    }

    /// A length of time in milliseconds.
    pub const fn milliseconds(name: &'static str) -> Self {
        let form = Form::Milliseconds;
        Self { name, form }
    }

    /// A number of versions, one or more.
    pub const fn count(name: &'static str) -> Self {
        let form = Form::Count;
        Self { name, form }
    }

    /// What a table's properties say; `None` where they do not have this one. Lengths of time are in milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that cannot be read: it names the property, the value, and how to write it.
    pub fn of(&self, properties: &BTreeMap<String, String>) -> Result<Option<i64>> {
        let text = properties.get(self.name);
        text.map(|text| self.form.read(self.name, text)).transpose()
    }

    /// Refuses a value that could not be read, where this is the property that is set.
    ///
    /// # Errors
    /// As [`Setting::of`].
    pub fn check(&self, key: &str, value: &str) -> Result<()> {
        match key == self.name {
            true => self.form.read(key, value).map(|_| ()),
            false => Ok(()),
        }
    }
}

/// Refuses a value of any property that is an interval.
///
/// # Errors
/// As [`Setting::of`].
pub fn check_interval(key: &str, value: &str) -> Result<()> {
    Form::Interval.read(key, value).map(|_| ())
}

impl Form {
    fn read(self, name: &str, text: &str) -> Result<i64> {
        let number = |least: i64| text.trim().parse::<i64>().ok().filter(|number| *number >= least);
        let (read, what, how) = match self {
            Self::Interval => (
                interval_ms(text),
                "length of time",
                "write it in weeks, days, hours, minutes and seconds, like `interval 30 days`; months and years are of no \
                 certain length"
                    .to_owned(),
            ),
            Self::Milliseconds => {
                let meant = interval_ms(text).map_or_else(String::new, |ms| format!(", here {ms}"));
                let how = format!("write a whole number of milliseconds, zero or more{meant}");
                (number(0), "number of milliseconds", how)
            }
            Self::Count => (
                number(1),
                "number of versions",
                "write a whole number, one or more".to_owned(),
            ),
        };
        read.ok_or_else(|| {
            Error::invalid(format!("{text:?} is no {what}"), format!("the property {name}"))
                .with_hint(format!("{how}: lake alter TABLE --set {name}=VALUE"))
        })
    }
}

/// Milliseconds of `interval 7 days` and the like, as Delta's writers read it: the word `interval` may be left out,
/// months and years have no certain length, and less than no time is none.
fn interval_ms(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let mut words = text.split_ascii_whitespace().peekable();
    words.next_if_eq(&"interval");
    words.peek()?;
    let mut total_us = 0i64;
    while let Some(count) = words.next() {
        let unit = words.next()?;
        let unit_us = match unit.strip_suffix('s').unwrap_or(unit) {
            "week" => 7 * DAY_MS * 1000,
            "day" => DAY_MS * 1000,
            "hour" => 3_600_000_000,
            "minute" => 60_000_000,
            "second" => 1_000_000,
            "millisecond" => 1000,
            "microsecond" => 1,
            _ => return None,
        };
        total_us = total_us.checked_add(count.parse::<i64>().ok()?.checked_mul(unit_us)?)?;
    }
    (total_us >= 0).then_some(total_us / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_spark_writes_them() {
        for (text, ms) in [
            ("interval 7 days", Some(7 * DAY_MS)),
            ("INTERVAL 1 week 2 hours", Some(7 * DAY_MS + 7_200_000)),
            (" 2 weeks ", Some(14 * DAY_MS)),
            ("interval 1 day -1 hour", Some(DAY_MS - 3_600_000)),
            ("interval 1500 microseconds", Some(1)),
            ("interval 0 days", Some(0)),
        ] {
            assert_eq!(interval_ms(text), ms, "{text}");
        }
        for text in [
            "",
            "interval",
            "soon",
            "7",
            "interval 7",
            "interval 6 months",
            "interval 1 year",
            "interval -1 days",
            "interval 1.5 days",
            "interval 9999999999999 days",
            "intervals 7 days",
        ] {
            assert_eq!(interval_ms(text), None, "{text:?}");
        }
    }

    #[test]
    fn who_writes_an_interval_for_milliseconds_is_told_the_number() {
        let setting = Setting::milliseconds("kept");
        let error = setting.check("kept", "180 days").unwrap_err();
        assert!(error.hint().unwrap().contains("15552000000"), "{error:?}");
        assert!(setting.check("other", "180 days").is_ok());
        assert_eq!(setting.of(&BTreeMap::new()).unwrap(), None);
    }
}
