//! The environment of the programs of one run: clean variables, a home that goes with the run, the lock as standard
//! input, the deadline, and a redactor with the run's secrets.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::process::command::Invocation;
use crate::process::lock::Lock;
use crate::process::orphans::MARKER;
use crate::process::run::{self, Failure, Finished};
use crate::util::deadline::Deadline;
use crate::util::files::RunDir;
use crate::util::redact::Redactor;

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
pub struct RunEnv {
    /// Empty at the start of the run, gone at its end.
    pub run_dir: RunDir,
    /// When the run ends at the latest.
    pub deadline: Deadline,
    /// Knows the secrets of the run.
    pub redactor: Redactor,
    /// Variables that programs need from outside: `PATH`, proxies, certificates.
    pub environment: Vec<(String, String)>,
    /// One sync of the workspace at a time. The last field, so that it is given back when the scratch folder is gone:
    /// the next run has its own at the same place.
    pub lock: Lock,
}

impl Drop for RunEnv {
    fn drop(&mut self) {
        self.lock.end_programs();
    }
}

impl RunEnv {
    /// `program`, about to run in `folder`, with the environment that all programs of a run share.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn invocation(&self, program: &str, folder: &Path) -> io::Result<Invocation> {
        let invocation = self.bare_invocation(program, folder)?;
        Ok(self.environment.iter().fold(invocation, |all, (name, value)| all.environment(name, value)))
    }

    fn bare_invocation(&self, program: &str, folder: &Path) -> io::Result<Invocation> {
        let home = self.run_dir.path();
        Ok(Invocation::new(program, folder)
            .environment("HOME", home)
            .environment("XDG_CONFIG_HOME", home)
            .environment("TMPDIR", home)
            .environment("LC_ALL", "C")
            .environment(MARKER, self.lock.marker())
            .stdin(self.lock.as_input()?)
            .watch(self.run_dir.volume()))
    }

    /// The same for a program that talks to this process only: without proxies, to which some send 127.0.0.1 too.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn local_invocation(&self, program: &str, folder: &Path) -> io::Result<Invocation> {
        let environment = self.environment.iter().filter(|(name, _)| !name.to_ascii_lowercase().ends_with("_proxy"));
        let invocation = self.bare_invocation(program, folder)?;
        Ok(environment.fold(invocation, |all, (name, value)| all.environment(name, value)))
    }

    /// Runs it; see [`run::run`].
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(&self, invocation: Invocation, on_line: &mut dyn FnMut(&str)) -> Result<Finished, Failure> {
        run::run(invocation, &self.deadline, &self.redactor, on_line)
    }

    /// What a program prints behind `prefix` when it is asked for its version; it is ended as soon as it has. `on_line`
    /// gets each line before that.
    ///
    /// # Errors
    /// In words: it cannot be started, or does not tell.
    pub fn version(
        &self,
        program: &str,
        option: &str,
        prefix: &str,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<String, String> {
        let enough = self.deadline.cancel_token().child();
        let left = self.deadline.remaining().map_err(|expired| Failure::Expired(expired).to_string())?;
        let deadline = Deadline::after(left.min(VERSION_TIME_MAX), &enough);
        let invocation = self.invocation(program, self.run_dir.path()).map_err(|error| error.to_string())?;
        let mut version = None;
        let asked = run::run(
            invocation.argument(option).confine(&[self.run_dir.path()]),
            &deadline,
            &self.redactor,
            &mut |line| {
                on_line(line);
                if let Some(found) = line.strip_prefix(prefix) {
                    version = Some(found.chars().take(VERSION_CHARS_MAX).collect());
                    enough.cancel();
                }
            },
        );
        version.ok_or_else(|| match asked {
            Ok(finished) => format!("`{program} {option}` ended with {}: {}", finished.ending, finished.tail_text()),
            Err(failure) => failure.to_string(),
        })
    }
}
