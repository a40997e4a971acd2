//! The options of each command, and what `--help`, `--version` and a usage error print.

use std::ffi::OsString;
use std::path::PathBuf;

use argh::{EarlyExit, FromArgs};

use super::{PROGRAM, eprint_line, print};
use crate::config::Options;

/// Exit code of a usage error.
const USAGE_ERROR: u8 = 2;

/// Back up a Windmill workspace into a git repository, and prove that the backup arrived.
///
/// Settings come from the environment; docs/settings.md lists them all. Secrets have no options: every process can read
/// an argument list.
#[derive(FromArgs)]
#[argh(
    note = "Exit codes: 0 done; 1 internal; 2 usage or configuration; 3 backup and workspace differ; 10 Windmill; 11 \
            git; 12 a guard refused; 13 timeout; 14 shutting down; 15 single items could not be backed up.",
    help_triggers("-h", "--help", "help")
)]
pub(super) struct Arguments {
    /// print the version (also -V)
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub(super) enum Command {
    Serve(Serve),
    Sync(Sync),
    Check(Check),
    Verify(Verify),
    Log(Log),
    Restore(Restore),
    Healthcheck(Healthcheck),
}

/// Run the HTTP service and the schedule, until a signal ends it.
#[derive(FromArgs)]
#[argh(subcommand, name = "serve", help_triggers("-h", "--help", "help"))]
pub(super) struct Serve {
    /// address to listen on (LISTEN_ADDR, 0.0.0.0:8080)
    #[argh(option)]
    pub(super) listen: Option<String>,
    /// folder for checkouts and state (DATA_DIR, /workspace)
    #[argh(option)]
    pub(super) data_dir: Option<String>,
}

/// Defines a command on a workspace and its backup. The settings are the same for each such command, and argh cannot
/// take them from another struct.
macro_rules! command_on_a_workspace {
    ($(#[$about:meta])* struct $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        pub(super) struct $name {
            /// workspace of the backup (WINDMILL_WORKSPACE, admins)
            #[argh(option)]
            pub(super) workspace: Option<String>,
            /// address of Windmill (WINDMILL_BASE_URL, http://windmill_server:8000)
            #[argh(option)]
            pub(super) base_url: Option<String>,
            /// git remote (GIT_REMOTE_URL)
            #[argh(option)]
            pub(super) remote: Option<String>,
            /// branch (GIT_BRANCH, main); {workspace} is replaced
            #[argh(option)]
            pub(super) branch: Option<String>,
            /// folder in the repository (GIT_SUBDIR, the root); {workspace} is replaced
            #[argh(option)]
            pub(super) subdir: Option<String>,
            /// folder for checkouts and state (DATA_DIR, /workspace)
            #[argh(option)]
            pub(super) data_dir: Option<String>,
            $($own)*
        }

        impl $name {
            pub(super) fn settings(&self) -> Options {
                Options::new([
                    ("--workspace", "WINDMILL_WORKSPACE", &self.workspace),
                    ("--base-url", "WINDMILL_BASE_URL", &self.base_url),
                    ("--remote", "GIT_REMOTE_URL", &self.remote),
                    ("--branch", "GIT_BRANCH", &self.branch),
                    ("--subdir", "GIT_SUBDIR", &self.subdir),
                    ("--data-dir", "DATA_DIR", &self.data_dir),
                ])
            }
        }
    };
}

command_on_a_workspace! {
    /// Run one sync and exit. The result is one JSON object on stdout; logs go to stderr.
    #[derive(FromArgs)]
    #[argh(subcommand, name = "sync", help_triggers("-h", "--help", "help"))]
    struct Sync {
        /// show what a sync would commit, and push nothing
        #[argh(switch)]
        pub(super) dry_run: bool,
        /// run a full sync, also of an unchanged workspace
        #[argh(switch)]
        pub(super) force: bool,
        /// allow this run to delete more than MAX_DELETIONS_PERCENT
        #[argh(switch)]
        pub(super) allow_mass_deletion: bool,
        /// allow this run a token that is not an admin's, although the last one was
        #[argh(switch)]
        pub(super) allow_lost_rights: bool,
    }
}

command_on_a_workspace! {
    /// Try all that a sync needs, and change nothing: one line for each check, which is ok, a warning, or failed.
    #[derive(FromArgs)]
    #[argh(
        subcommand,
        name = "check",
        help_triggers("-h", "--help", "help"),
        note = "Exit codes: 0 nothing failed; 2 configuration; 10 Windmill; 11 git, the first that failed in this \
                order; 14 ended by a signal."
    )]
    struct Check {
        /// print one JSON object in place of lines
        #[argh(switch)]
        pub(super) json: bool,
    }
}

command_on_a_workspace! {
    /// Compare the workspace with the tip of the branch on the remote, and change nothing. The result is one JSON
    /// object on stdout.
    #[derive(FromArgs)]
    #[argh(
        subcommand,
        name = "verify",
        note = "Exit codes: 0 the backup is the workspace; 3 they differ; others as for sync.",
        help_triggers("-h", "--help", "help")
    )]
    struct Verify {
        /// only check that this file holds the key of the secrets in the backup; Windmill is not asked
        #[argh(option)]
        pub(super) key_file: Option<PathBuf>,
    }
}

command_on_a_workspace! {
    /// List the commits of the backup, newest first, and the items that each added, modified and deleted. It needs the
    /// settings of git alone.
    #[derive(FromArgs)]
    #[argh(
        subcommand,
        name = "log",
        note = "Exit codes: 0 the commits are listed, if there are any; 2 configuration; 11 git; 13 timeout; 14 ended by \
                a signal.",
        help_triggers("-h", "--help", "help")
    )]
    struct Log {
        /// list only items of this pattern, such as f/ops/**; may be given again
        #[argh(option)]
        pub(super) path: Vec<String>,
        /// list only commits of this time or later: RFC 3339, or '2026-11-28 14:00' in UTC
        #[argh(option)]
        pub(super) since: Option<String>,
        /// list only commits of this time or earlier
        #[argh(option)]
        pub(super) until: Option<String>,
        /// list at most so many commits, 1 to 10000 (20)
        #[argh(option)]
        pub(super) limit: Option<String>,
        /// print one JSON object in place of a table
        #[argh(switch)]
        pub(super) json: bool,
    }
}

command_on_a_workspace! {
    /// Put a commit of the backup into a workspace. Without --yes, show what would change. The current content is saved
    /// to a branch restore-point/… first, and the workspace is read back at the end.
    #[derive(FromArgs)]
    #[argh(
        subcommand,
        name = "restore",
        note = "Exit codes: 0 done, or shown; 3 something did not come back; others as for sync.",
        help_triggers("-h", "--help", "help")
    )]
    struct Restore {
        /// commit of the branch: its id or the first digits (the tip)
        #[argh(option)]
        pub(super) commit: Option<String>,
        /// the newest commit that is not later: RFC 3339, or '2026-11-28 14:00' in UTC; not with --commit
        #[argh(option)]
        pub(super) at: Option<String>,
        /// workspace to restore into (that of the backup)
        #[argh(option)]
        pub(super) to_workspace: Option<String>,
        /// restore only paths of this pattern, such as f/ops/**; may be given again
        #[argh(option)]
        pub(super) path: Vec<String>,
        /// also delete what the commit does not have
        #[argh(switch)]
        pub(super) delete: bool,
        /// in another workspace, keep schedules and triggers enabled
        #[argh(switch)]
        pub(super) enable: bool,
        /// file with the encryption key of the commit's secrets; the workspace gets this key first
        #[argh(option)]
        pub(super) key_file: Option<PathBuf>,
        /// do not save the current content first
        #[argh(switch)]
        pub(super) no_backup_first: bool,
        /// apply the changes
        #[argh(switch)]
        pub(super) yes: bool,
    }
}

/// Ask the local listener for /health. Exit code 0 or 1.
#[derive(FromArgs)]
#[argh(subcommand, name = "healthcheck", help_triggers("-h", "--help", "help"))]
pub(super) struct Healthcheck {
    /// address that the service listens on (LISTEN_ADDR, 0.0.0.0:8080)
    #[argh(option)]
    pub(super) listen: Option<String>,
}

/// Returns the command to run. Otherwise, prints what was asked for or what is wrong, and returns the exit code.
pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, u8> {
    let shown = |text: &str| {
        print(text.trim_end());
        Err(0)
    };
    let refused = |text: &str| {
        eprint_line(text.trim_end());
        Err(USAGE_ERROR)
    };
    let arguments: Result<Vec<_>, _> = arguments.map(OsString::into_string).collect();
    let Ok(arguments) = arguments else { return refused("an argument is not UTF-8") };
    let words: Vec<_> = arguments.iter().flat_map(|argument| words_of(argument)).collect();
    match Arguments::from_args(&[PROGRAM], &words) {
        Ok(Arguments { version: true, .. }) => shown(&format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"))),
        Ok(Arguments { command: Some(command), .. }) => Ok(command),
        Ok(Arguments { command: None, .. }) => refused(&format!("a command is missing\n\n{}", help(&[]))),
        Err(EarlyExit { output, status: Ok(()) }) => shown(&output),
        Err(EarlyExit { output, status: Err(()) }) => refused(&format!("{}\n\n{}", output.trim_end(), usage(&words))),
    }
}

/// Returns the words that argh needs for an argument: `--name=value` becomes two, and `-V` its long form.
fn words_of(argument: &str) -> Vec<&str> {
    match argument.split_once('=') {
        Some((name, value)) if name.len() > 2 && name.starts_with("--") => vec![name, value],
        _ if argument == "-V" => vec!["--version"],
        _ => vec![argument],
    }
}

/// Returns the usage of the command that these words begin with, or else the usage of the program.
fn usage(words: &[&str]) -> String {
    let of_command = words.first().filter(|word| !word.starts_with('-')).map(|command| help(&[command]));
    let help = of_command.filter(|text| text.starts_with("Usage")).unwrap_or_else(|| help(&[]));
    help.split("\n\n").next().unwrap_or_default().to_owned()
}

fn help(command: &[&str]) -> String {
    let asked = [command, &["--help"]].concat();
    Arguments::from_args(&[PROGRAM], &asked).err().map_or_else(String::new, |help| help.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_and_its_value_may_be_one_argument() {
        assert_eq!(words_of("--branch=a=b"), ["--branch", "a=b"]);
        assert_eq!(words_of("--branch="), ["--branch", ""]);
        assert_eq!(words_of("-V"), ["--version"]);
        for one in ["--branch", "f/a=b", "-a=b", "--=b", "-v"] {
            assert_eq!(words_of(one), [one]);
        }
        let command = |words: &[&str]| parse(words.iter().map(|word| (*word).into()));
        assert!(matches!(command(&["sync", "--branch=x"]), Ok(Command::Sync(Sync { branch: Some(_), .. }))));
        // A switch has no value.
        assert!(command(&["sync", "--dry-run=true"]).is_err());
    }
}
