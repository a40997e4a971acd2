//! Log lines on standard error, as text (by `simple_logger`) or as JSON, one line per message.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use miniserde::json;
use simple_logger::SimpleLogger;

use crate::util::{redact, time};

/// Crates that log network traffic, including tokens.
const QUIET_TARGETS: [&str; 2] = ["ureq", "rustls"];
/// The most detailed level at which these crates may log.
const QUIET_LEVEL: Level = Level::Warn;

thread_local! {
    /// Whether this thread is writing a text line. `simple_logger` panics if standard error cannot be written, and the
    /// panic hook ignores that panic.
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

/// The fields of a JSON line besides its message: the run that this thread works for, and the step of the run.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// The id of the run; empty outside a run.
    pub run_id: String,
    /// The workspace of the run.
    pub workspace: String,
    /// The current step of the run.
    pub step: Option<&'static str>,
    /// The result code of the run.
    pub code: Option<&'static str>,
    /// How long the run or the step took.
    pub duration_ms: Option<u64>,
}

thread_local! {
    static FIELDS: RefCell<Fields> = RefCell::default();
}

/// Returns the fields of this thread, for another thread that works for it.
pub fn fields() -> Fields {
    FIELDS.with_borrow(Clone::clone)
}

/// Changes the fields of this thread until the scope is dropped.
pub fn scope(change: impl FnOnce(&mut Fields)) -> Scope {
    let before = fields();
    FIELDS.with_borrow_mut(change);
    Scope(before)
}

/// Sets the fields of this thread to those of a run until the scope is dropped.
pub fn run_scope(run_id: &str, workspace: &str) -> Scope {
    scope(|fields| *fields = Fields { run_id: run_id.to_owned(), workspace: workspace.to_owned(), ..Fields::default() })
}

/// Sets the current step of this thread's run.
pub fn set_step(step: &'static str) {
    FIELDS.with_borrow_mut(|fields| fields.step = Some(step));
}

/// Restores the previous fields when it is dropped.
#[must_use]
pub struct Scope(Fields);

impl Drop for Scope {
    fn drop(&mut self) {
        FIELDS.set(std::mem::take(&mut self.0));
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging; a second call changes nothing. After that, a panic is a log line too: std would print its text
/// unescaped, and the text may contain a part of a request.
pub fn start(level: LevelFilter, format: LogFormat) {
    let text = SimpleLogger::new().with_level(level).with_utc_timestamps();
    if log::set_boxed_logger(Box::new(Logger { format, text })).is_ok() {
        log::set_max_level(level);
        std::panic::set_hook(Box::new(move |panic| log_panic(panic, format)));
    }
}

/// Logs a panic, unless `simple_logger` panicked because a log line could not be written, which is not an error. A
/// panic within a panic hook aborts the process, so this writes the line without `simple_logger`.
fn log_panic(panic: &PanicHookInfo<'_>, format: LogFormat) {
    if IS_WRITING.get() {
        return;
    }
    // `image/build-static` builds without source locations.
    let place = panic.location().filter(|place| place.line() > 0);
    let place = place.map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let text = panic.payload_as_str().unwrap_or("no message");
    let message = format!("internal error{place}, in thread {thread}: {text}");
    write_line(&match format {
        LogFormat::Text => {
            let time = time::to_text_with_millis(SystemTime::now());
            format!("{time} ERROR [panic] {}", one_line(&message))
        }
        LogFormat::Json => json_line(Level::Error, "panic", &message),
    });
}

struct Logger {
    format: LogFormat,
    text: SimpleLogger,
}

impl Log for Logger {
    /// The configured level is the global level, which `log` checks itself.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_quiet = QUIET_TARGETS.iter().any(|target| metadata.target().starts_with(target));
        !is_quiet || metadata.level() <= QUIET_LEVEL
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        match self.format {
            LogFormat::Text => self.write_text(record, &one_line(&message)),
            LogFormat::Json => write_line(&json_line(record.level(), record.target(), &message)),
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// Writes a text line. If it cannot be written, it is lost and the work continues.
    fn write_text(&self, record: &Record<'_>, message: &str) {
        let target = record.target();
        let target = target.strip_prefix(concat!(env!("CARGO_CRATE_NAME"), "::")).unwrap_or(target);
        IS_WRITING.set(true);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let mut line = Record::builder();
            self.text.log(&line.level(record.level()).target(target).args(format_args!("{message}")).build());
        }));
        IS_WRITING.set(false);
    }
}

fn json_line(level: Level, target: &str, message: &str) -> String {
    let (time, level) = (time::to_text_with_millis(SystemTime::now()), level.as_str().to_ascii_lowercase());
    let run = fields();
    let always = [("time", time.as_str()), ("level", &level), ("target", target), ("message", message)];
    let (step, code) = (run.step.unwrap_or_default(), run.code.unwrap_or_default());
    let of_run = [("run_id", run.run_id.as_str()), ("workspace", &run.workspace), ("step", step), ("code", code)];
    let members = always.into_iter().chain(of_run.into_iter().filter(|(_, value)| !value.is_empty()));
    let mut members: Vec<_> = members.map(|(name, value)| format!("\"{name}\":{}", json::to_string(value))).collect();
    members.extend(run.duration_ms.map(|duration| format!("\"duration_ms\":{duration}")));
    format!("{{{}}}", members.join(","))
}

/// Writes a line in one piece, so that lines of several threads do not mix. If it cannot be written, it is lost.
fn write_line(line: &str) {
    let _ = std::io::stderr().lock().write_all([line, "\n"].concat().as_bytes());
}

/// Returns the message with characters replaced that end its line, move the reader's cursor, or hide or reorder others.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            '\n' => line.push_str(" | "),
            unseen if redact::is_invisible(unseen) => line.extend(unseen.escape_default()),
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
        assert_eq!(one_line("a\nb\r\x1b[31mc é\u{202e}"), "a | b\\r\\u{1b}[31mc é\\u{202e}");
    }

    #[test]
    fn a_line_of_json_has_the_fields_of_its_run() {
        assert!(json_line(Level::Info, "t", "m \"q\"").ends_with("\"message\":\"m \\\"q\\\"\"}"));
        let run = run_scope("r1", "shop");
        set_step("pull");
        let inner = scope(|fields| fields.duration_ms = Some(7));
        let ending = "\"message\":\"m\",\"run_id\":\"r1\",\"workspace\":\"shop\",\"step\":\"pull\"";
        let line = json_line(Level::Info, "t", "m");
        assert!(line.ends_with(&format!("{ending},\"duration_ms\":7}}")), "{line}");
        drop(inner);
        assert!(json_line(Level::Info, "t", "m").ends_with(&format!("{ending}}}")));
        drop(run);
        assert!(!json_line(Level::Info, "t", "m").contains("r1"));
    }

    #[test]
    fn crates_that_log_traffic_log_only_warnings() {
        let text = SimpleLogger::new();
        let logger = Logger { format: LogFormat::Text, text };
        let enabled = |target: &str, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(enabled("windmill_git_sync::git", Level::Trace));
        assert!(enabled("ureq", Level::Warn));
        for target in ["ureq", "ureq_proto::client", "rustls::conn"] {
            assert!(!enabled(target, Level::Info), "{target}");
        }
    }
}
