//! git's verbs as functions over one checkout and one remote, and pure parsers for what git prints.
//!
//! Nothing of a user's or a system's git configuration is read, nothing of a repository's content runs, and the
//! credentials travel by environment. It does not know what is in the tree, or why it is pushed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::code::Code;
use crate::deadline::Expired;
use crate::listing::Listing;
use crate::lock;
use crate::names::{BranchName, Identity, RemoteScheme, RemoteUrl};
use crate::object::{Entry, ObjectFormat, ObjectId};
use crate::scratch;
use crate::subprocess::{self, Failure, Finished, Invocation};
use crate::sync_request::{GitCredentials, basic_credentials};
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
/// A transfer slower than a byte a second for so long is given up.
const STALLED_SECONDS_MAX: u32 = 60;
/// How long we ask where a redirect leads, for the error message.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Where the commit that the checkout stands at is kept, so that its objects are.
const TIP_REF: &str = "refs/sync/tip";
/// Where a chain of commits is made.
const CHAIN_REF: &str = "refs/sync/chain";
/// Where a tip that came after our push is kept.
const SEEN_REF: &str = "refs/sync/seen";
/// Variable by which our own program, started by git as `ssh`, finds what to tell the real one.
pub const SSH_ENVIRONMENT: &str = "WINDMILL_GIT_SYNC_SSH_OPTIONS";

/// Attributes of the repository may convert content (line ends, `filter`, `ident`, encodings). This file outranks
/// them all, and takes all back. `!` means unspecified: git dies of a `working-tree-encoding` that is merely unset.
const ATTRIBUTES: &str = "* -text !eol -ident !filter !working-tree-encoding\n";

/// The content of a file in a repository that others write to.
pub enum BlobContent {
    /// All of it.
    Whole(Vec<u8>),
    /// It cannot be taken, and why.
    Strange(&'static str),
}

/// What the remote showed when asked.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteState {
    /// The branch's tip; `None` where there is no such branch.
    pub tip: Option<ObjectId>,
    /// The object format, where any object was shown.
    pub format: Option<ObjectFormat>,
}

/// What a commit says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommitText {
    /// When it was made.
    pub time: Option<SystemTime>,
    /// Subject, body and trailers.
    pub message: String,
}

impl CommitText {
    /// From a commit object.
    fn parse(object: &[u8]) -> Self {
        let text = String::from_utf8_lossy(object);
        let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
        // `committer NAME <EMAIL> SECONDS ZONE`
        let seconds = head.lines().find_map(|line| line.strip_prefix("committer ")).and_then(|line| {
            let mut words = line.rsplit(' ');
            words.nth(1)?.parse().ok()
        });
        let time = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        Self { time, message: message.to_owned() }
    }

    /// The value of the last trailer with this name.
    #[must_use]
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.message.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    }
}

/// What came of a push.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The server said `ok` to our ref.
    Accepted,
    /// Another writer was first: the tip is not what we built upon.
    Outrun(String),
    /// The server refuses, whatever we build upon.
    Refused(String),
}

/// One commit of a chain.
pub struct Link<'a> {
    /// Who made the change.
    pub author: &'a Identity,
    /// When; by default, now.
    pub time: Option<SystemTime>,
    /// The whole message.
    pub message: String,
    /// Files with what they are after the commit; with nothing, they go.
    pub changes: Vec<(Vec<u8>, Option<Entry>)>,
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

/// Where a checkout lies, and what it takes to talk to its remote.
pub struct Place<'a> {
    /// The folder with all that belongs to the checkout.
    pub folder: &'a Path,
    /// Our own program, which git starts as `ssh`: without a shell, that is how options get to ssh.
    pub own_program: &'a Path,
    /// Where host keys are remembered that were accepted when first seen.
    pub accepted_hosts: &'a Path,
    /// The file of the key that signs commits, from [`signing::prepare`](crate::signing::prepare).
    pub signing_key: Option<&'a Path>,
}

impl<'a> Git<'a> {
    /// A checkout at `place.folder`, which need not exist yet.
    ///
    /// # Errors
    /// When the files of the run cannot be written.
    pub fn new(
        workplace: &'a Workplace,
        place: &Place<'_>,
        remote: &'a RemoteUrl,
        branch: &'a BranchName,
        credentials: &GitCredentials,
    ) -> Result<Self, GitError> {
        let configuration = workplace.scratch.write("gitconfig", CONFIGURATION.as_bytes())?;
        Ok(Self {
            place: workplace,
            remote,
            branch,
            git_folder: place.folder.join("git"),
            tree_folder: place.folder.join("tree"),
            configuration,
            address: address(remote),
            signing_key: place.signing_key.map(Path::to_owned),
            access: access(workplace, place, remote, credentials)?,
        })
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
        Ok(parse_remote_state(&listing, &full_ref))
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
        for (name, content) in [("config", own.as_str()), ("info/attributes", ATTRIBUTES)] {
            scratch::remove_folder(&self.git_folder.join(name))?;
            scratch::write_file(&self.git_folder.join(name), content.as_bytes())?;
        }
        scratch::write_file(&self.configuration, CONFIGURATION.as_bytes())?;
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
        match self.fetch(TIP_REF, &["--depth=1"]) {
            Ok(()) => self.resolve(TIP_REF).map(Some),
            Err(GitError::Checkout(message)) if message.contains("couldn't find remote ref") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the checkout has the commit already.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn is_at(&self, commit: &ObjectId) -> Result<bool, GitError> {
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

    /// The tree at a path of a commit, without slashes at its ends; an empty one is the whole.
    ///
    /// # Errors
    /// [`GitError`], also where there is no tree.
    pub fn tree_at(&self, commit: &ObjectId, path: &str) -> Result<ObjectId, GitError> {
        let name = if path.is_empty() { format!("{commit}^{{tree}}") } else { format!("{commit}:{path}") };
        self.object_id(self.command()?.arguments(["rev-parse", "--verify", "--quiet", &name]))
    }

    /// All files of a commit or tree, as they are there, sound or not, in a listing of this name.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn list(&self, tree: &ObjectId, name: &str) -> Result<Listing, GitError> {
        let arguments = ["ls-tree", "-r", "-z", "--full-tree", tree.as_str()];
        Ok(self.listing(name, self.command()?.arguments(arguments))?.sorted()?)
    }

    /// All files of the index.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn list_index(&self) -> Result<Listing, GitError> {
        self.listing("index.listing", self.command()?.arguments(["ls-files", "--stage", "-z"]))
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

    /// Takes all that is in the tree folder into the index, whatever ignore files say.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn stage(&self) -> Result<(), GitError> {
        self.locally(self.command()?.arguments(["add", "--all", "--force"])).map(drop)
    }

    /// A tree of all that is staged.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn write_tree(&self) -> Result<ObjectId, GitError> {
        self.object_id(self.command()?.arguments(["write-tree"]))
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

    /// Brings the branch here with all its history; the tip, or `None` where the branch is not there.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn fetch_history(&self) -> Result<Option<ObjectId>, GitError> {
        match self.fetch(TIP_REF, &[]) {
            Ok(()) => self.resolve(TIP_REF).map(Some),
            Err(GitError::Checkout(message)) if message.contains("couldn't find remote ref") => Ok(None),
            Err(error) => Err(error),
        }
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

    /// The newest commit, from this one on, whose message has all these lines; what it says.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn last_with(&self, commit: &ObjectId, lines: &[String]) -> Result<Option<CommitText>, GitError> {
        let command = self.command()?.arguments(["log", "-1", "--all-match", "--no-show-signature", "--format=%B"]);
        let command = lines.iter().fold(command, |all, line| all.argument(format!("--grep=^{line}")));
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
        Ok(CommitText::parse(&self.locally(command)?))
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
        let now = seconds(SystemTime::now());
        let orders = self.place.scratch.write("commits", &chain(parent, base, committer, now, links))?;
        let import = ["fast-import", "--quiet", "--force", "--done", "--date-format=raw"];
        self.locally(self.command()?.arguments(import).stdin(File::open(orders)?))?;
        let mut last = self.resolve(CHAIN_REF)?;
        let mut list = self.command()?.arguments(["rev-list", "--reverse", "--format=%T", CHAIN_REF]);
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
                let time = link.time.map(seconds).unwrap_or(now);
                let made = self.commit_by(tree, parent.as_ref(), committer, link.author, Some(time), &link.message)?;
                last = made.clone();
                parent = Some(made);
            }
        }
        self.locally(self.command()?.arguments(["update-ref", "-d", CHAIN_REF]))?;
        Ok((last, tree.clone()))
    }

    /// Pushes a commit to the branch; never by force.
    ///
    /// # Errors
    /// [`GitError`] where no answer for our ref came; a refusal is no error but [`Pushed`].
    pub fn push(&self, commit: &ObjectId) -> Result<Pushed, GitError> {
        self.push_with(commit, None)
    }

    /// Asks the remote whether it would take a push, and pushes nothing. What a server decides only when it gets the
    /// commit, such as the protection of a branch, this does not show.
    ///
    /// # Errors
    /// As [`Git::push`].
    pub fn try_push(&self, commit: &ObjectId) -> Result<Pushed, GitError> {
        self.push_with(commit, Some("--dry-run"))
    }

    fn push_with(&self, commit: &ObjectId, option: Option<&str>) -> Result<Pushed, GitError> {
        let full_ref = self.branch.full_ref();
        let command = self
            .command()?
            .arguments(["push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags"])
            .arguments(option)
            .arguments(["--recurse-submodules=no", "--", &self.address])
            .argument(format!("{commit}:{full_ref}"))
            .capture(ANSWER_BYTES_MAX);
        let finished = self.run(self.with_access(command))?;
        let printed = self.place.scrubber.scrub(&String::from_utf8_lossy(&finished.stdout));
        match parse_push(printed.as_bytes(), &full_ref) {
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
        if finished.tail.iter().any(|line| !line.starts_with("remote:") && is_of_the_disk(line)) {
            return GitError::Machine(format!("{tried} {} (branch `{}`): {printed}", self.remote, self.branch));
        }
        let found = classify(&printed);
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

/// Configuration that takes the place of a user's and the system's.
const CONFIGURATION: &str = "\
# Written for one run.
[safe]
\t# A bare repository on a volume may belong to anybody. Given by environment, this one is ignored.
\tdirectory = *
[core]
\tfsmonitor = false
\tautocrlf = false
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tfileMode = true
\tlogAllRefUpdates = false
\t# Names that Windows could not hold are names all the same.
\tprotectNTFS = false
\tprotectHFS = false
[gc]
\t# No process in the background that works on after us.
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[http]
\t# git would send the token along to where it is redirected.
\tfollowRedirects = false
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
[credential]
\thelper =
[submodule]
\trecurse = false
[commit]
\tgpgSign = false
[i18n]
\tcommitEncoding = utf-8
";

const _: () = assert!(STALLED_SECONDS_MAX == 60, "lowSpeedTime above says the same");

/// A repository on a volume is reached as if it were another machine's, with our own program as `ssh`: git starts the
/// other side of a `file:` remote by a shell, and an image of ours has none.
fn address(remote: &RemoteUrl) -> String {
    match (remote.scheme(), remote.as_str().strip_prefix("file://")) {
        (RemoteScheme::File, Some(path)) => ["ssh://this-machine", path].concat(),
        _ => remote.as_str().to_owned(),
    }
}

/// Environment that gets the credentials to where they belong.
fn access(
    workplace: &Workplace,
    place: &Place<'_>,
    remote: &RemoteUrl,
    credentials: &GitCredentials,
) -> Result<Vec<(String, String)>, GitError> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let own_program_as_ssh = |options: &str| {
        vec![
            // A command with options would need a shell, and an image of ours has none.
            pair("GIT_SSH", &place.own_program.to_string_lossy()),
            pair("GIT_SSH_VARIANT", "ssh"),
            pair(SSH_ENVIRONMENT, options),
        ]
    };
    match credentials {
        GitCredentials::None if remote.scheme() == RemoteScheme::File => {
            Ok(own_program_as_ssh(subprocess::THIS_MACHINE))
        }
        GitCredentials::None => Ok(Vec::new()),
        GitCredentials::Token { username, token } => {
            let Some(origin) = remote.origin() else { return Ok(Vec::new()) };
            let basic = basic_credentials(username, token);
            Ok(vec![
                pair("GIT_CONFIG_COUNT", "1"),
                pair("GIT_CONFIG_KEY_0", &format!("http.{origin}.extraHeader")),
                pair("GIT_CONFIG_VALUE_0", &format!("Authorization: Basic {}", basic.expose())),
            ])
        }
        GitCredentials::Ssh { key, known_hosts, accept_new } => {
            let key = workplace.scratch.write("ssh_key", key.expose().as_bytes())?;
            let options = ssh_options(&key, known_hosts.as_deref(), accept_new.then_some(place.accepted_hosts));
            Ok(own_program_as_ssh(&options.join("\n")))
        }
    }
}

/// What ssh is told: this key only, no configuration of a user, no question, an unknown host refused.
fn ssh_options(key: &Path, known_hosts: Option<&Path>, accepted: Option<&Path>) -> Vec<String> {
    // ssh splits a value at white space unless it is quoted.
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    let hosts: Vec<_> = accepted.into_iter().chain(known_hosts).map(quoted).collect();
    let checking = if accepted.is_some() { "accept-new" } else { "yes" };
    vec![
        format!("IdentityFile={}", quoted(key)),
        format!("UserKnownHostsFile={}", hosts.join(" ")),
        format!("StrictHostKeyChecking={checking}"),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        "BatchMode=yes".to_owned(),
        "PasswordAuthentication=no".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "ConnectTimeout=20".to_owned(),
        "ServerAliveInterval=15".to_owned(),
        "ServerAliveCountMax=4".to_owned(),
    ]
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn from_failure(failure: Failure) -> GitError {
    match failure {
        Failure::Expired(expired) => GitError::Expired(expired),
        Failure::NotStarted { .. } | Failure::NotWritten { .. } => GitError::Machine(failure.to_string()),
        Failure::TooMuchOutput { .. } => GitError::Checkout(failure.to_string()),
    }
}

/// What a verb that needs the checkout only printed, where it succeeded.
fn successful(shown: &str, finished: Finished) -> Result<Vec<u8>, GitError> {
    if finished.is_success() {
        return Ok(finished.stdout);
    }
    let text = format!("`{shown}` ended with {}: {}", finished.ending, finished.tail_text());
    if is_of_the_disk(&text) { Err(GitError::Machine(text)) } else { Err(GitError::Checkout(text)) }
}

/// What the disk refuses, a new checkout would be refused too.
fn is_of_the_disk(printed: &str) -> bool {
    let signs = ["No space left on device", "Read-only file system", "Disk quota exceeded"];
    signs.iter().any(|sign| printed.contains(sign))
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

/// Since the beginning of Unix's time.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Input of `git fast-import`: these commits, upon `parent` and its tree, or upon the tree `base` where that is another.
fn chain(
    parent: Option<&ObjectId>,
    base: Option<&ObjectId>,
    committer: &Identity,
    now: u64,
    links: &[Link<'_>],
) -> Vec<u8> {
    // What a run that was killed has left there is not to be built upon.
    let mut orders = format!("reset {CHAIN_REF}\n\n").into_bytes();
    for (index, link) in links.iter().enumerate() {
        let time = link.time.map_or(now, seconds);
        let head = format!(
            "commit {CHAIN_REF}\nauthor {} {time} +0000\ncommitter {committer} {now} +0000\ndata {}\n{}\n",
            link.author,
            link.message.len(),
            link.message
        );
        orders.extend_from_slice(head.as_bytes());
        if index == 0 {
            if let Some(parent) = parent {
                orders.extend_from_slice(format!("from {parent}\n").as_bytes());
            }
            if let Some(base) = base.filter(|base| Some(*base) != parent) {
                orders.extend_from_slice(format!("M 040000 {base} \"\"\n").as_bytes());
            }
        }
        // What goes comes first: a file may become a folder, or a folder a file.
        for (path, _) in link.changes.iter().filter(|(_, entry)| entry.is_none()) {
            orders.extend_from_slice(b"D ");
            put_quoted(&mut orders, path);
        }
        for (path, entry) in &link.changes {
            if let Some(entry) = entry {
                orders.extend_from_slice(format!("M {:o} {} ", entry.mode, entry.object).as_bytes());
                put_quoted(&mut orders, path);
            }
        }
    }
    orders.extend_from_slice(b"done\n");
    orders
}

/// A path between quotes, in the manner of C, and the end of the line.
fn put_quoted(orders: &mut Vec<u8>, path: &[u8]) {
    orders.push(b'"');
    for byte in path {
        match byte {
            b'\n' => orders.extend_from_slice(b"\\n"),
            b'"' | b'\\' => orders.extend_from_slice(&[b'\\', *byte]),
            byte => orders.push(*byte),
        }
    }
    orders.extend_from_slice(b"\"\n");
}

fn parse_remote_state(listing: &[u8], full_ref: &str) -> RemoteState {
    let text = String::from_utf8_lossy(listing);
    let mut state = RemoteState { tip: None, format: None };
    for (id, name) in text.lines().filter_map(|line| line.split_once('\t')) {
        let Some(id) = ObjectId::parse(id) else { continue };
        state.format = Some(id.format());
        // A pattern matches the ends of names too: `x/refs/heads/main`.
        if name == full_ref {
            state.tip = Some(id);
        }
    }
    state
}

/// The line of `git push --porcelain` for our ref: `flag TAB from:to TAB summary (reason)`.
fn parse_push(printed: &[u8], full_ref: &str) -> Option<Pushed> {
    let text = String::from_utf8_lossy(printed);
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, '\t');
        let (flag, refs, summary) = (fields.next()?, fields.next()?, fields.next()?);
        if refs.split_once(':')?.1 != full_ref {
            return None;
        }
        Some(match flag {
            " " | "*" | "=" => Pushed::Accepted,
            "!" if is_race(summary) => Pushed::Outrun(summary.to_owned()),
            _ => Pushed::Refused(summary.to_owned()),
        })
    })
}

/// Whether a refusal means that the tip moved: git saw it itself, or the server could not lock the ref that we read.
fn is_race(summary: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "(fetch first)",
        // The commit that our shallow history begins with is on no branch any more: the tip was moved by force.
        "(shallow update not allowed)",
        "(non-fast-forward)",
        "(stale info)",
        "cannot lock ref",
        "failed to lock",
        "failed to update ref",
        "reference already exists",
    ];
    summary.starts_with("[rejected]") || SIGNS.iter().any(|sign| summary.contains(sign))
}

impl Pushed {
    /// Adds what the server said on the side, such as the message of a hook.
    fn explained(self, finished: &Finished) -> Self {
        let remote: Vec<_> =
            finished.tail.iter().filter_map(|line| line.strip_prefix("remote:")).map(str::trim).collect();
        match self {
            Self::Refused(summary) if !remote.is_empty() => Self::Refused(format!("{summary}: {}", remote.join("\n"))),
            other => other,
        }
    }
}

struct Classified {
    code: Code,
    why: Option<&'static str>,
    is_redirect: bool,
    is_local: bool,
    is_passing: bool,
}

/// What git's words on stderr mean. git tells by words only, and `LC_ALL=C` keeps these.
fn classify(printed: &str) -> Classified {
    const SIGNS: &[(&[&str], Code, Option<&str>)] = &[
        (
            &["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED", "No matching host key"],
            Code::GitUnreachable,
            Some("the host's key is unknown or has changed"),
        ),
        (
            &[
                "Authentication failed",
                "could not read Username",
                "could not read Password",
                "Permission denied (",
                "returned error: 401",
                "returned error: 403",
                "invalid credentials",
                "Too many authentication failures",
                "HTTP Basic: Access denied",
            ],
            Code::GitUnauthorized,
            Some("the credentials were refused"),
        ),
        (
            &["returned error: 30"],
            Code::GitFailed,
            Some("the remote answers with a redirect, which is not followed since the token would go along"),
        ),
        (
            &["returned error: 404", "not found", "does not appear to be a git repository", "does not exist"],
            Code::GitFailed,
            Some("there is no such repository, or it is hidden from this token"),
        ),
        (
            &[
                "Could not resolve",
                "Failed to connect",
                "Couldn't connect",
                "Connection refused",
                "Connection timed out",
                "Connection reset",
                "Connection closed",
                "Network is unreachable",
                "No route to host",
                "Name or service not known",
                "Temporary failure in name resolution",
                "timed out",
                "Operation too slow",
                "SSL",
                "TLS",
                "certificate",
                "returned error: 5",
                "returned error: 429",
                "HTTP 5",
                "RPC failed",
                "early EOF",
                "unexpected disconnect",
                "the remote end hung up",
                "Empty reply from server",
                "transfer closed",
                "kex_exchange_identification",
                "Could not read from remote repository",
                "unable to access",
            ],
            Code::GitUnreachable,
            None,
        ),
    ];
    let has = |signs: &[&str]| signs.iter().any(|sign| printed.contains(sign));
    // The other side hangs up, too, where our own git could not read what it was to send.
    let is_ours = has(&["error: Could not read ", "error: could not parse commit "]);
    let found = SIGNS.iter().find(|(signs, ..)| !is_ours && has(signs));
    let (code, why) = found.map_or((Code::GitFailed, None), |(_, code, why)| (*code, *why));
    Classified {
        code,
        why,
        is_redirect: printed.contains("returned error: 30"),
        // What is no sign of the remote's is taken for one of our side: objects, refs, the list of shallow commits.
        is_local: found.is_none(),
        is_passing: code == Code::GitUnreachable && why.is_none() && is_passing(printed),
    }
}

/// Whether a remote that was not reached may be reached in a moment. A certificate does not become another, nor does
/// ssh come from nowhere, and of the statuses only some pass.
fn is_passing(printed: &str) -> bool {
    let status = ["returned error: ", "HTTP "].iter().find_map(|sign| {
        let digits = printed.split(sign).nth(1)?.get(..3)?;
        digits.parse().ok()
    });
    let stays = ["certificate", "CAfile", "cannot start ssh", "No user exists for uid"];
    status.map_or(!stays.iter().any(|sign| printed.contains(sign)), web::is_passing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn a_chain_says_who_what_and_upon_what() {
        let id = |letter: &str| ObjectId::parse(&letter.repeat(40)).expect("40 digits");
        let us = Identity::parse("Us", "us@x").expect("a name");
        let ann = Identity::parse("Ann", "ann@x").expect("a name");
        let entry = Entry { mode: 0o100_644, object: id("b") };
        let time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        let quoted = b"a \"b\"\\c\nd\xff".to_vec();
        let links = [
            Link {
                author: &ann,
                time,
                message: "\u{fc}".to_owned(),
                changes: vec![(quoted, Some(entry)), (b"z".to_vec(), None)],
            },
            Link { author: &us, time: None, message: "m".to_owned(), changes: Vec::new() },
        ];
        let (tip, tree) = (id("c"), id("d"));
        let orders = |base| String::from_utf8_lossy(&chain(Some(&tip), Some(base), &us, 9, &links)).into_owned();
        let expected = format!(
            "reset refs/sync/chain\n\ncommit refs/sync/chain\nauthor Ann <ann@x> 7 +0000\ncommitter Us <us@x> 9 +0000\n\
             data 2\n\u{fc}\nfrom {tip}\nM 040000 {tree} \"\"\nD \"z\"\n\
             M 100644 {} \"a \\\"b\\\"\\\\c\\nd\u{fffd}\"\n\
             commit refs/sync/chain\nauthor Us <us@x> 9 +0000\ncommitter Us <us@x> 9 +0000\ndata 1\nm\ndone\n",
            id("b")
        );
        assert_eq!(orders(&tree), expected);
        assert!(!orders(&tip).contains("040000"), "the parent's own tree needs no word");
    }

    #[test]
    fn the_tip_is_that_of_our_branch_and_no_other() {
        let b = "b".repeat(40);
        let listing = format!("{A}\tHEAD\n{b}\trefs/heads/x/refs/heads/main\n");
        let state = parse_remote_state(listing.as_bytes(), "refs/heads/main");
        assert_eq!(state, RemoteState { tip: None, format: Some(ObjectFormat::Sha1) });
        let listing = format!("{listing}{b}\trefs/heads/main\n");
        assert_eq!(parse_remote_state(listing.as_bytes(), "refs/heads/main").tip, ObjectId::parse(&b));
        assert_eq!(parse_remote_state(b"", "refs/heads/main"), RemoteState { tip: None, format: None });
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "rows of a table")]
    fn check_push(line: &str, expected: Option<Pushed>) {
        let printed = format!("To http://host/repo.git\n{line}\nDone\n");
        assert_eq!(parse_push(printed.as_bytes(), "refs/heads/main"), expected);
    }

    #[test]
    fn only_an_ok_to_our_ref_is_a_success() {
        check_push(&format!("*\t{A}:refs/heads/main\t[new branch]"), Some(Pushed::Accepted));
        check_push(&format!(" \t{A}:refs/heads/main\tabc..def"), Some(Pushed::Accepted));
        check_push(&format!("=\t{A}:refs/heads/main\t[up to date]"), Some(Pushed::Accepted));
        check_push(&format!(" \t{A}:refs/heads/main2\tabc..def"), None);
        let outrun = |summary: &str| Some(Pushed::Outrun(summary.to_owned()));
        let refused = |summary: &str| Some(Pushed::Refused(summary.to_owned()));
        let line = |summary: &str| format!("!\t{A}:refs/heads/main\t{summary}");
        check_push(&line("[rejected] (fetch first)"), outrun("[rejected] (fetch first)"));
        let locked = "[remote rejected] (cannot lock ref 'refs/heads/main': is at a but expected b)";
        check_push(&line(locked), outrun(locked));
        let hook = "[remote rejected] (pre-receive hook declined)";
        check_push(&line(hook), refused(hook));
        check_push(&line("[remote failure]"), refused("[remote failure]"));
        check_push("", None);
    }

    #[track_caller]
    fn check_class(printed: &str, expected: Code) {
        assert_eq!(classify(printed).code, expected, "{printed}");
    }

    #[test]
    fn what_git_prints_tells_what_failed() {
        check_class("fatal: unable to access 'http://h/': Could not resolve host: h", Code::GitUnreachable);
        check_class("fatal: unable to access 'http://h/': The requested URL returned error: 503", Code::GitUnreachable);
        check_class(
            "fatal: unable to access 'http://h/': The requested URL returned error: 403",
            Code::GitUnauthorized,
        );
        check_class("fatal: could not read Username for 'http://h': terminal prompts disabled", Code::GitUnauthorized);
        check_class(
            "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            Code::GitUnauthorized,
        );
        check_class(
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            Code::GitUnreachable,
        );
        check_class("fatal: repository 'http://h/r.git/' not found", Code::GitFailed);
        check_class("fatal: unable to access 'http://h/': The requested URL returned error: 301", Code::GitFailed);
        check_class("fatal: something new", Code::GitFailed);
        check_class("fatal: the remote end hung up unexpectedly", Code::GitUnreachable);
        let of_ours = "error: Could not read 0123\nerror: could not parse commit 0123\nfatal: the remote end hung up unexpectedly";
        check_class(of_ours, Code::GitFailed);
        assert!(classify(of_ours).is_local);
    }

    #[track_caller]
    fn check_passing(printed: &str, expected: bool) {
        assert_eq!(classify(printed).is_passing, expected, "{printed}");
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        let url = "fatal: unable to access 'http://h/': ";
        for (why, expected) in [
            ("Could not resolve host: h", true),
            ("Failed to connect to h port 1: Connection refused", true),
            ("The requested URL returned error: 503", true),
            ("The requested URL returned error: 429", true),
            ("The requested URL returned error: 400", false),
            ("The requested URL returned error: 401", false),
            ("The requested URL returned error: 404", false),
            ("server certificate verification failed. CAfile: none CRLfile: none", false),
            ("SSL certificate problem: certificate has expired", false),
            ("gnutls_handshake() failed: The TLS connection was non-properly terminated.", true),
            ("OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to h:443", true),
        ] {
            check_passing(&format!("{url}{why}"), expected);
        }
        check_passing("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", true);
        check_passing("error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413", false);
        check_passing("fatal: the remote end hung up unexpectedly", true);
        check_passing("Host key verification failed.\nfatal: Could not read from remote repository.", false);
        check_passing("fatal: something new", false);
    }
}
