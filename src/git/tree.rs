//! Lists, checks out, stages, verifies and composes trees.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::iter;
use std::path::{Path, PathBuf};

use crate::git::{Entry, Git, GitPath, Listing, ObjectId, TreeDiff, ls_tree, object, successful, walk};
use crate::model::{BackupError, Code, Result};
use crate::process::{Failure, Invocation};
use crate::util::{files, printable};

/// The limit of a listing of a tree. An entry has about 100 bytes, so this is enough for a million files.
const LISTING_BYTES_MAX: usize = 128 << 20;
/// The command that lists all files of a tree, with the tree as its last argument.
const LIST_ALL: [&str; 4] = ["ls-tree", "-r", "-z", "--full-tree"];
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
        for line in self.listed(command.arguments(&folders))? {
            let (name, entry, _) = line?;
            if !folders.iter().any(|folder| folder.as_bytes() == &*name) {
                continue;
            }
            if entry.mode != object::FOLDER {
                return Ok((None, Some(name)));
            }
            if *name == *path.as_bytes() {
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
            others = self.listed(command)?.count().saturating_sub(1);
        }
        let deletions = iter::repeat_n(order(path, None), others.min(SAME_NAME_MAX));
        let groups = deletions.chain([order(path, entry)]).map(iter::once);
        let tree = self.make_trees(commit, groups)?.pop();
        tree.ok_or_else(|| BackupError::damage("`git fast-import` made no tree".to_owned()))
    }

    /// Lists all files of a commit or tree in the order of their paths, valid or not. git writes each tree in this order;
    /// one that another program wrote may have another order, and a path twice.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn list(&self, tree: &ObjectId) -> Result<Vec<(GitPath, Entry)>> {
        let lines = self.listed(self.command()?.arguments(LIST_ALL).arguments([tree.as_str()]))?;
        let mut all = lines.map(|line| line.map(|(path, entry, _)| (path, entry))).collect::<io::Result<Vec<_>>>()?;
        all.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(all)
    }

    /// Returns whether a tree has exactly the files of a comparison after the change.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn has_exactly(&self, tree: &ObjectId, comparison: &TreeDiff) -> Result<bool> {
        let mut count = 0;
        for line in self.listed(self.command()?.arguments(LIST_ALL).arguments([tree.as_str()]))? {
            let (path, entry, _) = line?;
            if comparison.after_at(&path) != Some(&entry) {
                return Ok(false);
            }
            count += 1;
        }
        Ok(count == comparison.after().count())
    }

    /// Runs a command that lists files.
    fn listed(&self, command: Invocation) -> Result<impl Iterator<Item = io::Result<(GitPath, Entry, u64)>> + use<>> {
        // It replaces the file of an earlier list, which may still be read.
        let path = self.run_file("listing");
        self.locally(command.write_to(files::open_file(&path, true)?, LISTING_BYTES_MAX))?;
        Ok(ls_tree::read(&path)?)
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
        let (mut total, mut largest) = (0_u64, (0, GitPath::default()));
        for line in self.listed(self.command()?.arguments(arguments))? {
            let (path, _, size) = line?;
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

    /// Stages all files of the tree folder, including ignored ones, and lists them. The paths and ids that are in `known`
    /// too take no further memory.
    ///
    /// It lists a tree of them, not the index: for a folder that git considers unchanged, git uses a part of the index
    /// that no listing of the index shows.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn stage(&self, known: &Listing) -> Result<Listing> {
        self.locally(self.command()?.arguments(["add", "--all", "--force"]))?;
        let tree = self.object_id(self.command()?.arguments(["write-tree"]))?;
        let same = |path: &GitPath, entry: &Entry| known.get_key_value(path).filter(|(_, known)| *known == entry);
        let shared = |(path, entry, _)| match same(&path, &entry) {
            Some((path, entry)) => (path.clone(), entry.clone()),
            None => (path, entry),
        };
        let lines = self.listed(self.command()?.arguments(LIST_ALL).arguments([tree.as_str()]))?;
        Ok(lines.map(|line| line.map(shared)).collect::<io::Result<_>>()?)
    }

    /// Stages the files as [`Git::stage`] does, and verifies that git staged the files that are in the folder: the same
    /// paths, only regular files, each with its content. It walks the folder and computes the object ids itself, so
    /// that no setting of git can interfere. A file that has the same content in `known` is not read again: git checked
    /// it out, and wmill did not change it.
    ///
    /// # Errors
    /// [`BackupError`], which names the first file that differs.
    pub fn stage_verified(&self, known: &Listing) -> Result<Listing> {
        let (staged, mut count) = (self.stage(known)?, 0);
        let mut fault = None;
        walk(&self.tree_folder, &mut |path, file| {
            count += 1;
            let why = match staged.get(path) {
                None => "it was pulled and not staged",
                Some(entry) if !entry.is_file() => "it was not staged as a regular file",
                Some(entry) if known.get(path).is_some_and(|known| known.object == entry.object) => return Ok(()),
                Some(entry) if is_of_file(&entry.object, file)? => return Ok(()),
                Some(_) => "the content differs",
            };
            fault.get_or_insert_with(|| format!("`{}`: {why}", printable(path)));
            Ok(())
        })?;
        if count != staged.len() {
            fault.get_or_insert_with(|| format!("it staged {} files, and {count} are there", staged.len()));
        }
        let refused = |fault| format!("git did not stage what wmill pulled: {fault}; nothing was committed");
        fault.map_or(Ok(staged), |fault| Err(BackupError::damage(refused(fault))))
    }

    /// Makes a tree of these files with a separate index, and returns its id. `git fast-import` would search a whole
    /// folder for each file that it puts there: 100,000 files in one folder would take a minute.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn compose<'f>(&self, entries: impl Iterator<Item = (impl AsRef<[u8]>, &'f Entry)>) -> Result<ObjectId> {
        let (index, lines) = (self.run_file("compose.index"), self.run_file("compose.lines"));
        let mut input = BufWriter::new(files::open_file(&lines, true)?);
        for (path, Entry { mode, object }) in entries {
            input.write_all(&[format!("{mode:06o} {object}\t").as_bytes(), path.as_ref(), b"\0"].concat())?;
        }
        input.flush()?;
        let with_index = || self.command().map(|command| command.environment("GIT_INDEX_FILE", &index));
        self.locally(with_index()?.arguments(["read-tree", "--empty"]))?;
        let lines = File::open(&lines)?;
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
        let place = self.run_file("trees.orders");
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

    /// Returns the path of a file of the run with this name.
    pub(super) fn run_file(&self, name: &str) -> PathBuf {
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
