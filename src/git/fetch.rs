//! Creates, cleans and configures the checkout, and fetches the remote's branch into it.

use std::fs;

use crate::git::object::{ObjectFormat, ObjectId};
use crate::git::output::{self, RemoteState};
use crate::git::{Git, GitError, checkout_cache, config, leftovers};
use crate::model::Code;
use crate::process::orphans;
use crate::util::files;

/// How many files of packs a checkout may have. Each fetch leaves a pack of two or three files.
const PACK_FILES_MAX: usize = 120;
/// How many objects one of the 256 folders of loose objects may have. They spread evenly, so this means about 8,000 in
/// all.
const LOOSE_OBJECTS_SAMPLE_MAX: usize = 32;
/// How much is read of a checkout's configuration. Ours has a few hundred bytes.
const CONFIG_BYTES_MAX: u64 = 64 << 10;
/// The filter of a fetch without the contents of files. A server that cannot leave them out sends them too.
pub const WITHOUT_CONTENTS: &str = "--filter=blob:none";

/// The ref of the commit that the checkout is at. It keeps git from removing the commit's objects.
pub(super) const TIP_REF: &str = "refs/sync/tip";

impl Git<'_> {
    /// Asks the remote for the branch's tip.
    ///
    /// # Errors
    /// [`GitError`], in most cases [`GitError::Remote`].
    pub fn remote_state(&self) -> Result<RemoteState, GitError> {
        let full_ref = self.branch.full_ref();
        let command = self.command_without_repository()?.arguments(["ls-remote", "--quiet", "--", &self.address]);
        let listing = self.over_the_network("cannot read", command.arguments(["HEAD", &full_ref]))?;
        let state = output::remote_state(&listing, &full_ref);
        if state.format.is_none() {
            self.refuse_a_page()?;
        }
        Ok(state)
    }

    /// Returns the object format of the checkout, if the checkout exists.
    pub fn format(&self) -> Option<ObjectFormat> {
        let configuration = files::read_file(&self.git_folder.join("config"), CONFIG_BYTES_MAX).ok()?;
        let is_sha256 = String::from_utf8_lossy(&configuration).to_ascii_lowercase().contains("objectformat = sha256");
        Some(if is_sha256 { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 })
    }

    /// Returns whether so many objects have accumulated that a new checkout with only the tip is smaller.
    ///
    /// git's own cleanup would need the history, which is not here, and would continue in the background.
    pub fn is_bloated(&self) -> bool {
        let count =
            |folder: &str| fs::read_dir(self.git_folder.join("objects").join(folder)).map_or(0, Iterator::count);
        count("pack") > PACK_FILES_MAX || count("17") > LOOSE_OBJECTS_SAMPLE_MAX
    }

    /// Removes what a killed git left: locks, which stop every later git, and unfinished files.
    ///
    /// # Errors
    /// [`GitError::Remote`] if a git that does not belong to this run works in the checkout: its locks are in use.
    /// [`GitError::Checkout`] if it left something that cannot be distinguished from what is needed.
    pub fn remove_leftovers(&self) -> Result<(), GitError> {
        let found = leftovers::find(&self.git_folder).map_err(GitError::Checkout)?;
        let Some(first) = found.first() else { return Ok(()) };
        if let Some(id) = orphans::git_at_work_in(&self.git_folder) {
            let lock = first.display();
            let message = format!("`{lock}` is held by a git that we did not start (process {id})");
            return Err(GitError::Remote { code: Code::GitFailed, message, is_passing: false });
        }
        for path in found {
            log::warn!("removing `{}`, which a killed git left", path.display());
            files::remove_folder(&path)?;
        }
        Ok(())
    }

    /// Removes the checkout and all that is checked out, so that the next fetch creates it again.
    ///
    /// # Errors
    /// [`GitError`] on an I/O error.
    pub fn discard(&self) -> Result<(), GitError> {
        Ok(self.git_folder.parent().map_or(Ok(()), checkout_cache::discard)?)
    }

    /// Creates an empty checkout in place of the old one.
    ///
    /// If the format is not known, because the remote has no object that shows it, an empty clone finds it out.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn create(&self, format: Option<ObjectFormat>) -> Result<(), GitError> {
        self.discard()?;
        files::create_folder(&self.tree_folder)?;
        let command = self.command_without_repository()?;
        let folder = self.git_folder.as_os_str();
        match format {
            None => {
                let clone = ["clone", "--quiet", "--bare", "--no-tags", "--depth=1", "--single-branch", "--template="];
                let clone = command.arguments(clone).arguments(["--", &self.address]).arguments([folder]);
                self.over_the_network("cannot clone", clone)?;
            }
            Some(format) => {
                let name = if format == ObjectFormat::Sha256 { "sha256" } else { "sha1" };
                let init = ["init", "--quiet", "--bare", "--template=", &format!("--object-format={name}"), "--"];
                self.locally(command.arguments(init).arguments([folder]))?;
            }
        }
        self.configure(self.format())
    }

    /// Rewrites the configuration of the checkout. It takes precedence over ours, and a server could have made wmill
    /// write to it.
    ///
    /// # Errors
    /// [`GitError`] on an I/O error.
    pub fn configure(&self, format: Option<ObjectFormat>) -> Result<(), GitError> {
        let (version, extension) = match format {
            Some(ObjectFormat::Sha256) => (1, "[extensions]\n\tobjectformat = sha256\n"),
            _ => (0, ""),
        };
        let own = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}");
        for stray in ["commondir", "config.worktree", "hooks", "info", "objects/info/alternates"] {
            files::remove_folder(&self.git_folder.join(stray))?;
        }
        files::create_folder(&self.git_folder.join("info"))?;
        for (name, content) in [("config", own.as_str()), ("info/attributes", config::ATTRIBUTES)] {
            files::remove_folder(&self.git_folder.join(name))?;
            files::write_file(&self.git_folder.join(name), content.as_bytes())?;
        }
        files::write_file(&self.configuration, config::CONFIGURATION.as_bytes())?;
        Ok(())
    }

    /// Fetches the newest `depth` commits of the branch, or all if it is `None`, with what passes the filter. Returns the
    /// tip, or `None` if the branch does not exist.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn fetch_branch(&self, depth: Option<u32>, filter: Option<&str>) -> Result<Option<ObjectId>, GitError> {
        // git refuses --unshallow if the history is complete, and reads this depth as the whole history.
        let depth = format!("--depth={}", depth.unwrap_or(2_147_483_647));
        match self.fetch(TIP_REF, filter.into_iter().chain([&*depth])) {
            Ok(()) => match self.commit_named(TIP_REF)? {
                None => Err(GitError::Checkout(format!("`{TIP_REF}` does not name a commit"))),
                tip => Ok(tip),
            },
            Err(GitError::Checkout(message)) if message.contains("couldn't find remote ref") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the checkout is at the commit. It does not check that all objects exist; a listing shows that.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn is_at(&self, commit: &ObjectId) -> Result<bool, GitError> {
        Ok(self.commit_named(TIP_REF)?.as_ref() == Some(commit))
    }

    pub(super) fn fetch<'o>(&self, into: &str, options: impl IntoIterator<Item = &'o str>) -> Result<(), GitError> {
        let refspec = format!("+{}:{into}", self.branch.full_ref());
        let command = self
            .command()?
            .arguments(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"])
            // A fetch must not look into the submodules of a repository that others write to.
            .arguments(["--no-recurse-submodules", "--refmap=", "--update-head-ok"])
            .arguments(options)
            .arguments(["--", &self.address, &refspec]);
        let fetched = self.over_the_network("cannot fetch", command);
        if fetched.is_err() {
            // What this cannot remove is found before the next fetch.
            let _ = self.remove_leftovers();
        }
        fetched.map(drop)
    }

    /// Records the commit that the checkout is at.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn set_tip_ref(&self, commit: &ObjectId) -> Result<(), GitError> {
        self.locally(self.command()?.arguments(["update-ref", TIP_REF, commit.as_str()])).map(drop)
    }
}
