//! What is refused although nothing failed: to delete too much, and to publish secrets.

use crate::base::Base;
use crate::code::Code;
use crate::comparison::{Comparison, listed};
use crate::fault::Fault;
use crate::git::{Entry, Git, Tree};
use crate::items::{self, TreeFile};
use crate::outcome::LISTED_IN_WARNING_MAX;
use crate::scratch;
use crate::task::Task;
use crate::wmill_yaml::Plan;

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
pub fn check(task: Task<'_>, git: &Git<'_>, base: &Base, comparison: &Comparison) -> Result<(), Fault> {
    if !task.service.config.allow_plaintext_secrets {
        check_secrets(git, comparison)?;
    }
    if task.request.allow_mass_deletion {
        return Ok(());
    }
    let before = tree_files(&base.folder);
    let after = tree_files(&comparison.after);
    let deletions = items::deletions(&before, &after, &base.plan.kinds);
    if !deletions.exceeds(task.service.config.deletions_percent_max) {
        return Ok(());
    }
    let names: Vec<_> = deletions.deleted.iter().map(ToString::to_string).collect();
    Err(Fault::new(
        Code::MassDeletion,
        format!(
            "the sync would delete {} of {} items of workspace `{}` from the backup ({}): is this the right workspace, \
             and does the token still see everything? If this is right, allow it for one run \
             (--allow-mass-deletion, or \"allow_mass_deletion\": true); nothing was committed",
            names.len(),
            deletions.total,
            task.request.workspace,
            listed(&names, LISTED_IN_WARNING_MAX)
        ),
    ))
}

fn check_secrets(git: &Git<'_>, comparison: &Comparison) -> Result<(), Fault> {
    let mut plain = Vec::new();
    for path in comparison.added.iter().chain(&comparison.modified) {
        let is_plain = items::is_encryption_key(path) || {
            let file = git.tree_folder().join(path);
            // What cannot be read, or is larger than a variable can be, is not known to be safe.
            path.contains(".variable.")
                && !scratch::read_file(&file, VARIABLE_BYTES_MAX + 1).is_ok_and(|content| {
                    content.len() as u64 <= VARIABLE_BYTES_MAX && !items::is_plaintext_secret(path, &content)
                })
        };
        if is_plain {
            plain.push(path.clone());
        }
    }
    if plain.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Windmill gave out secrets in plain text, which would stay in the repository's history for ever: {}; nothing \
         was committed. Set ALLOW_PLAINTEXT_SECRETS=true if that is what you want",
        listed(&plain, LISTED_IN_WARNING_MAX)
    );
    Err(Fault::new(Code::PlaintextSecrets, message))
}

fn tree_files(tree: &Tree) -> Vec<TreeFile<'_>> {
    let file = |(path, entry)| {
        let path: &Vec<u8> = path;
        let entry: &Entry = entry;
        Some(TreeFile { path: std::str::from_utf8(path).ok()?, blob: entry.object.as_str() })
    };
    tree.iter().filter_map(file).collect()
}
