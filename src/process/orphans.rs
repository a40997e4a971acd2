//! Ends programs that a killed run left behind. A marker in their environment identifies them.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process};

use crate::process::run::TERM_GRACE;
use crate::util::wait_while;

/// The variable that marks all programs of a run, and their descendants, as ours. It names the process that started
/// them, and the lock.
pub const MARKER: &str = "WINDMILL_GIT_SYNC_RUN";
/// How long to wait for a killed program.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// How many times programs are searched for and killed. A program may start another while it is being ended; one that
/// does so again and again is not chased forever.
const SEARCHES_MAX: u32 = 10;

/// Returns the marker of a program that we start under the lock at `path`, or `None` if `/proc` does not show who we
/// are: the namespace of our process id, that id, when we started, and the path. In another namespace, the id belongs
/// to another process.
pub(super) fn own_marker(path: &Path) -> Option<String> {
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let owner = std::process::id();
    Some(format!("{} {owner} {} {}", namespace.display(), process_start(owner)?, path.display()))
}

/// Reads the marker in a process's environment.
fn marker_of(id: u32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    variables.find_map(|variable| Some(variable.strip_prefix(MARKER)?.strip_prefix('=')?.to_owned()))
}

/// Ends the programs that a service that no longer exists left running under the lock at `path`.
///
/// Checks only processes of our own pid namespace: a container's processes end with it.
pub(super) fn end_orphans(path: &Path) {
    let Some(own) = own_marker(path) else { return };
    let own_namespace = own.split(' ').next();
    end_programs(TERM_GRACE, |marker| {
        let mut fields = marker.splitn(4, ' ');
        let [namespace, owner, start, lock] = [(); 4].map(|()| fields.next());
        let owner_start = owner.and_then(|owner| process_start(owner.parse().ok()?)).map(|start| start.to_string());
        namespace == own_namespace && lock.map(Path::new) == Some(path) && owner_start.as_deref() != start
    });
}

/// Returns a git process that works on `folder` and that our runs did not start: the caller holds the lock, so no other
/// run has a program there.
pub fn git_at_work_in(folder: &Path) -> Option<u32> {
    let folder = folder.canonicalize().ok()?;
    let is_inside = |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(&folder));
    processes().find(|id| {
        let process = PathBuf::from(format!("/proc/{id}"));
        let read =
            |name: &str| String::from_utf8_lossy(&std::fs::read(process.join(name)).unwrap_or_default()).into_owned();
        read("comm").starts_with("git")
            && (read("cmdline").contains(&*folder.to_string_lossy())
                || is_inside(process.join("cwd"))
                || std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten().any(|fd| is_inside(fd.path())))
    })
}

fn processes() -> impl Iterator<Item = u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills all programs that this process started for its runs, in any process group.
pub fn end_all_programs() {
    let Some(own) = own_marker(Path::new("")) else { return };
    end_programs(Duration::ZERO, |marker| marker.starts_with(&own));
}

/// Kills the programs with a marker for which `accepts` is true, including those that they start in the meantime. With
/// a `grace`, they are first asked to end in that time.
pub(super) fn end_programs(grace: Duration, accepts: impl Fn(&str) -> bool) {
    for search in 0..SEARCHES_MAX {
        let is_accepted = |id: &u32| *id != std::process::id() && marker_of(*id).is_some_and(|marker| accepts(&marker));
        let found: Vec<_> = processes().filter(is_accepted).collect();
        if found.is_empty() {
            return;
        }
        let is_asked = search == 0 && !grace.is_zero();
        for id in &found {
            log::warn!("ending process {id}, which a run left behind");
            #[cfg(unix)]
            if let Some(pid) = i32::try_from(*id).ok().and_then(Pid::from_raw) {
                // It fails if the process is gone.
                let _ = kill_process(pid, if is_asked { Signal::TERM } else { Signal::KILL });
            }
        }
        let is_running = || found.iter().any(|id| process_start(*id).is_some());
        wait_while(if is_asked { grace } else { KILL_GRACE }, is_running);
    }
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
