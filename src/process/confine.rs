//! What this process, and a program that it becomes, may do: no core file, no look into its memory, and, for a confined
//! program, no write outside of the folders of its run.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Lets neither this process nor a program that it starts leave a core file, and no process of the same user read its
/// memory or its environment: there are secrets in both.
pub fn protect_secrets() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        log::warn!("cannot forbid core files: {error}");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        log::warn!("cannot forbid other processes to read our memory: {error}");
    }
}

/// Becomes another program, with the environment that this one has. It returns only where that fails.
pub fn become_program(program: &str, arguments: impl IntoIterator<Item = OsString>) -> std::io::Error {
    #[expect(clippy::disallowed_methods, reason = "the one module that becomes programs")]
    Command::new(program).args(arguments).exec()
}

#[cfg(target_os = "linux")]
pub(super) use linux::{CANNOT, LINE_PREFIX, confined_command, prefer_for_oom, start_error};
#[cfg(target_os = "linux")]
pub use linux::{ENVIRONMENT, become_confined};

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{OsStr, OsString};
    use std::io;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use landlock::{
        ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
        RulesetStatus,
    };

    /// Variable by which our own program finds which program it is to become, and below which folders that may write:
    /// the program, then the folders, one a line.
    pub const ENVIRONMENT: &str = "WINDMILL_GIT_SYNC_CONFINE";
    /// What a line begins with that our own program prints before it becomes another.
    pub(crate) const LINE_PREFIX: &str = "windmill-git-sync (confine): ";
    /// Part of each such line that says why it did not.
    pub(crate) const CANNOT: &str = "cannot ";
    /// Comes before the number of the system's error.
    const CANNOT_START: &str = "cannot start, error ";
    /// As shells report a program that is not found.
    const NOT_STARTED: u8 = 127;
    /// Programs ask whether it is a terminal, and open it to discard output; without it `git` ends.
    const NULL: &str = "/dev/null";
    /// All accesses that write, as of Linux 6.2. Older kernels enforce those that they know. Later versions add only
    /// `ioctl` on devices.
    const VERSION: ABI = ABI::V3;

    /// Our own program, about to become `program`, which may write below these folders.
    pub(crate) fn confined_command(program: &OsStr, folders: &[PathBuf]) -> Command {
        let mut setting = program.to_owned();
        for folder in folders {
            setting.push("\n");
            setting.push(folder);
        }
        // This very program, also where its file was replaced.
        #[expect(clippy::disallowed_methods, reason = "the one module that becomes programs")]
        let mut command = Command::new("/proc/self/exe");
        command.arg0(program).env_clear().env(ENVIRONMENT, setting);
        command
    }

    /// Becomes the program that the `setting` names. It returns only where that fails, with the exit code.
    pub fn become_confined(
        setting: &OsStr,
        arguments: impl IntoIterator<Item = OsString>,
        tell: &mut dyn FnMut(String),
    ) -> u8 {
        let mut lines = setting.as_bytes().split(|byte| *byte == b'\n').map(OsStr::from_bytes);
        let program = lines.next().unwrap_or_default();
        let folders: Vec<&Path> = lines.map(Path::new).collect();
        prefer_for_oom("self");
        match restrict(&folders) {
            Ok(RulesetStatus::NotEnforced) => {
                tell(format!("{LINE_PREFIX}this kernel has no Landlock, so nothing confines {}", program.display()));
            }
            Ok(_) => {}
            Err(error) => {
                tell(format!("{LINE_PREFIX}cannot confine {}: {error}", program.display()));
                return NOT_STARTED;
            }
        }
        #[expect(clippy::disallowed_methods, reason = "the one module that becomes programs")]
        let error = Command::new(program).args(arguments).env_remove(ENVIRONMENT).exec();
        tell(format!("{LINE_PREFIX}{CANNOT_START}{}", error.raw_os_error().unwrap_or_default()));
        NOT_STARTED
    }

    fn restrict(folders: &[&Path]) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
        let writes = AccessFs::from_write(VERSION);
        let mut rules = Ruleset::default().handle_access(writes)?.create()?;
        for folder in folders {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(folder)?, writes))?;
        }
        rules = rules.add_rule(PathBeneath::new(PathFd::new(NULL)?, writes & AccessFs::from_file(VERSION)))?;
        let restricted: Result<_, RulesetError> = rules.restrict_self();
        Ok(restricted?.ruleset)
    }

    /// What our own program said of why it did not become another one.
    pub(crate) fn start_error(lines: &[String]) -> Option<io::Error> {
        let said = lines.iter().find_map(|line| line.strip_prefix(LINE_PREFIX))?;
        Some(match said.strip_prefix(CANNOT_START).and_then(|code| code.parse().ok()) {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::other(said.to_owned()),
        })
    }

    /// Makes a process, by its id or as `self`, and what it starts, the first that the kernel ends for want of memory:
    /// a run that fails is told of, a service that is gone is not.
    pub(crate) fn prefer_for_oom(process: &str) {
        if let Err(error) = std::fs::write(format!("/proc/{process}/oom_score_adj"), "1000") {
            log::debug!("the kernel may end the service for want of memory, and not its programs: {error}");
        }
    }
}
