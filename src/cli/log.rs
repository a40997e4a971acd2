//! The command `log`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::log::LevelFilter;
use miniserde::json;

use super::args::Log as Arguments;
use super::{config, own_program, parsed, patterns, print, start};
use crate::backup::error::BackupError;
use crate::backup::log::{self, Entry, LIMIT_DEFAULT, LIMIT_MAX, Log, LogOptions};
use crate::config::{Environment, Required};
use crate::util::time;

/// Digits of a commit's id in the table.
const SHORT_ID: usize = 10;

pub(super) fn log(arguments: &Arguments, environment: &Environment) -> Result<u8, BackupError> {
    let mut faults = Vec::new();
    let options = options(arguments, &mut faults);
    let config = config(&arguments.settings(), environment, Required::Git, faults)?;
    let cancel = start(&config, environment, LevelFilter::Warn, Duration::ZERO, &Arc::default());
    let log = log::run(&config, &own_program(), &cancel, &options)?;
    print(if arguments.json { json::to_string(&log) } else { table(&log, SystemTime::now()) }.trim_end());
    Ok(0)
}

/// Returns the options besides the settings, and adds what is wrong with them to `faults`.
fn options(arguments: &Arguments, faults: &mut Vec<String>) -> LogOptions {
    let limit = |text: &str| match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => Err(format!("give a number from 1 to {LIMIT_MAX}")),
    };
    LogOptions {
        paths: patterns(&arguments.path, faults),
        since: parsed("--since", arguments.since.as_deref(), time::parse_moment, faults),
        until: parsed("--until", arguments.until.as_deref(), time::parse_moment, faults),
        limit: parsed("--limit", arguments.limit.as_deref(), limit, faults).unwrap_or(LIMIT_DEFAULT),
    }
}

/// Returns the commits as a table for people.
fn table(log: &Log, now: SystemTime) -> String {
    let mut text = String::new();
    for Entry { commit, time: at, author, added, modified, deleted } in &log.commits {
        let age = time::from_text(at).and_then(|at| now.duration_since(at).ok());
        let age = age.map_or_else(String::new, |age| format!(" ({} ago)", in_words(age)));
        let shown = at.replace('T', " ").replace('Z', " UTC");
        let _ = writeln!(text, "{}  {shown}{age}  {author}", &commit[..commit.len().min(SHORT_ID)]);
        for (change, items) in [("added", added), ("modified", modified), ("deleted", deleted)] {
            for item in items {
                let _ = writeln!(text, "    {change:<9} {item}");
            }
        }
    }
    if log.commits.is_empty() {
        text.push_str("no commit of the backup changed such an item\n");
    }
    if !log.complete {
        text.push_str("older commits were not read; --limit, --since and --path reach further back\n");
    }
    text
}

/// Returns a time span in its largest unit.
fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_shown_in_its_largest_unit() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (60, "1 minute"),
            (3_599, "59 minutes"),
            (172_799, "47 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
