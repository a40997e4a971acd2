//! Sends notifications to chats, to a URL and as heartbeats. Each address has its own queue and thread, so that no sync
//! waits, and no address for another one.
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

/// How many notices may wait for an address. More of them accumulate only if it does not answer for long.
const WAITING_MAX: usize = 64;
/// The longest time of one attempt, from the name's resolution to the answer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);
/// The pauses between the attempts. What keeps a backup from the network often keeps its notice from it too, so the last
/// pauses are long enough for a network to come back.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600)];
/// How many of these a heartbeat has: the next one replaces it soon.
const HEARTBEAT_PAUSES: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    Slack,
    Discord,
    Url,
    Heartbeat,
}

/// Sends notices about the runs of the configured backups.
pub struct Sender {
    occasions: Vec<Occasion>,
    targets: Vec<Arc<Target>>,
}

/// One address of the settings.
struct Target {
    channel: Channel,
    /// The name of its setting.
    setting: &'static str,
    source: SecretSource,
    environment: Vec<(String, String)>,
    queue: Mutex<NoticeQueue>,
    /// Notified when everything is sent.
    idle: Condvar,
}

#[derive(Default)]
struct NoticeQueue {
    waiting: VecDeque<Notice>,
    /// Whether a thread sends the notices. It ends when none is left.
    has_thread: bool,
    /// When the process stops waiting for the notices.
    end: Option<Instant>,
}

impl Sender {
    /// Returns a sender for the addresses in the settings.
    pub fn new(config: &Config) -> Self {
        let addresses = [
            (Channel::Slack, "SLACK_WEBHOOK_URL", &config.slack_webhook_url),
            (Channel::Discord, "DISCORD_WEBHOOK_URL", &config.discord_webhook_url),
            (Channel::Url, "NOTIFY_URL", &config.notify_url),
            (Channel::Heartbeat, "HEARTBEAT_URL", &config.heartbeat_url),
        ];
        let target = |(channel, setting, source): (Channel, &'static str, &Option<SecretSource>)| {
            Some(Arc::new(Target::new(channel, setting, source.clone()?, config.tool_environment.clone())))
        };
        Self { occasions: config.notify_on.clone(), targets: addresses.into_iter().filter_map(target).collect() }
    }

    /// Queues the notice for those who want it, and does not wait until it is sent.
    pub fn tell(&self, notice: &Notice) {
        // A heartbeat is for syncs only: its receiver checks whether they continue.
        let is_sync = notice.subject == Subject::Backup && notice.result.code != Code::Overdue;
        let is_for_chats = notice.is_for(&self.occasions);
        let is_for = |channel| if channel == Channel::Heartbeat { is_sync } else { is_for_chats };
        self.targets.iter().filter(|target| is_for(target.channel)).for_each(|target| target.add(notice.clone()));
    }

    /// Waits until everything is sent, at most `time`. What is not sent by then is lost.
    pub fn finish(&self, time: Duration) {
        let deadline = Instant::now() + time;
        self.targets.iter().for_each(|target| target.queue().end = Some(deadline));
        for target in &self.targets {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = target.idle.wait_timeout_while(target.queue(), left, |queue| queue.has_thread);
            if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
                log::warn!("{}: not all notices could be sent before the end", target.setting);
            }
        }
    }
}

impl Target {
    fn new(channel: Channel, setting: &'static str, source: SecretSource, environment: Vec<(String, String)>) -> Self {
        Self { channel, setting, source, environment, queue: Mutex::default(), idle: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, NoticeQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a notice, and starts the thread if there is none.
    fn add(self: &Arc<Self>, notice: Notice) {
        let mut queue = self.queue();
        if self.channel == Channel::Heartbeat {
            // Of each workspace, only the newest heartbeat counts.
            queue.waiting.retain(|one| one.result.workspace != notice.result.workspace);
        }
        queue.waiting.push_back(notice);
        if queue.waiting.len() > WAITING_MAX {
            log::warn!("{}: a notice is dropped, {WAITING_MAX} others wait to be sent", self.setting);
            // A failure is more important than what tells none.
            let other = queue.waiting.iter().position(|one| !one.tells_failure);
            queue.waiting.remove(other.unwrap_or_default());
        }
        if !queue.has_thread {
            let target = Arc::clone(self);
            let thread = std::thread::Builder::new().name("notifier".to_owned());
            match thread.spawn(move || target.send_all()) {
                Ok(_) => queue.has_thread = true,
                Err(error) => log::error!("no thread to send notices: {error}"),
            }
        }
    }

    /// Sends all notices that wait.
    fn send_all(&self) {
        loop {
            let mut queue = self.queue();
            let Some(notice) = queue.waiting.pop_front() else {
                queue.has_thread = false;
                self.idle.notify_all();
                return;
            };
            drop(queue);
            // A panic costs only one notification.
            if catch_unwind(AssertUnwindSafe(|| self.send(&notice))).is_err() {
                log::error!("{}: the notification was not sent, by an internal error", self.setting);
            }
        }
    }

    fn send(&self, notice: &Notice) {
        // A bundle that cannot be used is reported as such, not as a server that is not trusted.
        let checked = ca_bundle::bundle(&self.environment).and_then(|_| self.source.read());
        let address = match checked {
            Ok(address) => address,
            Err(message) => return log::error!("cannot send a notice: {message}"),
        };
        // `NOTIFY_URL` gets results of runs only, and this notice has no run.
        let is_of_runs = self.channel == Channel::Url && !message::is_ntfy_topic(address.expose());
        if is_of_runs && notice.subject == Subject::List {
            return;
        }
        let (setting, run_id) = (self.setting, &notice.result.run_id);
        let mut pauses = match self.channel {
            Channel::Heartbeat => PAUSES[..HEARTBEAT_PAUSES].iter(),
            Channel::Slack | Channel::Discord | Channel::Url => PAUSES.iter(),
        };
        while let Err((is_passing, why)) = self.attempt(&address, notice) {
            let fits = |pause: &&Duration| self.queue().end.is_none_or(|end| Instant::now() + **pause < end);
            match pauses.next().filter(fits) {
                Some(pause) if is_passing => {
                    log::info!("{setting}: cannot send the notice of run {run_id}, retrying: {why}");
                    // This thread sends notices only; no sync waits for it.
                    std::thread::sleep(*pause);
                }
                _ => return log::error!("{setting}: cannot send the notice of run {run_id}: {why}"),
            }
        }
        log::debug!("{setting}: sent the notice of run {run_id}");
    }

    /// Sends the notice once. The error says whether another attempt may help, and why this one failed.
    fn attempt(&self, address: &Secret, notice: &Notice) -> Result<(), (bool, String)> {
        let url = match self.channel {
            Channel::Heartbeat => message::heartbeat_url(address.expose(), notice.result.code),
            _ => address.expose().to_owned(),
        };
        let client = http_client::client(&url, ATTEMPT_TIME_MAX, &self.environment);
        let post_as = |media_type, body: String| client.post(&url).header("Content-Type", media_type).send(body);
        let post = |body| post_as("application/json", body);
        let answer = match self.channel {
            Channel::Slack => post(notice.for_slack()),
            Channel::Discord => post(notice.for_discord()),
            Channel::Url if message::is_ntfy_topic(&url) => post_as("text/plain; charset=utf-8", notice.for_ntfy()),
            Channel::Url => post(notice.result.to_json()),
            Channel::Heartbeat => client.get(&url).call(),
        };
        let error = match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(status) => {
                return Err((http_client::is_passing(status.as_u16()), format!("it answered {}", status.as_u16())));
            }
            Err(error) => error,
        };
        let is_large = matches!(error, ureq::Error::LargeResponseHeader(..));
        let why = match &error {
            // Only these texts are used: others may contain a part of the address.
            ureq::Error::Io(_) | ureq::Error::ConnectProxyFailed(_) => &error.to_string(),
            ureq::Error::HostNotFound => "its host is not known",
            ureq::Error::ConnectionFailed => "no connection",
            ureq::Error::Timeout(_) => "it did not answer in time",
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => "it answered, but not as HTTP",
            _ => "it is not a valid address",
        };
        Err((is_large || http_client::is_passing_error(&error), why.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::run_result::SyncResult;

    /// Returns a target whose thread seems to be busy, so that all notices wait.
    fn busy(channel: Channel) -> Arc<Target> {
        let target = Target::new(channel, "", SecretSource::Value(Secret::new("http://h/")), Vec::new());
        target.queue().has_thread = true;
        Arc::new(target)
    }

    fn notice(id: usize, workspace: &str, tells_failure: bool) -> Notice {
        let code = if tells_failure { Code::Timeout } else { Code::Pushed };
        let result = SyncResult::bare(code, String::new(), id.to_string(), workspace.to_owned(), "main".to_owned());
        Notice { tells_failure, ..Notice::new(result, Subject::Backup) }
    }

    fn ids(target: &Target) -> Vec<String> {
        target.queue().waiting.iter().map(|one| one.result.run_id.clone()).collect()
    }

    #[test]
    fn a_failure_is_dropped_only_for_other_failures() {
        let target = busy(Channel::Slack);
        for id in 0..WAITING_MAX {
            target.add(notice(id, "shop", id % 2 == 0));
        }
        target.add(notice(100, "shop", true));
        assert_eq!(ids(&target)[..3], ["0", "2", "3"], "the oldest that tells no failure is dropped");
        for id in 101..100 + WAITING_MAX {
            target.add(notice(id, "shop", true));
        }
        assert_eq!(target.queue().waiting.len(), WAITING_MAX);
        assert!(target.queue().waiting.iter().all(|one| one.tells_failure));
    }

    #[test]
    fn of_the_heartbeats_of_a_workspace_only_the_newest_waits() {
        let target = busy(Channel::Heartbeat);
        for (id, workspace) in [(1, "shop"), (2, "lab"), (3, "shop"), (4, "shop")] {
            target.add(notice(id, workspace, false));
        }
        assert_eq!(ids(&target), ["2", "4"]);
    }
}
