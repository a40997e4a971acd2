//! Pushes a commit, and reads the branch back to see that it arrived.

use crate::backup::error::BackupError;
use crate::backup::run_context::RunContext;
use crate::git::object::ObjectId;
use crate::git::{self, Git, GitError, Pushed};
use crate::model::Code;
use crate::util::{Retry, retry};

/// Why a push failed, if a push of another commit may succeed.
pub enum NotPushed {
    /// The push was rejected, perhaps because another writer was first. Holds what the server said.
    Rejected(String),
    /// The remote refuses the commit. If it names files, it may accept a commit without them.
    Refused {
        /// Their paths in the repository.
        paths: Vec<String>,
        /// What the server said.
        why: String,
    },
}

/// Pushes the commit to the remote. If the answer to a push was lost, asks the remote before it pushes again. Returns
/// `None` if the commit was seen on the branch.
///
/// # Errors
/// [`BackupError`] if the remote refuses the commit or does not answer.
pub fn deliver(run: RunContext<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<Option<NotPushed>, BackupError> {
    let mut may_be_pushed = false;
    let pushed = retry::patiently(&git.run_env().deadline, || {
        if std::mem::replace(&mut may_be_pushed, true) && is_on_branch(run, git, commit)? {
            return Ok(None);
        }
        match git.push(commit, false)? {
            Pushed::Accepted if is_on_branch(run, git, commit)? => Ok(None),
            Pushed::Accepted => {
                let why = "the server accepted the commit, but the branch does not have it now";
                Ok(Some(NotPushed::Rejected(why.to_owned())))
            }
            Pushed::Outrun(why) => Ok(Some(NotPushed::Rejected(why))),
            Pushed::Refused(why) => Ok(Some(NotPushed::Refused { paths: git::refused_paths(&why), why })),
        }
    });
    match pushed {
        // The answer to the last attempt may have been lost too.
        Err(BackupError { retry: Retry::AfterPause(_), .. }) if is_on_branch(run, git, commit).unwrap_or(false) => {
            Ok(None)
        }
        other => other,
    }
}

/// Returns whether the branch of the remote holds the commit. First records that the checkout is at that commit. If the
/// branch does not hold it, the next fetch corrects the record.
fn is_on_branch(run: RunContext<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<bool, GitError> {
    if let Err(error) = git.set_tip_ref(commit) {
        // The next sync has to fetch again, but the current sync succeeds.
        log::warn!("cannot record the tip of the checkout: {}", BackupError::from(error).message);
    }
    let state = git.remote_state()?;
    run.note_head(&state);
    git.contains(commit, state.tip.as_ref())
}

/// Returns the error for a server that does not accept the commit.
pub fn refused(run: RunContext<'_>, why: &str) -> BackupError {
    let message = format!("{} (branch `{}`) refuses the push: {why}", run.request.remote, run.request.branch);
    BackupError::new(Code::GitRejected, message)
}
