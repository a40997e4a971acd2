//! Runs one program under a deadline: with its own process group, a clean environment, bounded and redacted output,
//! and no process of its group left at the end.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::process::Invocation;
use crate::util::Expired;

/// Whether programs can be started here. Only Unix has the process groups that are needed to enforce a deadline; WASI
/// has no processes at all.
pub const CAN_START: bool = cfg!(unix);

/// How long programs may take to end after they are asked to. git removes its lock files in this time.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Exit(i32),
    /// The signal that ended the program. Signal 9 that we did not send usually comes from the kernel, when memory is
    /// low.
    Signal(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(formatter, "exit code {code}"),
            Self::Signal(9) => write!(formatter, "killed by signal 9 (out of memory?)"),
            Self::Signal(signal) => write!(formatter, "killed by signal {signal}"),
        }
    }
}

/// The result of a program that ended by itself.
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// Its standard output, if it was captured as bytes; otherwise empty.
    pub stdout: Vec<u8>,
    /// The last lines that it printed, without colours, control characters and secrets.
    pub tail: Vec<String>,
}

impl Finished {
    /// Returns whether it exited with 0.
    pub fn is_success(&self) -> bool {
        self.ending == Ending::Exit(0)
    }
}

/// Why a program did not end by itself. The texts name the command.
#[derive(Debug)]
pub enum Failure {
    /// It could not be started, what it printed could not be written to its file, or it ended but its output did not.
    /// `StorageFull`: it was ended because it left too little free space. `FileTooLarge`: it printed more than the
    /// limit and was killed.
    Io(io::Error),
    /// The deadline passed, or the process is ending; the program's group was killed.
    Expired(Expired),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(formatter),
            Self::Expired(Expired::TimedOut) => formatter.write_str("the time limit passed"),
            Self::Expired(Expired::Cancelled) => formatter.write_str("the service is shutting down"),
        }
    }
}

/// Returns why a program could not be started.
pub(super) fn cannot_start(invocation: &Invocation, error: &io::Error) -> Failure {
    let program = invocation.command.get_program().display();
    let why = match error.kind() {
        io::ErrorKind::NotFound => "it is not installed, or not on the PATH".to_owned(),
        _ => error.to_string(),
    };
    Failure::Io(io::Error::other(format!("cannot start `{program}`: {why}")))
}

#[cfg(unix)]
pub(super) use platform::run;

/// Fails, since no program can be started here.
#[cfg(not(unix))]
#[expect(clippy::needless_pass_by_value, reason = "the parameters are those of the other function")]
pub(super) fn run(
    invocation: Invocation,
    _: &crate::process::run_env::RunEnv,
    _: &crate::util::Deadline,
    _: &mut dyn FnMut(&str) -> bool,
) -> Result<Finished, Failure> {
    Err(cannot_start(&invocation, &io::ErrorKind::Unsupported.into()))
}

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};

    use super::{Ending, Failure, Finished, TERM_GRACE, cannot_start};
    use crate::process::output::Output;
    use crate::process::{Invocation, RunEnv, confine};
    use crate::util::{Deadline, Volume, wait_while};

    /// How long to wait for the end of the output after the program's end, on a busy machine. A descendant that left
    /// the group may hold the pipe open for ever.
    const OUTPUT_WAIT: Duration = Duration::from_secs(3);
    /// How long to wait for the processes that were killed with a program.
    const GROUP_END_TIME_MAX: Duration = Duration::from_millis(500);
    /// How often to check whether a program has ended that closed its output.
    const END_WAIT: Duration = Duration::from_millis(1);
    /// The longest time between two checks of the free space.
    const VOLUME_POLL_INTERVAL: Duration = Duration::from_millis(50);
    /// More than a disk in memory takes, about 3 GB a second. The next check comes before the free space can be used up.
    const DISK_BYTES_PER_MS: u64 = 8_000_000;
    const CHUNK_BYTES: usize = 16 * 1024;

    /// Runs `invocation` until it ends, the deadline passes, or it leaves too little free space on the volume.
    ///
    /// Passes every line that it prints to `on_line` immediately, and ends it if that returns `false`. When this
    /// returns, no process of its group is left.
    ///
    /// # Errors
    /// [`Failure`] if the program did not end by itself. Another exit code than 0 is not an error here: the caller
    /// decides what it means.
    pub(crate) fn run(
        mut invocation: Invocation,
        run_env: &RunEnv,
        deadline: &Deadline,
        on_line: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Finished, Failure> {
        log::debug!("running {invocation}");
        deadline.remaining().map_err(Failure::Expired)?;
        let command = invocation.command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = confine::spawn(command, &invocation.confined_to);
        let mut child = child.map_err(|error| cannot_start(&invocation, &error))?;
        let group = Pid::from_child(&child);
        let (stdout, stderr) = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
        let mut pipes = Pipes([stdout, stderr]);
        let mut output = Output::new(&invocation, &run_env.redactor, on_line);
        let followed = follow(group, deadline, &run_env.run_dir.volume, &mut pipes, &mut output);
        if followed.is_err() {
            // It has a moment to remove its lock files.
            let _ = kill_process_group(group, Signal::TERM);
            wait_while(TERM_GRACE, || !has_ended(group));
        }
        // Descendants that outlive the program must not continue to write. Until the program is reaped, no other group
        // can have its id. It fails if no process of the group is left.
        let _ = kill_process_group(group, Signal::KILL);
        let status = child.wait();
        if followed.is_err() {
            // As long as a process of the group has a file open, the disk does not get its space back. In a container,
            // processes may stay as zombies.
            wait_while(GROUP_END_TIME_MAX, || test_kill_process_group(group).is_ok());
        }
        followed?;
        let begun = Instant::now();
        while pipes.are_open() && begun.elapsed() < OUTPUT_WAIT {
            pipes.read(OUTPUT_WAIT.saturating_sub(begun.elapsed()), &mut output)?;
        }
        // Lines may be incomplete; captured bytes may not.
        if pipes.0[0].is_some() && invocation.bytes_max.is_some() {
            let why = format!("`{invocation}` ended, but a program that it started holds its output open");
            return Err(Failure::Io(io::Error::other(why)));
        }
        let status = status.map_err(Failure::Io)?;
        Ok(output.finish(match (status.code(), status.signal()) {
            // Shells use this code for a program that was killed.
            (Some(137), _) => Ending::Signal(9),
            (Some(code), _) => Ending::Exit(code),
            (None, signal) => Ending::Signal(signal.unwrap_or(0)),
        }))
    }

    /// The pipes of standard output and standard error, as long as they are open.
    struct Pipes([Option<OwnedFd>; 2]);

    impl Pipes {
        fn are_open(&self) -> bool {
            self.0.iter().any(Option::is_some)
        }

        /// Waits at most `patience` for output, and passes it to `output`.
        fn read(&mut self, patience: Duration, output: &mut Output<'_>) -> Result<(), Failure> {
            let patience = if self.are_open() { patience } else { patience.min(END_WAIT) };
            let mut polled: Vec<_> = self.0.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)).collect();
            // It fails if a signal comes. Then no pipe is ready.
            let _ = poll(&mut polled, Timespec::try_from(patience).ok().as_ref());
            let ready: Vec<_> = polled.iter().map(|pipe| !pipe.revents().is_empty()).collect();
            let open = self.0.iter_mut().enumerate().filter(|(_, pipe)| pipe.is_some());
            for ((stream, pipe), _) in open.zip(&ready).filter(|(_, is_ready)| **is_ready) {
                let mut chunk = [0; CHUNK_BYTES];
                match pipe.as_ref().map_or(Ok(0), |pipe| rustix::io::read(pipe, &mut chunk)) {
                    Ok(0) => *pipe = None,
                    Ok(length) => output.take(stream, &chunk[..length])?,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(Failure::Io(error.into())),
                }
            }
            Ok(())
        }
    }

    /// Returns whether the program has ended. It is not reaped here: the id of a reaped program, and of its group, may
    /// be given to another process.
    fn has_ended(program: Pid) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(program), options), Ok(None) | Err(rustix::io::Errno::INTR))
    }

    /// Reads output until the program has ended. Fails if its time is over, its output cannot be read, or the disk is
    /// nearly full.
    fn follow(
        program: Pid,
        deadline: &Deadline,
        volume: &Volume,
        pipes: &mut Pipes,
        output: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let mut next_check = Instant::now();
        while !output.is_enough && !has_ended(program) {
            let wait = deadline.next_wait().map_err(Failure::Expired)?;
            if next_check <= Instant::now() {
                let left = volume.check().map_err(|error| {
                    Failure::Io(io::Error::new(error.kind(), format!("`{}` was ended: {error}", output.invocation)))
                })?;
                let until_full = Duration::from_millis((left / DISK_BYTES_PER_MS).max(1));
                next_check = Instant::now() + until_full.min(VOLUME_POLL_INTERVAL);
            }
            pipes.read(wait.min(next_check.saturating_duration_since(Instant::now())), output)?;
        }
        Ok(())
    }
}
