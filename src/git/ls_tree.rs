//! The files of trees, in the order of git.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::iter;
use std::path::Path;
use std::sync::Arc;

use crate::git::{Entry, ObjectId, object};
use crate::model::names;
use crate::util::files;

/// A path as git sees it, in bytes. Everything here is in the order of these bytes. Two listings of one folder share the
/// paths and ids that are in both.
pub type GitPath = Arc<[u8]>;

/// Files by their paths. 20,000 files take 3 MB.
pub type Listing = BTreeMap<GitPath, Entry>;

/// The limit of a line: longer than any path that a system accepts, with mode and id.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Reads the lines that `git ls-tree -z` wrote into a file, without holding all of them in memory: each path with its
/// entry and its size, which is 0 if it was not asked for.
///
/// # Errors
/// Fails on an I/O error. A line is an error if it is malformed or cannot be read.
pub(super) fn read(file: &Path) -> io::Result<impl Iterator<Item = io::Result<(GitPath, Entry, u64)>> + use<>> {
    let mut file = BufReader::new(files::open_regular(File::options().read(true), file)?);
    let mut line = Vec::new();
    Ok(iter::from_fn(move || {
        line.clear();
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "git printed a malformed listing");
        match file.by_ref().take(LINE_BYTES_MAX).read_until(0, &mut line) {
            Ok(0) => None,
            Ok(_) => Some(parse(&line).ok_or_else(malformed)),
            Err(error) => Some(Err(error)),
        }
    }))
}

/// Parses a line: `mode type object TAB path NUL`, with the size before the TAB if it was asked for. A submodule has no
/// size.
fn parse(line: &[u8]) -> Option<(GitPath, Entry, u64)> {
    let line = line.strip_suffix(b"\0")?;
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let mut fields = std::str::from_utf8(&line[..tab]).ok()?.split_ascii_whitespace();
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let object = ObjectId::parse(fields.nth(1)?)?;
    let size = fields.next().and_then(|size| size.parse().ok()).unwrap_or(0);
    Some((line[tab + 1..].into(), Entry { mode, object }, size))
}

/// Checks which entries of a sorted tree a checkout can hold. A tree can have entries that git does not accept in an
/// index: `.git`, `..`, or a file and a folder with the same name.
#[derive(Default)]
pub struct EntryCheck {
    /// The last file, and the earlier files whose paths are prefixes of its path.
    files: Vec<Vec<u8>>,
}

impl EntryCheck {
    /// Returns whether a checkout can hold the next entry beside the earlier ones.
    pub fn admits(&mut self, path: &[u8], entry: &Entry) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let is_linked_configuration = entry.mode == object::LINK && name.eq_ignore_ascii_case(b".gitmodules");
        // No other rule applies: other unusual names existed before us, and stay.
        if is_linked_configuration || !path.split(|byte| *byte == b'/').all(names::is_storable) {
            return false;
        }
        while self.files.last().is_some_and(|file| !path.starts_with(file)) {
            self.files.pop();
        }
        let is_in_the_way = |file: &Vec<u8>| matches!(path[file.len()..].first(), None | Some(b'/'));
        if self.files.iter().any(is_in_the_way) {
            return false;
        }
        self.files.push(path.to_vec());
        true
    }
}

/// Returns each path of the two listings once, in order, with the entries that they have for it.
pub fn join<'l>(
    left: &'l Listing,
    right: &'l Listing,
) -> impl Iterator<Item = (&'l GitPath, Option<&'l Entry>, Option<&'l Entry>)> {
    let paths: BTreeSet<&GitPath> = left.keys().chain(right.keys()).collect();
    paths.into_iter().map(|path| (path, left.get(path), right.get(path)))
}

/// Passes each file below a folder of the disk to `visit`: its path in the folder, and its place.
///
/// # Errors
/// Fails on an I/O error, and with the errors of `visit`.
pub fn walk(folder: &Path, visit: &mut dyn FnMut(&[u8], &Path) -> io::Result<()>) -> io::Result<()> {
    let mut pending = vec![folder.to_owned()];
    while let Some(below) = pending.pop() {
        for entry in fs::read_dir(&below).map_err(|error| files::at(&below, &error))? {
            let entry = entry?;
            let file = entry.path();
            if entry.file_type()?.is_dir() {
                pending.push(file);
            } else {
                visit(file.strip_prefix(folder).unwrap_or(&file).as_os_str().as_encoded_bytes(), &file)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::RunDir;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn lines(run_dir: &RunDir, lines: &str) -> io::Result<Vec<(GitPath, Entry, u64)>> {
        read(&run_dir.write("listing", lines.as_bytes())?)?.collect()
    }

    fn listing(paths: &[&str]) -> Listing {
        let object = ObjectId::parse(A).expect("40 digits");
        let entry = |path: &&str| (path.as_bytes().into(), Entry { mode: 0o100_644, object: object.clone() });
        paths.iter().map(entry).collect()
    }

    /// Returns the paths that no checkout can hold beside the others.
    fn invalid_entries(mut entries: Vec<(&str, u32)>) -> Vec<&str> {
        entries.sort_by_key(|(path, _)| *path);
        let mut check = EntryCheck::default();
        let object = ObjectId::parse(A).expect("40 digits");
        entries.retain(|(path, mode)| !check.admits(path.as_bytes(), &Entry { mode: *mode, object: object.clone() }));
        entries.into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn entries_that_no_checkout_can_hold_are_invalid() {
        let files = |paths: &[&'static str]| paths.iter().map(|path| (*path, 0o100_644)).collect::<Vec<_>>();
        let sound = ["...", ".github/x", ".gitmodules", "a/..b", "a/.gitignore", "a/git", "b"];
        assert_eq!(invalid_entries(files(&sound)), [""; 0]);
        for path in [".git", ".git/config", "a/.GIT/hooks/x", "../x", "a/./x", "a/..", "/x", "a//x", "b", "b/x"] {
            assert_eq!(invalid_entries(files(&[&sound[..], &[path]].concat())), [path]);
        }
        // If a file and a folder have the same name, the file comes first.
        assert_eq!(invalid_entries(files(&["a", "a-b", "a.b/c", "a/x", "a/y", "a0"])), ["a/x", "a/y"]);
        assert_eq!(
            invalid_entries(vec![(".gitmodules/x", object::LINK), ("a/.gitModules", object::LINK)]),
            ["a/.gitModules"]
        );
    }

    #[test]
    fn every_byte_of_a_path_and_the_size_are_read() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-bytes")?;
        let tree = format!(
            "100644 blob {A}      12\tf/a b\n\"c\".py\0120000 blob {A} 1234567890\tl\tink\0160000 commit {A}       -\tsub\0"
        );
        let read = lines(&run_dir, &tree)?;
        let found: Vec<_> = read.iter().map(|(path, entry, size)| (&**path, entry.is_file(), *size)).collect();
        assert_eq!(found, [(&b"f/a b\n\"c\".py"[..], true, 12), (b"l\tink", false, 1_234_567_890), (b"sub", false, 0)]);
        let without_end = format!("100755 blob {A}\t-x.sh");
        for none in ["garbage\0", "100644 blob zzz\tx\0", &without_end, "x\tx\0"] {
            assert!(lines(&run_dir, none).is_err(), "{none:?}");
        }
        Ok(())
    }

    #[test]
    fn two_listings_are_joined() {
        let (left, right) = (listing(&["a", "c", "d"]), listing(&["b", "c"]));
        let joined = join(&left, &right).map(|(path, left, right)| (&**path, left.is_some(), right.is_some()));
        let expected: [(&[u8], _, _); 4] =
            [(b"a", true, false), (b"b", false, true), (b"c", true, true), (b"d", true, false)];
        assert!(joined.eq(expected));
    }

    #[test]
    fn a_walk_finds_all_files() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-walk")?;
        let folder = run_dir.path().join("folder");
        let paths = ["a-b", "a.b/x", "a/.x/y", "a/x", "a/y/z", "a0", "b"];
        for path in paths.map(|path| folder.join(path)) {
            fs::create_dir_all(path.parent().expect("a folder"))?;
            fs::write(path, "")?;
        }
        fs::create_dir(folder.join("empty"))?;
        let mut found = BTreeSet::new();
        walk(&folder, &mut |path, file| {
            assert_eq!(file, folder.join(String::from_utf8_lossy(path).as_ref()));
            found.insert(path.to_vec());
            Ok(())
        })?;
        assert!(found.iter().eq(paths.map(str::as_bytes)));
        assert!(walk(&run_dir.path().join("none"), &mut |_, _| Ok(())).is_err());
        Ok(())
    }
}
