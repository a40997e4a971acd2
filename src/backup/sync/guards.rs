//! The guards: they refuse a sync that would delete too much or publish secrets.

use std::io;

use crate::backup::{RemoteTip, RunContext};
use crate::config::Config;
use crate::git::{self, Change, Git, GitPath, Mark, TreeDiff};
use crate::model::{BackupError, Code, Result, Warnings};
use crate::process::RunEnv;
use crate::request::SyncRequest;
use crate::util::{Sample, files};
use crate::windmill::{Account, Deletions, Kinds, SETTINGS_FILE, WMILL_LOCK, deletions, secret_files};

/// Size limit for a variable. A larger one is treated as a secret in plain text; Windmill's own limit is far lower.
const VARIABLE_BYTES_MAX: u64 = 1 << 20;

/// Refuses to export the encryption key, unless the settings allow it. Only the settings can ask for it.
///
/// # Errors
/// [`BackupError`] if it refuses.
pub fn refuse_the_key(config: &Config) -> Result<()> {
    let is_asked_for = config.kinds_included.as_ref().is_some_and(|kinds| kinds.contains(&"key"));
    if is_asked_for && !config.allow_plaintext_secrets {
        let message = "WMILL_INCLUDE asks for the workspace's encryption key: with it in the repository, all secrets \
                       in its history can be read. Set ALLOW_PLAINTEXT_SECRETS=true if that is what you want";
        return Err(BackupError::new(Code::PlaintextSecrets, message));
    }
    Ok(())
}

/// Refuses a token that is not an admin's if the last success had an admin's token: the sync would delete what its user
/// may not see.
///
/// # Errors
/// [`BackupError`] if it refuses.
pub fn refuse_lost_rights(run: RunContext<'_>, account: &Account) -> Result<()> {
    let request = run.request;
    let (workspace, destination) = (&request.workspace, request.destination());
    let was_admin = || (run.env.last_token_user)(workspace.as_str(), &destination).is_some_and(|last| last.admin);
    if account.is_admin || request.flags.allow_lost_rights || !request.configured || !was_admin() {
        return Ok(());
    }
    let user = account.user.as_ref().map_or("", |(name, _)| name);
    let message = format!(
        "the token is not an admin's of workspace `{workspace}` (its user is `{user}`), and that of the last backup \
         was: what this user may not see would be deleted from the backup. Use a token of an admin; or allow it \
         once: `windmill-git-sync sync --workspace {workspace} --allow-lost-rights` (in a request with \
         SYNC_API_TOKEN, \"allow_lost_rights\": true); nothing was committed"
    );
    Err(BackupError::new(Code::LostRights, message))
}

/// Refuses to write the workspace of `target` to a repository that everyone can read, unless the settings allow it. It
/// only warns if `tip`, a commit of `source`, is a backup of the same workspace.
///
/// # Errors
/// [`BackupError`] if it refuses.
pub fn refuse_a_public_repository(
    source: RunContext<'_>,
    target: RunContext<'_>,
    run_env: &RunEnv,
    tip: &RemoteTip,
    warnings: &mut Warnings,
) -> Result<()> {
    let SyncRequest { remote, workspace, .. } = target.request;
    if target.env.config.allow_public_repository || !git::is_public(remote, run_env) {
        return Ok(());
    }
    let what = format!("everyone can read {remote}, and all but secret variables of workspace `{workspace}`");
    // Each pull of wmill writes its file of hashes.
    let is_lock = |(path, _): (GitPath, _)| path == WMILL_LOCK.as_bytes();
    let mut entries = tip.folder.entries()?;
    if source.request.workspace == *workspace && entries.any(|entry| entry.is_ok_and(is_lock)) {
        warnings.add(format!("{what} with it; make it private, or set ALLOW_PUBLIC_REPOSITORY=true if that is meant"));
        return Ok(());
    }
    let message = format!(
        "{what} would be in it: make the repository private, or set ALLOW_PUBLIC_REPOSITORY=true if that is meant (for \
         one run: `ALLOW_PUBLIC_REPOSITORY=true windmill-git-sync sync`, or --no-backup-first for a restore); nothing \
         was changed"
    );
    Err(BackupError::new(Code::PublicRepository, message))
}

/// Refuses a commit that would delete too much or publish secrets.
///
/// # Errors
/// [`BackupError`] if it refuses.
pub fn check(run: RunContext<'_>, git: &Git<'_>, comparison: &TreeDiff, kinds: &Kinds) -> Result<()> {
    if !run.env.config.allow_plaintext_secrets {
        let plain = changed_files(comparison, |mark, path| mark != Mark::Deleted && holds_plain_secret(git, path))?;
        if !plain.is_empty() {
            let message = format!(
                "Windmill gave out secrets in plain text, which would stay in the repository's history for ever: {plain}; \
                 nothing was committed. Set ALLOW_PLAINTEXT_SECRETS=true if that is what you want"
            );
            return Err(BackupError::new(Code::PlaintextSecrets, message));
        }
    }
    if run.request.flags.allow_mass_deletion || comparison.changed.deleted == 0 {
        return Ok(());
    }
    let deletions = deletions(comparison, kinds)?;
    if !deletions.exceeds(run.env.config.deletions_percent_max) {
        return Ok(());
    }
    let names: Sample = deletions.deleted.iter().map(ToString::to_string).collect();
    let message = format!(
        "the sync would delete {} of {} items of workspace `{}` from the backup ({names}): is this the right \
         workspace, and does the token still see everything? If this is right, allow it for one run \
         (--allow-mass-deletion, or \"allow_mass_deletion\": true); nothing was committed",
        deletions.deleted.len(),
        deletions.total,
        run.request.workspace,
    );
    Err(BackupError::new(Code::MassDeletion, message))
}

fn deletions(comparison: &TreeDiff, kinds: &Kinds) -> io::Result<Deletions> {
    let files = comparison.pairs()?.map(|pair| {
        let (path, (before, after)) = pair?;
        // Windmill has no path that is not UTF-8.
        let path = String::from_utf8(path).unwrap_or_default();
        Ok((path, [before, after].map(|entry| entry.map(|entry| entry.object))))
    });
    deletions::deletions(files, kinds)
}

/// Returns the changed files that `is_wanted` accepts. Leaves out paths that are not UTF-8: Windmill has none.
///
/// # Errors
/// [`BackupError`] if the disk fails.
pub fn changed_files(comparison: &TreeDiff, mut is_wanted: impl FnMut(Mark, &str) -> bool) -> Result<Sample> {
    let mut wanted = Sample::default();
    for change in comparison.changes()? {
        let Change { mark, path, .. } = change?;
        if std::str::from_utf8(&path).is_ok_and(|path| is_wanted(mark, path)) {
            wanted.add(&path);
        }
    }
    Ok(wanted)
}

/// Returns whether a file in git's folder holds the encryption key or a secret in plain text. It returns `true` for a
/// file that cannot be read or is larger than any variable, since it may hold a secret.
pub fn holds_plain_secret(git: &Git<'_>, path: &str) -> bool {
    let read = || files::read_file(&git.tree_folder().join(path), VARIABLE_BYTES_MAX + 1);
    secret_files::is_encryption_key(path)
        || (path == SETTINGS_FILE && read().map_or(true, |content| secret_files::has_secret_setting(path, &content)))
        || (path.contains(".variable.")
            && !read().is_ok_and(|content| {
                content.len() as u64 <= VARIABLE_BYTES_MAX && !secret_files::is_plaintext_secret(path, &content)
            }))
}
