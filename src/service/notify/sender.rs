//! Sends notices to chats, to a URL and as heartbeats. It never delays a sync: it has a thread of its own, and a notice
//! that cannot be delivered is a log line. It does not know what a notice says.
//!
//! The addresses are secrets. None is in a log line: what went wrong is told by the name of the setting.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Occasion, SecretSource};
use crate::notice::{self, Notice};
use crate::secret::Secret;
use crate::trust;
use crate::web;

/// Notices that wait. More come together only where nobody takes them for long.
const WAITING_MAX: usize = 64;
/// One attempt, from the name's resolution to the answer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);
/// Between the attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// One address of the settings.
struct Target {
    kind: Kind,
    source: SecretSource,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slack,
    Discord,
    Url,
    Heartbeat,
}

impl Kind {
    fn setting(self) -> &'static str {
        match self {
            Self::Slack => "SLACK_WEBHOOK_URL",
            Self::Discord => "DISCORD_WEBHOOK_URL",
            Self::Url => "NOTIFY_URL",
            Self::Heartbeat => "HEARTBEAT_URL",
        }
    }
}

/// Who is told of the runs of the configured backups.
pub struct Notifier {
    shared: Arc<Shared>,
}

struct Shared {
    targets: Vec<Target>,
    occasions: Vec<Occasion>,
    environment: Vec<(String, String)>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Notice>,
    is_sending: bool,
    has_thread: bool,
}

impl Notifier {
    /// For the addresses of the settings. Nothing is started before there is a notice.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        // The heartbeat first: what somebody counts on should not wait for a chat that does not answer.
        let settings = [
            (Kind::Heartbeat, &config.heartbeat_url),
            (Kind::Slack, &config.slack_webhook_url),
            (Kind::Discord, &config.discord_webhook_url),
            (Kind::Url, &config.notify_url),
        ];
        let targets = settings.into_iter().filter_map(|(kind, source)| Some(Target { kind, source: source.clone()? }));
        Self {
            shared: Arc::new(Shared {
                targets: targets.collect(),
                occasions: config.notify_on.clone(),
                environment: config.tool_environment.clone(),
                queue: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Has the notice sent, and does not wait for that.
    pub fn tell(&self, notice: Notice) {
        if self.shared.targets.is_empty() {
            return;
        }
        let mut queue = self.shared.queue();
        if queue.waiting.len() >= WAITING_MAX {
            log::warn!("a notice is dropped, {WAITING_MAX} others wait to be sent");
            return;
        }
        queue.waiting.push_back(notice);
        if !queue.has_thread {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("notifier".to_owned());
            match thread.spawn(move || shared.send_all()) {
                Ok(_) => queue.has_thread = true,
                Err(error) => log::error!("no thread to send notices: {error}"),
            }
        }
        self.shared.changed.notify_all();
    }

    /// Waits until all is sent, `time` at most.
    pub fn finish(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut queue = self.shared.queue();
        while !queue.waiting.is_empty() || queue.is_sending {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                log::warn!("not all notices could be sent before the end");
                return;
            }
            queue = self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_all(&self) {
        let mut queue = self.queue();
        loop {
            let Some(notice) = queue.waiting.pop_front() else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.is_sending = true;
            drop(queue);
            for target in &self.targets {
                self.send(target, &notice);
            }
            queue = self.queue();
            queue.is_sending = false;
            self.changed.notify_all();
        }
    }

    fn send(&self, target: &Target, notice: &Notice) {
        // A heartbeat is for syncs: whoever counts on it wants to know that they go on.
        let is_for =
            if target.kind == Kind::Heartbeat { !notice.is_verification } else { notice.is_for(&self.occasions) };
        if !is_for {
            return;
        }
        // A bundle that cannot be used is told as such, not as a server that is not trusted.
        let checked = trust::bundle(&self.environment).and_then(|_| target.source.read());
        let address = match checked {
            Ok(address) => address,
            Err(message) => return log::error!("cannot send a notice: {message}"),
        };
        let setting = target.kind.setting();
        let mut pauses = PAUSES.iter();
        loop {
            let failure = match self.attempt(target.kind, &address, notice) {
                Ok(()) => return log::debug!("{setting} was told of run {}", notice.result.run_id),
                Err(failure) => failure,
            };
            match pauses.next() {
                Some(pause) if failure.is_passing => {
                    log::info!("{setting} was not told of run {}, trying again: {}", notice.result.run_id, failure.why);
                    std::thread::sleep(*pause);
                }
                _ => {
                    return log::error!("{setting} could not be told of run {}: {}", notice.result.run_id, failure.why);
                }
            }
        }
    }

    fn attempt(&self, kind: Kind, address: &Secret, notice: &Notice) -> Result<(), Failure> {
        let url = match kind {
            Kind::Heartbeat => notice::heartbeat_url(address.expose(), notice.result.code),
            _ => address.expose().to_owned(),
        };
        let client = web::client(&url, ATTEMPT_TIME_MAX, &self.environment);
        let post = |body: String| client.post(&url).header("Content-Type", "application/json").send(body);
        let answer = match kind {
            Kind::Slack => post(notice.for_slack()),
            Kind::Discord => post(notice.for_discord()),
            Kind::Url => post(notice.result.to_json()),
            Kind::Heartbeat => client.get(&url).call(),
        };
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let is_passing = web::is_passing(status);
                Err(Failure { is_passing, why: format!("it answered {status}") })
            }
            // The text of another error may have a part of the address in it.
            Err(error @ ureq::Error::Io(_)) => {
                let is_passing = web::is_passing_error(&error);
                Err(Failure { is_passing, why: error.to_string() })
            }
            Err(ureq::Error::HostNotFound) => {
                Err(Failure { is_passing: true, why: "its host is not known".to_owned() })
            }
            Err(ureq::Error::ConnectionFailed) => Err(Failure { is_passing: true, why: "no connection".to_owned() }),
            Err(ureq::Error::Timeout(_)) => {
                Err(Failure { is_passing: true, why: "it did not answer in time".to_owned() })
            }
            Err(error @ ureq::Error::ConnectProxyFailed(_)) => {
                let is_passing = web::is_passing_error(&error);
                Err(Failure { is_passing, why: error.to_string() })
            }
            Err(_) => Err(Failure { is_passing: false, why: "it is no address that can be asked".to_owned() }),
        }
    }
}

/// Why a notice was not delivered.
struct Failure {
    /// Whether it may be delivered in a moment.
    is_passing: bool,
    why: String,
}
