//! What a path in the backup's tree says about the Windmill object that it belongs to, and what follows from it: which
//! objects a change deletes, and what in the tree is a secret in plain text. It reads no files and asks nobody: it is
//! handed paths, object ids and bytes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::wmill_yaml::{Kinds, Shape, fields};

/// wmill's list of the hashes of what it pulled.
pub const WMILL_LOCK: &str = "wmill-lock.yaml";
/// The workspace's encryption key.
pub const KEY_FILE: &str = "encryption_key.yaml";
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
        KEY_FILE => Some(Part::new(ItemKind::Key, "", "", Role::Main)),
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

/// Is shown a file: its path, and its content before and after (git's object id, or whatever else is equal for equal
/// content).
pub type Visitor<'v> = dyn FnMut(&str, Option<&str>, Option<&str>) + 'v;

/// The objects that were there before and are not after. `each` shows all files, in the order of their paths, and is
/// asked to do so once more where something is gone. Of the objects that stay, no more is held than a number each.
///
/// An object exists where one of its main files does (a script's content or metadata, `flow.yaml`, …): what wmill
/// leaves in a deleted flow's folder because it does not know it, does not keep the flow alive. A deleted object that
/// reappears elsewhere with the same content was moved; each new object can excuse one deleted only.
///
/// # Errors
/// Those of `each`.
pub fn deletions<E>(each: &dyn Fn(&mut Visitor<'_>) -> Result<(), E>, kinds: &Kinds) -> Result<Deletions, E> {
    let hasher = RandomState::new();
    let (mut known, mut losing) = (HashSet::new(), BTreeSet::new());
    each(&mut |path, before, after| {
        if let Some(part) = covered(path, kinds).filter(|part| part.exists() && before.is_some()) {
            let id = part.id();
            known.insert(hasher.hash_one(&id));
            if after.is_none() {
                losing.insert(id);
            }
        }
    })?;
    let mut deleted = Vec::new();
    if losing.is_empty() {
        return Ok(Deletions { total: known.len(), deleted });
    }
    let (mut lost, mut arrived) = (BTreeMap::new(), BTreeMap::new());
    each(&mut |path, before, after| {
        let Some(part) = covered(path, kinds) else { return };
        let id = part.id();
        if losing.contains(&id) {
            let object: &mut Object = lost.entry(id).or_default();
            object.stays |= part.exists() && after.is_some();
            object.add(&part, before);
        } else if !known.contains(&hasher.hash_one(&id)) {
            let object: &mut Object = arrived.entry(id).or_default();
            object.stays |= part.exists() && after.is_some();
            object.add(&part, after);
        }
    })?;
    let mut arrived: Vec<_> =
        arrived.iter().filter(|(_, object)| object.stays).map(|(id, object)| object.identity(id.kind)).collect();
    for (id, object) in lost.iter().filter(|(_, object)| !object.stays) {
        let identity = object.identity(id.kind);
        match arrived.iter().position(|other| *other == identity) {
            Some(place) => drop(arrived.swap_remove(place)),
            None => deleted.push(id.clone()),
        }
    }
    Ok(Deletions { total: known.len(), deleted })
}

fn covered<'a>(path: &'a str, kinds: &Kinds) -> Option<Part<'a>> {
    locate(path).filter(|part| covers(&part.id(), kinds))
}

/// What two copies of one object at different paths have in common.
type Identity<'a> = (ItemKind, &'a [(String, String)]);

#[derive(Default)]
struct Object {
    /// Whether it exists after the change.
    stays: bool,
    /// Each file's name within the object, and its content.
    comparable: Vec<(String, String)>,
    /// The same of what can name its own path.
    naming: Vec<(String, String)>,
}

impl Object {
    fn add(&mut self, part: &Part<'_>, blob: Option<&str>) {
        let Some(blob) = blob else { return };
        let file = (part.rest.to_owned(), blob.to_owned());
        match part.role {
            Role::Main | Role::Companion => self.comparable.push(file),
            Role::NamesItself => self.naming.push(file),
            Role::Lock => {}
        }
    }

    fn identity(&self, kind: ItemKind) -> Identity<'_> {
        let files = if self.comparable.is_empty() { &self.naming } else { &self.comparable };
        // In the order of their paths, as trees are listed, and so in the same order wherever the object lies.
        (kind, files)
    }
}

/// Whether this is the workspace's encryption key.
#[must_use]
pub fn is_encryption_key(path: &str) -> bool {
    matches!(path, KEY_FILE | "encryption_key.json")
}

/// Whether this is a secret variable whose value anybody can read.
///
/// A file that cannot be parsed, or not with bounded effort, counts as one where it says that it is secret: it cannot be shown
/// to be encrypted. Where it does not say so, there is nothing to protect.
#[must_use]
pub fn is_plaintext_secret(path: &str, content: &[u8]) -> bool {
    if !path.ends_with(".variable.yaml") && !path.ends_with(".variable.json") {
        return false;
    }
    let wanted = |key: &str| matches!(key, "value" | "is_secret");
    let Ok(fields) = fields(content, VARIABLE_BYTES_MAX, VARIABLE_BYTES_MAX, wanted) else {
        return claims_to_be_secret(content);
    };
    let field = |name| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    if field("is_secret") != Some(&Shape::Bool(true)) {
        return false;
    }
    match field("value") {
        None | Some(Shape::Empty) => false,
        Some(Shape::Text(value)) => !(value.is_empty() || is_reference(value) || is_ciphertext(value)),
        Some(_) => true,
    }
}

/// Whether the file of a variable says that it is secret, or does not let itself be read.
#[must_use]
pub fn is_secret_variable(content: &[u8]) -> bool {
    match fields(content, VARIABLE_BYTES_MAX, VARIABLE_BYTES_MAX, |key| key == "is_secret") {
        Ok(fields) => fields.iter().any(|(key, value)| key == "is_secret" && *value != Shape::Bool(false)),
        Err(_) => true,
    }
}

/// The file of a schedule or a trigger with its switch off; `None` where that cannot be done.
#[must_use]
pub fn disabled(content: &[u8]) -> Option<Vec<u8>> {
    let mut text = String::new();
    for line in std::str::from_utf8(content).ok()?.lines() {
        // Either is a switch, in older and newer versions.
        let is_mode = ["enabled", "suspended"].iter().any(|mode| line.trim_end() == ["mode: ", mode].concat());
        if !line.starts_with("enabled:") {
            text.push_str(if is_mode { "mode: disabled" } else { line });
            text.push('\n');
        }
    }
    text.push_str("enabled: false\n");
    let read = fields(text.as_bytes(), VARIABLE_BYTES_MAX, VARIABLE_BYTES_MAX, |key| matches!(key, "enabled" | "mode"));
    let is_off = read.ok()?.iter().all(|(key, value)| match key.as_str() {
        "enabled" => *value == Shape::Bool(false),
        "mode" => *value == Shape::Text("disabled".to_owned()),
        _ => true,
    });
    is_off.then(|| text.into_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What wmill 1.819.0 wrote of the recorded workspace, with items of more kinds put beside it, and the object of
    /// each file.
    const DOTTED: &[(&str, &str)] = &[
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

    /// The same with `nonDottedPaths`, where it differs.
    const NON_DOTTED: &[(&str, &str)] = &[
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
    fn a_script_is_one_whatever_its_language() {
        for ending in SCRIPT_ENDINGS {
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
    fn what_is_not_windmills_is_no_item() {
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
    fn scripts_under_windmills_folders_are_told_from_other_files() {
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
    fn kinds_cover_what_they_take_out() {
        let kinds = Kinds { skip_apps: true, include_users: true, skip_secrets: true, ..Kinds::default() };
        let covered = |path: &str| covers(&item_of(path).unwrap(), &kinds);
        for path in ["f/a.py", "f/a.flow/flow.yaml", "f/a.variable.yaml", "f/a.schedule.yaml", "users/a.user.yaml"] {
            assert!(covered(path), "{path}");
        }
        for path in ["f/a.app/app.yaml", "f/a.raw_app/raw_app.yaml", "settings.yaml", "encryption_key.yaml"] {
            assert!(!covered(path), "{path}");
        }
    }

    #[track_caller]
    fn check_deletions(before: &[(&str, &str)], after: &[(&str, &str)], total: usize, deleted: &[&str]) {
        let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (before.iter().copied().collect(), after.iter().copied().collect());
        let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let each = |visit: &mut Visitor<'_>| {
            paths.iter().for_each(|path| visit(path, before.get(*path).copied(), after.get(*path).copied()));
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(found) = deletions(&each, &Kinds::default());
        let names: Vec<String> = found.deleted.iter().map(ToString::to_string).collect();
        assert_eq!((found.total, names), (total, deleted.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn an_object_is_deleted_once_whatever_its_files() {
        let all: Vec<(&str, &str)> = DOTTED.iter().map(|(path, _)| (*path, *path)).collect();
        check_deletions(&all, &all, 28, &[]);
        let without = |gone: &str| {
            let kept = DOTTED.iter().filter(|(_, item)| *item != gone);
            kept.map(|(path, _)| (*path, *path)).collect::<Vec<_>>()
        };
        for item in ["script f/ops/modular", "flow f/ops/nightly", "raw app f/ops/rawy", "resource f/ops/many"] {
            check_deletions(&all, &without(item), 28, &[item]);
        }
        // Not covered by default.
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
    fn what_wmill_leaves_in_a_folder_does_not_keep_the_object_alive() {
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
    fn one_new_object_excuses_one_deleted() {
        let two = [("f/a.py", "1"), ("f/b.py", "1")];
        check_deletions(&two, &[("f/c.py", "1")], 2, &["script f/b"]);
        check_deletions(&two, &[("f/c.py", "1"), ("f/d.py", "1")], 2, &[]);
        // What was there already is no new object.
        check_deletions(&two, &[("f/a.py", "1")], 2, &["script f/b"]);
    }

    #[test]
    fn many_deletions_are_refused_from_ten_on_and_all_of_them_always() {
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

    #[track_caller]
    fn check_secret(value: &str, plain: bool) {
        let file = format!("description: ''\nvalue: {value}\nis_secret: true\n");
        assert_eq!(is_plaintext_secret("f/ops/x.variable.yaml", file.as_bytes()), plain, "{value}");
        let open = file.replace("true", "false");
        assert!(!is_plaintext_secret("f/ops/x.variable.yaml", open.as_bytes()));
        assert!(!is_plaintext_secret("f/ops/x.resource.yaml", file.as_bytes()));
    }

    #[test]
    fn a_secret_is_plain_unless_it_has_the_form_of_ciphertext() {
        check_secret("/rI8+JnEOK6guDBXVVg1DAhayL1Z+Zoj0nzLMy2BSJU=", false);
        check_secret("/rI8+JnEOK6guDBXVVg1DAhayL1Z+Zoj0nzLMy2BSJU", true);
        check_secret("hunter2", true);
        check_secret("aGVsbG8=", true);
        check_secret("''", false);
        check_secret("", false);
        check_secret("$vault:shop/db", false);
        check_secret("$aws_sm:x", false);
        check_secret("$ecret", true);
        check_secret("'$ecret: x y'", false);
        check_secret("'$3cret: x'", true);
        check_secret("12345", true);
        check_secret("[a]", true);
        let key = "0123456789abcdef".repeat(4);
        check_secret(&format!("'{key}'"), true);
        check_secret(&format!("'{}'", key.replace("ef", "gh")), false);
    }

    #[test]
    fn an_unreadable_variable_counts_where_it_says_that_it_is_secret() {
        let path = "f/ops/x.variable.yaml";
        assert!(is_plaintext_secret(path, b"value: [\nis_secret: true\n"));
        assert!(is_plaintext_secret(path, b"value: \xff\n  \"is_secret\" :  true # yes\n"));
        assert!(!is_plaintext_secret(path, b"value: [\nis_secret: false\n"));
        let long = "x".repeat(VARIABLE_BYTES_MAX);
        assert!(is_plaintext_secret(path, format!("value: {long}\nis_secret: true\n").as_bytes()));
        assert!(is_plaintext_secret("a.variable.json", br#"{"value":"hunter2","is_secret":true}"#));
    }

    #[test]
    fn the_key_lies_at_the_top() {
        assert!(is_encryption_key("encryption_key.yaml") && is_encryption_key("encryption_key.json"));
        assert!(!is_encryption_key("f/encryption_key.yaml") && !is_encryption_key("encryption_key.yaml.bak"));
    }
}
