//! Collects what a program prints: as lines without colours, control characters and secrets, or as bytes. Both are
//! bounded.
#![cfg_attr(not(unix), expect(dead_code, reason = "no program is started there"))]

use std::collections::VecDeque;
use std::io::Write as _;

use crate::process::command::{Invocation, Stdout};
#[cfg(target_os = "linux")]
use crate::process::confine;
use crate::process::run::{Ending, Failure, Finished};
use crate::util::redact::{self, Redactor};

/// How many lines of a program's output are kept for messages.
const TAIL_LINES_MAX: usize = 40;
/// A longer line is cut; a program that prints no line end at all must not fill the memory.
const LINE_BYTES_MAX: usize = 4096;

/// Returns one printed line as text, without colours and other escape sequences, and with control characters replaced.
#[must_use]
pub fn clean_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // CSI sequences end with a letter or `@`..`~`; other escapes are one character long.
            if characters.next_if_eq(&'[').is_some() {
                while characters.next_if(|next| !('@'..='~').contains(next)).is_some() {}
            }
            characters.next();
        } else if redact::is_invisible(character) {
            clean.push(if character == '\t' { ' ' } else { '\u{fffd}' });
        } else {
            clean.push(character);
        }
    }
    clean.trim_end().to_owned()
}

pub(super) enum Event {
    /// Bytes from standard output; empty at the end of the stream.
    Stdout(Vec<u8>),
    /// The same for standard error.
    Stderr(Vec<u8>),
    /// The program ended; it is not reaped yet.
    Ended,
}

/// Splits output into lines and cleans them for logs: no colours, no control characters, no secrets, no endless line.
struct Lines<'a> {
    pending: Vec<u8>,
    is_cut: bool,
    redactor: &'a Redactor,
}

impl Lines<'_> {
    fn push(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(String)) {
        for &byte in bytes {
            // A carriage return ends a line too: git overwrites its progress with it.
            if byte == b'\n' || byte == b'\r' {
                self.flush(on_line);
            } else if self.pending.len() < LINE_BYTES_MAX {
                self.pending.push(byte);
            } else {
                self.is_cut = true;
            }
        }
    }

    fn flush(&mut self, on_line: &mut dyn FnMut(String)) {
        let line = clean_line(&self.pending);
        self.pending.clear();
        let is_cut = std::mem::take(&mut self.is_cut);
        if !line.is_empty() {
            on_line(if is_cut { self.redactor.scrub_cut(&line) } else { self.redactor.redact(&line) });
        }
    }
}

pub(super) struct Output<'a> {
    stdout: Vec<u8>,
    pub(super) form: Stdout,
    written: usize,
    pub(super) command: String,
    lines: [Lines<'a>; 2],
    tail: VecDeque<String>,
    on_line: &'a mut dyn FnMut(&str),
    /// Whether standard output and standard error are still open.
    pub(super) is_open: [bool; 2],
}

impl<'a> Output<'a> {
    pub(super) fn new(invocation: &mut Invocation, redactor: &'a Redactor, on_line: &'a mut dyn FnMut(&str)) -> Self {
        let lines = || Lines { pending: Vec::new(), is_cut: false, redactor };
        Self {
            stdout: Vec::new(),
            form: std::mem::replace(&mut invocation.stdout, Stdout::Lines),
            written: 0,
            command: invocation.to_string(),
            lines: [lines(), lines()],
            tail: VecDeque::new(),
            on_line,
            is_open: [true; 2],
        }
    }

    pub(super) fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Stdout(bytes) if bytes.is_empty() => self.is_open[0] = false,
            Event::Stderr(bytes) if bytes.is_empty() => self.is_open[1] = false,
            Event::Stdout(bytes) => self.keep(&bytes)?,
            Event::Stderr(bytes) => self.lines(1, Some(&bytes)),
            Event::Ended => {}
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.written += bytes.len();
        let max = match &mut self.form {
            Stdout::Lines => {
                self.lines(0, Some(bytes));
                return Ok(());
            }
            Stdout::Bytes { max } | Stdout::File { max, .. } if self.written > *max => *max,
            Stdout::Bytes { .. } => {
                self.stdout.extend_from_slice(bytes);
                return Ok(());
            }
            Stdout::File { file, .. } => {
                let command = || self.command.clone();
                return file.write_all(bytes).map_err(|error| Failure::NotWritten { command: command(), error });
            }
        };
        Err(Failure::TooMuchOutput { command: self.command.clone(), bytes_max: max })
    }

    fn lines(&mut self, stream: usize, bytes: Option<&[u8]>) {
        let Self { lines, tail, on_line, .. } = self;
        let mut keep = |line: String| {
            // Our own program prints these lines before it becomes another program.
            #[cfg(target_os = "linux")]
            if line.starts_with(confine::LINE_PREFIX) {
                log::debug!("{line}");
                if line.contains(confine::CANNOT) && tail.len() < TAIL_LINES_MAX {
                    tail.push_back(line);
                }
                return;
            }
            on_line(&line);
            if tail.len() == TAIL_LINES_MAX {
                tail.pop_front();
            }
            tail.push_back(line);
        };
        match bytes {
            Some(bytes) => lines[stream].push(bytes, &mut keep),
            None => lines[stream].flush(&mut keep),
        }
    }

    pub(super) fn finish(mut self, ending: Ending) -> Finished {
        self.lines(0, None);
        self.lines(1, None);
        Finished { ending, stdout: self.stdout, tail: self.tail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(printed: &[u8], expected: &str) {
        assert_eq!(clean_line(printed), expected);
    }

    #[test]
    fn lines_lose_colours_and_control_characters() {
        check(b"\x1b[32mDone!\x1b[39m All 3 changes \x1b[1;4mapplied\x1b[0m", "Done! All 3 changes applied");
        check(b"tab\there", "tab here");
        check(b"bell\x07 \xff", "bell\u{fffd} \u{fffd}");
        check(b"\x1b", "");
        check(b"\x1b[", "");
        check(b"\x1b[31", "");
        check(b"\x1bMup", "up");
    }
}
