//! The environment of the programs of one run: clean variables, a home folder that is removed with the run, the lock as
//! standard input, the deadline, and a redactor with the run's secrets.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::process::orphans::MARKER;
use crate::process::{Failure, Finished, Invocation, Lock, run};
use crate::util::{Deadline, Redactor, RunDir};

/// How long a program may take to start and print its version. On a small, busy machine, Node takes seconds to start.
/// The program is ended as soon as it has printed its version: `wmill` would then ask the npm registry for a newer one.
const VERSION_TIME_MAX: Duration = Duration::from_secs(30);
/// How many characters of a version are kept.
const VERSION_CHARS_MAX: usize = 40;

/// The environment in which one run's programs work.
pub struct RunEnv {
    /// The folder of the run: empty at its start, removed at its end.
    pub run_dir: RunDir,
    /// When the run ends at the latest.
    pub deadline: Deadline,
    /// Removes the secrets of the run from texts.
    pub redactor: Redactor,
    /// Variables that programs need from outside: `PATH`, proxies, certificates.
    pub environment: Vec<(String, String)>,
    /// The lock that permits one run in the workspace at a time. It is the last field, so that it is released after
    /// `run_dir` is removed: the next run has its folder at the same path.
    pub lock: Lock,
}

impl Drop for RunEnv {
    fn drop(&mut self) {
        self.lock.end_programs();
    }
}

impl RunEnv {
    /// Creates an invocation of `program` in `folder`, with the environment that all programs of a run share.
    ///
    /// # Errors
    /// Fails if the process has no free file descriptor.
    pub fn invocation(&self, program: &str, folder: &Path) -> io::Result<Invocation> {
        let home = self.run_dir.path();
        let invocation = Invocation::new(program, folder)
            .environment("HOME", home)
            .environment("XDG_CONFIG_HOME", home)
            .environment("TMPDIR", home)
            .environment("LC_ALL", "C")
            .environment(MARKER, &self.lock.marker)
            .stdin(self.lock.file.try_clone()?);
        Ok(self.environment.iter().fold(invocation, |all, (name, value)| all.environment(name, value)))
    }

    /// Creates an invocation of a program that talks only to this process. It gets no proxies, because some programs
    /// also send requests for 127.0.0.1 to a proxy.
    ///
    /// # Errors
    /// Fails if the process has no free file descriptor.
    pub fn local_invocation(&self, program: &str, folder: &Path) -> io::Result<Invocation> {
        let mut invocation = self.invocation(program, folder)?;
        for (name, _) in self.environment.iter().filter(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy")) {
            invocation.command.env_remove(name);
        }
        Ok(invocation)
    }

    /// Runs an invocation to its end, within the deadline of the run. Passes each line that it prints to `on_line`,
    /// and ends it if that returns `false`.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(&self, invocation: Invocation, on_line: &mut dyn FnMut(&str) -> bool) -> Result<Finished, Failure> {
        run::run(invocation, self, &self.deadline, on_line)
    }

    /// Returns what a program prints after `prefix` when it is asked for its version. Ends the program as soon as it has
    /// printed that.
    ///
    /// # Errors
    /// A text that says why the program could not be started or did not print its version.
    pub fn version(&self, program: &str, option: &str, prefix: &str) -> Result<String, String> {
        // If no time is left, the program is not started.
        let time_max = self.deadline.remaining().unwrap_or_default().min(VERSION_TIME_MAX);
        let deadline = Deadline::after(time_max, self.deadline.cancel_token());
        let invocation = self.invocation(program, self.run_dir.path()).map_err(|error| error.to_string())?;
        let invocation = invocation.arguments([option]).confine(&[self.run_dir.path()]);
        let finished = run::run(invocation, self, &deadline, &mut |line| !line.starts_with(prefix));
        let Finished { ending, tail, .. } = finished.map_err(|failure| failure.to_string())?;
        match tail.iter().find_map(|line| line.strip_prefix(prefix)) {
            Some(version) => Ok(version.chars().take(VERSION_CHARS_MAX).collect()),
            None => Err(format!("`{program} {option}` ended with {ending}: {}", tail.join("\n"))),
        }
    }
}
