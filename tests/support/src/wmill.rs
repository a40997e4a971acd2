//! The real `wmill`, installed once from the lock file in `tests/wmill`, and a pull by it alone to compare with; and the
//! changed copies of it that the image is made with.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::digest::short_name;
use super::process::{self, Finished, Started};
use super::project;
use super::sandbox::{Sandbox, target_dir, write_with_mode};
use super::trees::{Files, files_below};
use super::windmill::{WINDMILL_TOKEN, Windmill};

/// The kinds that are taken out where no setting says otherwise, in the words of `wmill.yaml`.
pub const OUR_DEFAULTS: &str = "defaultTs: bun\nincludeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";

/// Some 50 MB over a slow line.
const INSTALL_PATIENCE: Duration = Duration::from_secs(600);

/// The real `wmill`. The first call installs it below the target directory; later ones, other processes' included,
/// find it there.
pub fn wmill() -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(install).clone()
}

/// Its version, as `tests/wmill/package.json` pins it.
pub fn version() -> String {
    let path = project().join("tests/wmill/package.json");
    let manifest = fs::read_to_string(path).unwrap();
    let after = manifest.split_once("\"windmill-cli\": \"").expect("a pinned windmill-cli").1;
    after.split('"').next().unwrap().to_owned()
}

/// The same, but for the question for its version, which a script answers: the real one takes half a second of a
/// processor to start, and nearly every test asks.
pub fn wmill_of_known_version() -> PathBuf {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let write = || {
        let real = wmill();
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = --version ] && {{ echo 'Dependencies are sorted'; echo 'CLI version: {}'; exit; }}\nexec '{}' \"$@\"\n",
            version(),
            real.display()
        );
        let folder = target_dir().join("wmill/known-version").join(short_name(&script));
        let program = folder.join("wmill");
        let _guard = guard(&folder);
        // Written once: a test of another process may be about to start it.
        if !program.is_file() {
            let new = folder.join("new");
            write_with_mode(&new, script.as_bytes(), 0o755);
            fs::rename(new, &program).unwrap();
        }
        program
    };
    WRITTEN.get_or_init(write).clone()
}

/// Whether `image/adapt.mjs` has the lock file held in memory during a pull, as the image has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockFile {
    InMemory,
    AsEver,
}

impl LockFile {
    fn in_memory(self) -> &'static str {
        match self {
            Self::InMemory => "true",
            Self::AsEver => "false",
        }
    }
}

/// `image/adapt.mjs` on what [`wmill`] starts, to make `copy` of it, which Node.js runs.
pub fn adapt(original: &Path, copy: &Path, lock_file: LockFile) -> Finished {
    let mut command = Command::new("node");
    command.arg(image("adapt.mjs")).args([original, copy]).arg(lock_file.in_memory());
    process::run(command)
}

/// The file of the package that [`wmill`] starts.
pub fn main_file() -> PathBuf {
    fs::canonicalize(wmill()).unwrap()
}

/// `wmill` changed as the image's is, under Node.js. It lies beside the original, whose packages it imports.
pub fn adapted() -> PathBuf {
    static ADAPTED: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let original = main_file();
        let copy = original.with_file_name("adapted.js");
        let _guard = guard(&target_dir().join("wmill"));
        adapt(&original, &copy, LockFile::InMemory).must_succeed();
        copy
    };
    ADAPTED.get_or_init(make).clone()
}

/// `wmill` as the image has it, one program made by `image/build-wmill`, or the same without the change to its pulls.
pub fn one_program(lock_file: LockFile) -> PathBuf {
    let all = target_dir().join("wmill");
    let folder = all.join(match lock_file {
        LockFile::InMemory => "one-program",
        LockFile::AsEver => "one-program-as-ever",
    });
    let _guard = guard(&all);
    let mut command = Command::new(image("build-wmill"));
    command.arg(&folder).env("WMILL_LOCK_IN_MEMORY", lock_file.in_memory());
    let done = process::start(command).finish_within(INSTALL_PATIENCE);
    assert!(done.success(), "cannot make wmill one program with Bun from the npm registry: {done}");
    folder.join("out/wmill")
}

fn image(name: &str) -> PathBuf {
    project().join("image").join(name)
}

/// Held while something is made in this folder, against other tests and processes that want the same.
fn guard(folder: &Path) -> File {
    fs::create_dir_all(folder).unwrap();
    let guard = File::create(folder.join("lock")).unwrap();
    guard.lock().unwrap();
    guard
}

fn install() -> PathBuf {
    npm_packages("wmill").join(".bin/wmill")
}

/// The `node_modules` with the packages of the lock file in `tests/<name>`. The first call installs them below the target
/// directory; later ones, other processes' included, find them there.
pub fn npm_packages(name: &str) -> PathBuf {
    let source = project().join("tests").join(name);
    let read = |name: &str| fs::read_to_string(source.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (manifest, lock) = (read("package.json"), read("package-lock.json"));
    let all = target_dir().join(name);
    let digest = short_name(&(manifest.clone() + &lock));
    let finished = all.join(&digest);
    let _guard = guard(&all);
    for needed in ["node", "npm"] {
        assert!(
            process::find_program(needed, &[]).is_some(),
            "these tests run packages of npm: install Node.js 20 or newer, with npm (`{needed}` is not on the PATH)"
        );
    }
    if finished.is_dir() {
        return finished.join("node_modules");
    }
    // Under another name until it is whole: an install that was killed is not taken for a finished one. The name is
    // this process's own, since the npm of a killed one may still write.
    let partial = all.join(format!("{digest}.partial-{}", std::process::id()));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("package.json"), manifest).unwrap();
    fs::write(partial.join("package-lock.json"), lock).unwrap();
    let mut npm = Command::new("npm");
    npm.current_dir(&partial).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    let done = process::start(npm).finish_within(INSTALL_PATIENCE);
    assert!(done.success(), "cannot install the packages of tests/{name} from the npm registry: {done}");
    fs::rename(&partial, &finished).unwrap();
    finished.join("node_modules")
}

/// Starts `wmill sync pull` by itself into `into`, which gets `wmill_yaml` as its `wmill.yaml`.
pub fn start_pull(sandbox: &Sandbox, windmill: &Windmill, token: &str, wmill_yaml: &str, into: &Path) -> Started {
    fs::create_dir_all(into).unwrap();
    fs::write(into.join("wmill.yaml"), wmill_yaml).unwrap();
    process::start(pull_command(&wmill(), sandbox, windmill, token, into))
}

/// What `wmill sync push` alone makes of the files in `from`.
#[track_caller]
pub fn push_alone(sandbox: &Sandbox, wmill_yaml: &str, from: &Path) -> Finished {
    fs::write(from.join("wmill.yaml"), wmill_yaml).unwrap();
    let mut command = command(&wmill(), sandbox, &sandbox.windmill, WINDMILL_TOKEN, from);
    command.args(["sync", "push", "--yes", "--skip-branch-validation"]);
    process::start(command).finish_within(process::PATIENCE)
}

/// `sync pull` by `program`, a `wmill`, into `into`.
pub fn pull_command(program: &Path, sandbox: &Sandbox, windmill: &Windmill, token: &str, into: &Path) -> Command {
    let mut command = command(program, sandbox, windmill, token, into);
    command.args(["sync", "pull", "--yes", "--skip-branch-validation"]);
    command
}

/// `program`, a `wmill`, in `folder`, with workspace `shop` as its own; what it is to do has yet to be said.
pub fn command(program: &Path, sandbox: &Sandbox, windmill: &Windmill, token: &str, folder: &Path) -> Command {
    let config = sandbox.scratch("wmill-config");
    fs::create_dir_all(config.join("windmill")).unwrap();
    let profile = format!(
        "{{\"name\":\"alone\",\"remote\":\"{}/\",\"workspaceId\":\"shop\",\"token\":\"{token}\"}}\n",
        windmill.base_url()
    );
    write_with_mode(&config.join("windmill/remotes.ndjson"), profile.as_bytes(), 0o600);
    let mut command = process::clean_command(program);
    command
        .current_dir(folder)
        .env("HOME", sandbox.home())
        .env("WMILL_CONFIG_DIR", &config)
        // The sandbox lies in a repository, and wmill asks git where it is.
        .env("GIT_CEILING_DIRECTORIES", sandbox.path())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["--workspace", "alone"]);
    command
}

/// What `wmill sync pull` alone makes of workspace `shop` in `into`, with these settings.
#[track_caller]
pub fn pull_alone(sandbox: &Sandbox, wmill_yaml: &str, into: &Path) -> Finished {
    let windmill = &sandbox.windmill;
    start_pull(sandbox, windmill, WINDMILL_TOKEN, wmill_yaml, into).finish_within(process::PATIENCE)
}

/// The files that [`pull_alone`] makes in an empty folder, without the `wmill.yaml` that it was told.
#[track_caller]
pub fn pulled_alone(sandbox: &Sandbox, wmill_yaml: &str) -> Files {
    let into = sandbox.scratch("pulled-alone");
    fs::remove_dir_all(&into).unwrap();
    pull_alone(sandbox, wmill_yaml, &into).must_succeed();
    let mut files = files_below(&into);
    files.remove("wmill.yaml");
    files
}
