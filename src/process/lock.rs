//! The lock of a workspace: one run at a time, across all processes that share a data folder.
//!
//! It is the kernel's lock on an empty file. Every program of a run has that file as its standard input, so that an
//! orphan of a killed service still holds the lock; the process that waits for it ends such orphans.

use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::process::orphans::{end_orphans, end_programs, own_marker};
use crate::util::{CancelToken, Deadline, Expired, files};

/// How often the lock is tried. A file lock has no wait with a time limit.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How many tries pass between two searches for orphans. A search reads every process of the machine.
const TRIES_PER_ORPHAN_SEARCH: u32 = 20;

/// The lock of a workspace, held until it is dropped and the last program that got it as its input has ended.
pub struct Lock {
    /// The standard input of the run's programs, at its end. The lock is held as long as one of them lives.
    pub(super) file: File,
    /// The [`MARKER`](crate::process::orphans::MARKER) that the run's programs have in their environment. It is empty
    /// where `/proc` cannot be read.
    pub(super) marker: String,
}

impl Lock {
    /// Waits for the lock at `path`. Calls `on_busy` once if another run holds the lock.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or locked. The inner error means that another run held the lock for too long,
    /// or that the process is ending.
    pub fn acquire(path: &Path, deadline: &Deadline, on_busy: &mut dyn FnMut()) -> io::Result<Result<Self, Expired>> {
        // An empty folder may be in its place; it contains nothing to keep.
        let _ = std::fs::remove_dir(path);
        let mut file = files::open_file(path, false)?;
        let path = path.canonicalize().map_err(|error| files::at(path, &error))?;
        for attempt in 0_u32.. {
            // Computed before the try, so that the last try comes after the deadline: it may pass while orphans are
            // ended.
            let wait = deadline.next_wait();
            match (file.try_lock(), wait) {
                (Ok(()), _) => break,
                (Err(TryLockError::Error(error)), _) => return Err(files::at(&path, &error)),
                (Err(TryLockError::WouldBlock), Err(expired)) => return Ok(Err(expired)),
                (Err(TryLockError::WouldBlock), Ok(wait)) => {
                    if attempt == 0 {
                        on_busy();
                    }
                    if attempt.is_multiple_of(TRIES_PER_ORPHAN_SEARCH) {
                        end_orphans(&path);
                    }
                    std::thread::sleep(wait.min(RETRY_INTERVAL));
                }
            }
        }
        // The file is the standard input of every program. At its end, there is nothing to read.
        let _ = file.seek(SeekFrom::End(0));
        // A descendant of an orphan may have closed its input, and thereby the lock, and still be writing.
        end_orphans(&path);
        Ok(Ok(Self { file, marker: own_marker(&path).unwrap_or_default() }))
    }

    /// Acquires the lock at `path` if no run holds it. Ends programs that a killed run left behind.
    pub fn acquire_if_free(path: &Path) -> Option<Self> {
        // The orphans hold the lock, and there is no second try.
        if let Ok(path) = path.canonicalize() {
            end_orphans(&path);
        }
        Self::acquire(path, &Deadline::after(Duration::ZERO, &CancelToken::default()), &mut || {}).ok()?.ok()
    }

    /// Kills the programs that this run left behind. A descendant that moved to another process group is not killed
    /// with its program, and would hold the lock as long as it lives.
    pub fn end_programs(&self) {
        if !self.marker.is_empty() {
            end_programs(Duration::ZERO, |marker| marker == self.marker);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(200), &CancelToken::default())
    }

    #[test]
    fn a_lock_has_one_holder_and_is_free_after_its_programs_end() {
        let folder = std::env::current_dir().expect("a working folder").join("target/tmp/lock-test");
        files::create_folder(&folder).expect("a folder");
        let path = folder.join(format!("{}.lock", std::process::id()));
        let first = Lock::acquire(&path, &soon(), &mut || {}).expect("a file").expect("the first gets it");
        assert!(matches!(Lock::acquire(&path, &soon(), &mut || {}), Ok(Err(Expired::TimedOut))));
        let held_by_a_program = first.file.try_clone().expect("a descriptor");
        drop(first);
        assert!(
            Lock::acquire(&path, &soon(), &mut || {}).is_ok_and(|lock| lock.is_err()),
            "a program that lives on holds it"
        );
        drop(held_by_a_program);
        assert!(Lock::acquire(&path, &soon(), &mut || {}).is_ok_and(|lock| lock.is_ok()));
    }
}
