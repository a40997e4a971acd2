//! Pushes a commit, and reads the branch back to see that it arrived.

use crate::backup::error::BackupError;
use crate::backup::progress::Step;
use crate::backup::run_context::RunContext;
use crate::git::object::ObjectId;
use crate::git::{self, Git, GitError, Pushed};
use crate::model::result_code::Code;
use crate::util::parallel::both;

/// The outcome of a push.
pub enum PushOutcome {
    /// The commit was seen on the remote.
    Confirmed,
    /// The push was rejected, perhaps because another writer was first. Holds what the server said.
    Rejected(String),
    /// The remote refuses some of the files, and would accept the others.
    RefusedFiles {
        /// Their paths in the repository.
        paths: Vec<String>,
        /// What the server said.
        why: String,
    },
}

/// Pushes the commit to the remote. If the answer to a push was lost, asks the remote before it pushes again.
///
/// # Errors
/// [`BackupError`] if the remote refuses the commit or does not answer.
pub fn deliver(run: RunContext<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<PushOutcome, BackupError> {
    let mut may_be_there = false;
    run.patiently(Step::Push, git.run_env(), || {
        if std::mem::replace(&mut may_be_there, true) && is_there(run, git, commit)? {
            return Ok(PushOutcome::Confirmed);
        }
        match git.push(commit)? {
            Pushed::Accepted if is_there(run, git, commit)? => Ok(PushOutcome::Confirmed),
            Pushed::Accepted => {
                let why = "the server took the commit, but the branch does not hold it now";
                Ok(PushOutcome::Rejected(why.to_owned()))
            }
            Pushed::Outrun(why) => Ok(PushOutcome::Rejected(why)),
            Pushed::Refused(why) => {
                let paths = git::refused_paths(&why);
                if paths.is_empty() { Err(refused(run, &why)) } else { Ok(PushOutcome::RefusedFiles { paths, why }) }
            }
        }
    })
}

/// Returns whether the branch of the remote holds the commit. At the same time, notes that the checkout is at that
/// commit. If the branch does not hold it after all, the next fetch corrects the note.
fn is_there(run: RunContext<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<bool, GitError> {
    let (noted, state) = both("note", || git.set_tip_ref(commit), || git.remote_state());
    if let Err(error) = noted {
        // This costs the next sync a fetch, but the current sync still counts.
        log::warn!("cannot note where the checkout stands: {}", BackupError::from(error).message);
    }
    let state = state?;
    run.note_head(&state);
    git.contains(commit, state.tip.as_ref())
}

/// Returns the error for a server that does not accept the commit.
#[must_use]
pub fn refused(run: RunContext<'_>, why: &str) -> BackupError {
    let message = format!("{} (branch `{}`) refuses the push: {why}", run.request.remote, run.request.branch);
    BackupError::new(Code::GitRejected, message)
}
