//! Chooses what a restore puts into the workspace, and which part of it `wmill` cannot or must not push.

use std::collections::{BTreeMap, BTreeSet};

use crate::backup::error::BackupError;
use crate::backup::restore::glob::Pattern;
use crate::backup::restore::tree::{TargetTree, Tree, text};
use crate::backup::restore::{Files, RestoreOptions, RestoreRun};
use crate::backup::sync::tip::{self, RemoteTip};
use crate::backup::verify::short;
use crate::git::Git;
use crate::git::ls_tree::GitPath;
use crate::git::object::Entry;
use crate::git::tree_diff::Sample;
use crate::model::result_code::Code;
use crate::windmill::item_path::{self, ItemId, ItemKind, WMILL_LOCK};
use crate::windmill::wmill_yaml::Plan;

const FOLDER_META: &str = "folder.meta.yaml";

/// The files by item, without files that belong to no item.
pub(super) type Items = BTreeMap<ItemId, Vec<(String, Entry)>>;

/// What the workspace will hold, and what `wmill` gets for that.
#[derive(Default)]
pub(super) struct Choice {
    /// The chosen files.
    pub(super) wanted: TargetTree,
    /// The chosen files that wmill does not get.
    pub(super) withheld: BTreeSet<GitPath>,
    /// What wmill gets: the workspace as it is, with the chosen files added or replaced.
    pub(super) tree: Tree,
    /// The item that each file belongs to.
    pub(super) items: BTreeMap<GitPath, ItemId>,
    /// The paths, in Windmill, of the secret variables that come from the commit, or that the workspace already has
    /// with the same content.
    pub(super) secrets: Vec<String>,
    /// The chosen files of schedules and triggers.
    pub(super) switches: Vec<String>,
    /// The paths of workspace-specific files in the target, without the workspace's name.
    pub(super) own: BTreeSet<String>,
}

impl RestoreOptions {
    fn admits(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path))
    }

    /// Returns whether an item is asked for.
    fn means(&self, id: &ItemId, files: &[(String, Entry)]) -> bool {
        self.admits(&id.path) || files.iter().any(|(path, _)| self.admits(path))
    }
}

impl RestoreRun<'_> {
    /// Replaces items of the workspace by the chosen items of the commit.
    pub(super) fn choose(&mut self, git: &Git<'_>, tip: &RemoteTip, files: &Files) -> Result<Choice, BackupError> {
        let (options, there) = (self.options, &files.there);
        let source = self.source.request.workspace.as_str();
        let (held, not_covered) = items_in(&files.of_commit, &tip.plan, source);
        if !not_covered.is_empty() {
            self.warnings.add(format!("the settings leave these kinds out, and they do not come back: {not_covered}"));
        }
        let (has, _) = items_in(there, &tip.plan, &files.target);
        let mut chosen: Items = held.clone();
        chosen.retain(|id, files| options.means(id, files));
        let is_ui = |path: &str| files.has_shared_ui && tip::is_shared_ui(path.as_bytes()) && options.admits(path);
        let ui: Vec<_> = files.of_commit.iter().filter(|(path, _)| text(path).is_some_and(is_ui)).collect();
        if chosen.is_empty() && ui.is_empty() && !options.paths.is_empty() {
            let paths: Vec<_> = options.paths.iter().map(Pattern::as_str).collect();
            let message = format!("--path: nothing in the commit is called like {}", paths.join(", "));
            return Err(BackupError::new(Code::ConfigInvalid, message));
        }
        let secrets = self.sort_out_secrets(git, &mut chosen, &has, files)?;
        let mut choice = Choice { secrets, switches: switches_in(&chosen), ..Choice::default() };
        for (id, files) in &has {
            let is_to_go = options.deletes && !held.contains_key(id) && options.means(id, files);
            if is_to_go || chosen.contains_key(id) {
                choice.want(id, files.iter().map(|(path, _)| (path.clone(), None)));
            }
        }
        for (id, files) in &chosen {
            let named = self.named_as_there(id, files, &has, &mut choice.own);
            choice.want(id, named.into_iter().map(|(path, entry)| (path, Some(entry))));
        }
        choice.wanted.extend(ui.into_iter().map(|(path, entry)| (path.clone(), Some(entry.clone()))));
        choice.add_folders(options, tip, files);
        choice.withhold(&tip.plan);
        choice.make_tree(files, options);
        Ok(choice)
    }

    /// Returns the files of an item under the names that wmill uses for them in the target. If the item is
    /// workspace-specific in the source or in the target, the names contain the target's name.
    fn named_as_there(
        &self,
        id: &ItemId,
        files: &[(String, Entry)],
        has: &Items,
        own: &mut BTreeSet<String>,
    ) -> Vec<(String, Entry)> {
        let (source, target) = (self.source.request.workspace.as_str(), self.workspace().as_str());
        let common = |path: &str, workspace: &str| item_path::common_path(path, workspace);
        let is_own_there =
            has.get(id).is_some_and(|files| files.iter().any(|(path, _)| common(path, target).is_some()));
        let is_own = is_own_there || files.iter().any(|(path, _)| common(path, source).is_some());
        let mut named = Vec::new();
        for (path, entry) in files {
            let shared = common(path, source).unwrap_or_else(|| path.clone());
            match item_path::path_for_workspace(&shared, target).filter(|_| is_own) {
                Some(path) => {
                    own.insert(shared);
                    named.push((path, entry.clone()));
                }
                None => named.push((shared, entry.clone())),
            }
        }
        named
    }

    /// Returns the files of the commit that can belong to the workspace, without the repository's configuration.
    pub(super) fn files_of_commit(&mut self, tip: &RemoteTip, mut all: Tree) -> Tree {
        let source = self.source.request.workspace.clone();
        let mut left_out = Sample::default();
        // The workspace's own file counts, and not the one that the others share.
        for shared in shared_beside_own(&all, source.as_str()) {
            all.remove(&shared);
        }
        all.retain(|path, entry| {
            let name = text(path);
            let is_foreign = name.is_some_and(|name| {
                item_path::is_for_one_workspace(name) && item_path::common_path(name, source.as_str()).is_none()
            });
            let is_hidden = name.is_some_and(|name| item_path::item_of_hidden_file(name).is_some());
            let is_layout = name.is_some_and(|name| item_path::is_in_other_layout(name, tip.plan.non_dotted_paths));
            let is_own = name.is_some_and(|name| item_path::common_path(name, source.as_str()).is_some());
            let is_ui = tip::is_shared_ui(path);
            let is_seen = entry.is_file()
                && !is_foreign
                && (is_own || is_ui || is_hidden || is_layout || !tip.is_withheld(path, entry));
            if !is_seen && name.is_some_and(|name| item_path::item_of(name).is_some()) {
                left_out.add(path);
            }
            is_seen
        });
        if !left_out.is_empty() {
            self.warnings
                .add(format!("these do not come back, since they are links, or another workspace's alone: {left_out}"));
        }
        all
    }

    /// Warns about the apps that are to be deleted and whose deletion cannot be undone, or cannot be done.
    pub(super) fn warn_about_deleted_apps(&mut self, choice: &Choice, paths: &BTreeSet<&str>) {
        let stay: BTreeSet<&str> = choice.apps_that_stay().map(|id| id.path.as_str()).collect();
        let to_go = paths.iter().filter(|path| choice.is_to_go(path.as_bytes()));
        let (kept, gone): (BTreeSet<&ItemId>, BTreeSet<&ItemId>) = to_go
            .filter_map(|path| choice.items.get(path.as_bytes()).filter(|id| is_app(id)))
            .partition(|id| stay.contains(id.path.as_str()));
        if !kept.is_empty() {
            let named: Sample = kept.into_iter().map(ToString::to_string).collect();
            self.warnings.add(format!(
                "these are not deleted, since the commit has an app of the other kind at their path, and both are one app \
                 in Windmill; if that is meant, delete them there first: {named}"
            ));
        }
        let raw: Sample = gone.iter().filter(|id| id.kind == ItemKind::RawApp).map(ToString::to_string).collect();
        if !raw.is_empty() {
            self.warnings.add(format!(
                "these are deleted, and no restore brings them back, since it leaves raw apps out; --path can spare them: \
                 {raw}"
            ));
        }
    }

    /// Warns about the chosen files that wmill does not get or does not look at, unless the workspace already has them.
    pub(super) fn warn_about_withheld(&mut self, tip: &RemoteTip, choice: &Choice, paths: &BTreeSet<&str>) {
        let of = |path: &str| choice.items.get(path.as_bytes());
        let is_withheld = |path: &str| choice.withheld.contains(path.as_bytes());
        let mut raw_apps = BTreeSet::new();
        let mut rest = Sample::default();
        for path in paths.iter().filter(|path| is_withheld(path)) {
            match of(path) {
                Some(ItemId { kind: ItemKind::RawApp, path: name }) => {
                    let ending = if tip.plan.non_dotted_paths { "__raw_app" } else { ".raw_app" };
                    raw_apps.insert(format!("`wmill app push {name}{ending} {name}`"));
                }
                _ => rest.add(path.as_bytes()),
            }
        }
        if !raw_apps.is_empty() {
            let commands: Sample = raw_apps.iter().collect();
            let commit = tip.commit.as_ref().map(short).unwrap_or_default();
            let folder = match self.source.request.subdir.path() {
                "" => String::new(),
                path => format!(", in its folder `{path}`"),
            };
            self.warnings.add(format!(
                "raw apps are left out, since pushing one runs code of the packages that its package.json names; to push \
                 them by hand, look at that file first, and then, on a machine with npm and wmill, in a clone at commit \
                 {commit}{folder}: {commands}"
            ));
        }
        if !rest.is_empty() {
            self.warnings.add(format!("these do not come back, since wmill cannot push them: {rest}"));
        }
        let hidden: Sample = paths
            .iter()
            .filter(|path| !is_withheld(path) && item_path::item_of_hidden_file(path).is_some())
            .map(|path| path.as_bytes())
            .collect();
        if !hidden.is_empty() {
            self.warnings.add(format!(
                "wmill does not look below folders that begin with a dot, nor below node_modules, so these come back only \
                 where it pushes the item for another reason; they are read back at the end: {hidden}"
            ));
        }
    }
}

impl Choice {
    fn want(&mut self, id: &ItemId, files: impl Iterator<Item = (String, Option<Entry>)>) {
        for (path, entry) in files {
            let path = path.into_bytes();
            self.items.insert(path.clone(), id.clone());
            self.wanted.insert(path, entry);
        }
    }

    /// Returns whether nothing will remain of the item, or the Windmill folder, that a file belongs to.
    pub(super) fn is_to_go(&self, path: &[u8]) -> bool {
        let is_absent = |path: &[u8]| self.wanted.get(path).is_none_or(Option::is_none);
        let Some(id) = self.items.get(path) else { return is_absent(path) };
        self.items.iter().filter(|(_, other)| *other == id).all(|(path, _)| is_absent(path))
    }

    /// Returns the apps and raw apps with a wanted file, even if wmill does not get it.
    pub(super) fn apps_that_stay(&self) -> impl Iterator<Item = &ItemId> {
        let wanted = self.wanted.iter().filter(|(_, entry)| entry.is_some());
        wanted.filter_map(|(path, _)| self.items.get(path)).filter(|id| is_app(id))
    }

    /// Adds the Windmill folders of the commit that are asked for, or that items need and the workspace lacks. If
    /// everything is restored with deletions, removes the folders in which no item lies.
    fn add_folders(&mut self, options: &RestoreOptions, tip: &RemoteTip, files: &Files) {
        let kept = files.there.keys().filter(|path| self.wanted.get(*path).is_none_or(Option::is_some));
        let chosen = self.wanted.iter().filter(|(_, entry)| entry.is_some()).map(|(path, _)| path);
        let used: BTreeSet<GitPath> =
            kept.chain(chosen).filter(|path| !is_meta(path)).filter_map(|path| meta_of(text(path)?)).collect();
        for (path, entry) in files.of_commit.iter().filter(|(path, _)| is_meta(path)) {
            let is_meant = !tip.plan.kinds.skip_folders && text(path).is_some_and(|path| options.admits(path));
            if is_meant || used.contains(path) && !files.there.contains_key(path) {
                self.wanted.insert(path.clone(), Some(entry.clone()));
            }
        }
        if options.deletes && options.paths.is_empty() {
            for path in files.there.keys().filter(|path| is_meta(path) && !used.contains(*path)) {
                self.wanted.entry(path.clone()).or_insert(None);
            }
        }
    }

    /// Withholds from wmill what makes it run code, and what stops a whole push.
    fn withhold(&mut self, plan: &Plan) {
        for path in self.wanted.keys() {
            // An app whose files all go is deleted, and nothing is built.
            let is_raw = self.items.get(path).is_some_and(|id| id.kind == ItemKind::RawApp)
                && self.wanted.get(path).is_some_and(Option::is_some);
            let is_in_other_layout = text(path).is_some_and(|path| is_unpushable(path, plan));
            if is_raw || is_in_other_layout {
                self.withheld.insert(path.clone());
            }
        }
        // If some files of an app stay, the app is not deleted, so all its files are withheld.
        let of_raw: BTreeSet<_> = self.withheld.iter().filter_map(|path| self.items.get(path)).cloned().collect();
        let more = self.items.iter().filter(|(_, id)| id.kind == ItemKind::RawApp && of_raw.contains(*id));
        self.withheld.extend(more.map(|(path, _)| path.clone()));
    }

    fn make_tree(&mut self, files: &Files, options: &RestoreOptions) {
        let mut tree = files.there.clone();
        tree.retain(|path, _| {
            let of_app = text(path).is_some_and(|path| is_raw_app(path) || is_unpushable(path, &files.plan));
            !of_app && !self.wanted.contains_key(path)
        });
        let chosen_ui = self.wanted.keys().any(|path| tip::is_shared_ui(path));
        tree.retain(|path, _| chosen_ui || !tip::is_shared_ui(path));
        for (path, entry) in &self.wanted {
            if let (Some(entry), false) = (entry, self.withheld.contains(path)) {
                tree.insert(path.clone(), entry.clone());
            }
        }
        // wmill reads the file of a workspace-specific resource under its name without the workspace, and pushes it as
        // its own.
        for path in self.own.iter().filter(|path| path.contains(".resource.file.")) {
            let of_own = item_path::path_for_workspace(path, &files.target).and_then(|own| tree.get(own.as_bytes()));
            if let Some(entry) = of_own.cloned() {
                tree.insert(path.clone().into_bytes(), entry);
            }
        }
        // The hashes have to be those of what is pushed. If only some paths are restored, the workspace's own are as
        // good.
        for (path, entry) in &files.of_commit {
            if path.starts_with(b"locks/") || path == WMILL_LOCK.as_bytes() && options.paths.is_empty() {
                tree.insert(path.clone(), entry.clone());
            }
        }
        self.tree = tree;
    }
}

fn is_app(id: &ItemId) -> bool {
    matches!(id.kind, ItemKind::App | ItemKind::RawApp)
}

/// Returns the files of items that the workspace has a file of its own for.
fn shared_beside_own(tree: &Tree, workspace: &str) -> Vec<GitPath> {
    let shared = |(path, entry): (&GitPath, &Entry)| {
        let shared = item_path::common_path(text(path).filter(|_| entry.is_file())?, workspace)?;
        item_path::item_of(&shared).map(|_| shared.into_bytes())
    };
    tree.iter().filter_map(shared).collect()
}

fn is_raw_app(path: &str) -> bool {
    let item = item_path::item_of(path).or_else(|| item_path::item_of_hidden_file(path));
    item.is_some_and(|id| id.kind == ItemKind::RawApp)
}

/// Returns whether the path has a folder with the ending of a flow or an app in the other layout. One such folder stops
/// a whole push.
fn is_unpushable(path: &str, plan: &Plan) -> bool {
    item_path::is_in_other_layout(path, plan.non_dotted_paths)
}

/// Returns the files of schedules and triggers.
fn switches_in(items: &Items) -> Vec<String> {
    let mut switches = Vec::new();
    for (id, files) in items {
        if matches!(id.kind, ItemKind::Schedule | ItemKind::Trigger(_)) {
            switches.extend(files.iter().map(|(path, _)| path.clone()));
        }
    }
    switches
}

/// Returns the items of a tree that the plan covers, without the key, and the kinds of the items that it does not
/// cover.
fn items_in(tree: &Tree, plan: &Plan, workspace: &str) -> (Items, Sample) {
    let (mut found, mut not_covered) = (Items::new(), BTreeSet::new());
    for (path, entry) in tree {
        let Some(path) = text(path) else { continue };
        let shared = item_path::common_path(path, workspace);
        let id = item_path::item_of(shared.as_deref().unwrap_or(path)).or_else(|| item_path::item_of_hidden_file(path));
        let Some(id) = id.filter(|id| id.kind != ItemKind::Key) else { continue };
        if item_path::covers(&id, &plan.kinds) {
            found.entry(id).or_default().push((path.to_owned(), entry.clone()));
        } else {
            not_covered.insert(id.kind.to_string());
        }
    }
    (found, not_covered.into_iter().collect())
}

/// Returns whether the path is the `folder.meta.yaml` of a Windmill folder.
pub(super) fn is_meta(path: &GitPath) -> bool {
    text(path).is_some_and(|name| meta_of(name).as_ref() == Some(path))
}

/// Returns the `folder.meta.yaml` of the Windmill folder that a path lies in.
fn meta_of(path: &str) -> Option<GitPath> {
    let mut parts = path.split('/');
    let (top, name) = (parts.next()?, parts.next()?);
    (top == "f" && parts.next().is_some()).then(|| format!("f/{name}/{FOLDER_META}").into_bytes())
}
