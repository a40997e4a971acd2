//! Sends notifications to chats, to a URL and as heartbeats. Each address has its own queue and thread, so that no sync
//! and no other address waits for it.
//!
//! The addresses are secrets: an error names the setting and not the address.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ureq::Error;

use crate::config::{Config, SecretSource};
use crate::model::Code;
use crate::net::{ca_bundle, http_client};
use crate::service::notify::message;
use crate::service::{History, Notice, Subject};
use crate::util::{lock, wait_while};

/// The most notices of an address, including the one that is being sent. More accumulate only if it does not answer for
/// long.
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
    occasions: Vec<&'static str>,
    targets: Vec<Arc<Target>>,
    history: Arc<History>,
}

/// A notice for several addresses. If no address accepts the notice of a failure, this is recorded in the history, so
/// that the next failure is reported.
struct Delivery {
    notice: Notice,
    is_accepted: AtomicBool,
    history: Arc<History>,
}

impl Delivery {
    fn new(notice: Notice, history: &Arc<History>) -> Arc<Self> {
        Arc::new(Self { notice, is_accepted: AtomicBool::new(false), history: Arc::clone(history) })
    }

    fn report_loss(&self) {
        if self.notice.reports_failure && !self.is_accepted.load(Ordering::Relaxed) {
            self.history.forget_alert(&self.notice.result);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.report_loss();
    }
}

/// One address of the settings.
struct Target {
    channel: Channel,
    /// The name of its setting.
    setting: &'static str,
    source: SecretSource,
    environment: Vec<(String, String)>,
    /// The notice that is being sent, then those that wait. A thread sends them, and ends when the queue is empty.
    queue: Mutex<VecDeque<Arc<Delivery>>>,
}

impl Sender {
    /// Returns a sender for the addresses in the settings. Lost notices are recorded in `history`.
    pub fn new(config: &Config, history: &Arc<History>) -> Self {
        let addresses = [
            (Channel::Slack, "SLACK_WEBHOOK_URL", &config.slack_webhook_url),
            (Channel::Discord, "DISCORD_WEBHOOK_URL", &config.discord_webhook_url),
            (Channel::Url, "NOTIFY_URL", &config.notify_url),
            (Channel::Heartbeat, "HEARTBEAT_URL", &config.heartbeat_url),
        ];
        let target = |(channel, setting, source): (Channel, &'static str, &Option<SecretSource>)| {
            let (source, environment) = (source.clone()?, config.tool_environment.clone());
            Some(Arc::new(Target { channel, setting, source, environment, queue: Mutex::default() }))
        };
        Self {
            occasions: config.notify_on.clone(),
            targets: addresses.into_iter().filter_map(target).collect(),
            history: Arc::clone(history),
        }
    }

    /// Queues the notice for the addresses whose settings include it, and does not wait until it is sent.
    pub fn notify(&self, notice: &Notice) {
        // A heartbeat is for syncs only: its receiver checks whether they continue.
        let is_sync = notice.subject == Subject::Backup && notice.result.code != Code::Overdue;
        let (heartbeats, chats): (Vec<_>, Vec<_>) =
            self.targets.iter().partition(|target| target.channel == Channel::Heartbeat);
        if is_sync {
            let heartbeat = Notice { reports_failure: false, ..notice.clone() };
            heartbeats.iter().for_each(|target| target.add(Delivery::new(heartbeat.clone(), &self.history)));
        }
        if !chats.is_empty() && notice.is_for(&self.occasions) {
            let delivery = Delivery::new(notice.clone(), &self.history);
            chats.iter().for_each(|target| target.add(Arc::clone(&delivery)));
        }
    }

    /// Waits until everything is sent, at most `time`. Notices that are not sent by then are lost.
    pub fn finish(&self, time: Duration) {
        wait_while(time, || self.targets.iter().any(|target| !lock(&target.queue).is_empty()));
        for target in &self.targets {
            let unsent = mem::take(&mut *lock(&target.queue));
            if !unsent.is_empty() {
                log::warn!("{}: not all notices could be sent before the end", target.setting);
                // The thread still has the first one, so that one is not dropped.
                unsent.iter().for_each(|delivery| delivery.report_loss());
            }
        }
    }
}

impl Target {
    /// Queues a notice, and starts the sending thread if it is not running.
    fn add(self: &Arc<Self>, delivery: Arc<Delivery>) {
        let mut queue = lock(&self.queue);
        let has_thread = !queue.is_empty();
        if self.channel == Channel::Heartbeat {
            // Only the newest heartbeat of each workspace is needed.
            let workspace = &delivery.notice.result.workspace;
            queue.retain(|waiting| waiting.notice.result.workspace != *workspace);
        }
        queue.push_back(delivery);
        if queue.len() > WAITING_MAX {
            log::warn!("{}: a notice is dropped, {WAITING_MAX} others wait to be sent", self.setting);
            // The first one is being sent. The notice of a failure is more important than any other.
            let droppable = queue.iter().skip(1).position(|waiting| !waiting.notice.reports_failure);
            queue.remove(1 + droppable.unwrap_or_default());
        }
        if !has_thread {
            let target = Arc::clone(self);
            let thread = std::thread::Builder::new().name("notifier".to_owned());
            if let Err(error) = thread.spawn(move || target.send_all()) {
                log::error!("{}: a notice is dropped, there is no thread to send it: {error}", self.setting);
                queue.clear();
            }
        }
    }

    /// Sends all notices that wait.
    fn send_all(&self) {
        let mut next = lock(&self.queue).front().cloned();
        while let Some(delivery) = next {
            // A panic costs only one notification.
            let sent = catch_unwind(AssertUnwindSafe(|| self.send(&delivery.notice))).unwrap_or_else(|_| {
                log::error!("{}: the notification was not sent, by an internal error", self.setting);
                false
            });
            delivery.is_accepted.fetch_or(sent, Ordering::Relaxed);
            let mut queue = lock(&self.queue);
            // A newer heartbeat may have replaced it already.
            queue.retain(|waiting| !Arc::ptr_eq(waiting, &delivery));
            next = queue.front().cloned();
        }
    }

    /// Returns whether the address accepted the notice.
    fn send(&self, notice: &Notice) -> bool {
        let (setting, run_id) = (self.setting, &notice.result.run_id);
        let mut pauses = PAUSES.into_iter();
        while let Err((is_passing, why)) = self.attempt(notice) {
            let Some(pause) = pauses.next().filter(|_| is_passing) else {
                log::error!("{setting}: cannot send the notice of run {run_id}: {why}");
                return false;
            };
            log::info!("{setting}: cannot send the notice of run {run_id}, retrying: {why}");
            // Nothing else uses this thread.
            std::thread::sleep(pause);
        }
        log::debug!("{setting}: sent the notice of run {run_id}");
        true
    }

    /// Sends the notice once. The error says whether another attempt may help, and why this one failed.
    fn attempt(&self, notice: &Notice) -> Result<(), (bool, String)> {
        // A CA bundle that cannot be used is reported as such, not as an untrusted server.
        let address = ca_bundle::bundle(&self.environment).and_then(|_| self.source.read());
        let address = address.map_err(|why| (false, why))?;
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
            // This address gets only results of runs, and this notice has no run.
            Channel::Url if notice.subject == Subject::List => return Ok(()),
            Channel::Url => post(notice.result.to_json()),
            Channel::Heartbeat => client.get(&url).call(),
        };
        let error = match answer.map(|answer| answer.status().as_u16()) {
            Ok(200..=299) => return Ok(()),
            Ok(status) => return Err((http_client::is_passing(status), format!("it answered {status}"))),
            Err(error) => error,
        };
        let why = match &error {
            // Only these texts are used: others may contain a part of the address.
            Error::Io(_) | Error::ConnectProxyFailed(_) | Error::HostNotFound | Error::ConnectionFailed => {
                &error.to_string()
            }
            Error::Timeout(_) => "it did not answer in time",
            Error::Protocol(_) | Error::LargeResponseHeader(..) => "it answered, but not as HTTP",
            _ => "it is not a valid address",
        };
        Err((http_client::is_passing_error(&error), why.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::SyncResult;
    use crate::service::{BackupStatus, Record};
    use crate::util::Secret;

    /// Returns a target that is sending notice 0, so that all others wait.
    fn busy(channel: Channel) -> Arc<Target> {
        let (source, environment) = (SecretSource::Value(Secret::new("http://h/")), Vec::new());
        let target = Target { channel, setting: "", source, environment, queue: Mutex::default() };
        lock(&target.queue).push_back(delivery(0, "busy", false));
        Arc::new(target)
    }

    fn failed(id: usize) -> SyncResult {
        SyncResult::bare(Code::Timeout, String::new(), id.to_string(), "shop".to_owned(), "main".to_owned())
    }

    fn delivery_of(history: &Arc<History>, result: SyncResult, reports_failure: bool) -> Arc<Delivery> {
        Delivery::new(
            Notice { reports_failure, ..Notice::new(result, Subject::Backup, &BackupStatus::default()) },
            history,
        )
    }

    fn delivery(id: usize, workspace: &str, reports_failure: bool) -> Arc<Delivery> {
        let history = Arc::new(History::new(Path::new("/none")));
        let result = SyncResult { workspace: workspace.to_owned(), ..failed(id) };
        delivery_of(&history, result, reports_failure)
    }

    /// Returns the ids of the waiting notices.
    fn ids(target: &Target) -> Vec<String> {
        lock(&target.queue).iter().skip(1).map(|waiting| waiting.notice.result.run_id.clone()).collect()
    }

    #[test]
    fn a_failure_is_lost_if_no_address_accepts_its_notice() {
        let history = Arc::new(History::new(Path::new("/none")));
        history.record(Record::new(&failed(1)), Some("d".to_owned()), None);
        let is_lost = || history.read(|saved| saved.status("shop", "d").last_alert.is_none());
        let accepted = delivery_of(&history, failed(1), true);
        accepted.is_accepted.store(true, Ordering::Relaxed);
        drop((accepted, delivery_of(&history, failed(1), false)));
        assert!(!is_lost(), "an address accepted one, and the other reports no failure");
        let first = delivery_of(&history, failed(1), true);
        let second = Arc::clone(&first);
        drop(first);
        assert!(!is_lost(), "one address has it still");
        drop(second);
        assert!(is_lost());
    }

    #[test]
    fn a_failure_is_dropped_only_for_other_failures() {
        let target = busy(Channel::Slack);
        for id in 1..WAITING_MAX {
            target.add(delivery(id, "shop", id % 2 == 0));
        }
        target.add(delivery(100, "shop", true));
        assert_eq!(ids(&target)[..3], ["2", "3", "4"], "the oldest notice that reports no failure is dropped");
        for id in 101..100 + WAITING_MAX {
            target.add(delivery(id, "shop", true));
        }
        assert_eq!(lock(&target.queue).len(), WAITING_MAX);
        assert!(lock(&target.queue).iter().skip(1).all(|waiting| waiting.notice.reports_failure));
    }

    #[test]
    fn only_the_newest_heartbeat_of_a_workspace_waits() {
        let target = busy(Channel::Heartbeat);
        for (id, workspace) in [(1, "shop"), (2, "lab"), (3, "shop"), (4, "shop")] {
            target.add(delivery(id, workspace, false));
        }
        assert_eq!(ids(&target), ["2", "4"]);
    }
}
