//! Routes: a request's head and body to an answer. It knows no sockets, and is the one place that decides which path
//! takes which method, and what needs the service's token.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use miniserde::{Serialize, json};

use crate::code::Code;
use crate::config::Config;
use crate::deadline::Interrupt;
use crate::http::request::{Head, Method};
use crate::http::response::Response;
use crate::ledger::Ledger;
use crate::metrics::{self, BackupGauges, Gauges};
use crate::outcome;
use crate::page;
use crate::report::{self, Report, Workspace};
use crate::roster::{Asked, Roster};
use crate::runs::Runs;
use crate::server::{Caller, Handler, Weight};
use crate::sync_request::{Draft, SyncRequest, Wait};
use crate::work;

/// What a caller is told to wait before it tries again.
const RETRY_AFTER_SECONDS: u32 = 10;

/// The service behind the listener.
pub struct App {
    config: Arc<Config>,
    runs: Arc<Runs>,
    ledger: Arc<Ledger>,
    roster: Arc<Roster>,
    interrupt: Interrupt,
    started: Instant,
    process_start: SystemTime,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    uptime_seconds: u64,
}

#[derive(Serialize)]
struct Accepted<'a> {
    success: bool,
    code: &'static str,
    message: &'static str,
    run_id: &'a str,
}

#[derive(Serialize)]
struct AcceptedAll<'a> {
    success: bool,
    code: &'static str,
    message: &'static str,
    /// Of the first, for callers that know of one only.
    run_id: &'a str,
    run_ids: Vec<&'a str>,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Health,
    Ready,
    Status,
    Metrics,
    Page,
    Sync,
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Everybody.
    Open,
    /// Who brings the service's token, where one is set.
    Bearer,
    /// The same, and a browser's user, who brings it as a password.
    BearerOrPassword,
}

impl Route {
    const ALL: [Self; 6] = [Self::Health, Self::Ready, Self::Status, Self::Metrics, Self::Page, Self::Sync];

    fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Ready => "/ready",
            Self::Status => "/status",
            Self::Metrics => "/metrics",
            Self::Page => "/",
            Self::Sync => "/sync",
        }
    }

    fn door(self) -> Door {
        match self {
            Self::Health | Self::Ready => Door::Open,
            Self::Status | Self::Metrics | Self::Sync => Door::Bearer,
            Self::Page => Door::BearerOrPassword,
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Self::Sync => "POST",
            _ => "GET, HEAD",
        }
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Sync => *method == Method::Post,
            _ => matches!(method, Method::Get | Method::Head),
        }
    }
}

impl App {
    /// The service, started now.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        runs: Arc<Runs>,
        ledger: Arc<Ledger>,
        roster: Arc<Roster>,
        interrupt: Interrupt,
    ) -> Self {
        Self { config, runs, ledger, roster, interrupt, started: Instant::now(), process_start: SystemTime::now() }
    }

    fn health(&self) -> Response {
        let health = Health {
            status: "ok",
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs(),
        };
        Response::json(200, json::to_string(&health))
    }

    /// For alerts: it names a workspace and a code, and no cause, since it is told to everybody.
    fn ready(&self) -> Response {
        let workspaces = self.configured_workspaces();
        match report::fault_of(&self.config, &workspaces, self.process_start, SystemTime::now()) {
            None => Response::json(200, json::to_string(&Ready { status: "ready" })),
            Some(fault) => Response::error(503, fault.code, &fault.message),
        }
    }

    fn configured_workspaces(&self) -> Vec<Workspace> {
        self.ledger.history.read(|kept| report::configured_workspaces(&self.config, &self.roster, kept))
    }

    fn report(&self) -> Report {
        let overview = self.runs.overview();
        self.ledger.history.read(|kept| Report::new(&self.config, &self.roster, kept, &overview, self.process_start))
    }

    fn page(&self) -> Response {
        let page = page::render(&self.report(), SystemTime::now());
        Response::new(200, page::CONTENT_TYPE, page)
            .with_header("Content-Security-Policy", page::CONTENT_SECURITY_POLICY)
            .with_header("Referrer-Policy", "no-referrer")
    }

    fn metrics(&self) -> Response {
        let backup = |of: &Workspace| BackupGauges {
            workspace: of.workspace.clone(),
            last_success: of.last_success_time(),
            last_attempt: of.last_run_time(),
            consecutive_failures: of.consecutive_failures,
            last_verify_success: of.last_verify_success_time(),
        };
        let gauges = Gauges {
            backups: self.configured_workspaces().iter().map(backup).collect(),
            in_progress: self.runs.overview().running.len(),
            process_start: self.process_start,
            resident_memory_bytes: metrics::resident_memory_bytes(),
        };
        Response::new(200, metrics::CONTENT_TYPE, self.ledger.metrics.to_text(&gauges))
    }

    fn sync(&self, body: &[u8], caller: &Caller<'_>) -> Response {
        if let Some(why) = work::NO_SYNCS {
            return Response::error(501, Code::Internal, why);
        }
        let asked = Draft::from_json(body, &self.config).and_then(|draft| {
            let asked = work::requests(&self.roster, &self.ledger, &draft, &self.config, &self.interrupt)?;
            Ok((asked, draft.wait()))
        });
        match asked {
            Ok((Asked::One(request), wait)) => self.sync_one(*request, wait, caller),
            Ok((Asked::Several(requests), wait)) => self.sync_several(requests, wait, caller),
            Err(error) => refused(error.code, &error.message),
        }
    }

    fn sync_one(&self, request: SyncRequest, wait: Wait, caller: &Caller<'_>) -> Response {
        let run = match self.runs.submit(request) {
            Ok(run) => run,
            Err(code) => return refused(code, not_taken(code)),
        };
        if wait == Wait::No {
            let accepted = Accepted { success: true, code: "accepted", message: "the sync goes on", run_id: &run.id };
            return Response::json(202, json::to_string(&accepted));
        }
        match self.runs.wait(&run, &|| caller.is_dismissed()) {
            Some(result) => answered(result.code, result.to_json()),
            None => dismissed(),
        }
    }

    /// All are asked for at once; one that fails stops no other.
    fn sync_several(&self, requests: Vec<SyncRequest>, wait: Wait, caller: &Caller<'_>) -> Response {
        let mut runs = Vec::with_capacity(requests.len());
        for request in requests {
            match self.runs.submit(request) {
                Ok(run) => runs.push(run),
                // Those that were taken go on, as they do when a caller leaves.
                Err(code) => return refused(code, not_taken(code)),
            }
        }
        if wait == Wait::No {
            let run_ids: Vec<_> = runs.iter().map(|run| run.id.as_str()).collect();
            let message = "the syncs go on, one for each workspace";
            let run_id = run_ids.first().copied().unwrap_or_default();
            let accepted = AcceptedAll { success: true, code: "accepted", message, run_id, run_ids };
            return Response::json(202, json::to_string(&accepted));
        }
        let mut results = Vec::with_capacity(runs.len());
        for run in runs {
            match self.runs.wait(&run, &|| caller.is_dismissed()) {
                Some(result) => results.push(result),
                None => return dismissed(),
            }
        }
        answered(outcome::code_of_all(&results), outcome::all_to_json(&results))
    }

    /// The refusal of a request that lacks the service's token, where one is set.
    fn unauthorized(&self, door: Door, head: &Head) -> Option<Response> {
        if door == Door::Open {
            return None;
        }
        let expected = match self.config.api_token.as_ref()?.read() {
            Ok(token) => token,
            // A token that cannot be read lets nobody in.
            Err(message) => {
                log::error!("{message}");
                let message = "the service cannot read its own token; its log says why";
                return Some(Response::error(Code::Internal.http_status(), Code::Internal, message));
            }
        };
        let is_bearer = head.bearer_token().is_some_and(|token| expected.matches(token));
        let takes_password = door == Door::BearerOrPassword;
        if is_bearer || takes_password && head.basic_password().is_some_and(|password| expected.matches(&password)) {
            return None;
        }
        // A browser asks its user only where it is offered what it knows.
        let scheme = if takes_password { "Basic" } else { "Bearer" };
        Some(Response::unauthorized(&format!("{scheme} realm=\"windmill-git-sync\"")))
    }
}

/// The answer to a request that no run came of.
fn refused(code: Code, message: &str) -> Response {
    match code {
        Code::ShuttingDown | Code::TooManyRequests => Response::unavailable(code, message, RETRY_AFTER_SECONDS),
        _ => Response::error(code.http_status(), code, message),
    }
}

fn not_taken(code: Code) -> &'static str {
    match code {
        Code::ShuttingDown => "the service is ending",
        _ => "too many syncs wait already",
    }
}

/// Nobody reads it, most likely; the run goes on.
fn dismissed() -> Response {
    refused(Code::TooManyRequests, "the caller had ended its side, and others wait")
}

fn answered(code: Code, result: String) -> Response {
    let response = Response::json(code.http_status(), result);
    match code {
        Code::ShuttingDown | Code::TooManyRequests => {
            response.with_header("Retry-After", &RETRY_AFTER_SECONDS.to_string())
        }
        _ => response,
    }
}

impl Handler for App {
    fn weight(&self, head: &Head) -> Weight {
        match Route::of(&head.path) {
            Some(Route::Sync) => Weight::Heavy,
            _ => Weight::Light,
        }
    }

    fn before_body(&self, head: &Head) -> Option<Response> {
        let Some(route) = Route::of(&head.path) else { return Some(Response::not_found()) };
        if !route.takes(&head.method) {
            return Some(Response::method_not_allowed(route.allowed()));
        }
        let refusal = self.unauthorized(route.door(), head);
        if route != Route::Sync {
            return refusal;
        }
        refusal.or_else(|| {
            let refusal = head.require_json().err()?;
            Some(Response::error(refusal.status, Code::RequestInvalid, refusal.message))
        })
    }

    fn look_again(&self) {
        self.runs.look_again();
    }

    fn handle(&self, head: &Head, body: Vec<u8>, caller: &Caller<'_>) -> Response {
        match Route::of(&head.path) {
            Some(Route::Health) => self.health(),
            Some(Route::Ready) => self.ready(),
            Some(Route::Status) => Response::json(200, self.report().to_json()),
            Some(Route::Metrics) => self.metrics(),
            Some(Route::Page) => self.page(),
            Some(Route::Sync) => self.sync(&body, caller),
            None => Response::not_found(),
        }
    }

    fn answered(&self, head: Option<&Head>, status: u16) {
        let path = head.and_then(|head| Route::of(&head.path)).map_or(metrics::OTHER, Route::path);
        self.ledger.metrics.count_request(path, status);
    }
}
