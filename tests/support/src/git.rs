//! Bare repositories on disk, read and written by the real `git`: to see what a remote holds, and to write into it like
//! another user or an attacker. Every call names its repository and ignores the git configuration of the machine.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{self, Finished};
use super::sandbox::{Sandbox, write_with_mode};

/// A place where a backup can go.
pub trait Remote {
    /// Returns the value for `GIT_REMOTE_URL`.
    fn url(&self) -> String;
    /// Returns the other settings that this remote needs: credentials, known hosts.
    fn credentials(&self) -> Vec<(String, String)>;
}

/// The files of a commit: path to mode (`100644`, `100755`, `120000`, `160000`) and content. The content of a submodule
/// is the id of its commit.
pub type Tree = BTreeMap<String, (String, Vec<u8>)>;

/// A commit, as `git log` shows it.
#[derive(Clone, Debug)]
pub struct Commit {
    pub id: String,
    pub parents: Vec<String>,
    /// `Name <address>`
    pub author: String,
    /// `Name <address>`
    pub committer: String,
    pub subject: String,
    /// The whole message, including trailers.
    pub message: String,
}

/// The paths that a commit adds, modifies (or changes the type of) and deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    pub modified: Vec<String>,
    pub deleted: Vec<String>,
}

impl Changes {
    /// Returns added, modified and deleted, like [`super::Outcome::changed`].
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.added.len() as u64, self.modified.len() as u64, self.deleted.len() as u64)
    }
}

/// A bare repository in a sandbox. A clone of the value is another handle to the same repository.
#[derive(Clone, Debug)]
pub struct BareRepository {
    path: PathBuf,
    config: PathBuf,
}

/// Returns a `git` that ignores the configuration of this machine and its user.
pub fn git(sandbox: &Sandbox) -> Command {
    git_with_config(&config_in(sandbox.path()))
}

fn config_in(folder: &Path) -> PathBuf {
    let path = folder.join("support.gitconfig");
    if !path.exists() {
        let config = "[safe]\n\tdirectory = *\n[gc]\n\tauto = 0\n[init]\n\tdefaultBranch = main\n\
                      [core]\n\tprotectHFS = false\n\tprotectNTFS = false\n";
        fs::write(&path, config).unwrap();
    }
    path
}

fn git_with_config(config: &Path) -> Command {
    let program = process::find_program("git", &[])
        .expect("these tests run the real git: install it (Debian: `git`); it is not on the PATH");
    with_config(&program, config)
}

fn with_config(program: &Path, config: &Path) -> Command {
    let mut command = process::clean_command(program);
    command
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", config)
        .env("GIT_TERMINAL_PROMPT", "0");
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "Another Writer")
            .env(format!("GIT_{role}_EMAIL"), "another@example.com");
    }
    command
}

impl BareRepository {
    /// Creates the repository. `options` are options of `git init`.
    pub fn create(sandbox: &Sandbox, name: &str, options: &[&str]) -> Self {
        let path = sandbox.path().join("remotes").join(format!("{name}.git"));
        let mut init = git(sandbox);
        init.args(["init", "--quiet", "--bare", "--initial-branch=main"]).args(options).arg("--").arg(&path);
        process::run(init).must_succeed();
        Self { path, config: config_in(sandbox.path()) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a `git` that works on this repository.
    pub fn git<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = git_with_config(&self.config);
        command.arg("--git-dir").arg(&self.path).args(arguments);
        command
    }

    /// Returns another program of git, with the same clean environment.
    pub fn program(&self, program: &Path) -> Command {
        with_config(program, &self.config)
    }

    /// Runs git on this repository; it must succeed.
    #[track_caller]
    pub fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Finished {
        process::run(self.git(arguments)).must_succeed()
    }

    #[track_caller]
    fn line<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> String {
        self.run(arguments).stdout_text().trim().to_owned()
    }

    /// Returns the commit at the tip of a branch, if the branch exists.
    #[track_caller]
    pub fn tip(&self, branch: &str) -> Option<String> {
        self.branches().remove(branch)
    }

    /// Returns all branches with their tips.
    #[track_caller]
    pub fn branches(&self) -> BTreeMap<String, String> {
        let format = "--format=%(refname:lstrip=2) %(objectname)";
        let listed = self.run(["for-each-ref", format, "refs/heads/"]);
        listed
            .stdout_text()
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect()
    }

    /// Returns all refs with their targets, to show that nothing changed.
    #[track_caller]
    pub fn refs(&self) -> String {
        self.run(["for-each-ref"]).stdout_text()
    }

    /// Returns the files of a commit or branch.
    #[track_caller]
    pub fn files(&self, revision: &str) -> Tree {
        let listed = self.run(["ls-tree", "-r", "-z", "--full-tree", revision]);
        let text = listed.stdout_text();
        let entries: Vec<(&str, &str, &str)> = text
            .split_terminator('\0')
            .map(|entry| {
                let (about, path) = entry.split_once('\t').unwrap();
                let words: Vec<&str> = about.split(' ').collect();
                (words[0], words[2], path)
            })
            .collect();
        let wanted: String = entries.iter().map(|(_, id, _)| format!("{id}\n")).collect();
        let contents = if wanted.is_empty() {
            Vec::new()
        } else {
            process::run_with_input(self.git(["cat-file", "--batch"]), wanted.into_bytes()).must_succeed().stdout
        };
        let mut rest = contents.as_slice();
        let mut tree = Tree::new();
        for (mode, id, path) in entries {
            let content = next_object(&mut rest).unwrap_or_else(|| id.as_bytes().to_vec());
            tree.insert(path.to_owned(), (mode.to_owned(), content));
        }
        tree
    }

    /// Like [`BareRepository::files`], without the modes. Panics if a file is not a regular one.
    #[track_caller]
    pub fn regular_files(&self, revision: &str) -> super::Files {
        self.files(revision)
            .into_iter()
            .map(|(path, (mode, content))| {
                assert_eq!(mode, "100644", "mode of `{path}`");
                (path, content)
            })
            .collect()
    }

    /// Returns the history of a commit or branch, newest first.
    #[track_caller]
    pub fn log(&self, revision: &str) -> Vec<Commit> {
        let format = "--format=%H%x1f%P%x1f%an <%ae>%x1f%cn <%ce>%x1f%s%x1f%B%x1e";
        let text = self.run(["log", format, revision, "--"]).stdout_text();
        text.split('\x1e')
            .map(|entry| entry.trim_start_matches('\n'))
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let fields: Vec<&str> = entry.split('\x1f').collect();
                let [id, parents, author, committer, subject, message] = fields[..] else {
                    return None;
                };
                Some(Commit {
                    id: id.to_owned(),
                    parents: parents.split_whitespace().map(str::to_owned).collect(),
                    author: author.to_owned(),
                    committer: committer.to_owned(),
                    subject: subject.to_owned(),
                    message: message.to_owned(),
                })
            })
            .collect::<Option<_>>()
            .unwrap_or_else(|| panic!("git log said: {text}"))
    }

    /// Returns the changes between two commits, or from an empty tree to a commit, as `git diff --name-status` shows
    /// them.
    #[track_caller]
    pub fn changes(&self, from: Option<&str>, to: &str) -> Changes {
        let nothing = || self.store_raw_tree(&[]);
        let from = from.map_or_else(nothing, str::to_owned);
        let listed = self.run(["diff", "--no-renames", "--name-status", "-z", &from, to]).stdout_text();
        let mut changes = Changes::default();
        let words: Vec<&str> = listed.split_terminator('\0').collect();
        for pair in words.chunks(2) {
            let list = match pair[0] {
                "A" => &mut changes.added,
                "M" | "T" => &mut changes.modified,
                "D" => &mut changes.deleted,
                other => panic!("`git diff` says {other} of {}", pair[1]),
            };
            list.push(pair[1].to_owned());
        }
        changes
    }

    /// Returns true if `ancestor` is the commit `of` or comes before it.
    pub fn is_ancestor(&self, ancestor: &str, of: &str) -> bool {
        process::run(self.git(["merge-base", "--is-ancestor", ancestor, of])).success()
    }

    /// Returns every object in full, including names and messages, to search for what must not be there.
    #[track_caller]
    pub fn everything(&self) -> Vec<u8> {
        self.run(["cat-file", "--batch", "--batch-all-objects"]).stdout
    }

    /// Panics if git finds the repository damaged.
    #[track_caller]
    pub fn assert_sound(&self) {
        self.run(["fsck", "--full", "--no-dangling"]);
    }

    /// Commits these files on top of `branch`, like another writer, and returns the commit.
    #[track_caller]
    pub fn commit_files(&self, branch: &str, files: &[(&str, &str)]) -> String {
        files
            .iter()
            .fold(self.commit(branch), |commit, (path, content)| commit.file(path, content))
            .done("Another writer's commit")
    }

    /// Begins a commit on top of `branch`, which need not exist.
    #[track_caller]
    pub fn commit(&self, branch: &str) -> NewCommit<'_> {
        NewCommit { repository: self, branch: branch.to_owned(), index: Vec::new() }
    }

    /// Stores a file's content and returns its id.
    #[track_caller]
    pub fn store_blob(&self, content: &[u8]) -> String {
        self.store("blob", content)
    }

    /// Stores a commit with exactly this text, and returns its id.
    #[track_caller]
    pub fn store_raw_commit(&self, text: &[u8]) -> String {
        self.store("commit", text)
    }

    fn store(&self, kind: &str, content: &[u8]) -> String {
        // A file, because the runner treats empty input as no input.
        let input = self.path.join("input");
        fs::write(&input, content).unwrap();
        let mut command = self.git(["hash-object", "-t", kind, "-w", "--literally", "--no-filters", "--"]);
        command.arg(&input);
        let id = process::run(command).must_succeed().stdout_text();
        let _ = fs::remove_file(&input);
        id.trim().to_owned()
    }

    /// Stores a folder with exactly these entries, in this order. This permits duplicates and names that no index
    /// accepts (`.git`, `..`). An entry is a mode, a name and an id.
    #[track_caller]
    pub fn store_raw_tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            // Git writes the mode of a folder without the leading zero.
            bytes.extend_from_slice(mode.trim_start_matches('0').as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            let byte = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).unwrap();
            bytes.extend((0..id.len()).step_by(2).map(byte));
        }
        self.store("tree", &bytes)
    }

    /// Makes a commit with exactly this tree the tip of `branch`.
    #[track_caller]
    pub fn commit_tree(&self, branch: &str, tree: &str, message: &str) -> String {
        let mut arguments = vec!["commit-tree".to_owned(), "-m".to_owned(), message.to_owned()];
        if let Some(parent) = self.tip(branch) {
            arguments.extend(["-p".to_owned(), parent]);
        }
        arguments.push(tree.to_owned());
        let commit = self.line(&arguments);
        self.run(["update-ref", &format!("refs/heads/{branch}"), &commit]);
        commit
    }

    /// Replaces the tip of `branch` with the same commit, but with this parent, committer time and author
    /// (`Name <address>`).
    #[track_caller]
    pub fn make_tip_again(&self, branch: &str, parent: Option<&str>, time: &str, author: Option<&str>) -> String {
        let message = self.run(["log", "-1", "--format=%B", branch]).stdout_text();
        let tree = format!("{branch}^{{tree}}");
        let parents = parent.map_or(vec![], |parent| vec!["-p", parent]);
        let mut command =
            self.git([&["commit-tree", "-m", message.trim_end()], &parents[..], &[tree.as_str()]].concat());
        command.env("GIT_COMMITTER_DATE", time);
        if let Some((name, address)) = author.and_then(|author| author.trim_end_matches('>').split_once(" <")) {
            command.env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", address);
        }
        let made = process::run_with_input(command, Vec::new()).must_succeed().stdout_text();
        self.force(branch, made.trim());
        made.trim().to_owned()
    }

    /// Moves a branch to another commit, like a force push.
    #[track_caller]
    pub fn force(&self, branch: &str, commit: &str) {
        self.run(["update-ref", &format!("refs/heads/{branch}"), commit]);
    }

    /// Installs a shell script as a server hook: `pre-receive`, `update`, `post-receive`.
    pub fn hook(&self, name: &str, script: &str) {
        let folder = self.path.join("hooks");
        fs::create_dir_all(&folder).unwrap();
        let script = format!("#!/bin/sh\n{script}\n");
        write_with_mode(&folder.join(name), script.as_bytes(), 0o755);
    }

    /// Removes a hook.
    pub fn unhook(&self, name: &str) {
        let _ = fs::remove_file(self.path.join("hooks").join(name));
    }

    /// Makes the server refuse every push with this line, like a protected branch.
    pub fn refuse_pushes(&self, why: &str) {
        self.hook("pre-receive", &format!("echo '{why}' >&2\nexit 1"));
    }

    pub fn accept_pushes(&self) {
        self.unhook("pre-receive");
    }
}

impl Remote for BareRepository {
    fn url(&self) -> String {
        // git decodes such a URL, and the path of this repository may contain a space.
        let path = self.path.display().to_string();
        format!("file://{}", path.replace('%', "%25").replace(' ', "%20"))
    }

    fn credentials(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Removes the next object from the output of `git cat-file --batch`. Returns `None` if git did not find the object.
fn next_object(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let head = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = &rest[end + 1..];
    let size: usize = head.rsplit_once(' ')?.1.parse().ok()?;
    let content = rest[..size].to_vec();
    *rest = &rest[size + 1..];
    Some(content)
}

/// A commit on top of a branch, before it is written.
pub struct NewCommit<'a> {
    repository: &'a BareRepository,
    branch: String,
    /// Lines for `git update-index -z --index-info`.
    index: Vec<u8>,
}

impl NewCommit<'_> {
    #[track_caller]
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let id = self.repository.store_blob(content.as_ref());
        self.entry("100644", path, &id)
    }

    #[track_caller]
    #[must_use]
    pub fn executable(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let id = self.repository.store_blob(content.as_ref());
        self.entry("100755", path, &id)
    }

    #[track_caller]
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        let id = self.repository.store_blob(target.as_bytes());
        self.entry("120000", path, &id)
    }

    /// Adds a submodule at `commit`, which need not exist anywhere.
    #[must_use]
    pub fn submodule(self, path: &str, commit: &str) -> Self {
        self.entry("160000", path, commit)
    }

    /// Removes a file, or all files of a folder.
    #[track_caller]
    #[must_use]
    pub fn remove(mut self, path: &str) -> Self {
        let tip = self.repository.tip(&self.branch).expect("a branch");
        let listed = self.repository.run(["ls-tree", "-r", "-z", "--name-only", "--full-tree", &tip, "--", path]);
        let absent = "0".repeat(tip.len());
        for name in listed.stdout_text().split_terminator('\0') {
            self = self.entry("0", name, &absent);
        }
        self
    }

    /// Adds an entry in the format of the index.
    #[must_use]
    pub fn entry(mut self, mode: &str, path: &str, id: &str) -> Self {
        self.index.extend_from_slice(format!("{mode} {id}\t{path}\0").as_bytes());
        self
    }

    /// Makes the commit the tip of its branch, and returns it.
    #[track_caller]
    pub fn done(self, message: &str) -> String {
        let repository = self.repository;
        let index = repository.path.join("new-index");
        let _ = fs::remove_file(&index);
        let with_index = |arguments: &[&str]| {
            let mut command = repository.git(arguments);
            command.env("GIT_INDEX_FILE", &index);
            command
        };
        if let Some(tip) = repository.tip(&self.branch) {
            process::run(with_index(&["read-tree", &tip])).must_succeed();
        }
        let update = with_index(&["update-index", "-z", "--index-info"]);
        process::run_with_input(update, self.index).must_succeed();
        let tree = process::run(with_index(&["write-tree", "--missing-ok"])).must_succeed();
        let _ = fs::remove_file(&index);
        repository.commit_tree(&self.branch, tree.stdout_text().trim(), message)
    }
}
