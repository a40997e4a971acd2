//! A sync that takes a tenth of a second: real git, and a stand-in for `wmill` that makes the folder what the real one
//! made of it once. For scenarios of which there are hundreds; each family has some with the real `wmill` too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{History, OUR_DEFAULTS};
use crate::bed::*;

/// What the workspace holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Seeded,
    Edited,
}

impl State {
    pub(crate) fn other(self) -> Self {
        if self == Self::Seeded { Self::Edited } else { Self::Seeded }
    }

    fn name(self) -> &'static str {
        if self == Self::Seeded { "1-seeded" } else { "2-edited" }
    }

    /// What the real `wmill` makes of it in an empty folder; asked once for all tests.
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

/// The program that writes what a real `wmill` wrote.
const REPLAY: &str = "[ \"$1\" = --version ] && { echo 'CLI version: 1.819.0'; exit; }\n\
    rm -rf f u groups wmill-lock.yaml ./*.resource-type.yaml\n\
    cp -R \"$here/current/.\" . || { echo 'ENOSPC or the like' >&2; exit 1; }\n\
    echo 'remote (x) -> local: 1 changes to apply'\necho 'Done! All 1 changes applied locally'\n";

/// A sandbox in which the stand-in pulls.
pub(crate) struct Replay {
    pub(crate) sandbox: Sandbox,
    pub(crate) remote: BareRepository,
    /// `COMMIT_PER`
    pub(crate) commit_per: &'static str,
    states: PathBuf,
}

/// What the repository holds beside the backup.
const README: (&str, &str) = ("README.md", "stays\n");

impl Replay {
    /// The workspace is seeded, and the repository has a README.
    pub(crate) fn new() -> Self {
        Self::with_files(|state| state.files().clone())
    }

    pub(crate) fn with_files(files: impl Fn(State) -> Files) -> Self {
        let sandbox = Sandbox::new();
        let remote = sandbox.repository();
        remote.commit_files("main", &[README]);
        let states = sandbox.scratch("states");
        for state in [State::Seeded, State::Edited] {
            write_files(&states.join(state.name()), &files(state));
        }
        let replay = Self { sandbox, remote, commit_per: "sync", states };
        replay.sandbox.program("wmill", &replay.script());
        replay.hold(State::Seeded);
        replay
    }

    /// The stand-in's text, for programs that do the same and something beside it.
    pub(crate) fn script(&self) -> String {
        format!("here='{}'\n{REPLAY}", self.states.display())
    }

    /// From now on the workspace holds this; Windmill shows that something changed, and the stand-in knows what.
    pub(crate) fn hold(&self, state: State) {
        self.sandbox.windmill.state(state.name());
        let current = self.states.join("current");
        let _ = fs::remove_file(&current);
        std::os::unix::fs::symlink(state.name(), &current).unwrap();
    }

    /// Puts a file into a state.
    pub(crate) fn put(&self, state: State, path: &str, content: &str) {
        write_files(&self.states.join(state.name()), &Files::from([(path.to_owned(), content.into())]));
        self.sandbox.windmill.put(path, content);
    }

    /// Where the states lie that the stand-in takes its files from.
    #[cfg(feature = "root-tests")]
    pub(crate) fn states(&self) -> &Path {
        &self.states
    }

    /// What the branch has to hold, then.
    pub(crate) fn expected(&self) -> Files {
        let mut files = files_below(&self.states.join("current/."));
        files.insert(README.0.to_owned(), README.1.into());
        files
    }

    pub(crate) fn sync(&self) -> Run<'_> {
        self.sandbox.sync().remote(&self.remote).env("COMMIT_PER", self.commit_per)
    }

    pub(crate) fn history(&self) -> History<'_> {
        History::of(&self.remote, "main")
    }

    /// The one checkout that the syncs have made.
    pub(crate) fn checkout(&self) -> PathBuf {
        the_checkout_in(&self.sandbox.data())
    }
}

/// The one checkout on a volume.
pub(crate) fn the_checkout_in(data: &Path) -> PathBuf {
    let checkouts = data.join("windmill-git-sync/checkouts");
    fs::read_dir(checkouts).unwrap().next().expect("a checkout").unwrap().path()
}

pub(crate) fn write_files(folder: &Path, files: &Files) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}
