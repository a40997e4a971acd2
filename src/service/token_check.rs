//! Asks Windmill about the token that a request brings, and decides whether the request is a run of the configured
//! backup, before it enters the queue.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::backup::workspaces;
use crate::model::{BackupError, Code, Result, TokenUser};
use crate::request::SyncRequest;
use crate::service::Service;
use crate::util::lock;

/// The most simultaneous questions. Each holds a thread and a connection to Windmill, and anyone on the network can
/// cause one.
const QUESTIONS_MAX: usize = 4;
/// The longest wait of a request before it may ask. A question takes milliseconds, or seconds if Windmill is slow.
const QUESTION_WAIT_MAX: Duration = Duration::from_secs(30);

/// Counts the questions that are being asked.
#[derive(Default)]
pub struct TokenCheck {
    asking: Mutex<usize>,
    ended: Condvar,
}

/// The permission to ask, until this is dropped.
pub struct Question<'a>(&'a TokenCheck);

impl TokenCheck {
    /// Waits until Windmill may be asked.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] if other requests keep asking for too long.
    pub fn begin(&self) -> Result<Question<'_>> {
        let is_full = |asking: &mut usize| *asking >= QUESTIONS_MAX;
        let waited = self.ended.wait_timeout_while(lock(&self.asking), QUESTION_WAIT_MAX, is_full);
        let (mut asking, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(BackupError::new(Code::TooManyRequests, "too many requests bring a Windmill token at once"));
        }
        *asking += 1;
        Ok(Question(self))
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        *lock(&self.0.asking) -= 1;
        self.0.ended.notify_one();
    }
}

/// Asks Windmill who the user of the request's token is. If the last backup had the token of another user, and none of
/// the two users is an admin, the request of a trusted sender becomes a run that does not count for the configured
/// backup.
///
/// # Errors
/// Windmill's refusal; [`Code::LostRights`] or [`Code::Forbidden`] if the token may see less than the token of the last
/// backup.
pub fn admit(request: &mut SyncRequest, service: &Service) -> Result<()> {
    let Service { config, recorder, cancel, .. } = service;
    let user = workspaces::token_user(config, request, cancel)?;
    if !request.configured {
        return Ok(());
    }
    let workspace = request.workspace.as_str();
    let last = recorder.history.token_user(workspace, &request.destination());
    let Err((code, last)) = compare(&user, last.as_ref()) else { return Ok(()) };
    if code == Code::LostRights && request.flags.allow_lost_rights {
        return Ok(());
    }
    if code == Code::Forbidden && config.api_token.is_some() {
        request.configured = false;
        return Ok(());
    }
    let message = format!(
        "the token is not an admin's of workspace `{workspace}` (its user is `{}`), and {last}: what this user may not \
         see would be deleted from the backup; use a token of an admin of the workspace",
        user.name
    );
    Err(BackupError::new(code, message))
}

/// Whether a token of `user` may make the configured backup, if the last backup had a token of `last`. If the last user
/// is not known (a new volume, or a history of an earlier version), any token may. The error says why not.
fn compare(user: &TokenUser, last: Option<&TokenUser>) -> Result<(), (Code, &'static str)> {
    match last {
        None => Ok(()),
        _ if user.admin => Ok(()),
        Some(last) if last.admin => Err((Code::LostRights, "that of the last backup was")),
        Some(last) if last.name == user.name => Ok(()),
        Some(_) => Err((Code::Forbidden, "the last backup is another user's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_sees_less_than_the_last_one_makes_no_configured_backup() {
        let user = |name: &str, admin| TokenUser { name: name.to_owned(), admin };
        let (ann, bob) = (user("ann", true), user("bob", false));
        for (user, last, expected) in [
            (&ann, None, Ok(())),
            (&bob, None, Ok(())),
            (&bob, Some(&ann), Err(Code::LostRights)),
            (&user("ann", false), Some(&ann), Err(Code::LostRights)),
            (&user("eve", true), Some(&ann), Ok(())),
            (&bob, Some(&bob), Ok(())),
            (&user("eve", false), Some(&bob), Err(Code::Forbidden)),
            (&ann, Some(&bob), Ok(())),
        ] {
            assert_eq!(compare(user, last).map_err(|(code, _)| code), expected, "{user:?} after {last:?}");
        }
    }
}
