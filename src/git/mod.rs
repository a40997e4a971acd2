//! git's commands as functions over one checkout and one remote.
//!
//! git reads no configuration of the user or the system, runs nothing from a repository, and gets credentials by
//! environment.

mod advertisement;
mod auth;
pub mod checkout_cache;
mod commits;
mod fetch;
pub mod ls_tree;
pub mod object;
mod output;
mod push;
#[cfg(unix)]
mod push_journal;
#[cfg(unix)]
pub mod ssh_helper;
pub mod ssh_key;
mod tree;
pub mod tree_diff;

pub use advertisement::is_public;
pub use auth::{LINE_PREFIX, OPTIONS_ENVIRONMENT, PUSH_ENVIRONMENT, RepositoryPaths};
pub use commits::{CommitText, ItemCommit, LoggedCommit};
pub use fetch::WITHOUT_CONTENTS;
pub use ls_tree::{EntryCheck, GitPath, Listing, Stream, join, walk};
pub use object::{Entry, ObjectFormat, ObjectId};
pub use output::{Pushed, RemoteState, refused_paths};
pub use tree_diff::{Change, Mark, TreeDiff, summary};

use std::io;
use std::path::{Path, PathBuf};

use crate::model::{BackupError, BranchName, Code, GitCredentials, RemoteUrl, Result};
use crate::process::{Ending, Failure, Finished, Invocation, RunEnv};
use crate::util::Retry;

/// The limit of captured output for commands that print only a few lines.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl From<Failure> for BackupError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Expired(expired) => expired.into(),
            Failure::Io(error) => match error.kind() {
                // A new checkout takes less space, and its listings are shorter.
                io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge => Self::damage(error.to_string()),
                _ => Self::new(Code::GitFailed, error.to_string()),
            },
        }
    }
}

/// One checkout and its remote.
pub struct Git<'a> {
    run_env: &'a RunEnv,
    remote: &'a RemoteUrl,
    branch: &'a BranchName,
    git_folder: PathBuf,
    tree_folder: PathBuf,
    configuration: PathBuf,
    /// The remote's URL in the form that git gets.
    address: String,
    signing_key: Option<PathBuf>,
    credentials: &'a GitCredentials,
    /// The variables that pass the credentials.
    access: Vec<(&'static str, String)>,
}

impl<'a> Git<'a> {
    /// Creates a `Git` for the checkout at `site.folder`, which need not exist yet.
    ///
    /// # Errors
    /// [`BackupError`] if the files of the run cannot be written.
    pub fn new(
        run_env: &'a RunEnv,
        site: &RepositoryPaths<'_>,
        remote: &'a RemoteUrl,
        branch: &'a BranchName,
        credentials: &'a GitCredentials,
    ) -> Result<Self> {
        Ok(Self {
            run_env,
            remote,
            branch,
            git_folder: site.folder.join(checkout_cache::GIT),
            tree_folder: site.folder.join(checkout_cache::TREE),
            configuration: run_env.run_dir.write("gitconfig", fetch::CONFIGURATION.as_bytes())?,
            address: auth::address(remote),
            signing_key: site.signing_key.map(Path::to_owned),
            credentials,
            access: auth::environment(run_env, site, remote, credentials)?,
        })
    }

    /// Returns the environment in which git runs.
    pub fn run_env(&self) -> &'a RunEnv {
        self.run_env
    }

    /// Returns the folder into which trees are checked out.
    pub fn tree_folder(&self) -> &Path {
        &self.tree_folder
    }

    /// Returns a git command that names this checkout. Without that, git in a damaged checkout would search the parent
    /// folders for a repository.
    fn command(&self) -> Result<Invocation> {
        let folder = if self.tree_folder.is_dir() { &self.tree_folder } else { self.run_env.run_dir.path() };
        let invocation = self.environment(self.run_env.invocation("git", folder)?);
        // Passed as an argument, so that it applies only to this git. The git that receives a push into a `file:`
        // remote reads the same configuration file, and the hooks of that remote have to run.
        let invocation = invocation.arguments(["-c", "core.hooksPath=/dev/null", "--git-dir"]);
        Ok(invocation.arguments([&self.git_folder, Path::new("--work-tree"), &self.tree_folder]))
    }

    fn command_without_repository(&self) -> Result<Invocation> {
        Ok(self.environment(self.run_env.invocation("git", self.run_env.run_dir.path())?))
    }

    fn environment(&self, invocation: Invocation) -> Invocation {
        // The other form of an ssh remote, `git@host:path`, has no scheme.
        let scheme = self.address.split_once("://").map_or("ssh", |(scheme, _)| scheme);
        invocation
            .environment("GIT_CONFIG_NOSYSTEM", "1")
            .environment("GIT_CONFIG_GLOBAL", &self.configuration)
            .environment("GIT_ATTR_NOSYSTEM", "1")
            .environment("GIT_TERMINAL_PROMPT", "0")
            // A `*` or a `:` in a path has no special meaning.
            .environment("GIT_LITERAL_PATHSPECS", "1")
            .environment("GIT_NO_REPLACE_OBJECTS", "1")
            .environment("GIT_CEILING_DIRECTORIES", self.run_env.run_dir.path().parent().unwrap_or(Path::new("/")))
            // A server's answer cannot make git use the helper of another protocol.
            .environment("GIT_ALLOW_PROTOCOL", scheme)
            .capture(ANSWER_BYTES_MAX)
    }

    /// Adds the credentials. Only commands that talk to the remote need them.
    fn with_access(&self, command: Invocation) -> Invocation {
        self.access.iter().fold(command, |all, (name, value)| all.environment(name, value))
    }

    fn run(&self, command: Invocation) -> Result<Finished> {
        Ok(self.run_env.run(command, &mut |_| true)?)
    }

    /// Runs a command that needs only the checkout.
    fn locally(&self, command: Invocation) -> Result<Vec<u8>> {
        let command_line = command.to_string();
        successful(&command_line, self.run(command)?)
    }

    /// Runs a command that needs only the checkout, and returns its output as text.
    fn answer(&self, command: Invocation) -> Result<String> {
        Ok(text(&self.locally(command)?))
    }

    fn object_id(&self, command: Invocation) -> Result<ObjectId> {
        let answer = self.answer(command)?;
        ObjectId::parse(&answer).ok_or_else(|| BackupError::damage(format!("git printed {answer:?} for an object id")))
    }

    /// Returns the commit with this name, or `None` if there is no such commit or more than one.
    fn commit_named(&self, name: &str) -> Result<Option<ObjectId>> {
        let name = format!("{name}^{{commit}}");
        let finished = self.run(self.command()?.arguments(["rev-parse", "--verify", "--quiet", &name]))?;
        Ok(ObjectId::parse(&text(&finished.stdout)).filter(|_| finished.is_success()))
    }

    /// Runs a command that talks to the remote.
    fn over_the_network(&self, tried: &str, command: Invocation) -> Result<Vec<u8>> {
        let finished = self.run(self.with_access(command))?;
        if finished.is_success() { Ok(finished.stdout) } else { Err(self.remote_error(tried, &finished)) }
    }

    fn remote_error(&self, tried: &str, finished: &Finished) -> BackupError {
        let printed = finished.tail.join("\n");
        let found = output::classify(&printed);
        let key_fault = match (&found, self.credentials) {
            (Some((Code::GitUnauthorized | Code::ConfigInvalid, _)), GitCredentials::Ssh { key, .. }) => {
                ssh_key::fault_of("GIT_SSH_KEY", key)
            }
            _ => None,
        };
        let mut message = format!("{tried} {} (branch `{}`)", self.remote, self.branch);
        if printed.is_empty() || matches!(finished.ending, Ending::Signal(_)) {
            message += &format!(": git ended with {}", finished.ending);
        } else if let Some(why) = key_fault.as_deref().or(found.and_then(|(_, why)| why)) {
            message += &format!(": {why}");
        }
        if !printed.is_empty() {
            message += &format!(": {printed}");
        }
        if printed.contains(output::REDIRECT) {
            message += &self.redirect_target().unwrap_or_default();
        }
        let Some((code, why)) = found else { return BackupError::damage(message) };
        let is_passing = code == Code::GitUnreachable && why.is_none() && output::is_passing(&printed);
        let retry = if is_passing { Retry::AfterPause(None) } else { Retry::Never };
        BackupError { code: if key_fault.is_some() { Code::ConfigInvalid } else { code }, message, retry }
    }
}

fn text(printed: &[u8]) -> String {
    String::from_utf8_lossy(printed).trim().to_owned()
}

/// Returns the output of a command that needs only the checkout, or an error if it failed.
fn successful(command_line: &str, finished: Finished) -> Result<Vec<u8>> {
    if finished.is_success() {
        return Ok(finished.stdout);
    }
    let Finished { ending, tail, .. } = finished;
    Err(BackupError::damage(format!("`{command_line}` ended with {ending}: {}", tail.join("\n"))))
}
