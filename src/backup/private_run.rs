//! A lock and a folder for a command that does not wait for a turn, such as `check` and `log`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::backup::{paths, run_context};
use crate::config::Config;
use crate::process::lock::{Lock, LockError};
use crate::util::deadline::Deadline;
use crate::util::files::{self, RunDir};

/// The prefix of our scratch folders' names. No workspace id begins with it.
const MARK: &str = ".check-";

/// A lock and a folder below `DATA_DIR` that leave nothing behind.
pub(super) struct PrivateRun {
    run_dir: PathBuf,
    /// Folders that did not exist before, the innermost first.
    missing: Vec<PathBuf>,
}

impl PrivateRun {
    pub(super) fn new(config: &Config) -> Self {
        let folder = paths::run_folders(config);
        let missing = folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        Self { run_dir: folder.join([MARK, &run_context::new_run_id()].concat()), missing }
    }

    pub(super) fn open(&self, config: &Config, deadline: &Deadline) -> io::Result<(Lock, RunDir)> {
        let folder = paths::run_folders(config);
        files::create_folder(&folder)?;
        sweep(&folder);
        let lock = Lock::acquire(&self.lock(), deadline, &mut || {}).map_err(|error| match error {
            LockError::Io(error) => error,
            LockError::Expired(_) => io::ErrorKind::TimedOut.into(),
        })?;
        Ok((lock, RunDir::new(self.run_dir.clone())?))
    }

    fn lock(&self) -> PathBuf {
        self.run_dir.with_extension("lock")
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
        let _ = fs::remove_file(self.lock());
        for folder in &self.missing {
            let _ = fs::remove_dir(folder);
        }
    }
}
