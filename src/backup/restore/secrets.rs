//! Handles the secrets of a restore: which key a commit needs, which secrets can be restored, and which can be read at
//! the end.

use crate::backup::restore::RestoreRun;
use crate::backup::restore::select::{Choice, Items, Tree};
use crate::git::Entry;
use crate::model::{BackupError, Code, Result};
use crate::util::Secret;
use crate::windmill::{ItemId, ItemKind, KEY_TRAILER, api, secret_files};

/// Size limit for a variable. Windmill makes no larger one.
const VARIABLE_BYTES_MAX: usize = 1 << 20;

/// What is known about the key of a commit's secrets.
#[derive(Default)]
pub(super) struct Key {
    /// Whether the workspace has the key, or gets it.
    pub(super) is_known: bool,
    /// The key, if the workspace gets it.
    pub(super) to_set: Option<Secret>,
}

impl RestoreRun<'_> {
    /// Finds out which key the secrets of the commit need, and whether the workspace has it or gets it.
    pub(super) fn find_key(&mut self) -> Result<Key> {
        // Only the last commit of the workspace is used, even if it names no key: an earlier commit may name the
        // previous key.
        let of_workspace = format!("Windmill-Workspace: {}$", self.source.request.workspace);
        let last = self.git.commit_text(self.commit, Some(&of_workspace))?;
        let wanted = last.as_ref().and_then(|commit| commit.trailer(KEY_TRAILER)).map(str::to_owned);
        let has = self.target.key(self.git.run_env())?.map(|key| api::fingerprint(&key));
        let Some(key) = &self.options.key else {
            return Ok(Key { is_known: wanted.is_some() && wanted == has, to_set: None });
        };
        let fingerprint = api::fingerprint(key);
        if wanted.as_ref().is_some_and(|wanted| *wanted != fingerprint) {
            let message =
                "--key-file: this is not the key that encrypted the secrets of the commit; nothing was changed";
            return Err(BackupError::new(Code::ConfigInvalid, message));
        }
        let Some(has) = has else {
            let message = "--key-file: this token may not read the workspace's key, so the new key could not be \
                           checked; it needs an admin's token; nothing was changed";
            return Err(BackupError::new(Code::WindmillUnauthorized, message));
        };
        let to_set = (has != fingerprint).then(|| key.clone());
        if to_set.is_some() {
            self.report.warnings.add(format!(
                "workspace `{}` gets the key of --key-file; Windmill re-encrypts its own secrets with it, and the \
                 present key is not kept",
                self.workspace()
            ));
        }
        Ok(Key { is_known: true, to_set })
    }

    /// Removes from `chosen` the secrets that the workspace could not read. Returns the paths of those whose value has
    /// to be readable at the end, including those that the workspace already has with the same content.
    pub(super) fn remove_unreadable_secrets(&mut self, chosen: &mut Items, existing: &Items) -> Result<Vec<String>> {
        let mut checked = Vec::new();
        let unknown_key = format!(
            "these secrets are left alone, since it is not known that workspace `{}` has the key that encrypted them; \
             --key-file sets that key first",
            self.workspace()
        );
        for (id, files) in chosen.clone() {
            let is_same = existing.get(&id) == Some(&files);
            let is_secret_now = || existing.get(&id).map(|files| self.is_encrypted(&id, files)).transpose();
            let why = match self.is_encrypted(&id, &files)? {
                None if is_secret_now()?.flatten().is_some() => {
                    "these are secret in the workspace and not in the commit, which Windmill refuses; they come back if \
                     they are deleted in Windmill first"
                }
                None => continue,
                // The pull leaves out the secrets of the workspace.
                Some(_) if !self.tip.plan.kinds.has("secrets") => {
                    "the settings exclude secret variables, so these do not come back"
                }
                Some(false) => "these secrets are left alone, since they are not encrypted in the commit",
                Some(true) if !self.key.is_known && !is_same => &unknown_key,
                Some(true) => {
                    checked.push(id.path);
                    continue;
                }
            };
            self.report.warn_of(why, &id.path);
            chosen.remove(&id);
        }
        Ok(checked)
    }

    /// Returns whether a secret is encrypted in these files; `None` if the item is not a secret. A secret that cannot be
    /// checked counts as not encrypted.
    fn is_encrypted(&self, id: &ItemId, files: &[(String, Entry)]) -> Result<Option<bool>> {
        if id.kind != ItemKind::Variable {
            return Ok(None);
        }
        let [(path, entry)] = files else { return Ok(Some(false)) };
        match self.git.read_blob(&entry.object, VARIABLE_BYTES_MAX)? {
            Some(content) if !content.is_empty() && !secret_files::is_plaintext_secret(path, &content) => {
                Ok(secret_files::is_secret_variable(&content).then_some(true))
            }
            _ => Ok(Some(false)),
        }
    }

    /// Returns the secrets in the workspace that were chosen and whose value Windmill cannot decrypt. If the workspace
    /// got a key, that concerns all of its variables.
    pub(super) fn unreadable(&mut self, choice: &Choice, fresh: &Tree) -> Result<Vec<String>> {
        let target = self.target;
        let windmill = target.windmill(self.git.run_env());
        let mut unreadable = Vec::new();
        for ItemId { kind, path } in self.items_in(fresh, target).into_keys() {
            let is_selected = self.key.to_set.is_some() || choice.secrets.contains(&path);
            if kind == ItemKind::Variable && is_selected && !windmill.can_read_variable(&path)? {
                unreadable.push(path);
            }
        }
        Ok(unreadable)
    }
}
