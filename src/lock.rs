//! One sync of a workspace at a time, across all processes that share a data folder.
//!
//! The lock is the kernel's, on a file that stays empty. Every program of a run gets that file as its standard input,
//! so that an orphan of a killed service goes on holding the lock; whoever waits ends such orphans.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::deadline::{Deadline, Expired};
use crate::scratch;

/// Variable that marks all programs of a run, and their descendants, as ours: who started them, under which lock.
pub const MARKER: &str = "WINDMILL_GIT_SYNC_RUN";
/// A file lock has no wait with a time-out, so it is tried this often.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Looking for orphans reads every process of the machine, so it is done at each of so many tries only.
const TRIES_PER_ORPHAN_SEARCH: u32 = 20;

/// The lock of a workspace, held until it is dropped and the last program that got it as its input has ended.
pub struct Lock {
    file: File,
    marker: String,
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
    /// Waits for the lock at `path`.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(path: &Path, deadline: &Deadline) -> Result<Self, LockError> {
        let file = scratch::open_file(path, false).map_err(LockError::Io)?;
        let path = path.canonicalize().map_err(|error| LockError::Io(scratch::at(path, &error)))?;
        for attempt in 0_u32.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    if attempt.is_multiple_of(TRIES_PER_ORPHAN_SEARCH) {
                        end_orphans(&path);
                    }
                    let wait = deadline.next_wait().map_err(LockError::Expired)?;
                    std::thread::sleep(wait.min(RETRY_INTERVAL));
                }
                Err(TryLockError::Error(error)) => return Err(LockError::Io(scratch::at(&path, &error))),
            }
        }
        // A descendant of an orphan may have closed its input, and thereby the lock, and still be writing.
        end_orphans(&path);
        Ok(Self { file, marker: marker(&path) })
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
    pub fn marker(&self) -> &str {
        &self.marker
    }
}

/// Who we are, as a later process can check it: pid namespace, pid, time of start.
fn identity() -> Option<(String, u32, u64)> {
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    let id = std::process::id();
    Some((namespace, id, process_start(id)?))
}

fn marker(path: &Path) -> String {
    let (namespace, id, start) = identity().unwrap_or_default();
    format!("{namespace} {id} {start} {}", path.display())
}

/// Kills what a service that is no longer there has left running under the lock at `path`.
///
/// Only processes of our own pid namespace are judged: elsewhere the ids mean something else, and a container's
/// processes end with it.
fn end_orphans(path: &Path) {
    let Some((namespace, own, _)) = identity() else { return };
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if id != own && is_orphan(&process.path().join("environ"), &namespace, path) {
            log::warn!("ending process {id}, which an earlier run left behind");
            kill(id);
        }
    }
}

fn is_orphan(environment: &PathBuf, namespace: &str, path: &Path) -> bool {
    let Ok(environment) = std::fs::read(environment) else { return false };
    let ours = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix(MARKER)?.strip_prefix('='));
    let Some(ours) = ours else { return false };
    let mut fields = ours.splitn(4, ' ');
    let (Some(its_namespace), Some(owner), Some(start), Some(its_path)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    let (Ok(owner), Ok(start)) = (owner.parse::<u32>(), start.parse::<u64>()) else { return false };
    its_namespace == namespace && Path::new(its_path) == path && process_start(owner) != Some(start)
}

#[cfg(unix)]
use crate::subprocess::{kill, process_start};

#[cfg(not(unix))]
fn process_start(_: u32) -> Option<u64> {
    None
}

#[cfg(not(unix))]
fn kill(_: u32) {}

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
        let first = Lock::acquire(&path, &soon()).expect("the first gets it");
        assert!(matches!(Lock::acquire(&path, &soon()), Err(LockError::Expired(Expired::TimedOut))));
        let held_by_a_program = first.as_input().expect("a descriptor");
        drop(first);
        assert!(Lock::acquire(&path, &soon()).is_err(), "a program that lives on holds it");
        drop(held_by_a_program);
        assert!(Lock::acquire(&path, &soon()).is_ok());
    }
}
