//! One sync of a workspace at a time, across all processes that share a data folder.
//!
//! The lock is the kernel's, on a file that stays empty. Every program of a run gets that file as its standard input,
//! so that an orphan of a killed service goes on holding the lock; whoever waits ends such orphans.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::deadline::{Deadline, Expired};
use crate::scratch;
use crate::subprocess::TERM_GRACE;

/// Variable that marks all programs of a run, and their descendants, as ours: who started them, under which lock.
pub const MARKER: &str = "WINDMILL_GIT_SYNC_RUN";
/// A file lock has no wait with a time-out, so it is tried this often.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How long a killed one is waited for.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// How often it is looked whether they are gone.
const END_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Looking for orphans reads every process of the machine, so it is done at each of so many tries only.
const TRIES_PER_ORPHAN_SEARCH: u32 = 20;
/// A program may start another while it is being ended; one that does so again and again is not chased for ever.
const SEARCHES_MAX: u32 = 10;

/// The lock of a workspace, held until it is dropped and the last program that got it as its input has ended.
pub struct Lock {
    file: File,
    marker: Option<Marker>,
}

/// Why the lock was not got.
#[derive(Debug)]
pub enum LockError {
    /// Another sync held it for too long, or the process is ending.
    Expired(Expired),
    /// The file cannot be opened or locked.
    Io(io::Error),
}

impl Lock {
    /// Waits for the lock at `path`; `on_busy` is told once where somebody has it.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(path: &Path, deadline: &Deadline, on_busy: &mut dyn FnMut()) -> Result<Self, LockError> {
        // An empty folder in its place holds nothing.
        let _ = std::fs::remove_dir(path);
        let file = scratch::open_file(path, false).map_err(LockError::Io)?;
        let path = path.canonicalize().map_err(|error| LockError::Io(scratch::at(path, &error)))?;
        for attempt in 0_u32.. {
            // The last try comes after the end of the time, which it may have taken to end orphans.
            let wait = deadline.next_wait();
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    if attempt == 0 {
                        on_busy();
                    }
                    if attempt.is_multiple_of(TRIES_PER_ORPHAN_SEARCH) {
                        end_orphans(&path);
                    }
                    std::thread::sleep(wait.map_err(LockError::Expired)?.min(RETRY_INTERVAL));
                }
                Err(TryLockError::Error(error)) => return Err(LockError::Io(scratch::at(&path, &error))),
            }
        }
        // It is the input of every program, so it has to be empty.
        let _ = file.set_len(0);
        // A descendant of an orphan may have closed its input, and thereby the lock, and still be writing.
        end_orphans(&path);
        let marker = Marker::own(&path);
        Ok(Self { file, marker })
    }

    /// The lock at `path`, where neither a run has it nor a program that a killed one left behind.
    #[must_use]
    pub fn acquire_if_free(path: &Path) -> Option<Self> {
        let file = scratch::open_file(path, false).ok()?;
        file.try_lock().ok()?;
        let path = path.canonicalize().ok()?;
        programs(|marker| marker.path == path).is_empty().then_some(Self { file, marker: None })
    }

    /// The lock as the standard input of a program: empty, and held as long as that program lives.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn as_input(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The value of [`MARKER`] for the programs of this run.
    #[must_use]
    pub fn marker(&self) -> String {
        self.marker.as_ref().map(Marker::to_text).unwrap_or_default()
    }

    /// Kills what programs of this run have left behind. A descendant that went to another group is not killed with
    /// them, and holds the lock for as long as it lives.
    pub fn end_programs(&self) {
        if let Some(own) = &self.marker {
            end_programs(|marker| marker == own);
        }
    }
}

/// Who started a program, as a later process can check it, and under which lock.
#[derive(Clone, PartialEq, Eq)]
struct Marker {
    /// Of process ids; elsewhere the ids mean something else.
    namespace: String,
    owner: u32,
    owner_start: u64,
    path: PathBuf,
}

impl Marker {
    /// Of a program that we start under the lock at `path`; `None` where `/proc` does not tell who we are.
    fn own(path: &Path) -> Option<Self> {
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        let owner = std::process::id();
        Some(Self { namespace, owner, owner_start: process_start(owner)?, path: path.to_owned() })
    }

    fn to_text(&self) -> String {
        format!("{} {} {} {}", self.namespace, self.owner, self.owner_start, self.path.display())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, ' ');
        let namespace = fields.next()?.to_owned();
        let (owner, owner_start) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { namespace, owner, owner_start, path: fields.next()?.into() })
    }

    /// The marker in a process's environment.
    fn of_process(id: u32) -> Option<Self> {
        let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|variable| {
            Self::parse(std::str::from_utf8(variable).ok()?.strip_prefix(MARKER)?.strip_prefix('=')?)
        })
    }
}

/// Ends what a service that is no longer there has left running under the lock at `path`.
///
/// Only processes of our own pid namespace are judged: a container's processes end with it.
fn end_orphans(path: &Path) {
    let Some(own) = Marker::own(path) else { return };
    let is_orphan = |marker: &Marker| {
        marker.namespace == own.namespace
            && marker.path == own.path
            && process_start(marker.owner) != Some(marker.owner_start)
    };
    ask_to_end(&programs(is_orphan));
    end_programs(is_orphan);
}

/// Asks these processes to end, and gives them a moment.
fn ask_to_end(programs: &[u32]) {
    for id in programs {
        log::warn!("asking process {id} to end, which a killed run left behind");
        terminate(*id);
    }
    wait_for_end(programs, TERM_GRACE);
}

/// Waits until they are gone, for so long.
fn wait_for_end(programs: &[u32], patience: Duration) {
    let patience = Instant::now() + patience;
    while programs.iter().any(|id| process_start(*id).is_some()) && Instant::now() < patience {
        std::thread::sleep(END_POLL_INTERVAL);
    }
}

/// A git that works upon `folder`, started by somebody else than a run of ours; the programs of those hold the lock.
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

/// Kills all programs that this process has started for its runs, whatever group they went to.
pub fn end_all_programs() {
    let Some(own) = Marker::own(Path::new("")) else { return };
    end_programs(|marker| Marker { path: PathBuf::new(), ..marker.clone() } == own);
}

/// The processes with such a marker, without this one.
fn programs(is_meant: impl Fn(&Marker) -> bool) -> Vec<u32> {
    let is_meant = |id: &u32| *id != std::process::id() && Marker::of_process(*id).is_some_and(|it| is_meant(&it));
    processes().filter(is_meant).collect()
}

/// Kills the programs with such a marker, those included that they start meanwhile.
fn end_programs(is_meant: impl Fn(&Marker) -> bool) {
    for _ in 0..SEARCHES_MAX {
        let meant = programs(&is_meant);
        if meant.is_empty() {
            return;
        }
        for id in &meant {
            log::warn!("ending process {id}, which a run left behind");
            kill(*id);
        }
        wait_for_end(&meant, KILL_GRACE);
    }
}

#[cfg(unix)]
use crate::subprocess::{kill, process_start, terminate};

#[cfg(not(unix))]
fn process_start(_: u32) -> Option<u64> {
    None
}

#[cfg(not(unix))]
fn kill(_: u32) {}

#[cfg(not(unix))]
fn terminate(_: u32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::deadline::Interrupt;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(200), &Interrupt::default())
    }

    #[test]
    fn a_lock_is_held_by_one_and_freed_at_its_end() {
        let folder = std::env::current_dir().expect("a working folder").join("target/tmp/lock-test");
        scratch::create_folder(&folder).expect("a folder");
        let path = folder.join(format!("{}.lock", std::process::id()));
        let first = Lock::acquire(&path, &soon(), &mut || {}).expect("the first gets it");
        assert!(matches!(Lock::acquire(&path, &soon(), &mut || {}), Err(LockError::Expired(Expired::TimedOut))));
        let held_by_a_program = first.as_input().expect("a descriptor");
        drop(first);
        assert!(Lock::acquire(&path, &soon(), &mut || {}).is_err(), "a program that lives on holds it");
        drop(held_by_a_program);
        assert!(Lock::acquire(&path, &soon(), &mut || {}).is_ok());
    }
}
