//! The content of a Windmill workspace, as the entries of its export and the answers besides it: recorded, made up, or
//! edited by a test. It knows which entries an export has for which query, and what may be in another order. It knows
//! nothing about HTTP.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use miniserde::json::{self, Object, Value};

/// The recorded releases of Windmill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 1.491.5, an older release that still works.
    V1_491,
    /// 1.743.0, the release for which the product is built.
    #[default]
    V1_743,
}

impl Version {
    pub const ALL: [Self; 2] = [Self::V1_491, Self::V1_743];

    /// Returns the answer of `/api/version`.
    pub fn text(self) -> &'static str {
        match self {
            Self::V1_491 => "CE v1.491.5",
            Self::V1_743 => "CE v1.743.0",
        }
    }

    /// Returns the folder of its recordings.
    pub fn fixtures(self) -> PathBuf {
        let all = super::project().join("tests/fixtures/windmill");
        match self {
            Self::V1_491 => all,
            Self::V1_743 => all.join("1.743.0"),
        }
    }
}

/// Formats a time like Windmill.
pub fn in_nanoseconds(time: SystemTime) -> String {
    time::OffsetDateTime::from(time).format(&time::format_description::well_known::Rfc3339).unwrap()
}

/// An entry of an export: its path and its bytes.
pub type Entry = (String, Vec<u8>);

/// A workspace as Windmill would export it with every kind included, in the order of the export.
#[derive(Clone, Default)]
pub struct Workspace {
    entries: Vec<Entry>,
    /// The decrypted secret variables, by path, which an export with `plain_secret` contains.
    plain: BTreeMap<String, Vec<u8>>,
    /// Recorded answers to requests besides the export, by path and query below `/api/w/{workspace}`.
    recorded: BTreeMap<String, String>,
    /// The answer of `shared_ui/get`. `None` if the workspace has no shared UI.
    pub shared_ui: Option<String>,
    /// The kind and path of each workspace-specific item. `None` if no test or recording sets them.
    pub ws_specific: Option<Vec<(String, String)>>,
    /// The map of file endings, if it does not follow from the resource types.
    pub file_types: Option<String>,
    /// The answer of `users/list`, if it does not follow from the users of the export.
    pub users: Option<String>,
    /// The lines of the lists of `scripts`, `flows` and `apps`, with the last edit at the end. For a recorded
    /// workspace, these are the recorded pages of at most three lines.
    edits: Vec<(String, String)>,
}

impl Workspace {
    pub fn empty() -> Self {
        Self::default()
    }

    /// Returns a recorded state of the newer Windmill: `1-seeded`, `2-edited`, `3-emptied`.
    #[track_caller]
    pub fn recorded(state: &str) -> Self {
        Self::recorded_by(Version::default(), state)
    }

    /// Returns a workspace with the features of the newer Windmill: raw and classic apps, filesets, script modules,
    /// triggers, workspace dependencies, a shared UI, workspace-specific items, labels and permissions.
    #[track_caller]
    pub fn rich() -> Self {
        Self::recorded("rich")
    }

    /// Returns a recorded state of this Windmill.
    #[track_caller]
    pub fn recorded_by(version: Version, state: &str) -> Self {
        let folder = version.fixtures().join(state);
        let is_variable = |(path, _): &Entry| path.ends_with(".variable.json");
        let plain = entries_of_tar(&read(&folder.join("plain-secrets.tar"))).into_iter().filter(is_variable).collect();
        let answer = |exchange: Exchange| {
            let path = exchange.path.strip_prefix("/api/w/")?;
            let right = exchange.status == 200 && exchange.token.is_none();
            Some((path[path.find('/')?..].to_owned(), exchange.body.filter(|_| right)?))
        };
        let recorded: BTreeMap<String, String> = exchanges(version, state).into_iter().filter_map(answer).collect();
        let mut edits = Vec::new();
        for list in ["scripts", "flows", "apps"] {
            let answer = recorded.get(&format!("/{list}/list?per_page=3")).map_or("[]", String::as_str);
            let Ok(Value::Array(lines)) = json::from_str(answer) else { panic!("no list of {list}: {answer}") };
            edits.extend(lines.iter().rev().map(|line| (list.to_owned(), json::to_string(line))));
        }
        let mut entries = entries_of_tar(&read(&folder.join("everything.tar")));
        if version == Version::V1_743 {
            add_what_is_asked_for(&mut entries, entries_of_tar(&read(&folder.join("probe.tar"))));
        }
        let shared_ui = recorded.get("/shared_ui/get").filter(|answer| !answer.contains("\"version\":0")).cloned();
        let ws_specific = recorded.get("/workspaces/list_ws_specific").map(|answer| ws_specific_of(answer));
        let users = recorded.get("/users/list").cloned();
        Self { entries, plain, recorded, shared_ui, ws_specific, file_types: None, users, edits }
    }

    /// Returns a recorded state that `wmill sync push` can restore. For the older Windmill, it gives the app's inline
    /// script the `fields` that Windmill's editor writes: without them, wmill 1.819.0 fails half-way through a push.
    #[track_caller]
    pub fn restorable_by(version: Version, state: &str) -> Self {
        const APP: &str = "f/sales/board.app.json";
        let mut workspace = Self::recorded_by(version, state);
        if version == Version::V1_491 {
            let text = String::from_utf8(workspace.get(APP).expect("an app").to_vec()).unwrap();
            let named = "\"type\": \"runnableByName\",";
            assert!(text.contains(named), "{text}");
            workspace.put(APP, text.replace(named, &format!("{named} \"fields\": {{}},")));
        }
        workspace
    }

    /// Returns a recorded state of the newer Windmill that `wmill sync push` can restore.
    #[track_caller]
    pub fn restorable(state: &str) -> Self {
        Self::restorable_by(Version::default(), state)
    }

    /// Makes a workspace of this many scripts, alternately Bun and Python, in at most ten folders.
    pub fn of_scripts(count: usize) -> Self {
        let mut workspace = Self::empty();
        for folder in 0..count.min(10) {
            workspace.add_folder(&format!("dept_{folder}"));
        }
        for number in 0..count {
            let path = format!("f/dept_{}/job_{number:05}", number % 10);
            match number % 2 {
                0 => workspace.add_bun_script(&path, &format!("job {number}")),
                _ => workspace.add_python_script(&path, &format!("job {number}")),
            }
        }
        workspace
    }

    /// Adds a folder, which every item below `f/` needs.
    pub fn add_folder(&mut self, name: &str) {
        let meta = format!(
            "{{\n  \"extra_perms\": {{\n    \"u/admin\": true\n  }},\n  \"summary\": null,\n  \
             \"display_name\": \"{name}\",\n  \"owners\": [\n    \"u/admin\"\n  ]\n}}"
        );
        self.put(&format!("f/{name}/folder.meta.json"), meta);
    }

    /// Adds a TypeScript script for Bun that returns `result`.
    pub fn add_bun_script(&mut self, path: &str, result: &str) {
        self.put(
            &format!("{path}.ts"),
            format!("export async function main(x: string) {{\n  return `{result} ${{x}}`\n}}\n"),
        );
        self.put(&format!("{path}.script.json"), script_json(result, "null"));
    }

    /// Adds a Python script that returns `result`, with its own lock.
    pub fn add_python_script(&mut self, path: &str, result: &str) {
        self.put(&format!("{path}.py"), format!("def main(x: str = '{result}'):\n    return x\n"));
        let lock = "\"# py311\\n\"";
        self.put(&format!("{path}.script.json"), script_json(result, lock));
    }

    /// Adds a variable. The value of a secret one is ciphertext.
    pub fn add_variable(&mut self, path: &str, value: &str, secret: bool) {
        self.put(
            &format!("{path}.variable.json"),
            format!("{{\n  \"is_secret\": {secret},\n  \"description\": \"\",\n  \"value\": \"{value}\"\n}}"),
        );
    }

    /// Adds a resource of this type. Its value is JSON.
    pub fn add_resource(&mut self, path: &str, resource_type: &str, value: &str) {
        let resource_type = json::to_string(resource_type);
        self.put(
            &format!("{path}.resource.json"),
            format!("{{\n  \"resource_type\": {resource_type},\n  \"description\": \"\",\n  \"value\": {value}\n}}"),
        );
    }

    /// Adds a resource type. A type of files has an ending, a fileset has none.
    pub fn add_resource_type(&mut self, name: &str, format_extension: Option<&str>, is_fileset: bool) {
        let ending = format_extension.map_or_else(|| "null".to_owned(), json::to_string);
        self.put(
            &format!("{name}.resource-type.json"),
            format!(
                "{{\n  \"is_fileset\": {is_fileset},\n  \"format_extension\": {ending},\n  \"schema\": {{\n    \
                 \"type\": \"object\"\n  }},\n  \"description\": \"\"\n}}"
            ),
        );
    }

    /// Adds a fileset with these children, and its type. Windmill accepts children with any name.
    pub fn add_fileset(&mut self, path: &str, children: &[(&str, &str)]) {
        self.add_resource_type(FILESET, None, true);
        self.add_resource(path, FILESET, &object(children, to_text));
    }

    /// Adds a resource that is one file, and its type. Without content, its value is null.
    pub fn add_file_resource(&mut self, path: &str, content: Option<&str>) {
        self.add_resource_type(FILE, Some("ini"), false);
        let value = content.map_or_else(|| "null".to_owned(), |content| object(&[("content", content)], to_text));
        self.add_resource(path, FILE, &value);
    }

    /// Adds a TypeScript script with these modules. Windmill accepts modules with any name.
    pub fn add_script_with_modules(&mut self, path: &str, modules: &[(&str, &str)]) {
        self.add_bun_script(path, "modular");
        let module = |content: &str| {
            format!("{{\"content\": {}, \"language\": \"bun\", \"lock\": \"\"}}", json::to_string(content))
        };
        let meta = script_json("modular", "null");
        let open = meta.strip_suffix("\n}").expect("an object");
        let modules = object(modules, module);
        self.put(&format!("{path}.script.json"), format!("{open},\n  \"modules\": {modules}\n}}"));
    }

    /// Adds a flow with these steps. Each is an inline Bun script: its summary, which names its file, and its content.
    pub fn add_flow(&mut self, path: &str, steps: &[(&str, &str)]) {
        let step = |(number, (summary, content)): (usize, &(&str, &str))| {
            format!(
                "{{\"id\": \"s{number}\", \"summary\": {}, \"value\": {{\"lock\": \"\", \"type\": \"rawscript\", \
                 \"content\": {}, \"language\": \"bun\", \"input_transforms\": {{}}}}}}",
                json::to_string(*summary),
                json::to_string(*content)
            )
        };
        let steps: Vec<_> = steps.iter().enumerate().map(step).collect();
        self.put(
            &format!("{path}.flow.json"),
            format!(
                "{{\n  \"value\": {{\"modules\": [{}]}},\n  \"schema\": {{\"type\": \"object\", \"properties\": {{}}, \
                 \"required\": []}},\n  \"summary\": \"made for a test\",\n  \"description\": \"\"\n}}",
                steps.join(", ")
            ),
        );
    }

    /// Adds a raw app with these files, whose names begin with `/`. Windmill accepts files with any name.
    pub fn add_raw_app(&mut self, path: &str, files: &[(&str, &str)]) {
        self.add_raw_app_of_values(path, &files.iter().map(|(name, text)| (*name, to_text(text))).collect::<Vec<_>>());
    }

    /// Adds a raw app whose files have JSON values as content. wmill can write only strings.
    pub fn add_raw_app_of_values(&mut self, path: &str, files: &[(&str, String)]) {
        let files: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let files = object(&files, str::to_owned);
        self.put(
            &format!("{path}.raw_app.json"),
            format!(
                "{{\n  \"value\": {{\"files\": {files}, \"runnables\": {{}}, \"data\": {{\"tables\": [], \
                 \"datatable\": null, \"schema\": null}}}},\n  \"policy\": {{\"triggerables_v2\": {{}}, \
                 \"triggerables\": {{}}, \"execution_mode\": \"viewer\"}},\n  \"summary\": \"made for a test\"\n}}"
            ),
        );
    }

    /// Adds an HTTP trigger of the newer Windmill. The values of its error handler's arguments are JSON.
    pub fn add_http_trigger(&mut self, path: &str, route: &str, error_handler_args: &[(&str, &str)]) {
        let (route, args) = (json::to_string(route), object(error_handler_args, str::to_owned));
        self.put(
            &format!("{path}.http_trigger.json"),
            format!(
                "{{\n  \"error_handler_path\": \"f/ops/handler\",\n  \"error_handler_args\": {args},\n  \"script_path\": \
                 \"f/ops/job_00000\",\n  \"mode\": \"enabled\",\n  \"is_flow\": false,\n  \"raw_string\": false,\n  \
                 \"wrap_body\": false,\n  \"workspaced_route\": false,\n  \"static_asset_config\": null,\n  \
                 \"route_path\": {route},\n  \"route_path_key\": {route},\n  \"request_type\": \"sync\",\n  \
                 \"authentication_method\": \"none\",\n  \"is_static_website\": false,\n  \"http_method\": \"post\",\n  \
                 \"summary\": null,\n  \"description\": null\n}}"
            ),
        );
    }

    /// Adds a group. Windmill accepts nearly any name.
    pub fn add_group(&mut self, name: &str, summary: &str) {
        let summary = json::to_string(summary);
        self.put(
            &format!("groups/{name}.group.json"),
            format!("{{\n  \"admins\": [],\n  \"summary\": {summary},\n  \"members\": []\n}}"),
        );
    }

    /// Adds a user by address.
    pub fn add_user(&mut self, email: &str, username: &str) {
        let username = json::to_string(username);
        self.put(
            &format!("users/{email}.user.json"),
            format!("{{\n  \"username\": {username},\n  \"role\": \"developer\",\n  \"disabled\": false\n}}"),
        );
    }

    /// Adds workspace dependencies with this file name, such as `front.package.json`.
    pub fn add_dependencies(&mut self, name: &str, content: &str) {
        self.put(&format!("dependencies/{name}"), content);
    }

    /// Sets the entry at `path`. A new entry goes to the end.
    pub fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        match self.entries.iter_mut().find(|(known, _)| known == path) {
            Some((_, old)) => *old = bytes,
            None => self.entries.push((path.to_owned(), bytes)),
        }
    }

    /// Removes the entry at `path`, which must exist.
    #[track_caller]
    pub fn remove(&mut self, path: &str) {
        let before = self.entries.len();
        self.entries.retain(|(known, _)| known != path);
        assert!(self.entries.len() < before, "no entry `{path}`");
    }

    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.entries.iter().find(|(known, _)| known == path).map(|(_, bytes)| bytes.as_slice())
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reverses the order of the entries, because a server without ORDER BY may do so.
    pub fn reverse_order(&mut self) {
        self.entries.reverse();
    }

    /// Sets a shared UI with these files, edited now. `None` removes it.
    pub fn set_shared_ui(&mut self, files: Option<&[(&str, &str)]>) {
        let now = in_nanoseconds(SystemTime::now());
        self.shared_ui = files.map(|files| {
            let files = object(files, to_text);
            format!("{{\"files\":{files},\"version\":1,\"edited_at\":\"{now}\",\"edited_by\":\"admin\"}}")
        });
    }

    /// Returns the names of its folders in the order of the export.
    pub fn folders(&self) -> Vec<&str> {
        let names =
            self.entries.iter().filter_map(|(path, _)| path.strip_prefix("f/")?.strip_suffix("/folder.meta.json"));
        names.collect()
    }

    /// Returns the map of file endings of the newer Windmill: the types whose resources are files or filesets.
    pub fn file_endings(&self) -> String {
        let of_type = |(path, bytes): &Entry| {
            let name = path.strip_suffix(".resource-type.json")?;
            let fields = fields(bytes)?;
            let is_fileset = matches!(fields.get("is_fileset"), Some(Value::Bool(true)));
            let ending = fields.get("format_extension").filter(|ending| matches!(ending, Value::String(_)));
            let shown = ending.map_or_else(|| "null".to_owned(), json::to_string);
            let value = format!("{{\"format_extension\":{shown},\"is_fileset\":{is_fileset}}}");
            (is_fileset || ending.is_some()).then(|| format!("{}:{value}", json::to_string(name)))
        };
        let types: Vec<String> = self.entries.iter().filter_map(of_type).collect();
        self.file_types.clone().unwrap_or_else(|| format!("{{{}}}", types.join(",")))
    }

    /// Returns the answer of `users/list`.
    pub fn users_listed(&self) -> String {
        let of_user = |(path, bytes): &Entry| {
            let email = path.strip_prefix("users/")?.strip_suffix(".user.json")?;
            let username = fields(bytes)?.get("username").map_or_else(|| "\"\"".to_owned(), json::to_string);
            Some(format!("{{\"email\":{},\"username\":{username}}}", json::to_string(email)))
        };
        let users: Vec<String> = self.entries.iter().filter_map(of_user).collect();
        self.users.clone().unwrap_or_else(|| format!("[{}]", users.join(",")))
    }

    /// Returns the answer of `list_ws_specific`.
    pub fn ws_specific_listed(&self) -> Option<String> {
        let line = |(kind, path): &(String, String)| {
            format!("{{\"item_kind\":{},\"path\":{}}}", json::to_string(kind), json::to_string(path))
        };
        let lines: Vec<String> = self.ws_specific.as_ref()?.iter().map(line).collect();
        Some(format!("[{}]", lines.join(",")))
    }

    pub fn recorded_answer(&self, path_and_query: &str) -> Option<&str> {
        self.recorded.get(path_and_query).map(String::as_str)
    }

    /// Sets who edited an item of `scripts`, `flows` or `apps` last, and when.
    pub fn edited(&mut self, list: &str, path: &str, by: &str, at: &str) {
        let (path, by, at) = (json::to_string(path), json::to_string(by), json::to_string(at));
        let (who, when) = if list == "flows" { ("edited_by", "edited_at") } else { ("created_by", "created_at") };
        let line = format!("{{\"path\":{path},\"{who}\":{by},\"{when}\":{at}}}");
        self.edits.push((list.to_owned(), line));
    }

    /// Returns the fields in which the answer about one item says who edited it last, and when.
    pub fn last_edit(&self, list: &str, path: &str) -> Vec<(String, Value)> {
        let lines = self.edits.iter().rev().filter(|(of, _)| of == list);
        let fields = lines.filter_map(|(_, line)| json::from_str::<Object>(line).ok());
        let last =
            fields.into_iter().find(|fields| matches!(fields.get("path"), Some(Value::String(of)) if of == path));
        let is_of_edit = |(name, _): &(String, Value)| name.ends_with("_by") || name.ends_with("_at");
        last.into_iter().flatten().filter(is_of_edit).collect()
    }

    /// Returns the entries of an export for this query.
    pub fn export(&self, query: &BTreeMap<String, String>) -> Vec<Entry> {
        let asked = |name: &str| query.get(name).is_some_and(|value| value == "true");
        let plain = asked("plain_secret");
        self.entries
            .iter()
            .filter(|(path, bytes)| match kind(path) {
                Kind::Always => true,
                Kind::UnlessAsked(name) => !asked(name),
                Kind::IfAsked(name) => asked(name),
                Kind::Variable => !asked("skip_variables") && (!asked("skip_secrets") || !is_secret(bytes)),
            })
            .map(|(path, bytes)| {
                let bytes = self.plain.get(path).filter(|_| plain).unwrap_or(bytes);
                let is_permitted = ITEMS_WITH_PERMISSIONS.iter().any(|ending| path.ends_with(ending));
                let without = |text: &str| without_member(text, "extra_perms");
                match edited_text(bytes, without).filter(|_| is_permitted && !asked("preserve_extra_perms")) {
                    Some(shorter) => (path.clone(), shorter),
                    None => (path.clone(), bytes.clone()),
                }
            })
            .collect()
    }
}

const FILESET: &str = "c_fileset";
const FILE: &str = "c_ini_file";

/// Items whose own permissions are in the export only if the query asks for them.
const ITEMS_WITH_PERMISSIONS: [&str; 4] = [".script.json", ".flow.json", ".app.json", ".raw_app.json"];

fn to_text(text: &str) -> String {
    json::to_string(text)
}

/// Returns a JSON object with these members, in this order.
fn object(members: &[(&str, &str)], value: impl Fn(&str) -> String) -> String {
    let member = |(name, content): &(&str, &str)| format!("{}: {}", json::to_string(*name), value(content));
    format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
}

/// Adds to the full export what an export has only if it is asked for by name: permissions of items, and workspace
/// dependencies.
fn add_what_is_asked_for(entries: &mut Vec<Entry>, asked: Vec<Entry>) {
    for (path, bytes) in asked {
        match entries.iter_mut().find(|(known, _)| *known == path) {
            Some((_, old)) => *old = bytes,
            None => entries.push((path, bytes)),
        }
    }
}

fn ws_specific_of(answer: &str) -> Vec<(String, String)> {
    let Ok(Value::Array(lines)) = json::from_str(answer) else { panic!("no list: {answer}") };
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        other => panic!("not a text: {other:?}"),
    };
    let line = |line: &Value| match line {
        Value::Object(fields) => (text(fields.get("item_kind")), text(fields.get("path"))),
        other => panic!("not an object: {other:?}"),
    };
    lines.iter().map(line).collect()
}

fn fields(bytes: &[u8]) -> Option<Object> {
    match json::from_str(std::str::from_utf8(bytes).ok()?).ok()? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// Returns the export in another order, like the newer Windmill: it selects each kind without an order, and holds the
/// modules of a script and the arguments of a trigger's error handler in hash maps. The order of the kinds stays.
pub fn in_another_order(entries: Vec<Entry>, rank: u64) -> Vec<Entry> {
    let mut items: Vec<Vec<Entry>> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (path, bytes) in entries {
        let bytes = match place_of_random_order(&path) {
            Some(name) => edited_text(&bytes, |text| reordered(text, &[name], rank)).unwrap_or(bytes),
            None => bytes,
        };
        // A script consists of its content and its settings, which stay together.
        let place = *places.entry(script_of(&path).unwrap_or(&path).to_owned()).or_insert(items.len());
        if place == items.len() {
            items.push(Vec::new());
        }
        items[place].push((path, bytes));
    }
    let mut ordered: Vec<Vec<Entry>> =
        permutation(items.len(), rank).map(|at| std::mem::take(&mut items[at])).collect();
    ordered.sort_by_key(|item| block(&item[0].0));
    ordered.into_iter().flatten().collect()
}

fn place_of_random_order(path: &str) -> Option<&'static str> {
    let (_, kind) = path.strip_suffix(".json")?.rsplit_once('.')?;
    match kind {
        "script" => Some("modules"),
        kind if kind.ends_with("_trigger") => Some("error_handler_args"),
        _ => None,
    }
}

/// Returns the path of the script to which an entry belongs.
fn script_of(path: &str) -> Option<&str> {
    if path.strip_suffix(".json").is_some_and(|stem| !stem.ends_with(".script")) || path.starts_with("dependencies/") {
        return None;
    }
    let name = path.rfind('/').map_or(0, |at| at + 1);
    path[name..].find('.').map(|at| &path[..name + at])
}

/// Returns the position of the entry's kind in an export.
fn block(path: &str) -> usize {
    const KINDS: [&str; 14] = [
        "folder.meta",
        "script",
        "resource",
        "resource-type",
        "flow",
        "variable",
        "app",
        "dependencies",
        "schedule",
        "_trigger",
        "user",
        "group",
        "settings",
        "encryption_key",
    ];
    let kind = match path.strip_suffix(".json") {
        _ if path.starts_with("dependencies/") => "dependencies",
        Some(stem) if stem.ends_with("/folder.meta") => "folder.meta",
        Some(stem) if stem.ends_with("_trigger") => "_trigger",
        Some(stem) if stem.ends_with(".raw_app") => "app",
        Some(stem) => stem.rsplit_once('.').map_or(stem, |(_, kind)| kind),
        None => "script",
    };
    KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len())
}

/// Returns the permutation with this rank. Two ranks give different permutations if they differ modulo the number of
/// permutations.
fn permutation(count: usize, mut rank: u64) -> impl Iterator<Item = usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for left in 1..count {
        let choices = left as u64 + 1;
        order.swap(left, usize::try_from(rank % choices).unwrap());
        rank /= choices;
    }
    order.into_iter()
}

/// Returns the JSON text with the members of the object at `path` in the order of this rank. The rest of the text stays
/// the same. Returns `None` if there is no such object.
pub fn reordered(text: &str, path: &[&str], rank: u64) -> Option<String> {
    let mut open = text.find('{')?;
    for name in path {
        let member = members(text, open)?.into_iter().find(|member| is_named(&text[member.clone()], name))?;
        open = member.start + text[member].find('{')?;
    }
    let members = members(text, open)?;
    let (mut result, mut copied) = (String::with_capacity(text.len()), 0);
    for (place, from) in members.iter().zip(permutation(members.len(), rank)) {
        result.push_str(&text[copied..place.start]);
        result.push_str(&text[members[from].clone()]);
        copied = place.end;
    }
    Some(result + &text[copied..])
}

/// Returns the JSON object without the member of this name.
fn without_member(text: &str, name: &str) -> Option<String> {
    let members = members(text, text.find('{')?)?;
    let at = members.iter().position(|member| is_named(&text[member.clone()], name))?;
    let cut = match (at.checked_sub(1), members.get(at + 1)) {
        (Some(before), _) => members[before].end..members[at].end,
        (None, Some(after)) => members[at].start..after.start,
        (None, None) => members[at].clone(),
    };
    Some(format!("{}{}", &text[..cut.start], &text[cut.end..]))
}

fn edited_text(bytes: &[u8], edit: impl Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
    std::str::from_utf8(bytes).ok().and_then(edit).map(String::into_bytes)
}

fn is_named(member: &str, name: &str) -> bool {
    member.strip_prefix(&json::to_string(name)).is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// Returns the positions of the members of the JSON object that opens at `open`, or `None` if this is not JSON.
fn members(text: &str, open: usize) -> Option<Vec<Range<usize>>> {
    let bytes = text.as_bytes();
    let (mut members, mut start, mut depth, mut in_text, mut at) = (Vec::new(), open + 1, 0, false, open);
    loop {
        match *bytes.get(at)? {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            end @ (b',' | b'}' | b']') if depth == 1 => {
                let member = text.get(start..at)?;
                let begin = start + (member.len() - member.trim_start().len());
                if begin < at {
                    members.push(begin..begin + member.trim().len());
                }
                if end != b',' {
                    return Some(members);
                }
                start = at + 1;
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

fn script_json(summary: &str, lock: &str) -> String {
    format!(
        "{{\n  \"summary\": \"{summary}\",\n  \"description\": \"made for a test\",\n  \"schema\": \
         {{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", \"type\": \"object\", \"properties\": \
         {{\"x\": {{\"type\": \"string\", \"description\": \"\"}}}}, \"required\": [\"x\"]}},\n  \
         \"lock\": {lock},\n  \"kind\": \"script\"\n}}"
    )
}

enum Kind {
    Always,
    UnlessAsked(&'static str),
    IfAsked(&'static str),
    Variable,
}

fn kind(path: &str) -> Kind {
    match path {
        _ if path.starts_with("dependencies/") => return Kind::IfAsked("include_workspace_dependencies"),
        "settings.json" => return Kind::IfAsked("include_settings"),
        "encryption_key.json" => return Kind::IfAsked("include_key"),
        _ => {}
    }
    let Some(stem) = path.strip_suffix(".json") else {
        return Kind::Always;
    };
    match stem.rsplit_once('.').map(|(_, kind)| kind) {
        Some("variable") => Kind::Variable,
        Some("resource") => Kind::UnlessAsked("skip_resources"),
        Some("resource-type") => Kind::UnlessAsked("skip_resource_types"),
        Some("schedule") => Kind::IfAsked("include_schedules"),
        Some("user") => Kind::IfAsked("include_users"),
        Some("group") => Kind::IfAsked("include_groups"),
        Some(kind) if kind.ends_with("_trigger") => Kind::IfAsked("include_triggers"),
        _ => Kind::Always,
    }
}

fn is_secret(variable: &[u8]) -> bool {
    fields(variable).is_some_and(|fields| matches!(fields.get("is_secret"), Some(Value::Bool(true))))
}

/// Returns a tar like Windmill's: every entry has mode 0777 and mtime 0, and any name is used unchanged.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    const NAME_BYTES_MAX: usize = 100;
    let mut archive = tar::Builder::new(Vec::new());
    let mut append = |name: &[u8], entry_type, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(entry_type);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o777);
        header.set_mtime(0);
        header.set_cksum();
        archive.append(&header, bytes).unwrap();
    };
    for (path, bytes) in entries {
        if path.len() > NAME_BYTES_MAX {
            append(b"././@LongLink", tar::EntryType::GNULongName, format!("{path}\0").as_bytes());
        }
        append(&path.as_bytes()[..path.len().min(NAME_BYTES_MAX)], tar::EntryType::Regular, bytes);
    }
    archive.into_inner().unwrap()
}

/// Returns a zip like Windmill's.
pub fn zip_of(entries: &[Entry]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o777);
    for (path, bytes) in entries {
        archive.start_file(path, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// Returns the entries of a tar, in its order.
pub fn entries_of_tar(bytes: &[u8]) -> Vec<Entry> {
    tar::Archive::new(bytes)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        })
        .collect()
}

/// Returns the entries of a zip, in its order.
pub fn entries_of_zip(bytes: &[u8]) -> Vec<Entry> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..archive.len())
        .map(|at| {
            let mut entry = archive.by_index(at).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.name().unwrap().into_owned(), content)
        })
        .collect()
}

/// A recorded request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub name: String,
    pub method: String,
    /// Path and query.
    pub path: String,
    pub request_body: Option<String>,
    /// `wrong` or `none`. Absent for the valid token.
    pub token: Option<String>,
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Option<String>,
    pub body_file: Option<PathBuf>,
}

/// Returns the recorded exchanges of a state.
#[track_caller]
pub fn exchanges(version: Version, state: &str) -> Vec<Exchange> {
    let folder = version.fixtures().join(state);
    let text = String::from_utf8(read(&folder.join("exchanges.json"))).unwrap();
    let Value::Array(all) = json::from_str(&text).expect("exchanges.json is JSON") else {
        panic!("exchanges.json is a list");
    };
    all.iter()
        .map(|exchange| {
            let Value::Object(fields) = exchange else {
                panic!("an exchange is an object");
            };
            let string = |name: &str| match fields.get(name) {
                Some(Value::String(text)) => Some(text.clone()),
                _ => None,
            };
            let content_type = match fields.get("headers") {
                Some(Value::Object(headers)) => match headers.get("content-type") {
                    Some(Value::String(text)) => Some(text.clone()),
                    _ => None,
                },
                _ => None,
            };
            let Some(Value::Number(json::Number::U64(status))) = fields.get("status") else {
                panic!("an exchange has a status");
            };
            Exchange {
                name: string("name").unwrap(),
                method: string("method").unwrap(),
                path: string("path").unwrap(),
                request_body: fields.get("request_body").map(json::to_string),
                token: string("token"),
                status: u16::try_from(*status).unwrap(),
                content_type,
                body: string("body"),
                body_file: string("body_file").map(|name| folder.join(name)),
            }
        })
        .collect()
}

#[track_caller]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}
