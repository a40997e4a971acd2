//! A folder and a Windmill for each test, both removed when dropped.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::git::BareRepository;
use super::process::{self, Process};
use super::run::Run;
use super::windmill::Windmill;
use super::wmill::wmill;

/// Returns Cargo's target directory, found from the path of the running program. `env!("CARGO_TARGET_TMPDIR")` works
/// only in tests, and the demo is an example.
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    let marked = |folder: &&Path| folder.join(".rustc_info.json").is_file() || folder.join("CACHEDIR.TAG").is_file();
    program
        .ancestors()
        .skip(1)
        .find(marked)
        .unwrap_or_else(|| panic!("no target directory above `{}`", program.display()))
        .to_path_buf()
}

/// The folder of one test.
pub struct Sandbox {
    folder: PathBuf,
    /// The Windmill of the sandbox, with workspace `shop` in state `1-seeded`.
    pub windmill: Windmill,
}

/// One start of a program by our binary.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub arguments: Vec<String>,
    /// `NAME=value`
    pub environment: Vec<String>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// If less memory is free, the sandboxes are on the disk.
const MEMORY_BYTES_MIN: u64 = 2 << 30;

/// Returns the folder of the sandboxes in memory. The many small files of git take a third less time there than on
/// ext4.
fn in_memory() -> Option<PathBuf> {
    let shared = Path::new("/dev/shm");
    let about = statvfs(shared).ok()?;
    if about.f_bavail * about.f_frsize < MEMORY_BYTES_MIN || about.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return None;
    }
    let folder = shared.join("windmill-git-sync-tests");
    let _ = fs::DirBuilder::new().mode(0o755).create(&folder);
    let owner = fs::symlink_metadata(&folder).ok().filter(fs::Metadata::is_dir)?.uid();
    (owner == rustix::process::getuid().as_raw()).then_some(folder)
}

fn on_disk() -> PathBuf {
    target_dir().join("tmp")
}

impl Sandbox {
    pub fn new() -> Self {
        Self::with(Windmill::start())
    }

    /// Creates a sandbox on the disk, for tests that measure the disk or mount a folder in a container.
    pub fn on_disk() -> Self {
        static ALL: OnceLock<PathBuf> = OnceLock::new();
        Self::below(ALL.get_or_init(|| cleared(on_disk())), Windmill::start())
    }

    /// Creates a sandbox with another stand-in, for example one below a path prefix.
    pub fn with(windmill: Windmill) -> Self {
        static ALL: OnceLock<PathBuf> = OnceLock::new();
        Self::below(ALL.get_or_init(|| cleared(in_memory().unwrap_or_else(on_disk))), windmill)
    }

    fn below(all: &Path, windmill: Windmill) -> Self {
        let folder = all.join(format!("sandbox-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        for part in ["data", "home", "bin", "remotes", "scratch"] {
            fs::create_dir_all(folder.join(part)).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        Self { folder, windmill }
    }

    /// Returns the folder of the sandbox.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Returns `DATA_DIR` of our binary.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Returns `HOME` of our binary. A hostile `.gitconfig` goes here.
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Creates a folder with this name for any use, empty at first.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let folder = self.folder.join("scratch").join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Returns the running programs that our binary started for this sandbox. Each has a path of `DATA_DIR` in its
    /// environment, like our binary itself.
    pub fn processes(&self) -> Vec<Process> {
        process::processes_with_environment(&self.data().display().to_string())
    }

    /// Writes a file for any use, which only its owner can read.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.join("scratch").join(name);
        write_with_mode(&path, content.as_ref(), 0o600);
        path
    }

    /// Writes a shell script that replaces program `name` on the `PATH` of our binary.
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.bin().join(name);
        write_with_mode(&path, format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755);
        path
    }

    /// Makes each pull of `wmill` wait before it begins, until the returned value is dropped.
    pub fn hold_wmill(&self) -> HeldWmill {
        let folder = self.scratch("held-wmill");
        let (held, real) = (folder.join("held"), wmill());
        fs::write(&held, "").unwrap();
        let script = format!(
            "{outside}case \"$*\" in *--version*) exec '{real}' \"$@\";; esac\noutside \"touch '{folder}/$$.started'\"\n\
             while test -e '{held}'; do sleep 0.1; done\nexec '{real}' \"$@\"",
            outside = super::outside::function(),
            real = real.display(),
            folder = folder.display(),
            held = held.display(),
        );
        self.program("wmill", &script);
        HeldWmill { folder }
    }

    /// Records each start of program `name` by our binary from now on, before the real program runs: see
    /// [`Sandbox::invocations`].
    pub fn record(&self, name: &str) {
        let real = match name {
            "wmill" => wmill(),
            _ => process::find_program(name, &[]).unwrap_or_else(|| panic!("no `{name}`")),
        };
        let folder = self.scratch(&format!("invocations-{name}"));
        // Each process has its own file: two processes that write to one file at once would mix their text.
        let script = format!(
            "{}here='{}'\nprintf '%s\\0' \"$@\" > \"$TMPDIR/$$.arguments\"\n\
             env -0 > \"$TMPDIR/$$.environment\"\n\
             outside \"mv '$TMPDIR/$$.arguments' '$TMPDIR/$$.environment' '$here'\"\nexec '{}' \"$@\"",
            super::outside::function(),
            folder.display(),
            real.display()
        );
        self.program(name, &script);
    }

    /// Returns the starts of program `name` since [`Sandbox::record`], in no order.
    pub fn invocations(&self, name: &str) -> Vec<Invocation> {
        let folder = self.scratch(&format!("invocations-{name}"));
        let strings = |path: &Path| -> Vec<String> {
            let bytes = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.split_terminator('\0').map(str::to_owned).collect()
        };
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "arguments"))
            .map(|path| Invocation {
                arguments: strings(&path),
                environment: strings(&path.with_extension("environment")),
            })
            .collect()
    }

    /// Returns the first folder on the `PATH` of our binary.
    pub fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Creates an empty bare repository with default branch `main`.
    pub fn repository(&self) -> BareRepository {
        self.repository_named("backup")
    }

    pub fn repository_named(&self, name: &str) -> BareRepository {
        BareRepository::create(self, name, &[])
    }

    /// Creates an empty bare repository in the sha256 object format.
    pub fn sha256_repository(&self) -> BareRepository {
        BareRepository::create(self, "backup256", &["--object-format=sha256"])
    }

    /// Creates an empty bare repository with another default branch.
    pub fn repository_with_default_branch(&self, branch: &str) -> BareRepository {
        let option = format!("--initial-branch={branch}");
        BareRepository::create(self, "backup", &[&option])
    }

    /// Returns a run of our binary's `sync`, with this sandbox's Windmill.
    pub fn sync(&self) -> Run<'_> {
        Run::new(self, "sync")
    }

    /// Returns a run of our binary's `serve`: see [`Run::serve`].
    pub fn service(&self) -> Run<'_> {
        Run::new(self, "serve")
    }

    /// Returns a run of our binary with another command.
    pub fn command(&self, name: &str) -> Run<'_> {
        Run::new(self, name)
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes the sandboxes of processes that were killed before they could do so, including those of an earlier process
/// with our pid.
fn cleared(all: PathBuf) -> PathBuf {
    for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("sandbox-").and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        let alive = Path::new("/proc").join(pid).exists();
        if !alive || pid == std::process::id().to_string() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    all
}

/// While this value lives, no pull of `wmill` begins.
pub struct HeldWmill {
    folder: PathBuf,
}

impl HeldWmill {
    /// Waits until this many pulls wait or have waited.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        super::eventually("wmill was started", || {
            let started = fs::read_dir(&self.folder)
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "started"));
            (started.count() >= count).then_some(())
        });
    }
}

impl Drop for HeldWmill {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join("held"));
    }
}

/// Writes a file and sets its mode.
pub fn write_with_mode(path: &Path, content: &[u8], mode: u32) {
    // A separate program writes the file. If we had it open for writing, another test's thread could start a program
    // that inherits the open file, and the system refuses to run a file that is open for writing.
    let mut command = process::clean_command("sh");
    command.args(["-c", "cat >\"$1\" && chmod \"$2\" \"$1\"", "sh"]).arg(path).arg(format!("{mode:o}"));
    process::run_with_input(command, content.to_vec()).must_succeed();
}
