//! The workspaces of a request: one, the configured list, or all that Windmill lists for the token.

use std::time::Duration;

use crate::config::{Config, WORKSPACES_MAX};
use crate::model::{ADMINS, BackupError, Code, FORK, Result, TokenUser, WORKSPACE_MARK, WorkspaceId};
use crate::request::{self, Draft, SyncRequest, Target};
use crate::util::{CancelToken, Deadline, Sample, Secret, retry};
use crate::windmill::Windmill;

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
pub fn requests(draft: &Draft<'_>, config: &Config, cancel: &CancelToken) -> Result<Requests> {
    let (listed, warnings) = match draft.wanted()? {
        Target::One(workspace) => {
            let request = draft.request(&workspace)?;
            // "All" stands for the workspaces that Windmill lists, not for any name that a caller sends.
            if let Some(token) = draft.listing_token()
                && !ask(config, &token, cancel)?.0.contains(&workspace)
            {
                let message = format!("WINDMILL_WORKSPACE is *, and the token sees no workspace `{workspace}`");
                return Err(BackupError::new(Code::WorkspaceNotFound, message));
            }
            return Ok(Requests { list: vec![request], is_single: true });
        }
        Target::Several(listed) => (listed, Vec::new()),
        Target::All(token) => ask(config, &token, cancel)?,
    };
    let of_workspace = |workspace| Ok(SyncRequest { list_warnings: warnings.clone(), ..draft.request(workspace)? });
    Ok(Requests { list: listed.iter().map(of_workspace).collect::<Result<_>>()?, is_single: false })
}

/// Asks Windmill which workspaces `token` sees, in Windmill's order. Returns those to back up, at least one, and the
/// warnings about those that are left out. `admins` and archived workspaces are left out. So are forks, if each
/// workspace has its own branch, and workspaces for which the templates make an invalid name: Windmill listed them, so
/// they must not stop the others.
///
/// # Errors
/// [`BackupError`] if Windmill is unreachable or refuses the token, or if the token sees no workspace to back up or
/// more than [`WORKSPACES_MAX`].
pub fn ask(config: &Config, token: &Secret, cancel: &CancelToken) -> Result<(Vec<WorkspaceId>, Vec<String>)> {
    let deadline = Deadline::after(ANSWER_TIME_MAX.min(config.sync_timeout), cancel);
    let headers = request::windmill_headers(config).map_err(|why| BackupError::new(Code::ConfigInvalid, why))?;
    // The client needs a workspace, but this request does not use it.
    let any = WorkspaceId::parse(ADMINS).map_err(|why| BackupError::new(Code::Internal, why))?;
    let windmill = Windmill::new(&config.base_url, &any, token, &headers, &deadline, &config.tool_environment);
    let seen = retry::patiently(&deadline, || windmill.workspaces()).map_err(in_words)?;
    let (mut listed, mut forks, mut unnameable) = (Vec::new(), Sample::default(), Sample::default());
    for id in seen.into_iter().filter(|id| id.as_str() != ADMINS) {
        if config.branch.contains(WORKSPACE_MARK) && id.as_str().starts_with(FORK) {
            forks.add(id.as_str().as_bytes());
        } else if let Some(why) = config.branch_for(&id).err().or_else(|| config.subdir_for(&id).err()) {
            unnameable.add(format!("{id} ({why})").as_bytes());
        } else {
            listed.push(id);
        }
    }
    let mut warnings = Vec::new();
    if !forks.is_empty() {
        let why = "on a branch with such a name wmill selects another workspace, so GIT_BRANCH cannot have {workspace} \
                   for them";
        warnings.push(format!("WINDMILL_WORKSPACE is *, and forks are left out ({forks}): {why}"));
    }
    if !unnameable.is_empty() {
        warnings.push(format!(
            "WINDMILL_WORKSPACE is *, and workspaces are left out, since GIT_BRANCH or GIT_SUBDIR makes no valid name of \
             them: {unnameable}"
        ));
    }
    let count = listed.len();
    if (1..=WORKSPACES_MAX).contains(&count) {
        return Ok((listed, warnings));
    }
    let code = if unnameable.is_empty() { Code::WorkspaceNotFound } else { Code::ConfigInvalid };
    let why = format!(
        "WINDMILL_WORKSPACE is *, and the token sees {count} workspaces to back up (besides `admins`); one service backs \
         up 1 to {WORKSPACES_MAX}"
    );
    warnings.insert(0, why);
    Err(BackupError::new(code, warnings.join("; ")))
}

/// Asks Windmill who the user of the request's token is, in the request's workspace.
///
/// # Errors
/// [`BackupError`] if Windmill is unreachable, refuses the token, or does not show it the workspace.
pub fn token_user(config: &Config, request: &SyncRequest, cancel: &CancelToken) -> Result<TokenUser> {
    let deadline = Deadline::after(ANSWER_TIME_MAX.min(config.sync_timeout), cancel);
    let SyncRequest { base_url, workspace, windmill_token: token, windmill_headers: headers, .. } = request;
    let windmill = Windmill::new(base_url, workspace, token, headers, &deadline, &config.tool_environment);
    windmill.token_user().map_err(in_words)
}

fn in_words(error: BackupError) -> BackupError {
    let (timed_out, cancelled) = ("Windmill did not answer in time", "the service is shutting down");
    error.explained(timed_out.to_owned(), cancelled.to_owned())
}
