//! Creates, cleans and configures the checkout, and fetches the remote's branch into it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::git::{Git, ObjectFormat, ObjectId, RemoteState, checkout_cache, output};
use crate::model::{BackupError, Code, Result};
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

/// The git attributes that turn off every conversion of content. Attributes in the repository may ask for one (line
/// ends, `filter`, `ident`, encodings), but this file has precedence. `!` means unspecified: git fails if
/// `working-tree-encoding` is only unset.
const ATTRIBUTES: &str = "* -text !eol -ident !filter !working-tree-encoding\n";

/// Configuration that replaces the user's and the system's. The reasons of some settings:
///
/// - `safe.directory`: a bare repository on a volume may have any owner. git ignores this setting in the environment.
/// - `protectNTFS`, `protectHFS`: names that Windows does not allow are valid here.
/// - `fetch.unpackLimit`: a fetch keeps its pack, since loose objects of an interrupted fetch cannot be distinguished
///   from others.
/// - `gc`, `maintenance`: no process in the background that outlives the run.
/// - `http.followRedirects`: on a redirect, git would send the token to the new address.
pub(super) const CONFIGURATION: &str = "\
[safe]
\tdirectory = *
[core]
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tlogAllRefUpdates = false
\tprotectNTFS = false
\tprotectHFS = false
[fetch]
\tunpackLimit = 1
[gc]
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[http]
\tfollowRedirects = false
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
[gpg]
\tformat = ssh
";

impl Git<'_> {
    /// Asks the remote for the branch's tip.
    ///
    /// # Errors
    /// [`BackupError`] if the remote does not answer or refuses.
    pub fn remote_state(&self) -> Result<RemoteState> {
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
    /// [`BackupError`] if a git that does not belong to this run works in the checkout, since its locks are in use, or
    /// if a killed git left something that cannot be distinguished from what is needed.
    pub fn remove_leftovers(&self) -> Result<()> {
        let found = leftovers_in(&self.git_folder).map_err(BackupError::damage)?;
        let Some(first) = found.first() else { return Ok(()) };
        if let Some(id) = orphans::git_at_work_in(&self.git_folder) {
            let message = format!("`{}` is held by a git that we did not start (process {id})", first.display());
            return Err(BackupError::new(Code::GitFailed, message));
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
    /// [`BackupError`] on an I/O error.
    pub fn discard(&self) -> Result<()> {
        Ok(self.git_folder.parent().map_or(Ok(()), checkout_cache::discard)?)
    }

    /// Creates an empty checkout in place of the old one.
    ///
    /// If the format is not known, because the remote has no object that shows it, an empty clone finds it out.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn create(&self, format: Option<ObjectFormat>) -> Result<()> {
        self.discard()?;
        files::create_folder(&self.tree_folder)?;
        let command = self.command_without_repository()?;
        match format {
            None => {
                let clone = ["clone", "--quiet", "--bare", "--no-tags", "--depth=1", "--single-branch", "--template="];
                let clone = command.arguments(clone).arguments(["--", &self.address]).arguments([&self.git_folder]);
                self.over_the_network("cannot clone", clone)?;
            }
            Some(format) => {
                let name = if format == ObjectFormat::Sha256 { "sha256" } else { "sha1" };
                let init = ["init", "--quiet", "--bare", "--template=", &format!("--object-format={name}"), "--"];
                self.locally(command.arguments(init).arguments([&self.git_folder]))?;
            }
        }
        self.configure(self.format())
    }

    /// Rewrites the configuration of the checkout. It takes precedence over ours, and a server could have made wmill
    /// write to it.
    ///
    /// # Errors
    /// [`BackupError`] on an I/O error.
    pub fn configure(&self, format: Option<ObjectFormat>) -> Result<()> {
        let (version, extension) = match format {
            Some(ObjectFormat::Sha256) => (1, "[extensions]\n\tobjectformat = sha256\n"),
            _ => (0, ""),
        };
        let own = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}");
        for stray in ["commondir", "config.worktree", "hooks", "info", "objects/info/alternates"] {
            files::remove_folder(&self.git_folder.join(stray))?;
        }
        files::create_folder(&self.git_folder.join("info"))?;
        files::write_file(&self.git_folder.join("config"), own.as_bytes())?;
        files::write_file(&self.git_folder.join("info/attributes"), ATTRIBUTES.as_bytes())?;
        Ok(files::write_file(&self.configuration, CONFIGURATION.as_bytes())?)
    }

    /// Fetches the newest `depth` commits of the branch; `None` fetches all. `filter` is git's option that leaves out
    /// objects. Returns the tip, or `None` if the branch does not exist.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn fetch_branch(&self, depth: Option<u32>, filter: Option<&str>) -> Result<Option<ObjectId>> {
        // git refuses --unshallow if the history is complete, and reads this depth as the whole history.
        let depth = format!("--depth={}", depth.unwrap_or(2_147_483_647));
        match self.fetch(TIP_REF, filter.into_iter().chain([&*depth])) {
            Ok(()) => match self.commit_named(TIP_REF)? {
                None => Err(BackupError::damage(format!("`{TIP_REF}` does not name a commit"))),
                tip => Ok(tip),
            },
            Err(error) if error.message.contains("couldn't find remote ref") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the checkout is at the commit. It does not check that all objects exist; a listing shows that.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn is_at(&self, commit: &ObjectId) -> Result<bool> {
        Ok(self.commit_named(TIP_REF)?.as_ref() == Some(commit))
    }

    pub(super) fn fetch<'o>(&self, into: &str, options: impl IntoIterator<Item = &'o str>) -> Result<()> {
        let refspec = format!("+{}:{into}", self.branch.full_ref());
        let command = self
            .command()?
            .arguments(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"])
            // A fetch must not look into the submodules of a repository that others write to.
            .arguments(["--no-recurse-submodules", "--refmap=", "--update-head-ok"])
            .arguments(options)
            .arguments(["--", &self.address, &refspec]);
        let fetched = self.over_the_network("cannot fetch", command).map(drop);
        // What this cannot remove is found before the next fetch.
        fetched.inspect_err(|_| drop(self.remove_leftovers()))
    }

    /// Records the commit that the checkout is at.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn set_tip_ref(&self, commit: &ObjectId) -> Result<()> {
        self.locally(self.command()?.arguments(["update-ref", TIP_REF, commit.as_str()])).map(drop)
    }
}

/// Returns the files and folders to remove from a repository: what a git that was killed or lost its connection left.
/// git itself does not remove them soon, and they would fill the disk. Entries that cannot be read are skipped: git
/// itself reports them.
///
/// # Errors
/// Why the checkout should be created again.
fn leftovers_in(git_folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in files::entries_below(git_folder) {
        let (path, kind) = (entry.path(), entry.file_type());
        let is_object = path.strip_prefix(git_folder).is_ok_and(|path| path.starts_with("objects"));
        if is_unfinished(is_object, &entry.file_name().to_string_lossy()) {
            found.push(path);
        } else if !kind.is_ok_and(|kind| kind.is_dir() || kind.is_file()) {
            // git would wait for the other end of a FIFO, and a link leads elsewhere.
            return Err(format!("`{}` is not a regular file", path.display()));
        }
    }
    let packs = pack_files(git_folder);
    for file in &packs {
        let has = |ending: &str| packs.contains(&file.with_extension(ending));
        // A fetch keeps its pack with a third file until it has moved the ref.
        let is_of_pack = file.extension().is_some() && !found.contains(file);
        if is_of_pack && (has("keep") || !has("pack") || !has("idx")) {
            return Err(format!("`{}` is of a fetch that was cut off", file.display()));
        }
    }
    Ok(found)
}

/// Returns whether git uses this name, below `objects` or elsewhere, for something that it has not finished.
fn is_unfinished(is_object: bool, name: &str) -> bool {
    // The objects of a received push are in a folder `incoming-…` until git accepts them.
    let starts: &[&str] = if is_object { &["tmp_", ".tmp-", "incoming-"] } else { &["shallow_", "fast_import_crash_"] };
    starts.iter().any(|start| name.starts_with(start)) || Path::new(name).extension().is_some_and(|end| end == "lock")
}

/// Returns the files of the packs.
fn pack_files(git_folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(git_folder.join("objects/pack")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_files_of_git_are_recognized_by_name() {
        for (folder, name) in [
            ("", "index.lock"),
            ("", "shallow_Xy12"),
            ("", "fast_import_crash_12"),
            ("refs/sync", "tip.lock"),
            ("objects", "tmp_objdir-incoming-x"),
            ("objects/pack", "tmp_pack_x1"),
            ("objects/pack", ".tmp-1-pack-x"),
            ("objects/17", "tmp_obj_x1"),
        ] {
            assert!(is_unfinished(folder.starts_with("objects"), name), "{folder}/{name}");
        }
        for (folder, name) in [
            ("", "shallow"),
            ("", "HEAD"),
            ("objects", "pack"),
            ("objects/pack", "pack-1.pack"),
            ("objects/17", "0123456789"),
            ("refs/heads", "tmp_branch"),
        ] {
            assert!(!is_unfinished(folder.starts_with("objects"), name), "{folder}/{name}");
        }
    }

    #[test]
    fn incomplete_packs_are_damage() {
        let run = files::RunDir::for_test("leftovers").unwrap();
        let pack = run.path().join("objects/pack");
        files::create_folder(&pack).unwrap();
        let put = |name: &&str| files::write_file(&pack.join(name), b"x").unwrap();
        ["pack-a.pack", "pack-a.idx", "pack-a.rev", "multi-pack-index", "tmp_pack_d"].iter().for_each(put);
        assert_eq!(leftovers_in(run.path()), Ok(vec![pack.join("tmp_pack_d")]));
        for name in ["pack-b.pack", "pack-c.idx", "pack-a.keep"] {
            put(&name);
            assert!(leftovers_in(run.path()).is_err(), "{name}");
            files::remove_file(&pack.join(name)).unwrap();
        }
        assert!(leftovers_in(run.path()).is_ok());
    }
}
