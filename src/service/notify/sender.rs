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
use crate::service::history::History;
use crate::service::notify::message::{self, Notice, Subject};
use crate::util::secret::Secret;

/// How many notices may wait for the chats. More of them accumulate only if a receiver hangs for long.
const WAITING_MAX: usize = 64;
/// The longest time of one attempt, from the name's resolution to the answer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long to wait for other processes that write the history.
const SAVE_TIME_MAX: Duration = Duration::from_secs(2);
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
    occasions: Vec<Occasion>,
    /// The heartbeat has a thread of its own: neither does it wait for a chat that does not answer, nor a chat for it.
    heartbeat: Arc<Lane>,
    chats: Arc<Lane>,
}

/// Addresses that one thread sends to.
struct Lane {
    targets: Vec<Target>,
    environment: Vec<(String, String)>,
    history: Arc<History>,
    queue: Mutex<NoticeQueue>,
    changed: Condvar,
}

#[derive(Default)]
struct NoticeQueue {
    waiting: VecDeque<Notice>,
    sending: Option<Notice>,
    has_thread: bool,
}

impl NoticeQueue {
    /// Adds a heartbeat. Of each workspace, only the newest counts.
    fn add_heartbeat(&mut self, notice: Notice) {
        self.waiting.retain(|one| one.result.workspace != notice.result.workspace);
        self.waiting.push_back(notice);
    }

    /// Adds a notice. Returns the notice that is dropped if there is no room: one that tells no failure, if there is
    /// one.
    fn add(&mut self, notice: Notice) -> Option<Notice> {
        self.waiting.push_back(notice);
        let other = || self.waiting.iter().position(|one| !one.tells_failure);
        let dropped = (self.waiting.len() > WAITING_MAX).then(|| other().unwrap_or(WAITING_MAX))?;
        self.waiting.remove(dropped)
    }
}

impl Sender {
    /// Returns a sender for the addresses in the settings. It starts no thread before the first notice. It tells
    /// `history` which failures no chat got a notice of.
    #[must_use]
    pub fn new(config: &Config, history: &Arc<History>) -> Self {
        let lane = |settings: &[(Channel, &Option<SecretSource>)]| {
            let target = |(kind, source): &(Channel, &Option<SecretSource>)| {
                Some(Target { kind: *kind, source: (*source).clone()? })
            };
            Arc::new(Lane {
                targets: settings.iter().filter_map(target).collect(),
                environment: config.tool_environment.clone(),
                history: Arc::clone(history),
                queue: Mutex::default(),
                changed: Condvar::new(),
            })
        };
        Self {
            occasions: config.notify_on.clone(),
            heartbeat: lane(&[(Channel::Heartbeat, &config.heartbeat_url)]),
            chats: lane(&[
                (Channel::Slack, &config.slack_webhook_url),
                (Channel::Discord, &config.discord_webhook_url),
                (Channel::Url, &config.notify_url),
            ]),
        }
    }

    /// Queues the notice for those who want it, and does not wait until it is sent.
    pub fn tell(&self, notice: Notice) {
        // A heartbeat is for syncs only: its receiver checks whether they continue.
        let (heartbeat, lane) = (&self.heartbeat, &self.chats);
        let is_sync = notice.subject == Subject::Backup && notice.result.code != Code::Overdue;
        if !heartbeat.targets.is_empty() && is_sync {
            heartbeat.queue().add_heartbeat(Notice { tells_failure: false, ..notice.clone() });
            heartbeat.start();
        }
        if !lane.targets.is_empty() && notice.is_for(&self.occasions) {
            let dropped = lane.queue().add(notice);
            if let Some(dropped) = dropped {
                log::warn!("a notice is dropped, {WAITING_MAX} others wait to be sent");
                lane.lose(&dropped);
            }
            lane.start();
        }
    }

    /// Waits until everything is sent, at most `time`. What is not sent by then is lost.
    pub fn finish(&self, time: Duration) {
        let deadline = Instant::now() + time;
        for lane in [&self.heartbeat, &self.chats] {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_busy = |queue: &mut NoticeQueue| !queue.waiting.is_empty() || queue.sending.is_some();
            let waited = lane.changed.wait_timeout_while(lane.queue(), left, is_busy);
            let (mut queue, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                log::warn!("not all notices could be sent before the end");
            }
            let lost: Vec<_> = queue.sending.clone().into_iter().chain(queue.waiting.drain(..)).collect();
            drop(queue);
            if !lost.is_empty() {
                lost.iter().for_each(|notice| lane.lose(notice));
                lane.history.save(SAVE_TIME_MAX);
            }
        }
    }
}

impl Lane {
    fn queue(&self) -> MutexGuard<'_, NoticeQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread if there is none, and wakes it up.
    fn start(self: &Arc<Self>) {
        let mut queue = self.queue();
        if !queue.has_thread {
            let lane = Arc::clone(self);
            let thread = std::thread::Builder::new().name("notifier".to_owned());
            match thread.spawn(move || lane.send_all()) {
                Ok(_) => queue.has_thread = true,
                Err(error) => log::error!("no thread to send notices: {error}"),
            }
        }
        self.changed.notify_all();
    }

    fn send_all(&self) {
        let mut queue = self.queue();
        loop {
            let Some(notice) = queue.waiting.pop_front() else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.sending = Some(notice.clone());
            drop(queue);
            let mut is_lost = true;
            for target in &self.targets {
                // A panic costs only one notification.
                let sent = catch_unwind(AssertUnwindSafe(|| self.send(target, &notice))).unwrap_or_else(|_| {
                    log::error!("{}: the notification was not sent, by an internal error", target.kind.setting());
                    false
                });
                if sent && is_lost {
                    is_lost = false;
                    // The others may take long, and the process may end meanwhile.
                    self.queue().sending = Some(Notice { tells_failure: false, ..notice.clone() });
                }
            }
            if is_lost {
                self.lose(&notice);
                self.history.save(SAVE_TIME_MAX);
            }
            queue = self.queue();
            queue.sending = None;
            self.changed.notify_all();
        }
    }

    /// Makes the next failure news, if this was the notice of one.
    fn lose(&self, notice: &Notice) {
        if notice.tells_failure {
            self.history.lose_news(&notice.result.run_id);
        }
    }

    /// Returns whether the target took the notice.
    fn send(&self, target: &Target, notice: &Notice) -> bool {
        // A bundle that cannot be used is reported as such, not as a server that is not trusted.
        let checked = ca_bundle::bundle(&self.environment).and_then(|_| target.source.read());
        let address = match checked {
            Ok(address) => address,
            Err(message) => {
                log::error!("cannot send a notice: {message}");
                return false;
            }
        };
        // `NOTIFY_URL` gets results of runs only, and this notice has no run.
        if target.kind == Channel::Url && notice.subject == Subject::List && !message::is_ntfy_topic(address.expose()) {
            return false;
        }
        let (setting, run_id) = (target.kind.setting(), &notice.result.run_id);
        let mut pauses = PAUSES.iter();
        loop {
            let failure = match self.attempt(target.kind, &address, notice) {
                Ok(()) => {
                    log::debug!("{setting}: sent the notice of run {run_id}");
                    return true;
                }
                Err(failure) => failure,
            };
            match pauses.next() {
                Some(pause) if failure.is_passing => {
                    log::info!("{setting}: cannot send the notice of run {run_id}, retrying: {}", failure.why);
                    // This thread sends notices only; no sync waits for it.
                    std::thread::sleep(*pause);
                }
                _ => {
                    log::error!("{setting}: cannot send the notice of run {run_id}: {}", failure.why);
                    return false;
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
            Err(error) => {
                let text = error.to_string();
                let why = match &error {
                    // Only these texts are used: others may contain a part of the address.
                    ureq::Error::Io(_) | ureq::Error::ConnectProxyFailed(_) => text.as_str(),
                    ureq::Error::HostNotFound => "its host is not known",
                    ureq::Error::ConnectionFailed => "no connection",
                    ureq::Error::Timeout(_) => "it did not answer in time",
                    ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => "it answered, but not as HTTP",
                    _ => "it is not a valid address",
                };
                let is_large = matches!(error, ureq::Error::LargeResponseHeader(..));
                let is_passing = is_large || http_client::is_passing_error(&error);
                Err(SendError { is_passing, why: why.to_owned() })
            }
        }
    }
}

/// Why a notice was not delivered.
struct SendError {
    /// Whether it may be delivered in a moment.
    is_passing: bool,
    why: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::run_result::SyncResult;

    fn notice(id: usize, workspace: &str, tells_failure: bool) -> Notice {
        let code = if tells_failure { Code::Timeout } else { Code::Pushed };
        let result = SyncResult::bare(code, String::new(), id.to_string(), workspace.to_owned(), "main".to_owned());
        Notice { tells_failure, ..Notice::new(result, Subject::Backup) }
    }

    fn ids(queue: &NoticeQueue) -> Vec<&str> {
        queue.waiting.iter().map(|one| one.result.run_id.as_str()).collect()
    }

    #[test]
    fn a_failure_is_dropped_only_for_older_failures() {
        let mut queue = NoticeQueue::default();
        assert!(queue.add(notice(0, "shop", true)).is_none());
        for id in 1..WAITING_MAX {
            assert!(queue.add(notice(id, "shop", id % 2 == 1)).is_none());
        }
        let mut dropped = |id, is_failure| queue.add(notice(id, "shop", is_failure)).map(|one| one.result.run_id);
        assert_eq!(dropped(100, true).as_deref(), Some("2"), "the oldest that tells no failure");
        assert_eq!(dropped(101, false).as_deref(), Some("4"));
        for id in 102..102 + WAITING_MAX / 2 - 2 {
            assert!(dropped(id, true).is_some());
        }
        assert_eq!(dropped(200, true).as_deref(), Some("200"), "there are only failures");
        assert_eq!(dropped(201, false).as_deref(), Some("201"));
        assert_eq!(queue.waiting.len(), WAITING_MAX);
        assert!(queue.waiting.iter().all(|one| one.tells_failure));
    }

    #[test]
    fn of_the_heartbeats_of_a_workspace_only_the_newest_waits() {
        let mut queue = NoticeQueue::default();
        for (id, workspace) in [(1, "shop"), (2, "lab"), (3, "shop"), (4, "shop")] {
            queue.add_heartbeat(notice(id, workspace, false));
        }
        assert_eq!(ids(&queue), ["2", "4"]);
    }
}
