//! Files that begin with a byte order mark. `wmill` ignores the mark when it compares, so it does not write a file if
//! only its mark was removed. During a pull, a random word is appended to these files, so that `wmill` writes them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::git::ls_tree::walk;
use crate::util::{files, hash};

const MARK: &[u8] = "\u{feff}".as_bytes();
/// Files with these extensions are not changed, since `wmill` parses them. They do not hold the content of an item.
const PARSED: [&str; 3] = ["yaml", "yml", "json"];

/// The files of a folder that begin with the mark, with the random word appended.
pub(super) struct MarkedFiles {
    /// Each file with its former length.
    files: Vec<(PathBuf, u64)>,
    end: Vec<u8>,
}

impl MarkedFiles {
    /// Appends the word to every file that begins with the mark.
    pub(super) fn take(folder: &Path) -> io::Result<Self> {
        let word = hash::random_word().ok_or_else(|| io::Error::other("the system gives no random numbers"))?;
        let mut marked = Self { files: Vec::new(), end: ["\n", &word].concat().into_bytes() };
        for file in walk(folder)? {
            let (_, path) = file?;
            let is_parsed = path.extension().is_some_and(|end| PARSED.iter().any(|parsed| end == *parsed));
            if is_parsed || files::read_file(&path, MARK.len() as u64)? != MARK {
                continue;
            }
            let mut file = files::open_regular(File::options().append(true), &path)?;
            marked.files.push((path, file.metadata()?.len()));
            file.write_all(&marked.end)?;
        }
        Ok(marked)
    }

    /// Removes the word from the files that `wmill` did not write.
    pub(super) fn give_back(self) -> io::Result<()> {
        for (path, length) in self.files {
            let whole = length + self.end.len() as u64;
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == whole)
                && files::read_file(&path, whole)?.ends_with(&self.end)
            {
                files::open_regular(File::options().write(true), &path)?.set_len(length)?;
            }
        }
        Ok(())
    }
}

// WASI has no source of random words here, and cannot start `wmill`.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::util::RunDir;

    #[test]
    fn a_file_that_wmill_does_not_write_keeps_its_content() {
        let run = RunDir::for_test("marked").expect("a folder");
        let folder = run.path();
        let marked = |text: &str| [MARK, text.as_bytes()].concat();
        let contents =
            [("left.ts", marked("a")), ("written.ts", marked("b")), ("gone.ts", marked("c")), ("a.yaml", marked("d"))];
        for (name, content) in &contents {
            fs::write(folder.join(name), content).expect("written");
        }
        fs::write(folder.join("plain.ts"), "e").expect("written");
        let taken = MarkedFiles::take(folder).expect("taken");
        for (name, content) in &contents {
            assert_eq!(fs::read(folder.join(name)).expect("read") == *content, *name == "a.yaml", "{name}");
        }
        fs::write(folder.join("written.ts"), "b").expect("written");
        fs::remove_file(folder.join("gone.ts")).expect("removed");
        taken.give_back().expect("given back");
        assert_eq!(fs::read(folder.join("left.ts")).expect("read"), contents[0].1);
        assert_eq!(fs::read(folder.join("written.ts")).expect("read"), b"b");
        assert_eq!(fs::read(folder.join("plain.ts")).expect("read"), b"e");
        assert!(!folder.join("gone.ts").exists());
    }
}
