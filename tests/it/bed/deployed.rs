//! What `wmill sync push` sends, taken into a workspace as Windmill would show it in its next export; and the workspace's
//! key, under which a secret can be read or not. As far as the fixtures need it; the rest is a 404.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniserde::json::{self, Object, Value};
use windmill_git_sync::digest;

use super::http::{Request, Response};
use super::workspace::{Workspace, entries_of_tar, fixtures};

const KEY_ENTRY: &str = "encryption_key.json";
const CIPHER_BLOCK: usize = 16;

/// The answer to a request about items, `path` below `/api/w/{workspace}`; nothing where it is about something else.
pub fn answer(workspace: &mut Workspace, request: &Request, path: &[&str]) -> Option<Response> {
    let body = || match std::str::from_utf8(&request.body).ok().and_then(|text| json::from_str(text).ok()) {
        Some(Value::Object(fields)) => fields,
        _ => Object::new(),
    };
    let get = request.method == "GET";
    Some(match path {
        ["workspaces", "encryption_key"] if get => match key(workspace) {
            Some(key) => Response::json(format!("{{\"key\":{}}}", json::to_string(&key))),
            None => Response::empty(404),
        },
        ["workspaces", "encryption_key"] => {
            set_key(workspace, &text(&body(), "new_key"), !flag(&body(), "skip_reencrypt"));
            Response::text(200, "ok")
        }
        ["variables", "get", rest @ ..] if get => variable(workspace, request, &rest.join("/")),
        ["jobs", ..] if get => Response::json("[]"),
        ["scripts", "get", "p", rest @ ..] if get => script(workspace, &rest.join("/")),
        ["scripts", "create"] => {
            create_script(workspace, body());
            Response::text(201, "0123456789abcdef")
        }
        ["scripts", "archive", "p", rest @ ..] => {
            remove_script(workspace, &rest.join("/"));
            Response::text(200, "archived")
        }
        ["groups", verb, rest @ ..] => group(workspace, get, verb, rest.first().copied(), &body())?,
        ["acls", verb, "group_", name] => {
            let owner = text(&body(), "owner");
            let (mut admins, mut members) = group_members(workspace, name)?;
            admins.retain(|one| *one != owner);
            members.retain(|one| *one != owner);
            match (*verb, flag(&body(), "write")) {
                ("add", true) => admins.push(owner),
                ("add", false) => members.push(owner),
                _ => {}
            }
            put_group(workspace, name, None, &admins, &members);
            Response::text(200, "ok")
        }
        ["acls", ..] => Response::text(200, "ok"),
        ["shared_ui"] => Response::empty(404),
        [kind, rest @ ..] => {
            let (kind, rest) = match (*kind, rest) {
                ("resources", ["type", rest @ ..]) => ("resource_types", rest),
                ("apps", ["get", "p", rest @ ..]) => return Some(shown(workspace, "apps", &rest.join("/"))),
                (kind, rest) => (kind, rest),
            };
            entry(kind, "x")?;
            match rest {
                ["get", rest @ ..] if get => shown(workspace, kind, &rest.join("/")),
                ["create"] => {
                    let mut body = body();
                    let name = text(&body, if matches!(kind, "folders" | "resource_types") { "name" } else { "path" });
                    if kind == "variables" {
                        encrypt_unless(workspace, request, &mut body);
                    }
                    store(workspace, kind, &name, Object::new(), body);
                    Response::text(201, &name)
                }
                ["update", rest @ ..] => {
                    let name = rest.join("/");
                    let Some(known) = fields_of(workspace, &entry(kind, &name)?) else {
                        return Some(Response::empty(404));
                    };
                    let mut body = body();
                    if kind == "variables" {
                        encrypt_unless(workspace, request, &mut body);
                    }
                    store(workspace, kind, &name, known, body);
                    Response::text(200, &name)
                }
                ["setenabled", rest @ ..] => {
                    let name = rest.join("/");
                    let known = fields_of(workspace, &entry(kind, &name)?)?;
                    store(workspace, kind, &name, known, body());
                    Response::text(200, &name)
                }
                ["delete", rest @ ..] if request.method == "DELETE" => {
                    let entry = entry(kind, &rest.join("/"))?;
                    let is_there = workspace.get(&entry).is_some();
                    if is_there {
                        workspace.remove(&entry);
                    } else if !matches!(kind, "flows" | "apps") {
                        // Not recorded. wmill deletes those two once for each of their files.
                        return Some(Response::empty(404));
                    }
                    Response::text(200, "deleted")
                }
                _ => return None,
            }
        }
        [] => return None,
    })
}

/// The entry of the export in which an item is.
fn entry(kind: &str, name: &str) -> Option<String> {
    Some(match kind {
        "folders" => format!("f/{name}/folder.meta.json"),
        "variables" => format!("{name}.variable.json"),
        "resources" => format!("{name}.resource.json"),
        "resource_types" => format!("{name}.resource-type.json"),
        "flows" => format!("{name}.flow.json"),
        "apps" => format!("{name}.app.json"),
        "schedules" => format!("{name}.schedule.json"),
        "http_triggers" => format!("{name}.http_trigger.json"),
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
        || Response::empty(404),
        |mut fields| {
            let called = if matches!(kind, "folders" | "resource_types") { "name" } else { "path" };
            fields.insert(called.to_owned(), string(name));
            Response::json(json::to_string(&fields))
        },
    )
}

/// What no export shows, or the server decides.
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

fn store(workspace: &mut Workspace, kind: &str, name: &str, mut known: Object, body: Object) {
    for (field, value) in body {
        if !NOT_KEPT.contains(&field.as_str()) {
            known.insert(field, value);
        }
    }
    if matches!(kind, "schedules" | "http_triggers") {
        known.insert("email".to_owned(), string("admin@windmill.dev"));
    }
    let entry = entry(kind, name).expect("a kind that has an entry");
    workspace.put(&entry, json::to_string(&known));
}

const LANGUAGES: [(&str, &str); 5] =
    [("bun", ".ts"), ("python3", ".py"), ("bash", ".sh"), ("go", ".go"), ("postgresql", ".pg.sql")];

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
        return Response::empty(404);
    };
    fields.insert("path".to_owned(), string(path));
    fields.insert("content".to_owned(), string(&content));
    fields.insert("language".to_owned(), string(language));
    fields.insert("hash".to_owned(), string("ab2a9c045b3fd70e"));
    Response::json(json::to_string(&fields))
}

fn create_script(workspace: &mut Workspace, mut body: Object) {
    let (path, language, content) = (text(&body, "path"), text(&body, "language"), text(&body, "content"));
    for field in ["content", "language", "parent_hash", "auto_parent"] {
        body.remove(field);
    }
    if text(&body, "lock").is_empty() {
        // As recorded: what needs no lock has an empty one.
        let none = if matches!(language.as_str(), "bash" | "postgresql") { string("") } else { Value::Null };
        body.insert("lock".to_owned(), none);
    }
    remove_script(workspace, &path);
    let (_, ending) = LANGUAGES.iter().find(|(known, _)| *known == language).expect("a language of the fixtures");
    workspace.put(&format!("{path}{ending}"), content);
    let kept: Object = body.into_iter().filter(|(name, _)| !NOT_KEPT.contains(&name.as_str())).collect();
    workspace.put(&format!("{path}.script.json"), json::to_string(&kept));
}

fn remove_script(workspace: &mut Workspace, path: &str) {
    let endings = LANGUAGES.iter().map(|(_, ending)| *ending).chain([".script.json"]);
    for entry in endings.map(|ending| format!("{path}{ending}")) {
        if workspace.get(&entry).is_some() {
            workspace.remove(&entry);
        }
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
            let Some((admins, members)) = group_members(workspace, name) else { return Some(Response::empty(404)) };
            let fields = fields_of(workspace, &format!("groups/{name}.group.json"))?;
            let names: Vec<String> = admins.iter().chain(&members).map(|one| one[2..].to_owned()).collect();
            let permissions: Vec<String> = admins.iter().map(|one| format!("{}:true", json::to_string(one))).collect();
            Some(Response::json(format!(
                "{{\"name\":\"{name}\",\"summary\":{},\"members\":{},\"extra_perms\":{{{}}}}}",
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

/// The workspace's key.
pub fn key(workspace: &Workspace) -> Option<String> {
    match json::from_str(std::str::from_utf8(workspace.get(KEY_ENTRY)?).ok()?).ok()? {
        Value::String(key) => Some(key),
        _ => None,
    }
}

/// Gives the workspace another key. Its secrets are encrypted anew, as far as they can be read.
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

/// A secret under a key, told apart from the same under another; in the form of Windmill's.
pub fn encrypt(key: &str, plain: &str) -> String {
    let mut bytes = mark(key);
    bytes.extend(plain.bytes().map(|byte| byte ^ 0x5a));
    let padding = CIPHER_BLOCK - bytes.len() % CIPHER_BLOCK;
    bytes.resize(bytes.len() + padding, u8::try_from(padding).unwrap());
    STANDARD.encode(bytes)
}

/// What stands behind it; nothing under another key.
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
    digest::short_name(key).into_bytes()
}

/// The secrets of the recordings, which a real key encrypted.
fn recorded() -> &'static BTreeMap<(String, String), String> {
    static RECORDED: OnceLock<BTreeMap<(String, String), String>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let mut known = BTreeMap::new();
        let workspace = Workspace::recorded("1-seeded");
        let key = key(&workspace).expect("a recorded key");
        let plain = std::fs::read(fixtures().join("1-seeded/plain-secrets.tar")).unwrap();
        for (path, bytes) in entries_of_tar(&plain) {
            if let (true, Some(fields)) = (path.ends_with(".variable.json"), fields_of(&workspace, &path)) {
                let Ok(Value::Object(plain)) = json::from_str(&String::from_utf8_lossy(&bytes)) else { continue };
                if flag(&fields, "is_secret") {
                    known.insert((key.clone(), text(&fields, "value")), text(&plain, "value"));
                }
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
    let Some(mut fields) = fields_of(workspace, &format!("{path}.variable.json")) else { return Response::empty(404) };
    let query = request.query();
    let asked = |name: &str| query.get(name).is_some_and(|value| value == "true");
    // By default, Windmill decrypts.
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
