//! The stand-in for Windmill: an API that answers like the recorded Community Edition, 1.743.0 or 1.491.5, with
//! workspaces that a test switches and edits, faults on demand, and a log of the requests.
//!
//! What varies on the real server also varies here, in each answer: times, the order of entries, and the order of what
//! the server holds in hash maps. A request that was not recorded is answered with 501, and fails the test at its end.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use miniserde::json::{self, Value};

use super::deployed;
use super::http::{Fault, Faults, LoggedRequest, Reply, Request, Response, Server};
use super::process::PATIENCE;
pub use super::workspace::Version;
use super::workspace::{self, Entry, Workspace, in_another_order, reordered, tar_of, zip_of};

/// The valid token, easy to find where it must not be.
pub const WINDMILL_TOKEN: &str = "wm-token-PLANTED-1111-5f0c8a";

/// The workspace that exists from the start, in state `1-seeded`.
pub const SHOP: &str = "shop";

/// The scope of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// One workspace. All other workspaces, and the endpoints without a workspace, answer 401.
    BoundTo(String),
    /// A user, here a superadmin, who may do everything.
    User,
}

/// The role of the token's owner in the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Admin,
    Developer,
}

/// The time per script that a real server needs for an export, measured on an unoptimised 1.743.0 with 2,000 scripts.
const TAR_COST: Duration = Duration::from_micros(700);
const ZIP_COST: Duration = Duration::from_micros(1700);

/// A server on its own port. It stops when dropped.
///
/// When dropped, it fails the test if it got a request that was not recorded: see [`Windmill::take_unknown`].
pub struct Windmill {
    server: Server,
    prefix: String,
    shared: Arc<Shared>,
}

type Pack = fn(&[Entry]) -> Vec<u8>;
type ExportHook = Box<dyn FnMut(&mut Workspace) + Send>;

struct Shared {
    prefix: String,
    /// The release that it imitates.
    release: Version,
    state: Mutex<State>,
    faults: Faults,
    on_export: Mutex<Option<ExportHook>>,
    gate: Gate,
    order: RandomOrder,
    takes_its_time: AtomicBool,
    unknown: Mutex<Vec<String>>,
}

/// The order of each answer, which differs as on a server that holds things in hash maps.
struct RandomOrder {
    rank: AtomicU64,
    /// Odd, so that two answers in a row have different orders if there is more than one order.
    step: u64,
}

impl RandomOrder {
    fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self { rank: AtomicU64::new(random()), step: random() | 1 }
    }

    fn next(&self) -> u64 {
        self.rank.fetch_add(self.step, Ordering::Relaxed)
    }
}

/// The place where exports wait while a test holds them.
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

/// While this value lives, no export is answered.
pub struct HeldExports {
    shared: Arc<Shared>,
}

impl HeldExports {
    /// Waits until this many exports are requested and not answered.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        let gate = &self.shared.gate;
        let state = gate.state.lock().unwrap();
        let (state, waited) = gate.changed.wait_timeout_while(state, PATIENCE, |state| state.waiting < count).unwrap();
        let waiting = state.waiting;
        drop(state);
        assert!(!waited.timed_out(), "{waiting} exports are asked for, not {count}");
    }

    /// Returns how many exports are requested and not answered.
    pub fn waiting(&self) -> usize {
        self.shared.gate.state.lock().unwrap().waiting
    }

    /// Lets all waiting exports continue.
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
    /// The answers about single scripts and apps, by list and path.
    single: BTreeMap<String, String>,
    /// Whether the instance-wide limits of the Community Edition apply: see [`Windmill::limit_the_instance`].
    is_limited: bool,
}

impl Windmill {
    /// Starts 1.743.0 with workspace `shop` in state `1-seeded`, and a token bound to it.
    pub fn start() -> Self {
        Self::start_as(Version::default(), "")
    }

    /// Starts another release, with the same state and token.
    pub fn start_version(release: Version) -> Self {
        Self::start_as(release, "")
    }

    /// Starts the same below a path, as behind a gateway: `/windmill` gives `/windmill/api/…`.
    pub fn start_below(prefix: &str) -> Self {
        Self::start_as(Version::default(), prefix)
    }

    fn start_as(release: Version, prefix: &str) -> Self {
        let shared = Arc::new(Shared {
            prefix: prefix.to_owned(),
            release,
            state: Mutex::new(State {
                archived: Vec::new(),
                workspaces: BTreeMap::from([(SHOP.to_owned(), Workspace::recorded_by(release, "1-seeded"))]),
                token: WINDMILL_TOKEN.to_owned(),
                token_kind: TokenKind::BoundTo(SHOP.to_owned()),
                role: Role::Admin,
                version: release.text().to_owned(),
                date: None,
                requests: Vec::new(),
                single: BTreeMap::new(),
                is_limited: false,
            }),
            faults: Faults::default(),
            on_export: Mutex::new(None),
            gate: Gate::default(),
            order: RandomOrder::new(),
            takes_its_time: AtomicBool::new(false),
            unknown: Mutex::default(),
        });
        let of_server = Arc::clone(&shared);
        Self { server: Server::start(move |request| of_server.reply(&request)), prefix: prefix.to_owned(), shared }
    }

    /// Returns the release that it imitates.
    pub fn release(&self) -> Version {
        self.shared.release
    }

    /// Makes an export take as long as on a real server from now on, by the number of its scripts.
    pub fn take_time_for_exports(&self) {
        self.shared.takes_its_time.store(true, Ordering::Relaxed);
    }

    /// Applies the instance-wide limits of the Community Edition from now on: HTTP routes and custom paths of apps are
    /// unique, and there are at most three groups.
    pub fn limit_the_instance(&self) {
        self.shared.state.lock().unwrap().is_limited = true;
    }

    /// Returns the requests that were not recorded, as `METHOD path?query`, and clears the list, so that they do not
    /// fail the test.
    pub fn take_unknown(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.unknown.lock().unwrap())
    }

    /// Returns the value for `WINDMILL_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.server.address(), self.prefix)
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Sets `shop` to a recorded state: `1-seeded`, `2-edited`, `3-emptied`, for the newer release also `rich`.
    #[track_caller]
    pub fn state(&self, name: &str) {
        self.set(SHOP, Workspace::recorded_by(self.shared.release, name));
    }

    /// Sets the content of workspace `id`, and creates it if it does not exist.
    pub fn set(&self, id: &str, workspace: Workspace) {
        self.shared.state.lock().unwrap().workspaces.insert(id.to_owned(), workspace);
    }

    /// Archives workspace `id`: the list still has it, as deleted.
    pub fn archive(&self, id: &str) {
        self.shared.state.lock().unwrap().archived.push(id.to_owned());
    }

    /// Edits `shop`.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Workspace) -> T) -> T {
        let mut state = self.shared.state.lock().unwrap();
        edit(state.workspaces.get_mut(SHOP).unwrap())
    }

    /// Sets one entry of `shop`.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.edit(|workspace| workspace.put(path, bytes));
    }

    /// Removes one entry of `shop`.
    #[track_caller]
    pub fn remove(&self, path: &str) {
        let mut workspace = self.workspace(SHOP);
        workspace.remove(path);
        self.set(SHOP, workspace);
    }

    /// Returns a copy of workspace `id`.
    #[track_caller]
    pub fn workspace(&self, id: &str) -> Workspace {
        let state = self.shared.state.lock().unwrap();
        state.workspaces.get(id).expect("a workspace").clone()
    }

    /// Sets the scope of the token. At first: [`TokenKind::BoundTo`] `shop`.
    pub fn token_kind(&self, kind: TokenKind) {
        self.shared.state.lock().unwrap().token_kind = kind;
    }

    /// Replaces the valid token, as after a rotation.
    pub fn token(&self, token: &str) {
        token.clone_into(&mut self.shared.state.lock().unwrap().token);
    }

    /// Sets the role that `whoami` reports for the token's owner. At first: [`Role::Admin`].
    pub fn role(&self, role: Role) {
        self.shared.state.lock().unwrap().role = role;
    }

    /// Sets the answer of `/api/version`. At first: [`Version::text`]. The other answers stay those of the release.
    pub fn version(&self, version: &str) {
        version.clone_into(&mut self.shared.state.lock().unwrap().version);
    }

    /// Sets the `Date` header of `/api/version`. At first there is no such header.
    pub fn date(&self, date: SystemTime) {
        self.shared.state.lock().unwrap().date = Some(httpdate::fmt_http_date(date));
    }

    /// Sets the files of `shop`'s shared UI, by their names below `ui/`. `None`, as at first, means no shared UI.
    pub fn shared_ui(&self, files: Option<&[(&str, &str)]>) {
        self.edit(|workspace| workspace.set_shared_ui(files));
    }

    /// Sets the workspace-specific items of `shop`, by kind and path. With `None`, as at first, the answer is the
    /// release's answer for a workspace without such items.
    pub fn ws_specific(&self, items: Option<&[(&str, &str)]>) {
        let owned = |(kind, path): &(&str, &str)| ((*kind).to_owned(), (*path).to_owned());
        self.edit(|workspace| workspace.ws_specific = items.map(|items| items.iter().map(owned).collect()));
    }

    /// Sets the JSON that `file_resource_type_to_file_ext_map` returns for `shop`. At first, it follows from the
    /// resource types.
    pub fn file_types(&self, body: &str) {
        self.edit(|workspace| workspace.file_types = Some(body.to_owned()));
    }

    /// Sets the names and addresses in `users/list` of `shop`. At first, these are the recorded ones.
    pub fn users(&self, users: &[(&str, &str)]) {
        let users: Vec<_> = users
            .iter()
            .map(|(name, address)| {
                format!("{{\"username\":{},\"email\":{}}}", json::to_string(*name), json::to_string(*address))
            })
            .collect();
        self.edit(|workspace| workspace.users = Some(format!("[{}]", users.join(","))));
    }

    /// Sets the answer about one item of `scripts` or `apps`, in place of what `shop` holds.
    pub fn single(&self, list: &str, path: &str, answer: &str) {
        self.shared.state.lock().unwrap().single.insert(format!("{list}/{path}"), answer.to_owned());
    }

    /// Makes each request fail whose path and query contain `needle`, until [`Windmill::heal`].
    pub fn fail(&self, needle: &str, fault: Fault) {
        self.shared.faults.plan(needle, fault, None);
    }

    /// Makes only the next such request fail.
    pub fn fail_once(&self, needle: &str, fault: Fault) {
        self.shared.faults.plan(needle, fault, Some(1));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.faults.heal();
    }

    /// Runs `hook` each time an export of a workspace is requested, before it is made. The export contains the hook's
    /// edits.
    pub fn on_export(&self, hook: impl FnMut(&mut Workspace) + Send + 'static) {
        *self.shared.on_export.lock().unwrap() = Some(Box::new(hook));
    }

    /// Holds all exports until the returned value is released or dropped, so that a sync waits as long as a test needs.
    #[must_use]
    pub fn hold_exports(&self) -> HeldExports {
        self.shared.gate.state.lock().unwrap().holders += 1;
        HeldExports { shared: Arc::clone(&self.shared) }
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// Returns the number of requested exports. Each sync requests one.
    pub fn exports(&self) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.requests.iter().filter(|request| request.target.contains("/workspaces/tarball")).count()
    }

    pub fn forget_requests(&self) {
        self.shared.state.lock().unwrap().requests.clear();
    }

    /// Waits until a fault makes a request hang whose client is still connected.
    #[track_caller]
    pub fn wait_until_hanging(&self) {
        self.server.wait_until_hanging();
    }
}

impl Drop for Windmill {
    fn drop(&mut self) {
        let unknown = self.take_unknown();
        assert!(
            unknown.is_empty() || thread::panicking(),
            "was asked what no Windmill was recorded to answer: {unknown:#?}"
        );
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
        let response = match fault {
            Some(Fault::Hang | Fault::Close) => Response::empty(500),
            _ => self.answer(request, authorized).unwrap_or_else(|| {
                let asked = format!("{} {}", request.method, request.target);
                let response = Response::text(501, &format!("not recorded: {asked}"));
                if fault.is_none() {
                    self.unknown.lock().unwrap().push(asked);
                }
                response
            }),
        };
        Reply { response, fault }
    }

    /// Returns `None` if no answer was recorded.
    fn answer(&self, request: &Request, authorized: bool) -> Option<Response> {
        let Some(path) = request.path().strip_prefix(self.prefix.as_str()) else {
            // The gateway itself answers this.
            return Some(Response::empty(404));
        };
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["api", "version"]) => {
                let state = self.state.lock().unwrap();
                let response = Response::text(200, &state.version);
                Some(state.date.iter().fold(response, |response, date| response.with_header("date", date)))
            }
            (_, ["api", ..]) if !authorized => Some(self.unauthorized()),
            ("GET", ["api", "settings", "global", "automate_username_creation"]) => Some(Response::json("false")),
            (_, ["api", "w", workspace, rest @ ..]) => self.of_workspace(request, workspace, rest),
            (method, ["api", rest @ ..]) => self.of_no_workspace(method, rest, &request.body),
            _ => None,
        }
    }

    fn unauthorized(&self) -> Response {
        match self.release {
            Version::V1_491 => Response::text(401, "Unauthorized"),
            Version::V1_743 => Response::new(401, "text/plain", "Not authorized: Unauthorized"),
        }
    }

    fn of_no_workspace(&self, method: &str, path: &[&str], body: &[u8]) -> Option<Response> {
        let state = self.state.lock().unwrap();
        let is_known = matches!(
            (method, path),
            ("GET", ["users", "whoami"] | ["workspaces", "users" | "list"]) | ("POST", ["workspaces", "exists"])
        );
        if !is_known {
            return None;
        }
        if matches!(state.token_kind, TokenKind::BoundTo(_)) {
            return Some(self.unauthorized());
        }
        let listed = |line: &dyn Fn(&str) -> String| {
            let lines: Vec<String> = state.workspaces.keys().map(|id| line(id)).collect();
            lines.join(",")
        };
        let (of_user, of_list) = match self.release {
            Version::V1_491 => ("", ""),
            Version::V1_743 => (
                ",\"parent_workspace_id\":null,\"is_dev_workspace\":false,\"disabled\":false",
                ",\"parent_workspace_id\":null",
            ),
        };
        Some(match path[1] {
            "whoami" => Response::json(whoami(self.release)),
            "users" => {
                let workspaces = listed(&|id| {
                    format!(
                        "{{\"id\":\"{id}\",\"name\":\"{id}\",\"username\":\"admin\",\"color\":null,\
                         \"operator_settings\":null{of_user}}}"
                    )
                });
                Response::json(format!("{{\"email\":\"admin@windmill.dev\",\"workspaces\":[{workspaces}]}}"))
            }
            "list" => {
                let workspaces = listed(&|id| {
                    let deleted = state.archived.iter().any(|archived| archived == id);
                    format!(
                        "{{\"id\":\"{id}\",\"name\":\"{id}\",\"owner\":\"admin@windmill.dev\",\
                         \"deleted\":{deleted},\"premium\":false,\"color\":null{of_list}}}"
                    )
                });
                Response::json(format!("[{workspaces}]"))
            }
            _ => {
                let exists = asked_id(body).is_some_and(|id| state.workspaces.contains_key(&id));
                Response::json(exists.to_string())
            }
        })
    }

    fn of_workspace(&self, request: &Request, id: &str, path: &[&str]) -> Option<Response> {
        let mut state = self.state.lock().unwrap();
        if matches!(&state.token_kind, TokenKind::BoundTo(bound) if bound != id) {
            return Some(self.unauthorized());
        }
        let role = state.role;
        if request.method == "GET" && path == ["workspaces", "tarball"] {
            drop(state);
            return Some(self.export(request, id));
        }
        if let ("GET", [list @ ("scripts" | "apps"), "get", "p", rest @ ..]) = (request.method.as_str(), path)
            && let Some(answer) = state.single.get(&format!("{list}/{}", rest.join("/")))
        {
            return Some(Response::json(answer.as_str()));
        }
        let empty = Workspace::empty();
        // This was not recorded for a workspace that does not exist. A superadmin is an admin everywhere.
        let shown = state.workspaces.get(id).unwrap_or(&empty);
        if let Some(response) = self.beside_the_export(request, id, path, shown, role) {
            return Some(response);
        }
        // This was not recorded.
        if role != Role::Admin && path == ["workspaces", "encryption_key"] {
            let refusal = "This endpoint requires the caller to be an admin of the workspace";
            return Some(Response::text(403, refusal));
        }
        if state.is_limited
            && let Some(response) = deployed::refused_by_the_instance(&state.workspaces, id, request, path)
        {
            return Some(response);
        }
        match state.workspaces.get_mut(id) {
            Some(workspace) => deployed::answer(self.release, workspace, request, path),
            None => Some(Response::empty(404)),
        }
    }

    /// Answers what a sync requests besides the export.
    fn beside_the_export(
        &self,
        request: &Request,
        id: &str,
        path: &[&str],
        workspace: &Workspace,
        role: Role,
    ) -> Option<Response> {
        if request.method != "GET" {
            return None;
        }
        let is_old = self.release == Version::V1_491;
        let in_some_order = |text: &str, path: &[&str]| {
            let reordered = if is_old { None } else { reordered(text, path, self.order.next()) };
            Response::json(reordered.unwrap_or_else(|| text.to_owned()))
        };
        Some(match path {
            ["users", "whoami"] => Response::json(whoami_in(id, workspace, self.release, role)),
            ["users", "list"] => Response::json(workspace.users_listed()),
            ["resources", "file_resource_type_to_file_ext_map"] => match &workspace.file_types {
                // The older release has no such map. It answers this, as recorded.
                None if is_old => Response::json("{}"),
                _ => in_some_order(&workspace.file_endings(), &[]),
            },
            ["shared_ui", "get"] => match &workspace.shared_ui {
                Some(body) => in_some_order(body, &["files"]),
                None if is_old => Response::empty(404),
                None => Response::json(format!(
                    "{{\"files\":{{}},\"version\":0,\"edited_at\":\"{}\",\"edited_by\":\"\"}}",
                    workspace::in_nanoseconds(SystemTime::now())
                )),
            },
            ["workspaces", "list_ws_specific"] => match workspace.ws_specific_listed() {
                Some(body) => Response::json(body),
                None if is_old => Response::empty(404),
                None => Response::json("[]"),
            },
            ["workspace_dependencies", "list"] if !is_old => {
                Response::json(workspace.recorded_answer("/workspace_dependencies/list").unwrap_or("[]"))
            }
            ["scripts" | "flows" | "apps", "list"] => {
                Response::json(workspace.recorded_answer(&format!("/{}?{}", path.join("/"), request.query_text()))?)
            }
            _ => return None,
        })
    }

    fn export(&self, request: &Request, id: &str) -> Response {
        let query = request.query();
        let archive_type = query.get("archive_type").map_or("tar", String::as_str);
        let (pack, cost): (Pack, _) = match archive_type {
            "tar" => (tar_of, TAR_COST),
            "zip" => (zip_of, ZIP_COST),
            other => {
                let message = format!("Bad request: Invalid Archive Type {other}");
                return Response::new(400, "text/plain", message);
            }
        };
        self.gate.pass();
        self.run_export_hook(id);
        let started = Instant::now();
        let state = self.state.lock().unwrap();
        let Some(workspace) = state.workspaces.get(id) else {
            return Response::new(500, "text/plain", no_rows(self.release));
        };
        let mut entries = workspace.export(&query);
        drop(state);
        let scripts = entries.iter().filter(|(path, _)| path.ends_with(".script.json")).count();
        // The older release gave the same bytes twice.
        if self.release == Version::V1_743 {
            entries = in_another_order(entries, self.order.next());
        }
        let bytes = pack(&entries);
        if self.takes_its_time.load(Ordering::Relaxed) {
            let cost = cost * u32::try_from(scripts).unwrap();
            thread::sleep(cost.saturating_sub(started.elapsed()));
        }
        // This content type was recorded, also for a zip.
        Response::new(200, "application/x-tar", bytes)
            .with_header("content-disposition", format!("attachment; filename=\"windmill-{id}.{archive_type}\""))
    }

    fn run_export_hook(&self, id: &str) {
        let mut hook = self.on_export.lock().unwrap();
        let Some(hook) = hook.as_mut() else { return };
        let workspace = self.state.lock().unwrap().workspaces.get(id).cloned();
        let Some(mut workspace) = workspace else { return };
        hook(&mut workspace);
        self.state.lock().unwrap().workspaces.insert(id.to_owned(), workspace);
    }
}

fn no_rows(release: Version) -> String {
    let line = match release {
        Version::V1_491 => 110,
        Version::V1_743 => 172,
    };
    format!(
        "Internal: fetching workspace key: no rows returned by a query that expected to return at least one row \
         @variables.rs:{line}:18"
    )
}

fn whoami(release: Version) -> String {
    let more = match release {
        Version::V1_491 => "",
        Version::V1_743 => ",\"first_time_user\":true,\"role_source\":\"manual\",\"disabled\":false",
    };
    format!(
        "{{\"email\":\"admin@windmill.dev\",\"login_type\":\"password\",\"super_admin\":true,\"devops\":false,\
         \"verified\":true,\"name\":\"Admin\",\"company\":\"Windmill\",\"username\":\"admin\"{more}}}"
    )
}

fn whoami_in(id: &str, workspace: &Workspace, release: Version, role: Role) -> String {
    let admin = role == Role::Admin;
    let all = workspace.folders();
    // The older release seeds folders that belong to no user.
    let own: Vec<_> = all.iter().filter(|name| !name.starts_with("app_")).collect();
    let (all, own) = (json::to_string(&all), json::to_string(&own));
    let mut groups = vec!["all"];
    if workspace.get("groups/oncall.group.json").is_some() {
        groups.push("oncall");
    }
    let groups = json::to_string(&groups);
    let more = match release {
        Version::V1_491 => "",
        Version::V1_743 => ",\"is_service_account\":false",
    };
    format!(
        "{{\"workspace_id\":\"{id}\",\"email\":\"admin@windmill.dev\",\"username\":\"admin\",\
         \"is_admin\":{admin},\"is_super_admin\":{admin},\"created_at\":\"2026-11-22T17:07:39.396203Z\",\
         \"groups\":{groups},\"operator\":false,\"disabled\":false,\"role\":null,\"folders_read\":{all},\
         \"folders\":{own},\"folders_owners\":{own},\"name\":\"Admin\"{more}}}"
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
