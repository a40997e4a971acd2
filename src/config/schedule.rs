//! A cron expression of five fields in UTC, and its next time.

use std::fmt;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// The longest expression. A longer one is a mistake.
const TEXT_BYTES_MAX: usize = 200;
const FIELDS: usize = 5;
/// The time from which [`Schedule::parse`] searches for an occurrence. Any time is suitable.
const SOME_TIME: Duration = Duration::from_secs(1_700_000_000);

/// A schedule: minute, hour, day of the month, month, day of the week, in UTC. If both days are given, one match is
/// enough.
#[derive(Clone)]
pub struct Schedule(Box<Cron>);

impl Schedule {
    /// Parses an expression.
    ///
    /// # Errors
    /// Fails if it has more than 200 bytes or not five fields, is not a cron expression, or never occurs (30 February).
    pub fn parse(text: &str) -> Result<Self, String> {
        let quoted = || crate::model::names::quoted(text);
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let fields = text.split_whitespace().count();
        if fields != FIELDS {
            let wanted = "minute, hour, day of the month, month, day of the week";
            return Err(format!("{} has {fields} fields instead of {FIELDS}: {wanted}, in UTC", quoted()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| format!("{} is not a cron expression: {error}", quoted()))?;
        let schedule = Self(Box::new(cron));
        match schedule.next_after(SystemTime::UNIX_EPOCH + SOME_TIME) {
            Some(_) => Ok(schedule),
            None => Err(format!("{} never occurs", quoted())),
        }
    }

    /// Returns the first time after `time`.
    pub fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        self.0.find_next_occurrence(&DateTime::<Utc>::from(time), false).ok().map(SystemTime::from)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::time;

    fn at(text: &str) -> SystemTime {
        time::from_text(text).unwrap()
    }

    #[track_caller]
    fn check(expression: &str, after: &str, expected: &str) {
        let next = Schedule::parse(expression).unwrap().next_after(at(after)).unwrap();
        assert_eq!(time::to_text(next), expected, "{expression}");
    }

    #[track_caller]
    fn refused(expression: &str, why: &str) {
        let error = Schedule::parse(expression).err().unwrap_or_else(|| panic!("{expression} was taken"));
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn an_expression_has_these_next_times() {
        check("* * * * *", "2026-11-22T18:00:00Z", "2026-11-22T18:01:00Z");
        check("*/15 * * * *", "2026-11-22T18:50:01Z", "2026-11-22T19:00:00Z");
        check("0 3 * * *", "2026-11-22T03:00:00Z", "2026-11-23T03:00:00Z");
        check("0 3 * * *", "2026-11-22T02:59:59.999Z", "2026-11-22T03:00:00Z");
        check("0 3 * * 1-5", "2026-11-20T04:00:00Z", "2026-11-23T03:00:00Z");
        check("30 2 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T02:30:00Z");
        check("0 0 1 * MON", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z");
        check(" 0  0 31 12 * ", "2026-11-22T00:00:00Z", "2026-12-31T00:00:00Z");
    }

    #[test]
    fn a_malformed_expression_is_refused() {
        refused("", "has 0 fields");
        refused("* * * *", "has 4 fields");
        refused("0 * * * * *", "has 6 fields");
        refused("@daily", "has 1 fields");
        refused("60 * * * *", "is not a cron expression");
        refused("* 24 * * *", "is not a cron expression");
        refused("*/0 * * * *", "is not a cron expression");
        refused("a b c d e", "is not a cron expression");
        refused("0 0 30 2 *", "never occurs");
        refused(&"1,".repeat(200), "is longer");
    }
}
