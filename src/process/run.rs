//! Runs one program under a deadline: with its own process group, a clean environment, bounded and redacted output,
//! and no process of its group left at the end.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::process::command::Invocation;
use crate::util::deadline::{Deadline, Expired};
use crate::util::redact::Redactor;

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
    /// The kernel killed it, or a program that it had started, because memory was low.
    OutOfMemory,
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(formatter, "exit code {code}"),
            Self::OutOfMemory => {
                write!(formatter, "killed by the kernel: the machine or the container is out of memory")
            }
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
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.ending == Ending::Exit(0)
    }

    /// Returns the last lines as one text.
    #[must_use]
    pub fn tail_text(&self) -> String {
        self.tail.join("\n")
    }
}

/// Why a program did not end by itself.
#[derive(Debug)]
pub enum Failure {
    /// It could not be started.
    NotStarted {
        /// The program's name.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// The deadline passed, or the process is ending; the program's group was killed.
    Expired(Expired),
    /// It printed more than the limit and was killed.
    TooMuchOutput {
        /// The command.
        command: String,
        /// The limit.
        bytes_max: usize,
    },
    /// It ended, but its output did not: another process holds the stream open.
    CutOff {
        /// The command.
        command: String,
    },
    /// It left too little free space, and was ended.
    NoSpace {
        /// The command.
        command: String,
        /// How much space is free, and how much has to be.
        error: io::Error,
    },
    /// What it printed could not be written to its file, and it was killed.
    NotWritten {
        /// The command.
        command: String,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted { program, error } if error.kind() == io::ErrorKind::NotFound => {
                write!(formatter, "cannot start `{program}`: it is not installed, or not on the PATH")
            }
            Self::NotStarted { program, error } => write!(formatter, "cannot start `{program}`: {error}"),
            Self::Expired(Expired::TimedOut) => formatter.write_str("the time was over"),
            Self::Expired(Expired::Cancelled) => formatter.write_str("the service is ending"),
            Self::TooMuchOutput { command, bytes_max } => {
                write!(formatter, "`{command}` printed more than {bytes_max} bytes")
            }
            Self::CutOff { command } => {
                write!(
                    formatter,
                    "`{command}` ended, and what it printed did not: something that it started holds it open"
                )
            }
            Self::NoSpace { command, error } => write!(formatter, "`{command}` was ended: {error}"),
            Self::NotWritten { command, error } => write!(formatter, "cannot write what `{command}` printed: {error}"),
        }
    }
}

/// Runs `invocation` until it ends or the deadline passes.
///
/// Passes every line that it prints to `on_line` at once. When this returns, no process of its group is left.
///
/// # Errors
/// [`Failure`] if the program did not end by itself. Another exit code than 0 is not an error here: the caller decides
/// what it means.
pub fn run(
    invocation: Invocation,
    deadline: &Deadline,
    redactor: &Redactor,
    on_line: &mut dyn FnMut(&str),
) -> Result<Finished, Failure> {
    log::debug!("running {invocation}");
    platform::run(invocation, deadline, redactor, on_line)
}

#[cfg(unix)]
mod platform {
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

    use super::{Deadline, Ending, Failure, Finished, Invocation, Redactor, TERM_GRACE};
    use crate::process::command::Stdout;
    #[cfg(target_os = "linux")]
    use crate::process::confine;
    use crate::process::orphans::{is_group_there, signal_group};
    use crate::process::output::{Event, Output};
    use crate::util::volume::Volume;

    /// How long to wait for output after the program's end. On a busy machine, the last bytes may still be in the pipe,
    /// in our own threads or on their way to the disk.
    const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
    /// How long to wait for lines while the pipes are empty. After that, no more are expected: a descendant that left
    /// the group holds the pipe open.
    const QUIET_TIME_MAX: Duration = Duration::from_secs(1);
    /// How long to wait for the processes that were killed with a program.
    const GROUP_END_TIME_MAX: Duration = Duration::from_millis(500);
    /// How often to check whether they are gone.
    const GROUP_END_WAIT: Duration = Duration::from_millis(5);
    /// How often the free space is checked. A fast program writes 20 MB in this time.
    const VOLUME_POLL_INTERVAL: Duration = Duration::from_millis(50);
    /// How many chunks may be in flight. A flood of output blocks the program and does not fill our memory.
    const CHUNKS_MAX: usize = 4;
    const CHUNK_BYTES: usize = 16 * 1024;
    /// The stack size of the threads, which only read and wait.
    const STACK_BYTES: usize = 64 * 1024;

    pub(super) fn run(
        mut invocation: Invocation,
        deadline: &Deadline,
        redactor: &Redactor,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Finished, Failure> {
        deadline.remaining().map_err(Failure::Expired)?;
        let volume = invocation.volume.take();
        let oom_kills_before = oom_kills();
        let mut child = spawn(&mut invocation)?;
        // The sender is kept, so that a wait for an event lasts its full time even if the threads have ended.
        let (sender, events) = sync_channel(CHUNKS_MAX);
        let watched = watch(&mut child, &sender);
        let mut output = Output::new(&mut invocation, redactor, on_line);
        let followed = match watched {
            Ok(pipes) => follow(&events, deadline, volume.as_ref(), &mut output, child.id()).map(|()| pipes),
            Err(error) => Err(Failure::NotStarted { program: invocation.to_string(), error }),
        };
        // Descendants that outlive the program must not continue to write. Until the program is reaped, no other group
        // can have its id.
        signal_group(child.id(), Signal::KILL);
        let status = child.wait();
        if followed.is_err() {
            wait_for_end_of_group(child.id());
        }
        let followed = followed.and_then(|pipes| drain(&events, &mut output, &pipes));
        drop(events);
        followed?;
        let status = status.map_err(|error| Failure::NotStarted { program: invocation.to_string(), error })?;
        let ending = match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exit(code),
            (None, signal) => Ending::Signal(signal.unwrap_or(0)),
        };
        let mut finished = output.finish(ending);
        if was_killed(&finished) && oom_kills() > oom_kills_before {
            finished.ending = Ending::OutOfMemory;
        }
        #[cfg(target_os = "linux")]
        if !invocation.confined_to.is_empty()
            && !finished.is_success()
            && let Some(error) = confine::start_error(&finished.tail)
        {
            return Err(not_started(&invocation, error));
        }
        Ok(finished)
    }

    /// Returns whether the program was killed, or printed that a program it had started was killed.
    fn was_killed(finished: &Finished) -> bool {
        /// The exit code that shells use for a program that signal 9 ended.
        const KILLED: i32 = 137;
        match finished.ending {
            Ending::Signal(9) | Ending::Exit(KILLED) => true,
            Ending::Exit(0) => false,
            _ => finished.tail.iter().any(|line| line.contains("signal 9") || line.contains("SIGKILL")),
        }
    }

    /// Returns how many processes the kernel has killed because of low memory since the machine started.
    fn oom_kills() -> Option<u64> {
        let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
        counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Waits a moment for the other processes that were killed with a program: as long as one has a file open, the disk
    /// does not get its space back. They are not our children, so no system call waits for them. In a container they
    /// may stay as zombies.
    fn wait_for_end_of_group(id: u32) {
        let patience = Instant::now() + GROUP_END_TIME_MAX;
        while is_group_there(id) && Instant::now() < patience {
            std::thread::sleep(GROUP_END_WAIT);
        }
    }

    fn spawn(invocation: &mut Invocation) -> Result<Child, Failure> {
        let mut command = command(invocation);
        command
            .args(&invocation.arguments)
            .envs(invocation.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&invocation.folder)
            .stdin(invocation.stdin.take().map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = command.spawn().map_err(|error| not_started(invocation, error))?;
        #[cfg(target_os = "linux")]
        confine::prefer_for_oom(&child.id().to_string());
        Ok(child)
    }

    fn not_started(invocation: &Invocation, error: std::io::Error) -> Failure {
        Failure::NotStarted { program: invocation.program.to_string_lossy().into_owned(), error }
    }

    /// Returns a command for the program with an empty environment, or for our own program, which becomes it.
    fn command(invocation: &Invocation) -> Command {
        #[cfg(target_os = "linux")]
        if !invocation.confined_to.is_empty() {
            return confine::confined_command(&invocation.program, &invocation.confined_to);
        }
        #[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
        let mut command = Command::new(&invocation.program);
        command.env_clear();
        command
    }

    /// Starts the threads that read the two streams and wait for the end. Returns the two pipes, to check them for
    /// unread bytes.
    fn watch(child: &mut Child, events: &SyncSender<Event>) -> std::io::Result<Vec<OwnedFd>> {
        let thread = || std::thread::Builder::new().stack_size(STACK_BYTES);
        let mut pipes = Vec::new();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            pipes = vec![stdout.as_fd().try_clone_to_owned()?, stderr.as_fd().try_clone_to_owned()?];
            let to_stdout = events.clone();
            thread().spawn(move || read(stdout, &to_stdout, Event::Stdout))?;
            let to_stderr = events.clone();
            thread().spawn(move || read(stderr, &to_stderr, Event::Stderr))?;
        }
        let to_end = events.clone();
        let id = child.id();
        thread().spawn(move || {
            if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                // The child is not reaped here: the id of a reaped child, and of its group, may be given to another
                // process.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
            }
            let _ = to_end.send(Event::Ended);
        })?;
        Ok(pipes)
    }

    fn read(mut stream: impl Read, events: &SyncSender<Event>, wrap: fn(Vec<u8>) -> Event) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match stream.read(&mut chunk) {
                Ok(length) => {
                    if events.send(wrap(chunk[..length].to_vec())).is_err() || length == 0 {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // After an error, the end of the stream is never reported, so captured output counts as cut off.
                Err(_) => return,
            }
        }
    }

    /// Takes events until the program has ended. Ends it if its time is over, its output cannot be taken, or the disk
    /// is nearly full.
    fn follow(
        events: &Receiver<Event>,
        deadline: &Deadline,
        volume: Option<&Volume>,
        output: &mut Output<'_>,
        id: u32,
    ) -> Result<(), Failure> {
        let mut look = Instant::now();
        loop {
            let wait = match deadline.next_wait() {
                Ok(wait) => wait.min(VOLUME_POLL_INTERVAL),
                Err(expired) => return Err(end_early(events, output, id, Failure::Expired(expired))),
            };
            if let Some(volume) = volume.filter(|_| look <= Instant::now()) {
                look = Instant::now() + VOLUME_POLL_INTERVAL;
                if let Err(error) = volume.check() {
                    let failure = Failure::NoSpace { command: output.command.clone(), error };
                    return Err(end_early(events, output, id, failure));
                }
            }
            match events.recv_timeout(wait) {
                Ok(Event::Ended) => return Ok(()),
                Ok(event) => {
                    if let Err(failure) = output.take(event) {
                        return Err(end_early(events, output, id, failure));
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Asks the group to end, and gives it a moment to remove its lock files. The caller kills what is left.
    fn end_early(events: &Receiver<Event>, output: &mut Output<'_>, id: u32, failure: Failure) -> Failure {
        signal_group(id, Signal::TERM);
        let patience = Instant::now() + TERM_GRACE;
        while let Ok(event) = events.recv_timeout(patience.saturating_duration_since(Instant::now())) {
            if matches!(event, Event::Ended) {
                break;
            }
            let _ = output.take(event);
        }
        failure
    }

    /// Takes what is still in the pipes. A descendant that left the group could hold them open forever, so the wait is
    /// limited. Lines may then be incomplete; captured content may not.
    fn drain(events: &Receiver<Event>, output: &mut Output<'_>, pipes: &[OwnedFd]) -> Result<(), Failure> {
        let begun = Instant::now();
        while output.is_open.contains(&true) {
            let lacks_content = output.is_open[0] && !matches!(output.form, Stdout::Lines);
            let left = DRAIN_TIME_MAX.saturating_sub(begun.elapsed());
            match events.recv_timeout(left.min(QUIET_TIME_MAX)) {
                Ok(event) if !left.is_zero() => output.take(event)?,
                Err(_) if !left.is_zero() && (lacks_content || are_full(pipes)) => {}
                _ if lacks_content => return Err(Failure::CutOff { command: output.command.clone() }),
                _ => break,
            }
        }
        Ok(())
    }

    /// Returns whether one of the pipes has unread bytes.
    fn are_full(pipes: &[OwnedFd]) -> bool {
        pipes.iter().any(|pipe| rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0))
    }
}

#[cfg(not(unix))]
mod platform {
    use super::{Deadline, Failure, Finished, Invocation, Redactor};

    #[expect(clippy::needless_pass_by_value, reason = "the same shape as on Unix")]
    pub(super) fn run(
        invocation: Invocation,
        _: &Deadline,
        _: &Redactor,
        _: &mut dyn FnMut(&str),
    ) -> Result<Finished, Failure> {
        let program = invocation.program.to_string_lossy().into_owned();
        Err(Failure::NotStarted { program, error: std::io::ErrorKind::Unsupported.into() })
    }
}
