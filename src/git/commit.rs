//! Makes, finds and reads commits.

use std::fs::File;
use std::time::{Duration, SystemTime};

use crate::git::fast_import::{self, ItemCommit};
use crate::git::fetch::TIP_REF;
use crate::git::object::ObjectId;
use crate::git::output::CommitText;
use crate::git::{Git, GitError};
use crate::model::names::Identity;

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
        authored: Option<u64>,
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
        if let Some(seconds) = authored {
            command = command.environment("GIT_AUTHOR_DATE", format!("@{seconds} +0000"));
        }
        self.object_id(command)
    }

    /// Returns the commit of the fetched history whose id begins with these digits.
    ///
    /// # Errors
    /// [`GitError`]. It is not an error if there is no such commit or more than one.
    pub fn find_commit(&self, digits: &str) -> Result<Option<ObjectId>, GitError> {
        let Some(commit) = self.commit_named(digits)? else { return Ok(None) };
        let command = self.command()?.arguments(["merge-base", "--is-ancestor", commit.as_str(), TIP_REF]);
        Ok(self.run(command)?.is_success().then_some(commit))
    }

    /// Returns the message of the newest commit that has a line that begins with a match of `line`. The search starts
    /// at `commit`.
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

    /// Makes a chain of commits on top of `parent`. Returns the last one and its tree.
    ///
    /// One `git fast-import` makes them all. It cannot sign, so each signed commit needs programs of its own.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn commit_chain(
        &self,
        parent: Option<&ObjectId>,
        committer: &Identity,
        links: &[ItemCommit<'_>],
    ) -> Result<(ObjectId, ObjectId), GitError> {
        let now = fast_import::seconds(SystemTime::now());
        let orders = self.run_env.run_dir.write("commits", &fast_import::chain(parent, committer, now, links))?;
        let import = ["fast-import", "--quiet", "--force", "--done", "--date-format=raw"];
        self.locally(self.command()?.arguments(import).stdin(File::open(orders)?))?;
        let mut last = self.resolve(fast_import::CHAIN_REF)?;
        let list = self.command()?.arguments(["rev-list", "--reverse", "--format=%T", fast_import::CHAIN_REF]);
        let listed = self.answer(list.arguments(parent.map(|parent| format!("^{parent}"))))?;
        // The lines between the trees begin with the word `commit`.
        let trees: Vec<_> = listed.lines().filter_map(ObjectId::parse).collect();
        let Some(tree) = trees.last().filter(|_| trees.len() == links.len()) else {
            return Err(GitError::Checkout(format!("git made {} commits of {}", trees.len(), links.len())));
        };
        if self.signing_key.is_some() {
            let mut parent = parent.cloned();
            for (link, tree) in links.iter().zip(&trees) {
                let time = link.time.map(fast_import::seconds).unwrap_or(now);
                let made = self.commit_by(tree, parent.as_ref(), committer, link.author, Some(time), &link.message)?;
                last = made.clone();
                parent = Some(made);
            }
        }
        self.locally(self.command()?.arguments(["update-ref", "-d", fast_import::CHAIN_REF]))?;
        Ok((last, tree.clone()))
    }
}
