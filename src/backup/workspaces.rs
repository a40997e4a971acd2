//! The workspaces of a request: one, the configured list, or all that Windmill lists for the token.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::{Config, WORKSPACES_MAX};
use crate::model::names::ADMINS;
use crate::model::names::{FORK, WORKSPACE_MARK, WorkspaceId};
use crate::model::result_code::Code;
use crate::model::run_result::TokenUser;
use crate::request::{self, Draft, RequestError, SyncRequest, Target};
use crate::util::deadline::{CancelToken, Deadline, Expired};
use crate::util::redact::Redactor;
use crate::util::secret::Secret;
use crate::windmill::api::{self, Windmill, WindmillError};

/// For the question and its tries.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Which workspaces there were when Windmill was asked last.
#[derive(Default)]
pub struct WorkspaceList(Mutex<Option<Vec<WorkspaceId>>>);

/// What is asked for.
pub enum Requests {
    /// One sync, with a result of its own.
    One(Box<SyncRequest>),
    /// One for each workspace, at least one, with the results in a list.
    Several(Vec<SyncRequest>),
}

impl WorkspaceList {
    /// The syncs that a draft asks for. Windmill is asked where that is all that its token sees.
    ///
    /// # Errors
    /// Those of [`Draft::request`]; for all workspaces, why they are not known: Windmill is unreachable, refuses the
    /// token, names none, or more than are kept apart.
    pub fn requests(&self, draft: &Draft<'_>, config: &Config, cancel: &CancelToken) -> Result<Requests, RequestError> {
        let (listed, forks) = match draft.wanted()? {
            Target::One(workspace) => {
                let request = draft.request(&workspace)?;
                // All are those that Windmill names, and not whatever a caller makes up.
                if let Some(token) = draft.listing_token()
                    && !ask(config, &token, cancel)?.listed.contains(&workspace)
                {
                    let message = format!("WINDMILL_WORKSPACE is *, and the token sees no workspace `{workspace}`");
                    return Err(RequestError { code: Code::WorkspaceNotFound, message });
                }
                return Ok(Requests::One(Box::new(request)));
            }
            Target::Several(listed) => (listed, Vec::new()),
            Target::All(token) => {
                let Seen { listed, forks } = ask(config, &token, cancel)?;
                (listed, forks)
            }
        };
        let requests: Result<Vec<_>, _> = listed.iter().map(|workspace| draft.request(workspace)).collect();
        let mut requests = requests?;
        requests.iter_mut().for_each(|request| request.forks_left_out.clone_from(&forks));
        // A token of the request's own sees other ones than the configured one.
        if !draft.brings_windmill_token() && requests.iter().all(|request| request.configured) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listed);
        }
        Ok(Requests::Several(requests))
    }

    /// The configured workspaces as they were named last; nothing before Windmill was asked.
    #[must_use]
    pub fn last(&self) -> Option<Vec<WorkspaceId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The workspaces that a token sees.
pub struct Seen {
    /// Those that are backed up.
    pub listed: Vec<WorkspaceId>,
    /// Forks, where each workspace has a branch: wmill takes the branch of such a one for an order.
    pub forks: Vec<WorkspaceId>,
}

/// All that `token` sees, in Windmill's order, without its own and archived ones.
///
/// # Errors
/// Why they are not known: Windmill is unreachable, refuses the token, names none, or more than are kept apart.
pub fn ask(config: &Config, token: &Secret, cancel: &CancelToken) -> Result<Seen, RequestError> {
    let deadline = Deadline::after(ANSWER_TIME_MAX.min(config.sync_timeout), cancel);
    let headers =
        request::windmill_headers(config).map_err(|message| RequestError { code: Code::ConfigInvalid, message })?;
    let listed = api::list_workspaces(&config.base_url, token, &headers, &deadline, &config.tool_environment);
    let mut listed = listed.map_err(|error| in_words(error, token))?;
    let has_branches = config.branch.contains(WORKSPACE_MARK);
    let mut forks = Vec::new();
    listed.retain(|workspace| {
        let is_fork = has_branches && workspace.as_str().starts_with(FORK);
        if is_fork {
            forks.push(workspace.clone());
        }
        workspace.as_str() != ADMINS && !is_fork
    });
    let message = match listed.len() {
        1..=WORKSPACES_MAX => return Ok(Seen { listed, forks }),
        0 if !forks.is_empty() => "the token sees no workspace but `admins` and forks".to_owned(),
        0 => "the token sees no workspace but `admins`".to_owned(),
        count => format!("the token sees {count} workspaces, and one service backs up {WORKSPACES_MAX} at most"),
    };
    Err(RequestError { code: Code::WorkspaceNotFound, message: ["WINDMILL_WORKSPACE is *: ", &message].concat() })
}

/// Whose token a request brings, in its workspace.
///
/// # Errors
/// Windmill is unreachable, refuses the token, or does not show it the workspace.
pub fn token_user(config: &Config, request: &SyncRequest, cancel: &CancelToken) -> Result<TokenUser, RequestError> {
    let deadline = Deadline::after(ANSWER_TIME_MAX.min(config.sync_timeout), cancel);
    let SyncRequest { base_url, workspace, windmill_token: token, windmill_headers: headers, .. } = request;
    let windmill = Windmill::new(base_url, workspace, token, headers, &deadline, &config.tool_environment);
    windmill.token_user().map_err(|error| in_words(error, token))
}

fn in_words(error: WindmillError, token: &Secret) -> RequestError {
    let (code, message) = match error {
        WindmillError::Failed { code, message, .. } => (code, message),
        WindmillError::Machine(message) => (Code::PullFailed, message),
        WindmillError::Expired(Expired::TimedOut) => (Code::Timeout, "Windmill did not answer in time".to_owned()),
        WindmillError::Expired(Expired::Cancelled) => (Code::ShuttingDown, "the service is ending".to_owned()),
    };
    RequestError { code, message: Redactor::new([token]).redact(&message) }
}
