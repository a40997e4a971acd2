//! What a path in the backup's tree says about the Windmill object that it belongs to, and what follows from it: which
//! objects a change deletes, and what in the tree is a secret in plain text. It reads no files and asks nobody: it is
//! handed paths, object ids and bytes.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use yaml_serde::Value;

use crate::wmill_yaml::Kinds;

/// A larger variable file is not parsed. Windmill's values of variables are far smaller.
const VARIABLE_BYTES_MAX: usize = 1024 * 1024;
/// Fewer deletions than this are never a mass deletion, unless they are all that there was.
const MASS_DELETION_ITEMS_MIN: usize = 10;
/// Windmill's ciphertext is AES in blocks of this size.
const CIPHER_BLOCK_BYTES: usize = 16;

/// What kind of Windmill object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "Windmill's own words")]
pub enum ItemKind {
    Script,
    Flow,
    App,
    RawApp,
    Resource,
    ResourceType,
    Variable,
    Schedule,
    /// With its sort: `http`, `kafka`, …
    Trigger(&'static str),
    User,
    Group,
    /// A file under `dependencies/`.
    WorkspaceDependencies,
    /// A data table's migration, its way up and its way down together.
    Migration,
    Settings,
    Key,
}

impl fmt::Display for ItemKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Script => "script",
            Self::Flow => "flow",
            Self::App => "app",
            Self::RawApp => "raw app",
            Self::Resource => "resource",
            Self::ResourceType => "resource type",
            Self::Variable => "variable",
            Self::Schedule => "schedule",
            Self::Trigger(sort) => return write!(formatter, "{sort} trigger"),
            Self::User => "user",
            Self::Group => "group",
            Self::WorkspaceDependencies => "workspace dependencies",
            Self::Migration => "migration",
            Self::Settings => "settings",
            Self::Key => "encryption key",
        })
    }
}

/// One Windmill object: `script f/ops/job_00000`, `flow f/ops/nightly`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// What it is.
    pub kind: ItemKind,
    /// Its path in Windmill; for users, groups and resource types the name; empty for settings and key.
    pub path: String,
}

impl fmt::Display for ItemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(formatter, "{}", self.kind),
            path => write!(formatter, "{} {path}", self.kind),
        }
    }
}

/// Which object the file at `path` belongs to; the path is relative to the backup's folder.
///
/// Both layouts are understood, so that a repository that changes from one to the other deletes nothing. `None`:
/// `folder.meta.yaml`, `wmill-lock.yaml`, `locks/`, and all that is not Windmill's.
#[must_use]
pub fn item_of(path: &str) -> Option<ItemId> {
    locate(path).map(Part::id)
}

/// Whether this sync takes such objects out. Whether a variable is secret cannot be told by its path: variables are
/// covered even where secrets are skipped.
#[must_use]
pub fn covers(item: &ItemId, kinds: &Kinds) -> bool {
    match item.kind {
        ItemKind::Script => !kinds.skip_scripts,
        ItemKind::Flow => !kinds.skip_flows,
        ItemKind::App | ItemKind::RawApp => !kinds.skip_apps,
        ItemKind::Resource => !kinds.skip_resources,
        ItemKind::ResourceType => !kinds.skip_resource_types,
        ItemKind::Variable => !kinds.skip_variables,
        ItemKind::Schedule => kinds.include_schedules,
        ItemKind::Trigger(_) => kinds.include_triggers,
        ItemKind::User => kinds.include_users,
        ItemKind::Group => kinds.include_groups,
        ItemKind::WorkspaceDependencies => !kinds.skip_workspace_dependencies,
        ItemKind::Migration => !kinds.skip_datatable_migrations,
        ItemKind::Settings => kinds.include_settings,
        ItemKind::Key => kinds.include_key,
    }
}

/// Whether some folder of `path` bears a flow's or an app's ending of the layout that is not asked for. wmill refuses
/// to pull into a tree that has such a folder anywhere, outside `f/` and `u/` too.
#[must_use]
pub fn is_in_other_layout(path: &str, non_dotted_paths: bool) -> bool {
    let endings = if non_dotted_paths { [".flow", ".app", ".raw_app"] } else { ["__flow", "__app", "__raw_app"] };
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').any(|folder| endings.iter().any(|ending| folder.ends_with(ending)))
}

/// A file's place in its object.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    kind: ItemKind,
    base: &'a str,
    /// What is left of the file's path without the object's, for comparison between objects.
    rest: &'a str,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The object exists where this file does. Its content tells the object from others.
    Main,
    /// The same, but it can name its own path, so that it differs between two copies of one object.
    NamesItself,
    /// Belongs to the object, and may stay when it is gone: wmill leaves files that it does not know.
    Companion,
    /// A lock: neither proof of existence nor comparable.
    Lock,
}

impl<'a> Part<'a> {
    fn new(kind: ItemKind, base: &'a str, rest: &'a str, role: Role) -> Self {
        Self { kind, base, rest, role }
    }

    fn id(self) -> ItemId {
        ItemId { kind: self.kind, path: self.base.to_owned() }
    }

    fn exists(self) -> bool {
        matches!(self.role, Role::Main | Role::NamesItself)
    }
}

fn locate(path: &str) -> Option<Part<'_>> {
    let Some((top, below)) = path.split_once('/') else {
        return locate_at_top(path);
    };
    // wmill never walks into such folders.
    if path.split('/').rev().skip(1).any(|folder| folder.starts_with('.') || folder == "node_modules") {
        return None;
    }
    match top {
        "f" | "u" | "g" | "users" | "groups" => locate_in_folder(path).or_else(|| locate_file(path)),
        "dependencies" => Some(Part::new(ItemKind::WorkspaceDependencies, below, "", Role::Main)),
        "migrations" => locate_migration(path),
        _ => None,
    }
}

fn locate_at_top(name: &str) -> Option<Part<'_>> {
    match name {
        "settings.yaml" => Some(Part::new(ItemKind::Settings, "", "", Role::Main)),
        "encryption_key.yaml" => Some(Part::new(ItemKind::Key, "", "", Role::Main)),
        _ => {
            let base = stem(name, ".resource-type.yaml")?;
            Some(Part::new(ItemKind::ResourceType, base, "", Role::Main))
        }
    }
}

/// `migrations/datatable/<table>/<timestamp>_<name>.up.sql`
fn locate_migration(path: &str) -> Option<Part<'_>> {
    let base = stem(path, ".up.sql").or_else(|| stem(path, ".down.sql"))?;
    let name = base.strip_prefix("migrations/datatable/")?;
    let (_, record) = name.split_once('/').filter(|(_, record)| !record.contains('/'))?;
    let (timestamp, _) = record.split_once('_')?;
    let numbered = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    numbered.then(|| Part::new(ItemKind::Migration, name, &path[base.len()..], Role::Main))
}

/// Endings of folders that are one object, in both layouts, and the files in them that make it exist.
const FOLDERS: [(&str, ItemKind, &[&str]); 9] = [
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

/// The outermost folder with such an ending decides.
fn locate_in_folder(path: &str) -> Option<Part<'_>> {
    for (slash, _) in path.match_indices('/') {
        let (folder, rest) = (&path[..slash], &path[slash + 1..]);
        for (ending, kind, mains) in FOLDERS {
            if let Some(base) = stem(folder, ending) {
                let role = if ending == "__mod" { module_role(rest) } else { folder_role(rest, mains) };
                return Some(Part::new(kind, base, rest, role));
            }
        }
    }
    None
}

fn folder_role(rest: &str, mains: &[&str]) -> Role {
    if mains.contains(&rest) { Role::Main } else { Role::Companion }
}

/// In `x__mod/`, `script.…` is what `x.…` would be beside it.
fn module_role(rest: &str) -> Role {
    match rest.strip_prefix("script.") {
        Some("yaml") => Role::NamesItself,
        Some("lock") => Role::Lock,
        Some("json") | None => Role::Companion,
        Some(_) => Role::Main,
    }
}

/// Endings of scripts' content, the longer ones first. `.js` is one to wmill although it never writes it.
const SCRIPT_ENDINGS: [&str; 26] = [
    ".fetch.ts",
    ".deno.ts",
    ".bun.ts",
    ".ts",
    ".js",
    ".py",
    ".go",
    ".sh",
    ".pg.sql",
    ".my.sql",
    ".bq.sql",
    ".odb.sql",
    ".sf.sql",
    ".ms.sql",
    ".duckdb.sql",
    ".sql",
    ".gql",
    ".ps1",
    ".php",
    ".rs",
    ".cs",
    ".nu",
    ".playbook.yml",
    ".java",
    ".rb",
    ".r",
];

/// Endings of objects that are one YAML file, or one and companions.
const FILE_ENDINGS: [(&str, ItemKind); 19] = [
    (".app.yaml", ItemKind::App),
    (".resource-type.yaml", ItemKind::ResourceType),
    (".variable.yaml", ItemKind::Variable),
    (".schedule.yaml", ItemKind::Schedule),
    (".user.yaml", ItemKind::User),
    (".group.yaml", ItemKind::Group),
    (".http_trigger.yaml", ItemKind::Trigger("http")),
    (".websocket_trigger.yaml", ItemKind::Trigger("websocket")),
    (".kafka_trigger.yaml", ItemKind::Trigger("kafka")),
    (".nats_trigger.yaml", ItemKind::Trigger("nats")),
    (".postgres_trigger.yaml", ItemKind::Trigger("postgres")),
    (".mqtt_trigger.yaml", ItemKind::Trigger("mqtt")),
    (".amqp_trigger.yaml", ItemKind::Trigger("amqp")),
    (".sqs_trigger.yaml", ItemKind::Trigger("sqs")),
    (".gcp_trigger.yaml", ItemKind::Trigger("gcp")),
    (".azure_trigger.yaml", ItemKind::Trigger("azure")),
    (".email_trigger.yaml", ItemKind::Trigger("email")),
    // `f/ops/hook.script.77.nextcloud_native_trigger.yaml`: the service stays in the path, and tells it from others.
    ("_native_trigger.yaml", ItemKind::Trigger("native")),
    (".resource.yaml", ItemKind::Resource),
];

fn locate_file(path: &str) -> Option<Part<'_>> {
    if let Some(base) = file_of_resource(path) {
        return Some(Part::new(ItemKind::Resource, base, &path[base.len()..], Role::Companion));
    }
    for (ending, role) in
        [(".script.yaml", Role::NamesItself), (".script.json", Role::Lock), (".script.lock", Role::Lock)]
    {
        if let Some(base) = stem(path, ending) {
            return Some(Part::new(ItemKind::Script, base, ending, role));
        }
    }
    if let Some(base) = script_stem(path) {
        return Some(Part::new(ItemKind::Script, base, &path[base.len()..], Role::Main));
    }
    FILE_ENDINGS.iter().find_map(|(ending, kind)| {
        let base = stem(path, ending)?;
        let name = base.strip_prefix("users/").or_else(|| base.strip_prefix("groups/")).unwrap_or(base);
        let role = if *kind == ItemKind::Resource { Role::NamesItself } else { Role::Main };
        Some(Part::new(*kind, name, ending, role))
    })
}

/// `f/ops/notes` of `f/ops/notes.resource.file.txt`
fn file_of_resource(path: &str) -> Option<&str> {
    let mut from_the_end = path.rsplitn(4, '.');
    let (_, file, resource) = (from_the_end.next()?, from_the_end.next()?, from_the_end.next()?);
    from_the_end.next().filter(|base| file == "file" && resource == "resource" && !base.ends_with('/'))
}

fn script_stem(path: &str) -> Option<&str> {
    SCRIPT_ENDINGS.iter().find_map(|ending| stem(path, ending))
}

/// `path` without `ending`, where a name is left.
fn stem<'a>(path: &'a str, ending: &str) -> Option<&'a str> {
    path.strip_suffix(ending).filter(|base| !base.is_empty() && !base.ends_with('/'))
}

/// Whether a person's file at this path would be taken for a script by wmill, and deleted where the workspace has none
/// such: it lies under `f/` or `u/` and has a script's ending.
#[must_use]
pub fn is_script_file_under_windmill(path: &str) -> bool {
    locate(path).is_some() && ["f/", "u/"].iter().any(|top| path.starts_with(top)) && script_stem(path).is_some()
}

/// A file of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeFile<'a> {
    /// Relative to the backup's folder.
    pub path: &'a str,
    /// git's object id, or whatever else is equal for equal content.
    pub blob: &'a str,
}

/// What a change does to the objects that were there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletions {
    /// The objects before, of the kinds that are covered.
    pub total: usize,
    /// Those of them that are gone and did not reappear elsewhere, in order.
    pub deleted: Vec<ItemId>,
}

impl Deletions {
    /// Whether these are too many: at least 10 and more than this share, or all that there was.
    #[must_use]
    pub fn exceeds(&self, percent_max: u8) -> bool {
        let deleted = self.deleted.len();
        let share_exceeded = deleted.saturating_mul(100) > self.total.saturating_mul(usize::from(percent_max));
        (deleted >= MASS_DELETION_ITEMS_MIN && share_exceeded) || (deleted > 0 && deleted == self.total)
    }
}

/// The objects of `before` that `after` does not have.
///
/// An object exists where one of its main files does (a script's content or metadata, `flow.yaml`, …): what wmill
/// leaves in a deleted flow's folder because it does not know it, does not keep the flow alive. A deleted object that
/// reappears elsewhere with the same content was moved; each new object can excuse one deleted only.
#[must_use]
pub fn deletions(before: &[TreeFile<'_>], after: &[TreeFile<'_>], kinds: &Kinds) -> Deletions {
    let before = objects(before, kinds);
    let after = objects(after, kinds);
    let mut arrived: BTreeMap<Identity<'_>, usize> = BTreeMap::new();
    for (id, object) in &after {
        if !before.contains_key(id) {
            *arrived.entry(object.identity(id.kind)).or_default() += 1;
        }
    }
    let mut deleted = Vec::new();
    for (id, object) in &before {
        if after.contains_key(id) {
            continue;
        }
        match arrived.get_mut(&object.identity(id.kind)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => deleted.push(id.clone()),
        }
    }
    Deletions { total: before.len(), deleted }
}

/// What two copies of one object at different paths have in common.
type Identity<'a> = (ItemKind, Vec<(&'a str, &'a str)>);

#[derive(Default)]
struct Object<'a> {
    exists: bool,
    /// Each file's name within the object, and its content.
    comparable: Vec<(&'a str, &'a str)>,
    /// The same of what can name its own path.
    naming: Vec<(&'a str, &'a str)>,
}

impl<'a> Object<'a> {
    fn identity(&self, kind: ItemKind) -> Identity<'a> {
        let files = if self.comparable.is_empty() { &self.naming } else { &self.comparable };
        let mut files = files.clone();
        files.sort_unstable();
        (kind, files)
    }
}

fn objects<'a>(files: &[TreeFile<'a>], kinds: &Kinds) -> BTreeMap<ItemId, Object<'a>> {
    let mut objects: BTreeMap<ItemId, Object<'a>> = BTreeMap::new();
    for file in files {
        let Some(part) = locate(file.path) else {
            continue;
        };
        let id = part.id();
        if !covers(&id, kinds) {
            continue;
        }
        let object = objects.entry(id).or_default();
        object.exists |= part.exists();
        match part.role {
            Role::Main | Role::Companion => object.comparable.push((part.rest, file.blob)),
            Role::NamesItself => object.naming.push((part.rest, file.blob)),
            Role::Lock => {}
        }
    }
    objects.retain(|_, object| object.exists);
    objects
}

/// Whether this is the workspace's encryption key.
#[must_use]
pub fn is_encryption_key(path: &str) -> bool {
    matches!(path, "encryption_key.yaml" | "encryption_key.json")
}

/// Whether this is a secret variable whose value anybody can read.
///
/// A file that cannot be parsed, or is too large, counts as one where it says that it is secret: it cannot be shown
/// to be encrypted. Where it does not say so, there is nothing to protect.
#[must_use]
pub fn is_plaintext_secret(path: &str, content: &[u8]) -> bool {
    if !path.ends_with(".variable.yaml") && !path.ends_with(".variable.json") {
        return false;
    }
    let parsed = if content.len() > VARIABLE_BYTES_MAX { None } else { yaml_serde::from_slice::<Value>(content).ok() };
    let Some(variable) = parsed else {
        return claims_to_be_secret(content);
    };
    if variable.get("is_secret").and_then(Value::as_bool) != Some(true) {
        return false;
    }
    match variable.get("value") {
        None | Some(Value::Null) => false,
        Some(Value::String(value)) => !(value.is_empty() || is_reference(value) || is_ciphertext(value)),
        Some(_) => true,
    }
}

fn claims_to_be_secret(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    text.lines().any(|line| line.split_whitespace().collect::<String>().replace('"', "").starts_with("is_secret:true"))
}

/// `$vault:…`, `$aws_sm:…`, `$var:…`: the secret lies elsewhere. Another text that begins with `$` is none of these.
fn is_reference(value: &str) -> bool {
    let scheme = value.strip_prefix('$').and_then(|reference| reference.split_once(':')).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

/// Base64 of whole cipher blocks. A key in hexadecimal digits can have that form too, and ciphertext hardly ever
/// consists of nothing else.
fn is_ciphertext(value: &str) -> bool {
    let bytes = STANDARD.decode(value).unwrap_or_default();
    !bytes.is_empty()
        && bytes.len().is_multiple_of(CIPHER_BLOCK_BYTES)
        && !value.bytes().all(|byte| byte.is_ascii_hexdigit())
}
