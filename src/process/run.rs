//! Runs one program under a deadline: own process group, clean environment, bounded output, secrets scrubbed from
//! what it printed, the whole group gone at the end. The only module that starts programs; it does not know which.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::deadline::{Deadline, Expired};
use crate::scrubber::Scrubber;

/// Whether programs can be started here. No platform but Unix has the process groups that make a deadline sure; WASI has
/// no processes at all.
pub const CAN_START: bool = cfg!(unix);

/// How long programs may take to end when they are asked to: git removes its lock files then.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// A program to run, with all that it gets to see.
///
/// `Display` gives the command as one would type it. The environment is never shown: it holds secrets.
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing is started there"))]
    folder: PathBuf,
    stdin: Option<File>,
    stdout: Stdout,
}

enum Stdout {
    /// Lines, like those of stderr.
    Lines,
    /// Bytes, at most so many.
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing is started there"))]
    Bytes { max: usize },
    /// A file, with at most so many bytes.
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing is started there"))]
    File { file: File, max: usize },
}

impl Invocation {
    /// `program` (looked up in the `PATH` that [`Invocation::environment`] gives it) run in `folder`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.to_owned(),
            stdin: None,
            stdout: Stdout::Lines,
        }
    }

    /// Adds one argument. Arguments are readable by every process: never a secret.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::argument)
    }

    /// Sets a variable; the program sees no others than those set here.
    #[must_use]
    pub fn environment(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives it a file to read; without one its input is null.
    #[must_use]
    pub fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Takes its standard output as bytes, at most `max`, instead of as lines.
    #[must_use]
    pub fn capture(mut self, max: usize) -> Self {
        self.stdout = Stdout::Bytes { max };
        self
    }

    /// Puts its standard output into a file, at most `max` bytes of it.
    #[must_use]
    pub fn write_to(mut self, file: File, max: usize) -> Self {
        self.stdout = Stdout::File { file, max };
        self
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", Path::new(&self.program).display())?;
        for argument in &self.arguments {
            let text = argument.to_string_lossy();
            if text.is_empty()
                || text.contains(|character: char| character.is_whitespace() || "'\"$*".contains(character))
            {
                write!(formatter, " {text:?}")?;
            } else {
                write!(formatter, " {text}")?;
            }
        }
        Ok(())
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exit(i32),
    /// Killed by this signal; 9 without a cause of ours is mostly the kernel, for want of memory.
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

/// What a program that ended by itself left behind.
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// Its captured standard output; empty where that was taken as lines.
    pub stdout: Vec<u8>,
    /// The last lines that it printed, without colours, control characters and secrets.
    pub tail: Vec<String>,
}

impl Finished {
    /// Whether it exited with 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.ending == Ending::Exit(0)
    }

    /// The last lines as one text.
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
    /// It printed more than was asked for and was killed.
    TooMuchOutput {
        /// The command.
        command: String,
        /// The bound.
        bytes_max: usize,
    },
    /// It ended, and the end of what it printed did not come.
    CutOff {
        /// The command.
        command: String,
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
            Self::Expired(Expired::Interrupted) => formatter.write_str("the service is ending"),
            Self::TooMuchOutput { command, bytes_max } => {
                write!(formatter, "`{command}` printed more than {bytes_max} bytes")
            }
            Self::CutOff { command } => {
                write!(
                    formatter,
                    "`{command}` ended, and what it printed did not: something that it started holds it open"
                )
            }
            Self::NotWritten { command, error } => write!(formatter, "cannot write what `{command}` printed: {error}"),
        }
    }
}

/// One printed line as text: colours and other escape sequences removed, control characters replaced.
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
        } else if character.is_control() {
            clean.push(if character == '\t' { ' ' } else { '\u{fffd}' });
        } else {
            clean.push(character);
        }
    }
    clean.trim_end().to_owned()
}

/// Runs `invocation` to its end, or to the deadline's.
///
/// Every line that it prints goes to `on_line` as it comes. When this returns, no process of its group is left.
///
/// # Errors
/// [`Failure`] where the program did not end by itself. A program that ended with another code than 0 is no error
/// here: what that means is for the caller to say.
pub fn run(
    invocation: Invocation,
    deadline: &Deadline,
    scrubber: &Scrubber,
    on_line: &mut dyn FnMut(&str),
) -> Result<Finished, Failure> {
    log::debug!("running {invocation}");
    platform::run(invocation, deadline, scrubber, on_line)
}

#[cfg(unix)]
pub use platform::{become_program, forbid_core_files, kill, process_start, terminate};

#[cfg(unix)]
mod platform {
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use rustix::process::{
        Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, setrlimit, waitid,
    };

    use crate::mailbox::Mailbox;

    use super::{Deadline, Ending, Failure, Finished, Invocation, Scrubber, Stdout, TERM_GRACE, clean_line};

    /// How long output is awaited after the program's end. Its last bytes wait in the pipe, in our own threads and for the
    /// disk, on a machine that may be busy.
    const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
    /// How long nothing may come of lines, and be in no pipe, until nothing is expected any more: a descendant that left
    /// the group holds it open.
    const QUIET_TIME_MAX: Duration = Duration::from_secs(1);
    /// Chunks in flight; a flood of output blocks the program, not our memory.
    const CHUNKS_MAX: usize = 4;
    const CHUNK_BYTES: usize = 16 * 1024;
    /// Lines of a program's output that are kept for messages.
    const TAIL_LINES_MAX: usize = 40;
    /// A longer line is cut; a program that prints no line end at all must not fill the memory.
    const LINE_BYTES_MAX: usize = 4096;
    /// The threads only read and wait.
    const STACK_BYTES: usize = 64 * 1024;

    enum Event {
        /// What the program printed; nothing at the stream's end.
        Stdout(Vec<u8>),
        /// The same of its standard error.
        Stderr(Vec<u8>),
        /// The program ended; it is not reaped yet.
        Ended,
    }

    /// Lines as they come, cleaned for logs: no colours, no control characters, no secrets, no endless line.
    struct Lines<'a> {
        pending: Vec<u8>,
        is_cut: bool,
        scrubber: &'a Scrubber,
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
                on_line(if is_cut { self.scrubber.scrub_cut(&line) } else { self.scrubber.scrub(&line) });
            }
        }
    }

    pub(super) fn run(
        mut invocation: Invocation,
        deadline: &Deadline,
        scrubber: &Scrubber,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Finished, Failure> {
        deadline.remaining().map_err(Failure::Expired)?;
        let mut child = spawn(&mut invocation)?;
        let events = Arc::new(Mailbox::new(CHUNKS_MAX));
        let watched = watch(&mut child, &events);
        let mut output = Output::new(&mut invocation, scrubber, on_line);
        let followed = match watched {
            Ok(pipes) => follow(&events, deadline, &mut output, child.id()).map(|()| pipes),
            Err(error) => Err(Failure::NotStarted { program: invocation.to_string(), error }),
        };
        // Descendants that outlived the program must not write on. Until it is reaped, its group's id is its own.
        signal_group(child.id(), Signal::KILL);
        let status = child.wait();
        let followed = followed.and_then(|pipes| drain(&events, &mut output, &pipes));
        events.close();
        followed?;
        let status = status.map_err(|error| Failure::NotStarted { program: invocation.to_string(), error })?;
        output.finish(status)
    }

    fn spawn(invocation: &mut Invocation) -> Result<Child, Failure> {
        #[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
        let mut command = Command::new(&invocation.program);
        command
            .args(&invocation.arguments)
            .env_clear()
            .envs(invocation.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&invocation.folder)
            .stdin(invocation.stdin.take().map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command.spawn().map_err(|error| {
            let program = invocation.program.to_string_lossy().into_owned();
            Failure::NotStarted { program, error }
        })
    }

    /// Starts the threads that read the two streams and wait for the end; the two pipes, to look into.
    fn watch(child: &mut Child, events: &Arc<Mailbox<Event>>) -> std::io::Result<Vec<OwnedFd>> {
        let thread = || std::thread::Builder::new().stack_size(STACK_BYTES);
        let mut pipes = Vec::new();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            pipes = vec![stdout.as_fd().try_clone_to_owned()?, stderr.as_fd().try_clone_to_owned()?];
            let to_stdout = Arc::clone(events);
            thread().spawn(move || read(stdout, &to_stdout, Event::Stdout))?;
            let to_stderr = Arc::clone(events);
            thread().spawn(move || read(stderr, &to_stderr, Event::Stderr))?;
        }
        let to_end = Arc::clone(events);
        let id = child.id();
        thread().spawn(move || {
            if let Some(pid) = pid(id) {
                // Not reaped here: a reaped child's id, and its group's, may be given to another process.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
            }
            to_end.put(Event::Ended);
        })?;
        Ok(pipes)
    }

    fn read(mut stream: impl Read, events: &Mailbox<Event>, wrap: fn(Vec<u8>) -> Event) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match stream.read(&mut chunk) {
                Ok(length) => {
                    if !events.put(wrap(chunk[..length].to_vec())) || length == 0 {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Then its end is never seen.
                Err(_) => return,
            }
        }
    }

    /// Takes events until the program has ended; ends it when its time is over.
    fn follow(events: &Mailbox<Event>, deadline: &Deadline, output: &mut Output<'_>, id: u32) -> Result<(), Failure> {
        loop {
            let wait = match deadline.next_wait() {
                Ok(wait) => wait,
                Err(expired) => return Err(end_early(events, output, id, Failure::Expired(expired))),
            };
            match events.take(wait) {
                Some(Event::Ended) => return Ok(()),
                Some(event) => {
                    if let Err(failure) = output.take(event) {
                        return Err(end_early(events, output, id, failure));
                    }
                }
                None => {}
            }
        }
    }

    /// Asks the group to end, and gives it a moment to remove its lock files. The caller kills what is left.
    fn end_early(events: &Mailbox<Event>, output: &mut Output<'_>, id: u32, failure: Failure) -> Failure {
        signal_group(id, Signal::TERM);
        let patience = Instant::now() + TERM_GRACE;
        while let Some(event) = events.take(patience.saturating_duration_since(Instant::now())) {
            if matches!(event, Event::Ended) {
                break;
            }
            let _ = output.take(event);
        }
        failure
    }

    /// Takes what is still in the pipes; a descendant that left the group could hold them open for ever. Lines may lack
    /// their end then; content may not.
    fn drain(events: &Mailbox<Event>, output: &mut Output<'_>, pipes: &[OwnedFd]) -> Result<(), Failure> {
        let begun = Instant::now();
        while output.is_open.contains(&true) {
            let lacks_content = output.is_open[0] && !matches!(output.form, Stdout::Lines);
            let left = DRAIN_TIME_MAX.saturating_sub(begun.elapsed());
            match events.take(left.min(QUIET_TIME_MAX)) {
                Some(event) if !left.is_zero() => output.take(event)?,
                None if !left.is_zero() && (lacks_content || are_full(pipes)) => {}
                _ if lacks_content => return Err(Failure::CutOff { command: output.command.clone() }),
                _ => break,
            }
        }
        Ok(())
    }

    /// Whether there is something in one of them that nobody has read yet.
    fn are_full(pipes: &[OwnedFd]) -> bool {
        pipes.iter().any(|pipe| rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0))
    }

    struct Output<'a> {
        stdout: Vec<u8>,
        form: Stdout,
        written: usize,
        command: String,
        lines: [Lines<'a>; 2],
        tail: VecDeque<String>,
        on_line: &'a mut dyn FnMut(&str),
        /// Standard output, and standard error.
        is_open: [bool; 2],
    }

    impl<'a> Output<'a> {
        fn new(invocation: &mut Invocation, scrubber: &'a Scrubber, on_line: &'a mut dyn FnMut(&str)) -> Self {
            let lines = || Lines { pending: Vec::new(), is_cut: false, scrubber };
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

        fn take(&mut self, event: Event) -> Result<(), Failure> {
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

        fn finish(mut self, status: std::process::ExitStatus) -> Result<Finished, Failure> {
            self.lines(0, None);
            self.lines(1, None);
            let ending = match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exit(code),
                (None, signal) => Ending::Signal(signal.unwrap_or(0)),
            };
            Ok(Finished { ending, stdout: self.stdout, tail: self.tail.into() })
        }
    }

    fn pid(id: u32) -> Option<Pid> {
        Pid::from_raw(i32::try_from(id).ok()?)
    }

    fn signal_group(id: u32, signal: Signal) {
        if let Some(pid) = pid(id) {
            // It fails when nothing of the group is left, which is what is wanted.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Lets neither this process nor a program that it starts leave a core file, since there would be secrets in it.
    pub fn forbid_core_files() {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        if let Err(error) = setrlimit(Resource::Core, none) {
            log::warn!("cannot forbid core files: {error}");
        }
    }

    /// Becomes another program, with the environment that this one has. It returns only where that fails.
    pub fn become_program(program: &str, arguments: impl IntoIterator<Item = std::ffi::OsString>) -> std::io::Error {
        #[expect(clippy::disallowed_methods, reason = "the one module that starts programs")]
        Command::new(program).args(arguments).exec()
    }

    /// Kills a process that an earlier run left behind.
    pub fn kill(id: u32) {
        signal_process(id, Signal::KILL);
    }

    /// Asks such a process to end.
    pub fn terminate(id: u32) {
        signal_process(id, Signal::TERM);
    }

    fn signal_process(id: u32, signal: Signal) {
        if let Some(pid) = pid(id) {
            // It fails where the process is gone, which is what is wanted.
            let _ = kill_process(pid, signal);
        }
    }

    /// When the process `id` started, in the kernel's ticks; `None` where there is no such process, where it is a
    /// zombie, or where `/proc` does not tell. With the id it names a process for good, since ids are given anew.
    #[must_use]
    pub fn process_start(id: u32) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold anything, so count from the last one.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
    }
}

#[cfg(not(unix))]
mod platform {
    use super::{Deadline, Failure, Finished, Invocation, Scrubber};

    #[expect(clippy::needless_pass_by_value, reason = "the same shape as on Unix")]
    pub(super) fn run(
        invocation: Invocation,
        _: &Deadline,
        _: &Scrubber,
        _: &mut dyn FnMut(&str),
    ) -> Result<Finished, Failure> {
        let program = invocation.program.to_string_lossy().into_owned();
        Err(Failure::NotStarted { program, error: std::io::ErrorKind::Unsupported.into() })
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

    #[test]
    fn a_command_is_shown_as_typed_and_without_its_environment() {
        let invocation =
            Invocation::new("git", Path::new("/")).arguments(["push", "--", "a b", ""]).environment("TOKEN", "hunter2");
        assert_eq!(invocation.to_string(), "git push -- \"a b\" \"\"");
    }
}
