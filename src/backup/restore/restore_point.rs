//! The copy of what the workspace holds before a restore changes it: a commit without a parent, on its own branch, so
//! that it is not merged into the backup by mistake.

use std::time::SystemTime;

use crate::backup::restore::select::Tree;
use crate::backup::restore::{RestoreRun, read_tree, write_tree};
use crate::backup::sync::{guards, push};
use crate::backup::{RunContext, Step};
use crate::git::Pushed;
use crate::model::{BackupError, BranchName, Code, Result};
use crate::request::SyncRequest;
use crate::util::{Secret, time};
use crate::windmill::{Account, WMILL_YAML, api};

impl RestoreRun<'_> {
    /// Returns the pulled files to save: all except those with a secret in plain text, unless the settings allow such
    /// files in the repository.
    pub(super) fn files_of_point(&self, current: &Tree) -> Tree {
        let mut saved = current.clone();
        if !self.target.env.config.allow_plaintext_secrets {
            saved.retain(|path, _| !guards::holds_plain_secret(self.git, path));
        }
        saved
    }

    pub(super) fn warn_about_unsaved(&mut self, current: &Tree, saved: &Tree) {
        for path in current.keys().filter(|path| !saved.contains_key(*path)) {
            let what = "these are not saved in the restore point, since Windmill gave out secrets in plain text, which would \
                        stay in the repository's history for ever; a restore of the point with --delete would delete them";
            self.report.warn_of(what, path);
        }
    }

    /// Saves what the workspace holds, so that a restore can be undone.
    pub(super) fn save(&mut self, mut saved: Tree, account: &Account) -> Result<()> {
        if saved.is_empty() {
            log::info!("there is nothing to save");
            return Ok(());
        }
        let (target, run_env) = (self.target, self.git.run_env());
        guards::refuse_a_public_repository(self.source, target, run_env, self.tip, &mut self.report.warnings)?;
        let time = time::to_text(SystemTime::now());
        let name = format!("restore-point/{}/{}", self.workspace(), time.replace(['-', ':'], ""));
        let branch = BranchName::parse(&name).map_err(|error| BackupError::new(Code::Internal, error))?;
        // The saved files have the repository's layout, which its `wmill.yaml` defines.
        let of_commit = read_tree(&self.tip.folder)?;
        if let Some(own) = of_commit.get(WMILL_YAML).filter(|entry| entry.is_file()) {
            saved.insert(WMILL_YAML.into(), own.clone());
        }
        let prefix = self.source.request.subdir.prefix();
        let listing = write_tree(self.git, "point.listing", &saved, &prefix)?;
        let key = target.key(run_env)?;
        let message = self.message_of_point(&name, account, key.as_ref());
        let point_request = SyncRequest { branch, ..target.request.clone() };
        let point = RunContext { request: &point_request, env: target.env };
        let git_of_point = point.git(run_env, self.git.tree_folder().parent().unwrap_or(self.git.tree_folder()))?;
        let commit = self.git.commit(&self.git.compose(&listing)?, None, &target.request.author, &message)?;
        match point.step(Step::Push, || push::deliver(point, &git_of_point, &commit))? {
            Pushed::Accepted => {
                log::info!("what is there is saved on branch `{name}`, commit {commit}");
                self.report.restore_point = Some(name);
                Ok(())
            }
            Pushed::Outrun(why) | Pushed::Refused(why) => Err(push::refused(point, &why)),
        }
    }

    fn message_of_point(&self, name: &str, account: &Account, key: Option<&Secret>) -> String {
        let target = self.workspace();
        format!(
            "Workspace {target} before a restore\n\n\
             What is here can be put back by `restore --workspace {target} --branch {name}`.\n\n\
             Windmill-Workspace: {}\nWindmill-Workspace: {target}\nWindmill-Version: {}\n{}",
            // A restore of this commit looks for one of the two workspaces.
            self.source.request.workspace,
            account.server_version.as_deref().unwrap_or("unknown"),
            key.map(api::key_trailer).unwrap_or_default(),
        )
    }
}
