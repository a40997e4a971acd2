//! A program to run: its arguments, its environment, and where its output goes.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::util::volume::Volume;

/// A program to run, with all that it gets to see.
///
/// `Display` gives the command as one would type it. The environment is never shown: it holds secrets.
pub struct Invocation {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing is started there"))]
    pub(super) folder: PathBuf,
    pub(super) stdin: Option<File>,
    pub(super) stdout: Stdout,
    pub(super) volume: Option<Volume>,
    /// The folders that it may write below; everywhere, where it has none.
    pub(super) confined_to: Vec<PathBuf>,
}

pub(super) enum Stdout {
    /// Lines, like those of stderr.
    Lines,
    /// Bytes, at most so many.
    Bytes { max: usize },
    /// A file, with at most so many bytes.
    File { file: File, max: usize },
}

impl Invocation {
    /// `program` (looked up in the `PATH` that [`Invocation::environment`] gives it) run in `folder`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.to_owned(),
            stdin: None,
            stdout: Stdout::Lines,
            volume: None,
            confined_to: Vec::new(),
        }
    }

    /// Adds one argument. Arguments are readable by every process: never a secret.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::argument)
    }

    /// Sets a variable; the program sees no others than those set here.
    #[must_use]
    pub fn environment(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives it a file to read; without one its input is null.
    #[must_use]
    pub fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Ends it when it leaves too little free on this volume.
    #[must_use]
    pub fn watch(mut self, volume: &Volume) -> Self {
        self.volume = Some(volume.clone());
        self
    }

    /// Lets it write below these folders alone, where the kernel can hold it to that.
    #[must_use]
    pub fn confine(mut self, folders: &[&Path]) -> Self {
        self.confined_to = folders.iter().map(|folder| folder.to_path_buf()).collect();
        self
    }

    /// Takes its standard output as bytes, at most `max`, instead of as lines.
    #[must_use]
    pub fn capture(mut self, max: usize) -> Self {
        self.stdout = Stdout::Bytes { max };
        self
    }

    /// Puts its standard output into a file, at most `max` bytes of it.
    #[must_use]
    pub fn write_to(mut self, file: File, max: usize) -> Self {
        self.stdout = Stdout::File { file, max };
        self
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", Path::new(&self.program).display())?;
        for argument in &self.arguments {
            let text = argument.to_string_lossy();
            if text.is_empty()
                || text.contains(|character: char| character.is_whitespace() || "'\"$*".contains(character))
            {
                write!(formatter, " {text:?}")?;
            } else {
                write!(formatter, " {text}")?;
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
