//! Trees: listed, checked out, staged from the tree folder, and composed.

use std::fs::File;
use std::path::PathBuf;

use crate::git::ls_tree::{GitPath, Listing};
use crate::git::object::{self, Entry, ObjectId};
use crate::git::{Git, GitError, from_failure, successful};
use crate::process::command::Invocation;
use crate::process::run::Failure;
use crate::util::files;

/// A listing of a tree: 100 bytes an entry, so this is a repository of a million files.
const LISTING_BYTES_MAX: usize = 128 << 20;

/// The content of a file in a repository that others write to.
pub enum BlobContent {
    /// All of it.
    Whole(Vec<u8>),
    /// It cannot be taken, and why.
    Strange(&'static str),
}

/// What a commit has at the path of a folder.
#[derive(Default)]
pub struct FolderAt {
    /// The folder's tree, if the folder exists.
    pub tree: Option<ObjectId>,
    /// A file, link or submodule at this path or at that of a folder above, with its path.
    pub conflict: Option<(GitPath, Entry)>,
}

/// What was taken from the tree folder.
pub struct Staged {
    /// Written by git.
    pub tree: ObjectId,
    /// All files of it.
    pub files: Listing,
}

impl Git<'_> {
    /// The tree at a path of a commit or tree, without slashes at its ends; an empty one is the whole.
    ///
    /// # Errors
    /// [`GitError`], also where there is no tree.
    pub fn tree_at(&self, commit: &ObjectId, path: &str) -> Result<ObjectId, GitError> {
        let name = if path.is_empty() { format!("{commit}^{{tree}}") } else { format!("{commit}:{path}") };
        self.object_id(self.command()?.arguments(["rev-parse", "--verify", "--quiet", &name]))
    }

    /// What a commit or tree has at the path of a folder; an empty path is the whole.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn folder_at(&self, tree: &ObjectId, path: &str) -> Result<FolderAt, GitError> {
        if path.is_empty() {
            return Ok(FolderAt { tree: Some(tree.clone()), conflict: None });
        }
        let folders = with_ancestors(path);
        let command = self.command()?.arguments(["ls-tree", "-t", "-z", "--full-tree", "--", tree.as_str()]);
        let listed = self.listing("folders.listing", command.arguments(&folders))?;
        let mut found = FolderAt::default();
        for entry in listed.entries()? {
            let (name, entry) = entry?;
            if found.conflict.is_some() || !folders.iter().any(|folder| folder.as_bytes() == name) {
                continue;
            }
            if entry.mode != object::FOLDER {
                found = FolderAt { tree: None, conflict: Some((name, entry)) };
            } else if name == path.as_bytes() {
                found.tree = Some(entry.object);
            }
        }
        Ok(found)
    }

    /// The tree of a commit with another folder at this path. Only the folders above it are read, one level each. An
    /// empty folder is removed.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn with_folder(&self, commit: Option<&ObjectId>, path: &str, folder: &ObjectId) -> Result<ObjectId, GitError> {
        let (mut path, mut folder) = (path, folder.clone());
        while !path.is_empty() {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let siblings = match commit {
                Some(commit) => self.folder_at(commit, parent)?.tree,
                None => None,
            };
            folder = self.with_entry(siblings.as_ref(), name.as_bytes(), folder)?;
            path = parent;
        }
        Ok(folder)
    }

    /// A tree with another folder of this name, or without it where that is empty.
    fn with_entry(&self, tree: Option<&ObjectId>, name: &[u8], folder: ObjectId) -> Result<ObjectId, GitError> {
        let list = |tree: &ObjectId| {
            let arguments = ["ls-tree", "-z", "--full-tree", tree.as_str()];
            self.listing("siblings.listing", self.command()?.arguments(arguments))
        };
        let siblings = tree.map(list).transpose()?;
        let entries = Listing::write(self.listing_place("tree.listing"), |lines| {
            if let Some(siblings) = siblings {
                for entry in siblings.entries()? {
                    let (sibling, entry) = entry?;
                    if sibling != name {
                        lines.put_in_tree(&sibling, &entry)?;
                    }
                }
            }
            if folder.is_empty_tree() {
                return Ok(());
            }
            lines.put_in_tree(name, &Entry { mode: object::FOLDER, object: folder })
        })?;
        self.object_id(self.command()?.arguments(["mktree", "-z"]).stdin(File::open(entries.path())?))
    }

    /// All files of a commit or tree, as they are there, sound or not, in a listing of this name. It takes the place of
    /// one of the same name, which somebody may still be reading.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn list(&self, tree: &ObjectId, name: &str) -> Result<Listing, GitError> {
        let arguments = ["ls-tree", "-r", "-z", "--full-tree", tree.as_str()];
        Ok(self.listing(name, self.command()?.arguments(arguments))?.sorted()?)
    }

    fn listing(&self, name: &str, command: Invocation) -> Result<Listing, GitError> {
        let path = self.listing_place(name);
        let file = files::open_file(&path, true)?;
        self.locally(command.write_to(file, LISTING_BYTES_MAX))?;
        Ok(Listing::at(path))
    }

    /// The content of a file that somebody else wrote.
    ///
    /// # Errors
    /// [`GitError`]; being longer than `bytes_max` is none.
    pub fn read_blob(&self, blob: &ObjectId, bytes_max: usize) -> Result<BlobContent, GitError> {
        let command = self.command()?.arguments(["cat-file", "blob", blob.as_str()]).capture(bytes_max);
        let shown = command.to_string();
        match self.run_env.run(command, &mut |_| {}) {
            Err(Failure::TooMuchOutput { .. }) => Ok(BlobContent::Strange("it is too large")),
            finished => successful(&shown, finished.map_err(from_failure)?).map(BlobContent::Whole),
        }
    }

    /// Makes index and tree folder the given tree, and nothing else: files that differ are rewritten, what is too much
    /// goes, ignored files and nested repositories included.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn check_out(&self, tree: Option<&ObjectId>) -> Result<(), GitError> {
        files::create_folder(&self.tree_folder)?;
        #[cfg(unix)]
        files::remove_special_files(&self.tree_folder)?;
        let command = self.command()?.arguments(["read-tree", "--reset", "-u"]);
        self.locally(match tree {
            Some(tree) => command.argument(tree.as_str()),
            None => command.argument(self.empty_tree()?.as_str()),
        })?;
        self.locally(self.command()?.arguments(["clean", "-ffdxq"]))?;
        Ok(())
    }

    /// A tree without any file.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn empty_tree(&self) -> Result<ObjectId, GitError> {
        let empty = self.run_env.run_dir.write("empty", b"")?;
        let command = self.command()?.arguments(["mktree", "-z"]).stdin(File::open(empty)?);
        self.object_id(command)
    }

    /// Takes all that is in the tree folder, whatever ignore files say, and writes it as a tree.
    ///
    /// What is told is what the tree has, not the index: git takes folders that it deems unchanged from a part of the
    /// index that no listing of it shows.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn stage(&self) -> Result<Staged, GitError> {
        self.locally(self.command()?.arguments(["add", "--all", "--force"]))?;
        let tree = self.object_id(self.command()?.arguments(["write-tree"]))?;
        Ok(Staged { files: self.list(&tree, "staged.listing")?, tree })
    }

    /// A tree that is `base` with what `changes` say, in their order. The checkout's own index stays as it is.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn compose(&self, base: Option<&ObjectId>, changes: &Listing) -> Result<ObjectId, GitError> {
        let index = self.run_env.run_dir.path().join("compose.index");
        let start = if let Some(base) = base { base.as_str() } else { "--empty" };
        let command = || Ok::<_, GitError>(self.command()?.environment("GIT_INDEX_FILE", &index));
        self.locally(command()?.arguments(["read-tree", start]))?;
        let changes = File::open(changes.path())?;
        self.locally(command()?.arguments(["update-index", "-z", "--index-info"]).stdin(changes))?;
        self.object_id(command()?.arguments(["write-tree"]))
    }

    /// Where a listing of the run with this name is kept.
    #[must_use]
    pub fn listing_place(&self, name: &str) -> PathBuf {
        self.run_env.run_dir.path().join(name)
    }
}

/// `a/b/c` and all that lead to it: `a`, `a/b`, `a/b/c`.
fn with_ancestors(path: &str) -> Vec<&str> {
    let ends = path.match_indices('/').map(|(index, _)| index).chain([path.len()]);
    ends.map(|end| &path[..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_after_those_above_it() {
        assert_eq!(with_ancestors("a/b/c"), ["a", "a/b", "a/b/c"]);
        assert_eq!(with_ancestors("a"), ["a"]);
    }
}
