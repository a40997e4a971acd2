//! Sorted listings of trees, kept on the disk and read as streams, so that memory does not grow with the tree.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::mem;
use std::path::{Path, PathBuf};

use crate::git::object::{self, Entry, ObjectId};
use crate::util::files;

/// A path as git sees it, in bytes. Everything here is in the order of these bytes.
pub type GitPath = Vec<u8>;

/// An item of a stream: a path, and what is there.
pub type Item<T> = io::Result<(GitPath, T)>;

/// Files in the order of their paths. Boxed: a copy of this code for each kind of stream would cost more than the
/// calls.
pub type Stream<T> = Box<dyn Iterator<Item = Item<T>>>;

/// The size of the buffer of one stream.
const BUFFER_BYTES: usize = 16 << 10;
/// The limit of a line: longer than any path that a system accepts, with mode and id.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The content of a line besides its path: an entry and a note.
type Noted = (Entry, u8);

/// A file with a line for each file of a tree: `mode object note TAB path NUL`, or `mode type object TAB path NUL` if
/// git wrote it. `git update-index --index-info` accepts both.
#[derive(Clone, Debug)]
pub struct Listing {
    path: PathBuf,
}

impl Listing {
    /// Returns the listing at `path`, which git wrote.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes a listing with these lines to `path`.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn write(path: PathBuf, lines: impl FnOnce(&mut Writer) -> io::Result<()>) -> io::Result<Self> {
        let file = files::open_file(&path, true)?;
        let mut writer = Writer { file: BufWriter::with_capacity(BUFFER_BYTES, file) };
        lines(&mut writer).and_then(|()| writer.file.flush()).map_err(|error| files::at(&path, &error))?;
        Ok(Self { path })
    }

    /// Returns the path of the listing.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its entries, in its order.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn entries(&self) -> io::Result<Stream<Entry>> {
        Ok(Box::new(self.noted()?.map(|line| line.map(|(path, (entry, _))| (path, entry)))))
    }

    /// Returns its entries, each with its note.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn noted(&self) -> io::Result<Stream<Noted>> {
        Ok(Box::new(self.lines()?))
    }

    fn lines(&self) -> io::Result<Lines> {
        let file = files::open_regular(File::options().read(true), &self.path)?;
        Ok(Lines { file: BufReader::with_capacity(BUFFER_BYTES, file), line: Vec::new() })
    }

    /// Returns the sizes of its files. git has to have written them, with `ls-tree --long`.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn sizes(&self) -> io::Result<Sizes> {
        let (mut lines, mut sizes) = (self.lines()?, Sizes::default());
        while lines.read()?.is_some() {
            let (size, path) = size_of(&lines.line);
            sizes.total = sizes.total.saturating_add(size);
            if size > sizes.largest.0 {
                sizes.largest = (size, path.to_vec());
            }
        }
        Ok(sizes)
    }

    /// Writes the entries that `admits` accepts to `file`, or returns the same listing if it accepts all of them.
    /// Returns their number too.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn sifted(&self, file: PathBuf, mut admits: impl FnMut(&[u8], &Entry) -> bool) -> io::Result<(Self, usize)> {
        let (mut lines, mut admitted) = (self.lines()?, 0);
        loop {
            let Some((path, (entry, _))) = lines.read()? else { return Ok((self.clone(), admitted)) };
            if !admits(path, &entry) {
                break;
            }
            admitted += 1;
        }
        let sifted = Self::write(file, |writer| {
            for line in self.entries()?.take(admitted) {
                let (path, entry) = line?;
                writer.put(&path, &entry, b'0')?;
            }
            while let Some((path, (entry, _))) = lines.read()? {
                if admits(path, &entry) {
                    admitted += 1;
                    writer.put(path, &entry, b'0')?;
                }
            }
            Ok(())
        })?;
        Ok((sifted, admitted))
    }

    /// Returns the same listing in order. git writes each tree in order; a tree that another program wrote is sorted in
    /// memory.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn sorted(self) -> io::Result<Self> {
        let (mut lines, mut last) = (self.lines()?, GitPath::new());
        while let Some((path, _)) = lines.read()? {
            if last.as_slice() > path {
                return self.sort();
            }
            last.clear();
            last.extend_from_slice(path);
        }
        Ok(self)
    }

    fn sort(self) -> io::Result<Self> {
        let mut all: BTreeMap<GitPath, Vec<Entry>> = BTreeMap::new();
        for line in self.entries()? {
            let (path, entry) = line?;
            all.entry(path).or_default().push(entry);
        }
        Self::write(self.path, |lines| {
            let mut each = all.iter().flat_map(|(path, entries)| entries.iter().map(move |entry| (path, entry)));
            each.try_for_each(|(path, entry)| lines.put(path, entry, b'0'))
        })
    }
}

/// The sizes of the files in a listing, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The sum of all.
    pub total: u64,
    /// The largest file.
    pub largest: (u64, GitPath),
}

/// Writes a listing, line by line.
pub struct Writer {
    file: BufWriter<File>,
}

impl Writer {
    /// Writes a file. The note is one character; git expects `0`.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn put(&mut self, path: &[u8], entry: &Entry, note: u8) -> io::Result<()> {
        write!(self.file, "{:o} {} {}\t", entry.mode, entry.object, char::from(note))?;
        self.file.write_all(path)?;
        self.file.write_all(b"\0")
    }

    /// Writes an entry of one tree, in the form that `git mktree` reads.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn put_in_tree(&mut self, name: &[u8], entry: &Entry) -> io::Result<()> {
        let kind = match entry.mode {
            object::FOLDER => "tree",
            object::SUBMODULE => "commit",
            _ => "blob",
        };
        write!(self.file, "{:06o} {kind} {}\t", entry.mode, entry.object)?;
        self.file.write_all(name)?;
        self.file.write_all(b"\0")
    }

    /// Writes a path without an entry: git removes the path from its index. `digits` is the number of digits of an id.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn nothing(&mut self, path: &[u8], digits: usize) -> io::Result<()> {
        write!(self.file, "0 {:0digits$} 0\t", 0)?;
        self.file.write_all(path)?;
        self.file.write_all(b"\0")
    }
}

struct Lines {
    file: BufReader<File>,
    /// The last line that was read.
    line: Vec<u8>,
}

impl Lines {
    /// Reads the next line.
    fn read(&mut self) -> io::Result<Option<(&[u8], Noted)>> {
        self.line.clear();
        if io::Read::take(&mut self.file, LINE_BYTES_MAX).read_until(0, &mut self.line)? == 0 {
            return Ok(None);
        }
        parse(&self.line).map(Some).ok_or_else(|| invalid("git printed a malformed listing"))
    }
}

impl Iterator for Lines {
    type Item = Item<Noted>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map(|line| line.map(|(path, what)| (path.to_vec(), what))).transpose()
    }
}

fn parse(line: &[u8]) -> Option<(&[u8], Noted)> {
    let line = line.strip_suffix(b"\0")?;
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let mut fields = std::str::from_utf8(&line[..tab]).ok()?.split(' ');
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let (second, third) = (fields.next()?, fields.next()?);
    let (object, note) = match ObjectId::parse(second) {
        Some(object) => (object, *third.as_bytes().first()?),
        None => (ObjectId::parse(third)?, b'0'),
    };
    Some((&line[tab + 1..], (Entry { mode, object }, note)))
}

/// Returns the size and the path in a line that git wrote with sizes. A submodule has no size.
fn size_of(line: &[u8]) -> (u64, &[u8]) {
    let tab = line.iter().position(|byte| *byte == b'\t').unwrap_or(line.len());
    let size = std::str::from_utf8(&line[..tab]).ok().and_then(|head| head.rsplit(' ').next()?.parse().ok());
    let path = line.get(tab + 1..).unwrap_or_default();
    (size.unwrap_or(0), path.strip_suffix(b"\0").unwrap_or(path))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Checks which entries of a sorted tree a checkout can hold. A tree can have entries that git accepts into no index:
/// `.git`, `..`, or a file and a folder with the same name.
#[derive(Default)]
pub struct EntryCheck {
    /// The last file, and the earlier files whose paths are prefixes of its path.
    files: Vec<GitPath>,
}

impl EntryCheck {
    /// Returns whether a checkout can hold the next entry beside the earlier ones.
    pub fn admits(&mut self, path: &[u8], entry: &Entry) -> bool {
        if !entry.is_sound_at(path) {
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
/// out of order gives an error, and what follows must not be used.
#[must_use]
pub fn join<A: 'static, B: 'static>(mut left: Stream<A>, mut right: Stream<B>) -> Stream<(Option<A>, Option<B>)> {
    let (mut one, mut other) = (left.next(), right.next());
    let mut last: Option<GitPath> = None;
    let mut pair = move || {
        let order = match (&one, &other) {
            (None, None) => return Ok(None),
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
            (Some(Ok((one, _))), Some(Ok((other, _)))) => one.cmp(other),
        };
        let one = if order.is_le() { mem::replace(&mut one, left.next()).transpose()? } else { None };
        let other = if order.is_ge() { mem::replace(&mut other, right.next()).transpose()? } else { None };
        let (path, pair) = match (one, other) {
            (Some((path, one)), Some((_, other))) => (path, (Some(one), Some(other))),
            (Some((path, one)), None) => (path, (Some(one), None)),
            (None, Some((path, other))) => (path, (None, Some(other))),
            (None, None) => return Ok(None),
        };
        match &mut last {
            Some(last) if *last >= path => return Err(invalid("a listing is not in order")),
            Some(last) => last.clone_from(&path),
            None => last = Some(path.clone()),
        }
        Ok(Some((path, pair)))
    };
    Box::new(std::iter::from_fn(move || pair().transpose()))
}

/// Returns all files below a folder of the disk, in the order of listings. A folder whose name matches `is_closed` is
/// returned as if it were a file.
///
/// # Errors
/// Fails on an I/O error.
pub fn walk(folder: &Path, is_closed: fn(&[u8]) -> bool) -> io::Result<Stream<PathBuf>> {
    let mut pending = vec![children(folder, b"", is_closed)?];
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            let Some((path, file)) = pending.last_mut()?.pop() else {
                pending.pop();
                continue;
            };
            if path.last() != Some(&b'/') {
                return Some(Ok((path, file)));
            }
            match children(&file, &path, is_closed) {
                Ok(below) => pending.push(below),
                Err(error) => return Some(Err(error)),
            }
        }
    })))
}

/// Returns the content of a folder in reverse order. The paths of folders to walk into end with `/`.
fn children(folder: &Path, prefix: &[u8], is_closed: fn(&[u8]) -> bool) -> io::Result<Vec<(GitPath, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| files::at(folder, &error))? {
        let entry = entry?;
        let file = entry.path();
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        let end: &[u8] = if entry.file_type()?.is_dir() && !is_closed(name) { b"/" } else { b"" };
        found.push(([prefix, name, end].concat(), file));
    }
    found.sort_unstable_by(|left, right| right.0.cmp(&left.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::files::RunDir;

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
    fn what_no_checkout_can_hold_is_told_apart() -> io::Result<()> {
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
        let written = Listing::write(run_dir.path().join("written"), |lines| {
            read.iter().try_for_each(|(path, entry)| lines.put(path, entry, b'M'))
        })?;
        let again: Vec<_> = written.noted()?.collect::<Result<_, _>>()?;
        assert!(again.iter().zip(&read).all(|(again, read)| again.0 == read.0 && again.1 == (read.1.clone(), b'M')));
        let index = format!("100755 {A} 0\t-x.sh\0");
        assert_eq!(listing(&run_dir, &index)?.entries()?.filter(Result::is_ok).count(), 1);
        for none in ["garbage\0", "100644 blob zzz\tx\0", &index[..index.len() - 1], "x\tx\0"] {
            let first = listing(&run_dir, none)?.entries()?.next();
            assert!(first.is_some_and(|line| line.is_err()), "{none:?}");
        }
        Ok(())
    }

    #[test]
    fn the_sizes_of_files_are_added_up() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-sizes")?;
        let lines =
            format!("100644 blob {A}      12\ta b\0100644 blob {A} 1234567890\tc\td\0160000 commit {A}       -\tsub\0");
        let sizes = listing(&run_dir, &lines)?.sizes()?;
        assert_eq!(sizes, Sizes { total: 1_234_567_902, largest: (1_234_567_890, b"c\td".to_vec()) });
        assert_eq!(listing(&run_dir, "")?.sizes()?, Sizes::default());
        assert!(listing(&run_dir, "garbage\0")?.sizes().is_err());
        Ok(())
    }

    #[test]
    fn what_is_sifted_is_written_only_where_something_is_left_out() -> io::Result<()> {
        let run_dir = RunDir::for_test("listing-sifted")?;
        let whole = listing(&run_dir, &blobs(&["a", "b", "c", "d"]))?;
        let file = run_dir.path().join("sifted");
        let sift = |out: &[&str]| {
            let (sifted, count) = whole.sifted(file.clone(), |path, _| !out.iter().any(|it| it.as_bytes() == path))?;
            let left: Vec<_> = sifted.entries()?.map(|line| line.map(|(path, _)| path)).collect::<Result<_, _>>()?;
            assert_eq!(left.len(), count);
            Ok::<_, io::Error>(String::from_utf8_lossy(&left.concat()).into_owned())
        };
        assert_eq!(sift(&[])?, "abcd");
        assert!(!file.exists());
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
        for path in ["a-b", "a.b/x", "a/x", "a/y/z", "a0", "b"] {
            let path = run_dir.path().join("folder").join(path);
            fs::create_dir_all(path.parent().expect("a folder"))?;
            fs::write(path, "")?;
        }
        fs::create_dir(run_dir.path().join("folder/empty"))?;
        let check = |is_closed: fn(&[u8]) -> bool, expected: &[&str]| {
            let walked: Vec<_> = walk(&run_dir.path().join("folder"), is_closed)?.collect::<Result<_, _>>()?;
            let paths: Vec<_> = walked.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect();
            assert_eq!(paths, expected);
            assert!(walked.iter().all(|(path, file)| file.ends_with(String::from_utf8_lossy(path).as_ref())));
            Ok::<_, io::Error>(())
        };
        check(|_| false, &["a-b", "a.b/x", "a/x", "a/y/z", "a0", "b"])?;
        check(|name| name == b"a" || name == b"empty", &["a", "a-b", "a.b/x", "a0", "b", "empty"])?;
        assert!(walk(&run_dir.path().join("none"), |_| false).is_err());
        Ok(())
    }
}
