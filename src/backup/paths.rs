//! Where the data of each workspace lies below `DATA_DIR`, and the removal of what killed runs left there.

use std::fs;
use std::path::PathBuf;

use crate::config::Config;
use crate::model::names::WorkspaceId;
use crate::process::lock::Lock;
use crate::request::SyncRequest;
use crate::util::files;

/// Where everything of ours lies. Never the top of the data folder: an older service had its checkout there.
#[must_use]
pub fn root(config: &Config) -> PathBuf {
    config.data_dir.join("windmill-git-sync")
}

/// Where a run of this request keeps what must not outlive it: a token, a key.
#[must_use]
pub fn run_folder(config: &Config, request: &SyncRequest) -> PathBuf {
    run_folders(config).join(request.backup_id())
}

fn run_folders(config: &Config) -> PathBuf {
    root(config).join("runs")
}

/// The file by which runs of this [`SyncRequest::backup_id`] take turns. Runs that are not configured share 256 of them,
/// so that requests for ever new destinations do not fill the folder; those that share one wait for each other.
pub(super) fn lock_path(config: &Config, backup_id: &str) -> PathBuf {
    let name = match backup_id.split_once('@') {
        Some((_, destination)) => ["@", destination.get(..2).unwrap_or_default()].concat(),
        None => backup_id.to_owned(),
    };
    root(config).join("locks").join(name + ".lock")
}

/// Removes what killed runs of any backup left in their folders, keys and tokens, and ends their programs. The next run
/// of that backup would do so, and may never come.
pub fn remove_leftovers(config: &Config) {
    for entry in fs::read_dir(run_folders(config)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let backup_id = name.to_str().filter(|name| {
            let workspace = name.split_once('@').map_or(*name, |(workspace, _)| workspace);
            WorkspaceId::parse(workspace).is_ok()
        });
        if let Some(backup_id) = backup_id
            && let Some(_free) = Lock::acquire_if_free(&lock_path(config, backup_id))
            && let Err(error) = files::remove_folder(&entry.path())
        {
            log::warn!("what a killed run left stays: {error}");
        }
    }
}
