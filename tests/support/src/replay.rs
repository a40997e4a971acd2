//! A `wmill` that restores the folder that the real one made once, so that a sync takes a tenth of a second. It is for
//! tests that are not about `wmill`, and for scenarios that run hundreds of times.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::git::BareRepository;
use super::run::Run;
use super::sandbox::Sandbox;
use super::trees::{Files, files_below};
use super::wmill::{OUR_DEFAULTS, pulled_alone, version};

/// The content of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Seeded,
    Edited,
}

impl State {
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::Seeded { Self::Edited } else { Self::Seeded }
    }

    fn name(self) -> &'static str {
        if self == Self::Seeded { "1-seeded" } else { "2-edited" }
    }

    /// Returns the files that the real `wmill` makes of it in an empty folder. The pull runs once for all tests.
    fn files(self) -> &'static Files {
        static SEEDED: OnceLock<Files> = OnceLock::new();
        static EDITED: OnceLock<Files> = OnceLock::new();
        let known = if self == Self::Seeded { &SEEDED } else { &EDITED };
        known.get_or_init(|| {
            let sandbox = Sandbox::new();
            sandbox.windmill.state(self.name());
            pulled_alone(&sandbox, OUR_DEFAULTS)
        })
    }
}

/// The script after its line that sets `here`, the folder of the states. Like the real `wmill`, it does not touch files
/// that are not items.
const SCRIPT: &str = "rm -rf wmill-lock.yaml ./*.resource-type.yaml\n\
    find f u groups ! -type d ! -name '*.md' -delete 2>/dev/null\n\
    find f u groups -type d -empty -delete 2>/dev/null\n\
    cp -R \"$here/current/.\" . || { echo 'ENOSPC or the like' >&2; exit 1; }\n\
    echo 'remote (x) -> local: 1 changes to apply'\necho 'Done! All 1 changes applied locally'\n";

impl Sandbox {
    /// Creates a sandbox with a `wmill` that replays. The workspace is seeded.
    pub fn replayed() -> Self {
        Self::replaying(|state| state.files().clone())
    }

    fn replaying(files: impl Fn(State) -> Files) -> Self {
        let sandbox = Self::new();
        for state in [State::Seeded, State::Edited] {
            write_files(&sandbox.states().join(state.name()), &files(state));
        }
        sandbox.program("wmill", &sandbox.replay_script());
        sandbox.hold(State::Seeded);
        sandbox
    }

    /// Sets the content of the workspace: Windmill shows that something changed, and the `wmill` that replays writes
    /// the new state.
    pub fn hold(&self, state: State) {
        self.windmill.state(state.name());
        let current = self.states().join("current");
        let _ = fs::remove_file(&current);
        std::os::unix::fs::symlink(state.name(), &current).unwrap();
    }

    /// Like [`Sandbox::hold`], with the test's own files in place of what `wmill` makes of a workspace.
    pub fn hold_files(&self, files: &Files) {
        let made = self.states().join("made");
        let _ = fs::remove_dir_all(&made);
        write_files(&made, files);
        let current = self.states().join("current");
        let _ = fs::remove_file(&current);
        std::os::unix::fs::symlink("made", &current).unwrap();
        // Makes Windmill show that something changed.
        static CHANGES: AtomicU32 = AtomicU32::new(0);
        self.windmill.put("f/made/change.ts", format!("// {}\n", CHANGES.fetch_add(1, Ordering::Relaxed)));
    }

    /// Returns the script of the `wmill` that replays, for programs that do the same and more.
    pub fn replay_script(&self) -> String {
        let known_version = format!("[ \"$1\" = --version ] && {{ echo 'CLI version: {}'; exit; }}\n", version());
        format!("here='{}'\n{known_version}{SCRIPT}", self.states().display())
    }

    /// Returns the folder of the states from which the `wmill` that replays takes its files.
    pub fn states(&self) -> PathBuf {
        self.scratch("states")
    }
}

/// A sandbox in which `wmill` replays, and a repository with a README.
pub struct Replay {
    pub sandbox: Sandbox,
    pub remote: BareRepository,
    /// The value of `COMMIT_PER`.
    pub commit_per: &'static str,
}

/// The file that the repository holds besides the backup.
const README: (&str, &str) = ("README.md", "stays\n");

impl Replay {
    /// Creates both. The workspace is seeded.
    pub fn new() -> Self {
        Self::with_files(|state| state.files().clone())
    }

    pub fn with_files(files: impl Fn(State) -> Files) -> Self {
        let sandbox = Sandbox::replaying(files);
        let remote = sandbox.repository();
        remote.commit_files("main", &[README]);
        Self { sandbox, remote, commit_per: "sync" }
    }

    /// Returns [`Sandbox::replay_script`].
    pub fn script(&self) -> String {
        self.sandbox.replay_script()
    }

    /// Returns the same in two parts: the folder of the states, and the commands of the stand-in.
    pub fn states_of_script(&self) -> (String, String) {
        let script = self.script();
        let (_, rest) = script.split_once('\n').unwrap();
        (self.sandbox.states().display().to_string(), rest.to_owned())
    }

    /// Calls [`Sandbox::hold`].
    pub fn hold(&self, state: State) {
        self.sandbox.hold(state);
    }

    /// Adds a file to a state.
    pub fn put(&self, state: State, path: &str, content: &str) {
        let folder = self.sandbox.states().join(state.name());
        write_files(&folder, &Files::from([(path.to_owned(), content.into())]));
        self.sandbox.windmill.put(path, content);
    }

    /// Returns the files that the branch must then hold.
    pub fn expected(&self) -> Files {
        let mut files = files_below(&self.sandbox.states().join("current/."));
        files.insert(README.0.to_owned(), README.1.into());
        files
    }

    pub fn sync(&self) -> Run<'_> {
        self.sandbox.sync().remote(&self.remote).env("COMMIT_PER", self.commit_per)
    }

    /// Returns the only checkout that the syncs have made.
    pub fn checkout(&self) -> PathBuf {
        the_checkout_in(&self.sandbox.data())
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the only checkout on a volume.
pub fn the_checkout_in(data: &Path) -> PathBuf {
    let checkouts = data.join("windmill-git-sync/checkouts");
    fs::read_dir(checkouts).unwrap().next().expect("a checkout").unwrap().path()
}

pub fn write_files(folder: &Path, files: &Files) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}
