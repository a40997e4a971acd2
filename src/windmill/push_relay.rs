//! Relays the requests of `wmill sync push` to Windmill, on a loopback address, for one push.
//!
//! `wmill` gets a word that is valid only here, and never the token. It changes everything that differs in the whole
//! workspace. So a change is forwarded only if it is about an item that was chosen. Every other change is answered here:
//! of another item, of an unknown kind, of an item whose body names another one, and outside the workspace. Windmill's
//! last refusal is kept with its own words, which `wmill` hides in a dump of the request.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use miniserde::json::{self, Object, Value};
use ureq::http::{self, Method};

use crate::http::loopback::LoopbackServer;
use crate::net::http_client;
use crate::process::run_env::RunEnv;
use crate::util::hash;
use crate::util::percent;
use crate::util::secret::Secret;
use crate::windmill::api::{Windmill, text};
use crate::windmill::item_path::{ItemId, ItemKind};

/// The largest head of a request. wmill sends a few headers of its own.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// The largest body that is accepted. The largest one is the shared UI or a fileset: Windmill takes some megabytes at
/// most.
const BODY_BYTES_MAX: usize = 256 << 20;
/// How long the relay waits for wmill to send or to take a byte.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// How much of an answer is sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How much of a refusal is kept: the server's sentence, and not the page of a gateway.
const REASON_BYTES_MAX: u64 = 4 << 10;
const REASON_CHARS_MAX: usize = 300;
const VERSION: &str = "/api/version";
/// The answer to a change that is not forwarded.
const LEFT_ALONE: &str = "left as it is";

/// The items that a push may change.
#[derive(Debug, Default)]
pub struct Permits {
    /// The items that it may create or change.
    pub writes: BTreeSet<Subject>,
    /// The items that it may delete.
    pub deletions: BTreeSet<Subject>,
}

impl Permits {
    /// Returns the subject of a change that may be forwarded. `prefix` is the workspace's part of the API.
    fn chosen(&self, target: &str, prefix: &str, body: &[u8]) -> Option<Subject> {
        let (subject, deletes) = Subject::in_request(target.strip_prefix(prefix)?, body)?;
        let permitted = if deletes { &self.deletions } else { &self.writes };
        permitted.contains(&subject).then_some(subject)
    }
}

/// How a push changes an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The workspace does not have the item.
    Create,
    /// The workspace has the item.
    Update,
    /// The workspace has the item, and gets rid of it.
    Delete,
}

/// The subject of a request: a part of Windmill's API, such as `variables`, and a path or name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    kind: String,
    path: String,
}

impl Subject {
    fn new(kind: &str, path: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), path: path.into() }
    }

    /// Returns the subject of the folder `f/{name}`.
    #[must_use]
    pub fn folder(name: &str) -> Self {
        Self::new("folders", name)
    }

    /// Returns the subject of the shared UI.
    #[must_use]
    pub fn shared_ui() -> Self {
        Self::new("shared_ui", "")
    }

    /// Returns the subject of a change of the item. The path of a user that the workspace has is its name there, and not
    /// its address.
    #[must_use]
    pub fn of(item: &ItemId, verb: Verb) -> Self {
        let path = item.path.as_str();
        let kind = match item.kind {
            ItemKind::Script => "scripts",
            ItemKind::Flow => "flows",
            ItemKind::App | ItemKind::RawApp => "apps",
            ItemKind::Resource => "resources",
            ItemKind::ResourceType => "resources/type",
            ItemKind::Variable => "variables",
            ItemKind::Schedule => "schedules",
            ItemKind::Group => "groups",
            ItemKind::User if verb == Verb::Create => "new_users",
            ItemKind::User => "users",
            ItemKind::WorkspaceDependencies => "workspace_dependencies",
            ItemKind::Settings => "settings",
            ItemKind::Key => "encryption_key",
            ItemKind::Migration => return Self::migration(path, verb),
            ItemKind::Trigger("native") => return Self::native_trigger(path, verb),
            ItemKind::Trigger(sort) => return Self::new(&format!("{sort}_triggers"), path),
        };
        Self::new(kind, path)
    }

    /// Returns the subject of the migration `table/timestamp_name`. Windmill deletes it by its timestamp.
    fn migration(path: &str, verb: Verb) -> Self {
        let (start, name) = path.split_once('_').unwrap_or((path, ""));
        let (table, digits) = start.split_once('/').unwrap_or((start, ""));
        // wmill sends the timestamp as a number.
        let timestamp = digits.trim_start_matches('0');
        Self::new(
            "migrations",
            match verb {
                Verb::Delete => format!("{table}/{timestamp}"),
                Verb::Create | Verb::Update => format!("{table}/{timestamp}_{name}"),
            },
        )
    }

    /// Returns the subject of the native trigger `f/ops/hook.script.77.nextcloud`. A request to create it does not have
    /// its number, and a request to delete it has only its number and its service.
    fn native_trigger(path: &str, verb: Verb) -> Self {
        let mut parts = path.rsplitn(3, '.');
        let (service, number, runs) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let (service, number) = (service.unwrap_or_default(), number.unwrap_or_default());
        match verb {
            Verb::Create => Self::new("new_native_triggers", format!("{runs}.{service}")),
            Verb::Update => Self::new("native_triggers", path),
            Verb::Delete => Self::new("native_triggers", format!("{number}.{service}")),
        }
    }

    /// Returns what a request below the workspace's part of the API changes, and whether it deletes it. Returns `None`
    /// for a request that `wmill` does not need, and for one that names two items.
    fn in_request(target: &str, body: &[u8]) -> Option<(Self, bool)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<String> = path.split('/').map(percent::decode).collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let is_settings =
            || parts.strip_prefix(&["workspaces"]).is_some_and(|rest| SETTINGS.contains(&&*rest.join("/")));
        Some(match parts[..] {
            ["users", "update", name] => (Self::new("users", name), false),
            ["users", "delete", name] => (Self::new("users", name), true),
            ["workspaces", "add_user"] => (Self::new("new_users", text(&fields(body)?, "email")?), false),
            ["workspaces", "encryption_key"] => (Self::new("encryption_key", ""), false),
            ["workspaces", "upsert_datatable_migration", table] => {
                let fields = fields(body)?;
                let Value::Number(timestamp) = fields.get("timestamp")? else { return None };
                (Self::new("migrations", format!("{table}/{timestamp}_{}", text(&fields, "name")?)), false)
            }
            ["workspaces", "delete_datatable_migration", table, timestamp] => {
                (Self::new("migrations", format!("{table}/{timestamp}")), true)
            }
            ["workspaces", ..] if is_settings() => (Self::new("settings", ""), false),
            ["shared_ui"] => (Self::shared_ui(), false),
            ["workspace_dependencies", "create"] => {
                let fields = fields(body)?;
                let file = file_of_dependencies(text(&fields, "language")?, text(&fields, "name"))?;
                (Self::new("workspace_dependencies", file), false)
            }
            ["workspace_dependencies", "delete", language] => {
                let name = query.split('&').find_map(|pair| pair.strip_prefix("name=")).and_then(percent::decode);
                (Self::new("workspace_dependencies", file_of_dependencies(language, name.as_deref())?), true)
            }
            ["native_triggers", service, "delete", number] => {
                (Self::new("native_triggers", format!("{number}.{service}")), true)
            }
            ["native_triggers", service, "create"] => {
                (Self::new("new_native_triggers", format!("{}.{service}", runnable(body)?)), false)
            }
            ["native_triggers", service, "update", number] => {
                (Self::new("native_triggers", format!("{}.{number}.{service}", runnable(body)?)), false)
            }
            ["acls", "add" | "remove", kind, ref rest @ ..] => (Self::new(&kind_of_acl(kind), rest.join("/")), false),
            ["resources", "type", verb, ref rest @ ..] => Self::in_request_of_item("resources/type", verb, rest, body)?,
            [kind, verb, ref rest @ ..] => Self::in_request_of_item(kind, verb, rest, body)?,
            _ => return None,
        })
    }

    fn in_request_of_item(kind: &str, verb: &str, rest: &[&str], body: &[u8]) -> Option<(Self, bool)> {
        const KINDS: [&str; 9] =
            ["scripts", "flows", "apps", "resources", "resources/type", "variables", "schedules", "folders", "groups"];
        if !kind.ends_with("_triggers") && !KINDS.contains(&kind) {
            return None;
        }
        let (["p", rest @ ..] | rest) = rest;
        let path = rest.join("/");
        match verb {
            "create" => {
                let is_named = matches!(kind, "folders" | "groups" | "resources/type");
                let fields = fields(body)?;
                let path = text(&fields, if is_named { "name" } else { "path" })?;
                Some((Self::new(kind, path), false))
            }
            // Windmill moves an item to the path in the body.
            "update" | "setenabled" | "setmode" | "adduser" | "removeuser" => {
                names_no_other(body, &path).then(|| (Self::new(kind, path), false))
            }
            "delete" | "archive" => Some((Self::new(kind, path), true)),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind.as_str() {
            "resources/type" => "resource type",
            "shared_ui" => "shared UI",
            whole @ ("settings" | "workspace_dependencies") => whole,
            kind => kind.trim_end_matches('s'),
        };
        let shown = format!("{} {}", kind.replace('_', " "), self.path);
        formatter.write_str(shown.trim_end())
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

/// Returns the file below `dependencies/` that wmill pushes with this language and name.
fn file_of_dependencies(language: &str, name: Option<&str>) -> Option<String> {
    let file = match language {
        "bun" => "package.json",
        "python3" => "requirements.in",
        "php" => "composer.json",
        "go" => "go.mod",
        "powershell" => "modules.json",
        _ => return None,
    };
    Some(name.map_or_else(|| file.to_owned(), |name| format!("{name}.{file}")))
}

fn kind_of_acl(kind: &str) -> String {
    match kind {
        "group_" => "groups".to_owned(),
        "raw_app" => "apps".to_owned(),
        kind => [kind, "s"].concat(),
    }
}

fn fields(body: &[u8]) -> Option<Object> {
    match json::from_str(std::str::from_utf8(body).ok()?) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// Whether the body of a change of an item names this item, or none.
fn names_no_other(body: &[u8], path: &str) -> bool {
    let is_same = |named: Option<&Value>| match named {
        None | Some(Value::Null) => true,
        Some(Value::String(named)) => named == path,
        Some(_) => false,
    };
    body.is_empty() || fields(body).is_some_and(|fields| ["path", "name"].iter().all(|name| is_same(fields.get(*name))))
}

/// Returns what a native trigger runs: `f/ops/hook.script`.
fn runnable(body: &[u8]) -> Option<String> {
    let fields = fields(body)?;
    let kind = if matches!(fields.get("is_flow"), Some(Value::Bool(true))) { "flow" } else { "script" };
    Some(format!("{}.{kind}", text(&fields, "script_path")?))
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

/// The running relay.
pub struct PushRelay {
    server: LoopbackServer,
    shared: Arc<Shared>,
}

struct Shared {
    agent: ureq::Agent,
    /// The address of Windmill, with a slash at its end.
    base: String,
    /// `/api/w/WORKSPACE/`
    prefix: String,
    token: Secret,
    /// Additional headers for each request.
    headers: Vec<(String, Secret)>,
    word: Secret,
    permits: Permits,
    refusal: Mutex<Option<Refusal>>,
}

impl PushRelay {
    /// Starts the relay.
    ///
    /// # Errors
    /// Fails if there is no socket, no thread, no randomness for the word, or no time left.
    pub fn start(windmill: &Windmill<'_>, run_env: &RunEnv, permits: Permits) -> io::Result<Self> {
        let word = hash::random_word().ok_or_else(|| io::Error::other("the system has no randomness"))?;
        let left = run_env.deadline.remaining().map_err(|expired| io::Error::other(format!("{expired:?}")))?;
        let shared = Arc::new(Shared {
            agent: http_client::client(windmill.base_url.as_str(), left, &run_env.environment),
            base: windmill.base_url.join(""),
            prefix: format!("/api/w/{}/", windmill.workspace),
            token: windmill.token.clone(),
            headers: windmill.headers.to_vec(),
            word: Secret::new(word),
            permits,
            refusal: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        let server = LoopbackServer::start(move |stream| {
            if let Err(error) = answer(stream, &served) {
                log::debug!("a request of wmill was not relayed: {error}");
            }
        })?;
        Ok(Self { server, shared })
    }

    /// Returns the URL to which wmill appends its requests.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// Returns the secret word that replaces a token. Only this relay accepts it.
    #[must_use]
    pub fn word(&self) -> &Secret {
        &self.shared.word
    }

    /// Returns the last change that Windmill did not accept.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.shared.refusal().clone()
    }
}

type Request = http::Request<Vec<u8>>;
type Response = http::Response<ureq::Body>;

fn answer(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let Some((head, rest)) = read_head(stream)? else { return Ok(()) };
    let bearer = head.headers().get("authorization").and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let has_word = bearer.is_some_and(|token| shared.word.matches(token));
    // wmill asks for the server's version without a token.
    if !has_word && (*head.uri() != *VERSION || head.method() != Method::GET) {
        return write_text(stream, 401, "Unauthorized");
    }
    // Another program on this machine must not fill our memory.
    let request = if has_word { read_body(stream, head, rest)? } else { head.map(|()| Vec::new()) };
    let (changes, path) = (!matches!(*request.method(), Method::GET | Method::HEAD), request.uri().path().to_owned());
    let chosen = || shared.permits.chosen(&request.uri().to_string(), &shared.prefix, request.body());
    let chosen = if changes { chosen() } else { None };
    if changes && chosen.is_none() {
        log::debug!("left alone, as it was not chosen: {} {path}", request.method());
        // wmill takes a script as created only if the status is 201.
        return write_text(stream, if path.ends_with("/create") { 201 } else { 200 }, LEFT_ALONE);
    }
    let (status, reason) = match shared.forward(request) {
        Ok(mut response) if changes && response.status().as_u16() >= 400 => {
            let body = response.body_mut().with_config().limit(REASON_BYTES_MAX).read_to_vec().unwrap_or_default();
            (response.status().as_u16(), reason(&body))
        }
        Ok(response) => return relay(stream, response),
        Err(error) => (0, format!("no answer: {error}")),
    };
    if let Some(subject) = chosen {
        *shared.refusal() = Some(Refusal { what: subject.to_string(), status, reason: reason.clone() });
    }
    write_text(stream, if status == 0 { 502 } else { status }, &reason)
}

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

impl Shared {
    fn refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the request to Windmill, with the token instead of the word.
    fn forward(&self, request: Request) -> Result<Response, ureq::Error> {
        let url = [&self.base, request.uri().to_string().trim_start_matches('/')].concat();
        let mut forwarded = http::Request::builder().method(request.method()).uri(url);
        for (name, value) in request.headers().iter().filter(|(name, _)| !NOT_FORWARDED.contains(&name.as_str())) {
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

/// Headers about the connection, credentials and cookies.
const NOT_FORWARDED: [&str; 10] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
];

/// Reads the head of a request, and returns it with the bytes that came after it. Returns `None` if the connection ends
/// before the head is complete.
fn read_head(mut stream: &TcpStream) -> io::Result<Option<(http::Request<()>, Vec<u8>)>> {
    let (mut received, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            length => received.extend_from_slice(&chunk[..length]),
        }
        if let Some((head, bytes)) = parse_head(&received).ok_or_else(|| invalid("a malformed head"))? {
            return Ok(Some((head, received.split_off(bytes))));
        }
        if received.len() > HEAD_BYTES_MAX {
            return Err(invalid("the head is too large"));
        }
    }
}

/// Reads the rest of the body, which begins with `body`.
fn read_body(mut stream: &TcpStream, head: http::Request<()>, mut body: Vec<u8>) -> io::Result<Request> {
    if head.headers().contains_key("transfer-encoding") {
        return Err(invalid("a body in chunks"));
    }
    let length = head.headers().get("content-length").map_or(Some("0"), |length| length.to_str().ok());
    let length: Option<usize> = length.and_then(|length| length.parse().ok());
    let length = length.filter(|length| *length <= BODY_BYTES_MAX);
    let left = length.ok_or_else(|| invalid("its length"))?.saturating_sub(body.len());
    if Read::by_ref(&mut stream).take(left as u64).read_to_end(&mut body)? < left {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(head.map(|()| body))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Returns the head, and its length. Returns `Some(None)` if the head is incomplete, and `None` if it is malformed.
fn parse_head(received: &[u8]) -> Option<Option<(http::Request<()>, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(received).ok()? else { return Some(None) };
    let target = parsed.path.filter(|target| target.starts_with('/'))?;
    let head = http::Request::builder().method(parsed.method?).uri(target);
    let head = parsed.headers.iter().fold(head, |head, header| head.header(header.name, header.value));
    Some(Some((head.body(()).ok()?, length)))
}

fn write_text(mut stream: &TcpStream, status: u16, text: &str) -> io::Result<()> {
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status} \r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}"
    )
}

/// Passes an answer on. If the answer has a length, the relay sends the length too. Otherwise the relay sends chunks,
/// and omits the last one if the answer was cut off.
fn relay(mut stream: &TcpStream, mut response: Response) -> io::Result<()> {
    let kept = ["content-type", "content-encoding", "content-disposition", "location"];
    let mut head = format!("HTTP/1.1 {} \r\nConnection: close\r\n", response.status().as_u16());
    for (name, value) in response.headers() {
        if kept.contains(&name.as_str()) {
            head.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    let length = response.body().content_length();
    head.push_str(&match length {
        Some(length) => format!("Content-Length: {length}\r\n\r\n"),
        None => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
    });
    stream.write_all(head.as_bytes())?;
    let mut body = response.body_mut().as_reader();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = body.read(&mut chunk)?;
        if length.is_none() {
            write!(stream, "{count:x}\r\n")?;
        }
        stream.write_all(&chunk[..count])?;
        if length.is_none() {
            stream.write_all(b"\r\n")?;
        }
        if count == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, body: &str, expected: Option<(&str, bool)>) {
        let found = Subject::in_request(target, body.as_bytes());
        let found = found.map(|(subject, deletes)| (subject.to_string(), deletes));
        assert_eq!(found, expected.map(|(what, deletes)| (what.to_owned(), deletes)), "{target} {body}");
    }

    #[test]
    fn a_request_tells_what_it_changes() {
        let made = r#"{"path":"f/ops/a","value":{"path":"x"}}"#;
        check("scripts/create", made, Some(("script f/ops/a", false)));
        check("scripts/archive/p/f/ops/a", "", Some(("script f/ops/a", true)));
        check("flows/update/f/ops/a", "{}", Some(("flow f/ops/a", false)));
        check("flows/delete/f/ops/a", "", Some(("flow f/ops/a", true)));
        check("variables/update/f/ops/a%20b?already_encrypted=true", "{}", Some(("variable f/ops/a b", false)));
        check("resources/type/create", r#"{"name":"c_shop"}"#, Some(("resource type c_shop", false)));
        check("resources/type/delete/c_shop", "", Some(("resource type c_shop", true)));
        check("http_triggers/setmode/f/ops/hook", "{}", Some(("http trigger f/ops/hook", false)));
        check("acls/add/variable/f/ops/a", r#"{"owner":"u/x"}"#, Some(("variable f/ops/a", false)));
        check("acls/remove/group_/oncall", "{}", Some(("group oncall", false)));
        check("groups/create", r#"{"name":"oncall"}"#, Some(("group oncall", false)));
        check("groups/adduser/oncall", r#"{"username":"ann"}"#, Some(("group oncall", false)));
        check("folders/create", r#"{"name":"ops"}"#, Some(("folder ops", false)));
        check("users/update/bob", r#"{"is_admin":true}"#, Some(("user bob", false)));
        check("users/delete/bob", "", Some(("user bob", true)));
        check("workspaces/add_user", r#"{"email":"a@x.dev","username":"bob"}"#, Some(("new user a@x.dev", false)));
        check("workspaces/edit_webhook", "{}", Some(("settings", false)));
        check("workspaces/critical_alerts/mute", "{}", Some(("settings", false)));
        check("workspaces/encryption_key", "{}", Some(("encryption key", false)));
        check("shared_ui", r#"{"files":{}}"#, Some(("shared UI", false)));
        let front = r#"{"name":"front","language":"bun"}"#;
        check("workspace_dependencies/create", front, Some(("workspace dependencies front.package.json", false)));
        let plain = "workspace_dependencies/delete/go";
        check(plain, "", Some(("workspace dependencies go.mod", true)));
        check(&format!("{plain}?name=a%20b"), "", Some(("workspace dependencies a b.go.mod", true)));
        let record = r#"{"timestamp":20260101,"name":"init","code_up":""}"#;
        let upsert = "workspaces/upsert_datatable_migration/main";
        check(upsert, record, Some(("migration main/20260101_init", false)));
        let delete = "workspaces/delete_datatable_migration/main/20260101";
        check(delete, "", Some(("migration main/20260101", true)));
        let runs = r#"{"script_path":"f/ops/a","is_flow":false}"#;
        check("native_triggers/nextcloud/create", runs, Some(("new native trigger f/ops/a.script.nextcloud", false)));
        let update = "native_triggers/nextcloud/update/77";
        check(update, runs, Some(("native trigger f/ops/a.script.77.nextcloud", false)));
        check("native_triggers/nextcloud/delete/77", "", Some(("native trigger 77.nextcloud", true)));
    }

    #[test]
    fn a_request_that_names_two_items_or_that_wmill_does_not_need_is_about_nothing() {
        for kind in ["flows", "apps", "resources", "variables", "schedules", "folders", "http_triggers"] {
            let update = format!("{kind}/update/f/ops/a");
            for body in [r#"{"path":"f/admin/a"}"#, r#"{"name":"victim"}"#, r#"{"path":["f/ops/a"]}"#, "form", "[]"] {
                check(&update, body, None);
            }
            assert!(Subject::in_request(&update, br#"{"path":"f/ops/a","name":null}"#).is_some());
        }
        // A creation is about the name that Windmill takes for this kind.
        check("folders/create", r#"{"name":"victim","path":"ops"}"#, Some(("folder victim", false)));
        check("variables/create", r#"{"name":"f/ops/a","path":"f/admin/a"}"#, Some(("variable f/admin/a", false)));
        for request in [
            "folders/create",
            "variables/create",
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
            "native_triggers/nextcloud/create",
            "users/setpassword",
            "variables/update/%ff",
            "",
        ] {
            check(request, "no json", None);
        }
    }

    #[test]
    fn only_chosen_changes_of_the_workspace_are_forwarded() {
        let permits = Permits {
            writes: [Subject::new("variables", "f/ops/a"), Subject::new("folders", "ops")].into(),
            deletions: [Subject::new("variables", "f/ops/b")].into(),
        };
        for (target, is_forwarded) in [
            ("/api/w/shop/variables/update/f/ops/a?already_encrypted=true", true),
            ("/api/w/shop/variables/delete/f/ops/a", false),
            ("/api/w/shop/variables/update/f/ops/b", false),
            ("/api/w/shop/variables/delete/f/ops/b", true),
            ("/api/w/shop/variables/update/f/ops/c", false),
            ("/api/w/shop2/variables/update/f/ops/a", false),
            ("/api/w/other/variables/update/f/ops/a", false),
            ("/api/users/update/ann", false),
            ("/api/settings/global/retention", false),
            ("/api/w/shop/workspaces/archive", false),
            ("/api/w/shop/users/update/bob", false),
        ] {
            assert_eq!(permits.chosen(target, "/api/w/shop/", b"{}").is_some(), is_forwarded, "{target}");
        }
    }

    /// Returns the subjects of a creation, a change and a deletion of an item, each only if it differs from the one
    /// before.
    fn subjects_of(file: &str) -> Vec<String> {
        let item = crate::windmill::item_path::item_of(file).unwrap();
        let of = |verb| Subject::of(&item, verb).to_string();
        let mut subjects = [Verb::Create, Verb::Update, Verb::Delete].map(of).to_vec();
        subjects.dedup();
        subjects
    }

    #[test]
    fn an_item_is_what_its_requests_are_about() {
        for (file, subject) in [
            ("f/ops/a.py", "script f/ops/a"),
            ("f/ops/a.raw_app/index.tsx", "app f/ops/a"),
            ("c_shop.resource-type.yaml", "resource type c_shop"),
            ("f/ops/a.http_trigger.yaml", "http trigger f/ops/a"),
            ("groups/oncall.group.yaml", "group oncall"),
            ("settings.yaml", "settings"),
            ("encryption_key.yaml", "encryption key"),
            ("dependencies/front.package.json", "workspace dependencies front.package.json"),
        ] {
            assert_eq!(subjects_of(file), [subject]);
        }
        assert_eq!(subjects_of("users/a@x.dev.user.yaml"), ["new user a@x.dev", "user a@x.dev"]);
        let migration = subjects_of("migrations/datatable/main/0020260101_init_it.down.sql");
        assert_eq!(migration, ["migration main/20260101_init_it", "migration main/20260101"]);
        assert_eq!(
            subjects_of("f/ops/a.script.77.nextcloud_native_trigger.yaml"),
            [
                "new native trigger f/ops/a.script.nextcloud",
                "native trigger f/ops/a.script.77.nextcloud",
                "native trigger 77.nextcloud"
            ]
        );
    }

    #[test]
    fn a_reason_is_one_line_of_the_servers_words() {
        let said = b"Bad request: HTTP route already exists\n for this @http_triggers.rs:120:9\n";
        assert_eq!(reason(said), "Bad request: HTTP route already exists for this");
        assert_eq!(reason(b"<html>x"), "it answered with a page");
    }

    #[test]
    #[cfg(unix)]
    fn a_body_is_awaited_only_from_the_program_that_has_the_word() {
        let shared = Shared {
            agent: http_client::client("http://127.0.0.1:1/", Duration::from_secs(1), &[]),
            base: "http://127.0.0.1:1/".to_owned(),
            prefix: "/api/w/shop/".to_owned(),
            token: Secret::new(String::new()),
            headers: Vec::new(),
            word: Secret::new("the word".to_owned()),
            permits: Permits { writes: BTreeSet::new(), deletions: BTreeSet::new() },
            refusal: Mutex::default(),
        };
        let server = LoopbackServer::start(move |stream| drop(answer(stream, &shared))).expect("a server");
        let ask = |request: &str, word: &str, body: &str| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            let head = format!("{request} HTTP/1.1\r\nAuthorization: Bearer {word}\r\nContent-Length: 9000000\r\n\r\n");
            stream.write_all([&head, body].concat().as_bytes()).expect("sent");
            let mut status = [0; 12];
            stream.read_exact(&mut status).expect("an answer");
            String::from_utf8(status.to_vec()).expect("a status")
        };
        assert_eq!(ask("POST /api/w/shop/flows/create", "a word", ""), "HTTP/1.1 401");
        assert_eq!(ask(&format!("GET {VERSION}"), "a word", ""), "HTTP/1.1 502");
        assert_eq!(ask("POST /api/w/shop/flows/create", "the word", &" ".repeat(9_000_000)), "HTTP/1.1 201");
    }
}
