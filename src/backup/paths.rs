//! The paths of each workspace's data below `DATA_DIR`, and the removal of what killed runs left there.

use std::fs;
use std::path::PathBuf;

use crate::backup::private_run;
use crate::config::Config;
use crate::model::WorkspaceId;
use crate::process::Lock;
use crate::request::SyncRequest;
use crate::util::files;

/// Returns the folder that holds all our data. It is never the top of the data folder, since an older service had its
/// checkout there.
pub fn root(config: &Config) -> PathBuf {
    config.data_dir.join("windmill-git-sync")
}

/// Returns the folder for files that are removed at the end of a run of this request, such as a token or a key.
pub fn run_folder(config: &Config, request: &SyncRequest) -> PathBuf {
    run_folders(config).join(request.backup_id())
}

/// Returns the folder that holds the folders of all runs.
pub(super) fn run_folders(config: &Config) -> PathBuf {
    root(config).join("runs")
}

/// Returns the lock file for runs with this [`SyncRequest::backup_id`]. Runs that are not configured share 256 lock
/// files, so that requests for new destinations do not fill the folder. Runs that share a lock file wait for each
/// other.
pub(super) fn lock_path(config: &Config, backup_id: &str) -> PathBuf {
    let name = match backup_id.split_once('@') {
        Some((_, destination)) => ["@", destination.get(..2).unwrap_or_default()].concat(),
        None => backup_id.to_owned(),
    };
    root(config).join("locks").join(name + ".lock")
}

/// Removes the keys and tokens that killed runs of any backup, `check` and `log` left in their folders, and ends their
/// programs. The next run of the same kind would do that too, but there may never be one.
pub fn remove_leftovers(config: &Config) {
    for entry in fs::read_dir(run_folders(config)).into_iter().flatten().flatten() {
        let (folder, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else { continue };
        // A private run has its lock beside its folder.
        let is_private = name.starts_with(private_run::MARK) && folder.is_dir();
        let is_of_backup = name.split('@').next().is_some_and(|id| WorkspaceId::parse(id).is_ok());
        let lock = if is_private { folder.with_extension("lock") } else { lock_path(config, name) };
        if (is_private || is_of_backup)
            && let Some(_free) = Lock::acquire_if_free(&lock)
        {
            let removed = files::remove_folder(&folder);
            let removed = removed.and_then(|()| if is_private { files::remove_file(&lock) } else { Ok(()) });
            removed.unwrap_or_else(|error| log::warn!("what a killed run left stays: {error}"));
        }
    }
}
