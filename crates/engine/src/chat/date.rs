//! The date that a chat template may write.

use std::fmt::Write;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A date and a time of day, without a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Days since 1 January 1970.
    days: i64,
    /// Seconds since midnight.
    seconds: i64,
}

const DAY: i64 = 86_400;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// The current date and time in UTC.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let since = i64::try_from(since).unwrap_or(0);
        Self { days: since / DAY, seconds: since % DAY }
    }

    /// Year, month and day.
    fn civil(self) -> (i64, i64, i64) {
        // Eras of 400 years, and years that begin in March, so that the leap day is the last one.
        let days = self.days + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (year + 400 * era + i64::from(month <= 2), month, day)
    }

    fn of(year: i64, month: i64, day: i64) -> i64 {
        let year = if month <= 2 { year - 1 } else { year };
        let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
        let month = (month + 9) % 12;
        era * 146_097 + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1 - 719_468
    }

    /// The date in a format of C's `strftime`, with English names.
    ///
    /// # Errors
    /// The format has a directive that is not known.
    pub fn strftime(self, format: &str) -> Result<String, String> {
        let (year, month, day) = self.civil();
        let (hour, minute, second) = (self.seconds / 3_600, self.seconds / 60 % 60, self.seconds % 60);
        let month_name = MONTHS[(month - 1) as usize];
        let weekday = (self.days + 4).rem_euclid(7);
        let weekday_name = WEEKDAYS[weekday as usize];
        let mut text = String::new();
        let mut left = format.chars();
        while let Some(next) = left.next() {
            if next != '%' {
                text.push(next);
                continue;
            }
            let mut directive = left.next();
            // Without leading zeros.
            let bare = directive == Some('-');
            if bare {
                directive = left.next();
            }
            let mut number = |number: i64, width: usize| {
                let width = if bare { 0 } else { width };
                let _ = write!(text, "{number:0width$}");
            };
            match directive {
                Some('Y') => number(year, 4),
                Some('y') => number(year.rem_euclid(100), 2),
                Some('m') => number(month, 2),
                Some('d') => number(day, 2),
                Some('H') => number(hour, 2),
                Some('I') => number((hour + 11) % 12 + 1, 2),
                Some('M') => number(minute, 2),
                Some('S') => number(second, 2),
                Some('j') => number(self.days - Self::of(year, 1, 1) + 1, 3),
                Some('w') => number(weekday, 1),
                Some('u') => number((weekday + 6) % 7 + 1, 1),
                Some('e') => text.push_str(&format!("{day:2}")),
                Some('B') => text.push_str(month_name),
                Some('b' | 'h') => text.push_str(&month_name[..3]),
                Some('A') => text.push_str(weekday_name),
                Some('a') => text.push_str(&weekday_name[..3]),
                Some('p') => text.push_str(if hour < 12 { "AM" } else { "PM" }),
                Some('F') => text.push_str(&self.strftime("%Y-%m-%d")?),
                Some('T' | 'X') => text.push_str(&self.strftime("%H:%M:%S")?),
                Some('R') => text.push_str(&self.strftime("%H:%M")?),
                Some('D' | 'x') => text.push_str(&self.strftime("%m/%d/%y")?),
                Some('c') => text.push_str(&self.strftime("%a %b %e %H:%M:%S %Y")?),
                // Without a time zone, Python writes nothing.
                Some('z' | 'Z') => {}
                Some('%') => text.push('%'),
                other => {
                    let other = other.map_or_else(String::new, String::from);
                    return Err(format!("strftime_now does not know %{other} in '{format}'"));
                }
            }
        }
        Ok(text)
    }
}

/// Reads `2025-06-30` or `2025-06-30T13:05:00`.
impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a date such as 2025-06-30 or 2025-06-30T13:05:00");
        let numbers = |text: &str, by: char| -> Option<[i64; 3]> {
            let parts: Option<Vec<i64>> =
                text.split(by).map(|part| part.parse::<u16>().ok().map(i64::from)).collect();
            parts?.try_into().ok()
        };
        let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "0:0:0"));
        let [year, month, day] = numbers(date, '-').ok_or_else(wrong)?;
        let [hour, minute, second] = numbers(time, ':').ok_or_else(wrong)?;
        let date =
            Self { days: Self::of(year, month, day), seconds: hour * 3_600 + minute * 60 + second };
        let is_one = (1..=12).contains(&month) && date.civil() == (year, month, day);
        if is_one && hour < 24 && minute < 60 && second < 60 { Ok(date) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_python_does() {
        let date: Date = "2024-02-29T13:05:09".parse().unwrap();
        for (format, text) in [
            ("%d %B %Y", "29 February 2024"),
            ("%Y-%m-%d", "2024-02-29"),
            ("%A, %a, %b %-d; 100%%", "Thursday, Thu, Feb 29; 100%"),
            ("%H:%M:%S %I %p %j %y %-m", "13:05:09 01 PM 060 24 2"),
            ("%F %T %D %c", "2024-02-29 13:05:09 02/29/24 Thu Feb 29 13:05:09 2024"),
        ] {
            assert_eq!(date.strftime(format).unwrap(), text);
        }
        assert_eq!(date.strftime("%Q").unwrap_err(), "strftime_now does not know %Q in '%Q'");
        assert!(date.strftime("%").is_err());
        // Every day of 400 years is read as it is written, and follows the one before it.
        let first: Date = "1900-01-01".parse().unwrap();
        for days in 0..146_097 {
            let date = Date { days: first.days + days, seconds: 0 };
            assert_eq!(date.strftime("%Y-%m-%d").unwrap().parse(), Ok(date));
        }
        assert_eq!(Date { days: 0, seconds: 0 }.strftime("%F %a").unwrap(), "1970-01-01 Thu");
        for text in
            ["", "2023-02-29", "2024-13-01", "2024-00-10", "2024-1", "today", "2024-01-01T24:00:00"]
        {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }
}
