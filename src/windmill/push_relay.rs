//! Relays the requests of `wmill sync push` to Windmill, on a loopback address, for one push.
//!
//! `wmill` gets a word that is valid only here, and never the token. It changes everything that differs in the whole
//! workspace. So a change of an item that was not chosen is answered here, and not forwarded. A change of no known item
//! is forwarded, but a deletion only if the push may delete something. Windmill's last refusal is kept with its own
//! words, which `wmill` hides in a dump of the request.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use miniserde::json::{self, Value};

use crate::http::loopback::LoopbackServer;
use crate::net::http_client;
use crate::process::run_env::RunEnv;
use crate::util::hash;
use crate::util::percent;
use crate::util::secret::Secret;
use crate::windmill::api::Windmill;
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

/// The subject of a request: a part of Windmill's API, such as `variables`, and a path or name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    kind: String,
    path: String,
}

impl Subject {
    /// Returns the subject of the folder `f/{name}`.
    #[must_use]
    pub fn folder(name: &str) -> Self {
        Self { kind: "folders".to_owned(), path: name.to_owned() }
    }

    /// Returns the subject of the item, or `None` if Windmill has no requests for only such items.
    #[must_use]
    pub fn of(item: &ItemId) -> Option<Self> {
        let kind = match item.kind {
            ItemKind::Script => "scripts",
            ItemKind::Flow => "flows",
            ItemKind::App | ItemKind::RawApp => "apps",
            ItemKind::Resource => "resources",
            ItemKind::ResourceType => "resources/type",
            ItemKind::Variable => "variables",
            ItemKind::Schedule => "schedules",
            ItemKind::Group => "groups",
            // Windmill deletes these by another name than their path, so all of a kind have one subject.
            ItemKind::User => return Some(Self { kind: "users".to_owned(), path: String::new() }),
            ItemKind::WorkspaceDependencies => {
                return Some(Self { kind: "workspace_dependencies".to_owned(), path: String::new() });
            }
            ItemKind::Trigger("native") | ItemKind::Migration | ItemKind::Settings | ItemKind::Key => return None,
            ItemKind::Trigger(sort) => {
                return Some(Self { kind: format!("{sort}_triggers"), path: item.path.clone() });
            }
        };
        Some(Self { kind: kind.to_owned(), path: item.path.clone() })
    }

    /// Returns what a request changes, and whether it deletes it. Returns `None` if the request is about no item, or
    /// about an unknown one.
    fn in_request(method: &str, path: &str, body: &[u8]) -> Option<(Self, bool)> {
        let parts: Vec<String> = path.split('/').map(|part| percent::decode(part).unwrap_or_default()).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let of_kind = |kind: &str| Self { kind: kind.to_owned(), path: String::new() };
        let (kind, verb, rest) = match parts[..] {
            ["users", "delete", ..] => return Some((of_kind("users"), true)),
            ["workspace_dependencies", verb, ..] => return Some((of_kind("workspace_dependencies"), verb == "delete")),
            ["acls", "add" | "remove", kind, ref rest @ ..] => (kind_of_acl(kind), "add", rest),
            ["resources", "type", verb, ref rest @ ..] => ("resources/type".to_owned(), verb, rest),
            [kind, verb, ref rest @ ..] => (kind.to_owned(), verb, rest),
            _ => return None,
        };
        const KINDS: [&str; 9] =
            ["scripts", "flows", "apps", "resources", "resources/type", "variables", "schedules", "folders", "groups"];
        let is_trigger = kind.ends_with("_triggers") && kind != "native_triggers";
        if !is_trigger && !KINDS.contains(&kind.as_str()) {
            return None;
        }
        let named = match rest {
            ["p", rest @ ..] => rest.join("/"),
            rest => rest.join("/"),
        };
        let path = if named.is_empty() { name_in(body)? } else { named };
        let deletes = method == "DELETE" || matches!(verb, "delete" | "archive");
        Some((Self { kind, path }, deletes))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == "resources/type" { "resource type" } else { self.kind.trim_end_matches('s') };
        write!(formatter, "{} {}", kind.replace('_', " "), self.path)
    }
}

fn kind_of_acl(kind: &str) -> String {
    match kind {
        "group_" => "groups".to_owned(),
        "raw_app" => "apps".to_owned(),
        kind => [kind, "s"].concat(),
    }
}

/// Returns the `path`, or else the `name`, of the object that a body creates.
fn name_in(body: &[u8]) -> Option<String> {
    let Ok(Value::Object(fields)) = json::from_str(std::str::from_utf8(body).ok()?) else { return None };
    ["path", "name"].iter().find_map(|name| match fields.get(*name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    })
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

/// What happened to the changes of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The last change that Windmill did not accept.
    pub refusal: Option<Refusal>,
    /// How many changes were not forwarded, because their items were not chosen.
    pub left_alone: usize,
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
    relayed: Mutex<Relayed>,
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
            relayed: Mutex::default(),
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

    /// Returns what happened to the changes so far.
    #[must_use]
    pub fn relayed(&self) -> Relayed {
        self.shared.relayed().clone()
    }
}

/// A request of wmill.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn answer(mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let Some(request) = read_request(stream)? else { return Ok(()) };
    // wmill asks for the server's version without a token.
    if request.target != VERSION && !request.bearer_token().is_some_and(|token| shared.word.matches(token.as_bytes())) {
        return write_text(stream, 401, "Unauthorized");
    }
    let changes = !matches!(request.method.as_str(), "GET" | "HEAD");
    let path = request.target.split('?').next().unwrap_or_default();
    let of_workspace = path.strip_prefix(&shared.prefix);
    let subject =
        of_workspace.filter(|_| changes).and_then(|path| Subject::in_request(&request.method, path, &request.body));
    let is_chosen = match &subject {
        Some((subject, true)) => shared.permits.deletions.contains(subject),
        Some((subject, false)) => shared.permits.writes.contains(subject),
        None => request.method != "DELETE" || !shared.permits.deletions.is_empty(),
    };
    if !is_chosen {
        log::debug!("left alone, as it was not chosen: {} {path}", request.method);
        shared.relayed().left_alone += 1;
        // wmill takes a script as created only if the status is 201.
        return write_text(stream, if path.ends_with("/create") { 201 } else { 200 }, LEFT_ALONE);
    }
    let what = || match &subject {
        Some((subject, _)) => subject.to_string(),
        None => format!("{} {}", request.method, of_workspace.unwrap_or(path)),
    };
    match shared.forward(&request) {
        Ok(mut response) => {
            let status = response.status().as_u16();
            if changes && status >= 400 {
                let body = response.body_mut().with_config().limit(REASON_BYTES_MAX).read_to_vec().unwrap_or_default();
                let reason = reason(&body);
                shared.relayed().refusal = Some(Refusal { what: what(), status, reason: reason.clone() });
                return write_text(stream, status, &reason);
            }
            relay(stream, response)
        }
        Err(error) => {
            let reason = format!("no answer: {error}");
            if changes {
                shared.relayed().refusal = Some(Refusal { what: what(), status: 0, reason: reason.clone() });
            }
            write_text(stream, 502, &reason)?;
            stream.flush()
        }
    }
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
    fn relayed(&self) -> MutexGuard<'_, Relayed> {
        self.relayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the request to Windmill, with the token instead of the word.
    fn forward(&self, request: &Request) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let url = [&self.base, request.target.trim_start_matches('/')].concat();
        let mut forwarded = ureq::http::Request::builder().method(request.method.as_str()).uri(url);
        for (name, value) in request.headers.iter().filter(|(name, _)| is_forwarded(name)) {
            forwarded = forwarded.header(name, value);
        }
        if !self.token.expose().is_empty() {
            forwarded = forwarded.header("Authorization", ["Bearer ", self.token.expose()].concat());
        }
        for (name, value) in &self.headers {
            forwarded = forwarded.header(name, value.expose());
        }
        if matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") {
            return self.agent.run(forwarded.body(&request.body[..])?);
        }
        self.agent.run(forwarded.body(())?)
    }
}

/// Whether to forward a header. Headers about the connection, credentials and cookies are not forwarded.
fn is_forwarded(name: &str) -> bool {
    const OWN: [&str; 10] = [
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
    !OWN.contains(&name)
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn bearer_token(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }
}

/// Reads the request. Returns `None` if the connection ends before the head is complete.
fn read_request(mut stream: &TcpStream) -> io::Result<Option<Request>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let (mut received, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    let (mut request, head_bytes) = loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            length => received.extend_from_slice(&chunk[..length]),
        }
        if let Some(parsed) = parse_head(&received).ok_or_else(|| invalid("a malformed head"))? {
            break parsed;
        }
        if received.len() > HEAD_BYTES_MAX {
            return Err(invalid("the head is too large"));
        }
    };
    if request.header("transfer-encoding").is_some() {
        return Err(invalid("a body in chunks"));
    }
    let length = request.header("content-length").map_or(Ok(0), str::parse);
    let length: usize = length.ok().filter(|length| *length <= BODY_BYTES_MAX).ok_or_else(|| invalid("its length"))?;
    request.body = received.split_off(head_bytes);
    while request.body.len() < length {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.body.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(Some(request))
}

/// Returns the head, and its length. Returns `Some(None)` if the head is incomplete, and `None` if it is malformed.
fn parse_head(received: &[u8]) -> Option<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(received).ok()? else { return Some(None) };
    let headers = parsed
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()));
    let request = Request {
        method: parsed.method?.to_owned(),
        target: parsed.path.filter(|target| target.starts_with('/'))?.to_owned(),
        headers: headers.collect(),
        body: Vec::new(),
    };
    Some(Some((request, length)))
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
fn relay(mut stream: &TcpStream, mut response: ureq::http::Response<ureq::Body>) -> io::Result<()> {
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
    fn check(request: &str, body: &str, expected: Option<(&str, bool)>) {
        let (method, path) = request.split_once(' ').unwrap();
        let found = Subject::in_request(method, path, body.as_bytes());
        let found = found.map(|(subject, deletes)| (subject.to_string(), deletes));
        assert_eq!(found, expected.map(|(what, deletes)| (what.to_owned(), deletes)), "{request}");
    }

    #[test]
    fn a_request_tells_what_it_changes() {
        let made = r#"{"path":"f/ops/a","value":{"path":"x"}}"#;
        check("POST scripts/create", made, Some(("script f/ops/a", false)));
        check("POST scripts/archive/p/f/ops/a", "", Some(("script f/ops/a", true)));
        check("POST flows/update/f/ops/a", "{}", Some(("flow f/ops/a", false)));
        check("DELETE flows/delete/f/ops/a", "", Some(("flow f/ops/a", true)));
        check("POST variables/update/f/ops/a%20b", "{}", Some(("variable f/ops/a b", false)));
        check("POST resources/type/create", r#"{"name":"c_shop"}"#, Some(("resource type c_shop", false)));
        check("DELETE resources/type/delete/c_shop", "", Some(("resource type c_shop", true)));
        check("POST http_triggers/setmode/f/ops/hook", "{}", Some(("http trigger f/ops/hook", false)));
        check("POST acls/add/variable/f/ops/a", r#"{"owner":"u/x"}"#, Some(("variable f/ops/a", false)));
        check("POST acls/remove/group_/oncall", "{}", Some(("group oncall", false)));
        check("POST folders/create", r#"{"name":"ops"}"#, Some(("folder ops", false)));
        check("POST workspaces/edit_webhook", "{}", None);
        check("POST variables/create", "no json", None);
        check("POST native_triggers/nextcloud/create", "{}", None);
    }

    #[test]
    fn an_item_is_what_its_requests_are_about() {
        let of = |path: &str| {
            let item = crate::windmill::item_path::item_of(path).unwrap();
            Subject::of(&item).map(|subject| subject.to_string())
        };
        assert_eq!(of("f/ops/a.py").as_deref(), Some("script f/ops/a"));
        assert_eq!(of("f/ops/a.raw_app/index.tsx").as_deref(), Some("app f/ops/a"));
        assert_eq!(of("c_shop.resource-type.yaml").as_deref(), Some("resource type c_shop"));
        assert_eq!(of("f/ops/a.http_trigger.yaml").as_deref(), Some("http trigger f/ops/a"));
        assert_eq!(of("groups/oncall.group.yaml").as_deref(), Some("group oncall"));
        assert_eq!(of("settings.yaml"), None);
    }

    #[test]
    fn a_reason_is_one_line_of_the_servers_words() {
        let said = b"Bad request: HTTP route already exists\n for this @http_triggers.rs:120:9\n";
        assert_eq!(reason(said), "Bad request: HTTP route already exists for this");
        assert_eq!(reason(b"<html>x"), "it answered with a page");
    }
}
