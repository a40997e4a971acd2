//! UTC times as text, in the form of RFC 3339.

use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns a time as `2026-11-22T18:00:00Z`.
pub fn to_text(time: SystemTime) -> String {
    in_utc(time).replace_nanosecond(0).ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Returns a time as `2026-11-22T18:00:00.123Z`.
pub fn to_text_with_millis(time: SystemTime) -> String {
    let seconds = to_text(time);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), in_utc(time).millisecond())
}

/// Parses a time of RFC 3339, in any time zone.
pub fn from_text(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

/// Parses a time that a person gives: RFC 3339, or `2026-11-28 14:00` (also with seconds) in UTC.
///
/// # Errors
/// Fails if it is neither; the message quotes the text.
pub fn parse_moment(text: &str) -> Result<SystemTime, String> {
    let text = text.trim();
    let in_utc = match text.len() {
        16 => format!("{}:00Z", text.replacen(' ', "T", 1)),
        19 => format!("{}Z", text.replacen(' ', "T", 1)),
        _ => String::new(),
    };
    let is_plain = text.as_bytes().get(10) == Some(&b' ');
    let moment = from_text(text).or_else(|| from_text(&in_utc).filter(|_| is_plain));
    moment
        .ok_or_else(|| format!("{text:?} is not a time such as `2026-11-28 14:00` (UTC) or 2026-11-28T14:00:00+01:00"))
}

/// Returns the time in UTC, or 1970 for a time that is not in the years 1970 to 9999: `From` panics for some of these,
/// and a file's time can be any.
fn in_utc(time: SystemTime) -> OffsetDateTime {
    const YEAR_10000: u64 = 253_402_300_800;
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since.as_secs() < YEAR_10000 => time.into(),
        _ => OffsetDateTime::UNIX_EPOCH,
    }
}

/// Returns a time span in whole milliseconds.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a moment of this process by the clock that shows `now`, which may have been set since.
pub fn of(moment: Instant, now: SystemTime) -> SystemTime {
    now.checked_sub(moment.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_clock_does_not_make_a_moment_older() {
        let (moment, now) = (Instant::now(), from_text("2026-11-28T14:00:00Z").unwrap());
        let since = now.duration_since(of(moment, now)).unwrap();
        assert!(since <= moment.elapsed(), "{since:?}");
    }

    #[test]
    fn a_moment_is_in_utc_or_names_its_zone() {
        let time = from_text("2026-11-28T14:00:00Z");
        for text in ["2026-11-28 14:00", "2026-11-28 14:00:00", " 2026-11-28T14:00:00Z ", "2026-11-28T15:00:00+01:00"] {
            assert_eq!(parse_moment(text).ok(), time, "{text}");
        }
        for refused in [
            "",
            "2026-11-28",
            "14:00",
            "2026-11-28T14:00",
            "2026-11-28 24:01",
            "2026-02-30 12:00",
            "yesterday",
            "2026-11-28_14:00",
        ] {
            assert!(parse_moment(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_time_is_read_as_it_is_written() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_111_200_042);
        assert_eq!(to_text(time), "2026-11-19T18:00:00Z");
        assert_eq!(to_text_with_millis(time), "2026-11-19T18:00:00.042Z");
        assert_eq!(from_text("2026-11-19T18:00:00.042Z"), Some(time));
        assert_eq!(from_text("2026-11-19T20:00:00.042+02:00"), Some(time));
        for refused in ["", "2026-11-19", "2026-11-19 18:00", "2026-13-19T18:00:00Z", "2026-11-19T18:00:00"] {
            assert_eq!(from_text(refused), None, "{refused}");
        }
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60);
        assert_eq!(to_text(far), "1970-01-01T00:00:00Z");
    }
}
