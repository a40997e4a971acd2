//! The command `log`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::args::Log as Arguments;
use super::{own_program, parsed, patterns, print, refuse, signals};
use crate::backup::log::{self, Entry, LIMIT_DEFAULT, LIMIT_MAX, Log, LogOptions};
use crate::config::{Config, Environment, Required};
use crate::model::result_code::Code;
use crate::util::deadline::CancelToken;
use crate::util::{logging, time};

/// Digits of a commit's id in the table.
const SHORT_ID: usize = 10;

pub(super) fn log(arguments: &Arguments, environment: &Environment) -> ExitCode {
    let config = Config::new(&arguments.settings(), environment, Required::Git).map_err(|error| error.to_string());
    let options = options(arguments);
    let (config, options) = match (config, options) {
        (Ok(config), Ok(options)) => (config, options),
        (config, options) => {
            let faults = [config.err(), options.err().map(|faults| faults.join("; "))];
            return refuse(Code::ConfigInvalid, &faults.into_iter().flatten().collect::<Vec<_>>().join("; "));
        }
    };
    // The list is the result, so lower log levels than warnings are shown only if LOG_LEVEL is set.
    let level = if environment.get("LOG_LEVEL").is_none() { ::log::LevelFilter::Warn } else { config.log_level };
    logging::start(level, config.log_format);
    let cancel = CancelToken::default();
    signals::cancel_on_signal(&cancel);
    match log::run(&config, &own_program(), &cancel, &options) {
        Ok(log) => {
            print(if arguments.json { log.to_json() } else { table(&log, SystemTime::now()) }.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => refuse(error.code, &error.message),
    }
}

/// Returns the options, or everything that is wrong with them.
fn options(arguments: &Arguments) -> Result<LogOptions, Vec<String>> {
    let mut faults = Vec::new();
    let paths = patterns(&arguments.path, &mut faults);
    let since = parsed("--since", arguments.since.as_deref(), time::parse_moment, &mut faults);
    let until = parsed("--until", arguments.until.as_deref(), time::parse_moment, &mut faults);
    let limit = match arguments.limit.as_deref().map(str::parse) {
        None => LIMIT_DEFAULT,
        Some(Ok(limit @ 1..=LIMIT_MAX)) => limit,
        Some(_) => {
            faults.push(format!("--limit: give a number from 1 to {LIMIT_MAX}"));
            LIMIT_DEFAULT
        }
    };
    if faults.is_empty() { Ok(LogOptions { paths, since, until, limit }) } else { Err(faults) }
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
    fn a_span_is_told_in_its_largest_unit() {
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
