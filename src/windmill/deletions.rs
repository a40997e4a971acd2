//! The items that a change deletes.

use std::collections::BTreeMap;
use std::io;

use crate::util::HashedSet;
use crate::windmill::item_path::{Role, covers, locate};
use crate::windmill::{ItemId, Kinds};

/// Fewer deletions than this are never a mass deletion, unless everything is deleted.
const MASS_DELETION_ITEMS_MIN: usize = 10;

/// The effect of a change on the objects that existed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletions {
    /// The number of objects before the change, of the kinds that are covered.
    pub total: usize,
    /// The objects that were deleted and did not reappear elsewhere, in order.
    pub deleted: Vec<ItemId>,
}

impl Deletions {
    /// Whether there are too many deletions: at least 10 and more than this share, or all objects.
    pub fn exceeds(&self, percent_max: u8) -> bool {
        let deleted = self.deleted.len();
        let share_exceeded = deleted.saturating_mul(100) > self.total.saturating_mul(usize::from(percent_max));
        (deleted >= MASS_DELETION_ITEMS_MIN && share_exceeded) || (deleted > 0 && deleted == self.total)
    }
}

/// A file: its path, and its content before and after. The content is an object id of git, or anything else that is
/// equal for equal content.
pub type File<C> = io::Result<(String, [Option<C>; 2])>;

/// Returns the objects that existed before and do not exist after. `files` are all files, in the order of their paths.
/// Memory holds the files that were added or deleted, and only one number for each other object.
///
/// An object exists if one of its main files does (a script's content or metadata, `flow.yaml`, …). Unknown files,
/// which wmill leaves in the folder of a deleted flow, do not prove that the flow exists. A deleted object that
/// reappears elsewhere with the same content was moved. Each new object can stand for only one deleted object.
///
/// # Errors
/// Returns the errors of `files`.
pub fn deletions<C: PartialEq>(files: impl Iterator<Item = File<C>>, kinds: &Kinds) -> io::Result<Deletions> {
    let (mut before, mut after) = (HashedSet::default(), HashedSet::default());
    let (mut lost, mut arrived) = (BTreeMap::<_, Files<C>>::new(), BTreeMap::<_, Files<C>>::new());
    for file in files {
        let (path, contents) = file?;
        let Some(part) = locate(&path).filter(|part| covers(&part.id(), kinds)) else { continue };
        let id = part.id();
        for (existing, content) in [&mut before, &mut after].into_iter().zip(&contents) {
            if part.exists() && content.is_some() {
                existing.insert(&id);
            }
        }
        let (objects, content) = match contents {
            [Some(content), None] => (&mut lost, content),
            [None, Some(content)] => (&mut arrived, content),
            _ => continue,
        };
        objects.entry(id).or_default().push((part.role, part.rest.to_owned(), content));
    }
    lost.retain(|id, _| before.contains(id) && !after.contains(id));
    arrived.retain(|id, _| after.contains(id) && !before.contains(id));
    let mut arrived: Vec<_> = arrived.iter().map(|(id, files)| (id.kind, identity(files))).collect();
    lost.retain(|id, files| {
        let identity = (id.kind, identity(files));
        let same = arrived.iter().position(|other| *other == identity);
        same.map(|index| arrived.swap_remove(index)).is_none()
    });
    Ok(Deletions { total: before.count(), deleted: lost.into_keys().collect() })
}

/// The files of an object, in the order of their paths, as in a tree: so their order does not depend on the path of the
/// object. Each with its role, its name within the object and its content.
type Files<C> = Vec<(Role, String, C)>;

/// Returns the files that two copies of one object at different paths have in common. A file that can contain its own
/// path counts only if there is no other.
fn identity<C>(files: &Files<C>) -> Vec<&(Role, String, C)> {
    let of = |roles: &[Role]| files.iter().filter(|(role, ..)| roles.contains(role)).collect::<Vec<_>>();
    let comparable = of(&[Role::Main, Role::Companion]);
    if comparable.is_empty() { of(&[Role::NamesItself]) } else { comparable }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::windmill::item_path::item_of;
    use crate::windmill::item_path::tests::{DOTTED, NON_DOTTED};

    #[track_caller]
    fn check_deletions(before: &[(&str, &str)], after: &[(&str, &str)], total: usize, deleted: &[&str]) {
        let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (before.iter().copied().collect(), after.iter().copied().collect());
        let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let files = paths
            .into_iter()
            .map(|path| Ok(((*path).to_owned(), [&before, &after].map(|side| side.get(path).copied()))));
        let found = deletions(files, &Kinds::usual()).expect("no error");
        let names: Vec<String> = found.deleted.iter().map(ToString::to_string).collect();
        assert_eq!((found.total, names), (total, deleted.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn an_object_with_several_files_counts_as_one_deletion() {
        let all: Vec<(&str, &str)> = DOTTED.iter().map(|(path, _)| (*path, *path)).collect();
        check_deletions(&all, &all, 28, &[]);
        let without = |gone: &str| {
            let kept = DOTTED.iter().filter(|(_, item)| *item != gone);
            kept.map(|(path, _)| (*path, *path)).collect::<Vec<_>>()
        };
        for item in ["script f/ops/modular", "flow f/ops/nightly", "raw app f/ops/rawy", "resource f/ops/many"] {
            check_deletions(&all, &without(item), 28, &[item]);
        }
        // These kinds are not covered by default.
        check_deletions(&all, &without("settings"), 28, &[]);
        check_deletions(&all, &without("user admin@windmill.dev"), 28, &[]);
    }

    #[test]
    fn a_change_of_layout_or_language_deletes_nothing() {
        let non_dotted: Vec<(&str, &str)> = NON_DOTTED.iter().map(|(path, _)| (*path, "x")).collect();
        let dotted: Vec<(&str, &str)> = DOTTED
            .iter()
            .filter(|(_, item)| item.contains("app ") || item.contains("flow "))
            .map(|(path, _)| (*path, "y"))
            .collect();
        check_deletions(&dotted, &non_dotted, 3, &[]);
        check_deletions(&[("f/a.deno.ts", "1"), ("f/a.script.yaml", "2")], &[("f/a.ts", "1")], 1, &[]);
    }

    #[test]
    fn files_that_wmill_leaves_in_a_folder_do_not_keep_the_object_alive() {
        let notes = ("f/a.flow/README.md", "1");
        check_deletions(&[notes, ("f/a.flow/flow.yaml", "2")], &[notes], 1, &["flow f/a"]);
        check_deletions(&[notes], &[], 0, &[]);
        let lock = ("f/a.script.lock", "1");
        check_deletions(&[lock, ("f/a.py", "2")], &[lock], 1, &["script f/a"]);
        check_deletions(&[("f/a.script.yaml", "1"), ("f/a.py", "2")], &[("f/a.script.yaml", "1")], 1, &[]);
    }

    #[test]
    fn an_object_that_reappears_elsewhere_is_not_deleted() {
        let script = [("f/a.py", "1"), ("f/a.script.yaml", "2"), ("f/a.script.lock", "3")];
        check_deletions(&script, &[("u/b.py", "1"), ("u/b.script.yaml", "4")], 1, &[]);
        check_deletions(&script, &[("u/b.py", "5"), ("u/b.script.yaml", "2")], 1, &["script f/a"]);
        check_deletions(&script, &[("u/b.sh", "1")], 1, &["script f/a"]);
        let flow = [("f/a.flow/flow.yaml", "1"), ("f/a.flow/x.ts", "2")];
        check_deletions(&flow, &[("f/b.flow/flow.yaml", "1"), ("f/b.flow/x.ts", "2")], 1, &[]);
        check_deletions(&flow, &[("f/b.flow/flow.yaml", "1"), ("f/b.flow/x.ts", "3")], 1, &["flow f/a"]);
        let resource = [("f/a.resource.yaml", "1"), ("f/a.resource.file.txt", "2")];
        check_deletions(&resource, &[("f/b.resource.yaml", "3"), ("f/b.resource.file.txt", "2")], 1, &[]);
        check_deletions(&[("f/a.resource.yaml", "1")], &[("f/b.resource.yaml", "1")], 1, &[]);
        check_deletions(&[("f/a.resource.yaml", "1")], &[("f/b.variable.yaml", "1")], 1, &["resource f/a"]);
    }

    #[test]
    fn a_new_object_stands_for_only_one_deleted_object() {
        let two = [("f/a.py", "1"), ("f/b.py", "1")];
        check_deletions(&two, &[("f/c.py", "1")], 2, &["script f/b"]);
        check_deletions(&two, &[("f/c.py", "1"), ("f/d.py", "1")], 2, &[]);
        // An object that existed before is not a new object.
        check_deletions(&two, &[("f/a.py", "1")], 2, &["script f/b"]);
    }

    #[test]
    fn ten_deletions_can_exceed_the_limit_and_all_objects_always_do() {
        let exceeds = |deleted: usize, total: usize, percent: u8| {
            let item = item_of("f/a.py").unwrap();
            Deletions { total, deleted: vec![item; deleted] }.exceeds(percent)
        };
        for (deleted, total, percent, refused) in [
            (10, 20, 50, false),
            (11, 20, 50, true),
            (10, 19, 50, true),
            (9, 9, 50, true),
            (9, 10, 50, false),
            (1, 1, 50, true),
            (0, 0, 50, false),
            (0, 5, 0, false),
            (10, 1000, 0, true),
            (9, 1000, 0, false),
            (99, 100, 100, false),
            (100, 100, 100, true),
        ] {
            assert_eq!(exceeds(deleted, total, percent), refused, "{deleted} of {total} at {percent} %");
        }
    }
}
