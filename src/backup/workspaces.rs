//! The workspaces of a request: one, the configured list, or all that Windmill lists for the token.

use std::time::Duration;

use crate::backup::error::BackupError;
use crate::config::{Config, WORKSPACES_MAX};
use crate::git::tree_diff::Sample;
use crate::model::{ADMINS, Code, FORK, TokenUser, WORKSPACE_MARK, WorkspaceId};
use crate::request::{self, Draft, RequestError, SyncRequest, Target};
use crate::util::{CancelToken, Deadline, Expired, Redactor, Secret, retry};
use crate::windmill::api::Windmill;

/// Time limit for one request to Windmill, with all its attempts.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// The syncs that a request asks for.
pub struct Requests {
    /// One sync for each workspace, at least one.
    pub list: Vec<SyncRequest>,
    /// Whether the request is for one sync, so that its result is not in a list.
    pub is_single: bool,
}

/// Returns the syncs that a draft asks for. Asks Windmill if the draft is for all workspaces that its token sees.
///
/// # Errors
/// The errors of [`Draft::request`]. For all workspaces, also an error if Windmill is unreachable or refuses the
/// token, or if the token sees no workspace, more than [`WORKSPACES_MAX`], or not the one that the draft names.
pub fn requests(draft: &Draft<'_>, config: &Config, cancel: &CancelToken) -> Result<Requests, RequestError> {
    let (seen, is_all) = match draft.wanted()? {
        Target::One(workspace) => {
            let request = draft.request(&workspace)?;
            // "All" stands for the workspaces that Windmill lists, not for any name that a caller sends.
            if let Some(token) = draft.listing_token()
                && !ask(config, &token, cancel)?.listed.contains(&workspace)
            {
                let message = format!("WINDMILL_WORKSPACE is *, and the token sees no workspace `{workspace}`");
                return Err(RequestError { code: Code::WorkspaceNotFound, message });
            }
            return Ok(Requests { list: vec![request], is_single: true });
        }
        Target::Several(listed) => (Seen { listed, forks: Vec::new() }, false),
        Target::All(token) => (ask(config, &token, cancel)?, true),
    };
    let mut list = Vec::new();
    let mut unnameable = Sample::default();
    let mut first = None;
    for workspace in &seen.listed {
        match draft.request(workspace) {
            Ok(request) => list.push(request),
            Err(error) if !is_all => return Err(error),
            // The templates make an invalid name for this workspace. Windmill listed it, so it must not stop the
            // others.
            Err(error) => {
                unnameable.add(format!("{workspace} ({})", error.message).as_bytes());
                first.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first.filter(|_| list.is_empty()) {
        return Err(error);
    }
    let warnings = list_warnings(&seen.forks, &unnameable);
    for request in &mut list {
        request.list_warnings.clone_from(&warnings);
    }
    Ok(Requests { list, is_single: false })
}

/// Returns the warnings about the workspaces that are left out.
pub(super) fn list_warnings(forks: &[WorkspaceId], unnameable: &Sample) -> Vec<String> {
    let mut warnings = Vec::new();
    if !forks.is_empty() {
        let forks: Vec<_> = forks.iter().map(WorkspaceId::as_str).collect();
        let why = "on a branch with such a name wmill selects another workspace, so GIT_BRANCH cannot have {workspace} \
                   for them";
        warnings.push(format!("WINDMILL_WORKSPACE is *, and forks are left out ({}): {why}", forks.join(", ")));
    }
    if !unnameable.is_empty() {
        warnings.push(format!(
            "WINDMILL_WORKSPACE is *, and workspaces are left out, since GIT_BRANCH or GIT_SUBDIR makes no valid name of \
             them: {unnameable}"
        ));
    }
    warnings
}

/// The workspaces that a token sees.
pub struct Seen {
    /// The workspaces to back up.
    pub listed: Vec<WorkspaceId>,
    /// Forks, if each workspace has its own branch: wmill reads the name of a fork's branch as an instruction.
    pub forks: Vec<WorkspaceId>,
}

/// Asks Windmill which workspaces `token` sees, in Windmill's order. `admins` and archived workspaces are left out.
///
/// # Errors
/// [`RequestError`] if Windmill is unreachable or refuses the token, or if the token sees no workspace or more than
/// [`WORKSPACES_MAX`].
pub fn ask(config: &Config, token: &Secret, cancel: &CancelToken) -> Result<Seen, RequestError> {
    let deadline = Deadline::after(ANSWER_TIME_MAX.min(config.sync_timeout), cancel);
    let headers =
        request::windmill_headers(config).map_err(|message| RequestError { code: Code::ConfigInvalid, message })?;
    // The client needs a workspace, but this request does not use it.
    let any = WorkspaceId::parse(ADMINS).map_err(|message| RequestError { code: Code::Internal, message })?;
    let windmill = Windmill::new(&config.base_url, &any, token, &headers, &deadline, &config.tool_environment);
    let listed = retry::patiently(&deadline, || windmill.workspaces());
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

/// Asks Windmill who the user of the request's token is, in the request's workspace.
///
/// # Errors
/// [`RequestError`] if Windmill is unreachable, refuses the token, or does not show it the workspace.
pub fn token_user(config: &Config, request: &SyncRequest, cancel: &CancelToken) -> Result<TokenUser, RequestError> {
    let deadline = Deadline::after(ANSWER_TIME_MAX.min(config.sync_timeout), cancel);
    let SyncRequest { base_url, workspace, windmill_token: token, windmill_headers: headers, .. } = request;
    let windmill = Windmill::new(base_url, workspace, token, headers, &deadline, &config.tool_environment);
    windmill.token_user().map_err(|error| in_words(error, token))
}

fn in_words(error: BackupError, token: &Secret) -> RequestError {
    let error = error.explained(|expired| match expired {
        Expired::TimedOut => "Windmill did not answer in time".to_owned(),
        Expired::Cancelled => "the service is shutting down".to_owned(),
    });
    RequestError { code: error.code, message: Redactor::new([token]).redact(&error.message) }
}
