//! Lists, checks out, stages, verifies and composes trees.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::iter;
use std::path::{Path, PathBuf};

use crate::git::{Entry, Git, GitPath, Listing, ObjectId, join, object, successful, walk};
use crate::model::{BackupError, Code, Result};
use crate::process::{Failure, Invocation};
use crate::util::{files, printable};

/// The limit of a listing of a tree. An entry has about 100 bytes, so this is enough for a million files.
const LISTING_BYTES_MAX: usize = 128 << 20;
/// How many further entries with the name of our folder are removed. Each costs a copy of the parent folder.
const SAME_NAME_MAX: usize = 16;

impl Git<'_> {
    /// Returns the tree at a path of a commit or tree. The path has no slashes at its ends; an empty path is the root.
    ///
    /// # Errors
    /// [`BackupError`], also if there is no tree.
    pub fn tree_at(&self, commit: &ObjectId, path: &str) -> Result<ObjectId> {
        self.object_id(self.command()?.arguments(["rev-parse", "--verify", "--quiet", &format!("{commit}:{path}")]))
    }

    /// Looks for a folder in a commit or tree. An empty path is the root. Returns the folder's tree. If a file, link or
    /// submodule is in its place, or in the place of a parent folder, returns the path of that one.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn folder_at(&self, tree: &ObjectId, path: &str) -> Result<(Option<ObjectId>, Option<GitPath>)> {
        if path.is_empty() {
            return Ok((Some(self.tree_at(tree, path)?), None));
        }
        // `a`, `a/b` and `a/b/c` for `a/b/c`.
        let folders: Vec<_> = path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]).collect();
        let command = self.command()?.arguments(["ls-tree", "-t", "-z", "--full-tree", "--", tree.as_str()]);
        let mut found = None;
        for entry in self.listing("folders.listing", command.arguments(&folders))?.entries()? {
            let (name, entry) = entry?;
            if !folders.iter().any(|folder| folder.as_bytes() == name) {
                continue;
            }
            if entry.mode != object::FOLDER {
                return Ok((None, Some(name)));
            }
            if name == path.as_bytes() {
                found = Some(entry.object);
            }
        }
        Ok((found, None))
    }

    /// Returns the tree of a commit with another folder at this path, or without one if the new folder is empty. Reads
    /// only the parent folders.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn with_folder(&self, commit: Option<&ObjectId>, path: &str, folder: &ObjectId) -> Result<ObjectId> {
        if path.is_empty() {
            return Ok(folder.clone());
        }
        let empty = self.empty_tree()?;
        let entry = Entry { mode: object::FOLDER, object: folder.clone() };
        let entry = Some(&entry).filter(|_| *folder != empty);
        // A tree can have more entries of this name. `git fast-import` deletes or replaces only the first in each
        // commit.
        let mut others = 0;
        if let Some(commit) = commit {
            let command = self.command()?.arguments(["ls-tree", "-z", "--full-tree", "--", commit.as_str(), path]);
            others = self.listing("siblings.listing", command)?.entries()?.count().saturating_sub(1);
        }
        let deletions = iter::repeat_n(order(path, None), others.min(SAME_NAME_MAX));
        let groups = deletions.chain([order(path, entry)]).map(iter::once);
        let tree = self.make_trees(commit, groups)?.pop();
        tree.ok_or_else(|| BackupError::damage("`git fast-import` made no tree".to_owned()))
    }

    /// Lists all files of a commit or tree, valid or not, in a listing of this name. It overwrites a listing of the
    /// same name, even if that is still being read.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn list(&self, tree: &ObjectId, name: &str) -> Result<Listing> {
        let arguments = ["ls-tree", "-r", "-z", "--full-tree", tree.as_str()];
        Ok(self.listing(name, self.command()?.arguments(arguments))?.sorted()?)
    }

    fn listing(&self, name: &str, command: Invocation) -> Result<Listing> {
        let path = self.listing_place(name);
        let file = files::open_file(&path, true)?;
        self.locally(command.write_to(file, LISTING_BYTES_MAX))?;
        Ok(Listing::at(path))
    }

    /// Returns the content of a file that another writer may have made, or `None` if it is longer than `bytes_max`.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn read_blob(&self, blob: &ObjectId, bytes_max: usize) -> Result<Option<Vec<u8>>> {
        let command = self.command()?.arguments(["cat-file", "blob", blob.as_str()]).capture(bytes_max);
        let command_line = command.to_string();
        match self.run_env.run(command, &mut |_| true) {
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge => Ok(None),
            finished => successful(&command_line, finished?).map(Some),
        }
    }

    /// Makes the index and the tree folder equal to the given tree. Rewrites files that differ and removes all others,
    /// including ignored files and nested repositories.
    ///
    /// # Errors
    /// [`BackupError`], also if the files of the tree do not fit on the volume. Then nothing was written.
    pub fn check_out(&self, tree: Option<&ObjectId>) -> Result<()> {
        files::create_folder(&self.tree_folder)?;
        #[cfg(unix)]
        files::remove_special_files(&self.tree_folder)?;
        let tree = if let Some(tree) = tree { tree.clone() } else { self.empty_tree()? };
        self.check_room(&tree)?;
        self.locally(self.command()?.arguments(["read-tree", "--reset", "-u", tree.as_str()]))?;
        self.locally(self.command()?.arguments(["clean", "-ffdxq"]))?;
        Ok(())
    }

    /// Checks that there is room for the files of the tree. A pack of a few kilobytes can hold gigabytes.
    fn check_room(&self, tree: &ObjectId) -> Result<()> {
        let left = self.run_env.run_dir.volume.check().unwrap_or(0);
        let arguments = ["ls-tree", "-r", "-z", "--long", "--full-tree", tree.as_str()];
        let (mut total, mut largest) = (0_u64, (0, GitPath::new()));
        for line in self.listing("sizes.listing", self.command()?.arguments(arguments))?.with_sizes()? {
            let (path, (_, size)) = line?;
            total = total.saturating_add(size);
            largest = largest.max((size, path));
        }
        // Files that are already checked out are replaced.
        let room = left.saturating_add(files::bytes_in(&self.tree_folder));
        if total <= room {
            return Ok(());
        }
        let message = format!(
            "there is no room to check out the repository's folder: its files have {} KiB, and a run may write {} KiB to \
             the volume of DATA_DIR; the largest is `{}` with {} KiB",
            total >> 10,
            room >> 10,
            printable(&largest.1),
            largest.0 >> 10
        );
        // A new checkout helps if old objects take the space.
        let helps = total <= room.saturating_add(files::bytes_in(&self.git_folder));
        let lasting = |message| BackupError::new(Code::GitFailed, message);
        Err(if helps { BackupError::damage(message) } else { lasting(message) })
    }

    /// Returns the id of the empty tree, which it writes.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn empty_tree(&self) -> Result<ObjectId> {
        // The standard input of each program of a run is the lock, an empty file.
        self.object_id(self.command()?.arguments(["mktree", "-z"]))
    }

    /// Stages all files of the tree folder, including ignored ones, and lists them.
    ///
    /// It lists a tree of them, not the index: for a folder that git considers unchanged, git uses a part of the index
    /// that no listing of the index shows.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn stage(&self) -> Result<Listing> {
        self.locally(self.command()?.arguments(["add", "--all", "--force"]))?;
        let tree = self.object_id(self.command()?.arguments(["write-tree"]))?;
        self.list(&tree, "staged.listing")
    }

    /// Stages the files as [`Git::stage`] does, and verifies that git staged the files that are in the folder: the same
    /// paths, only regular files, each with its content. It walks the folder and computes the object ids itself, so
    /// that no setting of git can interfere. A file that has the same content in `known` is not read again: git checked
    /// it out, and wmill did not change it.
    ///
    /// # Errors
    /// [`BackupError`], which names the first file that differs.
    pub fn stage_verified(&self, known: &Listing) -> Result<Listing> {
        let staged = self.stage()?;
        for found in join(join(staged.entries()?, walk(&self.tree_folder)?), known.entries()?) {
            let (path, (pulled, before)) = found?;
            let is_known = |entry: &Entry| before.as_ref().is_some_and(|before| before.object == entry.object);
            let why = match pulled {
                None => continue,
                Some((None, _)) => "it was pulled and not staged",
                Some((_, None)) => "it was staged and not pulled",
                Some((Some(entry), _)) if !entry.is_file() => "it was not staged as a regular file",
                Some((Some(entry), Some(file))) if is_known(&entry) || is_of_file(&entry.object, &file)? => continue,
                Some(_) => "the content differs",
            };
            let path = printable(&path);
            let message = format!("git did not stage what wmill pulled: `{path}`: {why}; nothing was committed");
            return Err(BackupError::damage(message));
        }
        Ok(staged)
    }

    /// Makes a tree of these files with a separate index, and returns its id. `git fast-import` would search a whole
    /// folder for each file that it puts there: 100,000 files in one folder would take a minute.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn compose(&self, files: &Listing) -> Result<ObjectId> {
        let index = self.listing_place("compose.index");
        let with_index = || self.command().map(|command| command.environment("GIT_INDEX_FILE", &index));
        self.locally(with_index()?.arguments(["read-tree", "--empty"]))?;
        let lines = File::open(&files.path)?;
        self.locally(with_index()?.arguments(["update-index", "-z", "--index-info"]).stdin(lines))?;
        self.object_id(with_index()?.arguments(["write-tree"]))
    }

    /// Makes a tree from each group of orders. The first group changes the tree of the commit, or the empty tree. Each
    /// other group changes the tree before it.
    pub(super) fn make_trees(
        &self,
        commit: Option<&ObjectId>,
        groups: impl Iterator<Item = impl Iterator<Item = Vec<u8>>>,
    ) -> Result<Vec<ObjectId>> {
        let place = self.listing_place("trees.orders");
        let mut input = BufWriter::new(files::open_file(&place, true)?);
        let mut from = commit.map(|commit| format!("from {commit}\n"));
        for (mark, orders) in (1..).zip(groups) {
            // `git fast-import` makes trees only for commits. Nothing uses these commits.
            let from = from.take().unwrap_or_default();
            write!(input, "commit refs/sync/made\nmark :{mark}\ncommitter <> 0 +0000\ndata 0\n\n{from}")?;
            orders.into_iter().try_for_each(|order| input.write_all(&order))?;
            write!(input, "\nls :{mark} \"\"\n")?;
        }
        input.flush()?;
        let command = self.command()?.arguments(["fast-import", "--quiet", "--force"]).stdin(File::open(&place)?);
        let printed = self.answer(command)?;
        Ok(printed.lines().filter_map(|line| ObjectId::parse(line.split_whitespace().nth(2)?)).collect())
    }

    /// Returns the path of the run's listing with this name.
    pub fn listing_place(&self, name: &str) -> PathBuf {
        self.run_env.run_dir.path().join(name)
    }
}

/// Returns the order for `git fast-import` to put an entry at a path, or to delete what is there. The path is in quotes
/// and escaped as in C.
pub(super) fn order(path: impl AsRef<[u8]>, entry: Option<&Entry>) -> Vec<u8> {
    let verb = entry.map_or_else(|| "D".to_owned(), |entry| format!("M {:06o} {}", entry.mode, entry.object));
    let mut order = [verb.as_bytes(), b" \""].concat();
    for byte in path.as_ref() {
        match byte {
            b'\n' => order.extend_from_slice(b"\\n"),
            b'"' | b'\\' => order.extend_from_slice(&[b'\\', *byte]),
            byte => order.push(*byte),
        }
    }
    order.extend_from_slice(b"\"\n");
    order
}

/// Returns whether this is the id that git gives to the content of a file.
fn is_of_file(blob: &ObjectId, path: &Path) -> io::Result<bool> {
    let file = files::open_regular(File::options().read(true), path)?;
    let length = file.metadata()?.len();
    let id = ObjectId::of_blob(file, length, blob.format()).map_err(|error| files::at(path, &error))?;
    Ok(id == *blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_keeps_every_byte_of_a_path() {
        let entry = Entry { mode: object::FOLDER, object: ObjectId::parse(&"a".repeat(40)).expect("40 digits") };
        let id = &entry.object;
        assert_eq!(order("a b", Some(&entry)), format!("M 040000 {id} \"a b\"\n").into_bytes());
        assert_eq!(order(b"a \"b\"\\c\nd\xff", None), b"D \"a \\\"b\\\"\\\\c\\nd\xff\"\n");
    }
}
