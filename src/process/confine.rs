//! Restricts this process and the programs that it starts: no core file, no access to its memory, and, for a confined
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
    #[expect(clippy::disallowed_methods, reason = "the one place that becomes another program")]
    Command::new(program).args(arguments).exec()
}

#[cfg(target_os = "linux")]
pub(super) use linux::spawn;

/// Starts a program. It may write everywhere: only Linux can restrict it.
#[cfg(not(target_os = "linux"))]
pub(super) fn spawn(command: &mut Command, _: &[std::path::PathBuf]) -> std::io::Result<std::process::Child> {
    command.spawn()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::path::PathBuf;
    use std::process::{Child, Command};
    use std::thread;

    use landlock::{
        ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    };

    /// The device that every program may write to. Programs ask whether it is a terminal, and open it to discard
    /// output; without it, `git` ends.
    const NULL: &str = "/dev/null";
    /// The Landlock version of Linux 6.2, which knows all accesses that write. Older kernels enforce the accesses that
    /// they know. Later versions add only `ioctl` on devices to them.
    const VERSION: ABI = ABI::V3;

    /// Starts a program. If there are `folders`, it may write only below them.
    pub(crate) fn spawn(command: &mut Command, folders: &[PathBuf]) -> io::Result<Child> {
        let child = if folders.is_empty() { command.spawn()? } else { spawn_confined(command, folders)? };
        // The kernel kills it and the programs that it starts first when memory is low. A run that fails is reported; a
        // service that was killed cannot report anything.
        if let Err(error) = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "1000") {
            log::debug!("if memory is short, the kernel may end the service instead of its programs: {error}");
        }
        Ok(child)
    }

    /// A restriction is permanent. It applies to the thread that sets it, and to what this thread starts. So a separate
    /// thread starts the program.
    fn spawn_confined(command: &mut Command, folders: &[PathBuf]) -> io::Result<Child> {
        let spawn = || {
            let status = restrict_thread(folders).map_err(|error| io::Error::other(error.to_string()))?;
            if status == RulesetStatus::NotEnforced {
                log::debug!("this kernel has no Landlock, so nothing confines {}", command.get_program().display());
            }
            command.spawn()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("confined".to_owned()).spawn_scoped(scope, spawn)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
        })
    }

    fn restrict_thread(folders: &[PathBuf]) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
        let writes = AccessFs::from_write(VERSION);
        let mut rules = Ruleset::default().handle_access(writes)?.create()?;
        for folder in folders {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(folder)?, writes))?;
        }
        rules = rules.add_rule(PathBeneath::new(PathFd::new(NULL)?, writes & AccessFs::from_file(VERSION)))?;
        Ok(rules.restrict_self()?.ruleset)
    }
}
