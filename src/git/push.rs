//! Pushes a commit, and checks whether it arrived.

#[cfg(unix)]
use crate::git::push_journal;
use crate::git::{Git, ObjectId, Pushed, auth, output};
use crate::model::Result;

/// The ref for a tip that was pushed after our push.
const SEEN_REF: &str = "refs/sync/seen";

impl Git<'_> {
    /// Pushes a commit to the branch, never by force. In a repository on this machine, one push runs at a time, and the
    /// locks of killed pushes are removed if they stay unchanged for some seconds.
    ///
    /// A dry run only asks the remote whether it would accept the push. It does not show the rules that a server checks
    /// only when it gets the commit, such as branch protection.
    ///
    /// # Errors
    /// `BackupError` if there was no answer for our ref. A refusal is not an error but a [`Pushed`].
    pub fn push(&self, commit: &ObjectId, is_dry_run: bool) -> Result<Pushed> {
        let full_ref = self.branch.full_ref();
        let line = format!("{commit} {full_ref}");
        let command = self
            .command()?
            .environment(auth::PUSH_ENVIRONMENT, if is_dry_run { "" } else { &line })
            .arguments(["push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags"])
            .arguments(is_dry_run.then_some("--dry-run"))
            .arguments(["--recurse-submodules=no", "--", &self.address])
            .arguments([format!("{commit}:{full_ref}")]);
        let finished = self.run(self.with_access(command))?;
        for line in finished.tail.iter().filter_map(|line| line.strip_prefix(auth::LINE_PREFIX)) {
            log::warn!("{line}");
        }
        let printed = self.run_env.redactor.redact(&String::from_utf8_lossy(&finished.stdout));
        let pushed = output::pushed(&printed, &full_ref, &finished.tail)
            .ok_or_else(|| self.remote_error("cannot push to", &finished))?;
        #[cfg(unix)]
        if let Some(path) = auth::path_on_this_machine(self.remote).filter(|_| !is_dry_run)
            && let Err(error) = push_journal::end(&path, &line)
        {
            log::warn!("cannot record that a push was answered: {error}");
        }
        Ok(pushed)
    }

    /// Returns whether the branch's tip, which is `tip` now, is `commit` or descends from it.
    ///
    /// # Errors
    /// `BackupError`.
    pub fn contains(&self, commit: &ObjectId, tip: Option<&ObjectId>) -> Result<bool> {
        if tip.is_none() || tip == Some(commit) {
            return Ok(tip.is_some());
        }
        // Another writer pushed right after us. Without a depth, the fetch brings all commits after ours.
        self.fetch(SEEN_REF, [])?;
        let command = self.command()?.arguments(["merge-base", "--is-ancestor", commit.as_str(), SEEN_REF]);
        Ok(self.run(command)?.is_success())
    }
}
