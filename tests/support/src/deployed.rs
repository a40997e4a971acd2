//! Applies the requests of `wmill sync push` to a workspace, so that its next export shows what Windmill would show. It
//! also holds the workspace's key, which decides whether a secret can be read. It covers what the fixtures need.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniserde::json::{self, Object, Value};

use super::digest::short_name;
use super::http::{Request, Response};
use super::workspace::{Version, Workspace, entries_of_tar};

const KEY_ENTRY: &str = "encryption_key.json";
const CIPHER_BLOCK: usize = 16;

/// Answers a request about items. `path` is the path below `/api/w/{workspace}`. Returns `None` for an endpoint that is
/// not covered.
pub fn answer(version: Version, workspace: &mut Workspace, request: &Request, path: &[&str]) -> Option<Response> {
    let decoded: Vec<String> = path.iter().map(|segment| percent_decoded(segment)).collect();
    let path: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let get = request.method == "GET";
    let body = body_of(request);
    Some(match path.as_slice() {
        ["workspaces", "encryption_key"] if get => match key(workspace) {
            Some(key) => Response::json(format!("{{\"key\":{}}}", json::to_string(&key))),
            None => not_found("Workspace key"),
        },
        ["workspaces", "encryption_key"] => {
            set_key(workspace, &text(&body, "new_key"), !flag(&body, "skip_reencrypt"));
            Response::text(200, "ok")
        }
        ["variables", "get", rest @ ..] if get => variable(workspace, request, &rest.join("/")),
        ["jobs", ..] if get => Response::json("[]"),
        ["scripts", "get", "p", rest @ ..] if get => script(workspace, &rest.join("/")),
        ["scripts", "create"] => create_script(workspace, body),
        ["scripts", "archive", "p", rest @ ..] => {
            remove_script(workspace, &rest.join("/"));
            Response::text(200, "archived")
        }
        ["users", verb, name] => user(workspace, request, verb, name, &body)?,
        ["workspaces", "add_user"] => {
            put_user(workspace, &text(&body, "email"), &text(&body, "username"), &body);
            Response::text(201, "created")
        }
        ["groups", verb, rest @ ..] => group(workspace, get, verb, rest.first().copied(), &body)?,
        ["acls", verb, kind, rest @ ..] => permit(workspace, verb, kind, &rest.join("/"), &body)?,
        ["shared_ui", ..] if version == Version::V1_491 => Response::empty(404),
        ["shared_ui"] if request.method == "PUT" => {
            put_shared_ui(workspace, &body);
            Response::json("{\"version\":1}")
        }
        ["workspace_dependencies", verb, rest @ ..] => dependencies(workspace, request, verb, rest.first(), &body)?,
        ["apps", verb @ ("create" | "create_raw" | "update" | "update_raw"), rest @ ..] => {
            put_app(workspace, request, verb, &rest.join("/"))?
        }
        ["apps", "get", "p", rest @ ..] if get => shown_app(workspace, &rest.join("/")),
        ["apps", "delete", rest @ ..] if request.method == "DELETE" => {
            for is_raw in [false, true] {
                remove_if_there(workspace, &app_entry(&rest.join("/"), is_raw));
            }
            Response::text(200, "deleted")
        }
        ["resources", "type", rest @ ..] => item(version, workspace, request, "resource_types", rest)?,
        [kind, rest @ ..] => item(version, workspace, request, kind, rest)?,
        [] => return None,
    })
}

/// Answers a request for a kind of item that is one entry in the export.
fn item(version: Version, workspace: &mut Workspace, request: &Request, kind: &str, path: &[&str]) -> Option<Response> {
    entry(kind, "x")?;
    let mut body = body_of(request);
    let (verb, rest) = path.split_first()?;
    let mut name = rest.join("/");
    let known = fields_of(workspace, &entry(kind, &name)?);
    if kind == "variables" && ["create", "update"].contains(verb) {
        encrypt_unless(workspace, request, &mut body);
    }
    Some(match (request.method.as_str(), *verb) {
        ("GET", "get") => shown(workspace, kind, &name),
        ("POST", "create") => {
            name = text(&body, name_field(kind));
            if workspace.get(&entry(kind, &name)?).is_some() {
                return Some(exists_already(&format!("{} {name}", title(kind))));
            }
            store(version, workspace, kind, &name, Object::new(), body);
            Response::text(201, &name)
        }
        ("POST", "update" | "setenabled") => match known {
            Some(known) => {
                store(version, workspace, kind, &name, known, body);
                Response::text(200, &name)
            }
            None => no_such_item(kind, &name),
        },
        ("DELETE", "delete") => {
            // For flows and variables, the server does not say whether the item existed.
            if remove_if_there(workspace, &entry(kind, &name)?) || matches!(kind, "flows" | "variables") {
                Response::text(200, "deleted")
            } else {
                no_such_item(kind, &name)
            }
        }
        _ => return None,
    })
}

type Workspaces = BTreeMap<String, Workspace>;

/// Returns the server's refusal if the Community Edition refuses the request because of another workspace, else `None`.
pub fn refused_by_the_instance(
    workspaces: &Workspaces,
    id: &str,
    request: &Request,
    path: &[&str],
) -> Option<Response> {
    let [kind, verb @ ("create" | "update" | "create_raw" | "update_raw"), rest @ ..] = path else { return None };
    let body = if verb.ends_with("_raw") { app_of_form(request)? } else { body_of(request) };
    let name = if rest.is_empty() { text(&body, "path") } else { rest.join("/") };
    let message = match *kind {
        "http_triggers" => taken_route(workspaces, (id, &name), &body),
        "apps" => taken_custom_path(workspaces, (id, &name), &body),
        "groups" if *verb == "create" => too_many_groups(workspaces),
        _ => None,
    }?;
    Some(Response::new(400, "text/plain", format!("Bad request: {message}")))
}

/// Returns the items of all workspaces whose entry has this ending: workspace, path and fields.
fn all_items<'a>(
    workspaces: &'a Workspaces,
    ending: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str, Object)> + use<'a> {
    workspaces.iter().flat_map(move |(id, workspace)| {
        let paths = workspace.entries().iter().filter_map(move |(entry, _)| Some((entry, entry.strip_suffix(ending)?)));
        paths.filter_map(move |(entry, path)| Some((id.as_str(), path, fields_of(workspace, entry)?)))
    })
}

fn taken_route(workspaces: &Workspaces, this: (&str, &str), body: &Object) -> Option<String> {
    let is_same = |(id, path, fields): &(&str, &str, Object)| {
        let same = |field: &str| text(fields, field) == text(body, field);
        (*id, *path) != this && !flag(fields, "workspaced_route") && same("route_path") && same("http_method")
    };
    let taken = all_items(workspaces, ".http_trigger.json").any(|item| is_same(&item));
    (taken && !flag(body, "workspaced_route")).then(|| "A route already exists with this path".to_owned())
}

fn taken_custom_path(workspaces: &Workspaces, this: (&str, &str), body: &Object) -> Option<String> {
    let custom = Some(text(body, "custom_path")).filter(|path| !path.is_empty())?;
    let apps = all_items(workspaces, ".app.json").chain(all_items(workspaces, ".raw_app.json"));
    let (id, path, _) =
        apps.into_iter().find(|(id, path, fields)| (*id, *path) != this && text(fields, "custom_path") == custom)?;
    Some(format!(
        "Custom path '{custom}' is already used by app '{path}' in workspace '{id}'. Custom paths must be unique across \
         the whole instance unless the 'app_workspaced_route' instance setting is enabled."
    ))
}

fn too_many_groups(workspaces: &Workspaces) -> Option<String> {
    const GROUPS_MAX: usize = 3;
    const NATIVE: [&str; 4] = ["groups/all", "groups/error_handler", "groups/slack", "groups/wm_deployers"];
    let count = all_items(workspaces, ".group.json").filter(|(_, path, _)| !NATIVE.contains(path)).count();
    (count >= GROUPS_MAX).then(|| {
        "You have reached the maximum number of groups (3 outside of native groups 'all', 'slack', 'error_handler' and \
         'wm_deployers') without an enterprise license"
            .to_owned()
    })
}

fn body_of(request: &Request) -> Object {
    match std::str::from_utf8(&request.body).ok().and_then(|text| json::from_str(text).ok()) {
        Some(Value::Object(fields)) => fields,
        _ => Object::new(),
    }
}

/// Returns the part `app` of the form in which a raw app is sent.
fn app_of_form(request: &Request) -> Option<Object> {
    let form = String::from_utf8_lossy(&request.body);
    let part = form.split_once("name=\"app\"")?.1.split_once("\r\n\r\n")?.1;
    match json::from_str(part.split("\r\n--").next()?).ok()? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

fn percent_decoded(segment: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), segment.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn not_found(what: &str) -> Response {
    Response::new(404, "text/plain", format!("Not found: {what}"))
}

/// Returns the server's message, without its source location at the end.
fn no_such_item(kind: &str, name: &str) -> Response {
    not_found(&match kind {
        "variables" | "resources" => format!("{} {name} not found", title(kind)),
        "scripts" | "flows" | "apps" | "schedules" => format!("{} not found at path {name}", title(kind)),
        "folders" | "groups" | "resource_types" => format!("{} not found at name {name}", title(kind)),
        _ => format!("Trigger not found at path: {name}"),
    })
}

fn exists_already(what: &str) -> Response {
    Response::new(400, "text/plain", format!("Bad request: {what} already exists"))
}

/// Returns the server's name for this kind of item.
fn title(kind: &str) -> &str {
    match kind {
        "scripts" => "Script",
        "flows" => "Flow",
        "apps" => "App",
        "folders" => "Folder",
        "groups" => "Group",
        "variables" => "Variable",
        "resources" => "Resource",
        "resource_types" => "ResourceType",
        "schedules" => "Schedule",
        _ => "Trigger",
    }
}

fn name_field(kind: &str) -> &'static str {
    if matches!(kind, "folders" | "resource_types") { "name" } else { "path" }
}

/// Returns the path of the item's entry in the export.
fn entry(kind: &str, name: &str) -> Option<String> {
    Some(match kind {
        "folders" => format!("f/{name}/folder.meta.json"),
        "variables" => format!("{name}.variable.json"),
        "resources" => format!("{name}.resource.json"),
        "resource_types" => format!("{name}.resource-type.json"),
        "flows" => format!("{name}.flow.json"),
        "schedules" => format!("{name}.schedule.json"),
        "http_triggers" | "websocket_triggers" | "postgres_triggers" | "mqtt_triggers" => {
            format!("{name}.{}.json", kind.trim_end_matches('s'))
        }
        _ => return None,
    })
}

fn app_entry(path: &str, is_raw: bool) -> String {
    format!("{path}.{}app.json", if is_raw { "raw_" } else { "" })
}

fn put_app(workspace: &mut Workspace, request: &Request, verb: &str, path: &str) -> Option<Response> {
    let is_raw = verb.ends_with("_raw");
    let app = if is_raw { app_of_form(request)? } else { body_of(request) };
    let path = if path.is_empty() { text(&app, "path") } else { path.to_owned() };
    let known = [false, true].iter().find_map(|is_raw| fields_of(workspace, &app_entry(&path, *is_raw)));
    let (status, mut fields) = match (verb.starts_with("create"), known) {
        (true, None) => (201, Object::new()),
        (false, Some(known)) => (200, known),
        (true, Some(_)) => return Some(exists_already(&format!("App with path {path}"))),
        (false, None) => return Some(no_such_item("apps", &path)),
    };
    fields.extend(app.into_iter().filter(|(field, _)| !NOT_KEPT.contains(&field.as_str())));
    workspace.put(&app_entry(&path, is_raw), json::to_string(&fields));
    Some(Response::text(status, &path))
}

fn shown_app(workspace: &Workspace, path: &str) -> Response {
    let found =
        [false, true].iter().find_map(|is_raw| Some((*is_raw, fields_of(workspace, &app_entry(path, *is_raw))?)));
    let Some((is_raw, mut fields)) = found else { return no_such_item("apps", path) };
    fields.insert("path".to_owned(), string(path));
    fields.insert("raw_app".to_owned(), Value::Bool(is_raw));
    fields.insert("created_by".to_owned(), string("admin"));
    fields.extend(workspace.last_edit("apps", path));
    Response::json(json::to_string(&fields))
}

fn remove_if_there(workspace: &mut Workspace, entry: &str) -> bool {
    let is_there = workspace.get(entry).is_some();
    if is_there {
        workspace.remove(entry);
    }
    is_there
}

/// Grants a right on one item, or revokes it.
fn permit(workspace: &mut Workspace, verb: &str, kind: &str, path: &str, body: &Object) -> Option<Response> {
    let owner = text(body, "owner");
    if kind == "group_" {
        let (mut admins, mut members) = group_members(workspace, path)?;
        admins.retain(|one| *one != owner);
        members.retain(|one| *one != owner);
        match (verb, flag(body, "write")) {
            ("add", true) => admins.push(owner),
            ("add", false) => members.push(owner),
            _ => {}
        }
        put_group(workspace, path, None, &admins, &members);
        return Some(Response::text(200, "ok"));
    }
    let ending = match kind {
        "script" | "flow" | "app" | "raw_app" => kind,
        // The export has no permissions for the other kinds.
        _ => return Some(Response::text(200, "ok")),
    };
    let entry = format!("{path}.{ending}.json");
    let mut fields = fields_of(workspace, &entry)?;
    let mut permissions = match fields.remove("extra_perms") {
        Some(Value::Object(permissions)) => permissions,
        _ => Object::new(),
    };
    match verb {
        "add" => permissions.insert(owner, Value::Bool(flag(body, "write"))),
        _ => permissions.remove(&owner),
    };
    if !permissions.is_empty() {
        fields.insert("extra_perms".to_owned(), Value::Object(permissions));
    }
    workspace.put(&entry, json::to_string(&fields));
    Some(Response::text(200, "ok"))
}

/// Answers a request about a user of the workspace. Windmill names the user by its name there, and not by its address.
fn user(workspace: &mut Workspace, request: &Request, verb: &str, name: &str, body: &Object) -> Option<Response> {
    let found = workspace.entries().iter().find_map(|(entry, _)| {
        let email = entry.strip_prefix("users/")?.strip_suffix(".user.json")?;
        let fields = fields_of(workspace, entry).filter(|fields| text(fields, "username") == name)?;
        Some((email.to_owned(), fields))
    });
    let Some((email, fields)) = found else { return Some(not_found(&format!("User {name}"))) };
    Some(match (request.method.as_str(), verb) {
        ("GET", "get") => {
            let (role, is_disabled) = (text(&fields, "role"), flag(&fields, "disabled"));
            let (is_admin, is_operator) = (role == "admin", role == "operator");
            Response::json(format!(
                "{{\"username\":\"{name}\",\"is_admin\":{is_admin},\"operator\":{is_operator},\"disabled\":{is_disabled}}}"
            ))
        }
        ("POST", "update") => {
            put_user(workspace, &email, name, body);
            Response::text(200, "updated")
        }
        ("DELETE", "delete") => {
            workspace.remove(&format!("users/{email}.user.json"));
            Response::text(200, "deleted")
        }
        _ => return None,
    })
}

fn put_user(workspace: &mut Workspace, email: &str, name: &str, body: &Object) {
    let role = match (flag(body, "is_admin"), flag(body, "operator")) {
        (true, _) => "admin",
        (_, true) => "operator",
        _ => "developer",
    };
    let disabled = flag(body, "disabled");
    let user = format!("{{\"username\": \"{name}\", \"role\": \"{role}\", \"disabled\": {disabled}}}");
    workspace.put(&format!("users/{email}.user.json"), user);
}

fn put_shared_ui(workspace: &mut Workspace, body: &Object) {
    let Some(Value::Object(files)) = body.get("files") else { return };
    let files: Vec<(String, String)> = files.keys().map(|name| (name.clone(), text(files, name))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    workspace.set_shared_ui(Some(&files));
}

/// The file that holds the workspace dependencies of each language in the export.
const DEPENDENCIES: [(&str, &str); 4] =
    [("python3", "requirements.in"), ("bun", "package.json"), ("php", "composer.json"), ("go", "go.mod")];

fn dependencies(
    workspace: &mut Workspace,
    request: &Request,
    verb: &str,
    language: Option<&&str>,
    body: &Object,
) -> Option<Response> {
    let language = language.map_or_else(|| text(body, "language"), |language| (*language).to_owned());
    let (_, file) = DEPENDENCIES.iter().find(|(known, _)| *known == language)?;
    let name = request.query().get("name").cloned().unwrap_or_else(|| text(body, "name"));
    let entry = if name.is_empty() { format!("dependencies/{file}") } else { format!("dependencies/{name}.{file}") };
    Some(match verb {
        "get_latest" => match workspace.get(&entry) {
            Some(content) => {
                let content = json::to_string(&String::from_utf8_lossy(content).into_owned());
                Response::json(format!("{{\"language\":\"{language}\",\"content\":{content}}}"))
            }
            None => Response::json("null"),
        },
        "create" => {
            workspace.put(&entry, text(body, "content"));
            Response::new(201, "application/json", "1")
        }
        "delete" => {
            remove_if_there(workspace, &entry);
            Response::text(200, "ok")
        }
        _ => return None,
    })
}

fn fields_of(workspace: &Workspace, entry: &str) -> Option<Object> {
    match json::from_str(std::str::from_utf8(workspace.get(entry)?).ok()?).ok()? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

fn text(fields: &Object, name: &str) -> String {
    match fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn flag(fields: &Object, name: &str) -> bool {
    matches!(fields.get(name), Some(Value::Bool(true)))
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn shown(workspace: &Workspace, kind: &str, name: &str) -> Response {
    let found = entry(kind, name).and_then(|entry| fields_of(workspace, &entry));
    found.map_or_else(
        || no_such_item(kind, name),
        |mut fields| {
            fields.insert(name_field(kind).to_owned(), string(name));
            if kind == "flows" {
                fields.insert("edited_by".to_owned(), string("admin"));
                fields.extend(workspace.last_edit(kind, name));
            }
            Response::json(json::to_string(&fields))
        },
    )
}

/// Fields that no export shows or that the server sets itself.
const NOT_KEPT: [&str; 10] = [
    "path",
    "name",
    "deployment_message",
    "skip_draft_deletion",
    "ws_specific",
    "preserve_permissioned_as",
    "permissioned_as",
    "preserve_on_behalf_of",
    "on_behalf_of",
    "on_behalf_of_email",
];

fn store(version: Version, workspace: &mut Workspace, kind: &str, name: &str, mut known: Object, body: Object) {
    if let Some(Value::Bool(is_specific)) = body.get("ws_specific") {
        let item = (kind.trim_end_matches('s').to_owned(), name.to_owned());
        let items = workspace.ws_specific.get_or_insert_default();
        items.retain(|known| *known != item);
        items.extend(is_specific.then_some(item));
    }
    for (field, value) in body {
        if !NOT_KEPT.contains(&field.as_str()) {
            known.insert(field, value);
        }
    }
    if kind == "schedules" || (version == Version::V1_491 && kind == "http_triggers") {
        known.insert("email".to_owned(), string("admin@windmill.dev"));
    }
    let entry = entry(kind, name).expect("a kind that has an entry");
    workspace.put(&entry, json::to_string(&known));
}

/// The languages that need no lock.
const WITHOUT_LOCK: [&str; 10] =
    ["bash", "postgresql", "mysql", "bigquery", "snowflake", "mssql", "oracledb", "duckdb", "graphql", "nativets"];

/// The languages of the fixtures. A longer ending comes before a shorter one that it contains.
const LANGUAGES: [(&str, &str); 23] = [
    ("deno", ".deno.ts"),
    ("nativets", ".fetch.ts"),
    ("bun", ".ts"),
    ("python3", ".py"),
    ("bash", ".sh"),
    ("go", ".go"),
    ("postgresql", ".pg.sql"),
    ("powershell", ".ps1"),
    ("mysql", ".my.sql"),
    ("bigquery", ".bq.sql"),
    ("snowflake", ".sf.sql"),
    ("mssql", ".ms.sql"),
    ("oracledb", ".odb.sql"),
    ("duckdb", ".duckdb.sql"),
    ("graphql", ".gql"),
    ("php", ".php"),
    ("rust", ".rs"),
    ("ansible", ".playbook.yml"),
    ("csharp", ".cs"),
    ("nu", ".nu"),
    ("java", ".java"),
    ("ruby", ".rb"),
    ("rlang", ".r"),
];

fn content_of(workspace: &Workspace, path: &str) -> Option<(&'static str, String)> {
    LANGUAGES.iter().find_map(|(language, ending)| {
        let content = workspace.get(&format!("{path}{ending}"))?;
        Some((*language, String::from_utf8_lossy(content).into_owned()))
    })
}

fn script(workspace: &Workspace, path: &str) -> Response {
    let (Some((language, content)), Some(mut fields)) =
        (content_of(workspace, path), fields_of(workspace, &format!("{path}.script.json")))
    else {
        return no_such_item("scripts", path);
    };
    fields.insert("path".to_owned(), string(path));
    fields.insert("content".to_owned(), string(&content));
    fields.insert("language".to_owned(), string(language));
    fields.insert("hash".to_owned(), string("ab2a9c045b3fd70e"));
    fields.insert("created_by".to_owned(), string("admin"));
    fields.extend(workspace.last_edit("scripts", path));
    Response::json(json::to_string(&fields))
}

fn create_script(workspace: &mut Workspace, mut body: Object) -> Response {
    let (path, language, content) = (text(&body, "path"), text(&body, "language"), text(&body, "content"));
    for field in ["content", "language", "parent_hash", "auto_parent"] {
        body.remove(field);
    }
    if text(&body, "lock").is_empty() {
        // As recorded: a language that needs no lock has an empty one.
        let none = if WITHOUT_LOCK.contains(&language.as_str()) { string("") } else { Value::Null };
        body.insert("lock".to_owned(), none);
    }
    remove_script(workspace, &path);
    let known = if language == "bunnative" { "bun" } else { language.as_str() };
    let (_, ending) = LANGUAGES.iter().find(|(one, _)| *one == known).expect("a language of the fixtures");
    workspace.put(&format!("{path}{ending}"), content);
    let kept: Object = body.into_iter().filter(|(name, _)| !NOT_KEPT.contains(&name.as_str())).collect();
    workspace.put(&format!("{path}.script.json"), json::to_string(&kept));
    Response::text(201, "0123456789abcdef")
}

fn remove_script(workspace: &mut Workspace, path: &str) {
    let endings = LANGUAGES.iter().map(|(_, ending)| *ending).chain([".script.json"]);
    for entry in endings.map(|ending| format!("{path}{ending}")) {
        remove_if_there(workspace, &entry);
    }
}

fn group_members(workspace: &Workspace, name: &str) -> Option<(Vec<String>, Vec<String>)> {
    let fields = fields_of(workspace, &format!("groups/{name}.group.json"))?;
    let list = |field: &str| match fields.get(field) {
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|one| match one {
                Value::String(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    Some((list("admins"), list("members")))
}

fn put_group(workspace: &mut Workspace, name: &str, summary: Option<String>, admins: &[String], members: &[String]) {
    let entry = format!("groups/{name}.group.json");
    let known = fields_of(workspace, &entry).map(|fields| text(&fields, "summary")).unwrap_or_default();
    let summary = json::to_string(&summary.unwrap_or(known));
    let list = |of: &[String]| json::to_string(&of.to_vec());
    let (admins, members) = (list(admins), list(members));
    workspace.put(&entry, format!("{{\"admins\":{admins},\"summary\":{summary},\"members\":{members}}}"));
}

fn group(workspace: &mut Workspace, get: bool, verb: &str, name: Option<&str>, body: &Object) -> Option<Response> {
    let ok = || Some(Response::text(200, "ok"));
    match (verb, name) {
        ("get", Some(name)) if get => {
            let Some((admins, members)) = group_members(workspace, name) else {
                return Some(no_such_item("groups", name));
            };
            let fields = fields_of(workspace, &format!("groups/{name}.group.json"))?;
            let names: Vec<String> = admins.iter().chain(&members).map(|one| one[2..].to_owned()).collect();
            let permissions: Vec<String> = admins.iter().map(|one| format!("{}:true", json::to_string(one))).collect();
            Some(Response::json(format!(
                "{{\"name\":{},\"summary\":{},\"members\":{},\"extra_perms\":{{{}}}}}",
                json::to_string(name),
                json::to_string(&text(&fields, "summary")),
                json::to_string(&names),
                permissions.join(",")
            )))
        }
        ("create", None) => {
            put_group(workspace, &text(body, "name"), Some(text(body, "summary")), &[], &[]);
            ok()
        }
        ("update", Some(name)) => {
            let (admins, members) = group_members(workspace, name)?;
            put_group(workspace, name, Some(text(body, "summary")), &admins, &members);
            ok()
        }
        ("adduser" | "removeuser", Some(name)) => {
            let (mut admins, mut members) = group_members(workspace, name)?;
            let user = format!("u/{}", text(body, "username"));
            admins.retain(|one| *one != user);
            members.retain(|one| *one != user);
            if verb == "adduser" {
                members.push(user);
            }
            put_group(workspace, name, None, &admins, &members);
            ok()
        }
        ("delete", Some(name)) => {
            workspace.remove(&format!("groups/{name}.group.json"));
            ok()
        }
        _ => None,
    }
}

/// Returns the workspace's key.
pub fn key(workspace: &Workspace) -> Option<String> {
    match json::from_str(std::str::from_utf8(workspace.get(KEY_ENTRY)?).ok()?).ok()? {
        Value::String(key) => Some(key),
        _ => None,
    }
}

/// Sets a new key for the workspace. With `reencrypt`, encrypts again each secret that the old key can read.
pub fn set_key(workspace: &mut Workspace, new: &str, reencrypt: bool) {
    let old = key(workspace);
    let secrets: Vec<String> = workspace
        .entries()
        .iter()
        .map(|(path, _)| path.clone())
        .filter(|path| path.ends_with(".variable.json"))
        .collect();
    for path in secrets {
        let mut fields = fields_of(workspace, &path).unwrap();
        if let (true, true, Some(old)) = (reencrypt, flag(&fields, "is_secret"), &old)
            && let Some(plain) = decrypt(old, &text(&fields, "value"))
        {
            fields.insert("value".to_owned(), string(&encrypt(new, &plain)));
            workspace.put(&path, json::to_string(&fields));
        }
    }
    workspace.put(KEY_ENTRY, json::to_string(new));
}

/// Encrypts a secret in a form like Windmill's. The result differs from key to key.
pub fn encrypt(key: &str, plain: &str) -> String {
    let mut bytes = mark(key);
    bytes.extend(plain.bytes().map(|byte| byte ^ 0x5a));
    let padding = CIPHER_BLOCK - bytes.len() % CIPHER_BLOCK;
    bytes.resize(bytes.len() + padding, u8::try_from(padding).unwrap());
    STANDARD.encode(bytes)
}

/// Decrypts a secret. Returns `None` if another key encrypted it.
pub fn decrypt(key: &str, cipher: &str) -> Option<String> {
    if let Some(plain) = recorded().get(&(key.to_owned(), cipher.to_owned())) {
        return Some(plain.clone());
    }
    let bytes = STANDARD.decode(cipher).ok()?;
    let rest = bytes.strip_prefix(mark(key).as_slice())?;
    let end = rest.len().checked_sub(usize::from(*rest.last()?))?;
    String::from_utf8(rest[..end].iter().map(|byte| byte ^ 0x5a).collect()).ok()
}

fn mark(key: &str) -> Vec<u8> {
    short_name(key).into_bytes()
}

/// The plain texts of the recorded secrets, which real keys encrypted, by key and ciphertext.
fn recorded() -> &'static BTreeMap<(String, String), String> {
    static RECORDED: OnceLock<BTreeMap<(String, String), String>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let mut known = BTreeMap::new();
        for (version, state) in
            [(Version::V1_491, "1-seeded"), (Version::V1_743, "1-seeded"), (Version::V1_743, "rich")]
        {
            let workspace = Workspace::recorded_by(version, state);
            let key = key(&workspace).expect("a recorded key");
            let plain = std::fs::read(version.fixtures().join(state).join("plain-secrets.tar")).unwrap();
            for (path, bytes) in entries_of_tar(&plain) {
                let Some(fields) = fields_of(&workspace, &path).filter(|fields| flag(fields, "is_secret")) else {
                    continue;
                };
                let Ok(Value::Object(plain)) = json::from_str(&String::from_utf8_lossy(&bytes)) else { continue };
                known.insert((key.clone(), text(&fields, "value")), text(&plain, "value"));
            }
        }
        known
    })
}

fn encrypt_unless(workspace: &Workspace, request: &Request, body: &mut Object) {
    let encrypted = request.query().get("already_encrypted").is_some_and(|value| value == "true");
    if let (false, true, Some(key)) = (encrypted, flag(body, "is_secret"), key(workspace)) {
        let cipher = encrypt(&key, &text(body, "value"));
        body.insert("value".to_owned(), string(&cipher));
    }
}

fn variable(workspace: &Workspace, request: &Request, path: &str) -> Response {
    let Some(mut fields) = fields_of(workspace, &format!("{path}.variable.json")) else {
        return no_such_item("variables", path);
    };
    let query = request.query();
    let asked = |name: &str| query.get(name).is_some_and(|value| value == "true");
    // Windmill decrypts by default.
    let decrypts = query.get("decrypt_secret").is_none_or(|value| value == "true");
    if flag(&fields, "is_secret") {
        if decrypts {
            let key = key(workspace).unwrap_or_default();
            let Some(plain) = decrypt(&key, &text(&fields, "value")) else {
                return Response::text(500, "Internal: Error decrypting variable: Decryption error");
            };
            fields.insert("value".to_owned(), string(&plain));
        } else if !asked("include_encrypted") {
            fields.remove("value");
        }
    }
    fields.insert("path".to_owned(), string(path));
    Response::json(json::to_string(&fields))
}
