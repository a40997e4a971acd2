//! Sends notifications to chats, to a URL and as heartbeats, in its own thread, so that no sync waits.
//!
//! The addresses are secrets: an error names the setting and not the address.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Occasion, SecretSource};
use crate::model::result_code::Code;
use crate::net::ca_bundle;
use crate::net::http_client;
use crate::service::notify::message::{self, Notice, Subject};
use crate::util::secret::Secret;

/// How many notices may wait. More of them accumulate only if a receiver hangs for long.
const WAITING_MAX: usize = 64;
/// The longest time of one attempt, from the name's resolution to the answer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);
/// The pauses between the attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// One address of the settings.
struct Target {
    kind: Channel,
    source: SecretSource,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    Slack,
    Discord,
    Url,
    Heartbeat,
}

impl Channel {
    fn setting(self) -> &'static str {
        match self {
            Self::Slack => "SLACK_WEBHOOK_URL",
            Self::Discord => "DISCORD_WEBHOOK_URL",
            Self::Url => "NOTIFY_URL",
            Self::Heartbeat => "HEARTBEAT_URL",
        }
    }
}

/// Sends notices about the runs of the configured backups.
pub struct Sender {
    shared: Arc<Shared>,
}

struct Shared {
    targets: Vec<Target>,
    occasions: Vec<Occasion>,
    environment: Vec<(String, String)>,
    queue: Mutex<NoticeQueue>,
    changed: Condvar,
}

#[derive(Default)]
struct NoticeQueue {
    waiting: VecDeque<Notice>,
    is_sending: bool,
    has_thread: bool,
}

impl Sender {
    /// Returns a sender for the addresses in the settings. It starts no thread before the first notice.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        // The heartbeat is first: its receiver expects it in time, so it should not wait for a chat that does not
        // answer.
        let settings = [
            (Channel::Heartbeat, &config.heartbeat_url),
            (Channel::Slack, &config.slack_webhook_url),
            (Channel::Discord, &config.discord_webhook_url),
            (Channel::Url, &config.notify_url),
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

    /// Queues the notice, and does not wait until it is sent.
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

    /// Waits until everything is sent, at most `time`.
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
    fn queue(&self) -> MutexGuard<'_, NoticeQueue> {
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
                // A panic costs only one notification.
                if catch_unwind(AssertUnwindSafe(|| self.send(target, &notice))).is_err() {
                    log::error!("{}: the notification was not sent, by an internal error", target.kind.setting());
                }
            }
            queue = self.queue();
            queue.is_sending = false;
            self.changed.notify_all();
        }
    }

    fn send(&self, target: &Target, notice: &Notice) {
        // A heartbeat is for syncs only: its receiver checks whether they continue.
        let is_for = match target.kind {
            Channel::Heartbeat => notice.subject == Subject::Backup && notice.result.code != Code::Overdue,
            // An URL gets the result of a run, and the list of the workspaces is none.
            Channel::Url if notice.subject == Subject::List => false,
            _ => notice.is_for(&self.occasions),
        };
        if !is_for {
            return;
        }
        // A bundle that cannot be used is reported as such, not as a server that is not trusted.
        let checked = ca_bundle::bundle(&self.environment).and_then(|_| target.source.read());
        let address = match checked {
            Ok(address) => address,
            Err(message) => return log::error!("cannot send a notice: {message}"),
        };
        let setting = target.kind.setting();
        let mut pauses = PAUSES.iter();
        loop {
            let failure = match self.attempt(target.kind, &address, notice) {
                Ok(()) => return log::debug!("{setting}: sent the notice of run {}", notice.result.run_id),
                Err(failure) => failure,
            };
            match pauses.next() {
                Some(pause) if failure.is_passing => {
                    log::info!(
                        "{setting}: cannot send the notice of run {}, retrying: {}",
                        notice.result.run_id,
                        failure.why
                    );
                    // This thread sends notices only; no sync waits for it.
                    std::thread::sleep(*pause);
                }
                _ => {
                    return log::error!(
                        "{setting}: cannot send the notice of run {}: {}",
                        notice.result.run_id,
                        failure.why
                    );
                }
            }
        }
    }

    fn attempt(&self, kind: Channel, address: &Secret, notice: &Notice) -> Result<(), SendError> {
        let url = match kind {
            Channel::Heartbeat => message::heartbeat_url(address.expose(), notice.result.code),
            _ => address.expose().to_owned(),
        };
        let client = http_client::client(&url, ATTEMPT_TIME_MAX, &self.environment);
        let post_as = |media_type, body: String| client.post(&url).header("Content-Type", media_type).send(body);
        let post = |body| post_as("application/json", body);
        let answer = match kind {
            Channel::Slack => post(notice.for_slack()),
            Channel::Discord => post(notice.for_discord()),
            Channel::Url if message::is_ntfy_topic(&url) => post_as("text/plain; charset=utf-8", notice.for_ntfy()),
            Channel::Url => post(notice.result.to_json()),
            Channel::Heartbeat => client.get(&url).call(),
        };
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let is_passing = http_client::is_passing(status);
                Err(SendError { is_passing, why: format!("it answered {status}") })
            }
            // Only the texts of `Io` and `ConnectProxyFailed` are used: other texts may contain a part of the address.
            Err(error @ (ureq::Error::Io(_) | ureq::Error::ConnectProxyFailed(_))) => {
                let is_passing = http_client::is_passing_error(&error);
                Err(SendError { is_passing, why: error.to_string() })
            }
            Err(ureq::Error::HostNotFound) => {
                Err(SendError { is_passing: true, why: "its host is not known".to_owned() })
            }
            Err(ureq::Error::ConnectionFailed) => Err(SendError { is_passing: true, why: "no connection".to_owned() }),
            Err(ureq::Error::Timeout(_)) => {
                Err(SendError { is_passing: true, why: "it did not answer in time".to_owned() })
            }
            Err(_) => Err(SendError { is_passing: false, why: "it is not a valid address".to_owned() }),
        }
    }
}

/// Why a notice was not delivered.
struct SendError {
    /// Whether it may be delivered in a moment.
    is_passing: bool,
    why: String,
}
