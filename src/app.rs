//! Routes: a request's head and body to an answer. It knows no sockets, and is the one place that decides which path
//! takes which method, and what needs the service's token.

use std::sync::Arc;
use std::time::Instant;

use miniserde::{Serialize, json};

use crate::code::Code;
use crate::config::Config;
use crate::http::request::{Head, Method};
use crate::http::response::Response;
use crate::runs::Runs;
use crate::server::{Caller, Handler, Weight};
use crate::sync_request::{SyncRequest, Wait};

/// What a caller is told to wait before it tries again.
const RETRY_AFTER_SECONDS: u32 = 10;

/// The service behind the listener.
pub struct App {
    config: Arc<Config>,
    runs: Arc<Runs>,
    started: Instant,
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Health,
    Sync,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/health" => Some(Self::Health),
            "/sync" => Some(Self::Sync),
            _ => None,
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Self::Health => "GET, HEAD",
            Self::Sync => "POST",
        }
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Health => matches!(method, Method::Get | Method::Head),
            Self::Sync => *method == Method::Post,
        }
    }
}

impl App {
    /// The service, started now.
    #[must_use]
    pub fn new(config: Arc<Config>, runs: Arc<Runs>) -> Self {
        Self { config, runs, started: Instant::now() }
    }

    fn health(&self) -> Response {
        let health = Health {
            status: "ok",
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs(),
        };
        Response::json(200, json::to_string(&health))
    }

    fn sync(&self, body: &[u8], caller: &Caller<'_>) -> Response {
        let (request, wait) = match SyncRequest::from_json(body, &self.config) {
            Ok(parsed) => parsed,
            Err(error) => return Response::error(error.code.http_status(), error.code, &error.message),
        };
        let run = match self.runs.submit(request) {
            Ok(run) => run,
            Err(code) => {
                let message = match code {
                    Code::ShuttingDown => "the service is ending",
                    _ => "too many syncs wait already",
                };
                return Response::unavailable(code, message, RETRY_AFTER_SECONDS);
            }
        };
        if wait == Wait::No {
            let accepted = Accepted { success: true, code: "accepted", message: "the sync goes on", run_id: &run.id };
            return Response::json(202, json::to_string(&accepted));
        }
        let Some(result) = self.runs.wait(&run, &|| caller.is_dismissed()) else {
            let message = "the caller had ended its side, and others wait";
            return Response::unavailable(Code::TooManyRequests, message, RETRY_AFTER_SECONDS);
        };
        let response = Response::json(result.code.http_status(), result.to_json());
        match result.code {
            Code::ShuttingDown | Code::TooManyRequests => {
                response.with_header("Retry-After", &RETRY_AFTER_SECONDS.to_string())
            }
            _ => response,
        }
    }

    /// The refusal of a request that lacks the service's token, where one is set.
    fn unauthorized(&self, head: &Head) -> Option<Response> {
        let expected = match self.config.api_token.as_ref()?.read() {
            Ok(token) => token,
            // A token that cannot be read lets nobody in.
            Err(message) => {
                log::error!("{message}");
                let message = "the service cannot read its own token; its log says why";
                return Some(Response::error(Code::Internal.http_status(), Code::Internal, message));
            }
        };
        let is_right = head.bearer_token().is_some_and(|token| expected.matches(token));
        (!is_right).then(|| Response::unauthorized("Bearer realm=\"windmill-git-sync\""))
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
        if route == Route::Health {
            return None;
        }
        self.unauthorized(head).or_else(|| {
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
            Some(Route::Sync) => self.sync(&body, caller),
            None => Response::not_found(),
        }
    }
}
