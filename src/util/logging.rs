//! Log lines on standard error, as text or as JSON, one line each whatever is in them. It does not know who logs.

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::time::SystemTime;

use log::{LevelFilter, Log, Metadata, Record};
use miniserde::{Serialize, json};

use crate::config::LogFormat;

/// Crates that log what goes over the wire, tokens included, unless they are kept quiet.
const QUIET_TARGETS: [&str; 2] = ["ureq", "rustls"];
/// How loud they may be.
const QUIET_LEVEL: log::Level = log::Level::Warn;

/// Starts logging; a second call changes nothing. From then on a panic is told by a log line too: std would print its
/// text as it is, and there may be something of a request in it.
pub fn start(level: LevelFilter, format: LogFormat) {
    if log::set_boxed_logger(Box::new(Logger { level, format })).is_ok() {
        log::set_max_level(level);
        std::panic::set_hook(Box::new(|panic| log::error!("{}", describe(panic))));
    }
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    format!("a fault of ours{place}, in thread {thread}: {}", panic.payload_as_str().unwrap_or("it says nothing"))
}

struct Logger {
    level: LevelFilter,
    format: LogFormat,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: String,
    target: &'a str,
    message: &'a str,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_quiet = QUIET_TARGETS.iter().any(|target| metadata.target().starts_with(target));
        metadata.level() <= self.level && (!is_quiet || metadata.level() <= QUIET_LEVEL)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        let line = match self.format {
            LogFormat::Text => format!("{} {:<5} {}\n", now(), record.level(), one_line(&message)),
            LogFormat::Json => {
                let level = record.level().as_str().to_ascii_lowercase();
                let line = Line { time: now(), level, target: record.target(), message: &message };
                json::to_string(&line) + "\n"
            }
        };
        // In one piece, so that lines of several threads do not mix. A log that cannot be written must not stop a
        // backup.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// The time in UTC, as in `2026-11-22T18:00:00.123Z`.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// A message without what would end its line or move the reader's cursor.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            '\n' => line.push_str(" | "),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(one_line("a\nb\r\x1b[31mc é"), "a | b\\r\\u{1b}[31mc é");
    }

    #[test]
    fn crates_that_log_bytes_are_kept_quiet() {
        let logger = Logger { level: LevelFilter::Trace, format: LogFormat::Text };
        let enabled = |target: &str, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(enabled("windmill_git_sync::git", log::Level::Trace));
        assert!(enabled("ureq", log::Level::Warn));
        for target in ["ureq", "ureq_proto::client", "rustls::conn"] {
            assert!(!enabled(target, log::Level::Info), "{target}");
        }
    }
}
