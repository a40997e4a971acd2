//! The stand-in for Windmill: an API that answers as Windmill Community Edition 1.491.5 was recorded to answer, with
//! workspaces that a test switches and edits, faults on demand, and a log of what was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use miniserde::json::{self, Value};

use super::deployed;
use super::http::{self, Fault, Faults, LoggedRequest, Reply, Request, Response, Server};
use super::process::PATIENCE;
use super::workspace::{Workspace, tar_of, zip_of};

/// The right token, made to be found where it must not be.
pub const WINDMILL_TOKEN: &str = "wm-token-PLANTED-1111-5f0c8a";

/// The workspace that is there from the start, in state `1-seeded`.
pub const SHOP: &str = "shop";

/// What the token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// One workspace: 401 everywhere else, and from what is of no workspace.
    BoundTo(String),
    /// A person, a superadmin here: everything.
    User,
}

/// What the token's owner is in the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Admin,
    Developer,
}

/// A server of its own on a port of its own; gone when dropped.
pub struct Windmill {
    server: Server,
    prefix: String,
    shared: Arc<Shared>,
}

type ExportHook = Box<dyn FnMut(&mut Workspace) + Send>;

struct Shared {
    prefix: String,
    state: Mutex<State>,
    faults: Faults,
    on_export: Mutex<Option<ExportHook>>,
    gate: Gate,
}

/// Where exports wait while a test holds them.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    holders: usize,
    waiting: usize,
}

/// While it lives, no export is answered but to our own program.
pub struct HeldExports {
    shared: Arc<Shared>,
}

impl HeldExports {
    /// Waits until this many exports are asked for and not answered.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        let gate = &self.shared.gate;
        let state = gate.state.lock().unwrap();
        let (state, waited) = gate.changed.wait_timeout_while(state, PATIENCE, |state| state.waiting < count).unwrap();
        let waiting = state.waiting;
        drop(state);
        assert!(!waited.timed_out(), "{waiting} exports are asked for, not {count}");
    }

    /// How many exports are asked for and not answered.
    pub fn waiting(&self) -> usize {
        self.shared.gate.state.lock().unwrap().waiting
    }

    /// Lets them all go on.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for HeldExports {
    fn drop(&mut self) {
        self.shared.gate.state.lock().unwrap().holders -= 1;
        self.shared.gate.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.holders > 0).unwrap();
        state.waiting -= 1;
    }
}

struct State {
    workspaces: BTreeMap<String, Workspace>,
    archived: Vec<String>,
    token: String,
    token_kind: TokenKind,
    role: Role,
    version: String,
    date: Option<String>,
    requests: Vec<LoggedRequest>,
    side: Side,
    archives: Vec<Archive>,
    /// How often workspaces were changed.
    changes: u64,
}

/// An export that was made before, for the next who asks for the same while nothing has changed.
struct Archive {
    workspace: String,
    query: String,
    bytes: Arc<Vec<u8>>,
}

/// `wmill`'s, and those of whoever asks otherwise.
const ARCHIVES_KEPT: usize = 4;

impl State {
    /// The workspaces, by one who changes them.
    fn workspaces_to_change(&mut self) -> &mut BTreeMap<String, Workspace> {
        self.archives.clear();
        self.changes += 1;
        &mut self.workspaces
    }

    fn archive(&self, workspace: &str, query: &str) -> Option<Arc<Vec<u8>>> {
        let known = self.archives.iter().find(|known| known.workspace == workspace && known.query == query)?;
        Some(Arc::clone(&known.bytes))
    }

    fn keep_archive(&mut self, workspace: &str, query: &str, bytes: &Arc<Vec<u8>>) {
        if self.archives.len() == ARCHIVES_KEPT {
            self.archives.remove(0);
        }
        let (workspace, query) = (workspace.to_owned(), query.to_owned());
        self.archives.push(Archive { workspace, query, bytes: Arc::clone(bytes) });
    }
}

/// What `wmill` asks for beside the export, as bodies; nothing is a 404, as this version of Windmill was recorded.
#[derive(Clone, Default)]
struct Side {
    shared_ui: Option<String>,
    ws_specific: Option<String>,
    /// By default, `{}`, as recorded.
    file_types: Option<String>,
    users: Option<String>,
    /// Single scripts and apps, by list and path.
    single: BTreeMap<String, String>,
}

impl Windmill {
    /// With workspace `shop` in state `1-seeded`, and a token bound to it.
    pub fn start() -> Self {
        Self::start_below("")
    }

    /// The same below a path, as behind a gateway: `/windmill` gives `/windmill/api/…`.
    pub fn start_below(prefix: &str) -> Self {
        let shared = Arc::new(Shared {
            prefix: prefix.to_owned(),
            state: Mutex::new(State {
                archived: Vec::new(),
                workspaces: BTreeMap::from([(SHOP.to_owned(), Workspace::recorded("1-seeded"))]),
                token: WINDMILL_TOKEN.to_owned(),
                token_kind: TokenKind::BoundTo(SHOP.to_owned()),
                role: Role::Admin,
                version: "CE v1.491.5".to_owned(),
                date: None,
                requests: Vec::new(),
                side: Side::default(),
                archives: Vec::new(),
                changes: 0,
            }),
            faults: Faults::default(),
            on_export: Mutex::new(None),
            gate: Gate::default(),
        });
        let of_server = Arc::clone(&shared);
        Self { server: Server::start(move |request| of_server.reply(&request)), prefix: prefix.to_owned(), shared }
    }

    /// What belongs into `WINDMILL_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.server.address(), self.prefix)
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Puts `shop` into a recorded state: `1-seeded`, `2-edited`, `3-emptied`.
    #[track_caller]
    pub fn state(&self, name: &str) {
        self.set(SHOP, Workspace::recorded(name));
    }

    /// Makes this the content of workspace `id`, which need not have existed.
    pub fn set(&self, id: &str, workspace: Workspace) {
        let mut state = self.shared.state.lock().unwrap();
        state.workspaces_to_change().insert(id.to_owned(), workspace);
    }

    /// Archives workspace `id`: it is still listed, as deleted.
    pub fn archive(&self, id: &str) {
        self.shared.state.lock().unwrap().archived.push(id.to_owned());
    }

    /// Edits `shop`.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Workspace) -> T) -> T {
        let mut state = self.shared.state.lock().unwrap();
        edit(state.workspaces_to_change().get_mut(SHOP).unwrap())
    }

    /// Sets one entry of `shop`.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.edit(|workspace| workspace.put(path, bytes));
    }

    /// Takes one entry of `shop` out.
    #[track_caller]
    pub fn remove(&self, path: &str) {
        let mut workspace = self.workspace(SHOP);
        workspace.remove(path);
        self.set(SHOP, workspace);
    }

    /// A copy of workspace `id`.
    #[track_caller]
    pub fn workspace(&self, id: &str) -> Workspace {
        let state = self.shared.state.lock().unwrap();
        state.workspaces.get(id).expect("a workspace").clone()
    }

    /// What the token is for. At first: [`TokenKind::BoundTo`] `shop`.
    pub fn token_kind(&self, kind: TokenKind) {
        self.shared.state.lock().unwrap().token_kind = kind;
    }

    /// Makes another token the right one, as when it was rotated.
    pub fn token(&self, token: &str) {
        token.clone_into(&mut self.shared.state.lock().unwrap().token);
    }

    /// What `whoami` says the token's owner is. At first: [`Role::Admin`].
    pub fn role(&self, role: Role) {
        self.shared.state.lock().unwrap().role = role;
    }

    /// What `/api/version` says. At first: `CE v1.491.5`.
    pub fn version(&self, version: &str) {
        version.clone_into(&mut self.shared.state.lock().unwrap().version);
    }

    /// The `Date` header of `/api/version`. At first there is none.
    pub fn date(&self, date: std::time::SystemTime) {
        self.shared.state.lock().unwrap().date = Some(httpdate::fmt_http_date(date));
    }

    /// The files that `shared_ui/get` gives, by their names below `ui/`; `None`, as at first, is the recorded 404.
    pub fn shared_ui(&self, files: Option<&[(&str, &str)]>) {
        let body = files.map(|files| {
            let fields: Vec<String> = files
                .iter()
                .map(|(name, content)| format!("{}:{}", json::to_string(*name), json::to_string(*content)))
                .collect();
            format!("{{\"files\":{{{}}}}}", fields.join(","))
        });
        self.shared.state.lock().unwrap().side.shared_ui = body;
    }

    /// The items that `list_ws_specific` gives, by kind and path; `None`, as at first, is the recorded 404.
    pub fn ws_specific(&self, items: Option<&[(&str, &str)]>) {
        let body = items.map(|items| {
            let items: Vec<String> = items
                .iter()
                .map(|(kind, path)| {
                    format!("{{\"item_kind\":{},\"path\":{}}}", json::to_string(*kind), json::to_string(*path))
                })
                .collect();
            format!("[{}]", items.join(","))
        });
        self.shared.state.lock().unwrap().side.ws_specific = body;
    }

    /// The JSON that `file_resource_type_to_file_ext_map` gives. At first: `{}`, as recorded.
    pub fn file_types(&self, body: &str) {
        self.shared.state.lock().unwrap().side.file_types = Some(body.to_owned());
    }

    /// Says in `users/list` which addresses there are for which names. At first, there is no such list.
    pub fn users(&self, users: &[(&str, &str)]) {
        let users: Vec<_> = users
            .iter()
            .map(|(name, address)| {
                format!("{{\"username\":{},\"email\":{}}}", json::to_string(*name), json::to_string(*address))
            })
            .collect();
        self.shared.state.lock().unwrap().side.users = Some(format!("[{}]", users.join(",")));
    }

    /// What is answered when one of `scripts` or `apps` is asked for. At first, a 404.
    pub fn single(&self, list: &str, path: &str, answer: &str) {
        self.shared.state.lock().unwrap().side.single.insert(format!("{list}/{path}"), answer.to_owned());
    }

    /// From now on, each request whose path and query contain `needle` goes wrong, until [`Windmill::heal`].
    pub fn fail(&self, needle: &str, fault: Fault) {
        self.shared.faults.plan(needle, fault, None);
    }

    /// The next such request goes wrong.
    pub fn fail_once(&self, needle: &str, fault: Fault) {
        self.shared.faults.plan(needle, fault, Some(1));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.shared.faults.heal();
    }

    /// Runs `hook` each time wmill asks for the export of a workspace, before it is made; what it edits is in it. Our own
    /// program, which only looks whether anything changed, sees what is there.
    pub fn on_export(&self, hook: impl FnMut(&mut Workspace) + Send + 'static) {
        *self.shared.on_export.lock().unwrap() = Some(Box::new(hook));
    }

    /// From now on no export is answered to wmill until what this gives is released or dropped: a sync whose pull stands
    /// still for as long as a test needs it to.
    #[must_use]
    pub fn hold_exports(&self) -> HeldExports {
        self.shared.gate.state.lock().unwrap().holders += 1;
        HeldExports { shared: Arc::clone(&self.shared) }
    }

    /// All that was asked so far.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// How many exports wmill asked for: one a pull.
    pub fn exports(&self) -> usize {
        self.exports_to(false)
    }

    /// How many exports our own program asked for, to see whether anything changed.
    pub fn probes(&self) -> usize {
        self.exports_to(true)
    }

    fn exports_to(&self, us: bool) -> usize {
        let state = self.shared.state.lock().unwrap();
        let is_meant = |r: &&LoggedRequest| r.target.contains("/workspaces/tarball") && r.is_ours == us;
        state.requests.iter().filter(is_meant).count()
    }

    pub fn forget_requests(&self) {
        self.shared.state.lock().unwrap().requests.clear();
    }

    /// Waits until a request hangs by a fault, its client still there.
    #[track_caller]
    pub fn wait_until_hanging(&self) {
        self.server.wait_until_hanging();
    }
}

impl Shared {
    fn reply(&self, request: &Request) -> Reply {
        let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let mut state = self.state.lock().unwrap();
        let authorized = bearer == Some(state.token.as_str());
        let logged = LoggedRequest::of(request, authorized);
        state.requests.push(logged);
        drop(state);
        let fault = self.faults.take(&request.target);
        let response = if matches!(fault, Some(Fault::Hang | Fault::Close)) {
            Response::empty(500)
        } else {
            self.answer(request, authorized)
        };
        Reply { response, fault }
    }

    fn answer(&self, request: &Request, authorized: bool) -> Response {
        let Some(path) = request.path().strip_prefix(self.prefix.as_str()) else {
            return Response::empty(404);
        };
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["api", "version"]) => {
                let state = self.state.lock().unwrap();
                let response = Response::text(200, &state.version);
                state.date.iter().fold(response, |response, date| response.with_header("date", date))
            }
            (_, ["api", ..]) if !authorized => Response::text(401, "Unauthorized"),
            (_, ["api", "w", workspace, rest @ ..]) => self.of_workspace(request, workspace, rest),
            (method, ["api", rest @ ..]) => self.of_no_workspace(method, rest, &request.body),
            _ => Response::empty(404),
        }
    }

    fn of_no_workspace(&self, method: &str, path: &[&str], body: &[u8]) -> Response {
        let state = self.state.lock().unwrap();
        if matches!(state.token_kind, TokenKind::BoundTo(_)) {
            return Response::text(401, "Unauthorized");
        }
        let listed = |line: fn(&str) -> String| {
            let lines: Vec<String> = state.workspaces.keys().map(|id| line(id)).collect();
            lines.join(",")
        };
        match (method, path) {
            ("GET", ["users", "whoami"]) => Response::json(WHOAMI),
            ("GET", ["workspaces", "users"]) => {
                let workspaces = listed(|id| {
                    format!(
                        "{{\"id\":\"{id}\",\"name\":\"{id}\",\"username\":\"admin\",\"color\":null,\
                         \"operator_settings\":null}}"
                    )
                });
                Response::json(format!("{{\"email\":\"admin@windmill.dev\",\"workspaces\":[{workspaces}]}}"))
            }
            ("GET", ["workspaces", "list"]) => {
                let line = |id: &String| {
                    let deleted = state.archived.contains(id);
                    format!(
                        "{{\"id\":\"{id}\",\"name\":\"{id}\",\"owner\":\"admin@windmill.dev\",\
                         \"deleted\":{deleted},\"premium\":false,\"color\":null}}"
                    )
                };
                let workspaces: Vec<_> = state.workspaces.keys().map(line).collect();
                Response::json(format!("[{}]", workspaces.join(",")))
            }
            ("POST", ["workspaces", "exists"]) => {
                let exists = asked_id(body).is_some_and(|id| state.workspaces.contains_key(&id));
                Response::json(exists.to_string())
            }
            _ => Response::empty(404),
        }
    }

    fn of_workspace(&self, request: &Request, id: &str, path: &[&str]) -> Response {
        let state = self.state.lock().unwrap();
        if matches!(&state.token_kind, TokenKind::BoundTo(bound) if bound != id) {
            return Response::text(401, "Unauthorized");
        }
        let role = state.role;
        let side = state.side.clone();
        drop(state);
        match (request.method.as_str(), path) {
            // Not recorded for a workspace that is not there; a superadmin is an admin everywhere.
            ("GET", ["users", "whoami"]) => Response::json(whoami_in(id, role)),
            ("GET", ["resources", "file_resource_type_to_file_ext_map"]) => {
                Response::json(side.file_types.unwrap_or_else(|| "{}".to_owned()))
            }
            ("GET", ["shared_ui", "get"]) => side.shared_ui.map_or_else(|| Response::empty(404), Response::json),
            ("GET", ["workspaces", "list_ws_specific"]) => {
                side.ws_specific.map_or_else(|| Response::empty(404), Response::json)
            }
            ("GET", ["workspaces", "tarball"]) => self.export(request, id),
            ("GET", [list @ ("scripts" | "flows" | "apps"), "list"]) => {
                let asked = format!("/{}?{}", path.join("/"), request.query_text());
                let state = self.state.lock().unwrap();
                let Some(workspace) = state.workspaces.get(id) else { return Response::json("[]") };
                let query = request.query();
                let number = |name: &str| query.get(name).and_then(|value| value.parse().ok());
                let (page, per_page) = (number("page").unwrap_or(1), number("per_page").unwrap_or(1000));
                let made_up = || format!("[{}]", workspace.edits(list, page, per_page).join(","));
                Response::json(workspace.recorded_answer(&asked).map_or_else(made_up, str::to_owned))
            }
            ("GET", [list @ ("scripts" | "apps"), "get", "p", rest @ ..]) => {
                let answer = side.single.get(&format!("{list}/{}", rest.join("/")));
                answer.map_or_else(|| Response::empty(404), |answer| Response::json(answer.as_str()))
            }
            ("GET", ["users", "list"]) => side.users.map_or_else(|| Response::empty(404), Response::json),
            _ => {
                let mut state = self.state.lock().unwrap();
                let is_admin = role == Role::Admin;
                // What only asks changes nothing, and archives that are kept stay good.
                let workspaces =
                    if request.method == "GET" { &mut state.workspaces } else { state.workspaces_to_change() };
                match workspaces.get_mut(id) {
                    // Not recorded.
                    Some(_) if !is_admin && path == ["workspaces", "encryption_key"] => {
                        Response::text(403, "This endpoint requires the caller to be an admin of the workspace")
                    }
                    Some(workspace) => {
                        deployed::answer(workspace, request, path).unwrap_or_else(|| Response::empty(404))
                    }
                    None => Response::empty(404),
                }
            }
        }
    }

    fn export(&self, request: &Request, id: &str) -> Response {
        let query = request.query();
        let archive_type = query.get("archive_type").map_or("tar", String::as_str);
        let pack = match archive_type {
            "tar" => tar_of,
            "zip" => zip_of,
            other => {
                let message = format!("Bad request: Invalid Archive Type {other}");
                return Response::new(400, "text/plain", message);
            }
        };
        // Our own program only looks whether anything changed.
        if !http::is_ours(request) {
            self.gate.pass();
            self.run_export_hook(id);
        }
        let answer = |bytes| {
            // The type is the recorded one, also for a zip.
            Response::shared(200, "application/x-tar", bytes)
                .with_header("content-disposition", format!("attachment; filename=\"windmill-{id}.{archive_type}\""))
        };
        let state = self.state.lock().unwrap();
        let Some(workspace) = state.workspaces.get(id) else {
            return Response::new(500, "text/plain", NO_ROWS);
        };
        if let Some(bytes) = state.archive(id, request.query_text()) {
            return answer(bytes);
        }
        let (entries, changes) = (workspace.export(&query), state.changes);
        drop(state);
        let bytes = Arc::new(pack(&entries));
        let mut state = self.state.lock().unwrap();
        if state.changes == changes {
            state.keep_archive(id, request.query_text(), &bytes);
        }
        answer(bytes)
    }

    fn run_export_hook(&self, id: &str) {
        let mut hook = self.on_export.lock().unwrap();
        let Some(hook) = hook.as_mut() else { return };
        let workspace = self.state.lock().unwrap().workspaces.get(id).cloned();
        let Some(mut workspace) = workspace else { return };
        hook(&mut workspace);
        self.state.lock().unwrap().workspaces_to_change().insert(id.to_owned(), workspace);
    }
}

const NO_ROWS: &str = "Internal: fetching workspace key: no rows returned by a query that expected to return at least \
                       one row @variables.rs:110:18";

const WHOAMI: &str = "{\"email\":\"admin@windmill.dev\",\"login_type\":\"password\",\"super_admin\":true,\
                      \"devops\":false,\"verified\":true,\"name\":\"Admin\",\"company\":\"Windmill\",\
                      \"username\":\"admin\"}";

fn whoami_in(workspace: &str, role: Role) -> String {
    let admin = role == Role::Admin;
    format!(
        "{{\"workspace_id\":\"{workspace}\",\"email\":\"admin@windmill.dev\",\"username\":\"admin\",\
         \"is_admin\":{admin},\"is_super_admin\":{admin},\"created_at\":\"2026-11-22T17:07:39.396203Z\",\
         \"groups\":[\"all\",\"oncall\"],\"operator\":false,\"disabled\":false,\"role\":null,\
         \"folders_read\":[\"app_custom\",\"app_groups\",\"app_themes\",\"ops\",\"sales\"],\
         \"folders\":[\"ops\",\"sales\"],\"folders_owners\":[\"ops\",\"sales\"],\"name\":\"Admin\"}}"
    )
}

fn asked_id(body: &[u8]) -> Option<String> {
    match json::from_str(std::str::from_utf8(body).ok()?).ok()? {
        Value::Object(fields) => match fields.get("id")? {
            Value::String(id) => Some(id.clone()),
            _ => None,
        },
        _ => None,
    }
}
