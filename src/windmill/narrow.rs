//! Decides which part of a workspace has to be pulled again when only some of its items changed, and checks afterwards
//! that nothing else was touched.
//!
//! A group is everything with the same base path: the entries of the export, the files that `wmill` makes of them, and
//! their lines in `wmill-lock.yaml`. Files that belong together are always in one group. Other files may share a group
//! too, which costs little time and does no harm.

use std::collections::BTreeSet;

use crate::util::{hash, hash_of};
use crate::windmill::item_path::FOLDERS;
use crate::windmill::{DEPENDENCIES, Hash, WMILL_LOCK};

/// If more groups have changed, everything is pulled, so that the ids need little memory.
const CHANGED_MAX: usize = 10_000;

/// The id of a group: the digest of its base path. Two groups with the same id would be pulled together, which does no
/// harm.
type GroupId = [u8; 16];

/// The id of the group of an entry, and the digest of the entry.
pub type Record = [u8; 48];

/// The groups of an export: the sorted records of its entries, 12 MB at most. They are written to the disk unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(Vec<Record>);

/// The groups whose content has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedGroups(BTreeSet<GroupId>);

/// Returns the base path of an entry of the export or of a file in the tree. It ends before the first dot of any
/// segment, or before the ending of a folder that holds the files of one item.
pub fn base_of(path: &str) -> &str {
    let mut start = 0;
    for segment in path.split('/') {
        // `x__flow.y` is cut like the folder `x__flow`. Before its first dot, a name can have only the endings of the
        // layout without dots.
        let name = segment.split('.').next().unwrap_or_default();
        let stem = FOLDERS.iter().find_map(|(ending, ..)| name.strip_suffix(ending));
        if stem.is_some() || name.len() < segment.len() {
            return &path[..start + stem.unwrap_or(name).len()];
        }
        start += segment.len() + 1;
    }
    path
}

/// Returns the record of an entry with this digest. Its group is also that of the files that `wmill` makes of it.
pub fn record(path: &str, digest: &Hash) -> Record {
    let mut record = [0; 48];
    record[..16].copy_from_slice(&group_of(path));
    record[16..].copy_from_slice(digest);
    record
}

fn group_of(path: &str) -> GroupId {
    let mut id = [0; 16];
    id.copy_from_slice(&hash_of(&[base_of(path).as_bytes()])[..16]);
    id
}

impl Groups {
    /// Makes the groups from the records of all entries, in any order.
    pub fn new(mut entries: Vec<Record>) -> Self {
        entries.sort_unstable();
        Self(entries)
    }

    /// Returns the digest of all groups.
    pub fn digest(&self) -> String {
        hash::hex(&hash_of(&[self.as_bytes()]))
    }

    /// Returns the groups as bytes for a file.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// Returns the digest of the group of this entry, or `None` if the export has no entry in it.
    pub fn get(&self, entry: &str) -> Option<Hash> {
        let id = group_of(entry);
        let begin = self.0.partition_point(|record| record[..16] < id[..]);
        let of_group = self.0[begin..].iter().take_while(|record| record.starts_with(&id));
        let entries: Vec<&[u8]> = of_group.map(|record| &record[..]).collect();
        (!entries.is_empty()).then(|| hash_of(&entries))
    }

    /// Returns the groups that differ from those of an earlier export. `earlier` has the bytes of its groups, which
    /// have this digest.
    ///
    /// # Errors
    /// The reason why everything has to be pulled.
    pub fn changed_since(&self, earlier: &[u8], digest: &str) -> Result<ChangedGroups, &'static str> {
        if hash::hex(&hash_of(&[earlier])) != digest {
            return Err("the digests of the items cannot be read");
        }
        let (earlier, _) = earlier.as_chunks::<48>();
        let is_in = |records: &[Record], record: &Record| records.binary_search(record).is_ok();
        let new = self.0.iter().filter(|record| !is_in(earlier, record));
        let gone = earlier.iter().filter(|record| !is_in(&self.0, record));
        let mut changed = BTreeSet::new();
        for record in new.chain(gone) {
            changed.extend(record.first_chunk::<16>());
            if changed.len() > CHANGED_MAX {
                return Err("very many items changed");
            }
        }
        Ok(ChangedGroups(changed))
    }
}

impl ChangedGroups {
    /// Returns the number of groups.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether an entry of the export, or a file in the tree, belongs to one of the groups. A file whose name is not
    /// UTF-8 is not Windmill's.
    pub fn has(&self, path: impl AsRef<[u8]>) -> bool {
        std::str::from_utf8(path.as_ref()).is_ok_and(|path| self.0.contains(&group_of(path)))
    }

    /// Whether a narrowed pull gets this file of the tree. Each such pull gets the file with all hashes, and the files
    /// on which the hashes depend.
    pub fn is_shown(&self, path: &[u8]) -> bool {
        path == WMILL_LOCK.as_bytes() || path.starts_with(DEPENDENCIES.as_bytes()) || self.has(path)
    }
}

/// Checks that a narrowed pull changed no lines of other items in `wmill-lock.yaml`. `before` is the file that the pull
/// got.
///
/// # Errors
/// Returns why the check failed, for the log.
pub fn check_lock(before: &str, after: &str, changed: &ChangedGroups) -> Result<(), &'static str> {
    let (before, after): (BTreeSet<&str>, BTreeSet<&str>) = (before.lines().collect(), after.lines().collect());
    let is_good = before.symmetric_difference(&after).all(|line| is_of_changed(line, changed));
    is_good.then_some(()).ok_or("wmill-lock.yaml changed in lines of other items")
}

/// Whether a line of `wmill-lock.yaml`, such as `  f/ops/job: …`, belongs to an item that is pulled. A long or unusual
/// key takes several lines, which belong to no item. So do the lines of another version of the file.
fn is_of_changed(line: &str, changed: &ChangedGroups) -> bool {
    let Some((key, _)) = line.strip_prefix("  ").and_then(|line| line.split_once(": ")) else {
        return matches!(line, "locks:" | "locks: {}");
    };
    let key = key.trim_matches(['\'', '"']);
    // After a plus sign comes the file within the item.
    changed.has(key.strip_prefix("./").unwrap_or(key).split('+').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_files_of_an_item_have_one_base_path() {
        let check =
            |base: &str, paths: &[&str]| paths.iter().for_each(|path| assert_eq!(base_of(path), base, "{path}"));
        check(
            "f/ops/x",
            &[
                "f/ops/x.ts",
                "f/ops/x.script.json",
                "f/ops/x.script.lock",
                "f/ops/x.pg.sql",
                "f/ops/x__mod/script.yaml",
                "f/ops/x__mod/lib/y.ts",
                "f/ops/x__dbt/models/a.sql",
                "f/ops/x.flow.json",
                "f/ops/x.flow/flow.yaml",
                "f/ops/x__flow/a.inline_script.ts",
                "f/ops/x.raw_app.json",
                "f/ops/x__raw_app/backend/a.yaml",
                "f/ops/x__app/app.yaml",
                "f/ops/x.fileset/a/b.sql",
                "f/ops/x.resource.file.ini",
                "f/ops/x.shop.resource.yaml",
                "f/ops/x.script.77.nextcloud_native_trigger.json",
                "f/ops/x.2.script.json",
                "f/ops/x__flow",
                "f/ops/x",
            ],
        );
        check("f/ops/folder", &["f/ops/folder.meta.json", "f/ops/folder.meta.yaml"]);
        check("f/v1", &["f/v1.2/x.script.json", "f/v1.2/x.py", "f/v1.ts"]);
        check("f/", &["f/.hidden/x.ts", "f/.y"]);
        check("c_ini", &["c_ini.resource-type.json", "c_ini.resource-type.yaml"]);
        check("settings", &["settings.json", "settings.yaml"]);
        check("groups/ops", &["groups/ops.group.json", "groups/ops.group.yaml"]);
        check("f/crm", &["f/crm__app/x.ts", "f/crm__app.x/y"]);
        check("f/ops/x_flow", &["f/ops/x_flow.ts"]);
    }

    fn changed(now: &Groups, before: &Groups) -> Option<ChangedGroups> {
        now.changed_since(before.as_bytes(), &before.digest()).ok()
    }

    fn groups(entries: &[(&str, u8)]) -> Groups {
        Groups::new(entries.iter().map(|(path, digest)| record(path, &[*digest; 32])).collect())
    }

    #[test]
    fn a_group_changes_with_each_of_its_entries() {
        let before = groups(&[("a.ts", 1), ("a.script.json", 2), ("b.ts", 3), ("c.ts", 4)]);
        assert_eq!(groups(&[("c.ts", 4), ("a.script.json", 2), ("b.ts", 3), ("a.ts", 1)]), before, "in another order");
        let check = |now: Groups, paths: &[&str]| {
            let changed = changed(&now, &before).expect("few");
            assert_eq!(changed.count(), paths.len(), "{paths:?}");
            assert!(paths.iter().all(|path| changed.has(path)), "{paths:?}");
            assert_ne!(now.digest(), before.digest());
        };
        check(groups(&[("a.ts", 1), ("a.script.json", 9), ("b.ts", 3), ("c.ts", 4)]), &["a.x"]);
        check(groups(&[("a.ts", 1), ("b.ts", 3), ("c.ts", 4)]), &["a.x"]);
        check(groups(&[("a.ts", 1), ("a.script.json", 2), ("b.ts", 3)]), &["c.x"]);
        check(groups(&[("a.ts", 1), ("a.script.json", 2), ("b.ts", 5), ("d.ts", 4)]), &["b.x", "c.x", "d.x"]);
        let count = |earlier: &Groups| changed(&before, earlier).map(|changed| changed.count());
        assert_eq!((count(&before), count(&Groups::default())), (Some(0), Some(3)));
    }

    #[test]
    fn very_many_changed_groups_are_not_listed() {
        let many = |count: usize| Groups::new((0..count).map(|index| record(&index.to_string(), &[1; 32])).collect());
        let (most, more) = (many(CHANGED_MAX), many(CHANGED_MAX + 1));
        assert_eq!(changed(&most, &Groups::default()).map(|changed| changed.count()), Some(CHANGED_MAX));
        assert_eq!(changed(&more, &Groups::default()), None);
        assert_eq!(changed(&Groups::default(), &more), None);
    }

    #[test]
    fn damaged_groups_are_refused() {
        let groups = groups(&[("a.ts", 1), ("b.ts", 3), ("c.ts", 4)]);
        let (bytes, digest) = (groups.as_bytes(), groups.digest());
        let read = |bytes: &[u8]| groups.changed_since(bytes, &digest);
        assert_eq!(read(bytes), Ok(ChangedGroups::default()));
        let lacking = [&bytes[1..], &bytes[..48], &bytes[..bytes.len() - 1], &[]];
        for damaged in lacking.iter().map(|bytes| bytes.to_vec()).chain([bytes.repeat(2), [bytes, b"x"].concat()]) {
            assert_eq!(read(&damaged), Err("the digests of the items cannot be read"), "{damaged:?}");
        }
    }

    #[test]
    fn lock_lines_of_other_items_may_not_change() {
        let changed =
            changed(&groups(&[("f/ops/a.ts", 1), ("f/ops/n.flow.json", 1)]), &Groups::default()).expect("few");
        let lock = |lines: &[&str]| ["version: v2\nlocks:\n", &lines.concat()].concat();
        let (a, b) = ("  f/ops/a: 1\n", "  f/ops/b: 1\n");
        let before = lock(&[a, b]);
        let check =
            |after: &str, is_good: bool| assert_eq!(check_lock(&before, after, &changed).is_ok(), is_good, "{after}");
        check(&before, true);
        check(&lock(&["  f/ops/a: 2\n", b]), true);
        check(&lock(&[b]), true);
        check(&lock(&[a, b, "  f/ops/n__flow+x.ts: 3\n", "  'f/ops/n.flow+a': 3\n"]), true);
        check(&lock(&[a, "  f/ops/b: 2\n"]), false);
        check(&lock(&[a]), false);
        check(&lock(&[a, b, "  f/ops/c: 2\n"]), false);
        check(&lock(&[a, b, "  ? f/ops/a\n", "  : 2\n"]), false);
        check(&before.replace("v2", "v1"), false);
        let empty = "version: v2\nlocks: {}\n";
        assert!(check_lock(empty, &lock(&["  f/ops/a: 2\n"]), &changed).is_ok());
        assert!(check_lock("", &before, &changed).is_err());
    }
}
