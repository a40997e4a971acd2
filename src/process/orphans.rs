//! Ends programs that a killed run left behind. A marker in their environment identifies them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process};

use crate::process::run::TERM_GRACE;

/// The variable that marks all programs of a run, and their descendants, as ours. It names the process that started
/// them, and the lock.
pub const MARKER: &str = "WINDMILL_GIT_SYNC_RUN";
/// How long to wait for a killed program.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// How often to check whether programs are gone.
const END_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How many times programs are searched for and killed. A program may start another while it is being ended; one that
/// does so again and again is not chased forever.
const SEARCHES_MAX: u32 = 10;

/// The process that started a program, in a form that a later process can check, and the path of the lock.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Marker {
    /// The namespace of the process ids. In another namespace the ids belong to other processes.
    namespace: String,
    owner: u32,
    owner_start: u64,
    pub(super) path: PathBuf,
}

impl Marker {
    /// Returns the marker of a program that we start under the lock at `path`; `None` if `/proc` does not show who we
    /// are.
    pub(super) fn own(path: &Path) -> Option<Self> {
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        let owner = std::process::id();
        Some(Self { namespace, owner, owner_start: process_start(owner)?, path: path.to_owned() })
    }

    pub(super) fn to_text(&self) -> String {
        format!("{} {} {} {}", self.namespace, self.owner, self.owner_start, self.path.display())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, ' ');
        let namespace = fields.next()?.to_owned();
        let (owner, owner_start) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { namespace, owner, owner_start, path: fields.next()?.into() })
    }

    /// Reads the marker in a process's environment.
    fn of_process(id: u32) -> Option<Self> {
        let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|variable| {
            Self::parse(std::str::from_utf8(variable).ok()?.strip_prefix(MARKER)?.strip_prefix('=')?)
        })
    }
}

/// Ends the programs that a service that no longer exists left running under the lock at `path`.
///
/// Checks only processes of our own pid namespace: a container's processes end with it.
pub(super) fn end_orphans(path: &Path) {
    let Some(own) = Marker::own(path) else { return };
    let is_orphan = |marker: &Marker| {
        marker.namespace == own.namespace
            && marker.path == own.path
            && process_start(marker.owner) != Some(marker.owner_start)
    };
    let orphans = programs(is_orphan);
    for id in &orphans {
        log::warn!("asking process {id} to end, which a killed run left behind");
        end(*id, false);
    }
    wait_while(TERM_GRACE, || are_there(&orphans));
    end_programs(is_orphan);
}

/// Waits for at most `patience` until the processes that `are_there` looks for are gone. They are not our children, so no
/// system call waits for them.
pub(super) fn wait_while(patience: Duration, are_there: impl Fn() -> bool) {
    let patience = Instant::now() + patience;
    while are_there() && Instant::now() < patience {
        std::thread::sleep(END_POLL_INTERVAL);
    }
}

fn are_there(programs: &[u32]) -> bool {
    programs.iter().any(|id| process_start(*id).is_some())
}

/// Returns a git process that works on `folder` and that our runs did not start: the caller holds the lock, so no other
/// run has a program there.
#[must_use]
pub fn git_at_work_in(folder: &Path) -> Option<u32> {
    let folder = folder.canonicalize().ok()?;
    let is_there = |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(&folder));
    processes().find(|id| {
        let process = PathBuf::from(format!("/proc/{id}"));
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        let program = Path::new(command.split('\0').next().unwrap_or_default()).file_name();
        let is_git = program.is_some_and(|name| name.to_string_lossy().starts_with("git"));
        is_git
            && (command.contains(&*folder.to_string_lossy())
                || is_there(process.join("cwd"))
                || std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten().any(|fd| is_there(fd.path())))
    })
}

fn processes() -> impl Iterator<Item = u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills all programs that this process started for its runs, in any process group.
pub fn end_all_programs() {
    let Some(own) = Marker::own(Path::new("")) else { return };
    end_programs(|marker| Marker { path: PathBuf::new(), ..marker.clone() } == own);
}

/// Returns the processes whose marker `is_meant` accepts, without this process.
pub(super) fn programs(is_meant: impl Fn(&Marker) -> bool) -> Vec<u32> {
    let is_meant = |id: &u32| *id != std::process::id() && Marker::of_process(*id).is_some_and(|it| is_meant(&it));
    processes().filter(is_meant).collect()
}

/// Kills the programs whose marker `is_meant` accepts, including those that they start in the meantime.
pub(super) fn end_programs(is_meant: impl Fn(&Marker) -> bool) {
    for _ in 0..SEARCHES_MAX {
        let meant = programs(&is_meant);
        if meant.is_empty() {
            return;
        }
        for id in &meant {
            log::warn!("ending process {id}, which a run left behind");
            end(*id, true);
        }
        wait_while(KILL_GRACE, || are_there(&meant));
    }
}

/// Kills a process, or asks it to end. Does nothing if the process is gone.
fn end(id: u32, is_killed: bool) {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, if is_killed { Signal::KILL } else { Signal::TERM });
    }
    #[cfg(not(unix))]
    let _ = (id, is_killed);
}

/// Returns when the process `id` started, in the kernel's ticks; `None` if there is no such process, if it is a zombie,
/// or if `/proc` does not show it. Together with the pid it identifies a process, since pids are reused.
fn process_start(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything, so count from the last `)`.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}
