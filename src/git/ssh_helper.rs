//! Runs our own program as git's `ssh`: it becomes the real ssh with further options, or the git that serves a
//! repository on this machine.

use std::ffi::{OsStr, OsString};
use std::io;

use crate::git::auth::THIS_MACHINE;
use crate::git::push_journal;
use crate::process::confine;

/// Becomes `ssh`, with `options` before the arguments that git gave, or the git that serves a repository on this
/// machine. If that git receives a `push`, records it in the journal. Returns only if it fails.
pub fn become_ssh(
    options: &OsStr,
    push: Option<&OsStr>,
    arguments: impl Iterator<Item = OsString>,
    report: &mut dyn FnMut(String),
) -> io::Error {
    if options != THIS_MACHINE {
        // With `none`, ssh reads no configuration of the user or the system.
        let mut all: Vec<OsString> = ["-F", "none"].map(OsString::from).into();
        all.extend(options.to_string_lossy().lines().flat_map(|option| ["-o".into(), option.into()]));
        all.extend(arguments);
        return confine::become_program("ssh", all);
    }
    let command = arguments.last().unwrap_or_default();
    let Some((verb, path)) = parse_remote_command(&command) else {
        return io::Error::other("git asked for something else than a repository");
    };
    let push = push.filter(|push| verb == "receive-pack" && !push.is_empty()).and_then(OsStr::to_str);
    // The file stays open in the program that we become.
    let _noted = push.map(|push| {
        let noted = push_journal::begin(&path, push, report);
        noted.map_err(|error| report(format!("cannot record a push: {error}")))
    });
    confine::become_program("git", [verb, "--", &path].map(OsString::from))
}

/// Returns git's subcommand and the path from git's command for the other side: `git-upload-pack '/path'`, quoted
/// as for a shell.
fn parse_remote_command(command: &OsStr) -> Option<(&str, String)> {
    let (program, quoted) = command.to_str()?.split_once(' ')?;
    let verb = program.strip_prefix("git-").filter(|verb| matches!(*verb, "upload-pack" | "receive-pack"))?;
    let path = quoted.strip_prefix('\'')?.strip_suffix('\'')?.replace("'\\''", "'").replace("'\\!'", "!");
    // In an ssh URL, git reads `/~x` as a home folder and removes the slash.
    Some((verb, if path.starts_with('~') { format!("/{path}") } else { path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_remote_command(command: &str, expected: Option<(&str, &str)>) {
        let parsed = parse_remote_command(OsStr::new(command));
        assert_eq!(parsed.as_ref().map(|(verb, path)| (*verb, path.as_str())), expected, "{command}");
    }

    #[test]
    fn a_remote_command_is_one_of_two_verbs_and_a_quoted_path() {
        check_remote_command("git-upload-pack '/a/b.git'", Some(("upload-pack", "/a/b.git")));
        check_remote_command("git-receive-pack '/it'\\''s'\\!'/b'", Some(("receive-pack", "/it's!/b")));
        check_remote_command("git-upload-pack '~x/b.git'", Some(("upload-pack", "/~x/b.git")));
        check_remote_command("git-upload-archive '/a/b.git'", None);
        check_remote_command("git-upload-pack /a/b.git", None);
        check_remote_command("git-upload-pack", None);
    }
}
