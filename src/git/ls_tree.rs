//! Sorted listings of trees, kept on the disk and read as streams, so that memory does not grow with the tree.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::git::{Entry, ObjectId, object};
use crate::model::names;
use crate::util::files;

/// A path as git sees it, in bytes. Everything here is in the order of these bytes.
pub type GitPath = Vec<u8>;

/// An item of a stream: a path and its value.
pub type Item<T> = io::Result<(GitPath, T)>;

/// Files in the order of their paths. The stream is boxed: a copy of this code for each kind of stream would cost more
/// than the calls.
pub type Stream<T> = Box<dyn Iterator<Item = Item<T>>>;

/// The size of the buffer of one stream.
const BUFFER_BYTES: usize = 16 << 10;
/// The limit of a line: longer than any path that a system accepts, with mode and id.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A file with a line for each file of a tree, as git writes it: `mode type object TAB path NUL`, with the size before
/// the TAB if it was asked for. The type is not used, not even by `git update-index`.
#[derive(Clone, Debug)]
pub struct Listing {
    pub(super) path: PathBuf,
}

impl Listing {
    /// Returns the listing at `path`, which git wrote.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes a listing with these entries to `path`.
    ///
    /// # Errors
    /// Fails on an I/O error, and with the error of an entry.
    pub fn write(path: PathBuf, mut entries: impl Iterator<Item = Item<Entry>>) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, files::open_file(&path, true)?);
        entries.try_for_each(|entry| {
            let (name, Entry { mode, object }) = entry?;
            file.write_all(&[format!("{mode:06o} - {object}\t").as_bytes(), &name, b"\0"].concat())
        })?;
        file.flush().map_err(|error| files::at(&path, &error))?;
        Ok(Self { path })
    }

    /// Returns its entries, in its order.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn entries(&self) -> io::Result<Stream<Entry>> {
        Ok(Box::new(self.with_sizes()?.map(|line| line.map(|(path, (entry, _))| (path, entry)))))
    }

    /// Returns its entries, each with its size, or with 0 if git did not write it.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn with_sizes(&self) -> io::Result<Stream<(Entry, u64)>> {
        let file = files::open_regular(File::options().read(true), &self.path)?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut line = Vec::new();
        Ok(Box::new(std::iter::from_fn(move || {
            line.clear();
            match file.by_ref().take(LINE_BYTES_MAX).read_until(0, &mut line) {
                Ok(0) => None,
                Ok(_) => Some(parse(&line).ok_or_else(|| invalid("git printed a malformed listing"))),
                Err(error) => Some(Err(error)),
            }
        })))
    }

    /// Writes the entries that `admits` accepts to `file`. Also returns their number.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn sifted(&self, file: PathBuf, mut admits: impl FnMut(&[u8], &Entry) -> bool) -> io::Result<(Self, usize)> {
        let mut count = 0;
        let is_in = |line: &Item<Entry>| line.as_ref().map_or(true, |(path, entry)| admits(path, entry));
        let sifted = Self::write(file, self.entries()?.filter(is_in).inspect(|_| count += 1))?;
        Ok((sifted, count))
    }

    /// Returns the same listing in order. git writes each tree in order; a tree that another program wrote is sorted in
    /// memory.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn sorted(self) -> io::Result<Self> {
        let paths = self.entries()?.map(|line| line.map(|(path, _)| path));
        if paths.is_sorted_by(|left, right| matches!((left, right), (Ok(left), Ok(right)) if left <= right)) {
            return Ok(self);
        }
        let mut all = self.entries()?.collect::<io::Result<Vec<_>>>()?;
        all.sort_by(|left, right| left.0.cmp(&right.0));
        Self::write(self.path, all.into_iter().map(Ok))
    }
}

/// Parses a line. A submodule has no size.
fn parse(line: &[u8]) -> Option<(GitPath, (Entry, u64))> {
    let line = line.strip_suffix(b"\0")?;
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let mut fields = std::str::from_utf8(&line[..tab]).ok()?.split_ascii_whitespace();
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let object = ObjectId::parse(fields.nth(1)?)?;
    let size = fields.next().and_then(|size| size.parse().ok()).unwrap_or(0);
    Some((line[tab + 1..].to_vec(), (Entry { mode, object }, size)))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Checks which entries of a sorted tree a checkout can hold. A tree can have entries that git does not accept in an
/// index: `.git`, `..`, or a file and a folder with the same name.
#[derive(Default)]
pub struct EntryCheck {
    /// The last file, and the earlier files whose paths are prefixes of its path.
    files: Vec<GitPath>,
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
        let is_in_the_way = |file: &GitPath| matches!(path[file.len()..].first(), None | Some(b'/'));
        if self.files.iter().any(is_in_the_way) {
            return false;
        }
        self.files.push(path.to_vec());
        true
    }
}

/// Joins two sorted streams: each path comes once, with the items that the streams have for it. The first path that is
/// out of order gives an error, and the items after it must not be used.
pub fn join<A: 'static, B: 'static>(left: Stream<A>, right: Stream<B>) -> Stream<(Option<A>, Option<B>)> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    let mut last: Option<GitPath> = None;
    let mut pair = move || {
        let order = match (left.peek(), right.peek()) {
            (Some(Ok((left_item, _))), Some(Ok((right_item, _)))) => left_item.cmp(right_item),
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        let left_item = if order.is_le() { left.next().transpose()? } else { None };
        let right_item = if order.is_ge() { right.next().transpose()? } else { None };
        let ((left_path, left_value), (right_path, right_value)) = (left_item.unzip(), right_item.unzip());
        let Some(path) = left_path.or(right_path) else { return Ok(None) };
        if last.as_ref().is_some_and(|last| *last >= path) {
            return Err(invalid("a listing is not in order"));
        }
        last = Some(path.clone());
        Ok(Some((path, (left_value, right_value))))
    };
    Box::new(std::iter::from_fn(move || pair().transpose()))
}

/// Returns all files below a folder of the disk, in the order of listings.
///
/// # Errors
/// Fails on an I/O error.
pub fn walk(folder: &Path) -> io::Result<Stream<PathBuf>> {
    let mut pending = vec![children(folder, b"")?];
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            let Some((path, file)) = pending.last_mut()?.pop() else {
                pending.pop();
                continue;
            };
            if path.last() != Some(&b'/') {
                return Some(Ok((path, file)));
            }
            match children(&file, &path) {
                Ok(below) => pending.push(below),
                Err(error) => return Some(Err(error)),
            }
        }
    })))
}

/// Returns the content of a folder in reverse order. The paths of folders to walk into end with `/`.
fn children(folder: &Path, prefix: &[u8]) -> io::Result<Vec<(GitPath, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| files::at(folder, &error))? {
        let entry = entry?;
        let file = entry.path();
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        let end: &[u8] = if entry.file_type()?.is_dir() { b"/" } else { b"" };
        found.push(([prefix, name, end].concat(), file));
    }
    found.sort_unstable_by(|left, right| right.0.cmp(&left.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::RunDir;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn listing(run_dir: &RunDir, lines: &str) -> io::Result<Listing> {
        Ok(Listing::at(run_dir.write("listing", lines.as_bytes())?))
    }

    /// Returns the paths that no checkout can hold beside the others.
    fn invalid_entries(run_dir: &RunDir, lines: &str) -> io::Result<Vec<String>> {
        let mut soundness = EntryCheck::default();
        let mut invalid_entries = Vec::new();
        for line in listing(run_dir, lines)?.sorted()?.entries()? {
            let (path, entry) = line?;
            if !soundness.admits(&path, &entry) {
                invalid_entries.push(String::from_utf8_lossy(&path).into_owned());
            }
        }
        Ok(invalid_entries)
    }

    fn blobs(paths: &[&str]) -> String {
        paths.iter().map(|path| format!("100644 blob {A}\t{path}\0")).collect()
    }

    #[test]
    fn entries_that_no_checkout_can_hold_are_invalid() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-sound")?;
        let sound = ["...", ".github/x", ".gitmodules", "a/..b", "a/.gitignore", "a/git", "b"];
        assert_eq!(invalid_entries(&run_dir, &blobs(&sound))?, [""; 0]);
        for path in [".git", ".git/config", "a/.GIT/hooks/x", "../x", "a/./x", "a/..", "/x", "a//x", "b", "b/x"] {
            let paths = [&sound[..], &[path]].concat();
            assert_eq!(invalid_entries(&run_dir, &blobs(&paths))?, [path]);
        }
        // If a file and a folder have the same name, the file comes first.
        assert_eq!(invalid_entries(&run_dir, &blobs(&["a", "a-b", "a.b/c", "a/x", "a/y", "a0"]))?, ["a/x", "a/y"]);
        assert_eq!(invalid_entries(&run_dir, &blobs(&["a/x", "a"]))?, ["a/x"], "out of order");
        let link = format!("120000 blob {A}\t.gitmodules/x\0120000 blob {A}\ta/.gitModules\0");
        assert_eq!(invalid_entries(&run_dir, &link)?, ["a/.gitModules"]);
        Ok(())
    }

    #[test]
    fn listings_keep_every_byte_of_a_path() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-bytes")?;
        let tree = format!("100644 blob {A}\tf/a b\n\"c\".py\0120000 blob {A}\tlink\0160000 commit {A}\tsub\0");
        let read: Vec<_> = listing(&run_dir, &tree)?.entries()?.collect::<Result<_, _>>()?;
        let found: Vec<_> = read.iter().map(|(path, entry)| (path.as_slice(), entry.is_file())).collect();
        assert_eq!(found, [(&b"f/a b\n\"c\".py"[..], true), (b"link", false), (b"sub", false)]);
        let written = Listing::write(run_dir.path().join("written"), read.iter().cloned().map(Ok))?;
        assert_eq!(written.entries()?.collect::<Result<Vec<_>, _>>()?, read);
        let without_end = format!("100755 blob {A}\t-x.sh");
        for none in ["garbage\0", "100644 blob zzz\tx\0", &without_end, "x\tx\0"] {
            let first = listing(&run_dir, none)?.entries()?.next();
            assert!(first.is_some_and(|line| line.is_err()), "{none:?}");
        }
        Ok(())
    }

    #[test]
    fn sizes_are_read() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-sizes")?;
        let lines =
            format!("100644 blob {A}      12\ta b\0100644 blob {A} 1234567890\tc\td\0160000 commit {A}       -\tsub\0");
        let sizes: Vec<_> = listing(&run_dir, &lines)?
            .with_sizes()?
            .map(|line| line.map(|(path, (_, size))| (path, size)))
            .collect::<Result<_, _>>()?;
        assert_eq!(sizes, [(b"a b".to_vec(), 12), (b"c\td".to_vec(), 1_234_567_890), (b"sub".to_vec(), 0)]);
        Ok(())
    }

    #[test]
    fn sifted_entries_are_counted() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-sifted")?;
        let whole = listing(&run_dir, &blobs(&["a", "b", "c", "d"]))?;
        let file = run_dir.path().join("sifted");
        let sift = |out: &[&str]| {
            let (sifted, count) =
                whole.sifted(file.clone(), |path, _| !out.iter().any(|name| name.as_bytes() == path))?;
            let left: Vec<_> = sifted.entries()?.map(|line| line.map(|(path, _)| path)).collect::<Result<_, _>>()?;
            assert_eq!(left.len(), count);
            Ok::<_, io::Error>(String::from_utf8_lossy(&left.concat()).into_owned())
        };
        assert_eq!(sift(&[])?, "abcd");
        for (out, left) in [("a", "bcd"), ("c", "abd"), ("d", "abc")] {
            assert_eq!(sift(&[out])?, left);
        }
        assert_eq!(sift(&["a", "b", "c", "d"])?, "");
        assert!(listing(&run_dir, "garbage\0")?.sifted(file.clone(), |_, _| true).is_err());
        Ok(())
    }

    fn stream(paths: &[&str]) -> Stream<()> {
        let items: Vec<_> = paths.iter().map(|path| Ok((path.as_bytes().to_vec(), ()))).collect();
        Box::new(items.into_iter())
    }

    #[test]
    fn two_streams_are_read_side_by_side() -> io::Result<()> {
        let joined: Vec<_> = join(stream(&["a", "c", "d"]), stream(&["b", "c"])).collect::<Result<_, _>>()?;
        let sides = |left: bool, right: bool| (left.then_some(()), right.then_some(()));
        let expected =
            [("a", sides(true, false)), ("b", sides(false, true)), ("c", sides(true, true)), ("d", sides(true, false))];
        let expected: Vec<_> = expected.map(|(path, sides)| (path.as_bytes().to_vec(), sides)).into();
        assert_eq!(joined, expected);
        assert!(join(stream(&["b", "a"]), stream(&[])).any(|pair| pair.is_err()), "out of order");
        assert!(join(stream(&[]), stream(&["a", "a"])).any(|pair| pair.is_err()), "twice the same");
        let broken = || Box::new([Ok((b"a".to_vec(), ())), Err(invalid("x"))].into_iter());
        assert!(join(broken(), stream(&["b"])).any(|pair| pair.is_err()));
        assert!(join(stream(&["b"]), broken()).any(|pair| pair.is_err()));
        Ok(())
    }

    #[test]
    fn a_walk_is_in_the_order_of_git() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-walk")?;
        for path in ["a-b", "a.b/x", "a/x", "a/y/z", "a/.x/y", "a0", "b"] {
            let path = run_dir.path().join("folder").join(path);
            fs::create_dir_all(path.parent().expect("a folder"))?;
            fs::write(path, "")?;
        }
        fs::create_dir(run_dir.path().join("folder/empty"))?;
        let walked: Vec<_> = walk(&run_dir.path().join("folder"))?.collect::<Result<_, _>>()?;
        let paths: Vec<_> = walked.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect();
        assert_eq!(paths, ["a-b", "a.b/x", "a/.x/y", "a/x", "a/y/z", "a0", "b"]);
        assert!(walked.iter().all(|(path, file)| file.ends_with(String::from_utf8_lossy(path).as_ref())));
        assert!(walk(&run_dir.path().join("none")).is_err());
        Ok(())
    }
}
