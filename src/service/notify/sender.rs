//! Sends notifications to chats, to a URL and as heartbeats. Each address has its own queue and thread, so that no sync
//! waits, and no address for another one.
//!
//! The addresses are secrets: an error names the setting and not the address.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Occasion, SecretSource};
use crate::model::result_code::Code;
use crate::model::run_result::SyncResult;
use crate::net::ca_bundle;
use crate::net::http_client;
use crate::service::notify::message::{self, Notice, Subject};
use crate::util::secret::Secret;

/// How many notices may wait for an address. More of them accumulate only if it does not answer for long.
const WAITING_MAX: usize = 64;
/// The longest time of one attempt, from the name's resolution to the answer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);
/// The pauses between the attempts. If no chat accepts the notice of a failure, the next failure is reported again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

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
    lost: Lost,
}

/// The results of failures whose notice no chat accepted.
type Lost = Arc<Mutex<Vec<SyncResult>>>;

/// A notice that several addresses are sent. The notice of a failure is lost if no address accepts it.
struct Delivery {
    notice: Notice,
    is_taken: AtomicBool,
    lost: Lost,
}

impl Delivery {
    fn new(notice: Notice, lost: &Lost) -> Arc<Self> {
        Arc::new(Self { notice, is_taken: AtomicBool::new(false), lost: Arc::clone(lost) })
    }

    fn lose(&self) {
        if self.notice.tells_failure && !self.is_taken.load(Ordering::Relaxed) {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(self.notice.result.clone());
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.lose();
    }
}

/// One address of the settings.
struct Target {
    channel: Channel,
    /// The name of its setting.
    setting: &'static str,
    source: SecretSource,
    environment: Vec<(String, String)>,
    queue: Mutex<NoticeQueue>,
    /// Notified when everything is sent, and when the process is ending.
    changed: Condvar,
}

#[derive(Default)]
struct NoticeQueue {
    waiting: VecDeque<Arc<Delivery>>,
    sending: Option<Arc<Delivery>>,
    /// Whether a thread sends the notices. The thread ends when no notice is left.
    has_thread: bool,
    /// When the process stops waiting for the notices.
    end: Option<Instant>,
}

impl NoticeQueue {
    /// Whether a pause ends before the process does.
    fn has_time_for(&self, pause: Duration) -> bool {
        self.end.is_none_or(|end| Instant::now() + pause < end)
    }
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
        Self {
            occasions: config.notify_on.clone(),
            targets: addresses.into_iter().filter_map(target).collect(),
            lost: Lost::default(),
        }
    }

    /// Queues the notice for those who want it, and does not wait until it is sent.
    pub fn tell(&self, notice: &Notice) {
        // A heartbeat is for syncs only: its receiver checks whether they continue.
        let is_sync = notice.subject == Subject::Backup && notice.result.code != Code::Overdue;
        let (heartbeats, chats): (Vec<_>, Vec<_>) =
            self.targets.iter().partition(|target| target.channel == Channel::Heartbeat);
        if is_sync {
            let heartbeat = Notice { tells_failure: false, ..notice.clone() };
            heartbeats.iter().for_each(|target| target.add(Delivery::new(heartbeat.clone(), &self.lost)));
        }
        if !chats.is_empty() && notice.is_for(&self.occasions) {
            let delivery = Delivery::new(notice.clone(), &self.lost);
            chats.iter().for_each(|target| target.add(Arc::clone(&delivery)));
        }
    }

    /// Returns the failures since the last call whose notice no chat accepted.
    pub fn take_lost(&self) -> Vec<SyncResult> {
        mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until everything is sent, at most `time`. What is not sent by then is lost.
    pub fn finish(&self, time: Duration) {
        let deadline = Instant::now() + time;
        for target in &self.targets {
            target.queue().end = Some(deadline);
            target.changed.notify_all();
        }
        for target in &self.targets {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = target.changed.wait_timeout_while(target.queue(), left, |queue| queue.has_thread);
            let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let unsent: Vec<_> = queue.sending.take().into_iter().chain(queue.waiting.drain(..)).collect();
            drop(queue);
            if !unsent.is_empty() {
                log::warn!("{}: not all notices could be sent before the end", target.setting);
                // The thread may still have the first one.
                unsent.iter().for_each(|delivery| delivery.lose());
            }
        }
    }
}

impl Target {
    fn new(channel: Channel, setting: &'static str, source: SecretSource, environment: Vec<(String, String)>) -> Self {
        Self { channel, setting, source, environment, queue: Mutex::default(), changed: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, NoticeQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a notice, and starts the sending thread if it is not running.
    fn add(self: &Arc<Self>, delivery: Arc<Delivery>) {
        let mut queue = self.queue();
        if self.channel == Channel::Heartbeat {
            // Of each workspace, only the newest heartbeat counts.
            let workspace = &delivery.notice.result.workspace;
            queue.waiting.retain(|one| one.notice.result.workspace != *workspace);
        }
        queue.waiting.push_back(delivery);
        if queue.waiting.len() > WAITING_MAX {
            log::warn!("{}: a notice is dropped, {WAITING_MAX} others wait to be sent", self.setting);
            // The notice of a failure is more important than any other.
            let other = queue.waiting.iter().position(|one| !one.notice.tells_failure);
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
            let Some(delivery) = queue.waiting.pop_front() else {
                queue.has_thread = false;
                self.changed.notify_all();
                return;
            };
            queue.sending = Some(Arc::clone(&delivery));
            drop(queue);
            // A panic costs only one notification.
            let sent = catch_unwind(AssertUnwindSafe(|| self.send(&delivery.notice))).unwrap_or_else(|_| {
                log::error!("{}: the notification was not sent, by an internal error", self.setting);
                false
            });
            delivery.is_taken.fetch_or(sent, Ordering::Relaxed);
            self.queue().sending = None;
        }
    }

    /// Returns whether the address accepted the notice.
    fn send(&self, notice: &Notice) -> bool {
        // A bundle that cannot be used is reported as such, not as a server that is not trusted.
        let checked = ca_bundle::bundle(&self.environment).and_then(|_| self.source.read());
        let address = match checked {
            Ok(address) => address,
            Err(message) => {
                log::error!("cannot send a notice: {message}");
                return false;
            }
        };
        // `NOTIFY_URL` gets results of runs only, and this notice has no run.
        let is_of_runs = self.channel == Channel::Url && !message::is_ntfy_topic(address.expose());
        if is_of_runs && notice.subject == Subject::List {
            return false;
        }
        let (setting, run_id) = (self.setting, &notice.result.run_id);
        let mut pauses = PAUSES.into_iter();
        while let Err((is_passing, why)) = self.attempt(&address, notice) {
            match pauses.next().filter(|pause| is_passing && self.queue().has_time_for(*pause)) {
                Some(pause) => {
                    log::info!("{setting}: cannot send the notice of run {run_id}, retrying: {why}");
                    // If the process ends before, the last attempt is made now.
                    let begun = Instant::now();
                    let fits = |queue: &mut NoticeQueue| queue.has_time_for(pause.saturating_sub(begun.elapsed()));
                    drop(self.changed.wait_timeout_while(self.queue(), pause, fits));
                }
                None => {
                    log::error!("{setting}: cannot send the notice of run {run_id}: {why}");
                    return false;
                }
            }
        }
        log::debug!("{setting}: sent the notice of run {run_id}");
        true
    }

    /// Sends the notice once. The error says whether another attempt may help, and why this one failed.
    fn attempt(&self, address: &Secret, notice: &Notice) -> Result<(), (bool, String)> {
        let url = match self.channel {
            Channel::Heartbeat => message::heartbeat_url(address.expose(), notice.result.code),
            _ => address.expose().to_owned(),
        };
        let client = http_client::client(&url, ATTEMPT_TIME_MAX, ureq::http::HeaderMap::new(), &self.environment);
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

    fn delivery_to(lost: &Lost, id: usize, workspace: &str, tells_failure: bool) -> Arc<Delivery> {
        let code = if tells_failure { Code::Timeout } else { Code::Pushed };
        let result = SyncResult::bare(code, String::new(), id.to_string(), workspace.to_owned(), "main".to_owned());
        Delivery::new(Notice { tells_failure, ..Notice::new(result, Subject::Backup) }, lost)
    }

    fn delivery(id: usize, workspace: &str, tells_failure: bool) -> Arc<Delivery> {
        delivery_to(&Lost::default(), id, workspace, tells_failure)
    }

    fn ids(target: &Target) -> Vec<String> {
        target.queue().waiting.iter().map(|one| one.notice.result.run_id.clone()).collect()
    }

    #[test]
    fn a_failure_is_lost_if_no_address_accepts_its_notice() {
        let lost = Lost::default();
        let told = delivery_to(&lost, 1, "shop", true);
        told.is_taken.store(true, Ordering::Relaxed);
        let (untold, of_another) = (delivery_to(&lost, 2, "shop", true), delivery_to(&lost, 3, "shop", false));
        let second = Arc::clone(&untold);
        drop((told, untold, of_another));
        assert_eq!(lost.lock().expect("whole").len(), 0, "one address has it still");
        drop(second);
        assert_eq!(lost.lock().expect("whole")[0].run_id, "2");
    }

    #[test]
    fn a_failure_is_dropped_only_for_other_failures() {
        let target = busy(Channel::Slack);
        for id in 0..WAITING_MAX {
            target.add(delivery(id, "shop", id % 2 == 0));
        }
        target.add(delivery(100, "shop", true));
        assert_eq!(ids(&target)[..3], ["0", "2", "3"], "the oldest notice that reports no failure is dropped");
        for id in 101..100 + WAITING_MAX {
            target.add(delivery(id, "shop", true));
        }
        assert_eq!(target.queue().waiting.len(), WAITING_MAX);
        assert!(target.queue().waiting.iter().all(|one| one.notice.tells_failure));
    }

    #[test]
    fn of_the_heartbeats_of_a_workspace_only_the_newest_waits() {
        let target = busy(Channel::Heartbeat);
        for (id, workspace) in [(1, "shop"), (2, "lab"), (3, "shop"), (4, "shop")] {
            target.add(delivery(id, workspace, false));
        }
        assert_eq!(ids(&target), ["2", "4"]);
    }
}
