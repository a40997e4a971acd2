//! Our own program as git's `ssh`: it becomes the real one with further options, or the receiving git of a
//! repository on this machine.

/// Variable by which our own program, started by git as `ssh`, finds what to tell the real one, one option a line; or
/// [`THIS_MACHINE`].
pub const OPTIONS_ENVIRONMENT: &str = "WINDMILL_GIT_SYNC_SSH_OPTIONS";
/// Variable by which it finds which push it is started for, as `pushes::Push` is displayed.
pub const PUSH_ENVIRONMENT: &str = "WINDMILL_GIT_SYNC_PUSH";
/// In place of options: the repository lies on this machine.
pub const THIS_MACHINE: &str = "this machine";
/// What a line of ours on git's standard error begins with.
pub const LINE_PREFIX: &str = "windmill-git-sync: ";

#[cfg(unix)]
pub use platform::become_ssh;

#[cfg(unix)]
mod platform {
    use std::ffi::{OsStr, OsString};
    use std::io;
    use std::path::Path;

    use super::THIS_MACHINE;
    use crate::git::push_journal::{self, Push};
    use crate::process::confine;

    /// Becomes `ssh`, with `options` before the arguments that git gave, or the other side of a repository on this machine,
    /// where the `push` that it may be is noted. It returns only where that fails.
    #[must_use]
    pub fn become_ssh(
        options: &OsStr,
        push: Option<&OsStr>,
        arguments: impl Iterator<Item = OsString>,
        tell: &mut dyn FnMut(String),
    ) -> io::Error {
        if options != THIS_MACHINE {
            // `none`: neither the user's nor the system's configuration.
            let mut all: Vec<OsString> = ["-F", "none"].map(OsString::from).into();
            all.extend(options.to_string_lossy().lines().flat_map(|option| ["-o".into(), option.into()]));
            all.extend(arguments);
            return confine::become_program("ssh", all);
        }
        let Some((verb, path)) = arguments.last().and_then(|command| parse_remote_command(&command)) else {
            return io::Error::other("git asked for something else than a repository");
        };
        let push = push.filter(|_| verb == "receive-pack").and_then(|push| Push::parse(push.to_str()?));
        // The file stays open in the program that we become.
        let _noted = push.map(|push| {
            let noted = push_journal::begin(Path::new(&path), &push, tell);
            noted.map_err(|error| tell(format!("cannot note a push: {error}")))
        });
        confine::become_program("git", [verb, "--", &path].map(OsString::from))
    }

    /// git's verb and the path, out of the command that git has for the other side: `git-upload-pack '/path'`, quoted as
    /// for a shell.
    fn parse_remote_command(command: &OsStr) -> Option<(&'static str, String)> {
        let (program, quoted) = command.to_str()?.split_once(' ')?;
        let verb = match program {
            "git-upload-pack" => "upload-pack",
            "git-receive-pack" => "receive-pack",
            _ => return None,
        };
        let path = quoted.strip_prefix('\'')?.strip_suffix('\'')?.replace("'\\''", "'").replace("'\\!'", "!");
        // For ssh, git takes `/~x` for a home.
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
        fn what_git_asks_of_the_other_side_is_one_of_two_verbs_and_a_quoted_path() {
            check_remote_command("git-upload-pack '/a/b.git'", Some(("upload-pack", "/a/b.git")));
            check_remote_command("git-receive-pack '/it'\\''s'\\!'/b'", Some(("receive-pack", "/it's!/b")));
            check_remote_command("git-upload-pack '~x/b.git'", Some(("upload-pack", "/~x/b.git")));
            check_remote_command("git-upload-archive '/a/b.git'", None);
            check_remote_command("git-upload-pack /a/b.git", None);
            check_remote_command("git-upload-pack", None);
        }
    }
}
