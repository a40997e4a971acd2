//! Chooses what a restore puts into the workspace, and which part of it `wmill` cannot or must not push. Compares the
//! choice with the workspace.
//!
//! A sync works with streams to save memory. For a restore, memory does not matter, since a person waits for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::backup::restore::{RestoreOptions, RestoreRun};
use crate::backup::sync::tip::{self, PATH_BYTES_MAX};
use crate::backup::verify::value_diff::{self, item_of};
use crate::backup::{Pattern, RunContext};
use crate::git::{Entry, Git, Mark};
use crate::model::{BackupError, Changed, Code, Result};
use crate::request::Purpose;
use crate::windmill::{ItemId, ItemKind, WMILL_LOCK, WMILL_YAML, item_path};

/// The file of a Windmill folder, below its path.
const FOLDER_FILE: &str = "/folder.meta.yaml";
/// The reason for which most files are withheld.
pub(super) const CANNOT_PUSH: &str = "these do not come back, since wmill cannot push them";
/// The most bytes of a resource's file that are read. A larger one is not deleted.
const RESOURCE_BYTES_MAX: usize = 16 << 20;

/// Files by their path in the folder of the backup.
pub(super) type Tree = BTreeMap<String, Entry>;
/// The chosen files by their path: the file, or `None` if there must be none.
pub(super) type WantedFiles = BTreeMap<String, Option<Entry>>;

/// A file that differs from the wanted one.
pub(super) struct Change {
    /// The change that is needed.
    pub(super) mark: Mark,
    pub(super) path: String,
    /// How it differs, in a few lines without secrets.
    pub(super) diff: Vec<String>,
}

/// Returns the files that differ from the wanted ones, in the order of their paths.
pub(super) fn changes(git: &Git<'_>, wanted: &WantedFiles, current: &Tree) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (path, wanted) in wanted {
        let (mark, diff) = match (wanted, current.get(path)) {
            (Some(entry), Some(found)) => {
                let diff = value_diff::of_entries(git, path, (entry, found), Purpose::Restore)?;
                if diff.is_empty() {
                    continue;
                }
                (Mark::Modified, diff)
            }
            (Some(_), None) => (Mark::Added, Vec::new()),
            (None, Some(_)) => (Mark::Deleted, Vec::new()),
            (None, None) => continue,
        };
        changes.push(Change { mark, path: path.clone(), diff });
    }
    Ok(changes)
}

pub(super) fn counted<'c>(changes: impl IntoIterator<Item = &'c Change>) -> Changed {
    let mut count = Changed::default();
    changes.into_iter().for_each(|change| change.mark.count_in(&mut count));
    count
}

/// The files by item, without files that belong to no item.
pub(super) type Items = BTreeMap<ItemId, Vec<(String, Entry)>>;

/// What the workspace will hold, and what `wmill` pushes for that.
#[derive(Default)]
pub(super) struct Choice {
    /// What the workspace holds.
    pub(super) current: Tree,
    /// The chosen files.
    pub(super) wanted: WantedFiles,
    /// The chosen files that wmill does not get, with the reason.
    pub(super) withheld: BTreeMap<String, &'static str>,
    /// The paths, in Windmill, of the secret variables that come from the commit, or that the workspace already has
    /// with the same content.
    pub(super) secrets: Vec<String>,
    /// The wanted files that differ in the workspace.
    pub(super) changes: Vec<Change>,
}

impl RestoreOptions {
    fn admits(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path))
    }

    /// Returns whether the options select an item.
    fn selects(&self, id: &ItemId, files: &[(String, Entry)]) -> bool {
        self.admits(&id.path) || files.iter().any(|(path, _)| self.admits(path))
    }
}

impl RestoreRun<'_> {
    /// Chooses which items of the workspace, which holds `current`, are replaced by items of the commit.
    pub(super) fn choose(&mut self, of_commit: &Tree, current: Tree) -> Result<Choice> {
        let options = self.options;
        let backed_up = self.items_in(of_commit, self.source);
        let existing = self.items_in(&current, self.target);
        let mut choice = Choice { current, ..Choice::default() };
        let mut chosen: Items = backed_up.clone();
        let has_folders = self.tip.plan.kinds.has("folders");
        chosen.retain(|id, files| options.selects(id, files) && (has_folders || id.kind != ItemKind::Folder));
        let ui = of_commit.iter().filter(|(path, _)| tip::is_shared_ui(path.as_bytes()) && options.admits(path));
        choice.wanted = ui.map(|(path, entry)| (path.clone(), Some(entry.clone()))).collect();
        if chosen.is_empty() && choice.wanted.is_empty() && !options.paths.is_empty() {
            let paths: Vec<_> = options.paths.iter().map(Pattern::as_str).collect();
            let message = format!("--path: nothing in the commit matches {}", paths.join(", "));
            return Err(BackupError::new(Code::ConfigInvalid, message));
        }
        choice.secrets = self.remove_unreadable_secrets(&mut chosen, &existing)?;
        let is_deleted = |id: &ItemId, files: &[(String, Entry)]| {
            options.deletes && !backed_up.contains_key(id) && options.selects(id, files)
        };
        let kept = existing.iter().filter(|(id, files)| !is_deleted(id, files)).map(|(id, _)| id);
        let of_chosen: BTreeSet<ItemId> = chosen.keys().filter_map(|id| folder_of(&id.path)).collect();
        let used: BTreeSet<_> = kept.filter_map(|id| folder_of(&id.path)).chain(of_chosen.iter().cloned()).collect();
        let is_needed = |id: &ItemId| of_chosen.contains(id) && !existing.contains_key(id);
        let needed = backed_up.iter().filter(|(id, _)| is_needed(id));
        chosen.extend(needed.map(|(id, files)| (id.clone(), files.clone())));
        let is_gone_variable = |path: &str| {
            let id = ItemId { kind: ItemKind::Variable, path: path.to_owned() };
            existing.get(&id).is_some_and(|files| is_deleted(&id, files))
        };
        for (id, files) in &existing {
            // A folder goes only with everything else, and only if no item is left in it.
            let stays = id.kind == ItemKind::Folder && (used.contains(id) || !options.paths.is_empty());
            let is_gone = is_deleted(id, files) && !stays;
            if is_gone || chosen.contains_key(id) {
                choice.wanted.extend(files.iter().map(|(path, _)| (path.clone(), None)));
            }
            if is_gone && id.kind == ItemKind::Resource && self.names_variables_that_stay(files, is_gone_variable)? {
                let why = "these are not deleted, since Windmill would delete the variables with them that they name";
                choice.withheld.extend(files.iter().map(|(path, _)| (path.clone(), why)));
            }
        }
        for (id, files) in &chosen {
            self.want_in_target(&mut choice, id, files, &existing);
        }
        let withheld = self.withheld(&choice, &existing);
        choice.withheld.extend(withheld);
        Ok(choice)
    }

    /// Returns the files that wmill does not get, with the reason: those of raw apps, of apps in the place of a raw app,
    /// and of folders with the ending of a flow or an app in the other layout. wmill would run code, replace what was
    /// not chosen, or push nothing at all. Nothing is built if all files of a raw app are deleted. If some of them stay,
    /// wmill gets none of them.
    fn withheld(&self, choice: &Choice, existing: &Items) -> BTreeMap<String, &'static str> {
        let kept = self.kept_items(choice);
        let is_raw_app_at = |path: String| existing.contains_key(&ItemId { kind: ItemKind::RawApp, path });
        let why = |path: &str| match self.item(path) {
            _ if item_path::is_in_other_layout(path, self.tip.plan.non_dotted_paths) => Some(CANNOT_PUSH),
            Some(id) if id.kind == ItemKind::RawApp && kept.contains(&id) => Some(CANNOT_PUSH),
            Some(ItemId { kind: ItemKind::App, path }) if !self.options.deletes && is_raw_app_at(path.clone()) => {
                Some("these do not come back without --delete, since they would replace the raw app at their path")
            }
            _ => None,
        };
        choice.wanted.keys().filter_map(|path| Some((path.clone(), why(path)?))).collect()
    }

    /// Returns whether the value of a resource names a variable that is not deleted with it. When Windmill deletes a
    /// resource, it deletes the variables that the value names too.
    fn names_variables_that_stay(&self, files: &[(String, Entry)], is_gone: impl Fn(&str) -> bool) -> Result<bool> {
        for (_, entry) in files {
            let Some(content) = self.git.read_blob(&entry.object, RESOURCE_BYTES_MAX)? else { return Ok(true) };
            let content = String::from_utf8_lossy(&content);
            let named =
                content.split("$var:").skip(1).map(|rest| rest.split(['"', '\'', '\n']).next().unwrap_or_default());
            if named.map(str::trim_end).any(|path| !is_gone(path)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the item of a file in the target, if it belongs to one.
    pub(super) fn item(&self, path: &str) -> Option<ItemId> {
        item_in(path, self.target)
    }

    /// Returns the items with a wanted file, even if wmill does not get it.
    pub(super) fn kept_items(&self, choice: &Choice) -> BTreeSet<ItemId> {
        let wanted = choice.wanted.iter().filter(|(_, entry)| entry.is_some());
        wanted.filter_map(|(path, _)| self.item(path)).collect()
    }

    /// Returns the items in the files of this workspace, without the key. Leaves out items of kinds that the settings
    /// exclude, and warns about them.
    pub(super) fn items_in(&mut self, tree: &Tree, of: RunContext<'_>) -> Items {
        let mut found = Items::new();
        for (path, entry) in tree {
            match item_in(path, of) {
                None | Some(ItemId { kind: ItemKind::Key, .. }) => {}
                Some(id) if item_path::covers(&id, &self.tip.plan.kinds) => {
                    found.entry(id).or_default().push((path.clone(), entry.clone()));
                }
                Some(id) => {
                    let what = "the settings exclude these kinds, so they do not come back";
                    self.report.warn_of(what, id.kind.to_string());
                }
            }
        }
        found
    }

    /// Adds the files of an item under the names that wmill uses for them in the target. If the item is
    /// workspace-specific in the source or in the target, the names contain the target's name.
    fn want_in_target(&mut self, choice: &mut Choice, id: &ItemId, files: &[(String, Entry)], existing: &Items) {
        let (source, target) = (self.source.request.workspace.as_str(), self.target.request.workspace.as_str());
        let is_own_in = |files: &[(String, Entry)], workspace: &str| {
            files.iter().any(|(path, _)| item_path::common_path(path, workspace).is_some())
        };
        let is_own = is_own_in(files, source) || existing.get(id).is_some_and(|files| is_own_in(files, target));
        for (path, entry) in files {
            let shared = item_path::common_path(path, source).unwrap_or_else(|| path.clone());
            let own = item_path::path_for_workspace(&shared, target).filter(|_| is_own);
            if own.is_some() && source != target {
                let what = format!("these are specific to workspace `{source}`; they become specific to `{target}`");
                self.report.warn_of(&what, &shared);
            }
            choice.wanted.insert(own.unwrap_or(shared), Some(entry.clone()));
        }
    }

    /// Returns the files of the commit that can belong to the workspace, without the repository's configuration.
    pub(super) fn files_of_commit(&mut self, mut all: Tree, has_shared_ui: bool) -> Tree {
        let source = self.source.request.workspace.as_str();
        // The workspace-specific file replaces the shared one.
        let own_files = all.iter().filter(|(_, entry)| entry.is_file());
        let shared: Vec<_> = own_files.filter_map(|(path, _)| item_path::common_path(path, source)).collect();
        for path in shared.iter().filter(|path| item_path::item_of(path).is_some()) {
            all.remove(path);
        }
        all.retain(|path, entry| {
            let is_foreign = item_path::is_for_one_workspace(path) && item_path::common_path(path, source).is_none();
            let is_configuration = path.split('/').next() == Some(WMILL_YAML);
            let is_seen = entry.is_file() && !is_foreign && !is_configuration && path.len() <= PATH_BYTES_MAX;
            if !is_seen && item_path::item_of(path).is_some() {
                let what = "these do not come back, since they are links, or specific to another workspace";
                self.report.warn_of(what, path);
            }
            is_seen && (has_shared_ui || !tip::is_shared_ui(path.as_bytes()))
        });
        all
    }

    /// Warns about the apps whose deletion is not possible or cannot be undone.
    pub(super) fn warn_about_deleted_apps(&mut self, choice: &Choice) {
        let kept_items = self.kept_items(choice);
        let changed = choice.changes.iter().filter_map(|change| self.item(&change.path));
        for id in changed.filter(|id| is_app(id) && !kept_items.contains(id)).collect::<Vec<_>>() {
            let what = if has_app_at(&kept_items, &id.path) {
                "these are not deleted, since the commit has an app of the other kind at their path, and both are one app \
                 in Windmill; to delete them, delete them in Windmill first"
            } else if id.kind == ItemKind::RawApp {
                "these are deleted, and no restore brings them back, since it leaves raw apps out; --path can spare them"
            } else {
                continue;
            };
            self.report.warn_of(what, id.to_string());
        }
    }

    /// Warns about the chosen files that wmill does not get or does not look at, unless the workspace already has them.
    pub(super) fn warn_about_withheld(&mut self, choice: &Choice) {
        let folder = match self.source.request.subdir.as_str() {
            "" => String::new(),
            path => format!(", in its folder `{path}`"),
        };
        let of_raw_apps = format!(
            "raw apps are left out, since pushing one runs code of the packages that its package.json names; to push them \
             by hand, look at that file first, and then, on a machine with npm and wmill, in a clone at commit {:.10}{folder}",
            self.commit
        );
        for Change { path, .. } in &choice.changes {
            match (choice.withheld.get(path), self.item(path)) {
                (None, _) if item_path::item_of_hidden_file(path).is_some() => {
                    let what = "wmill does not look below folders that begin with a dot or below node_modules, so these \
                                come back only if another file of their item is pushed; they are read back at the end";
                    self.report.warn_of(what, path);
                }
                (None, _) => {}
                (Some(_), Some(ItemId { kind: ItemKind::RawApp, path: name })) => {
                    let ending = if self.tip.plan.non_dotted_paths { "__raw_app" } else { ".raw_app" };
                    self.report.warn_of(&of_raw_apps, format!("`wmill app push {name}{ending} {name}`"));
                }
                (Some(why), _) => self.report.warn_of(why, path),
            }
        }
    }

    /// Returns what wmill gets: the workspace as it is, with the chosen files added or replaced.
    pub(super) fn files_for_wmill(&self, choice: &Choice, of_commit: &Tree) -> Tree {
        let (plan, target) = (&self.tip.plan, self.workspace().as_str());
        let mut tree = choice.current.clone();
        tree.retain(|path, _| {
            item_of(path).is_none_or(|id| id.kind != ItemKind::RawApp)
                && !item_path::is_in_other_layout(path, plan.non_dotted_paths)
                && !choice.wanted.contains_key(path)
        });
        for (path, entry) in choice.files_to_push() {
            tree.insert(path.clone(), entry.clone());
            // wmill reads the file of a workspace-specific resource under its name without the workspace, and pushes it
            // as its own.
            if let Some(shared) = item_path::common_path(path, target).filter(|path| path.contains(".resource.file.")) {
                tree.insert(shared, entry.clone());
            }
        }
        // The hashes have to belong to the pushed files. If only some paths are restored, the workspace's own hashes
        // work too.
        for (path, entry) in of_commit {
            if path.starts_with("locks/") || path == WMILL_LOCK && self.options.paths.is_empty() {
                tree.insert(path.clone(), entry.clone());
            }
        }
        tree
    }
}

impl Choice {
    /// Returns the files that wmill gets.
    pub(super) fn files_to_push(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let wanted = self.wanted.iter().filter(|(path, _)| !self.withheld.contains_key(*path));
        wanted.filter_map(|(path, entry)| Some((path, entry.as_ref()?)))
    }

    /// Returns the changes that wmill gets.
    pub(super) fn pushed(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| !self.withheld.contains_key(&change.path))
    }
}

/// Returns the item of a file of a workspace, if it belongs to one. A Windmill folder, without its content, is one too.
fn item_in(path: &str, of: RunContext<'_>) -> Option<ItemId> {
    let shared = item_path::common_path(path, of.request.workspace.as_str());
    let path = shared.as_deref().unwrap_or(path);
    item_of(path).or_else(|| folder_of(path).filter(|folder| path.strip_prefix(&folder.path) == Some(FOLDER_FILE)))
}

/// Returns the Windmill folder that a path lies in.
fn folder_of(path: &str) -> Option<ItemId> {
    let (slash, _) = path.match_indices('/').nth(1)?;
    path.starts_with("f/").then(|| ItemId { kind: ItemKind::Folder, path: path[..slash].to_owned() })
}

/// Returns whether there is an app or a raw app at a path. In Windmill, both are one item.
pub(super) fn has_app_at(items: &BTreeSet<ItemId>, path: &str) -> bool {
    items.iter().any(|id| is_app(id) && id.path == path)
}

pub(super) fn is_app(id: &ItemId) -> bool {
    matches!(id.kind, ItemKind::App | ItemKind::RawApp)
}
