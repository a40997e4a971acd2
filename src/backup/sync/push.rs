//! Brings a commit to the remote, and sees that it is there. Which commit that is, is for others.

use crate::both::both;
use crate::code::Code;
use crate::fault::{Fault, Remedy};
use crate::git::{Git, GitError, Pushed};
use crate::object::ObjectId;
use crate::task::{Step, Task};

/// What came of a push.
pub enum Arrival {
    /// The commit was seen on the remote.
    Confirmed,
    /// Perhaps since another writer was first; what the server said.
    Rejected(String),
}

/// Brings the commit to the remote. Where the answer to a push was lost, the remote is asked before another.
///
/// # Errors
/// [`Fault`]: the remote refuses it, or does not answer.
pub fn deliver(task: Task<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<Arrival, Fault> {
    let failed = |error| task.git_error(Step::Push, error);
    let mut may_be_there = false;
    let pushed = task.patiently(Step::Push, git.place(), || {
        if std::mem::replace(&mut may_be_there, true) && is_there(task, git, commit).map_err(failed)? {
            return Ok(Arrival::Confirmed);
        }
        push_once(task, git, commit)
    });
    match pushed {
        // The last answer of all may have been lost too.
        Err(error) if matches!(error.remedy, Remedy::Time(_)) => {
            if is_there(task, git, commit).unwrap_or(false) {
                Ok(Arrival::Confirmed)
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

fn push_once(task: Task<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<Arrival, Fault> {
    let failed = |error| task.git_error(Step::Push, error);
    match git.push(commit).map_err(failed)? {
        Pushed::Accepted => {}
        Pushed::Outrun(why) => return Ok(Arrival::Rejected(why)),
        Pushed::Refused(why) => return Err(refused(task, &why)),
    }
    if is_there(task, git, commit).map_err(failed)? {
        return Ok(Arrival::Confirmed);
    }
    Ok(Arrival::Rejected("the server took the commit, but the branch does not hold it now".to_owned()))
}

/// Whether the branch of the remote holds the commit. Meanwhile it is noted that the checkout stands there; should it not
/// be on the branch after all, the next fetch notes where it stands.
fn is_there(task: Task<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<bool, GitError> {
    let (noted, state) = both("note", || git.stand_at(commit), || git.remote_state());
    if let Err(error) = noted {
        // It costs the next sync a fetch, and does not unmake this one.
        log::warn!("cannot note where the checkout stands: {}", task.git_error(Step::Push, error).message);
    }
    git.has_arrived(commit, state?.tip.as_ref())
}

/// What a server said that does not want the commit.
#[must_use]
pub fn refused(task: Task<'_>, why: &str) -> Fault {
    let message = format!("{} (branch `{}`) refuses the push: {why}", task.request.remote, task.request.branch);
    Fault::new(Code::GitRejected, message)
}
