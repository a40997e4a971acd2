//! A lock and a folder for a command that does not wait for a turn, such as `check` and `log`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::backup::run_context;
use crate::process::lock::{Lock, LockError};
use crate::util::deadline::Deadline;
use crate::util::files::{self, RunDir};

/// The prefix of our scratch folders' names. No workspace id begins with it.
const MARK: &str = ".check-";

/// A lock and a folder below `DATA_DIR` that leave nothing behind.
pub(super) struct PrivateRun {
    /// The folder that holds the scratch folder and the lock.
    folder: PathBuf,
    run_dir: PathBuf,
    lock: PathBuf,
    /// Folders that did not exist before, the innermost first.
    missing: Vec<PathBuf>,
}

impl PrivateRun {
    pub(super) fn new(folder: &Path) -> Self {
        let run_dir = folder.join([MARK, &run_context::new_run_id()].concat());
        let lock = run_dir.with_extension("lock");
        let missing = folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        Self { folder: folder.to_owned(), run_dir, lock, missing }
    }

    pub(super) fn open(&self, deadline: &Deadline) -> std::io::Result<(Lock, RunDir)> {
        let locked = |error| match error {
            LockError::Io(error) => error,
            LockError::Expired(_) => std::io::ErrorKind::TimedOut.into(),
        };
        files::create_folder(&self.folder)?;
        sweep(&self.folder);
        let lock = Lock::acquire(&self.lock, deadline, &mut || {}).map_err(locked)?;
        Ok((lock, RunDir::new(self.run_dir.clone())?))
    }
}

/// Removes what killed runs of this kind left in `folder`, above all their keys, and ends their programs.
pub(super) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let lock = entry.path();
        let is_lock = lock.extension().is_some_and(|extension| extension == "lock");
        let run_dir = lock.with_extension("");
        // A run that has just begun or ended has no scratch folder.
        if is_lock
            && entry.file_name().to_string_lossy().starts_with(MARK)
            && run_dir.exists()
            && let Some(_free) = Lock::acquire_if_free(&lock)
        {
            let _ = files::remove_folder(&run_dir);
            let _ = fs::remove_file(&lock);
        }
    }
}

impl Drop for PrivateRun {
    /// Removes what this run created. A folder that another run uses by now stays.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.lock);
        for folder in &self.missing {
            let _ = fs::remove_dir(folder);
        }
    }
}
