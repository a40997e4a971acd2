//! One workspace at one moment: its export, taken once and kept in the folder of the run, with the answers to the other
//! questions of `wmill`. `wmill` reads exactly the data that is digested, checked and filtered here, because it gets no
//! other data.
//!
//! The export is written to the disk, and read there for each question about its entries. Memory holds only their
//! digests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miniserde::{Deserialize, Serialize, json};

use super::file_names;
use super::json_digest::{self, Event, Hash};
use super::narrow::{self, Groups};
use crate::model::{LeftOut, names};
use crate::util::{Algorithm, Digest, HashedSet, Sample, files, first_chars, hash, hash_of};
use crate::windmill::{DEPENDENCIES, ItemId, ItemKind, Plan, SHARED_UI, item_path, secret_files};

/// A larger export is refused. An export of 10,000 scripts has 20 MB.
const EXPORT_BYTES_MAX: u64 = 4 << 30;
/// More entries are refused, so that their digests in memory take 16 MB at most. A script has two entries.
pub const ENTRIES_MAX: usize = 250_000;
/// If more items must not reach wmill, the export is refused, so that their names in memory take some megabytes at
/// most.
const LEFT_OUT_MAX: usize = 10_000;
/// The most bytes of one read. The buffer of ureq has the same size.
const CHUNK_BYTES: usize = 128 << 10;
/// The longest name of an entry. Windmill's longest path has 255 characters.
const NAME_BYTES_MAX: u64 = 4096;
/// The block size of tar archives.
const BLOCK_BYTES: usize = 512;
/// The most zeros at the end of an archive. Windmill sends 1,024.
const END_BYTES_MAX: u64 = 1 << 20;
/// A larger resource is not searched for plain secrets: it is a file, and not a set of credentials.
const RESOURCE_BYTES_MAX: u64 = 64 << 10;
/// The most characters of a number, or of the name of a file, in a note.
const NOTE_CHARS_MAX: usize = 100;
/// The name of the export in the folder of the snapshot.
const EXPORT_FILE: &str = "export.tar";
/// The name of a part of the export in the folder of the snapshot.
const PART_FILE: &str = "part.tar";

/// The answer to a question that `wmill` asks in addition to the export. `None` if the server has no such endpoint. An
/// answer may have 8 MB, so it is not copied.
pub type Answer = Option<Arc<String>>;

/// The answers to everything that `wmill` asks in addition to the export.
#[derive(Clone, Debug, Default)]
pub struct SideAnswers {
    /// `workspaces/list_ws_specific`
    pub own_items: Answer,
    /// `resources/file_resource_type_to_file_ext_map`
    pub file_types: Answer,
    /// `shared_ui/get`
    pub shared_ui: Answer,
}

/// The digests of a snapshot, to compare it with another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// The digest of what all items share: the answers that were taken with the export, and all entries below
    /// `dependencies/`. A shared UI without files has always the same digest.
    pub shared: String,
    /// The digest of these entries alone.
    pub dependencies: String,
    /// The digest of all groups of items.
    pub groups: String,
}

/// An export with everything that belongs to it.
#[derive(Default)]
pub struct Snapshot {
    folder: PathBuf,
    /// The size of the export as received.
    bytes: u64,
    /// The query with which the export was requested.
    pub query: String,
    /// The answers that were taken with the export. If the shared UI is left out, its answer is that of a server
    /// without this endpoint, so that `wmill` does not touch its files.
    pub sides: SideAnswers,
    /// Whether Windmill has files of a shared UI, also if it is left out.
    pub has_ui_files: bool,
    /// The digests of the snapshot.
    pub digests: Digests,
    /// The digest of each group of items.
    pub groups: Groups,
    /// The items that must not reach wmill, with the reason. A folder stands for all items in it.
    pub left_out: BTreeMap<ItemId, String>,
    /// The number of items, including those that are left out.
    pub items: usize,
    /// The plan of the pull, when it is known.
    plan: Option<Plan>,
    /// The items that are left out because an attempt to pull or push them failed.
    found: BTreeSet<ItemId>,
    /// The items with a whole number that wmill rounds, with that number.
    pub rounded: Sample,
    /// The raw apps and dbt projects with a file that wmill does not write, with that file.
    pub passed_over: Sample,
}

/// An item that an attempt to pull or push has shown to be bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundItem {
    /// `script f/ops/a`
    pub item: String,
    /// Why it is left out.
    pub reason: String,
    /// The digest of the item at that time.
    pub digest: String,
}

/// A tar file to be served.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The path of the file.
    pub path: PathBuf,
    /// The length of the file.
    pub bytes: u64,
}

/// Writes the export to the disk. Returns its length.
fn save(export: impl Read, path: &Path) -> io::Result<u64> {
    let mut file = files::open_file(path, true)?;
    let bytes = io::copy(&mut export.take(EXPORT_BYTES_MAX + 1), &mut file).map_err(|error| {
        io::Error::new(error.kind(), format!("the export cannot be read, or not saved as {}: {error}", path.display()))
    })?;
    if bytes <= EXPORT_BYTES_MAX {
        return Ok(bytes);
    }
    Err(too_large(format!("the export has more than {EXPORT_BYTES_MAX} bytes")))
}

impl Snapshot {
    /// Reads an export to its end, into a file in `folder`, which is created. `query` is the query with which it was
    /// requested.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] if the export exceeds a limit. Any other error means that the export or an
    /// answer is not whole, or that the disk failed.
    pub fn take(export: impl Read, folder: PathBuf, query: &str, sides: SideAnswers) -> io::Result<Self> {
        let own_items = digest_answer(&sides.own_items, b'[', "the list of the workspace's own items", &mut |_, _| {})?;
        let (types, file_types) = types_of(&sides.file_types)?;
        files::create_folder(&folder)?;
        let mut snapshot = Self { folder, query: query.to_owned(), sides, ..Self::default() };
        let shared_ui = snapshot.judge_shared_ui()?;
        snapshot.bytes = save(export, &snapshot.folder.join(EXPORT_FILE))?;
        let dependencies = snapshot.judge_entries(&types)?.digest();
        snapshot.digests = Digests {
            shared: hash::hex(&hash_of(&[&own_items, &file_types, &shared_ui, dependencies.as_bytes()])),
            dependencies,
            groups: snapshot.groups.digest(),
        };
        Ok(snapshot)
    }

    /// Checks the shared UI, and returns its digest. If it must not be written, the digest is made from the reason.
    fn judge_shared_ui(&mut self) -> io::Result<Hash> {
        let mut files = BTreeSet::new();
        let mut children = Children { kind: UI, ..Children::default() };
        let digest = digest_answer(&self.sides.shared_ui, b'{', UI, &mut |path, event| {
            if let ([top, name], Event::Key) = (path, event)
                && top == "files"
            {
                files.insert(name.clone());
            }
            children.take(path, event);
        })?;
        let mut folders = files.iter().flat_map(|name| name.match_indices('/').map(|(slash, _)| &name[..slash]));
        if let Some(name) = folders.find(|folder| files.contains(*folder)) {
            children.add(&format!("the name {} within it is that of a file and of a folder", names::quoted(name)));
        }
        self.has_ui_files = !files.is_empty();
        if let Some(fault) = children.fault {
            self.add_left_out(SHARED_UI, &fault)?;
            self.sides.shared_ui = None;
            return Ok(hash_of(&[fault.as_bytes()]));
        }
        // wmill reads only the files. For a shared UI without files, Windmill returns the time of the question as the
        // time of the last edit.
        let is_empty = self.sides.shared_ui.is_some() && files.is_empty();
        Ok(if is_empty { hash_of(&[b"no files"]) } else { digest })
    }

    /// Checks the entries of the export. Returns those below `dependencies/`.
    fn judge_entries(&mut self, types: &FileTypes) -> io::Result<Groups> {
        let (mut records, mut dependencies) = (Vec::new(), Vec::new());
        let (mut names, mut items) = (HashedSet::default(), HashedSet::default());
        let mut module_folders = BTreeSet::new();
        let folder = self.folder.clone();
        each_entry(&folder, &mut |name, content| {
            if records.len() == ENTRIES_MAX {
                return Err(too_large(format!("the export has more than {ENTRIES_MAX} entries")));
            }
            let item = item_of_entry(&name);
            if item.kind != ItemKind::File {
                items.insert(&item);
            }
            if !names.insert(&name) {
                // wmill would write the last entry, and would not report the others.
                self.add_left_out(item.clone(), "the export has two entries with the name of one file")?;
            }
            let (children, judged) = judge(&name, content, types)?;
            if let Some(ending) = children.modules {
                module_folders.insert(hash_of(&[name.replace(SCRIPT, ending).as_bytes()]));
            }
            let notes =
                [(children.number.as_deref(), &mut self.rounded), (children.file_passed_over(), &mut self.passed_over)];
            for (note, items) in notes {
                let note = note.map(|note| format!("{item} ({})", first_chars(note, NOTE_CHARS_MAX)));
                note.iter().for_each(|note| items.add(note.as_bytes()));
            }
            // The digest of an item that must not be written is made from the reason.
            let digest = judged.or_else(|reason| {
                let item = file_names::dbt_generated_folder(&name).map_or(item, folder_item);
                self.add_left_out(item, &reason).map(|()| hash_of(&[reason.as_bytes()]))
            })?;
            let record = narrow::record(&name, &hash_of(&[&digest, name.as_bytes()]));
            records.push(record);
            if name.starts_with(DEPENDENCIES) {
                dependencies.push(record);
            }
            Ok(())
        })?;
        if !module_folders.is_empty() {
            // All such folders have to be known before.
            each_entry(&folder, &mut |name, _| {
                let Some((folder, _)) = file_names::module_folder(&name) else { return Ok(()) };
                if folder_of_descriptor(&name).is_some() || !module_folders.contains(&hash_of(&[folder.as_bytes()])) {
                    return Ok(());
                }
                self.add_left_out(folder_item(folder), "wmill takes the items in it for modules of a script")
            })?;
        }
        self.items = items.count();
        self.groups = Groups::new(records);
        Ok(Groups::new(dependencies))
    }

    /// Returns the resources with plain values in fields that have names like secrets: `f/ops/db (password)`.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn plain_secrets_of_resources(&self) -> io::Result<Vec<String>> {
        let mut plain = Vec::new();
        each_entry(&self.folder, &mut |name, content| {
            let Some(path) = name.strip_suffix(RESOURCE) else { return Ok(()) };
            let mut start = Vec::new();
            content.take(RESOURCE_BYTES_MAX).read_to_end(&mut start)?;
            let fields = secret_files::plain_secret_fields(&start);
            if !fields.is_empty() {
                plain.push(format!("{path} ({})", fields.join(", ")));
            }
            Ok(())
        })?;
        Ok(plain)
    }

    /// Returns the items that are left out as a list for the result: the path of each item, and its kind with the
    /// reason. Items that a sync skips by their kind or by a pattern are not in the list.
    pub fn left_out_list(&self) -> Vec<LeftOut> {
        let is_skipped = |item: &ItemId| self.plan.as_ref().is_some_and(|plan| plan.keeps_out(item));
        let listed = |(item, reason): (&ItemId, &String)| match item {
            ItemId { kind, path } if !path.is_empty() && *kind != ItemKind::File => {
                LeftOut { item: path.clone(), reason: format!("{kind}: {reason}") }
            }
            item => LeftOut { item: item.to_string(), reason: reason.clone() },
        };
        self.left_out.iter().filter(|(item, _)| !is_skipped(item)).map(listed).collect()
    }

    /// Whether there are files in the shared UI that `wmill` gets. `None` if the server has no shared UI, or if it is
    /// left out.
    pub fn has_shared_ui(&self) -> Option<bool> {
        self.sides.shared_ui.as_ref().map(|_| self.has_ui_files)
    }

    fn add_left_out(&mut self, item: ItemId, reason: &str) -> io::Result<()> {
        self.left_out.entry(item).or_insert_with(|| reason.to_owned());
        if self.left_out.len() <= LEFT_OUT_MAX {
            return Ok(());
        }
        Err(too_large(format!("more than {LEFT_OUT_MAX} items of the export cannot be backed up")))
    }

    /// Leaves out an item, because an attempt to pull or push has shown that it is bad.
    pub fn leave_out(&mut self, item: &ItemId, reason: &str) {
        self.left_out.entry(item.clone()).or_insert_with(|| reason.to_owned());
        self.found.insert(item.clone());
        if item.kind == ItemKind::SharedUi {
            self.sides.shared_ui = None;
        }
    }

    /// Whether the item of a file or an entry is left out, or a folder around it.
    pub fn leaves_out(&self, item: &ItemId, path: &str) -> bool {
        let mut folders = path.match_indices('/').map(|(slash, _)| folder_item(&path[..slash]));
        !self.left_out.is_empty()
            && (self.left_out.contains_key(item) || folders.any(|folder| self.left_out.contains_key(&folder)))
    }

    fn is_left_out(&self, entry: &str) -> bool {
        self.leaves_out(&item_of_entry(entry), folder_of_descriptor(entry).unwrap_or(entry))
    }

    /// Returns the items that an attempt to pull or push has shown to be bad, with their digests of now.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn found(&self) -> io::Result<Vec<FoundItem>> {
        let now = self.digests_of(self.found.iter().map(ToString::to_string))?;
        let found = now.into_iter().filter_map(|(name, (item, digest))| {
            Some(FoundItem { item: name, reason: self.left_out.get(&item)?.clone(), digest })
        });
        Ok(found.collect())
    }

    /// Leaves out the items that an earlier attempt has shown to be bad, if they have not changed since.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn leave_out_again(&mut self, found: &[FoundItem]) -> io::Result<()> {
        for (item, FoundItem { reason, .. }) in self.unchanged(found)? {
            self.leave_out(&item, reason);
        }
        Ok(())
    }

    /// Returns the items that have not changed since.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn unchanged<'a>(&self, found: &'a [FoundItem]) -> io::Result<Vec<(ItemId, &'a FoundItem)>> {
        let now = self.digests_of(found.iter().map(|found| found.item.clone()))?;
        let unchanged = found.iter().filter_map(|found| {
            let (item, _) = now.get(&found.item).filter(|(_, digest)| *digest == found.digest)?;
            Some((item.clone(), found))
        });
        Ok(unchanged.collect())
    }

    /// Applies the plan of the pull. Items that it skips are not listed as left out. If folders of flows and apps have
    /// endings without a dot, other folders with such endings are left out, because `wmill` treats them as flows and
    /// apps.
    ///
    /// # Errors
    /// Returns the error of the disk, or that too many folders are left out.
    pub fn judge_by(&mut self, plan: &Plan) -> io::Result<()> {
        self.plan = Some(plan.clone());
        if !plan.non_dotted_paths {
            return Ok(());
        }
        each_entry(&self.folder.clone(), &mut |name, _| match item_path::folder_of_layout(&name, true) {
            Some(folder) => {
                self.add_left_out(folder_item(folder), "wmill takes the folder for that of a flow or an app")
            }
            None => Ok(()),
        })
    }

    /// Returns the items that `wmill` gets, without what is below `dependencies/`, in order.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn item_ids(&self) -> io::Result<Vec<ItemId>> {
        Ok(self.items_with(|name| !name.starts_with(DEPENDENCIES))?.into_iter().collect())
    }

    /// Returns the items that `wmill` gets and that have such an entry.
    fn items_with(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<BTreeSet<ItemId>> {
        let mut items = BTreeSet::new();
        each_entry(&self.folder, &mut |name, _| {
            if !self.is_left_out(&name) && is_wanted(&name) {
                items.insert(item_of_entry(&name));
            }
            Ok(())
        })?;
        Ok(items)
    }

    /// Returns the items of the export with these names. The digest of an item is the digest of its group.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn digests_of(&self, names: impl Iterator<Item = String>) -> io::Result<BTreeMap<String, (ItemId, String)>> {
        let (names, mut digests) = (names.collect::<BTreeSet<_>>(), BTreeMap::new());
        if names.is_empty() {
            return Ok(digests);
        }
        if names.contains(&SHARED_UI.to_string()) {
            digests.insert(SHARED_UI.to_string(), (SHARED_UI, self.digests.shared.clone()));
        }
        each_entry(&self.folder, &mut |entry, _| {
            let item = item_of_entry(&entry);
            let name = item.to_string();
            if names.contains(&name) && !digests.contains_key(&name) {
                let digest = self.groups.get(&entry);
                digests.extend(digest.map(|digest| (name, (item, hash::hex(&digest)))));
            }
            Ok(())
        })?;
        Ok(digests)
    }

    /// Leaves out the items that wmill should have written and did not. Returns whether there are any. If more than
    /// half of all items are missing, single items are not the cause. The pull is then used unchanged, and the guards
    /// check it.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn leave_out_missing(&mut self, written: &WrittenFiles, plan: &Plan) -> io::Result<bool> {
        let missing = self.items_with(|name| !written.has_entry(name, plan))?;
        if missing.len() * 2 > self.items {
            log::warn!("wmill did not write most of the items");
            return Ok(false);
        }
        for item in &missing {
            let reason = "wmill does not write it, and prints no error";
            log::warn!("{item} is left out: {reason}");
            self.leave_out(item, reason);
        }
        Ok(!missing.is_empty())
    }

    /// Returns an archive with everything except the items that are left out.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn whole(&self) -> io::Result<Archive> {
        if self.left_out.is_empty() {
            return Ok(Archive { path: self.folder.join(EXPORT_FILE), bytes: self.bytes });
        }
        self.part(|_| true)
    }

    /// Makes an archive with the entries that are wanted, except the items that are left out, and all of
    /// `dependencies/`. It replaces an earlier part.
    ///
    /// # Errors
    /// Returns the error of the disk.
    pub fn part(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<Archive> {
        let path = self.folder.join(PART_FILE);
        let mut part = tar::Builder::new(files::open_file(&path, true)?);
        each_entry(&self.folder, &mut |name, entry| {
            if self.is_left_out(&name) || !(name.starts_with(DEPENDENCIES) || is_wanted(&name)) {
                return Ok(());
            }
            let mut header = entry.header().clone();
            part.append_data(&mut header, &name, entry)
        })?;
        let bytes = part.into_inner()?.metadata()?.len();
        Ok(Archive { path, bytes })
    }
}

/// The files that a pull left in its folder.
#[derive(Default)]
pub struct WrittenFiles(HashedSet);

impl WrittenFiles {
    /// Adds a file, and the item that it belongs to. The name of the workspace is part of the names of its own items.
    pub fn add(&mut self, path: &str, workspace: &str) {
        let common = item_path::common_path(path, workspace);
        let path = common.as_deref().unwrap_or(path);
        self.0.insert(path);
        if let Some(item) = item_path::item_of(path).filter(|_| item_path::proves_existence(path)) {
            self.0.insert(item);
        }
    }

    /// Whether wmill wrote the main file of an entry, or should not have written it. If that is not certain, it should
    /// not have.
    fn has_entry(&self, entry: &str, plan: &Plan) -> bool {
        let main = item_path::file_of_entry(entry, plan.non_dotted_paths);
        let is_written = |path: &str| !plan.scope.takes_in(path) || self.0.contains(path);
        if file_names::module_folder(entry).is_some() || is_written(&main) {
            return true;
        }
        if entry == main {
            // The content of a script, also in a language that is not known here. If the script has modules, the
            // content lies in their folder.
            let base = narrow::base_of(entry);
            return !["f/", "u/"].iter().any(|top| entry.starts_with(top))
                || !plan.kinds.has("scripts")
                || is_written(&[base, "__mod/script", &entry[base.len()..]].concat());
        }
        let Some(item) = item_path::item_of(&main).filter(|_| item_path::proves_existence(&main)) else { return true };
        let is_uncertain = matches!(item.kind, ItemKind::User | ItemKind::Group | ItemKind::Settings | ItemKind::Key)
            || (item.kind == ItemKind::Variable && !plan.kinds.has("secrets"));
        is_uncertain || !item_path::covers(&item, &plan.kinds) || self.0.contains(item)
    }
}

/// Returns the folder of the script if the entry is the descriptor of a dbt project, which Windmill puts there.
fn folder_of_descriptor(entry: &str) -> Option<&str> {
    let (folder, file) = file_names::module_folder(entry)?;
    (file == "wm_dbt.yaml" && folder.ends_with(file_names::DBT)).then_some(folder)
}

fn folder_item(path: &str) -> ItemId {
    ItemId { kind: ItemKind::Folder, path: path.to_owned() }
}

/// Returns the item of an entry of the export: `script f/ops/a`, `flow f/ops/b`. If the entry belongs to no item, this
/// is the entry itself.
pub fn item_of_entry(name: &str) -> ItemId {
    let item = match item_path::folder_of_entry(name) {
        Some((kind, path)) => Some(ItemId { kind, path: path.to_owned() }),
        None => item_path::item_of(&item_path::file_of_entry(name, false)),
    };
    item.unwrap_or_else(|| ItemId { kind: ItemKind::File, path: name.to_owned() })
}

/// A function that gets the name of an entry, and the entry.
type EntryVisitor<'v> = dyn FnMut(String, &mut tar::Entry<'_, BufReader<File>>) -> io::Result<()> + 'v;

/// Passes the entries of the export in the folder of a snapshot to `visit`, in its order. Without its end, an archive
/// that was cut after an entry would count as the whole workspace.
fn each_entry(folder: &Path, visit: &mut EntryVisitor<'_>) -> io::Result<()> {
    let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let export = BufReader::with_capacity(CHUNK_BYTES, File::open(folder.join(EXPORT_FILE))?);
    let mut archive = tar::Archive::new(export);
    // A long name has an entry of its own before the entry that it names.
    let mut long_name: Option<Vec<u8>> = None;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            let mut name = Vec::new();
            entry.take(NAME_BYTES_MAX + 1).read_to_end(&mut name)?;
            if name.len() as u64 > NAME_BYTES_MAX || long_name.is_some() {
                return Err(strange("a name in the export is too long"));
            }
            name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
            long_name = Some(name);
            continue;
        }
        if !kind.is_file() {
            return Err(strange("the export has an entry that is not a file"));
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let name = String::from_utf8(name).map_err(|_| strange("a name in the export is not UTF-8"))?;
        visit(name, &mut entry)?;
    }
    // The end is two blocks of zeros, of which the archive has taken the first. More zeros may follow.
    let mut end = Vec::new();
    archive.into_inner().take(END_BYTES_MAX).read_to_end(&mut end)?;
    let is_end = (BLOCK_BYTES..END_BYTES_MAX as usize).contains(&end.len()) && end.iter().all(|byte| *byte == 0);
    if is_end { Ok(()) } else { Err(strange("the export has no end")) }
}

/// Checks an entry. Returns what is in it, and the digest of its content, or the reason why it must not be written.
///
/// # Errors
/// Returns the error of the disk.
fn judge(name: &str, content: &mut dyn Read, types: &FileTypes) -> io::Result<(Children, Result<Hash, String>)> {
    let kind = [SCRIPT, FLOW, RAW_APP, RESOURCE].into_iter().find(|kind| name.ends_with(kind)).unwrap_or_default();
    let mut children = Children { kind, ..Children::default() };
    let judged = if let Some(fault) = file_names::fault_of_entry(name) {
        Err(format!("its name {} {fault}", names::quoted(name)))
    } else if file_names::dbt_generated_folder(name).is_some() {
        Err("wmill takes the folder for one that dbt generates".to_owned())
    } else if name.ends_with(".json") && !name.starts_with(DEPENDENCIES) {
        // wmill parses all of these as JSON.
        let digest = json_digest::digest(&mut BufReader::new(content), &mut |path, event| children.take(path, event));
        match digest {
            Ok(digest) => children.fault(name, types).map_or(Ok(digest), Err),
            Err(why) if why.kind() == io::ErrorKind::InvalidData => Err(format!("its JSON cannot be read: {why}")),
            Err(error) => return Err(error),
        }
    } else {
        Ok(digest_of_bytes(content)?)
    };
    Ok((children, judged))
}

fn digest_of_bytes(content: &mut dyn Read) -> io::Result<Hash> {
    let (mut digest, mut chunk) = (Digest::new(Algorithm::Sha256), [0; 16 << 10]);
    while let length @ 1.. = content.read(&mut chunk)? {
        digest.update(&chunk[..length]);
    }
    Ok(digest.finish_bytes())
}

/// Checks the files that wmill makes of an item, whose names are in the item, and its numbers.
#[derive(Default)]
struct Children {
    /// The ending of the entry's name, [`UI`], or an empty text if items of the kind have no files of their own.
    kind: &'static str,
    resource_type: String,
    /// Whether the item's value is an object or an array.
    has_value: bool,
    /// The ending of the folder with the script's modules, if it has any.
    modules: Option<&'static str>,
    /// The first file that wmill does not write.
    passed_over: Option<String>,
    /// Why the first bad file must not or cannot be written. For a resource, this applies if the resource is a fileset.
    fault: Option<String>,
    /// Why the content cannot be written, for a resource that is a file.
    fault_of_content: Option<&'static str>,
    /// The first number that wmill would change.
    number: Option<String>,
}

const SCRIPT: &str = ".script.json";
const FLOW: &str = ".flow.json";
const RAW_APP: &str = ".raw_app.json";
const RESOURCE: &str = ".resource.json";
const UI: &str = "the shared UI";

const NOT_A_TEXT: &str = "the content of a file within it is not a text";
const NO_FILES: &str = "its resource type is a fileset, but its value is not a set of texts";

impl Children {
    /// Checks an event at a path within the item.
    fn take(&mut self, path: &[String], event: Event<'_>) {
        if let Event::Word(word) = event
            && self.number.is_none()
            && !is_exact(word)
        {
            self.number = Some(word.to_owned());
        }
        // A path that has a meaning here has at most three keys, or only its last two keys matter.
        let path: Vec<&str> = path[path.len().saturating_sub(4)..].iter().map(String::as_str).collect();
        match (self.kind, &path[..], event) {
            (SCRIPT, ["modules", file], Event::Key) => {
                let is_dbt = *file == "dbt_project.yml" || self.modules == Some(file_names::DBT);
                self.modules = Some(if is_dbt { file_names::DBT } else { file_names::MODULES });
                self.check_name(file, file_names::is_not_of_dbt);
            }
            (FLOW, [.., "value", "content"], Event::Text(text)) if text.starts_with("!inline ") => {
                self.add("the content of a step is a reference to a file, and no script");
            }
            // Names of these files begin with a slash.
            (RAW_APP, ["value", "files", file], Event::Key) => {
                self.check_name(file.strip_prefix('/').unwrap_or(file), file_names::is_not_of_raw_app);
            }
            (RAW_APP, ["value", "runnables", name], Event::Key) => {
                self.check_name(&[name, ".yaml"].concat(), |_| false);
            }
            (UI, ["files", file], Event::Key) => self.check_ui_name(file),
            (RESOURCE, ["value", file], Event::Key) => self.check_name(file, |_| false),
            (SCRIPT, ["modules", file, "content"], Event::Text(text))
            | (RAW_APP, ["value", "files", file], Event::Text(text))
            | (UI, ["files", file], Event::Text(text))
            | (RESOURCE, ["value", file], Event::Text(text)) => {
                if let Some(fault) = file_names::fault_of_content(file, text) {
                    self.add(&format!("a file within it {fault}"));
                }
            }
            (RAW_APP, ["value", "files", file], _) if !file_names::is_generated_in_raw_app(file) => {
                self.add(NOT_A_TEXT);
            }
            (RESOURCE, ["resource_type"], Event::Text(text)) => text.clone_into(&mut self.resource_type),
            (RESOURCE, ["value"], Event::Open) => self.has_value = true,
            (RESOURCE, ["value"], Event::Word("null") | Event::Key) => {}
            (RESOURCE, ["value"], _) => self.add(NO_FILES),
            (RESOURCE, ["value", file], _) => {
                self.add(NOT_A_TEXT);
                if *file == "content" {
                    self.fault_of_content = Some("it is a file, and its content is not a text");
                }
            }
            _ => {}
        }
    }

    /// Checks the path of a file in the item's folder.
    fn check_name(&mut self, path: &str, is_passed_over: fn(&str) -> bool) {
        if let Some(fault) = file_names::fault_of_path(path) {
            self.add(&format!("the name {} within it {fault}", names::quoted(path)));
        }
        if self.passed_over.is_none() && is_passed_over(path) {
            self.passed_over = Some(path.to_owned());
        }
    }

    fn check_ui_name(&mut self, file: &str) {
        self.check_name(file, |_| false);
        // wmill makes a path from the name by its own rules, so only a plain path is accepted.
        let is_special = |char: char| char == '\\' || char.is_control();
        if file.contains(is_special) || file.split('/').any(|part| matches!(part, "" | ".")) {
            self.add(&format!("the name {} within it is not a plain path", names::quoted(file)));
        }
    }

    fn add(&mut self, fault: &str) {
        self.fault.get_or_insert_with(|| fault.to_owned());
    }

    /// Returns the first file that wmill does not write. In a script, such files are only those of a dbt project.
    fn file_passed_over(&self) -> Option<&str> {
        let applies = self.kind == RAW_APP || self.modules == Some(file_names::DBT);
        self.passed_over.as_deref().filter(|_| applies)
    }

    /// Returns why the item's files must not or cannot be written.
    fn fault(&mut self, name: &str, types: &FileTypes) -> Option<String> {
        if file_names::is_like_a_workspace_file(name) && self.modules != Some(file_names::MODULES) {
            return Some("wmill takes an item of this name for the workspace's own settings or key".to_owned());
        }
        if self.kind != RESOURCE {
            return self.fault.take();
        }
        let FileType { ending, is_fileset } = types.get(&self.resource_type)?;
        let kind = names::quoted(&self.resource_type);
        if ending.contains('/') || file_names::fault_of_path(&["x.", ending].concat()).is_some() {
            Some(format!("the file ending of its type {kind} leads elsewhere"))
        } else if *is_fileset {
            self.fault.take()
        } else if ending.contains('.') {
            // wmill does not know a file with such a name.
            Some(format!("the file ending of its type {kind} has a dot, and wmill writes no such file"))
        } else if ending.is_empty() {
            None
        } else if !self.has_value {
            Some(format!("it is of the type {kind}, which is a file, and has no value"))
        } else {
            self.fault_of_content.map(str::to_owned)
        }
    }
}

/// Whether wmill keeps a whole number as it is. wmill reads numbers as JavaScript does.
fn is_exact(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    !digits.bytes().all(|byte| byte.is_ascii_digit())
        || (digits.len() < EXPONENT_DIGITS && word.parse::<f64>().is_ok_and(|read| read.to_string() == word))
}

/// JavaScript writes numbers with this many digits with an exponent.
const EXPONENT_DIGITS: usize = 22;

/// The resource types whose resources become files.
type FileTypes = BTreeMap<String, FileType>;

/// The files that wmill makes of a resource of a type.
#[derive(Default)]
struct FileType {
    /// The ending of the one file that it becomes; empty if it becomes none.
    ending: String,
    /// Whether it becomes many files.
    is_fileset: bool,
}

/// Returns the resource types that become files, and the digest of the answer.
fn types_of(answer: &Answer) -> io::Result<(FileTypes, Hash)> {
    let mut types = FileTypes::new();
    let digest = digest_answer(answer, b'{', "the map of file endings", &mut |path, event| {
        let [name, field @ ..] = path else { return };
        let of_type = types.entry(name.clone()).or_default();
        match (field, event) {
            ([], Event::Text(ending)) => ending.clone_into(&mut of_type.ending),
            ([field], Event::Text(ending)) if field == "format_extension" => ending.clone_into(&mut of_type.ending),
            ([field], Event::Word("true")) if field == "is_fileset" => of_type.is_fileset = true,
            _ => {}
        }
    })?;
    Ok((types, digest))
}

/// Reads an answer, which is an object if `begins` is a brace, and returns its digest, or zeros if there is no answer.
/// An answer of another form is an error, because it would make wmill delete files and exit with 0.
fn digest_answer(answer: &Answer, begins: u8, what: &str, visitor: &mut json_digest::Visitor<'_>) -> io::Result<Hash> {
    let Some(body) = answer else { return Ok([0; 32]) };
    let strange = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is malformed: {why}"));
    if body.trim_ascii_start().as_bytes().first() != Some(&begins) {
        return Err(strange("it is something else"));
    }
    json_digest::digest(&mut body.as_bytes(), visitor).map_err(|error| strange(&error.to_string()))
}

#[derive(Deserialize)]
struct OwnItem {
    item_kind: Option<String>,
    path: Option<String>,
}

impl SideAnswers {
    /// Returns kind and path of the items that only this workspace has.
    pub fn own_items(&self) -> Vec<(String, String)> {
        let listed: Option<Vec<OwnItem>> = self.own_items.as_ref().and_then(|body| json::from_str(body).ok());
        listed.unwrap_or_default().into_iter().filter_map(|item| item.item_kind.zip(item.path)).collect()
    }
}

fn too_large(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windmill::{ChangedGroups, KindSettings, wmill_yaml};

    /// Makes a tar file as Windmill does.
    fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // `append_data` refuses names that lead elsewhere.
            if name.len() < 100 {
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                builder.append(&header, content.as_bytes()).expect("memory");
            } else {
                builder.append_data(&mut header, name, content.as_bytes()).expect("memory");
            }
        }
        builder.into_inner().expect("memory")
    }

    fn answer(body: &str) -> Answer {
        Some(Arc::new(body.to_owned()))
    }

    fn sides() -> SideAnswers {
        SideAnswers {
            own_items: answer(r#"[{"item_kind":"variable","path":"f/a"},{"path":"f/b","item_kind":"resource"}]"#),
            file_types: answer(
                r#"{"ini":{"format_extension":"ini","is_fileset":false},"bad":{"format_extension":"a/../b"},
                    "dots":{"format_extension":"tar.gz"},
                    "set":{"format_extension":null,"is_fileset":true}}"#,
            ),
            shared_ui: answer(r#"{"files":{},"version":0,"edited_at":"2026-11-28T19:46:14Z","edited_by":""}"#),
        }
    }

    fn take(test: &str, export: &[u8], sides: SideAnswers) -> io::Result<Snapshot> {
        let run = files::RunDir::for_test(test).expect("a folder");
        let folder = run.path().join("snapshot");
        let taken = Snapshot::take(export, folder, "a=b", sides);
        // The test uses the folder. The next folder with this name replaces it.
        std::mem::forget(run);
        taken
    }

    fn taken(test: &str, entries: &[(&str, &str)]) -> Snapshot {
        take(test, &tar_of(entries), sides()).unwrap_or_else(|error| panic!("{test}: {error:?}"))
    }

    fn names(archive: &Archive) -> Vec<String> {
        assert_eq!(std::fs::metadata(&archive.path).expect("a file").len(), archive.bytes);
        let mut archive = tar::Archive::new(File::open(&archive.path).expect("a file"));
        let entries = archive.entries().expect("entries");
        entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect()
    }

    const ENTRIES: [(&str, &str); 5] = [
        ("f/a.script.json", r#"{"summary":"","modules":{"x.ts":{"content":"1"},"y.ts":{"content":"2"}}}"#),
        ("f/a.ts", "code"),
        ("f/b.resource.json", r#"{"value":{"x":1},"resource_type":"any"}"#),
        ("dependencies/package.json", "{not json"),
        ("groups/all.group.json", "{}"),
    ];

    #[test]
    fn a_left_out_item_is_listed_with_its_kind_before_the_reason() {
        let mut snapshot = taken("listed", &ENTRIES);
        let check = |snapshot: &mut Snapshot, entry: &str, item: &str, reason: &str| {
            snapshot.leave_out(&item_of_entry(entry), "r");
            let listed = LeftOut { item: item.to_owned(), reason: reason.to_owned() };
            assert!(snapshot.left_out_list().contains(&listed), "{entry}: {:?}", snapshot.left_out_list());
        };
        check(&mut snapshot, "f/a b.script.json", "f/a b", "script: r");
        check(&mut snapshot, "f/ui.raw_app.json", "f/ui", "raw app: r");
        check(&mut snapshot, "f/a.http_trigger.json", "f/a", "http trigger: r");
        check(&mut snapshot, "dependencies/package.json", "package.json", "workspace dependencies: r");
        check(&mut snapshot, "encryption_key.json", "encryption key", "r");
        check(&mut snapshot, "f/my ops/folder.meta.json", "f/my ops/folder.meta.json", "r");
        snapshot.leave_out(&SHARED_UI, "r");
        assert_eq!(snapshot.left_out_list().last().expect("one").reason, "r");
    }

    #[test]
    fn each_value_changes_the_digests_and_the_order_does_not() {
        let before = taken("order", &ENTRIES);
        let mut entries = ENTRIES;
        entries.reverse();
        entries[4].1 = r#"{"modules":{"y.ts":{"content":"2"},"x.ts":{"content":"1"}},"summary":""}"#;
        assert_eq!(taken("order", &entries).digests, before.digests);
        for (index, content) in [
            (0, r#"{"summary":"","modules":{"x.ts":{"content":"1"}}}"#),
            (1, "codE"),
            (2, "{}"),
            (3, "{not json "),
            (4, "[]"),
        ] {
            let mut entries = ENTRIES;
            entries[index].1 = content;
            assert_ne!(taken("order", &entries).digests, before.digests, "{content}");
        }
        assert_ne!(taken("order", &ENTRIES[1..]).digests, before.digests);
        let renamed = [("f/a.script.json", ENTRIES[0].1), ("f/a.js", "code"), ENTRIES[2], ENTRIES[3], ENTRIES[4]];
        assert_ne!(taken("order", &renamed).digests, before.digests);
    }

    #[test]
    fn answers_change_the_digests_except_that_of_an_empty_shared_ui() {
        let of = |sides: SideAnswers| take("sides", &tar_of(&ENTRIES), sides).expect("a snapshot").digests;
        let before = of(sides());
        let ui = |body: &str| of(SideAnswers { shared_ui: answer(body), ..sides() });
        assert_eq!(ui(r#"{"edited_at":"2027","edited_by":"","files":{},"version":0}"#), before);
        assert_eq!(ui(r#"{"edited_at":"2027","edited_by":"","files":{},"version":1}"#), before);
        let with =
            |files: &str, time: &str| ui(&format!(r#"{{"files":{{{files}}},"version":1,"edited_at":"{time}"}}"#));
        assert_eq!(with(r#""a":"1","b":"2""#, "t"), with(r#""b":"2","a":"1""#, "t"));
        assert_ne!(with(r#""a":"1""#, "t"), with(r#""a":"1""#, "u"));
        assert_ne!(with(r#""a":"1""#, "t"), with(r#""a":"2""#, "t"));
        assert_ne!(of(SideAnswers { shared_ui: None, ..sides() }), before);
        assert_ne!(of(SideAnswers { own_items: None, ..sides() }), before);
        assert_ne!(of(SideAnswers { file_types: answer("{}"), ..sides() }), before);
        assert_eq!(
            sides().own_items(),
            [("variable", "f/a"), ("resource", "f/b")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        let has_ui = |shared_ui: Answer| {
            take("sides", &tar_of(&ENTRIES), SideAnswers { shared_ui, ..sides() }).expect("a snapshot").has_shared_ui()
        };
        assert_eq!(has_ui(sides().shared_ui), Some(false));
        assert_eq!(has_ui(answer(r#"{"files":{"a":"b"}}"#)), Some(true));
        assert_eq!(has_ui(None), None);
        for strange in ["", "[]", "<html>", "{"] {
            let sides = SideAnswers { shared_ui: answer(strange), ..sides() };
            assert!(
                matches!(take("sides", &tar_of(&ENTRIES), sides), Err(error) if error.kind() == io::ErrorKind::InvalidInput),
                "{strange}"
            );
        }
    }

    #[test]
    fn an_export_without_its_end_is_refused() {
        let whole = tar_of(&ENTRIES);
        taken("cut", &ENTRIES);
        let longer = [&whole[..], &[0; 4096]].concat();
        assert_eq!(
            take("cut", &longer, sides()).expect("zeros after the end").whole().expect("a file").bytes,
            longer.len() as u64
        );
        for end in (0..whole.len()).step_by(256) {
            let cut = take("cut", &whole[..end], sides());
            assert!(cut.is_err_and(|error| error.kind() != io::ErrorKind::FileTooLarge), "{end} of {}", whole.len());
        }
        for strange in [&b"<html>"[..], &[b'x'; 2048], &[b"{}", &[0; 2048][..]].concat()] {
            assert!(take("cut", strange, sides()).is_err());
        }
        // Zeros in the content of an item are not the end of the archive.
        let zeros = "\0".repeat(4096);
        let archive = tar_of(&[("f/a.sh", &zeros)]);
        assert!(take("cut", &archive, sides()).is_ok());
        assert!(take("cut", &archive[..archive.len() - 1024], sides()).is_err());
        let behind = [&whole[..], b"x"].concat();
        assert!(take("cut", &behind, sides()).is_err());
        assert_eq!(names(&taken("cut", &[]).whole().expect("a file")), [""; 0]);
    }

    #[test]
    fn an_item_with_two_entries_of_one_name_is_left_out() {
        let twice = |content| [&ENTRIES[..], &[("f/a.ts", content), ("dependencies/package.json", "")]].concat();
        let snapshot = taken("twice", &twice("code"));
        let left_out: Vec<_> = snapshot.left_out.keys().map(ToString::to_string).collect();
        assert_eq!(left_out, ["script f/a", "workspace dependencies package.json"]);
        assert_eq!(names(&snapshot.whole().expect("a file")), ["f/b.resource.json", "groups/all.group.json"]);
        assert_eq!(taken("twice", &twice("code")).digests, snapshot.digests);
        assert_ne!(taken("twice", &twice("codE")).digests, snapshot.digests);
        assert_ne!(taken("twice", &ENTRIES).digests, snapshot.digests);
    }

    #[test]
    fn items_with_unsafe_names_of_files_are_left_out() {
        let check = |name: &str, content: &str, item: &str| {
            let snapshot = taken("judged", &[ENTRIES[0], (name, content), ENTRIES[1]]);
            let left_out: Vec<_> = snapshot.left_out.keys().map(ToString::to_string).collect();
            assert_eq!(left_out, if item.is_empty() { vec![] } else { vec![item] }, "{name} {content}");
            let whole = names(&snapshot.whole().expect("a file"));
            assert_eq!(whole.len(), if item.is_empty() { 3 } else { 2 }, "{whole:?}");
        };
        check("groups/../f/a.group.json", "{}", "groups/../f/a.group.json");
        check("/etc/x.ts", "", "/etc/x.ts");
        check("..x.resource-type.json", "{}", "");
        check("../x.resource-type.json", "{}", "../x.resource-type.json");
        check("f/m.script.json", r#"{"modules":{"../../g/x.ts":{}}}"#, "script f/m");
        check("f/m.script.json", r#"{"modules":{"\u002e\u002e/x.ts":{}}}"#, "script f/m");
        check("f/m.script.json", r#"{"modules":{"\u002e\u002e/x\ud800.ts":{}}}"#, "script f/m");
        check("f/m.script.json", r#"{"schema":{"modules":{"../x.ts":{}}}}"#, "");
        check("f/m.script.json", "{", "script f/m");
        check("f/s.resource.json", r#"{"value":{"../x":""},"resource_type":"set"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"value":{"../x":""},"resource_type":"ini"}"#, "");
        check("f/s.resource.json", r#"{"value":{"x":""},"resource_type":"bad"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"value":{"../x":""},"resource_type":"any"}"#, "");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/../x":""}}}"#, "raw app f/r");
        check("f/r.raw_app.json", r#"{"value":{"runnables":{"a":{"..":1}}}}"#, "");
        check("f/r.raw_app.json", r#"{"value":{"runnables":{"../a":{}}}}"#, "raw app f/r");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/x":"","//y":""}}}"#, "raw app f/r");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/x":{"a":"b"}}}}"#, "raw app f/r");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/x":null}}}"#, "raw app f/r");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/x":"","/AGENTS.md":null}},"policy":{"files":{"x":1}}}"#, "");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/.gitmodules":"[broken"}}}"#, "raw app f/r");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/.gitmodules":"[submodule \"a\"]\n"}}}"#, "");
        check("f/r.raw_app.json", r#"{"value":{"files":{"/.gitmodules":"","/y":"[broken"}}}"#, "");
        check("f/m.script.json", r#"{"modules":{"git~1/x.ts":{"content":""}}}"#, "script f/m");
        check("f/m.script.json", r#"{"modules":{".gitmodules":{"language":"x","content":"[broken"}}}"#, "script f/m");
        check("f/m.script.json", r#"{"modules":{".gitmodules":{"language":"[broken","content":""}}}"#, "");
        check("f/s.resource.json", r#"{"value":null,"resource_type":"ini"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"value":"x","resource_type":"ini"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"resource_type":"ini","value":{}}"#, "");
        check("f/s.resource.json", r#"{"value":null,"resource_type":"set"}"#, "");
        check("f/s.resource.json", r#"{"value":{"a/.GIT/x":""},"resource_type":"set"}"#, "resource f/s");
        check("groups/./a.group.json", "{}", "groups/./a.group.json");
        check("groups//a.group.json", "{}", "group /a");
        check("groups/a.json.group.json", "{}", "group a.json");
        check("groups/a.yaml.group.json", "{}", "");
        check("f/settings.variable.json", "{}", "variable f/settings");
        check("f/encryption_key.resource.json", "{}", "resource f/encryption_key");
        check("f/settings.script.json", "{}", "script f/settings");
        check("f/settings.script.json", r#"{"modules":{"x.ts":{"content":""}}}"#, "");
        check("f/settings.script.json", r#"{"modules":{"dbt_project.yml":{"content":""}}}"#, "script f/settings");
        check("f/settings.flow.json", "{}", "");
        check("f/team__dbt/logs/x.variable.json", "{}", "folder f/team__dbt/logs");
        check("f/team__dbt/logs.variable.json", "{}", "");
        check("f/s.resource.json", r#"{"value":{"content":"x"},"resource_type":"dots"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"value":{"content":{"a":1}},"resource_type":"ini"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"value":{"content":"","other":1},"resource_type":"ini"}"#, "");
        check("f/s.resource.json", r#"{"value":{"a":[]},"resource_type":"set"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"value":"x","resource_type":"set"}"#, "resource f/s");
        check("f/s.resource.json", r#"{"value":{"content":1,"a":{"content":2}},"resource_type":"any"}"#, "");
        let flow = |content: &str, key: &str| {
            format!("{{\"value\":{{\"modules\":[{{\"id\":\"a\",\"value\":{{\"{key}\":\"{content}\"}}}}]}}}}")
        };
        check("f/w.flow.json", &flow("!inline a.ts", "content"), "flow f/w");
        check("f/w.flow.json", &flow("!inline a.ts", "summary"), "");
        check("f/w.flow.json", &flow("// !inline a.ts", "content"), "");
        let ui = |name: &str| {
            let body = format!("{{\"files\":{{\"good.ts\":\"\",{}:\"\"}}}}", json::to_string(name));
            take("judged", &tar_of(&ENTRIES), SideAnswers { shared_ui: answer(&body), ..sides() }).expect("a snapshot")
        };
        for name in [
            "../x",
            "../../git/config",
            "/etc/x",
            "a/../b",
            "..",
            "a/..",
            ".git/config",
            ".GIT/config",
            "a/.Git/config",
            ".git",
            "a/.git",
            "",
            ".",
            "./b",
            "a/./b",
            "a/.",
            "a//b",
            "a/",
            "/",
            "a\\b",
            "a\nb",
            "git~1",
            "good.ts/b",
            "good.ts/b/c",
        ] {
            let snapshot = ui(name);
            assert_eq!(snapshot.left_out.keys().collect::<Vec<_>>(), [&SHARED_UI], "{name:?}");
            assert_eq!((&snapshot.sides.shared_ui, snapshot.has_shared_ui()), (&None, None), "{name:?}");
        }
        for name in ["a.ts", "good.ts2/b", "good/b", "lib/x.ts", "..a/b", "a.git/b", ".gitignore", "a b/é"] {
            assert_eq!(ui(name).has_shared_ui(), Some(true), "{name:?}");
        }
    }

    #[test]
    fn only_the_items_in_the_folder_of_a_scripts_modules_are_left_out() {
        let script = ("f/x.script.json", r#"{"modules":{"m.ts":{"content":""}}}"#);
        let other =
            [("f/x__mod/script.script.json", "{}"), ("f/x__mod/script.ts", ""), ("f/x__mod/v.variable.json", "{}")];
        let dbt = [("f/d.script.json", r#"{"modules":{"dbt_project.yml":{}}}"#), ("f/d__dbt/wm_dbt.yaml", "")];
        let entries = [&[script, ("f/x.ts", "")], &other[..], &dbt].concat();
        let snapshot = taken("modules", &entries);
        let left_out: Vec<_> = snapshot.left_out.keys().map(ToString::to_string).collect();
        assert_eq!(left_out, ["folder f/x__mod"]);
        let whole = names(&snapshot.whole().expect("a file"));
        assert_eq!(whole, ["f/x.script.json", "f/x.ts", "f/d.script.json", "f/d__dbt/wm_dbt.yaml"]);
        let beside = [&dbt[..], &[("f/d__dbt/v.variable.json", "{}")]].concat();
        let snapshot = taken("modules", &beside);
        assert_eq!(snapshot.left_out.keys().map(ToString::to_string).collect::<Vec<_>>(), ["folder f/d__dbt"]);
        assert_eq!(names(&snapshot.whole().expect("a file")), ["f/d.script.json", "f/d__dbt/wm_dbt.yaml"]);
        // If the script has no modules, the folder has no special meaning.
        assert_eq!(taken("modules", &[&[("f/x.script.json", "{}")], &other[..2]].concat()).left_out.len(), 0);
    }

    #[test]
    fn very_many_items_need_little_memory() {
        const COUNT: usize = 1050;
        let long = "x".repeat(120);
        let number = "1".repeat(4000);
        let all: Vec<_> = (0..COUNT).map(|it| format!("f/{long}/n{it:05}.resource.json")).collect();
        let bad: Vec<_> = all.iter().map(|name| (name.as_str(), "{")).collect();
        let snapshot = taken("many", &bad);
        assert_eq!(snapshot.left_out.len(), COUNT);
        assert_eq!(names(&snapshot.whole().expect("a file")), [""; 0], "all are left out");
        assert!(snapshot.item_ids().expect("the disk").is_empty());
        let path = all[1010].replace(".json", ".yaml");
        let item = item_of_entry(&all[1010]);
        assert!(snapshot.leaves_out(&item, &path) && !snapshot.leaves_out(&item_of_entry("f/a.ts"), "f/a.ts"));
        let listed = LeftOut::first_of(LeftOut::first_of(snapshot.left_out_list()));
        assert_eq!((listed.len(), listed[200].item.as_str()), (201, "850 more"));
        let content = format!("{{\"a\":{number}}}");
        let large: Vec<_> = all.iter().map(|name| (name.as_str(), content.as_str())).collect();
        let rounded = taken("many", &large).rounded;
        let rounded = rounded.to_string();
        assert!(rounded.ends_with(" and 1030 more") && rounded.len() < 20 * 300, "{rounded}");
        // A longer name than Windmill has is left out.
        let name = format!("f/{}a.variable.json", "x/".repeat(700));
        assert_eq!(taken("many", &[(&name, "{}")]).left_out.len(), 1);
    }

    #[test]
    fn an_export_with_too_many_bad_items_is_refused() {
        let names: Vec<_> = (0..=LEFT_OUT_MAX).map(|it| format!("f/n{it}.resource.json")).collect();
        let mut bad: Vec<_> = names.iter().map(|name| (name.as_str(), "{")).collect();
        let refused = take("too-many", &tar_of(&bad), sides()).err().expect("refused");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(refused.to_string(), "more than 10000 items of the export cannot be backed up");
        bad.pop();
        assert_eq!(taken("too-many", &bad).left_out.len(), LEFT_OUT_MAX);
    }

    #[test]
    fn items_that_wmill_did_not_write_are_left_out_unless_a_pattern_may_be_why() {
        let entries = [
            ("f/a.script.json", "{}"),
            ("f/a.ts", ""),
            ("f/b.script.json", r#"{"modules":{"x.ts":{}}}"#),
            ("f/b.py", ""),
            ("f/x.unknown", ""),
            ("f/c.flow.json", "{}"),
            ("f/d.variable.json", "{}"),
            ("c_e.resource-type.json", "{}"),
            ("f/team__mod/g.variable.json", "{}"),
            ("groups/all.group.json", "{}"),
            ("dependencies/package.json", ""),
        ];
        let all = ["f/a.script.yaml", "f/a.ts", "f/b__mod/script.yaml", "f/b__mod/script.py", "f/c.flow/flow.yaml"];
        let all = [&all[..], &["f/x.unknown", "f/d.shop.variable.yaml", "c_e.resource-type.yaml"]].concat();
        let check = |gone: &str, configuration: Option<&str>, expected: &[&str]| {
            let mut snapshot = taken("missing", &entries);
            let plan = wmill_yaml::read(configuration.map(str::as_bytes), &KindSettings::default());
            let mut written = WrittenFiles::default();
            all.iter().filter(|path| !path.starts_with(gone)).for_each(|path| written.add(path, "shop"));
            assert_eq!(snapshot.leave_out_missing(&written, &plan).expect("the disk"), !expected.is_empty());
            let left_out: Vec<_> = snapshot.left_out.keys().map(ToString::to_string).collect();
            assert_eq!(left_out, expected, "{gone} {configuration:?}");
        };
        check("none", None, &[]);
        check("f/a", None, &["script f/a"]);
        check("f/a.ts", None, &["script f/a"]);
        check("f/b", None, &["script f/b"]);
        check("f/b__mod/script.p", None, &["script f/b"]);
        check("f/c", None, &["flow f/c"]);
        check("f/x", None, &["f/x.unknown"]);
        check("f/d", None, &["variable f/d"]);
        check("c_e", None, &["resource type c_e"]);
        check("", None, &[]);
        check("f/", Some("includes: ['u/**']"), &[]);
        check("f/", Some("excludes: ['f/[a]*']"), &[]);
        check("f/d", Some("includes: ['f/**']"), &["variable f/d"]);
        check("f/d", Some("skipVariables: true"), &[]);
    }

    #[test]
    fn files_that_wmill_does_not_write_are_named_with_their_item() {
        let check = |name: &str, content: &str, file: Option<&str>| {
            let passed_over = taken("passed-over", &[(name, content)]).passed_over.to_string();
            let expected = file.map(|file| format!("{} ({file})", item_of_entry(name)));
            assert_eq!(passed_over, expected.unwrap_or_default(), "{name} {content}");
        };
        check(
            "f/r.raw_app.json",
            r#"{"value":{"files":{"/x":"","/dist/a.js":"","/AGENTS.md":""}}}"#,
            Some("dist/a.js"),
        );
        check("f/r.raw_app.json", r#"{"value":{"files":{"/AGENTS.md":""}}}"#, None);
        let dbt = r#"{"modules":{"dbt_project.yml":{"content":""},"logs/a":{"content":""}}}"#;
        check("f/d.script.json", dbt, Some("logs/a"));
        check("f/d.script.json", r#"{"modules":{"logs/a":{"content":""}}}"#, None);
    }

    #[test]
    fn numbers_that_wmill_rounds_are_named_with_their_item() {
        let check = |number: &str, is_rounded: bool| {
            let content = format!("{{\"value\":{{\"a\":[{number}]}},\"resource_type\":\"any\"}}");
            let rounded = taken("numbers", &[("f/n.resource.json", &content)]).rounded;
            let expected = if is_rounded { format!("resource f/n ({number})") } else { String::new() };
            assert_eq!(rounded.to_string(), expected);
        };
        for number in ["175928847299117063", "-1001234567890123456", "9007199254740993", "1000000000000000000000"] {
            check(number, true);
        }
        for number in
            ["9007199254740991", "9007199254740992", "-9007199254740994", "1001234567890123500", "1.23456789012345678"]
        {
            check(number, false);
        }
    }

    fn changed(now: &Snapshot, before: &Snapshot) -> Option<ChangedGroups> {
        now.groups.changed_since(before.groups.as_bytes(), &before.digests.groups).ok()
    }

    #[test]
    fn a_part_has_the_wanted_entries_and_all_dependencies() {
        // A header holds 100 bytes of a name: the last one of the first name, and half of a letter of the second one.
        let [full, long] =
            [["f/", &"x".repeat(95), ".py"], ["f/x", &"é".repeat(75), ".py"]].map(|parts| parts.concat());
        let entries = [&ENTRIES[..], &[(&full, "1"), (&long, "print()")]].concat();
        let (snapshot, before) = (taken("part", &entries), taken("part-before", &ENTRIES[1..4]));
        let part_of = changed(&snapshot, &before).expect("few");
        let part = snapshot.part(|name| part_of.has(name)).expect("a file");
        let expected =
            ["f/a.script.json", "f/a.ts", "dependencies/package.json", "groups/all.group.json", &full, &long];
        assert_eq!(names(&part), expected);
        let mut archive = tar::Archive::new(File::open(&part.path).expect("a file"));
        for (index, entry) in archive.entries().expect("entries").enumerate() {
            let mut content = String::new();
            entry.expect("an entry").read_to_string(&mut content).expect("text");
            assert_eq!(content, [ENTRIES[0].1, ENTRIES[1].1, ENTRIES[3].1, ENTRIES[4].1, "1", "print()"][index]);
        }
        let none = changed(&snapshot, &snapshot).expect("few");
        assert_eq!(names(&snapshot.part(|name| none.has(name)).expect("a file")), ["dependencies/package.json"]);
        let mut snapshot = snapshot;
        snapshot.leave_out(&item_of_entry("f/a.ts"), "why not");
        assert_eq!(names(&snapshot.part(|name| part_of.has(name)).expect("a file")), [&expected[2..]].concat());
    }

    #[test]
    fn entries_are_named_by_their_item() {
        for (entry, item) in [
            ("f/a.script.json", "script f/a"),
            ("f/a.pg.sql", "script f/a"),
            ("f/a.flow.json", "flow f/a"),
            ("f/a.app.json", "app f/a"),
            ("f/a.raw_app.json", "raw app f/a"),
            ("f/a.resource.json", "resource f/a"),
            ("f/a.http_trigger.json", "http trigger f/a"),
            ("f/folder.meta.json", "f/folder.meta.json"),
            ("settings.json", "settings"),
            ("dependencies/a.package.json", "workspace dependencies a.package.json"),
            ("encryption_key.json", "encryption key"),
        ] {
            assert_eq!(item_of_entry(entry).to_string(), item, "{entry}");
        }
    }
}
