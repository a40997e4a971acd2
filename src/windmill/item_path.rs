//! Finds the Windmill item that a file belongs to, by the file's path in a backup.

use std::fmt;

use crate::windmill::Kinds;

/// The folder whose files are part of the hashes of all items.
pub const DEPENDENCIES: &str = "dependencies/";
/// The file with the hashes of the items that wmill pulled.
pub const WMILL_LOCK: &str = "wmill-lock.yaml";
/// The file with the workspace's encryption key.
pub const KEY_FILE: &str = "encryption_key.yaml";

/// Declares the kinds of Windmill objects in the order in which they are listed: each with its name, and the word of the
/// settings that leaves it out, if there is one.
macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident $(($sort:ty))? = $name:literal, $word:literal;)+) => {
        /// The kind of a Windmill object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "Windmill's own words")]
        pub enum ItemKind { $($(#[$about])* $kind $(($sort))?,)+ }

        impl ItemKind {
            fn words(self) -> (&'static str, &'static str) {
                match self { $(Self::$kind { .. } => ($name, $word),)+ }
            }
        }
    };
}

kinds! {
    Script = "script", "scripts";
    Flow = "flow", "flows";
    App = "app", "apps";
    RawApp = "raw app", "apps";
    Resource = "resource", "resources";
    ResourceType = "resource type", "resource-types";
    Variable = "variable", "variables";
    Schedule = "schedule", "schedules";
    /// A trigger with its sort: `http`, `kafka`, …
    Trigger(&'static str) = "trigger", "triggers";
    User = "user", "users";
    Group = "group", "groups";
    /// A file under `dependencies/`.
    WorkspaceDependencies = "workspace dependencies", "workspace-dependencies";
    /// A data table's migration. Its `up` and its `down` file are one item.
    Migration = "migration", "datatable-migrations";
    Settings = "settings", "settings";
    Key = "encryption key", "key";
    /// A folder with its whole content.
    Folder = "folder", "";
    SharedUi = "the shared UI", "";
    /// A file, or an entry of the export, that belongs to no object.
    File = "file", "";
}

impl fmt::Display for ItemKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trigger(sort) => write!(formatter, "{sort} trigger"),
            kind => formatter.write_str(kind.words().0),
        }
    }
}

/// One Windmill object: `script f/ops/job_00000`, `flow f/ops/nightly`. A file that belongs to no object has its own
/// name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// The kind of the object.
    pub kind: ItemKind,
    /// The path in Windmill. For users, groups and resource types it is the name. Settings, key and shared UI have
    /// none.
    pub path: String,
}

/// The shared UI.
pub const SHARED_UI: ItemId = ItemId { kind: ItemKind::SharedUi, path: String::new() };

impl fmt::Display for ItemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.path.as_str()) {
            (kind, "") => write!(formatter, "{kind}"),
            (ItemKind::File, path) => formatter.write_str(path),
            (kind, path) => write!(formatter, "{kind} {path}"),
        }
    }
}

/// Returns the object that the file at `path` belongs to. The path is relative to the backup's folder.
///
/// Both layouts are recognized, so that a repository that changes from one to the other deletes nothing. Returns `None`
/// for `folder.meta.yaml`, `wmill-lock.yaml`, `locks/`, and everything that is not Windmill's.
pub fn item_of(path: &str) -> Option<ItemId> {
    locate(path).map(Part::id)
}

/// Whether the file proves that its item exists. A lock does not prove it. A file that may outlive its item does not
/// either.
pub fn proves_existence(path: &str) -> bool {
    locate(path).is_some_and(Part::exists)
}

/// Whether this sync exports such objects. The path does not show whether a variable is secret, so variables are
/// covered even if secrets are skipped.
pub fn covers(item: &ItemId, kinds: &Kinds) -> bool {
    let (_, word) = item.kind.words();
    word.is_empty() || kinds.has(word)
}

/// Whether some folder of `path` has the ending of a flow or an app in the other layout. wmill refuses to pull into a
/// tree with such a folder anywhere, even outside `f/` and `u/`.
pub fn is_in_other_layout(path: &str, non_dotted_paths: bool) -> bool {
    folder_of_layout(path, !non_dotted_paths).is_some()
}

/// Returns the outermost folder of a path that is the folder of a flow or an app for wmill in this layout.
pub fn folder_of_layout(path: &str, non_dotted_paths: bool) -> Option<&str> {
    let endings = if non_dotted_paths { ["__flow", "__app", "__raw_app"] } else { [".flow", ".app", ".raw_app"] };
    let mut folders = path.match_indices('/').map(|(slash, _)| &path[..slash]);
    folders.find(|folder| endings.iter().any(|ending| folder.ends_with(ending)))
}

/// A file's place in its object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    kind: ItemKind,
    base: &'a str,
    /// The file's path without the object's path, to compare objects.
    pub(super) rest: &'a str,
    pub(super) role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The object exists if this file does. The content of the file is compared with that of other objects.
    Main,
    /// The object exists if this file does. The file can contain its own path, so it differs between two copies of one
    /// object.
    NamesItself,
    /// The file belongs to the object, and may stay when the object is deleted: wmill leaves files that it does not
    /// know.
    Companion,
    /// A lock. It does not prove that the object exists, and is not compared.
    Lock,
}

impl Part<'_> {
    pub(super) fn id(self) -> ItemId {
        ItemId { kind: self.kind, path: self.base.to_owned() }
    }

    pub(super) fn exists(self) -> bool {
        matches!(self.role, Role::Main | Role::NamesItself)
    }
}

pub(super) fn locate(path: &str) -> Option<Part<'_>> {
    let Some((top, below)) = path.split_once('/') else { return locate_at_top(path) };
    // wmill never walks into such folders.
    if path.split('/').rev().skip(1).any(is_never_walked) {
        return None;
    }
    match top {
        "f" | "u" | "g" | "users" | "groups" => locate_in_folder(path).or_else(|| locate_file(path)),
        "dependencies" => Some(Part { kind: ItemKind::WorkspaceDependencies, base: below, rest: "", role: Role::Main }),
        "migrations" => locate_migration(path),
        _ => None,
    }
}

/// Returns the item of a file that is below a folder that wmill never walks into, within the folder of the item:
/// `x.fileset/.config/a.sql`. wmill pulls such files, and pushes them with the item's others or not at all.
pub fn item_of_hidden_file(path: &str) -> Option<ItemId> {
    if locate(path).is_some() || !["f/", "u/"].iter().any(|top| path.starts_with(top)) {
        return None;
    }
    let part = locate_in_folder(path)?;
    let folder = &path[..path.len() - part.rest.len()];
    (!folder.split('/').any(is_never_walked)).then(|| part.id())
}

/// Returns whether the file is a text of the user that wmill compares by value, because of its name: one of a file
/// resource, a fileset, a script's modules or a raw app. wmill would not write a change of its comments, white space or
/// notation.
pub fn is_text_compared_by_value(path: &str) -> bool {
    let is_parsed = path.ends_with(".yaml") || path.ends_with(".json");
    let is_of_user = |part: Part<'_>| match part.kind {
        ItemKind::Resource => true,
        ItemKind::Script => part.role == Role::Companion,
        ItemKind::RawApp => part.role == Role::Companion && !part.rest.starts_with("backend/"),
        _ => false,
    };
    is_parsed && (file_of_resource(path).is_some() || locate_in_folder(path).is_some_and(is_of_user))
}

fn is_never_walked(folder: &str) -> bool {
    folder.starts_with('.') || folder == "node_modules"
}

/// Splits the path of a file of an item that only one workspace has: the part before the workspace's name, that name,
/// and the rest.
fn workspace_mark(path: &str) -> Option<(&str, &str, &str)> {
    if locate_in_folder(path).is_some() {
        return None;
    }
    let split = match locate_file(path) {
        Some(Part { kind: ItemKind::Variable | ItemKind::Resource | ItemKind::Schedule, base, .. }) => base,
        Some(Part { kind: ItemKind::Trigger(sort), base, .. }) if sort != "native" => base,
        Some(_) => return None,
        None if path.contains("/folder.") => path.strip_suffix(".meta.yaml")?,
        None => path.strip_suffix(".yaml").filter(|base| base.starts_with("settings."))?,
    };
    let (base, workspace) = split.rsplit_once('.')?;
    let is_mark = !base.is_empty() && !base.ends_with('/') && !workspace.is_empty() && !workspace.contains('/');
    is_mark.then(|| (base, workspace, &path[split.len()..]))
}

/// Whether the file belongs, for wmill, to an item that only one workspace has, such as `f/ops/db.shop.resource.yaml`.
pub fn is_for_one_workspace(path: &str) -> bool {
    workspace_mark(path).is_some()
}

/// Returns the path without the name of `workspace`, if the file belongs to an item that only this workspace has.
pub fn common_path(path: &str, workspace: &str) -> Option<String> {
    let (base, marked, rest) = workspace_mark(path)?;
    (marked == workspace).then(|| [base, rest].concat())
}

/// Turns the path of a file of an item that all workspaces have into the path for an item that only `workspace` has.
/// Returns `None` if the item is neither a resource nor a variable.
pub fn path_for_workspace(path: &str, workspace: &str) -> Option<String> {
    let Part { kind, base, .. } = locate_file(path)?;
    let is_own = matches!(kind, ItemKind::Resource | ItemKind::Variable);
    is_own.then(|| [base, ".", workspace, &path[base.len()..]].concat())
}

fn locate_at_top(name: &str) -> Option<Part<'_>> {
    let (kind, base) = match name {
        "settings.yaml" => (ItemKind::Settings, ""),
        KEY_FILE => (ItemKind::Key, ""),
        _ => (ItemKind::ResourceType, stem(name, ".resource-type.yaml")?),
    };
    Some(Part { kind, base, rest: "", role: Role::Main })
}

/// `migrations/datatable/<table>/<timestamp>_<name>.up.sql`
fn locate_migration(path: &str) -> Option<Part<'_>> {
    let base = stem(path, ".up.sql").or_else(|| stem(path, ".down.sql"))?;
    let name = base.strip_prefix("migrations/datatable/")?;
    let (_, record) = name.split_once('/').filter(|(_, record)| !record.contains('/'))?;
    let (timestamp, _) = record.split_once('_')?;
    let numbered = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    numbered.then(|| Part { kind: ItemKind::Migration, base: name, rest: &path[base.len()..], role: Role::Main })
}

/// The endings of folders that are one object, in both layouts, and the files in them that prove that the object
/// exists.
pub(super) const FOLDERS: [(&str, ItemKind, &[&str]); 9] = [
    (".flow", ItemKind::Flow, &["flow.yaml"]),
    ("__flow", ItemKind::Flow, &["flow.yaml"]),
    (".app", ItemKind::App, &["app.yaml"]),
    ("__app", ItemKind::App, &["app.yaml"]),
    (".raw_app", ItemKind::RawApp, &["raw_app.yaml"]),
    ("__raw_app", ItemKind::RawApp, &["raw_app.yaml"]),
    ("__dbt", ItemKind::Script, &["wm_dbt.yaml", "dbt_project.yml"]),
    ("__mod", ItemKind::Script, &[]),
    (".fileset", ItemKind::Resource, &[]),
];

/// Returns the kind of an entry of the export that becomes a folder, and its path: `f/ops/nightly.flow.json`.
pub(super) fn folder_of_entry(entry: &str) -> Option<(ItemKind, &str)> {
    let name = entry.strip_suffix(".json")?;
    let kinds = [(".flow", ItemKind::Flow), (".raw_app", ItemKind::RawApp), (".app", ItemKind::App)];
    kinds.iter().find_map(|(ending, kind)| Some((*kind, name.strip_suffix(ending)?)))
}

/// Returns the main file that wmill makes of an entry of the export: `f/ops/nightly.flow/flow.yaml`.
pub(super) fn file_of_entry(entry: &str, non_dotted_paths: bool) -> String {
    let path = entry.strip_suffix(".json").filter(|_| !entry.starts_with(DEPENDENCIES));
    let Some(path) = path else { return entry.to_owned() };
    let Some((kind, path)) = folder_of_entry(entry) else { return [path, ".yaml"].concat() };
    let (mark, word) = (if non_dotted_paths { "__" } else { "." }, kind.to_string().replace(' ', "_"));
    [path, mark, &word, "/", &word, ".yaml"].concat()
}

/// Finds the object whose folder the file is in. The outermost folder with such an ending decides.
fn locate_in_folder(path: &str) -> Option<Part<'_>> {
    path.match_indices('/').find_map(|(slash, _)| {
        let (folder, rest) = (&path[..slash], &path[slash + 1..]);
        FOLDERS.into_iter().find_map(|(ending, kind, mains)| {
            let base = stem(folder, ending)?;
            let role = match ending {
                "__mod" => module_role(rest),
                _ if mains.contains(&rest) => Role::Main,
                _ => Role::Companion,
            };
            Some(Part { kind, base, rest, role })
        })
    })
}

/// Returns the role of a file in `x__mod/`. `script.…` has the role that `x.…` has beside that folder.
fn module_role(rest: &str) -> Role {
    match rest.strip_prefix("script.") {
        Some("yaml") => Role::NamesItself,
        Some("lock") => Role::Lock,
        Some("json") | None => Role::Companion,
        Some(_) => Role::Main,
    }
}

/// The endings of scripts' content, each after those that end in it. wmill accepts `.js`, although it never writes it.
const SCRIPT_ENDINGS: &str = ".fetch.ts .deno.ts .bun.ts .ts .js .py .go .sh .pg.sql .my.sql .bq.sql .odb.sql .sf.sql \
                              .ms.sql .duckdb.sql .sql .gql .ps1 .php .rs .cs .nu .java .rb .r .playbook.yml";
/// The sorts of triggers, except native ones.
const TRIGGERS: [&str; 11] =
    ["http", "websocket", "kafka", "nats", "postgres", "mqtt", "amqp", "sqs", "gcp", "azure", "email"];

/// The endings of objects that are one YAML file, alone or with companions, and of files beside a script.
const FILE_ENDINGS: [(&str, ItemKind, Role); 11] = [
    (".app.yaml", ItemKind::App, Role::Main),
    (".resource-type.yaml", ItemKind::ResourceType, Role::Main),
    (".variable.yaml", ItemKind::Variable, Role::Main),
    (".schedule.yaml", ItemKind::Schedule, Role::Main),
    (".user.yaml", ItemKind::User, Role::Main),
    (".group.yaml", ItemKind::Group, Role::Main),
    // `f/ops/hook.script.77.nextcloud_native_trigger.yaml`: the service stays in the path, to distinguish the trigger.
    ("_native_trigger.yaml", ItemKind::Trigger("native"), Role::Main),
    (".resource.yaml", ItemKind::Resource, Role::NamesItself),
    (".script.yaml", ItemKind::Script, Role::NamesItself),
    (".script.json", ItemKind::Script, Role::Lock),
    (".script.lock", ItemKind::Script, Role::Lock),
];

fn locate_file(path: &str) -> Option<Part<'_>> {
    let ending = || FILE_ENDINGS.iter().find_map(|(ending, kind, role)| Some((*kind, stem(path, ending)?, *role)));
    let (kind, base, role) = file_of_resource(path)
        .map(|base| (ItemKind::Resource, base, Role::Companion))
        .or_else(|| script_stem(path).map(|base| (ItemKind::Script, base, Role::Main)))
        .or_else(|| trigger(path).map(|(base, sort)| (ItemKind::Trigger(sort), base, Role::Main)))
        .or_else(ending)?;
    let folder = match kind {
        ItemKind::User => "users/",
        ItemKind::Group => "groups/",
        _ => "",
    };
    Some(Part { kind, base: base.strip_prefix(folder).unwrap_or(base), rest: &path[base.len()..], role })
}

/// Returns `f/ops/notes` for `f/ops/notes.resource.file.txt`.
fn file_of_resource(path: &str) -> Option<&str> {
    let (base, ending) = path.rsplit_once(".resource.file.")?;
    (!base.ends_with('/') && !ending.contains('.')).then_some(base)
}

/// Returns `f/ops/hook` and `http` for `f/ops/hook.http_trigger.yaml`.
fn trigger(path: &str) -> Option<(&str, &'static str)> {
    let name = path.strip_suffix("_trigger.yaml")?;
    TRIGGERS.iter().find_map(|sort| Some((stem(name, &[".", sort].concat())?, *sort)))
}

fn script_stem(path: &str) -> Option<&str> {
    SCRIPT_ENDINGS.split(' ').find_map(|ending| stem(path, ending))
}

/// Returns `path` without `ending`, if a name is left.
fn stem<'a>(path: &'a str, ending: &str) -> Option<&'a str> {
    path.strip_suffix(ending).filter(|base| !base.is_empty() && !base.ends_with('/'))
}

/// Whether wmill would treat a user's file at this path as a script, and delete it if the workspace has no such script.
/// Such a file lies under `f/` or `u/` and has a script's ending.
pub fn is_script_file_under_windmill(path: &str) -> bool {
    locate(path).is_some() && ["f/", "u/"].iter().any(|top| path.starts_with(top)) && script_stem(path).is_some()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The files that wmill 1.819.0 wrote for the recorded workspace, plus items of more kinds, and the object of each
    /// file.
    pub(crate) const DOTTED: &[(&str, &str)] = &[
        ("c_shop.resource-type.yaml", "resource type c_shop"),
        ("dependencies/package.json", "workspace dependencies package.json"),
        ("encryption_key.yaml", "encryption key"),
        ("f/app_custom/folder.meta.yaml", ""),
        ("f/app_groups/folder.meta.yaml", ""),
        ("f/app_themes/folder.meta.yaml", ""),
        ("f/app_themes/theme_0.resource.yaml", "resource f/app_themes/theme_0"),
        ("f/ops/a.script.77.nextcloud_native_trigger.yaml", "native trigger f/ops/a.script.77.nextcloud"),
        ("f/ops/book.playbook.yml", "script f/ops/book"),
        ("f/ops/book.script.lock", "script f/ops/book"),
        ("f/ops/book.script.yaml", "script f/ops/book"),
        ("f/ops/db.resource.yaml", "resource f/ops/db"),
        ("f/ops/db_password.variable.yaml", "variable f/ops/db_password"),
        ("f/ops/den.deno.ts", "script f/ops/den"),
        ("f/ops/den.script.lock", "script f/ops/den"),
        ("f/ops/den.script.yaml", "script f/ops/den"),
        ("f/ops/every_night.schedule.yaml", "schedule f/ops/every_night"),
        ("f/ops/folder.meta.yaml", ""),
        ("f/ops/hook.http_trigger.yaml", "http trigger f/ops/hook"),
        ("f/ops/job_00000.script.yaml", "script f/ops/job_00000"),
        ("f/ops/job_00000.ts", "script f/ops/job_00000"),
        ("f/ops/job_00002.script.yaml", "script f/ops/job_00002"),
        ("f/ops/job_00002.sh", "script f/ops/job_00002"),
        ("f/ops/job_00004.go", "script f/ops/job_00004"),
        ("f/ops/job_00004.script.yaml", "script f/ops/job_00004"),
        ("f/ops/job_00006.py", "script f/ops/job_00006"),
        ("f/ops/job_00006.script.lock", "script f/ops/job_00006"),
        ("f/ops/job_00006.script.yaml", "script f/ops/job_00006"),
        ("f/ops/kaf.kafka_trigger.yaml", "kafka trigger f/ops/kaf"),
        ("f/ops/many.fileset/a.txt", "resource f/ops/many"),
        ("f/ops/many.fileset/b/c.py", "resource f/ops/many"),
        ("f/ops/many.resource.yaml", "resource f/ops/many"),
        ("f/ops/modular__mod/deep/two.lock", "script f/ops/modular"),
        ("f/ops/modular__mod/deep/two.ts", "script f/ops/modular"),
        ("f/ops/modular__mod/lib.ts", "script f/ops/modular"),
        ("f/ops/modular__mod/script.lock", "script f/ops/modular"),
        ("f/ops/modular__mod/script.ts", "script f/ops/modular"),
        ("f/ops/modular__mod/script.yaml", "script f/ops/modular"),
        ("f/ops/nightly.flow/a.inline_script.ts", "flow f/ops/nightly"),
        ("f/ops/nightly.flow/flow.yaml", "flow f/ops/nightly"),
        ("f/ops/notes.resource.file.txt", "resource f/ops/notes"),
        ("f/ops/notes.resource.yaml", "resource f/ops/notes"),
        ("f/ops/rawy.raw_app/.env", "raw app f/ops/rawy"),
        ("f/ops/rawy.raw_app/backend/a.lock", "raw app f/ops/rawy"),
        ("f/ops/rawy.raw_app/backend/a.ts", "raw app f/ops/rawy"),
        ("f/ops/rawy.raw_app/backend/a.yaml", "raw app f/ops/rawy"),
        ("f/ops/rawy.raw_app/index.tsx", "raw app f/ops/rawy"),
        ("f/ops/rawy.raw_app/package.json", "raw app f/ops/rawy"),
        ("f/ops/rawy.raw_app/raw_app.yaml", "raw app f/ops/rawy"),
        ("f/ops/region.variable.yaml", "variable f/ops/region"),
        ("f/sales/board.app/app.yaml", "app f/sales/board"),
        ("f/sales/board.app/load.inline_script.ts", "app f/sales/board"),
        ("f/sales/folder.meta.yaml", ""),
        ("f/sales/job_00001.py", "script f/sales/job_00001"),
        ("f/sales/job_00001.script.lock", "script f/sales/job_00001"),
        ("f/sales/job_00001.script.yaml", "script f/sales/job_00001"),
        ("f/sales/job_00003.pg.sql", "script f/sales/job_00003"),
        ("f/sales/job_00003.script.yaml", "script f/sales/job_00003"),
        ("f/sales/job_00005.script.yaml", "script f/sales/job_00005"),
        ("f/sales/job_00005.ts", "script f/sales/job_00005"),
        ("f/sales/shop.resource.yaml", "resource f/sales/shop"),
        ("groups/oncall.group.yaml", "group oncall"),
        ("settings.yaml", "settings"),
        ("u/admin/note.variable.yaml", "variable u/admin/note"),
        ("users/admin@windmill.dev.user.yaml", "user admin@windmill.dev"),
        ("wmill-lock.yaml", ""),
        ("wmill.yaml", ""),
    ];

    /// The files that differ with `nonDottedPaths`.
    pub(crate) const NON_DOTTED: &[(&str, &str)] = &[
        ("f/ops/nightly__flow/a.ts", "flow f/ops/nightly"),
        ("f/ops/nightly__flow/flow.yaml", "flow f/ops/nightly"),
        ("f/ops/rawy__raw_app/.env", "raw app f/ops/rawy"),
        ("f/ops/rawy__raw_app/backend/a.lock", "raw app f/ops/rawy"),
        ("f/ops/rawy__raw_app/backend/a.ts", "raw app f/ops/rawy"),
        ("f/ops/rawy__raw_app/backend/a.yaml", "raw app f/ops/rawy"),
        ("f/ops/rawy__raw_app/index.tsx", "raw app f/ops/rawy"),
        ("f/ops/rawy__raw_app/package.json", "raw app f/ops/rawy"),
        ("f/ops/rawy__raw_app/raw_app.yaml", "raw app f/ops/rawy"),
        ("f/sales/board__app/app.yaml", "app f/sales/board"),
        ("f/sales/board__app/load.ts", "app f/sales/board"),
    ];

    #[track_caller]
    fn check(path: &str, item: &str) {
        assert_eq!(item_of(path).map_or_else(String::new, |id| id.to_string()), item, "{path}");
    }

    #[test]
    fn every_file_that_wmill_writes_belongs_to_its_object() {
        for (path, item) in DOTTED.iter().chain(NON_DOTTED) {
            check(path, item);
        }
    }

    #[test]
    fn a_file_with_the_ending_of_any_language_is_a_script() {
        for ending in SCRIPT_ENDINGS.split(' ') {
            check(&format!("f/ops/job{ending}"), "script f/ops/job");
            assert!(is_script_file_under_windmill(&format!("f/ops/job{ending}")));
        }
        for name in ["job.yml", "job.lock", "job.txt", ".ts", "job", "job.script", "job.TS", "job.yaml"] {
            check(&format!("f/ops/{name}"), "");
        }
        check("u/admin/job.script.json", "script u/admin/job");
        check("f/ops/x__dbt/models/a.sql", "script f/ops/x");
        check("f/ops/v1.2.script.yaml", "script f/ops/v1.2");
        check("f/ops/v1.2.py", "script f/ops/v1.2");
    }

    #[test]
    fn the_outermost_folder_with_an_ending_decides() {
        check("f/ops/a.raw_app/b.flow/flow.yaml", "raw app f/ops/a");
        check("f/ops/a__raw_app/x__mod/b.ts", "raw app f/ops/a");
        check("f/ops/a.flow", "");
        check("f/ops/.flow/flow.yaml", "");
        check("f/ops/flow/flow.yaml", "");
        check("f/a.flow/x/y.sh", "flow f/a");
    }

    #[test]
    fn files_that_are_not_windmills_belong_to_no_item() {
        for path in [
            "",
            "/",
            "README.md",
            "job.py",
            "wmill.yaml",
            "wmill-lock.yaml",
            "locks/package.json.lock",
            "docs/x.flow/flow.yaml",
            "docs/a.variable.yaml",
            "x.variable.yaml",
            "f/ops/settings.yaml",
            "f/ops/encryption_key.yaml",
            "f/ops/folder.meta.yaml",
            "f/ops/folder.prod.meta.yaml",
            "f/ops/region.variable.json",
            "f/node_modules/x/index.js",
            "f/.venv/x.py",
            ".wmill/f/ops/job.py",
            "migrations/datatable/main/12_a.sql",
            "migrations/datatable/main/x_a.up.sql",
            "migrations/datatable/main/deeper/12_a.up.sql",
        ] {
            check(path, "");
        }
        check("migrations/datatable/main/12_a.up.sql", "migration main/12_a");
        check("migrations/datatable/main/12_a.down.sql", "migration main/12_a");
    }

    #[test]
    fn scripts_under_windmills_folders_are_recognized() {
        for path in ["f/ops/util.py", "u/admin/x.ts", "f/ops/a.flow/x.sh"] {
            assert!(is_script_file_under_windmill(path), "{path}");
        }
        for path in ["util.py", "src/util.py", "f/ops/util.py.txt", "f/ops/x.variable.yaml", "g/x.py", "f/.ci/x.sh"] {
            assert!(!is_script_file_under_windmill(path), "{path}");
        }
    }

    #[test]
    fn a_folder_of_the_other_layout_is_found_anywhere() {
        for (path, non_dotted) in [("docs/x.flow/a", true), ("f/x__raw_app/a", false), ("x.app/y/z", true)] {
            assert!(is_in_other_layout(path, non_dotted), "{path}");
            assert!(!is_in_other_layout(path, !non_dotted), "{path}");
        }
        assert!(!is_in_other_layout("f/x.flow", true));
        assert!(!is_in_other_layout("f/x__mod/a", false));
    }

    #[test]
    fn a_file_below_a_dot_folder_of_an_item_belongs_to_that_item() {
        let of = |path: &str| item_of_hidden_file(path).map(|item| item.to_string()).unwrap_or_default();
        assert_eq!(of("f/ops/set.fileset/.config/a.sql"), "resource f/ops/set");
        assert_eq!(of("f/ops/ui.raw_app/a/node_modules/b/c.js"), "raw app f/ops/ui");
        assert_eq!(of("f/ops/ui.raw_app/.github/workflows/ci.yml"), "raw app f/ops/ui");
        assert_eq!(of("f/ops/m__mod/.x/y.ts"), "script f/ops/m");
        for path in [
            "f/ops/set.fileset/a.sql",
            "f/.venv/set.fileset/a.sql",
            "f/ops/.x/a.py",
            "x.fileset/.a/b",
            "f/ops/ui.raw_app/.env",
            "f/.github/x.raw_app/a",
            ".github/workflows/ci.yml",
        ] {
            assert_eq!(of(path), "", "{path}");
        }
    }

    #[test]
    fn the_place_of_a_word_in_a_path_shows_a_file_of_one_workspace() {
        let check = |path: &str, workspace: &str, common: Option<&str>| {
            assert_eq!(common_path(path, workspace).as_deref(), common, "{path} in {workspace}");
        };
        check("f/ops/db.shop.resource.yaml", "shop", Some("f/ops/db.resource.yaml"));
        check("f/ops/db.shop.variable.yaml", "shop", Some("f/ops/db.variable.yaml"));
        check("f/ops/n.shop.resource.file.txt", "shop", Some("f/ops/n.resource.file.txt"));
        check("f/ops/h.shop.http_trigger.yaml", "shop", Some("f/ops/h.http_trigger.yaml"));
        check("f/ops/folder.shop.meta.yaml", "shop", Some("f/ops/folder.meta.yaml"));
        check("settings.shop.yaml", "shop", Some("settings.yaml"));
        check("f/ops/db.resource.resource.yaml", "resource", Some("f/ops/db.resource.yaml"));
        check("f/ops/db.shop.resource.yaml", "other", None);
        for (path, workspace) in [
            ("f/ops/job.script.yaml", "script"),
            ("f/ops/job.script.lock", "script"),
            ("f/ops/db.resource.yaml", "resource"),
            ("f/ops/n.resource.file.txt", "resource"),
            ("f/ops/n.resource.file.txt", "file"),
            ("f/ops/v.variable.yaml", "variable"),
            ("f/ops/q.pg.sql", "pg"),
            ("f/ops/a.script.77.nextcloud_native_trigger.yaml", "script"),
            ("f/ops/set.fileset/a.shop.resource.yaml", "shop"),
            ("f/ops/folder.meta.yaml", "folder"),
            ("settings.yaml", "settings"),
        ] {
            check(path, workspace, None);
        }
        assert_eq!(path_for_workspace("f/ops/db.resource.yaml", "a").as_deref(), Some("f/ops/db.a.resource.yaml"));
        let file = path_for_workspace("f/ops/n.resource.file.txt", "a");
        assert_eq!(file.as_deref(), Some("f/ops/n.a.resource.file.txt"));
        assert_eq!(path_for_workspace("f/ops/job.script.yaml", "a"), None);
    }

    #[test]
    fn kinds_cover_only_the_items_that_they_export() {
        let mut kinds = Kinds::usual();
        for (word, is_exported) in [("apps", false), ("users", true), ("secrets", false)] {
            kinds.set(word, is_exported);
        }
        let covered = |path: &str| covers(&item_of(path).unwrap(), &kinds);
        for path in ["f/a.py", "f/a.flow/flow.yaml", "f/a.variable.yaml", "f/a.schedule.yaml", "users/a.user.yaml"] {
            assert!(covered(path), "{path}");
        }
        for path in ["f/a.app/app.yaml", "f/a.raw_app/raw_app.yaml", "settings.yaml", "encryption_key.yaml"] {
            assert!(!covered(path), "{path}");
        }
    }
}
