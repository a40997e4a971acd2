//! Relays the requests of `wmill sync push` to Windmill, on a loopback address, for one push.
//!
//! `wmill` gets a word that is valid only here, and never the token. It changes everything that differs in the whole
//! workspace. So a change is forwarded only if it is one of the requests that are permitted for the chosen items. Every
//! other change is answered here: of another item, of an unknown kind, of an item whose body names another one, and
//! outside the workspace. Windmill's last refusal is kept with its own words, which `wmill` hides in a dump of the
//! request.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use miniserde::json::{self, Object, Value};
use ureq::http::{self, Method};

use crate::http::loopback::{Answer, LoopbackServer, Request};
use crate::net::http_client;
use crate::process::run_env::RunEnv;
use crate::util::percent;
use crate::util::secret::Secret;
use crate::windmill::api::{Windmill, text};
use crate::windmill::item_path::{ItemId, ItemKind};

/// How much of a refusal is kept: the server's sentence, and not the page of a gateway.
const REASON_BYTES_MAX: u64 = 4 << 10;
const REASON_CHARS_MAX: usize = 300;
/// wmill asks for the server's version without a token.
const VERSION: &str = "/api/version";
/// The answer to a change that is not forwarded.
const LEFT_ALONE: &str = "left as it is";

/// The changes that a push may make, each with its item in words.
#[derive(Debug, Default)]
pub struct Permits {
    /// The items with usual requests: `flows/f/ops/a`, and whether they may be deleted or changed.
    usual: BTreeMap<(String, bool), String>,
    /// Other requests: the path below the workspace's part of the API, and the name in the form of [`named_in`].
    others: BTreeMap<(String, String), String>,
}

/// The requests that change an item, and those that delete it.
type Requests = (Vec<(String, String)>, Vec<(String, String)>);

impl Permits {
    /// Permits to create and change, or to delete, an item. For a user that the workspace has, there is
    /// [`Permits::add_user`].
    pub fn add(&mut self, item: &ItemId, deletes: bool) {
        match usual_part(item.kind) {
            Some(part) => self.permit_usual(&part, &item.path, &item.to_string(), deletes),
            None => self.permit(&item.to_string(), requests_for(item), deletes),
        }
    }

    /// Permits to change, or to delete, the user with this name in the workspace.
    pub fn add_user(&mut self, name: &str, deletes: bool) {
        let request = |verb| vec![(format!("users/{verb}/{name}"), String::new())];
        self.permit(&format!("user {name}"), (request("update"), request("delete")), deletes);
    }

    /// Permits to create and change, or to delete, the folder `f/{name}`.
    pub fn add_folder(&mut self, name: &str, deletes: bool) {
        self.permit_usual("folders", name, &format!("folder {name}"), deletes);
    }

    /// Permits to change the shared UI.
    pub fn add_shared_ui(&mut self) {
        self.permit("shared UI", (vec![("shared_ui".to_owned(), String::new())], Vec::new()), false);
    }

    fn permit_usual(&mut self, part: &str, path: &str, what: &str, deletes: bool) {
        self.usual.insert((format!("{part}/{path}"), deletes), what.to_owned());
    }

    fn permit(&mut self, what: &str, (changes, deletions): Requests, deletes: bool) {
        let requests = if deletes { deletions } else { changes };
        self.others.extend(requests.into_iter().map(|request| (request, what.to_owned())));
    }

    /// Returns the item of a change that may be forwarded. `prefix` is the workspace's part of the API.
    fn item_of(&self, target: &str, prefix: &str, body: &[u8]) -> Option<&String> {
        let target = target.strip_prefix(prefix)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = percent::decode(path)?;
        let named = named_in(&path, query, body)?;
        let usual = usual_subject(&path, &named).and_then(|subject| self.usual.get(&subject));
        usual.or_else(|| self.others.get(&(path, named)))
    }
}

/// Returns the item of a usual request, in the form of [`Permits::usual`], and whether the request deletes it.
fn usual_subject(path: &str, named: &str) -> Option<(String, bool)> {
    const TYPES: &str = "resources/type";
    let of_type = path.strip_prefix(TYPES).and_then(|rest| rest.strip_prefix('/'));
    let (part, request) = of_type.map_or_else(|| path.split_once('/'), |request| Some((TYPES, request)))?;
    if request == "create" {
        return Some((format!("{part}/{named}"), false));
    }
    let (verb, item) = request.split_once('/')?;
    match verb {
        "add" | "remove" if part == "acls" => {
            let (kind, item) = item.split_once('/')?;
            let part = if kind == "group_" { "groups".to_owned() } else { format!("{kind}s") };
            Some((format!("{part}/{item}"), false))
        }
        // Windmill moves an item to the path in the body.
        "update" | "setenabled" | "setmode" | "adduser" | "removeuser" if named.is_empty() || named == item => {
            Some((format!("{part}/{item}"), false))
        }
        "delete" | "archive" => Some((format!("{part}/{}", item.strip_prefix("p/").unwrap_or(item)), true)),
        _ => None,
    }
}

/// Returns the part of the API for items of a kind, if their requests are usual there.
fn usual_part(kind: ItemKind) -> Option<String> {
    match kind {
        ItemKind::Settings
        | ItemKind::Key
        | ItemKind::User
        | ItemKind::WorkspaceDependencies
        | ItemKind::Migration
        | ItemKind::Trigger("native") => None,
        ItemKind::App | ItemKind::RawApp => Some("apps".to_owned()),
        ItemKind::ResourceType => Some("resources/type".to_owned()),
        kind => Some(format!("{}s", kind.to_string().replace(' ', "_"))),
    }
}

/// Returns the name that Windmill takes from the query or the body of a request: of the item to create, or of the place
/// to move an item to. It is empty if the path has all. Returns `None` for a request that lacks its name, and for one
/// that has two.
fn named_in(path: &str, query: &str, body: &[u8]) -> Option<String> {
    let text_of = |name| text(&fields(body)?, name).map(str::to_owned);
    match path.split('/').collect::<Vec<_>>()[..] {
        ["workspaces", "add_user"] => text_of("email"),
        ["workspaces", "upsert_datatable_migration", _] => {
            let fields = fields(body)?;
            let Value::Number(timestamp) = fields.get("timestamp")? else { return None };
            Some(format!("{timestamp}_{}", text(&fields, "name")?))
        }
        ["workspace_dependencies", "create"] => {
            let fields = fields(body)?;
            Some(format!("{}/{}", text(&fields, "language")?, text(&fields, "name").unwrap_or_default()))
        }
        ["workspace_dependencies", "delete", _] => {
            let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
            percent::decode(name.unwrap_or_default())
        }
        ["native_triggers", _, "create"] | ["native_triggers", _, "update", _] => {
            let fields = fields(body)?;
            let kind = if matches!(fields.get("is_flow"), Some(Value::Bool(true))) { "flow" } else { "script" };
            Some(format!("{}.{kind}", text(&fields, "script_path")?))
        }
        ["folders" | "groups", "create"] | ["resources", "type", "create"] => text_of("name"),
        [_, "create"] => text_of("path"),
        // Nothing in the body of these is a place to move to.
        ["workspaces" | "shared_ui" | "users" | "acls" | "native_triggers", ..] => Some(String::new()),
        [_, verb, ..] | ["resources", "type", verb, ..] if matches!(verb, "delete" | "archive") => Some(String::new()),
        _ if body.is_empty() => Some(String::new()),
        _ => {
            let fields = fields(body)?;
            let mut named = String::new();
            for value in ["path", "name"].iter().filter_map(|name| fields.get(*name)) {
                match value {
                    Value::Null => {}
                    Value::String(value) if !value.is_empty() && (named.is_empty() || named == *value) => {
                        named.clone_from(value);
                    }
                    _ => return None,
                }
            }
            Some(named)
        }
    }
}

fn requests_for(item: &ItemId) -> Requests {
    let path = item.path.as_str();
    let one = |path: String, named: &str| vec![(path, named.to_owned())];
    match item.kind {
        ItemKind::Settings => {
            (SETTINGS.iter().map(|name| (format!("workspaces/{name}"), String::new())).collect(), Vec::new())
        }
        ItemKind::Key => (one("workspaces/encryption_key".to_owned(), ""), Vec::new()),
        ItemKind::User => (one("workspaces/add_user".to_owned(), path), Vec::new()),
        ItemKind::WorkspaceDependencies => {
            let Some((language, name)) = language_and_name(path) else { return Requests::default() };
            let deletion = one(format!("workspace_dependencies/delete/{language}"), name);
            (one("workspace_dependencies/create".to_owned(), &format!("{language}/{name}")), deletion)
        }
        // `table/timestamp_name`. wmill sends the timestamp as a number, and Windmill deletes a migration by it.
        ItemKind::Migration => {
            let (start, name) = path.split_once('_').unwrap_or((path, ""));
            let (table, digits) = start.split_once('/').unwrap_or((start, ""));
            let timestamp = digits.trim_start_matches('0');
            let change = format!("workspaces/upsert_datatable_migration/{table}");
            let deletion = format!("workspaces/delete_datatable_migration/{table}/{timestamp}");
            (one(change, &format!("{timestamp}_{name}")), one(deletion, ""))
        }
        // `f/ops/hook.script.77.nextcloud`. A request to create it does not have its number, and a request to delete it
        // has only its number and its service.
        ItemKind::Trigger("native") => {
            let mut parts = path.rsplitn(3, '.');
            let mut part = || parts.next().unwrap_or_default();
            let (service, number, runs) = (part(), part(), part());
            let request = |verb: &str| format!("native_triggers/{service}/{verb}");
            let changes = ["create".to_owned(), format!("update/{number}")];
            let changes = changes.iter().map(|verb| (request(verb), runs.to_owned())).collect();
            (changes, one(request(&format!("delete/{number}")), ""))
        }
        _ => Requests::default(),
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
    match json::from_str(std::str::from_utf8(body).ok()?) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// A change that Windmill did not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The subject of the change, such as `http trigger f/ops/hook`.
    pub what: String,
    /// The status of Windmill's answer, or 0 if there was no answer.
    pub status: u16,
    /// Windmill's own words.
    pub reason: String,
}

/// What a running relay knows.
pub struct PushRelay {
    agent: ureq::Agent,
    /// The address of Windmill, with a slash at its end.
    base: String,
    /// `/api/w/WORKSPACE/`
    prefix: String,
    token: Secret,
    /// Additional headers for each request.
    headers: Vec<(String, Secret)>,
    permits: Permits,
    refusal: Mutex<Option<Refusal>>,
}

type Response = http::Response<ureq::Body>;

/// Returns one line of the server's text, without places in the server's source. The text of a page is not used.
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
    /// Fails if there is no socket, no thread, no randomness for the word, or no time left.
    pub fn start(
        windmill: &Windmill<'_>,
        run_env: &RunEnv,
        permits: Permits,
    ) -> io::Result<(Arc<Self>, LoopbackServer)> {
        let left = run_env.deadline.remaining().map_err(|expired| io::Error::other(format!("{expired:?}")))?;
        let relay = Arc::new(Self {
            agent: http_client::client(windmill.base_url.as_str(), left, &run_env.environment),
            base: windmill.base_url.join(""),
            prefix: format!("/api/w/{}/", windmill.workspace),
            token: windmill.token.clone(),
            headers: windmill.headers.to_vec(),
            permits,
            refusal: Mutex::default(),
        });
        let served = Arc::clone(&relay);
        let server = LoopbackServer::start(Some(VERSION), move |request, send| send(served.answer(request)))?;
        Ok((relay, server))
    }

    /// Returns the last change that Windmill did not accept.
    pub fn refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: Request) -> Answer<'static> {
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let (target, path) = (request.uri().to_string(), request.uri().path().to_owned());
        let item = if changes { self.permits.item_of(&target, &self.prefix, request.body()) } else { None };
        if changes && item.is_none() {
            log::debug!("left alone, as it was not chosen: {} {path}", request.method());
            // wmill takes a script as created only if the status is 201.
            return Answer::text(if path.ends_with("/create") { 201 } else { 200 }, LEFT_ALONE);
        }
        let (status, reason) = match self.forward(request) {
            Ok(mut response) if changes && response.status().as_u16() >= 400 => {
                let body = response.body_mut().with_config().limit(REASON_BYTES_MAX).read_to_vec().unwrap_or_default();
                (response.status().as_u16(), reason(&body))
            }
            Ok(response) => return passed_on(response),
            Err(error) => (0, format!("no answer: {error}")),
        };
        if let Some(what) = item.cloned() {
            *self.refusal() = Some(Refusal { what, status, reason: reason.clone() });
        }
        Answer::text(if status == 0 { 502 } else { status }, &reason)
    }

    /// Sends the request to Windmill, with the token instead of the word.
    fn forward(&self, request: Request) -> Result<Response, ureq::Error> {
        let url = [&self.base, request.uri().to_string().trim_start_matches('/')].concat();
        let mut forwarded = http::Request::builder().method(request.method()).uri(url);
        for (name, value) in request.headers().iter().filter(|(name, _)| FORWARDED.contains(&name.as_str())) {
            forwarded = forwarded.header(name, value);
        }
        if !self.token.expose().is_empty() {
            forwarded = forwarded.header("Authorization", ["Bearer ", self.token.expose()].concat());
        }
        for (name, value) in &self.headers {
            forwarded = forwarded.header(name, value.expose());
        }
        if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
            return self.agent.run(forwarded.body(request.into_body())?);
        }
        self.agent.run(forwarded.body(())?)
    }
}

/// The headers of wmill that Windmill gets: neither those about the connection nor credentials.
const FORWARDED: [&str; 3] = ["accept", "content-type", "user-agent"];

/// Passes an answer on.
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
    use crate::windmill::item_path::item_of;

    const PREFIX: &str = "/api/w/shop/";

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
        let is_one = |deletes| is_permitted(&permits(file, deletes), target, body);
        assert_eq!((is_one(false), is_one(true)), (true, false), "{file} {target} {body}");
    }

    /// Checks that a request deletes the item with this file, and is permitted for no other change.
    #[track_caller]
    fn check_deletion(file: &str, target: &str) {
        let is_one = |deletes| is_permitted(&permits(file, deletes), target, "");
        assert_eq!((is_one(false), is_one(true)), (false, true), "{file} {target}");
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
        others.add_shared_ui();
        others.add_folder("ops", false);
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
            all.add_folder("ops", deletes);
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
        // A creation is about the name that Windmill takes for this kind.
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
        permits.add_folder("ops", false);
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
