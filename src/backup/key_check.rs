//! Checks whether a file holds the key that encrypted the secrets of the backup. It needs only git.

use std::time::Instant;

use crate::backup::{Env, Place, branch_history, new_run_id};
use crate::model::{Code, Result, SyncResult};
use crate::util::{Secret, time};
use crate::windmill::{KEY_TRAILER, fingerprint};

/// The trailer that names the workspace of a commit.
const WORKSPACE_TRAILER: &str = "Windmill-Workspace";

/// Compares the fingerprint of `key` with the one in the workspace's last commit. The result code is
/// [`Code::Unchanged`] if they are equal, otherwise [`Code::Differs`].
///
/// # Errors
/// `BackupError` if the settings are wrong, the disk or git fails, or the time runs out.
pub fn run(env: &Env<'_>, key: &Secret) -> Result<SyncResult> {
    let (started, place) = (Instant::now(), Place::of(env.config)?);
    let Place { workspace, branch, .. } = &place;
    let mut last = None;
    branch_history::fetch_until(env, branch, 1, &mut |git, tip| {
        last = git.commit_text(tip, Some(&format!("{WORKSPACE_TRAILER}: {workspace}$")))?;
        Ok(last.is_some())
    })?;
    let known = last.as_ref().map(|commit| commit.trailer(KEY_TRAILER));
    let is_held = known == Some(Some(&fingerprint(key)));
    let message = match known {
        Some(Some(_)) if is_held => {
            format!("the file holds the key of the secrets in the backup of workspace `{workspace}`")
        }
        Some(Some(_)) => {
            format!("the file holds another key than that of the secrets in the backup of workspace `{workspace}`")
        }
        Some(None) => format!("the last commit of workspace `{workspace}` has no fingerprint of its key"),
        None => format!("branch `{branch}` has no commit of workspace `{workspace}`"),
    };
    let code = if is_held { Code::Unchanged } else { Code::Differs };
    let result = SyncResult::bare(code, message, new_run_id(), workspace.to_string(), branch.to_string());
    Ok(SyncResult { duration_ms: time::millis(started.elapsed()), ..result })
}
