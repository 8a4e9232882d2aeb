//! Days since 1970 to calendar months and back (proleptic Gregorian), for arrays of any size.

/// Year and month (1 to 12) of a day counted from 1970-01-01.
pub(super) fn year_month(days: i64) -> (i64, i64) {
    // Years are counted from March, so that the leap day is the last of its year; 146,097 days are
    // the 400 years after which the calendar repeats.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month)
}

/// The day, counted from 1970-01-01, on which a month begins; months are counted from January 1970.
pub(crate) fn month_start(months: i64) -> i64 {
    let (year, month) = (1970 + months.div_euclid(12), months.rem_euclid(12) + 1);
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Months since January 1970 of a day.
pub(crate) fn months_of_day(days: i64) -> i64 {
    let (year, month) = year_month(days);
    (year - 1970) * 12 + month - 1
}
