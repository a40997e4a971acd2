//! For which workspaces a draft is: one, those of the setting, or, where that says all, those that Windmill names. It
//! does not know what is done with them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::code::Code;
use crate::config::{ADMINS, Config, WORKSPACES_MAX};
use crate::deadline::{Deadline, Expired, Interrupt};
use crate::names::WorkspaceId;
use crate::scrubber::Scrubber;
use crate::secret::Secret;
use crate::sync_request::{Draft, RequestError, SyncRequest, Wanted};
use crate::windmill::{self, WindmillError};

/// For the question and its tries.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Which workspaces there were when Windmill was asked last.
#[derive(Default)]
pub struct Roster(Mutex<Option<Vec<WorkspaceId>>>);

/// What is asked for.
pub enum Asked {
    /// One sync, with a result of its own.
    One(Box<SyncRequest>),
    /// One for each workspace, at least one, with the results in a list.
    Several(Vec<SyncRequest>),
}

impl Roster {
    /// The syncs that a draft asks for. Windmill is asked where that is all that its token sees.
    ///
    /// # Errors
    /// Those of [`Draft::request`]; for all workspaces, why they are not known: Windmill is unreachable, refuses the
    /// token, names none, or more than are kept apart.
    pub fn requests(&self, draft: &Draft<'_>, config: &Config, interrupt: &Interrupt) -> Result<Asked, RequestError> {
        let listed = match draft.wanted()? {
            Wanted::One(workspace) => {
                let request = draft.request(&workspace)?;
                // All are those that Windmill names, and not whatever a caller makes up.
                if let Some(token) = draft.listing_token()
                    && !ask(config, &token, interrupt)?.contains(&workspace)
                {
                    let message = format!("WINDMILL_WORKSPACE is *, and the token sees no workspace `{workspace}`");
                    return Err(RequestError { code: Code::WorkspaceNotFound, message });
                }
                return Ok(Asked::One(Box::new(request)));
            }
            Wanted::Several(listed) => listed,
            Wanted::All(token) => ask(config, &token, interrupt)?,
        };
        let requests: Result<Vec<_>, _> = listed.iter().map(|workspace| draft.request(workspace)).collect();
        let requests = requests?;
        if requests.iter().all(|request| request.configured) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listed);
        }
        Ok(Asked::Several(requests))
    }

    /// The configured workspaces as they were named last; nothing before Windmill was asked.
    #[must_use]
    pub fn last(&self) -> Option<Vec<WorkspaceId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All that `token` sees, in Windmill's order, without its own and archived ones.
///
/// # Errors
/// Why they are not known: Windmill is unreachable, refuses the token, names none, or more than are kept apart.
pub fn ask(config: &Config, token: &Secret, interrupt: &Interrupt) -> Result<Vec<WorkspaceId>, RequestError> {
    let deadline = Deadline::after(ANSWER_TIME_MAX.min(config.sync_timeout), interrupt);
    let listed = windmill::list_workspaces(&config.base_url, token, &deadline, &config.tool_environment);
    let mut listed = listed.map_err(|error| in_words(error, token))?;
    listed.retain(|workspace| workspace.as_str() != ADMINS);
    let message = match listed.len() {
        1..=WORKSPACES_MAX => return Ok(listed),
        0 => "the token sees no workspace but `admins`".to_owned(),
        count => format!("the token sees {count} workspaces, and one service backs up {WORKSPACES_MAX} at most"),
    };
    Err(RequestError { code: Code::WorkspaceNotFound, message: ["WINDMILL_WORKSPACE is *: ", &message].concat() })
}

fn in_words(error: WindmillError, token: &Secret) -> RequestError {
    let (code, message) = match error {
        WindmillError::Failed { code, message, .. } => (code, message),
        WindmillError::Machine(message) => (Code::PullFailed, message),
        WindmillError::Expired(Expired::TimedOut) => {
            (Code::Timeout, "Windmill did not list its workspaces in time".to_owned())
        }
        WindmillError::Expired(Expired::Interrupted) => (Code::ShuttingDown, "the service is ending".to_owned()),
    };
    RequestError { code, message: Scrubber::new([token]).scrub(&message) }
}
