//! What is refused although nothing failed: to delete too much, and to publish secrets.

use std::io;

use crate::code::Code;
use crate::comparison::{Comparison, Mark, Sample};
use crate::composition::Composition;
use crate::fault::Fault;
use crate::git::{Git, GitError};
use crate::items::{self, Deletions, Visitor};
use crate::object::Entry;
use crate::scratch;
use crate::task::{Step, Task};
use crate::wmill_yaml::{Kinds, Plan};

/// A variable beyond this is not looked into for plain secrets; Windmill's own limit is far less.
const VARIABLE_BYTES_MAX: u64 = 1 << 20;

/// Refuses to export the encryption key, unless the settings want that.
///
/// # Errors
/// [`Fault`]: the refusal.
pub fn refuse_the_key(task: Task<'_>, plan: &Plan) -> Result<(), Fault> {
    if plan.kinds.include_key && !task.service.config.allow_plaintext_secrets {
        let message = "WMILL_INCLUDE asks for the workspace's encryption key: with it in the repository, all secrets \
                       in its history can be read. Set ALLOW_PLAINTEXT_SECRETS=true if that is what you want";
        return Err(Fault::new(Code::PlaintextSecrets, message));
    }
    Ok(())
}

/// Refuses to delete too much, and to publish secrets.
///
/// # Errors
/// [`Fault`]: the refusal.
pub fn check(task: Task<'_>, git: &Git<'_>, composition: &Composition, kinds: &Kinds) -> Result<(), Fault> {
    let failed = |error: io::Error| task.git_error(Step::Commit, GitError::from(error));
    if !task.service.config.allow_plaintext_secrets {
        let plain = plain_secrets(git, &composition.comparison).map_err(failed)?;
        if !plain.is_empty() {
            let message = format!(
                "Windmill gave out secrets in plain text, which would stay in the repository's history for ever: {plain}; \
                 nothing was committed. Set ALLOW_PLAINTEXT_SECRETS=true if that is what you want"
            );
            return Err(Fault::new(Code::PlaintextSecrets, message));
        }
    }
    if task.request.allow_mass_deletion || composition.comparison.changed().deleted == 0 {
        return Ok(());
    }
    let deletions = deletions(composition, kinds).map_err(failed)?;
    if !deletions.exceeds(task.service.config.deletions_percent_max) {
        return Ok(());
    }
    let names: Sample = deletions.deleted.iter().map(ToString::to_string).collect();
    Err(Fault::new(
        Code::MassDeletion,
        format!(
            "the sync would delete {} of {} items of workspace `{}` from the backup ({names}): is this the right \
             workspace, and does the token still see everything? If this is right, allow it for one run \
             (--allow-mass-deletion, or \"allow_mass_deletion\": true); nothing was committed",
            deletions.deleted.len(),
            deletions.total,
            task.request.workspace,
        ),
    ))
}

fn deletions(composition: &Composition, kinds: &Kinds) -> io::Result<Deletions> {
    let each = |visit: &mut Visitor<'_>| {
        for pair in composition.pairs()? {
            let (path, (before, after)) = pair?;
            if let Ok(path) = std::str::from_utf8(&path) {
                visit(path, before.as_ref().map(blob), after.as_ref().map(blob));
            }
        }
        Ok(())
    };
    items::deletions(&each, kinds)
}

fn blob(entry: &Entry) -> &str {
    entry.object.as_str()
}

/// The files that are to be committed and have a secret in plain text.
fn plain_secrets(git: &Git<'_>, comparison: &Comparison) -> io::Result<Sample> {
    let mut plain = Sample::default();
    for change in comparison.changes()? {
        let change = change?;
        // What is not UTF-8 is none of Windmill's.
        let Ok(path) = std::str::from_utf8(&change.path) else { continue };
        if change.mark == Mark::Deleted {
            continue;
        }
        let is_plain = items::is_encryption_key(path) || {
            // What cannot be read, or is larger than a variable can be, is not known to be safe.
            path.contains(".variable.")
                && !scratch::read_file(&git.tree_folder().join(path), VARIABLE_BYTES_MAX + 1).is_ok_and(|content| {
                    content.len() as u64 <= VARIABLE_BYTES_MAX && !items::is_plaintext_secret(path, &content)
                })
        };
        if is_plain {
            plain.add(path.as_bytes());
        }
    }
    Ok(plain)
}
