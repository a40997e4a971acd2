//! Routes: turns the head and the body of a request into a response. It decides which path has which methods and which
//! request needs `SYNC_API_TOKEN`, and refuses web pages.

use std::sync::Arc;
use std::time::SystemTime;

use miniserde::json;

use crate::api::status_page;
use crate::backup::Requests;
use crate::http::server::{Caller, Handler};
use crate::http::{Head, Response};
use crate::model::{BackupError, Code, Result, names, run_result};
use crate::request::Draft;
use crate::service::token_check::{self, TokenCheck};
use crate::service::{Run, Service, metrics, status};

/// The service behind the listener.
pub struct App {
    service: Arc<Service>,
    token_check: TokenCheck,
    process_start: SystemTime,
}

/// The requests that the service answers on one path.
struct Route {
    path: &'static str,
    /// The methods, as `Allow` lists them.
    methods: &'static str,
    /// The `WWW-Authenticate` header of a refusal; `None` if the route needs no token.
    challenge: Option<&'static str>,
    answer: fn(&App, &[u8], &Caller) -> Response,
}

const GET: &str = "GET, HEAD";
/// A browser asks its user for a password only if `Basic` is offered.
const BASIC: Option<&str> = Some("Basic realm=\"windmill-git-sync\"");
const BEARER: Option<&str> = Some("Bearer realm=\"windmill-git-sync\"");

const ROUTES: [Route; 6] = [
    Route { path: "/health", methods: GET, challenge: None, answer: |app, _, _| app.health() },
    Route { path: "/ready", methods: GET, challenge: None, answer: |app, _, _| app.ready() },
    Route {
        path: "/status",
        methods: GET,
        challenge: BASIC,
        answer: |app, _, _| Response::json(200, status::report(&app.service)),
    },
    Route { path: "/metrics", methods: GET, challenge: BEARER, answer: |app, _, _| app.metrics() },
    Route { path: "/", methods: GET, challenge: BASIC, answer: |_, _, _| status_page::response() },
    Route { path: "/sync", methods: "POST", challenge: BEARER, answer: App::answer_sync },
];

impl Route {
    fn of(path: &str) -> Option<&'static Self> {
        let path = if path == "/healthz" { "/health" } else { path };
        ROUTES.iter().find(|route| route.path == path)
    }
}

impl App {
    /// Returns the answers of a service that starts now.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, token_check: TokenCheck::default(), process_start: SystemTime::now() }
    }

    fn health(&self) -> Response {
        let (version, uptime) = (env!("CARGO_PKG_VERSION"), self.service.started.elapsed().as_secs());
        Response::json(200, format!(r#"{{"status":"ok","version":"{version}","uptime_seconds":{uptime}}}"#))
    }

    /// Answers `/ready`, for alerts. It names workspaces and codes but no causes, because it needs no token.
    fn ready(&self) -> Response {
        let (service, now) = (&self.service, SystemTime::now());
        match status::fault_of(service, &service.workspaces(), now) {
            None => Response::json(200, r#"{"status":"ready"}"#.to_owned()),
            Some((code, message)) => Response::error(503, code, &message),
        }
    }

    fn metrics(&self) -> Response {
        let Service { queue, recorder, .. } = &*self.service;
        let in_progress = queue.overview().0.len();
        let text = recorder.metrics.to_text(&self.service.workspaces(), in_progress, self.process_start);
        Response::new(200, metrics::CONTENT_TYPE, text)
    }

    fn answer_sync(&self, body: &[u8], caller: &Caller) -> Response {
        self.sync(body, caller).unwrap_or_else(|error| refused(error.code, &error.message))
    }

    fn sync(&self, body: &[u8], caller: &Caller) -> Result<Response> {
        let draft = Draft::from_json(body, &self.service.config)?;
        // From here on, the request may wait for Windmill and for a run.
        caller.begin_wait().map_err(|code| not_taken(code, "too many callers wait for a sync"))?;
        let requests = self.requests(&draft)?;
        // All syncs start at once, and one that fails does not stop the others. If one is refused, those that were
        // accepted continue, as they do if a caller disconnects.
        let too_many = |code| not_taken(code, "too many syncs wait already");
        let submitted = requests.list.into_iter().map(|request| self.service.submit(request).map_err(too_many));
        let runs = submitted.collect::<Result<Vec<_>, _>>()?;
        if !draft.waits() {
            return Ok(accepted(&runs, requests.is_single));
        }
        let mut results = Vec::with_capacity(runs.len());
        for run in &runs {
            // The client of a run without a result has most likely gone. Its runs continue.
            let gone =
                || not_taken(Code::TooManyRequests, "the caller closed its side of the connection, and others wait");
            let result = self.service.queue.wait(run, &|| caller.is_gone()).ok_or_else(gone)?;
            results.push(result.for_answer(runs.len()));
        }
        let code = run_result::code_of_all(&results);
        let text = run_result::all_to_json(&results, requests.is_single);
        Ok(Response::of_code(code, text))
    }

    /// Returns the syncs that the request asks for. If it brings a Windmill token, checks the token for each of them.
    fn requests(&self, draft: &Draft<'_>) -> Result<Requests> {
        let question = draft.brings_windmill_token().then(|| self.token_check.begin()).transpose()?;
        let Service { config, recorder, cancel, .. } = &*self.service;
        let mut asked = recorder.requests(draft, config, cancel)?;
        if question.is_some() {
            asked.list.iter_mut().try_for_each(|request| token_check::admit(request, &self.service))?;
        }
        Ok(asked)
    }

    /// Refuses a request that lacks the service's token, if one is set. Refuses a sync that a web page asks for, unless
    /// it brings that token as a bearer token.
    fn check_sender(&self, route: &Route, head: &Head) -> Result<(), Response> {
        let token = self.service.config.api_token.as_ref().zip(route.challenge);
        let expected = token.map(|(source, _)| source.read()).transpose().map_err(|message| {
            // If the token cannot be read, every request is refused.
            log::error!("{message}");
            refused(Code::Internal, "the service cannot read its own token; its log says why")
        })?;
        let matches = |shown: &[u8]| expected.as_ref().is_some_and(|expected| expected.matches(shown));
        if head.bearer_token().is_some_and(matches) {
            return Ok(());
        }
        // A browser adds a saved password to any request of a page, so a password alone does not permit a sync.
        if route.path == "/sync" && head.is_from_page {
            let message = "a sync cannot be asked for by a web page (`Origin` or `Sec-Fetch-Site`), unless it brings \
                           SYNC_API_TOKEN as `Authorization: Bearer …`";
            return Err(refused(Code::Forbidden, message));
        }
        match token {
            Some((_, challenge)) if !head.basic_password().is_some_and(|password| matches(&password)) => {
                Err(Response::unauthorized(challenge))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a request whose `Host` is not our loopback address or localhost: a web page under a foreign DNS name
    /// that resolves to this machine could read our answers as its own. A token excludes such a page too, so nothing is
    /// checked if one is set.
    fn check_host(&self, head: &Head) -> Result<(), Response> {
        let listens_on = self.service.config.listen.ip();
        let Some(name) = head.host_name.as_deref() else { return Ok(()) };
        let is_ours = name.eq_ignore_ascii_case("localhost") || name.parse() == Ok(listens_on);
        if self.service.config.api_token.is_some() || !listens_on.is_loopback() || is_ours {
            return Ok(());
        }
        let message = format!("`Host` has to be {listens_on} or localhost, unless SYNC_API_TOKEN is set");
        Err(refused(Code::Forbidden, &message))
    }

    fn check(&self, head: &Head) -> Result<(), Response> {
        self.check_host(head)?;
        let route = Route::of(&head.path).ok_or_else(Response::not_found)?;
        if !route.methods.split(", ").any(|method| method == head.method.as_str()) {
            return Err(Response::method_not_allowed(route.methods));
        }
        self.check_sender(route, head)?;
        if route.path == "/sync" {
            check_query(head)?;
            head.require_json()?;
        }
        Ok(())
    }
}

/// Refuses a query, because it would be ignored.
fn check_query(head: &Head) -> Result<(), Response> {
    let Some(query) = head.query.as_deref().filter(|query| !query.is_empty()) else { return Ok(()) };
    // Only the names are shown: a value may be a secret.
    let names: Vec<_> = query.split('&').map(|field| field.split('=').next().unwrap_or_default()).collect();
    let message =
        ["the query of POST /sync has to be empty, and has ", &names::quoted(&names.join(", ")), ": send a JSON body"];
    Err(refused(Code::RequestInvalid, &message.concat()))
}

/// Returns the answer to a request that started no run.
fn refused(code: Code, message: &str) -> Response {
    Response::error(code.http_status(), code, message)
}

/// Returns the error of a request that was refused, for this reason or because the service is ending.
fn not_taken(code: Code, why: &str) -> BackupError {
    let message = if code == Code::ShuttingDown { "the service is shutting down" } else { why };
    BackupError::new(code, message)
}

/// Returns the answer to a request that does not wait for its runs.
fn accepted(runs: &[Arc<Run>], is_single: bool) -> Response {
    let ids: Vec<_> = runs.iter().map(|run| &run.id).collect();
    // The first run is for callers that expect only one.
    let first = json::to_string(&ids.first());
    let (message, all) = if is_single {
        ("the sync continues", String::new())
    } else {
        ("the syncs continue, one for each workspace", format!(r#","run_ids":{}"#, json::to_string(&ids)))
    };
    let start = format!(r#"{{"success":true,"code":"accepted","message":"{message}","run_id":{first}"#);
    Response::json(202, format!("{start}{all}}}"))
}

impl Handler for App {
    fn before_body(&self, head: &Head) -> Option<Response> {
        self.check(head).err()
    }

    fn handle(&self, head: &Head, body: Vec<u8>, caller: &Caller) -> Response {
        Route::of(&head.path).map_or_else(Response::not_found, |route| (route.answer)(self, &body, caller))
    }

    fn answered(&self, head: Option<&Head>, status: u16) {
        let path = head.and_then(|head| Route::of(&head.path)).map_or(metrics::OTHER, |route| route.path);
        self.service.recorder.metrics.count_request(path, status);
    }
}
