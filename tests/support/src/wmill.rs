//! The real `wmill`, installed once from the lock file in `tests/wmill`, a pull with it alone for comparison, and the
//! changed copies of it that are in the image.

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

/// The `wmill.yaml` with the kinds that we export by default.
pub const OUR_DEFAULTS: &str = "defaultTs: bun\nincludeSchedules: true\nincludeTriggers: true\nincludeGroups: true\n";

/// How long an install may take: about 50 MB over a slow line.
const INSTALL_PATIENCE: Duration = Duration::from_secs(600);

/// Returns the real `wmill`. The first call installs it below the target directory. Later calls, also those of other
/// processes, find it there.
pub fn wmill() -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(install).clone()
}

/// Returns the version of `wmill` that `tests/wmill/package.json` pins.
pub fn version() -> String {
    let path = project().join("tests/wmill/package.json");
    let manifest = fs::read_to_string(path).unwrap();
    let after = manifest.split_once("\"windmill-cli\": \"").expect("a pinned windmill-cli").1;
    after.split('"').next().unwrap().to_owned()
}

/// Returns a script that answers the question for the version and passes all else to the real `wmill`. The real one
/// takes half a second of processor time to start, and nearly every test asks for its version.
pub fn wmill_of_known_version() -> PathBuf {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let write = || {
        let real = wmill();
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = --version ] && {{ echo 'CLI version: {}'; exit; }}\nexec '{}' \"$@\"\n",
            version(),
            real.display()
        );
        let folder = target_dir().join("wmill/known-version").join(short_name(&script));
        let program = folder.join("wmill");
        let _guard = guard(&folder);
        // The file is written only once, because a test of another process may be about to start it.
        if !program.is_file() {
            let new = folder.join("new");
            write_with_mode(&new, script.as_bytes(), 0o755);
            fs::rename(new, &program).unwrap();
        }
        program
    };
    WRITTEN.get_or_init(write).clone()
}

/// Whether `image/adapt.mjs` makes a pull hold the lock file in memory, as in the image.
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

/// Runs `image/adapt.mjs` on the file that [`wmill`] starts, to make `copy`, which Node.js can run.
pub fn adapt(original: &Path, copy: &Path, lock_file: LockFile) -> Finished {
    let mut command = Command::new("node");
    command.arg(image("adapt.mjs")).args([original, copy]).arg(lock_file.in_memory());
    process::run(command)
}

/// Returns the file of the package that [`wmill`] starts.
pub fn main_file() -> PathBuf {
    fs::canonicalize(wmill()).unwrap()
}

/// Returns `wmill` with the changes of the image, for Node.js. It is next to the original, because it imports the same
/// packages.
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

/// Returns `wmill` as in the image, one program made by `image/build-wmill`, or the same without the change to its
/// pulls.
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

/// Locks the folder while something is made in it, so that other tests and processes wait.
fn guard(folder: &Path) -> File {
    fs::create_dir_all(folder).unwrap();
    let guard = File::create(folder.join("lock")).unwrap();
    guard.lock().unwrap();
    guard
}

fn install() -> PathBuf {
    npm_packages("wmill").join(".bin/wmill")
}

/// Returns the `node_modules` with the packages of the lock file in `tests/<name>`. The first call installs them below
/// the target directory. Later calls, also those of other processes, find them there.
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
    // The folder has another name until it is complete, so that an interrupted install does not look finished. The name
    // contains our pid, because the npm of a killed process may still write.
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

/// Starts only `wmill sync pull` into `into`, with `wmill_yaml` as its `wmill.yaml`.
pub fn start_pull(sandbox: &Sandbox, windmill: &Windmill, token: &str, wmill_yaml: &str, into: &Path) -> Started {
    fs::create_dir_all(into).unwrap();
    fs::write(into.join("wmill.yaml"), wmill_yaml).unwrap();
    process::start(pull_command(&wmill(), sandbox, windmill, token, into))
}

/// Runs only `wmill sync push` on the files in `from`.
#[track_caller]
pub fn push_alone(sandbox: &Sandbox, wmill_yaml: &str, from: &Path) -> Finished {
    fs::write(from.join("wmill.yaml"), wmill_yaml).unwrap();
    let mut command = command(&wmill(), sandbox, &sandbox.windmill, WINDMILL_TOKEN, from);
    command.args(["sync", "push", "--yes", "--skip-branch-validation"]);
    process::start(command).finish_within(process::PATIENCE)
}

/// Returns the command for `sync pull` by `program`, a `wmill`, into `into`.
pub fn pull_command(program: &Path, sandbox: &Sandbox, windmill: &Windmill, token: &str, into: &Path) -> Command {
    let mut command = command(program, sandbox, windmill, token, into);
    command.args(["sync", "pull", "--yes", "--skip-branch-validation"]);
    command
}

/// Returns the command for `program`, a `wmill`, in `folder`, with a profile for workspace `shop`. The caller adds the
/// subcommand.
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
        // The sandbox is inside a git repository, and wmill asks git where it is.
        .env("GIT_CEILING_DIRECTORIES", sandbox.path())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["--workspace", "alone"]);
    command
}

/// Runs only `wmill sync pull` of workspace `shop` into `into`, with these settings.
#[track_caller]
pub fn pull_alone(sandbox: &Sandbox, wmill_yaml: &str, into: &Path) -> Finished {
    let windmill = &sandbox.windmill;
    start_pull(sandbox, windmill, WINDMILL_TOKEN, wmill_yaml, into).finish_within(process::PATIENCE)
}

/// Returns the files that [`pull_alone`] makes in an empty folder, without its `wmill.yaml`.
#[track_caller]
pub fn pulled_alone(sandbox: &Sandbox, wmill_yaml: &str) -> Files {
    let into = sandbox.scratch("pulled-alone");
    fs::remove_dir_all(&into).unwrap();
    pull_alone(sandbox, wmill_yaml, &into).must_succeed();
    let mut files = files_below(&into);
    files.remove("wmill.yaml");
    files
}
