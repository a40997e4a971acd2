//! Restricts this process and a program that it becomes: no core file, no access to its memory, and, for a confined
//! program, no write outside the folders of its run.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Keeps this process, and the programs that it starts, from writing a core file, and keeps processes of the same user
/// from reading the memory or the environment of this process. Both contain secrets.
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

/// Becomes another program, with the environment of this one. Returns only if that fails.
pub fn become_program(program: &str, arguments: impl IntoIterator<Item = OsString>) -> std::io::Error {
    #[expect(clippy::disallowed_methods, reason = "the one module that becomes programs")]
    Command::new(program).args(arguments).exec()
}

#[cfg(target_os = "linux")]
pub use linux::{ENVIRONMENT, become_confined};
#[cfg(target_os = "linux")]
pub(super) use linux::{LINE_PREFIX, confined_command, prefer_for_oom, reason};

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use landlock::{
        ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
        RulesetStatus,
    };

    use crate::process::run::cannot_start;

    /// The variable from which our own program reads the program that it has to become and the folders below which that
    /// may write: the program, then the folders, one a line.
    pub const ENVIRONMENT: &str = "WINDMILL_GIT_SYNC_CONFINE";
    /// The start of each line that our own program prints before it becomes another program.
    pub(crate) const LINE_PREFIX: &str = "windmill-git-sync (confine): ";
    /// The start of what follows in such a line if it could not become the program.
    const CANNOT: &str = "cannot ";
    /// The exit code if the program does not start. Shells use it for a program that is not found.
    const NOT_STARTED: u8 = 127;
    /// The device that every program may write to. Programs ask whether it is a terminal, and open it to discard
    /// output; without it, `git` ends.
    const NULL: &str = "/dev/null";
    /// The Landlock version of Linux 6.2, which knows all accesses that write. Older kernels enforce the accesses that
    /// they know. Later versions add only `ioctl` on devices to them.
    const VERSION: ABI = ABI::V3;

    /// Returns a command that starts our own program, which becomes `program` and may write only below these folders.
    pub(crate) fn confined_command(program: &OsStr, folders: &[PathBuf]) -> Command {
        let mut setting = program.to_owned();
        for folder in folders {
            setting.push("\n");
            setting.push(folder);
        }
        // This path is the running program, even if its file was replaced.
        #[expect(clippy::disallowed_methods, reason = "the one module that becomes programs")]
        let mut command = Command::new("/proc/self/exe");
        command.arg0(program).env_clear().env(ENVIRONMENT, setting);
        command
    }

    /// Becomes the program that `setting` names. Returns only if that fails, with the exit code.
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
        tell(format!("{LINE_PREFIX}{}", cannot_start(program, &error)));
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

    /// Returns the reason in a line that our own program printed if it could not become another program.
    pub(crate) fn reason(line: &str) -> Option<&str> {
        line.strip_prefix(LINE_PREFIX).filter(|reason| reason.starts_with(CANNOT))
    }

    /// Makes a process (its id, or `self`) and the programs that it starts the first that the kernel kills when memory
    /// is low. A run that fails is reported; a service that was killed cannot report anything.
    pub(crate) fn prefer_for_oom(process: &str) {
        if let Err(error) = std::fs::write(format!("/proc/{process}/oom_score_adj"), "1000") {
            log::debug!("the kernel may end the service for want of memory, and not its programs: {error}");
        }
    }
}
