//! What every program of one run is given: a clean environment, a home that vanishes with the run, the lock as its
//! input, the deadline, and a scrubber that knows the run's secrets. It does not know which programs these are.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::lock::{self, Lock};
use crate::scratch::Scratch;
use crate::scrubber::Scrubber;
use crate::subprocess::{self, Failure, Finished, Invocation};

/// Lines of one program that are logged. A first pull names each item; a flood must not fill the disk of the logs.
const LOGGED_LINES_MAX: usize = 5000;

/// To start a program and have it print its version; on a small machine that is busy, Node takes seconds to start. It is
/// ended when it has: `wmill` then asks the npm registry whether there is a newer one.
const VERSION_TIME_MAX: Duration = Duration::from_secs(30);
/// What is kept of a version.
const VERSION_CHARS_MAX: usize = 40;

/// The log of what one program prints, as far as it is not too much.
pub struct ProgramLog {
    name: &'static str,
    level: log::Level,
    lines: usize,
}

impl ProgramLog {
    /// For a program of this name.
    #[must_use]
    pub fn new(name: &'static str, level: log::Level) -> Self {
        Self { name, level, lines: 0 }
    }

    /// Logs one more line.
    pub fn line(&mut self, line: &str) {
        self.lines += 1;
        let name = self.name;
        if self.lines <= LOGGED_LINES_MAX {
            log::log!(self.level, "{name}: {line}");
        } else if self.lines == LOGGED_LINES_MAX + 1 {
            log::log!(self.level, "{name}: it prints more than {LOGGED_LINES_MAX} lines, of which no more are logged");
        }
    }
}

/// The place where one run's programs work.
pub struct Workplace {
    /// Empty at the start of the run, gone at its end.
    pub scratch: Scratch,
    /// When the run ends at the latest.
    pub deadline: Deadline,
    /// Knows the secrets of the run.
    pub scrubber: Scrubber,
    /// Variables that programs need from outside: `PATH`, proxies, certificates.
    pub environment: Vec<(String, String)>,
    /// One sync of the workspace at a time. The last field, so that it is given back when the scratch folder is gone:
    /// the next run has its own at the same place.
    pub lock: Lock,
}

impl Drop for Workplace {
    fn drop(&mut self) {
        self.lock.end_programs();
    }
}

impl Workplace {
    /// `program`, about to run in `folder`, with the environment that all programs of a run share.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn invocation(&self, program: &str, folder: &Path) -> io::Result<Invocation> {
        let home = self.scratch.path();
        let invocation = Invocation::new(program, folder)
            .environment("HOME", home)
            .environment("XDG_CONFIG_HOME", home)
            .environment("TMPDIR", home)
            .environment("LC_ALL", "C")
            .environment(lock::MARKER, self.lock.marker())
            .stdin(self.lock.as_input()?);
        Ok(self.environment.iter().fold(invocation, |all, (name, value)| all.environment(name, value)))
    }

    /// Runs it; see [`subprocess::run`].
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(&self, invocation: Invocation, on_line: &mut dyn FnMut(&str)) -> Result<Finished, Failure> {
        subprocess::run(invocation, &self.deadline, &self.scrubber, on_line)
    }

    /// What a program prints behind `prefix` when it is asked for its version; it is ended as soon as it has.
    ///
    /// # Errors
    /// In words: it cannot be started, or does not tell.
    pub fn version(&self, program: &str, option: &str, prefix: &str) -> Result<String, String> {
        let enough = self.deadline.interrupt().of_a_part();
        let left = self.deadline.remaining().map_err(|expired| Failure::Expired(expired).to_string())?;
        let deadline = Deadline::after(left.min(VERSION_TIME_MAX), &enough);
        let invocation = self.invocation(program, self.scratch.path()).map_err(|error| error.to_string())?;
        let mut version = None;
        let asked = subprocess::run(invocation.argument(option), &deadline, &self.scrubber, &mut |line| {
            if let Some(found) = line.strip_prefix(prefix) {
                version = Some(found.chars().take(VERSION_CHARS_MAX).collect());
                enough.raise();
            }
        });
        version.ok_or_else(|| match asked {
            Ok(finished) => format!("`{program} {option}` ended with {}: {}", finished.ending, finished.tail_text()),
            Err(failure) => failure.to_string(),
        })
    }
}
