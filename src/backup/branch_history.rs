//! The history of the configured branch, for commands that need git alone: `log` and `verify --key-file`.

use crate::backup::{Env, PrivateRun, paths};
use crate::config::Config;
use crate::git::{Git, ObjectId, RepositoryPaths, WITHOUT_CONTENTS};
use crate::model::{BackupError, BranchName, Code, Result, Subdir, WorkspaceId};
use crate::request;
use crate::util::{Deadline, Redactor, retry};

/// The first fetch brings at least this many commits.
const DEPTH_MIN: usize = 64;
/// Each further fetch brings this many times more commits.
const DEPTH_FACTOR: u32 = 32;
/// Beyond this depth, the whole history is fetched.
const DEPTH_MAX: u32 = 100_000;

/// The place of the configured backup in the repository.
pub(super) struct Place {
    pub(super) workspace: WorkspaceId,
    pub(super) branch: BranchName,
    pub(super) subdir: Subdir,
}

impl Place {
    /// # Errors
    /// [`BackupError`] if the settings do not name a single workspace.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let invalid = |message: String| BackupError::new(Code::ConfigInvalid, message);
        let several = || invalid("several workspaces are configured: name one by --workspace".to_owned());
        let workspace = config.workspaces.single().cloned().ok_or_else(several)?;
        let branch = config.branch_for(&workspace).map_err(invalid)?;
        Ok(Self { branch, subdir: config.subdir_for(&workspace).map_err(invalid)?, workspace })
    }
}

/// Fetches more and more of a branch's history into an empty repository, until `read` returns `true` or the remote has
/// no more commits. `read` gets the tip. The first fetch brings more than `depth` commits. Returns whether the history
/// is complete.
///
/// # Errors
/// [`BackupError`] if git's credentials are missing or wrong, the disk or git fails, the time runs out, or the branch
/// does not exist.
pub(super) fn fetch_until(
    env: &Env<'_>,
    branch: &BranchName,
    depth: usize,
    read: &mut dyn FnMut(&Git<'_>, &ObjectId) -> Result<bool>,
) -> Result<bool> {
    let (config, mut depth) = (env.config, u32::try_from(depth.saturating_add(1).max(DEPTH_MIN)).ok());
    let no_remote = || BackupError::new(Code::ConfigInvalid, "GIT_REMOTE_URL is not set");
    let remote = config.remote.as_ref().ok_or_else(no_remote)?;
    let what = format!("reading the history of {remote}");
    let mut fetch = || {
        let credentials = request::configured_git_credentials(config, remote)?;
        // It is dropped last, after the folder and the lock in it.
        let private = PrivateRun::new(config);
        let redactor = Redactor::new(credentials.secrets().iter().chain(&config.proxy_secrets()));
        let run_env = private.open(config, Deadline::after(config.sync_timeout, env.cancel), redactor)?;
        let folder = &run_env.run_dir.path().join("checkout");
        let accepted_hosts = &paths::root(config).join("known_hosts");
        let site = RepositoryPaths { folder, accepted_hosts, signing_key: None };
        let git = Git::new(&run_env, &site, remote, branch, &credentials)?;
        let state = retry::patiently(&run_env.deadline, || git.remote_state())?;
        git.create(state.format)?;
        loop {
            let fetched = retry::patiently(&run_env.deadline, || git.fetch_branch(depth, Some(WITHOUT_CONTENTS)));
            let Some(tip) = fetched? else {
                return Err(BackupError::new(Code::GitFailed, format!("{remote} has no branch `{branch}`")));
            };
            // A remote may be shallow itself, so its history is never complete here.
            if read(&git, &tip)? || git.is_complete() || depth.is_none() {
                return Ok(git.is_complete());
            }
            depth = depth.and_then(|depth| depth.checked_mul(DEPTH_FACTOR)).filter(|depth| *depth <= DEPTH_MAX);
        }
    };
    fetch().map_err(|error: BackupError| {
        error.explained(format!("{what} took longer than SYNC_TIMEOUT"), format!("{what} was ended by a signal"))
    })
}
