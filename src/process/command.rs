//! A program to run: its arguments, its environment, and where its output goes.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Returns the path of our own program. It is looked up once, since an update may replace the file while we run.
pub fn own_program() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks where it lies")]
        std::env::current_exe().unwrap_or_else(|_| "windmill-git-sync".into())
    });
    &PATH
}

/// A program to run, with its arguments, environment and files.
///
/// `Display` gives the command as one would type it. The environment is never shown: it holds secrets.
pub struct Invocation {
    pub(super) command: Command,
    /// How many bytes of its standard output are captured; `None` if it is read as lines, like standard error.
    pub(super) bytes_max: Option<usize>,
    /// The file to which the bytes are written. Without one, they are kept in memory.
    pub(super) file: Option<File>,
    /// The folders below which it may write. If there are none, it may write everywhere.
    pub(super) confined_to: Vec<PathBuf>,
}

impl Invocation {
    /// Creates an invocation of `program` in `folder`. The program is looked up in the `PATH` that
    /// [`Invocation::environment`] sets. Without [`Invocation::stdin`], its standard input is `/dev/null`.
    pub fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that makes commands")]
        let mut command = Command::new(program);
        command.env_clear().current_dir(folder).stdin(Stdio::null());
        Self { command, bytes_max: None, file: None, confined_to: Vec::new() }
    }

    /// Adds arguments. They must not be secrets: every process can read arguments.
    pub fn arguments<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable. The program sees only the variables that are set here.
    pub fn environment(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the file that it reads as standard input.
    pub fn stdin(mut self, file: File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Lets it write only below these folders, if the kernel can enforce that.
    pub fn confine(mut self, folders: &[&Path]) -> Self {
        self.confined_to = folders.iter().map(|folder| folder.to_path_buf()).collect();
        self
    }

    /// Captures its standard output as bytes, at most `bytes_max`, instead of as lines.
    pub fn capture(self, bytes_max: usize) -> Self {
        Self { bytes_max: Some(bytes_max), ..self }
    }

    /// Writes its standard output to a file, at most `bytes_max` bytes.
    pub fn write_to(self, file: File, bytes_max: usize) -> Self {
        Self { bytes_max: Some(bytes_max), file: Some(file), ..self }
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.command.get_program().display())?;
        let is_plain = |character: char| !character.is_whitespace() && !"'\"$*".contains(character);
        for argument in self.command.get_args().map(OsStr::to_string_lossy) {
            if !argument.is_empty() && argument.chars().all(is_plain) {
                write!(formatter, " {argument}")?;
            } else {
                write!(formatter, " {argument:?}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_typed_and_without_its_environment() {
        let invocation =
            Invocation::new("git", Path::new("/")).arguments(["push", "--", "a b", ""]).environment("TOKEN", "hunter2");
        assert_eq!(invocation.to_string(), "git push -- \"a b\" \"\"");
    }
}
