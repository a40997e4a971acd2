//! Programs with a deadline. Each runs in its own process group, which is killed as a whole when the deadline passes.
//! So a test that fails ends, says so, and leaves nothing behind.

use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits. It is longer than any step takes on a busy machine, and shorter than the pauses of 600
/// seconds and more with which tests show that something is not waited for.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// How often a condition is checked that sends no notification.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Checks until `condition` returns a value. Panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, condition)
}

/// Like [`eventually`], with another limit, for what takes longer.
#[track_caller]
pub fn eventually_within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", patience.as_secs());
        thread::sleep(LOOK_AGAIN);
    }
}

/// Checks each case on its own thread, for cases that mostly wait.
pub fn side_by_side<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        let check = &check;
        let started: Vec<_> = cases.iter().map(|case| scope.spawn(move || check(case))).collect();
        let failed = started.into_iter().filter_map(|case| case.join().err()).last();
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A program that has ended.
pub struct Finished {
    /// The program and its arguments, for messages.
    pub command: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Finished {
    pub fn success(&self) -> bool {
        self.status.success()
    }

    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Returns itself if the program succeeded. Panics with all its output if not.
    #[track_caller]
    pub fn must_succeed(self) -> Self {
        assert!(self.success(), "{self}");
        self
    }

    /// Returns itself if the program failed. Panics with all its output if not.
    #[track_caller]
    pub fn must_fail(self) -> Self {
        assert!(!self.success(), "{self}");
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.status,
            self.stdout_text(),
            self.stderr_text()
        )
    }
}

/// A started program, whose output is collected as it comes. When dropped, it is killed with its whole group.
pub struct Started {
    command: String,
    child: Child,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

/// Starts `command` with null stdin and captured output.
#[track_caller]
pub fn start(command: Command) -> Started {
    start_with_input(command, Vec::new())
}

/// Like [`start`], with input.
#[track_caller]
pub fn start_with_input(mut command: Command, input: Vec<u8>) -> Started {
    let shown = shown(&command);
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{shown}`: {error}"));
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends before it has read everything says why in its exit status.
        thread::spawn(move || pipe.write_all(&input));
    }
    let stdout = gather(child.stdout.take().unwrap());
    let stderr = gather(child.stderr.take().unwrap());
    Started { command: shown, child, stdout, stderr }
}

impl Started {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end. Kills the group and panics when `deadline` passes.
    #[track_caller]
    pub fn finish_within(mut self, deadline: Duration) -> Finished {
        // If `is_running` finds that the child has ended, it reaps the child, which then has no process left.
        let has_ended = !self.is_running();
        if !has_ended && !ends_within(self.child.id(), deadline) {
            let finished = self.killed();
            panic!("killed after {} s: {finished}", deadline.as_secs());
        }
        let status = self.child.wait().unwrap();
        self.collect(status)
    }

    /// Kills the whole group and returns its output so far.
    pub fn killed(mut self) -> Finished {
        kill_group(self.child.id());
        let status = self.child.wait().unwrap();
        self.collect(status)
    }

    fn collect(&mut self, status: ExitStatus) -> Finished {
        // A grandchild that escaped the group may hold a pipe open. The output until then is enough.
        let rest = Duration::from_secs(10);
        Finished {
            command: self.command.clone(),
            status,
            stdout: self.stdout.recv_timeout(rest).unwrap_or_default(),
            stderr: self.stderr.recv_timeout(rest).unwrap_or_default(),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // After a child is reaped, another process may have its pid.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(self.child.id());
            let _ = self.child.wait();
        }
    }
}

/// Returns true if a child that is not reaped ends in this time. The kernel reports the moment, so a child that ends
/// early is seen early.
fn ends_within(pid: u32, time: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, pidfd_open};
    let ends = Instant::now() + time;
    let descriptor = pidfd_open(pid_of(pid).unwrap(), PidfdFlags::empty()).unwrap();
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        let left_at_most = Timespec::try_from(left).unwrap();
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left_at_most)) {
            Ok(0) => return false,
            Ok(_) => return true,
            // A signal interrupted the call.
            Err(error) => assert_eq!(error, rustix::io::Errno::INTR),
        }
    }
}

/// Runs `command` to its end, for at most [`PATIENCE`].
#[track_caller]
pub fn run(command: Command) -> Finished {
    start(command).finish_within(PATIENCE)
}

/// Like [`run`], with input.
#[track_caller]
pub fn run_with_input(command: Command, input: Vec<u8>) -> Finished {
    start_with_input(command, input).finish_within(PATIENCE)
}

/// Sends SIGKILL to a process group whose leader has not been reaped.
pub fn kill_group(leader: u32) {
    signal_group(leader, rustix::process::Signal::KILL);
}

fn signal_group(leader: u32, signal: rustix::process::Signal) {
    if let Some(pid) = pid_of(leader) {
        // It is not an error if the group has already ended.
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn pid_of(pid: u32) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)
}

fn gather(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// Shows a text even if the test succeeds, when the test runner hides the output of `println!`.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

/// Returns the program and its arguments, but not the environment, because it holds the secrets.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Finds the program `name` on the `PATH` or in the folders of `also`.
pub fn find_program(name: &str, also: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(also.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Returns a command whose environment has only `PATH` and the locale.
pub fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C");
    command
}

/// A process, as `/proc` shows it to all users (arguments) and to its owner (environment).
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
}

/// Returns all processes below `ancestor`, including itself, as `/proc` shows them now.
pub fn processes_below(ancestor: u32) -> Vec<Process> {
    let all = all_processes();
    let mut found: Vec<Process> = all.iter().filter(|p| p.pid == ancestor).cloned().collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next].pid;
        found.extend(all.iter().filter(|p| p.parent == parent).cloned());
        next += 1;
    }
    found
}

/// Returns all processes with this text in their environment, also if their parent has changed.
pub fn processes_with_environment(needle: &str) -> Vec<Process> {
    let has = |process: &Process| process.environment.iter().any(|variable| variable.contains(needle));
    all_processes().into_iter().filter(has).collect()
}

fn all_processes() -> Vec<Process> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .collect()
}

fn process(pid: u32) -> Option<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    let strings = |name: &str| -> Vec<String> {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_default();
        bytes
            .split(|byte| *byte == 0)
            .filter(|part| !part.is_empty())
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect()
    };
    Some(Process { pid, parent, arguments: strings("cmdline"), environment: strings("environ") })
}
