//! Makes, finds and reads commits.

use std::time::{Duration, SystemTime};

use crate::git::fetch::TIP_REF;
use crate::git::object::ObjectId;
use crate::git::output::CommitText;
use crate::git::tree::order;
use crate::git::tree_diff::{Change, Mark};
use crate::git::{Git, GitError};
use crate::model::Identity;

/// One commit of a chain.
pub struct ItemCommit<'a> {
    /// Who made the change.
    pub author: &'a Identity,
    /// When the change was made; `None` means now.
    pub time: Option<SystemTime>,
    /// The whole message.
    pub message: String,
    /// The changed files.
    pub changes: &'a [Change],
}

impl Git<'_> {
    /// Makes a commit of `tree` with this parent.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn commit(
        &self,
        tree: &ObjectId,
        parent: Option<&ObjectId>,
        author: &Identity,
        message: &str,
    ) -> Result<ObjectId, GitError> {
        self.commit_by(tree, parent, author, author, None, message)
    }

    fn commit_by(
        &self,
        tree: &ObjectId,
        parent: Option<&ObjectId>,
        committer: &Identity,
        author: &Identity,
        authored: Option<SystemTime>,
        message: &str,
    ) -> Result<ObjectId, GitError> {
        let message = self.run_env.run_dir.write("message", message.as_bytes())?;
        let mut command = self
            .command()?
            .environment("GIT_AUTHOR_NAME", author.name())
            .environment("GIT_AUTHOR_EMAIL", author.email())
            .environment("GIT_COMMITTER_NAME", committer.name())
            .environment("GIT_COMMITTER_EMAIL", committer.email())
            .arguments(["commit-tree", "-F"])
            .argument(message)
            .arguments(self.signing_key.as_ref().map(|key| format!("--gpg-sign={}", key.display())))
            .arguments(parent.map(|parent| format!("-p{parent}")))
            .argument(tree.as_str());
        // git has no times before 1970.
        if let Some(since) = authored.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            command = command.environment("GIT_AUTHOR_DATE", format!("@{} +0000", since.as_secs()));
        }
        self.object_id(command)
    }

    /// Returns the commit of the fetched history whose id begins with these hexadecimal digits, at least four.
    ///
    /// # Errors
    /// [`GitError`]. It is not an error if there is no such commit or more than one.
    pub fn find_commit(&self, digits: &str) -> Result<Option<ObjectId>, GitError> {
        let Some(commit) = self.commit_named(digits)? else { return Ok(None) };
        let command = self.command()?.arguments(["merge-base", "--is-ancestor", commit.as_str(), TIP_REF]);
        Ok(self.run(command)?.is_success().then_some(commit))
    }

    /// Returns the message of the newest commit with a line that begins with a match of `line`. The search starts at
    /// `commit`.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn last_with(&self, commit: &ObjectId, line: &str) -> Result<Option<CommitText>, GitError> {
        let found = self.newest(&[&format!("--grep=^{line}"), commit.as_str()])?;
        Ok(Some(found).filter(|found| !found.message.is_empty()))
    }

    /// Returns the time and the message of a commit.
    ///
    /// # Errors
    /// [`GitError`], for example if the commit was not fetched.
    pub fn commit_message(&self, commit: &ObjectId) -> Result<CommitText, GitError> {
        self.newest(&[commit.as_str()])
    }

    fn newest(&self, arguments: &[&str]) -> Result<CommitText, GitError> {
        let command = self.command()?.arguments(["log", "-1", "--no-show-signature", "--format=%ct%n%B"]);
        let printed = self.locally(command.arguments(arguments).argument("--"))?;
        let printed = String::from_utf8_lossy(&printed);
        let (seconds, message) = printed.split_once('\n').unwrap_or_default();
        let since = seconds.parse().ok().map(Duration::from_secs);
        Ok(CommitText {
            time: since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)),
            message: message.to_owned(),
        })
    }

    /// Makes a chain of commits on top of `parent`, which change the folder at `path`. Returns the last commit, or
    /// `None` if its tree would be another one than `tree`.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn commit_chain(
        &self,
        parent: Option<&ObjectId>,
        path: &str,
        committer: &Identity,
        commits: &[ItemCommit<'_>],
        tree: &ObjectId,
    ) -> Result<Option<ObjectId>, GitError> {
        let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
        // The changes are in the order of their paths: if a file becomes a folder, its deletion comes before the files
        // below it.
        let order_for = |change: &Change| {
            let entry = Some(&change.entry).filter(|_| change.mark != Mark::Deleted);
            Ok(order([folder.as_bytes(), &change.path].concat(), entry))
        };
        let groups = commits.iter().map(|commit| commit.changes.iter().map(order_for));
        let trees = self.make_trees(parent, groups)?;
        if trees.last() != Some(tree) {
            return Ok(None);
        }
        let mut last = parent.cloned();
        for (ItemCommit { author, time, message, .. }, tree) in commits.iter().zip(&trees) {
            last = Some(self.commit_by(tree, last.as_ref(), committer, author, *time, message)?);
        }
        Ok(last)
    }
}
