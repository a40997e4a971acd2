//! Collects what a program prints: as lines without colours, control characters and secrets, or as bytes. Both are
//! bounded.
#![cfg_attr(not(unix), expect(dead_code, reason = "no program is started there"))]

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::mem;

use crate::process::{Ending, Failure, Finished, Invocation};
use crate::util::{Redactor, redact};

/// How many lines of a program's output are kept for messages.
const TAIL_LINES_MAX: usize = 40;
/// How many lines are logged. A first pull prints each item, and a flood must not fill the logs' disk.
const LOGGED_LINES_MAX: usize = 5000;
/// A longer line is cut; a program that prints no line end at all must not fill the memory.
const LINE_BYTES_MAX: usize = 4096;

/// Returns one printed line as text, without colours and other escape sequences, and with control characters replaced.
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
        } else {
            clean.push(character);
        }
    }
    redact::visible(&clean.replace(['\t', '\n'], " ")).trim_end().to_owned()
}

/// What a program printed until now. Its lines are cleaned for logs: no colours, no control characters, no secrets, no
/// endless line.
pub(super) struct Output<'a> {
    pub(super) invocation: &'a Invocation,
    redactor: &'a Redactor,
    on_line: &'a mut dyn FnMut(&str) -> bool,
    /// How many lines it printed.
    lines: usize,
    /// How many bytes came on standard output.
    length: usize,
    stdout: Vec<u8>,
    /// The line of each stream that has not ended yet.
    pending: [Vec<u8>; 2],
    tail: VecDeque<String>,
    /// Whether the caller needs no further line.
    pub(super) is_enough: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        invocation: &'a Invocation,
        redactor: &'a Redactor,
        on_line: &'a mut dyn FnMut(&str) -> bool,
    ) -> Self {
        let (stdout, pending, tail) = Default::default();
        Self { invocation, redactor, on_line, lines: 0, length: 0, stdout, pending, tail, is_enough: false }
    }

    /// Takes bytes from standard output, which is stream 0, or from standard error.
    pub(super) fn take(&mut self, stream: usize, bytes: &[u8]) -> Result<(), Failure> {
        let Some(bytes_max) = self.invocation.bytes_max.filter(|_| stream == 0) else {
            self.take_lines(stream, bytes);
            return Ok(());
        };
        self.length += bytes.len();
        let (kind, why) = if self.length > bytes_max {
            (io::ErrorKind::FileTooLarge, format!("printed more than {bytes_max} bytes"))
        } else if let Some(mut file) = self.invocation.file.as_ref() {
            let Err(error) = file.write_all(bytes) else { return Ok(()) };
            (error.kind(), format!("printed what cannot be written: {error}"))
        } else {
            self.stdout.extend_from_slice(bytes);
            return Ok(());
        };
        Err(Failure::Io(io::Error::new(kind, format!("`{}` {why}", self.invocation))))
    }

    fn take_lines(&mut self, stream: usize, bytes: &[u8]) {
        for &byte in bytes {
            // A carriage return ends a line too: git overwrites its progress with it.
            if byte == b'\n' || byte == b'\r' {
                self.end_line(stream);
            } else if self.pending[stream].len() <= LINE_BYTES_MAX {
                self.pending[stream].push(byte);
            }
        }
    }

    fn end_line(&mut self, stream: usize) {
        let mut bytes = mem::take(&mut self.pending[stream]);
        let is_cut = bytes.len() > LINE_BYTES_MAX;
        bytes.truncate(LINE_BYTES_MAX);
        let line = clean_line(&bytes);
        if line.is_empty() {
            return;
        }
        let line = if is_cut { self.redactor.scrub_cut(&line) } else { self.redactor.redact(&line) };
        self.lines += 1;
        if self.lines <= LOGGED_LINES_MAX {
            log::debug!("{}: {line}", self.invocation.command.get_program().display());
        } else if self.lines == LOGGED_LINES_MAX + 1 {
            log::debug!("`{}` prints more than {LOGGED_LINES_MAX} lines; the rest is not logged", self.invocation);
        }
        self.is_enough |= !(self.on_line)(&line);
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub(super) fn finish(mut self, ending: Ending) -> Finished {
        self.end_line(0);
        self.end_line(1);
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
