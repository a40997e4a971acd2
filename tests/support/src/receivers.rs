//! Receivers of notices: a server that accepts webhooks by the documented rules of Slack and Discord, any JSON, and
//! heartbeats, and records them.

use std::sync::{Arc, Condvar, Mutex};

use miniserde::json::{self, Value};

use super::http::{Fault, Faults, Reply, Request, Response, Server};
use super::process::PATIENCE;
use super::run::text_field;

/// A part of each address: the address is the credential.
pub const HOOK_SECRET: &str = "T00-B00-PLANTED-8888-hook";
/// <https://discord.com/developers/docs/resources/webhook#execute-webhook>
const DISCORD_CONTENT_CHARS_MAX: usize = 2_000;
/// Slack cuts longer texts.
const SLACK_TEXT_CHARS_MAX: usize = 40_000;

/// A delivered notice or heartbeat.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `slack`, `discord`, `url`, `heartbeat` or `heartbeat/fail`.
    pub to: String,
    pub body: String,
    /// Whether the real service would have accepted it.
    pub taken: bool,
}

#[derive(Default)]
struct Shared {
    deliveries: Mutex<Vec<Delivery>>,
    came: Condvar,
    faults: Faults,
}

pub struct Receivers {
    server: Server,
    shared: Arc<Shared>,
}

impl Receivers {
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let of_server = Arc::clone(&shared);
        Self { server: Server::start(move |request| of_server.reply(&request)), shared }
    }

    /// Returns the address of `slack`, `discord`, `url` or `heartbeat`.
    pub fn url(&self, of: &str) -> String {
        format!("http://{}/{HOOK_SECRET}/{of}", self.server.address())
    }

    /// Makes the next `times` requests to `of` fail in this way.
    pub fn fail(&self, of: &str, fault: Fault, times: usize) {
        self.shared.faults.plan(of, fault, Some(times));
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.lock().unwrap().clone()
    }

    /// Waits until `of` has received `count` deliveries, and returns them.
    #[track_caller]
    pub fn wait_for(&self, of: &str, count: usize) -> Vec<String> {
        let all = self.shared.deliveries.lock().unwrap();
        let is_short = |all: &mut Vec<Delivery>| all.iter().filter(|one| one.to == of).count() < count;
        let (all, waited) = self.shared.came.wait_timeout_while(all, PATIENCE, is_short).unwrap();
        assert!(!waited.timed_out(), "{count} to {of} did not come: {all:?}");
        assert!(all.iter().all(|one| one.taken), "not what the service takes: {all:?}");
        all.iter().filter(|one| one.to == of).map(|one| one.body.clone()).collect()
    }
}

impl Shared {
    fn reply(&self, request: &Request) -> Reply {
        let to = request.path().trim_start_matches('/').trim_start_matches(HOOK_SECRET).trim_start_matches('/');
        let response = answer(to, request);
        let fault = self.faults.take(&request.target);
        if fault.is_none() {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            self.deliveries.lock().unwrap().push(Delivery { to: to.to_owned(), body, taken: response.status < 300 });
            self.came.notify_all();
        }
        Reply { response, fault }
    }
}

/// Answers like the real services: 200 `ok`, 204, or 400 with the reason.
fn answer(to: &str, request: &Request) -> Response {
    let is_json = request.method == "POST" && request.header("content-type") == Some("application/json");
    let value = json::from_str::<Value>(&String::from_utf8_lossy(&request.body)).ok();
    match (to, value) {
        ("heartbeat" | "heartbeat/fail", _) if request.method == "GET" && request.body.is_empty() => {
            Response::text(200, "OK")
        }
        ("url", Some(Value::Object(_))) if is_json => Response::empty(204),
        ("slack", Some(value)) if is_json => match text_field(&value, "text") {
            Some(text) if text.is_empty() || text.chars().count() > SLACK_TEXT_CHARS_MAX => {
                Response::text(400, "no_text")
            }
            // An angle bracket begins a link, a mention or a command. Only a link with a text is permitted here.
            Some(text) if text.split('<').skip(1).any(|rest| !rest.starts_with("http")) => {
                Response::text(400, "invalid_payload")
            }
            Some(_) => Response::text(200, "ok"),
            None => Response::text(400, "no_text"),
        },
        ("discord", Some(value)) if is_json => match text_field(&value, "content") {
            Some(content) if content.is_empty() || content.chars().count() > DISCORD_CONTENT_CHARS_MAX => {
                Response::text(400, "Must be 2000 or fewer in length.")
            }
            Some(_) => Response::empty(204),
            None => Response::text(400, "Cannot send an empty message"),
        },
        _ => Response::text(400, "invalid_payload"),
    }
}
