//! The metrics of this process, as text for Prometheus (format 0.0.4).
//!
//! Counters begin at zero with the process. The gauges of a backup come from the history.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::model::Code;
use crate::service::{BackupStatus, Record, Workspace};
use crate::util::lock;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The value of the label `workspace` for runs with other settings than the configured ones.
pub const OTHER: &str = "other";

/// Upper bounds in seconds, from a step that has nothing to do up to the default of `SYNC_TIMEOUT`.
const BUCKETS: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0];
/// The steps of a sync that are timed, in order.
const STEPS: [&str; 5] = ["fetch", "probe", "pull", "commit", "push"];
/// The counters of this process.
#[derive(Default)]
pub struct Metrics(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// The count for each workspace and code.
    runs: BTreeMap<(String, &'static str), u64>,
    /// The histogram of each workspace.
    run_times: BTreeMap<String, Histogram>,
    /// The histograms in the order of [`STEPS`].
    step_times: [Histogram; STEPS.len()],
    /// The count for each path and status. Both come from small sets.
    requests: BTreeMap<(&'static str, u16), u64>,
}

#[derive(Clone, Default)]
struct Histogram {
    /// The last entry counts the values above all bounds.
    counts: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.counts[place] += 1;
        self.seconds += seconds;
    }
}

impl Metrics {
    /// Counts an ended run. The caller leaves out dry runs and verifications.
    pub fn count_run(&self, workspace: &str, code: Code, time: Duration) {
        let mut counts = lock(&self.0);
        *counts.runs.entry((workspace.to_owned(), code.as_str())).or_default() += 1;
        counts.run_times.entry(workspace.to_owned()).or_default().add(time);
    }

    /// Counts a step that succeeded. A step that is not timed is ignored.
    pub fn count_step(&self, step: &str, time: Duration) {
        if let Some(index) = STEPS.iter().position(|known| *known == step) {
            lock(&self.0).step_times[index].add(time);
        }
    }

    /// Counts an answered request.
    pub fn count_request(&self, path: &'static str, status: u16) {
        *lock(&self.0).requests.entry((path, status)).or_default() += 1;
    }

    /// Returns all metrics as text: those counted here, and the current values of the configured backups, of the runs
    /// in progress and of the process, which started at `process_start`.
    pub fn to_text(&self, backups: &[Workspace], in_progress: usize, process_start: SystemTime) -> String {
        let counts = lock(&self.0);
        let mut text = Text(String::with_capacity(8 << 10));
        let name = "windmill_git_sync_runs_total";
        let help = "Completed runs by workspace and result code; those with other settings count as `other`.";
        text.head(name, "counter", help);
        let mut runs = counts.runs.clone();
        // Each code of a configured workspace has a line, even if the count is 0, so that the first failure is seen as
        // an increase.
        for backup in backups {
            for code in [Code::Pushed, Code::Unchanged].into_iter().chain(Code::failures()) {
                runs.entry((backup.id.clone(), code.as_str())).or_default();
            }
        }
        for ((workspace, code), count) in runs {
            text.line(name, &format!("workspace=\"{workspace}\",code=\"{code}\""), count);
        }
        let name = "windmill_git_sync_run_duration_seconds";
        text.head(name, "histogram", "Duration of a run, including the wait for its turn.");
        for (workspace, times) in &counts.run_times {
            text.histogram(name, &format!("workspace=\"{workspace}\""), times);
        }
        let name = "windmill_git_sync_step_duration_seconds";
        text.head(name, "histogram", "Duration of a successful step of a sync.");
        for (step, times) in STEPS.iter().zip(&counts.step_times) {
            text.histogram(name, &format!("step=\"{step}\""), times);
        }
        for (name, help, value) in BACKUP_GAUGES {
            let name = format!("windmill_git_sync_{name}");
            text.head(&name, "gauge", help);
            for backup in backups {
                text.line(&name, &format!("workspace=\"{}\"", backup.id), value(backup));
            }
        }
        text.single("windmill_git_sync_in_progress", "Runs in progress in this process.", in_progress);
        let name = "windmill_git_sync_http_requests_total";
        text.head(name, "counter", "Answers by path and status.");
        for ((path, status), count) in &counts.requests {
            text.line(name, &format!("path=\"{path}\",status=\"{status}\""), count);
        }
        let name = "windmill_git_sync_build_info";
        text.head(name, "gauge", "1, with the version as a label.");
        text.line(name, concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
        if let Some(bytes) = resident_memory_bytes() {
            let help = "Resident memory of this process, without its programs.";
            text.single("process_resident_memory_bytes", help, bytes);
        }
        let help = "Start of this process since the Unix epoch.";
        text.single("process_start_time_seconds", help, seconds(process_start));
        text.0
    }
}

/// A gauge of each configured backup: its name without the prefix, its help text and its value.
type BackupGauge = (&'static str, &'static str, fn(&Workspace) -> u64);

const BACKUP_GAUGES: [BackupGauge; 6] = [
    ("last_success_timestamp_seconds", "End of the last successful sync, or 0.", |of| end(&of.backup.last_success)),
    ("last_attempt_timestamp_seconds", "End of the last sync, or 0.", |of| end(&of.backup.last_run)),
    ("consecutive_failures", "Syncs that failed since the last successful one.", |of| of.backup.consecutive_failures),
    ("items", "Items of the workspace when a sync last read them, or 0.", |of| items(&of.backup)),
    ("warnings", "Warnings of the last sync.", |of| warnings(&of.backup)),
    ("last_verify_success_timestamp_seconds", "End of the last good verification, or 0.", |of| {
        end(&of.verified.last_success)
    }),
];

fn items(backup: &BackupStatus) -> u64 {
    [&backup.last_run, &backup.last_success].into_iter().flatten().find_map(|run| run.items).unwrap_or(0) as u64
}

fn warnings(backup: &BackupStatus) -> u64 {
    backup.last_run.as_ref().map_or(0, |run| run.warnings.len() as u64)
}

/// The text of the metrics that was written so far.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    /// Writes a gauge without labels.
    fn single(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn histogram(&mut self, name: &str, labels: &str, times: &Histogram) {
        let mut total = 0;
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(times.counts) {
            total += count;
            self.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), total);
        }
        self.line(&format!("{name}_sum"), labels, times.seconds);
        self.line(&format!("{name}_count"), labels, total);
    }
}

/// Returns when a run ended, in seconds; 0 if there was none.
fn end(run: &Option<Record>) -> u64 {
    run.as_ref().and_then(Record::ended_at).map_or(0, seconds)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Returns the resident memory of this process, if `/proc` shows it.
fn resident_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(metrics: &Metrics) -> String {
        let run = |seconds| Record {
            ended: format!("1970-01-01T00:0{}:{}Z", seconds / 60, seconds % 60),
            ..Record::for_test("01", true)
        };
        let backup = BackupStatus {
            last_success: Some(run(100)),
            last_run: Some(Record { items: Some(20), warnings: vec![String::new(); 2], ..run(200) }),
            consecutive_failures: 3,
            ..Default::default()
        };
        let verified = BackupStatus { last_success: Some(run(150)), ..Default::default() };
        let shop = Workspace::configured("shop", backup, verified);
        let none = Workspace::configured("new", BackupStatus::default(), BackupStatus::default());
        metrics.to_text(&[shop, none], 1, SystemTime::UNIX_EPOCH + Duration::from_secs(50))
    }

    #[track_caller]
    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|actual| actual == *line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn the_text_has_the_counted_values() {
        let metrics = Metrics::default();
        metrics.count_run("shop", Code::Pushed, Duration::from_millis(700));
        metrics.count_run("shop", Code::Pushed, Duration::from_secs(3600));
        metrics.count_run(OTHER, Code::RequestInvalid, Duration::ZERO);
        metrics.count_step("pull", Duration::from_millis(250));
        metrics.count_step("queue", Duration::from_millis(250));
        metrics.count_request("/health", 200);
        metrics.count_request("/health", 200);
        let text = text_of(&metrics);
        has(
            &text,
            &[
                "windmill_git_sync_runs_total{workspace=\"shop\",code=\"pushed\"} 2",
                "windmill_git_sync_runs_total{workspace=\"shop\",code=\"git_rejected\"} 0",
                "windmill_git_sync_runs_total{workspace=\"new\",code=\"pushed\"} 0",
                "windmill_git_sync_runs_total{workspace=\"other\",code=\"request_invalid\"} 1",
                "windmill_git_sync_run_duration_seconds_bucket{workspace=\"shop\",le=\"0.5\"} 0",
                "windmill_git_sync_run_duration_seconds_bucket{workspace=\"shop\",le=\"1\"} 1",
                "windmill_git_sync_run_duration_seconds_bucket{workspace=\"shop\",le=\"1800\"} 1",
                "windmill_git_sync_run_duration_seconds_bucket{workspace=\"shop\",le=\"+Inf\"} 2",
                "windmill_git_sync_run_duration_seconds_sum{workspace=\"shop\"} 3600.7",
                "windmill_git_sync_run_duration_seconds_count{workspace=\"shop\"} 2",
                // A bound belongs to its own bucket.
                "windmill_git_sync_step_duration_seconds_bucket{step=\"pull\",le=\"0.1\"} 0",
                "windmill_git_sync_step_duration_seconds_bucket{step=\"pull\",le=\"0.25\"} 1",
                "windmill_git_sync_step_duration_seconds_count{step=\"push\"} 0",
                "windmill_git_sync_last_success_timestamp_seconds{workspace=\"shop\"} 100",
                "windmill_git_sync_last_success_timestamp_seconds{workspace=\"new\"} 0",
                "windmill_git_sync_last_attempt_timestamp_seconds{workspace=\"shop\"} 200",
                "windmill_git_sync_consecutive_failures{workspace=\"shop\"} 3",
                "windmill_git_sync_items{workspace=\"shop\"} 20",
                "windmill_git_sync_items{workspace=\"new\"} 0",
                "windmill_git_sync_warnings{workspace=\"shop\"} 2",
                "windmill_git_sync_in_progress 1",
                "windmill_git_sync_http_requests_total{path=\"/health\",status=\"200\"} 2",
                concat!("windmill_git_sync_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
                "process_start_time_seconds 50",
            ],
        );
        assert!(!text.contains("queue"));
        assert_eq!(text.contains("\nprocess_resident_memory_bytes "), cfg!(target_os = "linux"));
    }

    #[test]
    fn each_series_occurs_once_and_each_name_has_help_and_type_before_it() {
        let metrics = Metrics::default();
        metrics.count_run("shop", Code::Timeout, Duration::from_secs(1));
        metrics.count_run("shop", Code::ShuttingDown, Duration::from_secs(1));
        let text = text_of(&metrics);
        let mut seen = Vec::new();
        let mut described = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                described.push(rest.split(' ').next().unwrap());
            } else if !line.starts_with('#') {
                let series = line.rsplit_once(' ').unwrap().0;
                assert!(!seen.contains(&series), "{series} is there twice");
                seen.push(series);
                let last = *described.last().unwrap();
                assert!(series.starts_with(last), "{series} below {last}");
            }
        }
        assert_eq!(text.matches("# HELP ").count(), described.len());
        assert!(text.ends_with('\n'));
    }
}
