//! git's verbs as functions over one checkout and one remote.
//!
//! Nothing of a user's or a system's git configuration is read, nothing of a repository's content runs, and the
//! credentials travel by environment. It does not know what is in the tree, or why it is pushed.

#[path = "auth.rs"]
mod access;
#[path = "config.rs"]
mod configuration;
#[path = "fast_import.rs"]
mod import;
#[path = "output.rs"]
mod printed;

pub use access::Site;
pub use import::Link;
pub use printed::{CommitText, Pushed, RemoteState};

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::code::Code;
use crate::deadline::Expired;
use crate::listing::Listing;
use crate::lock;
use crate::names::{BranchName, Identity, RemoteScheme, RemoteUrl};
use crate::object::{ObjectFormat, ObjectId};
#[cfg(unix)]
use crate::pushes::{self, Push};
use crate::scratch;
use crate::ssh;
use crate::subprocess::{Failure, Finished, Invocation};
use crate::sync_request::GitCredentials;
use crate::web;
use crate::workplace::{ProgramLog, Workplace};

/// A listing of a tree: 100 bytes an entry, so this is a repository of a million files.
const LISTING_BYTES_MAX: usize = 128 << 20;
/// What the other verbs print is a line or two.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Each fetch leaves a pack of two or three files.
const PACK_FILES_MAX: usize = 120;
/// Loose objects spread evenly over 256 folders, so that one tells of all: 8,000.
const LOOSE_OBJECTS_SAMPLE_MAX: usize = 32;
/// `refs/sync/tip.lock` is the deepest lock of a git that we start.
const LOCK_DEPTH_MAX: usize = 2;
/// How long we ask where a redirect leads, for the error message.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a file that says where a ref is.
const REF_BYTES_MAX: u64 = 4096;
/// Where the commit that the checkout stands at is kept, so that its objects are.
const TIP_REF: &str = "refs/sync/tip";
/// Where a tip that came after our push is kept.
const SEEN_REF: &str = "refs/sync/seen";

/// The content of a file in a repository that others write to.
pub enum BlobContent {
    /// All of it.
    Whole(Vec<u8>),
    /// It cannot be taken, and why.
    Strange(&'static str),
}

/// What was taken from the tree folder.
pub struct Staged {
    /// Written by git.
    pub tree: ObjectId,
    /// All files of it.
    pub files: Listing,
}

/// Why a verb failed.
#[derive(Debug)]
pub enum GitError {
    /// The remote, or the way to it.
    Remote {
        /// What to call it.
        code: Code,
        /// What was tried, on what, and why it failed.
        message: String,
        /// Whether it may pass by itself: no connection, a server that is overloaded or being replaced.
        is_passing: bool,
    },
    /// The checkout; a new one may help.
    Checkout(String),
    /// The time was over, or the service is ending.
    Expired(Expired),
    /// git cannot be started, or the disk refuses.
    Machine(String),
}

impl From<io::Error> for GitError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{
            AlreadyExists, DirectoryNotEmpty, InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        };
        // A file where a folder belongs, or the other way round, or neither, or a folder that is closed to us: damage
        // that a new checkout is without.
        match error.kind() {
            AlreadyExists | DirectoryNotEmpty | InvalidData | IsADirectory | NotADirectory | NotFound
            | PermissionDenied => Self::Checkout(error.to_string()),
            _ => Self::Machine(error.to_string()),
        }
    }
}

/// One checkout, and the remote that it belongs to.
pub struct Git<'a> {
    place: &'a Workplace,
    remote: &'a RemoteUrl,
    branch: &'a BranchName,
    git_folder: PathBuf,
    tree_folder: PathBuf,
    configuration: PathBuf,
    /// The remote's URL, as git is given it.
    address: String,
    signing_key: Option<PathBuf>,
    access: Vec<(String, String)>,
}

impl<'a> Git<'a> {
    /// A checkout at `site.folder`, which need not exist yet.
    ///
    /// # Errors
    /// When the files of the run cannot be written.
    pub fn new(
        workplace: &'a Workplace,
        site: &Site<'_>,
        remote: &'a RemoteUrl,
        branch: &'a BranchName,
        credentials: &GitCredentials,
    ) -> Result<Self, GitError> {
        let configuration = workplace.scratch.write("gitconfig", configuration::CONFIGURATION.as_bytes())?;
        Ok(Self {
            place: workplace,
            remote,
            branch,
            git_folder: site.folder.join("git"),
            tree_folder: site.folder.join("tree"),
            configuration,
            address: access::address(remote),
            signing_key: site.signing_key.map(Path::to_owned),
            access: access::environment(workplace, site, remote, credentials)?,
        })
    }

    /// Where its programs work.
    #[must_use]
    pub fn place(&self) -> &'a Workplace {
        self.place
    }

    /// The folder into which a tree is checked out.
    #[must_use]
    pub fn tree_folder(&self) -> &Path {
        &self.tree_folder
    }

    /// Asks the remote for the branch's tip.
    ///
    /// # Errors
    /// [`GitError::Remote`] and the like.
    pub fn remote_state(&self) -> Result<RemoteState, GitError> {
        let full_ref = self.branch.full_ref();
        let command = self.command_without_repository()?.arguments([
            "ls-remote",
            "--quiet",
            "--",
            &self.address,
            "HEAD",
            &full_ref,
        ]);
        let listing = self.over_the_network("cannot read", command)?;
        Ok(printed::remote_state(&listing, &full_ref))
    }

    /// Whether the checkout exists and is of this object format.
    #[must_use]
    pub fn exists(&self, format: ObjectFormat) -> bool {
        let Ok(configuration) = fs::read_to_string(self.git_folder.join("config")) else { return false };
        let is_sha256 = configuration.to_ascii_lowercase().contains("objectformat = sha256");
        is_sha256 == (format == ObjectFormat::Sha256)
    }

    /// Whether syncs have left so many objects here that fetching the tip alone, anew, is the better cleaning.
    ///
    /// git's own would need the history, which is not here, and would go on in the background.
    #[must_use]
    pub fn is_bloated(&self) -> bool {
        let count =
            |folder: &str| fs::read_dir(self.git_folder.join("objects").join(folder)).map_or(0, Iterator::count);
        count("pack") > PACK_FILES_MAX || count("17") > LOOSE_OBJECTS_SAMPLE_MAX
    }

    /// Removes the locks that a killed git left, which stop every later one.
    ///
    /// # Errors
    /// [`GitError::Machine`] where a git that is not of this run works in the checkout: its locks are in use.
    pub fn remove_stale_locks(&self) -> Result<(), GitError> {
        let mut locks = Vec::new();
        find_locks(&self.git_folder, LOCK_DEPTH_MAX, &mut locks);
        let Some(first) = locks.first() else { return Ok(()) };
        if let Some(id) = lock::git_at_work_in(&self.git_folder) {
            let lock = first.display();
            return Err(GitError::Machine(format!("`{lock}` is held by a git that we did not start (process {id})")));
        }
        for lock in locks {
            log::warn!("removing `{}`, which a killed git left", lock.display());
            scratch::remove_folder(&lock)?;
        }
        Ok(())
    }

    /// Removes the checkout, so that the next fetch makes it anew.
    ///
    /// # Errors
    /// What the disk says.
    pub fn discard(&self) -> Result<(), GitError> {
        Ok(scratch::remove_folder(&self.git_folder)?)
    }

    /// Makes the checkout anew, empty.
    ///
    /// Where the format is not known, since the remote has no object to tell it by, an empty clone finds out.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn create(&self, format: Option<ObjectFormat>) -> Result<(), GitError> {
        scratch::remove_folder(&self.git_folder)?;
        scratch::remove_folder(&self.tree_folder)?;
        scratch::create_folder(&self.tree_folder)?;
        let command = self.command_without_repository()?;
        let folder = self.git_folder.as_os_str();
        match format {
            None => {
                let clone = ["clone", "--quiet", "--bare", "--no-tags", "--depth=1", "--single-branch", "--template="];
                let clone = command.arguments(clone).argument("--").argument(&self.address).argument(folder);
                self.over_the_network("cannot clone", clone)?;
            }
            Some(format) => {
                let name = if format == ObjectFormat::Sha256 { "sha256" } else { "sha1" };
                let init = ["init", "--quiet", "--bare", "--template=", &format!("--object-format={name}"), "--"];
                self.locally(command.arguments(init).argument(folder))?;
            }
        }
        self.settle(self.format())
    }

    /// Writes anew what git takes orders from. Configuration of the checkout outranks ours, and wmill, which writes
    /// what a server says, could have been led to it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn settle(&self, format: ObjectFormat) -> Result<(), GitError> {
        let extension = match format {
            ObjectFormat::Sha1 => "",
            ObjectFormat::Sha256 => "[extensions]\n\tobjectformat = sha256\n",
        };
        let version = u8::from(format == ObjectFormat::Sha256);
        let own = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}");
        for stray in ["commondir", "config.worktree", "hooks", "info", "objects/info/alternates"] {
            scratch::remove_folder(&self.git_folder.join(stray))?;
        }
        scratch::create_folder(&self.git_folder.join("info"))?;
        for (name, content) in [("config", own.as_str()), ("info/attributes", configuration::ATTRIBUTES)] {
            scratch::remove_folder(&self.git_folder.join(name))?;
            scratch::write_file(&self.git_folder.join(name), content.as_bytes())?;
        }
        scratch::write_file(&self.configuration, configuration::CONFIGURATION.as_bytes())?;
        Ok(())
    }

    /// The object format of the checkout.
    #[must_use]
    pub fn format(&self) -> ObjectFormat {
        if self.exists(ObjectFormat::Sha256) { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 }
    }

    /// Brings the branch's tip here, without its history; the tip, or `None` where the branch is gone.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn fetch_tip(&self) -> Result<Option<ObjectId>, GitError> {
        self.fetch_branch(&["--depth=1"])
    }

    /// Brings the branch here with all its history; the tip, or `None` where the branch is not there.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn fetch_history(&self) -> Result<Option<ObjectId>, GitError> {
        self.fetch_branch(&[])
    }

    fn fetch_branch(&self, options: &[&str]) -> Result<Option<ObjectId>, GitError> {
        match self.fetch(TIP_REF, options) {
            Ok(()) => self.resolve(TIP_REF).map(Some),
            Err(GitError::Checkout(message)) if printed::is_of_no_such_ref(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the checkout stands at the commit, as its ref says. Whether all of it is here shows when it is listed.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn is_at(&self, commit: &ObjectId) -> Result<bool, GitError> {
        // The file of the ref tells without a program; git may keep refs elsewhere.
        let file = scratch::read_file(&self.git_folder.join(TIP_REF), REF_BYTES_MAX).unwrap_or_default();
        if let Some(id) = ObjectId::parse(String::from_utf8_lossy(&file).trim_ascii()) {
            return Ok(id == *commit);
        }
        let name = format!("{TIP_REF}^{{commit}}");
        let command = self.command()?.arguments(["rev-parse", "--verify", "--quiet", &name]).capture(ANSWER_BYTES_MAX);
        let finished = self.run(command)?;
        Ok(finished.is_success() && finished.stdout.trim_ascii() == commit.as_str().as_bytes())
    }

    fn fetch(&self, into: &str, options: &[&str]) -> Result<(), GitError> {
        let refspec = format!("+{}:{into}", self.branch.full_ref());
        let command = self
            .command()?
            .arguments(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"])
            // A fetch must not look into the submodules of a repository that somebody else writes.
            .arguments(["--no-recurse-submodules", "--refmap=", "--update-head-ok"])
            .arguments(options)
            .arguments(["--", &self.address, &refspec]);
        self.over_the_network("cannot fetch", command).map(drop)
    }

    fn resolve(&self, name: &str) -> Result<ObjectId, GitError> {
        let commit = format!("{name}^{{commit}}");
        self.object_id(self.command()?.arguments(["rev-parse", "--verify", "--quiet", &commit]))
    }

    /// The tree at a path of a commit or tree, without slashes at its ends; an empty one is the whole.
    ///
    /// # Errors
    /// [`GitError`], also where there is no tree.
    pub fn tree_at(&self, commit: &ObjectId, path: &str) -> Result<ObjectId, GitError> {
        let name = if path.is_empty() { format!("{commit}^{{tree}}") } else { format!("{commit}:{path}") };
        self.object_id(self.command()?.arguments(["rev-parse", "--verify", "--quiet", &name]))
    }

    /// All files of a commit or tree, as they are there, sound or not, in a listing of this name. It takes the place of
    /// one of the same name, which somebody may still be reading.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn list(&self, tree: &ObjectId, name: &str) -> Result<Listing, GitError> {
        let arguments = ["ls-tree", "-r", "-z", "--full-tree", tree.as_str()];
        Ok(self.listing(name, self.command()?.arguments(arguments))?.sorted()?)
    }

    fn listing(&self, name: &str, command: Invocation) -> Result<Listing, GitError> {
        let path = self.listing_place(name);
        let file = scratch::open_file(&path, true)?;
        self.locally(command.write_to(file, LISTING_BYTES_MAX))?;
        Ok(Listing::at(path))
    }

    /// The content of a file that somebody else wrote.
    ///
    /// # Errors
    /// [`GitError`]; being longer than `bytes_max` is none.
    pub fn read_blob(&self, blob: &ObjectId, bytes_max: usize) -> Result<BlobContent, GitError> {
        let command = self.command()?.arguments(["cat-file", "blob", blob.as_str()]).capture(bytes_max);
        let shown = command.to_string();
        match self.place.run(command, &mut |_| {}) {
            Err(Failure::TooMuchOutput { .. }) => Ok(BlobContent::Strange("it is too large")),
            finished => successful(&shown, finished.map_err(from_failure)?).map(BlobContent::Whole),
        }
    }

    /// Makes index and tree folder the given tree, and nothing else: what differs is written anew, what is too much
    /// goes, ignored files and nested repositories included.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn check_out(&self, tree: Option<&ObjectId>) -> Result<(), GitError> {
        scratch::create_folder(&self.tree_folder)?;
        let command = self.command()?.arguments(["read-tree", "--reset", "-u"]);
        self.locally(match tree {
            Some(tree) => command.argument(tree.as_str()),
            None => command.argument(self.empty_tree()?.as_str()),
        })?;
        self.locally(self.command()?.arguments(["clean", "-ffdxq"]))?;
        Ok(())
    }

    /// A tree without any file.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn empty_tree(&self) -> Result<ObjectId, GitError> {
        let empty = self.place.scratch.write("empty", b"")?;
        let command = self.command()?.arguments(["mktree", "-z"]).stdin(File::open(empty)?);
        self.object_id(command)
    }

    /// Takes all that is in the tree folder, whatever ignore files say, and writes it as a tree.
    ///
    /// What is told is what the tree has, not the index: git takes folders that it deems unchanged from a part of the
    /// index that no listing of it shows.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn stage(&self) -> Result<Staged, GitError> {
        self.locally(self.command()?.arguments(["add", "--all", "--force"]))?;
        let tree = self.object_id(self.command()?.arguments(["write-tree"]))?;
        Ok(Staged { files: self.list(&tree, "staged.listing")?, tree })
    }

    /// A tree that is `base` with what `changes` say, in their order. The checkout's own index stays as it is.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn compose(&self, base: Option<&ObjectId>, changes: &Listing) -> Result<ObjectId, GitError> {
        let index = self.place.scratch.path().join("compose.index");
        let start = if let Some(base) = base { base.as_str() } else { "--empty" };
        let command = || Ok::<_, GitError>(self.command()?.environment("GIT_INDEX_FILE", &index));
        self.locally(command()?.arguments(["read-tree", start]))?;
        let changes = File::open(changes.path())?;
        self.locally(command()?.arguments(["update-index", "-z", "--index-info"]).stdin(changes))?;
        self.object_id(command()?.arguments(["write-tree"]))
    }

    /// Where a listing of the run with this name is kept.
    #[must_use]
    pub fn listing_place(&self, name: &str) -> PathBuf {
        self.place.scratch.path().join(name)
    }

    /// A commit of `tree` upon `parent`.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn commit(
        &self,
        tree: &ObjectId,
        parent: Option<&ObjectId>,
        author: &Identity,
        message: &str,
    ) -> Result<ObjectId, GitError> {
        self.commit_by(tree, parent, author, author, None, message)
    }

    fn commit_by(
        &self,
        tree: &ObjectId,
        parent: Option<&ObjectId>,
        committer: &Identity,
        author: &Identity,
        authored: Option<u64>,
        message: &str,
    ) -> Result<ObjectId, GitError> {
        let message = self.place.scratch.write("message", message.as_bytes())?;
        let mut command = self.command()?;
        if let Some(key) = &self.signing_key {
            let key = format!("user.signingKey={}", key.display());
            command = command.arguments(["-c", "gpg.format=ssh", "-c", &key]);
        }
        command = command
            .environment("GIT_AUTHOR_NAME", author.name())
            .environment("GIT_AUTHOR_EMAIL", author.email())
            .environment("GIT_COMMITTER_NAME", committer.name())
            .environment("GIT_COMMITTER_EMAIL", committer.email())
            .arguments(["commit-tree", "-F"])
            .argument(message);
        if let Some(seconds) = authored {
            command = command.environment("GIT_AUTHOR_DATE", format!("@{seconds} +0000"));
        }
        if self.signing_key.is_some() {
            command = command.argument("--gpg-sign");
        }
        if let Some(parent) = parent {
            command = command.arguments(["-p", parent.as_str()]);
        }
        self.object_id(command.argument(tree.as_str()))
    }

    /// The commit of the history that was fetched whose id begins with these digits.
    ///
    /// # Errors
    /// [`GitError`]; that there is none, or more than one, is none.
    pub fn find_commit(&self, digits: &str) -> Result<Option<ObjectId>, GitError> {
        let name = format!("{digits}^{{commit}}");
        let command = self.command()?.arguments(["rev-parse", "--verify", "--quiet", &name]).capture(ANSWER_BYTES_MAX);
        let finished = self.run(command)?;
        let found = ObjectId::parse(String::from_utf8_lossy(&finished.stdout).trim());
        let Some(commit) = found.filter(|_| finished.is_success()) else { return Ok(None) };
        let command = self.command()?.arguments(["merge-base", "--is-ancestor", commit.as_str(), TIP_REF]);
        Ok(self.run(command)?.is_success().then_some(commit))
    }

    /// The newest commit, from this one on, whose message has a line that begins with a match of `line`; what it says.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn last_with(&self, commit: &ObjectId, line: &str) -> Result<Option<CommitText>, GitError> {
        let command = self.command()?.arguments(["log", "-1", "--no-show-signature", "--format=%B"]);
        let command = command.argument(format!("--grep=^{line}"));
        let message = self.locally(command.argument(commit.as_str()).capture(ANSWER_BYTES_MAX))?;
        let message = String::from_utf8_lossy(&message).into_owned();
        Ok(Some(CommitText { time: None, message }).filter(|text| !text.message.is_empty()))
    }

    /// What a commit says of itself.
    ///
    /// # Errors
    /// [`GitError`]: it is not here, for one.
    pub fn commit_message(&self, commit: &ObjectId) -> Result<CommitText, GitError> {
        let command = self.command()?.arguments(["cat-file", "commit", commit.as_str()]).capture(ANSWER_BYTES_MAX);
        Ok(CommitText::of_object(&self.locally(command)?))
    }

    /// A chain of commits upon `parent`, which begins with the tree `base`; the last one, and its tree.
    ///
    /// One git makes them all. Only where they are signed does each take programs of its own, since that git cannot sign.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn commit_chain(
        &self,
        parent: Option<&ObjectId>,
        base: Option<&ObjectId>,
        committer: &Identity,
        links: &[Link<'_>],
    ) -> Result<(ObjectId, ObjectId), GitError> {
        let now = import::seconds(SystemTime::now());
        let orders = self.place.scratch.write("commits", &import::chain(parent, base, committer, now, links))?;
        let import = ["fast-import", "--quiet", "--force", "--done", "--date-format=raw"];
        self.locally(self.command()?.arguments(import).stdin(File::open(orders)?))?;
        let mut last = self.resolve(import::CHAIN_REF)?;
        let mut list = self.command()?.arguments(["rev-list", "--reverse", "--format=%T", import::CHAIN_REF]);
        if let Some(parent) = parent {
            list = list.argument(format!("^{parent}"));
        }
        let listed = self.locally(list.capture(ANSWER_BYTES_MAX))?;
        let listed = String::from_utf8_lossy(&listed);
        // The lines between them begin with the word `commit`.
        let trees: Vec<_> = listed.lines().filter_map(ObjectId::parse).collect();
        let Some(tree) = trees.last().filter(|_| trees.len() == links.len()) else {
            return Err(GitError::Checkout(format!("git made {} commits of {}", trees.len(), links.len())));
        };
        if self.signing_key.is_some() {
            let mut parent = parent.cloned();
            for (link, tree) in links.iter().zip(&trees) {
                let time = link.time.map(import::seconds).unwrap_or(now);
                let made = self.commit_by(tree, parent.as_ref(), committer, link.author, Some(time), &link.message)?;
                last = made.clone();
                parent = Some(made);
            }
        }
        self.locally(self.command()?.arguments(["update-ref", "-d", import::CHAIN_REF]))?;
        Ok((last, tree.clone()))
    }

    /// Pushes a commit to the branch; never by force. Into a repository on this machine one push goes on at a time, and
    /// the locks that a killed one left there are removed, after seconds in which nothing happens to them.
    ///
    /// # Errors
    /// [`GitError`] where no answer for our ref came; a refusal is no error but [`Pushed`].
    pub fn push(&self, commit: &ObjectId) -> Result<Pushed, GitError> {
        let command = self.command()?;
        #[cfg(unix)]
        if let Some(path) = access::path_on_this_machine(self.remote) {
            let push = Push::new(commit, &self.branch.full_ref());
            let pushed = self.push_with(command.environment(ssh::PUSH_ENVIRONMENT, push.to_string()), commit, None)?;
            if let Err(error) = pushes::end(&path, &push) {
                log::warn!("cannot note that a push was answered: {error}");
            }
            return Ok(pushed);
        }
        self.push_with(command, commit, None)
    }

    /// Asks the remote whether it would take a push, and pushes nothing. What a server decides only when it gets the
    /// commit, such as the protection of a branch, this does not show.
    ///
    /// # Errors
    /// As [`Git::push`].
    pub fn try_push(&self, commit: &ObjectId) -> Result<Pushed, GitError> {
        self.push_with(self.command()?, commit, Some("--dry-run"))
    }

    fn push_with(&self, command: Invocation, commit: &ObjectId, option: Option<&str>) -> Result<Pushed, GitError> {
        let full_ref = self.branch.full_ref();
        let command = command
            .arguments(["push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags"])
            .arguments(option)
            .arguments(["--recurse-submodules=no", "--", &self.address])
            .argument(format!("{commit}:{full_ref}"))
            .capture(ANSWER_BYTES_MAX);
        let finished = self.run(self.with_access(command))?;
        for line in finished.tail.iter().filter_map(|line| line.strip_prefix(ssh::LINE_PREFIX)) {
            log::warn!("{line}");
        }
        let printed = self.place.scrubber.scrub(&String::from_utf8_lossy(&finished.stdout));
        match printed::pushed(printed.as_bytes(), &full_ref) {
            Some(pushed) => Ok(pushed.explained(&finished)),
            None => Err(self.remote_error("cannot push to", &finished)),
        }
    }

    /// Whether the branch's tip, which is `tip` now, is `commit` or descends from it.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn has_arrived(&self, commit: &ObjectId, tip: Option<&ObjectId>) -> Result<bool, GitError> {
        if tip == Some(commit) {
            return Ok(true);
        }
        if tip.is_none() {
            return Ok(false);
        }
        // Another writer pushed right after us. Without a depth, the fetch brings all from our commit on.
        self.fetch(SEEN_REF, &[])?;
        let command = self.command()?.arguments(["merge-base", "--is-ancestor", commit.as_str(), SEEN_REF]);
        Ok(self.run(command)?.is_success())
    }

    /// Remembers the commit that the checkout stands at.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn stand_at(&self, commit: &ObjectId) -> Result<(), GitError> {
        self.locally(self.command()?.arguments(["update-ref", TIP_REF, commit.as_str()])).map(drop)
    }

    /// git with this checkout named: in a damaged one it would look for a repository further up.
    fn command(&self) -> Result<Invocation, GitError> {
        let mut git_folder = std::ffi::OsString::from("--git-dir=");
        git_folder.push(&self.git_folder);
        let mut tree_folder = std::ffi::OsString::from("--work-tree=");
        tree_folder.push(&self.tree_folder);
        let folder = if self.tree_folder.is_dir() { &self.tree_folder } else { self.place.scratch.path() };
        let invocation = self.environment(self.place.invocation("git", folder)?);
        // By argument, which ends with this git: the one that receives a push into a `file:` remote reads the same
        // configuration file, and its hooks are the remote's own rules.
        let invocation = invocation.arguments(["-c", "core.hooksPath=/dev/null"]);
        Ok(invocation.argument(git_folder).argument(tree_folder))
    }

    fn command_without_repository(&self) -> Result<Invocation, GitError> {
        Ok(self.environment(self.place.invocation("git", self.place.scratch.path())?))
    }

    fn environment(&self, invocation: Invocation) -> Invocation {
        let scheme = match self.remote.scheme() {
            RemoteScheme::Https => "https",
            RemoteScheme::Http => "http",
            RemoteScheme::Ssh | RemoteScheme::File => "ssh",
        };
        invocation
            .environment("GIT_CONFIG_NOSYSTEM", "1")
            .environment("GIT_CONFIG_GLOBAL", &self.configuration)
            .environment("GIT_ATTR_NOSYSTEM", "1")
            .environment("GIT_TERMINAL_PROMPT", "0")
            // A name with a `*` or a `:` in it is a name.
            .environment("GIT_LITERAL_PATHSPECS", "1")
            .environment("GIT_NO_REPLACE_OBJECTS", "1")
            .environment("GIT_CEILING_DIRECTORIES", self.place.scratch.path().parent().unwrap_or(Path::new("/")))
            // No helper of another protocol can be led to, whatever a server answers.
            .environment("GIT_ALLOW_PROTOCOL", scheme)
    }

    /// The credentials, for a verb that talks to the remote: the others have no use for them.
    fn with_access(&self, command: Invocation) -> Invocation {
        self.access.iter().fold(command, |all, (name, value)| all.environment(name, value))
    }

    fn run(&self, command: Invocation) -> Result<Finished, GitError> {
        let mut log = ProgramLog::new("git", log::Level::Debug);
        self.place.run(command, &mut |line| log.line(line)).map_err(from_failure)
    }

    /// Runs a verb that needs the checkout only.
    fn locally(&self, command: Invocation) -> Result<Vec<u8>, GitError> {
        let shown = command.to_string();
        successful(&shown, self.run(command)?)
    }

    fn object_id(&self, command: Invocation) -> Result<ObjectId, GitError> {
        let answer = self.locally(command.capture(ANSWER_BYTES_MAX))?;
        let text = String::from_utf8_lossy(&answer);
        ObjectId::parse(text.trim())
            .ok_or_else(|| GitError::Checkout(format!("git printed {:?} for an object id", text.trim())))
    }

    /// Runs a verb that talks to the remote.
    fn over_the_network(&self, tried: &str, command: Invocation) -> Result<Vec<u8>, GitError> {
        let finished = self.run(self.with_access(command.capture(ANSWER_BYTES_MAX)))?;
        if finished.is_success() { Ok(finished.stdout) } else { Err(self.remote_error(tried, &finished)) }
    }

    fn remote_error(&self, tried: &str, finished: &Finished) -> GitError {
        let printed = finished.tail_text();
        if finished.tail.iter().any(|line| !line.starts_with("remote:") && printed::is_of_the_disk(line)) {
            return GitError::Machine(format!("{tried} {} (branch `{}`): {printed}", self.remote, self.branch));
        }
        let found = printed::classify(&printed);
        let why = match (found.why, printed.is_empty()) {
            (Some(why), _) => format!("{why}: {printed}"),
            (None, false) => printed,
            (None, true) => finished.ending.to_string(),
        };
        let redirect = if found.is_redirect { self.redirect_target() } else { String::new() };
        let message = format!("{tried} {} (branch `{}`): {why}{redirect}", self.remote, self.branch);
        if found.is_local {
            GitError::Checkout(message)
        } else {
            GitError::Remote { code: found.code, message, is_passing: found.is_passing }
        }
    }

    /// Where the remote wants to send us; asked without credentials.
    fn redirect_target(&self) -> String {
        let url = format!("{}/info/refs?service=git-upload-pack", self.remote.as_str().trim_end_matches('/'));
        let agent = web::client(&url, REDIRECT_TIMEOUT, &self.place.environment);
        let location = agent.get(&url).call().ok().and_then(|answer| {
            let location = answer.headers().get("location")?.to_str().ok()?;
            let location = location.split("/info/refs").next().unwrap_or_default();
            RemoteUrl::parse(location).ok()
        });
        location.map_or_else(String::new, |url| {
            format!("; it has moved to {url}: set GIT_REMOTE_URL to that if you trust it")
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn from_failure(failure: Failure) -> GitError {
    match failure {
        Failure::Expired(expired) => GitError::Expired(expired),
        Failure::NotStarted { .. } | Failure::NotWritten { .. } | Failure::CutOff { .. } => {
            GitError::Machine(failure.to_string())
        }
        Failure::TooMuchOutput { .. } => GitError::Checkout(failure.to_string()),
    }
}

/// What a verb that needs the checkout only printed, where it succeeded.
fn successful(shown: &str, finished: Finished) -> Result<Vec<u8>, GitError> {
    if finished.is_success() {
        return Ok(finished.stdout);
    }
    let text = format!("`{shown}` ended with {}: {}", finished.ending, finished.tail_text());
    if printed::is_of_the_disk(&text) { Err(GitError::Machine(text)) } else { Err(GitError::Checkout(text)) }
}

/// The files that end in `.lock`, `depth` folders deep; a ref is not called so, git forbids it.
fn find_locks(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            found.push(path);
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "objects" {
            find_locks(&path, depth - 1, found);
        }
    }
}
