//! A lock and a folder for a command that does not wait for other runs, such as `check` and `log`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::backup::{paths, run_context};
use crate::config::Config;
use crate::model::Result;
use crate::process::{Lock, RunEnv};
use crate::util::{Deadline, Redactor, files};

/// The prefix of the names of these folders. No workspace id begins with it.
pub(super) const MARK: &str = ".check-";
/// A lock and a folder below `DATA_DIR` that are removed at the end of the run.
pub(super) struct PrivateRun {
    run_dir: PathBuf,
    lock: PathBuf,
    /// Folders that did not exist before, the innermost first.
    missing: Vec<PathBuf>,
}

impl PrivateRun {
    pub(super) fn new(config: &Config) -> Self {
        let folder = paths::run_folders(config);
        let missing = folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        let run_dir = folder.join([MARK, &run_context::new_run_id()].concat());
        Self { lock: run_dir.with_extension("lock"), run_dir, missing }
    }

    /// Takes the lock, and prepares the environment of the programs.
    ///
    /// # Errors
    /// `BackupError` if the disk fails or the certificates cannot be used.
    pub(super) fn open(&self, config: &Config, deadline: Deadline, redactor: Redactor) -> Result<RunEnv> {
        files::create_folder(&paths::run_folders(config))?;
        let lock = Lock::acquire(&self.lock, &deadline, &mut || {})??;
        run_context::open(config, lock, self.run_dir.clone(), deadline, redactor)
    }
}

impl Drop for PrivateRun {
    /// Removes what this run created, except a folder that another run already uses.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.lock);
        for folder in &self.missing {
            let _ = fs::remove_dir(folder);
        }
    }
}
