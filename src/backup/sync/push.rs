//! Pushes a commit, and reads the branch back to see that it arrived.

use crate::backup::RunContext;
use crate::backup::sync::tip;
use crate::git::{Git, ObjectId, Pushed};
use crate::model::{BackupError, Code, Result};
use crate::util::{Retry, retry};

/// Pushes the commit to the remote. If the answer to a push was lost, asks the remote before it pushes again. The
/// commit counts as accepted only if it was then seen on the branch.
///
/// # Errors
/// [`BackupError`] if the remote does not answer, or git or the disk fails.
pub fn deliver(run: RunContext<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<Pushed> {
    let mut may_be_pushed = false;
    let pushed = retry::patiently(&git.run_env().deadline, || {
        if std::mem::replace(&mut may_be_pushed, true) && is_on_branch(run, git, commit)? {
            return Ok(Pushed::Accepted);
        }
        match git.push(commit, false)? {
            Pushed::Accepted if !is_on_branch(run, git, commit)? => {
                Ok(Pushed::Outrun("the server accepted the commit, but the branch does not have it now".to_owned()))
            }
            pushed => Ok(pushed),
        }
    });
    match pushed {
        // The answer to the last attempt may have been lost too.
        Err(BackupError { retry: Retry::AfterPause(_), .. }) if is_on_branch(run, git, commit).unwrap_or(false) => {
            Ok(Pushed::Accepted)
        }
        other => other,
    }
}

/// Returns whether the branch of the remote holds the commit. First records that the checkout is at that commit. If the
/// branch does not hold it, the next fetch corrects the record.
fn is_on_branch(run: RunContext<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<bool> {
    if let Err(error) = git.set_tip_ref(commit) {
        // The next sync has to fetch again, but the current sync succeeds.
        log::warn!("cannot record the tip of the checkout: {}", error.message);
    }
    git.contains(commit, tip::ask(run, git)?.tip.as_ref())
}

/// Returns the error for a server that does not accept the commit.
pub fn refused(run: RunContext<'_>, why: &str) -> BackupError {
    let message = format!("{} (branch `{}`) refuses the push: {why}", run.request.remote, run.request.branch);
    BackupError::new(Code::GitRejected, message)
}
