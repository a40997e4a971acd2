//! Relays the requests of `wmill sync push` to Windmill, on a loopback address, for one push.
//!
//! `wmill` gets a word that is valid only here, and never the token. It changes everything that differs in the whole
//! workspace. So a change is forwarded only if it is one of the requests that are permitted for the chosen items. The
//! relay answers every other change itself: of another item, of an unknown kind, of an item whose body names another
//! one, or outside the workspace. The text of Windmill's last refusal of a change is kept, because `wmill` hides it in
//! a dump of the request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use miniserde::json::{self, Object, Value};
use ureq::http::{self, Method};

use crate::http::loopback::{Answer, LoopbackServer, Request};
use crate::model::{BackupError, Code, Result};
use crate::process::RunEnv;
use crate::util::{lock, percent};
use crate::windmill::api::{self, text};
use crate::windmill::{ItemId, ItemKind, Windmill};

/// The most bytes of a refusal that are kept: the message of the server, and not the page of a gateway.
const REASON_BYTES_MAX: u64 = 4 << 10;
const REASON_CHARS_MAX: usize = 300;
/// wmill asks for the server's version without a token.
const VERSION: &str = "/api/version";
/// The answer to a change that is not forwarded.
const LEFT_ALONE: &str = "left as it is";

/// The changes that a push may make: the subject of a request as `subject_of` returns it, and whether the request
/// deletes it, with the item in words.
#[derive(Debug, Default)]
pub struct Permits(BTreeMap<(String, bool), String>);

impl Permits {
    /// Permits to create and change, or to delete, an item. For a user that the workspace has, there is
    /// [`Permits::add_user`].
    pub fn add(&mut self, item: &ItemId, deletes: bool) {
        for subject in subjects(item, deletes) {
            self.0.insert((subject, deletes), item.to_string());
        }
    }

    /// Permits to change, or to delete, the user with this name in the workspace.
    pub fn add_user(&mut self, name: &str, deletes: bool) {
        self.0.insert((format!("user/{name}"), deletes), format!("user {name}"));
    }

    /// Returns the item of a change that may be forwarded. `prefix` is the workspace's part of the API.
    fn item_of(&self, target: &str, prefix: &str, body: &[u8]) -> Option<&String> {
        let target = target.strip_prefix(prefix)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.0.get(&subject_of(&percent::decode(path)?, query, body)?)
    }
}

/// Returns the subjects of the requests with which wmill changes, or deletes, an item.
fn subjects(item: &ItemId, deletes: bool) -> Vec<String> {
    let path = item.path.as_str();
    let subject = match item.kind {
        ItemKind::Settings => "settings".to_owned(),
        ItemKind::Key => "key".to_owned(),
        ItemKind::SharedUi => "shared_ui".to_owned(),
        ItemKind::Folder => format!("folders/{}", path.trim_start_matches("f/")),
        ItemKind::User => format!("new_user/{path}"),
        ItemKind::App | ItemKind::RawApp => format!("apps/{path}"),
        ItemKind::ResourceType => format!("resources/type/{path}"),
        ItemKind::WorkspaceDependencies => match language_and_name(path) {
            Some((language, name)) => format!("workspace_dependency/{language}/{name}"),
            None => return Vec::new(),
        },
        // `table/timestamp_name`. wmill sends the timestamp as a number, and Windmill deletes a migration by it.
        ItemKind::Migration => {
            let (start, name) = path.split_once('_').unwrap_or((path, ""));
            let (table, digits) = start.split_once('/').unwrap_or((start, ""));
            let timestamp = digits.trim_start_matches('0');
            let subject = format!("migration/{table}/{timestamp}");
            if deletes { subject } else { format!("{subject}_{name}") }
        }
        // `f/ops/hook.script.77.nextcloud`. A request to create it does not have its number, and a request to delete it
        // has only its number and its service.
        ItemKind::Trigger("native") => {
            let mut parts = path.rsplitn(3, '.');
            let mut part = || parts.next().unwrap_or_default();
            let (service, number, runs) = (part(), part(), part());
            if !deletes {
                return [number, ""].map(|number| format!("native_trigger/{service}/{number}/{runs}")).to_vec();
            }
            format!("native_trigger/{service}/{number}")
        }
        kind => format!("{}s/{path}", kind.to_string().replace(' ', "_")),
    };
    vec![subject]
}

/// Returns what a request changes, in the form of [`subjects`], and whether the request deletes it. Windmill takes the
/// name of what it creates from the query or the body. Returns `None` for a request that wmill does not need, that
/// lacks its name, or that has two.
fn subject_of(path: &str, query: &str, body: &[u8]) -> Option<(String, bool)> {
    let field = |name| text(&fields(body)?, name).map(str::to_owned);
    Some(match path.split('/').collect::<Vec<_>>()[..] {
        ["shared_ui"] => ("shared_ui".to_owned(), false),
        ["users", verb @ ("update" | "delete"), name] => (format!("user/{name}"), verb == "delete"),
        ["workspaces", "add_user"] => (format!("new_user/{}", field("email")?), false),
        ["workspaces", "encryption_key"] => ("key".to_owned(), false),
        ["workspaces", "upsert_datatable_migration", table] => {
            let Some(Value::Number(timestamp)) = fields(body)?.remove("timestamp") else { return None };
            (format!("migration/{table}/{timestamp}_{}", field("name")?), false)
        }
        ["workspaces", "delete_datatable_migration", table, timestamp] => {
            (format!("migration/{table}/{timestamp}"), true)
        }
        ["workspaces", ref name @ ..] if SETTINGS.contains(&&*name.join("/")) => ("settings".to_owned(), false),
        ["workspace_dependencies", "create"] => {
            let name = field("name").unwrap_or_default();
            (format!("workspace_dependency/{}/{name}", field("language")?), false)
        }
        ["workspace_dependencies", "delete", language] => {
            let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
            (format!("workspace_dependency/{language}/{}", percent::decode(name.unwrap_or_default())?), true)
        }
        ["native_triggers", service, "delete", number] => (format!("native_trigger/{service}/{number}"), true),
        ["native_triggers", service, "create" | "update", ref number @ ..] => {
            let is_flow = matches!(fields(body)?.get("is_flow"), Some(Value::Bool(true)));
            let (runs, kind) = (field("script_path")?, if is_flow { "flow" } else { "script" });
            (format!("native_trigger/{service}/{}/{runs}.{kind}", number.join("/")), false)
        }
        ["acls", "add" | "remove", "group_", name] => (format!("groups/{name}"), false),
        ["acls", "add" | "remove", kind, ref item @ ..] => (format!("{kind}s/{}", item.join("/")), false),
        ["resources", "type", verb, ref name @ ..] => usual_subject("resources/type", verb, &name.join("/"), body)?,
        [part, verb, ref item @ ..] => usual_subject(part, verb, &item.join("/"), body)?,
        _ => return None,
    })
}

/// Does the same for a part of the API with uniform requests.
fn usual_subject(part: &str, verb: &str, item: &str, body: &[u8]) -> Option<(String, bool)> {
    // Windmill moves an item to the path in the body.
    let is_item_name = |value: &Value| match value {
        Value::Null => true,
        Value::String(name) => name == item,
        _ => false,
    };
    match verb {
        "create" if item.is_empty() => {
            let name = if matches!(part, "folders" | "groups" | "resources/type") { "name" } else { "path" };
            Some((format!("{part}/{}", text(&fields(body)?, name)?), false))
        }
        "update" | "setenabled" | "setmode" | "adduser" | "removeuser" => {
            let fields = if body.is_empty() { Object::new() } else { fields(body)? };
            let is_about_item = ["path", "name"].iter().filter_map(|name| fields.get(*name)).all(is_item_name);
            is_about_item.then(|| (format!("{part}/{item}"), false))
        }
        "delete" | "archive" => Some((format!("{part}/{}", item.strip_prefix("p/").unwrap_or(item)), true)),
        _ => None,
    }
}

/// The requests with which wmill changes a workspace's settings, below `workspaces/`.
const SETTINGS: [&str; 18] = [
    "change_workspace_color",
    "change_workspace_name",
    "critical_alerts/mute",
    "default_scripts",
    "edit_auto_invite",
    "edit_copilot_config",
    "edit_datatable_config",
    "edit_default_app",
    "edit_deploy_to",
    "edit_error_handler",
    "edit_git_sync_config",
    "edit_instance_groups",
    "edit_large_file_storage_config",
    "edit_slack_command",
    "edit_success_handler",
    "edit_webhook",
    "operator_settings",
    "slack_oauth_config",
];

/// Returns the language and the name that wmill sends for a file below `dependencies/`. The name may be empty.
fn language_and_name(file: &str) -> Option<(&'static str, &str)> {
    const FILES: [(&str, &str); 5] = [
        ("bun", "package.json"),
        ("python3", "requirements.in"),
        ("php", "composer.json"),
        ("go", "go.mod"),
        ("powershell", "modules.json"),
    ];
    FILES.iter().find_map(|(language, ending)| {
        let name = file.strip_suffix(ending)?;
        if name.is_empty() { Some((*language, name)) } else { Some((*language, name.strip_suffix('.')?)) }
    })
}

fn fields(body: &[u8]) -> Option<Object> {
    json::from_str(std::str::from_utf8(body).ok()?).ok()
}

/// The state of a running relay.
pub struct PushRelay {
    agent: ureq::Agent,
    /// The address of Windmill, with a slash at its end.
    base: String,
    /// `/api/w/WORKSPACE/`
    prefix: String,
    permits: Permits,
    refusal: Mutex<Option<BackupError>>,
}

type Response = http::Response<ureq::Body>;

/// Returns one line of the server's text, without places in the server's source. The text of an HTML page is not used.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.starts_with('<') {
        return "it answered with a page".to_owned();
    }
    let words: Vec<&str> = text.split_whitespace().filter(|word| !is_place_in_source(word)).collect();
    words.join(" ").chars().take(REASON_CHARS_MAX).collect()
}

/// Whether the word is a place in the server's source: `@http_trigger.rs:123`, `(apps.rs:7:3)`.
fn is_place_in_source(word: &str) -> bool {
    word.starts_with(['@', '(']) && word.contains(".rs:")
}

impl PushRelay {
    /// Starts a relay. Also returns the server that wmill gets in place of Windmill.
    ///
    /// # Errors
    /// [`BackupError`] if there is no socket, no thread, no randomness for the word, or no time left.
    pub fn start(windmill: &Windmill<'_>, run_env: &RunEnv, permits: Permits) -> Result<(Arc<Self>, LoopbackServer)> {
        let left = run_env.deadline.remaining()?;
        let Windmill { base_url, token, headers, .. } = *windmill;
        let relay = Arc::new(Self {
            agent: api::client(base_url, token, headers, left, &run_env.environment),
            base: base_url.join(""),
            prefix: format!("/api/w/{}/", windmill.workspace),
            permits,
            refusal: Mutex::default(),
        });
        let served = Arc::clone(&relay);
        let server = LoopbackServer::start(Some(VERSION), move |request, send| send(served.answer(request)));
        Ok((relay, server.map_err(|error| BackupError::of_system(&error))?))
    }

    /// Returns the last change that Windmill did not accept, or else the first request without an answer.
    pub fn refusal(&self) -> MutexGuard<'_, Option<BackupError>> {
        lock(&self.refusal)
    }

    fn answer(&self, request: Request) -> Answer<'static> {
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let (target, path) = (request.uri().to_string(), request.uri().path().to_owned());
        let item = if changes { self.permits.item_of(&target, &self.prefix, request.body()) } else { None };
        if changes && item.is_none() {
            log::debug!("left alone, as it was not chosen: {} {path}", request.method());
            // For wmill, a script is created only if the status is 201.
            return Answer::text(if path.ends_with("/create") { 201 } else { 200 }, LEFT_ALONE);
        }
        let (status, reason, answered) = match self.forward(request) {
            Ok(mut response) if changes && response.status().as_u16() >= 400 => {
                let body = response.body_mut().with_config().limit(REASON_BYTES_MAX).read_to_vec().unwrap_or_default();
                let status = response.status().as_u16();
                (status, reason(&body), format!("Windmill answered {status}: "))
            }
            Ok(response) => return passed_on(response),
            Err(error) => (502, format!("no answer: {error}"), String::new()),
        };
        let code = match status {
            401 | 403 => Code::WindmillUnauthorized,
            502..=504 => Code::WindmillUnreachable,
            _ => Code::PullFailed,
        };
        let what = item.cloned().unwrap_or_else(|| format!("the question for {path}"));
        let mut refusal = self.refusal();
        // A refused change has more information than a question without an answer.
        if item.is_some() || refusal.is_none() {
            *refusal = Some(BackupError::new(code, format!("{what}: {answered}{reason}")));
        }
        Answer::text(status, &reason)
    }

    /// Sends the request to Windmill, with the token instead of the word.
    fn forward(&self, request: Request) -> Result<Response, ureq::Error> {
        let url = [&self.base, request.uri().to_string().trim_start_matches('/')].concat();
        let mut forwarded = http::Request::builder().method(request.method()).uri(url);
        for (name, value) in request.headers().iter().filter(|(name, _)| FORWARDED.contains(&name.as_str())) {
            forwarded = forwarded.header(name, value);
        }
        if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
            return self.agent.run(forwarded.body(request.into_body())?);
        }
        self.agent.run(forwarded.body(())?)
    }
}

/// The headers of wmill that Windmill gets. Headers about the connection and credentials are not among them.
const FORWARDED: [&str; 3] = ["accept", "content-type", "user-agent"];

/// Returns Windmill's answer in the form that wmill gets.
fn passed_on(response: Response) -> Answer<'static> {
    let (parts, body) = response.into_parts();
    let kept = ["content-type", "content-encoding", "content-disposition", "location"];
    let header = |name| Some((name, String::from_utf8_lossy(parts.headers.get(name)?.as_bytes()).into_owned()));
    Answer {
        status: parts.status.as_u16(),
        headers: kept.into_iter().filter_map(header).collect(),
        length: body.content_length(),
        body: Box::new(body.into_reader()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windmill::SHARED_UI;
    use crate::windmill::item_path::item_of;

    const PREFIX: &str = "/api/w/shop/";

    fn folder(name: &str) -> ItemId {
        ItemId { kind: ItemKind::Folder, path: format!("f/{name}") }
    }

    fn permits(file: &str, deletes: bool) -> Permits {
        let mut permits = Permits::default();
        permits.add(&item_of(file).expect("an item"), deletes);
        permits
    }

    fn is_permitted(permits: &Permits, target: &str, body: &str) -> bool {
        permits.item_of(&[PREFIX, target].concat(), PREFIX, body.as_bytes()).is_some()
    }

    /// Checks that a request changes the item with this file, and does not delete it.
    #[track_caller]
    fn check(file: &str, target: &str, body: &str) {
        let is_allowed = |deletes| is_permitted(&permits(file, deletes), target, body);
        assert_eq!((is_allowed(false), is_allowed(true)), (true, false), "{file} {target} {body}");
    }

    /// Checks that a request deletes the item with this file, and is permitted for no other change.
    #[track_caller]
    fn check_deletion(file: &str, target: &str) {
        let is_allowed = |deletes| is_permitted(&permits(file, deletes), target, "");
        assert_eq!((is_allowed(false), is_allowed(true)), (false, true), "{file} {target}");
    }

    #[test]
    fn an_item_is_changed_by_its_own_requests() {
        let made = r#"{"path":"f/ops/a","value":{"path":"x"}}"#;
        check("f/ops/a.py", "scripts/create", made);
        check_deletion("f/ops/a.py", "scripts/archive/p/f/ops/a");
        check("f/ops/a.flow/flow.yaml", "flows/update/f/ops/a", "{}");
        check("f/ops/a.flow/flow.yaml", "flows/update/f/ops/a", made);
        check_deletion("f/ops/a.flow/flow.yaml", "flows/delete/f/ops/a");
        check_deletion("f/ops/a.raw_app/index.tsx", "apps/delete/f/ops/a");
        let query = "variables/update/f/ops/a%20b?already_encrypted=true";
        check("f/ops/a b.variable.yaml", query, "{}");
        check("c_shop.resource-type.yaml", "resources/type/create", r#"{"name":"c_shop"}"#);
        check("c_shop.resource-type.yaml", "resources/type/update/c_shop", r#"{"name":"c_shop"}"#);
        check_deletion("c_shop.resource-type.yaml", "resources/type/delete/c_shop");
        check("f/ops/hook.http_trigger.yaml", "http_triggers/setmode/f/ops/hook", "{}");
        check("f/ops/a.variable.yaml", "acls/add/variable/f/ops/a", r#"{"owner":"u/x"}"#);
        check("groups/oncall.group.yaml", "acls/remove/group_/oncall", "{}");
        check("groups/oncall.group.yaml", "groups/create", r#"{"name":"oncall"}"#);
        check("groups/oncall.group.yaml", "groups/adduser/oncall", r#"{"username":"ann"}"#);
        let added = r#"{"email":"a@x.dev","username":"bob"}"#;
        check("users/a@x.dev.user.yaml", "workspaces/add_user", added);
        for settings in ["workspaces/edit_webhook", "workspaces/critical_alerts/mute"] {
            check("settings.yaml", settings, "{}");
        }
        check("encryption_key.yaml", "workspaces/encryption_key", "{}");
        let front = r#"{"name":"front","language":"bun"}"#;
        check("dependencies/front.package.json", "workspace_dependencies/create", front);
        check("dependencies/package.json", "workspace_dependencies/create", r#"{"language":"bun"}"#);
        check_deletion("dependencies/go.mod", "workspace_dependencies/delete/go");
        check_deletion("dependencies/a b.go.mod", "workspace_dependencies/delete/go?name=a%20b");
        let migration = "migrations/datatable/main/0020260101_init_it.down.sql";
        let record = r#"{"timestamp":20260101,"name":"init_it","code_up":""}"#;
        check(migration, "workspaces/upsert_datatable_migration/main", record);
        check_deletion(migration, "workspaces/delete_datatable_migration/main/20260101");
        let native = "f/ops/a.script.77.nextcloud_native_trigger.yaml";
        let runs = r#"{"script_path":"f/ops/a","is_flow":false}"#;
        check(native, "native_triggers/nextcloud/create", runs);
        check(native, "native_triggers/nextcloud/update/77", runs);
        check_deletion(native, "native_triggers/nextcloud/delete/77");
        let mut others = Permits::default();
        others.add(&SHARED_UI, false);
        others.add(&folder("ops"), false);
        others.add_user("bob", false);
        others.add_user("ann", true);
        for (target, body) in [
            ("shared_ui", r#"{"files":{}}"#),
            ("folders/create", r#"{"name":"ops"}"#),
            ("users/update/bob", r#"{"is_admin":true}"#),
            ("users/delete/ann", ""),
        ] {
            assert!(is_permitted(&others, target, body), "{target}");
        }
        for target in ["users/update/ann", "users/delete/bob", "folders/delete/ops"] {
            assert!(!is_permitted(&others, target, "{}"), "{target}");
        }
    }

    #[test]
    fn a_request_that_names_another_item_or_that_wmill_does_not_need_is_not_permitted() {
        let mut all = Permits::default();
        for deletes in [false, true] {
            for file in [
                "f/ops/a.py",
                "f/ops/a.flow/flow.yaml",
                "f/ops/a.app/app.yaml",
                "f/ops/a.resource.yaml",
                "f/ops/a.variable.yaml",
                "f/ops/a.schedule.yaml",
                "f/ops/a.http_trigger.yaml",
                "f/ops/a.script.77.nextcloud_native_trigger.yaml",
                "migrations/datatable/main/20260101_init.up.sql",
                "dependencies/package.json",
                "users/bob.user.yaml",
                "settings.yaml",
            ] {
                all.add(&item_of(file).expect("an item"), deletes);
            }
            all.add(&folder("ops"), deletes);
            all.add_user("bob", deletes);
        }
        for kind in ["flows", "apps", "resources", "variables", "schedules", "http_triggers"] {
            let update = format!("{kind}/update/f/ops/a");
            for body in [
                r#"{"path":"f/admin/a"}"#,
                r#"{"name":"victim"}"#,
                r#"{"path":""}"#,
                r#"{"path":["f/ops/a"]}"#,
                "form",
                "[]",
            ] {
                assert!(!is_permitted(&all, &update, body), "{update} {body}");
            }
            assert!(!is_permitted(&all, &update, r#"{"path":"f/ops/a","name":"victim"}"#), "{update}");
            assert!(is_permitted(&all, &update, r#"{"path":"f/ops/a","name":null}"#), "{update}");
        }
        // A creation is about the name that Windmill uses for this kind.
        assert!(!is_permitted(&all, "folders/create", r#"{"name":"victim","path":"ops"}"#));
        assert!(!is_permitted(&all, "variables/create", r#"{"name":"f/ops/a","path":"f/admin/a"}"#));
        let runs = r#"{"script_path":"f/ops/other","is_flow":false}"#;
        assert!(!is_permitted(&all, "native_triggers/nextcloud/update/77", runs));
        for request in [
            "folders/create",
            "folders/create/ops",
            "variables/create",
            "variables/create/f/ops/a",
            "apps/create_raw",
            "apps/update_raw/f/ops/a",
            "scripts/create_snapshot",
            "resources/update_value/f/ops/a",
            "jobs/run/p/f/ops/a",
            "workspaces/archive",
            "workspaces/run_datatable_migrations/main",
            "workspaces/upsert_datatable_migration/main",
            "workspace_dependencies/create",
            "workspace_dependencies/delete/cobol",
            "workspace_dependencies/delete/bun?name=x",
            "native_triggers/nextcloud/create",
            "users/setpassword",
            "users/update/ann",
            "variables/update/%ff",
            "",
        ] {
            assert!(!is_permitted(&all, request, "no json"), "{request}");
        }
    }

    #[test]
    fn only_chosen_changes_of_the_workspace_are_forwarded() {
        let mut permits = permits("f/ops/a.variable.yaml", false);
        permits.add(&item_of("f/ops/b.variable.yaml").expect("an item"), true);
        permits.add(&folder("ops"), false);
        for (target, is_forwarded) in [
            ("/api/w/shop/variables/update/f/ops/a?already_encrypted=true", true),
            ("/api/w/shop/variables/delete/f/ops/a", false),
            ("/api/w/shop/variables/update/f/ops/b", false),
            ("/api/w/shop/variables/delete/f/ops/b", true),
            ("/api/w/shop/variables/update/f/ops/c", false),
            ("/api/w/shop/folders/update/ops", true),
            ("/api/w/shop/folders/delete/ops", false),
            ("/api/w/shop2/variables/update/f/ops/a", false),
            ("/api/w/other/variables/update/f/ops/a", false),
            ("/api/users/update/ann", false),
            ("/api/settings/global/retention", false),
            ("/api/w/shop/workspaces/archive", false),
            ("/api/w/shop/users/update/bob", false),
        ] {
            assert_eq!(permits.item_of(target, PREFIX, b"{}").is_some(), is_forwarded, "{target}");
        }
    }

    #[test]
    fn a_reason_is_one_line_of_the_servers_words() {
        let said = b"Bad request: HTTP route already exists\n for this @http_triggers.rs:120:9\n";
        assert_eq!(reason(said), "Bad request: HTTP route already exists for this");
        assert_eq!(reason(b"<html>x"), "it answered with a page");
    }
}
