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
        let commit = ItemCommit { author, time: None, message: message.to_owned(), changes: &[] };
        self.commit_item(tree, parent, author, &commit)
    }

    fn commit_item(
        &self,
        tree: &ObjectId,
        parent: Option<&ObjectId>,
        committer: &Identity,
        ItemCommit { author, time, message, .. }: &ItemCommit<'_>,
    ) -> Result<ObjectId, GitError> {
        let message = self.run_env.run_dir.write("message", message.as_bytes())?;
        let mut command = self
            .command()?
            .environment("GIT_AUTHOR_NAME", author.name())
            .environment("GIT_AUTHOR_EMAIL", author.email())
            .environment("GIT_COMMITTER_NAME", committer.name())
            .environment("GIT_COMMITTER_EMAIL", committer.email())
            .arguments(["commit-tree", "-F"])
            .arguments([message])
            .arguments(self.signing_key.as_ref().map(|key| format!("--gpg-sign={}", key.display())))
            .arguments(parent.map(|parent| format!("-p{parent}")))
            .arguments([tree.as_str()]);
        // git has no times before 1970.
        if let Some(since) = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()) {
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

    /// Returns the time and the message of a commit. With a `line`, it is the newest commit from this one on whose
    /// message has a line that begins with a match of it; `None` if there is none.
    ///
    /// # Errors
    /// [`GitError`], for example if the commit was not fetched.
    pub fn commit_text(&self, commit: &ObjectId, line: Option<&str>) -> Result<Option<CommitText>, GitError> {
        let command = self.command()?.arguments(["log", "-1", "--no-show-signature", "--format=%ct%n%B"]);
        let command = command.arguments(line.map(|line| format!("--grep=^{line}")));
        let printed = self.locally(command.arguments([commit.as_str(), "--"]))?;
        Ok(String::from_utf8_lossy(&printed).split_once('\n').map(|(seconds, message)| CommitText {
            time: seconds.parse().ok().and_then(|since| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))),
            message: message.to_owned(),
        }))
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
            order([folder.as_bytes(), &change.path].concat(), entry)
        };
        let groups = commits.iter().map(|commit| commit.changes.iter().map(order_for));
        let trees = self.make_trees(parent, groups)?;
        if trees.last() != Some(tree) {
            return Ok(None);
        }
        let mut last = parent.cloned();
        for (commit, tree) in commits.iter().zip(&trees) {
            last = Some(self.commit_item(tree, last.as_ref(), committer, commit)?);
        }
        Ok(last)
    }
}
