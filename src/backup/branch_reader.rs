//! Access to the configured branch for commands that need only git: its place, a temporary repository, its history.

use std::path::Path;

use crate::backup::error::BackupError;
use crate::backup::paths;
use crate::backup::private_run::PrivateRun;
use crate::config::Config;
use crate::git::object::ObjectId;
use crate::git::{Git, GitError, RepositoryPaths, WITHOUT_CONTENTS};
use crate::model::{BranchName, Code, GitCredentials, RemoteUrl, Subdir, WorkspaceId};
use crate::request;
use crate::util::{CancelToken, Deadline, Expired, Redactor, retry};

/// The first fetch brings at least this many commits.
const DEPTH_MIN: usize = 64;
/// Each further fetch brings this many times more commits.
const DEPTH_FACTOR: u32 = 32;
/// Beyond this depth, the whole history is fetched.
const DEPTH_MAX: u32 = 100_000;

/// Reads the branch of one backup, in an empty repository of its own.
pub(super) struct BranchReader<'a> {
    config: &'a Config,
    own_program: &'a Path,
    cancel: &'a CancelToken,
    pub(super) workspace: WorkspaceId,
    remote: &'a RemoteUrl,
    pub(super) branch: BranchName,
    pub(super) subdir: Subdir,
    credentials: GitCredentials,
}

impl<'a> BranchReader<'a> {
    /// Returns the reader for the configured backup.
    ///
    /// # Errors
    /// [`BackupError`] if the settings do not name a single workspace, or git's credentials are missing or
    /// wrong.
    pub(super) fn new(config: &'a Config, own_program: &'a Path, cancel: &'a CancelToken) -> Result<Self, BackupError> {
        let invalid = |message: String| BackupError::new(Code::ConfigInvalid, message);
        let Some(remote) = &config.remote else { return Err(invalid("GIT_REMOTE_URL is not set".to_owned())) };
        let Some(workspace) = config.workspaces.single().cloned() else {
            return Err(invalid("several workspaces are configured: name one by --workspace".to_owned()));
        };
        Ok(Self {
            config,
            own_program,
            cancel,
            remote,
            branch: config.branch_for(&workspace).map_err(invalid)?,
            subdir: config.subdir_for(&workspace).map_err(invalid)?,
            workspace,
            credentials: request::configured_git_credentials(config, remote)?,
        })
    }

    /// Fetches more and more of the history, until `read` returns `true` or the remote has no more commits. `read` gets
    /// the tip. The first fetch brings more than `depth` commits. Returns whether the history is complete.
    ///
    /// # Errors
    /// [`BackupError`] if the disk or git fails, the time runs out, or the branch does not exist.
    pub(super) fn fetch_until(
        &self,
        depth: usize,
        read: &mut dyn FnMut(&Git<'_>, &ObjectId) -> Result<bool, GitError>,
    ) -> Result<bool, BackupError> {
        self.fetch(depth, read).map_err(|error| {
            error.explained(|expired| match expired {
                Expired::TimedOut => format!("reading the history of {} took longer than SYNC_TIMEOUT", self.remote),
                Expired::Cancelled => "ended by a signal".to_owned(),
            })
        })
    }

    fn fetch(
        &self,
        depth: usize,
        read: &mut dyn FnMut(&Git<'_>, &ObjectId) -> Result<bool, GitError>,
    ) -> Result<bool, BackupError> {
        // It is dropped last, after the folder and the lock in it.
        let private = PrivateRun::new(self.config);
        let redactor = Redactor::new(self.credentials.secrets().iter().chain(&self.config.proxy_secrets()));
        let deadline = Deadline::after(self.config.sync_timeout, self.cancel);
        let run_env = private.open(self.config, deadline, redactor)?;
        let folder = run_env.run_dir.path().join("checkout");
        let accepted_hosts = paths::root(self.config).join("known_hosts");
        let site = RepositoryPaths {
            folder: &folder,
            own_program: self.own_program,
            accepted_hosts: &accepted_hosts,
            signing_key: None,
        };
        let git = Git::new(&run_env, &site, self.remote, &self.branch, &self.credentials)?;
        let state = retry::patiently(&run_env.deadline, || git.remote_state().map_err(BackupError::from))?;
        git.create(state.format)?;
        let mut depth = u32::try_from(depth.saturating_add(1).max(DEPTH_MIN)).ok();
        loop {
            let fetched = retry::patiently(&run_env.deadline, || {
                git.fetch_branch(depth, Some(WITHOUT_CONTENTS)).map_err(BackupError::from)
            });
            let Some(tip) = fetched? else {
                let message = format!("{} has no branch `{}`", self.remote, self.branch);
                return Err(BackupError::new(Code::GitFailed, message));
            };
            // A remote may be shallow itself, so its history is never complete here.
            if read(&git, &tip)? || git.is_complete() || depth.is_none() {
                return Ok(git.is_complete());
            }
            depth = depth.and_then(|depth| depth.checked_mul(DEPTH_FACTOR)).filter(|depth| *depth <= DEPTH_MAX);
        }
    }
}
